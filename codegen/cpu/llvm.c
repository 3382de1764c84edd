/* llvm.c - LLVM without linking to it: mapping and relocating its library takes 14 ms and
 * 45 MB, which a process that finds its models compiled should not pay.
 *
 *     call LLVMBuildAdd   ->   LLVMBuildAdd: jmp *slot   ->   libLLVM's LLVMBuildAdd
 *
 * Each function that the sources call is defined here as a jump through a slot, which
 * fg_llvm_open fills from the library. The list is made from the sources, so it is never
 * short of one; the slots are written once and not given back.
 */
#include "codegen/cpu/llvm.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#define JUMP(name) "jmp *fg_slot_" #name "(%rip)\n"
#elif defined(__aarch64__)
#define JUMP(name)                                                                       \
    "adrp x16, fg_slot_" #name "\n"                                                      \
    "ldr x16, [x16, :lo12:fg_slot_" #name "]\n"                                          \
    "br x16\n"
#else
#error "no jump through memory for this machine"
#endif

/* clang-format off */
#define F(name)                                                                          \
    extern void *fg_slot_##name __attribute__((visibility("hidden")));                   \
    void *fg_slot_##name;                                                                \
    __asm__(".text\n.globl " #name "\n.hidden " #name "\n"                               \
            ".type " #name ", %function\n" #name ":\n" JUMP(name)                        \
            ".size " #name ", . - " #name "\n");
#include "llvm_calls.h"
#undef F
/* clang-format on */

static const struct {
    const char *name;
    void **slot;
} slots[] = {
#define F(name) {#name, &fg_slot_##name},
#include "llvm_calls.h"
#undef F
};

static char failure[600];

static void
open_once(void)
{
    void *lib = dlopen(FG_LLVM_NAME, RTLD_LAZY | RTLD_LOCAL);

    if (!lib)
        lib = dlopen(FG_LLVM_PATH, RTLD_LAZY | RTLD_LOCAL);
    if (!lib) {
        snprintf(failure, sizeof failure, "LLVM is not here: %.500s", dlerror());
        return;
    }
    /* One built for a single machine has no other's initialisers, and they are not called. */
    for (size_t k = 0; k < sizeof slots / sizeof *slots; k++)
        if (!(*slots[k].slot = dlsym(lib, slots[k].name)) &&
            strncmp(slots[k].name, "LLVMInitialize", 14))
            snprintf(failure, sizeof failure, "this LLVM has no %s", slots[k].name);
}

bool
fg_llvm_open(const char **why)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, open_once);
    *why = failure;
    return !*failure;
}

bool
fg_llvm_has(const char *function)
{
    for (size_t k = 0; k < sizeof slots / sizeof *slots; k++)
        if (!strcmp(slots[k].name, function))
            return *slots[k].slot != NULL;
    return false;
}
