// Small helpers for the page's elements.

import { strings } from "./strings.js";

/** Make an element: h("button", {class: "chip", onclick: f, "aria-label": "x"}, child, ..). */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** Fill in the strings that index.html names: the content, a field's hint, or the accessible name. */
export function fillStrings(root) {
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = strings[element.dataset.text];
  for (const element of root.querySelectorAll("[data-hint]")) element.placeholder = strings[element.dataset.hint];
  for (const element of root.querySelectorAll("[data-label]")) setLabel(element, strings[element.dataset.label]);
}

/** The accessible name, which is the tooltip too; a shortcut belongs to the tooltip alone. */
export function setLabel(element, label, keys = element.dataset.keys) {
  element.setAttribute("aria-label", label);
  element.title = keys ? `${label} (${keys})` : label;
  if (keys) element.setAttribute("aria-keyshortcuts", keys);
}

/** An icon of index.html's sprite. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Say something to a screen reader. */
export function announce(text) {
  byId("spoken").textContent = text;
}

/** Tell everybody, for a few seconds or, with `stay`, until the next notice. An empty text hides it. */
export function notice(text, stay = false) {
  const box = byId("notice");
  clearTimeout(notice.timer);
  box.textContent = text;
  box.hidden = !text;
  if (text && !stay) notice.timer = setTimeout(() => notice(""), 6000);
}

/** Call `task` once per frame at most, however often it is asked for. */
export function oncePerFrame(task) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      task();
    });
  };
}

/**
 * Arrow keys move within a group of buttons, of which one at a time is in the tab order. `choose(button)` is called on
 * arrows where moving means choosing, as in a radio group.
 */
export function rovingFocus(group, selector, choose = () => {}) {
  group.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!step) return;
    const buttons = [...group.querySelectorAll(selector)].filter((button) => button.offsetParent !== null);
    const at = buttons.indexOf(document.activeElement);
    if (at < 0) return;
    event.preventDefault();
    event.stopPropagation();
    const next = Number.isFinite(step) ? (at + step + buttons.length) % buttons.length : step < 0 ? 0 : buttons.length - 1;
    buttons[next].focus();
    choose(buttons[next]);
  });
}
