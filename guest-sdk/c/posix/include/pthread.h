/*
 * <pthread.h> for programs that are written for threads and have one: wasi-libc has none. Part of the POSIX library.
 *
 * A mutex is always free, keys hold one value, and no thread can be made (EAGAIN).
 */
#ifndef VMSYNC_POSIX_PTHREAD_H
#define VMSYNC_POSIX_PTHREAD_H

#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <time.h>

#define __NEED_pthread_t
#define __NEED_pthread_attr_t
#define __NEED_pthread_key_t
#define __NEED_pthread_mutexattr_t
#define __NEED_pthread_condattr_t
#define __NEED_pthread_mutex_t
#define __NEED_pthread_cond_t
#include <bits/alltypes.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PTHREAD_PROCESS_PRIVATE 0
#define PTHREAD_PROCESS_SHARED 1
#define PTHREAD_MUTEX_STALLED 0
#define PTHREAD_MUTEX_ROBUST 1
#define PTHREAD_MUTEX_INITIALIZER {{{0}}}

int pthread_key_create(pthread_key_t *key, void (*destroy)(void *));
int pthread_key_delete(pthread_key_t key);
void *pthread_getspecific(pthread_key_t key);
int pthread_setspecific(pthread_key_t key, const void *value);

#define VMP_UNUSED __attribute__((unused))
#define VMP_SUCCEEDS(name, ...) \
    static inline int name(__VA_ARGS__) { return 0; }

VMP_SUCCEEDS(pthread_mutexattr_init, pthread_mutexattr_t *attributes VMP_UNUSED)
VMP_SUCCEEDS(pthread_mutexattr_destroy, pthread_mutexattr_t *attributes VMP_UNUSED)
VMP_SUCCEEDS(pthread_mutexattr_setpshared, pthread_mutexattr_t *attributes VMP_UNUSED, int shared VMP_UNUSED)
VMP_SUCCEEDS(pthread_mutexattr_setrobust, pthread_mutexattr_t *attributes VMP_UNUSED, int robust VMP_UNUSED)
VMP_SUCCEEDS(pthread_mutex_init, pthread_mutex_t *mutex VMP_UNUSED,
             const pthread_mutexattr_t *attributes VMP_UNUSED)
VMP_SUCCEEDS(pthread_mutex_destroy, pthread_mutex_t *mutex VMP_UNUSED)
VMP_SUCCEEDS(pthread_mutex_lock, pthread_mutex_t *mutex VMP_UNUSED)
VMP_SUCCEEDS(pthread_mutex_trylock, pthread_mutex_t *mutex VMP_UNUSED)
VMP_SUCCEEDS(pthread_mutex_unlock, pthread_mutex_t *mutex VMP_UNUSED)
VMP_SUCCEEDS(pthread_mutex_consistent, pthread_mutex_t *mutex VMP_UNUSED)
VMP_SUCCEEDS(pthread_cond_init, pthread_cond_t *condition VMP_UNUSED, const pthread_condattr_t *attributes VMP_UNUSED)
VMP_SUCCEEDS(pthread_cond_destroy, pthread_cond_t *condition VMP_UNUSED)
VMP_SUCCEEDS(pthread_cond_signal, pthread_cond_t *condition VMP_UNUSED)
VMP_SUCCEEDS(pthread_cond_broadcast, pthread_cond_t *condition VMP_UNUSED)

/* Nobody could wake the only thread. */
static inline int pthread_cond_wait(pthread_cond_t *condition VMP_UNUSED, pthread_mutex_t *mutex VMP_UNUSED)
{
    return EDEADLK;
}

static inline int pthread_create(pthread_t *thread VMP_UNUSED, const pthread_attr_t *attributes VMP_UNUSED,
                                 void *(*start)(void *)VMP_UNUSED, void *argument VMP_UNUSED)
{
    return EAGAIN;
}

static inline int pthread_join(pthread_t thread VMP_UNUSED, void **result VMP_UNUSED)
{
    return ESRCH;
}

static inline pthread_t pthread_self(void)
{
    return (pthread_t)1;
}

#ifdef __cplusplus
}
#endif

#endif
