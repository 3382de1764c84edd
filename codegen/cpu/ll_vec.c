/* ll_vec.c - vectors, memory and control flow of the LLVM layer. */
#include "codegen/cpu/ll.h"

#include <stdio.h>
#include <string.h>
#include <llvm-c/Support.h>

/* ---- vectors -------------------------------------------------------------------- */

fg_v
ll_splat(fg_ll *g, fg_v s, int lanes)
{
    fg_t t = LLVMTypeOf(s);
    if (lanes == 1 || LLVMGetTypeKind(t) == LLVMVectorTypeKind)
        return s;
    if (LLVMIsConstant(s) && !LLVMIsAGlobalValue(s)) {
        fg_v v[256];
        for (int i = 0; i < lanes; i++)
            v[i] = s;
        return LLVMConstVector(v, (unsigned)lanes);
    }
    fg_t vt = ll_vec(t, lanes);
    fg_v one = LLVMBuildInsertElement(g->b, ll_undef(vt), s, ll_i32(g, 0), "");
    return LLVMBuildShuffleVector(g->b, one, ll_undef(vt), ll_zero(ll_vec(g->i32, lanes)),
                                  "");
}

fg_v
ll_extract(fg_ll *g, fg_v v, int lane)
{
    return ll_lanes(v) == 1 ? v : LLVMBuildExtractElement(g->b, v, ll_i32(g, lane), "");
}

fg_v
ll_insert(fg_ll *g, fg_v v, fg_v x, int lane)
{
    return ll_lanes(v) == 1 ? x : LLVMBuildInsertElement(g->b, v, x, ll_i32(g, lane), "");
}

fg_v
ll_shuffle(fg_ll *g, fg_v a, fg_v b, int n, const int *mask)
{
    if (n == 1)
        return ll_extract(g, a, mask[0]);
    fg_v m[256];
    for (int i = 0; i < n; i++)
        m[i] = mask[i] < 0 ? ll_undef(g->i32) : ll_i32(g, mask[i]);
    if (!b)
        b = ll_undef(LLVMTypeOf(a));
    return LLVMBuildShuffleVector(g->b, a, b, LLVMConstVector(m, (unsigned)n), "");
}

fg_v
ll_half(fg_ll *g, fg_v v, int which)
{
    int n = ll_lanes(v) / 2, mask[128];
    for (int i = 0; i < n; i++)
        mask[i] = which * n + i;
    return ll_shuffle(g, v, NULL, n, mask);
}

fg_v
ll_join(fg_ll *g, fg_v lo, fg_v hi)
{
    int n = ll_lanes(lo), mask[256];
    for (int i = 0; i < 2 * n; i++)
        mask[i] = i;
    if (n == 1)
        return ll_insert(g, ll_insert(g, ll_undef(ll_vec(LLVMTypeOf(lo), 2)), lo, 0), hi,
                         1);
    return ll_shuffle(g, lo, hi, 2 * n, mask);
}

fg_v
ll_hreduce(fg_ll *g, fg_v v, fg_v (*op)(fg_ll *, fg_v, fg_v))
{
    while (ll_lanes(v) > 1)
        v = op(g, ll_half(g, v, 0), ll_half(g, v, 1));
    return v;
}

fg_v
ll_hsum(fg_ll *g, fg_v v)
{
    return ll_hreduce(g, v, ll_add);
}

/* Each folds to as many lanes as there are vectors. Then neighbours are merged, each in half
 * as many lanes as before. */
fg_v
ll_hsums(fg_ll *g, int n, fg_v *v)
{
    int mask[2][64], lanes = n;
    for (int i = 0; i < n; i++)
        while (ll_lanes(v[i]) > n)
            v[i] = ll_add(g, ll_half(g, v[i], 0), ll_half(g, v[i], 1));
    for (int len = lanes; n > 1; n /= 2, len /= 2) {
        for (int half = 0; half < 2; half++)
            for (int i = 0; i < lanes; i++) { /* groups of len: those of a, those of b */
                int group = i / (len / 2), at = i % (len / 2);
                mask[half][i] = group * len + half * (len / 2) + at;
            }
        for (int i = 0; i < n; i += 2)
            v[i / 2] = ll_add(g, ll_shuffle(g, v[i], v[i + 1], lanes, mask[0]),
                              ll_shuffle(g, v[i], v[i + 1], lanes, mask[1]));
    }
    return v[0];
}

fg_v
ll_hmax(fg_ll *g, fg_v v)
{
    return ll_hreduce(g, v, ll_max);
}

fg_v
ll_first(fg_ll *g, fg_v n, int lanes)
{
    fg_v few = ll_sext(g, ll_max(g, ll_min(g, n, ll_i(g, lanes)), ll_i(g, 0)), g->i32);
    return ll_cmp(g, LL_LT, ll_iota(g->i32, lanes), ll_splat(g, few, lanes));
}

fg_v
ll_any(fg_ll *g, fg_v mask)
{
    int n = ll_lanes(mask);
    if (n == 1)
        return mask;
    fg_t t = LLVMIntTypeInContext(g->cx, (unsigned)n);
    return ll_cmp(g, LL_NE, ll_bits(g, mask, t), ll_zero(t));
}

/* ---- products of narrow elements ------------------------------------------------- */

/* Products of signed 16-bit elements, summed by twos. */
static fg_v
dot_i16(fg_ll *g, fg_v a, fg_v b)
{
    static const char *const name[] = {"llvm.x86.sse2.pmadd.wd", "llvm.x86.avx2.pmadd.wd",
                                       "llvm.x86.avx512.pmaddw.d.512"};
    int n = ll_lanes(a);
    fg_t t = LLVMTypeOf(a), half = ll_vec(g->i16, 2 * n);
    if (!strncmp(g->t->triple, "x86_64", 6))
        return ll_intrinsic(g, name[n == 16 ? 2 : n == 8], 0, NULL, 2,
                            (fg_v[]){ll_bits(g, a, half), ll_bits(g, b, half)});
    fg_v up = ll_ci(t, 16);
    fg_v low =
        ll_mul(g, ll_sar(g, ll_shl(g, a, up), up), ll_sar(g, ll_shl(g, b, up), up));
    return ll_add(g, low, ll_mul(g, ll_sar(g, a, up), ll_sar(g, b, up)));
}

/* Bytes 0 and 2 (or 1 and 3) of every lane as 16-bit elements. */
static fg_v
every_other(fg_ll *g, fg_v a, bool odd, bool is_signed)
{
    fg_t t = LLVMTypeOf(a), half = ll_vec(g->i16, 2 * ll_lanes(a));
    fg_v v = ll_bits(g, a, half), eight = ll_ci(half, 8);
    if (!odd)
        v = ll_shl(g, v, eight);
    return ll_bits(g, is_signed ? ll_sar(g, v, eight) : ll_shr(g, v, eight), t);
}

static fg_v
dot_arm(fg_ll *g, const char *op, fg_v acc, fg_v a, fg_v b)
{
    fg_t byte = ll_vec(g->i8, 16);
    return ll_intrinsic(g, op, 2, (fg_t[]){LLVMTypeOf(acc), byte}, 3,
                        (fg_v[]){acc, ll_bits(g, a, byte), ll_bits(g, b, byte)});
}

fg_v
ll_dot_u8s8(fg_ll *g, fg_v acc, fg_v a, fg_v b, bool small)
{
    static const char *const name[] = {"llvm.x86.avx512.vpdpbusd.128",
                                       "llvm.x86.avx512.vpdpbusd.256",
                                       "llvm.x86.avx512.vpdpbusd.512"};
    int n = ll_lanes(a);
    fg_t t = LLVMTypeOf(a), byte = ll_vec(g->i8, 4 * n), half = ll_vec(g->i16, 2 * n);
    static const char usdot[] = "llvm.aarch64.neon.usdot",
                      sdot[] = "llvm.aarch64.neon.sdot";
    if (n == 4 && g->t->i8mm)
        return dot_arm(g, usdot, acc, a, b);
    if (n == 4 && g->t->dotprod) { /* a - 128, and what that leaves out */
        fg_v c = ll_ci(t, 0x40404040), high = ll_ci(t, (int64_t)0x80808080u);
        fg_v rest = dot_arm(g, sdot, dot_arm(g, sdot, ll_zero(t), c, b), c, b);
        return ll_add(g, dot_arm(g, sdot, acc, ll_xor(g, a, high), b), rest);
    }
    if (g->t->vnni) {
#if LLVM_VERSION_MAJOR >= 22
        a = ll_bits(g, a, byte);
        b = ll_bits(g, b, byte);
#endif
        return ll_intrinsic(g, name[n == 16 ? 2 : n == 8], 0, NULL, 3,
                            (fg_v[]){acc, a, b});
    }
    if (small && g->W >= 8) {
        fg_v v = ll_intrinsic(
            g, n == 16 ? "llvm.x86.avx512.pmaddubs.w.512" : "llvm.x86.avx2.pmadd.ub.sw",
            0, NULL, 2, (fg_v[]){ll_bits(g, a, byte), ll_bits(g, b, byte)});
        v = dot_i16(g, ll_bits(g, v, t), ll_bits(g, ll_ci(half, 1), t));
        return ll_add(g, acc, v);
    }
    for (int odd = 0; odd < 2; odd++)
        acc = ll_add(
            g, acc,
            dot_i16(g, every_other(g, a, odd, false), every_other(g, b, odd, true)));
    return acc;
}

fg_v
ll_dot_bf16(fg_ll *g, fg_v acc, fg_v a, fg_v b)
{
    int n = ll_lanes(a);
    fg_t t = LLVMTypeOf(a), pair = ll_vec(g->bf16, 2 * n), f = LLVMTypeOf(acc);
    if (g->t->bf16 && g->t->arm && n == 4)
        return ll_intrinsic(g, "llvm.aarch64.neon.bfdot", 2, (fg_t[]){f, pair}, 3,
                            (fg_v[]){acc, ll_bits(g, a, pair), ll_bits(g, b, pair)});
    if (g->t->bf16 && n == 16)
        return ll_intrinsic(g, "llvm.x86.avx512bf16.dpbf16ps.512", 0, NULL, 3,
                            (fg_v[]){acc, ll_bits(g, a, pair), ll_bits(g, b, pair)});
    fg_v up = ll_ci(t, 16), high = ll_ci(t, (int64_t)0xffff0000u);
    acc =
        ll_fma(g, ll_bits(g, ll_shl(g, a, up), f), ll_bits(g, ll_shl(g, b, up), f), acc);
    return ll_fma(g, ll_bits(g, ll_and(g, a, high), f), ll_bits(g, ll_and(g, b, high), f),
                  acc);
}

/* ---- memory
 * ---------------------------------------------------------------------------- */

fg_v
ll_at(fg_ll *g, fg_v p, fg_t elem, fg_v index)
{
    int64_t c;
    if (ll_const(index, &c) && c == 0)
        return p;
    return LLVMBuildInBoundsGEP2(g->b, elem, p, &index, 1, "");
}

fg_v
ll_atc(fg_ll *g, fg_v p, fg_t elem, int64_t index)
{
    return ll_at(g, p, elem, ll_i(g, index));
}

fg_v
ll_load_aligned(fg_ll *g, fg_t t, fg_v p, int align)
{
    fg_v v = LLVMBuildLoad2(g->b, t, p, "");
    LLVMSetAlignment(v, (unsigned)align);
    return v;
}

void
ll_store_aligned(fg_ll *g, fg_v v, fg_v p, int align)
{
    LLVMSetAlignment(LLVMBuildStore(g->b, v, p), (unsigned)align);
}

fg_v
ll_load(fg_ll *g, fg_t t, fg_v p)
{
    return ll_load_aligned(g, t, p, 1);
}

void
ll_store(fg_ll *g, fg_v v, fg_v p)
{
    ll_store_aligned(g, v, p, 1);
}

/* One lane under a condition: a branch, since a scalar has no masked form. */
static fg_v
scalar_mload(fg_ll *g, fg_t t, fg_v p, fg_v mask)
{
    ll_branch s;
    fg_v out;
    ll_if(g, &s, mask);
    fg_v v = ll_load(g, t, p);
    ll_else(g, &s, 1, &v);
    ll_end(g, &s, (fg_v[]){ll_zero(t)}, &out);
    return out;
}

/* The masked intrinsics carry the alignment as an operand up to LLVM 21, and as a
 * parameter attribute (default 1 byte) after that. */
fg_v
ll_mload(fg_ll *g, fg_t t, fg_v p, fg_v mask)
{
    if (!mask)
        return ll_load(g, t, p);
    if (ll_lanes_of(t) == 1)
        return scalar_mload(g, t, p, mask);
    fg_t ty[2] = {t, g->ptr};
#if LLVM_VERSION_MAJOR < 22
    return ll_intrinsic(g, "llvm.masked.load", 2, ty, 4,
                        (fg_v[]){p, ll_i32(g, 1), mask, ll_zero(t)});
#else
    return ll_intrinsic(g, "llvm.masked.load", 2, ty, 3, (fg_v[]){p, mask, ll_zero(t)});
#endif
}

void
ll_mstore(fg_ll *g, fg_v v, fg_v p, fg_v mask)
{
    if (!mask) {
        ll_store(g, v, p);
    } else if (ll_lanes(v) == 1) {
        ll_branch s;
        ll_if(g, &s, mask);
        ll_store(g, v, p);
        ll_end(g, &s, NULL, NULL);
    } else {
        fg_t ty[2] = {LLVMTypeOf(v), g->ptr};
#if LLVM_VERSION_MAJOR < 22
        ll_intrinsic(g, "llvm.masked.store", 2, ty, 4,
                     (fg_v[]){v, p, ll_i32(g, 1), mask});
#else
        ll_intrinsic(g, "llvm.masked.store", 2, ty, 3, (fg_v[]){v, p, mask});
#endif
    }
}

static fg_v
lane_pointers(fg_ll *g, fg_t elem, fg_v base, fg_v offset)
{
    return LLVMBuildInBoundsGEP2(g->b, elem, base, &offset, 1, "");
}

fg_v
ll_gather(fg_ll *g, fg_t t, fg_v base, fg_v offset, fg_v mask)
{
    int n = ll_lanes_of(t);
    if (n == 1)
        return ll_mload(g, t, ll_at(g, base, t, offset), mask);
    if (!mask)
        mask = ll_ci(ll_vec(g->i1, n), 1);
    fg_v p = lane_pointers(g, ll_elem(t), base, offset);
    fg_t ty[2] = {t, LLVMTypeOf(p)};
#if LLVM_VERSION_MAJOR < 22
    return ll_intrinsic(g, "llvm.masked.gather", 2, ty, 4,
                        (fg_v[]){p, ll_i32(g, 1), mask, ll_zero(t)});
#else
    return ll_intrinsic(g, "llvm.masked.gather", 2, ty, 3, (fg_v[]){p, mask, ll_zero(t)});
#endif
}

void
ll_scatter(fg_ll *g, fg_v v, fg_v base, fg_v offset, fg_v mask)
{
    int n = ll_lanes(v);
    fg_t elem = ll_elem(LLVMTypeOf(v));
    if (n == 1) {
        ll_mstore(g, v, ll_at(g, base, elem, offset), mask);
        return;
    }
    if (!mask)
        mask = ll_ci(ll_vec(g->i1, n), 1);
    fg_v p = lane_pointers(g, elem, base, offset);
    fg_t ty[2] = {LLVMTypeOf(v), LLVMTypeOf(p)};
#if LLVM_VERSION_MAJOR < 22
    ll_intrinsic(g, "llvm.masked.scatter", 2, ty, 4, (fg_v[]){v, p, ll_i32(g, 1), mask});
#else
    ll_intrinsic(g, "llvm.masked.scatter", 2, ty, 3, (fg_v[]){v, p, mask});
#endif
}

static void
prefetch(fg_ll *g, fg_v p, int write, int locality)
{
    ll_intrinsic(g, "llvm.prefetch", 1, &g->ptr, 4,
                 (fg_v[]){p, ll_i32(g, write), ll_i32(g, locality), ll_i32(g, 1)});
}

void
ll_prefetch(fg_ll *g, fg_v p)
{
    prefetch(g, p, 0, 3);
}

void
ll_prefetch_second(fg_ll *g, fg_v p)
{
    prefetch(g, p, 0, 2);
}

void
ll_prefetch_write(fg_ll *g, fg_v p)
{
    prefetch(g, p, 1, 3);
}

/* ---- control
 * --------------------------------------------------------------------------- */

fg_bb
ll_block(fg_ll *g)
{
    return LLVMAppendBasicBlockInContext(g->cx, g->fn, "");
}

fg_bb
ll_here(fg_ll *g)
{
    return LLVMGetInsertBlock(g->b);
}

void
ll_stand(fg_ll *g, fg_bb at)
{
    LLVMPositionBuilderAtEnd(g->b, at);
}

void
ll_br(fg_ll *g, fg_bb to)
{
    LLVMBuildBr(g->b, to);
}

void
ll_cbr(fg_ll *g, fg_v c, fg_bb yes, fg_bb no)
{
    LLVMBuildCondBr(g->b, c, yes, no);
}

void
ll_go(fg_ll *g, fg_bb to)
{
    ll_br(g, to);
    ll_stand(g, to);
}

fg_v
ll_phi2(fg_ll *g, fg_v a, fg_bb from_a, fg_v b, fg_bb from_b)
{
    fg_v phi = LLVMBuildPhi(g->b, LLVMTypeOf(a), "");
    LLVMAddIncoming(phi, &a, &from_a, 1);
    LLVMAddIncoming(phi, &b, &from_b, 1);
    return phi;
}

/* The test stands at the bottom, behind a guard when the first turn is not certain: one
 * branch per turn, and the values at the exit are phis of both ways there. */
static void
loop_begin(fg_ll *g, ll_loop *l, fg_v lo, fg_v hi, fg_v step, int n, const fg_v *init,
           bool runs)
{
    int64_t a, b;
    l->hi = hi;
    l->step = step;
    l->n = n;
    l->runs = runs || (ll_const(lo, &a) && ll_const(hi, &b) && a < b);
    l->guard = ll_here(g);
    l->body = ll_block(g);
    l->exit = ll_block(g);
    if (l->runs)
        ll_br(g, l->body);
    else
        ll_cbr(g, ll_cmp(g, LL_LT, lo, hi), l->body, l->exit);
    ll_stand(g, l->body);
    l->i = LLVMBuildPhi(g->b, LLVMTypeOf(lo), "");
    LLVMAddIncoming(l->i, &lo, &l->guard, 1);
    for (int k = 0; k < n; k++) {
        l->init[k] = init[k];
        l->phi[k] = LLVMBuildPhi(g->b, LLVMTypeOf(init[k]), "");
        LLVMAddIncoming(l->phi[k], &l->init[k], &l->guard, 1);
    }
}

void
ll_for(fg_ll *g, ll_loop *l, fg_v lo, fg_v hi, fg_v step, int n, const fg_v *init)
{
    loop_begin(g, l, lo, hi, step, n, init, false);
}

void
ll_for1(fg_ll *g, ll_loop *l, fg_v lo, fg_v hi, fg_v step, int n, const fg_v *init)
{
    loop_begin(g, l, lo, hi, step, n, init, true);
}

void
ll_next(fg_ll *g, ll_loop *l, const fg_v *next)
{
    fg_v i = LLVMBuildNSWAdd(g->b, l->i, l->step, "");
    fg_bb end = ll_here(g);
    ll_cbr(g, ll_cmp(g, LL_LT, i, l->hi), l->body, l->exit);
    LLVMAddIncoming(l->i, &i, &end, 1);
    for (int k = 0; k < l->n; k++)
        LLVMAddIncoming(l->phi[k], (fg_v *)&next[k], &end, 1);
    ll_stand(g, l->exit);
    for (int k = 0; k < l->n; k++)
        l->phi[k] = l->runs ? next[k] : ll_phi2(g, l->init[k], l->guard, next[k], end);
}

void
ll_if(fg_ll *g, ll_branch *s, fg_v c)
{
    fg_bb yes = ll_block(g);
    *s = (ll_branch){.no = ll_block(g), .exit = ll_block(g)};
    ll_cbr(g, c, yes, s->no);
    ll_stand(g, yes);
}

void
ll_else(fg_ll *g, ll_branch *s, int n, const fg_v *yes)
{
    s->n = n;
    s->has_else = true;
    for (int k = 0; k < n; k++)
        s->yes[k] = yes[k];
    s->from_yes = ll_here(g);
    ll_br(g, s->exit);
    ll_stand(g, s->no);
}

void
ll_end(fg_ll *g, ll_branch *s, const fg_v *no, fg_v *out)
{
    if (!s->has_else)
        ll_else(g, s, 0, NULL);
    fg_bb from_no = ll_here(g);
    ll_go(g, s->exit);
    for (int k = 0; k < s->n; k++)
        out[k] = ll_phi2(g, s->yes[k], s->from_yes, no[k], from_no);
}
