/* knobs.c - --knobs: the options that a report, or forge tune, says a build was made with.
 *
 *     -O1 --passes=dce,cse,fold,..,fuse_ops{size=24} --codegen=rows=5 --threads=2
 *
 * The text is options of the command line, parted by blanks; @FILE is the text of a file.
 */
#include "tools/knobs.h"

#include <errno.h>
#include <stdio.h>

static int
read_file(const char *path, char *text, size_t room)
{
    FILE *f = fopen(path, "r");

    if (!f)
        return tool_fail(TOOL_FAILED, "--knobs=@%.300s: %s", path, strerror(errno));
    size_t n = fread(text, 1, room, f);
    bool bad = ferror(f);
    fclose(f);
    if (bad || n == room)
        return tool_fail(TOOL_FAILED, "--knobs=@%.300s: %s", path,
                         bad ? "cannot be read" : "too long");
    text[n] = '\0';
    return strlen(text) == n ? TOOL_OK
                             : tool_fail(TOOL_USAGE, "--knobs=@%.300s: not text", path);
}

int
tool_knobs_split(const char *given, char **word, int most, int *n)
{
    static char
        text[1 << 16]; /* the options point into it for as long as the tool runs */
    static const char blanks[] = " \t\r\n";

    *n = 0;
    if (strlen(given) >= sizeof text)
        return tool_fail(TOOL_USAGE, "--knobs: too long");
    strcpy(text, given);
    if (*given == '@' && read_file(given + 1, text, sizeof text))
        return TOOL_FAILED;
    for (char *s = strtok(text, blanks); s; s = strtok(NULL, blanks)) {
        if (*n == most || *s != '-' || !strncmp(s, "--knobs", 7))
            return tool_fail(TOOL_USAGE,
                             "--knobs: \"%.60s\" is not an option that can be "
                             "given there",
                             s);
        word[(*n)++] = s;
    }
    return TOOL_OK;
}
