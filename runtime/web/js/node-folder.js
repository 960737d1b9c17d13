// A folder of Node's as the disk of a store. Its files have the methods of a `FileSystemSyncAccessHandle`.
//
// Node cannot lock files as the native host does (`flock`): a file with the owner's process number keeps other Node
// processes out, and nothing keeps a native host out. Do not open one store in both at once.

import {
  closeSync, fdatasyncSync, fstatSync, fsyncSync, ftruncateSync, mkdirSync, openSync, readdirSync, readFileSync,
  readSync, unlinkSync, writeFileSync, writeSync,
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
    return readdirSync(this.place).filter((name) => name !== LOCK);
  }

  syncNames() {
    const folder = openSync(this.place, 'r');
    fsyncSync(folder);
    closeSync(folder);
  }

  lock() {
    const path = join(this.place, LOCK);
    for (;;) {
      try {
        return writeFileSync(path, `${process.pid}\n`, { flag: 'wx' });
      } catch (error) {
        if (error.code !== 'EEXIST') throw error;
      }
      const owner = parseInt(readFileSync(path, 'utf8'), 10);
      if (isAlive(owner)) {
        const error = new Error(`the store is open in ${owner === process.pid ? 'this process' : `process ${owner}`}`);
        throw Object.assign(error, { name: 'NoModificationAllowedError' });
      }
      unlinkSync(path);
    }
  }

  unlock() {
    unlinkSync(join(this.place, LOCK));
  }
}

function isAlive(process_) {
  try {
    process.kill(process_, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
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
