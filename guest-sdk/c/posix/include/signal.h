/*
 * wasi-libc's <signal.h> with the calls on sets of signals, which it leaves out. Part of the POSIX library.
 *
 * No signal comes from outside: sets and masks are accepted and stay empty.
 */
#ifndef VMSYNC_POSIX_SIGNAL_H
#define VMSYNC_POSIX_SIGNAL_H

#ifndef _WASI_EMULATED_SIGNAL
#define _WASI_EMULATED_SIGNAL
#endif
#include_next <signal.h>

#include <errno.h>

#ifndef SIG_BLOCK
#define SIG_BLOCK 0
#define SIG_UNBLOCK 1
#define SIG_SETMASK 2
#endif

#define __NEED_sigset_t
#include <bits/alltypes.h>

static inline int sigemptyset(sigset_t *set)
{
    *set = (sigset_t){0};
    return 0;
}

static inline int sigaddset(sigset_t *set __attribute__((unused)), int signal __attribute__((unused)))
{
    return 0;
}

static inline int pthread_sigmask(int how __attribute__((unused)), const sigset_t *set __attribute__((unused)),
                                  sigset_t *old)
{
    return old == 0 ? 0 : sigemptyset(old);
}

/* It would never return. */
static inline int sigwait(const sigset_t *set __attribute__((unused)), int *signal __attribute__((unused)))
{
    return EINVAL;
}

#endif
