/* Descriptors of files whose bytes are objects, and the calls on them. Other descriptors go to wasi-libc. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vmp.h"

static struct vmp_descriptor *descriptors;
static int descriptor_count;

#define REAL(result, name, ...) \
    result __real_##name(__VA_ARGS__); \
    result __wrap_##name(__VA_ARGS__)

static int fail(int error)
{
    errno = error;
    return -1;
}

/* 0, or -1 with errno. */
static int answer(int error)
{
    return error == 0 ? 0 : fail(error);
}

struct vmp_descriptor *vmp_descriptor(int fd)
{
    int index = fd - VMP_FD_FIRST;
    if (fd < VMP_FD_FIRST || index >= descriptor_count || descriptors[index].file == NULL)
        return NULL;
    return &descriptors[index];
}

int vmp_descriptor_open(struct vmp_file *file, int flags)
{
    int index = 0;
    while (index < descriptor_count && descriptors[index].file != NULL)
        ++index;
    if (index == descriptor_count) {
        int count = descriptor_count == 0 ? 16 : 2 * descriptor_count;
        struct vmp_descriptor *larger = realloc(descriptors, (size_t)count * sizeof *larger);
        if (larger == NULL)
            return fail(ENOMEM);
        for (int fresh = descriptor_count; fresh < count; ++fresh)
            larger[fresh].file = NULL;
        descriptors = larger;
        descriptor_count = count;
    }
    descriptors[index] = (struct vmp_descriptor){file, 0, flags};
    ++file->opens;
    return VMP_FD_FIRST + index;
}

REAL(int, close, int fd)
{
    struct vmp_descriptor *ours = vmp_descriptor(fd);
    if (ours == NULL)
        return __real_close(fd);
    --ours->file->opens;
    ours->file = NULL;
    return 0;
}

static ssize_t read_at(struct vmp_descriptor *from, const struct iovec *parts, int count, uint64_t offset)
{
    if (!(from->flags & O_RDONLY))
        return fail(EBADF);
    size_t sum = 0;
    for (int index = 0; index < count; ++index) {
        size_t done = vmp_file_read(from->file, parts[index].iov_base, parts[index].iov_len, offset + sum);
        sum += done;
        if (done < parts[index].iov_len)
            break;
    }
    return (ssize_t)sum;
}

static ssize_t write_at(struct vmp_descriptor *to, const struct iovec *parts, int count, uint64_t offset)
{
    if (!(to->flags & O_WRONLY))
        return fail(EBADF);
    size_t sum = 0;
    for (int index = 0; index < count; ++index) {
        int error = vmp_file_write(to->file, parts[index].iov_base, parts[index].iov_len, offset + sum);
        if (error != 0 && sum == 0)
            return fail(error);
        if (error != 0)
            break;
        sum += parts[index].iov_len;
    }
    if (to->flags & (O_DSYNC | O_SYNC)) {
        int error = vmp_errno(vmp_file_sync(to->file, offset, sum, VM_SYNC_SYNCHRONOUS));
        if (error != 0)
            return fail(error);
    }
    return (ssize_t)sum;
}

static ssize_t read_on(struct vmp_descriptor *from, const struct iovec *parts, int count)
{
    ssize_t done = read_at(from, parts, count, from->offset);
    from->offset += done > 0 ? (uint64_t)done : 0;
    return done;
}

static ssize_t write_on(struct vmp_descriptor *to, const struct iovec *parts, int count)
{
    if (to->flags & O_APPEND)
        to->offset = to->file->header->size;
    ssize_t done = write_at(to, parts, count, to->offset);
    to->offset += done > 0 ? (uint64_t)done : 0;
    return done;
}

REAL(ssize_t, read, int fd, void *bytes, size_t count)
{
    struct vmp_descriptor *ours = vmp_descriptor(fd);
    return ours == NULL ? __real_read(fd, bytes, count) : read_on(ours, &(struct iovec){bytes, count}, 1);
}

REAL(ssize_t, write, int fd, const void *bytes, size_t count)
{
    struct vmp_descriptor *ours = vmp_descriptor(fd);
    return ours == NULL ? __real_write(fd, bytes, count) : write_on(ours, &(struct iovec){(void *)bytes, count}, 1);
}

REAL(ssize_t, readv, int fd, const struct iovec *parts, int count)
{
    struct vmp_descriptor *ours = vmp_descriptor(fd);
    return ours == NULL ? __real_readv(fd, parts, count) : read_on(ours, parts, count);
}

REAL(ssize_t, writev, int fd, const struct iovec *parts, int count)
{
    struct vmp_descriptor *ours = vmp_descriptor(fd);
    return ours == NULL ? __real_writev(fd, parts, count) : write_on(ours, parts, count);
}

REAL(ssize_t, preadv, int fd, const struct iovec *parts, int count, off_t offset)
{
    struct vmp_descriptor *ours = vmp_descriptor(fd);
    if (ours == NULL)
        return __real_preadv(fd, parts, count, offset);
    return offset < 0 ? fail(EINVAL) : read_at(ours, parts, count, (uint64_t)offset);
}

REAL(ssize_t, pwritev, int fd, const struct iovec *parts, int count, off_t offset)
{
    struct vmp_descriptor *ours = vmp_descriptor(fd);
    if (ours == NULL)
        return __real_pwritev(fd, parts, count, offset);
    return offset < 0 ? fail(EINVAL) : write_at(ours, parts, count, (uint64_t)offset);
}

REAL(ssize_t, pread, int fd, void *bytes, size_t count, off_t offset)
{
    if (vmp_descriptor(fd) == NULL)
        return __real_pread(fd, bytes, count, offset);
    return __wrap_preadv(fd, &(struct iovec){bytes, count}, 1, offset);
}

REAL(ssize_t, pwrite, int fd, const void *bytes, size_t count, off_t offset)
{
    if (vmp_descriptor(fd) == NULL)
        return __real_pwrite(fd, bytes, count, offset);
    return __wrap_pwritev(fd, &(struct iovec){(void *)bytes, count}, 1, offset);
}

REAL(off_t, lseek, int fd, off_t offset, int whence)
{
    struct vmp_descriptor *ours = vmp_descriptor(fd);
    if (ours == NULL)
        return __real_lseek(fd, offset, whence);
    off_t from = 0;
    switch (whence) {
    case SEEK_SET: break;
    case SEEK_CUR: from = (off_t)ours->offset; break;
    case SEEK_END: from = (off_t)ours->file->header->size; break;
    default: return fail(EINVAL);
    }
    off_t sum;
    if (__builtin_add_overflow(from, offset, &sum) || sum < 0)
        return fail(EINVAL);
    ours->offset = (uint64_t)sum;
    return sum;
}

/* What stdio calls. */
off_t __wrap___lseek(int fd, off_t offset, int whence)
{
    return __wrap_lseek(fd, offset, whence);
}

REAL(int, fstat, int fd, struct stat *status)
{
    struct vmp_descriptor *ours = vmp_descriptor(fd);
    if (ours == NULL)
        return __real_fstat(fd, status);
    vmp_file_stat(ours->file, status);
    return 0;
}

REAL(int, ftruncate, int fd, off_t size)
{
    struct vmp_descriptor *ours = vmp_descriptor(fd);
    if (ours == NULL)
        return __real_ftruncate(fd, size);
    if (size < 0 || !(ours->flags & O_WRONLY))
        return fail(EINVAL);
    return answer(vmp_file_resize(ours->file, (uint64_t)size));
}

REAL(int, posix_fallocate, int fd, off_t offset, off_t count)
{
    struct vmp_descriptor *ours = vmp_descriptor(fd);
    if (ours == NULL)
        return __real_posix_fallocate(fd, offset, count);
    off_t end;
    if (offset < 0 || count <= 0 || __builtin_add_overflow(offset, count, &end))
        return EINVAL;
    if (!(ours->flags & O_WRONLY))
        return EBADF;
    return (uint64_t)end > ours->file->header->size ? vmp_file_resize(ours->file, (uint64_t)end) : 0;
}

REAL(int, posix_fadvise, int fd, off_t offset, off_t count, int advice)
{
    return vmp_descriptor(fd) == NULL ? __real_posix_fadvise(fd, offset, count, advice) : 0;
}

REAL(int, fsync, int fd)
{
    struct vmp_descriptor *ours = vmp_descriptor(fd);
    return ours == NULL ? __real_fsync(fd) : answer(vmp_file_sync_all(ours->file));
}

REAL(int, fdatasync, int fd)
{
    struct vmp_descriptor *ours = vmp_descriptor(fd);
    return ours == NULL ? __real_fdatasync(fd) : answer(vmp_file_sync_all(ours->file));
}

int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *); /* an int has its size */
    va_end(arguments);
    struct vmp_descriptor *ours = vmp_descriptor(fd);
    if (ours == NULL)
        return __real_fcntl(fd, command, argument);
    const int settable = O_APPEND | O_DSYNC | O_SYNC | O_NONBLOCK;
    switch (command) {
    case F_GETFD:
    case F_SETFD:
    case F_SETLK:
    case F_SETLKW: return 0; /* nobody else has the file */
    case F_GETFL: return ours->flags;
    case F_SETFL: ours->flags = (ours->flags & ~settable) | ((int)(intptr_t)argument & settable); return 0;
    case F_GETLK: ((struct flock *)argument)->l_type = F_UNLCK; return 0;
    default: return fail(EINVAL);
    }
}

/* The page of mmap, which is not Wasm's of 64 KiB. */
REAL(long, sysconf, int name)
{
    return name == _SC_PAGESIZE ? (long)VMP_PAGE : __real_sysconf(name);
}
