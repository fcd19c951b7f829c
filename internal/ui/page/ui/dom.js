/**
 * Makes an element. Strings among the children become text nodes: there is no way from here to HTML.
 *
 * @param {string} tag  with an optional class: "p.note"
 * @param {Object<string, string|boolean|EventListener>} [attributes]  functions are listeners by event type; true is
 *   an empty attribute, false none
 * @param {...(Node|string)} children
 * @returns {HTMLElement}
 */
export function make(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length > 0) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** A button that copies a text and says so. @param {() => string} text */
export function copyButton(text, label) {
  const button = make("button.quiet.copy", { type: "button", "aria-label": label }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copying is not allowed here";
    }
    setTimeout(() => (button.textContent = "Copy"), 1_600);
  });
  return button;
}
