/* bench.h - inside forge bench: one measurement, and the decode task. */
#ifndef FG_TOOLS_BENCH_H
#define FG_TOOLS_BENCH_H

#include "runtime/rt.h"
#include "tools/tool.h"

typedef struct bench_decode bench_decode;

typedef struct bench {
    tool_common c;
    tool_inputs in;
    const char *task, *out; /* out: first output as float32 .npy */
    const char *alphas;     /* of the sweep; "": the usual ones; NULL: no sweep */
    int past, iterations, warmup, json, kernels;
    double duration; /* seconds */
    fg_ctx *cx;
    fg_arena *a;
    forge_ctx *fcx;
    forge_model *m;
    forge_run *r;
    bench_decode *decode;
    int threads, code;
    double compile_ms, load_ms, first_ms, cpu_s;
    double *lat; /* ms */
    int nlat;
    long base_kb, compile_peak_kb, run_peak_kb;
    double energy_j; /* of one run; 0: not measured */
    double kept;     /* bytes of weights and caches that a run reads */
    tool_peak peak;
    int64_t *step_ns; /* by step, with --kernels */
    int64_t *step_calls;
} bench;

/* Records TOOL_FAILED and the message; false. */
bool bench_fail(bench *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The steps of a measurement, in order; bench_step as often as wanted, at most
 * b->iterations times. */
bool bench_compile(bench *b);
bool bench_first_run(bench *b);
bool bench_warm_up(bench *b);
bool bench_step(bench *b);
/* From now on the steps of b->r are timed, in step_ns and step_calls, until its hook is NULL. */
void bench_watch(bench *b);
/* Operations, or bytes, of step s with the shapes bound now. */
double bench_step_work(const forge_run *r, const fg_step *s, bool flops);
double bench_percentile(const bench *b, double p); /* of the latencies, ms */
const char *bench_model_name(const bench *b);

/* bench_bound.c: the least time that work can take, by measured peaks. */
typedef struct bench_bound {
    double flops, bytes, math_ms, memory_ms;
    tool_math math;   /* of the flops */
    tool_level level; /* where most of the bytes lie */
} bench_bound;
void bench_measure_peak(bench *b); /* b->peak; the larger of this and what it was */
bench_bound bench_step_bound(const bench *b, const fg_step *s);
bench_bound bench_run_bound(const bench *b);

/* bench_print.c: whether the rates are above what was measured of the machine; telling. */
bool bench_above_peak(const bench *b);
void bench_print_json(const bench *b);
void bench_print_text(const bench *b);

/* Compiles at the alphas of b->alphas, measures them in turn, prints. */
void bench_alpha_sweep(bench *b);

/* Runs the prefill of b->past tokens into a state. */
bool bench_decode_begin(bench *b);
/* Untimed: binds the token of the next step; after 32 tokens starts over. */
bool bench_decode_bind(bench *b);
/* To be called after each step that ran. */
void bench_decode_next(bench *b);
void bench_decode_end(bench *b); /* before the model is freed */

/* The tensor of batch 0 (decode: of its last row only) as float32 .npy. */
bool bench_write_out(bench *b, int output, bool last_row);

#endif
