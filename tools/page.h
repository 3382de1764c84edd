/* page.h - what the compiler did as one HTML file that needs nothing else. */
#ifndef FG_TOOLS_PAGE_H
#define FG_TOOLS_PAGE_H

#include <cjson/cJSON.h>

#include "tools/history.h"
#include "tools/measure.h"

/* The instructions of @main; names of nodes are their numbers in the history. */
cJSON *page_graph(fg_module *m, const history *h);

typedef struct page {
    cJSON *imported, *optimised; /* graphs, taken over */
    const history *history;
    const measure *measured;
} page;

/* Of a PLACED module with its program; in c->a. */
const char *page_html(fg_compiled *c, page *p);

#endif
