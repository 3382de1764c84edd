/* dump_artifact.c - what a .forge file holds: who can run it, its sections, weights and
 * ports.
 */
#include <inttypes.h>
#include <stdio.h>

#include "runtime/artifact.h"
#include "tools/dump.h"
#include "tools/tool.h"

static void
put_sections(fg_text *o, const fg_artifact *a)
{
    static const char *const kind[] = {"?", "info", "tables", "code", "report"};
    char digest[33];

    fg_putf(o, "\n%-8s %7s %12s %12s  %s\n", "section", "variant", "offset", "bytes",
            "digest");
    for (uint32_t k = 0; k < a->nsection; k++) {
        const fg_section *s = &a->section[k];
        fg_digest_text(s->digest, digest);
        fg_putf(o, "%-8s %7" PRIu32 " %12" PRIu64 " %12" PRIu64 "  %s\n",
                kind[s->kind <= FG_SECTION_REPORT ? s->kind : 0], s->variant, s->offset,
                s->bytes, digest);
    }
}

/* Of a source's path: its folder when it is below the artifact's, as those of a folder of
 * weights are. */
static int
place_length(const char *path)
{
    const char *slash = strrchr(path, '/');

    return (int)(slash ? (size_t)(slash - path) + 1 : strlen(path));
}

static bool
same_place(const char *a, const char *b)
{
    int n = place_length(a);

    return n == place_length(b) && !strncmp(a, b, (size_t)n);
}

static void
put_weights(fg_text *o, const fg_artifact *a)
{
    const fg_artifact_info *i = &a->info;

    for (uint32_t from = 0; from <= i->nsource; from++) {
        const char *path = from ? i->source[from - 1].path : "this file";
        uint64_t bytes = 0;
        int n = 0;
        if (from > 1 && same_place(path, i->source[from - 2].path))
            continue;
        for (uint32_t k = 0; k < i->nsegment; k++) {
            uint32_t at = i->segment[k].source;
            if (at == from || (at && from && same_place(path, i->source[at - 1].path))) {
                bytes += i->segment[k].bytes;
                n++;
            }
        }
        if (n)
            fg_putf(o, "weights  %d, %" PRIu64 " bytes, in %.*s\n", n, bytes,
                    place_length(path), path);
    }
}

static void
put_ports(fg_text *o, const fg_program *p, bool input)
{
    const fg_portdef *d = input ? p->input : p->output;
    uint32_t n = input ? p->ninput : p->noutput;

    for (uint32_t k = 0; k < n; k++) {
        const fg_tensordef *t = &p->tensor[d[k].tensor];
        fg_putf(o, "%-8s %s %s[", input ? "input" : "output", d[k].name,
                fg_dtype_text(t->dtype));
        for (int x = 0; x < t->rank; x++) {
            const fg_value *v = &p->value[t->dim[x]];
            if (x)
                fg_putc(o, ',');
            if (v->op == FG_V_CONST)
                fg_putf(o, "%" PRId64, v->k);
            else
                fg_puts(o, d[k].dim_text       ? d[k].dim_text[x]
                           : v->op == FG_V_SYM ? p->symbol[v->a].name
                                               : "?");
        }
        fg_puts(o, "]\n");
    }
    for (uint32_t k = 0; input && k < p->nsymbol; k++)
        if (!p->symbol[k].run)
            fg_putf(o, "size     %s in %" PRId64 "..%" PRId64 "\n", p->symbol[k].name,
                    p->symbol[k].lo, p->symbol[k].hi);
}

static void
put_specials(fg_text *o, const fg_program *p)
{
    for (uint32_t v = 0; v < p->nspecial; v++) {
        const fg_special *s = &p->special[v];
        int own = 0, all = 0;
        for (uint32_t k = 0; k < p->nstep; k++) {
            const fg_form *f = p->step[k].form;
            all += f != NULL;
            own += f && f[v + 1].code != f->code;
        }
        fg_puts(o, "variant  ");
        for (uint32_t k = 0; k < s->n; k++)
            fg_putf(o, "%s%s=%" PRId64, k ? "+" : "", p->symbol[s->fixed[k].sym].name,
                    s->fixed[k].size);
        fg_putf(o, ": %d of %d kernels have code of their own\n", own, all);
    }
}

/* The variant that would run here, and what all have in common. */
static forge_status
put_model(fg_text *o, fg_artifact *a)
{
    forge_model *m;
    forge_status s = fg_artifact_model(a, NULL, 0, &m);

    if (s)
        return s;
    put_ports(o, m->program, true);
    put_ports(o, m->program, false);
    put_specials(o, m->program);
    fg_putf(o, "program  %u steps, %u tensors, %u values\n", m->program->nstep,
            m->program->ntensor, m->program->nvalue);
    forge_model_free(m);
    return FORGE_OK;
}

typedef struct view {
    fg_ctx *cx;
    forge_ctx *fcx;
    fg_arena *a;
    const char *path;
    fg_text out;
    bool done;
} view;

static void
show(void *arg)
{
    view *x = arg;
    fg_text *o = &x->out, sections;
    fg_artifact *a;

    x->a = fg_arena_new(x->cx);
    x->out = fg_text_new(x->a);
    sections = fg_text_new(x->a);
    if (fg_artifact_open(x->fcx, x->path, &a))
        return;
    const fg_artifact_info *i = &a->info;
    fg_putf(o, "model    %s, compiled by forge %s\n", i->model, i->compiler);
    fg_putf(o, "needs    %s\n", i->requirement);
    fg_putf(o, "is       %s\n", forge_fit_text(forge_requirement_fit(i->requirement)));
    put_weights(o, a);
    put_sections(&sections, a);
    if (fg_artifact_choose(a) < 0)
        fg_artifact_close(a);
    else if (put_model(o, a))
        return;
    fg_puts(o, sections.s);
    x->done = true;
}

int
dump_artifact(const char *path)
{
    view x = {.path = path};
    int code = TOOL_OK;

    if (forge_open(NULL, &x.fcx) || !(x.cx = fg_ctx_new(NULL)) ||
        fg_protect(x.cx, show, &x))
        code = tool_fail(TOOL_FAILED, "out of memory");
    else if (!x.done)
        code = tool_fail_file(TOOL_FAILED, path, "%s", forge_message(x.fcx));
    else if (fputs(x.out.s, stdout) < 0 || fflush(stdout))
        code = tool_fail(TOOL_FAILED, "cannot write the result");
    fg_arena_free(x.a);
    fg_ctx_free(x.cx);
    forge_close(x.fcx);
    return code;
}
