/*
 * A journal that survives a kill, in C: `vmsync run --wasi --map journal=STORE journal.wasm -- COMMAND`
 *
 *     append TEXT...   appends each text, makes it durable, and prints the number of entries
 *     undo TEXT        appends and drops it again: the journal is as before
 *     list             prints the entries, one a line
 *
 * The entries are a list of plain pointers within the region, which is at the same address in every run.
 * Exit 1: a call failed; standard error says which and why.
 */
#include <stdio.h>
#include <string.h>
#include <vmsync.h>

#define JOURNAL_BYTES 65536

struct entry {
    struct entry *next;
    char text[];
};

/* Begins the region; all 0 when the object is new. */
struct journal {
    uint32_t count;
    uint32_t used; /* bytes, with this header once it is not 0 */
    struct entry *first;
    struct entry *last;
};

static int fail(const char *what, kern_return_t kr)
{
    fprintf(stderr, "%s: %s\n", what, vms_strerror(kr));
    return 1;
}

static int append(struct journal *journal, size_t size, const char *text)
{
    size_t bytes = (sizeof(struct entry) + strlen(text) + 1 + 7) & ~(size_t)7;
    if (journal->used == 0)
        journal->used = sizeof *journal;
    if (bytes > size - journal->used)
        return fail("append", KERN_RESOURCE_SHORTAGE);
    struct entry *entry = (struct entry *)((char *)journal + journal->used);
    entry->next = NULL;
    strcpy(entry->text, text);
    if (journal->last != NULL)
        journal->last->next = entry;
    else
        journal->first = entry;
    journal->last = entry;
    journal->used += (uint32_t)bytes;
    ++journal->count;
    return 0;
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "list";
    vms_region_t region;
    kern_return_t kr = vms_map(&region, "journal", JOURNAL_BYTES);
    if (kr != KERN_SUCCESS)
        return fail("map", kr);
    struct journal *journal = region.data;
    int is_undo = strcmp(command, "undo") == 0;
    if (is_undo || strcmp(command, "append") == 0) {
        for (int i = 2; i < argc; ++i) {
            if (append(journal, region.size, argv[i]) != 0)
                return 1;
            kr = is_undo ? vms_undo(&region) : vms_flush(&region);
            if (kr != KERN_SUCCESS)
                return fail(command, kr);
        }
        printf("%u\n", (unsigned)journal->count);
    } else {
        for (const struct entry *entry = journal->first; entry != NULL; entry = entry->next)
            printf("%s\n", entry->text);
    }
    kr = vms_unmap(&region);
    return kr == KERN_SUCCESS ? 0 : fail("unmap", kr);
}
