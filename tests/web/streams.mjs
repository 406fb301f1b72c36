// Goal: common SSE and WebSocket clients, and browsers, receive from streams the events that a poll
// returns, and resume at their cursors. Run by scripts/browser.sh.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { launch, require } from "./chromium.mjs";
import { fakeServer, network, Server, stopAll, TEST_LIMIT, until, WAIT_LIMIT } from "./support.mjs";

const { EventSource } = require("eventsource");
const { WebSocket } = require("ws");

const options = { timeout: TEST_LIMIT };
const { PYTHON } = process.env;
const withPython = { ...options, skip: PYTHON ? false : "no Python with the packages of tests/web/requirements.txt" };

let browser;
/** The data directories of servers that restart. */
const directory = mkdtempSync(join(tmpdir(), "longpoll-streams-"));
before(async () => {
  browser = await launch();
});
after(async () => {
  stopAll();
  await browser?.close();
  rmSync(directory, { recursive: true });
});

const numbers = (from, to) => Array.from({ length: to - from }, (_, n) => from + n);
const types = ["alert", "note"];

/** What a client has received: events with their cursors, other messages, and the end. */
class Received {
  events = [];
  /** Other messages: responses to publishes over a WebSocket, and the retry time of SSE. */
  replies = [];
  gaps = [];
  #end;
  ended = new Promise((end) => (this.#end = end));

  add(object, cursor) {
    if (object.seq) this.events.push({ object, cursor });
    else if (object.why || object.gap) this.gaps.push(object.gap ?? object);
    else this.replies.push(object);
  }

  end = (why) => this.#end(why);

  async untilEvents(count) {
    await until(`${count} events`, () => this.events.length >= count);
    return this.events.slice(0, count);
  }
}

/** Runs a program and passes on each line of its output. Only LF ends a line: data may contain other
 * line separators. */
function runProgram(command, args, onLine, onEnd) {
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
  // The program may end before it has read all input.
  child.stdin.on("error", () => {});
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (part) => {
    const lines = (text + part).split("\n");
    text = lines.pop();
    lines.forEach(onLine);
  });
  child.on("close", onEnd);
  return child;
}

/** Common clients; each reads the stream of a topic from a cursor on. `drained` is its end after a
 * drain. */
const clients = {
  eventsource(url, received) {
    const source = new EventSource(url);
    const add = ({ data, lastEventId }) => received.add(JSON.parse(data), lastEventId);
    for (const type of ["message", "gap", ...types]) source.addEventListener(type, add);
    return { close: () => source.close(), drained: undefined };
  },

  ws(url, received) {
    const socket = new WebSocket(url.replace("http", "ws"));
    socket.on("message", (text) => {
      const { cursor, ...object } = JSON.parse(text);
      received.add(object, cursor);
    });
    socket.on("close", (code) => received.end(code));
    socket.on("error", () => {});
    const opened = once(socket, "open").catch(() => {});
    return { close: () => socket.close(), send: (text) => opened.then(() => socket.send(text)), drained: 1001 };
  },

  "curl -N"(url, received) {
    let block = {};
    const args = ["--noproxy", "*", "-sN", "-H", "Accept: text/event-stream", url];
    const line = (line) => {
      const [, field, value] = line.match(/^(\w+): ([^]*)$/) ?? [];
      if (field) return void (block[field] = value);
      if (block.data) received.add(JSON.parse(block.data), block.id);
      if (block.retry) received.replies.push({ retry: Number(block.retry) });
      block = {};
    };
    const child = runProgram("curl", args, line, received.end);
    return { close: () => child.kill(), drained: 0 };
  },

  "Python's sseclient": (url, received) => python("sse", url, received, "regular"),
  "Python's websockets": (url, received) => python("ws", url, received, 1001),
};

const publishingClients = ["ws", "Python's websockets"];

function python(kind, url, received, drained) {
  let end;
  const script = fileURLToPath(new URL("streams.py", import.meta.url));
  const line = (line) => {
    const message = JSON.parse(line);
    if (message.object) received.add(message.object, message.cursor);
    else end = message.end;
  };
  const child = runProgram(PYTHON, [script, kind, url], line, () => received.end(end));
  const send = kind === "ws" ? (text) => child.stdin.write(`${text}\n`) : undefined;
  return { close: () => child.kill(), send, drained };
}

function read(client, url, topics, since) {
  const received = new Received();
  return { received, ...clients[client](`${url}/topics/${topics}?since=${since}`, received) };
}

/** Publishes events of every kind, and returns them as a poll does. */
async function publishAllKinds(server) {
  const publish = async (target, type, body) => {
    const headers = { "Content-Type": type };
    const response = await fetch(`${server.url}/topics/${target}`, { method: "POST", headers, body });
    assert.equal(response.status, 201);
  };
  await publish("news", "text/plain", "text\nof two lines: \u{e9}\u{1f41b}\u{2028}\r\n");
  await publish("news?type=alert", "application/json", '{"data": "x",\n"n": [1.10, null]}');
  await publish("news.b?type=note", "image/png", new Uint8Array([0xff, 0, 10, 10]));
  await publish("news", "text/plain", "");
  await publish("news.b", "application/x-ndjson", "1\n[2]\n");
  return (await (await fetch(`${server.url}/topics/news*?wait=0`)).json()).events;
}

for (const client of Object.keys(clients)) {
  test(client, client.startsWith("Python") ? withPython : options, async (t) => {
    await t.test("receives the events that a poll returns, and resumes from a cursor", async () => {
      const server = await Server.start();
      const expected = await publishAllKinds(server);
      const first = read(client, server.url, "news*", "start");
      const events = await first.received.untilEvents(expected.length);
      assert.deepEqual(events.map(({ object }) => object), expected);
      await server.untilHeld(1);
      await server.publish("news", "live");
      assert.equal((await first.received.untilEvents(expected.length + 1)).at(-1).object.data, "live");
      first.close();
      await server.untilHeld(0);
      for (const at of [0, 3, 5]) {
        const again = read(client, server.url, "news*", events[at].cursor);
        const rest = await again.received.untilEvents(expected.length - at);
        assert.deepEqual(rest[0].object, at === 5 ? rest[0].object : expected[at + 1]);
        assert.equal(rest.at(-1).object.data, "live");
        again.close();
        await server.untilHeld(0);
      }
      const expired = read(client, server.url, "news", "00000000000000ab.7");
      await expired.received.untilEvents(1);
      assert.deepEqual(expired.received.gaps.map(({ why }) => why), ["epoch"]);
      expired.close();
      await server.stop();
    });

    await t.test("ends on a drain as its protocol says, and misses no event", async () => {
      const server = await Server.start("--data", join(directory, client.replace(/\W/g, "")));
      const reader = read(client, server.url, "a", "start");
      await server.untilHeld(1);
      await server.publish("a", "0");
      const [{ cursor }] = await reader.received.untilEvents(1);
      await server.stop("SIGTERM");
      if (reader.drained !== undefined) assert.equal(await reader.received.ended, reader.drained);
      if (client === "curl -N") assert.ok(reader.received.replies[0].retry >= 1000);
      await server.restart();
      await server.publish("a", "1");
      // An EventSource reconnects automatically.
      const next = client === "eventsource" ? reader : read(client, server.url, "a", cursor);
      await until("the next event", () => next.received.events.some(({ object }) => object.data === "1"));
      assert.equal(next.received.events.length, next === reader ? 2 : 1);
      assert.deepEqual(next.received.gaps, []);
      next.close();
      await server.stop();
    });

    if (!publishingClients.includes(client)) return;
    await t.test("receives a reply to each event that it publishes", async () => {
      const server = await Server.start();
      const reader = read(client, server.url, "chat", "now");
      for (const n of numbers(0, 50)) await reader.send(`text ${n}`);
      const events = await reader.received.untilEvents(50);
      assert.deepEqual(events.map(({ object }) => object.data), numbers(0, 50).map((n) => `text ${n}`));
      await until("50 replies", () => reader.received.replies.length === 50);
      assert.deepEqual(reader.received.replies.map(({ published }) => published.seq), numbers(1, 51));
      reader.close();
      await server.untilHeld(0);
      await server.stop();
    });
  });
}

test("a bad network", options, async (t) => {
  const count = 300;

  /** Cuts each connection after some bytes; some connections carry nothing for a while before. */
  const badNetwork = (server) =>
    network(server, () => ({ down: 500 + Math.random() * 9000, silent: Math.random() < 0.3 ? Math.random() * 200 : 0 }));

  const publishAll = async (server) => {
    for (const n of numbers(0, count)) await server.publish("a", String(n));
  };

  await t.test("delays an EventSource, which receives every event once", async () => {
    const server = await Server.start();
    const proxy = await badNetwork(server);
    // Shortens its default pause of 3 s: this tests the network, not the pause.
    const originalSetTimeout = globalThis.setTimeout;
    globalThis.setTimeout = (f, ms, ...rest) => originalSetTimeout(f, ms === 3000 ? 10 : ms, ...rest);
    t.after(() => (globalThis.setTimeout = originalSetTimeout));
    const reader = read("eventsource", proxy.url, "a", "start");
    await publishAll(server);
    const events = await reader.received.untilEvents(count);
    assert.deepEqual(events.map(({ object }) => Number(object.data)), numbers(0, count));
    assert.ok((await server.metric("streams_begun_total")) > 3);
    reader.close();
    globalThis.setTimeout = originalSetTimeout;
    await server.untilHeld(0);
    await server.stop();
    proxy.stop();
  });

  await t.test("delays a WebSocket that is reopened at its cursor, which receives every event once", async () => {
    const server = await Server.start();
    const proxy = await badNetwork(server);
    const done = publishAll(server);
    const events = [];
    while (events.length < count) {
      const reader = read("ws", proxy.url, "a", events.at(-1)?.cursor ?? "start");
      let ended = false;
      reader.received.ended.then(() => (ended = true));
      await until("its end, or all events", () => ended || events.length + reader.received.events.length >= count);
      events.push(...reader.received.events);
      reader.close();
    }
    await done;
    assert.deepEqual(events.map(({ object }) => Number(object.data)), numbers(0, count));
    assert.ok((await server.metric("streams_begun_total")) > 3);
    await server.untilHeld(0);
    await server.stop();
    proxy.stop();
  });
});

test("in a browser", options, async (t) => {
  /** Opens a page of a site in a context of its own. */
  async function page(url) {
    const page = await (await browser.newContext()).newPage();
    page.context().setDefaultTimeout(WAIT_LIMIT);
    await page.goto(url);
    return page;
  }
  const site = () => fakeServer((_, response) => response.writeHead(200, { "Content-Type": "text/html" }).end("<title>a site</title>"));

  await t.test("an EventSource resumes after restarts and cuts, and misses no event", async () => {
    const server = await Server.start("--data", join(directory, "chromium"));
    const proxy = await network(server, () => ({}));
    const reader = await page(`${proxy.url}/health`);
    await reader.evaluate(() => {
      window.received = [];
      window.source = new EventSource("/topics/a?since=start");
      source.onmessage = ({ data }) => received.push(Number(JSON.parse(data).data));
      source.addEventListener("gap", () => received.push("gap"));
    });
    await server.untilHeld(1);
    let published = 0;
    const publish = () => server.publishBatch("a", numbers(published, (published += 7)));
    const all = () =>
      until(`${published} events`, async () => (await reader.evaluate(() => received.length)) >= published);
    await publish();
    await all();
    for (const cause of ["SIGTERM", "SIGKILL", "cut"]) {
      await publish();
      if (cause === "cut") proxy.cutAll();
      else {
        await server.stop(cause);
        await server.restart();
      }
      await publish();
      await all();
    }
    assert.deepEqual(await reader.evaluate(() => received), numbers(0, published));
    await reader.context().close();
    await server.untilHeld(0);
    await server.stop();
    proxy.stop();
  });

  await t.test("a WebSocket and an EventSource work on a page of an allowed origin, and are refused to another", async () => {
    const [allowed, foreign] = [await site(), await site()];
    const server = await Server.start("--allow-origin", allowed.url);
    const open = async (url) => {
      const opener = await page(url);
      const result = await opener.evaluate(
        ([base]) =>
          new Promise((done) => {
            const socket = new WebSocket(`${base.replace("http", "ws")}/topics/chat`);
            const received = [];
            socket.onopen = () => socket.send("from a page");
            socket.onmessage = ({ data }) => {
              received.push(JSON.parse(data));
              if (received.length === 2) socket.close(1000);
            };
            socket.onclose = ({ code }) => done({ code, received });
          }),
        [server.url],
      );
      const events = await opener.evaluate(
        ([base]) =>
          new Promise((done) => {
            const source = new EventSource(`${base}/topics/chat`);
            source.onmessage = ({ data }) => (source.close(), done(JSON.parse(data).data));
            source.onerror = () => source.readyState === EventSource.CLOSED && done("refused");
          }),
        [server.url],
      );
      await opener.context().close();
      return { ...result, events };
    };
    const refused = await open(foreign.url);
    assert.deepEqual(refused, { code: 1006, received: [], events: "refused" });
    assert.equal(await server.metric("events_published_total"), 0);
    assert.equal(await server.metric("streams_begun_total"), 0);
    for (const url of [allowed.url, `${server.url}/health`]) {
      const { code, received, events } = await open(url);
      assert.deepEqual([code, received.length, events], [1000, 2, "from a page"]);
      assert.ok(received.some(({ data }) => data === "from a page"));
    }
    await server.untilHeld(0);
    await server.stop();
    for (const { stop } of [allowed, foreign]) stop();
  });
});
