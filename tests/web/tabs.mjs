// Goal: in a real browser, tabs share one request, and lose and repeat nothing by it. Run by
// scripts/browser.sh.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch } from "./chromium.mjs";
import { publish } from "../../src/web/longpoll.js";
import { HANG, network, Server, stopAll, TEST, until } from "./support.mjs";

const options = { timeout: TEST };

let browser;
before(async () => {
  browser = await launch();
});
after(async () => {
  stopAll();
  await browser?.close();
});

/** A tab that follows a topic with the server's module and nothing else; `got` has what came. */
async function reader(context, url, how = {}) {
  context.setDefaultTimeout(HANG);
  const page = await context.newPage();
  await page.goto(`${url}/health`);
  await page.evaluate(async (how) => {
    const { follow } = await import("/longpoll.js");
    const { topic = "a", ...rest } = how;
    Object.assign(window, { got: [], gaps: [], states: [], error: "" });
    const onGap = (gap) => gaps.push(gap.why);
    const onState = (state) => states.push(state);
    window.events = follow(`/topics/${topic}`, { ...rest, onGap, onState });
    (async () => {
      for await (const event of window.events) {
        got.push(Number(event.data));
        await window.gate;
      }
    })().catch((error) => (window.error = String(error)));
  }, how);
  return page;
}

const got = (page) => page.evaluate(() => window.got);
const numbers = (from, to) => Array.from({ length: to - from }, (_, n) => from + n);
const asks = (page) => page.evaluate(() => states.some((s) => s.here && s.wait > 0));

/** The tab that asks for all. */
const leader = (pages) =>
  until("a tab asks", async () => {
    for (const page of pages) if (await asks(page)) return page;
  });

async function untilAllGot(pages, expected) {
  for (const page of pages) {
    await until(`${expected.length} events`, async () => (await got(page)).length >= expected.length);
    assert.deepEqual(await got(page), expected);
  }
}

const sharing = {
  "eight tabs hold one poll, and each gets everything once, also when the tab that asks is closed or crashes": async () => {
    const server = await Server.start("--retain-events", "1000000");
    const context = await browser.newContext();
    await server.publish("a", 0, 1);
    let pages = await Promise.all(numbers(0, 8).map(() => reader(context, server.url, { limit: 3 })));
    await untilAllGot(pages, [0, 1]);
    await server.untilHeld(1);
    let published = 2;
    let going = true;
    const publishing = (async () => {
      for (; going; published += 5) await server.publishBatch("a", numbers(published, published + 5));
    })();
    for (const end of [(page) => page.close(), crash, (page) => page.close({ runBeforeUnload: true })]) {
      const asking = await leader(pages);
      await until("events flow", async () => (await got(asking)).length > 20);
      // One that comes amid the flow: what it asks for itself and what it is handed overlap, as
      // batches of five are no multiple of pages of three.
      pages.push(await reader(context, server.url, { limit: 3 }));
      await end(asking);
      pages = pages.filter((page) => page !== asking);
      await until("another tab asks", async () => {
        for (const page of pages) if (await asks(page)) return true;
      });
    }
    going = false;
    await publishing;
    await untilAllGot(pages, numbers(0, published));
    await server.untilHeld(1);
    // A tab that comes later has it all, too, and adds no poll.
    const late = await reader(context, server.url, { limit: 3 });
    await server.publish("a", published);
    await untilAllGot([late, ...pages], numbers(0, published + 1));
    assert.equal(await asks(late), false);
    await server.untilHeld(1);
    await context.close();
    await server.untilHeld(0);
    await server.stop();
  },

  "a page of another tab is used from where a tab is, and only if nothing is missing before it": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    await context.addInitScript(() => {
      const Channel = BroadcastChannel;
      window.BroadcastChannel = class extends Channel {
        constructor(name) {
          super((window.channel = name));
        }
      };
    });
    const first = await reader(context, server.url);
    await server.untilHeld(1);
    const name = await first.evaluate(() => window.channel);
    await first.close();
    // From now on this tab asks for all, and hands out what the test says.
    const asking = await context.newPage();
    await asking.goto(`${server.url}/health`);
    await asking.evaluate((name) => {
      window.out = new BroadcastChannel(name);
      return new Promise((have) => navigator.locks.request(name, () => (have(), new Promise(() => {}))));
    }, name);
    await server.publish("a", 0, 1, 2);
    const page = await reader(context, server.url);
    await untilAllGot([page], [0, 1, 2]);
    const cursor = await until("caught up", () => page.evaluate(() => events.cursor));
    const at = (seq, told = "") => cursor.replace(/\.3$/, `.${seq}${told}`);
    const hand = (from, seqs, next, data = (seq) => seq - 1) => {
      const events = seqs.map((seq) => ({ seq, topic: "a", time: "", data: String(data(seq)) }));
      return asking.evaluate((message) => out.postMessage(message), { from, page: { events, next, more: false, behind: 0, reason: "data" } });
    };
    const lie = () => 999;
    await server.publish("a", 3, 4, 5, 6);
    await hand(at(1), [2, 3, 4], at(4));
    await untilAllGot([page], [0, 1, 2, 3]);
    await hand(at(6), [7], at(7), lie);
    await untilAllGot([page], [0, 1, 2, 3, 4, 5, 6]);
    // Old, of another life, and after a gap of which this tab was not told.
    await hand(at(1), [2, 3, 4], at(4), lie);
    await hand("dead.7", [8], "dead.8", lie);
    await hand(at(7, ".99"), [8], at(8), lie);
    await server.publish("a", 7);
    await hand(at(7), [8], at(8));
    await untilAllGot([page], [0, 1, 2, 3, 4, 5, 6, 7]);
    assert.deepEqual(await page.evaluate(() => gaps), []);
    await context.close();
    await server.stop();
  },

  "tabs that follow other topics or types, or do not want to share, have polls of their own": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    for (const how of [{}, { topic: "b" }, { type: "x" }, { share: false }, {}]) await reader(context, server.url, how);
    await server.untilHeld(4);
    await context.close();
    await server.stop();
  },

  "after its machine slept a tab asks anew, instead of waiting for a dead connection": async () => {
    const server = await Server.start("--max-wait", "1h", "--idle-timeout", "3s");
    const proxy = await network(server, () => ({}));
    const context = await browser.newContext();
    const page = await reader(context, proxy.url, { wait: 3600 });
    await server.untilHeld(1);
    // The browser keeps others for later, which would be dead as well; one is enough here.
    await until("idle connections are closed", () => proxy.connections() === 1);
    proxy.mute();
    // It tries again, since this program's own idle connection may be closed just now.
    await publish("a", "0", { base: server.url });
    // By its timers, which stood still, it would wait for an hour.
    await page.evaluate(() => {
      const now = Date.now;
      Date.now = () => now() + 2 * 3_600_000;
    });
    await untilAllGot([page], [0]);
    await context.close();
    await server.stop();
    proxy.stop();
  },

  "a page that may not use locks has a poll of its own": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    await context.addInitScript(() => {
      navigator.locks.request = () => Promise.reject(new DOMException("as in a sandboxed frame", "SecurityError"));
    });
    const pages = await Promise.all([0, 1].map(() => reader(context, server.url)));
    await server.untilHeld(2);
    await server.publish("a", 0);
    await untilAllGot(pages, [0]);
    await server.untilHeld(2);
    await context.close();
    await server.stop();
  },

  "every tab is told of a gap by itself, and goes on": async () => {
    const server = await Server.start("--retain-events", "5");
    const context = await browser.newContext();
    const pages = await Promise.all([0, 1, 2].map(() => reader(context, server.url)));
    await server.untilHeld(1);
    await server.publish("a", 0);
    await untilAllGot(pages, [0]);
    await server.stop();
    await server.restart();
    await server.publish("a", 1, 2);
    await untilAllGot(pages, [0, 1, 2]);
    for (const page of pages) assert.deepEqual(await page.evaluate(() => gaps), ["epoch"]);
    await server.untilHeld(1);
    await context.close();
    await server.stop();
  },

  "a tab whose loop is slow neither stops the others nor misses anything": async () => {
    const server = await Server.start("--retain-events", "10000");
    const context = await browser.newContext();
    const slow = await reader(context, server.url, { topic: "slow" });
    await server.untilHeld(1);
    // From its first event on its loop waits; it goes on being the one that asks.
    await slow.evaluate(() => void (window.gate = new Promise((open) => (window.open = open))));
    const quick = await reader(context, server.url, { topic: "slow" });
    const count = 2600;
    for (let from = 0; from < count; from += 650) {
      await server.publishBatch("slow", numbers(from, from + 650));
    }
    await untilAllGot([quick], numbers(0, count));
    assert.equal(await asks(quick), false);
    assert.deepEqual(await got(slow), [0]);
    await slow.evaluate(() => window.open());
    await untilAllGot([slow], numbers(0, count));
    await context.close();
    await server.stop();
  },

  "a frozen tab that asks is replaced": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    const frozen = await reader(context, server.url, { wait: 1 });
    await leader([frozen]);
    const other = await reader(context, server.url, { wait: 1 });
    // A dialog stops everything in a tab, as a telephone does with one in the background.
    const dialog = frozen.waitForEvent("dialog");
    frozen.evaluate(() => alert("frozen")).catch(() => {});
    const shown = await dialog;
    await server.publish("a", 0);
    await untilAllGot([other], [0]);
    assert.ok(await asks(other));
    await shown.accept();
    await server.publish("a", 1);
    await untilAllGot([other, frozen], [0, 1]);
    await context.close();
    await server.stop();
  },

  "without locks, as on plain http, each tab has its own poll; offline it does not ask": async () => {
    const server = await Server.start("--listen", "0.0.0.0:0");
    // Not a secure context, and not a name of this machine by which a browser knows it is local.
    const url = server.url.replace("127.0.0.1", "0.0.0.0");
    const context = await browser.newContext();
    const pages = await Promise.all([0, 1].map(() => reader(context, url)));
    assert.equal(await pages[0].evaluate(() => isSecureContext), false);
    await server.untilHeld(2);
    await context.setOffline(true);
    await server.publish("a", 0);
    // What was on its way may still arrive; after that, silence.
    for (const page of pages) await until("it pauses", () => page.evaluate(() => states.at(-1).is === "offline"));
    await server.untilHeld(0);
    const asked = await server.metric("requests_total");
    await server.publish("a", 1);
    assert.equal(await server.metric("requests_total"), asked + 2, "the publish and this request");
    await context.setOffline(false);
    await untilAllGot(pages, [0, 1]);
    await context.close();
    await server.stop();
  },
};

async function crash(page) {
  const session = await page.context().newCDPSession(page);
  const crashed = page.waitForEvent("crash");
  session.send("Page.crash").catch(() => {});
  await crashed;
}

test("tabs", { ...options, concurrency: 8 }, (t) =>
  Promise.all(Object.entries(sharing).map(([name, run]) => t.test(name, { ...options, concurrency: true }, run))),
);
