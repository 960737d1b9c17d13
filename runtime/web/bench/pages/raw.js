// The floor: one write of that many pages into a file that has its full length, and a flush.

import { numbers, serve } from './lane.js';

const FILE_PAGES = 4096;

serve(async () => {
  const root = await navigator.storage.getDirectory();
  const file = await root.getFileHandle('bench-raw', { create: true });
  const handle = await file.createSyncAccessHandle();
  handle.write(new Uint8Array(FILE_PAGES * 4096).fill(1), { at: 0 });
  handle.flush();
  const next = numbers(FILE_PAGES - 128);
  const bytes = new Uint8Array(128 * 4096);
  return (pages) => {
    const record = bytes.subarray(0, pages * 4096).fill(next());
    handle.write(record, { at: next() * 4096 });
    handle.flush();
  };
});
