#!/usr/bin/env python3
"""What attention fusion alone is worth: each model compiled with alpha 0 and alpha 1, everything else
equal, run in turn in one process. Prints a Markdown table.

    attention_gain.py build/forge gpt2.onnx llama-3.2-1b.onnx [--lengths 128,1024] [--iterations N] [--threads N]
                      [--dims 'batch_size=1,sequence_length={}']
"""
import argparse, json, os, subprocess


def measure(a, model, length):
    argv = [a.forge, "bench", model, "--alpha-sweep=0,1", "--json", f"--dim={a.dims.format(length)}",
            f"--iterations={a.iterations}", f"--warmup={a.warmup}", f"--duration={a.duration}"]
    if a.threads:
        argv.append(f"--threads={a.threads}")
    line = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return json.loads(line)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("forge")
    p.add_argument("models", nargs="+")
    p.add_argument("--lengths", default="128,1024")
    p.add_argument("--dims", default="batch_size=1,sequence_length={}")
    p.add_argument("--iterations", type=int, default=20)
    p.add_argument("--warmup", type=int, default=2)
    p.add_argument("--duration", type=float, default=60)
    p.add_argument("--threads", type=int)
    a = p.parse_args()
    print("| model | tokens | attention fused | kernels | alpha 0, ms | alpha 1, ms | time saved | FGR |")
    print("|---|---|---|---|---|---|---|---|")
    for model in a.models:
        name = os.path.splitext(os.path.basename(model))[0]
        for length in map(int, a.lengths.split(",")):
            r = measure(a, model, length)
            off, on = r["sweep"]
            print(f"| {name} | {length} | {on['attention_fused']} | {off['kernels']} -> {on['kernels']} "
                  f"| {off['p50_ms']:.2f} | {on['p50_ms']:.2f} | {on['gain']:.1%} | {r['fgr']:.3f} |", flush=True)


if __name__ == "__main__":
    main()
