#!/usr/bin/env python3
"""What jinja2, set up as transformers does it, makes of tests/text/templates/*.jinja: cases.json beside them.

    templates.py tests/text/templates
"""
import glob, json, os, sys
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """{% generation %} marks what a model said; its text stays."""
    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


def raise_exception(text):
    raise TemplateError(text)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


ENV = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
ENV.filters["tojson"] = tojson
ENV.globals["raise_exception"] = raise_exception

U = lambda t: {"role": "user", "content": t}
A = lambda t: {"role": "assistant", "content": t}
S = lambda t: {"role": "system", "content": t}
TOOL = {"type": "function", "function": {"name": "sum", "description": "adds", "parameters": {"a": ["int"], "none": []}}}
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "sum", "arguments": {"a": 1, "b": "\u00e9\n"}}}]}
TALKS = [
    [U("Hello")], [S("Be brief. "), U(" Hi there ")], [U("Hi"), A(" Hello! "), U("Bye")],
    [S("s"), U("a\nb"), A("<think>\nhm\n</think>\n\nc"), U("d")], [U("\u4f60\u597d \U0001f600 <|im_end|> {{ x }}")],
    [U("a"), U("b")], [U("go"), CALL, {"role": "tool", "content": {"sum": 3}}, A("<think>y</think>3")], [U("")],
    [U([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}])], [A("first"), U("second")],
]


def main():
    cases = []
    for path in sorted(glob.glob(os.path.join(sys.argv[1], "*.jinja"))):
        name = os.path.basename(path)
        with open(path, encoding="utf-8") as f:
            template = ENV.from_string(f.read())
        for k, talk in enumerate(TALKS[:1] if name in ("language.jinja", "filters.jinja") else TALKS):
            for more in ({"add_generation_prompt": True}, {"add_generation_prompt": False, "enable_thinking": False,
                                                           "tools": [TOOL], "date": "2 June"}):
                given = dict(more, messages=talk, bos_token="<s>", eos_token="</s>")
                try:
                    out = template.render(**given)
                except Exception as e:
                    out = None
                cases.append({"file": name, "given": given, "out": out})
    with open(os.path.join(sys.argv[1], "cases.json"), "w", encoding="utf-8") as f:
        f.write("[" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "]\n")
    print(len(cases), "cases,", sum(c["out"] is None for c in cases), "errors")


if __name__ == "__main__":
    main()
