// A long-polling client for browsers and Node: no dependencies, no build step.
//
//     import { follow, publish } from "/longpoll.js";
//     for await (const event of follow("/topics/chat", { since: "now" })) show(event.data);
//     await publish("chat", { text: "hello" });
//
// A reader keeps a cursor, "I have everything up to here", not a time. It polls without waiting
// until it has caught up; then the server holds its request.
//
// A browser opens at most six connections to a server, so tabs share one held request: the leader,
// the tab that holds the Web Lock, polls and sends each page to the other tabs by BroadcastChannel.
// Each tab keeps its own cursor and accepts a page only if the page begins at or before it; else
// the tab polls for itself, without waiting. So it does not matter which tab leads, when it closes,
// or what a sleeping tab has missed.

/**
 * `data_base64`: bytes that are not text.
 * @typedef {{ seq: number, topic: string, time: string, type?: string, data?: any,
 *   data_base64?: string, content_type?: string }} LogEvent
 *
 * Events trimmed before they were read: how many per topic, and where to continue.
 * @typedef {{ why: "trimmed" | "epoch" | "future", lost: Record<string, number | null> | null,
 *   oldest: string, resume: string }} Gap
 *
 * The state of a poll, held for up to `wait` seconds; `here`: by this tab. After a failure it is
 * sent again in `again` milliseconds.
 * @typedef {{ here: boolean } & (
 *     { is: "asking", wait: number }
 *   | { is: "answered", wait: number, reason: Page["reason"], events: number, behind: number }
 *   | { is: "failed", why: string, status?: number, again: number }
 *   | { is: "offline" })} State
 *
 * `since`: a cursor, "start" (the default), "now" or "last:N". Without `onGap` a gap ends the loop
 * with an error. `share: false`: this tab polls for itself. `base`: the server, if not the origin
 * of this file.
 * @typedef {{ since?: string, type?: string | string[], wait?: number, limit?: number,
 *   signal?: AbortSignal, token?: string, base?: string | URL, share?: boolean,
 *   onGap?: (gap: Gap) => unknown, onState?: (state: State) => unknown }} FollowOptions
 *
 * `key`: the idempotency key; random by default.
 * @typedef {{ key?: string, type?: string, token?: string, base?: string | URL,
 *   signal?: AbortSignal }} PublishOptions
 *
 * `released`: number of held polls that it answered.
 * @typedef {{ topic: string, seq: number, cursor: string, time: string, released: number,
 *   durable: boolean, duplicate?: boolean }} Published
 *
 * @typedef {{ events: LogEvent[], next: string, behind: number, more: boolean,
 *   reason: "data" | "timeout" | "drain" }} Page
 *
 * A message between tabs; after a state the next one follows `within` milliseconds.
 * @typedef {{ from: string, page: Page } | { state: State, within: number }} Message
 * @typedef {(state: State, within: number) => void} Report
 */

/** Milliseconds of the first pause after a failure; it doubles up to the maximum. */
const FIRST_PAUSE = 500;
const MAX_PAUSE = 30_000;
/** Milliseconds; a longer Retry-After is cut to this. */
const MAX_RETRY_AFTER = 600_000;
/** Milliseconds that a response may take beyond its wait; then the network counts as dead. */
const MARGIN = 10_000;
/** Attempts of one publish. */
const MAX_TRIES = 8;
/** Milliseconds from the first attempt; see RETRY_FOR_MAX in src/limits.rs. */
const RETRY_FOR = 480_000;
/** Events queued for a slow loop, plus a page; the loop polls for the rest later. */
const MAX_QUEUED = 1000;

/** The server refused. `problem` is its response, if that was JSON; with status 410 a Gap. */
export class Refused extends Error {
  /** @param {number} status @param {any} problem */
  constructor(status, problem) {
    super(problem?.detail ?? `the server answered ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

/**
 * An endless loop over events: in order, none missing, none twice. It ends when `signal` is
 * aborted, or with an error if the server refuses.
 * @param {string | URL} url Such as "/topics/news,sensors.*".
 * @param {FollowOptions} [options]
 */
export function follow(url, options = {}) {
  return new Follow(url, options);
}

/**
 * Publishes a string as text, bytes as they are, anything else as JSON. Retries after a failure;
 * the key prevents a second event. If all attempts fail, the outcome is unknown.
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
  const how = { signal, timeout: 3 * MARGIN, tries: MAX_TRIES, within: RETRY_FOR };
  return request(url, { method: "POST", headers, body }, how);
}

/** One reader. @implements {AsyncIterableIterator<LogEvent>} */
class Follow {
  /** Where to continue later; within a page, where that page began. @type {string} */
  cursor;
  /** The end of the queue, as a cursor. @type {string} */
  #end;
  /** @type {{ event: LogEvent, cursor?: string }[]} */
  #queue = [];
  /** There may be events after `#end` that no other tab sends. */
  #behind = true;
  /** During `onGap`. The position then moves behind the gap, and until then no page moves it. */
  #inGap = false;
  /** Draining responses in a row. */
  #drains = 0;
  /** While this tab leads, or waits for the lock. @type {AbortController | undefined} */
  #term;
  /** When the leader's next message is due, by performance.now(). */
  #leaderDue = Infinity;
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
    this.cursor = this.#end = options.since ?? query.get("since") ?? "start";
    // This class sets these itself.
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
      // Before the first request, to miss no message from then on.
      await this.#openChannel();
      while (!this.#signal.aborted) {
        const first = this.#queue.shift();
        if (first) {
          this.cursor = first.cursor ?? this.cursor;
          yield first.event;
        } else if (this.#behind) {
          this.#behind = false;
          await this.#advance(0);
        } else if (this.#channel) {
          this.#requestLock(this.#channel);
          await this.#waitForLeader();
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

  /** Polls for one page. @param {number} wait */
  async #advance(wait) {
    const from = this.#end;
    try {
      const page = await this.#poll(from, wait, this.#signal, this.#report);
      this.#accept(from, page);
      this.#behind ||= page.more;
    } catch (error) {
      const gap = gapIn(error);
      this.#behind = true;
      // If the leader has sent a page meanwhile, the gap is out of date.
      if (this.#end !== from) return;
      if (!this.#options.onGap) throw error;
      this.#inGap = true;
      await this.#options.onGap(gap);
      this.#inGap = false;
      this.cursor = this.#end = gap.resume;
    }
  }

  /** Queues a page, if no event is missing before it. @param {string} from @param {Page} page */
  #accept(from, page) {
    const own = from === this.#end;
    const end = position(this.#end);
    const fresh = page.events.filter(({ seq }) => own || seq > end.seq);
    if (!(own || covers(from, this.#end)) || this.#inGap || this.#queue.length > MAX_QUEUED) {
      this.#behind = true;
    } else if (own || position(page.next).seq > end.seq) {
      this.#queue.push(...fresh.map((event) => ({ event })));
      this.#end = page.next;
      const last = this.#queue.at(-1);
      if (last) last.cursor = page.next;
      else this.cursor = page.next;
    }
    this.#wake();
  }

  /**
   * Returns the page after a cursor; retries until there is one.
   * @param {string} since @param {number} wait @param {AbortSignal} signal @param {Report} report
   * @returns {Promise<Page>}
   */
  async #poll(since, wait, signal, report) {
    const url = new URL(this.#url);
    url.searchParams.set("since", since);
    url.searchParams.set("wait", String(wait));
    const headers = authorization(this.#options.token);
    const timeout = wait * 1000 + MARGIN;
    report({ is: "asking", wait, here: true }, timeout);
    /** @type {Page} */
    const page = await request(url, { headers }, { signal, timeout, report });
    if (!page.next) throw new Refused(200, { detail: `${url} is not a poll` });
    const { reason, behind, events } = page;
    report({ is: "answered", wait, reason, behind, events: events.length, here: true }, timeout);
    // Reconnect at once after the first drain, with a pause after the next.
    this.#drains = reason === "drain" ? this.#drains + 1 : 0;
    if (this.#drains > 1) await sleep(pause(this.#drains), signal);
    return page;
  }

  /** @param {State} state */
  #report = (state) => this.#options.onState?.(state);

  /** Opens the channel to tabs with the same subscription, where supported. */
  async #openChannel() {
    // Browsers have locks and hashes on https and localhost only.
    const able = globalThis.document && globalThis.BroadcastChannel && navigator.locks;
    if (!able || this.#options.share === false) return;
    // 1 is the version of Message.
    const same = JSON.stringify([1, this.#url.href, this.#wait, this.#options.token]);
    const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(same));
    this.#channel = new BroadcastChannel(`longpoll ${hex(new Uint8Array(hash))}`);
    this.#channel.onmessage = ({ data }) => this.#receive(data);
  }

  /** @param {Message} message */
  #receive(message) {
    if ("page" in message) return this.#accept(message.from, message.page);
    // Random, so that the waiting tabs do not all replace the leader at once.
    this.#leaderDue = performance.now() + message.within + Math.random() * MARGIN;
    this.#report({ ...message.state, here: false });
  }

  /** Waits in the background for the lock, to lead. @param {BroadcastChannel} channel */
  #requestLock(channel) {
    if (this.#term) return;
    const term = (this.#term = new AbortController());
    const signal = AbortSignal.any([this.#signal, term.signal]);
    const overdue = performance.now() >= this.#leaderDue;
    this.#leaderDue = performance.now() + this.#wait * 1000 + MARGIN;
    const ended = (/** @type {any} */ error) => {
      term.abort();
      this.#term = undefined;
      // Neither aborted nor stolen: this page may not use locks.
      if (error && error.name !== "AbortError") this.#channel = void channel.close();
      this.#wake();
    };
    navigator.locks.request(channel.name, overdue ? { steal: true } : { signal }, () => this.#lead(channel, signal)).then(ended, ended);
  }

  /** Polls for all tabs while it has the lock. @param {BroadcastChannel} channel @param {AbortSignal} signal */
  async #lead(channel, signal) {
    const post = (/** @type {Message} */ message) => signal.aborted || channel.postMessage(message);
    /** @type {Report} */
    const report = (state, within) => {
      this.#report(state);
      post({ state, within });
    };
    this.#leaderDue = Infinity;
    let from = this.#end;
    while (!signal.aborted) {
      /** @type {Page} */
      let page;
      try {
        page = await this.#poll(from, this.#wait, signal, report);
      } catch (error) {
        // The lost events differ per tab, so each tab polls for its own gap.
        from = gapIn(error).resume;
        page = { events: [], next: from, behind: 0, more: true, reason: "data" };
      }
      post({ from, page });
      this.#accept(from, page);
      from = page.next;
    }
  }

  /** Waits for a wake-up, or until the leader is overdue, perhaps frozen. */
  async #waitForLeader() {
    let timer;
    await new Promise((wake) => {
      this.#wake = () => wake(undefined);
      if (this.#leaderDue === Infinity) return;
      timer = setTimeout(() => {
        if (performance.now() >= this.#leaderDue) this.#term?.abort();
        this.#wake();
      }, this.#leaderDue - performance.now());
    });
    clearTimeout(timer);
  }
}

/**
 * Sends a request, and retries it after a transient failure.
 * @param {URL} url @param {RequestInit} init
 * @param {{ signal: AbortSignal, timeout: number, tries?: number, within?: number, report?: Report }} how
 */
async function request(url, init, { signal, timeout, tries = Infinity, within = Infinity, report = () => {} }) {
  /** @type {any} */
  let failure;
  let remaining = () => within;
  const gaveUp = () => new Error(`gave up, and the outcome is unknown: ${failure.message}`, { cause: failure });
  for (let failures = 1; ; failures++) {
    signal.throwIfAborted();
    await online(url, signal, report, remaining);
    if (remaining() <= 0) throw gaveUp();
    if (failures === 1) remaining = countdown(within);
    const limit = deadline(signal, timeout);
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
    const transient = [408, 425, 429, 500, 502, 503, 504, 507].includes(status);
    if (!transient) throw failure;
    const again = Math.max(after, pause(failures));
    if (failures >= tries || again >= remaining()) throw gaveUp();
    report({ is: "failed", why: message, status: failure.status, again, here: true }, again + timeout);
    await sleep(after, signal);
    await sleep(again - after, signal, "online");
  }
}

/** Full jitter, so that clients do not return together. @param {number} failures */
function pause(failures) {
  return Math.random() * Math.min(MAX_PAUSE, FIRST_PAUSE * 2 ** (failures - 1));
}

/** Milliseconds, from seconds or a date. @param {string | null} value */
function retryAfter(value) {
  const ms = Number(value) * 1000 || Date.parse(String(value)) - Date.now() || 0;
  return Math.min(Math.max(ms, 0), MAX_RETRY_AFTER);
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

/**
 * Waits for a network; a local server needs none.
 * @param {URL} url @param {AbortSignal} signal @param {Report} report @param {() => number} remaining
 */
async function online({ hostname }, signal, report, remaining) {
  const local = /^(localhost|.*\.localhost|127\..*|\[::1\])$/.test(hostname);
  while (!local && globalThis.navigator?.onLine === false && remaining() > 0) {
    report({ is: "offline", here: true }, 2 * MAX_PAUSE);
    await sleep(Math.min(MAX_PAUSE, remaining()), signal, "online");
  }
}

/**
 * Returns the remaining milliseconds, by the clock that advanced more: performance.now() and timers
 * stop while the machine sleeps, and the wall clock may be set back. @param {number} ms
 */
function countdown(ms) {
  const [ticks, wall] = [performance.now(), Date.now()];
  return () => ms - Math.max(performance.now() - ticks, Date.now() - wall);
}

/**
 * Aborts a request that takes too long, also by the wall clock: after the machine slept or changed
 * networks, its connections are dead.
 * @param {AbortSignal} signal @param {number} ms
 */
function deadline(signal, ms) {
  const controller = new AbortController();
  const end = Date.now() + ms;
  const abort = () => controller.abort(signal.reason);
  const expire = () => controller.abort(new Error("no answer in time"));
  const timer = setTimeout(expire, ms);
  const clock = setInterval(() => Date.now() >= end && expire(), 2000);
  signal.addEventListener("abort", abort);
  globalThis.addEventListener?.("online", expire);
  return {
    signal: controller.signal,
    end() {
      clearTimeout(timer);
      clearInterval(clock);
      signal.removeEventListener("abort", abort);
      globalThis.removeEventListener?.("online", expire);
    },
  };
}

/** The gap in a 410; throws any other error. @param {unknown} error @returns {Gap} */
function gapIn(error) {
  if (error instanceof Refused && error.status === 410) return error.problem;
  throw error;
}

/** Parses a cursor; the parts of a word such as "start" compare as false. @param {string} cursor */
function position(cursor) {
  const [epoch, seq, trims] = cursor.split(".");
  return { epoch, seq: Number(seq), trims: Number(trims ?? 0) };
}

/** Whether a page from `from` misses no event after `end`, and no gap. @param {string} from @param {string} end */
function covers(from, end) {
  const [a, b] = [position(from), position(end)];
  return a.epoch === b.epoch && a.seq <= b.seq && a.trims <= b.trims;
}

/** @param {string | URL} url @param {string | URL} [base] */
function resolve(url, base = import.meta.url) {
  const resolved = new URL(url, base);
  if (/^https?:$/.test(resolved.protocol)) return resolved;
  throw new TypeError(`${resolved} is not http: or https:; the option "base" sets the server`);
}

/** @param {string} [token] */
function authorization(token) {
  return new Headers(token ? { Authorization: `Bearer ${token}` } : {});
}

/** @param {Uint8Array} bytes */
function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
