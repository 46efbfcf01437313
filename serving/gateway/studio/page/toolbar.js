// Tools, brush size, lock, undo and zoom.

import { announce, byId, h, icon, rovingFocus, setLabel } from "./dom.js";
import { strings } from "./strings.js";

const KEYS = { brush: "B", line: "L", rectangle: "R", polygon: "P", fill: "F", eraser: "E", picker: "I", hand: "H" };

export function makeToolbar(app, view, strokes) {
  const group = byId("tools");
  for (const [tool, key] of Object.entries(KEYS)) {
    const choose = () => {
      strokes.abort();
      app.set({ tool });
    };
    const button = h("button", { type: "button", role: "radio", class: "tool", "data-tool": tool, onclick: choose }, icon(tool));
    const hint = strings.toolHints[tool];
    setLabel(button, hint ? `${strings.toolNames[tool]}: ${hint}` : strings.toolNames[tool], key);
    group.append(button);
  }
  rovingFocus(group, "button", (button) => button.click());
  const size = byId("size");
  size.max = String(Math.max(8, Math.min(app.model.width, app.model.height) >> 1));
  size.addEventListener("input", () => app.setSize(Number(size.value)));
  const lock = byId("lock");
  const toggleLock = () => {
    app.painting.setLock(!app.painting.locked);
    announce(app.painting.locked ? strings.locked : strings.unlocked);
    show();
  };
  lock.addEventListener("click", toggleLock);
  byId("undo").addEventListener("click", () => strokes.undo());
  byId("redo").addEventListener("click", () => strokes.undo(true));
  byId("zoom-in").addEventListener("click", () => view.zoomAt(1.5));
  byId("zoom-out").addEventListener("click", () => view.zoomAt(1 / 1.5));
  byId("zoom-fit").addEventListener("click", () => view.fit());

  function show() {
    for (const button of group.children) {
      const chosen = button.dataset.tool === app.tool;
      button.setAttribute("aria-checked", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
    }
    size.disabled = !app.hasSize;
    size.value = String(app.size);
    size.setAttribute("aria-valuetext", strings.pixels(app.size));
    byId("size-text").textContent = app.hasSize ? String(app.size) : "";
    lock.setAttribute("aria-pressed", String(app.painting.locked !== null));
    byId("undo").disabled = app.painting.done.length === 0;
    byId("redo").disabled = app.painting.undone.length === 0;
    byId("stage").dataset.tool = app.tool;
  }
  app.on("settings", show);
  app.on("step", show);
  show();
  return { toggleLock };
}
