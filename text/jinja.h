/* jinja.h - inside the templates: values, the tree, what its readers share. */
#ifndef FG_TEXT_JINJA_H
#define FG_TEXT_JINJA_H

#include "text/unicode.h"

enum { JINJA_DEPTH = 400, JINJA_STEPS = 2000000, JINJA_BYTES = 64 << 20 };

/* ---- values ----------------------------------------------------------------------- */

typedef enum {
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STR,
    V_LIST,
    V_DICT,
    V_SPACE, /* a namespace: a dict whose members can be set */
    V_BUILTIN /* a function by name */,
    V_MACRO
} val_kind;

typedef struct val val;
typedef struct val_list {
    val *v;
    size_t n, cap;
    bool tuple; /* written with parentheses */
} val_list;

typedef struct val_pair val_pair;
typedef struct val_dict { /* in order of insertion */
    val_pair *v;
    size_t n, cap;
} val_dict;

struct val {
    val_kind kind;
    union {
        int64_t i; /* also bool */
        double f;
        fg_str s; /* also the name of a builtin, of what is undefined */
        val_list *list;
        val_dict *dict;
        const struct node *macro;
    };
};

struct val_pair {
    fg_str key;
    val v;
};

/* ---- the tree ---------------------------------------------------------------------- */

typedef enum {
    N_CONST,
    N_NAME,
    N_LIST,
    N_DICT,
    N_ATTR,
    N_ITEM,
    N_SLICE,
    N_CALL,
    N_FILTER,
    N_TEST,
    N_NOT,
    N_NEG,
    N_BINARY,
    N_AND,
    N_OR,
    N_COND,
    N_TEXT,
    N_OUT,
    N_IF,
    N_FOR,
    N_SET,
    N_SETBLOCK,
    N_MACRO,
    N_BREAK,
    N_CONTINUE,
    N_BODY
} node_kind;

/* FOR: a in, b body, c else, d condition, names. IF: a, b then, c else. SET: a target, b
 * value. COND: a when b else c. SLICE: a[b:c:d]. DICT: keys and values take turns in
 * list. CALL, FILTER, TEST: a, arguments in list, names of those that have one. */
typedef struct node {
    node_kind kind;
    int line, op; /* op: of BINARY a token; of TEST 1: "is not"; of LIST 1: a tuple */
    fg_str name;
    val value;
    struct node *a, *b, *c, *d;
    struct node **list;
    fg_str *names;
    size_t nlist, caplist, nnames, capnames;
} node;

typedef enum {
    T_END,
    T_NAME,
    T_INT,
    T_FLOAT,
    T_STR,
    T_TEXT,      /* between tags */
    T_OUT_END,   /* }} */
    T_BLOCK_END, /* %} */
    T_OUT,       /* {{ */
    T_BLOCK,     /* {% */
    T_EQ = 128,  /* others are their own character */
    T_NE,
    T_LE,
    T_GE,
    T_FLOORDIV,
    T_POW,
    T_IN,
    T_NOT_IN
} token_kind;

/* ---- one template ------------------------------------------------------------------- */

typedef struct frame { /* variables of a loop, a macro, or the whole */
    struct frame *up;
    val_dict vars;
} frame;

typedef struct jinja {
    fg_ctx *cx;
    fg_arena *a;
    const char *name;
    bool failed;
    /* reading */
    fg_str text;
    size_t at;
    int line;
    bool in_tag, line_start;
    int braces; /* open in the tag */
    int depth;  /* of what is read or run */
    int token;
    fg_str word; /* of the token */
    val number;
    int token_line;
    /* running */
    int64_t steps;
    frame *top;
    fg_text *out;
    enum { GO, BREAK, CONTINUE } flow;
} jinja;

/* Records "NAME: line N: text" once; undefined. */
val jinja_fail(jinja *j, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

void jinja_next(jinja *j); /* the next token */
node *jinja_parse(jinja *j);

/* Values. */
val val_of_str(fg_str s);
val val_of_text(const char *s);
val val_of_int(int64_t i);
val val_of_bool(bool b);
val val_new_list(jinja *j);
void val_push(jinja *j, val list, val v);
val val_new_dict(jinja *j, val_kind kind);
void val_set(jinja *j, val_dict *d, fg_str key, val v);
val *val_find(const val_dict *d, fg_str key);
bool val_true(val v);
bool val_same(jinja *j, val x, val y);
/* Numbers, texts, lists of such: below 0, 0, above; false when they have no order. */
bool val_compare(jinja *j, val x, val y, int *order);
const char *val_type(val v);
/* As {{ }} writes it; strings inside lists are quoted. */
void val_write(jinja *j, fg_text *t, val v, bool quoted);
typedef struct json_style {
    int indent;        /* -1: all on one line */
    bool ascii;        /* escape what is not */
    bool sorted;       /* by key */
    fg_str item, pair; /* between members; between a key and its value */
} json_style;
void val_write_json(jinja *j, fg_text *t, val v, const json_style *s, int depth);
fg_str val_text(jinja *j, val v);
bool val_number(val v, double *f); /* int, float or bool */

/* Arguments of a call: by place or name. */
typedef struct args {
    val *v;
    fg_str *names; /* n = 0: by place */
    size_t n;
} args;
/* The k-th by place, or the one called name; NULL. */
const val *args_get(const args *a, size_t k, const char *name);

/* Filters, tests, methods of strings and dicts, functions. */
val jinja_filter(jinja *j, const node *n, fg_str name, val v, const args *a);
bool jinja_test(jinja *j, const node *n, fg_str name, val v, const args *a);
val jinja_method(jinja *j, const node *n, val v, const args *a);
val jinja_builtin(jinja *j, const node *n, fg_str name, const args *a);
bool jinja_is_builtin(fg_str name);
/* d[key] = v. */
void jinja_set(jinja *j, const node *n, val_dict *d, val key, val v);
/* Methods of text that jinja_method does not know; false: neither do these. */
bool jinja_text_method(jinja *j, const node *n, fg_str s, const args *a, val *out);
bool jinja_in_case(jinja *j, fg_str s, bool upper); /* all of its letters, and some */
val jinja_format(jinja *j, const node *n, fg_str s, const val *v, size_t nv); /* "%s" */
val jinja_add(jinja *j, const node *n, val x, val y);
#define FILTER(name) val jinja_##name(jinja *j, const node *n, val v, const args *a)
FILTER(sort);
FILTER(dictsort);
FILTER(unique);
FILTER(min);
FILTER(max);
FILTER(sum);
#undef FILTER
val jinja_attr(jinja *j, const node *n, val v, fg_str name);
val jinja_items_of(jinja *j, const node *n, val v); /* what a loop walks: a list */
bool jinja_contains(jinja *j, const node *n, val in, val what);
/* One step more; false when there were too many. */
bool jinja_step(jinja *j, int line);

#endif
