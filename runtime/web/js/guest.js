// `Guest` and `Sandbox`: what a page, or a program in Node, holds. They know only how to send an action to an engine.

import { VmsyncError } from './protocol.js';
import { readTar, writeTar } from './tar.js';

/** An instance of a module, whose memory can be made durable. */
export class Guest {
  #send;
  #id;

  constructor(send, { id, functions }) {
    this.#send = send;
    this.#id = id;
    /** The exported functions: name and number of parameters. */
    this.functions = new Map(functions);
  }

  get id() {
    return this.#id;
  }

  invoke(name, ...args) {
    return this.#send('invoke', this.#id, name, args);
  }

  sync(options) {
    return this.#send('sync', this.#id, options);
  }

  read(address, length) {
    return this.#send('read', this.#id, address, length);
  }

  write(address, bytes) {
    return this.#send('write', this.#id, address, bytes);
  }

  picture() {
    return this.#send('picture', this.#id);
  }

  observe(on = true) {
    return this.#send('observe', this.#id, on);
  }

  close() {
    return this.#send('close', this.#id);
  }
}

/** A store, and the guests that work on it. Events: `sync`, `syncstart`, `flushed`, `flushfailed`. */
export class Sandbox extends EventTarget {
  #send;
  #stop;

  constructor(send, stop, storage) {
    super();
    this.#send = send;
    this.#stop = stop;
    /** Where the store is. */
    this.storage = storage;
  }

  /** Lets guests open an object of the store under `name`. */
  mapObject(name, options) {
    return this.#send('mapObject', name, options);
  }

  /** Makes a guest of a module: its bytes, a `Response`, or an address to fetch. */
  async instantiate(module, options) {
    const bytes = await moduleBytes(module);
    return new Guest(this.#send, await this.#send('instantiate', bytes, options));
  }

  objects() {
    return this.#send('objects');
  }

  /** Makes durable what asynchronous syncs have queued. */
  flush() {
    return this.#send('flush');
  }

  /** The store as a tar file, which `tar -x` turns into a folder for the native host. */
  async export() {
    return new Blob([writeTar(await this.#send('exportFiles'))], { type: 'application/x-tar' });
  }

  /** Makes durable what asynchronous syncs have queued, and closes the guests and the store whether that worked or not. */
  async close() {
    try {
      await this.#send('shutDown');
    } finally {
      this.#stop(new VmsyncError('closed', 'the sandbox was closed'));
    }
  }

  /** Ends everything at once, as a crash does. What was durable stays. */
  terminate() {
    this.#stop(new VmsyncError('terminated', 'the sandbox was terminated'));
  }

  [Symbol.asyncDispose ?? Symbol.for('asyncDispose')]() {
    return this.close();
  }
}

/** The files of an exported store. */
export async function exportedFiles(blob) {
  return readTar(new Uint8Array(await blob.arrayBuffer()));
}

async function moduleBytes(module) {
  if (module instanceof ArrayBuffer || ArrayBuffer.isView(module)) return module;
  const response = module instanceof Response ? module : await fetch(module);
  if (!response.ok) {
    throw new VmsyncError('not-found', `${response.url}: ${response.status} ${response.statusText}`);
  }
  return response.arrayBuffer();
}

/** An event of an engine, as the page sees it. */
export function dispatch(sandbox, event) {
  sandbox.dispatchEvent(Object.assign(new Event(event.type), { detail: event }));
}
