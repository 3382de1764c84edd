#!/usr/bin/env python3
"""Hostile models, made on the fly: each must end with exit 1 and one clear line, or with exit 0 when it is
merely odd; never with a signal, a sanitizer report, 10 seconds or a gigabyte.

    hostile.py build/forge [--filter REGEX] [--keep DIR] [--jobs N]

Files are written byte by byte: what is wrong with them is what a library would refuse to write.
"""
import argparse, concurrent.futures, os, re, resource, struct, subprocess, sys, tempfile, time

BAD, ODD = "bad", "odd"         # must be refused; may be refused
FLOAT, INT32, STRING, INT64, BOOL = 1, 6, 8, 7, 9


# ---- protocol buffers ------------------------------------------------------------------------

def varint(v):
    v &= (1 << 64) - 1
    out = b""
    while v > 127:
        out += bytes([v & 127 | 128])
        v >>= 7
    return out + bytes([v])


def num(field, v):
    return varint(field << 3) + varint(v)


def blob(field, data):
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def f32(field, v):
    return varint(field << 3 | 5) + struct.pack("<f", v)


# ---- ONNX ------------------------------------------------------------------------------------

def tensor(dims, dtype=FLOAT, raw=None, name="t", extra=b""):
    return (b"".join(num(1, d) for d in dims) + num(2, dtype) + blob(8, name)
            + (blob(9, raw) if raw is not None else b"") + extra)


def type_of(dtype, dims):
    shape = b"".join(blob(1, blob(2, d) if isinstance(d, str) else num(1, d)) for d in dims)
    return blob(1, num(1, dtype) + blob(2, shape))


def value(name, dtype=FLOAT, dims=(2,)):
    return blob(1, name) + blob(2, type_of(dtype, dims))


def attr(name, kind, payload):
    return blob(5, blob(1, name) + payload + num(20, kind))


def a_int(name, v):
    return attr(name, 2, num(3, v))


def a_ints(name, v):
    return attr(name, 7, b"".join(num(8, x) for x in v))


def a_tensor(name, t):
    return attr(name, 4, blob(5, t))


def a_graph(name, g):
    return attr(name, 5, blob(6, g))


def node(op, ins, outs, attrs=b"", domain="", name="n"):
    return (b"".join(blob(1, i) for i in ins) + b"".join(blob(2, o) for o in outs) + blob(3, name)
            + blob(4, op) + attrs + (blob(7, domain) if domain else b""))


def graph(nodes, inputs=(), outputs=(), inits=(), extra=b""):
    return (b"".join(blob(1, n) for n in nodes) + blob(2, "g") + b"".join(blob(5, i) for i in inits)
            + b"".join(blob(11, i) for i in inputs) + b"".join(blob(12, o) for o in outputs) + extra)


def opset(version=17, domain=""):
    return blob(8, (blob(1, domain) if domain else b"") + num(2, version))


def model(g, ir=8, opsets=None, extra=b""):
    return num(1, ir) + blob(7, g) + (opset() if opsets is None else opsets) + extra


def function(name, nodes, ins=("x",), outs=("y",), domain="my"):
    return blob(25, blob(1, name) + b"".join(blob(4, i) for i in ins) + b"".join(blob(5, o) for o in outs)
                + b"".join(blob(7, n) for n in nodes) + blob(9, num(2, 17)) + blob(10, domain))


X, Y = value("x"), value("y")
DATA = struct.pack("<2f", 1, 2)


def one(op, ins=("x",), outs=("y",), attrs=b"", inits=(), domain="", **kw):
    """A model of one node on the input x."""
    return model(graph([node(op, ins, outs, attrs, domain)], [X], [value(o) for o in outs if o], inits), **kw)


def with_tensor(t):
    """A tensor as an initializer, as an attribute, and inside a branch: one accessor serves them all."""
    branch = graph([node("Identity", ["t"], ["b"])], [], [value("b")], [t])
    return {
        "init": model(graph([node("Add", ["x", "t"], ["y"])], [X], [Y], [t])),
        "attr": model(graph([node("Constant", [], ["t"], a_tensor("value", t)), node("Add", ["x", "t"], ["y"])], [X], [Y])),
        "branch": model(graph([node("If", ["c"], ["y"], a_graph("then_branch", branch) + a_graph("else_branch", branch))],
                              [value("c", BOOL, ())], [Y])),
    }


GOOD = one("Add", ["x", "w"], inits=[tensor([2], raw=DATA, name="w")])

CASES = []                      # (name, what is expected, bytes or a function of the folder)


def case(name, expect, data):
    CASES.append((name, expect, data))


def tensor_case(name, expect, t):
    for where, data in with_tensor(t).items():
        case(f"tensor/{name}/{where}", expect, data)


# ---- wire format -----------------------------------------------------------------------------

case("wire/good", "good", GOOD)
case("wire/empty", BAD, b"")
case("wire/one-byte", BAD, b"\x7f")
for cut in range(1, len(GOOD), 3):
    case(f"wire/cut-{cut}", ODD, GOOD[:cut])
for at in range(0, len(GOOD), 2):
    case(f"wire/flip-{at}", ODD, GOOD[:at] + bytes([GOOD[at] ^ 0x80]) + GOOD[at + 1:])
case("wire/varint-11", BAD, b"\x08" + b"\x80" * 10 + b"\x01")
case("wire/length-past-end", BAD, varint(7 << 3 | 2) + varint(1000) + b"x")
case("wire/length-2g", BAD, varint(7 << 3 | 2) + varint(1 << 31) + b"x")
case("wire/length-2-63", BAD, varint(7 << 3 | 2) + varint(1 << 63) + b"x")
case("wire/wrong-kind", BAD, num(7, 5) + GOOD)
case("wire/string-as-number", BAD, model(graph([num(4, 3)], [X], [Y])))
case("wire/group", BAD, GOOD + varint(30 << 3 | 3) + varint(30 << 3 | 4))
case("wire/field-zero", BAD, GOOD + b"\x02\x00")
case("wire/unknown-fields", "good", GOOD + blob(999, "x" * 100) + num(777, 1) + f32(888, 1) + blob(1001, "y"))
case("wire/private-fields", BAD, model(graph([node("Add", ["x", "w"], ["y"])], [X], [Y],
                                             [tensor([2], name="w", extra=blob(1001, num(1, 9) + num(2, 1) + num(3, 0) + num(4, 8)))])))
case("wire/merged-graph", "good", num(1, 8) + opset() + blob(7, graph([node("Add", ["x", "w"], ["y"])], [X], [Y]))
     + blob(7, blob(5, tensor([2], raw=DATA, name="w"))))
deep = b""
for _ in range(3000):
    deep = blob(1, blob(5, blob(1, "g") + blob(6, deep) + num(20, 5)))
case("wire/deep-graphs", BAD, model(deep))
deep = type_of(FLOAT, [2])
for _ in range(5000):
    deep = blob(4, blob(1, deep))
case("wire/deep-types", BAD, model(graph([], [blob(1, "x") + blob(2, deep)], [Y])))
case("wire/many-nodes", BAD, model(blob(1, b"") * 1000000))
case("wire/many-nodes-3m", BAD, model(blob(1, b"") * 3000000))
case("wire/many-attributes", BAD, model(graph([node("Relu", ["x"], ["y"], blob(5, b"") * 1000000)], [X], [Y])))
case("wire/many-named-attributes", ODD, model(graph([node("Relu", ["x"], ["y"], b"".join(a_int(f"a{i}", 1) for i in range(100000)))], [X], [Y])))
case("wire/many-dims", BAD, model(graph([node("Relu", ["t"], ["y"])], [X], [Y], [blob(1, b"\x01" * 2000000) + num(2, 1) + blob(8, "t")])))
case("wire/many-opsets", ODD, model(graph([node("Relu", ["x"], ["y"])], [X], [Y]), opsets=opset() * 200000))
case("wire/many-names", BAD, model(graph([blob(1, b"") * 2000000 + blob(4, "Sum")], [X], [Y])))
case("wire/many-inputs", BAD, model(graph([], [value(f"i{k}") for k in range(40000)], [value("i0")])))
case("wire/nul-in-name", BAD, model(graph([node("Relu", ["x"], ["y"], name="a\0b")], [X], [Y])))
case("wire/not-utf8", ODD, model(graph([node(b"\xff\xfe\x1b[31m", ["x"], ["y"])], [X], [Y])))
case("wire/control-characters", BAD, model(graph([node("Re\nlu\x1b[2J\u202e", ["x"], ["y"], name="a\r\nforge: fine")], [X], [Y])))
case("wire/long-name", BAD, model(graph([node("R" * 100000, ["x"], ["y"], name="n" * 100000)], [X], [Y])))

# ---- graph -----------------------------------------------------------------------------------

relu = node("Relu", ["x"], ["y"])
case("graph/missing", BAD, num(1, 8) + opset())
case("graph/no-ir", BAD, blob(7, graph([relu], [X], [Y])) + opset())
for v in (0, -1, 1 << 62):
    case(f"graph/ir-{v}", BAD, model(graph([relu], [X], [Y]), ir=v))
    case(f"graph/opset-{v}", BAD, model(graph([relu], [X], [Y]), opsets=opset(v)))
case("graph/opset-future", "good", model(graph([relu], [X], [Y]), opsets=opset(40)))
case("graph/opset-none", BAD, model(graph([relu], [X], [Y]), opsets=b""))
case("graph/opset-twice", BAD, model(graph([relu], [X], [Y]), opsets=opset(17) + opset(18)))
case("graph/cycle", BAD, model(graph([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"])], [X], [value("b")])))
case("graph/self", BAD, model(graph([node("Add", ["x", "y"], ["y"])], [X], [Y])))
case("graph/unsorted", "good", model(graph([node("Relu", ["a"], ["y"]), node("Neg", ["x"], ["a"])], [X], [Y])))
case("graph/undefined", BAD, model(graph([node("Relu", ["q"], ["y"])], [X], [Y])))
case("graph/defined-twice", BAD, model(graph([relu, relu], [X], [Y])))
case("graph/input-twice", BAD, model(graph([relu], [X, X], [Y])))
case("graph/output-undefined", BAD, model(graph([relu], [X], [value("z")])))
case("graph/output-is-input", "good", model(graph([], [X], [X])))
case("graph/output-is-constant", "good", model(graph([], [X], [value("w")], [tensor([2], raw=DATA, name="w")])))
case("graph/no-outputs", BAD, model(graph([relu], [X], [])))
case("graph/no-operator", BAD, model(graph([node("", ["x"], ["y"])], [X], [Y])))
case("graph/unknown-operator", BAD, one("Frobnicate"))
case("graph/unknown-domain", BAD, one("Relu", domain="nowhere"))
case("graph/input-without-type", BAD, model(graph([relu], [blob(1, "x")], [Y])))
case("graph/input-type-99", BAD, model(graph([relu], [value("x", 99)], [Y])))
case("graph/input-rank-100", BAD, model(graph([relu], [value("x", FLOAT, [1] * 100)], [Y])))
case("graph/input-huge", ODD, model(graph([relu], [value("x", FLOAT, [1 << 40, 1 << 40])], [Y])))
case("graph/too-few-operands", BAD, one("Add"))
case("graph/too-many-operands", BAD, one("Relu", ["x", "x"]))
case("graph/too-many-outputs", BAD, one("Relu", outs=["y", "z"]))
case("graph/attribute-twice", BAD, one("Softmax", attrs=a_int("axis", 0) + a_int("axis", 0)))
case("graph/attribute-wrong-kind", BAD, one("Softmax", attrs=attr("axis", 1, f32(2, 1))))
case("graph/attribute-lies", BAD, one("Softmax", attrs=attr("axis", 2, f32(2, 1))))
case("graph/attribute-nameless", BAD, one("Softmax", attrs=a_int("", 0)))
case("graph/attribute-reference", BAD, one("Softmax", attrs=blob(5, blob(1, "axis") + blob(21, "a") + num(20, 2))))
case("graph/attribute-without-kind", "good", model(graph([node("Softmax", ["x"], ["y"], blob(5, blob(1, "axis") + num(3, 0)))], [X], [Y])))
case("graph/dim-expression-bomb", ODD, model(graph([relu], [value("x", FLOAT, ["(" * 50000]), value("z", FLOAT, ["-" * 50000 + "a"])], [Y])))
case("graph/dim-expression-power", ODD, model(graph([relu], [value("x", FLOAT, ["a", "b", "*".join(["(a+b)"] * 60)])], [Y])))

# ---- tensors ---------------------------------------------------------------------------------

tensor_case("short", BAD, tensor([2], raw=DATA[:7]))
tensor_case("long", ODD, tensor([2], raw=DATA + b"x"))
tensor_case("none", BAD, tensor([2]))
tensor_case("typed-short", BAD, tensor([2], extra=blob(4, DATA[:4])))
tensor_case("typed-long", BAD, tensor([2], extra=blob(4, DATA * 2)))
tensor_case("typed-unpacked", "good", tensor([2], extra=f32(4, 1) + f32(4, 2)))
tensor_case("typed-cut", BAD, tensor([2], extra=blob(4, DATA[:7])))
tensor_case("wrong-family", BAD, tensor([2], extra=blob(5, b"\x01\x02")))
tensor_case("two-payloads", BAD, tensor([2], raw=DATA, extra=blob(4, DATA)))
tensor_case("zero-elements-with-data", BAD, tensor([0], raw=DATA))
tensor_case("string-raw", BAD, tensor([2], STRING, raw=DATA))
tensor_case("negative-dim", BAD, tensor([-2], raw=DATA))
tensor_case("huge-dims", BAD, tensor([(1 << 63) - 1, (1 << 63) - 1], raw=DATA))
tensor_case("overflow-to-small", BAD, tensor([1 << 32, 1 << 32, 2], raw=DATA))
tensor_case("overflow-in-bytes", BAD, tensor([1 << 61], raw=DATA))
tensor_case("zero-and-huge", ODD, tensor([0, (1 << 63) - 1, 8], raw=b""))
tensor_case("rank-10000", BAD, tensor([1] * 10000, raw=DATA))
for code in (0, 27, -1, 14):
    tensor_case(f"type-{code}", BAD, tensor([2], code, raw=DATA))
tensor_case("segment", BAD, tensor([2], raw=DATA, extra=blob(3, num(1, 0) + num(2, 1))))
tensor_case("external-and-raw", BAD, tensor([2], raw=DATA, extra=num(14, 1)))
tensor_case("location-7", BAD, tensor([2], raw=DATA, extra=num(14, 7)))
case("tensor/bool-seven", "good", model(graph([node("Where", ["b", "x", "x"], ["y"])], [X], [Y], [tensor([2], BOOL, b"\x07\x00", "b")])))
case("tensor/typed-claims-much", BAD, model(graph([relu], [X], [Y], [tensor([1 << 30], INT32, extra=blob(5, b"\x01" * 100))])))


def sparse(values, indices, dims):
    return model(graph([node("Identity", ["s"], ["y"])], [X], [Y],
                       extra=blob(15, blob(1, values) + blob(2, indices) + b"".join(num(3, d) for d in dims))))


def longs(*v):
    return tensor([len(v)], INT64, struct.pack(f"<{len(v)}q", *v), "i")


PAIR = tensor([2], raw=DATA, name="s")
case("sparse/good", "good", sparse(PAIR, longs(1, 3), [5]))
case("sparse/unsorted", BAD, sparse(PAIR, longs(3, 1), [5]))
case("sparse/duplicate", BAD, sparse(PAIR, longs(3, 3), [5]))
case("sparse/out-of-range", BAD, sparse(PAIR, longs(1, 5), [5]))
case("sparse/negative", BAD, sparse(PAIR, longs(-1, 1), [5]))
case("sparse/mismatch", BAD, sparse(PAIR, longs(1, 2, 3), [5]))
case("sparse/huge", BAD, sparse(PAIR, longs(1, 2), [1 << 40]))
case("sparse/overflow", BAD, sparse(PAIR, longs(1, 2), [1 << 40, 1 << 40]))
case("sparse/wrong-type", BAD, sparse(PAIR, tensor([2], FLOAT, DATA, "i"), [5]))

# ---- external data -----------------------------------------------------------------------------


def external(location, offset=None, length=None, extra=()):
    keys = ([("location", location)] if location is not None else []) + list(extra)
    keys += [("offset", str(offset))] if offset is not None else []
    keys += [("length", str(length))] if length is not None else []
    return tensor([2], extra=b"".join(blob(13, blob(1, k) + blob(2, v)) for k, v in keys) + num(14, 1))


def beside(make, t):
    """The model in a folder that `make` has filled; w.bin holds 16 bytes."""
    def build(folder, data):
        with open(os.path.join(folder, "w.bin"), "wb") as f:
            f.write(DATA * 2)
        os.makedirs(os.path.join(folder, "sub"))
        if make:
            make(folder)
        return data
    for where, data in with_tensor(t).items():
        yield where, (lambda folder, data=data: build(folder, data))


def external_case(name, expect, t, make=None):
    for where, data in beside(make, t):
        case(f"external/{name}/{where}", expect, data)


def link(target, name):
    return lambda folder: os.symlink(target, os.path.join(folder, name))


def hard(folder):
    os.link(os.path.join(folder, "w.bin"), os.path.join(folder, "h.bin"))


external_case("good", "good", external("w.bin", 0, 8))
external_case("odd-offset", "good", external("w.bin", 3, 8))
external_case("no-length", "good", external("w.bin"))
for label, location in {
        "parent": "../w.bin", "parent-inside": "sub/../w.bin", "climb": "a/../../b", "absolute": "/etc/passwd",
        "drive": "C:\\w.bin", "backslash": "..\\w.bin", "none": "", "dot": ".", "double-slash": "sub//w.bin",
        "trailing-slash": "w.bin/", "long": "x" * 4090, "very-long": "x/" * 30000, "missing": "nothing.bin",
        "folder": "sub", "percent": "%2e%2e/w.bin", "unc": "//host/share", "newline": "a\nb"}.items():
    external_case(label, BAD, external(location))
external_case("no-location", BAD, external(None))
external_case("link", BAD, external("l.bin"), link("w.bin", "l.bin"))
external_case("link-out", BAD, external("l.bin"), link("/etc/hostname", "l.bin"))
external_case("link-folder", BAD, external("d/w.bin"), link(".", "d"))
external_case("hard-link", BAD, external("h.bin"), hard)
external_case("pipe", BAD, external("p"), lambda folder: os.mkfifo(os.path.join(folder, "p")))
external_case("device", BAD, external("n"), link("/dev/zero", "n"))
for label, offset in {"negative": -1, "word": "x", "plus": "+1", "hex": "0x1", "2-64": 1 << 64, "past": 17, "edge": 9, "max": (1 << 63) - 1,
                      "wrap": (1 << 64) - 4}.items():
    external_case(f"offset-{label}", BAD, external("w.bin", offset, 8))
for label, length in {"negative": -1, "short": 7, "past": 17, "2-64": 1 << 64, "huge": (1 << 63) - 1}.items():
    external_case(f"length-{label}", BAD, external("w.bin", 0, length))
external_case("length-long", ODD, external("w.bin", 0, 12))
external_case("same-key-twice", BAD, external("w.bin", extra=[("location", "w.bin")]))
external_case("unknown-keys", "good", external("w.bin", extra=[("basepath", "/"), ("__class__", "x"), ("checksum", "0")]))

# ---- control flow and functions -----------------------------------------------------------------

C = value("c", BOOL, ())
M = value("m", INT64, ())


def branches(a, b, outs=("y",)):
    return model(graph([node("If", ["c"], outs, a_graph("then_branch", a) + a_graph("else_branch", b))], [X, C],
                       [value(o) for o in outs]))


def returns(*names):
    return graph([node("Relu", ["x"], [n]) for n in names], [], [value(n) for n in names])


case("flow/if", "good", branches(returns("a"), returns("b")))
case("flow/if-counts-differ", BAD, branches(returns("a"), returns("b", "d")))
case("flow/if-no-branch", BAD, one("If"))
case("flow/if-undefined-result", BAD, branches(graph([], [], [value("q")]), returns("b")))
case("flow/if-inputs", BAD, branches(graph([node("Relu", ["p"], ["a"])], [value("p")], [value("a")]), returns("b")))
case("flow/if-ranks-differ", ODD, branches(returns("a"), graph([node("Shape", ["x"], ["s"]), node("ReduceSum", ["x"], ["b"], a_int("keepdims", 0))], [], [value("b", FLOAT, ())])))


def loop(body, ins=("m", "", "x"), outs=("y",), inits=()):
    return model(graph([node("Loop", ins, outs, a_graph("body", body))], [X, M], [value(o) for o in outs], inits))


HEAD = [value("i", INT64, ()), value("go", BOOL, ()), value("a")]
TRUE = node("Constant", [], ["on"], a_tensor("value", tensor([], BOOL, b"\x01")))
step = [TRUE, node("Relu", ["a"], ["b"])]
case("flow/loop", "good", loop(graph(step, HEAD, [value("on", BOOL, ()), value("b")])))
case("flow/loop-endless", BAD, loop(graph(step, HEAD, [value("on", BOOL, ()), value("b")]), ins=("", "", "x")))
case("flow/loop-max-trips", BAD, loop(graph(step, HEAD, [value("on", BOOL, ()), value("b")]), ins=("k", "", "x"),
                                      inits=[tensor([], INT64, struct.pack("<q", (1 << 63) - 1), "k")]))
case("flow/loop-grows", ODD, loop(graph([TRUE, node("Concat", ["a", "a"], ["b"], a_int("axis", 0))], HEAD, [value("on", BOOL, ()), value("b")])))
case("flow/loop-rank-grows", BAD, loop(graph([TRUE, node("Unsqueeze", ["a", "z"], ["b"])], HEAD, [value("on", BOOL, ()), value("b")],
                                             [tensor([1], INT64, bytes(8), "z")])))
case("flow/loop-too-few-results", BAD, loop(graph(step, HEAD, [value("on", BOOL, ())])))
case("flow/loop-no-parameters", BAD, loop(graph(step, [], [value("on", BOOL, ()), value("b")])))
case("flow/loop-type-changes", BAD, loop(graph([TRUE, node("Shape", ["a"], ["b"])], HEAD, [value("on", BOOL, ()), value("b")])))
case("flow/scan-none", BAD, one("Scan", attrs=a_int("num_scan_inputs", 0) + a_graph("body", returns("b"))))
case("flow/scan-many", BAD, one("Scan", attrs=a_int("num_scan_inputs", 1 << 40) + a_graph("body", returns("b"))))
nest = graph([TRUE, node("Identity", ["a"], ["b"])], HEAD, [value("on", BOOL, ()), value("b")])
for level in range(12):
    nest = graph([TRUE, node("Concat", ["a", "x"], ["e"], a_int("axis", 0)), node("Loop", ["m", "", "e"], ["b"], a_graph("body", nest))],
                 HEAD, [value("on", BOOL, ()), value("b")])
case("flow/loops-nested-growing", ODD, loop(nest))

MY = opset() + opset(1, "my")


def calls(name, *fns):
    return model(graph([node(name, ["x"], ["y"], domain="my")], [X], [Y]), opsets=MY, extra=b"".join(fns))


case("function/good", "good", calls("f", function("f", [node("Relu", ["x"], ["y"])])))
case("function/self", BAD, calls("f", function("f", [node("f", ["x"], ["y"], domain="my")])))
case("function/mutual", BAD, calls("f", function("f", [node("g", ["x"], ["y"], domain="my")]),
                                   function("g", [node("f", ["x"], ["y"], domain="my")])))
inner = graph([node("f", ["x"], ["b"], domain="my")], [], [value("b")])
case("function/self-through-if", BAD, calls("f", function("f", [
    node("Constant", [], ["c"], a_tensor("value", tensor([], BOOL, b"\x01"))),
    node("If", ["c"], ["y"], a_graph("then_branch", inner) + a_graph("else_branch", inner))])))
case("function/doubling", BAD, calls("f60", function("f0", [node("Relu", ["x"], ["y"])]), *[
    function(f"f{i}", [node(f"f{i - 1}", ["x"], ["t"], domain="my"), node(f"f{i - 1}", ["t"], ["y"], domain="my")])
    for i in range(1, 61)]))
case("function/chain-1000", BAD, calls("f1000", function("f0", [node("Relu", ["x"], ["y"])]), *[
    function(f"f{i}", [node(f"f{i - 1}", ["x"], ["y"], domain="my")]) for i in range(1, 1001)]))
case("function/twice", BAD, calls("f", *[function("f", [node("Relu", ["x"], ["y"])])] * 2))
case("function/no-result", BAD, calls("f", function("f", [])))
case("function/overrides", "good", model(graph([relu], [X], [Y]), extra=function("Relu", [node("Neg", ["x"], ["y"])], domain="")))

# ---- operators ---------------------------------------------------------------------------------


def ints(name, *v):
    return tensor([len(v)], INT64, struct.pack(f"<{len(v)}q", *v), name)


FAR = (1 << 63) - 1
for axis in (1, -2, FAR, -FAR - 1):
    case(f"op/softmax-axis{axis}", BAD, one("Softmax", attrs=a_int("axis", axis)))
    case(f"op/gather-axis{axis}", BAD, one("Gather", ["x", "i"], attrs=a_int("axis", axis), inits=[ints("i", 0)]))
case("op/transpose-perm", BAD, one("Transpose", attrs=a_ints("perm", [1])))
case("op/reduce-axes-twice", BAD, one("ReduceMean", attrs=a_ints("axes", [0, 0])))
case("op/reshape-two-unknown", BAD, one("Reshape", ["x", "s"], inits=[ints("s", -1, -1)]))
case("op/reshape-mismatch", BAD, one("Reshape", ["x", "s"], inits=[ints("s", 3)]))
case("op/reshape-huge", BAD, one("Reshape", ["x", "s"], inits=[ints("s", FAR, FAR)]))
case("op/slice-step-0", BAD, one("Slice", ["x", "a", "b", "d", "s"], inits=[ints("a", 0), ints("b", 2), ints("d", 0), ints("s", 0)]))
case("op/slice-step-min", ODD, one("Slice", ["x", "a", "b", "d", "s"],
                                   inits=[ints("a", FAR), ints("b", -FAR - 1), ints("d", 0), ints("s", -FAR - 1)]))
case("op/split-sum", BAD, one("Split", ["x", "s"], ["y", "z"], inits=[ints("s", 2, 2)]))
case("op/expand-huge", BAD, one("Expand", ["x", "s"], inits=[ints("s", 1 << 40, 2)]))
case("op/tile-negative", BAD, one("Tile", ["x", "s"], inits=[ints("s", -1)]))
case("op/tile-huge", BAD, one("Tile", ["x", "s"], inits=[ints("s", FAR)]))
case("op/pad-past", BAD, one("Pad", ["x", "s"], inits=[ints("s", -5, -5)]))
case("op/pad-huge", BAD, one("Pad", ["x", "s"], inits=[ints("s", FAR, FAR)]))
case("op/shape-huge", BAD, one("ConstantOfShape", ["s"], inits=[ints("s", 1 << 40, 1 << 20)]))
case("op/shape-rank", BAD, one("ConstantOfShape", ["s"], inits=[ints("s", *[1] * 500)]))
case("op/range-zero", BAD, one("Range", ["a", "b", "a"], inits=[tensor([], INT64, bytes(8), "a"), tensor([], INT64, b"\x05" + bytes(7), "b")]))
case("op/topk-large", BAD, one("TopK", ["x", "k"], ["y", "z"], inits=[ints("k", 3)]))
case("op/topk-negative", BAD, one("TopK", ["x", "k"], ["y", "z"], inits=[ints("k", -1)]))
case("op/conv-rank", BAD, one("Conv", ["x", "w"], inits=[tensor([2], raw=DATA, name="w")]))
case("op/divide-by-zero", ODD, model(graph([node("Div", ["a", "b"], ["y"])], [X], [value("y", INT64)], [ints("a", 1, -FAR - 1), ints("b", 0, -1)])))
case("op/mod-by-zero", ODD, model(graph([node("Mod", ["a", "b"], ["y"])], [X], [value("y", INT64)], [ints("a", 1, -FAR - 1), ints("b", 0, -1)])))
case("op/shift-far", ODD, model(graph([node("BitShift", ["a", "a"], ["y"], attr("direction", 3, blob(4, "LEFT")))], [X], [value("y", 13)],
                                      [tensor([1], 13, struct.pack("<Q", 200), "a")])))
case("op/matmul-sizes", BAD, one("MatMul", ["x", "w"], inits=[tensor([3], raw=DATA + DATA[:4], name="w")]))
case("op/concat-ranks", BAD, one("Concat", ["x", "w"], attrs=a_int("axis", 0), inits=[tensor([1, 2], raw=DATA, name="w")]))
case("op/einsum", BAD, one("Einsum", attrs=attr("equation", 3, blob(4, "i" * 60 + "->j"))))
case("op/matmulnbits-lies", BAD, one("MatMulNBits", ["x", "b", "s"], domain="com.microsoft",
                                     attrs=a_int("N", 1 << 40) + a_int("K", 2) + a_int("bits", 4) + a_int("block_size", 16),
                                     inits=[tensor([1, 1, 8], 2, bytes(8), "b"), tensor([1], raw=DATA[:4], name="s")]))


# ---- data that comes when the model runs ---------------------------------------------------------

RUNS = []                       # (name, what is expected, model, input files)


def run_case(name, expect, data, *files):
    RUNS.append((name, expect, data, files))


def long_input(*v):
    return tensor([len(v)], INT64, struct.pack(f"<{len(v)}q", *v))


def scalar_input(v):
    return tensor([], INT64, struct.pack("<q", v))


def on_sizes(op, n, attrs=b"", inits=(), ins=("x", "s")):
    """An operator whose sizes come as the second input."""
    return model(graph([node(op, ins, ["y"], attrs)], [X, value("s", INT64, (n,))], [value("y", FLOAT, ("A",) * n)], inits))


TWO = tensor([2], raw=DATA)
same_n = model(graph([node("Add", ["x", "z"], ["y"])], [value("x", FLOAT, ("N",)), value("z", FLOAT, ("N",))], [value("y", FLOAT, ("N",))]))
run_case("good", "good", GOOD, TWO)
run_case("missing", BAD, GOOD)
run_case("empty", BAD, GOOD, b"")
run_case("cut", BAD, GOOD, TWO[:-1])
run_case("not-a-tensor", BAD, GOOD, b"\x00\xffhello")
run_case("wrong-type", BAD, GOOD, tensor([2], INT32, DATA))
run_case("wrong-rank", BAD, GOOD, tensor([1, 2], raw=DATA))
run_case("wrong-size", BAD, GOOD, tensor([1], raw=DATA[:4]))
run_case("negative-size", BAD, GOOD, tensor([-2], raw=DATA))
run_case("huge-size", BAD, GOOD, tensor([1 << 62], raw=DATA))
run_case("string", BAD, GOOD, tensor([2], STRING, extra=blob(6, "a") + blob(6, "b")))
run_case("sizes-disagree", BAD, same_n, TWO, tensor([1], raw=DATA[:4]))
run_case("external-outside", BAD, GOOD, external("../../../etc/passwd"))
run_case("expand-huge", BAD, on_sizes("Expand", 2), TWO, long_input(1 << 40, 2))
run_case("expand-overflow", BAD, on_sizes("Expand", 3), TWO, long_input(1 << 31, 1 << 31, 2))
run_case("expand-negative", BAD, on_sizes("Expand", 2), TWO, long_input(-7, 2))
run_case("expand-mismatch", BAD, on_sizes("Expand", 1), TWO, long_input(3))
run_case("expand-mismatch-symbol", BAD, model(graph([node("Expand", ["x", "s"], ["y"])], [value("x", FLOAT, ("N",)), value("s", INT64, (1,))],
                                                   [value("y", FLOAT, ("A",))])), TWO, long_input(3))
run_case("reshape-mismatch", BAD, on_sizes("Reshape", 2), TWO, long_input(3, 5))
run_case("reshape-negative", BAD, on_sizes("Reshape", 2), TWO, long_input(-2, -3))
run_case("reshape-huge", BAD, on_sizes("Reshape", 2), TWO, long_input(1 << 62, 1 << 62))
run_case("tile-huge", BAD, on_sizes("Tile", 1), TWO, long_input(1 << 50))
run_case("tile-negative", BAD, on_sizes("Tile", 1), TWO, long_input(-3))
run_case("pad-huge", BAD, on_sizes("Pad", 2), TWO, long_input(1 << 50, 0))
run_case("pad-negative", BAD, on_sizes("Pad", 2), TWO, long_input(-50, 0))
run_case("fill-huge", BAD, model(graph([node("ConstantOfShape", ["s"], ["y"])], [value("s", INT64, (2,))], [value("y", FLOAT, ("A", "B"))])),
         long_input(1 << 40, 1 << 20))
run_case("range-endless", BAD, model(graph([node("Range", ["a", "b", "c"], ["y"])], [value(n, INT64, ()) for n in "abc"],
                                           [value("y", INT64, ("A",))])), scalar_input(0), scalar_input(5), scalar_input(0))
run_case("range-huge", BAD, model(graph([node("Range", ["a", "b", "c"], ["y"])], [value(n, INT64, ()) for n in "abc"],
                                        [value("y", INT64, ("A",))])), scalar_input(0), scalar_input(1 << 50), scalar_input(1))
run_case("split-sum", BAD, model(graph([node("Split", ["x", "s"], ["y", "z"])], [X, value("s", INT64, (2,))],
                                       [value("y", FLOAT, ("A",)), value("z", FLOAT, ("B",))])), TWO, long_input(2, 2))
run_case("split-negative", BAD, model(graph([node("Split", ["x", "s"], ["y", "z"])], [X, value("s", INT64, (2,))],
                                            [value("y", FLOAT, ("A",)), value("z", FLOAT, ("B",))])), TWO, long_input(-2, 4))
# Each value is read by the next two: 2^140 ways lead from the result to the input.
run_case("many-ways", "good", model(graph([node("Mul" if k % 2 else "Add", [f"v{k}", f"v{max(k - 1, 0)}"], [f"v{k + 1}"]) for k in range(200)],
                                          [value("v0", FLOAT, ("N", 2))], [value("v200", FLOAT, ("N", 2))])), tensor([1, 2], raw=DATA))
run_case("wide-concat", "good", model(graph([node("Concat", ["x"] * 520, ["y"], attr("axis", 2, num(3, 0)))], [X],
                                            [value("y", FLOAT, ("A",))])), TWO)
run_case("topk-large", BAD, model(graph([node("TopK", ["x", "k"], ["y", "z"])], [X, value("k", INT64, (1,))],
                                        [value("y", FLOAT, ("A",)), value("z", INT64, ("A",))])), TWO, long_input(3))
run_case("onehot-huge", BAD, model(graph([node("OneHot", ["i", "d", "v"], ["y"])], [value("i", INT64, (2,)), value("d", INT64, ())],
                                         [value("y", FLOAT, (2, "A"))], [tensor([2], raw=DATA, name="v")])), long_input(0, 1), scalar_input(1 << 45))
run_case("gather-far", ODD, model(graph([node("Gather", ["x", "i"], ["y"])], [X, value("i", INT64, (2,))], [value("y", FLOAT, (2,))])),
         TWO, long_input(1 << 60, -(1 << 60)))
run_case("scatter-far", ODD, model(graph([node("ScatterElements", ["x", "i", "x"], ["y"])], [X, value("i", INT64, (2,))], [Y])),
         TWO, long_input(1 << 60, -(1 << 60)))
run_case("gathernd-far", ODD, model(graph([node("GatherND", ["x", "i"], ["y"])], [X, value("i", INT64, (1,))], [value("y", FLOAT, ())])),
         TWO, long_input(1 << 60))
run_case("scatternd-far", ODD, model(graph([node("ScatterND", ["x", "i", "u"], ["y"])], [X, value("i", INT64, (1, 1)), value("u", FLOAT, (1,))], [Y])),
         TWO, tensor([1, 1], INT64, struct.pack("<q", -(1 << 60))), tensor([1], raw=DATA[:4]))
run_case("slice-far", ODD, model(graph([node("Slice", ["x", "a", "b"], ["y"])], [X, value("a", INT64, (1,)), value("b", INT64, (1,))],
                                       [value("y", FLOAT, ("A",))])), TWO, long_input(-(1 << 63)), long_input((1 << 63) - 1))
run_case("divide-by-zero", ODD, model(graph([node("Div", ["a", "b"], ["y"])], [value("a", INT64), value("b", INT64)], [value("y", INT64)])),
         long_input(1, -(1 << 63)), long_input(0, -1))
run_case("loop-endless", BAD, loop(graph(step, HEAD, [value("on", BOOL, ()), value("b")])), TWO, scalar_input((1 << 63) - 1))
run_case("loop-grows-endless", BAD, loop(graph([TRUE, node("Concat", ["a", "a"], ["b"], a_int("axis", 0))], HEAD, [value("on", BOOL, ()), value("b")])),
         TWO, scalar_input(1000))
run_case("loop-negative", ODD, loop(graph(step, HEAD, [value("on", BOOL, ()), value("b")])), TWO, scalar_input(-5))


# ---- paths -------------------------------------------------------------------------------------

PATHS = {
    "missing": lambda d: os.path.join(d, "nothing.onnx"),
    "folder": lambda d: d,
    "pipe": lambda d: os.mkfifo(os.path.join(d, "p")) or os.path.join(d, "p"),
    "device": lambda d: "/dev/null",
    "odd-name": lambda d: os.path.join(d, "a\n\x1b[31m%s.onnx"),
}


# ---- running -----------------------------------------------------------------------------------

def run(command, limits):
    limit, start = limits["s"], time.monotonic()
    bound = limits["bytes"] and (lambda: resource.setrlimit(resource.RLIMIT_AS, (limits["bytes"],) * 2))
    with tempfile.TemporaryFile() as err:
        p = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err, stdin=subprocess.DEVNULL, preexec_fn=bound)
        try:
            p.wait(limit)
            late = False
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
            late = True
        err.seek(0)
        text = err.read(100000).decode("utf-8", "replace")
    return p.returncode, text, late, time.monotonic() - start


def judge(expect, result):
    code, text, late, seconds = result
    if late:
        return f"still running after {seconds:.0f} s"
    if code not in (0, 1):
        return f"exit {code}: {text[-600:]}"
    if "Sanitizer" in text or "runtime error" in text:
        return f"sanitizer: {text[:600]}"
    if expect == BAD and code == 0:
        return "accepted"
    if expect == "good" and code:
        return f"refused: {text.strip()}"
    if code and (text.count("\n") != 1 or len(text) > 1100 or not text.startswith("forge: ")):
        return f"not one line: {text[:300]!r}"
    if any(ord(c) < 32 and c != "\n" or c in "\u202e\u2066" for c in text):
        return f"unprintable: {text[:300]!r}"
    return None


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("forge")
    ap.add_argument("--filter", default="")
    ap.add_argument("--keep", help="leave the files in this folder")
    ap.add_argument("--jobs", type=int, default=2)
    args = ap.parse_args()
    with open(args.forge, "rb") as f:
        sanitized = b"__asan_init" in f.read()
    # A sanitizer's shadow is larger than any limit; its own memory is not what is measured.
    limits = {"bytes": None if sanitized else 1 << 30, "s": 60 if sanitized else 10}
    root = args.keep or tempfile.mkdtemp(prefix="hostile")
    failed = 0

    def one_case(c):
        name, expect, data = c
        folder = os.path.join(root, name.replace("/", "-")[:100])
        os.makedirs(folder, exist_ok=bool(args.keep))
        path = os.path.join(folder, "model.onnx")
        if name.startswith("run/"):
            data, files = data
            for k, content in enumerate((data,) + files):
                with open(os.path.join(folder, f"input_{k - 1}.pb") if k else path, "wb") as f:
                    f.write(content)
            result = run([args.forge, "run", path, "--test-data=" + folder, "--threads=2"], limits)
            # There is nothing to compare with, so what ran ends in a complaint about that.
            if result[0] == 1 and "output_0.pb" in result[1]:
                result = (0,) + result[1:]
            return c, judge(expect, result)
        if name.startswith("path/"):
            path = data(folder)
        else:
            with open(path, "wb") as f:
                f.write(data(folder) if callable(data) else data)
        return c, judge(expect, run([args.forge, "check", path], limits))

    chosen = [c for c in CASES + [(f"path/{k}", BAD, v) for k, v in PATHS.items()]
              + [(f"run/{n}", expect, (data, files)) for n, expect, data, files in RUNS] if re.search(args.filter, c[0])]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for c, message in pool.map(one_case, chosen):
            if message:
                failed += 1
                print(f"{c[0]}: {message}")
    if not args.keep:
        subprocess.run(["rm", "-rf", root])
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
