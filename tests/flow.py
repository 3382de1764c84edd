#!/usr/bin/env python3
"""Control flow, functions and sequences against onnxruntime, on models written here as text.

    flow.py build/forge [--filter REGEX] [--levels 0,1]

Each model runs on several sets of input shapes, so that sizes that depend on data, zero iterations
and both branches occur.
"""
import argparse, os, re, subprocess, sys, tempfile

import numpy as np
import onnx, onnx.parser, onnx.numpy_helper
import onnxruntime

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'

# name: (text, list of data sets; each a list of arrays)
rng = np.random.default_rng(1)


def f(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def i(*v):
    return np.array(v[0] if len(v) == 1 else v, np.int64)


def b(v):
    return np.array(v)


MODELS = {
    "if_same_shape": ("""agraph (float[N,4] x, bool c) => (float[N,4] y) {
        y = If (c) <then_branch = t () => (float[N,4] a) { a = Relu(x) },
                    else_branch = e () => (float[N,4] d) { d = Neg(x) }>
    }""", [[f(3, 4), b(True)], [f(2, 4), b(False)], [f(0, 4), b(False)]]),

    "if_sizes_differ": ("""agraph (float[N,4] x, bool[1] c) => (float[M,4] y, float[K,2] z) {
        two = Constant <value = int64[1] {2}> ()
        minus = Constant <value = int64[1] {-1}> ()
        shape = Concat <axis = 0> (minus, two)
        r = If (c) <then_branch = t () => (float[P,4] a) { a = Concat <axis = 0> (x, x) },
                    else_branch = e () => (float[Q,4] d) { d = Neg(x) }>
        y = Mul(r, r)
        z = Reshape(y, shape)
    }""", [[f(3, 4), b([True])], [f(2, 4), b([False])], [f(5, 4), b([True])]]),

    "if_constant": ("""agraph (float[N,4] x) => (float[N,4] y) {
        c = Constant <value = bool {0}> ()
        y = If (c) <then_branch = t () => (float[N,4] a) { a = Relu(x) },
                    else_branch = e () => (float[N,4] d) { d = Neg(x) }>
    }""", [[f(3, 4)]]),

    "if_outer_value": ("""agraph (float[N,4] x, bool c) => (float[N,4] y, float[N,4] z) {
        n = Neg(x)
        y, z = If (c) <then_branch = t () => (float[N,4] a, float[N,4] a2) { a = Identity(x)  a2 = Identity(n) },
                       else_branch = e () => (float[N,4] d, float[N,4] d2) { d = Relu(n)  d2 = Identity(d) }>
    }""", [[f(3, 4), b(True)], [f(2, 4), b(False)]]),

    "if_nested": ("""agraph (float[N,4] x, bool c, bool d) => (float[N,4] y) {
        y = If (c) <then_branch = t () => (float[N,4] a) {
            a = If (d) <then_branch = t2 () => (float[N,4] p) { p = Relu(x) },
                        else_branch = e2 () => (float[N,4] q) { q = Neg(x) }> },
                    else_branch = e () => (float[N,4] r) { r = Mul(x, x) }>
    }""", [[f(3, 4), b(True), b(True)], [f(2, 4), b(True), b(False)], [f(1, 4), b(False), b(True)]]),

    # The two copies of a merged decoder: what one says of the sizes does not bind the other.
    "if_merged_decoder": ("""agraph (float[B,S,4] x, float[B,P,4] past, float[B,T] mask, bool c) => (float[B,U,4] y) {
        last = Constant <value = int64[1] {2}> ()
        m = Unsqueeze(mask, last)
        y = If (c) <then_branch = t () => (float[B,V,4] a) {
            all = Concat <axis = 1> (past, x)
            a = Mul(all, m) },
                    else_branch = e () => (float[B,W,4] d) { d = Mul(x, m) }>
    }""", [[f(2, 3, 4), f(2, 5, 4), f(2, 8), b(True)], [f(1, 3, 4), f(1, 0, 4), f(1, 3), b(False)],
           [f(1, 1, 4), f(1, 7, 4), f(1, 8), b(True)], [f(2, 3, 4), f(2, 5, 4), f(2, 3), b(False)]]),

    # What one branch reads of a table says nothing of the size of the table in the other.
    "if_positions": ("""agraph (float[N,4] x, float[T,4] table, bool c) => (float[M,4] y) {
        at = Constant <value = int64[3] {0, 1, 2}> ()
        y = If (c) <then_branch = t () => (float[P,4] a) { r = Gather(table, at)  a = Add(x, r) },
                    else_branch = e () => (float[Q,4] d) { d = Neg(x) }>
    }""", [[f(3, 4), f(5, 4), b(True)], [f(3, 4), f(2, 4), b(False)]]),

    # A squeeze as TorchScript writes it, of an axis whose size it did not know: in the graph, and in a branch.
    "if_squeezes": ("""agraph (float[N,4,K] x, float[4] w) => (float[M,4] y) {
        axis = Constant <value = int64[1] {2}> ()
        one = Constant <value = int64[1] {1}> ()
        shape = Shape(x)
        k = Gather(shape, axis)
        c = Equal(k, one)
        s = If (c) <then_branch = t () => (float[] a) { a = Squeeze(x, axis) },
                    else_branch = e () => (float[] d) { d = Identity(x) }>
        y = Mul(s, w)
    }""", [[f(3, 4, 1), f(4)], [f(1, 4, 1), f(4)]]),

    "if_squeezes_in_a_branch": ("""agraph (float[N,K] x, float[4] w, bool c) => (float[M] y) {
        one = Constant <value = int64[1] {1}> ()
        y = If (c) <then_branch = t () => (float[] a) {
            r = Relu(x)
            shape = Shape(r)
            k = Gather(shape, one)
            differ = Equal(k, one)
            keep = Not(differ)
            s = If (keep) <then_branch = t2 () => (float[] g) { g = Identity(r) },
                            else_branch = e2 () => (float[] h) { h = Squeeze(r, one) }>
            a = Add(s, w) },
                    else_branch = e () => (float[] d) { d = ReduceSum <keepdims = 0> (x, one) }>
    }""", [[f(4, 1), f(4), b(True)], [f(3, 5), f(4), b(False)]]),

    "if_from_data": ("""agraph (float[N,4] x) => (float[N,4] y) {
        s = ReduceSum <keepdims = 0> (x)
        zero = Constant <value = float {0}> ()
        c = Greater(s, zero)
        y = If (c) <then_branch = t () => (float[N,4] a) { a = Softmax <axis = 1> (x) },
                    else_branch = e () => (float[N,4] d) { d = Tanh(x) }>
    }""", [[f(3, 4)], [np.ones((2, 4), np.float32)], [-np.ones((2, 4), np.float32)]]),

    "unnamed": ("""agraph (float[?,?] x, float[?] w) => (float[?,?] y) {
        y = Mul(x, x)
    }""", [[f(3, 4), f(2)]]),

    # Numbers that nobody can compare, by what must hold of them: mean, variance, range, and that nodes differ.
    "random": ("""agraph (float[N,M] x) => (float[4] y, float[4] z, bool same, float[1] small) {
        a = RandomNormalLike <mean = 3.0, scale = 2.0> (x)
        b = RandomNormal <shape = [100, 1000]> ()
        c = RandomUniformLike <low = -1.0, high = 3.0> (x)
        d = RandomUniform <shape = [100, 1000], seed = 7.0> ()
        e = RandomUniform <shape = [1], dtype = 11> ()
        am = ReduceMean <keepdims = 0> (a)
        bm = ReduceMean <keepdims = 0> (b)
        cm = ReduceMean <keepdims = 0> (c)
        dm = ReduceMean <keepdims = 0> (d)
        a0 = Sub(a, am)
        a2 = ReduceSumSquare <keepdims = 0> (a0)
        b2 = ReduceSumSquare <keepdims = 0> (b)
        low = ReduceMin <keepdims = 0> (c)
        high = ReduceMax <keepdims = 0> (d)
        ten = Constant <value = float {10}> ()
        tens = Constant <value = float {10000}> ()
        one = Constant <value_ints = [1]> ()
        ar = Reshape(am, one)
        br = Reshape(bm, one)
        cr = Reshape(cm, one)
        dr = Reshape(dm, one)
        means = Concat <axis = 0> (ar, br, cr, dr)
        tenth = Mul(means, ten)
        y = Round(tenth)
        as = Div(a2, tens)
        bs = Div(b2, tens)
        ap = Reshape(as, one)
        bp = Reshape(bs, one)
        lp = Reshape(low, one)
        hp = Reshape(high, one)
        spread = Concat <axis = 0> (ap, bp, lp, hp)
        z = Round(spread)
        f = RandomNormalLike(x)
        g = RandomNormalLike(x)
        fg = Sub(f, g)
        fm = ReduceMax <keepdims = 0> (fg)
        zero = Constant <value = float {0}> ()
        same = Equal(fm, zero)
        wide = Cast <to = 1> (e)
        small = Floor(wide)
    }""", [[f(100, 1000)]]),

    "loop_fixed_shape": ("""agraph (float[N,4] x, int64 m) => (float[N,4] y) {
        on = Constant <value = bool {1}> ()
        y = Loop (m, on, x) <body = g (int64 it, bool go, float[N,4] a) => (bool go2, float[N,4] d) {
            go2 = Identity(go)
            h = Tanh(a)
            d = Add(h, x) }>
    }""", [[f(3, 4), i(3)], [f(2, 4), i(0)], [f(1, 4), i(1)]]),

    "loop_until": ("""agraph (float[4] x) => (float[4] y, int64 n) {
        on = Constant <value = bool {1}> ()
        limit = Constant <value = float {100}> ()
        zero = Constant <value = int64 {0}> ()
        one = Constant <value = int64 {1}> ()
        y, n = Loop (, on, x, zero) <body = g (int64 it, bool go, float[4] a, int64 k) => (bool go2, float[4] d, int64 k2) {
            d = Add(a, a)
            k2 = Add(k, one)
            s = ReduceSum <keepdims = 0> (d)
            go2 = Less(s, limit) }>
    }""", [[np.ones(4, np.float32)], [np.full(4, 200, np.float32)]]),

    "loop_trip_and_until": ("""agraph (float[4] x, int64 m, bool c) => (float[4] y) {
        limit = Constant <value = float {100}> ()
        y = Loop (m, c, x) <body = g (int64 it, bool go, float[4] a) => (bool go2, float[4] d) {
            d = Add(a, a)
            s = ReduceSum <keepdims = 0> (d)
            go2 = Less(s, limit) }>
    }""", [[np.ones(4, np.float32), i(2), b(True)], [np.ones(4, np.float32), i(50), b(True)],
           [np.ones(4, np.float32), i(5), b(False)]]),

    "loop_scan_outputs": ("""agraph (float[N,4] x, int64 m) => (float[N,4] y, float[T,N,4] z, int64[T] k) {
        on = Constant <value = bool {1}> ()
        y, z, k = Loop (m, on, x) <body = g (int64 it, bool go, float[N,4] a) => (bool go2, float[N,4] d, float[N,4] e, int64 j) {
            go2 = Identity(go)
            d = Neg(a)
            e = Mul(a, a)
            j = Mul(it, it) }>
    }""", [[f(3, 4), i(3)], [f(2, 4), i(1)], [f(2, 4), i(0)]]),

    "loop_grows": ("""agraph (float[N,4] x, int64 m) => (float[P,4] y) {
        on = Constant <value = bool {1}> ()
        y = Loop (m, on, x) <body = g (int64 it, bool go, float[Q,4] a) => (bool go2, float[R,4] d) {
            go2 = Identity(go)
            d = Concat <axis = 0> (a, x) }>
    }""", [[f(3, 4), i(3)], [f(2, 4), i(0)], [f(1, 4), i(7)]]),

    "loop_grows_from_nothing": ("""agraph (float[N,4] x, int64 m) => (float[P,4] y, float[4] s) {
        on = Constant <value = bool {1}> ()
        none = Constant <value = int64[2] {0, 4}> ()
        axis = Constant <value = int64[1] {0}> ()
        start = ConstantOfShape(none)
        y = Loop (m, on, start) <body = g (int64 it, bool go, float[Q,4] a) => (bool go2, float[R,4] d) {
            go2 = Identity(go)
            d = Concat <axis = 0> (a, x) }>
        s = ReduceSum <keepdims = 0> (y, axis)
    }""", [[f(3, 4), i(3)], [f(1, 4), i(2)]]),

    "loop_slices_by_iteration": ("""agraph (float[N,4] x, int64 m) => (float[4] y) {
        on = Constant <value = bool {1}> ()
        zero = Constant <value = float[4] {0, 0, 0, 0}> ()
        y = Loop (m, on, zero) <body = g (int64 it, bool go, float[4] a) => (bool go2, float[4] d) {
            go2 = Identity(go)
            row = Gather <axis = 0> (x, it)
            d = Add(a, row) }>
    }""", [[f(3, 4), i(3)], [f(6, 4), i(2)]]),

    "loop_prefix_sums": ("""agraph (float[N] x, int64 m) => (float[M] y) {
        on = Constant <value = bool {1}> ()
        one = Constant <value = int64[1] {1}> ()
        zero = Constant <value = int64[1] {0}> ()
        y = Loop (m, on) <body = g (int64 it, bool go) => (bool go2, float e) {
            go2 = Identity(go)
            at = Reshape(it, one)
            stop = Add(at, one)
            part = Slice(x, zero, stop)
            e = ReduceSum <keepdims = 0> (part) }>
    }""", [[f(5), i(5)], [f(5), i(2)]]),

    "loop_in_if": ("""agraph (float[N,4] x, int64 m, bool c) => (float[N,4] y) {
        on = Constant <value = bool {1}> ()
        y = If (c) <then_branch = t () => (float[N,4] a) {
            a = Loop (m, on, x) <body = g (int64 it, bool go, float[N,4] p) => (bool go2, float[N,4] q) {
                go2 = Identity(go)
                q = Add(p, x) }> },
                    else_branch = e () => (float[N,4] d) { d = Neg(x) }>
    }""", [[f(3, 4), i(3), b(True)], [f(2, 4), i(3), b(False)]]),

    "if_in_loop": ("""agraph (float[N,4] x, int64 m) => (float[N,4] y) {
        on = Constant <value = bool {1}> ()
        two = Constant <value = int64 {2}> ()
        zero = Constant <value = int64 {0}> ()
        y = Loop (m, on, x) <body = g (int64 it, bool go, float[N,4] a) => (bool go2, float[N,4] d) {
            go2 = Identity(go)
            r = Mod(it, two)
            even = Equal(r, zero)
            d = If (even) <then_branch = t () => (float[N,4] p) { p = Add(a, x) },
                           else_branch = e () => (float[N,4] q) { q = Mul(a, x) }> }>
    }""", [[f(3, 4), i(4)], [f(2, 4), i(1)]]),

    "loop_nested": ("""agraph (float[N] x, int64 m, int64 k) => (float[N] y) {
        on = Constant <value = bool {1}> ()
        y = Loop (m, on, x) <body = g (int64 it, bool go, float[N] a) => (bool go2, float[N] d) {
            go2 = Identity(go)
            d = Loop (k, on, a) <body = h (int64 jt, bool ho, float[N] p) => (bool ho2, float[N] q) {
                ho2 = Identity(ho)
                s = Add(it, jt)
                sf = Cast <to = 1> (s)
                q = Add(p, sf) }> }>
    }""", [[f(3), i(2), i(3)], [f(2), i(0), i(3)], [f(2), i(3), i(0)]]),

    "scan_two_states": ("""agraph (float[2] a, float[3] e, float[T,2] x, float[T,3] z) => (float[2] p, float[3] q, float[T,2] o) {
        p, q, o = Scan <num_scan_inputs = 2, body = g (float[2] s, float[3] t, float[2] u, float[3] v) => (float[2] s2, float[3] t2, float[2] w) {
            s2 = Add(s, u)
            t2 = Mul(t, v)
            w = Neg(s2) }> (a, e, x, z)
    }""", [[f(2), f(3), f(4, 2), f(4, 3)], [f(2), f(3), f(1, 2), f(1, 3)]]),

    # onnxruntime slices its first element even when there is none.
    "scan_nothing": ("""agraph (float[2] a, float[T,2] x) => (float[2] p, float[T,2] o) {
        p, o = Scan <num_scan_inputs = 1, body = g (float[2] s, float[2] u) => (float[2] s2, float[2] w) {
            s2 = Add(s, u)
            w = Neg(s2) }> (a, x)
    }""", [[f(2), f(0, 2)]]),

    "scan_backward_axes": ("""agraph (float[2] a, float[2,T] x) => (float[2] p, float[2,T] o) {
        p, o = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1], scan_output_axes = [1],
                     scan_output_directions = [1], body = g (float[2] s, float[2] u) => (float[2] s2, float[2] w) {
            s2 = Add(s, u)
            w = Mul(s2, u) }> (a, x)
    }""", [[f(2), f(2, 5)], [f(2), f(2, 1)]]),

    # Only the run can tell whether an axis is 1 and grows, or the target is 1, or both are the same.
    "expand_by_data": ("""agraph (float[N,M] x, int64[2] s) => (float[P,Q] y, float[R,T] z) {
        h = Relu(x)
        e = Expand(h, s)
        y = Neg(e)
        t = Abs(s)
        z = Tile(x, t)
    }""", [[f(3, 1), i(3, 4)], [f(1, 4), i(3, 1)], [f(1, 1), i(2, 5)], [f(2, 3), i(1, 1)], [f(0, 1), i(1, 2)], [f(2, 1), i(2, 0)]]),

    "expand_fixed_by_data": ("""agraph (float[3,1,4] x, int64[3] s) => (float[3,Q,4] y) {
        y = Expand(x, s)
    }""", [[f(3, 1, 4), i(3, 2, 4)], [f(3, 1, 4), i(1, 5, 1)], [f(3, 1, 4), i(3, 0, 4)]]),

    "unsorted": ("""agraph (float[N] x) => (float[N] y) {
        y = Relu(c)
        c = Add(a, d)
        d = Neg(x)
        a = Mul(x, x)
    }""", [[f(3)]]),

    "sequence": ("""agraph (float[6,N] x) => (float[6,N] y, float[2,N] z) {
        s = SplitToSequence <axis = 0> (x, two)
        one = Constant <value = int64 {1}> ()
        two = Constant <value = int64 {2}> ()
        z = SequenceAt(s, one)
        t = SequenceErase(s, one)
        u = SequenceInsert(t, z)
        y = ConcatFromSequence <axis = 0> (u)
    }""", [[f(6, 3)]]),

    "sequence_carried": ("""agraph (float[N] x, float[N] w, int64 m) => (float[N] y, float[N] z) {
        on = Constant <value = bool {1}> ()
        zero = Constant <value = int64 {0}> ()
        one = Constant <value = int64 {1}> ()
        s = SequenceConstruct(x, w)
        r = Loop (m, on, s) <body = g (int64 it, bool go, seq(float[N]) a) => (bool go2, seq(float[N]) d) {
            go2 = Identity(go)
            p = SequenceAt(a, zero)
            q = SequenceAt(a, one)
            sum = Add(p, q)
            d = SequenceConstruct(q, sum) }>
        y = SequenceAt(r, zero)
        z = SequenceAt(r, one)
    }""", [[f(3), f(3), i(4)], [f(2), f(2), i(0)]]),

    "sequence_grows": ("""agraph (float[N] x) => (float[3,N] y) {
        on = Constant <value = bool {1}> ()
        m = Constant <value = int64 {3}> ()
        s = SequenceEmpty()
        r, e = Loop (m, on, s, x) <body = g (int64 it, bool go, seq(float[N]) a, float[N] c) => (bool go2, seq(float[N]) d, float[N] c2) {
            go2 = Identity(go)
            c2 = Add(c, x)
            d = SequenceInsert(a, c2) }>
        y = ConcatFromSequence <axis = 0, new_axis = 1> (r)
    }""", [[f(3)], [f(1)]]),

    "nonzero_inside": ("""agraph (float[N] x, bool c) => (int64[M] y) {
        y = If (c) <then_branch = t () => (int64[P] a) { n = NonZero(x)  minus = Constant <value = int64[1] {-1}> ()  a = Reshape(n, minus) },
                    else_branch = e () => (int64[Q] d) { d = Shape(x) }>
    }""", [[np.array([0, 1, 0, 2], np.float32), b(True)], [f(3), b(False)]]),
}

FUNCTIONS = {
    "function_attributes": ("""<ir_version: 8, opset_import: ["" : 17, "my" : 1]>
        agraph (float[N,4] x) => (float[N,4] y) { a = my.sm <axis = 0> (x)  d = my.sm <axis = 1> (x)  y = Sub(a, d) }
        <domain: "my", opset_import: ["" : 17]>
        sm <axis> (p) => (q) { t = Softmax <axis : int = @axis> (p)  q = Neg(t) }""", [[f(3, 4)]]),

    "function_nested_optional": ("""<ir_version: 8, opset_import: ["" : 17, "my" : 1]>
        agraph (float[N] x) => (float[N] y) { y = my.outer(x) }
        <domain: "my", opset_import: ["" : 17, "my" : 1]>
        outer (p) => (q) { t = my.inner(p, p)  u = my.inner(t)  q = Add(t, u) }
        <domain: "my", opset_import: ["" : 17]>
        inner (lo, hi) => (q) { q = Clip(lo, , ) }""", [[f(3)]]),

    "function_with_branch": ("""<ir_version: 8, opset_import: ["" : 17, "my" : 1]>
        agraph (float[N] x, bool c) => (float[N] y) { t = my.pick(x, c)  y = my.pick(t, c) }
        <domain: "my", opset_import: ["" : 17]>
        pick (p, c) => (q) {
            q = If (c) <then_branch = t () => (float[N] a) { a = Relu(p) }, else_branch = e () => (float[N] d) { d = Neg(p) }>
        }""", [[f(3), b(True)], [f(3), b(False)]]),
}


# Without an iteration nothing was stacked, and ONNX does not say what shape nothing has. onnxruntime makes every
# size of the body's types that is not a number 0: [0,0,4] here, though the type says [T,N,4] and the input
# says N = 2. Results keep their declared sizes: a consumer that was checked against N gets N.
INSTEAD = {
    ("loop_scan_outputs", 2): lambda x, m: [x, np.zeros((0, 2, 4), np.float32), np.zeros(0, np.int64)],
    ("scan_nothing", 0): lambda a, x: [a, x],
}


# What a run is refused for, after the sets that fit: options, inputs, words of the message.
REFUSED = {
    "if_squeezes": [([], [f(3, 4, 4), f(4)], "dimension 2 is 4, expected 1"), (["--dim=x_2=1"], [], "no dimension is called .x_2.; there is: N, K")],
    "if_squeezes_in_a_branch": [([], [f(4, 2), f(4), b(True)], "h: sizes 2 and 1 must be equal")],
    "unnamed": [(["--dim=x_1=3"], [f(2, 4)], 'dimension 1 is 4, expected 3'), (["--dim=N=3"], [], "there is: x_0, x_1, w_0")],
}


def save(folder, kind, k, array):
    with open(os.path.join(folder, f"{kind}_{k}.pb"), "wb") as out:
        out.write(onnx.numpy_helper.from_array(array).SerializeToString())


def expected(number, name, model, data):
    """What onnxruntime says; for a file that it would not sort, of the sorted one."""
    if (name, number) in INSTEAD:
        return INSTEAD[name, number](*data)
    if name in ("unsorted", "sequence"):
        model = onnx.ModelProto.FromString(model.SerializeToString())
        done, todo = {v.name for v in model.graph.input}, list(model.graph.node)
        del model.graph.node[:]
        while todo:
            n = next(n for n in todo if all(v in done or not v for v in n.input))
            todo.remove(n)
            model.graph.node.append(n)
            done.update(n.output)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {v.name: a for v, a in zip(model.graph.input, data)})


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("forge")
    ap.add_argument("--filter", default="")
    ap.add_argument("--levels", default="0,1")
    args = ap.parse_args()
    passed = failed = 0
    onnxruntime.set_default_logger_severity(4)
    models = {k: (HEAD + text, sets) for k, (text, sets) in MODELS.items()} | FUNCTIONS
    for name, (text, sets) in models.items():
        if not re.search(args.filter, name):
            continue
        model = onnx.parser.parse_model(text)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.onnx")
            onnx.save(model, path)
            for number, data in enumerate(sets):
                test = os.path.join(folder, f"set{number}")
                os.makedirs(test)
                for k, array in enumerate(data):
                    save(test, "input", k, array)
                for k, array in enumerate(expected(number, name, model, data)):
                    save(test, "output", k, array)
                for level in args.levels.split(","):
                    p = subprocess.run([args.forge, "run", path, "--test-data=" + test, "-O" + level],
                                       capture_output=True, text=True, timeout=120)
                    if p.returncode == 0:
                        passed += 1
                        continue
                    failed += 1
                    print(f"{name} set {number} -O{level}: exit {p.returncode}: {p.stderr.strip()[-500:]}")
            for options, data, message in REFUSED.get(name, []):
                for k, array in enumerate(data):
                    np.save(os.path.join(folder, f"{k}.npy"), array)
                given = [f"--input={v.name}=@{folder}/{k}.npy" for k, v in enumerate(model.graph.input) if k < len(data)]
                p = subprocess.run([args.forge, "run", path, "--random=1"] + options + given, capture_output=True, text=True,
                                   timeout=120)
                wrong = p.returncode != 1 or not re.search(message, p.stderr)
                passed, failed = passed + (not wrong), failed + wrong
                if wrong:
                    print(f"{name}, refused: exit {p.returncode}: {p.stderr.strip()[-500:]}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
