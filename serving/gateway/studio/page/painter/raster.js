// Shapes as spans of pixels. Integers only: a pixel belongs to a shape or not, and no edge is ever blended.
//
// Every shape calls emit(y, start, end) for the pixels start <= x < end of row y, clipped to the picture. A pixel may
// be emitted more than once. Coordinates are pixel centres; all products stay below 2^53 for sides up to 4096.

/** Pixels whose centre is at most half a diameter from the segment: 4 * distance^2 <= diameter^2. */
export function segment(size, x0, y0, x1, y1, diameter, emit) {
  const reach = diameter >> 1;
  const dx = x1 - x0;
  const dy = y1 - y0;
  const length2 = dx * dx + dy * dy;
  const limit = diameter * diameter;
  const left = Math.max(0, Math.min(x0, x1) - reach);
  const right = Math.min(size.width - 1, Math.max(x0, x1) + reach);
  const bottom = Math.min(size.height - 1, Math.max(y0, y1) + reach);
  for (let y = Math.max(0, Math.min(y0, y1) - reach); y <= bottom; y++) {
    let start = -1;
    let end = left;
    for (let x = left; x <= right; x++) {
      const px = x - x0;
      const py = y - y0;
      const along = px * dx + py * dy;
      let inside;
      if (along <= 0) inside = 4 * (px * px + py * py) <= limit;
      else if (along >= length2) inside = 4 * ((x - x1) * (x - x1) + (y - y1) * (y - y1)) <= limit;
      else {
        const across = dx * py - dy * px;
        inside = 4 * across * across <= limit * length2;
      }
      if (inside) {
        if (start < 0) start = x;
        end = x + 1;
      } else if (start >= 0) break; // the shape is convex: a row has one span
    }
    if (start >= 0) emit(y, start, end);
  }
}

/** All pixels between two corners, both included. */
export function rectangle(size, x0, y0, x1, y1, emit) {
  const start = Math.max(0, Math.min(x0, x1));
  const end = Math.min(size.width, Math.max(x0, x1) + 1);
  const bottom = Math.min(size.height - 1, Math.max(y0, y1));
  if (start >= end) return;
  for (let y = Math.max(0, Math.min(y0, y1)); y <= bottom; y++) emit(y, start, end);
}

/** The inside of a closed polygon by the even-odd rule, and its outline one pixel wide. `points` is [[x, y], ..]. */
export function polygon(size, points, emit) {
  if (points.length === 0) return;
  const rows = points.map((point) => point[1]);
  const bottom = Math.min(size.height - 1, Math.max(...rows));
  for (let y = Math.max(0, Math.min(...rows)); y <= bottom; y++) {
    const crossings = [];
    forEachEdge(points, ([ax, ay], [bx, by]) => {
      if (ay <= y === by <= y) return;
      crossings.push(ceilDivide(ax * (by - ay) + (y - ay) * (bx - ax), by - ay)); // the first pixel not left of the edge
    });
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const start = Math.max(0, crossings[i]);
      const end = Math.min(size.width, crossings[i + 1]);
      if (start < end) emit(y, start, end);
    }
  }
  forEachEdge(points, ([ax, ay], [bx, by]) => segment(size, ax, ay, bx, by, 1, emit));
}

function forEachEdge(points, visit) {
  points.forEach((point, i) => visit(point, points[(i + 1) % points.length]));
}

function ceilDivide(numerator, denominator) {
  if (denominator < 0) return ceilDivide(-numerator, -denominator);
  const remainder = ((numerator % denominator) + denominator) % denominator;
  return (numerator - remainder) / denominator + (remainder > 0 ? 1 : 0);
}

/** The connected pixels (by sides, not corners) that have the label under (x, y), where `open(index)` is true. */
export function flood(size, labels, x, y, open, emit) {
  const { width, height } = size;
  if (x < 0 || y < 0 || x >= width || y >= height) return;
  const label = labels[y * width + x];
  const seen = new Uint8Array(width * height);
  const wanted = (at) => labels[at] === label && !seen[at] && open(at);
  const waiting = wanted(y * width + x) ? [y * width + x] : [];
  while (waiting.length) {
    const at = waiting.pop();
    if (seen[at]) continue;
    const row = Math.floor(at / width);
    const first = row * width;
    let start = at;
    let end = at + 1;
    while (start > first && wanted(start - 1)) start--;
    while (end < first + width && wanted(end)) end++;
    seen.fill(1, start, end);
    emit(row, start - first, end - first);
    for (const next of [row - 1, row + 1]) {
      if (next < 0 || next >= height) continue;
      const shift = (next - row) * width;
      for (let i = start + shift; i < end + shift; i++) if (wanted(i)) waiting.push(i);
    }
  }
}
