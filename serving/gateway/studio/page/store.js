// The painting is kept in the browser (IndexedDB) and comes back after a crash. Each tab has its own.

import { encode, decode } from "./painter/rle.js";

const DATABASE = "spade-studio";
const KEPT = "paintings";
const MOST = 20; // paintings of other tabs; the oldest go
const DELAY_MS = 400;

/** Open the store. Resolves to null where the browser has none. */
export async function openStore() {
  if (!globalThis.indexedDB) return null;
  try {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(KEPT, { keyPath: "tab" });
    return new Store(await done(request));
  } catch {
    return null; // a private window may have no storage
  }
}

class Store {
  constructor(database) {
    this.database = database;
    this.tab = sessionStorage.getItem(DATABASE) ?? crypto.randomUUID();
    sessionStorage.setItem(DATABASE, this.tab);
  }

  objects(mode) {
    return this.database.transaction(KEPT, mode).objectStore(KEPT);
  }

  /** This tab's painting, or else the latest of all, at this size; null for none. `mine` says which. */
  async last({ width, height, preset }) {
    const all = await done(this.objects("readonly").getAll());
    const fitting = all.filter((one) => one.width === width && one.height === height && one.preset === preset);
    const mine = fitting.find((one) => one.tab === this.tab);
    const found = mine ?? fitting.sort((a, b) => b.time - a.time)[0];
    if (!found) return null;
    const [labels, below, painted] = [found.labels, found.below, found.painted].map((code) => decode(code, width * height));
    return { labels, below, painted, style: found.style, mine: Boolean(mine) };
  }

  /** Keep the painting whenever it changes. */
  follow(app) {
    const { width, height, preset } = app.model;
    let timer = 0;
    const save = () => {
      timer = 0;
      const { labels, below, painted } = app.painting;
      const [a, b, c] = [labels, below, painted].map(encode);
      const kept = { tab: this.tab, time: Date.now(), width, height, preset, style: app.style };
      this.objects("readwrite").put({ ...kept, labels: a, below: b, painted: c });
    };
    const later = () => (timer ||= setTimeout(save, DELAY_MS));
    app.on("labels", later);
    app.on("style", later);
    addEventListener("pagehide", () => timer && save());
    this.prune();
  }

  async prune() {
    const all = await done(this.objects("readonly").getAll());
    const old = all.sort((a, b) => b.time - a.time).slice(MOST);
    for (const { tab } of old) this.objects("readwrite").delete(tab);
  }
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
