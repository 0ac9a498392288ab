#!/usr/bin/env python3
"""What a GPU makes of the MERT ear: speed, how busy it is, and agreement with the CPU.

    python tests/benchmarks/gpu_check.py                     # on CUDA, full-size random weights
    python tests/benchmarks/gpu_check.py --device cpu --tiny # the same code where no GPU is

Prints the real-time factor from samples to codes for one long sound and for 200 short ones, the
share of the time that the GPU worked (nvidia-smi, sampled while they are heard), and in how many
frames each layer's code is the CPU's in fp32, with codebooks fitted to the CPU's features.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]
import neural_audio_tokenizer as nat  # noqa: E402
from make_random_models import write_model  # noqa: E402

RATE = 22050


def melody(seconds: float, seed: int = 3) -> np.ndarray:
    """Random plucked notes over a little noise, eight a second."""
    random = np.random.default_rng(seed)
    made = 0.003 * random.standard_normal(round(seconds * RATE))
    time_ = np.arange(RATE // 2) / RATE
    for start in range(0, len(made) - RATE // 2, RATE // 8):
        pitch = 110 * 2 ** (random.integers(0, 48) / 12)
        tone = sum(np.sin(2 * np.pi * pitch * h * time_) / h for h in range(1, 6))
        made[start : start + RATE // 2] += 0.1 * random.random() * np.exp(-6 * time_) * tone
    return made.astype(np.float32)


def encode(tokenizer: nat.Tokenizer, audio: np.ndarray) -> np.ndarray:
    """Codes [T, 8] of a sound pushed in blocks of ten seconds."""
    step = 10 * RATE
    blocks = (audio[at : at + step] for at in range(0, len(audio), step))
    return np.concatenate([tokens.codes for tokens in tokenizer.tokens(blocks)])


class Utilisation:
    """Mean of nvidia-smi's GPU utilisation, in percent, while the block runs."""

    def __enter__(self) -> Utilisation:
        self._stop, self.samples = threading.Event(), []
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while shutil.which(query[0]) and not self._stop.wait(0.05):
            said = subprocess.run(query, capture_output=True, text=True).stdout
            self.samples += [float(line) for line in said.splitlines()[:1]]

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def __str__(self) -> str:
        return f"{np.mean(self.samples):.0f} %" if self.samples else "not known (no nvidia-smi)"


def report(directory: Path, args: argparse.Namespace) -> None:
    """Measure and print."""
    layer = 3 if args.tiny else 7
    settings = nat.Settings(
        codebook_init="mert", mert_model=str(directory), mert_layer=layer, device=args.device,
        precision=args.precision,
    )  # fmt: skip
    on_cpu = replace(settings, device="cpu", precision="fp32")
    ears, exact = nat.open_neural_ear(settings), nat.open_neural_ear(on_cpu)
    clip = melody(args.compare)
    trained = nat.train_codebooks(nat.listen([clip], on_cpu, ears=exact), exact.branch, on_cpu)
    tokenizer = nat.Tokenizer(settings, ears=ears, trained=trained)
    reference = nat.Tokenizer(on_cpu, ears=exact, trained=trained)
    model = ears.models[0]
    print(f"device {model.device}, precision {model.precision}, batch {model.batch}")
    reason = nat.load_package("torchaudio")[1]
    print(f"torchaudio: {reason or 'resamples and makes spectra on the GPU'}")
    encode(tokenizer, clip[: 30 * RATE])  # warms up
    for count, seconds in ((1, args.long), (args.count, args.short)):
        audio = melody(seconds)
        with Utilisation() as busy:
            begun = time.perf_counter()
            for _ in range(count):
                encode(tokenizer, audio)
            speed = count * seconds / (time.perf_counter() - begun)
        print(f"{count} x {seconds:g} s: {speed:.0f} x real time; GPU busy {busy}")
    same = (encode(tokenizer, clip) == encode(reference, clip)).mean(axis=0)
    words = ", ".join(f"{name} {share:.2%}" for name, share in zip(nat.LAYER_NAMES, same))
    print(f"same codes as on the CPU in fp32: {words}")


def main() -> None:
    """Make a model of random weights unless one is given, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a directory with MERT; default: random")
    parser.add_argument("--tiny", action="store_true", help="a model of a few kilobytes")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--long", type=float, default=3600, help="seconds of the long sound")
    parser.add_argument("--short", type=float, default=5, help="seconds of a short one")
    parser.add_argument("--count", type=int, default=200, help="how many short ones")
    parser.add_argument("--compare", type=float, default=60, help="seconds heard on both devices")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if not args.model:
            write_model(Path(scratch), "mert-95m", tiny=args.tiny)
        report(args.model or Path(scratch), args)


if __name__ == "__main__":
    main()
