//! Many runs of pages that go back at once.

use vmsync_core::pager::SynchronizeFlags;

use crate::{Client, Fixture, limits::RUNS_PAGES, random::Random};

/// Rounds, each of them a call.
const ROUNDS: usize = 4;

pub(super) fn many_at_once(fixture: &mut Fixture) {
    let mut random = Random::from_environment("many runs");
    let page_length = usize::try_from(fixture.page_size().bytes()).expect("a page fits");
    let mut model = vec![0; page_length * RUNS_PAGES as usize];
    let client = Client::open(fixture, "runs", RUNS_PAGES);
    for round in 0..ROUNDS {
        let call = Client::call();
        // What comes back a second time counts.
        for _ in 0..=random.below(2) {
            let mut changed = Vec::new();
            let mut page = random.below(4);
            while page < RUNS_PAGES {
                let count = (1 + random.below(4)).min(RUNS_PAGES - page);
                let bytes = &mut model[page as usize * page_length..][..count as usize * page_length];
                for _ in 0..random.below(4) {
                    let start = random.below(bytes.len() as u64) as usize;
                    let end = (start + 1 + random.below(100) as usize).min(bytes.len());
                    random.fill(&mut bytes[start..end]);
                }
                changed.push((page, count));
                page += count + 1 + random.below(4);
            }
            let runs: Vec<(u64, &[u8])> = changed
                .iter()
                .map(|(page, count)| {
                    let bytes = &model[*page as usize * page_length..][..*count as usize * page_length];
                    (*page, bytes)
                })
                .collect();
            client.give_runs(call, &runs).expect("the runs go back");
        }
        let flags = SynchronizeFlags {
            synchronous: round % 2 == 0,
            more: false,
            nowait: false,
        };
        client
            .synchronize(call, (0, RUNS_PAGES), flags)
            .expect("is taken");
        client
            .recorder
            .wait(client.range(0, RUNS_PAGES))
            .expect("completes");
        assert!(client.read(0, RUNS_PAGES) == model, "round {round}");
    }
    client.sync(Client::call(), 0, RUNS_PAGES).expect("commits");
    client.close();
    fixture.reopen();
    if fixture.is_durable() {
        let client = Client::open(fixture, "runs", RUNS_PAGES);
        assert!(client.read(0, RUNS_PAGES) == model, "after opening");
        client.close();
    }
}

pub(super) fn one_is_refused(fixture: &mut Fixture) {
    let client = Client::open(fixture, "refused", 4);
    client.commit_full(0, 1);
    let call = Client::call();
    let page = client.page_of(2);
    let refused = client.give_runs(call, &[(0, &page), (9, &page)]);
    assert!(refused.is_err(), "page 9 of 4");
    client.pager().abort(call);
    client.assert_full(0, 1);
    client.commit_full(1, 3);
    client.assert_full(0, 1);
    client.close();
}

/// Each return of a page is of the whole page: what an earlier one changed and a later one does not is as it was.
pub(super) fn come_back_again(fixture: &mut Fixture) {
    let client = Client::open(fixture, "again", 32);
    let call = Client::call();
    let empty = client.page_of(0);
    let page = |place: usize| {
        let mut page = empty.clone();
        page[place] = 1;
        page
    };
    client.give(call, 10, &page(0)).expect("goes back");
    client
        .give_runs(call, &[(5, &page(1)), (20, &page(2)), (30, &page(3))])
        .expect("the runs go back");
    client.give_runs(call, &[(20, &page(4))]).expect("goes back");
    client.give(call, 30, &page(5)).expect("goes back");
    client.sync(call, 0, 32).expect("commits");
    let check = |client: &Client| {
        for (number, place) in [(10, 0), (5, 1), (20, 4), (30, 5)] {
            assert!(client.read(number, 1) == page(place), "page {number}");
        }
    };
    check(&client);
    client.close();
    fixture.reopen();
    if fixture.is_durable() {
        let client = Client::open(fixture, "again", 32);
        check(&client);
        client.close();
    }
}
