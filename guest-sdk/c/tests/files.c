/* Files whose bytes are objects: read, write and mappings see the same, whatever the order. */
#include "check.h"

#include <stdlib.h>

static void coherence(void)
{
    int fd = make_file("data/coherence", 3, 'a');
    char *memory = map_file(fd, 3);
    char *second = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, (off_t)PAGE);
    CHECK(second != MAP_FAILED);
    int other = open("data/./x/..//coherence", O_RDWR);
    CHECK(other >= 0);
    CHECK(pwrite(other, "bcd", 3, (off_t)PAGE - 1) == 3);
    CHECK(memory[PAGE - 1] == 'b' && memory[PAGE] == 'c' && second[0] == 'c' && second[1] == 'd');
    memory[PAGE + 1] = 'e';
    CHECK(second[1] == 'e' && reads_as(other, (off_t)PAGE + 1, 1, 'e'));
    /* The other mapping stays when one of two goes, in part or whole. */
    CHECK(munmap(second, PAGE) == 0);
    CHECK(msync(memory, 3 * PAGE, MS_SYNC) == 0);
    CHECK(mmap(NULL, 2 * PAGE, READ_WRITE, MAP_SHARED, fd, 0) == memory);
    CHECK(munmap(memory + PAGE, 2 * PAGE) == 0);
    FAILS(msync(memory, 3 * PAGE, MS_SYNC), ENOMEM);
    CHECK(msync(memory, 2 * PAGE, MS_SYNC) == 0);
    /* A private copy goes its own way. */
    char *copy = mmap(NULL, 3 * PAGE, READ_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(copy != MAP_FAILED && copy[PAGE] == 'c');
    copy[0] = 'z';
    CHECK(memory[0] == 'a' && reads_as(fd, 0, 1, 'a'));
}

static void access_modes(void)
{
    CHECK(close(make_file("data/modes", 1, 'a')) == 0);
    int reader = open("data/modes", O_RDONLY);
    int writer = open("data/modes", O_WRONLY);
    CHECK(reader >= 0 && writer >= 0);
    FAILS(write(reader, "b", 1), EBADF);
    char byte;
    FAILS(read(writer, &byte, 1), EBADF);
    FAILS((intptr_t)mmap(NULL, PAGE, READ_WRITE, MAP_SHARED, reader, 0), EACCES);
    FAILS((intptr_t)mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, writer, 0), EACCES);
    char *memory = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reader, 0);
    CHECK(memory != MAP_FAILED && memory[0] == 'a');
    FAILS(mprotect(memory, PAGE, READ_WRITE), EACCES);
    FAILS(ftruncate(reader, 0), EINVAL);
    FAILS(open("data/modes", O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
    FAILS(open("data/none", O_RDWR), ENOENT);
    CHECK(open("elsewhere/none", O_RDWR) == -1); /* wasi-libc says why */
    FAILS((intptr_t)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reader, 1), EINVAL);
}

/* Growing, shrinking, and that bytes which were cut off never come back. */
static void sizes(void)
{
    struct stat status;
    int fd = make_file("data/sizes", 2, 'a');
    CHECK(ftruncate(fd, 100) == 0);
    CHECK(fstat(fd, &status) == 0 && status.st_size == 100 && S_ISREG(status.st_mode));
    CHECK(ftruncate(fd, 2 * (off_t)PAGE) == 0);
    CHECK(reads_as(fd, 0, 100, 'a') && reads_as(fd, 100, 2 * PAGE - 100, 0));
    CHECK(ftruncate(fd, 10) == 0);
    CHECK(pwrite(fd, "b", 1, 1000) == 1);
    CHECK(reads_as(fd, 0, 10, 'a') && reads_as(fd, 10, 990, 0) && reads_as(fd, 1000, 1, 'b'));
    CHECK(lseek(fd, 0, SEEK_END) == 1001);
    CHECK(lseek(fd, -1, SEEK_CUR) == 1000 && lseek(fd, 5, SEEK_SET) == 5);
    FAILS(lseek(fd, -1, SEEK_SET), EINVAL);
    /* Nor does a mapping show what was cut off of the last page, also where that becomes the last by a write. */
    int cut = make_file("data/cut", 2, 'a');
    char *last = map_file(cut, 2);
    CHECK(ftruncate(cut, (off_t)PAGE + 10) == 0);
    CHECK(holds(last, PAGE + 10, 'a') && holds(last + PAGE + 10, PAGE - 10, 0));
    CHECK(ftruncate(cut, 0) == 0 && pwrite(cut, "b", 1, 10) == 1);
    CHECK(holds(last, 10, 0) && last[10] == 'b' && holds(last + 11, PAGE - 11, 0));
    /* Far beyond the first size of an object, with a mapping in place. */
    char *memory = map_file(fd, 1);
    memory[3] = 'm';
    CHECK(pwrite(fd, "far", 3, 20 << 20) == 3);
    CHECK(memory[3] == 'm' && reads_as(fd, 3, 1, 'm') && reads_as(fd, 20 << 20, 1, 'f'));
    CHECK(posix_fallocate(fd, 0, 30 << 20) == 0);
    CHECK(stat("data/sizes", &status) == 0 && status.st_size == 30 << 20);
    CHECK(fsync(fd) == 0);
    /* What was stored through a mapping behind the end does not show when the file grows over it. */
    int tail = make_file("data/tail", 1, 'a');
    char *behind = map_file(tail, 2);
    behind[PAGE + 5] = 'x';
    CHECK(ftruncate(tail, 2 * (off_t)PAGE) == 0);
    CHECK(reads_as(tail, (off_t)PAGE, PAGE, 0));
}

/* What is written may come from behind the end of the file itself, where a mapping of it has stored. */
static void from_behind(void)
{
    int fd = make_file("data/behind", 1, 'a');
    CHECK(ftruncate(fd, 100) == 0);
    char *memory = map_file(fd, 1);
    memset(memory + 200, 'x', 10);
    CHECK(pwrite(fd, memory + 200, 10, 100) == 10);
    CHECK(reads_as(fd, 0, 100, 'a') && reads_as(fd, 100, 10, 'x'));
    CHECK(holds(memory + 110, PAGE - 110, 0));
    /* From the gap that the write leaves, and from both sides of the new end. */
    memset(memory + 200, 'y', 20);
    CHECK(pwrite(fd, memory + 200, 10, 300) == 10);
    CHECK(reads_as(fd, 110, 190, 0) && reads_as(fd, 300, 10, 'y') && holds(memory + 310, PAGE - 310, 0));
    memset(memory + 310, 'z', 20);
    CHECK(pwrite(fd, memory + 310, 20, 320) == 20);
    CHECK(reads_as(fd, 310, 10, 0) && reads_as(fd, 320, 20, 'z') && holds(memory + 340, PAGE - 340, 0));
    struct stat status;
    CHECK(fstat(fd, &status) == 0 && status.st_size == 340);
}

static void names(void)
{
    struct stat status;
    CHECK(stat("data", &status) == 0 && S_ISDIR(status.st_mode));
    CHECK(mkdir("data/folder", 0700) == 0);
    CHECK(close(make_file("data/folder/.a b_2F", 1, 'n')) == 0);
    CHECK(close(make_file("/data/folder_2F.a b", 1, 'm')) == 0);
    int fd = open("data/folder/.a b_2F", O_RDONLY);
    CHECK(reads_as(fd, 0, 1, 'n'));
    CHECK(access("data/folder/.a b_2F", R_OK | W_OK) == 0);
    FAILS(access("data/folder/.a b_2F", X_OK), EACCES);
    FAILS(rename("data/folder/.a b_2F", "data/b"), EXDEV);
    FAILS(rename("data/none", "data/b"), ENOENT);
    CHECK(unlink("/data/folder_2F.a b") == 0);
    FAILS(unlink("/data/folder_2F.a b"), ENOENT);
    FAILS(access("/data/folder_2F.a b", F_OK), ENOENT);
    CHECK(reads_as(make_file("/data/folder_2F.a b", 0, 0), 0, 1, 'm') == false);
    struct stat one, two;
    CHECK(stat("data/folder/.a b_2F", &one) == 0 && fstat(fd, &two) == 0 && one.st_ino == two.st_ino);
    CHECK(stat("data/folder_2F.a b", &two) == 0 && one.st_ino != two.st_ino);
    char longest[300];
    memset(longest, 'l', sizeof longest);
    memcpy(longest, "data/", 5);
    longest[sizeof longest - 1] = 0;
    CHECK(open(longest, O_RDWR | O_CREAT, 0600) == -1);
}

static void streams(void)
{
    FILE *file = fopen("data/stream", "w+");
    CHECK(file != NULL);
    for (int line = 0; line < 1000; ++line)
        CHECK(fprintf(file, "line %d\n", line) > 0);
    CHECK(fseek(file, 0, SEEK_SET) == 0);
    char text[32];
    CHECK(fgets(text, sizeof text, file) != NULL && strcmp(text, "line 0\n") == 0);
    CHECK(fclose(file) == 0);
    file = fopen("data/stream", "a");
    CHECK(fputs("end\n", file) >= 0 && fclose(file) == 0);
    struct stat status;
    CHECK(stat("data/stream", &status) == 0 && status.st_size == 8890 + 4);
    CHECK(remove("data/stream") == 0 && access("data/stream", F_OK) == -1);
}

static void locks(void)
{
    int fd = make_file("data/locks", 1, 'a');
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    CHECK(fcntl(fd, F_SETLK, &lock) == 0);
    CHECK(fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type == F_UNLCK);
    CHECK(fcntl(fd, F_GETFL) & O_RDWR);
    CHECK(sysconf(_SC_PAGESIZE) == (long)PAGE);
    char *memory = map_file(fd, 1);
    FAILS(mlock(memory + 1, SIZE_MAX), ENOMEM);
    FAILS(munlock(memory + PAGE - 1, SIZE_MAX - 1), ENOMEM);
    CHECK(mlock(memory + 1, 1) == 0);
    FAILS(msync(memory, PAGE, MS_INVALIDATE), EBUSY);
}

/* mprotect binds pointers; write goes on. */
static void protection(void)
{
    int fd = make_file("data/protection", 4, 'a');
    char *memory = map_file(fd, 4);
    CHECK(mprotect(memory + PAGE, 2 * PAGE, PROT_READ) == 0);
    char bytes[3 * PAGE];
    memset(bytes, 'b', sizeof bytes);
    CHECK(pwrite(fd, bytes, sizeof bytes, 10) == (ssize_t)sizeof bytes);
    CHECK(reads_as(fd, 10, sizeof bytes, 'b') && reads_as(fd, (off_t)sizeof bytes + 10, PAGE - 10, 'a'));
    CHECK(mprotect(memory, 4 * PAGE, READ_WRITE) == 0);
    memory[PAGE] = 'c';
    CHECK(fsync(fd) == 0);
}

/* A protection ends with its mapping, and forbids nothing that another mapping allows. */
static void protection_ends(void)
{
    int fd = make_file("data/protection", 3, 'a');
    char *memory = map_file(fd, 3);
    CHECK(mprotect(memory, 3 * PAGE, PROT_READ) == 0);
    CHECK(munmap(memory, 3 * PAGE) == 0);
    CHECK(map_file(fd, 2) == memory);
    memory[0] = 'b';
    memory[PAGE] = 'b';
    /* The second page has two mappings, of which one is to be read only. */
    char *second = mmap(NULL, 2 * PAGE, READ_WRITE, MAP_SHARED, fd, (off_t)PAGE);
    CHECK(second == memory + PAGE);
    CHECK(mprotect(second, 2 * PAGE, PROT_READ) == 0);
    memory[PAGE] = 'c';
    CHECK(reads_as(fd, 0, 1, 'b') && reads_as(fd, (off_t)PAGE, 1, 'c'));
    CHECK(munmap(memory, PAGE) == 0 && msync(second, 2 * PAGE, MS_SYNC) == 0);
}

/* Of the pages that mprotect forbids, one is mapped twice: it alone stays open. */
static void store_to_shown_once(void)
{
    int fd = make_file("data/protection", 3, 'a');
    char *memory = map_file(fd, 3);
    CHECK(mmap(NULL, PAGE, READ_WRITE, MAP_SHARED, fd, (off_t)PAGE) == memory + PAGE);
    CHECK(mprotect(memory, 3 * PAGE, PROT_READ) == 0);
    memory[PAGE] = 'b';
    CHECK(pwrite(fd, "c", 1, 0) == 1 && reads_as(fd, 0, 1, 'c') && reads_as(fd, (off_t)PAGE, 1, 'b'));
    if (failures == 0)
        *(volatile char *)(memory + 2 * PAGE) = 'b'; /* traps */
}

static void store_to_read_only(void)
{
    int fd = make_file("data/protection", 1, 'a');
    char *memory = map_file(fd, 1);
    CHECK(mprotect(memory, PAGE, PROT_READ) == 0);
    *(volatile char *)memory = 'b'; /* traps */
}

static void fixed(void)
{
    char *memory = mmap(NULL, 3 * PAGE, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(memory, 'a', 3 * PAGE);
    char *middle = mmap(memory + PAGE, PAGE, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(middle == memory + PAGE);
    CHECK(memory[0] == 'a' && middle[0] == 0 && memory[2 * PAGE] == 'a');
    int fd = make_file("data/fixed", 2, 'f');
    char *shared = map_file(fd, 2);
    CHECK(mmap(shared, PAGE, READ_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == shared);
    FAILS((intptr_t)mmap(memory, PAGE, READ_WRITE, MAP_SHARED | MAP_FIXED, fd, 0), ENOTSUP);
    FAILS((intptr_t)mmap(shared, PAGE, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), ENOTSUP);
    CHECK(shared[0] == 'f');
}

/* Views of one file with different rights and locks side by side: asked for together, answered as one. */
static void neighbours(void)
{
    int fd = make_file("data/neighbours", 4, 'a');
    int reader = open("data/neighbours", O_RDONLY);
    char *memory = map_file(fd, 2);
    CHECK(mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, reader, 2 * (off_t)PAGE) == memory + 2 * PAGE);
    FAILS(mprotect(memory, 4 * PAGE, READ_WRITE), EACCES);
    FAILS(mprotect(memory + PAGE, 2 * PAGE, READ_WRITE), EACCES);
    CHECK(mprotect(memory, 4 * PAGE, PROT_READ) == 0 && mprotect(memory, 2 * PAGE, READ_WRITE) == 0);
    CHECK(mlock(memory + PAGE, PAGE) == 0);
    CHECK(fsync(fd) == 0);
    uint64_t before = version("data_2Fneighbours");
    CHECK(pwrite(fd, "b", 1, 0) == 1 && pwrite(fd, "b", 1, 3 * (off_t)PAGE) == 1);
    CHECK(msync(memory, 4 * PAGE, MS_SYNC) == 0);
    CHECK(version("data_2Fneighbours") == before + 1);
    FAILS(msync(memory, 4 * PAGE, MS_INVALIDATE), EBUSY);
    CHECK(munlock(memory, 4 * PAGE) == 0 && msync(memory, 4 * PAGE, MS_INVALIDATE) == 0);
}

/* A private mapping of a file does not lose its bytes to an advice. */
static void advice(void)
{
    int fd = make_file("data/advice", 2, 'a');
    char *copy = mmap(NULL, 2 * PAGE, READ_WRITE, MAP_PRIVATE, fd, 0);
    char *shared = map_file(fd, 2);
    CHECK(madvise(copy, 2 * PAGE, MADV_DONTNEED) == 0 && madvise(shared, 2 * PAGE, MADV_DONTNEED) == 0);
    CHECK(copy[0] == 'a' && copy[2 * PAGE - 1] == 'a' && shared[0] == 'a');
    FAILS(madvise(copy, 2 * PAGE, MADV_FREE), EINVAL);
    FAILS(madvise(shared, 2 * PAGE, MADV_FREE), EINVAL);
    CHECK(copy[0] == 'a');
}

/* A guest may have so many mappings: a write that needs one more is refused. */
static void mappings(void)
{
    const size_t pages = 20000;
    int fd = open("data/mappings", O_RDWR | O_CREAT, 0600);
    CHECK(ftruncate(fd, (off_t)(pages * PAGE)) == 0);
    char *memory = map_file(fd, pages);
    CHECK(mprotect(memory, pages * PAGE, PROT_READ) == 0);
    size_t opened = 1;
    while (opened < pages && mprotect(memory + opened * PAGE, PAGE, READ_WRITE) == 0)
        opened += 2;
    CHECK(opened < pages);
    off_t closed = (off_t)((pages - 2) * PAGE);
    FAILS(pwrite(fd, "b", 1, closed), ENOSPC);
    CHECK(reads_as(fd, closed, 1, 0));
    CHECK(pwrite(fd, "b", 1, (off_t)PAGE) == 1 && reads_as(fd, (off_t)PAGE, 1, 'b'));
}

const struct test file_tests[] = {{"coherence", coherence},
                                  {"access-modes", access_modes},
                                  {"sizes", sizes},
                                  {"from-behind", from_behind},
                                  {"names", names},
                                  {"streams", streams},
                                  {"locks", locks},
                                  {"protection", protection},
                                  {"protection-ends", protection_ends},
                                  {"store-to-shown-once", store_to_shown_once},
                                  {"store-to-read-only", store_to_read_only},
                                  {"fixed", fixed},
                                  {"neighbours", neighbours},
                                  {"advice", advice},
                                  {"mappings", mappings},
                                  {NULL, NULL}};
