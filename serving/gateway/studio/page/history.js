// The strip of pictures on the way: a thumbnail whenever the painter rests, and a click goes back to it.

import { byId, h, setLabel } from "./dom.js";
import { decode, encode } from "./painter/rle.js";
import { strings } from "./strings.js";

const REST_MS = 1500;
const MOST = 40;
const SIDE = 96; // pixels of a thumbnail

export function makeHistory(app, strokes) {
  const list = byId("history");
  const entries = []; // {map, style, time, thumbnail}
  let timer = 0;
  let last = null;

  function later() {
    clearTimeout(timer);
    timer = setTimeout(keep, REST_MS);
  }
  function keep() {
    const frame = app.lastFrame;
    if (document.querySelector("dialog[open]")) return later();
    if (strokes.busy || !frame || frame.header.revision < app.live.revision) return later();
    const map = encode(app.painting.labels);
    const key = `${map.join()} ${JSON.stringify(app.style)}`;
    if (key === last) return undefined;
    last = key;
    const canvas = h("canvas", { width: SIDE, height: SIDE });
    canvas.getContext("2d").drawImage(frame.bitmap, 0, 0, SIDE, SIDE);
    add({ map, style: structuredClone(app.style), time: new Date() }, canvas);
    return app.emit("kept");
  }
  function add(entry, canvas) {
    entries.push(entry);
    const button = h("button", { type: "button", class: "card ready", onclick: () => goBack(entry) }, canvas);
    setLabel(button, strings.goBack(entry.time.toLocaleTimeString()));
    list.prepend(button);
    byId("history-empty").hidden = true;
    if (entries.length > MOST) {
      entries.shift();
      list.lastElementChild.remove();
    }
  }
  function goBack(entry) {
    strokes.abort();
    app.painting.replace(decode(entry.map, app.painting.labels.length), strings.steps.back());
    app.setStyle(structuredClone(entry.style));
    app.emit("step");
    last = `${entry.map.join()} ${JSON.stringify(entry.style)}`; // the same picture is not kept twice
  }
  app.on("frame", () => {
    if (!strokes.busy) later();
  });
  return entries;
}
