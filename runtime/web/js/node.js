// vmsync in Node: the same API, with a store in a folder that the native host opens too.

import { readFile } from 'node:fs/promises';

import init, * as core from './vmsync_web.js';
import { Engine } from './engine.js';
import { dispatch, Sandbox } from './guest.js';
import { NodeFolder } from './node-folder.js';
import { packError, unpackError, VmsyncError } from './protocol.js';

export { Guest, Sandbox } from './guest.js';
export { resultName, Sync, VmsyncError } from './protocol.js';

let ready;

/** Opens the store in the folder `store`, made where there is none. */
export async function createSandbox({ store = 'vmsync', storage = 'folder', inlineCards } = {}) {
  ready ??= readFile(new URL('./vmsync_web_bg.wasm', import.meta.url)).then((bytes) =>
    init({ module_or_path: bytes }),
  );
  await ready;
  let sandbox;
  let stopped;
  const engine = await tidy(() => {
    if (storage !== 'folder' && storage !== 'memory') {
      throw new VmsyncError('invalid', `there is no storage "${storage}" in Node: use "folder" or "memory"`);
    }
    const host = storage === 'memory' ? core.Host.openMemory() : core.Host.openFolder(new NodeFolder(store));
    return new Engine(core, host, (event) => dispatch(sandbox, event), { inlineCards });
  });
  const send = async (action, ...args) => {
    if (stopped) throw stopped;
    return tidy(() => engine[action](...args));
  };
  const stop = (error) => {
    if (!stopped && error.code === 'terminated') engine.end();
    stopped ??= error;
  };
  sandbox = new Sandbox(send, stop, storage);
  return sandbox;
}

/** Runs `action`; its errors are of one kind, whatever threw them. */
async function tidy(action) {
  try {
    return await action();
  } catch (error) {
    throw unpackError(packError(error));
  }
}
