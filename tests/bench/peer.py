#!/usr/bin/env python3
"""Lets peers.py measure forge beside other engines: speaks its protocol, calls `forge bench`.

    peers.py MODEL --command forge='python3 tests/bench/peer.py --forge build/forge {task} {model}
        --threads {threads} --past {past} --budget {budget} --warmup {warmup} --iterations {iterations}
        --cache {cache} --inputs {inputs} --out {out}'

Tasks: compile, prefill, decode; fill and cached: compile with an empty cache, and with what fill left there.
The arrays of the .npz are handed over as .npy files, taken out of the archive as they are.
"""
import argparse, json, os, subprocess, sys, tempfile, zipfile


TASKS = {"compile": "compile", "fill": "compile", "cached": "compile", "prefill": "run", "decode": "decode"}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("task")
    p.add_argument("model")
    p.add_argument("--forge", required=True)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--option", action="append", default=[], help="one more of forge bench")
    p.add_argument("--past", type=int, default=128)
    p.add_argument("--budget", type=float, default=20)
    p.add_argument("--warmup", type=int, default=10)
    p.add_argument("--iterations", type=int, default=50)
    p.add_argument("--cache", nargs="?", default="", const="")
    p.add_argument("--inputs", nargs="?", default="", const="")
    p.add_argument("--out", nargs="?", default="", const="")
    return p.parse_args()


def command(a, folder):
    task = TASKS[a.task]
    argv = [a.forge, "bench", a.model, "--json", "--task=" + task, f"--threads={a.threads}", f"--past={a.past}",
            f"--duration={a.budget}", f"--warmup={a.warmup}", f"--iterations={a.iterations}", *a.option]
    if a.task in ("fill", "cached"):
        argv.append("--cache-dir=" + a.cache)
    if a.inputs and task != "compile":
        with zipfile.ZipFile(a.inputs) as z:
            for i, member in enumerate(z.namelist()):
                path = os.path.join(folder, f"{i}.npy")
                with open(path, "wb") as f:
                    f.write(z.read(member))
                argv.append(f"--input={member.removesuffix('.npy')}=@{path}")
    if a.out and task != "compile":
        argv.append("--out=" + a.out)
    return argv


def main():
    a = arguments()
    if a.task not in TASKS or (a.task in ("fill", "cached") and not a.cache):
        print(json.dumps({"skip": f"no task {a.task}"}))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        p = subprocess.run(command(a, folder), capture_output=True, text=True)
    if p.returncode:
        sys.stderr.write(p.stderr)
        return p.returncode
    r = json.loads(p.stdout.strip().splitlines()[-1])
    out = {"version": "forge " + r["version"], "compile_s": r["compile_ms"] / 1e3, "base_kb": r["base_rss_kb"],
           "compile_peak_kb": r["compile_peak_kb"]}
    if "lat_ms" in r:
        out.update(lat_s=[x / 1e3 for x in r["lat_ms"]], cpu_s=r["cpu_s_per_run"], run_peak_kb=r["run_peak_kb"],
                   note=r.get("refused") or
                   f"{r['pct_peak_flops']:.0f} % of peak FLOP/s, {r['pct_peak_bandwidth']:.0f} % of bandwidth")
        if "energy_j" in r:
            out["energy_j"] = r["energy_j"]
    print(json.dumps(out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
