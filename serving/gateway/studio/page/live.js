// The connection of live painting: WS /v1/live. A message is JSON as text, or, with bytes, the length of the JSON
// (4 bytes, little-endian), the JSON and the bytes.

import { keptKey } from "./key.js";

const TAKEN_OVER = 4409;
const IDLE = 4408;
const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 5000;
const MOST_BUFFERED = 128 << 10; // bytes on their way; more edits wait, and are sent as one

export class Live extends EventTarget {
  /** `hello` are the members of the first message: format, quality. */
  constructor(url, hello) {
    super();
    this.url = url;
    this.hello = hello;
    this.session = null;
    this.state = "connecting";
    this.wait = FIRST_WAIT_MS;
    this.asked = new Map(); // request id -> [resolve, reject]
    this.sent = new Map(); // revision -> time
    this.requests = 0;
    this.revision = 0;
  }

  connect() {
    clearTimeout(this.timer);
    const url = new URL(this.url);
    if (keptKey()) url.searchParams.set("key", keptKey()); // browsers send no headers with a socket
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => this.send({ type: "hello", session: this.session, ...this.hello });
    socket.onmessage = ({ data }) => this.receive(typeof data === "string" ? [JSON.parse(data), null] : unpack(data));
    socket.onclose = (event) => this.lose(event);
  }

  /** Connect again where the server has ended a connection that did nothing. */
  wake() {
    if (this.state !== "idle" && this.state !== "taken") return;
    this.become("connecting");
    this.connect();
  }

  /** True where edits can go out now. */
  get ready() {
    return this.state === "live" && this.socket.bufferedAmount < MOST_BUFFERED;
  }

  send(header, bytes = null) {
    this.socket.send(bytes ? pack(header, bytes) : JSON.stringify(header));
  }

  /** Send an edit or a style, which asks for a new picture. Returns its revision. */
  change(header, bytes = null) {
    const revision = ++this.revision;
    this.sent.set(revision, performance.now());
    this.send({ ...header, revision }, bytes);
    return revision;
  }

  /** Send a request that is answered once. Resolves to [header, bytes]; rejects when the connection ends. */
  ask(header, bytes = null) {
    if (this.state !== "live") return Promise.reject(new Error("not connected"));
    const request = ++this.requests;
    const answer = new Promise((resolve, reject) => this.asked.set(request, [resolve, reject]));
    this.send({ ...header, request }, bytes);
    return answer;
  }

  receive([header, bytes]) {
    if (header.type === "welcome") {
      this.session = header.session;
      this.wait = FIRST_WAIT_MS;
      this.become("live", header);
    } else if (header.request && this.asked.has(header.request)) {
      const [resolve, reject] = this.asked.get(header.request);
      this.asked.delete(header.request);
      if (header.type === "problem") reject(new Error(header.problem.detail));
      else resolve([header, bytes]);
    } else if (header.type === "frame") {
      header.roundTrip = performance.now() - (this.sent.get(header.revision) ?? performance.now());
      for (const revision of this.sent.keys()) if (revision <= header.revision) this.sent.delete(revision);
      this.dispatchEvent(new CustomEvent("frame", { detail: { header, bytes } }));
    } else if (header.type === "problem") {
      this.dispatchEvent(new CustomEvent("problem", { detail: header }));
    }
  }

  lose(event) {
    for (const [, reject] of this.asked.values()) reject(new Error("connection lost"));
    this.asked.clear();
    this.sent.clear();
    this.become(event.code === IDLE ? "idle" : event.code === TAKEN_OVER ? "taken" : "lost");
    if (this.state !== "lost") return; // the next change connects again
    this.timer = setTimeout(() => this.connect(), this.wait * (0.75 + Math.random() / 2));
    this.wait = Math.min(LONGEST_WAIT_MS, this.wait * 2);
  }

  become(state, detail = null) {
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail }));
  }
}

/** A message with bytes. */
export function pack(header, bytes) {
  const json = new TextEncoder().encode(JSON.stringify(header));
  const message = new Uint8Array(4 + json.length + bytes.length);
  new DataView(message.buffer).setUint32(0, json.length, true);
  message.set(json, 4);
  message.set(bytes, 4 + json.length);
  return message;
}

/** The inverse of `pack`: [header, bytes]. */
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const json = new TextDecoder().decode(new Uint8Array(buffer, 4, length));
  return [JSON.parse(json), new Uint8Array(buffer, 4 + length)];
}
