// Long polling done right, for browsers and Node: no dependencies, no build step.
//
//     import { follow, publish } from "/longpoll.js";
//     for await (const event of follow("/topics/chat", { since: "now" })) show(event.data);
//     await publish("chat", { text: "hello" });
//
// A reader holds a cursor, "I have everything up to here", never a time. It asks without waiting
// until it has all there is; then it lets its request be held.
//
// A browser opens no more than six connections to a server, so tabs share one held request: the tab
// that has the Web Lock asks, and hands each page of events to the others by a BroadcastChannel.
// Each keeps a cursor of its own, and uses a page only if that begins where it is, or before; else
// it asks for itself, without waiting. So it does not matter which tab asks, when it is closed, or
// what a sleeping tab has missed.

/**
 * `data_base64`: bytes that are not text.
 * @typedef {{ seq: number, topic: string, time: string, type?: string, data?: any,
 *   data_base64?: string, content_type?: string }} LogEvent
 *
 * Events trimmed before they were read: how many in each topic, and where to go on.
 * @typedef {{ why: "trimmed" | "epoch" | "future", lost: Record<string, number | null> | null,
 *   oldest: string, resume: string }} Gap
 *
 * What becomes of a request, held for up to `wait` seconds; `here`: of this tab. After a failure
 * it is sent `again` in so many milliseconds.
 * @typedef {{ here: boolean } & (
 *     { is: "asking", wait: number }
 *   | { is: "answered", wait: number, reason: Page["reason"], events: number, behind: number }
 *   | { is: "failed", why: string, status?: number, again: number }
 *   | { is: "offline" })} State
 *
 * `since`: a cursor, "start" (the default), "now" or "last:N". Without `onGap` a gap ends the loop
 * with an error. `share: false`: this tab asks for itself. `base`: the server, if it is not the one
 * that this file came from.
 * @typedef {{ since?: string, type?: string | string[], wait?: number, limit?: number,
 *   signal?: AbortSignal, token?: string, base?: string | URL, share?: boolean,
 *   onGap?: (gap: Gap) => unknown, onState?: (state: State) => unknown }} FollowOptions
 *
 * `key`: the idempotency key; random by default.
 * @typedef {{ key?: string, type?: string, token?: string, base?: string | URL,
 *   signal?: AbortSignal }} PublishOptions
 *
 * `released`: how many held polls it answered.
 * @typedef {{ topic: string, seq: number, cursor: string, time: string, released: number,
 *   durable: boolean, duplicate?: boolean }} Published
 *
 * @typedef {{ events: LogEvent[], next: string, behind: number, more: boolean,
 *   reason: "data" | "timeout" | "drain" }} Page
 *
 * What tabs say to each other; after a state there is another one `within` so many milliseconds.
 * @typedef {{ from: string, page: Page } | { state: State, within: number }} Message
 * @typedef {(state: State, within: number) => void} Tell
 */

/** Milliseconds of the first pause after a failure; it doubles up to the longest. */
const PAUSE_FIRST = 500;
const PAUSE_MOST = 30_000;
/** Milliseconds for which a server may send clients away. */
const RETRY_AFTER_MOST = 600_000;
/** Milliseconds that an answer may take beyond its wait; then the network is taken for dead. */
const MARGIN = 10_000;
/** Times that a publish is tried. */
const TRIES = 8;
/** Events kept for a slow loop, and a page; more are asked for when it comes for them. */
const KEPT = 1000;

/** The server will not do it. `problem` is its answer, if it was JSON; with status 410 a Gap. */
export class Refused extends Error {
  /** @param {number} status @param {any} problem */
  constructor(status, problem) {
    super(problem?.detail ?? `the server answered ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

/**
 * An endless loop over events: in order, none missing, none twice. It ends when `signal` says so, or
 * with an error if the server refuses.
 * @param {string | URL} url Such as "/topics/news,sensors.*".
 * @param {FollowOptions} [options]
 */
export function follow(url, options = {}) {
  return new Follow(url, options);
}

/**
 * Publishes a string as text, bytes as they are, anything else as JSON. It is tried again after a
 * failure, and by its key can't happen twice.
 * @param {string} topic @param {any} data @param {PublishOptions} [options]
 * @returns {Promise<Published>}
 */
export async function publish(topic, data, options = {}) {
  const { key = hex(crypto.getRandomValues(new Uint8Array(16))), signal = new AbortController().signal } = options;
  const headers = authorization(options.token);
  headers.set("Idempotency-Key", key);
  if (options.type !== undefined) headers.set("Event-Type", options.type);
  let body = data;
  if (data instanceof ArrayBuffer || ArrayBuffer.isView(data)) {
    headers.set("Content-Type", "application/octet-stream");
  } else if (typeof data !== "string" && !(data instanceof Blob)) {
    headers.set("Content-Type", "application/json");
    body = JSON.stringify(data);
    if (body === undefined) throw new TypeError(`publish: ${typeof data} is not text, bytes or JSON`);
  }
  const url = resolve(`topics/${encodeURIComponent(topic)}`, options.base);
  return persist(url, { method: "POST", headers, body }, { signal, within: 3 * MARGIN, tries: TRIES });
}

/** One reader. @implements {AsyncIterableIterator<LogEvent>} */
class Follow {
  /** Where to go on another time; amid a page still where that page began. @type {string} */
  cursor;
  /** Everything up to here was handed out or is in the queue. @type {string} */
  #tip;
  /** @type {{ event: LogEvent, cursor?: string }[]} */
  #queue = [];
  /** There may be something after the tip that no other tab will bring. */
  #behind = true;
  /** Draining answers in a row. */
  #drains = 0;
  /** While this tab asks for all, or is in line for that. @type {AbortController | undefined} */
  #turn;
  /** When the tab that asks should have said something, by performance.now(). */
  #heardBy = Infinity;
  #wake = () => {};
  #stop = new AbortController();
  /** @type {BroadcastChannel | undefined} */
  #channel;
  #signal;
  #url;
  #wait;
  #options;
  #events;

  /** @param {string | URL} url @param {FollowOptions} options */
  constructor(url, options) {
    this.#options = options;
    this.#wait = options.wait ?? 25;
    this.#url = resolve(url, options.base);
    const query = this.#url.searchParams;
    this.cursor = this.#tip = options.since ?? query.get("since") ?? "start";
    // These are its own to say.
    for (const name of ["since", "wait", "format", "gap"]) query.delete(name);
    if (options.type !== undefined) query.set("type", String(options.type));
    if (options.limit !== undefined) query.set("limit", String(options.limit));
    const { signal } = this.#stop;
    this.#signal = options.signal ? AbortSignal.any([options.signal, signal]) : signal;
    this.#events = this.#read();
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  next() {
    return this.#events.next();
  }

  return() {
    this.#stop.abort();
    return this.#events.return(undefined);
  }

  /** @returns {AsyncGenerator<LogEvent, undefined, undefined>} */
  async *#read() {
    const aborted = () => this.#wake();
    this.#signal.addEventListener("abort", aborted);
    try {
      // Before the first request: what another tab says from then on is not missed.
      await this.#listen();
      while (!this.#signal.aborted) {
        const first = this.#queue.shift();
        if (first) {
          this.cursor = first.cursor ?? this.cursor;
          yield first.event;
        } else if (this.#behind) {
          this.#behind = false;
          await this.#advance(0);
        } else if (this.#channel) {
          this.#join(this.#channel);
          await this.#news();
        } else {
          await this.#advance(this.#wait);
        }
      }
    } catch (error) {
      if (!this.#signal.aborted) throw error;
    } finally {
      this.#signal.removeEventListener("abort", aborted);
      this.#stop.abort();
      this.#channel?.close();
    }
  }

  /** Goes on by one page from where this reader is. @param {number} wait */
  async #advance(wait) {
    const from = this.#tip;
    try {
      const page = await this.#ask(from, wait, this.#signal, this.#show);
      this.#take(from, page);
      this.#behind ||= page.more;
    } catch (error) {
      const gap = gapIn(error);
      this.#behind = true;
      // Another tab may have brought a page meanwhile; then this is old news.
      if (this.#tip !== from) return;
      if (!this.#options.onGap) throw error;
      await this.#options.onGap(gap);
      this.cursor = this.#tip = gap.resume;
    }
  }

  /** Takes a page in, if nothing is missing before it. @param {string} from @param {Page} page */
  #take(from, page) {
    const own = from === this.#tip;
    const tip = position(this.#tip);
    const fresh = page.events.filter(({ seq }) => own || seq > tip.seq);
    if (!(own || covers(from, this.#tip)) || this.#queue.length > KEPT) {
      this.#behind = true;
    } else if (own || position(page.next).seq > tip.seq) {
      this.#queue.push(...fresh.map((event) => ({ event })));
      this.#tip = page.next;
      const last = this.#queue.at(-1);
      if (last) last.cursor = page.next;
      else this.cursor = page.next;
    }
    this.#wake();
  }

  /**
   * The page after a cursor, however long it takes to get one.
   * @param {string} since @param {number} wait @param {AbortSignal} signal @param {Tell} tell
   * @returns {Promise<Page>}
   */
  async #ask(since, wait, signal, tell) {
    const url = new URL(this.#url);
    url.searchParams.set("since", since);
    url.searchParams.set("wait", String(wait));
    const headers = authorization(this.#options.token);
    const within = wait * 1000 + MARGIN;
    tell({ is: "asking", wait, here: true }, within);
    /** @type {Page} */
    const page = await persist(url, { headers }, { signal, within, tell });
    if (!page.next) throw new Refused(200, { detail: `${url} is not a poll` });
    const { reason, behind, events } = page;
    tell({ is: "answered", wait, reason, behind, events: events.length, here: true }, within);
    // At once the first time, but not in a loop.
    this.#drains = reason === "drain" ? this.#drains + 1 : 0;
    if (this.#drains > 1) await sleep(pause(this.#drains), signal);
    return page;
  }

  /** @param {State} state */
  #show = (state) => this.#options.onState?.(state);

  /** Opens the way to other tabs that follow the same, if there is one. */
  async #listen() {
    // Locks and hashes are there on https and on localhost only.
    const able = globalThis.document && globalThis.BroadcastChannel && navigator.locks;
    if (!able || this.#options.share === false) return;
    // 1 is the version of what tabs say to each other.
    const same = JSON.stringify([1, this.#url.href, this.#wait, this.#options.token]);
    const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(same));
    this.#channel = new BroadcastChannel(`longpoll ${hex(new Uint8Array(hash))}`);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
  }

  /** @param {Message} message */
  #hear(message) {
    if ("page" in message) return this.#take(message.from, message.page);
    // At random, so that not all who wait replace it at once.
    this.#heardBy = performance.now() + message.within + Math.random() * MARGIN;
    this.#show({ ...message.state, here: false });
  }

  /** Gets in line for the lock; who has it asks for all. @param {BroadcastChannel} channel */
  #join(channel) {
    if (this.#turn) return;
    const turn = (this.#turn = new AbortController());
    const signal = AbortSignal.any([this.#signal, turn.signal]);
    const silent = performance.now() >= this.#heardBy;
    this.#heardBy = performance.now() + this.#wait * 1000 + MARGIN;
    const over = (/** @type {any} */ error) => {
      turn.abort();
      this.#turn = undefined;
      // Neither aborted nor robbed: there are no locks for this page.
      if (error && error.name !== "AbortError") this.#channel = void channel.close();
      this.#wake();
    };
    navigator.locks.request(channel.name, silent ? { steal: true } : { signal }, () => this.#lead(channel, signal)).then(over, over);
  }

  /** Asks for all tabs while it has the lock. @param {BroadcastChannel} channel @param {AbortSignal} signal */
  async #lead(channel, signal) {
    const post = (/** @type {Message} */ message) => signal.aborted || channel.postMessage(message);
    /** @type {Tell} */
    const tell = (state, within) => {
      this.#show(state);
      post({ state, within });
    };
    this.#heardBy = Infinity;
    let from = this.#tip;
    while (!signal.aborted) {
      /** @type {Page} */
      let page;
      try {
        page = await this.#ask(from, this.#wait, signal, tell);
      } catch (error) {
        // What is lost differs from tab to tab: each is to hear it from the server.
        from = gapIn(error).resume;
        page = { events: [], next: from, behind: 0, more: true, reason: "data" };
      }
      post({ from, page });
      this.#take(from, page);
      from = page.next;
    }
  }

  /** Until there is something to do; a tab that asks for all but is frozen is replaced. */
  async #news() {
    let timer;
    await new Promise((wake) => {
      this.#wake = () => wake(undefined);
      if (this.#heardBy === Infinity) return;
      timer = setTimeout(() => {
        if (performance.now() >= this.#heardBy) this.#turn?.abort();
        this.#wake();
      }, this.#heardBy - performance.now());
    });
    clearTimeout(timer);
  }
}

/**
 * Sends a request until there is an answer that counts.
 * @param {URL} url @param {RequestInit} init
 * @param {{ signal: AbortSignal, within: number, tries?: number, tell?: Tell }} how
 */
async function persist(url, init, { signal, within, tries = Infinity, tell = () => {} }) {
  for (let failed = 1; ; failed++) {
    signal.throwIfAborted();
    await online(url, signal, tell);
    const limit = deadline(signal, within);
    /** @type {any} */
    let failure;
    let after = 0;
    try {
      const response = await fetch(url, { ...init, cache: "no-store", signal: limit.signal });
      if (response.ok) return await response.json();
      after = retryAfter(response.headers.get("Retry-After"));
      failure = new Refused(response.status, await response.json().catch(() => null));
    } catch (error) {
      failure = limit.signal.aborted ? limit.signal.reason : error;
    } finally {
      limit.end();
    }
    signal.throwIfAborted();
    const { status = 503, message } = failure;
    const passes = [408, 425, 429, 500, 502, 503, 504, 507].includes(status);
    if (!passes || failed >= tries) throw failure;
    const again = Math.max(after, pause(failed));
    tell({ is: "failed", why: message, status: failure.status, again, here: true }, again + within);
    await sleep(after, signal);
    await sleep(again - after, signal, "online");
  }
}

/** A pause with full jitter: who failed together does not return together. @param {number} failed */
function pause(failed) {
  return Math.random() * Math.min(PAUSE_MOST, PAUSE_FIRST * 2 ** (failed - 1));
}

/** Milliseconds; the header says seconds, or a date. @param {string | null} value */
function retryAfter(value) {
  const ms = Number(value) * 1000 || Date.parse(String(value)) - Date.now() || 0;
  return Math.min(Math.max(ms, 0), RETRY_AFTER_MOST);
}

/** @param {number} ms @param {AbortSignal} signal @param {string} [sooner] An event that ends it. */
function sleep(ms, signal, sooner = "") {
  return new Promise((resolve, reject) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      globalThis.removeEventListener?.(sooner, done);
      if (signal.aborted) reject(signal.reason);
      else resolve(undefined);
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
    globalThis.addEventListener?.(sooner, done);
  });
}

/** Until there is a network, which a server on this machine needs not. @param {URL} url @param {AbortSignal} signal @param {Tell} tell */
async function online({ hostname }, signal, tell) {
  const near = /^(localhost|.*\.localhost|127\..*|\[::1\])$/.test(hostname);
  while (!near && globalThis.navigator?.onLine === false) {
    tell({ is: "offline", here: true }, 2 * PAUSE_MOST);
    await sleep(PAUSE_MOST, signal, "online");
  }
}

/**
 * Ends a request that takes too long, also by the wall clock: after a machine slept, or changed
 * networks, its connections are dead.
 * @param {AbortSignal} signal @param {number} ms
 */
function deadline(signal, ms) {
  const controller = new AbortController();
  const end = Date.now() + ms;
  const abort = () => controller.abort(signal.reason);
  const late = () => controller.abort(new Error("no answer in time"));
  const timer = setTimeout(late, ms);
  const clock = setInterval(() => Date.now() >= end && late(), 2000);
  signal.addEventListener("abort", abort);
  globalThis.addEventListener?.("online", late);
  return {
    signal: controller.signal,
    end() {
      clearTimeout(timer);
      clearInterval(clock);
      signal.removeEventListener("abort", abort);
      globalThis.removeEventListener?.("online", late);
    },
  };
}

/** The gap that this error tells of; throws it if it tells of another thing. @param {unknown} error @returns {Gap} */
function gapIn(error) {
  if (error instanceof Refused && error.status === 410) return error.problem;
  throw error;
}

/** What a cursor says; of a word such as "start", nothing that compares. @param {string} cursor */
function position(cursor) {
  const [epoch, seq, told] = cursor.split(".");
  return { epoch, seq: Number(seq), told: Number(told ?? 0) };
}

/** Whether a page from there on leaves out nothing after `tip`, nor a gap untold. @param {string} from @param {string} tip */
function covers(from, tip) {
  const [a, b] = [position(from), position(tip)];
  return a.epoch === b.epoch && a.seq <= b.seq && a.told <= b.told;
}

/** @param {string | URL} url @param {string | URL} [base] */
function resolve(url, base = import.meta.url) {
  const resolved = new URL(url, base);
  if (/^https?:$/.test(resolved.protocol)) return resolved;
  throw new TypeError(`${resolved} is not http: or https:; the option "base" says where the server is`);
}

/** @param {string} [token] */
function authorization(token) {
  return new Headers(token ? { Authorization: `Bearer ${token}` } : {});
}

/** @param {Uint8Array} bytes */
function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
