/* See view.h. */
#include "view.h"

#include <errno.h>
#include <stdlib.h>

static struct vmp_view *views;

/* The link to the first view that ends behind `at`. */
static struct vmp_view **link_at(uintptr_t at)
{
    struct vmp_view **link = &views;
    while (*link != NULL && (*link)->end <= at)
        link = &(*link)->next;
    return link;
}

int vmp_view_split(uintptr_t at)
{
    struct vmp_view *view = *link_at(at);
    if (view == NULL || view->start >= at)
        return 0;
    struct vmp_view *rest = malloc(sizeof *rest);
    if (rest == NULL)
        return ENOMEM;
    *rest = *view;
    rest->start = at;
    view->end = at;
    view->next = rest;
    return 0;
}

int vmp_view_add(const struct vmp_view *view)
{
    if (vmp_view_split(view->start) != 0 || vmp_view_split(view->end) != 0)
        return ENOMEM;
    for (uintptr_t at = view->start; at < view->end;) {
        struct vmp_view **link = link_at(at);
        struct vmp_view *next = *link;
        if (next != NULL && next->start <= at) {
            ++next->count;
            next->writable |= view->writable;
            at = next->end;
            continue;
        }
        struct vmp_view *fresh = malloc(sizeof *fresh);
        if (fresh == NULL)
            return ENOMEM;
        *fresh = *view;
        fresh->start = at;
        fresh->end = next != NULL && next->start < view->end ? next->start : view->end;
        fresh->count = 1;
        fresh->next = next;
        *link = fresh;
        at = fresh->end;
    }
    return 0;
}

void vmp_view_remove(uintptr_t start, uintptr_t end, void (*leave)(const struct vmp_view *view))
{
    struct vmp_view **link = link_at(start);
    while (*link != NULL && (*link)->start < end) {
        struct vmp_view *view = *link;
        if (--view->count > 0) {
            link = &view->next;
            continue;
        }
        *link = view->next;
        leave(view);
        free(view);
    }
}

struct vmp_part vmp_view_part(uintptr_t start, uintptr_t end)
{
    struct vmp_view *view = *link_at(start);
    struct vmp_part part = {start, end, NULL, false};
    if (view != NULL && view->start <= start) {
        struct vmp_view *last = view;
        for (struct vmp_view *next = last->next; next != NULL && last->end < end; next = next->next) {
            if (next->start != last->end || next->file != view->file || next->copy != view->copy)
                break;
            last = next;
        }
        part.view = view;
        part.end = last->end < end ? last->end : end;
        return part;
    }
    if (view != NULL && view->start < end)
        part.end = view->start;
    for (const struct vmp_file *file = vmp_files; file != NULL; file = file->next) {
        uintptr_t home = (uintptr_t)file->header;
        if (start >= home && start < home + file->mapped) {
            part.hidden = true;
            part.end = part.end < home + file->mapped ? part.end : home + file->mapped;
        } else if (home > start && home < part.end) {
            part.end = home;
        }
    }
    return part;
}
