/* history.h - what became of each node of the model, pass by pass. */
#ifndef FG_TOOLS_HISTORY_H
#define FG_TOOLS_HISTORY_H

#include "passes/pass.h"

typedef struct history_event {
    const char *pass; /* "import" for the first */
    int round;
    const char *text; /* the instructions that stand for the node from here on; "" none */
} history_event;

typedef struct history_node {
    const char *name, *op; /* op: the ONNX operator, "" when not known */
    history_event *event;
    int nevent;
    size_t capevent;
    fg_inst **now; /* while a module is read */
    int nnow;
    size_t capnow;
} history_node;

typedef struct history {
    fg_arena *a;
    history_node *node; /* in the order of the model file */
    int n;
    size_t cap;
    uint32_t *slot; /* by interned name: index + 1 */
    size_t nslot;
} history;

history history_new(fg_arena *a);
/* The module after `pass`: nodes whose instructions are not what they were get an event. */
void history_note(history *h, fg_module *m, const char *pass, int round);
const history_node *history_find(const history *h, const char *name); /* interned */

/* The one node that `name` names: all of its name, or a part that no other has. NULL with a
 * diagnostic that says what there is. */
const history_node *history_named(const history *h, fg_ctx *cx, const char *name);

#endif
