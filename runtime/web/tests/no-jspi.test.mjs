// IndexedDB where the engine cannot suspend a guest: the guest's own SYNC is given up, everything else is durable as ever.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { checksum, NO_JSPI, openBrowser, openFill, openPage, randomness } from './browser.mjs';

const ABORTED = 14;

async function open(context) {
  const page = await openPage(await openBrowser(context, NO_JSPI));
  await openFill(page, 'idb');
  return page;
}

const dirtyPages = (page) =>
  page.evaluate(async () => (await guest.picture()).regions.flatMap(({ pages }) => [...pages]).filter((state) => state === 2).length);

test("a guest's own SYNC is given up and leaves its pages dirty; the page's SYNC makes them durable", async (context) => {
  const page = await open(context);
  await page.evaluate(() => guest.invoke('dirty', 20, 1n));
  assert.equal(await page.evaluate(() => guest.invoke('sync_all')), -ABORTED);
  assert.ok((await dirtyPages(page)) >= 15);
  await page.evaluate(() => guest.sync());
  assert.equal(await dirtyPages(page), 0);
  const durable = await checksum(page);
  await page.evaluate(() => guest.invoke('dirty', 20, 2n));
  await page.evaluate(() => box.terminate());
  await openFill(page, 'idb');
  assert.equal(await checksum(page), durable);
  assert.deepEqual(page.errors, []);
});

test("a guest's own ASYNC and INVALIDATE need not wait", async (context) => {
  const page = await open(context);
  const durable = await page.evaluate(async () => {
    await guest.invoke('dirty', 20, 1n);
    const flushed = new Promise((resolve) => box.addEventListener('flushed', resolve, { once: true }));
    if ((await guest.invoke('sync_async')) !== 0) throw new Error('the ASYNC was refused');
    await flushed;
    return guest.invoke('checksum');
  });
  await page.evaluate(() => guest.invoke('dirty', 20, 2n));
  assert.notEqual(await checksum(page), durable);
  assert.equal(await page.evaluate(() => guest.invoke('invalidate')), 0);
  assert.equal(await checksum(page), durable);
  await page.reload();
  await openFill(page, 'idb');
  assert.equal(await checksum(page), durable);
  assert.deepEqual(page.errors, []);
});

test('a worker that is killed at random moments loses nothing that was reported', async (context) => {
  const random = randomness('kill the worker without JSPI');
  const page = await open(context);
  let durable = await checksum(page);
  for (let round = 0; round < 10; round += 1) {
    const [begun, reported] = await page.evaluate(async ([seed, milliseconds]) => {
      let begun;
      let reported;
      const killed = new Promise((resolve) => setTimeout(resolve, milliseconds)).then(() => box.terminate());
      try {
        for (let number = 1; ; number += 1) {
          await guest.invoke('dirty', 1 + (number % 20), BigInt(seed * 1000 + number));
          begun = await guest.invoke('checksum');
          await guest.sync();
          reported = begun;
        }
      } catch (error) {
        if (error.code !== 'terminated') throw error;
      }
      await killed;
      return [begun, reported];
    }, [round + 1, 2 + random() * 60]);
    await openFill(page, 'idb');
    const found = await checksum(page);
    const allowed = [reported ?? durable, begun].filter((sum) => sum !== undefined);
    assert.ok(allowed.includes(found), `round ${round}: found ${found}, of ${allowed}`);
    durable = found;
  }
  assert.deepEqual(page.errors, []);
});
