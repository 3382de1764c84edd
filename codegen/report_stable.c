/* report_stable.c - a report without what differs from one compilation to the next. */
#include <cjson/cJSON.h>
#include <stdlib.h>

#include "codegen/save.h"

static bool
is_measured(const char *key)
{
    size_t n = strlen(key);

    return !strcmp(key, "ms") || !strncmp(key, "ms_", 3) || !strncmp(key, "rss_", 4) ||
           (n > 3 && !strcmp(key + n - 3, "_ms"));
}

static void
clear(cJSON *o)
{
    for (; o; o = o->next) {
        if (cJSON_IsNumber(o) && o->string && is_measured(o->string))
            cJSON_SetNumberValue(o, 0);
        clear(o->child);
    }
}

const char *
fg_report_stable(fg_arena *a, const char *json)
{
    cJSON *top = cJSON_Parse(json);

    clear(top);
    char *text = top ? cJSON_Print(top) : NULL;
    const char *kept = text ? fg_strdup(a, text) : json;
    free(text);
    cJSON_Delete(top);
    return kept;
}
