/*
 * wasi-libc's <fcntl.h> with the names of record locks, which it leaves out. Part of the POSIX library.
 *
 * A store has one process at a time and a guest one thread: a lock of a file below a --files folder is always free.
 */
#ifndef VMSYNC_POSIX_FCNTL_H
#define VMSYNC_POSIX_FCNTL_H

#include_next <fcntl.h>

#ifndef F_RDLCK
#define F_RDLCK 0
#define F_WRLCK 1
#define F_UNLCK 2
#endif
#ifndef F_GETLK
#define F_GETLK 12
#define F_SETLK 13
#define F_SETLKW 14
#endif

#endif
