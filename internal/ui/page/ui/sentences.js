/** What the page says to people: errors, states and times in plain words. */

const ERRORS = {
  rate_limited: "That was a lot at once. Wait a moment, then try again.",
  budget_exceeded: "Your allowance is used up for now. Try again later.",
  message_too_large: "This message is too long. Please shorten it.",
  invalid_message: "This message could not be accepted as it is.",
  message_conflict: "This message was already sent with other words.",
  response_in_progress: "An answer is still being written.",
  content_filtered: "The model declined to answer this. Other words may help.",
  llm_timeout: "The model took too long to answer.",
  llm_unavailable: "The model cannot be reached at the moment.",
  llm_rejected: "The model did not accept this request.",
  model_not_found: "This model is no longer available.",
  storage_unavailable: "The message could not be saved just now.",
  session_ended: "This conversation has ended.",
  session_busy: "The conversation is moving to another server. One moment.",
  server_draining: "The server is restarting.",
  connection_limit: "Too many windows are open for this account.",
  forbidden: "This is not allowed for your account.",
  unauthenticated: "Your link is no longer valid.",
};

/** @param {{code: string, message?: string}} error */
export function errorSentence(error) {
  return ERRORS[error?.code] ?? error?.message ?? "Something went wrong.";
}

/** Why an answer is not whole; empty for one that is. */
export function endingSentence(message) {
  switch (message.status) {
    case "cancelled":
      return "Stopped.";
    case "interrupted":
      return "Cut short by a restart of the server.";
    case "failed":
      if (message.error?.code === "llm_unavailable" && message.text !== "") return "The model broke off here.";
      return errorSentence(message.error);
    case "complete":
      if (message.finish_reason === "length") return "The answer ends here: it reached the model's length limit.";
      if (message.finish_reason === "content_filter") return "A content filter ended the answer here.";
  }
  return "";
}

/** @param {import("./outbox.js").PendingMessage} message */
export function pendingSentence(message, connected) {
  if (message.status === "failed") return errorSentence(message.error);
  if (message.status === "sending") return "";
  return connected ? "Waiting for its turn." : "Waiting for the connection.";
}

const HOUR = { hour: "numeric", minute: "2-digit" };
const clock = new Intl.DateTimeFormat(undefined, HOUR);
const calendar = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", ...HOUR });
const complete = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

/** @returns {{short: string, long: string}} */
export function timeWords(iso) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return { short: "", long: "" };
  const today = date.toDateString() === new Date().toDateString();
  return { short: (today ? clock : calendar).format(date), long: complete.format(date) };
}
