// Flat folders as tar files (POSIX ustar), for carrying a store between the browser and a shell.

import { VmsyncError } from './protocol.js';

const BLOCK = 512;
const text = new TextEncoder();
const words = new TextDecoder();

/** A tar file of `[name, bytes]` pairs. */
export function writeTar(files) {
  const padded = (length) => Math.ceil(length / BLOCK) * BLOCK;
  const total = files.reduce((sum, [, bytes]) => sum + BLOCK + padded(bytes.length), 2 * BLOCK);
  const tar = new Uint8Array(total);
  let at = 0;
  for (const [name, bytes] of files) {
    writeHeader(tar.subarray(at, at + BLOCK), name, bytes.length);
    tar.set(bytes, at + BLOCK);
    at += BLOCK + padded(bytes.length);
  }
  return tar;
}

function writeHeader(header, name, length) {
  const put = (offset, value) => header.set(text.encode(value), offset);
  const octal = (value, width) => value.toString(8).padStart(width, '0');
  put(0, name);
  put(100, '0000644\0');
  put(108, '0000000\0');
  put(116, '0000000\0');
  put(124, `${octal(length, 11)} `);
  put(136, `${octal(0, 11)} `);
  put(148, '        ');
  put(156, '0');
  put(257, 'ustar\x0000');
  const sum = header.reduce((total, byte) => total + byte, 0);
  put(148, `${octal(sum, 6)}\0 `);
}

/** The plain files of a tar file, as `[name, bytes]` pairs; folders in front of a name are left out. */
export function readTar(tar) {
  const files = [];
  for (let at = 0; at + BLOCK <= tar.length; ) {
    const header = tar.subarray(at, at + BLOCK);
    if (header.every((byte) => byte === 0)) return files;
    const field = (offset, length) => words.decode(header.subarray(offset, offset + length)).replace(/\0.*$/s, '');
    const claimed = parseInt(field(148, 8), 8);
    const sum = header.reduce((total, byte, index) => total + (index >= 148 && index < 156 ? 32 : byte), 0);
    const length = parseInt(field(124, 12), 8);
    if (claimed !== sum || !(length >= 0) || at + BLOCK + length > tar.length) {
      throw new VmsyncError('invalid', `this is not a tar file, or it is cut short (at byte ${at})`);
    }
    const kind = field(156, 1);
    if (kind === '0' || kind === '') {
      files.push([field(0, 100).split('/').pop(), tar.slice(at + BLOCK, at + BLOCK + length)]);
    }
    at += BLOCK + Math.ceil(length / BLOCK) * BLOCK;
  }
  return files;
}
