// Chromium for tests: a fresh profile each time, pages that collect what their console says.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { chromium } from 'playwright-core';

export const site = process.env.VMSYNC_SITE_URL;

const ARGUMENTS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

/** A browser with a profile of its own, closed and forgotten when the test ends. */
export async function openBrowser(context, options = {}) {
  const profile = await mkdtemp(join(tmpdir(), 'vmsync-chromium-'));
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.VMSYNC_CHROMIUM,
    headless: true,
    args: ARGUMENTS,
    ...options,
  });
  context.after(async () => {
    await browser.close();
    await rm(profile, { recursive: true, force: true });
  });
  return browser;
}

/** A page with vmsync in `window.vmsync`; `errors` fills with what the console should not say. */
export async function openPage(browser, path = 'test/') {
  const page = await browser.newPage();
  page.errors = [];
  page.lines = [];
  page.on('console', (message) => {
    page.lines.push(message.text());
    if (message.type() === 'error') page.errors.push(message.text());
  });
  page.on('pageerror', (error) => page.errors.push(String(error)));
  await page.goto(site + path);
  return page;
}

/** Runs the test's random part with the seed of `SEED`, or a fresh one, and says which. */
export function randomness(name) {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
  console.log(`${name}: SEED=${seed}`);
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
