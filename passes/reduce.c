/* reduce.c - the smallest part of a module that still shows a fault.
 *
 *     func @main(%x: f32[4]) -> f32[4], f32[4] {       func @main(%b: f32[4]) -> f32[4] {
 *       %a = exp %x : f32[4]                              %c = neg %b : f32[4]
 *       %b = add %a, %x : f32[4]                  =>      ret %c
 *       %c = neg %b : f32[4]                            }
 *       ret %a, %c
 *     }
 *
 * Outputs are dropped, and instructions replaced by inputs of the same name and type; what
 * nobody reads any more goes with them. Each such step is kept if the fault still shows. One
 * that makes the module invalid does not show it, so no step needs to be right.
 */
#include "passes/reduce.h"

#include "passes/pass.h"

enum { TRIES = 600 };

typedef struct reducer {
    fg_module *like;
    fg_arena *a;
    const char *text;
    fg_fault_fn *shows;
    void *user;
    const char *focus; /* interned, or NULL */
    int tries;
} reducer;

typedef bool edit_fn(reducer *r, fg_module *m, int k); /* false: there is no k-th */

/* ---- edits ------------------------------------------------------------------------- */

static bool
drop_output(reducer *r, fg_module *m, int k)
{
    (void)r;
    fg_inst *ret = m->body->last;
    if (k >= ret->nin || ret->nin == 1)
        return false;
    memmove(ret->in + k, ret->in + k + 1, sizeof *ret->in * (size_t)(ret->nin - k - 1));
    memmove(m->output + k, m->output + k + 1,
            sizeof *m->output * (size_t)(m->noutput - k - 1));
    m->noutput = --ret->nin;
    return true;
}

static bool
drop_input(reducer *r, fg_module *m, int k)
{
    (void)r;
    fg_block *b = m->body;
    if (k >= b->nparam)
        return false;
    memmove(b->param + k, b->param + k + 1,
            sizeof *b->param * (size_t)(b->nparam - k - 1));
    memmove(m->input + k, m->input + k + 1,
            sizeof *m->input * (size_t)(m->ninput - k - 1));
    m->ninput = --b->nparam;
    return true;
}

static void
become_input(fg_module *m, fg_reg r)
{
    fg_block *b = m->body;
    fg_reg *param = FG_NEWN(m->a, fg_reg, (size_t)b->nparam + 1);
    fg_port *input = FG_NEWN(m->a, fg_port, (size_t)m->ninput + 1);
    if (b->nparam) {
        memcpy(param, b->param, sizeof *param * (size_t)b->nparam);
        memcpy(input, m->input, sizeof *input * (size_t)m->ninput);
    }
    param[b->nparam++] = r;
    input[m->ninput++] = (fg_port){fg_ri(m, r)->name, r, -1};
    b->param = param;
    m->input = input;
    fg_ri(m, r)->def = NULL;
}

/* Counted from the end, so that what feeds only the k-th goes with it. */
static bool
cut_instruction(reducer *r, fg_module *m, int k)
{
    (void)r;
    fg_inst *i = m->body->last;
    for (i = i->prev; i && k; k--)
        i = i->prev;
    if (!i)
        return false;
    for (int o = 0; o < i->nout; o++)
        become_input(m, i->out[o]);
    fg_inst_remove(i);
    return true;
}

/* The focus becomes the only output; what is more than k instructions away from it, input. */
static bool
keep_focus(reducer *r, fg_module *m, int k)
{
    uint32_t n = m->nreg;
    fg_reg focus = 0;
    for (fg_reg x = 1; x < n; x++)
        if (fg_ri(m, x)->name == r->focus && fg_ri(m, x)->block == m->body)
            focus = x;
    if (!focus || k > 16)
        return false;
    int *near = FG_NEWN(m->a, int, n); /* 1 + how many steps are left */
    fg_inst *ret = m->body->last;
    ret->in[0] = focus;
    ret->nin = m->noutput = 1;
    m->output[0] = (fg_port){fg_ri(m, focus)->name, focus, -1};
    near[focus] = k + 1;
    fg_each_inst_back(m->body, i) {
        int left = 0;
        for (int o = 0; o < i->nout; o++)
            left = near[i->out[o]] > left ? near[i->out[o]] : left;
        for (int j = 0; left > 1 && j < i->nin; j++)
            if (near[i->in[j]] < left - 1)
                near[i->in[j]] = left - 1;
        if (left == 1 && i != ret && i->op != FG_OP_const && i->out[0] != focus) {
            for (int o = 0; o < i->nout; o++)
                become_input(m, i->out[o]);
            fg_inst_remove(i);
        }
    }
    return true;
}

/* ---- steps ------------------------------------------------------------------------- */

static void
drop_unread(fg_module *m, fg_arena *scratch)
{
    fg_report report = {.a = scratch};
    fg_passctx cx = {.scratch = scratch, .report = &report};
    fg_pass_dce(m, &cx);
}

typedef struct trial {
    reducer *r;
    edit_fn *edit;
    int k;
    fg_arena *a;
    const char *text; /* what the edit makes; NULL when there was nothing to edit */
    bool shows;
} trial;

static void
perform(void *arg)
{
    trial *t = arg;
    reducer *r = t->r;
    fg_module *m = fg_parse_again(r->like, t->a, "reduced", r->text);
    if (!m || !t->edit(r, m, t->k))
        return;
    drop_unread(m, t->a);
    fg_text o = fg_text_new(r->a);
    fg_print(&o, m);
    t->text = o.s;
    m = fg_parse_again(r->like, t->a, "reduced", o.s);
    t->shows = m && fg_verify(m) && r->shows(r->user, m);
}

/* Tries one edit; 1 kept, 0 not, -1 there is no such. */
static int
attempt(reducer *r, edit_fn *edit, int k)
{
    fg_ctx *cx = r->like->cx;
    fg_diagmark mark = fg_diag_mark(cx);
    trial t = {r, edit, k, fg_arena_new(cx), NULL, false};
    fg_raise raise = fg_protect(cx, perform, &t);
    fg_arena_free(t.a);
    fg_diag_forget(cx, mark);
    r->tries++;
    if (!t.text)
        return raise == FG_RAISE_NONE ? -1 : 0;
    if (raise != FG_RAISE_NONE || !t.shows || !strcmp(t.text, r->text))
        return 0;
    r->text = t.text;
    return 1;
}

const char *
fg_reduce(fg_module *like, fg_arena *a, const char *text, const char *focus,
          fg_fault_fn *shows, void *user)
{
    edit_fn *const edits[] = {drop_output, cut_instruction, drop_input};
    reducer r = {like, a, text, shows, user, focus ? fg_intern(like->cx, focus) : NULL,
                 0};
    for (int k = 1; focus && k <= 16; k *= 2)
        if (attempt(&r, keep_focus, k) == 1)
            break;
    for (bool any = true; any;) {
        any = false;
        for (size_t e = 0; e < sizeof edits / sizeof *edits; e++)
            for (int k = 0, did;
                 r.tries < TRIES && (did = attempt(&r, edits[e], k)) >= 0;) {
                any |= did == 1;
                k += did == 0;
            }
        any &= r.tries < TRIES;
    }
    return r.text;
}
