/* parse.h - what the files of the parser share; only ir/parse*.c include this. */
#ifndef FG_IR_PARSE_H
#define FG_IR_PARSE_H

#include "ir/text.h"

typedef struct fg_parser {
    fg_ctx *cx;
    fg_arena *a;
    fg_module *m;
    const char *file, *text, *s; /* s: what comes next */
    const char *dir;
    fg_module *like; /* lends the data of weights kept in files; or NULL */
    int depth;
    struct named {
        const char *name;
        fg_reg reg;
    } *reg; /* open addressing, interned */
    size_t nreg, capreg;
    int *weight; /* $k is the module's weight[k] */
    size_t nweight, capweight;
    struct alias {
        fg_reg reg;
        const char *name, *at;
    } *alias; /* to resolve at the end */
    size_t nalias, capalias;
    struct port {
        const char *name, *reg, *at;
        int64_t weight;
    } *input, *output;
    size_t ninput, capinput, noutput, capoutput;
    struct statepair { /* ports are found when all are known */
        const char *input, *output, *at;
        int64_t axis, keep;
        fg_expr length, next, row;
    } *state;
    size_t nstate, capstate;
} fg_parser;

/* A type as written, with where the value lives. */
typedef struct fg_typed {
    fg_type type;
    fg_memkind mem;
    int64_t offset;
    const char *alias, *alias_at;
    const char *at;
} fg_typed;

/* parse_lex.c. All that return bool or a name complain when they return false or NULL,
 * but take and word, which only look. */
bool fg_lex_fail(fg_parser *p, const char *at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Says where about the first complaint after `last`, which somebody else made. */
bool fg_lex_locate(fg_parser *p, const char *at, const fg_diag *last);
void fg_lex_blank(fg_parser *p); /* skips blanks */
void fg_lex_space(fg_parser *p); /* skips blanks, comments and line ends */
bool fg_lex_take(fg_parser *p, char c);
bool fg_lex_expect(fg_parser *p, char c);
bool fg_lex_word(fg_parser *p, const char *w);
bool fg_lex_end(fg_parser *p); /* of the line; and what is blank after it */
const char *fg_lex_quoted(fg_parser *p);
const char *fg_lex_name(fg_parser *p, const char *what);
bool fg_lex_int(fg_parser *p, int64_t *v);
bool fg_lex_expr(fg_parser *p, fg_expr *e);

/* parse_type.c */
fg_reg fg_parse_reg(const fg_parser *p, const char *interned); /* 0: unknown */
void fg_parse_bind(fg_parser *p, const char *interned, fg_reg r);
const char *fg_parse_new_name(fg_parser *p); /* of a register about to be defined */
bool fg_parse_operand(fg_parser *p, const fg_block *reader, fg_reg *r);
bool fg_parse_weight(fg_parser *p, int64_t *w);
bool fg_parse_typed(fg_parser *p, fg_typed *t);
void fg_parse_storage(fg_parser *p, fg_reg r, const fg_typed *t);
bool fg_parse_params(fg_parser *p, fg_block *b);
bool fg_parse_attrs(fg_parser *p, fg_inst *i); /* behind the opening brace */

#endif
