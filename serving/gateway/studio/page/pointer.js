// Mouse, pen and fingers on both canvases. Fingers paint until a pen was seen; then they only move the view.

const WHEEL_STEP = 0.0016;

export class Pointers {
  constructor(app, view, stage, strokes) {
    Object.assign(this, { app, view, stage, strokes });
    this.down = new Map(); // pointer id -> {x, y} in fractions of the canvas
    this.painting = null; // the pointer that paints
    this.panning = null; // the pointer that moves the view
    this.pinched = false; // two fingers were down, until all are up
    this.penSeen = false;
    this.space = false;
    for (const canvas of Object.values(stage.canvases)) this.listen(canvas);
    addEventListener("keydown", (event) => this.holdSpace(event, true));
    addEventListener("keyup", (event) => this.holdSpace(event, false));
    addEventListener("blur", () => this.holdSpace({ key: " " }, false));
  }

  listen(canvas) {
    canvas.addEventListener("pointerdown", (event) => this.press(canvas, event));
    canvas.addEventListener("pointermove", (event) => this.move(canvas, event));
    canvas.addEventListener("pointerup", (event) => this.release(event, true));
    canvas.addEventListener("pointercancel", (event) => this.release(event, false));
    canvas.addEventListener("pointerleave", () => this.painting === null && this.stage.setCursor(null));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.wheel(canvas, event), { passive: false });
  }

  press(canvas, event) {
    if (event.pointerType === "pen") this.penSeen = true;
    this.stage.canvases.map.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    const at = fractions(canvas, event);
    this.down.set(event.pointerId, at);
    if (this.down.size === 2) this.beginPinch();
    else if (this.down.size > 2 || this.pinched) return;
    else if (this.moves(event)) this.panning = event.pointerId;
    else if (event.button === 0) {
      this.painting = event.pointerId;
      const [x, y] = this.pixel(at);
      this.stage.setCursor({ x, y });
      this.strokes.start(x, y, event.altKey ? "picker" : undefined);
    }
  }

  /** Whether a press moves the view instead of painting. */
  moves(event) {
    const finger = event.pointerType === "touch" && this.penSeen;
    return this.app.tool === "hand" || this.space || event.button === 1 || finger;
  }

  beginPinch() {
    this.pinched = true;
    this.panning = null;
    if (this.painting !== null) this.strokes.abort(); // the first finger did not mean to paint
    this.painting = null;
    this.stage.setCursor(null);
  }

  move(canvas, event) {
    const at = fractions(canvas, event);
    const before = this.down.get(event.pointerId);
    if (this.pinched && before) this.pinch(event.pointerId, at);
    else if (event.pointerId === this.panning) this.view.panBy(at.x - before.x, at.y - before.y);
    else this.trace(canvas, event);
    if (before) this.down.set(event.pointerId, at);
  }

  /** Follow every point that the browser has seen since the last event, for smooth strokes. */
  trace(canvas, event) {
    const paints = event.pointerId === this.painting;
    const events = paints ? (event.getCoalescedEvents?.() ?? []) : [];
    for (const each of events.length ? events : [event]) {
      const [x, y] = this.pixel(fractions(canvas, each), false);
      if (paints || this.strokes.corners.length) this.strokes.move(x, y);
      if (event.pointerType !== "touch" || paints) this.stage.setCursor({ x, y });
    }
  }

  pinch(id, at) {
    const other = [...this.down].find(([key]) => key !== id)?.[1];
    const before = this.down.get(id);
    if (!other) return;
    const spread = (p) => Math.hypot(p.x - other.x, p.y - other.y);
    this.view.panBy((at.x - before.x) / 2, (at.y - before.y) / 2);
    const factor = spread(at) / Math.max(0.001, spread(before));
    this.view.zoomAt(factor, (at.x + other.x) / 2, (at.y + other.y) / 2);
  }

  release(event, completed) {
    this.down.delete(event.pointerId);
    if (event.pointerId === this.painting) {
      this.painting = null;
      if (completed) this.strokes.finish();
      else this.strokes.abort(); // the system took the pointer away: this was no stroke
      if (event.pointerType === "touch") this.stage.setCursor(null);
    }
    if (event.pointerId === this.panning) this.panning = null;
    if (this.down.size === 0) this.pinched = false;
  }

  wheel(canvas, event) {
    event.preventDefault();
    const { x, y } = fractions(canvas, event);
    const pixels = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 * event.deltaY : event.deltaY;
    this.view.zoomAt(Math.exp(-pixels * (event.ctrlKey ? 6 : 1) * WHEEL_STEP), x, y);
  }

  holdSpace(event, held) {
    if (event.key !== " ") return;
    const typing = held && event.target.closest?.("input, button, select, textarea, a, [role=radio]");
    this.space = held && !typing;
    document.body.classList.toggle("moving", this.space);
    if (this.space) event.preventDefault();
  }

  /** The map pixel under a point; `inside` keeps it within the map. */
  pixel({ x, y }, inside = true) {
    const [mx, my] = this.view.at(x, y).map(Math.floor);
    if (!inside) return [mx, my];
    const { width, height } = this.app.model;
    return [Math.max(0, Math.min(width - 1, mx)), Math.max(0, Math.min(height - 1, my))];
  }
}

function fractions(canvas, event) {
  const box = canvas.getBoundingClientRect();
  return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
}
