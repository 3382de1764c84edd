"""Texts that tokenizers get wrong; bytes where they are not well-formed UTF-8."""
import random

TEXTS = [
    "", " ", "  ", "\n", "\r\n", "\t", "a", " a", "a ", "  a  b   c    ", "Hello, world!", "hello world",
    "I'm you're he'll they've I'd it's 'tis O'Neil's CAN'T WE'RE don't, do not 's",
    "The quick brown fox jumps over the lazy dog. 1234567890 12 345 6,789.01",
    "3.14159265358979323846264338327950288419716939937510", "0" * 37, "a1b22c333d4444", "x=1;y=22;z=333",
    "tabs\tand\nnewlines\r\nand\r\rmixed \n \n\n  \n\t\t x", "line one\n\nline two\n\n\n   indented",
    "trailing spaces   \n  leading", "multiple     spaces     inside", "\u00a0nbsp\u00a0\u2003em\u3000ideographic",
    "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m A\u030angstro\u0308m", "\u01c4 \ufb01ne \u2460\u2461 \u00bd \u00b2 \u2122 \uff21\uff22\uff23 \u3392",
    "\u0130stanbul \u0131 \u00df\u1e9e \u03a3\u03c3\u03c2 \u039f\u0394\u039f\u03a3 \u01c5", "\u0420\u0443\u0441\u0441\u043a\u0438\u0439 \u0442\u0435\u043a\u0441\u0442, \u0401\u0436 \u0438 \u0439",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u6f22\u5b57\u3068\u304b\u306a\u30ab\u30bf\u30ab\u30ca", "\uc548\ub155\ud558\uc138\uc694 \u1112\u1161\u11ab", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u0661\u0662\u0663 \u0651\u064e", "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u05e2\u05d5\u05b9\u05dc\u05b8\u05dd", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u0967\u0968\u0969",
    "\U0001f600\U0001f44d\U0001f3fd\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1e9\U0001f1ea \u2764\ufe0f 1\ufe0f\u20e3", "a\U0001f600b \U0001f600 c", "e\u0301\u0302\u0303\u0304 o\u0308\u0323 z\u0335\u0336",
    "\u200bzero\u200bwidth\ufeffbom\u00adsoft\u200d\u200c", "\x00nul\x01\x02\x1f\x7f\x85\x9f", "\ufffd replacement \ufffd", "\ue000 private \U0010ffff last",
    "<s>hello</s> <unk><pad> [CLS] x [SEP] [MASK]it [UNK]", "<|endoftext|>a<|endoftext|> b <|im_start|>user\nhi<|im_end|>\n", " <|im_start|> x", "<|im_start|><|im_start|><|im_star",
    "<mask> word<mask>word <mask>  <mask>", "new token newtoken NEWTOKEN newtokens anewtoken new-token \u00e9newtoken",
    "https://example.org/a_b?c=d&e=%20f#g user@example.com C++ C# .NET a.b.c", "snake_case camelCase PascalCase SCREAMING_CASE kebab-case",
    "def f(x):\n    return x**2  # comment\n\n\nif __name__ == '__main__':\n\tprint(f(3))\n", "{\"key\": [1, 2.5e-3, null, true], \"s\": \"\\n\"}",
    "!!!???...,,,;;;:::---___***///\\\\\\", "\u201cquoted\u201d \u2018single\u2019 \u2014 dash \u2026 \u20ac5 \u00a35 $5 \u00ab x \u00bb \u00bf\u00a1 \u3002\u3001", "a" * 300, "ab " * 100, "antidisestablishmentarianism supercalifragilisticexpialidocious " + "x" * 120,
    "MiXeD cAsE \u0391\u03b1 \u042f\u044f\u01c8", "\u2581underscore \u2581 \u2581\u2581 a\u2581b", "\u0120space \u010a \u0100", "<0x41><0x0A> <0xZZ>", "##ing ## play##ing", " \n \n", "\n\n\n", "x\n", "\r", "\u2028sep\u2029par\x0bvt\x0cff",
    "\U00020000\U0002a6d6 \U0001d538\U0001d552 \U0001f9a0 \U0001fae0 \ua9c1\ua9c2", "\u0f40\u0f0b\u0f56 \u1780\u17d2\u1798 \u10d0\u10d1 \u0531\u0561 \u13a0",
    b"\xff", b"a\x80b", b"\xc3", b"\xe2\x82", b"caf\xc3 \xe9", b"\xf0\x9f\x98", b"\xed\xa0\x80\xc0\xaf\xf5\x80", b"ok \xf0\x9f\x98\x80\xf0\x9f\x98 end",
]


def noise(seed, count):
    """Random mixtures of the pieces above."""
    r = random.Random(seed)
    parts = [t for t in TEXTS if isinstance(t, str) and t]
    for _ in range(count):
        out = []
        for _ in range(r.randint(1, 6)):
            t = r.choice(parts)
            i = r.randrange(len(t))
            out.append(t[i:i + r.randint(1, 12)])
        yield r.choice(["", " "]).join(out)
