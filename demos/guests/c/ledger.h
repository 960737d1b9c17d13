/*
 * What the ledgers of demos/guests/lmdb and sqlite keep: accounts, and transfers between them that are a function of
 * their number. So the number of transfers says what every account must hold, to the last unit.
 */
#ifndef LEDGER_H
#define LEDGER_H

#include <stdint.h>
#include <stdio.h>

#define LEDGER_ACCOUNTS 64
#define LEDGER_START 1000
/* Pairs of accounts that one transaction changes. */
#define LEDGER_PAIRS 4

struct ledger_transfer {
    unsigned from;
    unsigned to;
    int64_t amount;
};

/* Transfer `pair` of transaction `number`. */
static inline struct ledger_transfer ledger_transfer(uint64_t number, unsigned pair)
{
    uint64_t mixed = (number * LEDGER_PAIRS + pair + 1) * 0x9E3779B97F4A7C15u; /* splitmix64 */
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EBu;
    mixed ^= mixed >> 31;
    return (struct ledger_transfer){(unsigned)(mixed % LEDGER_ACCOUNTS), (unsigned)(mixed >> 8) % LEDGER_ACCOUNTS,
                                    (int64_t)(mixed >> 40)};
}

/* Compares with what `count` transactions make; the number of wrong accounts. */
static inline unsigned ledger_check(uint64_t count, const int64_t balances[LEDGER_ACCOUNTS])
{
    int64_t model[LEDGER_ACCOUNTS];
    unsigned wrong = 0;
    for (unsigned account = 0; account < LEDGER_ACCOUNTS; ++account)
        model[account] = LEDGER_START;
    for (uint64_t number = 0; number < count; ++number) {
        for (unsigned pair = 0; pair < LEDGER_PAIRS; ++pair) {
            struct ledger_transfer transfer = ledger_transfer(number, pair);
            model[transfer.from] -= transfer.amount;
            model[transfer.to] += transfer.amount;
        }
    }
    for (unsigned account = 0; account < LEDGER_ACCOUNTS; ++account) {
        if (balances[account] != model[account]) {
            fprintf(stderr, "account %u holds %lld, not %lld, after %llu transactions\n", account,
                    (long long)balances[account], (long long)model[account], (unsigned long long)count);
            ++wrong;
        }
    }
    return wrong;
}

/* Says that transaction `count` is durable, before anything else happens. */
static inline void ledger_say(const char *what, uint64_t count)
{
    printf("%s %llu\n", what, (unsigned long long)count);
    fflush(stdout);
}

#endif
