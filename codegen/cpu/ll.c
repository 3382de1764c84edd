/* ll.c - module, function, constants and arithmetic of the LLVM layer. */
#include "codegen/cpu/ll.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- module and function -------------------------------------------------------- */

fg_ll *
ll_new(const fg_machine *t, const char *name)
{
    fg_ll *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->t = t;
    g->cx = LLVMContextCreate();
    LLVMContextSetDiscardValueNames(g->cx, 1);
    g->m = LLVMModuleCreateWithNameInContext(name, g->cx);
    g->b = LLVMCreateBuilderInContext(g->cx);
    LLVMSetTarget(g->m, t->triple);
    g->i1 = LLVMInt1TypeInContext(g->cx);
    g->i8 = LLVMInt8TypeInContext(g->cx);
    g->i16 = LLVMInt16TypeInContext(g->cx);
    g->i32 = LLVMInt32TypeInContext(g->cx);
    g->i64 = LLVMInt64TypeInContext(g->cx);
    g->f16 = LLVMHalfTypeInContext(g->cx);
    g->bf16 = LLVMBFloatTypeInContext(g->cx);
    g->f32 = LLVMFloatTypeInContext(g->cx);
    g->f64 = LLVMDoubleTypeInContext(g->cx);
    g->ptr = LLVMPointerTypeInContext(g->cx, 0);
    g->none = LLVMVoidTypeInContext(g->cx);
    g->W = t->W;
    return g;
}

void
ll_free(fg_ll *g)
{
    if (!g)
        return;
    LLVMDisposeBuilder(g->b);
    LLVMDisposeModule(g->m);
    LLVMContextDispose(g->cx);
    free(g);
}

static void
set_attribute(fg_ll *g, fg_v fn, const char *key, const char *value)
{
    LLVMAddAttributeAtIndex(fn, LLVMAttributeFunctionIndex,
                            LLVMCreateStringAttribute(g->cx, key, (unsigned)strlen(key),
                                                      value, (unsigned)strlen(value)));
}

fg_v
ll_function(fg_ll *g, const char *name, fg_t ret, int n, const fg_t *param, bool internal)
{
    fg_v f =
        LLVMAddFunction(g->m, name, LLVMFunctionType(ret, (fg_t *)param, (unsigned)n, 0));
    set_attribute(g, f, "target-cpu", g->t->base);
    if (g->t->tune)
        set_attribute(g, f, "tune-cpu", g->t->tune);
    if (*g->t->features)
        set_attribute(g, f, "target-features", g->t->features);
    /* Explicit 512-bit vectors must stay whole whatever the CPU's tuning prefers. */
    const char *bits = g->W == 16 ? "512" : g->W == 8 ? "256" : "128";
    set_attribute(g, f, "prefer-vector-width", bits);
    set_attribute(g, f, "min-legal-vector-width", bits);
    unsigned kind = LLVMGetEnumAttributeKindForName("nounwind", 8);
    LLVMAddAttributeAtIndex(f, LLVMAttributeFunctionIndex,
                            LLVMCreateEnumAttribute(g->cx, kind, 0));
    /* How to leave it, for debuggers: tables that nothing reads while it runs. */
    kind = LLVMGetEnumAttributeKindForName("uwtable", 7);
    LLVMAddAttributeAtIndex(f, LLVMAttributeFunctionIndex,
                            LLVMCreateEnumAttribute(g->cx, kind, 2));
    if (internal && g->peer)
        LLVMSetVisibility(f, LLVMHiddenVisibility);
    else if (internal)
        LLVMSetLinkage(f, LLVMInternalLinkage);
    g->fn = f;
    g->entry = ll_block(g);
    fg_bb work = ll_block(g);
    ll_stand(g, g->entry);
    LLVMBuildBr(g->b, work);
    ll_stand(g, work);
    return f;
}

fg_v
ll_known_function(fg_ll *g, const char *name, fg_t ret, int n, const fg_t *param)
{
    fg_v f = LLVMGetNamedFunction(g->m, name);
    if (f || !g->peer)
        return f;
    f = LLVMGetNamedFunction(g->peer->m, name);
    if (!f || LLVMIsDeclaration(f))
        return NULL;
    f = LLVMAddFunction(g->m, name, LLVMFunctionType(ret, (fg_t *)param, (unsigned)n, 0));
    LLVMSetVisibility(f, LLVMHiddenVisibility);
    return f;
}

static bool
is_dead(fg_v i)
{
    LLVMOpcode op = LLVMGetInstructionOpcode(i);
    return !LLVMGetFirstUse(i) && !LLVMIsATerminatorInst(i) && op != LLVMStore &&
           op != LLVMCall && op != LLVMFence;
}

/* Users come after what they use, but for loops' phis: one walk from the end. */
void
ll_sweep(fg_ll *g)
{
    fg_v f = g->swept ? LLVMGetNextFunction(g->swept) : LLVMGetFirstFunction(g->m);
    for (; f; g->swept = f, f = LLVMGetNextFunction(f))
        for (fg_bb b = LLVMGetLastBasicBlock(f); b; b = LLVMGetPreviousBasicBlock(b))
            for (fg_v i = LLVMGetLastInstruction(b), before; i; i = before) {
                before = LLVMGetPreviousInstruction(i);
                if (is_dead(i))
                    LLVMInstructionEraseFromParent(i);
                else
                    g->size++;
            }
}

fg_v
ll_param(fg_ll *g, int i)
{
    return LLVMGetParam(g->fn, (unsigned)i);
}

fg_v
ll_call(fg_ll *g, fg_v fn, int n, const fg_v *arg)
{
    return LLVMBuildCall2(g->b, LLVMGlobalGetValueType(fn), fn, (fg_v *)arg, (unsigned)n,
                          "");
}

void
ll_ret(fg_ll *g, fg_v v)
{
    if (v)
        LLVMBuildRet(g->b, v);
    else
        LLVMBuildRetVoid(g->b);
}

ll_place
ll_save(fg_ll *g)
{
    return (ll_place){g->fn, g->entry, ll_here(g)};
}

void
ll_restore(fg_ll *g, ll_place p)
{
    g->fn = p.fn;
    g->entry = p.entry;
    ll_stand(g, p.at);
}

fg_bb
ll_entry(fg_ll *g)
{
    fg_bb at = ll_here(g);
    LLVMPositionBuilderBefore(g->b, LLVMGetBasicBlockTerminator(g->entry));
    return at;
}

void
ll_back(fg_ll *g, fg_bb at)
{
    ll_stand(g, at);
}

fg_v
ll_slot(fg_ll *g, fg_t t, int n)
{
    fg_bb at = ll_entry(g);
    fg_v p = LLVMBuildArrayAlloca(g->b, t, ll_i32(g, n), "");
    LLVMSetAlignment(p, 64);
    ll_back(g, at);
    return p;
}

/* ---- types and constants -------------------------------------------------------- */

fg_t
ll_vec(fg_t elem, int lanes)
{
    return lanes == 1 ? elem : LLVMVectorType(elem, (unsigned)lanes);
}

fg_t
ll_elem(fg_t t)
{
    return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? LLVMGetElementType(t) : t;
}

int
ll_lanes_of(fg_t t)
{
    return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? (int)LLVMGetVectorSize(t) : 1;
}

fg_t
ll_like(fg_v v, fg_t elem)
{
    return ll_vec(elem, ll_lanes(v));
}

bool
ll_isfp(fg_t t)
{
    LLVMTypeKind k = LLVMGetTypeKind(ll_elem(t));
    return k == LLVMFloatTypeKind || k == LLVMDoubleTypeKind || k == LLVMHalfTypeKind ||
           k == LLVMBFloatTypeKind;
}

static fg_v
splat_const(fg_t t, fg_v c)
{
    int n = ll_lanes_of(t);
    if (n == 1)
        return c;
    fg_v v[256];
    for (int i = 0; i < n; i++)
        v[i] = c;
    return LLVMConstVector(v, (unsigned)n);
}

fg_v
ll_ci(fg_t t, int64_t x)
{
    return splat_const(t, LLVMConstInt(ll_elem(t), (unsigned long long)x, 1));
}

fg_v
ll_cf(fg_t t, double x)
{
    return splat_const(t, LLVMConstReal(ll_elem(t), x));
}

fg_v
ll_c(fg_t t, double x)
{
    return ll_isfp(t) ? ll_cf(t, x) : ll_ci(t, (int64_t)x);
}

fg_v
ll_zero(fg_t t)
{
    return LLVMConstNull(t);
}

fg_v
ll_undef(fg_t t)
{
    return LLVMGetPoison(t);
}

bool
ll_const(fg_v v, int64_t *x)
{
    if (!LLVMIsAConstantInt(v))
        return false;
    *x = LLVMConstIntGetSExtValue(v);
    return true;
}

fg_v
ll_iota(fg_t elem, int lanes)
{
    if (lanes == 1)
        return ll_zero(elem);
    fg_v v[256];
    for (int i = 0; i < lanes; i++)
        v[i] = ll_c(elem, i);
    return LLVMConstVector(v, (unsigned)lanes);
}

/* ---- arithmetic ----------------------------------------------------------------- */

static bool
is_const(fg_v v, int64_t x)
{
    int64_t c;
    return ll_const(v, &c) && c == x;
}

static bool
isfp(fg_v v)
{
    return ll_isfp(LLVMTypeOf(v));
}

fg_v
ll_add(fg_ll *g, fg_v a, fg_v b)
{
    if (isfp(a))
        return LLVMBuildFAdd(g->b, a, b, "");
    return is_const(a, 0) ? b : is_const(b, 0) ? a : LLVMBuildAdd(g->b, a, b, "");
}

fg_v
ll_sub(fg_ll *g, fg_v a, fg_v b)
{
    if (isfp(a))
        return LLVMBuildFSub(g->b, a, b, "");
    return is_const(b, 0) ? a : LLVMBuildSub(g->b, a, b, "");
}

fg_v
ll_mul(fg_ll *g, fg_v a, fg_v b)
{
    if (isfp(a))
        return LLVMBuildFMul(g->b, a, b, "");
    if (is_const(a, 1) || is_const(b, 0))
        return b;
    return is_const(b, 1) || is_const(a, 0) ? a : LLVMBuildMul(g->b, a, b, "");
}

fg_v
ll_div(fg_ll *g, fg_v a, fg_v b)
{
    if (isfp(a))
        return LLVMBuildFDiv(g->b, a, b, "");
    return is_const(b, 1) ? a : LLVMBuildSDiv(g->b, a, b, "");
}

fg_v
ll_rem(fg_ll *g, fg_v a, fg_v b)
{
    return is_const(b, 1) ? ll_zero(LLVMTypeOf(a)) : LLVMBuildSRem(g->b, a, b, "");
}

fg_v
ll_udiv(fg_ll *g, fg_v a, fg_v b)
{
    return is_const(b, 1) ? a : LLVMBuildUDiv(g->b, a, b, "");
}

fg_v
ll_urem(fg_ll *g, fg_v a, fg_v b)
{
    return is_const(b, 1) ? ll_zero(LLVMTypeOf(a)) : LLVMBuildURem(g->b, a, b, "");
}

fg_v
ll_neg(fg_ll *g, fg_v a)
{
    return isfp(a) ? LLVMBuildFNeg(g->b, a, "") : LLVMBuildNeg(g->b, a, "");
}

fg_v
ll_fma(fg_ll *g, fg_v a, fg_v b, fg_v c)
{
    if (!g->t->fma || !isfp(a))
        return ll_add(g, ll_mul(g, a, b), c);
    return ll_intrinsic(g, "llvm.fma", 1, (fg_t[]){LLVMTypeOf(a)}, 3, (fg_v[]){a, b, c});
}

fg_v
ll_and(fg_ll *g, fg_v a, fg_v b)
{
    return LLVMBuildAnd(g->b, a, b, "");
}

fg_v
ll_or(fg_ll *g, fg_v a, fg_v b)
{
    return LLVMBuildOr(g->b, a, b, "");
}

fg_v
ll_xor(fg_ll *g, fg_v a, fg_v b)
{
    return LLVMBuildXor(g->b, a, b, "");
}

fg_v
ll_not(fg_ll *g, fg_v a)
{
    return LLVMBuildNot(g->b, a, "");
}

fg_v
ll_shl(fg_ll *g, fg_v a, fg_v b)
{
    return LLVMBuildShl(g->b, a, b, "");
}

fg_v
ll_shr(fg_ll *g, fg_v a, fg_v b)
{
    return LLVMBuildLShr(g->b, a, b, "");
}

fg_v
ll_sar(fg_ll *g, fg_v a, fg_v b)
{
    return LLVMBuildAShr(g->b, a, b, "");
}

fg_v
ll_sel(fg_ll *g, fg_v c, fg_v a, fg_v b)
{
    return a == b ? a : LLVMBuildSelect(g->b, c, a, b, "");
}

fg_v
ll_cmp(fg_ll *g, ll_cond c, fg_v a, fg_v b)
{
    static const LLVMIntPredicate ip[] = {LLVMIntEQ,  LLVMIntNE,  LLVMIntSLT,
                                          LLVMIntSLE, LLVMIntSGT, LLVMIntSGE};
    static const LLVMRealPredicate fp[] = {LLVMRealOEQ, LLVMRealUNE, LLVMRealOLT,
                                           LLVMRealOLE, LLVMRealOGT, LLVMRealOGE};
    return isfp(a) ? LLVMBuildFCmp(g->b, fp[c], a, b, "")
                   : LLVMBuildICmp(g->b, ip[c], a, b, "");
}

fg_v
ll_ucmp(fg_ll *g, ll_cond c, fg_v a, fg_v b)
{
    static const LLVMIntPredicate ip[] = {LLVMIntEQ,  LLVMIntNE,  LLVMIntULT,
                                          LLVMIntULE, LLVMIntUGT, LLVMIntUGE};
    return LLVMBuildICmp(g->b, ip[c], a, b, "");
}

fg_v
ll_isnan(fg_ll *g, fg_v a)
{
    return LLVMBuildFCmp(g->b, LLVMRealUNO, a, a, "");
}

fg_v
ll_min(fg_ll *g, fg_v a, fg_v b)
{
    return ll_sel(g, ll_cmp(g, LL_LT, a, b), a, b);
}

fg_v
ll_max(fg_ll *g, fg_v a, fg_v b)
{
    return ll_sel(g, ll_cmp(g, LL_GT, a, b), a, b);
}

fg_v
ll_umin(fg_ll *g, fg_v a, fg_v b)
{
    return ll_sel(g, ll_ucmp(g, LL_LT, a, b), a, b);
}

fg_v
ll_umax(fg_ll *g, fg_v a, fg_v b)
{
    return ll_sel(g, ll_ucmp(g, LL_GT, a, b), a, b);
}

fg_v
ll_sqrt(fg_ll *g, fg_v a)
{
    return ll_intr1(g, "llvm.sqrt", a);
}

fg_v
ll_abs(fg_ll *g, fg_v a)
{
    return isfp(a)
               ? ll_intr1(g, "llvm.fabs", a)
               : ll_sel(g, ll_cmp(g, LL_LT, a, ll_zero(LLVMTypeOf(a))), ll_neg(g, a), a);
}

fg_v
ll_round(fg_ll *g, fg_v a)
{
    return ll_intr1(g, "llvm.rint", a);
}

fg_v
ll_floor(fg_ll *g, fg_v a)
{
    return ll_intr1(g, "llvm.floor", a);
}

fg_v
ll_ceil(fg_ll *g, fg_v a)
{
    return ll_intr1(g, "llvm.ceil", a);
}

/* ---- conversions ---------------------------------------------------------------- */

fg_v
ll_bits(fg_ll *g, fg_v a, fg_t t)
{
    return LLVMBuildBitCast(g->b, a, t, "");
}

static fg_v
int_resize(fg_ll *g, fg_v a, fg_t elem, bool is_signed)
{
    unsigned from = LLVMGetIntTypeWidth(ll_elem(LLVMTypeOf(a))),
             to = LLVMGetIntTypeWidth(elem);
    fg_t t = ll_like(a, elem);
    if (from == to)
        return a;
    if (from > to)
        return LLVMBuildTrunc(g->b, a, t, "");
    return is_signed ? LLVMBuildSExt(g->b, a, t, "") : LLVMBuildZExt(g->b, a, t, "");
}

fg_v
ll_sext(fg_ll *g, fg_v a, fg_t elem)
{
    return int_resize(g, a, elem, true);
}

fg_v
ll_zext(fg_ll *g, fg_v a, fg_t elem)
{
    return int_resize(g, a, elem, false);
}

fg_v
ll_fcast(fg_ll *g, fg_v a, fg_t elem)
{
    return ll_elem(LLVMTypeOf(a)) == elem
               ? a
               : LLVMBuildFPCast(g->b, a, ll_like(a, elem), "");
}

fg_v
ll_fromint(fg_ll *g, fg_v a, fg_t elem, bool is_signed)
{
    fg_t t = ll_like(a, elem);
    return is_signed ? LLVMBuildSIToFP(g->b, a, t, "") : LLVMBuildUIToFP(g->b, a, t, "");
}

fg_v
ll_toint(fg_ll *g, fg_v a, fg_t elem)
{
    return LLVMBuildFPToSI(g->b, a, ll_like(a, elem), "");
}

fg_v
ll_toint_sat(fg_ll *g, fg_v a, fg_t elem, bool is_signed)
{
    fg_t t[2] = {ll_like(a, elem), LLVMTypeOf(a)};
    return ll_intrinsic(g, is_signed ? "llvm.fptosi.sat" : "llvm.fptoui.sat", 2, t, 1,
                        &a);
}

fg_v
ll_intrinsic(fg_ll *g, const char *name, int ntype, const fg_t *type, int n,
             const fg_v *arg)
{
    fg_t key = ntype ? type[0] : NULL;
    size_t h = (((size_t)name >> 2) ^ ((size_t)key >> 4) * 31) % LL_CACHE;
    if (ntype > 1 || g->cache[h].name != name || g->cache[h].type != key) {
        unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
        g->cache[h].fn =
            LLVMGetIntrinsicDeclaration(g->m, id, (fg_t *)type, (size_t)ntype);
        g->cache[h].fty = LLVMIntrinsicGetType(g->cx, id, (fg_t *)type, (size_t)ntype);
        g->cache[h].name = ntype > 1 ? NULL : name;
        g->cache[h].type = key;
    }
    return LLVMBuildCall2(g->b, g->cache[h].fty, g->cache[h].fn, (fg_v *)arg, (unsigned)n,
                          "");
}

fg_v
ll_intr1(fg_ll *g, const char *name, fg_v a)
{
    return ll_intrinsic(g, name, 1, (fg_t[]){LLVMTypeOf(a)}, 1, &a);
}

fg_v
ll_intr2(fg_ll *g, const char *name, fg_v a, fg_v b)
{
    return ll_intrinsic(g, name, 1, (fg_t[]){LLVMTypeOf(a)}, 2, (fg_v[]){a, b});
}

fg_v
ll_libm(fg_ll *g, const char *name, int n, const fg_v *arg)
{
    fg_t t[2] = {g->f64, g->f64};
    fg_v f = LLVMGetNamedFunction(g->m, name);
    if (!f)
        f = LLVMAddFunction(g->m, name, LLVMFunctionType(g->f64, t, (unsigned)n, 0));
    int lanes = ll_lanes(arg[0]);
    fg_v r = ll_undef(ll_vec(g->f64, lanes));
    for (int l = 0; l < lanes; l++) {
        fg_v a[2];
        for (int i = 0; i < n; i++)
            a[i] = ll_extract(g, arg[i], l);
        r = ll_insert(g, r, ll_call(g, f, n, a), l);
    }
    return r;
}
