/* cmd_devices.c - forge devices: what is here, with measured peaks. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/tool.h"

static void
tell(const tool_peak *p)
{
    printf(
        "     %d thread%s: %.0f GFLOP/s f32, %.0f bf16, %.0f int8; %.1f GB/s read from "
        "memory, %.0f from L3, %.0f from L2\n",
        p->threads, p->threads > 1 ? "s" : "", p->gflops[TOOL_F32], p->gflops[TOOL_BF16],
        p->gflops[TOOL_BYTES], p->gbps[TOOL_MEMORY], p->gbps[TOOL_L3], p->gbps[TOOL_L2]);
}

int
cmd_devices(int argc, char **argv)
{
    tool_common c;
    int json = 0;
    char model[256], features[512];
    const tool_option own[] = {{"--json", TOOL_FLAG, &json, "", "as JSON"},
                               {NULL, TOOL_FLAG, NULL, NULL, NULL}};

    tool_common_init(&c);
    int code = tool_parse(
        &c, own, "forge devices: what this machine has, with measured peaks", argc, argv);
    if (code)
        return code < 0 ? TOOL_OK : code;
    if (c.model)
        return tool_fail(TOOL_USAGE, "devices takes no model");
    int cores = tool_cores(),
        threads = c.threads > 0 && c.threads < 1024 ? c.threads : cores;
    tool_peak one = tool_measure_peak(1, 0),
              all = threads > 1 ? tool_measure_peak(threads, 0) : one;
    tool_cpu_model(model, sizeof model);
    tool_cpu_features(features, sizeof features);
    if (!json) {
        printf("cpu  %s\n     %d cores, %s\n", model, cores, features);
        tell(&one);
        if (threads > 1)
            tell(&all);
        return TOOL_OK;
    }
    cJSON *top = cJSON_CreateObject();
    cJSON *o = cJSON_CreateObject();
    cJSON_AddItemToArray(cJSON_AddArrayToObject(top, "devices"), o);
    cJSON_AddStringToObject(o, "device", "cpu");
    cJSON_AddStringToObject(o, "name", model);
    cJSON_AddNumberToObject(o, "cores", cores);
    cJSON_AddStringToObject(o, "features", features);
    cJSON_AddNumberToObject(o, "threads", threads);
    cJSON_AddNumberToObject(o, "gflops_1", one.gflops[TOOL_F32]);
    cJSON_AddNumberToObject(o, "gbps_1", one.gbps[TOOL_MEMORY]);
    cJSON_AddNumberToObject(o, "gflops", all.gflops[TOOL_F32]);
    cJSON_AddNumberToObject(o, "gbps", all.gbps[TOOL_MEMORY]);
    char *text = cJSON_PrintUnformatted(top);
    puts(text ? text : "{}");
    free(text);
    cJSON_Delete(top);
    return TOOL_OK;
}
