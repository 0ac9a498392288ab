#!/usr/bin/env python3
"""Share of equal codes when a sound is shifted, softened, made noisy or sent through MP3 (ffmpeg).

python tests/benchmarks/robustness.py [FILE ...]     examples/spouter.wav if none is named
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np

import neural_audio_tokenizer as nat


def through_mp3(samples: np.ndarray, rate: int, settings: nat.Settings) -> np.ndarray:
    """Samples encoded as MP3 at a bitrate in kbit/s and decoded again."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{name}" for name in ("a.wav", "a.mp3", "b.wav")]
        pcm = nat.pcm_bytes(samples)
        Path(paths[0]).write_bytes(nat.wave_header(len(samples), settings.sample_rate) + pcm)
        for source, target in zip(paths, paths[1:]):
            more = ["-b:a", f"{rate}k"] if target.endswith("mp3") else ["-ar", "22050", "-ac", "1"]
            subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", source, *more, target], check=True)
        with nat.open_audio(paths[2], settings) as audio:
            return np.concatenate(list(audio))[: len(samples)]


def variants(samples: np.ndarray, settings: nat.Settings) -> dict[str, tuple[np.ndarray, int]]:
    """Name -> (changed samples, frames of silence put before)."""
    rng = np.random.RandomState(0)
    noise = rng.standard_normal(len(samples)) * np.sqrt(np.mean(samples**2)) * 10 ** (-30 / 20)
    silence = np.zeros(43 * settings.hop_length, np.float32)
    found = {
        "43 frames later": (np.concatenate([silence, samples]), 43),
        "1 dB softer": ((samples * 10 ** (-1 / 20)).astype(np.float32), 0),
        "noise at 30 dB SNR": ((samples + noise).astype(np.float32), 0),
    }
    if shutil.which("ffmpeg"):
        found.update({f"MP3 {k} kbit/s": (through_mp3(samples, k, settings), 0) for k in (128, 64)})
    return found


def main(paths: list[str]) -> None:
    """Print a row a change and file."""
    settings = nat.Settings(codebook_init="spectral", quiet=True)
    tokenizer = nat.Tokenizer(settings)
    print(f"{'equal codes':44s} " + " ".join(f"{name:>6s}" for name in nat.LAYER_NAMES))
    for path in paths or [str(ROOT / "examples" / "spouter.wav")]:
        with nat.open_audio(path, settings) as audio:
            samples = np.concatenate(list(audio))
        codes = tokenizer.encode(samples)
        for name, (changed, late) in variants(samples, settings).items():
            other = tokenizer.encode(changed)[late:]
            edge = slice(60, -60) if late else slice(None)
            count = min(len(codes), len(other))
            equal = (codes[:count][edge] == other[:count][edge]).mean(axis=0)
            shares = " ".join(f"{share:6.1%}" for share in equal)
            print(f"{Path(path).name[:22]:22s} {name:21s} {shares}")


if __name__ == "__main__":
    main(sys.argv[1:])
