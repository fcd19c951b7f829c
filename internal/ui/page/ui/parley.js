/**
 * A client for Parley's wire protocol, version 1.
 *
 *   const parley = new Parley({ url: new URL("ws", document.baseURI), token });
 *   parley.addEventListener("frame", ({ detail: frame }) => …);
 *   parley.connect();
 *   parley.send("Good morning.");
 *
 * A session is a log and this client a cursor over it: it checks that no event is missing, goes on where it was after a
 * lost connection, and sends what the server has not confirmed again under the same ID.
 *
 * Events, all with their content in `detail`:
 *
 *   frame        a frame of the server, in order and without holes. After a `session.opened` that is not `resumed`
 *                everything held so far is void.
 *   connection   {phase, reason?, retryAt?}; "open" is sent after the session is open
 *   pending      PendingMessage[]: what is not confirmed yet, oldest first
 *   sessionlost  {code}: the session asked for is gone; a new one is being opened
 *   problem      {error, request}: a request failed; `request` is its frame's type
 *
 * @typedef {import("./connection.js").ConnectionState} ConnectionState
 * @typedef {import("./outbox.js").PendingMessage} PendingMessage
 */

import { Connection } from "./connection.js";
import { Outbox } from "./outbox.js";

const SUBPROTOCOL = "parley.v1";
const CLOSE_TOO_BIG = 1009;
const TOO_LARGE = { code: "message_too_large", message: "The message is too long.", retryable: false };

export class Parley extends EventTarget {
  #connection;
  #outbox;
  #token;
  #sessionID;
  #history;
  #newSession; // the fields of session.open for a session that is to be made
  #epoch = null;
  #seq = 0;
  #opening = null; // the ref of the session.open under way
  #gaps = 0; // since the cursor last moved
  #responding = new Set(); // the IDs of streaming messages
  #refs = 0;

  /**
   * @param {Object} options
   * @param {string|URL} options.url  of the server's /ws; http and https are understood
   * @param {string} options.token
   * @param {string} [options.sessionID]  the session to open; without it a new one is made
   * @param {number} [options.history]  how many of the newest messages to get, where the client does not resume
   * @param {{model?: string, metadata?: Object<string, string>}} [options.newSession]
   * @param {{id: string, text: string}[]} [options.pending]  messages that an earlier page could not send
   * @param {() => Promise<import("./connection.js").ProbeResult>} [options.probe]
   */
  constructor({ url, token, sessionID, history, newSession = {}, pending = [], probe }) {
    super();
    this.#token = token;
    this.#sessionID = sessionID ?? null;
    this.#history = history;
    this.#newSession = newSession;
    this.#outbox = new Outbox(
      (message) => this.#transmit(message),
      (list) => this.#emit("pending", list),
      pending,
    );
    const address = new URL(url);
    address.protocol = address.protocol.replace(/^http/, "ws");
    this.#connection = new Connection({
      url: address,
      protocols: () => [SUBPROTOCOL, `parley.bearer.${this.#token}`],
      probe,
      onOpen: () => this.#open(),
      onFrame: (frame) => this.#receive(frame),
      onLost: (code) => code === CLOSE_TOO_BIG && this.#outbox.rejectSending(TOO_LARGE),
      onState: (state) => this.#connectionChanged(state),
    });
  }

  get sessionID() {
    return this.#sessionID;
  }

  /** The cursor: the highest seq that was received. */
  get seq() {
    return this.#seq;
  }

  /** The model for sessions that are to be made; undefined: the server's choice. */
  get chosenModel() {
    return this.#newSession.model;
  }

  get pending() {
    return this.#outbox.pending;
  }

  /** Connects, now: at first, after a close that was for good, or instead of waiting. */
  connect() {
    this.#connection.start();
  }

  close() {
    this.#connection.stop();
  }

  /** The network is back, or the page is visible again. */
  wake() {
    this.#connection.wake();
  }

  /** Sends a message, as soon as that is possible. Returns its ID. */
  send(text) {
    return this.#outbox.add(text);
  }

  /** Tries a message that failed again. */
  resend(id) {
    this.#outbox.retry(id);
  }

  /** Forgets a message that is not confirmed. */
  discard(id) {
    this.#outbox.remove(id);
  }

  /**
   * Leaves the session as it is and makes a new one, with what was given and chosen before where nothing else is given.
   * What is not confirmed is dropped.
   */
  startSession(newSession = this.#newSession) {
    this.#outbox.clear();
    this.#forget();
    this.#newSession = newSession;
    this.#reopen();
  }

  /** Drops the cursor and gets the newest history again. */
  refetch() {
    this.#forgetCursor();
    this.#reopen();
  }

  cancelResponse(messageID) {
    this.#request({ type: "response.cancel", message_id: messageID });
  }

  retryResponse() {
    this.#request({ type: "response.retry" });
  }

  /** @param {{title?: string, model?: string}} changes */
  updateSession(changes) {
    this.#request({ type: "session.update", ...changes });
  }

  /** Chooses who answers from the next message on, in this session and in those that are made later. */
  chooseModel(model) {
    this.#newSession = { ...this.#newSession, model };
    if (this.#sessionID) this.updateSession({ model });
  }

  endSession() {
    this.#request({ type: "session.end" });
  }

  requestHelp(reason) {
    this.#request({ type: "help.request", reason });
  }

  setTyping(active) {
    this.#connection.send({ type: "typing", active });
  }

  /** Gives the connection a new token for the same user. */
  refreshToken(token) {
    this.#token = token;
    this.#request({ type: "auth.refresh", token });
  }

  #request(frame) {
    const ref = `${frame.type}:${++this.#refs}`;
    return this.#connection.send({ ...frame, ref }) ? ref : null;
  }

  #transmit(message) {
    this.#connection.send({
      type: "message.send",
      ref: message.id,
      session_id: this.#sessionID,
      message_id: message.id,
      text: message.text,
    });
  }

  #open() {
    const frame = { type: "session.open", history: this.#history };
    if (this.#sessionID) {
      frame.session_id = this.#sessionID;
      if (this.#epoch !== null) Object.assign(frame, { epoch: this.#epoch, after: this.#seq });
    } else {
      Object.assign(frame, this.#newSession);
    }
    this.#opening = this.#request(frame);
  }

  #reopen() {
    this.#outbox.setOpen(false);
    if (this.#connection.state.phase === "open") this.#open();
    else this.#connection.start();
  }

  #forgetCursor() {
    this.#epoch = null;
    this.#seq = 0;
    this.#gaps = 0;
  }

  #forget() {
    this.#sessionID = null;
    this.#forgetCursor();
  }

  #forgetModel() {
    this.#newSession = { ...this.#newSession, model: undefined };
  }

  #receive(frame) {
    if (frame.type === "session.opened") return this.#opened(frame);
    if (frame.type === "error") return this.#failed(frame);
    if (frame.seq !== undefined) return this.#event(frame);
    if (frame.type === "server.draining") this.#connection.reconnectAfter(frame.reconnect_after_ms ?? 0);
    if (frame.type !== "pong") this.#emit("frame", frame);
  }

  #opened(frame) {
    if (frame.ref !== this.#opening) return; // answers a session.open that a newer one has overtaken
    this.#opening = null;
    const made = this.#sessionID === null;
    this.#sessionID = frame.session.id;
    this.#epoch = frame.epoch;
    if (!frame.resumed) {
      this.#seq = 0;
      this.#responding.clear();
    }
    if (frame.in_progress) this.#responding.add(frame.in_progress);
    if (this.#gaps === 0) this.#connection.settled();
    this.#emit("frame", frame);
    this.#emit("connection", { phase: "open" });
    const { model = frame.session.model } = this.#newSession;
    if (made && model !== frame.session.model) this.updateSession({ model }); // chosen while it was being made
    this.#outbox.setBusy(this.#responding.size > 0);
    this.#outbox.setOpen(frame.session.status !== "ended");
  }

  /** A sequenced frame stands for every event after the cursor up to its seq. */
  #event(frame) {
    if (this.#opening !== null || frame.session_id !== this.#sessionID) return; // of a log that we are leaving
    if (!frame.repeat) {
      if ((frame.from ?? frame.seq) !== this.#seq + 1) return this.#missed();
      this.#seq = frame.seq;
      this.#gaps = 0;
    }
    this.#emit("frame", frame);
    this.#track(frame);
  }

  /** Events are missing. Resuming brings them; where it does not, the history is fetched anew. */
  #missed() {
    this.#gaps++;
    if (this.#gaps === 1) return this.#connection.start();
    this.#epoch = null;
    this.#seq = 0;
    this.#connection.retry();
  }

  #track(frame) {
    switch (frame.type) {
      case "message.created":
        this.#outbox.confirm(frame.message.id);
        if (frame.message.status === "streaming") this.#responding.add(frame.message.id);
        else this.#responding.delete(frame.message.id);
        break;
      case "message.completed":
        this.#responding.delete(frame.message_id);
        break;
      case "session.ended":
        this.#outbox.setOpen(false);
    }
    this.#outbox.setBusy(this.#responding.size > 0);
  }

  #failed({ ref, error }) {
    if (ref !== undefined && ref === this.#opening) return this.#openFailed(error);
    if (this.#outbox.reject(ref, error)) return;
    if (error.code === "model_not_found") this.#forgetModel();
    this.#emit("problem", { error, request: ref?.split(":")[0] });
  }

  #openFailed(error) {
    this.#opening = null;
    const lost = error.code === "session_not_found" || error.code === "session_ended";
    if (lost && this.#sessionID) {
      this.#forget();
      this.#emit("sessionlost", { code: error.code });
      return this.#open();
    }
    if (error.code === "invalid_message" && this.#epoch !== null) {
      this.#forgetCursor(); // the log is shorter than our cursor: it is not the log that we knew
      return this.#open();
    }
    if (error.code === "model_not_found" && this.#newSession.model) {
      this.#forgetModel();
      this.#emit("problem", { error, request: "session.open" });
      return this.#open();
    }
    this.#emit("problem", { error, request: "session.open" });
    if (error.retryable) this.#connection.retry(error.retry_after_ms);
    else this.#connection.stop(error.code === "unauthenticated" ? "unauthenticated" : "forbidden");
  }

  #connectionChanged(state) {
    if (state.phase === "open") return; // said once the session is open
    this.#opening = null;
    this.#outbox.setOpen(false);
    this.#emit("connection", state);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
