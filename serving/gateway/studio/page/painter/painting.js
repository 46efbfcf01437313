// The painting: labels, what lies below them, what is painted, what is locked, and every step back.

import { cut, difference, paste, union } from "./rect.js";
import { decode, encode } from "./rle.js";

/** Paint that restores what lies below: the map as it was loaded. */
export const ERASE = -1;

const MOST_BYTES = 64 << 20; // of steps to undo; the oldest go first

/**
 * A label map that is painted on.
 *
 * `labels` and `below` are Uint8Array [height * width]; `painted` is 1 where a stroke differs from `below` or was put
 * down on purpose; `locked` is null or a copy of `painted`, and locked pixels keep their label. A change calls
 * `onChange(rect)`.
 */
export class Painting {
  constructor(width, height, labels = new Uint8Array(width * height)) {
    this.width = width;
    this.height = height;
    this.onChange = () => {};
    this.load(labels);
  }

  /** Start anew from a map, without steps to undo. */
  load(labels) {
    if (labels.length !== this.width * this.height) {
      throw new RangeError(`[painting] expected ${this.width * this.height} labels but got ${labels.length}`);
    }
    this.labels = labels.slice();
    this.below = labels.slice();
    this.painted = new Uint8Array(labels.length);
    this.locked = null;
    this.step = null;
    this.done = [];
    this.undone = [];
    this.onChange(this.all());
  }

  all() {
    return { x: 0, y: 0, width: this.width, height: this.height };
  }

  setLock(on) {
    this.locked = on ? this.painted.slice() : null;
  }

  /** Whether a pixel may change. */
  open = (at) => !this.locked || !this.locked[at];

  /** Begin a step: everything until `end` is undone at once. `name` says what it is. */
  begin(name) {
    this.end();
    this.step = { name, labels: this.labels.slice(), painted: this.painted.slice(), below: null, rect: null };
  }

  /** Paint the spans of a shape: `shape(emit)` calls emit(y, start, end). `paint` is a label or ERASE. */
  paint(shape, paint) {
    let touched = null;
    shape((y, start, end) => {
      const row = y * this.width;
      for (let at = row + start; at < row + end; at++) {
        if (!this.open(at)) continue;
        this.labels[at] = paint === ERASE ? this.below[at] : paint;
        this.painted[at] = paint === ERASE ? 0 : 1;
      }
      touched = union(touched, { x: start, y, width: end - start, height: 1 });
    });
    if (!touched) return;
    this.step.rect = union(this.step.rect, touched);
    this.onChange(touched);
  }

  /** Finish the step. Returns whether anything changed. */
  end() {
    const step = this.step;
    this.step = null;
    if (!step) return false;
    const pairs = [[step.labels, this.labels], [step.painted, this.painted]];
    if (step.below) pairs.push([step.below, this.below]);
    const rect = difference(pairs, this.width, step.rect);
    if (!rect) return false;
    const planes = pairs.map(([before, after]) => [before, after].map((p) => encode(cut(p, this.width, rect))));
    this.done.push({ name: step.name, rect, planes, bytes: planes.flat().reduce((sum, p) => sum + p.length, 0) });
    this.undone = [];
    let bytes = this.done.reduce((sum, entry) => sum + entry.bytes, 0);
    while (bytes > MOST_BYTES && this.done.length > 1) bytes -= this.done.shift().bytes;
    return true;
  }

  /** Drop the step that has begun, and put back what was there. */
  cancel() {
    const step = this.step;
    this.step = null;
    if (!step || !step.rect) return;
    this.labels = step.labels;
    this.painted = step.painted;
    if (step.below) this.below = step.below;
    this.onChange(step.rect);
  }

  /** Put a whole map in place as one step that can be undone: the map becomes what lies below, nothing is painted. */
  replace(labels, name) {
    this.begin(name);
    this.step.below = this.below.slice();
    this.step.rect = this.all();
    this.labels.set(labels);
    this.below.set(labels);
    this.painted.fill(0);
    this.setLock(false);
    this.onChange(this.all());
    return this.end();
  }

  /** Go one step back, or with `again` one step forward. Returns the step's name, or null where there is none. */
  undo(again = false) {
    this.end();
    const entry = (again ? this.undone : this.done).pop();
    if (!entry) return null;
    const planes = [this.labels, this.painted, this.below];
    entry.planes.forEach((pair, i) => {
      paste(planes[i], this.width, entry.rect, decode(pair[again ? 1 : 0], entry.rect.width * entry.rect.height));
    });
    (again ? this.done : this.undone).push(entry);
    this.onChange(entry.rect);
    return entry.name;
  }

  redo() {
    return this.undo(true);
  }
}
