// A worker that runs the conformance suite for pagers.
//
// The suite for IndexedDB waits in the middle of Rust code: its import `vmsyncPause` is made one that suspends.

import init, { checkOpfs } from '../conformance/vmsync_pager_conformance_web.js';

const pause = () => new Promise((resolve) => setTimeout(resolve));
const instantiate = WebAssembly.instantiate;

WebAssembly.instantiate = (bytes, imports) => {
  for (const functions of Object.values(imports)) {
    const name = Object.keys(functions).find((name) => /vmsyncPause/.test(name));
    if (name) functions[name] = new WebAssembly.Suspending(pause);
  }
  return instantiate(bytes, imports);
};

onmessage = async ({ data: { suite, seed } }) => {
  try {
    const url = new URL('../conformance/vmsync_pager_conformance_web_bg.wasm', import.meta.url);
    const exports = await init({ module_or_path: await (await fetch(url)).arrayBuffer() });
    if (suite === 'opfs') await checkOpfs('conformance', seed);
    else await WebAssembly.promising(exports.checkIdb)(seed);
    postMessage({ ok: true });
  } catch (error) {
    postMessage({ error: String(error) });
  }
};
