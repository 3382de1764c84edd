#!/usr/bin/env python3
"""Models as C: what forge compile --emit=c writes is compiled on its own and compared with the stored outputs.

    emit_c.py build/forge tests/models [--filter REGEX] [--jobs N] [--all]

Every model runs and is within the tolerance. gcc compiles all of them without a warning, clang every third, every
eighth also runs under gcc's sanitizer of undefined behaviour; --all: all three, always. --cases: any folder with models somewhere below it, such as the ONNX conformance cases; what forge check refuses is
left out.
"""
import argparse, concurrent.futures, ctypes, glob, json, os, re, subprocess, sys, tempfile
import numpy as np, onnx
from onnx import numpy_helper

UNDEFINED = "gcc -fsanitize=undefined,float-cast-overflow -fno-sanitize-recover"      # ends the program at a report
FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]


def tensors(folder, kind):
    files = sorted(glob.glob(os.path.join(folder, kind + "_*.pb")), key=lambda f: int(re.findall(r"_(\d+)\.pb", f)[0]))
    out = []
    for f in files:
        t = onnx.TensorProto()
        with open(f, "rb") as file:
            t.ParseFromString(file.read())
        out.append((t.name, numpy_helper.to_array(t)))
    return out


def ports(header):
    """[(name, type, dims as text)] of inputs and of outputs, and the names of the sizes."""
    both = header[:header.index(" */")].split(" * to\n")
    found = [[(n, t, re.findall(r"\[([^\]]*)\]", d)) for n, t, d in re.findall(r"^ \*   (\w+): (\w+)(.*)$", part, re.M)]
             for part in both]
    sizes = re.search(r"_work_bytes\((.*?)\);\nint", header, re.S).group(1)
    return found[0], found[1], re.findall(r"int64_t (\w+)", sizes)


def solve(names, inputs, arrays):
    """Sizes from shapes: dims that are one name first, then those with one name left, by trying."""
    size = {}
    dims = [(text, n) for (_, _, d), a in zip(inputs, arrays) for text, n in zip(d, a.shape)]
    for text, n in dims:
        if text in names:
            size[text] = n
    for text, n in dims:
        left = [x for x in names if x not in size and re.search(rf"\b{x}\b", text)]
        if len(left) == 1:
            size[left[0]] = next(v for v in range(1 << 12) if eval(text, {}, {**size, left[0]: v}) == n)
    return [size[n] for n in names]


def pack(a, kind):
    """Elements of 4 bits two to a byte, the first in the low bits; others as they are."""
    if kind not in ("i4", "u4"):
        return np.ascontiguousarray(a)
    v = np.append(a.astype(np.int8).ravel(), np.zeros(a.size % 2, np.int8)).view(np.uint8) & 15
    return v[0::2] | v[1::2] << 4


def unpack(v, kind, shape):
    if kind not in ("i4", "u4"):
        return v
    v = np.stack([v & 15, v >> 4], 1).ravel()[:int(np.prod(shape))].astype(np.int8).reshape(shape)
    return v if kind == "u4" else (v ^ 8) - 8


def call(lib, name, header, weights, inputs, outputs):
    ins, outs, names = ports(header)
    arrays = [a for _, a in inputs]
    sizes = solve(names, ins, arrays)
    scope = dict(zip(names, map(int, sizes)), floor_div=lambda a, b: a // b, floor_mod=lambda a, b: a % b, least=min,
                 most=max)
    run, room = getattr(lib, name + "_run"), getattr(lib, name + "_work_bytes")
    room.restype = ctypes.c_size_t
    work = np.empty(room(*map(ctypes.c_int64, sizes)) // 8 + 1, np.uint64)
    got = [None if "?" in dims else np.empty([eval(d, {}, scope) for d in dims], a.dtype)
           for (_, _, dims), (_, a) in zip(outs, outputs)]
    args = [weights, work, *(pack(a, kind) for a, (_, kind, _) in zip(arrays, ins)), *[None] * (len(ins) - len(arrays))]
    for (_, kind, dims), g in zip(outs, got):
        # A size that is found while running: memory, and the shape.
        args += [np.zeros(1, np.uint64), np.zeros(len(dims), np.int64)] if g is None else [pack(g, kind)]
    given = [ctypes.c_void_p(None if a is None else a.ctypes.data) for a in args]
    code = run(*map(ctypes.c_int64, sizes), *given)
    assert code == 0, f"the answer is {code}"
    found = iter(args[2 + len(ins):])
    for k, (_, a) in enumerate(outputs):
        if got[k] is None:
            memory, shape = int(next(found)[0]), list(next(found))
            got[k] = np.empty(shape, a.dtype)
            ctypes.memmove(got[k].ctypes.data, memory, got[k].nbytes)
            ctypes.CDLL(None).free(ctypes.c_void_p(memory))
        else:
            got[k] = unpack(next(found), outs[k][1], got[k].shape)
    if sizes:
        assert run(*(ctypes.c_int64(-1) for _ in sizes), *given) == 1, "bounds"
    return [n for n, _, _ in outs], got


def check(args, folder, entry, compilers):
    model = os.path.join(folder, "model.onnx")
    with tempfile.TemporaryDirectory() as scratch:
        p = subprocess.run([args.forge, "compile", model, "--emit=c", "-o", os.path.join(scratch, "model.c")],
                           capture_output=True, text=True, timeout=300)
        assert p.returncode == 0, p.stderr.strip()
        with open(os.path.join(scratch, "model.h")) as f:
            header = f.read()
        weights = np.fromfile(os.path.join(scratch, "model.bin"), np.uint8)
        weights = weights if len(weights) else np.zeros(8, np.uint8)
        for k, cc in enumerate(compilers):
            so = os.path.join(scratch, f"{k}.so")
            p = subprocess.run([*cc.split(), *FLAGS, os.path.join(scratch, "model.c"), "-o", so, "-lm"], capture_output=True, text=True,
                               timeout=300)
            assert p.returncode == 0, f"{cc}: {p.stderr[:600]}"
            lib = ctypes.CDLL(so)
            for data in sorted(glob.glob(os.path.join(folder, "test_data_set_*"))):
                want = tensors(data, "output")
                _, got = call(lib, "model", header, weights, tensors(data, "input"), want)
                for (name, w), g in zip(want, got):
                    atol, rtol = entry.get("atol", 1e-4), entry.get("rtol", 1e-3)
                    if w.dtype.kind not in "fiub":
                        continue
                    w, g = w.astype(np.float64), g.astype(np.float64)
                    bad = ~np.isclose(g, w, rtol, atol, equal_nan=True)
                    assert not bad.any(), f"{cc} {os.path.basename(data)} {name}: {bad.sum()} of {bad.size} differ, " \
                                          f"first {g[bad][0]} for {w[bad][0]}"


def defaults(args, folder):
    """A model whose input has a default value, and one that nothing reads."""
    h = onnx.helper
    f32 = onnx.TensorProto.FLOAT
    graph = h.make_graph([h.make_node("PRelu", ["x", "slope"], ["y"])], "g",
                         [h.make_tensor_value_info("x", f32, ["N", 3]), h.make_tensor_value_info("slope", f32, [3]),
                          h.make_tensor_value_info("unread", f32, ["N"])],
                         [h.make_tensor_value_info("y", f32, ["N", 3])],
                         [h.make_tensor("slope", f32, [3], [0.25, 0.5, 2.0])])
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), os.path.join(folder, "model.onnx"))
    x, slope = np.array([[-1, -1, -1], [1, 2, -3]], np.float32), np.array([0.25, 0.5, 2], np.float32)
    y = np.where(x < 0, x * slope, x).astype(np.float32)
    out = os.path.join(folder, "m.c")
    subprocess.run([args.forge, "compile", os.path.join(folder, "model.onnx"), "--emit=c", "-o", out], check=True)
    subprocess.run(["gcc", *FLAGS, out, "-o", out + ".so", "-lm"], check=True)
    with open(os.path.join(folder, "m.h")) as f:
        ins, _, names = ports(f.read())
    assert [n for n, _, _ in ins] == ["x_", "slope", "unread"] and names == ["N"], (ins, names)
    weights, got, run = np.fromfile(os.path.join(folder, "m.bin"), np.uint8), np.empty_like(y), ctypes.CDLL(out + ".so").m_run
    for given in (None, slope * 2):
        work = np.empty(1 << 12, np.uint8)
        args = [weights, work, x, given, np.empty(2, np.float32), got]
        assert run(ctypes.c_int64(2), *(ctypes.c_void_p(None if a is None else a.ctypes.data) for a in args)) == 0
        want = y if given is None else np.where(x < 0, x * given, x)
        assert np.allclose(got, want), (got, want)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("forge")
    p.add_argument("models")
    p.add_argument("--filter", default="")
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--all", action="store_true")
    p.add_argument("--cases", action="store_true")
    args = p.parse_args()
    index = {}
    if not args.cases:
        with open(os.path.join(args.models, "index.json")) as f:
            index = {e["name"]: e for e in json.load(f)}
    pattern = os.path.join(args.models, "**" if args.cases else "*", "model.onnx")
    folders = [os.path.dirname(m) for m in sorted(glob.glob(pattern, recursive=True))]
    folders = [f for f in folders if re.search(args.filter, os.path.basename(f))]

    def one(k):
        if args.cases and subprocess.run([args.forge, "check", os.path.join(folders[k], "model.onnx")],
                                         capture_output=True, timeout=300).returncode:
            return None
        compilers = ["gcc"] + (["clang-19"] if args.all or k % 3 == 0 else []) + ([UNDEFINED] if args.all or k % 8 == 1 else [])
        try:
            check(args, folders[k], index.get(os.path.basename(folders[k]), {}), compilers)
        except Exception as e:
            return f"{os.path.basename(folders[k])}: {type(e).__name__}: {e}"

    if not args.filter and not args.cases:
        with tempfile.TemporaryDirectory() as folder:
            defaults(args, folder)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        bad = [b for b in pool.map(one, range(len(folders))) if b]
    for line in bad:
        print(line)
    print(f"{len(folders) - len(bad)} passed, {len(bad)} failed")
    return 1 if bad or not folders else 0


if __name__ == "__main__":
    sys.exit(main())
