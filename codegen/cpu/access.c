/* access.c - elements in memory and in registers: loads, stores, conversions.
 *
 *     index            load                    store
 *     uniform          scalar                  scalar of lane 0
 *     step 1           vector                  vector
 *     step 2           half of two vectors     scatter
 *     else             gather                  scatter
 *
 * all under e->mask. Nothing is assumed about alignment: weights lie where a file has
 * them.
 */
#include "codegen/cpu/emit.h"

fg_t
fg_em_type(fg_em *e, fg_dtype d)
{
    fg_ll *g = e->g;
    switch (d) {
    case FG_f64:
        return g->f64;
    case FG_f32:
    case FG_f16:
    case FG_bf16:
        return g->f32;
    case FG_i64:
    case FG_u64:
        return g->i64;
    case FG_i32:
    case FG_u32:
        return g->i32;
    case FG_i16:
    case FG_u16:
        return g->i16;
    case FG_bool:
        return g->i1;
    default:
        return g->i8;
    }
}

/* The type an element has in memory; 4-bit types: of the byte that holds it. */
static fg_t
memory_type(fg_em *e, fg_dtype d)
{
    return d == FG_f16 || d == FG_bf16 ? e->g->i16
           : d == FG_bool              ? e->g->i8
                                       : fg_em_type(e, d);
}

fg_v
fg_lanes(fg_em *e, fg_v v)
{
    return ll_splat(e->g, v, e->lanes);
}

/* ---- 16-bit floats
 * ----------------------------------------------------------------------- */

/* Half precision without conversion instructions: shift the fields into place and let one
 * multiplication fix exponent bias and denormals. */
static fg_v
half_to_single(fg_ll *g, fg_v h)
{
    fg_v w = ll_zext(g, h, g->i32);
    fg_t t = LLVMTypeOf(w), f = ll_like(w, g->f32);
    fg_v magic = ll_shl(g, ll_and(g, w, ll_ci(t, 0x7fff)), ll_ci(t, 13));
    fg_v v = ll_mul(g, ll_bits(g, magic, f), ll_cf(f, 0x1p112));
    fg_v special = ll_cmp(g, LL_GE, v, ll_cf(f, 65536.0));
    fg_v bits = ll_bits(g, v, t);
    bits = ll_sel(g, special, ll_or(g, bits, ll_ci(t, 0x7f800000)), bits);
    fg_v sign = ll_shl(g, ll_and(g, w, ll_ci(t, 0x8000)), ll_ci(t, 16));
    return ll_bits(g, ll_or(g, bits, sign), f);
}

static fg_v
single_to_half(fg_ll *g, fg_v x)
{
    fg_t f = LLVMTypeOf(x), t = ll_like(x, g->i32);
    fg_v w = ll_bits(g, x, t), mag = ll_and(g, w, ll_ci(t, 0x7fffffff));
    /* Normal: round the mantissa by adding just under half a unit, and the odd bit. */
    fg_v odd = ll_and(g, ll_shr(g, mag, ll_ci(t, 13)), ll_ci(t, 1));
    fg_v n = ll_add(g, ll_add(g, mag, ll_ci(t, 0xfff - (112 << 23))), odd);
    n = ll_shr(g, n, ll_ci(t, 13));
    n = ll_sel(g, ll_cmp(g, LL_GE, mag, ll_ci(t, 0x477ff000)), ll_ci(t, 0x7c00), n);
    /* Denormal: adding 0.5 lets the addition round at the right bit. */
    fg_v d = ll_bits(g, ll_add(g, ll_bits(g, mag, f), ll_cf(f, 0.5)), t);
    d = ll_sub(g, d, ll_ci(t, 0x3f000000));
    n = ll_sel(g, ll_cmp(g, LL_LT, mag, ll_ci(t, 0x38800000)), d, n);
    n = ll_sel(g, ll_cmp(g, LL_GT, mag, ll_ci(t, 0x7f800000)), ll_ci(t, 0x7e00), n);
    fg_v sign = ll_and(g, ll_shr(g, w, ll_ci(t, 16)), ll_ci(t, 0x8000));
    return ll_sext(g, ll_or(g, n, sign), g->i16);
}

static fg_v
bf16_bits(fg_ll *g, fg_v x)
{
    fg_t t = ll_like(x, g->i32);
    fg_v w = ll_bits(g, x, t);
    fg_v odd = ll_and(g, ll_shr(g, w, ll_ci(t, 16)), ll_ci(t, 1));
    fg_v r = ll_add(g, w, ll_add(g, odd, ll_ci(t, 0x7fff)));
    r = ll_sel(g, ll_isnan(g, x), ll_or(g, w, ll_ci(t, 0x400000)), r);
    return ll_shr(g, r, ll_ci(t, 16));
}

static fg_v
from_memory(fg_em *e, fg_dtype d, fg_v v)
{
    fg_ll *g = e->g;
    switch (d) {
    case FG_f16:
        return g->t->f16c ? ll_fcast(g, ll_bits(g, v, ll_like(v, g->f16)), g->f32)
                          : half_to_single(g, v);
    case FG_bf16:
        v = ll_zext(g, v, g->i32);
        v = ll_shl(g, v, ll_ci(LLVMTypeOf(v), 16));
        return ll_bits(g, v, ll_like(v, g->f32));
    case FG_bool:
        return ll_cmp(g, LL_NE, v, ll_zero(LLVMTypeOf(v)));
    default:
        return v;
    }
}

static fg_v
to_memory(fg_em *e, fg_dtype d, fg_v v)
{
    fg_ll *g = e->g;
    switch (d) {
    case FG_f16:
        return g->t->f16c ? ll_bits(g, ll_fcast(g, v, g->f16), ll_like(v, g->i16))
                          : single_to_half(g, v);
    case FG_bf16:
        return ll_sext(g, bf16_bits(g, v), g->i16);
    case FG_bool:
        return ll_zext(g, v, g->i8);
    default:
        return v;
    }
}

fg_v
fg_em_round(fg_em *e, fg_dtype d, fg_v v)
{
    if (d != FG_f16 && d != FG_bf16)
        return v;
    return from_memory(e, d, to_memory(e, d, v));
}

/* ---- 4-bit types: two in a byte, the first in the low half
 * ------------------------------------- */

static fg_v
extend_nibble(fg_em *e, fg_dtype d, fg_v v)
{
    fg_ll *g = e->g;
    fg_v four = ll_ci(LLVMTypeOf(v), 4);
    v = ll_shl(g, v, four);
    return d == FG_i4 ? ll_sar(g, v, four) : ll_shr(g, v, four);
}

static fg_v
load_nibbles(fg_em *e, fg_dtype d, fg_v p, fg_index at)
{
    fg_ll *g = e->g;
    int n = e->lanes;
    if (at.step == 1 && !at.vec && n > 1 && at.align >= 2) {
        int even[64], inter[64];
        for (int i = 0; i < n; i++) {
            even[i / 2] = i & ~1;
            inter[i] = i / 2 + (i & 1) * (n / 2);
        }
        fg_v mask = e->mask ? ll_shuffle(g, e->mask, NULL, n / 2, even) : NULL;
        fg_v where = ll_at(g, p, g->i8, ll_shr(g, at.base, ll_i(g, 1)));
        fg_v b = ll_mload(g, ll_vec(g->i8, n / 2), where, mask);
        fg_v hi = ll_shr(g, b, ll_ci(LLVMTypeOf(b), 4));
        fg_v v = n == 2 ? ll_join(g, b, hi) : ll_shuffle(g, b, hi, n, inter);
        return extend_nibble(e, d, v);
    }
    fg_v i = fg_ix_value(e, at), one = ll_ci(LLVMTypeOf(i), 1);
    fg_v off = ll_shr(g, i, one);
    fg_v b = ll_lanes(i) == 1 ? ll_load(g, g->i8, ll_at(g, p, g->i8, off))
                              : ll_gather(g, ll_vec(g->i8, n), p, off, e->mask);
    fg_v sh = ll_sext(g, ll_shl(g, ll_and(g, i, one), ll_ci(LLVMTypeOf(i), 2)), g->i8);
    return extend_nibble(e, d, ll_shr(g, b, sh));
}

/* One element at a time: its byte's other half must survive. The kernel emitters give
 * 4-bit results a single chunk, so that no two workers share a byte. */
static void
store_nibbles(fg_em *e, fg_v p, fg_index at, fg_v v)
{
    fg_ll *g = e->g;
    fg_v i = fg_ix_value(e, at);
    for (int l = 0; l < ll_lanes(i); l++) {
        ll_branch s;
        if (e->mask)
            ll_if(g, &s, ll_extract(g, e->mask, l));
        fg_v k = ll_extract(g, i, l),
             x = ll_and(g, ll_extract(g, v, l), ll_ci(g->i8, 15));
        fg_v odd = ll_sext(g, ll_and(g, k, ll_i(g, 1)), g->i8);
        fg_v sh = ll_shl(g, odd, ll_ci(g->i8, 2));
        fg_v where = ll_at(g, p, g->i8, ll_shr(g, k, ll_i(g, 1)));
        fg_v keep =
            ll_and(g, ll_load(g, g->i8, where), ll_shr(g, ll_ci(g->i8, 0xf0), sh));
        ll_store(g, ll_or(g, keep, ll_shl(g, x, sh)), where);
        if (e->mask)
            ll_end(g, &s, NULL, NULL);
    }
}

/* Every other element from p on, as two neighbouring vectors of which half is wanted: a gather
 * takes several times as long. Those between are not read, they may not be there. */
static fg_v
load_every_other(fg_em *e, fg_t t, fg_v p)
{
    fg_ll *g = e->g;
    int n = e->lanes, wide[2 * FG_ALIGN_MAX], even[FG_ALIGN_MAX];
    for (int i = 0; i < 2 * n; i++)
        wide[i] = i % 2 ? n : i / 2;
    for (int i = 0; i < n; i++)
        even[i] = 2 * i;
    fg_t bits = ll_vec(g->i1, n);
    fg_v mask = e->mask ? e->mask : ll_ci(bits, 1);
    mask = ll_shuffle(g, mask, ll_zero(bits), 2 * n, wide);
    fg_v v = ll_mload(g, ll_vec(t, 2 * n), p, mask);
    return ll_shuffle(g, v, v, n, even);
}

/* ---- loads and stores
 * --------------------------------------------------------------------------- */

fg_v
fg_em_load(fg_em *e, fg_dtype d, fg_v p, fg_index at)
{
    fg_ll *g = e->g;
    if (d == FG_i4 || d == FG_u4)
        return load_nibbles(e, d, p, at);
    fg_t t = memory_type(e, d);
    if (fg_ix_uniform(at)) {
        fg_v where = ll_at(g, p, t, at.base);
        return from_memory(
            e, d, e->lanes == 1 ? ll_mload(g, t, where, e->mask) : ll_load(g, t, where));
    }
    fg_t vt = ll_vec(t, e->lanes);
    if (!at.vec && at.step == 1)
        return from_memory(e, d, ll_mload(g, vt, ll_at(g, p, t, at.base), e->mask));
    if (!at.vec && at.step == 2)
        return from_memory(e, d, load_every_other(e, t, ll_at(g, p, t, at.base)));
    return from_memory(e, d, ll_gather(g, vt, p, fg_ix_value(e, at), e->mask));
}

void
fg_em_store_to(fg_em *e, fg_dtype d, fg_v p, fg_index at, fg_v v)
{
    fg_ll *g = e->g;
    if (d == FG_i4 || d == FG_u4) {
        store_nibbles(e, p, at, v);
        return;
    }
    fg_t t = memory_type(e, d);
    v = to_memory(e, d, v);
    if (fg_ix_uniform(at))
        ll_mstore(g, ll_extract(g, v, 0), ll_at(g, p, t, at.base),
                  e->lanes == 1 ? e->mask : NULL);
    else if (!at.vec && at.step == 1)
        ll_mstore(g, fg_lanes(e, v), ll_at(g, p, t, at.base), e->mask);
    else
        ll_scatter(g, fg_lanes(e, v), p, fg_ix_value(e, at), e->mask);
}
