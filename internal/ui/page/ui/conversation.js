/**
 * The state of one conversation, by reduction of the server's frames. It knows nothing of the page: each frame gives
 * the list of what has changed.
 *
 * @typedef {Object} Message  as the protocol has it
 * @property {string} id
 * @property {"user"|"assistant"|"agent"|"system"} role
 * @property {string} text
 * @property {string} [reasoning]
 * @property {"streaming"|"complete"|"cancelled"|"failed"|"interrupted"} status
 * @property {string} created_at
 * @property {string} [model]
 * @property {"stop"|"length"|"content_filter"|"cancelled"} [finish_reason]
 * @property {{code: string, message: string, retryable: boolean}} [error]
 *
 * @typedef {Object} Change
 * @property {"cleared"|"message"|"text"|"removed"|"session"|"typing"|"diverged"} kind  "message": it is new or was
 *   replaced or has ended; "text": it grew; "diverged": what is held is not what the server has
 * @property {Message} [message]
 * @property {string} [id]  of a removed message
 * @property {string} [text]  by which it grew
 * @property {boolean} [reasoning]  the reasoning grew, not the text
 * @property {boolean} [ended]  the message has just reached its end before our eyes
 */

const encoder = new TextEncoder();

/** The ends of an answer that did not come out. */
const UNFINISHED = new Set(["failed", "interrupted", "cancelled"]);

export class Conversation {
  session = null;
  /** @type {Map<string, Message>} in order */
  messages = new Map();
  /** Who is typing on the other side, or null. */
  typing = null;

  /** The response in progress, if any. */
  get streaming() {
    for (const message of this.messages.values()) {
      if (message.status === "streaming") return message;
    }
    return null;
  }

  get last() {
    return [...this.messages.values()].at(-1) ?? null;
  }

  /**
   * The ID of the last answer, where it did not come out and might if it were asked for again; else null. What the
   * model will not take is worth another try only once there is another model.
   */
  get retryable() {
    const { last, session } = this;
    if (this.ended || session?.assisted_by || last?.role !== "assistant") return null;
    const cut = UNFINISHED.has(last.status) || last.finish_reason === "content_filter";
    const refused = last.error?.retryable === false && last.model === session.model;
    return cut && !refused ? last.id : null;
  }

  get ended() {
    return this.session?.status === "ended";
  }

  /** @returns {Change[]} */
  apply(frame) {
    switch (frame.type) {
      case "session.opened":
        return this.#opened(frame);
      case "message.created":
        return this.#created(frame.message);
      case "message.delta":
        return this.#grown(frame);
      case "message.completed":
        return this.#completed(frame);
      case "session.updated":
        return this.#updated(frame);
      case "agent.joined":
        return this.#updated({ assisted_by: frame.author });
      case "agent.left":
        this.typing = null;
        return [{ kind: "typing" }, ...this.#updated({ assisted_by: null })];
      case "session.ended":
        return this.#updated({ status: "ended" });
      case "typing":
        this.typing = frame.active ? frame.author : null;
        return [{ kind: "typing" }];
      default:
        return [];
    }
  }

  #opened(frame) {
    this.session = { ...frame.session };
    const changes = [{ kind: "session" }];
    if (frame.resumed) return changes;
    this.messages.clear();
    this.typing = null;
    return [{ kind: "cleared" }, ...changes];
  }

  #created(message) {
    const changes = [];
    if (message.replaces) changes.push(...this.#replace(message.replaces));
    const ended = this.messages.get(message.id)?.status === "streaming" && message.status !== "streaming";
    this.messages.set(message.id, { reasoning: "", ...message }); // a known ID keeps its place
    if (message.role === "agent" && this.typing) {
      this.typing = null;
      changes.push({ kind: "typing" });
    }
    return [...changes, { kind: "message", message: this.messages.get(message.id), ended }];
  }

  /** A message that another one takes the place of goes, and with an edited question its answer. */
  #replace(id) {
    const gone = [...this.messages.values()].filter((message) => message.id === id || message.reply_to === id);
    return gone.map((message) => {
      this.messages.delete(message.id);
      return { kind: "removed", id: message.id };
    });
  }

  #grown({ message_id: id, kind, text }) {
    const message = this.messages.get(id);
    if (!message) return [{ kind: "diverged", id }];
    const reasoning = kind === "reasoning";
    message[reasoning ? "reasoning" : "text"] += text;
    return [{ kind: "text", message, text, reasoning }];
  }

  #completed(frame) {
    const message = this.messages.get(frame.message_id);
    if (!message) return [{ kind: "diverged", id: frame.message_id }];
    const { status, finish_reason, usage, error } = frame;
    Object.assign(message, { status, finish_reason, usage, error });
    const changes = [{ kind: "message", message, ended: true }];
    if (frame.length !== undefined && encoder.encode(message.text).length !== frame.length) {
      changes.push({ kind: "diverged", id: message.id });
    }
    return changes;
  }

  #updated(frame) {
    for (const field of ["title", "model", "help_requested", "assisted_by", "status"]) {
      if (frame[field] !== undefined) this.session[field] = frame[field];
    }
    return [{ kind: "session" }];
  }
}
