/* trace.c - a compilation and a run as a trace for chrome://tracing or ui.perfetto.dev.
 *
 * Process 1 is the compiler: thread 1 its phases, thread 2 the passes. Process 2 is the last
 * run that was measured: thread 1 whole steps, from 2 on the parts of kernels that each
 * thread worked on. Process 3 is what the first run made for all others. Times are
 * microseconds; each process begins at 0.
 */
#include "tools/trace.h"

#include <cjson/cJSON.h>
#include <stdlib.h>

enum { COMPILER = 1, RUN, ONCE };

static cJSON *
event(cJSON *list, const char *kind, const char *name, int pid, int tid)
{
    cJSON *o = cJSON_CreateObject();

    cJSON_AddItemToArray(list, o);
    cJSON_AddStringToObject(o, "ph", kind);
    cJSON_AddStringToObject(o, "name", name);
    cJSON_AddNumberToObject(o, "pid", pid);
    cJSON_AddNumberToObject(o, "tid", tid);
    return o;
}

/* A stretch of time; returns its arguments, to be filled. */
static cJSON *
slice(cJSON *list, const char *name, int pid, int tid, double us, double length)
{
    cJSON *o = event(list, "X", name, pid, tid);

    cJSON_AddNumberToObject(o, "ts", us);
    cJSON_AddNumberToObject(o, "dur", length);
    return cJSON_AddObjectToObject(o, "args");
}

static void
label(cJSON *list, const char *what, int pid, int tid, const char *name)
{
    cJSON *args = cJSON_AddObjectToObject(event(list, "M", what, pid, tid), "args");

    cJSON_AddStringToObject(args, "name", name);
}

static void
add_compiler(cJSON *list, const fg_report *r)
{
    label(list, "process_name", COMPILER, 0, "compile");
    label(list, "thread_name", COMPILER, 1, "phases");
    label(list, "thread_name", COMPILER, 2, "passes");
    for (int k = 0; k < r->nphase; k++)
        slice(list, r->phase[k].name, COMPILER, 1, r->phase[k].start_ms * 1e3,
              r->phase[k].ms * 1e3);
    for (int k = 0; k < r->nrow; k++) {
        const fg_ledger_row *row = &r->row[k];
        cJSON *args =
            slice(list, row->pass, COMPILER, 2, row->start_ms * 1e3, row->ms * 1e3);
        cJSON_AddNumberToObject(args, "round", row->round);
        cJSON_AddNumberToObject(args, "nodes before", row->nodes_before);
        cJSON_AddNumberToObject(args, "nodes after", row->nodes_after);
        cJSON_AddBoolToObject(args, "changed", row->changed);
    }
}

static const char *
step_name(const fg_step *s)
{
    static const char *const kinds[] = {[FG_STEP_COPY] = "copy",
                                        [FG_STEP_READSYM] = "readsym",
                                        [FG_STEP_REQUIRE] = "require",
                                        [FG_STEP_IF] = "if",
                                        [FG_STEP_LOOP] = "loop"};
    bool other = s->kind < sizeof kinds / sizeof *kinds && kinds[s->kind];

    return other ? kinds[s->kind] : s->name && *s->name ? s->name : "step";
}

static void
add_events(cJSON *list, const measure *x, const measure_log *log, int pid, int tid)
{
    for (int k = 0; k < log->n; k++) {
        const measure_event *e = &log->event[k];
        if (e->step == FG_NONE)
            continue;
        const fg_step *s = &x->program->step[e->step];
        cJSON *args = slice(list, step_name(s), pid, tid, (double)e->begin * 1e-3,
                            (double)(e->end - e->begin) * 1e-3);
        if (tid > 1)
            continue;
        cJSON_AddStringToObject(args, "nodes", s->nodes);
        cJSON_AddNumberToObject(args, "flops", x->step_flops[e->step]);
        cJSON_AddNumberToObject(args, "bytes", x->step_bytes[e->step]);
    }
}

const char *
trace_json(fg_compiled *c, const measure *x)
{
    cJSON *top = cJSON_CreateObject();
    cJSON *list = cJSON_AddArrayToObject(top, "traceEvents");

    cJSON_AddStringToObject(top, "displayTimeUnit", "ms");
    add_compiler(list, &c->report);
    label(list, "process_name", RUN, 0, "run");
    label(list, "thread_name", RUN, 1, "kernels");
    add_events(list, x, &x->step, RUN, 1);
    for (int t = 0; t < x->threads; t++) {
        label(list, "thread_name", RUN, 2 + t, fg_format(c->a, "thread %d", t));
        add_events(list, x, &x->share[t], RUN, 2 + t);
    }
    if (x->once.n) {
        label(list, "process_name", ONCE, 0, "once, in the first run");
        label(list, "thread_name", ONCE, 1, "kernels");
        add_events(list, x, &x->once, ONCE, 1);
    }
    char *text = cJSON_PrintUnformatted(top);
    const char *kept = text ? fg_strdup(c->a, text) : NULL;
    free(text);
    cJSON_Delete(top);
    if (!kept)
        fg_raise_memory(c->cx);
    return kept;
}
