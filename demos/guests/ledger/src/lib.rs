//! A ledger that knows nothing of durability: a `BTreeMap` of the standard library on the ordinary heap.
//!
//! `vmsync run --durable STORE --invoke deposit ledger.wasm -- ACCOUNT AMOUNT` keeps the whole instance between runs.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// An account's balance and what was said about each change.
#[derive(Default)]
struct Account {
    balance: i64,
    history: Vec<String>,
}

static ACCOUNTS: Mutex<BTreeMap<u64, Account>> = Mutex::new(BTreeMap::new());

/// Adds `amount` to `account` and returns its balance. Traps, and so changes nothing, where that would be below zero.
#[unsafe(no_mangle)]
pub extern "C" fn deposit(account: u64, amount: i64) -> i64 {
    let mut accounts = ACCOUNTS.lock().expect("one thread");
    let account = accounts.entry(account).or_default();
    account.balance += amount;
    account.history.push(format!("{amount:+}: {}", account.balance));
    assert!(account.balance >= 0, "no credit");
    account.balance
}

/// The sum of all balances.
#[unsafe(no_mangle)]
pub extern "C" fn total() -> i64 {
    let accounts = ACCOUNTS.lock().expect("one thread");
    accounts.values().map(|account| account.balance).sum()
}

/// How many changes there have been, counted in the accounts' histories.
#[unsafe(no_mangle)]
pub extern "C" fn changes() -> u64 {
    let accounts = ACCOUNTS.lock().expect("one thread");
    accounts
        .values()
        .map(|account| account.history.len() as u64)
        .sum()
}
