#!/usr/bin/env python3
"""The command line as others rely on it: exit codes, one line of message, what stdout carries.

    cli.py build/forge tests/models
"""
import json, os, stat, subprocess, sys, tempfile

from checks import Checks

REPORT = {"model", "version", "target", "ms_total", "phases", "passes", "nodes", "attention", "fusions", "buffers",
          "placement", "weights", "fgr", "cost_alpha0", "cost_alpha1", "kernels"}
BENCH = {"engine", "version", "model", "task", "threads", "compile_ms", "load_ms", "first_ms", "lat_ms", "p50_ms",
         "p90_ms", "p99_ms", "cpu_s_per_run", "base_rss_kb", "compile_peak_kb", "run_peak_kb", "gflops", "gbps",
         "pct_peak_flops", "pct_peak_bandwidth"}


class Commands(Checks):
    def run(self, code, *argv, message=None):
        """Runs forge; its exit code, and one line of message when it fails, are checked. Returns stdout."""
        p = super().run(*argv)
        name = " ".join(os.path.basename(a) for a in argv)
        self.expect(p.returncode == code, f"{name}: exit {p.returncode}, expected {code}: {p.stderr.strip()}")
        if code:
            one = p.stderr.count("\n") == 1 and p.stderr.startswith("forge: ") and p.stderr[:-1].isprintable()
            self.expect(one, f"{name}: the message is not one line: {p.stderr!r}")
            self.expect(not message or message in p.stderr, f"{name}: no {message!r} in {p.stderr!r}")
        else:
            self.expect(not p.stderr, f"{name}: says {p.stderr!r}")
        return p.stdout


def usage(c, model):
    c.expect("run" in c.run(0, "--help") and "--threads" in c.run(0, "run", "--help"), "help names verbs and options")
    c.run(0, "--version")
    for argv in ([], ["fly"], ["run"], ["run", model, "--fly"], ["run", model, "-O9"], ["run", model, model],
                 ["run", model, "--precision=int9"], ["run", model, "--accuracy=none"],
                 ["run", model, "--threads=two"], ["run", model, "--alpha=2"], ["run", model, "--target=moon"],
                 ["bench", model, "--task=sleep"], ["compile"],
                 ["compile", model, "--weights=moon"]):
        c.run(2, *argv)


def texts(c, model, data, folder):
    """Text of any stage is a model; what is wrong with text or a list of passes has its place marked."""
    home = os.path.dirname(model)
    for stage in ("import", "opt", "fused", "placed"):
        with tempfile.NamedTemporaryFile("w", suffix=".fir", dir=home) as f:  # weights are named relative to it
            f.write(c.run(0, "dump", model, "--stage=" + stage))
            f.flush()
            c.expect("worst error" in c.run(0, "run", f.name, "--test-data=" + data), f"{stage} as text runs")
            if stage in ("fused", "placed"):
                c.run(1, "dump", f.name, "--passes=dce", message="passes:1:1: pass dce needs stage tensor")
                c.run(1, "dump", f.name, "--stage=opt", message="stage opt is behind this text")
    fir = os.path.join(folder, "bad.fir")
    for text, place in (("func @main(%x: f32[2]) -> f32[2] {\n  %y = nag %x : f32[2]\n  ret %y\n}\n", ":2:8: "),
                        ("func @main(%x: f32[2]) -> f32[2] {\n  %y = neg %z : f32[2]\n  ret %y\n}\n", ":2:12: "),
                        ("func @main(%x: f32[2]) -> f32[2] {\n", ":2:1: "), ("\n\nfunk", ":3:1: ")):
        with open(fir, "w") as f:
            f.write(text)
        for verb in ("opt", "dump", "run"):
            c.run(1, verb, fir, message="bad.fir" + place)
    for passes, message in (("dce,csee", "--passes:1:5: no pass is called \"csee\"; did you mean \"cse\"?"),
                            ("dce;cse", "--passes:1:4: expected a comma"), ("fold{bites=1}", "--passes:1:6: "),
                            ("fold{bytes=-1}", "--passes:1:12: bytes is a number from 0"), ("fold{bytes=1", "--passes:1:13: "),
                            ("fuse_ops,dce", "--passes:1:10: pass dce needs stage tensor, but the module is at stage fused")):
        for verb in ("run", "dump", "opt"):
            c.run(2, verb, model, "--passes=" + passes, message=message)
    c.run(2, "dump", model, "--skip=flod", message="--skip:1:1: no pass is called \"flod\"; did you mean \"fold\"?")
    c.run(2, "dump", model, "--explain=fuse", message="--explain:1:1: ")


def views(c, model):
    explained = c.run(0, "dump", model, "--explain")
    c.expect("fused: attention" in explained and "missed: fuse_ops: " in explained, "--explain names what was fused and what was not")
    shown = json.loads(c.run(0, "dump", model, "--json", "--explain=fuse_ops"))["explain"]["missed"]
    c.expect(shown and all(m["pass"] == "fuse_ops" and m["reason"] for m in shown), "--explain=PASS is of that pass")
    node = shown[0]["node"].split('"')[1]
    text = c.run(0, "dump", model, "--node=" + node)
    c.expect(text.startswith(f'node "{node}"') and "import " in text and "kernel " in text and "buffer " in text and
             "missed by fuse_ops" in text, "--node tells import, passes, kernel, buffer, misses")
    c.run(1, "dump", model, "--node=nobody", message='no node is called "nobody"')
    c.run(1, "dump", model, "--node=MatMul", message="nodes have \"MatMul\" in their name")
    c.expect("--threads" in c.run(0, "dump", "-h"), "-h is --help")
    c.expect(c.run(0, "bench", "--version") == c.run(0, "--version"), "every verb has --version")
    c.run(2, "rnu", message="did you mean run")
    c.run(2, "run", model, "--trheads=1", message="did you mean --threads")
    c.run(2, "dump", model, "--stage=optt", message="did you mean opt")


def faults(c, model, data, folder):
    c.run(1, "run", os.path.join(folder, "none.onnx"), message="none.onnx")
    c.run(1, "run", folder)
    odd = os.path.join(folder, "odd\nname\x1b.onnx")
    with open(odd, "wb") as f:
        f.write(b"\x08\x07garbage")
    c.run(1, "run", odd)
    c.run(1, "check", odd)
    c.run(1, "run", model, "--cpu=abacus", message="abacus")
    c.expect("fmla" in c.run(0, "dump", model, "--stage=asm", "--cpu=aarch64"), "what only is looked at may be for any machine")
    c.run(0, "dump", model, "--json", "--cpu=aarch64")
    c.run(1, "run", model, "--cpu=aarch64", message="another kind of machine")
    c.run(1, "run", model, message="input")
    c.run(1, "run", model, "--input=none=i64=1", message="none")
    c.run(1, "run", model, "--test-data=" + folder)
    c.run(1, "run", model, "--dim=sequence=3", "--test-data=" + data, message="dimension")
    c.run(1, "run", model, "--dim=sequence=1..9..4", message="MIN..USUAL..MAX")
    plans = [c.run(0, "dump", model, "--plan", f"--dim=sequence=1..{n}..64") for n in (2, 60)]
    c.expect(plans[0] != plans[1], "the usual size is what is planned for")
    for wrong in ("sequence", "sequence=", "1", "batch=1+2", "batch=1,", "batch=1+", "=1", "batch=1+,sequence=2",
                  ",".join(["batch=1"] * 17)):
        c.run(2, "run", model, "--variants=" + wrong, message="variants")
    c.run(1, "run", model, "--variants=length=1", message="there is: batch, sequence")
    c.run(1, "run", model, "--variants=sequence=65", message="out of its bounds")
    c.run(1, "run", model, "--variants=batch=1", "--dim=batch=1", message="already")
    c.run(3, "run", model, "--atol=0", "--rtol=0", "--test-data=" + data, message="differ")


def outputs(c, model, folder):
    """What has the name of an output is replaced only if it is a file; a link stays one."""
    path, link, pipe = (os.path.join(folder, n) for n in ("out.forge", "link", "pipe"))
    c.run(0, "compile", model, "-o", path)
    with open(path, "rb") as f:
        want = f.read()
    os.unlink(path)
    os.symlink("out.forge", link)
    for there in (False, True):
        c.run(0, "compile", model, "-o", link if there else path)
        with open(path, "rb") as f:
            c.expect(f.read() == want and os.path.islink(link), "through a link")
    os.mkfifo(pipe)
    for argv in (["compile", model, "-o", pipe], ["compile", model, "--emit=ll", "-o", pipe], ["dump", model, "--html=" + pipe]):
        with tempfile.TemporaryFile() as f:
            reader = subprocess.Popen(["cat", pipe], stdout=f)
            c.run(0, *argv)
            reader.wait(timeout=60)
            f.seek(0)
            got = f.read()
        c.expect(len(got) > 1000 and (argv[-1] != pipe or len(argv) > 4 or got == want), "into a pipe")
        c.expect(stat.S_ISFIFO(os.stat(pipe).st_mode), "a pipe stays a pipe")
    for kind in ("obj", "lib"):
        c.run(2, "compile", model, "--emit=" + kind, "-o", pipe, message="is not a regular file")
    c.run(1, "run", model, "--random=1", "--record=" + pipe, message="is not a regular file")


def results(c, model, data, folder):
    report, out = os.path.join(folder, "report.json"), os.path.join(folder, "out.npy")
    c.run(0, "check", model)
    c.expect("worst error" in c.run(0, "run", model, "--test-data=" + data, "--report=" + report), "worst error is printed")
    with open(report) as f:
        c.expect(REPORT <= set(json.load(f)), "the report has every key")
    for cpu in ("x86-64-v3", "aarch64"):
        c.run(0, "compile", model, "-o", os.path.join(folder, "m.forge"), "--cpu=" + cpu, "--report=" + report)
        with open(report) as f:
            r = json.load(f)
        c.expect(r["ms_total"] > 0 and r["target"] == "cpu:" + cpu, "a report for " + cpu + ", with the times it took")
    outputs = json.loads(c.run(0, "run", model, "--random=1", "--json"))["outputs"]
    again = json.loads(c.run(0, "run", model, "--random=1", "--json", "--threads=2"))["outputs"]
    c.expect(outputs == again, "the same seed gives the same bits on any number of threads")
    c.run(0, "run", model, "--random=1", f"--output={outputs[0]['name']}=@{out}")
    with open(out, "rb") as f:
        c.expect(f.read(6) == b"\x93NUMPY", "outputs are written as .npy")
    line = c.run(0, "bench", model, "--json", "--iterations=3", "--warmup=1", "--threads=1")
    c.expect(line.count("\n") == 1 and BENCH <= set(json.loads(line)), "bench prints one line with every key")
    timed = json.loads(c.run(0, "bench", model, "--json", "--iterations=3", "--kernels"))
    rows, peaks = timed["kernels"], (timed["peak_gflops"], timed["peak_gbps"])
    c.expect(rows and all(k["us"] > 0 and k["name"] for k in rows) and min(peaks) > 0, "bench --kernels --json has every kernel")
    c.expect(all(x is None or 0 <= x <= 100 for k in rows + [timed] for x in (k["pct_peak_flops"], k["pct_peak_bandwidth"])) and
             all(("refused" in k) == (None in (k["gflops"], k["gbps"])) for k in rows + [timed]),
             "no rate is above the machine's peak: it is refused, and why is said")
    c.expect(timed["p50_ms"] <= timed["p90_ms"] <= timed["p99_ms"] <= max(timed["lat_ms"]), "percentiles are in order")
    line = c.run(0, "bench", model, "--task=compile", "--json")
    c.expect(json.loads(line)["compile_ms"] > 0, "bench --task=compile")
    sweep = json.loads(c.run(0, "bench", model, "--alpha-sweep=0,1", "--json", "--iterations=3", "--warmup=1"))["sweep"]
    c.expect([p["attention_fused"] > 0 for p in sweep] == [False, True] and
             sweep[0]["nodes"] > sweep[1]["nodes"] and sweep[0]["cost"] > sweep[1]["cost"] and
             all(p["p50_ms"] > 0 and p["cei"] > 0 for p in sweep), "bench --alpha-sweep: alpha 1 fuses, and costs less")
    c.expect(c.run(0, "bench", model, "--alpha-sweep", "--task=compile").count("\n") == 7, "the usual alphas, one a line")
    c.run(2, "bench", model, "--alpha-sweep=0,3")
    c.expect(json.loads(c.run(0, "devices", "--json"))["devices"][0]["gflops"] > 0, "devices measures a peak")


def peaks(c, model):
    """Kernels are held against the peak of their own arithmetic and memory."""
    for kind in ("f32", "bf16", "int8"):
        r = json.loads(c.run(0, "bench", model, "--json", "--iterations=1", "--kernels", "--precision=" + kind))
        c.expect({k["math"] for k in r["kernels"]} == {"f32", kind}, f"products of {kind} are named")
        c.expect({k["memory"] for k in r["kernels"]} <= {"L1", "L2", "L3", "memory"} and
                 set(r["peaks"]) == {"f32", "bf16", "int8", "L1", "L2", "L3", "memory"} and min(r["peaks"].values()) > 0,
                 f"{kind}: the memory that bytes lie in is named, and every peak told")


def replay(c, model, data, folder):
    """A run in a file comes out the same; what is changed in it is found; what is no record is refused."""
    path, other = os.path.join(folder, "run.record"), os.path.join(folder, "other.record")
    c.run(0, "run", model, "--test-data=" + data, "--record=" + path)
    again = c.run(0, "run", model, "--replay=" + path, "--threads=2")
    c.expect("kernels: the same" in again and "last_hidden_state: the same" in again, "a run again, kernel by kernel")
    with open(path, "rb") as f:
        whole = f.read()
    at = whole.index(b"\nstep ", whole.index(b"\nstep ") + 1) + 6
    for changed, said in ((whole[:at] + (b"1" if whole[at:at + 1] == b"0" else b"0") + whole[at + 1:], "kernel 2 of "),
                          (whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:], "recorded was ")):
        with open(other, "wb") as f:
            f.write(changed)
        c.expect(said in c.run(3, "run", model, "--replay=" + other, message="not the same"), f"says {said!r}")
    for cut in (0, 14, 200, at, len(whole) // 2, len(whole) - 3):
        with open(other, "wb") as f:
            f.write(whole[:cut])
        c.run(1, "run", model, "--replay=" + other, message="not a record of a run, or damaged")
    c.run(1, "run", model, "--replay=" + os.path.join(folder, "none"), message="No such file")
    c.run(0, "run", model, "--test-data=" + data, "--record=" + path, "--skip=fuse_attention,pack")
    c.expect("kernels: the same" in c.run(0, "run", model, "--replay=" + path), "compiled as it was recorded")
    c.run(3, "run", model, "--replay=" + path, "--knobs=-O1", message="not the same")
    with open(path, "rb") as f:
        whole = f.read()
    at = whole.index(b"--passes=")
    with open(other, "wb") as f:
        f.write(whole[:at] + b"--report=" + whole[at + 9:])
    c.run(3, "run", model, "--replay=" + other, message="not the same")
    c.run(1, "run", model, "--test-data=" + data, "--record=" + os.path.join(folder, "none", "x"), message="No such file")


def decode(c, model):
    line = json.loads(c.run(0, "bench", model, "--task=decode", "--past=5", "--json", "--iterations=40", "--warmup=0"))
    c.expect(len(line["lat_ms"]) == 40, "decode goes past the reset of its cache")


def diff(c, model, data, folder):
    out = os.path.join(folder, "reduced.fir")
    c.expect("none is wrong" in c.run(0, "diff", model, "--test-data=" + data), "diff finds nothing")
    found = json.loads(c.run(0, "diff", model, "--random=1", "--json"))
    c.expect({"name", "type", "nodes", "differ", "ulp", "relative", "wrong"} <= set(found["registers"][0])
             and "first_wrong" not in found, "diff --json lists the registers")
    # Without tolerance, what rounds otherwise is wrong: a way to see the search at work.
    exact = ["--atol=0", "--rtol=0", "--random=1"]
    c.run(3, "diff", model, *exact, message="the passes change output")
    c.run(3, "diff", model, *exact, "--bisect", "-o", out, message="pass ")
    with open(out) as f:
        c.expect(f.read().startswith("; RUN: --pass="), "the reduced test names its pass")
    c.run(0, "opt", out)
    c.run(3, "diff", out, *exact, "--passes=fuse_ops", message="the first that goes wrong")
    c.run(1, "diff", model, message="has no data")
    c.run(1, "diff", os.path.join(folder, "none.onnx"), message="none.onnx")
    for argv in ([], [model, "-o", out], [model, "--fly"], ["x.forge"]):
        c.run(2, "diff", *argv)


def main():
    c, models = Commands(sys.argv[1]), sys.argv[2]
    model = os.path.join(models, "bert-ts17", "model.onnx")
    data = os.path.join(models, "bert-ts17", "test_data_set_0")
    with tempfile.TemporaryDirectory() as folder:
        usage(c, model)
        faults(c, model, data, folder)
        results(c, model, data, folder)
        os.mkdir(os.path.join(folder, "outputs"))
        outputs(c, model, os.path.join(folder, "outputs"))
        peaks(c, os.path.join(models, "gpt2-ts17", "model.onnx"))
        replay(c, model, data, folder)
        diff(c, model, data, folder)
        texts(c, model, data, folder)
        views(c, model)
    for name in ("gpt2-kv-ts17", "llama-genai-gqa", "lfm2-kv-ts17", "llama-op23"):
        decode(c, os.path.join(models, name, "model.onnx"))
    one = c.run(0, "dump", os.path.join(models, "gpt2-kv-ts17", "model.onnx"), "--dim=sequence=1")
    c.expect("= append" in one, "one token at a time: the cache stays in place")
    c.run(1, "bench", model, "--task=decode", message="KV cache")
    return c.done()


if __name__ == "__main__":
    sys.exit(main())
