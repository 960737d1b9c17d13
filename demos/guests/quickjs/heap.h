/*
 * An allocator whose whole state lies in the region that it serves: after vms_flush, a kill and vms_map everything is
 * where it was, free lists included.
 */
#ifndef HEAP_H
#define HEAP_H

#include <stddef.h>
#include <stdint.h>

/* Up to 512 bytes in steps of 16; above, four sizes between one power of two and the next. */
#define HEAP_SMALL_CLASSES 32
#define HEAP_CLASSES (HEAP_SMALL_CLASSES + 4 * 23)

struct heap {
    uintptr_t next; /* never handed out from here on */
    uintptr_t end;
    void *free[HEAP_CLASSES];
};

void heap_init(struct heap *heap, void *start, void *end);
void *heap_alloc(struct heap *heap, size_t size);
void *heap_realloc(struct heap *heap, void *block, size_t size);
void heap_free(struct heap *heap, void *block);
size_t heap_usable(const void *block);

#endif
