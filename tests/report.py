#!/usr/bin/env python3
"""The report and the views of forge dump: every number against something that does not come from the
report: the text of the modules, the ONNX file, formulas written here.

    report.py build/forge tests/models [MODEL..]
"""
import collections, json, math, os, re, subprocess, sys, tempfile, xml.dom.minidom
import onnx

from checks import Checks

MODELS = ["gpt2-ts17", "gpt2-optimum-kv", "llama32-ts17", "llama32-fp16-ts17", "qwen2-dy18", "bert-ts17", "lfm2-ts17",
          "vit-ts17", "whisper-encoder-ts17", "if-loop-ts17", "bert-qdq-static-int8", "llama-int4-matmulnbits"]
BITS = {"f64": 64, "f32": 32, "f16": 16, "bf16": 16, "i64": 64, "i32": 32, "i16": 16, "i8": 8, "i4": 4, "u64": 64,
        "u32": 32, "u16": 16, "u8": 8, "u4": 4, "bool": 8}
VIEWS = {"reshape", "transpose", "expand", "slice", "copy", "bitcast"}
UNCOUNTED = {"const", "ret", "yield"}


class Numbers(Checks):
    def equal(self, got, want, what):
        self.expect(got == want, f"{what}: {got}, expected {want}")

    def dump(self, path, *options, code=0):
        p = self.run("dump", path, *options)
        self.expect(p.returncode == code, f"dump {' '.join(options)}: exit {p.returncode}: {p.stderr.strip()}")
        return p.stdout


# ---- text ------------------------------------------------------------------------------------------------

Inst = collections.namedtuple("Inst", "op results operands attributes types body depth nodes")


def parse(text):
    """The instructions of @main, nested ones in `body`, and the bounds of the symbols."""
    bounds = {m[1]: (int(m[2] or 0), int(m[3]) if m[3] else math.inf)
              for m in re.finditer(r"^sym (\S+) (?:run )?in (\d*)\.\.(\d*)", text, re.M)}
    text = re.sub(r"\(\n(?: +%[^\n]*,\n)* +%[^\n]*\)", lambda m: re.sub(r"\s+", " ", m[0]), text)
    top, stack = [], []
    for line in text.split("\n"):
        bare, _, nodes = line.partition('  !"')
        bare = bare.rstrip()
        if bare.startswith("func @main"):
            stack = [top]
        elif stack and bare.strip().startswith("}"):
            stack.pop()
            if bare.strip() != "}":  # } else {
                stack.append(stack[-1][-1].body)
        elif stack and bare.startswith(" "):
            m = re.match(r"\s+(?:(%.*?) = )?([a-z_0-9]+)(?: (.*))?$", bare)
            if not m:
                continue
            rest, body = m[3] or "", []
            operands = re.split(r" [:{]", " " + rest)[0]
            head = rest.split(" : ", 1)[1] if " : " in rest else ""
            stack[-1].append(Inst(m[2], re.findall(r"%([^,\s]+)", m[1] or ""), re.findall(r"%([^,\s]+)", operands),
                                  dict(re.findall(r"(\w+)=(\[[^\]]*\]|[^,}\s]+)", rest.split("}")[0])),
                                  re.findall(r"([a-z]+\d*)\[([^\]]*)\]", head.split(" (")[0]), body, len(stack), nodes))
            if bare.endswith("{"):
                stack.append(body)
    return top, bounds


def count(insts):
    return sum((i.op not in UNCOUNTED) + (0 if i.op == "kernel" else count(i.body)) for i in insts)


def flat(insts):
    for i in insts:
        yield i
        yield from flat(i.body)


def outer(insts):
    """Those not inside kernels."""
    for i in insts:
        yield i
        if i.op != "kernel":
            yield from outer(i.body)


# ---- sizes -----------------------------------------------------------------------------------------------

class Sizes:
    """Types at the sizes the plan says it is made for."""

    def __init__(self, plan):
        line = next(l for l in plan.split("\n") if l.startswith("sizes at"))
        self.symbols = {n: int(v) for n, v in re.findall(r"(\S+)=(\d+)", line)}

    def dims(self, text):
        names = {re.sub(r"\W", "_", n): v for n, v in self.symbols.items()}
        out = []
        for d in filter(None, text.split(",")):
            for n in sorted(self.symbols, key=len, reverse=True):
                d = re.sub(r"(?<![\w.])" + re.escape(n) + r"(?![\w.])", re.sub(r"\W", "_", n), d)
            out.append(eval(d.replace("/", "//"), {"__builtins__": {}, "max": max, "min": min}, names))
        return out

    def count(self, t):
        return math.prod(self.dims(t[1]))

    def bytes(self, t):
        return -(-self.count(t) * BITS[t[0]] // 8)


# ---- the report ----------------------------------------------------------------------------------------------

def ledger(c, path, report, modules):
    """Every row against the text before and after that pass."""
    before = [m for m in modules if m["title"].startswith("before ")]
    after = [m for m in modules if m["title"].startswith("after ")]
    rows = report["passes"]
    c.equal(len(after), len(rows), "a module after each pass")
    for row, text in zip(rows, after):
        name = f"{row['name']}, round {row['round']}"
        c.expect(text["title"].startswith("after " + name), f"{text['title']} is not {name}")
        c.equal(count(parse(text["text"])[0]), row["nodes_after"], f"nodes after {name}")
        c.equal("nothing changed" not in text["title"], row["changed"], f"{name} says it changed")
        c.expect(row["ms"] >= 0 and isinstance(row["rss_delta_kb"], int), f"time and memory of {name}")
    for k, row in enumerate(rows):
        want = rows[k - 1]["nodes_after"] if k else report["nodes"]["imported"]
        c.equal(row["nodes_before"], want, f"nodes before {row['name']} are those left before it")
        if k and not row["changed"]:
            c.equal(after[k]["text"], after[k - 1]["text"], f"{row['name']} changed nothing")
    for name in {r["name"] for r in rows}:
        shown = json.loads(c.dump(path, "--json", "--print-ir-before=" + name))["modules"]
        c.equal([count(parse(m["text"])[0]) for m in shown], [r["nodes_before"] for r in rows if r["name"] == name],
                f"--print-ir-before={name}")
    c.expect(abs(report["ms_total"] - sum(p["ms"] for p in report["phases"])) < 1e-6, "phases add up")
    c.equal([p["name"] for p in report["phases"]][:2], ["read", "import"], "the first phases")
    inside = sum(r["ms"] for r in rows)
    c.expect(inside <= sum(p["ms"] for p in report["phases"] if p["name"] in ("passes", "place")), "passes are within phases")


def nodes(c, model, report, texts):
    def size(graph):
        return sum(1 + sum(size(g) for a in n.attribute for g in list(a.graphs) + ([a.g] if a.HasField("g") else []))
                   for n in graph.node)

    if not model.functions:
        c.equal(report["nodes"]["onnx"], size(model.graph), "nodes of the file")
    c.equal(report["nodes"]["imported"], count(parse(texts["import"])[0]), "imported")
    c.equal(report["nodes"]["optimized"], count(parse(texts["opt"])[0]), "optimized")
    c.equal(report["nodes"]["instructions"], count(parse(texts["fused"])[0]), "instructions")


def fusions(c, report, texts):
    a, rule = report["attention"], {f["rule"]: f["count"] for f in report["fusions"]}
    # What two kernels compute is a copy in each, named %x.N: one operation.
    ops = collections.Counter(op for op, _ in {(i.op, re.sub(r"(\.\d+)+$", "", r)) for i in flat(parse(texts["fused"])[0])
                                               for r in i.results})
    c.expect(all(f["count"] > 0 for f in report["fusions"]) and len(rule) == len(report["fusions"]), "rules are listed once")
    c.equal(rule.get("attention", 0), a["fused"], "attention is a rule")
    c.expect(a["candidates"] >= a["fused"], "candidates")
    c.expect(all(m["node"] and m["reason"] for m in a["missed"]), "misses have node and reason")
    c.expect((a["candidates"] > a["fused"]) == bool(a["missed"]), "each candidate that did not fuse says why")
    imported = collections.Counter(i.op for i in flat(parse(texts["import"])[0]))
    for name in ("gelu", "gelu_tanh", "silu", "layernorm", "rmsnorm"):
        if name in rule:
            c.equal(ops[name] - imported[name], rule[name], f"{name} as often as the rule")
    loose = [i for i in outer(parse(texts["fused"])[0]) if i.op not in UNCOUNTED | {"kernel", "if", "loop", "readsym", "require"}]
    c.expect(not loose or "append" in {i.op for i in loose}, f"operations outside of kernels: {[i.op for i in loose][:3]}")


def buffers(c, report, plan):
    """The plan's rows are the buffers; sizes are rounded up to whole cache lines."""
    rows = [(m[1], int(m[2]), int(m[3]), int(m[4]), m[5]) for m in
            re.finditer(r"^(\S+(?: of \S+)?|alias of %\S+)\s+\S+\s+(\d+)\s+(\d+)\.\.(\d+)\s+%(\S+)$", plan, re.M)]
    b, line = report["buffers"], lambda n: -(-n // 64) * 64
    arena = [r for r in rows if r[0].startswith("arena+")]
    alias = {r[4]: r[0].split("%")[1] for r in rows if r[0].startswith("alias of")}
    own = [r for r in rows if r[0] in ("output", "dynamic")]

    def root(name):
        while name in alias:
            name = alias[name]
        return name

    ends = {r[4]: r[3] for r in rows}
    for r in rows:
        ends[root(r[4])] = max(ends.get(root(r[4]), 0), r[3])
    states = {r[4] for r in rows if r[0] == "state"}  # what a state is after a step is the state
    c.equal(b["virtual"], len(arena) + sum(root(a) not in states for a in alias) + len(own), "virtual buffers")
    c.equal(b["physical"], len({r[0] for r in arena}) + len(own), "physical buffers")
    c.expect(not b["virtual"] or abs(b["rho"] - (1 - b["physical"] / b["virtual"])) < 1e-12, "rho")
    at = lambda r: int(r[0].split("+")[1])
    c.equal(b["bytes_planned"], max([at(r) + line(r[1]) for r in arena], default=0), "bytes planned")
    c.expect(b["bytes_naive"] >= sum(line(r[1]) for r in arena), "bytes without sharing")
    last = max(ends.values(), default=0)
    live = [sum(line(r[1]) for r in arena if r[2] <= p <= ends[r[4]]) for p in range(last + 1)]
    c.equal(b["bytes_lower_bound"], max(live, default=0), "lower bound")
    for x in arena:
        for y in arena:
            if x[4] < y[4] and at(x) < at(y) + y[1] and at(y) < at(x) + x[1]:
                c.expect(ends[x[4]] < y[2] or ends[y[4]] < x[2], f"%{x[4]} and %{y[4]} share bytes while both live")


def weights(c, model, report):
    def initializers(graph):
        yield from graph.initializer
        for n in graph.node:
            for a in n.attribute:
                for g in list(a.graphs) + ([a.g] if a.HasField("g") else []):
                    yield from initializers(g)

    seen, total, tied, shared = set(), 0, 0, 0
    for t in initializers(model.graph):
        data = onnx.numpy_helper.to_array(t)
        bits = 4 if t.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4) else 8 * data.itemsize
        size, key = (data.size * bits + 7) // 8, (t.data_type, tuple(t.dims), data.tobytes())
        total += size
        tied += key in seen
        shared += size if key in seen else 0
        seen.add(key)
    w = report["weights"]
    c.equal((w["bytes"], w["tied"], w["deduplicated_bytes"]), (total, tied, shared), "weights")


def product_flops(i, types, sizes):
    x, y = (types[r] for r in i.operands[:2])
    inner = sizes.dims(x[1])[-2 if i.attributes.get("trans_a") == "1" else -1]
    return 2 * sizes.count(i.types[0]) * inner


def attention_flops(i, types, sizes):
    q, k, v = (sizes.dims(types[r][1]) for r in i.operands[:3])
    batch, heads, queries, keys, wide, out = q[0], q[1], q[2], k[2], q[3], v[3]
    left = int(i.attributes.get("left", -1))
    right = 0 if i.attributes.get("causal") == "1" else int(i.attributes.get("right", -1))
    pairs = 0
    for at in range(keys - queries, keys):  # the last query stands at the last key
        end = keys if right < 0 else min(keys, at + right + 1)
        pairs += max(0, end - (0 if left < 0 else max(0, at - left)))
    return 2 * batch * heads * pairs * (wide + out)


def kernels(c, report, texts, plan):
    """Arithmetic of products and attention by formula, of all else one per element."""
    sizes, module = Sizes(plan), parse(texts["fused"])[0]
    known = {}
    for i in flat(module):
        for r, t in zip(i.results, i.types):
            known[r] = t
    for m in re.finditer(r"%([^,\s(]+): ([a-z]+\d*)\[([^\]]*)\]", texts["fused"]):
        known.setdefault(m[1], (m[2], m[3]))
    want = [i for i in outer(module) if i.op == "kernel"]
    got = {}
    for k in report["kernels"]:
        got.setdefault((k["name"], tuple(k["nodes"])), []).append(k)
    c.expect(len(report["kernels"]) <= len(want), "kernels are those of the module")
    c.expect(all(k.get("once", False) == (k["name"] == "panels") for k in report["kernels"]), "what lays out weights runs once, all else in every run")
    for i in want:
        names = tuple(re.findall(r'"((?:[^"\\]|\\.)*)"', '"' + i.nodes))
        rows = got.get((i.attributes["name"], names))
        if not rows:  # the same bytes as its operand
            c.expect(all(b.op in VIEWS | {"yield", "const"} for b in i.body), f"%{i.results[0]} is in the report")
            continue
        k, ops = rows[0], [b.op for b in i.body]
        flops = [product_flops(b, known, sizes) if b.op != "attention" else attention_flops(b, known, sizes)
                 for b in i.body if b.op in ("matmul", "matmul_panels", "matmul_int", "attention")]
        if "conv" in ops or "conv_transpose" in ops or "u0" in sizes.symbols:
            continue
        if not flops and "matmul_packed" not in ops:
            flops = [sizes.count(b.types[0]) for b in i.body if b.results and b.op not in VIEWS | {"const"}]
        c.expect(any(r["flops"] == sum(flops) for r in rows) or len(rows) > 1,
                 f"flops of {i.attributes['name']} %{i.results[0]}: {k['flops']}, expected {sum(flops)}")
        most = sum(sizes.bytes(known[r]) for r in i.operands) + sum(sizes.bytes(t) for t in i.types)
        looks_up = set(ops) & {"gather", "slice", "gather_elements", "gather_nd"}
        c.expect(k["bytes"] == most or (looks_up and 0 < k["bytes"] < most) or len(rows) > 1,
                 f"bytes of {i.attributes['name']} %{i.results[0]}: {k['bytes']}, expected {most}")


def cost(c, report):
    c.expect(report["cost_alpha1"] > 0 and report["cost_alpha0"] >= report["cost_alpha1"], "costs")
    c.expect(abs(report["fgr"] - report["cost_alpha0"] / report["cost_alpha1"]) < 1e-9, "fgr")
    c.expect((report["fgr"] > 1) == (report["attention"]["fused"] > 0), "fusing attention is what gains")
    c.equal((report["placement"]["devices"], report["placement"]["transitions_after"]), (["cpu"], 0), "placement")


# ---- the other views ---------------------------------------------------------------------------------------

def views(c, path, folder, report):
    trace = os.path.join(folder, "trace.json")
    c.dump(path, "--trace=" + trace, "--threads=2")
    events = json.load(open(trace))["traceEvents"]
    slices = [e for e in events if e["ph"] == "X"]
    c.equal([e["name"] for e in slices if (e["pid"], e["tid"]) == (1, 2)], [p["name"] for p in report["passes"]], "passes in the trace")
    ran = [e for e in slices if (e["pid"], e["tid"]) == (2, 1)]
    c.expect({k["name"] for k in report["kernels"] if k["name"] != "panels"} <= {e["name"] for e in ran} or "if" in {e["name"] for e in ran},
             "every kernel is in the trace")
    c.equal(sorted(k["name"] for k in report["kernels"] if k.get("once")), sorted(e["name"] for e in slices if e["pid"] == 3),
            "and what is made once, as the first run made it")
    c.expect(all(e["dur"] >= 0 and e["ts"] >= 0 for e in slices), "times of the trace")
    text = c.dump(path, "--dot")
    svg = subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, text=True, timeout=120)
    c.expect(svg.returncode == 0 and not svg.stderr, f"dot reads it: {svg.stderr[:100]}")
    titles = [g.getAttribute("class") for g in xml.dom.minidom.parseString(svg.stdout).getElementsByTagName("g")]
    c.expect(titles.count("cluster") >= len(report["kernels"]), "a cluster per kernel")
    placed = json.loads(c.dump(path, "--placement", "--json"))["placement"]["kernels"]
    c.equal([k["kernel"] for k in placed], [k["name"] for k in report["kernels"]], "placement names every kernel")
    peak = json.loads(c.dump(path, "--plan", "--json"))["plan"]
    c.expect(peak["peak_bytes"] <= report["buffers"]["bytes_lower_bound"], "the peak is the lower bound, unrounded")
    node = json.loads(c.dump(path, "--json", "--node=" + report["kernels"][-1]["nodes"][-1]))["node"]
    c.equal(node["kernel"]["name"], report["kernels"][-1]["name"], "a node knows its kernel")
    c.equal([e["pass"] for e in node["history"]][0], "import", "a node's history begins with the import")


def again(c, path, report, texts):
    """The knob string is the build; a stage as text goes on from there."""
    knobs = [k for k in report["knobs"].split(" ") if k]
    c.equal(c.dump(path, "--stage=placed", *knobs), texts["placed"], "the knob string makes the same program")


def price(c, reports):
    """What collecting reports takes of the compilations they are about. Bookkeeping and compilation are slowed alike by
    whatever else the machine does; a sum over models evens out the rest."""
    c.about = "all models"
    own, total = (sum(r[k] for r in reports) for k in ("ms_report", "ms_total"))
    c.expect(0 < own < 0.01 * total, f"collecting reports takes {own:.2f} ms of {total:.0f}")


def main():
    reports = []
    c, root = Numbers(sys.argv[1]), sys.argv[2]
    for name in sys.argv[3:] or MODELS:
        path = os.path.join(root, name, "model.onnx")
        model, c.about = onnx.load(path), name
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "report.json")
            modules = json.loads(c.dump(path, "--json", "--print-ir-after-all", "--report=" + file))["modules"]
            report, plan = json.load(open(file)), c.dump(path, "--plan")
            reports.append(report)
            texts = {s: c.dump(path, "--stage=" + s) for s in ("import", "opt", "fused", "placed")}
            ledger(c, path, report, modules)
            nodes(c, model, report, texts)
            fusions(c, report, texts)
            buffers(c, report, plan)
            weights(c, model, report)
            kernels(c, report, texts, plan)
            cost(c, report)
            views(c, path, folder, report)
            again(c, path, report, texts)
    price(c, reports)
    return c.done()


if __name__ == "__main__":
    sys.exit(main())
