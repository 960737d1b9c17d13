// The same API in Node: a store in a folder that the native command opens too.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

const { createSandbox, Sync } = await import(join(process.env.VMSYNC_SITE, 'vmsync/node.js'));
const { NodeFolder } = await import(join(process.env.VMSYNC_SITE, 'vmsync/node-folder.js'));
const guest = (name) => readFileSync(join(process.env.VMSYNC_GUESTS, `${name}.wasm`));

function folder(context) {
  const path = mkdtempSync(join(tmpdir(), 'vmsync-node-'));
  context.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

async function open(store, name, options = {}) {
  const sandbox = await createSandbox({ store, ...options });
  await sandbox.mapObject(name);
  return { sandbox, guest: await sandbox.instantiate(guest(name)) };
}

for (const inlineCards of [true, WebAssembly.validate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 5, 5, 2, 0, 1, 0, 1])) ? false : undefined]) {
  test(`a count survives, in Node and in the native host (inline cards: ${inlineCards})`, async (context) => {
    const store = folder(context);
    for (const expected of [1n, 2n]) {
      const { sandbox, guest } = await open(store, 'counter', { inlineCards });
      assert.equal(await guest.invoke('add'), expected);
      await sandbox.close();
    }
    const native = execFileSync(process.env.VMSYNC_CLI, [
      'run', join(process.env.VMSYNC_GUESTS, 'counter.wasm'), '--invoke', 'add', '--map', `counter=${store}`,
    ]);
    assert.equal(String(native).trim(), '3');
    const { sandbox, guest } = await open(store, 'counter', { inlineCards });
    assert.equal(await guest.invoke('get'), 3n);
    await sandbox.close();
    execFileSync(process.env.VMSYNC_CLI, ['verify', store]);
  });
}

test('what was not synced is gone, what was synced is not', async (context) => {
  const store = folder(context);
  const first = await open(store, 'fill');
  assert.equal(await first.guest.invoke('map', 1n << 20n), 0);
  await first.guest.invoke('dirty', 50, 7n);
  assert.equal(await first.guest.invoke('sync_all'), 0);
  const synced = await first.guest.invoke('checksum');
  await first.guest.invoke('dirty', 50, 8n);
  assert.notEqual(await first.guest.invoke('checksum'), synced);
  first.sandbox.terminate();
  const second = await open(store, 'fill');
  await second.guest.invoke('map', 1n << 20n);
  assert.equal(await second.guest.invoke('checksum'), synced);
  await second.guest.invoke('dirty', 20, 9n);
  assert.equal(await second.guest.invoke('invalidate'), 0);
  assert.equal(await second.guest.invoke('checksum'), synced, 'INVALIDATE brings back the last sync');
  await second.sandbox.close();
});

test('a memory of 4 GiB is synced and supplied as any other', async (context) => {
  const { instantiate } = WebAssembly;
  context.after(() => (WebAssembly.instantiate = instantiate));
  let memory;
  WebAssembly.instantiate = async (...module) => {
    const made = await instantiate(...module);
    memory = made.instance?.exports.memory ?? memory;
    return made;
  };
  const grow = () => memory.grow(65536 - memory.buffer.byteLength / 65536);
  const store = folder(context);
  const first = await open(store, 'fill');
  assert.equal(await first.guest.invoke('map', 1n << 20n), 0);
  grow();
  await first.guest.invoke('dirty', 50, 7n);
  const synced = await first.guest.invoke('checksum');
  assert.equal(await first.guest.invoke('sync_all'), 0);
  await first.guest.invoke('dirty', 50, 8n);
  assert.equal(await first.guest.invoke('invalidate'), 0);
  assert.equal(await first.guest.invoke('checksum'), synced);
  await first.sandbox.close();
  const second = await open(store, 'fill');
  grow();
  assert.equal(await second.guest.invoke('map', 1n << 20n), 0);
  assert.equal(await second.guest.invoke('checksum'), synced);
  await second.sandbox.close();
});

test('a sync by the host returns exactly the pages that were written', async (context) => {
  const { sandbox, guest } = await open(folder(context), 'fill');
  await guest.invoke('map', 1n << 20n);
  await guest.observe();
  const pages = [];
  sandbox.addEventListener('sync', ({ detail }) => pages.push(detail.pages));
  await guest.sync();
  for (const offset of [0n, 4096n * 7n, 4096n * 200n]) await guest.invoke('dirty_at', offset, 1n);
  await guest.sync({ flags: Sync.ASYNC });
  await guest.sync();
  // A page behind a written one counts as suspect until it was looked at once.
  assert.ok(pages[1] >= 3 && pages[1] <= 6, `${pages}`);
  assert.equal(pages[2], 0);
  await sandbox.close();
});

test('a lock whose owner is gone is taken, also where its number has come again', async (context) => {
  const store = folder(context);
  const lock = join(store, 'LOCK-node');
  const gone = spawn(process.execPath, ['-e', '']);
  await once(gone, 'exit');
  // The first process of a container is always 1: what it left there is of its own number. A power cut empties files.
  const left = [`${gone.pid}`, `${gone.pid} 1`, ''];
  if (existsSync('/proc/self/stat')) left.push(`${process.pid}`, `${process.pid} 1`, `${process.ppid} 1`);
  for (const owner of left) {
    writeFileSync(lock, owner && `${owner}\n`);
    const { sandbox } = await open(store, 'counter');
    await sandbox.close();
    assert.ok(!existsSync(lock), owner);
  }
  // One of an earlier version; and one of this process.
  const mine = folder(context);
  new NodeFolder(mine).lock();
  for (const owner of [`${process.ppid}\n`, readFileSync(join(mine, 'LOCK-node'))]) {
    writeFileSync(lock, owner);
    await assert.rejects(open(store, 'counter'), { code: 'busy' }, `${owner}`);
  }
});

test('of many who take a lock, of the living or the dead, one has it', async (context) => {
  const store = folder(context);
  const taker = `
    import { readFileSync, writeFileSync } from 'node:fs';
    import { NodeFolder } from '${join(process.env.VMSYNC_SITE, 'vmsync/node-folder.js')}';
    const folder = new NodeFolder('${store}');
    const owner = '${join(store, 'owner')}';
    const pause = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Math.random() * 2);
    for (let turns = 0; turns < 20; ) {
      try {
        folder.lock();
      } catch (error) {
        if (error.name !== 'NoModificationAllowedError') throw error;
        pause();
        continue;
      }
      turns += 1;
      writeFileSync(owner, String(process.pid));
      pause();
      if (readFileSync(owner, 'utf8') !== String(process.pid)) throw new Error('two had the lock');
      if (turns < 20) folder.unlock();
    }
    process.kill(process.pid, 'SIGKILL');`;
  let left = 24;
  const takeTurns = async () => {
    while (left-- > 0) {
      const child = spawn(process.execPath, ['--input-type=module', '-e', taker], { stdio: ['ignore', 'inherit', 'pipe'] });
      let words = '';
      child.stderr.on('data', (more) => (words += more));
      const [, signal] = await once(child, 'close');
      assert.equal(signal, 'SIGKILL', words);
    }
  };
  await Promise.all(Array.from({ length: 6 }, takeTurns));
  assert.deepEqual(readdirSync(store).sort(), ['LOCK-node', 'owner']);
});

test('what a guest has no port for is not made', async (context) => {
  const sandbox = await createSandbox({ store: folder(context) });
  for (const name of ['a', 'b']) await sandbox.mapObject(name);
  // (module (import "vmsync1" "memory_object_open" (func (param i32 i32 i64 i32 i32) (result i32)))
  //   (memory (export "memory") 1) (data (i32.const 16) "ab")
  //   (func (export "open") (param i32) (result i32) (call 0 (local.get 0) (i32.const 1) (i64.const 4096) (i32.const 7) (i32.const 32))))
  const opener = [
    0, 97, 115, 109, 1, 0, 0, 0, 1, 15, 2, 96, 5, 127, 127, 126, 127, 127, 1, 127, 96, 1, 127, 1, 127, 2, 30, 1, 7, 118, 109,
    115, 121, 110, 99, 49, 18, 109, 101, 109, 111, 114, 121, 95, 111, 98, 106, 101, 99, 116, 95, 111, 112, 101, 110, 0, 0, 3,
    2, 1, 1, 5, 3, 1, 0, 1, 7, 17, 2, 6, 109, 101, 109, 111, 114, 121, 2, 0, 4, 111, 112, 101, 110, 0, 1, 10, 17, 1, 15, 0,
    32, 0, 65, 1, 66, 128, 32, 65, 7, 65, 32, 16, 0, 11, 11, 8, 1, 0, 65, 16, 11, 2, 97, 98,
  ];
  const guest = await sandbox.instantiate(new Uint8Array(opener));
  for (let port = 0; port < 1024; port++) assert.equal(await guest.invoke('open', 16), 0);
  assert.equal(await guest.invoke('open', 16), 6, 'RESOURCE_SHORTAGE');
  assert.equal(await guest.invoke('open', 17), 6, 'RESOURCE_SHORTAGE');
  assert.deepEqual((await sandbox.objects()).map(({ name }) => name), ['a']);
  await sandbox.close();
});

test('errors say what to do', async (context) => {
  const store = folder(context);
  const { sandbox, guest: counter } = await open(store, 'counter');
  await assert.rejects(createSandbox({ store }), { code: 'busy', message: /this process/ });
  await assert.rejects(counter.invoke('nothing'), { code: 'not-found' });
  await assert.rejects(sandbox.instantiate(new Uint8Array([1, 2, 3])), { code: 'bad-module' });
  await assert.rejects(sandbox.instantiate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])), { code: 'bad-module', message: /export/ });
  await assert.rejects(sandbox.mapObject('x', { object: '../x' }), { code: 'invalid' });
  await assert.rejects(createSandbox({ storage: 'opfs' }), { code: 'invalid' });
  await sandbox.close();
  await assert.rejects(counter.invoke('add'), { code: 'closed' });
});
