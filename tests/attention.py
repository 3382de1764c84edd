#!/usr/bin/env python3
"""Attention in the spellings of exporters, and what only looks like it, against onnxruntime.

    attention.py build/forge [--filter REGEX] [--list]

Each case says how many attentions must fuse, and for what must not, the reason that the report gives.
"""
import itertools, sys

import numpy as np

import graphs
from graphs import const

CASES = {}


def case(name, inputs, body, fused=1, **more):
    assert name not in CASES, name
    CASES[name] = graphs.Case(inputs, body, {"attention": fused}, about=("fuse_attention", ""), **more)


QKV = "float[B,4,S,8] q, float[B,4,T,8] k, float[B,4,T,8] v"
KT = "kt = Transpose <perm = [0,1,3,2]> (k)\n"
QK = KT + "s = MatMul(q, kt)\n"
SM = "p = Softmax <axis = -1> ({})\ny = MatMul(p, v)\n"
SCALE = const("c", 0.3535534) + "t = Mul(s, c)\n"
PLAIN = QK + SCALE + SM.format("t")

# ---- A: multi-head attention, every way to write it ------------------------------------------------

# Keys: (inputs, graph that makes s from q and k, graph after p)
KEYS = {
    "transposed": (QKV, QK, "y = MatMul(p, v)\n"),
    "given-transposed": ("float[B,4,S,8] q, float[B,4,8,T] k, float[B,4,T,8] v", "s = MatMul(q, k)\n", "y = MatMul(p, v)\n"),
    "split": ("float[B,S,32] q, float[B,T,32] k, float[B,T,32] v",
              const("h", [0, 0, 4, 8], "int64") +
              "q1 = Reshape(q, h)\nq2 = Transpose <perm = [0,2,1,3]> (q1)\nk1 = Reshape(k, h)\n"
              "k2 = Transpose <perm = [0,2,3,1]> (k1)\ns = MatMul(q2, k2)\n",
              "v1 = Reshape(v, h)\nv2 = Transpose <perm = [0,2,1,3]> (v1)\no = MatMul(p, v2)\n"
              "o1 = Transpose <perm = [0,2,1,3]> (o)\n" + const("merge", [0, 0, 32], "int64") + "y = Reshape(o1, merge)\n"),
    "flat": (QKV, const("f", [-1, 0, 8], "int64") + const("f0", [0, 0, -1, 8], "int64") +
             "qs = Shape(q)\nts = Shape(v)\n" + const("i2", [2], "int64") + const("m1", [-1], "int64") +
             const("e8", [8], "int64") + "n = Gather(qs, i2)\nl = Gather(ts, i2)\nqd = Concat <axis = 0> (m1, n, e8)\n"
             "kd = Concat <axis = 0> (m1, l, e8)\nq3 = Reshape(q, qd)\nk3 = Reshape(k, kd)\n"
             "kt = Transpose <perm = [0,2,1]> (k3)\ns = MatMul(q3, kt)\n",
             "v3 = Reshape(v, kd)\no = MatMul(p, v3)\ny = Reshape(o, qs)\n"),
    "einsum": (QKV, "s = Einsum <equation = \"bhqd,bhkd->bhqk\"> (q, k)\n", "y = Einsum <equation = \"bhqk,bhkd->bhqd\"> (p, v)\n"),
    "einsum-heads-inside": ("float[B,S,4,8] q, float[B,T,4,8] k, float[B,T,4,8] v",
                            "s = Einsum <equation = \"bqhd,bkhd->bhqk\"> (q, k)\n",
                            "y = Einsum <equation = \"bhqk,bkhd->bqhd\"> (p, v)\n"),
    "one-head": ("float[B,S,8] q, float[B,T,8] k, float[B,T,8] v", "kt = Transpose <perm = [0,2,1]> (k)\ns = MatMul(q, kt)\n",
                 "y = MatMul(p, v)\n"),
    "matrix": ("float[S,8] q, float[T,8] k, float[T,8] v", "kt = Transpose <perm = [1,0]> (k)\ns = MatMul(q, kt)\n", "y = MatMul(p, v)\n"),
    "rank-5": ("float[B,3,2,S,8] q, float[B,3,2,T,8] k, float[B,3,2,T,8] v",
               "kt = Transpose <perm = [0,1,2,4,3]> (k)\ns = MatMul(q, kt)\n", "y = MatMul(p, v)\n"),
    "values-on-the-left": (QKV.replace("T,8] v", "T,6] v"), QK,
                           "vt = Transpose <perm = [0,1,3,2]> (v)\npt = Transpose <perm = [0,1,3,2]> (p)\ny = MatMul(vt, pt)\n"),
}
SCALES = {
    "none": "t = Identity(s)\n",
    "mul": SCALE,
    "mul-first": const("c", 0.3535534) + "t = Mul(c, s)\n",
    "div": const("c", 2.828427) + "t = Div(s, c)\n",
    "one-element": const("c", [2.828427]) + "t = Div(s, c)\n",
    "sqrt": const("e", 8.0) + "c = Sqrt(e)\nt = Div(s, c)\n",
    "twice": const("c", 0.5) + const("d", 1.5) + "t0 = Mul(s, c)\nt = Div(t0, d)\n",
    "negative": const("c", -0.25) + "t = Mul(s, c)\n",
    "subtracted-maximum": "m = ReduceMax <axes = [-1]> (s)\nt = Sub(s, m)\n",
}
MASKS = {
    "none": ("", "u = Identity(t)\n"),
    "keys": ("float[B,1,1,T] mask", "u = Add(t, mask)\n"),
    "first": ("float[B,1,S,T] mask", "u = Add(mask, t)\n"),
    "position": ("float[S,T] mask", "u = Add(t, mask)\n"),
    "alibi": ("float[4,1,T] mask", "u = Add(t, mask)\n"),
    "bias-and-mask": ("float[1,4,S,T] bias, float[B,1,1,T] mask", "u0 = Add(t, bias)\nu = Add(u0, mask)\n"),
    "subtracted": ("float[B,1,1,T] mask", "u = Sub(t, mask)\n"),
    "where": ("bool[B,1,S,T] keep", const("f", -np.inf) + "u = Where(keep, t, f)\n"),
    "where-finite": ("bool[B,1,1,T] keep", const("f", -1e9) + "u = Where(keep, t, f)\n"),
    "where-no-row": ("bool[B,1,S,T] any", const("f", -1e4) + "u = Where(any, t, f)\n"),
    "masked-fill": ("bool[B,1,S,T] drop", const("f", -3.4028235e38) + "u = Where(drop, f, t)\n"),
    "masked-fill-infinite": ("bool[S,T] drop", const("f", -np.inf) + "u = Where(drop, f, t)\n"),
    "where-and-add": ("bool[S,T] keep, float[B,1,1,T] mask", const("f", -1e4) + "u0 = Where(keep, t, f)\nu = Add(u0, mask)\n"),
    "bounded": ("float[B,1,1,T] mask", const("f", -3.4028235e38) + "u0 = Add(t, mask)\nu = Max(u0, f)\n"),
    "guarded": ("bool[B,1,S,T] any", const("f", -np.inf) + "u = Where(any, t, f)\n"),
}
for (kn, (inputs, qk, pv)), (sn, scale) in itertools.product(KEYS.items(), SCALES.items()):
    if kn == "transposed" or sn in ("mul", "div", "subtracted-maximum"):
        case(f"A keys {kn}, scale {sn}", inputs, qk + scale + "p = Softmax <axis = -1> (t)\n" + pv)
GUARD = const("z", 0.0) + "n = IsNaN(p0)\np = Where(n, z, p0)\n"
for mn, (more, mask) in MASKS.items():
    softmax = "p0 = Softmax <axis = -1> (u)\n" + GUARD if mn == "guarded" else "p = Softmax <axis = -1> (u)\n"
    for kn in ("transposed", "split", "flat"):
        inputs, qk, pv = KEYS[kn]
        if kn == "flat" and mn != "none":       # [B*H,S,T]: heads come back for the mask
            continue
        case(f"A mask {mn}, keys {kn}", inputs + (", " + more if more else ""), qk + SCALE + mask + softmax + pv)
case("A flat, heads for the mask", QKV + ", float[B,1,1,T] mask", KEYS["flat"][1] +
     "ls = Shape(v)\nl1 = Gather(ls, i2)\n" + const("bh", [-1, 4], "int64") + "d4 = Concat <axis = 0> (bh, n, l1)\n"
     "s4 = Reshape(s, d4)\nu4 = Add(s4, mask)\nd3 = Concat <axis = 0> (m1, n, l1)\nu = Reshape(u4, d3)\n"
     "p = Softmax <axis = -1> (u)\n" + KEYS["flat"][2])
case("A scaled queries", QKV, const("c", 0.35) + "q1 = Mul(q, c)\nkt = Transpose <perm = [0,1,3,2]> (k)\ns = MatMul(q1, kt)\n" + SM.format("s"))
case("A scaled keys, transposed after", QKV, const("c", 0.35) + "k1 = Mul(k, c)\nkt = Transpose <perm = [0,1,3,2]> (k1)\ns = MatMul(q, kt)\n" + SM.format("s"))
case("A root of the scale on both", QKV, const("c", 0.59) + "q1 = Mul(q, c)\n" + KT + "k1 = Mul(kt, c)\ns = MatMul(q1, k1)\n" + SM.format("s"))
case("A scale from an input", QKV + ", float c", QK + "t = Mul(s, c)\n" + SM.format("t"))
case("A exp over sum", QKV, QK + SCALE + "m = ReduceMax <axes = [-1]> (t)\nd = Sub(t, m)\ne = Exp(d)\n" +
     const("a", [-1], "int64") + "n = ReduceSum(e, a)\np = Div(e, n)\ny = MatMul(p, v)\n")
case("A softmax of opset 11", QKV, QK + SCALE + "p = Softmax <axis = 3> (t)\ny = MatMul(p, v)\n", opset=11)
for n in (2, 4, 8):     # grouped queries
    kv = f"float[B,8,S,8] q, float[B,{n},T,8] k, float[B,{n},T,8] v"
    groups = const("a", [2], "int64") + const("r", [1, 1, 8 // n, 1, 1], "int64") + const("h", [0, 8, -1, 8], "int64")
    wide = "".join(f"{x}1 = Unsqueeze({x}, a)\n{x}2 = Expand({x}1, r)\n{x}3 = Reshape({x}2, h)\n" for x in "kv")
    case(f"A {n} heads of keys expanded", kv, groups + wide + "kt = Transpose <perm = [0,1,3,2]> (k3)\ns = MatMul(q, kt)\n" +
         SM.replace("v)", "v3)").format("s"))
    case(f"A {n} heads of keys expanded after the transpose", kv, groups + "".join(
         f"{x}1 = Unsqueeze({x}, a)\n{x}2 = Expand({x}1, r)\n" for x in ("v",)) + "v3 = Reshape(v2, h)\n" + KT +
         "k1 = Unsqueeze(kt, a)\nk2 = Expand(k1, r)\n" + const("hk", [0, 8, 8, -1], "int64") + "k3 = Reshape(k2, hk)\ns = MatMul(q, k3)\n" +
         SM.replace("v)", "v3)").format("s"))
    index = const("i", [h // (8 // n) for h in range(8)], "int64")
    case(f"A {n} heads of keys gathered", kv, index + "k1 = Gather <axis = 1> (k, i)\nv1 = Gather <axis = 1> (v, i)\n"
         "kt = Transpose <perm = [0,1,3,2]> (k1)\ns = MatMul(q, kt)\n" + SM.replace("v)", "v1)").format("s"))
    case(f"A {n} heads of keys by broadcast", f"float[B,{n},{8 // n},S,8] q, float[B,{n},1,T,8] k, float[B,{n},1,T,8] v",
         "kt = Transpose <perm = [0,1,2,4,3]> (k)\ns = MatMul(q, kt)\n" + SM.format("s"))
case("A one head of keys by broadcast", "float[B,8,S,8] q, float[B,1,T,8] k, float[B,1,T,8] v", PLAIN)
case("A keys for all batches", "float[B,4,S,8] q, float[4,T,8] k, float[4,T,8] v", "kt = Transpose <perm = [0,2,1]> (k)\ns = MatMul(q, kt)\n" + SM.format("s"))
case("A 2 heads of keys, 4 of values", "float[B,8,S,8] q, float[B,2,T,8] k, float[B,4,T,5] v",
     const("i", [0, 0, 0, 0, 1, 1, 1, 1], "int64") + const("j", [0, 0, 1, 1, 2, 2, 3, 3], "int64") +
     "k1 = Gather <axis = 1> (k, i)\nv1 = Gather <axis = 1> (v, j)\nkt = Transpose <perm = [0,1,3,2]> (k1)\ns = MatMul(q, kt)\n" +
     SM.replace("v)", "v1)").format("s"))
case("A uneven groups", "float[B,5,S,8] q, float[B,2,T,8] k, float[B,2,T,8] v", const("i", [0, 1, 1, 1, 0], "int64") +
     "k1 = Gather <axis = 1> (k, i)\nv1 = Gather <axis = 1> (v, i)\nkt = Transpose <perm = [0,1,3,2]> (k1)\ns = MatMul(q, kt)\n" +
     SM.replace("v)", "v1)").format("s"))
case("A uneven widths", "float[B,4,S,12] q, float[B,4,T,12] k, float[B,4,T,5] v", PLAIN)
case("A past", "float[B,4,S,8] q, float[B,4,P,8] pk, float[B,4,S,8] nk, float[B,4,P,8] pv, float[B,4,S,8] nv",
     "k = Concat <axis = 2> (pk, nk)\nv = Concat <axis = 2> (pv, nv)\n" + PLAIN)

# ---- operators that say attention ------------------------------------------------------------------

case("A Attention-23", QKV, "y = Attention(q, k, v)\n", opset=23)
case("A Attention-23 causal, grouped", "float[B,4,S,8] q, float[B,2,S,8] k, float[B,2,S,8] v", "y = Attention <is_causal = 1> (q, k, v)\n", opset=23)
case("A Attention-23 of rank 3", "float[B,S,32] q, float[B,T,16] k, float[B,T,16] v, float[S,T] mask",
     "y = Attention <q_num_heads = 4, kv_num_heads = 2, scale = 0.5> (q, k, v, mask)\n", opset=23)
MS = ', "com.microsoft" : 1'
case("A MultiHeadAttention", "float[B,S,32] q, float[B,T,32] k, float[B,T,32] v", "y = com.microsoft.MultiHeadAttention <num_heads = 4> (q, k, v)\n", domains=MS)
case("A function body", QKV, "y = local.Sdpa(q, k, v)\n", domains=', "local" : 1', functions=
     '<domain: "local", opset_import: ["" : 17]>\nSdpa (q, k, v) => (y) {\n' + PLAIN + "}\n")

# ---- C, I: windows, axes, channels -----------------------------------------------------------------

WIN = [dict(B=2), dict(B=1), dict(B=3)]
case("C windows with bias and mask", "float[B,4,3,16,8] q0, float[B,4,3,16,8] k0, float[B,4,3,16,8] v0, float[3,16,16] bias, float[4,16,16] mask",
     const("w", [-1, 3, 16, 8], "int64") + "q = Reshape(q0, w)\nk = Reshape(k0, w)\nv = Reshape(v0, w)\n" +
     KT + "s0 = MatMul(q, kt)\n" + const("c", 0.35) + "s = Mul(s0, c)\n" + const("z", [0], "int64") + "b = Unsqueeze(bias, z)\nt = Add(s, b)\n" +
     const("d5", [-1, 4, 3, 16, 16], "int64") + const("d4", [-1, 3, 16, 16], "int64") + const("one", [1], "int64") +
     "t5 = Reshape(t, d5)\nm1 = Unsqueeze(mask, one)\nm2 = Unsqueeze(m1, z)\nu5 = Add(t5, m2)\nu = Reshape(u5, d4)\n" + SM.format("u"), sizes=WIN)
case("C windows as an axis", "float[B,4,3,16,8] q, float[B,4,3,16,8] k, float[B,4,3,16,8] v, float[4,1,16,16] mask, float[3,16,16] bias",
     "kt = Transpose <perm = [0,1,2,4,3]> (k)\ns = MatMul(q, kt)\nt = Add(s, mask)\nu = Add(t, bias)\n" + SM.format("u"), sizes=WIN)
case("C cosine scores, temperature per head", QKV + ", float[4,1,1] temperature",
     "qn = LpNormalization <axis = -1> (q)\nkn = LpNormalization <axis = -1> (k)\nkt = Transpose <perm = [0,1,3,2]> (kn)\n"
     "s = MatMul(qn, kt)\nt = Mul(s, temperature)\n" + SM.format("t"))
case("C rows of an image", "float[B,6,5,8] x", "kt = Transpose <perm = [0,1,3,2]> (x)\ns = MatMul(x, kt)\np = Softmax <axis = -1> (s)\ny = MatMul(p, x)\n", sizes=WIN)
case("I channels", "float[B,4,6,S] q, float[B,4,6,S] k, float[B,4,6,S] v, float[4,1,1] temperature",
     QK + "t = Mul(s, temperature)\n" + SM.format("t"))
case("I channels, maximum minus energy", "float[B,6,S] x", "xt = Transpose <perm = [0,2,1]> (x)\ne = MatMul(x, xt)\n"
     "m0 = ReduceMax <axes = [-1]> (e)\nes = Shape(e)\nm = Expand(m0, es)\nd = Sub(m, e)\np = Softmax <axis = -1> (d)\ny = MatMul(p, x)\n")
case("I positions, values on the left", "float[B,4,S] q, float[B,4,S] k, float[B,6,S] v", "qt = Transpose <perm = [0,2,1]> (q)\ns = MatMul(qt, k)\n"
     "p = Softmax <axis = -1> (s)\npt = Transpose <perm = [0,2,1]> (p)\ny = MatMul(v, pt)\n")
case("I keys in rows", QKV, "qt = Transpose <perm = [0,1,3,2]> (q)\ns = MatMul(k, qt)\np = Softmax <axis = -2> (s)\n"
     "vt = Transpose <perm = [0,1,3,2]> (v)\ny = MatMul(vt, p)\n")
case("I heads last", "float[B,S,4,8] q, float[B,T,4,8] k, float[B,T,4,8] v", "s = Einsum <equation = \"bqhd,bkhd->bqkh\"> (q, k)\n" +
     const("c", 0.3) + "t = Mul(s, c)\np = Softmax <axis = 2> (t)\ny = Einsum <equation = \"bqkh,bkhd->bqhd\"> (p, v)\n")

# ---- F, H, J: differences, agents, sinks, caps -----------------------------------------------------

for op in ("Sub", "Add"):
    case(f"F two maps, {op}", QKV + ", float[B,4,S,8] r, float[B,4,T,8] l, float[1] lambda",
         QK + "lt = Transpose <perm = [0,1,3,2]> (l)\ns2 = MatMul(r, lt)\np1 = Softmax <axis = -1> (s)\np2 = Softmax <axis = -1> (s2)\n"
         f"p3 = Mul(lambda, p2)\np = {op}(p1, p3)\ny = MatMul(p, v)\n", fused=2)
case("F two results", QKV + ", float[B,4,S,8] r, float lambda", QK + "p1 = Softmax <axis = -1> (s)\ny1 = MatMul(p1, v)\ns2 = MatMul(r, kt)\n"
     "p2 = Softmax <axis = -1> (s2)\ny2 = MatMul(p2, v)\ny3 = Mul(y2, lambda)\ny = Sub(y1, y3)\n", fused=2)
case("F two values", QKV + ", float[B,4,T,8] u, float lambda", QK + "p = Softmax <axis = -1> (s)\ny1 = MatMul(p, v)\ny2 = MatMul(p, u)\n"
     "y3 = Mul(y2, lambda)\ny = Sub(y1, y3)\n", fused=2)
case("F scaled per query", QKV + ", float[B,1,S,1] alpha", QK + "p0 = Softmax <axis = -1> (s)\np = Mul(p0, alpha)\ny = MatMul(p, v)\n")
case("F scaled probabilities", QKV, QK + const("c", 1.25) + "p0 = Softmax <axis = -1> (s)\np = Mul(p0, c)\ny = MatMul(p, v)\n")
case("H agents", "float[B,4,S,8] q, float[B,4,3,8] a, float[B,4,T,8] k, float[B,4,T,8] v", "at = Transpose <perm = [0,1,3,2]> (a)\n"
     "s1 = MatMul(q, at)\np1 = Softmax <axis = -1> (s1)\n" + KT + "s2 = MatMul(a, kt)\np2 = Softmax <axis = -1> (s2)\n"
     "y2 = MatMul(p2, v)\ny = MatMul(p1, y2)\n", fused=2)
for order in ("s, k1", "k1, s"):
    case(f"J sink {order}", QKV + ", float[4] sink", QK + const("h", [1, 4, 1, 1], "int64") + "k0 = Reshape(sink, h)\nqs = Shape(q)\n" +
         const("i", [0, 1, 2], "int64") + const("o", [1], "int64") + "d3 = Gather(qs, i)\nd = Concat <axis = 0> (d3, o)\nk1 = Expand(k0, d)\n"
         f"c = Concat <axis = -1> ({order})\nm = ReduceMax <axes = [-1]> (c)\nn = Sub(c, m)\nw = Softmax <axis = -1> (n)\n" +
         const("b", [0 if order[0] == "s" else 1], "int64") + const("e", [-1 if order[0] == "s" else 2**31], "int64") +
         const("x", [3], "int64") + "p = Slice(w, b, e, x)\ny = MatMul(p, v)\n")
case("J softcap", QKV + ", float[B,1,S,T] mask", QK + const("c", 5.0) + "t0 = Div(s, c)\nt1 = Tanh(t0)\nt2 = Mul(t1, c)\nu = Add(t2, mask)\n" + SM.format("u"))
case("J softcap of scaled scores", QKV, QK + SCALE + const("cap", 3.0) + "t0 = Div(t, cap)\nt1 = Tanh(t0)\nt2 = Mul(cap, t1)\n" + SM.format("t2"))

# ---- element types and grids -----------------------------------------------------------------------

LIKE = SCALE.replace("c = ", "c0 = ").replace("t = Mul", "c = CastLike(c0, q)\nt = Mul")
for kind in ("double", "float16", "bfloat16"):
    case(f"type {kind}", QKV.replace("float", kind) + f", {kind}[B,1,1,T] mask", QK + LIKE + "u = Add(t, mask)\n" + SM.format("u"), tol=kind)
case("type float16, softmax in float", QKV.replace("float", "float16"), QK + LIKE +
     "t1 = Cast <to = 1> (t)\np1 = Softmax <axis = -1> (t1)\np = Cast <to = 10> (p1)\ny = MatMul(p, v)\n", tol="float16")
case("type float16, hidden rows", QKV.replace("float", "float16") + ", bool[B,1,S,T] any", QK + LIKE + const("f0", -65504.0) +
     "f = CastLike(f0, q)\nu = Where(any, t, f)\n" + SM.format("u"), tol="float16")


def grid(x, y, scale, zero, kind="uint8"):
    n = y + "g"
    return const(n + "s", scale) + const(n + "z", zero, kind) + f"{n} = QuantizeLinear({x}, {n}s, {n}z)\n{y} = DequantizeLinear({n}, {n}s, {n}z)\n"


case("grid: probabilities", QKV, QK + SCALE + "p0 = Softmax <axis = -1> (t)\n" + grid("p0", "p", 0.0039, 0) + "y = MatMul(p, v)\n", tol="grid")
case("grid: scores and probabilities", QKV + ", float[B,1,1,T] mask", QK + grid("s", "s1", 0.1, 128) + const("c", 0.35) + "t = Mul(s1, c)\n"
     "u = Add(t, mask)\np0 = Softmax <axis = -1> (u)\n" + grid("p0", "p", 0.0078, -128, "int8") + "y = MatMul(p, v)\n", tol="grid")
case("grid: everything", QKV + ", float[B,1,S,T] mask", grid("q", "q1", 0.03, 120) + grid("k", "k1", 0.03, 3, "int8") +
     "kt = Transpose <perm = [0,1,3,2]> (k1)\ns = MatMul(q1, kt)\n" + grid("s", "s1", 0.1, 128) + const("c", 0.35) + "t = Mul(s1, c)\n" +
     grid("t", "t1", 0.04, 128) + grid("mask", "m1", 0.05, 130) + "u = Add(t1, m1)\n" + grid("u", "u1", 0.09, 140) +
     "p0 = Softmax <axis = -1> (u1)\n" + grid("p0", "p", 0.0039, 0) + grid("v", "v1", 0.03, 128) + "o = MatMul(p, v1)\n" + grid("o", "y", 0.02, 128), tol="grid")

# ---- what must stay as it is -----------------------------------------------------------------------

NEAR = QK + SCALE
case("near: softmax over queries", QKV.replace("T", "S"), NEAR + "p = Softmax <axis = 2> (t)\ny = MatMul(p, v)\n", 0, reason="does not sum over keys")
case("near: softmax over heads", QKV, NEAR + "p = Softmax <axis = 1> (t)\ny = MatMul(p, v)\n", 0, reason="axis 1 of the product")
case("near: transposed twice", "float[B,4,S,8] q, float[B,4,S,8] k, float[B,4,S,8] v", NEAR + "p = Softmax <axis = -1> (t)\n"
     "pt = Transpose <perm = [0,1,3,2]> (p)\ny = MatMul(pt, v)\n", 0, reason="does not sum over keys")
case("near: scale varies along keys", QKV + ", float[T] c", QK + "t = Mul(s, c)\n" + SM.format("t"), 0, reason="not the same for all keys")
case("near: squared scores", QKV, QK + "t = Mul(s, s)\n" + SM.format("t"), 0, reason="also read elsewhere|other operand")
case("near: mask after the softmax", QKV + ", float[B,1,S,T] mask", NEAR + "p0 = Softmax <axis = -1> (t)\np = Mul(p0, mask)\ny = MatMul(p, v)\n", 0,
     reason="not the same for all keys")
case("near: added after the softmax", QKV + ", float[B,1,S,T] mask", NEAR + "p0 = Softmax <axis = -1> (t)\np = Add(p0, mask)\ny = MatMul(p, v)\n", 0,
     reason="add between the softmax and the product")
case("near: probabilities are an output", QKV, PLAIN, 0, output="float[B,4,S,T] p, float[B,4,S,8] y", reason="also read elsewhere")
case("near: probabilities weigh and are summed", QKV, QK + "p = Softmax <axis = -1> (s)\ny1 = MatMul(p, v)\n" +
     "m = ReduceMax <axes = [-1]> (p)\ny = Add(y1, m)\n", 0, reason="also read elsewhere")
case("near: scores are an output", QKV, PLAIN, 0, output="float[B,4,S,T] s, float[B,4,S,8] y", reason="also read elsewhere")
case("near: where with a small fill", QKV + ", bool[B,1,S,T] keep", QK + const("f", -2.0) + "t = Where(keep, s, f)\n" + SM.format("t"), 0, reason="fills with -2")
case("near: where chooses a tensor", QKV + ", bool[B,1,S,T] keep, float[S,T] f", QK + "t = Where(keep, s, f)\n" + SM.format("t"), 0, reason="neither a number")
case("near: exponential of the scores", QKV, QK + "t = Exp(s)\n" + SM.format("t"), 0, reason=None)
case("near: rectified scores", QKV, QK + "t = Relu(s)\n" + SM.format("t"), 0, reason="relu")
case("near: clipped probabilities", QKV, NEAR + const("l", 0.01) + "p0 = Softmax <axis = -1> (t)\np = Max(p0, l)\ny = MatMul(p, v)\n", 0, reason="max between")
case("near: log of the probabilities", QKV, NEAR + "p = LogSoftmax <axis = -1> (t)\ny = MatMul(p, v)\n", 0)
case("near: sum without keeping", QKV, QK + "m = ReduceMax <axes = [-1]> (s)\nd = Sub(s, m)\ne = Exp(d)\n" + const("a", [-1], "int64") +
     const("one", 1.0) + "n0 = ReduceSum(e, a)\nn = Add(n0, one)\np = Div(e, n)\ny = MatMul(p, v)\n", 0)
case("near: mask inside the cap", QKV + ", float[B,1,S,T] mask", QK + "s1 = Add(s, mask)\n" + const("c", 5.0) + "t0 = Div(s1, c)\nt1 = Tanh(t0)\nt2 = Mul(t1, c)\n" +
     SM.format("t2"), 0, reason="inside the softcap")
case("near: cap with another factor", QKV, QK + const("c", 5.0) + const("d", 2.0) + "t0 = Div(s, c)\nt1 = Tanh(t0)\nt2 = Mul(t1, d)\n" + SM.format("t2"), 1)
case("near: a reshape that mixes", "float[B,4,6,8] q, float[B,4,6,8] k, float[B,4,9,8] v", QK + const("d", [0, 4, 4, 9], "int64") +
     "t = Reshape(s, d)\n" + SM.format("t"), 0, sizes=WIN, reason="mixes")
case("near: heads swapped with queries", "float[B,4,4,8] q, float[B,4,T,8] k, float[B,4,T,8] v", NEAR + "p0 = Softmax <axis = -1> (t)\n"
     "p = Transpose <perm = [0,2,1,3]> (p0)\ny = MatMul(p, v)\n", 0, reason="another order|line up|told apart")
case("near: batch swapped with heads", "float[4,4,S,8] q, float[4,4,T,8] k, float[4,4,T,8] v", NEAR + "p0 = Softmax <axis = -1> (t)\n"
     "p = Transpose <perm = [1,0,2,3]> (p0)\ny = MatMul(p, v)\n", 0, reason="another order")
case("near: two sinks", QKV + ", float[B,4,S,2] sink", QK + "c = Concat <axis = -1> (s, sink)\nw = Softmax <axis = -1> (c)\n" +
     const("b", [0], "int64") + const("e", [-2], "int64") + const("x", [3], "int64") + "p = Slice(w, b, e, x)\ny = MatMul(p, v)\n", 0, reason="more than one sink")
case("near: a sink per query", QKV + ", float[B,4,S,1] sink", QK + "c = Concat <axis = -1> (s, sink)\nw = Softmax <axis = -1> (c)\n" +
     const("b", [0], "int64") + const("e", [-1], "int64") + const("x", [3], "int64") + "p = Slice(w, b, e, x)\ny = MatMul(p, v)\n", 0, reason="not one number per head")
case("near: the sink has a value", "float[B,4,S,8] q, float[B,4,T,8] k, float[B,4,U,8] v, float[B,4,S,1] sink", QK +
     "c = Concat <axis = -1> (s, sink)\n" + SM.format("c"), 0, reason="has a value",
     sizes=[dict(B=2, S=7, T=9, U=10), dict(B=1, S=1, T=5, U=6)])
case("near: grids that differ", QKV, NEAR + "p0 = Softmax <axis = -1> (t)\n" + const("a", 0.004) + const("b", 0.008) + const("z", 0, "uint8") +
     "i = QuantizeLinear(p0, a, z)\np = DequantizeLinear(i, b, z)\ny = MatMul(p, v)\n", 0, reason="quantized by 0.004", tol="grid")
case("near: the difference of maps goes on", QKV + ", float[B,4,S,8] r", QK + "p1 = Softmax <axis = -1> (s)\ns2 = MatMul(r, kt)\n"
     "p2 = Softmax <axis = -1> (s2)\np = Sub(p1, p2)\nx = Relu(p)\ny = MatMul(x, v)\n", 0, reason="sub between")
case("near: weights, not keys", "float[B,S,8] q", const("w", (np.arange(40).reshape(8, 5) / 40).round(3)) + "s = MatMul(q, w)\np = Softmax <axis = -1> (s)\n" +
     const("u", (np.arange(30).reshape(5, 6) / 30).round(3)) + "y = MatMul(p, u)\n", 0)

# Scores times a mask of ones and zeros, minus 1e4 where it is zero: the masked ones are all -1e4 whatever the product was, which no
# addition says: with -1e4 added, a row without any key would weigh them by their products. So this stays as it is written.
MULTIPLIED = const("one", 1.0) + const("big", 1e4) + "sb = Mul(t, b)\nz = Sub(one, b)\nn = Mul(z, big)\nu = Sub(sb, n)\n"
case("multiplied mask", QKV + ", bool[S,T] keep", QK + SCALE + "b = Cast <to = 1> (keep)\n" + MULTIPLIED + SM.format("u"), 0, reason="mul .* not the same for all keys of a query")
case("multiplied mask, a row without keys", QKV + ", bool[B,1,S,T] any", QK + SCALE + "b = Cast <to = 1> (any)\n" + MULTIPLIED + SM.format("u"), 0, reason="mul .* not the same for all keys of a query")

if __name__ == "__main__":
    sys.exit(graphs.main(CASES, __doc__))
