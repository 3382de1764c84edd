#!/usr/bin/env python3
"""Mixtures of experts as exporters write them, against onnxruntime; and that each is computed once, in few kernels.

    experts.py build/forge [--filter REGEX] [--list]
"""
import sys

import numpy as np

import graphs
from graphs import const

CASES = {}
SIZES = [dict(B=2, S=7), dict(B=1, S=1), dict(B=3, S=33)]
D, F, E, K = 16, 24, 4, 2


def case(name, body, kernels, gated, **more):
    """gated: how many kernels compute gate and value of an expert, or of all, in step; 0: its product stands alone."""
    assert name not in CASES, name
    counts = {"silu": gated or 1, "kernels around a pair of products": gated}
    CASES[name] = graphs.Case(f"float[B,S,{D}] x", body, counts, sizes=SIZES, kernels=kernels,
                              about=("fuse_ops", "silu: "), **more)


def matrix(name, *shape):
    v = np.random.default_rng(len(name) + sum(map(ord, name))).standard_normal(shape) / shape[-2] ** 0.5
    return const(name, v.round(4))


def ints(**values):
    return "".join(const(k, v, "int64") for k, v in values.items())


ROUTER = matrix("wr", D, E) + ints(k=[K], last=[-1]) + "logits = MatMul(x, wr)\np = Softmax <axis = -1> (logits)\n" \
    "v0, i = TopK <axis = -1> (p, k)\nsum = ReduceSum <keepdims = 1> (v0, last)\nv = Div(v0, sum)\n"
AFTER = matrix("wr", D, E) + ints(k=[K], last=[-1]) + "logits = MatMul(x, wr)\nv0, i = TopK <axis = -1> (logits, k)\nv = Softmax <axis = -1> (v0)\n"
# The weight of each expert for each row, r[B,S,E].
ROUTES = {
    "one-hot": ints(depth=E) + const("on", [0.0, 1.0]) + ints(m2=[-2], m1=[-1]) +
        "h = OneHot <axis = -1> (i, depth, on)\nvu = Unsqueeze(v, m1)\nhv = Mul(h, vu)\nr = ReduceSum <keepdims = 0> (hv, m2)\n",
    "scatter": const("zero", 0.0) + "zeros = Mul(logits, zero)\nr = ScatterElements <axis = -1> (zeros, i, v)\n",
    "expanded zeros": "sh = Shape(logits)\nzeros = ConstantOfShape(sh)\nr = ScatterElements <axis = -1> (zeros, i, v)\n",
    "threshold": const("none", 0.0) + ints(k1=[K - 1], k2=[K]) + "least = Slice(v0, k1, k2, last)\nin = GreaterOrEqual(p, least)\nrm = Where(in, p, none)\n"
        "rs = ReduceSum <keepdims = 1> (rm, last)\nr = Div(rm, rs)\n",
    "equal": ints(all=list(range(E)), m1=[-1], m2=[-2]) + "iu = Unsqueeze(i, m1)\nq = Equal(iu, all)\nh = Cast <to = 1> (q)\nvu = Unsqueeze(v, m1)\n"
        "hv = Mul(h, vu)\nr = ReduceSum <keepdims = 0> (hv, m2)\n",
}


def expert(e, x="x"):
    return matrix(f"wg{e}", D, F) + matrix(f"wu{e}", D, F) + matrix(f"wd{e}", F, D) + \
        f"g{e} = MatMul({x}, wg{e})\ns{e} = Sigmoid(g{e})\na{e} = Mul(g{e}, s{e})\nu{e} = MatMul({x}, wu{e})\nh{e} = Mul(a{e}, u{e})\nd{e} = MatMul(h{e}, wd{e})\n"


def weighted(e, route):
    return route + f"o{e} = Mul(d{e}, r{e})\n" + (f"y{e} = Add(y{e - 1}, o{e})\n" if e else "y0 = Identity(o0)\n")


END = f"y = Identity(y{E - 1})\n"
UNROLLED = "".join(expert(e) + weighted(e, ints(**{f"b{e}": [e], f"e{e}": [e + 1]}) + f"r{e} = Slice(r, b{e}, e{e}, last)\n") for e in range(E)) + END
for name, route in ROUTES.items():
    case(f"each expert, {name}", ROUTER + route + UNROLLED, 11, E)
MASKED = "".join(expert(e) + weighted(e, ints(**{f"c{e}": e}) + f"q{e} = Equal(i, c{e})\nf{e} = Cast <to = 1> (q{e})\nfv{e} = Mul(f{e}, v)\n"
                                      f"r{e} = ReduceSum <keepdims = 1> (fv{e}, last)\n") for e in range(E)) + END
case("each expert, its own mask", ROUTER + MASKED, 13, E)
WHERE = "".join(expert(e) + weighted(e, ints(**{f"c{e}": e}) + f"q{e} = Equal(i, c{e})\nfv{e} = Where(q{e}, v, none)\n"
                                     f"r{e} = ReduceSum <keepdims = 1> (fv{e}, last)\n") for e in range(E)) + END
case("each expert, its own mask by where, softmax after", AFTER + const("none", 0.0) + WHERE, 11, E)

STACKED = matrix("wgu", E, D, 2 * F) + matrix("wd", E, F, D) + ints(rows=[-1, D], z=[0], f=[F], f2=[2 * F], re=[-1, E])
GATED = "gu = MatMul(xe, wgu)\ng = Slice(gu, z, f, last)\nu = Slice(gu, f, f2, last)\ns = Sigmoid(g)\na = Mul(g, s)\nhe = Mul(a, u)\nd = MatMul(he, wd)\n"
TURN = "rf = Reshape(r, re)\nrt = Transpose <perm = [1,0]> (rf)\nru = Unsqueeze(rt, last)\n"
SUM = "o = Mul(d, ru)\nys = ReduceSum <keepdims = 0> (o, z)\nsx = Shape(x)\ny = Reshape(ys, sx)\n"
case("all at once, rows broadcast", ROUTER + ROUTES["scatter"] + STACKED + "xf = Reshape(x, rows)\nxe = Unsqueeze(xf, z)\n" + GATED + TURN + SUM, 8, 1)
case("all at once, rows repeated", ROUTER + ROUTES["one-hot"] + STACKED + ints(t=[E, 1, 1]) + "xf = Reshape(x, rows)\nx1 = Unsqueeze(xf, z)\nxe = Tile(x1, t)\n" +
     GATED + TURN + SUM, 8, 1)
case("all at once, rows repeated and weighted before", ROUTER + ROUTES["one-hot"] + STACKED + ints(t=[E, 1, 1]) + "xf = Reshape(x, rows)\nx1 = Unsqueeze(xf, z)\n"
     "xt = Tile(x1, t)\n" + TURN + "xe = Mul(xt, ru)\n" + GATED + "ys = ReduceSum <keepdims = 0> (d, z)\nsx = Shape(x)\ny = Reshape(ys, sx)\n", 10, 1)
case("all at once, einsum", ROUTER + ROUTES["equal"] + STACKED + "xe = Identity(x)\ngu = Einsum <equation = \"bsd,edf->bsef\"> (x, wgu)\n" +
     GATED.split("\n", 1)[1].replace("d = MatMul(he, wd)", 'd = Einsum <equation = "bsef,efd->bsed"> (he, wd)') + 'y = Einsum <equation = "bsed,bse->bsd"> (d, r)\n', 8, 0)
case("the weights of chosen experts gathered", ROUTER + STACKED + ints(ki=[-1, K], m1=[-1]) + "xf = Reshape(x, rows)\nif = Reshape(i, ki)\nvf = Reshape(v, ki)\n"
     "w1 = Gather <axis = 0> (wgu, if)\nw2 = Gather <axis = 0> (wd, if)\n" + ints(a1=[1], a12=[1, 2]) + "xe = Unsqueeze(xf, a12)\ngu = MatMul(xe, w1)\n"
     + GATED.split("\n", 1)[1].replace("wd", "w2") + ints(a2=[2], a23=[2, 3]) + "vu = Unsqueeze(vf, a23)\no = Mul(d, vu)\nys = ReduceSum <keepdims = 0> (o, a12)\nsx = Shape(x)\n"
     "y = Reshape(ys, sx)\n", 8, 1)


def sparse(e):
    """Rows that chose expert e, and back: what torch.where and index_add_ become."""
    return ints(**{f"c{e}": e}) + f"q{e} = Equal(if, c{e})\nnz{e} = NonZero(q{e})\nt{e} = Gather <axis = 0> (nz{e}, i0)\nj{e} = Gather <axis = 0> (nz{e}, i1)\n" \
        f"xt{e} = Gather <axis = 0> (xf, t{e})\n" + expert(e, f"xt{e}") + \
        f"tj{e} = Transpose <perm = [1,0]> (nz{e})\nvt{e} = GatherND (vf, tj{e})\nvw{e} = Unsqueeze(vt{e}, last)\no{e} = Mul(d{e}, vw{e})\n" \
        f"tu{e} = Unsqueeze(t{e}, last)\ny{e} = ScatterND <reduction = \"add\"> ({f'y{e - 1}' if e else 'none'}, tu{e}, o{e})\n"


FLAT = ints(rows=[-1, D], ki=[-1, K], i0=0, i1=1) + "xf = Reshape(x, rows)\nif = Reshape(i, ki)\nvf = Reshape(v, ki)\nsf = Shape(xf)\nnone = ConstantOfShape(sf)\n"
case("rows of each expert gathered", ROUTER + FLAT + "".join(map(sparse, range(E))) + f"sx = Shape(x)\ny = Reshape(y{E - 1}, sx)\n", 34, E, opset=18)


def taken(e):
    """An expert that runs only if a row chose it."""
    inner = (expert(e) + f"o{e} = Mul(d{e}, r{e})\nt{e} = Add({f'y{e - 1}' if e else 'none'}, o{e})\n").replace("\n", "\n  ")
    return ints(**{f"c{e}": e, f"b{e}": [e], f"e{e}": [e + 1]}) + f"r{e} = Slice(r, b{e}, e{e}, last)\nq{e} = Equal(i, c{e})\nqi{e} = Cast <to = 6> (q{e})\n" \
        f"qm{e} = ReduceMax <keepdims = 0> (qi{e})\nqb{e} = Cast <to = 9> (qm{e})\n" \
        f"y{e} = If (qb{e}) <then_branch = then{e} () => (float[B,S,{D}] t{e}) {{\n  {inner}\n}}, else_branch = else{e} () => (float[B,S,{D}] f{e}) {{\n" \
        f"  f{e} = Identity({f'y{e - 1}' if e else 'none'})\n}}>\n"


case("each expert, if chosen", ROUTER + ROUTES["scatter"] + const("zero1", 0.0) + "none = Mul(x, zero1)\n" + "".join(map(taken, range(E))) + END, 23, E)
LOOP = f"trip = Constant <value = int64 {{{E}}}> ()\nyes = Constant <value = bool {{1}}> ()\nnone = Mul(x, zero1)\n" \
    f"y = Loop (trip, yes, none) <body = each (int64 e, bool c, float[B,S,{D}] acc) => (bool c1, float[B,S,{D}] acc1) {{\n" \
    "  c1 = Identity(c)\n  w1 = Gather <axis = 0> (wgu, e)\n  w2 = Gather <axis = 0> (wd, e)\n  gu = MatMul(x, w1)\n  g = Slice(gu, z, f, last)\n" \
    "  u = Slice(gu, f, f2, last)\n  s = Sigmoid(g)\n  a = Mul(g, s)\n  h = Mul(a, u)\n  d = MatMul(h, w2)\n" \
    "  re1 = Gather <axis = 2> (r, e)\n  reu = Unsqueeze(re1, last)\n  o = Mul(d, reu)\n  acc1 = Add(acc, o)\n}>\n"
case("a loop over experts", ROUTER + ROUTES["scatter"] + const("zero1", 0.0) + STACKED + LOOP, 10, 1)

if __name__ == "__main__":
    sys.exit(graphs.main(CASES, __doc__))
