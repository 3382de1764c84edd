/* ll.c - machine description, module, function, constants and arithmetic of the LLVM
 * layer. */
#include "codegen/cpu/ll.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <llvm-c/Support.h>
#include <llvm-c/Target.h>
#include <pthread.h>

#include "codegen/cpu/llvm.h"

/* ---- the machine ---------------------------------------------------------------- */

/* Code generator switches and target registration are global to the process and happen
 * once. The switches turn off what costs time and gains nothing on loops built the way
 * these are. */
static void
init_once(void)
{
    static const char *const argv[] = {"forge", "-disable-lsr", "-disable-cgp",
                                       "-enable-misched=false", "-disable-post-ra"};
    LLVMParseCommandLineOptions((int)(sizeof argv / sizeof *argv), argv, "");
}

static void
init_arm(void)
{
    LLVMInitializeAArch64TargetInfo();
    LLVMInitializeAArch64Target();
    LLVMInitializeAArch64TargetMC();
    LLVMInitializeAArch64AsmPrinter();
    LLVMInitializeAArch64AsmParser();
}

static void
init_x86(void)
{
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeX86AsmParser();
}

/* False: this LLVM was built without it. */
static bool
init_target(bool arm)
{
    static pthread_once_t once[2] = {PTHREAD_ONCE_INIT, PTHREAD_ONCE_INIT};

    if (!fg_llvm_has(arm ? "LLVMInitializeAArch64Target" : "LLVMInitializeX86Target"))
        return false;
    pthread_once(&once[arm], arm ? init_arm : init_x86);
    return true;
}

/* What LLVM's C API does not tell about a CPU named by the user, and it must be told no other
 * name: it would complain on standard error. 4: AVX-512 with all vector lengths, 3: AVX2. */
static const struct {
    const char *names;
    int level;
} known_cpus[] = {
    {" x86-64-v4 skylake-avx512 skx cannonlake cascadelake cooperlake icelake-client "
     "icelake-server tigerlake rocketlake sapphirerapids emeraldrapids graniterapids "
     "graniterapids-d znver4 znver5 ",
     4},
    {" x86-64-v3 haswell core-avx2 broadwell skylake alderlake raptorlake meteorlake "
     "arrowlake arrowlake-s lunarlake pantherlake gracemont sierraforest grandridge "
     "clearwaterforest bdver4 znver1 znver2 znver3 ",
     3},
    {" x86-64 x86-64-v2 generic core2 penryn nehalem corei7 westmere sandybridge "
     "corei7-avx ivybridge core-avx-i silvermont goldmont goldmont-plus tremont k8 "
     "amdfam10 btver1 btver2 bdver1 bdver2 bdver3 ",
     0},
};

/* Those of them that multiply bytes, and those that multiply bf16. */
static const char byte_cpus[] =
    " cascadelake cooperlake icelake-client icelake-server tigerlake rocketlake "
    "sapphirerapids emeraldrapids graniterapids graniterapids-d znver4 znver5 alderlake "
    "raptorlake meteorlake arrowlake arrowlake-s lunarlake pantherlake gracemont "
    "sierraforest grandridge clearwaterforest ";
static const char bf16_cpus[] = " cooperlake sapphirerapids emeraldrapids graniterapids "
                                "graniterapids-d znver4 znver5 ";

static bool
among(const char *names, const char *cpu)
{
    size_t n = strlen(cpu);
    for (const char *p = names; (p = strstr(p, cpu)); p += n)
        if (p[-1] == ' ' && p[n] == ' ')
            return true;
    return false;
}

/* -1: unknown. */
static int
level_of(const char *cpu)
{
    if (!*cpu || strchr(cpu, ' '))
        return -1;
    for (size_t i = 0; i < sizeof known_cpus / sizeof *known_cpus; i++)
        if (among(known_cpus[i].names, cpu))
            return known_cpus[i].level;
    return -1;
}

static bool
has_feature(const char *features, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = features; (p = strstr(p, name)); p += n)
        if (p > features && p[-1] == '+' && (p[n] == ',' || !p[n]))
            return true;
    return false;
}

static bool
describe(fg_machine *t, bool native)
{
    bool x86 = !strncmp(t->triple, "x86_64", 6), arm = !strncmp(t->triple, "aarch64", 7);
    int level = 0;
    if (native && has_feature(t->features, "avx2") && has_feature(t->features, "fma"))
        level =
            has_feature(t->features, "avx512vl") && has_feature(t->features, "avx512bw")
                ? 4
                : 3;
    else if (!native && x86)
        level = level_of(t->cpu);
    else if (!native && !arm)
        level = -1;
    t->W = level == 4 ? 16 : level == 3 ? 8 : 4;
    t->nvec = level == 4 || arm ? 32 : 16;
    t->fma = level >= 3 || arm;
    t->f16c = level >= 3 || arm;
    t->masks = level == 4;
    t->vnni = level >= 3 && (native ? has_feature(t->features, "avxvnni") ||
                                          has_feature(t->features, "avx512vnni")
                                    : among(byte_cpus, t->cpu));
    t->bf16 = level == 4 && (native ? has_feature(t->features, "avx512bf16")
                                    : among(bf16_cpus, t->cpu));
    return level >= 0;
}

/* Of a named CPU, which may be of another kind than this machine. */
static void
set_triple(fg_machine *t, bool arm)
{
    if (!strncmp(t->triple, arm ? "aarch64" : "x86_64", arm ? 7 : 6))
        return;
    LLVMDisposeMessage(t->triple);
    t->triple =
        LLVMCreateMessage(arm ? "aarch64-unknown-linux-gnu" : "x86_64-unknown-linux-gnu");
}

fg_machine *
ll_machine_new(const char *cpu, const char **why)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (!fg_llvm_open(why))
        return NULL;
    pthread_once(&once, init_once);
    bool native = !cpu || !*cpu || !strcmp(cpu, "native");
    fg_machine *t = calloc(1, sizeof *t);
    char *message = NULL;
    if (!t) {
        *why = "out of memory";
        return NULL;
    }
    t->triple = LLVMGetDefaultTargetTriple();
    if (!native)
        set_triple(t, !strcmp(cpu, FG_ARM_CPU));
    bool arm = !strncmp(t->triple, "aarch64", 7);
    t->cpu = native ? LLVMGetHostCPUName() : LLVMCreateMessage(arm ? "generic" : cpu);
    t->features = native ? LLVMGetHostCPUFeatures() : LLVMCreateMessage("");
    if (!init_target(arm) || LLVMGetTargetFromTriple(t->triple, &t->target, &message)) {
        LLVMDisposeMessage(message);
        ll_machine_free(t);
        *why = "LLVM has no code generator for this machine";
        return NULL;
    }
    if (!describe(t, native)) {
        ll_machine_free(t);
        *why = "expected native, aarch64, or an x86-64 CPU that LLVM knows, such as "
               "x86-64-v3";
        return NULL;
    }
    return t;
}

void
ll_machine_free(fg_machine *t)
{
    if (!t)
        return;
    LLVMDisposeMessage(t->triple);
    LLVMDisposeMessage(t->cpu);
    LLVMDisposeMessage(t->features);
    free(t);
}

LLVMTargetMachineRef
ll_target_machine(const fg_machine *t)
{
    return LLVMCreateTargetMachine(t->target, t->triple, t->cpu, t->features,
                                   LLVMCodeGenLevelDefault, LLVMRelocPIC,
                                   LLVMCodeModelSmall);
}

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
    set_attribute(g, f, "target-cpu", g->t->cpu);
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
