/* mmap, munmap, mprotect, msync, madvise, mlock: flags by name, errors as in POSIX and on Linux. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "view.h"

/* A range of whole pages; `end` may be 0 for the end of a 32-bit memory, which is then refused. */
struct range {
    uintptr_t start;
    uintptr_t end;
};

static int fail(int error)
{
    errno = error;
    return -1;
}

static void *no_map(int error)
{
    errno = error;
    return MAP_FAILED;
}

/* EINVAL: not aligned; ENOMEM: over the end of memory. */
static int whole_pages(const void *address, size_t length, struct range *range)
{
    range->start = (uintptr_t)address;
    if (range->start % VMP_PAGE != 0)
        return EINVAL;
    size_t size = (length + VMP_PAGE - 1) & ~(VMP_PAGE - 1);
    if (size < length || __builtin_add_overflow(range->start, size, &range->end))
        return ENOMEM;
    return 0;
}

/* Whether a range touches a home: memory that other files use is never replaced. */
static bool meets_home(struct range range)
{
    for (const struct vmp_file *file = vmp_files; file != NULL; file = file->next) {
        uintptr_t home = (uintptr_t)file->header;
        if (range.start < home + file->mapped && home < range.end)
            return true;
    }
    return false;
}

/* Fills private memory with what a file of either kind holds now. */
static int fill(unsigned char *memory, size_t length, int fd, off_t offset)
{
    while (length > 0) {
        ssize_t done = pread(fd, memory, length, offset);
        if (done <= 0)
            return done == 0 ? 0 : errno;
        memory += done;
        length -= (size_t)done;
        offset += done;
    }
    return 0;
}

static void leave(const struct vmp_view *view)
{
    if (view->file == NULL)
        (void)vm_deallocate(mach_task_self(), view->start, view->end - view->start);
}

static int forget(struct range range)
{
    if (vmp_view_split(range.start) != 0 || vmp_view_split(range.end) != 0)
        return ENOMEM;
    vmp_view_remove(range.start, range.end, leave);
    return 0;
}

/* Memory of its own: zeroes, or a copy of a file. */
static void *map_private(struct range wanted, int protection, int flags, int fd, off_t offset)
{
    size_t size = wanted.end - wanted.start;
    vm_address_t address = wanted.start;
    uint32_t how = VM_FLAGS_ANYWHERE;
    if (flags & MAP_FIXED) {
        if (meets_home(wanted))
            return no_map(ENOTSUP);
        if (forget(wanted) != 0)
            return no_map(ENOMEM);
        how = VM_FLAGS_FIXED | VM_FLAGS_OVERWRITE;
    }
    if (vm_allocate(mach_task_self(), &address, size, how) != KERN_SUCCESS)
        return no_map(ENOMEM);
    int error = flags & MAP_ANONYMOUS ? 0 : fill((unsigned char *)address, size, fd, offset);
    uint32_t access = (uint32_t)protection & (VM_PROT_READ | VM_PROT_WRITE);
    if (error == 0 && access != (VM_PROT_READ | VM_PROT_WRITE))
        error = vmp_errno(vm_protect(mach_task_self(), address, size, 0, access));
    struct vmp_view view = {
        .start = address, .end = address + size, .copy = !(flags & MAP_ANONYMOUS), .writable = true};
    if (error == 0)
        error = vmp_view_add(&view);
    if (error == 0)
        return (void *)address;
    (void)vm_deallocate(mach_task_self(), address, size);
    return no_map(error);
}

/* A part of the file's home. */
static void *map_shared(struct range wanted, int protection, int flags, struct vmp_descriptor *from, off_t offset)
{
    struct vmp_file *file = from->file;
    bool writable = from->flags & O_WRONLY;
    if (!(from->flags & O_RDONLY) || (protection & PROT_WRITE && !writable))
        return no_map(EACCES);
    size_t size = wanted.end - wanted.start;
    uint64_t end = (uint64_t)offset + size;
    int error = vmp_file_reserve(file, end);
    if (error != 0)
        return no_map(error == EFBIG ? ENOMEM : error);
    uintptr_t address = (uintptr_t)vmp_bytes(file) + (uintptr_t)offset;
    if (flags & MAP_FIXED && address != wanted.start)
        return no_map(ENOTSUP);
    if (flags & MAP_FIXED)
        error = forget(wanted);
    struct vmp_view view = {.start = address, .end = address + size, .file = file, .writable = writable};
    /* A protection binds the mapping that it was asked for, which may be gone. */
    if (error == 0 && file->guarded && protection & PROT_WRITE)
        error = vmp_errno(vm_protect(mach_task_self(), address, size, 0, VM_PROT_READ | VM_PROT_WRITE));
    if (error == 0)
        error = vmp_view_add(&view);
    if (error != 0)
        return no_map(error);
    if (writable)
        vmp_file_expose(file, end);
    return (void *)address;
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    struct range wanted;
    int type = flags & MAP_TYPE;
    if (length == 0 || offset < 0 || offset % (off_t)VMP_PAGE != 0 || (type != MAP_SHARED && type != MAP_PRIVATE))
        return no_map(EINVAL);
    int error = whole_pages(flags & MAP_FIXED ? address : NULL, length, &wanted);
    if (error != 0)
        return no_map(error);
    if (protection & ~(PROT_READ | PROT_WRITE | PROT_EXEC))
        return no_map(EINVAL);
    if (protection & PROT_EXEC)
        return no_map(EACCES); /* no code runs from linear memory */
    if (flags & MAP_ANONYMOUS)
        return map_private(wanted, protection, flags, -1, 0);
    struct vmp_descriptor *ours = vmp_descriptor(fd);
    struct stat status;
    if (ours == NULL && fstat(fd, &status) != 0)
        return no_map(EBADF);
    if (type == MAP_PRIVATE)
        return map_private(wanted, protection, flags, fd, offset);
    if (ours == NULL)
        return no_map(ENODEV); /* a file of WASI has no memory that could be shared */
    return map_shared(wanted, protection, flags, ours, offset);
}

int munmap(void *address, size_t length)
{
    struct range range;
    if (length == 0 || whole_pages(address, length, &range) != 0)
        return fail(EINVAL);
    int error = forget(range);
    return error == 0 ? 0 : fail(error);
}

/* Does `work` for every part of the range that is there. ENOMEM: not all of it is. An error of `work` ends it. */
static int for_parts(struct range range, int (*work)(const struct vmp_part *part, int argument), int argument)
{
    bool has_hole = false;
    for (uintptr_t at = range.start; at < range.end;) {
        struct vmp_part part = vmp_view_part(at, range.end);
        int error = part.hidden ? ENOMEM : work(&part, argument);
        if (error != 0 && error != ENOMEM)
            return error;
        has_hole |= error == ENOMEM;
        at = part.end;
    }
    return has_hole ? ENOMEM : 0;
}

static int sync_part(const struct vmp_part *part, int flags)
{
    for (const struct vmp_view *view = part->view; view != NULL && view->start < part->end; view = view->next)
        if (flags & MS_INVALIDATE && view->locked)
            return EBUSY;
    uint32_t how = VM_SYNC_CONTIGUOUS;
    if (flags & MS_ASYNC)
        how |= VM_SYNC_ASYNCHRONOUS;
    if (flags & (MS_SYNC | MS_INVALIDATE) && !(flags & MS_ASYNC))
        how |= VM_SYNC_SYNCHRONOUS;
    if (flags & MS_INVALIDATE)
        how |= VM_SYNC_INVALIDATE;
    size_t size = part->end - part->start;
    kern_return_t kr;
    if (part->view != NULL && part->view->file != NULL) {
        struct vmp_file *file = part->view->file;
        kr = vmp_file_sync(file, part->start - (uintptr_t)vmp_bytes(file), size, how);
    } else {
        kr = vm_msync(mach_task_self(), part->start, size, how);
    }
    return vmp_errno(kr);
}

int msync(void *address, size_t length, int flags)
{
    struct range range;
    if (flags & ~(MS_ASYNC | MS_SYNC | MS_INVALIDATE) || (flags & MS_ASYNC && flags & MS_SYNC))
        return fail(EINVAL);
    int error = whole_pages(address, length, &range);
    if (error == 0 && length > 0)
        error = for_parts(range, sync_part, flags);
    return error == 0 ? 0 : fail(error);
}

static int protect_range(uintptr_t start, uintptr_t end, int protection)
{
    return vmp_errno(vm_protect(mach_task_self(), start, end - start, 0, (uint32_t)protection));
}

/* The mappings of a page have one protection: a page that is mapped twice stays open, as the other mapping may store. */
static int protect_part(const struct vmp_part *part, int protection)
{
    bool writes = protection & PROT_WRITE;
    for (const struct vmp_view *view = part->view; view != NULL && view->start < part->end; view = view->next)
        if (writes && !view->writable)
            return EACCES;
    if (part->view == NULL || writes)
        return protect_range(part->start, part->end, protection);
    for (const struct vmp_view *view = part->view; view != NULL && view->start < part->end; view = view->next) {
        if (view->count > 1)
            continue;
        if (view->file != NULL)
            view->file->guarded = true;
        uintptr_t start = view->start > part->start ? view->start : part->start;
        uintptr_t end = view->end < part->end ? view->end : part->end;
        int error = protect_range(start, end, protection);
        if (error != 0)
            return error;
    }
    return 0;
}

int mprotect(void *address, size_t length, int protection)
{
    struct range range;
    if (protection & ~(PROT_READ | PROT_WRITE | PROT_EXEC))
        return fail(EINVAL);
    int error = whole_pages(address, length, &range);
    if (error == 0 && protection & PROT_EXEC)
        error = EACCES;
    if (error == 0)
        error = for_parts(range, protect_part, protection);
    return error == 0 ? 0 : fail(error);
}

/* For files and copies of them every advice is one; other memory of its own may be given up. */
static int advise_part(const struct vmp_part *part, int advice)
{
    bool is_file = part->view != NULL && (part->view->file != NULL || part->view->copy);
    int behavior;
    switch (advice) {
    case MADV_NORMAL: behavior = VM_BEHAVIOR_DEFAULT; break;
    case MADV_RANDOM: behavior = VM_BEHAVIOR_RANDOM; break;
    case MADV_SEQUENTIAL: behavior = VM_BEHAVIOR_SEQUENTIAL; break;
    case MADV_WILLNEED: behavior = VM_BEHAVIOR_WILLNEED; break;
    case MADV_DONTNEED: behavior = is_file ? VM_BEHAVIOR_DONTNEED : VM_BEHAVIOR_FREE; break;
    case MADV_FREE: behavior = VM_BEHAVIOR_FREE; break;
    default: return EINVAL;
    }
    if (is_file && advice == MADV_FREE)
        return EINVAL;
    return vmp_errno(vm_behavior_set(mach_task_self(), part->start, part->end - part->start, behavior));
}

int madvise(void *address, size_t length, int advice)
{
    struct range range;
    int error = whole_pages(address, length, &range);
    if (error == 0)
        error = for_parts(range, advise_part, advice);
    return error == 0 ? 0 : fail(error);
}

/* Advice that loses nothing: not even DONTNEED. */
int posix_madvise(void *address, size_t length, int advice)
{
    if (advice == POSIX_MADV_DONTNEED)
        return 0;
    return madvise(address, length, advice) == 0 ? 0 : errno;
}

static int lock_part(const struct vmp_part *part, int locked)
{
    if (part->view == NULL)
        return vmp_errno(vm_msync(mach_task_self(), part->start, part->end - part->start, VM_SYNC_CONTIGUOUS));
    for (struct vmp_view *view = part->view; view != NULL && view->start < part->end; view = view->next)
        view->locked = locked;
    return 0;
}

static int set_locks(const void *address, size_t length, bool locked)
{
    struct range range;
    size_t before = (uintptr_t)address % VMP_PAGE;
    if (__builtin_add_overflow(length, before, &length))
        return fail(ENOMEM);
    int error = whole_pages((const char *)address - before, length, &range);
    if (error == 0 && (vmp_view_split(range.start) != 0 || vmp_view_split(range.end) != 0))
        error = ENOMEM;
    if (error == 0)
        error = for_parts(range, lock_part, locked);
    return error == 0 ? 0 : fail(error);
}

/* Guest memory is never written to a swap of the guest's; a lock says that the pages may not be dropped. */
int mlock(const void *address, size_t length)
{
    return set_locks(address, length, true);
}

int munlock(const void *address, size_t length)
{
    return set_locks(address, length, false);
}
