/* load.c - .forge files: opened, checked, chosen from, and made models of.
 *
 * A file is believed nothing: first its length and digests, then where its sections say
 * they are, then every index in them. What is left to trust is the machine code.
 */
#include "runtime/artifact.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/link.h"
#include "runtime/names.h"

enum { MAXSECTION = 4096 };

static const char magic[] = FG_ARTIFACT_MAGIC;

/* ---- opening ------------------------------------------------------------------------- */

static forge_status
fail_file(const fg_artifact *a, forge_status s, const char *why)
{
    return fg_fail(a->cx, s, "%.400s: %s", a->path, why);
}

static void
read_number(const uint8_t **p, void *out, int bytes)
{
    uint64_t v = 0;

    for (int k = 0; k < bytes; k++)
        v |= (uint64_t)(*p)[k] << 8 * k;
    *p += bytes;
    if (bytes == 4)
        *(uint32_t *)out = (uint32_t)v;
    else
        *(uint64_t *)out = v;
}

static forge_status
read_table(fg_artifact *a, const uint8_t *p)
{
    for (uint32_t k = 0; k < a->nsection; k++) {
        fg_section *s = &a->section[k];
        read_number(&p, &s->kind, 4);
        read_number(&p, &s->variant, 4);
        read_number(&p, &s->offset, 8);
        read_number(&p, &s->bytes, 8);
        memcpy(&s->digest, p, sizeof s->digest);
        p += FG_ARTIFACT_ROW - 24;
        if (s->offset % FG_ARTIFACT_ALIGN || s->offset > a->map.size ||
            s->bytes > a->map.size - s->offset)
            return fail_file(a, FORGE_INVALID,
                             "damaged: a section is outside of the file");
        fg_digest d = fg_digest_of(a->map.data + s->offset, s->bytes);
        if (!fg_digest_same(&d, &s->digest))
            return fail_file(a, FORGE_INVALID, "damaged: a section's digest is wrong");
    }
    return FORGE_OK;
}

/* Header: magic[8], version, sections, length of the file, digest; zeros up to 96. */
static forge_status
read_header(fg_artifact *a)
{
    const uint8_t *base = a->map.data, *p = base + 8;
    uint32_t version;
    uint64_t bytes;
    fg_digest want, got;

    if (a->map.size < sizeof magic - 1 || memcmp(base, magic, sizeof magic - 1))
        return fail_file(a, FORGE_INVALID, "not a .forge file");
    if (a->map.size < FG_ARTIFACT_HEAD)
        return fail_file(a, FORGE_INVALID, "damaged: the file is cut off");
    read_number(&p, &version, 4);
    read_number(&p, &a->nsection, 4);
    read_number(&p, &bytes, 8);
    memcpy(&want, p, sizeof want);
    if (version != FG_ARTIFACT_VERSION)
        return fg_fail(a->cx, FORGE_UNSUPPORTED,
                       "%.400s: format %u, this version reads %d: compile it again",
                       a->path, version, FG_ARTIFACT_VERSION);
    if (bytes != a->map.size)
        return fail_file(a, FORGE_INVALID, "damaged: the file is cut off or has grown");
    size_t table = (size_t)a->nsection * FG_ARTIFACT_ROW;
    if (a->nsection > MAXSECTION || a->map.size - FG_ARTIFACT_HEAD < table)
        return fail_file(a, FORGE_INVALID, "damaged: the table of sections does not fit");
    got = fg_digest_join(fg_digest_of(base, 24), base + FG_ARTIFACT_HEAD, table);
    if (!fg_digest_same(&got, &want))
        return fail_file(a, FORGE_INVALID, "damaged: the header's digest is wrong");
    if (!(a->section =
              fg_pile_get(&a->pile, a->nsection + (size_t)1, sizeof *a->section)))
        return fg_fail(a->cx, FORGE_OUT_OF_MEMORY, "out of memory");
    return read_table(a, base + FG_ARTIFACT_HEAD);
}

/* Each element takes at least a byte of the file; see fg_io_list. */
void
fg_io_info(fg_tables *x, fg_artifact_info *i)
{
    fg_io_text(x, &i->requirement);
    fg_io_text(x, &i->compiler);
    fg_io_text(x, &i->model);
    i->source = fg_io_list(x, i->source, &i->nsource, sizeof *i->source);
    for (uint32_t k = 0; k < i->nsource; k++) {
        fg_source *s = &i->source[k];
        fg_io_text(x, &s->path);
        fg_io_u64(x, &s->size);
        fg_io_u64(x, &s->inode);
        fg_io_u64(x, &s->mtime);
        fg_io_u64(x, &s->ctime);
        fg_io_bytes(x, &s->sample, sizeof s->sample);
    }
    i->segment = fg_io_list(x, i->segment, &i->nsegment, sizeof *i->segment);
    for (uint32_t k = 0; k < i->nsegment; k++) {
        fg_segment *s = &i->segment[k];
        fg_io_u32(x, &s->source);
        fg_io_u64(x, &s->offset);
        fg_io_u64(x, &s->bytes);
        fg_io_bytes(x, &s->digest, sizeof s->digest);
    }
    i->variant = fg_io_list(x, i->variant, &i->nvariant, sizeof *i->variant);
    for (uint32_t k = 0; k < i->nvariant; k++) {
        fg_io_text(x, &i->variant[k].isa);
        fg_io_u32(x, &i->variant[k].nfn);
    }
}

static forge_status
tables_failed(const fg_artifact *a, const fg_tables *x)
{
    if (x->state == FG_TABLES_MEMORY)
        return fg_fail(a->cx, FORGE_OUT_OF_MEMORY, "out of memory");
    return fail_file(a, FORGE_INVALID, "damaged: its tables do not hold together");
}

static fg_tables
reader(fg_artifact *a, const fg_section *s)
{
    const uint8_t *p = a->map.data + s->offset;

    return (fg_tables){.pile = &a->pile, .at = p, .end = p + s->bytes};
}

static forge_status
read_info(fg_artifact *a)
{
    const fg_section *s = fg_artifact_section(a, FG_SECTION_INFO, 0, 0);

    if (!s)
        return fail_file(a, FORGE_INVALID, "damaged: it has no INFO section");
    fg_tables x = reader(a, s);
    fg_io_info(&x, &a->info);
    if (x.state != FG_TABLES_OK)
        return tables_failed(a, &x);
    for (uint32_t k = 0; k < a->info.nsource; k++)
        if (!fg_path_below(a->info.source[k].path))
            return fail_file(a, FORGE_INVALID,
                             "its weights are not in a file of its own folder");
    for (uint32_t k = 0; k < a->info.nsegment; k++) {
        const fg_segment *g = &a->info.segment[k];
        if (g->source > a->info.nsource)
            return fail_file(a, FORGE_INVALID, "damaged: a weight has no source");
        uint64_t size = g->source ? a->info.source[g->source - 1].size : a->map.size;
        if (g->offset > size || g->bytes > size - g->offset)
            return fail_file(a, FORGE_INVALID,
                             "damaged: a weight is outside of its file");
    }
    return FORGE_OK;
}

/* The file at path; from memory when `memory` is given, and path is a name for messages. */
static forge_status
open_artifact(forge_ctx *cx, const char *path, const fg_filemap *memory,
              fg_artifact **out)
{
    fg_pile pile = {cx->alloc, cx->release, cx->user, NULL};
    fg_artifact *a = cx->alloc(cx->user, sizeof *a);
    const char *why = "";
    forge_status s = FORGE_OK;

    if (!a)
        return fg_fail(cx, FORGE_OUT_OF_MEMORY, "out of memory");
    *a = (fg_artifact){.cx = cx, .pile = pile};
    char *kept = fg_pile_get(&a->pile, strlen(path) + 1, 1);
    a->path = kept ? memcpy(kept, path, strlen(path) + 1) : "";
    if (memory)
        a->map = *memory;
    if (!kept)
        s = fg_fail(cx, FORGE_OUT_OF_MEMORY, "out of memory");
    else if (!memory && !fg_map_file(path, &a->map, &why))
        s = fail_file(a, FORGE_IO, why);
    if (!s)
        s = read_header(a);
    if (!s)
        s = read_info(a);
    if (!s)
        *out = a;
    else
        fg_artifact_close(a);
    return s;
}

forge_status
fg_artifact_open(forge_ctx *cx, const char *path, fg_artifact **out)
{
    return open_artifact(cx, path, NULL, out);
}

forge_status
fg_artifact_borrow(forge_ctx *cx, const void *data, size_t bytes, fg_artifact **out)
{
    fg_filemap memory = {data, bytes, 1};

    return open_artifact(cx, "model in memory", &memory, out);
}

void
fg_artifact_close(fg_artifact *a)
{
    if (!a)
        return;
    fg_pile pile = a->pile;
    fg_unmap_file(&a->map);
    fg_pile_free(&pile);
    pile.release(pile.user, a);
}

const fg_section *
fg_artifact_section(const fg_artifact *a, fg_sectionkind kind, uint32_t variant,
                    uint32_t n)
{
    for (uint32_t k = 0; k < a->nsection; k++)
        if (a->section[k].kind == kind && a->section[k].variant == variant && !n--)
            return &a->section[k];
    return NULL;
}

/* ---- which variant --------------------------------------------------------------------- */

static int
features(fg_isa set)
{
    return __builtin_popcountll(set);
}

int
fg_artifact_choose(const fg_artifact *a)
{
    fg_isa host = fg_isa_host(), need, best_need = 0;
    int best = -1;

    for (uint32_t k = 0; k < a->info.nvariant; k++) {
        const char *isa = a->info.variant[k].isa;
        if (!fg_isa_parse(isa, strlen(isa), &need) || need & ~host)
            continue;
        if (best < 0 || features(need) > features(best_need)) {
            best = (int)k;
            best_need = need;
        }
    }
    return best;
}

/* "forge-2 x86_64-linux x86-64-v3|x86-64-v4" */
forge_fit
forge_requirement_fit(const char *text)
{
    static const char format[] = "forge-";
    fg_isa host = fg_isa_host(), need, best = 0;
    size_t n = strlen(fg_isa_platform());
    bool some = false;

    if (!text || strncmp(text, format, sizeof format - 1))
        return FORGE_FIT_OTHER;
    long version = strtol(text + sizeof format - 1, (char **)(uintptr_t)&text, 10);
    if (*text++ != ' ' || strncmp(text, fg_isa_platform(), n) || text[n] != ' ')
        return FORGE_FIT_OTHER;
    if (version != FG_ARTIFACT_VERSION)
        return FORGE_FIT_UNSUPPORTED;
    for (text += n + 1; *text; text += *text == '|') {
        size_t len = strcspn(text, "|");
        if (fg_isa_parse(text, len, &need) && !(need & ~host)) {
            some = true;
            if (features(need) > features(best))
                best = need;
        }
        text += len;
    }
    if (!some)
        return FORGE_FIT_UNSUPPORTED;
    return fg_isa_beyond(host, best) ? FORGE_FIT_RECOMPILE : FORGE_FIT_OPTIMAL;
}

const char *
forge_fit_text(forge_fit f)
{
    static const char *const text[] = {[FORGE_FIT_OPTIMAL] = "optimal here",
                                       [FORGE_FIT_RECOMPILE] =
                                           "runs here, better compiled again",
                                       [FORGE_FIT_UNSUPPORTED] = "not supported here",
                                       [FORGE_FIT_OTHER] = "for another kind of machine"};

    return (unsigned)f < sizeof text / sizeof *text ? text[f] : "unknown";
}

forge_status
forge_file_requirement(forge_ctx *cx, const char *path, char *out, size_t n)
{
    fg_artifact *a;
    forge_status s = fg_artifact_open(cx, path, &a);

    if (s)
        return s;
    if (strlen(a->info.requirement) >= n)
        s = fg_fail(cx, FORGE_USAGE, "the requirement takes %zu bytes",
                    strlen(a->info.requirement) + 1);
    else
        strcpy(out, a->info.requirement);
    fg_artifact_close(a);
    return s;
}

/* ---- a model of it ------------------------------------------------------------------- */

typedef struct loaded {
    forge_model base; /* first: a forge_model is one of these */
    fg_artifact *a;
    fg_program program;
    fg_image image;
    fg_kernel_fn **fn;
    uint32_t nfn;
    fg_filemap *source; /* [nsource] */
    fg_blob *weight;    /* [nsegment] */
} loaded;

static void
destroy(forge_model *m)
{
    loaded *l = (loaded *)m;
    fg_artifact *a = l->a;

    fg_model_done(m);
    fg_unlink(&l->image);
    for (uint32_t k = 0; l->source && k < a->info.nsource; k++)
        fg_unmap_file(&l->source[k]);
    fg_artifact_close(a); /* l lives in its pile */
}

/* FOLDER/path in `out`, or path alone. */
static forge_status
join_path(const fg_artifact *a, const char *folder, const char *path, char *out, size_t n)
{
    const char *slash = folder ? folder + strlen(folder) : strrchr(a->path, '/');
    const char *from = folder ? folder : a->path;
    size_t len = slash ? (size_t)(slash - from) : 0;
    int got = slash ? snprintf(out, n, "%.*s/%s", (int)len, from, path)
                    : snprintf(out, n, "%s", path);

    return got > 0 && (size_t)got < n ? FORGE_OK
                                      : fail_file(a, FORGE_INVALID, "a path is too long");
}

static forge_status
map_sources(loaded *l, const char *folder)
{
    static const fg_digest none;
    const fg_artifact *a = l->a;
    char path[4096];
    const char *why;

    for (uint32_t k = 0; k < a->info.nsource; k++) {
        const fg_source *s = &a->info.source[k];
        forge_status e = join_path(a, folder, s->path, path, sizeof path);
        if (e)
            return e;
        if (!fg_map_file(path, &l->source[k], &why))
            return fg_fail(a->cx, FORGE_IO, "%.400s: weights: %.400s: %s", a->path, path,
                           why);
        if (l->source[k].size != s->size ||
            (!fg_digest_same(&s->sample, &none) && !fg_source_unchanged(path, s)))
            return fg_fail(a->cx, FORGE_INVALID,
                           "%.400s: weights: %.400s has changed since the model was "
                           "compiled",
                           a->path, path);
    }
    return FORGE_OK;
}

static forge_status
find_weights(loaded *l, int verify)
{
    static const fg_digest unknown;
    const fg_artifact *a = l->a;

    for (uint32_t k = 0; k < a->info.nsegment; k++) {
        const fg_segment *g = &a->info.segment[k];
        const fg_filemap *m = g->source ? &l->source[g->source - 1] : &a->map;
        l->weight[k] = (fg_blob){m->data + g->offset, g->bytes, !m->borrowed};
        if (!verify || fg_digest_same(&g->digest, &unknown))
            continue;
        fg_digest d = fg_digest_of(l->weight[k].data, g->bytes);
        if (!fg_digest_same(&d, &g->digest))
            return fail_file(a, FORGE_INVALID, "damaged: a weight's digest is wrong");
    }
    return FORGE_OK;
}

/* Functions are called fg_k<number>. */
static void
found(void *user, const char *name, void *address)
{
    loaded *l = user;
    char *end;

    if (strncmp(name, "fg_k", 4) || name[4] < '0' || name[4] > '9')
        return;
    unsigned long k = strtoul(name + 4, &end, 10);
    if (!*end && k < l->nfn)
        l->fn[k] = (fg_kernel_fn *)address;
}

static forge_status
link_code(loaded *l, uint32_t variant)
{
    enum { MAXOBJECT = 64 };
    const fg_artifact *a = l->a;
    fg_object object[MAXOBJECT];
    const fg_section *s;
    const char *why;
    int n = 0;

    while (n < MAXOBJECT &&
           (s = fg_artifact_section(a, FG_SECTION_CODE, variant, (uint32_t)n)))
        object[n++] = (fg_object){a->map.data + s->offset, s->bytes};
    if (n && !fg_link(&l->image, object, n, found, l, &why))
        return fail_file(a, FORGE_INVALID, why);
    for (uint32_t k = 0; k < l->program.nstep; k++) {
        const fg_step *step = &l->program.step[k];
        for (uint32_t v = 0; step->kind == FG_STEP_KERNEL && v <= l->program.nspecial;
             v++) {
            /* Read from the file into the pile: ours to change. */
            fg_form *form = (fg_form *)(uintptr_t)&step->form[v];
            form->fn = l->fn[form->code];
            if (!form->fn)
                return fail_file(a, FORGE_INVALID, "damaged: a function is missing");
        }
    }
    return FORGE_OK;
}

static forge_status
read_program(loaded *l, uint32_t variant)
{
    fg_artifact *a = l->a;
    const fg_section *s = fg_artifact_section(a, FG_SECTION_TABLES, variant, 0);

    if (!s)
        return fail_file(a, FORGE_INVALID, "damaged: a variant has no tables");
    fg_tables x = reader(a, s);
    x.weight = l->weight;
    x.nweight = a->info.nsegment;
    fg_io_program(&x, &l->program);
    if (x.state != FG_TABLES_OK)
        return tables_failed(a, &x);
    const char *why =
        fg_program_check(&l->program, l->nfn, l->weight, a->info.nsegment, &a->pile);
    if (why)
        return fg_fail(a->cx, FORGE_INVALID, "%.400s: damaged: %s", a->path, why);
    return FORGE_OK;
}

static forge_status
load(loaded *l, const char *folder, int verify)
{
    const fg_artifact *a = l->a;
    int variant = fg_artifact_choose(a);
    forge_status s;

    if (variant < 0)
        return fg_fail(a->cx, FORGE_UNSUPPORTED,
                       "%.300s: made for %.200s, which this machine is not", a->path,
                       a->info.requirement);
    l->nfn = a->info.variant[variant].nfn;
    if (l->nfn > a->map.size) /* a function takes more than a byte */
        return fail_file(a, FORGE_INVALID, "damaged: it has no room for its functions");
    if (!(l->fn = fg_pile_get(&l->a->pile, l->nfn + (size_t)1, sizeof *l->fn)) ||
        !(l->source =
              fg_pile_get(&l->a->pile, a->info.nsource + (size_t)1, sizeof *l->source)) ||
        !(l->weight =
              fg_pile_get(&l->a->pile, a->info.nsegment + (size_t)1, sizeof *l->weight)))
        return fg_fail(a->cx, FORGE_OUT_OF_MEMORY, "out of memory");
    if ((s = map_sources(l, folder)) || (s = find_weights(l, verify)) ||
        (s = read_program(l, (uint32_t)variant)) || (s = link_code(l, (uint32_t)variant)))
        return s;
    const fg_section *r = fg_artifact_section(a, FG_SECTION_REPORT, (uint32_t)variant, 0);
    bool text = r && r->bytes && !a->map.data[r->offset + r->bytes - 1];
    l->base.report = text ? (const char *)a->map.data + r->offset : "{}";
    l->base.program = &l->program;
    return FORGE_OK;
}

forge_status
fg_artifact_model(fg_artifact *a, const char *folder, int verify, forge_model **out)
{
    loaded *l = fg_pile_get(&a->pile, 1, sizeof *l);

    if (!l) {
        forge_ctx *cx = a->cx;
        fg_artifact_close(a);
        return fg_fail(cx, FORGE_OUT_OF_MEMORY, "out of memory");
    }
    l->a = a;
    l->base.destroy = destroy;
    fg_model_init(&l->base, a->cx);
    forge_status s = load(l, folder, verify);
    if (!s) {
        if (a->cx->names)
            fg_names_add(a->cx, &l->base, &l->image);
        a->cx = NULL; /* the model may outlive it */
        *out = &l->base;
    } else {
        destroy(&l->base);
    }
    return s;
}

void
forge_load_options_init(forge_load_options *o)
{
    *o = (forge_load_options){.size = sizeof *o};
}

static forge_load_options
given(const forge_load_options *o)
{
    forge_load_options own;

    forge_load_options_init(&own);
    if (o)
        memcpy(&own, o, o->size < sizeof own ? o->size : sizeof own);
    return own;
}

forge_status
forge_load_file(forge_ctx *cx, const char *path, const forge_load_options *o,
                forge_model **out)
{
    forge_load_options own = given(o);
    fg_artifact *a;
    forge_status s = fg_artifact_open(cx, path, &a);

    return s ? s : fg_artifact_model(a, own.folder, own.verify, out);
}

forge_status
forge_load_memory(forge_ctx *cx, const void *data, size_t bytes,
                  const forge_load_options *o, forge_model **out)
{
    forge_load_options own = given(o);
    fg_artifact *a;

    if (!data || (uintptr_t)data % FG_ARTIFACT_ALIGN)
        return fg_fail(cx, FORGE_USAGE,
                       "a model in memory must begin at a multiple of %d bytes",
                       FG_ARTIFACT_ALIGN);
    forge_status s = fg_artifact_borrow(cx, data, bytes, &a);
    return s ? s : fg_artifact_model(a, own.folder, own.verify, out);
}
