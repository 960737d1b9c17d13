/* See heap.h. */
#include "heap.h"

#include <string.h>

/* Before each block: its class. Blocks begin at multiples of 8. */
#define HEADER 8

static unsigned class_of(size_t size)
{
    if (size <= 16 * HEAP_SMALL_CLASSES)
        return size == 0 ? 0 : (unsigned)((size - 1) / 16);
    unsigned power = 31 - (unsigned)__builtin_clz((unsigned)(size - 1)); /* at least 9 */
    unsigned quarter = (unsigned)((size - 1) >> (power - 2)) & 3;
    return HEAP_SMALL_CLASSES + 4 * (power - 9) + quarter;
}

static size_t size_of(unsigned class)
{
    if (class < HEAP_SMALL_CLASSES)
        return 16 * (class + 1);
    unsigned power = 9 + (class - HEAP_SMALL_CLASSES) / 4;
    unsigned quarter = (class - HEAP_SMALL_CLASSES) % 4;
    return ((size_t)(5 + quarter)) << (power - 2);
}

static unsigned *header_of(const void *block)
{
    return (unsigned *)((uintptr_t)block - HEADER);
}

void heap_init(struct heap *heap, void *start, void *end)
{
    memset(heap, 0, sizeof *heap);
    heap->next = ((uintptr_t)start + 7) & ~(uintptr_t)7;
    heap->end = (uintptr_t)end;
}

void *heap_alloc(struct heap *heap, size_t size)
{
    if (size > heap->end)
        return NULL;
    unsigned class = class_of(size);
    if (class >= HEAP_CLASSES)
        return NULL;
    void *block = heap->free[class];
    if (block != NULL) {
        heap->free[class] = *(void **)block;
        return block;
    }
    size_t whole = HEADER + size_of(class);
    if (whole > heap->end - heap->next)
        return NULL;
    block = (void *)(heap->next + HEADER);
    heap->next += whole;
    *header_of(block) = class;
    return block;
}

void heap_free(struct heap *heap, void *block)
{
    if (block == NULL)
        return;
    unsigned class = *header_of(block);
    *(void **)block = heap->free[class];
    heap->free[class] = block;
}

size_t heap_usable(const void *block)
{
    return block == NULL ? 0 : size_of(*header_of(block));
}

void *heap_realloc(struct heap *heap, void *block, size_t size)
{
    size_t have = heap_usable(block);
    if (block != NULL && size <= have && size > have / 4)
        return block;
    void *moved = heap_alloc(heap, size);
    if (moved != NULL && block != NULL) {
        memcpy(moved, block, have < size ? have : size);
        heap_free(heap, block);
    }
    return moved;
}
