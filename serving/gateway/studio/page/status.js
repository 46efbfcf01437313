// The connection's state, plain words when the server is busy or down, and the latency with its parts.

import { byId, h, notice } from "./dom.js";
import { strings } from "./strings.js";

const PARTS = ["queue", "plan", "codebook", "convs", "file", "way"];

export function makeStatus(app) {
  const pill = byId("status");
  const bar = byId("latency-bar");
  const text = byId("latency-text");
  const spans = Object.fromEntries(PARTS.map((part) => [part, h("span", { class: `part ${part}`, title: strings.parts[part] })]));
  bar.append(...Object.values(spans));
  let down = false;
  let downTimer = 0;

  app.on("connection", () => {
    const { state } = app.live;
    pill.dataset.state = state;
    if (state === "live") {
      clearTimeout(downTimer);
      downTimer = 0;
      pill.lastElementChild.textContent = strings.live;
      if (down) notice(strings.restarted);
      down = false;
    } else if (state === "idle" || state === "taken") {
      pill.lastElementChild.textContent = strings.asleep;
    } else {
      pill.lastElementChild.textContent = state === "connecting" ? strings.connecting : strings.lost;
      // A short break is nobody's business: the picture only comes later.
      downTimer ||= setTimeout(() => {
        down = true;
        notice(strings.downText, true);
      }, 1500);
    }
  });
  app.live.addEventListener("problem", ({ detail }) => {
    pill.dataset.state = "busy";
    pill.lastElementChild.textContent = strings.busy;
    const wait = detail.retry_after_s;
    notice(wait === undefined ? detail.problem.detail : strings.busyText(Math.max(1, Math.round(wait))), true);
    down = false;
  });
  app.on("frame", ({ header }) => {
    if (pill.dataset.state === "busy") {
      pill.dataset.state = "live";
      pill.lastElementChild.textContent = strings.live;
      notice("");
    }
    const parts = split(header);
    const total = PARTS.reduce((sum, part) => sum + parts[part], 0);
    for (const part of PARTS) spans[part].style.flexGrow = String(parts[part]);
    byId("latency").textContent = strings.milliseconds(total);
    const words = PARTS.map((part) => `${strings.parts[part]} ${parts[part].toFixed(1)}`).join(", ");
    text.textContent = PARTS.map((part) => `${strings.parts[part]}\u00a0${parts[part].toFixed(1)}`).join("\u00a0· ");
    byId("latency-box").setAttribute("aria-label", strings.latency(strings.milliseconds(total), words));
  });
}

/** Milliseconds of each part. What the server did not measure is 0; the way is what is left of the round trip. */
export function split({ timings, roundTrip }) {
  const ms = (seconds) => 1000 * Math.max(0, seconds ?? 0);
  const parts = {
    queue: ms(timings.queue_s),
    plan: ms(timings.plan_s),
    codebook: ms(timings.codebook_s),
    convs: ms(timings.convs_s),
    file: ms(timings.file_s),
  };
  const known = Object.values(parts).reduce((sum, part) => sum + part, 0);
  return { ...parts, way: Math.max(0, roundTrip - known) };
}
