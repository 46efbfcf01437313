// The same picture from a program: the request as curl and as Python.

import { byId, h } from "./dom.js";
import { saveFile } from "./files.js";
import { strings } from "./strings.js";

export function makeRequest(app) {
  const dialog = byId("request-dialog");
  byId("show-request").addEventListener("click", () => {
    const codes = { curl: curl(app), python: python(app) };
    byId("codes").replaceChildren(...Object.entries(codes).map(([name, code]) => block(name, code)));
    byId("save-style").hidden = fields(app).every(([, value]) => !value.startsWith("<"));
    dialog.showModal();
  });
  byId("save-style").addEventListener("click", async () => {
    const [{ vector }] = await app.live.ask({ type: "vector", style: app.styleSent });
    saveFile(new Blob([JSON.stringify(vector)], { type: "application/json" }), "style.json");
  });
}

function block(name, code) {
  const copy = h("button", { type: "button", class: "plain", hidden: !navigator.clipboard }, strings.copy);
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code);
    copy.textContent = strings.copied;
  });
  const text = h("pre", { tabindex: "0", "aria-label": strings[name] }, h("code", {}, code));
  return h("section", { class: "code" }, h("header", {}, h("h3", {}, strings[name]), copy), text);
}

/** Form fields of POST /v1/synthesize. A mixture or a photo's style goes as its 256 numbers. */
function fields({ styleSent: style }) {
  if (!style) return [];
  if (style.seed !== undefined) return [["seed", String(style.seed)]];
  if (style.name !== undefined) return [["style_name", style.name]];
  return [["style", "<style.json"]];
}

export function curl(app) {
  const lines = [`curl ${location.origin}/v1/synthesize`, "-F label_map=@map.png"];
  for (const [name, value] of fields(app)) lines.push(`-F ${name}=${value}`);
  return [...lines, "-o picture.png"].join(" \\\n  ");
}

export function python(app) {
  const data = fields(app).filter(([, value]) => !value.startsWith("<"));
  const files = ['"label_map": open("map.png", "rb")'];
  if (data.length < fields(app).length) data.push(["style", 'open("style.json").read()']);
  const given = data.map(([name, value]) => `"${name}": ${name === "style_name" ? JSON.stringify(value) : value}`).join(", ");
  return `import httpx

answer = httpx.post(
    "${location.origin}/v1/synthesize",
    files={${files.join(", ")}},${given ? `\n    data={${given}},` : ""}
)
answer.raise_for_status()
open("picture.png", "wb").write(answer.content)`;
}
