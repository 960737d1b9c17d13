/*
 * Calls that name a file by its path. The host decides: a path whose name it grants is an object, every other goes to
 * wasi-libc.
 *
 * Folders need not be made: every path below a --files folder can be a file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vmp.h"

/* Neither success nor failure: wasi-libc is to be asked. */
#define NOT_OURS (-2)

static int fail(int error)
{
    errno = error;
    return -1;
}

/* The file at `path`. VMP_ELSEWHERE, 0, or an errno. */
static int find(const char *path, unsigned flags, struct vmp_file **file)
{
    char name[VMP_NAME_MAX + 1];
    int length = vmp_name(path, name);
    return length <= 0 ? VMP_ELSEWHERE : vmp_file_open(name, flags, file);
}

/* Whether the host grants the object `name`, there or not. */
static bool is_granted(const char *name)
{
    mach_port_t port;
    kern_return_t kr = memory_object_open(name, (uint32_t)strlen(name), 0, VMS_OPEN_READ, &port);
    if (kr == KERN_SUCCESS)
        (void)memory_object_close(port);
    return kr == KERN_SUCCESS || kr == KERN_INVALID_OBJECT;
}

/* Whether `path` is a --files folder. */
static bool is_root(const char *path)
{
    char name[VMP_NAME_MAX + 1];
    int length = vmp_name(path, name);
    if (length < 0 || length > VMP_NAME_MAX - 4 || (length > 0 && is_granted(name)))
        return false;
    strcpy(name + length, length > 0 ? "_2F-" : "-");
    return is_granted(name);
}

/* A descriptor; -1 with errno; NOT_OURS. */
static int open_ours(const char *path, int flags)
{
    bool writes = flags & O_WRONLY;
    unsigned how = (flags & O_CREAT ? VMP_CREATE : 0) | (flags & O_EXCL ? VMP_EXCLUSIVE : 0);
    struct vmp_file *file;
    int error = find(path, how, &file);
    if (error == VMP_ELSEWHERE)
        return NOT_OURS;
    if (error != 0)
        return fail(error);
    if (flags & O_DIRECTORY)
        return fail(ENOTDIR);
    if (writes && !file->writable)
        return fail(EROFS);
    if (flags & O_TRUNC && writes) {
        error = vmp_file_resize(file, 0);
        if (error != 0)
            return fail(error);
    }
    return vmp_descriptor_open(file, flags);
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    int fd = open_ours(path, flags);
    /* wasi-libc takes no mode either. */
    return fd == NOT_OURS ? __real_open(path, flags) : fd;
}

/* What fopen and others of wasi-libc call. */
int __real___wasilibc_open_nomode(const char *path, int flags);
int __wrap___wasilibc_open_nomode(const char *path, int flags)
{
    int fd = open_ours(path, flags);
    return fd == NOT_OURS ? __real___wasilibc_open_nomode(path, flags) : fd;
}

/* stat, but for paths that wasi-libc knows. */
static int stat_ours(const char *path, struct stat *status)
{
    struct vmp_file *file;
    int error = find(path, 0, &file);
    if (error == 0)
        vmp_file_stat(file, status);
    return error == 0 ? 0 : error == VMP_ELSEWHERE ? NOT_OURS : fail(error);
}

/* What wasi-libc does not know may be a folder of ours. */
static int stat_root(const char *path, struct stat *status)
{
    if (!is_root(path))
        return fail(ENOENT);
    memset(status, 0, sizeof *status);
    status->st_mode = S_IFDIR | 0755;
    status->st_nlink = 1;
    return 0;
}

int __real_stat(const char *restrict path, struct stat *restrict status);
int __wrap_stat(const char *restrict path, struct stat *restrict status)
{
    int result = stat_ours(path, status);
    if (result != NOT_OURS)
        return result;
    return __real_stat(path, status) == 0 ? 0 : stat_root(path, status);
}

/* There are no symbolic links to ours. */
int __real_lstat(const char *restrict path, struct stat *restrict status);
int __wrap_lstat(const char *restrict path, struct stat *restrict status)
{
    int result = stat_ours(path, status);
    if (result != NOT_OURS)
        return result;
    return __real_lstat(path, status) == 0 ? 0 : stat_root(path, status);
}

int __real_access(const char *path, int mode);
int __wrap_access(const char *path, int mode)
{
    struct vmp_file *file;
    int error = find(path, 0, &file);
    if (error == VMP_ELSEWHERE)
        return __real_access(path, mode) == 0 || is_root(path) ? 0 : fail(ENOENT);
    if (error == 0 && mode & W_OK && !file->writable)
        error = EROFS;
    if (error == 0 && mode & X_OK)
        error = EACCES;
    return error == 0 ? 0 : fail(error);
}

int __real_unlink(const char *path);
int __wrap_unlink(const char *path)
{
    struct vmp_file *file;
    int error = find(path, 0, &file);
    if (error == VMP_ELSEWHERE)
        return __real_unlink(path);
    if (error == 0)
        error = vmp_file_unlink(file);
    return error == 0 ? 0 : fail(error);
}

int __real_remove(const char *path);
int __wrap_remove(const char *path)
{
    struct vmp_file *file;
    return find(path, 0, &file) == VMP_ELSEWHERE ? __real_remove(path) : __wrap_unlink(path);
}

/* An object keeps its name: whoever can copy instead is told so. */
int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to)
{
    struct vmp_file *file;
    int error = find(from, 0, &file);
    if (error == VMP_ELSEWHERE && find(to, 0, &file) == VMP_ELSEWHERE)
        return __real_rename(from, to);
    return fail(error == ENOENT ? ENOENT : EXDEV);
}

int __real_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode)
{
    struct vmp_file *file;
    int error = find(path, 0, &file);
    if (error == VMP_ELSEWHERE)
        return is_root(path) ? fail(EEXIST) : __real_mkdir(path, mode);
    return error == ENOENT ? 0 : fail(error == 0 ? EEXIST : error);
}
