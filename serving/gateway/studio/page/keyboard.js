// Shortcuts anywhere on the page, and the painting cursor on the label map.

import { announce, byId } from "./dom.js";
import { strings } from "./strings.js";

const FAR = 8; // pixels of an arrow key with Shift
const TOOLS = { b: "brush", l: "line", r: "rectangle", p: "polygon", f: "fill", e: "eraser", i: "picker", h: "hand" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Keyboard {
  /** `actions` are functions by name: compare, help, search, lock, nth(i). */
  constructor(app, view, stage, strokes, actions) {
    Object.assign(this, { app, view, stage, strokes, actions });
    this.x = app.model.width >> 1;
    this.y = app.model.height >> 1;
    this.shown = false;
    const map = stage.canvases.map;
    map.addEventListener("keydown", (event) => this.onMap(event));
    map.addEventListener("pointerdown", () => (this.shown = false));
    map.addEventListener("focus", () => map.matches(":focus-visible") && this.show());
    map.addEventListener("blur", () => {
      if (this.shown) this.stage.setCursor(null);
      this.shown = false;
    });
    addEventListener("keydown", (event) => this.anywhere(event));
  }

  show() {
    this.shown = true;
    this.stage.setCursor({ x: this.x, y: this.y, keyboard: true });
    this.view.reveal(this.x, this.y);
  }

  onMap(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    if (arrow) this.moveBy(arrow, event.shiftKey ? FAR : 1);
    else if (event.key === "Enter") this.press();
    else if (event.key === "Escape" && this.strokes.busy) this.strokes.abort();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  moveBy([dx, dy], pixels) {
    const { width, height } = this.app.model;
    if (this.app.tool === "hand") {
      this.view.panBy((-dx * pixels) / 64, (-dy * pixels) / 64);
      return;
    }
    this.x = Math.max(0, Math.min(width - 1, this.x + dx * pixels));
    this.y = Math.max(0, Math.min(height - 1, this.y + dy * pixels));
    this.strokes.move(this.x, this.y);
    this.show();
    const label = this.app.nameOf(this.app.painting.labels[this.y * width + this.x]);
    announce(strings.cursorAt(this.x, this.y, label));
  }

  /** Enter begins a stroke and ends it; for a polygon, it adds a corner. */
  press() {
    this.show();
    const name = strings.toolNames[this.app.tool];
    if (this.strokes.from) {
      this.strokes.finish();
      announce(strings.penUp(name));
    } else {
      this.strokes.start(this.x, this.y);
      if (this.strokes.from) announce(strings.penDown(name));
    }
  }

  anywhere(event) {
    if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
    const typing = event.target.matches?.("input:not([type=range]), textarea, select");
    if (typing) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.ctrlKey || event.metaKey) {
      if (key !== "z" && key !== "y") return;
      this.strokes.undo(key === "y" || event.shiftKey);
    } else if (event.altKey || !this.shortcut(key)) return;
    event.preventDefault();
  }

  /** Do what a key stands for. Returns whether it stands for something. */
  shortcut(key) {
    const { app, view } = this;
    const simple = {
      "[": () => app.setSize(app.size - Math.max(1, app.size >> 3)),
      "]": () => app.setSize(app.size + Math.max(1, app.size >> 3)),
      "+": () => view.zoomAt(1.5, ...this.middle()),
      "=": () => view.zoomAt(1.5, ...this.middle()),
      "-": () => view.zoomAt(1 / 1.5, ...this.middle()),
      Home: () => view.fit(),
      x: () => app.choose(app.labelBefore),
      k: () => this.actions.lock(),
      c: () => this.actions.compare(),
      "?": () => this.actions.help(),
      "/": () => this.actions.search(),
      Escape: () => this.strokes.abort(),
    };
    if (TOOLS[key]) app.set({ tool: TOOLS[key] });
    else if (/^[0-9]$/.test(key)) this.actions.nth((Number(key) + 9) % 10);
    else if (simple[key]) simple[key]();
    else return false;
    return true;
  }

  /** Where to zoom: the keyboard's cursor, or the middle. */
  middle() {
    if (!this.shown) return [0.5, 0.5];
    const { width, height } = this.app.model;
    const { x, y, zoom } = this.view;
    return [((this.x + 0.5 - x) * zoom) / width, ((this.y + 0.5 - y) * zoom) / height];
  }
}

/** Focus the painting area. */
export const focusMap = () => byId("map").focus({ preventScroll: true });
