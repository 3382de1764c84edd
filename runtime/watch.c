/* watch.c - what the host is told of each kernel that ran. */
#include "runtime/rt.h"

static double
number(const forge_run *r, uint32_t value)
{
    return value == FG_NONE || r->value[value] < 0 ? -1 : (double)r->value[value];
}

static void
on_step(void *user, uint32_t step, int64_t ns)
{
    forge_run *r = user;
    const fg_step *s = &r->p->step[step];
    const fg_blockdef *once = &r->p->block[r->p->once];
    int64_t end = fg_now_ns();
    bool shared = r->pool && !fg_step_small(r, s);

    if (s->kind != FG_STEP_KERNEL)
        return;
    const forge_kernel k = {
        .size = sizeof k,
        .name = s->name,
        .nodes = s->nodes,
        .begin = end - ns,
        .end = end,
        .flops = number(r, s->flops),
        .bytes = number(r, s->bytes),
        .chunks = r->value[fg_form_of(r, s)->chunks],
        .threads = shared ? r->threads : 1,
        .once = r->p->once && step - once->first < once->count,
    };
    r->watch(r->watch_user, &k);
}

forge_status
forge_run_watch(forge_run *r, forge_watch *watch, void *user)
{
    r->watch = watch;
    r->watch_user = user;
    r->hook = watch ? on_step : NULL;
    r->hook_user = r;
    return FORGE_OK;
}
