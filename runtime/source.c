/* source.c - files beside an artifact: mapping them, and knowing whether they changed.
 *
 * A file of up to 16 MiB is known by its bytes, all of them. A larger one is known by inode,
 * length and the times of its last change, which every write renews and nobody can set
 * back (ctime), and 64 pages spread over it: reading gigabytes to learn that nothing
 * changed would take longer than compiling.
 */
#include "runtime/artifact.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WHOLE = 16 << 20, SAMPLES = 64, SAMPLE = 4096 };

static int
open_regular(const char *path, struct stat *st, const char **why)
{
    /* A pipe without a writer must not block. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0 || fstat(fd, st)) {
        *why = strerror(errno);
    } else if (!S_ISREG(st->st_mode)) {
        *why = S_ISDIR(st->st_mode) ? "is a directory" : "is not a regular file";
    } else {
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

/* A file's large pages can be mapped whole only where address and offset agree, which not every
 * file system sees to. The hint is a place that was free a moment ago; when it no longer is, the
 * system takes another. */
static void *
map_aligned(int fd, size_t n)
{
    size_t room = n + FG_LARGE_PAGE;
    void *p = n < FG_LARGE_PAGE
                  ? MAP_FAILED
                  : mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uintptr_t hint = 0;

    if (p != MAP_FAILED) {
        hint = ((uintptr_t)p + FG_LARGE_PAGE - 1) & -(uintptr_t)FG_LARGE_PAGE;
        munmap(p, room);
    }
    return mmap((void *)hint, n, PROT_READ, MAP_PRIVATE, fd, 0);
}

int
fg_map_file(const char *path, fg_filemap *map, const char **why)
{
    struct stat st;
    int fd = open_regular(path, &st, why);

    *map = (fg_filemap){0};
    if (fd < 0)
        return 0;
    if (st.st_size > 0) {
        void *p = map_aligned(fd, (size_t)st.st_size);
        if (p == MAP_FAILED) {
            *why = strerror(errno);
            close(fd);
            return 0;
        }
        *map = (fg_filemap){p, (size_t)st.st_size, 0};
    }
    close(fd);
    return 1;
}

void
fg_unmap_file(fg_filemap *map)
{
    if (map->data && !map->borrowed)
        munmap((void *)(uintptr_t)map->data, map->size);
    *map = (fg_filemap){0};
}

int
fg_path_below(const char *path)
{
    if (!*path || *path == '/')
        return 0;
    for (const char *p = path; *p; p += strspn(p, "/")) {
        size_t n = strcspn(p, "/");
        if (n == 2 && !strncmp(p, "..", 2))
            return 0;
        p += n;
    }
    return 1;
}

/* False when the file ends early. */
static int
read_at(int fd, uint8_t *to, size_t n, uint64_t at)
{
    while (n) {
        ssize_t got = pread(fd, to, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return 0;
        to += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return 1;
}

static int
sample(int fd, fg_source *s)
{
    uint8_t page[SAMPLE];
    uint64_t last = s->size - SAMPLE;

    for (uint64_t k = 0; k < SAMPLES; k++) {
        if (!read_at(fd, page, SAMPLE, last / (SAMPLES - 1) * k))
            return 0;
        s->sample = fg_digest_join(s->sample, page, SAMPLE);
    }
    if (!read_at(fd, page, SAMPLE, last))
        return 0;
    s->sample = fg_digest_join(s->sample, page, SAMPLE);
    return 1;
}

static int
whole(int fd, fg_source *s)
{
    if (!s->size)
        return 1;
    void *p = mmap(NULL, s->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return 0;
    s->sample = fg_digest_of(p, s->size);
    munmap(p, s->size);
    return 1;
}

static uint64_t
nanoseconds(const struct timespec *t)
{
    return (uint64_t)t->tv_sec * 1000000000u + (uint64_t)t->tv_nsec;
}

int
fg_source_identify(const char *path, fg_source *out)
{
    struct stat st;
    const char *why;
    int fd = open_regular(path, &st, &why), ok;

    if (fd < 0)
        return 0;
    *out = (fg_source){.path = out->path,
                       .size = (uint64_t)st.st_size,
                       .inode = (uint64_t)st.st_ino,
                       .mtime = nanoseconds(&st.st_mtim),
                       .ctime = nanoseconds(&st.st_ctim)};
    ok = fg_source_is_whole(out) ? whole(fd, out) : sample(fd, out);
    close(fd);
    return ok;
}

int
fg_source_is_whole(const fg_source *s)
{
    return s->size <= WHOLE;
}

int
fg_source_unchanged(const char *path, const fg_source *s)
{
    fg_source now = {0};

    return fg_source_identify(path, &now) && now.size == s->size &&
           fg_digest_same(&now.sample, &s->sample) &&
           (fg_source_is_whole(s) ||
            (now.inode == s->inode && now.mtime == s->mtime && now.ctime == s->ctime));
}
