#!/usr/bin/env python3
"""Runs every model of some folders against its stored outputs.

    models.py build/forge tests/models [FOLDER..] [--filter REGEX] [--levels 0,1] [--jobs N] [--once]

Each data set of each model runs at each level with one and with two threads. All must be within
the tolerance (index.json may widen the default one), both thread counts must give
the same bits, and at the default level every attention block must be fused that index.json counts.
--once: one data set, at the default level, with two threads.
"""
import argparse, concurrent.futures, glob, json, os, re, subprocess, sys, tempfile


def run(forge, model, options):
    p = subprocess.run([forge, "run", model, "--json", *options], capture_output=True, text=True, timeout=300)
    digests = []
    if p.stdout.startswith("{"):
        digests = [o.get("digest") for o in json.loads(p.stdout)["outputs"]]
    return p.returncode, p.stderr.strip(), digests


def check_set(args, folder, entry, data, level, report):
    """Messages of what is wrong; none when all is well."""
    model = os.path.join(folder, "model.onnx")
    name = f"{os.path.basename(folder)} {os.path.basename(data)} -O{level}"
    options = [f"-O{level}", "--test-data=" + data]
    options += [f"--{key}={entry[key]}" for key in ("atol", "rtol") if key in entry]
    bad, bits = [], []
    for threads in (2,) if args.once else (1, 2):
        code, message, digests = run(args.forge, model, [*options, f"--threads={threads}", "--report=" + report])
        bits.append(digests)
        if code:
            bad.append(f"{name} --threads={threads}: exit {code}: {message}")
    if not bad and bits[0] != bits[-1]:
        bad.append(f"{name}: one and two threads give different bits")
    return bad


def check_model(args, folder, entry):
    bad, level = [], None
    with tempfile.TemporaryDirectory() as scratch:
        report = os.path.join(scratch, "report.json")
        for level in ["1"] if args.once else args.levels.split(","):
            for data in sorted(glob.glob(os.path.join(folder, "test_data_set_*")))[:1 if args.once else None]:
                bad += check_set(args, folder, entry, data, level, report)
            if bad or level != "1" or "n_attention" not in entry or not os.path.exists(report):
                continue
            with open(report) as f:
                attention = json.load(f)["attention"]
            if attention["fused"] != entry["n_attention"] or attention["missed"]:
                bad.append(f"{os.path.basename(folder)}: {attention['fused']} attention blocks fused of "
                           f"{attention['candidates']}, expected {entry['n_attention']}: {attention['missed']}")
    return bad


def models(root, pattern):
    """(folder, its entry in index.json) for each model under root that has test data."""
    index, path = {}, os.path.join(root, "index.json")
    if os.path.exists(path):
        with open(path) as f:
            index = {e["name"]: e for e in json.load(f)}
    for model in sorted(glob.glob(os.path.join(root, "*", "model.onnx"))):
        folder = os.path.dirname(model)
        if re.search(pattern, os.path.basename(folder)) and glob.glob(os.path.join(folder, "test_data_set_*")):
            yield folder, index.get(os.path.basename(folder), {})


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("forge")
    p.add_argument("folders", nargs="+")
    p.add_argument("--filter", default="")
    p.add_argument("--levels", default="0,1")
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--once", action="store_true")
    args = p.parse_args()
    todo = [m for root in args.folders for m in models(root, args.filter)]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for bad in pool.map(lambda m: check_model(args, *m), todo):
            failed += bool(bad)
            for line in bad:
                print(line)
    print(f"{len(todo) - failed} passed, {failed} failed")
    return 1 if failed or not todo else 0


if __name__ == "__main__":
    sys.exit(main())
