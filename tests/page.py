#!/usr/bin/env python3
"""forge dump --html in headless Chromium: something is drawn, names of a model cannot inject, nothing is
fetched.

    page.py build/forge tests/models [FOLDER]      screenshots are left in FOLDER
"""
import os, re, struct, subprocess, sys, tempfile, zlib
import numpy as np
import onnx
from onnx import TensorProto, helper

from checks import Checks

HOSTILE = ['</script><script>document.title="taken"</script>', '<img src=x onerror=document.title="taken">',
           '"\'`${document.title="taken"}`', "]]><!--", "\u2028\u2029&lt;b&gt;", "x" * 400]


def read_png(path):
    """Pixels of an 8-bit RGB or RGBA file."""
    data = open(path, "rb").read()
    at, body = 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        part = data[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, height, _, colour = struct.unpack(">IIBB", part[:10])
        elif kind == b"IDAT":
            body += part
        at += 12 + size
    each = {2: 3, 6: 4}[colour]
    rows = np.frombuffer(zlib.decompress(body), np.uint8).reshape(height, 1 + width * each)
    out = np.zeros((height + 1, width + 1, each), np.int64)  # a row above and a pixel to the left are 0
    for y in range(height):
        kind, line = rows[y, 0], rows[y, 1:].reshape(width, each).astype(np.int64)
        up = out[y, 1:]
        if kind == 0:
            out[y + 1, 1:] = line
        elif kind == 1:
            out[y + 1, 1:] = np.cumsum(line, axis=0) % 256
        elif kind == 2:
            out[y + 1, 1:] = (line + up) % 256
        else:
            row, left, corner = out[y + 1], np.zeros(each, np.int64), np.zeros(each, np.int64)
            for x in range(width):
                a, b, c = left, up[x], corner
                if kind == 3:
                    guess = (a + b) // 2
                else:
                    pa, pb, pc = abs(b - c), abs(a - c), abs(a + b - 2 * c)
                    guess = np.where((pa <= pb) & (pa <= pc), a, np.where(pb <= pc, b, c))
                left, corner = (line[x] + guess) % 256, b
                row[x + 1] = left
    return out[1:, 1:, :3]


def chromium(*options):
    with tempfile.TemporaryDirectory() as profile:
        return subprocess.run(["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                               "--user-data-dir=" + profile, "--virtual-time-budget=4000", *options],
                              capture_output=True, text=True, timeout=180)


def drawn(page, picture, hash=""):
    """How much of the picture is neither ground nor panel nor line, and how many colours there are."""
    chromium("--window-size=1200,1000", "--screenshot=" + picture, "file://" + page + hash)
    pixels = read_png(picture)
    colours, counts = np.unique(pixels.reshape(-1, 3) @ [65536, 256, 1], return_counts=True)
    return 1 - np.sort(counts)[-4:].sum() / counts.sum(), len(colours)


def is_page(shown):
    return shown[0] > 0.03 and shown[1] > 1000


def hostile_model(path):
    x = helper.make_tensor_value_info(HOSTILE[1], TensorProto.FLOAT, ["n", 8])
    nodes, last = [], HOSTILE[1]
    for k, name in enumerate(HOSTILE):
        out = f"v{k}" + name
        nodes.append(helper.make_node("Relu" if k % 2 else "Exp", [last], [out], name=name))
        last = out
    y = helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", 8])
    graph = helper.make_graph(nodes, HOSTILE[0], [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def main():
    c, models = Checks(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory() as folder:
        keep = os.path.abspath(sys.argv[3]) if len(sys.argv) > 3 else folder
        page = os.path.join(folder, "page.html")
        for name in ("gpt2-ts17", "if-loop-ts17"):
            p = c.run("dump", os.path.join(models, name, "model.onnx"), "--html=" + page)
            c.expect(p.returncode == 0 and not p.stdout + p.stderr, f"{name}: the page is written: {p.stderr}")
            for theme in ("light", "dark"):
                shown = drawn(page, os.path.join(keep, f"{name}-{theme}.png"), "#theme=" + theme)
                c.expect(is_page(shown), f"{name}, {theme}: {shown[0]:.3f} of the picture is drawn in {shown[1]} colours")
            dom = chromium("--dump-dom", "file://" + page).stdout
            c.expect('data-ready="yes"' in dom, f"{name}: the page ran to its end")
            c.expect(dom.count('class="tile"') > 5, f"{name}: the overview has content")
            for part in ("ledger", "kernel-table", "memory-chart"):
                box = re.search(rf'id="{part}"[^>]*>(.*?)</(?:table|div|section)>', dom, re.S)
                c.expect(box and len(box[1]) > 100, f"{name}: {part} has content")
        text = open(page).read()
        c.expect(set(re.findall(r"https?://[^\s'\"]+", text)) == {"http://www.w3.org/2000/svg"}, "no addresses in the page")
        c.expect("default-src 'none'" in text, "the page may not fetch anything")
        empty = os.path.join(folder, "empty.html")
        open(empty, "w").write(text.replace("\nstart();", "\n"))
        shown = drawn(empty, os.path.join(folder, "empty.png"))
        c.expect(not is_page(shown), f"a page whose script does nothing is found out: {shown}")
        model = os.path.join(folder, "model.onnx")
        hostile_model(model)
        p = c.run("dump", model, "--html=" + page)
        c.expect(p.returncode == 0, f"hostile names: {p.stderr}")
        dom = chromium("--dump-dom", "file://" + page).stdout
        c.expect('data-ready="yes"' in dom and "<title>taken" not in dom, "hostile names do not run")
        c.expect("<img" not in dom.split('id="data"')[0] and dom.count("<script") == 2, "hostile names make no elements")
    return c.done()


if __name__ == "__main__":
    sys.exit(main())
