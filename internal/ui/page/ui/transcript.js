/** The conversation on the page: its messages in order, those that are not sent yet below them. */

import { MessageView } from "./message.js";

export class Transcript {
  #list;
  #views = new Map(); // ID → MessageView
  #pending = new Set(); // the IDs that the server has not confirmed
  #superseded = new Set(); // the IDs that go unless the history that is coming in has them
  #markdown;
  #actions;
  #speakerOf;
  #catchingUp = false;

  /**
   * @param {HTMLElement} list
   * @param {import("./markdown.js").Markdown} markdown
   * @param {Object} actions  see MessageView
   * @param {(message: import("./conversation.js").Message) => string} speakerOf
   */
  constructor(list, markdown, actions, speakerOf) {
    this.#list = list;
    this.#markdown = markdown;
    this.#actions = actions;
    this.#speakerOf = speakerOf;
  }

  get empty() {
    return this.#views.size === 0;
  }

  /** The history comes anew: what it does not have goes once it is all there, so that the page does not flicker. */
  supersede() {
    for (const id of this.#views.keys()) {
      if (!this.#pending.has(id)) this.#superseded.add(id);
    }
  }

  /** Missed messages are coming in: their Markdown is asked for together, by renderMissing. */
  catchUp() {
    this.#catchingUp = true;
  }

  clear() {
    for (const id of [...this.#views.keys()]) {
      if (!this.#pending.has(id)) this.remove(id);
    }
  }

  remove(id) {
    this.#views.get(id)?.element.remove();
    this.#views.delete(id);
    this.#pending.delete(id);
    this.#superseded.delete(id);
  }

  show(message) {
    const view = this.#view(message.id);
    const confirmed = this.#pending.delete(message.id);
    const kept = this.#superseded.delete(message.id);
    if (confirmed || kept) this.#place(view); // the same element, where it belongs now
    view.show(message, this.#speakerOf(message));
    this.#renderMarkdown(view);
  }

  /** What the speakers are called may have changed. */
  relabel() {
    for (const view of this.#views.values()) view.setSpeaker(this.#speakerOf(view.message));
  }

  append(message, text, reasoning) {
    this.#views.get(message.id)?.append(text, reasoning);
  }

  /** @param {import("./outbox.js").PendingMessage[]} pending */
  showPending(pending, connected) {
    const ids = new Set(pending.map((message) => message.id));
    for (const id of [...this.#pending]) {
      if (!ids.has(id)) this.remove(id);
    }
    for (const message of pending) {
      const known = this.#views.has(message.id);
      if (known && !this.#pending.has(message.id)) continue; // the server has shown it already
      const view = this.#view(message.id);
      this.#pending.add(message.id);
      view.showPending(message, this.#speakerOf({ role: "user" }), connected);
      if (!known) this.#list.append(view.element);
    }
  }

  /** Offers a retry on this message and no other. */
  offerRetry(id) {
    for (const [key, view] of this.#views) view.setRetry(key === id);
  }

  /**
   * What was missed is all there: asks for the Markdown that is not shown yet.
   *
   * @returns {Promise<void>} when it is shown
   */
  async renderMissing() {
    this.#catchingUp = false;
    for (const id of [...this.#superseded]) this.remove(id);
    await Promise.all([...this.#views.values()].map((view) => this.#renderMarkdown(view)));
  }

  #view(id) {
    let view = this.#views.get(id);
    if (!view) {
      view = new MessageView(this.#actions);
      this.#views.set(id, view);
      this.#place(view);
    }
    return view;
  }

  /** Behind the last confirmed message, before the first that is not. */
  #place(view) {
    const first = this.#pending.values().next().value;
    const before = first === undefined ? null : this.#views.get(first).element;
    if (view.element.nextElementSibling !== before || !view.element.isConnected) {
      this.#list.insertBefore(view.element, before);
    }
  }

  async #renderMarkdown(view) {
    if (this.#catchingUp || !view.wantsMarkdown) return;
    const { text } = view.message;
    const html = this.#markdown.known(text) ?? (await this.#markdown.render(text));
    if (html !== null && view.wantsMarkdown) view.setMarkdown(text, html);
  }
}
