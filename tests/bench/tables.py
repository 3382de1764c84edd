#!/usr/bin/env python3
"""Measures every speed table of the README again, and writes them there.

    tables.py build/forge --models DIR [--write README.md] [--json RECORDS] [--only gpt2,smollm2-135m]
              [--tables speed,precision,perplexity,steady,start,gemm,alpha] [--tasks compile,prefill,decode]
              [--threads 1,2] [--weights 768x3072,..] [--rounds 3] [--budget 20] [--quick]

DIR holds NAME.onnx, NAME-kv.onnx with a cache, perhaps NAME-int4.onnx and NAME-int4-kv.onnx (MatMulNBits), NAME-f32.gguf and
NAME.gguf (4 bits) for llama.cpp, NAME.tokenizer.json; tests/fullsize makes them. What was measured is kept in RECORDS, so that
models, tasks and threads can be measured one by one; a table shows all that is kept.

  speed       peers.py: forge beside the engines that are installed, versions named, one interleaved run per model
  precision   the same with packed weights: forge's own, the same 4-bit file for all, OpenVINO in bf16, its default here, and
              llama.cpp on its 4 bits
  perplexity  perplexity.py
  steady      bench-steady: p99 / p50, beside a busy process, and what an idle host takes
  start       bench-start: a .forge file from opening it to its first output, its memory, and two processes that share it
  gemm        one product alone, M rows, the weights KxN of --weights: percent of the machine's measured bound
  alpha       attention_gain.py: what fusing attention is worth

A table stands between `<!-- NAME table -->` and `<!-- NAME table end -->`; --write replaces what is between the marks
that the file has, and prints the others. --quick runs everything once or twice: it shows that all works, not how fast.
"""
import argparse, contextlib, ctypes, datetime, importlib.util, json, mmap, os, platform, re, shlex, shutil, statistics, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = os.path.join(HERE, "..", "fullsize", "peers.py")
ENGINES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "llama.cpp": "xllamacpp"}
NAMES = ("gpt2", "smollm2-135m", "granite-350m", "qwen2-0.5b", "llama-3.2-1b", "all-minilm-l6-v2", "vit-base", "t5-small-encoder",
         "whisper-base-encoder")
PRECISIONS = ("f32", "bf16", "int8", "int4")
ROWS = (1, 8, 32, 128, 512)
WEIGHTS = "768x768,768x3072,3072x768,2048x8192,4096x4096,4096x14336,14336x4096"


def installed():
    return [e for e, module in ENGINES.items() if importlib.util.find_spec(module)]


def machine():
    with open("/proc/cpuinfo") as f:
        cpu = re.search(r"model name\s*:\s*(.*)", f.read())
    return f"{cpu.group(1) if cpu else platform.machine()}, {os.cpu_count()} CPUs, {datetime.date.today()}"


def adapter(a, *options):
    argv = [sys.executable, os.path.join(HERE, "peer.py"), "--forge", os.path.abspath(a.forge)]
    argv += [f"--option={o}" for o in options]
    return (" ".join(map(shlex.quote, argv)) + " {task} {model} --threads {threads} --past {past} --budget {budget} "
            "--warmup {warmup} --iterations {iterations} --cache {cache} --inputs {inputs} --out {out}")


def peers(a, kept, model, engines, commands, extra=()):
    """One interleaved run; its results go into `kept`, by engine, task and threads."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out.json")
        argv = [sys.executable, PEERS, model, "--engines=" + ",".join(engines), "--tasks=" + a.tasks, "--threads=" + a.threads,
                f"--rounds={a.rounds}", f"--budget-seconds={a.budget}", f"--warmup={a.warmup}",
                f"--iterations={a.iterations}", f"--seq={a.seq}", f"--past={a.past}", "--json", out, *extra]
        for name, command in commands.items():
            argv.append(f"--command={name}={command}")
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        with open(out) as f:
            record = json.load(f)
    for r in record["results"]:
        for timed in ("compile", "latency"):
            r.get(timed, {}).pop("samples", None)
        key = f"{r['engine']} {r['task']} {r['threads']}"
        if "error" not in r:
            kept[key] = r
        elif r["engine"].startswith("forge"):  # a peer may lack something; forge may not
            sys.exit(f"tables.py: {record['model']}: {key}: {r['error']}")
        else:
            print(f"{record['model']}: {key}: {r['error']}", file=sys.stderr)


def gguf(model, engines, suffix):
    """The option that lets llama.cpp take part, when it is there and has that model."""
    path = model.removesuffix(".onnx") + suffix
    return ["--gguf=" + path] if "llama.cpp" in engines and os.path.exists(path) else []


def value(kept, engine, task, n, keys):
    v = kept.get(f"{engine} {task} {n}")
    for k in keys:
        v = v.get(k) if v else None
    return v


def cell(values, scale, digits):
    return "-" if not any(values) else " / ".join("-" if v is None else f"{v * scale:.{digits}f}" for v in values)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(r) + " |" for r in rows]


def models(a):
    found = [(n, os.path.join(a.models, n + ".onnx")) for n in a.only.split(",")]
    return [(n, path) for n, path in found if os.path.exists(path)]


def in_order(records):
    return sorted(records, key=lambda n: (NAMES.index(n) if n in NAMES else len(NAMES), n))


def version(records, engine):
    """'onnxruntime 1.31.1': of what was measured last, without a build's name behind it."""
    found = [r["version"] for kept in records.values() for r in kept.values() if r["engine"] == engine and "version" in r]
    return re.sub(r"-\d+-[0-9a-f]+.*", "", found[-1]) if found else engine


def speed(a, records):
    for name, model in models(a):
        engines = installed()
        peers(a, records.setdefault(name, {}), model, engines, {"forge": adapter(a)}, gguf(model, engines, "-f32.gguf"))
    measures = (("file to ready, s", "compile", ("compile", "median"), 1, 2), ("prefill, ms", "prefill", ("latency", "p50"), 1e3, 1),
                ("a token, ms", "decode", ("latency", "p50"), 1e3, 1), ("peak memory of the prefill, MiB", "prefill", ("run_peak_kb",), 1 / 1024, 0))
    rows, seen = [], {r["engine"] for kept in records.values() for r in kept.values()}
    engines = ["forge"] + [e for e in ENGINES if e in seen]
    for name in in_order(records):
        for label, task, keys, scale, digits in measures:
            values = {e: [value(records[name], e, task, n, keys) for n in (1, 2)] for e in engines}
            if not any(values["forge"]):
                continue
            best = [min((values[e][k] for e in engines[1:] if values[e][k]), default=None) for k in (0, 1)]
            times = [b / v if b and v else None for b, v in zip(best, values["forge"])]
            rows.append([name, label, *(cell(values[e], scale, digits) for e in engines), cell(times, 1, 2)])
    head = ["model", "threads 1 / 2", *(version(records, e) for e in engines), "best peer / forge"]
    return [f"Prefill of {a.seq} tokens (or one image, or 30 s of sound), a token at {a.past} past; medians, f32, caches off "
            f"({machine()}).", "", *table(head, rows)]


def precision(a, records):
    engines = [e for e in installed() if e != "onnxruntime"]
    a.tasks = ",".join(t for t in a.tasks.split(",") if t != "compile")
    for name, model in models(a):
        kept, packed = records.setdefault(name, {}), model.removesuffix(".onnx") + "-int4.onnx"
        peers(a, kept, model, engines, {f"forge-{p}": adapter(a, "--precision=" + p) for p in PRECISIONS},
              ["--ov-precision=bf16", *gguf(model, engines, ".gguf")])
        if os.path.exists(packed):
            same = {}
            peers(a, same, packed, [e for e in installed() if e != "llama.cpp"], {"forge": adapter(a)}, ["--ov-precision=bf16"])
            kept.update((f"{r['engine']} file {r['task']} {r['threads']}", dict(r, engine=r["engine"] + " file")) for r in same.values())
    kinds = {"openvino": "bf16", "llama.cpp": "Q4_1"}
    rows = []
    for name in in_order(records):
        for e in dict.fromkeys(r["engine"] for r in records[name].values()):
            base = e.removesuffix(" file")
            label = version({name: records[name]}, e) if base in ENGINES else base
            kind = "4-bit MatMulNBits file" if base != e else kinds.get(e) or e.removeprefix("forge-")
            label = "forge" if label.startswith("forge") else label
            rows.append([name, label, kind, *(cell([value(records[name], e, t, n, ("latency", "p50")) for n in (1, 2)], 1e3, 1)
                         for t in ("prefill", "decode")), cell([value(records[name], e, "prefill", 1, ("run_peak_kb",))], 1 / 1024, 0)])
    head = ["model", "engine", "weights", f"prefill of {a.seq}, ms, threads 1 / 2", f"a token at {a.past}, ms", "peak, MiB"]
    return [f"Medians ({machine()}). OpenVINO computes in bf16, its default on this machine.", "", *table(head, rows)]


def perplexity(a, records):
    for name, model in models(a):
        tokenizer = model.removesuffix(".onnx") + ".tokenizer.json"
        for accuracy in ("model", "strict") if os.path.exists(tokenizer) else ():
            argv = [sys.executable, os.path.join(HERE, "perplexity.py"), a.forge, model, tokenizer, "--accuracy=" + accuracy]
            text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
            records.setdefault(name, {})[accuracy] = dict(line.split() for line in text.splitlines()[1:])
    rows = [[name, "rounded" if accuracy == "model" else "f32 (`--accuracy=strict`)", *(f"{float(x):.2f}" for x in found.values())]
            for name in in_order(records) for accuracy, found in records[name].items()]
    kinds = next((list(found) for kept in records.values() for found in kept.values()), [])
    return ["Of `tests/bench/perplexity.txt`, windows of 512 tokens.", "", *table(["model", "activations", *kinds], rows)]


def steady(a, records):
    program = os.path.join(os.path.dirname(os.path.abspath(a.forge)), "bench-steady")
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models(a):
            cached = model.removesuffix(".onnx") + "-kv.onnx"
            forms = [("prefill", model)] if "prefill" in a.tasks else []
            if "decode" in a.tasks and os.path.exists(cached):
                forms.append(("a token", cached))
            for what, path in forms:
                artifact = os.path.join(folder, "model.forge")
                subprocess.run([a.forge, "compile", path, "-o", artifact, "--cpu=native"], check=True)
                for n in a.threads.split(","):
                    busy, idle = max(a.iterations // 10, 3), 1 if a.quick else 10
                    line = subprocess.run([program, artifact, str(a.seq), n, str(a.iterations), str(busy), str(idle)],
                                          check=True, capture_output=True, text=True).stdout
                    records[f"{name}, {what}, x{n}"] = json.loads(line)
    rows = [[name, str(r["runs"]), *(f"{r[k]:.{d}f}" for k, d in (("p50_ms", 2), ("spread", 2), ("machine_spread", 2), ("busy_ms", 2),
             ("busy_waited_ms", 2), ("excess_ms", 2))), f"{100 * r['idle_cpu']:.3f}"] for name, r in sorted(records.items())]
    head = ["model", "runs", "p50, ms", "p99 / p50", "of threads that only read memory", "beside a busy process, mean, ms",
            "threads waited for a CPU, ms", "slower beyond that, ms", "CPU while idle, %"]
    return [f"`bench-steady` ({machine()}).", "", *table(head, rows)]


def product(path, k, n):
    import numpy as np
    import onnx
    from onnx import TensorProto as T, helper as h
    weight = np.random.default_rng(0).standard_normal((k, n), np.float32) * np.float32(k ** -0.5)
    graph = h.make_graph([h.make_node("MatMul", ["x", "w"], ["y"], "product")], "product",
                         [h.make_tensor_value_info("x", T.FLOAT, ["M", k])], [h.make_tensor_value_info("y", T.FLOAT, ["M", n])],
                         [h.make_tensor("w", T.FLOAT, (k, n), weight.tobytes(), raw=True)])
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), path)


def bound(runs):
    """Of the median run, '91': percent of the FMA peak or (bold) of the bandwidth, whichever it runs into."""
    shares = [[r[k] for r in runs] for k in ("pct_peak_flops", "pct_peak_bandwidth")]
    if None in shares[0] + shares[1]:
        return "refused"
    flops, bandwidth = map(statistics.median, shares)
    return f"{flops:.0f}" if flops >= min(bandwidth, 85) else f"**{bandwidth:.0f}**"


def gemm(a, records):
    with tempfile.TemporaryDirectory() as folder:
        for k, n in (tuple(map(int, shape.split("x"))) for shape in a.weights.split(",") if shape):
            model = os.path.join(folder, f"{k}x{n}.onnx")
            product(model, k, n)
            for m in ROWS:
                for threads in a.threads.split(","):
                    argv = [a.forge, "bench", model, f"--dim=M={m}", "--json", f"--threads={threads}", f"--warmup={a.warmup}",
                            f"--iterations={a.iterations * 4}", f"--duration={a.budget / 20}"]
                    runs = [json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout) for _ in range(a.rounds)]
                    for r in runs:
                        r.pop("lat_ms")
                    records[f"{k}x{n} {m} {threads}"] = runs
            os.unlink(model)
    kept = {tuple(map(int, re.split("[ x]", key))): bound(runs) for key, runs in records.items()}
    rows = [[str(k), str(n), *(" / ".join(kept.get((k, n, m, t), "-") for t in (1, 2)) for m in ROWS)]
            for k, n in sorted({key[:2] for key in kept})]
    return [f"Percent of the FMA peak, or in bold of the bandwidth of the memory or cache that holds the weights, measured in "
            f"the same run; threads 1 / 2, f32, medians of {a.rounds} ({machine()}).",
            "Refused: the rate was above the peak that was measured, for weights that stay in a cache, so it is none.", "",
            *table(["K", "N", *(f"M = {m}" for m in ROWS)], rows)]


def alpha(a, records):
    argv = [sys.executable, os.path.join(HERE, "attention_gain.py"), a.forge, *(path for _, path in models(a)),
            "--lengths=" + ("128" if a.quick else "128,1024"), f"--iterations={a.iterations}", f"--warmup={a.warmup}"]
    lines = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
    records["lines"] = lines
    return [f"Everything equal but the fusion of attention ({machine()}).", "", *lines]


def memory(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return {k: int(v) / 1024 for k, v in re.findall(r"^(\w+): +(\d+) kB", f.read(), re.M)}


@contextlib.contextmanager
def in_memory(folder):
    """The pages of its files stay in the page cache, whatever else the machine does with its memory."""
    libc, maps = ctypes.CDLL(None), []
    libc.mmap.restype = ctypes.c_void_p
    for entry in os.scandir(folder):
        with open(entry.path, "rb") as f:
            size = ctypes.c_size_t(entry.stat().st_size)
            maps.append((ctypes.c_void_p(libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, f.fileno(), ctypes.c_long(0))), size))
        if libc.mlock(*maps[-1]):
            print(f"{entry.path}: its pages may leave the page cache", file=sys.stderr)
    yield
    for m in maps:
        libc.munmap(*m)


def together(argv):
    """What the first of two processes takes, alone and beside the second."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, **pipes) as one, subprocess.Popen(argv, **pipes) as two:
        one.stdout.readline()
        two.stdout.readline()
        shared = memory(one.pid)
        two.communicate()
        alone = memory(one.pid)
        one.stdin.close()
    return {"resident": alone, "together": shared}


def start(a, records):
    """bench-start: from opening a file to its first output, and in two processes, so that what they share shows."""
    threads, program = a.threads.split(",")[0], os.path.join(os.path.dirname(os.path.abspath(a.forge)), "bench-start")
    with tempfile.TemporaryDirectory() as folder:
        artifact = os.path.join(folder, "model.forge")
        argv = [program, artifact, str(a.seq), threads, str(a.iterations)]
        for name, model in models(a):
            subprocess.run([a.forge, "compile", model, "-o", artifact, "--cpu=native", f"--weights={folder}/w/"], check=True)
            with in_memory(folder + "/w"):
                seen = [json.loads(subprocess.run(argv, input=b"", check=True, stdout=subprocess.PIPE).stdout)
                        for _ in range(1 if a.quick else 9)]
            seen.sort(key=lambda r: r["first_ms"] - r["run_ms"])
            worst, r = seen[-1], seen[len(seen) // 2] | together(argv)
            r.update({"beyond_ms": r["first_ms"] - r["run_ms"], "worst_ms": worst["first_ms"] - worst["run_ms"],
                      "weights": sum(e.stat().st_size for e in os.scandir(folder + "/w")) / 2 ** 20})
            records[name] = r
            shutil.rmtree(folder + "/w")
    rows = [[name, *(f"{r[k]:.1f}" for k in ("open_ms", "first_ms", "run_ms", "beyond_ms", "worst_ms")), f"{r['weights']:.0f}",
             *(f"{r['resident'][k]:.0f}" for k in ("Rss", "Pss_Anon")), f"{r['together']['Pss']:.0f}"]
            for name, r in ((name, records[name]) for name in in_order(records))]
    head = ["model", "open, ms", "to the first output, ms", "a later run, ms", "first beyond later, ms", "worst of 9", "weights in files, MiB", "resident, MiB",
            "of it not a file's, MiB", "share of one of two processes (Pss), MiB"]
    return [f".forge files, {a.seq} tokens, {threads} thread(s), files in the page cache ({machine()}).", "", *table(head, rows)]


TABLES = {f.__name__: f for f in (speed, precision, perplexity, steady, start, gemm, alpha)}


def replace(text, name, lines):
    """The text with lines between the marks of that name; None: it has no such marks."""
    begin, end = f"<!-- {name} table -->\n", f"<!-- {name} table end -->"
    at = text.find(begin)
    to = text.find(end, at)
    if at < 0 or to < 0:
        return None
    return text[:at + len(begin)] + "\n" + "\n".join(lines) + "\n\n" + text[to:]


def show(a, name, lines):
    if a.write:
        with open(a.write) as f:
            text = replace(f.read(), name, lines)
        if text is not None:
            with open(a.write, "w") as f:
                f.write(text)
            return
    print(f"\n## {name}\n\n" + "\n".join(lines), flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("forge")
    p.add_argument("--models", required=True)
    p.add_argument("--write")
    p.add_argument("--json")
    p.add_argument("--only", default=",".join(NAMES))
    p.add_argument("--tables", default=",".join(TABLES))
    p.add_argument("--tasks", default="compile,prefill,decode")
    p.add_argument("--threads", default="1,2")
    p.add_argument("--weights", default=WEIGHTS)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--budget", type=float, default=20, help="seconds per timed loop")
    p.add_argument("--warmup", type=int, default=10)
    p.add_argument("--iterations", type=int, default=50)
    p.add_argument("--seq", type=int, default=128)
    p.add_argument("--past", type=int, default=128)
    p.add_argument("--quick", action="store_true")
    a = p.parse_args()
    if a.quick:
        a.rounds, a.budget, a.warmup, a.iterations, a.threads, a.weights = 1, 1, 1, 3, "1", "768x768"
    unknown = [t for t in a.tables.split(",") if t not in TABLES]
    if unknown:
        p.error(f"no table is called {unknown[0]}: {', '.join(TABLES)}")
    if not models(a) and a.only and a.tables != "gemm":
        p.error(f"{a.models} has none of the models {a.only}")
    records = {}
    if a.json and os.path.exists(a.json):
        with open(a.json) as f:
            records = json.load(f)
    for name in a.tables.split(","):
        show(a, name, TABLES[name](a, records.setdefault(name, {})))
        if a.json:
            with open(a.json, "w") as f:
                json.dump(records, f, indent=1)


if __name__ == "__main__":
    main()
