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
    uint64_t hash;
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
    double start_ms, ms; /* since the compilation began; of the pass alone */
    int nodes_before, nodes_after;
    bool changed;
    long rss_delta_kb;
} fg_ledger_row;

typedef struct fg_phase {
    const char *name;
    double start_ms, ms;
} fg_phase;

/* The rows of spellings.def, FG_SPELL_<list>_<op>_<name>. */
typedef enum {
#define UP(op, step, kind) FG_SPELL_up_##op##_##step,
#define DOWN(op, step, kind) FG_SPELL_down_##op##_##step,
#define RESPELL(op, rule, kind) FG_SPELL_respell_##op##_##rule,
#define IDIOM(op, rule, kind) FG_SPELL_idiom_##op##_##rule,
#define FORM(op, what, kind) FG_SPELL_form_##op##_##what,
#include "passes/spellings.def"
    FG_NSPELLINGS
} fg_spelling;

typedef struct fg_spellinfo {
    const char *list, *op, *name;
    enum { FG_PLAIN, FG_CHECKED } kind;
} fg_spellinfo;
extern const fg_spellinfo fg_spellings[];

typedef struct fg_spelled {
    int taken, refused;
} fg_spelled;

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
    double attention_gain, attention_gain_left; /* us: of what is fused, of what is not */
    double cost, fgr, cost_alpha0, cost_alpha1;
    double begin_ms; /* clock when the compilation began */
    double own_ms;   /* that collecting this took */
    fg_phase phase[16];
    int nphase;
    const char *passes; /* those that ran, as text that runs them again */
    const char *knobs;  /* the whole build, likewise */
    bool explain;       /* also collect reasons that cost time to find */
    fg_spelled spelled[FG_NSPELLINGS];
} fg_report;
fg_report fg_report_new(fg_arena *a);
void fg_report_phase(fg_report *r,
                     const char *name); /* from the last phase's end to now */
void fg_report_fusion(fg_report *r, const char *rule); /* counts one */
/* Counts one; returns took. */
bool fg_report_spelled(fg_report *r, fg_spelling row, bool took);
void fg_report_miss(fg_report *r, const char *pass, const char *node, const char *reason);
/* The same, the reason with the furthest instruction that fitted in front: "add "/mask":
 * the operand .. is larger". node is where the candidate begins. */
void fg_report_miss_at(fg_report *r, const char *pass, const char *node, const char *step,
                       const char *reason);
/* A pass that runs again reports again what it still misses. */
void fg_report_forget_misses(fg_report *r, const char *pass);

/* Parameters of passes, numbered as in passes.def: FG_PARAM_<pass>_<name>. */
typedef enum {
#define PARAM(pass, name, ...) FG_PARAM_##pass##_##name,
#include "passes/passes.def"
    FG_NPARAMS
} fg_paramid;

typedef struct fg_paraminfo {
    const char *pass, *name;
    double lo, hi, dflt;
    const char *meaning;
} fg_paraminfo;
extern const fg_paraminfo fg_params[];

typedef struct fg_passctx {
    fg_arena *scratch; /* freed after the pass */
    fg_report *report;
    const double *param; /* [FG_NPARAMS] */
    int opt;             /* -O level */
} fg_passctx;

typedef fg_progress fg_passfn(fg_module *m, fg_passctx *cx);

#define PASS(name, ...) fg_passfn fg_pass_##name;
#include "passes/passes.def"

typedef struct fg_passinfo {
    const char *name, *meaning;
    fg_passfn *run;
    fg_stage from, to;                /* stage it needs, stage it leaves */
    enum { FG_ONCE, FG_AGAIN } again; /* part of a fixpoint; leaves the stage as it is */
} fg_passinfo;
extern const fg_passinfo fg_passes[];
extern const int fg_npasses;
const fg_passinfo *fg_pass_by_name(const char *s, size_t n);

/* Called before and after a pass; text of the module is the callee's to make. */
typedef void fg_observe(void *user, const fg_passinfo *p, int round, bool before,
                        bool changed, fg_module *m);

typedef struct fg_pipeline {
    /* "dce,cse,fuse_attention{alpha=0.5}": in order; NULL: the list of the opt level */
    const char *passes;
    const char *skip; /* comma list of names never run; NULL: none */
    int opt, check;   /* check: 0 none, 1 verify, 2 also honesty */
    int rounds; /* the list's TENSOR part runs to a fixpoint, at most this often; 0: 2 */
    double alpha;           /* of fuse_attention, where the list does not say */
    int bits, group, round; /* of quantize, likewise; all 0: its defaults */
    bool tensor_only;       /* stop before the first pass that leaves stage TENSOR */
    fg_observe *observe;
    void *user;
} fg_pipeline;
/* False with a diagnostic; for a list that is not one it names the place. */
bool fg_run_passes(fg_module *m, const fg_pipeline *p, fg_report *r);
/* Whether list can be run, and whether it holds names of passes; `what` is its name in
 * the diagnostic. NULL is a list of none. */
bool fg_check_passes(fg_ctx *cx, const char *what, const char *list);
bool fg_check_names(fg_ctx *cx, const char *what, const char *list);

/* clang-format on */
#endif
