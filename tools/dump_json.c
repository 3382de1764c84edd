/* dump_json.c - the views of forge dump as JSON; what the report holds is taken out of it. */
#include "tools/dump.h"

static cJSON *
row(cJSON *list)
{
    cJSON *o = cJSON_CreateObject();

    cJSON_AddItemToArray(list, o);
    return o;
}

static void
copy(cJSON *to, const cJSON *from, const char *key)
{
    cJSON_AddItemToObject(to, key, cJSON_Duplicate(cJSON_GetObjectItem(from, key), 1));
}

cJSON *
dump_json_explain(const cJSON *report, const fg_report *r, const char *pass)
{
    cJSON *top = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(top, "missed");

    copy(top, report, "attention");
    copy(top, report, "fusions");
    for (const fg_miss *x = r->missed; x; x = x->next) {
        if (*pass && strcmp(pass, x->pass))
            continue;
        cJSON *o = row(list);
        cJSON_AddStringToObject(o, "pass", x->pass);
        cJSON_AddStringToObject(o, "node", x->node);
        cJSON_AddStringToObject(o, "reason", x->reason);
    }
    return top;
}

cJSON *
dump_json_plan(const cJSON *report, fg_module *m, fg_arena *a)
{
    cJSON *top = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(top, "registers");
    dump_memory d = dump_memory_of(m, a);

    for (int k = 0; k < d.n; k++) {
        const dump_buffer *b = &d.row[k];
        const fg_reginfo *ri = fg_ri(m, b->reg);
        const fg_inst *i = ri->def;
        cJSON *o = row(list);
        cJSON_AddStringToObject(o, "register", ri->name);
        cJSON_AddStringToObject(o, "storage", dump_storage(m, a, b->reg));
        cJSON_AddStringToObject(o, "type", fg_type_text(m, &ri->type));
        cJSON_AddNumberToObject(o, "bytes", (double)b->bytes);
        cJSON_AddNumberToObject(o, "first", b->live.first);
        cJSON_AddNumberToObject(o, "last", b->live.last);
        if (ri->mem == FG_MEM_ARENA)
            cJSON_AddNumberToObject(o, "offset", (double)ri->offset);
        if (i)
            cJSON_AddStringToObject(o, "made_by",
                                    i->op == FG_OP_kernel ? dump_kernel_name(i)
                                                          : fg_op_info(i->op)->name);
    }
    cJSON_AddNumberToObject(top, "positions", d.positions);
    cJSON_AddNumberToObject(top, "peak_bytes", (double)d.peak);
    cJSON_AddNumberToObject(top, "peak_at", d.peak_at);
    cJSON_AddNumberToObject(top, "constants", d.constants);
    cJSON_AddNumberToObject(top, "constant_bytes", (double)d.constant_bytes);
    copy(top, report, "buffers");
    return top;
}

static void
add_kernels(cJSON *list, fg_module *m, const fg_block *b)
{
    fg_each_inst(b, i) {
        if (i->op == FG_OP_kernel && !dump_is_alias(m, i)) {
            cJSON *o = row(list);
            cJSON_AddStringToObject(o, "kernel", dump_kernel_name(i));
            cJSON_AddStringToObject(o, "register", m->reg[i->out[0]].name);
            cJSON_AddStringToObject(o, "device", DUMP_DEVICE);
            cJSON_AddStringToObject(o, "reason", DUMP_DEVICE_REASON);
            if (fg_kernel_once(m, i))
                cJSON_AddTrueToObject(o, "once");
        }
        for (int k = 0; k < i->nregion && i->op != FG_OP_kernel; k++)
            add_kernels(list, m, i->region[k]);
    }
}

cJSON *
dump_json_placement(const cJSON *report, fg_module *m)
{
    cJSON *top = cJSON_Duplicate(cJSON_GetObjectItem(report, "placement"), 1);

    add_kernels(cJSON_AddArrayToObject(top, "kernels"), m, m->body);
    return top;
}

cJSON *
dump_json_node(fg_module *m, fg_arena *a, const history_node *n)
{
    const fg_inst *kernel = dump_kernel_of(m->body, n);
    cJSON *top = cJSON_CreateObject();

    cJSON_AddStringToObject(top, "node", n->name);
    cJSON_AddStringToObject(top, "op", n->op);
    cJSON *list = cJSON_AddArrayToObject(top, "history");
    for (int k = 0; k < n->nevent; k++) {
        cJSON *o = row(list);
        cJSON_AddStringToObject(o, "pass", n->event[k].pass);
        cJSON_AddNumberToObject(o, "round", n->event[k].round);
        cJSON_AddStringToObject(o, "text", n->event[k].text);
    }
    if (kernel) {
        cJSON *o = cJSON_AddObjectToObject(top, "kernel");
        cJSON_AddStringToObject(o, "name", dump_kernel_name(kernel));
        cJSON_AddStringToObject(o, "register", m->reg[kernel->out[0]].name);
        cJSON_AddStringToObject(o, "storage", dump_storage(m, a, kernel->out[0]));
        cJSON_AddStringToObject(o, "device", DUMP_DEVICE);
    }
    return top;
}
