/* jinja_test.c - what may stand behind `is`: a table of names. */
#include "text/jinja.h"

enum {
    DEFINED = 16,
    TRUE,
    FALSE,
    EQUAL,
    UNEQUAL,
    IN,
    ODD,
    EVEN,
    NUMBER,
    SEQUENCE,
    GT,
    GE,
    LT,
    LE,
    DIVISIBLE,
    IS_LOWER,
    IS_UPPER
};
static const struct {
    const char *name;
    int what, other; /* a kind, two of them, or one of the above */
} known[] = {{"defined", DEFINED, 0},
             {"undefined", V_UNDEFINED, V_UNDEFINED},
             {"none", V_NONE, V_NONE},
             {"string", V_STR, V_STR},
             {"mapping", V_DICT, V_SPACE},
             {"boolean", V_BOOL, V_BOOL},
             {"integer", V_INT, V_INT},
             {"float", V_FLOAT, V_FLOAT},
             {"number", NUMBER, 0},
             {"true", TRUE, 0},
             {"false", FALSE, 0},
             {"sequence", SEQUENCE, 0},
             {"iterable", SEQUENCE, 0},
             {"equalto", EQUAL, 0},
             {"eq", EQUAL, 0},
             {"==", EQUAL, 0},
             {"ne", UNEQUAL, 0},
             {"in", IN, 0},
             {"sameas", EQUAL, 0},
             {"gt", GT, 0},
             {"greaterthan", GT, 0},
             {"ge", GE, 0},
             {"lt", LT, 0},
             {"lessthan", LT, 0},
             {"le", LE, 0},
             {"divisibleby", DIVISIBLE, 0},
             {"lower", IS_LOWER, 0},
             {"upper", IS_UPPER, 0},
             {"odd", ODD, 0},
             {"even", EVEN, 0},
             {"callable", V_BUILTIN, V_MACRO}};

static bool
is_ordered(jinja *j, const node *n, int what, val v, val other)
{
    int order = 0;

    if (!val_compare(j, v, other, &order))
        jinja_fail(j, n->line, "%s and %s have no order", val_type(v), val_type(other));
    return what == GT   ? order > 0
           : what == GE ? order >= 0
           : what == LT ? order < 0
                        : order <= 0;
}

bool
jinja_test(jinja *j, const node *n, fg_str name, val v, const args *a)
{
    val other = a->n ? a->v[0] : (val){0};
    size_t k = 0, count = sizeof known / sizeof *known;

    while (k < count && !fg_str_same(name, fg_str_of(known[k].name)))
        k++;
    if (k == count) {
        jinja_fail(j, n->line, "test \"%.*s\" is not supported",
                   (int)(name.n < 50 ? name.n : 50), name.s);
        return false;
    }
    switch (known[k].what) {
    case DEFINED:
        return v.kind != V_UNDEFINED;
    case TRUE:
        return v.kind == V_BOOL && v.i;
    case FALSE:
        return v.kind == V_BOOL && !v.i;
    case EQUAL:
        return val_same(j, v, other);
    case UNEQUAL:
        return !val_same(j, v, other);
    case IN:
        return jinja_contains(j, n, other, v);
    case ODD:
        return v.kind == V_INT && v.i % 2 != 0;
    case EVEN:
        return v.kind == V_INT && v.i % 2 == 0;
    case GT:
    case GE:
    case LT:
    case LE:
        return is_ordered(j, n, known[k].what, v, other);
    case DIVISIBLE:
        return v.kind == V_INT && other.kind == V_INT && other.i &&
               (other.i == -1 || v.i % other.i == 0);
    case IS_LOWER:
    case IS_UPPER:
        return jinja_in_case(j, val_text(j, v), known[k].what == IS_UPPER);
    case NUMBER:
        return v.kind == V_INT || v.kind == V_FLOAT || v.kind == V_BOOL;
    case SEQUENCE:
        return v.kind == V_LIST || v.kind == V_STR || v.kind == V_DICT;
    default:
        return (int)v.kind == known[k].what || (int)v.kind == known[k].other;
    }
}
