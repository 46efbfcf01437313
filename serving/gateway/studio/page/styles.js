// Styles: two ends, a slider between them, and a strip of more, drawn together from one plan.

import { sentEnd } from "./app.js";
import { byId, h, oncePerFrame, setLabel } from "./dom.js";
import { decodeImages } from "./frames.js";
import { strings } from "./strings.js";

const SEEDS = [9, 5, 20, 14, 12, 0]; // where the weights name no styles
const COUNT = 6;
const RECENT = 15;
const QUIET_MS = 500; // without a change, until the strip is drawn anew

export function makeStyles(app) {
  const panel = byId("style-panel");
  if (!app.model.style) {
    panel.hidden = true;
    return;
  }
  const mix = byId("mix");
  let shared = []; // seconds of plan and codebook of recent pictures
  let timer = 0;
  let cards = [];
  let ends = [];
  const setMix = oncePerFrame(() => app.setStyle({ mix: Number(mix.value) / 100 }));
  mix.addEventListener("input", setMix);
  for (const end of ["from", "to"]) {
    const input = byId(`style-${end}`);
    input.addEventListener("change", () => {
      const seed = Math.max(0, Math.min(Number.MAX_SAFE_INTEGER, Math.round(Number(input.value)) || 0));
      app.setStyle({ [end]: { seed } });
    });
    byId(`dice-${end}`).addEventListener("click", () => app.setStyle({ [end]: { seed: randomSeed() } }));
  }
  byId("more-variants").addEventListener("click", () => {
    offer(Array.from({ length: COUNT }, () => ({ seed: randomSeed() })));
    draw();
  });

  /** Fill the strip with a card for each style. */
  function offer(styles) {
    ends = styles;
    cards = ends.map((end) => {
      const card = h("button", { type: "button", class: "card" }, h("canvas", { width: 1, height: 1 }));
      if (end.named) card.append(h("span", { class: "caption" }, strings.named(end.named)));
      card.addEventListener("click", () => app.setStyle({ from: end, mix: 0 }));
      return card;
    });
    byId("variants").replaceChildren(...cards);
    show();
  }
  function later() {
    clearTimeout(timer);
    timer = setTimeout(draw, QUIET_MS);
  }
  async function draw() {
    clearTimeout(timer);
    if (app.live.state !== "live" || document.hidden) return;
    const drawn = cards;
    try {
      const [header, bytes] = await app.live.ask({ type: "variants", styles: ends.map(sentEnd) });
      const images = await decodeImages(header, bytes);
      images.forEach((image, i) => fill(drawn[i], image));
      const { total, alone } = saving(header.timings, drawn.length, median(shared));
      byId("saving").textContent = alone > 1.05 * total ? strings.saving(drawn.length, Math.round(total), Math.round(alone)) : "";
    } catch {
      later(); // the connection was lost or the server is busy: the strip keeps its pictures until the next try
    }
    show();
  }
  function show() {
    const shown = app.style.mix === 0 && JSON.stringify(sentEnd(app.style.from));
    cards.forEach((card, i) => {
      const { seed, named } = ends[i];
      setLabel(card, named ? strings.named(named) : strings.variant(seed));
      card.setAttribute("aria-pressed", String(JSON.stringify(sentEnd(ends[i])) === shown));
    });
    for (const end of ["from", "to"]) {
      const { seed, named, name } = app.style[end];
      const input = byId(`style-${end}`);
      input.value = seed === undefined ? "" : String(seed);
      input.placeholder = named ? strings.named(named) : (name ?? "");
    }
    mix.value = String(Math.round(app.style.mix * 100));
  }
  app.on("labels", later);
  app.on("frame", ({ header: { timings } }) => {
    const seconds = timings.plan_s + timings.codebook_s;
    if (seconds > 0) shared = [...shared, seconds].slice(-RECENT); // 0: the server had seen the map before
  });
  app.on("style", show);
  app.on("connection", () => app.live.state === "live" && later());
  const named = app.model.styles.slice(0, app.model.max_batch).map((name) => ({ named: name }));
  offer(named.length ? named : SEEDS.map((seed) => ({ seed })));
}

const randomSeed = () => Math.floor(Math.random() * 1000);

/** Milliseconds of the strip, and of the strip if each style made the plan and the codebook, `shared` s, again. */
export function saving(timings, count, shared) {
  const total = 1000 * (timings.plan_s + timings.codebook_s + timings.convs_s);
  return { total, alone: total + 1000 * count * shared };
}

function median(numbers) {
  return [...numbers].sort((a, b) => a - b)[numbers.length >> 1] ?? 0;
}

function fill(card, image) {
  const canvas = card.firstElementChild;
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").drawImage(image, 0, 0);
  card.classList.add("ready");
}

