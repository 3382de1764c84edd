/* differ.c - forge diff's core against passes and code that are spoilt on purpose. */
#include "codegen/differ.h"
#include "runtime/rt.h"
#include "tests/unit/expect.h"

#include <stdio.h>
#include <stdlib.h>

static const char text[] = "sym S in 1..\n"
                           "$0 = f32[8,8] splat 0.125\n"
                           "func @main(%x: f32[S,8]) -> f32[S,8] {\n"
                           "  %w = const {w=$0} : f32[8,8]\n"
                           "  %e = exp %x : f32[S,8]  !\"/exp/Exp\"\n"
                           "  %t = transpose %w {perm=[1,0]} : f32[8,8]\n"
                           "  %p = matmul %e, %t : f32[S,8]  !\"/proj/MatMul\"\n"
                           "  %h = tanh %p : f32[S,8]  !\"/act/Tanh\"\n"
                           "  %q = matmul %h, %w : f32[S,8]  !\"/out/MatMul\"\n"
                           "  %y = add %q, %x : f32[S,8]  !\"/out/Add\"\n"
                           "  ret %y\n"
                           "}\n";

/* A pass that, besides what it does, turns tanh into sin. */
static void
spoil_pass(void *user, const char *pass, fg_module *m)
{
    const char *victim = user;
    if (strcmp(pass, victim))
        return;
    fg_each_inst(m->body, i)
        if (i->op == FG_OP_tanh)
            i->op = FG_OP_sin;
}

/* Code that gets the first element of one register wrong. */
static void
spoil_step(void *user, const char *name, fg_tensor *data)
{
    if (!strcmp(name, user) && data->count)
        fg_tensor_set_f64(data, 0, fg_tensor_f64(data, 0) + 1);
}

typedef struct trial {
    fg_compiled c;
    fg_differ d;
    bool ok;
} trial;

static void
perform(void *arg)
{
    trial *t = arg;
    forge_options o;
    forge_ctx *host;
    forge_run *r = NULL;
    float x[3 * 8];
    const int64_t dims[] = {3, 8};
    for (int k = 0; k < 24; k++)
        x[k] = (float)k * 0.1f - 1;
    forge_options_init(&o);
    o.opt = 1;
    t->c.a = fg_arena_new(t->c.cx);
    t->c.m = fg_parse(t->c.cx, t->c.a, "differ", text, NULL);
    t->d.cx = t->c.cx;
    t->d.a = t->c.a;
    fg_differ_watch(&t->d, &t->c);
    if (!fg_compile_module(&t->c, &o) || forge_open(NULL, &host))
        return;
    forge_model model = {.program = t->c.program};
    fg_model_init(&model, host);
    t->ok = !forge_run_new(host, &model, &r) &&
            !forge_bind_input(r, "x", FORGE_F32, 2, dims, x) &&
            fg_differ_run(&t->d, &t->c, r) && fg_differ_bisect(&t->d, &t->c, &o);
    forge_run_free(r);
    fg_model_done(&model);
    forge_close(host);
}

static trial
run(fg_differ d)
{
    trial t = {.d = d};
    t.d.atol = t.d.rtol = -1;
    t.c.cx = fg_ctx_new(NULL);
    fg_protect(t.c.cx, perform, &t);
    holds(t.ok, *fg_first_error(t.c.cx) ? fg_first_error(t.c.cx) : "runs");
    return t;
}

static bool
has(const char *s, const char *part)
{
    bool is = s && strstr(s, part);
    if (!is)
        printf("differ: \"%s\" is not in: %s\n", part, s ? s : "nothing");
    return is;
}

static void
test_right(void)
{
    trial t = run((fg_differ){0});
    holds(t.d.nrow > 0 && t.d.first_wrong < 0 && !t.d.passes.name && !t.d.test,
          "nothing is wrong when nothing is");
    fg_compiled_free(&t.c);
}

static void
test_pass(char *victim)
{
    trial t = run((fg_differ){.spoil_pass = spoil_pass, .user = victim});
    holds(t.d.passes.name && !strcmp(t.d.passes.name, "y"), "the output is wrong");
    holds(t.d.first_wrong < 0, "the code does what the module says");
    holds(t.d.first_change >= 0 && !strcmp(t.d.change[t.d.first_change].pass, victim),
          "the pass is found");
    holds(has(t.d.instruction, "%h = sin %p"), "the instruction is found");
    holds(has(t.d.instruction, "/act/Tanh"), "and its node");
    holds(has(t.d.test, "; RUN: --pass=") && has(t.d.test, "%h = tanh %p"),
          "the test holds the culprit");
    holds(t.d.test && !strstr(t.d.test, "matmul"), "and nothing else");
    fg_compiled_free(&t.c);
}

static void
test_code(void)
{
    trial t = run((fg_differ){.spoil_step = spoil_step, .user = "y"});
    holds(!t.d.passes.name && t.d.first_change < 0, "no pass is wrong");
    holds(t.d.first_wrong >= 0 && !strcmp(t.d.row[t.d.first_wrong].name, "y"),
          "the register is found");
    holds(t.d.first_wrong >= 0 && has(t.d.row[t.d.first_wrong].nodes, "/out/Add"),
          "and its nodes");
    holds(has(t.d.test, "; IN: f32[3,8]") && has(t.d.test, "; OUT: f32[3,8]") &&
              has(t.d.test, "%y = kernel"),
          "the test holds the kernel, inputs and outputs");
    holds(t.d.test && !strstr(t.d.test, "exp"), "and nothing else");
    fg_compiled_free(&t.c);
}

int
main(void)
{
    test_right();
    test_pass("fold");
    test_pass("layout");
    test_code();
    return verdict();
}
