/* Every kind of mapping against every valid set of flags: the matrix that gVisor's msync test goes through. */
#include "check.h"

struct kind {
    const char *name;
    int protection;
    int flags;
    bool of_file;
};

static const struct kind kinds[] = {
    {"anonymous private", READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, false},
    {"anonymous shared", READ_WRITE, MAP_SHARED | MAP_ANONYMOUS, false},
    {"anonymous read-only", PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, false},
    {"anonymous closed", PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, false},
    {"file private", READ_WRITE, MAP_PRIVATE, true},
    {"file private read-only", PROT_READ, MAP_PRIVATE, true},
    {"file shared", READ_WRITE, MAP_SHARED, true},
    {"file shared read-only", PROT_READ, MAP_SHARED, true},
};

static const int ways[] = {0, MS_ASYNC, MS_SYNC, MS_INVALIDATE, MS_ASYNC | MS_INVALIDATE, MS_SYNC | MS_INVALIDATE};

static char *map_kind(const struct kind *kind, int fd, size_t pages)
{
    char *memory = mmap(NULL, pages * PAGE, kind->protection, kind->flags, kind->of_file ? fd : -1, 0);
    if (memory == MAP_FAILED) {
        printf("%s: ", kind->name);
        CHECK(memory != MAP_FAILED);
    }
    return memory;
}

/* Calls `look` with every kind, mapped anew, and every set of flags. */
static void for_all(void (*look)(const struct kind *kind, char *memory, int fd, int flags))
{
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; ++kind) {
        for (size_t way = 0; way < sizeof ways / sizeof *ways; ++way) {
            int fd = make_file("data/matrix", 4, 'a');
            char *memory = map_kind(&kinds[kind], fd, 4);
            int before = failures;
            look(&kinds[kind], memory, fd, ways[way]);
            if (failures != before)
                printf("  with %s, flags %d\n", kinds[kind].name, ways[way]);
            CHECK(munmap(memory, 4 * PAGE) == 0);
            CHECK(close(fd) == 0);
        }
    }
}

static void look_whole(const struct kind *kind, char *memory, int fd, int flags)
{
    bool writes = kind->protection & PROT_WRITE;
    if (writes)
        memory[PAGE + 1] = 'b';
    CHECK(msync(memory, 4 * PAGE, flags) == 0);
    if (writes)
        CHECK(memory[PAGE + 1] == 'b');
    if (kind->of_file) {
        bool shared = kind->flags & MAP_SHARED;
        CHECK(memory[PAGE] == 'a');
        CHECK(reads_as(fd, PAGE + 1, 1, shared && writes ? 'b' : 'a'));
    }
    /* A part, and a length that ends within a page. */
    CHECK(msync(memory + PAGE, PAGE, flags) == 0);
    CHECK(msync(memory + PAGE, PAGE + 1, flags) == 0);
}

static void whole(void)
{
    for_all(look_whole);
}

static void look_edges(const struct kind *kind, char *memory, int fd, int flags)
{
    (void)kind;
    (void)fd;
    CHECK(msync(memory, 0, flags) == 0);
    FAILS(msync(memory + 1, 0, flags), EINVAL);
    FAILS(msync(memory + 1, PAGE, flags), EINVAL);
    FAILS(msync(memory, SIZE_MAX, flags), ENOMEM);
    FAILS(msync(memory, PAGE, flags | MS_ASYNC | MS_SYNC), EINVAL);
    for (int bit = 3; bit < 32; ++bit)
        FAILS(msync(memory, PAGE, (int)((unsigned)flags | 1u << bit)), EINVAL);
    /* Flags are looked at before the address, and before the length. */
    FAILS(msync(memory + 1, 0, MS_ASYNC | MS_SYNC), EINVAL);
}

static void edges(void)
{
    for_all(look_edges);
}

static void look_hole(const struct kind *kind, char *memory, int fd, int flags)
{
    bool durable = kind->of_file && kind->flags & MAP_SHARED && kind->protection & PROT_WRITE && flags & MS_SYNC;
    CHECK(fsync(fd) == 0);
    uint64_t before = version("data_2Fmatrix");
    CHECK(munmap(memory + PAGE, PAGE) == 0);
    if (kind->protection & PROT_WRITE)
        memory[2 * PAGE] = 'b'; /* behind the hole */
    FAILS(msync(memory + PAGE, PAGE, flags), ENOMEM);
    FAILS(msync(memory, 2 * PAGE, flags), ENOMEM);
    FAILS(msync(memory + PAGE, 2 * PAGE, flags), ENOMEM);
    if (durable)
        CHECK(version("data_2Fmatrix") > before); /* all the same */
    FAILS(msync(memory, 4 * PAGE, flags), ENOMEM);
    CHECK(msync(memory, PAGE, flags) == 0);
    CHECK(msync(memory + 2 * PAGE, 2 * PAGE, flags) == 0);
}

static void hole(void)
{
    for_all(look_hole);
}

static void look_locked(const struct kind *kind, char *memory, int fd, int flags)
{
    (void)kind;
    (void)fd;
    CHECK(mlock(memory + PAGE, PAGE) == 0);
    if (flags & MS_INVALIDATE)
        FAILS(msync(memory, 4 * PAGE, flags), EBUSY);
    else
        CHECK(msync(memory, 4 * PAGE, flags) == 0);
    CHECK(msync(memory, PAGE, flags) == 0);
    CHECK(munlock(memory, 4 * PAGE) == 0);
    CHECK(msync(memory, 4 * PAGE, flags) == 0);
}

static void locked(void)
{
    for_all(look_locked);
}

const struct test matrix_tests[] = {
    {"whole", whole}, {"edges", edges}, {"hole", hole}, {"locked", locked}, {NULL, NULL}};
