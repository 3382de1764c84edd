/* outfile.c - written under no name or a temporary one, made durable, then renamed.
 *
 * Bytes go out in whole blocks of the size of a large page. The system keeps what comes so in
 * large pages, and a process that maps the file has 2 MiB of it by one fault: of gpt2's 498 MB
 * all pages in 3 ms, where pages that came in parts of 64 KiB take 22.
 */
#include "codegen/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int
open_folder(const char *path, int flags, mode_t mode)
{
    char dir[4096];
    const char *slash = strrchr(path, '/');
    int n = slash ? (int)(slash - path) + 1 : 1;

    if (snprintf(dir, sizeof dir, "%.*s", n, slash ? path : ".") >= (int)sizeof dir) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return open(dir, flags | O_CLOEXEC, mode);
}

/* Where the file goes: a link stays a link, to the file that is replaced; what is no file, as
 * a pipe or a terminal, is written to as it is. What is transient is nobody else's to lead
 * elsewhere: it takes the place of whatever there is. */
static bool
find_target(fg_outfile *f, const char *path)
{
    struct stat st;
    bool there = !f->transient && !stat(path, &st);

    f->special = there && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
    if (there && !f->special)
        return realpath(path, f->path);
    if (strlen(path) < sizeof f->path) {
        strcpy(f->path, path);
        return true;
    }
    errno = ENAMETOOLONG;
    return false;
}

static bool
open_target(fg_outfile *f)
{
    static atomic_uint counter;
    mode_t mode = f->transient ? 0600 : 0666;

    if (f->special) {
        f->fd = open(f->path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
        return f->fd >= 0;
    }
    /* Beside the target: a rename does not cross file systems. */
    if (snprintf(f->temp, sizeof f->temp, "%s.%ld.%u.tmp", f->path, (long)getpid(),
                 atomic_fetch_add(&counter, 1)) >= (int)sizeof f->temp) {
        errno = ENAMETOOLONG;
        return false;
    }
    /* A file without a name gets one through /proc only. */
    if (!access("/proc/self/fd", X_OK))
        f->fd = open_folder(f->path, O_TMPFILE | O_WRONLY, mode);
    if (f->fd < 0) {
        f->fd = open(f->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        f->named = f->fd >= 0;
    }
    return f->fd >= 0;
}

bool
fg_outfile_open(fg_outfile *f, const char *path, bool transient)
{
    *f = (fg_outfile){.fd = -1, .transient = transient};
    if (!find_target(f, path) || !open_target(f)) {
        f->error = errno;
        return false;
    }
    void *block = mmap(NULL, FG_OUTFILE_BLOCK, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) {
        f->error = errno;
        fg_outfile_drop(f);
        return false;
    }
    f->block = block;
    return true;
}

static void
write_out(fg_outfile *f, const uint8_t *p, size_t n)
{
    while (n && !f->error) {
        ssize_t got = write(f->fd, p, n < 1u << 30 ? n : 1u << 30);
        if (got > 0) {
            p += got;
            n -= (size_t)got;
        } else if (!got || errno != EINTR) {
            f->error = got ? errno : EIO;
        }
    }
}

void
fg_outfile_put(fg_outfile *f, const void *data, size_t n)
{
    const uint8_t *p = data;

    while (n && !f->error) {
        size_t held = f->at % FG_OUTFILE_BLOCK, room = FG_OUTFILE_BLOCK - held;
        size_t part = n < room ? n : room;
        if (part == FG_OUTFILE_BLOCK) {
            part = n & -(size_t)FG_OUTFILE_BLOCK;
            write_out(f, p, part);
        } else {
            memcpy(f->block + held, p, part);
            if (part == room)
                write_out(f, f->block, FG_OUTFILE_BLOCK);
        }
        p += part;
        n -= part;
        f->at += part;
    }
}

void
fg_outfile_pad(fg_outfile *f, uint64_t to)
{
    static const uint8_t zeros[4096];

    while (f->at < to && !f->error)
        fg_outfile_put(f, zeros, to - f->at < sizeof zeros ? to - f->at : sizeof zeros);
}

/* In one step where nothing has the name yet; a link takes no other file's place, as a
 * rename does. */
static bool
give_name(fg_outfile *f)
{
    char self[40];

    if (!f->named) {
        snprintf(self, sizeof self, "/proc/self/fd/%d", f->fd);
        if (!linkat(AT_FDCWD, self, AT_FDCWD, f->path, AT_SYMLINK_FOLLOW))
            return true;
        if (errno != EEXIST ||
            linkat(AT_FDCWD, self, AT_FDCWD, f->temp, AT_SYMLINK_FOLLOW))
            return false;
        f->named = true;
    }
    if (rename(f->temp, f->path))
        return false;
    f->named = false;
    return true;
}

bool
fg_outfile_commit(fg_outfile *f)
{
    write_out(f, f->block, f->at % FG_OUTFILE_BLOCK);
    if (!f->error && !f->special && ((!f->transient && fsync(f->fd)) || !give_name(f)))
        f->error = errno;
    if (!f->error && !f->special) {
        int dir = f->transient ? -1 : open_folder(f->path, O_RDONLY | O_DIRECTORY, 0);
        if (dir >= 0) {
            fsync(dir);
            close(dir);
        }
    }
    fg_outfile_drop(f);
    return !f->error;
}

void
fg_outfile_drop(fg_outfile *f)
{
    if (f->named)
        unlink(f->temp);
    if (f->fd >= 0)
        close(f->fd);
    if (f->block)
        munmap(f->block, FG_OUTFILE_BLOCK);
    f->fd = -1;
    f->block = NULL;
    f->named = false;
}
