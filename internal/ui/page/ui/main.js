/** Starts the page: with a token the conversation, without one the gate. */

import { ChatPage } from "./chatpage.js";
import { showGate } from "./gate.js";
import { token } from "./memory.js";
import { claims, takeFromAddress } from "./token.js";

function start() {
  const given = takeFromAddress();
  if (given) token.set(given);
  const held = token.get();
  const user = held && claims(held);
  if (user) new ChatPage(held, user).open();
  else showGate();
}

// A new link that is opened in the same window changes nothing but the fragment.
addEventListener("hashchange", () => {
  const given = takeFromAddress();
  if (!given) return;
  token.set(given);
  location.reload();
});

start();
