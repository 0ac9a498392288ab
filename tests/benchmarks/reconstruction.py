#!/usr/bin/env python3
"""Log-mel distance of reconstructed sound, between the floor of the method and another file's.

    python tests/benchmarks/reconstruction.py FILE FILE [...]

Mean absolute difference in dB over 64 mel bands, floored 60 dB below each sound's loudest frame:
of sound made from the codes; of sound made from the same features without quantization (floor);
of the next file in the list (ceiling).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

import neural_audio_tokenizer as nat

SETTINGS = nat.Settings(codebook_init="spectral", quiet=True)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Log-mel [T, 64] in dB, floored 60 dB below the loudest band."""
    analyzer = nat.Analyzer(SETTINGS.sample_rate, SETTINGS.hop_length)
    rows = nat.join_rows([analyzer.push(samples), analyzer.flush()])
    level = rows.mel + rows.level[:, None]
    return np.maximum(level, level.max() - 60)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference in dB over what both last."""
    count = min(len(one), len(other))
    return float(np.abs(one[:count] - other[:count]).mean())


def rebuild(features: np.ndarray, count: int) -> np.ndarray:
    """Sound [count] from acoustic features."""
    maker = nat.Reconstructor(SETTINGS.sample_rate, SETTINGS.hop_length)
    return np.concatenate([maker.push(features), maker.flush(count)])


def main(paths: list[str]) -> None:
    """Print a row a file."""
    tokenizer = nat.Tokenizer(SETTINGS)
    sounds = []
    for path in paths:
        with nat.open_audio(path, SETTINGS) as audio:
            sounds.append(np.concatenate(list(audio)))
    print(f"{'log-mel distance in dB':24s}   codes   floor   ceiling")
    for place, (path, samples) in enumerate(zip(paths, sounds)):
        tokens = list(tokenizer.tokens([samples]))
        codes = np.concatenate([part.codes for part in tokens])
        plain = np.concatenate([part.acoustic for part in tokens])
        quantized = tokenizer.trained.acoustic.decode(codes[:, 4:])
        truth = log_mel(samples)
        found = [log_mel(rebuild(rows, len(samples))) for rows in (quantized, plain)]
        found.append(log_mel(sounds[(place + 1) % len(sounds)]))
        row = "  ".join(f"{distance(truth, other):6.2f}" for other in found)
        print(f"{Path(path).name[:24]:24s}  {row}")


if __name__ == "__main__":
    main(sys.argv[1:])
