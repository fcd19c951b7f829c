/** What the page shows about itself: the connection, the notice above the composer, the window's title. */

import { make } from "./dom.js";

const element = (id) => document.getElementById(id);

/** The dot in the header, and in words what it means. */
export class ConnectionIndicator {
  #root = element("connection");
  #label = this.#root.querySelector(".label");
  #timer = 0;

  /** @param {import("./connection.js").ConnectionState} state */
  show(state) {
    clearInterval(this.#timer);
    this.#root.dataset.state = { open: "open", closed: "closed" }[state.phase] ?? "connecting";
    this.#root.dataset.offline = String(state.phase !== "open" && !navigator.onLine);
    this.#say(state);
    if (state.phase === "waiting") this.#timer = setInterval(() => this.#say(state), 500);
  }

  #say(state) {
    const words = connectionWords(state);
    if (this.#label.textContent === words) return;
    this.#label.textContent = words;
    this.#root.title = words;
  }
}

function connectionWords({ phase, retryAt }) {
  if (phase === "open") return "Connected";
  if (phase === "closed") return "Not connected";
  if (!navigator.onLine) return "Offline";
  if (phase === "connecting") return "Connecting…";
  const seconds = Math.ceil((retryAt - Date.now()) / 1000);
  return seconds > 0 ? `Reconnecting in ${seconds} s` : "Reconnecting…";
}

/** One line above the composer. A lasting one stays until the state it speaks of has passed. */
export class Notice {
  #root = element("notice");
  #timer = 0;

  /**
   * @param {string} text
   * @param {{label: string, act: () => void}} [action]
   * @param {{lasting?: boolean, grave?: boolean}} [how]
   */
  show(text, action, { lasting = action !== undefined, grave = false } = {}) {
    this.clear();
    this.#root.append(make("span", {}, text));
    if (action) {
      const act = () => {
        this.clear();
        action.act();
      };
      this.#root.append(make("button.action", { type: "button", click: act }, action.label));
    }
    this.#root.classList.toggle("grave", grave);
    this.#root.hidden = false;
    if (!lasting) this.#timer = setTimeout(() => this.clear(), 9_000);
  }

  clear() {
    clearTimeout(this.#timer);
    this.#root.hidden = true;
    this.#root.replaceChildren();
  }
}

/** Says the conversation's title, and in a hidden window that an answer is being written or has come. */
export class WindowTitle {
  #title = "";
  #streaming = false;
  #unread = 0;

  constructor() {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#unread = 0;
      this.#update();
    });
  }

  set(title, streaming) {
    this.#title = title;
    this.#streaming = streaming;
    this.#update();
  }

  arrived() {
    if (document.hidden) this.#unread++;
    this.#update();
  }

  #update() {
    const name = this.#title ? `${this.#title} – Parley` : "Parley";
    const mark = this.#unread > 0 ? `(${this.#unread}) ` : this.#streaming ? "… " : "";
    document.title = mark + name;
  }
}

/** Tells those who listen instead of look; a message as a whole, not word by word. */
export function announce(text) {
  element("announcer").textContent = text;
}
