// What the tests of longpoll.js and the console share: the real program on a port of its own, a
// proxy that behaves like a bad network, and waiting for what happens instead of for a while.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { connect, createServer } from "node:net";
import { createInterface } from "node:readline";

/** Milliseconds after which a wait, and a test, are stuck however slow the machine is. */
export const HANG = 120_000;
export const TEST = 280_000;

/** Asks until the answer is true, and gives it. */
export async function until(what, ask) {
  const stuck = Date.now() + HANG;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > stuck) throw new Error(`never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Servers and proxies that run, by what stops them. */
const running = new Set();
/** Stops whatever a failed test has left. */
export const stopAll = () => running.forEach((stop) => stop());
process.on("exit", stopAll);

/** The program. It can be stopped and started again on the same port. */
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
    const own = ["--listen", `${hostname}:${port || 0}`, "--wait-jitter", "0", "--log", "error"];
    const program = process.env.LONGPOLL;
    if (!program) throw new Error("LONGPOLL has to name the program under test");
    const child = spawn(program, [...own, ...this.#flags], { stdio: ["ignore", "pipe", "inherit"] });
    this.#child = child;
    running.add((this.kill = () => child.kill("SIGKILL")));
    const [line] = await once(createInterface(child.stdout), "line");
    this.url = line.replace("listening on ", "");
  }

  /** Ends it with a signal. */
  async stop(signal = "SIGKILL") {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill(signal);
    await ended;
  }

  /** Publishes texts, one by one. */
  async publish(topic, ...texts) {
    for (const body of texts) {
      const answer = await fetch(`${this.url}/topics/${topic}`, { method: "POST", body });
      if (!answer.ok) throw new Error(await answer.text());
    }
  }

  /** Publishes JSON values together. */
  async publishBatch(topic, values) {
    const headers = { "Content-Type": "application/x-ndjson" };
    const answer = await fetch(`${this.url}/topics/${topic}`, { method: "POST", headers, body: values.join("\n") });
    if (!answer.ok) throw new Error(await answer.text());
  }

  /** A metric's value, by its name after `longpoll_`. */
  async metric(name) {
    const page = await (await fetch(`${this.url}/metrics`)).text();
    return Number(page.match(new RegExp(`^longpoll_${name.replace(/[{}]/g, "\\$&")} (.*)$`, "m"))[1]);
  }

  untilHeld(polls) {
    return until(`${polls} polls held`, async () => (await this.metric("polls_held")) === polls);
  }
}

/** A server that answers as the test says. */
export async function fake(answer) {
  const server = createHttpServer(answer).listen(0, "127.0.0.1");
  await once(server, "listening");
  const stop = () => (server.close(), server.closeAllConnections());
  running.add(stop);
  return { url: `http://127.0.0.1:${server.address().port}`, stop };
}

/**
 * A network in front of a server. `judge` is asked for each connection and says what becomes of it:
 * after how many bytes to the server or from it the connection is cut, and whether it only goes
 * silent instead, for how long.
 */
export async function network(server, judge) {
  const sockets = new Set();
  const silence = new Set();
  const proxy = createServer((client) => {
    const { up = Infinity, down = Infinity, silent = 0 } = judge();
    const { port, hostname } = new URL(server.url);
    const upstream = connect(port, hostname);
    const cut = () => (client.destroy(), upstream.destroy());
    let ended = false;
    silence.add(() => (ended = true));
    const end = () => {
      if (ended) return;
      ended = true;
      if (silent) setTimeout(cut, silent).unref();
      else cut();
    };
    const carry = (from, to, most) => {
      let carried = 0;
      from.on("data", (bytes) => {
        if (ended) return;
        to.write(bytes.subarray(0, most - carried));
        carried += bytes.length;
        if (carried >= most) end();
      });
      from.on("end", () => ended || to.end());
      from.on("error", cut);
      from.on("close", () => ended || cut());
      sockets.add(from);
    };
    carry(client, upstream, up);
    carry(upstream, client, down);
  }).listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const cut = () => sockets.forEach((socket) => socket.destroy());
  const connections = () => [...sockets].filter((socket) => !socket.destroyed).length / 2;
  /** What is open stays so, and nothing comes through it any more. */
  const mute = () => silence.forEach((silent) => silent());
  const stop = () => (proxy.close(), cut());
  running.add(stop);
  return { url: `http://127.0.0.1:${proxy.address().port}`, connections, cut, mute, stop };
}
