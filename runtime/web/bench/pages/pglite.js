// PGlite in the origin private file system: rows of about a page, one transaction for each commit.

import { PGlite } from './pglite/index.js';
import { numbers, serve } from './lane.js';

const ROWS = 1024;

serve(async () => {
  const db = await PGlite.create('opfs-ahp://bench-pglite', { relaxedDurability: false });
  await db.exec('create table if not exists t (id integer primary key, v integer, pad text)');
  await db.exec('alter table t alter column pad set storage plain');
  await db.exec(`insert into t select i, 0, repeat('x', 3900) from generate_series(0, ${ROWS - 1}) i on conflict do nothing`);
  const next = numbers(ROWS);
  const update = (on) => on.query('update t set v = v + 1 where id = $1', [next()]);
  return async (pages) => {
    if (pages === 1) return void (await update(db));
    await db.transaction(async (transaction) => {
      for (let page = 0; page < pages; page += 1) await update(transaction);
    });
  };
});
