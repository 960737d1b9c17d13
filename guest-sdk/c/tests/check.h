/*
 * The tests of the POSIX library: one program, one case a run. `posix.wasm CASE` exits with 0 when all of its checks
 * hold, and prints those that do not. runtime/tests/posix.rs runs them, below a --files folder "data".
 */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

extern int failures;

#define CHECK(condition)                                                                             \
    do {                                                                                             \
        errno = 0;                                                                                   \
        if (!(condition)) {                                                                          \
            printf("%s:%d: %s (errno %d: %s)\n", __FILE__, __LINE__, #condition, errno, strerror(errno)); \
            ++failures;                                                                              \
        }                                                                                            \
    } while (0)

/* The call answers -1 with this errno. */
#define FAILS(call, expected) CHECK((call) == -1 && errno == (expected))

#define PAGE ((size_t)4096)
#define READ_WRITE (PROT_READ | PROT_WRITE)

/* A new file of `pages` pages full of `byte`, open for both. */
int make_file(const char *path, size_t pages, char byte);
/* It, mapped shared for both. */
char *map_file(int fd, size_t pages);
/* How often the file's object was changed durably; flushes nothing. */
uint64_t version(const char *object);
/* Whether all of these bytes are `byte`. */
bool holds(const char *memory, size_t count, char byte);
/* Whether all of the file's bytes from `offset` on are `byte`, as read() sees them. */
bool reads_as(int fd, off_t offset, size_t count, char byte);

struct test {
    const char *name;
    void (*run)(void);
};

extern const struct test ltp_tests[], matrix_tests[], libc_tests[], file_tests[], host_tests[];

#endif
