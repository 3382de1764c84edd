/* core.c - expressions, number formats, strings and arenas. Prints `N passed, N failed`. */
#include "ir/ir.h"
#include "tests/unit/expect.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void
expect_text(const char *got, const char *want, const char *what)
{
    bool ok = strcmp(got, want) == 0;
    holds(ok, what);
    if (!ok)
        printf("     got %s, want %s\n", got, want);
}

static const char *
show(fg_arena *a, fg_exprs *t, fg_expr e)
{
    fg_text o = fg_text_new(a);
    fg_put_expr(&o, t, e);
    return o.s;
}

static fg_expr
read(fg_exprs *t, const char *s)
{
    fg_expr e = fg_parse_expr(t, &s, true);
    return *s ? FG_E_BAD : e;
}

static void
test_canonical(fg_arena *a)
{
    static const char *const equal[][2] = {
        {"S + 2*P - S + 3", "2*P+3"},
        {"(4*S+8)/4", "S+2"},
        {"(B*S*768)/(B*768)", "S"},
        {"min(S,S+3)", "S"},
        {"max(S,4)-max(4,S)", "0"},
        {"eq(S,-1)", "0"},
        {"eq(S+1,1+S)", "1"},
        {"lt(S,S+1)", "1"},
        {"(3*S+5)%3", "2"},
        {"(P+S)*B/(S+P)", "B"},
        {"P*64*S/(64*S)", "P"},
        {"---3", "-3"},
        {"floor(7/2)", "3"},
        {"(0-7)/2", "-4"},
        {"(0-7)%2", "1"},
        {"(6*S+5)/3", "2*S+1"},
        {"max(min(S,P),S)", "S"},
        {"eq(S,P)*eq(P,S)-eq(S,P)", "0"},
        {"9223372036854775807+1", "?"},
        {"4611686018427387904*S*4", "?"},
        {"S//2*2 - 2*(S/2)", "0"},
        {"Max(1, S+1)", "S+1"},
        {"((S-10)/5+1-3)/2", "((S)/(10))-2"},
        {"(S/5+P/3)/2", "((((S)/(5))+((P)/(3)))/(2))"},
        {"(S/3+B)/4", "((S+3*B)/(12))"},
    };
    for (size_t i = 0; i < sizeof equal / sizeof *equal; i++) {
        fg_exprs *t = fg_exprs_new(a);
        expect_text(show(a, t, read(t, equal[i][0])), equal[i][1], equal[i][0]);
    }
}

/* Printing reads back to the same id, and both have the same value. */
static void
test_round_trip(fg_arena *a)
{
    static const char *const texts[] = {
        "S",
        "B*S-3*P+7",
        "((S+1)/(2))",
        "3*((S+P)/(4))*B",
        "((S)%(3))+1",
        "min(S,P)*max(B,2)",
        "eq(S,P)+lt(B,S)",
        "'odd name'+1",
        "'min'*2",
        "'a\\x27b'",
        "-S",
        "S*S*S",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        fg_exprs *t = fg_exprs_new(a);
        fg_expr e = read(t, texts[i]);
        holds(e != FG_E_BAD && read(t, show(a, t, e)) == e, texts[i]);
    }
    fg_exprs *t = fg_exprs_new(a);
    static const char *const bad[] = {
        "", "S+", "min(S)", "(S", "S S", "99999999999999999999", "'open", "f(3)"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        holds(read(t, bad[i]) == FG_E_BAD, bad[i]);
    char deep[4001];
    memset(deep, '(', sizeof deep - 1);
    deep[4000] = 0;
    holds(read(t, deep) == FG_E_BAD, "nesting is bounded");
}

/* Random expressions: canonical form and direct evaluation agree. */
static void
test_values(fg_arena *a)
{
    fg_exprs *t = fg_exprs_new(a);
    fg_expr pool[64];
    int64_t sym[3] = {5, 3, 17}, value[64];
    int n = 0;
    for (int s = 0; s < 3; s++, n++) {
        pool[n] = fg_es(t, fg_sym_new(t, NULL, FG_SYM_INPUT, 0, 100));
        value[n] = sym[s];
    }
    for (; n < 6; n++)
        pool[n] = fg_ec(t, value[n] = n - 2);
    srand(1);
    for (int round = 0; round < 20000; round++) {
        int x = rand() % n, y = rand() % n, op = rand() % 8;
        int64_t p = value[x], q = value[y], v;
        fg_expr e;
        if ((op == 3 || op == 4) && q <= 0)
            continue;
        int64_t fl = q > 0 ? p / q - (p % q < 0) : 0;
        switch (op) {
        case 0:
            e = fg_eadd(t, pool[x], pool[y]);
            v = p + q;
            break;
        case 1:
            e = fg_esub(t, pool[x], pool[y]);
            v = p - q;
            break;
        case 2:
            e = fg_emul(t, pool[x], pool[y]);
            v = p * q;
            break;
        case 3:
            e = fg_ediv(t, pool[x], pool[y]);
            v = fl;
            break;
        case 4:
            e = fg_emod(t, pool[x], pool[y]);
            v = p - fl * q;
            break;
        case 5:
            e = fg_emin(t, pool[x], pool[y]);
            v = p < q ? p : q;
            break;
        case 6:
            e = fg_eeq(t, pool[x], pool[y]);
            v = p == q;
            break;
        default:
            e = fg_elt(t, pool[x], pool[y]);
            v = p < q;
            break;
        }
        int64_t got = 0;
        if (e == FG_E_BAD || v > 1000000 || v < -1000000)
            continue;
        bool ok = fg_e_eval(t, e, sym, &got) && got == v && fg_e_lo(t, e) <= v &&
                  v <= fg_e_hi(t, e);
        if (!ok)
            printf("     %s is %lld, not %lld\n", show(a, t, e), (long long)got,
                   (long long)v);
        holds(ok, "value and bounds");
        int slot = n < 64 ? n++ : 6 + rand() % 58;
        pool[slot] = e;
        value[slot] = v;
    }
}

static void
test_unify(fg_arena *a)
{
    fg_exprs *t = fg_exprs_new(a);
    bool changed;
    fg_expr total = read(t, "T"), sum = read(t, "P+S");
    holds(fg_e_unify(t, sum, total, &changed) && changed, "P+S = T can be solved");
    expect_text(show(a, t, fg_e_renew(t, total)), "P+S", "the sum stays, T goes");
    holds(fg_e_unify(t, total, sum, &changed) && !changed, "again: nothing to do");
    holds(fg_e_unify(t, read(t, "A"), read(t, "B+1"), &changed) && changed, "A = B+1");
    expect_text(show(a, t, fg_e_renew(t, read(t, "A"))), "B+1", "the sum stays: A goes");
    holds(!fg_e_unify(t, read(t, "S"), read(t, "S+1"), &changed), "S = S+1 is refused");
    holds(!fg_e_unify(t, read(t, "3"), read(t, "4"), &changed), "3 = 4 is refused");
    holds(!fg_e_unify(t, read(t, "S"), read(t, "-2"), &changed),
          "a dimension is not negative");
    holds(fg_e_unify(t, read(t, "X"), read(t, "8"), &changed) && changed &&
              fg_e_is(t, fg_e_renew(t, read(t, "X*2")), 16),
          "a symbol can become a number");
    fg_sym run = fg_sym_new(t, "u", FG_SYM_RUN, 0, 9);
    holds(fg_e_unify(t, fg_es(t, run), read(t, "Y"), &changed) && changed &&
              fg_e_renew(t, fg_es(t, run)) == read(t, "Y"),
          "the run-time symbol gives way");
}

static void
test_numbers(fg_arena *a)
{
    int bad = 0;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = fg_f16_to_f32((uint16_t)h), b = fg_bf16_to_f32((uint16_t)h);
        bad += !isnan(f) && fg_f32_to_f16(f) != h;
        bad += !isnan(b) && fg_f32_to_bf16(b) != h;
        bad += isnan(f) && !isnan(fg_f16_to_f32(fg_f32_to_f16(f)));
    }
    holds(bad == 0, "16-bit floats survive the round trip");
    holds(fg_f32_to_f16(65519.0f) == 0x7bff && fg_f32_to_f16(65520.0f) == 0x7c00,
          "f16 overflow");
    holds(fg_f32_to_f16(ldexpf(1, -25)) == 0 && fg_f32_to_f16(ldexpf(1.5f, -25)) == 1,
          "f16 underflow, ties to even");
    holds(fg_f32_to_bf16(1.00390625f) == 0x3f80 && fg_f32_to_bf16(1.01171875f) == 0x3f82,
          "bf16 ties to even");
    static const double values[] = {
        0.1, 1e30, -0.0, 3, 1.0 / 3, 5e-324, 1.7976931348623157e308};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        fg_text o = fg_text_new(a);
        fg_put_double(&o, values[i], false);
        double back = strtod(o.s, NULL);
        holds(memcmp(&back, &values[i], sizeof back) == 0 && strpbrk(o.s, ".en"), o.s);
    }
    size_t n;
    holds(fg_dtype_bytes(FG_u4, 3, &n) && n == 2, "packed types round up");
    holds(!fg_dtype_bytes(FG_f32, INT64_MAX, &n) && !fg_dtype_bytes(FG_u8, -1, &n),
          "impossible sizes");
}

static void
test_strings(fg_ctx *cx, fg_arena *a)
{
    holds(fg_intern(cx, "abc") == fg_intern_n(cx, "abcd", 3), "interned");
    expect_text(fg_printable(a, "a\x1b[31m\xff\xe2\x80\xae", 10, 99),
                "a\\x1b[31m\\xff\\xe2\\x80\\xae", "escapes");
    expect_text(fg_printable(a, "gr\xc3\xbc\xc3\x9f", 6, 99), "gr\xc3\xbc\xc3\x9f",
                "UTF-8 stays");
    holds(strlen(fg_printable(a, "xxxxxxxxxxxxxxxxxxxxxxxxxxxx", 28, 10)) <= 13,
          "shortened");
    for (int i = 0; i < 5000; i++)
        fg_intern(cx, fg_format(a, "name%d", i));
    holds(fg_intern(cx, "name77") == fg_intern(cx, "name77"), "the table grows");
}

/* Fails after `left` allocations. */
static void *
scarce(void *user, size_t n)
{
    int *left = user;
    return (*left)-- > 0 ? malloc(n) : NULL;
}

static void
scarce_free(void *user, void *p)
{
    (void)user;
    free(p);
}

static void
use_memory(void *arg)
{
    fg_ctx *cx = arg;
    for (int i = 0; i < 100000; i++)
        fg_intern(cx, fg_format(cx->arena, "some longer text to fill chunks with %d", i));
}

static void
test_memory(void)
{
    for (int n = 0; n < 12; n++) {
        int left = n;
        fg_allocator al = {scarce, scarce_free, &left};
        fg_ctx *cx = fg_ctx_new(&al);
        if (cx)
            holds(fg_protect(cx, use_memory, cx) == FG_RAISE_MEMORY,
                  "running out is a status");
        fg_ctx_free(cx);
    }
}

/* Large data lie side by side on lines of the cache, apart from everything small. */
static void
test_large(fg_ctx *cx)
{
    enum { N = 12, BYTES = 700001 };
    fg_arena *a = fg_arena_new(cx);
    char *p[N], *few = NULL;
    int beside = 0;
    for (int k = 0; k < N; k++) {
        p[k] = fg_alloc_large(a, BYTES);
        memset(p[k], k + 1, BYTES);
        beside += k && p[k] - p[k - 1] > 0 && p[k] - p[k - 1] < BYTES + 256;
        few = fg_alloc(a, 100);
        holds((uintptr_t)p[k] % 64 == 0 && !few[0] && !few[99], "lines, and zeros");
        memset(few, 77, 100);
    }
    for (int k = 0; k < N; k++)
        holds(p[k][0] == k + 1 && p[k][BYTES - 1] == k + 1, "nobody else's");
    holds(beside >= N - 3, "side by side");
    holds(fg_arena_bytes(a) < 4 * (size_t)N * BYTES, "no more than is soon filled");
    fg_arena_free(a);
}

/* Tensors that all look alike where the sample is taken, as in a zero-filled file: finding that they
 * differ must not compare each with each (that would be 500 GB here). */
static void
test_weights(fg_ctx *cx, fg_arena *a)
{
    enum { N = 4000, BYTES = 1 << 16 };
    fg_module *m = fg_module_new(cx, a, "");
    char *data = fg_alloc(a, N + BYTES + 1);
    data[BYTES - 1] = 1;
    fg_weight w = {.dtype = FG_u8, .rank = 1, .dim = {BYTES}, .bytes = BYTES};
    clock_t start = clock();
    for (int k = 0; k < N + 10; k++) {
        w.data = k < N ? data + k : fg_dup(a, data + (k - N), BYTES);
        holds(fg_weight_add(m, &w) == k % N, "weights are equal when their bytes are");
    }
    holds(m->nweight == N && m->initializers.tied == 10 && m->weight[3].uses == 2,
          "each once");
    holds(clock() - start < 20 * CLOCKS_PER_SEC, "in time that grows with their bytes");
}

int
main(void)
{
    fg_ctx *cx = fg_ctx_new(NULL);
    fg_arena *a = fg_arena_new(cx);
    test_canonical(a);
    test_round_trip(a);
    test_values(a);
    test_unify(a);
    test_numbers(a);
    test_strings(cx, a);
    test_memory();
    test_large(cx);
    test_weights(cx, a);
    fg_arena_free(a);
    fg_ctx_free(cx);
    return verdict();
}
