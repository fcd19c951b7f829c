/**
 * Keeps the end of the conversation in view for as long as the reader wants it: scrolling up lets go, returning to the
 * end or asking for the latest takes hold again.
 */

const NEAR = 48; // pixels from the end that still count as the end

export class Pin {
  #scroller = document.scrollingElement;
  #held = true;
  #last = 0;
  #button;

  /**
   * @param {HTMLElement} content  what grows
   * @param {HTMLButtonElement} button  "jump to latest"
   */
  constructor(content, button) {
    this.#button = button;
    this.#last = scrollY;
    addEventListener("scroll", () => this.#scrolled(), { passive: true });
    addEventListener("resize", () => this.follow(), { passive: true });
    new ResizeObserver(() => this.follow()).observe(content);
    button.addEventListener("click", () => this.hold());
  }

  /** Goes to the end and stays there. */
  hold() {
    this.#held = true;
    this.follow();
  }

  follow() {
    if (this.#held) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#last = scrollY; // content that shrank has moved the page up: that was not the reader
    this.#show();
  }

  get #distance() {
    return this.#scroller.scrollHeight - scrollY - innerHeight;
  }

  #scrolled() {
    const up = scrollY < this.#last;
    this.#last = scrollY;
    if (this.#distance <= NEAR) this.#held = true;
    else if (up) this.#held = false;
    this.#show();
  }

  #show() {
    this.#button.hidden = this.#held || this.#distance <= NEAR;
  }
}
