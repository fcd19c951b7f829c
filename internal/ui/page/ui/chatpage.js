/** The conversation page: the client, the conversation's state and what is seen of it, wired together. */

import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { showGate } from "./gate.js";
import { Markdown } from "./markdown.js";
import { Memory } from "./memory.js";
import { Models } from "./models.js";
import { Parley } from "./parley.js";
import { Pin } from "./scroll.js";
import { errorSentence, timeWords } from "./sentences.js";
import { announce, ConnectionIndicator, Notice, WindowTitle } from "./status.js";
import { Transcript } from "./transcript.js";
import { TypingIndicator, TypingReporter } from "./typing.js";
import { showWelcome, welcomeFor } from "./welcome.js";

const HISTORY = 200; // messages: the most that the server gives at once
// Milliseconds: so long the history may take to come, and then wait for its Markdown, before it is shown as it is.
const HISTORY_WITHIN = 1_500;
const RENDERED_WITHIN = 500;

const element = (id) => document.getElementById(id);
const base = new URL(".", document.baseURI);

export class ChatPage {
  #memory;
  #parley;
  #markdown;
  #models;
  #transcript;
  #composer;
  #pin;
  #reporter;
  #conversation = new Conversation();
  #indicator = new ConnectionIndicator();
  #notice = new Notice();
  #title = new WindowTitle();
  #typing = new TypingIndicator(element("typing"));
  #connection = { phase: "connecting" };
  #catchUpTo = null; // the seq at which what was missed is all there
  #catchUpTimer = 0;
  #news = ""; // to be said once the next session is open
  #refetched = new Set(); // the messages for whose sake the history was fetched anew

  /**
   * @param {string} token
   * @param {{sub: string}} user
   */
  constructor(token, user) {
    this.#memory = new Memory(user.sub);
    this.#markdown = new Markdown(new URL("ui/render", base), token);
    this.#models = new Models({
      url: new URL("api/v1/models", base),
      token,
      choose: (id) => this.#parley.chooseModel(id),
    });
    this.#transcript = new Transcript(element("messages"), this.#markdown, this.#messageActions(), (message) =>
      this.#speakerOf(message),
    );
    this.#composer = new Composer({
      send: (text) => this.#send(text),
      stop: () => this.#stop(),
      changed: (text) => this.#drafted(text),
    });
    this.#pin = new Pin(document.body, element("latest"));
    this.#parley = new Parley({
      url: new URL("ws", base),
      token,
      sessionID: this.#memory.sessionID,
      history: HISTORY,
      pending: this.#memory.pending,
      probe: () => this.#markdown.probe(),
    });
    this.#reporter = new TypingReporter((active) => this.#parley.setTyping(active));
    this.#composer.text = this.#memory.draft;
  }

  open() {
    const on = (type, handle) => this.#parley.addEventListener(type, ({ detail }) => handle(detail));
    on("frame", (frame) => this.#receive(frame));
    on("connection", (state) => this.#connectionChanged(state));
    on("pending", (pending) => this.#pendingChanged(pending));
    on("sessionlost", ({ code }) => this.#sessionLost(code));
    on("problem", (problem) => this.#refused(problem));
    this.#listen();
    this.#refresh();
    if (matchMedia("(hover: hover)").matches) this.#composer.focus();
    this.#parley.connect();
  }

  #listen() {
    element("new").addEventListener("click", () => this.#startNew());
    addEventListener("online", () => this.#parley.wake());
    addEventListener("offline", () => this.#indicator.show(this.#connection));
    addEventListener("pageshow", (event) => event.persisted && this.#parley.wake());
    document.addEventListener("visibilitychange", () => document.hidden || this.#parley.wake());
    document.addEventListener("keydown", ({ key, isComposing, target }) => {
      const taken = isComposing || target instanceof HTMLSelectElement; // it ends a composition, or closes a list
      if (key === "Escape" && !taken && this.#responding) this.#stop();
    });
  }

  #messageActions() {
    return {
      retry: () => {
        this.#pin.hold();
        this.#parley.retryResponse();
      },
      resend: (id) => this.#parley.resend(id),
      edit: (id, text) => {
        this.#parley.discard(id);
        this.#composer.text = joined(text, this.#composer.text);
        this.#composer.focus();
      },
    };
  }

  get #connected() {
    return this.#connection.phase === "open";
  }

  get #responding() {
    return this.#connected && this.#conversation.streaming !== null;
  }

  #receive(frame) {
    if (frame.type === "session.opened") this.#opened(frame);
    for (const change of this.#conversation.apply(frame)) this.#show(change);
    if (frame.type === "session.updated" && frame.model !== undefined) this.#models.settle();
    if (frame.type === "auth.expiring") this.#authExpiring(frame.expires_at);
    if (frame.type === "connection.limit") this.#notice.show(errorSentence({ code: "connection_limit" }));
    if (this.#catchUpTo !== null && this.#parley.seq >= this.#catchUpTo) this.#caughtUp();
    if (frame.type !== "message.delta") this.#refresh();
  }

  /** @param {import("./conversation.js").Change} change */
  #show(change) {
    switch (change.kind) {
      case "cleared":
        return this.#transcript.supersede();
      case "message":
        return this.#messageChanged(change);
      case "text":
        return this.#transcript.append(change.message, change.text, change.reasoning);
      case "removed":
        return this.#transcript.remove(change.id);
      case "session":
        return this.#conversation.ended && this.#closed("ended");
      case "typing":
        return this.#typing.show(this.#conversation.typing);
      case "diverged":
        return this.#refetch(change.id);
    }
  }

  #messageChanged({ message, ended }) {
    this.#transcript.show(message);
    const arrived = ended || (message.role === "agent" && this.#catchUpTo === null);
    if (!arrived) return;
    announce(`${this.#speakerOf(message)}: ${message.text}`);
    this.#title.arrived();
  }

  /** What we hold is not what the server has: get it anew, but not for ever. */
  #refetch(id) {
    if (this.#refetched.has(id)) return;
    this.#refetched.add(id);
    this.#parley.refetch();
  }

  #opened(frame) {
    this.#memory.sessionID = frame.session.id;
    this.#models.settle();
    if (!frame.resumed) element("earlier").hidden = !frame.has_more;
    clearTimeout(this.#catchUpTimer);
    this.#catchUpTo = frame.seq;
    this.#catchUpTimer = setTimeout(() => this.#caughtUp(), HISTORY_WITHIN);
    this.#transcript.catchUp();
  }

  async #caughtUp() {
    this.#catchUpTo = null;
    clearTimeout(this.#catchUpTimer);
    const rendered = this.#transcript.renderMissing();
    await Promise.race([rendered, new Promise((resolve) => setTimeout(resolve, RENDERED_WITHIN))]);
    document.body.dataset.phase = "ready";
  }

  #connectionChanged(state) {
    const lost = this.#connected && state.phase !== "open";
    const found = !this.#connected && state.phase === "open";
    const back = found && document.body.dataset.phase === "ready";
    this.#connection = state;
    if (lost) this.#typing.show(null);
    this.#indicator.show(state);
    if (lost) announce("The connection is lost.");
    if (back) announce("Connected again.");
    if (state.phase === "waiting") document.body.dataset.phase = "ready";
    if (state.phase === "closed") this.#closed(state.reason);
    if (state.phase === "open") this.#welcomeBack();
    if (found) this.#loadModels(); // it may be another server than before
    this.#pendingChanged(this.#parley.pending);
  }

  #welcomeBack() {
    this.#notice.clear();
    if (this.#news) this.#notice.show(this.#news, undefined, { lasting: true });
    this.#news = "";
    if (this.#conversation.ended) this.#closed("ended");
  }

  async #loadModels() {
    if (!(await this.#models.load())) this.#notice.show("The list of models cannot be loaded at the moment.");
    this.#transcript.relabel();
    this.#refresh();
  }

  #refused({ error, request }) {
    this.#models.settle();
    // A new session is opened without the model that there is not; its opening would take the notice away.
    if (request === "session.open" && error.code === "model_not_found") this.#news = errorSentence(error);
    else this.#notice.show(errorSentence(error));
    this.#refresh();
  }

  #closed(reason) {
    document.body.dataset.phase = "ready";
    const again = () => this.#parley.connect();
    const anew = () => this.#startNew();
    switch (reason) {
      case "replaced":
        return this.#notice.show("This conversation is open in another window.", { label: "Use here", act: again });
      case "ended":
        return this.#notice.show("This conversation has ended.", { label: "Start a new one", act: anew });
      case "forbidden":
        return this.#notice.show("The server does not let this account in.", { label: "Try again", act: again });
      case "unauthenticated":
        return this.#unauthenticated();
    }
  }

  #unauthenticated() {
    const why = "Your link is no longer valid.";
    if (this.#transcript.empty) return showGate(why);
    this.#notice.show(why, { label: "Enter a new one", act: () => showGate(why) });
  }

  #authExpiring(at) {
    const text = `Your link expires at ${timeWords(at).short}. Ask for a new one to stay.`;
    this.#notice.show(text, undefined, { lasting: true });
  }

  #sessionLost(code) {
    const what = code === "session_ended" ? "has ended" : "is no longer available";
    this.#conversation = new Conversation();
    this.#transcript.clear();
    this.#news = `Your earlier conversation ${what}. This is a new one.`;
  }

  #pendingChanged(pending) {
    this.#memory.pending = pending;
    this.#transcript.showPending(pending, this.#connected);
    this.#refresh();
  }

  /** Brings everything around the messages in line with the state. */
  #refresh() {
    const { session, retryable, ended } = this.#conversation;
    const model = session?.model ?? this.#parley.chosenModel;
    const title = session?.title || this.#firstQuestion();
    element("title").textContent = title || (session ? "New conversation" : "");
    this.#models.show(model, !ended && this.#connection.phase !== "closed" && (this.#connected || !session));
    this.#title.set(title, this.#responding);
    this.#composer.setResponding(this.#responding);
    this.#composer.setWritable(!ended && this.#connection.phase !== "closed");
    const welcome = welcomeFor(model);
    this.#composer.setPlaceholder(this.#placeholder(welcome));
    this.#showWelcome(welcome);
    this.#showAssistance(session);
    this.#transcript.offerRetry(this.#connected && this.#parley.pending.length === 0 ? retryable : null);
  }

  #placeholder(welcome) {
    const { session, ended } = this.#conversation;
    if (ended) return "This conversation has ended";
    const agent = session?.assisted_by;
    if (agent) return `Write to ${agent.name || "a member of staff"}`;
    return session ? welcome.placeholder : "";
  }

  #firstQuestion() {
    for (const { role, text } of this.#conversation.messages.values()) {
      if (role === "user") return text.slice(0, 120);
    }
    return "";
  }

  #showWelcome(welcome) {
    const root = element("welcome");
    const wanted = this.#conversation.session !== null && this.#transcript.empty && !this.#conversation.ended;
    if (wanted && root.dataset.heading !== welcome.heading) {
      root.dataset.heading = welcome.heading;
      showWelcome(root, welcome, (prompt) => this.#send(prompt));
    }
    root.hidden = !wanted;
  }

  #showAssistance(session) {
    const agent = session?.assisted_by;
    const words = agent
      ? `You are talking with ${agent.name || "a member of staff"}.`
      : session?.help_requested
        ? "A person was asked to join. You can go on meanwhile."
        : "";
    const root = element("assist");
    if (root.textContent !== words) root.textContent = words;
    root.hidden = words === "";
  }

  #speakerOf({ role, model, author }) {
    switch (role) {
      case "user":
        return "You";
      case "agent":
        return author?.name || "Staff";
      case "system":
        return "Note";
      default:
        return this.#models.nameOf(model || this.#conversation.session?.model) || "Assistant";
    }
  }

  #send(text) {
    this.#reporter.stop();
    this.#parley.send(text);
    this.#pin.hold();
    this.#composer.focus();
  }

  #stop() {
    this.#parley.cancelResponse(this.#conversation.streaming?.id);
  }

  #drafted(text) {
    this.#memory.draft = text;
    if (this.#conversation.session?.assisted_by) this.#reporter.typed();
  }

  /** Leaves this conversation for a new one; words that were not sent yet go back into the field. */
  #startNew() {
    this.#composer.focus();
    const unsent = this.#parley.pending.map((message) => message.text);
    if (this.#transcript.empty && this.#connected) return;
    this.#composer.text = joined(...unsent, this.#composer.text);
    this.#notice.clear();
    this.#memory.sessionID = null;
    this.#conversation = new Conversation();
    this.#parley.startSession();
    this.#transcript.clear();
    element("earlier").hidden = true;
    this.#refresh();
  }
}

function joined(...texts) {
  return texts.filter((text) => text !== "").join("\n\n");
}
