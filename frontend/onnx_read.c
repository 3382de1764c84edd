/* onnx_read.c - files: the model and the weights beside it, mapped read-only, and messages
 * unpacked from them.
 *
 * A model says where its external data is, and must not be able to name anything outside its own
 * folder. So a location is walked one component at a time from a descriptor of that folder,
 * never following a link, and what is finally opened must be a regular file with a single name.
 * Checks are made on open descriptors: nothing can be swapped between check and use.
 */
#include "frontend/model.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- mapping -------------------------------------------------------------------------- */

/* Importing reads a few bytes of each weight, running reads all: read ahead only for that. */
static void
advise(fg_map *map, int how)
{
    if (map->data)
        madvise((void *)map->data, map->size, how);
}

enum { LARGE = 8 << 20 }; /* files that are weights more than anything else */

/* Takes fd over. `why` is set on failure. */
static bool
map_fd(int fd, fg_map *map, const char **why)
{
    struct stat st;
    bool ok = false;
    if (fstat(fd, &st)) {
        *why = strerror(errno);
    } else if (!S_ISREG(st.st_mode)) {
        *why = S_ISDIR(st.st_mode) ? "is a directory" : "is not a regular file";
    } else if (st.st_size == 0) {
        map->data = NULL;
        map->size = 0;
        ok = true;
    } else {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        ok = p != MAP_FAILED;
        if (ok) {
            map->data = p;
            map->size = (size_t)st.st_size;
            if (map->size > LARGE)
                advise(map, MADV_RANDOM);
        } else {
            *why = strerror(errno);
        }
    }
    close(fd);
    return ok;
}

void
fg_onnx_imported(fg_onnx_file *f)
{
    advise(&f->map, MADV_NORMAL);
    for (int i = 0; i < f->next; i++)
        advise(&f->ext[i], MADV_NORMAL);
}

static void
unmap(fg_map *map)
{
    if (map->data)
        munmap((void *)map->data, map->size);
    map->data = NULL;
}

/* One step of a location: a directory, or the file itself. -1 and `why` on failure. */
static int
open_beneath(int dir, const char *name, bool last, const char **why)
{
    struct stat st, now;
    int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        *why = strerror(errno);
    } else if (S_ISLNK(st.st_mode)) {
        *why = "is reached through a symbolic link";
    } else if (!last) {
        if (S_ISDIR(st.st_mode))
            return fd;
        *why = strerror(ENOTDIR);
    } else if (!S_ISREG(st.st_mode)) {
        *why = "is not a regular file";
    } else if (st.st_nlink != 1) {
        *why = "has more than one hard link";
    } else {
        /* Only now is it safe to open for reading: opening a device or pipe can have effects. */
        int file =
            openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
        if (file < 0) {
            *why = strerror(errno);
        } else if (fstat(file, &now) || now.st_ino != st.st_ino ||
                   now.st_dev != st.st_dev) {
            *why = "changed while it was opened";
            close(file);
        } else {
            close(fd);
            return file;
        }
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

static int
open_location(int dir, char *path, const char **why)
{
    int at = dir;
    for (char *name = path, *slash; at >= 0; name = slash + 1) {
        slash = strchr(name, '/');
        if (slash)
            *slash = 0;
        int next = -1;
        if (!*name || !strcmp(name, ".."))
            *why = "is not a plain relative path";
        else if (slash && !strcmp(name, "."))
            next = dup(at);
        else
            next = open_beneath(at, name, !slash, why);
        if (at != dir)
            close(at);
        at = next;
        if (!slash)
            break;
    }
    return at;
}

const fg_map *
fg_onnx_external(fg_onnx_file *f, const char *what, const char *location)
{
    const char *key = fg_intern(f->cx, location), *why = NULL;
    int at = fg_names_get(f->locations, key), fd = -1;
    if (at >= 0)
        return &f->ext[at];

    char *path = fg_strdup(f->a, location);
    char *shown = fg_printable(f->a, location, strlen(location), 200);
    if (f->next >= FG_MAX_EXTERNAL) {
        fg_error(f->cx, "%s: more than %d external data files", what, FG_MAX_EXTERNAL);
        return NULL;
    }
    if (*location == '/' || strchr(location, '\\') || strlen(location) > 4000 ||
        f->dir < 0)
        why = "is not a plain relative path";
    const char *slash = strrchr(f->path, '/');
    int ndir = slash ? (int)(slash - f->path) + 1 : 0;
    /* The table entry comes first: from the mapping on, nothing may fail before it is recorded. */
    fg_map *map = &FG_PUSH(f->a, f->ext, f->next, f->capext);
    map->data = NULL;
    map->size = 0;
    map->name = fg_format(f->a, "%.*s%s", ndir, f->path, location);
    map->local = key;
    fg_names_set(f->locations, key, f->next - 1);
    if (!why)
        fd = open_location(f->dir, path, &why);
    if (fd < 0 || !map_fd(fd, map, &why)) {
        f->next--;
        fg_names_set(f->locations, key, -1);
        fg_error(f->cx, "%s: external data \"%s\": %s", what, shown, why);
        return NULL;
    }
    return map;
}

/* ---- unpacking ------------------------------------------------------------------------ */

typedef struct unpack_arena {
    fg_arena *a;
    size_t left;
} unpack_arena;

static void *
unpack_alloc(void *user, size_t n)
{
    unpack_arena *u = user;
    if (n > u->left)
        return NULL;
    u->left -= n;
    return fg_alloc(u->a, n ? n : 1);
}

static void
unpack_free(void *user, void *p)
{
    (void)user;
    (void)p;
}

ProtobufCMessage *
fg_onnx_unpack(fg_onnx_file *f, fg_arena *tmp, const ProtobufCMessageDescriptor *kind)
{
    unpack_arena u = {f->a, FG_MAX_UNPACKED};
    ProtobufCAllocator pa = {unpack_alloc, unpack_free, &u};
    const uint8_t *slim;
    size_t n;
    if (!f->map.size) {
        fg_error(f->cx, "the file is empty");
        return NULL;
    }
    if (!fg_onnx_scan(f, tmp, kind, &slim, &n))
        return NULL;
    ProtobufCMessage *msg = protobuf_c_message_unpack(kind, &pa, n, slim);
    if (!msg)
        fg_error(f->cx, "not a valid ONNX file, or too large");
    return msg;
}

/* ---- open and close ------------------------------------------------------------------- */

typedef struct opening {
    fg_ctx *cx;
    const char *path;
    fg_onnx_file *f; /* in an arena of its own */
    fg_arena *tmp;
    const ProtobufCMessageDescriptor *kind;
    ProtobufCMessage *msg;
} opening;

static void
do_open(void *arg)
{
    opening *o = arg;
    const char *slash = strrchr(o->path, '/'), *why = NULL;
    fg_arena *a = fg_arena_new(o->cx);
    fg_onnx_file *f = FG_NEW(a, fg_onnx_file);
    f->a = a;
    f->cx = o->cx;
    f->dir = -1;
    o->f = f;
    o->tmp = fg_arena_new(o->cx);
    f->path = f->map.name = fg_strdup(a, o->path);
    f->map.local = fg_intern(o->cx, slash ? slash + 1 : o->path);
    f->shown = fg_printable(a, o->path, strlen(o->path), 300);
    char *base = fg_strdup(a, slash ? slash + 1 : o->path);
    size_t nbase = strlen(base);
    if (nbase > 5 && !strcmp(base + nbase - 5, ".onnx"))
        base[nbase - 5] = 0;
    f->base = base;
    f->locations = FG_NEW(a, fg_names);
    f->locations->a = a;

    char *dir = !slash ? "." : fg_format(a, "%.*s/", (int)(slash - o->path), o->path);
    int fd = open(o->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        why = strerror(errno);
    if (fd < 0 || !map_fd(fd, &f->map, &why)) {
        fg_error(o->cx, "%s", why);
        return;
    }
    f->dir = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    o->msg = fg_onnx_unpack(f, o->tmp, o->kind);
}

/* Diagnostics recorded since `last` belong to the file: say so in each. */
void
fg_onnx_prefix(fg_onnx_file *f, fg_diag *last)
{
    for (fg_diag *d = last ? last->next : f->cx->diags; d; d = d->next)
        d->text = fg_format(f->cx->arena, "%s: %.650s", f->shown, d->text);
}

static fg_onnx_file *
open_kind(fg_ctx *cx, const char *path, const ProtobufCMessageDescriptor *kind,
          ProtobufCMessage **msg)
{
    opening o = {.cx = cx, .path = path, .kind = kind};
    fg_diag *last = cx->last_diag;
    fg_raise raise = fg_protect(cx, do_open, &o);
    fg_arena_free(o.tmp);
    if (raise != FG_RAISE_NONE) {
        fg_onnx_close(o.f);
        if (raise == FG_RAISE_MEMORY)
            fg_raise_memory(cx);
        FG_BUG(cx, "while opening a model");
    }
    if (!o.msg) {
        fg_onnx_prefix(o.f, last);
        fg_onnx_close(o.f);
        return NULL;
    }
    *msg = o.msg;
    return o.f;
}

fg_onnx_file *
fg_onnx_open(fg_ctx *cx, const char *path)
{
    ProtobufCMessage *msg;
    fg_onnx_file *f = open_kind(cx, path, &onnx__model_proto__descriptor, &msg);
    if (f)
        f->model = (Onnx__ModelProto *)msg;
    return f;
}

void
fg_onnx_close(fg_onnx_file *f)
{
    if (!f)
        return;
    unmap(&f->map);
    for (int i = 0; i < f->next; i++)
        unmap(&f->ext[i]);
    if (f->dir >= 0)
        close(f->dir);
    fg_arena_free(f->a);
}

const char *
fg_onnx_local(const fg_onnx_file *f, int k, size_t *size)
{
    if (k > f->next)
        return NULL;
    const fg_map *m = k ? &f->ext[k - 1] : &f->map;
    *size = m->size;
    return m->local;
}

const fg_unsupported *
fg_onnx_unsupported(const fg_onnx_file *f, int *n)
{
    *n = f->nbad;
    return f->bad;
}

bool
fg_onnx_tensor_file(fg_ctx *cx, fg_arena *a, const char *path, fg_tensor *out)
{
    ProtobufCMessage *msg;
    fg_diag *last = cx->last_diag;
    fg_onnx_file *f = open_kind(cx, path, &onnx__tensor_proto__descriptor, &msg);
    if (!f)
        return false;
    fg_weight w = {0};
    bool ok = fg_onnx_tensor(f, a, "tensor", (Onnx__TensorProto *)msg, &w);
    if (ok) {
        *out = (fg_tensor){.dtype = w.dtype, .rank = w.rank, .count = 1};
        for (int i = 0; i < w.rank; i++)
            out->count *= out->dim[i] = w.dim[i];
        out->data = fg_alloc(a, w.bytes ? w.bytes : 1);
        if (w.bytes)
            memcpy(out->data, w.data, w.bytes);
    } else {
        fg_onnx_prefix(f, last);
    }
    fg_onnx_close(f);
    return ok;
}
