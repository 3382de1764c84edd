/* cache.c - .forge files in a folder, each named by a digest of all that it follows from.
 *
 *     ~/.cache/forge/8d0f..e1.forge     model, options, compiler, instruction set
 *
 * Key: the identity of the model file (source.c), its folder and name, every option, the
 * build of the compiler, and the features of this machine's CPU. Weights stay in the
 * model's files; the entry says what those were like, and one that does not fit any more
 * is a miss, as is one that is damaged: it is compiled again and replaced.
 *
 * A file could be written twice within one tick of the file system's clock and look the same, so
 * nothing is kept of files that changed just before they were read. Entries appear whole
 * under their names, so processes need no lock. When the folder grows beyond its bound, what
 * was not used for longest goes.
 *
 * What is found is run: folder and entry must belong to this user, or to root, and nobody
 * else may write to them.
 */
#include "codegen/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BOUND ((uint64_t)2 << 30) /* bytes of all entries */
#define MAXFILES 64               /* behind one model, to be kept */
#define TICK 20000000u /* nanoseconds: coarser than any clock of a local disk */
#define SECOND 1000000000u

static void
log_errno(const fg_cache *c, const char *what)
{
    fg_log(c->cx, "cache %.300s: %s: %s; going on without", c->folder, what,
           strerror(errno));
}

/* ---- the key ------------------------------------------------------------------------- */

typedef struct self {
    fg_digest digest;
    bool found;
} self;

/* Code of the object that this function is in: changes with every build. */
static int
digest_self(struct dl_phdr_info *lib, size_t size, void *user)
{
    self *s = user;
    uintptr_t here = (uintptr_t)&digest_self - (uintptr_t)lib->dlpi_addr;

    (void)size;
    for (int k = 0; k < lib->dlpi_phnum; k++) {
        const ElfW(Phdr) *h = &lib->dlpi_phdr[k];
        if (h->p_type == PT_LOAD && here >= h->p_vaddr && here - h->p_vaddr < h->p_memsz)
            s->found = true;
    }
    for (int k = 0; s->found && k < lib->dlpi_phnum; k++) {
        const ElfW(Phdr) *h = &lib->dlpi_phdr[k];
        if (h->p_type == PT_NOTE)
            s->digest = fg_digest_join(
                s->digest, (const void *)((uintptr_t)lib->dlpi_addr + h->p_vaddr),
                h->p_memsz);
    }
    return s->found;
}

static void
join_text(fg_digest *d, const char *s)
{
    *d = fg_digest_join(*d, s ? s : "", s ? strlen(s) + 1 : 0);
}

static fg_digest
key_of(const fg_cache *c)
{
    const forge_options *o = c->o;
    const struct {
        uint64_t format, opt, rounds, isa;
        double alpha;
    } plain = {FG_ARTIFACT_VERSION, (uint64_t)o->opt, (uint64_t)o->rounds,
               o->cpu ? 0 : fg_isa_host(), o->alpha};
    /* An option that is added must be added here. */
    _Static_assert(sizeof(forge_options) == 120, "the key covers every option");
    self s = {{{0}}, false};
    const char *slash = strrchr(c->model, '/');

    dl_iterate_phdr(digest_self, &s);
    fg_digest d = fg_digest_join(s.digest, &plain, sizeof plain);
    const char *const texts[] = {
        FORGE_VERSION, o->target,  o->cpu,      o->passes,
        o->skip,       o->dims,    o->variants, o->precision,
        o->accuracy,   o->codegen, c->beside,   slash ? slash + 1 : c->model};
    for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
        join_text(&d, texts[k]);
    d = fg_digest_join(d, &c->identity.size, sizeof c->identity.size);
    if (!fg_source_is_whole(&c->identity)) {
        const uint64_t times[] = {c->identity.inode, c->identity.mtime,
                                  c->identity.ctime};
        d = fg_digest_join(d, times, sizeof times);
    }
    return fg_digest_join(d, &c->identity.sample, sizeof c->identity.sample);
}

/* ---- the folder ----------------------------------------------------------------------- */

static bool
default_folder(char *out, size_t n)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int got = -1;

    if (xdg && *xdg == '/')
        got = snprintf(out, n, "%s/forge", xdg);
    else if (home && *home == '/')
        got = snprintf(out, n, "%s/.cache/forge", home);
    return got > 0 && (size_t)got < n;
}

static bool
make_folders(const char *path)
{
    char part[4096];
    size_t n = strlen(path);

    for (size_t k = 1; k <= n; k++)
        if (path[k] == '/' || !path[k]) {
            snprintf(part, sizeof part, "%.*s", (int)k, path);
            if (mkdir(part, 0700) && errno != EEXIST)
                return false;
        }
    return true;
}

static bool
folder_of(const char *model, char *out)
{
    char dir[4096];
    const char *slash = strrchr(model, '/');
    int n = slash ? (int)(slash - model) + 1 : 1;

    /* realpath wants PATH_MAX bytes, which is 4096 here. */
    return snprintf(dir, sizeof dir, "%.*s", n, slash ? model : ".") < (int)sizeof dir &&
           realpath(dir, out);
}

/* Whether what is in it was put there by this user, or by one who may do anything anyway. */
static bool
is_trusted(const struct stat *st)
{
    return (st->st_uid == geteuid() || !st->st_uid) &&
           !(st->st_mode & (S_IWGRP | S_IWOTH));
}

static bool
folder_usable(const fg_cache *c)
{
    struct stat st;

    if (stat(c->folder, &st) || access(c->folder, R_OK | W_OK | X_OK)) {
        if (errno == ENOENT && (c->o->no_compile || make_folders(c->folder)))
            return true;
        log_errno(c, "cannot be used");
        return false;
    }
    if (!is_trusted(&st))
        fg_log(c->cx, "cache %.300s: another user %s; going on without", c->folder,
               st.st_mode & (S_IWGRP | S_IWOTH) ? "may write to it" : "owns it");
    return is_trusted(&st);
}

bool
fg_cache_open(fg_cache *c, forge_ctx *cx, const char *model, const forge_options *o)
{
    struct timespec now;
    size_t n = strlen(model);
    char name[33];

    *c = (fg_cache){.cx = cx, .o = o, .model = model};
    /* Checks are asked for to see them made; text may refer to files in ways of its own. */
    if (!o->cache || o->check || (n > 4 && !strcmp(model + n - 4, ".fir")))
        return false;
    if (*o->cache ? strlen(o->cache) >= sizeof c->folder
                  : !default_folder(c->folder, sizeof c->folder))
        return false;
    if (*o->cache)
        strcpy(c->folder, o->cache);
    clock_gettime(CLOCK_REALTIME, &now);
    c->start = (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
    /* A model that cannot be read is the compiler's to complain about. */
    if (!folder_of(model, c->beside) || !fg_source_identify(model, &c->identity))
        return false;
    if (!folder_usable(c))
        return false;
    fg_digest_text(key_of(c), name);
    snprintf(c->entry, sizeof c->entry, "%s/%s.forge", c->folder, name);
    return true;
}

/* ---- finding ---------------------------------------------------------------------------- */

bool
fg_cache_find(fg_cache *c, forge_model **out)
{
    fg_artifact *a;
    struct stat st;
    forge_ctx quiet = *c->cx; /* a miss is no failure: its message goes nowhere */

    if (lstat(c->entry, &st) || !S_ISREG(st.st_mode) || !is_trusted(&st))
        return false;
    if (fg_artifact_open(&quiet, c->entry, &a) || fg_artifact_model(a, c->beside, 0, out))
        return false;
    utimensat(AT_FDCWD, c->entry, NULL, 0); /* used now */
    return true;
}

/* ---- keeping ---------------------------------------------------------------------------- */

typedef struct entry {
    char name[80];
    uint64_t bytes, used;
} entry;

static int
oldest_first(const void *a, const void *b)
{
    const entry *x = a, *y = b;

    return x->used != y->used ? (x->used < y->used ? -1 : 1) : strcmp(x->name, y->name);
}

/* What follows the digest in the name of an entry, or of one that is being written; "" when
 * the file is not the cache's. */
static const char *
name_tail(const char *name)
{
    return strspn(name, "0123456789abcdef") == 32 ? name + 32 : "";
}

/* Entries of the folder; what a process left that was killed while it wrote is removed. */
static entry *
list_entries(const fg_cache *c, fg_arena *a, DIR *dir, size_t *count, uint64_t *total)
{
    entry *list = NULL;
    size_t n = 0, cap = 0;
    struct dirent *d;
    struct stat st;

    *total = 0;
    while ((d = readdir(dir))) {
        if (fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
            !S_ISREG(st.st_mode) || strlen(d->d_name) >= sizeof list->name)
            continue;
        uint64_t used =
            (uint64_t)st.st_mtim.tv_sec * SECOND + (uint64_t)st.st_mtim.tv_nsec;
        const char *tail = name_tail(d->d_name);
        if (!strncmp(tail, ".forge.", 7) && used + 3600ull * SECOND < c->start)
            unlinkat(dirfd(dir), d->d_name, 0);
        if (strcmp(tail, ".forge"))
            continue;
        entry *e = &FG_PUSH(a, list, n, cap);
        strcpy(e->name, d->d_name);
        e->bytes = (uint64_t)st.st_size;
        e->used = used;
        *total += e->bytes;
    }
    *count = n;
    return list;
}

/* Down to three quarters of the bound, so that it is not done for every new entry. */
static void
shrink(const fg_cache *c, fg_arena *a)
{
    DIR *dir = opendir(c->folder);
    uint64_t total;
    size_t n;

    if (!dir)
        return;
    entry *list = list_entries(c, a, dir, &n, &total);
    if (total > BOUND) {
        qsort(list, n, sizeof *list, oldest_first);
        for (size_t k = 0; k < n && total > BOUND / 4 * 3; k++) {
            unlinkat(dirfd(dir), list[k].name, 0);
            total -= list[k].bytes;
        }
    }
    closedir(dir);
}

/* Times without a fraction come from a clock that ticks in seconds. */
static bool
is_settled(const fg_source *s, uint64_t start)
{
    uint64_t tick = s->ctime % SECOND ? TICK : 2ull * SECOND;

    return s->ctime + tick < start && s->mtime + tick < start;
}

/* All files behind the model, unchanged since before they were read. */
static int
identify_all(fg_cache *c, fg_compiled *made, fg_source *list)
{
    const char *local;
    size_t size;
    int n = 0;

    while ((local = fg_onnx_local(made->file, n, &size))) {
        char path[8300];
        if (n == MAXFILES)
            return -1;
        list[n] = (fg_source){.path = local};
        snprintf(path, sizeof path, "%s/%s", c->beside, local);
        if (!fg_source_identify(n ? path : c->model, &list[n]) ||
            !is_settled(&list[n], c->start))
            return -1;
        list[n++].path = local;
    }
    bool same = n && list[0].size == c->identity.size &&
                list[0].ctime == c->identity.ctime &&
                fg_digest_same(&list[0].sample, &c->identity.sample);
    return same ? n : -1;
}

typedef struct store_job {
    fg_cache *c;
    fg_compiled *made;
} store_job;

static void
store(void *arg)
{
    store_job *j = arg;
    fg_cache *c = j->c;
    fg_compiled *made = j->made;
    fg_source source[MAXFILES];
    int n = made->file ? identify_all(c, made, source) : -1;

    if (n < 0)
        return;
    const fg_save_options so = {.path = c->entry,
                                .borrow = true,
                                .source = source,
                                .nsource = n,
                                .keep_times = true,
                                .transient = true,
                                .limit = BOUND / 2};
    fg_diagmark mark = fg_diag_mark(made->cx);
    if (!fg_save(made->cx, &made, 1, &so)) {
        fg_log(c->cx, "cache: %s; going on without", fg_last_text(made->cx));
        fg_diag_forget(made->cx, mark);
        return;
    }
    shrink(c, made->a);
}

void
fg_cache_store(fg_cache *c, fg_compiled *made)
{
    store_job j = {c, made};

    if (fg_protect(made->cx, store, &j) != FG_RAISE_NONE)
        fg_log(c->cx, "cache: out of memory; going on without");
}
