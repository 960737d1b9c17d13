// SQLite's official build on its fastest file system for a worker: rows of about a page, one transaction for each commit.

import sqlite3InitModule from './sqlite/index.mjs';
import { numbers, serve } from './lane.js';

const ROWS = 4096;

serve(async () => {
  const sqlite3 = await sqlite3InitModule();
  const pool = await sqlite3.installOpfsSAHPoolVfs({ name: 'bench', directory: '/bench-sqlite' });
  const db = new pool.OpfsSAHPoolDb('/bench.db');
  db.exec('pragma synchronous = full; create table if not exists t (id integer primary key, v integer, pad blob)');
  db.exec(`with recursive n(i) as (select 0 union all select i + 1 from n where i < ${ROWS - 1})
    insert or replace into t select i, 0, zeroblob(3900) from n`);
  const update = db.prepare('update t set v = v + 1 where id = ?');
  const next = numbers(ROWS);
  return (pages) => {
    db.exec('begin immediate');
    for (let page = 0; page < pages; page += 1) update.bind([next()]).stepReset();
    db.exec('commit');
  };
});
