// The demo: one store, one guest at a time, and what its memory does.

import { createSandbox, importStore, resultName, Sync } from './vmsync/vmsync.js';
import { OwnModule, whenChosen } from './own.js';
import { Picture } from './picture.js';
import { doodle, hash, Surface } from './surface.js';
import { Timeline } from './timeline.js';

const STORE = 'vmsync-demo';
const STEP_MS = 60;
const AUTO_SYNC_MS = 1000;
const KINDS = { [Sync.SYNC]: 'SYNC', [Sync.ASYNC]: 'ASYNC', [Sync.INVALIDATE]: 'INVALIDATE' };

const $ = (id) => document.getElementById(id);
const picture = new Picture($('picture'));
const timeline = new Timeline($('timeline'));

let sandbox;
let guest;
let kind = 'sketch';
let ownBytes;
let pixels;
let playing = true;
let refreshing = false;
let again = false;
let lastStep = 0;
let lastAuto = 0;
/** Hashes of what may be found after a crash: the last state that was reported durable, and what was handed over since. */
let possible = [];
const latencies = [];
let pagesDurable = 0;
let crashes = 0;
let intact = 0;

const surface = new Surface($('canvas'), $('colours'), {
  draw: (...line) => {
    if (!pixels) return;
    guest.invoke('draw', ...line).catch(report);
    refresh();
  },
  lifted: () => kind === 'sketch' && $('auto').checked && call(Sync.SYNC),
});
const own = new OwnModule(async (bytes) => {
  if ($('crash').disabled) return;
  ownBytes = bytes;
  await choose('own');
});

// ---- the store and the guest -----------------------------------------------------------------------------------------

async function openStore() {
  try {
    sandbox = await createSandbox({ store: STORE });
    if (sandbox.storage === 'idb') report({ message: 'No private file system in this window: IndexedDB keeps the store.' });
  } catch (error) {
    if (error.code !== 'denied') throw error;
    sandbox = await createSandbox({ storage: 'memory' });
    report({ message: 'This window may not store anything: everything works, and nothing survives the window.' });
  }
  sandbox.addEventListener('syncstart', ({ detail }) => picture.pulse('writing', detail.dirty));
  sandbox.addEventListener('sync', ({ detail }) => {
    picture.pulse('evicted', detail.evicted);
    showSync(detail);
  });
  sandbox.addEventListener('flushed', () => {
    possible = possible.slice(-1);
  });
  sandbox.addEventListener('flushfailed', ({ detail }) => report({ message: detail.error }));
}

let choosing = Promise.resolve();

/** Makes a guest of `next`, when the one that was chosen before is there. */
function choose(next) {
  choosing = choosing.then(() => change(next));
  return choosing;
}

async function change(next) {
  document.querySelector('main').ariaBusy = 'true';
  const previous = guest;
  guest = pixels = undefined;
  await previous?.close().catch(() => {});
  kind = next;
  document.querySelectorAll('[data-guest]').forEach((tab) => {
    tab.setAttribute('aria-selected', String(tab.dataset.guest === kind));
  });
  $('board').hidden = kind === 'own';
  $('own').hidden = kind !== 'own';
  $('play').hidden = kind !== 'life';
  $('auto-label').textContent = kind === 'life' ? 'Sync every second' : 'Sync after each stroke';
  surface.focusable = kind !== 'own';
  try {
    await loadGuest();
  } catch (error) {
    own.clear();
    report(error);
  }
  document.querySelector('main').ariaBusy = 'false';
  refresh();
}

async function loadGuest() {
  if (kind === 'own') {
    own.clear();
    if (!ownBytes) return;
    for (const name of own.objects()) await sandbox.mapObject(name, { sizeMax: 256 << 20 });
    guest = await sandbox.instantiate(ownBytes.slice(0));
    await guest.observe();
    own.show(guest, refresh);
    return;
  }
  await sandbox.mapObject(kind);
  guest = await sandbox.instantiate(`guests/${kind}.wasm`);
  await guest.observe();
  const status = await guest.invoke('open');
  if (status !== 0) throw new Error(`the guest could not map its memory: ${resultName(-status)}`);
  const [address, width, height] = await Promise.all(['pixels', 'width', 'height'].map((name) => guest.invoke(name)));
  pixels = { address, width, height, bytes: width * height * 4 };
  surface.resize(width, height);
  // Asked for before anything can be drawn: the guest as it was found.
  possible = [hash(await readPixels())];
  const isNew = (await guest.read(address - 4096, 4)).every((byte) => byte === 0);
  if (isNew && kind === 'sketch') doodle((...line) => guest.invoke('draw', ...line), width, height);
}

const readPixels = () => guest.read(pixels.address, pixels.bytes);

// ---- calls -----------------------------------------------------------------------------------------------------------

let calling = Promise.resolve();

/** `vm_msync` between two calls of the guest; not while it crashes. */
function call(flags) {
  if (guest && !$('sync').disabled) calling = Promise.all([calling, syncGuest(flags)]);
  return calling;
}

async function syncGuest(flags) {
  try {
    // Sent together, so that nothing comes between what is read and what is synced.
    const [state] = await Promise.all([pixels && readPixels(), guest.sync({ flags })]);
    if (pixels && flags === Sync.SYNC) possible = [hash(state)];
    if (pixels && flags === Sync.ASYNC) possible.push(hash(state));
  } catch (error) {
    report(error);
  }
  refresh();
}

async function crash() {
  if (!guest) return;
  const doomed = sandbox;
  doomed.addEventListener('syncstart', () => doomed.terminate(), { once: true });
  // Sent together, as in `syncGuest`.
  const [before] = await Promise.allSettled([pixels && readPixels(), guest.sync()]);
  const allowed = [...possible];
  doomed.terminate();
  guest = pixels = undefined;
  crashes += 1;
  timeline.add({ kind: 'crash', ms: 0 });
  veil('Crashed in mid-sync', 'The worker is gone, and its memory with it.');
  await new Promise((resolve) => setTimeout(resolve, 900));
  const start = performance.now();
  await openStore();
  await choose(kind);
  const ms = performance.now() - start;
  const text = pixels ? verdict(possible[0], before.value, allowed) : 'The store opened again.';
  $('crashes').textContent = crashes;
  $('intact').textContent = intact;
  veil(`Recovered in ${format(ms)}`, text);
  await new Promise((resolve) => setTimeout(resolve, 1600));
  veil();
}

/**
 * Compares what was found, before the guest went on, with the state that was being synced and with those that may have
 * been durable before.
 */
function verdict(found, before, allowed) {
  const inFlight = before && hash(before);
  if (found !== inFlight && !allowed.includes(found)) {
    return 'This is not a state that was ever synced. Please report it: that must not happen.';
  }
  intact += 1;
  if (found !== inFlight) return 'The sync had not reached the disk: back at the one before, nothing torn.';
  if (allowed.includes(found)) return 'There was nothing left to sync: all of it is here.';
  return 'The sync had reached the disk: every page of it is here.';
}

// ---- what is shown ---------------------------------------------------------------------------------------------------

async function refresh() {
  if (refreshing) {
    again = true;
    return;
  }
  refreshing = true;
  do {
    again = false;
    const current = guest;
    if (!current) {
      showPages({ regions: [], memoryPages: 0 });
      break;
    }
    try {
      const [state, bytes] = await Promise.all([current.picture(), pixels && readPixels()]);
      if (current !== guest) continue;
      showPages(state);
      if (bytes) surface.show(bytes);
    } catch (error) {
      if (current === guest && error.code !== 'terminated') report(error);
    }
  } while (again);
  refreshing = false;
}

function showPages({ regions, memoryPages }) {
  const { pages, clean, dirty } = picture.show(regions);
  $('count-clean').textContent = clean;
  $('count-dirty').textContent = dirty;
  $('memory-size').textContent = guest
    ? `${pages} pages mapped, of ${(memoryPages / 16).toFixed(0)} MiB`
    : 'no guest yet';
  $('picture').ariaLabel = `${pages} pages: ${clean} durable, ${dirty} dirty`;
}

function showSync({ flags, pages, evicted, ms, result, error }) {
  const name = KINDS[flags] ?? `flags ${flags}`;
  const failed = result !== 0;
  timeline.add({ kind: name, ms, failed });
  if (!failed && name === 'SYNC' && pages > 0) latencies.push(ms);
  if (!failed && name !== 'INVALIDATE') pagesDurable += pages;
  const line = document.createElement('li');
  line.className = failed ? 'failed' : '';
  line.dataset.kind = name;
  const count = name === 'INVALIDATE' ? evicted.length : pages;
  const words = [name, `${count} ${count === 1 ? 'page' : 'pages'}`, `${count * 4} KiB`, format(ms)];
  line.textContent = failed ? `${name}  ${error}` : words.join('  ');
  $('log').prepend(line);
  while ($('log').children.length > 3) $('log').lastChild.remove();
  const sorted = latencies.toSorted((a, b) => a - b);
  if (sorted.length > 0) $('median').textContent = format(sorted[sorted.length >> 1]);
  $('bytes').textContent = pagesDurable.toLocaleString('en');
  $('summary').textContent = 'latency, logarithmic';
}

const format = (ms) => (ms < 1 ? `${ms.toFixed(2)} ms` : ms < 100 ? `${ms.toFixed(1)} ms` : `${ms.toFixed(0)} ms`);

function report(error) {
  $('status').textContent = error.message;
}

function veil(title, text) {
  $('veil').hidden = !title;
  $('veil-title').textContent = title ?? '';
  $('veil-text').textContent = text ?? '';
}

const tab = (name) => document.querySelector(`[data-guest="${name}"]`);

function setEnabled(on) {
  for (const control of document.querySelectorAll('.actions button, [data-guest], #export, #import')) control.disabled = !on;
}

/**
 * Does `work`, which opens the store: it begins when everything else has ended, and ends before anything else begins. So what
 * a crash found is compared with what was there.
 */
async function alone(work) {
  setEnabled(false);
  await Promise.all([choosing, calling]);
  try {
    await work();
    setEnabled(true);
  } catch (error) {
    const elsewhere = 'It is open in another tab: close that one, and load this page again.';
    veil('The store cannot be opened', error.code === 'busy' ? elsewhere : error.message);
    report(error);
  }
}

// ---- controls --------------------------------------------------------------------------------------------------------

function togglePlay() {
  playing = !playing;
  $('play').querySelector('span').textContent = playing ? 'Pause' : 'Play';
}

const clear = () => {
  if (pixels) guest.invoke('clear').then(refresh, report);
};

function listen() {
  $('sync').addEventListener('click', () => call(Sync.SYNC));
  $('async').addEventListener('click', () => call(Sync.ASYNC));
  $('invalidate').addEventListener('click', () => call(Sync.INVALIDATE));
  $('crash').addEventListener('click', () => alone(crash));
  $('clear').addEventListener('click', clear);
  $('play').addEventListener('click', togglePlay);
  document.querySelectorAll('[data-guest]').forEach((tab) => {
    tab.addEventListener('click', () => choose(tab.dataset.guest));
  });
  $('export').addEventListener('click', () => exportStore().catch(report));
  $('import').addEventListener('click', () => $('import-file').click());
  whenChosen($('import-file'), (file) => alone(() => importFrom(file)));
  addEventListener('keydown', (event) => {
    if (event.target.matches('input:not([type])') || event.ctrlKey || event.metaKey || event.altKey) return;
    // Each key is a button's, so what is disabled has no key.
    const tabs = { 1: 'sketch', 2: 'life', 3: 'own' };
    const buttons = { s: 'sync', a: 'async', i: 'invalidate', x: 'crash', c: 'clear', p: kind === 'life' && 'play' };
    if (tabs[event.key]) tab(tabs[event.key]).click();
    else $(buttons[event.key.toLowerCase()])?.click();
  });
}

async function exportStore() {
  const exported = await sandbox.export();
  const link = document.createElement('a');
  link.href = URL.createObjectURL(exported);
  link.download = `${STORE}.tar`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  report({ message: 'Exported: unpack the tar file into a folder, and the native host opens it.' });
}

async function importFrom(file) {
  if (sandbox.storage !== 'opfs') {
    report({ message: 'Only a store of files can be imported: this one is in memory or in IndexedDB.' });
    return;
  }
  let outcome = { message: `Imported ${file.name}.` };
  guest = pixels = undefined;
  try {
    await sandbox.close();
    await importStore(STORE, file);
  } catch (error) {
    outcome = error;
  }
  await openStore();
  await choose(kind);
  report(outcome);
}

function tick(now) {
  requestAnimationFrame(tick);
  if (kind !== 'life' || !pixels || !playing || document.hidden || now - lastStep < STEP_MS || refreshing) return;
  lastStep = now;
  guest.invoke('step').catch(() => {});
  if ($('auto').checked && now - lastAuto > AUTO_SYNC_MS) {
    lastAuto = now;
    call(Sync.SYNC);
  }
  refresh();
}

listen();
await alone(async () => {
  await openStore();
  await choose('sketch');
  if (!guest) return;
  // A change of the guest's own, so that there is something to make durable.
  await guest.invoke('draw', -99, -99, -99, -99, 1, 0);
  await syncGuest(Sync.SYNC);
  $('first').textContent = format(performance.now());
  if ($('status').textContent.startsWith('Opening')) {
    $('status').textContent = 'Everything runs in this page: nothing is sent anywhere.';
  }
});
requestAnimationFrame(tick);
document.body.dataset.ready = 'yes';
