/* The keys of <pthread.h>: one value each, for there is one thread. */
#include <pthread.h>

#define KEYS_MAX 128 /* as POSIX asks for */

static struct {
    int used;
    const void *value;
} keys[KEYS_MAX];

int pthread_key_create(pthread_key_t *key, void (*destroy)(void *))
{
    (void)destroy; /* the thread ends with the program, which calls none either */
    for (unsigned index = 0; index < KEYS_MAX; ++index) {
        if (!keys[index].used) {
            keys[index].used = 1;
            keys[index].value = NULL;
            *key = index;
            return 0;
        }
    }
    return EAGAIN;
}

int pthread_key_delete(pthread_key_t key)
{
    if (key >= KEYS_MAX || !keys[key].used)
        return EINVAL;
    keys[key].used = 0;
    return 0;
}

void *pthread_getspecific(pthread_key_t key)
{
    return key < KEYS_MAX && keys[key].used ? (void *)keys[key].value : NULL;
}

int pthread_setspecific(pthread_key_t key, const void *value)
{
    if (key >= KEYS_MAX || !keys[key].used)
        return EINVAL;
    keys[key].value = value;
    return 0;
}
