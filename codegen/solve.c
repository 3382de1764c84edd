/* solve.c - how the runtime finds the symbols of a model from the shapes of its inputs.
 *
 *     input_ids [B, S], past [B, 4, P, 64], mask [B, P+S]
 *         B = input_ids[0]    S = input_ids[1]    P = past[2]
 *
 * A dim that is linear in one symbol not yet found, with all else known, gives that
 * symbol. Bare symbols go first; the rest follows until nothing more is found.
 */
#include "codegen/program.h"

/* e = coef * s + rest, s being the only symbol in e that is not found; rest free of s. */
static bool
linear_in_one(fg_module *m, fg_arena *a, fg_expr e, fg_bits found, fg_sym *s,
              int64_t *coef)
{
    uint32_t n = fg_sym_count(m->ex);
    fg_bits in = fg_bits_new(a, n + 1);
    int unknown = 0;

    fg_e_symbols(m->ex, e, in);
    for (uint32_t k = 0; k < n; k++)
        if (fg_bits_has(in, k) && !fg_bits_has(found, k)) {
            unknown++;
            *s = k;
        }
    if (unknown != 1 || fg_sym_info(m->ex, *s)->kind != FG_SYM_INPUT)
        return false;
    *coef = 0;
    for (int i = 0; i < fg_e_nterms(m->ex, e); i++) {
        const uint32_t *atoms;
        int natom;
        int64_t c = fg_e_term(m->ex, e, i, &atoms, &natom);
        fg_atom at = natom == 1 ? fg_atom_get(m->ex, atoms[0]) : (fg_atom){FG_ATOM_DIV};
        if (at.kind == FG_ATOM_SYM && at.sym == *s)
            *coef = c;
    }
    if (*coef == 0)
        return false;
    fg_expr rest =
        fg_esub(m->ex, e, fg_emul(m->ex, fg_ec(m->ex, *coef), fg_es(m->ex, *s)));
    fg_bits left = fg_bits_new(a, n + 1);
    fg_e_symbols(m->ex, rest, left);
    return rest != FG_E_BAD && !fg_bits_has(left, *s);
}

fg_solve *
fg_solve_rows(fg_module *m, fg_arena *a, fg_vtab *t, uint32_t *n, fg_bits found)
{
    fg_solve *row = NULL;
    size_t cap = 0;
    bool bare = true, more = true;

    *n = 0;
    while (more) {
        more = bare;
        for (int k = 0; k < m->ninput; k++) {
            fg_type host = fg_input_type(m, k), *ty = &host;
            for (int x = 0; x < ty->rank; x++) {
                fg_sym s;
                int64_t coef;
                if (bare && !fg_e_single(m->ex, ty->dim[x], &s))
                    continue;
                if (!linear_in_one(m, a, ty->dim[x], found, &s, &coef))
                    continue;
                fg_expr rest =
                    fg_esub(m->ex, ty->dim[x],
                            fg_emul(m->ex, fg_ec(m->ex, coef), fg_es(m->ex, s)));
                FG_PUSH(a, row, *n, cap) = (fg_solve){.sym = s,
                                                      .input = (uint32_t)k,
                                                      .axis = (uint32_t)x,
                                                      .rest = fg_vtab_expr(t, rest),
                                                      .coef = coef};
                fg_bits_add(found, s);
                more = true;
            }
        }
        bare = false;
    }
    return row;
}
