/* What mmap has handed out, in the order of addresses. */
#ifndef VMP_VIEW_H
#define VMP_VIEW_H

#include "vmp.h"

struct vmp_view {
    struct vmp_view *next;
    uintptr_t start;
    uintptr_t end;
    struct vmp_file *file; /* MAP_SHARED of it; NULL: memory of its own */
    bool writable;         /* may be made so by mprotect */
    bool locked;
};

/* A part of a range of addresses that is one kind of memory. */
struct vmp_part {
    uintptr_t start;
    uintptr_t end;
    struct vmp_view *view; /* NULL: no view lies here */
    bool hidden;           /* in a file's home, and not handed out */
};

/* Remembers a view; ENOMEM or 0. Nothing else is handed out there. */
int vmp_view_add(struct vmp_view view);
/* Makes `at` a border: no view reaches over it. ENOMEM or 0. */
int vmp_view_split(uintptr_t at);
/* Forgets the views inside the range, after splits at its ends. `leave` is called for each before. */
void vmp_view_remove(uintptr_t start, uintptr_t end, void (*leave)(const struct vmp_view *view));
/* The part that begins at `start` and ends at `end` at the latest. Views of one file that follow each other are one
 * part as long as their locks are the same. */
struct vmp_part vmp_view_part(uintptr_t start, uintptr_t end);

#endif
