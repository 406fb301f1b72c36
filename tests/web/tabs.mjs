// Goal: in a real browser, tabs share one request, and sharing neither loses nor repeats events. Run
// by scripts/browser.sh.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch } from "./chromium.mjs";
import { publish } from "../../src/web/longpoll.js";
import { WAIT_LIMIT, network, Server, stopAll, TEST_LIMIT, until } from "./support.mjs";

const options = { timeout: TEST_LIMIT };

let browser;
before(async () => {
  browser = await launch();
});
after(async () => {
  stopAll();
  await browser?.close();
});

/** Opens a tab that follows a topic with longpoll.js alone; its `received` holds the events. */
async function openFollower(context, url, options = {}) {
  context.setDefaultTimeout(WAIT_LIMIT);
  const page = await context.newPage();
  await page.goto(`${url}/health`);
  await page.evaluate(async (options) => {
    const { follow } = await import("/longpoll.js");
    const { topic = "a", ...rest } = options;
    Object.assign(window, { received: [], gaps: [], states: [], error: "" });
    const onGap = (gap) => (gaps.push(gap.why), window.gapGate);
    const onState = (state) => states.push(state);
    window.events = follow(`/topics/${topic}`, { ...rest, onGap, onState });
    (async () => {
      for await (const event of window.events) {
        received.push(Number(event.data));
        await window.gate;
      }
    })().catch((error) => (window.error = String(error)));
  }, options);
  return page;
}

const received = (page) => page.evaluate(() => window.received);
const numbers = (from, to) => Array.from({ length: to - from }, (_, n) => from + n);
const isLeader = (page) => page.evaluate(() => states.some((s) => s.here && s.wait > 0));

/** The tab that polls for all tabs. */
const untilLeader = (pages) =>
  until("a tab polls", async () => {
    for (const page of pages) if (await isLeader(page)) return page;
  });

async function untilAllReceived(pages, expected) {
  for (const page of pages) {
    await until(`${expected.length} events`, async () => (await received(page)).length >= expected.length);
    assert.deepEqual(await received(page), expected);
  }
}

/**
 * Opens a follower that has read the events 0, 1 and 2, beside a leader that sends only what the
 * test says: `share` sends the page with the events `seqs` between two cursors, `at` is a cursor.
 */
async function openBesideLeader(context, server) {
  await context.addInitScript(() => {
    const Channel = BroadcastChannel;
    window.BroadcastChannel = class extends Channel {
      constructor(name) {
        super((window.channel = name));
      }
    };
  });
  const first = await openFollower(context, server.url);
  await server.untilHeld(1);
  const name = await first.evaluate(() => window.channel);
  await first.close();
  const leader = await context.newPage();
  await leader.goto(`${server.url}/health`);
  await leader.evaluate((name) => {
    window.out = new BroadcastChannel(name);
    return new Promise((locked) => navigator.locks.request(name, () => (locked(), new Promise(() => {}))));
  }, name);
  await server.publish("a", 0, 1, 2);
  const page = await openFollower(context, server.url);
  await untilAllReceived([page], [0, 1, 2]);
  const cursor = await until("caught up", () => page.evaluate(() => events.cursor));
  const at = (seq, trims = "") => cursor.replace(/\.3$/, `.${seq}${trims}`);
  const share = (from, seqs, next, data = (seq) => seq - 1) => {
    const events = seqs.map((seq) => ({ seq, topic: "a", time: "", data: String(data(seq)) }));
    return leader.evaluate((message) => out.postMessage(message), { from, page: { events, next, more: false, behind: 0, reason: "data" } });
  };
  return { page, at, share };
}

const sharing = {
  "eight tabs hold one poll, and each receives every event once, also when the leader is closed or crashes": async () => {
    const server = await Server.start("--retain-events", "1000000");
    const context = await browser.newContext();
    await server.publish("a", 0, 1);
    let pages = await Promise.all(numbers(0, 8).map(() => openFollower(context, server.url, { limit: 3 })));
    await untilAllReceived(pages, [0, 1]);
    await server.untilHeld(1);
    let published = 2;
    let isPublishing = true;
    const publishing = (async () => {
      for (; isPublishing; published += 5) await server.publishBatch("a", numbers(published, published + 5));
    })();
    for (const end of [(page) => page.close(), crash, (page) => page.close({ runBeforeUnload: true })]) {
      const leader = await untilLeader(pages);
      await until("events flow", async () => (await received(leader)).length > 20);
      // A tab opened during the flow: the pages that it polls itself and those that the leader
      // shares overlap, since batches of five are not a multiple of pages of three.
      pages.push(await openFollower(context, server.url, { limit: 3 }));
      await end(leader);
      pages = pages.filter((page) => page !== leader);
      await until("another tab polls", async () => {
        for (const page of pages) if (await isLeader(page)) return true;
      });
    }
    isPublishing = false;
    await publishing;
    await untilAllReceived(pages, numbers(0, published));
    await server.untilHeld(1);
    // A tab opened later receives all events, too, and adds no held poll.
    const late = await openFollower(context, server.url, { limit: 3 });
    await server.publish("a", published);
    await untilAllReceived([late, ...pages], numbers(0, published + 1));
    assert.equal(await isLeader(late), false);
    await server.untilHeld(1);
    await context.close();
    await server.untilHeld(0);
    await server.stop();
  },

  "a shared page is used only from the tab's own position on, and only without a gap before it": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    const { page, at, share } = await openBesideLeader(context, server);
    const wrongData = () => 999;
    await server.publish("a", 3, 4, 5, 6);
    await share(at(1), [2, 3, 4], at(4));
    await untilAllReceived([page], [0, 1, 2, 3]);
    await share(at(6), [7], at(7), wrongData);
    await untilAllReceived([page], [0, 1, 2, 3, 4, 5, 6]);
    // An old page, a page of another epoch, and a page after a gap that this tab has not seen.
    await share(at(1), [2, 3, 4], at(4), wrongData);
    await share("dead.7", [8], "dead.8", wrongData);
    await share(at(7, ".99"), [8], at(8), wrongData);
    await server.publish("a", 7);
    await share(at(7), [8], at(8));
    await untilAllReceived([page], [0, 1, 2, 3, 4, 5, 6, 7]);
    assert.deepEqual(await page.evaluate(() => gaps), []);
    await context.close();
    await server.stop();
  },

  "tabs that follow other topics or types, or do not share, hold their own polls": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    for (const options of [{}, { topic: "b" }, { type: "x" }, { share: false }, {}]) await openFollower(context, server.url, options);
    await server.untilHeld(4);
    await context.close();
    await server.stop();
  },

  "after the machine has slept a tab polls again instead of waiting for a dead connection": async () => {
    const server = await Server.start("--max-wait", "1h", "--idle-timeout", "3s");
    const proxy = await network(server, () => ({}));
    const context = await browser.newContext();
    const page = await openFollower(context, proxy.url, { wait: 3600 });
    await server.untilHeld(1);
    // The browser keeps idle connections, which would be dead as well; one connection is enough here.
    await until("idle connections are closed", () => proxy.connections() === 1);
    proxy.muteAll();
    // `publish` retries: the server may be closing this process's own idle connection.
    await publish("a", "0", { base: server.url });
    // Its timers stood still during the sleep; by them it would wait for an hour.
    await page.evaluate(() => {
      const now = Date.now;
      Date.now = () => now() + 2 * 3_600_000;
    });
    await untilAllReceived([page], [0]);
    await context.close();
    await server.stop();
    proxy.stop();
  },

  "a page without access to locks holds its own poll": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    await context.addInitScript(() => {
      navigator.locks.request = () => Promise.reject(new DOMException("as in a sandboxed frame", "SecurityError"));
    });
    const pages = await Promise.all([0, 1].map(() => openFollower(context, server.url)));
    await server.untilHeld(2);
    await server.publish("a", 0);
    await untilAllReceived(pages, [0]);
    await server.untilHeld(2);
    await context.close();
    await server.stop();
  },

  "every tab reports a gap itself, and continues": async () => {
    const server = await Server.start("--retain-events", "5");
    const context = await browser.newContext();
    const pages = await Promise.all([0, 1, 2].map(() => openFollower(context, server.url)));
    await server.untilHeld(1);
    await server.publish("a", 0);
    await untilAllReceived(pages, [0]);
    await server.stop();
    await server.restart();
    await server.publish("a", 1, 2);
    await untilAllReceived(pages, [0, 1, 2]);
    for (const page of pages) assert.deepEqual(await page.evaluate(() => gaps), ["epoch"]);
    await server.untilHeld(1);
    await context.close();
    await server.stop();
  },

  // Each of those events came twice: the position was set back behind them.
  "events that another tab sends while a gap is reported come once, and the gap is reported once": async () => {
    const server = await Server.start("--retain-events", "3");
    const context = await browser.newContext();
    const { page, at, share } = await openBesideLeader(context, server);
    await page.evaluate(() => void (window.gapGate = new Promise((open) => (window.openGap = open))));
    await server.publish("a", 3, 4, 5, 6, 7);
    // A page that does not continue this tab's events makes the tab poll; events 4 and 5 are lost.
    await share(at(7), [8], at(8));
    await until("the gap is reported", () => page.evaluate(() => gaps.length === 1));
    // The leader polled in time, but its message arrives only now.
    await share(at(3), [4, 5, 6, 7], at(7));
    await share(at(7), [8], at(8));
    await page.evaluate(() => window.openGap());
    await until("the last event", async () => (await received(page)).includes(7));
    assert.deepEqual(await received(page), [0, 1, 2, 5, 6, 7]);
    assert.deepEqual(await page.evaluate(() => gaps), ["trimmed"]);
    await context.close();
    await server.stop();
  },

  "a tab with a slow loop neither delays the others nor misses an event": async () => {
    const server = await Server.start("--retain-events", "10000");
    const context = await browser.newContext();
    const slow = await openFollower(context, server.url, { topic: "slow" });
    await server.untilHeld(1);
    // Its loop waits from its first event on, but it stays the leader.
    await slow.evaluate(() => void (window.gate = new Promise((open) => (window.open = open))));
    const fast = await openFollower(context, server.url, { topic: "slow" });
    const count = 2600;
    for (let from = 0; from < count; from += 650) {
      await server.publishBatch("slow", numbers(from, from + 650));
    }
    await untilAllReceived([fast], numbers(0, count));
    assert.equal(await isLeader(fast), false);
    assert.deepEqual(await received(slow), [0]);
    await slow.evaluate(() => window.open());
    await untilAllReceived([slow], numbers(0, count));
    await context.close();
    await server.stop();
  },

  "a frozen leader is replaced": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    const frozen = await openFollower(context, server.url, { wait: 1 });
    await untilLeader([frozen]);
    const other = await openFollower(context, server.url, { wait: 1 });
    // A dialog stops all scripts of a tab, as a phone does with a tab in the background.
    const dialog = frozen.waitForEvent("dialog");
    frozen.evaluate(() => alert("frozen")).catch(() => {});
    const shown = await dialog;
    await server.publish("a", 0);
    await untilAllReceived([other], [0]);
    assert.ok(await isLeader(other));
    await shown.accept();
    await server.publish("a", 1);
    await untilAllReceived([other, frozen], [0, 1]);
    await context.close();
    await server.stop();
  },

  "without locks, as on plain http, each tab holds its own poll, and does not poll while offline": async () => {
    const server = await Server.start("--listen", "0.0.0.0:0");
    // Not a secure context: browsers do not treat 0.0.0.0 as a local address.
    const url = server.url.replace("127.0.0.1", "0.0.0.0");
    const context = await browser.newContext();
    const pages = await Promise.all([0, 1].map(() => openFollower(context, url)));
    assert.equal(await pages[0].evaluate(() => isSecureContext), false);
    await server.untilHeld(2);
    await context.setOffline(true);
    await server.publish("a", 0);
    // A response in flight may still arrive; after that there is no request.
    for (const page of pages) await until("it is offline", () => page.evaluate(() => states.at(-1).is === "offline"));
    await server.untilHeld(0);
    const requests = await server.metric("requests_total");
    await server.publish("a", 1);
    assert.equal(await server.metric("requests_total"), requests + 2, "the publish and this request");
    await context.setOffline(false);
    await untilAllReceived(pages, [0, 1]);
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
