#!/usr/bin/env python3
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
     8 Tokenizer                         uses 1 5 6 7
     9 Token stream                      uses 1 2
    10 Reading                           uses 1 4 6 9
    11 Evaluation                        uses 1 4 6
    12 Figures and report                uses 1 2 10 11
    13 Runs                              uses 1-12
    14 Command line                      uses 1 2 13

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
# ]
# ///

from __future__ import annotations

import argparse

import contextlib
import enum
import functools
import hashlib
import importlib
import io
import itertools
import json
import logging
import math
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata
import weakref
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import (
    Any,
    BinaryIO,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    NamedTuple,
    NoReturn,
    Sequence,
)

if __name__ == "__main__":
    # Many small products: OpenBLAS's threads would wait for each other longer than they work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402

LOG = logging.getLogger("neural_audio_tokenizer")


# 1 Vocabulary ------------------------------------------------------------------------------------
# Uses: nothing. Constants with their units, the settings, and the types that flow.

PROGRAM = "neural-audio-tokenizer"
VERSION = "0.1.0"
SCHEMA = "tims-ears"
FORMAT_VERSION = "2.0"

SAMPLE_RATE = 22050  # Hz, the analysis rate unless --resample says otherwise
HOP_FRACTION = 512 / 22050  # seconds a frame, at any analysis rate
CODEBOOK_SIZE = 1000  # codes 0-999: at most three digits, one LLM token each
NUM_QUANTIZERS = 4  # codebooks in each of the two chains
GRID = 1 / 64  # features and codewords are whole multiples of it, so sums of squares are exact
RAW_ENCODINGS = ("u8", "s8", "s16le", "s16be", "s24le", "s32le", "f32le", "f64le")
ENCODINGS = ("dense", "rle")


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


@dataclass(frozen=True)
class Settings:
    """All that decides the codes and the stream, gathered once from the command line."""

    codebook_init: str = "spectral"  # which ear, and so where the codebooks' seeds come from
    sample_rate: int = SAMPLE_RATE  # Hz every sound is resampled to before it is heard
    codebook_size: int = CODEBOOK_SIZE  # codes in each layer's codebook
    seed: int = 12342  # of the ear-training suite, k-means++ and dead-code renewal
    adapt: bool = False  # move the codebooks by EMA towards the given sound first
    raw: RawFormat | None = None  # read the input as this PCM, whatever it looks like
    encodings: tuple[str, ...] = ("dense",) * 8  # of each layer, in the order of LAYERS
    keyframe_interval: float = 5.0  # seconds between frames that restate every layer
    legend: bool = True  # write a legend line before a code's first frame
    compat_fallback: bool = False  # behave as if only numpy were installed
    cache_dir: str | None = None  # where codebooks are kept; None: the XDG cache directory
    use_cache: bool = True  # read and write that cache
    force_reinit: bool = False  # fit the codebooks again even if they are cached
    max_duration: float = 86400.0  # seconds after which a sound is refused
    quiet: bool = False  # no progress on stderr, only warnings and errors

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next (512 at 22,050 Hz)."""
        return max(1, round(self.sample_rate * HOP_FRACTION))

    @property
    def frame_rate(self) -> float:
        """Frames a second (43.066 at 22,050 Hz)."""
        return self.sample_rate / self.hop_length


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
        self._blocks, self._digest = blocks, digest

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._blocks

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


@dataclass(frozen=True)
class Outputs:
    """What to write, and where."""

    formats: tuple[str, ...] = ("ndjson",)  # names in SINKS
    folder: Path | None = None  # files named after the input go here
    path: Path | None = None  # or one file, under this very name
    metrics: Path | None = None  # the metrics once more, under this name
    stdout: str | None = None  # the format that goes to stdout
    force: bool = False  # overwrite what exists


# 2 Errors and optional packages ------------------------------------------------------------------
# Uses: 1. One error family with the exit status it leads to; what may be missing, and for what.


UMASK = os.umask(0o022)
os.umask(UMASK)  # reading the mask is only possible by setting it


class ExitStatus(enum.IntEnum):
    """What the program's exit status says."""

    OK = 0
    INPUT_FAILED = 1
    USAGE = 2
    MISSING = 3
    INTERRUPTED = 130


class TokenizerError(Exception):
    """Base of all errors whose message is meant for the user."""

    status = ExitStatus.INPUT_FAILED


class AudioError(TokenizerError):
    """This input cannot be heard."""


class StreamError(TokenizerError):
    """This token stream cannot be read."""


class OutputError(TokenizerError):
    """This output cannot be written."""


class UsageError(TokenizerError):
    """The command line asks for something that cannot be."""

    status = ExitStatus.USAGE


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
    "librosa": Package("Griffin-Lim reconstruction", "pip install librosa"),
    "matplotlib": Package("pictures", "pip install matplotlib"),
    "torch": Package("the neural ears", "pip install 'torch>=2.4,<2.12' 'torchaudio>=2.4,<2.12'"),
    "torchaudio": Package("resampling on a GPU", "pip install 'torchaudio>=2.4,<2.12'"),
    "transformers": Package("the neural ears' architectures", "pip install transformers"),
}


@functools.lru_cache(maxsize=None)
def load_package(name: str) -> tuple[Any, str]:
    """Import an optional package once; the module, or None and the reason why not."""
    try:
        return importlib.import_module(name), ""
    except ImportError as error:
        return None, f"{name} is not installed ({error})"
    except Exception as error:  # a broken binary may raise anything; it costs this package only
        return None, f"{name} is installed but does not load ({type(error).__name__}: {error})"


def available(name: str, settings: Settings) -> bool:
    """Whether an optional package loads and may be used."""
    return not settings.compat_fallback and load_package(name)[0] is not None


def require(name: str) -> Any:
    """Return an optional package's module.

    Raises
    ------
    MissingError
        If it is not installed or does not load; the message says what it serves and how to get it.
    """
    module, reason = load_package(name)
    if module is None:
        package = PACKAGES[name]
        raise MissingError(f"{reason}; it is needed for {package.purpose}: {package.install}")
    return module


def warn(message: str) -> None:
    """Say one line on stderr."""
    LOG.warning(message)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under its final name only when whole, and synced to disk."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tims-ears-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~UMASK)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


class Progress:
    """A bar on the terminal for what takes time; one line in a log; nothing when quiet."""

    def __init__(self, label: str, total: float, settings: Settings) -> None:
        self._label, self._total, self._done = label, total, 0.0
        self._quiet = settings.quiet
        self._bar = not settings.quiet and sys.stderr.isatty()

    def __enter__(self) -> Progress:
        if not self._quiet and not self._bar:
            LOG.info("%s ...", self._label)
        self.tick(0)
        return self

    def tick(self, amount: float = 1.0) -> None:
        """Say that so much more is done."""
        self._done = min(self._done + amount, self._total)
        if self._bar:
            share = self._done / self._total
            bar = ("#" * round(30 * share)).ljust(30, ".")
            print(f"\r{self._label} [{bar}] {share:4.0%}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *exc_info: object) -> None:
        if self._bar:
            print(file=sys.stderr)


# 3 Audio -----------------------------------------------------------------------------------------
# Uses: 1, 2. A path, a pipe or raw bytes -> hashed, mono float32 blocks at the wanted rate.

MIN_RATE, MAX_RATE = 1000, 768000  # Hz, what may be the rate of a sound
MAX_CHANNELS = 64  # seventh-order ambisonics; more is a lying header
LOUDEST = 32768.0  # full scale of float sound kept on the scale of 16-bit integers; more is clipped
BLOCK_SAMPLES = 1 << 18  # samples of all channels that are decoded at once, at most
HEAD_BYTES = 32  # enough for every pattern in MAGIC
WAV_HEADER_LIMIT = 1 << 20  # bytes before the format chunk, at most
TEXT_LIMIT = 120  # characters of a file's name that are shown
UNKNOWN_FRAMES = 1 << 62  # soundfile says this or more where a header does not tell
RESAMPLE_BLOCKS = 50  # blocks a second that go into a resampler: 20 ms each, at any rate
MATRIX_OUTPUTS = 32  # outputs that one matrix of the NumPy resampler makes
ZERO_CROSSINGS = 80  # of the NumPy resampler's sinc, on either side
KAISER_BETA = 11.6  # about 115 dB of stop band
ROLLOFF = 0.955  # cut-off as a part of the lower Nyquist rate; soxr HQ passes 0.913 of it
TABLE_PHASES = 512  # rows of the sinc table that odd ratios of rates interpolate in
RAW_HINT = "--raw reads its bytes as data"
FFMPEG_HINT = "apt install ffmpeg, brew install ffmpeg, or convert the input to WAV"
INVISIBLE = ("Cc", "Cf", "Zl", "Zp")  # Unicode categories: control, format, line, paragraph


class Pcm(NamedTuple):
    """How samples of one encoding become float32: (sample - offset) / full_scale."""

    dtype: str
    width: int
    full_scale: float = 1.0
    offset: float = 0.0


PCM = {
    "u8": Pcm("u1", 1, 128.0, 128.0),
    "s8": Pcm("i1", 1, 128.0),
    "s16le": Pcm("<i2", 2, 32768.0),
    "s16be": Pcm(">i2", 2, 32768.0),
    "s24le": Pcm("<i4", 3, 2147483648.0),  # widened to the upper three bytes of 32 bits
    "s32le": Pcm("<i4", 4, 2147483648.0),
    "f32le": Pcm("<f4", 4),
    "f64le": Pcm("<f8", 8),
}
WAV_PCM, WAV_FLOAT, WAV_EXTENSIBLE = 1, 3, 0xFFFE
WAV_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
WAV_ENCODINGS = {
    (WAV_PCM, 8): "u8",
    (WAV_PCM, 16): "s16le",
    (WAV_PCM, 24): "s24le",
    (WAV_PCM, 32): "s32le",
    (WAV_FLOAT, 32): "f32le",
    (WAV_FLOAT, 64): "f64le",
}
# What programs that cannot seek back write for a length: ffmpeg, GStreamer, sox, espeak-ng, arecord
WAV_PLACEHOLDERS = (range(0, 1), range(0x7FFFEF00, 0x80000101), range(0xFFFFEF00, 0x100000000))


class Format(NamedTuple):
    """A known kind of file: who decodes it, and whether ffmpeg may try where that one fails."""

    label: str
    decoder: str
    either: bool = False


WAV = Format("WAV", "wav")
PACKED_WAV = Format("compressed WAV", "soundfile", either=True)
MPEG = Format("MP3", "soundfile", either=True)
ADTS = Format("AAC", "ffmpeg")
TRANSPORT_STREAM = Format("MPEG-TS", "ffmpeg")
MAGIC = tuple(
    (re.compile(pattern, re.DOTALL), form)
    for pattern, form in (
        (rb"RIFF....WAVE", WAV),
        (rb"RIFX....WAVE|RF64....WAVE", Format("RF64", "soundfile", either=True)),
        (rb"riff\x2e\x91\xcf\x11", Format("W64", "soundfile", either=True)),
        (rb"FORM....(AIFF|AIFC|8SVX)", Format("AIFF", "soundfile", either=True)),
        (rb"fLaC[\0\x80]", Format("FLAC", "soundfile")),
        (rb"OggS\0", Format("OGG", "soundfile", either=True)),
        (rb"caff\0\x01", Format("CAF", "soundfile", either=True)),
        (rb"\.snd\0\0|dns\..\0\0\0", Format("AU", "soundfile", either=True)),
        (rb"ID3[\x02-\x04]", MPEG),
        (rb"Creative Voice File\x1a", Format("VOC", "soundfile", either=True)),
        (rb"NIST_1A\n", Format("SPHERE", "soundfile", either=True)),
        (rb"....(ftyp|moov|mdat)|\0\0\0\x08(wide|free|skip)", Format("MP4", "ffmpeg")),
        (rb"\x1a\x45\xdf\xa3", Format("Matroska or WebM", "ffmpeg")),
        (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Format("WMA or ASF", "ffmpeg")),
        (rb"RIFF....AVI ", Format("AVI", "ffmpeg")),
        (rb"BW64....WAVE", Format("BW64", "ffmpeg")),
        (rb"FLV\x01", Format("FLV", "ffmpeg")),
        (rb"wvpk", Format("WavPack", "ffmpeg")),
        (rb"MAC .[\x0e-\x10]", Format("Monkey's Audio", "ffmpeg")),
        (rb"MPCKSH|MP\+[\x07\x17]", Format("Musepack", "ffmpeg")),
        (rb"TTA1[\x01-\x03]\0", Format("TTA", "ffmpeg")),
        (rb"DSD \x1c|FRM8\0", Format("DSD", "ffmpeg")),
        (rb"#!AMR", Format("AMR", "ffmpeg")),
        (rb"\.RMF|\.ra\xfd", Format("RealAudio", "ffmpeg")),
        (rb"\x0b\x77", Format("AC-3", "ffmpeg")),
        (rb"\x7f\xfe\x80\x01", Format("DTS", "ffmpeg")),
        (rb"\0\0\x01\xba", Format("MPEG-PS", "ffmpeg")),
    )
)
AUDIO_EXTENSIONS = frozenset(
    ".wav .wave .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .au .snd .w64 .rf64 .caf".split()
    + ".m4a .mp4 .aac .wma .webm .mka .mkv .mov .avi .amr .ac3 .wv .ape".split()
)
# kbit/s by index 1-14 (ISO 11172-3, 2.4.2.3); Layer I, which nobody writes, is left out
MPEG1_LAYER2 = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
MPEG1_LAYER3 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
MPEG2_LAYER23 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
MPEG_RATES = (44100, 48000, 32000)  # Hz of MPEG-1; MPEG-2 has half, MPEG-2.5 a quarter


class ByteReader:
    """Bytes of a file or pipe in order and as they arrive, with a look ahead."""

    def __init__(self, file: Any) -> None:
        # read1 hands on what a pipe holds now; read would wait until a whole buffer is full
        self._read = getattr(file, "read1", file.read)
        self._ahead = b""
        self.position = 0

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end, and leave them to be read."""
        while len(self._ahead) < size:
            data = self._read(max(size - len(self._ahead), 4096))
            if not data:
                break
            self._ahead += data
        return self._ahead[:size]

    def read(self, size: int) -> bytes:
        """Return what is there now, at most `size` bytes; none only at the end."""
        data = self._ahead[:size] or self._read(size)
        self._ahead = self._ahead[size:]
        self.position += len(data)
        return data

    def take(self, size: int) -> bytes:
        """Return exactly `size` bytes, fewer only at the end."""
        self.peek(size)
        return self.read(size) if size else b""

    def skip(self, size: int) -> None:
        """Pass over `size` bytes."""
        while size > 0:
            data = self.read(min(size, BLOCK_SAMPLES))
            if not data:
                return
            size -= len(data)


class Input(NamedTuple):
    """What is to be decoded; a pipe has neither path nor size."""

    name: str
    path: str | None
    size: int | None
    reader: ByteReader


class Decoded(NamedTuple):
    """A sound as its decoder gives it: blocks are float32 [n, channels]."""

    source: Source
    blocks: Iterator[np.ndarray]


def visible(text: str, limit: int = TEXT_LIMIT) -> str:
    """Drop control and format characters, show bytes that were no UTF-8 as U+FFFD, cut."""
    kinds = ((char, unicodedata.category(char)) for char in text)
    shown = ("\ufffd" if kind == "Cs" else char for char, kind in kinds if kind not in INVISIBLE)
    return "".join(shown)[:limit]


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


class Guarded:
    """Iterate blocks under a name for their errors, and let go of all they hold at any end.

    A generator would not do: one that was never started does not clean up when it is closed.
    """

    def __init__(
        self, blocks: Iterator[np.ndarray], name: str, *, stack: contextlib.ExitStack
    ) -> None:
        self._blocks, self._name = blocks, name
        self.close = weakref.finalize(self, stack.close)

    def __iter__(self) -> Guarded:
        return self

    def __next__(self) -> np.ndarray:
        if not self.close.alive:
            raise StopIteration
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            with speaking_of(self._name):
                block = next(self._blocks)
            stack.pop_all()
        return block


def check_shape(sample_rate: int, channels: int) -> None:
    """Refuse rates and channel counts that no sound has."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(f"claims {channels} channels; 1 to {MAX_CHANNELS} can be read")
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise AudioError(
            f"claims a sample rate of {sample_rate} Hz; {MIN_RATE} to {MAX_RATE} Hz can be read"
        )


def block_frames(sample_rate: int, channels: int) -> int:
    """Sample frames to decode at once: a second, or less where that would be much memory."""
    return max(1, min(sample_rate, BLOCK_SAMPLES // channels))


def rechunk(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yield the same rows in blocks of `size`, the last one shorter.

    Parameters
    ----------
    blocks : iterable of ndarray, [n] or [n, C]
        Blocks of any sizes, empty ones too. They are not copied where that can be spared, so
        their producer must not write to them again.
    size : int
        Rows of each block that is yielded.
    """
    held: list[np.ndarray] = []
    count = 0
    for block in blocks:
        start = min(size - count, len(block)) if count else 0
        if start:
            held.append(block[:start])
            count += start
        if count == size:
            yield np.concatenate(held)
            held, count = [], 0
        while len(block) - start >= size:
            yield block[start : start + size]
            start += size
        if start < len(block):
            held, count = [block[start:]], len(block) - start
    if count:
        yield np.concatenate(held)


def decode_pcm(data: bytes, encoding: str) -> np.ndarray:
    """Return whole samples of one of RAW_ENCODINGS as float32 [n] in full scale +-1."""
    pcm = PCM[encoding]
    if pcm.width == 3:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        samples = wide.view(pcm.dtype)[:, 0]
    else:
        samples = np.frombuffer(data, pcm.dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # doubles beyond float32 become infinite
        sound = samples.astype(np.float32)
    if pcm.offset:
        sound -= np.float32(pcm.offset)
    if pcm.full_scale != 1.0:
        sound *= np.float32(1 / pcm.full_scale)  # a power of two, so exact
    return sound


def byte_blocks(reader: ByteReader, size: int, *, limit: int | None) -> Iterator[bytes]:
    """Yield bytes as they come, at most `size` at once and `limit` in all."""
    while limit is None or limit > 0:
        data = reader.read(size if limit is None else min(size, limit))
        if not data:
            return
        if limit is not None:
            limit -= len(data)
        yield data


def pcm_blocks(
    reader: ByteReader, form: RawFormat, *, limit: int | None = None
) -> Iterator[np.ndarray]:
    """Yield float32 [n, channels] as it comes, without the last frame if it is not whole."""
    frame = PCM[form.encoding].width * form.channels
    size = block_frames(form.sample_rate, form.channels) * frame
    rest = b""  # a pipe may hand on half a frame
    for data in byte_blocks(reader, size, limit=limit):
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


def complete(
    blocks: Iterator[np.ndarray], promised: int, *, sample_rate: int, slack: int = 0
) -> Iterator[np.ndarray]:
    """Pass blocks on and refuse an end that comes more than `slack` frames early."""
    held = 0
    for block in blocks:
        held += len(block)
        yield block
    if held < promised - slack:
        raise truncated(promised, held, sample_rate)


def read_raw(given: Input, form: RawFormat) -> Decoded:
    """Read any bytes as PCM."""
    if form.encoding not in PCM:
        raise UsageError(f"raw encoding {form.encoding} is none of {', '.join(RAW_ENCODINGS)}")
    check_shape(form.sample_rate, form.channels)
    duration = None
    if given.size is not None:
        frames = given.size // (PCM[form.encoding].width * form.channels)
        duration = frames / form.sample_rate
    source = Source(given.name, "raw", form.sample_rate, form.channels, duration)
    return Decoded(source, pcm_blocks(given.reader, form))


def find_wav_format(reader: ByteReader) -> bytes:
    """Look ahead for the body of a WAV's format chunk, leaving every byte to be read."""
    at = 12
    while at < WAV_HEADER_LIMIT:
        header = reader.peek(at + 8)[at:]
        name, size = header[:4], int.from_bytes(header[4:], "little")
        if name == b"fmt ":
            return reader.peek(at + 8 + min(size, 40))[at + 8 :]
        if name == b"data" or len(header) < 8:
            break
        at += 8 + size + size % 2
    raise AudioError(f"broken WAV: no format chunk before the sound; {RAW_HINT}")


def parse_wav_format(chunk: bytes) -> RawFormat | None:
    """Read a format chunk; None if its codec is not plain PCM or float.

    Raises
    ------
    AudioError
        If the chunk is too short, contradicts itself or has a depth that no WAV has.
    """
    if len(chunk) < 16:
        raise AudioError(f"broken WAV: format chunk of {len(chunk)} bytes; {RAW_HINT}")
    tag, channels, sample_rate, _, align, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == WAV_EXTENSIBLE and chunk[26:40] == WAV_GUID_TAIL:
        tag = int.from_bytes(chunk[24:26], "little")
    if tag not in (WAV_PCM, WAV_FLOAT):
        return None
    check_shape(sample_rate, channels)
    encoding = WAV_ENCODINGS.get((tag, bits))
    if encoding is None:
        kind = "PCM" if tag == WAV_PCM else "float"
        raise AudioError(f"WAV of {bits}-bit {kind} is not supported; export it as 16 or 24 bit")
    if align != channels * bits // 8:
        raise AudioError(
            f"broken WAV: {channels} channels of {bits} bits in frames of {align} bytes; {RAW_HINT}"
        )
    return RawFormat(encoding, sample_rate, channels)


def seek_wav_data(reader: ByteReader) -> int | None:
    """Read up to the first byte of sound; its length in bytes, or None for "until the end"."""
    reader.take(12)
    while True:
        header = reader.take(8)
        if len(header) < 8:
            raise AudioError("broken WAV: it ends before its sound; fetch or export it again")
        size = int.from_bytes(header[4:], "little")
        if header[:4] == b"data":
            return None if any(size in span for span in WAV_PLACEHOLDERS) else size
        reader.skip(size + size % 2)


def read_wav(given: Input, form: RawFormat) -> Decoded:
    """Read a WAV of plain PCM or float, front to back, so that a pipe will do."""
    limit = seek_wav_data(given.reader)
    # a pipe can only be found short at its end, a file before any of it is used
    blocks = pcm_blocks(given.reader, form, limit=limit)
    duration = None
    frame = PCM[form.encoding].width * form.channels
    if given.size is not None:
        left = given.size - given.reader.position
        if limit is not None and limit // frame > left // frame:
            raise truncated(limit // frame, left // frame, form.sample_rate)
        duration = (left if limit is None else limit) // frame / form.sample_rate
    if limit is not None:
        blocks = complete(blocks, limit // frame, sample_rate=form.sample_rate)
    source = Source(given.name, "audio", form.sample_rate, form.channels, duration)
    return Decoded(source, blocks)


def spool(reader: ByteReader, stack: contextlib.ExitStack) -> str:
    """Write a pipe to a temporary file, which goes when the stack closes; its path."""
    folder = tempfile.mkdtemp(prefix=PROGRAM + "-")
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    path = os.path.join(folder, "input")  # the input's own name is not to be trusted
    with open(path, "wb") as file:
        for data in byte_blocks(reader, BLOCK_SAMPLES, limit=None):
            file.write(data)
    return path


def open_nameless(path: str) -> BinaryIO:
    """Open a file so that nobody can judge it by its name (soundfile does, on .raw)."""
    return open(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), "rb")


def soundfile_blocks(file: Any, label: str) -> Iterator[np.ndarray]:
    """Yield float32 [n, channels] of an open SoundFile."""
    size = block_frames(file.samplerate, file.channels)
    while True:
        try:
            block = file.read(size, dtype="float32", always_2d=True)
        except require("soundfile").LibsndfileError as error:
            raise AudioError(f"broken {label} ({error.error_string})") from error
        if not len(block):
            return
        yield block


def read_soundfile(given: Input, path: str, *, label: str, stack: contextlib.ExitStack) -> Decoded:
    """Read what libsndfile can decode."""
    soundfile = require("soundfile")
    raw_file = stack.enter_context(open_nameless(path))
    try:
        file = stack.enter_context(soundfile.SoundFile(raw_file))
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".")
        raise AudioError(f"{label} that cannot be decoded ({reason}); {RAW_HINT}") from error
    rate, channels = file.samplerate, file.channels
    check_shape(rate, channels)
    blocks = soundfile_blocks(file, label)
    if not 0 < file.frames < UNKNOWN_FRAMES:
        # a FLAC that came out of a pipe: soundfile would seek after each read, and fail
        file.seekable = lambda: False
        return Decoded(Source(given.name, "audio", rate, channels), blocks)
    # a tenth of a second, since MP3 encoders disagree on the padding that they declare
    blocks = complete(blocks, file.frames, sample_rate=rate, slack=rate // 10)
    return Decoded(Source(given.name, "audio", rate, channels, file.frames / rate), blocks)


def ffmpeg_command(program: str, path: str) -> list[str]:
    """Decode the first sound track to float WAV on stdout, with no network and no tags."""
    options = "-nostdin -v error -xerror -protocol_whitelist file -i".split()
    track = "-map 0:a:0 -map_metadata -1 -f wav -c:a pcm_f32le -bitexact pipe:1".split()
    # file: and an absolute path, or a name like "concat:a|b" or "-y" would be a command
    return [program, *options, "file:" + os.path.abspath(path), *track]


def ffmpeg_complaint(errors: BinaryIO) -> str:
    """Return ffmpeg's first line of stderr without addresses and paths, "" if it has none."""
    errors.seek(0)
    line = errors.readline(4096).decode("utf-8", "replace").strip()
    return visible(re.sub(r"^\[[^]]* @ 0x[0-9a-f]+\] |^file:.*?: ", "", line), 200)


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """End a decoder and reap it, whether or not it is done."""
    process.kill()
    if process.stdout:
        process.stdout.close()
    process.wait()


def ffmpeg_blocks(
    process: subprocess.Popen[bytes], blocks: Iterator[np.ndarray], *, errors: BinaryIO, name: str
) -> Iterator[np.ndarray]:
    """Pass blocks on, then look at how ffmpeg has ended."""
    yield from blocks
    status, complaint = process.wait(), ffmpeg_complaint(errors)
    if status:
        raise AudioError(f"cannot be decoded by ffmpeg ({complaint or f'status {status}'})")
    if complaint:
        warn(f"{name}: ffmpeg complains ({complaint}); what it gave is used")


def read_ffmpeg(given: Input, path: str, *, stack: contextlib.ExitStack) -> Decoded:
    """Read what ffmpeg can decode, as it decodes it."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise MissingError("ffmpeg is needed for it; " + FFMPEG_HINT)
    # a file, since a pipe that nobody reads would fill up and stall ffmpeg
    errors = stack.enter_context(tempfile.TemporaryFile())
    process = subprocess.Popen(
        ffmpeg_command(program, path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
    )
    stack.callback(stop_process, process)
    reader = ByteReader(process.stdout)
    empty: Iterator[np.ndarray] = iter(())
    if not reader.peek(1):
        next(ffmpeg_blocks(process, empty, errors=errors, name=given.name), None)
        raise AudioError("holds no sound that ffmpeg finds")
    # ffmpeg's own WAV header tells rate and channels, so no second program has to be asked
    form = parse_wav_format(find_wav_format(reader))
    if form is None:
        raise AudioError("ffmpeg gave no float WAV; its version may be too old")
    seek_wav_data(reader)
    blocks = ffmpeg_blocks(process, pcm_blocks(reader, form), errors=errors, name=given.name)
    return Decoded(Source(given.name, "audio", form.sample_rate, form.channels), blocks)


def read_packed(
    given: Input, form: Format, *, settings: Settings, stack: contextlib.ExitStack
) -> Decoded:
    """Read a format of others by soundfile or ffmpeg, whichever knows it and is here."""
    path = given.path or spool(given.reader, stack)
    if form.decoder == "ffmpeg":
        return read_ffmpeg(given, path, stack=stack)
    has_ffmpeg = shutil.which("ffmpeg") is not None
    if available("soundfile", settings):
        try:
            return read_soundfile(given, path, label=form.label, stack=stack)
        except AudioError as error:
            if not (form.either and has_ffmpeg):
                raise
            warn(f"{given.name}: read by ffmpeg instead of soundfile: {error}")
    elif not has_ffmpeg:
        install = PACKAGES["soundfile"].install
        raise MissingError(f"{form.label} needs soundfile ({install}) or ffmpeg; {FFMPEG_HINT}")
    else:
        warn(f"{given.name}: read by ffmpeg, because soundfile is not in use")
    return read_ffmpeg(given, path, stack=stack)


def mpeg_frame_length(head: bytes) -> int:
    """Return the bytes of the MPEG audio frame (Layer II or III) that begins here, else 0."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    kbps_index, rate_index = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer not in (1, 2) or kbps_index in (0, 15) or rate_index == 3:
        return 0
    mpeg1 = version == 3
    table = (MPEG1_LAYER3 if layer == 1 else MPEG1_LAYER2) if mpeg1 else MPEG2_LAYER23
    rate = MPEG_RATES[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    scale = 144 if mpeg1 or layer == 2 else 72
    return scale * 1000 * table[kbps_index - 1] // rate + (head[2] >> 1 & 1)


def adts_frame_length(head: bytes) -> int:
    """Return the bytes of the AAC frame (ISO 13818-7, 6.2) that begins here, else 0."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5


def repeats(reader: ByteReader, frame_length: Callable[[bytes], int]) -> bool:
    """Whether a frame begins here and, where it ends, another one; one sync word is chance."""
    length = frame_length(reader.peek(HEAD_BYTES))
    if length < 4:
        return False
    following = reader.peek(length + HEAD_BYTES)[length:]
    return not following or frame_length(following) > 0


def sniff(reader: ByteReader) -> Format | None:
    """Tell a format by its first bytes; None if they are no sound that is known."""
    head = reader.peek(HEAD_BYTES)
    for pattern, form in MAGIC:
        if pattern.match(head):
            return form
    if repeats(reader, mpeg_frame_length):
        return MPEG
    if repeats(reader, adts_frame_length):
        return ADTS
    if head[:1] == b"G" and reader.peek(4 * 188 + 1)[::188] == b"G" * 5:
        return TRANSPORT_STREAM
    return None


def read_misnamed(
    given: Input, path: str, *, settings: Settings, stack: contextlib.ExitStack
) -> Decoded:
    """Read a file that is named like sound but does not begin like any, or refuse it."""
    label = os.path.splitext(path)[1].lower() + " file"
    if available("soundfile", settings):  # an MP3 may begin with rubbish
        return read_soundfile(given, path, label=label, stack=stack)
    raise AudioError(f"{label} that begins like no known sound; {RAW_HINT}")


def decode(given: Input, settings: Settings, *, stack: contextlib.ExitStack) -> Decoded:
    """Choose the decoder by what the bytes say, not by what the file is called."""
    if not given.reader.peek(1):
        raise AudioError("empty: no bytes at all; give a file or pipe that holds sound")
    if settings.raw:
        return read_raw(given, settings.raw)
    form = sniff(given.reader)
    if form is WAV:  # by our own parser always, so that the codes do not depend on packages
        plain = parse_wav_format(find_wav_format(given.reader))
        if plain:
            return read_wav(given, plain)
        form = PACKED_WAV
    if form:
        return read_packed(given, form, settings=settings, stack=stack)
    if given.path and os.path.splitext(given.path)[1].lower() in AUDIO_EXTENSIONS:
        return read_misnamed(given, given.path, settings=settings, stack=stack)
    default = RawFormat()
    warn(
        f"{given.name}: no known sound format; its bytes are read as {default.encoding}, "
        f"{default.sample_rate} Hz, {default.channels} channel (--raw says otherwise)"
    )
    return read_raw(given, default)


def open_stdin(name: str) -> Input:
    """Take what is piped in."""
    stdin = getattr(sys.stdin, "buffer", None)
    if stdin is None:
        raise AudioError("is closed; pipe sound into it or name a file")
    if stdin.isatty():
        raise AudioError("is a terminal; pipe sound into it or name a file")
    return Input(name, None, None, ByteReader(stdin))


def open_file(path: str, name: str, *, stack: contextlib.ExitStack) -> Input:
    """Open a regular file and nothing else."""
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise AudioError("no such file; check the path") from error
    except ValueError as error:  # a null byte
        raise AudioError("no path can look like this; check it") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError("is a directory; name the files in it")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError("not a regular file; pipe it through - instead")
    file = stack.enter_context(open(path, "rb"))
    return Input(name, path, status.st_size, ByteReader(file))


def tame(block: np.ndarray) -> tuple[int, int]:
    """Silence samples that are not finite and clip absurd ones, in place; how many of each."""
    peak = np.maximum(block.max(), -block.min())
    if peak <= LOUDEST:  # false for NaN too, so the common case costs one look
        return 0, 0
    wild = ~np.isfinite(block)
    block[wild] = 0
    loud = np.abs(block) > LOUDEST
    np.clip(block, -LOUDEST, LOUDEST, out=block)
    return int(wild.sum()), int(loud.sum())


def report_wild(name: str, wild: int, loud: int) -> None:
    """Say what `tame` has changed in a whole sound."""
    if wild:
        warn(f"{name}: {wild} samples were not finite and were read as 0")
    if loud:
        warn(f"{name}: {loud} samples beyond +-{LOUDEST:g} were clipped to that")


def too_long(limit: float) -> AudioError:
    """Say that a sound exceeds --max-duration, in seconds."""
    return AudioError(f"longer than {limit:g} s; --max-duration raises the limit")


def checked(decoded: Decoded, digest: Any, *, limit: float) -> Iterator[np.ndarray]:
    """Pass blocks on tamed and hashed; refuse what is too long or all rubbish."""
    source = decoded.source
    if source.duration is not None and source.duration > limit:
        raise too_long(limit)
    frames = wild = loud = 0
    for block in decoded.blocks:
        frames += len(block)
        if frames > limit * source.sample_rate:
            raise too_long(limit)
        more_wild, more_loud = tame(block)
        wild, loud = wild + more_wild, loud + more_loud
        # after taming, because the bits of a NaN differ between decoders and machines
        digest.update(np.ascontiguousarray(block, "<f4").reshape(-1).data)
        yield block
    if frames and wild == frames * source.channels:
        raise AudioError("not one sample is a finite number; export it again")
    report_wild(source.name, wild, loud)


def primed(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Decode the first block now, so that a sound that fails does so before it is used."""
    first = next(blocks, None)
    if first is None:
        raise AudioError("holds no samples; nothing to hear")
    return itertools.chain([first], blocks)


def downmix(block: np.ndarray) -> np.ndarray:
    """Return the mean over channels, [n, C] -> [n]; channel by channel, so blind to n."""
    if block.shape[1] == 1:
        return block[:, 0]
    # np.mean may add in another order for another block size
    mono = block[:, 0] + block[:, 1]
    for channel in range(2, block.shape[1]):
        mono += block[:, channel]
    mono /= np.float32(block.shape[1])
    return mono


def sinc_filter(times: np.ndarray, cutoff: float, *, half: int) -> np.ndarray:
    """Return a Kaiser-windowed sinc low-pass at `times` in input samples, 0 beyond +-half.

    Smith, "Digital Audio Resampling" (CCRMA); `cutoff` is a part of the input's Nyquist rate.
    """
    inside = np.maximum(0.0, 1.0 - (times / half) ** 2)
    window = np.i0(KAISER_BETA * np.sqrt(inside)) / np.i0(KAISER_BETA)
    return np.where(inside > 0, cutoff * np.sinc(cutoff * times) * window, 0.0)


def blend_rows(table: np.ndarray, rows: np.ndarray, blends: np.ndarray) -> np.ndarray:
    """Return rows of a table, each moved by a part of 0-1 towards the next row."""
    weights = table[rows]
    weights += blends[:, None] * (table[rows + 1] - weights)
    return weights


class PolyphaseStream:
    """Resample by a Kaiser-windowed sinc, block by block, for rates of a short common period.

    In `down` input samples there are `up` outputs, each with its own phase of the filter. A
    period of them is one row of windows times matrices that never change, one for every few
    outputs: few enough that BLAS stays on one thread, where threads would cost more than help.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        cutoff = ROLLOFF * min(1.0, rate_out / rate_in)
        half = math.ceil(ZERO_CROSSINGS / cutoff)
        common = math.gcd(rate_in, rate_out)
        # a period fills a matrix where it can, but is no longer than a block: latency
        periods = max(1, min(common // RESAMPLE_BLOCKS, MATRIX_OUTPUTS * common // rate_out))
        self._down, up = periods * rate_in // common, periods * rate_out // common
        self._span = 2 * half + self._down
        self._parts: list[tuple[int, np.ndarray]] = []
        for first in range(0, up, MATRIX_OUTPUTS):
            centres = np.arange(first, min(first + MATRIX_OUTPUTS, up)) * rate_in / rate_out
            start = int(centres[0])
            times = np.arange(start, int(centres[-1]) + 2 * half + 1)[:, None] - half - centres
            matrix = sinc_filter(times, cutoff, half=half).astype(np.float32)
            self._parts.append((start, matrix))
        self._held = np.zeros(half, np.float32)
        self._tail = np.zeros(self._span, np.float32)

    def resample_chunk(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Return the outputs that are complete after this block, as soxr.ResampleStream does."""
        self._held = np.concatenate([self._held, block, self._tail[: len(self._tail) * last]])
        periods = (len(self._held) - self._span) // self._down + 1
        if periods <= 0:
            return np.zeros(0, np.float32)
        sound = []
        for start, matrix in self._parts:
            windows = np.lib.stride_tricks.sliding_window_view(self._held[start:], len(matrix))
            # a copy, because BLAS takes no overlapping rows
            rows = np.ascontiguousarray(windows[: periods * self._down : self._down])
            sound.append(rows @ matrix)
        self._held = self._held[periods * self._down :]
        return np.concatenate(sound, axis=1).reshape(-1)


class InterpolatedStream:
    """Resample by the same sinc for any ratio: each output's filter is read off a fine table."""

    def __init__(self, rate_in: int, rate_out: int) -> None:
        cutoff = ROLLOFF * min(1.0, rate_out / rate_in)
        half = math.ceil(ZERO_CROSSINGS / cutoff)
        self._rates = rate_in, rate_out
        phases = np.arange(TABLE_PHASES + 1)[:, None] / TABLE_PHASES
        times = np.arange(2 * half + 1) - half - phases
        self._table = sinc_filter(times, cutoff, half=half).astype(np.float32)
        self._held = np.zeros(half, np.float32)
        self._tail = np.zeros(2 * half + 2, np.float32)
        self._position = 0  # of the next output in the held samples, in 1 / rate_out of one

    def resample_chunk(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Return the outputs that are complete after this block, as soxr.ResampleStream does."""
        rate_in, rate_out = self._rates
        self._held = np.concatenate([self._held, block, self._tail[: len(self._tail) * last]])
        taps = self._table.shape[1]
        room = (len(self._held) - taps + 1) * rate_out - self._position
        if room <= 0:
            return np.zeros(0, np.float32)
        positions = self._position + np.arange(-(-room // rate_in), dtype=np.int64) * rate_in
        starts, parts = np.divmod(positions, rate_out)
        rows, blends = np.divmod(parts * (TABLE_PHASES / rate_out), 1.0)
        weights = blend_rows(self._table, rows.astype(int), blends.astype(np.float32))
        windows = np.lib.stride_tricks.sliding_window_view(self._held, taps)[starts]
        following = int(positions[-1]) + rate_in
        used = min(following // rate_out, len(self._held))
        self._position = following - used * rate_out
        self._held = self._held[used:]
        return np.einsum("nt,nt->n", windows, weights)


def make_resampler(rate_in: int, rate_out: int, *, settings: Settings) -> Any:
    """Return soxr's stream, or the NumPy one that agrees with it to -90 dB below 0.9 Nyquist."""
    if available("soxr", settings):
        return require("soxr").ResampleStream(rate_in, rate_out, 1, dtype="float32", quality="HQ")
    if math.gcd(rate_in, rate_out) >= RESAMPLE_BLOCKS:
        return PolyphaseStream(rate_in, rate_out)
    return InterpolatedStream(rate_in, rate_out)


def resample(
    blocks: Iterable[np.ndarray], rate_in: int, *, settings: Settings
) -> Iterator[np.ndarray]:
    """Yield mono float32 [n] at the settings' rate, in time with the input.

    N samples become ceil(N * rate_out / rate_in). At equal rates they pass through untouched.
    """
    rate_out = settings.sample_rate
    if rate_in == rate_out:
        yield from blocks
        return
    stream = make_resampler(rate_in, rate_out, settings=settings)
    size = max(1, rate_in // RESAMPLE_BLOCKS)
    heard = given = 0
    # equal blocks, so that no rounding inside a resampler can depend on how the sound arrived
    for block in rechunk(blocks, size):
        heard += len(block)
        sound = stream.resample_chunk(block)
        given += len(sound)
        if len(sound):
            yield sound
    # silence pushes the end out of the filter; what is due of it depends on the length alone
    silence = np.zeros(max(size, 2 * rate_in // rate_out + 2), np.float32)
    due = -(-heard * rate_out // rate_in) - given
    yield stream.resample_chunk(silence, last=True)[:due]


def open_audio(source: str, settings: Settings) -> Audio:
    """Open a sound by path, or stdin as "-", and decode its first block.

    Codes depend on the decoded samples only: WAV is read by the same code whatever is installed,
    and blocks may arrive in any sizes. `Audio.sha256` covers the samples as decoded, float32,
    interleaved, after those that were not finite became 0 and before downmix and resampling.

    Parameters
    ----------
    source : str
        A regular file's path, or "-". A pipe is read as it arrives; formats that need seeking
        are first written to a temporary file.
    settings : Settings
        `sample_rate` in Hz, `raw`, `max_duration` in seconds and `compat_fallback` are heeded.

    Returns
    -------
    Audio
        Blocks of mono float32 [n]: a second each from a file, as they come from a pipe. Iterate
        it to the end or close it, to let go of file, decoder and temporary file.

    Raises
    ------
    AudioError
        If the input is missing, empty, broken, too long or no regular file; also while iterating.
    MissingError
        If its format needs soundfile or ffmpeg and neither is here.
    """
    name = "stdin" if source == "-" else visible(os.path.basename(source.rstrip(os.sep)))
    name = name or "input"
    with contextlib.ExitStack() as stack, speaking_of(name):
        given = open_stdin(name) if source == "-" else open_file(source, name, stack=stack)
        decoded = decode(given, settings, stack=stack)
        digest = hashlib.sha256()
        blocks = primed(checked(decoded, digest, limit=settings.max_duration))
        sound = resample(map(downmix, blocks), decoded.source.sample_rate, settings=settings)
        if given.path:
            sound = rechunk(sound, settings.sample_rate)
        guarded = Guarded(sound, name, stack=stack.pop_all())
        return Audio(decoded.source, settings.sample_rate, blocks=guarded, digest=digest)


# 4 Signal analysis -------------------------------------------------------------------------------
# Uses: 1. Pure NumPy in float64: blocks of sound -> rows of what is measured on each frame.

N_MELS = 64
MEL_FLOOR = 1e-6  # of a frame's power, added to every band: what lies 60 dB below is not heard
POWER_FLOOR = 1e-12  # absolute, full scale = 1: what a band of digital silence reads
LEVEL_FLOOR = -100.0  # dBFS, the level of digital silence
PEAK_TOP = 4200.0  # Hz, highest spectral peak that counts as pitch (C8)
LOWEST_NOTE, NUM_NOTES = 28, 72  # MIDI: E1 (41 Hz) to D#7 (2489 Hz)
NUM_BANDS = 12  # groups of mel bands that describe a scene
FAINT = 0.04  # amplitude (-28 dB) that a group of bands must exceed to be part of a scene
FLUX_EDGES = (200.0, 2500.0)  # Hz, between low, middle and high attacks
DELTA_FRAMES = 2  # a change is measured against this many frames ago (46 ms)
SCENE_FRAMES = 43  # frames of context each side that a scene is made of (1 s)
PULSE_FRAMES = 129  # frames before now that a pulse is made of (3 s); the past costs no lag
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
    flux: np.ndarray  # [T, 3] dB, rise in low, middle and high bands
    delta: np.ndarray  # [T, 1 + 6] dB, change of level and of low quefrencies in 46 ms
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
    return np.where(
        hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4)
    )


def mel_to_hz(mel: np.ndarray) -> np.ndarray:
    """Inverse of hz_to_mel."""
    mel = np.asarray(mel, dtype=np.float64)
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


def mel_edges(sample_rate: int) -> np.ndarray:
    """Corner frequencies in Hz of the mel bands [N_MELS + 2], from 30 Hz to 11 kHz or Nyquist."""
    top = min(sample_rate / 2, SAMPLE_RATE / 2)
    return mel_to_hz(np.linspace(hz_to_mel(30), hz_to_mel(top), N_MELS + 2))


@functools.lru_cache(maxsize=8)
def mel_filterbank(sample_rate: int, n_fft: int) -> np.ndarray:
    """Triangular filters [F, N_MELS]; neighbours add up to one, so bands add up to the power."""
    edges = mel_edges(sample_rate)
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
    power *= 2 / frames.shape[1]
    power[:, :2] = 0  # direct current and what lies below 20 Hz are not heard
    return power


def relative_mel(power: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """Log-mel of a power spectrum relative to its own power [T, N_MELS], in dB: gain-free."""
    mel = power @ bank
    total = mel.sum(axis=1, keepdims=True)
    floor = MEL_FLOOR * total + POWER_FLOOR
    return 10 * np.log10((mel + floor) / (total + N_MELS * floor))


def spectral_peaks(power: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find tonal peaks: row, position in bins (parabola through the log power) and power."""
    middle = power[:, 1:-1]
    reach = 12
    total = np.cumsum(np.pad(power, ((0, 0), (reach + 1, reach))), axis=1)
    around = (total[:, 2 * reach + 1 :] - total[:, : -2 * reach - 1])[:, 1:-1] / (2 * reach + 1)
    strong = (middle > 3 * around) & (middle > 1e-5 * power.max(axis=1, keepdims=True) + 1e-14)
    rows, bins = np.nonzero(strong & (middle > power[:, :-2]) & (middle >= power[:, 2:]))
    left, top, right = (np.log(power[rows, bins + k] + 1e-30) for k in range(3))
    offset = 0.5 * (left - right) / np.minimum(left - 2 * top + right, -1e-9)
    energy = power[rows, bins] + power[rows, bins + 1] + power[rows, bins + 2]
    return rows, bins + 1 + np.clip(offset, -0.5, 0.5), energy


class Pitches(NamedTuple):
    """What the spectral peaks of T frames say."""

    tonal: np.ndarray
    salience: np.ndarray
    pitch: np.ndarray
    partials: np.ndarray


HARMONIC_SHIFTS = np.rint(36 * np.log2(np.arange(1, 9))).astype(int)  # in thirds of a semitone
SPAN = 3 * NUM_NOTES


def harmonic_sum(heard: np.ndarray) -> np.ndarray:
    """Salience [T, SPAN] of fundamentals from peaks heard on a grid of thirds of semitones.

    A peak speaks for every fundamental it may be a harmonic of, less the higher the harmonic
    (Klapuri 2006, ISMIR, has the weighting's idea); a fundamental without a peak counts a quarter.
    """
    padded = np.pad(heard, ((0, 0), (0, 108)))
    parts = (0.8**h * padded[:, s : s + SPAN] for h, s in enumerate(HARMONIC_SHIFTS))
    salience = sum(parts) * (0.2 / (1 - 0.8**8))
    return salience * np.where(heard[:, :SPAN] > 0.05, 1.0, 0.25)


def measure_partials(power: np.ndarray, total: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Level in dB [T, 8] of the harmonics of a fundamental at a position in bins [T]."""
    centre = np.rint(position[:, None] * np.arange(1, NUM_PARTIALS + 1)).astype(int)
    rows = np.arange(len(power))[:, None]
    inside = (centre >= 2) & (centre < power.shape[1] - 2)
    near = [power[rows, np.where(inside, centre + k, 0)] for k in (-1, 0, 1)]
    level = 10 * np.log10(sum(near) * inside / total[:, None] + 10 ** (PARTIAL_FLOOR / 10))
    return level


def measure_pitches(power: np.ndarray, bin_hz: float) -> Pitches:
    """Tonality, salience of notes, and the strongest fundamental of each frame [T, F]."""
    rows, position, energy = spectral_peaks(power)
    total = power.sum(axis=1) + POWER_FLOOR
    tonal = np.minimum(1, np.bincount(rows, energy, minlength=len(power)) / total)
    note = 12 * np.log2(np.maximum(position * bin_hz, 1) / 440) + 69
    third = np.rint(3 * (note - LOWEST_NOTE) + 1)
    width = SPAN + 108
    inside = (third >= 0) & (third < width)
    cell = rows[inside] * width + third[inside].astype(np.int64)
    exact = np.zeros(len(power) * width)
    exact[cell] = note[inside]
    heard = np.bincount(cell, energy[inside], minlength=len(power) * width).reshape(-1, width)
    heard = (heard / total[:, None]) ** 0.3
    peaks = heard[:, :SPAN] > 0.05
    heard[:, 1:-1] = np.maximum(heard[:, 1:-1], 0.7 * np.maximum(heard[:, :-2], heard[:, 2:]))
    salience = harmonic_sum(heard)
    best = np.where(peaks, salience, 0).argmax(axis=1)
    every = np.arange(len(power))
    pitch = np.where(peaks[every, best], exact.reshape(-1, width)[every, best], 0.0)
    hertz = 440 * 2 ** ((pitch - 69) / 12)
    partials = measure_partials(power, total, np.where(pitch > 0, hertz / bin_hz, 0))
    return Pitches(tonal, salience.reshape(-1, NUM_NOTES, 3).max(axis=2), pitch, partials)


def fold_chroma(salience: np.ndarray) -> np.ndarray:
    """Salience of notes [T, n] from LOWEST_NOTE up -> strongest of each pitch class [T, 12]."""
    first = LOWEST_NOTE % 12
    missing = -(first + salience.shape[1]) % 12
    padded = np.pad(salience, ((0, 0), (first, missing)))
    return padded.reshape(len(salience), -1, 12).max(axis=1)


def band_amplitudes(mel: np.ndarray) -> np.ndarray:
    """Relative log-mel in dB -> amplitude of NUM_BANDS groups of bands, 1 where all power is there.

    What lies FAINT below the whole counts as nothing: noise 30 dB down must not colour a scene.
    """
    edges = np.arange(NUM_BANDS) * N_MELS // NUM_BANDS
    return np.maximum(np.sqrt(np.add.reduceat(10 ** (mel / 10), edges, axis=1)) - FAINT, 0)


def mel_shares(mel: np.ndarray) -> np.ndarray:
    """Relative log-mel in dB -> share of amplitude of each band (sums to 1)."""
    amplitude = 10 ** (mel * 0.05)
    return amplitude / amplitude.sum(axis=1, keepdims=True)


def local_peaks(strength: np.ndarray, threshold: float) -> np.ndarray:
    """Whether each element [n] is the largest within three frames and above the threshold."""
    padded = np.pad(strength, 3, constant_values=-1.0)
    around = np.lib.stride_tricks.sliding_window_view(padded, 7)
    earlier, later = around[:, :3].max(axis=1), around[:, 4:].max(axis=1)
    return (strength > threshold) & (strength > earlier) & (strength >= later)


class Instants(NamedTuple):
    """What is measured on each of T frames alone, or against the two before."""

    level: np.ndarray
    mel: np.ndarray
    tonal: np.ndarray
    salience: np.ndarray
    pitch: np.ndarray
    partials: np.ndarray
    flux: np.ndarray
    delta: np.ndarray


def silent_instants(count: int) -> Instants:
    """Rows of digital silence, which lies before and after every sound."""
    flat = -10 * np.log10(N_MELS)
    return Instants(
        np.full(count, LEVEL_FLOOR),
        np.full((count, N_MELS), flat),
        np.zeros(count),
        np.zeros((count, NUM_NOTES)),
        np.zeros(count),
        np.full((count, NUM_PARTIALS), PARTIAL_FLOOR),
        np.zeros((count, 3)),
        np.zeros((count, 1 + DELTA_CEPSTRA)),
    )


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
    share = 10 ** (mel[now] * 0.05)
    share /= share.sum(axis=1, keepdims=True)
    flux = np.stack([(rise * share)[:, bands == k].sum(axis=1) for k in range(3)], axis=1)
    cepstra = mel @ dct_matrix(N_MELS)[:, 1 : 1 + DELTA_CEPSTRA]
    delta = np.column_stack([level[now] - level[then], cepstra[now] - cepstra[then]])
    return flux, np.clip(delta, -40, 40)


def sliding(rows: np.ndarray, width: int) -> np.ndarray:
    """Windows [n, width] over the first axis of a vector."""
    return np.lib.stride_tricks.sliding_window_view(rows, width)


def weighted_scene(rows: np.ndarray, weights: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Mean of rows [n + 2C, D] around each inner row [n, D], weighted by loudness [n + 2C]."""
    width = len(kernel)
    count = len(rows) - width + 1
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
    return np.maximum(0, strength[NOVELTY_PAST : len(strength) - NOVELTY_FUTURE] - around)


@functools.lru_cache(maxsize=2)
def tempogram_weights(frame_rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Window over novelty [W] and interpolation from lags to PERIODS [lags, 24]."""
    rising = np.sin(0.5 * np.pi * np.linspace(0.2, 1, PULSE_FRAMES)) ** 2
    falling = np.cos(0.5 * np.pi * np.linspace(0, 0.8, SCENE_FRAMES + 1)) ** 2
    lags = PERIODS * frame_rate
    grid = np.arange(int(lags[-1]) + 2)
    return np.concatenate([rising, falling]), np.maximum(0, 1 - np.abs(grid[:, None] - lags) / 1.5)


def measure_tempogram(novelty: np.ndarray, frame_rate: float) -> np.ndarray:
    """Autocorrelation of novelty [n + W + 1] at PERIODS around each frame [n, 24], 0-1.

    Unbiased for the window's overlap; tempogram as in Grosche, Mueller and Kurth (2010, ICASSP).
    """
    window, pick = tempogram_weights(frame_rate)
    size = 512
    smooth = np.convolve(novelty, [0.25, 0.5, 0.25], mode="valid")
    spectrum = np.fft.rfft(sliding(smooth, len(window)) * window, size, axis=1)
    lags = np.fft.irfft(np.abs(spectrum) ** 2, size, axis=1)[:, : len(pick)]
    bias = np.fft.irfft(np.abs(np.fft.rfft(window, size)) ** 2, size)[: len(pick)]
    correlation = lags / bias * bias[0] / (lags[:, :1] + 1.0)
    return np.clip(correlation @ (pick / pick.sum(axis=0)), 0, 1)


def measure_syllabic(level: np.ndarray, frame_rate: float) -> np.ndarray:
    """Share of the loudness modulation at 0.7-16 Hz that lies at 2.5-8 Hz [n], 0-1."""
    width = 2 * SCENE_FRAMES + 1
    loudness = 10 ** (np.maximum(sliding(level, width), -90) * 0.025)
    loudness -= loudness.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(loudness * hann(width), 128, axis=1)) ** 2
    hz = np.arange(65) * frame_rate / 128
    inside = power[:, (hz >= 2.5) & (hz < 8)].sum(axis=1)
    return inside / (power[:, (hz >= 0.7) & (hz < 16)].sum(axis=1) + 1e-9)


def measure_scene(rows: Instants, frame_rate: float) -> Spectra:
    """Describe what surrounds each inner frame: PAST_FRAMES before it, FUTURE_FRAMES after."""
    inner = slice(PAST_FRAMES, len(rows.level) - FUTURE_FRAMES)
    near = slice(PAST_FRAMES - SCENE_FRAMES, len(rows.level) - NOVELTY_FUTURE - 3)
    kernel = np.hanning(2 * SCENE_FRAMES + 3)[1:-1]
    even = np.ones(len(rows.level[near]))
    power = weighted_scene(10 ** (rows.level[near, None] / 10), even, kernel)[:, 0]
    level = 10 * np.log10(power + 10 ** (LEVEL_FLOOR / 10))
    floored = np.maximum(sliding(rows.level[near], len(kernel)), level[:, None] - 25)
    mean = (floored @ kernel) / kernel.sum()
    spread = np.sqrt(((floored - mean[:, None]) ** 2) @ kernel / kernel.sum())
    bands = band_amplitudes(rows.mel[near])
    heard = np.column_stack([bands, rows.tonal[near], rows.salience[near]])
    loudness = 10 ** (rows.level[near] * 0.05)
    scene = weighted_scene(heard, loudness, kernel)
    salience = scene[:, NUM_BANDS + 1 :]
    novelty = measure_novelty(rows.flux)
    onsets = local_peaks(novelty, 3.0)[3:-3].astype(np.float64)
    density = sliding(onsets[PULSE_FRAMES - SCENE_FRAMES :], len(kernel)) @ kernel / kernel.sum()
    return Spectra(
        *slice_rows(rows, inner.start, inner.stop),
        level,
        spread,
        scene[:, :NUM_BANDS],
        scene[:, NUM_BANDS],
        fold_chroma(salience),
        fold_chroma(salience[:, : 60 - LOWEST_NOTE]),
        density * frame_rate,
        measure_tempogram(novelty[2:-2], frame_rate),
        measure_syllabic(rows.level[near], frame_rate),
    )


class Analyzer:
    """Hears one sound block by block: audio in, rows of `Spectra` out, CONTEXT_SECONDS later.

    All state is carried here, so blocks of any size give the same rows. Frame i stands for
    samples [i * hop, (i + 1) * hop); its windows (4 and 8 hops) are centred on their middle.
    """

    chunk = 64  # frames analysed at a time: bounds memory, and fits a core's cache

    def __init__(self, sample_rate: int, hop_length: int) -> None:
        self._hop = hop_length
        self._short, self._long = window_size(hop_length), 2 * window_size(hop_length)
        self._frame_rate, self._bin_hz = sample_rate / hop_length, sample_rate / self._long
        self._bank = mel_filterbank(sample_rate, self._short)
        centres = mel_edges(sample_rate)[1:-1]
        self._bands = np.searchsorted(FLUX_EDGES, centres)
        self._waiting = np.zeros((self._long - hop_length) // 2)
        self._samples = self._framed = 0
        self._rows = silent_instants(PAST_FRAMES)

    def push(self, audio: np.ndarray) -> Spectra:
        """Hear a block of mono samples [n]; return the rows that became whole."""
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
        frames = sliding(self._waiting, self._long)[: count * self._hop : self._hop]
        margin = (self._long - self._short) // 2
        power = power_spectrum(frames[:, margin : margin + self._short])
        level = 10 * np.log10(power.sum(axis=1) + 10 ** (LEVEL_FLOOR / 10))
        mel = relative_mel(power, self._bank)
        top = int(PEAK_TOP / self._bin_hz) + 16
        pitches = measure_pitches(power_spectrum(frames)[:, :top], self._bin_hz)
        flux, delta = measure_changes(
            np.concatenate([before.level[-DELTA_FRAMES:], level]),
            np.concatenate([before.mel[-DELTA_FRAMES:], mel]),
            self._bands,
        )
        return Instants(level, mel, *pitches, flux, delta)

    def _release(self) -> Spectra:
        ready = max(0, len(self._rows.level) - PAST_FRAMES - FUTURE_FRAMES)
        parts = []
        for start in range(0, ready, 2 * self.chunk):
            stop = min(ready, start + 2 * self.chunk)
            rows = slice_rows(self._rows, start, stop + PAST_FRAMES + FUTURE_FRAMES)
            parts.append(measure_scene(rows, self._frame_rate))
        self._rows = slice_rows(self._rows, ready)
        return join_rows(parts) if parts else slice_rows(NO_SPECTRA, 0, 0)


NO_SPECTRA = measure_scene(silent_instants(PAST_FRAMES + FUTURE_FRAMES + 1), 1 / HOP_FRACTION)


DESCRIPTORS = (
    "level",
    "centroid",
    "low",
    "lowmid",
    "mid",
    "high",
    "air",
    "flatness",
    "tonal",
    "slope",
    "attack_low",
    "attack_mid",
    "attack_high",
    "spread",
    "onset_rate",
    "syllabic",
    "pulse",
    "period",
)
BAND_EDGES = (150.0, 500.0, 2000.0, 5000.0)  # Hz, between low, lowmid, mid, high and air
NUM_DESCRIPTORS = len(DESCRIPTORS) + NUM_NOTES


@functools.lru_cache(maxsize=2)
def band_tables(sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Membership of mel bands in the five descriptor bands [64, 5]; log2 of their centres [64]."""
    centres = mel_edges(sample_rate)[1:-1]
    return np.eye(5)[np.searchsorted(BAND_EDGES, centres)], np.log2(centres)


def describe(spectra: Spectra, sample_rate: int) -> np.ndarray:
    """Descriptors [T, NUM_DESCRIPTORS] in the units glosses speak: DESCRIPTORS, then the notes.

    Levels in dBFS, `centroid` in log2 Hz, bands as shares of power, `flatness` in dB below white
    noise, `slope` in dB per 46 ms, attacks in dB, `pulse` 0-1 with its `period` in log2 seconds.
    """
    members, octaves = band_tables(sample_rate)
    share = 10 ** (spectra.mel / 10)
    loudness = mel_shares(spectra.mel)
    pulse = spectra.tempogram.max(axis=1)
    period = np.log2(PERIODS[spectra.tempogram.argmax(axis=1)])
    return np.column_stack(
        [
            spectra.level,
            loudness @ octaves,
            share @ members,
            spectra.mel.mean(axis=1) + 18.06,
            spectra.tonal,
            spectra.delta[:, 0],
            spectra.flux,
            spectra.scene_spread,
            spectra.onset_rate,
            spectra.syllabic,
            pulse,
            period,
            spectra.salience,
        ]
    ).astype(np.float32)


# 5 Extractors ------------------------------------------------------------------------------------
# Uses: 1, 2, 4. An ear turns what is heard into features on the frame grid: rows [T, D].

TIMBRE_QUEFRENCIES = 12  # c1-c12 hold the spectral envelope, c13-c63 pitch and detail


class Branch(NamedTuple):
    """What a chain of codebooks quantizes: its dimensions, and each stage's metric over them."""

    name: str
    dimensions: int
    weights: np.ndarray  # [Q, D], factors on a difference; powers of two keep sums exact
    natural: bool = True  # features have units of their own and are not standardised


def stage_weights(sizes: Sequence[int]) -> np.ndarray:
    """A metric per side of sound [Q, D], which hears nothing else; the last stage hears all."""
    side = np.repeat(np.arange(len(sizes)), sizes)
    own = side[None, :] == np.arange(len(sizes))[:, None]
    return np.vstack([own, np.ones(len(side))]).astype(np.float64)


def snap(features: np.ndarray) -> np.ndarray:
    """Round to GRID within +-256, so that every sum of squares downstream is exact in float64."""
    return np.clip(np.rint(features / GRID), -16384, 16383) * GRID


ACOUSTIC = Branch(
    "acoustic",
    1 + (N_MELS - 1) + 12 + 3 + (1 + DELTA_CEPSTRA),
    stage_weights(
        (1 + TIMBRE_QUEFRENCIES, N_MELS - 1 - TIMBRE_QUEFRENCIES + 12, 3 + 1 + DELTA_CEPSTRA)
    ),
)
SPECTRAL = Branch(
    "semantic",
    (3 + NUM_BANDS) + 24 + (len(PERIODS) + 2),
    stage_weights((3 + NUM_BANDS, 24, len(PERIODS) + 2)),
)


def acoustic_features(spectra: Spectra) -> np.ndarray:
    """Level, quefrencies and changes in dB and pitch classes times ten [T, 86]; see ACOUSTIC."""
    cepstra = spectra.mel @ dct_matrix(N_MELS)[:, 1:]
    chroma = fold_chroma(spectra.salience)
    chroma = chroma * (10 * spectra.tonal / (chroma.max(axis=1) + 0.05))[:, None]
    return snap(
        np.column_stack([spectra.level, cepstra, chroma, spectra.flux, spectra.delta * 0.5])
    )


def acoustic_to_mel(features: np.ndarray) -> np.ndarray:
    """Mel power [T, N_MELS] that acoustic features (or decoded codes) stand for."""
    cepstra = np.column_stack([np.zeros(len(features)), features[:, 1:N_MELS]])
    basis = dct_matrix(N_MELS)
    shape = cepstra @ (basis / np.sum(basis**2, axis=0)).T
    power = 10 ** (shape / 10)
    level = 10 ** (features[:, :1] / 10) - 10 ** (LEVEL_FLOOR / 10)
    return power / power.sum(axis=1, keepdims=True) * np.maximum(level, 0)


def spectral_features(spectra: Spectra) -> np.ndarray:
    """What surrounds a frame, scaled so that one unit is about as much anywhere [T, 65]."""
    scene = np.column_stack(
        [
            spectra.scene_level / 16,
            spectra.scene_spread / 8,
            spectra.scene_tonal * 8,
            spectra.scene_bands * 16,
        ]
    )
    clear = np.minimum(1, 2 * spectra.scene_tonal)
    loudest = spectra.scene_chroma.max(axis=1) + 0.05
    chroma = spectra.scene_chroma * (8 * clear / loudest)[:, None]
    bass = spectra.scene_bass * (4 * clear / loudest)[:, None]
    pulse = np.column_stack(
        [
            spectra.tempogram * 8,
            2 * np.log2(1 + spectra.onset_rate),
            spectra.syllabic * 4,
        ]
    )
    return snap(np.column_stack([scene, chroma, bass, pulse]))


class SpectralEar:
    """The ear that needs nothing but NumPy: features of the analyser's own scenes."""

    name = "spectral"
    identity = "spectral"
    card = {"name": "spectral", "weights": None, "layer": None}
    branch = SPECTRAL
    reads = tuple(layer.reads for layer in LAYERS[:NUM_QUANTIZERS])

    def push(self, audio: np.ndarray, spectra: Spectra) -> np.ndarray:
        """Features [n, D] of the rows that became whole."""
        return spectral_features(spectra)

    def flush(self, spectra: Spectra) -> np.ndarray:
        """Features of the last rows."""
        return spectral_features(spectra)


EARS: dict[str, Callable[[Settings], Any]] = {}
EARS.update(dict.fromkeys(("spectral", "audio", "random"), lambda settings: SpectralEar()))


# 6 Quantization ----------------------------------------------------------------------------------
# Uses: 1. Residual vector quantization. Features lie on GRID and weights are powers of two, so the
# sums here are exact in float64: the same codes on any machine, BLAS and block size.

DECAY = 0.8  # of the moving averages, a batch
EPSILON = 1e-5  # Laplace smoothing of cluster sizes
DEAD_CODE = 0.25  # batch members on average below which a code is renewed
BATCH = 8192
SEEDING_ROWS = 10000
EMA_PASSES = 3


def search_table(vectors: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codewords as weighted columns [D, K], of the dimensions heard, and half their norms [K]."""
    weighted = (vectors * weights)[:, weights > 0]
    return np.ascontiguousarray(weighted.T), 0.5 * np.sum(weighted**2, axis=1)


def nearest(
    rows: np.ndarray, weights: np.ndarray, *, table: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Index of the codeword closest to each row [n] in a metric; the lowest wins a tie."""
    columns, half_norms = table
    heard = np.flatnonzero(weights)
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

    def encode(self, features: np.ndarray) -> np.ndarray:
        """Features [T, D] -> codes int16 [T, Q], each stage quantizing what the last one left."""
        residual = self.normalise(features)
        codes = np.empty((len(features), len(self.vectors)), dtype=np.int16)
        for q, (vectors, weights) in enumerate(zip(self.vectors, self.weights)):
            codes[:, q] = nearest(residual, weights, table=self.tables[q])
            residual -= vectors[codes[:, q]]
        return codes

    def decode(self, codes: np.ndarray, stages: int | None = None) -> np.ndarray:
        """Codes [T, Q] -> features [T, D] they stand for, of the first stages or of all."""
        used = range(len(self.vectors) if stages is None else stages)
        total = sum((self.vectors[q][codes[:, q]] for q in used), np.zeros(self.offset.shape))
        return total * self.scale + self.offset


def seed_codebook(rows: np.ndarray, size: int, *, rng: np.random.RandomState) -> np.ndarray:
    """Pick seed rows by k-means++ (Arthur and Vassilvitskii 2007): indices [K] into rows."""
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
            picked[k] = min(np.searchsorted(reach, wanted, side="right"), len(rows) - 1)
    return picked


def sum_by_code(rows: np.ndarray, codes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Members [K] and sum of rows [K, D] of each code."""
    counts = np.bincount(codes, minlength=size)
    sums = np.zeros((size, rows.shape[1]))
    order = np.argsort(codes, kind="stable")
    used = np.nonzero(counts)[0]
    starts = np.concatenate([[0], np.cumsum(counts[used])[:-1]])
    sums[used] = np.add.reduceat(rows[order], starts, axis=0)
    return counts, sums


class MovingAverages:
    """EMA codebook of van den Oord et al. (2017, arXiv 1711.00937, appendix A.1).

    Cluster sizes and sums decay towards each batch's; sizes are Laplace-smoothed; a code that
    nearly no row chooses is moved onto a row of the batch.
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
        self._renew(rows, rng)
        total = self._sizes.sum()
        smoothed = (self._sizes + EPSILON) / (total + size * EPSILON) * total
        self.vectors = np.rint(self._sums / smoothed[:, None] / GRID) * GRID

    def _renew(self, rows: np.ndarray, rng: np.random.RandomState) -> None:
        dead = np.nonzero(self._sizes < DEAD_CODE * min(1.0, len(rows) / (4 * len(self._sizes))))[0]
        chosen = rng.randint(len(rows), size=len(dead))
        self._sizes[dead] = 1.0
        self._sums[dead] = rows[chosen]


def adapt_codebook(
    vectors: np.ndarray, rows: np.ndarray, *, weights: np.ndarray, seed: int, passes: int
) -> np.ndarray:
    """Let a codebook [K, D] follow rows [N, D] by EMA for some passes over shuffled batches."""
    rng = np.random.RandomState(seed)
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
    pull = 1 - DECAY ** np.minimum(counts, 8)
    mean = sums * (weights > 0) / np.maximum(counts, 1)[:, None]
    return np.rint((vectors + pull[:, None] * (mean - vectors)) / GRID) * GRID


def fit_stage(rows: np.ndarray, weights: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """Seed a codebook [K, D] on rows [N, D] by k-means++ and train it by EMA."""
    rng = np.random.RandomState(seed)
    heard = rows * (weights > 0)  # a codeword says nothing of what its stage does not hear
    sample = heard[rng.permutation(len(heard))[:SEEDING_ROWS]]
    start = sample[seed_codebook((sample * weights)[:, weights > 0], size, rng=rng)]
    return adapt_codebook(start, heard, weights=weights, seed=seed + 1, passes=EMA_PASSES)


def fit_chain(
    rows: np.ndarray, weights: np.ndarray, *, size: int, seed: int, tick: Callable[[], None]
) -> np.ndarray:
    """Fit residual codebooks [Q, K, D] one after the other on normalised rows [N, D]."""
    residual, chain = rows.copy(), []
    for stage, metric in enumerate(weights):
        vectors = fit_stage(residual, metric, size=size, seed=seed + 100 * stage)
        residual -= vectors[nearest(residual, metric, table=search_table(vectors, metric))]
        chain.append(vectors)
        tick()
    return np.stack(chain)


def random_chain(rows: np.ndarray, weights: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """Codebooks drawn from a Gaussian with the rows' moments, not fitted: the control."""
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

HARMONIC = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
METAL = (1.0, 1.483, 1.932, 2.546, 2.63, 3.897)  # square-wave ratios of a classic drum machine
BODIES = (  # partials of what is struck, over its lowest (Fletcher & Rossing 1998, ch. 2, 3, 21)
    (1.0, 2.756, 5.404, 8.933),  # free bar
    (1.0, 3.98, 10.7),  # tuned marimba bar
    (0.5, 1.0, 1.183, 1.506, 2.0, 2.514, 2.662, 3.011, 4.166),  # church bell
    (1.0, 2.32, 4.25, 6.63, 9.38),  # wine glass
)
VOWELS = (  # first three formants in Hz, men (Peterson & Barney 1952, table II)
    (270, 2290, 3010), (390, 1990, 2550), (530, 1840, 2480), (660, 1720, 2410), (730, 1090, 2440),
    (570, 840, 2410), (440, 1020, 2240), (300, 870, 2240), (640, 1190, 2390), (490, 1350, 1690),
)  # fmt: skip
VOICES = ((90.0, 0.95), (120.0, 1.0), (190.0, 1.16), (230.0, 1.2), (300.0, 1.4))  # Hz, formants x
CONSONANTS = (  # noise, its centre in Hz, voice, seconds
    (0.9, 6500, 0.0, 0.10), (0.8, 3200, 0.0, 0.11), (0.3, 4500, 0.0, 0.09), (1.0, 4000, 0.0, 0.03),
    (0.8, 1800, 0.0, 0.04), (0.6, 700, 0.0, 0.03), (0.0, 500, 0.3, 0.07), (0.0, 500, 0.5, 0.06),
    (0.5, 6000, 0.3, 0.08), (0.2, 1500, 0.1, 0.03),
)  # fmt: skip
SCALES = (
    (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 5, 7, 9, 10),
    (0, 2, 3, 5, 7, 8, 11), (0, 1, 3, 5, 7, 8, 10),
)  # fmt: skip
LADDERS = SCALES + ((0, 2, 4, 7, 9), (0, 3, 5, 6, 7, 10), (0, 2, 4, 6, 8, 10), tuple(range(12)))
CHORDS = (
    (0, 4, 7), (0, 3, 7), (0, 3, 6), (0, 4, 8), (0, 4, 7, 11), (0, 3, 7, 10), (0, 4, 7, 10),
    (0, 5, 7), (0, 2, 7), (0, 3, 6, 9), (0, 4, 7, 14),
)  # fmt: skip
INTERVALS = tuple((0, step) for step in range(1, 13))
PROGRESSIONS = ((0, 4, 5, 3), (0, 3, 4, 4), (0, 5, 3, 4), (1, 4, 0, 0), (0, 6, 5, 4), (0, 3, 0, 4))
RHYTHMS = (  # one beat or two of note lengths in beats; below zero it is a rest
    (1.0,), (0.5, 0.5), (0.75, 0.25), (1 / 3, 1 / 3, 1 / 3), (0.25,) * 4, (1.5, 0.5), (2.0,),
    (0.5, 0.25, 0.25), (-0.5, 0.5), (2 / 3, 1 / 3), (0.5, 1.0, 0.5), (1.0, -1.0),
)  # fmt: skip
GROOVES = (  # steps a beat, then a bar of kick, snare and hat: x loud, o soft
    (4, "x.......x.x.....", "....x.......x...", "x.o.x.o.x.o.x.o."),  # rock
    (4, "x...x...x...x...", "....x.......x...", "..x...x...x...x."),  # four on the floor
    (2, "x.....", "..x.x.", "x.xoxo"),  # waltz
    (4, "x..o..x...x.....", "....x..o.o..x..o", "xoxoxoxoxoxoxoxo"),  # funk
    (3, "x.....x..o..", "...x.....x..", "x.ox.ox.ox.o"),  # shuffle
    (4, "x.........x.....", "........x.......", "x...x...x...x.o."),  # half-time
    (3, "x..o..", "...x..", "xooxoo"),  # 6/8
    (4, "x..x..x.x..x..x.", "..x...x...x...x.", "x.xxx.xxx.xxx.xx"),  # latin
    (4, "x.....o...x.....", "....x..o.x..x...", "x.x.x.x.x.x.x.x."),  # breakbeat
    (3, "o..o..o..o..", "............", "x..x.ox..x.o"),  # jazz ride
    (2, "x.x.x.x.", ".x.x.x.x", "xxxxxxxx"),  # punk
    (4, "x...........o...", "............x...", "........o......."),  # sparse ballad
)

KIT = (
    ("kick",), ("snare", "snare", "clap", "rim"), ("hat", "hat", "ride", "shaker", "cowbell"),
    ("tom", "conga", "snare", "crash"),
)  # fmt: skip
BASS_LINES = (((0,),), ((0,), (4,)), ((0,), (7,)), ((0,), (2,), (4,), (5,)))  # scale steps
COMPS = (((0, 2, 4),), ((0, 2, 4, 6),), ((0, 4, 9),), ((0,), (2,), (4,), (7,)))
LENSES = ((20, 900), (20, 2500), (20, 5000), (300, 3400), (500, 2e4), (1500, 2e4))  # Hz
COURSES = (  # shares of a piece, and the level there in dB
    ((0, 0.5), (-50, 0)), ((0.3, 1), (0, -50)), ((0, 1), (-35, 0)), ((0.6, 0.601), (0, -120)),
    ((0, 0.3, 0.9), (-25, 0, -30)), ((0.2, 0.201, 0.7, 0.701), (-25, 0, 0, -25)),
)  # fmt: skip


class Hit(NamedTuple):
    """A struck or sudden sound: a tone that glides and fades, and a burst of noise."""

    start: float  # Hz, where the tone begins
    end: float  # Hz, where it glides to
    glide: float  # seconds, time constant of the glide
    fade: float  # seconds, time constant of the tone
    dust: float  # the noise's level beside a tone of 1
    band: tuple[float, float]  # Hz, of the noise
    burst: float  # seconds, time constant of the noise
    ratios: tuple[float, ...] = (1.0,)  # the tone's partials


DRUMS = {
    "kick": Hit(160, 48, 0.035, 0.16, 0.15, (800, 4000), 0.008),
    "snare": Hit(260, 185, 0.02, 0.06, 1.2, (1200, 9000), 0.09, (1.0, 1.6)),
    "hat": Hit(4200, 4200, 1, 0.03, 1.5, (6500, 16000), 0.03, METAL),
    "open": Hit(4000, 4000, 1, 0.2, 1.5, (6000, 16000), 0.2, METAL),
    "tom": Hit(150, 95, 0.08, 0.2, 0.2, (200, 2000), 0.04, (1.0, 1.59)),
    "clap": Hit(950, 950, 1, 0.001, 3.0, (900, 3500), 0.1),
    "crash": Hit(2600, 2600, 1, 0.5, 2.5, (3000, 16000), 0.6, METAL),
    "ride": Hit(3300, 3300, 1, 0.4, 0.6, (5000, 14000), 0.25, METAL),
    "shaker": Hit(5000, 5000, 1, 0.001, 2.0, (4500, 12000), 0.05),
    "rim": Hit(1700, 1650, 0.01, 0.012, 0.5, (1500, 7000), 0.008, (1.0, 1.47)),
    "conga": Hit(330, 290, 0.02, 0.11, 0.2, (500, 4000), 0.015, (1.0, 2.1)),
    "cowbell": Hit(560, 560, 1, 0.12, 0.1, (2000, 8000), 0.01, (1.0, 1.48, 3.1)),
}
EVENTS = {
    "knock": Hit(240, 190, 0.02, 0.03, 0.6, (300, 3000), 0.02, (1.0, 1.9, 3.2)),
    "footstep": Hit(95, 70, 0.03, 0.05, 0.9, (150, 2500), 0.04),
    "up chirp": Hit(2000, 4200, 0.05, 0.08, 0.02, (2000, 6000), 0.02),
    "down chirp": Hit(5200, 2400, 0.06, 0.09, 0.02, (2000, 6000), 0.02, (1.0, 2.0)),
    "click": Hit(2500, 2500, 1, 0.002, 2.0, (1500, 12000), 0.002),
    "bubble": Hit(420, 1100, 0.06, 0.04, 0.01, (300, 2000), 0.02),
    "glass": Hit(2300, 2290, 1, 0.3, 0.5, (4000, 14000), 0.03, BODIES[3]),
    "bark": Hit(620, 330, 0.07, 0.09, 0.5, (600, 2500), 0.08, HARMONIC),
    "door": Hit(85, 60, 0.05, 0.12, 1.6, (60, 1200), 0.12, (1.0, 1.7, 2.9)),
    "thunder": Hit(55, 35, 0.5, 0.5, 4.0, (25, 220), 0.9),
    "meow": Hit(520, 760, 0.15, 0.3, 0.05, (1500, 5000), 0.2, HARMONIC),
    "splash": Hit(300, 200, 0.1, 0.02, 2.0, (700, 8000), 0.18),
    "coin": Hit(3100, 3100, 1, 0.18, 0.2, (5000, 14000), 0.005, (1.0, 1.53, 2.24)),
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

    @property
    def hop(self) -> int:
        """Samples between the moments at which a moving filter is set."""
        return round(self.rate * 0.0116)

    @property
    def moments(self) -> np.ndarray:
        """Seconds at which a moving filter is set, float64 [F]."""
        return np.arange(-(-self.size // self.hop) + 1) * self.hop / self.rate

    @property
    def place(self) -> float:
        """A number in [0, 1) that the takes of a kind spread evenly (the golden section)."""
        return self.index * 0.6180339887498949 % 1.0

    def between(self, low: float, high: float) -> float:
        """Throw a number between two."""
        return low + (high - low) * self.rng.rand()

    def around(self, value: float, factor: float) -> float:
        """Throw a number within a factor of another, even in its logarithm."""
        return value * factor ** self.between(-1, 1)

    def pick(self, options: Sequence[Any]) -> Any:
        """Throw one of several; by `rand`, as `choice` may differ between machines."""
        return options[int(self.rng.rand() * len(options))]

    def chance(self, share: float) -> bool:
        """Whether it happens, this share of times."""
        return self.rng.rand() < share

    def lasting(self, seconds: float) -> Take:
        """Return this take at another length."""
        return self._replace(seconds=seconds)


Instrument = Callable[[Take, float], np.ndarray]


class Note(NamedTuple):
    """A note of a score: when and how long in seconds, how high in Hz, how loud."""

    start: float
    seconds: float
    hz: float
    gain: float = 1.0


def key_hz(key: float) -> float:
    """Return the pitch of a piano key, A0 being 0, in Hz."""
    return 27.5 * 2.0 ** (key / 12)


class Tune(NamedTuple):
    """What the players of a piece agree on."""

    beat: float  # seconds
    span: float  # seconds a chord lasts
    root: int  # semitones over A
    scale: tuple[int, ...]
    chords: tuple[int, ...]  # degrees of the scale
    step: float  # seconds a step of the groove
    lanes: tuple[str, ...]  # kick, snare, hat

    def hz(self, octave: int, degree: int) -> float:
        """Return the pitch of a degree of the scale, which may lie beyond the octave."""
        more, place = divmod(degree, len(self.scale))
        return key_hz(self.root + 12 * (octave + more) + self.scale[place])


# Oscillators, noises, envelopes, filters: float64 [n], a level of about 1 rms


def ring(take: Take, hz: Any, *, amps: Any = 1.0, decays: Any = 0.0) -> np.ndarray:
    """Sum sinusoids at hz [K] that decay by `decays` [K] nepers a second.

    exp(z(t + u)) = exp(zt) exp(zu) makes it one matrix product over a coarse and a fine clock.
    """
    hz, amps, decays = np.broadcast_arrays(*map(np.atleast_1d, (hz, amps, decays)))
    heard = hz < 0.45 * take.rate
    poles = (2j * np.pi * hz - decays)[heard] / take.rate
    weights = (amps * np.exp(2j * np.pi * take.rng.rand(len(hz))))[heard]
    rows = math.isqrt(take.size) // 8 * 8 + 8
    step = -(-take.size // rows)
    coarse = np.exp(np.outer(np.arange(rows) * step, poles)) * weights
    fine = np.exp(np.outer(poles, np.arange(step)))
    left = np.concatenate((coarse.real, -coarse.imag), axis=1)
    # Eight rows at a time, so that BLAS does not wake its threads for so little.
    sound = left.reshape(rows // 8, 8, 2 * len(poles)) @ np.vstack((fine.real, fine.imag))
    return sound.ravel()[: take.size] / math.sqrt(np.sum(amps * amps) / 2 + 1e-12)


def harmonics(take: Take, hz: Any, *, amps: np.ndarray) -> np.ndarray:
    """Play harmonics [K] at a pitch in Hz that may move ([n]), from one stored period."""
    heard = amps[: min(int(0.45 * take.rate / np.max(hz)), 200)]
    period = np.fft.irfft(np.concatenate(([0], -1j * heard)), 2048) * 1024
    cycles = np.cumsum(np.broadcast_to(hz / take.rate, take.size))
    spot = (cycles - np.floor(cycles)) * 2048
    index = spot.astype(np.intp)
    slope = np.append(period[1:], period[0]) - period
    sound = period[index] + (spot - index) * slope[index]
    return sound / math.sqrt(np.sum(amps * amps) / 2)


def fft_size(size: int) -> int:
    """Return a length not below `size` whose FFT is fast."""
    step = 1 << max(size.bit_length() - 4, 0)
    return -(-size // step) * step


def band_gain(hz: np.ndarray, low: Any, *, high: Any) -> np.ndarray:
    """Return the gain of a band-pass with 24 dB an octave on both sides."""
    under, over = np.square(low / np.maximum(hz, 1.0)), np.square(hz / high)
    return 1.0 / ((1.0 + under * under) * (1.0 + over * over))


def noise(take: Take, low: float = 20.0, *, high: float = 2e4, tilt: float = 0.0) -> np.ndarray:
    """Make noise in a band in Hz, tilted by so many dB an octave, 1 rms."""
    size = fft_size(take.size)
    hz = np.fft.rfftfreq(size, 1 / take.rate)
    gain = band_gain(hz, min(low, 0.3 * take.rate), high=high)
    if tilt:
        gain *= np.maximum(hz, 20.0) ** (tilt / 6.02)
    dice = take.rng.rand(2, len(hz)) - 0.5
    sound = np.fft.irfft((dice[0] + 1j * dice[1]) * gain, size)[: take.size]
    return sound / math.sqrt(np.mean(sound * sound) + 1e-30)


def bandpass(take: Take, sound: np.ndarray, *, low: float = 20.0, high: float) -> np.ndarray:
    """Keep a band in Hz of a sound."""
    size = fft_size(take.size)
    gain = band_gain(np.fft.rfftfreq(size, 1 / take.rate), low, high=high)
    return np.fft.irfft(np.fft.rfft(sound, size) * gain, size)[: take.size]


def swell(take: Take, attack: float, *, release: float = 0.04) -> np.ndarray:
    """Rise from 0 to 1 and fall back in so many seconds."""
    size = take.size
    rise, fade = (min(int(part * take.rate) + 1, size) for part in (attack, release))
    gain = np.ones(size)
    gain[:rise] *= np.arange(rise) / rise
    gain[size - fade :] *= np.arange(fade - 1, -1, -1) / fade
    return gain


def fall(take: Take, seconds: float) -> np.ndarray:
    """Fade from 1 with this time constant, after an attack of a millisecond."""
    times = take.times
    return np.exp(-times / seconds) * np.minimum(times * 1000, 1.0)


def wander(take: Take, rate: float) -> np.ndarray:
    """Move at random between -1 and 1, so many turns a second, float64 [n]."""
    knots = take.rng.rand(int(take.seconds * rate) + 3) * 2 - 1
    return np.interp(take.times * rate, np.arange(len(knots)), knots)


def vibrato(take: Take, hz: float, *, depth: float) -> np.ndarray:
    """Let a pitch swing, later in the note more than at its start, Hz [n]."""
    times, speed = take.times, take.between(4.5, 7.0)
    growth = np.minimum(times / take.between(0.1, 0.5), 1.0) * depth * take.rng.rand()
    return hz * (1.0 + growth * np.sin(2 * np.pi * speed * times))


def formant_gain(hz: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """Return the gain [F, B] at hz [B] of a mouth with formants [F, 3] in Hz."""
    gain = np.full((len(formants), len(hz)), 0.004)
    for order, centre in enumerate(formants.T[:, :, None]):
        far = (hz - centre) / (40.0 + 0.04 * centre)
        gain += (1.0, 0.55, 0.3)[order] / (1.0 + far * far)
    return gain


def sculpt(take: Take, sound: np.ndarray, *, gain: np.ndarray) -> np.ndarray:
    """Filter by gains [F, hop + 1] that are set anew at each of the take's moments."""
    hop = take.hop
    padded = np.zeros((len(gain) + 1, hop))
    padded.ravel()[hop : hop + take.size] = sound
    window = np.sin(np.pi * np.arange(2 * hop) / (2 * hop)) ** 2
    frames = np.fft.rfft(np.hstack((padded[:-1], padded[1:])) * window)
    parts = np.fft.irfft(frames * gain, 2 * hop)
    return (parts[:-1, hop:] + parts[1:, :hop]).ravel()[: take.size]


# Instruments: a take's length of one note


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
    pitch = vibrato(take, hz, depth=timbre.vibrato)
    sound = harmonics(take, pitch, amps=amps)
    loud = swell(take, take.around(timbre.attack, 2.5), release=0.3 * timbre.attack + 0.04)
    if timbre.fade:
        loud *= np.exp(-take.times * take.around(timbre.fade, 4))
    if timbre.bite:
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
    spread = orders * np.sqrt(1 + take.around(2e-4, 4) * orders**2)
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
    felt = take.lasting(0.04)
    knock = noise(felt, 100, high=take.around(1500, 2)) * fall(felt, 0.01)
    sound = string(take, hz, loss=loss) + string(take, hz * (1 + cents), loss=loss)
    sound[: len(knock)] += take.between(0.05, 0.6) * knock[: len(sound)]
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
lead = functools.partial(
    sustain, timbre=Timbre((0.7, 1.3), (1.0, 0.1), attack=0.006, bite=True, fade=4.0)
)
organ = functools.partial(layered, orders=(0.5, 1, 1.5, 2, 3, 4, 6, 8))
pad = functools.partial(layered, orders=tuple(range(1, 20)))
INSTRUMENTS: tuple[Instrument, ...] = (
    piano, bowed, tone, plucked, flute, distorted, struck, reed, pure, brass, chime, organ,
    sung, lead, plucked, pad, tone, piano, bowed,
)  # fmt: skip
LEADS: tuple[Instrument, ...] = (
    sung, lead, sung, brass, reed, plucked, flute, bowed, piano, distorted, sung, struck,
)  # fmt: skip
BACKING: dict[str, tuple[Any, ...]] = {  # octaves, scale steps, instruments
    "bass": ((1, 1, 2), BASS_LINES, (plucked, lead, pure, tone, bowed, distorted, brass)),
    "chords": (
        (2, 3, 3), COMPS, (piano, plucked, organ, pad, distorted, bowed, chime, tone, sung),
    ),
}  # fmt: skip


# Scores: who plays when


def strike(take: Take, hit: Hit) -> np.ndarray:
    """Make one hit of at most 2 s, each part somewhat off the table's."""
    fade, burst, scale = (take.around(one, 1.5) for one in (hit.fade, hit.burst, 0.9))
    take = take.lasting(min(6 * max(fade, burst), 2.0))
    pitch = scale * (hit.end + (hit.start - hit.end) * np.exp(-take.times / hit.glide))
    top = 0.45 * take.rate / pitch.max()
    ratios = np.array([ratio for ratio in hit.ratios if ratio < top])
    turns = np.outer(ratios, np.cumsum(2 * np.pi / take.rate * pitch))
    body = np.sin(turns).sum(axis=0) / math.sqrt(len(hit.ratios)) * fall(take, fade)
    dust = noise(take, hit.band[0], high=hit.band[1]) * fall(take, burst)
    return body + take.around(hit.dust, 1.6) * 0.5 * dust


def lay(sound: np.ndarray, start: float, *, played: np.ndarray) -> None:
    """Add a sound into a longer one from a sample on, as far as there is room."""
    spot = sound[int(start) :]
    spot[: len(played)] += played[: len(spot)]


def perform(take: Take, score: Iterable[Note], *, instrument: Instrument) -> np.ndarray:
    """Play a score. All its notes throw the same dice, and so keep one timbre."""
    patch = int(take.rng.rand() * 2**31)
    dice, sound = np.random.RandomState(patch), np.zeros(take.size)
    known: dict[tuple[float, float], np.ndarray] = {}
    for start, seconds, hz, gain in score:
        if (seconds, hz) not in known:
            dice.seed(patch)
            known[seconds, hz] = instrument(Take(dice, take.rate, max(seconds, 0.05)), hz)
        lay(sound, start * take.rate, played=gain * known[seconds, hz])
    return sound


def compose(take: Take) -> Tune:
    """Throw a tune; tempi and grooves are dealt out evenly over the takes."""
    steps, *lanes = GROOVES[take.index % len(GROOVES)]
    beat = 60 / (45 * (200 / 45) ** take.place)
    bar = beat * len(lanes[0]) / steps
    span = bar if bar < 2.2 else bar / 2
    return Tune(
        beat, span, int(take.between(0, 12)), take.pick(SCALES), take.pick(PROGRESSIONS),
        beat / steps, tuple(lanes),
    )  # fmt: skip


def melody(take: Take, tune: Tune, *, octave: int) -> Iterator[Note]:
    """Walk along the tune's scale, mostly by step, in mixed rhythms."""
    now, degree = 0.0, int(take.between(0, 8))
    while now < take.seconds:
        for beats in take.pick(RHYTHMS):
            seconds = abs(beats) * tune.beat
            if beats > 0:
                held, gain = seconds * take.between(0.6, 1.05), take.around(0.6, 1.6)
                yield Note(now, held, tune.hz(octave, degree), gain)
            now += seconds
            degree = min(max(degree + take.pick((-3, -2, -1, -1, 0, 1, 1, 2, 4)), -3), 11)


def accompaniment(
    take: Take, tune: Tune, *, octave: int, steps: Sequence[Sequence[int]]
) -> Iterator[Note]:
    """Repeat a rhythm on the chord of the moment; `steps` are scale steps over its root."""
    # The 1e-6 keeps a chord change on its bar line, whatever the last bits of `now` are.
    now, turn, cell = 0.0, 0, take.pick(RHYTHMS)
    while now < take.seconds:
        for beats in cell:
            seconds = abs(beats) * tune.beat
            root = tune.chords[int(now / tune.span + 1e-6) % len(tune.chords)]
            for step in steps[turn % len(steps)] if beats > 0 else ():
                yield Note(now, seconds * 0.98, tune.hz(octave, root + step), 0.6)
            now, turn = now + seconds, turn + 1


def drums(take: Take, tune: Tune) -> np.ndarray:
    """Play the tune's groove on a kit thrown together, straight or swung, at times with a fill."""
    kit = [strike(take, DRUMS[take.pick(names)]) for names in KIT]
    swing, fill = take.pick((0.0, 0.0, 0.12, 0.3)), take.chance(0.5)
    sound = np.zeros(take.size)
    for number in range(int(take.seconds / tune.step)):
        spot = (number + swing * (number % 2)) * tune.step * take.rate
        for lane, drum, gain in zip(tune.lanes, kit, (1.0, 0.8, 0.35)):
            force = {"x": 1.0, "o": 0.4, ".": 0.0}[lane[number % len(lane)]] * gain
            if force:
                lay(sound, spot, played=drum * force * take.between(0.75, 1.0))
        if fill and (number + 4) * tune.step > take.seconds and take.chance(0.8):
            lay(sound, spot, played=kit[3] * take.between(0.4, 0.9))
    return sound


# Pieces: a whole take


def leveled(sound: np.ndarray) -> np.ndarray:
    """Bring a sound to 1 rms."""
    return sound / math.sqrt(np.mean(sound * sound) + 1e-12)


def keyboard(take: Take) -> np.ndarray:
    """Play six notes of one instrument; all takes together walk the 88 keys several times."""
    lengths = take.rng.rand(6) + 0.35
    lengths *= take.seconds / lengths.sum()
    starts = np.cumsum(lengths) - lengths
    hz = [key_hz(37 * (6 * take.index + turn) % 88) for turn in range(6)]
    score = [
        Note(start, length * take.between(0.7, 1.15), pitch, 10 ** -take.between(0.0, 1.0))
        for start, length, pitch in zip(starts, lengths, hz)
    ]
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
        low = count * 5 % 12 + 12 * take.pick((1, 2, 3, 4))
        inversion = int(take.between(0, len(shape)))
        for order, step in enumerate(shape):
            start, key = strum * order, low + step + 12 * (order < inversion)
            score.append(Note(turn * gap + start, gap - start, key_hz(key)))
    return perform(take, score, instrument=INSTRUMENTS[(5 * take.index) % len(INSTRUMENTS)])


def drone(take: Take) -> np.ndarray:
    """Hold a few notes while a filter opens and closes over them."""
    keys = take.index * 7 % 12 + 12 * take.pick((1, 1, 2, 3)) + np.array((0, 7, 12, 16, 22))
    score = [Note(0, take.seconds, key_hz(key)) for key in keys[: take.pick((1, 2, 3, 5))]]
    sound = perform(take, score, instrument=take.pick((pad, organ, tone, bowed, distorted, sung)))
    knots = np.linspace(0, take.seconds, 4)
    high = 1500 * 4.0 ** np.interp(take.moments, knots, take.rng.rand(4) * 2 - 1)
    hz = np.fft.rfftfreq(2 * take.hop, 1 / take.rate)
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


def hits(take: Take, table: Mapping[str, Hit]) -> np.ndarray:
    """Let one kind of hit happen again and again, evenly or not."""
    kind = list(table.values())[take.index % len(table)]
    gap, unrest = take.around(0.45, 2.5), take.pick((1.02, 1.6))
    sound, now = np.zeros(take.size), take.between(0.0, 0.15)
    while now < take.seconds:
        played = strike(take, kind) * 10 ** -take.between(0.0, 0.7)
        lay(sound, now * take.rate, played=played)
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
    gate = np.clip(40 * (0.6 - turn), 0, 1) if depth < 2 or take.chance(0.3) else 1.0
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
        if take.chance(0.4):  # a stop's closure, or a pause between phrases
            end = now + take.pick((0.03, 0.05, 0.07, take.between(0.2, 0.5)))
            rows += [(now, *glide, 0.0, 0.0, centre), (end, *glide, 0.0, 0.0, centre)]
            now = end
    return np.array(rows) * np.array([1.0, size, size, size, 1.0, 1.0, 1.0])


def speech(take: Take, whispered: bool = False) -> np.ndarray:
    """Speak nonsense: a buzz, falling and accented, or breath, through a mouth that moves."""
    pitch, size = VOICES[take.index % len(VOICES)]
    rows = utterance(take, take.around(size, 1.06))
    *formants, voice, hiss, centre = (
        np.interp(take.moments, rows[:, 0], column)[:, None] for column in rows[:, 1:].T
    )
    buzz = breath = take.rng.rand(take.size) - 0.5
    if not whispered:
        tune = 0.35 * wander(take, 2.5) + 0.06 * wander(take, 20.0) - 0.12 * take.times
        amps = np.arange(1, 101) ** -take.between(0.8, 1.3)
        buzz = harmonics(take, take.around(1.1 * pitch, 1.2) * 2.0**tune, amps=amps)
    hz = np.fft.rfftfreq(2 * take.hop, 1 / take.rate)
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
    centre, half = 80 * 100**take.place, take.pick((1.1, 1.5, 2.5))
    return noise(take, centre / half, high=centre * half)


def wind(take: Take) -> np.ndarray:
    """Let wind blow in gusts, its whistle rising with them."""
    knots = np.linspace(0, take.seconds, 6)
    centre = take.around(400, 2) * 2.0 ** np.interp(take.moments, knots, take.rng.rand(6) * 2 - 1)
    hz, half = np.fft.rfftfreq(2 * take.hop, 1 / take.rate), take.between(1.1, 1.7)
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


# Production: rooms, filters, dynamics, level


def reverberate(take: Take, sound: np.ndarray) -> np.ndarray:
    """Put a sound in a room: noise that decays by 60 dB in 0.15 to 2.5 seconds."""
    decay = take.around(0.6, 4)
    tail = take.lasting(min(decay, 1.2))
    size = fft_size(take.size + tail.size)
    echoes = (take.rng.rand(tail.size) - 0.5) * np.exp(-6.9 * tail.times / decay)
    echoes[: int(take.between(0, 0.03) * take.rate)] = 0.0
    hz = np.fft.rfftfreq(size, 1 / take.rate)
    dull = band_gain(hz, 100.0, high=take.around(4000, 2))
    wet = np.fft.rfft(leveled(echoes) / math.sqrt(tail.size), size) * dull * take.around(0.7, 3)
    return np.fft.irfft(np.fft.rfft(sound, size) * (1 + wet), size)[: take.size]


def dynamics(take: Take) -> np.ndarray:
    """Throw a course of level: fades, crescendo, sudden cut, or a tremolo; float64 [n]."""
    ramp = take.times / take.seconds * take.between(0.8, 1.3)
    if take.chance(0.3):
        return 1 + take.between(0.2, 0.9) * np.sin(2 * np.pi * take.around(5, 2) * take.times)
    return 10 ** (np.interp(ramp, *take.pick(COURSES)) / 20)


def produce(take: Take, sound: np.ndarray, *, loudness: float) -> np.ndarray:
    """Record a piece: room, filter, dynamics, noise floor, level in dBFS rms; float32 [n].

    Rounding to the 16-bit grid hides that sines differ in their last bits between machines.
    """
    if take.chance(0.4):
        sound = reverberate(take, sound)
    if take.chance(0.2):
        low, high = take.pick(LENSES)
        sound = bandpass(take, sound, low=low, high=high)
    if take.chance(0.2):
        sound = sound * dynamics(take)
    sound = leveled(sound)
    if take.chance(0.25):
        sound += noise(take, tilt=-3) * 10 ** -take.between(1.2, 3)
    sound *= 10 ** (loudness / 20)
    if np.max(np.abs(sound)) > 0.9:  # as loud records do
        sound = np.tanh(sound)
    return (np.round(sound * 32767) / 32768).astype(np.float32)


class Kind(NamedTuple):
    """A line of the suite's table: how many pieces, how long, how loud, of what."""

    count: int
    seconds: tuple[float, float]
    loudness: tuple[float, float]  # dBFS rms
    piece: Callable[[Take], np.ndarray]


SUITE = (
    Kind(72, (1.8, 2.4), (-42, -12), keyboard),
    Kind(34, (2.0, 3.0), (-38, -12), solo),
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
    Kind(10, (1.8, 2.4), (-40, -12), alarm),
    Kind(26, (2.2, 3.2), (-40, -14), speech),
    Kind(5, (2.0, 2.6), (-45, -26), functools.partial(speech, whispered=True)),
    Kind(5, (2.0, 3.0), (-40, -18), babble),
    Kind(14, (1.8, 2.2), (-45, -12), coloured),
    Kind(4, (2.0, 3.0), (-45, -16), wind),
    Kind(3, (2.6, 3.4), (-40, -16), sea),
    Kind(5, (2.0, 2.6), (-42, -16), functools.partial(drops, a_second=900)),
    Kind(4, (2.0, 2.6), (-45, -20), functools.partial(drops, a_second=20)),
    Kind(7, (2.0, 2.6), (-42, -14), motor),
    Kind(5, (1.8, 2.4), (-45, -16), hum),
    Kind(10, (1.8, 2.2), (-90, -55), hushed),
    Kind(20, (2.2, 3.0), (-36, -10), mixture),
)


def ear_training_suite(sample_rate: int, seed: int) -> Iterator[np.ndarray]:
    """Make the sound that the codebooks' seeds are heard in, about 17 minutes.

    Each piece throws dice of its own, so that it does not depend on those before it; the pieces
    come shuffled. The same seed makes the same samples everywhere.

    Parameters
    ----------
    sample_rate : int
        In Hz; partials above 0.45 of it are left out.
    seed : int
        Another seed makes other pieces of the same kinds.

    Yields
    ------
    ndarray, float32 [n]
        A piece of 2 to 5 seconds, mono, within +-1, on the grid of 16-bit PCM.
    """
    jobs = [(kind, index) for kind in SUITE for index in range(kind.count)]
    order = np.argsort(np.random.RandomState(seed % 2**32).rand(len(jobs)), kind="stable")
    for number in order:
        kind, index = jobs[number]
        take = Take(np.random.RandomState([seed % 2**32, number]), sample_rate, 1.0, index)
        take = take.lasting(take.between(*kind.seconds))
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


def listen(blocks: Iterable[np.ndarray], settings: Settings, *, ear: Any) -> Heard:
    """Hear blocks of sound through an ear and gather its features (memory grows with the sound)."""
    analyzer = Analyzer(settings.sample_rate, settings.hop_length)
    semantic, acoustic, descriptors = [], [], []

    def gather(spectra: Spectra, features: np.ndarray) -> None:
        semantic.append(features.astype(np.float32))
        acoustic.append(acoustic_features(spectra).astype(np.float32))
        descriptors.append(describe(spectra, settings.sample_rate))

    for block in blocks:
        spectra = analyzer.push(block)
        gather(spectra, ear.push(block, spectra))
    spectra = analyzer.flush()
    gather(spectra, ear.flush(spectra))
    return Heard(*(np.concatenate(parts) for parts in (semantic, acoustic, descriptors)))


def describe_codes(codes: np.ndarray, descriptors: np.ndarray, size: int) -> np.ndarray:
    """Mean descriptors [K, M] of each code's frames; a code without frames has NaN."""
    counts, sums = sum_by_code(descriptors.astype(np.float64), codes, size)
    with np.errstate(invalid="ignore"):
        return (sums / counts[:, None]).astype(np.float32)


def moments(features: np.ndarray, natural: bool) -> tuple[np.ndarray, np.ndarray]:
    """Offset and scale [D]: features with natural units are only centred, others standardised."""
    offset = np.rint(features.mean(axis=0, dtype=np.float64) / GRID) * GRID
    if natural:
        return offset, np.ones(features.shape[1])
    return offset, np.maximum(features.std(axis=0, dtype=np.float64), 1e-6)


def describe_codebooks(
    books: Codebooks, features: np.ndarray, descriptors: np.ndarray
) -> Codebooks:
    """Measure codes' descriptors over these frames; one never met keeps its own or the usual."""
    codes = books.encode(features)
    size = books.vectors.shape[1]
    fresh = np.stack([describe_codes(column, descriptors, size) for column in codes.T])
    usual = np.nanmean(fresh, axis=1, keepdims=True)
    known = np.where(~np.isnan(fresh), fresh, np.where(books.descriptors, books.descriptors, usual))
    return replace(books, descriptors=known.astype(np.float16).astype(np.float32))


def fit_codebooks(
    features: np.ndarray,
    descriptors: np.ndarray,
    *,
    branch: Branch,
    settings: Settings,
    tick: Callable[[], None],
) -> Codebooks:
    """Fit one branch's chain on features [N, D] and measure what its codes sound like."""
    offset, scale = moments(features, branch.natural)
    rows = np.rint((features - offset) / scale / GRID) * GRID
    size, seed = settings.codebook_size, settings.seed
    if settings.codebook_init == "random":
        chain = random_chain(rows, branch.weights, size=size, seed=seed)
    else:
        chain = fit_chain(rows, branch.weights, size=size, seed=seed, tick=tick)
    blank = np.zeros((len(chain), size, NUM_DESCRIPTORS), dtype=np.float32)
    books = Codebooks(chain, branch.weights, offset, scale, blank, settings.codebook_init)
    return describe_codebooks(books, features, descriptors)


def adapt_codebooks(books: Codebooks, features: np.ndarray) -> Codebooks:
    """Move a chain by EMA towards features [N, D] of a given sound; meanings stay near."""
    residual, chain = books.normalise(features), []
    for vectors, metric in zip(books.vectors, books.weights):
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
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / PROGRAM


@functools.lru_cache(maxsize=1)
def source_fingerprint() -> str:
    """Hash of this program's sections 4 to 7, which make the codebooks: no stale cache, ever."""
    text = Path(__file__).read_text(encoding="utf-8")
    made_by = text[text.index("\n# 4 Signal") : text.index("\n# 8 Tokenizer")]
    return hashlib.sha256(made_by.encode()).hexdigest()[:16]


def cache_key(settings: Settings, ear: Any) -> str:
    """Hash of all that decides the codebooks: ear, rates, sizes, seed and program."""
    facts = [
        FORMAT_VERSION,
        source_fingerprint(),
        settings.codebook_init,
        ear.identity,
        settings.sample_rate,
        settings.hop_length,
        settings.codebook_size,
        NUM_QUANTIZERS,
        settings.seed,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]


ARRAYS = ("vectors", "weights", "offset", "scale", "descriptors")


def pack_codebooks(trained: Trained) -> dict[str, np.ndarray]:
    """Arrays as the cache holds them: vectors as whole multiples of GRID."""
    packed = {}
    for branch, books in zip(Trained._fields, trained):
        for name in ARRAYS:
            packed[f"{branch}_{name}"] = getattr(books, name)
        packed[f"{branch}_vectors"] = np.rint(books.vectors / GRID).astype(np.int32)
        packed[f"{branch}_descriptors"] = books.descriptors.astype(np.float16)
    return packed


def content_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """Hash over names, shapes and bytes of arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def unpack_codebooks(packed: Mapping[str, np.ndarray], origin: str) -> Trained:
    """Rebuild both chains from the cache's arrays."""

    def one(branch: str) -> Codebooks:
        arrays = {name: np.array(packed[f"{branch}_{name}"]) for name in ARRAYS}
        arrays["vectors"] = arrays["vectors"] * GRID
        arrays["descriptors"] = arrays["descriptors"].astype(np.float32)
        return Codebooks(**arrays, origin=origin)

    return Trained(*(one(branch) for branch in Trained._fields))


def save_codebooks(path: Path, trained: Trained, *, key: str) -> None:
    """Write a cache file, whole or not at all; failing costs the cache only."""
    packed = pack_codebooks(trained)
    stamp = {"key": np.array(key), "sha256": np.array(content_hash(packed))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            np.savez(file, **packed, **stamp)
    except OSError as error:
        warn(f"codebooks were not cached in {path.parent}: {error.strerror or error}")


def load_codebooks(path: Path, *, key: str, settings: Settings) -> Trained | None:
    """Read a cache file; None, with a warning, if it is damaged or not what its name says."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        stamp = (str(arrays.pop("key")), str(arrays.pop("sha256")))
        if stamp != (key, content_hash(arrays)):
            raise ValueError("its content is not what was written")
        return unpack_codebooks(arrays, settings.codebook_init)
    except FileNotFoundError:
        return None
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        warn(f"cached codebooks {path.name} are unusable ({error}); fitting them again")
        return None


def train_codebooks(heard: Heard, branch: Branch, settings: Settings) -> Trained:
    """Fit both chains side by side, one thread each."""
    with Progress("fitting codebooks", 2 * NUM_QUANTIZERS, settings) as progress:
        jobs = ((heard.semantic, branch), (heard.acoustic, ACOUSTIC))
        with ThreadPoolExecutor(2) as pool:
            fitted = pool.map(
                lambda job: fit_codebooks(
                    job[0], heard.descriptors, branch=job[1], settings=settings, tick=progress.tick
                ),
                jobs,
            )
            return Trained(*fitted)


def hear_suite(settings: Settings, ear: Any) -> Heard:
    """Listen to the ear-training suite with a bar on the terminal."""
    with Progress("hearing the ear-training suite", SUITE_SECONDS, settings) as progress:

        def pieces() -> Iterator[np.ndarray]:
            for piece in ear_training_suite(settings.sample_rate, settings.seed):
                yield piece
                progress.tick(len(piece) / settings.sample_rate)

        return listen(pieces(), settings, ear=ear)


def calibrate(settings: Settings, ear: Any) -> Trained:
    """Codebooks for an ear: from the cache, or fitted on the ear-training suite and cached."""
    key = cache_key(settings, ear)
    path = cache_folder(settings) / f"codebooks-{settings.codebook_init}-{key}.npz"
    trained = None
    if settings.use_cache and not settings.force_reinit:
        trained = load_codebooks(path, key=key, settings=settings)
    if trained is None:
        trained = train_codebooks(hear_suite(settings, ear), ear.branch, settings)
        if settings.use_cache:
            save_codebooks(path, trained, key=key)
    return trained


# 8 Tokenizer -------------------------------------------------------------------------------------
# Uses: 1, 5, 6, 7 (and the analyser of 4 through 5's rows). Blocks of sound -> blocks of codes.


class Tokens(NamedTuple):
    """Some frames: codes int16 [n, 8], and what they were made from."""

    codes: np.ndarray
    semantic: np.ndarray
    acoustic: np.ndarray
    spectra: Spectra


class Queue:
    """Rows of two sources that come at different times, handed out as pairs."""

    def __init__(self) -> None:
        self._spectra, self._semantic = NO_SPECTRA, None

    def pair(self, spectra: Spectra, semantic: np.ndarray) -> tuple[Spectra, np.ndarray]:
        """Add what came; return the rows [n] that both sources have."""
        kept = semantic if self._semantic is None else np.concatenate([self._semantic, semantic])
        rows = join_rows([self._spectra, spectra])
        count = min(len(kept), len(rows.level))
        self._spectra, self._semantic = slice_rows(rows, count), kept[count:]
        return slice_rows(rows, 0, count), kept[:count]


class Tokenizer:
    """An ear and its codebooks: turns sound into codes.

    Parameters
    ----------
    settings : Settings
        Which ear, rate, sizes and cache.
    trained : Trained, optional
        Codebooks to use; otherwise the ear's own, from the cache or fitted now.

    Examples
    --------
    >>> tokenizer = Tokenizer(Settings())                        # doctest: +SKIP
    >>> codes = tokenizer.encode(samples)  # [T, 8] of mono samples at settings.sample_rate
    """

    def __init__(self, settings: Settings, trained: Trained | None = None) -> None:
        self.settings = settings
        self._open_ear = EARS[settings.codebook_init]
        self.ear = self._open_ear(settings)
        self.trained = trained or calibrate(settings, self.ear)

    @property
    def codebook_id(self) -> str:
        """Name of the codebooks: equal names, equal meaning of every code."""
        semantic, acoustic = self.trained
        return f"{semantic.origin}-{semantic.identity}-{acoustic.identity}"

    def tokens(self, blocks: Iterable[np.ndarray]) -> Iterator[Tokens]:
        """Tokenize blocks of mono samples as they come; a file is a stream with a known end.

        Blocks of any size give the same codes. Rows come CONTEXT_SECONDS after their sound, or
        later if the ear needs more.
        """
        settings, ear, queue = self.settings, self._open_ear(self.settings), Queue()
        analyzer = Analyzer(settings.sample_rate, settings.hop_length)
        for block in blocks:
            spectra = analyzer.push(block)
            yield from self._encode(*queue.pair(spectra, ear.push(block, spectra)))
        spectra = analyzer.flush()
        yield from self._encode(*queue.pair(spectra, ear.flush(spectra)))

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Codes int16 [T, 8] of mono samples [n] at the analysis rate, T = ceil(n / hop)."""
        parts = [tokens.codes for tokens in self.tokens([samples])]
        return np.concatenate(parts) if parts else np.empty((0, len(LAYERS)), np.int16)

    def _encode(self, spectra: Spectra, semantic: np.ndarray) -> Iterator[Tokens]:
        if len(semantic):
            acoustic = acoustic_features(spectra)
            chains = (
                self.trained.semantic.encode(semantic),
                self.trained.acoustic.encode(acoustic),
            )
            yield Tokens(np.concatenate(chains, axis=1), semantic, acoustic, spectra)


def fit_to_sound(tokenizer: Tokenizer, blocks: Iterable[np.ndarray]) -> Tokenizer:
    """Tokenizer with codebooks fitted on this very sound, or moved towards it (`adapt`)."""
    settings = tokenizer.settings
    heard = listen(blocks, settings, ear=tokenizer.ear)
    if not len(heard.semantic):
        return tokenizer
    if settings.codebook_init == "audio":
        return Tokenizer(settings, train_codebooks(heard, tokenizer.ear.branch, settings))
    pairs = zip(tokenizer.trained, (heard.semantic, heard.acoustic))
    moved = (adapt_codebooks(books, features) for books, features in pairs)
    return Tokenizer(settings, Trained(*moved))


# 9 Token stream ----------------------------------------------------------------------------------
# Uses: 1, 2. Codes <-> events <-> lines of NDJSON, both ways, as generators.

MOST_FRAMES = 20_000_000  # five days; more is a lying end line
LINE_LIMIT = 2000  # characters; readers that agents use cut longer lines
LEGEND_TEXT = (
    "Each line is a frame: t in seconds, then codes of layers S0-S3 (semantic) and A0-A3"
    " (acoustic). A layer holds its code until it is written again; kf marks frames that restate"
    " all. Codes are names, not amounts: legend lines say what each sounds like, measured over"
    " many sounds."
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


class Encoder:
    """Codes -> events, block by block: what stands in which frame, and new codes' glosses."""

    def __init__(self, header: Header, gloss: Gloss | None) -> None:
        self._gloss = gloss
        self._dense = np.array([encoding == "dense" for encoding in header.encodings])
        self._interval = max(1, round(header.keyframe_interval * header.frame_rate))
        self._last = np.full((1, len(LAYERS)), -1, dtype=np.int16)
        self._known = np.zeros((len(LAYERS), header.codebook_size), dtype=bool)
        self._index = 0

    def events(self, codes: np.ndarray) -> Iterator[Legend | Frame]:
        """Events of the next frames, codes [n, 8]."""
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
        new = [(layer, code) for layer, code in enumerate(row) if not self._known[layer, code]]
        for layer, code in new:
            self._known[layer, code] = True
        if new:
            yield Legend(tuple((layer, code, self._gloss(layer, code)) for layer, code in new))


def dump_json(value: Any) -> str:
    """Compact JSON on one line; NaN and infinity are refused."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def header_fields(header: Header) -> dict[str, Any]:
    """The header line as a JSON object."""
    source = {k: v for k, v in header.source._asdict().items() if v is not None}
    layers = [
        {
            "name": layer.name,
            "kind": layer.kind,
            "codebook_size": header.codebook_size,
            "encoding": encoding,
            "reads": reads,
        }
        for layer, encoding, reads in zip(LAYERS, header.encodings, header.reads)
    ]
    return {
        "event": "header",
        "schema": SCHEMA,
        "format_version": FORMAT_VERSION,
        "generator": {"name": PROGRAM, "version": VERSION},
        "source": source,
        "frame_rate": round(header.frame_rate, 6),
        "hop_length": header.hop_length,
        "sample_rate": header.sample_rate,
        "layers": layers,
        "extractor": dict(header.extractor),
        "codebook_id": header.codebook_id,
        "keyframe_interval": header.keyframe_interval,
        "legend": LEGEND_TEXT,
    }


def legend_lines(legend: Legend) -> Iterator[str]:
    """Legend lines; split where one would grow over LINE_LIMIT."""
    glosses: dict[str, dict[str, str]] = {}
    for layer, code, text in legend.entries:
        glosses.setdefault(LAYER_NAMES[layer], {})[str(code)] = text
    line = dump_json({"event": "legend", **glosses})
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
            yield dump_json(
                header_fields(event) if isinstance(event, Header) else end_fields(event)
            )


class Reread(NamedTuple):
    """A stream read back: codes int16 [T, 8], and glosses by (layer, code)."""

    header: Header
    codes: np.ndarray
    glosses: dict[tuple[int, int], str]
    end: End
    whole: bool  # it had its end line


def parse_line(line: str, number: int) -> dict[str, Any]:
    """Parse one line.

    Raises
    ------
    StreamError
        If it is not a JSON object; the message names the line.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise StreamError(f"line {number} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise StreamError(f"line {number} is not a JSON object")
    return value


def typed(fields: Mapping[str, Any], name: str, kinds: type | tuple[type, ...]) -> Any:
    """Field of a JSON object, refused if it is missing or of another type (bool is no number)."""
    value = fields.get(name)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise StreamError(f"{name!r} is missing or not what it should be")
    return value


def parse_source(fields: Mapping[str, Any]) -> Source:
    """The header's source."""
    duration = fields.get("duration")
    return Source(
        typed(fields, "name", str)[:120],
        typed(fields, "kind", str),
        typed(fields, "sample_rate", int),
        typed(fields, "channels", int),
        None if duration is None else float(typed(fields, "duration", (int, float))),
    )


def parse_header(fields: Mapping[str, Any]) -> Header:
    """Read a header line's fields.

    Raises
    ------
    StreamError
        If it is no header of this schema and major version.
    """
    if fields.get("event") != "header" or fields.get("schema") != SCHEMA:
        raise StreamError(f"it does not begin with a {SCHEMA} header; is this a token stream?")
    version = str(fields.get("format_version"))
    if version.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        raise StreamError(f"format version {version:.20} is not {FORMAT_VERSION}'s")
    layers = [layer for layer in typed(fields, "layers", list) if isinstance(layer, dict)]
    if [layer.get("name") for layer in layers] != list(LAYER_NAMES):
        raise StreamError("the header does not name the eight layers")
    rate, size = typed(fields, "frame_rate", (int, float)), typed(layers[0], "codebook_size", int)
    if not (1 <= rate <= 500 and 0 < size <= 32767):
        raise StreamError("the header's frame_rate or codebook_size is out of range")
    return Header(
        parse_source(typed(fields, "source", dict)),
        float(rate),
        typed(fields, "hop_length", int),
        typed(fields, "sample_rate", int),
        tuple(typed(layer, "encoding", str) for layer in layers),
        tuple(typed(layer, "reads", str) for layer in layers),
        size,
        typed(fields, "extractor", dict),
        typed(fields, "codebook_id", str),
        float(typed(fields, "keyframe_interval", (int, float))),
    )


def parse_end(fields: Mapping[str, Any]) -> End:
    """Read an end line's fields."""
    return End(
        typed(fields, "frames", int),
        float(typed(fields, "duration", (int, float))),
        typed(fields, "audio_sha256", str),
        typed(fields, "stats", dict),
    )


class Decoder:
    """Lines -> codes: holds each layer's code until it is written again."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._held: list[int] = [-1] * len(LAYERS)
        self._starts: list[int] = []
        self._rows: list[list[int]] = []
        self._glosses: dict[tuple[int, int], str] = {}

    def take_frame(self, fields: dict[str, Any], number: int) -> None:
        """Read a frame line."""
        t = fields.pop("t", None)
        fields.pop("kf", None)
        if type(t) not in (int, float) or not 0 <= t < 1e7:
            raise StreamError(f"line {number} has no event and no time in seconds")
        index = round(t * self._header.frame_rate)
        if index != 0 and not self._starts or self._starts and index <= self._starts[-1]:
            raise StreamError(f"line {number}: time {t} is out of order")
        for name, code in fields.items():
            if (
                name not in LAYER_NAMES
                or type(code) is not int
                or not 0 <= code < self._header.codebook_size
            ):
                raise StreamError(f"line {number}: {name!s:.20} is no layer with a code in range")
            self._held[LAYER_NAMES.index(name)] = code
        if -1 in self._held:
            raise StreamError(f"line {number}: the first frame does not state all eight layers")
        self._starts.append(index)
        self._rows.append(self._held.copy())

    def take_legend(self, fields: dict[str, Any], number: int) -> None:
        """Read a legend line."""
        for name, glosses in fields.items():
            if name not in LAYER_NAMES or not isinstance(glosses, dict):
                raise StreamError(f"line {number}: {name!s:.20} is no layer with glosses")
            for code, text in glosses.items():
                if not (code.isdecimal() and len(code) < 6 and isinstance(text, str)):
                    raise StreamError(f"line {number}: {code!s:.20} is no code with a gloss")
                self._glosses[LAYER_NAMES.index(name), int(code)] = text

    def finish(self, fields: dict[str, Any] | None) -> Reread:
        """Expand what was held into codes [T, 8]; `fields` is the end line, if there was one."""
        last = self._starts[-1] + 1 if self._starts else 0
        end = self._end(last) if fields is None else parse_end(fields)
        if not last <= end.frames <= MOST_FRAMES or end.frames > 0 == last:
            raise StreamError("the end line's frame count does not fit the frames before it")
        lengths = np.diff(np.array([*self._starts, end.frames], dtype=np.int64))
        rows = np.array(self._rows, dtype=np.int16).reshape(-1, len(LAYERS))
        codes = np.repeat(rows, lengths, axis=0)
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
                if line.endswith("\n"):
                    raise
                return


def decode_stream(lines: Iterable[str]) -> Reread:
    """Read a token stream back into exact codes.

    A stream that was cut (no end line, maybe half a line) gives the frames it holds.

    Raises
    ------
    StreamError
        If it is no such stream, or contradicts itself; the message names the line.
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
    """One string a frame: eight codes, semantic then acoustic."""
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
# Uses: 1, 4, 6, 9. What makes codes legible: glosses in the units of musicians and engineers.

INDEX = {name: column for column, name in enumerate(DESCRIPTORS)}
NOTES = slice(len(DESCRIPTORS), NUM_DESCRIPTORS)
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
    """The notes that stand out, strongest first, or that there is no pitch."""
    salience = row[NOTES]
    top = salience.max()
    if top < 0.04 or row[INDEX["tonal"]] < 0.25:
        return "unpitched"
    strong = [k for k in salience.argsort()[::-1][: 2 * most] if salience[k] > 0.45 * top]
    return "+".join(note_name(LOWEST_NOTE + k) for k in sorted(strong[:most]))


def class_words(row: np.ndarray, most: int = 4) -> str:
    """The pitch classes that stand out, strongest first."""
    chroma = fold_chroma(row[None, NOTES])[0]
    if chroma.max() < 0.03 or row[INDEX["tonal"]] < 0.2:
        return "no harmony"
    strong = [k for k in chroma.argsort()[::-1][:most] if chroma[k] > 0.4 * chroma.max()]
    return " ".join(PITCH_CLASSES[k] for k in strong)


def pulse_words(row: np.ndarray) -> str:
    """Onset rate, and the period where there is one."""
    rate, pulse = row[INDEX["onset_rate"]], row[INDEX["pulse"]]
    if rate < 0.3:
        return "no onsets"
    period = 2 ** row[INDEX["period"]]
    beat = f"period {period:.2f} s ({60 / period:.0f}/min)" if pulse > 0.35 else "no pulse"
    return f"{rate:.1f} onsets/s, {beat}"


def change_words(row: np.ndarray) -> str:
    """Attack, decay or steadiness of an instant, and the band an attack is in."""
    attack = row[INDEX["attack_low"] : INDEX["attack_high"] + 1]
    slope = row[INDEX["slope"]]
    if attack.sum() > 6:
        band = ("low", "mid", "high")[int(attack.argmax())]
        return f"attack +{attack.sum():.0f} dB, {band}"
    if slope < -2:
        return f"decay {slope:.0f} dB"
    return f"rise +{slope:.0f} dB" if slope > 2 else "steady"


def contrast_words(row: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> str:
    """The two things in which a code differs most from its layer's other codes."""
    columns = [INDEX[name] for name in MORE_LESS]
    score = (row[columns] - mean[columns]) / deviation[columns]
    words = list(MORE_LESS.values())
    top = np.abs(score).argsort()[::-1][:2]
    return ", ".join(words[k][int(score[k] < 0)] for k in top)


def scene_words(row: np.ndarray) -> str:
    """A scene: level, its spread, texture and bands."""
    return (
        f"{level_words(row)} ±{row[INDEX['spread']]:.0f}, {texture_words(row)}, {band_words(row)}"
    )


def timbre_words(row: np.ndarray) -> str:
    """Level, texture and bands of an instant."""
    return f"{level_words(row)}, {texture_words(row)}, {band_words(row)}"


# What a layer's codes are read by; None: only by how they differ from the layer's others.
PLAIN_WORDS: tuple[Callable[[np.ndarray], str] | None, ...] = (
    scene_words, class_words, pulse_words, None, timbre_words, note_words, change_words, None,
)  # fmt: skip


def gloss_table(books: Sequence[Codebooks]) -> Gloss:
    """Readings of all codes of both chains, from descriptors stored with the codebooks."""
    tables = np.concatenate([chain.descriptors for chain in books])
    mean, deviation = tables.mean(axis=1), tables.std(axis=1) + 1e-6

    @functools.lru_cache(maxsize=None)
    def gloss(layer: int, code: int) -> str:
        row = tables[layer, code]
        words = PLAIN_WORDS[layer]
        return words(row) if words else contrast_words(row, mean[layer], deviation[layer])

    return gloss


# The LLM view. Runs of codes by rate-distortion, stated observations, and a budget that holds.

VIEW_NAMES = (
    "scene", "harmony", "pulse", "scene detail", "timbre", "pitch", "change", "detail",
)  # fmt: skip
VIEW_STEPS = 2000  # rows a path is searched over, at most
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
    square = np.sum(rows**2, axis=1)[:, None] - 2 * rows @ words.T + np.sum(words**2, axis=1)
    return np.maximum(square, 0)


def choose_codes(distortion: np.ndarray, count: int) -> np.ndarray:
    """Greedily pick the columns [<= count] that together leave the least distortion [T, n]."""
    best, picked = np.full(len(distortion), np.inf), []
    for _ in range(min(count, distortion.shape[1])):
        totals = np.minimum(distortion, best[:, None]).sum(axis=0)
        column = int(totals.argmin())
        if column in picked:
            break
        picked.append(column)
        best = np.minimum(best, distortion[:, column])
    return np.array(picked)


def cheapest_path(distortion: np.ndarray, price: float) -> np.ndarray:
    """Column for each row [T] that minimises distortion + price x changes (Viterbi)."""
    total = distortion[0].copy()
    origin = np.empty(distortion.shape, dtype=np.int32)
    stay = np.arange(distortion.shape[1])
    for t in range(1, len(distortion)):
        jump = int(total.argmin())
        switch = total[jump] + price
        origin[t] = np.where(total <= switch, stay, jump)
        total = np.minimum(total, switch) + distortion[t]
    path = np.empty(len(distortion), dtype=np.int64)
    path[-1] = total.argmin()
    for t in range(len(distortion) - 1, 0, -1):
        path[t - 1] = origin[t, path[t]]
    return path


def run_starts(column: np.ndarray) -> np.ndarray:
    """Rows at which a path changes, the first one included."""
    return np.flatnonzero(np.concatenate([[True], column[1:] != column[:-1]]))


class LayerView(NamedTuple):
    """One layer as runs: which code from which row on, and what each is like in this clip."""

    layer: int
    codes: np.ndarray  # [n] ids as in the stream
    glosses: list[str]
    starts: np.ndarray
    path: np.ndarray  # index into codes at each start


def clip_glosses(layer: int, rows: np.ndarray, path: np.ndarray) -> dict[int, str]:
    """Readings measured over this clip of each path column, with what sets it apart here."""
    columns = np.unique(path)
    means = np.stack([rows[path == column].mean(axis=0) for column in columns])
    mean, deviation = means.mean(axis=0), means.std(axis=0) + 1e-3
    words = PLAIN_WORDS[layer]
    texts = {}
    for column, row in zip(columns, means):
        own = contrast_words(row, mean, deviation) if len(columns) > 2 else ""
        plain = words(row) if words else ""
        texts[int(column)] = "; ".join(filter(None, (plain, own if not words else "")))
    return texts


class LayerPaths:
    """Searches one layer's runs at any price; keeps what does not depend on the price."""

    def __init__(self, layer: int, clip: Clip, trained: Trained, *, rows: np.ndarray) -> None:
        stage = layer % NUM_QUANTIZERS
        side = slice(0, NUM_QUANTIZERS) if layer < NUM_QUANTIZERS else slice(NUM_QUANTIZERS, None)
        books = trained.semantic if layer < NUM_QUANTIZERS else trained.acoustic
        features = clip.semantic if layer < NUM_QUANTIZERS else clip.acoustic
        self.layer, self._rows = layer, rows
        self._step = max(1, -(-len(clip.codes) // VIEW_STEPS))
        used, counts = np.unique(clip.codes[:, layer], return_counts=True)
        self._used = used[counts.argsort(kind="stable")[::-1][:160]]
        full = stage_distortion(
            books, features, stage, codes=clip.codes[:, side], wanted=self._used
        )
        edges = np.arange(0, len(full), self._step)
        self._distortion = np.add.reduceat(full, edges, axis=0)
        self._scale = float(self._distortion.min(axis=1).mean()) + 1e-6

    def view(self, count: int, price: float) -> LayerView:
        """Runs over at most `count` codes, at a price a change in mean distortions a step."""
        picked = choose_codes(self._distortion, count)
        path = cheapest_path(self._distortion[:, picked], price * self._scale)
        starts = run_starts(path)
        met, path_codes = np.unique(path, return_inverse=True)
        full = np.repeat(path_codes, self._step)[: len(self._rows)]
        glosses = clip_glosses(self.layer, self._rows, full)
        return LayerView(
            self.layer,
            self._used[picked[met]],
            [glosses.get(k, "") for k in range(len(met))],
            starts * self._step,
            path_codes[starts],
        )


def time_words(seconds: float) -> str:
    """Seconds with a decimal where it says something."""
    return f"{seconds:.1f}".removesuffix(".0") if seconds < 600 else f"{seconds:.0f}"


def layer_lines(view: LayerView, row_rate: float) -> list[str]:
    """Legend and runs of a layer."""
    name = LAYER_NAMES[view.layer]
    legend = "; ".join(f"{code} {text}" for code, text in zip(view.codes, view.glosses))
    times = view.starts / row_rate
    runs = " ".join(f"{time_words(t)}:{view.codes[k]}" for t, k in zip(times, view.path))
    return [f"{name} {VIEW_NAMES[view.layer]}: {legend}", f"{name} runs: {runs}"]


def view_lines(header: Header, codes: np.ndarray, gloss: Gloss) -> Iterator[str]:
    """The minimal stream for a prompt: header in words, legend of the codes used, runs."""
    duration = len(codes) / header.frame_rate
    yield f"# Sound as tokens: {header.source.name}, {duration:.1f} s, {len(codes)} frames"
    yield f"# {LEGEND_TEXT}"
    yield "# A run is written start-in-seconds:code and lasts until the next."
    for layer, name in enumerate(LAYER_NAMES):
        column = codes[:, layer]
        yield f"[{name}] {header.reads[layer]}"
        for code in np.unique(column):
            yield f"{name} {code} = {gloss(layer, int(code))}"
        starts = run_starts(column)
        times = starts / header.frame_rate
        yield " ".join(f"{t:.2f}:{code}" for t, code in zip(times, column[starts]))


# 11 Evaluation -----------------------------------------------------------------------------------
# Uses: 1, 4, 6. Metrics over codes, and sound from codes.


class LayerReport(NamedTuple):
    """Statistics of one layer over a sound."""

    codes_used: int
    usage: float  # share of the codebook
    entropy: float  # bits a frame
    perplexity: float  # 2 ** entropy: as many codes as if used evenly
    change_rate: float  # changes a second


class CodeStatistics:
    """Counts of codes and changes, gathered block by block."""

    def __init__(self, codebook_size: int) -> None:
        self._counts = np.zeros((len(LAYERS), codebook_size), dtype=np.int64)
        self._changes = np.zeros(len(LAYERS), dtype=np.int64)
        self._last: np.ndarray | None = None

    def add(self, codes: np.ndarray) -> None:
        """Count some more frames, codes [n, 8]."""
        for layer, column in enumerate(codes.T):
            self._counts[layer] += np.bincount(column, minlength=self._counts.shape[1])
        rows = codes if self._last is None else np.concatenate([self._last, codes])
        self._changes += (rows[1:] != rows[:-1]).sum(axis=0)
        self._last = codes[-1:] if len(codes) else self._last

    @property
    def frames(self) -> int:
        """Frames counted."""
        return int(self._counts[0].sum())

    def report(self, frame_rate: float) -> dict[str, LayerReport]:
        """Statistics of each layer by its name."""
        seconds = max(self.frames, 1) / frame_rate
        layers = {}
        for name, counts, changes in zip(LAYER_NAMES, self._counts, self._changes):
            share = counts[counts > 0] / max(1, counts.sum())
            entropy = float(-(share * np.log2(share)).sum()) + 0.0
            layers[name] = LayerReport(
                len(share), len(share) / len(counts), entropy, 2**entropy, float(changes / seconds)
            )
        return layers


def mel_to_power(mel: np.ndarray, sample_rate: int, n_fft: int) -> np.ndarray:
    """Spread mel power [T, N_MELS] over the bins of a power spectrum [T, F]."""
    bank = mel_filterbank(sample_rate, n_fft)
    return (mel / np.maximum(bank.sum(axis=0), 1e-9)) @ bank.T


def overlap_add(spectrum: np.ndarray, hop: int) -> np.ndarray:
    """Inverse short-time Fourier transform of [T, F], least squares, Hann; (T - 1) hop + N long."""
    size = 2 * (spectrum.shape[1] - 1)
    frames = np.fft.irfft(spectrum, size, axis=1) * hann(size)
    parts = size // hop
    out = np.zeros((len(frames) + parts - 1, hop))
    norm = np.zeros((len(frames) + parts - 1, hop))
    for part in range(parts):
        piece = slice(part * hop, (part + 1) * hop)
        out[part : part + len(frames)] += frames[:, piece]
        norm[part : part + len(frames)] += hann(size)[piece] ** 2
    return (out / np.maximum(norm, 1e-3 / size)).ravel()


def griffin_lim(magnitude: np.ndarray, hop: int, *, passes: int = 24) -> np.ndarray:
    """Find a sound whose magnitudes [T, F] are the given ones (unit-energy Hann, size 4 hops).

    Fast Griffin-Lim (Perraudin, Balazs and Sondergaard 2013, WASPAA), momentum 0.99, phases
    started at random from a fixed seed. Returns (T - 1) hop + N samples.
    """
    rng = np.random.RandomState(0)
    angles = np.exp(2j * np.pi * rng.random_sample(magnitude.shape))
    size, before = 2 * (magnitude.shape[1] - 1), None
    for _ in range(passes):
        sound = overlap_add(magnitude * angles, hop)
        rebuilt = np.fft.rfft(sliding(sound, size)[::hop] * hann(size), axis=1)
        moved = rebuilt if before is None else rebuilt + 0.99 * (rebuilt - before)
        angles, before = moved / (np.abs(moved) + 1e-12), rebuilt
    return overlap_add(magnitude * angles, hop)


class Reconstructor:
    """Acoustic features -> approximate sound, block by block with cross-faded joins.

    The codes hold no phase and 64 bands of spectrum, so this is a sketch of the sound: right
    length, loudness, rhythm, colour; not its waveform.
    """

    block, margin = 512, 8  # frames made at a time, frames of overlap

    def __init__(self, sample_rate: int, hop_length: int) -> None:
        self._rate, self._hop = sample_rate, hop_length
        self._rows = np.zeros((0, ACOUSTIC.dimensions))
        self._tail = np.zeros(0)
        self._made = 0

    def push(self, features: np.ndarray) -> np.ndarray:
        """Take decoded features [n, D]; return the samples that are whole."""
        self._rows = np.concatenate([self._rows, features])
        parts = [np.zeros(0)]
        while len(self._rows) >= self.block + self.margin:
            parts.append(self._join(self._invert(self._rows[: self.block + self.margin])))
            self._rows = self._rows[self.block :]
        return np.concatenate(parts)

    def flush(self, samples: int) -> np.ndarray:
        """The rest, so that all that was returned is `samples` long."""
        rest = self._join(self._invert(self._rows), last=True) if len(self._rows) else self._tail
        rest = rest[: samples - self._made]
        return np.pad(rest, (0, max(0, samples - self._made - len(rest))))

    def _invert(self, features: np.ndarray) -> np.ndarray:
        size = window_size(self._hop)
        power = mel_to_power(acoustic_to_mel(features), self._rate, size)
        sound = griffin_lim(np.sqrt(power * size / 2), self._hop)
        start = (size - self._hop) // 2  # where the first frame's own samples begin
        return sound[start : start + len(features) * self._hop]

    def _join(self, sound: np.ndarray, last: bool = False) -> np.ndarray:
        fade = len(self._tail)
        ramp = (np.arange(fade) + 0.5) / max(fade, 1)
        sound[:fade] = sound[:fade] * ramp + self._tail[: len(sound[:fade])] * (
            1 - ramp[: len(sound)]
        )
        cut = len(sound) if last else len(sound) - self.margin * self._hop
        self._tail = sound[cut:]
        self._made += cut
        return sound[:cut]


# 13 Runs -----------------------------------------------------------------------------------------
# Uses: all above. Inputs -> tokenizer -> sinks; the error boundary of each input.


FILE_BLOCK = 131072  # samples of a file that are tokenized at a time; a pipe's as they come


class Job(NamedTuple):
    """One input on its way: what every sink may want to know of it."""

    header: Header
    settings: Settings
    trained: Trained
    gloss: Gloss
    started: float


def save_npz(file: BinaryIO, codes: np.ndarray, header: Any, end: Any) -> None:
    """Write codes int16 [T, 8] with header and end as JSON text; no pickle."""
    texts = {"header": np.array(dump_json(header)), "end": np.array(dump_json(end))}
    buffer = io.BytesIO()  # a zip wants to seek, stdout cannot
    np.savez_compressed(buffer, codes=codes.astype(np.int16), **texts)
    file.write(buffer.getvalue())


def wave_header(samples: int, sample_rate: int) -> bytes:
    """First 44 bytes of a 16-bit mono WAV."""
    size = 2 * samples
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE")
        + form
        + struct.pack("<4sI", b"data", size)
    )


def pcm_bytes(samples: np.ndarray) -> bytes:
    """Full-scale samples -> 16-bit little-endian PCM."""
    return np.clip(np.rint(samples * 32767), -32768, 32767).astype("<i2").tobytes()


class Sink:
    """Something that writes one output as tokens come. `file` takes bytes."""

    suffix = ""

    def __init__(self, file: BinaryIO, job: Job) -> None:
        self.file, self.job = file, job

    def put(self, *lines: str) -> None:
        """Write lines."""
        self.file.write("".join(f"{line}\n" for line in lines).encode())

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
        header = header_fields(self.job.header)
        self._comma = ""
        self.put(
            f'{{"header":{dump_json(header)},', f'"layers":{dump_json(LAYER_NAMES)},', '"codes":['
        )

    def write(self, tokens: Tokens) -> None:
        """Write some frames."""
        for row in tokens.codes.tolist():
            self.file.write(f"{self._comma}{dump_json(row)}".encode())
            self._comma = ",\n"

    def finish(self, end: End) -> None:
        """Write what comes after the last frame."""
        self.put("],", f'"end":{dump_json(end_fields(end))}}}')


class GatheringSink(Sink):
    """Base of outputs that need all codes at once (16 bytes a frame)."""

    def begin(self) -> None:
        """Write what comes before the first frame."""
        self._codes = [np.empty((0, len(LAYERS)), np.int16)]

    def write(self, tokens: Tokens) -> None:
        """Write some frames."""
        self._codes.append(tokens.codes)

    @property
    def codes(self) -> np.ndarray:
        """All codes so far, int16 [T, 8]."""
        return np.concatenate(self._codes)


class NpzSink(GatheringSink):
    """Codes and header for programs, read with allow_pickle=False."""

    suffix = "_tokens.npz"

    def finish(self, end: End) -> None:
        """Write what comes after the last frame."""
        save_npz(self.file, self.codes, header_fields(self.job.header), end_fields(end))


class ViewSink(GatheringSink):
    """The minimal stream for an LLM's context."""

    suffix = "_stream.txt"

    def finish(self, end: End) -> None:
        """Write what comes after the last frame."""
        self.put(*view_lines(self.job.header, self.codes, self.job.gloss))


class SoundSink(Sink):
    """Approximate sound decoded from the acoustic codes."""

    suffix = "_reconstructed.wav"

    def begin(self) -> None:
        """Write what comes before the first frame."""
        header = self.job.header
        self._maker = Reconstructor(header.sample_rate, header.hop_length)
        self.file.write(wave_header(0, header.sample_rate))

    def write(self, tokens: Tokens) -> None:
        """Write some frames."""
        features = self.job.trained.acoustic.decode(tokens.codes[:, NUM_QUANTIZERS:])
        self.file.write(pcm_bytes(self._maker.push(features)))

    def finish(self, end: End) -> None:
        """Write what comes after the last frame."""
        rate = self.job.header.sample_rate
        samples = round(end.duration * rate)
        self.file.write(pcm_bytes(self._maker.flush(samples)))
        self.file.seek(0)
        self.file.write(wave_header(samples, rate))


class MetricsSink(Sink):
    """Statistics of the codes, and how long it took."""

    suffix = "_metrics.json"

    def begin(self) -> None:
        """Write what comes before the first frame."""
        self._statistics = CodeStatistics(self.job.settings.codebook_size)

    def write(self, tokens: Tokens) -> None:
        """Write some frames."""
        self._statistics.add(tokens.codes)

    def finish(self, end: End) -> None:
        """Write what comes after the last frame."""
        layers = self._statistics.report(self.job.header.frame_rate)
        seconds = time.perf_counter() - self.job.started
        report = {
            "source": self.job.header.source.name,
            "codebook_id": self.job.header.codebook_id,
            "frames": end.frames,
            "duration_s": end.duration,
            "seconds": round(seconds, 3),
            "real_time_factor": round(end.duration / seconds, 2),
            "layers": {name: layer._asdict() for name, layer in layers.items()},
        }
        self.put(json.dumps(report, indent=1, allow_nan=False))


SINKS = {
    "text": TextSink, "json": JsonSink, "ndjson": NdjsonSink, "stream": ViewSink, "npz": NpzSink,
    "wav": SoundSink, "metrics": MetricsSink,
}  # fmt: skip


class Counter:
    """Counts the samples that pass; gathers a file's into blocks worth the trouble."""

    def __init__(self, blocks: Iterable[np.ndarray], *, live: bool) -> None:
        self.samples, self._blocks = 0, blocks if live else rechunk(blocks, FILE_BLOCK)

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self.samples += len(block)
            yield block


def output_stem(source: str, rivals: Sequence[str]) -> str:
    """File name for a source's outputs; a short hash joins where inputs share a stem."""
    stem = "stdin" if source == "-" else visible(Path(source).stem) or "sound"
    if sum(Path(rival).stem == Path(source).stem for rival in set(rivals)) > 1:
        stem += "-" + hashlib.sha256(os.fsencode(os.path.abspath(source))).hexdigest()[:8]
    return stem


def output_paths(outputs: Outputs, stem: str) -> dict[Path, str]:
    """Where each format goes.

    Raises
    ------
    OutputError
        If one exists and may not be overwritten, or its folder cannot be made.
    """
    paths: dict[Path, str] = {}
    if outputs.folder:
        paths.update({outputs.folder / f"{stem}{SINKS[f].suffix}": f for f in outputs.formats})
    if outputs.path:
        paths[outputs.path] = outputs.formats[0]
    if outputs.metrics:
        paths[outputs.metrics] = "metrics"
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            exists = path.exists()
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from None
        if exists and not outputs.force:
            raise OutputError(f"{path} exists; --force overwrites it")
    return paths


@contextlib.contextmanager
def stdout_file(live: bool) -> Iterator[BinaryIO]:
    """Standard output: as it comes for a live source, else only when all is well."""
    if live:
        yield sys.stdout.buffer
    else:
        with tempfile.SpooledTemporaryFile(max_size=1 << 26) as spool:
            yield spool
            spool.seek(0)
            shutil.copyfileobj(spool, sys.stdout.buffer)
    sys.stdout.buffer.flush()


@contextlib.contextmanager
def open_sinks(
    paths: Mapping[Path, str], stdout: str | None, job: Job, *, live: bool = False
) -> Iterator[list[Sink]]:
    """Open a sink for each output; files appear only if all goes well."""
    with contextlib.ExitStack() as stack:
        try:
            sinks = [SINKS[f](stack.enter_context(whole_file(p)), job) for p, f in paths.items()]
        except OSError as error:
            raise OutputError(f"cannot write {error.filename}: {error.strerror}") from None
        if stdout:
            sinks.append(SINKS[stdout](stack.enter_context(stdout_file(live)), job))
        yield sinks


def make_header(source: Source, tokenizer: Tokenizer) -> Header:
    """What a stream of this source by this tokenizer says first."""
    settings, ear = tokenizer.settings, tokenizer.ear
    reads = tuple(ear.reads) + tuple(layer.reads for layer in LAYERS[NUM_QUANTIZERS:])
    return Header(
        source,
        settings.frame_rate,
        settings.hop_length,
        settings.sample_rate,
        settings.encodings,
        reads,
        settings.codebook_size,
        ear.card,
        tokenizer.codebook_id,
        settings.keyframe_interval,
    )


def pump(blocks: Counter, tokenizer: Tokenizer, sinks: Sequence[Sink]) -> CodeStatistics:
    """Tokenize blocks and hand the tokens to every sink."""
    statistics = CodeStatistics(tokenizer.settings.codebook_size)
    for sink in sinks:
        sink.begin()
    for tokens in tokenizer.tokens(blocks):
        statistics.add(tokens.codes)
        for sink in sinks:
            sink.write(tokens)
    return statistics


def make_end(audio: Audio, samples: int, statistics: CodeStatistics) -> End:
    """What a stream says last."""
    layers = statistics.report(audio.sample_rate * statistics.frames / max(1, samples))
    stats = {
        name: {"codes_used": layer.codes_used, "perplexity": round(layer.perplexity, 2),
               "changes_per_s": round(layer.change_rate, 3)}
        for name, layer in layers.items()
    }  # fmt: skip
    duration = round(samples / audio.sample_rate, 6)
    return End(statistics.frames, duration, audio.sha256, stats)


class Runner:
    """Runs inputs through one tokenizer, opened when the first needs it."""

    def __init__(self, settings: Settings, outputs: Outputs) -> None:
        self.settings, self.outputs = settings, outputs
        self._tokenizer: Tokenizer | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, loaded or fitted at first use."""
        if self._tokenizer is None:
            self._tokenizer = Tokenizer(self.settings)
        return self._tokenizer

    def run(self, sources: Sequence[str]) -> ExitStatus:
        """Tokenize every source; one bad input costs that input only."""
        status = ExitStatus.OK
        for source in sources:
            try:
                self.run_one(source, output_stem(source, sources))
            except (AudioError, OutputError) as error:
                LOG.error("%s", error)
                status = ExitStatus.INPUT_FAILED
        return status

    def run_one(self, source: str, stem: str) -> None:
        """Tokenize one source into all outputs."""
        started = time.perf_counter()
        paths = output_paths(self.outputs, stem)
        with self._fitted(source) as (audio, tokenizer):
            job = Job(
                make_header(audio.source, tokenizer),
                tokenizer.settings,
                tokenizer.trained,
                gloss_table(tokenizer.trained),
                started,
            )
            with open_sinks(paths, self.outputs.stdout, job, live=source == "-") as sinks:
                blocks = Counter(audio, live=source == "-")
                statistics = pump(blocks, tokenizer, sinks)
                end = make_end(audio, blocks.samples, statistics)
                for sink in sinks:
                    sink.finish(end)
        LOG.info(
            "%s: %.1f s in %.2f s", visible(source), end.duration, time.perf_counter() - started
        )

    @contextlib.contextmanager
    def _fitted(self, source: str) -> Iterator[tuple[Audio, Tokenizer]]:
        """Open a source, with codebooks fitted on it first where that was asked for."""
        tokenizer = self.tokenizer
        if self.settings.adapt or self.settings.codebook_init == "audio":
            if source == "-":
                raise AudioError(
                    "--adapt and --codebook-init audio hear a sound twice: name a file"
                )
            with open_audio(source, self.settings) as audio:
                tokenizer = fit_to_sound(tokenizer, audio)
        with open_audio(source, self.settings) as audio:
            yield audio, tokenizer


def stream_lines(path: str) -> Iterator[str]:
    """Lines of a stream file, or of stdin for "-".

    Raises
    ------
    StreamError
        If it cannot be read or is not UTF-8.
    """
    try:
        with contextlib.ExitStack() as stack:
            raw = sys.stdin.buffer if path == "-" else stack.enter_context(open(path, "rb"))
            yield from io.TextIOWrapper(raw, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StreamError(error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise StreamError("it is not UTF-8 text; --decode reads NDJSON token streams") from None


def matching_codebooks(header: Header, settings: Settings) -> Trained:
    """The codebooks that a stream was made with.

    Raises
    ------
    StreamError
        If these settings lead to others, or they were fitted to one sound and not kept.
    """
    tokenizer = Tokenizer(replace(settings, sample_rate=header.sample_rate))
    if tokenizer.codebook_id != header.codebook_id:
        raise StreamError(
            f"its codebooks {header.codebook_id:.60} are not {tokenizer.codebook_id}: give the"
            " --codebook-init, --seed and weights that it was made with"
        )
    return tokenizer.trained


def write_decoded(
    stream: Reread, paths: Mapping[Path, str], trained: Trained | None, outputs: Outputs
) -> None:
    """Put a stream that was read back into sinks."""
    header = stream.header
    settings = Settings(sample_rate=header.sample_rate, codebook_size=header.codebook_size)

    def gloss(layer: int, code: int) -> str:
        return stream.glosses.get((layer, code), "")

    settings = replace(settings, legend=bool(stream.glosses))
    job = Job(header, settings, trained, gloss, time.perf_counter())
    with open_sinks(paths, outputs.stdout, job) as sinks:
        for sink in sinks:
            sink.begin()
            sink.write(Tokens(stream.codes, None, None, None))
            sink.finish(stream.end)


def run_decode(path: str, settings: Settings, outputs: Outputs) -> ExitStatus:
    """Read a token stream back; write its codes in other formats, or as sound."""
    try:
        stream = decode_stream(stream_lines(path))
        if not stream.whole:
            warn(
                f"{visible(path)} has no end line: it was cut, {stream.end.frames} frames are read"
            )
        sound = "wav" in outputs.formats
        trained = matching_codebooks(stream.header, settings) if sound else None
        write_decoded(stream, output_paths(outputs, output_stem(path, ())), trained, outputs)
    except (StreamError, OutputError) as error:
        LOG.error("%s: %s", visible(path), error)
        return ExitStatus.INPUT_FAILED
    return ExitStatus.OK


# 14 Command line ---------------------------------------------------------------------------------
# Uses: 1, 2, 13. The parser by groups, settings from arguments, main.

EXIT_TEXT = """exit status: 0 all done, 1 some input failed, 2 usage, 3 a package or model is
missing, 130 interrupted"""
EXAMPLES = """examples:
  %(prog)s --all-outputs --output-dir out/ song.wav        every file for one sound
  %(prog)s --format stream song.mp3                        text to paste into an LLM
  ffmpeg -i film.mkv -f wav - | %(prog)s - | head          NDJSON as the sound comes
  %(prog)s --decode out/song_tokens.ndjson --format npz -o codes.npz
"""
TEXT_FORMATS = ("ndjson", "json", "text", "stream", "npz")


def parse_raw(text: str) -> RawFormat:
    """FORMAT:RATE:CHANNELS, as in s16le:48000:2."""
    parts = text.split(":")
    if len(parts) > 3 or parts[0] not in RAW_ENCODINGS:
        raise argparse.ArgumentTypeError(f"FORMAT is one of {', '.join(RAW_ENCODINGS)}")
    try:
        rate, channels = (int(part) for part in (parts[1:] + ["22050", "1"][len(parts) - 1 :]))
    except ValueError:
        raise argparse.ArgumentTypeError("RATE and CHANNELS are whole numbers") from None
    if not (1000 <= rate <= 768000 and 1 <= channels <= 32):
        raise argparse.ArgumentTypeError("RATE is 1000 to 768000 Hz, CHANNELS 1 to 32")
    return RawFormat(parts[0], rate, channels)


def parse_encoding(text: str) -> dict[int, str]:
    """LAYERS=ENCODING[,...], as in S0=rle,A=dense: layer index -> encoding."""
    chosen = {}
    for part in text.split(","):
        name, _, encoding = part.partition("=")
        layers = [i for i, layer in enumerate(LAYER_NAMES) if name and layer.startswith(name)]
        if not layers or encoding not in ENCODINGS:
            raise argparse.ArgumentTypeError(
                f"{part!r} is not a layer (S0-S3, A0-A3, S, A)=dense|rle"
            )
        chosen.update(dict.fromkeys(layers, encoding))
    return chosen


def number_between(low: float, high: float, kind: type = float) -> Callable[[str], Any]:
    """Argument type: a number in a range."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return value

    return parse


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """What to write."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "--all-outputs", action="store_true", help="write every kind of file into the output folder"
    )
    group.add_argument(
        "--output-dir",
        type=Path,
        metavar="DIR",
        help="folder for files named after the input (out with --all-outputs)",
    )
    group.add_argument(
        "--format",
        choices=TEXT_FORMATS,
        help="what to write: to --output, into --output-dir, or to stdout (default: ndjson)",
    )
    group.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write the one format to this file"
    )
    group.add_argument(
        "--ndjson-streaming", action="store_true", help="NDJSON to stdout, beside any files"
    )
    group.add_argument(
        "--reconstruct",
        action="store_true",
        help="also write approximate sound decoded from the acoustic codes",
    )
    group.add_argument(
        "--metrics", type=Path, metavar="FILE", help="write the metrics report to this file"
    )
    group.add_argument("--force", action="store_true", help="overwrite existing files")


def add_stream_options(parser: argparse.ArgumentParser) -> None:
    """How the stream is written."""
    group = parser.add_argument_group("token stream")
    group.add_argument(
        "--rle", action="store_true", help="run-length encode every layer (default: dense)"
    )
    group.add_argument("--rle-semantic", action="store_true", help="run-length encode S0-S3")
    group.add_argument("--dense-acoustic", action="store_true", help="keep A0-A3 dense")
    group.add_argument(
        "--encoding",
        type=parse_encoding,
        default={},
        metavar="LIST",
        help="set layers singly, as in S0=rle,A=dense",
    )
    group.add_argument(
        "--keyframe-interval",
        type=number_between(0.1, 86400),
        default=5.0,
        metavar="S",
        help="seconds between frames that restate all layers (default: %(default)s)",
    )
    group.add_argument(
        "--legend",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write a gloss before each code's first use (default: yes)",
    )
    group.add_argument(
        "--schema", action="store_true", help="print the JSON Schema of every line and exit"
    )
    group.add_argument(
        "--decode", metavar="FILE", help="read a token stream back into codes (- for stdin)"
    )


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """What to hear."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "--raw",
        type=parse_raw,
        metavar="FORMAT:RATE:CHANNELS",
        help="read the input as PCM, as in s16le:48000:2",
    )
    group.add_argument(
        "--resample",
        type=number_between(8000, 48000, int),
        default=SAMPLE_RATE,
        metavar="HZ",
        help="analysis rate (default: %(default)s)",
    )
    group.add_argument(
        "--stdin",
        action="store_true",
        help="read from stdin: sound, or with --batch a list of files",
    )
    group.add_argument("--batch", action="store_true", help="with --stdin: one path a line")
    group.add_argument(
        "--max-duration",
        type=number_between(0.001, 1e7),
        default=86400.0,
        metavar="S",
        help="refuse sounds longer than this (default: %(default)s)",
    )


def add_codebook_options(parser: argparse.ArgumentParser) -> None:
    """Which ear and codebooks."""
    group = parser.add_argument_group("ear and codebooks")
    group.add_argument(
        "--codebook-init",
        choices=tuple(EARS),
        default="spectral",
        help="which ear listens, and what seeds the codebooks (default: %(default)s)",
    )
    group.add_argument(
        "--adapt",
        action="store_true",
        help="move the codebooks by EMA towards the given sound first",
    )
    group.add_argument(
        "--seed",
        type=number_between(0, 2**32 - 1001, int),
        default=12342,
        metavar="N",
        help="of the ear-training suite and the codebooks (default: %(default)s)",
    )
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="allow nothing that could change bytes between runs",
    )
    group.add_argument(
        "--compat-fallback", action="store_true", help="use numpy alone, whatever is installed"
    )
    group.add_argument(
        "--codebook-cache-dir",
        metavar="DIR",
        help="where fitted codebooks are kept (default: the XDG cache directory)",
    )
    group.add_argument(
        "--codebook-cache",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="read and write that cache (default: yes)",
    )
    group.add_argument(
        "--force-reinit-codebooks", action="store_true", help="fit the codebooks again"
    )


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (--help shows all options)")


def make_parser() -> argparse.ArgumentParser:
    """Parser of the whole command line."""
    parser = Parser(
        prog="neural_audio_tokenizer.py",
        epilog=EXAMPLES + EXIT_TEXT,
        allow_abbrev=False,
        description="Sound in, tokens out that a language model can read.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("inputs", nargs="*", metavar="FILE", help="sound files; - is stdin")
    add_output_options(parser)
    add_stream_options(parser)
    add_input_options(parser)
    add_codebook_options(parser)
    group = parser.add_argument_group("messages")
    group.add_argument("--quiet", action="store_true", help="no progress, only warnings and errors")
    group.add_argument(
        "--version", action="version", version=f"{PROGRAM} {VERSION}, format {FORMAT_VERSION}"
    )
    return parser


def choose_encodings(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Encoding of each layer; the narrower option wins."""
    semantic = "rle" if arguments.rle or arguments.rle_semantic else "dense"
    acoustic = "rle" if arguments.rle and not arguments.dense_acoustic else "dense"
    chosen = [semantic] * NUM_QUANTIZERS + [acoustic] * NUM_QUANTIZERS
    for layer, encoding in arguments.encoding.items():
        chosen[layer] = encoding
    return tuple(chosen)


def make_settings(arguments: argparse.Namespace) -> Settings:
    """Settings from parsed arguments."""
    return Settings(
        codebook_init=arguments.codebook_init,
        sample_rate=arguments.resample,
        seed=arguments.seed,
        adapt=arguments.adapt,
        raw=arguments.raw,
        encodings=choose_encodings(arguments),
        keyframe_interval=arguments.keyframe_interval,
        legend=arguments.legend,
        compat_fallback=arguments.compat_fallback,
        cache_dir=arguments.codebook_cache_dir,
        use_cache=arguments.codebook_cache,
        force_reinit=arguments.force_reinit_codebooks,
        max_duration=arguments.max_duration,
        quiet=arguments.quiet,
    )


def choose_formats(arguments: argparse.Namespace, folder: Path | None) -> tuple[str, ...]:
    """Names of the sinks that write files."""
    if arguments.all_outputs:
        return tuple(SINKS)
    if arguments.reconstruct and not folder:
        return ("wav",)
    chosen = (arguments.format or "ndjson",)
    return chosen + ("wav",) if arguments.reconstruct else chosen


def choose_stdout(
    arguments: argparse.Namespace, formats: Sequence[str], *, taken: bool
) -> str | None:
    """The format that goes to stdout: the one chosen, or NDJSON beside the files.

    Raises
    ------
    UsageError
        If two formats want stdout.
    """
    if taken:
        return "ndjson" if arguments.ndjson_streaming else None
    if arguments.ndjson_streaming and formats[0] != "ndjson":
        raise UsageError("--ndjson-streaming and --format both want stdout; name --output-dir")
    return formats[0]


def make_outputs(arguments: argparse.Namespace) -> Outputs:
    """Outputs from parsed arguments.

    Raises
    ------
    UsageError
        If options contradict each other.
    """
    folder = arguments.output_dir or (Path("out") if arguments.all_outputs else None)
    if arguments.output and folder:
        raise UsageError("--output names one file; --output-dir and --all-outputs name many")
    if arguments.reconstruct and not (folder or arguments.output):
        raise UsageError("--reconstruct needs --output-dir, or --output FILE.wav")
    formats = choose_formats(arguments, folder)
    stdout = choose_stdout(arguments, formats, taken=bool(folder or arguments.output))
    return Outputs(formats, folder, arguments.output, arguments.metrics, stdout, arguments.force)


def list_sources(arguments: argparse.Namespace) -> list[str]:
    """What to hear: named files, a list on stdin, or stdin itself.

    Raises
    ------
    UsageError
        If nothing is named and nothing is piped in.
    """
    sources = list(arguments.inputs)
    if arguments.batch:
        if not arguments.stdin:
            raise UsageError("--batch reads a list of files from stdin: say --stdin --batch")
        names = sys.stdin.buffer.read().decode("utf-8", "surrogateescape").split("\n")
        return sources + [name.rstrip("\r") for name in names if name.strip()]
    if arguments.stdin or not sources and not sys.stdin.isatty():
        sources.append("-")
    if not sources:
        raise UsageError("name a sound file, or pipe one in; --help says more")
    return sources


def check_many(sources: Sequence[str], outputs: Outputs) -> None:
    """Refuse several inputs into one place.

    Raises
    ------
    UsageError
        If so.
    """
    if len(sources) > 1 and (
        outputs.path or outputs.metrics or outputs.stdout not in (None, "ndjson")
    ):
        raise UsageError("several inputs need --output-dir")
    if sources.count("-") > 1:
        raise UsageError("- is named twice, but stdin can be read once")


def run(arguments: argparse.Namespace) -> ExitStatus:
    """Do what the arguments ask."""
    if arguments.schema:
        print(json.dumps(line_schema(), indent=1))
        return ExitStatus.OK
    settings, outputs = make_settings(arguments), make_outputs(arguments)
    if arguments.decode:
        if arguments.inputs:
            raise UsageError("--decode reads one stream and no sound files")
        return run_decode(arguments.decode, settings, outputs)
    sources = list_sources(arguments)
    check_many(sources, outputs)
    return Runner(settings, outputs).run(sources)


def abandon_stdout() -> None:
    """Point stdout away from a closed pipe, so that nothing complains at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process if not given.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stderr, force=True)
    try:
        arguments = make_parser().parse_args(argv)
        LOG.setLevel(logging.WARNING if arguments.quiet else logging.INFO)
        return run(arguments)
    except SystemExit as request:  # --help and --version end so; main returns instead
        return int(request.code or 0)
    except TokenizerError as error:
        LOG.error("%s", error)
        return error.status
    except BrokenPipeError:
        abandon_stdout()
        return ExitStatus.OK
    except KeyboardInterrupt:
        LOG.error("interrupted")
        return ExitStatus.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
