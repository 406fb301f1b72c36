// Six tabs of one browser that follow the same, in Node. Lesson 13 runs it with the URL of a server
// and a copy of that server's /longpoll.js.
//
// Node has no tabs, so what a browser gives the tabs of one site is put up here: a document, and
// Web Locks, one holder at a time and the others in line. (BroadcastChannel Node has.) Nothing of
// the module is changed: each of these readers is what a tab has.

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
globalThis.crypto ??= webcrypto; // Node 18 keeps it behind a flag.
Object.defineProperty(globalThis, "navigator", { value: { locks } });

const { follow } = await import(pathToFileURL(module));

async function tab(number) {
  const got = [];
  let asks = false;
  let asked = false;
  const onState = (state) => (asks ||= state.here && state.is === "asking" && state.wait > 0);
  for await (const { data } of follow("/topics/news", { base: server, onState })) {
    got.push(data);
    // Which tab asks shows when the first event comes; the lesson publishes it when a poll is held.
    if (data === "one") asked = asks;
    if (data === "end" || (data === "close" && asked)) break;
  }
  console.log(`tab ${number}${asked ? ", which asked" : ""}: ${got.join(" ")}`);
}

await Promise.all([1, 2, 3, 4, 5, 6].map(tab));
