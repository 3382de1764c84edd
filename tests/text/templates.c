/* templates.c - chat templates against what jinja2 made of them (tests/text/templates.py).
 *
 *     test-templates tests/text/templates
 */
#include <cjson/cJSON.h>
#include <stdio.h>

#include "text/template.h"
#include "text/tokenizer.h"

static int passed, failed;

static void
check(const char *folder, const cJSON *c, int k)
{
    fg_ctx *cx = fg_ctx_new(NULL);
    fg_arena *a = fg_arena_new(cx);
    const char *file = cJSON_GetObjectItem(c, "file")->valuestring;
    const cJSON *want = cJSON_GetObjectItem(c, "out");
    fg_str text = {0}, out = {0};
    bool ok =
        fg_file_read(cx, a, fg_format(a, "%s/%s", folder, file), 1 << 20, &text) &&
        fg_template_render(cx, a, file, text, cJSON_GetObjectItem(c, "given"), &out);
    bool same =
        cJSON_IsString(want) ? ok && fg_str_same(out, fg_str_of(want->valuestring)) : !ok;

    passed += same;
    failed += !same;
    if (!same)
        printf("%s, case %d\n--- got %s\n%.*s\n--- expected\n%s\n", file, k,
               fg_first_error(cx), (int)out.n, out.s ? out.s : "",
               cJSON_IsString(want) ? want->valuestring : "an error");
    fg_ctx_free(cx);
}

/* Templates that are wrong or do not end: one line that says so. */
static void
refuse(const char *template, const char *message)
{
    fg_ctx *cx = fg_ctx_new(NULL);
    fg_arena *a = fg_arena_new(cx);
    fg_str out;
    bool ok = fg_template_render(cx, a, "t", fg_str_of(template), NULL, &out);
    const char *got = fg_first_error(cx);

    ok = !ok && strstr(got, message) && !strchr(got, '\n');
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("%.60s\n--- says \"%s\", expected \"%s\"\n", template, got, message);
    fg_ctx_free(cx);
}

static void
refuse_repeated(const char *before, const char *part, int n, const char *message)
{
    fg_ctx *cx = fg_ctx_new(NULL);
    fg_text t = fg_text_new(fg_arena_new(cx));

    fg_puts(&t, before);
    while (n--)
        fg_puts(&t, part);
    refuse(t.s, message);
    fg_ctx_free(cx);
}

static void
test_wrong(void)
{
    refuse("{{ 1 +", "line 1");
    refuse("a\n{{ }}", "line 2: expected an expression");
    refuse("{% if x %}", "a block is not closed by \"elif\"");
    refuse("{% endfor %}", "statement \"endfor\" is not supported");
    refuse("{% include 'x' %}", "statement \"include\"");
    refuse("{{ 'abc }}", "a string has no end");
    refuse("{# abc", "a comment has no end");
    refuse("{{ x.y.z }}", "\"x\" is undefined");
    refuse("{{ x() }}", "\"x\" is undefined");
    refuse("{{ 'a' + 1 }}", "does not take text and an integer");
    refuse("{{ 1 // 0 }}{{ 1 % 0 }}", "division by zero");
    refuse("{{ 9223372036854775807 + 1 }}", "too large");
    refuse("{{ 'a' | shout }}", "filter \"shout\"");
    refuse("{{ 'a' is loud }}", "test \"loud\"");
    refuse("{{ 'a'.bark() }}", "no method \"bark\"");
    refuse("{{ raise_exception('a\nb') }}", "a\\x0ab");
    refuse("{% set 1 = 2 %}", "only a name");
    refuse("{% set x = [1] %}{% set x.y = 2 %}", "cannot be set");
    refuse("{% for a, b in [1] %}{% endfor %}", "an integer has no members");
    refuse("{% set a, b = 'abc' %}", "2 names for 3 values");
    refuse("{{ 1 ? 2 }}", "unexpected character");
    refuse("{{ [1, 'a'] | sort }}", "no order");
    refuse("{{ 'a' is gt 1 }}", "text and an integer have no order");
    refuse("{{ '%d' % 'x' }}{{ '%s %s' % 'x' }}", "a format does not fit");
    refuse("{{ '%' % 1 }}", "a format does not fit");
    refuse("{{ 'abc'.index('x') }}", "no such part");
    refuse("{{ 'abc'.rsplit('') }}", "a separator");
    refuse("{{ {} | abs }}", "a dict has no amount");
    refuse("{{ {1: 2} }}", "an integer as the key of a dict is not supported");
    refuse("{{ dict([(none, 2)]) }}", "as the key of a dict is not supported");
    refuse("{{ dict(['abc']) }}", "are two, not 3");
}

static void
test_endless(void)
{
    refuse("{% for i in range(100000000) %}{% endfor %}", "too many steps");
    refuse("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "too deep");
    refuse("{% set n = namespace(s='aaaaaaaa') %}{% for i in range(99) %}{% set n.s = "
           "n.s ~ n.s %}"
           "{% endfor %}",
           "too");
    refuse(
        "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = [n.s, n.s] %}"
        "{% endfor %}{{ n.s == n.s }}{{ n.s }}",
        "too");
    refuse("{{ 'aaaaaaaa' * 10000000000 }}", "too");
    refuse("{{ '' * 10000000000 }}", "too many steps");
    refuse("{{ [1] * 10000000000 }}", "too many steps");
    refuse("{{ range(100000) | unique | list }}", "too many steps");
    refuse("{{ ('%1000d' * 100000) | format(1) }}", "a format does not fit");
    refuse_repeated("{{ ", "(", 100000, "too deep");
    refuse_repeated("{{ ", "not ", 100000, "too deep");
    refuse_repeated("{{ ", "-", 100000, "too deep");
    refuse_repeated("{{ ", "1 if 1 else ", 100000, "too deep");
    refuse_repeated("", "{% if 1 %}", 100000, "too deep");
    refuse_repeated("{{ 1", " + 1", 100000, "a tag has no end");
    refuse_repeated("{{ x", ".a", 100000, "a tag has no end");
}

int
main(int argc, char **argv)
{
    fg_ctx *cx = fg_ctx_new(NULL);
    fg_arena *a = fg_arena_new(cx);

    for (int i = 1; i < argc; i++) {
        fg_str text = {0};
        fg_file_read(cx, a, fg_format(a, "%s/cases.json", argv[i]), (size_t)1 << 28,
                     &text);
        cJSON *cases = cJSON_ParseWithLength(text.s, text.n), *c;
        int k = 0;
        cJSON_ArrayForEach(c, cases) check(argv[i], c, k++);
        cJSON_Delete(cases);
    }
    test_wrong();
    test_endless();
    fg_ctx_free(cx);
    printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed;
}
