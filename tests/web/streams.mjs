// Goal: clients that others have made, and browsers, get from streams what a poll gets, and go on
// where they were. Run by scripts/browser.sh.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { launch, require } from "./chromium.mjs";
import { fake, HANG, network, Server, stopAll, TEST, until } from "./support.mjs";

const { EventSource } = require("eventsource");
const { WebSocket } = require("ws");

const options = { timeout: TEST };
const { PYTHON } = process.env;
const withPython = { ...options, skip: PYTHON ? false : "no Python with what tests/web/requirements.txt names" };

let browser;
/** Where servers keep what has to survive a restart. */
const place = mkdtempSync(join(tmpdir(), "longpoll-streams-"));
before(async () => {
  browser = await launch();
});
after(async () => {
  stopAll();
  await browser?.close();
  rmSync(place, { recursive: true });
});

const numbers = (from, to) => Array.from({ length: to - from }, (_, n) => from + n);
const types = ["alert", "note"];

/** What a reader gets: each event's object with the cursor that came with it; and its end. */
class Got {
  events = [];
  /** Answers to what was said, and refusals of it. */
  answers = [];
  gaps = [];
  #end;
  ended = new Promise((end) => (this.#end = end));

  take(object, cursor) {
    if (object.seq) this.events.push({ object, cursor });
    else if (object.why || object.gap) this.gaps.push(object.gap ?? object);
    else this.answers.push(object);
  }

  end = (why) => this.#end(why);

  async untilEvents(count) {
    await until(`${count} events`, () => this.events.length >= count);
    return this.events.slice(0, count);
  }
}

/** A program, and the lines of its output: of what ends a line elsewhere, only LF does here. */
function program(command, args, line, ended) {
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
  // It may have ended before it has read all.
  child.stdin.on("error", () => {});
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (part) => {
    const lines = (text + part).split("\n");
    text = lines.pop();
    lines.forEach(line);
  });
  child.on("close", ended);
  return child;
}

/** Clients that others have made: each reads a topic's stream from a cursor on. */
const clients = {
  eventsource(url, got) {
    const source = new EventSource(url);
    const take = ({ data, lastEventId }) => got.take(JSON.parse(data), lastEventId);
    for (const type of ["message", "gap", ...types]) source.addEventListener(type, take);
    return { close: () => source.close(), drained: undefined };
  },

  ws(url, got) {
    const socket = new WebSocket(url.replace("http", "ws"));
    socket.on("message", (text) => {
      const { cursor, ...object } = JSON.parse(text);
      got.take(object, cursor);
    });
    socket.on("close", (code) => got.end(code));
    socket.on("error", () => {});
    const opened = once(socket, "open").catch(() => {});
    return { close: () => socket.close(), say: (text) => opened.then(() => socket.send(text)), drained: 1001 };
  },

  "curl -N"(url, got) {
    let block = {};
    const args = ["--noproxy", "*", "-sN", "-H", "Accept: text/event-stream", url];
    const line = (line) => {
      const [, field, value] = line.match(/^(\w+): ([^]*)$/) ?? [];
      if (field) return void (block[field] = value);
      if (block.data) got.take(JSON.parse(block.data), block.id);
      if (block.retry) got.answers.push({ retry: Number(block.retry) });
      block = {};
    };
    const child = program("curl", args, line, got.end);
    return { close: () => child.kill(), drained: 0 };
  },

  "Python's sseclient": (url, got) => python("sse", url, got, "regular"),
  "Python's websockets": (url, got) => python("ws", url, got, 1001),
};

const speakers = ["ws", "Python's websockets"];

function python(kind, url, got, drained) {
  let end;
  const script = fileURLToPath(new URL("streams.py", import.meta.url));
  const line = (line) => {
    const said = JSON.parse(line);
    if (said.object) got.take(said.object, said.cursor);
    else end = said.end;
  };
  const child = program(PYTHON, [script, kind, url], line, () => got.end(end));
  const say = kind === "ws" ? (text) => child.stdin.write(`${text}\n`) : undefined;
  return { close: () => child.kill(), say, drained };
}

function read(client, url, topics, since) {
  const got = new Got();
  return { got, ...clients[client](`${url}/topics/${topics}?since=${since}`, got) };
}

/** Events of every kind, and what a poll makes of them. */
async function publishAllKinds(server) {
  const publish = async (target, type, body) => {
    const headers = { "Content-Type": type };
    const answer = await fetch(`${server.url}/topics/${target}`, { method: "POST", headers, body });
    assert.equal(answer.status, 201);
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
    await t.test("gets the events that a poll gets, and goes on from a cursor", async () => {
      const server = await Server.start();
      const expected = await publishAllKinds(server);
      const first = read(client, server.url, "news*", "start");
      const events = await first.got.untilEvents(expected.length);
      assert.deepEqual(events.map(({ object }) => object), expected);
      await server.untilHeld(1);
      await server.publish("news", "live");
      assert.equal((await first.got.untilEvents(expected.length + 1)).at(-1).object.data, "live");
      first.close();
      await server.untilHeld(0);
      for (const at of [0, 3, 5]) {
        const again = read(client, server.url, "news*", events[at].cursor);
        const rest = await again.got.untilEvents(expected.length - at);
        assert.deepEqual(rest[0].object, at === 5 ? rest[0].object : expected[at + 1]);
        assert.equal(rest.at(-1).object.data, "live");
        again.close();
        await server.untilHeld(0);
      }
      const gone = read(client, server.url, "news", "00000000000000ab.7");
      await gone.got.untilEvents(1);
      assert.deepEqual(gone.got.gaps.map(({ why }) => why), ["epoch"]);
      gone.close();
      await server.stop();
    });

    await t.test("is told of a drain, and misses nothing by it", async () => {
      const server = await Server.start("--data", join(place, client.replace(/\W/g, "")));
      const reader = read(client, server.url, "a", "start");
      await server.untilHeld(1);
      await server.publish("a", "0");
      const [{ cursor }] = await reader.got.untilEvents(1);
      await server.stop("SIGTERM");
      if (reader.drained !== undefined) assert.equal(await reader.got.ended, reader.drained);
      if (client === "curl -N") assert.ok(reader.got.answers[0].retry >= 1000);
      await server.restart();
      await server.publish("a", "1");
      // An EventSource comes back by itself.
      const next = client === "eventsource" ? reader : read(client, server.url, "a", cursor);
      await until("the next event", () => next.got.events.some(({ object }) => object.data === "1"));
      assert.equal(next.got.events.length, next === reader ? 2 : 1);
      assert.deepEqual(next.got.gaps, []);
      next.close();
      await server.stop();
    });

    if (!speakers.includes(client)) return;
    await t.test("hears what becomes of what it says", async () => {
      const server = await Server.start();
      const reader = read(client, server.url, "said", "now");
      for (const n of numbers(0, 50)) await reader.say(`text ${n}`);
      const events = await reader.got.untilEvents(50);
      assert.deepEqual(events.map(({ object }) => object.data), numbers(0, 50).map((n) => `text ${n}`));
      await until("50 answers", () => reader.got.answers.length === 50);
      assert.deepEqual(reader.got.answers.map(({ published }) => published.seq), numbers(1, 51));
      reader.close();
      await server.untilHeld(0);
      await server.stop();
    });
  });
}

test("a bad network", options, async (t) => {
  const count = 300;

  /** Cuts each connection after some bytes, or only silences it for a while before. */
  const bad = (server) =>
    network(server, () => ({ down: 500 + Math.random() * 9000, silent: Math.random() < 0.3 ? Math.random() * 200 : 0 }));

  const publishing = async (server) => {
    for (const n of numbers(0, count)) await server.publish("a", String(n));
  };

  await t.test("costs an EventSource nothing but time", async () => {
    const server = await Server.start();
    const proxy = await bad(server);
    // Its pause is 3 s unless the server says otherwise; here the network is what is tested.
    const later = globalThis.setTimeout;
    globalThis.setTimeout = (f, ms, ...rest) => later(f, ms === 3000 ? 10 : ms, ...rest);
    t.after(() => (globalThis.setTimeout = later));
    const reader = read("eventsource", proxy.url, "a", "start");
    await publishing(server);
    const events = await reader.got.untilEvents(count);
    assert.deepEqual(events.map(({ object }) => Number(object.data)), numbers(0, count));
    assert.ok((await server.metric("streams_begun_total")) > 3);
    reader.close();
    globalThis.setTimeout = later;
    await server.untilHeld(0);
    await server.stop();
    proxy.stop();
  });

  await t.test("costs a WebSocket that is opened again at its cursor nothing but time", async () => {
    const server = await Server.start();
    const proxy = await bad(server);
    const done = publishing(server);
    const events = [];
    while (events.length < count) {
      const reader = read("ws", proxy.url, "a", events.at(-1)?.cursor ?? "start");
      let ended = false;
      reader.got.ended.then(() => (ended = true));
      await until("its end, or all", () => ended || events.length + reader.got.events.length >= count);
      events.push(...reader.got.events);
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
  /** A page of some site. */
  async function page(url) {
    const page = await (await browser.newContext()).newPage();
    page.context().setDefaultTimeout(HANG);
    await page.goto(url);
    return page;
  }
  const site = () => fake((_, answer) => answer.writeHead(200, { "Content-Type": "text/html" }).end("<title>a site</title>"));

  await t.test("an EventSource resumes after restarts and cuts with nothing missing", async () => {
    const server = await Server.start("--data", join(place, "chromium"));
    const proxy = await network(server, () => ({}));
    const reader = await page(`${proxy.url}/health`);
    await reader.evaluate(() => {
      window.got = [];
      window.source = new EventSource("/topics/a?since=start");
      source.onmessage = ({ data }) => got.push(Number(JSON.parse(data).data));
      source.addEventListener("gap", () => got.push("gap"));
    });
    await server.untilHeld(1);
    let published = 0;
    const publish = () => server.publishBatch("a", numbers(published, (published += 7)));
    const all = () =>
      until(`${published} events`, async () => (await reader.evaluate(() => got.length)) >= published);
    await publish();
    await all();
    for (const how of ["SIGTERM", "SIGKILL", "cut"]) {
      await publish();
      if (how === "cut") proxy.cut();
      else {
        await server.stop(how);
        await server.restart();
      }
      await publish();
      await all();
    }
    assert.deepEqual(await reader.evaluate(() => got), numbers(0, published));
    await reader.context().close();
    await server.untilHeld(0);
    await server.stop();
    proxy.stop();
  });

  await t.test("a WebSocket of an allowed site's page works, and another site's is refused", async () => {
    const [friend, foe] = [await site(), await site()];
    const server = await Server.start("--allow-origin", friend.url);
    const open = async (url) => {
      const opener = await page(url);
      const result = await opener.evaluate(
        ([base]) =>
          new Promise((done) => {
            const socket = new WebSocket(`${base.replace("http", "ws")}/topics/said`);
            const got = [];
            socket.onopen = () => socket.send("from a page");
            socket.onmessage = ({ data }) => {
              got.push(JSON.parse(data));
              if (got.length === 2) socket.close(1000);
            };
            socket.onclose = ({ code }) => done({ code, got });
          }),
        [server.url],
      );
      const events = await opener.evaluate(
        ([base]) =>
          new Promise((done) => {
            const source = new EventSource(`${base}/topics/said`);
            source.onmessage = ({ data }) => (source.close(), done(JSON.parse(data).data));
            source.onerror = () => source.readyState === EventSource.CLOSED && done("refused");
          }),
        [server.url],
      );
      await opener.context().close();
      return { ...result, events };
    };
    const refused = await open(foe.url);
    assert.deepEqual(refused, { code: 1006, got: [], events: "refused" });
    assert.equal(await server.metric("events_published_total"), 0);
    assert.equal(await server.metric("streams_begun_total"), 0);
    for (const url of [friend.url, `${server.url}/health`]) {
      const { code, got, events } = await open(url);
      assert.deepEqual([code, got.length, events], [1000, 2, "from a page"]);
      assert.ok(got.some(({ data }) => data === "from a page"));
    }
    await server.untilHeld(0);
    await server.stop();
    for (const { stop } of [friend, foe]) stop();
  });
});
