/* Fail the n-th call of one kind on files below one folder.

   cc -shared -fPIC -O1 -o fault.so fault.c -ldl; LD_PRELOAD=fault.so python ...

   set_fault(folder, kind, n, error) arms it: the n-th call of that kind fails with that errno. With n = 0 calls are only
   counted. fault_count() is the number of calls since then, fault_path() the path of the failed one.

   Kinds: open, read, write, truncate, fsync, close, rename, mkdir, unlink, stat, list, flock. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[PATH_MAX], kind[16], failed[2 * PATH_MAX];
static int nth, error;
static atomic_int count;

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name); real; })

void set_fault(const char *below, const char *of, int n, int code)
{
    snprintf(folder, sizeof folder, "%s", below);
    snprintf(kind, sizeof kind, "%s", of);
    failed[0] = 0;
    nth = n;
    error = code;
    atomic_store(&count, 0);
}

int fault_count(void) { return atomic_load(&count); }

const char *fault_path(void) { return failed; }

static const char *path_of(int fd, char *buffer)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    buffer[length < 0 ? 0 : length] = 0;
    return buffer;
}

/* Whether this call, on `path` relative to the folder of `fd`, or on `fd` itself if there is no path, fails. */
static int fails(const char *of, int fd, const char *path)
{
    char start[PATH_MAX], whole[2 * PATH_MAX];
    if (!kind[0] || strcmp(of, kind))
        return 0;
    if (path && path[0] == '/')
        snprintf(whole, sizeof whole, "%s", path);
    else if (path && fd == AT_FDCWD)
        snprintf(whole, sizeof whole, "%s/%s", getcwd(start, sizeof start) ? start : "", path);
    else if (path)
        snprintf(whole, sizeof whole, "%s/%s", path_of(fd, start), path);
    else
        snprintf(whole, sizeof whole, "%s", path_of(fd, start));
    if (strncmp(whole, folder, strlen(folder)))
        return 0;
    if (atomic_fetch_add(&count, 1) + 1 != nth)
        return 0;
    snprintf(failed, sizeof failed, "%s", whole);
    errno = error;
    return 1;
}

static mode_t mode_of(int flags, va_list list) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; }

#define OPEN(name, at, parameters, arguments) \
    int name parameters \
    { \
        va_list list; \
        va_start(list, flags); \
        mode_t mode = mode_of(flags, list); \
        va_end(list); \
        return fails("open", at, path) ? -1 : REAL(name) arguments; \
    }

OPEN(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, at, (int at, const char *path, int flags, ...), (at, path, flags, mode))
OPEN(openat64, at, (int at, const char *path, int flags, ...), (at, path, flags, mode))

#define CALL(result, name, of, fd, path, parameters, arguments) \
    result name parameters { return fails(of, fd, path) ? (result)-1 : REAL(name) arguments; }

CALL(ssize_t, read, "read", fd, NULL, (int fd, void *data, size_t size), (fd, data, size))
CALL(ssize_t, pread, "read", fd, NULL, (int fd, void *data, size_t size, off_t at), (fd, data, size, at))
CALL(ssize_t, pread64, "read", fd, NULL, (int fd, void *data, size_t size, off64_t at), (fd, data, size, at))
CALL(ssize_t, write, "write", fd, NULL, (int fd, const void *data, size_t size), (fd, data, size))
CALL(ssize_t, pwrite, "write", fd, NULL, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
CALL(ssize_t, pwrite64, "write", fd, NULL, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
CALL(int, ftruncate, "truncate", fd, NULL, (int fd, off_t size), (fd, size))
CALL(int, ftruncate64, "truncate", fd, NULL, (int fd, off64_t size), (fd, size))
CALL(int, fsync, "fsync", fd, NULL, (int fd), (fd))
CALL(int, fdatasync, "fsync", fd, NULL, (int fd), (fd))
CALL(int, flock, "flock", fd, NULL, (int fd, int operation), (fd, operation))
CALL(int, rename, "rename", AT_FDCWD, to, (const char *from, const char *to), (from, to))
CALL(int, renameat, "rename", b, to, (int a, const char *from, int b, const char *to), (a, from, b, to))
CALL(int, renameat2, "rename", b, to, (int a, const char *from, int b, const char *to, unsigned flags),
     (a, from, b, to, flags))
CALL(int, mkdir, "mkdir", AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
CALL(int, mkdirat, "mkdir", at, path, (int at, const char *path, mode_t mode), (at, path, mode))
CALL(int, unlink, "unlink", AT_FDCWD, path, (const char *path), (path))
CALL(int, unlinkat, "unlink", at, path, (int at, const char *path, int flags), (at, path, flags))
CALL(int, rmdir, "unlink", AT_FDCWD, path, (const char *path), (path))
CALL(int, stat, "stat", AT_FDCWD, path, (const char *path, struct stat *status), (path, status))
CALL(int, stat64, "stat", AT_FDCWD, path, (const char *path, struct stat64 *status), (path, status))
CALL(int, lstat, "stat", AT_FDCWD, path, (const char *path, struct stat *status), (path, status))
CALL(int, lstat64, "stat", AT_FDCWD, path, (const char *path, struct stat64 *status), (path, status))
CALL(int, fstat, "stat", fd, NULL, (int fd, struct stat *status), (fd, status))
CALL(int, fstat64, "stat", fd, NULL, (int fd, struct stat64 *status), (fd, status))
CALL(int, fstatat, "stat", at, path, (int at, const char *path, struct stat *status, int flags),
     (at, path, status, flags))
CALL(int, fstatat64, "stat", at, path, (int at, const char *path, struct stat64 *status, int flags),
     (at, path, status, flags))

int close(int fd) /* closes the descriptor all the same, as Linux does */
{
    int failing = fails("close", fd, NULL);
    int result = REAL(close)(fd);
    if (!failing)
        return result;
    errno = error;
    return -1;
}

DIR *opendir(const char *path) { return fails("list", AT_FDCWD, path) ? NULL : REAL(opendir)(path); }

DIR *fdopendir(int fd) { return fails("list", fd, NULL) ? NULL : REAL(fdopendir)(fd); }
