// The painting and its history are kept in the browser (IndexedDB) and come back after a crash. Each tab has its own.

import { encode, decode } from "./painter/rle.js";

const DATABASE = "spade-studio";
const VERSION = 2;
const KEPT = "paintings";
const PICTURES = "pictures"; // of the history: {id, tab, time, map, size, style, thumbnail}
const MOST = 20; // paintings of other tabs; the oldest go, with their history
const DELAY_MS = 400;
const RELOAD_MS = 1000; // how long a tab waits for its name

/** Open the store. Resolves to null where the browser has none. */
export async function openStore() {
  if (!globalThis.indexedDB) return null;
  try {
    const request = indexedDB.open(DATABASE, VERSION);
    request.onupgradeneeded = () => upgrade(request.result);
    return new Store(await done(request), await ownTab());
  } catch {
    return null; // a private window may have no storage
  }
}

function upgrade(database) {
  const names = database.objectStoreNames;
  if (!names.contains(KEPT)) database.createObjectStore(KEPT, { keyPath: "tab" });
  if (!names.contains(PICTURES)) {
    database.createObjectStore(PICTURES, { keyPath: "id", autoIncrement: true }).createIndex("tab", "tab");
  }
}

/** The name of this tab's painting. A tab that was duplicated has a copy of the name, and takes a new one. */
async function ownTab() {
  const name = sessionStorage.getItem(DATABASE);
  if (name && (await hold(name))) return name;
  const fresh = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  sessionStorage.setItem(DATABASE, fresh);
  await hold(fresh);
  return fresh;
}

/** Take the lock of a name as long as the tab lives. Resolves to false where another tab has it. */
function hold(name) {
  if (!navigator.locks) return true; // only pages of this machine and of https have locks
  const forever = new Promise(() => {});
  return new Promise((resolve) => {
    const take = () => (resolve(true), forever);
    // A page that is loaded again may start before the lock of the page before it is free.
    const wait = { signal: AbortSignal.timeout(RELOAD_MS) };
    navigator.locks.request(`${DATABASE} ${name}`, wait, take).catch(() => resolve(false));
  });
}

class Store {
  constructor(database, tab) {
    this.database = database;
    this.tab = tab;
    database.onversionchange = () => database.close(); // a newer page of another tab wants to change the tables
  }

  objects(name, mode) {
    return this.database.transaction(name, mode).objectStore(name);
  }

  /** This tab's painting, or else the latest of all, at this size; null for none. `mine` says which. */
  async last({ width, height, preset }) {
    const all = await done(this.objects(KEPT, "readonly").getAll());
    const fitting = all.filter((one) => one.width === width && one.height === height && one.preset === preset);
    const mine = fitting.find((one) => one.tab === this.tab);
    const found = mine ?? fitting.sort((a, b) => b.time - a.time)[0];
    if (!found) return null;
    const [labels, below, painted] = [found.labels, found.below, found.painted].map((code) => decode(code, width * height));
    return { tab: found.tab, labels, below, painted, style: found.style, mine: Boolean(mine) };
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
      const objects = this.objects(KEPT, "readwrite");
      objects.put({ ...kept, labels: a, below: b, painted: c });
      objects.transaction.commit(); // the commit does not wait: a page that goes gets no later turn
    };
    const saveNow = () => timer && (clearTimeout(timer), save());
    const later = () => (timer ||= setTimeout(save, DELAY_MS));
    app.on("labels", later);
    app.on("style", later);
    addEventListener("beforeunload", saveNow); // a write that begins in pagehide may be lost
    addEventListener("pagehide", saveNow); // a phone may send this event alone
    this.prune();
  }

  /** The history of a painting, oldest first. */
  async pictures(tab = this.tab) {
    const found = await done(this.objects(PICTURES, "readonly").index("tab").getAll(tab));
    return found.sort((a, b) => a.id - b.id);
  }

  /** Keep a picture in this tab's history. Resolves to its id. */
  keep({ id: _id, ...picture }) {
    return done(this.objects(PICTURES, "readwrite").put({ ...picture, tab: this.tab }));
  }

  forget(id) {
    return done(this.objects(PICTURES, "readwrite").delete(id));
  }

  async prune() {
    const all = await done(this.objects(KEPT, "readonly").getAll());
    const old = all.sort((a, b) => b.time - a.time).slice(MOST);
    for (const { tab } of old) {
      this.objects(KEPT, "readwrite").delete(tab);
      for (const { id } of await this.pictures(tab)) this.forget(id);
    }
  }
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("another tab has an older page open"));
  });
}
