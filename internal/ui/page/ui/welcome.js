/** What stands on the page before the first word: an invitation, and a few ways to begin. */

import { make } from "./dom.js";

const GENERAL = {
  heading: "Where shall we begin?",
  text: "Ask something, think aloud, or start with one of these.",
  placeholder: "Write a message",
  prompts: [
    "Explain how tides work to a ten-year-old.",
    "Help me write a kind but firm refusal.",
    "What should I ask before signing a lease?",
    "Plan a quiet weekend, two trains and one museum.",
  ],
};

/** For the model of `parley dev`: Weizenbaum's doctor, who answers with questions. */
const DOCTOR = {
  heading: "The doctor is in.",
  text: "Eliza has been listening since 1966. Say what is on your mind, or start with one of these.",
  placeholder: "Tell the doctor",
  prompts: [
    "I have been feeling rather tired lately.",
    "My mother never listens to me.",
    "I dreamt about computers again.",
    "Everybody says I work too much.",
  ],
};

/** @param {string} [model] */
export function welcomeFor(model) {
  return /eliza/i.test(model ?? "") ? DOCTOR : GENERAL;
}

/**
 * @param {HTMLElement} root
 * @param {(prompt: string) => void} choose
 */
export function showWelcome(root, { heading, text, prompts }, choose) {
  const choices = prompts.map((prompt) =>
    make("li", {}, make("button.prompt", { type: "button", click: () => choose(prompt) }, prompt)),
  );
  root.replaceChildren(make("h2", {}, heading), make("p", {}, text), make("ul", {}, ...choices));
}
