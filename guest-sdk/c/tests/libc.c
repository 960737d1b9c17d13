/* What LLVM libc's and NetBSD's tests of msync and its neighbours look at, written anew. */
#include "check.h"

/* LLVM libc: anonymous memory. */
static void llvm_msync(void)
{
    char *memory = mmap(NULL, PAGE, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    memory[0] = 1;
    CHECK(msync(memory, PAGE, MS_SYNC) == 0);
    CHECK(msync(memory, PAGE, MS_ASYNC) == 0);
    CHECK(msync(memory, PAGE, MS_INVALIDATE) == 0);
    CHECK(memory[0] == 1);
    FAILS(msync(memory, PAGE, MS_SYNC | MS_ASYNC), EINVAL);
    FAILS(msync(memory + 1, PAGE - 1, MS_SYNC), EINVAL);
    CHECK(mlock(memory, PAGE) == 0);
    FAILS(msync(memory, PAGE, MS_INVALIDATE), EBUSY);
    CHECK(munlock(memory, PAGE) == 0);
    CHECK(msync(memory, PAGE, MS_INVALIDATE) == 0);
    CHECK(munmap(memory, PAGE) == 0);
    FAILS(msync(memory, PAGE, MS_SYNC), ENOMEM);
}

static void llvm_mmap(void)
{
    FAILS((intptr_t)mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), EINVAL);
    FAILS((intptr_t)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, -1, 0), EBADF);
    FAILS((intptr_t)mmap(NULL, PAGE, PROT_READ, MAP_ANONYMOUS, -1, 0), EINVAL);
    FAILS((intptr_t)mmap(NULL, SIZE_MAX, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
    FAILS(munmap(NULL, 0), EINVAL);
    char *memory = mmap(NULL, 2 * PAGE, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t index = 0; index < 2 * PAGE; ++index)
        CHECK(memory[index] == 0);
    FAILS(munmap(memory + 1, PAGE), EINVAL);
    CHECK(munmap(memory, 2 * PAGE) == 0);
}

static void llvm_mprotect(void)
{
    char *memory = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED && memory[0] == 0);
    CHECK(mprotect(memory, 2 * PAGE, READ_WRITE) == 0);
    memory[0] = 5;
    CHECK(mprotect(memory, PAGE, PROT_READ) == 0);
    CHECK(memory[0] == 5);
    memory[PAGE] = 6;
    FAILS(mprotect(memory + 1, PAGE, PROT_READ), EINVAL);
    CHECK(munmap(memory + PAGE, PAGE) == 0);
    FAILS(mprotect(memory, 2 * PAGE, READ_WRITE), ENOMEM);
}

static void llvm_madvise(void)
{
    char *memory = mmap(NULL, 2 * PAGE, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory[0] = 5;
    CHECK(madvise(memory, 2 * PAGE, MADV_RANDOM) == 0);
    CHECK(madvise(memory, 2 * PAGE, MADV_SEQUENTIAL) == 0);
    CHECK(madvise(memory, 2 * PAGE, MADV_NORMAL) == 0);
    CHECK(madvise(memory, 2 * PAGE, MADV_WILLNEED) == 0);
    CHECK(posix_madvise(memory, 2 * PAGE, POSIX_MADV_DONTNEED) == 0);
    CHECK(memory[0] == 5);
    CHECK(madvise(memory, 2 * PAGE, MADV_DONTNEED) == 0);
    CHECK(memory[0] == 0);
    FAILS(madvise(memory, PAGE, 1000), EINVAL);
    CHECK(posix_madvise(memory + 1, PAGE, POSIX_MADV_NORMAL) == EINVAL);
    CHECK(munmap(memory, PAGE) == 0);
    FAILS(madvise(memory, 2 * PAGE, MADV_NORMAL), ENOMEM);
}

/* NetBSD: a file, with each of the flags, some of them after it was closed. */
static void netbsd_msync(void)
{
    const int ways[] = {MS_ASYNC, MS_SYNC, MS_INVALIDATE};
    for (int way = 0; way < 3; ++way) {
        for (int closed = 0; closed < 2; ++closed) {
            int fd = make_file("data/netbsd", 2, 'a');
            char *memory = map_file(fd, 2);
            if (closed)
                CHECK(close(fd) == 0);
            memset(memory, 'b', PAGE);
            CHECK(msync(memory, 2 * PAGE, ways[way]) == 0);
            for (size_t index = 0; index < 2 * PAGE; ++index)
                CHECK(memory[index] == (index < PAGE ? 'b' : 'a'));
            CHECK(munmap(memory, 2 * PAGE) == 0);
            FAILS(msync(memory, 2 * PAGE, ways[way]), ENOMEM);
            int again = open("data/netbsd", O_RDONLY);
            CHECK(reads_as(again, 0, PAGE, 'b'));
            CHECK(close(again) == 0);
            if (!closed)
                CHECK(close(fd) == 0);
        }
    }
    FAILS(msync((void *)-1, PAGE, MS_SYNC), EINVAL);
    FAILS(msync((void *)(UINTPTR_MAX - PAGE + 1), PAGE + 1, MS_SYNC), ENOMEM);
}

const struct test libc_tests[] = {{"llvm-msync", llvm_msync},
                                  {"llvm-mmap", llvm_mmap},
                                  {"llvm-mprotect", llvm_mprotect},
                                  {"llvm-madvise", llvm_madvise},
                                  {"netbsd-msync", netbsd_msync},
                                  {NULL, NULL}};
