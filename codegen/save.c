/* save.c - compiled models to a .forge file.
 *
 * Weights are numbered in the order in which the programs name them, equal bytes once;
 * then everything but the weights is written to memory, laid out, and the whole goes out
 * front to back. Weights are written from where the model file is mapped: nothing is copied.
 */
#include "codegen/save.h"

#include "codegen/outfile.h"
#include "codegen/prepack.h"

/* Bytes of a weight that is worth a file of its own. */
enum { STORED = 4 * FG_ARTIFACT_PAGE };

typedef struct section {
    fg_section row;
    const void *data;
} section;

typedef struct packing { /* of one variant */
    struct packing *next;
    fg_prepacked *list;
    int n;
} packing;

typedef struct saver {
    fg_ctx *cx;
    fg_arena *a;
    const fg_save_options *o;
    fg_compiled *const *variant;
    int n;
    fg_pile pile;
    fg_artifact_info info;
    size_t capsegment, capsource, capsection;
    const void **data; /* of segments that go into this file; NULL: in a source */
    size_t capdata;
    int ndata;
    section *section;
    int nsection;
    int32_t *by_content;     /* hash -> segment + 1 */
    size_t ncontent;         /* a power of two */
    fg_compiled *now;        /* whose tables are being written */
    struct packing *packing; /* weights that are made here */
    void *room;              /* for the largest of them */
    size_t nroom;
    int32_t *by_address; /* hash -> weight of its module + 1 */
    size_t naddress;
    bool failed; /* to write a file of the store */
} saver;

static void *
pile_alloc(void *user, size_t n)
{
    return fg_alloc(user, n);
}

static void
pile_release(void *user, void *p)
{
    (void)user;
    (void)p;
}

static uint64_t
align_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) & ~(to - 1);
}

/* ---- weights ------------------------------------------------------------------------- */

static uint32_t
source_of(saver *s, const char *file)
{
    fg_artifact_info *i = &s->info;

    for (uint32_t k = 0; k < i->nsource; k++)
        if (!strcmp(i->source[k].path, file))
            return k + 1;
    fg_source *x = &FG_PUSH(s->a, i->source, i->nsource, s->capsource);
    *x = (fg_source){.path = file};
    const char *local;
    size_t size;
    for (int k = 0; (local = fg_onnx_local(s->now->file, k, &size)); k++)
        if (!strcmp(local, file))
            x->size = size;
    return i->nsource;
}

/* A table of the module's weights by address; views of one place count as the largest. */
static void
index_weights(saver *s, const fg_module *m)
{
    for (s->naddress = 64; s->naddress < (size_t)m->nweight * 2;)
        s->naddress *= 2;
    s->by_address = FG_NEWN(s->a, int32_t, s->naddress);
    for (int k = 0; k < m->nweight; k++) {
        const fg_weight *w = &m->weight[k];
        size_t h = fg_hash(&w->data, sizeof w->data, 0) & (s->naddress - 1);
        while (s->by_address[h] && m->weight[s->by_address[h] - 1].data != w->data)
            h = (h + 1) & (s->naddress - 1);
        if (!s->by_address[h] || m->weight[s->by_address[h] - 1].bytes < w->bytes)
            s->by_address[h] = k + 1;
    }
}

static const fg_weight *
weight_of(const saver *s, const void *data)
{
    const fg_module *m = s->now->m;
    size_t h = fg_hash(&data, sizeof data, 0) & (s->naddress - 1);

    while (s->by_address[h] && m->weight[s->by_address[h] - 1].data != data)
        h = (h + 1) & (s->naddress - 1);
    if (!s->by_address[h])
        FG_BUG(s->cx, "a constant is none of the module's weights");
    return &m->weight[s->by_address[h] - 1];
}

/* The source that is a file of the store with these bytes. It is written now: a file that
 * is named by its content does no harm when nothing comes to refer to it. */
static uint32_t
stored(saver *s, fg_digest d, const void *data, size_t bytes)
{
    char name[33];
    const char *why, *folder = strrchr(s->o->path, '/');
    fg_filemap map;
    fg_outfile f;

    fg_digest_text(d, name);
    const char *below = fg_format(s->a, "%s/%s.weight", s->o->store, name);
    const char *path = fg_format(
        s->a, "%.*s%s", folder ? (int)(folder - s->o->path) + 1 : 0, s->o->path, below);
    bool there = fg_map_file(path, &map, &why) && map.size == bytes;
    if (there) {
        fg_digest have = fg_digest_of(map.data, map.size);
        there = fg_digest_same(&have, &d);
    }
    fg_unmap_file(&map);
    if (!there) {
        if (fg_outfile_open(&f, path, false))
            fg_outfile_put(&f, data, bytes);
        if (f.error || !fg_outfile_commit(&f))
            s->failed = !fg_error(s->cx, "%.400s: %s", path, strerror(f.error));
    }
    fg_artifact_info *i = &s->info;
    for (uint32_t k = 0; k < i->nsource; k++)
        if (!strcmp(i->source[k].path, below))
            return k + 1;
    FG_PUSH(s->a, i->source, i->nsource, s->capsource) =
        (fg_source){.path = below, .size = bytes};
    return i->nsource;
}

/* Where a segment equal to g is in by_content, or would be. */
static size_t
content_slot(const saver *s, const fg_segment *g)
{
    const fg_segment *have = s->info.segment;
    size_t h = fg_hash(&g->offset, sizeof g->offset, g->bytes + g->source);

    h = fg_hash(&g->digest, sizeof g->digest, h) & (s->ncontent - 1);
    for (; s->by_content[h]; h = (h + 1) & (s->ncontent - 1)) {
        const fg_segment *x = &have[s->by_content[h] - 1];
        if (x->source == g->source && x->offset == g->offset && x->bytes == g->bytes &&
            fg_digest_same(&x->digest, &g->digest))
            break;
    }
    return h;
}

/* The number of an equal segment, or of a new one. */
static uint32_t
add_segment(saver *s, const fg_segment *g, const void *data)
{
    fg_artifact_info *i = &s->info;

    if ((size_t)i->nsegment * 2 >= s->ncontent) {
        s->ncontent = s->ncontent ? s->ncontent * 2 : 256;
        s->by_content = FG_NEWN(s->a, int32_t, s->ncontent);
        for (uint32_t k = 0; k < i->nsegment; k++)
            s->by_content[content_slot(s, &i->segment[k])] = (int32_t)k + 1;
    }
    size_t at = content_slot(s, g);
    if (s->by_content[at])
        return (uint32_t)s->by_content[at] - 1;
    FG_PUSH(s->a, i->segment, i->nsegment, s->capsegment) = *g;
    FG_PUSH(s->a, s->data, s->ndata, s->capdata) = data;
    s->by_content[at] = (int32_t)i->nsegment;
    return i->nsegment - 1;
}

/* The row behind data that is made rather than found; rows of earlier variants too. */
static const fg_prepacked *
packed_of(const saver *s, const void *data)
{
    for (const packing *p = s->packing; p; p = p->next)
        if ((const char *)data >= (const char *)p->list &&
            (const char *)data < (const char *)(p->list + p->n))
            return data;
    return NULL;
}

/* The program to write: what it would make of weights that go into the file is made now. */
static const fg_program *
program_of(saver *s, const fg_compiled *c)
{
    if (s->o->borrow)
        return c->program;
    packing *p = FG_NEW(s->a, packing);
    const fg_program *program = fg_prepack(c, s->a, &p->list, &p->n);
    p->next = s->packing;
    s->packing = p;
    for (int k = 0; k < p->n; k++)
        if (p->list[k].bytes > s->nroom)
            s->room = fg_alloc(s->a, s->nroom = p->list[k].bytes);
    return program;
}

/* Weights of this file or of the store; key: what it will be written from. */
static uint32_t
add_bytes(saver *s, fg_segment *g, const void *data, const void *key)
{
    g->digest = fg_digest_of(data, g->bytes);
    if (s->o->store && g->bytes >= STORED) {
        g->source = stored(s, g->digest, data, g->bytes);
        key = NULL;
    }
    return add_segment(s, g, key);
}

static uint32_t
weight_at(void *user, const void *data, uint32_t tensor)
{
    saver *s = user;
    fg_segment g = {0};

    (void)tensor;
    if (!data)
        return add_segment(s, &g, NULL);
    const fg_prepacked *packed = packed_of(s, data);
    if (packed) {
        fg_prepack_fill(packed, s->room);
        g.bytes = packed->bytes;
        return add_bytes(s, &g, s->room, data);
    }
    const fg_weight *w = weight_of(s, data);
    g.bytes = w->bytes;
    if (s->o->borrow && w->file && s->now->file) {
        g.source = source_of(s, w->file);
        g.offset = w->file_offset;
        if (!s->o->source)
            g.digest = fg_digest_of(data, w->bytes);
        return add_segment(s, &g, NULL);
    }
    return add_bytes(s, &g, data, data);
}

/* ---- sections ------------------------------------------------------------------------ */

static void
add_section(saver *s, fg_sectionkind kind, int variant, const void *data, size_t n)
{
    FG_PUSH(s->a, s->section, s->nsection, s->capsection) =
        (section){{.kind = (uint32_t)kind,
                   .variant = (uint32_t)variant,
                   .bytes = n,
                   .digest = fg_digest_of(data, n)},
                  data};
}

static bool
add_variant(saver *s, int v)
{
    fg_compiled *c = s->now = s->variant[v];
    fg_tables x = {.pile = &s->pile, .writing = true, .weight_at = weight_at, .user = s};
    char isa[512];
    const void *object;
    size_t n;

    if (!fg_cpu_isa(c->code, isa, sizeof isa))
        return fg_error(s->cx, "cpu \"%.60s\": it has too much to name it all",
                        fg_cpu_name(c->code));
    const char *platform = fg_cpu_platform(c->code),
               *first = fg_cpu_platform(s->variant[0]->code);
    if (strcmp(platform, first))
        return fg_error(s->cx, "one file is for one kind of machine, not for %s and %s",
                        first, platform);
    index_weights(s, c->m);
    fg_program program = *program_of(s, c);
    fg_io_program(&x, &program);
    if (s->failed)
        return false;
    s->info.variant[v] =
        (fg_variant){fg_strdup(s->a, isa), (uint32_t)fg_cpu_functions(c->code)};
    add_section(s, FG_SECTION_TABLES, v, x.out, x.n);
    for (int k = 0; (object = fg_cpu_object(c->code, k, &n)); k++)
        add_section(s, FG_SECTION_CODE, v, object, n);
    const char *report = fg_report_json(c);
    if (!s->o->keep_times)
        report = fg_report_stable(s->a, report);
    add_section(s, FG_SECTION_REPORT, v, report, strlen(report) + 1);
    return true;
}

static const char *
requirement(saver *s)
{
    fg_text t = fg_text_new(s->a);

    fg_putf(&t, "forge-%d %s ", FG_ARTIFACT_VERSION,
            fg_cpu_platform(s->variant[0]->code));
    for (int k = 0; k < s->n; k++)
        fg_putf(&t, "%s%s", k ? "|" : "", s->info.variant[k].isa);
    return t.s;
}

/* ---- layout --------------------------------------------------------------------------- */

static void
write_info(saver *s)
{
    fg_tables x = {.pile = &s->pile, .writing = true};

    fg_io_info(&x, &s->info);
    s->section[0].data = x.out;
    s->section[0].row.bytes = x.n;
    s->section[0].row.digest = fg_digest_of(x.out, x.n);
}

/* Sections in order, then weights; returns the length of the file. */
static uint64_t
lay_out(saver *s)
{
    uint64_t at = FG_ARTIFACT_HEAD + (uint64_t)s->nsection * FG_ARTIFACT_ROW;

    for (int k = 0; k < s->nsection; k++) {
        s->section[k].row.offset = at = align_up(at, FG_ARTIFACT_ALIGN);
        at += s->section[k].row.bytes;
    }
    uint64_t end = at;
    at = align_up(at, FG_ARTIFACT_PAGE);
    for (uint32_t k = 0; k < s->info.nsegment; k++) {
        fg_segment *g = &s->info.segment[k];
        if (g->source || !g->bytes)
            continue;
        at = align_up(at, g->bytes >= 16 * FG_ARTIFACT_PAGE ? FG_ARTIFACT_PAGE
                                                            : FG_ARTIFACT_ALIGN);
        g->offset = at;
        end = at += g->bytes;
    }
    write_info(s); /* numbers changed, its length did not */
    return end;
}

static uint8_t *
put_number(uint8_t *p, uint64_t v, int bytes)
{
    for (int k = 0; k < bytes; k++)
        p[k] = (uint8_t)(v >> 8 * k);
    return p + bytes;
}

/* Header and table for a file of so many bytes; their length. */
static size_t
make_head(saver *s, uint64_t bytes, uint8_t **out)
{
    size_t table = (size_t)s->nsection * FG_ARTIFACT_ROW;
    uint8_t *head = FG_NEWN(s->a, uint8_t, FG_ARTIFACT_HEAD + table), *p = head;

    memcpy(p, FG_ARTIFACT_MAGIC, 8);
    p = put_number(p + 8, FG_ARTIFACT_VERSION, 4);
    p = put_number(p, (uint64_t)s->nsection, 4);
    put_number(p, bytes, 8);
    p = head + FG_ARTIFACT_HEAD;
    for (int k = 0; k < s->nsection; k++) {
        const fg_section *r = &s->section[k].row;
        uint8_t *q = p + (size_t)k * FG_ARTIFACT_ROW;
        q = put_number(q, r->kind, 4);
        q = put_number(q, r->variant, 4);
        q = put_number(q, r->offset, 8);
        q = put_number(q, r->bytes, 8);
        memcpy(q, &r->digest, sizeof r->digest);
    }
    fg_digest d = fg_digest_join(fg_digest_of(head, 24), p, table);
    memcpy(head + 24, &d, sizeof d);
    *out = head;
    return FG_ARTIFACT_HEAD + table;
}

static bool
write_file(saver *s, uint64_t bytes)
{
    fg_outfile f;
    uint8_t *head;
    size_t nhead = make_head(s, bytes, &head); /* from here on no memory is taken */

    if (fg_outfile_open(&f, s->o->path, s->o->transient)) {
        fg_outfile_put(&f, head, nhead);
        for (int k = 0; k < s->nsection; k++) {
            fg_outfile_pad(&f, s->section[k].row.offset);
            fg_outfile_put(&f, s->section[k].data, s->section[k].row.bytes);
        }
        for (uint32_t k = 0; k < s->info.nsegment; k++) {
            if (!s->data[k] || !s->info.segment[k].bytes)
                continue;
            fg_outfile_pad(&f, s->info.segment[k].offset);
            const fg_prepacked *packed = packed_of(s, s->data[k]);
            if (packed)
                fg_prepack_fill(packed, s->room);
            fg_outfile_put(&f, packed ? s->room : s->data[k], s->info.segment[k].bytes);
        }
        if (fg_outfile_commit(&f))
            return true;
    }
    return fg_error(s->cx, "%.400s: %s", s->o->path, strerror(f.error));
}

bool
fg_save(fg_ctx *cx, fg_compiled *const *variant, int n, const fg_save_options *o)
{
    fg_arena *a = variant[0]->a;
    saver s = {.cx = cx,
               .a = a,
               .o = o,
               .variant = variant,
               .n = n,
               .pile = {pile_alloc, pile_release, a, NULL}};

    s.info.compiler = FORGE_VERSION;
    s.info.model = variant[0]->m->name ? variant[0]->m->name : "";
    s.info.nvariant = (uint32_t)n;
    s.info.variant = FG_NEWN(a, fg_variant, (size_t)n);
    /* Those given are all compared, whether the code still reads them or was made from them. */
    for (int k = 0; k < o->nsource; k++)
        FG_PUSH(a, s.info.source, s.info.nsource, s.capsource) = o->source[k];
    add_section(&s, FG_SECTION_INFO, 0, "", 0);
    for (int k = 0; k < n; k++)
        if (!add_variant(&s, k))
            return false;
    s.info.requirement = requirement(&s);
    if (strlen(s.info.requirement) >= 1024)
        return fg_error(cx, "too many CPUs for one file");
    write_info(&s);
    uint64_t bytes = lay_out(&s);
    return (o->limit && bytes > o->limit) || write_file(&s, bytes);
}
