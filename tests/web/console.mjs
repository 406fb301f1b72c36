// Goal: the console shows what happens, to eyes, keyboards and screen readers, and is honest when
// something does not. Run by scripts/browser.sh; SCREENSHOTS=DIR keeps pictures, to be looked at.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { launch, require } from "./chromium.mjs";
import { HANG, Server, stopAll, TEST, until } from "./support.mjs";

const options = { timeout: TEST };
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

let browser;
before(async () => {
  browser = await launch();
});
after(async () => {
  stopAll();
  await browser?.close();
});

/** What a page complained about: scripts that failed, and what its policy kept out. */
const wrong = [];

/** A console page on some topic. A request that a stopped server leaves unanswered is no fault. */
async function open(context, server, topic = "") {
  context.setDefaultTimeout(HANG);
  const page = await context.newPage();
  page.on("pageerror", (error) => wrong.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" && !/^Failed to load resource/.test(message.text())) wrong.push(message.text());
  });
  await page.goto(`${server.url}/${topic && `#/${topic}`}`);
  return page;
}

/** The shown events, oldest first. */
const shown = (page) => page.locator("#events pre").allTextContents().then((texts) => texts.reverse());
const says = (page, id, what) => until(`#${id} says ${what}`, async () => what.test(await page.locator(`#${id}`).innerText()));
const picture = async (page, name, how) => process.env.SCREENSHOTS && page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`), ...how });

async function untilShown(page, expected) {
  await until(`these are shown: ${expected}`, async () => isDeepStrictEqual(await shown(page), expected));
}

const cases = {
  "what one tab publishes is seen in all others, as text and not as HTML, and eight tabs hold one poll": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    const pages = await Promise.all(Array.from({ length: 8 }, () => open(context, server, "news")));
    await server.untilHeld(1);
    for (const page of pages) await says(page, "now", /(This page's|Another tab's) request is being held/);
    const nasty = "<img src=x onerror=\"document.title='hacked'\"><b>bold</b>";
    await pages[3].fill("#data", nasty);
    await pages[3].click("#publish button");
    await says(pages[3], "result", /^#1: it released 1 held poll\.$/);
    for (const page of pages) {
      await untilShown(page, [nasty]);
      assert.equal(await page.locator("#events img, #events b").count(), 0);
      assert.match(await page.title(), /^news/);
    }
    await context.close();
    await server.stop();
  },

  "a tab that comes later says at once that another tab's request is held for it": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    await open(context, server, "news");
    await server.untilHeld(1);
    const ends = () => server.metric('polls_total{reason="timeout"}');
    // It may not take the end of that request to learn of it; on a slow machine, try again.
    for (let tries = 1; ; tries++) {
      const before = await ends();
      const page = await open(context, server, "news");
      const caughtUp = 1;
      await says(page, "now", /^Another tab's request is being held/);
      if ((await ends()) === before + caughtUp) break;
      assert.ok(tries < 4, "it says so only when that request has ended");
      await page.close();
    }
    await context.close();
    await server.stop();
  },

  "one sees a request wait, and what answers it": async () => {
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

  "topics are listed with events, held polls and rates, and opened by name, prefix or link": async () => {
    const server = await Server.start("--retain-events", "20");
    const context = await browser.newContext();
    await server.publish("sensors.attic", "1");
    await server.publish("sensors.cellar", "2", "3");
    const page = await open(context, server);
    await untilShown(page, ["1", "2", "3"]);
    await says(page, "list", /sensors\.cellar\s+1 held\s+2 events/);
    await page.fill("#name", "sensors.a*");
    await page.press("#name", "Enter");
    await untilShown(page, ["1"]);
    await page.locator("#list a", { hasText: "cellar" }).click();
    await untilShown(page, ["2", "3"]);
    assert.equal(await page.locator("#list a[aria-current]").innerText().then((text) => text.split("\n")[0]), "sensors.cellar");
    assert.equal(await page.inputValue("#to"), "sensors.cellar");
    // While it is being trimmed, a rate is no more than an estimate, and says so.
    let going = true;
    const publishing = (async () => {
      while (going) await server.publish("sensors.attic", "x");
    })();
    await says(page, "list", /sensors\.attic[^]*≈ \d+\/s/);
    going = false;
    await publishing;
    await says(page, "rate", /\d\/s/);
    await server.untilHeld(1);
    await server.publish("sensors.cellar", "4");
    await says(page, "wake-now", /half ≤ .* 99 % ≤ /);
    assert.match(await page.getAttribute("#held-chart path", "d"), /^M.*L/);
    await context.close();
    await server.stop();
  },

  "a server that drains, is away and comes back is told as such, and nothing is missing": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    const page = await open(context, server, "news");
    await server.untilHeld(1);
    await server.publish("news", "before");
    await server.untilHeld(1);
    await server.stop("SIGTERM");
    await page.waitForSelector("#lane i.drain");
    await says(page, "health", /^no answer$/);
    await page.waitForSelector("#notice:visible");
    await picture(page, "away");
    await server.restart();
    await server.publish("news", "after 1", "after 2");
    await until("it resumes", async () => (await shown(page)).length === 3);
    assert.deepEqual(await shown(page), ["before", "after 1", "after 2"]);
    assert.match(await page.locator("#events .note").innerText(), /new life/);
    await page.waitForSelector("#notice", { state: "hidden" });
    await says(page, "health", /^up/);
    await server.stop("SIGKILL");
    await says(page, "now", /^No answer .* asking again in/);
    await server.restart();
    await server.publish("news", "third life");
    await until("it resumes again", async () => (await shown(page)).at(-1) === "third life");
    await context.close();
    await server.stop();
  },

  "a gap is told with what is lost": async () => {
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

  "a token is asked for, used, and not kept beyond the tab": async () => {
    const place = mkdtempSync(join(tmpdir(), "longpoll-web-"));
    const file = join(place, "tokens");
    const token = (...words) => {
      const made = spawnSync(process.env.LONGPOLL, ["token", ...words], { encoding: "utf8" });
      return { line: made.stdout.trim(), secret: made.stderr.trim().split(" ").at(-1) };
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
    await says(page, "notice", /token/);
    await picture(page, "token");
    await use("wrong");
    await says(page, "notice", /token/);
    await use(news.secret);
    await says(page, "now", /being held/);
    await says(page, "more", /without the right/);
    await page.fill("#data", "no");
    await page.click("#publish button");
    await says(page, "result", /^Not published: .*publish/);
    await use(all.secret);
    await page.waitForSelector("#notice", { state: "hidden" });
    await page.click("#publish button");
    await says(page, "result", /^#1/);
    await untilShown(page, ["no"]);
    await says(page, "held", /^1 of/);
    await page.reload();
    await untilShown(page, ["no"]);
    const kept = await page.evaluate(() => [localStorage.length, document.cookie, location.href]);
    assert.deepEqual(kept, [0, "", `${server.url}/#/news`]);
    await context.close();
    await server.stop();
    rmSync(place, { recursive: true });
  },

  "everything can be done by keyboard alone": async () => {
    const server = await Server.start();
    const context = await browser.newContext();
    const page = await open(context, server);
    await says(page, "list", /all topics/);
    const focused = () => page.evaluate(() => document.activeElement?.id || document.activeElement?.textContent?.trim());
    const tabTo = async (what) => {
      const seen = [];
      for (let presses = 0; presses < 40; presses++) {
        await page.keyboard.press("Tab");
        seen.push(await focused());
        if ((await focused()) === what) {
          const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
          assert.equal(outline, "solid", `the focus on ${what} is seen`);
          return;
        }
      }
      assert.fail(`the keyboard does not reach ${what}: ${seen}`);
    };
    await tabTo("name");
    await page.keyboard.type("chat");
    await page.keyboard.press("Enter");
    await says(page, "title", /^chat$/);
    await tabTo("pause");
    await page.keyboard.press("Enter");
    await tabTo("data");
    await page.keyboard.type("typed");
    await page.keyboard.press("Control+Enter");
    await says(page, "result", /^#1/);
    await says(page, "pause", /^Go on \(1 new\)$/);
    assert.deepEqual(await shown(page), []);
    await tabTo("pause");
    await page.keyboard.press("Enter");
    await untilShown(page, ["typed"]);
    await says(page, "list", /chat/);
    await page.evaluate(() => {
      window.focused = document.querySelector('#list a[href="#/chat"]');
      window.focused.focus();
    });
    await until("the list is made anew", () => page.evaluate(() => !window.focused.isConnected));
    assert.match(await focused(), /^chat/, "the focus stays where it is");
    await context.close();
    await server.stop();
  },

  "it fits a phone, light and dark, and screen readers find a name for everything": async () => {
    const server = await Server.start();
    const long = "x".repeat(128);
    await server.publish(long, "y".repeat(3000));
    await server.publish("news", "short", '{"not":"json"}');
    for (const [width, height] of [[1280, 860], [768, 1024], [360, 740]]) {
      for (const colorScheme of ["light", "dark"]) {
        // Its checker is a script of the test's, which the page's policy would not run.
        const context = await browser.newContext({ viewport: { width, height }, colorScheme, bypassCSP: true, isMobile: width < 500 });
        const page = await open(context, server);
        await until("it is filled", async () => (await shown(page)).length === 3);
        await says(page, "list", /xxx/);
        await page.click("summary");
        assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= width, `${width} px wide`);
        await picture(page, `${width}-${colorScheme}`, { fullPage: true });
        await page.evaluate(axe);
        const found = await page.evaluate(() => window.axe.run());
        assert.deepEqual(found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html)}`), []);
        await context.close();
      }
    }
    await server.stop();
  },
};

test("the console", { ...options, concurrency: 4 }, async (t) => {
  await Promise.all(Object.entries(cases).map(([name, run]) => t.test(name, options, run)));
  assert.deepEqual(wrong, [], "no script failed, and nothing was kept out by the policy");
});
