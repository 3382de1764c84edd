#!/usr/bin/env python3
"""forge tune: what it finds is real, reproduces, and leaves the results as they are.

    tune.py build/forge tests/models
"""
import json, os, sys, tempfile

from checks import Checks

KEYS = {"engine", "version", "model", "task", "seconds", "knobs", "found", "gain", "gain_per_second", "noise", "kernels",
        "rank_correlation", "rank_correlation_fitted", "fitted_gflops", "fitted_gbps", "fitted_start_us", "trials"}
VERDICTS = {"taken", "not faster", "not surely faster", "ruled out by the cost model", "other results"}


def tune(c, model, kept, *options):
    p = c.run("tune", model, "--duration=4", "--json", "-o", kept, *options)
    name = os.path.basename(os.path.dirname(model))
    c.expect(p.returncode == 0 and not p.stderr and p.stdout.count("\n") == 1, f"{name}: tune: {p.stderr}")
    if p.returncode:
        return
    r = json.loads(p.stdout)
    c.expect(KEYS <= set(r), f"{name}: keys {KEYS - set(r)}")
    c.expect(r["seconds"] < 60 and r["kernels"] > 0, f"{name}: bounded in time")
    c.expect(all(-1 <= r[k] <= 1 for k in ("rank_correlation", "rank_correlation_fitted")), f"{name}: rank correlation")
    c.expect(len(r["trials"]) <= 6 and {t["verdict"] for t in r["trials"]} <= VERDICTS, f"{name}: trials")
    c.expect(all(t["wins"] > t["pairs"] / 2 and t["gain"] > max(0.01, 2 * r["noise"])
                 for t in r["trials"] if t["verdict"] == "taken"), f"{name}: only what is surely faster is taken")
    taken = any(t["verdict"] == "taken" for t in r["trials"])
    c.expect(taken or not r["found"], f"{name}: nothing taken, nothing found")
    c.expect(r["found"] == (r["gain"] > 0) and abs(r["gain_per_second"] * r["seconds"] - r["gain"]) < 1e-9, f"{name}: gain")
    with open(kept) as f:
        c.expect(f.read() == r["knobs"] + "\n", f"{name}: -o writes the knobs")


def main():
    c, models = Checks(sys.argv[1]), sys.argv[2]
    model = lambda name: os.path.join(models, name, "model.onnx")
    with tempfile.TemporaryDirectory() as folder:
        kept, report = os.path.join(folder, "knobs"), os.path.join(folder, "report.json")
        for name, options in (("gpt2-ts17", ["--trials=6"]), ("gpt2-kv-ts17", ["--trials=3", "--task=decode", "--past=8"]),
                              ("llama-int4-matmulnbits", ["--trials=3", "--threads=1"])):
            tune(c, model(name), kept, *options)
            data = os.path.join(models, name, "test_data_set_0")
            p = c.run("run", model(name), "--test-data=" + data, "--knobs=@" + kept, "--cache-dir=none", "--report=" + report)
            c.expect(p.returncode == 0 and "worst error" in p.stdout, f"{name}: runs with its knobs: {p.stderr}")
            with open(report) as f, open(kept) as g:
                c.expect(g.read().startswith(json.load(f)["knobs"]), f"{name}: the knobs make the build they name")
        text = c.run("tune", model("bert-ts17"), "--duration=1", "--trials=2").stdout
        c.expect("rank correlation" in text and "--passes=" in text.splitlines()[-1], "as text, knobs last")
        for options in (["--trials=0"], ["--duration=0"], ["--task=compile"]):
            c.expect(c.run("tune", model("bert-ts17"), *options).returncode == 2, f"tune {options} is refused")
        c.expect(c.run("tune", os.path.join(folder, "a.forge")).returncode == 2, "a .forge file is not tuned")
        c.expect(c.run("tune", os.path.join(folder, "none.onnx")).returncode == 1, "a model that is not there")
    return c.done()


if __name__ == "__main__":
    sys.exit(main())
