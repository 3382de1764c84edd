/* machine.c - which machine code is for.
 *
 *     native                  this one
 *     x86-64-v3               a level
 *     znver4                  x86-64-v4+avx512vnni+avx512bf16, arranged for Zen 4
 *     aarch64+dotprod         any ARM with 64 bits that has the extension
 *     neoverse-v1             aarch64+dotprod+i8mm+bf16
 *
 * LLVM is told the level and the extensions that code generation knows, never the CPU alone: so
 * what the code needs of a machine is known by name, and a file can say it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <llvm-c/Support.h>
#include <llvm-c/Target.h>
#include <pthread.h>

#include "codegen/cpu/ll.h"
#include "codegen/cpu/llvm.h"
#include "runtime/isa.h"

/* ---- LLVM -------------------------------------------------------------------------------- */

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

/* ---- names ------------------------------------------------------------------------------- */

#define V4_BYTES "x86-64-v4+avx512vnni"
#define V4_BF16 V4_BYTES "+avx512bf16"
#define ARM_BYTES FG_ARM_CPU "+dotprod"
#define ARM_BF16 ARM_BYTES "+i8mm+bf16"

/* What LLVM's C API does not tell about a CPU, and it must be told no name that it does not
 * know: it would complain on standard error. */
static const struct {
    const char *names, *is;
} cpus[] = {
    {" generic k8 amdfam10 core2 penryn btver1 ", "x86-64"},
    {" nehalem corei7 westmere sandybridge corei7-avx ivybridge core-avx-i silvermont "
     "goldmont goldmont-plus tremont btver2 bdver1 bdver2 bdver3 ",
     "x86-64-v2"},
    {" haswell core-avx2 broadwell skylake bdver4 znver1 znver2 znver3 ", "x86-64-v3"},
    {" alderlake raptorlake meteorlake arrowlake arrowlake-s lunarlake pantherlake "
     "gracemont sierraforest grandridge clearwaterforest ",
     "x86-64-v3+avxvnni"},
    {" skylake-avx512 skx cannonlake ", "x86-64-v4"},
    {" cascadelake icelake-client icelake-server tigerlake rocketlake ", V4_BYTES},
    {" cooperlake sapphirerapids emeraldrapids graniterapids graniterapids-d znver4 "
     "znver5 ",
     V4_BF16},
    {" cortex-a34 cortex-a35 cortex-a53 cortex-a57 cortex-a72 cortex-a73 apple-a10 "
     "apple-a11 apple-a12 a64fx carmel ",
     FG_ARM_CPU},
    {" cortex-a55 cortex-a65 cortex-a65ae cortex-a75 cortex-a76 cortex-a76ae cortex-a77 "
     "cortex-a78 cortex-a78ae cortex-a78c cortex-x1 cortex-x1c neoverse-e1 neoverse-n1 "
     "apple-a13 apple-a14 apple-m1 ",
     ARM_BYTES},
    {" cortex-a510 cortex-a520 cortex-a710 cortex-a715 cortex-a720 cortex-x2 cortex-x3 "
     "cortex-x4 neoverse-512tvb neoverse-n2 neoverse-v1 neoverse-v2 ampere1 ampere1a "
     "apple-a15 apple-a16 apple-a17 apple-m2 apple-m3 apple-m4 ",
     ARM_BF16},
};

static bool
among(const char *names, const char *name, size_t n)
{
    for (const char *p = names; (p = strchr(p, ' ')); p++)
        if (!strncmp(p + 1, name, n) && p[1 + n] == ' ')
            return n > 0 && !memchr(name, ' ', n);
    return false;
}

static bool
is_arm(const char *text) /* a triple, a platform, or the name of a set */
{
    return !strncmp(text, FG_ARM_CPU, strlen(FG_ARM_CPU));
}

static const char levels[] = " x86-64 x86-64-v2 x86-64-v3 x86-64-v4 " FG_ARM_CPU " ";
/* Those that the emitters know what to do with, and such as LLVM may. */
static const char x86_extensions[] = " avxvnni avx512vnni avx512bf16 ";
static const char arm_extensions[] = " "
#define X(name, word, bit, pays) name " "
    FG_ARM_EXTENSIONS(X)
#undef X
    ;

/* The level and extensions of a CPU, which may have more behind a +: "LEVEL+EXTENSION+.."; false
 * when a word is not known. */
static bool
spell_out(const char *cpu, char *out, size_t n)
{
    size_t len = strcspn(cpu, "+");
    const char *is = NULL;

    for (size_t k = 0; k < sizeof cpus / sizeof *cpus; k++)
        if (among(cpus[k].names, cpu, len))
            is = cpus[k].is;
    if ((!is && !among(levels, cpu, len)) ||
        snprintf(out, n, "%s%s", is ? is : cpu, is ? cpu + len : "") >= (int)n)
        return false;
    bool arm = is_arm(out);
    for (const char *s = cpu + len; *s; s += len) {
        s++;
        len = strcspn(s, "+");
        if (!among(arm ? arm_extensions : x86_extensions, s, len))
            return false;
    }
    return true;
}

const char *
fg_cpu_least(const char *list)
{
    char name[128], is[256];

    snprintf(name, sizeof name, "%.*s", (int)strcspn(list, ","), list);
    const char *kind = spell_out(name, is, sizeof is) ? is : fg_isa_platform();
    return is_arm(kind) ? FG_ARM_CPU : "x86-64";
}

/* ---- the machine ------------------------------------------------------------------------- */

static bool
has_feature(const fg_machine *t, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = t->features; (p = strstr(p, name)); p += n)
        if (p > t->features && p[-1] == '+' && (p[n] == ',' || !p[n]))
            return true;
    return false;
}

static void
describe(fg_machine *t, int level)
{
    bool arm = t->arm;
    t->W = level == 4 ? 16 : level == 3 ? 8 : 4;
    t->nvec = level == 4 || arm ? 32 : 16;
    t->fma = level >= 3 || arm;
    t->f16c = level >= 3 || arm;
    t->masks = level == 4;
    t->dotprod = arm && has_feature(t, "dotprod");
    t->i8mm = arm && has_feature(t, "i8mm");
    t->vnni = level >= 3 && (has_feature(t, "avxvnni") || has_feature(t, "avx512vnni"));
    t->bf16 = arm ? has_feature(t, "bf16") : level == 4 && has_feature(t, "avx512bf16");
}

/* 4: AVX-512 with all vector lengths, 3: AVX2; else 0. */
static int
level_here(const fg_machine *t)
{
    if (!has_feature(t, "avx2") || !has_feature(t, "fma"))
        return 0;
    return has_feature(t, "avx512vl") && has_feature(t, "avx512bw") ? 4 : 3;
}

static int
level_of(const char *base)
{
    size_t n = strlen(base);
    return n > 2 && base[n - 2] == 'v' && base[n - 1] >= '3' ? base[n - 1] - '0' : 0;
}

/* "x86-64-v4+a+b" as a level and LLVM's "+a,+b". */
static void
set_named(fg_machine *t, const char *cpu, char *is)
{
    char *plus = strchr(is, '+'), features[256] = "";

    t->isa = LLVMCreateMessage(is);
    for (size_t k = 0, n = 0; plus && plus[k] && n + 2 < sizeof features; k++) {
        if (plus[k] == '+' && k)
            features[n++] = ',';
        features[n++] = plus[k];
    }
    if (plus)
        *plus = '\0';
    t->arm = is_arm(is);
    t->cpu = LLVMCreateMessage(cpu);
    t->base = LLVMCreateMessage(t->arm ? "generic" : is);
    t->features = LLVMCreateMessage(features);
    if (strcspn(cpu, "+") == strlen(cpu) && !among(levels, cpu, strlen(cpu)))
        t->tune = t->cpu;
    describe(t, level_of(is));
}

static void
set_native(fg_machine *t)
{
    char *cpu = LLVMGetHostCPUName(), is[256] = FG_ARM_CPU;

    t->features = LLVMGetHostCPUFeatures();
    if (!is_arm(t->triple)) {
        t->cpu = cpu;
        t->base = LLVMCreateMessage(cpu);
        describe(t, level_here(t));
        return;
    }
#define X(name, word, bit, pays)                                                         \
    if (has_feature(t, name))                                                            \
        strcat(is, "+" name);
    FG_ARM_EXTENSIONS(X)
#undef X
    LLVMDisposeMessage(t->features);
    set_named(t, cpu, is);
    LLVMDisposeMessage(cpu);
}

/* The triple of a named CPU, which may be of another kind than this machine. */
static void
set_triple(fg_machine *t)
{
    const char *kind = t->arm ? FG_ARM_CPU : "x86_64";

    if (!strncmp(t->triple, kind, strlen(kind)))
        return;
    LLVMDisposeMessage(t->triple);
    t->triple = LLVMCreateMessage(t->arm ? "aarch64-unknown-linux-gnu"
                                         : "x86_64-unknown-linux-gnu");
}

fg_machine *
ll_machine_new(const char *cpu, const char **why)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    char is[256];
    if (!fg_llvm_open(why))
        return NULL;
    pthread_once(&once, init_once);
    bool native = !cpu || !*cpu || !strcmp(cpu, "native");
    if (!native && !spell_out(cpu, is, sizeof is)) {
        *why = "expected native, x86-64-v3 or the like, aarch64, or a CPU of either kind "
               "such as znver4 and neoverse-v1; extensions behind a + are avxvnni, "
               "avx512vnni and avx512bf16, or dotprod, i8mm, bf16 and sve";
        return NULL;
    }
    fg_machine *t = calloc(1, sizeof *t);
    char *message = NULL;
    if (!t) {
        *why = "out of memory";
        return NULL;
    }
    t->triple = LLVMGetDefaultTargetTriple();
    if (native)
        set_native(t);
    else
        set_named(t, cpu, is);
    set_triple(t);
    if (!init_target(t->arm) ||
        LLVMGetTargetFromTriple(t->triple, &t->target, &message)) {
        LLVMDisposeMessage(message);
        ll_machine_free(t);
        *why = "LLVM has no code generator for this machine";
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
    LLVMDisposeMessage(t->base);
    LLVMDisposeMessage(t->features);
    LLVMDisposeMessage(t->isa);
    free(t);
}

LLVMTargetMachineRef
ll_target_machine(const fg_machine *t)
{
    return LLVMCreateTargetMachine(t->target, t->triple, t->base, t->features,
                                   LLVMCodeGenLevelDefault, LLVMRelocPIC,
                                   LLVMCodeModelSmall);
}
