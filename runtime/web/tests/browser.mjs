// Chromium for tests: a fresh profile each time, pages that collect what their console says, and a guest to work with.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { chromium } from 'playwright-core';

export const site = process.env.VMSYNC_SITE_URL;

const ARGUMENTS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

/** Takes the private file system from workers, as a private window of Firefox does. */
export const NO_FILE_SYSTEM = `StorageManager.prototype.getDirectory = () =>
  Promise.reject(new DOMException('not in a private window', 'SecurityError'));\n`;

/** Breaks the private file system, as a browser does that is busy or ends. */
export const BROKEN_FILE_SYSTEM = `StorageManager.prototype.getDirectory = () =>
  Promise.reject(new DOMException('for a transient reason', 'UnknownError'));\n`;

/** Makes a browser of the time before private file systems. */
export const OLD = 'delete StorageManager.prototype.getDirectory;\n';

/** Takes locks from workers, which pages have that were loaded over https. */
export const NO_LOCKS = `Object.defineProperty(navigator, 'locks', { value: undefined });\n`;

/** Fails the transactions of IndexedDB while a page says so (`fail`), as a full disk does; 'late': when it says so no more;
 * 'first': the first alone, and then. */
export const FAILING_TRANSACTIONS = `{
  let failing = false;
  let first;
  const known = new BroadcastChannel('known');
  new BroadcastChannel('fail').onmessage = ({ data }) => {
    failing = data;
    first = undefined;
    known.postMessage(data);
  };
  const { commit } = IDBTransaction.prototype;
  IDBTransaction.prototype.commit = function () {
    if (!failing || (failing === 'first' && first)) return commit.call(this);
    first = this;
    const end = () => {
      if (failing !== 'late' && failing !== 'first') return this.abort();
      // It lives as long as it has requests.
      this.objectStore('objects').get('').onsuccess = end;
    };
    end();
  };
}\n`;

/** Says whether the worker of `page` fails its transactions, and waits until it knows. */
export const fail = (page, on) =>
  page.evaluate((on) => new Promise((resolve) => {
    window.known ??= new BroadcastChannel('known');
    known.onmessage = () => resolve();
    new BroadcastChannel('fail').postMessage(on);
  }), on);

/** Says so when a file of a pool is given a name while another's is not durably gone, and might come back after a power cut. */
export const WATCHED_NAMES = `{
  const { prototype } = FileSystemSyncAccessHandle;
  const { read, write, flush } = prototype;
  const doubtful = new Set();
  const header = (bytes, at) => at === 0 && String.fromCharCode(...bytes.slice(0, 8)) === 'vmsyncP1';
  prototype.read = function (bytes, { at }) {
    const count = read.call(this, bytes, { at });
    if (header(bytes, at) && bytes[8] === 0) doubtful.add(this);
    return count;
  };
  prototype.write = function (bytes, { at }) {
    if (header(bytes, at) && bytes[8] > 0 && doubtful.size > 0) console.error('a name is given too early');
    if (header(bytes, at) && bytes[8] === 0) doubtful.add(this);
    return write.call(this, bytes, { at });
  };
  prototype.flush = function () {
    flush.call(this);
    doubtful.delete(this);
  };
}\n`;

/** Takes JSPI from workers: the engine suspends no guest then. (Chromium has no flag for it any more.) */
export const NO_JSPI = 'delete WebAssembly.Suspending; delete WebAssembly.promising;\n';

/** Lets whatever a worker says arrive late, in order, as on a busy machine: frames come between, and so does what they do. */
export const LATE_REPLIES = `{
  const now = postMessage;
  self.postMessage = (...message) => setTimeout(now, 100, ...message);
}\n`;

/** A browser with a profile of its own, closed and forgotten when the test ends. Its workers run `first` before all else. */
export async function openBrowser(context, first = '') {
  const profile = await mkdtemp(join(tmpdir(), 'vmsync-chromium-'));
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.VMSYNC_CHROMIUM,
    headless: true,
    args: ARGUMENTS,
  });
  context.after(async () => {
    await browser.close();
    // Processes of the browser may write to it for a moment more.
    await rm(profile, { recursive: true, force: true, maxRetries: 10 });
  });
  if (first) {
    await browser.route('**/vmsync/worker.js', async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: first + (await response.text()) });
    });
  }
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

const REGION = 1n << 20n;

/** Opens a store with the guest `fill` in `window.box` and `window.guest`. */
export async function openFill(page, storage = 'opfs') {
  await page.waitForFunction(() => document.body?.dataset.ready);
  await page.evaluate(async (storage) => {
    window.box = await vmsync.createSandbox({ store: 'test', storage });
    await box.mapObject('fill');
  }, storage);
  return instantiateFill(page);
}

/** Makes `window.guest` a new guest of the store in `window.box`. */
export const instantiateFill = (page) =>
  page.evaluate(async (size) => {
    window.guest = await box.instantiate('../guests/fill.wasm');
    const status = await guest.invoke('map', size);
    if (status !== 0) throw new Error(`map: ${status}`);
  }, REGION);

export const checksum = (page) => page.evaluate(() => guest.invoke('checksum'));

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
