/* tune.h - inside forge tune: a build, what is changed of it, and the search. */
#ifndef FG_TOOLS_TUNE_H
#define FG_TOOLS_TUNE_H

#include "codegen/knobs.h"
#include "passes/cost.h"
#include "tools/bench.h"

/* Everything that is searched. */
typedef struct tune_choice {
    int knob[FG_NKNOBS];
    int size;    /* of a kernel: fuse_ops{size} */
    int pack;    /* 1: weights are cut into panels */
    int threads; /* of a run */
} tune_choice;

typedef struct tune_build {
    bench b;
    tune_choice choice;
    double cost;       /* under the cost model, us */
    const char *knobs; /* options that make it again */
} tune_build;

/* Two builds run in turn. */
typedef struct tune_duel {
    int pairs, wins;      /* in which the second was faster */
    double first, second; /* medians, ms */
    double gain;          /* share of the first's time that the second saves */
    bool sure;            /* more wins than chance gives once in a hundred times */
} tune_duel;

typedef enum {
    TUNE_TAKEN,
    TUNE_SLOWER,
    TUNE_UNSURE,
    TUNE_COSTLY,
    TUNE_WRONG
} tune_verdict;

typedef struct tune_trial {
    const char *change; /* "rows=5" */
    tune_duel duel;
    tune_verdict verdict;
} tune_trial;

/* What the cost model says of the kernels of the default build, and what they took. */
typedef struct tune_fit {
    int kernels;
    double rank,
        rank_fitted; /* correlation of cost and time: as it is, with rates fitted */
    fg_rates rates;  /* fitted */
    double total,
        headroom[FG_KNOB_REACHES]; /* us; what lies above the machine's bound, by
                                                 what a knob acts on: 0 anything */
} tune_fit;

typedef struct tune {
    bench b; /* as asked for */
    int trials;
    double duration, begin_ms; /* seconds; clock */
    const char *passes;        /* of the default build */
    fg_tensor *want;           /* its outputs */
    int nwant;
    tune_build *start, *best;
    tune_fit fit;
    tune_trial *trial;
    int ntrial;
    size_t captrial;
    double noise;     /* gain of a build over itself */
    tune_duel result; /* of the best over the default */
    double seconds;
} tune;

/* tune_search.c: false with a message. */
bool tune_run(tune *t);
/* tune_model.c: needs step times in b. */
void tune_fit_model(fg_arena *a, bench *b, tune_fit *f);
/* tune_print.c: one line as it comes, and all at the end. */
void tune_print_trial(const tune *t, const tune_trial *x);
void tune_print_text(const tune *t);
void tune_print_json(const tune *t);

#endif
