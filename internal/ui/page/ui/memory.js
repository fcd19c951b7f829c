/**
 * What the browser keeps: the token for this tab, the session and the unsent words for this user. Where a browser
 * allows no storage (a sandboxed frame, say) it is kept for as long as the page lives.
 */

const PREFIX = "parley.";

function storage(kind) {
  try {
    const store = globalThis[kind];
    store.setItem(`${PREFIX}probe`, "1");
    store.removeItem(`${PREFIX}probe`);
    return store;
  } catch {
    const held = new Map();
    return {
      getItem: (key) => held.get(key) ?? null,
      setItem: (key, value) => held.set(key, value),
      removeItem: (key) => held.delete(key),
    };
  }
}

const tab = storage("sessionStorage");
const browser = storage("localStorage");

function write(store, key, value) {
  try {
    if (value) store.setItem(key, value);
    else store.removeItem(key);
  } catch {
    // The storage is full: the page works on, and forgets this when it is closed.
  }
}

export const token = {
  get: () => tab.getItem(`${PREFIX}token`),
  set: (value) => write(tab, `${PREFIX}token`, value),
};

/** The memory of one user of this page. */
export class Memory {
  #prefix;

  /** @param {string} user  the token's sub */
  constructor(user) {
    this.#prefix = `${PREFIX}${new URL(".", document.baseURI).pathname}.${user}.`;
  }

  get sessionID() {
    return browser.getItem(`${this.#prefix}session`);
  }

  set sessionID(id) {
    write(browser, `${this.#prefix}session`, id);
  }

  get draft() {
    return browser.getItem(`${this.#prefix}draft`) ?? "";
  }

  set draft(text) {
    write(browser, `${this.#prefix}draft`, text);
  }

  /** @returns {{id: string, text: string}[]} */
  get pending() {
    try {
      return JSON.parse(browser.getItem(`${this.#prefix}pending`)) ?? [];
    } catch {
      return [];
    }
  }

  set pending(messages) {
    const kept = messages.map(({ id, text }) => ({ id, text }));
    write(browser, `${this.#prefix}pending`, kept.length > 0 ? JSON.stringify(kept) : null);
  }
}
