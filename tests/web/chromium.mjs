// The browser of the tests: Chromium at CHROMIUM, driven by playwright-core from WEB_TOOLS.

import { createRequire } from "node:module";

export const require = createRequire(`${process.env.WEB_TOOLS}/`);

export function launch() {
  // Chromium has no sandbox for root, as in a container; only pages of these tests are opened.
  const args = process.getuid() === 0 ? ["--no-sandbox"] : [];
  const executablePath = process.env.CHROMIUM;
  if (!executablePath) throw new Error("CHROMIUM is not set: expected the path of the browser");
  return require("playwright-core").chromium.launch({ executablePath, args });
}
