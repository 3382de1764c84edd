#!/usr/bin/env python3
"""Measures every speed table of the README again, and writes them there.

    tables.py build/forge --models DIR [--write README.md] [--json OUT] [--only gpt2,smollm2-135m]
              [--tables speed,start,precision,gemm,alpha] [--threads 1,2] [--rounds 3] [--budget 20] [--quick]

DIR holds NAME.onnx, NAME-kv.onnx with a cache, perhaps NAME-f32.gguf for llama.cpp (tests/fullsize makes them).

  speed      peers.py: forge beside the engines that are installed, versions named, one interleaved run per model
  start      bench-start: a .forge file from opening it to its first output, its memory, and two processes that share it
  precision  peers.py: forge with f32, bf16, int8 and int4 weights, OpenVINO in bf16, its default
  gemm       one product alone, M rows, [K,N] weights: percent of the machine's measured bound, one thread
  alpha      attention_gain.py: what fusing attention is worth

A table stands between `<!-- NAME table -->` and `<!-- NAME table end -->`; --write replaces what is between the marks
that the file has, and prints the others. --quick runs everything once or twice: it shows that all works, not how fast.
"""
import argparse, datetime, importlib.util, json, math, os, platform, re, shlex, shutil, statistics, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = os.path.join(HERE, "..", "fullsize", "peers.py")
ENGINES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "llama.cpp": "llama_cpp"}
NAMES = ("gpt2", "smollm2-135m", "granite-350m", "qwen2-0.5b", "llama-3.2-1b", "all-minilm-l6-v2")
PRECISIONS = ("f32", "bf16", "int8", "int4")
ROWS = (1, 8, 32, 128, 512)
WEIGHTS = ((768, 768), (768, 3072), (3072, 768), (2048, 8192), (4096, 4096), (4096, 14336), (14336, 4096))


def installed():
    return [e for e, module in ENGINES.items() if importlib.util.find_spec(module)]


def machine():
    with open("/proc/cpuinfo") as f:
        cpu = re.search(r"model name\s*:\s*(.*)", f.read())
    return (f"{cpu.group(1) if cpu else platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, "
            f"{datetime.date.today()}")


def adapter(a, *options):
    argv = [sys.executable, os.path.join(HERE, "peer.py"), "--forge", os.path.abspath(a.forge)]
    argv += [f"--option={o}" for o in options]
    return (" ".join(map(shlex.quote, argv)) + " {task} {model} --threads {threads} --past {past} --budget {budget} "
            "--warmup {warmup} --iterations {iterations} --cache {cache} --inputs {inputs} --out {out}")


def peers(a, model, engines, commands, tasks, threads, extra=()):
    """The record of one interleaved run."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out.json")
        argv = [sys.executable, PEERS, model, "--engines=" + ",".join(engines), "--tasks=" + tasks, "--threads=" + threads,
                f"--rounds={a.rounds}", f"--budget-seconds={a.budget}", f"--warmup={a.warmup}",
                f"--iterations={a.iterations}", f"--seq={a.seq}", f"--past={a.past}", "--json", out, *extra]
        gguf = model.removesuffix(".onnx") + "-f32.gguf"
        if "llama.cpp" in engines and os.path.exists(gguf):
            argv.append("--gguf=" + gguf)
        for name, command in commands.items():
            argv.append(f"--command={name}={command}")
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        with open(out) as f:
            return json.load(f)


class Record:
    """What peers.py measured, by engine, task and threads."""
    def __init__(self, record):
        self.by = {(r["engine"], r["task"], r["threads"]): r for r in record["results"]}
        self.engines = list(dict.fromkeys(r["engine"] for r in record["results"]))
        for (engine, task, threads), r in self.by.items():  # a peer may lack something; forge may not
            if "error" in r:
                line = f"{record['model']}: {engine}, {task}, {threads} threads: {r['error']}"
                if engine.startswith("forge"):
                    sys.exit("tables.py: " + line)
                print(line, file=sys.stderr)

    def version(self, engine):
        return next((r["version"] for (e, _, _), r in self.by.items() if e == engine and "version" in r), None)

    def value(self, engine, task, threads, *keys):
        v = self.by.get((engine, task, threads))
        for k in keys:
            v = v.get(k) if v else None
        return v

    def cell(self, engine, task, threads, keys, scale, digits):
        values = [self.value(engine, task, n, *keys) for n in threads]
        if not any(values):
            return "-"
        return " / ".join("-" if v is None else f"{v * scale:.{digits}f}" for v in values)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(r) + " |" for r in rows]


def models(a):
    found = [(n, os.path.join(a.models, n + ".onnx")) for n in a.only.split(",")]
    return [(n, path) for n, path in found if os.path.exists(path)]


def short(version):
    """'onnxruntime 1.31.1' of what may have a build's name behind it."""
    return re.sub(r"-\d+-[0-9a-f]+.*", "", version)


def speed(a, records):
    threads = [int(n) for n in a.threads.split(",")]
    measures = (("file to ready, s", "compile", ("compile", "median"), 1, 2), ("prefill, ms", "prefill", ("latency", "p50"), 1e3, 1),
                ("a token, ms", "decode", ("latency", "p50"), 1e3, 1), ("peak memory of the prefill, MiB", "prefill", ("run_peak_kb",), 1 / 1024, 0))
    rows, versions = [], {}
    engines = ["forge"] + installed()
    for name, model in models(a):
        r = Record(peers(a, model, installed(), {"forge": adapter(a)}, "compile,prefill,decode", a.threads))
        records["speed " + name] = {" ".join(map(str, k)): v for k, v in r.by.items()}
        versions.update((e, r.version(e)) for e in r.engines if r.version(e))
        for label, task, keys, scale, digits in measures:
            cells = [r.cell(e, task, threads, keys, scale, digits) for e in engines]
            if any(c != "-" for c in cells):
                rows.append([name, label, *cells])
    head = ["model", f"threads {' / '.join(map(str, threads))}", *(short(versions.get(e, e)) for e in engines)]
    return [f"Prefill of {a.seq} tokens, a token at {a.past} past; medians, f32, caches off ({machine()}).", "", *table(head, rows)]


def precision(a, records):
    threads = a.threads.split(",")[0]
    commands = {f"forge-{p}": adapter(a, "--precision=" + p) for p in PRECISIONS}
    engines = [e for e in installed() if e == "openvino"]
    rows = []
    for name, model in models(a):
        r = Record(peers(a, model, engines, commands, "prefill,decode", threads, ["--ov-precision=bf16"]))
        records["precision " + name] = {" ".join(map(str, k)): v for k, v in r.by.items()}
        for e in r.engines:
            label = "forge " + e.removeprefix("forge-") if e.startswith("forge") else f"{short(r.version(e) or e)}, bf16"
            n = [int(threads)]
            rows.append([name, label, r.cell(e, "prefill", n, ("latency", "p50"), 1e3, 1), r.cell(e, "decode", n, ("latency", "p50"), 1e3, 1),
                         r.cell(e, "prefill", n, ("run_peak_kb",), 1 / 1024, 0)])
    head = ["model", "weights", f"prefill of {a.seq}, ms", f"a token at {a.past}, ms", "peak, MiB"]
    return [f"{threads} thread(s), medians ({machine()}).", "", *table(head, rows)]


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
    flops = [r["pct_peak_flops"] for r in runs]
    if None in flops:
        return "refused"
    # A share of the bandwidth is refused where it is above all: the weights came out of a cache.
    bandwidth = statistics.median(math.inf if r["pct_peak_bandwidth"] is None else r["pct_peak_bandwidth"] for r in runs)
    flops = statistics.median(flops)
    if flops >= min(bandwidth, 85):
        return f"{flops:.0f}"
    return "**above**" if bandwidth == math.inf else f"**{bandwidth:.0f}**"


def gemm(a, records):
    rows = []
    weights = WEIGHTS[:2] if a.quick else WEIGHTS
    with tempfile.TemporaryDirectory() as folder:
        for k, n in weights:
            model, cells = os.path.join(folder, f"{k}x{n}.onnx"), []
            product(model, k, n)
            for m in ROWS:
                argv = [a.forge, "bench", model, f"--dim=M={m}", "--json", "--threads=1", f"--iterations={a.iterations * 4}",
                        f"--warmup={a.warmup}", f"--duration={a.budget / 20}"]
                runs = []
                for _ in range(a.rounds):
                    runs.append(json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout))
                    runs[-1].pop("lat_ms")
                records[f"gemm {m} {k} {n}"] = runs
                cells.append(bound(runs))
            os.unlink(model)
            rows.append([str(k), str(n), *cells])
    return [f"Percent of the FMA peak, or in bold of the bandwidth, measured in the same run (above: more than that, from a "
            f"cache); one thread, f32, medians of {a.rounds} ({machine()}).", "",
            *table(["K", "N", *(f"M = {m}" for m in ROWS)], rows)]


def alpha(a, records):
    argv = [sys.executable, os.path.join(HERE, "attention_gain.py"), a.forge, *(path for _, path in models(a)),
            "--lengths=" + ("128" if a.quick else "128,1024"), f"--iterations={a.iterations}", f"--warmup={a.warmup}"]
    lines = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
    records["alpha"] = lines
    return [f"Everything equal but the fusion of attention ({machine()}).", "", *lines]


def memory(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return {k: int(v) / 1024 for k, v in re.findall(r"^(\w+): +(\d+) kB", f.read(), re.M)}


def start(a, records):
    """bench-start in two processes: the first alone, then both, so that what they share shows."""
    threads, rows = a.threads.split(",")[0], []
    program = os.path.join(os.path.dirname(os.path.abspath(a.forge)), "bench-start")
    with tempfile.TemporaryDirectory() as folder:
        artifact = os.path.join(folder, "model.forge")
        for name, model in models(a):
            subprocess.run([a.forge, "compile", model, "-o", artifact, "--cpu=native", f"--weights={folder}/w/"], check=True)
            seen = []
            for _ in range(1 if a.quick else 5):
                with subprocess.Popen([program, artifact, str(a.seq), threads, str(a.iterations)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
                    r = json.loads(one.stdout.readline())
                    r.update({"resident": memory(one.pid), "weights": sum(e.stat().st_size for e in os.scandir(folder + "/w")) / 2 ** 20})
                    with subprocess.Popen([program, artifact, str(a.seq), threads, "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as two:
                        two.stdout.readline()
                        r["together"] = memory(one.pid)
                        two.stdin.close()
                    one.stdin.close()
                r["beyond_ms"] = r["first_ms"] - r["run_ms"]
                seen.append(r)
            shutil.rmtree(folder + "/w")
            records["start " + name] = seen
            r = sorted(seen, key=lambda x: x["beyond_ms"])[len(seen) // 2]
            rows.append([name, *(f"{r[k]:.1f}" for k in ("open_ms", "first_ms", "run_ms", "beyond_ms")), f"{r['weights']:.0f}",
                         *(f"{r['resident'][k]:.0f}" for k in ("Rss", "Pss_Anon")), f"{r['together']['Pss']:.0f}"])
    head = ["model", "open, ms", "to the first output, ms", "a later run, ms", "first beyond later, ms", "weights in files, MiB", "resident, MiB",
            "of it not a file's, MiB", "share of one of two processes (Pss), MiB"]
    return [f".forge files, {a.seq} tokens, {threads} thread(s), files in the page cache ({machine()}).", "", *table(head, rows)]


TABLES = {"speed": speed, "start": start, "precision": precision, "gemm": gemm, "alpha": alpha}


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
    p.add_argument("--threads", default="1,2")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--budget", type=float, default=20, help="seconds per timed loop")
    p.add_argument("--warmup", type=int, default=10)
    p.add_argument("--iterations", type=int, default=50)
    p.add_argument("--seq", type=int, default=128)
    p.add_argument("--past", type=int, default=128)
    p.add_argument("--quick", action="store_true")
    a = p.parse_args()
    if a.quick:
        a.rounds, a.budget, a.warmup, a.iterations, a.threads = 1, 1, 1, 3, "1"
    unknown = [t for t in a.tables.split(",") if t not in TABLES]
    if unknown:
        p.error(f"no table is called {unknown[0]}: {', '.join(TABLES)}")
    if not models(a) and a.tables != "gemm":
        p.error(f"{a.models} has none of the models {a.only}")
    records = {"machine": machine()}
    for name in a.tables.split(","):
        show(a, name, TABLES[name](a, records))
        if a.json:
            with open(a.json, "w") as f:
                json.dump(records, f, indent=1)


if __name__ == "__main__":
    main()
