#!/usr/bin/env python3
"""Lag and memory of live sound: raw PCM piped in at some multiple of real time.

    python tests/benchmarks/live.py --seconds 60 --speed 1         wall-clock lag of a microphone
    python tests/benchmarks/live.py --seconds 3600 --speed 50      an hour in little more than 72 s

Lag is in sound time: what had been fed when a line came, less the line's own t; at speed 1 that is
wall-clock lag, too. The clock starts when the program has written its header, so that its start
(a second of imports, at 50x nearly a minute of sound) is not called lag. Memory is the peak of
the whole process, from the kernel.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

PROGRAM = Path(__file__).resolve().parents[2] / "neural_audio_tokenizer.py"
PIECE = 0.04  # seconds of sound that a sound card hands on at once


def minute(rate: int) -> bytes:
    """A minute of notes, clicks and noise, s16le mono."""
    times, random = np.arange(60 * rate) / rate, np.random.RandomState(1)
    notes = 220 * 2 ** (random.randint(0, 24, 240) / 12)
    sound = np.sin(2 * np.pi * np.cumsum(notes[(times * 4).astype(int)]) / rate)
    sound = 0.2 * sound * np.exp(-6 * (times % 0.25)) + 0.01 * random.standard_normal(len(times))
    return np.rint(sound * 32767).astype("<i2").tobytes()


class Feed:
    """Writes sound into a pipe as a clock of some speed says."""

    def __init__(self, pipe, *, rate: int, seconds: float, speed: float) -> None:
        self.fed, self._pipe, self._rate = 0.0, pipe, rate
        self.up = threading.Event()
        self._seconds, self._speed = seconds, speed

    def run(self) -> None:
        """Feed to the end; a writer that is blocked is late, as a microphone would be."""
        data, step, at = minute(self._rate), round(PIECE * self._rate) * 2, 0
        self._pipe.write(data[:step])
        self.up.wait()
        started = time.monotonic()
        while self.fed < self._seconds:
            due = started + self.fed / self._speed - time.monotonic()
            if due > 0:
                time.sleep(due)
            self._pipe.write(data[at : at + step])
            at = (at + step) % (len(data) // step * step)
            self.fed += step / 2 / self._rate
        self._pipe.close()


def run(seconds: float, speed: float, *, rate: int, more: list[str]) -> dict[str, float]:
    """One live run: lags in seconds of sound, peak memory in MB, wall-clock seconds."""
    command = [sys.executable, str(PROGRAM), "--codebook-init", "spectral", "--live", *more]
    command += ["--quiet", "--raw", f"s16le:{rate}:1"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    feed = Feed(child.stdin, rate=rate, seconds=seconds, speed=speed)
    lags, frames, started = [], 0, time.monotonic()
    threading.Thread(target=feed.run, daemon=True).start()
    with os.fdopen(os.dup(child.stdout.fileno()), "rb", 1 << 16) as lines:
        for line in lines:
            feed.up.set()
            if line.startswith(b'{"t":'):
                frames += 1
                # the last second is due at the end of the sound, not later than it
                if feed.fed < seconds:
                    lags.append(feed.fed - float(line[5 : line.index(b",")]))
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, f"status {status}"
    found = {"lag median s": np.median(lags), "lag 99 % s": np.percentile(lags, 99)}
    found.update({"lag worst s": max(lags), "peak MB": usage.ru_maxrss / 1024})
    return {**found, "frames": frames, "wall s": time.monotonic() - started}


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--rate", type=int, default=22050)
    parser.add_argument("more", nargs="*", help="further arguments, after --")
    given = parser.parse_args()
    for name, value in run(given.seconds, given.speed, rate=given.rate, more=given.more).items():
        print(f"{name:14}{value:10.2f}")


if __name__ == "__main__":
    main()
