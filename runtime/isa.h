/* isa.h - instruction sets: what this machine has, what a piece of code needs.
 *
 *     "x86-64-v3"            a level
 *     "x86-64-v4+avx512vnni" a level and features beyond it
 *     "aarch64"              any ARM with 64 bits
 */
#ifndef FG_RUNTIME_ISA_H
#define FG_RUNTIME_ISA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t fg_isa; /* a set of features */

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
/* Levels in `host` that go beyond `set`: recompiling would pay. */
bool fg_isa_beyond(fg_isa host, fg_isa set);

#endif
