/* What the Linux Test Project's msync01 to msync04 look at, written anew. */
#include "check.h"

/* 01: after MS_ASYNC (and MS_SYNC) the file has what was stored to the mapping. */
static void msync01(void)
{
    const int ways[] = {MS_ASYNC, MS_SYNC};
    for (int way = 0; way < 2; ++way) {
        int fd = make_file("data/msync01", 2, 'a');
        char *memory = map_file(fd, 2);
        memset(memory + 100, 'b', PAGE);
        CHECK(msync(memory, 2 * PAGE, ways[way]) == 0);
        CHECK(reads_as(fd, 0, 100, 'a') && reads_as(fd, 100, PAGE, 'b') && reads_as(fd, 100 + PAGE, 100, 'a'));
        CHECK(munmap(memory, 2 * PAGE) == 0);
        CHECK(close(fd) == 0);
    }
}

/* 02: after MS_INVALIDATE the mapping shows what was written to the file. */
static void msync02(void)
{
    int fd = make_file("data/msync02", 2, 'a');
    char *memory = map_file(fd, 2);
    CHECK(memory[PAGE] == 'a');
    CHECK(pwrite(fd, "new", 3, PAGE) == 3);
    CHECK(msync(memory, 2 * PAGE, MS_INVALIDATE) == 0);
    CHECK(memcmp(memory + PAGE, "newa", 4) == 0);
    memset(memory, 'c', 10);
    CHECK(msync(memory, 2 * PAGE, MS_SYNC | MS_INVALIDATE) == 0);
    CHECK(memory[9] == 'c' && memory[10] == 'a');
    CHECK(reads_as(fd, 0, 10, 'c'));
}

/* 03: what is refused. */
static void msync03(void)
{
    int fd = make_file("data/msync03", 4, 'a');
    char *memory = map_file(fd, 4);
    CHECK(mlock(memory, PAGE) == 0);
    FAILS(msync(memory, 4 * PAGE, MS_INVALIDATE), EBUSY);
    FAILS(msync(memory, PAGE, MS_SYNC | MS_INVALIDATE), EBUSY);
    CHECK(msync(memory + PAGE, PAGE, MS_INVALIDATE) == 0);
    CHECK(msync(memory, 4 * PAGE, MS_SYNC) == 0);
    CHECK(munlock(memory, PAGE) == 0);
    CHECK(msync(memory, 4 * PAGE, MS_INVALIDATE) == 0);
    FAILS(msync(memory, PAGE, MS_ASYNC | MS_SYNC), EINVAL);
    FAILS(msync(memory, PAGE, MS_SYNC | 8), EINVAL);
    FAILS(msync(memory + 1, PAGE, MS_SYNC), EINVAL);
    CHECK(munmap(memory + PAGE, PAGE) == 0);
    FAILS(msync(memory + PAGE, PAGE, MS_SYNC), ENOMEM);
    FAILS(msync(memory, 4 * PAGE, MS_SYNC), ENOMEM);
    FAILS(msync((void *)(UINTPTR_MAX - PAGE + 1), 2 * PAGE, MS_SYNC), ENOMEM);
}

/* 04: a page is clean after MS_SYNC, and dirty again after a store. */
static void msync04(void)
{
    int fd = make_file("data/msync04", 1, 'a');
    char *memory = map_file(fd, 1);
    CHECK(msync(memory, PAGE, MS_SYNC) == 0);
    uint64_t first = version("data_2Fmsync04");
    CHECK(msync(memory, PAGE, MS_SYNC) == 0);
    CHECK(version("data_2Fmsync04") == first);
    memory[7] = 'b';
    CHECK(msync(memory, PAGE, MS_SYNC) == 0);
    CHECK(version("data_2Fmsync04") > first);
}

const struct test ltp_tests[] = {
    {"msync01", msync01}, {"msync02", msync02}, {"msync03", msync03}, {"msync04", msync04}, {NULL, NULL}};
