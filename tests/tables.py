#!/usr/bin/env python3
"""tests/bench/tables.py measures, and writes its tables between their marks; what fails is told, not written.

    tables.py build/forge tests/models
"""
import json, os, re, shutil, subprocess, sys, tempfile

from checks import Checks

TABLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench", "tables.py")
PAGE = "before\n<!-- speed table -->\nstale\n<!-- speed table end -->\nbetween\n<!-- gemm table -->\n<!-- gemm table end -->\nafter\n"


def run(forge, *options):
    return subprocess.run([sys.executable, TABLES, forge, "--quick", "--seq=8", "--past=8", *options], capture_output=True,
                          text=True, timeout=600)


def main():
    forge, models = sys.argv[1], sys.argv[2]
    c = Checks()
    with tempfile.TemporaryDirectory() as folder:
        for made, of in (("tiny", "gpt2-ts17"), ("tiny-kv", "gpt2-kv-ts17")):
            shutil.copy(os.path.join(models, of, "model.onnx"), os.path.join(folder, made + ".onnx"))
        page, record = os.path.join(folder, "page.md"), os.path.join(folder, "record.json")
        with open(page, "w") as f:
            f.write(PAGE)
        tiny = ["--models=" + folder, "--only=tiny"]
        p = run(forge, *tiny, "--tables=speed,precision,steady,gemm", "--write=" + page, "--json=" + record)
        c.expect(p.returncode == 0, "all tables: " + p.stderr[-500:])
        with open(page) as f:
            text = f.read()
        c.expect(text.startswith("before\n<!-- speed table -->\n") and text.endswith("<!-- gemm table end -->\nafter\n") and
               "\nbetween\n" in text and "stale" not in text, "what is around the marks stays")
        c.expect(re.search(r"\| tiny \| prefill, ms \| [0-9.]+ ", text) and re.search(r"\| tiny \| a token, ms \| [0-9.]+ ", text) and
               re.search(r"\| tiny \| file to ready, s \| [0-9.]+ ", text), "forge is in the table of speed")
        c.expect(re.search(r"\| model \| threads 1 / 2 \| forge [0-9.]+ ", text), "versions are named")
        c.expect(re.search(r"\| 768 \| 768 \|( (?:\**[0-9]+\**|refused) / - \|){5}", text), "percent of the bound at five heights")
        c.expect(len(re.findall(r"\| tiny \| forge \| (?:f32|bf16|int8|int4) \| [0-9.]+ / - \| [0-9.]+ ", p.stdout)) == 4,
               "a table without marks is printed")
        c.expect(all(f"| tiny, {what}, x1 | 3 | " in p.stdout for what in ("prefill", "a token")), "and one of how even runs are")
        with open(record) as f:
            kept = json.load(f)
        c.expect({"forge prefill 1", "forge decode 1"} <= set(kept["speed"]["tiny"]) and "768x768 1 1" in kept["gemm"],
                 "what was measured is kept")
        p = run(forge, "--models=" + folder, "--only=", "--tables=speed", "--json=" + record)
        c.expect(p.returncode == 0 and "| tiny | prefill, ms | " in p.stdout, "and shown again without measuring: " + p.stderr[-500:])
        p = run("/bin/false", *tiny, "--tables=precision")
        c.expect(p.returncode == 1 and "tables.py: tiny.onnx: forge-f32" in p.stderr, "a failure ends it: " + p.stderr[-500:])
        for options in ([*tiny, "--tables=none"], ["--models=" + folder]):
            c.expect(run(forge, *options).returncode == 2, f"{options} is refused")
    return c.done()


if __name__ == "__main__":
    sys.exit(main())
