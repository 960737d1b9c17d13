// The lanes of the benchmark: each commits changes of some pages, one call after the other, and says how long each took.

import { createSandbox } from '../vmsync/vmsync.js';

const REGION_BYTES = 16 << 20;

/** vmsync: 8 bytes in each of some random pages of a region of 16 MiB, then a sync of the whole region. */
async function vmsyncLane(storage) {
  const sandbox = await createSandbox({ store: `bench-${storage}`, storage });
  await sandbox.mapObject('fill');
  const guest = await sandbox.instantiate('../guests/fill.wasm');
  await guest.invoke('map', BigInt(REGION_BYTES));
  await guest.invoke('touch_all', 1n);
  await guest.invoke('sync_all');
  await guest.observe();
  const times = [];
  sandbox.addEventListener('sync', ({ detail }) => times.push(detail.ms));
  let seed = 1n;
  const run = async (pages, count, call) => {
    times.length = 0;
    for (let commit = 0; commit < count; commit += 1) {
      seed += 2n;
      await guest.invoke('dirty', pages, seed * 0x9e3779b97f4a7c15n);
      const status = await guest.invoke(call);
      if (status !== 0) throw new Error(`${call}: ${status}`);
    }
    await guest.read(0, 1);
    return [...times];
  };
  return { commits: (pages, count) => run(pages, count, 'sync_all'), relaxed: (count) => run(1, count, 'sync_async') };
}

/** A lane in a worker of its own. */
async function workerLane(script) {
  const worker = new Worker(script, { type: 'module' });
  const ask = (message) =>
    new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data.result));
      worker.onerror = ({ message: words }) => reject(new Error(words ?? `${script} could not be loaded`));
      worker.postMessage(message);
    });
  await ask({ open: true });
  return { commits: (pages, count) => ask({ pages, count }) };
}

const makers = {
  raw: () => workerLane('raw.js'),
  vmsync: () => vmsyncLane('opfs'),
  'vmsync, IndexedDB': () => vmsyncLane('idb'),
  sqlite: () => workerLane('sqlite.js'),
  pglite: () => workerLane('pglite.js'),
};

/** Opens every lane, then runs them in turns: `[lane][pages]` is a list of milliseconds. */
window.runLanes = async ({ rounds, pages, count }) => {
  const lanes = {};
  for (const [name, make] of Object.entries(makers)) lanes[name] = await make();
  const times = {};
  for (let round = 0; round <= rounds; round += 1) {
    for (const [name, lane] of Object.entries(lanes)) {
      for (const number of pages) {
        const found = await lane.commits(number, count);
        // The first round warms up.
        if (round > 0) ((times[name] ??= {})[number] ??= []).push(...found);
      }
    }
  }
  const relaxed = await lanes.vmsync.relaxed(rounds * count);
  return { times, relaxed };
};

window.runKernels = (rounds) => {
  const worker = new Worker('kernels.js', { type: 'module' });
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data.result));
    worker.postMessage({ rounds });
  });
};

document.body.dataset.ready = 'yes';
