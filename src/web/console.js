// Event content enters the page as text, never as HTML; the page's policy (trusted types) enforces
// this.
import { follow, publish } from "./longpoll.js";

const REFRESH = 2000; // Milliseconds between two refreshes.
const SAMPLES = 150; // In a chart.
const SPAN = 60_000; // Milliseconds on the timeline.
const ROWS = 200; // Events shown, and marks on the timeline.
const TOPICS = 200; // Topics listed.
const CHARS = 2000; // Characters shown of an event.
const SKIP = 1000; // If further behind, the page skips to the newest events.
const KEY = "longpoll.token";

/** @returns {any} */
const $ = (id) => document.getElementById(id);
/** @returns {any} */
const create = (tag, fields, ...inside) => {
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...inside);
  return element;
};
const setText = (element, text) => element.textContent === text || (element.textContent = text);
const set = (id, text) => setText($(id), text);
const count = (n) => n.toLocaleString("en", { notation: "compact" });
const plural = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;
const time = (s) => (s < 1e-3 ? `${s * 1e6} µs` : s < 1 ? `${s * 1e3} ms` : `${s} s`);
const rate = (n) => `${n < 10 ? +n.toFixed(1) : count(Math.round(n))}/s`;

let token = sessionStorage.getItem(KEY) || undefined;

/** Errors by part of the page. */
const notices = {};
function notice(part, text) {
  notices[part] = text;
  const all = Object.values(notices).filter(Boolean).join(" ");
  $("notice").hidden = !all;
  set("notice", all);
}

// ---- health, topics and metrics ----

/** Paths that the token may not read; the page does not request them again. */
const denied = new Set();
let previous;
const samples = [];

async function get(path, as = "json") {
  const part = path.split("?")[0];
  if (denied.has(part)) return;
  const headers = new Headers(token ? { Authorization: `Bearer ${token}` } : {});
  const response = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(10_000) });
  if (response.ok || part === "health") return response[as]();
  const { status, detail } = await response.json();
  if (status !== 401 && status !== 403) throw new Error(detail);
  denied.add(part);
  refused(part, status, `${part}: ${detail}.`);
}

function refused(part, status, text) {
  if (status !== 401) return notice(part, text);
  $("access").open = true;
  notice("token", token ? "The server does not know this token." : "The server requires a token.");
}

async function refresh() {
  try {
    const health = await get("health");
    const ok = health.status === "ok";
    $("health").className = ok ? "data" : "drain";
    set("health", ok ? `up, ${health.version}` : health.status);
    const topics = await get(`topics?limit=${TOPICS}`);
    const text = await get("metrics", "text");
    const metrics = new Map();
    for (const [, name, value] of text?.matchAll(/^longpoll_(\S+) (\S+)$/gm) ?? []) metrics.set(name, +value);
    const now = { at: performance.now(), topics: new Map(topics?.topics.map((t) => [t.topic, t])), metrics };
    list(now, topics);
    if (text) sample(now);
    previous = now;
    notice("server", ok ? "" : "The server is draining: it is shutting down.");
  } catch (error) {
    $("health").className = "gap";
    set("health", "no answer");
    notice("server", `No answer from the server (${error.message}); asking again.`);
  }
}

function list(now, response) {
  const rows = [{ topic: "*" }, ...now.topics.values()].map((topic) => {
    const all = topic.topic === "*";
    const old = previous?.topics.get(topic.topic);
    let speed = "";
    if (old && topic.newest > old.newest) {
      // Exact while nothing is trimmed; else estimated from the topic's share of the log.
      const exact = topic.oldest === old.oldest;
      const density = topic.events / (topic.newest - topic.oldest + 1);
      const added = exact ? topic.events - old.events : (topic.newest - old.newest) * density;
      speed = (exact ? "" : "≈ ") + rate((added * 1000) / (now.at - previous.at));
    }
    const link = create("a", { href: `#/${topic.topic}` },
      create("b", {}, all ? "all topics" : topic.topic),
      create("span", {}, topic.held ? `${count(topic.held)} held` : ""),
      create("small", {}, all ? "" : plural(topic.events, "event")),
      create("span", {}, speed));
    if (topic.topic === current) link.ariaCurrent = "true";
    return create("li", {}, link);
  });
  const focused = $("list").querySelector(":focus")?.getAttribute("href");
  $("list").replaceChildren(...rows);
  if (focused) $("list").querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
  set("more", !response ? "Not listed without the right to; open one by name."
    : response.topics.length < TOPICS ? "" : `The first ${TOPICS}; open others by name.`);
}

function sample({ at, metrics }) {
  const value = (name) => metrics.get(name) ?? 0;
  // A counter that decreased belongs to another server process.
  const increase = (name) => Math.max(0, value(name) - (previous?.metrics.get(name) ?? value(name)));
  const held = value("polls_held");
  set("held", `${count(held)} of ${count(value("polls_held_max"))}`);
  set("connections", `${count(value("connections"))} of ${count(value("connections_max"))}`);
  set("kept", count(value("retained_events")));
  set("rate", rate(previous ? (increase("events_published_total") * 1000) / (at - previous.at) : 0));
  const buckets = [...metrics.keys()].filter((name) => name.startsWith("wake_seconds_bucket"))
    .map((name) => ({ bound: Number(name.split('"')[1]) || 2, n: increase(name) }));
  const total = buckets.at(-1)?.n;
  // A histogram gives only the upper bound of a quantile.
  const quantile = (q) => (total ? buckets.find(({ n }) => n >= q * total)?.bound : undefined);
  samples.push({ held, p50: quantile(0.5), p99: quantile(0.99) });
  samples.splice(0, samples.length - SAMPLES);
  const peak = Math.max(1, ...samples.map(({ held }) => held));
  set("held-now", `${count(held)}, at most ${count(peak)}`);
  const last = samples.findLast(({ p50 }) => p50);
  set("wake-now", last ? `half ≤ ${time(last.p50)}, 99 % ≤ ${time(last.p99)}` : "none so far");
  draw("held-chart", samples.map(({ held }) => held / peak));
  const scale = (s) => s && Math.log(s / 4e-5) / Math.log(2 / 4e-5);
  draw("wake-chart", samples.map(({ p99 }) => scale(p99)), samples.map(({ p50 }) => scale(p50)));
}

/** Draws lines of values from 0 to 1; an unknown value repeats the last. */
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

// ---- the open topic: its events, and the polls that bring them ----

let current = "";
let stop = new AbortController();
let paused = false;
/** Rows not yet on the page. */
let fresh = [];
/** The polls of the last minute by outcome, and dots for events. */
let marks = [];
let status = "";
const newest = () => marks.findLast(({ how }) => how !== "dot");

function endPoll(how) {
  const mark = newest();
  if (mark?.how !== "held") return;
  Object.assign(mark, { how, to: Date.now() });
}

function onPoll(state) {
  const from = Date.now();
  if (state.wait === 0) {
    // If no poll of this page is held, another tab's is: it began before this page listened.
    if (state.is === "answered" && newest()?.how !== "held") marks.push({ how: "held", from, other: true, assumed: true });
    return;
  }
  if (newest()?.assumed && state.is === "asking") marks.pop();
  endPoll(state.reason ?? "gap");
  if (state.is === "asking") {
    marks.push({ how: "held", from, other: !state.here });
    status = "";
  } else if (state.is === "answered") {
    if (state.events) marks.push({ how: "dot", from, to: from });
    notice("tail", state.reason === "drain" ? "The server drained: it answered early, to shut down." : "");
    if (state.behind > SKIP) open(current, `${count(state.behind)} events are not shown, to keep up.`);
  } else if (state.is === "failed") {
    status = `No answer (${state.why}); asking again in ${(state.again / 1000).toFixed(1)} s.`;
  } else if (state.is === "offline") {
    status = "This browser is offline.";
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
  add(create("li", {},
    create("span", {}, `#${seq}`),
    create("span", {}, `${topic === current ? "" : topic} ${type ? `(${type})` : ""}`),
    create("time", { dateTime: time }, `${at.toLocaleTimeString("en-GB")}.${time.slice(-4, -1)}`),
    create("pre", {}, text.length > CHARS ? `${text.slice(0, CHARS)} … (${count(text.length)} characters)` : text)));
}

const note = (text) => add(create("li", { className: "note" }, text));

function gap({ why, lost }) {
  const each = Object.entries(lost ?? {}).map(([topic, n]) => `${n ?? "an unknown number"} in ${topic}`);
  note(why === "trimmed" ? `Gap: events were trimmed before this page read them: ${each.join(", ") || "an unknown number"}.`
    : why === "epoch" ? "Gap: the log has begun a new life, as after a restart without a store."
    : "Gap: this page is ahead of the server.");
}

async function open(topic, skipped) {
  stop.abort();
  const { signal } = (stop = new AbortController());
  if (topic !== current) {
    marks = [];
    fresh = [];
    $("events").replaceChildren();
  }
  current = topic;
  document.title = `${topic === "*" ? "" : `${topic} · `}longpoll`;
  set("title", topic === "*" ? "All topics" : topic);
  if (!/[*,]/.test(topic)) $("to").value = topic;
  for (const link of $("list").querySelectorAll("a")) link.ariaCurrent = link.getAttribute("href") === `#/${topic}` ? "true" : null;
  notice("tail", "");
  if (skipped) note(skipped);
  try {
    const onState = (state) => signal.aborted || onPoll(state);
    for await (const event of follow(`topics/${topic}`, { since: "last:50", token, signal, onGap: gap, onState })) show(event);
  } catch (error) {
    endPoll("gap");
    status = "Not polling.";
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
  set("pause", paused ? `Go on (${fresh.length} new)` : "Pause");
  marks = marks.filter(({ to = now }) => to > now - SPAN).slice(-ROWS);
  for (const mark of marks) {
    const { style } = (mark.element ??= create("i", {}));
    const width = ((mark.to ?? now) - mark.from) / SPAN;
    mark.element.className = mark.how + (mark.other ? " other" : "");
    style.left = `${100 - ((now - mark.from) / SPAN) * 100}%`;
    if (mark.how !== "dot") style.width = `${width * 100}%`;
    setText(mark.element, width * $("lane").clientWidth > 64 ? `${Math.floor((width * SPAN) / 1000)} s` : "");
  }
  $("lane").replaceChildren(...marks.map(({ element }) => element));
  const { how, other, from } = newest() ?? {};
  set("now", status || (how !== "held" ? "Catching up." : other ? "Another tab's request is being held, for this page too."
    : `This page's request is being held, for ${Math.floor((now - from) / 1000)} s so far.`));
}

// ---- user input ----

const openHash = () => open(location.hash.slice(2) || "*");
const onSubmit = (form, act) => {
  form.onsubmit = (event) => {
    event.preventDefault();
    act();
  };
};
addEventListener("hashchange", openHash);
onSubmit($("open"), () => (location.hash = `/${$("name").value.trim()}`));
onSubmit($("token").form, () => {
  token = $("token").value.trim() || undefined;
  if (token) sessionStorage.setItem(KEY, token);
  else sessionStorage.removeItem(KEY);
  $("token").value = "";
  $("access").open = false;
  denied.clear();
  for (const part in notices) notice(part, "");
  refresh();
  open(current);
});
onSubmit($("publish"), async () => {
  set("result", "Sending …");
  try {
    const data = $("json").checked ? JSON.parse($("data").value) : $("data").value;
    const done = await publish($("to").value, data, { type: $("type").value || undefined, token });
    set("result", `#${done.seq}: it released ${plural(done.released, "held poll")}${done.durable ? ", and is on disk" : ""}.`);
    $("data").select();
  } catch (error) {
    set("result", `Failed: ${error.message}.`);
  }
});
$("data").onkeydown = ({ key, ctrlKey, metaKey }) => {
  if (key === "Enter" && (ctrlKey || metaKey)) $("publish").requestSubmit();
};
$("pause").onclick = () => {
  paused = !paused;
  $("pause").ariaPressed = String(paused);
};

openHash();
(async function loop() {
  if (!document.hidden) await refresh();
  setTimeout(loop, REFRESH);
})();
setInterval(() => document.hidden || paint(), matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 100);
