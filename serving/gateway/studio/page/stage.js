// The two canvases: the label map and the picture, drawn with one view. Canvases only show; labels are in the painting.

import { byId, oncePerFrame } from "./dom.js";
import { cut } from "./painter/rect.js";
import { coloured, colourTable, scale2x } from "./painter/smooth.js";
import { strings } from "./strings.js";

const MARGIN = 3; // map pixels around a change whose smoothing may change
const EXACT_FROM = 5; // zoom from which single pixels show
const NARROW = "(max-width: 820px)"; // as in panels.css
const REST_REM = 15.2; // height of what a narrow page shows beside the pictures, as in panels.css

export class Stage {
  constructor(app, view) {
    this.app = app;
    this.view = view;
    const { width, height } = app.model;
    this.aspect = height / width;
    document.documentElement.style.setProperty("--aspect", String(this.aspect));
    this.doublings = Math.max(width, height) <= 256 ? 2 : Math.max(width, height) <= 512 ? 1 : 0;
    this.table = colourTable(app.palette);
    this.smooth = surface(width << this.doublings, height << this.doublings);
    this.exact = surface(width, height);
    this.canvases = { map: byId("map"), picture: byId("picture") };
    this.cursor = null; // {x, y, keyboard} in map pixels
    this.draw = oncePerFrame(() => this.paintAll());
    view.onChange = this.draw;
    for (const name of ["settings", "frame"]) app.on(name, this.draw);
    app.on("labels", (rect) => this.refresh(rect));
    const resized = new ResizeObserver(oncePerFrame(() => this.resize()));
    for (const element of [byId("stage"), byId("stage").parentElement]) resized.observe(element);
    this.refresh(app.painting.all());
    this.resize();
  }

  /** Redraw a rectangle of the label map into the two surfaces. */
  refresh(rect) {
    const { width, height } = this.app.model;
    const x = Math.max(0, rect.x - MARGIN);
    const y = Math.max(0, rect.y - MARGIN);
    const part = {
      x,
      y,
      width: Math.min(width, rect.x + rect.width + MARGIN) - x,
      height: Math.min(height, rect.y + rect.height + MARGIN) - y,
    };
    let labels = cut(this.app.painting.labels, width, part);
    this.exact.putImageData(coloured(labels, part.width, part.height, this.table), x, y);
    let [w, h] = [part.width, part.height];
    for (let i = 0; i < this.doublings; i++) {
      labels = scale2x(labels, w, h);
      [w, h] = [2 * w, 2 * h];
    }
    const k = 1 << this.doublings;
    // The part's own rim was smoothed without its neighbours, so the rim stays as it is where it is inside the map.
    const [l, t] = [x ? k : 0, y ? k : 0];
    const [r, b] = [x + part.width < width ? k : 0, y + part.height < height ? k : 0];
    this.smooth.putImageData(coloured(labels, w, h, this.table), k * x, k * y, l, t, w - l - r, h - t - b);
    this.draw();
  }

  resize() {
    byId("stage").dataset.flow = flow(byId("stage").parentElement, this.aspect);
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of Object.values(this.canvases)) {
      const side = canvas.clientWidth;
      canvas.width = Math.max(1, Math.round(side * ratio));
      canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    }
    this.draw();
  }

  paintAll() {
    const smooth = this.view.zoom < EXACT_FROM;
    this.paintOne(this.canvases.map, smooth ? this.smooth.canvas : this.exact.canvas, smooth);
    if (this.app.lastFrame) this.paintOne(this.canvases.picture, this.app.lastFrame.bitmap, true);
  }

  paintOne(canvas, image, smoothly) {
    const context = canvas.getContext("2d");
    const { width, height } = this.app.model;
    const { x, y, zoom } = this.view;
    const k = image.width / width;
    context.imageSmoothingEnabled = smoothly;
    context.imageSmoothingQuality = "high";
    context.drawImage(image, x * k, y * k, (width / zoom) * k, (height / zoom) * k, 0, 0, canvas.width, canvas.height);
    if (this.cursor) this.paintCursor(context, canvas);
  }

  /** The outline of the brush, or a cross, in black and white so that it shows on every colour. */
  paintCursor(context, canvas) {
    const scale = this.view.scale(canvas.width);
    const cx = (this.cursor.x + 0.5 - this.view.x) * scale;
    const cy = (this.cursor.y + 0.5 - this.view.y) * scale;
    const ratio = window.devicePixelRatio || 1;
    const radius = Math.max(this.app.hasSize ? (this.app.size * scale) / 2 : 0, 3 * ratio);
    const path = new Path2D();
    path.arc(cx, cy, radius, 0, 2 * Math.PI);
    if (this.cursor.keyboard) {
      const [inner, outer] = [radius + 3 * ratio, radius + 11 * ratio];
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        path.moveTo(cx + dx * inner, cy + dy * inner);
        path.lineTo(cx + dx * outer, cy + dy * outer);
      }
    }
    for (const [colour, width] of [["rgba(0, 0, 0, 0.55)", 3.5], ["#fff", 1.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = width * ratio;
      context.stroke(path);
    }
  }

  setCursor(cursor) {
    this.cursor = cursor;
    this.draw();
  }

  /** Name what is to be seen, for a screen reader. */
  describe() {
    const counts = new Map();
    for (const label of this.app.painting.labels) counts.set(label, (counts.get(label) ?? 0) + 1);
    const largest = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 5);
    const names = largest.map(([label]) => this.app.nameOf(label)).join(", ");
    this.canvases.picture.setAttribute("aria-label", strings.pictureArea(names));
  }
}

/** Whether both pictures are larger side by side ("row") or one above the other ("column"). */
function flow(box, aspect) {
  const narrow = matchMedia(NARROW).matches;
  const width = box.clientWidth;
  const height = narrow ? innerHeight - REST_REM * parseFloat(getComputedStyle(document.documentElement).fontSize) : box.clientHeight;
  const besides = Math.min(width / 2, height / aspect);
  const above = Math.min(width, height / 2 / aspect);
  return above > besides ? "column" : "row";
}

function surface(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas.getContext("2d");
}
