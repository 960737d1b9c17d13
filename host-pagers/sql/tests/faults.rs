//! Stale writers, networks that misbehave, bytes that were changed.

mod common;

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use common::{address, client, commits, fresh, server, store, through, with_client};
use vmsync_core::{
    PageSize, PagerError, PagerErrorKind,
    abi::VmProt,
    pager::{ObjectName, Pager},
};
use vmsync_pager_conformance::{Client, Network, Proxy, fence_stale_writer};
use vmsync_pager_sql::{Options, open};

const PAGE: u64 = 4096;

fn kind<T>(answer: Result<T, PagerError>) -> Option<PagerErrorKind> {
    answer.err().map(|error| error.kind)
}

#[test]
fn a_stale_writer_is_fenced() {
    let Some(server) = server() else { return };
    let url = fresh(&server);
    fence_stale_writer(|| store(&url));
}

#[test]
fn what_cannot_be_opened_is_named() {
    let Some(server) = server() else { return };
    let url = fresh(&server);
    let existing = Options {
        create: false,
        ..Options::default()
    };
    assert_eq!(kind(open(&url, &existing)), Some(PagerErrorKind::NotFound));
    drop(store(&url));
    let large = Options {
        page_size: PageSize::KIB_16,
        ..Options::default()
    };
    let error = open(&url, &large).err().unwrap();
    assert_eq!(error.kind, PagerErrorKind::Invalid);
    assert!(
        error.message.contains("4096") && error.message.contains("16384"),
        "{error}"
    );
    let update = "UPDATE vmsync_store SET format = 9";
    with_client(&url, async |client| client.batch_execute(update).await.unwrap());
    assert_eq!(
        kind(open(&url, &Options::default())),
        Some(PagerErrorKind::Version)
    );
    let nowhere = "postgres://nobody:secret@127.0.0.1:1/none";
    let error = open(nowhere, &Options::default()).err().unwrap();
    assert!(
        error.message.contains("127.0.0.1:1") && !error.message.contains("secret"),
        "{error}"
    );
    let wrong = through(&url, address(&url))
        .replacen("postgres:", "postgresql:", 1)
        .replacen(":pass", ":wrong", 1);
    if wrong.contains(":wrong") {
        assert_eq!(
            kind(open(&wrong, &Options::default())),
            Some(PagerErrorKind::Denied)
        );
    }
}

#[test]
fn a_reader_leaves_the_writer_alone() {
    let Some(server) = server() else { return };
    let url = fresh(&server);
    let writing = store(&url);
    let (writer, other) = (client(&writing, "object", 4), client(&writing, "other", 4));
    writer.commit_full(1, 7);
    let options = Options {
        read_only: true,
        ..Options::default()
    };
    let reading = open(&url, &options).unwrap();
    let request = vmsync_core::pager::InitRequest {
        page_size: PageSize::KIB_4,
        size_min: 0,
        create: false,
        write: false,
    };
    let reader = Client::open_with(reading.clone(), "object", request).unwrap();
    reader.assert_full(1, 7);
    other.commit_full(1, 1);
    reader.assert_full(1, 7);
    // What it has read is of before: it does not get the rest of what is there now.
    writer.commit_full(1, 8);
    let rest = || {
        let mut page = vec![0; PAGE as usize];
        kind(reading.data_request(reader.object, 2 * PAGE, VmProt::READ, &mut page))
    };
    assert_eq!(rest(), Some(PagerErrorKind::Unavailable));
    let again = Client::open_with(reading.clone(), "object", request).unwrap();
    again.assert_full(1, 8);
    assert_eq!(rest(), Some(PagerErrorKind::Unavailable), "also when others look");
    again.close();
    other.close();
    writer.close();
    writing
        .remove_object(&ObjectName::new("object").unwrap())
        .unwrap();
    assert_eq!(rest(), Some(PagerErrorKind::Unavailable), "nor zeroes");
}

#[test]
fn changed_bytes_are_found_out() {
    let Some(server) = server() else { return };
    let url = fresh(&server);
    let store = store(&url);
    let client = client(&store, "object", 4);
    client.commit_full(1, 7);
    let change = "UPDATE vmsync_pages SET bytes = set_byte(bytes, 77, 1)";
    with_client(&url, async |client| client.batch_execute(change).await.unwrap());
    let mut page = vec![0; PAGE as usize];
    let error = store
        .data_request(client.object, PAGE, VmProt::READ, &mut page)
        .unwrap_err();
    assert_eq!(error.kind, PagerErrorKind::Damaged);
    assert!(error.message.contains("page 1"), "{error}");
    client.close();
}

/// A database that was restored in part, or that somebody changed.
#[test]
fn a_store_without_its_row_is_damaged() {
    let Some(server) = server() else { return };
    for (change, reads, commits, opens) in [
        ("DELETE FROM vmsync_store", false, false, false),
        (
            "ALTER TABLE vmsync_store ALTER format TYPE text",
            true,
            true,
            false,
        ),
        (
            "ALTER TABLE vmsync_objects ALTER size TYPE numeric",
            true,
            true,
            false,
        ),
        (
            "ALTER TABLE vmsync_pages ALTER sum TYPE numeric",
            false,
            true,
            true,
        ),
    ] {
        let url = fresh(&server);
        let storage = store(&url);
        let client = client(&storage, "object", 2);
        client.commit_full(0, 1);
        with_client(&url, async |client| client.batch_execute(change).await.unwrap());
        let expected = |works: bool| (!works).then_some(PagerErrorKind::Damaged);
        let mut page = vec![0; PAGE as usize];
        let supplied = storage.data_request(client.object, 0, VmProt::READ, &mut page);
        assert_eq!(kind(supplied), expected(reads), "reads: {change}");
        assert_eq!(
            kind(client.try_commit_full(0, 2)),
            expected(commits),
            "commits: {change}"
        );
        assert_eq!(
            kind(open(&url, &Options::default())),
            expected(opens),
            "opens: {change}"
        );
    }
}

#[test]
fn a_commit_through_a_bad_network_takes_place_once() {
    let Some(server) = server() else { return };
    for fault in [
        Network::Slow(Duration::from_millis(20)),
        Network::Reset,
        Network::LostReplies,
        Network::Partition,
    ] {
        let url = fresh(&server);
        let proxy = Arc::new(Proxy::start(address(&url)).unwrap());
        let store = store(&through(&url, proxy.address()));
        let client = client(&store, "object", 4);
        client.commit_full(0, 1);
        let before = commits(&url);
        for byte in 2..5 {
            proxy.set(fault);
            let healer = proxy.clone();
            let heal = thread::spawn(move || {
                thread::sleep(Duration::from_millis(150));
                healer.set(Network::Sound);
            });
            client.commit_full(0, byte);
            heal.join().unwrap();
            client.assert_full(0, byte);
        }
        assert_eq!(commits(&url), before + 3, "{fault:?}: each call took place once");
        client.close();
    }
}

/// Waits until `select` answers `count` on the server itself.
fn wait_for(url: &str, select: &str, count: i64) {
    for _ in 0..2000 {
        let found: i64 = with_client(url, async |client| {
            client.query_one(select, &[]).await.unwrap().get(0)
        });
        if found == count {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{select}: never {count}");
}

/// A call waits in the server when its answer is lost, and is reported as failed as no other session can be made then.
#[test]
fn what_took_place_behind_a_failure_is_not_shown() {
    let Some(server) = server() else { return };
    let role = format!("r{}", std::process::id());
    let run = |sql: String| {
        with_client(&server, async |client| client.batch_execute(&sql).await.unwrap());
    };
    run(format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'pass'"));
    let url = fresh(&server);
    let at = url.find('@').unwrap();
    let url = format!("postgres://{role}:pass{}", &url[at..]);
    let proxy = Proxy::start(address(&url)).unwrap();
    let store = store(&through(&url, proxy.address()));
    let client = client(&store, "object", 2);
    client.commit_full(0, 1);
    let before = commits(&url);
    let (locked, locks) = mpsc::channel();
    let (unlock, unlocks) = mpsc::channel();
    let own = url.clone();
    let locker = thread::spawn(move || {
        with_client(&own, async |client| {
            let lock = "BEGIN; SELECT FROM vmsync_store FOR UPDATE";
            client.batch_execute(lock).await.unwrap();
            locked.send(()).unwrap();
            unlocks.recv().unwrap();
            client.batch_execute("ROLLBACK").await.unwrap();
        });
    });
    locks.recv().unwrap();
    thread::scope(|scope| {
        let failing = scope.spawn(|| client.try_commit_full(0, 2));
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}' AND wait_event_type = 'Lock'"
        );
        wait_for(&server, &waiting, 1);
        run(format!("ALTER ROLE {role} NOLOGIN"));
        proxy.set(Network::Reset);
        proxy.wait_for_ends();
        proxy.set(Network::Sound);
        assert_eq!(kind(failing.join().unwrap()), Some(PagerErrorKind::Denied));
    });
    run(format!("ALTER ROLE {role} LOGIN"));
    client.assert_full(0, 1);
    unlock.send(()).unwrap();
    locker.join().unwrap();
    wait_for(&url, "SELECT commits FROM vmsync_store", before + 1);
    let mut pages = vec![0; 2 * PAGE as usize];
    let supplied = store.data_request(client.object, 0, VmProt::READ, &mut pages);
    assert_eq!(
        kind(supplied),
        Some(PagerErrorKind::Gone),
        "it shows {}",
        pages[0]
    );
}

/// A server that takes no more connections, as when everybody comes back at once, has an end: the call waits for it.
#[test]
fn a_call_waits_until_there_is_room_for_its_connection() {
    let Some(server) = server() else { return };
    let role = format!("room{}", std::process::id());
    let run = |sql: String| {
        with_client(&server, async |client| client.batch_execute(&sql).await.unwrap());
    };
    // The limit does not hold for superusers.
    run(format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'pass'; GRANT CREATE ON DATABASE postgres TO {role}"
    ));
    let at = server.find('@').unwrap();
    let own = fresh(&format!("postgres://{role}:pass{}", &server[at..]));
    let proxy = Proxy::start(address(&own)).unwrap();
    let store = store(&through(&own, proxy.address()));
    let client = client(&store, "object", 2);
    client.commit_full(0, 1);
    run(format!("ALTER ROLE {role} CONNECTION LIMIT 0"));
    proxy.set(Network::Reset);
    proxy.wait_for_ends();
    proxy.set(Network::Sound);
    thread::scope(|scope| {
        let waits = scope.spawn(|| client.try_commit_full(0, 2));
        // It is refused again and again, or the call is over.
        let before = proxy.connections();
        while proxy.connections() < before + 3 && !waits.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        run(format!("ALTER ROLE {role} CONNECTION LIMIT -1"));
        assert_eq!(kind(waits.join().unwrap()), None);
    });
    client.assert_full(0, 2);
}

/// An object of any size is removed in statements that are all short, also where the writer ends meanwhile.
#[test]
fn a_large_object_is_removed_a_part_at_a_time() {
    let Some(server) = server() else { return };
    let url = fresh(&server);
    let storage = store(&url);
    client(&storage, "kept", 1).commit_full(0, 1);
    let large = client(&storage, "large", 10_000);
    large.commit_full(0, 1);
    large.close();
    // As many as a statement's time is not enough for, on a server that is as slow as it takes.
    let fill = "INSERT INTO vmsync_pages SELECT o.id, page, '', 0
            FROM vmsync_objects o, generate_series(1, 9999) page WHERE o.name = 'large';
        CREATE FUNCTION is_short() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN
            IF (SELECT count(*) FROM gone) > 5000 THEN
                RAISE query_canceled;
            END IF;
            RETURN NULL;
        END';
        CREATE TRIGGER is_short AFTER DELETE ON vmsync_pages REFERENCING OLD TABLE AS gone
            FOR EACH STATEMENT EXECUTE FUNCTION is_short()";
    with_client(&url, async |client| client.batch_execute(fill).await.unwrap());
    storage.remove_object(&ObjectName::new("large").unwrap()).unwrap();
    let pages = "SELECT count(*) FROM vmsync_pages";
    wait_for(&url, pages, 1);
    drop(storage);
    let left = "INSERT INTO vmsync_pages SELECT 999, page, '', 0 FROM generate_series(0, 9999) page";
    with_client(&url, async |client| client.batch_execute(left).await.unwrap());
    let storage = store(&url);
    wait_for(&url, pages, 1);
    client(&storage, "kept", 1).assert_full(0, 1);
}

/// Removing pages is the store's own work: no guest waits for it.
#[test]
fn reads_go_on_beside_a_removal() {
    let Some(server) = server() else { return };
    let url = fresh(&server);
    let storage = store(&url);
    let kept = client(&storage, "kept", 1);
    kept.commit_full(0, 1);
    // The server ends a statement that waits too long; then it is no longer there behind the read, and nothing is known.
    let is_beside = |attempt: u64| {
        let name = format!("large-{attempt}");
        let large = client(&storage, &name, 1);
        large.commit_full(0, 1);
        large.close();
        with_client(&url, async |locker| {
            let lock = format!(
                "BEGIN; SELECT FROM vmsync_pages WHERE object = (SELECT id FROM vmsync_objects WHERE name = '{name}') \
                 FOR UPDATE"
            );
            locker.batch_execute(&lock).await.unwrap();
            let locks = locker.query_one("SELECT pg_backend_pid()", &[]).await.unwrap();
            let removing = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE {} = ANY(pg_blocking_pids(pid))",
                locks.get::<_, i32>(0)
            );
            thread::scope(|scope| {
                let beside = scope.spawn(|| {
                    storage.remove_object(&ObjectName::new(&name).unwrap()).unwrap();
                    wait_for(&url, &removing, 1);
                    kept.assert_full(0, 1);
                    with_client(&url, async |client| {
                        let row = client.query_one(&removing, &[]).await.unwrap();
                        row.get::<_, i64>(0) == 1
                    })
                });
                beside.join().unwrap()
            })
        })
    };
    assert!((0..3).any(is_beside));
}

/// What is within a session's limit for a group is not enough for the largest calls.
#[test]
fn a_large_call_has_more_time() {
    const MIB: usize = 1 << 20;
    let Some(server) = server() else { return };
    let url = fresh(&server);
    let options = Options {
        page_size: PageSize::KIB_64,
        ..Options::default()
    };
    let store = open(&url, &options).unwrap();
    let request = vmsync_core::pager::InitRequest {
        page_size: PageSize::KIB_64,
        size_min: 32 * MIB as u64,
        create: true,
        write: true,
    };
    let client = Client::open_with(store, "object", request).unwrap();
    // 8 s as each statement, and a second for every 16 MiB.
    let check = "CREATE FUNCTION has_more_time() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN
            IF current_setting(''statement_timeout'') <> ''10s'' THEN
                RAISE ''it has %'', current_setting(''statement_timeout'');
            END IF;
            RETURN NULL;
        END';
        CREATE TRIGGER has_more_time BEFORE INSERT ON vmsync_pages EXECUTE FUNCTION has_more_time()";
    with_client(&url, async |client| client.batch_execute(check).await.unwrap());
    let call = Client::call();
    for part in 0..32 {
        client.give(call, part * 16, &vec![7; MIB]).unwrap();
    }
    client.sync(call, 0, 32 * 16).unwrap();
    client.assert_full(32 * 16 - 1, 7);
    client.close();
}
