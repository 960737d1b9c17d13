// What runs beside the guests: in a dedicated worker of a page, or in Node itself. It owns one store and its guests.
//
// Invariants:
// - calls of one guest run one after the other: the guest has one thread;
// - before a call, files are opened ahead for what it may create, because opening takes a promise and the call cannot wait;
// - what an asynchronous sync queued is written at the latest when the worker is next idle for a moment;
// - a store that answers later (IndexedDB) suspends the guest where the engine can do that; elsewhere the call is given up.

import { vmsync1 } from './imports.js';
import { resultName, Sync, VmsyncError } from './protocol.js';

const PENDING = -1;
const TIDY_MS = 20;
const TIME_OUT_MS = 30_000;
const WASM_PAGE_BYTES = 65536;

// (module (memory 1) (memory 1))
const TWO_MEMORIES = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 5, 5, 2, 0, 1, 0, 1]);

export class Engine {
  #core;
  #host;
  #emit;
  #guests = new Map();
  #next = 1;
  #tidyTimer;
  #flushing;
  #inline;
  #suspends;

  /**
   * @param core the module that wasm-bindgen made, initialised
   * @param host an open `Host` of it
   * @param emit takes the events
   */
  constructor(core, host, emit, options = {}) {
    this.#core = core;
    this.#host = host;
    this.#emit = emit;
    this.#inline = options.inlineCards ?? !WebAssembly.validate(TWO_MEMORIES);
    this.#suspends = Boolean(options.answersLater) && 'Suspending' in WebAssembly;
  }

  mapObject(name, { object = name, sizeMax = 2 ** 32, readOnly = false, existing = false } = {}) {
    this.#host.grant(name, object, sizeMax, readOnly, existing);
  }

  async instantiate(bytes, { imports: importsUrl } = {}) {
    await this.#reserve();
    const prepared = this.#core.prepare(new Uint8Array(bytes), this.#inline);
    const vm = new this.#core.Vm(this.#host);
    const guest = { vm, instance: undefined, observed: false };
    try {
      const others = importsUrl ? (await import(importsUrl)).default(() => guest.instance) : {};
      const [sync, wrap] = this.#suspends
        ? [(...call) => this.#syncLate(id, guest, ...call), (late) => new WebAssembly.Suspending(late)]
        : [(...call) => this.#sync(id, guest, ...call), (plain) => plain];
      const imports = { ...others, vmsync1: vmsync1(vm, sync, wrap) };
      var id = this.#next++;
      const { instance } = await link(prepared.wasm, imports);
      const cards = prepared.cardsExport && instance.exports[prepared.cardsExport];
      vm.attach(prepared, instance.exports.memory, cards);
      guest.instance = instance;
    } catch (error) {
      vm.free();
      throw error;
    } finally {
      prepared.free();
    }
    this.#guests.set(id, guest);
    const functions = Object.entries(guest.instance.exports).filter(([, value]) => typeof value === 'function');
    return { id, functions: functions.map(([name, value]) => [name, value.length]) };
  }

  async invoke(id, name, args = []) {
    const guest = this.#guest(id);
    const call = guest.instance.exports[name];
    if (typeof call !== 'function') {
      throw new VmsyncError('not-found', `the guest exports no function named "${name}"`);
    }
    await this.#reserve();
    return this.#suspends ? WebAssembly.promising(call)(...args) : call(...args);
  }

  async sync(id, { address = 0, size, flags = Sync.SYNC } = {}) {
    const guest = this.#guest(id);
    const { memory } = guest.instance.exports;
    await this.#reserve();
    const length = size ?? memory.buffer.byteLength - address;
    const code = await this.#syncLate(id, guest, flags, address, length, () => guest.vm.sync(address, length, flags));
    if (code !== 0) {
      const why = guest.vm.lastError;
      throw new VmsyncError('call', `vm_msync: ${resultName(code)}${why ? `: ${why}` : ''}`);
    }
  }

  read(id, address, length) {
    return new Uint8Array(this.#guest(id).instance.exports.memory.buffer, address, length).slice();
  }

  write(id, address, bytes) {
    const guest = this.#guest(id);
    new Uint8Array(guest.instance.exports.memory.buffer, address, bytes.length).set(bytes);
    guest.vm.noteStore(address, bytes.length);
  }

  /** Regions as triples of first page, pages, first page of the object; and a byte for each page of them. */
  picture(id) {
    const { vm, instance } = this.#guest(id);
    const flat = vm.regions();
    const regions = [];
    for (let at = 0; at < flat.length; at += 3) {
      const [first, pages, offset] = flat.slice(at, at + 3);
      regions.push({ first, offset, pages: vm.picture(first, pages) });
    }
    return { regions, memoryPages: instance.exports.memory.buffer.byteLength / WASM_PAGE_BYTES };
  }

  /** Whether the guest's syncs are told of, with the pages that they return. */
  observe(id, on) {
    this.#guest(id).observed = on;
  }

  close(id) {
    this.#guest(id).vm.free();
    this.#guests.delete(id);
  }

  objects() {
    return this.#host.list().map(([name, bytes, version]) => ({ name, bytes, version }));
  }

  /** Waits until everything that was handed over is durable. Who comes while somebody waits has the same answer. */
  flush() {
    clearTimeout(this.#tidyTimer);
    this.#tidyTimer = undefined;
    this.#flushing ??= this.#flushAll().finally(() => (this.#flushing = undefined));
    return this.#flushing;
  }

  async #flushAll() {
    while (this.#host.isBusy) await this.#host.changed();
    this.#host.tidy();
  }

  exportFiles() {
    return this.#host.exportFiles();
  }

  /** Closes every guest and the store. */
  async shutDown() {
    for (const id of [...this.#guests.keys()]) this.close(id);
    try {
      await this.flush();
    } finally {
      this.end();
    }
  }

  /** Lets go of everything at once. */
  end() {
    clearTimeout(this.#tidyTimer);
    for (const id of [...this.#guests.keys()]) this.close(id);
    this.#host.free();
  }

  #guest(id) {
    const guest = this.#guests.get(id);
    if (!guest) throw new VmsyncError('not-found', 'the guest was closed');
    return guest;
  }

  async #reserve() {
    if (this.#host.wantsFiles) await this.#host.reserve();
  }

  /** Runs a call that may return pages; one that has to wait is given up, and its pages stay dirty. */
  #sync(id, guest, flags, address, size, call) {
    const finish = this.#watch(id, guest, flags, address, size);
    const code = call();
    return finish(code === PENDING ? guest.vm.timeOut() : code);
  }

  /** The same, where waiting is possible. */
  async #syncLate(id, guest, flags, address, size, call) {
    const finish = this.#watch(id, guest, flags, address, size);
    let code = call();
    const deadline = performance.now() + TIME_OUT_MS;
    while (code === PENDING) {
      const left = deadline - performance.now();
      code = (await inTime(this.#host.changed(), left)) ? guest.vm.poll() : guest.vm.timeOut();
    }
    return finish(code);
  }

  /** Times and tells of a call; what it returns takes the call's result. */
  #watch(id, { vm, observed }, flags, address, size) {
    if (observed) this.#emit({ type: 'syncstart', guest: id, flags, dirty: dirtyPages(vm, address, size) });
    const start = performance.now();
    return (code) => {
      const ms = performance.now() - start;
      this.#tidyTimer ??= setTimeout(() => this.#tidyLate(), TIDY_MS);
      if (observed) {
        const pages = vm.pagesReturned;
        const error = code === 0 ? undefined : (vm.lastError ?? resultName(code));
        const evicted = [...vm.evicted];
        this.#emit({ type: 'sync', guest: id, flags, address, size, pages, evicted, ms, result: code, error });
      }
      return code;
    };
  }

  async #tidyLate() {
    try {
      await this.flush();
      this.#emit({ type: 'flushed' });
    } catch (error) {
      // The guests are told by their next sync.
      this.#emit({ type: 'flushfailed', error: error.message });
    }
  }
}

/** Whether `promise` resolves within `ms`. */
async function inTime(promise, ms) {
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(() => resolve(false), Math.max(ms, 0));
  });
  try {
    return await Promise.race([promise.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

async function link(wasm, imports) {
  try {
    return await WebAssembly.instantiate(wasm, imports);
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError) throw error;
    throw new VmsyncError('bad-module', error.message);
  }
}

/** The dirty pages that a sync of a range would return. */
function dirtyPages(vm, address, size) {
  const flat = vm.regions();
  const from = Math.floor(address / 4096);
  const to = Math.ceil((address + size) / 4096);
  const dirty = [];
  for (let at = 0; at < flat.length; at += 3) {
    const first = Math.max(from, flat[at]);
    const end = Math.min(to, flat[at] + flat[at + 1]);
    if (first >= end) continue;
    vm.picture(first, end - first).forEach((state, index) => {
      if (state === 2) dirty.push(first + index);
    });
  }
  return dirty;
}
