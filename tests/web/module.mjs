// Goal: longpoll.js neither loses nor repeats events, even on a bad network and with a server that
// restarts. scripts/browser.sh runs these tests in Node; those that need a browser are in tabs.mjs.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fakeServer, network, Server, stopAll, TEST_LIMIT, until } from "./support.mjs";
import { follow, publish, Refused } from "../../src/web/longpoll.js";

after(stopAll);

const options = { timeout: TEST_LIMIT };

/** Reads `count` events. */
async function take(events, count) {
  const read = [];
  while (read.length < count) read.push((await events.next()).value);
  return read;
}

const data = (events) => events.map((event) => event.data);
const numbers = (from, to) => Array.from({ length: to - from }, (_, n) => String(from + n));

test("follow", options, async (t) => {
  await t.test("yields stored events and then new ones, in order", async () => {
    const server = await Server.start();
    await server.publish("a", ...numbers(0, 5));
    const events = follow("/topics/a", { base: server.url, limit: 2 });
    assert.deepEqual(data(await take(events, 5)), numbers(0, 5));
    const next = take(events, 2);
    await server.untilHeld(1);
    await server.publish("a", "5", "6");
    assert.deepEqual(data(await next), ["5", "6"]);
    await events.return();
    await server.untilHeld(0);
    await server.stop();
  });

  await t.test("continues from its cursor later, and repeats at most the page that it had begun", async () => {
    const server = await Server.start();
    await server.publish("a", ...numbers(0, 7));
    const first = follow("/topics/a", { base: server.url, limit: 3 });
    assert.deepEqual(data(await take(first, 3)), ["0", "1", "2"]);
    const since = first.cursor;
    await take(first, 1);
    assert.equal(first.cursor, since, "the cursor stays at the start of a page until the page is read");
    await first.return();
    const second = follow("/topics/a", { base: server.url, since });
    assert.deepEqual(data(await take(second, 4)), ["3", "4", "5", "6"]);
    await second.return();
    await server.stop();
  });

  await t.test("yields only events of the requested types", async () => {
    const server = await Server.start();
    for (const type of ["x", "y", "z"]) await publish("a", type, { type, base: server.url });
    const events = follow("topics/a", { base: server.url, type: ["x", "z"] });
    assert.deepEqual(data(await take(events, 2)), ["x", "z"]);
    await events.return();
    await server.stop();
  });

  await t.test("since now misses no event after its first response, even if its held request is cut", async () => {
    const server = await Server.start();
    await server.publish("a", "old");
    let isUp = true;
    const proxy = await network(server, () => (isUp ? {} : { up: 1 }));
    const events = follow("/topics/a", { base: proxy.url, since: "now" });
    const first = take(events, 1);
    await server.untilHeld(1);
    isUp = false;
    proxy.cutAll();
    await server.publish("a", "meanwhile");
    isUp = true;
    assert.deepEqual(data(await first), ["meanwhile"]);
    await events.return();
    await server.stop();
    proxy.stop();
  });

  await t.test("ends without an error when its signal is aborted, and closes its held poll", async () => {
    const server = await Server.start();
    const stop = new AbortController();
    const done = (async () => {
      for await (const _ of follow("/topics/a", { base: server.url, signal: stop.signal }));
      return "ended";
    })();
    await server.untilHeld(1);
    stop.abort();
    assert.equal(await done, "ended");
    await server.untilHeld(0);
    await server.stop();
  });

  await t.test("can be ended while it waits", async () => {
    const server = await Server.start();
    const events = follow("/topics/a", { base: server.url });
    const next = events.next();
    await server.untilHeld(1);
    await events.return();
    assert.equal((await next).done, true);
    await server.untilHeld(0);
    await server.stop();
  });

  await t.test("closes its held poll when the loop breaks", async () => {
    const server = await Server.start();
    await server.publish("a", "0");
    for await (const event of follow("/topics/a", { base: server.url })) {
      assert.equal(event.data, "0");
      break;
    }
    assert.equal(await server.metric("polls_held"), 0);
    await server.stop();
  });

  await t.test("reports a gap with the number of lost events, and continues", async () => {
    const server = await Server.start("--retain-events", "3");
    await server.publish("a", "0");
    const gaps = [];
    const events = follow("/topics/a", { base: server.url, limit: 1, onGap: (gap) => gaps.push(gap) });
    await take(events, 1);
    await server.publish("a", ...numbers(1, 6));
    assert.deepEqual(data(await take(events, 3)), ["3", "4", "5"]);
    assert.deepEqual(gaps.map(({ why, lost }) => ({ why, lost })), [{ why: "trimmed", lost: { a: 2 } }]);
    await events.return();
    await server.stop();
  });

  await t.test("without a gap callback ends with an error that contains the cursor to resume from", async () => {
    const server = await Server.start("--retain-events", "1");
    await server.publish("a", "0");
    const events = follow("/topics/a", { base: server.url });
    await take(events, 1);
    const next = take(events, 1).then(assert.fail, (error) => error);
    await server.untilHeld(1);
    await server.stop();
    await server.restart();
    await server.publish("a", "1");
    const error = await next;
    assert.ok(error instanceof Refused && error.status === 410 && error.problem.why === "epoch", error);
    const rest = follow("/topics/a", { base: server.url, since: error.problem.resume });
    assert.deepEqual(data(await take(rest, 1)), ["1"]);
    await rest.return();
    await server.stop();
  });

  await t.test("reconnects immediately when the server drains, and again after its restart", async () => {
    const server = await Server.start();
    const states = [];
    const gaps = [];
    const events = follow("/topics/a", { base: server.url, onGap: (gap) => gaps.push(gap.why), onState: (s) => states.push(s) });
    const next = take(events, 1);
    await server.untilHeld(1);
    await server.stop("SIGTERM");
    await server.restart();
    await server.publish("a", "after");
    assert.deepEqual(data(await next), ["after"]);
    assert.deepEqual(gaps, ["epoch"]);
    const drained = states.findIndex((s) => s.reason === "drain");
    assert.equal(states[drained + 1].is, "asking", "without a pause");
    await events.return();
    await server.stop();
  });

  await t.test("does not busy-loop while a server keeps draining", async () => {
    let requests = 0;
    const server = await fakeServer((request, response) => {
      requests += 1;
      const next = requests > 3 ? "e.1" : "e.0";
      const events = requests > 3 ? [{ seq: 1, topic: "a", data: "up" }] : [];
      response.end(JSON.stringify({ events, next, more: false, behind: 0, reason: requests > 3 ? "data" : "drain" }));
    });
    const random = Math.random;
    // With a factor of 1 every pause has its full length; without pauses this takes milliseconds.
    Math.random = () => 1;
    const started = performance.now();
    const events = follow("/topics/a", { base: server.url });
    assert.deepEqual(data(await take(events, 1)), ["up"]);
    Math.random = random;
    assert.ok(performance.now() - started > 900 + 1900, "the pauses grow");
    await events.return();
    server.stop();
  });

  await t.test("honours Retry-After, and reports the cause of a failure", async () => {
    let requests = 0;
    const server = await fakeServer((request, response) => {
      requests += 1;
      if (requests === 1) {
        response.writeHead(503, { "Retry-After": "2" }).end('{"detail":"too many held polls"}');
      } else if (requests === 2) {
        response.end("<html>some portal</html>");
      } else {
        response.end('{"events":[{"seq":1,"topic":"a","data":1}],"next":"e.1","more":false,"behind":0,"reason":"data"}');
      }
    });
    const failures = [];
    const events = follow("/topics/a", { base: server.url, onState: (s) => s.is === "failed" && failures.push(s) });
    assert.deepEqual(data(await take(events, 1)), [1]);
    assert.equal(failures[0].status, 503);
    assert.equal(failures[0].why, "too many held polls");
    assert.ok(failures[0].again >= 2000, failures[0].again);
    assert.equal(failures.length, 2, "a response that is not JSON is also retried");
    await events.return();
    server.stop();
  });

  await t.test("sends its token, and ends when the token is refused", async () => {
    const authorizations = [];
    const server = await fakeServer((request, response) => {
      authorizations.push(request.headers.authorization);
      response.writeHead(401).end('{"detail":"unknown token"}');
    });
    const events = follow("/topics/a", { base: server.url, token: "secret" });
    const error = await events.next().then(assert.fail, (error) => error);
    assert.ok(error instanceof Refused && error.status === 401, error);
    assert.equal(error.message, "unknown token");
    assert.deepEqual(authorizations, ["Bearer secret"]);
    assert.deepEqual(await events.next(), { value: undefined, done: true });
    server.stop();
  });

  await t.test("explains an invalid address", async () => {
    assert.throws(() => follow("/topics/a"), /"base"/);
    await assert.rejects(() => publish("a", ""), /"base"/);
    const server = await Server.start();
    const events = follow("/health", { base: server.url });
    await assert.rejects(() => events.next(), Refused);
    await server.stop();
  });
});

test("publish", options, async (t) => {
  await t.test("sends strings as text, bytes as bytes, and other values as JSON", async () => {
    const server = await Server.start();
    const requestOptions = { base: server.url };
    assert.equal((await publish("a", "text", requestOptions)).seq, 1);
    await publish("a", { n: [1, null] }, { ...requestOptions, type: "tagged" });
    await publish("a", new Uint8Array([0xff, 0]), requestOptions);
    await publish("a", new Blob(["png"], { type: "image/png" }), requestOptions);
    await publish("a", "", requestOptions);
    const events = follow("/topics/a", requestOptions);
    const [text, json, bytes, blob, empty] = await take(events, 5);
    assert.equal(text.data, "text");
    assert.deepEqual([json.data, json.type], [{ n: [1, null] }, "tagged"]);
    assert.equal(bytes.data_base64, "/wA=");
    assert.equal(blob.content_type, "image/png");
    assert.equal(empty.data, "");
    await events.return();
    for (const nothing of [undefined, () => {}]) {
      await assert.rejects(() => publish("a", nothing, requestOptions), /not text, bytes or JSON/);
    }
    await server.stop();
  });

  await t.test("retries after a lost response, and publishes once", async () => {
    const server = await Server.start();
    let connections = 0;
    const proxy = await network(server, () => (connections++ < 3 ? { down: 20 } : {}));
    const published = await publish("a", "once", { base: proxy.url });
    assert.equal(published.duplicate, true, "the server had stored it already");
    assert.equal(await server.metric("events_published_total"), 1);
    await server.stop();
    proxy.stop();
  });

  await t.test("rejects with the server's reason, and does not retry a refusal", async () => {
    const server = await Server.start();
    const requestOptions = { base: server.url, key: "k" };
    await publish("a", "one", requestOptions);
    assert.equal((await publish("a", "one", requestOptions)).duplicate, true);
    const error = await publish("a", "other", requestOptions).then(assert.fail, (error) => error);
    assert.ok(error instanceof Refused && error.status === 422 && error.message.length > 20, error);
    await server.stop();
  });
});

test("a bad network", options, async (t) => {
  /** Eight publishers and one reader, through a network that cuts and stalls connections. */
  async function publishAndFollow(t, server, count, meanwhile = async () => {}) {
    const seed = Date.now() % 1e6;
    t.diagnostic(`seed ${seed}`);
    let state = seed;
    // A Park-Miller generator, so that a failure can be repeated with its seed.
    const random = () => (state = (state * 48271 + 11) % 2147483647) / 2147483647;
    let connections = 0;
    const proxy = await network(server, () => {
      const kind = random();
      connections += 1;
      if (kind < 0.25) return { up: random() * 300, silent: random() * 300 };
      if (kind < 0.5) return { down: random() * 300 };
      return { down: 300 + random() * 5000, silent: random() < 0.5 ? random() * 300 : 0 };
    });
    const requestOptions = { base: proxy.url };
    // Shortens the client's pauses to a tenth: this tests the network, not the pauses.
    const originalRandom = Math.random;
    Math.random = () => originalRandom() / 10;
    t.after(() => (Math.random = originalRandom));
    const events = follow("/topics/a", { ...requestOptions, limit: 7 });
    const reading = take(events, count);
    const keys = numbers(0, count);
    const publisher = async () => {
      for (let key; (key = keys.shift()) !== undefined; ) await publish("a", key, requestOptions);
    };
    const [received] = await Promise.all([reading, meanwhile(), ...Array.from({ length: 8 }, publisher)]);
    assert.deepEqual(received.map(({ seq }) => seq), numbers(1, count + 1).map(Number));
    assert.deepEqual(data(received).map(Number).sort((a, b) => a - b), numbers(0, count).map(Number));
    assert.ok(connections > 30, `only ${connections} connections`);
    await events.return();
    proxy.stop();
  }

  await t.test("neither loses, repeats nor reorders events", async (t) => {
    const server = await Server.start();
    await publishAndFollow(t, server, 300);
    assert.equal(await server.metric("events_published_total"), 300);
    await server.stop();
  });

  await t.test("nor does it when the server is also killed repeatedly", async (t) => {
    const directory = mkdtempSync(join(tmpdir(), "longpoll-module-"));
    t.after(() => rmSync(directory, { recursive: true }));
    const server = await Server.start("--data", directory);
    await publishAndFollow(t, server, 200, async () => {
      // Each kill follows after more events, counted over all runs of the server.
      for (const count of [20, 50, 90, 140]) {
        await until(`${count} events`, async () => {
          const { topics } = await (await fetch(`${server.url}/topics`)).json();
          return topics[0]?.events >= count;
        });
        await server.stop();
        await server.restart();
      }
    });
    await server.stop();
  });
});
