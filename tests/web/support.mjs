// Shared by the tests of longpoll.js, the console and the streams: the server under test on a port
// of its own, a proxy that simulates a bad network, and waits for conditions instead of for times.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { connect, createServer } from "node:net";
import { createInterface } from "node:readline";

/** Milliseconds after which a wait, or a test, has failed even on a slow machine. */
export const WAIT_LIMIT = 120_000;
export const TEST_LIMIT = 280_000;

/** Repeats `condition` until it returns a truthy value, and returns that. */
export async function until(description, condition) {
  const deadline = Date.now() + WAIT_LIMIT;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`never happened: ${description}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The functions that stop the servers and proxies of all tests. */
const stops = new Set();
/** Stops the servers and proxies that a failed test has left running. */
export const stopAll = () => stops.forEach((stop) => stop());
process.on("exit", stopAll);

/** The server under test. It can be stopped and restarted on the same port. */
export class Server {
  #flags;
  #child;
  url;

  static async start(...flags) {
    const server = new Server();
    server.#flags = flags;
    await server.restart();
    return server;
  }

  async restart() {
    const { port, hostname } = new URL(this.url ?? "http://127.0.0.1:0");
    const flags = ["--listen", `${hostname}:${port || 0}`, "--wait-jitter", "0", "--log", "error"];
    const program = process.env.LONGPOLL;
    if (!program) throw new Error("LONGPOLL is not set: expected the path of the server under test");
    const child = spawn(program, [...flags, ...this.#flags], { stdio: ["ignore", "pipe", "inherit"] });
    this.#child = child;
    stops.add((this.kill = () => child.kill("SIGKILL")));
    const [line] = await once(createInterface(child.stdout), "line");
    this.url = line.replace("listening on ", "");
  }

  /** Sends a signal and waits for the exit. */
  async stop(signal = "SIGKILL") {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill(signal);
    await ended;
  }

  /** Publishes texts, one request each. */
  async publish(topic, ...texts) {
    for (const body of texts) {
      const response = await fetch(`${this.url}/topics/${topic}`, { method: "POST", body });
      if (!response.ok) throw new Error(await response.text());
    }
  }

  /** Publishes JSON values in one request. */
  async publishBatch(topic, values) {
    const headers = { "Content-Type": "application/x-ndjson" };
    const response = await fetch(`${this.url}/topics/${topic}`, { method: "POST", headers, body: values.join("\n") });
    if (!response.ok) throw new Error(await response.text());
  }

  /** The value of a metric, by its name after `longpoll_`. */
  async metric(name) {
    const text = await (await fetch(`${this.url}/metrics`)).text();
    return Number(text.match(new RegExp(`^longpoll_${name.replace(/[{}]/g, "\\$&")} (.*)$`, "m"))[1]);
  }

  untilHeld(polls) {
    return until(`${polls} polls held`, async () => (await this.metric("polls_held")) === polls);
  }
}

/** A server whose responses the test writes in `handler`. */
export async function fakeServer(handler) {
  const server = createHttpServer(handler).listen(0, "127.0.0.1");
  await once(server, "listening");
  const stop = () => (server.close(), server.closeAllConnections());
  stops.add(stop);
  return { url: `http://127.0.0.1:${server.address().port}`, stop };
}

/**
 * A proxy that simulates a network in front of a server. `plan` is called for each connection and
 * returns after how many bytes to the server (`up`) or from it (`down`) the connection is cut, and
 * for how many milliseconds it carries nothing before that (`silent`).
 */
export async function network(server, plan) {
  const sockets = new Set();
  const mutes = new Set();
  const proxy = createServer((client) => {
    const { up = Infinity, down = Infinity, silent = 0 } = plan();
    const { port, hostname } = new URL(server.url);
    const upstream = connect(port, hostname);
    const cut = () => (client.destroy(), upstream.destroy());
    let ended = false;
    mutes.add(() => (ended = true));
    const end = () => {
      if (ended) return;
      ended = true;
      if (silent) setTimeout(cut, silent).unref();
      else cut();
    };
    const forward = (from, to, limit) => {
      let forwarded = 0;
      from.on("data", (bytes) => {
        if (ended) return;
        to.write(bytes.subarray(0, limit - forwarded));
        forwarded += bytes.length;
        if (forwarded >= limit) end();
      });
      from.on("end", () => ended || to.end());
      from.on("error", cut);
      from.on("close", () => ended || cut());
      sockets.add(from);
    };
    forward(client, upstream, up);
    forward(upstream, client, down);
  }).listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const cutAll = () => sockets.forEach((socket) => socket.destroy());
  const connections = () => [...sockets].filter((socket) => !socket.destroyed).length / 2;
  /** Keeps open connections open, but forwards nothing more on them. */
  const muteAll = () => mutes.forEach((mute) => mute());
  const stop = () => (proxy.close(), cutAll());
  stops.add(stop);
  return { url: `http://127.0.0.1:${proxy.address().port}`, connections, cutAll, muteAll, stop };
}
