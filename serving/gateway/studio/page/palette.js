// The classes: search, and one button each.

import { byId, h, rovingFocus } from "./dom.js";
import { strings } from "./strings.js";

export function makePalette(app) {
  const list = byId("classes");
  const search = byId("search");
  const none = byId("none-found");
  const buttons = app.classes.map(({ id, name, colour }) => {
    const key = h("kbd", { "aria-hidden": "true" });
    const swatch = h("span", { class: "swatch" });
    swatch.style.backgroundColor = `rgb(${colour.join(" ")})`;
    return h(
      "button",
      { type: "button", role: "radio", class: "class", "data-id": id, "data-name": name.toLowerCase(), onclick: () => app.choose(id) },
      swatch,
      h("span", { class: "name" }, name),
      key,
    );
  });
  list.append(...buttons);
  rovingFocus(list, "button", (button) => button.click());
  const shown = () => buttons.filter((button) => !button.hidden);

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const button of buttons) button.hidden = !words.every((word) => button.dataset.name.includes(word));
    shown().forEach((button, i) => (button.lastElementChild.textContent = i < 10 ? String((i + 1) % 10) : ""));
    none.hidden = shown().length > 0;
    show();
  }
  function show() {
    const visible = shown();
    const chosen = visible.find((button) => Number(button.dataset.id) === app.label) ?? visible[0];
    for (const button of buttons) {
      const is = Number(button.dataset.id) === app.label;
      button.setAttribute("aria-checked", String(is));
      button.tabIndex = button === chosen ? 0 : -1;
      if (is && app.label !== show.last) scrollTo(list, button);
    }
    show.last = app.label;
    const current = byId("current");
    current.style.backgroundColor = `rgb(${app.palette[app.label].join(" ")})`;
    current.title = strings.chosen(app.nameOf(app.label));
  }
  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    const first = shown()[0];
    if (event.key === "Enter" && first) first.click();
    if (event.key === "Escape") search.value = "";
    if (event.key === "Enter" || event.key === "Escape") {
      filter();
      byId("map").focus();
    }
  });
  search.hidden = app.classes.length < 10;
  app.on("settings", show);
  filter();
  return { nth: (i) => shown()[i]?.click(), search: () => search.focus() };
}

/** Bring a button of a list into sight by scrolling the list alone; the page stays where it is. */
function scrollTo(list, button) {
  const [outer, inner] = [list.getBoundingClientRect(), button.getBoundingClientRect()];
  list.scrollLeft += Math.min(0, inner.left - outer.left) + Math.max(0, inner.right - outer.right);
  list.scrollTop += Math.min(0, inner.top - outer.top) + Math.max(0, inner.bottom - outer.bottom);
}
