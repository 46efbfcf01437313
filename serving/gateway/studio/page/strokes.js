// What each tool does to the painting, whether a pointer or the keyboard leads it. Coordinates are pixels of the map.

import { ERASE } from "./painter/painting.js";
import { flood, polygon, rectangle, segment } from "./painter/raster.js";
import { announce } from "./dom.js";
import { strings } from "./strings.js";

const CLOSE_ENOUGH = 2; // pixels from the first corner that close a polygon

export class Strokes {
  constructor(app) {
    this.app = app;
    this.corners = []; // of the polygon that is being drawn
    this.from = null; // where the stroke began
    this.last = null; // where a brush was last
  }

  /** True between `start` and `finish`, and while a polygon is open. */
  get busy() {
    return this.from !== null || this.corners.length > 0;
  }

  start(x, y, tool = this.app.tool) {
    const { painting, label } = this.app;
    this.tool = tool;
    if (tool === "picker") this.pick(x, y);
    else if (tool === "polygon") this.corner(x, y);
    else if (tool === "fill") {
      painting.begin(this.stepName());
      painting.paint((emit) => flood(painting, painting.labels, x, y, painting.open, emit), label);
      this.end();
    } else if (tool !== "hand") {
      this.from = this.last = [x, y];
      painting.begin(this.stepName());
      this.move(x, y);
    }
  }

  move(x, y) {
    if (this.tool === "polygon" && this.corners.length) this.repaint((emit) => polygon(this.app.painting, [...this.corners, [x, y]], emit));
    if (!this.from) return;
    const { painting, size } = this.app;
    if (this.tool === "line") this.repaint((emit) => segment(painting, ...this.from, x, y, size, emit));
    else if (this.tool === "rectangle") this.repaint((emit) => rectangle(painting, ...this.from, x, y, emit));
    else {
      painting.paint((emit) => segment(painting, ...this.last, x, y, size, emit), this.paint());
      this.last = [x, y];
    }
  }

  finish() {
    if (!this.from) return;
    this.from = null;
    this.end();
  }

  /** Drop what has begun. */
  abort() {
    if (!this.busy) return;
    this.from = null;
    this.corners = [];
    this.app.painting.cancel();
    this.app.emit("step");
    announce(strings.dropped);
  }

  corner(x, y) {
    const first = this.corners[0];
    const again = this.corners.at(-1);
    const closes = first && Math.max(Math.abs(x - first[0]), Math.abs(y - first[1])) <= CLOSE_ENOUGH;
    const twice = again && again[0] === x && again[1] === y;
    if (this.corners.length > 1 && (closes || twice)) {
      this.closePolygon();
      return;
    }
    if (!twice) this.corners.push([x, y]);
    this.move(x, y);
    announce(strings.cornerAdded(this.corners.length));
  }

  closePolygon() {
    const corners = this.corners;
    this.repaint((emit) => polygon(this.app.painting, corners, emit));
    this.corners = [];
    this.end();
  }

  /** Paint the whole shape anew, in place of what it was. */
  repaint(shape) {
    const { painting } = this.app;
    painting.cancel();
    painting.begin(this.stepName());
    painting.paint(shape, this.paint());
  }

  pick(x, y) {
    const { painting, model } = this.app;
    this.app.choose(painting.labels[y * model.width + x]);
    announce(strings.chosen(this.app.nameOf(this.app.label)));
  }

  end() {
    if (this.app.painting.end()) this.app.emit("step");
  }

  paint() {
    return this.tool === "eraser" ? ERASE : this.app.label;
  }

  stepName() {
    return strings.steps[this.tool](this.app.nameOf(this.app.label));
  }

  undo(again = false) {
    this.abort();
    const name = this.app.painting.undo(again);
    if (name === null) announce(again ? strings.nothingToRedo : strings.nothingToUndo);
    else {
      announce(again ? strings.redid(name) : strings.undid(name));
      this.app.emit("step");
    }
  }
}
