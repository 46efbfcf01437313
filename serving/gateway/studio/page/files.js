// Files in and out: label maps and photos that are opened, dropped or pasted; pictures and maps that are saved.

import { byId, h, notice } from "./dom.js";
import { splitImages } from "./frames.js";
import { keyHeaders } from "./key.js";
import { decode } from "./painter/rle.js";
import { encodePng } from "./painter/png.js";
import { strings } from "./strings.js";

const MOST_BYTES = 15 << 20; // a message of the gateway has at most 16 MiB

export function makeFiles(app, strokes) {
  const mapInput = byId("map-file");
  const photoInput = byId("photo-file");
  byId("open-map").addEventListener("click", () => mapInput.click());
  byId("photo").addEventListener("click", () => photoInput.click());
  for (const [input, open] of [[mapInput, openMap], [photoInput, openPhoto]]) {
    input.addEventListener("change", () => {
      const [file] = input.files;
      input.value = ""; // the same file can be opened again
      if (file) open(file);
    });
  }
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    sort(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => sort(event.clipboardData.files));

  /** A PNG is a label map; another image is a photo, for its style. */
  function sort([file]) {
    if (file) (file.type === "image/png" || !app.model.style ? openMap : openPhoto)(file);
  }

  async function openMap(file) {
    await tell(file, async () => {
      const [, bytes] = await app.live.ask({ type: "read_map" }, new Uint8Array(await file.arrayBuffer()));
      strokes.abort();
      app.painting.replace(decode(bytes, app.painting.labels.length), strings.steps.load(file.name));
      app.emit("step");
      notice(strings.mapOpened(file.name));
    });
  }
  async function openPhoto(file) {
    await tell(file, async () => {
      const form = new FormData();
      form.append("style_image", file);
      const answer = await fetch("../v1/styles", { method: "POST", body: form, headers: keyHeaders() });
      const found = await answer.json();
      if (!answer.ok) throw new Error(found.detail);
      app.setStyle({ from: { vector: found.style, name: file.name }, mix: 0 });
      notice(strings.photoTaken(file.name));
    });
  }
  async function tell(file, work) {
    if (file.size > MOST_BYTES) {
      notice(strings.tooLarge(file.name));
      return;
    }
    try {
      await work();
    } catch (error) {
      notice(error.message, true);
    }
  }

  const mapFile = async () =>
    new Blob([await encodePng(app.painting.labels, app.model.width, app.model.height, app.palette)], { type: "image/png" });
  /** The picture without loss, as the server draws it. */
  async function pictureFile() {
    const style = app.styleSent;
    const [header, bytes] = await app.live.ask({ type: "variants", styles: [style], format: "png" });
    return splitImages(header, bytes)[0];
  }
  const savers = {
    "save-picture": async () => saveFile(await pictureFile(), "picture.png"),
    "save-map": async () => saveFile(await mapFile(), "map.png"),
    "save-both": async () => {
      await savers["save-picture"]();
      await savers["save-map"]();
    },
  };
  for (const [id, saver] of Object.entries(savers)) {
    byId(id).addEventListener("click", () => saver().catch((error) => notice(error.message, true)));
  }
  return { openMap };
}

/** Have the browser save a file. */
export function saveFile(blob, name) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
