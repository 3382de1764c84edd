/* measure.h - a compiled program, run and timed kernel by kernel, thread by thread. */
#ifndef FG_TOOLS_MEASURE_H
#define FG_TOOLS_MEASURE_H

#include "codegen/compile.h"
#include "runtime/rt.h"
#include "tools/tool.h"

typedef struct measure_event {
    uint32_t step;      /* FG_NONE: none */
    int thread;         /* 0: the caller */
    int64_t begin, end; /* nanoseconds since the run began */
} measure_event;

typedef struct measure_log { /* fixed size: what does not fit is not kept */
    measure_event *event;
    int n, cap;
} measure_log;

typedef struct measure {
    const char *failure; /* NULL: the program ran */
    const fg_program *program;
    int threads, runs;
    double run_ms;   /* mean */
    double *step_ms; /* [nstep]: mean over the runs, of all times it ran; 0: never */
    double *step_flops, *step_bytes; /* [nstep]: of one time, at the sizes bound */
    const char *inputs;              /* their shapes, as text */
    int64_t run_begin;               /* of the last run, on the monotonic clock */
    measure_log step;                /* of the last run, in the order they ended */
    measure_log once;                /* what the first run made for all others */
    measure_log *share; /* [threads]: parts of kernels that were shared out */
    tool_peak peak;     /* of the machine, with as many threads */
} measure;

/* Runs c's program on `in`; memory from c->a. */
measure measure_run(fg_compiled *c, const tool_inputs *in, int threads,
                    size_t mem_budget);
/* The step of kernel k of c; FG_NONE: it never runs. */
uint32_t measure_step_of(const fg_compiled *c, int k);
/* Names the steps that shares are parts of. */
void measure_assign(measure *x);

#endif
