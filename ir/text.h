/* text.h - what print.c, parse.c and literal.c agree on; inside ir/ only. */
#ifndef FG_IR_TEXT_H
#define FG_IR_TEXT_H

#include "ir/ir.h"

/* Spelling of the stages and of the places a register can live in. */
extern const char *const fg_stage_text[FG_STAGE_PLACED + 1];
extern const char *const fg_mem_text[FG_MEM_ONCE + 1];

/* May stand in a name without quotes. */
static inline bool
fg_is_bare(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           c == '_' || c == '.' || c == '/';
}

static inline bool
fg_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "text", with quotes, backslashes and control characters escaped; and back: *s at the
 * opening quote, left behind the closing one. NULL with *why, and *s at the place. */
void fg_put_quoted(fg_text *o, const char *s);
const char *fg_parse_quoted(fg_arena *a, const char **s, const char **why);

/* A constant's type with its data, `f32[2] {1.0, 2.0}`, and the type alone. */
void fg_put_weight_type(fg_text *o, const fg_weight *w);
bool fg_parse_weight_type(const char **s, fg_weight *w, const char **why);
bool fg_parse_weight_data(fg_arena *a, const char **s, fg_weight *w, const char **why);
/* Its data when kept in a file: relative to dir, or lent by `like`. */
bool fg_read_weight(fg_arena *a, const char *dir, const fg_module *like, const char *path,
                    int64_t offset, fg_weight *w, const char **why);

/* Decimal integer; false (and *s unmoved) when there is none or it does not fit. */
bool fg_parse_int(const char **s, int64_t *v);
/* Number as fg_put_double writes it, whatever the host's locale. */
bool fg_parse_double(const char **s, bool single, double *v);

#endif
