// Files in and out: label maps that are opened, dropped or pasted; pictures and maps that are saved.

import { byId, h, notice } from "./dom.js";
import { splitImages } from "./frames.js";
import { decode } from "./painter/rle.js";
import { encodePng } from "./painter/png.js";
import { strings } from "./strings.js";

const MOST_BYTES = 15 << 20; // a message of the gateway has at most 16 MiB

export function makeFiles(app, strokes) {
  const mapInput = byId("map-file");
  byId("open-map").addEventListener("click", () => mapInput.click());
  mapInput.addEventListener("change", () => {
    const [file] = mapInput.files;
    mapInput.value = ""; // the same file can be opened again
    if (file) openMap(file);
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) openMap(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => event.clipboardData.files.length && openMap(event.clipboardData.files[0]));

  async function openMap(file) {
    await tell(file, async () => {
      const [, bytes] = await app.live.ask({ type: "read_map" }, new Uint8Array(await file.arrayBuffer()));
      strokes.abort();
      app.painting.replace(decode(bytes, app.painting.labels.length), strings.steps.load(file.name));
      app.emit("step");
      notice(strings.mapOpened(file.name));
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
