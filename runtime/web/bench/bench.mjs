// `cargo xtask bench web`: strict commits through the origin private file system against the floor, SQLite and PGlite,
// all in one run of Chromium; what instrumentation costs there; how large and how quick a page with vmsync is.

import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';

import { chromium } from 'playwright-core';

const PAGES = [1, 10, 100];
const ROUNDS = Number(process.env.ROUNDS ?? 6);
const COUNT = 10;
const KERNEL_ROUNDS = 9;
const LOADS = 3;
const site = process.env.VMSYNC_SITE_URL;
const ARGUMENTS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1];
const geomean = (list) => Math.exp(list.reduce((sum, value) => sum + Math.log(value), 0) / list.length);
const round = (value, digits = 3) => Number(value.toFixed(digits));
const say = (words) => process.stderr.write(`    ${words}\n`);

async function inBrowser(work) {
  const profile = await mkdtemp(join(tmpdir(), 'vmsync-bench-'));
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.VMSYNC_CHROMIUM, headless: true, args: ARGUMENTS,
  });
  try {
    return await work(browser);
  } finally {
    await browser.close();
    await rm(profile, { recursive: true, force: true });
  }
}

async function compressedBytes() {
  const folder = join(process.env.VMSYNC_SITE, 'vmsync');
  const served = ['vmsync.js', 'guest.js', 'protocol.js', 'tar.js', 'worker.js', 'engine.js', 'imports.js', 'vmsync_web.js',
    'vmsync_web_bg.wasm'];
  let total = 0;
  for (const name of (await readdir(folder)).filter((name) => served.includes(name))) {
    const bytes = await readFile(join(folder, name));
    total += brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }).length;
  }
  return total;
}

async function measure() {
  say('commits, in turns');
  const { times, relaxed, kernels } = await inBrowser(async (browser) => {
    const page = await browser.newPage();
    page.on('console', (message) => message.type() === 'error' && say(message.text()));
    await page.goto(`${site}bench/`);
    await page.waitForFunction(() => document.body?.dataset.ready);
    const lanes = await page.evaluate((options) => runLanes(options), { rounds: ROUNDS, pages: PAGES, count: COUNT });
    say('kernels');
    return { ...lanes, kernels: await page.evaluate((rounds) => runKernels(rounds), KERNEL_ROUNDS) };
  });
  say('first sync after a load');
  const loads = [];
  for (let load = 0; load < LOADS; load += 1) {
    loads.push(await inBrowser(async (browser) => {
      const page = await browser.newPage();
      await page.goto(`${site}bench/first.html`);
      return (await page.waitForFunction(() => window.firstSync)).jsonValue();
    }));
  }
  const commits = {};
  for (const [lane, byPages] of Object.entries(times)) {
    commits[lane] = Object.fromEntries(Object.entries(byPages).map(([pages, list]) => [pages, round(median(list))]));
  }
  const [one, raw] = [commits.vmsync[1], commits.raw[1]];
  return {
    summary: {
      opfs1_vs_raw: round(one / raw),
      opfs1_speedup_sqlite: round(commits.sqlite[1] / one, 2),
      opfs1_speedup_pglite: round(commits.pglite[1] / one, 2),
      relaxed_ms: round(median(relaxed)),
      guest_runtime_geomean: round(geomean(Object.values(kernels))),
      page_kb_compressed: round((await compressedBytes()) / 1000, 1),
      first_sync_ms: round(median(loads), 0),
    },
    commits_ms: commits,
    kernels: Object.fromEntries(Object.entries(kernels).map(([name, ratio]) => [name, round(ratio, 2)])),
  };
}

function print({ summary, commits_ms: commits, kernels }) {
  console.log('strict commit, median ms      1 page   10 pages  100 pages');
  for (const [lane, byPages] of Object.entries(commits)) {
    console.log(`  ${lane.padEnd(24)}${PAGES.map((pages) => String(byPages[pages]).padStart(10)).join(' ')}`);
  }
  console.log('instrumented / plain run time');
  for (const [name, ratio] of Object.entries(kernels)) console.log(`  ${name.padEnd(24)}${String(ratio).padStart(10)}`);
  console.log('summary');
  for (const [name, value] of Object.entries(summary)) console.log(`  ${name.padEnd(24)}${String(value).padStart(10)}`);
}

const found = await measure();
if (process.argv.includes('--json')) console.log(JSON.stringify(found));
else print(found);
