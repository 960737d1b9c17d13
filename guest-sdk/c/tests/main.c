#include "check.h"

#include <stdlib.h>
#include <vmsync.h>

int failures;

int make_file(const char *path, size_t pages, char byte)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0);
    char page[PAGE];
    memset(page, byte, sizeof page);
    for (size_t index = 0; index < pages; ++index)
        CHECK(write(fd, page, PAGE) == (ssize_t)PAGE);
    return fd;
}

char *map_file(int fd, size_t pages)
{
    char *memory = mmap(NULL, pages * PAGE, READ_WRITE, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

uint64_t version(const char *object)
{
    mach_port_t port = 0;
    vms_object_info_t info = {0};
    CHECK(memory_object_open(object, (uint32_t)strlen(object), 0, VMS_OPEN_READ, &port) == KERN_SUCCESS);
    CHECK(memory_object_info(port, &info) == KERN_SUCCESS);
    CHECK(memory_object_close(port) == KERN_SUCCESS);
    return info.version;
}

bool holds(const char *memory, size_t count, char byte)
{
    for (size_t index = 0; index < count; ++index)
        if (memory[index] != byte)
            return false;
    return true;
}

bool reads_as(int fd, off_t offset, size_t count, char byte)
{
    for (size_t index = 0; index < count; ++index) {
        char got;
        if (pread(fd, &got, 1, offset + (off_t)index) != 1 || got != byte)
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    const struct test *const groups[] = {ltp_tests, matrix_tests, libc_tests, file_tests, host_tests};
    for (size_t group = 0; group < sizeof groups / sizeof *groups; ++group) {
        for (const struct test *test = groups[group]; test->name != NULL; ++test) {
            if (argc == 2 && strcmp(argv[1], test->name) == 0) {
                test->run();
                return failures == 0 ? 0 : 1;
            }
        }
    }
    fprintf(stderr, "no such case\n");
    return 2;
}
