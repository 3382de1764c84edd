#!/usr/bin/env python3
"""Every spelling of a cache that is written where an input says must become a state in place.

    states.py build/forge [--filter REGEX]

Each model is compared with numpy, at -O0 and -O1, and its optimised form must say that input
"past" becomes output "now" in place, or must not where that would be wrong.
"""
import argparse, os, re, subprocess, sys, tempfile

import numpy as np
import onnx, onnx.helper, onnx.numpy_helper, onnx.parser

rng = np.random.default_rng(4)


def f(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def i(*v):
    return np.array(v, np.int64)


def put(past, x, rows, axis):
    """Row s of x to row rows[b][s] (or rows[s]) of a copy of past."""
    now = past.copy()
    for b in range(past.shape[0]):
        for s in range(x.shape[axis]):
            at = [b] + [slice(None)] * (past.ndim - 1)
            to = list(at)
            at[axis] = s
            to[axis] = rows[b][s] if np.ndim(rows) == 2 else rows[s]
            now[tuple(to)] = x[tuple(at)]
    return now


def upto(start, n, size=None):
    rows = np.array(start)[:, None] + np.arange(n)
    return rows % size if size else rows


PAST, X = f(2, 3, 8, 4), f(2, 3, 2, 4)
P3, X3 = f(2, 8, 12), f(2, 2, 12)

# name: (opset, text, inputs, outputs, whether it is a state)
MODELS = {
    "tensor_scatter": (24, """agraph (float[B,H,M,4] past, float[B,H,S,4] x, int64[B] at) => (float[B,H,M,4] now) {
        now = TensorScatter (past, x, at) }""",
        [PAST, X, i(1, 5)], [put(PAST, X, upto([1, 5], 2), 2)], True),
    "tensor_scatter_ring": (24, """agraph (float[B,H,M,4] past, float[B,H,S,4] x, int64[B] at) => (float[B,H,M,4] now) {
        now = TensorScatter <mode = "circular"> (past, x, at) }""",
        [PAST, X, i(7, 15)], [put(PAST, X, upto([7, 15], 2, 8), 2)], True),
    "tensor_scatter_rank_3": (24, """agraph (float[B,8,12] past, float[B,S,12] x, int64[B] at) => (float[B,8,12] now) {
        now = TensorScatter (past, x, at) }""",
        [P3, X3, i(0, 6)], [put(P3, X3, upto([0, 6], 2), 1)], True),
    "tensor_scatter_from_0": (24, """agraph (float[B,8,12] past, float[B,S,12] x) => (float[B,8,12] now) {
        now = TensorScatter (past, x) }""",
        [P3, X3], [put(P3, X3, [0, 1], 1)], True),
    "scatter_elements": (17, """agraph (float[B,3,M,4] past, float[B,3,S,4] x, int64[S] at) => (float[B,3,M,4] now) {
        axes = Constant <value = int64[2] {0, 2}> ()
        one = Constant <value = int64[1] {-1}> ()
        shape = Shape (x)
        ones = Constant <value = int64[4] {1, 1, -1, 1}> ()
        r = Reshape (at, ones)
        index = Expand (r, shape)
        now = ScatterElements <axis = 2> (past, index, x) }""",
        [PAST, X, i(6, -3)], [put(PAST, X, [6, 5], 2)], True),
    "scatter_nd_transposed": (17, """agraph (float[B,3,M,4] past, float[B,3,S,4] x, int64[S] at) => (float[B,3,M,4] now) {
        axis = Constant <value = int64[1] {1}> ()
        p = Transpose <perm = [2, 0, 1, 3]> (past)
        u = Transpose <perm = [2, 0, 1, 3]> (x)
        index = Unsqueeze (at, axis)
        s = ScatterND (p, index, u)
        now = Transpose <perm = [1, 2, 0, 3]> (s) }""",
        [PAST, X, i(2, 7)], [put(PAST, X, [2, 7], 2)], True),
    "scatter_nd_twice": (17, """agraph (float[M,4] past, float[S,4] x, int64[S] at, int64[S] then) => (float[M,4] now) {
        axis = Constant <value = int64[1] {1}> ()
        a = Unsqueeze (at, axis)
        b = Unsqueeze (then, axis)
        y = Neg (x)
        once = ScatterND (past, a, x)
        now = ScatterND (once, b, y) }""",
        [PAST[0, 0], X[0, 0], i(1, 2), i(2, 3)],
        [np.concatenate([PAST[0, 0, :1], X[0, 0, :1], -X[0, 0], PAST[0, 0, 4:]])], True),
    "slices_around": (17, """agraph (float[1,M,4] past, float[1,1,4] x, int64[1] at) => (float[1,M,4] now) {
        zero = Constant <value = int64[1] {0}> ()
        one = Constant <value = int64[1] {1}> ()
        end = Constant <value = int64[1] {9223372036854775807}> ()
        after = Add (at, one)
        a = Slice (past, zero, at, one)
        b = Slice (past, after, end, one)
        now = Concat <axis = 1> (a, x, b) }""",
        [P3[:1, :, :4], X3[:1, :1, :4], i(3)], [put(P3[:1, :, :4], X3[:1, :1, :4], [3], 1)],
        False),  # that the sizes add up to M again cannot be shown
    "past_read_elsewhere": (24, """agraph (float[B,8,12] past, float[B,S,12] x, int64[B] at) => (float[B,8,12] now, float[B,8,12] y) {
        now = TensorScatter (past, x, at)
        y = Neg (past) }""",
        [P3, X3, i(0, 6)], [put(P3, X3, upto([0, 6], 2), 1), -P3], False),
    "added": (17, """agraph (float[M,4] past, float[S,4] x, int64[S] at) => (float[M,4] now) {
        axis = Constant <value = int64[1] {1}> ()
        a = Unsqueeze (at, axis)
        now = ScatterND <reduction = "add"> (past, a, x) }""",
        [PAST[0, 0], X[0, 0], i(1, 2)],
        [np.concatenate([PAST[0, 0, :1], PAST[0, 0, 1:3] + X[0, 0], PAST[0, 0, 3:]])], False),
}


def external_cache():
    """Keys and values in caches of one size, and Attention told how much of them counts."""
    text = """agraph (float[2,3,8,4] past, float[2,3,8,4] past_v, float[2,3,S,4] q, float[2,3,S,4] k,
        float[2,3,S,4] v, int64[2] at, int64[2] valid) => (float[2,3,S,4] y, float[2,3,8,4] now, float[2,3,8,4] now_v) {
        now = TensorScatter (past, k, at)
        now_v = TensorScatter (past_v, v, at)
        y = Attention <is_causal = 1> (q, now, now_v, , , , valid) }"""
    past, pv, q, k, v = f(2, 3, 8, 4), f(2, 3, 8, 4), f(2, 3, 2, 4), f(2, 3, 2, 4), f(2, 3, 2, 4)
    at, valid = i(1, 5), i(3, 7)
    now, now_v = put(past, k, upto(at, 2), 2), put(pv, v, upto(at, 2), 2)
    y = np.zeros_like(q)
    for b in range(2):
        for s in range(2):
            n = at[b] + s + 1
            for h in range(3):
                w = np.exp(now[b, h, :n] @ q[b, h, s] / 2)
                y[b, h, s] = (w / w.sum()) @ now_v[b, h, :n]
    return 24, text, [past, pv, q, k, v, at, valid], [y, now, now_v], True


def shared_buffers(S, text):
    """Keys and values in caches of one size, three rows of which count before."""
    past, pv, q, k, v = f(2, 3, 8, 4), f(2, 3, 8, 4), f(2, S, 12), f(2, S, 12), f(2, S, 12)
    parts = [x.reshape(2, S, 3, 4).transpose(0, 2, 1, 3) for x in (q, k, v)]
    rows = upto([3, 3], S)
    now, now_v = put(past, parts[1], rows, 2), put(pv, parts[2], rows, 2)
    y = np.zeros((2, S, 3, 4), np.float32)
    for b, h, s in np.ndindex(2, 3, S):
        w = np.exp(now[b, h, :4 + s] @ parts[0][b, h, s] / 2)
        y[b, s, h] = (w / w.sum()) @ now_v[b, h, :4 + s]
    return 17, text, [past, pv, q, k, v, np.array([3], np.int32)], [y.reshape(2, S, 12), now, now_v], True


PORTS = """agraph (float[B,3,M,4] past, float[B,3,M,4] past_v, float[B,S,12] q, float[B,S,12] k, float[B,S,12] v, int32[1] n)
    => (float[B,S,12] y, float[B,3,M,4] now, float[B,3,M,4] now_v) {"""
MODELS["external_cache"] = external_cache()
MODELS["multi_head_buffer"] = shared_buffers(2, PORTS + """
    y, now, now_v = com.microsoft.MultiHeadAttention <num_heads = 3, unidirectional = 1> (q, k, v, , , , past, past_v, n) }""")
MODELS["decoder_masked_buffer"] = shared_buffers(1, PORTS + """
    y, now, now_v = com.microsoft.DecoderMaskedMultiHeadAttention <num_heads = 3, past_present_share_buffer = 1>
        (q, k, v, , , past, past_v, n) }""")


def window(hidden, S="S", n=3):
    """Attention over four positions, written as most exporters write it: a mask of positions."""
    text = """agraph (float[B,3,P,4] past, float[B,3,P,4] past_v, float[B,3,S,4] q, float[B,3,S,4] k, float[B,3,S,4] v,
        int64[B,T] mask) => (float[B,3,S,4] y, float[B,3,T,4] now, float[B,3,T,4] now_v) {
        now = Concat <axis = 2> (past, k)
        now_v = Concat <axis = 2> (past_v, v)
        zero = Constant <value = int64 {0}> ()
        one = Constant <value = int64 {1}> ()
        two = Constant <value = int64 {2}> ()
        four = Constant <value = int64 {4}> ()
        first = Constant <value = int64[1] {1}> ()
        heads = Constant <value = int64[2] {0, 1}> ()
        inner = Constant <value = int64[2] {1, 2}> ()
        before = Shape (past)
        p = Gather <axis = 0> (before, two)
        after = Shape (now)
        t = Gather <axis = 0> (after, two)
        keys = Range (zero, t, one)
        queries = Range (p, t, one)
        column = Unsqueeze (queries, first)
        causal = LessOrEqual (keys, column)
        low = Sub (column, four)
        near = Greater (keys, low)
        both = And (causal, near)
        square = Unsqueeze (both, heads)
        some = Cast <to = 9> (mask)
        rows = Unsqueeze (some, inner)
        sees = And (square, rows)
        none = Constant <value = float {0.0}> ()
        bias = Where (sees, none, HIDDEN)
        kt = Transpose <perm = [0, 1, 3, 2]> (now)
        scores = MatMul (q, kt)
        half = Constant <value = float {0.5}> ()
        scaled = Mul (scores, half)
        masked = Add (scaled, bias)
        weights = Softmax <axis = -1> (masked)
        y = MatMul (weights, now_v) }""".replace("HIDDEN", hidden).replace(",S,", f",{S},")
    past, pv, q, k, v = f(2, 3, 9, 4), f(2, 3, 9, 4), f(2, 3, n, 4), f(2, 3, n, 4), f(2, 3, n, 4)
    mask = np.ones((2, 9 + n), np.int64)
    mask[1, 7] = 0
    now, now_v = np.concatenate([past, k], 2), np.concatenate([pv, v], 2)
    y = np.zeros_like(q)
    for b, h, s in np.ndindex(2, 3, n):
        at = [j for j in range(9 + s - 3, 9 + s + 1) if mask[b, j]]
        w = np.exp(now[b, h, at] @ q[b, h, s] / 2)
        y[b, h, s] = (w / w.sum()) @ now_v[b, h, at]
    return 17, text, [past, pv, q, k, v, mask], [y, now, now_v], "at=row, keep=3"


# What the parser has no numbers for.
FLOATS = {"nothing": -np.inf, "least": np.finfo(np.float32).min}
MODELS["window"] = window("nothing")
MODELS["window_of_least"] = window("least")
MODELS["window_of_one"] = window("least", "1", 1)


CUTS = {
    "slice": "now = Slice (all, before, end, axis)",
    "slice_upto": "t = Shape <start = 2, end = 3> (all)\nn = Neg (before)\ns = Sub (t, n)\nnow = Slice (all, s, t, axis)",
    "split": "n = Neg (before)\ns = Shape <start = 2, end = 3> (x)\nsizes = Concat <axis = 0> (s, n)\nrest, now = Split <axis = 2> (all, sizes)",
    "pad": "t = Shape <start = 2, end = 3> (all)\nn = Neg (before)\ns = Sub (n, t)\nz = Constant <value = int64[2] {0, 0}> ()\n"
           "o = Constant <value = int64[5] {0, 0, 0, 0, 0}> ()\npads = Concat <axis = 0> (z, s, o)\nnow = Pad (all, pads)",
    "rest": "one = Constant <value = int64[1] {1}> ()\nr = Slice (past, one, end, axis)\nnow = Concat <axis = 2> (r, x)",
}


def cut(spelling, P, S, length="8"):
    """A cache that the model cuts to its last 8 rows."""
    text = f"""agraph (float[B,3,{length},16] past, float[B,3,{S if spelling == "rest" else "S"},16] x) => (float[B,3,N,16] now, float[B,3,T,16] y) {{
        axis = Constant <value = int64[1] {{2}}> ()
        before = Constant <value = int64[1] {{-8}}> ()
        end = Constant <value = int64[1] {{9223372036854775807}}> ()
        all = Concat <axis = 2> (past, x)
        {CUTS[spelling]}
        y = Neg ({"now" if spelling == "rest" else "all"}) }}"""
    past, x = f(2, 3, P, 16), f(2, 3, S, 16)
    all = np.concatenate([past, x], 2)
    return 17, text, [past, x], [all[:, :, -8:], -(all[:, :, -8:] if spelling == "rest" else all)], "at=row, keep=8"


for s in CUTS:
    MODELS["cut_" + s] = cut(s, 8, 1 if s == "rest" else 3)
MODELS["cut_slice_grows"] = cut("slice", 2, 3, "P")
MODELS["cut_slice_full"] = cut("slice", 7, 3, "P")
MODELS["cut_slice_more"] = cut("slice", 8, 11)


def check(forge, name, folder):
    opset, text, inputs, outputs, is_state = MODELS[name]
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n' + text)
    for value in FLOATS:
        if value in text:
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(FLOATS[value], np.float32), value))
    path = os.path.join(folder, name + ".onnx")
    onnx.save(model, path)
    data = os.path.join(folder, name)
    os.mkdir(data)
    for kind, arrays, ports in (("input", inputs, model.graph.input), ("output", outputs, model.graph.output)):
        for k, (a, p) in enumerate(zip(arrays, ports)):
            with open(os.path.join(data, f"{kind}_{k}.pb"), "wb") as out:
                out.write(onnx.numpy_helper.from_array(np.ascontiguousarray(a), p.name).SerializeToString())
    for level in "01":
        r = subprocess.run([forge, "run", path, f"--test-data={data}", "-O" + level, "--check=2"],
                           capture_output=True, text=True, timeout=120)
        if r.returncode:
            return f"-O{level}: exit {r.returncode}: " + (r.stderr or r.stdout).strip()
    r = subprocess.run([forge, "dump", path, "--stage=opt"], capture_output=True, text=True, timeout=120)
    found = re.search(r'^state "past" -> "now" \{axis=\d+, length=', r.stdout, re.M) is not None
    if isinstance(is_state, str) and is_state not in r.stdout:
        return f"no state with {is_state}"
    if found != bool(is_state):
        return "a state in place" if found else "no state in place"
    return None


def main():
    p = argparse.ArgumentParser()
    p.add_argument("forge")
    p.add_argument("--filter", default="")
    a = p.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        names = [n for n in MODELS if re.search(a.filter, n)]
        for name in names:
            why = check(a.forge, name, folder)
            if why:
                failed += 1
                print(f"FAIL {name}: {why}")
    print(f"{len(names) - failed} passed, {failed} failed")
    return failed != 0


sys.exit(main())
