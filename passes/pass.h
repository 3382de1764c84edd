/* pass.h - what a pass is, and the manager that runs lists of them.
 *
 * A pass is one file, one function fg_pass_<name>, one row in passes.def. It returns
 * FG_CHANGED, FG_SAME or FG_FAILED (diagnostic recorded). Around each the manager opens a scratch
 * arena, measures, keeps the ledger, verifies (check >= 1), tests honesty (check >= 2:
 * "same" means equal text; print -> parse -> print is the identity), and dumps if asked.
 */
#ifndef FG_PASSES_PASS_H
#define FG_PASSES_PASS_H

/* clang-format off: members and their comments stand in columns */

#include "ir/ir.h"

typedef enum { FG_FAILED, FG_SAME, FG_CHANGED } fg_progress;

typedef struct fg_miss { /* why something did not fuse */
    struct fg_miss *next;
    const char *pass, *node, *reason;
} fg_miss;

typedef struct fg_count {
    struct fg_count *next;
    const char *rule;
    int count;
} fg_count;

typedef struct fg_ledger_row {
    const char *pass;
    int round;
    double ms;
    int nodes_before, nodes_after;
    bool changed;
    long rss_delta_kb;
} fg_ledger_row;

/* What the whole compilation learned; becomes the JSON report. Lives in the module's arena. */
typedef struct fg_report {
    fg_arena *a;
    fg_ledger_row *row;
    int nrow;
    size_t caprow;
    int attention_candidates, attention_fused;
    fg_miss *missed;
    fg_count *fusions;
    int nodes_imported, nodes_optimized, instructions;
    int buffers_virtual, buffers_physical;
    int64_t bytes_naive, bytes_planned, bytes_lower_bound;
    double fgr, cost_alpha0, cost_alpha1;
    struct {
        const char *name;
        double ms;
    } phase[16];
    int nphase;
} fg_report;
void fg_report_fusion(fg_report *r, const char *rule); /* counts one */
void fg_report_miss(fg_report *r, const char *pass, const char *node, const char *reason);

typedef struct fg_passctx {
    fg_arena *scratch; /* freed after the pass */
    fg_report *report;
    double alpha; /* 0..1: aggressiveness of attention fusion */
    int opt;      /* -O level */
} fg_passctx;

typedef fg_progress fg_passfn(fg_module *m, fg_passctx *cx);

#define PASS(name, ...) fg_passfn fg_pass_##name;
#include "passes/passes.def"

typedef struct fg_passinfo {
    const char *name, *meaning;
    fg_passfn *run;
    fg_stage from, to; /* stage it needs, stage it leaves */
} fg_passinfo;
extern const fg_passinfo fg_passes[];
extern const int fg_npasses;
const fg_passinfo *fg_pass_by_name(const char *s, size_t n);

typedef struct fg_pipeline {
    const char *passes; /* "dce,cse,fold": in order; NULL: the list of the opt level */
    const char *skip;   /* comma list of names never run; NULL: none */
    int opt, check;     /* check: 0 none, 1 verify, 2 also honesty */
    int rounds; /* the list's TENSOR part runs to a fixpoint, at most this often; 0: 2 */
    double alpha;
    bool tensor_only; /* stop before the first pass that leaves stage TENSOR */
    /* Called after a pass when set; text of the module is the callee's to make. */
    void (*observe)(void *user, const fg_passinfo *p, int round, bool before,
                    bool changed, fg_module *m);
    void *user;
} fg_pipeline;
bool fg_run_passes(fg_module *m, const fg_pipeline *p, fg_report *r);

/* clang-format on */
#endif
