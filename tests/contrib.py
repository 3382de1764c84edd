#!/usr/bin/env python3
"""Operators of com.microsoft against onnxruntime, on random data.

    contrib.py build/forge [--filter REGEX] [--keep DIR]

Each case is one node: onnxruntime computes the outputs, `forge run --test-data` compares its own
with them. Results that the operator leaves open (cache rows that are not filled yet) are not
compared. A case that onnxruntime itself refuses counts as failed: then the case is wrong.
"""
import argparse, os, re, subprocess, sys, tempfile
import numpy as np
import onnx
from onnx import helper, numpy_helper
import onnxruntime

MS = "com.microsoft"
rng = np.random.default_rng(0)
CASES = []


def case(name, op, operands, outputs=1, domain=MS, fixed=(), skip=(), rtol=1e-3, atol=1e-4, **attributes):
    """operands: arrays, None where omitted; fixed: which are initializers;
    outputs: how many, or a string of 1 and 0; skip: outputs that are not compared (caches whose rows
    past the valid length the operator leaves unspecified)."""
    CASES.append(dict(name=name, op=op, operands=operands, outputs=outputs, domain=domain, fixed=set(fixed),
                      skip=set(skip), rtol=rtol, atol=atol, attributes=attributes))


def f32(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def u8(*shape):
    return rng.integers(0, 256, shape).astype(np.uint8)


def i8(*shape):
    return rng.integers(-127, 127, shape).astype(np.int8)


def i32(*values):
    return np.array(values, np.int32)


def num(value, dtype=np.float32):
    return np.array(value, dtype)


REST = range(1, 99)
B, S, H, N = 2, 5, 16, 4


def norms():
    x, row = f32(B, S, H), f32(H)
    case("simplified_layer_norm", "SimplifiedLayerNormalization", [x, row], domain="", epsilon=1e-5, axis=-1)
    case("skip_layer_norm", "SkipLayerNormalization", [x, f32(B, S, H), row, f32(H), f32(H)], "1001", epsilon=1e-5)
    case("skip_layer_norm_epsilon", "SkipLayerNormalization", [x * 1e-3, x * 1e-3, row])
    case("skip_of_rank_2", "SkipLayerNormalization", [x, f32(S, H), row, f32(H)])
    case("skip_of_batch_1", "SkipLayerNormalization", [x, f32(1, S, H), row, f32(H)])
    case("skip_rms_norm", "SkipSimplifiedLayerNormalization", [x, f32(B, S, H), row, f32(H)], "1001", epsilon=1e-6)
    ids, kind = rng.integers(0, 9, (B, S)).astype(np.int32), rng.integers(0, 2, (B, S)).astype(np.int32)
    mask = np.ones((B, S), np.int32)
    mask[0, 3:] = 0
    tables = [f32(9, H), f32(8, H), f32(2, H), row, f32(H)]
    case("embed", "EmbedLayerNormalization", [ids, kind, *tables, mask], 3, epsilon=1e-5)
    case("embed_without_mask", "EmbedLayerNormalization", [ids, None, *tables[:2], None, *tables[3:]], 2)
    case("embed_positions", "EmbedLayerNormalization",
         [ids, kind, *tables, mask, rng.integers(0, 8, (B, S)).astype(np.int32)], 2)


def activations_and_products():
    x = f32(B, S, H) * 3
    case("bias_gelu", "BiasGelu", [x, f32(H)])
    case("gelu", "Gelu", [x])
    case("fast_gelu", "FastGelu", [x])
    case("fast_gelu_bias", "FastGelu", [x, f32(H)])
    case("quick_gelu", "QuickGelu", [x])
    case("quick_gelu_alpha", "QuickGelu", [x], alpha=1.0)
    for ta in (0, 1):
        for tb in (0, 1):
            a, b = f32(2, 3, *((5, 4) if ta else (4, 5))), f32(2, 3, *((6, 5) if tb else (5, 6)))
            case(f"fused_matmul_{ta}{tb}", "FusedMatMul", [a, b], transA=ta, transB=tb, alpha=0.5)
    case("fused_matmul_batch_a", "FusedMatMul", [f32(4, 2, 3, 5), f32(2, 3, 5, 6)], transBatchA=1)
    case("fused_matmul_batch_at", "FusedMatMul", [f32(5, 2, 3, 4), f32(2, 3, 5, 6)], transBatchA=1, transA=1)
    case("fused_matmul_batch_b", "FusedMatMul", [f32(2, 3, 4, 5), f32(5, 2, 3, 6)], transBatchB=1)
    case("fused_matmul_batch_bt", "FusedMatMul", [f32(2, 3, 4, 5), f32(6, 2, 3, 5)], transBatchB=1, transB=1)
    case("fused_matmul_vector", "FusedMatMul", [f32(5), f32(5, 6)], alpha=2.0)
    gemm = [f32(3, 4), f32(4, 5), f32(5)]
    case("fused_gemm", "FusedGemm", gemm, activation="LeakyRelu", activation_alpha=0.3)
    case("fused_gemm_tanh", "FusedGemm", gemm, activation="Tanh")
    conv = [f32(1, 3, 8, 8), f32(4, 3, 3, 3), f32(4)]
    case("fused_conv", "FusedConv", conv, activation="Relu", pads=[1, 1, 1, 1])
    case("fused_conv_sum", "FusedConv", [*conv, f32(1, 4, 8, 8)], activation="Relu", pads=[1, 1, 1, 1])
    case("fused_conv_clip", "FusedConv", conv, activation="Clip", activation_params=[-0.5, 0.5])
    case("fused_conv_sigmoid", "FusedConv", conv, activation="HardSigmoid", activation_params=[0.2, 0.4])
    case("trilu", "Trilu", [f32(4, 4)], upper=0)
    case("pad", "Pad", [f32(2, 3), num([1, 0, 0, 1], np.int64)], fixed=REST)


def attention():
    x, w, b = f32(B, S, H), f32(H, 3 * H), f32(3 * H)
    mask = np.ones((B, S), np.int32)
    mask[0, 3:] = 0

    def att(name, *more, outputs=1, operands=None, **attributes):
        case("attention_" + name, "Attention", [x, *(operands or (w, b)), *more], outputs, fixed=(1, 2),
             **{"num_heads": N, **attributes})
    att("plain")
    att("causal", unidirectional=1)
    att("lengths", i32(3, 5))
    att("ends_and_starts", i32(4, 5, 1, 0))
    att("mask_2d", mask)
    att("mask_3d", rng.integers(0, 2, (B, S, S)).astype(np.int32))
    att("filter_value", mask, mask_filter_value=-3.0, scale=0.7)
    att("causal_mask", mask, unidirectional=1)
    past = f32(2, B, N, 3, H // N)
    att("past", None, past, outputs=2, unidirectional=1)
    att("past_mask", np.array([[0] + [1] * 7, [1] * 8], np.int32), past, outputs=2, unidirectional=1)
    att("bias", None, None, f32(B, N, S, S))
    att("bias_mask", mask, None, f32(1, N, S, S))
    att("bias_for_all_heads", None, None, f32(1, 1, S, S))
    att("sizes", operands=(f32(H, 28), f32(28)), num_heads=2, qkv_hidden_sizes=[8, 8, 12])
    case("qattention", "QAttention", [u8(B, S, H), i8(H, 3 * H), b, num(0.05), num(0.04), None,
         num(120, np.uint8), num(0, np.int8)], fixed=REST, num_heads=N)


def multi_head_attention():
    T = 6
    q, k, v = f32(B, S, H), f32(B, T, H), f32(B, T, H)
    mask = np.ones((B, T), np.int32)
    mask[1, 4:] = 0

    def mha(name, *operands, outputs=1, **attributes):
        case("mha_" + name, "MultiHeadAttention", list(operands), outputs, num_heads=N, **attributes)
    mha("plain", q, k, v)
    mha("bias", q, k, v, f32(3 * H))
    mha("wide_values", q, k, f32(B, T, 24))
    mha("lengths", q, k, v, None, i32(4, 6))
    mha("mask_2d", q, k, v, None, mask)
    mha("mask_3d", q, k, v, None, rng.integers(0, 2, (B, S, T)).astype(np.int32))
    mha("scores_bias", q, k, v, None, None, f32(1, N, S, T), scale=0.3)
    same = [q, f32(B, S, H), f32(B, S, H)]
    past = [None, None, None, f32(B, N, 3, 4), f32(B, N, 3, 4)]
    mha("causal", *same, unidirectional=1)
    mha("past", *same, *past, outputs=3)
    mha("past_causal", *same, *past, outputs=3, unidirectional=1)
    rows = num(3, np.int32).reshape(1)
    buffer = [None, None, None, f32(B, N, 12, 4), f32(B, N, 12, 4), rows]
    mha("buffer", *same, *buffer, outputs=3)
    mha("buffer_causal", *same, f32(3 * H), *buffer[1:], outputs=3, unidirectional=1)
    mha("buffer_mask", *same, None, np.array([[0] + [1] * 7, [1] * 8], np.int32), *buffer[2:], outputs=3, unidirectional=1)
    mha("buffer_bias", *same, None, None, f32(1, N, S, 8), *buffer[3:], outputs=3)
    one = [f32(B, 1, H) for _ in range(3)]

    def masked(name, *operands, outputs=3, **attributes):
        case("decoder_masked_" + name, "DecoderMaskedMultiHeadAttention", list(operands), outputs, num_heads=N, **attributes)
    masked("buffer", *one, None, None, *buffer[3:], past_present_share_buffer=1)
    masked("mask", *one, np.array([[0, 1, 1, 1], [1] * 4], np.int32), None, *buffer[3:], past_present_share_buffer=1)
    masked("bias", *one, None, f32(1, N, 1, 4), *buffer[3:], None, None, f32(3 * H), past_present_share_buffer=1)
    masked("cross", one[0], f32(B, N, T, 4), f32(B, N, T, 4), outputs=1)
    mha("cross", q, f32(B, N, T, 4), f32(B, N, T, 4))
    mha("cross_bias", q, f32(B, N, T, 4), f32(B, N, T, 4), f32(3 * H))


def group_query_attention():
    D, G = 16, 2

    def gqa(name, past, new, lengths, rows=None, packed=False, extra=(), outputs=3, skip=(), **attributes):
        rows = past if rows is None else rows
        q = [f32(B, new, (N + 2 * G) * D), None, None] if packed else \
            [f32(B, new, N * D), f32(B, new, G * D), f32(B, new, G * D)]
        operands = [*q, f32(B, G, rows, D), f32(B, G, rows, D), i32(*[n - 1 for n in lengths]),
                    num(max(lengths), np.int32)]
        if attributes.get("do_rotary"):
            operands += [f32(32, D // 2), f32(32, D // 2)]
        if extra:
            operands += [None] * (10 - len(operands)) + list(extra)
        case("gqa_" + name, "GroupQueryAttention", operands, outputs, skip=skip, num_heads=N, kv_num_heads=G,
             **attributes)
    gqa("prompt", 0, 5, [5, 5])
    gqa("prompt_rotary", 0, 5, [5, 5], do_rotary=1)
    gqa("prompt_rotary_pairs", 0, 5, [5, 5], do_rotary=1, rotary_interleaved=1)
    gqa("decode", 4, 1, [5, 5], do_rotary=1)
    gqa("decode_ragged", 4, 1, [5, 3], do_rotary=1, skip=(1, 2))
    gqa("buffer", 0, 5, [5, 5], rows=12, do_rotary=1, skip=(1, 2))
    gqa("buffer_decode", 4, 1, [5, 5], rows=12, do_rotary=1, skip=(1, 2))
    gqa("window", 6, 1, [7, 7], local_window_size=3)
    gqa("window_prompt", 0, 5, [5, 5], local_window_size=2)
    gqa("softcap", 0, 5, [5, 5], softcap=1.5, scale=0.9)
    gqa("smooth", 0, 5, [5, 5], smooth_softmax=1)
    gqa("packed", 0, 5, [5, 5], packed=True, do_rotary=1)
    gqa("packed_decode", 4, 1, [5, 5], packed=True, do_rotary=1)
    gqa("sink", 0, 5, [5, 5], extra=[None, f32(N)])
    gqa("scores_bias", 0, 5, [5, 5], extra=[f32(1, 1, 5, 5)])
    gqa("scores_bias_decode", 4, 1, [5, 5], extra=[f32(B, N, 1, 5)])
    gqa("scores", 0, 5, [5, 5], outputs=4, qk_output=1, softcap=1.5)
    gqa("weights", 0, 5, [5, 5], outputs=4, qk_output=2, softcap=1.5)
    x, cos, sin = f32(B, S, H), f32(20, 4), f32(20, 4)
    every = np.tile(np.arange(S), (B, 1)).astype(np.int64)
    case("rotary", "RotaryEmbedding", [x, every, cos, sin])
    case("rotary_start", "RotaryEmbedding", [x, num([3], np.int64), cos, sin])
    case("rotary_pairs", "RotaryEmbedding", [x, num([0], np.int64), cos, sin], interleaved=1)
    case("rotary_partial", "RotaryEmbedding", [x, num([0], np.int64), f32(20, 2), f32(20, 2)], num_heads=2,
         rotary_embedding_dim=4)
    case("rotary_heads", "RotaryEmbedding", [f32(B, 2, S, 8), num([1], np.int64), cos, sin])


def low_bits():
    rows = 6
    for bits in (2, 4, 8):
        for k, block in ((64, 32), (48, 32)):
            blocks = (k + block - 1) // block
            zeros = {"middle": None, "packed": u8(rows, (blocks * bits + 7) // 8)}
            if bits != 8:
                zeros["float"] = np.abs(f32(rows, blocks)) * 3
            for kind, zero in zeros.items():
                weights = [u8(rows, blocks, block * bits // 8), np.abs(f32(rows, blocks))]
                case(f"matmul_{bits}_bits_{k}_{kind}", "MatMulNBits", [f32(2, 3, k), *weights, zero], fixed=REST,
                     K=k, N=rows, bits=bits, block_size=block, rtol=2e-3, atol=2e-3)
    weights = [u8(rows, 2, 16), np.abs(f32(rows, 2))]
    sizes = dict(K=64, N=rows, bits=4, block_size=32, fixed=REST, rtol=2e-3, atol=2e-3)
    case("matmul_bits_bias", "MatMulNBits", [f32(3, 64), *weights, None, None, f32(rows)], **sizes)
    case("matmul_bits_flat", "MatMulNBits", [f32(3, 64), weights[0], np.abs(f32(12)), u8(rows)], **sizes)
    for kind in (0, 1):
        case(f"matmul_bnb4_{kind}", "MatMulBnb4", [f32(3, 64), u8(rows * 32), np.abs(f32(rows * 2))], fixed=REST,
             K=64, N=rows, block_size=32, quant_type=kind)
    index, scale = num([[1, 3], [0, 9]], np.int64), np.abs(f32(10, 2))
    case("gather_quantized", "GatherBlockQuantized", [u8(10, 16), index, scale, u8(10, 1)], fixed=(0, 2, 3),
         block_size=16, bits=4)
    case("gather_quantized_middle", "GatherBlockQuantized", [u8(10, 16), index, scale], fixed=(0, 2),
         block_size=16, bits=4)
    case("gather_quantized_8", "GatherBlockQuantized", [u8(10, 32), index, scale], fixed=(0, 2), block_size=16,
         bits=8)


def quantised():
    z, half = num(120, np.uint8), dict(fixed=REST, rtol=0, atol=1)
    case("dynamic_matmul", "DynamicQuantizeMatMul", [f32(2, 3, 8), i8(8, 6), num(0.02), num(3, np.int8), f32(6)],
         fixed=REST)
    case("dynamic_matmul_columns", "DynamicQuantizeMatMul", [f32(2, 3, 8), i8(8, 6), np.abs(f32(6))], fixed=REST)
    case("integer_to_float", "MatMulIntegerToFloat", [u8(3, 8), u8(8, 6), num(0.02), num(0.03), num(3, np.uint8),
         num(4, np.uint8), f32(6)], fixed=REST)
    case("integer_to_float_columns", "MatMulIntegerToFloat", [u8(3, 8), i8(8, 6), num(0.02), np.abs(f32(6)),
         num(3, np.uint8), np.zeros(6, np.int8)], fixed=REST)
    for op in ("QLinearAdd", "QLinearMul"):
        case(op.lower(), op, [u8(3, 8), num(0.05), z, u8(8), num(0.04), z, num(0.07), z],
             fixed=(1, 2, 4, 5, 6, 7), rtol=0, atol=1)
    low = [num(1 / 256), num(0, np.uint8)]
    case("qlinear_sigmoid", "QLinearSigmoid", [u8(3, 8), num(0.05), z, *low], **half)
    case("qlinear_leaky", "QLinearLeakyRelu", [u8(3, 8), num(0.05), z, num(0.04), z], alpha=0.2, **half)
    case("qlinear_softmax", "QLinearSoftmax", [u8(3, 8), num(0.05), z, *low], opset=13, axis=-1, **half)
    case("qlinear_concat", "QLinearConcat", [num(0.05), z, u8(3, 8), num(0.05), z, u8(3, 8), num(0.04), z],
         fixed=(0, 1, 3, 4, 6, 7), rtol=0, atol=1, axis=1)
    case("qlinear_mean", "QLinearGlobalAveragePool", [u8(1, 3, 8, 8), num(0.05), z, num(0.04), z], **half)
    case("qlinear_pool", "QLinearAveragePool", [u8(1, 3, 8, 8), num(0.05), z, num(0.04), z], kernel_shape=[2, 2],
         **half)
    case("qlinear_where", "QLinearWhere", [num([[1], [0], [1]], bool), u8(3, 8), num(0.05), z, u8(3, 8), num(0.04),
         z, num(0.07), z], fixed=(2, 3, 5, 6, 7, 8), rtol=0, atol=1)
    case("qgemm", "QGemm", [u8(3, 8), num(0.05), z, i8(8, 6), num(0.04), num(0, np.int8),
         rng.integers(-99, 99, 6).astype(np.int32), num(0.7), z], **half)
    case("qgemm_float", "QGemm", [u8(3, 8), num(0.05), z, i8(6, 8), np.abs(f32(6)), np.zeros(6, np.int8)],
         fixed=REST, transB=1)
    hidden, late = f32(1, 3, 8), dict(rtol=0, atol=0.02, fixed=(1, 2, 8, 9, 10, 11))
    lstm = [f32(5, 1, 6), i8(1, 6, 32), i8(1, 8, 32), f32(1, 64), None, hidden[:, :1], hidden[:, 1:2], None]
    case("lstm", "DynamicQuantizeLSTM", lstm + [num([0.02]), num([0], np.int8), num([0.01]), num([0], np.int8)], 3,
         hidden_size=8, **late)
    case("lstm_columns", "DynamicQuantizeLSTM", [f32(5, 1, 6), i8(2, 6, 32), i8(2, 8, 32), f32(2, 64), None, None, None,
         f32(2, 24), np.abs(f32(2, 32)) / 50, i8(2, 32) * 0, np.abs(f32(2, 32)) / 90, i8(2, 32) * 0], "101",
         hidden_size=8, direction="bidirectional", **late)
    case("quantize", "QuantizeLinear", [f32(3, 4), num(0.1), num(5, np.uint8)], **half)
    case("dequantize", "DequantizeLinear", [u8(3, 4), num(0.1), num(5, np.uint8)], fixed=REST)


def experts():
    E, inner = 4, 12
    x, router = f32(6, 8), f32(6, E)
    layers = [f32(E, inner, 8), f32(E, inner), f32(E, 8, inner), f32(E, 8)]
    for act in ("relu", "gelu", "silu"):
        for sums in (0, 1):
            case(f"moe_{act}_{sums}", "MoE", [x, router, *layers], k=2, activation_type=act,
                 normalize_routing_weights=sums)
    case("moe_swiglu", "MoE", [x, router, f32(E, 2 * inner, 8), f32(E, 2 * inner), *layers[2:]], k=2,
         activation_type="swiglu", swiglu_fusion=1, normalize_routing_weights=1, activation_alpha=1.702,
         activation_beta=1.0, swiglu_limit=7.0)
    case("qmoe", "QMoE", [f32(6, 16), router, u8(E, 32, 8), np.abs(f32(E, 32)) / 10, None, u8(E, 16, 8),
         np.abs(f32(E, 16)) / 10], fixed=(2, 3, 5, 6), k=2, activation_type="swiglu", swiglu_fusion=1,
         expert_weight_bits=4, normalize_routing_weights=1, rtol=5e-3, atol=5e-3)


def write(c, folder):
    """The model and its data; None, or why onnxruntime does not run it."""
    data = os.path.join(folder, "data")
    os.makedirs(data)
    names, inputs, initializers, feed = [], [], [], {}

    def store(kind, k, array):
        with open(os.path.join(data, f"{kind}_{k}.pb"), "wb") as f:
            f.write(numpy_helper.from_array(np.asarray(array)).SerializeToString())
    for k, x in enumerate(c["operands"]):
        names.append("" if x is None else f"i{k}")
        if x is not None and k in c["fixed"]:
            initializers.append(numpy_helper.from_array(x, f"i{k}"))
        elif x is not None:
            store("input", len(inputs), x)
            inputs.append(helper.make_tensor_value_info(f"i{k}", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape))
            feed[f"i{k}"] = x
    wanted = c["outputs"] if isinstance(c["outputs"], str) else "1" * c["outputs"]
    outputs = [f"o{k}" if w == "1" else "" for k, w in enumerate(wanted)]
    node = helper.make_node(c["op"], names, outputs, name=c["name"], domain=c["domain"], **c["attributes"])
    infos = [helper.make_empty_tensor_value_info(o) for k, o in enumerate(outputs) if o and k not in c["skip"]]
    graph = helper.make_graph([node], "g", inputs, infos, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)],
                              ir_version=9)
    path = os.path.join(folder, "model.onnx")
    onnx.save(model, path)
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for k, array in enumerate(session.run(None, feed)):
            store("output", k, array)
    except Exception as e:      # every kind of refusal is one
        return "onnxruntime: " + str(e).replace("\n", " ")[:300]
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("forge")
    parser.add_argument("--filter", default="")
    parser.add_argument("--keep", help="folder for the models and data; default: a temporary one")
    args = parser.parse_args()
    onnxruntime.set_default_logger_severity(4)
    for family in (norms, activations_and_products, attention, multi_head_attention, group_query_attention,
                   low_bits, quantised, experts):
        family()
    failed = done = 0
    with tempfile.TemporaryDirectory() as scratch:
        for c in CASES:
            if not re.search(args.filter, c["name"]):
                continue
            folder = os.path.join(args.keep or scratch, c["name"])
            bad = write(c, folder)
            if not bad:
                p = subprocess.run([args.forge, "run", os.path.join(folder, "model.onnx"),
                                    "--test-data=" + os.path.join(folder, "data"), f"--rtol={c['rtol']}",
                                    f"--atol={c['atol']}"], capture_output=True, text=True, timeout=120)
                bad = p.returncode and f"exit {p.returncode}: {p.stderr.strip()}"
            done += 1
            failed += bool(bad)
            if bad:
                print(f"{c['name']}: {bad}")
    print(f"{done - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
