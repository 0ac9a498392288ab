#!/usr/bin/env python3
"""Time a file and memory over a batch of many sounds of a second; against single calls in a loop.

python tests/benchmarks/many_files.py [--files 10000] [--workers 1] [--single 20]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np

import neural_audio_tokenizer as nat

RATE = 22050
PROGRAM = [sys.executable, str(ROOT / "neural_audio_tokenizer.py"), "--codebook-init", "spectral"]


def make_sounds(folder: Path, count: int) -> list[Path]:
    """Seconds of tones and noise, no two alike, a thousand a folder."""
    rng, paths = np.random.RandomState(0), []
    for number in range(count):
        path = folder / f"{number // 1000:02d}" / f"{number:05d}.wav"
        path.parent.mkdir(exist_ok=True, parents=True)
        tone = np.sin(np.arange(RATE) * rng.uniform(0.02, 0.5)) * np.linspace(0.3, 0, RATE)
        sound = tone + rng.standard_normal(RATE) * 0.01
        path.write_bytes(nat.wave_header(RATE, RATE) + nat.pcm_bytes(sound))
        paths.append(path)
    return paths


def memory(pid: int) -> float:
    """Resident memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def watch(running: subprocess.Popen, manifest: Path, total: int) -> None:
    """Print time a file and memory for each tenth of the batch as it goes on."""
    began = before = time.monotonic()
    done, marks = 0, [total * tenth // 10 for tenth in range(1, 11)]
    print(f"{'files':>7s} {'ms a file':>10s} {'MB now':>8s}")
    read = 0
    while marks:
        ended = running.poll() is not None
        if manifest.exists():
            with open(manifest, "rb") as file:
                file.seek(read)
                data = file.read()
            read, done = read + len(data), done + data.count(b"\n")
        if done >= marks[0]:
            now, share = time.monotonic(), total / 10
            held = memory(running.pid) if not ended else float("nan")
            print(f"{done:7d} {(now - before) / share * 1000:10.1f} {held:8.1f}", flush=True)
            before = now
            marks = [mark for mark in marks if mark > done]
        elif ended:
            raise SystemExit(f"ended after {done} files with status {running.returncode}")
        time.sleep(0.05)
    if running.wait():
        raise SystemExit(f"status {running.returncode}")
    took = time.monotonic() - began
    print(f"batch: {took:.1f} s, {took / total * 1000:.1f} ms a file")


def main() -> None:
    """Print a row for each tenth of the batch, then the loop's time a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--single", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="many-") as name:
        work = Path(name)
        paths = make_sounds(work / "in", options.files)
        subprocess.run([*PROGRAM, "--quiet", "-o", str(work / "warm"), str(paths[0])], check=True)
        out = ["--quiet", "--recursive", "--output-dir", str(work / "out"), str(work / "in")]
        workers = ["--workers", str(options.workers)]
        running = subprocess.Popen([*PROGRAM, *out, *workers], stdin=subprocess.DEVNULL)
        watch(running, work / "out" / nat.MANIFEST, options.files)
        began = time.monotonic()
        for path in paths[: options.single]:
            single = ["--quiet", "--output-dir", str(work / "single"), str(path)]
            subprocess.run([*PROGRAM, *single], check=True)
        took = (time.monotonic() - began) / options.single
        print(f"a call for each file: {took * 1000:.0f} ms a file (of {options.single})")
        for path in sorted((work / "single").iterdir()):
            assert path.read_bytes() == (work / "out" / path.name).read_bytes(), path


if __name__ == "__main__":
    main()
