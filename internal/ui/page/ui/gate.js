/** The page for somebody who has no token, or one that is no longer good. */

import { token } from "./memory.js";
import { claims, find } from "./token.js";

const element = (id) => document.getElementById(id);

/** @param {string} [why]  why the token at hand does not do */
export function showGate(why) {
  document.body.dataset.phase = "gate";
  element("gate").hidden = false;
  if (why) {
    element("gate-heading").textContent = why;
    element("gate-text").textContent = "Ask for a new one, or paste it here. Your conversation waits for you.";
  }
  element("enter").addEventListener("submit", enter);
  element("token").focus();
}

function enter(event) {
  event.preventDefault();
  const found = find(element("token").value.trim());
  const error = element("gate-error");
  error.hidden = Boolean(found && claims(found));
  if (!error.hidden) {
    error.textContent = "That is neither a link to this page nor a token.";
    return;
  }
  token.set(found);
  location.reload();
}
