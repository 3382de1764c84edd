/* dump_plan.c - the memory plan: where every register lives, from when to when, and what is
 * live where most is. */
#include <inttypes.h>

#include "tools/dump.h"

const char *
dump_storage(fg_module *m, fg_arena *a, fg_reg r)
{
    static const char *const where[] = {
        [FG_MEM_INPUT] = "input",    [FG_MEM_OUTPUT] = "output",
        [FG_MEM_CONST] = "constant", [FG_MEM_ARENA] = "arena",
        [FG_MEM_ALIAS] = "alias of", [FG_MEM_DYNAMIC] = "dynamic",
        [FG_MEM_STATE] = "state"};
    const fg_reginfo *ri = fg_ri(m, r);
    fg_text t = fg_text_new(a);

    fg_puts(&t, ri->mem < sizeof where / sizeof *where && where[ri->mem] ? where[ri->mem]
                                                                         : "");
    if (ri->mem == FG_MEM_ARENA)
        fg_putf(&t, "+%" PRId64, ri->offset);
    if (ri->mem == FG_MEM_ALIAS)
        fg_putf(&t, " %%%s", fg_ri(m, ri->alias)->name);
    return t.s;
}

/* Of each position, how much of the arena is live; its greatest value. */
static void
find_peak(dump_memory *d, fg_module *m, fg_arena *a)
{
    int64_t *change = FG_NEWN(a, int64_t, (size_t)d->positions + 2), live = 0;

    for (int k = 0; k < d->n; k++) {
        const dump_buffer *b = &d->row[k];
        if (fg_ri(m, b->reg)->mem != FG_MEM_ARENA || b->bytes < 0)
            continue;
        change[b->live.first] += b->bytes;
        change[b->live.last + 1] -= b->bytes;
    }
    for (int at = 0; at < d->positions; at++) {
        live += change[at];
        if (live > d->peak) {
            d->peak = live;
            d->peak_at = at;
        }
    }
}

dump_memory
dump_memory_of(fg_module *m, fg_arena *a)
{
    dump_memory d = {.n = 0};
    fg_liverange *live = fg_liveness(m, a);
    const int64_t *sym = fg_nominal_symbols(m, a);
    fg_liverange *whole = fg_dup(a, live, m->nreg * sizeof *live);

    for (fg_reg r = 1; r < m->nreg; r++) {
        if (live[r].first < 0 || fg_ri(m, r)->mem == FG_MEM_NONE)
            continue;
        fg_liverange *root = &whole[fg_storage_of(m, r)];
        root->last = live[r].last > root->last ? live[r].last : root->last;
        if (live[r].last >= d.positions)
            d.positions = live[r].last + 1;
    }
    for (fg_reg r = 1; r < m->nreg; r++) {
        fg_memkind kind = fg_ri(m, r)->mem;
        if (live[r].first < 0 || kind == FG_MEM_NONE || kind == FG_MEM_ALIAS)
            continue;
        int64_t bytes = fg_reg_bytes(m, r, sym);
        if (kind == FG_MEM_CONST) {
            d.constants++;
            d.constant_bytes += bytes;
        } else
            FG_PUSH(a, d.row, d.n, d.cap) = (dump_buffer){r, bytes, whole[r]};
    }
    find_peak(&d, m, a);
    return d;
}

static void
put_row(fg_text *o, fg_module *m, fg_reg r, fg_liverange live, int64_t bytes)
{
    fg_text type = fg_text_new(o->a);

    fg_put_type(&type, m->ex, fg_rt(m, r));
    fg_putf(o, "%-24s %-26s %12" PRId64 " %5d..%-5d %%%s\n", dump_storage(m, o->a, r),
            type.s, bytes, live.first, live.last, fg_ri(m, r)->name);
}

void
dump_plan_register(fg_text *o, fg_module *m, fg_reg r)
{
    put_row(o, m, r, fg_liveness(m, o->a)[r],
            fg_reg_bytes(m, r, fg_nominal_symbols(m, o->a)));
}

void
dump_plan(fg_text *o, fg_module *m, const fg_report *r)
{
    fg_liverange *live = fg_liveness(m, o->a);
    const int64_t *sym = fg_nominal_symbols(m, o->a);
    dump_memory d = dump_memory_of(m, o->a);

    fg_puts(o, "sizes at");
    for (fg_sym s = 0; s < fg_sym_count(m->ex); s++)
        if (fg_sym_info(m->ex, s)->is == FG_E_BAD)
            fg_putf(o, " %s=%" PRId64, fg_sym_info(m->ex, s)->name, sym[s]);
    fg_putf(o, "\n%-24s %-26s %12s %12s %s\n", "storage", "type", "bytes", "lives",
            "register");
    for (fg_reg k = 1; k < m->nreg; k++)
        if (live[k].first >= 0 && fg_ri(m, k)->mem != FG_MEM_NONE &&
            fg_ri(m, k)->mem != FG_MEM_CONST)
            put_row(o, m, k, live[k], fg_reg_bytes(m, k, sym));
    fg_putf(o, "constants: %d of %" PRId64 " bytes\n", d.constants, d.constant_bytes);
    fg_putf(o, "buffers: %d registers share %d, %.1f %% fewer\n", r->buffers_virtual,
            r->buffers_physical,
            r->buffers_virtual
                ? 100.0 * (1.0 - (double)r->buffers_physical / r->buffers_virtual)
                : 0);
    fg_putf(o,
            "bytes: %" PRId64 " planned, %" PRId64 " without sharing, at least %" PRId64
            " needed\n",
            r->bytes_planned, r->bytes_naive, r->bytes_lower_bound);
    fg_putf(o, "peak: %" PRId64 " bytes live at position %d\n", d.peak, d.peak_at);
}
