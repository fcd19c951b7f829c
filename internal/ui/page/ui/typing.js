/** Typing, both ways: showing that somebody of the staff types, and telling them that this user does. */

const SHOWN_FOR = 8_000; // unless it is said again
const SAID_EVERY = 3_000;
const STOPPED_AFTER = 4_000;

export class TypingIndicator {
  #root;
  #timer = 0;

  /** @param {HTMLElement} root */
  constructor(root) {
    this.#root = root;
  }

  /** @param {{name: string}|null} author */
  show(author) {
    clearTimeout(this.#timer);
    this.#root.hidden = author === null;
    this.#root.querySelector(".who").textContent = author ? `${author.name || "Staff"} is typing` : "";
    if (author) this.#timer = setTimeout(() => this.show(null), SHOWN_FOR);
  }
}

export class TypingReporter {
  #tell;
  #timer = 0;
  #saidAt = -Infinity;

  /** @param {(active: boolean) => void} tell */
  constructor(tell) {
    this.#tell = tell;
  }

  typed() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.stop(), STOPPED_AFTER);
    if (performance.now() - this.#saidAt < SAID_EVERY) return;
    this.#saidAt = performance.now();
    this.#tell(true);
  }

  stop() {
    clearTimeout(this.#timer);
    if (this.#saidAt === -Infinity) return;
    this.#saidAt = -Infinity;
    this.#tell(false);
  }
}
