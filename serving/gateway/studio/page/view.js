// Which part of the pictures shows: one zoom and one position for both canvases. Units: map pixels and CSS pixels.

const MOST = 24;

export class View {
  constructor(width, height) {
    this.map = { width, height };
    this.zoom = 1; // 1 shows everything
    this.x = 0; // the map pixel at the left edge
    this.y = 0;
    this.onChange = () => {};
  }

  /** CSS pixels of one map pixel on a canvas that is `side` CSS pixels wide. */
  scale(side) {
    return (this.zoom * side) / this.map.width;
  }

  /** The map position under a point of the canvas, as fractions of its width and height. */
  at(fx, fy) {
    return [this.x + (fx * this.map.width) / this.zoom, this.y + (fy * this.map.height) / this.zoom];
  }

  /** Zoom so that the map position under (fx, fy) stays there. */
  zoomAt(factor, fx = 0.5, fy = 0.5) {
    const [mx, my] = this.at(fx, fy);
    this.zoom = Math.max(1, Math.min(MOST, this.zoom * factor));
    this.x = mx - (fx * this.map.width) / this.zoom;
    this.y = my - (fy * this.map.height) / this.zoom;
    this.keepInside();
  }

  /** Move by fractions of the canvas. */
  panBy(fx, fy) {
    this.x -= (fx * this.map.width) / this.zoom;
    this.y -= (fy * this.map.height) / this.zoom;
    this.keepInside();
  }

  fit() {
    this.zoom = 1;
    this.keepInside();
  }

  /** Bring a map pixel into sight. */
  reveal(mx, my) {
    const [w, h] = [this.map.width / this.zoom, this.map.height / this.zoom];
    this.x = Math.max(Math.min(this.x, mx - 1), mx + 2 - w);
    this.y = Math.max(Math.min(this.y, my - 1), my + 2 - h);
    this.keepInside();
  }

  keepInside() {
    this.x = Math.max(0, Math.min(this.x, this.map.width * (1 - 1 / this.zoom)));
    this.y = Math.max(0, Math.min(this.y, this.map.height * (1 - 1 / this.zoom)));
    this.onChange();
  }
}
