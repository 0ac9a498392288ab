#!/usr/bin/env python3
"""What compare() says of pieces that have nothing to do with each other, and of changed ones.

    python tests/benchmarks/likeness.py FILE FILE [...]

For unrelated files, cut to 3, 10, 30 and 100 s at random places, medians over 300 pairs: how much
is in step beyond chance, and how much of their codes they have in common (COMMON_CHANCE); and the
verdicts. Then the same for 10 s of each file beside its next 10 s, and beside what became of them.
"""

from __future__ import annotations

import collections
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Callable, Iterable

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

import neural_audio_tokenizer as nat

SETTINGS = nat.Settings(codebook_init="spectral", quiet=True)
LONGEST = 120  # seconds of a file that are heard
RATE = SETTINGS.sample_rate


def resampled(samples: np.ndarray) -> np.ndarray:
    """Two semitones higher, and so much faster."""
    return nat.convert(samples, (RATE, round(RATE / 2 ** (2 / 12))), settings=SETTINGS)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "6 dB softer": lambda x: x / 2,
    "a second of silence first": lambda x: np.concatenate([np.zeros(RATE, np.float32), x]),
    "a second cut off": lambda x: x[RATE:],
    "MP3 at 64 kbit/s": lambda x: nat.through_codec(x, "MP3", kbps=64, settings=SETTINGS),
    "noise, 10 dB below": lambda x: x + x.std() * 10**-0.5 * NOISE[: len(x)],
    "two semitones up, 12 % faster": resampled,
}
NOISE = np.random.RandomState(0).standard_normal(LONGEST * RATE).astype(np.float32)


def cut(codes: nat.Codes, start: int, frames: int) -> nat.Codes:
    """Codes of a stretch."""
    seconds = frames / codes.frame_rate
    return replace(codes, array=codes.array[start : start + frames].copy(), seconds=seconds)


def report(name: str, found: Iterable[nat.Likeness]) -> None:
    """Print medians over pairs, and how often each verdict was given."""
    found = list(found)
    rows = [[row[1:4] for row in one.layers] for one in found]
    step, luck, common = np.median(np.array(rows), axis=0).T
    said = collections.Counter(one.verdict.replace(":", ",").split(",")[0] for one in found)
    print(f"{name} ({len(found)} pairs)")
    for what, shares in (("in step", step), ("chance", luck), ("in common", common)):
        print(f"  {what:10s}", " ".join(f"{share:5.2f}" for share in shares))
    print("  " + "; ".join(f"{words} {count}" for words, count in said.most_common()))


def unrelated(codes: list[nat.Codes], frames: int) -> Iterable[nat.Likeness]:
    """Pairs of stretches of different files that are long enough."""
    random, codes = np.random.RandomState(0), [one for one in codes if len(one) > frames]
    for _ in range(300 if len(codes) > 1 else 0):
        pair = random.choice(len(codes), 2, replace=False)
        parts = (cut(codes[k], random.randint(len(codes[k]) - frames), frames) for k in pair)
        yield nat.compare(*parts)


def main(paths: list[str]) -> None:
    """Print all tables."""
    tokenizer, sounds = nat.Tokenizer(SETTINGS), []
    for path in paths:
        with nat.open_audio(path, SETTINGS) as audio:
            blocks = nat.itertools.islice(audio, LONGEST)
            sounds.append(np.concatenate(list(blocks)))
    codes = [tokenizer.encode(sound) for sound in sounds]
    print(" " * 13 + " ".join(f"{name:>5s}" for name in nat.LAYER_NAMES))
    for seconds in nat.CHANCE_SECONDS:
        found = list(unrelated(codes, int(np.ceil(seconds * SETTINGS.frame_rate))))
        if found:
            report(f"unrelated, {seconds} s", found)
    parts = [(x[: 10 * RATE], x[10 * RATE : 20 * RATE]) for x in sounds if len(x) >= 20 * RATE]
    heard = [tuple(map(tokenizer.encode, pair)) for pair in parts]
    report("the next 10 s", (nat.compare(*pair) for pair in heard))
    for name, change in CHANGES.items():
        pairs = ((first, tokenizer.encode(change(x))) for (first, _), (x, _) in zip(heard, parts))
        report(name, (nat.compare(*pair) for pair in pairs))


if __name__ == "__main__":
    main(sys.argv[1:])
