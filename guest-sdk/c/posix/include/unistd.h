/* wasi-libc's <unistd.h> with getpid. Part of the POSIX library. */
#ifndef VMSYNC_POSIX_UNISTD_H
#define VMSYNC_POSIX_UNISTD_H

#ifndef _WASI_EMULATED_GETPID
#define _WASI_EMULATED_GETPID
#endif
#include_next <unistd.h>

#endif
