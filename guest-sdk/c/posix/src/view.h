/* What mmap has handed out, in the order of addresses. */
#ifndef VMP_VIEW_H
#define VMP_VIEW_H

#include "vmp.h"

struct vmp_view {
    struct vmp_view *next;
    uintptr_t start;
    uintptr_t end;
    struct vmp_file *file; /* MAP_SHARED of it; NULL: memory of its own */
    bool copy;             /* MAP_PRIVATE of a file */
    unsigned count;        /* mappings of a file's bytes lie in one place: how many there are */
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

/* Remembers a view, over those of the same file that are there; ENOMEM or 0. */
int vmp_view_add(const struct vmp_view *view);
/* Makes `at` a border: no view reaches over it. ENOMEM or 0. */
int vmp_view_split(uintptr_t at);
/* Forgets one mapping of everything inside the range, after splits at its ends; `leave` is called where it was the
 * last. */
void vmp_view_remove(uintptr_t start, uintptr_t end, void (*leave)(const struct vmp_view *view));
/* The part that begins at `start` and ends at `end` at the latest. Views of one file that follow each other are one
 * part, so that they are synced together: their rights and locks may differ. */
struct vmp_part vmp_view_part(uintptr_t start, uintptr_t end);

#endif
