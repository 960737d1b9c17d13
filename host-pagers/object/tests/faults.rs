//! Networks that misbehave, in front of a real server.

mod common;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use common::{address, bucket, client, location, prefix, server, store};
use vmsync_core::{PagerErrorKind, pager::Pager};
use vmsync_pager_conformance::{Client, Network, Proxy};

#[test]
fn a_commit_through_a_bad_network_takes_place_once() {
    let Some(server) = server() else { return };
    for fault in [
        Network::Slow(Duration::from_millis(20)),
        Network::Reset,
        Network::LostReplies,
        Network::Duplicated,
        Network::Partition,
    ] {
        let proxy = Arc::new(Proxy::start(address(&server)).unwrap());
        let prefix = prefix();
        let bad = location(&bucket(&server, proxy.address()), &prefix);
        let good = location(&bucket(&server, address(&server)), &prefix);
        // A duplicating network has to be there when connections are made.
        proxy.set(if fault == Network::Duplicated {
            fault
        } else {
            Network::Sound
        });
        let storage = store(&bad);
        let one = client(&storage, "object", 40);
        one.commit_full(0, 1);
        let first = one.attributes().version;
        for byte in 2..5 {
            proxy.set(fault);
            let healer = proxy.clone();
            let heal = thread::spawn(move || {
                thread::sleep(Duration::from_millis(150));
                if fault != Network::Duplicated {
                    healer.set(Network::Sound);
                }
            });
            // Small ones lie in the manifest, large ones in a segment.
            let call = Client::call();
            one.give_full(call, 0, byte);
            for page in 1..if byte == 3 { 40 } else { 2 } {
                let bytes: Vec<u8> = (0..4096u32)
                    .map(|at| (at as u8).wrapping_mul(byte) ^ page as u8)
                    .collect();
                one.give(call, page, &bytes).unwrap();
            }
            one.sync(call, 0, 40).unwrap();
            heal.join().unwrap();
            one.assert_full(0, byte);
        }
        assert_eq!(one.attributes().version, first + 3, "{fault:?}");
        one.close();
        drop(storage);
        let again = client(&store(&good), "object", 40);
        again.assert_full(0, 4);
        assert_eq!(
            again.opened.version,
            first + 3,
            "{fault:?}: each call took place once"
        );
        again.close();
    }
}

/// The host that is cut off is declared dead, and another one goes on; when the network heals, it is fenced.
#[test]
fn a_partitioned_writer_is_fenced_when_the_network_heals() {
    let Some(server) = server() else { return };
    let proxy = Arc::new(Proxy::start(address(&server)).unwrap());
    let prefix = prefix();
    let cut_off = store(&location(&bucket(&server, proxy.address()), &prefix));
    let stale = client(&cut_off, "object", 4);
    stale.commit_full(0, 1);
    proxy.set(Network::Partition);
    thread::scope(|scope| {
        let lost = scope.spawn(|| stale.try_commit_full(0, 66));
        thread::sleep(Duration::from_millis(100));
        let storage = store(&location(&bucket(&server, address(&server)), &prefix));
        let owner = client(&storage, "object", 4);
        owner.assert_full(0, 1);
        owner.commit_full(0, 2);
        proxy.set(Network::Sound);
        let error = lost.join().unwrap().unwrap_err();
        assert_eq!(error.kind, PagerErrorKind::Gone, "{error}");
        owner.assert_full(0, 2);
        owner.commit_full(0, 3);
        owner.close();
    });
}

#[test]
fn a_server_that_stays_away_is_an_error_in_bounded_time() {
    let Some(server) = server() else { return };
    let proxy = Arc::new(Proxy::start(address(&server)).unwrap());
    let prefix = prefix();
    let storage = store(&location(&bucket(&server, proxy.address()), &prefix));
    let one = client(&storage, "object", 4);
    one.commit_full(0, 1);
    proxy.set(Network::Reset);
    let start = Instant::now();
    let error = one.try_commit_full(0, 2).unwrap_err();
    assert_eq!(error.kind, PagerErrorKind::Io, "{error}");
    assert!(
        error.message.contains("check that the server can be reached"),
        "{error}"
    );
    // It gives up after 30 s.
    assert!(start.elapsed() < Duration::from_secs(300));
    one.assert_full(0, 1);
    proxy.set(Network::Sound);
    one.commit_full(0, 3);
    one.assert_full(0, 3);
    assert!(storage.attributes(one.object).is_ok());
    one.close();
}
