/**
 * One WebSocket that is kept alive: it reconnects with growing delays, notices a dead line, and gives up where the
 * server has said that coming back is of no use.
 *
 * @typedef {Object} ConnectionState
 * @property {"connecting"|"open"|"waiting"|"closed"} phase  "open" is the socket's own; "closed" is for good
 * @property {"stopped"|"replaced"|"unauthenticated"|"forbidden"|"ended"} [reason]  why it is closed
 * @property {number} [retryAt]  when it tries again, in milliseconds since 1970, while it waits
 *
 * @typedef {Object} ProbeResult
 * @property {boolean} [unauthenticated]  the token is no longer good
 * @property {number} [retryAfter]  milliseconds
 */

const FIRST_DELAY = 250;
const LONGEST_DELAY = 15_000;
const LIMITED_DELAY = 5_000;
const PING_EVERY = 20_000;
const PONG_WITHIN = 10_000;

/** Close codes after which no reconnect would help. */
const FINAL_CODES = new Map([
  [1008, "forbidden"], // it broke the rules, and would again
  [4401, "unauthenticated"],
  [4403, "forbidden"],
  [4409, "replaced"],
  [4410, "ended"],
]);
const CODE_LIMITED = 4429;

/** The delay before attempt n, counted from 0: doubled each time, the upper half of it at random. */
export function backoff(attempt, random = Math.random) {
  const most = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** Math.min(attempt, 16));
  return Math.round(most * (0.5 + random() / 2));
}

export class Connection {
  #options;
  #socket = null;
  #attempt = 0;
  #nextDelay = null; // what the server asked for, for the next attempt only
  #retryTimer = 0;
  #pingTimer = 0;
  #pongTimer = 0;
  #state = { phase: "closed", reason: "stopped" };

  /**
   * @param {Object} options
   * @param {string|URL} options.url
   * @param {() => string[]} options.protocols  the subprotocols to offer
   * @param {() => void} options.onOpen
   * @param {(frame: Object) => void} options.onFrame
   * @param {(state: ConnectionState) => void} options.onState
   * @param {(code: number) => void} [options.onLost]  an open socket was closed with this code
   * @param {() => Promise<ProbeResult>} [options.probe]  asked after a refused upgrade, whose HTTP status a
   *   browser does not reveal
   */
  constructor(options) {
    this.#options = options;
  }

  get state() {
    return this.#state;
  }

  /** Connects now, whatever the state. */
  start() {
    this.#drop();
    this.#connect();
  }

  /** Closes for good, until start. */
  stop(reason = "stopped") {
    this.#drop();
    this.#set({ phase: "closed", reason });
  }

  /** Closes the socket and comes back later: after the delay in milliseconds, or by the usual backoff. */
  retry(delay) {
    this.#drop();
    this.#wait(delay ?? backoff(this.#attempt++));
  }

  /** The server has taken the client in: the next loss starts with a short delay again. */
  settled() {
    this.#attempt = 0;
  }

  /** The server has said when to come back after the close that will follow. */
  reconnectAfter(milliseconds) {
    this.#nextDelay = milliseconds;
  }

  /** Something has changed for the better (network, visibility): stop waiting, or see whether the line still lives. */
  wake() {
    if (this.#state.phase === "waiting") this.start();
    else if (this.#state.phase === "open") this.#ping();
  }

  /** Sends a frame. False: there is no open socket, and nothing was sent. */
  send(frame) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  #connect() {
    this.#set({ phase: "connecting" });
    const socket = new WebSocket(this.#options.url, this.#options.protocols());
    this.#socket = socket;
    let opened = false;
    const current = (handle) => (event) => {
      if (this.#socket === socket) handle(event);
    };
    socket.onopen = current(() => {
      opened = true;
      this.#pingTimer = setInterval(() => this.#ping(), PING_EVERY);
      this.#set({ phase: "open" });
      this.#options.onOpen();
    });
    socket.onmessage = current((event) => this.#receive(event.data));
    socket.onclose = current((event) => {
      if (opened) this.#lost(event.code);
      else this.#refused(socket);
    });
  }

  #receive(data) {
    clearTimeout(this.#pongTimer);
    this.#pongTimer = 0;
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return this.retry(); // no server of this protocol says such things
    }
    this.#options.onFrame(frame);
  }

  #ping() {
    if (!this.send({ type: "ping" }) || this.#pongTimer) return;
    this.#pongTimer = setTimeout(() => this.retry(), PONG_WITHIN);
  }

  #lost(code) {
    this.#drop();
    this.#options.onLost?.(code);
    const reason = FINAL_CODES.get(code);
    if (reason) return this.#set({ phase: "closed", reason });
    const usual = backoff(this.#attempt++);
    this.#wait(this.#nextDelay ?? (code === CODE_LIMITED ? Math.max(usual, LIMITED_DELAY) : usual));
    this.#nextDelay = null;
  }

  async #refused(socket) {
    let result = {};
    try {
      result = (await this.#options.probe?.()) ?? {};
    } catch {
      // The network is down; the usual delay is the answer to that.
    }
    if (this.#socket !== socket) return;
    if (result.unauthenticated) return this.stop("unauthenticated");
    this.#drop();
    this.#wait(Math.max(result.retryAfter ?? 0, backoff(this.#attempt++)));
  }

  #wait(delay) {
    this.#retryTimer = setTimeout(() => this.#connect(), delay);
    this.#set({ phase: "waiting", retryAt: Date.now() + delay });
  }

  #drop() {
    clearTimeout(this.#retryTimer);
    clearInterval(this.#pingTimer);
    clearTimeout(this.#pongTimer);
    this.#pongTimer = 0;
    const socket = this.#socket;
    this.#socket = null;
    if (socket && socket.readyState <= WebSocket.OPEN) socket.close(1000);
  }

  #set(state) {
    this.#state = state;
    this.#options.onState(state);
  }
}
