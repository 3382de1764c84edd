/* llvm.h - LLVM's library, opened when the first kernel is compiled. */
#ifndef FG_CODEGEN_CPU_LLVM_H
#define FG_CODEGEN_CPU_LLVM_H

#include <stdbool.h>

/* Any number of times, from any thread, before the first call of LLVM. False with *why
 * (static text) when it is not there. */
bool fg_llvm_open(const char **why);
bool fg_llvm_has(const char *function); /* once it is open */

#endif
