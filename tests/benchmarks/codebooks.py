#!/usr/bin/env python3
"""How well the codebooks serve sound they were not fitted on, spectral and random seeds side by side.

    python tests/benchmarks/codebooks.py FILE [FILE ...]     at least ten minutes in all, any kind

Per layer: share of codes used, perplexity, what the stage leaves of its own metric's energy, and
the share of each metric's variance explained so far (last column: of all dimensions).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

import neural_audio_tokenizer as nat


def hear(paths: list[str], settings: nat.Settings, ears: nat.SpectralEars) -> nat.Heard:
    """Features of all files, one after the other."""
    parts = []
    for path in paths:
        with nat.open_audio(path, settings) as audio:
            parts.append(nat.listen(audio, settings, ears=ears))
    return nat.Heard(*(np.concatenate(arrays) for arrays in zip(*parts)))


def energy(rows: np.ndarray, metric: np.ndarray) -> float:
    """Mean squared length in a metric."""
    return float(((rows * metric) ** 2).sum(axis=1).mean())


def report_chain(books: nat.Codebooks, features: np.ndarray, names: tuple[str, ...]) -> None:
    """Print a row a stage."""
    rows = books.normalise(features)
    codes, residual = books.encode(features), rows.copy()
    whole = [energy(rows - rows.mean(axis=0), metric) for metric in books.weights]
    for stage, name in enumerate(names):
        before = energy(residual, books.weights[stage])
        residual -= books.vectors[stage][codes[:, stage]]
        after = [energy(residual, metric) for metric in books.weights]
        share = np.bincount(codes[:, stage], minlength=len(books.vectors[stage])) / len(codes)
        used = share[share > 0]
        perplexity = 2 ** -(used * np.log2(used)).sum()
        explained = " ".join(f"{1 - a / w:6.1%}" for a, w in zip(after, whole))
        print(
            f"{name}  used {len(used) / len(share):6.1%}  perplexity {perplexity:5.0f}"
            f"  left of own energy {after[stage] / before:5.3f}  explained {explained}"
        )


def main(paths: list[str]) -> None:
    """Compare spectral with random seeds on the files."""
    ears = nat.SpectralEars()
    for init in ("spectral", "random"):
        settings = nat.Settings(codebook_init=init, quiet=True)
        heard = hear(paths, settings, ears)
        trained = nat.calibrate(settings, ears)
        print(f"{init} seeds, {len(heard.semantic) / settings.frame_rate / 60:.1f} minutes")
        report_chain(trained.semantic, heard.semantic, nat.LAYER_NAMES[:4])
        report_chain(trained.acoustic, heard.acoustic, nat.LAYER_NAMES[4:])


if __name__ == "__main__":
    main(sys.argv[1:])
