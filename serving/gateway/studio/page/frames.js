// Answers with several images: the header has their lengths, the bytes have one after another.

export function splitImages({ lengths, format }, bytes) {
  let at = 0;
  return lengths.map((length) => {
    const blob = new Blob([bytes.subarray(at, at + length)], { type: `image/${format}` });
    at += length;
    return blob;
  });
}

export const decodeImages = (header, bytes) => Promise.all(splitImages(header, bytes).map((blob) => createImageBitmap(blob)));
