// The browser that the tests share: Chromium as CHROMIUM names it, driven by what WEB_TOOLS holds.

import { createRequire } from "node:module";

export const require = createRequire(`${process.env.WEB_TOOLS}/`);

export function launch() {
  // As root, as in a container, Chromium has no sandbox; only pages of these tests are opened.
  const args = process.getuid() === 0 ? ["--no-sandbox"] : [];
  const executablePath = process.env.CHROMIUM;
  if (!executablePath) throw new Error("CHROMIUM has to name the browser");
  return require("playwright-core").chromium.launch({ executablePath, args });
}
