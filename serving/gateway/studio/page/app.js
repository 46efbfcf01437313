// What the parts of the page share: the painting, the settings, the style, and who listens to what.

import { Painting } from "./painter/painting.js";
import { cut, union } from "./painter/rect.js";
import { encode } from "./painter/rle.js";
import { oncePerFrame } from "./dom.js";

const REMEMBERED = "spade-studio-settings";
const SETTINGS = {
  tool: "brush",
  sizes: { brush: 9, line: 3, eraser: 9 },
  view: "both", // or "compare"
  theme: null, // or "light", "dark"
};

/**
 * Events: "settings" (a setting changed), "labels" (pixels changed; detail is the rectangle), "step" (a step ended or
 * was undone), "style", "frame" (a picture arrived; detail is {header, bitmap}), "connection".
 */
export class App extends EventTarget {
  constructor(model, classes, brush, live) {
    super();
    this.model = model; // {preset, width, height, style, styles, max_batch}
    this.classes = classes; // [{id, name, colour: [r, g, b]}]
    this.live = live;
    this.palette = [];
    this.names = [];
    for (const { id, name, colour } of classes) {
      this.palette[id] = colour;
      this.names[id] = name;
    }
    this.painting = new Painting(model.width, model.height);
    this.painting.onChange = (rect) => this.changed(rect);
    this.settings = { ...structuredClone(SETTINGS), ...remembered() };
    this.label = brush;
    this.labelBefore = this.label;
    const [from = { seed: 9 }, to = { seed: 5 }] = model.styles.map((named) => ({ named }));
    this.style = { from, to, mix: 0 }; // an end is {seed}, {named}, or {vector, name} of a photo
    this.lastFrame = null;
    this.dirty = null;
    this.flush = oncePerFrame(() => this.sendDirty());
    live.addEventListener("state", () => this.connected());
    live.addEventListener("frame", (event) => this.show(event.detail));
  }

  get tool() {
    return this.settings.tool;
  }

  get size() {
    return this.settings.sizes[this.tool] ?? 1;
  }

  get hasSize() {
    return this.tool in this.settings.sizes;
  }

  nameOf(label) {
    return this.names[label] ?? `${label}`;
  }

  /** Change settings, and remember them. */
  set(changes) {
    Object.assign(this.settings, changes);
    try {
      localStorage.setItem(REMEMBERED, JSON.stringify(this.settings));
    } catch {
      // a browser without storage forgets the settings, and nothing else
    }
    this.emit("settings");
  }

  setSize(size) {
    if (!this.hasSize) return;
    const most = Math.max(8, Math.min(this.model.width, this.model.height) >> 1);
    this.set({ sizes: { ...this.settings.sizes, [this.tool]: Math.max(1, Math.min(most, Math.round(size))) } });
  }

  choose(label) {
    if (label !== this.label) this.labelBefore = this.label;
    this.label = label;
    this.emit("settings");
  }

  setStyle(changes) {
    this.style = { ...this.style, ...changes };
    this.sendStyle();
    this.emit("style");
  }

  /** The style as the gateway takes it, or null for a model without style. */
  get styleSent() {
    return this.model.style ? sentStyle(this.style) : null;
  }

  changed(rect) {
    this.dirty = union(this.dirty, rect);
    this.flush();
    this.emit("labels", rect);
  }

  /** Send what changed since the last time, as one rectangle. Where the line is full, wait and send more at once. */
  sendDirty() {
    if (!this.dirty) return;
    this.live.wake();
    if (!this.live.ready) {
      if (this.live.state === "live") setTimeout(() => this.flush(), 30);
      return;
    }
    const rect = this.dirty;
    this.dirty = null;
    this.live.change({ type: "rect", ...rect, encoding: "rle" }, encode(cut(this.painting.labels, this.model.width, rect)));
  }

  sendStyle() {
    const style = this.styleSent;
    this.live.wake();
    if (style && this.live.state === "live") this.live.change({ type: "style", style });
  }

  connected() {
    if (this.live.state === "live") {
      this.dirty = null; // the whole map goes out
      this.sendStyle();
      this.live.change({ type: "map", encoding: "rle" }, encode(this.painting.labels));
    }
    this.emit("connection");
  }

  async show({ header, bytes }) {
    const blob = new Blob([bytes], { type: `image/${header.format}` });
    const bitmap = await createImageBitmap(blob);
    if (this.lastFrame && this.lastFrame.header.revision > header.revision) return; // a newer frame was decoded first
    this.lastFrame = { header, bitmap, blob };
    this.emit("frame", this.lastFrame);
  }

  emit(name, detail = null) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  on(name, listener) {
    this.addEventListener(name, (event) => listener(event.detail));
  }
}

/** A style as the gateway takes it. */
export function sentStyle({ from, to, mix }) {
  if (mix === 0) return sentEnd(from);
  return mix === 1 ? sentEnd(to) : { from: sentEnd(from), to: sentEnd(to), mix };
}

export function sentEnd({ seed, named, vector }) {
  if (vector) return { vector };
  return named === undefined ? { seed } : { name: named };
}

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(REMEMBERED)) ?? {};
  } catch {
    return {};
  }
}
