/**
 * A channel of `wsbridge broadcast` in a page: each message once and in order, over as many connections as it takes.
 *
 *     const channel = new wsbridge.Channel("/", { onmessage: (data) => console.log(data) });
 *
 * It speaks wsbridge.v1, in which each message comes with a position, and comes back with the last one: the server goes on
 * there, or says what is lost. Between two attempts it waits, longer each time (exponential backoff, full jitter), and tries
 * the next URL where one has brought nothing; it tries at once when the page is looked at again or the browser is online.
 *
 * Two ends are final: close(), and 1003 after something was sent, for a channel that accepts no messages. No other is: of a
 * refusal (403, 429, another subprotocol) a browser tells a page no more than of a server that is about to start.
 *
 * There is no watchdog, since browsers answer pings without a word to the page. A connection that dies in silence ends when
 * the browser finds out, or is replaced when the browser is online again.
 *
 * A plain script, which sets globalThis.wsbridge; wsbridge.mjs is the same as a module. It needs nothing but WebSocket and URL.
 */
"use strict";
{
  const SUBPROTOCOL = "wsbridge.v1";
  const NEWLINE = 10;
  const NORMAL = 1000, ABNORMAL = 1006, UNSUPPORTED_DATA = 1003;

  /** @typedef {"connecting" | "open" | "waiting" | "closed"} State */
  /** @typedef {{ code?: number, reason?: string, delay?: number }} Detail How a connection ended; seconds until the next attempt. */
  /** @typedef {"onmessage" | "onlost" | "onstate" | "onbroker" | "minDelay" | "maxDelay" | "openTimeout" | "subprotocols" | "times"} Settable */
  /** @typedef {Partial<Pick<Channel, Settable>> & { since?: string | null }} Options What can be set, and a position to begin behind. */

  class Channel {
    /**
     * A message, and the position behind it; null from a server that did not agree to wsbridge.v1. With `times` also when it was
     * published, in milliseconds since 1970; null where that is not known.
     * @type {((data: string | ArrayBuffer, position: string | null, at: number | null) => void) | null}
     */
    onmessage = null;
    /**
     * Messages were lost before the next one; null if their number is unknown.
     * @type {((count: number | null, position: string) => void) | null}
     */
    onlost = null;
    /** @type {((state: State, detail: Detail) => void) | null} */
    onstate = null;
    /**
     * The server has lost its broker, or has it again; with a new connection it is there until the server says otherwise.
     * @type {((isHere: boolean) => void) | null}
     */
    onbroker = null;
    /** Seconds, at most, before the first new attempt; twice as many before each further one. */
    minDelay = 0.5;
    /** Seconds, at most, before any attempt. */
    maxDelay = 30;
    /** Seconds that a server may take to answer. */
    openTimeout = 10;
    /** What the server is to agree to one of, or a browser refuses the connection; [] for a server without subprotocols. */
    subprotocols = [SUBPROTOCOL];

    /** Whether to ask the server for the times at which messages were published. */
    times = false;

    /** @type {URL[]} */ #urls;
    #index = 0;
    /** @type {string | null} */ #position;
    /** @type {number | null} When the messages that come now were published. */ #at = null;
    /** @type {State} */ #state = "connecting";
    /** @type {WebSocket | null} */ #socket = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
    #failures = 0;
    #hasDelivered = false;
    #hasSent = false;
    #isBrokerHere = true;
    #life = new AbortController();

    /**
     * Begin to connect, as soon as the running code is done. Throws TypeError for what is no URL.
     * @param {string | string[]} urls ws(s), http(s), or relative to the page
     * @param {Options} options
     */
    constructor(urls, { since = null, ...options } = {}) {
      this.#urls = [urls].flat().map(socketURL);
      if (!this.#urls.length) throw new TypeError("a channel needs a URL");
      this.#position = since;
      for (const [name, value] of Object.entries(options)) if (value !== undefined) Object.assign(this, { [name]: value });
      const { signal } = this.#life;
      globalThis.addEventListener?.("online", () => {
        // An open connection may well have died meanwhile; one with a position loses nothing by being replaced.
        if (this.#state !== "open" || this.#position !== null) this.retry();
      }, { signal });
      globalThis.document?.addEventListener("visibilitychange", () => {
        if (this.#state === "waiting" && !document.hidden) this.retry();
      }, { signal });
      queueMicrotask(() => this.retry());
    }

    get state() { return this.#state; }

    /** Behind the last message or loss, for `since` of another channel; null until the server has told one. */
    get position() { return this.#position; }

    /** The URL that is in use, or is tried next. */
    get url() { return this.#urls[this.#index].href; }

    /**
     * Send a message; return false, and send nothing, when the channel is not open.
     * @param {string | ArrayBuffer | ArrayBufferView<ArrayBuffer> | Blob} data
     */
    send(data) {
      if (this.#socket?.readyState !== WebSocket.OPEN) return false;
      this.#socket.send(data);
      this.#hasSent = true;
      return true;
    }

    /** End it for good; nothing is delivered after that. */
    close() { this.#close(NORMAL, ""); }

    /** Connect now, instead of when the wait is over; a connection that there is gives way to a new one. */
    retry() {
      if (this.#state === "closed") return;
      this.#drop();
      if (this.#state === "open" && this.#hasDelivered) this.#failures = 0;
      this.#hasDelivered = this.#hasSent = false;
      const url = new URL(this.url);
      if (this.#position !== null) url.searchParams.set("since", this.#position);
      if (this.times) url.searchParams.set("times", "1");
      this.#at = null;
      try {
        const socket = this.#socket = new WebSocket(url, this.subprotocols);
        socket.binaryType = "arraybuffer";
        socket.onopen = () => this.#opened(socket);
        socket.onclose = ({ code, reason }) => this.#ended(code, reason);
      } catch (error) {
        return this.#ended(ABNORMAL, String(error));
      }
      this.#timer = setTimeout(() => this.#ended(ABNORMAL, "no answer"), this.openTimeout * 1000);
      this.#enter("connecting");
    }

    /** @param {WebSocket} socket */
    #opened(socket) {
      clearTimeout(this.#timer);
      const isPositioned = socket.protocol === SUBPROTOCOL;
      // What comes without positions moves none: asked for it again, the same server would repeat all that came since.
      if (!isPositioned) this.#position = null;
      socket.onmessage = ({ data }) => {
        this.#hasDelivered = true;
        if (isPositioned) this.#take(data); else this.onmessage?.(data, null, null);
      };
      try {
        this.#enter("open");
      } finally {
        if (this.#socket === socket) this.#hear("here");
      }
    }

    /** @param {string | ArrayBuffer} data What is behind a position and a newline, or a control record. */
    #take(data) {
      if (typeof data !== "string") {
        const bytes = new Uint8Array(data), end = bytes.indexOf(NEWLINE);
        this.#position = new TextDecoder().decode(bytes.subarray(0, end));
        this.onmessage?.(data.slice(end + 1), this.#position, this.#at);
      } else if (data.startsWith("!")) {
        this.#obey(data.slice(1).split(" "));
      } else {
        const end = data.indexOf("\n");
        this.#position = data.slice(0, end);
        this.onmessage?.(data.slice(end + 1), this.#position, this.#at);
      }
    }

    /** @param {string[]} record A control record; one of a later server's is none of ours. */
    #obey([name, word, count]) {
      if (name === "broker") this.#hear(word);
      if (name === "time") this.#at = word === "?" ? null : Number(word);
      if (name === "at" || name === "lost") this.#position = word;
      if (name === "lost") this.onlost?.(count === "?" ? null : Number(count), word);
    }

    /** @param {string} where The broker is: "here" or "away". */
    #hear(where) {
      const isHere = where === "here";
      if (isHere === this.#isBrokerHere) return;
      this.#isBrokerHere = isHere;
      this.onbroker?.(isHere);
    }

    /** @param {number} code @param {string} reason */
    #ended(code, reason) {
      if (code === UNSUPPORTED_DATA && this.#hasSent) return this.#close(code, reason);
      this.#drop();
      // Where something came from, the position is known: that server is asked again before the next one.
      if (this.#hasDelivered) this.#failures = 0;
      else this.#index = (this.#index + 1) % this.#urls.length;
      const delay = Math.random() * Math.min(this.maxDelay, this.minDelay * 2 ** this.#failures++);
      this.#timer = setTimeout(() => this.retry(), delay * 1000);
      this.#enter("waiting", { code, reason, delay });
    }

    /** @param {number} code @param {string} reason */
    #close(code, reason) {
      if (this.#state === "closed") return;
      this.#life.abort();
      this.#drop();
      this.#enter("closed", { code, reason });
    }

    /** Let go of connection and timer: nothing comes from either any more. */
    #drop() {
      clearTimeout(this.#timer);
      const socket = this.#socket;
      this.#socket = null;
      if (!socket) return;
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }

    /** @param {State} state @param {Detail} detail */
    #enter(state, detail = {}) {
      this.#state = state;
      this.onstate?.(state, detail);
    }
  }

  /** @param {string} url */
  function socketURL(url) {
    const made = new URL(url, globalThis.location?.href);
    made.protocol = made.protocol.replace(/^http/, "ws");
    made.hash = "";
    if (!/^wss?:$/.test(made.protocol)) throw new TypeError(`${url} is not a WebSocket URL`);
    return made;
  }

  // In a script this makes a global by itself, and tells type checkers of it; in a module it does not.
  var wsbridge = { Channel };
  globalThis.wsbridge = wsbridge;
}
