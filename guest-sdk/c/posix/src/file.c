/* A file whose bytes are a memory object, mapped once and whole. See vmp.h for the invariants. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmp.h"

/* A new file's object: few files are smaller, and it costs address space only. */
#define HOME_BYTES_MIN ((uint64_t)65536)
/* A home doubles until it grows by this much at a time. */
#define HOME_STEP_MAX ((uint64_t)64 << 20)

struct vmp_file *vmp_files;

int vmp_errno(kern_return_t kr)
{
    switch (kr) {
    case KERN_SUCCESS: return 0;
    case KERN_INVALID_ADDRESS:
    case KERN_NO_SPACE: return ENOMEM;
    case KERN_PROTECTION_FAILURE:
    case KERN_NO_ACCESS: return EACCES;
    case KERN_INVALID_ARGUMENT: return EINVAL;
    case KERN_RESOURCE_SHORTAGE: return ENOSPC;
    case KERN_NOT_SUPPORTED: return ENOTSUP;
    default: return EIO;
    }
}

static kern_return_t open_object(const char *name, uint64_t size, uint32_t flags, mach_port_t *port)
{
    return memory_object_open(name, (uint32_t)strlen(name), size, flags, port);
}

/* Maps the object's bytes from `mapped` up to `size` behind what is mapped. */
static kern_return_t extend(struct vmp_file *file, uint64_t size)
{
    uint32_t protection = file->writable ? VM_PROT_READ | VM_PROT_WRITE : VM_PROT_READ;
    vm_address_t address = (vm_address_t)file->header + file->mapped;
    kern_return_t kr = vm_map(mach_task_self(), &address, (vm_size_t)(size - file->mapped), 0, VM_FLAGS_FIXED,
                              file->port, file->mapped, 0, protection, protection, VM_INHERIT_COPY);
    if (kr == KERN_SUCCESS)
        file->mapped = (size_t)size;
    return kr;
}

/* Whether the object is one of ours, or new. */
static bool is_sound(const struct vmp_file *file)
{
    static const struct vmp_header none;
    const struct vmp_header *header = file->header;
    if (memcmp(header, &none, sizeof none) == 0)
        return true;
    uint64_t room = file->mapped - VMP_PAGE;
    return memcmp(header->magic, VMP_MAGIC, sizeof header->magic) == 0 && header->size <= room &&
           header->high <= room;
}

/* Maps the object that `file` has open. */
static int map_home(struct vmp_file *file)
{
    vms_object_info_t info;
    kern_return_t kr = memory_object_info(file->port, &info);
    if (kr != KERN_SUCCESS)
        return vmp_errno(kr);
    if (info.page_size != VMP_PAGE)
        return ENOTSUP;
    if (info.size == 0)
        return ENOENT;
    if (info.size > SIZE_MAX)
        return EFBIG;
    vm_address_t address = vmp_place((uintptr_t)info.address, (size_t)info.size);
    uint32_t options = VMS_RELOCATABLE | (file->writable ? 0 : VMS_READ_ONLY);
    vms_request_t request = {file->port, (vm_size_t)info.size, options};
    kr = vms_map_in_window(&request, &address, vms_window_start(), vms_window_end());
    if (kr != KERN_SUCCESS)
        return vmp_errno(kr);
    file->header = (struct vmp_header *)address;
    file->mapped = (size_t)info.size;
    if (is_sound(file))
        return 0;
    (void)vm_deallocate(mach_task_self(), (vm_address_t)file->header, file->mapped);
    return EINVAL;
}

/* Opens and maps the object `name`, for stores if the host allows that. */
static int attach(const char *name, bool create, struct vmp_file **attached)
{
    mach_port_t port = 0;
    uint32_t flags = VMS_OPEN_READ | VMS_OPEN_WRITE | (create ? VMS_OPEN_CREATE : 0);
    kern_return_t kr = open_object(name, create ? HOME_BYTES_MIN : 0, flags, &port);
    bool writable = kr == KERN_SUCCESS;
    if (kr == KERN_NO_ACCESS)
        kr = open_object(name, 0, VMS_OPEN_READ, &port);
    switch (kr) {
    case KERN_SUCCESS: break;
    case KERN_INVALID_OBJECT: return create ? EROFS : ENOENT;
    case KERN_NO_ACCESS:
    case KERN_INVALID_ARGUMENT:
    case KERN_NOT_SUPPORTED: return VMP_ELSEWHERE;
    default: return vmp_errno(kr);
    }
    struct vmp_file *file = calloc(1, sizeof *file);
    int error = file == NULL ? ENOMEM : 0;
    if (error == 0) {
        strcpy(file->name, name);
        file->port = port;
        file->writable = writable;
        error = map_home(file);
    }
    if (error != 0) {
        (void)memory_object_close(port);
        free(file);
        return error;
    }
    file->next = vmp_files;
    vmp_files = file;
    *attached = file;
    return 0;
}

/* Makes the home at least `needed` bytes large. */
static int grow(struct vmp_file *file, uint64_t needed)
{
    if (needed <= file->mapped)
        return 0;
    if (!file->writable)
        return EROFS;
    uintptr_t home = (uintptr_t)file->header;
    uint64_t room = vmp_place_end(home) - home;
    if (needed > room)
        return EFBIG;
    uint64_t step = file->mapped < HOME_STEP_MAX ? file->mapped : HOME_STEP_MAX;
    uint64_t least = (needed + VMP_PAGE - 1) & ~(uint64_t)(VMP_PAGE - 1);
    uint64_t size = file->mapped + step > needed ? file->mapped + step : needed;
    size = (size + VMS_REGION_ALIGN - 1) & ~(uint64_t)(VMS_REGION_ALIGN - 1);
    if (size > room)
        size = room;
    mach_port_t port = 0;
    kern_return_t kr = open_object(file->name, size, VMS_OPEN_READ | VMS_OPEN_WRITE, &port);
    if (kr == KERN_RESOURCE_SHORTAGE) {
        /* A quota, perhaps: without the part that is for later. */
        size = least;
        kr = open_object(file->name, size, VMS_OPEN_READ | VMS_OPEN_WRITE, &port);
    }
    if (kr != KERN_SUCCESS)
        return vmp_errno(kr);
    (void)memory_object_close(port);
    kr = extend(file, size);
    if (kr == KERN_NO_SPACE)
        kr = extend(file, least); /* a region of the program's lies behind */
    return kr == KERN_NO_SPACE ? EFBIG : vmp_errno(kr);
}

static void touch_header(struct vmp_file *file)
{
    file->header_dirty = true;
    file->dirty = true;
}

int vmp_file_open(const char *name, unsigned flags, struct vmp_file **opened)
{
    struct vmp_file *file = vmp_files;
    while (file != NULL && strcmp(file->name, name) != 0)
        file = file->next;
    if (file == NULL) {
        int error = attach(name, flags & VMP_CREATE, &file);
        if (error != 0)
            return error;
    }
    struct vmp_header *header = file->header;
    if (header->links == 0) {
        if (!(flags & VMP_CREATE))
            return ENOENT;
        if (!file->writable)
            return EROFS;
        if (file->opens > 0)
            return EBUSY; /* removed, and still open: its bytes are in the way */
        memcpy(header->magic, VMP_MAGIC, sizeof header->magic);
        header->links = 1;
        touch_header(file);
    } else if ((flags & VMP_CREATE) && (flags & VMP_EXCLUSIVE)) {
        return EEXIST;
    }
    *opened = file;
    return 0;
}

/* Stores where mprotect may have forbidden it, which binds the program's pointers and not its writes. ENOSPC: the host
 * has no mapping left for a page that is opened alone; what lies before it is stored. */
static int store_guarded(unsigned char *target, const void *bytes, size_t count)
{
    while (count > 0) {
        vm_address_t start = (vm_address_t)target;
        vm_size_t length = 0;
        vm_region_basic_info_64_t info;
        uint32_t info_count = VM_REGION_BASIC_INFO_COUNT_64;
        mach_port_t object;
        (void)vm_region(mach_task_self(), &start, &length, VM_REGION_BASIC_INFO_64, &info, &info_count, &object);
        size_t part = start + length - (vm_address_t)target;
        if (part > count)
            part = count;
        bool closed = !(info.protection & VM_PROT_WRITE);
        kern_return_t kr = KERN_SUCCESS;
        if (closed)
            kr = vm_protect(mach_task_self(), (vm_address_t)target, part, 0, VM_PROT_READ | VM_PROT_WRITE);
        if (kr != KERN_SUCCESS)
            return vmp_errno(kr);
        if (bytes != NULL)
            memmove(target, bytes, part);
        else
            memset(target, 0, part);
        if (closed)
            (void)vm_protect(mach_task_self(), (vm_address_t)target, part, 0, info.protection);
        bytes = bytes != NULL ? (const char *)bytes + part : NULL;
        target += part;
        count -= part;
    }
    return 0;
}

/* Stores `count` bytes at `offset`, which the home has; zeroes where `bytes` is NULL. */
static int store(struct vmp_file *file, const void *bytes, size_t count, uint64_t offset)
{
    unsigned char *target = vmp_bytes(file) + offset;
    file->dirty = true;
    if (file->guarded)
        return store_guarded(target, bytes, count);
    if (bytes != NULL)
        memmove(target, bytes, count);
    else
        memset(target, 0, count);
    return 0;
}

static uint64_t least(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

/* Up to where a file of `size` bytes may have other bytes than zeroes in its pages. */
static uint64_t pages_end(const struct vmp_file *file, uint64_t size)
{
    uint64_t end = (size + VMP_PAGE - 1) & ~(uint64_t)(VMP_PAGE - 1);
    return least(end, file->header->high);
}

/* Makes the file's bytes from `start` to `end` zeroes, if they may be something else. */
static int clear(struct vmp_file *file, uint64_t start, uint64_t end)
{
    end = least(end, file->header->high);
    return end > start ? store(file, NULL, (size_t)(end - start), start) : 0;
}

/* Sets the size, after what the file grows over, and what is behind the end in its last page, was cleared or stored. */
static void set_size(struct vmp_file *file, uint64_t size)
{
    uint64_t stale = pages_end(file, size);
    if (stale > least(size, file->header->size))
        file->stale = stale;
    else if (file->stale > size)
        file->stale = size;
    file->header->size = size;
    touch_header(file);
}

int vmp_file_resize(struct vmp_file *file, uint64_t size)
{
    uint64_t before = file->header->size;
    if (size == before)
        return 0;
    int error = vmp_file_reserve(file, size);
    if (error == 0)
        error = clear(file, least(size, before), pages_end(file, size));
    if (error == 0)
        set_size(file, size);
    return error;
}

int vmp_file_write(struct vmp_file *file, const void *bytes, size_t count, uint64_t offset)
{
    uint64_t end = offset + count;
    uint64_t before = file->header->size;
    if (end < offset)
        return EFBIG;
    if (count == 0)
        return 0;
    int error = vmp_file_reserve(file, end);
    if (error != 0)
        return error;
    /* The bytes may lie in what is cleared. */
    error = store(file, bytes, count, offset);
    if (error == 0 && end > before)
        error = clear(file, before, offset);
    if (error == 0 && end > before)
        error = clear(file, end, pages_end(file, end));
    if (error == 0 && end > before)
        set_size(file, end);
    vmp_file_expose(file, end);
    return error;
}

size_t vmp_file_read(const struct vmp_file *file, void *bytes, size_t count, uint64_t offset)
{
    uint64_t size = file->header->size;
    if (offset >= size)
        return 0;
    if (count > size - offset)
        count = (size_t)(size - offset);
    memmove(bytes, vmp_bytes(file) + offset, count);
    return count;
}

int vmp_file_reserve(struct vmp_file *file, uint64_t end)
{
    return end > UINT64_MAX - VMP_PAGE ? EFBIG : grow(file, VMP_PAGE + end);
}

void vmp_file_expose(struct vmp_file *file, uint64_t end)
{
    file->dirty = true;
    if (end > file->header->high) {
        file->header->high = end;
        touch_header(file);
    }
}

kern_return_t vmp_file_sync(struct vmp_file *file, uint64_t offset, size_t count, uint32_t flags)
{
    vm_address_t start = (vm_address_t)vmp_bytes(file) + (vm_address_t)offset;
    vm_address_t end = start + count;
    bool writes = flags & (VM_SYNC_SYNCHRONOUS | VM_SYNC_ASYNCHRONOUS);
    if (writes && file->header_dirty) {
        start = (vm_address_t)file->header;
        if (offset + count < file->stale)
            end = (vm_address_t)vmp_bytes(file) + (vm_address_t)file->stale;
    }
    kern_return_t kr = vm_msync(mach_task_self(), start, end - start, flags);
    /* What was only queued may still be lost. */
    if (kr == KERN_SUCCESS && flags & VM_SYNC_SYNCHRONOUS) {
        file->header_dirty = false;
        file->stale = 0;
    }
    return kr;
}

int vmp_file_sync_all(struct vmp_file *file)
{
    if (!file->writable)
        return 0;
    return vmp_errno(vmp_file_sync(file, 0, file->mapped - VMP_PAGE, VM_SYNC_SYNCHRONOUS));
}

int vmp_file_unlink(struct vmp_file *file)
{
    if (!file->writable)
        return EROFS;
    file->header->links = 0;
    set_size(file, 0);
    /* Durable at once, as no folder can be synced. Other changes of the file stay as they are. */
    return vmp_errno(vmp_file_sync(file, 0, 0, VM_SYNC_SYNCHRONOUS));
}

void vmp_file_stat(const struct vmp_file *file, struct stat *status)
{
    uint64_t number = 14695981039346656037u; /* FNV-1a of the name */
    for (const char *byte = file->name; *byte != 0; ++byte)
        number = (number ^ (unsigned char)*byte) * 1099511628211u;
    memset(status, 0, sizeof *status);
    status->st_dev = 0x766d73;
    status->st_ino = number;
    status->st_nlink = file->header->links;
    status->st_mode = S_IFREG | (file->writable ? 0644 : 0444);
    status->st_size = (off_t)file->header->size;
    status->st_blksize = (blksize_t)VMP_PAGE;
    status->st_blocks = (blkcnt_t)((file->header->size + 511) / 512);
}

/* What was written and never synced outlives a program that ends by itself. */
__attribute__((destructor)) static void sync_at_exit(void)
{
    for (struct vmp_file *file = vmp_files; file != NULL; file = file->next)
        if (file->dirty)
            (void)vmp_file_sync_all(file);
}
