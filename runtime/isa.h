/* isa.h - instruction sets: what this machine has, what a piece of code needs.
 *
 *     "x86-64-v3"            a level
 *     "x86-64-v4+avx512vnni" a level and features beyond it
 *     "aarch64"              any ARM with 64 bits: ARMv8.0, NEON
 *     "aarch64+dotprod"      and an extension
 */
#ifndef FG_RUNTIME_ISA_H
#define FG_RUNTIME_ISA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t fg_isa; /* a set of features */

#define FG_ARM_CPU "aarch64"
/* Extensions of ARM that code may be made for: name, word and bit of the system's report, and
 * whether code generation makes anything of it. */
#define FG_ARM_EXTENSIONS(X)                                                             \
    X("dotprod", 0, 20, 1)                                                               \
    X("i8mm", 1, 13, 1)                                                                  \
    X("bf16", 1, 14, 1)                                                                  \
    X("sve", 0, 22, 0)

/* "x86_64-linux": architecture and calling convention of this build. */
const char *fg_isa_platform(void);
fg_isa fg_isa_host(void);
/* False when a word is not known: written by a later version, or for another machine. */
bool fg_isa_parse(const char *text, size_t n, fg_isa *out);
/* The best level inside `set`, and the rest feature by feature. False when it does not fit. */
bool fg_isa_text(fg_isa set, char *out, size_t n);
/* The set of features that a list "+avx2,-xop,+fma" switches on; features that code
 * generation never uses by itself are not among them. */
fg_isa fg_isa_of_list(const char *features);
/* `host` goes beyond `set` by a level or by an extension of ARM that pays: so would recompiling. */
bool fg_isa_beyond(fg_isa host, fg_isa set);

#endif
