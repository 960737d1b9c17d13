/* Cases that the test's host takes part in: failing pagers, quotas, and what is there in the next run. */
#include "check.h"

#include <stdlib.h>
#include <vmsync.h>

/* The first write-back fails, with the errno that is expected; nothing is lost, and the next one succeeds. */
static void fails_once(int expected)
{
    int fd = open("data/faulty", O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0 && ftruncate(fd, 2 * (off_t)PAGE) == 0);
    char *memory = map_file(fd, 2);
    memory[PAGE] = 'x';
    FAILS(msync(memory, 2 * PAGE, MS_SYNC), expected);
    CHECK(memory[PAGE] == 'x');
    CHECK(version("data_2Ffaulty") == 0);
    CHECK(msync(memory, 2 * PAGE, MS_SYNC) == 0);
    CHECK(version("data_2Ffaulty") > 0);
}

static void fault_io(void)
{
    fails_once(EIO);
}

static void fault_full(void)
{
    fails_once(ENOSPC);
}

static void fault_invalidate(void)
{
    int fd = open("data/faulty", O_RDWR | O_CREAT, 0600);
    char *memory = map_file(fd, 1);
    memory[0] = 'x';
    FAILS(msync(memory, PAGE, MS_SYNC | MS_INVALIDATE), EIO);
    CHECK(memory[0] == 'x');
    CHECK(fsync(fd) == 0 && memory[0] == 'x');
}

static void fault_fsync(void)
{
    int fd = make_file("data/faulty", 1, 'a');
    FAILS(fsync(fd), EIO);
    CHECK(fsync(fd) == 0);
}

/* The object may have 1 MiB. */
static void quota(void)
{
    int fd = make_file("data/quota", 1, 'a');
    CHECK(pwrite(fd, "b", 1, 900 << 10) == 1);
    FAILS(pwrite(fd, "b", 1, 1 << 20), ENOSPC);
    FAILS(ftruncate(fd, 2 << 20), ENOSPC);
    /* Behind the end, where there is room for a part of it: nothing is written, and the size stays. */
    FAILS(pwrite(fd, "bb", 2, (1 << 20) - (off_t)PAGE - 1), ENOSPC);
    CHECK(lseek(fd, 0, SEEK_END) == (900 << 10) + 1);
    FAILS((intptr_t)mmap(NULL, 2 << 20, READ_WRITE, MAP_SHARED, fd, 0), ENOSPC);
    CHECK(reads_as(fd, 900 << 10, 1, 'b') && fsync(fd) == 0);
}

/* B2: the flags are translated by name. */
static void flags_by_name(void)
{
    int fd = make_file("data/flags", 1, 'a');
    CHECK(fsync(fd) == 0);
    char *memory = map_file(fd, 1);
    memory[0] = 'b';
    CHECK(msync(memory, PAGE, MS_INVALIDATE) == 0); /* POSIX writes first */
    CHECK(memory[0] == 'b');
    memory[0] = 'c';
    CHECK(msync(memory, PAGE, MS_SYNC) == 0);
    CHECK(vm_msync(mach_task_self(), (vm_address_t)memory, PAGE, VM_SYNC_INVALIDATE) == KERN_SUCCESS);
    CHECK(memory[0] == 'c');
    memory[0] = 'd';
    CHECK(msync(memory, PAGE, 0) == 0); /* a probe, nothing is written */
    CHECK(MS_SYNC == VM_SYNC_INVALIDATE);
    CHECK(vm_msync(mach_task_self(), (vm_address_t)memory, PAGE, MS_SYNC) == KERN_SUCCESS);
    CHECK(memory[0] == 'c'); /* what the number means without the library */
}

/* Three runs: what was synced is there, what was not is not, unless the program ended by itself. */
static void life_1(void)
{
    int fd = make_file("data/life", 1, 'a');
    CHECK(fsync(fd) == 0);
    CHECK(pwrite(fd, "b", 1, 0) == 1 && ftruncate(fd, 10) == 0);
    __builtin_trap();
}

static void life_2(void)
{
    int fd = open("data/life", O_RDWR);
    struct stat status;
    CHECK(fd >= 0 && fstat(fd, &status) == 0 && status.st_size == (off_t)PAGE);
    CHECK(reads_as(fd, 0, PAGE, 'a'));
    CHECK(pwrite(fd, "c", 1, 0) == 1); /* and ends */
}

static void life_3(void)
{
    int fd = open("data/life", O_RDONLY);
    CHECK(reads_as(fd, 0, 1, 'c') && reads_as(fd, 1, PAGE - 1, 'a'));
    FAILS(open("data/gone", O_RDONLY), ENOENT);
}

/* A removed file is gone in the next run too. */
static void gone(void)
{
    CHECK(fsync(make_file("data/gone", 1, 'a')) == 0);
    CHECK(unlink("data/gone") == 0);
    __builtin_trap();
}

/* A file whose 2 pages of 'a' are in the store, cut off: it is empty. */
static int make_emptied(const char *path)
{
    int fd = make_file(path, 2, 'a');
    CHECK(fsync(fd) == 0 && ftruncate(fd, 0) == 0 && fsync(fd) == 0);
    return fd;
}

/* Files grow over what was cut off, and only their first pages are synced. */
static void regrown_1(void)
{
    int fd = make_emptied("data/mapped");
    CHECK(ftruncate(fd, 2 * (off_t)PAGE) == 0);
    char *memory = map_file(fd, 2);
    memory[0] = 'b';
    CHECK(msync(memory, PAGE, MS_SYNC) == 0);
    CHECK(close(make_emptied("data/dsync")) == 0);
    fd = open("data/dsync", O_RDWR | O_DSYNC);
    CHECK(ftruncate(fd, 2 * (off_t)PAGE) == 0 && pwrite(fd, "b", 1, 0) == 1);
    fd = make_emptied("data/written");
    char bytes[2 * PAGE];
    memset(bytes, 'b', sizeof bytes);
    CHECK(pwrite(fd, bytes, sizeof bytes, 0) == (ssize_t)sizeof bytes);
    CHECK(msync(map_file(fd, 1), PAGE, MS_SYNC) == 0);
    if (failures == 0)
        __builtin_trap();
}

static void regrown_2(void)
{
    struct stat status;
    for (int number = 0; number < 2; ++number) {
        int fd = open(number == 0 ? "data/mapped" : "data/dsync", O_RDONLY);
        CHECK(fstat(fd, &status) == 0 && status.st_size == 2 * (off_t)PAGE);
        CHECK(reads_as(fd, 0, 1, 'b') && reads_as(fd, 1, 2 * PAGE - 1, 0));
    }
    int fd = open("data/written", O_RDONLY);
    CHECK(fstat(fd, &status) == 0 && status.st_size == 2 * (off_t)PAGE);
    CHECK(reads_as(fd, 0, 2 * PAGE, 'b'));
}

/* A file is cut off within its second page, and only its first page is synced. */
static void cut_1(void)
{
    int fd = make_file("data/cut", 2, 'a');
    CHECK(fsync(fd) == 0 && ftruncate(fd, (off_t)PAGE + 10) == 0);
    CHECK(msync(map_file(fd, 1), PAGE, MS_SYNC) == 0);
    if (failures == 0)
        __builtin_trap();
}

static void cut_2(void)
{
    int fd = open("data/cut", O_RDWR);
    CHECK(lseek(fd, 0, SEEK_END) == (off_t)PAGE + 10);
    char *memory = map_file(fd, 2);
    CHECK(holds(memory, PAGE + 10, 'a') && holds(memory + PAGE + 10, PAGE - 10, 0));
}

/* Three runs: the second appends to the file, and the first write-back in it fails, which is of a queued call too. */
static void queued_1(void)
{
    CHECK(fsync(make_file("data/queued", 1, 'a')) == 0);
}

static void queued_2(void)
{
    int fd = open("data/queued", O_RDWR);
    char *memory = map_file(fd, 2);
    CHECK(pwrite(fd, "b", 1, (off_t)PAGE) == 1);
    CHECK(msync(memory, PAGE, MS_ASYNC) == 0);
    FAILS(msync(memory + PAGE, PAGE, MS_SYNC), EIO);
    CHECK(msync(memory + PAGE, PAGE, MS_SYNC) == 0);
    if (failures == 0)
        __builtin_trap();
}

static void queued_3(void)
{
    int fd = open("data/queued", O_RDONLY);
    struct stat status;
    CHECK(fstat(fd, &status) == 0 && status.st_size == (off_t)PAGE + 1);
    CHECK(reads_as(fd, 0, PAGE, 'a') && reads_as(fd, (off_t)PAGE, 1, 'b'));
}

/* The folder's store is open for reading only; it has a file "life". */
static void read_only(void)
{
    struct stat status;
    CHECK(stat("data/life", &status) == 0 && (status.st_mode & 0777) == 0444);
    FAILS(open("data/life", O_RDWR), EROFS);
    FAILS(open("data/new", O_RDWR | O_CREAT, 0600), EROFS);
    FAILS(unlink("data/life"), EROFS);
    FAILS(access("data/life", W_OK), EROFS);
    int fd = open("data/life", O_RDONLY);
    char *memory = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED && memory[0] == 'c');
    CHECK(msync(memory, PAGE, MS_SYNC) == 0);
}

/* A pointer into a file is good in the next run. */
static void address(void)
{
    int other = make_file("data/other", 1, 'o');
    int fd = open("data/address", O_RDWR | O_CREAT, 0600);
    CHECK(ftruncate(fd, (off_t)PAGE) == 0);
    void **memory = (void **)map_file(fd, 1);
    if (memory[0] != NULL)
        CHECK(memory[0] == memory);
    memory[0] = memory;
    CHECK(msync(memory, PAGE, MS_SYNC) == 0 && fsync(other) == 0);
}

static void address_other_order(void)
{
    int fd = open("data/address", O_RDWR);
    void **memory = (void **)map_file(fd, 1);
    CHECK(memory[0] == memory);
    CHECK(reads_as(open("data/other", O_RDWR), 0, 1, 'o'));
}

/* Regions of vmsync.h and files share the window, in either order. */
static void beside_regions(void)
{
    vms_region_t first, second;
    CHECK(vms_map(&first, "data_2Fregion-1", 3 * PAGE) == KERN_SUCCESS);
    memset(first.data, 'r', first.size);
    int fd = make_file("data/beside-1", 20, 'a');
    CHECK(vms_map(&second, "data_2Fregion-2", PAGE) == KERN_SUCCESS);
    memset(second.data, 's', second.size);
    int other = make_file("data/beside-2", 20, 'b');
    CHECK(reads_as(fd, 0, 20 * PAGE, 'a') && reads_as(other, 0, 20 * PAGE, 'b'));
    CHECK(*(char *)first.data == 'r' && *(char *)second.data == 's');
    /* The first file grows up to the region behind it, and no further. */
    off_t room = (off_t)((uintptr_t)second.data - (uintptr_t)map_file(fd, 1));
    CHECK(pwrite(fd, "a", 1, room - 1) == 1);
    FAILS(pwrite(fd, "a", 1, room), EFBIG);
    FAILS((intptr_t)mmap(NULL, 1 << 20, READ_WRITE, MAP_SHARED, fd, 0), ENOMEM);
    CHECK(fsync(fd) == 0 && vms_flush(&first) == KERN_SUCCESS);
}

/* What is no file is refused, and is in nobody's way afterwards. */
static void foreign(void)
{
    vms_region_t region;
    CHECK(vms_map(&region, "data_2Fforeign", PAGE) == KERN_SUCCESS);
    memset(region.data, 'x', PAGE);
    CHECK(vms_flush(&region) == KERN_SUCCESS && vms_unmap(&region) == KERN_SUCCESS);
    FAILS(open("data/foreign", O_RDWR), EINVAL);
    /* Takes the place where it was looked at. */
    CHECK(mmap(NULL, PAGE, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == (void *)vms_window_start());
    CHECK(reads_as(make_file("data/file", 1, 'a'), 0, PAGE, 'a'));
}

const struct test host_tests[] = {{"fault-io", fault_io},
                                  {"fault-full", fault_full},
                                  {"fault-invalidate", fault_invalidate},
                                  {"fault-fsync", fault_fsync},
                                  {"quota", quota},
                                  {"flags-by-name", flags_by_name},
                                  {"life-1", life_1},
                                  {"life-2", life_2},
                                  {"life-3", life_3},
                                  {"gone", gone},
                                  {"regrown-1", regrown_1},
                                  {"regrown-2", regrown_2},
                                  {"cut-1", cut_1},
                                  {"cut-2", cut_2},
                                  {"queued-1", queued_1},
                                  {"queued-2", queued_2},
                                  {"queued-3", queued_3},
                                  {"read-only", read_only},
                                  {"beside-regions", beside_regions},
                                  {"foreign", foreign},
                                  {"address", address},
                                  {"address-other-order", address_other_order},
                                  {NULL, NULL}};
