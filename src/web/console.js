// What comes from events is put into the page as text, never as HTML; the page's policy (trusted
// types) sees to it.
import { follow, publish } from "./longpoll.js";

const TICK = 2000; // Milliseconds between two looks at the server.
const SAMPLES = 150; // Looks in a chart.
const SPAN = 60_000; // Milliseconds on the time line.
const ROWS = 200; // Events shown, and marks on the time line.
const LISTED = 200; // Topics.
const LONG = 2000; // Characters of an event that are shown.
const SKIP = 1000; // So far behind, the page skips to the newest events.
const KEY = "longpoll.token";

/** @returns {any} */
const $ = (id) => document.getElementById(id);
/** @returns {any} */
const make = (tag, fields, ...inside) => {
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...inside);
  return element;
};
const put = (element, text) => element.textContent === text || (element.textContent = text);
const say = (id, text) => put($(id), text);
const count = (n) => n.toLocaleString("en", { notation: "compact" });
const many = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;
const time = (s) => (s < 1e-3 ? `${s * 1e6} µs` : s < 1 ? `${s * 1e3} ms` : `${s} s`);
const rate = (n) => `${n < 10 ? +n.toFixed(1) : count(Math.round(n))}/s`;

let token = sessionStorage.getItem(KEY) || undefined;

/** By part of the page. */
const complaints = {};
function complain(part, text) {
  complaints[part] = text;
  const all = Object.values(complaints).filter(Boolean).join(" ");
  $("notice").hidden = !all;
  say("notice", all);
}

// ---- what the server says of itself ----

/** What this token may not read; it is not asked for again. */
const denied = new Set();
let before;
const samples = [];

async function get(path, as = "json") {
  const part = path.split("?")[0];
  if (denied.has(part)) return;
  const headers = new Headers(token ? { Authorization: `Bearer ${token}` } : {});
  const answer = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(10_000) });
  if (answer.ok || part === "health") return answer[as]();
  const { status, detail } = await answer.json();
  if (status !== 401 && status !== 403) throw new Error(detail);
  denied.add(part);
  refused(part, status, `${part}: ${detail}.`);
}

function refused(part, status, text) {
  if (status !== 401) return complain(part, text);
  $("access").open = true;
  complain("token", token ? "The server does not know this token." : "The server asks for a token.");
}

async function tick() {
  try {
    const health = await get("health");
    const well = health.status === "ok";
    $("health").className = well ? "data" : "drain";
    say("health", well ? `up, ${health.version}` : health.status);
    const topics = await get(`topics?limit=${LISTED}`);
    const text = await get("metrics", "text");
    const metrics = new Map();
    for (const [, name, value] of text?.matchAll(/^longpoll_(\S+) (\S+)$/gm) ?? []) metrics.set(name, +value);
    const now = { at: performance.now(), topics: new Map(topics?.topics.map((t) => [t.topic, t])), metrics };
    list(now, topics);
    if (text) sample(now);
    before = now;
    complain("server", well ? "" : "The server is draining: it shuts down.");
  } catch (error) {
    $("health").className = "gap";
    say("health", "no answer");
    complain("server", `No answer from the server (${error.message}); asking again.`);
  }
}

function list(now, answer) {
  const rows = [{ topic: "*" }, ...now.topics.values()].map((topic) => {
    const all = topic.topic === "*";
    const was = before?.topics.get(topic.topic);
    let speed = "";
    if (was && topic.newest > was.newest) {
      // Exact while nothing is trimmed; else by how densely its events lie in the log.
      const exact = topic.oldest === was.oldest;
      const density = topic.events / (topic.newest - topic.oldest + 1);
      const came = exact ? topic.events - was.events : (topic.newest - was.newest) * density;
      speed = (exact ? "" : "≈ ") + rate((came * 1000) / (now.at - before.at));
    }
    const link = make("a", { href: `#/${topic.topic}` },
      make("b", {}, all ? "all topics" : topic.topic),
      make("span", {}, topic.held ? `${count(topic.held)} held` : ""),
      make("small", {}, all ? "" : many(topic.events, "event")),
      make("span", {}, speed));
    if (topic.topic === shown) link.ariaCurrent = "true";
    return make("li", {}, link);
  });
  const focused = $("list").querySelector(":focus")?.getAttribute("href");
  $("list").replaceChildren(...rows);
  if (focused) $("list").querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
  say("more", !answer ? "Not listed without the right to; open one by its name."
    : answer.topics.length < LISTED ? "" : `The first ${LISTED}; open others by their names.`);
}

function sample({ at, metrics }) {
  const value = (name) => metrics.get(name) ?? 0;
  // A counter that has shrunk is that of another server.
  const grown = (name) => Math.max(0, value(name) - (before?.metrics.get(name) ?? value(name)));
  const held = value("polls_held");
  say("held", `${count(held)} of ${count(value("polls_held_max"))}`);
  say("connections", `${count(value("connections"))} of ${count(value("connections_max"))}`);
  say("kept", count(value("retained_events")));
  say("rate", rate(before ? (grown("events_published_total") * 1000) / (at - before.at) : 0));
  const buckets = [...metrics.keys()].filter((name) => name.startsWith("wake_seconds_bucket"))
    .map((name) => ({ most: Number(name.split('"')[1]) || 2, n: grown(name) }));
  const woken = buckets.at(-1)?.n;
  // The bound of its bucket: all that is known is that it took no longer.
  const within = (part) => (woken ? buckets.find(({ n }) => n >= part * woken)?.most : undefined);
  samples.push({ held, half: within(0.5), most: within(0.99) });
  samples.splice(0, samples.length - SAMPLES);
  const peak = Math.max(1, ...samples.map(({ held }) => held));
  say("held-now", `${count(held)}, at most ${count(peak)}`);
  const last = samples.findLast(({ half }) => half);
  say("wake-now", last ? `half ≤ ${time(last.half)}, 99 % ≤ ${time(last.most)}` : "none so far");
  draw("held-chart", samples.map(({ held }) => held / peak));
  const scale = (s) => s && Math.log(s / 4e-5) / Math.log(2 / 4e-5);
  draw("wake-chart", samples.map(({ most }) => scale(most)), samples.map(({ half }) => scale(half)));
}

/** Lines from 0 to 1; where nothing is known the last value goes on. */
function draw(id, ...lines) {
  lines.forEach((line, nth) => {
    let path = "";
    let y;
    line.forEach((value, i) => {
      y = value === undefined ? y : (57 - 54 * value).toFixed(1);
      if (y) path += `${path ? "L" : "M"}${300 - ((line.length - 1 - i) * 300) / (SAMPLES - 1)} ${y}`;
    });
    $(id).children[nth].setAttribute("d", path);
  });
}

// ---- what is shown: its events, and the requests by which they come ----

let shown = "";
let stop = new AbortController();
let paused = false;
/** Rows that are not on the page yet. */
let fresh = [];
/** Requests of the last minute, with how they ended, and dots for events. */
let marks = [];
let still = "";
const newest = () => marks.findLast(({ how }) => how !== "dot");

function ends(how) {
  const mark = newest();
  if (mark?.how !== "held") return;
  Object.assign(mark, { how, to: Date.now() });
}

function state(state) {
  const from = Date.now();
  if (state.wait === 0) {
    // Unless this page asks, another tab does; it said so before this page could hear it.
    if (state.is === "answered" && newest()?.how !== "held") marks.push({ how: "held", from, other: true, unheard: true });
    return;
  }
  if (newest()?.unheard && state.is === "asking") marks.pop();
  ends(state.reason ?? "gap");
  if (state.is === "asking") {
    marks.push({ how: "held", from, other: !state.here });
    still = "";
  } else if (state.is === "answered") {
    if (state.events) marks.push({ how: "dot", from, to: from });
    complain("tail", state.reason === "drain" ? "The server drained: it answered early, to shut down." : "");
    if (state.behind > SKIP) open(shown, `${count(state.behind)} events are not shown, to keep up.`);
  } else if (state.is === "failed") {
    still = `No answer (${state.why}); asking again in ${(state.again / 1000).toFixed(1)} s.`;
  } else if (state.is === "offline") {
    still = "This browser is offline.";
  }
}

function add(row) {
  fresh.push(row);
  if (fresh.length > ROWS) fresh.shift();
}

/** @param {import("./longpoll.js").LogEvent} event */
function show({ seq, topic, time, type, data, data_base64: bytes }) {
  const at = new Date(time);
  const text = bytes === undefined ? (typeof data === "string" ? data : JSON.stringify(data)) : `bytes, in base64: ${bytes}`;
  add(make("li", {},
    make("span", {}, `#${seq}`),
    make("span", {}, `${topic === shown ? "" : topic} ${type ? `(${type})` : ""}`),
    make("time", { dateTime: time }, `${at.toLocaleTimeString("en-GB")}.${time.slice(-4, -1)}`),
    make("pre", {}, text.length > LONG ? `${text.slice(0, LONG)} … (${count(text.length)} characters)` : text)));
}

const note = (text) => add(make("li", { className: "note" }, text));

function gap({ why, lost }) {
  const each = Object.entries(lost ?? {}).map(([topic, n]) => `${n ?? "nobody knows how many"} in ${topic}`);
  note(why === "trimmed" ? `Gap: events were trimmed before this page read them: ${each.join(", ") || "nobody knows how many"}.`
    : why === "epoch" ? "Gap: the log has begun a new life, as after a restart without a store."
    : "Gap: this page is ahead of the server.");
}

async function open(topic, skipped) {
  stop.abort();
  const { signal } = (stop = new AbortController());
  if (topic !== shown) {
    marks = [];
    fresh = [];
    $("events").replaceChildren();
  }
  shown = topic;
  document.title = `${topic === "*" ? "" : `${topic} · `}longpoll`;
  say("title", topic === "*" ? "All topics" : topic);
  if (!/[*,]/.test(topic)) $("to").value = topic;
  for (const link of $("list").querySelectorAll("a")) link.ariaCurrent = link.getAttribute("href") === `#/${topic}` ? "true" : null;
  complain("tail", "");
  if (skipped) note(skipped);
  try {
    const onState = (told) => signal.aborted || state(told);
    for await (const event of follow(`topics/${topic}`, { since: "last:50", token, signal, onGap: gap, onState })) show(event);
  } catch (error) {
    ends("gap");
    still = "Not asking.";
    refused("tail", error.status, `${topic}: ${error.message}.`);
  }
}

function paint() {
  const now = Date.now();
  if (!paused && fresh.length) {
    $("events").prepend(...fresh.reverse());
    fresh = [];
    while ($("events").children.length > ROWS) $("events").lastChild.remove();
  }
  say("pause", paused ? `Go on (${fresh.length} new)` : "Pause");
  marks = marks.filter(({ to = now }) => to > now - SPAN).slice(-ROWS);
  for (const mark of marks) {
    const { style } = (mark.element ??= make("i", {}));
    const width = ((mark.to ?? now) - mark.from) / SPAN;
    mark.element.className = mark.how + (mark.other ? " other" : "");
    style.left = `${100 - ((now - mark.from) / SPAN) * 100}%`;
    if (mark.how !== "dot") style.width = `${width * 100}%`;
    put(mark.element, width * $("lane").clientWidth > 64 ? `${Math.floor((width * SPAN) / 1000)} s` : "");
  }
  $("lane").replaceChildren(...marks.map(({ element }) => element));
  const { how, other, from } = newest() ?? {};
  say("now", still || (how !== "held" ? "Catching up." : other ? "Another tab's request is being held, for this page too."
    : `This page's request is being held, for ${Math.floor((now - from) / 1000)} s so far.`));
}

// ---- what the person does ----

const chosen = () => open(location.hash.slice(2) || "*");
const submits = (form, act) => {
  form.onsubmit = (event) => {
    event.preventDefault();
    act();
  };
};
addEventListener("hashchange", chosen);
submits($("open"), () => (location.hash = `/${$("name").value.trim()}`));
submits($("token").form, () => {
  token = $("token").value.trim() || undefined;
  if (token) sessionStorage.setItem(KEY, token);
  else sessionStorage.removeItem(KEY);
  $("token").value = "";
  $("access").open = false;
  denied.clear();
  for (const part in complaints) complain(part, "");
  tick();
  open(shown);
});
submits($("publish"), async () => {
  say("result", "Sending …");
  try {
    const data = $("json").checked ? JSON.parse($("data").value) : $("data").value;
    const done = await publish($("to").value, data, { type: $("type").value || undefined, token });
    say("result", `#${done.seq}: it released ${many(done.released, "held poll")}${done.durable ? ", and is on disk" : ""}.`);
    $("data").select();
  } catch (error) {
    say("result", `Not published: ${error.message}.`);
  }
});
$("data").onkeydown = ({ key, ctrlKey, metaKey }) => {
  if (key === "Enter" && (ctrlKey || metaKey)) $("publish").requestSubmit();
};
$("pause").onclick = () => {
  paused = !paused;
  $("pause").ariaPressed = String(paused);
};

chosen();
(async function again() {
  if (!document.hidden) await tick();
  setTimeout(again, TICK);
})();
setInterval(() => document.hidden || paint(), matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 100);
