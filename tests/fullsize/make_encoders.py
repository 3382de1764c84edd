#!/usr/bin/env python3
"""ViT-base, the encoder of T5-small and that of Whisper-base at true size, with seeded random weights.

    make_encoders.py DIR [--only vit-base,t5-small-encoder,whisper-base-encoder]

Operators as exporters write them: LayerNormalization, erf and tanh spelled out, biases as Add behind MatMul, T5's
relative positions looked up in the graph. Values: norm scales 1, biases 0, everything else normal(0, 0.02).
"""
import argparse, os, zlib
import numpy as np
import onnx
from onnx import TensorProto as T, helper as h


class Graph:
    def __init__(self, name):
        self.name, self.nodes, self.weights, self.count = name, [], [], 0

    def op(self, kind, *inputs, **attributes):
        self.count += 1
        out = f"/{kind}_{self.count}_output"
        self.nodes.append(h.make_node(kind, list(inputs), [out], f"/{kind}_{self.count}", **attributes))
        return out

    def constant(self, array, name=None):
        name = name or f"constant_{len(self.weights)}"
        self.weights.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def weight(self, name, *shape, fill=None):
        rng = np.random.default_rng(zlib.crc32(f"{self.name}/{name}".encode()))
        values = np.full(shape, fill, np.float32) if fill is not None else rng.standard_normal(shape, np.float32) * np.float32(0.02)
        return self.constant(values, name)

    def linear(self, x, name, k, n, bias=True):
        y = self.op("MatMul", x, self.weight(name + ".weight", k, n))
        return self.op("Add", self.weight(name + ".bias", n, fill=0), y) if bias else y

    def norm(self, x, name, width):
        return self.op("LayerNormalization", x, self.weight(name + ".weight", width, fill=1),
                       self.weight(name + ".bias", width, fill=0), axis=-1, epsilon=1e-5)

    def rms(self, x, name, width):
        mean = self.op("ReduceMean", self.op("Pow", x, self.constant(np.float32(2))), axes=[-1], keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.constant(np.float32(1e-6))))
        return self.op("Mul", self.weight(name + ".weight", width, fill=1), self.op("Div", x, root))

    def gelu(self, x):
        erf = self.op("Erf", self.op("Div", x, self.constant(np.float32(2 ** 0.5))))
        one = self.op("Add", erf, self.constant(np.float32(1)))
        return self.op("Mul", self.op("Mul", x, one), self.constant(np.float32(0.5)))

    def attention(self, x, name, width, heads, bias=True, scores=None, key_bias=True):
        """scores: added to them; then nothing is scaled, as in T5."""
        size = width // heads
        split = self.constant(np.array([0, -1, heads, size]))

        def part(which, perm, has_bias):
            y = self.linear(x, f"{name}.{which}", width, width, has_bias)
            return self.op("Transpose", self.op("Reshape", y, split), perm=perm)

        q, v = part("query", [0, 2, 1, 3], bias), part("value", [0, 2, 1, 3], bias)
        k = part("key", [0, 2, 3, 1], bias and key_bias)
        s = self.op("MatMul", q, k)
        s = self.op("Add", s, scores) if scores else self.op("Mul", s, self.constant(np.float32(size ** -0.5)))
        y = self.op("Transpose", self.op("MatMul", self.op("Softmax", s, axis=-1), v), perm=[0, 2, 1, 3])
        return self.linear(self.op("Reshape", y, self.constant(np.array([0, -1, width]))), name + ".out", width, width, bias)

    def layer(self, x, name, width, heads, inner, key_bias=True):
        y = self.attention(self.norm(x, name + ".norm1", width), name, width, heads, key_bias=key_bias)
        x = self.op("Add", x, y)
        y = self.gelu(self.linear(self.norm(x, name + ".norm2", width), name + ".fc1", width, inner))
        return self.op("Add", x, self.linear(y, name + ".fc2", inner, width))

    def model(self, inputs, result, shape):
        self.nodes[-1].output[0] = "output"
        given = [h.make_tensor_value_info(n, t, s) for n, t, s in inputs]
        assert result == self.nodes[-1].name + "_output"
        graph = h.make_graph(self.nodes, self.name, given, [h.make_tensor_value_info("output", T.FLOAT, shape)], self.weights)
        return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


def vit():
    g, width = Graph("vit-base"), 768
    x = g.op("Conv", "pixel_values", g.weight("patch.weight", width, 3, 16, 16), g.weight("patch.bias", width, fill=0),
             kernel_shape=[16, 16], strides=[16, 16])
    x = g.op("Transpose", g.op("Reshape", x, g.constant(np.array([0, width, -1]))), perm=[0, 2, 1])
    batch = g.op("Slice", g.op("Shape", "pixel_values"), *(g.constant(np.array([n])) for n in (0, 1)))
    shape = g.op("Concat", batch, g.constant(np.array([1, width])), axis=0)
    x = g.op("Concat", g.op("Expand", g.weight("cls", 1, 1, width), shape), x, axis=1)
    x = g.op("Add", x, g.weight("positions", 1, 197, width))
    for i in range(12):
        x = g.layer(x, f"layer.{i}", width, 12, 3072)
    x = g.norm(x, "norm", width)
    x = g.op("Gather", x, g.constant(np.int64(0)), axis=1)
    x = g.linear(x, "classifier", width, 1000)
    return g.model([("pixel_values", T.FLOAT, ["batch_size", 3, 224, 224])], x, ["batch_size", 1000])


def t5():
    g, width, heads = Graph("t5-small-encoder"), 512, 8
    x = g.op("Gather", g.weight("embedding", 32128, width), "input_ids")
    length = g.op("Gather", g.op("Shape", "input_ids"), g.constant(np.int64(1)))
    at = g.op("Range", g.constant(np.int64(0)), length, g.constant(np.int64(1)))
    far = g.op("Sub", g.op("Unsqueeze", at, g.constant(np.array([0]))), g.op("Unsqueeze", at, g.constant(np.array([1]))))
    later = g.op("Mul", g.op("Cast", g.op("Greater", far, g.constant(np.int64(0))), to=T.INT64), g.constant(np.int64(16)))
    far = g.op("Abs", far)
    ratio = g.op("Div", g.op("Cast", far, to=T.FLOAT), g.constant(np.float32(8)))
    log = g.op("Mul", g.op("Log", ratio), g.constant(np.float32(8 / np.log(16))))
    log = g.op("Add", g.op("Cast", log, to=T.INT64), g.constant(np.int64(8)))
    log = g.op("Min", log, g.constant(np.int64(15)))
    bucket = g.op("Add", later, g.op("Where", g.op("Less", far, g.constant(np.int64(8))), far, log))
    bias = g.op("Transpose", g.op("Gather", g.weight("relative", 32, heads), bucket), perm=[2, 0, 1])
    bias = g.op("Unsqueeze", bias, g.constant(np.array([0])))
    for i in range(6):
        y = g.attention(g.rms(x, f"layer.{i}.norm1", width), f"layer.{i}", width, heads, False, bias)
        x = g.op("Add", x, y)
        y = g.op("Relu", g.linear(g.rms(x, f"layer.{i}.norm2", width), f"layer.{i}.wi", width, 2048, False))
        x = g.op("Add", x, g.linear(y, f"layer.{i}.wo", 2048, width, False))
    x = g.rms(x, "norm", width)
    return g.model([("input_ids", T.INT64, ["batch_size", "sequence_length"])], x, ["batch_size", "sequence_length", width])


def whisper():
    g, width = Graph("whisper-base-encoder"), 512
    x = "input_features"
    for i, (channels, stride) in enumerate(((80, 1), (width, 2))):
        x = g.gelu(g.op("Conv", x, g.weight(f"conv{i}.weight", width, channels, 3), g.weight(f"conv{i}.bias", width, fill=0),
                        kernel_shape=[3], strides=[stride], pads=[1, 1]))
    x = g.op("Add", g.op("Transpose", x, perm=[0, 2, 1]), g.weight("positions", 1500, width))
    for i in range(6):
        x = g.layer(x, f"layer.{i}", width, 8, 2048, key_bias=False)
    x = g.norm(x, "norm", width)
    return g.model([("input_features", T.FLOAT, ["batch_size", 80, 3000])], x, ["batch_size", 1500, width])


MODELS = {"vit-base": vit, "t5-small-encoder": t5, "whisper-base-encoder": whisper}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("--only", default=",".join(MODELS))
    a = p.parse_args()
    unknown = [n for n in a.only.split(",") if n not in MODELS]
    if unknown:
        p.error(f"no model is called {unknown[0]}: {', '.join(MODELS)}")
    os.makedirs(a.folder, exist_ok=True)
    for name in a.only.split(","):
        model = MODELS[name]()
        onnx.checker.check_model(model)
        onnx.save(model, os.path.join(a.folder, name + ".onnx"))


if __name__ == "__main__":
    main()
