"""What the tests share: sounds made in NumPy, codebooks fitted once, the program as it is run."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import types
import wave
from pathlib import Path
from typing import NamedTuple

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: its threads would fight over the cores

import numpy as np  # noqa: E402
import pytest  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "neural_audio_tokenizer.py"
EXAMPLE = ROOT / "examples" / "spouter.wav"
sys.path.insert(0, str(ROOT))

import neural_audio_tokenizer as nat  # noqa: E402

RATE, HOP = 22050, 512
SETTINGS = nat.Settings(codebook_init="spectral", quiet=True)  # no test asks a model hub


def pytest_configure(config):
    # A run in the background may have SIGINT ignored, which every process it starts would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "slow: takes more than ten seconds")


# Sounds: mono float32 at RATE unless told otherwise


def at_level(sound, level):
    """A sound at a level in dBFS (rms)."""
    rms = np.sqrt(np.mean(np.square(sound, dtype=np.float64)))
    return (sound * (10 ** (level / 20) / rms)).astype(np.float32)


def tone(hz=440.0, seconds=2.0, level=-20.0, *, partials=1, rate=RATE):
    """A steady tone with partials of amplitude 1, 1/2, 1/3 ..."""
    times = np.arange(int(seconds * rate)) / rate
    parts = (np.sin(2 * np.pi * hz * h * times) / h for h in range(1, partials + 1))
    return at_level(sum(parts), level)


def noise(seconds=2.0, level=-20.0, seed=0):
    return at_level(np.random.RandomState(seed).standard_normal(int(seconds * RATE)), level)


def note_hz(midi):
    return 440.0 * 2 ** ((midi - 69) / 12)


def chord(notes=(60, 64, 67), seconds=2.0, level=-20.0, partials=4):
    """MIDI notes that sound together."""
    return at_level(sum(tone(note_hz(n), seconds, partials=partials) for n in notes), level)


def clicks(period, seconds=8.0, first=0.0):
    """Short bursts of noise, one every period seconds."""
    sound = np.zeros(int(seconds * RATE), np.float32)
    burst = noise(0.02, -15.0) * np.linspace(1, 0, int(0.02 * RATE))
    for start in np.arange(first, seconds - 0.02, period):
        at = round(start * RATE)
        sound[at : at + len(burst)] += burst[: len(sound) - at]
    return sound


def song(seconds=6.0, seed=3):
    """Plucked notes over chords, and a hat, from the first sample on: no two seconds alike."""
    random, sound = np.random.RandomState(seed), np.zeros(int((seconds + 2) * RATE))
    steps = (0, 2, 4, 5, 7, 9, 11, 12, 14, 16)
    for beat in range(max(1, int(seconds * 4))):
        start = int(beat * 0.25 * RATE)
        midi = 57 + random.choice(steps)
        if beat % 4 == 0:
            sound[start : start + RATE] += chord((midi - 12, midi - 5), 1.0, -24.0)
        pluck = tone(note_hz(midi), 0.6, -20.0, partials=8)
        sound[start : start + len(pluck)] += pluck * np.exp(-np.arange(len(pluck)) / 4000)
        sound[start + 2000 : start + 3102] += noise(0.05, -35.0, seed=beat)[:1102]
    return at_level(sound, -22.0)[: int(seconds * RATE)]


def save_wav(path, sound, rate=RATE, channels=1):
    """A 16-bit WAV, by the standard library's writer."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.clip(np.rint(sound * 32768), -32768, 32767).astype("<i2").tobytes())
    return path


def load_wav(path):
    """Samples [n] of a 16-bit mono WAV in full scale +-1, and its rate."""
    with wave.open(str(path), "rb") as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return data.astype(np.float32) / 32768, file.getframerate()


def analyse(sound, block=None, rate=RATE):
    """All rows of `Spectra` of a sound that comes in blocks of some size."""
    hop = nat.Settings(sample_rate=rate).hop_length
    analyzer = nat.Analyzer(rate, hop)
    size = block or max(1, len(sound))
    parts = [analyzer.push(sound[at : at + size]) for at in range(0, len(sound), size)]
    return nat.join_rows([*parts, analyzer.flush()])


# The program


class Result(NamedTuple):
    """What a run of the program left behind."""

    status: int
    out: bytes
    err: str


def arguments(args):
    """Command line of a run that asks no model hub."""
    given = [str(arg) for arg in args]
    return given if "--codebook-init" in given else ["--codebook-init", "spectral", *given]


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory):
    """A cache folder of this test session alone, for subprocesses too."""
    folder, before = tmp_path_factory.mktemp("cache"), os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    yield folder
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def tokenizer(cache_home):
    """A tokenizer with the default codebooks, fitted once a session."""
    return nat.Tokenizer(SETTINGS)


@pytest.fixture(scope="session")
def example():
    """Twenty seconds of guitar, drums, bass and a voice."""
    return load_wav(EXAMPLE)[0]


@pytest.fixture(scope="session")
def run_cli(tokenizer):
    """The program as a process of its own, with the spectral ear and cached codebooks."""

    def run(*args, input=None, **more):
        stdin = {"input": input} if input is not None else {"stdin": subprocess.DEVNULL}
        command = [sys.executable, str(PROGRAM), *arguments(args)]
        done = subprocess.run(command, capture_output=True, timeout=120, **stdin, **more)
        return Result(done.returncode, done.stdout, done.stderr.decode())

    return run


@pytest.fixture
def run_main(tokenizer, capfdbinary, monkeypatch):
    """The program within this process: `main(argv)`, quicker than `run_cli`."""
    root = logging.getLogger()
    handlers, level, own = list(root.handlers), root.level, nat.LOG.level

    def run(*args, input=b""):
        stdin = types.SimpleNamespace(buffer=io.BytesIO(input), isatty=lambda: False)
        monkeypatch.setattr(sys, "stdin", stdin)
        capfdbinary.readouterr()
        status = nat.main(arguments(args))
        out, err = capfdbinary.readouterr()
        return Result(int(status), out, err.decode())

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)
    nat.LOG.setLevel(own)


@pytest.fixture
def warnings_said(monkeypatch):
    """What the program warns of."""
    said = []
    monkeypatch.setattr(nat, "warn", said.append)
    return said
