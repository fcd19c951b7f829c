/**
 * The messages that the server has not confirmed yet, in order. One at a time is under way; each keeps its ID until its
 * receipt, so that sending it again after a lost connection never makes it two.
 *
 * @typedef {Object} PendingMessage
 * @property {string} id  the protocol's message_id
 * @property {string} text
 * @property {"waiting"|"sending"|"failed"} status
 * @property {{code: string, message: string, retryable: boolean}} [error]  where it failed
 */

/** Errors that pass by themselves: the message stays in the queue. */
const PASSING = new Set(["rate_limited", "response_in_progress", "server_draining", "session_busy"]);
const USUAL_DELAY = 2_000;
/** How long the queue waits for the answer to a confirmed message to begin. */
const ANSWER_WITHIN = 1_000;

/** An ID that no other client makes: 128 random bits in the protocol's alphabet. */
export function newMessageID() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Outbox {
  #entries = [];
  #transmit;
  #onChange;
  #open = false;
  #busy = false;
  #timer = 0;

  /**
   * @param {(message: PendingMessage) => void} transmit  sends the frame
   * @param {(pending: PendingMessage[]) => void} onChange
   * @param {{id: string, text: string}[]} [restored]  what an earlier page could not send
   */
  constructor(transmit, onChange, restored = []) {
    this.#transmit = transmit;
    this.#onChange = onChange;
    this.#entries = restored.map(({ id, text }) => ({ id, text, status: "waiting" }));
  }

  get pending() {
    return this.#entries.map((entry) => ({ ...entry }));
  }

  add(text) {
    const entry = { id: newMessageID(), text, status: "waiting" };
    this.#entries.push(entry);
    this.#changed();
    return entry.id;
  }

  /** A session is open, or no longer. What was under way is sent again. */
  setOpen(open) {
    this.#open = open;
    this.#resume();
    for (const entry of this.#entries) {
      if (entry.status === "sending") entry.status = "waiting";
    }
    this.#changed();
  }

  /** A response is in progress: the next message has to wait for its end. */
  setBusy(busy) {
    if (this.#busy === busy) return;
    this.#busy = busy;
    if (busy) this.#resume();
    else this.#changed();
  }

  /** The receipt of a message has come; what comes next is, as a rule, its answer. */
  confirm(id) {
    if (!this.#entries.some((entry) => entry.id === id)) return;
    this.#pause(ANSWER_WITHIN);
    this.remove(id);
  }

  /** @returns {boolean} whether the error was about a message of this queue */
  reject(id, error) {
    const entry = this.#entries.find((entry) => entry.id === id);
    if (!entry) return false;
    if (PASSING.has(error.code)) {
      entry.status = "waiting";
      this.#pause(error.retry_after_ms || USUAL_DELAY);
    } else {
      entry.status = "failed";
      entry.error = error;
    }
    this.#changed();
    return true;
  }

  /** The connection was closed because of what is under way. */
  rejectSending(error) {
    for (const entry of this.#entries) {
      if (entry.status === "sending") this.reject(entry.id, error);
    }
  }

  /** Tries a failed message again, as the last of the queue. */
  retry(id) {
    const entry = this.#entries.find((entry) => entry.id === id);
    if (!entry) return;
    this.#entries = this.#entries.filter((other) => other !== entry);
    this.#entries.push({ id, text: entry.text, status: "waiting" });
    this.#changed();
  }

  remove(id) {
    this.#entries = this.#entries.filter((entry) => entry.id !== id);
    this.#changed();
  }

  clear() {
    this.#entries = [];
    this.#changed();
  }

  #pause(milliseconds) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.#changed();
    }, milliseconds);
  }

  #resume() {
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  #changed() {
    this.#sendNext();
    this.#onChange(this.pending);
  }

  #sendNext() {
    if (!this.#open || this.#busy || this.#timer) return;
    if (this.#entries.some((entry) => entry.status === "sending")) return;
    const next = this.#entries.find((entry) => entry.status === "waiting");
    if (!next) return;
    next.status = "sending";
    this.#transmit(next);
  }
}
