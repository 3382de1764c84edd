#!/usr/bin/env python3
"""Batch norms that move into the weights before them, and those that must not, against onnxruntime.

    layers.py build/forge [--filter REGEX] [--list]
"""
import sys

import numpy as np

import graphs
from graphs import const

CASES = {}
SIZES = [dict(B=2, S=7), dict(B=1, S=1), dict(B=3, S=33)]
INTO = ("scale into weights", "shift into bias")


def numbers(name, *shape, lo=-1.0, hi=1.0):
    n = int(np.prod(shape))
    order = np.random.default_rng(n).permutation(n)
    return const(name, np.linspace(lo, hi, n)[order].reshape(shape).round(4))


def norm(x, y, c, name="n"):
    """A batch norm of c channels whose statistics are known."""
    parts = {"g": (0.5, 2), "b": (-1, 1), "m": (-0.5, 0.5), "v": (0.3, 2)}
    return "".join(numbers(name + k, c, lo=lo, hi=hi) for k, (lo, hi) in parts.items()) + \
        f"{y} = BatchNormalization <epsilon = 1e-5> ({x}, {name}g, {name}b, {name}m, {name}v)\n"


def case(name, inputs, body, scales, shifts, **more):
    assert name not in CASES, name
    CASES[name] = graphs.Case(inputs, body, dict(zip(INTO, (scales, shifts))), about=("scale_weights", ""), sizes=SIZES, **more)


IMAGE = "float[B,4,9,S] x"
W2, B6 = numbers("w", 6, 4, 3, 3), numbers("b", 6)
PADS = "pads = [1,1,1,1]"
case("conv, norm", IMAGE, W2 + f"c = Conv <{PADS}> (x, w)\n" + norm("c", "y", 6), 1, 2)
case("conv with bias, norm", IMAGE, W2 + B6 + f"c = Conv <{PADS}> (x, w, b)\n" + norm("c", "y", 6), 1, 2)
case("conv, norm, relu, conv, norm", IMAGE, W2 + f"c = Conv <{PADS}> (x, w)\n" + norm("c", "n", 6) + "r = Relu(n)\n" + numbers("w2", 8, 6, 1, 1) +
     "d = Conv(r, w2)\n" + norm("d", "y", 8, "k"), 2, 4)
case("conv, bias added, norm", IMAGE, W2 + numbers("b", 1, 6, 1, 1) + f"c0 = Conv <{PADS}> (x, w)\nc = Add(c0, b)\n" + norm("c", "y", 6), 1, 3)
case("depthwise conv, norm", IMAGE, numbers("w", 4, 1, 3, 3) + f"c = Conv <{PADS}, group = 4> (x, w)\n" + norm("c", "y", 4), 1, 2)
case("conv of two groups, norm", IMAGE, numbers("w", 6, 2, 1, 1) + "c = Conv <group = 2> (x, w)\n" + norm("c", "y", 6), 1, 2)
case("conv along one axis, norm", "float[B,4,S] x", numbers("w", 6, 4, 3) + "c = Conv <pads = [1,1]> (x, w)\n" + norm("c", "y", 6), 1, 2)
case("conv of one channel, norm", "float[B,4,S] x", numbers("w", 1, 4, 3) + "c = Conv <pads = [1,1]> (x, w)\n" + norm("c", "y", 1), 1, 2)
case("transposed conv, norm", IMAGE, numbers("w", 4, 6, 2, 2) + "c = ConvTranspose <strides = [2,2]> (x, w)\n" + norm("c", "y", 6), 1, 2)
case("transposed conv of two groups, norm", IMAGE, numbers("w", 4, 3, 2, 2) + B6 + "c = ConvTranspose <strides = [2,2], group = 2> (x, w, b)\n" + norm("c", "y", 6), 1, 2)
ROWS, W = "float[B,8] x", numbers("w", 8, 6)
case("gemm, norm", ROWS, W + B6 + "c = Gemm(x, w, b)\n" + norm("c", "y", 6), 1, 2)
case("gemm without bias, norm", ROWS, W + "c = Gemm(x, w)\n" + norm("c", "y", 6), 1, 1)
case("gemm of a turned weight, norm", ROWS, numbers("w", 6, 8) + B6 + "c = Gemm <transB = 1> (x, w, b)\n" + norm("c", "y", 6), 1, 2)
case("matmul, bias, scale", "float[B,S,8] x", W + B6 + numbers("s", 6) + "p = MatMul(x, w)\nc = Add(b, p)\ny = Mul(s, c)\n", 1, 0)
case("near: the product is read twice", IMAGE, W2 + f"c = Conv <{PADS}> (x, w)\n" + norm("c", "n", 6) + "y = Add(c, n)\n", 0, 0,
     reason="the product is read elsewhere too")
case("near: the weight is read twice", "float[B,4,S] x", numbers("w", 4, 4, 1) + "c = Conv(x, w)\n" + norm("c", "n", 4) + "y = Conv(n, w)\n", 0, 1,
     reason="the weight is read elsewhere too")
case("near: norm before a padded conv", IMAGE, W2 + norm("x", "n", 4) + f"y = Conv <{PADS}> (n, w)\n", 0, 0)
case("near: the weight is an input", IMAGE + ", float[6,4,3,3] w", f"c = Conv <{PADS}> (x, w)\n" + norm("c", "y", 6), 0, 1, reason="the weight is no f32 constant")
case("near: the statistics are inputs", IMAGE + ", float[6] m", W2 + numbers("v", 6, lo=0.5) + f"c = Conv <{PADS}> (x, w)\n" +
     "y = BatchNormalization(c, v, v, m, v)\n", 0, 0)
case("near: a scale along columns of the image", IMAGE, W2 + numbers("s", 9, 1) + f"c = Conv <{PADS}> (x, w)\ny = Mul(c, s)\n", 0, 0)
case("near: relu between", IMAGE, W2 + f"c = Conv <{PADS}> (x, w)\nr = Relu(c)\n" + norm("r", "y", 6), 0, 0)

if __name__ == "__main__":
    sys.exit(graphs.main(CASES, __doc__))
