// The strip of pictures on the way: a thumbnail whenever the painter rests, and a click goes back to it. The browser
// keeps the strip with the painting.

import { byId, h, setLabel } from "./dom.js";
import { decode, encode } from "./painter/rle.js";
import { strings } from "./strings.js";

const REST_MS = 1500;
const MOST = 40;
const HIGH = 96; // pixels of a thumbnail

/** `store` is null where the browser keeps nothing. */
export function makeHistory(app, strokes, store) {
  const list = byId("history");
  const entries = []; // {map, size, style, time, thumbnail, id}
  let timer = 0;
  let last = null;

  function later() {
    clearTimeout(timer);
    timer = setTimeout(keep, REST_MS);
  }
  async function keep() {
    const frame = app.lastFrame;
    if (document.querySelector("dialog[open]")) return later();
    if (strokes.busy || !frame || frame.header.revision < app.live.revision) return later();
    const map = encode(app.painting.labels);
    const entry = { map, size: app.painting.labels.length, style: structuredClone(app.style), time: new Date() };
    if (keyOf(entry) === last) return undefined;
    last = keyOf(entry);
    entry.thumbnail = await small(frame.bitmap);
    show(entry);
    await save(entry);
    return app.emit("kept");
  }
  /** The strip goes on without a store, and where the store is full. */
  async function save(entry) {
    try {
      entry.id = await store?.keep(entry);
    } catch {
      entry.id = undefined;
    }
  }
  function show(entry) {
    entries.push(entry);
    const picture = h("canvas", { height: HIGH, width: Math.round((HIGH * app.model.width) / app.model.height) });
    const button = h("button", { type: "button", class: "card", onclick: () => goBack(entry) }, picture);
    setLabel(button, strings.goBack(entry.time.toLocaleTimeString()));
    list.prepend(button);
    draw(entry.thumbnail, button);
    byId("history-empty").hidden = true;
    if (entries.length > MOST) {
      const { id } = entries.shift();
      if (id !== undefined) store.forget(id);
      list.lastElementChild.remove();
    }
  }
  function goBack(entry) {
    strokes.abort();
    app.painting.replace(decode(entry.map, app.painting.labels.length), strings.steps.back());
    app.setStyle(structuredClone(entry.style));
    app.emit("step");
    last = keyOf(entry); // the same picture is not kept twice
  }
  /** Show the history of the painting of a tab: this one's after a reload, or of another one that is gone. */
  async function restore(tab) {
    if (!store) return;
    const size = app.painting.labels.length;
    const own = tab === store.tab;
    for (const entry of await store.pictures(tab)) {
      if (entry.size !== size) continue;
      show(entry);
      if (!own) await save(entry);
    }
    if (entries.length) last = keyOf(entries.at(-1));
  }
  app.on("frame", later); // also of a stroke that is not finished: perhaps no frame comes after its end
  return { restore };

  async function small(bitmap) {
    const canvas = new OffscreenCanvas(Math.round((HIGH * bitmap.width) / bitmap.height), HIGH);
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    return canvas.convertToBlob({ type: "image/webp", quality: 0.85 });
  }
}

const keyOf = ({ map, style }) => `${map.join()} ${JSON.stringify(style)}`;

async function draw(thumbnail, button) {
  const canvas = button.firstElementChild;
  canvas.getContext("2d").drawImage(await createImageBitmap(thumbnail), 0, 0, canvas.width, canvas.height);
  button.classList.add("ready");
}
