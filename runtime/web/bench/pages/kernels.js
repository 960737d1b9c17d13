// Guest run time: kernels in C, plain and instrumented in turns, a fresh instance each time; the least of each counts.

import init, { prepare } from '../vmsync/vmsync_web.js';

onmessage = async ({ data: { rounds } }) => {
  try {
    await init({ module_or_path: new URL('../vmsync/vmsync_web_bg.wasm', import.meta.url) });
    const bytes = new Uint8Array(await (await fetch('kernels.wasm')).arrayBuffer());
    const prepared = prepare(bytes, false);
    const modules = [await WebAssembly.compile(bytes), await WebAssembly.compile(prepared.wasm)];
    const names = WebAssembly.Module.exports(modules[0]).filter(({ kind }) => kind === 'function');
    const ratios = {};
    for (const { name } of names) {
      const least = [Infinity, Infinity];
      let sums = [];
      for (let round = 0; round < rounds; round += 1) {
        sums = modules.map((module, variant) => {
          const instance = new WebAssembly.Instance(module);
          const start = performance.now();
          const sum = instance.exports[name]();
          least[variant] = Math.min(least[variant], performance.now() - start);
          return sum;
        });
        if (sums[0] !== sums[1]) throw new Error(`${name} computes something else when it is instrumented`);
      }
      ratios[name] = least[1] / least[0];
    }
    postMessage({ result: ratios });
  } catch (error) {
    postMessage({ error: `${error.message}\n${error.stack}` });
  }
};
