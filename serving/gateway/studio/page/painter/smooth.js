// Label maps for showing: enlarged with smooth diagonals (Scale2x), then coloured. The labels themselves stay exact.

/** One doubling: labels [height, width] -> [2 height, 2 width]. A corner takes the label of two equal neighbours. */
export function scale2x(labels, width, height) {
  const out = new Uint8Array(4 * width * height);
  for (let y = 0; y < height; y++) {
    const up = Math.max(0, y - 1) * width;
    const row = y * width;
    const down = Math.min(height - 1, y + 1) * width;
    for (let x = 0; x < width; x++) {
      const centre = labels[row + x];
      const top = labels[up + x];
      const bottom = labels[down + x];
      const left = labels[row + Math.max(0, x - 1)];
      const right = labels[row + Math.min(width - 1, x + 1)];
      const at = 4 * row + 2 * x;
      const below = at + 2 * width;
      if (top !== bottom && left !== right) {
        out[at] = left === top ? left : centre;
        out[at + 1] = top === right ? right : centre;
        out[below] = left === bottom ? left : centre;
        out[below + 1] = bottom === right ? right : centre;
      } else out[at] = out[at + 1] = out[below] = out[below + 1] = centre;
    }
  }
  return out;
}

/** Labels -> ImageData, through a table of 256 colours, Uint32 in the byte order of the machine. */
export function coloured(labels, width, height, table) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < labels.length; i++) pixels[i] = table[labels[i]];
  return image;
}

/** The table for `coloured`: `palette` is [[r, g, b], ..], all other labels are grey. */
export function colourTable(palette) {
  const bytes = new Uint8ClampedArray(4 * 256).fill(128);
  palette.forEach((colour, id) => bytes.set(colour, 4 * id));
  for (let id = 0; id < 256; id++) bytes[4 * id + 3] = 255;
  return new Uint32Array(bytes.buffer);
}
