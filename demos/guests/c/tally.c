/*
 * A number that survives, in C without a C library: exports `add` and `get`, like the Rust guest `counter`.
 * A negative result is a negated kern_return_t.
 */
#include <vmsync.h>

#define EXPORT(name) __attribute__((export_name(#name)))

static int64_t change(uint64_t by)
{
    vms_region_t region;
    kern_return_t kr = vms_map(&region, "tally", 4096);
    if (kr != KERN_SUCCESS)
        return -kr;
    uint64_t *count = region.data;
    *count += by;
    int64_t now = (int64_t)*count;
    kr = by == 0 ? KERN_SUCCESS : vms_flush(&region);
    (void)vms_unmap(&region);
    return kr == KERN_SUCCESS ? now : -kr;
}

EXPORT(add) int64_t add(void)
{
    return change(1);
}

EXPORT(get) int64_t get(void)
{
    return change(0);
}
