// The first screen: drawn scenes, the blank horizon, and the painting of last time.

import { sentStyle } from "./app.js";
import { byId, h } from "./dom.js";
import { decodeImages } from "./frames.js";
import { coloured } from "./painter/smooth.js";
import { decode, encode } from "./painter/rle.js";
import { strings } from "./strings.js";

/** `scenes` is of start.json: [{name, seed, map}], the map as runs in base64. `saved` is of the store; `goOn` takes it up. */
export function makeScenes(app, stage, strokes, scenes, saved) {
  const dialog = byId("scenes");
  const grid = byId("scene-grid");
  const { width, height } = app.model;

  if (saved) grid.append(card(strings.continueWork, saved.labels, () => begin(saved.goOn), saved.style));
  app.painting.load(labelsOf(scenes[0])); // what shows where the first screen is closed without a choice
  for (const scene of scenes) {
    const { name, seed } = scene;
    const labels = labelsOf(scene);
    const style = { from: { seed }, to: app.style.to, mix: 0 };
    grid.append(card(strings.sceneNames[name], labels, () => begin(() => load(labels, style)), style));
  }
  byId("open-scenes").addEventListener("click", () => open());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  byId("scenes-open-map").addEventListener("click", () => {
    dialog.close();
    byId("open-map").click();
  });

  function labelsOf({ map }) {
    return decode(Uint8Array.from(atob(map), (letter) => letter.charCodeAt(0)), width * height);
  }
  function card(name, labels, choose, style) {
    const map = h("canvas", { width, height, class: "under" });
    map.getContext("2d").putImageData(coloured(labels, width, height, stage.table), 0, 0);
    const over = h("canvas", { width, height, class: "over" });
    const button = h("button", { type: "button", class: "scene", onclick: choose }, h("span", { class: "frame" }, map, over), name);
    button.draw = () => draw(button, over, labels, style);
    return button;
  }
  async function draw(button, canvas, labels, style) {
    const wanted = app.model.style ? sentStyle(style) : null;
    const [header, bytes] = await app.live.ask({ type: "variants", styles: [wanted], encoding: "rle" }, encode(labels));
    const [image] = await decodeImages(header, bytes);
    canvas.getContext("2d").drawImage(image, 0, 0);
    button.classList.add("ready");
  }
  async function drawAll() {
    for (const button of grid.children) {
      if (button.classList.contains("ready")) continue;
      try {
        await button.draw();
      } catch {
        return; // without a server the cards keep their maps; the next connection draws them
      }
    }
  }
  function load(labels, style) {
    app.painting.load(labels);
    if (app.model.style) app.setStyle(structuredClone(style));
  }
  function begin(work) {
    strokes.abort();
    work();
    app.emit("step");
    dialog.close();
    byId("map").focus({ preventScroll: true, focusVisible: false });
  }
  function open() {
    dialog.showModal();
    drawAll();
  }
  app.on("connection", () => app.live.state === "live" && dialog.open && drawAll());
  return { open };
}
