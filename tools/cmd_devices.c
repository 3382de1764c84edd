/* cmd_devices.c - forge devices: what is here, with measured peaks. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/tool.h"

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
        printf("     1 thread: %.1f GFLOP/s f32, %.1f GB/s read; %d threads: %.1f "
               "GFLOP/s, %.1f GB/s\n",
               one.gflops, one.gbps, threads, all.gflops, all.gbps);
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
    cJSON_AddNumberToObject(o, "gflops_1", one.gflops);
    cJSON_AddNumberToObject(o, "gbps_1", one.gbps);
    cJSON_AddNumberToObject(o, "gflops", all.gflops);
    cJSON_AddNumberToObject(o, "gbps", all.gbps);
    char *text = cJSON_PrintUnformatted(top);
    puts(text ? text : "{}");
    free(text);
    cJSON_Delete(top);
    return TOOL_OK;
}
