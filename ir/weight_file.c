/* weight_file.c - the data of weights that text keeps in a file.
 *
 *     $0 = f32[768,768] file "model.onnx"+4096
 *
 * The text may come from anywhere, so the path must stay below the folder it is relative
 * to, name a regular file, and the bytes must lie inside it. They are read, not mapped:
 * an arena has nothing to unmap with when it goes. A file that is not there leaves the weight
 * without data: most of what one does with text does not need it.
 */
#include "ir/text.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Relative, and no step up. */
static bool
stays_below(const char *path)
{
    if (!*path || *path == '/')
        return false;
    for (const char *p = path; *p; p += strspn(p, "/")) {
        size_t n = strcspn(p, "/");
        if (n == 2 && !strncmp(p, "..", 2))
            return false;
        p += n;
    }
    return true;
}

/* The weight of the module that was printed which lies there. */
static const fg_weight *
find(const fg_module *m, const char *path, uint64_t offset, const fg_weight *w)
{
    for (int k = 0; k < m->nweight; k++) {
        const fg_weight *x = &m->weight[k];
        if (x->file && x->file_offset == offset && x->bytes == w->bytes &&
            x->dtype == w->dtype && !strcmp(x->file, path))
            return x;
    }
    return NULL;
}

static const char *
read_all(int fd, int64_t offset, void *data, size_t n)
{
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        return "not a regular file";
    if (st.st_size < offset || (uint64_t)(st.st_size - offset) < n)
        return "the weight lies past the end of its file";
    for (char *p = data; n;) {
        ssize_t got = pread(fd, p, n, offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return "the weight's file cannot be read";
        p += got;
        offset += got;
        n -= (size_t)got;
    }
    return NULL;
}

bool
fg_read_weight(fg_arena *a, const char *dir, const fg_module *like, const char *path,
               int64_t offset, fg_weight *w, const char **why)
{
    *why = "a weight's file must be in the folder of the text, at an offset of 0 or more";
    if (offset < 0 || (!like && !stays_below(path)))
        return false;
    w->file = path;
    w->file_offset = (uint64_t)offset;
    if (like) {
        const fg_weight *known = find(like, path, w->file_offset, w);
        *why = "no such weight in the module";
        w->data = known ? known->data : NULL;
        return known != NULL;
    }
    /* A pipe without a writer must not block. */
    int fd = open(dir ? fg_format(a, "%s/%s", dir, path) : path,
                  O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    *why = "the weight's file cannot be opened";
    if (fd < 0)
        return errno ==
               ENOENT; /* text can be read without it; what needs the data says so */
    struct stat st;
    if (!fstat(fd, &st) &&
        (uint64_t)st.st_size >= w->bytes) /* before taking the memory */
        w->data = fg_alloc(a, w->bytes);
    *why = read_all(fd, offset, (void *)w->data, w->data ? w->bytes : SIZE_MAX);
    close(fd);
    return !*why;
}
