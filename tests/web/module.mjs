// Goal: longpoll.js loses nothing and repeats nothing, whatever the network and the server do.
// Run by scripts/browser.sh, in Node; what needs a browser is in browser.mjs.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fake, network, Server, stopAll, TEST, until } from "./support.mjs";
import { follow, publish, Refused } from "../../src/web/longpoll.js";

after(stopAll);

const options = { timeout: TEST };

/** Takes so many events. */
async function take(events, count) {
  const taken = [];
  while (taken.length < count) taken.push((await events.next()).value);
  return taken;
}

const data = (events) => events.map((event) => event.data);
const numbers = (from, to) => Array.from({ length: to - from }, (_, n) => String(from + n));

test("a reader", options, async (t) => {
  await t.test("gets what is there and then what comes, in order", async () => {
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

  await t.test("goes on from its cursor another time, repeating at most a page begun", async () => {
    const server = await Server.start();
    await server.publish("a", ...numbers(0, 7));
    const first = follow("/topics/a", { base: server.url, limit: 3 });
    assert.deepEqual(data(await take(first, 3)), ["0", "1", "2"]);
    const since = first.cursor;
    await take(first, 1);
    assert.equal(first.cursor, since, "amid a page it stays where that began");
    await first.return();
    const second = follow("/topics/a", { base: server.url, since });
    assert.deepEqual(data(await take(second, 4)), ["3", "4", "5", "6"]);
    await second.return();
    await server.stop();
  });

  await t.test("keeps only the types that it asked for", async () => {
    const server = await Server.start();
    for (const type of ["x", "y", "z"]) await publish("a", type, { type, base: server.url });
    const events = follow("topics/a", { base: server.url, type: ["x", "z"] });
    assert.deepEqual(data(await take(events, 2)), ["x", "z"]);
    await events.return();
    await server.stop();
  });

  await t.test("that begins now misses nothing after its first answer, though its held request is cut", async () => {
    const server = await Server.start();
    await server.publish("a", "old");
    let open = true;
    const proxy = await network(server, () => (open ? {} : { up: 1 }));
    const events = follow("/topics/a", { base: proxy.url, since: "now" });
    const first = take(events, 1);
    await server.untilHeld(1);
    open = false;
    proxy.cut();
    await server.publish("a", "meanwhile");
    open = true;
    assert.deepEqual(data(await first), ["meanwhile"]);
    await events.return();
    await server.stop();
    proxy.stop();
  });

  await t.test("ends when it is told to, without an error, and lets its poll go", async () => {
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

  await t.test("can be left while it waits", async () => {
    const server = await Server.start();
    const events = follow("/topics/a", { base: server.url });
    const next = events.next();
    await server.untilHeld(1);
    await events.return();
    assert.equal((await next).done, true);
    await server.untilHeld(0);
    await server.stop();
  });

  await t.test("that is left by break lets its poll go", async () => {
    const server = await Server.start();
    await server.publish("a", "0");
    for await (const event of follow("/topics/a", { base: server.url })) {
      assert.equal(event.data, "0");
      break;
    }
    assert.equal(await server.metric("polls_held"), 0);
    await server.stop();
  });

  await t.test("is told of a gap, how much is lost, and goes on", async () => {
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

  await t.test("without a gap callback ends with an error that says where to go on", async () => {
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

  await t.test("reconnects at once when the server drains, and again when it is back", async () => {
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
    assert.equal(states[drained + 1].is, "asking", "at once");
    await events.return();
    await server.stop();
  });

  await t.test("does not ask a server that goes on draining in a loop", async () => {
    let asked = 0;
    const server = await fake((request, answer) => {
      asked += 1;
      const next = asked > 3 ? "e.1" : "e.0";
      const events = asked > 3 ? [{ seq: 1, topic: "a", data: "up" }] : [];
      answer.end(JSON.stringify({ events, next, more: false, behind: 0, reason: asked > 3 ? "data" : "drain" }));
    });
    const random = Math.random;
    // The longest pauses that there can be: with none at all this would take milliseconds.
    Math.random = () => 1;
    const began = performance.now();
    const events = follow("/topics/a", { base: server.url });
    assert.deepEqual(data(await take(events, 1)), ["up"]);
    Math.random = random;
    assert.ok(performance.now() - began > 900 + 1900, "it pauses longer and longer");
    await events.return();
    server.stop();
  });

  await t.test("honours Retry-After, and says what is wrong", async () => {
    let asked = 0;
    const server = await fake((request, answer) => {
      asked += 1;
      if (asked === 1) {
        answer.writeHead(503, { "Retry-After": "2" }).end('{"detail":"too many held polls"}');
      } else if (asked === 2) {
        answer.end("<html>some portal</html>");
      } else {
        answer.end('{"events":[{"seq":1,"topic":"a","data":1}],"next":"e.1","more":false,"behind":0,"reason":"data"}');
      }
    });
    const failures = [];
    const events = follow("/topics/a", { base: server.url, onState: (s) => s.is === "failed" && failures.push(s) });
    assert.deepEqual(data(await take(events, 1)), [1]);
    assert.equal(failures[0].status, 503);
    assert.equal(failures[0].why, "too many held polls");
    assert.ok(failures[0].again >= 2000, failures[0].again);
    assert.equal(failures.length, 2, "what is no JSON is tried again, too");
    await events.return();
    server.stop();
  });

  await t.test("sends its token, and ends when that is refused", async () => {
    const seen = [];
    const server = await fake((request, answer) => {
      seen.push(request.headers.authorization);
      answer.writeHead(401).end('{"detail":"unknown token"}');
    });
    const events = follow("/topics/a", { base: server.url, token: "secret" });
    const error = await events.next().then(assert.fail, (error) => error);
    assert.ok(error instanceof Refused && error.status === 401, error);
    assert.equal(error.message, "unknown token");
    assert.deepEqual(seen, ["Bearer secret"]);
    assert.deepEqual(await events.next(), { value: undefined, done: true });
    server.stop();
  });

  await t.test("says what is wrong with its address", async () => {
    assert.throws(() => follow("/topics/a"), /"base"/);
    await assert.rejects(() => publish("a", ""), /"base"/);
    const server = await Server.start();
    const events = follow("/health", { base: server.url });
    await assert.rejects(() => events.next(), Refused);
    await server.stop();
  });
});

test("a publish", options, async (t) => {
  await t.test("sends text as text, bytes as bytes, anything else as JSON", async () => {
    const server = await Server.start();
    const how = { base: server.url };
    assert.equal((await publish("a", "text", how)).seq, 1);
    await publish("a", { n: [1, null] }, { ...how, type: "tagged" });
    await publish("a", new Uint8Array([0xff, 0]), how);
    await publish("a", new Blob(["png"], { type: "image/png" }), how);
    await publish("a", "", how);
    const events = follow("/topics/a", how);
    const [text, json, bytes, blob, empty] = await take(events, 5);
    assert.equal(text.data, "text");
    assert.deepEqual([json.data, json.type], [{ n: [1, null] }, "tagged"]);
    assert.equal(bytes.data_base64, "/wA=");
    assert.equal(blob.content_type, "image/png");
    assert.equal(empty.data, "");
    await events.return();
    for (const nothing of [undefined, () => {}]) {
      await assert.rejects(() => publish("a", nothing, how), /not text, bytes or JSON/);
    }
    await server.stop();
  });

  await t.test("whose answer is lost is repeated, and happens once", async () => {
    const server = await Server.start();
    let connections = 0;
    const proxy = await network(server, () => (connections++ < 3 ? { down: 20 } : {}));
    const published = await publish("a", "once", { base: proxy.url });
    assert.equal(published.duplicate, true, "the server had it already");
    assert.equal(await server.metric("events_published_total"), 1);
    await server.stop();
    proxy.stop();
  });

  await t.test("is refused with the server's reason, and not tried again", async () => {
    const server = await Server.start();
    const how = { base: server.url, key: "k" };
    await publish("a", "one", how);
    assert.equal((await publish("a", "one", how)).duplicate, true);
    const error = await publish("a", "other", how).then(assert.fail, (error) => error);
    assert.ok(error instanceof Refused && error.status === 422 && error.message.length > 20, error);
    await server.stop();
  });
});

test("chaos", options, async (t) => {
  /** Eight write and one reads, through a network that cuts and stalls. */
  async function weather(t, server, count, meanwhile = async () => {}) {
    const seed = Date.now() % 1e6;
    t.diagnostic(`seed ${seed}`);
    let state = seed;
    // Park and Miller's; only so that a failure can be run again.
    const random = () => (state = (state * 48271 + 11) % 2147483647) / 2147483647;
    let cuts = 0;
    const proxy = await network(server, () => {
      const how = random();
      cuts += 1;
      if (how < 0.25) return { up: random() * 300, silent: random() * 300 };
      if (how < 0.5) return { down: random() * 300 };
      return { down: 300 + random() * 5000, silent: random() < 0.5 ? random() * 300 : 0 };
    });
    const how = { base: proxy.url };
    // Pauses a tenth as long: here the network is what is tested.
    const chance = Math.random;
    Math.random = () => chance() / 10;
    t.after(() => (Math.random = chance));
    const events = follow("/topics/a", { ...how, limit: 7 });
    const reading = take(events, count);
    const keys = numbers(0, count);
    const writer = async () => {
      for (let key; (key = keys.shift()) !== undefined; ) await publish("a", key, how);
    };
    const [got] = await Promise.all([reading, meanwhile(), ...Array.from({ length: 8 }, writer)]);
    assert.deepEqual(got.map(({ seq }) => seq), numbers(1, count + 1).map(Number));
    assert.deepEqual(data(got).map(Number).sort((a, b) => a - b), numbers(0, count).map(Number));
    assert.ok(cuts > 30, `only ${cuts} connections`);
    await events.return();
    proxy.stop();
  }

  await t.test("nothing is lost, repeated or reordered by a network that cuts and stalls", async (t) => {
    const server = await Server.start();
    await weather(t, server, 300);
    assert.equal(await server.metric("events_published_total"), 300);
    await server.stop();
  });

  await t.test("nor if the server is killed again and again, too", async (t) => {
    const place = mkdtempSync(join(tmpdir(), "longpoll-module-"));
    t.after(() => rmSync(place, { recursive: true }));
    const server = await Server.start("--data", place);
    await weather(t, server, 200, async () => {
      // Each time after some more were published, in that life and before.
      for (const some of [20, 50, 90, 140]) {
        await until(`${some} events`, async () => {
          const { topics } = await (await fetch(`${server.url}/topics`)).json();
          return topics[0]?.events >= some;
        });
        await server.stop();
        await server.restart();
      }
    });
    await server.stop();
  });
});
