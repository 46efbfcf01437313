// Two pictures side by side or one over the other, light or dark, and the dialogs of the header.

import { byId, h, setLabel } from "./dom.js";
import { strings } from "./strings.js";

export function makeView(app) {
  const stage = byId("stage");
  const split = byId("split");
  const handle = byId("split-handle");
  const compare = () => app.set({ view: app.settings.view === "compare" ? "both" : "compare" });
  byId("compare").addEventListener("click", compare);
  const place = () => stage.style.setProperty("--split", `${split.value}%`);
  split.addEventListener("input", place);
  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  handle.addEventListener("pointermove", (event) => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    const box = byId("map").getBoundingClientRect();
    split.value = String(Math.round((100 * (event.clientX - box.left)) / box.width));
    place();
  });
  place();

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (app.settings.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  byId("theme").addEventListener("click", () => app.set({ theme: isDark() ? "light" : "dark" }));
  dark.addEventListener("change", show);

  const rows = strings.helpRows.map(([keys, text]) => h("div", {}, h("dt", {}, keys), h("dd", {}, text)));
  byId("help-rows").append(...rows);
  const help = () => byId("help-dialog").showModal();
  byId("help").addEventListener("click", help);
  for (const button of document.querySelectorAll("dialog .close")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }
  makeMenu();

  function show() {
    stage.dataset.view = app.settings.view;
    byId("compare").setAttribute("aria-pressed", String(app.settings.view === "compare"));
    document.documentElement.dataset.theme = isDark() ? "dark" : "light";
    setLabel(byId("theme"), isDark() ? strings.themeLight : strings.themeDark);
  }
  app.on("settings", show);
  show();
  return { compare, help };
}

/** The menu under "Save": closes on a choice, on Escape and on a click elsewhere. */
function makeMenu() {
  const menu = byId("save-menu");
  const button = menu.querySelector("summary");
  addEventListener("pointerdown", (event) => menu.contains(event.target) || (menu.open = false));
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    button.focus();
    event.stopPropagation();
  });
  menu.addEventListener("click", (event) => event.target.closest("[role=menuitem], .item") && (menu.open = false));
}
