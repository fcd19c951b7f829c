/** The user's token: where it comes from and what it says. The server alone checks it. */

const SHAPE = /[\w-]+\.[\w-]+\.[\w-]+/;

/** Takes the token out of the address (#token=…), so that it is neither bookmarked nor shared. */
export function takeFromAddress() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found === null) return null;
  history.replaceState(history.state, "", location.pathname + location.search);
  return find(found);
}

/** The token in what somebody pasted: the token itself, or a link with it. */
export function find(text) {
  return SHAPE.exec(text.slice(text.lastIndexOf("=") + 1))?.[0] ?? null;
}

/** @returns {{sub: string, name?: string}|null} the claims; null: it is no token */
export function claims(token) {
  try {
    const base64 = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    const parsed = JSON.parse(new TextDecoder().decode(bytes));
    return typeof parsed.sub === "string" ? parsed : null;
  } catch {
    return null;
  }
}
