#!/usr/bin/env python3
# PYTHON_ARGCOMPLETE_OK
"""Neural Audio Tokenizer ("Tim's Ears"): sound in, tokens out that a language model can read.

Four semantic (S0-S3) and four acoustic (A0-A3) codes stand for every 23 ms of any sound. Each
code carries a gloss that was measured, so an LLM that never saw these tokens can reason on them.

    python neural_audio_tokenizer.py --all-outputs --output-dir out/ song.wav
    python neural_audio_tokenizer.py --ndjson-streaming song.flac | head
    python neural_audio_tokenizer.py --decode out/song_tokens.ndjson --format json

The map. Facts stand at the top, acts at the bottom; a section uses only those named beside it.
`grep -n '^# [0-9]' neural_audio_tokenizer.py` prints where each begins.

     1 Vocabulary                        uses -
     2 Errors and optional packages      uses 1
     3 Audio                             uses 1 2
     4 Signal analysis                   uses 1
     5 Extractors                        uses 1 2 4
     6 Quantization                      uses 1
     7 Calibration and cache             uses 1 2 4 5 6
     8 Tokenizer                         uses 1-7
     9 Token stream                      uses 1 2
    10 Reading                           uses 1 2 4 6 7 9
    11 Evaluation                        uses 1 4 5 6 7 9 10
    12 Figures and report                uses 1 2 3 4 5 6 9 10 11
    13 Runs                              uses 1-12
    14 Upkeep                            uses 1 2 3 4 5 7 8
    15 Command line                      uses 1 2 3 4 9 11 12 13 14

Letters used throughout: T frames (time first), D feature dimensions, K codes in a codebook,
Q codebooks (quantizers) in a chain.
"""

# /// script
# requires-python = ">=3.9"
# dependencies = [
#     "numpy>=1.22",
#     "soundfile>=0.12",
#     "librosa>=0.10",
#     "matplotlib>=3.6",
#     "torch>=2.4,<2.12",
#     "torchaudio>=2.4,<2.12",
#     "transformers>=4.40",
#     "mir_eval>=0.7",
# ]
# ///

from __future__ import annotations

import argparse
import base64
import collections
import contextlib
import ctypes
import enum
import errno
import functools
import hashlib
import html
import importlib
import importlib.util
import inspect
import io
import itertools
import json
import logging
import math
import numbers
import os
import pickle
import queue
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unicodedata
import urllib.parse
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import (
    Any,
    BinaryIO,
    Callable,
    Collection,
    Container,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    NamedTuple,
    NoReturn,
    Sequence,
    Union,
)

if sys.version_info < (3, 9):
    raise (SystemExit if __name__ == "__main__" else ImportError)(
        "neural_audio_tokenizer.py needs Python 3.9 or newer, this is " + sys.version.split()[0]
    )
if __name__ == "__main__":
    # Many small products: OpenBLAS's threads would wait for each other longer than they work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402

LOG = logging.getLogger("neural_audio_tokenizer")
# What a library's user needs; `Audio` and `RawFormat` are what these take and give.
__all__ = [
    "Audio", "AudioError", "Codes", "Hearing", "Likeness", "MissingError", "RawFormat", "Settings",
    "Tokenizer", "TokenizerError", "UsageError", "compare", "count_llm_tokens", "hear",
    "live_lines", "open_audio",
]  # fmt: skip


# 1 Vocabulary ------------------------------------------------------------------------------------
# Uses: nothing. Constants with their units, the settings and the error of a wrong one, and the
# types that flow.

PROGRAM = "neural-audio-tokenizer"
VERSION = "0.1.0"
SCHEMA = "tims-ears"
FORMAT_VERSION = "2.0"

# Half a CD's rate: the octave above 11 kHz is given up for half the work.
SAMPLE_RATE = 22050  # Hz, the analysis rate unless --resample says otherwise
# Time, not samples: a frame lasts as long, and a code means as much, at any analysis rate.
HOP_FRACTION = 512 / 22050  # seconds a frame, at any analysis rate
CODEBOOK_SIZE = 1000  # codes 0-999: at most three digits, one LLM token each
NUM_QUANTIZERS = 4  # codebooks in each of the two chains
# A power of two, so that going to whole multiples and back loses no bit.
GRID = 1 / 64  # features and codewords are whole multiples of it, so sums of squares are exact
RAW_ENCODINGS = ("u8", "s8", "s16le", "s16be", "s24le", "s32le", "f32le", "f64le")
ENCODINGS = ("dense", "rle")
LEAST_BUDGET = 60  # LLM tokens in which a page says anything


class Layer(NamedTuple):
    """One of the eight codes of a frame, and the side of sound it listens to."""

    name: str
    kind: str
    reads: str


LAYERS = (
    Layer("S0", "semantic", "scene over two seconds: bands, texture, spread"),
    Layer("S1", "semantic", "harmony over two seconds: pitch classes"),
    Layer("S2", "semantic", "pulse over four seconds: onsets, period, regularity"),
    Layer("S3", "semantic", "what S0-S2 leave over"),
    Layer("A0", "acoustic", "loudness and timbre now: level, brightness, formants"),
    Layer("A1", "acoustic", "pitch and fine spectrum now"),
    Layer("A2", "acoustic", "change now: attack, decay or steady, in which band"),
    Layer("A3", "acoustic", "what A0-A2 leave over"),
)
LAYER_NAMES = tuple(layer.name for layer in LAYERS)


EAR_NAMES = ("mert", "wav2vec2", "mert+wav2vec2", "spectral", "audio", "random")


class RawFormat(NamedTuple):
    """How bytes that no decoder knows are read as PCM."""

    encoding: str = "u8"
    sample_rate: int = 22050
    channels: int = 1


class Source(NamedTuple):
    """What is known of a sound before it has been read; `duration` in seconds where declared."""

    name: str
    kind: str
    sample_rate: int
    channels: int
    duration: float | None = None


class ExitStatus(enum.IntEnum):
    """What the program's exit status says."""

    OK = 0
    INPUT_FAILED = 1
    USAGE = 2
    MISSING = 3
    # 128 + SIGINT, as shells report it
    INTERRUPTED = 130


class TokenizerError(Exception):
    """Base of all errors whose message is meant for the user."""

    status = ExitStatus.INPUT_FAILED


class UsageError(TokenizerError, ValueError):
    """The command line, or a field of Settings, asks for something that cannot be."""

    status = ExitStatus.USAGE


# What a field of Settings, and the option that sets it, may be: lowest, highest, kind of number.
RANGES: dict[str, tuple[float, float, type]] = {
    "mert_layer": (0, 48, int), "wav2vec2_layer": (0, 48, int), "threads": (0, 1024, int),
    "sample_rate": (8000, 48000, int), "codebook_size": (1, 32767, int),  # codes are int16
    # Stages add numbers of their own to it, for which 1000 are kept free: RandomState takes no seed
    # of 2**32 or more.
    "seed": (0, 2**32 - 1001, int), "keyframe_interval": (0.1, 86400, float),
    "max_llm_tokens": (LEAST_BUDGET, 1e6, int), "max_duration": (0.001, 1e7, float),
    "view_from": (0, 1e7, float), "view_to": (0, math.inf, float),
}  # fmt: skip
CHOICES = {
    "codebook_init": EAR_NAMES, "precision": ("auto", "fp32", "bf16"),
    "viz_theme": ("light", "dark"),
}  # fmt: skip
# Of the other fields: what tells whether a value may be, and what to call all that may.
RULES: dict[str, tuple[Callable[[Any], Any], str]] = {
    # By its form alone: whether it is there only torch knows, which takes seconds to load.
    "device": (lambda value: re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", str(value)),
               "auto, cpu, cuda, cuda:N or mps"),
    "raw": (lambda value: value is None or isinstance(value, RawFormat), "a RawFormat"),
    "encodings": (lambda value: isinstance(value, tuple) and len(value) == len(LAYERS)
                  and set(value) <= set(ENCODINGS), "a tuple of eight, each dense or rle"),
    **{name: (known.__contains__, f"one of {', '.join(known)}") for name, known in CHOICES.items()},
}  # fmt: skip


def number_in(value: Any, low: float, high: float, kind: type = float) -> Any:
    """The number of a kind that a value is; ValueError if it is none from low to high."""
    # NaN compares as false with everything; True is a number to Python.
    fits = isinstance(value, numbers.Real) and not isinstance(value, bool) and low <= value <= high
    if not fits or kind(value) != value:
        whole = "whole " if kind is int else ""
        raise ValueError(f"{value!r:.60} is not a {whole}number from {low:.12g} to {high:.12g}")
    return kind(value)


def check_setting(name: str, value: Any, usual: Any) -> Any:
    """What a field of Settings will hold; UsageError by its name if it may not be that."""
    if name in RANGES:
        try:
            return number_in(value, *RANGES[name])
        except ValueError as error:
            raise UsageError(f"{name}: {error}") from None
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    fits, words = isinstance(value, str) or value is usual is None, "text"
    if isinstance(usual, bool):
        fits, words = isinstance(value, bool), "True or False"
    elif name in RULES:
        fits, words = RULES[name][0](value), RULES[name][1]
    if not fits:
        raise UsageError(f"{name}: {value!r:.60} is not {words}")
    return value


@dataclass(frozen=True)
class Settings:
    """All that decides the codes and the stream, gathered once; a UsageError names what cannot be.

    Attributes
    ----------
    """

    codebook_init: str = "mert"  # which ear, and so where the codebooks' seeds come from
    fallback: bool = True  # the spectral ear stands in where that ear cannot be had
    mert_model: str = "m-a-p/MERT-v1-95M"  # name on the hub, or a directory
    wav2vec2_model: str = "facebook/wav2vec2-base"  # likewise
    model_revision: str | None = None  # commit on the hub; None: the one pinned for the model
    mert_layer: int = 7  # hidden state that is listened to; the layers above are not loaded
    wav2vec2_layer: int = 7  # likewise
    offline: bool = False  # never ask the hub
    precision: str = "auto"  # fp32, bf16, or auto: fp32 on a CPU, bf16 on CUDA
    deterministic: bool = False  # nothing in torch that may change bytes between runs
    threads: int = 0  # of torch on the CPU; 0: its own choice
    device: str = "auto"  # of the neural ears
    save_features: bool = False  # keep the features as well as the codes
    sample_rate: int = SAMPLE_RATE  # Hz every sound is resampled to before it is heard
    codebook_size: int = CODEBOOK_SIZE  # codes in each layer's codebook
    seed: int = 12342  # of the ear-training suite, k-means++ and dead-code renewal
    adapt: bool = False  # move the codebooks by EMA towards the given sound first
    raw: RawFormat | None = None  # read the input as this PCM, whatever it looks like
    any_bytes: bool = False  # hear bytes of no known format as u8 PCM; else they are an error
    encodings: tuple[str, ...] = ("dense",) * 8  # of each layer, in the order of LAYERS
    keyframe_interval: float = 5.0  # seconds between frames that restate every layer
    legend: bool = True  # write a legend line before a code's first frame
    compat_fallback: bool = False  # behave as if only numpy were installed
    cache_dir: str | None = None  # where codebooks are kept; None: the XDG cache directory
    use_cache: bool = True  # read and write that cache
    force_reinit: bool = False  # fit the codebooks again even if they are cached
    max_llm_tokens: int = 4000  # what the view for an LLM may cost
    prompt: bool = True  # begin the view with a primer and end it with questions
    observations: bool = True  # state what was measured beside the codes
    viz_theme: str = "light"  # of the pictures
    budget_report: bool = False  # say what each format costs an LLM
    evaluate: bool = False  # say how good codes and reconstruction are
    view_from: float = 0.0  # seconds, where the view begins
    view_to: float = math.inf  # seconds, where it ends
    max_duration: float = 86400.0  # seconds after which a sound is refused
    live: bool = False  # stdin is a microphone: never let it wait, say when it is read late
    quiet: bool = False  # no progress on stderr, only warnings and errors

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            object.__setattr__(self, name, check_setting(name, value, getattr(Settings, name)))
        if self.view_from >= self.view_to:
            between = f"{self.view_from:g} and {self.view_to:g} s"
            raise UsageError(f"a view ends after it begins: nothing lies between {between}")

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next (512 at 22,050 Hz)."""
        return max(1, round(self.sample_rate * HOP_FRACTION))

    @property
    def frame_rate(self) -> float:
        """Frames a second (43.066 at 22,050 Hz)."""
        return self.sample_rate / self.hop_length

    @property
    def view_frames(self) -> tuple[int, int]:
        """First frame of the stretch that views show, and the one after its last."""
        # Infinity, which --to is if not given, has no whole number; no sound has 1e12 frames.
        first, stop = (
            math.ceil(min(second * self.frame_rate, 1e12))
            for second in (self.view_from, self.view_to)
        )
        return first, stop


def field_notes(kind: type) -> str:
    """The comments beside a dataclass's fields, above, as numpydoc has them."""
    try:
        with open(__file__, encoding="utf-8") as file:
            text = file.read(1 << 15)  # sections 0 and 1, where such classes stand
    except (OSError, ValueError):  # compiled, and its source not here
        return ""
    body = text[text.index(f"\nclass {kind.__name__}:") :].split("\n    def ")[0]
    found = re.findall(r"^    (\w+: .+? = .+?)  # (.+)$", body, re.MULTILINE)
    return "".join(f"\n{field}\n    {note}" for field, note in found)


# From the source, so that a field is explained once: where it is declared.
Settings.__doc__ = inspect.cleandoc(Settings.__doc__ or "") + field_notes(Settings)
DEFAULTS = Settings()


class Audio:
    """A sound being read: mono float32 blocks at one rate, to be iterated once.

    Parameters
    ----------
    source : Source
        What was known before reading.
    sample_rate : int
        Rate of the blocks in Hz.
    blocks : iterator of ndarray, float32 [n]
        The sound, downmixed and resampled, in full scale +-1.
    digest : hash object
        Grows with every decoded sample (float32, little endian, interleaved, before downmix).
    """

    def __init__(
        self, source: Source, sample_rate: int, *, blocks: Iterator[np.ndarray], digest: Any
    ) -> None:
        self.source, self.sample_rate = source, sample_rate
        self.samples = 0  # that were handed out so far
        self._blocks, self._digest = blocks, digest

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self.samples += len(block)
            yield block

    @property
    def seconds(self) -> float:
        """Length of what was handed out so far, of the sound once the blocks have ended."""
        return self.samples / self.sample_rate

    @property
    def sha256(self) -> str:
        """Hash of what has been decoded so far, whole once the blocks have ended."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Release the file, pipe or decoder behind the blocks."""
        close = getattr(self._blocks, "close", None)
        if close:
            close()

    def __enter__(self) -> Audio:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


# What may be heard; see open_audio()
Sound = Union[str, "os.PathLike[str]", bytes, BinaryIO, np.ndarray, Iterable[Any], Audio]


# No generated ==: compared arrays give an array, which has no truth value.
@dataclass(frozen=True, eq=False)
class Codes:
    """A sound as codes; NumPy takes it for its array.

    Attributes
    ----------
    array : ndarray, int16 [T, 8]
        A code of 0 to codebook_size - 1 for every frame and layer, S0 to S3 and A0 to A3.
        Read-only; np.array(codes) is a copy that may be written.
    frame_rate : float
        Frames a second.
    seconds : float
        Length of the sound; its last frame may be a part of one.
    codebook_id : str
        Name of the codebooks: equal names, equal meaning of every code.
    codebook_size : int
        Codes in each layer's codebook.
    """

    array: np.ndarray
    frame_rate: float
    seconds: float
    codebook_id: str
    codebook_size: int = CODEBOOK_SIZE

    def __post_init__(self) -> None:
        # A frozen dataclass guards its names only; what an array holds could still be changed.
        self.array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.array)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Codes):
            return NotImplemented
        same = self.codebook_id == other.codebook_id and self.seconds == other.seconds
        return same and np.array_equal(self.array, other.array)

    def __hash__(self) -> int:
        return hash((self.codebook_id, self.array.tobytes()))

    def __repr__(self) -> str:
        return f"Codes({len(self)} frames, {self.seconds:.1f} s, {self.codebook_id})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        # NumPy 2 passes `copy` and warns where it cannot; NumPy 1 does not know it.
        return np.array(self.array, dtype) if copy else np.asarray(self.array, dtype)

    @property
    def times(self) -> np.ndarray:
        """Seconds at which the frames begin, float64 [T]."""
        return np.arange(len(self)) / self.frame_rate


@dataclass(frozen=True)
class Outputs:
    """What to write, and where."""

    formats: tuple[str, ...] = ("ndjson",)  # names in SINKS
    folder: Path | None = None  # files named after the input go here
    path: Path | None = None  # or one file, under this very name
    metrics: Path | None = None  # the metrics once more, under this name
    stdout: str | None = None  # the format that goes to stdout
    force: bool = False  # overwrite what exists
    viz_format: str = "png"  # of the pictures
    own: frozenset[str] = frozenset()  # names in the folder that may be replaced without force

    def may_replace(self, path: Path) -> bool:
        """Whether a file that exists may be written anew."""
        return self.force or path.name in self.own


# 2 Errors and optional packages ------------------------------------------------------------------
# Uses: 1. One error family with the exit status it leads to; what may be missing, and for what.


# Once, at import: the mask is the whole process's, and a file that another thread made in
# between would get the wrong rights.
UMASK = os.umask(0o022)
os.umask(UMASK)  # reading the mask is only possible by setting it
LOG_SECONDS = 60.0  # between two lines of progress in a log


class AudioError(TokenizerError):
    """This input cannot be heard."""


class StreamError(TokenizerError):
    """This token stream cannot be read."""


class OutputError(TokenizerError):
    """This output cannot be written."""


class MissingError(TokenizerError):
    """A package, program or model that was asked for is not here."""

    status = ExitStatus.MISSING


class Package(NamedTuple):
    """An optional package: what it serves, and the line that installs it."""

    purpose: str
    install: str


PACKAGES = {
    "soundfile": Package("FLAC, OGG, Opus, MP3, AIFF and compressed WAV", "pip install soundfile"),
    "soxr": Package("high-quality streaming resampling", "pip install soxr"),
    "librosa": Package("soxr, which comes with it", "pip install librosa"),
    "matplotlib": Package("pictures", "pip install matplotlib"),
    "torch": Package("the neural ears", "pip install 'torch>=2.4,<2.12' 'torchaudio>=2.4,<2.12'"),
    "torchaudio": Package("resampling on a GPU", "pip install 'torchaudio>=2.4,<2.12'"),
    "transformers": Package("the neural ears' architectures", "pip install transformers"),
    "mir_eval": Package("onset and tempo agreement", "pip install mir_eval"),
    "tomli": Package("TOML before Python 3.11 (JSON needs nothing)", "pip install tomli"),
    "argcomplete": Package(
        "completion in a shell",
        "pip install argcomplete, then put"
        ' eval "$(register-python-argcomplete neural_audio_tokenizer.py)" into ~/.bashrc',
    ),
}


@functools.lru_cache(maxsize=None)
def load_package(name: str) -> tuple[Any, str]:
    """Import an optional package once; its module and "", or None and one sentence on why not."""
    try:
        return importlib.import_module(name), ""
    except ImportError as error:  # of another module than this one: that has to be named
        why = "" if getattr(error, "name", name) == name else f" ({error})"
        return None, f"{name} is not installed{why}"
    except Exception as error:  # a broken binary may raise anything; it costs this package only
        return None, f"{name} is installed but does not load ({type(error).__name__}: {error})"


def available(name: str, settings: Settings) -> bool:
    """Whether an optional package loads and may be used."""
    return not settings.compat_fallback and load_package(name)[0] is not None


def require(name: str) -> Any:
    """An optional package's module; a MissingError that says what it serves and how to get it."""
    module, reason = load_package(name)
    if module is None:
        package = PACKAGES[name]
        raise MissingError(f"{reason}; it is needed for {package.purpose}: {package.install}")
    return module


@functools.lru_cache(maxsize=1)
def bpe_counter() -> Callable[[str], int] | None:
    """Counter of a real BPE, where tiktoken and its vocabulary are on this machine already."""
    tiktoken, _ = load_package("tiktoken")
    if tiktoken is None or not os.path.isdir(os.environ.get("TIKTOKEN_CACHE_DIR", "")):
        return None  # without a vocabulary at hand tiktoken would ask the network
    try:
        encoding = tiktoken.get_encoding("cl100k_base")
    except (OSError, ValueError):
        return None
    # a sound's name may spell a special token, which encode() would refuse otherwise
    return lambda text: len(encoding.encode(text, disallowed_special=()))


def warn(message: str) -> None:
    """Say one line on stderr."""
    LOG.warning(message)


# What unfinished files are called.
PART_FILE = re.compile(r"\.tims-ears-(?P<place>[0-9a-f]{8})-(?P<pid>\d{1,9})-\w+\.part")


@functools.lru_cache(maxsize=1)
def this_place() -> str:
    """Short hash of where this process's number counts: machine and container."""
    # a process number means nothing on another machine or in a container that shares the folder
    facts = [os.uname().nodename] if hasattr(os, "uname") else []
    with contextlib.suppress(OSError):
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256(" ".join(facts).encode()).hexdigest()[:8]


def own_prefix() -> str:
    """How this process's unfinished files begin."""
    return f".tims-ears-{this_place()}-{os.getpid()}"


def is_running(pid: int) -> bool:
    """Whether there is a process of this number, one that only waits to be buried apart."""
    try:
        # signal 0 reaches nobody, it only asks
        os.kill(pid, 0)
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's, or this system has no such folder
        return True


def sweep(folder: Path) -> None:
    """Remove the unfinished files of processes that ran here and are no more."""
    with contextlib.suppress(OSError):
        # not on Windows, where os.kill(pid, 0) is no question but a Ctrl-C
        for name in os.listdir(folder) if os.name == "posix" else ():
            part = PART_FILE.fullmatch(name)
            if part and part["place"] == this_place() and not is_running(int(part["pid"])):
                (folder / name).unlink()


def publish(temporary: str, path: Path) -> None:
    """Give a file a name that must be free, in one step where there are hard links."""
    try:
        # a link refuses a name that is taken; a rename would replace it, whoever was faster
        os.link(temporary, path)
    except OSError as error:
        if isinstance(error, FileExistsError) or path.exists():
            raise FileExistsError from None
        os.replace(temporary, path)


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Make an OSError an OutputError that names what was written; not that a reader went away."""
    try:
        yield
    except BrokenPipeError:  # of another sink
        raise
    except FileExistsError:
        raise OutputError(f"{path} exists; --force overwrites it") from None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


@contextlib.contextmanager
def answering(answer: Callable[..., Any], *numbers: int) -> Iterator[None]:
    """Let a function answer signals; only in the main thread, as no other may ask for them."""
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, answer) for number in numbers if here}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def descriptor_of(path: str | Path) -> int | None:
    """Number of the open file that /dev/stdout, /dev/fd/3 or a link to such a name stands for."""
    place, numbers = os.fspath(path), ("/dev/fd", os.path.realpath("/dev/fd"))
    for _ in range(40):  # as many links as systems follow
        folder, name = os.path.split(os.path.abspath(place))
        if name.isdecimal() and os.path.realpath(folder) in numbers:
            return int(name)
        if not os.path.islink(place):
            break
        place = os.path.join(folder, os.readlink(place))
    return None


def is_stream(path: Path) -> bool:
    """Whether a path is an open file's number or a device like /dev/null: nothing to replace."""
    try:
        return descriptor_of(path) is not None or stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        return False


@contextlib.contextmanager
def held_back(file: BinaryIO) -> Iterator[BinaryIO]:
    """Write to a file only when all went well; what exceeds 64 MiB waits on disk."""
    with tempfile.SpooledTemporaryFile(max_size=1 << 26) as held:
        yield held
        held.seek(0)
        shutil.copyfileobj(held, file)
        file.flush()


@contextlib.contextmanager
def whole_file(path: Path, *, force: bool = True) -> Iterator[BinaryIO]:
    """Open a file that appears under its final name only when whole, and synced to disk.

    A link stays a link: what it leads to is replaced. A stream (see is_stream) is written at once.
    An OutputError if it cannot be written, or may not replace (`force`) what is there; nothing is
    left behind.
    """
    if is_stream(path):
        number = descriptor_of(path)
        with writing(path), open(path if number is None else os.dup(number), "wb") as stream:
            with held_back(stream) as file:
                yield file
        return
    temporary, target = "", Path(os.path.realpath(path)) if path.is_symlink() else path
    try:
        with writing(path):
            # in the same folder, because a file cannot be renamed into another file system
            handle, temporary = tempfile.mkstemp(".part", own_prefix() + "-", target.parent)
            with os.fdopen(handle, "wb") as file:
                yield file
                # before the renaming, or a crash may leave the final name on an empty file
                file.flush()
                os.fsync(file.fileno())
            # mkstemp lets nobody but its owner read; an output has the rights of any new file
            os.chmod(temporary, 0o666 & ~UMASK)
            (os.replace if force else publish)(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # there is none left where all went well


OPENBLAS_CALLS = (  # in NumPy's wheels from 2.0 on, in those before it, in a distribution's own
    "scipy_openblas_{}_num_threads64_", "scipy_openblas_{}_num_threads",
    "openblas_{}_num_threads64_", "openblas_{}_num_threads",
)  # fmt: skip


@functools.lru_cache(maxsize=1)
def blas_threads() -> tuple[Callable[[], int], Callable[[int], object]] | None:
    """What tells and what sets how many threads NumPy's OpenBLAS uses; None if it has another."""
    core = getattr(np, "_core", None) or np.core  # its name before NumPy 2
    with contextlib.suppress(OSError, AttributeError):
        # a library that is loaded already; a name is looked up in what it was linked to as well
        library = ctypes.CDLL(core._multiarray_umath.__file__)
        for name in OPENBLAS_CALLS:
            if hasattr(library, name.format("set")):
                return library[name.format("get")], library[name.format("set")]
    return None


class OneBlasThread(contextlib.ContextDecorator):
    """While it is entered, NumPy's OpenBLAS works on one thread; afterwards on as many as before.

    Of products as small as ours its threads wait for each other longer than they work: on busy
    cores that is ten times as slow. The number is the process's, so what else multiplies at that
    time does so on one thread as well.
    """

    def __init__(self) -> None:
        self._lock, self._depth, self._before = threading.Lock(), 0, 1

    def _count(self, step: int) -> None:
        """Several threads may be inside: the first sets the number, the last one sets it back."""
        calls = blas_threads()
        with self._lock:
            outside, self._depth = self._depth == 0, self._depth + step
            if calls and outside:
                self._before = calls[0]()
                calls[1](1)
            elif calls and not self._depth:
                calls[1](self._before)

    def __enter__(self) -> OneBlasThread:
        self._count(1)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._count(-1)


ONE_BLAS_THREAD = OneBlasThread()


class Progress:
    """A bar on the terminal for what takes time; a line a minute in a log; nothing when quiet."""

    def __init__(self, label: str, total: float, settings: Settings) -> None:
        self._label, self._total, self._done = label, total, 0.0
        self._quiet = settings.quiet
        self._bar = not settings.quiet and sys.stderr.isatty()
        self._said = time.monotonic()

    def __enter__(self) -> Progress:
        if self._bar:
            # a filter is asked before any handler writes: just in time to clear the line
            LOG.addFilter(self._make_room)
        elif not self._quiet:
            LOG.info("%s ...", self._label)
        self.tick(0)
        return self

    def tick(self, amount: float = 1.0, note: str = "") -> None:
        """Say that so much more is done, and what else is to be told."""
        self._done = min(self._done + amount, self._total)
        share = self._done / max(self._total, 1e-9)
        if self._bar:
            bar = ("#" * round(30 * share)).ljust(30, ".")
            words = f"\r{self._label} [{bar}] {share:4.0%} {note}\x1b[K"
            print(words, end="", file=sys.stderr, flush=True)
        elif not self._quiet and time.monotonic() - self._said >= LOG_SECONDS:
            self._said = time.monotonic()
            LOG.info("%s: %.0f%% %s", self._label, 100 * share, note)

    def _make_room(self, record: logging.LogRecord) -> bool:
        """Take the bar away for a line of words; the next tick draws it again."""
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        return True

    def __exit__(self, *exc_info: object) -> None:
        if self._bar:
            LOG.removeFilter(self._make_room)
            print(file=sys.stderr)


# 3 Audio -----------------------------------------------------------------------------------------
# Uses: 1, 2. A path, a pipe or raw bytes -> hashed, mono float32 blocks at the wanted rate.

MIN_RATE, MAX_RATE = 1000, 768000  # Hz, what may be the rate of a sound
MAX_CHANNELS = 64  # seventh-order ambisonics; more is a lying header
LOUDEST = 32768.0  # full scale of float sound kept on the scale of 16-bit integers; more is clipped
# A megabyte of float32, however many channels share it.
BLOCK_SAMPLES = 1 << 18  # samples of all channels that are decoded at once, at most
# What stands before the sound is held in memory, so a header that never ends has to end here.
WAV_HEADER_LIMIT = 1 << 24  # bytes before the sound, at most
# A gigabyte at most.
BACKLOG_PIECES = 1 << 14  # of up to 64 KB that a live source may be ahead, before it has to wait
BEHIND_SECONDS, BEHIND_INTERVAL = 2.0, 10.0  # how late is told of, and how often
RESAMPLE_BLOCKS = 50  # blocks a second that go into a resampler: 20 ms each, at any rate
MATRIX_OUTPUTS = 32  # outputs that one matrix of the NumPy resampler makes
ZERO_CROSSINGS = 80  # of the NumPy resampler's sinc, on either side
# Kaiser's rule: beta = 0.1102 (A - 8.7) for a stop band that is A dB down.
KAISER_BETA = 11.6  # about 115 dB of stop band
# Mono: seconds of a stretch; the share of the channels' power (-20 dB) that is left of them where
# they are opposite; how much more power than before (6 dB) is a beginning; and what is none.
MIX_SECONDS, HIDDEN, BEGINS, SILENT_POWER = 0.1, 0.01, 4.0, 1e-10
ROLLOFF = 0.955  # cut-off as a part of the lower Nyquist rate; soxr HQ passes 0.913 of it
TABLE_PHASES = 512  # rows of the sinc table that odd ratios of rates interpolate in
RAW_HINT = "--raw, or Settings(raw=...), reads its bytes as samples"
BYTES = bytes, bytearray, memoryview
SOUND_KINDS = "give a path, bytes, a file opened as bytes, or samples [n] or [n, channels]"
LONGEST_PATH = 4096  # characters of a path that a message repeats
WIDE_PEAK = 2.0**-8  # of full scale: 24 bits of sound in 32 reach no further
FFMPEG_HINT = "apt install ffmpeg, brew install ffmpeg, or convert the input to WAV"

# Three bytes, 24 bits, are widened to the upper three bytes of 32
PCM_TYPES = {"u8": "u1", "s8": "i1", "s16le": "<i2", "s16be": ">i2", "s24le": "<i4",
             "s32le": "<i4", "f32le": "<f4", "f64le": "<f8"}  # fmt: skip
WAV_PCM, WAV_FLOAT, WAV_EXTENSIBLE = 1, 3, 0xFFFE
# An extensible format's GUID is the old tag and these bytes; vendors' and ambisonic ones differ.
WAV_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
WAV_ENCODINGS = {WAV_PCM: {8: "u8", 16: "s16le", 24: "s24le", 32: "s32le"},
                 WAV_FLOAT: {32: "f32le", 64: "f64le"}}  # fmt: skip
# What programs that cannot seek back write for a length: ffmpeg, GStreamer, sox, espeak-ng, arecord
# Ranges, because some leave room for a header or round down.
WAV_PLACEHOLDERS = (range(0, 1), range(0x7FFFEF00, 0x80000101), range(0xFFFFEF00, 0x100000000))
# MPEG-TS is known by a G every 188 bytes, and one G alone by nothing.
HEAD_BYTES = 4 * 188 + 1  # enough for every pattern below
# Longer than the bare magic words where more can be checked: unknown bytes are heard as raw PCM,
# and a chance match would refuse them.
MAGIC = re.compile(
    rb"(?P<WAV>(?:RIFF|RF64)....WAVE)|(?P<RIFX>RIFX....WAVE)|(?P<W64>riff\x2e\x91\xcf\x11)"
    rb"|(?P<AIFF>FORM....(?:AIFF|AIFC|8SVX))|(?P<FLAC>fLaC[\0\x80])|(?P<OGG>OggS\0)"
    rb"|(?P<CAF>caff\0\x01)|(?P<AU>\.snd\0\0|dns\..\0\0\0)|(?P<MP3>ID3[\x02-\x04])"
    rb"|(?P<VOC>Creative Voice File\x1a)|(?P<SPHERE>NIST_1A\n)|(?P<ffmpeg>"
    # MP4, Matroska or WebM, WMA or ASF, AVI, BW64, FLV, MPEG-PS, MPEG-TS
    rb"....(?:ftyp|moov|mdat)|\0\0\0\x08(?:wide|free|skip)|\x1a\x45\xdf\xa3"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11|RIFF....AVI |BW64....WAVE|FLV\x01|\0\0\x01\xba"
    rb"|(?:G.{187}){4}G"
    # WavPack, Monkey's Audio, Musepack, TTA, DSD, AMR, RealAudio, AC-3, DTS
    rb"|wvpk|MAC .[\x0e-\x10]|MPCKSH|MP\+[\x07\x17]|TTA1[\x01-\x03]\0|DSD \x1c|FRM8\0|#!AMR|\.RMF"
    rb"|\.ra\xfd|\x0b\x77|\x7f\xfe\x80\x01)",
    re.DOTALL,
)
# What holds no sound and is named by its kind, before its bytes are heard all the same.
KINDS = {
    "MIDI holds notes, no sound: render it first (fluidsynth -F out.wav SOUNDFONT.sf2 FILE)":
        re.compile(rb"MThd|RIFF....RMID", re.DOTALL),
    "a picture or a PDF":
        re.compile(rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|%PDF-", re.DOTALL),
    "an archive or office document (unpack it)":
        re.compile(rb"PK\x03\x04|\x1f\x8b\x08|BZh|7z\xbc\xaf|\xfd7zXZ"),
    "text (if it lists sounds: --stdin --batch < FILE)":  # UTF-8, cut anywhere, no control bytes
        re.compile(rb"(?:[\t-\r\x1b -~]|[\xc2-\xf4][\x80-\xbf]{1,3})+"
                   rb"[\xc2-\xf4]?[\x80-\xbf]{0,2}\Z"),
}  # fmt: skip
# How our own streams and JSON files begin, which would be heard as noise.
STREAM_START = re.compile(rb'(?:\{"header":)?\{"event":"header","schema":"%s"' % SCHEMA.encode())
AUDIO_EXTENSIONS = (
    ".wav .wave .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .au .snd .w64 .rf64 .caf .m4a .mp4"
    " .aac .wma .webm .mka .mkv .mov .avi .amr .ac3 .wv .ape"
).split()
# kbit/s by version (3: MPEG-1), layer (2: II, 1: III) and index 1-14 (ISO 11172-3, 2.4.2.3)
MPEG_KBPS = {
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
MPEG2_KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # both layers
MPEG_KBPS.update(dict.fromkeys(((2, 2), (2, 1), (0, 2), (0, 1)), MPEG2_KBPS))
MPEG_RATES = (44100, 48000, 32000)  # Hz of MPEG-1; MPEG-2 has half, MPEG-2.5 a quarter
Blocks = Iterator[np.ndarray]  # float32 [n, channels], or [n] once it is mono


class ByteReader:
    """Bytes of a file or pipe in order and as they arrive, with a look ahead."""

    def __init__(self, file: Any) -> None:
        # read1 hands on what a pipe holds now; read would wait until a whole buffer is full
        self._read = getattr(file, "read1", file.read)
        self._ahead = b""
        self.position = 0

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end, and leave them to be read."""
        # 4 KB at least, or a header would be fetched in sips of a few bytes
        while len(self._ahead) < size and (data := self._read(max(size - len(self._ahead), 4096))):
            self._ahead += data
        return self._ahead[:size]

    def read(self, size: int) -> bytes:
        """Return what is there now, at most `size` bytes; none only at the end."""
        data = self._ahead[:size] or self._read(size)
        self._ahead = self._ahead[size:]
        self.position += len(data)
        return data

    def blocks(self, size: int, limit: int | None = None) -> Iterator[bytes]:
        """Yield bytes as they come, at most `size` at once and `limit` in all."""
        while data := self.read(size if limit is None else min(size, limit)):
            limit = None if limit is None else limit - len(data)
            yield data


class Input(NamedTuple):
    """What is to be decoded, and what to let go afterwards; a pipe has neither path nor size."""

    name: str
    path: str | None
    size: int | None
    reader: ByteReader
    stack: contextlib.ExitStack


class Decoded(NamedTuple):
    """A sound as its decoder gives it."""

    source: Source
    blocks: Blocks


def visible(text: str, limit: int = 120) -> str:
    """Drop control and format characters, show bytes that were no UTF-8 as U+FFFD, cut."""
    kinds = ((char, unicodedata.category(char)) for char in text)
    # Cf has the marks that turn the reading direction, by which a name can pose as another
    hidden = ("Cc", "Cf", "Zl", "Zp")  # control, format, line, paragraph
    return "".join("\ufffd" if k == "Cs" else char for char, k in kinds if k not in hidden)[:limit]


@contextlib.contextmanager
def speaking_of(name: str) -> Iterator[None]:
    """Put the input's name before every message, and make OSError an AudioError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise AudioError(f"{name}: cannot be read ({reason}); check the file or pipe") from error
    except TokenizerError as error:
        raise type(error)(f"{name}: {error}") from error


def guarded(blocks: Blocks, name: str, *, stack: contextlib.ExitStack) -> Blocks:
    """Pass blocks on under a name for their errors, and let go of all they hold at any end."""
    # closing the generator ends up here as well, so a reader may stop wherever it likes
    with stack, speaking_of(name):
        yield np.zeros(0, np.float32)  # a generator cleans up only if it was started: it is here
        yield from blocks


def check_shape(sample_rate: int, channels: int) -> None:
    """AudioError unless there are 1 to MAX_CHANNELS channels at MIN_RATE to MAX_RATE Hz."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(f"claims {channels} channels; 1 to {MAX_CHANNELS} can be read")
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        span = f"{MIN_RATE} to {MAX_RATE} Hz can be read"
        raise AudioError(f"claims a sample rate of {sample_rate} Hz; {span}")


def block_frames(sample_rate: int, channels: int) -> int:
    """Sample frames to decode at once: a second, or less where that would be much memory."""
    return max(1, min(sample_rate, BLOCK_SAMPLES // channels))


def rechunk(blocks: Iterable[np.ndarray], size: int) -> Blocks:
    """Yield the same rows, [n] or [n, C], in blocks of `size`, the last one shorter."""
    held: list[np.ndarray] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block)
        if count >= size:
            rows = np.concatenate(held) if len(held) > 1 else block
            whole = count - count % size
            yield from (rows[at : at + size] for at in range(0, whole, size))
            held, count = [rows[whole:]] if whole < count else [], count - whole
    if count:
        yield np.concatenate(held)


def frame_bytes(form: RawFormat) -> int:
    """Bytes that one sample of every channel takes."""
    return int(re.sub(r"\D", "", form.encoding)) // 8 * form.channels


def decode_pcm(data: bytes, encoding: str) -> np.ndarray:
    """Whole, interleaved samples of one of RAW_ENCODINGS as float32 [n] in full scale +-1.

    Floats are taken as they are, infinities and NaN, too: see tame().
    """
    kind = np.dtype(PCM_TYPES[encoding])
    if encoding == "s24le":
        # the low byte stays zero, so that sign and scale are those of 32 bits
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data = wide.data
    with np.errstate(over="ignore", invalid="ignore"):  # doubles beyond float32 become infinite
        sound = np.frombuffer(data, kind).astype(np.float32)
    if kind.kind == "u":
        sound -= np.float32(128)
    if kind.kind != "f":
        # a power of two: scaling rounds nothing, so 16-bit samples can be had back exactly
        sound *= np.float32(2.0 ** (1 - 8 * kind.itemsize))
    return sound


def pcm_blocks(reader: ByteReader, form: RawFormat, *, limit: int | None = None) -> Blocks:
    """Yield float32 [n, channels] as it comes, without the last frame if it is not whole."""
    frame = frame_bytes(form)
    rest = b""  # a pipe may hand on half a frame
    for data in reader.blocks(block_frames(form.sample_rate, form.channels) * frame, limit):
        data = rest + data
        whole = len(data) - len(data) % frame
        rest = data[whole:]
        if whole:
            yield decode_pcm(data[:whole], form.encoding).reshape(-1, form.channels)


def truncated(promised: int, held: int, sample_rate: int) -> AudioError:
    """Say how much of a sound is missing; `promised` and `held` in sample frames."""
    return AudioError(
        f"truncated: header promises {promised / sample_rate:.3f} s, "
        f"file holds {held / sample_rate:.3f} s; fetch or export it again"
    )


def complete(blocks: Blocks, promised: int, *, sample_rate: int, slack: int = 0) -> Blocks:
    """Pass blocks on; AudioError at an end over `slack` frames before the `promised` ones."""
    held = 0
    for block in blocks:
        held += len(block)
        yield block
    if held < promised - slack:
        raise truncated(promised, held, sample_rate)


def read_pcm(
    given: Input, form: RawFormat, *, kind: str, limit: int | None = None, cut: bool = False
) -> Decoded:
    """Read plain samples front to back, `limit` bytes of them or all, so that a pipe will do.

    An AudioError if no sound has such a shape or the file is shorter than `limit` says; of a pipe
    that is judged while the blocks are read. Where it may be `cut`, an early end is no error.
    """
    if form.encoding not in PCM_TYPES:
        raise UsageError(f"raw encoding {form.encoding} is none of {', '.join(RAW_ENCODINGS)}")
    check_shape(form.sample_rate, form.channels)
    frame, rate, duration = frame_bytes(form), form.sample_rate, None
    if given.size is not None:
        # from here on: a WAV's header has been read already
        left = given.size - given.reader.position
        limit = left if limit is None else limit  # what is appended meanwhile is not heard
        if limit // frame > left // frame:  # known before its use; of a pipe only at its end
            raise truncated(limit // frame, left // frame, rate)
        duration = limit // frame / rate
    blocks = pcm_blocks(given.reader, form, limit=limit)
    if limit is not None and not cut:
        blocks = complete(blocks, limit // frame, sample_rate=rate)
    return Decoded(Source(given.name, kind, rate, form.channels, duration), blocks)


def parse_wav_format(chunk: bytes) -> RawFormat | None:
    """Read a WAV's format chunk; None if its codec is not plain PCM or float; or AudioError."""
    if len(chunk) < 16:
        raise AudioError(f"broken WAV: format chunk of {len(chunk)} bytes; {RAW_HINT}")
    tag, channels, sample_rate, _, align, bits = struct.unpack_from("<HHIIHH", chunk)
    # other tails mean other codecs, which are left to libsndfile
    if tag == WAV_EXTENSIBLE and chunk[26:40] == WAV_GUID_TAIL:
        tag = int.from_bytes(chunk[24:26], "little")
    if tag not in WAV_ENCODINGS:
        return None
    check_shape(sample_rate, channels)
    encoding = WAV_ENCODINGS[tag].get(bits)
    if encoding is None:
        kind = "PCM" if tag == WAV_PCM else "float"
        raise AudioError(f"WAV of {bits}-bit {kind} is not supported; export it as 16 or 24 bit")
    # 24 bits in frames of 32 and the like: read as if packed, they would be noise
    if align != channels * bits // 8:
        shape = f"{channels} channels of {bits} bits in frames of {align} bytes"
        raise AudioError(f"broken WAV: {shape}; {RAW_HINT}")
    return RawFormat(encoding, sample_rate, channels)


def read_wav_header(reader: ByteReader) -> tuple[RawFormat | None, int | None]:
    """Read up to a WAV's sound: format and bytes (None: to the end); no format, nothing read.

    An AudioError if the file ends before its sound, or the header is endless or broken.
    """
    at, name, size, chunk, wide = 12, b"", 0, b"", 0
    while name != b"data":
        # looked at, not read: a WAV of another codec goes to its decoder from the first byte on
        header = reader.peek(at + 8)[at:]
        if len(header) < 8 or at > WAV_HEADER_LIMIT:
            raise AudioError("broken WAV: it ends before its sound; fetch or export it again")
        name, size = header[:4], int.from_bytes(header[4:], "little")
        at += 8
        if name == b"ds64":  # of an RF64 (EBU Tech 3306), whose sizes do not fit where they stand
            wide = int.from_bytes(reader.peek(at + 16)[at + 8 :], "little")
        if name == b"fmt ":
            # the extensible part ends at 40; what the chunk claims beyond may be a lie
            chunk = reader.peek(at + min(size, 40))[at:]
        if name != b"data":
            # RIFF pads chunks to an even length
            at += size + size % 2
    form = parse_wav_format(chunk)
    if form:
        reader.read(at)
    size = wide if size == 0xFFFFFFFF and wide else size
    return form, None if any(size in span for span in WAV_PLACEHOLDERS) else size


def spool(given: Input) -> str:
    """Write a pipe to a temporary file, which goes when the stack closes; its path."""
    # a folder of its own, which no other user may look into
    folder = tempfile.mkdtemp(prefix=PROGRAM + "-")
    given.stack.callback(shutil.rmtree, folder, ignore_errors=True)
    path = os.path.join(folder, "input")  # the input's own name is not to be trusted
    with open(path, "wb") as file:
        file.writelines(given.reader.blocks(BLOCK_SAMPLES))
    return path


def for_libsndfile(file: BinaryIO) -> Any:
    """What soundfile is to be given for an open file: its number, which libsndfile works by."""
    # Through Python it would call back, which swallows a Ctrl-C and prints what a seek cannot do.
    return file.fileno() if os.name == "posix" else file


def soundfile_blocks(file: Any, label: str) -> Blocks:
    """Yield float32 [n, channels] of an open SoundFile."""
    size = block_frames(file.samplerate, file.channels)
    try:
        while len(block := file.read(size, dtype="float32", always_2d=True)):
            yield block
    except require("soundfile").LibsndfileError as error:
        raise AudioError(f"broken {label} ({error.error_string})") from error


def mpeg_frame(head: bytes) -> tuple[str | None, int]:
    """Tell MP3 (or Layer II) and AAC (ISO 13818-7, 6.2) frames, and their length in bytes."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None, 0
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    # layer 0 is AAC; of its sample rates 13 to 15 are reserved
    if layer == 0 and head[1] >= 0xF0 and head[2] >> 2 & 15 <= 12:
        return "ffmpeg", int.from_bytes(head[3:6], "big") >> 5 & 0x1FFF
    kbps, index, rate_index = MPEG_KBPS.get((version, layer)), head[2] >> 4, head[2] >> 2 & 3
    # a free bit rate (0) is allowed, but does not tell where the next frame must be
    if kbps is None or index in (0, 15) or rate_index == 3:
        return None, 0
    rate = MPEG_RATES[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    # a frame has 1152 samples, half of that in Layer III of MPEG-2: 1152 / 8 bits * 1000
    scale = 144000 if version == 3 or layer == 2 else 72000
    return "MP3", scale * kbps[index - 1] // rate + (head[2] >> 1 & 1)


def is_cut(path: str) -> bool:
    """Whether an AIFF or MP3 is shorter than it says or an Ogg lacks its last page (RFC 3533, 6).

    Decoders read such files as if they were whole.
    """
    with open(path, "rb") as file:
        head, start, size = file.read(4096), 0, file.seek(0, os.SEEK_END)
        if head.startswith(b"ID3"):  # a tag, whose size has seven bits a byte, and then the sound
            start = 10 + functools.reduce(lambda all, byte: all << 7 | byte & 127, head[6:10], 0)
            file.seek(start)
            head = file.read(4096)
        # an Ogg page has at most 65,307 bytes, so the last one begins within these
        file.seek(max(0, size - 65536))
        tail = file.read()
    if head.startswith(b"FORM"):
        # what a writer into a pipe claims is near 2 GB, and no promise
        return size < int.from_bytes(head[4:8], "big") + 8 < 0x7FFF0000
    if mpeg_frame(head)[0]:  # its first frame may count frames and bytes (Xing, LAME)
        found = re.search(rb"(?:Xing|Info)\0\0\0[\x03\x07\x0b\x0f].{4}(.{4})", head, re.DOTALL)
        return bool(found) and size - start < int.from_bytes(found[1], "big") * 99 // 100
    # of the flags 1, 2 and 4 the last says end of stream: any value above 3
    last = tail.rfind(b"OggS")
    return head.startswith(b"OggS") and (last < 0 or not tail[last + 5 : last + 6] > b"\x03")


def read_soundfile(given: Input, path: str, *, label: str) -> Decoded:
    """Read what libsndfile can decode; AudioError if it refuses, MissingError without soundfile."""
    soundfile = require("soundfile")
    # by number, because soundfile judges a file by its name if that ends in .raw
    number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    opened = for_libsndfile(given.stack.enter_context(open(number, "rb")))
    try:
        file = given.stack.enter_context(soundfile.SoundFile(opened, closefd=False))
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".")
        raise AudioError(f"{label} that cannot be decoded ({reason}); {RAW_HINT}") from error
    rate, channels, duration = file.samplerate, file.channels, None
    check_shape(rate, channels)
    blocks = soundfile_blocks(file, label)
    if 0 < file.frames < 1 << 62:  # it says more where a header does not tell
        duration = file.frames / rate
        # MP3 encoders disagree on the padding that they declare, and of some whole Ogg files
        # libsndfile does not hand out the last 0.13 s
        blocks = complete(blocks, file.frames, sample_rate=rate, slack=rate // 4)
    else:  # a FLAC that came out of a pipe: soundfile would seek after each read, and fail
        file.seekable = lambda: False
    return Decoded(Source(given.name, "audio", rate, channels, duration), blocks)


def ffmpeg_blocks(
    child: subprocess.Popen[bytes], blocks: Iterable[np.ndarray], *, log: BinaryIO, name: str
) -> Blocks:
    """Pass blocks on, then look at how ffmpeg has ended."""
    yield from blocks
    status = child.wait()
    log.seek(0)
    line = log.readline(4096).decode("utf-8", "replace").strip()
    # without the decoder's address, another in each run, and the path, which is told anyway
    complaint = visible(re.sub(r"^\[[^]]* @ 0x[0-9a-f]+\] |^file:.*?: ", "", line), 200)
    if status:
        raise AudioError(f"cannot be decoded by ffmpeg ({complaint or f'status {status}'})")
    if complaint:
        warn(f"{name}: ffmpeg complains ({complaint}); what it gave is used")


def read_ffmpeg(given: Input, path: str) -> Decoded:
    """Read what ffmpeg decodes, as it does; AudioError if it cannot, MissingError without it."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise MissingError("ffmpeg is needed for it; " + FFMPEG_HINT)
    # the first sound track as float WAV, with no network and no tags
    options = "-nostdin -v error -xerror -protocol_whitelist file -i".split()
    track = "-map 0:a:0 -map_metadata -1 -f wav -c:a pcm_f32le -bitexact pipe:1".split()
    # file: and an absolute path, or a name like "concat:a|b" or "-y" would be a command
    command = [program, *options, "file:" + os.path.abspath(path), *track]
    log = given.stack.enter_context(tempfile.TemporaryFile())  # a pipe unread would stall ffmpeg
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
    given.stack.enter_context(child)  # reaps it
    # undone before the reaping: a child that waits for its pipe to be emptied would never end
    given.stack.callback(child.kill)
    reader = ByteReader(child.stdout)
    if not reader.peek(1):
        list(ffmpeg_blocks(child, (), log=log, name=given.name))
        raise AudioError("holds no sound that ffmpeg finds")
    # ffmpeg's own WAV header tells rate and channels, so no second program has to be asked
    form, _ = read_wav_header(reader)
    if form is None:
        raise AudioError("ffmpeg gave no float WAV; its version may be too old")
    blocks = ffmpeg_blocks(child, pcm_blocks(reader, form), log=log, name=given.name)
    return Decoded(Source(given.name, "audio", form.sample_rate, form.channels), blocks)


def read_packed(given: Input, label: str, *, settings: Settings) -> Decoded:
    """Read a format of others by soundfile or ffmpeg, whichever knows it and is here.

    An AudioError if its end is missing or no decoder takes it, a MissingError if neither is here.
    """
    path, has_ffmpeg = given.path or spool(given), shutil.which("ffmpeg") is not None
    if label == "ffmpeg":
        return read_ffmpeg(given, path)
    if is_cut(path):
        raise AudioError(f"truncated {label}: its end is missing; fetch or export it again")
    if available("soundfile", settings):
        try:
            return read_soundfile(given, path, label=label)
        except AudioError as error:
            # libsndfile knows all of FLAC, so its no means damage; of others ffmpeg may know more
            if label == "FLAC" or not has_ffmpeg:
                raise
            warn(f"{given.name}: read by ffmpeg instead of soundfile: {error}")
    elif has_ffmpeg:
        warn(f"{given.name}: read by ffmpeg, because soundfile is not in use")
    else:
        install = PACKAGES["soundfile"].install
        raise MissingError(f"{label} needs soundfile ({install}) or ffmpeg; {FFMPEG_HINT}")
    return read_ffmpeg(given, path)


def sniff(reader: ByteReader) -> str | None:
    """Tell a format by its first bytes, "ffmpeg" if only that can; None if it is not known."""
    match = MAGIC.match(reader.peek(HEAD_BYTES))
    if match:
        return match.lastgroup
    label, length = mpeg_frame(reader.peek(HEAD_BYTES))
    following = reader.peek(length + 7)[length:]
    # one sync word is chance, another where the frame ends is not
    if length >= 4 and (not following or mpeg_frame(following)[0] == label):
        return label
    return None


def decode_known(given: Input, settings: Settings) -> Decoded:
    """As decode() does where no --raw says what the bytes are."""
    label = sniff(given.reader)
    if label == "WAV":  # by our own parser always, so that the codes do not depend on packages
        form, limit = read_wav_header(given.reader)
        if form:
            # who ends a live sound by Ctrl-C has heard less than its header promised
            return read_pcm(given, form, kind="audio", limit=limit, cut=settings.live)
        label = "compressed WAV"
    if label:
        return read_packed(given, label, settings=settings)
    if STREAM_START.match(given.reader.peek(HEAD_BYTES)):
        raise AudioError("is a token stream and no sound; --decode reads it back")
    # the name is asked last: what calls itself a sound must not be heard as raw noise
    suffix = os.path.splitext(given.path or "")[1].lower()
    if given.path and suffix in AUDIO_EXTENSIONS:
        if available("soundfile", settings):  # an MP3 may begin with rubbish
            return read_soundfile(given, given.path, label=suffix + " file")
        raise AudioError(f"{suffix} file that begins like no known sound; {RAW_HINT}")
    if not settings.any_bytes:
        raise AudioError(f"no known sound format; {RAW_HINT}")
    form = RawFormat()
    how = f"{form.encoding}, {form.sample_rate} Hz, {form.channels} channel (--raw says otherwise)"
    head = given.reader.peek(HEAD_BYTES)
    kinds = [words for words, pattern in KINDS.items() if pattern.match(head)]
    warn(f"{given.name}: {(*kinds, 'no known sound format')[0]}; heard as raw bytes, {how}")
    return read_pcm(given, form, kind="raw")


def decode(given: Input, settings: Settings) -> Decoded:
    """Choose the decoder by what the bytes say, not by what the file is called.

    An AudioError if it is empty, broken, or named like a sound that it is not; a MissingError if
    the format's decoder is not here.
    """
    if not given.reader.peek(1):
        raise AudioError("empty: no bytes at all; give a file or pipe that holds sound")
    if settings.raw:
        # a microphone is not waited on for the bytes that would tell
        label = None if settings.live else sniff(given.reader)
        if label:
            words = "a known format" if label == "ffmpeg" else label
            warn(f"{given.name}: begins like {words}; --raw reads its header as sound too")
        return read_pcm(given, settings.raw, kind="raw")
    return decode_known(given, settings)


LIVE_ENDS = threading.Event()  # set by a signal: what was heard is the whole live sound
LIVE_POLL = 0.1  # seconds between two looks at it


def end_live(*_: Any) -> None:
    """Answer Ctrl-C and SIGTERM by the end of a live sound; a second one breaks off."""
    if LIVE_ENDS.is_set():
        raise KeyboardInterrupt
    LIVE_ENDS.set()


class Backlog:
    """Empties a live pipe in a thread of its own, so that no microphone has to wait or drop.

    What has not been read yet waits here; how long the oldest of it does is told. It ends where
    the pipe does, or with what has come when LIVE_ENDS is set.
    """

    def __init__(self, file: Any, name: str) -> None:
        self._name, self._rest, self._ended, self._told = name, b"", False, 0.0
        self._waiting: queue.Queue[tuple[float, bytes | OSError]] = queue.Queue(BACKLOG_PIECES)
        # not the buffered reader, whose lock a thread would hold when the program ends
        read = getattr(file, "raw", file).read
        # a daemon, since nothing can break off the read of a silent microphone
        threading.Thread(target=self._drain, args=(read,), daemon=True).start()

    def _drain(self, read: Callable[[int], bytes]) -> None:
        data: bytes | OSError = b"-"
        while data and isinstance(data, bytes):
            try:
                data = read(1 << 16)
            except OSError as error:
                data = error
            self._waiting.put((time.monotonic(), data))  # waits where there is no more room

    def read(self, size: int) -> bytes:
        """Return what is there, up to `size` bytes: the later it is read, the more at once."""
        empty = self._waiting.empty
        while not self._ended and (not self._rest or len(self._rest) < size and not empty()):
            try:
                arrived, data = self._waiting.get(timeout=0 if LIVE_ENDS.is_set() else LIVE_POLL)
            except queue.Empty:
                self._ended = LIVE_ENDS.is_set()
                continue
            if isinstance(data, OSError):
                raise data
            self._tell(time.monotonic() - arrived)
            self._rest, self._ended = self._rest + data, not data
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def _tell(self, late: float) -> None:
        now = time.monotonic()
        if late > BEHIND_SECONDS and now - self._told > BEHIND_INTERVAL:
            self._told = now
            warn(f"{self._name}: {late:.1f} s behind: sound comes faster than it is read; it waits")


def open_stdin(name: str, settings: Settings, *, stack: contextlib.ExitStack) -> Input:
    """Take what is piped in."""
    stdin = getattr(sys.stdin, "buffer", None)
    if stdin is None or stdin.isatty():
        state = "closed" if stdin is None else "a terminal"
        raise AudioError(f"is {state}; pipe sound into it or name a file")
    pipe = Backlog(stdin, name) if settings.live else stdin
    return Input(name, None, None, ByteReader(pipe), stack)


def piped_descriptor(path: str) -> int | None:
    """Number of the open pipe that /dev/stdin or a shell's <(...) names; None for all else."""
    number = descriptor_of(path)
    try:
        kind = os.fstat(number).st_mode if number is not None else 0
    except OSError:
        return None
    return number if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) else None


def is_piped(path: str) -> bool:
    """Whether a named source can be read once only: stdin, or a pipe that is open already."""
    return path == "-" or piped_descriptor(path) is not None


def open_named(path: str) -> BinaryIO:
    """Open a regular file, or a pipe that is open; AudioError for all else."""
    number = piped_descriptor(path)
    if number is not None:
        return open(os.dup(number), "rb")
    try:
        # before opening, because opening a FIFO already waits for its writer
        kind = os.stat(path).st_mode
    except (FileNotFoundError, ValueError) as error:  # the latter for a null byte
        cure = "a URL: download it first" if "://" in path else "check the path"
        words = f"no such file; {cure}" if path else "an empty name is no file's"
        raise AudioError(words) from error
    if stat.S_ISDIR(kind):
        raise AudioError("is a folder; name files in it (--recursive hears all its sounds)")
    if not stat.S_ISREG(kind):
        raise AudioError("not a regular file; pipe it through - instead")
    return open(path, "rb")


def open_input(path: str, name: str, settings: Settings, *, stack: contextlib.ExitStack) -> Input:
    """Open a file, or stdin."""
    if path == "-":
        return open_stdin(name, settings, stack=stack)
    file = stack.enter_context(open_named(path))
    status = os.fstat(file.fileno())
    # the size of what was opened, not of what the path may name by now
    known = (path, status.st_size) if stat.S_ISREG(status.st_mode) else (None, None)
    return Input(name, *known, ByteReader(file), stack)


def tame(block: np.ndarray) -> tuple[int, int]:
    """Silence samples that are not finite and clip absurd ones, in place; how many of each."""
    if np.maximum(block.max(), -block.min()) <= LOUDEST:  # false for NaN too: one look is enough
        return 0, 0
    # these first: np.clip lets a NaN pass
    wild = ~np.isfinite(block)
    block[wild] = 0
    loud = np.abs(block) > LOUDEST
    np.clip(block, -LOUDEST, LOUDEST, out=block)
    return int(wild.sum()), int(loud.sum())


def checked(decoded: Decoded, digest: Any, *, limit: float) -> Blocks:
    """Pass blocks on tamed and hashed: finite, within +-LOUDEST, float32 [n, channels].

    An AudioError if it is longer than `limit` seconds, or holds no samples or none that is finite.
    """
    source = decoded.source
    too_long = AudioError(f"longer than {limit:g} s; --max-duration raises the limit")
    if (source.duration or 0) > limit:
        raise too_long
    frames = wild = loud = 0
    for block in decoded.blocks:
        frames += len(block)
        # counted, too: a header may lie, and a pipe may never end
        if frames > limit * source.sample_rate:
            raise too_long
        more_wild, more_loud = tame(block)
        wild, loud = wild + more_wild, loud + more_loud
        # after taming, because the bits of a NaN differ between decoders and machines
        digest.update(np.ascontiguousarray(block, "<f4").reshape(-1).data)
        yield block
    if not frames:
        raise AudioError("holds no samples; nothing to hear")
    if wild == frames * source.channels:
        raise AudioError("not one sample is a finite number; export it again")
    if wild:
        warn(f"{source.name}: {wild} samples were not finite and were read as 0")
    if loud:
        warn(f"{source.name}: {loud} samples beyond +-{LOUDEST:g} were clipped to that")


def middle_of(block: np.ndarray) -> np.ndarray:
    """Return the mean over channels, [n, C] -> [n]; channel by channel, so blind to n."""
    mono = block[:, 0].copy()
    for channel in block.T[1:]:  # np.mean may add in another order for another block size
        mono += channel
    mono /= np.float32(block.shape[1])
    return mono


def power_of(samples: np.ndarray) -> float:
    """Mean square."""
    return float(np.square(samples, dtype=np.float64).mean())


def mix_gains(middle: np.ndarray, side: np.ndarray, total: float) -> np.ndarray:
    """Gains [2] that bring middle or side [n] to the power `total` of the channels.

    Where the channels are opposite, too little of the middle is left, and the side stands for it.
    """
    if total < SILENT_POWER:
        return np.array([1.0, 0.0])
    shares = np.array([power_of(middle), power_of(side)]) / total
    opposite = shares[0] < HIDDEN < shares[1]
    return np.maximum(shares, HIDDEN) ** -0.5 * [not opposite, opposite]


class Downmix:
    """Channels -> mono of their mean power, stretch by stretch, so that what is wide stays loud.

    A plain mean loses 3 dB of what differs from channel to channel, and all that is opposite; a
    listener's two ears lose neither (ITU-R BS.1770 adds the powers, too).
    """

    def __init__(self, stretch: int) -> None:
        self._stretch = stretch  # samples
        self._gains, self._power = np.array([1.0, 0.0]), 0.0  # of the stretch before

    def mix(self, rows: np.ndarray) -> np.ndarray:
        """Mono [n] of a whole stretch, or of the last one, [n, C]."""
        middle = middle_of(rows)
        # Two channels alone have a difference.
        side = (rows[:, 0] - rows[:, -1]) / 2 if rows.shape[1] == 2 else 0 * middle
        total = sum(map(power_of, rows.T)) / rows.shape[1]
        gains = mix_gains(middle, side, total)
        # From one stretch to the next gains glide; what begins loud has its own at once.
        before = gains if total > BEGINS * self._power else self._gains
        self._gains, self._power = gains, total
        ramp = (np.arange(len(rows)) + 1) / self._stretch
        course = (before[:, None] + (gains - before)[:, None] * ramp).astype(np.float32)
        return course[0] * middle + course[1] * side


def alike(blocks: Iterable[np.ndarray]) -> Blocks:
    """Pass blocks [n, C] on; an AudioError if the number of channels changes on the way."""
    channels = 0
    for block in blocks:
        channels = channels or block.shape[1]
        if block.shape[1] != channels:
            raise AudioError(f"goes from {channels} to {block.shape[1]} channels on the way")
        yield block


def downmix(blocks: Iterable[np.ndarray], sample_rate: int) -> Blocks:
    """Yield blocks [n, C] as mono [n]; one channel, or several alike, as they are.

    An AudioError if the number of channels changes on the way.
    """
    blocks = alike(blocks)
    first = list(itertools.islice(blocks, 1))
    whole = itertools.chain(first, blocks)
    if first and first[0].shape[1] == 1:
        yield from (block[:, 0].copy() for block in whole)
    else:
        stretch = max(1, round(MIX_SECONDS * sample_rate))
        yield from map(Downmix(stretch).mix, rechunk(whole, stretch))


def sinc_filter(times: np.ndarray, cutoff: float, *, half: int) -> np.ndarray:
    """Low-pass at `times` in input samples, 0 beyond +-half (Smith, "Digital Audio Resampling")."""
    inside = np.maximum(0.0, 1.0 - (times / half) ** 2)
    window = np.i0(KAISER_BETA * np.sqrt(inside)) / np.i0(KAISER_BETA)
    return np.where(inside > 0, cutoff * np.sinc(cutoff * times) * window, 0.0)


class SincStream:
    """Resample by a Kaiser-windowed sinc, block by block; subclasses say how it is kept."""

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self._rates = rate_in, rate_out
        # going down, the filter is stretched: as many zero crossings of a lower cut-off
        self._cutoff = ROLLOFF * min(1.0, rate_out / rate_in)
        self._half = math.ceil(ZERO_CROSSINGS / self._cutoff)
        self._span = 2 * self._half + 2  # input samples that the next outputs need
        # half a filter of silence first centres output 0 on input 0, so nothing is delayed
        self._held = np.zeros(self._half, np.float32)

    def resample_chunk(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Return the outputs that are complete after this block, as soxr.ResampleStream does."""
        self._held = np.concatenate([self._held, block, np.zeros(self._span * last, np.float32)])
        if len(self._held) < self._span:
            return np.zeros(0, np.float32)
        used, sound = self._outputs()
        self._held = self._held[used:]
        return sound


class PolyphaseStream(SincStream):
    """For rates of a short common period: in `down` input samples there are `up` outputs.

    A period is one row of windows times matrices that never change, each for a few outputs: few
    enough that BLAS stays on one thread, where threads would cost more than help.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        super().__init__(rate_in, rate_out)
        half, common = self._half, math.gcd(rate_in, rate_out)
        # a period fills a matrix where it can, but is no longer than a block: latency
        periods = max(1, min(common // RESAMPLE_BLOCKS, MATRIX_OUTPUTS * common // rate_out))
        self._down, up = periods * rate_in // common, periods * rate_out // common
        self._span = 2 * half + self._down
        self._parts: list[tuple[int, np.ndarray]] = []
        for first in range(0, up, MATRIX_OUTPUTS):
            centres = np.arange(first, min(first + MATRIX_OUTPUTS, up)) * rate_in / rate_out
            start = int(centres[0])
            times = np.arange(start, int(centres[-1]) + 2 * half + 1)[:, None] - half - centres
            matrix = sinc_filter(times, self._cutoff, half=half).astype(np.float32)
            self._parts.append((start, matrix))

    def _outputs(self) -> tuple[int, np.ndarray]:
        """Return how many samples are done with, and their outputs."""
        used = ((len(self._held) - self._span) // self._down + 1) * self._down
        sound = []
        for start, matrix in self._parts:
            windows = np.lib.stride_tricks.sliding_window_view(self._held[start:], len(matrix))
            # a copy, because BLAS takes no overlapping rows
            sound.append(np.ascontiguousarray(windows[: used : self._down]) @ matrix)
        return used, np.concatenate(sound, axis=1).reshape(-1)


class InterpolatedStream(SincStream):
    """For any ratio: each output's filter is read off a fine table."""

    def __init__(self, rate_in: int, rate_out: int) -> None:
        super().__init__(rate_in, rate_out)
        # one row more, for the last phase to have a neighbour to blend with
        phases = np.arange(TABLE_PHASES + 1)[:, None] / TABLE_PHASES
        times = np.arange(2 * self._half + 1) - self._half - phases
        self._table = sinc_filter(times, self._cutoff, half=self._half).astype(np.float32)
        # whole numbers, so that hours of sound add up no rounding
        self._position = 0  # of the next output in the held samples, in 1 / rate_out of one

    def _outputs(self) -> tuple[int, np.ndarray]:
        """Return how many samples are done with, and their outputs."""
        (rate_in, rate_out), taps = self._rates, self._table.shape[1]
        room = max(0, (len(self._held) - taps + 1) * rate_out - self._position)
        count = -(-room // rate_in)
        positions = self._position + np.arange(count, dtype=np.int64) * rate_in
        starts, parts = np.divmod(positions, rate_out)
        rows, blends = np.divmod(parts * (TABLE_PHASES / rate_out), 1.0)
        rows = rows.astype(int)
        weights = self._table[rows]
        weights += blends.astype(np.float32)[:, None] * (self._table[rows + 1] - weights)
        windows = np.lib.stride_tricks.sliding_window_view(self._held, taps)[starts]
        following = self._position + count * rate_in
        # going far down, the next output may lie beyond all that is held
        used = min(following // rate_out, len(self._held))
        self._position = following - used * rate_out
        return used, np.einsum("nt,nt->n", windows, weights)


def make_resampler(rate_in: int, rate_out: int, *, settings: Settings) -> Any:
    """Return soxr's stream, or the NumPy one that agrees with it to -90 dB below 0.9 Nyquist."""
    if available("soxr", settings):
        return require("soxr").ResampleStream(rate_in, rate_out, 1, dtype="float32", quality="HQ")
    # rates share a period of 1 / gcd seconds: up to 20 ms the matrices for it stay small
    if math.gcd(rate_in, rate_out) >= RESAMPLE_BLOCKS:
        return PolyphaseStream(rate_in, rate_out)
    return InterpolatedStream(rate_in, rate_out)


def resample(blocks: Iterable[np.ndarray], rate_in: int, *, settings: Settings) -> Blocks:
    """Yield mono float32 at the settings' rate, in time: N samples become ceil(N * ratio).

    `blocks` [n] at `rate_in` Hz may be of any size: it changes no sample of the result.
    """
    rate_out = settings.sample_rate
    if rate_in == rate_out:
        yield from blocks
        return
    stream = make_resampler(rate_in, rate_out, settings=settings)
    size = max(1, rate_in // RESAMPLE_BLOCKS)
    heard = given = 0
    held = np.zeros(0, np.float32)
    # equal pieces, so that no rounding inside a resampler can depend on how the sound arrived;
    # yielded as it came, because a tokenizer's step costs much the same however short it is
    for block in blocks:
        heard += len(block)
        held = np.concatenate([held, block])
        whole = len(held) - len(held) % size
        pieces = [stream.resample_chunk(held[at : at + size]) for at in range(0, whole, size)]
        held = held[whole:]
        given += sum(map(len, pieces))
        if any(map(len, pieces)):
            yield np.concatenate(pieces)
    # silence pushes the end out of the filter; what is due of it depends on the length alone
    silence = np.zeros(max(size, 2 * rate_in // rate_out + 2), np.float32)
    due = -(-heard * rate_out // rate_in) - given
    yield stream.resample_chunk(np.concatenate([held, silence]), last=True)[:due]


def full_scale(block: Any) -> np.ndarray:
    """Samples [n] or [n, C] of any signed kind -> a new float32 [n, C] in full scale +-1.

    An AudioError if it has other dimensions or is of another kind (unsigned, complex, objects).
    """
    samples = np.asarray(block)
    # unsigned integers are refused, because they do not say whether silence is 0 or the middle
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi":
        raise AudioError(
            f"has {samples.dtype} of shape {samples.shape}; samples are floats in full scale +-1"
            " or signed integers, [n] or [n, channels]"
        )
    rows = samples if samples.ndim == 2 else samples[:, None]
    if len(rows) <= MAX_CHANNELS < rows.shape[1]:
        raise AudioError(f"has shape {samples.shape}; channels come last: transpose it, x.T")
    with np.errstate(over="ignore"):  # what float32 cannot hold is tamed like any other infinity
        scale = np.float32(2.0 ** (1 - 8 * samples.itemsize) if samples.dtype.kind == "i" else 1)
        return rows.astype(np.float32) * scale


def weighed(blocks: Iterable[Any]) -> Blocks:
    """Yield blocks of any kind in full scale, and tell at the end if that can hardly be theirs."""
    peak = total = size = 0.0
    kind = None
    for samples in map(np.asarray, blocks):
        rows = full_scale(samples)
        if not rows.size:
            continue
        sane = np.abs(rows[np.isfinite(rows)])
        peak, total = max(peak, float(sane.max(initial=0))), total + float(sane.sum())
        size, kind = size + sane.size, samples.dtype
        yield rows
    # 16 or 24 bits of sound in a wider integer, which NumPy makes unasked
    if kind and kind.kind == "i" and kind.itemsize > 2 and 0 < peak <= WIDE_PEAK:
        warn(
            f"samples: {kind} up to {peak * 2.0 ** (8 * kind.itemsize - 1):.0f} are next to silence"
            f" in full scale 2^{8 * kind.itemsize - 1}; give 16-bit samples as int16"
        )
    elif total > 4 * size:  # no sound is 12 dB over full scale throughout
        warn(
            f"samples: on average {total / size:.0f} from zero, where full scale is 1;"
            " divide 16-bit samples by 32768"
        )


def take_arrays(blocks: Iterable[Any], sample_rate: float) -> Decoded:
    """Take sound in memory, or from a caller's own iterator; AudioError if no sound is so."""
    rows = weighed(blocks)
    # the first block tells the channels; it goes back in front of the others
    first = next(rows, np.zeros((0, 1), np.float32))
    check_shape(int(sample_rate), first.shape[1])
    source = Source("samples", "audio", int(sample_rate), first.shape[1])
    return Decoded(source, itertools.chain([first][: len(first)], rows))


def arrays_of(source: Any) -> Iterable[Any]:
    """The arrays that a sound in memory is: itself, one of its numbers, or those it gives."""
    if hasattr(source, "__array__"):
        return [source]
    if isinstance(source, (list, tuple)) and len(source) and np.isscalar(source[0]):
        return [np.asarray(source)]
    if not isinstance(source, Iterable):
        raise AudioError(f"{type(source).__name__} is no sound; {SOUND_KINDS}")
    return source


def source_name(path: str) -> str:
    """What a stream calls its source: a file's name, or how it was piped in."""
    if path == "-" or descriptor_of(path) == 0:
        return "stdin"
    piped = piped_descriptor(path) is not None
    return "pipe" if piped else visible(os.path.basename(path.rstrip(os.sep))) or "input"


def names_of(source: Any) -> tuple[str, str]:
    """What a sound is called in a stream, the file's name alone, and in words for the user."""
    holds_bytes = isinstance(source, BYTES) or hasattr(source, "read")
    path = getattr(source, "name", None) if hasattr(source, "read") else source
    if not isinstance(path, (str, os.PathLike)):
        return ("input", "input") if holds_bytes else ("samples", "samples")
    path = os.fspath(path)
    name = source_name(path)
    return name, name if path == "-" else visible(path, LONGEST_PATH) or name


def check_rate(source: Any, sample_rate: Any) -> None:
    """AudioError for a rate that is no whole number, or stands beside a file, which has its own."""
    if sample_rate is None:
        return
    # 44100.0 is a whole number; "44100" and NaN are none
    if not isinstance(sample_rate, (int, float, np.integer, np.floating)) or sample_rate % 1:
        raise AudioError(f"sample_rate is a whole number of Hz, not {sample_rate!r}")
    check_shape(int(sample_rate), 1)
    if isinstance(source, (str, os.PathLike, *BYTES)) or hasattr(source, "read"):
        raise AudioError("sample_rate is for arrays: a file says its own, raw= that of raw bytes")


def open_bytes(
    source: Any, name: str, settings: Settings, *, stack: contextlib.ExitStack
) -> Input | None:
    """Open what holds a sound as bytes: a file's path, bytes, a file; None for arrays.

    An AudioError if it cannot be opened, or is a file opened as text.
    """
    if isinstance(source, (str, os.PathLike)):
        return open_input(os.fspath(source), name, settings, stack=stack)
    if isinstance(source, BYTES):
        source = io.BytesIO(source)
    if isinstance(source, io.TextIOBase):
        raise AudioError('is a file opened as text; open(path, "rb") opens its bytes')
    if not hasattr(source, "read"):
        return None
    # the caller's own, to be closed by the caller
    return Input(name, None, None, ByteReader(source), stack)


def open_audio(source: Sound, settings: Settings, *, sample_rate: int | None = None) -> Audio:
    """Open a sound and decode its first block.

    Blocks are mono float32 [n] at `settings.sample_rate`: a second each from a file, as they come
    from a pipe or iterator. Iterate to the end or close, to let go of file, decoder and temporary
    file. `Audio.sha256` covers the decoded samples, float32, interleaved, before downmix.

    Parameters
    ----------
    source : path, bytes, binary file, array, iterable of arrays, or Audio
        A file's path; "-" for stdin; a file's bytes, or what gives them by read(); samples [n] or
        [n, channels], floats in full scale +-1 or signed integers; such arrays one after the
        other; or what this function gave before.
    settings : Settings
        The analysis rate, and what may be heard.
    sample_rate : int, optional
        Rate in Hz of arrays, the analysis rate if not given. A file says its own: with one it is
        an error.

    Raises
    ------
    AudioError
        If the input is missing, empty, broken, too long, of no known format (`settings.raw` reads
        it all the same) or no regular file; also while iterating.
    MissingError
        If its format needs soundfile or ffmpeg and neither is here.
    """
    if isinstance(source, Audio):
        return source
    check_rate(source, sample_rate)
    name, shown = names_of(source)
    with contextlib.ExitStack() as stack, speaking_of(shown):
        given = open_bytes(source, shown, settings, stack=stack)
        if given is None:
            decoded = take_arrays(arrays_of(source), sample_rate or settings.sample_rate)
        else:
            decoded = decode(given, settings)
        digest = hashlib.sha256()
        blocks = checked(decoded, digest, limit=settings.max_duration)
        first = list(itertools.islice(blocks, 1))  # a sound that fails does so before it is used
        mono = downmix(itertools.chain(first, blocks), decoded.source.sample_rate)
        sound = resample(mono, decoded.source.sample_rate, settings=settings)
        # only of files, whose decoders give any size; a pipe's sound is not held back for a block
        if given and given.size is not None:
            sound = rechunk(sound, settings.sample_rate)
        # from its first step on the generator owns what the stack held, and the stack must let go
        sound = guarded(sound, shown, stack=stack.pop_all())
        next(sound)
        source = decoded.source._replace(name=name)
        return Audio(source, settings.sample_rate, blocks=sound, digest=digest)


LOSSY_RATE = 48000  # Hz, which MP3 and Opus both know
# Constant bit rate for MP3, so that the wanted kbit/s is what it gets.
LOSSY = {  # libsndfile's names, its quality as (top - kbit/s) / span; ffmpeg's encoder and muxer
    "MP3": ("MP3", "MPEG_LAYER_III", "CONSTANT", 320, 288, "libmp3lame -f mp3"),
    "Opus": ("OGG", "OPUS", None, 256, 250, "libopus -f ogg"),
}


def convert(samples: np.ndarray, rates: Sequence[int], *, settings: Settings) -> np.ndarray:
    """Resample mono samples [n] from each rate in Hz to the next."""
    for rate, wanted in zip(rates, rates[1:]):
        blocks = resample([samples], rate, settings=replace(settings, sample_rate=wanted))
        samples = np.concatenate(list(blocks))
    return samples


def through_ffmpeg(samples: np.ndarray, options: Sequence[str]) -> np.ndarray:
    """Send samples at LOSSY_RATE through ffmpeg once for each set of options."""
    data = samples.astype("<f4").tobytes()
    for one in options if shutil.which("ffmpeg") else ():
        command = ["ffmpeg", "-v", "error", *one.split(), "pipe:1"]
        data = subprocess.run(command, input=data, capture_output=True, check=False).stdout
    if not shutil.which("ffmpeg") or not data:
        raise MissingError("it needs soundfile 0.13, or ffmpeg with its encoder; " + FFMPEG_HINT)
    return np.frombuffer(data, "<f4")


def through_codec(samples: np.ndarray, kind: str, *, kbps: int, settings: Settings) -> np.ndarray:
    """Send mono samples through MP3 or Opus at LOSSY_RATE and back, delay and all; MissingError."""
    form, subtype, mode, top, span, encoder = LOSSY[kind]
    rates = settings.sample_rate, LOSSY_RATE
    sound = convert(samples, rates, settings=settings)
    soundfile = require("soundfile") if available("soundfile", settings) else None
    if soundfile and subtype in soundfile.available_subtypes(form):
        quality = {"compression_level": (top - kbps) / span, "bitrate_mode": mode}
        how = {"format": form, "subtype": subtype, "closefd": False, **quality}
        with tempfile.TemporaryFile() as file:
            soundfile.write(for_libsndfile(file), sound, LOSSY_RATE, **how)
            file.seek(0)
            sound = soundfile.read(for_libsndfile(file), dtype="float32", closefd=False)[0]
    else:
        pcm = f"-f f32le -ar {LOSSY_RATE} -ac 1"
        encode = f"{pcm} -i pipe:0 -b:a {kbps}k -c:a {encoder}"
        sound = through_ffmpeg(sound, (encode, f"-i pipe:0 {pcm}"))
    return convert(sound, rates[::-1], settings=settings)


OGG_LEVEL = 0.85  # of libsndfile, 1 is smallest: 29 kbit/s at 22,050 Hz
MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # bits the other way round


def ogg_writer(file: BinaryIO, settings: Settings) -> Any:
    """Open a mono Ogg Vorbis encoder on a file that can seek; None where there is no soundfile."""
    if not available("soundfile", settings):
        return None
    soundfile, rate = require("soundfile"), settings.sample_rate
    # soundfile 0.13 brought the level; an older one encodes as it likes
    level = {"compression_level": OGG_LEVEL} if soundfile.__version__ >= "0.13" else {}
    how = {"format": "OGG", "subtype": "VORBIS", "closefd": False, **level}
    return soundfile.SoundFile(for_libsndfile(file), "w", rate, 1, **how)


def zero_serials(file: BinaryIO) -> None:
    """Set the random serial number in each page of an Ogg stream (RFC 3533) to 0, in place."""
    # libsndfile throws dice for it, but the same sound should give the same file
    at, ones = file.seek(0), 0xFFFFFFFF
    while len(head := bytearray(file.read(27))) == 27:
        body = file.read(head[26])
        body += file.read(sum(body))
        head[14:18] = head[22:26] = bytes(4)  # serial number; checksum, zlib's with mirrored bits
        checksum = zlib.crc32((head + body).translate(MIRRORED), ones) ^ ones
        head[22:26] = int(f"{checksum:032b}"[::-1], 2).to_bytes(4, "little")
        file.seek(at)
        file.write(head)
        at = file.seek(at + len(head) + len(body))


# 4 Signal analysis -------------------------------------------------------------------------------
# Uses: 1. Pure NumPy in float64: blocks of sound -> rows of what is measured on each frame.

N_MELS = 64
MEL_FLOOR = 1e-6  # of a frame's power, added to every band: what lies 60 dB below is not heard
POWER_FLOOR = 1e-12  # absolute, full scale = 1: what a band of digital silence reads
# Rounding to 16 bits leaves noise at -101 dBFS, so below this there is little to tell apart.
LEVEL_FLOOR = -100.0  # dBFS, the level of digital silence
PEAK_TOP = 4200.0  # Hz, highest spectral peak that counts as pitch (C8)
# The lowest string of a bass. Below it two semitones are closer than the spectrum's bins (5.4 Hz).
LOWEST_NOTE, NUM_NOTES = 28, 72  # MIDI: E1 (41 Hz) to D#7 (2489 Hz)
NUM_BANDS = 12  # groups of mel bands that describe a scene
BAND_STARTS = np.arange(NUM_BANDS) * N_MELS // NUM_BANDS  # first mel band of each group
FAINT = 0.04  # amplitude (-28 dB) that a group of bands must exceed to be part of a scene
FLUX_EDGES = (200.0, 2500.0)  # Hz, between low, middle and high attacks
# Windows are four hops long: one frame ago is three quarters the same sound, two ago is half.
DELTA_FRAMES = 2  # a change is measured against this many frames ago (46 ms)
SCENE_FRAMES = 43  # frames of context each side that a scene is made of (1 s)
PULSE_FRAMES = 129  # frames before now that a pulse is made of (3 s); the past costs no lag
# From 375 to 40 beats a minute, in equal ratios, as tempi are heard.
PERIODS = np.geomspace(0.16, 1.5, 24)  # seconds, where the tempogram is read
DELTA_CEPSTRA = 6
NUM_PARTIALS = 8
PARTIAL_FLOOR = -80.0  # dB
PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


class Spectra(NamedTuple):
    """What is measured on T frames; the first group at the frame, the second around it."""

    level: np.ndarray  # [T] dBFS
    mel: np.ndarray  # [T, 64] dB of each band relative to the frame's power
    tonal: np.ndarray  # [T] 0-1, share of the power that stands in spectral peaks
    salience: np.ndarray  # [T, 72] 0-1, of each semitone as a fundamental
    pitch: np.ndarray  # [T] MIDI number with fraction of the strongest fundamental, 0 if none
    partials: np.ndarray  # [T, 8] dB of its harmonics relative to the frame's power
    series: np.ndarray  # [T] MIDI number of the harmonic series that explains most, 0 if none
    unity: np.ndarray  # [T] 0-1, share of the peaks' amplitude that lies in this one series
    flux: np.ndarray  # [T, 3] dB, rise in low, middle and high bands
    delta: np.ndarray  # [T, 1 + 6] dB, change of level and of low quefrencies in 46 ms
    fine: np.ndarray  # [T, 8] dBFS of each eighth (2.9 ms) of the frame's own hop
    voicing: np.ndarray  # [T, 2] 0-1 how periodic 46 ms are, and at how many Hz
    scene_level: np.ndarray  # [T] dBFS, mean around the frame
    scene_spread: np.ndarray  # [T] dB, standard deviation of the level
    scene_bands: np.ndarray  # [T, 12] 0-1, amplitude of groups of bands
    scene_tonal: np.ndarray  # [T] 0-1
    scene_chroma: np.ndarray  # [T, 12] 0-1, pitch classes
    scene_bass: np.ndarray  # [T, 12] 0-1, pitch classes below C4
    onset_rate: np.ndarray  # [T] onsets a second
    tempogram: np.ndarray  # [T, 24] autocorrelation of the onsets at PERIODS
    syllabic: np.ndarray  # [T] 0-1, share of the level's modulation that lies at 2-8 Hz


def hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Mel scale of Slaney's Auditory Toolbox (1998): linear to 1 kHz, logarithmic above."""
    hz = np.asarray(hz, dtype=np.float64)
    above = 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4)
    return np.where(hz < 1000, hz * 3 / 200, above)


def mel_to_hz(mel: np.ndarray) -> np.ndarray:
    """Inverse of hz_to_mel."""
    mel = np.asarray(mel, dtype=np.float64)
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


# Corners in Hz of the mel bands, 30 Hz to 11 kHz at any rate, so that a band means the same at any.
MEL_EDGES = mel_to_hz(np.linspace(hz_to_mel(30), hz_to_mel(SAMPLE_RATE / 2), N_MELS + 2))


@functools.lru_cache(maxsize=8)
def mel_filterbank(sample_rate: int, n_fft: int) -> np.ndarray:
    """Triangular filters [F, N_MELS]; neighbours add up to one, so bands add up to the power.

    `n_fft` is the window in samples; F = n_fft // 2 + 1 bins.
    """
    edges = MEL_EDGES
    hz = np.arange(n_fft // 2 + 1)[:, None] * sample_rate / n_fft
    rising = (hz - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - hz) / np.diff(edges)[1:]
    return np.maximum(0, np.minimum(rising, falling))


@functools.lru_cache(maxsize=4)
def dct_matrix(size: int) -> np.ndarray:
    """DCT-II [size, size], one basis vector a column, scaled so that c @ c is a mean square."""
    n = np.arange(size)
    basis = np.cos(np.pi * np.outer(n + 0.5, n) / size) * np.sqrt(2) / size
    basis[:, 0] /= np.sqrt(2)
    return basis


@functools.lru_cache(maxsize=8)
def hann(size: int) -> np.ndarray:
    """Periodic Hann window [size], normalised to unit energy."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    return window / np.sqrt(np.sum(window**2))


def window_size(hop_length: int) -> int:
    """Window of the short transform in samples: four hops (2048 at 22,050 Hz)."""
    return 4 * hop_length


def power_spectrum(frames: np.ndarray) -> np.ndarray:
    """One-sided power [T, F] of frames [T, N]; its sum is the frame's mean square."""
    power = np.abs(np.fft.rfft(frames * hann(frames.shape[1]), axis=1)) ** 2
    # twice, for the negative frequencies that rfft leaves out
    power *= 2 / frames.shape[1]
    power[:, :2] = 0  # direct current and what lies below 20 Hz are not heard
    return power


def relative_mel(mel: np.ndarray) -> np.ndarray:
    """Log-mel relative to the power of all bands [T, N_MELS], in dB: gain-free."""
    total = mel.sum(axis=1, keepdims=True)
    # in every band and in the sum, so that shares still add up to one
    floor = MEL_FLOOR * total + POWER_FLOOR
    return 10 * np.log10((mel + floor) / (total + N_MELS * floor))


def spectral_peaks(power: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find tonal peaks: row, position in bins (parabola through the log power) and power.

    Parameters
    ----------
    power : ndarray, float64 [T, F]
        From power_spectrum().

    Returns
    -------
    rows, position, energy : ndarray [n]
        Frame; bin with fraction; power of three bins. Peaks of one frame follow each other.
    """
    middle = power[:, 1:-1]
    # sums by differences of one running sum: cheaper than a filter over every row
    reach = 12
    total = np.cumsum(np.pad(power, ((0, 0), (reach + 1, reach))), axis=1)
    around = (total[:, 2 * reach + 1 :] - total[:, : -2 * reach - 1])[:, 1:-1] / (2 * reach + 1)
    # three times its surroundings is no mere ripple; 50 dB below the frame's top is not heard
    strong = (middle > 3 * around) & (middle > 1e-5 * power.max(axis=1, keepdims=True) + 1e-14)
    rows, bins = np.nonzero(strong & (middle > power[:, :-2]) & (middle >= power[:, 2:]))
    left, top, right = (np.log(power[rows, bins + k] + 1e-30) for k in range(3))
    # a window's main lobe is nearly a parabola in the logarithm; a flat top must not divide by 0
    offset = 0.5 * (left - right) / np.minimum(left - 2 * top + right, -1e-9)
    # a Hann window spreads a sinusoid into the bins beside its own
    energy = power[rows, bins] + power[rows, bins + 1] + power[rows, bins + 2]
    return rows, bins + 1 + np.clip(offset, -0.5, 0.5), energy


class Pitches(NamedTuple):
    """What the spectral peaks of T frames say."""

    tonal: np.ndarray
    salience: np.ndarray
    pitch: np.ndarray
    partials: np.ndarray
    series: np.ndarray
    unity: np.ndarray


# Thirds, so that a note somewhat out of tune still has its own cell and not its neighbour's.
HARMONIC_SHIFTS = np.rint(36 * np.log2(np.arange(1, 9))).astype(int)  # in thirds of a semitone
SPAN = 3 * NUM_NOTES


def harmonic_sum(heard: np.ndarray) -> np.ndarray:
    """Salience [T, SPAN] of fundamentals from peaks heard on a grid of thirds of semitones.

    A peak speaks for every fundamental it may be a harmonic of, less the higher the harmonic
    (Klapuri 2006, ISMIR, has the weighting's idea); a fundamental without a peak counts a quarter.
    """
    # 108 thirds are three octaves: where the eighth harmonic of the highest note lies
    padded = np.pad(heard, ((0, 0), (0, 108)))
    parts = (0.8**h * padded[:, s : s + SPAN] for h, s in enumerate(HARMONIC_SHIFTS))
    # by the sum of the weights 0.8 ** h, so that salience stays within 0-1
    salience = sum(parts) * (0.2 / (1 - 0.8**8))
    return salience * np.where(heard[:, :SPAN] > 0.05, 1.0, 0.25)


def measure_partials(power: np.ndarray, total: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Level in dB [T, 8] of the harmonics of a fundamental at a position in bins [T].

    `power` [T, F] is the spectrum that the position is in, `total` [T] its sum.
    """
    centre = np.rint(position[:, None] * np.arange(1, NUM_PARTIALS + 1)).astype(int)
    rows = np.arange(len(power))[:, None]
    inside = (centre >= 2) & (centre < power.shape[1] - 2)
    near = [power[rows, np.where(inside, centre + k, 0)] for k in (-1, 0, 1)]
    return 10 * np.log10(sum(near) * inside / total[:, None] + 10 ** (PARTIAL_FLOOR / 10))


SERIES_PEAKS, SERIES_TRIED = 24, 5  # strongest peaks of a frame, and those tried as harmonics
SERIES_LOWEST = 38.0  # Hz, below E1
SERIES_FLOOR = 0.02  # amplitude of a peak against its frame (-34 dB) that must be explained


def strongest_peaks(
    rows: np.ndarray, hertz: np.ndarray, amplitude: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Frequency and amplitude of the strongest peaks of `count` frames [count, SERIES_PEAKS]."""
    order = np.lexsort((-amplitude, rows))
    rows, hertz, amplitude = rows[order], hertz[order], amplitude[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = rank < SERIES_PEAKS
    table = np.zeros((2, count, SERIES_PEAKS), np.float32)  # half the time of float64
    table[:, rows[kept], rank[kept]] = hertz[kept], amplitude[kept]
    return table[0], table[1]


def find_series(hertz: np.ndarray, amplitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The one harmonic series that explains the peaks of each frame best.

    Salience asks for each note whether it sounds; this asks whether one note is all that sounds.
    So a low string is heard as itself though its third partial is the strongest, and a chord is
    told from a note. Candidates are whole fractions of the strongest peaks; each is scored by the
    share of amplitude that it explains, less what of its first six harmonics is missing.

    Parameters
    ----------
    hertz, amplitude : ndarray [T, SERIES_PEAKS]
        From strongest_peaks(); zeros where there are fewer.

    Returns
    -------
    series, unity : ndarray [T]
        MIDI number, 0 if none, and share of amplitude.
    """
    tried = (hertz[:, :SERIES_TRIED, None] / np.arange(1, 6, dtype=np.float32)).reshape(
        len(hertz), -1
    )
    possible = tried > SERIES_LOWEST
    ratio = hertz[:, None, :] / np.where(possible, tried, np.inf)[:, :, None]
    order = np.rint(ratio)
    # Stiff strings are sharper the higher the partial; beyond 0.2 anything would fit.
    near = (order > 0) & (np.abs(ratio - order) < np.minimum(0.015 * (1 + order), 0.2))
    explained = (near * amplitude[:, None, :]).sum(axis=2)
    unity = explained / (amplitude.sum(axis=1, keepdims=True) + 1e-9)
    order *= near
    found = [(order == k).any(axis=2) | (k * tried > PEAK_TOP) for k in range(1, 7)]
    # Small bodies radiate the lowest strings' fundamental badly, and none else's.
    rooted = found[0] | (found[1] & (tried < 90))
    score = np.where(possible & rooted, unity - 0.4 * (1 - np.mean(found, axis=0)), -1.0)
    best, every = score.argmax(axis=1), np.arange(len(hertz))
    heard, order = score[every, best] > -1, order[every, best]
    # The notes of a major chord are multiples of its bass, but those of 7, 9 and 11 are none of
    # them, and a bass alone has these as well as their neighbours.
    evens, odds = (
        np.max(amplitude * np.isin(order, of), axis=1) for of in ((8, 10, 12), (7, 9, 11))
    )
    hollow = (tried[every, best] < 125) & (evens > 0.05) & (odds < 0.2 * evens)
    alone = amplitude * (order > 0) * (order < np.where(hollow, 4, np.inf)[:, None])
    unity = alone.sum(axis=1) / (amplitude.sum(axis=1) + 1e-9)
    midi = 69 + 12 * np.log2(np.where(heard, tried[every, best], 440.0) / 440)
    return np.where(heard, midi, 0.0), np.where(heard, unity, 0.0)


def measure_pitches(power: np.ndarray, bin_hz: float) -> Pitches:
    """Tonality, salience of notes, and the strongest fundamental of each frame [T, F].

    Parameters
    ----------
    power : ndarray, float64 [T, F]
        Spectrum of the long window up to PEAK_TOP.
    bin_hz : float
        Hz from one of its bins to the next.
    """
    rows, position, energy = spectral_peaks(power)
    total = power.sum(axis=1) + POWER_FLOOR
    tonal = np.minimum(1, np.bincount(rows, energy, minlength=len(power)) / total)
    note = 12 * np.log2(np.maximum(position * bin_hz, 1) / 440) + 69
    # one on, so that a note in tune lies in the middle of its three cells
    third = np.rint(3 * (note - LOWEST_NOTE) + 1)
    width = SPAN + 108
    inside = (third >= 0) & (third < width)
    cell = rows[inside] * width + third[inside].astype(np.int64)
    exact = np.zeros(len(power) * width)
    exact[cell] = note[inside]
    heard = np.bincount(cell, energy[inside], minlength=len(power) * width).reshape(-1, width)
    # loudness grows about as power to the 0.3 (Stevens), so soft notes of a chord count
    heard = (heard / total[:, None]) ** 0.3
    # 0.05 to the 1 / 0.3 is 43 dB below the frame
    peaks = heard[:, :SPAN] > 0.05
    # partials of real strings, and the rounded shifts, miss the grid by a cell
    heard[:, 1:-1] = np.maximum(heard[:, 1:-1], 0.7 * np.maximum(heard[:, :-2], heard[:, 2:]))
    salience = harmonic_sum(heard)
    best = np.where(peaks, salience, 0).argmax(axis=1)
    every = np.arange(len(power))
    pitch = np.where(peaks[every, best], exact.reshape(-1, width)[every, best], 0.0)
    hertz = 440 * 2 ** ((pitch - 69) / 12)
    partials = measure_partials(power, total, np.where(pitch > 0, hertz / bin_hz, 0))
    amplitude = np.sqrt(energy / total[rows])
    clear = amplitude > SERIES_FLOOR
    peaks_of = rows[clear], position[clear] * bin_hz, amplitude[clear]
    series = find_series(*strongest_peaks(*peaks_of, len(power)))
    notes = salience.reshape(-1, NUM_NOTES, 3).max(axis=2)
    return Pitches(tonal, notes, pitch, partials, *series)


def fold_chroma(salience: np.ndarray) -> np.ndarray:
    """Salience of notes [T, n] from LOWEST_NOTE up -> strongest of each pitch class [T, 12]."""
    first = LOWEST_NOTE % 12
    missing = -(first + salience.shape[1]) % 12
    padded = np.pad(salience, ((0, 0), (first, missing)))
    return padded.reshape(len(salience), padded.shape[1] // 12, 12).max(axis=1)


def band_amplitudes(mel: np.ndarray) -> np.ndarray:
    """Relative log-mel in dB -> amplitude of NUM_BANDS groups of bands, 1 where all power is there.

    What lies FAINT below the whole counts as nothing: noise 30 dB down must not colour a scene.
    """
    return np.maximum(np.sqrt(np.add.reduceat(10 ** (mel / 10), BAND_STARTS, axis=1)) - FAINT, 0)


def mel_shares(mel: np.ndarray) -> np.ndarray:
    """Relative log-mel in dB -> share of amplitude of each band (sums to 1)."""
    amplitude = 10 ** (mel * 0.05)
    return amplitude / amplitude.sum(axis=1, keepdims=True)


def local_peaks(strength: np.ndarray, threshold: float) -> np.ndarray:
    """Whether each element [n] is the largest within three frames and above the threshold."""
    padded = np.pad(strength, 3, constant_values=-1.0)
    around = np.lib.stride_tricks.sliding_window_view(padded, 7)
    earlier, later = around[:, :3].max(axis=1), around[:, 4:].max(axis=1)
    # of equal neighbours the first: more than those before, no less than those after
    return (strength > threshold) & (strength > earlier) & (strength >= later)


class Instants(NamedTuple):
    """What is measured on each of T frames alone, or against the two before."""

    level: np.ndarray
    mel: np.ndarray
    tonal: np.ndarray
    salience: np.ndarray
    pitch: np.ndarray
    partials: np.ndarray
    series: np.ndarray
    unity: np.ndarray
    flux: np.ndarray
    delta: np.ndarray
    fine: np.ndarray
    voicing: np.ndarray


def silent_instants(count: int) -> Instants:
    """Rows of digital silence, which lies before and after every sound."""
    flat = np.full((count, N_MELS), -10 * np.log10(N_MELS))
    level, partials = np.full(count, LEVEL_FLOOR), np.full((count, NUM_PARTIALS), PARTIAL_FLOOR)
    none, salience = np.zeros(count), np.zeros((count, NUM_NOTES))
    flux, delta = np.zeros((count, 3)), np.zeros((count, 1 + DELTA_CEPSTRA))
    pitches = Pitches(none, salience, none.copy(), partials, none.copy(), none.copy())
    fine, voicing = np.full((count, FINE_STEPS), LEVEL_FLOOR), np.zeros((count, 2))
    return Instants(level, flat, *pitches, flux, delta, fine, voicing)


def join_rows(parts: Sequence[Any]) -> Any:
    """Concatenate NamedTuples of arrays along time."""
    return type(parts[0])(*(np.concatenate(arrays) for arrays in zip(*parts)))


def slice_rows(rows: Any, start: int, stop: int | None = None) -> Any:
    """Cut a NamedTuple of arrays along time."""
    return type(rows)(*(array[start:stop] for array in rows))


def measure_changes(
    level: np.ndarray, mel: np.ndarray, bands: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Change against DELTA_FRAMES ago: rises in three bands [T, 3] and deltas [T, 7], in dB.

    `level` and `mel` begin DELTA_FRAMES rows early; `bands` [N_MELS] numbers the band of each.
    """
    now, then = slice(DELTA_FRAMES, None), slice(None, -DELTA_FRAMES)
    absolute = mel + level[:, None]
    rise = np.clip(absolute[now] - absolute[then], 0, 40)
    # by what the band has now, or a rise out of nothing in a faint band would pass for an attack
    weighted = rise * mel_shares(mel[now])
    flux = np.stack([weighted[:, bands == k].sum(axis=1) for k in range(3)], axis=1)
    cepstra = mel @ dct_matrix(N_MELS)[:, 1 : 1 + DELTA_CEPSTRA]
    delta = np.column_stack([level[now] - level[then], cepstra[now] - cepstra[then]])
    return flux, np.clip(delta, -40, 40)


def sliding(rows: np.ndarray, width: int) -> np.ndarray:
    """Windows [n, width] over the first axis of a vector."""
    return np.lib.stride_tricks.sliding_window_view(rows, width)


FINE_STEPS = 8  # parts of a hop


def measure_fine(sound: np.ndarray, hop: int, count: int) -> np.ndarray:
    """Level in dBFS [count, FINE_STEPS] of parts of each frame's own hop, amid its window."""
    first, half = (len(sound) - count * hop) // 2, FINE_STEPS // 2
    edges = first + np.arange(-half, count * FINE_STEPS + half + 1) * hop // FINE_STEPS
    size, cut = np.diff(edges), sound[edges[0] : edges[-1]]
    square, mean_of = (np.add.reduceat(x, edges[:-1] - edges[0]) / size for x in (cut**2, cut))
    # Less the mean around each hop: what lies below 20 Hz is not heard.
    mean = sliding(mean_of, 2 * FINE_STEPS)[::FINE_STEPS].mean(axis=1)[:, None]
    square, mean_of = (x[half:-half].reshape(count, FINE_STEPS) for x in (square, mean_of))
    energy = np.maximum(square - 2 * mean * mean_of + mean**2, 0)
    return 10 * np.log10(energy + 10 ** (LEVEL_FLOOR / 10))


VOICE_LOWEST, VOICE_HIGHEST = 60.0, 750.0  # Hz, between which a period is looked for
OCTAVE_COST = 0.03  # periodicity that an octave lower must gain
VOICE_STEP = 4  # samples; voices are periodic below 2.7 kHz, and a fourth costs a fourth
VOICE_SMOOTH = np.convolve(np.full(VOICE_STEP, 1 / VOICE_STEP), np.full(VOICE_STEP, 1 / VOICE_STEP))


@functools.lru_cache(maxsize=4)
def voice_window(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Hann window [size], and one over its own autocorrelation at each lag [size]."""
    window = hann(size)
    spread = np.fft.irfft(np.abs(np.fft.rfft(window, 2 * size)) ** 2)[:size]
    return window, spread[0] / np.maximum(spread, 1e-3 * spread[0])


def measure_voicing(
    sound: np.ndarray, plan: "FramePlan", *, count: int, sample_rate: int
) -> np.ndarray:
    """How periodic the middle of each window is, 0-1, and at how many Hz [count, 2].

    The highest peak of the autocorrelation, freed of the window's own (Boersma 1993, Proceedings
    of the Institute of Phonetic Sciences 17): r / (1 - r) is the harmonics-to-noise ratio.
    """
    smooth = np.convolve(sound, VOICE_SMOOTH, mode="valid")
    size, rate = plan.short // 2 // VOICE_STEP, sample_rate / VOICE_STEP
    window, unbias = voice_window(size)
    first = (len(smooth) - (count - 1) * plan.hop - VOICE_STEP * size) // 2
    at = first + np.arange(count)[:, None] * plan.hop + VOICE_STEP * np.arange(size)
    frames = smooth[at]
    spectrum = np.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * window, 2 * size)
    lags = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[:, :size] * unbias
    shortest, longest = int(rate / VOICE_HIGHEST), min(int(rate / VOICE_LOWEST), size // 2)
    before, inside, after = (lags[:, shortest + k : longest + k] for k in (-1, 0, 1))
    peaks = (inside > before) & (inside >= after)
    # Between two samples: the peak of the parabola through three.
    bend = np.minimum(before - 2 * inside + after, -1e-12)
    offset = np.clip(0.5 * (before - after) / bend, -0.5, 0.5)
    height = np.where(peaks, inside - 0.25 * (before - after) * offset, 0.0)
    strength = height / (lags[:, :1] + POWER_FLOOR)
    # Two periods are as alike as one: of equals the shorter is the voice's (Boersma's octave cost).
    cost = OCTAVE_COST * np.log2(np.arange(shortest, longest))
    best, every = (strength - cost).argmax(axis=1), np.arange(count)
    heard, period = np.clip(strength[every, best], 0, 1), shortest + best + offset[every, best]
    return np.stack([heard, np.where(heard > 0, rate / period, 0.0)], axis=1)


def weighted_scene(rows: np.ndarray, weights: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Mean of rows [n + 2C, D] around each inner row [n, D], weighted by loudness [n + 2C].

    `kernel` [2C + 1] weighs by the distance in time.
    """
    width = len(kernel)
    count = len(rows) - width + 1
    # one product with a banded matrix, which is small because the rows come in chunks
    lag = np.arange(len(rows))[None, :] - np.arange(count)[:, None]
    banded = np.where((lag >= 0) & (lag < width), kernel[np.clip(lag, 0, width - 1)], 0.0) * weights
    return (banded @ rows) / banded.sum(axis=1, keepdims=True)


NOVELTY_PAST, NOVELTY_FUTURE = 21, 3  # frames an onset must stand out from
PAST_FRAMES = PULSE_FRAMES + NOVELTY_PAST + 3
FUTURE_FRAMES = SCENE_FRAMES + NOVELTY_FUTURE + 3
CONTEXT_SECONDS = FUTURE_FRAMES * HOP_FRACTION  # how far the spectral ear hears ahead


def measure_novelty(flux: np.ndarray) -> np.ndarray:
    """How far the rise at a frame stands above its neighbours', in dB [T - 24]."""
    strength = flux.sum(axis=1)
    around = sliding(strength, NOVELTY_PAST + 1 + NOVELTY_FUTURE).mean(axis=1)
    novelty = np.maximum(0, strength[NOVELTY_PAST : len(strength) - NOVELTY_FUTURE] - around)
    # Two frames that rise alike must tie: the last digits depend on how many frames came at once.
    return np.round(novelty, 9)


@functools.lru_cache(maxsize=2)
def tempogram_weights(frame_rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Window over novelty [W] and interpolation from lags to PERIODS [lags, 24]."""
    rising = np.sin(0.5 * np.pi * np.linspace(0.2, 1, PULSE_FRAMES)) ** 2
    falling = np.cos(0.5 * np.pi * np.linspace(0, 0.8, SCENE_FRAMES + 1)) ** 2
    lags = PERIODS * frame_rate
    grid = np.arange(int(lags[-1]) + 2)
    # each period takes in 1.5 lags to either side, so none falls between two lags
    return np.concatenate([rising, falling]), np.maximum(0, 1 - np.abs(grid[:, None] - lags) / 1.5)


def measure_tempogram(novelty: np.ndarray, frame_rate: float) -> np.ndarray:
    """Autocorrelation of novelty [n + W + 1] at PERIODS around each frame [n, 24], 0-1.

    Unbiased for the window's overlap; tempogram as in Grosche, Mueller and Kurth (2010, ICASSP).
    """
    window, pick = tempogram_weights(frame_rate)
    # longer than the window and all lags together, so that nothing wraps around
    size = 512
    smooth = np.convolve(novelty, [0.25, 0.5, 0.25], mode="valid")
    spectrum = np.fft.rfft(sliding(smooth, len(window)) * window, size, axis=1)
    lags = np.fft.irfft(np.abs(spectrum) ** 2, size, axis=1)[:, : len(pick)]
    bias = np.fft.irfft(np.abs(np.fft.rfft(window, size)) ** 2, size)[: len(pick)]
    # one more, in dB squared: where there are no onsets, rounding must not become a pulse
    correlation = lags / bias * bias[0] / (lags[:, :1] + 1.0)
    return np.clip(correlation @ (pick / pick.sum(axis=0)), 0, 1)


def measure_syllabic(level: np.ndarray, frame_rate: float) -> np.ndarray:
    """Share of the loudness modulation at 0.7-16 Hz that lies at 2.5-8 Hz [n], 0-1."""
    width = 2 * SCENE_FRAMES + 1
    # the square root of the amplitude, on which soft syllables count as well as loud ones
    loudness = 10 ** (np.maximum(sliding(level, width), -90) * 0.025)
    loudness -= loudness.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(loudness * hann(width), 128, axis=1)) ** 2
    hz = np.arange(65) * frame_rate / 128
    # syllables come some 3 to 8 a second; slower are phrases, faster is roughness
    inside = power[:, (hz >= 2.5) & (hz < 8)].sum(axis=1)
    return inside / (power[:, (hz >= 0.7) & (hz < 16)].sum(axis=1) + 1e-9)


def measure_scene(rows: Instants, frame_rate: float) -> Spectra:
    """Describe what surrounds each inner frame: PAST_FRAMES before it, FUTURE_FRAMES after."""
    inner = slice(PAST_FRAMES, len(rows.level) - FUTURE_FRAMES)
    near = slice(PAST_FRAMES - SCENE_FRAMES, len(rows.level) - NOVELTY_FUTURE - 3)
    # a Hann window without the zeros at its ends, which would be frames for nothing
    kernel = np.hanning(2 * SCENE_FRAMES + 3)[1:-1]
    even = np.ones(len(rows.level[near]))
    power = weighted_scene(10 ** (rows.level[near, None] / 10), even, kernel)[:, 0]
    level = 10 * np.log10(power + 10 ** (LEVEL_FLOOR / 10))
    # a pause is a pause: how far beyond 25 dB it falls must not decide the spread
    floored = np.maximum(sliding(rows.level[near], len(kernel)), level[:, None] - 25)
    mean = (floored @ kernel) / kernel.sum()
    spread = np.sqrt(((floored - mean[:, None]) ** 2) @ kernel / kernel.sum())
    bands = band_amplitudes(rows.mel[near])
    heard = np.column_stack([bands, rows.tonal[near], rows.salience[near]])
    loudness = 10 ** (rows.level[near] * 0.05)
    scene = weighted_scene(heard, loudness, kernel)
    tonal, salience = scene[:, NUM_BANDS], scene[:, NUM_BANDS + 1 :]
    chroma, bass = fold_chroma(salience), fold_chroma(salience[:, : 60 - LOWEST_NOTE])
    novelty = measure_novelty(rows.flux)
    onsets = local_peaks(novelty, 3.0)[3:-3].astype(np.float64)
    density = sliding(onsets[PULSE_FRAMES - SCENE_FRAMES :], len(kernel)) @ kernel / kernel.sum()
    tempogram = measure_tempogram(novelty[2:-2], frame_rate)
    syllabic = measure_syllabic(rows.level[near], frame_rate)
    return Spectra(
        *slice_rows(rows, inner.start, inner.stop),
        *(level, spread, scene[:, :NUM_BANDS], tonal, chroma, bass),
        *(density * frame_rate, tempogram, syllabic),
    )


class FramePlan(NamedTuple):
    """How frames are cut from sound, and what of their spectra is wanted."""

    hop: int  # samples from a frame to the next
    short: int  # window of the mel bands, in samples, centred in the long one
    long: int  # window of the pitches
    top: int  # bins of the long window's spectrum that hold pitches
    bank: np.ndarray  # [short // 2 + 1, N_MELS]


def frame_powers(sound: np.ndarray, plan: FramePlan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Power [T], power in the mel bands [T, N_MELS] and fine spectrum [T, top] of frames."""
    frames = sliding(sound, plan.long)[:: plan.hop]
    margin = (plan.long - plan.short) // 2
    power = power_spectrum(frames[:, margin : margin + plan.short])
    return power.sum(axis=1), power @ plan.bank, power_spectrum(frames)[:, : plan.top]


class Analyzer:
    """Hears one sound block by block: audio in, rows of `Spectra` out, CONTEXT_SECONDS later.

    All state is carried here, so blocks of any size give the same rows. Frame i stands for
    samples [i * hop, (i + 1) * hop); its windows (4 and 8 hops) are centred on their middle.
    `powers` may be a GPU's frame_powers(), which says in `chunk` how many frames suit it.

    Parameters
    ----------
    sample_rate : int
        Hz of the sound that is pushed.
    hop_length : int
        Samples from a frame to the next.
    powers : callable, optional
        Like frame_powers().
    """

    def __init__(
        self, sample_rate: int, hop_length: int, *, powers: Callable[..., Any] = frame_powers
    ) -> None:
        self._hop, self._sample_rate, self._powers = hop_length, sample_rate, powers
        self.chunk = getattr(powers, "chunk", 64)  # bounds memory, and 64 fit a core's cache
        short, self._long = window_size(hop_length), 2 * window_size(hop_length)
        self._frame_rate, self._bin_hz = sample_rate / hop_length, sample_rate / self._long
        bank, top = mel_filterbank(sample_rate, short), int(PEAK_TOP / self._bin_hz) + 16
        self._plan = FramePlan(hop_length, short, self._long, top, bank)
        centres = MEL_EDGES[1:-1]
        self._bands = np.searchsorted(FLUX_EDGES, centres)
        # silence, in the amount that centres the first window on the middle of frame 0
        self._waiting = np.zeros((self._long - hop_length) // 2)
        self._samples = self._framed = 0
        self._rows = silent_instants(PAST_FRAMES)

    def push(self, audio: np.ndarray) -> Spectra:
        """Hear a block of mono samples [n]; return the rows that became whole.

        `audio` is mono, float [n] in full scale +-1, n of any size and 0, too.
        """
        self._samples += len(audio)
        self._hear(audio)
        return self._release()

    def flush(self) -> Spectra:
        """End the sound: the last rows, with silence after it."""
        missing = -(-self._samples // self._hop) - self._framed
        if missing > 0:
            self._hear(np.zeros((missing - 1) * self._hop + self._long - len(self._waiting)))
        self._rows = join_rows([self._rows, silent_instants(FUTURE_FRAMES)])
        return self._release()

    def _hear(self, audio: np.ndarray) -> None:
        self._waiting = np.concatenate([self._waiting, audio.astype(np.float64)])
        parts, last = [self._rows], self._rows
        while (count := min(self.chunk, (len(self._waiting) - self._long) // self._hop + 1)) > 0:
            last = self._measure(count, slice_rows(last, -DELTA_FRAMES))
            parts.append(last)
            self._waiting = self._waiting[count * self._hop :]
            self._framed += count
        self._rows = join_rows(parts)

    def _measure(self, count: int, before: Instants) -> Instants:
        sound = self._waiting[: (count - 1) * self._hop + self._long]
        power, bands, fine = self._powers(sound, self._plan)
        level = 10 * np.log10(power + 10 ** (LEVEL_FLOOR / 10))
        mel = relative_mel(bands)
        pitches = measure_pitches(fine, self._bin_hz)
        earlier = slice_rows(before, -DELTA_FRAMES)
        levels, mels = np.concatenate([earlier.level, level]), np.concatenate([earlier.mel, mel])
        flux, delta = measure_changes(levels, mels, self._bands)
        fine = measure_fine(sound, self._hop, count)
        voicing = measure_voicing(sound, self._plan, count=count, sample_rate=self._sample_rate)
        return Instants(level, mel, *pitches, flux, delta, fine, voicing)

    def _release(self) -> Spectra:
        ready = max(0, len(self._rows.level) - PAST_FRAMES - FUTURE_FRAMES)
        parts = []
        # in parts, because a scene's matrix grows with the square of the rows
        for start in range(0, ready, 2 * self.chunk):
            stop = min(ready, start + 2 * self.chunk)
            rows = slice_rows(self._rows, start, stop + PAST_FRAMES + FUTURE_FRAMES)
            parts.append(measure_scene(rows, self._frame_rate))
        self._rows = slice_rows(self._rows, ready)
        return join_rows(parts) if parts else slice_rows(NO_SPECTRA, 0, 0)


# One row of silence to cut empty results from: a queue that began with it would be a frame late.
NO_SPECTRA = measure_scene(silent_instants(PAST_FRAMES + FUTURE_FRAMES + 1), 1 / HOP_FRACTION)


DESCRIPTORS = (
    "level", "centroid", "low", "lowmid", "mid", "high", "air", "flatness", "tonal", "slope",
    "attack_low", "attack_mid", "attack_high", "spread", "onset_rate", "syllabic", "pulse",
    "period", "harmonic", "odd_even", "waver",
)  # fmt: skip
BAND_EDGES = (150.0, 500.0, 2000.0, 5000.0)  # Hz, between low, lowmid, mid, high and air
NUM_DESCRIPTORS = len(DESCRIPTORS) + NUM_NOTES


@functools.lru_cache(maxsize=1)
def band_tables() -> tuple[np.ndarray, np.ndarray]:
    """Membership of mel bands in the five descriptor bands [64, 5]; log2 of their centres [64]."""
    centres = MEL_EDGES[1:-1]
    return np.eye(5)[np.searchsorted(BAND_EDGES, centres)], np.log2(centres)


WAVER_FRAMES = 9  # over which the pitch is held against its mean: one swing of vibrato, 0.2 s


def measure_waver(pitch: np.ndarray) -> np.ndarray:
    """How far the pitch strays from its mean around each frame [T], in cents; 0 where it leaps."""
    if not len(pitch):
        return pitch
    half = WAVER_FRAMES // 2
    near = sliding(np.pad(pitch, half, mode="edge"), WAVER_FRAMES)
    # a vibrato swings less than 1.5 semitones in all; more is another note
    held = (near.min(axis=1) > 0) & (np.ptp(near, axis=1) < 1.5)
    return np.where(held, 100 * near.std(axis=1), 0.0)


def describe(spectra: Spectra) -> np.ndarray:
    """Descriptors [T, NUM_DESCRIPTORS] in the units glosses speak: DESCRIPTORS, then the notes.

    Levels in dBFS, `centroid` in log2 Hz, bands as shares of power, `flatness` in dB below white
    noise, `slope` in dB per 46 ms, attacks in dB, `pulse` 0-1 with its `period` in log2 seconds,
    `harmonic` as share of power in the partials of one pitch, odd against even partials in dB,
    `waver` of the pitch in cents.
    """
    members, octaves = band_tables()
    share = 10 ** (spectra.mel / 10)
    loudness = mel_shares(spectra.mel)
    pulse = spectra.tempogram.max(axis=1)
    period = np.log2(PERIODS[spectra.tempogram.argmax(axis=1)])
    partials = spectra.partials
    # 3, 5, 7 against 2, 4, 6: the fundamental, odd itself, would always tip the scales
    odd_even = partials[:, 2:7:2].mean(axis=1) - partials[:, 1:6:2].mean(axis=1)
    # 18.06 dB is 10 log10(N_MELS): noise that is flat over the bands has flatness 0
    columns = (
        spectra.level, loudness @ octaves, share @ members, spectra.mel.mean(axis=1) + 18.06,
        spectra.tonal, spectra.delta[:, 0], spectra.flux, spectra.scene_spread,
        spectra.onset_rate, spectra.syllabic, pulse, period,
        np.minimum(1, np.sum(10 ** (partials / 10), axis=1)), odd_even,
        measure_waver(spectra.pitch), spectra.salience,
    )  # fmt: skip
    return np.column_stack(columns).astype(np.float32)


# 5 Extractors ------------------------------------------------------------------------------------
# Uses: 1, 2, 4. An ear turns what is heard into features on the frame grid: rows [T, D].

TIMBRE_QUEFRENCIES = 12  # c1-c12 hold the spectral envelope, c13-c63 pitch and detail


class Branch(NamedTuple):
    """What a chain of codebooks quantizes: each stage's metric over the dimensions of features."""

    weights: np.ndarray  # [Q, D], factors on a difference; powers of two keep sums exact
    natural: bool = True  # features have units of their own and are not standardised


def stage_weights(sizes: Sequence[int]) -> np.ndarray:
    """A metric per side of sound [Q, D], which hears nothing else; the last stage hears all."""
    own = np.repeat(np.eye(len(sizes)), sizes, axis=1)
    return np.vstack([own, np.ones(sum(sizes))])


def snap(features: np.ndarray) -> np.ndarray:
    """Round to GRID within +-256, so that every sum of squares downstream is exact in float64."""
    # 14 bits and a sign: a square has 28, a sum over a hundred of them 35, and float64 holds 53
    return np.clip(np.rint(features / GRID), -16384, 16383) * GRID


# A0 hears level and envelope, A1 fine quefrencies and pitch classes, A2 attacks and changes.
ACOUSTIC = Branch(stage_weights(
    (1 + TIMBRE_QUEFRENCIES, N_MELS - 1 - TIMBRE_QUEFRENCIES + 12, 3 + 1 + DELTA_CEPSTRA)
))  # fmt: skip
SPECTRAL = Branch(stage_weights((3 + NUM_BANDS, 24, len(PERIODS) + 2)))


def acoustic_features(spectra: Spectra) -> np.ndarray:
    """Level, quefrencies and changes in dB and pitch classes times ten [T, 86]; see ACOUSTIC."""
    cepstra = spectra.mel @ dct_matrix(N_MELS)[:, 1:]
    chroma = fold_chroma(spectra.salience)
    # noise has some strongest class, too, so chroma counts as far as the frame is tonal
    chroma = chroma * (10 * spectra.tonal / (chroma.max(axis=1) + 0.05))[:, None]
    return snap(
        np.column_stack([spectra.level, cepstra, chroma, spectra.flux, spectra.delta * 0.5])
    )


def acoustic_to_mel(features: np.ndarray) -> np.ndarray:
    """Mel power [T, N_MELS] that acoustic features [T, 86] (or decoded codes) stand for.

    Each row adds up to the power that its level says.
    """
    # without c0, which features leave to the level
    cepstra = np.column_stack([np.zeros(len(features)), features[:, 1:N_MELS]])
    basis = dct_matrix(N_MELS)
    shape = cepstra @ (basis / np.sum(basis**2, axis=0)).T
    power = 10 ** (shape / 10)
    level = 10 ** (features[:, :1] / 10) - 10 ** (LEVEL_FLOOR / 10)
    return power / power.sum(axis=1, keepdims=True) * np.maximum(level, 0)


def acoustic_chroma(features: np.ndarray) -> np.ndarray:
    """Strength of pitch classes 0-1 [T, 12] that acoustic features (or decoded codes) stand for."""
    return features[:, N_MELS : N_MELS + 12] / 10


def spectral_features(spectra: Spectra) -> np.ndarray:
    """What surrounds a frame, scaled so that one unit is about as much anywhere [T, 65]."""
    # a scene that is half tonal has all its harmony; the bass counts half as much
    clear = np.minimum(1, 2 * spectra.scene_tonal)
    loudest = spectra.scene_chroma.max(axis=1) + 0.05
    chroma = spectra.scene_chroma * (8 * clear / loudest)[:, None]
    bass = spectra.scene_bass * (4 * clear / loudest)[:, None]
    columns = (
        spectra.scene_level / 16, spectra.scene_spread / 8, spectra.scene_tonal * 8,
        spectra.scene_bands * 16, chroma, bass,
        spectra.tempogram * 8, 2 * np.log2(1 + spectra.onset_rate), spectra.syllabic * 4,
    )  # fmt: skip
    return snap(np.column_stack(columns))


class SpectralEar:
    """The ear that needs nothing but NumPy: features of the analyser's own scenes."""

    def push(self, audio: np.ndarray, spectra: Spectra) -> np.ndarray:
        """Features [n, D] of the rows that became whole."""
        return spectral_features(spectra)

    def flush(self, spectra: Spectra) -> np.ndarray:
        """Features of the last rows."""
        return spectral_features(spectra)

    def native(self) -> list[tuple[float, np.ndarray]]:
        """States at rates of their own: this ear has none."""
        return []


class Seams(NamedTuple):
    """What analysis and quantization compute where the ear does: see Analyzer and Codebooks."""

    analyzer: Mapping[str, Any] = {}
    encode: Mapping[str, Any] = {}


class SpectralEars:
    """Hands out spectral ears; `fallback` says why, where another was wanted."""

    identity = "spectral"
    branch = SPECTRAL
    reads = tuple(layer.reads for layer in LAYERS[:NUM_QUANTIZERS])
    seams = Seams()

    def __init__(self, fallback: str = "") -> None:
        self.card = {"name": "spectral", "weights": None, "layer": None}
        if fallback:
            self.card["fallback"] = fallback

    def listen(self, *, live: bool = False) -> SpectralEar:
        """An ear for one sound."""
        return SpectralEar()


# -- the neural ears: MERT and Wav2Vec2 --


def first_line(error: BaseException) -> str:
    """Return an error's first line, which is what a user can do something with."""
    return (str(error).splitlines() or [""])[0]


def within(seconds: float, act: Callable[[], Any], troubles: tuple[type, ...]) -> Any:
    """Return what `act` returns, or raise what it raises, or TimeoutError after `seconds`.

    A thread, because no timeout of a socket bounds the look-up of a name.
    """
    answer: list[tuple[Any, BaseException | None]] = []

    def _attempt() -> None:
        try:
            answer.append((act(), None))
        except troubles as error:
            answer.append((None, error))

    # a daemon, or the program could not end while a name is looked up
    thread = threading.Thread(target=_attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    value, error = answer[0] if answer else (None, TimeoutError(f"no answer in {seconds:.0f} s"))
    if error is not None:
        raise error
    return value


class NeuralFamily(NamedTuple):
    """One architecture that can serve as an ear, and how its checkpoints look."""

    name: str  # also the beginning of its settings: mert_model, mert_layer
    library: str  # the transformers module; its classes are named after it
    sample_rate: int  # Hz, unless config.json says otherwise
    context: float  # seconds a window hears on each side beyond what it reports
    prefixes: tuple[str, ...]  # that a checkpoint may put before every tensor's name
    heads: tuple[str, ...]  # tensors of training heads, which no hidden state depends on


class KnownModel(NamedTuple):
    """A model on the hub that was checked: the commit that was, and what its weights allow."""

    revision: str
    licence: str


# The positional convolution sees 64 frames to each side: 0.85 s at 75 Hz, 1.28 s at 50 Hz.
# MERT: Li et al. 2023, arXiv:2306.00107, for music; wav2vec 2.0: Baevski et al. 2020,
# arXiv:2006.11477, for speech.
MERT = NeuralFamily(
    "mert", "Hubert", 24000, 1.0, ("hubert.", "mert_model."), ("feature_extractor_cqt.",)
)
WAV2VEC2 = NeuralFamily(
    "wav2vec2", "Wav2Vec2", 16000, 1.5, ("wav2vec2.",),
    ("quantizer.", "project_q.", "project_hid.", "lm_head."),
)  # fmt: skip
NEURAL_EARS = {"mert": (MERT,), "wav2vec2": (WAV2VEC2,), "mert+wav2vec2": (MERT, WAV2VEC2)}
NONCOMMERCIAL = "CC-BY-NC-4.0, so not for commercial use"
# Pinned, so that weights replaced on the hub cannot change codes; `main` where none was checked.
KNOWN_MODELS = {
    "m-a-p/MERT-v1-95M": KnownModel("12af15fef9d0ac838c3f475bfbbf26d2060dd4f5", NONCOMMERCIAL),
    "m-a-p/MERT-v1-330M": KnownModel("main", NONCOMMERCIAL),
    "facebook/wav2vec2-base": KnownModel("0b5b8e868dd84f03fd87d01f9c4ff0f080fecfe8", "Apache-2.0"),
}
# All else in a config.json, such as auto_map, which names code to be run, is left aside.
ARCHITECTURE_KEYS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "layer_norm_eps", "feat_extract_norm", "feat_extract_activation", "conv_dim", "conv_stride",
    "conv_kernel", "conv_bias", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups",
    "do_stable_layer_norm", "feat_proj_layer_norm", "mask_time_prob", "mask_feature_prob",
)  # fmt: skip
REFUSED_KEYS = ("feature_extractor_cqt", "deepnorm")  # features that plain HuBERT does not have
# In this order: the first kind can hold no code.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
WINDOW = 10.0  # seconds a model hears at once; the models were trained on 5 s crops
HUB_PATIENCE = 6.0  # seconds the hub has to answer; importing torch takes some of the ten, too
NORMALIZE_EPS = 1e-7  # added to a window's variance: a floor at -70 dB of full scale
VRAM_PER_SAMPLE = 1600  # bytes of GPU memory that one input sample takes in the first convolutions
MAX_BATCH = 32  # windows


class ModelSource(NamedTuple):
    """Where a model's files come from: a directory, or a commit on the hub and its local cache."""

    name: str
    revision: str
    directory: Path | None
    offline: bool
    quiet: bool = False

    @property
    def identity(self) -> str:
        """The model and its commit; of a directory the last part, since it may be moved."""
        return f"{self.directory.name if self.directory else self.name}@{self.revision}"

    def find(self, *names: str) -> Path | None:
        """Return the first of these files that there is, or None; the cache goes before the hub."""
        if self.directory:
            return next((p for p in map(self.directory.joinpath, names) if p.is_file()), None)
        return self._find_on_hub(names)

    def _find_on_hub(self, names: Sequence[str]) -> Path | None:
        hub, reason = load_package("huggingface_hub")
        if hub is None:
            raise MissingError(f"{reason}; it comes with {PACKAGES['transformers'].install}")
        known = functools.partial(hub.try_to_load_from_cache, self.name, revision=self.revision)
        try:
            found = next((Path(p) for p in map(known, names) if isinstance(p, str)), None)
        except ValueError as error:
            raise MissingError(f"{self.name}: no such directory, nor a name for the hub") from error
        if found or self.offline:
            return found
        return next((path for path in (self._download(hub, n) for n in names) if path), None)

    def _download(self, hub: Any, name: str) -> Path | None:
        """Fetch one file from the hub, saying so if it is large; None if there is no such file."""
        # Not every error of the hub's HTTP library is an OSError, but the hub's own base knows it.
        absent, bases = hub.utils.EntryNotFoundError, hub.utils.HfHubHTTPError.__bases__
        troubles = (OSError, ValueError, absent, *bases)
        url = hub.hf_hub_url(self.name, name, revision=self.revision)
        try:
            # asked first: this has a time limit, a download has none, and a large one is announced
            head = within(HUB_PATIENCE, lambda: hub.get_hf_file_metadata(url), troubles)
            if head.size and head.size > 1e6:
                self._announce(hub, name, head.size)
            return Path(hub.hf_hub_download(self.name, name, revision=self.revision))
        except absent:
            return None
        except troubles as error:
            raise MissingError(
                f"{self.name} is not in the cache and could not be downloaded "
                f"({type(error).__name__}: {first_line(error)})"
            ) from error

    def _announce(self, hub: Any, name: str, size: int) -> None:
        licence = KNOWN_MODELS.get(self.name, KnownModel("", "see the model's page")).licence
        warn(f"downloading {name} of {self.name}: {size / 1e6:.0f} MB, licence {licence}")
        if self.quiet:
            hub.utils.disable_progress_bars()


def locate_model(family: NeuralFamily, settings: Settings) -> ModelSource:
    """Where the settings say that an ear's model is: `--mert-model`, `--wav2vec2-model`.

    A directory of that name goes before the hub; its revision is "local".
    """
    name, asked = getattr(settings, f"{family.name}_model"), settings.model_revision
    directory = Path(name).expanduser()
    if directory.is_dir():
        return ModelSource(name, "local", directory.resolve(), settings.offline)
    revision = asked or KNOWN_MODELS.get(name, KnownModel("main", "")).revision
    return ModelSource(name, revision, None, settings.offline, settings.quiet)


def read_config(source: ModelSource) -> dict[str, Any]:
    """Read a model's config.json.

    MissingError if there is none, if it is no JSON object, or if it asks for one of REFUSED_KEYS.
    """
    path = source.find("config.json")
    if path is None:
        where = "the local cache" if source.offline and not source.directory else "it"
        raise MissingError(f"{source.name}: no config.json in {where}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MissingError(f"{path} cannot be read ({first_line(error)})") from error
    if not isinstance(config, dict):
        raise MissingError(f"{path} is no JSON object")
    for key in REFUSED_KEYS:
        if config.get(key):
            raise MissingError(f"{source.name}: config.json asks for {key}, which is not supported")
    return config


def read_architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture's own keys; MissingError for a size, stride, width or count of no model."""
    architecture = {key: config[key] for key in ARCHITECTURE_KEYS if key in config}
    for key, value in architecture.items():
        numbers = value if isinstance(value, list) else [value]
        # a stride or width of 0 divides by zero only once the model is built
        least = 1 if isinstance(value, list) or key.endswith("_size") else 0
        most = 100 if "layers" in key else 65536
        wild = (isinstance(n, (int, float)) and not least <= n <= most for n in numbers)
        if len(numbers) > 100 or any(wild):
            raise MissingError(f"config.json: no model has {key} {str(value):.60}")
    return architecture


def installed_version(package: str) -> str:
    """Return the version that an installed package declares."""
    metadata = importlib.import_module("importlib.metadata")  # slow to import, seldom needed
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(unknown version)"


@functools.lru_cache(maxsize=None)
def hide_broken_torchaudio() -> None:
    """Let a torchaudio that does not load cost torchaudio only.

    transformers imports it unguarded where it is installed. A None in `sys.modules` makes it look
    absent to both `find_spec` and `import`, whatever version of transformers asks.
    """
    if importlib.util.find_spec("torchaudio") is None:
        return
    torchaudio, reason = load_package("torchaudio")
    if torchaudio is None:
        # a torchaudio is built for one torch, so both versions are told
        versions = [f"{name} {installed_version(name)}" for name in ("torchaudio", "torch")]
        warn(f"going on without torchaudio: {first_line(reason)} ({' beside '.join(versions)})")
        sys.modules["torchaudio"] = None  # type: ignore[assignment]


def load_library(family: NeuralFamily) -> Any:
    """Import the transformers module that holds a family's plain model class.

    MissingError if torch or transformers is missing, or too old to know the family.
    """
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")  # it would ask a third party
    require("torch")
    hide_broken_torchaudio()
    version = require("transformers").__version__
    name = family.library.lower()
    module, reason = load_package(f"transformers.models.{name}.modeling_{name}")
    if module is None:
        raise MissingError(f"transformers {version} has no {family.library}: {first_line(reason)}")
    return module


def build_model(library: Any, family: NeuralFamily, architecture: dict[str, Any]) -> Any:
    """Build the plain model without memory for its weights (on torch's meta device).

    MissingError if the library refuses the architecture.
    """
    config_class = getattr(library, f"{family.library}Config")
    strict = getattr(load_package("huggingface_hub.errors")[0], "StrictDataclassError", ValueError)
    try:
        with require("torch").device("meta"):
            return getattr(library, f"{family.library}Model")(config_class(**architecture)).eval()
    except (TypeError, ValueError, KeyError, RuntimeError, ZeroDivisionError, strict) as error:
        raise MissingError(f"config.json makes no {family.library}: {first_line(error)}") from error


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a checkpoint's tensors, from disk only as they are used; no code in it is run.

    MissingError if it is damaged, holds more than named tensors or needs a later torch to be safe.
    """
    torch, (safetensors, reason) = require("torch"), load_package("safetensors.torch")
    if safetensors is None:
        raise MissingError(f"{reason}; it comes with {PACKAGES['transformers'].install}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.load_file(path)
        if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
            raise MissingError(f"{path.name} needs torch 2.6 or later (CVE-2025-32434)")
        mapped = zipfile.is_zipfile(path)  # checkpoints of before torch 1.6 are not
        # weights_only unpickles tensors alone; a damaged pickle may raise nearly anything
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (
        OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError,
        pickle.UnpicklingError,
        sys.modules["safetensors"].SafetensorError,
    ) as error:  # fmt: skip
        raise MissingError(f"{path} cannot be read as weights: {first_line(error)}") from error
    if not isinstance(tensors, dict) or not all(map(torch.is_tensor, tensors.values())):
        raise MissingError(f"{path} holds more than named tensors")
    return tensors


def plain_name(name: str, family: NeuralFamily) -> str:
    """A tensor's name in the plain model of today: without prefix, weight norm as parametrized."""
    for prefix in family.prefixes:
        name = name[len(prefix) :] if name.startswith(prefix) else name
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        name = name.replace(f"pos_conv_embed.conv.{old}", f"pos_conv_embed.conv.{new}")
    return name.replace("conv.original", "conv.parametrizations.weight.original")


def check_names(found: Mapping[str, Any], wanted: Mapping[str, Any], name: str) -> None:
    """Refuse a checkpoint whose tensors are not exactly the model's, by name and shape.

    The MissingError has up to three names of each trouble: missing, unexpected, misshapen.
    """
    wrong = sorted(
        f"{key} has shape {tuple(found[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in found.keys() & wanted.keys()
        if found[key].shape != wanted[key].shape
    )
    complaints = (
        ("missing", sorted(wanted.keys() - found.keys())),
        ("unexpected", sorted(found.keys() - wanted.keys())),
        ("misshapen", wrong),
    )
    said = [f"{len(keys)} {what} ({', '.join(keys[:3])})" for what, keys in complaints if keys]
    if said:
        raise MissingError(f"{name}: tensors do not fit the architecture: {'; '.join(said)}")


def hash_tensors(tensors: Mapping[str, Any], architecture: dict[str, Any]) -> str:
    """SHA-256 of the weights in use and of the numbers that say how they are used."""
    digest = hashlib.sha256(json.dumps(architecture, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(memoryview(tensors[name].numpy()).cast("B"))
    return digest.hexdigest()


def fill_model(model: Any, tensors: dict[str, Any], *, layer: int, name: str) -> dict[str, Any]:
    """Cut a model after `layer`, give it its weights in float32, and return those.

    MissingError if tensors do not fit the architecture or are not finite.
    """
    torch = require("torch")
    # before the cut: all of the checkpoint has to fit, not only what is used of it
    check_names(tensors, model.state_dict(), name)
    model.encoder.layers = model.encoder.layers[:layer]
    used = {key: tensors[key] for key in model.state_dict()}
    for key, tensor in used.items():
        if not (tensor.is_floating_point() and torch.isfinite(tensor).all()):
            raise MissingError(f"{name}: not all numbers in {key} are finite floating point")
        used[key] = tensor.float().contiguous()
    # assigned, because on the meta device there is no memory to copy into
    model.load_state_dict(used, strict=True, assign=True)
    convolution = model.encoder.pos_conv_embed.conv
    if hasattr(convolution, "parametrizations"):  # weigh it once instead of at every window
        torch.nn.utils.parametrize.remove_parametrizations(convolution, "weight")
    return used


def choose_device(name: str) -> Any:
    """The torch device for `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; MissingError if not there."""
    torch = require("torch")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    # torch itself would fail later, and not in one line
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MissingError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise MissingError("--device mps: torch sees no Metal device")
    return device


@functools.lru_cache(maxsize=None)
def route_float32_to_onednn() -> bool:
    """Multiply float32 matrices with oneDNN where that is as exact as float32 should be.

    The setting names bf16, but only CPUs with AMX round to it; elsewhere oneDNN computes in
    float32, on AMD more than twice as fast as MKL. A product compared with float64 decides.
    """
    torch = require("torch")
    route = getattr(torch.backends.mkldnn, "matmul", None)
    if route is None or not torch.backends.mkldnn.is_available():
        return False
    # numbers with all their bits in use, which leave torch's dice alone
    a, b = torch.linspace(-1, 1, 512 * 768).sin().mul(997).frac().view(2, -1, 768)
    before, route.fp32_precision = route.fp32_precision, "bf16"
    exact = a.double() @ b.double().T
    error = (torch.nn.functional.linear(a, b) - exact).norm() / exact.norm()
    # float32 is off by some 1e-7 and bf16 by 1e-3, so nothing lies near the border
    if error > 1e-6:
        route.fp32_precision = before
    return bool(error <= 1e-6)


def configure_torch(settings: Settings, device: Any) -> str:
    """Set torch's threads and float32 arithmetic; return the precision, `fp32` or `bf16`."""
    torch = require("torch")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.deterministic:
        torch.use_deterministic_algorithms(True)
        return "fp32"
    if device.type == "cpu":
        route_float32_to_onednn()
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # fp32 has to agree with the CPU's
    if settings.precision != "auto":
        return settings.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


class Stem:
    """The model's own convolutions from sound to frames, computed channels last.

    The first layer's norm over time (a channel a group) is folded into its kernel: each channel's
    mean and variance follow from those of the kernel-long pieces of input. So the largest tensor
    of the whole model is written once instead of three times, with the library's values.
    """

    def __init__(self, extractor: Any) -> None:
        torch = require("torch")
        self._torch, first, *self._rest = torch, *extractor.conv_layers
        self._first, self._norm = first, first.layer_norm
        self._kernels = [
            layer.conv.weight[:, :, None].contiguous(memory_format=torch.channels_last)
            for layer in self._rest
        ]

    def fold(self, pieces: Any) -> tuple[Any, Any]:
        """Return the first layer's kernels [B, K, C] and biases [B, 1, C] for these [B, T, K]."""
        torch, norm = self._torch, self._norm
        # Metal has no float64
        exact = torch.float32 if pieces.device.type == "mps" else torch.float64
        wide, kernel = pieces.to(exact), self._first.conv.weight[:, 0].to(exact)
        mean = wide.mean(1, keepdim=True)
        centred = wide - mean
        covariance = centred.transpose(1, 2) @ centred / wide.shape[1]
        # rounding may push what should be 0 below it
        variance = ((kernel @ covariance) * kernel).sum(2).clamp(min=0)
        scale = norm.weight / (variance + norm.eps).sqrt()
        bias = norm.bias - scale * (mean @ kernel.T)[:, 0]
        return (scale[:, :, None] * kernel).transpose(1, 2).float(), bias[:, None].float()

    def front(self, sound: Any) -> Any:
        """The first layer, always in float32: sound [B, N] -> [B, T, C]."""
        convolution = self._first.conv
        pieces = sound.unfold(1, convolution.kernel_size[0], convolution.stride[0])
        kernels, bias = self.fold(pieces)
        return self._first.activation(self._torch.baddbmm(bias, pieces, kernels))

    def back(self, hidden: Any) -> Any:
        """The layers after it: [B, T, C] -> [B, frames, C]."""
        hidden = hidden.transpose(1, 2)[:, :, None]
        for layer, kernel in zip(self._rest, self._kernels):
            stride = (1, layer.conv.stride[0])
            hidden = self._torch.nn.functional.conv2d(hidden, kernel, stride=stride)
            hidden = layer.activation(hidden)
        return hidden[:, :, 0].transpose(1, 2)


class NeuralModel:
    """A loaded model, cut after the layer in use; shared by all sounds that it hears.

    `identity` is all that decides features: model, revision, hash of the weights in use, layer,
    precision. It hears `sample_rate` Hz and makes `native_rate` frames a second of D `dimensions`,
    `hop` samples apart; each sees `field` samples.
    """

    def __init__(self, model: Any, *, family: NeuralFamily, settings: Settings) -> None:
        self._torch, config = require("torch"), model.config
        self.name, self.dimensions = family.name, config.hidden_size
        self.layer = len(model.encoder.layers)
        self.device = choose_device(settings.device)
        self.precision = configure_torch(settings, self.device)
        self.sample_rate, self.hop, self.field = family.sample_rate, 1, 1
        # a frame sees as much more as a kernel reaches, in steps of all strides before it
        for kernel, stride in zip(config.conv_kernel, config.conv_stride):
            self.field += (kernel - 1) * self.hop
            self.hop *= stride
        self.native_rate = self.sample_rate / self.hop
        self.window = round(WINDOW * self.native_rate)  # native hops, as are the next two
        self.context = math.ceil(family.context * self.native_rate)
        self.payload = self.window - 2 * self.context
        self._model = model.to(self.device)
        # other checkpoints (a norm a layer, biases) go through the library's own convolutions
        folds = config.feat_extract_norm == "group" and not config.conv_bias
        self._stem = Stem(model.feature_extractor) if folds else None
        self.batch = self._roomy_batch()
        self.source = self.identity = ""

    def _roomy_batch(self) -> int:
        """Windows that half of the GPU's free memory holds; on a CPU a batch is never faster."""
        if self.device.type != "cuda":
            return 1
        free = self._torch.cuda.mem_get_info(self.device)[0]
        return int(np.clip(free / 2 / (self.window * self.hop * VRAM_PER_SAMPLE), 1, MAX_BATCH))

    def forward(self, windows: np.ndarray) -> np.ndarray:
        """Hear windows float32 [B, N] at `sample_rate`, N >= `field`.

        Each is brought to zero mean and unit variance first, as the models' own feature extractor
        does to a sound (with its 1e-7 as floor), and the first layer norms over the window again.
        So level decides little: a quiet passage is not lost, and a stream can do the same. Returns
        the full model's `hidden_states[layer]`, float32 [B, (N - field) // hop + 1, D]; of the last
        layer, too, before any final norm.
        """
        states: list[np.ndarray] = []
        done = 0
        while done < len(windows):
            # cut anew each time, since the batch may just have been halved
            part = windows[done : done + self.batch]
            try:
                states.append(self._run(part))
                done += len(part)
            except self._torch.cuda.OutOfMemoryError as error:
                self._halve_batch(error)
        if not all(np.isfinite(part).all() for part in states):
            raise MissingError(f"{self.name} gives no finite features: its weights are damaged")
        return states[0] if len(states) == 1 else np.concatenate(states)

    def _halve_batch(self, error: Exception) -> None:
        if self.batch == 1:
            raise MissingError("the GPU's memory holds no window: --device cpu does") from error
        self.batch //= 2
        warn(f"out of GPU memory: going on with {self.batch} windows at a time")
        self._torch.cuda.empty_cache()

    def _run(self, windows: np.ndarray) -> np.ndarray:
        torch, sound = self._torch, self._torch.from_numpy(np.ascontiguousarray(windows))
        if self.device.type == "cuda":
            sound = sound.pin_memory()
        with torch.inference_mode():
            sound = sound.to(self.device, non_blocking=True)
            variance, mean = torch.var_mean(sound, dim=1, keepdim=True, unbiased=False)
            sound = (sound - mean) / torch.sqrt(variance + NORMALIZE_EPS)
            return self._hidden_state(sound).float().cpu().numpy()

    def _hidden_state(self, sound: Any) -> Any:
        # part by part, because the whole model norms its last state in some versions of the
        # library; layers, too, give tuples in some and tensors in others
        torch, stem, model = self._torch, self._stem, self._model
        front = stem.front(sound) if stem else sound
        bf16 = self.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            frames = stem.back(front) if stem else model.feature_extractor(front).transpose(1, 2)
            hidden = model.feature_projection(frames)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            hidden = hidden + model.encoder.pos_conv_embed(hidden)
            if not model.config.do_stable_layer_norm:
                hidden = model.encoder.layer_norm(hidden)
            for layer in model.encoder.layers:
                hidden = layer(hidden)
                hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        return hidden


def load_neural_model(family: NeuralFamily, settings: Settings) -> NeuralModel:
    """Load a model from a directory or the hub: its config.json and tensors, never its code.

    What takes longest comes last, so that a missing package costs no download. MissingError if a
    package, the model or a tensor is missing or not as it should be; UsageError if the layer is.
    """
    for name in ("torch", "transformers", "soxr"):
        if importlib.util.find_spec(name) is None:
            require(name)
    source = locate_model(family, settings)
    config = read_config(source)
    library = load_library(family)
    architecture, rate = read_architecture(config), config.get("sample_rate", family.sample_rate)
    if not (isinstance(rate, int) and 8000 <= rate <= 192000):
        raise MissingError(f"{source.name}: config.json asks for a sample_rate of {rate!s:.60}")
    model = build_model(library, family, architecture)
    layer, layers = getattr(settings, f"{family.name}_layer"), len(model.encoder.layers)
    if not 0 <= layer <= layers:
        raise UsageError(f"--{family.name}-layer {layer}: {source.name} has layers 0 to {layers}")
    path = source.find(*WEIGHT_FILES)
    if path is None:
        raise MissingError(f"{source.name}: neither {' nor '.join(WEIGHT_FILES)} is there")
    named = {plain_name(key, family): tensor for key, tensor in read_tensors(path).items()}
    tensors = {key: named[key] for key in named if not key.startswith(family.heads)}
    used = fill_model(model, tensors, layer=layer, name=source.name)
    heard = family._replace(sample_rate=rate)
    neural = NeuralModel(model, family=heard, settings=settings)
    neural.source = source.identity
    facts = (source.identity, hash_tensors(used, architecture), f"layer {layer}", neural.precision)
    neural.identity = " ".join((family.name, *facts))
    return neural


class TorchaudioStream:
    """torchaudio's windowed-sinc resampling of a stream, on a GPU; the interface of soxr's."""

    ZERO_CROSSINGS, ROLLOFF = 64, 0.955  # as near to soxr's HQ as can be (0.1 %): codes agree

    def __init__(self, rate_in: int, rate_out: int, device: Any) -> None:
        shared = math.gcd(rate_in, rate_out)
        self._down, self._up, self._device = rate_in // shared, rate_out // shared, device
        reach = (self.ZERO_CROSSINGS / self.ROLLOFF + 2) * max(self._down / self._up, 1)
        # whole periods, so that every call begins in the same phase
        self._margin = math.ceil(reach / self._down + 1) * self._down
        self._held = np.zeros(self._margin, np.float32)
        self._heard = self._told = 0

    def resample_chunk(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Return what `block` makes ready; with `last`, all the rest."""
        self._heard += len(block)
        rest = np.zeros(self._margin + self._down if last else 0, np.float32)
        self._held = np.concatenate((self._held, block, rest))
        ready = max(0, (len(self._held) - 2 * self._margin) // self._down * self._down)
        made = self._convolve(self._held[: ready + 2 * self._margin])
        skip = self._margin // self._down * self._up
        made = made[skip : skip + ready // self._down * self._up]
        self._held = self._held[ready:]
        if last:
            made = made[: round(self._heard * self._up / self._down) - self._told]
        self._told += len(made)
        return made

    def _convolve(self, sound: np.ndarray) -> np.ndarray:
        resample = require("torchaudio").functional.resample
        there = require("torch").from_numpy(sound).to(self._device)
        shape = {"lowpass_filter_width": self.ZERO_CROSSINGS, "rolloff": self.ROLLOFF}
        return resample(there, self._down, self._up, **shape).cpu().numpy()


def open_resampler(rate_in: int, model: NeuralModel) -> Any:
    """A stream from the analysis rate to the model's: torchaudio on a GPU, else soxr."""
    if model.device.type == "cuda" and load_package("torchaudio")[0] is not None:
        return TorchaudioStream(rate_in, model.sample_rate, model.device)
    return require("soxr").ResampleStream(rate_in, model.sample_rate, 1, dtype="float32")


class TorchPowers:
    """frame_powers() by torchaudio, in float64 as there; `chunk` frames at a time suit a GPU."""

    chunk = 2048

    def __init__(self, device: Any) -> None:
        self._torch, self._device = require("torch"), device
        self._spectrogram = require("torchaudio").functional.spectrogram

    def __call__(
        self, sound: np.ndarray, plan: FramePlan
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Power [T], power in the mel bands [T, N_MELS] and fine spectrum [T, top] of frames."""
        there, margin = self._put(sound), (plan.long - plan.short) // 2
        power = self._spectrum(there[margin : len(sound) - margin], plan.short, hop=plan.hop)
        fine = self._spectrum(there, plan.long, hop=plan.hop)[:, : plan.top]
        rows = (power.sum(dim=1), power @ self._put(plan.bank), fine)
        return tuple(row.cpu().numpy() for row in rows)

    def _put(self, array: np.ndarray) -> Any:
        # a copy: torch warns of arrays that may not be written to
        return self._torch.from_numpy(np.array(array)).to(self._device)

    def _spectrum(self, sound: Any, size: int, *, hop: int) -> Any:
        sizes = {"n_fft": size, "hop_length": hop, "win_length": size}
        form = {"pad": 0, "power": 2.0, "normalized": False, "center": False}
        window = self._put(hann(size))
        power = self._spectrogram(sound, window=window, **sizes, **form).T * (2 / size)
        power[:, :2] = 0
        return power


class TorchNearest:
    """Section 6's nearest() on a GPU, in float64: rows on GRID have exact sums, so the same codes.

    Codewords stay on the device; there are as many tables as stages.
    """

    rows = 65536  # scored at a time, half a gigabyte of scores

    def __init__(self, device: Any) -> None:
        self._torch, self._device = require("torch"), device
        self._kept: dict[int, tuple[Any, ...]] = {}

    def __call__(
        self, rows: np.ndarray, weights: np.ndarray, *, table: tuple[np.ndarray, np.ndarray]
    ) -> np.ndarray:
        """Index of the codeword closest to each row [n] in a metric; the lowest wins a tie."""
        torch = self._torch
        # codewords travel to the device once, not with every block
        if id(table) not in self._kept:
            arrays = (*table, weights[weights > 0], np.flatnonzero(weights))
            there = (torch.from_numpy(np.array(array)).to(self._device) for array in arrays)
            self._kept[id(table)] = (table, *there)  # the table, so that its id stays its own
        _, columns, half_norms, weight, heard = self._kept[id(table)]
        codes = []
        for start in range(0, len(rows), self.rows):
            block = torch.from_numpy(rows[start : start + self.rows]).to(self._device)
            scores = (block[:, heard] * weight) @ columns - half_norms
            codes.append(scores.argmax(dim=1).cpu().numpy())  # the first, by torch's word
        return np.concatenate(codes) if codes else np.empty(0, np.int64)


def pool_frames(native: np.ndarray, first: int, edges: np.ndarray) -> np.ndarray:
    """Mean [n, D] of native frames between successive edges, each weighed by the time it shares.

    `native` [N, D] are frames `first`, `first` + 1, ... of the stream; those before and after are
    taken to be like the outermost ones. `edges` [n + 1] is where the rows begin and end, in native
    frames from the stream's beginning.
    """
    low, high = edges[:-1, None], edges[1:, None]
    rows = np.zeros((len(low), native.shape[1]), np.float32)
    begin = np.floor(low).astype(np.int64)
    # a loop over the few native frames that a row spans, not over the rows
    for frame in (begin + step for step in range(math.ceil(edges[-1] - edges[0]) + 1)):
        share = np.minimum(high, frame + 1) - np.maximum(low, frame)
        if not (share > 0).any():
            break
        weight = (share.clip(min=0) / (high - low)).astype(np.float32)
        rows += weight * native[(frame[:, 0] - first).clip(0, len(native) - 1)]
    return rows


class NeuralListener:
    """One model hearing one sound: resample, cut into windows, pool onto the frame grid.

    Windows of 10 s begin on whole native hops from the stream's beginning; each reports its
    frames but for the context on either side, which its neighbours report better. The last one is
    moved back until it ends where the sound ends, and a sound shorter than a window is one window.
    So nothing that was reported changes, and block sizes decide nothing. Native frame j sees the
    samples [j hop, j hop + field) and stands for the hop-long cell in the middle of them. A `live`
    listener hears each window once it is full, even if the model would rather have a batch.
    """

    def __init__(self, model: NeuralModel, settings: Settings, *, live: bool) -> None:
        self._model, self._batch = model, 1 if live else model.batch
        self._resampler = open_resampler(settings.sample_rate, model)
        self._block = np.zeros(0, np.float32)  # of whole seconds, so pushes leave no trace
        self._seconds, self._hop_length = settings.sample_rate, settings.hop_length
        self._width = settings.hop_length / settings.sample_rate * model.native_rate
        # a native frame stands in the middle of what it sees
        self._lag = (model.field / model.hop - 1) / 2
        self._sound, self._base, self._next = np.zeros(0, np.float32), 0, 0
        self._states = np.zeros((0, model.dimensions), np.float32)  # from self._first on
        self._tail = self._states  # what the last window knows beyond its payload
        self._first = self._rows = self._samples = 0
        self.native: list[np.ndarray] | None = [] if settings.save_features else None

    def push(self, audio: np.ndarray) -> np.ndarray:
        """Hear float32 [n] at the analysis rate; return the rows [m, D] that are ready."""
        self._samples += len(audio)
        self._block = np.concatenate((self._block, audio))
        whole = len(self._block) // self._seconds * self._seconds
        for start in range(0, whole, self._seconds):
            self._hear(self._resampler.resample_chunk(self._block[start : start + self._seconds]))
        self._block = self._block[whole:]
        ready = self._first + len(self._states)
        return self._pool(int((ready + self._lag) / self._width) - self._rows)

    def flush(self) -> np.ndarray:
        """Return the remaining rows; now the sound has ceil(samples / hop_length) of them."""
        if not self._samples:
            return self._states
        self._hear(self._resampler.resample_chunk(self._block, last=True))
        while self._full():
            self._run(min(self._full(), self._batch))
        self._hear_last()
        return self._pool(-(-self._samples // self._hop_length) - self._rows)

    def _full(self) -> int:
        """How many windows are waiting."""
        model = self._model
        spare = self._base + len(self._sound) // model.hop - self._next - model.window
        return max(0, spare // model.payload + 1)

    def _hear(self, sound: np.ndarray) -> None:
        self._sound = np.concatenate((self._sound, sound))
        while self._full() >= self._batch:
            self._run(self._batch)

    def _window(self, start: int) -> np.ndarray:
        """Sound of the window that begins `start` hops into the stream, or what there is of it."""
        hop = self._model.hop
        return self._sound[(start - self._base) * hop :][: self._model.window * hop]

    def _run(self, count: int) -> None:
        """Hear the next `count` windows."""
        model = self._model
        starts = [self._next + i * model.payload for i in range(count)]
        for start, states in zip(starts, model.forward(np.stack(list(map(self._window, starts))))):
            kept = model.context if start else 0
            self._keep(states[kept : model.context + model.payload])
            self._tail = states[model.context + model.payload :]
        self._next = starts[-1] + model.payload
        # One payload back, since the last window may begin anywhere after this one's beginning.
        self._sound = self._sound[(starts[-1] - self._base) * model.hop :]
        self._base = starts[-1]

    def _hear_last(self) -> None:
        """Hear the window that ends with the sound, unless that is the one heard last."""
        model, end = self._model, self._base * self._model.hop + len(self._sound)
        start = max(0, -(-(end - model.window * model.hop) // model.hop))
        if self._next and start == self._next - model.payload:
            return self._keep(self._tail)
        sound = self._window(start)
        # shorter than one frame's field there would be no state at all
        sound = np.pad(sound, (0, max(0, model.field - len(sound))))
        known = self._first + len(self._states)
        return self._keep(model.forward(sound[None])[0][known - start :])

    def _keep(self, states: np.ndarray) -> None:
        self._states = np.concatenate((self._states, states))
        if self.native is not None:
            self.native.append(states)

    def _pool(self, count: int) -> np.ndarray:
        """Pool the next `count` rows, and forget the native frames that no later row needs."""
        if count <= 0:
            return np.zeros((0, self._model.dimensions), np.float32)
        edges = np.arange(self._rows, self._rows + count + 1) * self._width - self._lag
        rows = pool_frames(self._states, self._first, edges)
        self._rows += count
        # one stays at least, since rows beyond the last state are taken to be like it
        spent = min(max(0, math.floor(edges[-1]) - self._first), len(self._states) - 1)
        self._states, self._first = self._states[spent:], self._first + spent
        return rows


class NeuralEar:
    """One or two models hearing one sound, their features side by side on the frame grid.

    Frame i is the sound from i hop_length to (i + 1) hop_length samples. Analysis at 22,050 Hz
    has already taken what lies above 11 kHz, of which MERT would hear the octave up to 12 kHz.
    """

    def __init__(self, models: Sequence[NeuralModel], settings: Settings, *, live: bool) -> None:
        self._models = tuple(models)
        self._listeners = [NeuralListener(model, settings, live=live) for model in models]
        self._waiting = [np.zeros((0, model.dimensions), np.float32) for model in models]

    def push(self, audio: np.ndarray, spectra: Spectra | None = None) -> np.ndarray:
        """Hear float32 [n] at the analysis rate, n >= 0; return the rows [m, D] now ready."""
        return self._side_by_side([listener.push(audio) for listener in self._listeners])

    def flush(self, spectra: Spectra | None = None) -> np.ndarray:
        """End the sound; return its remaining rows, float32 [m, D]."""
        return self._side_by_side([listener.flush() for listener in self._listeners])

    def native(self) -> list[tuple[float, np.ndarray]]:
        """Each model's rate in Hz and states [N, D], if `save_features` keeps them."""
        pairs = zip(self._models, self._listeners)
        return [(m.native_rate, np.concatenate(kept.native)) for m, kept in pairs if kept.native]

    def _side_by_side(self, rows: list[np.ndarray]) -> np.ndarray:
        self._waiting = [np.concatenate(pair) for pair in zip(self._waiting, rows)]
        # two models hear ahead by different times: the slower one sets the pace
        ready = min(map(len, self._waiting))
        together = np.concatenate([waiting[:ready] for waiting in self._waiting], axis=1)
        self._waiting = [waiting[ready:] for waiting in self._waiting]
        return together


def gpu_seams(device: Any) -> Seams:
    """Spectra and nearest codes on a GPU in float64; spectra only where torchaudio loads."""
    if device.type != "cuda":
        return Seams()
    loads = load_package("torchaudio")[0] is not None
    powers = {"powers": TorchPowers(device)} if loads else {}
    return Seams(powers, {"nearest": TorchNearest(device)})


class NeuralEars:
    """The models behind the neural ears, loaded once; each sound gets an ear of its own."""

    reads = ("its first code of the frame's meaning", *("what the codes before leave over",) * 3)

    def __init__(self, models: Sequence[NeuralModel], settings: Settings) -> None:
        self.models, self._settings = tuple(models), settings
        self.identity = " + ".join(model.identity for model in self.models)
        # neural dimensions have no sides of sound, so each stage hears all that is left
        dimensions = sum(model.dimensions for model in self.models)
        self.branch = Branch(np.ones((NUM_QUANTIZERS, dimensions)), natural=False)
        self.card = {
            "name": settings.codebook_init,
            "weights": " + ".join(model.source for model in self.models),
            "layer": "+".join(str(model.layer) for model in self.models),
            "precision": self.models[0].precision,
        }
        self.seams = gpu_seams(self.models[0].device)

    def listen(self, *, live: bool = False) -> NeuralEar:
        """Return an ear for one sound; `live` if its rows should not wait for a batch."""
        return NeuralEar(self.models, self._settings, live=live)


def open_neural_ear(settings: Settings) -> NeuralEars:
    """Load what `--codebook-init` names of NEURAL_EARS; a MissingError says why it cannot be."""
    if settings.compat_fallback:
        raise MissingError("the neural ears need torch and transformers; --compat-fallback is on")
    families = NEURAL_EARS[settings.codebook_init]
    return NeuralEars([load_neural_model(family, settings) for family in families], settings)


def open_ears(settings: Settings) -> tuple[Any, Settings]:
    """The ears that settings ask for, and settings that name the ears one got.

    MissingError if an ear that may not be replaced (`fallback` off) cannot be had.
    """
    if settings.codebook_init not in NEURAL_EARS:
        return SpectralEars(), settings
    try:
        return open_neural_ear(settings), settings
    except MissingError as error:
        if not settings.fallback:
            models = (f"--{one.name}-model DIR" for one in NEURAL_EARS[settings.codebook_init])
            cure = "takes a copy of the weights, --doctor looks for the rest"
            raise MissingError(f"{error}; {' and '.join(models)} {cure}") from error
        if not settings.quiet:
            why = str(error).partition("; it is needed for")[0]
            ways = "--doctor tells what mends it, --codebook-init spectral asks for this ear"
            warn(f"the spectral ear listens, not {settings.codebook_init}: {why}; {ways}")
        return SpectralEars(str(error)[:160]), replace(settings, codebook_init="spectral")


# 6 Quantization ----------------------------------------------------------------------------------
# Uses: 1. Residual vector quantization. Features lie on GRID and weights are powers of two, so the
# sums here are exact in float64: the same codes on any machine, BLAS and block size.

# The suite's 45,000 frames make 18 batches in three passes, in which the paper's 0.99 would go a
# sixth of the way.
DECAY = 0.8  # of the moving averages, a batch
EPSILON = 1e-5  # Laplace smoothing of cluster sizes
DEAD_CODE = 0.25  # batch members on average below which a code is renewed
BATCH = 8192
SEEDING_ROWS = 10000
# With less a codeword would be the copy of a few frames, and its descriptors chance.
ROWS_A_CODE = 20  # a codebook has no more codes in use than rows / this
EMA_PASSES = 3


def search_table(vectors: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codewords as weighted columns [D, K], of the dimensions heard, and half their norms [K].

    `vectors` are [K, D], `weights` [D] the factors on a difference.
    """
    # dimensions of weight 0 are cut out, so a stage costs what it hears
    weighted = (vectors * weights)[:, weights > 0]
    return np.ascontiguousarray(weighted.T), 0.5 * np.sum(weighted**2, axis=1)


def nearest(
    rows: np.ndarray, weights: np.ndarray, *, table: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Index of the codeword closest to each row [n] in a metric; the lowest wins a tie.

    Parameters
    ----------
    rows : ndarray, float64 [n, D]
        What is left to quantize, on GRID.
    weights : ndarray, float64 [D]
        Factors on a difference; a dimension of weight 0 is not heard.
    table : tuple of ndarray
        From search_table() with the same weights.

    Returns
    -------
    ndarray, int64 [n]
    """
    columns, half_norms = table
    heard = np.flatnonzero(weights)
    # the least |x - c|^2 is the greatest x c - |c|^2 / 2: one product, and exact on GRID;
    # 256 rows at a time keep the scores at 2 MB
    codes = np.empty(len(rows), dtype=np.int64)
    for start in range(0, len(rows), 256):
        block = rows[start : start + 256, heard] * weights[heard]
        codes[start : start + 256] = np.argmax(block @ columns - half_norms, axis=1)
    return codes


@dataclass(frozen=True, eq=False)
class Codebooks:
    """A chain of Q codebooks of K vectors over D dimensions, and what they are to be read as."""

    vectors: np.ndarray  # [Q, K, D] float64 on GRID
    weights: np.ndarray  # [Q, D] each stage's metric
    offset: np.ndarray  # [D] subtracted first
    scale: np.ndarray  # [D] divided by next (ones where features have natural units)
    descriptors: np.ndarray  # [Q, K, M] float32 measured means, see describe()
    origin: str  # what they were fitted on

    def __post_init__(self) -> None:
        # tables and identity are computed once, so the arrays must not change under them
        for array in (self.vectors, self.weights, self.offset, self.scale, self.descriptors):
            array.setflags(write=False)

    @functools.cached_property
    def tables(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """What nearest() needs of each stage: weighted codewords [D, K] and half their norms."""
        return [search_table(c, w) for c, w in zip(self.vectors, self.weights)]

    @functools.cached_property
    def identity(self) -> str:
        """Short hash of the bytes that decide codes."""
        digest = hashlib.sha256()
        for array in (self.vectors, self.weights, self.offset, self.scale):
            # Adding zero makes -0.0 and 0.0, which mean the same, the same bytes.
            digest.update(np.ascontiguousarray(array + 0.0, dtype="<f8").tobytes())
        return digest.hexdigest()[:12]

    def normalise(self, features: np.ndarray) -> np.ndarray:
        """Features [T, D] -> rows on GRID that encode() takes."""
        return np.rint((features - self.offset) / self.scale / GRID) * GRID

    def encode(
        self, features: np.ndarray, *, nearest: Callable[..., np.ndarray] = nearest
    ) -> np.ndarray:
        """Features [T, D] -> codes int16 [T, Q], each stage quantizing what the last one left.

        `nearest` may be a GPU's: the sums are exact there too, so the codes are the same.

        `features` are in the ear's own units; codes are 0 to K - 1.
        """
        residual = self.normalise(features)
        codes = np.empty((len(features), len(self.vectors)), dtype=np.int16)
        for q, (vectors, weights) in enumerate(zip(self.vectors, self.weights)):
            codes[:, q] = nearest(residual, weights, table=self.tables[q])
            # in every dimension, unheard ones, too: what one stage says of them is 0
            residual -= vectors[codes[:, q]]
        return codes

    def decode(self, codes: np.ndarray, stages: int | None = None) -> np.ndarray:
        """Codes [T, Q] -> features [T, D] they stand for, of the first stages or of all.

        Codes must be 0 to K - 1; features come in the ear's own units, float64.
        """
        used = range(len(self.vectors) if stages is None else stages)
        total = sum((self.vectors[q][codes[:, q]] for q in used), np.zeros(self.offset.shape))
        return total * self.scale + self.offset


def seed_codebook(rows: np.ndarray, size: int, *, rng: np.random.RandomState) -> np.ndarray:
    """Pick seed rows by k-means++ (Arthur and Vassilvitskii 2007): indices [K] into rows.

    `rows` [N, D] are weighted already. With fewer distinct rows than codes some are picked twice.
    """
    picked = np.empty(size, dtype=np.int64)
    picked[0] = rng.randint(len(rows))
    norms = np.sum(rows**2, axis=1)
    distance = np.full(len(rows), np.inf)
    for k in range(1, size + 1):
        row = picked[k - 1]
        np.minimum(distance, norms - 2 * (rows @ rows[row]) + norms[row], out=distance)
        if k < size:
            reach = np.cumsum(distance)
            wanted = rng.random_sample() * reach[-1]
            # the right side skips rows at distance 0; only if all are, one is picked twice
            picked[k] = min(np.searchsorted(reach, wanted, side="right"), len(rows) - 1)
    return picked


def sum_by_code(rows: np.ndarray, codes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Members [K] and sum of rows [K, D] of each code.

    `rows` are [n, D], `codes` [n] of 0 to `size` - 1; a code without members has sum 0.
    """
    counts = np.bincount(codes, minlength=size)
    sums = np.zeros((size, rows.shape[1]))
    order = np.argsort(codes, kind="stable")
    # reduceat takes an empty stretch for its first row, so codes without members are left out
    used = np.nonzero(counts)[0]
    starts = np.concatenate([[0], np.cumsum(counts[used])[:-1]])
    sums[used] = np.add.reduceat(rows[order], starts, axis=0)
    return counts, sums


class MovingAverages:
    """EMA codebook of van den Oord et al. (2017, arXiv 1711.00937, appendix A.1).

    Cluster sizes and sums decay towards each batch's; sizes are Laplace-smoothed; a code that
    nearly no row chooses is moved onto a row of the batch.

    Parameters
    ----------
    vectors : ndarray, float64 [K, D]
        The codebook to begin with.
    weight : float
        Rows that each of its vectors counts for in the first averages.
    """

    def __init__(self, vectors: np.ndarray, weight: float) -> None:
        self.vectors = vectors
        self._sizes = np.full(len(vectors), weight)
        self._sums = vectors * weight

    def update(self, rows: np.ndarray, weights: np.ndarray, *, rng: np.random.RandomState) -> None:
        """Move the codebook towards a batch of rows [n, D]."""
        size = len(self.vectors)
        codes = nearest(rows, weights, table=search_table(self.vectors, weights))
        counts, sums = sum_by_code(rows, codes, size)
        self._sizes = DECAY * self._sizes + (1 - DECAY) * counts
        self._sums = DECAY * self._sums + (1 - DECAY) * sums
        # before the averages are divided: a dying code's few members would throw it anywhere
        self._renew(rows, rng)
        total = self._sizes.sum()
        smoothed = (self._sizes + EPSILON) / (total + size * EPSILON) * total
        self.vectors = np.rint(self._sums / smoothed[:, None] / GRID) * GRID

    def _renew(self, rows: np.ndarray, rng: np.random.RandomState) -> None:
        # a small batch has few members for any code, so the bar sinks with it
        dead = np.nonzero(self._sizes < DEAD_CODE * min(1.0, len(rows) / (4 * len(self._sizes))))[0]
        chosen = rng.randint(len(rows), size=len(dead))
        self._sizes[dead] = 1.0
        self._sums[dead] = rows[chosen]


def adapt_codebook(
    vectors: np.ndarray, rows: np.ndarray, *, weights: np.ndarray, seed: int, passes: int
) -> np.ndarray:
    """Let a codebook [K, D] follow rows [N, D] by EMA for some passes over shuffled batches."""
    rng = np.random.RandomState(seed)
    # as if each code had had its fair share of a batch before
    averages = MovingAverages(vectors, max(1.0, min(BATCH, len(rows)) / len(vectors)))
    for _ in range(passes):
        order = rng.permutation(len(rows))
        for start in range(0, len(rows), BATCH):
            averages.update(rows[order[start : start + BATCH]], weights, rng=rng)
    return averages.vectors


def nudge_codebook(vectors: np.ndarray, rows: np.ndarray, *, weights: np.ndarray) -> np.ndarray:
    """Move codes that rows [N, D] choose by EMA towards their rows' mean; the others stay."""
    codes = nearest(rows, weights, table=search_table(vectors, weights))
    counts, sums = sum_by_code(rows, codes, len(vectors))
    # eight rows or more pull by 83 %, never all the way: the code's meaning has to stay near
    pull = 1 - DECAY ** np.minimum(counts, 8)
    mean = sums * (weights > 0) / np.maximum(counts, 1)[:, None]
    return np.rint((vectors + pull[:, None] * (mean - vectors)) / GRID) * GRID


def fit_stage(rows: np.ndarray, weights: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """Seed a codebook [K, D] on rows [N, D] by k-means++ and train it by EMA.

    Few rows fill few codes; the rest repeat the first, which wins every tie.
    """
    # RandomState, not default_rng: its numbers are frozen for all versions of NumPy (NEP 19)
    rng = np.random.RandomState(seed)
    heard = rows * (weights > 0)  # a codeword says nothing of what its stage does not hear
    sample = heard[rng.permutation(len(heard))[:SEEDING_ROWS]]
    fitted = min(size, max(4, len(rows) // ROWS_A_CODE))
    start = sample[seed_codebook((sample * weights)[:, weights > 0], fitted, rng=rng)]
    vectors = adapt_codebook(start, heard, weights=weights, seed=seed + 1, passes=EMA_PASSES)
    return np.concatenate([vectors, np.repeat(vectors[:1], size - fitted, axis=0)])


def fit_chain(
    rows: np.ndarray, weights: np.ndarray, *, size: int, seed: int, tick: Callable[[], None]
) -> np.ndarray:
    """Fit residual codebooks [Q, K, D] one after the other on normalised rows [N, D].

    Parameters
    ----------
    rows : ndarray, float64 [N, D]
        On GRID, see Codebooks.normalise().
    weights : ndarray, float64 [Q, D]
        Each stage's metric.
    size, seed : int
        K, and the dice of the first stage.
    tick : callable
        Called after each stage.
    """
    residual, chain = rows.copy(), []
    for stage, metric in enumerate(weights):
        # a seed each, or every stage would throw the same dice as the one before
        vectors = fit_stage(residual, metric, size=size, seed=seed + 100 * stage)
        residual -= vectors[nearest(residual, metric, table=search_table(vectors, metric))]
        chain.append(vectors)
        tick()
    return np.stack(chain)


def random_chain(rows: np.ndarray, weights: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """Codebooks drawn from a Gaussian with the rows' moments, not fitted: the control.

    `rows` are [N, D] and `weights` [Q, D]; the result is [Q, K, D] like fit_chain()'s.
    """
    rng = np.random.RandomState(seed)
    spread = rows.std(axis=0)
    shape = (size, rows.shape[1])
    return np.stack(
        [
            np.rint(rng.standard_normal(shape) * spread * (metric > 0) / GRID) * GRID
            for metric in weights
        ]
    )


# 7 Calibration and cache -------------------------------------------------------------------------
# Uses: 1, 2, 4, 5, 6. The ear-training suite, fitting, and the cache of what was fitted.

GOLDEN = 0.6180339887498949  # its multiples, modulo 1, fill [0, 1) evenly
# Inharmonic, so that hats and cymbals have no pitch, as real ones.
METAL = (1.0, 1.483, 1.932, 2.546, 2.63, 3.897)  # square-wave ratios of a classic drum machine
# Partials of a free bar, tuned marimba bar, church bell and wine glass, over the lowest
# (Fletcher & Rossing 1998, ch. 2, 3, 21)
BODIES = ((1.0, 2.756, 5.404, 8.933), (1.0, 3.98, 10.7),
          (0.5, 1.0, 1.183, 1.506, 2.0, 2.514, 2.662, 3.011, 4.166),
          (1.0, 2.32, 4.25, 6.63, 9.38))  # fmt: skip
# First three formants in Hz, men (Peterson & Barney 1952, table II)
VOWELS = ((270, 2290, 3010), (390, 1990, 2550), (530, 1840, 2480), (660, 1720, 2410),
          (730, 1090, 2440), (570, 840, 2410), (440, 1020, 2240), (300, 870, 2240),
          (640, 1190, 2390), (490, 1350, 1690))  # fmt: skip
# Man to child: a smaller mouth has higher formants.
VOICES = ((90.0, 0.95), (120.0, 1.0), (190.0, 1.16), (230.0, 1.2), (300.0, 1.4))  # Hz, formants x
# Noise, its centre in Hz, voice, seconds
# Like s, sh, f, t, k, p, then m and n, z, and a weak one; without noise they hum.
CONSONANTS = ((0.9, 6500, 0.0, 0.10), (0.8, 3200, 0.0, 0.11), (0.3, 4500, 0.0, 0.09),
              (1.0, 4000, 0.0, 0.03), (0.8, 1800, 0.0, 0.04), (0.6, 700, 0.0, 0.03),
              (0.0, 500, 0.3, 0.07), (0.0, 500, 0.5, 0.06), (0.5, 6000, 0.3, 0.08),
              (0.2, 1500, 0.1, 0.03))  # fmt: skip
# Major, minor, dorian, mixolydian, harmonic minor, phrygian; then pentatonic, blues, whole tone,
# chromatic
LADDERS = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10),
           (0, 2, 4, 5, 7, 9, 10), (0, 2, 3, 5, 7, 8, 11), (0, 1, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9),
           (0, 3, 5, 6, 7, 10), (0, 2, 4, 6, 8, 10), tuple(range(12)))  # fmt: skip
# Of seven notes, so that chords can be built on every degree
SCALES = LADDERS[:6]
CHORDS = ((0, 4, 7), (0, 3, 7), (0, 3, 6), (0, 4, 8), (0, 4, 7, 11), (0, 3, 7, 10), (0, 4, 7, 10),
          (0, 5, 7), (0, 2, 7), (0, 3, 6, 9), (0, 4, 7, 14))  # fmt: skip
INTERVALS = tuple((0, step) for step in range(1, 13))
# Degrees from 0: the first is I-V-vi-IV
PROGRESSIONS = ((0, 4, 5, 3), (0, 3, 4, 4), (0, 5, 3, 4), (1, 4, 0, 0), (0, 6, 5, 4), (0, 3, 0, 4))
# One beat or two of note lengths in beats; below zero it is a rest
RHYTHMS = ((1.0,), (0.5, 0.5), (0.75, 0.25), (1 / 3, 1 / 3, 1 / 3), (0.25,) * 4, (1.5, 0.5),
           (2.0,), (0.5, 0.25, 0.25), (-0.5, 0.5), (2 / 3, 1 / 3), (0.5, 1.0, 0.5),
           (1.0, -1.0))  # fmt: skip
# Steps a beat, then kick (a bar), snare and hat (again and again): x loud, o soft. Rock, four on
# the floor; waltz, funk; shuffle, half-time; 6/8, latin; breakbeat, jazz ride; punk, ballad
GROOVES = (
    (4, "x.......x.x.....", "....x...", "x.o."), (4, "x...x...x...x...", "....x...", "..x."),
    (2, "x.....", "..x.x.", "x.xoxo"), (4, "x..o..x...x.....", "....x..o.o..x..o", "xo"),
    (3, "x.....x..o..", "...x..", "x.o"),
    (4, "x.........x.....", "........x.......", "x...x...x...x.o."),
    (3, "x..o..", "...x..", "xoo"), (4, "x..x..x.x..x..x.", "..x...x.", "x.xx"),
    (4, "x.....o...x.....", "....x..o.x..x...", "x."), (3, "o..o..o..o..", ".", "x..x.o"),
    (2, "x.x.x.x.", ".x", "x"), (4, "x...........o...", "............x...", "........o......."),
)  # fmt: skip
KIT = tuple(map(str.split, ("kick", "snare snare clap rim", "hat hat ride shaker cowbell",
                            "tom conga snare crash")))  # fmt: skip
BASS_LINES = (((0,),), ((0,), (4,)), ((0,), (7,)), ((0,), (2,), (4,), (5,)))  # scale steps
COMPS = (((0, 2, 4),), ((0, 2, 4, 6),), ((0, 4, 9),), ((0,), (2,), (4,), (7,)))
# Dull in three degrees, the band of a telephone (300 to 3400 Hz), and two without bass.
LENSES = ((20, 900), (20, 2500), (20, 5000), (300, 3400), (500, 2e4), (1500, 2e4))  # Hz
# Shares of a piece, and the level there in dB
COURSES = (((0, 0.5), (-50, 0)), ((0.3, 1), (0, -50)), ((0, 1), (-35, 0)),
           ((0.6, 0.601), (0, -120)), ((0, 0.3, 0.9), (-25, 0, -30)),
           ((0.2, 0.201, 0.7, 0.701), (-25, 0, 0, -25)))  # fmt: skip
# What is struck or sudden, a tone and a burst of noise. Of the tone: Hz at its start and end,
# glide and fade (time constants, s); of the noise: level, band (Hz), fade (s); then its partials
DRUMS: dict[str, tuple[float, ...]] = {
    "kick": (160, 48, 0.035, 0.16, 0.15, 800, 4000, 0.008, 1),
    "snare": (260, 185, 0.02, 0.06, 1.2, 1200, 9000, 0.09, 1, 1.6),
    "hat": (4200, 4200, 1, 0.03, 1.5, 6500, 16000, 0.03, *METAL),
    "open": (4000, 4000, 1, 0.2, 1.5, 6000, 16000, 0.2, *METAL),
    "tom": (150, 95, 0.08, 0.2, 0.2, 200, 2000, 0.04, 1, 1.59),
    "clap": (950, 950, 1, 0.001, 3, 900, 3500, 0.1, 1),
    "crash": (2600, 2600, 1, 0.5, 2.5, 3000, 16000, 0.6, *METAL),
    "ride": (3300, 3300, 1, 0.4, 0.6, 5000, 14000, 0.25, *METAL),
    "shaker": (5000, 5000, 1, 0.001, 2, 4500, 12000, 0.05, 1),
    "rim": (1700, 1650, 0.01, 0.012, 0.5, 1500, 7000, 0.008, 1, 1.47),
    "conga": (330, 290, 0.02, 0.11, 0.2, 500, 4000, 0.015, 1, 2.1),
    "cowbell": (560, 560, 1, 0.12, 0.1, 2000, 8000, 0.01, 1, 1.48, 3.1),
}
EVENTS: dict[str, tuple[float, ...]] = {
    "knock": (240, 190, 0.02, 0.03, 0.6, 300, 3000, 0.02, 1, 1.9, 3.2),
    "footstep": (95, 70, 0.03, 0.05, 0.9, 150, 2500, 0.04, 1),
    "up chirp": (2000, 4200, 0.05, 0.08, 0.02, 2000, 6000, 0.02, 1),
    "down chirp": (5200, 2400, 0.06, 0.09, 0.02, 2000, 6000, 0.02, 1, 2),
    "click": (2500, 2500, 1, 0.002, 2, 1500, 12000, 0.002, 1),
    "bubble": (420, 1100, 0.06, 0.04, 0.01, 300, 2000, 0.02, 1),
    "glass": (2300, 2290, 1, 0.3, 0.5, 4000, 14000, 0.03, *BODIES[3]),
    "bark": (620, 330, 0.07, 0.09, 0.5, 600, 2500, 0.08, *range(1, 7)),
    "door": (85, 60, 0.05, 0.12, 1.6, 60, 1200, 0.12, 1, 1.7, 2.9),
    "thunder": (55, 35, 0.5, 0.5, 4, 25, 220, 0.9, 1),
    "meow": (520, 760, 0.15, 0.3, 0.05, 1500, 5000, 0.2, *range(1, 7)),
    "splash": (300, 200, 0.1, 0.02, 2, 700, 8000, 0.18, 1),
    "coin": (3100, 3100, 1, 0.18, 0.2, 5000, 14000, 0.005, 1, 1.53, 2.24),
}


class Take(NamedTuple):
    """One recording to be made: its dice, rate in Hz, length, and number among its kind."""

    rng: np.random.RandomState
    rate: int
    seconds: float
    index: int = 0

    @property
    def size(self) -> int:
        """Samples."""
        return max(1, round(self.seconds * self.rate))

    @property
    def times(self) -> np.ndarray:
        """Seconds of each sample, float64 [n]."""
        return np.arange(self.size) / self.rate

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the seconds at which a moving filter is set [F], and the Hz of its bins [B]."""
        # 256 samples at 22,050 Hz
        hop = round(self.rate * 0.0116)
        moments = np.arange(-(-self.size // hop) + 1) * hop / self.rate
        return moments, np.fft.rfftfreq(2 * hop, 1 / self.rate)

    def between(self, low: float, high: float) -> float:
        """Throw a number between two."""
        return low + (high - low) * self.rng.rand()

    def around(self, value: float, factor: float) -> float:
        """Throw a number within a factor of another, even in its logarithm."""
        return value * factor ** self.between(-1, 1)

    def pick(self, options: Sequence[Any]) -> Any:
        """Throw one of several; by `rand`, as `choice` may differ between machines."""
        return options[int(self.rng.rand() * len(options))]


Instrument = Callable[[Take, float], np.ndarray]  # plays a take's length of a note in Hz
Played = tuple[float, float, float, float]  # start and length in seconds, piano key, gain


class Tune(NamedTuple):
    """What the players of a piece agree on."""

    beat: float  # seconds
    span: float  # seconds a chord lasts
    root: int  # semitones over A
    scale: tuple[int, ...]
    chords: tuple[int, ...]  # degrees of the scale
    step: float  # seconds a step of the groove
    lanes: Sequence[str]  # kick, snare, hat

    def key(self, octave: int, degree: int) -> int:
        """Return the piano key of a degree of the scale, which may lie beyond the octave."""
        more, place = divmod(degree, len(self.scale))
        return self.root + 12 * (octave + more) + self.scale[place]


# Oscillators, noises, envelopes, filters: float64 [n], a level of about 1 rms
def ring(take: Take, hz: Any, *, amps: Any = 1.0, decays: Any = 0.0) -> np.ndarray:
    """Sum sinusoids at hz [K] that decay by `decays` [K] nepers a second."""
    # exp(z(t + u)) = exp(zt) exp(zu) makes it one product over a coarse and a fine clock
    hz, amps, decays = np.broadcast_arrays(*map(np.atleast_1d, (hz, amps, decays)))
    heard = hz < 0.45 * take.rate
    poles = (2j * np.pi * hz - decays)[heard] / take.rate
    # dice for all partials, unheard ones, too: other rates throw the same ones afterwards
    weights = (amps * np.exp(2j * np.pi * take.rng.rand(len(hz))))[heard]
    rows = math.isqrt(take.size) // 8 * 8 + 8
    step = -(-take.size // rows)
    coarse = np.exp(np.outer(np.arange(rows) * step, poles)) * weights
    fine = np.exp(np.outer(poles, np.arange(step)))
    left = np.concatenate((coarse.real, -coarse.imag), axis=1)
    # eight rows at a time, so that BLAS does not wake its threads for so little
    sound = left.reshape(rows // 8, 8, 2 * len(poles)) @ np.vstack((fine.real, fine.imag))
    return sound.ravel()[: take.size] / math.sqrt(np.sum(amps * amps) / 2 + 1e-12)


def harmonics(take: Take, hz: Any, *, amps: np.ndarray) -> np.ndarray:
    """Play harmonics [K] at a pitch in Hz that may move ([n]), from one stored period."""
    # the highest pitch decides, so that no moment of a glide aliases
    heard = amps[: min(int(0.45 * take.rate / np.max(hz)), 200)]
    period = np.fft.irfft(np.concatenate(([0], -1j * heard)), 2048) * 1024
    cycles = np.cumsum(np.broadcast_to(hz / take.rate, take.size))
    spots = (cycles - np.floor(cycles)) * 2048
    sound = np.interp(spots, np.arange(2049), np.append(period, period[0]))
    return sound / math.sqrt(np.sum(amps * amps) / 2)


def fft_size(size: int) -> int:
    """Return a length not below `size` whose FFT is fast."""
    # 8 to 16 times a power of two: small prime factors, and an eighth more at most
    step = 1 << max(size.bit_length() - 4, 0)
    return -(-size // step) * step


def band_gain(hz: np.ndarray, low: Any, *, high: Any) -> np.ndarray:
    """Return the gain of a band-pass with 24 dB an octave on both sides."""
    under, over = np.square(low / np.maximum(hz, 1.0)), np.square(hz / high)
    return 1.0 / ((1.0 + under * under) * (1.0 + over * over))


def leveled(sound: np.ndarray) -> np.ndarray:
    """Bring a sound to 1 rms."""
    return sound / math.sqrt(np.mean(sound * sound) + 1e-12)


def noise(take: Take, low: float = 20.0, *, high: float = 2e4, tilt: float = 0.0) -> np.ndarray:
    """Make noise in a band in Hz, tilted by so many dB an octave, 1 rms."""
    size = fft_size(take.size)
    hz = np.fft.rfftfreq(size, 1 / take.rate)
    gain = band_gain(hz, min(low, 0.3 * take.rate), high=high)
    if tilt:
        gain *= np.maximum(hz, 20.0) ** (tilt / 6.02)
    # `rand` is the same everywhere, and a sum over so many bins is Gaussian anyway
    dice = take.rng.rand(2, len(hz)) - 0.5
    sound = np.fft.irfft((dice[0] + 1j * dice[1]) * gain, size)[: take.size]
    return sound / math.sqrt(np.mean(sound * sound) + 1e-30)


def bandpass(take: Take, sound: np.ndarray, *, low: float = 20.0, high: float) -> np.ndarray:
    """Keep a band in Hz of a sound."""
    size = fft_size(take.size)
    gain = band_gain(np.fft.rfftfreq(size, 1 / take.rate), low, high=high)
    return np.fft.irfft(np.fft.rfft(sound, size) * gain, size)[: take.size]


def lay(sound: np.ndarray, start: float, *, played: np.ndarray) -> None:
    """Add a sound into a longer one from a sample on, as far as there is room."""
    spot = sound[int(start) :]
    spot[: len(played)] += played[: len(spot)]


def swell(take: Take, attack: float, *, release: float = 0.04) -> np.ndarray:
    """Rise from 0 to 1 and fall back in so many seconds."""
    size, gain = take.size, np.ones(take.size)
    rise, fade = (min(int(part * take.rate) + 1, size) for part in (attack, release))
    gain[:rise] *= np.arange(rise) / rise
    gain[size - fade :] *= np.arange(fade - 1, -1, -1) / fade
    return gain


def fall(take: Take, seconds: float) -> np.ndarray:
    """Fade from 1 with this time constant, after an attack of a millisecond."""
    return np.exp(-take.times / seconds) * np.minimum(take.times * 1000, 1.0)


def wander(take: Take, rate: float) -> np.ndarray:
    """Move at random between -1 and 1, so many turns a second, float64 [n]."""
    knots = take.rng.rand(int(take.seconds * rate) + 3) * 2 - 1
    return np.interp(take.times * rate, np.arange(len(knots)), knots)


def formant_gain(hz: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """Return the gain [F, B] at hz [B] of a mouth with formants [F, 3] in Hz."""
    gain = np.full((len(formants), len(hz)), 0.004)
    for level, centre in zip((1.0, 0.55, 0.3), formants.T[:, :, None]):
        gain += level / (1.0 + ((hz - centre) / (40.0 + 0.04 * centre)) ** 2)
    return gain


def sculpt(take: Take, sound: np.ndarray, *, gain: np.ndarray) -> np.ndarray:
    """Filter by gains [F, B] on the take's grid."""
    hop = gain.shape[1] - 1
    padded = np.zeros((len(gain) + 1, hop))
    padded.ravel()[hop : hop + take.size] = sound
    # Hann windows that overlap by half add up to one: a gain of one changes nothing
    window = np.sin(np.pi * np.arange(2 * hop) / (2 * hop)) ** 2
    frames = np.fft.rfft(np.hstack((padded[:-1], padded[1:])) * window)
    parts = np.fft.irfft(frames * gain, 2 * hop)
    return (parts[:-1, hop:] + parts[1:, :hop]).ravel()[: take.size]


# Instruments
class Timbre(NamedTuple):
    """A sustained instrument, as ranges that its dice are thrown in."""

    slope: tuple[float, float]  # the partials' amplitudes are order ** -slope
    even: tuple[float, ...] = (1.0,)  # what the even partials are multiplied by
    attack: float = 0.03  # seconds
    vibrato: float = 0.006  # at most, as a share of the pitch
    breath: float = 0.0  # rms of the noise about it
    bite: bool = False  # the louder, the brighter
    fade: float = 0.0  # nepers a second
    mouth: bool = False  # sung: a vowel's formants


def sustain(take: Take, hz: float, *, timbre: Timbre) -> np.ndarray:
    """Play a note that is blown, bowed, sung or made by an oscillator."""
    orders = np.arange(1, 61)
    amps = orders ** -take.between(*timbre.slope) * (0.5 + take.rng.rand(60))
    amps[1::2] *= take.pick(timbre.even)
    if timbre.mouth:
        mouth = np.array([take.pick(VOWELS)]) * take.between(0.95, 1.3)
        amps *= formant_gain(orders * hz, mouth)[0]
    speed, onset = take.between(4.5, 7.0), take.between(0.1, 0.5)  # of the vibrato
    depth = np.minimum(take.times / onset, 1.0) * timbre.vibrato * take.rng.rand()
    pitch = hz * (1.0 + depth * np.sin(2 * np.pi * speed * take.times))
    sound = harmonics(take, pitch, amps=amps)
    loud = swell(take, take.around(timbre.attack, 2.5), release=0.3 * timbre.attack + 0.04)
    if timbre.fade:
        loud *= np.exp(-take.times * take.around(timbre.fade, 4))
    if timbre.bite:
        # played softly, an instrument loses its high partials first
        dull = harmonics(take, pitch, amps=amps / orders**2)
        loud *= 0.75 + 0.25 * wander(take, 3.0)
        sound = dull + loud * (sound - dull)
    if timbre.breath:
        sound += noise(take, 0.8 * hz, high=5 * hz) * take.around(timbre.breath, 3)
    return sound * loud


def layered(take: Take, hz: float, *, orders: Sequence[float]) -> np.ndarray:
    """Hold slightly detuned copies of a few partials: an organ's drawbars, a synthetic pad."""
    detune = 1 + np.array([-0.004, 0.0, 0.005])[:, None] * take.pick((0.0, 0.3, 1.0, 2.0))
    amps = take.rng.rand(len(orders)) ** 2 / np.sqrt(orders) + (np.array(orders) == 1)
    sound = ring(take, (detune * orders * hz).ravel(), amps=np.tile(amps, 3))
    return sound * swell(take, min(take.around(0.1, 8), take.seconds / 2), release=0.1)


def string(take: Take, hz: float, *, loss: float) -> np.ndarray:
    """Let a string ring that was plucked or struck at some spot; high partials fade first."""
    orders = np.arange(1, min(40, int(0.45 * take.rate / hz) + 2))
    # a stiff string's partials lie a little above the harmonic series
    spread = orders * np.sqrt(1 + take.around(2e-4, 4) * orders**2)
    # partials that have a node where the string is plucked stay silent
    amps = np.abs(np.sin(np.pi * orders * take.between(0.07, 0.45))) + 0.03
    amps *= orders ** -take.between(0.4, 1.8)
    decays = loss * (0.5 + (hz / 440) ** 0.7) * (1 + take.between(0.05, 0.5) * orders)
    return ring(take, hz * spread, amps=amps, decays=decays) * swell(take, 0.002)


def plucked(take: Take, hz: float) -> np.ndarray:
    """Pluck a string: guitar, harp, banjo by its loss."""
    return string(take, hz, loss=take.around(2.0, 4)) * 1.5


def piano(take: Take, hz: float) -> np.ndarray:
    """Strike two strings of a slightly different pitch with a hammer."""
    loss, cents = take.around(0.8, 1.8), take.between(0.0002, 0.0012)
    felt = take._replace(seconds=0.04)
    knock = noise(felt, 100, high=take.around(1500, 2)) * fall(felt, 0.01)
    # two strings a note, hardly apart, beat against each other
    sound = string(take, hz, loss=loss) + string(take, hz * (1 + cents), loss=loss)
    lay(sound, 0, played=take.between(0.05, 0.6) * knock)
    return sound


def struck(take: Take, hz: float) -> np.ndarray:
    """Strike a bar, bell or glass."""
    ratios = np.array(take.pick(BODIES))
    decays = take.around(2.5, 5) * ratios ** take.between(0.4, 1.3)
    amps = ratios ** -take.between(0.2, 1.5)
    return ring(take, hz * ratios, amps=amps, decays=decays) * swell(take, 0.001) * 1.5


def distorted(take: Take, hz: float) -> np.ndarray:
    """Overdrive a guitar: its fifth and octave grow into one buzz."""
    chord = take.pick(((1.0,), (1.0, 1.5), (1.0, 1.5, 2.0)))
    sound = sum(string(take, hz * ratio, loss=0.8) for ratio in chord)
    return np.tanh(sound * take.around(4, 3)) * swell(take, 0.004)


def chime(take: Take, hz: float) -> np.ndarray:
    """Modulate a sine's phase by another's: electric piano, bell, growl (Chowning 1973)."""
    if hz > 0.4 * take.rate:
        return np.zeros(take.size)
    # a high note bent as deeply would have side bands beyond the Nyquist rate
    depth = take.around(1.2, 3) * min(1.0, 0.05 * take.rate / hz)
    fade = np.exp(-take.times * take.around(2.0, 3))
    turns = 2 * np.pi * hz * take.times
    bend = depth * fade * np.sin(turns * take.pick((1.0, 2.0, 3.5, 0.5, 1.41)))
    return 1.4 * np.sin(turns + bend) * fade * swell(take, 0.004)


pure = functools.partial(sustain, timbre=Timbre((30, 30), vibrato=0.0, attack=0.015))
tone = functools.partial(sustain, timbre=Timbre((0.3, 2.5), (1.0, 1.0, 0.3, 0.02), vibrato=0.0))
bowed = functools.partial(sustain, timbre=Timbre((0.8, 1.4), attack=0.12, vibrato=0.012))
flute = functools.partial(sustain, timbre=Timbre((2.2, 4), attack=0.06, vibrato=0.008, breath=0.08))
reed = functools.partial(sustain, timbre=Timbre((0.7, 1.5), (0.03, 0.1, 0.8)))
brass = functools.partial(sustain, timbre=Timbre((0.2, 0.9), attack=0.07, bite=True))
sung = functools.partial(sustain, timbre=Timbre((0.5, 1.1), attack=0.06, vibrato=0.03, mouth=True))
lead = functools.partial(sustain, timbre=Timbre((0.7, 1.3), (1.0, 0.1), 0.006, bite=True, fade=4))
organ = functools.partial(layered, orders=(0.5, 1, 1.5, 2, 3, 4, 6, 8))
pad = functools.partial(layered, orders=tuple(range(1, 20)))
# A prime, 19: any stride over them deals out all. Common ones stand twice.
INSTRUMENTS: tuple[Instrument, ...] = (
    piano, bowed, tone, plucked, flute, distorted, struck, reed, pure, brass, chime, organ,
    sung, lead, plucked, pad, tone, piano, bowed,
)  # fmt: skip
LEADS = (sung, lead, sung, brass, reed, plucked, flute, bowed, piano, distorted, sung, struck)
BASSES = (plucked, lead, pure, tone, bowed, distorted, brass)
COMPERS = (piano, plucked, organ, pad, distorted, bowed, chime, tone, sung)
BACKING = {"bass": ((1, 1, 2), BASS_LINES, BASSES), "chords": ((2, 3, 3), COMPS, COMPERS)}


# Scores
def strike(take: Take, hit: Sequence[float]) -> np.ndarray:
    """Make one hit of at most 2 s, each part somewhat off the table's.

    `hit` is a row of DRUMS or EVENTS; the result is float64 [n] at the take's rate.
    """
    first, final, glide, fade, level, low, high, burst, *ratios = hit
    fade, burst, scale = (take.around(one, 1.5) for one in (fade, burst, 0.9))
    take = take._replace(seconds=min(6 * max(fade, burst), 2.0))
    pitch = scale * (final + (first - final) * np.exp(-take.times / glide))
    heard = [ratio for ratio in ratios if ratio < 0.45 * take.rate / pitch.max()]
    turns = np.outer(heard, np.cumsum(2 * np.pi / take.rate * pitch))
    body = np.sin(turns).sum(axis=0) / math.sqrt(len(ratios)) * fall(take, fade)
    dust = noise(take, low, high=high) * fall(take, burst)
    return body + take.around(level, 1.6) * 0.5 * dust


def perform(take: Take, score: Iterable[Played], *, instrument: Instrument) -> np.ndarray:
    """Play a score. All its notes throw the same dice, and so keep one timbre."""
    patch = int(take.rng.rand() * 2**31)
    dice, sound = np.random.RandomState(patch), np.zeros(take.size)
    known: dict[tuple[float, float], np.ndarray] = {}
    for start, seconds, key, gain in score:
        if (seconds, key) not in known:
            dice.seed(patch)
            # 27.5 Hz is the lowest key of a piano, A0
            note, hz = Take(dice, take.rate, max(seconds, 0.05)), 27.5 * 2.0 ** (key / 12)
            known[seconds, key] = instrument(note, hz)
        lay(sound, start * take.rate, played=gain * known[seconds, key])
    return sound


def compose(take: Take) -> Tune:
    """Throw a tune; tempi and grooves are dealt out evenly over the takes."""
    steps, *lanes = GROOVES[take.index % len(GROOVES)]
    # 45 to 200 beats a minute, evenly in the logarithm
    beat = 60 / (45 * (200 / 45) ** (take.index * GOLDEN % 1.0))
    bar = beat * len(lanes[0]) / steps
    root, scale, chords = int(take.between(0, 12)), take.pick(SCALES), take.pick(PROGRESSIONS)
    return Tune(beat, bar if bar < 2.2 else bar / 2, root, scale, chords, beat / steps, lanes)


def melody(take: Take, tune: Tune, *, octave: int) -> Iterator[Played]:
    """Walk along the tune's scale, mostly by step, in mixed rhythms."""
    now, degree = 0.0, int(take.between(0, 8))
    while now < take.seconds:
        for beats in take.pick(RHYTHMS):
            seconds = abs(beats) * tune.beat
            if beats > 0:
                held, gain = seconds * take.between(0.6, 1.05), take.around(0.6, 1.6)
                yield now, held, tune.key(octave, degree), gain
            now += seconds
            # down as often as up, and within two octaves: a long tune stays on the instrument
            degree = min(max(degree + take.pick((-3, -2, -1, -1, 0, 1, 1, 2, 4)), -3), 11)


def accompaniment(take: Take, tune: Tune, *, octave: int, steps: Sequence[Any]) -> Iterator[Played]:
    """Repeat a rhythm on the chord of the moment; `steps` are scale steps over its root."""
    # The 1e-6 keeps a chord change on its bar line, whatever the last bits of `now` are.
    now, turn, cell = 0.0, 0, take.pick(RHYTHMS)
    while now < take.seconds:
        for beats in cell:
            seconds = abs(beats) * tune.beat
            root = tune.chords[int(now / tune.span + 1e-6) % len(tune.chords)]
            for step in steps[turn % len(steps)] if beats > 0 else ():
                yield now, seconds * 0.98, tune.key(octave, root + step), 0.6
            now, turn = now + seconds, turn + 1


def drums(take: Take, tune: Tune) -> np.ndarray:
    """Play the tune's groove on a kit thrown together, straight or swung, at times with a fill."""
    kit = [strike(take, DRUMS[take.pick(names)]) for names in KIT]
    swing, fill = take.pick((0.0, 0.0, 0.12, 0.3)), take.rng.rand() < 0.5
    sound = np.zeros(take.size)
    for number in range(int(take.seconds / tune.step)):
        spot = (number + swing * (number % 2)) * tune.step * take.rate
        for lane, drum, gain in zip(tune.lanes, kit, (1.0, 0.8, 0.35)):
            force = {"x": 1.0, "o": 0.4, ".": 0.0}[lane[number % len(lane)]] * gain
            if force:
                lay(sound, spot, played=drum * force * take.between(0.75, 1.0))
        # the last four steps, on a drum of its own
        if fill and (number + 4) * tune.step > take.seconds and take.rng.rand() < 0.8:
            lay(sound, spot, played=kit[3] * take.between(0.4, 0.9))
    return sound


# Pieces
def keyboard(take: Take) -> np.ndarray:
    """Play six notes of one instrument; all takes together walk the 88 keys several times."""
    lengths = take.rng.rand(6) + 0.35
    lengths *= take.seconds / lengths.sum()
    starts = np.cumsum(lengths) - lengths
    score = []
    for turn, (start, length) in enumerate(zip(starts, lengths)):
        held, gain = length * take.between(0.7, 1.15), 10 ** -take.between(0.0, 1.0)
        # 37 and 88 have no common divisor, so the walk meets every key
        score.append((start, held, 37 * (6 * take.index + turn) % 88, gain))
    return perform(take, score, instrument=INSTRUMENTS[take.index % len(INSTRUMENTS)])


def solo(take: Take) -> np.ndarray:
    """Play a melody on one instrument."""
    tune = compose(take)._replace(scale=take.pick(LADDERS), root=take.index * 5 % 12)
    score = melody(take, tune, octave=take.pick((1, 2, 3, 4, 5)))
    return perform(take, score, instrument=INSTRUMENTS[(7 * take.index + 3) % len(INSTRUMENTS)])


def harmony(take: Take, shapes: Sequence[Sequence[int]]) -> np.ndarray:
    """Play four chords or intervals; all takes together walk the shapes on the 12 roots."""
    gap, strum = take.seconds / 4, take.pick((0.0, 0.0, 0.02, 0.1))
    score = []
    for turn in range(4):
        count = 4 * take.index + turn
        shape = shapes[count // 12 % len(shapes)]
        # by fourths, which meet all twelve roots
        low = count * 5 % 12 + 12 * take.pick((1, 2, 3, 4))
        inversion = int(take.between(0, len(shape)))
        for order, step in enumerate(shape):
            start, key = strum * order, low + step + 12 * (order < inversion)
            score.append((turn * gap + start, gap - start, key, 1.0))
    return perform(take, score, instrument=INSTRUMENTS[(5 * take.index) % len(INSTRUMENTS)])


def drone(take: Take) -> np.ndarray:
    """Hold a few notes while a filter opens and closes over them."""
    keys = take.index * 7 % 12 + 12 * take.pick((1, 1, 2, 3)) + np.array((0, 7, 12, 16, 22))
    score = [(0, take.seconds, key, 1.0) for key in keys[: take.pick((1, 2, 3, 5))]]
    sound = perform(take, score, instrument=take.pick((pad, organ, tone, bowed, distorted, sung)))
    (moments, hz), knots = take.grid(), np.linspace(0, take.seconds, 4)
    high = 1500 * 4.0 ** np.interp(moments, knots, take.rng.rand(4) * 2 - 1)
    return sculpt(take, sound, gain=band_gain(hz, 20.0, high=high[:, None]))


def ensemble(take: Take, parts: str) -> np.ndarray:
    """Play together: any of drums, bass, chords and lead, each at a level of its own."""
    tune, mix = compose(take), np.zeros(take.size)
    for part in parts.split():
        if part == "drums":
            sound = drums(take, tune)
        elif part == "lead":
            score = melody(take, tune, octave=take.pick((3, 3, 4)))
            sound = perform(take, score, instrument=take.pick(LEADS))
        else:
            octaves, steps, players = BACKING[part]
            score = accompaniment(take, tune, octave=take.pick(octaves), steps=take.pick(steps))
            sound = perform(take, score, instrument=take.pick(players))
        mix += take.around(0.8, 1.7) * leveled(sound)
    return mix


def hits(take: Take, table: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Let one kind of hit happen again and again, evenly or not."""
    kind = list(table.values())[take.index % len(table)]
    gap, unrest = take.around(0.45, 2.5), take.pick((1.02, 1.6))
    sound, now = np.zeros(take.size), take.between(0.0, 0.15)
    while now < take.seconds:
        lay(sound, now * take.rate, played=strike(take, kind) * 10 ** -take.between(0.0, 0.7))
        now += take.around(gap, unrest)
    return sound


def alarm(take: Take) -> np.ndarray:
    """Sound a siren, alarm, beeper, trill or long sweep."""
    speed, depth = take.around(2.0, 6), take.pick((0.0, 1.0, 3.0, 7.0, 14.0))
    turns = take.times * speed
    turn = turns - np.floor(turns)
    bend = (
        np.sin(2 * np.pi * turns), np.where(turn < 0.5, 1.0, -1.0), 2 * turn - 1,
        4 * take.times / take.seconds - 2, 2 - 4 * take.times / take.seconds,
    )[take.index % 5]  # fmt: skip
    hz = take.around(1100, 3) * 2.0 ** (max(depth, take.index % 5) * bend / 12)
    gate = np.clip(40 * (0.6 - turn), 0, 1) if depth < 2 or take.rng.rand() < 0.3 else 1.0
    orders = np.arange(1, 12)
    return harmonics(take, hz, amps=orders ** -take.pick((1.0, 2.0, 6.0))) * gate


def utterance(take: Take, size: float) -> np.ndarray:
    """Throw a mouth's targets: rows of second, 3 formants (Hz), voice, noise, its centre (Hz)."""
    now, pace, vowel = take.between(0.0, 0.15), take.between(0.8, 1.5), take.pick(VOWELS)
    rows: list[tuple[float, ...]] = [(0.0, *vowel, 0.0, 0.0, 3000.0)]
    while now < take.seconds:
        hiss, centre, voice, length = take.pick(CONSONANTS)
        opened = now + length * take.between(0.8, 1.3) / pace
        shut = opened + take.between(0.07, 0.24) / pace
        loud, vowel, glide = take.between(0.6, 1.0), take.pick(VOWELS), take.pick(VOWELS)
        rows += [
            (now + 0.01, *vowel, voice, hiss, centre), (opened, *vowel, voice, hiss, centre),
            (opened + 0.02, *vowel, loud, 0.0, centre), (shut, *glide, 0.8 * loud, 0.0, centre),
        ]  # fmt: skip
        now = shut + 0.03
        if take.rng.rand() < 0.4:  # a stop's closure, or a pause between phrases
            end = now + take.pick((0.03, 0.05, 0.07, take.between(0.2, 0.5)))
            rows += [(now, *glide, 0.0, 0.0, centre), (end, *glide, 0.0, 0.0, centre)]
            now = end
    return np.array(rows) * np.array([1.0, size, size, size, 1.0, 1.0, 1.0])


def speech(take: Take, whispered: bool = False) -> np.ndarray:
    """Speak nonsense: a buzz, falling and accented, or breath, through a mouth that moves."""
    pitch, size = VOICES[take.index % len(VOICES)]
    (moments, hz), (times, *targets) = take.grid(), utterance(take, take.around(size, 1.06)).T
    tracks = [np.interp(moments, times, target)[:, None] for target in targets]
    *formants, voice, hiss, centre = tracks
    buzz = breath = take.rng.rand(take.size) - 0.5
    if not whispered:
        # pitch moves in phrases, trembles, and falls towards the end, as speech does
        tune = 0.35 * wander(take, 2.5) + 0.06 * wander(take, 20.0) - 0.12 * take.times
        amps = np.arange(1, 101) ** -take.between(0.8, 1.3)
        buzz = harmonics(take, take.around(1.1 * pitch, 1.2) * 2.0**tune, amps=amps)
    mouth = voice * formant_gain(hz, np.hstack(formants))
    teeth = 0.4 * hiss * band_gain(hz, centre * 0.7, high=centre * 1.5)
    return sculpt(take, buzz, gain=mouth) + sculpt(take, breath, gain=teeth)


def babble(take: Take) -> np.ndarray:
    """Let a crowd talk."""
    return sum(speech(take._replace(index=take.index + person)) for person in range(4))


def coloured(take: Take) -> np.ndarray:
    """Make steady noise: white, pink, brown, blue, or a band of any centre and width."""
    if take.index % 2:
        return noise(take, tilt=(0.0, -3.0, -6.0, 3.0)[take.index // 2 % 4])
    centre, half = 80 * 100 ** (take.index * GOLDEN % 1.0), take.pick((1.1, 1.5, 2.5))
    return noise(take, centre / half, high=centre * half)


def wind(take: Take) -> np.ndarray:
    """Let wind blow in gusts, its whistle rising with them."""
    (moments, hz), knots = take.grid(), np.linspace(0, take.seconds, 6)
    centre = take.around(400, 2) * 2.0 ** np.interp(moments, knots, take.rng.rand(6) * 2 - 1)
    half = take.between(1.1, 1.7)
    gain = band_gain(hz, centre[:, None] / half, high=centre[:, None] * half)
    gain *= np.square(centre / centre.max())[:, None]
    return sculpt(take, take.rng.rand(take.size) - 0.5, gain=gain)


def sea(take: Take) -> np.ndarray:
    """Let the sea swell."""
    turns = take.times / take.around(3, 1.5) + take.rng.rand()
    return noise(take, 60, high=3000, tilt=-3) * (0.6 + 0.5 * np.sin(2 * np.pi * turns))


def drops(take: Take, a_second: float) -> np.ndarray:
    """Let drops or sparks fall at random times: rain, or the crackle of fire and old records."""
    fallen = take.rng.rand(take.size) < take.around(a_second, 4) / take.rate
    sound = (fallen - fallen.mean()) * take.rng.rand(take.size) ** 3
    sound = bandpass(take, sound, low=take.around(1200, 2), high=take.around(6000, 1.6))
    return leveled(sound) + noise(take, 300, high=9000, tilt=-3) * take.between(0.0, 0.4)


def hum(take: Take) -> np.ndarray:
    """Let the mains hum at 50 or 60 Hz."""
    orders = np.arange(1, 61)
    amps = take.rng.rand(60) ** 2 / orders
    return ring(take, take.pick((50.0, 60.0)) * orders, amps=amps) + 0.02 * noise(take)


def motor(take: Take) -> np.ndarray:
    """Run an engine or a motor at changing speed."""
    amps = (0.1 + take.rng.rand(60)) * np.arange(1, 61) ** -take.between(0.3, 1.3)
    speed = take.around(60, 3) * 2.0 ** (take.between(0.1, 0.8) * wander(take, 0.8))
    buzz = harmonics(take, speed * (1 + 0.01 * wander(take, 40.0)), amps=amps)
    buzz += noise(take, tilt=-3) * take.between(0.05, 0.8)
    return bandpass(take, buzz, high=take.around(2500, 2))


def hushed(take: Take) -> np.ndarray:
    """Make silence, or what is left of a room at night."""
    # exact zeros, too: digital silence is a sound that files are full of
    return np.zeros(take.size) if take.index % 3 == 0 else take.pick((noise, hum, sea))(take)


MIXED: tuple[Callable[[Take], np.ndarray], ...] = (
    speech, solo, wind, keyboard, functools.partial(ensemble, parts="drums"), speech, coloured,
    motor, babble, drone, alarm, sea, functools.partial(hits, table=EVENTS),
)  # fmt: skip


def mixture(take: Take) -> np.ndarray:
    """Lay two or three kinds over one another, at levels up to 20 dB apart."""
    mix = np.zeros(take.size)
    for turn in range(2 + take.index % 2):
        kind = MIXED[(take.index * (1 + turn) + 5 * turn) % len(MIXED)]
        mix += 10 ** -take.between(0, 1) * leveled(kind(take))
    return mix


# Production
def reverberate(take: Take, sound: np.ndarray) -> np.ndarray:
    """Put a sound [n] in a room: noise that decays by 60 dB in 0.15 to 2.5 seconds."""
    decay = take.around(0.6, 4)
    tail = take._replace(seconds=min(decay, 1.2))
    size = fft_size(take.size + tail.size)
    # 6.9 is ln 1000: 60 dB
    echoes = (take.rng.rand(tail.size) - 0.5) * np.exp(-6.9 * tail.times / decay)
    echoes[: int(take.between(0, 0.03) * take.rate)] = 0.0
    hz = np.fft.rfftfreq(size, 1 / take.rate)
    dull = band_gain(hz, 100.0, high=take.around(4000, 2))
    wet = np.fft.rfft(leveled(echoes) / math.sqrt(tail.size), size) * dull * take.around(0.7, 3)
    return np.fft.irfft(np.fft.rfft(sound, size) * (1 + wet), size)[: take.size]


def produce(take: Take, sound: np.ndarray, *, loudness: float) -> np.ndarray:
    """Record a piece: room, filter, dynamics, noise floor, level in dBFS rms; float32 [n]."""
    if take.rng.rand() < 0.4:
        sound = reverberate(take, sound)
    if take.rng.rand() < 0.2:
        low, high = take.pick(LENSES)
        sound = bandpass(take, sound, low=low, high=high)
    if take.rng.rand() < 0.2:
        ramp = take.times / take.seconds * take.between(0.8, 1.3)
        if take.rng.rand() < 0.3:  # a tremolo
            depth, speed = take.between(0.2, 0.9), take.around(5, 2)
            sound = sound * (1 + depth * np.sin(2 * np.pi * speed * take.times))
        else:  # fades, a crescendo, a sudden cut
            sound = sound * 10 ** (np.interp(ramp, *take.pick(COURSES)) / 20)
    sound = leveled(sound)
    if take.rng.rand() < 0.25:
        # the noise of the recording, 24 to 60 dB under the piece
        sound += noise(take, tilt=-3) * 10 ** -take.between(1.2, 3)
    sound *= 10 ** (loudness / 20)
    if np.max(np.abs(sound)) > 0.9:  # as loud records do
        sound = np.tanh(sound)
    # the 16-bit grid hides that sines differ in their last bits between machines
    return (np.round(sound * 32767) / 32768).astype(np.float32)


class Kind(NamedTuple):
    """A line of the suite's table: how many pieces, how long, how loud, of what."""

    count: int
    seconds: tuple[float, float]
    loudness: tuple[float, float]  # dBFS rms
    piece: Callable[[Take], np.ndarray]


SUITE = (
    Kind(72, (1.8, 2.4), (-42, -12), keyboard), Kind(34, (2.0, 3.0), (-38, -12), solo),
    Kind(34, (2.0, 2.6), (-38, -12), functools.partial(harmony, shapes=CHORDS)),
    Kind(9, (2.0, 2.6), (-38, -14), functools.partial(harmony, shapes=INTERVALS)),
    Kind(12, (2.0, 2.8), (-40, -12), drone),
    Kind(18, (2.6, 3.4), (-34, -12), functools.partial(ensemble, parts="bass chords lead")),
    Kind(36, (4.0, 5.0), (-26, -9), functools.partial(ensemble, parts="drums bass chords lead")),
    Kind(12, (4.0, 5.0), (-32, -11), functools.partial(ensemble, parts="drums")),
    Kind(5, (4.0, 5.0), (-30, -11), functools.partial(ensemble, parts="drums bass")),
    Kind(5, (4.0, 5.0), (-30, -11), functools.partial(ensemble, parts="drums chords")),
    Kind(14, (1.8, 2.4), (-40, -16), functools.partial(hits, table=DRUMS)),
    Kind(30, (1.8, 2.4), (-45, -16), functools.partial(hits, table=EVENTS)),
    Kind(10, (1.8, 2.4), (-40, -12), alarm), Kind(26, (2.2, 3.2), (-40, -14), speech),
    Kind(5, (2.0, 2.6), (-45, -26), functools.partial(speech, whispered=True)),
    Kind(5, (2.0, 3.0), (-40, -18), babble), Kind(14, (1.8, 2.2), (-45, -12), coloured),
    Kind(4, (2.0, 3.0), (-45, -16), wind), Kind(3, (2.6, 3.4), (-40, -16), sea),
    Kind(5, (2.0, 2.6), (-42, -16), functools.partial(drops, a_second=900)),
    Kind(4, (2.0, 2.6), (-45, -20), functools.partial(drops, a_second=20)),
    Kind(7, (2.0, 2.6), (-42, -14), motor), Kind(5, (1.8, 2.4), (-45, -16), hum),
    Kind(10, (1.8, 2.2), (-90, -55), hushed), Kind(20, (2.2, 3.0), (-36, -10), mixture),
)  # fmt: skip


def ear_training_suite(sample_rate: int, seed: int) -> Iterator[np.ndarray]:
    """Make the sound that the codebooks' seeds are heard in, about 17 minutes.

    A piece lasts 2 to 5 s, float32 [n] on the grid of 16-bit PCM, and throws dice of its own, so
    that it depends on the rate in Hz, the seed and its own number only.
    """
    jobs = [(kind, index) for kind in SUITE for index in range(kind.count)]
    # by `rand`, as in Take.pick
    order = np.argsort(np.random.RandomState(seed % 2**32).rand(len(jobs)), kind="stable")
    for number in order:
        kind, index = jobs[number]
        take = Take(np.random.RandomState([seed % 2**32, number]), sample_rate, 1.0, index)
        take = take._replace(seconds=take.between(*kind.seconds))
        loudness = take.between(*kind.loudness)
        yield produce(take, kind.piece(take), loudness=loudness)


SUITE_SECONDS = 1054.0  # how long the suite is, for its bar


class Trained(NamedTuple):
    """The two chains of codebooks that a tokenizer needs."""

    semantic: Codebooks
    acoustic: Codebooks


class Heard(NamedTuple):
    """What an ear made of some sound: rows of features and of descriptors."""

    semantic: np.ndarray
    acoustic: np.ndarray
    descriptors: np.ndarray


def heard_blocks(
    blocks: Iterable[np.ndarray], settings: Settings, *, ears: Any, ear: Any = None
) -> Iterator[tuple[Spectra, np.ndarray]]:
    """Spectra, and the ear's features [n, D], that become whole with each block and at the end.

    `blocks` are mono float32 [n] at the settings' rate; `ears` is from open_ears().
    """
    # An ear remembers what it heard, so each sound gets one of its own.
    ear = ear or ears.listen()
    analyzer = Analyzer(settings.sample_rate, settings.hop_length, **ears.seams.analyzer)
    for block in blocks:
        with ONE_BLAS_THREAD:  # not around the yield, where the caller works
            spectra = analyzer.push(block)
            features = ear.push(block, spectra)
        yield spectra, features
    with ONE_BLAS_THREAD:
        spectra = analyzer.flush()
        features = ear.flush(spectra)
    yield spectra, features


def listen(blocks: Iterable[np.ndarray], settings: Settings, *, ears: Any) -> Heard:
    """Gather what heard_blocks() gives of a sound (memory grows with it)."""
    semantic, acoustic, descriptors = [], [], []
    for spectra, features in heard_blocks(blocks, settings, ears=ears):
        # float32 holds multiples of 1/64 within +-256 exactly, in half the memory
        semantic.append(features.astype(np.float32))
        acoustic.append(acoustic_features(spectra).astype(np.float32))
        descriptors.append(describe(spectra))
    return Heard(*map(np.concatenate, (semantic, acoustic, descriptors)))


def describe_codes(codes: np.ndarray, descriptors: np.ndarray, size: int) -> np.ndarray:
    """Mean descriptors [Q, K, M] of each code's frames; a code without frames has the usual ones.

    `codes` are [N, Q] of 0 to `size` - 1, `descriptors` [N, M] what describe() says of the frames.
    """
    pairs = (sum_by_code(descriptors.astype(np.float64), column, size) for column in codes.T)
    with np.errstate(invalid="ignore"):
        means = np.stack([sums / counts[:, None] for counts, sums in pairs]).astype(np.float32)
    known = np.where(np.isnan(means), np.nanmean(means, axis=1, keepdims=True), means)
    # rounded as in the cache, so that fitted and loaded codebooks say the same
    return known.astype(np.float16).astype(np.float32)


def feature_moments(features: np.ndarray, natural: bool) -> tuple[np.ndarray, np.ndarray]:
    """Offset and scale [D]: features with natural units are only centred, others standardised."""
    # on GRID, so that centred features stay on it; float32 would lose digits over so many rows
    offset = np.rint(features.mean(axis=0, dtype=np.float64) / GRID) * GRID
    if natural:
        return offset, np.ones(features.shape[1])
    # a dimension that never moves is not blown up
    return offset, np.maximum(features.std(axis=0, dtype=np.float64), 1e-6)


def fit_codebooks(
    features: np.ndarray, branch: Branch, *, descriptors: np.ndarray, settings: Settings,
    tick: Callable[[], None],
) -> Codebooks:  # fmt: skip
    """Fit one branch's chain on features [N, D] and measure what its codes sound like."""
    offset, scale = feature_moments(features, branch.natural)
    rows = np.rint((features - offset) / scale / GRID) * GRID
    size, seed = settings.codebook_size, settings.seed
    if settings.codebook_init == "random":
        chain = random_chain(rows, branch.weights, size=size, seed=seed)
    else:
        chain = fit_chain(rows, branch.weights, size=size, seed=seed, tick=tick)
    # nothing yet: what the codes sound like is measured with them
    books = Codebooks(chain, branch.weights, offset, scale, np.empty(0), settings.codebook_init)
    return replace(books, descriptors=describe_codes(books.encode(features), descriptors, size))


def adapt_codebooks(books: Codebooks, features: np.ndarray) -> Codebooks:
    """Move a chain by EMA towards features [N, D] of a given sound; meanings stay near."""
    residual, chain = books.normalise(features), []
    for vectors, metric in zip(books.vectors, books.weights):
        # nudged, not fitted again: codes of sounds that are not given keep their vectors
        moved = nudge_codebook(vectors, residual, weights=metric)
        residual -= moved[nearest(residual, metric, table=search_table(moved, metric))]
        chain.append(moved)
    return replace(books, vectors=np.stack(chain), origin=books.origin + "+adapted")


# The cache. A file is named by a hash of all that decides its bytes, holds plain arrays, and
# carries a hash of its own content, so a damaged or foreign one is seen and made again.


def cache_folder(settings: Settings) -> Path:
    """Where codebooks are kept (XDG base directories, unless the user named a folder)."""
    if settings.cache_dir:
        return Path(settings.cache_dir)
    # the XDG specification has paths that are not absolute ignored
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / PROGRAM


@functools.lru_cache(maxsize=1)
def source_fingerprint() -> str:
    """Hash of this program's sections 4 to 7, which make the codebooks: no stale cache, ever."""
    # the text, because a version number is forgotten; a comment that costs a fitting does no harm
    text = Path(__file__).read_text(encoding="utf-8")
    made_by = text[text.index("\n# 4 Signal") : text.index("\n# 8 Tokenizer")]
    return hashlib.sha256(made_by.encode()).hexdigest()[:16]


def cache_key(settings: Settings, ears: Any) -> str:
    """Hash of all that decides the codebooks: ear, rates, sizes, seed and program."""
    # not how a stream is written: encodings and legends change no code
    facts = [
        FORMAT_VERSION, source_fingerprint(), settings.codebook_init, ears.identity,
        settings.sample_rate, settings.hop_length, settings.codebook_size, NUM_QUANTIZERS,
        settings.seed,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]


SEAL_BYTES = 32
ARRAYS = ("vectors", "weights", "offset", "scale", "descriptors")


def pack_codebooks(trained: Trained) -> dict[str, np.ndarray]:
    """Arrays as the cache holds them: vectors as whole multiples of GRID."""
    packed = {}
    for branch, books in zip(Trained._fields, trained):
        for name in ARRAYS:
            packed[f"{branch}_{name}"] = getattr(books, name)
        # whole numbers, which float64 gives back exactly when they are multiplied by GRID
        packed[f"{branch}_vectors"] = np.rint(books.vectors / GRID).astype(np.int32)
        packed[f"{branch}_descriptors"] = books.descriptors.astype(np.float16)
    return packed


def unpack_codebooks(packed: Mapping[str, np.ndarray], origin: str) -> Trained:
    """Rebuild both chains from the cache's arrays."""
    chains = []
    for branch in Trained._fields:
        arrays = {name: np.array(packed[f"{branch}_{name}"]) for name in ARRAYS}
        arrays["vectors"] = arrays["vectors"] * GRID
        arrays["descriptors"] = arrays["descriptors"].astype(np.float32)
        chains.append(Codebooks(**arrays, origin=origin))
    return Trained(*chains)


def seal(key: str, body: bytes) -> bytes:
    """What stands at the end of a cache file: a hash of its key and of all before."""
    # with the key, so that a file renamed to other settings' name is not taken for theirs
    return hashlib.sha256(key.encode() + body).digest()


def save_codebooks(path: Path, trained: Trained, *, key: str) -> None:
    """Write a cache file, whole or not at all; failing costs the cache only."""
    buffer = io.BytesIO()
    np.savez(buffer, **pack_codebooks(trained))
    # in memory first, because the seal at the end covers every byte before it
    body = buffer.getvalue()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(body + seal(key, body))
    except (OSError, OutputError) as error:
        warn(f"codebooks were not cached in {path.parent}: {error}")


def load_codebooks(path: Path, *, key: str, settings: Settings) -> Trained | None:
    """Read a cache file; None, with a warning, if it is damaged or not what its name says.

    None without a warning where there is no such file; it never raises for what a file holds.
    Nothing is parsed before the seal has shown that these bytes are the ones that were written.
    """
    try:
        data = path.read_bytes()
        body = data[:-SEAL_BYTES]
        if seal(key, body) != data[-SEAL_BYTES:]:
            raise ValueError("its content is not what was written")
        # the seal is no signature: a pickle could carry the right one, and run code
        with np.load(io.BytesIO(body), allow_pickle=False) as stored:
            return unpack_codebooks(stored, settings.codebook_init)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        warn(f"cached codebooks {path.name} are unusable ({error}); fitting them again")
        return None


def train_codebooks(heard: Heard, branch: Branch, settings: Settings) -> Trained:
    """Fit both chains side by side, one thread each."""
    with Progress("fitting codebooks", 2 * NUM_QUANTIZERS, settings) as progress:
        facts = {"descriptors": heard.descriptors, "settings": settings, "tick": progress.tick}
        fit = functools.partial(fit_codebooks, **facts)
        # threads will do: NumPy lets go of the interpreter during the products, where the time goes
        with ThreadPoolExecutor(2) as pool:
            return Trained(*pool.map(fit, (heard.semantic, heard.acoustic), (branch, ACOUSTIC)))


def hear_suite(settings: Settings, ears: Any) -> Heard:
    """Listen to the ear-training suite with a bar on the terminal."""
    with Progress("hearing the ear-training suite", SUITE_SECONDS, settings) as progress:

        def pieces() -> Iterator[np.ndarray]:
            """The suite, piece by piece."""
            for piece in ear_training_suite(settings.sample_rate, settings.seed):
                yield piece
                progress.tick(len(piece) / settings.sample_rate)

        return listen(pieces(), settings, ears=ears)


def calibrate(settings: Settings, ears: Any) -> Trained:
    """Codebooks for an ear: from the cache, or fitted on the ear-training suite and cached.

    `ears` is from open_ears(). Hearing and fitting have a bar each; an unwritable cache only warns.
    """
    key = cache_key(settings, ears)
    path = cache_folder(settings) / f"codebooks-{settings.codebook_init}-{key}.npz"
    trained = None
    if settings.use_cache and not settings.force_reinit:
        trained = load_codebooks(path, key=key, settings=settings)
    if trained is None:
        # the command line sets a level and has its bars; another program would wait in silence
        if LOG.level == logging.NOTSET and not settings.quiet:
            kept = f"once and kept in {path.parent}" if settings.use_cache else "and not kept"
            warn(f"codebooks are fitted, {kept}: some 20 s, with a neural ear minutes")
        trained = train_codebooks(hear_suite(settings, ears), ears.branch, settings)
        if settings.use_cache:
            # no lock: two processes at once fit the same bytes, and each file appears whole
            save_codebooks(path, trained, key=key)
    return trained


# 8 Tokenizer -------------------------------------------------------------------------------------
# Uses: 1, 2, 3, 4, 5, 6, 7. Blocks of sound -> blocks of codes.


class Tokens(NamedTuple):
    """Some frames, and what their codes were made from."""

    codes: np.ndarray  # int16 [n, 8]
    semantic: np.ndarray  # [n, D], the ear's features
    acoustic: np.ndarray  # [n, D'], the spectral ear's of this instant
    spectra: Spectra  # n rows of what was measured: level in dB, pitch, rise in three bands ...


class Queue:
    """Rows of two sources that come at different times, handed out as pairs."""

    def __init__(self) -> None:
        # Cut to no rows: the one row of silence that NO_SPECTRA holds would put all acoustic
        # codes a frame late. How wide an ear's rows are is known with the first only, hence None.
        self._spectra, self._semantic = slice_rows(NO_SPECTRA, 0, 0), None

    def pair(self, spectra: Spectra, semantic: np.ndarray) -> tuple[Spectra, np.ndarray]:
        """Add what came; return the rows [n] that both sources have.

        Spectra come CONTEXT_SECONDS after their sound, `semantic` [m, D] when the ear is done.
        """
        kept = semantic if self._semantic is None else np.concatenate([self._semantic, semantic])
        rows = join_rows([self._spectra, spectra])
        count = min(len(kept), len(rows.level))
        self._spectra, self._semantic = slice_rows(rows, count), kept[count:]
        return slice_rows(rows, 0, count), kept[:count]


def name_codebooks(trained: Trained) -> str:
    """Name of two chains, by where they come from and a hash of each."""
    semantic, acoustic = trained
    return f"{semantic.origin}-{semantic.identity}-{acoustic.identity}"


class Tokenizer:
    """An ear and its codebooks: turns sound into codes.

    Parameters
    ----------
    settings : Settings, optional
        Which ear, rate, sizes and cache; if not given, MERT where it can be had.
    ears : optional
        What open_ears() gave before; otherwise the settings' ears are opened.
    trained : Trained, optional
        Codebooks to use; otherwise the ears' own, from the cache or fitted now.

    Examples
    --------
    >>> tokenizer = Tokenizer(Settings(codebook_init="spectral"))          # doctest: +SKIP
    >>> codes = tokenizer.encode("song.flac")                               # doctest: +SKIP
    >>> codes.array.shape, codes.times[-1], codes.codebook_id               # doctest: +SKIP
    """

    def __init__(
        self, settings: Settings = DEFAULTS, *, ears: Any = None, trained: Trained | None = None
    ) -> None:
        if not isinstance(settings, Settings):
            raise TypeError(f"settings are Settings(...), not {settings!r:.60}")
        self.ears, self.settings = (ears, settings) if ears else open_ears(settings)
        with ONE_BLAS_THREAD:
            self.trained = trained or calibrate(self.settings, self.ears)
        LOG.debug("ear %s, codebooks %s", self.ears.card, self.codebook_id)

    def __repr__(self) -> str:
        return f"Tokenizer({self.codebook_id}, {self.settings.sample_rate} Hz)"

    @property
    def codebook_id(self) -> str:
        """Name of the codebooks: equal names, equal meaning of every code."""
        return name_codebooks(self.trained)

    def tokens(self, source: Sound, *, sample_rate: int | None = None) -> Iterator[Tokens]:
        """Tokenize a sound as it comes: from a file, or from blocks of samples that never end.

        Blocks of any size give the same codes. Rows come CONTEXT_SECONDS after their sound, or
        later if the ear needs more.

        Parameters
        ----------
        source, sample_rate
            As for encode(); a microphone is a generator of arrays [n] or [n, channels].

        Yields
        ------
        Tokens
            Codes of the frames that became whole, with the features and spectra behind them.

        Raises
        ------
        AudioError
            If it cannot be heard.
        """
        with open_audio(source, self.settings, sample_rate=sample_rate) as audio:
            yield from self.mono_tokens(audio)

    def mono_tokens(self, blocks: Iterable[np.ndarray], *, ear: Any = None) -> Iterator[Tokens]:
        """Tokenize what open_audio() gives: mono float32 [n] at the analysis rate, full scale 1.

        `ear` is one for this sound, as `ears.listen()` gives; otherwise a new one is opened.
        """
        queue = Queue()
        for part in heard_blocks(blocks, self.settings, ears=self.ears, ear=ear):
            with ONE_BLAS_THREAD:
                found = self._encode(*queue.pair(*part))
            yield from found

    def encode(self, source: Sound, *, sample_rate: int | None = None) -> Codes:
        """Tokenize a whole sound.

        Parameters
        ----------
        source : path, bytes, binary file, array, iterable of arrays, or Audio
            As for open_audio(): a file, samples [n] or [n, channels], or blocks of them.
        sample_rate : int, optional
            Rate in Hz of arrays; the analysis rate, `settings.sample_rate`, if not given.

        Returns
        -------
        Codes
            With T = ceil(n / hop_length) frames of n samples at the analysis rate.

        Raises
        ------
        AudioError
            If it cannot be heard.
        """
        with open_audio(source, self.settings, sample_rate=sample_rate) as audio:
            array = np.concatenate([tokens.codes for tokens in self.mono_tokens(audio)])
            about = self.settings.frame_rate, audio.seconds, self.codebook_id
            return Codes(array, *about, self.settings.codebook_size)

    def _encode(self, spectra: Spectra, semantic: np.ndarray) -> list[Tokens]:
        if not len(semantic):
            return []
        acoustic = acoustic_features(spectra)
        pairs = zip(self.trained, (semantic, acoustic))
        chains = [books.encode(rows, **self.ears.seams.encode) for books, rows in pairs]
        return [Tokens(np.concatenate(chains, axis=1), semantic, acoustic, spectra)]


def fit_to_sound(tokenizer: Tokenizer, blocks: Iterable[np.ndarray]) -> Tokenizer:
    """Tokenizer with codebooks fitted on this very sound, or moved towards it (`adapt`).

    `blocks` [n] are the whole sound, mono, at `settings.sample_rate`. It is a new one of the same
    ear, with a codebook_id of its own; the same one if the sound has no frames.
    """
    settings = tokenizer.settings
    heard = listen(blocks, settings, ears=tokenizer.ears)
    # No frame will ask for a code, so any codebooks will do.
    if not len(heard.semantic):
        return tokenizer
    if settings.codebook_init == "audio":
        trained = train_codebooks(heard, tokenizer.ears.branch, settings)
        return Tokenizer(settings, ears=tokenizer.ears, trained=trained)
    pairs = zip(tokenizer.trained, (heard.semantic, heard.acoustic))
    moved = (adapt_codebooks(books, features) for books, features in pairs)
    return Tokenizer(settings, ears=tokenizer.ears, trained=Trained(*moved))


# 9 Token stream ----------------------------------------------------------------------------------
# Uses: 1, 2. Codes <-> events <-> lines of NDJSON, both ways, as generators.

# The last run lasts to the frame count that the end line claims: without a bound, one line could
# ask for all memory.
MOST_FRAMES = 20_000_000  # five days; more is a lying end line
LONGEST_LINE = 1 << 16  # characters that are read as one, of a stream that is not our own
LINE_LIMIT = 2000  # characters; readers that agents use cut longer lines
LEGEND_TEXT = (
    "Each line is a frame: t in seconds, then codes of layers S0-S3 (semantic) and A0-A3"
    " (acoustic). A layer holds its code until it is written again; kf marks frames that restate"
    " all. Codes are names, not amounts: legend lines say what each sounds like, measured over"
    " many sounds."
)
RAW_TEXT = (
    " This source's bytes were read as samples, since that was asked for or its format is unknown:"
    " it may be no sound."
)


class Header(NamedTuple):
    """First line: what the stream holds and how to read it."""

    source: Source
    frame_rate: float
    hop_length: int
    sample_rate: int
    encodings: tuple[str, ...]
    reads: tuple[str, ...]
    codebook_size: int
    extractor: Mapping[str, Any]
    codebook_id: str
    keyframe_interval: float


class Legend(NamedTuple):
    """Readings of codes that are about to appear: (layer, code, gloss)."""

    entries: tuple[tuple[int, int, str], ...]


class Frame(NamedTuple):
    """Codes that stand written at a frame: (layer, code)."""

    index: int
    keyframe: bool
    codes: tuple[tuple[int, int], ...]


class End(NamedTuple):
    """Last line: how much there was."""

    frames: int
    duration: float
    audio_sha256: str
    stats: Mapping[str, Any]


Gloss = Callable[[int, int], str]
CODES_SHA256 = "codes_sha256"  # in the end line's stats


def hash_codes(codes: np.ndarray, digest: Any = None) -> Any:
    """SHA-256 of codes [n, 8] as little-endian int16, row by row; `digest` is of those before."""
    digest = digest or hashlib.sha256()
    digest.update(np.ascontiguousarray(codes, "<i2").data)
    return digest


class Encoder:
    """Codes -> events, block by block: what stands in which frame, and new codes' glosses.

    The header says which layers are dense, and how far apart keyframes are; without a gloss, the
    reading of a layer's code, no legend is made.
    """

    def __init__(self, header: Header, gloss: Gloss | None) -> None:
        self._gloss = gloss
        self._dense = np.array([encoding == "dense" for encoding in header.encodings])
        self._interval = max(1, round(header.keyframe_interval * header.frame_rate))
        # No code is -1: in the first frame every layer has changed.
        self._last = np.full((1, len(LAYERS)), -1, dtype=np.int16)
        self._known = np.zeros((len(LAYERS), header.codebook_size), dtype=bool)
        self._index = 0

    def events(self, codes: np.ndarray) -> Iterator[Legend | Frame]:
        """Events of the next frames, codes [n, 8]."""
        # Counted from the first frame of all, so that blocks of any size make the same lines.
        keyframes = (self._index + np.arange(len(codes))) % self._interval == 0
        changed = np.diff(np.concatenate([self._last, codes]), axis=0) != 0
        stands = changed | self._dense | keyframes[:, None]
        # Plain lists: scalar access to them is many times faster than to arrays.
        fresh = (changed & ~self._known[np.arange(len(LAYERS)), codes]).any(axis=1).tolist()
        rows, standing, marks = codes.tolist(), stands.tolist(), keyframes.tolist()
        for row, stand, mark, new in zip(rows, standing, marks, fresh):
            if new and self._gloss:
                yield from self._legend(row)
            if any(stand):
                pairs = tuple(pair for pair, shown in zip(enumerate(row), stand) if shown)
                yield Frame(self._index, mark, pairs)
            self._index += 1
        self._last = codes[-1:] if len(codes) else self._last

    def _legend(self, row: Sequence[int]) -> Iterator[Legend]:
        # Asked again: a row before, of the same block, may have made a code known.
        new = [(layer, code) for layer, code in enumerate(row) if not self._known[layer, code]]
        for layer, code in new:
            self._known[layer, code] = True
        if new:
            yield Legend(tuple((layer, code, self._gloss(layer, code)) for layer, code in new))


def dump_json(value: Any) -> str:
    """Compact JSON on one line.

    A ValueError at NaN and infinity, which JSON (RFC 8259) has no words for.
    """
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def header_fields(header: Header) -> dict[str, Any]:
    """The header line as a JSON object."""
    # A pipe has no known duration: the field is left out then, since the schema knows no null.
    source = {k: v for k, v in header.source._asdict().items() if v is not None}
    layers = [
        {"name": layer.name, "kind": layer.kind, "codebook_size": header.codebook_size,
         "encoding": encoding, "reads": reads}
        for layer, encoding, reads in zip(LAYERS, header.encodings, header.reads)
    ]  # fmt: skip
    return {
        "event": "header",
        "schema": SCHEMA,
        "format_version": FORMAT_VERSION,
        "generator": {"name": PROGRAM, "version": VERSION},
        "source": source,
        # At 43 a second six decimals lose a quarter of a frame over MOST_FRAMES: every time still
        # finds its frame.
        "frame_rate": round(header.frame_rate, 6),
        "hop_length": header.hop_length,
        "sample_rate": header.sample_rate,
        "layers": layers,
        "extractor": dict(header.extractor),
        "codebook_id": header.codebook_id,
        "keyframe_interval": header.keyframe_interval,
        "legend": LEGEND_TEXT + (RAW_TEXT if header.source.kind == "raw" else ""),
    }


def legend_lines(legend: Legend) -> Iterator[str]:
    """Legend lines; split where one would grow over LINE_LIMIT."""
    glosses: dict[str, dict[str, str]] = {}
    for layer, code, text in legend.entries:
        glosses.setdefault(LAYER_NAMES[layer], {})[str(code)] = text
    line = dump_json({"event": "legend", **glosses})
    # One entry is written whatever its length, or the halving would never end.
    if len(line) <= LINE_LIMIT or len(legend.entries) == 1:
        yield line
    else:
        half = len(legend.entries) // 2
        yield from legend_lines(Legend(legend.entries[:half]))
        yield from legend_lines(Legend(legend.entries[half:]))


def frame_line(frame: Frame, frame_rate: float) -> str:
    """One frame line; written by hand because there are 43 a second."""
    mark = '"kf":true,' if frame.keyframe else ""
    codes = ",".join(f'"{LAYER_NAMES[layer]}":{code}' for layer, code in frame.codes)
    return f'{{"t":{frame.index / frame_rate:.3f},{mark}{codes}}}'


def end_fields(end: End) -> dict[str, Any]:
    """The end line as a JSON object."""
    return {"event": "end", **end._asdict()}


def event_lines(events: Iterable[Any], frame_rate: float) -> Iterator[str]:
    """Lines, without their newline, of any events."""
    for event in events:
        if isinstance(event, Frame):
            yield frame_line(event, frame_rate)
        elif isinstance(event, Legend):
            yield from legend_lines(event)
        else:
            fields = header_fields if isinstance(event, Header) else end_fields
            yield dump_json(fields(event))


class Reread(NamedTuple):
    """A stream read back: codes int16 [T, 8], and glosses by (layer, code)."""

    header: Header
    codes: np.ndarray
    glosses: dict[tuple[int, int], str]
    end: End
    whole: bool  # it had its end line


def finite(text: str) -> float:
    """Number of a JSON text, which knows no NaN and no infinity, not even as 1e999.

    A ValueError at any of these, which parse_line() turns into one of the stream.
    """
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.20} is no number")
    return value


# Made once: json.loads() with options makes a decoder a line.
LINE_DECODER = json.JSONDecoder(parse_float=finite, parse_constant=finite)


def parse_line(line: str, number: int) -> dict[str, Any]:
    """Parse one line; StreamError, which names it, if it is not a JSON object."""
    try:
        value = LINE_DECODER.decode(line)
    # An integer of thousands of digits ends in the one, deep nesting in the other.
    except (ValueError, RecursionError) as error:
        raise StreamError(f"line {number} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise StreamError(f"line {number} is not a JSON object")
    return value


def typed(fields: Mapping[str, Any], name: str, kinds: type | tuple[type, ...]) -> Any:
    """Field of a JSON object; StreamError if it is missing or of another type (a bool: none)."""
    value = fields.get(name)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise StreamError(f"{name!r} is missing or not what it should be")
    return value


def bounded(fields: Mapping[str, Any], name: str, low: float, high: float) -> Any:
    """Number of a JSON object; StreamError if it is none from `low` to `high`; NaN is none."""
    value = typed(fields, name, (int, float))
    # An int of any length can be compared, but 10**400 cannot become a float.
    if not low <= value <= high:
        raise StreamError(f"{name!r} is out of range")
    return value


def parse_source(fields: Mapping[str, Any]) -> Source:
    """The header's source; StreamError if a field but the duration is missing or cannot be."""
    known = fields.get("duration") is not None
    # A name comes from outside and may end in an LLM's context: short, and no control characters.
    name = "".join(c for c in typed(fields, "name", str)[:120] if c.isprintable())
    return Source(
        name,
        typed(fields, "kind", str),
        typed(fields, "sample_rate", int),
        typed(fields, "channels", int),
        float(bounded(fields, "duration", 0, 1e7)) if known else None,
    )


def parse_header(fields: Mapping[str, Any]) -> Header:
    """Read a header line's fields; StreamError if of another schema or major version."""
    if fields.get("event") != "header" or fields.get("schema") != SCHEMA:
        raise StreamError(f"it does not begin with a {SCHEMA} header; is this a token stream?")
    version = str(fields.get("format_version"))
    # Fields that are not known are passed over, so any minor version can be read.
    if version.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        raise StreamError(f"format version {version:.20} is not {FORMAT_VERSION}'s")
    layers = [layer for layer in typed(fields, "layers", list) if isinstance(layer, dict)]
    if [layer.get("name") for layer in layers] != list(LAYER_NAMES):
        raise StreamError("the header does not name the eight layers")
    encodings = tuple(typed(layer, "encoding", str) for layer in layers)
    if not set(encodings) <= set(ENCODINGS):
        raise StreamError("a layer's encoding is neither dense nor rle")
    return Header(
        parse_source(typed(fields, "source", dict)),
        # Times have three decimals: at 500 a second their rounding is a quarter of a frame.
        float(bounded(fields, "frame_rate", 1, 500)),
        int(bounded(fields, "hop_length", 1, 1e6)),
        int(bounded(fields, "sample_rate", *RANGES["sample_rate"][:2])),
        encodings,
        tuple(typed(layer, "reads", str) for layer in layers),
        # Codes are held as int16.
        int(bounded(layers[0], "codebook_size", 1, 32767)),
        typed(fields, "extractor", dict),
        typed(fields, "codebook_id", str),
        float(bounded(fields, "keyframe_interval", 0, 1e7)),
    )


def parse_end(fields: Mapping[str, Any]) -> End:
    """Read an end line's fields; StreamError if one cannot be. For the frames, see finish()."""
    return End(
        typed(fields, "frames", int),
        float(bounded(fields, "duration", 0, 1e9)),
        typed(fields, "audio_sha256", str),
        typed(fields, "stats", dict),
    )


class Decoder:
    """Lines -> codes: holds each layer's code until it is written again."""

    def __init__(self, header: Header) -> None:
        self._header = header
        pairs = zip(LAYER_NAMES, header.encodings)
        self._dense = [name for name, encoding in pairs if encoding == "dense"]
        self._held: list[int] = [-1] * len(LAYERS)
        self._starts: list[int] = []
        self._rows: list[list[int]] = []
        self._glosses: dict[tuple[int, int], str] = {}

    def take_frame(self, fields: dict[str, Any], number: int) -> None:
        """Read a frame line; StreamError if its time does not grow, or a layer or code is wrong."""
        t = fields.pop("t", None)
        fields.pop("kf", None)
        # By type(), because true is an int to isinstance().
        if type(t) not in (int, float) or not 0 <= t < 1e7:
            raise StreamError(f"line {number} has no event and no time in seconds")
        index = round(t * self._header.frame_rate)
        # A stream that lost its beginning is refused: before its first frame no code is held.
        if index != 0 and not self._starts or self._starts and index <= self._starts[-1]:
            raise StreamError(f"line {number}: time {t} is out of order")
        size = self._header.codebook_size
        for name, code in fields.items():
            if name not in LAYER_NAMES or type(code) is not int or not 0 <= code < size:
                raise StreamError(f"line {number}: {name!s:.20} is no layer with a code in range")
            self._held[LAYER_NAMES.index(name)] = code
        if -1 in self._held:
            raise StreamError(f"line {number}: the first frame does not state all eight layers")
        self._check_dense(index, fields, number)
        self._starts.append(index)
        self._rows.append(self._held.copy())

    def _check_dense(self, index: int, fields: Container[str], number: int) -> None:
        """Refuse a frame line that lacks a dense layer, or comes after frames that are gone."""
        lost = [name for name in self._dense if name not in fields]
        if lost:
            raise StreamError(f"line {number}: dense layer {lost[0]} is missing")
        gone = index - (self._starts[-1] + 1 if self._starts else 0)
        if self._dense and gone:
            raise StreamError(f"line {number}: {gone} frames before it are missing")

    def take_legend(self, fields: dict[str, Any], number: int) -> None:
        """Read a legend line; StreamError for an unknown layer, or no code with a text."""
        for name, glosses in fields.items():
            if name not in LAYER_NAMES or not isinstance(glosses, dict):
                raise StreamError(f"line {number}: {name!s:.20} is no layer with glosses")
            for code, text in glosses.items():
                # Five digits hold any code; int() refuses very long ones, naming no line.
                if not (code.isdecimal() and len(code) < 6 and isinstance(text, str)):
                    raise StreamError(f"line {number}: {code!s:.20} is no code with a gloss")
                self._glosses[LAYER_NAMES.index(name), int(code)] = text

    def finish(self, fields: dict[str, Any] | None) -> Reread:
        """Expand what was held into codes [T, 8]; `fields` is the end line, if there was one.

        A StreamError if its frame count, duration or checksum do not fit the frames.
        """
        last = self._starts[-1] + 1 if self._starts else 0
        end = self._end(last) if fields is None else parse_end(fields)
        # Frames that follow no frame would have no codes to hold.
        most = min(last, MOST_FRAMES) if self._dense else MOST_FRAMES
        if not last <= end.frames <= most or end.frames > 0 == last:
            raise StreamError("the end line's frame count does not fit the frames before it")
        # There are ceil(n / hop) frames of n samples, so the two differ by less than one.
        # The header's rate is rounded to 6 digits after the point, which hours make a frame of.
        if abs(end.duration * self._header.frame_rate - end.frames) > 1 + 1e-6 * end.duration:
            raise StreamError("the end line's duration does not fit its frames")
        lengths = np.diff(np.array([*self._starts, end.frames], dtype=np.int64))
        rows = np.array(self._rows, dtype=np.int16).reshape(-1, len(LAYERS))
        codes = np.repeat(rows, lengths, axis=0)
        # A line of a run-length stream that is gone leaves no other trace. Older streams have none.
        written = end.stats.get(CODES_SHA256)
        if written is not None and written != hash_codes(codes).hexdigest():
            raise StreamError(
                "its codes are not those that were written: lines were lost or changed"
            )
        return Reread(self._header, codes, self._glosses, end, fields is not None)

    def _end(self, frames: int) -> End:
        return End(frames, round(frames / self._header.frame_rate, 6), "", {})


def whole_lines(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Parse lines with their numbers; skip blank ones and a last one that was cut."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, parse_line(line, number)
            except StreamError:
                # With its newline a bad line is damage; without, its writer was stopped. Half a
                # line never reads as a whole one, because its brace is missing.
                if line.endswith("\n"):
                    raise
                return


def decode_stream(lines: Iterable[str]) -> Reread:
    """Read a token stream back into exact codes; if it was cut, those of the frames it holds.

    A StreamError, which names the line, if it is no such stream or contradicts itself.
    """
    parsed = whole_lines(lines)
    _, first = next(parsed, (0, {}))
    decoder, end = Decoder(parse_header(first)), None
    for number, fields in parsed:
        if end is not None:
            raise StreamError(f"line {number} comes after the end line")
        kind = fields.pop("event", None)
        if kind is None:
            decoder.take_frame(fields, number)
        elif kind == "legend":
            decoder.take_legend(fields, number)
        elif kind == "end":
            end = fields
        else:
            raise StreamError(f"line {number}: unknown event {kind!s:.20}")
    return decoder.finish(end)


def text_lines(codes: np.ndarray) -> Iterator[str]:
    """One string a frame of codes [T, 8]: semantic then acoustic, parted by spaces."""
    for row in codes.tolist():
        yield " ".join(map(str, row))


TEXT, NUMBER, COUNT = {"type": "string"}, {"type": "number"}, {"type": "integer", "minimum": 0}


def object_schema(required: Iterable[str], properties: Mapping[str, Any]) -> dict[str, Any]:
    """JSON Schema of an object that has these fields and no others."""
    closed = {"type": "object", "additionalProperties": False}
    return {**closed, "required": list(required), "properties": dict(properties)}


def header_schema() -> dict[str, Any]:
    """JSON Schema of the header line."""
    source = {"name": {**TEXT, "maxLength": 120}, "kind": {"enum": ["audio", "raw"]}}
    source.update(sample_rate=COUNT, channels=COUNT)
    layer = {"name": {"enum": list(LAYER_NAMES)}, "kind": {"enum": ["semantic", "acoustic"]}}
    layer.update(codebook_size=COUNT, encoding={"enum": list(ENCODINGS)}, reads=TEXT)
    items = object_schema(layer, layer)
    fields = {
        "event": {"const": "header"},
        "schema": {"const": SCHEMA},
        "format_version": {"const": FORMAT_VERSION},
        "generator": object_schema(("name", "version"), {"name": TEXT, "version": TEXT}),
        "source": object_schema(source, {**source, "duration": NUMBER}),
        "frame_rate": NUMBER,
        "hop_length": COUNT,
        "sample_rate": COUNT,
        "layers": {"type": "array", "items": items, "minItems": 8, "maxItems": 8},
        "extractor": {"type": "object", "required": ["name", "weights", "layer"]},
        "codebook_id": TEXT,
        "keyframe_interval": NUMBER,
        "legend": TEXT,
    }
    return object_schema(fields, fields)


def line_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of every line kind."""
    code = {"type": "integer", "minimum": 0, "maximum": 32766}
    glosses = {"type": "object", "additionalProperties": {**TEXT, "maxLength": 200}}
    legend = {"event": {"const": "legend"}, **dict.fromkeys(LAYER_NAMES, glosses)}
    frame = {"t": {**NUMBER, "minimum": 0}, "kf": {"const": True}}
    frame.update(dict.fromkeys(LAYER_NAMES, code))
    # Empty where the sound was not heard to its end, as in a stream that was cut.
    digest = {**TEXT, "pattern": "^([0-9a-f]{64})?$"}
    end = {"event": {"const": "end"}, "frames": COUNT, "duration": NUMBER}
    end.update(audio_sha256=digest, stats={"type": "object"})
    kinds = (header_schema(), object_schema(["event"], legend), object_schema(["t"], frame))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA}:stream:{FORMAT_VERSION}",
        "title": "One line of a Tim's Ears token stream",
        "oneOf": [*kinds, object_schema(end, end)],
    }


# 10 Reading --------------------------------------------------------------------------------------
# Uses: 1, 2, 4, 6, 7, 9. What makes codes legible: glosses in the units of musicians and engineers.

INDEX = {name: column for column, name in enumerate(DESCRIPTORS)}
NOTES = slice(len(DESCRIPTORS), NUM_DESCRIPTORS)
SLOPE_SECONDS = DELTA_FRAMES * HOP_FRACTION  # over which a slope is measured
# For the columns low to air, which BAND_EDGES parts.
BAND_WORDS = ("sub-bass", "bass", "mids", "highs", "air")
MORE_LESS = {  # descriptor: (words when high, words when low), for what a code has beside others
    "level": ("louder", "softer"), "centroid": ("brighter", "darker"),
    "low": ("more sub-bass", "less sub-bass"), "lowmid": ("more bass", "less bass"),
    "high": ("more highs", "less highs"), "air": ("more air", "less air"),
    "flatness": ("flatter spectrum", "peakier spectrum"), "tonal": ("more tonal", "noisier"),
    "slope": ("rising", "falling"), "attack_high": ("sharper attacks", "softer attacks"),
    "spread": ("more uneven", "more even"), "onset_rate": ("busier", "sparser"),
    "syllabic": ("speech-like modulation", "unmodulated"), "pulse": ("more regular", "irregular"),
}  # fmt: skip


def note_name(midi: float) -> str:
    """Name of a MIDI note, A4 = 69 = 440 Hz."""
    number = int(round(midi))
    return f"{PITCH_CLASSES[number % 12]}{number // 12 - 1}"


def hertz_words(hz: float) -> str:
    """A frequency as an engineer writes it."""
    return f"{hz / 1000:.1f} kHz" if hz >= 1000 else f"{hz:.0f} Hz"


def level_words(row: np.ndarray) -> str:
    """Level of a code, or the word silence."""
    level = row[INDEX["level"]]
    # A code's level is a mean over its frames, so its silence need not read LEVEL_FLOOR exactly.
    return "silence" if level < -80 else f"{level:.0f} dB"


def texture_words(row: np.ndarray) -> str:
    """How much of the power stands in clear partials."""
    tonal = row[INDEX["tonal"]]
    return "tonal" if tonal > 0.7 else "part tonal" if tonal > 0.35 else "noise"


def band_words(row: np.ndarray) -> str:
    """Where most of the power lies, and the loudness-weighted centre."""
    shares = row[INDEX["low"] : INDEX["air"] + 1]
    top = int(shares.argmax())
    return f"{BAND_WORDS[top]} {shares[top]:.0%}, centre {hertz_words(2 ** row[INDEX['centroid']])}"


def note_words(row: np.ndarray, most: int = 3) -> str:
    """The notes that stand out, from the lowest up, or that there is no pitch.

    Parameters
    ----------
    row : ndarray [NUM_DESCRIPTORS]
        As describe() gives them; so for all functions that put a row into words.
    most : int
        How many notes to name.
    """
    salience = row[NOTES]
    top = salience.max()
    # Noise has salience by chance, and must not be named a note.
    if top < 0.04 or row[INDEX["tonal"]] < 0.35:
        return "unpitched"
    strong = [k for k in salience.argsort()[::-1][: 2 * most] if salience[k] > 0.45 * top]
    return "+".join(note_name(LOWEST_NOTE + k) for k in sorted(strong[:most]))


def class_words(row: np.ndarray, most: int = 4) -> str:
    """The pitch classes that stand out, strongest first."""
    chroma = fold_chroma(row[None, NOTES])[0]
    if chroma.max() < 0.03 or row[INDEX["tonal"]] < 0.3:
        return "no harmony"
    strong = [k for k in chroma.argsort()[::-1][:most] if chroma[k] > 0.4 * chroma.max()]
    return " ".join(PITCH_CLASSES[k] for k in strong)


def pulse_words(row: np.ndarray) -> str:
    """Onset rate, and the period where there is one; or a rhythm as of syllables."""
    rate, pulse = row[INDEX["onset_rate"]], row[INDEX["pulse"]]
    # A pulse is heard over three seconds (PULSE_FRAMES): at this rate they hold not one onset.
    if rate < 0.3:
        return "no onsets"
    period = 2 ** row[INDEX["period"]]
    beat = f"period {period:.2f} s ({60 / period:.0f}/min)" if pulse > 0.35 else "no pulse"
    spoken = pulse <= 0.35 and row[INDEX["syllabic"]] > 0.55
    return f"{rate:.1f} onsets/s, {'syllable-like rhythm' if spoken else beat}"


def change_words(row: np.ndarray) -> str:
    """How much an instant rises or falls; of an attack the band, and which hit it is like."""
    attack = row[INDEX["attack_low"] : INDEX["attack_high"] + 1]
    total, slope = attack.sum(), row[INDEX["slope"]]
    if total <= 6:  # dB; what swells is no attack
        speed = f"{slope / SLOPE_SECONDS:+.0f} dB/s"
        return f"decay {speed}" if slope < -2 else f"rise {speed}" if slope > 2 else "steady"
    low, _, high = attack / total
    # A bass note rises as low as a kick does: only what is not tonal is likened to a drum.
    if row[INDEX["tonal"]] > 0.6:
        hit = f"{'low' if low > 0.4 else 'high' if high > 0.5 else 'mid'}, note-like"
    elif low > 0.4:
        hit = "low, kick-like"
    else:
        hit = "high, hat-like" if high > 0.5 else "broad, snare-like" if high > 0.25 else "mid"
    return f"attack +{total:.0f} dB, {hit}"


def contrast_words(row: np.ndarray, mean: np.ndarray, spread: np.ndarray, most: int = 2) -> str:
    """The things in which a code differs most from its layer's other codes."""
    columns = [INDEX[name] for name in MORE_LESS]
    # In spreads of the layer's own codes, because decibels, shares and octaves do not compare.
    score = (row[columns] - mean[columns]) / spread[columns]
    words = list(MORE_LESS.values())
    return ", ".join(words[k][int(score[k] < 0)] for k in np.abs(score).argsort()[::-1][:most])


def scene_words(row: np.ndarray) -> str:
    """A scene: level, its spread, texture and bands."""
    spread = row[INDEX["spread"]]
    return f"{level_words(row)} ±{spread:.0f}, {texture_words(row)}, {band_words(row)}"


def timbre_words(row: np.ndarray) -> str:
    """Level, texture and bands; of tones whether partials fit one pitch, and odd or even lead."""
    texture, swing, balance = texture_words(row), row[INDEX["waver"]], row[INDEX["odd_even"]]
    if texture == "tonal":
        texture = "harmonic" if row[INDEX["harmonic"]] > 0.75 else "several pitches"
        if swing > 12:  # cents; less is heard as one pitch
            texture += f", pitch wavers ±{swing:.0f} cents"
        elif abs(balance) > 6:
            texture += f", {'odd' if balance > 0 else 'even'} partials +{abs(balance):.0f} dB"
    return f"{level_words(row)}, {texture}, {band_words(row)}"


Reader = Callable[[np.ndarray], str]  # descriptors of a code -> words
# What a layer's codes are read by; None: only by how they differ from the layer's others.
PLAIN_WORDS: tuple[Reader | None, ...] = (
    scene_words, class_words, pulse_words, None, timbre_words, note_words, change_words, None,
)  # fmt: skip


def layer_words(layer: int, books: Codebooks) -> Reader | None:
    """How to read a layer: by its side of sound, or, where stages hear all, scene and contrast."""
    # Neural features have no sides of sound: each stage codes what those before it left over.
    hears_all = bool((books.weights[0] > 0).all())
    if hears_all and layer < NUM_QUANTIZERS:
        return scene_words if layer == 0 else None
    return PLAIN_WORDS[layer]


@functools.lru_cache(maxsize=2)
def gloss_table(books: tuple[Codebooks, ...]) -> Gloss:
    """Readings of all codes of both chains, from descriptors stored with the codebooks.

    Returns
    -------
    Gloss
        gloss(layer, code) -> words, for layers 0-7 (S0-S3, A0-A3).
    """
    tables = np.concatenate([chain.descriptors for chain in books])
    mean, deviation = tables.mean(axis=1), tables.std(axis=1) + 1e-6
    readers = [layer_words(k, books[k // NUM_QUANTIZERS]) for k in range(len(LAYERS))]

    # Legends, pictures and budgets ask for the same codes again.
    @functools.lru_cache(maxsize=None)
    def gloss(layer: int, code: int) -> str:
        """What a code is read as."""
        row = tables[layer, code]
        words = readers[layer]
        return words(row) if words else contrast_words(row, mean[layer], deviation[layer])

    return gloss


# The LLM view. Runs of codes by rate-distortion, stated observations, and a budget that holds.

VIEW_NAMES = (
    "scene", "harmony", "pulse", "scene detail", "timbre", "pitch", "change", "detail",
)  # fmt: skip
# The search takes rows times codes for each layer and price: these two bound its time for a
# sound of any length.
VIEW_STEPS = 2000  # rows a path is searched over, at most
MOST_CODES = 160  # of a layer, the most frequent ones, among which a view chooses
# Half an hour at 43 a second.
MAX_ROWS = 80000  # rows kept for a view; a longer sound is thinned to every second, fourth ...


class Clip(NamedTuple):
    """A whole sound as the view needs it, thinned if it is long; all arrays over time."""

    codes: np.ndarray
    semantic: np.ndarray
    acoustic: np.ndarray
    spectra: Spectra


def thin_rows(clip: Clip, first: int, stride: int) -> Clip:
    """Every `stride`-th row, float features as float32 to save room."""

    def cut(array: np.ndarray) -> np.ndarray:
        """The rows from `first` on, every `stride`th."""
        kept = array[first::stride]
        return kept.astype(np.float32) if kept.dtype == np.float64 else kept

    return Clip(*(cut(array) for array in clip[:3]), Spectra(*map(cut, clip.spectra)))


def join_clips(parts: Sequence[Clip]) -> Clip:
    """Concatenate along time."""
    arrays = (np.concatenate(arrays) for arrays in zip(*(part[:3] for part in parts)))
    return Clip(*arrays, join_rows([part.spectra for part in parts]))


class Gatherer:
    """Keeps at most MAX_ROWS rows of a sound of any length, evenly spaced."""

    def __init__(self) -> None:
        self._parts: list[Clip] = []
        self._rows, self._seen, self.stride = 0, 0, 1

    def add(self, clip: Clip) -> None:
        """Take the next frames, every one of them."""
        # The next row on the grid of strides, which runs on over the edges of blocks.
        first = -self._seen % self.stride
        self._seen += len(clip.codes)
        kept = thin_rows(clip, first, self.stride)
        self._parts.append(kept)
        self._rows += len(kept.codes)
        if self._rows > MAX_ROWS:
            whole = thin_rows(join_clips(self._parts), 0, 2)
            self._parts, self._rows = [whole], len(whole.codes)
            self.stride *= 2

    def clip(self) -> Clip:
        """All rows kept."""
        return join_clips(self._parts)


def stage_distortion(
    books: Codebooks, features: np.ndarray, stage: int, *, codes: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """Squared distance [T, n] in a stage's metric of what it had to code to wanted codewords."""
    heard = books.weights[stage] > 0
    before = sum((books.vectors[q][codes[:, q]] for q in range(stage)), np.zeros(len(heard)))
    rows = (books.normalise(features) - before)[:, heard]
    words = books.vectors[stage][wanted][:, heard]
    # The square multiplied out: differences of all rows to all words would be [T, n, D]. Rounding
    # may leave a trifle below zero.
    square = np.sum(rows**2, axis=1)[:, None] - 2 * rows @ words.T + np.sum(words**2, axis=1)
    return np.maximum(square, 0)


def choose_codes(distortion: np.ndarray, count: int) -> np.ndarray:
    """Greedily pick the columns [<= count] that together leave the least distortion [T, n]."""
    best, picked = np.full(len(distortion), np.inf), []
    for _ in range(min(count, distortion.shape[1])):
        totals = np.minimum(distortion, best[:, None]).sum(axis=0)
        column = int(totals.argmin())
        # No other column makes the total less: one more code would only cost its legend.
        if column in picked:
            break
        picked.append(column)
        best = np.minimum(best, distortion[:, column])
    return np.array(picked)


def best_path(score: np.ndarray, entry: np.ndarray) -> np.ndarray:
    """Column for each row [T] of the highest sum of scores [T, n], less `entry` [T, n] a change.

    The algorithm is Viterbi's (1967): best value of each state row by row, then back along it.
    """
    # The price is that of entering, whatever was left, so one best state before serves all states:
    # a row costs n steps, not n x n.
    stays = np.ones(score.shape, dtype=bool)
    best = np.zeros(len(score), dtype=np.int64)
    value = score[0].copy()
    for t in range(1, len(score)):
        best[t] = value.argmax()
        entered = value[best[t]] - entry[t]
        # Of equals the one that stays, so that every change gains something.
        stays[t] = value >= entered
        value = np.maximum(value, entered) + score[t]
    path = np.empty(len(score), dtype=np.int64)
    state = int(value.argmax())
    for t in range(len(score) - 1, -1, -1):
        path[t] = state
        if not stays[t, state]:
            state = int(best[t])
    return path


def cheapest_path(distortion: np.ndarray, price: float) -> np.ndarray:
    """Column for each row [T] that minimises distortion + price x changes (Viterbi)."""
    return best_path(-distortion, np.broadcast_to(price, distortion.shape))


def run_starts(column: np.ndarray) -> np.ndarray:
    """Rows at which a path changes, the first one included."""
    return np.flatnonzero(np.concatenate([[True], column[1:] != column[:-1]]))


def clip_glosses(words: Reader | None, rows: np.ndarray, path: np.ndarray) -> list[str]:
    """Readings measured over this clip of each path column, and what sets it apart here."""
    means = np.stack([rows[path == column].mean(axis=0) for column in np.unique(path)])
    mean, spread = means.mean(axis=0), means.std(axis=0) + 1e-3
    if words is None:
        return [contrast_words(row, mean, spread) for row in means]
    if len(means) < 3:  # too few codes to differ from
        return [words(row) for row in means]
    return [f"{words(row)}, {contrast_words(row, mean, spread, most=1)}" for row in means]


# Pitch side of the stated observations: lead line, bass, key, chords, contour, timbre of the lead.

# A held note of the melody must not pass for a drone, hence seconds.
STANDING = 2.5  # seconds that a tone must stand still to count as drone
DRONE_SHARE = 0.5  # of what stands still is taken off before the lead is looked for
# Low notes are strong and hold on, and would take the lead from what is played above them.
LEAD_REGISTER = 62  # MIDI; each octave below it halves a note's claim to be the lead
# The bonus is the smaller one: even at the clearest attack a change costs something, or the path
# would flicker.
ENTRY_COST, ATTACK_BONUS = 5.0, 4.5  # in frames of full evidence, for a change of note
REST_SCORE = 0.12  # evidence of a rest
SILENCE = -70.0  # dBFS; below it nothing has a pitch
# Lone instruments have one series in 62 to 100 % of their loud frames, two voices in under 60 %.
ONE_SERIES, ONE_SHARE = 0.78, 0.52  # unity of a frame, share of frames
LOW_SERIES = 57  # MIDI (A3), below which a series may be a bass
RINGING_UNITY = 0.72  # mean unity of what may still be a line
LONE_SHARE = 0.9  # of the time, of one note at a time, to be said of all of it
ALONE_PRICE = 25.0  # in frames of one series more than that share, for a change: some 4 s
# How well each pitch class fits a key, from the tonic up: Krumhansl and Kessler (1982).
MAJOR_PROFILE = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR_PROFILE = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
CHORD_SHAPES = {  # semitones above the root
    "": (0, 4, 7), "m": (0, 3, 7), "7": (0, 4, 7, 10), "m7": (0, 3, 7, 10), "dim": (0, 3, 6),
}  # fmt: skip
NUM_LEAD_PARTIALS = 10
MEL_CENTRES = MEL_EDGES[1:-1]  # Hz
FACTS = {  # kinds of observation and their values; the most telling first: a short view ends early
    "level": "tuple of float: s, the clicks in what else is silent",
    "sound": "tuple of str: notes, drums, speech, music, noise, glide, tone, sounds; main first",
    "sequence": "tuple of Stretch: trains of like events, one after the other",
    "course": "tuple of Stretch: kinds of sound in turn",
    "form": "tuple of Stretch: sections by letter",
    "part": "Part",
    "texture": "float or None: share of the time in which one note at a time sounds; None: unclear",
    "glide": "Slide", "sweep": "Slide",
    "speech": "tuple of Stretch: phrases",
    "events": "tuple of Stretch: each of several like sounds", "event": "tuple of Stretch: one",
    "bed": "float: dB", "swells": "tuple of float: s, their peaks",
    "voice": "tuple of float: median Hz of each phrase, or of all; 0: not clear",
    "tempo": "float or None: beats a minute; None: no beat is heard",
    "pause": "tuple of Stretch: silences",
    "fade": "tuple of float: s in which it fades in, and out; 0: it does not",
    "change": "str: what enters or stops",
    "key": "Key or tuple of Key: if it changes, that before and that after",
    "timbre": "LeadTimbre", "contour": "str: the way of the lead line", "loudness": "Loudness",
    "jump": "float: dB, below zero where it drops",
    "hits": "tuple of Onset: those of drums", "portrait": "Within: what one sound is like",
    "character": "Character",
    "tone": "tuple of float: Hz", "noise": "str: its colour", "chords": "tuple of Chord",
    "drone": "tuple of int: MIDI", "metre": "int: beats in a group", "lead": "tuple of Note",
    "ends": "tuple of Note: first and last of the lead, if there is one",
    "onsets": "float: how many a second",
    "absent": "tuple of str: what is missing (beat, drums, silence, speech)",
    "pitch": "str: why there is none (hits, noise, silence)", "bass": "tuple of Note",
}  # fmt: skip


def plain(value: Any) -> Any:
    """What JSON can hold: named tuples as dictionaries, tuples as lists, the rest as it is."""
    if hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    return [plain(part) for part in value] if isinstance(value, tuple) else value


class Observation(NamedTuple):
    """One stated fact about the sound; `value` is of the type that FACTS names for its kind."""

    kind: str
    time: float  # seconds
    duration: float  # seconds
    value: Any
    confidence: float  # 0-1
    text: str
    short: str = ""  # what a short page says instead; the text up to its semicolon if empty

    def as_dict(self) -> dict[str, Any]:
        """Kind, start and end in seconds, value, confidence and text, of what JSON can hold."""
        span = {"start": self.time, "end": self.time + self.duration}
        rest = {"confidence": self.confidence, "text": self.text}
        return {"kind": self.kind, **span, "value": plain(self.value), **rest}


Findings = list[Observation]


class Stretch(NamedTuple):
    """From when to when (s) what is heard."""

    start: float
    stop: float
    what: str


class Slide(NamedTuple):
    """A pitch that moves without steps."""

    low: float  # Hz
    high: float  # Hz
    cycle: float  # s of an up-and-down, 0 where none is whole
    points: tuple[tuple[float, float], ...] = ()  # s and Hz where a single tone turns


class Loudness(NamedTuple):
    """How loudness goes on."""

    trend: str  # steady, varies, grows throughout, fades throughout
    level: float  # dB, typical

    def words(self, more: str = "") -> str:
        """The trend, `more` of it, and that a sound is very quiet."""
        return f"loudness {self.trend}{more}{', very quiet' * (self.level < -48)}"


class Character(NamedTuple):
    """What a mood rests on."""

    rate: float  # beginnings a second
    centre: float  # Hz
    low: float  # share of the power below 150 Hz
    tonal: float  # 0-1
    range: float  # dB, of the loudness


class Note(NamedTuple):
    """One note of a line."""

    start: float  # seconds
    duration: float  # seconds
    midi: float  # the fraction is cents
    level: float  # dBFS, of the partials of this note
    confidence: float  # 0-1


class Key(NamedTuple):
    """Best and second best reading of the key."""

    tonic: str
    mode: str
    confidence: float  # 0-1
    runner_up: str  # none where the key was found by how it changes

    @property
    def name(self) -> str:
        """Tonic and mode."""
        return f"{self.tonic} {self.mode}"


class Part(NamedTuple):
    """What one section of a piece is."""

    letter: str  # the same for sections that sound alike
    heard: tuple[str, ...]  # as the value of "sound", see FACTS; empty in silence
    key: Key | tuple[Key, ...] | None = None  # as the value of "key"; None: not clear

    @property
    def drummed(self) -> bool:
        """Whether drums play, and not beside speech alone."""
        return "drums" in self.heard and self.heard[0] != "speech"


class Chord(NamedTuple):
    """One chord; the name is N where there is none."""

    start: float  # seconds
    duration: float  # seconds
    name: str
    confidence: float  # 0-1


Ladder = tuple[tuple[Any, Callable[[Any], bool]], ...]  # words, and the sign of them


def first_rung(ladder: Ladder, measured: Any) -> Any:
    """Words of the first rung whose sign holds."""
    return next(words for words, holds in ladder if holds(measured))


def graded(value: float, marks: Sequence[float], words: str) -> str:
    """The word for a value below the first mark, the second ..., above them all."""
    return words.split()[int(np.searchsorted(marks, value))]


def to_hertz(midi: Any) -> Any:
    """Frequency of a MIDI number, A4 = 69 = 440 Hz."""
    return 440.0 * 2.0 ** ((midi - 69.0) / 12.0)


def decibels(power: Any) -> Any:
    """Power in dB, never below -120."""
    return 10 * np.log10(np.maximum(power, 1e-12))


def pooled(rows: np.ndarray, size: int) -> np.ndarray:
    """Means of blocks of `size` rows; a rest that is shorter is left out unless it is all."""
    count = max(1, len(rows) // size)
    return rows[: count * size].reshape(count, -1, *rows.shape[1:]).mean(axis=1)


def shifted(rows: np.ndarray, frames: int) -> np.ndarray:
    """Rows as they will be so many frames later, edges repeated."""
    return rows[np.clip(np.arange(len(rows)) + frames, 0, len(rows) - 1)]


def runs(path: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Stretches of one state: state, first frame, frame after the last."""
    starts = run_starts(path)
    for start, stop in zip(starts, np.append(starts[1:], len(path))):
        yield int(path[start]), int(start), int(stop)


def runs_of(mask: np.ndarray, gap: int) -> list[tuple[int, int]]:
    """First and last frame (exclusive) of the true stretches of a mask, gaps bridged."""
    found: list[tuple[int, int]] = []
    for _, start, stop in filter(lambda run: run[0], runs(mask)):
        near = bool(found) and start - found[-1][1] < gap
        start = found.pop()[0] if near else start
        found.append((start, stop))
    return found


def smooth_rows(rows: np.ndarray, width: int) -> np.ndarray:
    """Moving average [T, ...] over `width` rows, one more if that is even; the ends repeated."""
    reach = width // 2
    ends = [(reach + 1, reach), *[(0, 0)] * (rows.ndim - 1)]
    total = np.cumsum(np.pad(rows, ends, mode="edge"), axis=0)
    return (total[2 * reach + 1 :] - total[: -2 * reach - 1]) / (2 * reach + 1)


def widened(rows: np.ndarray) -> np.ndarray:
    """Largest of each column and its neighbours [T, n]."""
    sides = np.pad(rows, ((0, 0), (1, 1)), mode="edge")
    return np.maximum(np.maximum(sides[:, :-2], rows), sides[:, 2:])


def absolute_salience(spectra: Spectra) -> np.ndarray:
    """Salience of notes [T, 72] on the scale of power to the 0.3, so that frames compare."""
    # Salience is relative to its frame. Loudness grows about as power to the 0.3 (Stevens).
    loudness = 10 ** (0.03 * np.asarray(spectra.level, dtype=np.float64))
    return spectra.salience * (loudness * (spectra.level > SILENCE))[:, None]


def loud_frames(rows: Spectra, depth: float, floor: float = -np.inf) -> np.ndarray:
    """Whether each frame [T] is less than `depth` dB under the loudest, and above a floor."""
    return rows.level > max(float(np.max(rows.level, initial=LEVEL_FLOOR)) - depth, floor)


def alone_frames(spectra: Spectra) -> np.ndarray:
    """Whether at each frame one note at a time is all that sounds, for some seconds [T]; T > 0."""
    loud = loud_frames(spectra, 25, SILENCE)
    # A loud bass explains nearly all of what is soft above it, so it must explain all.
    one = spectra.unity > np.where(spectra.series < LOW_SERIES, 0.985, ONE_SERIES)
    # Where notes overlap, and as they begin, two series sound for a while: a share must be one.
    score = loud * (one - ONE_SHARE)
    states = np.column_stack([np.zeros(len(score)), score])
    return best_path(states, np.full(states.shape, ALONE_PRICE)) == 1


def line_rows(spectra: Spectra, alone: np.ndarray) -> Spectra:
    """Rows in which a note that sounds `alone` [T] is heard as itself, without its partials."""
    note = np.rint(spectra.series).astype(int) - LOWEST_NOTE
    sure = alone & (spectra.unity > 0.5) & (note >= 0) & (note < NUM_NOTES)
    salience = np.where(alone[:, None], 0.0, spectra.salience)
    salience[sure, note[sure]] = 0.5 * spectra.unity[sure]  # as much as a clear note has
    pitch = np.where(alone, np.where(sure, spectra.series, 0.0), spectra.pitch)
    return spectra._replace(salience=salience, pitch=pitch)


def melodic_path(score: np.ndarray, rest: float, entry: np.ndarray) -> np.ndarray:
    """Best path [T] through states [T, n] and a rest (-1) that is always as good as `rest`."""
    states = np.pad(score, ((0, 0), (0, 1)), constant_values=rest)
    # A rest costs the full price: it begins with no attack that could make it cheap.
    path = best_path(states, np.pad(entry, ((0, 0), (0, 1)), constant_values=ENTRY_COST))
    return np.where(path == score.shape[1], -1, path)


def relative_evidence(evidence: np.ndarray, frame_rate: float) -> np.ndarray:
    """Evidence [T, n] over the strongest near it, before or after, so that soft passages count."""
    reach = int(2 * frame_rate)
    peak = np.pad(evidence.max(axis=1), reach, mode="edge")
    around = sliding(peak, reach + 1).max(axis=1)
    # The small term keeps near-silence from being blown up to full evidence.
    return evidence / (np.minimum(around[:-reach], around[reach:]) + 1e-4)[:, None]


def lead_evidence(spectra: Spectra, frame_rate: float) -> np.ndarray:
    """Claim of each note [T, 72] to be the foreground: loud, not standing still, not low."""
    loud, block = absolute_salience(spectra), 8  # frames taken together, to save time
    count = -(-len(loud) // block)
    padded = np.pad(loud, ((0, count * block - len(loud)), (0, 0)), mode="edge")
    blocks = padded.reshape(count, block, -1).mean(axis=1)
    width = max(2, min(count, int(STANDING * frame_rate / block)))
    around = np.pad(blocks, ((width - 1, width - 1), (0, 0)), mode="symmetric")
    medians = np.median(np.lib.stride_tricks.sliding_window_view(around, width, axis=0), axis=2)
    # What was there before and stays after: a drone does, a melody does not. The lesser of the
    # two, so that a sudden change of level leaves no shadow.
    lesser = np.minimum(medians[:count], medians[width - 1 :][:count])
    moving = np.maximum(loud - DRONE_SHARE * np.repeat(lesser, block, axis=0)[: len(loud)], 0)
    octaves = (LOWEST_NOTE + np.arange(NUM_NOTES) - LEAD_REGISTER) / 12
    return moving * np.clip(1 + 0.5 * octaves, 0.2, 1)


@functools.lru_cache(maxsize=4096)
def comb_bands(tenths: int, shift: float) -> np.ndarray:
    """Lower of the two mel bands [n] of each harmonic below 10 kHz; pitch in 0.1 semitones."""
    hertz = to_hertz(tenths / 10) * (np.arange(1, NUM_LEAD_PARTIALS + 1) + shift)
    low = np.interp(hertz[hertz < 10000], MEL_CENTRES, np.arange(N_MELS)).astype(int)
    return np.clip(low, 0, N_MELS - 2)


def partial_power(mel: np.ndarray, midi: float, shift: float = 0.0) -> np.ndarray:
    """Power [n, 10] of a note's harmonics, moved by a share of the first, in mel power [n, 64]."""
    # A band is 51 Hz wide below 1 kHz and a semitone above: the harmonics of all but bass notes
    # lie in bands of their own.
    low = comb_bands(round(10 * midi), shift)
    power = np.zeros((len(mel), NUM_LEAD_PARTIALS))
    power[:, : len(low)] = mel[:, low] + mel[:, low + 1]
    return power


def mel_power(rows: Spectra) -> np.ndarray:
    """Absolute power of the mel bands [n, 64]."""
    return 10 ** ((rows.mel + rows.level.astype(np.float64)[:, None]) / 10)


def harmonic_level(rows: Spectra, midi: float) -> np.ndarray:
    """Level in dBFS [n] of the harmonics of a note."""
    return decibels(partial_power(mel_power(rows), midi).sum(axis=1))


def has_root(rows: Spectra, midi: float) -> bool:
    """Whether a note's fundamental sounds, or only higher notes that are multiples of it."""
    power = partial_power(mel_power(rows), midi).mean(axis=0)
    # Small bodies hardly radiate the fundamental of a bass.
    root = power[:2].max() if midi < 40 else power[0]
    # A ghost is fainter than the note above whose partials it shares: octave, twelfth, two octaves.
    place = round(midi) - LOWEST_NOTE
    salience = np.append(rows.salience.mean(axis=0), np.zeros(24))
    real = salience[place] > 0.6 * max(salience[place + k] for k in (12, 19, 24))
    return bool(real and root > 10**-1.6 * power.max())


def restrikes(spectra: Spectra, gate: np.ndarray, *, note: int, first: int) -> list[int]:
    """Frames at which a note that is held in all rows is struck again, `first` added."""
    if len(gate) < 8 or gate.max() <= 0.3:
        return []
    # Of its own harmonics: an attack in the accompaniment leaves these as they are.
    level = harmonic_level(spectra, LOWEST_NOTE + note)
    rise = shifted(level, 2) - shifted(level, -2)
    struck = np.flatnonzero(local_peaks(np.where(gate > 0.3, rise, 0.0), 3.0))
    # The first four frames are the note's own beginning.
    return [first + int(k) for k in struck if 4 <= k <= len(gate) - 3]


def measured_note(rows: Spectra, note: int, *, start: float, frame_rate: float) -> Note:
    """Exact pitch, level and confidence of a semitone that sounds in all rows."""
    midi, count = float(LOWEST_NOTE + note), len(rows.level)
    pitch = np.asarray(rows.pitch, dtype=np.float64)
    # The strongest fundamental of a frame may be another voice's.
    near = pitch[np.abs(pitch - midi) < 0.8]
    midi = float(np.median(near)) if len(near) > 1 else midi
    level = harmonic_level(rows, midi).max()
    clear = np.clip(2.5 * np.sort(rows.salience[:, note])[3 * count // 4], 0, 1)
    return Note(start, count / frame_rate, midi, float(level), float(clear))


def line_notes(
    spectra: Spectra, relative: np.ndarray, *, rest: float, frame_rate: float
) -> tuple[list[Note], np.ndarray]:
    """Notes of the best path through evidence [T, n], and what beginning each would cost [T, n]."""
    flux = np.asarray(spectra.flux, dtype=np.float64).sum(axis=1)
    # Less the mean of half a second, since noise and tremolo rise a little all the time.
    usual = np.convolve(np.pad(flux, 10, mode="edge"), np.ones(21) / 21, mode="valid")
    fresh = np.maximum(0, flux - usual)
    # How surely something is struck, plucked or blown anew at each frame, 0-1.
    gate = np.clip((sliding(np.pad(fresh, 2, mode="edge"), 5).max(axis=1) - 2) / 6, 0, 1)
    rise = np.clip(1.5 * (shifted(relative, 4) - shifted(relative, -4)), 0, 1)
    costs = ENTRY_COST - ATTACK_BONUS * rise * gate[:, None]
    notes = []
    for note, start, stop in runs(melodic_path(relative, rest, costs)):
        if note < 0:
            continue
        # What is struck again begins a new note; what is very short or doubtful is none.
        held = slice_rows(spectra, start, stop)
        cuts = [start, *restrikes(held, gate[start:stop], note=note, first=start), stop]
        for a, b in zip(cuts, cuts[1:]):
            if b - a >= 3:
                rows, at = slice_rows(spectra, a, b), a / frame_rate
                notes.append(measured_note(rows, note, start=at, frame_rate=frame_rate))
    return [note for note in notes if note.confidence > 0.2], costs


def is_interloper(notes: Sequence[Note], attacks: np.ndarray, place: int) -> bool:
    """Whether a note is accompaniment heard through a gap: far below its neighbours, not begun."""
    near = np.r_[max(0, place - 4) : place, place + 1 : min(place + 5, len(notes))]
    note = notes[place]
    if len(near) < 3 or note.confidence < 0.25:
        return note.confidence < 0.25
    # Melodies leap too: what lies an octave under its neighbours must also be softer or not begun,
    # what lies a third under them much softer, to be called accompaniment.
    below = np.median([notes[k].midi for k in near]) - note.midi
    softer = np.median([notes[k].level for k in near]) - note.level
    unbegun = attacks[place] < 0.5 < np.median(attacks[near])
    return bool((below > 12 and (softer > 1 or unbegun)) or (below > 4 and softer > 6))


def foreground_notes(
    spectra: Spectra, frame_rate: float, *, alone: np.ndarray | None = None
) -> list[Note]:
    """Notes of the lead line in rows of the whole sound.

    The line is the Viterbi path through the salience of semitones, less what stands still (the
    drone), weighted against low registers; a change of note is cheap where the note rises with an
    attack. So a plucked note keeps the line after it has faded below its accompaniment.

    Parameters
    ----------
    spectra : Spectra
        Rows [T].
    frame_rate : float
        Rows a second.
    alone : ndarray [T], optional
        From alone_frames(), where the caller has it.

    Returns
    -------
    list of Note
        In order of time, one at a time; empty for less than eight rows.
    """
    if len(spectra.level) < 8:  # frames; shorter is no line
        return []
    spectra = line_rows(spectra, alone_frames(spectra) if alone is None else alone)
    relative = relative_evidence(lead_evidence(spectra, frame_rate), frame_rate)
    notes, costs = line_notes(spectra, relative, rest=REST_SCORE, frame_rate=frame_rate)
    attacks = np.zeros(len(notes))
    for place, note in enumerate(notes):
        first = int(round(note.start * frame_rate))
        # The path may enter a note some frames before or after its attack.
        cheapest = costs[max(first - 3, 0) : first + 4].min(axis=0)[round(note.midi) - LOWEST_NOTE]
        attacks[place] = (ENTRY_COST - cheapest) / ATTACK_BONUS
    return [note for k, note in enumerate(notes) if not is_interloper(notes, attacks, k)]


def bass_notes(spectra: Spectra, frame_rate: float) -> list[Note]:
    """Notes of the lowest line, up to B3; a note counts for more the lower it lies."""
    if len(spectra.level) < 8:
        return []
    top = 60 - LOWEST_NOTE
    loud = absolute_salience(spectra)[:, :top] * np.linspace(1.2, 0.5, top)
    relative = relative_evidence(loud, frame_rate)
    # Something low sounds nearly always, so a rest is worth more than in the lead.
    notes = line_notes(spectra, relative, rest=3 * REST_SCORE, frame_rate=frame_rate)[0]
    spans = ((int(n.start * frame_rate), int((n.start + n.duration) * frame_rate)) for n in notes)
    cuts = (slice_rows(spectra, first, max(stop, first + 1)) for first, stop in spans)
    return [note for note, rows in zip(notes, cuts) if has_root(rows, note.midi)]


def bass_chroma(salience: np.ndarray) -> np.ndarray:
    """Pitch classes [n, 12] of the notes below C4, lower ones first."""
    top = 60 - LOWEST_NOTE
    return fold_chroma(salience[:, :top] * np.linspace(1.0, 0.4, top))


def unit(values: np.ndarray) -> np.ndarray:
    """Values less their mean, at length one along the last axis."""
    values = values - values.mean(axis=-1, keepdims=True)
    return values / (np.linalg.norm(values, axis=-1, keepdims=True) + 1e-9)


CHORD_NAMES = tuple(root + shape for shape in CHORD_SHAPES for root in PITCH_CLASSES)
CHORD_TONES = [np.isin(range(12), shape) for shape in CHORD_SHAPES.values()]
CHORD_TEMPLATES = unit(  # [60, 12] in the order of CHORD_NAMES, the root a little stronger
    np.array([np.roll(tones + 0.2 * np.eye(12)[0], k) for tones in CHORD_TONES for k in range(12)])
)
KEY_PROFILES = unit(  # [24, 12], major keys then minor ones
    np.array([np.roll(mode, k) for mode in (MAJOR_PROFILE, MINOR_PROFILE) for k in range(12)])
)
KEY_NAMES = [f"{name} {mode}" for mode in ("major", "minor") for name in PITCH_CLASSES]
# Likeness (0-2) that must be gained on either side of a change of key; relative and neighbouring
# keys share their notes and stay below. A bridge of two chords is no change: seconds a key lasts.
KEY_CHANGE, KEY_SECONDS = 0.9, 6


def chord_scores(salience: np.ndarray) -> np.ndarray:
    """Likeness [n, 60] of absolute salience [n, 72] to each chord: tones, bass and simplicity."""
    # What lies high counts less: there a lead plays notes foreign to the chord, and partials ring.
    middle = np.interp(LOWEST_NOTE + np.arange(NUM_NOTES), (60, 79), (1.0, 0.2))
    # Compressed, so that one strong note does not outweigh its triad.
    tones = unit(fold_chroma((salience * middle) ** 0.7)) @ CHORD_TEMPLATES.T
    bass = bass_chroma(salience)
    bass = bass / (bass.max(axis=1, keepdims=True) + 1e-9)
    # A seventh contains a triad, so it must fit better than that by what it adds in notes.
    simple = np.repeat([0.0, 0.0, -0.06, -0.1, -0.1], 12)
    return tones + 0.2 * np.tile(bass, len(CHORD_SHAPES)) + simple


def estimate_chords(
    spectra: Spectra, frame_rate: float, boundaries: Sequence[float]
) -> list[Chord]:
    """Name the chord between each two neighbours of `boundaries` (seconds, ascending).

    Parameters
    ----------
    spectra : Spectra
        Rows that begin at second 0 of the boundaries.
    frame_rate : float
        Rows a second.
    boundaries : sequence of float
        For n chords n + 1 times; chord_boundaries() finds some.

    Returns
    -------
    list of Chord
        One for each stretch, by the name N where none is clear.
    """
    # A row of silence after the end, for a stretch that begins there.
    loud = np.pad(absolute_salience(spectra), ((0, 1), (0, 0)))
    chords = []
    for start, stop in zip(boundaries, boundaries[1:]):
        first = min(int(start * frame_rate), len(spectra.level))
        last = max(min(int(stop * frame_rate), len(spectra.level)), first + 1)
        mean = loud[first:last].mean(axis=0, keepdims=True)
        score = chord_scores(mean)[0]
        other, best = np.sort(score)[-2:]
        sure = mean.max() > 1e-4 and best > 0.6
        name = CHORD_NAMES[int(score.argmax())] if sure else "N"
        confidence = float(np.clip(0.4 + 3 * (best - other), 0, 1)) if sure else 0.0
        chords.append(Chord(start, stop - start, name, confidence))
    return chords


def chord_boundaries(spectra: Spectra, frame_rate: float) -> list[float]:
    """Seconds at which the harmony changes, from the best path through chords a quarter second."""
    step = max(1, int(frame_rate / 4))
    loud = absolute_salience(spectra)
    sums = np.add.reduceat(loud, np.arange(0, len(loud), step))
    score = chord_scores(sums) * (sums.max(axis=1, keepdims=True) > 1e-4)
    # No chord is as good as one that is half alike: 2.0 of 4.
    path = melodic_path(4 * score, 2.0, np.full(score.shape, 2.5))
    edges = [start * step / frame_rate for _, start, _ in runs(path)]
    return [*edges, len(loud) / frame_rate]


def chord_evidence(chords: Sequence[Chord]) -> np.ndarray:
    """Weight of each key [24], 12 major then 12 minor, as tonic triad: first, last, longest."""
    weight = np.zeros(24)
    named = [chord for chord in chords if chord.name in CHORD_NAMES]
    total = sum(chord.duration for chord in named) + 1e-9
    for place, chord in enumerate(named):
        shape, root = divmod(CHORD_NAMES.index(chord.name), 12)
        # Pieces tend to begin and to end on their tonic.
        ends = 0.3 * (place == 0) + 0.15 * (place == len(named) - 1)
        minor = tuple(CHORD_SHAPES)[shape] in ("m", "m7")
        weight[root + 12 * minor] += chord.duration / total + ends
    return weight


def is_line(rows: Spectra) -> bool:
    """Whether rows from line_rows() hold one note at a time, mostly."""
    heard = rows.salience.max(axis=1) > 0
    single = np.sum(rows.salience[heard] > 0, axis=1) == 1
    return bool(heard.any() and np.mean(single) > 0.7)


def named_chords(rows: Spectra, frame_rate: float) -> list[Chord]:
    """Chords that sound, or that single notes spell whole, one after the other."""
    chords = estimate_chords(rows, frame_rate, chord_boundaries(rows, frame_rate))
    named = []
    for chord in chords:
        cut = slice_rows(rows, int(chord.start * frame_rate))
        cut = slice_rows(cut, 0, int(chord.duration * frame_rate) + 1)
        if chord.name == "N":
            continue
        shape, root = divmod(CHORD_NAMES.index(chord.name), 12)
        tones = np.roll(CHORD_TONES[shape], root)
        share = fold_chroma(absolute_salience(cut)).sum(axis=0)
        share = share / (share.sum() + 1e-9)
        if not is_line(cut) or (share[tones].min() > 0.08 and share[tones].sum() > 0.85):
            named.append(chord)
    return named


def lasting_part(loud: np.ndarray) -> np.ndarray:
    """Share [72] of absolute salience [T, 72] that each note has nearly all the time."""
    heard = loud[loud.max(axis=1) > 0.1 * loud.max()]
    # What a note has in seven frames of ten, so that short breaks do not end a drone.
    return np.percentile(heard / (heard.sum(axis=1, keepdims=True) + 1e-9), 30, axis=0)


def drone_notes(spectra: Spectra) -> list[int]:
    """MIDI numbers below F4 that sound nearly all the time, strongest first, at most four."""
    loud = absolute_salience(spectra)
    if len(loud) < 8 or loud.max() < 1e-4:
        return []
    low = lasting_part(loud)[: 65 - LOWEST_NOTE]
    # Semitones beside a strong note have some of its salience; only peaks are notes.
    peaks = low * local_peaks(low, 0.0)
    strong = [int(k) for k in peaks.argsort()[::-1][:4] if peaks[k] > 0.015]
    return [LOWEST_NOTE + k for k in strong if has_root(spectra, LOWEST_NOTE + k)]


def estimate_key(spectra: Spectra, frame_rate: float, *, start: float, stop: float) -> Key:
    """Key between two times in seconds, from pitch classes, bass, chords and drone added up.

    Pitch classes are held against the profiles of Krumhansl and Kessler (1982).

    Parameters
    ----------
    spectra : Spectra
        Rows of the whole sound, of which the stretch is cut.
    frame_rate : float
        Rows a second.
    start, stop : float
        Seconds.

    Returns
    -------
    Key
        Tonic and mode "none" where the stretch is under eight frames or nothing sounds in it.
    """
    cut = slice_rows(spectra, int(start * frame_rate), max(int(stop * frame_rate), 1))
    loud = absolute_salience(cut)
    if len(loud) < 8 or loud.max() < 1e-4:
        return Key("none", "none", 0.0, "none")
    bass = bass_chroma(loud).mean(axis=0)
    bass = bass / (bass.sum() + 1e-9)
    # A tonic has its fifth, and less often its fourth, beside it in the bass.
    tonic = bass + 0.5 * np.roll(bass, -7) + 0.2 * np.roll(bass, -5)
    chroma = unit(fold_chroma(loud).mean(axis=0))
    score = KEY_PROFILES @ chroma + np.tile(tonic, 2)
    score += 0.7 * chord_evidence(named_chords(cut, frame_rate))
    if is_line(cut):
        # A tune ends on its tonic more often than it begins there.
        held = np.flatnonzero(loud.max(axis=1) > 0.1 * loud.max())
        ends = loud[held[:8]].sum(axis=0), 2 * loud[held[-8:]].sum(axis=0)
        score += 0.2 * np.tile(sum(fold_chroma(end[None])[0] / end.max() for end in ends), 2)
    # What sounds nearly always may spell a triad.
    always = lasting_part(loud)
    low = np.where(np.arange(NUM_NOTES) < 65 - LOWEST_NOTE, np.sqrt(always), 0)
    likeness = np.maximum(chord_scores(low[None])[0, :24], 0)
    score += likeness * min(1.0, 8 * float(always.sum()))
    order = score.argsort()[::-1]
    names = [KEY_NAMES[k] for k in order[:2]]
    confidence = float(np.clip(0.3 + 1.2 * (score[order[0]] - score[order[1]]), 0, 1))
    return Key(*names[0].split(), confidence, names[1])


def key_change(rows: Spectra, frame_rate: float) -> tuple[float, Key, Key] | None:
    """When (s) the key changes most clearly, once, and the keys before and after; None if never."""
    size = max(1, int(frame_rate))  # rows of about a second
    seconds = pooled(fold_chroma(absolute_salience(rows)), size)
    least = math.ceil(KEY_SECONDS * frame_rate / size)
    places = np.arange(least, len(seconds) - least + 1)
    if not len(places):
        return None
    sums = np.cumsum(seconds, axis=0)[places - 1]
    # How much better each part fits its own key than the other's.
    before, after = (unit(part) @ KEY_PROFILES.T for part in (sums, seconds.sum(axis=0) - sums))
    one, other, row = before.argmax(axis=1), after.argmax(axis=1), np.arange(len(places))
    gain = np.minimum(before[row, one] - before[row, other], after[row, other] - after[row, one])
    k = int(gain.argmax())
    if gain[k] < KEY_CHANGE:
        return None
    one, other = (Key(*KEY_NAMES[key[k]].split(), 0.8, "none") for key in (one, other))
    return float(places[k] * size / frame_rate), one, other


def repeated_figure(names: Sequence[int]) -> int:
    """Length of the figure that a sequence of notes repeats, or 0."""
    for length in range(1, min(9, len(names) // 2)):
        same = [name == later for name, later in zip(names, names[length:])]
        # One note in five may be misread without hiding the figure.
        if np.mean(same) > 0.8 and len(same) >= 4:
            return length
    return 0


def binned_line(notes: Sequence[Note]) -> np.ndarray:
    """Median pitch of the line in each twelfth of its time; gaps filled, stray octaves moved."""
    middle = np.array([note.start + note.duration / 2 for note in notes])
    midi = np.array([note.midi for note in notes])
    away = midi - np.median(sliding(np.pad(midi, 2, mode="reflect"), 5), axis=1)
    midi = midi - 12 * np.where(np.abs(away) > 8, np.rint(away / 12), 0)
    place = (middle - notes[0].start) / (notes[-1].start + notes[-1].duration - notes[0].start)
    which = np.clip((12 * place).astype(int), 0, 11)
    filled = np.unique(which)
    return np.interp(np.arange(12), filled, [np.median(midi[which == k]) for k in filled])


def best_shape(course: np.ndarray) -> tuple[float, str]:
    """The ramp or tent that explains a course best: share of variance, and its words."""
    ramp, y = np.linspace(0, 1, len(course)), course - course.mean()
    bends = (0.35, 0.42, 0.5, 0.58, 0.65)  # share of the time at which a tent turns
    shapes = [ramp, *(np.minimum(ramp / top, (1 - ramp) / (1 - top)) for top in bends)]
    tents = ("arch (up then down)", "valley (down then up)")
    words = [("rising", "falling"), *[tents] * len(bends)]
    fits = []
    for shape, (up, down) in zip(shapes, words):
        x = shape - shape.mean()
        slope = float(x @ y / (x @ x + 1e-9))
        fit = float(1 - np.sum((y - slope * x) ** 2) / (y @ y + 1e-9))
        fits.append((fit, slope, up if slope > 0 else down))
    fit, _, said = max(fits)
    return fit, said


def line_contour(notes: Sequence[Note]) -> tuple[str, float]:
    """Course of a line (rising, arch, repeated ...; "" if none), and how well it fits (0-1)."""
    if len(notes) < 4:
        return "", 0.0
    names = [round(note.midi) for note in notes]
    # A note that is struck again does not move the line.
    turns = [name for name, before in zip(names, [0, *names]) if name != before]
    if len(turns) < 3:
        return f"one note repeated or held ({note_name(names[0])})", 0.9
    course = binned_line(notes)
    fit, words = best_shape(course)
    figure = repeated_figure(turns)
    if figure and fit < 0.8:
        shape = " ".join(note_name(name) for name in turns[:figure])
        return f"repeating the same short figure ({shape})", 0.9
    if fit > 0.5 and np.ptp(course) > 4:  # half of the variance, over a third or more
        return words, fit
    return "", 0.0


LOW_STRING = 52  # MIDI (E3), above which a bass line rarely goes

# The first rung that holds is said, so the most particular signs stand first and the last rung
# always holds.
STRUCK_WORDS: Ladder = (
    ("a low string, as a bass", lambda t: t.high < LOW_STRING),
    ("partials off the harmonic series, as a bell, chime or metal bar",
     lambda t: t.stray > -17 and (t.partials[0] < -8 or t.unevenness > 14)),
    ("almost pure tone with a lone high partial, as a mallet on a bar, or a harp",
     lambda t: max(t.partials[1:3]) < -23),
    ("partials uneven, comb-like, as a plucked string", lambda t: t.unevenness > 6.5),
    ("partials fall evenly, hammer-like, as a piano or guitar string", lambda t: True),
)  # fmt: skip
STEADY_WORDS: Ladder = (
    ("low notes that begin at once, as an electric or synth bass",
     lambda t: t.high < LOW_STRING and t.attack < 60),
    ("almost pure tone, as a whistle", lambda t: max(t.partials[1:3]) < -24),
    # Of a square wave the nth odd partial has 1/n of the first's amplitude: -10 and -14 dB.
    ("odd partials alone, each n-th at 1/n: a square wave, as of a synthesizer or game console",
     lambda t: t.odd_balance > 24 and abs(t.partials[0] - t.partials[2] - 9.5) < 3.5
     and abs(t.partials[0] - t.partials[4] - 14) < 4.5),
    ("odd partials dominate, as a stopped or pan flute",
     lambda t: t.odd_balance > 10 and t.partials[0] > -2),
    ("odd partials dominate, as a clarinet", lambda t: t.odd_balance > 10),
    ("octaves over the fundamental and little else, as a drawbar organ",
     lambda t: t.odd_balance < -20 and t.partials[0] > -3),
    ("dark, begins at once, as an electric piano or mellow organ",
     lambda t: t.attack < 56 and t.highs < -38 and t.partials[0] > -5),
    ("two or three partials, then a steep fall, as a flute",
     lambda t: t.partials[0] > -3.5 and t.partials[3] < -24),
    ("equally strong up to the highest partials, as a distorted guitar or buzzing synth",
     lambda t: t.octave_slope > 0.5 or (t.highs > -8 and t.octave_slope > -3)),
    ("fundamental far below its overtones, as a bassoon, oboe or trombone",
     lambda t: t.partials[0] < -9.5 and t.highs < -25),
    ("partials uneven but steady, octaves added, as organ stops or a twanging string",
     lambda t: t.unevenness > (9.5 if t.attack < 130 else 15) and t.highs > -20),
    ("many equally strong partials, brilliant, as a trumpet",
     lambda t: t.unevenness < 6 and t.highs > -13 and t.attack < 100),
    ("slow attack, airy highs, wavering level, as a bowed string or a string-like pad",
     lambda t: t.highs > -21 and t.attack > 130),
    ("dark, partials fall steeply and evenly, as a horn, a soft pad or a low bowed string",
     lambda t: t.partials[2] < -10.5 and max(t.partials[3:8]) < -15.5),
    ("strong middle partials (formant), soft attack, as a voice, low bowed string or accordion",
     lambda t: t.attack > 96),
    ("strong middle partials (formant), as a saxophone, reed or low brass", lambda t: True),
)  # fmt: skip


class LeadTimbre(NamedTuple):
    """Measured character of the lead over a stretch of its notes."""

    start: float  # seconds
    duration: float  # seconds
    low: float  # MIDI, lowest note
    high: float  # MIDI, highest note
    attack: float  # milliseconds from 10 to 90 % of the amplitude, 40 or less is instantaneous
    click: float  # dB, how far the highs stand out at the onset over what follows
    fall: float  # dB/s in the quarter second after the peak, negative is a decay
    partials: tuple[float, ...]  # dB of ten harmonics, of their sum
    stray: float  # dB of what lies between the harmonics, of their sum
    highs: float  # dB above 3 kHz, of the harmonics' sum
    share: float  # 0-1, of all power that is in the lead's harmonics
    vibrato: tuple[float, float]  # Hz, cents either side
    tremolo: tuple[float, float]  # Hz, dB either side
    swing: float  # dB, standard deviation of the level within a note
    peak: float  # Hz, where the average spectrum above 500 Hz is highest
    octave_slope: float  # dB per octave, of the harmonics

    @property
    def unevenness(self) -> float:
        """Mean second difference in dB of partials 2 to 9: how far they fall from evenly."""
        return float(np.abs(np.diff(self.partials[1:9], 2)).mean())

    @property
    def odd_balance(self) -> float:
        """Partials 3, 5, 7 over 2, 4, 6, in dB."""
        power = 10 ** (np.array(self.partials) / 10)
        return float(10 * np.log10(power[2:7:2].sum() / power[1:6:2].sum()))

    @property
    def struck(self) -> bool:
        """Whether the lead sounds at once and dies away: struck or plucked."""
        if self.attack <= 45 and self.fall <= -25:
            return True
        # What is blown or bowed short falls too, but begins more softly than it is let go.
        dies = self.fall <= -9 and self.click >= (6 if self.attack < 58 else 11)
        # A low string rings so long that its decay does not show, but the pick does.
        return (dies or self.click >= 15) and self.attack <= 130

    @property
    def reading(self) -> str:
        """What the partials say, struck or sustained."""
        return first_rung(STRUCK_WORDS if self.struck else STEADY_WORDS, self)

    @property
    def span(self) -> str:
        """Names of the lowest and the highest note."""
        return f"{note_name(self.low)}-{note_name(self.high)}"

    def apart(self, other: LeadTimbre) -> float:
        """Mean difference of the first six partials in dB."""
        return float(np.abs(np.subtract(self.partials[:6], other.partials[:6])).mean())

    @property
    def likeness(self) -> str:
        """What that sounds as."""
        return f"as {self.reading.rpartition(', as ')[2]}"

    def reads_like(self, other: LeadTimbre) -> bool:
        """Whether another stretch reads alike, so that only the register changed."""
        if self.struck != other.struck:
            return False
        apart = self.apart(other)
        # Spectra this close are one sound, even where an edge of a ladder runs between them.
        return apart < 2.5 or (apart < 9 and self.reading == other.reading)

    def words(self) -> str:
        """The stretch in numbers, then how they read."""
        body = f"falls {-self.fall:.0f} dB/s" if self.struck else "sustained"
        attack = "instant" if self.attack < 60 else "soft" if self.attack > 120 else "quick"
        (rate, cents), (beat, depth) = self.vibrato, self.tremolo
        moves = f"vibrato {rate:.1f} Hz +-{cents:.0f} cents" if cents >= 6 else "no vibrato"
        moves += f", tremolo {beat:.1f} Hz +-{depth:.1f} dB" if depth >= 1 else ""
        # What lies 60 dB below its frame was not heard (MEL_FLOOR).
        partials = " ".join(f"{value:.0f}" for value in np.maximum(self.partials[:8], -60))
        return (
            f"{self.span}, {'struck or plucked' if self.struck else 'blown, bowed or held'}: "
            f"{self.reading}; "
            f"{attack} attack {self.attack:.0f} ms (click {self.click:+.0f} dB), {body}, "
            f"level swing {self.swing:.1f} dB, {moves}; partials 1-8 at {partials} dB, "
            f"odd/even {self.odd_balance:+.0f} dB, {self.octave_slope:.0f} dB/octave, "
            f"above 3 kHz {self.highs:.0f} dB, spectrum peak {hertz_words(self.peak)}"
        )


def rise_time(amplitude: np.ndarray) -> float:
    """Frames from 10 to 90 % of the last value of an amplitude [n] that rises from its least."""
    amplitude = amplitude - amplitude.min()
    if len(amplitude) < 3 or amplitude[-1] <= 0:
        return float("nan")
    level = amplitude / amplitude[-1]
    times = []
    for share in (0.1, 0.9):
        k = int(np.flatnonzero(level < share)[-1])
        # Between frames by a straight line: 23 ms are coarse beside an attack.
        times.append(k + (share - level[k]) / max(level[k + 1] - level[k], 1e-6))
    return max(times[1] - times[0], 0.0)


NUM_TRAITS = 7  # attack, click, fall, stray, beneath, highs, share; the partials follow


def note_sound(spectra: Spectra, note: Note, frame_rate: float) -> np.ndarray:
    """Attack, click, fall ... in the order of LeadTimbre, then partials, of one note [17]."""
    first = int(round(note.start * frame_rate))
    length = max(int(round(note.duration * frame_rate)), 6)
    mel = mel_power(slice_rows(spectra, max(first - 5, 0), first + length))
    harmonics = partial_power(mel, note.midi)
    total = harmonics.sum(axis=1)
    lead = min(first, 5)
    peak = int(total[: lead + min(12, length // 2)].argmax())
    # After the peak, because the noise of pick, hammer or breath comes with the onset.
    body = slice(min(peak + 1, len(total) - 1), peak + 8)
    power = total[body].mean() + 1e-12
    reach = min(11, lead + length - 3 - peak)
    drop = decibels(total[min(peak + max(reach, 0), len(total) - 1)]) - decibels(total[peak])
    highs = mel[:, MEL_CENTRES > 3000].sum(axis=1)
    late = slice(min(peak + 6, len(total) - 1), None)
    # Bells sound between the harmonics; an octave beneath may lie the true fundamental.
    between = partial_power(mel[body], note.midi, 0.5)[:, 1:5].mean(axis=0).max()
    beneath = partial_power(mel[body], note.midi - 12)[:, 0].mean()
    traits = [
        1000 / frame_rate * rise_time(np.sqrt(total[: peak + 1])),
        decibels(highs[: peak + 4].max()) - decibels(np.median(highs[late])),
        drop * frame_rate / reach if reach > 3 else np.nan,
        decibels(between / power),
        decibels(beneath / power),
        decibels(np.median(highs[late])) - decibels(np.median(total[late])),
        min(1.0, power / (mel[body].sum(axis=1).mean() + 1e-12)),
    ]
    return np.concatenate([traits, decibels(harmonics[body].mean(axis=0) / power)])


def detrended(values: np.ndarray) -> np.ndarray:
    """Values [n] about their own parabola."""
    steps = np.arange(len(values))
    return values - np.polyval(np.polyfit(steps, values, 2), steps)


def modulation(
    tracks: Sequence[np.ndarray], frame_rate: float, response: np.ndarray
) -> tuple[float, float]:
    """Rate in Hz (4-8.5) and half swing common to tracks; the window hears `response` [65]."""
    power, weight = np.zeros(65), 1e-9
    for values in tracks:
        window = np.hanning(len(values) + 2)[1:-1]
        # Every eighth bin of 1024: the same 65 rates for notes of any length.
        spectrum = np.fft.rfft(values * window, 1024)[:520:8] / window.sum()
        power += np.abs(spectrum) ** 2 * len(values)
        weight += len(values)
    hertz = np.arange(65) * frame_rate / 128
    # Players' vibrato and tremolo lie within these rates; slower is phrasing.
    best = int(np.where((hertz >= 4) & (hertz <= 8.5), power, 0).argmax())
    share = power[best - 1 : best + 2].sum() / (power[hertz > 1.5].sum() + 1e-12)
    # What rises towards slower rates is the foot of a drift.
    if share <= 0.25 or power[best] <= power[best - 1]:
        return 0.0, 0.0
    return float(hertz[best]), float(2 * np.sqrt(power[best] / weight) / response[best])


def vibrato_response(frame_rate: float) -> np.ndarray:
    """How much of a pitch modulation at each rate [65] survives the window of 8 hops."""
    time = (np.arange(256) - 127.5) / 256 * 8 / frame_rate
    weight = np.cos(np.pi * time * frame_rate / 8) ** 2 * time
    omega = 2 * np.pi * np.maximum(np.arange(65), 0.5) * frame_rate / 128
    heard = (weight @ np.sin(np.outer(time, omega))) / (omega * (weight @ time))
    # 186 ms at hop 512 take half of a swing of 6 Hz away; no division by next to nothing.
    return np.maximum(np.abs(heard), 0.2)


def note_tracks(
    spectra: Spectra, notes: Sequence[Note], frame_rate: float
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Courses, detrended, of notes long enough to swing: cents of pitch, dB of harmonics."""
    cents, levels = [], []
    for note in notes:
        first = int(note.start * frame_rate) + 4  # what follows the attack
        stop = int((note.start + note.duration) * frame_rate)
        pitch = spectra.pitch[first : max(stop - 3, 0)]
        near = np.flatnonzero(np.abs(pitch - note.midi) < 1.2)
        # Where another voice is often the stronger one, leaps to it would count as vibrato.
        if len(pitch) >= 12 and len(near) > 0.8 * len(pitch):
            course = np.interp(np.arange(len(pitch)), near, pitch[near])
            cents.append(detrended(100.0 * course))
        rows = slice_rows(spectra, first, max(stop - 2, 0))
        if len(rows.level) >= 10:
            levels.append(detrended(harmonic_level(rows, note.midi)))
    return cents, levels


def stretch_timbre(
    spectra: Spectra, notes: Sequence[Note], *, sounds: np.ndarray, frame_rate: float
) -> LeadTimbre:
    """Character of a stretch from its notes and their sounds [n, 17]."""
    traits = [float(np.nanmedian(c)) if np.isfinite(c).any() else 0.0 for c in sounds.T]
    attack, click, fall, stray, _, highs, share = traits[:NUM_TRAITS]
    partials = tuple(traits[NUM_TRAITS:])
    start, stop = notes[0].start, notes[-1].start + notes[-1].duration
    rows = slice_rows(spectra, int(start * frame_rate), int(stop * frame_rate))
    shape = np.convolve(decibels(mel_power(rows).mean(axis=0)), [0.25, 0.5, 0.25], mode="same")
    loudest = np.where(MEL_CENTRES > 500, shape, -200).argmax()
    cents, levels = note_tracks(spectra, notes, frame_rate)
    pitches = [note.midi for note in notes]
    return LeadTimbre(
        *(start, stop - start, min(pitches), max(pitches)),
        *(attack, click, fall, partials, stray, highs, share),
        vibrato=modulation(cents, frame_rate, vibrato_response(frame_rate)),
        tremolo=modulation(levels, frame_rate, np.ones(65)),
        swing=float(np.median([np.std(track) for track in levels])) if levels else 0.0,
        peak=float(MEL_CENTRES[loudest]),
        octave_slope=float(np.polyfit(np.log2(np.arange(1, 9)), partials[:8], 1)[0]),
    )


STRETCH_PRICE = 16.0  # scaled squares that a change of lead instrument must explain
STRETCH_NOTES = 5  # that it plays at least


def change_places(rows: np.ndarray) -> list[int]:
    """Where rows [n, d] change their mean: edges of the stretches that cost least."""
    # Least squares with a price a stretch, by dynamic programming over the last 600 rows.
    count = len(rows)
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    squares = np.append(0, np.cumsum((rows**2).sum(axis=1)))
    cost, origin = np.full(count + 1, np.inf), np.zeros(count + 1, dtype=int)
    cost[0] = 0
    for stop in range(min(STRETCH_NOTES, count), count + 1):
        starts = np.arange(max(0, stop - 600), max(stop - STRETCH_NOTES, 0) + 1)
        spread = squares[stop] - squares[starts]
        spread -= ((sums[stop] - sums[starts]) ** 2).sum(axis=1) / (stop - starts)
        total = cost[starts] + spread + STRETCH_PRICE
        origin[stop] = starts[total.argmin()]
        cost[stop] = total.min()
    edges = [count]
    while edges[-1] > 0:
        edges.append(int(origin[edges[-1]]))
    return edges[::-1]


LEAD_SECONDS = 3.5  # an instrument leads at least; registers and loudness change faster


def brief_edges(parts: Sequence[LeadTimbre]) -> list[int]:
    """The edge by which the shortest stretch, if too short, is joined to its likest neighbour."""
    shortest = int(np.argmin([part.duration for part in parts]))
    if parts[shortest].duration > LEAD_SECONDS:
        return []
    beside = [k for k in (shortest, shortest + 1) if 0 < k < len(parts)]
    apart = [parts[k - 1].apart(parts[k]) for k in beside]
    return [beside[int(np.argmin(apart))]] if beside else []


def describe_foreground(
    spectra: Spectra, notes: Sequence[Note], frame_rate: float
) -> list[LeadTimbre]:
    """Measured character of the lead, a stretch for each lead instrument."""
    # Bands are 51 Hz wide: below A1 (55 Hz) they do not part the harmonics.
    notes = [note for note in notes if note.duration >= 0.12 and note.midi > 33]
    if len(notes) < 3:
        return []
    sounds = np.array([note_sound(spectra, note, frame_rate) for note in notes])
    # Stretches are parted where attack, click, decay and the balance of partials change together.
    scale = np.array([40.0, 10, 20, 15, 12, 10, 1, *np.full(NUM_LEAD_PARTIALS, 12.0)])
    traits = np.nan_to_num(sounds, nan=0.0) / scale
    # High partials are weak and easily covered by others, so they count less.
    traits[:, NUM_TRAITS:] *= np.array([1.5, 1.5, 1.5, 1, 1, 0.7, 0.5, 0.5, 0, 0])
    edges = change_places(np.clip(traits, -6, 6))

    @functools.cache
    def measured(a: int, b: int) -> LeadTimbre:
        """The stretch of the notes from a to b."""
        return stretch_timbre(spectra, notes[a:b], sounds=sounds[a:b], frame_rate=frame_rate)

    while True:
        parts = [measured(a, b) for a, b in zip(edges, edges[1:])]
        # One pair at a time: what is joined is measured anew and may be like its next neighbour.
        same = [k for k in range(1, len(parts)) if parts[k - 1].reads_like(parts[k])]
        same = same or brief_edges(parts)
        if not same:
            return parts
        edges.pop(same[0])


SPEECH_STEP, SPEECH_WINDOW = 0.5, 2.0  # seconds; a word is too short to tell by
# What a voice does within 2 s: where a sign begins to show, and where it shows fully. Each is
# lacked by some of what resembles speech; half of all is what music and noise keep below.
SPEECH_SIGNS = np.array([
    (0.09, 0.16),  # share of frames at which one pitch of 67-415 Hz slides
    (5.0, 11.0),  # dB, spread of highs against the voice band: vowels and fricatives take turns
    (4.2, 9.6),  # dB by which the spectrum changes its shape in 70 ms: formants move
    (0.10, 0.16),  # spread of tonality, for the same reason
    (0.88, 0.64),  # tonality: what is played has more
    (0.93, 0.45),  # swing of the loudness against its mean: knocks have more
    (0.83, 0.40),  # share of the power below 250 Hz: drums and engines have more
])  # fmt: skip
SPEECH_SURE, SPEECH_LEAST = 0.6, 0.48  # evidence that a stretch must reach, and must keep
SPEECH_CLEAR = 0.75  # and that it must reach where it is less than a tenth of the sound


def sliding_frames(rows: Spectra, frame_rate: float) -> np.ndarray:
    """Whether the one pitch that prevails, in the range of speaking voices, slides [T]."""
    voiced = (rows.unity > 0.5) & (rows.series > 36.5) & (rows.series < 68)  # 67-415 Hz
    # Semitones a second: slower is held, faster a leap.
    speed = np.abs(np.diff(rows.series, prepend=rows.series[:1])) * frame_rate
    return voiced & shifted(voiced, -1) & (speed > 3) & (speed < 52)


def maxima(curve: np.ndarray, depth: float) -> list[tuple[int, float]]:
    """Highs of a curve that stand `depth` above the lows beside them: index and height."""
    # A turn counts once the curve has come back by `depth`, so that ripples make no highs.
    highs: list[tuple[int, float]] = []
    low, high, rising = float(curve[0]), 0, True
    before = low
    for k, value in enumerate(curve.tolist()):
        if rising and value > curve[high]:
            high = k
        elif rising and value < curve[high] - depth:
            highs.append((high, float(curve[high]) - max(before, value)))
            low, rising = value, False
        elif not rising and value < low:
            low = value
        elif not rising and value > low + depth:
            before, high, rising = low, k, True
    if rising and curve[high] > before + depth:
        highs.append((high, float(curve[high]) - before))
    return highs


def speech_signs(spectra: Spectra, frame_rate: float) -> tuple[np.ndarray, np.ndarray]:
    """What SPEECH_SIGNS says, in the 2 s around each half second [7, n], and the frames [n]."""
    count = len(spectra.level)
    width = min(count, int(SPEECH_WINDOW * frame_rate))
    centres = np.arange(0, count, max(1, int(SPEECH_STEP * frame_rate)))
    near = np.clip(centres - width // 2, 0, count - width)[:, None] + np.arange(width)
    level = spectra.level[near]
    top = np.percentile(level, 95, axis=1, keepdims=True)
    loud = level > np.maximum(top - 25, -65)
    frames = np.maximum(loud.sum(axis=1), 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return (values * loud).sum(axis=1) / frames

    def spread(values: np.ndarray) -> np.ndarray:
        return np.sqrt(mean((values - mean(values)[:, None]) ** 2))

    slides = sliding_frames(spectra, frame_rate)
    power = mel_power(spectra)
    power = np.maximum(power, 1e-7 * power.max(initial=0) + 1e-12)
    vocal = (MEL_CENTRES > 250) & (MEL_CENTRES < 3500)
    voice, highs = (decibels(power[:, k].sum(axis=1)) for k in (vocal, MEL_CENTRES > 4000))
    shape = spectra.mel[:, (MEL_CENTRES > 250) & (MEL_CENTRES < 5000)]
    change = np.abs(shape - shifted(shape, -max(1, round(0.07 * frame_rate)))).mean(axis=1)
    around = voice[near]
    # The root of the amplitude, on which soft syllables count as well as loud ones.
    swing = 10 ** (0.025 * np.maximum(around, around.max(axis=1, keepdims=True) - 40))
    lows = power[:, MEL_CENTRES < 250].sum(axis=1)[near].sum(axis=1)
    signs = (
        (slides[near] & (level > top - 15)).mean(axis=1),
        spread((highs - voice)[near]), mean(change[near]),
        spread(spectra.tonal[near]), mean(spectra.tonal[near]),
        swing.std(axis=1) / swing.mean(axis=1),
        lows / power.sum(axis=1)[near].sum(axis=1),
    )  # fmt: skip
    return np.array(signs), centres


def covered_speech(evidence: np.ndarray, signs: np.ndarray) -> list[tuple[int, int]]:
    """Stretches of 4-20 s whose evidence [n], from signs [7, n], is weak, but alone in the sound.

    Music as loud as the voice above it hides most of the signs; without the voice it has none.
    """
    found = []
    for start, stop in runs_of(evidence > max(2.2 * np.percentile(evidence, 30), 0.17), 4):
        part = evidence[start:stop]
        rest = np.append(evidence[: max(start - 3, 0)], evidence[stop + 3 :])
        bare = len(rest) >= 10 and np.percentile(rest, 98) < 0.13  # 5 s of it
        above = part.max() > 0.25 and part.mean() > 3 * np.median(rest) if bare else False
        # What else may enter for so long, drums or strumming, lacks fricatives or moving formants.
        usual = np.median(signs[:, start:stop], axis=1)
        formants = 5 < usual[1] < 15 and usual[2] > 5 and usual[6] < 0.3
        if above and formants and 8 <= len(part) <= 40:
            found.append((start, stop))
    return found


def count_syllables(spectra: Spectra, start: int, stop: int) -> int:
    """Syllables of the frames from start to stop, if they are speech."""
    level = np.maximum(spectra.level, spectra.level.max() - 35)[start:stop]
    # A syllable has one vowel, and a vowel is a high of the level.
    return len(maxima(smooth_rows(level, 3), 4.0))


def speech_evidence(
    spectra: Spectra, frame_rate: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evidence of speech (0-1) around each half second [n], signs [7, n], and the frames [n]."""
    signs, centres = speech_signs(spectra, frame_rate)
    none, full = SPEECH_SIGNS.T[:, :, None]
    shown = np.clip((signs - none) / (full - none), 0, 1)
    # The geometric mean: what wholly lacks a sign is not saved by the others.
    return smooth_rows(np.exp(np.log(shown + 0.02).mean(axis=0)), 3), signs, centres


def sounding(rows: Spectra) -> np.ndarray:
    """Whether each frame is more than the near-silence or the noise bed between events [T]."""
    level = np.maximum(rows.level, -90)
    low, top = np.percentile(level, [5, 99])
    # A bed of noise lies under events; a tonal one is music that goes on.
    bed = level < low + 3
    tonal_bed = rows.tonal[bed].mean() > 0.45 if bed.any() else False
    # Nothing stands out of it: all of it sounds.
    if top - low < 10 or (tonal_bed and top - low < 30):
        return np.ones(len(level), dtype=bool)
    between = top - 30 if tonal_bed else low + 0.4 * (top - low)
    return level > min(top - 6, max(top - 30, between))


def spoken_words(spectra: Spectra, frame_rate: float) -> list[tuple[int, int]]:
    """First and last frame (exclusive) of words said one by one, with pauses between."""
    heard = sounding(spectra)
    words = runs_of(heard, int(0.2 * frame_rate))
    near = smooth_rows(heard.astype(float), 5) > 0
    if len(words) < 3 or near.mean() > 0.85 or near.sum() < SPEECH_WINDOW * frame_rate:
        return []
    # A voice slides in most words; of knocks, ticks and chirps hardly one does.
    slides = sliding_frames(spectra, frame_rate)
    if np.mean([slides[first:last].mean() > 0.1 for first, last in words]) < 0.6:
        return []
    # Pauses are most of what a window hears; without them the words are as speech is.
    joined = Spectra(*(rows[near] for rows in spectra))
    evidence = speech_evidence(joined, frame_rate)[0]
    return words if np.median(evidence) > SPEECH_SURE else []


BED_SECONDS, BED_DEPTH = 14.0, 45.0  # over which a bed is found; dB below the loudest at most


def bed_power(power: np.ndarray, frame_rate: float) -> np.ndarray:
    """Power [T, n] of what lies under all else for some seconds: a fifth of the time, no more."""
    thin = max(1, int(frame_rate / 10))  # rows enough to know a percentile
    rows, reach = power[::thin], max(1, int(BED_SECONDS * frame_rate / thin))
    step = max(1, reach // 7)
    lows = []
    for at in range(0, len(rows), step):
        sides = rows[max(0, at - reach) : at + 1], rows[at : at + reach]
        # A bed may stop: then what was before, or comes after, tells of it. Ends say too little.
        whole = [side for side in sides if len(side) > reach / 3] or [rows]
        lows.append(np.max([np.percentile(side, 20, axis=0) for side in whole], axis=0))
    near = np.minimum(np.arange(len(power)) / (step * thin), len(lows) - 1)
    left, part = near.astype(int), (near % 1)[:, None]
    found = np.array(lows)
    return (1 - part) * found[left] + part * found[np.minimum(left + 1, len(found) - 1)]


BED_OVER = 12.0  # dB by which an event's peak exceeds the bed
BED_TONAL, HISS_TONAL = 0.52, 0.44  # below which a bed is noise, and no babble of voices either
BED_CLEAR = (9.0, 22.0)  # dB that stand out of it, of a steady and of a swelling one


def noise_bed(spectra: Spectra, power: np.ndarray, frame_rate: float, *, most: float) -> np.ndarray:
    """Power [T, 64] of what goes on under a sound's own, 0 where that is more tonal than `most`."""
    bed = bed_power(power, frame_rate)
    # Noise swings about its mean, so more than its lower fifth belongs to it.
    quiet = (power.sum(axis=1) < 2.5 * bed.sum(axis=1)).astype(float)
    width = 2 * int(BED_SECONDS * frame_rate / 2) + 1
    known = smooth_rows(quiet, width)
    tonal = smooth_rows(spectra.tonal * quiet, width) / (known + 1e-9) + (known < 0.05)
    loud = bed.sum(axis=1) > max(10**-7.5, 10 ** (spectra.level.max() / 10 - BED_DEPTH / 10))
    return bed * (loud & (tonal < most))[:, None]


class Bedded(NamedTuple):
    """A sound less the noise that goes on under it; no rows where there is no such noise."""

    rows: Spectra
    clear: np.ndarray  # [T] bool, whether something stands out of the noise
    bed: np.ndarray  # [T] dBFS, the noise

    @property
    def veils(self) -> bool:
        """Whether the noise is alone for a good part of the time."""
        # What little time music leaves to the noise of its room is less.
        return len(self.clear) > 0 and float(self.clear.mean()) < 0.65


def without_bed(spectra: Spectra, frame_rate: float, most: float = BED_TONAL) -> Bedded:
    """Rows less the noise that goes on under them, and which of them stand out of it."""
    none = Bedded(slice_rows(spectra, 0, 0), np.zeros(0, dtype=bool), np.zeros(0))
    # In less, the pauses of one sound would pass for a bed.
    if len(spectra.level) <= 10 * frame_rate:
        return none
    power = mel_power(spectra)
    bed = noise_bed(spectra, power, frame_rate, most=most)
    if np.mean(bed > 0) < 0.25:
        return none
    floor = 10 ** (spectra.level.max() / 10 - 4.5) / N_MELS
    above = np.maximum(power - 1.6 * bed, 0.02 * bed + 0.1 * floor)
    # In a few bands at least: of what is narrow little is added to the whole.
    heard = [np.add.reduceat(x, BAND_STARTS, axis=1) for x in (power, np.maximum(bed, floor))]
    over = decibels(smooth_rows(heard[0], 3) / heard[1])
    # Gusts and breakers stand out too, so as much more is asked as they do.
    noise = over[(bed[:, 0] > 0) & (spectra.tonal < 0.5)]
    usual = np.percentile(noise, 80, axis=0) if len(noise) else np.zeros(over.shape[1])
    clear = (over > np.clip(usual + 5, *BED_CLEAR)).any(axis=1)
    level = decibels(above.sum(axis=1))
    under = decibels(bed.sum(axis=1) + 1e-12)
    clear &= level > under - 3
    tonal = np.minimum(spectra.tonal * power.sum(axis=1) / above.sum(axis=1), 1.0)
    rows = spectra._replace(mel=decibels(above) - level[:, None], level=level, tonal=tonal)
    # Soft notes under loud ones are no noise, though their quietest moments may be.
    noise = clear.mean() < 0.99 and spectra.tonal[~clear].mean() < 0.6
    return Bedded(rows, clear, under) if noise and clear.mean() > 0.01 else none


def clear_speech(evidence: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Runs of evidence [n] of speech, `least` or more of them, that are sure somewhere."""
    # Evidence is weak where a speaker takes a breath.
    spans = [(a, b) for a, b in runs_of(evidence > SPEECH_LEAST, 4) if b - a >= least]
    sure = [(a, b) for a, b in spans if evidence[a:b].max() > SPEECH_SURE]
    # A little of what is but alike, in much else, is no speech.
    few = sum(b - a for a, b in sure) < 0.1 * len(evidence)
    return [] if few and evidence.max() < SPEECH_CLEAR else sure


def fluent_speech(spectra: Spectra, frame_rate: float) -> list[tuple[int, int]]:
    """First and last frame (exclusive) of stretches of 2 s or more in which somebody speaks."""
    if not len(spectra.level):
        return []
    evidence, signs, centres = speech_evidence(spectra, frame_rate)
    step = centres[1] if len(centres) > 1 else len(spectra.level)
    spans = clear_speech(evidence, least=SPEECH_WINDOW * frame_rate / step - 1)
    spans = spans or covered_speech(evidence, signs)
    cuts = [(int(a * step), int(min(b * step, len(spectra.level)))) for a, b in spans]
    # Speech has three to six syllables a second; a slow line played with swells has one.
    return [
        cut for cut in cuts if count_syllables(spectra, *cut) * frame_rate > 1.4 * (cut[1] - cut[0])
    ]


def speech_spans(spectra: Spectra, frame_rate: float) -> list[tuple[int, int]]:
    """First and last frame (exclusive) of stretches in which somebody speaks: 2 s, or words."""
    if not len(spectra.level):
        return []
    said = fluent_speech(spectra, frame_rate) or spoken_words(spectra, frame_rate)
    return said or fluent_speech(without_bed(spectra, frame_rate, HISS_TONAL).rows, frame_rate)


def ridge(rows: Spectra) -> tuple[np.ndarray, np.ndarray]:
    """Strongest spot of the mel spectrum: MIDI number with fraction, and its share of power [T]."""
    # The window of the mel rows is half as long as that of the pitch: they follow a fast siren.
    power = 10 ** (rows.mel / 10)
    near = np.clip(power.argmax(axis=1)[:, None] + np.arange(-2, 3), 0, N_MELS - 1)
    around = np.take_along_axis(power, near, axis=1)
    hertz = (around * MEL_CENTRES[near]).sum(axis=1) / around.sum(axis=1)
    return 69 + 12 * np.log2(hertz / 440), around.sum(axis=1) / power.sum(axis=1)


def spoken_frames(spectra: Spectra, frame_rate: float) -> np.ndarray:
    """Whether each frame [T] lies in a stretch in which somebody speaks."""
    spoken = np.zeros(len(spectra.level), dtype=bool)
    for start, stop in speech_spans(spectra, frame_rate):
        spoken[start:stop] = True
    return spoken


def gliding_tone(
    rows: Spectra, frame_rate: float
) -> tuple[int, np.ndarray, tuple[float, float]] | None:
    """First frame and course [n] in MIDI of the one tone that sounds, if it glides; else None.

    The third are Hz and half swing in cents of its vibrato. A melody moves in steps and rests
    between; even where its player slides from note to note, the slide is over in half a second.
    """
    loud = loud_frames(rows, 30, -65)
    alone = loud & (rows.unity > 0.8) & (rows.series > 0)
    frames = np.flatnonzero(alone)
    # A tone that wind or engine noise covers for most of the time may still be followed.
    if len(frames) < frame_rate or len(frames) < 0.3 * loud.sum():
        return None
    pitch = np.interp(np.arange(frames[0], frames[-1] + 1), frames, rows.series[frames])
    alone = alone[frames[0] : frames[-1] + 1]
    # Twice, over about one swing of a vibrato, so that nothing is left of it.
    course = smooth_rows(smooth_rows(pitch, round(frame_rate / 6)), round(frame_rate / 5))
    speed = np.diff(course, append=course[-1:])
    way = np.where(np.abs(speed) * frame_rate < 0.65, 0, np.sign(speed)).astype(int)
    far = 0.0
    for turn, start, stop in runs(way):
        reach = abs(course[stop - 1] - course[start])
        if not turn or stop - start < 0.7 * frame_rate or reach < 2.5:
            continue
        near = pitch[max(start - 1, 0) : stop]
        rests = np.abs(near[4:] - near[:-4]) < 0.06
        leaps = np.abs(near[2:] - near[:-2]) > 1.6
        if alone[start:stop].mean() > 0.7 and rests.mean() < 0.3 and not leaps.any():
            far += reach
    if far < 5 or far < 0.5 * np.abs(speed).sum():
        return None
    # In parts of about a second, in which a vibrato keeps its rate.
    waves = np.array_split(100 * (pitch - course), max(1, round(len(pitch) / frame_rate)))
    swing = modulation(waves, frame_rate, vibrato_response(frame_rate))
    return int(frames[0]), course, swing


def turning_points(course: np.ndarray) -> list[int]:
    """Indices between which straight lines keep within a semitone of a course (Douglas, 1973)."""
    line = np.linspace(course[0], course[-1], len(course))
    worst = int(np.abs(course - line).argmax())
    if abs(course[worst] - line[worst]) < 1 or worst in (0, len(course) - 1):
        return [0, len(course) - 1]
    return turning_points(course[: worst + 1])[:-1] + [
        worst + k for k in turning_points(course[worst:])
    ]


def glide_observation(rows: Spectra, start: float, frame_rate: float) -> Observation | None:
    """Where one tone that glides begins, turns and ends, and what it is like."""
    glide = gliding_tone(rows, frame_rate)
    if glide is None:
        return None
    first, course, (rate, cents) = glide
    points = turning_points(course)
    # The third to the sixth harmonic: a whistle or theremin has little there.
    rich = np.median(rows.partials[first : first + len(course), 2:6].max(axis=1)) > -25
    likeness = "as of an engine changing speed" if rich else "like a slide whistle"
    if cents > 15:
        source = "voice- or string-like" if rich else "theremin- or whistle-like"
        likeness = f"with vibrato {rate:.1f} Hz +-{cents:.0f} cents, {source}"
    total = float(course[-1] - course[0])
    moved = f"{'climbs' if total > 0 else 'falls'} steadily in pitch by {abs(total):.0f} semitones"
    steady = abs(total) > 0.9 * np.abs(np.diff(course[points])).sum()
    way = moved if steady else "rises and falls in pitch"
    kind = "one harmonic buzz" if rich and not cents > 15 else "one tone"
    hertz = to_hertz(course).tolist()
    turns = tuple((start + (first + k) / frame_rate, hertz[k]) for k in points)
    shown = ", ".join(f"{hz:.0f} Hz {at:.1f} s" for at, hz in turns[:12])
    text = f"{kind} {way} without steps, {likeness}: {shown}"
    slide = Slide(min(hertz), max(hertz), 0.0, turns)
    return Observation("glide", start, len(rows.level) / frame_rate, slide, 0.8, text)


class Manner(NamedTuple):
    """How pitch behaves over a span of frames; shares are of the frames that sound."""

    loud: float  # share of frames that sound
    tonal: float  # 0-1
    alone: float  # share of frames that one harmonic series explains
    salience: float  # 0-1
    glide: float  # share of steps between a twelfth of a semitone and a tone and a half
    jump: float  # share of greater steps
    spread: float  # dB, standard deviation of the level
    flow: float  # share of frames at which one strong ridge slides on without a leap


def pitch_manner(rows: Spectra, floor: float) -> Manner:
    """Measure how pitch behaves in some rows, where they are louder than `floor` dBFS."""
    loud = loud_frames(rows, 35, floor)
    if not loud.any():
        return Manner(0, 0, 0, 0, 0, 0, 0, 0)
    held = loud & (rows.pitch > 0)
    steps = np.abs(np.diff(rows.pitch))[held[1:] & held[:-1]]
    # Where no pitch is held for two frames it counts as leaping.
    steps = steps if len(steps) else np.array([9.0])
    spot, share = ridge(rows)
    moves = np.diff(spot, prepend=spot[0])
    flows = (np.abs(moves) > 0.05) & (np.abs(moves) < 3) & (share > 0.6)
    # Two frames apart, because neighbours share most of their window.
    onward = np.sum(moves[2:] * moves[:-2]) / (np.sum(moves**2) + 1e-9)  # 1 where it keeps on
    wide = np.ptp(np.percentile(spot[loud], (5, 95))) > 4
    measured = (
        loud.mean(), np.median(rows.tonal[loud]), np.mean(rows.unity[loud] > 0.8),
        np.median(rows.salience.max(axis=1)[loud]),
        np.mean((steps > 0.08) & (steps < 1.5)), np.mean(steps >= 1.5),
        rows.level[loud].std(),
        np.mean(flows[loud]) if onward > 0.6 and wide else 0.0,
    )  # fmt: skip
    return Manner(*map(float, measured))


MANNERS: Ladder = (
    ("silence", lambda m: m.loud == 0),
    # A sweep has two rungs: a ridge slides on even where no pitch is found; or the pitch does.
    ("sweep", lambda m: m.flow > 0.7 and m.spread < 5),
    ("noise", lambda m: m.jump >= 0.4 and m.salience < 0.25),
    ("noise", lambda m: m.tonal < 0.4 and m.glide < 0.5),
    ("sweep", lambda m: m.glide >= 0.5 and m.jump < 0.05 and m.spread < 5),
    ("hits", lambda m: m.glide >= 0.5 and (m.alone < 0.6 or m.spread > 5)),
    ("hits", lambda m: m.salience < 0.25 and m.tonal < 0.7),
    ("notes", lambda m: True),
)


def bridged(names: Sequence[str]) -> list[str]:
    """Names of manners with pauses and stray steps inside a voice, or music, made one with it."""
    names = list(names)
    for middle in ("voice", "notes"):
        for gap in (1, 2):
            for k in range(1, len(names) - gap):
                inside = names[k : k + gap]
                ends = names[k - 1] == names[k + gap] == middle
                alone = middle == "notes" and gap == 1  # two seconds of something else in music
                if ends and (alone or not set(inside) & {"voice", "notes", "sweep"}):
                    names[k : k + gap] = [middle] * gap
    return names


def pitch_stretches(spectra: Spectra, frame_rate: float) -> list[tuple[str, int, int]]:
    """Manner of pitch and its frames, stretch by stretch, in steps of two seconds.

    Where somebody speaks it is a voice, whatever else sounds.
    """
    step = int(2 * frame_rate)
    count = max(1, round(len(spectra.level) / step))
    edges = [*(k * step for k in range(count)), len(spectra.level)]
    floor = max(float(np.max(spectra.level)) - 45, SILENCE)
    whole = first_rung(MANNERS, pitch_manner(spectra, floor))
    parts = [slice_rows(spectra, a, b) for a, b in zip(edges, edges[1:])]
    names = [first_rung(MANNERS, pitch_manner(part, floor)) for part in parts]
    spoken = np.add.reduceat(spoken_frames(spectra, frame_rate), edges[:-1]) > 0.4 * step
    names = np.where(spoken, "voice", names).tolist()
    # Two seconds say less than the whole; in up to 16 s, half of them agreeing is enough.
    if not spoken.any() and count <= 8 and 2 * names.count(whole) >= count - names.count("silence"):
        names = [name if name == "silence" else whole for name in names]
    kinds = sorted(set(names := bridged(names)))
    path = np.array([kinds.index(name) for name in names])
    return [(kinds[kind], edges[a], edges[b]) for kind, a, b in runs(path)]


def sweep_cycle(midi: np.ndarray, frame_rate: float) -> float:
    """Seconds of one up-and-down of a pitch course [n], 0 if it does not repeat."""
    size = len(midi)
    track = midi - midi.mean()
    lags = np.fft.irfft(np.abs(np.fft.rfft(track, 2 * size)) ** 2)[:size] / np.arange(size, 0, -1)
    # The longest lags are means of few products.
    lags = lags[: int(0.75 * size)] / (lags[0] + 1e-9)
    # The peak at lag 0 ends where likeness first falls below zero; a cycle is looked for after.
    below = np.flatnonzero(lags < 0)
    if not len(below) or lags[below[0] :].max() < 0.5:
        return 0.0
    first = below[0] + np.flatnonzero(local_peaks(lags[below[0] :], 0.8 * lags[below[0] :].max()))
    guess = float(first[0]) if len(first) else float(below[0] + lags[below[0] :].argmax())
    # A lag is whole frames; the wave that fits the whole course best is not.
    periods = guess * np.linspace(0.9, 1.1, 81)
    waves = np.exp(2j * np.pi * np.arange(size) / periods[:, None])
    return float(periods[np.abs(waves @ track).argmax()]) / frame_rate


def percentile_hertz(midi: np.ndarray, *ranks: float) -> list[float]:
    """Frequencies in Hz at percentiles of MIDI numbers."""
    return [float(to_hertz(np.percentile(midi, rank))) for rank in ranks]


def sweep_observation(rows: Spectra, start: float, frame_rate: float) -> Observation:
    """A siren or glide: its lowest and highest pitch, its cycle or direction."""
    midi = ridge(rows)[0]
    low, high = percentile_hertz(midi, 1, 99)
    cycle, seconds = sweep_cycle(midi, frame_rate), len(midi) / frame_rate
    part = max(1, len(midi) // 5)
    ends = midi[-part:].mean() - midi[:part].mean()
    course = "rising" if ends > 1 else "falling" if ends < -1 else "without a regular cycle"
    if cycle:
        course = f"one full up-and-down cycle every {cycle:.1f} s ({seconds / cycle:.1f} cycles)"
    text = f"pitch glides without steps, siren-like, {low:.0f}-{high:.0f} Hz, {course}"
    return Observation("sweep", start, seconds, Slide(low, high, cycle), 0.9, text)


def tone_observation(rows: Spectra, start: float, frame_rate: float) -> Observation | None:
    """One steady tone, or a few pure ones together; None where notes sound."""
    loud = loud_frames(rows, 30, SILENCE) & (rows.pitch > 0)
    midi = np.asarray(rows.pitch[loud], dtype=np.float64)
    span = (start, len(rows.level) / frame_rate)
    if len(midi) < 4:
        return None
    middle = float(np.median(midi))
    if np.mean(np.abs(midi - middle) < 0.5) < 0.95:
        return None
    pure = np.median(rows.partials[loud][:, 1:].max(axis=1)) < -25
    salience = np.median(rows.salience[loud], axis=0)
    peaks = (widened(salience[None])[0] == salience) & (salience > 0.6 * salience.max())
    notes = (LOWEST_NOTE + np.flatnonzero(peaks)).tolist()
    if np.median(rows.unity[loud]) > 0.75:
        hz = float(to_hertz(middle))
        # Below 200 Hz a whole hertz is 9 cents or more, so a decimal is written.
        words = f"{hz:.{int(hz < 200)}f} Hz ({note_name(middle)})"
        text = f"one {'pure tone' if pure else 'tone with partials'} only, steady at {words}"
        return Observation("tone", *span, (hz,), 0.95, text)
    # One series does not explain what sounds: of partials that would be a chord.
    if not pure or len(notes) < 2:
        return None
    names = " ".join(map(note_name, notes))
    text = f"{len(notes)} pure tones together, steady, near {names}"
    return Observation("tone", *span, tuple(map(to_hertz, notes)), 0.8, text)


UNPITCHED = {
    "silence": "silence throughout: no pitch", "noise": "unpitched: noise, no tone stands out",
    "hits": "unpitched hits: short sounds, no steady pitch, no melody",
}  # fmt: skip
# Notes or chords that a short page names, and those that a long one tells with their times.
SHORT_LIST, MOST_NOTES, MOST_BASS, MOST_CHORDS = 16, 48, 24, 32


def told(kind: str, span: tuple[float, float], parts: Sequence[Any], text: str) -> Observation:
    """So many notes or chords, in words, with their mean confidence; in short by their names."""
    what = "chords" if kind == "chords" else f"{kind} notes"
    names = [p.name if kind == "chords" else note_name(p.midi) for p in parts]
    more = " …" if len(names) > SHORT_LIST else ""
    short = f"{what} in order: {' '.join(names[:SHORT_LIST])}{more}"
    sure = float(np.mean([p.confidence for p in parts]))
    if kind == "chords":  # of lists with a mean fit of 0.7, half are right for most of the time
        sure = float(np.clip(2.2 * sure - 1.05, 0.2, 0.95))
    return Observation(kind, *span, tuple(parts), sure, text, short)


def note_list(notes: Sequence[Note], most: int) -> str:
    """Notes as start:name~seconds, the first `most` of them."""
    words = [f"{n.start:.2f}:{note_name(n.midi)}~{n.duration:.2f}" for n in notes[:most]]
    more = len(notes) - most
    return " ".join(words) + (f" and {more} more" if more > 0 else "")


def lead_observations(spectra: Spectra, notes: Sequence[Note], frame_rate: float) -> Findings:
    """Notes, contour and character of the lead, a stretch for each lead instrument."""
    found = []
    for part in describe_foreground(spectra, notes, frame_rate):
        span = (part.start, part.duration)
        line = [note for note in notes if part.start <= note.start < part.start + part.duration]
        course, fit = line_contour(line)
        found.append(Observation("timbre", *span, part, part.share, part.words()))
        if course:
            found.append(Observation("contour", *span, course, fit, f"lead line: {course}"))
        found.append(told("lead", span, line, f"lead notes {note_list(line, MOST_NOTES)}"))
    return found


def ground_observations(rows: Spectra, frame_rate: float, *, span: tuple[float, float]) -> Findings:
    """What sounds under a lead: a drone, and the notes of the bass; `span` is (s, s)."""
    found = []
    drone = tuple(sorted(drone_notes(rows)))
    if drone and span[1] > 3:  # seconds; in less, any held note would be one
        names = " ".join(map(note_name, drone))
        text = f"sounds nearly throughout, beneath (drone, pad, pedal or recurring root): {names}"
        found.append(Observation("drone", *span, drone, 0.6, text))
    bass = [note._replace(start=note.start + span[0]) for note in bass_notes(rows, frame_rate)]
    if len(bass) >= 2:
        found.append(told("bass", span, bass, f"bass {note_list(bass, MOST_BASS)}"))
    return found


def harmony_observations(
    spectra: Spectra, frame_rate: float, *, start: float, stop: float
) -> Findings:
    """Key, drone, chords and bass between two times in seconds, where each is clear."""
    span = (start, stop - start)
    key = estimate_key(spectra, frame_rate, start=start, stop=stop)
    if key.mode == "none":
        return []
    text = f"key {key.name} (or {key.runner_up})"
    found = [Observation("key", *span, key, key.confidence, text)] if span[1] > 4 else []
    rows = slice_rows(spectra, int(start * frame_rate), int(stop * frame_rate))
    if change := key_change(rows, frame_rate):
        at, keys = change[0], change[1:]
        names = f"{keys[0].name} before, {keys[1].name} after"
        text = f"key changes at about {start + at:.0f} s: {names}"
        found = [Observation("key", *span, keys, 0.8, text)]
    line = is_line(rows)
    chords = [chord._replace(start=start + chord.start)
              for chord in named_chords(rows, frame_rate) if chord.duration >= 0.4]  # fmt: skip
    # A few notes of a melody spell a chord by chance.
    if sum(chord.duration for chord in chords) > (0.6 * span[1] if line else 0):
        names = " ".join(f"{chord.start:.1f}:{chord.name}" for chord in chords[:MOST_CHORDS])
        words = "chords, broken into single notes," if line else "chords"
        found.append(told("chords", span, chords, f"{words} {names}"))
    return found if line else found + ground_observations(rows, frame_rate, span=span)


def unclear_texture(spectra: Spectra, places: Sequence[slice], start: float) -> Findings:
    """That it is not clear whether one line or several notes sound in some frames, if it is not."""
    level, unity = (np.concatenate([r[p] for p in places]) for r in (spectra.level, spectra.unity))
    loud = level > np.percentile(level, 95) - 25
    # Of chords one series explains little, and nearly all of a line.
    if np.mean(unity[loud]) < RINGING_UNITY:
        return []
    text = "one line whose notes ring on, broken chords, or a few notes at once: not clear which"
    return [Observation("texture", start, 0.0, None, 0.5, text)]


def texture_observations(
    spectra: Spectra, alone: np.ndarray, music: Sequence[tuple[float, float]], frame_rate: float
) -> Findings:
    """Whether one note at a time sounds in the music (start, stop in s), several, or each when."""
    places = [slice(int(start * frame_rate), int(stop * frame_rate)) for start, stop in music]
    cuts = [alone[place] for place in places]
    share = float(np.mean(np.concatenate(cuts))) if cuts else 0.0
    if share < 0.1:
        return unclear_texture(spectra, places, music[0][0]) if cuts else []
    spans = [
        f"{start + first / frame_rate:.0f}-{start + last / frame_rate:.0f} s"
        for (start, _), cut in zip(music, cuts)
        for state, first, last in runs(cut)
        if state and last - first > 3 * frame_rate
    ]
    if not spans:
        return []
    when = "" if share > LONE_SHARE else f" {', '.join(spans)}, several notes at once otherwise"
    text = f"one note at a time: a single line alone{when}"
    return [Observation("texture", music[0][0], 0.0, share, 0.8, text)]


def read_stretch(
    spectra: Spectra, kind: str, frames: tuple[int, int], frame_rate: float
) -> Observation | None:
    """The one tone, steady, gliding or swept, that a stretch of such a manner is; else None."""
    if kind not in ("sweep", "notes"):
        return None
    rows, start = slice_rows(spectra, *frames), frames[0] / frame_rate
    other = sweep_observation if kind == "sweep" else tone_observation
    return glide_observation(rows, start, frame_rate) or other(rows, start, frame_rate)


def unpitched_observations(
    stretches: Sequence[tuple[str, int, int]], frame_rate: float
) -> Findings:
    """Where noise and hits have no pitch, a line each; of silence only if there is nothing else."""
    found = []
    for kind, text in UNPITCHED.items():
        parts = [(a / frame_rate, b / frame_rate) for name, a, b in stretches if name == kind]
        if not parts or (kind == "silence" and len(parts) < len(stretches)):
            continue
        if len(stretches) > 1:
            text += f" ({', '.join(f'{a:.0f}-{b:.0f}' for a, b in parts[:6])} s)"
        length = sum(b - a for a, b in parts)
        found.append(Observation("pitch", parts[0][0], length, kind, 0.8, text))
    return found


def pitch_observations(spectra: Spectra, frame_rate: float) -> Findings:
    """All that is to be said of pitch: notes, key, chords, instruments, voices, tones, sweeps.

    Parameters
    ----------
    spectra : Spectra
        Rows of the whole sound.
    frame_rate : float
        Rows a second.

    Returns
    -------
    list of Observation
        In order of time; empty for no rows.
    """
    if not len(spectra.level):
        return []
    # What moves as one tone from first to last is told by its course; it has no notes.
    if gliding_tone(spectra, frame_rate):
        cyclic = sweep_cycle(ridge(spectra)[0], frame_rate) > 0
        return [sweep_observation(spectra, 0.0, frame_rate)] if cyclic else []
    stretches = pitch_stretches(spectra, frame_rate)
    found, music = unpitched_observations(stretches, frame_rate), []
    for kind, first, last in stretches:
        if one := read_stretch(spectra, kind, (first, last), frame_rate):
            found.append(one)
        elif kind == "notes":
            music.append((first / frame_rate, last / frame_rate))
    if not music:
        return found
    # Over the whole sound, since evidence is weighed against its surroundings; cut afterwards.
    alone = alone_frames(spectra)
    notes = foreground_notes(spectra, frame_rate, alone=alone)
    notes = [n for n in notes if any(start - 0.1 <= n.start < stop for start, stop in music)]
    rows = line_rows(spectra, alone)
    found += texture_observations(spectra, alone, music, frame_rate)
    for start, stop in music:
        found += harmony_observations(rows, frame_rate, start=start, stop=stop)
    found += lead_observations(spectra, notes, frame_rate)
    return sorted(found, key=lambda one: one.time)


# Rhythm, events and form: what happens when, told from rows of Spectra alone.

HIT_EDGES = (0, 2, 5, 10, 20, 32, 44)  # mel bands from which sub, body, ... high and air begin
SUB, BODY, MIDS, AIR = 0, 1, 3, 6  # places among them
BEATS = np.geomspace(0.28, 1.6, 400)  # seconds, periods tried as a beat
BEAT_PRIOR = np.exp(-0.5 * (np.log2(BEATS / 0.55) / 0.9) ** 2)  # beats near 110 a minute are felt
FASTEST = 0.362  # s, of 166 a minute
METRES = (  # of 2, 3, 4 beats: lags at which beats are alike, and those at which they are not
    ([2, 4, 6], [1, 3, 5]), ([3, 6], [1, 2, 4, 5]), ([4, 8], [1, 2, 3, 5, 6, 7]),
)  # fmt: skip
# Of low, middle, high bands and pitch: highs alone show a hat under a band.
ATTACK_WEIGHTS = np.array([0.4, 0.3, 0.6, 0.4])
MEL_OCTAVES = np.log2(MEL_CENTRES)
STEP = 0.1  # s, grid on which loudness is followed
PAUSE_SECONDS, MOST_PAUSES = 0.7, 4  # of a silence that is told, and how many are
PAUSE_LEVEL, PAUSE_DEPTH = -55, 30  # dBFS, and dB under the typical level, that it stays below
LOUDER = 1.5  # dB above all others, to be called the loudest
FADE_SECONDS, FADE_DEPTH = 4.0, 12.0  # of a fade at an end; dB under the typical level there
LEVEL_SECONDS = 9.0  # of a sound whose levels are told one by one
CLEAR = 0.3  # clarity from which boundaries are told; noise that wanders stays below
HIT_WORDS = {
    "kick-like": "low thump", "snare-like": "body + noise burst", "hat-like": "short high noise",
    "tom-like": "low, falling pitch", "cymbal-like": "long high noise",
    "hand-drum-like": "broad attack, dies at once",
}  # fmt: skip
PHRASE, CHIRP, KNOCK = "speech-like phrase", "chirp", "knock-like sound"
METALLIC = {"hat-like", "cymbal-like"}  # of HIT_WORDS
KIT_HITS = {"kick-like", "snare-like", "tom-like", "cymbal-like"}  # few things else sound so
WHISPER = "whisper-like (unvoiced speech) noise"
STOPS = "attacks stop"  # a change that is not of drums
PERCUSSION = "drums or other percussion alone"  # in the course of a sound
SHORT = (KNOCK, "short rough burst", CHIRP)  # each may differ from the next


class Onset(NamedTuple):
    """A beginning: when, how strong, and what its first 200 ms are like."""

    time: float  # s
    strength: float  # dB, mean rise over the bands
    kind: str  # in HIT_WORDS, or "click-like", "note-like" or "other"
    centre_hz: float  # of the power that came in
    pitched: bool  # whether a new note begins with it
    metal: bool = False  # whether it is one of the bursts of find_metal()


class Pulse(NamedTuple):
    """A steady beat from `start` to `stop` (s), and the beat that is second best."""

    bpm: float
    confidence: float  # 0-1
    rival: float  # bpm of the half or double tempo that fits next best
    metre: int  # 2, 3 or 4 beats a bar, 6 for two beats of three, 0 where accents do not say
    metre_confidence: float  # 0-1
    start: float
    stop: float


class Event(NamedTuple):
    """A sounding stretch between near-silences, or one that stands out of its bed."""

    start: float  # s
    stop: float  # s
    peak: float  # dBFS
    timbre: np.ndarray  # [64] mean share of compressed loudness
    character: str  # words
    hz: float  # of a steady or median pitch, 0 where there is none
    manner: str = ""  # how it begins, goes on and ends, and where it lies, in words

    def frames(self, frame_rate: float) -> tuple[int, int]:
        """Its first frame, and the frame after its last."""
        return int(self.start * frame_rate), int(self.stop * frame_rate)


class Form(NamedTuple):
    """Sections: where each begins (s) and which repeat (the same letter)."""

    starts: tuple[float, ...]
    letters: str
    clarity: float  # 0-1, how much nearer like sections are than unlike ones

    def spans(self, end: float) -> tuple[Stretch, ...]:
        """Each section by its letter, the last one up to `end` (s)."""
        return tuple(map(Stretch, self.starts, (*self.starts[1:], end), self.letters))


class Strike(NamedTuple):
    """What tells hits apart: the first 200 ms of what came in."""

    bands: np.ndarray  # [7] dB, shares of sub, body, lows, mids, presence, highs and air
    rises: np.ndarray  # [4] dB, as in attack_curves
    falls: list[float]  # [3] dB lost within 150 ms by lows, highs, and all
    tonal: float  # 0-1
    unity: float  # 0-1, share of what then sounds that is one harmonic series
    note: bool  # whether that series begins here and keeps its pitch
    drop: float  # semitones by which a low pitch falls
    centre_hz: float

    @property
    def hiss(self) -> bool:
        """Whether noise came in that lies at the top of what is heard, as metal's does."""
        presence, highs, air = self.bands[4:]
        # Some hats are many tones (the TR-808's six squares), but of no one pitch.
        noisy = self.tonal < 0.7 or (self.unity < 0.35 and self.centre_hz > 2500)
        # A saw's stroke or a breath still grows.
        if noisy and self.falls[1] > 0 and 10 ** (highs / 10) + 10 ** (air / 10) > 0.5:
            return True
        # Over other instruments the tilt tells: a string's click falls towards the top, and a
        # bell's one partial stands far above the band below it, and rings.
        tilted = air > max(presence + 3, highs + 2) and (air < highs + 14 or self.falls[1] > 10)
        return tilted and air > -17 and self.rises[2] > 4 and self.falls[1] > 3


def mean_db(level: np.ndarray) -> float:
    """Level in dB of the mean power."""
    return float(decibels(np.mean(10 ** (level / 10)) + 1e-12)) if len(level) else LEVEL_FLOOR


def loud_mean(values: np.ndarray, level: np.ndarray) -> float:
    """Mean weighted by loudness, from levels in dB."""
    return float(np.average(values, weights=10 ** (level * 0.025)))


def absolute_mel(spectra: Spectra) -> np.ndarray:
    """Level of each mel band [T, 64] in dBFS, floored 70 dB below the loudest."""
    absolute = spectra.mel + spectra.level[:, None]
    # Without a floor the dither of a pause would rise as far as a note does.
    return np.maximum(absolute, max(absolute.max(initial=LEVEL_FLOOR) - 70, -95.0))


def pitch_steps(spectra: Spectra) -> np.ndarray:
    """Where a held pitch gives way to another without an attack [T], in dB (12 if cleanly)."""
    windows = sliding(np.pad(spectra.pitch, 7, mode="edge"), 5)
    held = np.median(windows, axis=1)
    steady = (np.abs(windows - held[:, None]).mean(axis=1) < 0.35) & (held > 0)
    # Octaves do not count: the fundamental of one note may be heard an octave off.
    width = np.abs((np.abs(held[10:] - held[:-10]) + 6) % 12 - 6)
    # What was struck settles in pitch as it rings.
    ringing = shifted(spectra.level, 5) < shifted(spectra.level, -5) - 2
    clear = steady[:-10] & steady[10:] & (width > 0.7) & (spectra.tonal > 0.5) & ~ringing
    return 12 * smooth_rows(clear.astype(float), 5)


def attack_curves(spectra: Spectra) -> np.ndarray:
    """Rise in low, middle and high bands and in pitch [T, 4], in dB above the usual.

    A band must rise above its neighbours of 46 ms ago too, so that vibrato is no attack
    (Boeck and Widmer 2013, DAFx); what the sound does all the time (noise) is taken off.
    """
    absolute, level, notes = absolute_mel(spectra), spectra.level, spectra.salience
    before = widened(shifted(absolute, -DELTA_FRAMES))
    # shifted() repeats the edge; but what sounds in the first frame has begun there.
    before[:DELTA_FRAMES] = absolute.min(initial=0)
    rise = np.clip(absolute - before, 0, 30)
    # A dying sound's pitch wavers, so new notes count only where the level holds.
    held = (spectra.tonal > 0.5) & (shifted(level, 2) > shifted(level, -3) - 2)
    fresh = np.clip(shifted(notes, 2) - widened(shifted(notes, -3)), 0, 1) * held[:, None]
    centres = MEL_CENTRES
    groups = (centres < 200, (centres >= 200) & (centres < 2500), centres >= 4000)
    curves = np.stack([rise[:, g].mean(axis=1) for g in groups] + [20 * fresh.sum(axis=1)], axis=1)
    usual = np.median(curves, axis=0)
    # A median, because a few strong attacks would swell the standard deviation.
    spread = np.median(np.abs(curves - usual), axis=0)
    curves = np.maximum(0, curves - usual - 4 * spread - 1.0)
    curves[:, 3] = np.maximum(curves[:, 3], pitch_steps(spectra))
    return curves


def measure_strike(spectra: Spectra, power: np.ndarray, *, rises: np.ndarray, frame: int) -> Strike:
    """Measure the hit that begins at a frame; `power` [T, 64], `rises` [4]."""
    # What came in is measured, not what sounds: drums are struck over other instruments.
    near, before = power[frame : frame + 8], power[max(0, frame - 4) : max(0, frame - 1)]
    fresh = near[:3].max(axis=0) - (before.min(axis=0) if len(before) else 0)
    fresh = np.maximum(fresh, 0) + 1e-12
    bands = decibels(np.add.reduceat(fresh, HIT_EDGES) / fresh.sum() + 1e-9)
    falls = []
    for course in (part.sum(axis=1) for part in (near[:, :5], near[:, 32:], near)):
        end = course[3:].min() if len(course) > 3 else 0.0
        falls.append(10 * math.log10((course[:3].max() + 1e-12) / (end + 1e-12)))
    after = spectra.tonal[frame + 2 : frame + 6]
    tonal = float(after.mean()) if len(after) else 0.0
    then = np.append(spectra.series[frame + 2 : frame + 10], spectra.series[-1])
    middle, unity = np.median(then), float(spectra.unity[frame + 2 : frame + 10].sum() / 8)
    was = spectra.series[max(0, frame - 4) : max(0, frame - 1)]
    note = unity > 0.85 and (np.abs(then - middle) < 0.4).mean() > 0.8
    note = bool(note and (np.abs(was - middle) < 0.4).sum() < 2)
    pitch = spectra.pitch[frame + 2 : frame + 7]
    drop = float(pitch[0] - pitch[-1]) if len(pitch) == 5 and 28 < pitch[0] < 62 else 0.0
    centre_hz = float(2 ** (fresh @ MEL_OCTAVES / fresh.sum()))
    return Strike(bands, rises, falls, tonal, unity, note, drop, centre_hz)


HIT_SIGNS: Ladder = (
    ("tom-like", lambda s: 0.5 < s.drop < 5 and s.tonal > 0.6
     and min(s.bands[:2]) > -9 and max(s.bands[:2]) > -4),
    # A plucked bass has all of a kick, but holds a pitch that was not there before.
    ("kick-like", lambda s: s.bands[SUB] > -5 and s.bands[BODY] < s.bands[SUB] - 3
     and s.falls[0] > 3.5 and s.rises[0] > 2 and not s.note),
    # A plucked or struck note's own click would pass for metal.
    ("note-like", lambda s: s.unity > 0.78 and s.tonal > 0.7 and s.rises[3] > 2),
    ("snare-like", lambda s: s.bands[BODY] > (-5 if s.bands[AIR] < -8 else -7)
     and s.bands[SUB] < s.bands[BODY] - 3
     and s.bands[MIDS] > -22 and s.bands[AIR] > max(-16.5, s.bands[5] - 1.7)
     and s.falls[1] > 5 and s.rises[2] > 6),
    ("click-like", lambda s: s.falls[2] > 40 and s.centre_hz < 6000),
    ("cymbal-like", lambda s: s.hiss and s.falls[1] <= 6),
    ("hat-like", lambda s: s.hiss),
    ("hand-drum-like", lambda s: min(s.rises[:3]) > 6 and s.falls[2] > 10
     and s.unity < 0.7 and s.tonal < 0.93 and s.bands[AIR] > -32),
    ("note-like", lambda s: s.tonal > 0.7),
    ("other", lambda s: True),
)  # fmt: skip
METAL_PERIODS = np.geomspace(0.11, 1.3, 900)  # s, between bursts
# Seconds of a window, bursts in it, and how alike they must lie in some period (0-1).
METAL_WINDOWS = ((20.0, 11, 0.88), (8.0, 8, 0.93))


def evenness(times: np.ndarray, periods: np.ndarray) -> np.ndarray:
    """How alike times in s lie within each period in s [n], 0-1 (length of their mean turn)."""
    return np.abs(np.exp(2j * np.pi * times / periods[:, None]).mean(axis=1))


def find_metal(
    level: np.ndarray, power: np.ndarray, curves: np.ndarray, frame_rate: float
) -> np.ndarray:
    """Frames [n] at which cymbals or shakers are struck between notes, in strict time; else none.

    Above 9 kHz little else begins and ends at once; a speaker's s does, but in no strict time.
    `level` [T] is in dBFS, `power` [T, 64] that of absolute_mel(), `curves` attack_curves().
    """
    top = decibels(power[:, MEL_CENTRES > 9000].sum(axis=1) + 1e-10)
    # Where a tone begins or ends in silence it clicks.
    playing = level > np.percentile(level, 95) - 30
    found = []
    for at in np.flatnonzero(local_peaks(top - shifted(top, -3), 11.0)[:-10]).tolist():
        dies = top[at : at + 3].max() - top[at + 3 : at + 8].min() > 5
        goes_on = at > 4 and bool(playing[at - 4] and playing[at + 8])
        if goes_on and dies and curves[at - 2 : at + 3, 3].max() < 1:
            found.append(at)
    times, kept = np.array(found) / frame_rate, np.zeros(len(found), dtype=bool)
    for seconds, least, even in METAL_WINDOWS:
        # Drums may play in a part only, and a player drifts.
        for start in np.arange(0, len(top) / frame_rate, seconds / 2):
            near = (times >= start) & (times < start + seconds)
            enough = near.sum() >= least
            kept |= near & bool(enough and evenness(times[near], METAL_PERIODS).max() > even)
    return np.array(found, dtype=int)[kept]


def with_metal(
    onsets: Sequence[Onset], metal: np.ndarray, strength: np.ndarray, frame_rate: float
) -> list[Onset]:
    """Onsets, and the bursts of metal: as hats, where they were not heard or taken for notes."""
    found = list(onsets)
    for frame in metal.tolist():
        time = (frame + 0.5) / frame_rate
        near = [k for k, onset in enumerate(found) if abs(onset.time - time) < 0.07]
        if not near:
            found.append(Onset(time, float(strength[frame]), "hat-like", 1e4, False, True))
        elif found[near[0]].kind not in HIT_WORDS:
            found[near[0]] = found[near[0]]._replace(kind="hat-like", pitched=False, metal=True)
    return sorted(found)


def find_onsets(
    spectra: Spectra, frame_rate: float, *, curves: np.ndarray | None = None
) -> list[Onset]:
    """Peak-pick what begins, to a fraction of a frame, and tell hits apart.

    Parameters
    ----------
    spectra : Spectra
        Rows [T].
    frame_rate : float
        Rows a second.
    curves : ndarray [T, 4], optional
        From attack_curves(), where the caller has them.

    Returns
    -------
    list of Onset
        In order of time, seconds from the first row.
    """
    curves = attack_curves(spectra) if curves is None else curves
    strength = curves @ ATTACK_WEIGHTS
    power = 10 ** (absolute_mel(spectra) / 10)
    onsets: list[Onset] = []
    # Where a file is cut off, its last windows hear a click.
    for frame in np.flatnonzero(local_peaks(strength, 2.0)[:-5]).tolist():
        near = spectra.level[max(0, frame - 40) : frame + 40]
        # The tail of something louder flutters.
        if spectra.level[frame : frame + 3].max() < max(near.max() - 30, -75):
            continue
        rises = curves[frame : frame + 2].max(axis=0)
        # The pitch of a struck thing settles.
        ringing = onsets and frame / frame_rate - onsets[-1].time < 0.25
        if ringing and rises[:3].max() < 1 and onsets[-1].strength > strength[frame]:
            continue
        # The vertex of the parabola through the peak; a flat top must not divide by zero.
        left, top, right = np.pad(strength, 1)[frame : frame + 3]
        offset = 0.5 * (left - right) / min(left - 2 * top + right, -1e-9)
        strike = measure_strike(spectra, power, rises=rises, frame=frame)
        time = max(0.0, float(frame + 0.5 + offset) / frame_rate)
        kind, pitched = first_rung(HIT_SIGNS, strike), rises[3] >= 4 and strike.tonal > 0.65
        onsets.append(Onset(time, float(top), kind, strike.centre_hz, bool(pitched)))
    # What is not tonal has no notes to hide them.
    tonal = len(onsets) > 0 and loud_mean(spectra.tonal, spectra.level) > 0.6
    if not tonal:
        return onsets
    metal = find_metal(spectra.level, power, curves, frame_rate)
    return with_metal(onsets, metal, strength, frame_rate)


def beat_scores(novelty: np.ndarray, frame_rate: float) -> np.ndarray:
    """How well each period of BEATS explains the attacks: mean correlation at 1-4 beats [400].

    By the theorem of Wiener and Khinchin: the autocorrelation is the transform of the power.
    """
    # Roots, so that one loud hit does not speak for all; smoothed, because players are not exact.
    curve = np.convolve(np.sqrt(novelty), [0.1, 0.25, 0.3, 0.25, 0.1], mode="same")
    curve = curve - curve.mean()
    lags = np.arange(int(BEATS[-1] * 4 * frame_rate) + 3)
    # Padded with zeros, so that the end is not held against the beginning.
    size = 2 ** math.ceil(math.log2(len(curve) + len(lags)))
    pairs = np.maximum(len(curve) - lags, len(curve) // 8 + 1)  # unbiased, but not far out
    found = np.fft.irfft(np.abs(np.fft.rfft(curve, size)) ** 2, size)[: len(lags)] / pairs
    found /= max(found[0], 1e-9)
    # Four beats of 1.6 s need a long sound; a short one is asked for fewer.
    reach = min(4, max(1, int(len(novelty) / frame_rate / 2.5)))
    heard = [np.interp(BEATS * k * frame_rate, lags, found) for k in range(1, reach + 1)]
    return np.mean(heard, axis=0)


def beat_bonus(guess: float) -> np.ndarray:
    """Weight of each period of BEATS: felt, and near a guess in s [400]."""
    return BEAT_PRIOR * (1 + 0.3 * np.exp(-((np.log2(BEATS / guess) / 0.04) ** 2)))


def refine_period(onsets: Sequence[Onset], period: float) -> tuple[float, float]:
    """The period near a given one whose harmonics fit all onsets best, and the phase, in s."""
    times = np.array([onset.time for onset in onsets])
    weights = np.sqrt([onset.strength for onset in onsets])
    span = max(times[-1] - times[0], 4 * period)
    # The second time within half a turn over the whole span, where there is no other maximum.
    for width in (0.04, 0.5 * period / span):
        tried = period * (1 + np.linspace(-width, width, 161))
        turns = times / tried[:, None]
        fits = [np.abs(np.exp(-2j * np.pi * k * turns) @ weights) for k in (1, 2, 4)]
        period = float(tried[np.argmax(np.sum(fits, axis=0))])
    angle = np.angle(np.exp(-2j * np.pi * times / period) @ weights)
    return period, float(-angle / (2 * np.pi) * period % period)


def find_metre(spectra: Spectra, curves: np.ndarray, beats: np.ndarray) -> tuple[int, float]:
    """Beats a bar and confidence from the frames of beats, with fraction; (0, 0) if none."""
    if len(beats) < 12:  # three bars of four
        return 0, 0.0
    # What lies within 46 ms is the beat's: players are not on the frame. Nor are beats, and some
    # tempi fall on it again every third beat, so frames are shared between their neighbours.
    heard = np.column_stack([curves, pooled(absolute_mel(spectra).T, 8).T])
    near = np.floor(beats).astype(int) + np.arange(-2, 6)[:, None]
    heard = heard[np.clip(near, 0, len(heard) - 1)]
    part = (beats % 1)[:, None]
    rows = (1 - part) * heard[:-1].mean(axis=0) + part * heard[1:].mean(axis=0)
    # One decibel is added, so that what hardly changes is not blown up to full size.
    rows = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1.0)
    like = np.array([0.0, *((rows[k:] * rows[:-k]).mean() for k in range(1, 9))])
    two, three, four = (float(like[on].mean() - like[off].mean()) for on, off in METRES)
    if max(two, three, four) < 0.05:
        return 0, 0.0
    even = 4 if four > two or like[4] - like[2] > 0.1 else 2
    metre = 3 if three > max(two, four) else even
    return metre, min(1.0, 1.5 * abs(three - max(two, four)) + 0.1)


def pulse_of(
    spectra: Spectra, frame_rate: float, *, onsets: Sequence[Onset], guess: float
) -> Pulse | None:
    """The steady beat of one stretch, rather near a guess in s; None if there is none."""
    curves = attack_curves(spectra)
    novelty = curves @ ATTACK_WEIGHTS
    if len(onsets) < 5 or len(novelty) < 4 * frame_rate:
        return None
    scores = beat_scores(novelty, frame_rate)
    wanted = scores * beat_bonus(guess)
    best = int(wanted.argmax())
    half = int(np.abs(BEATS - BEATS[best] / 2).argmin())
    # Where what comes twice as often is as even, the accent is a bar's, not the beat's; but
    # hardly any beat is so fast.
    if BEATS[best] > 0.66 and BEATS[half] > FASTEST and scores[half] > 0.7 * scores[best]:
        best = half
    confidence = float(np.clip(1.6 * scores[best], 0, 1))
    if confidence < 0.3:
        return None
    period, phase = refine_period(onsets, float(BEATS[best]))
    # Up to the last attack: beats of a silent end would be like each other, and unlike the rest.
    end, steps = onsets[-1].time + 0.1, (period, period / 2)
    beats, halves = (np.arange(phase, end, step) * frame_rate for step in steps)
    metre, sure = find_metre(spectra, curves, beats)
    others = (0.5 * period, 2 * period)
    rival = max(others, key=lambda other: np.interp(other, BEATS, wanted, left=0, right=0))
    # Six eighths are felt as two beats of three where the accents are three eighths apart.
    if metre == 3 and find_metre(spectra, curves, halves)[0] == 3:
        metre, rival, period = 6, period, 1.5 * period
    return Pulse(60 / period, confidence, 60 / rival, metre, sure, 0.0, len(novelty) / frame_rate)


def stretch_periods(novelty: np.ndarray, frame_rate: float) -> list[tuple[int, int, float]]:
    """Runs of 16 s windows that agree on a period: first and last frame, period in s."""
    width, hop = int(16 * frame_rate), int(4 * frame_rate)
    bonus = beat_bonus(BEATS[int((beat_scores(novelty, frame_rate) * BEAT_PRIOR).argmax())])
    found: list[tuple[int, int, float]] = []
    # A window speaks for its middle; the first and the last also for what lies outside.
    for start in range(0, max(1, len(novelty) - width + hop), hop):
        scores = beat_scores(novelty[start : start + width], frame_rate)
        best = int((scores * bonus).argmax())
        # What pulse_of() will ask for: 1.6 times this is its least confidence, 0.3.
        period = float(BEATS[best]) if scores[best] > 0.19 else 0.0
        first = start + width // 2 - hop // 2 if found else 0
        stop = min(start + width // 2 + hop // 2, len(novelty))
        last = found[-1] if found else (0, 0, -1.0)
        # BEATS are 0.4 % apart; a player keeps a tempo less well than that.
        if last[2] == period or abs(period / max(last[2], 1e-9) - 1) < 0.035:
            found[-1] = (last[0], stop, last[2])
        else:
            found.append((first, stop, period))
    kept = [run for run in found if run[1] - run[0] > 2 * hop] or found[:1]
    kept[0] = (0, *kept[0][1:])
    kept[-1] = (kept[-1][0], len(novelty), kept[-1][2])
    return kept


def estimate_tempo(
    spectra: Spectra,
    frame_rate: float,
    *,
    onsets: Sequence[Onset] | None = None,
    curves: np.ndarray | None = None,
) -> list[Pulse]:
    """Steady beats, one for each stretch that keeps its own; an empty list says: no pulse.

    The period is found from the attacks' autocorrelation in 16 s windows, those that agree are
    joined, and it is refined on all onsets of the joined stretch, so that its error is far
    below a frame's.
    """
    curves = attack_curves(spectra) if curves is None else curves
    onsets = find_onsets(spectra, frame_rate, curves=curves) if onsets is None else onsets
    novelty = curves @ ATTACK_WEIGHTS
    pulses: list[Pulse] = []
    for first, stop, period in stretch_periods(novelty, frame_rate):
        start, end = first / frame_rate, stop / frame_rate
        near = [o._replace(time=o.time - start) for o in onsets if start <= o.time < end]
        rows = slice_rows(spectra, first, stop)
        pulse = pulse_of(rows, frame_rate, onsets=near, guess=period) if period else None
        # Neighbours of one tempo were parted by a break, not by the player.
        if pulse and pulses and abs(pulse.bpm / pulses[-1].bpm - 1) < 0.01:
            pulses[-1] = pulses[-1]._replace(stop=start + pulse.stop)
        elif pulse:
            pulses.append(pulse._replace(start=start, stop=start + pulse.stop))
    return pulses


def glide_course(rows: Spectra) -> np.ndarray:
    """Power-weighted centre of the spectrum in semitones above 1 Hz [T], smoothed."""
    share = 10 ** (rows.mel / 10)
    return smooth_rows(12 * (share @ MEL_OCTAVES) / share.sum(axis=1), 5)


def is_gliding(rows: Spectra, frame_rate: float) -> bool:
    """Whether the spectrum's centre moves far and smoothly, as a siren's does."""
    centre = glide_course(rows)
    # Semitones; a vibrato or one wavering note moves less.
    if len(centre) < frame_rate or np.ptp(np.percentile(centre, [3, 97])) < 4:
        return False
    # A glide keeps its way, so that steps four frames apart (0.1 s) are alike.
    step = np.diff(centre) - np.diff(centre).mean()
    return bool(step[:-4] @ step[4:] > 0.75 * (step @ step))


def voice_course(rows: Spectra) -> np.ndarray:
    """Pitches at which something of 58-494 Hz slides, as voices do and what is played does not."""
    held = loud_frames(rows, 25) & (rows.tonal > 0.4)
    held &= (rows.pitch > 34) & (rows.pitch < 71) & (rows.unity > 0.5)
    speed = np.abs(np.diff(rows.pitch, prepend=rows.pitch[:1]))
    return rows.pitch[held & shifted(held, -1) & (speed > 0.07) & (speed < 1.2)]


def voice_pitch(rows: Spectra) -> float:
    """Median pitch of a speaking voice in Hz, 0 where it is not clear."""
    course = voice_course(rows)
    # Half of what one speaker says lies within a fifth.
    clear = len(course) >= 8 and np.subtract(*np.percentile(course, (75, 25))) < 7
    return float(to_hertz(np.median(course))) if clear else 0.0


def high_sweep(rows: Spectra) -> tuple[float, float]:
    """Lowest and highest Hz of a short sound that is one moving line above 800 Hz, else zeros."""
    # By the mel bands, which are quick enough, and reach above where pitch ends.
    (spot, share), loud = ridge(rows), loud_frames(rows, 15)
    # Between the chirps of one bird there is little left that is as loud.
    if not loud.any() or np.percentile(share[loud], 10) < 0.6:
        return 0.0, 0.0
    low, high = percentile_hertz(spot[loud], 5, 95)
    return (low, high) if low > 800 else (0.0, 0.0)


def held_pitch(rows: Spectra) -> tuple[float, float]:
    """Median pitch in Hz of the loud tonal frames, and the share that lies within half a tone."""
    loud = loud_frames(rows, 15)
    pitch = rows.pitch[loud & (rows.tonal > 0.5) & (rows.pitch > 0)]
    if len(pitch) < max(2, 0.3 * loud.sum()):
        return 0.0, 0.0
    middle = float(np.median(pitch))
    return to_hertz(middle), float((np.abs(pitch - middle) < 0.6).mean())


def like_events(one: Event, other: Event) -> bool:
    """Whether two events may be of one train: alike in timbre, or short and of one character."""
    short = one.character in SHORT and other.character in SHORT
    # Beeps may climb or fall.
    shorter, longer = sorted((one.stop - one.start, other.stop - other.start))
    if one.character == other.character == "steady tone" and 0.7 * longer < shorter < 0.6:
        return True
    close = float(unit(one.timbre) @ unit(other.timbre))
    return close > (0.6 if short else 0.85) or (short and one.character == other.character)


def is_noise(rows: Spectra) -> bool:
    """Whether loud frames are mostly noise: little tonal, or without a pitch that lasts."""
    loud = loud_frames(rows, 15)
    tonal = rows.tonal[loud]
    if tonal.mean() < 0.42:
        return True
    # The bass of a wind or a rumble is narrow, and so seems tonal; its peaks come and go, and
    # nothing is struck.
    leaps = np.abs(np.diff(rows.series))[loud[1:] & loud[:-1]] > 1
    salience = np.median(rows.salience[loud].max(axis=1))
    weak = salience < 0.12 or (salience < 0.19 and rows.onset_rate.mean() < 1)
    return bool(weak and tonal.mean() < 0.66 and len(leaps) > 3 and leaps.mean() > 0.35)


class Traits(NamedTuple):
    """What tells the character of a sound, from its loud frames."""

    seconds: float  # in which it is loud
    tonal: float  # 0-1
    hz: float  # 0 where no pitch is held
    held: float  # share of the pitched frames at it
    unity: float  # 0-1
    low: float  # Hz, see high_sweep()
    high: float  # Hz
    glides: bool
    noise: bool


CHARACTERS: Ladder = (
    # Above 2 kHz little is one line unless it is whistled or sung by a bird, and a beep is tonal.
    (CHIRP, lambda t: t.low > 2000 and t.tonal < 0.5 and t.seconds > 0.08),
    # A beep moves less than a semitone; what is longer may be played.
    (CHIRP, lambda t: t.high > 1.06 * t.low > 0 and t.seconds < 0.4),
    # By its window alone the shortest click is loud for 0.1 s.
    (KNOCK, lambda t: t.seconds < 0.13 and t.tonal < 0.8),
    ("short rough burst", lambda t: t.seconds < 0.3 and t.tonal < 0.4),
    # Several tones are no one tone, however steady the strongest.
    ("steady tone", lambda t: t.hz > 0 and t.held > 0.7 and t.tonal > 0.5 and t.unity > 0.75),
    ("tonal sound", lambda t: t.hz > 0 and t.held > 0.7 and t.tonal > 0.5),
    ("gliding tone", lambda t: t.glides),
    ("noise", lambda t: t.noise),
    ("tonal sound", lambda t: True),
)


def character_of(rows: Spectra, frame_rate: float) -> tuple[str, float]:
    """What a sound is like, in a word, and its pitch in Hz if that is steady."""
    loud = loud_frames(rows, 15)
    traits = Traits(
        loud.sum() / frame_rate, float(rows.tonal[loud].mean()), *held_pitch(rows),
        float(np.median(rows.unity[loud])), *high_sweep(rows),
        is_gliding(rows, frame_rate), is_noise(rows),
    )  # fmt: skip
    name = first_rung(CHARACTERS, traits)
    pitched = name in ("steady tone", "tonal sound", KNOCK)
    return name, math.sqrt(traits.low * traits.high) if name == CHIRP else traits.hz * pitched


def level_manner(level: np.ndarray, frame_rate: float) -> str:
    """How a sound begins, unless that is neither sharp nor soft, and ends, from levels in dBFS."""
    peak = int(level.argmax())
    rise = peak - int(np.flatnonzero(level[: peak + 1] > level[peak] - 20)[0])
    sharp, soft = rise <= 0.08 * frame_rate, rise >= 0.2 * frame_rate
    words = ["sharp attack" if sharp else "soft attack"] if sharp or soft else []
    if len(level) > 0.25 * frame_rate:
        fifth = max(1, len(level) // 5)
        swells = rise > 5 and level[peak] - float(np.mean(level[:fifth])) > 9
        fades = level[peak] - float(np.mean(level[-fifth:])) > 9
        ends = ("swells and fades" if fades else "swells up") if swells else "dies away"
        words.append(ends if swells or fades else "even level")
    return ", ".join(words)


def short_slide(rows: Spectra) -> str:
    """Where the pitch of a short sound goes, in words, or none."""
    spot, share = ridge(rows)
    course = spot[loud_frames(rows, 20) & (share > 0.5)]
    if len(course) < 5:
        return ""
    first, middle, last = (float(np.mean(part)) for part in np.array_split(course, 3))
    if min(middle - first, middle - last) > 2:
        return "pitch up and down again"
    return "pitch rises" if last - first > 3 else "pitch falls" if last - first < -3 else ""


def two_pitches(rows: Spectra, frame_rate: float) -> str:
    """That a sound steps between two pitches, which may slide (a car that passes), or none."""
    loud = loud_frames(rows, 25) & (rows.pitch > 0) & (rows.tonal > 0.4)
    held = np.where(loud, np.rint(rows.pitch), 0).astype(int)
    steps = np.array([p for p, a, b in runs(held) if p and b - a > 0.15 * frame_rate])
    leaps = np.diff(steps)
    leaps = leaps[np.abs(leaps) > 1]
    if len(leaps) < 4 or not (np.sign(leaps[1:]) == -np.sign(leaps[:-1])).all():
        return ""
    middle = (steps.min() + steps.max()) / 2
    sides = (steps < middle, steps >= middle)
    low, high = (hertz_words(to_hertz(np.median(steps[side]))) for side in sides)
    return f"steps between {low} and {high}"


def event_manner(rows: Spectra, frame_rate: float) -> str:
    """How one sound begins, goes on and ends, how its pitch moves, and where it lies."""
    power = mel_power(rows).mean(axis=0)
    centre = f"centre {hertz_words(float(2 ** (power @ MEL_OCTAVES / power.sum())))}"
    short = len(rows.level) < 0.6 * frame_rate
    moves = short_slide(rows) if short else two_pitches(rows, frame_rate)
    words = level_manner(rows.level, frame_rate), moves, centre
    return ", ".join(filter(None, words))


def make_event(
    spectra: Spectra, frame_rate: float, *, start: int, stop: int, spoken: bool = False
) -> Event:
    """Describe the frames from start to stop."""
    rows = slice_rows(spectra, start, stop)
    character, hz = (PHRASE, voice_pitch(rows)) if spoken else character_of(rows, frame_rate)
    timbre, peak = mel_shares(rows.mel).mean(axis=0), float(rows.level.max())
    manner = "" if spoken else event_manner(rows, frame_rate)
    return Event(start / frame_rate, stop / frame_rate, peak, timbre, character, hz, manner)


def cut_where(marks: np.ndarray, least: int) -> list[tuple[int, int, int]]:
    """Runs of marks [n], those shorter than `least` frames made one with what is before."""
    parts: list[tuple[int, int, int]] = []
    for mark, start, stop in runs(marks.astype(int)):
        if parts and min(stop - start, parts[-1][2] - parts[-1][1]) < least:
            before = parts.pop()
            mark = mark if stop - start > start - before[1] else before[0]
            start = before[1]
        parts.append((mark, start, stop))
    return parts


def beeps_of(event: Event, spectra: Spectra, frame_rate: float) -> list[Event]:
    """A tone that stops and starts again, or a row of chirps, as so many."""
    if event.character not in ("steady tone", CHIRP):
        return [event]
    first, last = round(event.start * frame_rate), round(event.stop * frame_rate)
    level = np.maximum(spectra.level[first:last], event.peak - 30)
    highs = [at for at, _ in maxima(level, 14.0)]
    edges = [0, *(a + int(level[a:b].argmin()) for a, b in zip(highs, highs[1:])), last - first]
    # What is struck dies away from its peak on, and is left to the music.
    near, far = (np.sum(level > event.peak - depth) for depth in (3, 12))
    if event.character == "steady tone" and 2 * near < far:
        return [event]
    found = []
    for a, b in zip(edges, edges[1:]):
        # By its halves: the window widens what begins and ends at once.
        held = np.flatnonzero(level[a:b] > level[a:b].max() - 6)
        length = float(held[-1] - held[0] + 1) / frame_rate
        start, hz = event.start + a / frame_rate, event.hz
        rows = slice_rows(spectra, first + a, first + b)
        if event.character == CHIRP:
            hz = float(to_hertz(np.median(ridge(rows)[0][held])))
        manner = event_manner(rows, frame_rate)
        found.append(event._replace(start=start, stop=start + length, hz=hz, manner=manner))
    return found


def unspoken_events(
    spectra: Spectra, frame_rate: float, *, mask: np.ndarray, start: int
) -> list[Event]:
    """One event, or as many as there are like parts, of the frames of a mask from `start` on."""
    whole = make_event(spectra, frame_rate, start=start, stop=start + len(mask))
    parts = [(start + a, start + b) for a, b in runs_of(mask, 5)]
    fine = [make_event(spectra, frame_rate, start=a, stop=b) for a, b in parts]
    fine = [part for part in fine if part.peak > whole.peak - 14]
    same = all(like_events(part, fine[0]) for part in fine[1:])
    events = fine if len(fine) > 1 and same else [whole]
    return [beep for event in events for beep in beeps_of(event, spectra, frame_rate)]


def spoken_events(spectra: Spectra, frame_rate: float, *, start: int, stop: int) -> list[Event]:
    """The phrases of a stretch of speech: parted where only what lies under it goes on."""
    level = smooth_rows(spectra.level[start:stop], 5)
    low, high = np.percentile(level, (5, 90))
    # Between two speakers there is a pause of half a second; a stop within a word is shorter.
    said = level > low + 0.4 * (high - low)
    parts = runs_of(said, int(0.38 * frame_rate)) if high - low > 5 else []
    parts = [part for part in parts if part[1] - part[0] > 0.5 * frame_rate]
    if len(parts) < 2 or stop - start < 4 * frame_rate:
        parts = [(0, stop - start)]
    ends = ((start + a, start + b) for a, b in parts)
    return [make_event(spectra, frame_rate, start=a, stop=b, spoken=True) for a, b in ends]


def to_the_ends(marks: np.ndarray, near: float) -> np.ndarray:
    """Marks [n] that lie less than `near` frames from an end, on to that end."""
    # The ends of a span of speech are known to half a second or so.
    marks, inside = marks.copy(), np.flatnonzero(marks)
    if len(inside) and inside[0] < near:
        marks[: inside[0]] = True
    if len(inside) and len(marks) - inside[-1] < near:
        marks[inside[-1] :] = True
    return marks


def short_phrase(
    event: Event, spectra: Spectra, frame_rate: float, *, voices: Sequence[float]
) -> Event:
    """The event as a phrase, where one of the voices heard (Hz) says a few syllables more in it."""
    cut = event.frames(frame_rate)
    rows, seconds = slice_rows(spectra, *cut), event.stop - event.start
    if event.character != "tonal sound" or not 0.5 < seconds < 4 or rows.tonal.mean() > 0.8:
        return event
    hz, rate = voice_pitch(rows), count_syllables(spectra, *cut) / seconds
    near = [abs(math.log2(hz / voice)) < 1 / 3 for voice in voices if hz]  # four semitones
    return event._replace(character=PHRASE, hz=hz) if any(near) and rate > 2.5 else event


def as_whisper(event: Event, spectra: Spectra, frame_rate: float) -> Event:
    """The event as a whisper, where it is noise that swings as syllables do."""
    seconds = event.stop - event.start
    if event.character != "noise" or not 0.8 < seconds < 8:
        return event
    rate = count_syllables(spectra, *event.frames(frame_rate)) / seconds
    return event._replace(character=WHISPER) if 0.9 < rate < 8 else event


def lasting(events: Sequence[Event], bedded: Bedded, frame_rate: float) -> list[Event]:
    """Events that are longer than a flicker, and stand out of the noise under them."""
    # A single frame (23 ms) is a flicker about the threshold.
    events = [event for event in events if event.stop - event.start > 0.03]
    if not bedded.veils:
        return events
    # Breakers and gusts are noise too, and stand as far out of their own lows.
    swell = np.percentile((bedded.rows.level - bedded.bed)[~bedded.clear], 98) + 6
    kept = []
    for event in events:
        noisy = event.character in ("noise", KNOCK, "short rough burst")
        over = event.peak - float(bedded.bed[event.frames(frame_rate)[0]])
        if over > max(BED_OVER, swell * noisy) or event.character == PHRASE:
            kept.append(event)
    return kept


def find_events(
    spectra: Spectra, frame_rate: float, bedded: Bedded, *, spoken: np.ndarray
) -> list[Event]:
    """Sounding stretches between near-silences, or clear rises out of a bed of noise.

    Short gaps part knocks and beeps; a phrase of speech or music is kept whole over gaps of
    less than 0.4 s. Where somebody speaks for a part of a stretch, that part is an event.
    `bedded` is the sound less the noise under it, `spoken` is from spoken_frames().
    """
    mask = bedded.clear if len(bedded.clear) else sounding(spectra)
    spectra = bedded.rows if len(bedded.clear) else spectra
    events: list[Event] = []
    for start, stop in runs_of(mask, int(0.4 * frame_rate)):
        least = int(frame_rate)
        for speech, a, b in cut_where(to_the_ends(spoken[start:stop], 1.2 * least), least):
            part = slice(start + a, start + b)
            events += (
                spoken_events(spectra, frame_rate, start=start + a, stop=start + b)
                if speech
                else unspoken_events(spectra, frame_rate, mask=mask[part], start=start + a)
            )
    events = lasting(events, bedded, frame_rate)
    voices = [event.hz for event in events if event.character == PHRASE and event.hz]
    events = [short_phrase(event, spectra, frame_rate, voices=voices) for event in events]
    return [as_whisper(event, spectra, frame_rate) if voices else event for event in events]


def seconds_of(events: Sequence[Event], *characters: str) -> float:
    """Length of the events of some characters, or of all, in s."""
    return sum(e.stop - e.start for e in events if not characters or e.character in characters)


def group_events(events: Sequence[Event]) -> list[list[Event]]:
    """Trains of events that are alike and follow within 5 s."""
    trains: list[list[Event]] = []
    for event in events:
        # What comes between two knocks does not make them two trains.
        near = [train for train in trains if event.start - train[-1].stop < 5]
        like = [train for train in near if like_events(event, train[-1])]
        if like:
            like[-1].append(event)
        else:
            trains.append([event])
    return trains


def spacing(times: Sequence[float]) -> tuple[float, float]:
    """Mean period of times in s by regression, and the standard deviation from it."""
    count = np.arange(len(times))
    # A mean of gaps would hear the first and the last time only.
    slope, offset = np.polyfit(count, times, 1)
    return float(slope), float(np.std(np.asarray(times) - slope * count - offset))


def loudness_course(level: np.ndarray, frame_rate: float) -> np.ndarray:
    """Mean power in dB on a grid of STEP seconds, not below 60 dB under the loudest."""
    # Of hours there are fewer rows than steps.
    edges = np.unique((np.arange(0, len(level) / frame_rate, STEP) * frame_rate).astype(int))
    edges = edges[edges < len(level)]
    power = np.add.reduceat(10 ** (level / 10), edges) / np.diff(np.append(edges, len(level)))
    course = decibels(power + 1e-12)
    return np.maximum(course, max(course.max() - 60, -80))


def heard_span(level: np.ndarray, depth: float = 40.0) -> slice:
    """Frames from the first to the last above -75 dBFS and within `depth` dB of the loudest."""
    heard = np.flatnonzero(level > max(level.max(initial=LEVEL_FLOOR) - depth, -75))
    return slice(int(heard[0]), int(heard[-1]) + 1) if len(heard) else slice(0, 0)


def find_jumps(level: np.ndarray, frame_rate: float) -> list[tuple[float, str, float]]:
    """Sudden lasting changes of loudness: time in s, word, and dB between 2 s before and after."""
    course = loudness_course(level, frame_rate)
    total = np.append(0.0, np.cumsum(decibels(smooth_rows(10 ** (course / 10), 11))))
    jump = np.zeros(len(total))
    jump[20:-20] = (total[40:] - 2 * total[20:-20] + total[:-40]) / 20
    # Speech and drums change loudness all the time; a jump must stand out of that.
    usual = float(np.median(np.abs(jump[20:-20]))) if len(jump) > 60 else 0.0
    found: list[tuple[float, str, float]] = []
    while len(found) < 4:
        k = int(np.abs(jump).argmax())
        depth = float(jump[k])
        if abs(depth) < max(8.0, 2.5 * usual):
            break
        lo, hi = max(0, k - 8), min(len(course) - 2, k + 8)
        # Most of a jump happens within 0.2 s; what takes longer is a fade.
        steps = (course[lo + 2 : hi + 2] - course[lo:hi]) * np.sign(depth)
        # A struck note rings away, and the next one is no jump.
        ringing = depth > 0 and np.ptp(course[k - 15 : k - 2]) > 6
        if steps.max() > 0.6 * abs(depth) and not ringing:
            time = (lo + int(steps.argmax()) + 1.5) * STEP
            found.append((time, "drops" if depth < 0 else "rises", depth))
        # It shows for 2 s either side, and is to be found once.
        jump[max(0, k - 25) : k + 25] = 0
    return sorted(found)


def median_gap(times: Sequence[float]) -> float:
    """Median interval in s, 9.9 for fewer than three times."""
    return float(np.median(np.diff(times))) if len(times) > 2 else 9.9


def count_kinds(onsets: Sequence[Onset]) -> dict[str, int]:
    """Hits of each drum-like kind that is struck at all, most frequent first."""
    counts = {kind: sum(o.kind == kind for o in onsets) for kind in HIT_WORDS}
    return {kind: counts[kind] for kind in sorted(counts, key=lambda k: -counts[k]) if counts[kind]}


def drum_kinds(onsets: Sequence[Onset]) -> set[str]:
    """The drum-like kinds of onset that come twice or more, and not as a bass's notes."""
    counts = count_kinds(onsets)
    kinds = {kind for kind, count in counts.items() if count >= 2}
    # Where a bass plays, its notes begin as kicks do: a few of them say nothing.
    low = sum(o.kind == "note-like" and o.centre_hz < 200 for o in onsets)
    return kinds - ({"kick-like"} if 2 * counts.get("kick-like", 0) <= low else set())


def are_drums(hits: Sequence[Onset], kinds: set[str], share: float) -> bool:
    """Whether hits of some kinds, that share of all onsets, are many enough and no notes' own."""
    # Plucked notes pass for hats now and then, but not for kicks and snares too.
    mixed = len(kinds) > 1 and bool(kinds - METALLIC)
    least = 0.15 if mixed else 0.3 if "kick-like" in kinds else 0.4
    if len(hits) < (4 if share > 0.3 else 8) or share <= least:
        return False
    # Of picks and mallets each comes with a note, and none is like a kick; drums fall between
    # notes too, or are alone.
    least = 0.3 if share > 0.6 else 0.38
    between = sum(not hit.pitched for hit in hits) > least * len(hits)
    return between or share > 0.75 or kinds >= {"kick-like", "snare-like"}


def drum_hits(onsets: Sequence[Onset]) -> list[Onset]:
    """The onsets that are drums' hits; none if they are too few, or a picked string's clicks."""
    kinds = drum_kinds(onsets)
    drums = [onset for onset in onsets if onset.kind in kinds]
    metal = sum(drum.metal for drum in drums) >= 5
    return drums if metal or are_drums(drums, kinds, len(drums) / max(len(onsets), 1)) else []


def is_layer(part: np.ndarray, onsets: Sequence[Onset]) -> bool:
    """Whether hits at these times are no few, and no few of the onsets between them."""
    # Where most hits are hidden, the next may only not be heard.
    around = sum(part[0] <= onset.time <= part[-1] for onset in onsets)
    return len(part) > max(3, 0.3 * around)


def drum_changes(onsets: Sequence[Onset], span: tuple[float, float]) -> list[tuple[float, str]]:
    """When drums begin late, pause for long or end early within a span in s, and which."""
    hits = [hit.time for hit in drum_hits(onsets)]
    step = median_gap(hits)
    rest = max(2.9, 6 * step)
    parts = np.split(np.array(hits), np.flatnonzero(np.diff(hits) > rest) + 1)
    if not hits or not all(is_layer(part, onsets) for part in parts):
        return []
    first, last = [float(part[0]) for part in parts], [float(part[-1]) for part in parts]
    enter = [(at, "enter") for at, before in zip(first, [span[0], *last]) if at - before > rest]
    # It stops where the next hit would have been.
    stop = [
        (at + step, "stop") for at, then in zip(last, [*first[1:], span[1]]) if then - at > rest
    ]
    return [(at, f"drum-like hits {word}") for at, word in sorted(enter + stop)]


def find_layer_changes(
    onsets: Sequence[Onset], span: tuple[float, float]
) -> list[tuple[float, str]]:
    """When drums enter or stop, and when the last attack of all is, if much sounds after it."""
    found = drum_changes(onsets, span)
    # Faint attacks come and go in any sound and make no layer.
    least = 0.35 * float(np.percentile([onset.strength for onset in onsets] or [0.0], 75))
    times = [onset.time for onset in onsets if onset.strength > least]
    if len(times) < 8:
        return found
    late = [at for at, _ in found if at > times[-1] - 2.5]
    # A last note may be held for four beats, and that is no change; a drummer's rest is.
    if span[1] - times[-1] > max(2.5 if late else 6.0, 8 * median_gap(times)):
        # What is held may begin with an attack, after the last hit.
        last = min(late, default=times[-1])
        found = [change for change in found if change[0] < last] + [(last, STOPS)]
    return found


def label_sections(means: np.ndarray) -> str:
    """Letters for section means [n, D]: the letter of the likest earlier one, or a new one."""
    means = means / (np.linalg.norm(means, axis=1, keepdims=True) + 1e-9)
    letters: list[int] = []
    for k, row in enumerate(means):
        likes = means[:k] @ row
        known = k > 0 and likes.max() > 0.6
        letters.append(letters[int(likes.argmax())] if known else max(letters, default=-1) + 1)
    return "".join(chr(ord("A") + min(k, 25)) for k in letters)


def cosines(rows: np.ndarray) -> np.ndarray:
    """Likeness of every row to every other [n, n], -1 to 1."""
    # What hardly departs from the mean is like nothing.
    least = 0.1 * math.sqrt(rows.shape[1])
    rows = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + least)
    return rows @ rows.T


def checkerboard(like: np.ndarray, reach: int) -> np.ndarray:
    """Likeness within the `reach` rows before and after each row less that across, 0 near ends."""
    # Sums of any block from four corners: a large kernel costs no more than a small one.
    total = np.pad(np.cumsum(np.cumsum(like, axis=0), axis=1), ((1, 0), (1, 0)))

    def block(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Sum of the likeness between `reach` rows from a on and from b on."""
        return total[a + reach, b + reach] - total[a, b + reach] - total[a + reach, b] + total[a, b]

    novelty = np.zeros(len(like))
    middle = np.arange(reach, len(like) - reach + 1)[: len(like) - 2 * reach]
    early = middle - reach
    inside = block(early, early) + block(middle, middle)
    novelty[middle] = (inside - 2 * block(early, middle)) / (2 * reach**2)
    return novelty


def split_repeats(like: np.ndarray, bounds: Sequence[int]) -> list[int]:
    """Part a section that holds another section's length several times over, if it repeats."""
    # What is under 0.4 of the usual length is a fragment, not a section to measure by.
    lengths = np.diff(bounds)
    shortest = min((n for n in lengths if n > 0.4 * np.median(lengths)), default=0)
    parted = [bounds[0]]
    for start, stop in zip(bounds, bounds[1:]):
        times = int(round((stop - start) / max(shortest, 1)))
        size, inside = (stop - start) / max(times, 1), like[start:stop, start:stop]
        lags = range(max(1, int(0.8 * size)), min(int(1.25 * size) + 1, stop - start - 2))
        if times > 1 and len(lags) >= 3:
            along = np.array([np.diagonal(inside, lag).mean() for lag in lags])
            if along.max() > max(0.3, np.median(along) + 0.1):
                parted += [start + int(round(k * (stop - start) / times)) for k in range(1, times)]
        parted.append(stop)
    return parted


def section_bounds(rows: np.ndarray, reach: int) -> tuple[list[int], float]:
    """Rows at which sections part, seen with a kernel of `reach` rows, and how clearly (0-1)."""
    novelty = checkerboard(cosines(smooth_rows(rows, reach // 2)), reach)
    peaks = np.flatnonzero(local_peaks(novelty, 0.2))
    kept: list[int] = []
    # The strongest first: of two that are too near each other the clearer one stays.
    for peak in peaks[np.argsort(novelty[peaks])[::-1]].tolist():
        if all(abs(peak - other) >= 0.7 * reach for other in [*kept, 0, len(rows)]):
            kept.append(peak)
    clarity = float(np.clip(novelty[kept].mean(), 0, 1)) if kept else 0.0
    return [0, *sorted(kept), len(rows)], clarity


def scaled_rows(
    features: np.ndarray, loudness: np.ndarray, size: int, *, share: float = 0.0
) -> np.ndarray:
    """Means of `size` rows of features [T, D] and of dBFS [T], about their mean and scaled."""
    rows = np.column_stack([pooled(features, size), pooled(np.maximum(loudness, -70), size) / 10])
    # A share of the size of all is added to each one's spread, so that a flicker is not blown up.
    whole = float(np.sqrt((rows[:, :-1] ** 2).mean()))
    rows = rows - rows.mean(axis=0)
    return rows / (rows.std(axis=0) + 0.05 * rows.std(axis=0).max() + share * whole + 1e-6)


def find_form(features: np.ndarray, loudness: np.ndarray, *, frame_rate: float) -> Form:
    """Sections and repeats of features [T, D], scaled here, and levels in dBFS [T].

    Boundaries are peaks of a checkerboard kernel along the diagonal of the self-similarity
    (Foote 2000, ICME).

    Parameters
    ----------
    features : ndarray [T, D]
        Any that tell sections apart, such as section_features().
    loudness : ndarray [T]
        dBFS; below -70 it counts as -70.
    frame_rate : float
        Rows a second.

    Returns
    -------
    Form
        One section A with clarity 0 where none part clearly.
    """
    seconds = len(features) / frame_rate
    # Every row is held against every other, so there are at most about 800.
    size = max(1, int(max(0.25, seconds / 800) * frame_rate))
    rows = scaled_rows(features, loudness, size, share=0.1)
    # Sections may be a fifth or a twentieth of a piece: the scale that parts most clearly is taken.
    reaches = np.unique(np.clip([seconds / part for part in (5, 8, 12, 20)], 3, 25))
    scales = [int(r * frame_rate / size) for r in reaches if 2.2 * r < seconds]
    tried = [section_bounds(rows, scale) for scale in scales]
    bounds, clarity = max(tried, key=lambda found: found[1], default=([0], 0.0))
    if clarity < CLEAR:
        return Form((0.0,), "A", 0.0)
    bounds = split_repeats(cosines(rows), bounds)
    means = np.array([rows[a:b].mean(axis=0) for a, b in zip(bounds, bounds[1:])])
    letters = label_sections(means)
    return Form(tuple(b * size / frame_rate for b in bounds[:-1]), letters, clarity)


def section_features(spectra: Spectra) -> np.ndarray:
    """What tells sections apart [T, 38]: bands, tonality, pitch classes, bass notes, onset rate."""
    bands = 10 ** (spectra.mel * 0.025)
    bands = np.add.reduceat(bands / bands.sum(axis=1, keepdims=True), BAND_STARTS, axis=1)
    # Noise has salience by chance: what is not half tonal says little of harmony.
    notes = np.clip(2 * spectra.tonal - 0.5, 0, 1)[:, None] * spectra.salience
    chroma, bass = fold_chroma(notes), fold_chroma(notes[:, : 60 - LOWEST_NOTE])
    rate = spectra.onset_rate / 5
    return np.column_stack([10 * bands, spectra.tonal, 3 * chroma, 3 * bass, rate])


# Seconds around a boundary that are held against each other, and within which it lies.
BOUND_AROUND, BOUND_WITHIN = 6.0, 1.5


def best_split(rows: np.ndarray, reach: int) -> int:
    """Where rows [n, D] fall into two kinds most clearly, within `reach` of their middle."""
    middle = len(rows) // 2
    places = np.arange(max(1, middle - reach), min(len(rows) - 1, middle + reach) + 1)
    sums = np.cumsum(rows, axis=0)[places - 1]
    rest = rows.sum(axis=0) - sums
    # Of all squares about one mean, what two means take away is to be most.
    taken = (sums**2).sum(axis=1) / places + (rest**2).sum(axis=1) / (len(rows) - places)
    return int(places[taken.argmax()])


def sharpened(form: Form, spectra: Spectra, frame_rate: float) -> Form:
    """A form whose sections begin where bands, notes, onsets and level change most, to 0.1 s."""
    size = max(1, int(STEP * frame_rate))
    rows = scaled_rows(section_features(spectra), spectra.level, size)
    rate = frame_rate / size
    bounds = [int(start * rate) for start in form.starts] + [len(rows)]
    around, within = int(BOUND_AROUND * rate), int(BOUND_WITHIN * rate)
    for k, (before, at, after) in enumerate(zip(bounds, bounds[1:], bounds[2:]), start=1):
        near = min(around, at - before, after - at)
        if near > 1:
            bounds[k] = at - near + best_split(rows[at - near : at + near], within)
    return form._replace(starts=tuple(at / rate for at in bounds[:-1]))


def seconds_words(times: Sequence[float]) -> str:
    """Times in s for a prompt, the first twelve of them."""
    return " ".join(f"{t:.1f}" for t in times[:12]) + " ..." * (len(times) > 12) + " s"


def span_of(spectra: Spectra, frame_rate: float) -> tuple[float, float]:
    """Time and duration of a whole sound in s."""
    return 0.0, len(spectra.level) / frame_rate


def observe_hits(onsets: Sequence[Onset], duration: float, *, bare: bool) -> Findings:
    """Drum-like hits by kind, where they play, and the density of all onsets.

    `bare`: whether a drum would be heard if there were one.
    """
    rate = len(onsets) / max(duration, 0.1)
    # Soft ones, and those that others cover, are not heard.
    text = f"at least {len(onsets)} onsets, {rate:.1f} a second"
    # What sounds from the beginning, or stops at the end, is not struck.
    density = [Observation("onsets", 0.0, duration, round(rate, 2), 0.8, text)]
    density = density if len(onsets) > 3 else []
    drums = drum_hits(onsets)
    if not drums:
        none = Observation("absent", 0.0, duration, ("drums",), 0.6, "no drum-like hits")
        return [*density, none] if bare else density
    counts = count_kinds(drums)
    words = ", ".join(f"{count} {kind} ({HIT_WORDS[kind]})" for kind, count in counts.items())
    names = [drum.kind.removesuffix("-like") for drum in drums[:8]]
    order = f"; order: {' '.join(names)} ..." if len(set(names)) > 1 else ""
    share = len(drums) / len(onsets)
    first, last = drums[0].time, drums[-1].time
    # Other instruments hide hits, never the other way round.
    least = "" if share > 0.9 else "at least "
    text = f"drum-like hits {first:.1f}-{last:.1f} s: {least}{words}"
    text += order if share > 0.9 else f"; {len(onsets) - len(drums)} other onsets"
    sure = min(0.95, 0.4 + share / 2)
    return [Observation("hits", first, last - first, tuple(drums), sure, text), *density]


def observe_pulse(pulses: Sequence[Pulse], duration: float) -> Findings:
    """Tempo and metre of each stretch, or that there is no steady beat."""
    if not pulses:
        return [Observation("tempo", 0.0, duration, None, 0.7, "no clear beat is heard")]
    found = []
    for pulse in pulses:
        span = (pulse.start, pulse.stop - pulse.start)
        part = span[1] <= 0.9 * duration
        where = f" from {pulse.start:.0f} to {pulse.stop:.0f} s" if part else ""
        text = f"tempo {pulse.bpm:.1f} bpm{where} (or {pulse.rival:.0f})"
        found.append(Observation("tempo", *span, pulse.bpm, pulse.confidence, text))
        if pulse.metre and pulse.metre_confidence > 0.25:
            text = f"metre: accents group by {pulse.metre} beats{where}"
            if pulse.metre == 6:
                text = f"metre: 6/8, each beat parts in three{where}"
            found.append(Observation("metre", *span, pulse.metre, pulse.metre_confidence, text))
    return found


def grouped(starts: np.ndarray) -> list[np.ndarray]:
    """Times in groups, if gaps between groups are clearly longer than all within; else one."""
    gaps = np.diff(starts)
    if len(gaps) < 3:
        return [starts]
    edge = math.sqrt(gaps.min() * gaps.max())
    within, between = gaps[gaps <= edge], gaps[gaps > edge]
    # Where all gaps are equal, rounding puts the root on either side of them.
    if not len(within) or not len(between):
        return [starts]
    # Three groups of one would be a rhythm; irregular drips have gaps of all lengths.
    clear = between.min() > 1.6 * within.max() and np.median(between) > 2.2 * np.median(within)
    clear = clear and len(within) > len(between) / 2
    return np.split(starts, np.flatnonzero(gaps > edge) + 1) if clear else [starts]


def times_words(starts: np.ndarray) -> str:
    """How a train's beginnings lie in time: regular, irregular, or in groups."""
    period, jitter = spacing(starts)
    # 20 ms are about a frame, finer than which a start is not known.
    even = len(starts) > 2 and jitter < max(0.02, 0.04 * period)
    groups = grouped(starts)
    if not even and len(groups) > 1:
        sizes = sorted({len(group) for group in groups})
        size = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]}-{sizes[-1]}"
        within = np.median(np.concatenate([np.diff(group) for group in groups]))
        firsts = [group[0] for group in groups]
        apart = np.diff(firsts)
        about = "every" if np.std(apart) < 0.05 * np.mean(apart) else "about every"
        return (
            f"in {len(groups)} groups of {size}, {within:.2f} s apart within, a group {about}"
            f" {np.mean(apart):.2f} s, groups at {seconds_words(firsts)}"
        )
    words = f"every {period:.2f} s (regular)" if even else f"irregular, about {period:.1f} s apart"
    words = f"{period:.1f} s apart" if len(starts) == 2 else words
    return f"{words}, at {seconds_words(starts)}"


def beeps_course(hz: Sequence[float]) -> str:
    """Where the pitches in Hz of several beeps go, in words."""
    steps = np.diff(hz)
    course = "rising" if (steps > 0).all() else "falling" if (steps < 0).all() else "changing"
    return f" {course} from {hertz_words(hz[0])} to {hertz_words(hz[-1])}"


def train_pitch(kind: str, hz: Sequence[float]) -> str:
    """Where the sounds of a train lie, in words; nothing where that says nothing."""
    known = [x for x in hz if x > 0]
    if kind == CHIRP and known:
        low, high = (hertz_words(float(x)) for x in np.percentile(known, (10, 90)))
        like = "bird-like" if np.median(known) > 2000 else "drip- or blip-like"
        return f" around {low if low == high else f'{low} to {high}'} ({like})"
    if len(known) < len(hz) or kind not in ("steady tone", KNOCK):
        return ""
    if max(hz) < 1.06 * min(hz):  # within a semitone
        return f" at {hertz_words(float(np.median(hz)))}"
    return beeps_course(hz) if kind != KNOCK else ""


def common_manner(train: Sequence[Event]) -> str:
    """What most of a train of events have of each other's manner; where the loudest lies."""
    loudest = max(train, key=lambda event: event.peak).manner.split(", ")
    words = [phrase for event in train for phrase in event.manner.split(", ")]
    most = [phrase for phrase in dict.fromkeys(words) if words.count(phrase) > len(train) / 2]
    return ", ".join([*(word for word in most if "centre" not in word), loudest[-1]])


def observe_train(train: Sequence[Event]) -> Observation:
    """One sound, or several alike, with count, times and regularity."""
    first, last, count = train[0], train[-1], len(train)
    span = (first.start, last.stop - first.start)
    kind = "noise swell" if first.character == "noise" and count > 1 else first.character
    tone = train_pitch(kind, [e.hz for e in train])
    each = tuple(Stretch(e.start, e.stop, kind) for e in train)
    if count == 1:
        text = f"one {kind}{tone}, {first.start:.1f}-{first.stop:.1f} s: {first.manner}"
        return Observation("event", *span, each, 0.7, text)
    length = np.median([e.stop - e.start for e in train])
    starts = np.array([e.start for e in train])
    text = f"{count} separate {kind}s{tone}, {times_words(starts)}, {length:.2f} s each"
    text += f": {common_manner(train)}"
    return Observation("events", *span, each, 0.85, text)


# Portraits: what one sound of a scene is like within, in the units of acoustics.

# Corners in Hz of the octaves of 63 Hz to 8 kHz (IEC 61260), on which the mel bands are gathered.
OCTAVE_STARTS = [0, *np.searchsorted(MEL_CENTRES, 1000 * 2.0 ** np.arange(-3.5, 3))]
FALLS = (10, 20, 30)  # dB below its peak, to which a sound's fall is followed
FULL, BEGUN = 5.0, 25.0  # dB below its peak at which a sound is as good as full, and has begun
PULSE_STEPS = 128  # of fine levels, 0.37 s, in which pulses are counted
PULSE_DEPTH, PULSE_CLEAR = 0.2, 6.0  # of the amplitude; dB above the rates around
MOST_STANDING = 4  # peaks of a spectrum that are named
MOST_PORTRAITS, LEAST_ROWS = 5, 4
HIGHEST_VOICE, HIGH_LINE, TONAL_TOP = 77.0, 93.0, 111.0  # MIDI (700 Hz, 1.8 and 5 kHz)
BURST_STEPS, BURST_DEPTH, MOST_BURSTS = 9, 8.0, 11.0  # of fine levels, 26 ms; dB; a second
GRAINS = (1.9, 3.0, 5.0)  # dB; of steady noise 1.4 to 1.8
VOICED = 0.6  # periodicity, from which a frame is a voice's (1.8 dB of harmonics over noise)


class Envelope(NamedTuple):
    """How a sound comes and goes, in s."""

    rise: float
    held: float  # within FULL of its peak
    falls: tuple[float, ...]  # to each of FALLS that it falls to, from where it was full last


def envelope_of(fine: np.ndarray, rate: float) -> Envelope:
    """The envelope of levels in dB [n]; without falls if it is held until it is cut."""
    level = decibels(smooth_rows(10 ** (fine / 10), 3))
    top = level.max()
    full = np.flatnonzero(level > top - FULL)
    rise = (full[0] - np.argmax(level > top - BEGUN)) / rate
    # Below a level for good, so that a dip is no fall.
    rest = np.maximum.accumulate(level[full[-1] :][::-1])[::-1] - top
    falls = tuple(int(np.argmax(rest < -fall)) / rate for fall in FALLS if rest[-1] < -fall)
    cut = not falls or full[-1] / rate + falls[0] > 0.9 * len(level) / rate
    return Envelope(float(rise), float(full[-1] - full[0]) / rate, () if cut else falls)


def envelope_words(shape: Envelope) -> str:
    """An envelope as text."""
    words = f"full after {shape.rise:.2f} s" if shape.rise > 0.006 else "full at once"
    if not shape.falls:
        return f"{words}, held to its end"
    words += f", held {shape.held:.2f} s" if shape.held > 0.05 else ""
    depths = "/".join(map(str, FALLS[: len(shape.falls)]))
    times = "/".join(f"{fall:.2f}" for fall in shape.falls)
    return f"{words}, then falls {depths} dB within {times} s"


def octave_shares(rows: Spectra) -> tuple[float, ...]:
    """Share of power [8] in the octaves of 63 Hz to 8 kHz where a sound is loud."""
    loud = loud_frames(rows, 15)
    power = np.add.reduceat(mel_power(rows)[loud].mean(axis=0), OCTAVE_STARTS)
    return tuple((power / power.sum()).tolist())


def in_one_octave(midi: np.ndarray) -> np.ndarray:
    """A pitch [n] without leaps of octaves (errors mostly), in the octave of most of it."""
    steps = np.diff(midi, prepend=midi[:1])
    course = midi[0] + np.cumsum(steps - 12 * np.rint(steps / 12))
    return course + 12 * np.rint(np.median(midi - course) / 12)


def pitch_track(rows: Spectra) -> tuple[str, np.ndarray]:
    """What kind of pitch most of a sound has, if it has one, and its course in MIDI numbers."""
    loud = loud_frames(rows, 10)
    spot, share = ridge(rows)
    # Above 2 kHz the mel bands are as fine as a semitone, and reach beyond the pitches; what
    # moves fast has no partials there, but all its power in one place.
    sure = (share > 0.85) | ((spot < TONAL_TOP) & (rows.tonal > 0.3))
    line = loud & (share > 0.7) & (spot > HIGH_LINE) & sure
    series = loud & (rows.unity > 0.6) & (rows.tonal > 0.4) & (rows.series > 0)
    # Of a pitch that moves or is rough no series stands for as long as its window.
    periodic = loud & (rows.voicing[:, 0] > VOICED)
    voice = 69 + 12 * np.log2(np.maximum(rows.voicing[:, 1], 1.0) / 440)
    # What rings near 1 kHz seems periodic too, but no voice is so high for long.
    periodic &= np.median(voice[periodic]) < HIGHEST_VOICE if periodic.any() else periodic
    kinds = (
        ("one narrow line,", line, lambda: spot[line]),
        ("harmonic, pitch", series, lambda: in_one_octave(rows.series[series])),
        ("voiced, pitch", periodic, lambda: in_one_octave(voice[periodic])),
    )
    least = max(4, 0.45 * loud.sum())
    found = ((kind, course()) for kind, heard, course in kinds if heard.sum() >= least)
    return next(found, ("", np.zeros(0)))


class Pitch(NamedTuple):
    """The pitch of one sound."""

    kind: str  # "" if there is none
    hz: float  # the usual one, 0 if there is none
    moves: bool  # by more than a semitone
    course: tuple[float, ...]  # MIDI numbers, by fifths of its time, or thirds


def pitch_of(rows: Spectra) -> Pitch:
    """What pitch a sound has, in short."""
    kind, midi = pitch_track(rows)
    if not kind:
        return Pitch("", 0.0, False, ())
    parts = np.array_split(midi, 5 if len(midi) > 9 else 3)
    moves = bool(np.ptp(np.percentile(midi, (15, 85))) > 1.2)
    course = tuple(float(np.median(part)) for part in parts)
    return Pitch(kind, float(to_hertz(np.median(midi))), moves, course)


def pitch_words(one: Pitch) -> str:
    """Where a pitch goes, in Hz, or that it stays."""
    if np.ptp(one.course) < 0.7:
        return f"{one.kind} steady at {to_hertz(np.median(one.course)):.0f} Hz"
    return f"{one.kind} {' '.join(f'{to_hertz(x):.0f}' for x in one.course)} Hz"


def standing_peaks(rows: Spectra) -> tuple[float, ...]:
    """Hz of the narrow peaks in the spectrum of what rings after the loudest moment."""
    peak = int(rows.level.argmax())
    after = slice_rows(rows, min(peak + 2, len(rows.level) - 1))
    ringing = after.level > rows.level[peak] - 30
    if ringing.sum() < 4 or after.tonal[ringing].mean() < 0.35:
        return ()
    level = decibels(mel_power(after)[ringing].mean(axis=0))
    sides = np.pad(level, 2, mode="edge")
    over = level - np.maximum(sides[:-4], sides[4:])
    highest = widened(level[None])[0] == level
    tops = np.flatnonzero((over > 6) & (level > level.max() - 20) & highest)
    strongest = np.sort(tops[np.argsort(-level[tops])][:MOST_STANDING])
    return tuple(MEL_CENTRES[strongest].tolist())


def pulse_rate(fine: np.ndarray, rate: float) -> float:
    """How often a second the amplitude of levels in dB [n] swings, 8-90 Hz; 0 if not clearly."""
    if len(fine) < PULSE_STEPS:
        return 0.0
    windows = sliding(10 ** (fine / 20), PULSE_STEPS)[:: PULSE_STEPS // 4]
    weights = np.hanning(PULSE_STEPS + 2)[1:-1]
    mean = windows @ weights / weights.sum()
    swings = np.abs(np.fft.rfft((windows - mean[:, None]) * weights, 2 * PULSE_STEPS, axis=1))
    power = 4 * (swings**2).sum(axis=0) / ((mean * weights.sum()) ** 2).sum()
    hz = np.arange(len(power)) * rate / (2 * PULSE_STEPS)
    inside = np.flatnonzero((hz > 8) & (hz < 90))
    top = int(inside[power[inside].argmax()])
    around = np.median(power[max(top - 24, 4) : top + 25])
    # Of few windows the spectrum of noise has peaks of its own.
    over = 10 * math.log10((power[top] + 1e-12) / (around + 1e-12))
    clear = over > PULSE_CLEAR * (1 + 1 / math.sqrt(len(windows))) and power[top] > PULSE_DEPTH**2
    return float(hz[top]) if clear and inside[0] < top < inside[-1] else 0.0


def burst_times(fine: np.ndarray, rate: float) -> tuple[float, ...]:
    """When a sound of such levels in dB [n] swells anew within, in s; none if that is no course."""
    level = decibels(smooth_rows(10 ** (fine / 10), BURST_STEPS))
    level = np.maximum(level, level.max() - 30)
    times = tuple(at / rate for at, _ in maxima(level, BURST_DEPTH))
    some = len(times) > 2 and 1 < 1 / np.diff(times).mean() < MOST_BURSTS
    return times if some else ()


def burst_words(times: Sequence[float]) -> str:
    """How many bursts there are at times in s, how fast they come, and whether evenly."""
    gaps = np.diff(times)
    even = gaps.std() < 0.12 * gaps.mean()
    trend = 0.0 if even or len(gaps) < 4 else np.corrcoef(np.arange(len(gaps)), gaps)[0, 1]
    pace = "even" if even else graded(trend, (-0.8, 0.8), "quickening uneven slowing")
    return f"{len(times)} bursts, {1 / gaps.mean():.1f} a second, {pace}"


def grain_of(fine: np.ndarray) -> float:
    """How rough levels in dB [n] are within 26 ms, as their deviation in dB."""
    return float(np.std((fine - smooth_rows(fine, BURST_STEPS))[fine > fine.max() - 25]))


class Within(NamedTuple):
    """What one sound is like within; times in s, shares 0-1."""

    seconds: float
    shape: Envelope
    tone: Pitch
    voiced: float  # share of its loud time that is periodic
    pulses: float  # a second
    bursts: tuple[float, ...]  # s
    tonal: float
    peaks: tuple[float, ...]  # Hz, that ring
    grain: float  # dB
    octaves: tuple[float, ...]  # shares of power of 63 Hz to 8 kHz

    @property
    def pitch(self) -> str:
        """Kind of its pitch, "" if it has none."""
        return self.tone.kind

    @property
    def hz(self) -> float:
        """Its usual pitch; 0 if it has none."""
        return self.tone.hz

    @property
    def moves(self) -> bool:
        """Whether its pitch moves by more than a semitone."""
        return self.tone.moves

    @property
    def low(self) -> float:
        """Share of power below 354 Hz."""
        return sum(self.octaves[:3])

    @property
    def high(self) -> float:
        """Share of power above 1.4 kHz."""
        return sum(self.octaves[5:])

    @property
    def deep(self) -> bool:
        """Whether it has a pitch below 120 Hz, and low power to match."""
        return 0 < self.hz < 120 and self.low > 0.3

    @property
    def pure(self) -> bool:
        """Whether nearly all its power lies in one octave."""
        return max(self.octaves) > 0.95

    @property
    def struck(self) -> bool:
        """Whether it begins at once and dies away."""
        return self.shape.rise < 0.09 and self.shape.held < 0.22 and len(self.shape.falls) > 1

    @property
    def dry(self) -> bool:
        """Whether it is over at once, too."""
        return self.struck and self.shape.held + self.shape.falls[1] < 0.15


LIKENESSES: Ladder = (  # what makes such sounds; the signs are of real recordings of them
    ("a bell, a bar or a string, struck or plucked",
     lambda w: w.hz > 120 and w.struck and not (w.dry or w.moves)),
    ("a whistle, a bird or a beep", lambda w: w.pitch.startswith("one")),
    ("a knock on what has a pitch: wood, a bar, a pipe",
     lambda w: w.hz > 120 and w.dry and not w.pure),
    ("strokes or beeps of one pitch",
     lambda w: w.pitch and not w.moves and len(w.bursts) > max(2, 2.5 * w.seconds)),
    ("a dull thud or a drum", lambda w: w.deep and w.shape.held < 0.4 and w.shape.falls),
    ("an engine, a motor or a growl", lambda w: w.deep and w.hz < 100 and w.seconds > 0.6),
    ("a trill, a roll, a ratchet or chirping", lambda w: 14 < w.pulses < 30 and not w.struck),
    ("a growl, a purr, a motor or a buzz",
     lambda w: w.pulses >= 30 and not (w.pitch or w.struck)),
    ("a low voice, an animal or an engine", lambda w: w.pitch and w.moves and w.hz < 180),
    ("a siren, a voice or an animal's call", lambda w: w.pitch and w.moves and w.seconds > 2.5),
    ("a voice or an animal's call", lambda w: w.pitch and w.moves and w.seconds > 0.15),
    ("a beep, a whistle or a hum", lambda w: w.pitch and w.pure),
    ("a horn, a beep, a hum, or a voice that holds its pitch", lambda w: w.pitch),
    ("a dull thud: something heavy or soft", lambda w: w.dry and w.low > 0.5),
    ("a click or tick: small and hard", lambda w: w.dry and w.high > 0.5),
    ("a dry knock: wood, stone, plastic, a step", lambda w: w.dry),
    ("metal, glass or a drum that rings",
     lambda w: w.struck and w.tonal > 0.6 and w.low < 0.7),
    ("a boom or a slam", lambda w: w.struck and w.low > 0.5),
    ("a splash, a smash or a spray", lambda w: w.struck and w.high > 0.5),
    ("a shot, a slap, a crash or a splash", lambda w: w.struck),
    ("a rough voice, laughter, a squeak or a creak", lambda w: w.voiced > 0.25 and w.low < 0.5),
    ("booms or rolls in bursts: thunder, fire, a train",
     lambda w: w.low > 0.5 and w.seconds > 1.2 and len(w.bursts) > 3),
    ("strokes, steps, a crackle or a rattle",
     lambda w: len(w.bursts) > 3 and (w.grain > 3 or len(w.bursts) > 2 * w.seconds)),
    ("a thump, a thud or a boom", lambda w: w.low > 0.6 and w.seconds < 1.2),
    ("a scrape, a rub, a cough or a whoosh", lambda w: w.seconds < 1.2),
    ("a rumble: thunder, wind, surf, traffic, a jet", lambda w: w.low > 0.5),
    ("a crackle or a rattle: fire, gravel, sparks", lambda w: w.grain > 3),
    ("a hiss: rain, surf, spray, steam, air", lambda w: w.high > 0.5),
    ("rushing water or air, or a machine", lambda w: True),
)  # fmt: skip


def look_within(rows: Spectra, frame_rate: float) -> Within:
    """Measure one sound from all its rows."""
    fine, rate = rows.fine.ravel().astype(np.float64), frame_rate * FINE_STEPS
    loud, octaves = loud_frames(rows, 15), octave_shares(rows)
    # Of what is all bass each period is a pulse.
    pulses = pulse_rate(fine, rate) if sum(octaves[:2]) < 0.6 else 0.0
    return Within(
        len(rows.level) / frame_rate, envelope_of(fine, rate), pitch_of(rows),
        float((rows.voicing[loud, 0] > VOICED).mean()), pulses, burst_times(fine, rate),
        loud_mean(rows.tonal, rows.level), standing_peaks(rows), grain_of(fine), octaves,
    )  # fmt: skip


def portrait(one: Within, *, held: bool = False) -> str:
    """What one sound is like within, in words; of what is `held` not how it comes and goes."""
    course = burst_words(one.bursts) if len(one.bursts) else envelope_words(one.shape)
    # Faster ones of a tone are its partials' beats.
    pulses = 0 < one.pulses < (40 if one.pitch else 90)
    rings = "rings at " + " ".join(map(hertz_words, one.peaks)) if one.peaks else ""
    grain = f"{graded(one.grain, GRAINS, 'smooth uneven grainy crackling')} within 26 ms"
    texture = graded(one.tonal, (0.35, 0.65), "noise part-tonal tonal")
    octaves = " ".join(f"{x:.0f}" for x in decibels(np.array(one.octaves) / max(one.octaves)))
    words = (
        f"like {first_rung(LIKENESSES, one)}",
        "" if held and not len(one.bursts) else course,
        pitch_words(one.tone) if one.pitch else f"{texture}, {rings}".strip(", "),
        f"pulses {one.pulses:.0f} times a second" if pulses else "",
        grain if one.seconds > 0.5 and not one.pitch else "",
        f"octaves 63 Hz-8 kHz {octaves} dB",
    )
    return f"{words[0]}; " + ", ".join(filter(None, words[1:]))


def observe_portraits(spectra: Spectra, events: Sequence[Event], frame_rate: float) -> Findings:
    """What the loudest sound of each train of events is like within; of no events, the whole."""
    span = span_of(spectra, frame_rate)
    # Speech has words of its own; of a very long sound not every row is kept.
    thinned = frame_rate < 0.9 / HOP_FRACTION
    if thinned or seconds_of(events, PHRASE) > 0.5 * seconds_of(events):
        return []
    if not events:
        within = look_within(spectra, frame_rate)
        text = f"it is: {portrait(within, held=True)}"
        return [Observation("portrait", *span, within, 0.6, text)]
    trains = group_events([event for event in events if event.character != PHRASE])
    loudest = sorted((max(train, key=lambda e: e.peak) for train in trains), key=lambda e: -e.peak)
    found = []
    for one in loudest:
        start, stop = one.frames(frame_rate)
        rows = slice_rows(spectra, max(start - 1, 0), stop + 1)
        if len(rows.level) < LEAST_ROWS or len(found) == MOST_PORTRAITS:
            continue
        within = look_within(rows, frame_rate)
        name = f"the {one.character} at {one.start:.1f} s" if len(events) > 1 else "it is"
        text = f"{name}: {portrait(within)}"
        found.append(Observation("portrait", one.start, one.stop - one.start, within, 0.6, text))
    return found


VOICE_NAMES = {"L": "low", "M": "middle", "H": "high"}


def voice_cuts(known: np.ndarray) -> np.ndarray:
    """Where two or three voices part, from phrases' median pitches in octaves [n]."""
    # One speaker's phrases lie near each other: at the widest gaps, of four semitones or more.
    order = np.sort(known)
    gaps = np.argsort(-np.diff(order), kind="stable")[:2]
    cuts = np.sort([order[k : k + 2].mean() for k in gaps if order[k + 1] - order[k] > 1 / 3])
    return cuts if len(cuts) else np.array([(order[0] + order[-1]) / 2])


def voice_turns(pitches: Sequence[float]) -> str:
    """Whose turn it is, in words, in phrases of such median pitches in Hz (0: unknown)."""
    known = np.log2([hz for hz in pitches if hz])
    if not len(known):
        return "voice pitch not clear"
    if np.ptp(known) * 12 < 5:  # semitones; one speaker's phrases differ by less
        middle = float(2 ** np.median(known))
        # Men speak at about 90 to 155 Hz, women at about 165 to 255 Hz.
        voice = "low voice (male range)" if middle < 160 else "high voice (female or child range)"
        return f"one voice, median pitch {middle:.0f} Hz: {voice}"
    cuts = voice_cuts(known)
    letters = "LMH" if len(cuts) == 2 else "LH"
    turns = " ".join(
        "?" if not hz else letters[np.searchsorted(cuts, math.log2(hz))] for hz in pitches
    )
    places = np.searchsorted(cuts, known)
    heard = ", ".join(
        f"{letter} {VOICE_NAMES[letter]} {2 ** known[places == k].mean():.0f} Hz"
        for k, letter in enumerate(letters)
    )
    count = "three" if len(cuts) == 2 else "two"
    return f"{count} voices in turn: {turns} ({heard})"


def one_voice(course: np.ndarray) -> float:
    """Median in Hz of pitches that slide (MIDI), 0 where they may be of several voices, or none."""
    if len(course) < 12 or np.subtract(*np.percentile(course, (90, 10))) > 9:
        return 0.0
    return float(to_hertz(np.median(course)))


def voices_told(pitches: Sequence[float], course: np.ndarray) -> str:
    """Who speaks, in words, from phrases' pitches (Hz, 0: unknown), and all that slides."""
    words = voice_turns(pitches)
    if not any(pitches):
        return words
    low, high = percentile_hertz(course, 10, 90)
    # One speaker hardly spans an octave.
    if high > 1.9 * low:
        words = words.replace("one voice", "one voice, or several that are not told apart")
    return f"{words}, sliding pitch, mostly {low:.0f}-{high:.0f} Hz"


def observe_voices(spectra: Spectra, events: Sequence[Event], *, frame_rate: float) -> Findings:
    """Where somebody speaks, how fast, and whose turn it is by median pitch."""
    phrases = [e for e in events if e.character == PHRASE]
    if not phrases:
        return []
    cuts = [event.frames(frame_rate) for event in phrases]
    syllables = sum(count_syllables(spectra, *cut) for cut in cuts)
    rate, count = syllables / seconds_of(phrases), len(phrases)
    span = (phrases[0].start, phrases[-1].stop - phrases[0].start)
    times = " ".join(f"{e.start:.1f}-{e.stop:.1f}" for e in phrases[:12])
    pauses = "phrases with pauses between" if count > 1 else "stretch"
    text = f"speech-like: {count} {pauses}, {times} s, about {rate:.0f} syllables/s"
    spoken = tuple(Stretch(e.start, e.stop, PHRASE) for e in phrases)
    speech = Observation("speech", *span, spoken, 0.85, text)
    course = np.concatenate([voice_course(slice_rows(spectra, *cut)) for cut in cuts])
    pitches = tuple(event.hz for event in phrases)
    # Single words are too short for a pitch each.
    pitches = pitches if any(pitches) else (one_voice(course),)
    return [speech, Observation("voice", *span, pitches, 0.75, voices_told(pitches, course))]


def observe_glide(spectra: Spectra, frame_rate: float) -> Findings:
    """Pitch or brightness that cycles like a siren, or one tone that glides; of no speech."""
    course = glide_observation(spectra, 0.0, frame_rate)
    if not is_gliding(spectra, frame_rate):
        return [course] if course else []
    centre = glide_course(spectra)
    low, high = np.percentile(centre, [2, 98])
    place = (centre - low) / (high - low + 1e-9)
    far = np.flatnonzero((place > 0.65) | (place < 0.35))  # so that no trembling crosses twice
    times = far[run_starts(place[far] > 0.5)][1:] / frame_rate
    # Ways up and ways down apart, because a siren may rise faster than it falls.
    spans = [spacing(way)[0] for way in (times[::2], times[1::2]) if len(way) > 1]
    cycle = float(np.mean(spans)) if spans else 0.0
    if course and not cycle:
        return [course]
    text = f"one full up-and-down cycle every {cycle:.2f} s" if cycle else "not a whole cycle"
    reach = "-".join(hertz_words(2 ** (x / 12)) for x in (low, high))
    text = f"pitch sweeps smoothly like a siren, {reach}, {text}"
    slide = Slide(*(float(2 ** (x / 12)) for x in (low, high)), cycle)
    return [Observation("glide", *span_of(spectra, frame_rate), slide, 0.9, text)]


BED_SILENT = -75.0  # dBFS, below which what lies between sounds is nothing


def bed_between(spectra: Spectra) -> tuple[float | None, float]:
    """Level in dB and tonality of what lies between sounds; no level where nothing does."""
    quiet = ~sounding(spectra)
    # The windows of frames beside a sound hold its edge, and its echo rings on: what is always
    # there is what is left at the quietest.
    inner = quiet & np.roll(quiet, 4) & np.roll(quiet, -4)
    if inner.mean() < 0.05:  # of the time; less is but the edges of sounds
        return None, 0.0
    level = float(np.percentile(spectra.level[inner], 20))
    return level, float(spectra.tonal[inner & (spectra.level < level + 6)].mean())


def backdrop(spectra: Spectra, spoken: np.ndarray, frame_rate: float) -> str:
    """What goes on beneath speech: music, drums or noise; nothing if it is alone or in turn."""
    if not spoken.any():
        return ""
    # What belongs to a phrase may lie 0.7 s outside, what belongs to a word 0.1 s.
    for reach in (0.7, 0.1):
        outside = smooth_rows(spoken.astype(float), 2 * int(reach * frame_rate) + 1) < 0.01
        if outside.sum() >= 1.5 * frame_rate:
            break
    low, top = np.percentile(spectra.level[spoken], (5, 95))
    heard = outside & (spectra.level > top - 45)
    if outside.sum() < 1.5 * frame_rate:
        # Nothing to compare with: only what fills each pause can be told.
        heard, low = spoken & (spectra.level < low + 6), low - 10
    # In what is said alone the pauses are near-silent.
    if low < top - 40 or heard.sum() < 0.5 * max(outside.sum(), 1):
        return ""
    if np.median(spectra.tonal[heard]) > 0.6:
        return "music"
    return "drums" if np.ptp(np.percentile(spectra.level[heard], (20, 95))) > 10 else "noise"


# Ranges of the medians of SPEECH_SIGNS, and what they are told as. Steady noise lies below both
# in its changes, drops, claps and fire above.
MURMURS = (
    ("whisper", ((0, 0.02), (4.5, 13), (4.8, 8), (0, 0.1), (0.12, 0.3), (0.3, 0.75), (0, 0.1)),
     "noise that changes colour and loudness as syllables do, without pitch: whisper-like"),
    ("babble",
     ((0, 0.2), (2.2, 5.5), (3.4, 6), (0.06, 0.13), (0.34, 0.56), (0.06, 0.25), (0.04, 0.4)),
     "noise-like mixture with unsteady pitches and a flutter as of many syllables: babble-like"),
)  # fmt: skip


def observe_murmur(spectra: Spectra, frame_rate: float) -> Findings:
    """Whisper, or many voices at once, as far as the rows can show it; of no clear speech."""
    # Where 2.5-8 Hz has a third of the modulation, or less, there are no syllables.
    if loud_mean(spectra.syllabic, spectra.level) < 0.36:
        return []
    usual = np.median(speech_signs(spectra, frame_rate)[0], axis=1)
    for kind, ranges, text in MURMURS:
        low, high = np.array(ranges).T
        if ((usual >= low) & (usual <= high)).all():
            span = span_of(spectra, frame_rate)
            return [Observation("speech", *span, (Stretch(*span, kind),), 0.6, text)]
    return []


MOST_STEPS = 12  # events that are told in order


def observe_trains(events: Sequence[Event]) -> Findings:
    """Trains of like events that are no speech, and what comes after what."""
    trains = group_events([event for event in events if event.character != PHRASE])
    found = list(map(observe_train, trains))
    if len(trains) < 3:
        return found
    trains = sorted(trains, key=lambda train: train[0].start)
    peaks = [max(event.peak for event in train) for train in trains]
    clear = max(peaks) > sorted(peaks)[-2] + LOUDER
    steps = [
        f"{train[0].start:.1f}-{train[-1].stop:.1f} s "
        + (f"{len(train)} {train[0].character}s" if len(train) > 1 else train[0].character)
        + f" {peak:.0f} dB{' (loudest)' * (clear and peak == max(peaks))}"
        for train, peak in zip(trains[:MOST_STEPS], peaks)
    ]
    text = f"events in order: {'; '.join(steps)}{' …' * (len(trains) > MOST_STEPS)}"
    last = max(event.stop for train in trains for event in train)
    span = trains[0][0].start, last - trains[0][0].start
    kinds = tuple(Stretch(t[0].start, t[-1].stop, t[0].character) for t in trains)
    return [Observation("sequence", *span, kinds, 0.8, text), *found]


def observe_events(spectra: Spectra, events: Sequence[Event], *, frame_rate: float) -> Findings:
    """Trains of like events, and what lies between."""
    found = observe_trains(events)
    level, tonal = bed_between(spectra)
    if level is not None:
        bed = f"a faint {'noise' if tonal < 0.45 else 'tonal'} bed, {level:.0f} dB"
        text = f"between the sounds: {'silence' if level < BED_SILENT else bed}"
        span = span_of(spectra, frame_rate)
        found.append(Observation("bed", *span, level, 0.8, text))
    return found


def observe_swells(spectra: Spectra, frame_rate: float) -> Findings:
    """Slow maxima of the loudness of noise-like sound: gusts, waves."""
    course = loudness_course(spectra.level, frame_rate)
    highs = maxima(smooth_rows(np.maximum(course, course.max() - 30), 7), 6.0)
    times = [k * STEP for k, _ in highs]
    if len(highs) < 2 or median_gap(times) < 1.2:
        return []
    depth = np.median([depth for _, depth in highs])
    text = f"{len(highs)} slow swells (gusts or waves) of noise, {depth:.0f} dB deep"
    text += f", peaks at {seconds_words(times)}"
    return [Observation("swells", times[0], times[-1] - times[0], tuple(times), 0.85, text)]


def find_pauses(level: np.ndarray, frame_rate: float) -> list[tuple[int, int]]:
    """The few silences within what is heard of a sound: first frame, and frame after the last."""
    typical = np.median(level[level > level.max(initial=LEVEL_FLOOR) - 25])
    still = level < min(typical - PAUSE_DEPTH, PAUSE_LEVEL)
    found = [
        (start, stop)
        for silent, start, stop in runs(still)
        if silent and stop - start >= PAUSE_SECONDS * frame_rate
    ]
    return found if len(found) <= MOST_PAUSES else []


def course_words(level: np.ndarray, begin: float, frame_rate: float) -> str:
    """Levels by ninths of a sound that begins at `begin` s, and its loudest moment; "" if short."""
    seconds = len(level) / frame_rate
    if seconds < LEVEL_SECONDS:
        return ""
    levels = " ".join(f"{mean_db(part):.0f}" for part in np.array_split(level, 9))
    loudest = begin + (int(smooth_rows(10 ** (level / 10), 17).argmax()) + 0.5) / frame_rate
    from_time = f" from {begin:.0f} s" * (begin >= 1)
    return f": {levels} dB by {seconds / 9:.1f} s{from_time}, loudest at {loudest:.1f} s"


def loudness_trend(course: np.ndarray) -> tuple[str, float]:
    """Whether loudness stays, grows or fades, in words, and how sure that is."""
    fifths = [mean_db(part) for part in np.array_split(course, 5)]
    total = fifths[-1] - fifths[0]
    moves = np.sign(total) * np.diff(fifths)
    # A fade may rest for a fifth, but must not turn back.
    if abs(total) > 6 and (moves > 0.5).sum() >= 3 and moves.min() > -2:
        return f"{'grows' if total > 0 else 'fades'} throughout", 0.85
    return "steady" if np.ptp(fifths) < 5 else "varies", 0.8


def fade_seconds(course: np.ndarray) -> float:
    """Seconds in which loudness [n], a row every STEP, comes up from its beginning; 0: at once."""
    level = decibels(smooth_rows(10 ** (course / 10), 11))
    typical = np.median(level[level > level.max() - 25])
    rise = int(np.argmax(level >= typical - 4))
    if rise < FADE_SECONDS / STEP or level[0] > typical - FADE_DEPTH:
        return 0.0
    return rise * STEP if np.corrcoef(np.arange(rise), level[:rise])[0, 1] > 0.85 else 0.0


def observe_fades(course: np.ndarray, span: tuple[float, float]) -> Findings:
    """Whether a sound of such loudness fades in where it begins, and out where it ends."""
    fades_in, fades_out = fade_seconds(course), fade_seconds(course[::-1])
    told = [f"in over the first {fades_in:.0f} s"] * bool(fades_in)
    told += [f"out over the last {fades_out:.0f} s"] * bool(fades_out)
    if not told:
        return []
    text = f"fades {' and '.join(told)}"
    return [Observation("fade", *span, (fades_in, fades_out), 0.85, text)]


def rings_on(course: np.ndarray, jump: tuple[float, str, float]) -> bool:
    """Whether loudness [n], a row every STEP, drops for good: what is left dies away."""
    after = course[int(jump[0] / STEP) + 3 :]
    return jump[2] < 0 and bool(np.all(after - np.minimum.accumulate(after) < 3))


def observe_loudness(spectra: Spectra, events: Sequence[Event], *, frame_rate: float) -> Findings:
    """How loudness goes over time, in words and by ninths; where it jumps, where it is silent."""
    # Silence before and after is no part of it.
    heard = heard_span(spectra.level)
    level, begin = spectra.level[heard], heard.start / frame_rate
    # Who speaks pauses; the phrases tell.
    pauses = [] if seconds_of(events, PHRASE) else find_pauses(level, frame_rate)
    sounding = np.ones(len(level), dtype=bool)
    for start, stop in pauses:
        sounding[start:stop] = False
    at = np.flatnonzero(sounding) / frame_rate + begin
    course = loudness_course(level[sounding], frame_rate)
    if len(course) < 5:
        return []
    typical, (trend, sure) = mean_db(course), loudness_trend(course)
    value = Loudness(trend, typical)
    head = f"{value.words(' overall' * (trend == 'steady'))}, typically {typical:.0f} dB"
    text, seconds = head + course_words(level, begin, frame_rate), len(level) / frame_rate
    found = [Observation("loudness", begin, seconds, value, sure, text, head)]
    found += observe_fades(course, (begin, seconds))
    if pauses:
        ends = ((begin + a / frame_rate, begin + b / frame_rate) for a, b in pauses)
        stretches = tuple(Stretch(*span, "silence") for span in ends)
        silent = ", ".join(f"{part.start:.1f}-{part.stop:.1f} s" for part in stretches)
        first, last = stretches[0].start, stretches[-1].stop
        text = f"silence at {silent}, then sound goes on"
        found.append(Observation("pause", first, last - first, stretches, 0.9, text))
    jumps = find_jumps(level[sounding], frame_rate)
    for place, words, depth in itertools.filterfalse(functools.partial(rings_on, course), jumps):
        when = float(at[min(int(place * frame_rate), len(at) - 1)])
        text = f"loudness suddenly {words} by {abs(depth):.0f} dB at {when:.1f} s"
        found.append(Observation("jump", when, 0.0, depth, 0.85, text))
    return found


def observe_changes(spectra: Spectra, onsets: Sequence[Onset], *, frame_rate: float) -> Findings:
    """Layers that enter or stop while the sound goes on."""
    heard, found = heard_span(spectra.level), []
    span = heard.start / frame_rate, heard.stop / frame_rate
    for at, words in find_layer_changes(onsets, span):
        text = f"{words} at {at:.1f} s"
        if words == STOPS:
            text = f"everything rhythmic stops at {at:.1f} s, a held sound goes on"
        found.append(Observation("change", at, 0.0, words, 0.8, text))
    return found


def noise_words(spectra: Spectra, frame_rate: float) -> tuple[str, str]:
    """Colour of a sound that is mostly noise, and that with its slope and band limits."""
    power = mel_power(spectra).mean(axis=0)
    # Bands widen with frequency: a colour is told from power a hertz.
    density = 10 * np.log10(power / (MEL_EDGES[2:] - MEL_EDGES[:-2]) + 1e-15)
    inside = density > density.max() - 12
    low, high = MEL_CENTRES[inside][[0, -1]]
    steady = "steady " if np.std(loudness_course(spectra.level, frame_rate)) < 1.5 else ""
    text, colour = f"{steady}noise", "in a narrow band"
    if inside.sum() > 8:
        slope = float(np.polyfit(MEL_OCTAVES[inside], density[inside], 1)[0])
        # White noise falls by 0, pink by 3 and brown by 6 dB an octave; the borders lie between.
        colour = graded(slope, (-4.5, -1.7), "brown pink white") + "-like"
        text += f", {colour} ({slope:+.0f} dB/octave)"
    return colour, f"{text}, {hertz_words(low)}-{hertz_words(high)}"


class Nature(NamedTuple):
    """What tells kinds of sound apart; shares are 0-1."""

    spoken: float  # of the events' time
    gliding: bool  # or whispering, or many voices
    struck: float  # of the onsets, hits of drums
    stroked: float  # the same, with strokes of no clear kind
    kinds: int  # of hits
    kit: bool  # whether kicks, snares, toms or cymbals are among them
    rate: float  # onsets a second
    dies: bool  # whether what sounds dies away between onsets
    even: bool  # whether the loudness stays the same
    alike: bool  # whether hits of a kind are alike, as a consonant is not like the next
    beat: float  # confidence
    melody: float  # of the loud time in held notes, times how well these fit one semitone grid
    pitches: int  # different notes held
    tonal: float
    unity: float
    veiled: bool  # whether noise is alone between what sounds
    toned: bool  # whether one line of tones makes up the events, and these are no beeps
    bare: bool  # whether drums would be heard, if there were any

    @property
    def tuned(self) -> bool:
        """Whether notes are played: of several pitches, held, and in tune with each other."""
        # Speech and sirens are held or in tune, never both: they stay below 0.2. Cymbals ring.
        several = self.pitches > (1 if self.struck > 0 and self.tonal > 0.75 else 2)
        # A ride cymbal is tonal, but of no one pitch.
        ride = self.struck > 0.85 and self.unity < 0.4 and self.melody < 0.55
        rung = ride or (self.struck > 0.6 and self.tonal < 0.65)
        sung = self.melody > 0.27 and several and not rung
        return sung and not (self.gliding or self.veiled)

    @property
    def drummed(self) -> bool:
        """Whether drums play and little else; no drummer plays 8 hits a second for long."""
        # Drums that ring into each other must be clear by their beat.
        dies = self.dies or (self.struck > 0.9 and self.beat > 0.9)
        steady = self.beat > 0.25 and self.rate < 8 and dies
        sure = self.alike or self.beat > 0.9 or self.many
        return self.stroked > self.scarce and steady and sure and not (self.tuned or self.gliding)

    @property
    def many(self) -> bool:
        """Whether several drums make most of the onsets."""
        clear = self.struck > 0.7 and self.kinds > 1
        return clear or (self.stroked > 0.9 and self.kinds > 2)

    @property
    def scarce(self) -> float:
        """Share of hits among the onsets that is too small for drums alone."""
        # Syllables are struck too, but not all of them, and in no strict time.
        if self.spoken > 0.3:
            return 0.65 if self.beat > 0.99 else 0.8 if self.beat > 0.9 else 0.85
        return 0.65

    @property
    def sure(self) -> float:
        """Confidence in the kind: how far from the border between notes and none it lies."""
        if self.drummed or self.spoken > 0.5:
            return 0.9 if self.kinds != 1 or self.spoken > 0.5 else 0.55
        far = self.melody - 0.27 if self.tuned or self.hums else 0.27 - self.melody
        # Notes with drums: a string's clicks were taken for them in a quarter of the trials.
        return float(np.clip(0.55 + far, 0.5, 0.75 if self.struck else 0.95))

    @property
    def hums(self) -> bool:
        """Whether one tone is all there is."""
        return self.pitches == 1 and self.melody > 0.75 and not self.struck

    @property
    def plain(self) -> bool:
        """Whether one or two tones that do not change are all there is."""
        return self.hums or self.wails

    def believed(self, voices: Findings) -> Findings:
        """What is said of voices, unless drums play: in strict time they pass for syllables."""
        return [] if self.drummed and self.spoken > 0.3 else voices

    @property
    def tolls(self) -> bool:
        """Whether that tone is struck again and again."""
        return self.hums and self.toned and self.dies

    @property
    def wails(self) -> bool:
        """Whether two tones take turns and nothing else changes, as in no music."""
        return self.pitches == 2 and self.toned and self.melody > 0.7 and self.even


class Heading(NamedTuple):
    """What a sound reads as."""

    words: str
    heard: tuple[str, ...]  # the value of "sound", see FACTS


SPEECH = Heading("speech-like: someone talking", ("speech",))
SCENE = Heading("environmental, mechanical or electronic sound", ("sounds",))
STROKE = Heading(f"{SCENE.words}: a single short click or hit", ("sounds",))
NATURES: Ladder = (
    (Heading("speech-like: someone talking, and drum-like hits", ("speech", "drums")),
     lambda n: n.spoken > 0.3 and n.struck > 0.4 and n.kinds > 1 and n.beat > max(0.5, n.drummed)),
    (Heading("drums or percussion alone", ("drums",)),
     lambda n: n.drummed and n.kinds > 1 and n.kit),
    (Heading("drums or percussion alone, or steps, ticks, knocks in time", ("drums",)),
     lambda n: n.drummed and n.kinds > 1),
    (Heading("drums or percussion alone: one kind of hit (or knocks, ticks, steps)", ("drums",)),
     lambda n: n.drummed),
    (SPEECH, lambda n: n.spoken > 0.5),
    (Heading("pitched notes with drum-like hits", ("notes", "drums")),
     lambda n: n.tuned and n.struck > 0),
    (Heading(f"{SCENE.words}: two tones in turn, as a two-tone siren or alarm", ("tone",)),
     lambda n: n.wails),
    (Heading("pitched notes, no drum-like hits: one note again and again, as of a bell or a"
             " repeated key", ("notes",)), lambda n: n.tolls and n.bare),
    (Heading("pitched notes, no drum-like hits", ("notes",)),
     lambda n: (n.tuned or n.toned) and n.bare),
    (Heading("pitched notes, no clear drum-like hits", ("notes",)), lambda n: n.tuned or n.toned),
    (Heading(f"{SCENE.words}: a steady tone or hum, its pitch does not change", ("tone",)),
     lambda n: n.hums),
    (SCENE, lambda n: True),
)  # fmt: skip


def held_notes(spectra: Spectra, frame_rate: float) -> tuple[float, float, int]:
    """Share of the loud time in held notes, how well these fit one grid, and how many differ."""
    loud = spectra.level > max(np.percentile(spectra.level, 95) - 25, -80)
    notes = spectra.salience / (np.linalg.norm(spectra.salience, axis=1, keepdims=True) + 1e-3)
    # What is held is alike 46 ms before and after: two frames that share no part of the sound.
    like = (shifted(notes, 2) * shifted(notes, -2)).sum(axis=1)
    held = (like > 0.75) & (spectra.tonal > 0.5) & loud
    lengths = np.bincount(spectra.salience.argmax(axis=1)[held], minlength=1) / frame_rate
    pitch = spectra.pitch
    still = held & (pitch > 0) & (np.abs(pitch - shifted(pitch, -1)) < 0.3)
    grid = abs(np.exp(2j * np.pi * pitch[still]).mean()) if still.sum() > 4 else 0.0
    return float(held.sum() / max(loud.sum(), 1)), float(grid), int((lengths > 0.2).sum())


def hits_alike(drums: Sequence[Onset]) -> bool:
    """Whether struck things repeat each other, as the consonants of a voice do not."""
    spreads: list[float] = []
    for kind, count in count_kinds(drums).items():
        centres = [math.log2(drum.centre_hz) for drum in drums if drum.kind == kind]
        spreads += [float(np.std(centres))] * count
    return bool(spreads) and float(np.mean(spreads)) < 0.3


def tones_follow(events: Sequence[Event], pulses: Sequence[Pulse]) -> bool:
    """Whether tones, not separate sounds, fill the events, as in music of a note or two."""
    hz = [e.hz for e in events if e.hz]
    # Sounds within 3 % (half a semitone) of one pitch are beeps, not a melody.
    beeps = len(events) > 2 and bool(hz) and max(hz) < 1.03 * min(hz)
    filled = seconds_of(events, "tonal sound", "steady tone") > 0.6 * seconds_of(events)
    return filled and not beeps and (bool(pulses) or len(events) == 1)


class Found(NamedTuple):
    """What was found in a sound before it is said what kind of sound it is."""

    onsets: list[Onset]
    pulses: list[Pulse]
    events: list[Event]
    bedded: Bedded
    spoken: np.ndarray  # [T] bool, where somebody speaks


def listen_for(spectra: Spectra, frame_rate: float) -> Found:
    """Find onsets, beats and events."""
    curves, bedded = attack_curves(spectra), without_bed(spectra, frame_rate)
    onsets = find_onsets(spectra, frame_rate, curves=curves)
    pulses = estimate_tempo(spectra, frame_rate, onsets=onsets, curves=curves)
    spoken = spoken_frames(spectra, frame_rate)
    events = find_events(spectra, frame_rate, bedded, spoken=spoken)
    return Found(onsets, pulses, events, bedded, spoken)


def believed_drums(heard: Found) -> list[Onset]:
    """The hits of drums, unless they are knocks on wood or drops of rain."""
    drums = drum_hits(heard.onsets)
    # Wood struck again and again, with silence between, is a knock and no drum.
    wood = count_kinds(drums).keys() <= {"snare-like", "hand-drum-like"}
    knocks = wood and len(heard.events) > 0.8 * len(heard.onsets)
    # Rain is struck too, by high noise alone, in no strict time, and never falls silent.
    loose = max((pulse.confidence for pulse in heard.pulses), default=0.0) < 0.9
    metal = sum(drum.kind in METALLIC for drum in drums)
    rain = loose and heard.bedded.veils and metal > 0.9 * len(drums)
    return [] if knocks or rain else drums


def scattered(events: Sequence[Event]) -> bool:
    """Whether sounds of several kinds stand in silence here and there, as in no music."""
    gaps = [then.start - event.stop for event, then in zip(events, events[1:])]
    tones = ("tonal sound", "steady tone", CHIRP)
    kinds = ["tone" if event.character in tones else event.character for event in events]
    several = sum(kinds.count(kind) > 1 for kind in set(kinds) - {PHRASE}) > 1
    return several and sum(gap > 1.2 for gap in gaps) > 2


def rolled(onsets: Sequence[Onset], drums: Sequence[Onset], tonal: float) -> int:
    """Strokes of no clear kind, as a roll's, where kicks and other drums play, nothing tonal."""
    if tonal > 0.6 or not {drum.kind for drum in drums} > {"kick-like"}:
        return 0
    return sum(onset.kind == "other" and not onset.pitched for onset in onsets)


def nature_of(spectra: Spectra, frame_rate: float, heard: Found, *, gliding: bool) -> Nature:
    """Measure what tells kinds of sound apart, from what was found in it."""
    onsets, pulses, events, *_ = heard
    drums = believed_drums(heard)
    held, grid, pitches = held_notes(spectra, frame_rate)
    grid *= not scattered(events)
    tonal, unity = (loud_mean(row, spectra.level) for row in (spectra.tonal, spectra.unity))
    rate = len(onsets) / span_of(spectra, frame_rate)[1]
    # A tone that goes on without a beginning is a hum, and brown noise is tonal by half; single
    # words hold no note, and a rotor is rough.
    idle = gliding or heard.bedded.veils
    melodic = not idle and min(rate / 0.3, held * grid / 0.08, tonal / 0.6) > 1
    toned = melodic and (unity > 0.85 or held > 0.4 or pitches > 7)
    return Nature(
        spoken=seconds_of(events, PHRASE) / max(seconds_of(events), 1e-9),
        gliding=gliding,
        struck=len(drums) / max(len(onsets), 1),
        stroked=(len(drums) + rolled(onsets, drums, tonal)) / max(len(onsets), 1),
        kinds=len(count_kinds(drums)),
        kit=any(drum.kind in KIT_HITS for drum in drums),
        rate=rate,
        dies=bool(np.subtract(*np.percentile(spectra.level, [95, 25])) > 8),
        even=bool(np.subtract(*np.percentile(spectra.level, [95, 5])) < 2.5),
        alike=hits_alike(drums),
        beat=max((pulse.confidence for pulse in pulses), default=0.0),
        melody=held * grid,
        pitches=pitches,
        tonal=tonal,
        unity=unity,
        veiled=heard.bedded.veils,
        toned=toned and tones_follow(events, pulses),
        # Under dense or distorted sound hits drown: only a few of them are then heard, or none.
        bare=tonal > 0.8 and sum(onset.kind in HIT_WORDS for onset in onsets) < 2,
    )


def observe_music(
    spectra: Spectra,
    onsets: Sequence[Onset],
    *,
    pulses: Sequence[Pulse],
    bare: bool,
    frame_rate: float,
) -> Findings:
    """Pulse, hits, layers that change, and form, of what is struck or played."""
    span = span_of(spectra, frame_rate)
    found = observe_pulse(pulses, span[1]) + observe_hits(onsets, span[1], bare=bare)
    found += observe_changes(spectra, onsets, frame_rate=frame_rate)
    if spectra.level.min() > -60:
        text = "sounds throughout, no pause or silence"
        found.append(Observation("absent", *span, ("silence",), 0.8, text))
    return found


def noise_or_events(spectra: Spectra, events: Sequence[Event], frame_rate: float) -> Findings:
    """The swells and colour of what is mostly noise; else its events."""
    spoken, seconds = seconds_of(events, PHRASE), seconds_of(events)
    several = observe_events(spectra, events, frame_rate=frame_rate)
    if events and seconds_of(events, "noise") <= 0.95 * seconds:
        return several if len(events) > 1 or spoken else []
    # Noise that comes and goes slowly is one sound, and its loudness is told.
    slow = seconds > 2 * len(events) or len(events) < 2
    # What silence parts is no swelling.
    apart = any(fact.kind == "bed" and fact.value < BED_SILENT for fact in several)
    swells = [] if apart else observe_swells(spectra, frame_rate)
    swells = swells or ([] if slow and not apart else several)
    colour, words = noise_words(spectra, frame_rate)
    span = span_of(spectra, frame_rate)
    return [*swells, Observation("noise", *span, colour, 0.8, f"mostly {words}")]


def scene_heading(events: Sequence[Event], found: Findings, under: str) -> Heading:
    """What a sound that is not music reads as."""
    spoken = seconds_of(events, PHRASE)
    if under:
        return Heading(f"{SPEECH.words}, over {under}", ("speech", under))
    if spoken:
        mostly = spoken > 0.5 * seconds_of(events)
        return SPEECH if mostly else Heading("speech, and other sounds", ("speech", "sounds"))
    if any(fact.kind == "glide" for fact in found):
        return Heading("a gliding tone: siren, machine, voice or electronic", ("glide",))
    single = not found and [event.character for event in events] == [KNOCK]
    return STROKE if single else SCENE


BED_GAP = 8.0  # s that a background may be drowned


def bed_span(loud: np.ndarray, heard: np.ndarray, gap: int) -> tuple[int, int]:
    """First frame of a background that is `loud` [T] here and there, and the one after its last."""
    # What an event leaves far from the rest is no more of it.
    first, stop = max(runs_of(loud, gap), key=lambda run: run[1] - run[0])
    # Near the ends it is known from one side only: where nothing falls silent it goes on.
    first = 0 if first < gap and heard[:first].all() else first
    return first, len(loud) if len(loud) - stop < gap and heard[stop:].all() else stop


def observe_background(spectra: Spectra, bedded: Bedded, frame_rate: float) -> Findings:
    """The noise that goes on under events: its level, from when to when, its colour and swells."""
    loud = bedded.bed > float(bedded.bed.max()) - 20
    first, stop = bed_span(loud, spectra.level > SILENCE, int(BED_GAP * frame_rate))
    known = np.flatnonzero(loud[first:stop])
    level = np.interp(np.arange(stop - first), known, bedded.bed[first:stop][known])
    steps = np.array_split(level, 3)
    levels = [float(np.median(step)) for step in steps]
    when = "throughout"
    if stop <= len(loud) - frame_rate or first > frame_rate:
        when = f"from {first / frame_rate:.0f} to {stop / frame_rate:.0f} s only"
    course = f"{np.median(levels):.0f} dB"
    if abs(levels[2] - levels[0]) > 4:
        thirds = " ".join(f"{level:.0f}" for level in levels)
        course = f"{'growing' if levels[2] > levels[0] else 'fading'}, {thirds} dB by thirds"
    between = ~bedded.clear & loud
    between = between if between.any() else loud
    alone = Spectra(*(rows[between] for rows in spectra))
    text = f"background {when}: {noise_words(alone, frame_rate)[1]}, {course}"
    span, level = (first / frame_rate, (stop - first) / frame_rate), float(np.median(levels))
    found = [Observation("bed", *span, level, 0.8, text)]
    places = np.flatnonzero(between)
    level = np.interp(np.arange(len(loud)), places, spectra.level[places])
    return found + observe_swells(spectra._replace(level=level), frame_rate)


def observe_missing(said: set[str], span: tuple[float, float], *, drums: bool) -> Findings:
    """What of beat, drums and speech there is not, where it was not `said` to be."""
    # Where some hits were taken for drums, none is denied.
    said = said | ({"drums"} if drums or "beat" in said else set())
    words = {"beat": "no musical beat", "drums": "no drum-like hits", "speech": "no speech"}
    missing = tuple(kind for kind in words if kind not in said)
    text = ", ".join(words[kind] for kind in missing)
    return [Observation("absent", *span, missing, 0.6, text)] if missing else []


def observe_scene(
    spectra: Spectra, heard: Found, *, frame_rate: float, telling: Findings, nature: Nature
) -> tuple[Heading, Findings]:
    """What speech, noise and sounds of the world read as; what happens, and what is missing."""
    under, events = backdrop(spectra, heard.spoken, frame_rate), heard.events
    span = span_of(spectra, frame_rate)
    if heard.bedded.veils and not under and events:
        found = observe_background(spectra, heard.bedded, frame_rate) + observe_trains(events)
    elif telling or under:
        found = list(telling)
    else:
        found = noise_or_events(spectra, events, frame_rate)
    heading = scene_heading(events, [*telling, *found], under)
    found += observe_portraits(spectra, events, frame_rate)
    said = {fact.kind for fact in telling} | {*heading.heard}
    said |= {"beat"} if under in ("music", "drums") else set()
    found += observe_missing(said, span, drums=bool(nature.kinds))
    return heading, found


# What may go on beneath speech, and how clear a beat must be there: where nothing is struck,
# syllables would pass for one.
BENEATH = {"drums": 0.3, "music": 0.75, "noise": 2.0}


def pulse_beneath(pulses: Sequence[Pulse], heading: Heading, duration: float) -> Findings:
    """The beat of drums, or a clear one of music, that goes on beneath speech."""
    sure = BENEATH.get(heading.heard[-1], 2.0)
    clear = [pulse for pulse in pulses if pulse.confidence > sure]
    return observe_pulse(clear, duration) if clear else []


def observe_silence(spectra: Spectra, frame_rate: float) -> Findings:
    """That there is nothing, or nothing but a few short sounds; else an empty list."""
    span, found = span_of(spectra, frame_rate), runs_of(spectra.level > -75, 10)
    if not found:
        return [Observation("level", *span, (), 1.0, "silence throughout")]
    lengths = [stop - first for first, stop in found]
    # A click lasts as long as the window, 4 to 7 frames.
    if max(lengths) > 7 or sum(lengths) > 0.05 * len(spectra.level):
        return []
    clicks = "one click" if len(found) == 1 else f"{len(found)} clicks"
    times = tuple(first / frame_rate for first, _ in found)
    text = f"silence but for {clicks} at {seconds_words(times)}, {spectra.level.max():.0f} dB"
    return [Observation("level", *span, times, 0.9, text)]


def rhythm_observations(spectra: Spectra, frame_rate: float) -> Findings:
    """State rhythm, events, loudness and form of a sound, the most important of a kind first.

    Parameters
    ----------
    spectra : Spectra
        All rows of the sound.
    frame_rate : float
        Rows a second.

    Returns
    -------
    list of Observation
        Of silence one that says so.
    """
    span = span_of(spectra, frame_rate)
    if silence := observe_silence(spectra, frame_rate):
        return silence
    heard = listen_for(spectra, frame_rate)
    onsets, pulses, events, *_ = heard
    loudness = observe_loudness(spectra, events, frame_rate=frame_rate)
    voices = observe_voices(spectra, events, frame_rate=frame_rate)
    # A siren is tonal throughout, and a crowd nearly so: they would pass for music.
    telling = []
    if not heard.spoken.any():
        telling = observe_glide(spectra, frame_rate) or observe_murmur(spectra, frame_rate)
    nature = nature_of(spectra, frame_rate, heard, gliding=bool(telling))
    heading = first_rung(NATURES, nature)
    voices = nature.believed(voices)
    if heading.heard[0] in ("drums", "notes"):
        if voices:
            heading = Heading(f"{heading.words}, and speech", (*heading.heard, "speech"))
        found = observe_music(
            spectra, onsets, pulses=pulses, bare=nature.bare, frame_rate=frame_rate
        )
    else:
        scene, found = observe_scene(
            spectra, heard, frame_rate=frame_rate, telling=telling, nature=nature
        )
        if "drums" in heading.heard and scene.heard[-1] not in BENEATH:
            found += observe_hits(onsets, span[1], bare=False)[:1] + observe_pulse(pulses, span[1])
        else:
            heading = heading if nature.plain else scene
            found += pulse_beneath(pulses, heading, span[1])
        # Of many sounds and pauses a course would tell the pauses.
        loudness = [] if any(fact.kind == "events" for fact in found) else loudness
    text = f"reads as: {heading.words}"
    head = Observation("sound", *span, heading.heard, nature.sure, text)
    return [head, *voices, *found, *loudness]


# The LLM view: observations, runs of codes, and a budget in LLM tokens that is never exceeded.

PIECES = re.compile(r"[^\r\n\w]?[^\W\d_]+|\d{1,3}| ?[^\s\w]+[\r\n]*|_+|\s*[\r\n]|\s+")
# A legend costs what a short view does not have: there, stated facts tell a reader more.
CODE_BUDGET = 600  # LLM tokens from which a view carries runs of codes
CODE_LEAST = 110  # below that, LLM tokens left over that are worth a layer of runs
CODE_FIRST, CODE_A_SECOND = 400, 80  # LLM tokens of runs that a sound is worth at most
CODE_SHARE = 0.27  # of the budget, for legend and runs
VIEW_LAYERS = (0, 4, 1, 2, 5, 6, 3, 7)  # in the order in which they are worth their tokens
LEGEND_COST = 20  # LLM tokens of a legend entry, about
SHORTEST, LONGEST_HEAD = 6, 24  # words of a shortened text, and of a head

MANY_LATER = 16  # kinds that come before the first of many parts: tempo, key and timbre do
LATER_FACTS = 4  # kinds that come between a kind's first fact and its second
# LLM tokens (cl100k_base, the larger of with and without a space before) of words in views.
WORDS_BY_COST = {
    1: (
        "Am Counts Em Hz Lines One Times Under What You about above accordion added after again "
        "air airy alarm all almost alone among an analysis and arch are around as at attack "
        "attacks audio away background band bands bar base be beat bed before begin bell below "
        "between bird body bright brightness broken brown burst busy but buzz by cannot centre "
        "centroid cents change changing character child classes classifier clear click clip code "
        "codes comb comparison confidence count cycle cycles dB dark decay deep dense detail dim "
        "direction does down drops duration each edge electric else encoding end ends engine "
        "enter equal even event events every everything fall falls far female few figure first "
        "fit float flutter for form format found four frame frames from full genres group groups "
        "hammer hand has hat header hear heard held here high highest hit hits holds horn hum in "
        "infer instant interval into is it its json kHz keep key kick kind last lasting layer "
        "layers lead least leave legend length less letters level levels like line lines little "
        "long low machine major male many mark mean means median men metal mid middle min minor "
        "minute missing mixed more most mostly motor moves moving ms multiple music name names "
        "nan native near next no noise none not note notes nothing number odd of off on once one "
        "only or order organ other otherwise out over overall pad pan part partial parts pause "
        "peak period phrase pink pitch plays power program pulse pure quick range rate read reads "
        "reflect register regular rest ring rise rising root rough runs same saved say scale "
        "scene second seconds section sections semantic series sharp short signal single size "
        "slide slope slow soft someone sound sounds sources sparse speech speed spoken spread "
        "stable stands start state steady steps still stop stopped stops stream stretch string "
        "strong sub swing tags text texture that the then this three ticks time times title to "
        "tokens tom tone tones too true trusted turn two typically under unknown up valid view "
        "voice voices was wav waves what which white whole whose with within without women words "
        "written you"
    ),
    2: (
        "Adim Bdim Bm CODES Cdim Cm Ddim Dm Edim Fdim Fm Gdim Gm Infer LLM Measured SOUND TELL "
        "absent accented accents alike alternates apart babble bass beats beeps beginnings begins "
        "blip blown bowed bpm brass brighter brings broad bursts busier buzzing chime chords "
        "clarinet contour darker dies distorted dominate drawbar drip drone drum drums electronic "
        "emotions environmental equally evenly fades fading faint falling flatness flatter flute "
        "formant fundamental glide glides gliding gloss goes growing grows guitar harmonic "
        "harmony harp highs imagery impressions instruments irregular knock knocks labelled lone "
        "loudness lowmid mallet measured mellow melody metre mids mixture modulation musical "
        "ndjson nearly octave octaves onset onsets overtones partials pauses peakier peaks pedal "
        "percussion phrases piano pitched pitches plucked recurring reed regularity repeated "
        "repeating resembles rhythm rises rle separate several silence siren sliding smoothing "
        "smoothly snare softer sparser spectrum spouter steadily steep struck suddenly sweep "
        "swell swells symmetric synth talking tempo thirds throughout thump thumps timbre "
        "together tolls tonal twanging uneven unsteady valley waver wavering wavers whistle yours"
    ),
    3: (
        "MEASURED atmosphere bassoon beneath brilliant chirp chirps climbs cymbal fifths gusts "
        "louder mechanical noisier oboe rhythmic saxophone semitones sharper steeply sustained "
        "sweeps syllabic syllable syllables tremolo trombone trumpet unmodulated unpitched "
        "vibrato"
    ),
}  # fmt: skip
WORD_COSTS = {word: cost for cost, words in WORDS_BY_COST.items() for word in words.split()}

PRIMERS = (  # LLM tokens of the budget from which each is used, and its text
    (
        1500,
        "You read a sound that you cannot hear. A program measured it frame by frame, 43 a second;"
        " nothing was heard, labelled by a classifier or read from tags. Lines under MEASURED state"
        " what signal analysis found; [0.6] is the confidence, no mark means 0.9 or more. Times are"
        " seconds from the start, levels dB below full scale, A4 is 440 Hz. Under CODES each layer"
        " has a legend, the mean of what each code sounds like here, then runs as start:code, each"
        " lasting to the next; equal codes mean equal sound. Counts, notes and times are to be"
        " trusted before impressions. What plays or moves is yours to infer from attack, decay,"
        " vibrato, partials, band and rhythm.",
    ),
    (
        500,
        "You read a sound that you cannot hear, measured frame by frame; [0.6] is a confidence, no"
        " mark means 0.9 or more. Times in seconds, levels in dB below full scale. Infer sources"
        " from attack, decay, vibrato, partials and rhythm.",
    ),
    (0, "Measured from a sound, not heard. Times in seconds; [0.6] is a confidence."),
)
QUESTIONS = (
    "TELL: 1 what kind of sound or music it is; 2 its emotions or atmosphere; 3 instruments or"
    " sources; 4 genres it resembles; 5 imagery it brings."
)


def piece_cost(piece: str) -> int:
    """LLM tokens of one piece: up to three digits one, a known word its cost, else its bytes."""
    if piece.isdecimal() or piece.isspace():
        return 1
    # A sign or space before a word is in its piece, but not in the table of words.
    letters = piece[-1].isalpha()
    word = piece if piece[0].isalpha() else piece[1:]
    lead = len(piece.encode()) - len(word.encode())
    if not letters:
        return max(1, len(piece.strip(" \r\n").encode()))
    cost = 1 if len(word) == 1 and word.isascii() else WORD_COSTS.get(word, len(word.encode()))
    return cost + (lead if lead and piece[0] != " " else 0)


def count_llm_tokens(text: str) -> int:
    """LLM tokens of a text: cl100k's if tiktoken has it here, else a count that is never lower.

    The fallback splits as cl100k_base does and knows the cost of the words that views are made of;
    a word it does not know costs a token a byte, which is the most that a BPE can need.
    """
    exact = bpe_counter()
    return exact(text) if exact else sum(map(piece_cost, PIECES.findall(text)))


def lines_cost(lines: Sequence[str]) -> int:
    """LLM tokens of lines, each with its end."""
    return count_llm_tokens("\n".join(lines) + "\n")


def shorten(text: str, budget: int) -> str:
    """Cut a text between words so that it costs at most `budget` LLM tokens with its newline.

    Empty if fewer than SHORTEST words would be left.
    """
    words = text.split(" ")
    low, high = 0, len(words)
    # Counting is slow: the number of words that fit is found by halving.
    while low < high:
        middle = (low + high + 1) // 2
        fits = count_llm_tokens(" ".join(words[:middle]) + " …\n") <= budget
        low, high = (middle, high) if fits else (low, middle - 1)
    whole = low == len(words)
    return text if whole else " ".join(words[:low]) + " …" if low >= SHORTEST else ""


def fact_lines(observation: Observation) -> tuple[str, str]:
    """What a fact says at least, up to a semicolon, and in full; its confidence if not high."""
    doubt = "" if observation.confidence >= 0.85 else f" [{observation.confidence:.1f}]"
    # All else is read in the light of what the sound is, so that is not cut.
    whole = observation.kind in ("sound", "sequence", "course", "part", "portrait")
    head = observation.short or observation.text
    head = head if whole else head.split(";")[0]
    words = head.split(" ")
    if len(words) > LONGEST_HEAD and not whole:
        head = " ".join(words[:LONGEST_HEAD]) + " …"
    return f"- {head}{doubt}", f"- {observation.text}{doubt}"


def fill_lines(facts: Sequence[Observation], budget: int) -> list[str]:
    """Say as many facts as fit, by their heads, then as much more of each as fits, in order."""
    lines = [fact_lines(fact) for fact in facts]
    taken: list[str] = []
    for head, _ in lines:
        line = shorten(head, budget)
        # The first that does not fit ends the list: no shorter, less telling one may pass it.
        if line != head:
            break
        taken.append(line)
        budget -= count_llm_tokens(line + "\n")
    # The levels of partials, which a head reads, come after the notes.
    for place in sorted(range(len(taken)), key=lambda place: facts[place].kind == "timbre"):
        line, (_, full), kind = taken[place], lines[place], facts[place].kind
        cost = count_llm_tokens(line + "\n")
        fuller = shorten(full, budget + cost)
        # A part of the levels over time says less than none.
        if kind == "loudness" and fuller != full:
            continue
        # Of notes with their times, a few say less than all of their names.
        if len(fuller) > (2 if kind in ("lead", "chords", "bass") else 1) * len(line):
            taken[place] = fuller
            budget -= count_llm_tokens(fuller + "\n") - cost
    return taken


# Equal by identity, so that a view can be the key of a cache: its arrays have no hash.
@dataclass(frozen=True, eq=False)
class View:
    """All that a page or a picture of a sound is made from."""

    title: str
    clip: Clip
    trained: Trained
    row_rate: float  # rows of the clip a second
    sample_rate: int
    start: float = 0.0  # seconds of the sound before it
    linear: np.ndarray | None = None  # [n, F] power of the sound, see SpectrumPool

    def __repr__(self) -> str:
        return f"View({self.title!r})"


class LayerPaths:
    """Searches one layer's runs at any price; keeps what does not depend on the price."""

    def __init__(self, layer: int, clip: Clip, trained: Trained, *, rows: np.ndarray) -> None:
        chain, stage = divmod(layer, NUM_QUANTIZERS)
        books, features = trained[chain], (clip.semantic, clip.acoustic)[chain]
        codes = clip.codes[:, chain * NUM_QUANTIZERS :][:, :NUM_QUANTIZERS]
        self._rows, self._words = rows, layer_words(layer, books)
        self._name = LAYER_NAMES[layer]
        plain = self._words is PLAIN_WORDS[layer]
        self._reads = VIEW_NAMES[layer] if plain else "rest of the scene"
        self._step = max(1, -(-len(codes) // VIEW_STEPS))
        used, counts = np.unique(codes[:, stage], return_counts=True)
        # Stable, so that codes met equally often are chosen alike on every machine.
        self._used = used[counts.argsort(kind="stable")[::-1][:MOST_CODES]]
        full = stage_distortion(books, features, stage, codes=codes, wanted=self._used)
        edges = np.arange(0, len(full), self._step)
        self._distortion = np.add.reduceat(full, edges, axis=0)
        # Prices count mean distortions, so that one range of them suits every layer.
        self._scale = float(self._distortion.min(axis=1).mean()) + 1e-6

    def lines(self, count: int, price: float, *, row_rate: float) -> list[str]:
        """Legend and runs over at most `count` codes, at a price a change in mean distortions."""
        picked = choose_codes(self._distortion, count)
        path = cheapest_path(self._distortion[:, picked], price * self._scale)
        met, path = np.unique(path, return_inverse=True)
        codes, starts = self._used[picked[met]], run_starts(path)
        spread = np.repeat(path, self._step)[: len(self._rows)]
        glosses = clip_glosses(self._words, self._rows, spread)
        legend = "; ".join(f"{code} {text}" for code, text in zip(codes, glosses))
        times = starts * self._step / row_rate
        # Characters cost; after ten minutes a whole second is exact enough.
        shown = (f"{t:.1f}".removesuffix(".0") if t < 600 else f"{t:.0f}" for t in times)
        written = " ".join(f"{time}:{code}" for time, code in zip(shown, codes[path[starts]]))
        return [f"{self._name} {self._reads}: {legend}", f"{self._name} runs: {written}"]

    def fit(self, budget: int, row_rate: float) -> list[str]:
        """Legend and runs in at most `budget` LLM tokens: the cheapest price that fits."""
        count = int(np.clip(budget * 0.45 / LEGEND_COST, 2, 48))  # the runs cost a little more
        best: list[str] = []
        # From the dearest change, which leaves one run, down to where the runs are too many.
        for price in np.geomspace(0.15, 500, 11)[::-1]:
            lines = self.lines(count, float(price), row_rate=row_rate)
            if lines_cost(lines) > budget:
                break
            best = lines
        return best


def code_lines(view: View, budget: int) -> list[str]:
    """Runs of as many layers as the budget allows, most telling first."""
    wanted = int(np.clip(budget // 140, 1, len(VIEW_LAYERS)))
    rows = describe(view.clip.spectra)
    lines: list[str] = []
    for done, layer in enumerate(VIEW_LAYERS[:wanted]):
        paths = LayerPaths(layer, view.clip, view.trained, rows=rows)
        # What one layer leaves over is shared among those that follow.
        lines += paths.fit((budget - lines_cost(lines)) // (wanted - done), view.row_rate)
    return lines


def events_a_second(view: View, found: Sequence[Observation]) -> float:
    """How often something begins, by whichever was heard more of: onsets, or notes of the lead."""
    rates = [fact.value for fact in found if fact.kind == "onsets"]
    leads = [(len(fact.value), fact.duration) for fact in found if fact.kind == "lead"]
    if leads:
        notes, seconds = np.sum(leads, axis=0)
        rates.append(float(notes / max(seconds, 0.1)))
    return max(rates, default=float(view.clip.spectra.onset_rate.mean()))


def observe_character(view: View, found: Sequence[Observation]) -> list[Observation]:
    """What a mood rests on: density, register, roughness, dynamics, low thumps."""
    spectra = view.clip.spectra
    if not len(spectra.level) or spectra.level.max() < -70:
        return []
    loudness = 10 ** (spectra.level * 0.05)
    rows = describe(spectra)
    # Weighted, because pauses have no colour.
    mean = (rows * loudness[:, None]).sum(axis=0) / loudness.sum()
    rate = events_a_second(view, found)
    measured = 2 ** mean[INDEX["centroid"]], mean[INDEX["low"]], mean[INDEX["tonal"]]
    centre, low, tonal = measured
    heard = spectra.level[spectra.level > max(spectra.level.max() - 40, -75)]
    span = float(np.diff(np.percentile(heard, (10, 95)))[0])
    thump = np.percentile(spectra.flux[:, 0], 98)
    struck = np.flatnonzero(spectra.flux[:, 0] >= max(thump, 2.5))
    # Whatever begins rises below 200 Hz as well; a thump has most of its power there.
    deep = np.median(shifted(rows[:, INDEX["low"]], 1)[struck]) if len(struck) else 0.0
    # A glide is smeared within a frame, and so reads rougher than it is.
    smooth = is_gliding(spectra, view.row_rate)
    texture = graded(tonal, (0.5, 0.82), "rough mixed clear")
    words = (
        f"{graded(rate, (0.6, 1.5), 'sparse moving busy')} (at least {rate:.1f} beginnings/s)",
        f"{graded(centre, (450, 750), 'dark middle bright')} register"
        f" (centre {hertz_words(centre)}, {low:.0%} of power below 150 Hz"
        f"{': heavy low end' * bool(low > 0.4)})",
        *([] if smooth else [f"{texture} texture (tonal {tonal:.2f})"]),
        f"loudness range {span:.0f} dB",
        *(["strong low thumps"] if deep > 0.5 else []),
    )
    if any(fact.kind == "portrait" for fact in found):  # which says the rest of its sound
        words = words[0], f"loudness range {span:.0f} dB"
    text, value = f"character: {', '.join(words)}", Character(rate, *map(float, measured), span)
    return [Observation("character", *span_of(spectra, view.row_rate), value, 0.9, text)]


def several_words(first: Mapping[str, Observation]) -> str:
    """How several notes at once are read, from the first fact of each kind."""
    chords = first["chords"].value if "chords" in first else ()
    names, drone = {chord.name for chord in chords}, "drone" in first
    # A melody over a drone spells a few chords by itself.
    if len(names) >= (4 if drone else 3):
        reading = "chords change: several parts (bass, chords, lead) or full chords"
    else:
        reading = "harmony moves little" + (", as of one line over a drone" if drone else "")
    return f"several notes at once; {reading}"


def clock(fact: Observation | Stretch) -> str:
    """From when to when, in whole seconds."""
    span = fact[:2] if isinstance(fact, Stretch) else (fact.time, fact.time + fact.duration)
    return f"{span[0]:.0f}-{span[1]:.0f} s"


def undrummed(fact: Observation) -> bool:
    """Whether a fact says that a sound is of notes without drums."""
    return fact.kind == "sound" and fact.value[0] == "notes" and "drums" not in fact.value


def drums_of_parts(fact: Observation, found: Sequence[Observation]) -> Observation:
    """The heading of a sound, with the parts in which drums play where the whole hides them."""
    if not undrummed(fact):
        return fact
    spans = [clock(f) for f in found if f.kind == "part" and f.value.drummed]
    turns = [turn for f in found if f.kind == "course" for turn in f.value]
    when = spans + [clock(turn) for turn in turns if turn.what.startswith(PERCUSSION)]
    if not when:
        return fact
    told = f"drum-like hits at {', '.join(when)} {'only' if spans else 'at least'}"
    text = fact.text.replace("no clear drum", "no drum").replace("no drum-like hits", told)
    return fact._replace(text=text, value=("notes", "drums", *fact.value[1:]))


def clarify(found: Sequence[Observation]) -> list[Observation]:
    """Of pitched music without drums say how many parts play, and no drums that come or go."""
    found = [drums_of_parts(fact, found) for fact in found]
    first = {fact.kind: fact for fact in reversed(found)}
    if "part" in first or not undrummed(first["sound"]):
        return found
    lone = first.get("texture") or first.get("tone")
    parts = lone.text if lone else several_words(first)
    told = {"sound": f"{first['sound'].text}; {parts}"}
    kept = (fact for fact in found if fact.kind != "change" or fact.value == STOPS)
    return [fact._replace(text=told.get(fact.kind, fact.text)) for fact in kept]


TIMED = ("timbre", "contour", "lead", "key", "chords", "bass")  # kinds of stretches of music


def say_when(found: Sequence[Observation]) -> list[Observation]:
    """Put its stretch of time before each of several facts of one kind that only differ in it."""
    kinds = [fact.kind for fact in found]
    told = []
    for fact in found:
        if kinds.count(fact.kind) > 1 and fact.kind in TIMED:
            when = f"{clock(fact)}: "
            fact = fact._replace(text=when + fact.text, short=fact.short and when + fact.short)
        told.append(fact)
    return told


SECTION_SECONDS = 20.0  # shorter sounds are not said to have sections
PHRASE_SECONDS = 8.0  # a phrase lasts; in less than a minute, sections last longer on average
# Clarity of sections that are told; of long ones; of those whose kinds may differ.
SURE_FORM, LONG_FORM, CLEAR_COURSE = 0.6, 0.5, 0.45


def until_end(view: View) -> View:
    """What is heard of a sound: what dies away at its end, and silence, are no parts of it."""
    stop = heard_span(view.clip.spectra.level, 50.0).stop
    clip = view.clip
    if not stop or len(clip.codes) - stop < view.row_rate:
        return view
    rows = slice_rows(clip.spectra, 0, stop)
    clip = Clip(clip.codes[:stop], clip.semantic[:stop], clip.acoustic[:stop], rows)
    return replace(view, clip=clip)


@functools.lru_cache(maxsize=1)
def form_of(view: View) -> Form:
    """Sections and repeats, from the self-similarity of the semantic codes over time."""
    view = until_end(view)
    features = view.trained.semantic.decode(view.clip.codes[:, :NUM_QUANTIZERS], 3)
    form = find_form(features, view.clip.spectra.level, frame_rate=view.row_rate)
    # The codes tell kinds of sections apart; the kernel sees where they part to a second only.
    return sharpened(form, view.clip.spectra, view.row_rate)


def key_words(value: Key | tuple[Key, ...]) -> str:
    """The name of a key, or of those before and after."""
    return value.name if isinstance(value, Key) else ", ".join(key.name for key in value)


PART_SECONDS, MOST_PARTS = 5.0, 7  # of a section that is described; with the line of sections
# What is told part by part where there are parts: how sure it must be, and how it is said.
PART_WORDS: dict[str, tuple[float, Callable[[Observation], str]]] = {
    "key": (0.35, lambda fact: f"key {key_words(fact.value)}"),
    "tempo": (0.4, lambda fact: fact.text.removeprefix("tempo ")),
    "metre": (0.4, lambda fact: f"in {fact.value}"),
    "timbre": (0.0, lambda fact: f"{fact.value.span}, {fact.value.likeness}"),
    "contour": (0.5, lambda fact: fact.text),
    # Times within the part would be taken for the sound's.
    "loudness": (0.0, lambda fact: f"{fact.value.words()} {fact.value.level:.0f} dB"),
}
PARTED = ("tempo", "metre", "key", "contour", "texture")  # not told of the whole beside its parts


def part_texture(fact: Observation | None) -> str:
    """How many notes sound at once in a part, from what is said of its texture."""
    if fact and fact.value is None:
        return "one line or a few notes at once"
    return "a single line alone" if fact and fact.value > LONE_SHARE else "several notes at once"


EDGE = 0.5  # s of a section that may be its neighbour's


def section_rhythm(view: View, start: float, stop: float) -> tuple[Spectra, Findings]:
    """Rows between two times in s, and what is heard in them but for pitch."""
    first, last = int((start + EDGE) * view.row_rate), int((stop - EDGE) * view.row_rate)
    rows = slice_rows(view.clip.spectra, first, last)
    return rows, rhythm_observations(rows, view.row_rate) if len(rows.level) else []


Section = Callable[[float, float], tuple[Spectra, Findings]]  # section_rhythm() of a view


def observe_part(span: Stretch, rows: Spectra, *, rhythm: Findings, rate: float) -> Observation:
    """What one part of a piece is like: who plays, key, beat, line and loudness."""
    start, stop, letter = span
    heard = rhythm[0].value if rhythm[0].kind == "sound" else ()
    when = f"part {letter} {clock(span)}"
    if heard[:1] != ("notes",):
        text, value = rhythm[0].text.removeprefix("reads as: "), Part(letter, heard)
        # Within music that is seldom the world: distorted or crowded sound hides its notes.
        text = text.replace(SCENE.words, "no clear notes: dense, noisy or unpitched")
        return Observation("part", start, stop - start, value, 0.7, f"{when}: {text}")
    first = {f.kind: f for f in reversed(rhythm + pitch_observations(rows, rate))}
    drums = ", with drum-like hits" * ("drums" in heard)
    words = {"": part_texture(first.get("texture")) + drums}
    for kind, (least, say) in PART_WORDS.items():
        if kind in first and first[kind].value is not None and first[kind].confidence >= least:
            words[kind] = say(first[kind])
    value = Part(letter, heard, first["key"].value if "key" in words else None)
    brief = (words[kind] for kind in ("", "key", "tempo") if kind in words)
    text, short = (f"{when}: {'; '.join(told)}" for told in (words.values(), brief))
    return Observation("part", start, stop - start, value, 0.7, text, short)


def observe_sections(view: View, section: Section) -> list[Observation]:
    """State the sections, and what each is like, where there are at least two."""
    form, spectra, rate = form_of(view), view.clip.spectra, view.row_rate
    end = span_of(spectra, rate)[1]
    # In a short sound, parts that hardly differ are its phrases.
    lasting = np.diff([*form.starts, end])
    sure = form.clarity > SURE_FORM and lasting.mean() > PHRASE_SECONDS
    long = form.clarity > LONG_FORM and lasting.min() > PHRASE_SECONDS
    if len(form.letters) < 2 or (end < 60 and not (sure or long)):
        return []
    spans = form.spans(end)
    parts = ", ".join(f"{letter} {start:.1f}" for start, _, letter in spans)
    text = f"sections {' '.join(form.letters)} (like letters sound alike), begin at: {parts} s"
    found = [Observation("form", 0.0, end, spans, 0.8 * form.clarity, text)]
    for span in spans:
        if span.stop - span.start >= PART_SECONDS:
            rows, rhythm = section(span.start, span.stop)
            found.append(observe_part(span, rows, rhythm=rhythm, rate=rate))
    return found


def observe_ends(view: View, found: Sequence[Observation]) -> list[Observation]:
    """When sound is first and last heard, and the first and last note of the lead."""
    heard = heard_span(view.clip.spectra.level)
    if not heard.stop:
        return []
    begin, end = heard.start / view.row_rate, heard.stop / view.row_rate
    lead = [note for fact in found if fact.kind == "lead" for note in fact.value]
    text = f"sound begins at {begin:.1f} s, ends at {end:.1f} s"
    if ends := (lead[0], lead[-1]) if lead else ():
        first, last = (note_name(note.midi) for note in ends)
        text += f"; first lead note {first}, last {last}"
    return [Observation("ends", begin, end - begin, ends, 0.85, text)]


GRID_PERIODS = np.geomspace(0.2, 1.6, 2000)  # s, between notes
GRID_NOTES, GRID_EVEN = 12, 0.78  # notes, and how alike they lie in a period (0-1)


def note_grid(starts: np.ndarray) -> float:
    """Notes a minute of the one grid on which beginnings in s lie; 0 if there is none, or many."""
    if len(starts) < GRID_NOTES:
        return 0.0
    even = evenness(starts, GRID_PERIODS)
    fits = [k for k in np.flatnonzero(local_peaks(even, 0.72)) if 0.3 < GRID_PERIODS[k] < 1.3]
    # Chords three beats long lie on grids of one, two and four thirds of a beat too.
    best = max(fits, key=lambda k: even[k] * (1 + 0.25 * np.log2(GRID_PERIODS[k] / 0.3)), default=0)
    return 60 / float(GRID_PERIODS[best]) if len(fits) in (1, 2) and even[best] > GRID_EVEN else 0.0


def with_grid(found: Sequence[Observation]) -> list[Observation]:
    """Where no beat is heard, the tempo of the notes of lead and bass, if they keep one."""
    most = {"lead": MOST_NOTES, "bass": MOST_BASS}
    starts = [note.start for f in found if f.kind in most for note in f.value[: most[f.kind]]]
    grid = note_grid(np.sort(starts))
    words = f"no accented beat, but notes keep time: {grid:.0f} a minute, or a multiple"
    return [
        fact._replace(value=grid, confidence=0.5, text=words)
        if grid and fact.kind == "tempo" and fact.value is None else fact
        for fact in found
    ]  # fmt: skip


COURSE_WORDS = {  # what a sound mainly is, and the word for it in a course
    "notes": "music", "drums": PERCUSSION, "speech": "speech", "glide": "a gliding tone",
}  # fmt: skip
# Seconds that a part lasts at least; a few soft or odd notes would pass for other sounds.
COURSE_SECONDS, OTHER_SECONDS = 3.0, 8.0
STRAY = ("other sounds", "music")  # words that a few odd seconds of speech may earn


def course_word(facts: Findings) -> str:
    """What kind of sound a section is, in a word, from its section_rhythm()."""
    heard = next((fact.value for fact in facts if fact.kind == "sound"), ())
    word = COURSE_WORDS.get(heard[0], "other sounds") if heard else "silence"
    return f"{word} and speech" if "speech" in heard[1:] else word


# What is no music correlates with some music by less in 95 of 100 trials: 0.52.
KEPT_BEAT = 0.75
GOES_ON = {"other sounds": "music", "speech": "music and speech"}  # where the beat of music goes on


def beat_profile(rows: Spectra) -> np.ndarray:
    """Strength of each period of PERIODS in the mean of rows, centred and of norm 1."""
    profile = rows.tempogram.mean(axis=0)
    profile = profile - profile.mean()
    return profile / max(float(np.linalg.norm(profile)), 1e-9)


def words_in_turn(spans: Sequence[Stretch], section: Section, *, music: bool) -> list[str]:
    """What kind of sound each section is, in a word; none of what is too short.

    Where the whole is `music`, a section that keeps the beat of another is music too, however
    crowded: alone its notes may drown.
    """
    long = [span.stop - span.start >= COURSE_SECONDS for span in spans]
    heard = [section(span.start, span.stop) for span in spans]
    words = [course_word(facts) if lasts else "" for lasts, (_, facts) in zip(long, heard)]
    played = [
        beat_profile(rows)
        for word, (rows, _) in zip(words, heard) if word in ("music", PERCUSSION)
    ]  # fmt: skip
    if not (music and played):
        return words
    return [
        GOES_ON[word]
        if word in GOES_ON and (played @ beat_profile(rows)).max() > KEPT_BEAT
        else word
        for word, (rows, _) in zip(words, heard)
    ]


def course_parts(
    spans: Sequence[Stretch], words: Sequence[str], stray: Sequence[str]
) -> tuple[Stretch, ...]:
    """Stretches of one kind, of sections and their words; short ones of `stray` left out."""
    parts: list[Stretch] = []
    for (start, stop, _), word in zip(spans, words):
        if not word or (word in stray and stop - start < OTHER_SECONDS):
            continue
        # Sections of one kind are one.
        before = parts.pop().start if parts and parts[-1].what == word else start
        parts.append(Stretch(before, stop, word))
    return tuple(parts)


def observe_course(view: View, heard: Sequence[str], section: Section) -> Findings:
    """What the sound is in turn, where it is not one kind of sound throughout, as it reads."""
    end = heard_span(view.clip.spectra.level, 45.0).stop / view.row_rate
    form = form_of(view)
    spans = [span._replace(stop=min(span.stop, end)) for span in form.spans(end)]
    # A ring between two phrases is no music.
    words = words_in_turn(spans, section, music=heard[0] in ("notes", "drums"))
    parts = course_parts(spans, words, STRAY[:1] if {"notes", "music"} & {*heard} else STRAY)
    told = sum(part.stop - part.start for part in parts)
    if form.clarity < CLEAR_COURSE or len(parts) < 2 or told < 0.8 * end:
        return []
    text = "; ".join(f"{clock(part)} {part.what}" for part in parts)
    return [Observation("course", 0.0, end, parts, 0.75, f"in turn: {text}")]


def in_order(found: Sequence[Observation]) -> list[Observation]:
    """The most telling first; a kind's later facts stand further down, but for a few parts."""
    met: dict[str, int] = {}
    places, ranks = [], list(FACTS)
    few = sum(fact.kind == "part" for fact in found) < MOST_PARTS
    parts = few and any(fact.kind == "part" for fact in found)
    for fact in found:
        met[fact.kind] = met.get(fact.kind, -1) + 1
        # Parts stand together, and say who plays before the stretches of the lead do.
        place = LATER_FACTS * (met[fact.kind] + 2 * (parts and fact.kind == "timbre"))
        # Of many parts a short page has room for a few: the whole says more.
        place += MANY_LATER * (fact.kind == "part" and not few)
        places.append(ranks.index(fact.kind) + place * (not (parts and fact.kind == "part")))
    return [found[k] for k in np.argsort(places, kind="stable")]


# Facts that take music for granted; of the notes, speech and noise hold some by chance.
MUSICAL, MELODIC = ("key", "chords", "bass", "drone", "timbre"), ("lead", "contour")


def credible(found: Sequence[Observation]) -> list[Observation]:
    """The facts without those of music where what sounds is none, and without what others say."""
    heard = found[0].value
    if "notes" in heard or "music" in heard:
        return list(found)
    kinds = {fact.kind for fact in found}
    idle = MUSICAL + MELODIC if "speech" in heard or "sequence" in kinds else MUSICAL
    # A portrait says what is pitched or not.
    idle += ("pitch",) if "portrait" in kinds else ()
    return [fact for fact in found if fact.kind not in idle]


FLATS = {"C#": "Db", "D#": "Eb", "F#": "Gb", "G#": "Ab", "A#": "Bb"}
FLAT_KEYS = ("C# major", "D# major", "G# major", "A# major", "D# minor", "A# minor")  # by use
SPELT = re.compile(r"([A-G]#) (major|minor)|(?<![A-Za-z])[ACDFG]#")


def fifths_of(name: str) -> int:
    """Sharps (flats: negative) in the signature of a key named by PITCH_CLASSES and mode."""
    tonic, mode = name.split()
    sharps = 7 * (PITCH_CLASSES.index(tonic) + 3 * (mode == "minor")) % 12
    return sharps - 12 * (sharps > 6 or name in FLAT_KEYS)


def spell(text: str, key: str) -> str:
    """Notes and chords of a text as they are written in a key of KEY_NAMES; keys by use."""
    # On the line of fifths C is 0, G 1, F -1; what a key borrows lies around its notes.
    middle = fifths_of(key) + (3 if key.endswith("minor") else 2)

    def written(found: re.Match[str]) -> str:
        if found[2]:
            return f"{FLATS[found[1]] if found[0] in FLAT_KEYS else found[1]} {found[2]}"
        place = 7 * PITCH_CLASSES.index(found[0]) % 12
        place += 12 * (place < 6)
        return found[0] if abs(place - middle) <= abs(place - 12 - middle) else FLATS[found[0]]

    return SPELT.sub(written, text)


def spell_value(value: Any, key: str) -> Any:
    """A value with its notes as they are written in a key, a key's name as that one's own."""
    if isinstance(value, str):
        return spell(value, key)
    if isinstance(value, Key):
        return Key(*spell(value.name, key).split(), value.confidence, spell(value.runner_up, key))
    if not isinstance(value, tuple):
        return value
    parts = [spell_value(part, key) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


def key_of(fact: Observation) -> str:
    """The key that a fact tells of, or the first of two; none of other kinds."""
    value = fact.value.key if fact.kind == "part" else fact.value if fact.kind == "key" else ""
    return key_words(value).split(",")[0] if value else ""


def spelt(found: Sequence[Observation]) -> Iterator[Observation]:
    """Facts whose notes are written as their own key writes them, or the first that is told."""
    keys = [key_of(fact) for fact in found]
    first = next(filter(None, keys), "E major")  # which has sharps alone
    for fact, key in zip(found, keys):
        text, short = (spell(words, key or first) for words in (fact.text, fact.short))
        yield fact._replace(value=spell_value(fact.value, key or first), text=text, short=short)


@functools.lru_cache(maxsize=1)
def observe(view: View) -> tuple[Observation, ...]:
    """All stated observations, the most telling first."""
    view, rate = until_end(view), view.row_rate
    spectra = view.clip.spectra
    found = rhythm_observations(spectra, rate)
    if found[0].kind == "level":  # of silence nothing more is to be said
        return tuple(found)
    heard = found[0].value
    # Drums ring at some pitch, but play no notes.
    found += [] if heard[0] == "drums" else pitch_observations(spectra, rate)
    found = with_grid(credible(found))
    # Each section is listened to once, whoever asks.
    section = functools.lru_cache(maxsize=None)(functools.partial(section_rhythm, view))
    # Speech and scenes are told by their events instead.
    if heard[0] == "notes" and len(spectra.level) / rate > SECTION_SECONDS:
        parts = observe_sections(view, section)
        # What is told part by part would be wrong of the whole.
        told = PARTED if 1 < len(parts) <= MOST_PARTS else ()
        found = [fact for fact in found if fact.kind not in told] + parts
    ordered = any(fact.kind == "sequence" for fact in found)
    found += observe_ends(view, found) + ([] if ordered else observe_course(view, heard, section))
    found = clarify([*found, *observe_character(view, found)])
    # The texture is said with what the sound is.
    told = [fact for fact in found if fact.kind != "texture"]
    return tuple(spelt(in_order(say_when(told))))


def parts_in_full(observed: Sequence[Observation], room: int) -> list[Observation]:
    """With parts told in full where that leaves a third of the room to what comes after them."""
    cost = lines_cost([fact.text for fact in observed if fact.kind == "part"])
    full = ("part",) if cost < room * 2 / 3 else ()
    return [fact._replace(short="") if fact.kind in full else fact for fact in observed]


def view_body(view: View, settings: Settings, room: int) -> list[str]:
    """Observations and runs of codes that fit into `room` LLM tokens."""
    budget = settings.max_llm_tokens
    wanted = int(CODE_SHARE * budget) if budget >= CODE_BUDGET else 0
    observed = observe(view) if settings.observations else ()
    measured = fill_lines(parts_in_full(observed, room - wanted), room - wanted)
    # A plain sound has few facts; the runs get what these leave, as far as a sound so short has
    # anything to tell.
    seconds = len(view.clip.codes) / view.row_rate
    spare = min(room - lines_cost(measured), int(CODE_FIRST + CODE_A_SECOND * seconds))
    codes = code_lines(view, spare) if wanted or spare >= CODE_LEAST else []
    titled = (("MEASURED", measured), ("CODES", codes))
    return [line for title, lines in titled if lines for line in (title, *lines)]


def view_text(view: View, settings: Settings) -> str:
    """The view of a sound, within settings.max_llm_tokens as count_llm_tokens() counts.

    Parameters
    ----------
    view : View
        The sound, its codes and the codebooks they are of.
    settings : Settings
        Budget, and whether to say the primer (`prompt`) and the `observations`.

    Returns
    -------
    str
        Title, primer, MEASURED, CODES and questions, as far as the budget holds them.
    """
    budget = settings.max_llm_tokens
    primer = next(text for least, text in PRIMERS if budget >= least)
    frame = [f"SOUND {view.title}", *([primer] if settings.prompt else [])]
    tail = [QUESTIONS] if settings.prompt and budget >= 400 else []
    body = view_body(view, settings, budget - lines_cost([*frame, *tail, "MEASURED", "CODES"]))
    # What was counted apart may cost more together.
    while body and lines_cost([*frame, *body, *tail]) > budget:
        body.pop()
    return "\n".join([*frame, *body, *tail])


NATIVE_AUDIO = 32  # LLM tokens a second that audio costs in a large commercial model (Gemini)


class BudgetRow(NamedTuple):
    """What one way to write a sound costs an LLM."""

    name: str
    tokens: int


def layer_costs(layer: int, column: np.ndarray, gloss: Gloss, *, rate: float) -> dict[str, int]:
    """What one layer costs in every frame, as runs, and its legend."""
    name, starts = LAYER_NAMES[layer], run_starts(column) if len(column) else ()
    used, counts = np.unique(column, return_counts=True)
    entries = [count_llm_tokens(f'"{name}":{code},') for code in used]
    legend = (count_llm_tokens(f'"{code}":"{gloss(layer, int(code))}",') for code in used)
    runs = " ".join(f"{t / rate:.1f}:{column[t]}" for t in starts)
    return {
        f"{name} in every frame": int(counts @ entries) if entries else 0,
        f"{name} as runs": count_llm_tokens(runs),
        f"{name} legend": sum(legend),
    }


def format_costs(header: Header, codes: np.ndarray, gloss: Gloss) -> dict[str, int]:
    """LLM tokens of each format and encoding."""

    def cost(lines: Iterable[str], end: str = "\n") -> int:
        """LLM tokens of lines with their end."""
        return sum(count_llm_tokens(line + end) for line in lines)

    def stream(encodings: tuple[str, ...], words: Gloss | None = None) -> int:
        """LLM tokens of the NDJSON events but header and end."""
        events = Encoder(header._replace(encodings=encodings), words).events(codes)
        return cost(event_lines(events, header.frame_rate))

    dense, rle = ("dense",) * NUM_QUANTIZERS, ("rle",) * NUM_QUANTIZERS
    whole, sparse = stream(dense + dense, gloss), stream(rle + rle, gloss)
    return {
        "ndjson with legend, dense": whole,
        "ndjson with legend, --rle-semantic": stream(rle + dense, gloss),
        "ndjson with legend, --rle": sparse,
        "  saved by --rle": whole - sparse,
        "  the legend in it": whole - stream(dense + dense),
        "  and the header before it": cost(event_lines([header], header.frame_rate)),
        "json": cost(map(dump_json, codes.tolist()), ",\n"),
        "text": cost(text_lines(codes)),
    }


def budget_rows(header: Header, codes: np.ndarray, gloss: Gloss, *, view: str) -> list[BudgetRow]:
    """LLM tokens of the view, each format, and each layer alone; what smoothing saved.

    Parameters
    ----------
    header : Header
        Of the stream that would be written; its encodings are replaced here.
    codes : ndarray [T, 8]
        All codes of the sound.
    gloss : Gloss
        Reading of a layer's code.
    view : str
        What view_text() said of the same sound.
    """
    costs = {"view for an LLM (stream)": count_llm_tokens(view)}
    costs |= format_costs(header, codes, gloss)
    for layer, name in enumerate(LAYER_NAMES):
        costs |= layer_costs(layer, codes[:, layer], gloss, rate=header.frame_rate)
        for smoothed in re.findall(rf"^{name} runs: (.*)$", view, re.MULTILINE):
            saved = costs[f"{name} as runs"] - count_llm_tokens(smoothed)
            costs[f"  saved by smoothing {name} in the view"] = saved
    return [BudgetRow(*cost) for cost in costs.items()]


def budget_lines(rows: Sequence[BudgetRow], seconds: float) -> list[str]:
    """Table of costs beside what native audio costs."""
    native = BudgetRow("native audio, for comparison", round(NATIVE_AUDIO * seconds))
    lines = [f"{'LLM tokens':36s} {'in all':>9s} {'a second':>9s} {'x native':>9s}"]
    for name, tokens in (*rows, native):
        rate = NATIVE_AUDIO if name == native.name else tokens / max(seconds, 1e-3)
        lines.append(f"{name:36s} {tokens:9d} {rate:9.1f} {rate / NATIVE_AUDIO:9.2f}")
    return lines


# 11 Evaluation -----------------------------------------------------------------------------------
# Uses: 1, 4, 5, 6, 7, 9, 10. Metrics over codes, and sound from codes.


# Squared in line_weights(), so a note of full strength stands (1 + 60) ** 2, some 36 dB, out of its
# band, and one of a tenth only 4 dB: weak classes, as noise has, hardly shape it.
LINE_STRENGTH = 60.0  # with it noise stays as noisy and notes as tonal as they were


class Metric(NamedTuple):
    """One figure of an evaluation, as in ("pitch.chroma_agreement", 0.93, "cosine, 0 to 1")."""

    name: str
    value: float | int | str | None
    unit: str
    why: str = ""  # why there is no value, where it is None


def gauge(name: str, value: float, unit: str, why: str = "it is not finite") -> Metric:
    """A figure to six digits and nine decimals; null and why where it is nan or infinite."""
    if not math.isfinite(value):
        return Metric(name, None, unit, why)
    # Zero is added lest -0.0 be written. Digits beyond the sixth would change with the order in
    # which sums were taken, and two equal evaluations would differ.
    rounded = value if isinstance(value, int) else float(f"{round(value, 9) + 0.0:.6g}")
    return Metric(name, rounded, unit)


class LayerReport(NamedTuple):
    """Statistics of one layer over a sound."""

    codes_used: int
    usage: float  # share of the codebook
    top_share: float  # share of the frames that have the commonest code
    entropy: float  # bits a frame
    perplexity: float  # 2 ** entropy: as many codes as if used evenly
    change_rate: float  # changes a second
    run_median: float  # seconds that a code is held
    run_p90: float  # likewise, nine of ten runs are no longer
    run_longest: float
    bitrate: float  # bit/s, log2 K a frame
    entropy_bitrate: float  # bit/s after an ideal entropy coder of order zero


LAYER_UNITS = LayerReport(
    "codes", "share of the codebook", "share of the frames", "bits a frame", "codes",
    "changes a second", "s", "s", "s", "bit/s, nominal", "bit/s, entropy-coded",
)  # fmt: skip


class CodeStatistics:
    """Counts of codes (each below `codebook_size`), changes and runs, gathered block by block."""

    def __init__(self, codebook_size: int) -> None:
        self._counts = np.zeros((len(LAYERS), codebook_size), dtype=np.int64)
        # A table of lengths, not a list of runs: it stays small however long the sound is.
        self._runs = [collections.Counter() for _ in LAYERS]  # frames held -> how often
        self._began = [0] * len(LAYERS)
        self._last: np.ndarray | None = None

    def add(self, codes: np.ndarray) -> None:
        """Count some more frames, codes int [n, 8], each from 0 to below the codebook's size."""
        # With the last frame of the block before, or a run across the joint would count twice.
        rows = codes if self._last is None else np.concatenate([self._last, codes])
        first = self.frames - len(rows) + len(codes) + 1
        for layer, column in enumerate(rows.T):
            starts = [self._began[layer], *(np.flatnonzero(column[1:] != column[:-1]) + first)]
            # The run still going on is not among them; only the report, which ends it, counts it.
            self._runs[layer].update(np.diff(starts).tolist())
            self._began[layer] = int(starts[-1])
        for layer, column in enumerate(codes.T):
            self._counts[layer] += np.bincount(column, minlength=self._counts.shape[1])
        self._last = codes[-1:] if len(codes) else self._last

    @property
    def frames(self) -> int:
        """Frames counted."""
        return int(self._counts[0].sum())

    def report(self, frame_rate: float) -> dict[str, LayerReport]:
        """Statistics of each layer by its name, meaningless before any frame was added."""
        return {name: self._layer(layer, frame_rate) for layer, name in enumerate(LAYER_NAMES)}

    def _layer(self, layer: int, frame_rate: float) -> LayerReport:
        counts, frames = self._counts[layer], self.frames
        share = counts[counts > 0] / max(1, frames)
        entropy = float(-(share * np.log2(share)).sum()) + 0.0
        # Not kept: more frames may follow, and the run with them.
        runs = self._runs[layer] + collections.Counter({frames - self._began[layer]: 1})
        lengths = np.array(sorted(runs))
        ranks = np.cumsum([runs[length] for length in lengths])
        # Quantiles of the table by its cumulated counts: the runs need not be listed one by one.
        held = lengths[np.searchsorted(ranks, np.array([0.5, 0.9, 1]) * ranks[-1])] / frame_rate
        change_rate = float((ranks[-1] - 1) * frame_rate / max(1, frames))
        return LayerReport(
            len(share), len(share) / len(counts), float(share.max(initial=0)), entropy, 2**entropy,
            change_rate, *held.tolist(), math.log2(len(counts)) * frame_rate, entropy * frame_rate,
        )  # fmt: skip


def entropy_bits(values: np.ndarray) -> float:
    """Plug-in entropy of whole numbers [T], in bits; 0 of none.

    It falls short by about (K - 1) / (2 T ln 2) bits for K values in T draws (Miller 1955).
    """
    share = np.unique(values, return_counts=True)[1] / max(1, len(values))
    return float(-(share * np.log2(share)).sum()) + 0.0


NUM_SHIFTS = 16  # in time, over which chance is averaged
LEAST_FRAMES = 43  # a second; less is not judged
# What is left is divided by what chance leaves of the bits: the less that is, the more the quotient
# tells of the sample. With 300 frames of 1000 codes nearly every pair comes once.
MOST_CHANCE = 0.7  # of the bits there are; beyond it too few are left to tell


def mutual_information(one: np.ndarray, other: np.ndarray) -> float:
    """Information that two code sequences [T] share, in bits a frame, less what chance gives.

    The plug-in estimate is held against its mean over circular shifts of one sequence, which keep
    the runs of both (a shuffle breaks them, and slow layers then share bits for nothing), and
    rescaled as the adjusted mutual information of Vinh, Epps and Bailey (2010, JMLR 11, eq. 5):
    independent sequences give 0 on average, equal ones their entropy. It is nan where one never
    changes, with fewer than LEAST_FRAMES frames, and where chance alone gives more than MOST_CHANCE
    of the bits, as with 300 frames of 1000 codes.
    """
    alone = entropy_bits(one), entropy_bits(other)
    # Codes come as int16, in which 1000 times 1000 pairs have no room.
    pairs = one.astype(np.int64) * (int(other.max(initial=0)) + 1)

    def shared(shift: int) -> float:
        """Bits that the columns share, one of them turned by so many frames."""
        return sum(alone) - entropy_bits(pairs + np.roll(other, shift))

    most = min(alone)
    if most == 0 or len(one) < LEAST_FRAMES:
        return math.nan
    # Multiples of the golden section fall evenly on any length, in step with no beat, and are the
    # same each time; near either end a slow layer would still stand against itself.
    places = 0.1 + 0.8 * (np.arange(1, NUM_SHIFTS + 1) * 0.6180339887 % 1)
    chance = float(np.mean([shared(shift) for shift in (places * len(one)).astype(int)]))
    if chance > MOST_CHANCE * most:
        return math.nan
    return most * (shared(0) - chance) / (most - chance)


class StageReport(NamedTuple):
    """What one stage of a chain makes of a sound, in squares of the features' units."""

    heard: float  # variance of what it is given, in its own metric
    explained: float  # share of that variance which its codes take off
    residual: float  # variance that is left after it, by that of the features
    spread: float  # variance of its codewords, by their median deviation: what it was made for
    distinct: int  # codewords that differ


class StageSums:
    """Sums over what the stages of a chain are given and leave, block by block."""

    def __init__(self, books: Codebooks) -> None:
        self._books, self._frames = books, 0
        shape = (len(books.vectors) + 1, books.vectors.shape[2])
        self._sums, self._squares = np.zeros(shape), np.zeros(shape)

    def add(self, features: np.ndarray, codes: np.ndarray) -> None:
        """Add some frames' features [n, D] and the codes [n, Q] they were given."""
        # No mean is known beforehand: sums and squares are kept, it is taken off at the end.
        residual = self._books.normalise(features)
        self._frames += len(residual)
        for q in range(len(self._sums)):
            residual = residual - self._books.vectors[q - 1][codes[:, q - 1]] if q else residual
            self._sums[q] += residual.sum(axis=0)
            self._squares[q] += np.square(residual).sum(axis=0)

    def reports(self) -> list[StageReport]:
        """A report for each stage; explained and residual are nan where nothing varies."""
        frames = max(1, self._frames)
        # A difference of large sums may end a little below zero where nothing varies.
        variance = np.maximum(self._squares / frames - (self._sums / frames) ** 2, 0)
        found = []
        for q, (vectors, weights) in enumerate(zip(self._books.vectors, self._books.weights)):
            before, after = (float(variance[k] @ weights**2) for k in (q, q + 1))
            whole = float(variance[0].sum())
            # 1.4826 makes it a normal distribution's standard deviation; a few codewords far out
            # would swell the plain one.
            deviation = np.median(np.abs(vectors - np.median(vectors, axis=0)), axis=0)
            # Below a step of the grid squared there is only rounding.
            explained = 1 - after / before if before > GRID**2 else math.nan
            left = float(variance[q + 1].sum()) / whole if whole > GRID**2 else math.nan
            # Dimensions without weight decide no code, so codewords that differ only there are one.
            distinct = len(np.unique(vectors * (weights > 0), axis=0))
            spread = float((1.4826 * deviation) ** 2 @ weights**2)
            found.append(StageReport(before, explained, left, spread, distinct))
        return found


def judge_layer(name: str, layer: LayerReport, stage: StageReport, *, frames: int) -> Metric:
    """Whether a layer has collapsed: what it hears varies, its codes do not, and explain nothing.

    A sound that does not vary in what a layer hears (silence, a steady tone) is not judged, nor is
    one of fewer than LEAST_FRAMES frames: the metric then has no value and says why.
    """
    unit = "none, or how it collapsed"
    if frames < LEAST_FRAMES:
        return Metric(name, None, unit, "shorter than a second")
    # A deviation of two of the features' units, or a twentieth of what the codebook was made for: a
    # steady tone through sound codebooks stays below, and one code is the right answer to it.
    if stage.heard < max(4.0, 0.05 * stage.spread):
        return Metric(name, None, unit, "what this layer hears hardly varies in this sound")
    # In order, the first decides. Codes that explain a tenth of the variance do their work, however
    # few they are; only then does a code's share or the perplexity speak against the layer.
    signs = (
        (stage.explained >= 0.1, "none"),
        (layer.codes_used == 1, "one code"),
        (layer.top_share > 0.9, f"one code in {layer.top_share:.0%} of the frames"),
        (layer.perplexity < 2, f"as if {layer.perplexity:.1f} codes"),
        (True, "none"),
    )
    return Metric(name, next(verdict for sign, verdict in signs if sign), unit)


def collapse_advice(verdict: Metric, stage: StageReport, codebook_size: int) -> str:
    """What a collapse is, and what to do about it, in one sentence."""
    layer = verdict.name.split(".")[1]
    cure = "--adapt moves the codebooks towards this sound, --codebook-init audio fits them on it"
    # Moving codewords does not part those that are equal: such a codebook has to be made anew.
    if stage.distinct < 0.1 * codebook_size:
        cure = f"its codebook holds {stage.distinct} codes: --force-reinit-codebooks, or more sound"
    return f"{layer} has collapsed ({verdict.value}, though what it hears varies): {cure}."


Pair = tuple[np.ndarray, np.ndarray]  # a sound's samples [n], and those of its reconstruction
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))  # FFT, hop and window
TOO_SILENT = "the sound is silent"


def frame_blocks(sounds: Pair, size: int, hop: int) -> Iterator[list[np.ndarray]]:
    """Frames [n, size] of two sounds together, some at a time, padded by half a frame."""
    # Half in front centres the first frame on the first sample; with a whole one behind, the last
    # block is cut like any other.
    padded = [np.pad(sound, (size // 2, size)) for sound in sounds]
    step = 512 * hop
    for start in range(0, len(sounds[0]), step):
        stop = min(start + step, len(sounds[0])) + size - 1
        yield [sliding(sound[start:stop], size)[::hop] for sound in padded]


def spectral_convergence(sounds: Pair) -> tuple[float, float]:
    """Multi-resolution STFT distance: spectral convergence, and log magnitude in nepers.

    Yamamoto, Song and Kim (2020, ICASSP, Parallel WaveGAN, eq. 4-6): the mean over its three
    resolutions, in samples, with its floor of 1e-7 of power. `sounds` are equally long, n > 0, full
    scale +-1. The one is a ratio of norms, 1 where the reconstruction is silent; the other the mean
    of log ratios; both are 0 for equal sounds.
    """
    found = []
    for n_fft, hop, width in RESOLUTIONS:
        # hann() has unit energy, the paper's window a peak of one (energy 3/8 of its width): with
        # another scale the floor of 1e-7 would mean another level.
        window = np.pad(hann(width) * math.sqrt(0.375 * width), (n_fft - width) // 2)
        error = energy = logs = count = 0.0
        for block in frame_blocks(sounds, n_fft, hop):
            one, other = (
                np.sqrt(np.maximum(np.abs(np.fft.rfft(frames * window, axis=1)) ** 2, 1e-7))
                for frames in block
            )
            error += float(np.square(one - other).sum())
            energy += float(np.square(one).sum())
            logs += float(np.abs(np.log(one / other)).sum())
            count += one.size
        found.append((math.sqrt(error / energy), logs / count))
    return tuple(np.mean(found, axis=0).tolist())


def log_spectral_distance(sounds: Pair) -> float:
    """Distance in dB of two power spectra over all bins, mean over the frames that sound.

    Gray and Markel (1976, IEEE Trans. ASSP 24-5), frames of 2048 samples; what lies 80 dB below the
    frame's mean counts as that. Samples [n] in full scale +-1; nan where the first is silent.
    """
    found = []
    for block in frame_blocks(sounds, 2048, 512):
        # Its first two bins are set to zero, so they would be equal in any two sounds.
        one, other = (power_spectrum(frames)[:, 2:] for frames in block)
        mean = one.mean(axis=1, keepdims=True)
        heard = mean[:, 0] * one.shape[1] > 10 ** (SILENCE / 10)
        ratio = np.log10((other + 1e-8 * mean)[heard] / (one + 1e-8 * mean)[heard])
        found.append(10 * np.sqrt(np.square(ratio).mean(axis=1)))
    distances = np.concatenate(found)
    return float(distances.mean()) if len(distances) else math.nan


def si_sdr(sounds: Pair) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, held within +-100.

    Le Roux, Wisdom, Erdogan and Hershey (2019, ICASSP, eq. 3); nan where one is silent.
    """
    # The distortion of a near copy is a small difference, of which float32 sums would leave little.
    one, other = (sound.astype(np.float64) for sound in sounds)
    energy = float(one @ one)
    if not energy or not other.any():
        return math.nan
    target = (float(one @ other) / energy) * one
    # An exact copy has no distortion, unrelated sounds no target: the scale's ends, not infinity.
    ratio = (float(target @ target) + 1e-300) / (float(np.square(target - other).sum()) + 1e-300)
    return float(np.clip(10 * math.log10(ratio), -100, 100))


def log_mel_distance(original: Spectra, rebuilt: Spectra) -> float:
    """Mean absolute difference of log-mel spectra in dB, floored 70 dB below the loudest.

    Both have rows for the same frames, T > 0. Level counts: half as loud is 6 dB away.
    """
    bands = [rows.mel + rows.level[:, None] for rows in (original, rebuilt)]
    # The original alone sets it, or a louder reconstruction would hide its own faults. -95 lies
    # above LEVEL_FLOOR, so that digital silence and dither count alike.
    floor = max(float(bands[0].max()) - 70, -95.0)
    one, other = (np.maximum(rows, floor) for rows in bands)
    return float(np.abs(one - other).mean())


def audible(spectra: Spectra) -> np.ndarray:
    """Whether each frame [T] is heard: not silent, nor 50 dB below the loudest."""
    return spectra.level > max(SILENCE, float(spectra.level.max(initial=LEVEL_FLOOR)) - 50)


def reconstruction_metrics(sounds: Pair, original: Spectra, rebuilt: Spectra) -> list[Metric]:
    """Distances between a sound and its reconstruction; without value where the sound is silent.

    `sounds` are [n] of both, in full scale +-1; the spectra have rows for the same frames.
    """
    units = {
        "log_mel_distance": "dB, mean absolute", "spectral_convergence": "ratio, 0 is equal",
        "log_magnitude": "nepers, mean absolute", "log_spectral_distance": "dB",
        "si_sdr": "dB of the waveform, of which codes hold no phase",
    }  # fmt: skip
    values = [math.nan] * len(units)
    # Whatever is rebuilt of silence, a ratio to nothing or a distance from the floor tells nothing.
    if audible(original).any():
        values = [log_mel_distance(original, rebuilt), *spectral_convergence(sounds),
                  log_spectral_distance(sounds), si_sdr(sounds)]  # fmt: skip
    return [gauge(f"reconstruction.{name}", value, unit, TOO_SILENT)
            for (name, unit), value in zip(units.items(), values)]  # fmt: skip


def is_voiced(spectra: Spectra) -> np.ndarray:
    """Whether each frame [T] has a pitch: it is heard, and half its power stands in peaks."""
    return audible(spectra) & (spectra.pitch > 0) & (spectra.tonal > 0.5)


def mean_cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Mean cosine of the rows of two arrays [n, D], a row of zeros counting 0; nan without rows."""
    if not len(one):
        return math.nan
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.mean((one * other).sum(axis=1) / np.maximum(norms, 1e-12)))


def share_where(marks: np.ndarray) -> float:
    """Share of marks [n] that are set, nan without any."""
    return float(marks.mean()) if len(marks) else math.nan


def pitch_metrics(original: Spectra, rebuilt: Spectra) -> list[Metric]:
    """Agreement of pitch classes, pitch and voicing, frame by frame.

    Raw pitch and chroma accuracy and voicing recall and false alarm as in MIREX (Poliner et al.
    2007, IEEE TASLP 15-4): within 50 cents, over the frames where the original has a pitch.
    Chroma is held against its mean over the classes, so that unrelated sounds give about 0. Both
    have rows for the same frames; a figure without frames to count over says which are missing.
    """
    voiced, guessed = is_voiced(original), is_voiced(rebuilt)
    chroma = [fold_chroma(rows.salience[voiced]) for rows in (original, rebuilt)]
    # Strengths are never negative: without it the cosine of unrelated frames would be far above 0.
    chroma = [rows - rows.mean(axis=1, keepdims=True) for rows in chroma]
    pitch = rebuilt.pitch[voiced]
    cents = 100 * np.abs(original.pitch[voiced] - pitch)
    # B and C are neighbours across the octave.
    folded = np.minimum(cents % 1200, 1200 - cents % 1200)
    # No pitch is written as 0, which as a MIDI number would be a C and right wherever a C sounds.
    near = [share_where((error <= 50) & (pitch > 0)) for error in (cents, folded)]
    heard = audible(original)
    recall, alarm = share_where(guessed[voiced]), share_where(guessed[heard & ~voiced])
    none = "no frame of the original has a pitch" if heard.any() else TOO_SILENT
    every = "every frame that sounds has a pitch" if heard.any() else TOO_SILENT
    share = "share of the pitched frames"
    return [
        gauge("pitch.chroma_agreement", mean_cosine(*chroma), "cosine, 1 equal, 0 chance", none),
        gauge("pitch.raw_pitch_accuracy", near[0], f"{share}, within 50 cents", none),
        gauge("pitch.raw_chroma_accuracy", near[1], f"{share}, octaves aside", none),
        gauge("pitch.voicing_recall", recall, share, none),
        gauge("pitch.voicing_false_alarm", alarm, "share of the unpitched frames", every),
        gauge("pitch.voicing_agreement", (recall + 1 - alarm) / 2,
                 "mean of both kinds' shares, 0.5 is chance", every if voiced.any() else none),
    ]  # fmt: skip


class Rhythm(NamedTuple):
    """When things begin (s), and the beat of one stretch with its rival, a minute; 0 for none."""

    times: np.ndarray
    bpm: float
    rival: float
    stretch: tuple[float, float]  # s


def rhythm_of(
    spectra: Spectra, frame_rate: float, stretch: tuple[float, float] = (0.0, math.inf)
) -> Rhythm:
    """Onsets of a sound, and the beat that lasts longest within a stretch, in seconds.

    `frame_rate` is in rows a second; without a steady beat there the tempo is 0.
    """
    onsets = find_onsets(spectra, frame_rate) if audible(spectra).any() else []
    pulses = estimate_tempo(spectra, frame_rate, onsets=onsets) if onsets else []
    # Of several tempi of the rebuilt sound that one counts which sounds where the original's does.
    shares = [min(pulse.stop, stretch[1]) - max(pulse.start, stretch[0]) for pulse in pulses]
    times = np.array([onset.time for onset in onsets])
    if max(shares, default=0.0) <= 0:
        return Rhythm(times, 0.0, 0.0, stretch)
    pulse = pulses[int(np.argmax(shares))]
    return Rhythm(times, pulse.bpm, pulse.rival, (pulse.start, pulse.stop))


def rhythm_scores(one: Rhythm, other: Rhythm, mir_eval: Any) -> list[float]:
    """Onset F-measure, precision and recall, tempo and octave agreement, nan for none.

    All 0-1; `one` is the original. nan: it has no onsets, or no beat, that could be found again.
    """
    scores, hits = [math.nan] * 3, [math.nan] * 2
    if len(one.times):
        found = len(other.times) > 0  # of none, mir_eval would warn
        scores = mir_eval.onset.f_measure(one.times, other.times) if found else [0.0] * 3
    if one.bpm:
        guesses = (np.array([rival, other.bpm]) for rival in (0.0, other.rival))
        # mir_eval compares pairs of tempi: the first of `wanted` has no weight, the second counts
        # as found if either guess lies within 8 %. One try is the beat alone, one its rival, too.
        wanted = np.array([0.0, one.bpm])
        hits = [mir_eval.tempo.detection(wanted, 0.0, guess)[0] for guess in guesses]
    return [float(score) for score in (*scores, *hits)]


def rhythm_metrics(
    original: Spectra, rebuilt: Spectra, frame_rate: float, *, mir_eval: Any
) -> list[Metric]:
    """Agreement of onsets within 50 ms and of the tempo within 8 %, by `mir_eval` (None: missing).

    Raffel et al. (2014, ISMIR); tempo detection as in McKinney et al. (2007, JNMR 36-1) with all
    weight on the original's tempo; beside it, whether half or double it would count. Both have rows
    for the same frames; without `mir_eval` only the tempi have values, all else says how to get it.
    """
    one = rhythm_of(original, frame_rate)
    other = rhythm_of(rebuilt, frame_rate, one.stretch)
    scores = rhythm_scores(one, other, mir_eval) if mir_eval else [math.nan] * 5
    silent = "the original has no onsets" if audible(original).any() else TOO_SILENT
    steady, missing = "no steady beat is heard", "it needs mir_eval: pip install mir_eval"
    units = (
        ("onset_f1", "F-measure within 50 ms", silent),
        ("onset_precision", "share of the rebuilt, within 50 ms", silent),
        ("onset_recall", "share of the original, within 50 ms", silent),
        ("tempo_agreement", "1 within 8 %, else 0", steady),
        ("tempo_octave_agreement", "1 also for half or double", steady),
    )
    tempi = {"tempo_original": one.bpm, "tempo_rebuilt": other.bpm}
    return [
        *(gauge(f"rhythm.{name}", score, unit, why if mir_eval else missing)
          for (name, unit, why), score in zip(units, scores)),
        *(gauge(f"rhythm.{name}", bpm or math.nan, "beats a minute", steady)
          for name, bpm in tempi.items()),
    ]  # fmt: skip


def timbre_metrics(original: Spectra, rebuilt: Spectra) -> list[Metric]:
    """Agreement of the spectral envelope (MFCC 1-12; Davis and Mermelstein 1980) and brightness.

    Quefrency 0, the level, is left out: it alone would make any two sounds alike. Both have rows
    for the same frames; those count in which the original is heard.
    """
    # Only where the original sounds: the colour of what lies in silence is the floor's.
    heard = audible(original)
    basis = dct_matrix(N_MELS)[:, 1 : 1 + TIMBRE_QUEFRENCIES]
    one, other = (rows.mel[heard] @ basis for rows in (original, rebuilt))
    octaves = band_tables()[1]
    bright, dim = (mel_shares(rows.mel[heard]) @ octaves for rows in (original, rebuilt))
    distance = deviation = follows = math.nan
    if heard.any():
        distance = float(np.linalg.norm(one - other, axis=1).mean())
        deviation = 1200 * float(np.median(np.abs(bright - dim)))
        # Below 0.05 octaves, 60 cents, a correlation (Pearson's: the cosine of courses less their
        # means) follows noise; a steady tone has none.
        if bright.std() > 0.05:
            follows = mean_cosine(*(course[None] - course.mean() for course in (bright, dim)))
    steady = "the brightness hardly varies" if heard.any() else TOO_SILENT
    return [
        gauge("timbre.mfcc_distance", distance, "dB, of MFCC 1-12", TOO_SILENT),
        gauge("timbre.mfcc_agreement", mean_cosine(one, other), "cosine of MFCC 1-12, -1 to 1",
                 TOO_SILENT),
        gauge("timbre.centroid_deviation", deviation, "cents, median", TOO_SILENT),
        gauge("timbre.centroid_agreement", follows, "correlation over time, -1 to 1", steady),
    ]  # fmt: skip


@functools.lru_cache(maxsize=4)
def note_lines(sample_rate: int, n_fft: int) -> np.ndarray:
    """How near each bin lies to a note of each pitch class, 0-1 [F, 12]; 1 below notes."""
    # Bin 0 has no logarithm; 20 Hz is below every note all the same.
    hz = np.maximum(np.arange(n_fft // 2 + 1) * sample_rate / n_fft, 20)
    away = np.abs((12 * np.log2(hz / 440)[:, None] + 9 - np.arange(12) + 6) % 12 - 6)  # semitones
    # A line is as narrow as vibrato and tuning allow, or as bins are apart.
    width = np.maximum(0.15, 0.8 * 12 * np.log2(1 + 0.5 * sample_rate / n_fft / hz))
    lines = np.exp(-0.5 * (away / width[:, None]) ** 2)
    # Below 60 Hz a bin is wider than a note, so all lie on a line; D#7, the highest note that is
    # told, has its octave just below 5 kHz, and beyond no line is known.
    return np.where(hz[:, None] < 60, 1.0, lines * (hz[:, None] < 5000))


def line_weights(chroma: np.ndarray, sample_rate: int, n_fft: int) -> np.ndarray:
    """Weights of bins [T, F] by strength 0-1 of pitch classes [T, 12], and of their overtones."""
    overtones = np.maximum(0.5 * np.roll(chroma, 7, axis=1), 0.3 * np.roll(chroma, 4, axis=1))
    heard = np.maximum(chroma, overtones)  # the third harmonic is a fifth up, the fifth a third
    return (1 + LINE_STRENGTH * heard**2 @ note_lines(sample_rate, n_fft).T) ** 2


def mel_to_power(mel: np.ndarray, weights: np.ndarray, *, bank: np.ndarray) -> np.ndarray:
    """Spread mel power [T, N_MELS] over the bins of a power spectrum [T, F] by weights [T, F].

    `bank` [F, N_MELS] is that of mel_filterbank(); bins that it gives no band stay empty.
    """
    # Each band is divided by the weight that lies in it before it is spread, so that only the shape
    # within bands is made up and the power that the codes tell of stays.
    return weights * ((mel / np.maximum(weights @ bank, 1e-9)) @ bank.T)


def features_to_power(features: np.ndarray, sample_rate: int, n_fft: int) -> np.ndarray:
    """Power spectrum [T, F] that acoustic features (or decoded codes) [T, D] stand for.

    One-sided, as power_spectrum() has it; F is n_fft / 2 + 1, `sample_rate` in Hz.
    """
    weights = line_weights(np.maximum(acoustic_chroma(features), 0), sample_rate, n_fft)
    bank = mel_filterbank(sample_rate, n_fft)
    return mel_to_power(acoustic_to_mel(features), weights, bank=bank)


def overlap_add(spectrum: np.ndarray, hop: int) -> np.ndarray:
    """Inverse short-time Fourier transform of [T, F], least squares, Hann; (T - 1) hop + N long.

    Griffin and Lim (1984, IEEE Trans. ASSP 32-2). N is 2 (F - 1) samples, a multiple of
    `hop`; `spectrum` is that of frames times hann(N).
    """
    size = 2 * (spectrum.shape[1] - 1)
    # The window again after the inverse, and the sum of its squares below: least squares for a
    # spectrum that belongs to no sound (Griffin and Lim 1984), as those asked for here do not.
    frames = np.fft.irfft(spectrum, size, axis=1) * hann(size)
    parts = size // hop
    out, norm = np.zeros((2, len(frames) + parts - 1, hop))
    for part in range(parts):
        piece = slice(part * hop, (part + 1) * hop)
        out[part : part + len(frames)] += frames[:, piece]
        norm[part : part + len(frames)] += hann(size)[piece] ** 2
    # At both ends the window runs out: what little is there would be divided by nothing.
    return (out / np.maximum(norm, 1e-3 / size)).ravel()


def griffin_lim(magnitude: np.ndarray, hop: int, *, passes: int = 24) -> np.ndarray:
    """Find a sound whose magnitudes [T, F] are the given ones (unit-energy Hann, size 4 hops).

    Fast Griffin-Lim (Perraudin, Balazs and Sondergaard 2013, WASPAA), momentum 0.99, phases
    started at random from a fixed seed. Frames have N = 2 (F - 1) samples, times hann(N), and are
    `hop` = N / 4 apart; the sound is (T - 1) hop + N long, the same for the same magnitudes.
    """
    # Phases of zero would gather each frame's energy into a pulse at its start. RandomState,
    # because NumPy promises its sequence for good: the same codes give the same sound.
    rng = np.random.RandomState(0)
    angles = np.exp(2j * np.pi * rng.random_sample(magnitude.shape))
    size, before = 2 * (magnitude.shape[1] - 1), None
    for _ in range(passes):
        # The fast variant goes 0.99 of the last step on before phases are taken.
        sound = overlap_add(magnitude * angles, hop)
        rebuilt = np.fft.rfft(sliding(sound, size)[::hop] * hann(size), axis=1)
        moved = rebuilt if before is None else rebuilt + 0.99 * (rebuilt - before)
        angles, before = moved / (np.abs(moved) + 1e-12), rebuilt
    return overlap_add(magnitude * angles, hop)


class Reconstructor:
    """Acoustic features -> approximate sound, block by block with cross-faded joins.

    The codes hold no phase, 64 bands of spectrum and the pitch classes, so this is a sketch of the
    sound: right length, loudness, rhythm, colour, notes; not its waveform, nor octaves for sure.
    """

    block, margin = 512, 8  # frames made at a time, frames of overlap

    def __init__(self, sample_rate: int, hop_length: int) -> None:
        self._rate, self._hop = sample_rate, hop_length
        self._rows, self._tail = np.zeros((0, ACOUSTIC.weights.shape[1])), np.zeros(0)
        self._made = 0

    def push(self, features: np.ndarray) -> np.ndarray:
        """Take decoded features [n, D]; return the samples [m] that are whole, full scale +-1.

        Features as `trained.acoustic.decode(codes)` gives them; nothing is clipped.
        """
        self._rows = np.concatenate([self._rows, features])
        parts = [np.zeros(0)]
        # Blocks begin at multiples of `block` whatever was pushed at once: one sound comes out.
        while len(self._rows) >= self.block + self.margin:
            parts.append(self._join(self._invert(self._rows[: self.block + self.margin])))
            self._rows = self._rows[self.block :]
        return np.concatenate(parts)

    def flush(self, samples: int) -> np.ndarray:
        """The rest, so that all that was returned is `samples` long; to be called once, at the end.

        What is too long is cut, what is too short filled with silence.
        """
        wanted = samples - self._made
        rest = self._join(self._invert(self._rows), last=True) if len(self._rows) else self._tail
        return np.pad(rest[:wanted], (0, max(0, wanted - len(rest))))

    def _invert(self, features: np.ndarray) -> np.ndarray:
        size = window_size(self._hop)
        power = features_to_power(features, self._rate, size)
        # power_spectrum() scales by 2 / size, which is taken back.
        sound = griffin_lim(np.sqrt(power * size / 2), self._hop)
        start = (size - self._hop) // 2  # where the first frame's own samples begin
        return sound[start : start + len(features) * self._hop]

    def _join(self, sound: np.ndarray, last: bool = False) -> np.ndarray:
        # Each block starts from phases of its own; butted together they would click.
        fade = len(self._tail)
        ramp = (np.arange(fade) + 0.5) / max(fade, 1)
        sound[:fade] = sound[:fade] * ramp + self._tail * (1 - ramp)
        cut = len(sound) if last else len(sound) - self.margin * self._hop
        self._tail = sound[cut:]
        self._made += cut
        return sound[:cut]


class Spread(NamedTuple):
    """Quartiles over clips."""

    lower: float
    median: float
    upper: float


class CardRow(NamedTuple):
    """What became of every layer's codes in one test."""

    group: str  # in CARD_GROUPS
    name: str
    shares: tuple[Spread, ...] = ()  # of frames, layer by layer
    misses: tuple[float | None, ...] = ()  # how far a changed code lies; 1: as any two frames'
    why: str = ""  # why there is nothing, where so


class ReportCard(NamedTuple):
    """A tokenizer's own report card."""

    ear: str
    codebook_id: str
    reads: tuple[str, ...]  # what each layer listens to
    clips: tuple[Metric, ...]
    rows: tuple[CardRow, ...]
    retrieval: tuple[Metric, ...]
    costs: tuple[Metric, ...]
    speed: Metric


class Peer(NamedTuple):
    """Published percentages of another tokenizer, of its first and last layer or of all."""

    name: str
    test: str  # "GROUP: NAME" of the row that it stands beside
    first: float
    last: float | None
    source: str
    differs: str


CARD_GROUPS = {  # group -> title of its table
    "change": "The sound is changed: frames that keep their code, %",
    "slice": "A slice is cut out and heard alone: frames that keep their code, %",
    "drift": "Codes are decoded to sound and heard again: frames that keep their code, %",
    "control": "Controls: frames of equal code, %",
    "edit": "Noise: unit edit distance, % of frames (0 is best)",
}
PEER_TESTS = {
    "slice": ("Liu et al. 2025 (ACL), arXiv 2409.19283, chart in their repository",
              "speech, at the codec's own frame rate; read off a chart"),
    "drift": ("O'Reilly et al. 2024, arXiv 2410.11025, oreillyp.github.io/codedrift",
              "all layers together; its decoder gives the waveform, ours a sketch without phase"),
    "edit": ("StableToken (ICLR 2026), arXiv 2509.22220, from a summary of it",
             "one layer of speech units; several noises, at levels of their own"),
}  # fmt: skip
# Grouped by test, as itertools.groupby() wants them in draw_peers().
PEERS = tuple(
    Peer(peer, test, first, last, *PEER_TESTS[test.split(":")[0]])
    for test, peer, first, last in (
        ("slice: 0.2 s alone", "EnCodec", 75, 17), ("slice: 0.2 s alone", "DAC", 63, 31),
        ("slice: 0.2 s alone", "HiFiCodec", 62, 22), ("slice: 0.2 s alone", "FunCodec", 29, 1),
        ("slice: 0.2 s alone", "SpeechTokenizer", 41, 5), ("slice: 0.4 s alone", "EnCodec", 83, 29),
        ("slice: 0.4 s alone", "DAC", 82, 65), ("slice: 0.4 s alone", "HiFiCodec", 72, 30),
        ("slice: 0.4 s alone", "FunCodec", 34, 2), ("slice: 0.4 s alone", "SpeechTokenizer", 60, 8),
        ("drift: 5 rounds", "DAC 44.1 kHz", 45, None),
        ("drift: 10 rounds", "DAC 44.1 kHz", 38, None), ("edit: noise", "StableToken", 10.17, None),
        ("edit: noise", "best supervised one before it", 26.17, None),
    )
)  # fmt: skip


def equal_codes(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Share [Q] of frames with equal code in the codes [T, Q] of two sounds, T > 0, from 0 to 1."""
    return (one == other).mean(axis=0)


def unit_edit_distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Levenshtein distance [Q] of codes [T, Q] and [U, Q], as a share of T.

    Insertions, deletions and replacements cost 1 each (Levenshtein 1966; Wagner and Fischer 1974).
    """
    # A row of the table at a time, all layers together: a loop over both sounds would be slow.
    steps = np.arange(len(other) + 1)[:, None]
    costs = np.repeat(steps, one.shape[1], axis=1)
    for row, codes in enumerate(one, start=1):
        best = np.minimum(costs[1:] + 1, costs[:-1] + (other != codes))
        best = np.concatenate([np.full((1, one.shape[1]), row), best])
        # All insertions at once: at one a place, the cheapest from the left is a running minimum.
        costs = np.minimum.accumulate(best - steps, axis=0) + steps
    return costs[-1] / max(1, len(one))


def miss_distance(chains: Sequence[Codebooks], one: np.ndarray, *, other: np.ndarray) -> np.ndarray:
    """Mean distance [8] of the codewords of unequal codes [T, 8], in their stage's metric."""
    stages = [vectors * w for books in chains for vectors, w in zip(books.vectors, books.weights)]
    columns = zip(stages, one.T, other.T)
    total = [np.linalg.norm(stage[a] - stage[b], axis=1).sum() for stage, a, b in columns]
    return np.array(total) / np.maximum((one != other).sum(axis=0), 1)


def card_row(
    group: str, name: str, *, pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    chains: Sequence[Codebooks], usual: np.ndarray,
) -> CardRow:  # fmt: skip
    """Compare codes [T, 8] of clips with those of what became of each, at least one pair.

    `group` is its table, a key of CARD_GROUPS ("edit" counts edits, all else frames), `name` its
    words there, `usual` [8] the miss_distance() of frames that have nothing to do with each other.
    """
    # A changed sound may be some frames longer or shorter.
    pairs = [(one[: len(other)], other[: len(one)]) for one, other in pairs]
    measure = unit_edit_distance if group == "edit" else equal_codes
    # By clip, not by frame, lest one long clip speak for all; how far codes miss is pooled over
    # clips, because a single one may have too few changed frames.
    shares = np.percentile([measure(*pair) for pair in pairs], (25, 50, 75), axis=0)
    one, other = (np.concatenate(side) for side in zip(*pairs))
    far = miss_distance(chains, one, other=other) / np.maximum(usual, 1e-9)
    known = (one != other).mean(axis=0) >= 0.01  # a few frames say nothing
    misses = tuple(float(x) if k else None for x, k in zip(far, known))
    return CardRow(group, name, tuple(Spread(*s) for s in shares.T.tolist()), misses)


def find_halves(halves: Sequence[np.ndarray], layers: Sequence[int]) -> float:
    """Share of halves whose likest other one is of the same clip; 2k and 2k + 1 belong together.

    Likeness is the Bhattacharyya coefficient of code histograms, summed over layers of codes
    [T, 8]; a tie counts in parts.
    """
    size, like = 1 + max(int(codes.max()) for codes in halves), 0.0
    for layer in layers:
        counts = [np.bincount(codes[:, layer], minlength=size) / len(codes) for codes in halves]
        like = like + np.sqrt(counts) @ np.sqrt(counts).T
    # A half is likest itself.
    like = like - 99 * np.eye(len(halves))
    # Sums in another order differ by less than 1e-9; split in parts, a tie does not depend on the
    # order of clips, and codes that tell nothing find halves just as often as chance.
    best = like >= like.max(axis=1, keepdims=True) - 1e-9
    return float(np.mean([row[k ^ 1] / row.sum() for k, row in enumerate(best)]))


def retrieval_metrics(halves: Sequence[np.ndarray]) -> tuple[Metric, ...]:
    """How often a clip's other half is found, by each layer, by each chain and by all; chance.

    `halves` are codes [T, 8], 2k and 2k + 1 of clip k; two clips are needed, or none has a value.
    """
    columns = {name: (k,) for k, name in enumerate(LAYER_NAMES)}
    columns.update({"S0-S3": range(4), "A0-A3": range(4, 8), "all": range(8)})
    unit, many = "precision at 1 by code histogram, 0 to 1", len(halves) > 2
    why = "" if many else "it takes two clips"
    found = {name: find_halves(halves, used) if many else None for name, used in columns.items()}
    found["chance"] = 1 / (len(halves) - 1) if many else None
    return tuple(Metric(name, value, unit, why) for name, value in found.items())


def share_words(share: float | None) -> str:
    """A share as percent: 97, 4.3, 0, or - for none."""
    # From 9.95 % on one digit less: with one more, 9.96 would be shown as 10.0.
    return "-" if share is None else f"{100 * share:.{int(0 < share < 0.0995)}f}"


def row_lines(card: ReportCard, groups: Iterable[str], cell: Callable[..., str]) -> Iterator[str]:
    """Rows of some groups as lines, a cell for each layer's share and miss."""
    yield " " * 33 + "".join(f"{name:>8s}" for name in LAYER_NAMES)
    for row in (row for group in groups for row in card.rows if row.group == group):
        cells = "".join(f"{cell(*pair):>8s}" for pair in zip(row.shares, row.misses))
        yield f"  {row.name:31s}" + (cells or f" none: {row.why}")


def card_lines(card: ReportCard) -> Iterator[str]:
    """The card as text: aligned tables, medians first."""
    seconds = sum(clip.value for clip in card.clips)
    yield f"Report card of the ear {card.ear!r}, codebooks {card.codebook_id}"
    yield f"{len(card.clips)} clips, {seconds:.0f} s: " + ", ".join(c.name for c in card.clips)
    yield from map("  {}  {}".format, LAYER_NAMES, card.reads)
    for group, title in CARD_GROUPS.items():
        yield from ("", f"{title} (median over clips)")
        yield from row_lines(card, (group,), lambda share, miss: share_words(share.median))
    costs = "What a second of sound costs an LLM, tokens (median over clips)"
    title = "Half a clip finds its other half by the codes it uses, % of halves"
    for title, metrics, words in ((title, card.retrieval, share_words),
                                  (costs, card.costs, "{:.0f}".format)):  # fmt: skip
        yield from ("", title)
        for name, value, _, why in metrics:
            yield f"  {name:31s}" + (f" none: {why}" if value is None else f"{words(value):>8s}")
    yield from ("", f"Speed on this machine, in this run: {card.speed.value:.0f} {card.speed.unit}")
    for title, groups, cell in (
        ("How far a changed code lies from the right one, % of two frames taken at random",
         ("change", "slice", "drift"), lambda share, miss: share_words(miss)),
        ("Quartiles over clips of all tables above, %", CARD_GROUPS,
         lambda share, miss: f"{100 * share.lower:.0f}-{100 * share.upper:.0f}"),
    ):  # fmt: skip
        yield from ("", title)
        yield from row_lines(card, groups, cell)
    title = "Published figures of others, first -> last layer, %: for the order of size only"
    yield from ("", title)
    for name, test, first, last, *_ in PEERS:
        yield f"  {test:31s}{first:8g}" + (f" -> {last:<4g}" if last else " " * 8) + f"  {name}"
    for test, (source, differs) in PEER_TESTS.items():
        yield f"  {test}: {source}; not comparable: {differs}"


def json_tree(value: Any) -> Any:
    """Named tuples as objects, tuples as arrays, all the way down."""
    if hasattr(value, "_asdict"):
        return {name: json_tree(part) for name, part in value._asdict().items()}
    return [json_tree(part) for part in value] if isinstance(value, (tuple, list)) else value


def card_fields(card: ReportCard) -> dict[str, Any]:
    """The card as a JSON object, with what others have published beside it."""
    found = {"layers": LAYER_NAMES, "groups": CARD_GROUPS, "published": PEERS}
    return {name: json_tree(part) for name, part in (*card._asdict().items(), *found.items())}


# Samples, spectra and codes of the excerpt are kept until the end; with a limit, to evaluate an
# hour takes no more memory than to evaluate two minutes, and the distances no more time.
EVALUATED = 120.0  # seconds from the beginning that stand against the reconstruction


class Evaluation(NamedTuple):
    """All that was measured of one sound."""

    source: str
    codebook_id: str
    frames: int
    duration: float  # s
    evaluated: float  # s from the beginning that stood against the reconstruction
    metrics: tuple[Metric, ...]
    warnings: tuple[str, ...]  # a sentence for each collapsed layer
    observations: tuple[Observation, ...] = ()


class Excerpt:
    """The first `limit` rows of arrays that come in blocks.

    `empty` [0, ...] are like the arrays that add() will be given, but for their rows.
    """

    def __init__(self, limit: float, *empty: np.ndarray) -> None:
        self._limit, self.count, self._parts = int(limit), 0, [empty]

    @property
    def full(self) -> bool:
        """Whether no more is wanted."""
        return self.count >= self._limit

    def add(self, *arrays: np.ndarray) -> None:
        """Take what there is room for."""
        if not self.full:
            self._parts.append(tuple(array[: self._limit - self.count] for array in arrays))
            self.count += len(self._parts[-1][0])

    def whole(self) -> list[np.ndarray]:
        """All rows kept of each array."""
        return [np.concatenate(arrays) for arrays in zip(*self._parts)]


def layer_metrics(
    statistics: CodeStatistics, stages: Sequence[StageReport], frame_rate: float
) -> list[Metric]:
    """Figures of each layer, and of all together."""
    found, none = [], "there are no frames"
    layers = statistics.report(frame_rate)
    for (name, layer), stage in zip(layers.items(), stages):
        part = f"tokens.{name}"
        for field, value, unit in zip(layer._fields, layer, LAYER_UNITS):
            # Without frames the sums give zeros, which would read like a layer that had collapsed.
            value = value if statistics.frames else math.nan
            found.append(gauge(f"{part}.{field}", value, unit, none))
        steady = "the features do not vary"
        unit = "share of the variance of what it hears"
        found.append(gauge(f"{part}.explained", stage.explained, unit, steady))
        unit = "variance left after it, by the features' variance"
        found.append(gauge(f"{part}.residual_energy", stage.residual, unit, steady))
        found.append(judge_layer(f"{part}.collapse", layer, stage, frames=statistics.frames))
    for field, unit in (("bitrate", LAYER_UNITS.bitrate), ("entropy_bitrate", "bit/s, coded")):
        total = sum(getattr(layer, field) for layer in layers.values())
        found.append(gauge(f"tokens.{field}", total, unit))
    return found


def hear_all(sound: np.ndarray, settings: Settings) -> Spectra:
    """All rows of a sound [n] in full scale +-1, at the settings' analysis rate."""
    analyzer = Analyzer(settings.sample_rate, settings.hop_length)
    return join_rows([analyzer.push(sound), analyzer.flush()])


def shared_metrics(codes: np.ndarray) -> list[Metric]:
    """Mutual information of every two layers of codes [T, 8]."""
    why = f"one never changes, or too few frames: {MOST_CHANCE:.0%} of the bits may be chance"
    return [
        gauge(f"mutual_information.{LAYER_NAMES[a]}-{LAYER_NAMES[b]}",
                 mutual_information(codes[:, a], codes[:, b]), "bits a frame, above chance", why)
        for a, b in itertools.combinations(range(len(LAYERS)), 2)
    ]  # fmt: skip


class Evaluator:
    """Gathers one sound, its tokens and its reconstruction, block by block; memory is bounded.

    Codes and stages are counted over the whole sound. What is held against the reconstruction, and
    what layers share, is measured on its first EVALUATED seconds.
    """

    def __init__(self, trained: Trained, settings: Settings) -> None:
        self._settings, self._trained = settings, trained
        self.statistics = CodeStatistics(settings.codebook_size)
        self._stages = [StageSums(books) for books in trained]
        nothing, silence = np.zeros((0, len(LAYERS)), np.int16), np.zeros(0)
        samples = EVALUATED * settings.sample_rate
        self._rows = Excerpt(
            EVALUATED * settings.frame_rate, nothing, *slice_rows(NO_SPECTRA, 0, 0)
        )
        self.original, self.rebuilt = Excerpt(samples, silence), Excerpt(samples, silence)

    def add(self, clip: Clip) -> None:
        """Take the next frames: codes int [n, 8], both chains' features and the spectra."""
        self.statistics.add(clip.codes)
        chains = np.split(clip.codes, [NUM_QUANTIZERS], axis=1)
        for stage, features, codes in zip(self._stages, clip[1:3], chains):
            stage.add(features, codes)
        self._rows.add(clip.codes, *clip.spectra)

    @property
    def codes(self) -> np.ndarray:
        """Codes of the excerpt [T, 8]."""
        return self._rows.whole()[0]

    def metrics(self, mir_eval: Any = None) -> tuple[list[Metric], list[str]]:
        """All figures, and a sentence for each collapsed layer; `mir_eval` may be missing.

        To be called when `original` and `rebuilt` hold their samples. Without any there are only
        the figures of the codes.
        """
        rate = self._settings.frame_rate
        codes, *rows = self._rows.whole()
        # In the order of LAYERS, as the verdicts of layer_metrics() that they are paired with.
        stages = [report for chain in self._stages for report in chain.reports()]
        found = layer_metrics(self.statistics, stages, rate)
        cures = [
            collapse_advice(verdict, stage, self._settings.codebook_size)
            for verdict, stage in zip((m for m in found if m.name.endswith(".collapse")), stages)
            if verdict.value not in (None, "none")
        ]
        found += shared_metrics(codes)
        sounds = [excerpt.whole()[0] for excerpt in (self.original, self.rebuilt)]
        # A sound and what is rebuilt of it need not end on the same sample: as far as both go.
        count = min(map(len, sounds))
        if count:
            # Heard by the same analyzer as the original, so that its own blur is on both sides.
            spectra = Spectra(*rows), hear_all(sounds[1], self._settings)
            frames = min(len(part.level) for part in spectra)
            both = [slice_rows(part, 0, frames) for part in spectra]
            found += reconstruction_metrics((sounds[0][:count], sounds[1][:count]), *both)
            found += pitch_metrics(*both) + rhythm_metrics(*both, rate, mir_eval=mir_eval)
            found += timbre_metrics(*both)
        return found, cures


def economy_metrics(rows: Sequence[BudgetRow], seconds: float) -> list[Metric]:
    """What formats cost an LLM in tokens a second, from the costs of so many seconds, more than 0.

    Of less than a second there are no figures, only why.
    """
    unit, why = f"LLM tokens a second (native audio: {NATIVE_AUDIO})", "shorter than a second"
    # Rows that begin with a space say what others save; they are no format.
    named = ((re.sub(r"\W+", "_", row.name).strip("_"), row) for row in rows if row.name[0] != " ")
    lasts = 1 if seconds >= 1 else math.nan
    return [gauge(f"economy.{name}", row.tokens * lasts / seconds, unit, why)
            for name, row in named]  # fmt: skip


def evaluation_fields(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as JSON has it; see metrics_schema()."""

    def fields(metric: Metric) -> dict[str, Any]:
        """What the JSON holds of a metric."""
        # A reason stands only where there is no value, and there always, as the schema wants it.
        shown = {"value": metric.value, "unit": metric.unit}
        return {**shown, "why": metric.why} if metric.value is None else shown

    return {
        "source": evaluation.source,
        "codebook_id": evaluation.codebook_id,
        "frames": evaluation.frames,
        "duration_s": evaluation.duration,
        "evaluated_s": evaluation.evaluated,
        "warnings": list(evaluation.warnings),
        "metrics": {metric.name: fields(metric) for metric in evaluation.metrics},
        "observations": [fact.as_dict() for fact in evaluation.observations],
    }


class Summary(NamedTuple):
    """One metric over several sounds."""

    name: str
    unit: str
    files: int  # that have a value
    median: float
    q1: float
    q3: float
    outliers: tuple[tuple[str, float], ...]  # file and value


def summarize(files: Mapping[str, Sequence[Metric]]) -> list[Summary]:
    """Median, quartiles and outliers of each metric over files that have a number for it.

    An outlier lies more than three quartile distances beyond a quartile ("far out", Tukey 1977,
    Exploratory Data Analysis); fewer than five files have none. In the order in which metrics first
    come; the same name in another unit is another metric.
    """
    values: dict[tuple[str, str], dict[str, float]] = {}
    for file, metrics in files.items():
        for name, value, unit, _ in metrics:
            if isinstance(value, (int, float)):
                values.setdefault((name, unit), {})[file] = value
    found = []
    for (name, unit), by_file in values.items():
        q1, median, q3 = np.percentile(list(by_file.values()), (25, 50, 75)).tolist()
        # Where files agree the quartile distance may be 0, and a rounding would be far out.
        reach = 3 * max(q3 - q1, 0.01 * abs(median))
        far = [pair for pair in by_file.items() if not q1 - reach <= pair[1] <= q3 + reach]
        # Of four values one that stands out moves the quartile that it is held against.
        kept = tuple(far) if len(by_file) >= 5 else ()
        found.append(Summary(name, unit, len(by_file), median, q1, q3, kept))
    return found


def summary_fields(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """Several evaluations and what they are together, as JSON has it."""
    rows = summarize({name: evaluation.metrics for name, evaluation in evaluations.items()})
    summary = {row.name: row._asdict() for row in rows}
    for fields in summary.values():
        fields["outliers"] = dict(fields["outliers"])
        del fields["name"]
    files = {name: evaluation_fields(evaluation) for name, evaluation in evaluations.items()}
    return {"files": files, "summary": summary}


def metrics_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a metrics file, of one sound or of several."""
    known = object_schema(
        ("value", "unit"), {"value": {"type": ["number", "string"]}, "unit": TEXT}
    )
    why = {**TEXT, "minLength": 1}
    # Null demands a reason, which the other form does not know: no metric fits both.
    unknown = {"value": {"type": "null"}, "unit": TEXT, "why": why}
    metric = {"oneOf": [known, object_schema(unknown, unknown)]}
    fields = {"source": TEXT, "codebook_id": TEXT, "frames": COUNT, "duration_s": NUMBER}
    fields.update(evaluated_s=NUMBER, warnings={"type": "array", "items": TEXT})
    fields["metrics"] = {"type": "object", "additionalProperties": metric}
    fields["observations"] = {"type": "array", "items": {"type": "object"}}
    one = object_schema(fields, fields)
    row = {"unit": TEXT, "files": COUNT, **dict.fromkeys(("median", "q1", "q3"), NUMBER)}
    row["outliers"] = {"type": "object", "additionalProperties": NUMBER}
    summary = {"type": "object", "additionalProperties": object_schema(row, row)}
    many = {"files": {"type": "object", "additionalProperties": one}, "summary": summary}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA}:metrics:{FORMAT_VERSION}",
        "title": "Metrics of one sound, or of several and what they are together",
        "oneOf": [one, object_schema(many, many)],
    }


LAYER_COLUMNS = {  # word at the head of a column: metric of a layer
    "codes": "codes_used", "usage": "usage", "perpl.": "perplexity", "bits": "entropy",
    "chg/s": "change_rate", "median": "run_median", "p90 s": "run_p90", "max s": "run_longest",
    "bit/s": "bitrate", "coded": "entropy_bitrate", "expl.": "explained",
    "left": "residual_energy", "coll.": "collapse",
}  # fmt: skip
TITLES = {
    "tokens": "All layers", "reconstruction": "Reconstruction", "pitch": "Pitch",
    "rhythm": "Rhythm", "timbre": "Timbre", "economy": "LLM economy", "speed": "Speed",
}  # fmt: skip


def figure_words(value: float | int | str | None) -> str:
    """A value in at most six characters, "-" for none."""
    if value is None or isinstance(value, str):
        # The only words among the values are verdicts of collapse.
        return {None: "-", "none": "no"}.get(value, "yes")
    if value == int(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3f}"[:5] if abs(value) >= 0.001 else f"{value:.0e}"


def layer_table(values: Mapping[str, Any]) -> list[str]:
    """Figures of each layer, and what every two share, from values of metrics by name."""
    lines = ["Tokens" + "".join(f"{word:>7s}" for word in LAYER_COLUMNS)]
    for layer in LAYER_NAMES:
        row = (values.get(f"tokens.{layer}.{field}") for field in LAYER_COLUMNS.values())
        lines.append(f"{layer:6s}" + "".join(f"{figure_words(value):>7s}" for value in row))
    lines.append("Shared" + "".join(f"{layer:>7s}" for layer in LAYER_NAMES[1:]) + "  bits a frame")
    for at, one in enumerate(LAYER_NAMES[:-1]):
        row = (values.get(f"mutual_information.{one}-{other}") for other in LAYER_NAMES[at + 1 :])
        lines.append(f"{one:6s}" + " " * 7 * at + "".join(f"{figure_words(v):>7s}" for v in row))
    return lines


def figure_lines(metrics: Sequence[Metric]) -> list[str]:
    """Figures as a table of at most 100 columns: layers, what they share, then group by group."""
    lines = layer_table({metric.name: metric.value for metric in metrics})
    # Names with a second dot, those of layers, do not match: they have stood in the table before.
    for group, title in TITLES.items():
        rows = [metric for metric in metrics if re.match(rf"{group}\.\w+$", metric.name)]
        lines += [title] * bool(rows)
        for name, value, unit, why in rows:
            words = f"  {name[len(group) + 1 :]:28s}{figure_words(value):>8s}  {why or unit}"
            lines.append(words[:100])
    return lines


KEPT = {  # what a listener calls what a figure of agreement measures; all have 1 as their best
    "harmony": "pitch.chroma_agreement", "melody": "pitch.raw_pitch_accuracy",
    "melody, octaves aside": "pitch.raw_chroma_accuracy", "attacks": "rhythm.onset_f1",
    "tempo": "rhythm.tempo_octave_agreement", "timbre": "timbre.mfcc_agreement",
}  # fmt: skip
HOW_WELL: Ladder = (
    ("well", lambda share: share >= 0.8), ("in part", lambda share: share >= 0.4),
    ("hardly", lambda share: True),
)  # fmt: skip


def verdict_line(evaluation: Evaluation) -> str:
    """What the figures say, in words: how many layers live, and what the codes keep."""
    values = {metric.name: metric.value for metric in evaluation.metrics}
    bad = len(evaluation.warnings)
    layers = f"{bad} of {len(LAYERS)} layers have collapsed" if bad else "no layer has collapsed"
    known = {words: values[name] for words, name in KEPT.items() if values.get(name) is not None}
    judged = {words: first_rung(HOW_WELL, share) for words, share in known.items()}
    kept = []
    for how, _ in HOW_WELL:
        found = [f"{words} {known[words]:.2f}" for words in judged if judged[words] == how]
        kept += [f"{how}: {', '.join(found)}"] if found else []
    kept = kept or ["nothing that could be compared"]
    return f"In words: {layers}. Decoded to sound, the codes keep (of 1) {'; '.join(kept)}."


def evaluation_lines(evaluation: Evaluation) -> list[str]:
    """An evaluation to be read: the verdict, what is wrong, then the figures."""
    title = f"EVALUATION of {evaluation.source}, {evaluation.duration:.2f} s"
    if evaluation.evaluated < evaluation.duration:
        title += f" (against the reconstruction: the first {evaluation.evaluated:.0f} s)"
    said = [verdict_line(evaluation), *evaluation.warnings]
    words = [line for text in said for line in textwrap.wrap(text, 100)]
    return [title[:100], *words, *figure_lines(evaluation.metrics)]


def summary_lines(files: Mapping[str, Sequence[Metric]]) -> list[str]:
    """Medians and quartiles over files, and which file is an outlier in what."""
    medians, far = [], collections.defaultdict(list)
    for name, unit, _, median, q1, q3, outliers in summarize(files):
        medians.append(Metric(name, median, f"{figure_words(q1)} to {figure_words(q3)}, {unit}"))
        for file, value in outliers:
            far[file].append(f"{name} {figure_words(value)} (median {figure_words(median)})")
    lines = [f"MEDIANS (and quartiles) over {len(files)} files", *figure_lines(medians)]
    for file, words in far.items():
        lines += textwrap.wrap(f"Far out: {file}: {', '.join(words)}", 100, subsequent_indent="  ")
    return lines


# How much of their codes two unrelated sounds have in common, by the seconds of the shorter one:
# medians over pairs of 32 pieces of orchestral game music, `python tests/benchmarks/likeness.py`.
CHANCE_SECONDS = (3, 10, 30, 100)
COMMON_CHANCE = (  # a row for each layer, a column for each length
    (0.00, 0.00, 0.08, 0.18), (0.00, 0.00, 0.04, 0.10), (0.00, 0.02, 0.10, 0.18),
    (0.00, 0.05, 0.13, 0.26), (0.02, 0.08, 0.16, 0.26), (0.02, 0.08, 0.15, 0.24),
    (0.38, 0.50, 0.61, 0.68), (0.12, 0.22, 0.33, 0.47),
)  # fmt: skip
# Of what chance leaves over all layers: the least that one recording, changed, has in step; that
# tells from unrelated music (none of 900 pairs); and the least in common of sounds of a kind (2.6 %
# of these pairs): see tests/benchmarks/likeness.py.
SAME_TAKE, IN_STEP, OF_A_KIND = 0.5, 0.05, 0.15
ROOM = 0.2  # that chance leaves at least where in step says anything


class LayerLikeness(NamedTuple):
    """How alike two sounds are in one layer; all but the name are shares, 0 to 1."""

    name: str
    in_step: float  # of the shorter sound's frames: equal code at the best lag
    in_step_chance: float  # the same where one sound's codes stand in reverse order
    in_common: float  # of the frames of both: codes that both use, as often as both do
    in_common_chance: float | None  # of unrelated sounds as long; None where not measured


class Likeness(NamedTuple):
    """How alike two sounds are; see compare(). As text it is the verdict and a table.

    Attributes
    ----------
    verdict : str
        All of it in one sentence.
    identical : bool
        Whether every code is equal.
    lag : float
        Seconds by which the second sound comes after the first, where they agree best.
    layers : tuple of LayerLikeness
        A row for each layer, in the order of LAYERS.
    """

    verdict: str
    identical: bool
    lag: float
    layers: tuple[LayerLikeness, ...]

    def lines(self) -> Iterator[str]:
        """The verdict, and percentages with what chance gives in brackets."""
        yield self.verdict
        for words, column in (("in step (chance)", 1), ("codes in common (unrelated)", 3)):
            cells = (
                f"{r.name} {share_words(r[column])} ({share_words(r[column + 1])})"
                for r in self.layers
            )
            yield f"{words}, %: {', '.join(cells)}"

    def __str__(self) -> str:
        return "\n".join(self.lines())


def equal_by_lag(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equal codes of two layers [T] and [U] at each lag from 1 - T to U - 1, as they are; and with
    the first in reverse order: whole numbers [T + U - 1]."""
    count, last = len(one) + len(other) - 1, len(one) - 1
    size = 1 << (count - 1).bit_length()
    counts, waves = np.zeros((2, count)), np.zeros((2, size // 2 + 1), complex)
    for code in np.intersect1d(one, other):
        here, there = (np.flatnonzero(codes == code) for codes in (one, other))
        if len(here) * len(there) <= 4 * size:
            lags = there + last - here[:, None], there + here[:, None]
            counts += [np.bincount(found.ravel(), minlength=count) for found in lags]
        else:  # as ones and zeros, by FFT: all lags of a frequent code for the price of a few
            one_wave, wave = (np.fft.rfft(codes == code, size) for codes in (one, other))
            waves += one_wave.conj() * wave, one_wave * wave
    straight, reverse = np.rint(np.fft.irfft(waves, size))
    return counts[0] + np.roll(straight, last)[:count], counts[1] + reverse[:count]


def best_lag(one: np.ndarray, other: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Frames by which `other` [U, 8] comes after `one` [T, 8] where most codes agree; how many do
    there [8]; and how many with one of them in reverse order, at the best lag that then is."""
    # Of two lags that are as good, one would be found from either side.
    if (len(one), one.tobytes()) > (len(other), other.tobytes()):
        lag, *counts = best_lag(other, one)
        return -lag, *counts
    straight, reverse = np.stack([equal_by_lag(*pair) for pair in zip(one.T, other.T)], axis=1)
    lags = np.arange(1 - len(one), len(other))
    # Sums are whole numbers: of several as good the nearest to no lag is taken.
    best = np.argmax(straight.sum(axis=0) - np.abs(lags) / (len(lags) + 1))
    return int(lags[best]), straight[:, best], reverse[:, np.argmax(reverse.sum(axis=0))]


def shared_use(one: np.ndarray, other: np.ndarray) -> float:
    """Share of frames that two layers [T] and [U] spend on the same codes (Swain and Ballard 1991,
    IJCV 7: histogram intersection)."""
    # Whole numbers to the last, so that equal sounds have exactly 1.
    size, frames = 1 + int(max(one.max(), other.max())), len(one) * len(other)
    weighed = [np.bincount(x, minlength=size) * (frames // len(x)) for x in (one, other)]
    return float(np.minimum(*weighed).sum() / frames)


def named_layers(layers: Sequence[LayerLikeness], wanted: Iterable[bool], none: str = "") -> str:
    """Those layers that are wanted, in words; what a chain leaves over has no words."""
    # Another ear's semantic layers listen to something else.
    known = (row.in_common_chance is not None for row in layers)
    words = (word if k else row.name for word, k, row in zip(VIEW_NAMES, known, layers))
    return ", ".join(word for word, k in zip(words, wanted) if k and "detail" not in word) or none


def likeness_verdict(layers: Sequence[LayerLikeness], lag: float, *, seconds: float) -> str:
    """Likeness in a sentence of sounds that are not identical, the shorter of some seconds."""
    rows = np.array([row[1:] for row in layers], dtype=float)
    step, room = rows[:, 0] - rows[:, 1], float(1 - rows[:, 1].mean())
    common, left = rows[:, 2] - rows[:, 3], 1 - rows[:, 3]
    together = float(step.mean()) / room if room >= ROOM else 0.0
    when = f", the second {abs(lag):.2f} s {'later' if lag > 0 else 'earlier'}" if lag else ""
    if together >= SAME_TAKE:
        changed = named_layers(layers, rows[:, 0] < SAME_TAKE)
        changed = changed.replace("timbre", "loudness or timbre")  # A0 hears both
        return f"the same recording{when}" + f", other in {changed}" * bool(changed)
    if seconds < CHANCE_SECONDS[0]:
        return f"too short to tell: under {CHANCE_SECONDS[0]} s"
    if together >= IN_STEP:
        alike = named_layers(layers, step >= 2 * IN_STEP, "little")
        return f"in step{when}: alike in {alike}; the rest is other, or only a part is shared"
    known = ~np.isnan(left)
    if np.sum((common / left)[known]) >= OF_A_KIND * max(known.sum(), 1):
        alike = named_layers(layers, common >= OF_A_KIND, "details")
        how = "not in step" if room >= ROOM else "both stand still"
        return f"of a kind, as parts of one piece are: alike in {alike}; {how}"
    return "no more alike than unrelated sounds are"


def usual_common(codes: Codes, seconds: float) -> list[float | None]:
    """What each layer has in common with unrelated music of a length; None where not measured."""
    # Of codebooks of other sizes, and of another ear's semantic codes, it was not.
    spectral, at = codes.codebook_id.startswith("spectral"), np.log(CHANCE_SECONDS)
    chances = [float(np.interp(math.log(max(seconds, 1.0)), at, row)) for row in COMMON_CHANCE]
    known = [spectral or layer.kind == "acoustic" for layer in LAYERS]
    same = codes.codebook_size == CODEBOOK_SIZE
    return [chance if same and k else None for chance, k in zip(chances, known)]


def central_codes(codes: Codes) -> np.ndarray:
    """The middle of a sound's codes [<= T, 8], as long as the longest of which chance is known."""
    most = int(CHANCE_SECONDS[-1] * codes.frame_rate)
    return codes.array[max(0, (len(codes) - most) // 2) :][:most]


def compare(a: Codes, b: Codes) -> Likeness:
    """How alike two sounds are: identical, one recording, in step, of a kind, or neither.

    In step are frames of equal code, the second sound being moved to where most agree; chance is
    the same with one of the two in reverse order. (Where it is near 1 they stand still or go
    round, and to be in step says nothing.) In common are codes in whatever order, in at most 100 s
    from the middle of each; chance is that of unrelated music as long. `compare(b, a)` says the
    same, with the lag's sign reversed.

    Parameters
    ----------
    a, b : Codes
        What one tokenizer's encode() gives, or `hear(...).codes`.

    Returns
    -------
    Likeness
        A verdict in words, the lag in seconds, and a row for each layer.

    Raises
    ------
    TypeError
        If one is no Codes, or has no frames.
    UsageError
        If they are of different codebooks, whose codes mean different things.

    Examples
    --------
    >>> print(compare(tokenizer.encode("a.wav"), tokenizer.encode("b.wav")))   # doctest: +SKIP
    """
    wrong = [x for x in (a, b) if not isinstance(x, Codes) or not len(x)]
    if wrong:
        raise TypeError(f"compare() takes encode(...) or hear(...).codes, not {wrong[0]!r:.60}")
    if a.codebook_id != b.codebook_id:
        raise UsageError(f"codes of {a.codebook_id} and of {b.codebook_id} cannot be compared")
    frames, *counts = best_lag(a.array, b.array)
    step, luck = (np.round(count / min(len(a), len(b)), 6) + 0.0 for count in counts)
    common = [shared_use(*pair) for pair in zip(central_codes(a).T, central_codes(b).T)]
    seconds = min(a.seconds, b.seconds)
    rows = zip(LAYER_NAMES, step.tolist(), luck.tolist(), common, usual_common(a, seconds))
    layers, lag = tuple(LayerLikeness(*row) for row in rows), frames / a.frame_rate
    if np.array_equal(a.array, b.array):
        return Likeness("identical: every code is equal", True, lag, layers)
    return Likeness(likeness_verdict(layers, lag, seconds=seconds), False, lag, layers)


# 12 Figures and report ---------------------------------------------------------------------------
# Uses: 1, 2, 3, 4, 5, 6, 9, 10, 11. Pictures of one sound from what a view is made of; no display.

# A panel takes 0.74 of 14 inches at 120 dots an inch: the canvas would average more columns away.
COLUMNS, LIKENESS_ROWS, RATE_POINTS = 1240, 600, 100  # along time, at most; longer is pooled
CLOCK_STEPS = (*(m * 10.0**e for e in (-3, -2, -1, 0) for m in (1, 2, 5)), 10, 20, 30, 60, 120, 300,
               600, 1200, 1800, 3600, 7200, 14400)  # fmt: skip
HUE_STEP = 0.6180339887  # its multiples spread neighbouring codes over a whole colour map
# Names of sounds may be in any script; each sign is taken from the first font that has it.
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans", "Arial Unicode MS", "Microsoft YaHei")
FILE_NOTES: dict[str, dict[str, str | None]] = {  # without what differs from run to run
    "png": {"Software": None}, "svg": {"Date": None, "Creator": PROGRAM},
    "pdf": {"CreationDate": None, "Creator": PROGRAM, "Producer": PROGRAM},
}  # fmt: skip
MARKED: dict[str, Callable[[Any], str]] = {  # kinds that stand at a time, and how they are named
    "change": str,
    "jump": "loudness {:+.0f} dB".format,
    "pause": lambda parts: "silence " + ", ".join(f"{a:.1f}-{b:.1f} s" for a, b, _ in parts),
    "event": lambda parts: parts[0].what,
    "sweep": lambda slide: f"glide {slide.low:.0f}-{slide.high:.0f} Hz",
    "glide": lambda slide: f"glide, seconds a cycle: {slide.cycle:.2f}" if slide.cycle else "glide",
    "voice": lambda hertz: f"voice {' '.join(f'{hz:.0f}' if hz else '?' for hz in hertz)} Hz",
    "speech": lambda phrases: f"phrases of speech: {len(phrases)}",
    "events": lambda sounds: f"like sounds: {len(sounds)}",
    "swells": lambda times: f"swells: {len(times)}",
}


class Theme(NamedTuple):
    """Colours of a figure; the hues are near Okabe and Ito's (2008), safe for the colour-blind."""

    ground: str
    panel: str
    ink: str
    faint: str
    hues: tuple[str, str, str, str]


THEMES = {
    "light": Theme("#ffffff", "#f3f4f6", "#1b1f24", "#5f6875",
                   ("#0072b2", "#d55e00", "#007a5a", "#b0548a")),
    "dark": Theme("#14171c", "#1e232b", "#eceff4", "#9aa4b2",
                  ("#56b4e9", "#e69f00", "#2bb58a", "#df94c0")),
}  # fmt: skip


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """Fonts that are here, for drawing and saving, and names in SVG that do not change."""
    matplotlib = require("matplotlib")
    from matplotlib.font_manager import fontManager

    families = [name for name in FONTS if name in fontManager.get_font_names()] or ["sans-serif"]
    rules = {"font.family": families, "svg.hashsalt": PROGRAM}
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # a user's matplotlibrc is for the user's own figures
        matplotlib.rcParams.update(rules)
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script without font
        yield


def plain_text(text: str, limit: int = 90) -> str:
    """Text as it is: no control characters, no mathematics between dollar signs, cut."""
    # Between two dollar signs matplotlib would set formulas, and fail on names that are none.
    return visible(text, limit).replace("$", r"\$")


def block_size(count: int, most: int = COLUMNS) -> int:
    """Rows to a block, a power of two, so that `count` rows make at most `most` blocks."""
    # SpectrumPool can but join columns in pairs, and what lies under it must be pooled alike.
    return 1 << max(0, math.ceil(math.log2(max(count, 1) / most)))


def blocks_of(rows: np.ndarray, most: int = COLUMNS) -> np.ndarray:
    """Rows [T, ...] as at most `most` blocks [n, size, ...]; the last row fills the last block.

    `size` is block_size(T, most); T > 0.
    """
    size = block_size(len(rows), most)
    # Zeros would darken the last column, and be code 0 in ribbons.
    padded = np.concatenate([rows, np.repeat(rows[-1:], -len(rows) % size, axis=0)])
    return padded.reshape(-1, size, *rows.shape[1:])


class SpectrumPool:
    """Linear spectrogram of a sound of any length in at most COLUMNS columns, block by block.

    Its columns stand for as many frames as those that blocks_of() makes of the same sound. `frames`
    are the first that is kept and the one after the last, counted from the sound's beginning.
    """

    def __init__(self, hop_length: int, frames: tuple[int, int]) -> None:
        self._hop, self._size = hop_length, window_size(hop_length)
        self._first, self._stop = frames
        # As in the analyzer, a frame's window is centred on its own samples.
        self._waiting = np.zeros((self._size - hop_length) // 2)
        # How long the sound is shows only at its end, so there is room for the most columns.
        self._sums = np.zeros((COLUMNS, self._size // 2 + 1), np.float32)
        self._samples = self._seen = self._kept = 0
        self._width = 1

    def push(self, samples: np.ndarray) -> None:
        """Hear a block of mono samples [n]."""
        self._samples += len(samples)
        self._waiting = np.concatenate([self._waiting, samples])
        # At most 64 frames at once: a whole file may come as one block.
        while (count := min(64, (len(self._waiting) - self._size) // self._hop + 1)) > 0:
            frames = sliding(self._waiting, self._size)[: count * self._hop : self._hop]
            for row in power_spectrum(frames):
                if self._first <= self._seen < self._stop:
                    self._add(row)
                self._seen += 1
            self._waiting = self._waiting[count * self._hop :]

    def columns(self) -> np.ndarray:
        """End the sound; mean power float32 [n, F] of each column, n <= COLUMNS, full scale 1."""
        missing = -(-self._samples // self._hop) - self._seen
        self.push(np.zeros(max(0, (missing - 1) * self._hop + self._size - len(self._waiting))))
        starts = np.arange(0, self._kept, self._width)
        counts = np.minimum(self._width, self._kept - starts)
        return self._sums[: len(starts)] / counts[:, None]

    def _add(self, row: np.ndarray) -> None:
        # All are full: neighbours are joined, and a column takes twice as many frames from now on.
        if self._kept == COLUMNS * self._width:
            self._sums[: COLUMNS // 2] = self._sums[::2] + self._sums[1::2]
            self._sums[COLUMNS // 2 :] = 0
            self._width *= 2
        self._sums[self._kept // self._width] += row
        self._kept += 1


def commonest(codes: np.ndarray) -> np.ndarray:
    """Most frequent code of each block [n, size] -> [n]; the earliest wins a tie."""
    votes = sum((codes == codes[:, k : k + 1]).astype(int) for k in range(codes.shape[1]))
    return codes[np.arange(len(codes)), votes.argmax(axis=1)]


def code_steps(books: Codebooks, codes: np.ndarray) -> np.ndarray:
    """How far each code [T, Q] lies from the one before, in its stage's metric [T, Q].

    1 is the root mean square distance of two codewords picked at random; 0 is no change.
    """
    steps = np.zeros(codes.shape)
    for q, weights in enumerate(books.weights):
        words = books.vectors[q] * weights
        # The mean square distance of two picks is twice the variance, 0 if all codewords are equal.
        typical = math.sqrt(2 * words.var(axis=0).sum()) + 1e-9
        moved = words[codes[1:, q]] - words[codes[:-1, q]]
        steps[1:, q] = np.sqrt(np.sum(moved**2, axis=1)) / typical
    return steps


def beats_of(spectra: Spectra, rate: float, onsets: Sequence[Onset]) -> list[tuple[Pulse, Any]]:
    """Each steady pulse with the times of its beats [n] in seconds."""
    found = []
    for pulse in estimate_tempo(spectra, rate, onsets=onsets):
        near = [onset for onset in onsets if pulse.start <= onset.time < pulse.stop]
        period, phase = refine_period(near, 60 / pulse.bpm)
        # The phase is that of some beat, which may lie before the pulse was first heard.
        first = phase + math.ceil((pulse.start - phase) / period) * period
        found.append((pulse, np.arange(first, pulse.stop, period)))
    return found


def code_colours(codes: np.ndarray, palette: str) -> np.ndarray:
    """Colours [n, ..., 3] of codes [n, ...], the same in every picture, far apart for neighbours.

    Red, green and blue from 0 to 1; `palette` is the name of a colour map of matplotlib.
    """
    # By the code alone, not by its rank in this sound: it would differ from picture to picture.
    return require("matplotlib").colormaps[palette](0.04 + 0.92 * (codes * HUE_STEP % 1))[..., :3]


def seconds_shown(view: View, header: Header) -> float:
    """How long the sound of a view is: its last frame may reach beyond the sound's end."""
    return min(len(view.clip.codes) / view.row_rate, header.source.duration or math.inf)


def section_spans(view: View) -> list[tuple[float, float, str]]:
    """Start, stop and letter of each section, as the view states them."""
    view = until_end(view)
    return list(form_of(view).spans(len(view.clip.codes) / view.row_rate))


def summary_words(view: View, header: Header) -> str:
    """Duration, tempo, key and reading of a sound in a line."""
    observed, seconds = observe(view), seconds_shown(view, header)
    minutes = f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
    words = [f"{seconds:.3g} s" if seconds < 120 else minutes]
    for kind, say in (("tempo", "{:.1f} beats a minute".format), ("key", key_words)):
        found = [o.value for o in observed if o.kind == kind and o.value is not None]
        said = f"{kind} {say(found[0])}" if len(found) == 1 else f"{kind} changes"
        words += [said] if found else []
    readings = [o.text.split(";")[0] for o in observed if o.kind in ("sound", "level")]
    return "  ·  ".join([*words, *map(plain_text, readings[:1])])


class Sheet:
    """A figure of a size in inches, in one of THEMES, about one sound, under its name.

    Without a view there is no axis of time, as on the report card.
    """

    def __init__(self, view: View | None, theme: str, *, size: tuple[float, float]) -> None:
        # Not by pyplot, which would look for a display and keep every figure alive.
        require("matplotlib")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.theme, self.view = THEMES[theme], view
        self.rate = view.row_rate if view else 1.0
        self.seconds = len(view.clip.codes) / self.rate if view else 0.0
        self.figure = Figure(figsize=size, dpi=120, facecolor=self.theme.ground)
        FigureCanvasAgg(self.figure)

    def head(self, header: Header, note: str) -> None:
        """Say what the sound is above the panels, and how to read the picture below them."""
        words = summary_words(self.view, header)
        if self.view.start:
            words += f"  ·  begins at {self.view.start:.4g} s of the sound, times count from there"
        self.title(plain_text(header.source.name), words, note)

    def title(self, name: str, words: str, note: str) -> None:
        """Put a name and words above the panels and a note below them."""
        inch, faint = 1 / self.figure.get_figheight(), {"color": self.theme.faint}
        looks = {"size": 17, "weight": "bold", "color": self.theme.ink}
        self.figure.text(0.025, 1 - 0.42 * inch, name, **looks)
        self.figure.text(0.025, 1 - 0.72 * inch, words, size=11, **faint)
        self.figure.text(0.025, 0.14 * inch, note, size=9.5, **faint)

    def panel(self, cell: Any, title: str, *, pad: float = 5) -> Any:
        """Axes in a cell of a grid, time along them, under a title that says what is seen."""
        axes = self.figure.add_subplot(cell, facecolor=self.theme.panel)
        axes.set_title(title, size=11.5, loc="left", color=self.theme.ink, pad=pad)
        axes.tick_params(colors=self.theme.faint, labelsize=9.5, length=3)
        for part in (axes.xaxis.label, axes.yaxis.label):
            part.set(color=self.theme.faint, size=9.5)
        axes.spines[:].set_visible(False)
        return axes

    def stack(
        self, heights: Mapping[str, float], *, sides: tuple[float, float] = (0.185, 0.925)
    ) -> list[Any]:
        """Panels above each other by title and relative height, on one axis of time."""
        inch = 1 / self.figure.get_figheight()
        space = {"top": 1 - 1.2 * inch, "bottom": 0.92 * inch, "left": sides[0], "right": sides[1]}
        # matplotlib wants the gap as a share of panels' mean height, which gaps themselves lessen.
        gap = 0.42 * inch * len(heights) / (1 - 2.12 * inch - 0.42 * inch * (len(heights) - 1))
        rows = {"height_ratios": list(heights.values()), "hspace": gap}
        grid = self.figure.add_gridspec(len(heights), 1, **space, **rows)
        panels = list(map(self.panel, grid, heights))
        for axes in panels:
            self.clock(axes, labelled=axes is panels[-1])
        return panels

    def clock(self, axes: Any, *, labelled: bool = True) -> tuple[np.ndarray, list[str]]:
        """Let time run along axes; returns the ticks and their names."""
        step = next((s for s in CLOCK_STEPS if self.seconds / s <= 11), CLOCK_STEPS[-1])
        ticks = np.arange(int(self.seconds / step) + 1) * step
        short, times = self.seconds < 120, ticks.tolist()
        names = [f"{t:.4g}" if short else f"{int(t) // 60}:{int(t) % 60:02d}" for t in times]
        axes.set_xlim(0, self.seconds)
        axes.set_xticks(ticks, names if labelled else [""] * len(ticks))
        axes.set_xlabel(("time, seconds" if short else "time, minutes:seconds") if labelled else "")
        return ticks, names

    def image(self, axes: Any, rows: np.ndarray, **looks: Any) -> Any:
        """Show rows [n, height(, 3)], pooled by blocks_of(), along time; the first band lowest."""
        stop = len(rows) * block_size(len(self.view.clip.codes)) / self.rate
        # Only where several rows share a dot: elsewhere a mixture of two would be a third code.
        fine = len(rows) > axes.bbox.width or rows.shape[1] > axes.bbox.height
        looks |= {"extent": (0, stop, -0.5, rows.shape[1] - 0.5), "aspect": "auto"}
        looks |= {"interpolation": "antialiased" if fine else "nearest", "origin": "lower"}
        return axes.imshow(rows.swapaxes(0, 1), **looks)

    def fill(self, axes: Any, rows: np.ndarray, hue: str, *, curve: Callable[..., Any]) -> None:
        """Fill between two curves of rows [T]: the largest of each block pale, the mean strong."""
        blocks = blocks_of(rows)
        times = np.arange(len(blocks) + 1) * blocks.shape[1] / self.rate
        # A mean alone would hide a click in a minute; the maximum alone would make all of it loud.
        for values, alpha in ((blocks.max(axis=1), 0.4), (blocks.mean(axis=1), 1.0)):
            edges, looks = curve(np.append(values, values[-1])), {"color": hue, "alpha": alpha}
            axes.fill_between(times, *edges, step="post", linewidth=0, **looks)

    def scale(self, image: Any, axes: Any, words: str) -> None:
        """A narrow scale of colours beside axes."""
        box = axes.get_position()
        # Axes of its own: colorbar() would take room from the panel, and time not line up.
        place = self.figure.add_axes((box.x1 + 0.008, box.y0, 0.009, box.height))
        self.figure.colorbar(image, cax=place).outline.set_visible(False)
        place.set_ylabel(words, color=self.theme.faint, size=9.5)
        place.tick_params(colors=self.theme.faint, labelsize=9)

    def legend(self, axes: Any) -> None:
        """Name what is drawn in axes, above them at the right."""
        looks = {"labelcolor": self.theme.ink, "fontsize": 9.5, "frameon": False, "ncols": 4}
        # matplotlib warns of a legend without entries, as where no onset was found.
        if axes.get_legend_handles_labels()[0]:
            room = {"columnspacing": 1, "handletextpad": 0.3, "handlelength": 1.2}
            axes.legend(loc="lower right", bbox_to_anchor=(1.01, 0.97), **looks, **room)

    def say(self, axes: Any, words: str, height: float) -> None:
        """A remark at the left of axes."""
        axes.text(0.004 * self.seconds, height, words, size=9.5, color=self.theme.faint)


def draw_sections(sheet: Sheet, axes: Any) -> None:
    """Sections as coloured bars with their letters, in the upper half of a lane."""
    spans = section_spans(sheet.view)
    for start, stop, letter in spans:
        hue = code_colours(np.array([ord(letter) - ord("A")]), "viridis")[0]
        looks = {"facecolor": hue, "edgecolor": sheet.theme.ground, "linewidth": 1.5}
        axes.broken_barh([(start, stop - start)], (2.05, 0.9), **looks)
        words = letter if len(spans) > 1 else "no sections stand out"
        # Roughly the luma weights of Rec. 601: yellow is bright to the eye, blue as strong dark.
        ink = "black" if hue @ (0.3, 0.6, 0.1) > 0.45 else "white"
        looks = {"weight": "bold", "ha": "center", "va": "center", "color": ink}
        axes.text((start + stop) / 2, 2.46, words, size=10.5, **looks)


def timed_facts(view: View) -> list[Observation]:
    """Observations that hold for less than the whole sound."""
    most = 0.95 * len(view.clip.codes) / view.row_rate
    return [o for o in observe(view) if o.duration < most and (o.time or o.duration)]


def timed_marks(view: View) -> list[Observation]:
    """Those that stand in a lane of time, in order."""
    # What holds all the time would be one bar across the lane and hide the others.
    return sorted((o for o in timed_facts(view) if o.kind in MARKED), key=lambda o: o.time)


def draw_marks(sheet: Sheet, axes: Any) -> None:
    """What was observed at a time: a bar or a tick each, and words where there is room."""
    marks = timed_marks(sheet.view)
    room = [0.0, 0.0]  # where each of two rows of words is free again
    for mark in marks:
        span = (mark.time, max(mark.duration, 0.0015 * sheet.seconds))
        axes.broken_barh([span], (1.5, 0.46), color=sheet.theme.ink, alpha=0.75)
        # A letter of 9.5 points takes about 0.0068 of the panel's width; to measure it would need a
        # drawing before the drawing. Words that fit in neither row are left out, their bar is not.
        words = plain_text(MARKED[mark.kind](mark.value), 28)
        stop = mark.time + (0.0068 * len(words) + 0.008) * sheet.seconds
        row = 0 if room[0] <= mark.time else 1
        if room[row] <= mark.time and stop < 1.01 * sheet.seconds:
            room[row] = stop
            axes.text(mark.time, 0.8 - 0.75 * row, words, size=9.5, color=sheet.theme.ink)
    sheet.say(axes, "" if marks else "none stand out", 1.05)


def draw_envelope(sheet: Sheet, axes: Any) -> None:
    """Loudness (amplitude to the power 0.6, Stevens 1957), mirrored; peaks pale, mean strong."""
    level, hue = sheet.view.clip.spectra.level, sheet.theme.hues[0]
    # A very quiet sound shall look quiet, not fill the panel with its noise.
    peak = max(float(level.max()), -30.0)

    def mirrored(decibel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper edge of the wave."""
        # Amplitude to the power 0.6 is 10 ** (0.6 * dB / 20).
        height = 10 ** (0.03 * (decibel - peak))
        return -height, height

    sheet.fill(axes, level, hue, curve=mirrored)
    ticks = [tick for tick in (-40, -20, -10) if tick < peak - 5] + [round(peak)]
    names = [f"{tick} dB".replace("-", "\u2212") for tick in ticks]
    axes.set_yticks([10 ** (0.03 * (tick - peak)) for tick in ticks], names)
    axes.set_ylim(-1.08, 1.08)


def mel_ticks(hertz: Sequence[int], view: View) -> tuple[list[float], list[str]]:
    """Where frequencies lie in mel bands, counted from the lowest, and their names."""
    centres = MEL_CENTRES
    shown = [tick for tick in hertz if tick < centres[-1]]
    names = [hertz_words(tick).replace(".0", "") for tick in shown]
    return np.interp(shown, centres, np.arange(N_MELS)).tolist(), names


def label_mel(sheet: Sheet, axes: Any) -> None:
    """Frequencies beside mel bands."""
    axes.set_yticks(*mel_ticks((100, 300, 1000, 3000, 10000), sheet.view))


def label_hertz(sheet: Sheet, axes: Any) -> None:
    """Frequencies beside bands of equal width up to half the rate."""
    half, bands = sheet.view.sample_rate / 2000, axes.get_ylim()[1] + 0.5
    ticks = np.arange(0, half, 2 if half < 13 else 5)
    axes.set_yticks(ticks / half * bands - 0.5, [f"{tick:g} kHz" for tick in ticks])


def draw_spectrogram(sheet: Sheet, axes: Any) -> None:
    """Level of the mel bands over time."""
    rows = blocks_of(absolute_mel(sheet.view.clip.spectra)).mean(axis=1)
    # The range follows the loudest, except that silence stays dark.
    top = max(float(rows.max()), -60.0)
    image = sheet.image(axes, rows, cmap="magma", vmin=max(top - 70, -95), vmax=top)
    label_mel(sheet, axes)
    sheet.scale(image, axes, "dB, 0 is full scale")


def layer_labels(header: Header, layers: Sequence[int]) -> list[str]:
    """What each layer reads, and its name."""
    return [f"{plain_text(header.reads[q].split(':')[0], 38)}  {LAYER_NAMES[q]}" for q in layers]


def draw_ribbons(sheet: Sheet, axes: Any, header: Header, *, layers: Sequence[int]) -> None:
    """Layers of codes as ribbons, the first on top."""
    layers = layers[::-1]
    columns = [commonest(blocks_of(sheet.view.clip.codes[:, q])) for q in layers]
    palettes = ("viridis", "plasma")  # of semantic and acoustic codes
    colours = [code_colours(c, palettes[q // NUM_QUANTIZERS]) for c, q in zip(columns, layers)]
    sheet.image(axes, np.stack(colours, axis=1))
    parts = np.arange(len(layers) - 1) + 0.5
    axes.hlines(parts, 0, sheet.seconds, color=sheet.theme.ground, linewidth=4)
    axes.set_yticks(range(len(layers)), layer_labels(header, layers), color=sheet.theme.ink)
    axes.set_facecolor("none")


def keyframe_times(view: View, header: Header) -> np.ndarray:
    """When the stream restates all layers, in seconds of the view [n]."""
    step = max(1, round(header.keyframe_interval * header.frame_rate)) / header.frame_rate
    stop = view.start + len(view.clip.codes) / view.row_rate
    # Division may put a keyframe at the very beginning a hair above a whole number.
    first = math.ceil(round(view.start / step, 6))
    return np.arange(first, math.ceil(round(stop / step, 6))) * step - view.start


def draw_overview(sheet: Sheet, header: Header) -> None:
    """What the sound is like and how it is coded, on one time axis."""
    lane, envelope, spectrogram, semantic, acoustic = sheet.stack({
        "What happens when": 0.75,
        "Waveform: the wider, the louder (0 dB is full scale)": 1.3,
        "Spectrogram: how loud each pitch is, low ones below": 3.1,
        "Semantic codes: what kind of sound this is": 1.9,
        "Acoustic codes: how it sounds right now": 1.9,
    })  # fmt: skip
    draw_sections(sheet, lane)
    draw_marks(sheet, lane)
    lane.set(ylim=(-0.1, 3), facecolor="none")
    lane.set_yticks((2.5, 1.25), ("sections (like letters, like sound)", "events"))
    draw_envelope(sheet, envelope)
    draw_spectrogram(sheet, spectrogram)
    draw_ribbons(sheet, semantic, header, layers=range(NUM_QUANTIZERS))
    draw_ribbons(sheet, acoustic, header, layers=range(NUM_QUANTIZERS, len(LAYERS)))
    times = keyframe_times(sheet.view, header)
    # The ribbons end at 3.5; ticks stand just outside and hide no code.
    semantic.plot(times, 3.62 + 0 * times, "|", color=sheet.theme.ink, clip_on=False, ms=6)


def spectrogram_pair(view: View, linear: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The sound and what its acoustic codes say of it, both in dBFS [n, bands], floored alike.

    In mel bands, or where its linear power [n, F] is given, in up to 256 equal bands. Both have as
    many columns as blocks_of() makes of the view's frames.
    """
    spectra = view.clip.spectra
    heard = 10 ** (0.1 * (spectra.mel + spectra.level[:, None]))
    told = view.trained.acoustic.decode(view.clip.codes[:, NUM_QUANTIZERS:])
    # Power is averaged, then put in dB: pauses would pull down a mean of decibels.
    if linear is None:
        pair = [blocks_of(rows).mean(axis=1) for rows in (heard, acoustic_to_mel(told))]
    else:
        bins, rate = linear.shape[1] - 1, view.sample_rate
        # Block by block, since all frames at once would be F floats each of an hour.
        powers = (features_to_power(block, rate, 2 * bins) for block in blocks_of(told))
        # A panel is some 300 dots high, so more bands would not be seen. Bin 0 is no sound.
        groups = np.arange(1, bins + 1, -(-bins // 256))
        pair = [linear, np.stack([power.mean(axis=0) for power in powers])]
        pair = [np.add.reduceat(rows, groups, axis=1) for rows in pair]
    original, rebuilt = map(decibels, pair)
    # One floor for both: what lies below in both must not show as a difference.
    floor = max(float(original.max()) - 60, -95.0)
    return np.maximum(original, floor), np.maximum(rebuilt, floor)


def draw_pair(sheet: Sheet, column: Sequence[Any], pair: Sequence[np.ndarray]) -> None:
    """Sound, codes and their difference in three axes, on one scale."""
    from matplotlib.colors import LinearSegmentedColormap

    theme, low = sheet.theme, min(float(rows.min()) for rows in pair)
    # In silence both are at the floor, and a scale needs some range.
    top = max(*(float(rows.max()) for rows in pair), low + 10)
    for axes, rows in zip(column, pair):
        image = sheet.image(axes, rows, cmap="magma", vmin=low, vmax=top)
        sheet.scale(image, axes, "dB, 0 is full scale")
    # Where both lie at the floor there is nothing to compare; pauses would flatter the codes.
    gap, heard = pair[1] - pair[0], np.maximum(*pair) > low
    hues = LinearSegmentedColormap.from_list("gap", (theme.hues[0], theme.panel, theme.hues[1]))
    image = sheet.image(column[2], gap, cmap=hues, vmin=-20, vmax=20)
    sheet.scale(image, column[2], "dB, codes less original")
    words = f"{np.abs(gap[heard]).mean():.1f} dB apart on average" if heard.any() else "both silent"
    column[2].set_title(f"{column[2].get_title(loc='left')}: {words}", loc="left", size=11.5)


def draw_spectrograms(sheet: Sheet, header: Header) -> None:
    """The sound's spectrograms above those its codes rebuild.

    The codes' are of what they decode to, before Griffin-Lim finds a sound with that spectrogram.
    """
    view, rows = sheet.view, ("Original", "Rebuilt from the acoustic codes", "Difference")
    scales = [("spaced as heard (mel)", None, label_mel, (0.06, 0.435))]
    if view.linear is not None:
        scales.append(("spaced evenly (linear)", view.linear, label_hertz, (0.55, 0.925)))
    for scale, linear, label, place in scales:
        column = sheet.stack({f"{row}, {scale}": 1 for row in rows}, sides=place)
        draw_pair(sheet, column, spectrogram_pair(view, linear))
        for axes in column:
            label(sheet, axes)


def code_likeness(features: np.ndarray) -> np.ndarray:
    """Likeness 0-1 of every stretch of a sound to every other [n, n], n <= LIKENESS_ROWS.

    Of features [T, D], T > 0, in any units: each dimension is held against its own deviation. A
    self-similarity matrix after Foote (1999, ACM Multimedia), with a Gaussian kernel.
    """
    rows = blocks_of(features, LIKENESS_ROWS).mean(axis=1)
    whole = float(np.sqrt((rows**2).mean()))  # so that a flicker is not blown up
    rows = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 0.1 * whole + 1e-6)
    square = np.sum(rows**2, axis=1)
    distance = square[:, None] - 2 * rows @ rows.T + square
    # In standard deviations unrelated rows differ by 2 a dimension on average: that gives exp(-2).
    # Rounding may leave a row a little less than nothing away from itself.
    return np.exp(-np.maximum(distance, 0) / rows.shape[1])


def draw_likeness(sheet: Sheet, axes: Any, rows: np.ndarray) -> Any:
    """Self-similarity, parted at the bounds of sections; returns the image."""
    stop = len(rows) * block_size(len(sheet.view.clip.codes), LIKENESS_ROWS) / sheet.rate
    looks = {"extent": (0, stop, 0, stop), "origin": "lower", "cmap": "magma"}
    image = axes.imshow(rows, vmin=0, vmax=1, **looks)
    axes.set_yticks(*sheet.clock(axes))
    axes.set(ylim=(0, sheet.seconds), ylabel=axes.get_xlabel())
    for start, stop, letter in section_spans(sheet.view):
        looks = {"weight": "bold", "ha": "center", "color": sheet.theme.ink}
        axes.text((start + stop) / 2, 1.01 * sheet.seconds, letter, size=11, **looks)
        for line in (axes.axvline, axes.axhline):
            line(start, color="white", linewidth=0.7, alpha=0.7)
    return image


def draw_structure(sheet: Sheet, header: Header) -> None:
    """Which moments are alike, in the sound and in its semantic codes alone."""
    view = sheet.view
    place = {"left": 0.06, "right": 0.93, "top": 0.81, "bottom": 0.115, "wspace": 0.13}
    left, right = sheet.figure.add_gridspec(1, 2, **place)
    heard = sheet.panel(left, "Which moments sound alike", pad=22)
    # Loudness parts verse and pause, yet must not outweigh how things sound; -70 is silence.
    level = np.maximum(view.clip.spectra.level, -70) / 10
    sounds = np.column_stack([section_features(view.clip.spectra), level])
    draw_likeness(sheet, heard, code_likeness(sounds))
    coded = sheet.panel(right, "Which moments their semantic codes alone call alike", pad=22)
    decoded = view.trained.semantic.decode(view.clip.codes[:, :NUM_QUANTIZERS])
    image = draw_likeness(sheet, coded, code_likeness(decoded))
    sheet.scale(image, coded, "0 unlike, 1 alike")


def pitch_lines(view: View) -> list[tuple[float, float, float]]:
    """Pitch (MIDI), start and stop of what to draw as a line: a lead's notes, or each frame's."""
    spectra, rate = view.clip.spectra, view.row_rate
    # Notes only where a lead was told of: elsewhere no melody is claimed.
    if any(fact.kind == "lead" for fact in observe(view)):
        notes = foreground_notes(spectra, rate)
        return [(note.midi, note.start, note.start + note.duration) for note in notes]
    heard = (spectra.tonal > 0.4) & (spectra.level > max(spectra.level.max() - 40, -75))
    rows = np.flatnonzero(heard & (spectra.pitch >= LOWEST_NOTE))
    return [(float(spectra.pitch[row]), row / rate, (row + 1) / rate) for row in rows]


def draw_notes(sheet: Sheet, axes: Any, rows: np.ndarray, names: Mapping[int, str]) -> None:
    """Strength of notes [T, n] over time, some of them named."""
    # At least 0.05, or what little salience noise has would be stretched to full brightness.
    rows = blocks_of(rows).mean(axis=1)
    image = sheet.image(axes, rows, cmap="viridis", vmin=0, vmax=max(float(rows.max()), 0.05))
    axes.set_yticks(list(names), list(names.values()))
    sheet.scale(image, axes, "strength, 0 to 1")


def draw_pitch(sheet: Sheet, header: Header) -> None:
    """The pitch line, the notes and the codes that tell of them."""
    view, lines = sheet.view, pitch_lines(sheet.view)
    salience, chroma, ribbons = sheet.stack({
        "Pitch: how clearly each note is heard, low ones below; white is the line to follow": 4,
        "Notes: the same by name, all octaves taken together": 2.4,
        "Codes that tell of pitch: harmony around, and notes right now": 1,
    })  # fmt: skip
    # Times the tonal share, or noise would show notes of its own.
    heard = view.clip.spectra.salience * view.clip.spectra.tonal[:, None]
    octaves = {36 + 12 * k: f"C{k + 2}, {to_hertz(36 + 12 * k):.0f} Hz" for k in range(6)}
    draw_notes(sheet, salience, heard, {c - LOWEST_NOTE: name for c, name in octaves.items()})
    # A black rim keeps the white line visible on bright rows.
    for width, colour in ((4, "black"), (2, "white")) if lines else ():
        heights, starts, stops = np.transpose(lines)
        looks = {"color": colour, "linewidth": width}
        salience.hlines(heights - LOWEST_NOTE, starts, stops, **looks)
    draw_notes(sheet, chroma, fold_chroma(heard), dict(enumerate(PITCH_CLASSES)))
    draw_ribbons(sheet, ribbons, header, layers=(1, 5))


def draw_onsets(sheet: Sheet, axes: Any, onsets: Sequence[Onset]) -> None:
    """How suddenly sound begins, and what was taken for a beginning."""
    curve = blocks_of(attack_curves(sheet.view.clip.spectra) @ ATTACK_WEIGHTS)
    times = (np.arange(len(curve)) + 0.5) * curve.shape[1] / sheet.rate
    axes.fill_between(times, curve.max(axis=1), color=sheet.theme.faint, linewidth=0, alpha=0.6)
    # One stroke far above the others would press them to the ground; it stands at the edge instead.
    top = max(1.25 * float(np.percentile([o.strength for o in onsets] or [0], 97)), 5.0)
    kinds, size = (*tuple(HIT_WORDS)[:3], "other"), np.clip(3000 / max(len(onsets), 1), 5, 20)
    for order, (kind, hue, shape) in enumerate(zip(kinds, sheet.theme.hues, "s^do")):
        ours = [o for o in onsets if kind == (o.kind if o.kind in kinds else "other")]
        spots, looks = [(o.time, min(o.strength, top)) for o in ours], {"color": hue, "s": size}
        # Shapes as well as hues tell kinds apart, for eyes and printers that know no colour.
        looks |= {"marker": shape, "zorder": 9 - order, "label": f"{kind} ({len(ours)})"}
        if spots:
            axes.scatter(*zip(*spots), **looks)
    sheet.say(axes, "" if onsets else "none stand out", 0.5)
    axes.set(ylim=(0, 1.05 * top), ylabel="rise, dB")
    sheet.legend(axes)


def draw_beats(sheet: Sheet, axes: Any, pulses: Sequence[tuple[Pulse, Any]]) -> None:
    """Steady pulses as bars with their tempo, a tick at each beat where there is room."""
    for pulse, times in pulses:
        looks = {"facecolor": sheet.theme.hues[2], "alpha": 0.3}
        axes.broken_barh([(pulse.start, pulse.stop - pulse.start)], (0, 1), **looks)
        if 60 / pulse.bpm > sheet.seconds / 300:
            axes.vlines(times, 0, 1, color=sheet.theme.ink, linewidth=1)
        words, room = f"{pulse.bpm:.0f}", (pulse.stop - pulse.start) / sheet.seconds
        words = words if room > 0.0068 * len(words) else ""
        axes.text(pulse.start, 1.15, words, size=10, color=sheet.theme.ink)
    sheet.say(axes, "" if pulses else "no steady beat stands out", 0.3)
    axes.set(ylim=(-0.1, 2), yticks=(), facecolor="none")


def draw_loudness(sheet: Sheet, header: Header) -> None:
    """How loud, what begins when, and the beat."""
    spectra = sheet.view.clip.spectra
    onsets = find_onsets(spectra, sheet.rate)
    level, begins, beats, ribbons = sheet.stack({
        "Loudness: the higher, the louder": 2, "How suddenly sounds begin; a mark for each": 2,
        "Steady beats, and how many a minute": 0.55,
        "Codes that tell of rhythm: the pulse around, and change right now": 1,
    })  # fmt: skip
    sheet.fill(level, spectra.level, sheet.theme.hues[0], curve=lambda decibel: (-110, decibel))
    level.set(ylim=(-80, 0), ylabel="dB, 0 is full scale")
    draw_onsets(sheet, begins, onsets)
    draw_beats(sheet, beats, beats_of(spectra, sheet.rate, onsets))
    draw_ribbons(sheet, ribbons, header, layers=(2, 6))


def draw_ranks(sheet: Sheet, axes: Any, codes: np.ndarray, *, hue: str) -> None:
    """How often each code of a layer is used, the most frequent first, on logarithmic axes."""
    shares = 100 * np.sort(np.unique(codes, return_counts=True)[1])[::-1] / len(codes)
    # A power law, as frequencies by rank often follow (Zipf), is a straight line on such axes.
    ranks = np.arange(1, len(shares) + 1)
    axes.fill_between(ranks, shares, 1e-9, color=hue, alpha=0.25, linewidth=0)
    axes.plot(ranks, shares, color=hue, linewidth=2, marker="o", ms=3)
    axes.set(xscale="log", yscale="log", xlim=(0.9, 1100), ylim=(0.001, 150))
    axes.set_xticks((1, 10, 100, 1000), ("1", "10", "100", "1000"))
    axes.set_yticks((0.01, 0.1, 1, 10, 100), ("0.01 %", "0.1 %", "1 %", "10 %", "100 %"))
    axes.minorticks_off()


def draw_usage(sheet: Sheet, header: Header) -> None:
    """How many codes each layer needs, and how evenly."""
    codes, side = sheet.view.clip.codes, {"left": 0.07, "right": 0.975}
    statistics = CodeStatistics(header.codebook_size)
    statistics.add(codes)
    reports = tuple(statistics.report(sheet.rate).values())
    lower = sheet.figure.add_gridspec(1, 1, left=0.235, right=0.975, top=0.37, bottom=0.1)
    title = (f"Codes in use: pale, how many of a layer's {header.codebook_size}; strong, like how"
             " many used evenly (perplexity)")  # fmt: skip
    counts, labels = sheet.panel(lower[0], title), layer_labels(header, range(len(LAYERS)))
    hues, ink = sheet.theme.hues * 2, sheet.theme.ink
    for label, report, hue in zip(labels, reports, hues):
        counts.barh(label, report.codes_used, color=hue, alpha=0.35, height=0.7)
        counts.barh(label, report.perplexity, color=hue, height=0.7)
        used, alike = f" {report.codes_used} ({report.usage:.1%})", f"{report.perplexity:.1f}"
        words = f"{used}, like {alike} used evenly"
        counts.text(report.codes_used, label, words, size=9.5, va="center", color=ink)
    counts.set(xlim=(0, 1.35 * max(report.codes_used for report in reports)), xlabel="codes")
    counts.tick_params(axis="y", labelcolor=ink)
    counts.invert_yaxis()
    shape = {"top": 0.88, "bottom": 0.47, "hspace": 0.36, "wspace": 0.1}
    upper = sheet.figure.add_gridspec(2, 4, **side, **shape)
    for layer, label in enumerate(labels):
        axes = sheet.panel(upper[layer], "  ".join(label.split("  ")[::-1]))
        draw_ranks(sheet, axes, codes[:, layer], hue=sheet.theme.hues[layer % 4])
        axes.tick_params(labelleft=layer % 4 == 0)
        axes.set_ylabel("" if layer % 4 else "share of frames")
        axes.set_xlabel("code, the most frequent first" if layer >= 4 else "")


def draw_steps(sheet: Sheet, axes: Any, steps: np.ndarray, labels: Sequence[str]) -> None:
    """Lanes of how far four layers' codes moved [T, 4], the first on top: largest pale."""
    for lane, (column, hue) in enumerate(zip(steps.T, sheet.theme.hues)):
        # Cut at 1.5 times a random step, so that no lane reaches into the one above.
        base, looks = len(labels) - 1 - lane, {"linewidth": 0.8, "dashes": (2, 3)}
        sheet.fill(axes, base + 0.6 * np.minimum(column, 1.5), hue, curve=lambda top: (base, top))
        axes.axhline(base + 0.6, color=sheet.theme.faint, **looks)
    axes.set_yticks(np.arange(len(labels)) + 0.4, labels[::-1], color=sheet.theme.ink)
    axes.set_ylim(-0.05, len(labels))


def draw_rates(sheet: Sheet, axes: Any, first: int) -> None:
    """How often four layers' codes change, over time."""
    codes = sheet.view.clip.codes[:, first : first + NUM_QUANTIZERS]
    # About one a second. Never more than frames: reduceat() does not sum where two edges are equal.
    points = min(max(8, min(int(sheet.seconds), RATE_POINTS)), len(codes))
    edges = np.linspace(0, len(codes), points + 1).astype(int)
    changes = (np.diff(codes, axis=0, prepend=codes[:1]) != 0).astype(float)
    rates = np.add.reduceat(changes, edges[:-1], axis=0) / np.diff(edges)[:, None] * sheet.rate
    strokes = ("-", "-", "-", "--")  # green and purple are alike to some
    looks = {"linewidth": 1.8, "baseline": None}
    for rate, name, hue, stroke in zip(rates.T, LAYER_NAMES[first:], sheet.theme.hues, strokes):
        axes.stairs(rate, edges / sheet.rate, color=hue, label=name, linestyle=stroke, **looks)
    axes.set(ylim=(0, max(2.0, 1.1 * rates.max())), ylabel="changes a second")
    sheet.legend(axes)


def draw_deltas(sheet: Sheet, header: Header) -> None:
    """When codes change, how far and how often."""
    view, every = sheet.view, round(header.frame_rate / sheet.rate)
    seen = f" (one frame in {every} is looked at)" if every > 1 else ""
    panels = sheet.stack({
        f"{kind} codes: {words}{seen}": height
        for words, height in (("how far each change goes", 2.6), ("how often they change", 1))
        for kind in ("Semantic", "Acoustic")
    })  # fmt: skip
    for half, books in enumerate(view.trained):
        layers = range(half * NUM_QUANTIZERS, (half + 1) * NUM_QUANTIZERS)
        steps = code_steps(books, view.clip.codes[:, layers])
        draw_steps(sheet, panels[half], steps, layer_labels(header, layers))
        draw_rates(sheet, panels[half + 2], layers[0])


class Picture(NamedTuple):
    """A kind of picture: what draws it on a sheet, its size in inches, how to read it."""

    draw: Callable[[Sheet, Header], None]
    size: tuple[float, float]
    note: str


FIGURES = {
    "overview": Picture(draw_overview, (14, 11),
        "Each colour is one code: where a ribbon keeps or repeats its colour, that side of the"
        " sound does too. Ticks above S0: keyframes, every {keyframe_interval:g} s."),
    "spectrograms": Picture(draw_spectrograms, (15, 10.5),
        "The codes keep 64 bands of spectrum: outlines stay, single partials blur. Below, orange is"
        " louder in what the codes say, blue is fainter."),
    "pitch": Picture(draw_pitch, (14, 10),
        "Bright rows are notes that sound. Ribbons: each colour is one code; where harmony or note"
        " come back, so should its colour."),
    "loudness": Picture(draw_loudness, (14, 9),
        "Marks say what a beginning is like, not which drum it was; those at the top edge rise"
        " further. Ribbons: each colour is one code."),
    "structure": Picture(draw_structure, (15, 8.4),
        "A bright square off the diagonal is a moment that comes back; a bright line along it, a"
        " passage repeated. White lines part the sections (A, B ...)."),
    "deltas": Picture(draw_deltas, (14, 12),
        "Nothing where a code holds. Dotted: as far as two codes picked at random are apart. Where"
        " frames share a column: strong, their mean; pale, the farthest."),
    "usage": Picture(draw_usage, (14, 11),
        "Above: how often each code comes; the flatter and longer a line, the more evenly the layer"
        " uses its codes."),
}  # fmt: skip


@figure_style()
def draw_figure(name: str, view: View, header: Header, *, theme: str) -> Any:
    """Draw a picture of FIGURES in a theme of THEMES: a matplotlib Figure, see save_figure().

    The view has at least one frame and is not changed; MissingError without matplotlib.
    """
    picture = FIGURES[name]
    sheet = Sheet(view, theme, size=picture.size)
    picture.draw(sheet, header)
    sheet.head(header, picture.note.format(keyframe_interval=header.keyframe_interval))
    return sheet.figure


@figure_style()
def save_figure(figure: Any, file: BinaryIO, *, form: str) -> None:
    """Write a figure in a form of FILE_NOTES: the same bytes whenever it is drawn again."""
    figure.savefig(file, format=form, metadata=FILE_NOTES[form], facecolor=figure.get_facecolor())


def layer_title(reads: str) -> str:
    """What a layer reads, in three short lines."""
    words = re.split(r" over | now|:", plain_text(reads))[0]
    words = "the rest" if words.startswith("what") else re.sub(r"(.{9,}?) ", r"\1\n", words)
    return words + "\n" * (2 - words.count("\n"))


def draw_grades(sheet: Sheet, axes: Any, card: ReportCard) -> None:
    """Medians of equal codes as a table of colours, a row a test and a column a layer."""
    ink, spot, spots = {"color": sheet.theme.ink}, -0.4, {}
    colours = require("matplotlib").colormaps["cividis"]
    places = np.arange(len(LAYERS)) + 0.15 * (np.arange(len(LAYERS)) >= NUM_QUANTIZERS)
    for group in ("change", "slice", "drift", "control"):
        title = CARD_GROUPS[group].split(":")[0]
        axes.text(-0.5, spot, title, weight="bold", size=11, va="center", **ink)
        for row in (row for row in card.rows if row.group == group and row.shares):
            spot += 1
            spots[spot] = row.name
            medians = np.array([share.median for share in row.shares])
            looks = {"color": colours(medians), "edgecolor": sheet.theme.ground, "linewidth": 2}
            axes.barh([spot] * len(medians), 1, left=places - 0.5, height=1, **looks)
            for place, value in zip(places, medians.tolist()):
                # cividis grows lighter: black is read better on it from above the middle.
                looks = {"ha": "center", "va": "center", "color": "wk"[value >= 0.55]}
                axes.text(place, spot, share_words(value), size=9.5, **looks)
        spot += 1.4
    names = [f"{name}\n{layer_title(reads)}" for name, reads in zip(LAYER_NAMES, card.reads)]
    axes.set_xticks(places, names, **ink)
    axes.set_yticks(list(spots), list(spots.values()), **ink)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.tick_params(axis="x", labelsize=8.8)
    axes.set(xlim=(-0.5, 7.65), ylim=(spot - 0.8, -0.9), facecolor="none")


def draw_bars(sheet: Sheet, axes: Any, metrics: Sequence[Metric], *, unit: float) -> None:
    """Metrics as bars with their figures; the last is a line that they are held against."""
    *bars, mark = [metric for metric in metrics if metric.value is not None]
    values, hues = [unit * bar.value for bar in bars], sheet.theme.hues
    axes.barh(range(len(bars)), values, color=hues[0], height=0.7)
    for spot, value in enumerate(values):
        axes.text(value, spot, f" {value:.0f}", va="center", size=9.5, color=sheet.theme.ink)
    axes.axvline(unit * mark.value, color=hues[1], linewidth=2)
    words = f" {mark.name}: {unit * mark.value:.0f}"
    axes.text(unit * mark.value, -0.95, words, color=hues[1], size=10, va="center")
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars], color=sheet.theme.ink)
    axes.set(ylim=(len(bars) - 0.4, -1.5))


def draw_peers(sheet: Sheet, axes: Any, card: ReportCard) -> None:
    """First to last layer of this tokenizer (coloured) and of others (grey), where both exist."""
    rows = {f"{row.group}: {row.name}": row for row in card.rows if row.shares}
    spot, names, hues = 0.0, {}, sheet.theme.hues
    for test, peers in itertools.groupby(PEERS, lambda peer: peer.test):
        # Where no clip is long enough for a row, published figures compare with nothing.
        if test not in rows:
            continue
        title, ours = test.replace("slice: ", "slice of "), rows[test].shares
        title = title.replace("drift: ", "decoded and heard again, ")
        looks = {"weight": "bold", "size": 10, "va": "center", "color": sheet.theme.ink}
        axes.text(0, spot, title, **looks)
        medians = [100 * spread.median for spread in ours]
        lines = [("ours, A0 to A3", medians[4:], hues[1]), ("ours, S0 to S3", medians[:4], hues[0])]
        lines += [(p.name, (p.first, p.last or p.first), sheet.theme.faint) for p in peers]
        for name, values, hue in lines:
            spot += 1
            names[spot] = name
            axes.plot(values, [spot] * len(values), color=hue, linewidth=3, alpha=0.45)
            axes.plot(values[1:], [spot] * len(values[1:]), "|", color=hue, ms=9, mew=2)
            axes.plot(values[:1], [spot], "o", color=hue, ms=8)
        spot += 1.3
    axes.set_yticks(list(names), list(names.values()), color=sheet.theme.ink)
    axes.set(ylim=(spot - 0.6, -0.8), xlim=(-2, 102))
    axes.set_xlabel("dot: first layer, ticks: the layers after it; grey: as read in papers")


@figure_style()
def draw_card(card: ReportCard, *, theme: str) -> Any:
    """The report card as a matplotlib Figure in one of THEMES; MissingError without matplotlib."""
    sheet = Sheet(None, theme, size=(17, 12.5))
    left = sheet.figure.add_gridspec(1, 1, left=0.145, right=0.545, top=0.855, bottom=0.05)
    place = {"left": 0.705, "right": 0.975, "top": 0.9, "bottom": 0.075, "hspace": 0.25}
    right = sheet.figure.add_gridspec(3, 1, height_ratios=(10, 20, 7), **place)
    title = "How many of 100 frames keep their code (bright: all of them)"
    draw_grades(sheet, sheet.panel(left[0], title, pad=52), card)
    panels = (
        sheet.panel(right[0], "Halves of sounds that find their other half by their codes, %"),
        sheet.panel(right[1], "Beside other tokenizers: frames that keep their code, %"),
        sheet.panel(right[2], "What a second of sound costs an LLM, in tokens"),
    )
    draw_bars(sheet, panels[0], card.retrieval, unit=100)
    draw_peers(sheet, panels[1], card)
    draw_bars(sheet, panels[2], (*card.costs, Metric("native audio", NATIVE_AUDIO, "")), unit=1)
    # Tens of tokens a second for a view, thousands for frames: linear, a view would be a hair.
    panels[2].set(xscale="log", xlim=(10, 6000))
    panels[2].set_xticks((10, 100, 1000), ("10", "100", "1,000"))
    panels[2].minorticks_off()
    panels[0].set_xlim(0, 105)
    seconds = sum(clip.value for clip in card.clips)
    words = f"{len(card.clips)} clips, {seconds:.0f} s in all; medians over clips"
    note = ("S layers hear seconds around each moment, and lack them in a slice alone. A0 hears"
            " loudness, so gain must change it. The view for an LLM costs what --max-llm-tokens"
            " allows.")  # fmt: skip
    sheet.title(plain_text(f"Report card of the ear: {card.ear}"), words, note)
    return sheet.figure


# The page: one file that plays the sound beside its spectrogram and codes, and asks no network.

# At 43 frames a second, three minutes of sound still have a column for each frame.
PAGE_COLUMNS = 8192  # of the page's spectrogram, at most: it can be zoomed
PALETTES = {  # nine even steps of matplotlib's maps (Smith and van der Walt 2015, CC0)
    "magma": "000004 1d1147 51127c 832681 b73779 e75263 fc8961 fec488 fcfdbf",
    "viridis": "440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725",
    "plasma": "0d0887 4c02a1 7e03a8 aa2395 cc4778 e66c5c f89540 fdc527 f0f921",
}

PAGE_BODY = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: what the tokenizer hears</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<header><h1>{name}</h1><p class="faint">{summary}</p></header>
<main>
<section class="card" aria-labelledby="listen">
<h2 id="listen">Listen and watch the codes</h2>
<p>For every {frame} ms of sound the tokenizer writes eight codes. Each colour is one code: where a
ribbon keeps or repeats its colour, that side of the sound does too. Click to jump there; point
anywhere to read its codes.</p>
<div class="bar"><button type="button" id="play">Play</button>
<output id="clock" aria-label="Position"></output>
<span role="group" aria-label="Which sound">{choices}</span>
<span role="group" aria-label="Zoom"><button type="button" id="in" aria-label="Zoom in">+</button>
<button type="button" id="out" aria-label="Zoom out">&minus;</button>
<button type="button" id="all">Whole sound</button></span></div>
<p id="told" role="status"><noscript>This part needs JavaScript.</noscript></p>{sounds}
<div id="stage"><canvas id="chart" role="img" aria-describedby="measured" aria-label="Spectrogram
and eight ribbons of codes over time; the next part tells in words what was measured"></canvas>
<div id="hover" class="line"></div><div id="head" class="line"></div></div>
<input id="seek" type="range" min="0" value="0" aria-label="Position in the sound">
<h3 id="when"></h3>
<div id="codes" role="table" aria-labelledby="when">{layers}</div>
<p id="spoken" aria-live="polite"></p>
<p class="faint"><kbd>Space</kbd> plays and pauses, <kbd>&larr;</kbd> <kbd>&rarr;</kbd> step one
frame, with <kbd>Shift</kbd> five seconds, <kbd>Home</kbd> and <kbd>End</kbd> go to the ends.
Original: as the tokenizer hears it, one channel at {rate:,} Hz. Reconstruction: made from the
codes A0-A3 alone.</p>
</section>
<section class="card" aria-labelledby="measured">
<h2 id="measured">What was measured</h2>
<p class="faint">A number in brackets says how sure that is; 1 would be certain.</p>
{observations}
</section>
<section class="card" aria-labelledby="reading">
<h2 id="reading">What a language model reads</h2>
<p>Paste this into a chat with any language model, and it can tell about a sound that it cannot
hear. It costs {cost:,} LLM tokens.</p>
<p><button type="button" id="copy">Copy the text</button> <span id="copied" role="status"></span>
</p>
<pre id="view" class="wide" tabindex="0" role="region" aria-labelledby="reading">{view}</pre>
</section>
<section class="card" aria-labelledby="figures">
<h2 id="figures">Metrics</h2>
<div class="wide" tabindex="0" role="region" aria-labelledby="figures">
<table aria-labelledby="figures">
<thead><tr><th scope="col">what</th><th scope="col">value</th><th scope="col">unit</th></tr></thead>
<tbody>{metrics}</tbody></table></div>
</section>
</main>
<footer class="faint">Made by {program}; codebooks {codebooks}.</footer>
<script id="data" type="application/json">{data}</script>
<script>{script}</script>
</body>
</html>
"""

# Outside PAGE_BODY: str.format() would take braces for fields, and the policy names each by a hash.
PAGE_STYLE = """
:root { color-scheme: light dark; --ground: #eef0f3; --panel: #fff; --ink: #1b1f24;
  --faint: #586170; --edge: #c9ced6; --accent: #005a8f; --on: #fff; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171c; --panel: #1e232b; --ink: #eceff4;
  --faint: #a3adbb; --edge: #3c4552; --accent: #56b4e9; --on: #0b0d10; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 80rem; overflow-wrap: anywhere; color: var(--ink);
  background: var(--ground); font: 16px/1.45 system-ui, sans-serif; }
h1, h2, h3, p { margin: 0 0 .4rem; line-height: 1.35; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; } h3 { font-size: 1rem; }
p { max-width: 110ch; } p:empty { display: none; } .faint { color: var(--faint); }
.card { margin: .8rem 0; padding: 1rem; border: 1px solid var(--edge); border-radius: .6rem;
  background: var(--panel); }
.bar, .bar span { display: flex; flex-wrap: wrap; gap: .4rem 1rem; align-items: center; }
.bar span { gap: .3rem; }
#clock, h3, td, time { font-variant-numeric: tabular-nums; } #clock { min-width: 9rem; }
button { min-width: 2.5rem; min-height: 2.5rem; padding: .2rem .8rem; font: inherit;
  color: var(--ink); background: var(--ground); border: 1px solid var(--edge);
  border-radius: .4rem; cursor: pointer; }
#play, [aria-pressed=true] { color: var(--on); background: var(--accent); }
#play { min-width: 6rem; font-weight: 600; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
#stage { position: relative; overflow: hidden; margin-top: .4rem; }
#chart { display: block; width: 100%; touch-action: pan-y; cursor: crosshair; }
.line { position: absolute; inset: 0 auto 0 -1px; width: 2px; pointer-events: none;
  background: var(--ink); box-shadow: 0 0 0 1px var(--panel); } #hover { opacity: .5; }
#seek { width: 100%; height: 1.6rem; margin: 0 0 .4rem; accent-color: var(--accent); }
#codes { display: grid; grid: repeat(4, auto) / auto-flow 1fr; column-gap: 2rem; }
#codes div { display: grid; grid-template-columns: 1rem 1.8rem 2.2rem 1fr; column-gap: .5rem;
  padding: .2rem 0; border-top: 1px solid var(--edge); }
#codes i { height: 1rem; border-radius: .2rem; align-self: center; }
#codes span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
#codes small { display: none; grid-area: 1 / 4; color: var(--faint); }
#spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
ul { margin: .3rem 0 .6rem; padding-left: 1.1rem; }
ol { margin: 0; padding: 0; list-style: none; columns: 26rem; }
ol button { width: 100%; border-color: transparent; background: none; text-align: left; }
ol button:hover { border-color: var(--edge); } time { color: var(--accent); font-weight: 600; }
.wide { max-height: 26rem; overflow: auto; white-space: pre-wrap; }
pre { margin: 0; padding: .8rem; background: var(--ground); font-size: .85rem; }
table { width: 100%; border-collapse: collapse; white-space: normal; }
th, td { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--edge); text-align: left;
  vertical-align: top; } td, tbody th { font-weight: 400; }
kbd { padding: 0 .3rem; border: 1px solid var(--edge); border-radius: .2rem; font-size: .85em; }
@media (max-width: 40rem) { body { padding: .5rem; font-size: 15px; } .card { padding: .7rem; }
  #codes { display: block; } #codes div { grid-auto-rows: 1.3rem 2.6rem; }
  #codes small { display: block; }
  #codes span + span { grid-area: 2 / 2 / 2 / 5; white-space: normal; line-height: 1.3; } }
"""

PAGE_SCRIPT = """
"use strict";
const $ = (id) => document.getElementById(id), data = JSON.parse($("data").textContent);
const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
const codes = new Uint16Array(bytes(data.codes).buffer);  // all of S0, all of S1 ...
const codeAt = (layer, row) => codes[layer * data.rows + row];
const gloss = (layer, code) => data.glosses[layer][code] || "";
const rowAt = (time) => Math.max(0, Math.min(data.rows - 1, Math.floor(time * data.rate + 0.01)));
const clock = (time, digits) => data.duration < 60 ? time.toFixed(digits) + " s"
  : Math.floor(time / 60) + ":" + (time % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, 0);

// The sound: a player for each version, of which one is heard.
let heard = 0, position = 0, from = 0, to = data.duration, pointed = null, timer = 0;
const players = [...document.querySelectorAll("audio")];
for (const player of players) {
  player.onplay = player.onpause = player.onended = () => {
    $("play").textContent = playing() ? "Pause" : "Play";
    tick();
    say();
  };
}
const trouble = ({ title }) => { $("told").textContent = "This browser cannot play: " + title; };
const playing = () => !players[heard].paused && !players[heard].ended;
const start = () => players[heard].play().catch((error) => {
  if (error.name !== "AbortError") trouble(players[heard]);
});

function play() {
  if (playing()) return players[heard].pause();
  if (position > data.duration - 0.05) seek(0);
  start();
}

function seek(time) {
  position = players[heard].currentTime = Math.min(data.duration, Math.max(0, time));
  if (position < from || position > to) look(position - (to - from) / 2, to - from);
  tick();
  say();
}

function choose(k) {
  const before = players[heard], was = playing();
  heard = k;
  players[k].currentTime = position;
  if (was) start();
  before.pause();
  for (const button of document.querySelectorAll("[data-sound]")) {
    button.setAttribute("aria-pressed", +button.dataset.sound === k);
  }
}

// Words: the codes at the pointer or else at the playhead, and aloud once things rest.
function read(row) {
  const where = pointed === null ? "Now at" : "Pointed at";
  const frame = Math.round(row * data.stride);
  $("when").textContent = `${where} ${clock(row / data.rate, 2)}, frame ${frame}`;
  [...$("codes").children].forEach(({ children: [swatch, , code, words] }, layer) => {
    swatch.style.background = colour(layer, codeAt(layer, row));
    code.textContent = codeAt(layer, row);
    words.textContent = words.title = gloss(layer, codeAt(layer, row));
  });
}

function say() {
  clearTimeout(timer);
  timer = setTimeout(() => {
    const row = rowAt(position);
    const all = layers.map(([name], k) => `${name}: ${gloss(k, codeAt(k, row))}`);
    if (!playing()) $("spoken").textContent = `${clock(position, 2)}. ${all.join(". ")}`;
  }, 500);
}

// The picture: redrawn when what it shows changes; playhead and pointer are lines above it.
const chart = $("chart"), pen = chart.getContext("2d"), colours = new Map();
const layers = [...$("codes").children].map((row) => [row.children[1], row.children[4]].map(
  (cell) => cell.textContent));
let width = 0, left = 0;
const across = (time) => left + (time - from) / (to - from) * (width - left);
const timeAt = (x) => from + (Math.max(left, Math.min(width, x)) - left) / (width - left)
  * (to - from);

function mix(palette, share) {  // [red, green, blue] at 0 to 1 along a map of colours
  const steps = data.palettes[palette].split(" "), low = Math.min(7, Math.floor(8 * share));
  return [0, 2, 4].map((at) => {
    const [one, two] = [low, low + 1].map((k) => parseInt(steps[k].slice(at, at + 2), 16));
    return Math.round(one + (8 * share - low) * (two - one));
  });
}

function colour(layer, code) {
  const palette = layer > 3 ? "plasma" : "viridis", key = palette + code;
  const share = 0.04 + 0.92 * (code * data.hue % 1);
  if (!colours.has(key)) colours.set(key, `rgb(${mix(palette, share)})`);
  return colours.get(key);
}

function paint() {  // the spectrogram once, a pixel for each band and column
  const picture = document.createElement("canvas"), pixels = bytes(data.mel);
  const image = new ImageData(pixels.length / data.bands, data.bands);
  const inks = Array.from({ length: 256 }, (_, level) => mix("magma", level / 255));
  pixels.forEach((level, k) => {
    for (let part = 0; part < 3; part++) image.data[4 * k + part] = inks[level][part];
    image.data[4 * k + 3] = 255;
  });
  [picture.width, picture.height] = [image.width, image.height];
  picture.getContext("2d").putImageData(image, 0, 0);
  return picture;
}

function commonest(layer, first, stop) {
  const votes = new Map();
  for (let row = first; row < stop; row++) {
    votes.set(codeAt(layer, row), (votes.get(codeAt(layer, row)) || 0) + 1);
  }
  return [...votes].reduce((best, vote) => vote[1] > best[1] ? vote : best)[0];
}

function put(text, x, y, { ink, align = "left", weight = 400, room }) {
  pen.font = `${weight} 13px system-ui, sans-serif`;
  pen.fillStyle = ink;
  pen.textAlign = align;
  pen.fillText(text, x, y, room);
}

function drawMarks(ink, y) {
  for (const [begin, end, letter] of data.sections) {
    const a = Math.max(left, across(begin)), b = Math.min(width, across(end));
    pen.fillStyle = colour(0, letter.charCodeAt(0) - 65);
    const [red, green, blue] = colour(0, letter.charCodeAt(0) - 65).match(/\\d+/g);
    const over = red * 0.3 + green * 0.6 + blue * 0.1 > 115 ? "#000" : "#fff";
    if (b > a) pen.fillRect(a, y, b - a - 1, 19);
    if (b > a + 14) put(letter, (a + b) / 2, y + 14, { ink: over, align: "center", weight: 600 });
  }
  let free = left;
  for (const [time, span, words] of data.marks) {
    const x = across(time);
    if (x < left || x > width) continue;
    pen.fillStyle = ink;
    pen.fillRect(x, y + 23, Math.max(2, Math.min(width, across(time + span)) - x), 4);
    if (x < free || x + pen.measureText(words).width > width) continue;
    put(words, x, y + 40, { ink });
    free = x + pen.measureText(words).width + 12;
  }
}

function drawRibbon(layer, y, height) {
  for (let x = left; x < width; x++) {
    const first = rowAt(timeAt(x)), stop = Math.max(first + 1, rowAt(timeAt(x + 1)));
    pen.fillStyle = colour(layer, commonest(layer, first, stop));
    pen.fillRect(x, y, 1, height);
  }
}

function drawClock(ink, y) {
  const wanted = 90 * (to - from) / (width - left);
  const step = data.steps.find((size) => size >= wanted) || wanted;
  for (let k = Math.ceil(from / step); k * step <= to; k++) {
    const x = across(k * step), digits = step < 1 ? Math.ceil(-Math.log10(step)) : 0;
    const align = x > width - 20 ? "right" : x < left + 20 ? "left" : "center";
    put(clock(k * step, digits), x, y + 17, { ink, align });
    pen.fillRect(Math.min(width - 1, x), y, 1, 5);
  }
}

function draw() {
  const style = getComputedStyle(document.documentElement), dots = window.devicePixelRatio || 1;
  const [ink, faint] = ["--ink", "--faint"].map((name) => style.getPropertyValue(name));
  width = chart.clientWidth;
  const small = width < 640, tall = small ? 130 : 150, height = tall + 302;
  left = small ? 52 : 215;
  chart.style.height = height + "px";
  $("seek").style.marginLeft = left - 8 + "px";  // its knob stands below the playhead
  $("seek").style.width = width - left + 16 + "px";
  [chart.width, chart.height] = [Math.round(width * dots), Math.round(height * dots)];
  pen.setTransform(dots, 0, 0, dots, 0, 0);
  const title = (text, y) => put(small ? text.split(",")[0] : text, small ? 0 : left, y,
    { ink, weight: 600 });
  title("Sections and events, like letters sound alike", 13);
  drawMarks(ink, 19);
  title("Spectrogram: how loud each pitch is, low ones below", 80);
  const scale = picture.width / data.span;
  pen.drawImage(picture, from * scale, 0, (to - from) * scale, picture.height, left, 86,
    width - left, tall);
  for (const [name, at] of data.hertz) {
    put(name, left - 6, 90 + tall * (1 - at), { ink: faint, align: "right" });
  }
  layers.forEach(([name, reads], layer) => {
    const y = 113 + tall + 19 * layer + (layer > 3 ? 22 : 0);
    if (layer === 0) title("Semantic codes: what kind of sound this is", y - 5);
    if (layer === 4) title("Acoustic codes: how it sounds right now", y - 5);
    put(small ? name : `${reads}  ${name}`, left - 6, y + 13, { ink, align: "right",
      room: left - 6 });
    drawRibbon(layer, y, 17);
  });
  drawClock(faint, tall + 285);
}

function look(begin, span) {
  span = Math.min(data.duration, Math.max(1, span));
  from = Math.min(data.duration - span, Math.max(0, begin));
  to = from + span;
  draw();
  tick();
}

function tick() {
  if (playing()) {
    position = Math.min(data.duration, players[heard].currentTime);
    if (position > to && to < data.duration) look(position, to - from);
  }
  const place = (line, time) => {
    line.hidden = time === null || time < from || time > to;
    line.style.transform = `translateX(${across(time)}px)`;
  };
  place($("head"), position);
  place($("hover"), pointed);
  $("clock").textContent = `${clock(position, 1)} of ${clock(data.duration, 1)}`;
  $("seek").value = position;
  $("seek").setAttribute("aria-valuetext", clock(position, 1));
  read(rowAt(pointed === null ? position : pointed));
}

// Hands: buttons, pointer, wheel, keys.
async function copy() {
  let done = true;
  try {
    await navigator.clipboard.writeText($("view").textContent);
  } catch (refused) {  // as browsers may for a page that is a file
    getSelection().selectAllChildren($("view"));
    done = document.execCommand("copy");
  }
  $("copied").textContent = done ? "Copied." : "Not copied: the browser does not allow it.";
}

function point(event) {
  const gone = event.type === "pointerleave" || event.pointerType === "touch" && !event.buttons;
  pointed = gone ? null : timeAt(event.clientX - chart.getBoundingClientRect().left);
  if (event.buttons && !gone) seek(pointed);
  tick();
}

const zoom = (by) => look(position - (position - from) / by, (to - from) / by);
const acts = { play, copy, in: () => zoom(2), out: () => zoom(0.5),
  all: () => look(0, data.duration) };
const step = (way) => (event) => seek(event.shiftKey ? position + 5 * way
  : (rowAt(position) + way) / data.rate);
const keys = { " ": play, ArrowLeft: step(-1), ArrowRight: step(1), Home: () => seek(0),
  End: () => seek(data.duration) };
document.addEventListener("click", ({ target }) => {
  const button = target.closest("button"), { sound, time } = button ? button.dataset : {};
  if (sound) choose(+sound);
  else if (time) seek(+time);
  else if (button) acts[button.id]();
});
document.addEventListener("keydown", (event) => {
  const busy = event.target.closest(event.key === " " ? "button" : ".wide");
  if (!keys[event.key] || busy || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  keys[event.key](event);
});
chart.addEventListener("wheel", (event) => {
  const aside = event.shiftKey ? event.deltaY : event.deltaX;
  if (!aside || to - from >= data.duration) return;
  event.preventDefault();
  look(from + aside / width * (to - from), to - from);
}, { passive: false });
for (const kind of ["down", "move", "up", "leave"]) chart.addEventListener("pointer" + kind, point);
[$("seek").max, $("seek").step] = [data.duration, 1 / data.rate];
$("seek").oninput = () => seek(+$("seek").value);
window.addEventListener("resize", () => look(from, to - from));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
setInterval(() => { if (playing()) tick(); }, 33);
players.forEach((player) => { player.onerror = () => trouble(player); });
players.filter((player) => player.error).forEach(trouble);
const picture = paint();
look(0, data.duration);
"""


def encoded(content: bytes) -> str:
    """Base64 of bytes, as text."""
    return base64.b64encode(content).decode()


def mel_pixels(view: View) -> np.ndarray:
    """The mel spectrogram as uint8 [N_MELS, n], high bands first; 0 is 70 dB below 255."""
    # A byte a pixel keeps steps of 70 / 255 dB; as a number in JSON it would take several.
    rows = blocks_of(absolute_mel(view.clip.spectra), PAGE_COLUMNS).mean(axis=1)
    top = max(float(rows.max()), -60.0)
    return np.rint(np.clip((rows.T[::-1] - top + 70) / 70, 0, 1) * 255).astype(np.uint8)


def script_json(value: Any) -> str:
    """JSON that can stand in a script element, whatever its strings hold.

    See "Restrictions for contents of script elements" in the HTML standard.
    """
    # "</script>" or "<!--" in a name would end the element or hide its end. U+2028 and U+2029 are
    # line ends to older JavaScript. The escapes mean the same in JSON.
    escape = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
    return dump_json(value).translate(escape)


def page_data(view: View, header: Header, gloss: Gloss) -> str:
    """What the page's script draws from, as JSON; codes as uint16, layer after layer.

    Times are in seconds of the view, `rate` in rows a second; `mel` holds a byte a pixel, row after
    row, high bands first, and `span` says how many seconds its columns take.
    """
    codes, rate, pixels = view.clip.codes, view.row_rate, mel_pixels(view)
    size = block_size(len(codes), PAGE_COLUMNS)
    # None below 500 Hz: letters of 13 pixels would overlap there on a chart that is 130 high.
    places, names = mel_ticks((500, 1000, 2000, 5000, 10000), view)
    return script_json({
        "rows": len(codes), "rate": rate, "stride": header.frame_rate / rate,
        "duration": seconds_shown(view, header),
        "codes": encoded(codes.T.astype("<u2").tobytes()),
        "glosses": [{code: gloss(q, code) for code in np.unique(column).tolist()}
                    for q, column in enumerate(codes.T)],
        "sections": section_spans(view),
        "marks": [(mark.time, mark.duration, visible(MARKED[mark.kind](mark.value), 40))
                  for mark in timed_marks(view)],
        "hertz": [(name, (place + 0.5) / N_MELS) for place, name in zip(places, names)],
        "steps": CLOCK_STEPS, "hue": HUE_STEP, "palettes": PALETTES,
        "mel": encoded(pixels.tobytes()), "bands": N_MELS, "span": size * pixels.shape[1] / rate,
    })  # fmt: skip


def page_observations(view: View) -> str:
    """What was observed, as HTML: of the whole sound in words, at a time as buttons."""
    timed, whole, buttons = timed_facts(view), [], []
    for fact in sorted(observe(view), key=lambda o: o.time if o in timed else -1):
        words = textwrap.shorten(fact_lines(fact)[0][2:], 150, placeholder=" …")
        told, clock = html.escape(words), f"{int(fact.time) // 60}:{fact.time % 60:04.1f}"
        button = f'<button type="button" data-time="{fact.time:.3f}"><time>{clock}</time> {told}'
        if fact in timed:
            buttons.append(f"<li>{button}</button></li>")
        else:
            whole.append(f"<li>{told}</li>")
    heading = "<h3>At a time (minutes:seconds): click to hear it</h3>" if timed else ""
    return "\n".join(["<ul>", *whole, "</ul>", heading, "<ol>", *buttons, "</ol>"])


def metric_rows(metrics: Sequence[Metric]) -> str:
    """Metrics as rows of an HTML table; one without a value says why."""
    rows = []
    for name, value, unit, why in metrics:
        shown = f"{value:.4g}" if isinstance(value, float) else value
        cells = (f"none: {why}" if value is None else str(shown), unit)
        told = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{html.escape(name)}</th>{told}</tr>')
    return "\n".join(rows)


def source_hash(text: str) -> str:
    """What a Content-Security-Policy (level 2, W3C 2016) calls an inline script or style."""
    return f"'sha256-{encoded(hashlib.sha256(text.encode()).digest())}'"


def page_html(
    view: View, header: Header, *, gloss: Gloss, text: str, metrics: Sequence[Metric],
    sounds: Mapping[str, str],
) -> str:  # fmt: skip
    """The page of a sound: it asks no network, and no name in it can become a tag.

    `view` has at least one frame, `gloss` words for a layer's code; `text` is what a language model
    reads. `metrics` may be none; `sounds` are addresses (data: or beside the page) by label, the
    one that is heard first in front.
    """
    # Nothing may be loaded, and by the hashes only the page's own script runs: were a name to get
    # past html.escape() after all, a browser would still not run it. 'self' is for sounds that lie
    # beside a page too large to hold them.
    policy = (
        f"default-src 'none'; script-src {source_hash(PAGE_SCRIPT)};"
        f" style-src {source_hash(PAGE_STYLE)}; img-src data:; media-src data: 'self';"
        " base-uri 'none'; form-action 'none'"
    )
    labels = [(k, html.escape(label)) for k, label in enumerate(sounds)]
    choices = (f'<button type="button" data-sound="{k}" aria-pressed="{str(not k).lower()}">{label}'
               "</button>" for k, label in labels)  # fmt: skip
    players = (f'<audio preload="auto" title="{label}" src="{html.escape(address)}"></audio>'
               for (_, label), address in zip(labels, sounds.values()))  # fmt: skip
    layers = (f'<div role="row"><i></i><b role="rowheader">{name}</b><span role="cell"></span><span'
              f' role="cell"></span><small>{html.escape(reads.split(":")[0])}</small></div>'
              for name, reads in zip(LAYER_NAMES, header.reads))  # fmt: skip
    # All in one pass, so that braces in a name are never taken for fields.
    return PAGE_BODY.format(
        policy=policy, style=PAGE_STYLE, script=PAGE_SCRIPT, name=html.escape(header.source.name),
        summary=html.escape(summary_words(view, header)), view=html.escape(text),
        frame=round(1000 / header.frame_rate), choices="\n".join(choices), layers="".join(layers),
        rate=header.sample_rate, observations=page_observations(view), sounds="\n".join(players),
        cost=count_llm_tokens(text), metrics=metric_rows(metrics), program=f"{PROGRAM} {VERSION}",
        codebooks=html.escape(header.codebook_id), data=page_data(view, header, gloss),
    )  # fmt: skip


# 13 Runs -----------------------------------------------------------------------------------------
# Uses: all above. Inputs -> tokenizer -> sinks; the error boundary of each input.


MANIFEST = "manifest.ndjson"
# Samples of a file that are tokenized at a time; a pipe's as they come. 256 frames of 512 make a
# call's overhead small and memory flat, whatever the length. The codes do not hang on it.
FILE_BLOCK = 131072


def wave_header(samples: int, sample_rate: int) -> bytes:
    """First 44 bytes of a 16-bit mono WAV of so many samples at a rate in Hz."""
    # RIFF's size counts what comes after it: 36 bytes of this header and the samples. `fmt ` holds
    # 16: PCM, one channel, samples and bytes a second, bytes and bits of a sample.
    # What 32 bits cannot count (12 hours at 48 kHz) is said to last until the file ends.
    size = min(2 * samples, 0xFFFFFFFF - 36)
    form = b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", *form, b"data", size)


def pcm_bytes(samples: np.ndarray) -> bytes:
    """Samples [n] in full scale +-1 -> 16-bit little-endian PCM; what goes beyond is clipped."""
    # 32767, as +1 times 32768 would not fit; unclipped, loud samples would wrap to the other sign.
    return np.clip(np.rint(samples * 32767), -32768, 32767).astype("<i2").tobytes()


class Stopwatch:
    """Seconds spent in each stage of a run; a stage within another stops the outer one's clock."""

    def __init__(self, started: float) -> None:
        # What no other stage claims is writing; what passed before there was a watch, loading.
        self._stage, self._since, self.started = "write", time.perf_counter(), started
        self.seconds = {"load": self._since - started}

    def _switch(self, stage: str) -> str:
        # One clock that never stops: stages add up to the whole run, and nothing counts twice.
        now, before = time.perf_counter(), self._stage
        self.seconds[before] = self.seconds.get(before, 0.0) + now - self._since
        self._stage, self._since = stage, now
        return before

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a block to a stage."""
        before = self._switch(name)
        try:
            yield
        finally:
            self._switch(before)

    def timed(self, name: str, items: Iterable[Any]) -> Iterator[Any]:
        """The same items; waiting for each is a stage."""
        # A generator works while next() waits; timing the body of a for loop would miss that.
        iterator = iter(items)
        while True:
            with self.stage(name):
                item = next(iterator, None)
            if item is None:
                return
            yield item


class Job:
    """One input on its way: what its sinks may want to know of it, each thing made once.

    What needs the whole sound is kept here; bounded, see Gatherer. `gloss` gives a code's words;
    a decoded stream has no `ear`. The stopwatch counts from `started`, by time.perf_counter().
    """

    def __init__(
        self,
        header: Header,
        settings: Settings,
        trained: Trained,
        *,
        gloss: Gloss | None = None,
        ear: Any = None,
        started: float = 0.0,
    ) -> None:
        self.header, self.settings, self.gloss, self.ear = header, settings, gloss, ear
        self.seconds = 0.0  # of sound, once it has ended
        self._trained, self._gathered, self._frames = trained, Gatherer(), 0
        self._pool: SpectrumPool | None = None
        self._maker = Reconstructor(settings.sample_rate, settings.hop_length)
        # The Reconstructor carries state, so each block may pass through it once, though several
        # sinks ask for the same one, each in its turn.
        self._latest: tuple[Any, np.ndarray] = (None, np.zeros(0))
        self.evaluator: Evaluator | None = None  # if an evaluation was asked for
        self.listeners: list[Callable[[np.ndarray], None]] = []
        self.watch = Stopwatch(started or time.perf_counter())

    def begin_evaluation(self) -> None:
        """Gather what evaluation() needs from the first frame on."""
        self.evaluator = self.evaluator or Evaluator(self._trained, self.settings)

    def keep_spectrogram(self) -> None:
        """Keep a linear spectrogram too, from the first frame on."""
        self._pool = SpectrumPool(self.settings.hop_length, self.settings.view_frames)

    def heard(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass blocks of sound on; what a picture or the evaluation wants of them is kept."""
        for block in self.watch.timed("decode", blocks):
            if self._pool:
                self._pool.push(block)
            if self.evaluator:
                self.evaluator.original.add(block)
            for listener in self.listeners:
                listener(block)
            yield block

    def rebuilt(self, tokens: Tokens) -> np.ndarray:
        """What is whole of the reconstruction after these, the latest, tokens: float [n]."""
        # By identity: == of tuples of arrays would compare arrays, which have no truth value.
        if tokens is not self._latest[0]:
            with self.watch.stage("reconstruct"):
                features = self._trained.acoustic.decode(tokens.codes[:, NUM_QUANTIZERS:])
                self._latest = tokens, self._maker.push(features)
        return self._latest[1]

    # Cached: several sinks ask for it, and flush() gives the end once.
    @functools.cached_property
    def rebuilt_rest(self) -> np.ndarray:
        """The end of the reconstruction, once the sound has ended."""
        with self.watch.stage("reconstruct"):
            return self._maker.flush(round(self.seconds * self.header.sample_rate))

    def add(self, tokens: Tokens) -> None:
        """Keep those of the next frames that were asked for."""
        frames = self._frames + np.arange(len(tokens.codes))
        first, stop = self.settings.view_frames
        kept = (frames >= first) & (frames < stop)
        self._frames += len(tokens.codes)
        spectra = Spectra(*(array[kept] for array in tokens.spectra))
        self._gathered.add(Clip(*(array[kept] for array in tokens[:3]), spectra))
        # The evaluation is of the whole sound, whatever stretch the view looks at; sound is rebuilt
        # for it only until it has the seconds that it compares.
        if self.evaluator:
            with self.watch.stage("evaluate"):
                self.evaluator.add(Clip(*tokens))
                if not self.evaluator.rebuilt.full:
                    self.evaluator.rebuilt.add(self.rebuilt(tokens))

    @functools.cached_property
    def view(self) -> View:
        """What pages and pictures are made from, once the sound has ended.

        An AudioError if nothing of it lies in the stretch that was asked for.
        """
        settings, source = self.settings, self.header.source
        start, stop = settings.view_from, min(settings.view_to, self.seconds)
        title = f"{source.name}, {self.seconds:.1f} s"
        if source.kind == "raw" and not settings.raw:
            title += " (unknown format: its bytes were read as 8-bit samples)"
        if start or stop < self.seconds:
            title += f", from {start:g} to {stop:g} s"
            title += f" (TIMES BELOW START THERE: 0.0 is {start:g} s)" if start else ""
        # A long sound is thinned to every stride-th frame, so its rows are further apart.
        rate = settings.frame_rate / self._gathered.stride
        if not self._frames or start >= stop:
            words = f"nothing to view from {start:g} s on: it lasts {self.seconds:.1f} s"
            raise AudioError(f"{source.name}: there is {words}")
        linear = self._pool.columns() if self._pool else None
        first = settings.view_frames[0] / settings.frame_rate
        rows = self._gathered.clip(), self._trained, rate, settings.sample_rate
        return View(title, *rows, first, linear)

    @functools.cached_property
    def page(self) -> str:
        """The view for an LLM."""
        with self.watch.stage("view"):
            return view_text(self.view, self.settings)

    @functools.cached_property
    def evaluation(self) -> Evaluation:
        """All that was measured of the sound, once it has ended."""
        evaluator, header, duration = self.evaluator, self.header, self.seconds
        # Of a sound shorter than what is compared, the Reconstructor still holds the end back.
        if not evaluator.rebuilt.full:
            evaluator.rebuilt.add(self.rebuilt_rest)
        with self.watch.stage("load"):
            mir_eval = load_package("mir_eval")[0] if available("mir_eval", self.settings) else None
        with self.watch.stage("evaluate"):
            metrics, warnings = evaluator.metrics(mir_eval)
            evaluated = min(duration, EVALUATED)
            costs = format_costs(header, evaluator.codes, self.gloss)
            rows = [BudgetRow(*cost) for cost in costs.items()]
            view = BudgetRow("view", count_llm_tokens(self.page))
            metrics += economy_metrics([view], duration) + economy_metrics(rows, evaluated)
        # Taken last, so that the view and the metrics above count too; it goes into the metrics, so
        # what is written after them cannot.
        total = time.perf_counter() - self.watch.started
        factor = gauge("speed.real_time_factor", duration / total, "seconds of sound a second")
        spent = {"total": total, **self.watch.seconds}
        metrics += [factor, *(gauge(f"speed.{stage}", s, "s") for stage, s in spent.items())]
        frames = evaluator.statistics.frames
        return Evaluation(
            header.source.name, header.codebook_id, frames, duration, evaluated,
            tuple(metrics), tuple(warnings),
        )  # fmt: skip


class Sink:
    """Something that writes one output as tokens come: begin(), any number of write(), finish().

    `file` takes bytes; only files can seek, stdout cannot. `beside` opens a further file next to
    this one: (name, ending) -> (file name, file).
    """

    suffix = ""

    def __init__(self, file: BinaryIO, job: Job, beside: Any = None) -> None:
        self.file, self.job, self.beside = file, job, beside

    def put(self, *lines: str) -> None:
        """Write lines."""
        # half a surrogate pair, which only a foreign stream holds, is no UTF-8
        self.file.write("".join(f"{line}\n" for line in lines).encode(errors="replace"))

    def begin(self) -> None:
        """Write what comes before the first frame."""

    def write(self, tokens: Tokens) -> None:
        """Write some frames."""

    def finish(self, end: End) -> None:
        """Write what comes after the last frame."""


class NdjsonSink(Sink):
    """The token stream of the format's specification, flushed as it comes."""

    suffix = "_tokens.ndjson"

    def begin(self) -> None:
        """Write what comes before the first frame."""
        settings, header = self.job.settings, self.job.header
        self._encoder = Encoder(header, self.job.gloss if settings.legend else None)
        self._emit([header])

    def write(self, tokens: Tokens) -> None:
        """Write some frames."""
        self._emit(self._encoder.events(tokens.codes))

    def finish(self, end: End) -> None:
        """Write what comes after the last frame."""
        self._emit([end])

    def _emit(self, events: Iterable[Any]) -> None:
        self.put(*event_lines(events, self.job.header.frame_rate))
        # Who reads a live stream waits for its lines, not for a buffer to fill.
        self.file.flush()


class TextSink(Sink):
    """One string of eight codes a frame."""

    suffix = "_tokens.txt"

    def write(self, tokens: Tokens) -> None:
        """Write some frames."""
        self.put(*text_lines(tokens.codes))


class JsonSink(Sink):
    """Header, codes [T, 8] as arrays, end, as one JSON object."""

    suffix = "_tokens.json"

    def begin(self) -> None:
        """Write what comes before the first frame."""
        header, layers = dump_json(header_fields(self.job.header)), dump_json(LAYER_NAMES)
        # Written piece by piece, so memory stays flat; the comma comes before a row, as JSON allows
        # none after the last one and which that is is known too late.
        self._comma = ""
        self.put(f'{{"header":{header},', f'"layers":{layers},', '"codes":[')

    def write(self, tokens: Tokens) -> None:
        """Write some frames."""
        for row in tokens.codes.tolist():
            self.file.write(f"{self._comma}{dump_json(row)}".encode())
            self._comma = ",\n"

    def finish(self, end: End) -> None:
        """Write what comes after the last frame."""
        self.put("],", f'"end":{dump_json(end_fields(end))}}}')


class FeaturesSink(Sink):
    """Features on the frame grid, and as the models gave them, for programs (--save-features)."""

    suffix = "_features.npz"

    def begin(self) -> None:
        """Start with no rows."""
        self._rows: list[tuple[np.ndarray, np.ndarray]] = []

    def write(self, tokens: Tokens) -> None:
        """Keep some rows."""
        rows = tokens.acoustic.astype(np.float32), tokens.semantic.astype(np.float32)
        self._rows.append(rows)

    def finish(self, end: End) -> None:
        """Write arrays and header; a second model's native states get a number."""
        arrays = {"header": np.array(dump_json(header_fields(self.job.header)))}
        arrays["acoustic"], arrays["semantic"] = map(np.concatenate, zip(*self._rows))
        for number, (rate, states) in enumerate(self.job.ear.native()):
            suffix = f"_{number + 1}" if number else ""
            arrays[f"semantic_native{suffix}"] = states
            arrays[f"native_rate{suffix}"] = np.array(rate)
        np.savez(self.file, **arrays)


class NpzSink(Sink):
    """Codes int16 [T, 8], header and end for programs, read with allow_pickle=False."""

    suffix = "_tokens.npz"

    def begin(self) -> None:
        """Start with no rows."""
        self._codes = [np.empty((0, len(LAYERS)), np.int16)]

    def write(self, tokens: Tokens) -> None:
        """Keep some rows."""
        self._codes.append(tokens.codes)

    def finish(self, end: End) -> None:
        """Write all; header and end as JSON text, as a dict would take a pickle."""
        fields = {"header": header_fields(self.job.header), "end": end_fields(end)}
        texts = {name: np.array(dump_json(value)) for name, value in fields.items()}
        buffer = io.BytesIO()  # a zip wants to seek, stdout cannot
        np.savez_compressed(buffer, codes=np.concatenate(self._codes), **texts)
        self.file.write(buffer.getvalue())


class ViewSink(Sink):
    """The minimal stream for an LLM's context; base of all that needs the whole sound."""

    suffix = "_stream.txt"

    def finish(self, end: End) -> None:
        """Write the page."""
        self.put(self.job.page)


class BudgetSink(ViewSink):
    """What the sound costs an LLM in each format, as a table (--budget-report)."""

    def finish(self, end: End) -> None:
        """Write the table."""
        job, codes = self.job, self.job.view.clip.codes
        rows = budget_rows(job.header, codes, job.gloss, view=job.page)
        self.put(*budget_lines(rows, end.duration))


class SoundSink(Sink):
    """Approximate sound decoded from the acoustic codes."""

    suffix = "_reconstructed.wav"

    def begin(self) -> None:
        """Write what comes before the first frame."""
        # A header of no samples keeps the place: the length is known at the end only, when finish()
        # goes back to it. To a pipe sound is written when it is whole.
        self.file.write(wave_header(0, self.job.header.sample_rate))

    def write(self, tokens: Tokens) -> None:
        """Write some frames."""
        self.file.write(pcm_bytes(self.job.rebuilt(tokens)))

    def finish(self, end: End) -> None:
        """Write what comes after the last frame."""
        rate = self.job.header.sample_rate
        self.file.write(pcm_bytes(self.job.rebuilt_rest))
        self.file.seek(0)
        self.file.write(wave_header(round(end.duration * rate), rate))


def metrics_json(fields: Mapping[str, Any]) -> bytes:
    """A metrics file; ValueError if a value is not finite, as JSON has no word for that."""
    return (json.dumps(fields, indent=1, allow_nan=False, default=float) + "\n").encode()


class EvaluationSink(ViewSink):
    """How good codes and reconstruction are, as a table (--evaluate)."""

    def begin(self) -> None:
        """Gather from the first frame on."""
        self.job.begin_evaluation()

    def finish(self, end: End) -> None:
        """Write the table."""
        self.put(*evaluation_lines(self.job.evaluation))


class MetricsSink(EvaluationSink):
    """The evaluation and what was observed, as JSON."""

    suffix = "_metrics.json"

    def finish(self, end: End) -> None:
        """Write the report."""
        evaluation = self.job.evaluation
        if self.job.settings.observations:
            evaluation = evaluation._replace(observations=observe(self.job.view))
        self.file.write(metrics_json(evaluation_fields(evaluation)))


# In base64 they make 24 MB of page. Without soundfile that is 3 minutes of WAV twice, at 22,050 Hz.
EMBED_BYTES = 18_000_000  # of sound within a page: 40 minutes of Ogg twice; more lies beside it
BESIDE = [f"_{name}{end}" for name in ("original", "reconstruction") for end in (".ogg", ".wav")]


class Track:
    """One version of the sound for a page, encoded as it comes; memory stays flat."""

    def __init__(self, settings: Settings) -> None:
        self._rate, self._passed = settings.sample_rate, 0
        self._span = [frame * settings.hop_length for frame in settings.view_frames]
        # The encoder wants to seek, and whether the sound lies in the page or beside it is decided
        # once its size is known.
        self.file = tempfile.TemporaryFile()
        self._ogg = ogg_writer(self.file, settings)

    def add(self, samples: np.ndarray) -> None:
        """Encode what of the next samples [n], full scale +-1, was asked for (--from, --to)."""
        start, stop = (max(0, at - self._passed) for at in self._span)
        self._passed += len(samples)
        if self._ogg:
            self._ogg.write(samples[start:stop])
        else:
            self.file.write(pcm_bytes(samples[start:stop]))

    def address(self, name: str, beside: Callable[..., tuple[str, BinaryIO]] | None) -> str:
        """Where a page finds the sound: in the address itself, or in a file beside the page."""
        if self._ogg:
            kind, head = "ogg", b""
            self._ogg.close()
            # An Ogg stream's serial number is random; a page is to be the same in every run.
            zero_serials(self.file)
        else:
            kind, head = "wav", wave_header(self.file.tell() // 2, self._rate)
        self.file.seek(0)
        if not beside:
            return f"data:audio/{kind};base64,{encoded(head + self.file.read())}"
        name, file = beside(name, f".{kind}")
        file.write(head)
        shutil.copyfileobj(self.file, file)
        # A name may hold #, ? or %, which in an address mean something else, or be no text.
        return urllib.parse.quote(os.fsencode(name))


class ReportSink(EvaluationSink):
    """The page: the sound with its spectrogram, codes, view and metrics; see page_html()."""

    suffix = "_report.html"

    def begin(self) -> None:
        """Encode the original as it is heard."""
        super().begin()
        self._original, self._rebuilt = (Track(self.job.settings) for _ in range(2))
        self.job.listeners.append(self._original.add)

    def write(self, tokens: Tokens) -> None:
        """Encode the reconstruction."""
        self._rebuilt.add(self.job.rebuilt(tokens))

    def finish(self, end: End) -> None:
        """Write the page, and the sounds beside it where they are large."""
        job = self.job
        self._rebuilt.add(job.rebuilt_rest)
        tracks = {"Original": self._original, "Reconstruction": self._rebuilt}
        # Nothing can lie beside stdout, so there even a large sound goes into the page.
        large = sum(track.file.tell() for track in tracks.values()) > EMBED_BYTES
        beside = self.beside if large else None
        sounds = {name: track.address(name.lower(), beside) for name, track in tracks.items()}
        # Timings would make the page another one in every run.
        measured = job.evaluation.metrics
        metrics = [metric for metric in measured if not metric.name.startswith("speed.")]
        more = {"text": job.page, "metrics": metrics, "sounds": sounds}
        self.put(page_html(job.view, job.header, gloss=job.gloss, **more))


class PictureSink(ViewSink):
    """One picture of the sound; FIGURES[name] draws it once everything else is written."""

    def __init__(self, name: str, path: Path, job: Job, *, force: bool) -> None:
        self.name, self.path, self.job, self.force = name, path, job, force

    def finish(self, end: End) -> None:
        """Draw and write it, or raise an OutputError."""
        try:
            job, theme = self.job, self.job.settings.viz_theme
            picture = draw_figure(self.name, job.view, job.header, theme=theme)
            with whole_file(self.path, force=self.force) as file:
                save_figure(picture, file, form=self.path.suffix[1:])
        except (ValueError, RuntimeError, MemoryError) as error:  # of a font, a huge raster
            raise OutputError(f"cannot draw {self.path}: {error}") from error


SINKS: dict[str, type[Sink]] = {
    "text": TextSink, "json": JsonSink, "ndjson": NdjsonSink, "stream": ViewSink, "npz": NpzSink,
    "wav": SoundSink, "metrics": MetricsSink, "report": ReportSink, "features": FeaturesSink,
}  # fmt: skip
ALL_FORMATS = tuple(SINKS)[:-1]  # of --all-outputs; features are asked for by name
PICTURES = {f"viz_{name}": name for name in FIGURES}  # formats that are drawn, last of all


# Most file systems end a name at 255 bytes, not characters (an emoji has four). What is left is for
# a hash and the longest suffix.
STEM_BYTES = 150
# A stem that looks hashed already gets a hash of its own: else a source could be given the very
# name that another one's hash leads to.
HASHED_STEM = re.compile(r".*-[0-9a-f]{12}", re.DOTALL)


def output_stem(source: str) -> str:
    """File name that a source's outputs begin with if no other source wants it."""
    stem = source_name(source) if is_piped(source) else visible(Path(source).stem) or "sound"
    # The cut may fall into a character, whose rest then goes too.
    return stem.encode()[:STEM_BYTES].decode(errors="ignore")


def suffix_of(name: str, outputs: Outputs) -> str:
    """How a format's file ends."""
    return f"_{name}.{outputs.viz_format}" if name in PICTURES else SINKS[name].suffix


def output_stems(sources: Iterable[str]) -> dict[str, str]:
    """Source -> file name that its outputs begin with; no two are the same.

    Where sources share a stem, or would on a file system without capitals, a hash of the path
    joins, as it was given: it hangs neither on the machine nor on the order or number of sources.
    """
    plain = {source: output_stem(source) for source in sources}
    # Windows and macOS take x and X for one name, macOS also é however it is composed.
    folded = {stem: unicodedata.normalize("NFC", stem).casefold() for stem in plain.values()}
    wanted = collections.Counter(folded[stem] for stem in plain.values())

    def named(source: str, stem: str) -> str:
        """A stem, with a hash where it has rivals."""
        if wanted[folded[stem]] == 1 and not HASHED_STEM.fullmatch(stem):
            return stem
        # 48 bits: among a million sources of one stem, two share a hash with a chance of 1 in 560.
        return f"{stem}-{hashlib.sha256(os.fsencode(source)).hexdigest()[:12]}"

    return {source: named(source, stem) for source, stem in plain.items()}


def real_paths(sources: Iterable[str]) -> frozenset[str]:
    """Where the sources lie, links followed; no output may go there."""
    return frozenset(map(os.path.realpath, sources))


Owner = Callable[[str], str]  # name of an output -> the input that it is of


def check_link(path: Path, folder: Path | None) -> None:
    """OutputError for a link in circles, or one in the folder that leads out of it unasked."""
    real = os.path.realpath(path)
    out = path.parent == folder and os.path.dirname(real) != os.path.realpath(folder)
    if path.is_symlink() and (out or os.path.islink(real)):
        raise OutputError(f"{path} is a link that leads elsewhere; remove it")


def check_paths(
    paths: Iterable[Path], inputs: Container[str], outputs: Outputs, *, owner: Owner = lambda _: ""
) -> None:
    """See that files can be written, and make their folders; an OutputError if not.

    `inputs` are real paths that nothing may replace; `owner` names another input that a file of
    this name is of, if one is known.
    """
    for path in filter(lambda path: not is_stream(path), paths):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            exists = path.exists()
            other = exists and not path.is_file()
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from None
        # Links are followed, as an output may reach an input by another name; --force does not
        # help, for what is about to be read would be gone.
        if os.path.realpath(path) in inputs:
            raise OutputError(f"{path} is an input too; name another output")
        if other:  # a device would be replaced
            raise OutputError(f"{path} is a folder, FIFO or device; name a file, or - for stdout")
        check_link(path, outputs.folder)
        if exists and not outputs.may_replace(path):
            whose = visible(owner(path.name), 1000)
            words = f"is of {whose}; another --output-dir keeps both," if whose else "exists;"
            raise OutputError(f"{path} {words} --force overwrites it")


def output_names(outputs: Outputs, stem: str) -> tuple[str, ...]:
    """Names of all files that may be made in the folder."""
    names = [f"{stem}{suffix_of(name, outputs)}" for name in outputs.formats]
    page = f"{stem}{ReportSink.suffix}"
    return (*names, *(page[:-5] + end for end in BESIDE if page in names))


def output_paths(
    outputs: Outputs, stem: str, inputs: Container[str] = (), *, owner: Owner = lambda _: ""
) -> dict[Path, str]:
    """Path -> format, as check_paths() allows, which is given `owner`; parent folders exist."""
    paths: dict[Path, str] = {}
    if outputs.folder:
        paths = {outputs.folder / f"{stem}{suffix_of(f, outputs)}": f for f in outputs.formats}
    if outputs.path:
        beside = {outputs.path.parent / (outputs.path.stem + suffix_of(f, outputs)): f
                  for f in outputs.formats[1:]}  # fmt: skip
        paths = {outputs.path: outputs.formats[0], **beside}
    if outputs.metrics:
        paths[outputs.metrics] = "metrics"
    pages = [path for path, name in paths.items() if name == "report"]
    sounds = [page.with_name(page.stem + end) for page in pages for end in BESIDE]
    check_paths([*paths, *sounds], inputs, outputs, owner=owner)
    return paths


@contextlib.contextmanager
def stdout_file(live: bool) -> Iterator[BinaryIO]:
    """Standard output: as it comes for a live source, else only when all is well.

    An OutputError if it is closed or full; a BrokenPipeError passes: head has what it wanted.
    """
    # What Python puts there if it was started with a closed stdout (>&-).
    if sys.stdout is None:
        raise OutputError("stdout is closed; name --output or --output-dir")
    with writing("to stdout"):
        if live:
            yield sys.stdout.buffer
        else:
            with held_back(sys.stdout.buffer) as spool:  # as a sound may break off half-way
                yield spool
        sys.stdout.buffer.flush()


@contextlib.contextmanager
def open_sinks(
    paths: Mapping[Path, str], outputs: Outputs, job: Job, *, live: bool = False
) -> Iterator[list[Sink]]:
    """Open a sink for each output; files appear only if all goes well.

    `paths` are those of output_paths(); `live` has stdout written as tokens come. An OutputError
    if something cannot be written; then no file is left behind.
    """
    with contextlib.ExitStack() as stack:

        def open_file(path: Path) -> BinaryIO:
            """A file that appears only when whole."""
            return stack.enter_context(whole_file(path, force=outputs.may_replace(path)))

        def beside(path: Path, name: str, suffix: str) -> tuple[str, BinaryIO]:
            """Name of a file next to an output, and the file."""
            other = path.with_name(f"{path.stem}_{name}{suffix}")
            return other.name, open_file(other)

        # A picture opens its file when it is drawn: to fail then must not cost the others.
        files = {path: open_file(path) for path, form in paths.items() if form not in PICTURES}
        sinks = [
            SINKS[paths[path]](file, job, functools.partial(beside, path))
            for path, file in files.items()
        ]
        if outputs.stdout:  # who waits at its other end is served first
            # A WAV's header is written last of all.
            stdout = stack.enter_context(stdout_file(live and outputs.stdout != "wav"))
            sinks.insert(0, SINKS[outputs.stdout](stdout, job))
        if job.settings.budget_report:
            sinks.append(BudgetSink(sys.stderr.buffer, job))
        if job.settings.evaluate:
            sinks.append(EvaluationSink(sys.stderr.buffer, job))
        yield sinks
        for path, file in files.items():  # a disk that is full is so before the first has a name
            with writing(path):
                file.flush()


def make_header(source: Source, tokenizer: Tokenizer) -> Header:
    """What a stream of this source by this tokenizer says first."""
    settings, ears = tokenizer.settings, tokenizer.ears
    reads = tuple(ears.reads) + tuple(layer.reads for layer in LAYERS[NUM_QUANTIZERS:])
    return Header(
        source, settings.frame_rate, settings.hop_length, settings.sample_rate, settings.encodings,
        reads, settings.codebook_size, ears.card, tokenizer.codebook_id, settings.keyframe_interval,
    )  # fmt: skip


def draw_pictures(pictures: Sequence[PictureSink], end: End) -> None:
    """Draw all; one that fails costs no other, and an OutputError names it in the end."""
    failed = []
    for picture in pictures:
        try:
            picture.finish(end)
        except OutputError as error:
            failed.append(str(error))
    if failed:
        raise OutputError("\n".join(failed))


def pump(
    blocks: Iterable[np.ndarray], tokenizer: Tokenizer, sinks: Sequence[Sink], *, job: Job
) -> tuple[CodeStatistics, str]:
    """Tokenize blocks and hand the tokens to every sink; statistics and hash of all codes.

    `blocks` [n] are mono, at the tokenizer's rate, of any size; all sinks are begun before the
    first is waited for.
    """
    statistics, digest = CodeStatistics(tokenizer.settings.codebook_size), hashlib.sha256()
    for sink in sinks:
        sink.begin()
    viewed = job.evaluator or any(isinstance(sink, ViewSink) for sink in sinks)
    heard = tokenizer.mono_tokens(job.heard(blocks), ear=job.ear)
    for tokens in job.watch.timed("tokenize", heard):
        statistics.add(tokens.codes)
        hash_codes(tokens.codes, digest)
        if viewed:
            job.add(tokens)
        for sink in sinks:
            sink.write(tokens)
    return statistics, digest.hexdigest()


def make_end(audio: Audio, statistics: CodeStatistics, digest: str) -> End:
    """What a stream says last; `digest` is of its codes."""
    layers = statistics.report(audio.sample_rate * statistics.frames / max(1, audio.samples))
    stats = {
        name: {"codes_used": layer.codes_used, "perplexity": round(layer.perplexity, 2),
               "changes_per_s": round(layer.change_rate, 3)}
        for name, layer in layers.items()
    }  # fmt: skip
    stats[CODES_SHA256] = digest
    return End(statistics.frames, round(audio.seconds, 6), audio.sha256, stats)


class Collector:
    """Gathers the evaluations of a batch, and says and writes what they are together.

    An OutputError if the one metrics file of several inputs may not be written.
    """

    def __init__(self, settings: Settings, outputs: Outputs, inputs: Container[str]) -> None:
        self._settings, self._path = settings, outputs.metrics
        self._found: dict[str, Evaluation] = {}
        check_paths([self._path] if self._path else [], inputs, outputs)

    def add(self, found: Mapping[str, Evaluation]) -> None:
        """Take what inputs gave, by the names of their outputs."""
        self._found.update(found)

    def take(self) -> dict[str, Evaluation]:
        """Hand over what was gathered; a worker does after each input."""
        found, self._found = self._found, {}
        return found

    def finish(self) -> None:
        """Say and write it."""
        if self._found and self._settings.evaluate:
            lines = summary_lines({name: e.metrics for name, e in self._found.items()})
            sys.stderr.write("".join(f"{line}\n" for line in lines))
        if self._path:
            with whole_file(self._path) as file:
                file.write(metrics_json(summary_fields(self._found)))


class Entry(NamedTuple):
    """A line of the manifest: what became of one input."""

    input: str  # path as it was given
    sha256: str | None  # of the file's bytes; None where it could not be read
    status: str  # ok or failed; skipped is not written
    reason: str  # why it failed, or what is doubtful
    outputs: Sequence[str]  # names within the folder
    duration: float  # seconds of sound
    seconds: float  # it took
    formats: Sequence[str]
    codebook_id: str
    settings: str  # Runner.digest
    sizes: Sequence[int] = ()  # bytes of the outputs


class Task(NamedTuple):
    """One input of a batch, the name its outputs begin with, and what the manifest says of it.

    The outputs that `known` lists may be replaced, whatever its status.
    """

    source: str
    stem: str
    known: Entry | None = None


def state_of(path: str) -> tuple[int, int] | None:
    """What changes with a regular file: its size in bytes and time of change in ns."""
    with contextlib.suppress(OSError, ValueError):
        status = os.stat(path)
        if path != "-" and stat.S_ISREG(status.st_mode):
            return status.st_size, status.st_mtime_ns
    return None


def content_of(path: str) -> str | None:
    """SHA-256 of a regular file's bytes; None for all else, which open_audio() refuses."""
    digest = hashlib.sha256()
    with contextlib.suppress(OSError):
        if state_of(path):
            with open(path, "rb", buffering=0) as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            return digest.hexdigest()
    return None


def failed_entry(entry: Entry, error: BaseException | str) -> Entry:
    """An entry that says what went wrong, without the input's name before it."""
    text = "not enough memory" if isinstance(error, MemoryError) else str(error)
    # visible() drops line breaks, which would glue the words of several failures together.
    text = text.replace("\n", "; ")
    text = visible(text.removeprefix(names_of(entry.input)[1] + ": "), 1000)
    return entry._replace(status="failed", reason=text)


def parse_entry(line: bytes) -> Entry | None:
    """An entry from its line; None for a line that a killed run left unfinished."""
    try:
        fields = {**Entry._field_defaults, **json.loads(line)}
        entry = Entry(**{name: fields[name] for name in Entry._fields})
        named = all(isinstance(text, str) for text in (entry.input, entry.settings, *entry.outputs))
        sized = all(isinstance(size, int) for size in entry.sizes)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return entry if named and sized else None


class Manifest:
    """DIR/manifest.ndjson: a line a file, to which any number of runs may append at once.

    A journal beside it has the names that a batch is about to write and no line tells of yet: what
    a killed run leaves is known by it from the files of others.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._read = path, 0
        self._inputs: dict[str, set[str]] = {}  # names that lines about it list
        self._done: dict[tuple[str, str], Entry] = {}  # last line by input and settings
        self._writers: dict[str, Entry] = {}  # the line that listed a name last
        self._claims: set[str] = set()  # of other runs
        self._left: set[str] = set()  # those of them whose run is dead
        self._journal = path.with_name(own_prefix() + ".claims")

    def inputs(self) -> KeysView[str]:
        """All inputs that there are lines about so far, those of other runs included."""
        with writing(self.path), contextlib.suppress(FileNotFoundError):
            with open(self.path, "rb") as file:
                # Only what is new: this is asked before every input, and a batch may have a
                # million. A last line without its end is being written by another run, or was cut;
                # it is not passed over yet.
                file.seek(self._read)
                lines, newline, _ = file.read().rpartition(b"\n")
            self._read += len(lines + newline)
            for entry in filter(None, map(parse_entry, lines.split(b"\n"))):
                self._take(entry)
        return self._inputs.keys()

    def _take(self, entry: Entry) -> None:
        """Learn from a line; what failed leaves in place what was done before."""
        names = self._inputs.setdefault(entry.input, set())
        if entry.status == "ok":
            names.update(entry.outputs)
            self._unclaim(entry.outputs)
            self._done[entry.input, entry.settings] = entry
            self._writers.update(dict.fromkeys(entry.outputs, entry))

    def _unclaim(self, names: Iterable[str]) -> None:
        """Forget claims that a line has made good."""
        for claims in (self._claims, self._left):
            claims.difference_update(names)

    def owner(self, name: str) -> str:
        """The input that an output is of; empty if no line tells."""
        self.inputs()
        return self._writers[name].input if name in self._writers else ""

    def known(self, source: str, planned: Iterable[str], now: Entry) -> Entry | None:
        """What is known of an input under the settings of `now`, and which names are its own.

        Another run's settings, or a run that was killed, may have written over what a line tells
        of: then the status is not ok.
        """
        self.inputs()
        entry = self._done.get((source, now.settings))
        if entry and not self._claims.intersection(entry.outputs):
            if all(self._writers[name] is entry for name in entry.outputs):
                return entry
        listed = {n for n in self._inputs.get(source, ()) if self._writers[n].input == source}
        own = listed | self._claims.intersection(planned)
        return now._replace(status="unfinished", outputs=tuple(sorted(own))) if own else None

    def made(self, source: str) -> bool:
        """Whether a file is there that a line of a source tells of."""
        return any(os.path.lexists(self.path.with_name(n)) for n in self._inputs.get(source, ()))

    def contents(self, source: str) -> set[str | None]:
        """Hashes of what lines tell that a source held, and that has outputs."""
        return {self._writers[name].sha256 for name in self._inputs[source]} - {None}

    def append(self, entry: Entry) -> None:
        """Write a line and see it onto the disk; where that fails, the next line is still whole."""
        line = json.dumps(entry._asdict(), separators=(",", ":")).encode() + b"\n"
        # O_APPEND: the system finds the end for each writer. Read as well, for the last byte there
        # is. O_BINARY keeps Windows from turning the line's end into two bytes.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        fcntl, _ = load_package("fcntl")
        with writing(self.path), open(os.open(self.path, flags, 0o666), "r+b", 0) as file:
            with contextlib.suppress(OSError):  # some network folders have no locks
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_EX)
            # A killed run may have left half a line; on a new one, this line is still whole.
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            # On a full disk an unbuffered write may stop short, and says so by its count alone.
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            # Outputs are synced when they get their names; what tells of them is to be as durable.
            os.fsync(file.fileno())

    def claim(self, names: Collection[str]) -> None:
        """Put names into the journal before they are written: ~ what a line lists, + what none."""
        # Without it (a full disk) a killed run's files are taken for those of others: no loss.
        with contextlib.suppress(OSError, OutputError):
            self.inputs()
            self._journal.parent.mkdir(parents=True, exist_ok=True)
            self._note("".join(f"{'~' if n in self._writers else '+'}{n}\n" for n in names))

    def release(self, names: Collection[str]) -> None:
        """Say in the journal that a line tells of these names now, or that nothing became of it."""
        self._unclaim(names)
        with contextlib.suppress(OSError):
            self._note("".join(f"-{name}\n" for name in names))

    def _note(self, text: str) -> None:
        with open(self._journal, "a", encoding="utf-8") as file:
            file.write(text)

    def take_claims(self) -> None:
        """Learn what other runs are about to write, or were when they were killed."""
        self.inputs()
        for path in self._journal.parent.glob(".tims-ears-*.claims"):
            with contextlib.suppress(OSError, ValueError):
                lines = path.read_text(encoding="utf-8").splitlines()
                signs = {line[1:]: line[:1] for line in lines}
                # A line that tells of a new name came after the claim.
                stale = {name for name, sign in signs.items() if sign == "+"} & self._writers.keys()
                found = {name for name, sign in signs.items() if sign != "-"} - stale
                self._claims |= found
                place, pid = path.name.split(".")[1].split("-")[2:]
                if place != this_place() or not is_running(int(pid)):
                    self._left |= found
                    self.claim(found)  # for the next run, should this one be killed as well
                    path.unlink()

    def close(self, names: Iterable[str]) -> None:
        """Remove the journal if none of these names is a file's, and no claim is left over."""
        if not self._left and not any(os.path.lexists(self.path.with_name(n)) for n in names):
            with contextlib.suppress(OSError):
                self._journal.unlink()


HEARD_AS_BYTES = "no known sound format: its bytes were read as PCM"
TWICE = "--adapt and --codebook-init audio hear a sound twice: name a file"


class Done(NamedTuple):
    """What was written of one input, and how long that took in seconds."""

    header: Header
    end: End
    paths: tuple[Path, ...]
    seconds: float


def said_paths(paths: Collection[Path]) -> str:
    """Where everything went, in words for the end of a line; nothing for stdout alone."""
    folders = {str(path.parent) for path in paths}
    if len(paths) > 3 and len(folders) == 1:
        return f": {len(paths)} files in {visible(folders.pop(), LONGEST_PATH)}"
    return ": " * bool(paths) + ", ".join(visible(str(path), LONGEST_PATH) for path in paths)


def sizes_of(folder: Path | None, names: Iterable[str]) -> list[int]:
    """Sizes in bytes of files in a folder; -1 of what is none."""
    paths = [(folder or Path()) / name for name in names]
    return [path.stat().st_size if path.is_file() else -1 for path in paths]


class Runner:
    """Runs inputs through one tokenizer, opened when the first needs it.

    `inputs` are real paths that nothing may be written to. A collector takes each input's
    evaluation; without one none is gathered for it.
    """

    def __init__(
        self,
        settings: Settings,
        outputs: Outputs,
        *,
        inputs: Container[str] = frozenset(),
        collector: Collector | None = None,
    ) -> None:
        self.settings, self.outputs, self.inputs = settings, outputs, inputs
        self.collector = collector
        self._tokenizer: Tokenizer | None = None
        self._manifest = Manifest(outputs.folder / MANIFEST) if outputs.folder else None

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, loaded or fitted at first use."""
        if self._tokenizer is None:
            self._tokenizer = Tokenizer(self.settings)
        return self._tokenizer

    def run(self, source: str) -> ExitStatus:
        """Tokenize a single source; a live one until Ctrl-C or SIGTERM, and all is whole."""
        status, signals = ExitStatus.OK, (signal.SIGINT, signal.SIGTERM)
        LIVE_ENDS.clear()
        if self.settings.live:
            files = self.outputs.folder or self.outputs.path or self.outputs.metrics
            until = f"; until then files grow beside their names, as {own_prefix()}-*.part"
            LOG.info("listening until the sound ends or Ctrl-C%s", until if files else "")
        with answering(end_live, *(signals if self.settings.live else ())):
            try:
                done = self.run_one(source, output_stem(source))
                words = done.end.duration, done.seconds, said_paths(done.paths)
                LOG.info("%s: %.1f s in %.2f s%s", names_of(source)[1], *words)
            except (AudioError, OutputError) as error:
                LOG.error("%s", error)
                status = ExitStatus.INPUT_FAILED
        return ExitStatus.INTERRUPTED if self.settings.live and LIVE_ENDS.is_set() else status

    def run_one(self, source: str, stem: str, *, own: Iterable[str] = ()) -> Done:
        """Tokenize one source into all outputs, of which `own` may replace files of their name.

        An AudioError if it cannot be heard, an OutputError if an output cannot be written (a
        picture's comes when all else is), a MissingError if an ear or decoder is not here.
        """
        started = time.perf_counter()
        outputs = replace(self.outputs, own=frozenset(own))
        rival = functools.partial(self._rival, source)
        # Refusals that need no sound come first: before the ear is loaded and anything is heard.
        paths = output_paths(outputs, stem, self.inputs, owner=rival)
        live = is_piped(source)
        with self._fitted(source) as (audio, tokenizer):
            header, trained = make_header(audio.source, tokenizer), tokenizer.trained
            facts = {"gloss": gloss_table(trained), "ear": tokenizer.ears.listen(live=live)}
            job = Job(header, tokenizer.settings, trained, started=started, **facts)
            if self.collector:
                job.begin_evaluation()
            if "viz_spectrograms" in paths.values():
                job.keep_spectrogram()
            drawn = [(PICTURES[f], p) for p, f in paths.items() if f in PICTURES]
            pictures = [PictureSink(n, p, job, force=outputs.may_replace(p)) for n, p in drawn]
            with open_sinks(paths, outputs, job, live=live) as sinks:
                # Who speaks into a pipe waits for the lines; of a file, larger blocks are quicker.
                blocks = audio if live else rechunk(audio, FILE_BLOCK)
                written = [*sinks, *pictures]
                end = make_end(audio, *pump(blocks, tokenizer, written, job=job))
                job.seconds = end.duration
                if self.settings.live and any(isinstance(sink, ViewSink) for sink in written):
                    LOG.info("ended after %.1f s; writing pages and pictures ...", end.duration)
                for sink in sinks:
                    sink.finish(end)
                if self.collector:
                    self.collector.add({stem: job.evaluation})
        draw_pictures(pictures, end)
        return Done(header, end, tuple(paths), time.perf_counter() - started)

    def _rival(self, source: str, name: str) -> str:
        """Another source that a file in the folder is of, by the manifest; empty if none is."""
        whose = self._manifest.owner(name) if self._manifest else ""
        return whose if os.path.realpath(whose) != os.path.realpath(source) else ""

    @contextlib.contextmanager
    def _fitted(self, source: str) -> Iterator[tuple[Audio, Tokenizer]]:
        """Open a source, with codebooks fitted on it first where that was asked for."""
        # The tokenizer is opened after a live source, which is not to wait for it. Fitting hears
        # the sound before, and no pipe gives it twice.
        tokenizer = None
        if self.settings.adapt or self.settings.codebook_init == "audio":
            if is_piped(source):
                raise AudioError(TWICE)
            with open_audio(source, self.settings) as audio:
                tokenizer = fit_to_sound(self.tokenizer, audio)
        with open_audio(source, self.settings) as audio:
            yield audio, tokenizer or self.tokenizer

    @functools.cached_property
    def digest(self) -> str:
        """Short hash of all that decides what is written of a sound."""
        # What changes no byte of an output must not make --resume hear everything again. Which ear
        # stood in for another is told by codebook_id.
        still = dict.fromkeys(("quiet", "use_cache", "force_reinit", "fallback", "offline"), False)
        settings = replace(self.tokenizer.settings, cache_dir=None, threads=0, **still)
        kinds = self.outputs.formats, self.outputs.viz_format
        facts = VERSION, FORMAT_VERSION, self.tokenizer.codebook_id, kinds, settings
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def entry(self, source: str, sha256: str | None = None) -> Entry:
        """A line of the manifest about a source, before anything is done."""
        facts = self.outputs.formats, self.tokenizer.codebook_id, self.digest
        return Entry(source, sha256, "ok", "", (), 0.0, 0.0, *facts)

    def attempt(self, task: Task) -> Entry:
        """Tokenize one input of a batch if that is not done; failing costs this input only."""
        source, started, state = task.source, time.perf_counter(), state_of(task.source)
        # Outside the try: this opens the tokenizer, and an ear that cannot be had ends the run at
        # once instead of failing every file alike.
        entry = self.entry(source, content_of(source))
        if task.known and self._is_done(task.known, entry):
            return task.known._replace(status="skipped", input=source)
        try:
            done = self.run_one(source, task.stem, own=self._own(task.known))
        # An OSError too, but of stdout's reader: the run is over, the input is not to blame.
        except BrokenPipeError:
            raise
        except (TokenizerError, OSError, MemoryError) as error:
            entry = failed_entry(entry, error)
        else:
            names = tuple(path.name for path in done.paths if path.parent == self.outputs.folder)
            entry = entry._replace(
                outputs=names,
                sizes=tuple(sizes_of(self.outputs.folder, names)),
                duration=done.end.duration,
                codebook_id=done.header.codebook_id,
            )
            if done.header.source.kind == "raw" and not self.settings.raw:
                entry = entry._replace(reason=HEARD_AS_BYTES)
            # Its hash may be of other bytes than were heard, and --resume would trust it for ever.
            if state_of(source) != state:
                entry = failed_entry(entry, "it changed while it was read")
        return entry._replace(seconds=round(time.perf_counter() - started, 3))

    def _is_done(self, known: Entry, now: Entry) -> bool:
        """Whether an earlier line tells of this content and these settings, and files are there."""
        facts = known.sha256, known.status, known.settings
        if now.sha256 is None or facts != (now.sha256, "ok", now.settings):
            return False
        found = sizes_of(self.outputs.folder, known.outputs)
        return -1 not in found and found == list(known.sizes or found)  # older lines have no sizes

    def _own(self, known: Entry | None) -> Iterator[str]:
        """Names that may be replaced: those the manifest lists, and sounds beside a page."""
        for name in known.outputs if known else ():
            yield name
            if name.endswith(ReportSink.suffix):
                yield from (name[:-5] + end for end in BESIDE)


# -- batches: many inputs, and a manifest of what became of each --


# What this program writes into its output folder, which may lie among the sounds.
OUTPUT_ENDS = (MANIFEST, *BESIDE, *(sink.suffix for sink in SINKS.values()))
OUTPUT_NAME = re.compile(rf"({'|'.join(map(re.escape, OUTPUT_ENDS))}|_viz_[a-z]+\.\w+)$")


def sounds_in(folder: str, outputs: Outputs, *, every: bool = False) -> list[str]:
    """Paths of the files under a folder that are called like sounds, by the bytes of their names.

    With `every`, whatever they are called, but hidden ones. Links to files are taken; links to
    folders are not followed, as they may lead in circles. What this program writes into its output
    folder is left out. A folder that cannot be read stands for itself, so that it is reported like
    a file that cannot.
    """

    def wanted(name: str) -> bool:
        """Whether a file (of all, a folder too) is to be heard."""
        if every:
            return not name.startswith(".")
        return Path(name).suffix.lower() in AUDIO_EXTENSIONS

    found: list[str] = []
    made = outputs.folder and os.path.realpath(outputs.folder)
    for here, inner, names in os.walk(folder, onerror=lambda error: found.append(error.filename)):
        inner[:] = filter(wanted, inner) if every else inner
        own = os.path.realpath(here) == made
        sounds = (name for name in names if wanted(name) and not (own and OUTPUT_NAME.search(name)))
        found += (os.path.join(here, name) for name in sounds)
    # The file system's order is another one elsewhere, and shards on several machines must cut the
    # same list. By bytes, as names need not be text.
    return sorted(found, key=os.fsencode)


def list_sounds(
    names: Iterable[str], outputs: Outputs, *, recursive: bool, every: bool = False
) -> list[str]:
    """Named files in their order, with `recursive` the sounds in named folders; each once.

    With `every`, all files in them (--raw reads anything). An AudioError if there is none.
    """
    found: dict[str, None] = {}
    for name in names:
        folder = recursive and name != "-" and os.path.isdir(name)
        sounds = sounds_in(name, outputs, every=every) if folder else [name]
        if not sounds:
            ends = " ".join(AUDIO_EXTENSIONS)
            warn(f"{visible(name)}: no file in it is called like a sound ({ends})")
        # ./a.wav and a.wav are one file; but ./- is a file of that name, where - would be stdin.
        # Nor is an empty name this folder's, or an address a path with a slash too many.
        for sound in sounds:
            path = Path(sound).as_posix()
            found[sound if path == "-" or not sound or "://" in sound else path] = None
    if not found:
        raise AudioError("no sound file was found")
    return list(found)


def interrupt(*_: Any) -> NoReturn:
    """Answer SIGTERM as Ctrl-C, once."""
    # Schedulers of jobs, and Crew, stop a process by SIGTERM, at which Python would die where it is
    # and leave half-written files; as an exception it passes all that cleans up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # let the first have its way
    raise KeyboardInterrupt


def work(pipe: Any, runner: Runner) -> None:
    """Life of a worker: take a task, send back what became of it and what was said, and again."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells all; the parent decides
    LOG.setLevel(logging.WARNING if runner.settings.quiet else logging.INFO)
    # The parent has died, and with it the pipe, or has sent SIGTERM: nothing is left to be done.
    ended = contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt)
    with ended, answering(interrupt, signal.SIGTERM):
        while True:
            task = pipe.recv()
            # Held back and told by the parent in the order of the files, so that what a run says
            # does not hang on the number of workers.
            out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in "12")
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                logging.basicConfig(format="%(message)s", stream=err, force=True)
                entry = runner.attempt(task)
            found = runner.collector.take() if runner.collector else {}
            pipe.send((entry, out.buffer.getvalue(), err.buffer.getvalue(), found))


class Crew:
    """Worker processes that hear a file each at a time; a killed one costs at most its file.

    The runner's tokenizer is sent to each, so none loads or fits it again. There are `size` at
    most; they start as there is work.
    """

    # Files a worker that may be done before the slowest one's turn: what is done early waits in
    # memory, since results are told in order.
    AHEAD = 4
    PATIENCE = 10.0  # seconds that a worker may take to end

    def __init__(self, runner: Runner, size: int) -> None:
        self._runner, self._size, self._given = runner, size, 0
        self._processes: dict[Any, Any] = {}  # pipe -> process
        self._idle: list[Any] = []  # pipes
        self._busy: dict[Any, tuple[int, Task, int]] = {}  # pipe -> number, task, tries
        self._ready: dict[int, tuple[Any, ...]] = {}  # number -> reply whose turn has not come

    def early(self) -> list[Entry]:
        """What is done though its turn has not come, but of what stdout has yet to be given."""
        return [entry for _, (entry, out, *_) in sorted(self._ready.items()) if not out]

    def entries(self, tasks: Iterable[Task]) -> Iterator[Entry]:
        """What became of each task, in the order of the tasks, with all that was said of it."""
        waiting = enumerate(tasks)
        try:
            for turn in itertools.count():
                while turn not in self._ready:
                    ahead = turn + self.AHEAD * self._size - self._given
                    # No more is given out than there are workers, so a killed one loses one.
                    room = max(0, min(self._size - len(self._busy), ahead))
                    for index, task in itertools.islice(waiting, room):
                        self._assign(index, task, tries=1)
                    if not self._busy:
                        return
                    self._ready.update(self._collect())
                yield self._say(*self._ready.pop(turn))
        finally:
            # All at once first, then wait: SIGTERM lets each remove its unfinished files.
            for process in self._processes.values():
                process.terminate()
            for pipe, process in self._processes.items():
                # One that lost the signal, as in a library's callback, ends where its pipe does.
                pipe.close()
                process.join(self.PATIENCE)
                if process.is_alive():
                    process.kill()
                    process.join()

    def _assign(self, index: int, task: Task, *, tries: int) -> None:
        """Give a task to an idle worker, or a new one."""
        self._given = max(self._given, index + 1)
        if not self._idle:
            # Loaded here because every start of the program would pay for it; and a fork would copy
            # threads' locks.
            context = importlib.import_module("multiprocessing").get_context("spawn")
            pipe, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, self._runner), daemon=True)
            process.start()
            theirs.close()  # or the pipe would outlive the worker
            self._processes[pipe] = process
            self._idle.append(pipe)
        pipe = self._idle.pop()
        self._busy[pipe] = index, task, tries
        with contextlib.suppress(OSError):  # one that has died is seen when it should answer
            pipe.send(task)

    def _collect(self) -> dict[int, tuple[Any, ...]]:
        """Replies that have come, by number; a task whose worker died is tried once more."""
        found = {}
        wait = importlib.import_module("multiprocessing.connection").wait
        for pipe in wait(list(self._busy)):
            index, task, tries = self._busy.pop(pipe)
            try:
                found[index] = pipe.recv()
                self._idle.append(pipe)
                continue
            except (EOFError, OSError):
                process = self._processes.pop(pipe)
                process.join()
            # A worker that was killed could not remove its unfinished files.
            if self._runner.outputs.folder:
                sweep(self._runner.outputs.folder)
            # At first others may be to blame, as when all together took too much memory.
            if tries == 1:
                self._assign(index, task, tries=2)
            else:
                reason = f"its worker ended twice (status {process.exitcode}; -9 is often want of"
                reason += " memory: fewer --workers may help)"
                found[index] = failed_entry(self._runner.entry(task.source), reason), b"", b"", {}
        return found

    def _say(self, entry: Entry, out: bytes, err: bytes, found: dict[str, Evaluation]) -> Entry:
        """Pass on what a worker wrote to its stdout and stderr, and what it measured."""
        if self._runner.collector:
            self._runner.collector.add(found)
        for line in err.decode().splitlines():
            LOG.warning("%s", line)
        try:
            with stdout_file(live=False) if out else io.BytesIO() as file:
                file.write(out)
        except OutputError as error:
            return failed_entry(entry, error)
        return entry


class Plan(NamedTuple):
    """How to go through a batch; shard (I, N) is the Ith of N parts, from 1."""

    resume: bool = False
    workers: int = 1
    shard: tuple[int, int] = (1, 1)


FAILED_NAMED = 10  # files that are named once more when a batch has ended, at most


class Batch:
    """Many inputs through one runner, with a manifest where there is a folder.

    A shard is every Nth file of the list, so shards are of one size; all must be given the same
    list. Runs into one folder at once never mix their files: without force or resume the first to
    finish a file keeps it and the other is told that it exists; resuming runs skip what any has
    done, and what two of them hear at the same time they write twice, whole, with the same bytes.
    An OutputError if the one metrics file may not be written.
    """

    def __init__(
        self, settings: Settings, outputs: Outputs, *, sources: Sequence[str], plan: Plan
    ) -> None:
        # Of all sources, not of this shard's alone: no output may hit what another shard hears.
        inputs, evaluates = real_paths(sources), settings.evaluate or outputs.metrics
        self._collector = Collector(settings, outputs, inputs) if evaluates else None
        alone = replace(outputs, metrics=None)  # one file for all
        self.runner = Runner(settings, alone, inputs=inputs, collector=self._collector)
        # Names are given over the whole list, so that shards call their outputs as one run would.
        self.sources, self._all = sources[plan.shard[0] - 1 :: plan.shard[1]], sources
        self.plan = plan
        self._manifest = Manifest(outputs.folder / MANIFEST) if outputs.folder else None
        self._counts: collections.Counter[str] = collections.Counter()
        self._failed: list[str] = []
        self._doubtful: list[str] = []  # heard, but as raw bytes
        self._planned: dict[str, tuple[str, ...]] = {}  # of tasks that are under way
        self._former: dict[str, str] = {}
        self._sound, self._started = 0.0, time.monotonic()
        if plan.resume and self._manifest and outputs.folder:
            self._manifest.take_claims()
            sweep(outputs.folder)

    def tasks(self) -> Iterator[Task]:
        """What is to be done, each with what the manifest says when its turn has come."""
        manifest = self._manifest if self.plan.resume else None
        self._former = self._former_names(manifest) if manifest else {}
        names = {source: self._former.get(source, source) for source in self._all}
        # An input that only the manifest knows keeps its name: else one of the same stem would be
        # written over its outputs.
        listed = manifest.inputs() if manifest else ()
        stems = output_stems(dict.fromkeys((*names.values(), *listed)))
        for source in self.sources:
            name, stem = names[source], stems[names[source]]
            planned = output_names(self.runner.outputs, stem)
            known = None
            if manifest:
                known = self._known(manifest, name, planned)
            elif self._manifest:
                self._plan(source, planned)
            # What is done already stays so, if the run is killed before its turn has come.
            if known and known.status != "ok":
                known = known._replace(outputs=self._plan(source, planned, known.outputs))
            yield Task(source, stem, known)

    def _known(self, manifest: Manifest, name: str, planned: Iterable[str]) -> Entry:
        """What the manifest says of an input, or an entry that is not done and has no outputs."""
        # Read anew each time, as another run may have done this input meanwhile.
        now = self.runner.entry(name)
        known = manifest.known(name, planned, now)
        own = known.outputs if known else ()
        if any(n not in own and os.path.lexists(manifest.path.with_name(n)) for n in planned):
            manifest.take_claims()  # another run may be about to write its line
            known = manifest.known(name, planned, now)
        return known or now._replace(status="unfinished")

    def _plan(
        self, source: str, planned: Iterable[str], own: Container[str] = ()
    ) -> tuple[str, ...]:
        """Claim and return names that are free or its own; what others have is refused later."""
        outputs, folder = self.runner.outputs, self._manifest.path.parent
        free = (n for n in planned if n in own or not os.path.lexists(folder / n))
        self._planned[source] = tuple(planned if outputs.force else free)
        self._manifest.claim(self._planned[source])
        return self._planned[source]

    def _former_names(self, manifest: Manifest) -> dict[str, str]:
        """Source -> what the manifest calls the same file, where it was named otherwise then.

        The same is what lies in one place, or what has name and content of a file that is not
        where the manifest says: it was moved, or paths begin elsewhere now.
        """
        given, found = dict.fromkeys(self._all), {}
        places: dict[str, str] = {}
        moved: dict[str, dict[str, str]] = {}  # file name -> content -> input
        for name in manifest.inputs() - given.keys():
            if os.path.lexists(name):
                places[os.path.realpath(name)] = name
            else:
                contents = dict.fromkeys(manifest.contents(name), name)
                moved.setdefault(os.path.basename(name), {}).update(contents)
        for source in given if places or moved else ():
            same = moved.get(os.path.basename(source))
            if source not in manifest.inputs():
                name = places.pop(os.path.realpath(source), None)
                name = name or (same and same.pop(content_of(source), None))
                found.update({source: name} if name else {})
        return found

    def run(self) -> ExitStatus:
        """Tokenize every input; one that fails is named, and costs itself only."""
        # First of all: it opens the tokenizer, which workers are to be given and not to load each.
        size, total = self._workers(), len(self.sources)
        self._point_to_resume()
        with Progress("batch", total, self.runner.settings) as progress:
            crew, tasks = Crew(self.runner, size), self.tasks()
            attempts = (self.runner.attempt(task) for task in tasks)
            entries = crew.entries(tasks) if size > 1 else attempts
            try:
                for entry in entries:
                    self.record(entry)
                    progress.tick(1, self._note())
            except KeyboardInterrupt:
                for entry in crew.early() if self._manifest else ():
                    self.record(entry)
                done = self._counts["ok"] + self._counts["skipped"]
                way = "; --resume goes on" if self._manifest else ""
                LOG.error("interrupted: %d of %d files are done%s", done, total, way)
                return ExitStatus.INTERRUPTED
            finally:
                entries.close()  # lets the workers go
                if self._manifest:
                    self._manifest.close(itertools.chain(*self._planned.values()))
        if self._collector:
            self._collector.finish()
        self._sum_up()
        return self.status

    def _point_to_resume(self) -> None:
        """Say that most has been done before, where nobody asked to go on from there."""
        if self.plan.resume or not self._manifest:
            return
        with contextlib.suppress(OutputError):  # of what cannot be read; each input tells of it
            self._manifest.inputs()
        made, total = sum(map(self._manifest.made, self.sources)), len(self.sources)
        if 2 * made > total:
            fate = "written anew" if self.runner.outputs.force else "refused"
            words = "%d of %d inputs have outputs in %s and are %s; --resume skips what is done"
            LOG.info(words, made, total, self._manifest.path.parent, fate)

    def _sum_up(self) -> None:
        """Say what became of how many, which failed, and where more is to be read."""
        counts = (self._counts[status] for status in ("ok", "failed", "skipped"))
        where = f"; see {self._manifest.path}" if self._manifest else ""
        LOG.info("%s; %d ok, %d failed, %d skipped%s", self._note(), *counts, where)
        if self._doubtful:
            words = "of no known sound format, heard as raw bytes: %d, the first is %s"
            LOG.warning(words, len(self._doubtful), visible(self._doubtful[0], 1000))
        for name in self._failed[:FAILED_NAMED]:
            LOG.info("failed: %s", names_of(name)[1])
        if len(self._failed) > FAILED_NAMED:
            LOG.info("failed: %d more", len(self._failed) - FAILED_NAMED)

    @property
    def status(self) -> ExitStatus:
        """Exit status so far."""
        return ExitStatus.INPUT_FAILED if self._counts["failed"] else ExitStatus.OK

    def record(self, entry: Entry) -> None:
        """Put what became of an input into the manifest, and say what failed."""
        if self._manifest and entry.status != "skipped":
            try:
                # Under the name that it has there, so that its outputs keep theirs.
                name = self._former.get(entry.input, entry.input)
                self._manifest.append(entry._replace(input=name))
            except OutputError as error:
                entry = entry if entry.status == "failed" else failed_entry(entry, error)
        if self._manifest:
            self._manifest.release(self._planned.pop(entry.input, ()))
        self._counts[entry.status] += 1
        if self._manifest and sum(self._counts.values()) == len(self.sources):
            self._manifest.close(())  # here, as others than run() may record
        self._failed += [entry.input] * (entry.status == "failed")
        self._doubtful += [entry.input] * (entry.status == "ok" and entry.reason == HEARD_AS_BYTES)
        self._sound += entry.duration if entry.status == "ok" else 0.0
        if entry.status == "failed":
            LOG.error("%s: %s", names_of(entry.input)[1], entry.reason)

    def _workers(self) -> int:
        """How many processes are to hear; opens the tokenizer, which they are given."""
        reason = "a pipe is heard by one process" if any(map(is_piped, self.sources)) else ""
        if not isinstance(self.runner.tokenizer.ears, SpectralEars):
            reason = "a neural ear has its device to itself"
        if reason and self.plan.workers > 1:
            warn(f"--workers is 1: {reason}")
        return 1 if reason else min(self.plan.workers, len(self.sources))

    def _note(self) -> str:
        """How far it is: files, hours of sound, speed, and time left."""
        elapsed = max(1e-3, time.monotonic() - self._started)
        ended, total = sum(self._counts.values()), len(self.sources)
        words = f"{ended}/{total} files"
        if self._sound:
            hours, speed = self._sound / 3600, self._sound / elapsed
            words += f", {hours:.2f} h of sound, {speed:.0f} x real time"
        # Skipping takes no time; counted in, it would promise an end that does not come.
        heard = ended - self._counts["skipped"]
        left = (total - ended) * elapsed / max(1, heard) / 60
        return words + (f", {left:.0f} min left" if left and heard else "")


def rebuild(codes: np.ndarray, trained: Trained, settings: Settings, *, samples: int) -> np.ndarray:
    """Approximate sound [samples], full scale +-1, of the acoustic ones of codes [T, 8]."""
    maker = Reconstructor(settings.sample_rate, settings.hop_length)
    features = trained.acoustic.decode(codes[:, NUM_QUANTIZERS:])
    return np.concatenate([maker.push(features), maker.flush(samples)])


@dataclass(frozen=True, eq=False)
class Hearing:
    """A sound that was heard: its codes, and what can be said of it; see hear().

    Attributes
    ----------
    codes : Codes
        Of the whole sound.
    view : View
        What pages are made from: the stretch that was asked for.
    settings : Settings
        Of the tokenizer.
    header, end : Header, End
        First and last line of the token stream; see lines().
    """

    codes: Codes
    view: View
    settings: Settings
    header: Header
    end: End

    def __repr__(self) -> str:
        return f"Hearing({self.view.title!r}, {self.codes!r})"

    @property
    def observations(self) -> tuple[Observation, ...]:
        """Stated facts, the most telling first.

        Each has a `kind` (tempo, key, hits, loudness ... see FACTS), the `time` it begins at
        and its `duration` in seconds, a `value`, a `confidence` of 0 to 1, and the whole `text`.
        A kind may come several times, or never. Times count from the start of the stretch.
        """
        with ONE_BLAS_THREAD:
            found = observe(self.view)
        # Plain numbers, as NumPy 2 prints its own otherwise.
        return tuple(
            Observation(*(x.item() if isinstance(x, np.generic) else x for x in fact))
            for fact in found
        )

    def page(self, max_llm_tokens: int = DEFAULTS.max_llm_tokens, **more: Any) -> str:
        """Text for an LLM that costs it `max_llm_tokens` at most; see --format stream.

        `more` may hold other fields of Settings: prompt, observations. A UsageError for less than
        60 (LEAST_BUDGET), in which no page says anything.
        """
        settings = replace(self.settings, max_llm_tokens=max_llm_tokens, **more)
        with ONE_BLAS_THREAD:
            return view_text(self.view, settings)

    def lines(self) -> Iterator[str]:
        """The token stream, line by line, as --format ndjson writes it and --decode reads it."""
        gloss = gloss_table(self.view.trained) if self.settings.legend else None
        events = Encoder(self.header, gloss).events(self.codes.array)
        events = itertools.chain([self.header], events, [self.end])
        return event_lines(events, self.codes.frame_rate)

    def rebuilt(self) -> np.ndarray:
        """Approximate sound of the acoustic codes, float [n] at `settings.sample_rate`."""
        samples = round(self.end.duration * self.settings.sample_rate)
        with ONE_BLAS_THREAD:
            return rebuild(self.codes.array, self.view.trained, self.settings, samples=samples)


def hear(
    source: Sound,
    tokenizer: Tokenizer,
    *,
    sample_rate: int | None = None,
    start: float | None = None,
    stop: float | None = None,
) -> Hearing:
    """Tokenize a sound, and gather what a page about it (or a stretch of it) is made from.

    Parameters
    ----------
    source, sample_rate
        As for open_audio().
    tokenizer : Tokenizer
        May be used for any number of sounds.
    start, stop : float, optional
        Seconds between which the page looks; the Settings' view_from and view_to if not given.

    Raises
    ------
    AudioError
        If it cannot be heard, or there is nothing in that stretch.
    UsageError
        If `stop` does not come after `start`.

    Examples
    --------
    >>> print(hear("song.flac", tokenizer).page(max_llm_tokens=600))        # doctest: +SKIP
    """
    asked = {"view_from": start, "view_to": stop}
    viewed = replace(tokenizer.settings, **{k: v for k, v in asked.items() if v is not None})
    settings, statistics = tokenizer.settings, CodeStatistics(tokenizer.settings.codebook_size)
    with open_audio(source, settings, sample_rate=sample_rate) as audio:
        job, parts = Job(make_header(audio.source, tokenizer), viewed, tokenizer.trained), []
        for tokens in tokenizer.mono_tokens(audio):
            job.add(tokens)
            statistics.add(tokens.codes)
            parts.append(tokens.codes)
    # Codes are of the whole sound, so that their frames count from its beginning; only the page is
    # of the stretch.
    about = settings.frame_rate, audio.seconds, tokenizer.codebook_id, settings.codebook_size
    codes = Codes(np.concatenate(parts), *about)
    job.seconds = audio.seconds
    end = make_end(audio, statistics, hash_codes(codes.array).hexdigest())
    return Hearing(codes, job.view, settings, job.header, end)


def live_lines(
    source: Sound, tokenizer: Tokenizer, *, sample_rate: int | None = None
) -> Iterator[str]:
    """The token stream of a sound as it comes, line by line, as --format ndjson writes it.

    For what has no end yet, or does not fit into memory: a line stands a second or two after its
    sound. `source` and `sample_rate` are as for encode(), a microphone being a generator of arrays.
    An AudioError if it cannot be heard.
    """
    settings, digest = tokenizer.settings, hashlib.sha256()
    statistics = CodeStatistics(settings.codebook_size)
    with open_audio(source, settings, sample_rate=sample_rate) as audio:
        header = make_header(audio.source, tokenizer)
        encoder = Encoder(header, gloss_table(tokenizer.trained) if settings.legend else None)
        yield from event_lines([header], settings.frame_rate)
        for tokens in tokenizer.mono_tokens(audio):
            statistics.add(tokens.codes)
            hash_codes(tokens.codes, digest)
            yield from event_lines(encoder.events(tokens.codes), settings.frame_rate)
        end = make_end(audio, statistics, digest.hexdigest())
        yield from event_lines([end], settings.frame_rate)


def stream_lines(path: str) -> Iterator[str]:
    """Lines of a stream file, or of stdin for "-"; StreamError if it cannot be read as UTF-8."""
    try:
        with contextlib.ExitStack() as stack:
            raw = sys.stdin.buffer if path == "-" else stack.enter_context(open_named(path))
            # Only "\n" ends a line: a name may hold other marks that Python would split at.
            text = io.TextIOWrapper(raw, encoding="utf-8", newline="\n")
            # Bounded: what is no stream may be gigabytes without a line's end.
            while line := text.readline(LONGEST_LINE):
                if len(line) == LONGEST_LINE:
                    raise StreamError(f"a line of over {LONGEST_LINE} characters is no stream's")
                yield line
    except OSError as error:
        raise StreamError(error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise StreamError("it is not UTF-8 text; --decode reads NDJSON token streams") from None


def matching_codebooks(header: Header, settings: Settings) -> Trained:
    """The codebooks that a stream was made with; StreamError if these settings lead to others."""
    # A codebook_id is origin, then a hash of each chain; see name_codebooks().
    origin = header.codebook_id.rsplit("-", 2)[0]
    if origin == "audio" or origin.endswith("+adapted"):
        raise StreamError(
            "its codebooks were fitted to its own sound and not kept; --reconstruct works while"
            " that sound is tokenized"
        )
    # `fallback` says that no ear was asked for: then the stream itself names it.
    known = origin if settings.fallback and origin in EAR_NAMES else settings.codebook_init
    tokenizer = Tokenizer(replace(settings, codebook_init=known, sample_rate=header.sample_rate))
    if tokenizer.codebook_id != header.codebook_id:
        raise StreamError(
            f"its codebooks {header.codebook_id:.60} are not {tokenizer.codebook_id}: give the"
            " --codebook-init, --seed and weights that it was made with"
        )
    return tokenizer.trained


def write_decoded(
    stream: Reread, paths: Mapping[Path, str], trained: Trained | None, outputs: Outputs
) -> None:
    """Put a stream that was read back into sinks; of codebooks, only sound needs any."""
    header = stream.header
    # A stream that had no glosses comes back without, or its bytes would be others.
    shape = {"sample_rate": header.sample_rate, "codebook_size": header.codebook_size}
    settings = Settings(legend=bool(stream.glosses), **shape)
    told = stream.glosses.get
    job = Job(header, settings, trained, gloss=lambda layer, code: told((layer, code), ""))
    job.seconds = stream.end.duration
    with open_sinks(paths, outputs, job) as sinks:
        for sink in sinks:
            sink.begin()
            for at in range(0, len(stream.codes), FILE_BLOCK):
                sink.write(Tokens(stream.codes[at : at + FILE_BLOCK], None, None, None))
            sink.finish(stream.end)


def run_decode(
    path: str, settings: Settings, outputs: Outputs, *, restyle: Mapping[str, Any]
) -> ExitStatus:
    """Read a token stream back; write its codes in other formats, or as sound.

    `restyle` holds header fields (encodings, keyframe_interval) to be written otherwise.
    """
    try:
        stream = decode_stream(stream_lines(path))
        # A small file can stand for days; what is refused as a sound is refused as a stream.
        if stream.end.duration > settings.max_duration:
            limit = f"{settings.max_duration:g} s; --max-duration raises the limit"
            raise StreamError(f"it stands for more than {limit}")
        glosses = stream.glosses if settings.legend else {}
        stream = stream._replace(header=stream.header._replace(**restyle), glosses=glosses)
        if not stream.whole:
            words = f"has no end line: it was cut, {stream.end.frames} frames are read"
            warn(f"{names_of(path)[1]} {words}")
        # Codes alone need no codebooks, and so no ear, which may not even be here.
        sound = "wav" in outputs.formats
        trained = matching_codebooks(stream.header, settings) if sound else None
        paths = output_paths(outputs, output_stem(path))
        write_decoded(stream, paths, trained, outputs)
        if paths:
            LOG.info("%s%s", names_of(path)[1], said_paths(paths))
    except (AudioError, StreamError, OutputError) as error:
        LOG.error("%s: %s", names_of(path)[1], error)
        return ExitStatus.INPUT_FAILED
    return ExitStatus.OK


# The report card. Its own clips are played by the suite's instruments from other dice, at other
# tempi, in scenes that the suite has not: several sounds after and over one another.
# Any number will do, but for ever this one: cards are compared with each other.
CARD_SEED = 20261122
CARD_SECONDS = 30.0  # of a given file that are examined
# Seconds of a slice, of the sound that is heard before it and after it.
# From a tenth of what S0-S3 look over (2 to 4 s) to a half or all of it; the last two ask how much
# of a slice's loss is want of what sounds around it.
SLICES = ((0.2, 0, 0), (0.4, 0, 0), (1, 0, 0), (2, 0, 0), (1, 1, 1), (1, 4, 2))
SLICES_A_CLIP = 3
DRIFT_ROUNDS = (1, 5, 10)
WHISTLE = functools.partial(sustain, timbre=Timbre((3, 5), (0.3,), 0.05, 0.02, breath=0.04))


def tune_of(take: Take, instrument: Instrument, octave: int) -> np.ndarray:
    """Play a melody on an instrument."""
    score = melody(take, compose(take), octave=octave)
    return perform(take, score, instrument=instrument)


# Name -> what sounds: level in dB, start and end as shares of the clip, maker and how it is asked
HELD_OUT: dict[str, tuple[Any, ...]] = {
    "trio": ((0, 0, 1, ensemble, {"parts": "drums bass lead"}),),
    "duo in a cafe": ((0, 0, 1, ensemble, {"parts": "chords lead"}), (-20, 0, 1, babble)),
    "two talk in turn": ((0, 0, 0.42, speech), (-3, 0.48, 1, speech)),
    "whistler by the sea": ((0, 0.1, 1, tune_of, {"instrument": WHISTLE, "octave": 5}),
                            (-12, 0, 1, sea)),
    "bells over strings": ((0, 0, 1, tune_of, {"instrument": struck, "octave": 5}),
                           (-6, 0, 1, tune_of, {"instrument": bowed, "octave": 2})),
    "street": ((-6, 0, 1, motor), (0, 0.3, 0.6, speech), (-8, 0.65, 0.9, alarm)),
    "storm": ((-8, 0, 1, drops, {"a_second": 1500}), (-12, 0, 1, wind),
              (0, 0.4, 0.9, hits, {"table": {"": EVENTS["thunder"]}})),
    "birds": ((-4, 0, 0.8, hits, {"table": {"": EVENTS["up chirp"]}}),
              (-9, 0.3, 1, hits, {"table": {"": EVENTS["down chirp"]}}), (-24, 0, 1, wind)),
    "drums then faster": ((0, 0, 0.5, ensemble, {"parts": "drums"}),
                           (2, 0.5, 1, ensemble, {"parts": "drums"})),
    "radio": ((0, 0, 0.36, ensemble, {"parts": "drums bass chords lead"}),
              (-2, 0.4, 0.68, speech), (0, 0.7, 1, ensemble, {"parts": "bass lead"})),
    "workshop": ((-14, 0, 1, hum), (-10, 0.2, 0.7, motor),
                 (0, 0, 1, hits, {"table": {"": EVENTS["knock"]}})),
    "hymn": ((0, 0, 1, tune_of, {"instrument": sung, "octave": 3}),
             (-8, 0, 1, harmony, {"shapes": CHORDS})),
}  # fmt: skip


def held_out_clips(sample_rate: int) -> Iterator[tuple[str, np.ndarray]]:
    """Name and sound of each clip of the card's own set: float32, 8 to 10 s, always the same."""
    for number, (name, layers) in enumerate(HELD_OUT.items()):
        # RandomState, whose numbers NumPy keeps as they are in all its versions (NEP 19). Each clip
        # and layer has dice of its own, so that changing one leaves the others as they are.
        whole = Take(np.random.RandomState([CARD_SEED, number, 0]), sample_rate, 1.0)
        whole = whole._replace(seconds=whole.between(8.0, 10.0))
        mix = np.zeros(whole.size)
        for turn, (level, start, stop, make, *how) in enumerate(layers, start=1):
            rng = np.random.RandomState([CARD_SEED, number, turn])
            take = Take(rng, sample_rate, whole.seconds * (stop - start), 1000 + 7 * number + turn)
            sound = leveled(make(take, **dict(*how)))
            lay(mix, start * whole.size, played=10 ** (level / 20) * sound)
        yield name, produce(whole, mix, loudness=whole.between(-30, -14))


def align_sound(late: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """`late` [n], moved to where it fits `sound` [m] best (cross-correlation); [m]."""
    # Room for both: a shorter transform would wrap the one round the other. A lag in the upper half
    # is a negative one.
    size = fft_size(len(late) + len(sound))
    like = np.fft.irfft(np.fft.rfft(late, size) * np.conj(np.fft.rfft(sound, size)), size)
    lag = (int(like.argmax()) + size // 2) % size - size // 2
    moved = late[lag:] if lag > 0 else np.pad(late, (-lag, 0))
    return np.pad(moved, (0, max(0, len(sound) - len(moved))))[: len(sound)]


def add_noise(sound: np.ndarray, snr: float) -> np.ndarray:
    """Add white noise at a signal-to-noise ratio in dB, always the same."""
    dust = np.random.RandomState(0).standard_normal(len(sound))
    return sound + dust * math.sqrt(np.mean(np.square(sound, dtype=np.float64)) * 10 ** (-snr / 10))


Change = Callable[[np.ndarray], np.ndarray]


def changed_sound(settings: Settings) -> Iterator[tuple[str, int, Change]]:
    """Name, frames of delay, and what is done to a sound."""
    rate, hop = settings.sample_rate, settings.hop_length
    # Half a frame is where frames lie worst. It cannot be taken out again in whole frames, so those
    # codes are compared as they stand. Lambdas bind what they use, or all would use the last value.
    for frames, name in ((0.5, "half a frame (12 ms)"), (1, "one frame (23 ms)"), (43, "1 s")):
        yield f"{name} later", int(frames), lambda x, n=round(frames * hop): np.pad(x, (n, 0))
    for decibel in (-1, -6, 6):
        yield f"{decibel:+d} dB", 0, lambda x, gain=10 ** (decibel / 20): x * gain
    for snr in (40, 30, 20, 10):
        yield f"noise at {snr} dB", 0, functools.partial(add_noise, snr=snr)
    for kind, kbps in (("MP3", 128), ("MP3", 64), ("Opus", 96), ("Opus", 32)):
        code = functools.partial(through_codec, kind=kind, kbps=kbps, settings=settings)
        # A codec also delays; aligned, only what it did to the sound is examined.
        yield f"{kind} at {kbps} kbit/s", 0, lambda x, code=code: align_sound(code(x), x)
    # To another rate in any case, or nothing would be done; 16 kHz loses all above 8 kHz.
    for other in (44100 if rate != 44100 else 48000, 16000):
        way = functools.partial(convert, rates=(rate, other, rate), settings=settings)
        yield f"resampled to {other / 1000:g} kHz and back", 0, way


class Exam:
    """Puts clips [n], mono at the tokenizer's rate, of 1 s or more, through the tests of the card.

    The bar moves by seconds heard.
    """

    def __init__(self, tokenizer: Tokenizer, clips: Sequence[np.ndarray], bar: Progress) -> None:
        self.tokenizer, self.settings, self.clips = tokenizer, tokenizer.settings, clips
        self.hop, self.bar, started = tokenizer.settings.hop_length, bar, time.perf_counter()
        self.codes = [self.hear(clip) for clip in clips]
        self.seconds = time.perf_counter() - started
        heard, chains = np.concatenate(self.codes), tokenizer.trained
        # What a miss is when frames have nothing to do with each other: the clips' own, shuffled.
        # Codes drawn evenly would be others than occur.
        dice = np.random.RandomState(0).permutation(len(heard))
        usual = miss_distance(chains, heard, other=heard[dice])
        self._row = functools.partial(card_row, chains=chains, usual=usual)

    def hear(self, sound: np.ndarray) -> np.ndarray:
        """Codes [T, 8] of a sound; the bar moves by its length."""
        self.bar.tick(len(sound) / self.settings.sample_rate)
        return self.tokenizer.encode(sound.astype(np.float32)).array

    def row(self, group: str, name: str, pairs: Iterable[Any], why: str = "") -> CardRow:
        """A row from pairs of codes, one a clip; `why` there may be none."""
        found = list(pairs)
        return self._row(group, name, pairs=found) if found else CardRow(group, name, why=why)

    def changed(self) -> Iterator[CardRow]:
        """Rows of the sounds changed, and of the edit distance under noise."""
        for name, late, change in changed_sound(self.settings):
            pairs, why = [], ""
            try:
                heard = [self.hear(change(clip))[late:] for clip in self.clips]
                pairs = list(zip(self.codes, heard))
            except MissingError as error:
                why = str(error)
            for group in ("change", "edit") if name.startswith("noise") else ("change",):
                yield self.row(group, name, pairs, why)

    def cut(self, clip: np.ndarray, codes: np.ndarray, spans: Sequence[float]) -> Iterator[Any]:
        """Codes of slices of a clip, and of the same slices heard by themselves; none if short."""
        size, before, after = (round(span * self.settings.frame_rate) for span in spans)
        room = len(codes) - before - size - after
        for at in np.linspace(0, room, SLICES_A_CLIP if room >= 0 else 0).astype(int):
            heard = self.hear(clip[at * self.hop : (at + before + size + after) * self.hop])
            yield codes[at + before :][:size], heard[before:][:size]

    def slices(self) -> Iterator[CardRow]:
        """Rows of slices heard alone, and with what sounds around them."""
        for spans in SLICES:
            around = "with {1} s before, {2} after".format(*spans) if spans[1] else "alone"
            found = [list(self.cut(c, codes, spans)) for c, codes in zip(self.clips, self.codes)]
            # One pair a clip, for a row's quartiles are over clips and not over slices.
            pairs = [tuple(map(np.concatenate, zip(*both))) for both in found if both]
            yield self.row("slice", f"{spans[0]:g} s {around}", pairs, "no clip is long enough")

    def again(self, clip: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Codes of the sound that a clip's codes are decoded to."""
        trained = self.tokenizer.trained
        return self.hear(rebuild(codes, trained, self.settings, samples=len(clip)))

    def drift(self) -> Iterator[CardRow]:
        """Rows of codes decoded to sound that is heard again, and so on."""
        now = self.codes
        for turn in range(1, max(DRIFT_ROUNDS) + 1):
            # From the last round's codes, not the clip: what is asked is whether losses add up.
            now = list(map(self.again, self.clips, now))
            if turn in DRIFT_ROUNDS:
                yield self.row("drift", f"{turn} round{'s' * (turn > 1)}", zip(self.codes, now))

    def controls(self) -> Iterator[CardRow]:
        """Rows that must be 100, and rows that must be near 0."""
        rng, size = np.random.RandomState(0), self.settings.codebook_size
        hushed = [self.hear(np.zeros(len(codes) * self.hop)) for codes in self.codes]
        others = self.codes[1:] + self.codes[:1] if len(self.codes) > 1 else ()
        dice = (rng.randint(size, size=codes.shape) for codes in self.codes)
        for name, one, other in (
            ("heard again: must be 100", self.codes, map(self.hear, self.clips)),
            ("two silences: must be 100", hushed[:1], hushed[-1:]),
            ("random codes: near 0", self.codes, dice),
            ("another clip: near 0", self.codes, others),
            ("silence for the clip: near 0", self.codes, hushed),
        ):
            yield self.row("control", name, zip(one, other), "it takes two clips")

    def halves(self) -> Iterator[np.ndarray]:
        """Codes of both halves of every clip, each heard by itself."""
        for clip, codes in zip(self.clips, self.codes):
            yield from map(self.hear, np.split(clip, [len(codes) // 2 * self.hop]))

    def costs(self) -> tuple[Metric, ...]:
        """LLM tokens a second of every way to write a clip."""
        found: dict[str, list[float]] = {}
        trained, rate = self.tokenizer.trained, self.settings.sample_rate
        for clip in self.clips:
            view, seconds = hear(clip, self.tokenizer).view, len(clip) / rate
            header = make_header(Source("samples", "audio", rate, 1, seconds), self.tokenizer)
            text = view_text(view, self.settings)
            for name, cost in budget_rows(header, view.clip.codes, gloss_table(trained), view=text):
                found.setdefault(name, []).append(cost / seconds)
        formats = [name for name in found if name[:2] not in (*LAYER_NAMES, "  ")]
        unit = "LLM tokens a second"
        return tuple(Metric(name, float(np.median(found[name])), unit) for name in formats)


def card_clips(sources: Sequence[str], settings: Settings) -> Iterator[tuple[str, np.ndarray]]:
    """Name and first CARD_SECONDS of each source from --from on; one that fails is passed over."""
    rate = settings.sample_rate
    start = round(settings.view_from * rate)
    stop = min(start + round(CARD_SECONDS * rate), round(min(settings.view_to, 1e9) * rate))
    for source in sources:
        try:
            with open_audio(source, settings) as audio:
                blocks = list(itertools.islice(rechunk(audio, rate), -(-stop // rate)))
            sound = np.concatenate(blocks)[start:stop]
            if len(sound) < rate:
                raise AudioError(f"{audio.source.name}: less than 1 s is too short to be examined")
            yield audio.source.name, sound
        except AudioError as error:
            LOG.error("%s", error)


def examine(clips: Sequence[tuple[str, np.ndarray]], settings: Settings) -> ReportCard:
    """Put clips (name, mono samples at the settings' rate, 1 s or more) through every test."""
    settings = replace(settings, view_from=0.0, view_to=math.inf)  # clips are cut already
    sounds, tokenizer = [sound for _, sound in clips], Tokenizer(settings)
    if settings.adapt or settings.codebook_init == "audio":
        tokenizer = fit_to_sound(tokenizer, sounds)
    seconds = sum(map(len, sounds)) / settings.sample_rate
    # For the bar alone: each change and each round is one hearing of all, the first hearing,
    # slices, halves and controls are about five more.
    passes = 5 + len(list(changed_sound(settings))) + max(DRIFT_ROUNDS)
    with Progress("examining", passes * seconds, settings) as bar:
        exam = Exam(tokenizer, sounds, bar)
        rows = (*exam.changed(), *exam.slices(), *exam.drift(), *exam.controls())
        found = retrieval_metrics(list(exam.halves())), exam.costs()
    speed = Metric("speed", seconds / exam.seconds, "times real time")
    names = tuple(Metric(name, len(s) / settings.sample_rate, "s") for name, s in clips)
    reads = make_header(Source("", "audio", 0, 0), tokenizer).reads
    ear = tokenizer.settings.codebook_init
    return ReportCard(ear, tokenizer.codebook_id, reads, names, rows, *found, speed)


def run_report_card(
    sources: Sequence[str], settings: Settings, outputs: Outputs, *, form: str
) -> ExitStatus:
    """Examine the tokenizer on sources or its own clips: text or JSON to stdout, or also files."""
    paths = [outputs.folder / f"report_card.{kind}" for kind in outputs.formats]
    check_paths(paths, real_paths(sources), outputs)
    own = held_out_clips(settings.sample_rate)
    clips = list(card_clips(sources, settings) if sources else own)
    if not clips:
        return ExitStatus.INPUT_FAILED
    card = examine(clips, settings)
    text = "".join(f"{line}\n" for line in card_lines(card)).encode()
    fields = metrics_json(card_fields(card))
    drawn = io.BytesIO()
    if "png" in outputs.formats:
        save_figure(draw_card(card, theme=settings.viz_theme), drawn, form="png")
    with stdout_file(False) as file:
        file.write(fields if form == "json" else text)
    for path, data in zip(paths, (text, fields, drawn.getvalue())):
        with whole_file(path, force=outputs.force) as file:
            file.write(data)
    return ExitStatus.INPUT_FAILED if len(clips) < len(sources) else ExitStatus.OK


# 14 Upkeep ---------------------------------------------------------------------------------------
# Uses: 1, 2, 3, 4, 5, 7, 8. What is installed and cached, and what a plain run would do with it.

# That a package has to load, and the hub to answer. All are looked at side by side, so the doctor
# takes about as long as the slowest; who waits for it should not wait for 15 s.
PROBE_SECONDS, HUB_SECONDS = 11.0, 5.0
# What this program calls its files. The folder may be any (--codebook-cache-dir), and --clear-cache
# must not touch what others keep in it.
OWN_FILE = re.compile(
    rf"codebooks-(?P<ear>[a-z0-9+]+)-(?P<key>[0-9a-f]{{20}})\.npz|{PART_FILE.pattern}"
)

# Asked within the probe: a broken driver may crash the process that asks.
SEE_GPU = (
    "print(torch.cuda.get_device_name() if torch.cuda.is_available() else"
    " 'Metal, by --device mps' if torch.backends.mps.is_available() else '')"
)


class Finding(NamedTuple):
    """One thing that was looked at: its state, and the line that mends or adds it.

    The state is ok; note: it works, but; missing; optional: missing, and a plain run does
    without; or broken: it is here and does not work.
    """

    state: str
    name: str  # what was looked at
    detail: str  # what was seen
    mend: str = ""  # a line to type or do, if there is something to mend

    @property
    def bad(self) -> bool:
        """Whether nothing can be built on it."""
        return self.state in ("missing", "broken")


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of words as aligned lines."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def version_of(name: str) -> str:
    """Version of a package, which is not loaded for it."""
    # Importing torch for its version would take seconds; metadata and a look for the module do not.
    return installed_version(name) if importlib.util.find_spec(name) else "not installed"


def version_lines() -> list[str]:
    """Program, format, packages and models."""
    facts = [(PROGRAM, VERSION), ("format", f"{SCHEMA} {FORMAT_VERSION}")]
    facts += [("python", sys.version.split()[0])]
    facts += [(name, version_of(name)) for name in ("numpy", "torch", "torchaudio", "transformers")]
    facts += [(name, f"commit {known.revision}") for name, known in KNOWN_MODELS.items()]
    return table_lines(facts)


def probe(code: str) -> tuple[str, str]:
    """Run Python code in a process of its own, which may crash or hang; state, and what it said.

    The state is ok, broken (said: a traceback's last line), or note: longer than PROBE_SECONDS.
    """
    # -c looks for modules in the current folder first, where a soxr.py may be anything.
    command = [sys.executable, "-c", f"import sys; sys.path.remove(''); {code}"]
    # Without a stdin of its own it could take what is piped into this program.
    streams = {"stdin": subprocess.DEVNULL, "capture_output": True}
    try:
        done = subprocess.run(command, timeout=PROBE_SECONDS, **streams)
    except subprocess.TimeoutExpired:
        return "note", f"has not loaded in {PROBE_SECONDS:.0f} s; a slow disk, or it hangs"
    said = (done.stderr if done.returncode else done.stdout).decode("utf-8", "replace").strip()
    if done.returncode:
        return "broken", (said.splitlines() or [f"it crashes (status {done.returncode})"])[-1][:300]
    return "ok", said


def check_package(name: str) -> Finding:
    """Whether an optional package loads; of torch, which GPU it sees."""
    version, (purpose, install) = version_of(name), PACKAGES[name]
    if version == "not installed":
        return Finding("missing", name, f"for {purpose}", install)
    state, said = probe(f"import {name}; {SEE_GPU if name == 'torch' else ''}")
    if state != "ok":
        mend = install.replace("install", "install -U", 1) if state == "broken" else ""
        return Finding(state, name, f"{version}: {said}", mend)
    return Finding(state, name, f"{version}, GPU: {said}" if said else version)


def check_pair(torch: Finding, torchaudio: Finding) -> Finding:
    """Of torchaudio, whether it belongs to the torch beside it: the pair that breaks most often."""
    versions = {name: version_of(name) for name in ("torchaudio", "torch")}
    series = {tuple(version.split(".")[:2]) for version in versions.values()}
    if "missing" in (torch.state, torchaudio.state) or not torchaudio.bad and len(series) == 1:
        return torchaudio
    # torchaudio's binary part is built against one series of torch (2.5 with 2.5), and beside
    # another it fails to load or crashes. To mend one of them alone would keep the pair apart.
    mend = PACKAGES["torch"].install.replace("install", "install --force-reinstall", 1)
    pair = " beside ".join(map(" ".join, versions.items()))
    if torchaudio.bad:
        return torchaudio._replace(detail=f"{pair}: {torchaudio.detail}", mend=mend)
    return Finding("note", "torchaudio", f"{pair} are not of one series", mend)


def check_gpu(torch: Finding) -> Finding:
    """Which GPU serves the neural ears."""
    name = torch.detail.partition(", GPU: ")[2]
    # A torch that has not loaded in time has said nothing, which is not the same as no GPU.
    if torch.state == "note":
        return Finding("note", "gpu", "not known before torch has loaded")
    if name or torch.bad or not shutil.which("nvidia-smi"):
        return Finding("ok", "gpu", name or "none; the CPU serves")
    # nvidia-smi comes with the driver, so a GPU is likely: this torch may be built without CUDA.
    mend = PACKAGES["torch"].install.replace("install", "install --force-reinstall", 1)
    return Finding("note", "gpu", "its driver is here, but this torch does not see it", mend)


def own_files(folder: Path) -> list[Path]:
    """Files in the cache folder that this program wrote, and none besides."""
    with contextlib.suppress(OSError):
        return [p for p in sorted(folder.iterdir()) if OWN_FILE.fullmatch(p.name) and p.is_file()]
    return []


def check_cache(settings: Settings) -> Finding:
    """Whether codebooks can be kept, and how many are."""
    folder = cache_folder(settings)
    # The doctor makes no folder, so it asks the nearest one that is there. lexists: a link into
    # nothing is in the way too.
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        words = f"{there} cannot be written into, so every run fits its codebooks anew"
        return Finding("note", "cache", words, "name another folder: --codebook-cache-dir DIR")
    free, count = shutil.disk_usage(there).free / 1e9, len(own_files(folder))
    words = f"{folder}: {count} files, {free:.1f} GB free on its disk"
    return Finding("ok" if free > 1 else "note", "cache", words, "" if free > 1 else "make room")


def check_weights(family: NeuralFamily, settings: Settings) -> Finding:
    """Whether a model's files are on this machine."""
    # Whatever the settings say, nothing is downloaded to find out.
    source, name = locate_model(family, settings)._replace(offline=True), f"{family.name} weights"
    try:
        if source.find("config.json") and (path := source.find(*WEIGHT_FILES)):
            return Finding("ok", name, str(path))
    except MissingError as error:
        return Finding("missing", name, str(error), PACKAGES["transformers"].install)
    where = "its folder" if source.directory else "the hub's cache"
    mend = f"run once with the hub in reach, or name a copy: --{family.name}-model DIR"
    return Finding("missing", name, f"{source.name} is not in {where}", mend)


def check_hub(family: NeuralFamily, settings: Settings) -> Finding:
    """Whether the hub answers in time for a model's config.json."""
    source = locate_model(family, settings)
    if settings.offline or source.directory:
        return Finding("note", "hub", "not asked")
    base = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    # Every model has it: one answer about it covers network, name and revision.
    url = f"{base}/{source.name}/resolve/{source.revision}/config.json"
    web = importlib.import_module("urllib.request")  # slow to import, seldom needed
    troubles = (OSError, ValueError, importlib.import_module("http.client").HTTPException)
    asked = web.Request(url, method="HEAD")
    try:
        # Bounded twice: the socket's own timeout does not cover the look-up of the name.
        within(HUB_SECONDS, lambda: web.urlopen(asked, timeout=HUB_SECONDS).close(), troubles)
    except troubles as error:
        mend = "see to the network or HTTPS_PROXY, set HF_ENDPOINT to a mirror, or say --offline"
        return Finding("missing", "hub", f"{base}: {first_line(error)[:200]}", mend)
    return Finding("ok", "hub", f"{base} has {source.name}")


def check_counter() -> Finding:
    """Whether LLM tokens are counted exactly."""
    if bpe_counter():
        return Finding("ok", "tiktoken", f"{version_of('tiktoken')}, counts cl100k_base exactly")
    words = "for exact counts of LLM tokens (cl100k_base), else estimated and never too low"
    way = "pip install tiktoken; export TIKTOKEN_CACHE_DIR=DIR; with the network in reach, once:"
    way += """ python -c 'import tiktoken; tiktoken.get_encoding("cl100k_base")'"""
    return Finding("missing", "tiktoken", words, way)


def check_numpy(settings: Settings) -> Finding:
    """Whether what needs numpy alone works: a second of a tone is analysed."""
    analyzer = Analyzer(settings.sample_rate, settings.hop_length)
    # 390 Hz at 22,050. A broken numpy may import well, and then give NaN.
    sound = np.sin(np.arange(settings.sample_rate) / 9).astype(np.float32)
    features = [spectral_features(spectra) for spectra in (analyzer.push(sound), analyzer.flush())]
    if sum(map(len, features)) and all(np.isfinite(rows).all() for rows in features):
        return Finding("ok", "numpy", f"{np.__version__}, a tone is heard")
    return Finding("broken", "numpy", np.__version__, "pip install --force-reinstall numpy")


def plain_ear(settings: Settings, found: Mapping[str, Finding]) -> Finding:
    """Which ear a plain run would take, and why."""
    name, families = settings.codebook_init, NEURAL_EARS.get(settings.codebook_init)
    if not families:
        return Finding("ok", "ear", name)
    weights = [f"{family.name} weights" for family in families]
    # Weights that are not here are no hindrance while the hub can bring them.
    needed = ["torch", "transformers", "soxr", *(weights if found["hub"].state != "ok" else [])]
    reasons = [f"{part} {found[part].state}" for part in needed if found[part].bad]
    if settings.compat_fallback or reasons:
        why = "--compat-fallback is on" if settings.compat_fallback else ", ".join(reasons)
        if settings.fallback:
            return Finding("ok", "ear", f"spectral, for want of {name}: {why}")
        return Finding("broken", "ear", f"no {name}: {why}", "--codebook-init spectral needs none")
    late = any(found[part].bad for part in weights)
    return Finding("ok", "ear", f"{name}, once its weights are downloaded" if late else name)


def look_around(settings: Settings) -> list[Finding]:
    """Look at all that a run may need, side by side, each thing by itself."""
    families = NEURAL_EARS.get(settings.codebook_init, ())
    needless = {"tomli"} if importlib.util.find_spec("tomllib") else set()
    jobs = [functools.partial(check_package, name) for name in PACKAGES if name not in needless]
    jobs += [functools.partial(check_weights, family, settings) for family in families]
    jobs += [functools.partial(check_hub, family, settings) for family in families[:1]]
    # Threads are enough, for each job waits for a process or for the network.
    with ThreadPoolExecutor(len(jobs)) as pool:
        found = {finding.name: finding for finding in pool.map(lambda job: job(), jobs)}
    found["torchaudio"] = check_pair(found["torch"], found["torchaudio"])
    path, films = shutil.which("ffmpeg"), ("missing", "ffmpeg", "for m4a, WebM, WMA and films")
    ffmpeg = Finding("ok", "ffmpeg", path) if path else Finding(*films, FFMPEG_HINT)
    others = (check_gpu(found["torch"]), ffmpeg, check_counter(), check_cache(settings))
    # The verdict stands first: what a run would do, before what it could do with more.
    ear = plain_ear(settings, found)
    more = (
        one._replace(state="optional")
        if one.state == "missing" and (not ear.bad or f"{one.name} missing" not in ear.detail)
        else one
        for one in (*found.values(), *others)
    )
    return [ear, check_numpy(settings), *more]


def doctor(settings: Settings) -> tuple[list[str], ExitStatus]:
    """A line of each finding and one that mends it; MISSING if numpy or the ear is broken."""
    found = look_around(settings)
    fatal = any(f.state == "broken" and f.name in ("numpy", "ear") for f in found)
    verdict = "a plain run will fail" if fatal else "a plain run works; what is optional adds to it"
    lines = [f"{PROGRAM} {VERSION}, Python {sys.version.split()[0]}, {sys.platform}: {verdict}"]
    for finding, row in zip(found, table_lines([finding[:3] for finding in found])):
        way = "to add it" if finding.state == "optional" else "to mend it"
        lines += [row, f"  {way}: {finding.mend}"] if finding.mend else [row]
    return lines, ExitStatus.MISSING if fatal else ExitStatus.OK


def cached_id(path: Path) -> str:
    """The codebook_id of a cache file, known by its name alone; "" if it is broken."""
    name = OWN_FILE.fullmatch(path.name)
    try:
        data = path.read_bytes()
        # The seal first, so that numpy never parses what was cut or changed. An unfinished file has
        # no key in its name.
        if not name["key"] or seal(name["key"], data[:-SEAL_BYTES]) != data[-SEAL_BYTES:]:
            return ""
        with np.load(io.BytesIO(data[:-SEAL_BYTES]), allow_pickle=False) as stored:
            return name_codebooks(unpack_codebooks(stored, name["ear"]))
    except (OSError, ValueError, KeyError):
        return ""


def list_codebooks(settings: Settings) -> tuple[list[str], ExitStatus]:
    """What is cached: whole or broken, codebook_id (ear first), bytes, date, path."""
    folder, rows = cache_folder(settings), []
    for path in own_files(folder):
        name, facts = cached_id(path), path.stat()
        date = time.strftime("%Y-%m-%d %H:%M", time.localtime(facts.st_mtime))
        state = "whole" if name else "broken"
        rows.append((state, name or "-", f"{facts.st_size:,} bytes", date, str(path)))
    return table_lines(rows) if rows else [f"there are none in {folder}"], ExitStatus.OK


def clear_cache(settings: Settings) -> tuple[list[str], ExitStatus]:
    """Remove this program's files from the cache folder."""
    removed, status, folder = [], ExitStatus.OK, cache_folder(settings)
    for path in own_files(folder):
        try:
            size = path.stat().st_size
            path.unlink()
            removed.append(size)
        except OSError as error:
            warn(f"{path} stays: {error.strerror}")
            status = ExitStatus.INPUT_FAILED
    return [f"removed {len(removed)} files, {sum(removed):,} bytes, from {folder}"], status


ACTS: dict[str, Callable[[Settings], tuple[list[str], ExitStatus]]] = {
    "doctor": doctor, "list-codebooks": list_codebooks, "clear-cache": clear_cache,
    "version": lambda _: (version_lines(), ExitStatus.OK),
}  # fmt: skip


# 15 Command line ---------------------------------------------------------------------------------
# Uses: 1, 2, 3, 4, 9, 11, 12, 13, 14. The parser by groups, config files, settings, main.

EXAMPLES = """examples:
  %(prog)s --all-outputs --output-dir out/ song.wav        every file for one sound
  %(prog)s --format stream song.mp3                        text to paste into an LLM
  ffmpeg -i film.mkv -f wav - | %(prog)s - | head          NDJSON as the sound comes
  arecord -q -t raw -f S16_LE -r 22050 | %(prog)s --live --raw s16le:22050:1
  find . -name '*.mp3' | %(prog)s --stdin --batch --output-dir out/ --resume
  %(prog)s --decode out/song_tokens.ndjson -o again.wav    roughly what was heard
  %(prog)s --config options.toml song.wav                  options from a file
  %(prog)s --doctor                                        what is missing, and what mends it
exit status: 0 all done, 1 some input failed, 2 usage, 3 a package or model is
missing, 130 interrupted"""
USAGE = "usage: neural_audio_tokenizer.py [options] FILE ... (or pipe sound in; see --help)"
# Choices of --format, all of which stdout takes; and what else one of them is called.
FORMATS = ("ndjson", "json", "text", "stream", "npz", "report", "wav")
ALIASES = {"html": "report", "txt": "text", "jsonl": "ndjson"}
EXTRAS = {"wav": "reconstruct", "features": "save_features"}  # what is written beside, by option
SCHEMAS = {"stream": line_schema, "metrics": metrics_schema}
VIEWS = ("stream", "report")  # formats made from the whole sound
# What --output is taken to mean by its ending; the first is written where no --format says more.
PICTURE = "a picture"
ENDINGS = {
    ".npz": ("npz", "features"), ".json": ("json",), ".ndjson": ("ndjson",), ".jsonl": ("ndjson",),
    ".html": ("report",), ".htm": ("report",), ".txt": ("text", "stream"), ".wav": ("wav",),
    **dict.fromkeys((".png", ".svg", ".pdf"), (PICTURE,)),
}  # fmt: skip


def parse_raw(text: str) -> RawFormat:
    """FORMAT:RATE:CHANNELS, as in s16le:48000:2; ArgumentTypeError if it is not or cannot be."""
    parts = text.split(":")
    if len(parts) > 3 or parts[0] not in RAW_ENCODINGS:
        raise argparse.ArgumentTypeError(f"FORMAT is one of {', '.join(RAW_ENCODINGS)}")
    try:
        # CHANNELS, or both, may be left out; what stands for them is RawFormat's default.
        rate, channels = (int(part) for part in (parts[1:] + ["22050", "1"][len(parts) - 1 :]))
    except ValueError:
        raise argparse.ArgumentTypeError("RATE and CHANNELS are whole numbers") from None
    if not (MIN_RATE <= rate <= MAX_RATE and 1 <= channels <= MAX_CHANNELS):
        raise argparse.ArgumentTypeError("RATE is 1000 to 768000 Hz, CHANNELS 1 to 64")
    return RawFormat(parts[0], rate, channels)


def parse_encoding(text: str) -> dict[int, str]:
    """LAYERS=ENCODING[,...], as in S0=rle,A=dense: layer index -> encoding; ArgumentTypeError."""
    chosen = {}
    for part in text.split(","):
        name, _, encoding = part.partition("=")
        # By beginnings, so that S is S0 to S3; but every name begins with nothing.
        layers = [i for i, layer in enumerate(LAYER_NAMES) if name and layer.startswith(name)]
        if not layers or encoding not in ENCODINGS:
            raise argparse.ArgumentTypeError(
                f"{part!r} is not a layer (S0-S3, A0-A3, S, A)=dense|rle"
            )
        chosen.update(dict.fromkeys(layers, encoding))
    return chosen


def folder_name(text: str) -> Path:
    """Path of a folder that is or can be made; ArgumentTypeError if something else is there."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return path


def parse_figures(text: str) -> tuple[str, ...]:
    """NAME[,...] of FIGURES, all or none: names in the table's order; or ArgumentTypeError."""
    names = {"all": tuple(FIGURES), "none": ()}.get(text, tuple(text.split(",")))
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        known = ", ".join(FIGURES)
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no picture; there are {known}")
    return tuple(name for name in FIGURES if name in names)


def number_between(low: float, high: float, kind: type = float) -> Callable[[str], Any]:
    """Argument type: a number in a range."""

    def parse(text: Any) -> Any:
        """The number that a text is."""
        with contextlib.suppress(ValueError):
            text = kind(text)
        try:
            return number_in(text, low, high, kind)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def parse_seconds(text: str) -> float:
    """Argument type: seconds, or as in 1:30 and 1:02:03.5 minutes and hours before them."""
    match = re.fullmatch(r"(?:(\d{1,4}):)?(\d{1,4}):(\d\d(?:\.\d*)?)", text)
    if match and float(match[3]) < 60:
        return int(match[1] or 0) * 3600 + int(match[2]) * 60 + float(match[3])
    with contextlib.suppress(ValueError):
        return number_in(float(text), 0, 1e7)
    raise argparse.ArgumentTypeError(f"{text!r} is not seconds up to 10000000, nor as in 1:05")


def parse_shard(text: str) -> tuple[int, int]:
    """Argument type: I/N with 1 <= I <= N."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N")
    return int(match[1]), int(match[2])


class Switch(argparse.BooleanOptionalAction):
    """--x and --no-x, so that a command line can turn off what a config file turned on."""

    def __init__(
        self, option_strings: Sequence[str], dest: str, default: bool = False, **more: Any
    ) -> None:
        super().__init__(option_strings, dest, **more)
        self.default = default  # not above: Python before 3.13 would put it into the help


class Help(argparse.RawDescriptionHelpFormatter):
    """Shows --no-x only of what is on by default."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        text = super()._format_action_invocation(action)
        # Of what is on, one looks for the way to turn it off; else it only fills the page.
        return text.split(", --no-")[0] if action.default is False else text


# Group -> option -> its help, if it is a plain switch; else all that argparse is to know of it.
# Defaults are those of Settings, put in by make_parser(), so that the two cannot differ.
# fmt: off
OPTIONS: dict[str, dict[str, Any]] = {
    "output": {
        "--all-outputs": "write every kind of file into the output folder",
        "--output-dir": dict(type=folder_name, metavar="DIR", help="folder for files named after"
            " the input (default: stdout; out for what stdout cannot take)"),
        "--format": dict(choices=FORMATS, type=lambda name: ALIASES.get(name, name),
            help="what to write: to --output, into --output-dir, or to stdout (default: ndjson);"
            " stream is text for an LLM, report a page of HTML, wav what the codes sound like"),
        "-o --output": dict(type=Path, metavar="FILE",
            help="write one format to this file, by its ending or --format; what else is asked for"
            " goes beside it"),
        "--ndjson-streaming": "NDJSON to stdout, beside any files",
        "--reconstruct": "also write approximate sound decoded from the acoustic codes",
        "--save-features": "also write the features that were quantized (.npz)",
        "--viz": dict(type=parse_figures, metavar="LIST",
            help=f"pictures: all, none or of {','.join(FIGURES)} (default: all with --all-outputs);"
            " no tokens beside them unless --format asks for some"),
        "--viz-format": dict(choices=tuple(FILE_NOTES), default=Outputs.viz_format,
            help="of the pictures (default: %(default)s)"),
        "--viz-theme": dict(choices=tuple(THEMES), help="of the pictures (default: %(default)s)"),
        "--metrics": dict(type=Path, metavar="FILE", help="write the evaluation as JSON"),
        "--evaluate":
            "say on stderr how good codes and reconstruction are; over several files, medians",
        "--report-card": "examine the tokenizer itself, on the given files or on clips of its own:"
            " text (or --format json) to stdout; with --output-dir text, JSON and picture",
        "--force": "overwrite existing files",
    },
    "view for an LLM (--format stream, _stream.txt)": {
        "--max-llm-tokens": dict(metavar="N", help="what it may cost in tokens of cl100k_base:"
            " counted with tiktoken if TIKTOKEN_CACHE_DIR has that vocabulary, else estimated and"
            " never too low, so some stay unused (default: %(default)s)"),
        "--from": dict(dest="view_from", type=parse_seconds, metavar="S",
            help="begin at this second, or minute as in 1:30 (default: 0)"),
        "--to": dict(dest="view_to", type=parse_seconds, metavar="S",
            help="end at this second (default: the end)"),
        "--prompt": "a primer first and questions last (default: yes)",
        "--observations": "state what was measured beside the codes (default: yes)",
        "--budget-report": "say on stderr what each format and layer costs an LLM",
    },
    "input": {
        "--stdin": "read from stdin: sound, or with --batch a list of files",
        "--batch": "with --stdin: one path a line",
        "--null": "with --batch: NUL ends a path",
        "--live": "stdin is a microphone: it never has to wait, and falling behind is told; lines"
            f" come {CONTEXT_SECONDS:.1f} to 2 s after their sound (what the spectral ear hears"
            " ahead); Ctrl-C ends it, outputs are whole then, and the status is 130",
        "--raw": dict(type=parse_raw, metavar="FORMAT:RATE:CHANNELS",
            help="read the input as PCM, as in s16le:48000:2"),
        "--resample": dict(dest="sample_rate", metavar="HZ",
            help="analysis rate (default: %(default)s)"),
        "--max-duration": dict(metavar="S",
            help="refuse sounds of more seconds than this (default: %(default)s)"),
    },
    "several inputs (DIR/manifest.ndjson tells of each)": {
        "--recursive": "hear the sound files in named folders",
        "--resume": "skip what is done, by the manifest",
        "--workers": dict(type=number_between(1, 1024, int), default=1, metavar="N",
            help="processes of the spectral ear (default: 1)"),
        "--shard": dict(type=parse_shard, default=(1, 1), metavar="I/N",
            help="of every N inputs take the Ith, for job arrays (default: 1/1)"),
    },
    "ear and codebooks": {
        "--codebook-init": dict(choices=EAR_NAMES,
            help="which ear listens and seeds the codebooks (default: mert, else spectral)"),
        "--adapt": "move the codebooks by EMA towards the given sound first",
        "--seed": dict(metavar="N",
            help="of the ear-training suite and the codebooks (default: %(default)s)"),
        "--deterministic": "allow nothing that could change bytes between runs",
        "--compat-fallback": "use numpy alone, whatever is installed",
        "--codebook-cache-dir": dict(dest="cache_dir", metavar="DIR",
            help="where fitted codebooks are kept (default: the XDG cache directory)"),
        "--codebook-cache": dict(dest="use_cache", action="store_true",
            help="read and write that cache (default: yes)"),
        "--force-reinit-codebooks": dict(dest="force_reinit", action="store_true",
            help="fit the codebooks again"),
    },
    "token stream": {
        "--rle": "run-length encode every layer (default: dense)",
        "--rle-semantic": "run-length encode S0-S3",
        "--dense-acoustic": "keep A0-A3 dense",
        "--encoding": dict(type=parse_encoding, default={}, metavar="LIST",
            help="set layers singly, as in S0=rle,A=dense"),
        "--keyframe-interval": dict(metavar="S",
            help="seconds between frames that restate all layers (default: %(default)s)"),
        "--legend": "write a gloss before each code's first use (default: yes)",
        "--decode": dict(metavar="FILE", help="read a token stream back into codes (- for stdin)"),
    },
    "neural ears": {
        "--mert-model": dict(metavar="ID_OR_DIR",
            help="(default: %(default)s; weights CC-BY-NC-4.0)"),
        "--wav2vec2-model": dict(metavar="ID_OR_DIR", help="(default: %(default)s)"),
        "--model-revision": dict(metavar="COMMIT",
            help="commit on the hub (default: a pinned one)"),
        "--mert-layer": dict(metavar="N",
            help="hidden state that is listened to (default: %(default)s)"),
        "--wav2vec2-layer": dict(metavar="N", help="likewise (default: %(default)s)"),
        "--offline": "never ask the hub",
        "--device": dict(help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)"),
        "--precision": dict(choices=CHOICES["precision"],
            help="auto is fp32 on a CPU, bf16 on CUDA (default: %(default)s)"),
        "--threads": dict(metavar="N", help="of torch on the CPU (default: its own choice)"),
    },
}
# fmt: on


def add_own_options(parser: argparse.ArgumentParser) -> None:
    """The program itself, and how much it says."""
    group = parser.add_argument_group("this program")
    group.add_argument("-h", "--help", action="help", help="show this and exit")
    group.add_argument(
        "--config", metavar="FILE", help="options from JSON or TOML; the command line wins"
    )
    act = {"dest": "act", "action": "store_const"}
    add = group.add_mutually_exclusive_group().add_argument
    # fmt: off
    add("--doctor", **act, const="doctor",
        help="say what is installed, what is not and how to mend it, and exit")
    add("--list-codebooks", **act, const="list-codebooks", help="list the cache, and exit")
    add("--clear-cache", **act, const="clear-cache", help="empty the cache, and exit")
    add("--version", **act, const="version",
        help="print program, format, packages and models, and exit")
    add("--print-config", **act, const="print-config",
        help="print the options in effect, a sample of what --config reads, and exit")
    add("--schema", nargs="?", choices=tuple(SCHEMAS), const="stream",
        help="print the JSON Schema of every line of a stream, or of a metrics file, and exit")
    group = parser.add_argument_group("messages (the least that is said on stderr)")
    level = {"dest": "log_level", "action": "store_const"}
    add = group.add_mutually_exclusive_group().add_argument
    add("-q", "--quiet", **level, const="warning", help="no progress, only warnings and errors")
    add("-v", "--verbose", **level, const="debug",
        help="also what is in use, and where an error came from")
    add("--log-level", choices=("debug", "info", "warning", "error"), help="(default: %(default)s)")
    # fmt: on
    parser.set_defaults(log_level="info")


def similar(word: str, known: Iterable[str]) -> str:
    """Ask whether a known word was meant; nothing if none is like it."""
    found = importlib.import_module("difflib").get_close_matches(word, known, 1, 0.75)
    return f"; did you mean {found[0]}?" if found else ""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Say it as every other error is said."""
        if "ignored explicit argument" in message:
            message += "; a file whose name begins with - is ./-NAME"
        raise UsageError(f"{message} (--help shows all options)")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """Parse all; of what is no option, say what was meant."""
        found, rest = self.parse_known_args(args, namespace)
        for word in rest:
            # Of names on both sides of an option argparse takes but the first.
            if word == "-" or not word.startswith("-"):
                found.inputs.append(word)
                continue
            hint = similar(word.partition("=")[0], self._option_string_actions)
            hint = f"; the file of that name is ./{word}" if os.path.exists(word) else hint
            self.error(f"there is no option {word}{hint}")
        return found


def make_parser() -> argparse.ArgumentParser:
    """Parser of the whole command line."""
    parser = Parser(
        prog="neural_audio_tokenizer.py",
        usage="%(prog)s [options] FILE ...",
        description="Sound in, tokens out that a language model can read.",
        epilog=EXAMPLES,
        # An abbreviation in someone's script would break, or mean another thing, with a new option.
        allow_abbrev=False,
        add_help=False,
        formatter_class=Help,
    )
    # Every plain switch gets its --no-x without a word more at each.
    parser.register("action", "store_true", Switch)
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="FILE",
        help="sound files; folders with --recursive; - is stdin",
    )
    for title, options in OPTIONS.items():
        group = parser.add_argument_group(title)
        for names, facts in options.items():
            plain = {"action": "store_true", "help": facts} if isinstance(facts, str) else facts
            group.add_argument(*names.split(), **plain)
    add_own_options(parser)
    for action in parser._actions:
        if action.dest in RANGES and not action.type:
            action.type = number_between(*RANGES[action.dest])
    parser.set_defaults(**{**vars(DEFAULTS), "codebook_init": None})
    return parser


def configurable(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Options that a config file may hold, by name."""
    return {
        name[2:]: action
        for action in parser._actions
        if action.dest not in ("help", "config", "act", "schema")
        for name in action.option_strings
        if name.startswith("--") and not name.startswith("--no-")
    }


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, unless it says one thing twice."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands in it twice")
    return dict(pairs)


def read_config_file(path: str) -> dict[str, Any]:
    """Read a JSON or TOML table of options; UsageError if it is no such thing."""
    toml = path.lower().endswith(".toml")
    try:
        # Some editors of Windows begin UTF-8 with a byte order mark.
        text = Path(path).read_text(encoding="utf-8-sig")
        # What --print-config writes is JSON, whatever the file is called.
        toml = toml and not text.lstrip().startswith("{")
        if toml:
            return (load_package("tomllib")[0] or require("tomli")).loads(text)
        table = json.loads(text, object_pairs_hook=unique_keys)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        kind = "TOML" if toml else "JSON (a TOML file's name ends in .toml)"
        raise UsageError(f"--config {path} is no {kind}: {error}") from error
    if not isinstance(table, dict):
        raise UsageError(f"--config {path}: holds no table of options")
    return table


def config_default(action: argparse.Action, value: Any) -> Any:
    """An option's value from a config file, checked as that of a command line; or ValueError."""
    kinds: tuple[tuple[type, ...], str] = ((str,), "a string")
    if action.nargs == 0:
        kinds = (bool,), "true or false"
    elif isinstance(action.default, (int, float)):
        kinds = (int, float), "a number"
    # A bool is an int in Python, so true would pass for a number.
    if not isinstance(value, kinds[0]) or isinstance(value, bool) != (action.nargs == 0):
        raise ValueError(f"{value!r} is not {kinds[1]}")
    if action.nargs == 0:
        return value if action.const is None else action.const if value else action.default
    # As text, so that one parser and its bounds serve file and command line alike.
    made = action.type(str(value)) if action.type else value
    if action.choices and made not in action.choices:
        raise ValueError(f"{value!r} is not one of {', '.join(action.choices)}")
    return made


def apply_config(parser: argparse.ArgumentParser, path: str) -> None:
    """Make a config file's options the parser's defaults; UsageError names key and file."""
    known, made, told = configurable(parser), {}, {}
    for key, value in read_config_file(path).items():
        action = known.get(key.replace("_", "-"))
        if action is None:
            hint = similar(key.replace("_", "-"), known)
            raise UsageError(f"--config {path}: there is no option {key!r} for it{hint}")
        # --quiet and --verbose share a field, and a file has no order to choose by.
        if action.dest in told:
            other = told[action.dest]
            raise UsageError(f"--config {path}: {other!r} and {key!r} set the same thing")
        try:
            made[action.dest], told[action.dest] = config_default(action, value), key
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise UsageError(f"--config {path}: {key}: {error}") from error
    parser.set_defaults(**made)


def effective_config(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options in effect as a config file holds them."""
    shown = {}
    for name, action in configurable(make_parser()).items():
        value = getattr(arguments, action.dest)
        if isinstance(value, Path):
            value = str(value)
        # Before the plain tuples, of which it is one.
        elif isinstance(value, RawFormat):
            value = ":".join(map(str, value))
        elif isinstance(value, tuple):
            value = ("/" if name == "shard" else ",").join(map(str, value)) or "none"
        elif isinstance(value, dict):
            value = ",".join(f"{LAYER_NAMES[layer]}={how}" for layer, how in value.items())
        # --log-level tells of --quiet and its like; infinity and None are what is left out.
        if action.const is None and value not in (None, "", math.inf):
            shown[name] = value
    return shown


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of the command line, over those of its --config file."""
    parser = make_parser()
    if "_ARGCOMPLETE" in os.environ and load_package("argcomplete")[0]:
        require("argcomplete").autocomplete(parser)  # prints the completions and exits
    # The file's options become defaults, so its name must be known before the command line is
    # parsed; what is given there then wins by itself.
    early = Parser(add_help=False, allow_abbrev=False)
    early.add_argument("--config")
    path = early.parse_known_args(argv)[0].config
    if path:
        apply_config(parser, path)
    return parser.parse_args(argv)


def choose_encodings(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Encoding of each layer; the narrower option wins."""
    semantic = "rle" if arguments.rle or arguments.rle_semantic else "dense"
    acoustic = "rle" if arguments.rle and not arguments.dense_acoustic else "dense"
    chosen = [semantic] * NUM_QUANTIZERS + [acoustic] * NUM_QUANTIZERS
    for layer, encoding in arguments.encoding.items():
        chosen[layer] = encoding
    return tuple(chosen)


def make_settings(arguments: argparse.Namespace) -> Settings:
    """Settings from parsed arguments; an option's value goes to the field of its name."""
    named = {name: getattr(arguments, name) for name in vars(DEFAULTS)}
    # The stand-in is for those who named no ear: who named one wants its codes and no others.
    named.update(
        codebook_init=arguments.codebook_init or DEFAULTS.codebook_init,
        fallback=arguments.codebook_init is None,
        any_bytes=True,
        encodings=choose_encodings(arguments),
        quiet=arguments.log_level in ("warning", "error"),
    )
    return Settings(**named)


def can_draw(arguments: argparse.Namespace, *, named: bool = False) -> bool:
    """Whether there can be pictures; a warning if not, or a MissingError where some are named."""
    reason = load_package("matplotlib")[1]
    reason = "--compat-fallback is on" if arguments.compat_fallback else reason
    words = f"no pictures: {reason}; {PACKAGES['matplotlib'].install}" if reason else ""
    if named and words:
        raise MissingError(words)
    if words:
        warn(words)
    return not words


def choose_figures(arguments: argparse.Namespace, folder: Path | None) -> tuple[str, ...]:
    """Pictures that --viz names (UsageError without a folder), or all of --all-outputs."""
    asked = arguments.viz
    wanted = (FIGURES if arguments.all_outputs else ()) if asked is None else asked
    if asked and not folder:
        raise UsageError("--viz writes files: name --output-dir")
    drawn = bool(wanted) and can_draw(arguments, named=bool(asked))
    return tuple(name for name, figure in PICTURES.items() if drawn and figure in wanted)


def to_stdout(path: Path | None) -> bool:
    """Whether a path is - or another name of stdout."""
    return path is not None and (str(path) == "-" or descriptor_of(path) == 1)


def infer_format(arguments: argparse.Namespace) -> None:
    """Take the format from --output's ending if nothing else says it; UsageError if a picture's."""
    path, given = arguments.output or Path(), arguments.format
    known = ENDINGS.get(path.suffix.lower(), (given,))
    asked = [name for name, field in EXTRAS.items() if getattr(arguments, field)]
    if is_stream(path) and not to_stdout(path):  # beside a device is no place for a second file
        known = (given, *asked)
    if given:
        if given not in known:
            warn(f"{path} will hold {given}, though its name says {known[0]}")
        return
    known = ("stream",) if path.name.endswith(ViewSink.suffix) else known
    arguments.format = next((name for name in asked if name in known), known[0])
    if arguments.format == PICTURE:
        raise UsageError(f"{path}: pictures are named by --viz NAME --output-dir DIR")


def choose_formats(arguments: argparse.Namespace, folder: Path | None) -> tuple[str, ...]:
    """Names of the sinks that write files, the one of --output or stdout first."""
    given = (arguments.format,) if arguments.format else ()
    chosen = ALL_FORMATS if arguments.all_outputs else given
    extra = (name for name in EXTRAS if getattr(arguments, EXTRAS[name]) and name not in chosen)
    pictures = choose_figures(arguments, folder)
    # Pictures by themselves are all that is wanted: no NDJSON on the side.
    return (chosen or (() if pictures else ("ndjson",))) + (*extra, *pictures)


def choose_stdout(
    arguments: argparse.Namespace, formats: Sequence[str], *, taken: bool
) -> str | None:
    """The format that goes to stdout: the one chosen, or NDJSON or metrics beside the files."""
    metrics = to_stdout(arguments.metrics)
    if metrics and (arguments.ndjson_streaming or not taken):
        raise UsageError("--metrics - and the tokens both want stdout; name --output")
    if taken:
        return "metrics" if metrics else "ndjson" if arguments.ndjson_streaming else None
    if arguments.ndjson_streaming and formats[0] != "ndjson":
        raise UsageError("--ndjson-streaming and --format both want stdout; name --output-dir")
    if formats[0] in ("npz", "wav") and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError(f"{formats[0]} is nothing for a terminal; name --output FILE or redirect")
    return formats[0]


def tell_contents(output: Path, formats: Sequence[str], *, chosen: bool) -> None:
    """Say what a file will hold where its name does not; UsageError if a stream is to have two."""
    if is_stream(output) and len(formats) > 1:
        raise UsageError(f"nothing can lie beside {output}; name --output-dir")
    if output.suffix and output.suffix.lower() not in ENDINGS and not chosen:
        names = " ".join(end for end, kinds in ENDINGS.items() if PICTURE not in kinds)
        warn(f"{output} will hold {formats[0]}, as its ending is none of {names}; --format chooses")


def make_outputs(arguments: argparse.Namespace) -> Outputs:
    """Outputs from parsed arguments; UsageError if they contradict each other or have no place."""
    folder = arguments.output_dir or (Path("out") if arguments.all_outputs else None)
    if arguments.output and folder:
        raise UsageError("--output names one file; --output-dir and --all-outputs name many")
    named = arguments.output, arguments.metrics
    output, metrics = (None if to_stdout(path) else path for path in named)
    formats = choose_formats(arguments, folder)
    stdout = choose_stdout(arguments, formats, taken=bool(folder or output))
    if len(formats) > 1 and not (folder or output):  # sound and features want a file
        formats, folder = formats[1:], Path("out")
    if output:
        tell_contents(output, formats, chosen=arguments.format is not None)
    paths, form = (folder, output, metrics), arguments.viz_format
    return Outputs(formats, *paths, stdout, arguments.force, form)


def read_list(null: bool) -> list[str]:
    """Paths on stdin, one a line or each ended by NUL, no name meaning stdin; or UsageError."""
    # Bytes, for names of files need not be text; fsdecode keeps what is none.
    data = sys.stdin.buffer.read()
    if b"\0" in data and not null:
        raise UsageError("the list on stdin holds NUL: say --null")
    lines = data.split(b"\0") if null else [line.rstrip(b"\r") for line in data.split(b"\n")]
    names = [os.fsdecode(line) for line in lines if line.strip()]
    if not names:
        raise UsageError("the list on stdin is empty")
    return ["./-" if name == "-" else name for name in names]


def check_pipe(arguments: argparse.Namespace) -> None:
    """Refuse, by UsageError, to wait for a terminal, and files for a microphone."""
    files = set(arguments.inputs) - {"-"}
    pipe = arguments.stdin or "-" in (arguments.decode, *arguments.inputs)
    if pipe or not (files or arguments.decode):
        # A terminal would be waited on in silence; without a stdin (<&-) there is nothing to read.
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError(USAGE)
    if arguments.live and (arguments.batch or arguments.decode or files):
        raise UsageError("--live hears what is piped in: name no files")


def list_sources(arguments: argparse.Namespace, outputs: Outputs) -> list[str]:
    """Paths of all sounds to hear, in a list or not; UsageError if stdin is named twice."""
    names = list(arguments.inputs)
    # Of truth values, a > b is a without b.
    if arguments.null > arguments.batch or arguments.batch > arguments.stdin:
        raise UsageError("--batch and --null are of a list on stdin: say --stdin --batch")
    if arguments.batch:
        names += read_list(arguments.null)
    elif arguments.stdin or not names:
        names.append("-")
    # What one reader has taken from a pipe the other never gets.
    if names.count("-") + arguments.batch > 1:
        raise UsageError("stdin is named twice, but can be read once")
    every = arguments.raw is not None
    return list_sounds(names, outputs, recursive=arguments.recursive, every=every)


def check_sources(
    sources: Sequence[str], settings: Settings, outputs: Outputs, *, plan: Plan
) -> None:
    """UsageError: several inputs into one place, a pipe heard twice, resuming without a folder."""
    if plan.resume and not outputs.folder:
        raise UsageError("--resume needs --output-dir, where the manifest is")
    if "-" in sources and (settings.adapt or settings.codebook_init == "audio"):
        raise UsageError(TWICE)
    # NDJSON streams may follow each other, as a header begins and an end line ends each.
    if len(sources) > 1 and (outputs.path or outputs.stdout not in (None, "ndjson")):
        way = "--output-dir DIR, for files named after each (stdout takes several as NDJSON only)"
        way = "--metrics FILE in place of stdout" if outputs.stdout == "metrics" else way
        raise UsageError(f"several inputs need {way}")


def choose_style(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fields of a decoded stream's header that were asked to be otherwise."""
    style: dict[str, Any] = {}
    if arguments.rle or arguments.rle_semantic or arguments.dense_acoustic or arguments.encoding:
        style["encodings"] = choose_encodings(arguments)
    if arguments.keyframe_interval != DEFAULTS.keyframe_interval:
        style["keyframe_interval"] = arguments.keyframe_interval
    return style


def check_stretch(arguments: argparse.Namespace) -> None:
    """UsageError for a stretch (--from, --to) that is empty, or of what is always written whole."""
    asked = arguments.view_from > 0 or arguments.view_to < math.inf
    if arguments.view_from >= arguments.view_to:
        raise UsageError("--from must come before --to")
    heard = arguments.all_outputs or arguments.report_card or arguments.format in VIEWS
    if asked and (arguments.decode or not (heard or arguments.viz)):
        raise UsageError("--from and --to are of the view: say --format stream or report, or --viz")


def check_decode(arguments: argparse.Namespace) -> None:
    """UsageError for what needs sound where there are only codes."""
    if arguments.inputs:
        raise UsageError("--decode reads one stream and no sound files")
    asked = vars(arguments)
    names = "all_outputs metrics evaluate budget_report save_features viz resume recursive".split()
    if arguments.format in VIEWS or any(asked[name] for name in names):
        raise UsageError("--decode writes ndjson, json, text, npz or sound; the rest needs sound")


def dispatch_card(arguments: argparse.Namespace) -> ExitStatus:
    """Examine the tokenizer; UsageError if something else is asked for as well."""
    asked = (getattr(arguments, name) for name in ("all_outputs", "decode", "output", "metrics"))
    if any(asked) or arguments.format not in (None, "text", "json"):
        raise UsageError("--report-card writes text or --format json, and files by --output-dir")
    kinds = ("txt", "json", "png") if arguments.output_dir else ()
    kinds = kinds if kinds and can_draw(arguments) else kinds[:2]
    outputs = Outputs(kinds, arguments.output_dir, force=arguments.force)
    sources = list_sources(arguments, outputs) if arguments.inputs or arguments.stdin else ()
    form = arguments.format or "text"
    return run_report_card(sources, make_settings(arguments), outputs, form=form)


def do_act(arguments: argparse.Namespace) -> ExitStatus:
    """Do what needs no sound, and print what came of it."""
    if arguments.act in ACTS:
        lines, status = ACTS[arguments.act](make_settings(arguments))
    else:
        made = SCHEMAS[arguments.schema]() if arguments.schema else effective_config(arguments)
        lines, status = [json.dumps(made, indent=1)], ExitStatus.OK
    print("\n".join(lines), flush=True)
    return status


def dispatch(arguments: argparse.Namespace) -> ExitStatus:
    """Do what the arguments ask."""
    if arguments.act or arguments.schema:
        return do_act(arguments)
    if arguments.report_card:
        check_stretch(arguments)
        return dispatch_card(arguments)
    infer_format(arguments)
    check_stretch(arguments)
    check_pipe(arguments)
    settings, outputs = make_settings(arguments), make_outputs(arguments)
    if arguments.decode:
        check_decode(arguments)
        return run_decode(arguments.decode, settings, outputs, restyle=choose_style(arguments))
    if settings.deterministic and settings.precision == "bf16":
        raise UsageError("--deterministic is fp32: leave out --precision bf16")
    plan = Plan(arguments.resume, arguments.workers, arguments.shard)
    sources = list_sources(arguments, outputs)
    check_sources(sources, settings, outputs, plan=plan)
    # A list or folder of one file is a batch all the same: it has a manifest.
    if len(sources) > 1 or arguments.batch or arguments.recursive or plan != Plan():
        return Batch(settings, outputs, sources=sources, plan=plan).run()
    return Runner(settings, outputs, inputs=real_paths(sources)).run(sources[0])


@contextlib.contextmanager
def naming_config(path: str | None) -> Iterator[None]:
    """Say of what the options contradict where some of them come from."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{error} (options also come from {path})" if path else error) from error


class OneLine(logging.Formatter):
    """Whatever a message quotes, a path or an argument, it stays on its line."""

    def format(self, record: logging.LogRecord) -> str:
        """The message without control characters."""
        return visible(super().format(record), 2000)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; `argv`, without the program's name, is the process's if not given.

    Returns an ExitStatus: 0 all done, 1 some input failed, 2 usage, 3 something is missing, 130
    interrupted.
    """
    if sys.stderr is None:  # closed: words go nowhere, and no file may take its number
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    # `force`, as main may be called again in one process, with another stderr.
    logging.basicConfig(handlers=[handler], force=True)
    try:
        arguments = parse_arguments(argv)
        LOG.setLevel(arguments.log_level.upper())
        with naming_config(arguments.config), answering(interrupt, signal.SIGTERM):
            return dispatch(arguments)
    except SystemExit as request:  # --help ends so; main returns instead
        return int(request.code or 0)
    except TokenizerError as error:
        LOG.error("%s", error)
        LOG.debug("it came from here:", exc_info=True)
        return error.status
    # The reader has seen enough, as head does: that is success, and nothing to be said. Nor may
    # Python complain when it flushes stdout once more at exit.
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.OK
    except KeyboardInterrupt:
        LOG.error("interrupted")
        return ExitStatus.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
