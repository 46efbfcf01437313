// Run-length code of label maps: three bytes a run, the label and the count (1 .. 65535, little-endian).
// The gateway reads and writes the same code: serving/gateway/rle.py.

const LONGEST = 65535;

/** Bytes -> runs. */
export function encode(bytes) {
  let runs = 0;
  for (let at = 0; at < bytes.length; at = runEnd(bytes, at)) runs++;
  const code = new Uint8Array(3 * runs);
  let to = 0;
  for (let at = 0; at < bytes.length; ) {
    const end = runEnd(bytes, at);
    code[to++] = bytes[at];
    code[to++] = (end - at) & 255;
    code[to++] = (end - at) >> 8;
    at = end;
  }
  return code;
}

function runEnd(bytes, at) {
  const limit = Math.min(bytes.length, at + LONGEST);
  let end = at + 1;
  while (end < limit && bytes[end] === bytes[at]) end++;
  return end;
}

/** Runs -> `length` bytes. Throws RangeError for a code of another length. */
export function decode(code, length) {
  const bytes = new Uint8Array(length);
  let at = 0;
  for (let i = 0; i + 2 < code.length; i += 3) {
    const count = code[i + 1] | (code[i + 2] << 8);
    if (count === 0 || at + count > length) throw new RangeError(`[rle] expected ${length} pixels but got more`);
    bytes.fill(code[i], at, at + count);
    at += count;
  }
  if (at !== length || code.length % 3) throw new RangeError(`[rle] expected ${length} pixels but got ${at}`);
  return bytes;
}
