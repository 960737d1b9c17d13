// The dedicated worker of a sandbox: opens the store, then runs what the page asks for, in order.

import init, * as core from './vmsync_web.js';
import { Engine } from './engine.js';
import { packError, VmsyncError } from './protocol.js';

let engine;

const load = (compiled) => init({ module_or_path: compiled });

const actions = {
  async open(compiled, { storage, store, inlineCards }) {
    await load(compiled);
    const host = await openHost(storage, store);
    const answersLater = host.storage === 'idb';
    engine = new Engine(core, host.host, (event) => postMessage({ event }), { inlineCards, answersLater });
    return { storage: host.storage };
  },
  async importFiles(compiled, store, files) {
    await load(compiled);
    await core.Host.importFiles(store, files);
  },
  async remove(compiled, store) {
    await load(compiled);
    await core.Host.remove(store);
  },
};

async function openHost(storage, store) {
  switch (storage) {
    case 'memory':
      return { host: core.Host.openMemory(), storage };
    case 'opfs':
      return { host: await core.Host.openOpfs(store), storage };
    case 'idb':
      await lock(`vmsync-idb:${store}`, store);
      return { host: await core.Host.openIdb(store), storage };
    case 'auto':
      try {
        return await openHost('opfs', store);
      } catch (error) {
        if (error.code !== 'denied') throw error;
        return openHost('idb', store);
      }
    default:
      throw new VmsyncError('invalid', `there is no storage "${storage}": use "auto", "opfs", "idb" or "memory"`);
  }
}

/** Keeps other tabs out until this worker ends. One that was just terminated lets go a moment later. */
async function lock(name, store) {
  if (!navigator.locks) {
    throw new VmsyncError('denied', 'this page has no locks to keep other tabs out: load it over https, or from this machine');
  }
  for (let tries = 1; ; tries += 1) {
    const got = await new Promise((resolve, reject) => {
      const hold = (lock) => {
        resolve(Boolean(lock));
        return lock ? new Promise(() => {}) : undefined;
      };
      navigator.locks.request(name, { ifAvailable: true }, hold).catch(reject);
    });
    if (got) return;
    if (tries === 20) {
      throw new VmsyncError('busy', `the store "${store}" is open in another tab: close it there, or choose another name`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

let queue = Promise.resolve();

onmessage = ({ data }) => {
  queue = queue.then(() => run(data));
};

async function run({ id, action, args }) {
  try {
    const result = action in actions ? await actions[action](...args) : await engine[action](...args);
    // Bytes that were copied out of a guest's memory need not be copied again.
    postMessage({ id, result }, result instanceof Uint8Array ? [result.buffer] : []);
  } catch (error) {
    postMessage({ id, error: packError(error) });
  }
}
