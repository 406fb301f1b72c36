// Goal: the console shows the server's state on the screen, to keyboard users and to screen readers,
// and reports failures. Run by scripts/browser.sh; SCREENSHOTS=DIR saves screenshots for review.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { launch, require } from "./chromium.mjs";
import { WAIT_LIMIT, Server, stopAll, TEST_LIMIT, until } from "./support.mjs";

const options = { timeout: TEST_LIMIT };
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

let browser;
before(async () => {
  browser = await launch();
});
after(async () => {
  stopAll();
  await browser?.close();
});

/** Errors of all pages: failed scripts, and resources blocked by the content security policy. */
const pageErrors = [];

/** Opens the console on a topic. A failed request to a stopped server is not an error. */
async function open(context, server, topic = "") {
  context.setDefaultTimeout(WAIT_LIMIT);
  const page = await context.newPage();
  page.on("pageerror", (error) => pageErrors.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" && !/^Failed to load resource/.test(message.text())) pageErrors.push(message.text());
  });
  await page.goto(`${server.url}/${topic && `#/${topic}`}`);
  return page;
}

/** The texts of the displayed events, oldest first. */
const shown = (page) => page.locator("#events pre").allTextContents().then((texts) => texts.reverse());
const untilText = (page, id, pattern) => until(`#${id} says ${pattern}`, async () => pattern.test(await page.locator(`#${id}`).innerText()));
const screenshot = async (page, name, options) => process.env.SCREENSHOTS && page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`), ...options });

async function untilShown(page, expected) {
  await until(`shown events: ${expected}`, async () => isDeepStrictEqual(await shown(page), expected));
}

const cases = {
  "eight tabs share one held poll, and show an event of one tab as text, not as HTML": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    const pages = await Promise.all(Array.from({ length: 8 }, () => open(context, server, "news")));
    await server.untilHeld(1);
    for (const page of pages) await untilText(page, "now", /(This page's|Another tab's) request is being held/);
    const html = "<img src=x onerror=\"document.title='hacked'\"><b>bold</b>";
    await pages[3].fill("#data", html);
    await pages[3].click("#publish button");
    await untilText(pages[3], "result", /^#1: it released 1 held poll\.$/);
    for (const page of pages) {
      await untilShown(page, [html]);
      assert.equal(await page.locator("#events img, #events b").count(), 0);
      assert.match(await page.title(), /^news/);
    }
    await context.close();
    await server.stop();
  },

  "a tab opened later immediately shows that another tab's request is held for it": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    await open(context, server, "news");
    await server.untilHeld(1);
    const timeouts = () => server.metric('polls_total{reason="timeout"}');
    // The tab has to show this before that request times out; on a slow machine, retry.
    for (let tries = 1; ; tries++) {
      const before = await timeouts();
      const page = await open(context, server, "news");
      const ownFirstPoll = 1;
      await untilText(page, "now", /^Another tab's request is being held/);
      if ((await timeouts()) === before + ownFirstPoll) break;
      assert.ok(tries < 4, "the tab shows it only after that request has ended");
      await page.close();
    }
    await context.close();
    await server.stop();
  },

  "the timeline shows a held request and the event that answers it": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    const page = await open(context, server, "news");
    await page.waitForSelector("#lane i.held");
    assert.equal(await page.locator("#lane i.data").count(), 0);
    await server.publish("news", "first");
    await page.waitForSelector("#lane i.data");
    await page.waitForSelector("#lane i.dot");
    await page.waitForSelector("#lane i.held");
    await untilShown(page, ["first"]);
    await context.close();
    await server.stop();
  },

  "topics are listed with events, held polls and rates, and open by name, prefix or link": async () => {
    const server = await Server.start("--retain-events", "20");
    const context = await browser.newContext();
    await server.publish("sensors.attic", "1");
    await server.publish("sensors.cellar", "2", "3");
    const page = await open(context, server);
    await untilShown(page, ["1", "2", "3"]);
    await untilText(page, "list", /sensors\.cellar\s+1 held\s+2 events/);
    await page.fill("#name", "sensors.a*");
    await page.press("#name", "Enter");
    await untilShown(page, ["1"]);
    await page.locator("#list a", { hasText: "cellar" }).click();
    await untilShown(page, ["2", "3"]);
    assert.equal(await page.locator("#list a[aria-current]").innerText().then((text) => text.split("\n")[0]), "sensors.cellar");
    assert.equal(await page.inputValue("#to"), "sensors.cellar");
    // The rate of a topic that is being trimmed is an estimate, and is marked as one.
    let isPublishing = true;
    const publishing = (async () => {
      while (isPublishing) await server.publish("sensors.attic", "x");
    })();
    await untilText(page, "list", /sensors\.attic[^]*≈ \d+\/s/);
    isPublishing = false;
    await publishing;
    await untilText(page, "rate", /\d\/s/);
    await server.untilHeld(1);
    await server.publish("sensors.cellar", "4");
    await untilText(page, "wake-now", /half ≤ .* 99 % ≤ /);
    assert.match(await page.getAttribute("#held-chart path", "d"), /^M.*L/);
    await context.close();
    await server.stop();
  },

  "a drain, an unreachable server and its restart are shown, and no event is missing": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    const page = await open(context, server, "news");
    await server.untilHeld(1);
    await server.publish("news", "before");
    await server.untilHeld(1);
    await server.stop("SIGTERM");
    await page.waitForSelector("#lane i.drain");
    await untilText(page, "health", /^no answer$/);
    await page.waitForSelector("#notice:visible");
    await screenshot(page, "away");
    await server.restart();
    await server.publish("news", "after 1", "after 2");
    await until("it resumes", async () => (await shown(page)).length === 3);
    assert.deepEqual(await shown(page), ["before", "after 1", "after 2"]);
    assert.match(await page.locator("#events .note").innerText(), /new life/);
    await page.waitForSelector("#notice", { state: "hidden" });
    await untilText(page, "health", /^up/);
    await server.stop("SIGKILL");
    await untilText(page, "now", /^No answer .* asking again in/);
    await server.restart();
    await server.publish("news", "third life");
    await until("it resumes again", async () => (await shown(page)).at(-1) === "third life");
    await context.close();
    await server.stop();
  },

  "a gap is shown with the number of lost events": async () => {
    const server = await Server.start("--retain-events", "2", "--max-wait", "1s");
    const context = await browser.newContext();
    const page = await open(context, server, "news");
    await server.untilHeld(1);
    await context.setOffline(true);
    await server.untilHeld(0);
    await server.publish("news", "1", "2", "3", "4", "5");
    await context.setOffline(false);
    await untilShown(page, ["4", "5"]);
    assert.match(await page.locator("#events .note").innerText(), /trimmed.*3 in news/);
    await context.close();
    await server.stop();
  },

  "the console asks for a token, uses it, and does not keep it beyond the tab": async () => {
    const directory = mkdtempSync(join(tmpdir(), "longpoll-web-"));
    const file = join(directory, "tokens");
    const token = (...words) => {
      const created = spawnSync(process.env.LONGPOLL, ["token", ...words], { encoding: "utf8" });
      return { line: created.stdout.trim(), secret: created.stderr.trim().split(" ").at(-1) };
    };
    const all = token("all", "read,publish,admin", "*");
    const news = token("news", "read", "news");
    writeFileSync(file, `${all.line}\n${news.line}\n`);
    const server = await Server.start("--tokens", file);
    const context = await browser.newContext();
    const page = await open(context, server, "news");
    const use = async (secret) => {
      if (!(await page.locator("#token").isVisible())) await page.click("summary");
      await page.fill("#token", secret);
      await page.press("#token", "Enter");
    };
    await page.waitForSelector("#token:visible");
    await untilText(page, "notice", /token/);
    await screenshot(page, "token");
    await use("wrong");
    await untilText(page, "notice", /token/);
    await use(news.secret);
    await untilText(page, "now", /being held/);
    await untilText(page, "more", /without the right/);
    await page.fill("#data", "no");
    await page.click("#publish button");
    await untilText(page, "result", /^Failed: .*publish/);
    await use(all.secret);
    await page.waitForSelector("#notice", { state: "hidden" });
    await page.click("#publish button");
    await untilText(page, "result", /^#1/);
    await untilShown(page, ["no"]);
    await untilText(page, "held", /^1 of/);
    await page.reload();
    await untilShown(page, ["no"]);
    const stored = await page.evaluate(() => [localStorage.length, document.cookie, location.href]);
    assert.deepEqual(stored, [0, "", `${server.url}/#/news`]);
    await context.close();
    await server.stop();
    rmSync(directory, { recursive: true });
  },

  "every action is possible with the keyboard alone": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    const page = await open(context, server);
    await untilText(page, "list", /all topics/);
    const focused = () => page.evaluate(() => document.activeElement?.id || document.activeElement?.textContent?.trim());
    const tabTo = async (element) => {
      const visited = [];
      for (let presses = 0; presses < 40; presses++) {
        await page.keyboard.press("Tab");
        visited.push(await focused());
        if ((await focused()) === element) {
          const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
          assert.equal(outline, "solid", `the focus on ${element} is visible`);
          return;
        }
      }
      assert.fail(`the keyboard does not reach ${element}: ${visited}`);
    };
    await tabTo("name");
    await page.keyboard.type("chat");
    await page.keyboard.press("Enter");
    await untilText(page, "title", /^chat$/);
    await tabTo("pause");
    await page.keyboard.press("Enter");
    await tabTo("data");
    await page.keyboard.type("typed");
    await page.keyboard.press("Control+Enter");
    await untilText(page, "result", /^#1/);
    await untilText(page, "pause", /^Go on \(1 new\)$/);
    assert.deepEqual(await shown(page), []);
    await tabTo("pause");
    await page.keyboard.press("Enter");
    await untilShown(page, ["typed"]);
    await untilText(page, "list", /chat/);
    await page.evaluate(() => {
      window.focused = document.querySelector('#list a[href="#/chat"]');
      window.focused.focus();
    });
    await until("the list is rebuilt", () => page.evaluate(() => !window.focused.isConnected));
    assert.match(await focused(), /^chat/, "the focus stays on the same topic");
    await context.close();
    await server.stop();
  },

  "the layout fits a phone, light and dark, and every control has a name for screen readers": async () => {
    const server = await Server.start();
    const long = "x".repeat(128);
    await server.publish(long, "y".repeat(3000));
    await server.publish("news", "short", '{"not":"json"}');
    for (const [width, height] of [[1280, 860], [768, 1024], [360, 740]]) {
      for (const colorScheme of ["light", "dark"]) {
        // The accessibility checker is injected, which the page's policy would block.
        const context = await browser.newContext({ viewport: { width, height }, colorScheme, bypassCSP: true, isMobile: width < 500 });
        const page = await open(context, server);
        await until("all events are shown", async () => (await shown(page)).length === 3);
        await untilText(page, "list", /xxx/);
        await page.click("summary");
        assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= width, `${width} px wide`);
        await screenshot(page, `${width}-${colorScheme}`, { fullPage: true });
        await page.evaluate(axe);
        const results = await page.evaluate(() => window.axe.run());
        assert.deepEqual(results.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html)}`), []);
        await context.close();
      }
    }
    await server.stop();
  },
};

test("the console", { ...options, concurrency: 4 }, async (t) => {
  await Promise.all(Object.entries(cases).map(([name, run]) => t.test(name, options, run)));
  assert.deepEqual(pageErrors, [], "no script failed, and the policy blocked nothing");
});
