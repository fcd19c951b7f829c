/**
 * The models that the server offers, and the choice among them where there is more than one.
 *
 * @typedef {Object} Model
 * @property {string} id
 * @property {string} name  for people
 * @property {boolean} [default]
 */

import { make } from "./dom.js";

const element = (id) => document.getElementById(id);

export class Models {
  #url;
  #token;
  /** @type {Model[]} */
  #list = [];
  #name = element("model");
  #choice = element("choice");
  #select = element("choose");
  #wanted = null; // the ID of a choice that the server has not answered yet

  /**
   * @param {Object} options
   * @param {URL} options.url  of the list
   * @param {string} options.token
   * @param {(id: string) => void} options.choose  somebody has chosen
   */
  constructor({ url, token, choose }) {
    this.#url = url;
    this.#token = token;
    this.#select.addEventListener("change", () => {
      this.#wanted = this.#select.value;
      choose(this.#wanted);
    });
  }

  /** Gets the list; where that fails, the last one stays. @returns {Promise<boolean>} whether there is a list */
  async load() {
    try {
      const headers = { Authorization: `Bearer ${this.#token}` };
      const response = await fetch(this.#url, { headers, cache: "no-store" });
      if (response.ok) this.#replace((await response.json()).items);
    } catch {
      // The network is down, or it was not Parley that answered.
    }
    return this.#list.length > 0;
  }

  /** @param {string} id */
  nameOf(id) {
    return this.#list.find((model) => model.id === id)?.name ?? id;
  }

  /** The server has answered the last choice: from now on its word counts. */
  settle() {
    this.#wanted = null;
  }

  /**
   * Shows which model answers.
   *
   * @param {string} [id]  undefined: nobody has chosen yet
   * @param {boolean} changeable  a choice can be sent
   */
  show(id, changeable) {
    const shown = this.#wanted ?? id ?? this.#list.find((model) => model.default)?.id ?? "";
    const several = this.#list.length > 1;
    this.#name.textContent = this.nameOf(shown);
    this.#name.hidden = several;
    this.#choice.hidden = !several;
    if (this.#select.value !== shown) this.#select.value = shown; // an open list is left alone
    this.#select.disabled = !changeable;
  }

  #replace(list) {
    const options = list.map(({ id, name }) => make("option", { value: id }, name));
    this.#select.replaceChildren(...options);
    this.#list = list;
  }
}
