/** Durable linear memory for WebAssembly, in pages and in Node. */

/** Flags of a sync. */
export declare const Sync: Readonly<{ ASYNC: 0x01; SYNC: 0x02; INVALIDATE: 0x04 }>;

/** The words for a `kern_return`. */
export declare function resultName(code: number): string;

export type ErrorCode =
  | 'bad-module' | 'busy' | 'call' | 'closed' | 'damaged' | 'denied' | 'gone' | 'internal' | 'invalid' | 'io'
  | 'no-space' | 'not-found' | 'terminated' | 'timed-out' | 'trap' | 'unavailable' | 'unsupported' | 'version';

/** Every promise here is rejected with this. */
export declare class VmsyncError extends Error {
  readonly code: ErrorCode;
}

export interface SandboxOptions {
  /** Name of the store; in Node its folder. Default: `vmsync`. */
  store?: string;
  /**
   * Where the store is. `auto` (default in pages): `opfs`, the page's own file system, or where that is missing `idb`,
   * IndexedDB. `folder` (default in Node). `memory`: it ends with the sandbox.
   *
   * In IndexedDB a guest's own SYNC needs an engine that can suspend it (JSPI), and so does an ASYNC while more than 64 MiB are
   * queued; elsewhere it answers ABORTED, and `guest.sync()` by the page works.
   */
  storage?: 'auto' | 'opfs' | 'idb' | 'folder' | 'memory';
  /** Keep the marks of stores in the guest's own memory. Default: only where the engine has no multi-memory. */
  inlineCards?: boolean;
}

export interface ObjectOptions {
  /** Its name in the store. Default: the name that the guest uses. */
  object?: string;
  /** The largest size that guests may give it, in bytes. */
  sizeMax?: number;
  readOnly?: boolean;
  /** It must exist already. */
  existing?: boolean;
}

export interface SyncRange {
  /** In bytes of the guest's memory. Default: all of it. */
  address?: number;
  size?: number;
  /** Default: `Sync.SYNC`. */
  flags?: number;
}

export interface Region {
  /** Its first page in the guest's memory, and in its object. Pages have 4096 bytes. */
  first: number;
  offset: number;
  /** For each page: 1 clean, 2 dirty, 3 anonymous. */
  pages: Uint8Array;
}

export interface SyncEvent extends Event {
  readonly detail: {
    type: 'sync';
    guest: number;
    flags: number;
    address: number;
    size: number;
    /** Pages that were handed to the store. */
    pages: number;
    /** Pages of the guest's memory that the call dropped, and that the store has supplied again. */
    evicted: number[];
    ms: number;
    /** A `kern_return`; 0 is success. */
    result: number;
    error?: string;
  };
}

/** An instance of a module. Its calls run one after the other, in a worker. */
export declare class Guest {
  readonly id: number;
  /** The exported functions: name and number of parameters. */
  readonly functions: ReadonlyMap<string, number>;
  invoke(name: string, ...args: (number | bigint)[]): Promise<number | bigint | undefined>;
  /** `vm_msync` between two calls. */
  sync(range?: SyncRange): Promise<void>;
  /** A copy of its memory. */
  read(address: number, length: number): Promise<Uint8Array>;
  write(address: number, bytes: Uint8Array): Promise<void>;
  picture(): Promise<{ regions: Region[]; memoryPages: number }>;
  /** Sends `syncstart` and `sync` events from now on. */
  observe(on?: boolean): Promise<void>;
  /** What it has not synced is forgotten. */
  close(): Promise<void>;
}

export declare class Sandbox extends EventTarget {
  readonly storage: 'opfs' | 'idb' | 'folder' | 'memory';
  /** Lets guests open an object of the store under `name`; they may open nothing else. */
  mapObject(name: string, options?: ObjectOptions): Promise<void>;
  /** `options.imports`: address of a module whose default export is `(instance: () => Instance) => imports`. */
  instantiate(
    module: ArrayBuffer | ArrayBufferView | Response | string | URL,
    options?: { imports?: string },
  ): Promise<Guest>;
  objects(): Promise<{ name: string; bytes: number; version: number }[]>;
  /** Makes durable what asynchronous syncs have queued. */
  flush(): Promise<void>;
  /** The store as a tar file of the native host's files. Not for `idb` and `memory`, and not for more than 1 GiB. */
  export(): Promise<Blob>;
  /** Makes durable what asynchronous syncs have queued, and closes the guests and the store whether that worked or not. */
  close(): Promise<void>;
  /** Ends everything at once, as a crash does. What was durable stays. */
  terminate(): void;
}

export declare function createSandbox(options?: SandboxOptions): Promise<Sandbox>;
/**
 * In pages: makes an `opfs` store of an exported one, in place of what it held. It must not be open. A tab that ends in the
 * middle leaves the old store or the new one.
 */
export declare function importStore(store: string, exported: Blob): Promise<void>;
/** In pages: removes an `opfs` store. It must not be open. */
export declare function removeStore(store: string): Promise<void>;
