/*
 * Where homes lie: in the window of addresses that the linker has left free below the static data.
 *
 * A home cannot move, and its file may grow: a new one goes into the middle of the largest gap, so that both it and the
 * one below have room. An object remembers where it was, so a file has the same address in the next run as long as
 * nothing else has taken it. Of the program's own regions nothing is known here: file.c goes on behind them.
 */
#include "vmp.h"

/* The home with the lowest address at or above `address`, or the end of the window. */
static uintptr_t next_home(uintptr_t address)
{
    uintptr_t next = vms_window_end();
    for (const struct vmp_file *file = vmp_files; file != NULL; file = file->next) {
        uintptr_t home = (uintptr_t)file->header;
        if (home >= address && home < next)
            next = home;
    }
    return next;
}

/* The end of the home with the highest address below `address`, or the start of the window. */
static uintptr_t previous_end(uintptr_t address)
{
    uintptr_t previous = vms_window_start();
    for (const struct vmp_file *file = vmp_files; file != NULL; file = file->next) {
        uintptr_t end = (uintptr_t)file->header + file->mapped;
        if ((uintptr_t)file->header < address && end > previous)
            previous = end;
    }
    return previous;
}

uintptr_t vmp_place_end(uintptr_t home)
{
    return next_home(home + 1);
}

uintptr_t vmp_place(uintptr_t wanted, size_t size)
{
    uintptr_t end = vms_window_end();
    if (wanted >= vms_window_start() && wanted < end && wanted % VMS_REGION_ALIGN == 0 &&
        previous_end(wanted + 1) <= wanted && size <= next_home(wanted) - wanted)
        return wanted;
    uintptr_t best = 0;
    uintptr_t best_length = 0;
    for (uintptr_t start = vms_window_start(); start < end;) {
        uintptr_t next = next_home(start);
        if (next > start && next - start > best_length) {
            best = start;
            best_length = next - start;
        }
        if (next >= end)
            break;
        start = vms_align_up(previous_end(next + 1));
    }
    if (best_length < size)
        return 0;
    uintptr_t middle = vms_align_up(best + best_length / 2);
    bool has_neighbour = best != vms_window_start();
    return has_neighbour && size <= best + best_length - middle ? middle : best;
}
