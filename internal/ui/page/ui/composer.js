/** The field to write in, with Send and, while an answer is written, Stop in its place. */

export class Composer {
  #form;
  #field;
  #send;
  #stop;
  #actions;
  #responding = false;
  #writable = false;

  /**
   * @param {Object} actions
   * @param {(text: string) => void} actions.send
   * @param {() => void} actions.stop
   * @param {(text: string) => void} actions.changed  the draft
   */
  constructor(actions) {
    this.#actions = actions;
    this.#form = document.getElementById("compose");
    this.#field = document.getElementById("composer");
    this.#send = document.getElementById("send");
    this.#stop = document.getElementById("stop");
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#field.addEventListener("input", () => this.#edited());
    this.#field.addEventListener("keydown", (event) => sends(event) && this.#submit());
    // Keyboards that are driven by programs send the character apart from its key: it is not to be written either.
    this.#field.addEventListener("keypress", sends);
    this.#stop.addEventListener("click", () => this.#stopNow());
  }

  get text() {
    return this.#field.value;
  }

  set text(text) {
    this.#field.value = text;
    this.#edited();
  }

  focus() {
    this.#field.focus({ preventScroll: true });
  }

  setPlaceholder(text) {
    this.#field.placeholder = text;
  }

  /** While an answer is written one can go on typing, but not send. */
  setResponding(responding) {
    if (this.#responding === responding) return;
    const hadFocus = [this.#send, this.#stop].includes(document.activeElement);
    this.#responding = responding;
    this.#stop.disabled = false;
    this.#update();
    if (hadFocus) this.focus();
  }

  setWritable(writable) {
    this.#writable = writable;
    this.#field.disabled = !writable;
    this.#update();
  }

  #submit() {
    const text = this.#field.value.trim();
    if (text === "" || this.#responding || !this.#writable) return;
    this.text = "";
    this.#actions.send(text);
  }

  #stopNow() {
    this.#stop.disabled = true;
    this.#actions.stop();
  }

  #edited() {
    this.#grow();
    this.#update();
    this.#actions.changed(this.#field.value);
  }

  /** For browsers without field-sizing: content. */
  #grow() {
    if (CSS.supports("field-sizing", "content")) return;
    this.#field.style.height = "auto";
    this.#field.style.height = `${this.#field.scrollHeight}px`;
  }

  #update() {
    this.#send.hidden = this.#responding;
    this.#stop.hidden = !this.#responding;
    this.#send.disabled = !this.#writable || this.#field.value.trim() === "";
  }
}

/** Whether the key is the one that sends; it then writes nothing. */
function sends(event) {
  // keyCode 229: the Enter that ends an input method's composition, in browsers that say so late.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return false;
  event.preventDefault();
  return true;
}
