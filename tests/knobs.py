#!/usr/bin/env python3
"""Knobs change how fast a model runs and never what comes out.

    knobs.py build/forge tests/models [--draws N] [--seed N]

Random knob strings on some models, whose stored outputs they are compared with; every bound of
every knob once; the string that a report holds reproduces its build; caches and .forge files
know knobs apart.
"""
import argparse, json, os, random, sys, tempfile

from checks import Checks

MODELS = ("gpt2-ts17", "bert-ts17", "llama-int4-matmulnbits", "gpt2-kv-ts17", "vit-ts17", "whisper-encoder-ts17",
          "bert-qdq-static-int8", "llama32-fp16-ts17")
CPUS = ("native", "x86-64-v3", "x86-64-v2")


class Builds(Checks):
    def right(self, folder, *options):
        """The model's stored outputs come out."""
        p = self.run("run", os.path.join(folder, "model.onnx"), "--test-data=" + os.path.join(folder, "test_data_set_0"),
                     "--cache-dir=none", *options)
        self.expect(p.returncode == 0 and "worst error" in p.stdout,
                    f"{os.path.basename(folder)} {' '.join(options)}: {p.stderr.strip() or p.returncode}")


def knobs(c):
    """Name, least, most, default of each, as the tool lists them."""
    rows = c.run("dump", "--list-passes").stdout.split("| --codegen |")[1].splitlines()[2:]
    cells = [[x.strip() for x in row.split("|")[1:-1]] for row in rows if row.startswith("|")]
    return [(r[0], int(r[1]), int(r[2]), int(r[3]), "power" if r[0] == "vectors" else "") for r in cells]


def draw(rng, table):
    words = []
    for name, lo, hi, _, kind in table:
        if rng.random() < 0.6:
            words.append(f"{name}={rng.choice((0, 1, 2, 4)) if kind else rng.choice((lo, hi, rng.randint(lo, hi)))}")
    options = [f"--codegen={','.join(words)}"] if words else []
    if rng.random() < 0.4:
        options.append(f"--passes=dce,cse,fold,fuse_attention,layout,quantize,dce,states,pack,fuse_ops{{size={rng.randint(1, 63)}}}")
    if rng.random() < 0.3:
        options.append("--skip=pack")
    return " ".join(options + [f"--threads={rng.randint(1, 3)}", "--cpu=" + rng.choice(CPUS)])


def messages(c, model):
    for text, message in (("rowz=4", "--codegen:1:1: no knob is called \"rowz\"; did you mean \"rows\"?"),
                          ("few=2,rows=99", "--codegen:1:7: rows is a number from 4 to 8"), ("rows", "rows is a number"),
                          ("vectors=3", "a power of two"), ("rows=5;few=2", "rows is a number")):
        p = c.run("run", model, "--codegen=" + text)
        c.expect(p.returncode == 2 and message in p.stderr and p.stderr.count("\n") == 1, f"--codegen={text}: {p.stderr!r}")
    for text in ("rows=5", "--knobs=x", "--iterations=3", "-O7"):
        c.expect(c.run("bench", model, "--knobs=" + text).returncode == 2, f"--knobs={text} is refused")
    c.expect(c.run("run", model, "--knobs=@/nowhere/at/all").returncode == 1, "a file of knobs that is not there")


def build(c, folder, home):
    """From a report, through a file, to the same machine code; other knobs, other code."""
    model, report, kept = os.path.join(folder, "model.onnx"), os.path.join(home, "r.json"), os.path.join(home, "knobs")
    given = ["--codegen=rows=5,few=3", "--skip=pack", "--dim=batch=2", "--dim=sequence=16"]
    text = c.run("dump", model, "--stage=asm", *given).stdout
    c.run("run", model, "--random=1", "--report=" + report, *given)
    with open(report) as f:
        words = json.load(f)["knobs"]
    with open(kept, "w") as f:
        f.write(words + "\n")
    c.expect("--codegen=rows=5,few=3 --dim=batch=2,sequence=16 " in words and "pack" not in words, "the report has the knobs: " + words)
    c.expect(text and c.run("dump", model, "--stage=asm", "--knobs=@" + kept).stdout == text, "a report's knobs make the same code")
    c.expect(c.run("dump", model, "--stage=asm", *given[1:]).stdout != text, "knobs change the code")
    cache = os.path.join(home, "cache")
    for options in ([], ["--codegen=rows=5"], ["--codegen=rows=5"], ["--codegen=rows=4"]):
        c.run("run", model, "--random=1", "--cache-dir=" + cache, *options)
    c.expect(len(os.listdir(cache)) == 3, "the cache keeps builds of different knobs apart")
    files = [os.path.join(home, n) for n in ("a.forge", "b.forge", "c.forge")]
    for path, options in zip(files, (["--knobs=@" + kept], ["--cpu=native", *given], ["--cpu=native"])):
        p = c.run("compile", model, "-o", path, *options)
        c.expect(p.returncode == 0, "compile with knobs: " + p.stderr)
    a, b, other = (open(f, "rb").read() for f in files)
    c.expect(a == b and a != other, "a .forge file is made with the knobs")
    c.expect(c.run("run", files[0], "--random=1").returncode == 0, "and runs")
    c.expect(c.run("run", files[0], "--codegen=rows=5").returncode == 2, "what is compiled takes no knobs")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("forge")
    p.add_argument("models")
    p.add_argument("--draws", type=int, default=24)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    c, rng = Builds(a.forge), random.Random(a.seed)
    table = knobs(c)
    c.expect(len(table) > 5, "the tool lists its knobs")
    first = os.path.join(a.models, MODELS[0])
    for name, lo, hi, dflt, kind in table:
        for v in {lo, hi} - {dflt}:
            c.right(first, f"--codegen={name}={v}")
    for k in range(a.draws):
        c.right(os.path.join(a.models, MODELS[k % len(MODELS)]), "--knobs=" + draw(rng, table))
    messages(c, os.path.join(first, "model.onnx"))
    with tempfile.TemporaryDirectory() as home:
        build(c, first, home)
    return c.done()


if __name__ == "__main__":
    sys.exit(main())
