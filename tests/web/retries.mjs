// Goal: a publish is not sent again after the server may have forgotten its key. The clocks, timers
// and responses are fake, so that these tests wait for nothing; a file of their own, because Node's
// sockets use the same timers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { TEST_LIMIT } from "./support.mjs";
import { publish, Refused } from "../../src/web/longpoll.js";

const SECOND = 1000;
const MINUTE = 60 * SECOND;

/** Timers after which a promise that has not settled has failed. */
const MAX_TIMERS = 10_000;

/** Replaces the clocks, the timers and `fetch` of this process until `restore`. */
class FakeTime {
  /** Milliseconds by performance.now(), which stands still while the machine sleeps. */
  monotonic = 1000;
  /** Milliseconds by Date.now(). */
  wall = Date.UTC(2026, 0, 1);
  /** When requests were sent, in milliseconds of true time, asleep or not. */
  requests = [];
  #slept = 0;
  #started = this.monotonic;
  #timers = new Map();
  #lastTimer = 0;
  #originals = new Map();

  /**
   * `answer` is called for each request, with its number from 1 on. It returns a status and headers,
   * or nothing if the response is lost.
   */
  constructor(answer) {
    this.#replace(performance, "now", () => this.monotonic);
    this.#replace(Date, "now", () => this.wall);
    this.#replace(globalThis, "setTimeout", (run, ms = 0) => this.#start(run, ms));
    this.#replace(globalThis, "setInterval", (run, ms) => this.#start(run, ms, ms));
    for (const name of ["clearTimeout", "clearInterval"]) {
      this.#replace(globalThis, name, (timer) => void this.#timers.delete(timer));
    }
    this.#replace(globalThis, "fetch", (_, { signal }) => {
      this.requests.push(this.monotonic - this.#started + this.#slept);
      const answered = answer(this.requests.length);
      if (!answered) return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
      const { status, headers } = answered;
      const json = async () => ({ detail: `answer ${this.requests.length}` });
      return Promise.resolve({ status, ok: status < 300, headers: new Headers(headers), json });
    });
  }

  /** Lets the machine sleep: only the wall clock goes on. */
  suspend(ms) {
    this.wall += ms;
    this.#slept += ms;
  }

  /** The value of a promise, or its error, once as much time as it needs has passed. */
  async outcome(promise) {
    let outcome;
    promise.then((value) => (outcome = { value }), (error) => (outcome = { error }));
    for (let timers = 0; ; timers++) {
      // After this, only timers are left to wait for.
      await new Promise((resolve) => setImmediate(resolve));
      if (outcome) return outcome;
      const [[timer, next] = []] = [...this.#timers].sort(([, a], [, b]) => a.due - b.due);
      if (!timer || timers > MAX_TIMERS) throw new Error(`never settled; requests at ${this.requests}`);
      this.wall += next.due - this.monotonic;
      this.monotonic = next.due;
      if (next.interval) next.due += next.interval;
      else this.#timers.delete(timer);
      next.run();
    }
  }

  restore() {
    for (const [object, fields] of this.#originals) Object.assign(object, fields);
  }

  #start(run, ms, interval) {
    this.#lastTimer += 1;
    this.#timers.set(this.#lastTimer, { run, due: this.monotonic + Math.max(ms, 1), interval });
    return this.#lastTimer;
  }

  #replace(object, name, fake) {
    const originals = this.#originals.get(object) ?? {};
    this.#originals.set(object, { ...originals, [name]: object[name] });
    object[name] = fake;
  }
}

test("publish", { timeout: TEST_LIMIT }, async (t) => {
  /** The server forgets keys after ten minutes; a request takes up to 30 s to arrive. */
  const LIMIT = 8 * MINUTE;

  /** Publishes; returns the time, the error and when requests were sent. `answer` may use the time. */
  async function publishWith(answer) {
    const time = new FakeTime((request) => answer(request, time));
    try {
      const { error } = await time.outcome(publish("a", "x", { base: "http://192.0.2.1" }));
      return { time, error, requests: time.requests };
    } finally {
      time.restore();
    }
  }

  const refused = (seconds) => ({ status: 503, headers: { "Retry-After": String(seconds) } });
  const isUnknown = (error) => assert.match(String(error?.message), /the outcome is unknown/);

  await t.test("fails at once if Retry-After ends after the server may have forgotten the key", async () => {
    const { error, requests, time } = await publishWith(() => refused(590));
    assert.deepEqual(requests.map((at) => Math.round(at / SECOND)), [0]);
    isUnknown(error);
    assert.match(error.message, /answer 1/);
    assert.ok(error.cause instanceof Refused && error.cause.status === 503, error.cause);
    assert.equal(time.monotonic, 1000, "without a pause");
  });

  await t.test("sends no request later than eight minutes after the first, however long the pauses are", async () => {
    for (const seconds of [100, 200, 470]) {
      const { error, requests } = await publishWith(() => refused(seconds));
      isUnknown(error);
      assert.ok(requests.length > 1 && requests.at(-1) < LIMIT, `${seconds}: ${requests}`);
    }
  });

  await t.test("sends no request after the machine slept, in a pause or during a request", async () => {
    const inRequest = await publishWith((request, time) => void time.suspend(20 * MINUTE));
    assert.deepEqual(inRequest.requests, [0]);
    isUnknown(inRequest.error);
    const inPause = await publishWith((request, time) => {
      setTimeout(() => time.suspend(20 * MINUTE), 1 * SECOND);
      return refused(5);
    });
    assert.deepEqual(inPause.requests, [0]);
    isUnknown(inPause.error);
  });

  await t.test("counts the time also if the wall clock is set back", async () => {
    const { error, requests } = await publishWith((request, time) => {
      time.wall -= 60 * MINUTE;
      return refused(100);
    });
    isUnknown(error);
    assert.ok(requests.length > 1 && requests.at(-1) < LIMIT, requests);
  });

  await t.test("stops waiting for a network in time, but the time begins with the first request", async () => {
    const had = Object.getOwnPropertyDescriptor(globalThis, "navigator");
    const network = { onLine: false };
    Object.defineProperty(globalThis, "navigator", { value: network, configurable: true });
    let time;
    try {
      time = new FakeTime(() => ((network.onLine = false), refused(1)));
      setTimeout(() => (network.onLine = true), 60 * MINUTE);
      const { error } = await time.outcome(publish("a", "x", { base: "http://192.0.2.1" }));
      isUnknown(error);
      assert.deepEqual(time.requests, [60 * MINUTE]);
      assert.ok(time.monotonic - 1000 - 60 * MINUTE <= LIMIT, time.monotonic);
    } finally {
      time.restore();
      if (had) Object.defineProperty(globalThis, "navigator", had);
      else delete globalThis.navigator;
    }
  });

  await t.test("says so too when it has tried often enough", async () => {
    const { error, requests } = await publishWith(() => ({ status: 503 }));
    isUnknown(error);
    assert.ok(error.cause instanceof Refused, error.cause);
    assert.ok(requests.length > 1 && requests.at(-1) < LIMIT, requests);
  });
});
