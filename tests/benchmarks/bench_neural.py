#!/usr/bin/env python3
"""Time the MERT ear on full-size random weights: interleaved rounds, medians, ratios.

    python tests/benchmarks/bench_neural.py                    # 60 s of noise, 3 rounds
    python tests/benchmarks/bench_neural.py --seconds 180 --rounds 5
    python tests/benchmarks/bench_neural.py --memory 30    # peak memory for 3 and 30 minutes (slow)

`program` is a run from WAV to NDJSON with the models and codebooks loaded; `ear` is push and flush
over the whole sound, resampling and pooling included; `bare` is the model library's own model, cut
after the same layer, over the same windows; `plain` is it with all its 12 layers over the same
windows, in torch's own float32 arithmetic, `whole` over 30 s windows without overlap, `once` in one
call over the whole sound, as the model's card shows it. The bare model has what the ear has set in
torch (the oneDNN route), the plain ones not.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]
import neural_audio_tokenizer as nat  # noqa: E402
from make_random_models import write_model  # noqa: E402

RATE = 22050
Run = Callable[[], Any]


def sound(seconds: float) -> np.ndarray:
    """Noise, which costs what music costs."""
    made = np.random.default_rng(1).standard_normal(round(seconds * RATE), np.float32)
    return np.float32(0.1) * made


def settings_for(directory: Path, **changes: Any) -> nat.Settings:
    """Settings of the MERT ear on a CPU."""
    return nat.Settings(codebook_init="mert", mert_model=str(directory), device="cpu", **changes)


def hear(ears: nat.NeuralEars, audio: np.ndarray) -> int:
    """Push a sound in blocks of one second; return the number of rows."""
    ear = ears.listen()
    rows = sum(len(ear.push(audio[at : at + RATE])) for at in range(0, len(audio), RATE))
    return rows + len(ear.flush())


def window_starts(length: int, window: int, step: int) -> list[int]:
    """Where windows begin, the last one moved back."""
    starts = list(range(0, max(1, length - window + 1), step))
    return starts if starts[-1] + window >= length else [*starts, length - window]


def forward(model: Any, audio: np.ndarray, *, window: int, step: int) -> None:
    """The library's forward over a sound at 24 kHz."""
    import torch

    with torch.inference_mode():
        for start in window_starts(len(audio), window, step):
            piece = torch.from_numpy(audio[None, start : start + window])
            model(piece, output_hidden_states=False).last_hidden_state.numpy()


def in_plain_arithmetic(run: Run) -> Run:
    """Run with torch's default for float32 matrices instead of the oneDNN route."""
    import torch

    def plain() -> None:
        route = getattr(torch.backends.mkldnn, "matmul", None)
        if route is None:
            return run()
        before, route.fp32_precision = route.fp32_precision, "ieee"
        try:
            run()
        finally:
            route.fp32_precision = before

    return plain


def program(ears: nat.NeuralEars, settings: nat.Settings, audio: np.ndarray, folder: Path) -> Run:
    """A run of the whole program over a WAV file, with codebooks fitted to the sound."""
    source, output = folder / "sound.wav", folder / "sound.ndjson"
    source.write_bytes(nat.wave_header(len(audio), RATE) + nat.pcm_bytes(audio))
    heard = nat.listen([audio[: 20 * RATE]], settings, ears=ears)
    trained = nat.train_codebooks(heard, ears.branch, settings)
    runner = nat.Runner(settings, nat.Outputs(path=output, force=True))
    runner._tokenizer = nat.Tokenizer(settings, ears=ears, trained=trained)
    return lambda: runner.run_one(str(source), "sound")


def variants(directory: Path, seconds: float) -> dict[str, Run]:
    """What is timed, by name."""
    import torch
    from transformers import HubertModel

    settings = settings_for(directory, quiet=True)
    ears, audio = nat.open_neural_ear(settings), sound(seconds)
    full, cut = (HubertModel.from_pretrained(directory).eval() for _ in range(2))
    cut.encoder.layers = cut.encoder.layers[: ears.models[0].layer]
    there = np.resize(audio, round(len(audio) / RATE * 24000))
    ten = {"window": 240000, "step": 192000}
    print(f"threads {torch.get_num_threads()}, oneDNN route {nat.route_float32_to_onednn()}")
    return {
        "program": program(ears, settings, audio, directory),
        "ear": lambda: hear(ears, audio),
        "bare": lambda: forward(cut, there, **ten),
        "plain": in_plain_arithmetic(lambda: forward(full, there, **ten)),
        "whole": in_plain_arithmetic(lambda: forward(full, there, window=720000, step=720000)),
        "once": in_plain_arithmetic(lambda: forward(full, there, window=len(there), step=1)),
    }


def time_variants(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """Median seconds of each, the rounds interleaved, after one round that warms up."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name, run in runs.items():
            begun = time.perf_counter()
            run()
            if round_:
                taken[name].append(time.perf_counter() - begun)
    return {name: statistics.median(times) for name, times in taken.items()}


def peak_megabytes(directory: Path, minutes: float) -> float:
    """Peak resident memory of a fresh process that hears so many minutes."""
    command = [sys.executable, __file__, "--hear", str(minutes), "--model", str(directory)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def hear_minutes(directory: Path, minutes: float) -> None:
    """Tokenize a sound made as it is heard, and print this process's peak memory in MB."""
    settings, second = settings_for(directory, quiet=True), sound(1)
    ears = nat.open_neural_ear(settings)
    trained = nat.train_codebooks(
        nat.listen([second] * 20, settings, ears=ears), ears.branch, settings
    )
    tokenizer = nat.Tokenizer(settings, ears=ears, trained=trained)
    for _ in tokenizer.tokens(second for _ in range(round(minutes * 60))):
        pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Time, or measure memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a directory with a model; default: random")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="of the variants, as in program,once")
    parser.add_argument("--memory", type=float, help="compare 3 with so many minutes instead")
    parser.add_argument("--hear", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = args.model or Path(scratch)
        if not args.model:
            write_model(directory, "mert-95m", tiny=False)
        if args.hear:
            return hear_minutes(directory, args.hear)
        if args.memory:
            short, long = (peak_megabytes(directory, minutes) for minutes in (3, args.memory))
            return print(f"peak {short:.0f} MB for 3 min, {long:.0f} MB for {args.memory:g} min")
        runs = variants(directory, args.seconds)
        chosen = args.only.split(",") if args.only else list(runs)
        medians = time_variants({name: runs[name] for name in chosen}, args.rounds)
    for name, median in medians.items():
        speed = f"{args.seconds / median:5.1f} x real time"
        print(
            f"{name:6} {median:7.2f} s  {speed}  {median / medians[chosen[0]]:5.2f} x {chosen[0]}"
        )


if __name__ == "__main__":
    main()
