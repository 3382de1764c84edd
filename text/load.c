/* load.c - what reading a tokenizer.json shares: messages, members, sequences of stages. */
#include <stdarg.h>
#include <stdio.h>

#include "text/tok.h"

bool
fg_load_fail(fg_load *l, const char *fmt, ...)
{
    char text[600];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return fg_error(l->cx, "%s: %s", l->name,
                    fg_printable(l->a, text, strlen(text), 500));
}

fg_str
fg_json_str(const fg_load *l, const cJSON *string)
{
    if (!cJSON_IsString(string) || !string->valuestring)
        return (fg_str){0};
    fg_str s = fg_str_of(string->valuestring);
    fg_str clean = fg_utf8_clean(l->a, s);
    return clean.s == s.s ? (fg_str){fg_dup(l->a, s.s, s.n + 1), s.n} : clean;
}

fg_str
fg_json_text(const fg_load *l, const cJSON *o, const char *key)
{
    return fg_json_str(l, cJSON_GetObjectItemCaseSensitive(o, key));
}

bool
fg_json_flag(const cJSON *o, const char *key, bool missing)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);

    return cJSON_IsBool(v) ? cJSON_IsTrue(v) : missing;
}

int64_t
fg_json_int(const cJSON *o, const char *key, int64_t missing)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);

    if (!cJSON_IsNumber(v) || !(v->valuedouble > -1e9 && v->valuedouble < 1e9))
        return missing;
    return (int64_t)v->valuedouble;
}

bool
fg_load_steps(fg_load *l, const cJSON *o, const char *what, const char *members,
              fg_load_step step, void *to)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(o, "type"), *part;

    if (!o || cJSON_IsNull(o))
        return true;
    if (!cJSON_IsString(type))
        return fg_load_fail(l, "a %s without a type", what);
    if (strcmp(type->valuestring, "Sequence"))
        return step(l, to, o, type->valuestring);
    cJSON_ArrayForEach(part, cJSON_GetObjectItemCaseSensitive(o, members))
    {
        if (!fg_load_steps(l, part, what, members, step, to))
            return false;
    }
    return true;
}
