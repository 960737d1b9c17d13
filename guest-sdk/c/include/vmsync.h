/*
 * vmsync.h: durable memory for WebAssembly programs in C. This comment is the manual.
 *
 * A host grants *memory objects* by name. A program maps one into its linear memory, works on it with plain loads
 * and stores, and makes what changed durable with one vm_msync: all of it or, after a crash, none of it.
 *
 *     #include <vmsync.h>
 *
 *     int main(void)
 *     {
 *         vms_region_t r;
 *         kern_return_t kr = vms_map(&r, "visits", 4096);
 *         if (kr != KERN_SUCCESS) {
 *             fprintf(stderr, "map: %s\n", vms_strerror(kr));
 *             return 1;
 *         }
 *         uint64_t *visits = r.data;          // reads as 0 when the object is new
 *         ++*visits;                          // a plain store
 *         kr = vms_flush(&r);                 // durable now, or not at all
 *         if (kr != KERN_SUCCESS)
 *             fprintf(stderr, "flush: %s\n", vms_strerror(kr));
 *         printf("%llu\n", (unsigned long long)*visits);
 *         vms_unmap(&r);
 *         return 0;
 *     }
 *
 * BUILDING
 *     clang --target=wasm32-wasi -O2 -I.../include program.c -o program.wasm \
 *           -Wl,--stack-first,-z,stack-size=1048576,--global-base=268435456
 *     clang --target=wasm32 -nostdlib ... -Wl,--no-entry,--export=f,...       (without a C library)
 * The two linker flags leave a *window* of addresses free between the stack (below 1 MiB) and the static data (from
 * 256 MiB): vms_map places regions there, at the same address in every run, so that pointers into a region stay
 * valid. A program without a window still has regions: they are mapped at the end of memory, which grows.
 * Only headers; no library to link.
 *
 * HELPERS
 *     vms_map(r, name, size)     map the object `name`, created if missing, of at least `size` bytes, read and write
 *     vms_map_options(r, name, size, options)
 *                                the same with VMS_READ_ONLY (a store traps), VMS_EXISTING (do not create; size may
 *                                be 0), VMS_PRIVATE (copy-on-write, never durable), VMS_RELOCATABLE (another address
 *                                than last time will do)
 *     vms_flush(r)               make every change durable and wait
 *     vms_flush_range(r, offset, size)
 *     vms_flush_async(r)         hand the changes over and do not wait; the next flush reports a failure
 *     vms_undo(r)                drop every change since the last flush
 *     vms_unmap(r)               unmap and close; what was not flushed is lost
 *     vms_strerror(kr)           the name of a result, and what to do about it
 * They keep no state of their own: which addresses are free, the host says (vm_region). Map an object once at a time.
 *
 * CALLS (import module "vmsync1"; Mach's, and they return kern_return_t unless it says otherwise)
 *     vm_msync(task, address, size, flags)         what `flags` say, to every page that the range touches
 *     mach_vm_msync(task, address, size, flags)    the same with 64-bit numbers
 *     vm_map(task, &address, size, mask, flags, object, offset, copy, cur_protection, max_protection, inheritance)
 *                                                  maps `object` from `offset`; object 0 is zero-filled memory.
 *                                                  flags VM_FLAGS_FIXED: at `address`, in memory that the program
 *                                                  owns; VM_FLAGS_ANYWHERE: at the end of memory, which grows.
 *                                                  `copy`: a private copy-on-write mapping
 *     vm_allocate(task, &address, size, flags)     zero-filled memory
 *     vm_deallocate(task, address, size)
 *     vm_protect(task, address, size, set_maximum, protection)
 *     vm_region(task, &address, &size, flavor, info, &count, &object_name)
 *                                                  the first region at or above `address`; flavor
 *                                                  VM_REGION_BASIC_INFO_64, count VM_REGION_BASIC_INFO_COUNT_64
 *     vm_behavior_set(task, address, size, behavior)
 *     memory_object_open(name, name_len, size_min, flags, &port)
 *                                                  opens a granted object; it has at least `size_min` bytes then (it
 *                                                  grows, never shrinks; 0: as it is). One that is open grows too,
 *                                                  and its mappings stay; KERN_NOT_SUPPORTED: not with this pager.
 *                                                  flags: VMS_OPEN_*
 *     memory_object_close(port)
 *     memory_object_info(port, &info)              size, version, last address, page size
 *     mach_task_self()                             the port of this program, for `task`
 * Addresses and sizes need no alignment in vm_msync; vm_map takes page-aligned ones.
 *
 * FLAGS OF vm_msync
 *     VM_SYNC_SYNCHRONOUS    write what changed and wait until it is durable
 *     VM_SYNC_ASYNCHRONOUS   write what changed and do not wait
 *     VM_SYNC_INVALIDATE     drop the pages; with one of the above after writing them, ALONE WITHOUT WRITING THEM
 *     VM_SYNC_KILLPAGES      drop the contents of anonymous memory
 *     VM_SYNC_DEACTIVATE     evict the pages first
 *     VM_SYNC_CONTIGUOUS     a hole in the range is KERN_INVALID_ADDRESS, after both sides are synced
 *     VM_SYNC_REUSABLEPAGES  accepted, no effect
 * They are not POSIX's: MS_SYNC is 4 on Linux and in WASI, and 4 is VM_SYNC_INVALIDATE here.
 *
 * RESULTS
 *     KERN_SUCCESS              done
 *     KERN_INVALID_ADDRESS      the range is not allocated, or (CONTIGUOUS) has a hole
 *     KERN_PROTECTION_FAILURE   the protection forbids it
 *     KERN_NO_SPACE             the range is mapped already, or memory cannot grow: another address, a smaller size
 *     KERN_INVALID_ARGUMENT     a flag is unknown or two contradict each other; a size is 0; a name is not 1 to 255
 *                               of A-Z a-z 0-9 . _ -, or has a dot in front
 *     KERN_FAILURE              nothing of this call is durable; the changes are kept: call again
 *     KERN_RESOURCE_SHORTAGE    the same, because storage or a quota is full
 *     KERN_NO_ACCESS            the host does not grant this object or right, or it is mapped for stores elsewhere
 *     KERN_MEMORY_FAILURE       the object is gone for good
 *     KERN_MEMORY_ERROR         a page could not be read: call again
 *     KERN_ABORTED              the store did not answer in time: call again
 *     KERN_INVALID_TASK, KERN_INVALID_RIGHT, KERN_INVALID_VALUE, KERN_MEMORY_PRESENT, KERN_INVALID_OBJECT,
 *     KERN_TERMINATED           a port or value is wrong
 *     KERN_NOT_SUPPORTED        this host does not offer the call
 */
#ifndef VMSYNC_H
#define VMSYNC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t kern_return_t;
typedef uint32_t mach_port_t;
typedef uintptr_t vm_address_t;
typedef uintptr_t vm_size_t;

#define KERN_SUCCESS 0
#define KERN_INVALID_ADDRESS 1
#define KERN_PROTECTION_FAILURE 2
#define KERN_NO_SPACE 3
#define KERN_INVALID_ARGUMENT 4
#define KERN_FAILURE 5
#define KERN_RESOURCE_SHORTAGE 6
#define KERN_NO_ACCESS 8
#define KERN_MEMORY_FAILURE 9
#define KERN_MEMORY_ERROR 10
#define KERN_ABORTED 14
#define KERN_INVALID_TASK 16
#define KERN_INVALID_RIGHT 17
#define KERN_INVALID_VALUE 18
#define KERN_MEMORY_PRESENT 23
#define KERN_INVALID_OBJECT 29
#define KERN_TERMINATED 37
#define KERN_NOT_SUPPORTED 46

#define VM_SYNC_ASYNCHRONOUS 0x01
#define VM_SYNC_SYNCHRONOUS 0x02
#define VM_SYNC_INVALIDATE 0x04
#define VM_SYNC_KILLPAGES 0x08
#define VM_SYNC_DEACTIVATE 0x10
#define VM_SYNC_CONTIGUOUS 0x20
#define VM_SYNC_REUSABLEPAGES 0x40

#define VM_PROT_NONE 0x0
#define VM_PROT_READ 0x1
#define VM_PROT_WRITE 0x2

#define VM_FLAGS_FIXED 0x0
#define VM_FLAGS_ANYWHERE 0x1
#define VM_FLAGS_PURGABLE 0x2
#define VM_FLAGS_OVERWRITE 0x4000

#define VM_INHERIT_SHARE 0
#define VM_INHERIT_COPY 1
#define VM_INHERIT_NONE 2

#define VM_BEHAVIOR_DEFAULT 0
#define VM_BEHAVIOR_RANDOM 1
#define VM_BEHAVIOR_SEQUENTIAL 2
#define VM_BEHAVIOR_WILLNEED 4
#define VM_BEHAVIOR_DONTNEED 5
#define VM_BEHAVIOR_FREE 6
#define VM_BEHAVIOR_ZERO 12

#define VMS_OPEN_READ 0x1
#define VMS_OPEN_WRITE 0x2
#define VMS_OPEN_CREATE 0x4

#define VM_REGION_BASIC_INFO_64 9
#define VM_REGION_BASIC_INFO_COUNT_64 8

/* What vm_region says of a region. */
typedef struct {
    uint32_t protection;       /* VM_PROT_* now */
    uint32_t max_protection;   /* the most that it may be given */
    int32_t inheritance;       /* VM_INHERIT_* */
    uint32_t shared;           /* 1 where stores reach an object */
    uint64_t offset;           /* in the object, in bytes */
    int32_t behavior;          /* VM_BEHAVIOR_* */
    uint32_t user_wired_count;
} vm_region_basic_info_64_t;

#define VMS_OBJECT_PRECIOUS 1u /* resident pages are the only copy */
#define VMS_OBJECT_WRITABLE 2u /* the program may store to it */

/* What memory_object_info says of an object. */
typedef struct {
    uint64_t size;      /* bytes, whole pages */
    uint64_t version;   /* of the last committed call that changed it; 0: never */
    uint64_t address;   /* where it was last mapped; 0: never */
    uint32_t page_size; /* bytes */
    uint32_t flags;     /* VMS_OBJECT_* */
} vms_object_info_t;

#define VMS_STATIC_ASSERT(name, condition) typedef char name[(condition) ? 1 : -1]
VMS_STATIC_ASSERT(vms_region_info_is_32_bytes, sizeof(vm_region_basic_info_64_t) == 32);
VMS_STATIC_ASSERT(vms_object_info_is_32_bytes, sizeof(vms_object_info_t) == 32);

#define VMS_IMPORT(name) __attribute__((import_module("vmsync1"), import_name(#name)))

VMS_IMPORT(vm_msync)
kern_return_t vm_msync(mach_port_t task, vm_address_t address, vm_size_t size, uint32_t flags);
VMS_IMPORT(mach_vm_msync)
kern_return_t mach_vm_msync(mach_port_t task, uint64_t address, uint64_t size, uint32_t flags);
VMS_IMPORT(vm_map)
kern_return_t vm_map(mach_port_t task, vm_address_t *address, vm_size_t size, vm_address_t mask, uint32_t flags,
                     mach_port_t object, uint64_t offset, uint32_t copy, uint32_t cur_protection,
                     uint32_t max_protection, int32_t inheritance);
VMS_IMPORT(vm_allocate)
kern_return_t vm_allocate(mach_port_t task, vm_address_t *address, vm_size_t size, uint32_t flags);
VMS_IMPORT(vm_deallocate)
kern_return_t vm_deallocate(mach_port_t task, vm_address_t address, vm_size_t size);
VMS_IMPORT(vm_protect)
kern_return_t vm_protect(mach_port_t task, vm_address_t address, vm_size_t size, uint32_t set_maximum,
                         uint32_t new_protection);
VMS_IMPORT(vm_region)
kern_return_t vm_region(mach_port_t task, vm_address_t *address, vm_size_t *size, int32_t flavor,
                        vm_region_basic_info_64_t *info, uint32_t *count, mach_port_t *object_name);
VMS_IMPORT(vm_behavior_set)
kern_return_t vm_behavior_set(mach_port_t task, vm_address_t address, vm_size_t size, int32_t behavior);
VMS_IMPORT(memory_object_open)
kern_return_t memory_object_open(const char *name, uint32_t name_len, uint64_t size_min, uint32_t flags,
                                 mach_port_t *port);
VMS_IMPORT(memory_object_close)
kern_return_t memory_object_close(mach_port_t port);
VMS_IMPORT(memory_object_info)
kern_return_t memory_object_info(mach_port_t port, vms_object_info_t *info);
VMS_IMPORT(mach_task_self)
mach_port_t mach_task_self(void);

/* A mapped object. */
typedef struct {
    void *data;       /* where it lies */
    size_t size;      /* bytes, at least what was asked for */
    mach_port_t port; /* the object */
} vms_region_t;

#define VMS_READ_ONLY 0x1u
#define VMS_EXISTING 0x2u
#define VMS_PRIVATE 0x4u
#define VMS_RELOCATABLE 0x8u

/* Regions start at multiples of a Wasm page, which every VM page divides. */
#define VMS_REGION_ALIGN ((uintptr_t)65536)

/* Where the linker ends the stack and begins the static data: the window lies between. */
extern unsigned char __stack_high;
extern unsigned char __global_base;

static inline uintptr_t vms_align_up(uintptr_t address)
{
    return (address + VMS_REGION_ALIGN - 1) & ~(VMS_REGION_ALIGN - 1);
}

/* The window; its end is at or below its start in a program that has none. */
static inline uintptr_t vms_window_start(void)
{
    return vms_align_up((uintptr_t)&__stack_high);
}

static inline uintptr_t vms_window_end(void)
{
    return (uintptr_t)&__global_base & ~(VMS_REGION_ALIGN - 1);
}

/* What a mapping needs beside its address. */
typedef struct {
    mach_port_t port;
    vm_size_t size;
    uint32_t options;
} vms_request_t;

static inline kern_return_t vms_map_at(const vms_request_t *request, vm_address_t *address, uint32_t flags)
{
    uint32_t protection = request->options & VMS_READ_ONLY ? VM_PROT_READ : VM_PROT_READ | VM_PROT_WRITE;
    return vm_map(mach_task_self(), address, request->size, 0, flags, request->port, 0,
                  request->options & VMS_PRIVATE ? 1 : 0, protection, protection, VM_INHERIT_COPY);
}

/* Maps in `low .. high`: at `*address` if it is not 0 and there is room, else at the lowest place with room. */
static inline kern_return_t vms_map_in_window(const vms_request_t *request, vm_address_t *address, uintptr_t low,
                                              uintptr_t high)
{
    vm_size_t size = request->size;
    if (*address != 0) {
        kern_return_t kr = KERN_NO_SPACE;
        if (*address >= low && *address < high && size <= high - *address && *address % VMS_REGION_ALIGN == 0)
            kr = vms_map_at(request, address, VM_FLAGS_FIXED);
        if (kr != KERN_NO_SPACE || !(request->options & VMS_RELOCATABLE))
            return kr;
    }
    for (uintptr_t start = low; start < high && size <= high - start;) {
        *address = start;
        kern_return_t kr = vms_map_at(request, address, VM_FLAGS_FIXED);
        if (kr != KERN_NO_SPACE)
            return kr;
        /* Something is in the way: go on behind what lies here. */
        vm_address_t here = start;
        vm_size_t length = 0;
        vm_region_basic_info_64_t info;
        uint32_t count = VM_REGION_BASIC_INFO_COUNT_64;
        mach_port_t name;
        kr = vm_region(mach_task_self(), &here, &length, VM_REGION_BASIC_INFO_64, &info, &count, &name);
        if (kr != KERN_SUCCESS || length >= high - here)
            return KERN_NO_SPACE;
        start = vms_align_up(here + length);
    }
    return KERN_NO_SPACE;
}

static inline size_t vms_strlen(const char *text)
{
    size_t length = 0;
    while (text[length] != 0)
        ++length;
    return length;
}

/* Maps an open object. KERN_NO_SPACE: its place is taken, or the window is full. */
static inline kern_return_t vms_map_port(vms_region_t *region, mach_port_t port, uint32_t options)
{
    vms_object_info_t info;
    kern_return_t kr = memory_object_info(port, &info);
    if (kr != KERN_SUCCESS)
        return kr;
    if (info.size == 0 || info.size > UINTPTR_MAX)
        return KERN_INVALID_ARGUMENT;
    vms_request_t request = {port, (vm_size_t)info.size, options};
    uintptr_t low = vms_window_start();
    uintptr_t high = vms_window_end();
    vm_address_t address = (vm_address_t)info.address;
    if (low < high)
        kr = vms_map_in_window(&request, &address, low, high);
    else
        kr = vms_map_at(&request, &address, VM_FLAGS_ANYWHERE);
    if (kr != KERN_SUCCESS)
        return kr;
    if (info.address != 0 && info.address != address && !(options & VMS_RELOCATABLE)) {
        (void)vm_deallocate(mach_task_self(), address, request.size);
        return KERN_NO_SPACE;
    }
    region->data = (void *)address;
    region->size = request.size;
    region->port = port;
    return KERN_SUCCESS;
}

static inline kern_return_t vms_map_options(vms_region_t *region, const char *name, size_t size, uint32_t options)
{
    uint32_t flags = VMS_OPEN_READ;
    mach_port_t port = 0;
    if (!(options & (VMS_READ_ONLY | VMS_PRIVATE)))
        flags |= VMS_OPEN_WRITE | (options & VMS_EXISTING ? 0 : VMS_OPEN_CREATE);
    kern_return_t kr = memory_object_open(name, (uint32_t)vms_strlen(name), size, flags, &port);
    if (kr != KERN_SUCCESS)
        return kr;
    kr = vms_map_port(region, port, options);
    if (kr != KERN_SUCCESS)
        (void)memory_object_close(port);
    return kr;
}

static inline kern_return_t vms_map(vms_region_t *region, const char *name, size_t size)
{
    return vms_map_options(region, name, size, 0);
}

static inline kern_return_t vms_flush_range(const vms_region_t *region, size_t offset, size_t size)
{
    if (offset > region->size || size > region->size - offset)
        return KERN_INVALID_ADDRESS;
    return vm_msync(mach_task_self(), (vm_address_t)region->data + offset, size, VM_SYNC_SYNCHRONOUS);
}

static inline kern_return_t vms_flush(const vms_region_t *region)
{
    return vms_flush_range(region, 0, region->size);
}

static inline kern_return_t vms_flush_async(const vms_region_t *region)
{
    return vm_msync(mach_task_self(), (vm_address_t)region->data, region->size, VM_SYNC_ASYNCHRONOUS);
}

static inline kern_return_t vms_undo(vms_region_t *region)
{
    kern_return_t kr = vm_msync(mach_task_self(), (vm_address_t)region->data, region->size, VM_SYNC_INVALIDATE);
    __asm__ volatile("" ::: "memory"); /* the host changed what the compiler may have in locals */
    return kr;
}

static inline kern_return_t vms_unmap(vms_region_t *region)
{
    kern_return_t kr = vm_deallocate(mach_task_self(), (vm_address_t)region->data, region->size);
    kern_return_t closed = memory_object_close(region->port);
    region->data = 0;
    region->size = 0;
    region->port = 0;
    return kr != KERN_SUCCESS ? kr : closed;
}

static inline const char *vms_strerror(kern_return_t kr)
{
    switch (kr) {
    case KERN_SUCCESS: return "KERN_SUCCESS";
    case KERN_INVALID_ADDRESS: return "KERN_INVALID_ADDRESS: the range is not allocated";
    case KERN_PROTECTION_FAILURE: return "KERN_PROTECTION_FAILURE: the protection forbids it";
    case KERN_NO_SPACE: return "KERN_NO_SPACE: no free place; link with a larger --global-base, or map it first";
    case KERN_INVALID_ARGUMENT: return "KERN_INVALID_ARGUMENT: check flags, sizes and names (1 to 255 of A-Z a-z 0-9 . _ -, no dot in front)";
    case KERN_FAILURE: return "KERN_FAILURE: not durable; the changes are kept, call again";
    case KERN_RESOURCE_SHORTAGE: return "KERN_RESOURCE_SHORTAGE: storage or a quota is full; free some, call again";
    case KERN_NO_ACCESS: return "KERN_NO_ACCESS: the host does not grant this object or right, or it is mapped for stores elsewhere";
    case KERN_MEMORY_FAILURE: return "KERN_MEMORY_FAILURE: the object is gone";
    case KERN_MEMORY_ERROR: return "KERN_MEMORY_ERROR: a page could not be read; call again";
    case KERN_ABORTED: return "KERN_ABORTED: the store did not answer in time; call again";
    case KERN_INVALID_TASK: return "KERN_INVALID_TASK";
    case KERN_INVALID_RIGHT: return "KERN_INVALID_RIGHT";
    case KERN_INVALID_VALUE: return "KERN_INVALID_VALUE";
    case KERN_MEMORY_PRESENT: return "KERN_MEMORY_PRESENT";
    case KERN_INVALID_OBJECT: return "KERN_INVALID_OBJECT: the port names no object";
    case KERN_TERMINATED: return "KERN_TERMINATED";
    case KERN_NOT_SUPPORTED: return "KERN_NOT_SUPPORTED: run it under a host that offers this call";
    default: return "unknown result: the host is newer than vmsync.h";
    }
}

#ifdef __cplusplus
}
#endif

#endif
