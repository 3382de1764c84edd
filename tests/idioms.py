#!/usr/bin/env python3
"""Norms, activations and rotary embeddings in small steps, and what only looks like them, against onnxruntime.

    idioms.py build/forge [--filter REGEX] [--list]

Each case says which rule must raise it, or that none does and the reason that is given.
"""
import itertools, sys

import numpy as np

import graphs
from graphs import const

CASES = {}


def case(name, body, rule=None, inputs="float[B,S,16] x", **more):
    assert name not in CASES, name
    rules = [rule] if isinstance(rule, str) else rule or []
    counts = {r: 0 for r in ("gelu", "gelu_tanh", "silu", "rope", "layernorm", "rmsnorm")} | {r: rules.count(r) for r in rules}
    CASES[name] = graphs.Case(inputs, body, counts, about=("fuse_ops", "(gelu|gelu_tanh|silu|norm|rope): "), **more)


def c(**values):
    return "".join(const(k, v) for k, v in values.items())


# ---- activations -----------------------------------------------------------------------------------

ERF = "e = Erf(z)\no = Add(e, one)\n"
ARGUMENTS = {
    "div": c(r2=1.4142135) + "z = Div(x, r2)\n",
    "mul": c(r2=0.70710678) + "z = Mul(x, r2)\n",
    "mul-first": c(r2=0.70710678) + "z = Mul(r2, x)\n",
    "sqrt": c(two=2.0) + "r2 = Sqrt(two)\nz = Div(x, r2)\n",
}
ENDS = {
    "x (1 + erf) / 2": "a = Mul(x, o)\ny = Mul(a, half)\n",
    "x/2 (1 + erf)": "a = Mul(x, half)\ny = Mul(a, o)\n",
    "(1 + erf) (x/2)": "a = Mul(half, x)\ny = Mul(o, a)\n",
    "x ((1 + erf) / 2)": "a = Mul(o, half)\ny = Mul(x, a)\n",
    "x (1 + erf) over 2": "a = Mul(x, o)\ny = Div(a, two1)\n",
}
for (an, arg), (en, end) in itertools.product(ARGUMENTS.items(), ENDS.items()):
    case(f"gelu, {en}, {an}", c(one=1.0, half=0.5, two1=2.0) + arg + ERF + end, "gelu")
case("gelu of a product", c(one=1.0, half=0.5) + "x = Mul(u, v)\n" + ARGUMENTS["div"] + ERF + ENDS["x (1 + erf) / 2"], "gelu",
     inputs="float[B,S,16] u, float[16] v")
case("gelu, gated", c(one=1.0, half=0.5) + ARGUMENTS["div"] + ERF + "a = Mul(x, o)\ng = Mul(a, half)\ny = Mul(g, u)\n", "gelu",
     inputs="float[B,S,16] x, float[B,S,16] u")
case("gelu in float16", c(one0=1.0, half0=0.5, r20=1.4142135) + "one = CastLike(one0, x)\nhalf = CastLike(half0, x)\nr2 = CastLike(r20, x)\nz = Div(x, r2)\n" +
     ERF + ENDS["x (1 + erf) / 2"], "gelu", inputs="float16[B,S,16] x", tol="float16")
CUBES = {"pow": "x3 = Pow(x, three)\n", "mul": "x2 = Mul(x, x)\nx3 = Mul(x, x2)\n", "mul-right": "x2 = Mul(x, x)\nx3 = Mul(x2, x)\n"}
TANH = "t = Tanh(z)\no = Add(one, t)\n"
for (un, cube), (en, end) in itertools.product(CUBES.items(), ENDS.items()):
    case(f"gelu_tanh, {en.replace('erf', 'tanh')}, {un}", c(three=3.0, k=0.044715, s=0.7978845608, one=1.0, half=0.5, two1=2.0) + cube +
         "kx = Mul(k, x3)\ni = Add(x, kx)\nz = Mul(s, i)\n" + TANH + end, "gelu_tanh")
case("gelu_tanh, x outside", c(k=0.044715, s=0.7978845608, one=1.0, half=0.5) + "x2 = Mul(x, x)\nkx = Mul(x2, k)\ni = Add(one, kx)\nsx = Mul(x, s)\nz = Mul(sx, i)\n" +
     TANH + ENDS["x/2 (1 + erf)"], "gelu_tanh")
case("silu", "s = Sigmoid(x)\ny = Mul(x, s)\n", "silu")
case("silu, gated", "s = Sigmoid(x)\na = Mul(s, x)\ny = Mul(a, u)\n", "silu", inputs="float[B,S,16] x, float[B,S,16] u")
case("silu of a product", "x = Mul(u, v)\ns = Sigmoid(x)\ny = Mul(x, s)\n", "silu", inputs="float[B,S,16] u, float[16] v")
G = dict(one=1.0, half=0.5)
case("near gelu: another root", c(**G, r2=1.41) + "z = Div(x, r2)\n" + ERF + ENDS["x (1 + erf) / 2"], reason="gelu: erf of 0.709")
case("near gelu: plus 2", c(one=2.0, half=0.5) + ARGUMENTS["div"] + ERF + ENDS["x (1 + erf) / 2"], reason="gelu: 2 \\+ erf")
case("near gelu: not halved", c(one=1.0, half=0.25) + ARGUMENTS["div"] + ERF + ENDS["x (1 + erf) / 2"], reason="gelu: times 0.25 x")
case("near gelu: of another value", c(**G) + ARGUMENTS["div"] + ERF + "a = Mul(u, o)\ny = Mul(a, half)\n", reason="not times its own",
     inputs="float[B,S,16] x, float[B,S,16] u")
case("near gelu: minus erf", c(**G) + ARGUMENTS["div"] + "e = Erf(z)\no = Sub(one, e)\n" + ENDS["x (1 + erf) / 2"])
for what, k, s, p in (("cube", 0.0447, 0.7978845608, 3.0), ("root", 0.044715, 0.8, 3.0), ("exponent", 0.044715, 0.7978845608, 2.0)):
    case(f"near gelu_tanh: {what}", c(three=p, k=k, s=s, **G) + CUBES["pow"] + "kx = Mul(k, x3)\ni = Add(x, kx)\nz = Mul(s, i)\n" + TANH + ENDS["x (1 + erf) / 2"],
         reason="gelu_tanh: tanh (of|is not)")
case("near silu: quick gelu", c(k=1.702) + "z = Mul(x, k)\ns = Sigmoid(z)\ny = Mul(x, s)\n", reason="silu: sigmoid of 1.702")
case("near silu: a gate", "s = Sigmoid(u)\ny = Mul(x, s)\n", inputs="float[B,S,16] x, float[B,S,16] u")

# ---- norms -----------------------------------------------------------------------------------------

WEIGHT = const("w", np.linspace(0.5, 1.5, 16).round(4)) + const("b", np.linspace(-1, 1, 16).round(4))
SQUARES = {"pow": c(two=2.0) + "q = Pow(d, two)\n", "mul": "q = Mul(d, d)\n"}
MEANS = {"mean": "v = ReduceMean <axes = [-1]> (q)\n", "mean of axis 2": "v = ReduceMean <axes = [2]> (q)\n",
         "sum": c(n=16.0) + const("ax", [-1], "int64") + "v0 = ReduceSum(q, ax)\nv = Div(v0, n)\n"}
ROOTS = {"div": "r = Sqrt(e)\ny0 = Div(d, r)\n", "reciprocal": "r = Sqrt(e)\ni = Reciprocal(r)\ny0 = Mul(d, i)\n",
         "one over": "r = Sqrt(e)\none = Constant <value = float {1}> ()\ni = Div(one, r)\ny0 = Mul(i, d)\n",
         "pow": c(mh=-0.5) + "i = Pow(e, mh)\ny0 = Mul(d, i)\n"}
AFFINE = {"layernorm": "y1 = Mul(y0, w)\ny = Add(y1, b)\n", "rmsnorm": "y = Mul(w, y0)\n"}
for kind, sq, me, ro in itertools.product(AFFINE, SQUARES, MEANS, ROOTS):
    centre = "m = ReduceMean <axes = [-1]> (x)\nd = Sub(x, m)\n" if kind == "layernorm" else "d = Identity(x)\n"
    case(f"{kind}, {sq}, {me}, {ro}", centre + SQUARES[sq] + MEANS[me] + c(eps=1e-5) + "e = Add(v, eps)\n" + ROOTS[ro] + WEIGHT + AFFINE[kind],
         [kind] + {"layernorm": ["layernorm-affine"] * 2, "rmsnorm": ["rmsnorm-scale"]}[kind])
case("rmsnorm of a product", "x = Mul(u, v0)\nd = Identity(x)\n" + SQUARES["mul"] + MEANS["mean"] + c(eps=1e-5) + "e = Add(v, eps)\n" + ROOTS["div"] + WEIGHT +
     AFFINE["rmsnorm"], "rmsnorm", inputs="float[B,S,16] u, float[16] v0")
case("rmsnorm in float of float16", "d = Cast <to = 1> (x)\n" + SQUARES["pow"] + MEANS["mean"] + c(eps=1e-5) + "e = Add(v, eps)\n" + ROOTS["div"] +
     "y1 = Cast <to = 10> (y0)\n" + WEIGHT + "w1 = Cast <to = 10> (w)\ny = Mul(w1, y1)\n", "rmsnorm", inputs="float16[B,S,16] x", tol="float16")
case("layernorm over two axes", "m = ReduceMean <axes = [-2,-1]> (x)\nd = Sub(x, m)\n" + SQUARES["mul"] + "v = ReduceMean <axes = [1,2]> (q)\n" + c(eps=1e-5) +
     "e = Add(v, eps)\n" + ROOTS["div"] + "y = Identity(y0)\n", "layernorm")
NORM = dict(d="d = Identity(x)\n", q=SQUARES["mul"], v=MEANS["mean"], e=c(eps=1e-5) + "e = Add(v, eps)\n", r=ROOTS["div"], end="y = Identity(y0)\n")


def near(name, reason=None, inputs="float[B,S,16] x", rule=None, **parts):
    case(f"near norm: {name}", "".join((NORM | parts).values()), rule, reason=reason, inputs=inputs)


near("cube", "norm: the mean is of", q=c(three=3.0) + "q = Pow(d, three)\n")
near("magnitude", "norm: the mean is of", q="q = Abs(d)\n")
near("square of another", "norm: the mean is of", q="q = Mul(u, u)\n", inputs="float[B,S,16] x, float[B,S,16] u")
near("half the square", "norm: the mean is of", q=c(h=0.5) + "q0 = Mul(d, d)\nq = Mul(q0, h)\n")
near("mean of another axis", "norm: .* is not a mean over last axes", v="v = ReduceMean <axes = [1]> (q)\n")
near("largest square", v="v = ReduceMax <axes = [-1]> (q)\n")
near("sum over another number", v=c(n=15.0) + const("ax", [-1], "int64") + "v0 = ReduceSum(q, ax)\nv = Div(v0, n)\n")
near("epsilon per row", "norm: .* is not a mean over last axes", e="e = Add(v, eps)\n", inputs="float[B,S,16] x, float[S,1] eps0", d="eps = Abs(eps0)\nd = Identity(x)\n")
near("epsilon after the root", r=c(eps1=1e-3) + "r0 = Sqrt(e)\nr = Add(r0, eps1)\ny0 = Div(d, r)\n")
near("cube root", r=c(third=-0.3333333) + "i = Pow(e, third)\ny0 = Mul(d, i)\n")
near("root over x", r="r = Sqrt(e)\nx1 = Add(x, r)\ny0 = Div(r, x1)\n")
near("centred by another mean", rule="rmsnorm", d="m = ReduceMean <axes = [1]> (x)\nd = Sub(x, m)\n")
near("centred by a maximum", rule="rmsnorm", d="m = ReduceMax <axes = [-1]> (x)\nd = Sub(x, m)\n")
near("scale along rows", rule="rmsnorm", end="y = Mul(y0, w)\n", inputs="float[B,S,16] x, float[S,1] w")
near("small epsilon", rule="rmsnorm", e=c(eps=1e-12) + "e = Add(eps, v)\n")

DIFFERENCE = "m = ReduceMean <axes = [-1]> (x)\nxx = Mul(x, x)\nq = ReduceMean <axes = [-1]> (xx)\nmm = Mul(m, m)\nv = Sub(q, mm)\n"
case("layernorm of a difference of means is none: it rounds otherwise", DIFFERENCE + c(eps=1e-3) + "e = Add(v, eps)\nd = Sub(x, m)\n" + ROOTS["div"] + "y = Identity(y0)\n")

# ---- rotary embeddings -----------------------------------------------------------------------------

QCS = "float[B,4,S,8] x, float[1,1,S,4] ch, float[1,1,S,4] sh"


def cut(name, of, start, end, step=1, axis=-1):
    parts = dict(b=start, e=end, a=axis, s=step)
    return "".join(const(f"{name}{k}", [v], "int64") for k, v in parts.items()) + \
        f"{name} = Slice({of}, {name}b, {name}e, {name}a, {name}s)\n"


TABLES = "c = Concat <axis = -1> (ch, ch)\ns = Concat <axis = -1> (sh, sh)\n"
HALVES = {"slices": cut("x0", "x", 0, 4) + cut("x1", "x", 4, 2**31), "split": "x0, x1 = Split <axis = -1> (x)\n"}
TURN = "n = Neg(x1)\nt = Concat <axis = -1> (n, x0)\n"
for hn, half in HALVES.items():
    for first in (True, False):
        xc, ts = ("a = Mul(x, c)\nd = Mul(t, s)\n", "y = Add(a, d)\n") if first else ("a = Mul(c, x)\nd = Mul(s, t)\n", "y = Add(d, a)\n")
        case(f"rope by halves, {hn}, {'x first' if first else 'tables first'}", TABLES + half + TURN + xc + ts, "rope", inputs=QCS, opset=13)
BOTH = "a = Mul(x0, ch)\nb = Mul(x1, sh)\ny0 = Sub(a, b)\nd = Mul(x1, ch)\ne = Mul(x0, sh)\ny1 = Add(d, e)\n"
case("rope, both halves", HALVES["slices"] + BOTH + "y = Concat <axis = -1> (y0, y1)\n", "rope", inputs=QCS)
case("rope, both halves, other orders", HALVES["slices"] + "a = Mul(ch, x0)\nb = Mul(x1, sh)\ny0 = Sub(a, b)\nd = Mul(x1, ch)\ne = Mul(sh, x0)\ny1 = Add(e, d)\n"
     "y = Concat <axis = -1> (y0, y1)\n", "rope", inputs=QCS)
STACK = const("m1", [-1], "int64") + "u0 = Unsqueeze(y0, m1)\nu1 = Unsqueeze(y1, m1)\nu = Concat <axis = -1> (u0, u1)\n" + const("w", [0, 0, 0, 8], "int64") + "y = Reshape(u, w)\n"
case("rope of pairs", cut("x0", "x", 0, 2**31, 2) + cut("x1", "x", 1, 2**31, 2) + BOTH + STACK, "rope", inputs=QCS)
case("rope of pairs, gathered", const("w2", [0, 0, 0, 4, 2], "int64") + const("i0", 0, "int64") + const("i1", 1, "int64") +
     "xr = Reshape(x, w2)\nx0 = Gather <axis = 4> (xr, i0)\nx1 = Gather <axis = 4> (xr, i1)\n" + BOTH + STACK, "rope", inputs=QCS)
EVENODD = cut("x0", "x", 0, 2**31, 2) + cut("x1", "x", 1, 2**31, 2)
PAIRED = const("m1", [-1], "int64") + "n = Neg(x1)\nu0 = Unsqueeze(n, m1)\nu1 = Unsqueeze(x0, m1)\nu = Concat <axis = -1> (u0, u1)\n" + \
    const("w", [0, 0, 0, 8], "int64") + "t = Reshape(u, w)\n"
TWICE = const("two", [1, 1, 1, 1, 2], "int64") + "".join(f"{k}u = Unsqueeze({k}h, m1)\n{k}t = Tile({k}u, two)\n{k} = Reshape({k}t, w)\n" for k in "cs")
case("rope of pairs as a sum, by what the tables hold", EVENODD + PAIRED + TWICE + "a = Mul(x, c)\nd = Mul(t, s)\ny = Add(a, d)\n", inputs=QCS)
case("rope of part of the columns", cut("x", "z", 0, 8) + cut("rest", "z", 8, 2**31) + TABLES + HALVES["slices"] + TURN +
     "a = Mul(x, c)\nd = Mul(t, s)\ny0 = Add(a, d)\ny = Concat <axis = -1> (y0, rest)\n", "rope", inputs=QCS.replace("8] x", "12] z"))
SUM = "a = Mul(x, c)\nd = Mul(t, s)\ny = Add(a, d)\n"
case("near rope: the other half negated", TABLES + HALVES["slices"] + "n = Neg(x0)\nt = Concat <axis = -1> (x1, n)\n" + SUM, inputs=QCS, reason="rope: the second half is negated")
case("near rope: halves in place", TABLES + HALVES["slices"] + "n = Neg(x0)\nt = Concat <axis = -1> (n, x1)\n" + SUM, inputs=QCS, reason="rope: .* not the two halves")
case("near rope: tables with other halves", "c = Concat <axis = -1> (ch, sh)\ns = Concat <axis = -1> (sh, ch)\n" + HALVES["slices"] + TURN + SUM, inputs=QCS,
     reason="rope: the halves of .* cannot be shown")
case("near rope: of another register", TABLES + HALVES["slices"] + TURN + "a = Mul(z, c)\nd = Mul(t, s)\ny = Add(a, d)\n", inputs=QCS + ", float[B,4,S,8] z",
     reason="rope: .* not the two halves of a factor of the other term")
case("near rope: thirds", cut("x0", "x", 0, 3) + cut("x1", "x", 3, 2**31) + TABLES + TURN + SUM, inputs=QCS, reason="rope: .* not the two halves")
case("near rope: subtracted", TABLES + HALVES["slices"] + TURN + "a = Mul(x, c)\nd = Mul(t, s)\ny = Sub(a, d)\n", inputs=QCS)
case("near rope: both halves, signs swapped", HALVES["slices"] + BOTH.replace("Sub", "Q").replace("Add", "Sub").replace("Q", "Add") +
     "y = Concat <axis = -1> (y0, y1)\n", inputs=QCS)
case("near rope: both halves, concatenated the other way", HALVES["slices"] + BOTH + "y = Concat <axis = -1> (y1, y0)\n", inputs=QCS)
case("near rope: both halves, one table twice", HALVES["slices"] + BOTH.replace("e = Mul(x0, sh)", "e = Mul(x0, ch)") + "y = Concat <axis = -1> (y0, y1)\n", inputs=QCS)
case("near rope: pairs put back as halves", cut("x0", "x", 0, 2**31, 2) + cut("x1", "x", 1, 2**31, 2) + BOTH + "y = Concat <axis = -1> (y0, y1)\n",
     inputs=QCS, reason="rope: .* not the two halves")

if __name__ == "__main__":
    sys.exit(graphs.main(CASES, __doc__))
