/* A library for LD_PRELOAD: fails file operations of a server below its data directory.
 *
 * `LONGPOLL_FAULT_DIR` is the data directory, and `LONGPOLL_FAULT_CONTROL` a file with the fields of
 * `struct control`. The driver, `shim.rs`, writes them while the server runs. Sockets, standard
 * streams and files elsewhere are never touched. Operations that the server makes without the C
 * library, such as flock(2), cannot be failed from here.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same bits as in `shim.rs`. */
enum {
    WRITE = 1,
    SYNC = 2,
    OPEN = 4,
    CREATE = 8,
    RENAME = 16,
    REMOVE = 32,
    SYNC_DIRECTORY = 64,
    TRUNCATE = 128,
    READ = 256,
};

/* Where an operation belongs: a commit or the store's start, a rotation, or the compaction thread. */
enum { ANYWHERE, COMMIT, ROTATION, COMPACTION };

/* FAIL: without an effect. SHORT: half of a write, and the next part fails.
 * LOSE: a sync fails, and zeros replace what was written since the last one.
 * FULL: only writes fail, and only those beyond the capacity of the disk. */
enum { FAIL, SHORT, LOSE, FULL };

struct control {
    /* The operations that fail at first, and after the first failure; 0: none. */
    _Atomic int64_t first, later;
    _Atomic int64_t place, error, effect;
    /* Operations that still succeed, and then operations that fail; negative: all of them. */
    _Atomic int64_t skip, times;
    /* Operations that have failed. */
    _Atomic int64_t failed;
    /* Bytes that all files may have, and that they have. */
    _Atomic int64_t capacity, used;
};

static struct control *control;
static const char *directory;
static size_t directory_length;

/* What was written to each descriptor since its last sync. */
enum { DESCRIPTORS = 1024 };
static struct { int64_t from, to; } unsynced[DESCRIPTORS];

/* The error of the next write of this thread, after a short one. */
static __thread int after_short_write;

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("LONGPOLL_FAULT_CONTROL");
    directory = getenv("LONGPOLL_FAULT_DIR");
    if (!path || !directory)
        return;
    directory_length = strlen(directory);
    int file = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    void *map = MAP_FAILED;
    if (file >= 0) {
        map = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        close(file);
    }
    if (map == MAP_FAILED) {
        fprintf(stderr, "cannot map %s\n", path);
        _exit(99);
    }
    control = map;
}

static int is_inside(const char *path)
{
    return control && !strncmp(path, directory, directory_length)
        && (path[directory_length] == '/' || path[directory_length] == 0);
}

/* The path of a descriptor; 0 if it is not inside the data directory. */
static int path_of(int file, char path[4096])
{
    char link[32];
    if (!control)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, 4095);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return is_inside(path);
}

static int place_of(int64_t operation, const char *path)
{
    char thread[16] = "";
    prctl(PR_GET_NAME, thread);
    if (!strcmp(thread, "compact"))
        return COMPACTION;
    int names = operation & (OPEN | CREATE | RENAME | REMOVE | SYNC_DIRECTORY);
    return names || strstr(path, ".tmp") ? ROTATION : COMMIT;
}

/* Whether this operation has to fail, which it counts. */
static int fails(int64_t operation, const char *path)
{
    int64_t failed = control->failed;
    if (control->effect == FULL)
        return 0;
    if (!(operation & (failed ? control->later : control->first)))
        return 0;
    int64_t place = control->place;
    if (place != ANYWHERE && place != place_of(operation, path))
        return 0;
    if (atomic_fetch_sub(&control->skip, 1) > 0)
        return 0;
    if (control->times >= 0 && atomic_fetch_sub(&control->times, 1) <= 0) {
        control->times = 0;
        return 0;
    }
    control->failed++;
    errno = control->error;
    return 1;
}

static void wrote(int file, int64_t at, ssize_t count)
{
    if (file < 0 || file >= DESCRIPTORS || count <= 0)
        return;
    if (unsynced[file].from >= unsynced[file].to) {
        unsynced[file].from = at;
        unsynced[file].to = at + count;
    }
    if (at < unsynced[file].from)
        unsynced[file].from = at;
    if (at + count > unsynced[file].to)
        unsynced[file].to = at + count;
}

static void forget(int file)
{
    if (file >= 0 && file < DESCRIPTORS)
        unsynced[file].from = unsynced[file].to = 0;
}

/* Replaces what was not synced by zeros, within the length of the file. */
static void lose(int file)
{
    static const char zeros[4096];
    struct stat info;
    if (file < 0 || file >= DESCRIPTORS || fstat(file, &info))
        return;
    int64_t at = unsynced[file].from, end = unsynced[file].to;
    if (end > info.st_size)
        end = info.st_size;
    while (at < end) {
        int64_t count = end - at < 4096 ? end - at : 4096;
        if (syscall(SYS_pwrite64, file, zeros, count, at) <= 0)
            return;
        at += count;
    }
    forget(file);
}

static int64_t length_of(int file)
{
    struct stat info;
    return fstat(file, &info) ? 0 : info.st_size;
}

/* The bytes that the disk gets back when a name is removed or replaced. */
static int64_t freed_by(int at, const char *path)
{
    struct stat info;
    if (fstatat(at, path, &info, AT_SYMLINK_NOFOLLOW) || !S_ISREG(info.st_mode))
        return 0;
    return info.st_nlink == 1 ? info.st_size : 0;
}

/* How much of a write fits, if the disk is of limited size. */
static int64_t fitting(int file, int64_t count, int64_t at)
{
    int64_t growth = at + count - length_of(file), room = control->capacity - control->used;
    if (control->effect != FULL || !control->first || growth <= 0 || growth <= room)
        return count;
    control->failed++;
    count -= growth - (room > 0 ? room : 0);
    return count > 0 ? count : 0;
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at)
{
    char path[4096];
    if (!path_of(file, path))
        return syscall(SYS_pwrite64, file, bytes, count, at);
    if (after_short_write) {
        errno = after_short_write;
        after_short_write = 0;
        return -1;
    }
    if (fails(WRITE, path)) {
        if (control->effect != SHORT || count < 2)
            return -1;
        after_short_write = errno;
        count /= 2;
    }
    size_t fits = fitting(file, count, at);
    if (count && !fits) {
        errno = control->error;
        return -1;
    }
    if (fits < count)
        after_short_write = control->error;
    int64_t length = length_of(file);
    ssize_t written = syscall(SYS_pwrite64, file, bytes, fits, at);
    wrote(file, at, written);
    if (written > 0 && at + written > length)
        control->used += at + written - length;
    return written;
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t at)
{
    return pwrite64(file, bytes, count, at);
}

ssize_t write(int file, const void *bytes, size_t count)
{
    char path[4096];
    if (path_of(file, path) && fails(WRITE, path))
        return -1;
    return syscall(SYS_write, file, bytes, count);
}

ssize_t pread64(int file, void *bytes, size_t count, off64_t at)
{
    char path[4096];
    if (path_of(file, path) && fails(READ, path))
        return -1;
    return syscall(SYS_pread64, file, bytes, count, at);
}

ssize_t pread(int file, void *bytes, size_t count, off_t at)
{
    return pread64(file, bytes, count, at);
}

static int sync_file(long number, int file)
{
    char path[4096];
    if (path_of(file, path)) {
        int64_t operation = path[directory_length] ? SYNC : SYNC_DIRECTORY;
        if (fails(operation, path)) {
            int error = errno;
            if (operation == SYNC && control->effect == LOSE)
                lose(file);
            errno = error;
            return -1;
        }
    }
    int result = syscall(number, file);
    if (!result)
        forget(file);
    return result;
}

int fsync(int file)
{
    return sync_file(SYS_fsync, file);
}

int fdatasync(int file)
{
    return sync_file(SYS_fdatasync, file);
}

static int open_file(int at, const char *path, int flags, mode_t mode)
{
    if (is_inside(path) && fails(flags & O_CREAT ? OPEN | CREATE : OPEN, path))
        return -1;
    int64_t freed = is_inside(path) && flags & O_TRUNC ? freed_by(at, path) : 0;
    int file = syscall(SYS_openat, at, path, flags, mode);
    if (file >= 0 && freed)
        control->used -= freed;
    forget(file);
    return file;
}

/* The mode, which is there if the flags create a file. */
#define MODE(flags) ({ \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    } \
    mode; })

int open(const char *path, int flags, ...)
{
    return open_file(AT_FDCWD, path, flags, MODE(flags));
}

int open64(const char *path, int flags, ...)
{
    return open_file(AT_FDCWD, path, flags, MODE(flags));
}

int openat(int at, const char *path, int flags, ...)
{
    return open_file(at, path, flags, MODE(flags));
}

int openat64(int at, const char *path, int flags, ...)
{
    return open_file(at, path, flags, MODE(flags));
}

DIR *opendir(const char *path)
{
    if (is_inside(path) && fails(OPEN, path))
        return NULL;
    DIR *(*real)(const char *) = (DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir");
    return real(path);
}

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    if (is_inside(from) && fails(RENAME, from))
        return -1;
    int64_t freed = is_inside(to) ? freed_by(to_at, to) : 0;
    int result = syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (!result && freed)
        control->used -= freed;
    return result;
}

int renameat(int from_at, const char *from, int to_at, const char *to)
{
    return renameat2(from_at, from, to_at, to, 0);
}

int rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlinkat(int at, const char *path, int flags)
{
    if (is_inside(path) && fails(REMOVE, path))
        return -1;
    int64_t freed = is_inside(path) ? freed_by(at, path) : 0;
    int result = syscall(SYS_unlinkat, at, path, flags);
    if (!result && freed)
        control->used -= freed;
    return result;
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags)
{
    if (is_inside(to) && fails(CREATE, to))
        return -1;
    return syscall(SYS_linkat, from_at, from, to_at, to, flags);
}

int link(const char *from, const char *to)
{
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int ftruncate64(int file, off64_t length)
{
    char path[4096];
    int inside = path_of(file, path);
    if (inside && fails(TRUNCATE, path))
        return -1;
    if (file >= 0 && file < DESCRIPTORS && unsynced[file].to > length)
        unsynced[file].to = length;
    int64_t before = length_of(file);
    int result = syscall(SYS_ftruncate, file, length);
    if (!result && inside)
        control->used += length - before;
    return result;
}

int ftruncate(int file, off_t length)
{
    return ftruncate64(file, length);
}
