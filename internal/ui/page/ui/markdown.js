/** Markdown, rendered and sanitised by the server. This is the only place where HTML enters the page. */

const MOST_TEXTS = 200;
const MOST_CHARACTERS = 250_000; // at most four bytes each: the server takes 1 MiB
const MOST_REMEMBERED = 400;
const GATHER_FOR = 10; // milliseconds in which texts share a request

const policy = globalThis.trustedTypes?.createPolicy("parley", { createHTML: (html) => html }) ?? {
  createHTML: (html) => html,
};

/** @param {string} html  as the server rendered it */
export function fragment(html) {
  const template = document.createElement("template");
  template.innerHTML = policy.createHTML(html);
  return template.content;
}

export class Markdown {
  #url;
  #token;
  #known = new Map(); // text → HTML
  #waiting = new Map(); // text → {promise, resolve}
  #scheduled = false;

  constructor(url, token) {
    this.#url = url;
    this.#token = token;
  }

  /** The HTML of a text that was rendered before, or undefined. */
  known(text) {
    return this.#known.get(text);
  }

  /** @returns {Promise<string|null>} the HTML; null where the server could not be asked */
  render(text) {
    if (this.#known.has(text)) return Promise.resolve(this.#known.get(text));
    if (!this.#waiting.has(text)) this.#waiting.set(text, deferred());
    if (!this.#scheduled) {
      this.#scheduled = true;
      setTimeout(() => this.#flush(), GATHER_FOR);
    }
    return this.#waiting.get(text).promise;
  }

  #flush() {
    this.#scheduled = false;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (let batch = []; waiting.length > 0; batch = []) {
      for (let size = 0; waiting.length > 0 && batch.length < MOST_TEXTS; ) {
        size += waiting[0][0].length;
        if (batch.length > 0 && size > MOST_CHARACTERS) break;
        batch.push(waiting.shift());
      }
      this.#ask(batch);
    }
  }

  async #ask(batch) {
    let html = [];
    try {
      const response = await this.request(batch.map(([text]) => text));
      if (response.ok) ({ html } = await response.json());
    } catch {
      // Without the network the texts stay as they are; they are asked for again when it is back.
    }
    batch.forEach(([text, { resolve }], i) => {
      if (html[i] !== undefined) this.#remember(text, html[i]);
      resolve(html[i] ?? null);
    });
  }

  request(texts) {
    return fetch(this.#url, {
      method: "POST",
      headers: { Authorization: `Bearer ${this.#token}`, "Content-Type": "application/json" },
      body: JSON.stringify({ texts }),
      cache: "no-store",
    });
  }

  /** Whether the token is still good. @returns {Promise<import("./connection.js").ProbeResult>} */
  async probe() {
    const response = await this.request([]);
    const seconds = Number(response.headers.get("Retry-After"));
    return { unauthenticated: response.status === 401, retryAfter: seconds > 0 ? seconds * 1000 : undefined };
  }

  #remember(text, html) {
    this.#known.set(text, html);
    if (this.#known.size > MOST_REMEMBERED) this.#known.delete(this.#known.keys().next().value);
  }
}

function deferred() {
  let resolve;
  const promise = new Promise((done) => (resolve = done));
  return { promise, resolve };
}
