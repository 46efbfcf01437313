// The page starts here.

import { App } from "./app.js";
import { fillStrings, notice } from "./dom.js";
import { makeFiles } from "./files.js";
import { makeHistory } from "./history.js";
import { Keyboard } from "./keyboard.js";
import { askForKey, keyHeaders } from "./key.js";
import { Live } from "./live.js";
import { makePalette } from "./palette.js";
import { Pointers } from "./pointer.js";
import { makeRequest } from "./request.js";
import { makeScenes } from "./scenes.js";
import { Stage } from "./stage.js";
import { makeStatus } from "./status.js";
import { openStore } from "./store.js";
import { strings } from "./strings.js";
import { Strokes } from "./strokes.js";
import { makeStyles } from "./styles.js";
import { makeToolbar } from "./toolbar.js";
import { makeView } from "./layout.js";
import { View } from "./view.js";

const RETRY_MS = 1000;

async function start() {
  fillStrings(document);
  document.title = strings.title;
  const { model, classes, scenes, brush } = await ask("../v1/studio");
  const live = new Live(new URL("../v1/live", location.href.replace(/^http/, "ws")), hello());
  const app = new App(model, classes, brush, live);
  const store = await openStore();
  const saved = store && (await store.last(model));
  const view = new View(model.width, model.height);
  const stage = new Stage(app, view);
  const strokes = new Strokes(app);
  const toolbar = makeToolbar(app, view, strokes);
  const palette = makePalette(app);
  const layout = makeView(app);
  new Pointers(app, view, stage, strokes);
  new Keyboard(app, view, stage, strokes, { ...palette, ...layout, lock: toolbar.toggleLock });
  makeStatus(app);
  makeStyles(app);
  const history = makeHistory(app, strokes, store);
  makeFiles(app, strokes);
  makeRequest(app);
  const goOn = () => {
    resume(app, saved);
    history.restore(saved.tab);
  };
  const gallery = makeScenes(app, stage, strokes, scenes, saved && { ...saved, goOn });
  if (saved?.mine) goOn();
  else gallery.open();
  if (store) store.follow(app);
  else notice(strings.notSaved);
  app.on("step", () => stage.describe());
  stage.describe();
  live.connect();
  globalThis.spadeStudio = { app, view, stage, strokes, live }; // for the browser's console, and for tests
  document.body.dataset.ready = "";
}

/** The first message's members; ?format=png in the address asks for pictures without loss. */
const hello = () => ({ format: new URLSearchParams(location.search).get("format") ?? "webp" });

function resume(app, saved) {
  app.painting.load(saved.labels);
  app.painting.below.set(saved.below);
  app.painting.painted.set(saved.painted);
  if (saved.style) app.setStyle(saved.style);
}

/** Ask until the server answers: the page may be there before the model is. */
async function ask(path) {
  for (;;) {
    try {
      const answer = await fetch(path, { headers: keyHeaders() });
      if (answer.ok) return await answer.json();
      if (answer.status === 401) {
        await askForKey();
        continue;
      }
    } catch {
      // the server does not answer yet
    }
    notice(strings.downText, true);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    notice("");
  }
}

start();
