// A folder of Node's as the disk of a store. Its files have the methods of a `FileSystemSyncAccessHandle`.
//
// Node cannot lock files as the native host does (`flock`): a file that says which process is the owner keeps other Node
// processes out, and nothing keeps a native host out, or a process that does not see the owner's (of another container, or
// machine). Do not open one store in both at once.
//
// Invariants of the lock:
// - its file appears with all that it says;
// - that of an owner who is gone is removed only by whoever has the lock for that.

import { randomUUID } from 'node:crypto';
import {
  closeSync, fdatasyncSync, fstatSync, fsyncSync, ftruncateSync, linkSync, mkdirSync, openSync, readdirSync,
  readFileSync, readSync, rmSync, unlinkSync, writeFileSync, writeSync,
} from 'node:fs';
import { join } from 'node:path';

const LOCK = 'LOCK-node';

export class NodeFolder {
  constructor(place) {
    mkdirSync(place, { recursive: true });
    this.place = place;
  }

  open(name, write, create) {
    const path = join(this.place, name);
    if (!create) return new NodeFile(openSync(path, write ? 'r+' : 'r'));
    try {
      return new NodeFile(openSync(path, 'r+'));
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
      return new NodeFile(openSync(path, 'wx+'));
    }
  }

  remove(name) {
    unlinkSync(join(this.place, name));
  }

  list() {
    return readdirSync(this.place).filter((name) => !name.startsWith(LOCK));
  }

  syncNames() {
    const folder = openSync(this.place, 'r');
    fsyncSync(folder);
    closeSync(folder);
  }

  lock() {
    const path = join(this.place, LOCK);
    const own = `${path}-${randomUUID()}`;
    writeFileSync(own, `${process.pid} ${startOf(process.pid) ?? ''}\n`);
    try {
      take(path, own);
    } finally {
      unlinkSync(own);
    }
  }

  unlock() {
    // A folder that was removed has none.
    rmSync(join(this.place, LOCK), { force: true });
  }
}

/** Makes `own` the lock at `path`, in place of one whose owner is gone. */
function take(path, own) {
  while (!link(own, path)) {
    const owner = read(path);
    if (owner === undefined) continue;
    if (isAlive(owner)) throw busy(owner);
    const removal = `${path}-`;
    take(removal, own);
    try {
      if (read(path) === owner) unlinkSync(path);
    } finally {
      unlinkSync(removal);
    }
  }
}

function link(own, path) {
  try {
    linkSync(own, path);
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
    return false;
  }
}

function read(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    return undefined;
  }
}

function busy(owner) {
  const number = parseInt(owner, 10);
  const error = new Error(`the store is open in ${number === process.pid ? 'this process' : `process ${number}`}`);
  return Object.assign(error, { name: 'NoModificationAllowedError' });
}

/** Whether the process that a lock names runs. Its number may have come again: a container's first process is always 1. */
function isAlive(owner) {
  const [number, start] = owner.trim().split(' ');
  // A power cut may have emptied the file.
  if (!/^[1-9]\d*$/.test(number)) return false;
  const now = startOf(number);
  try {
    process.kill(number, 0);
  } catch (error) {
    if (error.code === 'ESRCH') return false;
  }
  if (now === undefined) return true;
  // Locks of earlier versions have no start; those of this process do.
  return start ? start === now : Number(number) !== process.pid;
}

/** When a process began, where the system tells it. */
function startOf(number) {
  try {
    // The 22nd word; the second is a name in brackets, with whatever is in it.
    return readFileSync(`/proc/${number}/stat`, 'utf8').split(') ').at(-1).split(' ')[19];
  } catch {
    return undefined;
  }
}

class NodeFile {
  #file;

  constructor(file) {
    this.#file = file;
  }

  read(buffer, { at = 0 } = {}) {
    let count = 0;
    while (count < buffer.length) {
      const more = readSync(this.#file, buffer, count, buffer.length - count, at + count);
      if (more === 0) break;
      count += more;
    }
    return count;
  }

  write(buffer, { at = 0 } = {}) {
    let count = 0;
    while (count < buffer.length) {
      count += writeSync(this.#file, buffer, count, buffer.length - count, at + count);
    }
    return count;
  }

  flush() {
    fdatasyncSync(this.#file);
  }

  truncate(length) {
    ftruncateSync(this.#file, length);
  }

  getSize() {
    return fstatSync(this.#file).size;
  }

  close() {
    closeSync(this.#file);
  }
}
