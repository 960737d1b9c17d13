// The demo page: what its legend names occurs, what it promises holds, it fits every width, and its console stays silent.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { LATE_REPLIES, NO_FILE_SYSTEM, NO_JSPI, openBrowser, openPage, randomness } from './browser.mjs';

async function openDemo(browser) {
  const page = await openPage(browser, '');
  await page.waitForFunction(() => document.body?.dataset.ready);
  return page;
}

const count = (page, id) => page.evaluate((id) => Number(document.getElementById(id).textContent), id);

/** Waits until a number on the page is as `wanted` says. */
const counted = (page, id, wanted) =>
  page.waitForFunction(([id, wanted]) => {
    const number = Number(document.getElementById(id).textContent);
    return wanted === 'some' ? number > 0 : number === wanted;
  }, [id, wanted]);

const random = randomness('strokes');

async function stroke(page) {
  const canvas = page.locator('#canvas');
  await canvas.scrollIntoViewIfNeeded();
  const { x, y, width, height } = await canvas.boundingBox();
  await page.mouse.move(x + width * 0.2, y + height * 0.2);
  await page.mouse.down();
  await page.mouse.move(x + width * 0.7, y + height * (0.3 + random() * 0.6), { steps: 8 });
  await page.mouse.up();
}

/** Gives the page a file to import. */
const importing = (page, buffer) =>
  page.setInputFiles('input[accept=".tar"]', { name: 'store.tar', mimeType: 'application/x-tar', buffer });

test('every state of the legend occurs', async (context) => {
  const page = await openDemo(await openBrowser(context));
  const states = await page.evaluate(() => {
    const canvas = document.getElementById('picture');
    window.seen = new Set();
    const look = () => {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      for (let at = 0; at < data.length; at += 4) seen.add(data.slice(at, at + 3).join(', '));
      requestAnimationFrame(look);
    };
    look();
    return [...document.querySelectorAll('.legend i')].map((sample) => getComputedStyle(sample).backgroundColor);
  });
  assert.equal(states.length, 4);
  await stroke(page);
  await counted(page, 'count-dirty', 'some');
  await page.waitForFunction((colour) => seen.has(colour.match(/\d+, \d+, \d+/)[0]), states[1]);
  await page.keyboard.press('s');
  await counted(page, 'count-dirty', 0);
  await page.keyboard.press('i');
  for (const colour of states) await page.waitForFunction((colour) => seen.has(colour.match(/\d+, \d+, \d+/)[0]), colour);
  assert.deepEqual(page.errors, []);
});

for (const [when, first] of [['', ''], [', and where replies are late', LATE_REPLIES]]) {
  test(`a crash in mid-sync loses nothing that was durable, for each guest${when}`, async (context) => {
    const page = await openDemo(await openBrowser(context, first));
    await page.evaluate(() => {
      window.told = new Set();
      const text = document.getElementById('veil-text');
      new MutationObserver(() => told.add(text.textContent)).observe(text, { childList: true });
    });
    let crashes = 0;
    for (const guest of ['1', '1', '2', '3']) {
      await page.keyboard.press(guest);
      if (guest === '3') await page.click('#example');
      await page.waitForSelector(guest === '3' ? '#functions form' : 'main[aria-busy="false"]');
      if (guest === '1') await stroke(page);
      await page.keyboard.press('x');
      // Nothing else begins before the crash is over.
      await page.keyboard.press(guest === '1' ? '2' : '1');
      crashes += 1;
      await counted(page, 'crashes', crashes);
      await page.waitForFunction(() => document.getElementById('veil').hidden && !document.getElementById('crash').disabled);
    }
    // A module of one's own is not compared.
    assert.equal(await count(page, 'intact'), crashes - 1);
    const told = await page.evaluate(() => [...told].join('\n'));
    assert.match(told, /every page of it is here|nothing torn|nothing left to sync/);
    assert.deepEqual(page.errors, []);
  });
}

test('without a private file system and without JSPI everything works as well', async (context) => {
  const page = await openDemo(await openBrowser(context, NO_FILE_SYSTEM + NO_JSPI));
  assert.match(await page.textContent('#status'), /IndexedDB keeps the store/);
  await stroke(page);
  await counted(page, 'count-dirty', 'some');
  await page.keyboard.press('s');
  await counted(page, 'count-dirty', 0);
  await page.keyboard.press('x');
  await counted(page, 'crashes', 1);
  await page.waitForFunction(() => document.getElementById('veil').hidden);
  assert.deepEqual(page.errors, []);
});

test('of guests that are chosen quickly, one after the other, the last one is there', async (context) => {
  const browser = await openBrowser(context, LATE_REPLIES);
  const page = await openDemo(browser);
  // The next one is chosen while the one before is loaded.
  await browser.route('**/guests/life.wasm', async (route) => {
    await page.keyboard.press('1');
    await page.waitForTimeout(1000);
    await route.continue();
  });
  const width = () => page.evaluate(() => document.getElementById('canvas').width);
  const drawing = await width();
  const loaded = page.waitForResponse('**/guests/life.wasm');
  await page.keyboard.press('2');
  await loaded;
  await page.waitForTimeout(2000);
  await page.waitForSelector('main[aria-busy="false"]');
  assert.equal(await page.getAttribute('[data-guest="sketch"]', 'aria-selected'), 'true');
  assert.equal(await width(), drawing);
  await stroke(page);
  await counted(page, 'count-dirty', 'some');
  await page.keyboard.press('s');
  await counted(page, 'count-dirty', 0);
  assert.doesNotMatch(await page.textContent('#status'), /closed|terminated/);
  assert.deepEqual(page.errors, []);
});

test('where the store is in IndexedDB, an export and an import are refused with a reason, and everything goes on', async (context) => {
  const page = await openDemo(await openBrowser(context, NO_FILE_SYSTEM));
  await stroke(page);
  await page.keyboard.press('s');
  await page.waitForFunction(() => /^SYNC/.test(document.getElementById('log').textContent));
  await counted(page, 'count-dirty', 0);
  await page.click('#export');
  await page.waitForFunction(() => /only a store of files can be exported/.test(document.getElementById('status').textContent));
  await importing(page, Buffer.from('not a store'));
  await page.waitForFunction(() => /only a store of files can be imported/i.test(document.getElementById('status').textContent));
  await stroke(page);
  await counted(page, 'count-dirty', 'some');
  await page.keyboard.press('s');
  await counted(page, 'count-dirty', 0);
  assert.deepEqual(page.errors, []);
});

test('one file is imported, or loaded as a module, as often as it is chosen', async (context) => {
  const page = await openDemo(await openBrowser(context));
  // A browser tells of a choice only where it is another than the one before.
  const forgotten = async (input) => assert.equal(await page.inputValue(input), '');
  await counted(page, 'count-clean', 'some');
  await counted(page, 'count-dirty', 0);
  const drawing = await page.evaluate(() => document.getElementById('canvas').toDataURL());
  const shows = (same) => page.waitForFunction(([drawing, same]) =>
    (document.getElementById('canvas').toDataURL() === drawing) === same, [drawing, same]);
  const downloading = page.waitForEvent('download');
  await page.click('#export');
  const exported = await readFile(await (await downloading).path());
  for (let round = 0; round < 2; round += 1) {
    await stroke(page);
    await shows(false);
    await page.keyboard.press('s');
    await counted(page, 'count-dirty', 0);
    await importing(page, exported);
    await shows(true);
    await page.waitForFunction(() => document.getElementById('status').textContent === 'Imported store.tar.');
    await forgotten('input[accept=".tar"]');
    await page.waitForFunction(() => !document.getElementById('sync').disabled);
  }
  await page.keyboard.press('3');
  for (let round = 0; round < 2; round += 1) {
    await page.setInputFiles('#file', join(process.env.VMSYNC_GUESTS, 'fill.wasm'));
    await page.waitForSelector('#functions form');
    await forgotten('#file');
  }
  assert.deepEqual(page.errors, []);
});

test('everything can be had from the keyboard', async (context) => {
  const page = await openDemo(await openBrowser(context));
  for (const [tab, place, key] of [['1', 'text=Import one', 'Enter'], ['1', 'text=Import one', ' '], ['3', '#file', ' ']]) {
    await page.keyboard.press(tab);
    await page.waitForSelector('main[aria-busy="false"]');
    const chooser = page.waitForEvent('filechooser', { timeout: 5000 });
    await page.focus(place);
    await page.keyboard.press(key);
    await chooser;
  }
  await page.keyboard.press('1');
  await page.waitForSelector('main[aria-busy="false"]');
  // A switch takes Space, and leaves the letters to the page.
  await page.focus('#auto');
  await page.keyboard.press(' ');
  assert.ok(await page.isChecked('#auto'));
  await page.keyboard.press('c');
  await counted(page, 'count-dirty', 'some');
  await page.keyboard.press('s');
  await counted(page, 'count-dirty', 0);
  await page.focus('#canvas');
  for (const press of [' ', 'ArrowLeft', 'ArrowUp']) await page.keyboard.press(press);
  await counted(page, 'count-dirty', 'some');
  await page.keyboard.press(' ');
  await counted(page, 'count-dirty', 0);
  assert.deepEqual(page.errors, []);
});

test('a second tab says why it has no store, and takes nothing from the first', async (context) => {
  const browser = await openBrowser(context);
  const [first, second] = [await openDemo(browser), await openDemo(browser)];
  assert.match(await second.textContent('#veil'), /cannot be opened.*another tab: close that one, and load this page again/);
  assert.ok(await second.isDisabled('#sync'));
  await stroke(first);
  await counted(first, 'count-dirty', 'some');
  await first.keyboard.press('s');
  await counted(first, 'count-dirty', 0);
  await first.close();
  await second.reload();
  await second.waitForFunction(() => document.body?.dataset.ready);
  assert.ok(await second.isEnabled('#sync'));
  assert.deepEqual([...first.errors, ...second.errors], []);
});

test('a page that is loaded again in the middle of its syncs finds what it reported', async (context) => {
  const page = await openDemo(await openBrowser(context));
  const drawing = () => page.evaluate(() => document.getElementById('canvas').toDataURL());
  for (let round = 0; round < 5; round += 1) {
    await stroke(page);
    await counted(page, 'count-dirty', 'some');
    await page.keyboard.press('s');
    await counted(page, 'count-dirty', 0);
    const reported = await drawing();
    // The same again: whether this one is durable or not, the drawing is the same.
    await page.evaluate(() => {
      for (let call = 0; call < 20; call += 1) document.getElementById('sync').click();
    });
    await page.reload();
    await page.waitForFunction(() => document.body?.dataset.ready);
    assert.equal(await drawing(), reported, `round ${round}`);
  }
  assert.deepEqual(page.errors, []);
});

test('it fits every width in both colour schemes', async (context) => {
  const page = await openDemo(await openBrowser(context));
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    for (const width of [320, 390, 768, 1280]) {
      await page.setViewportSize({ width, height: 800 });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${wide} pixels in a window of ${width}, ${colorScheme}`);
    }
  }
  assert.equal(await count(page, 'crashes'), 0);
  assert.deepEqual(page.errors, []);
});
