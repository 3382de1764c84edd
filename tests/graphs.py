"""Graphs written as ONNX text, compared with onnxruntime, and what the compiler says it did with them.

A case has the inputs ("float[B,4,S,8] q, bool[S,T] keep, .."), the graph that makes `y`, the fusions that
must be counted, and a regular expression for the reason that some missed candidate must give. It runs on
each of its sets of sizes; inputs named keep, drop and any are masks, see data_of.
"""
import argparse, dataclasses, json, os, re, subprocess, tempfile

import numpy as np
import onnx, onnx.helper, onnx.numpy_helper, onnx.parser
import onnxruntime

SIZES = [dict(B=2, S=7, T=9, P=2), dict(B=1, S=1, T=5, P=4), dict(B=3, S=33, T=40, P=7)]
TOLERANCE = {"float": (2e-5, 1e-4), "double": (1e-9, 1e-9), "float16": (4e-3, 4e-3), "bfloat16": (0.04, 0.04), "grid": (0.02, 0.02)}


@dataclasses.dataclass
class Case:
    inputs: str
    body: str
    fusions: dict           # rule: how often
    output: str = "y"
    reason: str = None
    opset: int = 17
    tol: str = "float"
    functions: str = ""
    domains: str = ""
    sizes: list = dataclasses.field(default_factory=lambda: SIZES)
    about: tuple = ("", "")     # of which pass, and how the reasons begin that count (a regular expression)
    kernels: int = None         # at most


def const(name, value, kind="float"):
    v = np.atleast_1d(value)
    shape = "" if np.ndim(value) == 0 else "[" + ",".join(map(str, v.shape)) + "]"
    if np.ndim(value) == 0 and np.isinf(value):         # the text format has no infinities
        return f"{name}_1 = Constant <value = {kind} {{{-1 if value < 0 else 1}}}> ()\n" \
               f"{name}_0 = Constant <value = {kind} {{0}}> ()\n{name} = Div({name}_1, {name}_0)\n"
    return f"{name} = Constant <value = {kind}{shape} {{{','.join(str(x) for x in v.flat)}}}> ()\n"


def model_of(c, kind=None):
    inputs = c.inputs.replace(kind, "float") if kind else c.inputs          # the same graph in float
    output = c.output if " " in c.output else f"{inputs.split('[')[0]}[] y"
    text = f'<ir_version: {10 if c.opset > 20 else 8}, opset_import: ["" : {c.opset}{c.domains}]>\n' \
           f"agraph ({inputs}) => ({output}) {{\n{c.body}}}\n{c.functions}"
    model = onnx.parser.parse_model(text)
    for o in model.graph.output:
        if "[" not in c.output:
            o.type.tensor_type.ClearField("shape")
    return model


def data_of(model, sizes, seed):
    rng = np.random.default_rng(seed)
    for i in model.graph.input:
        t = i.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else sizes[d.dim_param] for d in t.shape.dim]
        if t.elem_type == onnx.TensorProto.BOOL:
            a = rng.random(shape) < 0.6
            if i.name == "any" and a.size > 1:          # one row without any key
                a.reshape(-1, shape[-1])[0] = False
            elif i.name != "any":
                a[..., 0] = i.name == "keep"
            yield a
            continue
        a = rng.standard_normal(shape)
        if i.name == "mask":
            a = np.where(rng.random(shape) < 0.3, -3.0, a / 2)
        yield a.astype(onnx.helper.tensor_dtype_to_np_dtype(t.elem_type))


def expected(c, model, data):
    """What onnxruntime says; it has no products of bfloat16, so those graphs run in float."""
    kind = "bfloat16" if c.tol == "bfloat16" else None
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    oracle = (model_of(c, kind) if kind else model).SerializeToString()
    session = onnxruntime.InferenceSession(oracle, options, providers=["CPUExecutionProvider"])
    given = [a.astype(np.float32) if kind and a.dtype != bool else a for a in data]
    out = session.run(None, {i.name: a for i, a in zip(model.graph.input, given)})
    return [o.astype(data[0].dtype) if kind else o for o in out]


def save(folder, kind, k, array):
    with open(os.path.join(folder, f"{kind}_{k}.pb"), "wb") as out:
        out.write(onnx.numpy_helper.from_array(array).SerializeToString())


def explained(forge, c, path):
    """(rule: count, the reasons of what was missed) of the default pipeline."""
    p = subprocess.run([forge, "dump", path, "--explain", "--json"], capture_output=True, text=True, timeout=120)
    if p.returncode:
        return {}, p.stderr
    all = json.loads(p.stdout)["explain"]
    counts = {f["rule"]: f["count"] for f in all["fusions"]} | {"attention": all["attention"]["fused"]}
    return counts, "; ".join(f"{m['node']}: {m['reason']}" for m in all["missed"]
                             if m["pass"] == c.about[0] and re.match(c.about[1], m["reason"]))


def kernels(forge, path):
    p = subprocess.run([forge, "dump", path, "--stage=fused"], capture_output=True, text=True, timeout=120)
    return len(re.findall(r"^ .* = kernel ", p.stdout, re.M))


def check(forge, c, folder):
    """What is wrong with a case; None: nothing."""
    model, path = model_of(c), os.path.join(folder, "model.onnx")
    onnx.save(model, path)
    atol, rtol = TOLERANCE[c.tol]
    for n, sizes in enumerate(c.sizes):
        test = os.path.join(folder, f"set{n}")
        os.makedirs(test)
        data = list(data_of(model, sizes, n))
        for k, array in enumerate(data):
            save(test, "input", k, array)
        for k, array in enumerate(expected(c, model, data)):
            save(test, "output", k, array)
        p = subprocess.run([forge, "run", path, "--test-data=" + test, f"--atol={atol}", f"--rtol={rtol}"],
                           capture_output=True, text=True, timeout=120)
        if p.returncode:
            return f"{sizes}: exit {p.returncode}: {p.stderr.strip()[-300:]}"
    counts, missed = explained(forge, c, path)
    for rule, want in c.fusions.items():
        if counts.get(rule, 0) != want:
            return f"{counts.get(rule, 0)} {rule}, not {want}: {missed}"
    if c.kernels and not 0 < kernels(forge, path) <= c.kernels:
        return f"{kernels(forge, path)} kernels, not {c.kernels}"
    if c.reason and not re.search(c.reason, missed):
        return f"no reason like {c.reason!r}: {missed}"
    return f"missed: {missed}" if not c.reason and missed and any(c.fusions.values()) else None


def main(cases, doc):
    ap = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("forge")
    ap.add_argument("--filter", default="")
    ap.add_argument("--list", action="store_true")
    args = ap.parse_args()
    onnxruntime.set_default_logger_severity(4)
    passed = failed = 0
    for name, c in cases.items():
        if not re.search(args.filter, name):
            continue
        if args.list:
            print(name)
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                wrong = check(args.forge, c, folder)
            except Exception as e:      # of onnx or onnxruntime: the case itself is wrong
                wrong = f"{type(e).__name__}: {str(e)[:300]}"
        passed, failed = passed + (not wrong), failed + bool(wrong)
        if wrong:
            print(f"{name}: {wrong}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0
