/* outfile.c - written under no name or a temporary one, made durable, then renamed. */
#include "codegen/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
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

bool
fg_outfile_open(fg_outfile *f, const char *path, bool transient)
{
    static atomic_uint counter;

    mode_t mode = transient ? 0600 : 0666;

    *f = (fg_outfile){.fd = -1, .path = path, .transient = transient};
    /* Beside the target: a rename does not cross file systems. */
    if (snprintf(f->temp, sizeof f->temp, "%s.%ld.%u.tmp", path, (long)getpid(),
                 atomic_fetch_add(&counter, 1)) >= (int)sizeof f->temp) {
        f->error = ENAMETOOLONG;
        return false;
    }
    /* A file without a name gets one through /proc only. */
    if (!access("/proc/self/fd", X_OK))
        f->fd = open_folder(path, O_TMPFILE | O_WRONLY, mode);
    if (f->fd < 0) {
        f->fd = open(f->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        f->named = f->fd >= 0;
    }
    if (f->fd < 0)
        f->error = errno;
    return f->fd >= 0;
}

void
fg_outfile_put_at(fg_outfile *f, uint64_t at, const void *data, size_t n)
{
    const uint8_t *p = data;

    while (n && !f->error) {
        ssize_t got = pwrite(f->fd, p, n < 1u << 30 ? n : 1u << 30, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            f->error = got < 0 ? errno : EIO;
            return;
        }
        p += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    if (at > f->at)
        f->at = at;
}

void
fg_outfile_put(fg_outfile *f, const void *data, size_t n)
{
    fg_outfile_put_at(f, f->at, data, n);
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
    if (!f->error && ((!f->transient && fsync(f->fd)) || !give_name(f)))
        f->error = errno;
    if (!f->error) {
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
    f->fd = -1;
    f->named = false;
}
