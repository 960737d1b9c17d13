// vmsync in a page: guests run in a dedicated worker, their memory is durable in the page's own file system.
//
//   import { createSandbox } from './vmsync.js';
//   const sandbox = await createSandbox({ store: 'my-app' });
//   await sandbox.mapObject('counter');
//   const guest = await sandbox.instantiate('counter.wasm');
//   console.log(await guest.invoke('add'));            // durable when it returns

import { dispatch, exportedFiles, Sandbox } from './guest.js';
import { Sync, unpackError, VmsyncError } from './protocol.js';

export { Guest, Sandbox } from './guest.js';
export { resultName, Sync, VmsyncError } from './protocol.js';

/** Opens a store, made where there is none, in a worker of its own. */
export async function createSandbox({ store = 'vmsync', storage = 'auto', inlineCards } = {}) {
  const channel = new Channel();
  try {
    const opened = await channel.send('open', await compiledCore(), { store, storage, inlineCards });
    const sandbox = new Sandbox(channel.send, channel.stop, opened.storage);
    channel.onevent = (event) => dispatch(sandbox, event);
    return sandbox;
  } catch (error) {
    channel.stop(error);
    throw error;
  }
}

/** Makes a store of an exported one, in place of what it held: all of it, or none. It must not be open. */
export async function importStore(store, blob) {
  const files = await exportedFiles(blob);
  await once('importFiles', store, files);
}

/** Removes a store. It must not be open. */
export const removeStore = (store) => once('remove', store);

/** The host's code, compiled for every worker of this page while the first one is starting. */
let core;

function compiledCore() {
  core ??= compile(new URL('./vmsync_web_bg.wasm', import.meta.url));
  // A failed attempt is not kept.
  core.catch(() => (core = undefined));
  return core;
}

async function compile(url) {
  const response = await fetch(url);
  if (!response.ok) throw new VmsyncError('not-found', `${url}: ${response.status} ${response.statusText}`);
  // An engine compiles while it loads, where the server says what it sends.
  return response.headers.get('content-type') === 'application/wasm'
    ? WebAssembly.compileStreaming(response)
    : WebAssembly.compile(await response.arrayBuffer());
}

async function once(action, ...args) {
  const channel = new Channel();
  try {
    return await channel.send(action, await compiledCore(), ...args);
  } finally {
    channel.stop(new VmsyncError('closed', 'done'));
  }
}

/** A worker, and what it still owes an answer for. */
class Channel {
  #worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'vmsync' });
  #waiting = new Map();
  #next = 1;
  #stopped;
  onevent = () => {};

  constructor() {
    this.#worker.onmessage = ({ data }) => {
      if (data.event) return this.onevent(data.event);
      const { resolve, reject } = this.#waiting.get(data.id) ?? {};
      this.#waiting.delete(data.id);
      if (data.error) reject?.(unpackError(data.error));
      else resolve?.(data.result);
    };
    this.#worker.onerror = (event) => {
      event.preventDefault?.();
      this.stop(new VmsyncError('internal', `the worker failed: ${event.message ?? 'it could not be loaded'}`));
    };
  }

  send = (action, ...args) =>
    new Promise((resolve, reject) => {
      if (this.#stopped) return reject(this.#stopped);
      const id = this.#next++;
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, action, args });
    });

  stop = (error) => {
    this.#stopped ??= error;
    this.#worker.terminate();
    for (const { reject } of this.#waiting.values()) reject(this.#stopped);
    this.#waiting.clear();
  };
}
