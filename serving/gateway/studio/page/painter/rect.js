// Rectangles of pixels: {x, y, width, height}, or null for "nothing".

/** The smallest rectangle around two. */
export function union(a, b) {
  if (!a) return b;
  if (!b) return a;
  const x = Math.min(a.x, b.x);
  const y = Math.min(a.y, b.y);
  return {
    x,
    y,
    width: Math.max(a.x + a.width, b.x + b.width) - x,
    height: Math.max(a.y + a.height, b.y + b.height) - y,
  };
}

/** The pixels of a rectangle, out of a plane whose rows are `width` long. */
export function cut(plane, width, rect) {
  const part = new Uint8Array(rect.width * rect.height);
  for (let row = 0; row < rect.height; row++) {
    const from = (rect.y + row) * width + rect.x;
    part.set(plane.subarray(from, from + rect.width), row * rect.width);
  }
  return part;
}

/** The inverse of `cut`. */
export function paste(plane, width, rect, part) {
  for (let row = 0; row < rect.height; row++) {
    plane.set(part.subarray(row * rect.width, (row + 1) * rect.width), (rect.y + row) * width + rect.x);
  }
}

/** The smallest rectangle inside `within` that holds every pixel in which one of the pairs of planes differs. */
export function difference(pairs, width, within) {
  if (!within) return null;
  let [left, right, top, bottom] = [Infinity, -1, Infinity, -1];
  for (let y = within.y; y < within.y + within.height; y++) {
    for (let x = within.x; x < within.x + within.width; x++) {
      const at = y * width + x;
      if (pairs.every(([a, b]) => a[at] === b[at])) continue;
      if (x < left) left = x;
      if (x > right) right = x;
      if (y < top) top = y;
      if (y > bottom) bottom = y;
    }
  }
  if (right < 0) return null;
  return { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
}
