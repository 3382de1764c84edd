/* knobs.c - the table of code generation's numbers, and their text.
 *
 *     rows=5,stream_ahead=2048     the others are as knobs.def says
 */
#include "codegen/knobs.h"

#include <stdlib.h>
#include <string.h>

enum { ANY, POWER };

const fg_knobinfo fg_knobs[] = {
#define TRY(...) {__VA_ARGS__}
#define KNOB(name, lo, hi, dflt, kind, on, tries, meaning)                               \
    {#name, lo, hi, dflt, kind == POWER, FG_KNOB_##on, tries, meaning},
#include "codegen/knobs.def"
};

static int
find(const char *s, size_t n)
{
    int k = 0;

    while (k < FG_NKNOBS &&
           (strlen(fg_knobs[k].name) != n || memcmp(fg_knobs[k].name, s, n)))
        k++;
    return k;
}

bool
fg_knobs_read(fg_ctx *cx, const char *what, const char *text, int *knob)
{
    for (int k = 0; k < FG_NKNOBS; k++)
        knob[k] = fg_knobs[k].dflt;
    for (const char *s = text ? text : ""; *s;) {
        size_t n = strcspn(s, "=,");
        int k = find(s, n), at = (int)(s - text) + 1;
        char *end = NULL;
        if (k == FG_NKNOBS) {
            const char *near = fg_closest(s, n, fg_knobs, FG_NKNOBS, sizeof *fg_knobs);
            return fg_error(cx, "%s:1:%d: no knob is called \"%s\"%s%s%s", what, at,
                            fg_printable(cx->arena, s, n, 40),
                            near ? "; did you mean \"" : "", near ? near : "",
                            near ? "\"?" : "");
        }
        const fg_knobinfo *i = &fg_knobs[k];
        long v = s[n] == '=' ? strtol(s + n + 1, &end, 10) : -1;
        if (!end || end == s + n + 1 || (*end && *end != ',') || v < i->lo || v > i->hi ||
            (i->power && (v & (v - 1))))
            return fg_error(cx, "%s:1:%d: %s is a number from %d to %d%s", what, at,
                            i->name, i->lo, i->hi,
                            i->power ? ", 0 or a power of two" : "");
        knob[k] = (int)v;
        s = end + (*end == ',');
    }
    return true;
}

void
fg_knobs_write(fg_text *t, const int *knob)
{
    bool first = true;

    for (int k = 0; k < FG_NKNOBS; k++)
        if (knob[k] != fg_knobs[k].dflt) {
            fg_putf(t, "%s%s=%d", first ? "" : ",", fg_knobs[k].name, knob[k]);
            first = false;
        }
}
