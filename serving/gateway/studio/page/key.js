// The key of a server that wants one: asked for once, and kept for this tab.

import { byId } from "./dom.js";

const KEPT = "spade-studio-key";

export const keptKey = () => sessionStorage.getItem(KEPT);

export const keyHeaders = () => (keptKey() ? { Authorization: `Bearer ${keptKey()}` } : {});

/** Ask for the key. Resolves when one was given. */
export function askForKey() {
  const dialog = byId("key-dialog");
  const input = byId("key");
  input.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      if (input.value) sessionStorage.setItem(KEPT, input.value);
      if (input.value) resolve();
      else dialog.showModal(); // nothing can be drawn without a key
    };
    byId("key-form").onsubmit = (event) => {
      event.preventDefault();
      dialog.close();
    };
  });
}
