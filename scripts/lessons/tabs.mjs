// Six tabs of one browser that follow the same topic, in Node. Lesson 13 runs this with the URL of a
// server and a copy of that server's /longpoll.js.
//
// Node has no tabs, so this file provides what a browser gives the tabs of one site: a document, and
// Web Locks, with one holder at a time and the others queued. (Node has BroadcastChannel.) The module
// is unchanged: each reader here is what one tab has.

import { webcrypto } from "node:crypto";
import { pathToFileURL } from "node:url";

const [server, module] = process.argv.slice(2);

let last = Promise.resolve();
const locks = {
  request(_name, { signal }, work) {
    const turn = last.then(() => (signal?.throwIfAborted(), work()));
    last = turn.catch(() => {});
    return turn;
  },
};
globalThis.document = {};
globalThis.crypto ??= webcrypto; // Node 18 has it only behind a flag.
Object.defineProperty(globalThis, "navigator", { value: { locks } });

const { follow } = await import(pathToFileURL(module));

async function tab(number) {
  const got = [];
  let polls = false;
  let polled = false;
  const onState = (state) => (polls ||= state.here && state.is === "asking" && state.wait > 0);
  for await (const { data } of follow("/topics/news", { base: server, onState })) {
    got.push(data);
    // The first event tells which tab polls, because the lesson publishes it while a poll is held.
    if (data === "one") polled = polls;
    if (data === "end" || (data === "close" && polled)) break;
  }
  console.log(`tab ${number}${polled ? ", which polled" : ""}: ${got.join(" ")}`);
}

await Promise.all([1, 2, 3, 4, 5, 6].map(tab));
