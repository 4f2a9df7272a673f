/* Counts the calls that change files below a folder, and breaks one of them.

   Loaded before the C library by LD_PRELOAD, told by the environment, see file_calls.py:

       FILE_CALLS_UNDER    the folder, as an absolute path without links
       FILE_CALLS_AT       the number of the call to break, from 1 on; 0 breaks none
       FILE_CALLS_DO       "kill", or the number of the error to raise; with a + after it,
                           all later calls raise it, too
       FILE_CALLS_COUNTER  a file of eight bytes that all processes count in
       FILE_CALLS_LOG      where each call is written down, if anywhere

   A process that is forked without exec calls file_calls_arm() to read these again. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char under[PATH_MAX];
static size_t under_length;
static long break_at;
static int break_with; /* 0 kills */
static int lasts;
static long *counter;
static int log_to = -1;

static int open_raw(const char *path, int flags) {
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0644);
}

__attribute__((constructor)) void file_calls_arm(void) {
    const char *folder = getenv("FILE_CALLS_UNDER"), *at = getenv("FILE_CALLS_AT");
    const char *what = getenv("FILE_CALLS_DO"), *count = getenv("FILE_CALLS_COUNTER");
    const char *log = getenv("FILE_CALLS_LOG");
    under_length = 0;
    if (!folder || !count || strlen(folder) >= PATH_MAX)
        return;
    int shared = open_raw(count, O_RDWR);
    if (shared < 0)
        return;
    counter = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
    close(shared);
    if (counter == MAP_FAILED)
        return;
    log_to = log ? open_raw(log, O_WRONLY | O_CREAT | O_APPEND) : -1;
    break_at = at ? atol(at) : 0;
    break_with = what && strcmp(what, "kill") ? atoi(what) : 0;
    lasts = what && strchr(what, '+');
    strcpy(under, folder);
    under_length = strlen(folder);
}

static int is_below(const char *path) {
    return !strncmp(path, under, under_length) && (path[under_length] == '/' || !path[under_length]);
}

static int find_path(int folder, const char *path, char *found) {
    char link[64];
    ssize_t n = 0;
    if (path && path[0] == '/') {
        snprintf(found, PATH_MAX, "%s", path);
        return 1;
    }
    if (folder == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    n = readlink(link, found, PATH_MAX - 1);
    if (n < 0)
        return 0;
    found[n] = 0;
    if (path)
        snprintf(found + n, PATH_MAX - n, "/%s", path);
    return 1;
}

/* Whether the call is to fail: then errno is set. */
static int breaks(const char *name, int folder, const char *path) {
    char found[PATH_MAX], line[PATH_MAX + 64];
    int before = errno;
    if (!under_length || !find_path(folder, path, found) || !is_below(found)) {
        errno = before;
        return 0;
    }
    long number = __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
    if (log_to >= 0) {
        int n = snprintf(line, sizeof line, "%ld %s %s\n", number, name, found + under_length);
        if (syscall(SYS_write, log_to, line, n) != n)
            abort();
    }
    errno = before;
    if (number != break_at && !(lasts && break_at && number > break_at))
        return 0;
    if (!break_with)
        kill(getpid(), SIGKILL);
    errno = break_with;
    return 1;
}

#define NEXT(name) \
    static __typeof__(&name) real; \
    if (!real) \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define ON_FILE(type, name, parameters, arguments) \
    type name parameters { \
        NEXT(name); \
        return breaks(#name, fd, NULL) ? -1 : real arguments; \
    }

#define ON_PATH(type, name, parameters, arguments) \
    type name parameters { \
        NEXT(name); \
        return breaks(#name, AT_FDCWD, path) ? -1 : real arguments; \
    }

#define ON_PATH_AT(type, name, parameters, arguments) \
    type name parameters { \
        NEXT(name); \
        return breaks(#name, folder, path) ? -1 : real arguments; \
    }

ON_FILE(ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n))
ON_FILE(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t at), (fd, b, n, at))
ON_FILE(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t at), (fd, b, n, at))
ON_FILE(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n))
ON_FILE(ssize_t, pwritev, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at))
ON_FILE(ssize_t, pwritev64, (int fd, const struct iovec *v, int n, off64_t at), (fd, v, n, at))
ON_FILE(int, ftruncate, (int fd, off_t n), (fd, n))
ON_FILE(int, ftruncate64, (int fd, off64_t n), (fd, n))
ON_FILE(int, fallocate, (int fd, int how, off_t at, off_t n), (fd, how, at, n))
ON_FILE(int, fallocate64, (int fd, int how, off64_t at, off64_t n), (fd, how, at, n))
ON_FILE(int, fsync, (int fd), (fd))
ON_FILE(int, fdatasync, (int fd), (fd))
ON_FILE(int, fchmod, (int fd, mode_t mode), (fd, mode))
ON_FILE(ssize_t, sendfile, (int fd, int from, off_t *at, size_t n), (fd, from, at, n))
ON_FILE(ssize_t, sendfile64, (int fd, int from, off64_t *at, size_t n), (fd, from, at, n))

ON_PATH(int, truncate, (const char *path, off_t n), (path, n))
ON_PATH(int, truncate64, (const char *path, off64_t n), (path, n))
ON_PATH(int, unlink, (const char *path), (path))
ON_PATH(int, remove, (const char *path), (path))
ON_PATH(int, rmdir, (const char *path), (path))
ON_PATH(int, mkdir, (const char *path, mode_t mode), (path, mode))
ON_PATH(int, chmod, (const char *path, mode_t mode), (path, mode))
ON_PATH(int, creat, (const char *path, mode_t mode), (path, mode))
ON_PATH(int, creat64, (const char *path, mode_t mode), (path, mode))
ON_PATH(int, rename, (const char *old, const char *path), (old, path))
ON_PATH(int, link, (const char *old, const char *path), (old, path))
ON_PATH(int, symlink, (const char *old, const char *path), (old, path))
ON_PATH(int, mkstemp, (char *path), (path))
ON_PATH(int, mkstemp64, (char *path), (path))

ON_PATH_AT(int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags))
ON_PATH_AT(int, mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode))
ON_PATH_AT(int, symlinkat, (const char *old, int folder, const char *path), (old, folder, path))
ON_PATH_AT(int, renameat, (int from, const char *old, int folder, const char *path),
           (from, old, folder, path))
ON_PATH_AT(int, renameat2, (int from, const char *old, int folder, const char *path, unsigned flags),
           (from, old, folder, path, flags))
ON_PATH_AT(int, linkat, (int from, const char *old, int folder, const char *path, int flags),
           (from, old, folder, path, flags))

ssize_t copy_file_range(int from, off64_t *a, int fd, off64_t *b, size_t n, unsigned flags) {
    NEXT(copy_file_range);
    return breaks("copy_file_range", fd, NULL) ? -1 : real(from, a, fd, b, n, flags);
}

int posix_fallocate(int fd, off_t at, off_t n) { /* returns the error */
    NEXT(posix_fallocate);
    return breaks("posix_fallocate", fd, NULL) ? errno : real(fd, at, n);
}

int posix_fallocate64(int fd, off64_t at, off64_t n) {
    NEXT(posix_fallocate64);
    return breaks("posix_fallocate64", fd, NULL) ? errno : real(fd, at, n);
}

#define OPENING(name, folder, flags) \
    mode_t mode = 0; \
    if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    } \
    if ((flags) & (O_CREAT | O_TRUNC) && breaks(#name, folder, path)) \
        return -1

int open(const char *path, int flags, ...) {
    NEXT(open);
    OPENING(open, AT_FDCWD, flags);
    return real(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    NEXT(open64);
    OPENING(open64, AT_FDCWD, flags);
    return real(path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    NEXT(openat);
    OPENING(openat, folder, flags);
    return real(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
    NEXT(openat64);
    OPENING(openat64, folder, flags);
    return real(folder, path, flags, mode);
}

FILE *fopen(const char *path, const char *mode) {
    NEXT(fopen);
    return strpbrk(mode, "wa+") && breaks("fopen", AT_FDCWD, path) ? NULL : real(path, mode);
}

FILE *fopen64(const char *path, const char *mode) {
    NEXT(fopen64);
    return strpbrk(mode, "wa+") && breaks("fopen64", AT_FDCWD, path) ? NULL : real(path, mode);
}
