/** One message on the page: a list item with the speaker beside it, the text, and what can be done with it. */

import { copyButton, make } from "./dom.js";
import { fragment } from "./markdown.js";
import { endingSentence, pendingSentence, timeWords } from "./sentences.js";

const LONG_QUESTION = 280; // characters: beyond that bold type tires

export class MessageView {
  #actions;
  #text = make("div.text");
  #note = make("p.note", { hidden: true });
  #tools = make("div.tools", { hidden: true });
  #speaker = make("span.speaker");
  #time = make("time");
  #body;
  #reasoning = null; // {details, summary, node}
  #streamed = null; // the text node that grows
  #message = null;
  #markdownOf = null; // the text whose Markdown is shown

  /**
   * @param {Object} actions
   * @param {(id: string) => void} actions.retry
   * @param {(id: string) => void} actions.resend
   * @param {(id: string, text: string) => void} actions.edit
   */
  constructor(actions) {
    this.#actions = actions;
    this.#body = make("div.body", {}, this.#text, this.#note, this.#tools);
    this.element = make("li.message", {}, make("div.gutter", {}, this.#speaker, this.#time), this.#body);
  }

  get message() {
    return this.#message;
  }

  /** Whether the text waits for its Markdown. A person's own words stay as they were typed. */
  get wantsMarkdown() {
    const { role, status, text } = this.#message;
    return role !== "user" && status !== "streaming" && text !== "" && this.#markdownOf !== text;
  }

  /** Shows a message of the server. */
  show(message, speaker) {
    this.#message = message;
    this.#label(message.id, message.role, message.status, speaker);
    this.#dated(message.created_at);
    if (this.#markdownOf !== message.text) this.#setText(message.text);
    this.#setReasoning(message);
    this.#say(endingSentence(message), message.status === "failed");
    this.#offer(message.status === "streaming" || message.text === "" ? [] : [this.#copy()]);
  }

  /** Shows a message that the server has not confirmed. */
  showPending(pending, speaker, connected) {
    this.#message = { id: pending.id, role: "user", text: pending.text, status: pending.status };
    this.#label(pending.id, "user", pending.status, speaker);
    this.#setText(pending.text);
    this.#say(pendingSentence(pending, connected), pending.status === "failed");
    if (pending.status !== "failed") return this.#offer([]);
    const again = this.#button("Try again", () => this.#actions.resend(pending.id));
    const edit = this.#button("Edit", () => this.#actions.edit(pending.id, pending.text));
    this.#offer(pending.error?.retryable === false ? [edit] : [again, edit]);
  }

  /** Adds streamed text behind what is there. */
  append(text, reasoning) {
    if (reasoning) return this.#setReasoning(this.#message);
    this.#streamed.appendData(text);
    this.#foldReasoning();
  }

  setSpeaker(speaker) {
    this.#speaker.textContent = speaker;
  }

  /** Offers to answer anew, where this is the last message and its answer did not come out. */
  setRetry(offered) {
    const present = this.#tools.querySelector("[data-action=retry]");
    if (!offered) present?.remove();
    if (!offered || present) return;
    const button = this.#button("Try again", () => this.#actions.retry(this.#message.id));
    button.dataset.action = "retry";
    this.#tools.prepend(button);
    this.#tools.hidden = false;
  }

  /** Puts the rendered Markdown in the place of the plain text. */
  setMarkdown(text, html) {
    if (this.#message.text !== text) return;
    const content = fragment(html);
    content.querySelectorAll("pre").forEach(frameCode);
    content.querySelectorAll("table").forEach(frameTable);
    this.#streamed = null;
    this.#markdownOf = text;
    this.#text.classList.add("prose");
    this.#text.replaceChildren(content);
  }

  #label(id, role, status, speaker) {
    Object.assign(this.element.dataset, { id, role, status });
    this.element.classList.toggle("long", role === "user" && this.#message.text.length > LONG_QUESTION);
    this.setSpeaker(speaker);
    this.#text.setAttribute("aria-busy", String(status === "streaming"));
  }

  #dated(iso) {
    const { short, long } = timeWords(iso);
    this.#time.dateTime = iso;
    this.#time.textContent = short;
    this.#time.title = long;
  }

  #setText(text) {
    this.#markdownOf = null;
    this.#text.classList.remove("prose");
    if (this.#streamed?.isConnected && this.#streamed.data === text) return;
    this.#streamed = document.createTextNode(text);
    this.#text.replaceChildren(this.#streamed);
  }

  #setReasoning({ reasoning, status, text }) {
    if (!reasoning) return;
    if (!this.#reasoning) {
      const node = document.createTextNode("");
      const summary = make("summary", {}, "Thinking…");
      const details = make("details.reasoning", {}, summary, make("div.thoughts", {}, node));
      this.#reasoning = { details, summary, node };
      this.#body.prepend(details);
    }
    const { node } = this.#reasoning;
    if (reasoning.startsWith(node.data)) node.appendData(reasoning.slice(node.data.length));
    else node.data = reasoning;
    if (status !== "streaming" || text !== "") this.#foldReasoning();
  }

  #foldReasoning() {
    if (this.#reasoning) this.#reasoning.summary.textContent = "Thoughts";
  }

  #say(sentence, grave) {
    this.#note.textContent = sentence;
    this.#note.hidden = sentence === "";
    this.#note.classList.toggle("grave", grave);
  }

  #offer(tools) {
    this.#tools.replaceChildren(...tools);
    this.#tools.hidden = tools.length === 0;
  }

  #copy() {
    return copyButton(() => this.#message.text, "Copy this message");
  }

  #button(label, act) {
    return make("button.quiet", { type: "button", click: act }, label);
  }
}

/** Gives a code block its language and a button to copy it, and lets the keyboard scroll it. */
function frameCode(pre) {
  const code = pre.querySelector("code");
  const language = code?.className.replace(/^language-/, "") ?? "";
  const frame = make("figure.code");
  pre.replaceWith(frame);
  pre.tabIndex = 0;
  const caption = make("figcaption", {}, make("span", {}, language || "text"));
  caption.append(copyButton(() => pre.textContent, "Copy this code"));
  frame.append(caption, pre);
}

function frameTable(table) {
  const frame = make("div.table", { tabindex: "0", role: "region", "aria-label": "Table" });
  table.replaceWith(frame);
  frame.append(table);
}
