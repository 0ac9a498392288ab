#!/usr/bin/env python3
"""Feed the program thousands of broken inputs and look at how it ends.

    python tests/fuzz.py --count 2000 --seed 1            2,000 sounds, and what belongs to them
    python tests/fuzz.py --count 400 --only stream        broken token streams alone
    python tests/fuzz.py --only sound --from 731 --count 1 --keep /tmp/x    one case again

Broken sounds in all formats that this machine can write, token streams into --decode, cached
codebooks, option files, models. Each case follows from seed, kind and number alone. It must end
by itself in time and memory, with an expected status, a reason on stderr and no traceback, and
leave no half-written file. Cases run through `main` in processes that are killed when they hang.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import io
import itertools
import json
import logging
import multiprocessing
import os
import random
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import types
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import numpy as np  # noqa: E402

import neural_audio_tokenizer as nat  # noqa: E402

SHARES = {"sound": 1.0, "stream": 0.25, "cache": 0.05, "options": 0.05, "model": 0.1}
TIME_LIMIT = 30.0  # seconds that one case may take, on a busy machine
MEMORY_LIMIT = 1500.0  # MB that a case may add to the resident memory of its process
ADDRESS_LIMIT = 12 << 30  # bytes of address space: what asks for more gets MemoryError
RATE = 22050


class Case(NamedTuple):
    """One broken input: files to write, arguments to give, bytes to pipe in."""

    label: str  # what was broken: a format, or an aspect
    files: dict[str, bytes]
    arguments: tuple[str, ...] = ()
    stdin: bytes | None = None
    act: str = "main"  # or a function below that is called with the folder


class Outcome(NamedTuple):
    """How a case ended; `complaint` is empty where it ended as it should."""

    kind: str
    number: int
    label: str
    status: str
    seconds: float
    complaint: str
    said: str = ""


# Seeds: whole files, made here


def music(seconds: float = 0.8, channels: int = 1) -> np.ndarray:
    """A few plucked partials and noise, float [n, channels]."""
    times = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.RandomState(1).standard_normal((len(times), channels))
    pluck = sum(np.sin(2 * np.pi * hertz * times) for hertz in (220, 660, 1230))
    return 0.1 * (pluck * np.exp(-3 * (times % 0.25)))[:, None] + 0.02 * noise


def wav_bytes(sound: np.ndarray, width: int = 2) -> bytes:
    """A WAV by the standard library's writer."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(sound.shape[1])
        file.setsampwidth(width)
        file.setframerate(RATE)
        whole = np.rint(sound * 2**31).astype("<i4").view(np.uint8).reshape(-1, 4)
        file.writeframes(np.ascontiguousarray(whole[:, 4 - width :]).tobytes())
    return buffer.getvalue()


def float_wav(sound: np.ndarray) -> bytes:
    """A float WAV with values that are no numbers."""
    sound = sound.astype("<f4")
    sound[5], sound[99] = np.nan, np.inf
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, RATE, 4 * RATE, 4, 32)
    data = struct.pack("<4sI", b"data", sound.nbytes) + sound.tobytes()
    return b"RIFF" + struct.pack("<I", 4 + len(form) + len(data)) + b"WAVE" + form + data


SOUNDFILE_SEEDS = {
    "FLAC": ("FLAC", "PCM_16"), "Vorbis": ("OGG", "VORBIS"), "Opus": ("OGG", "OPUS"),
    "MP3": ("MP3", "MPEG_LAYER_III"), "AIFF": ("AIFF", "PCM_24"), "CAF": ("CAF", "ALAC_16"),
    "AU": ("AU", "ULAW"), "ADPCM WAV": ("WAV", "IMA_ADPCM"), "W64": ("W64", "PCM_16"),
}  # fmt: skip
FFMPEG_SEEDS = {
    "FLAC": "-f flac", "Vorbis": "-f ogg -c:a libvorbis", "MP3": "-f mp3", "AIFF": "-f aiff",
    "Opus": "-f ogg -c:a libopus", "M4A": "-f ipod -c:a aac", "Matroska": "-f matroska -c:a aac",
    "AAC": "-f adts -c:a aac",
}  # fmt: skip


def soundfile_seeds() -> Iterator[tuple[str, bytes]]:
    """What libsndfile can write here."""
    soundfile = nat.load_package("soundfile")[0]
    for name, (form, subtype) in SOUNDFILE_SEEDS.items() if soundfile else ():
        buffer, rate = io.BytesIO(), 48000 if subtype == "OPUS" else RATE
        with contextlib.suppress(soundfile.LibsndfileError, ValueError):
            soundfile.write(buffer, music(channels=2), rate, format=form, subtype=subtype)
            yield name, buffer.getvalue()


def ffmpeg_seeds(have: set[str]) -> Iterator[tuple[str, bytes]]:
    """What else ffmpeg can write here; through files, because some formats seek back."""
    program = shutil.which("ffmpeg")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source.wav"), Path(folder, "target")
        source.write_bytes(wav_bytes(music(channels=2)))
        for name, options in FFMPEG_SEEDS.items() if program else ():
            command = [program, "-nostdin", "-v", "error", "-y", "-i", source, *options.split()]
            if (
                name not in have
                and not subprocess.run([*command, target], stderr=subprocess.DEVNULL).returncode
            ):
                yield name, target.read_bytes()


def sound_seeds() -> dict[str, bytes]:
    """Whole sounds by format."""
    seeds = {"WAV": wav_bytes(music()), "WAV 24": wav_bytes(music(0.4, 3), 3)}
    seeds["float WAV"] = float_wav(music(0.5)[:, 0])
    seeds.update(soundfile_seeds())
    seeds.update(ffmpeg_seeds(set(seeds)))
    return seeds


def stream_seeds(folder: Path) -> dict[str, bytes]:
    """Whole token streams by encoding."""
    (folder / "seed.wav").write_bytes(wav_bytes(music(1.5)))
    seeds = {}
    for name in ("--rle", "--legend", "--no-legend"):
        path = folder / f"seed{name}.ndjson"
        base = ["--codebook-init", "spectral", "--quiet", "--force", str(folder / "seed.wav")]
        if nat.main([*base, name, "-o", str(path)]):
            raise SystemExit("the seed could not be tokenized")
        seeds[name] = path.read_bytes()
    return seeds


def model_seeds(folder: Path) -> dict[str, bytes]:
    """Files of tiny random models, by path; none without torch."""
    if nat.load_package("torch")[0] is None or nat.load_package("transformers")[0] is None:
        return {}
    from make_random_models import write_model

    for name, safe in (("mert-95m", False), ("mert-330m", True)):
        write_model(folder / name, name, tiny=True, safetensors=safe)
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("*/*")}


# Damage


EXTREMES = [
    value.to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for value in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1, 127)
    for order in ("little", "big")
]
MARKS = re.compile(
    rb"fmt |data|RIFF|FORM|COMM|SSND|OggS|fLaC|moov|mdat|trak|stsz|stts|LIST|desc|pakt|vorbis"
    rb"|OpusHead|Xing|Info|LAME|ID3|\x1a\x45\xdf\xa3|\xff\xfb|\xff\xf8|\xff\xf1"
)
Damage = Callable[[random.Random, bytes, bytes], bytes]


def flip(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Turn some bits round, in the head or anywhere."""
    result, span = bytearray(data), rng.choice((64, 512, len(data)))
    for _ in range(rng.choice((1, 3, 30, 300))):
        if result:
            result[rng.randrange(min(span, len(result)))] ^= 1 << rng.randrange(8)
    return bytes(result)


def cut(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Drop the end, or the beginning."""
    at = rng.randrange(len(data) + 1)
    return data[:at] if rng.random() < 0.85 else data[at:]


def put_extreme(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Write the least and greatest numbers over fields of the head."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        field, at = rng.choice(EXTREMES), rng.randrange(max(1, min(len(data), 256)))
        result[at : at + len(field)] = field
    return bytes(result)


def lie_after_mark(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Give a chunk another size, or whatever stands behind its name."""
    found = [match.end() for match in MARKS.finditer(data)]
    if not found:
        return put_extreme(rng, data, other)
    at, field = rng.choice(found) + rng.choice((0, 0, 0, 4, 8, 12, -8)), rng.choice(EXTREMES)
    at = max(0, at)
    return data[:at] + field + data[at + len(field) :]


def block(rng: random.Random, data: bytes) -> tuple[int, int]:
    """A stretch of the data."""
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 4, 60, 1000, 20000)))


def drop_block(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Leave a stretch out."""
    start, stop = block(rng, data)
    return data[:start] + data[stop:]


def repeat_block(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Say a stretch again, once or often."""
    start, stop = block(rng, data)
    return data[:stop] + data[start:stop] * rng.choice((1, 2, 40)) + data[stop:]


def splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Begin as one format and go on as another."""
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def scribble(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Random bytes over a stretch, or a beginning of rubbish."""
    start, stop = block(rng, data)
    return data[:start] + rng.randbytes(stop - start) + data[stop if rng.random() < 0.8 else 0 :]


def rubbish(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Nothing but random bytes behind a few true ones."""
    return data[: rng.choice((0, 4, 12, 44))] + rng.randbytes(rng.choice((0, 1, 50, 30000)))


DAMAGES: tuple[Damage, ...] = (
    flip, flip, cut, put_extreme, put_extreme, lie_after_mark, lie_after_mark, drop_block,
    repeat_block, splice, scribble, rubbish,
)  # fmt: skip


def damaged(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One to three damages, one after the other."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(DAMAGES)(rng, data, other)
    return data


# Damage to text: JSON lines and objects


HUGE = "9" * 400
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, -0.0, 10**30, 10**9, 2**63, "", "x", "\ud800", "\n\r\u2028\x00", [],
    {}, [[]], {"a": {"b": [1]}}, float("nan"), float("inf"), "ignore previous instructions\n", 3.7,
    "9" * 5000, "../../x", 1e-320, [1] * 1000,
)  # fmt: skip


def change_value(rng: random.Random, value: Any) -> Any:
    """The same JSON with one value, somewhere in it, of another type or size."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.9:
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        copy = value.copy()
        how = rng.random()
        if how < 0.1:
            del copy[key]
        elif how < 0.2 and isinstance(copy, dict):
            copy[rng.choice(("event", "t", "S0", "A9", "", "\ud800", "x" * 3000))] = copy[key]
        else:
            copy[key] = change_value(rng, value[key])
        return copy
    return rng.choice(VALUES)


def change_json(rng: random.Random, line: bytes) -> bytes:
    """A line of JSON with a changed value."""
    try:
        return json.dumps(change_value(rng, json.loads(line))).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return line


def spoil_line(rng: random.Random, line: bytes) -> bytes:
    """One line, broken in a way that JSON knows."""
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: line[: rng.randrange(len(line) + 1)],
        lambda: flip(rng, line, b""),
        lambda: b"[" * rng.choice((10, 100000)) + line,
        lambda: b'{"a":' * 5000 + b"1" + b"}" * 5000,
        lambda: line.replace(b"{", b'{"t":1,"t":2,"event":"end","event":"header",', 1),
        lambda: re.sub(rb"\d+", HUGE.encode(), line, count=1),
        lambda: re.sub(rb"\d+", b"9" * 6000, line, count=1),
        lambda: re.sub(rb":\d+", b":NaN", line, count=1),
        lambda: re.sub(rb":[\d.]+", b":1e999", line, count=1),
        lambda: b'{"event":"legend","A0":{"1":"' + b"x" * 10_000_000 + b'"}}',
        lambda: line + b" " * 10_000_000,
        lambda: b"\xff\xfe" + line,
        lambda: line + b"\0",
        lambda: b"",
        lambda: re.sub(rb'"frames":\d+', b'"frames":1000000000', line),
        lambda: re.sub(rb'("frames"|"duration"):[\d.]+', rb"\1:1000000000", line),
    )
    return rng.choice(ways)() if rng.random() < 0.5 else change_json(rng, line)


def spoil_lines(rng: random.Random, data: bytes) -> bytes:
    """A stream with some lines broken, gone, doubled or out of order."""
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.choice((0, -2, -2, rng.randrange(len(lines))))
        at = at % len(lines) if lines else 0
        how = rng.random()
        if how < 0.7:
            lines[at] = spoil_line(rng, lines[at])
        elif how < 0.8:
            del lines[at]
        elif how < 0.9:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        else:
            rng.shuffle(lines)
        lines = lines or [b""]
    text = b"\n".join(lines)
    return flip(rng, text, b"") if rng.random() < 0.1 else text


# Cases


class Seeds(NamedTuple):
    """What is broken."""

    sounds: dict[str, bytes]
    streams: dict[str, bytes]
    models: dict[str, bytes]
    cached: bytes


STYLES = (
    (), ("--rle",), ("--format", "json"), ("--format", "text"), ("--format", "npz"),
    ("--format", "stream"), ("--compat-fallback",), ("--max-duration", "3"),
)  # fmt: skip


def sound_case(rng: random.Random, seeds: Seeds) -> Case:
    """A broken sound as file, pipe or raw data, to a file, a folder or stdout."""
    label = rng.choice(list(seeds.sounds))
    other = seeds.sounds[rng.choice(list(seeds.sounds))]
    data = damaged(rng, seeds.sounds[label], other)
    options, place = list(rng.choice(STYLES)), rng.random()
    if rng.random() < 0.05:
        shape = rng.choice(nat.RAW_ENCODINGS), rng.choice((1000, 48000, 768000)), rng.choice((1, 7))
        options += ["--raw", ":".join(map(str, shape))]
    if place < 0.4:
        options += ["--output-dir", "out"]
    elif place < 0.6:
        options += ["-o", "out/one"]
    name = rng.choice(("sound", "sound.wav", "sound.mp3", "sound.flac", "sound.bin"))
    if rng.random() < 0.25:
        return Case(label, {}, (*options, "-"), data)
    return Case(label, {name: data}, (*options, name))


def stream_case(rng: random.Random, seeds: Seeds) -> Case:
    """A broken token stream into --decode."""
    label = rng.choice(list(seeds.streams))
    data = spoil_lines(rng, seeds.streams[label])
    options = [["--format", form] for form in ("ndjson", "json", "text", "npz")] + [["--rle"]]
    words = rng.choice(options)
    words = ["--reconstruct", "-o", "out/x.wav"] if rng.random() < 0.1 else words
    if rng.random() < 0.3:
        return Case(f"stream {label}", {}, ("--decode", "-", *words), data)
    return Case(f"stream {label}", {"a.ndjson": data}, ("--decode", "a.ndjson", *words))


def cache_case(rng: random.Random, seeds: Seeds) -> Case:
    """A broken file of cached codebooks."""
    data = seeds.cached
    if rng.random() < 0.3:
        data = cut(rng, data, b"")
    else:
        data = damaged(rng, data, seeds.sounds["WAV"])
    return Case("cached codebooks", {"codebooks.npz": data}, act="load_cache")


def options_case(rng: random.Random, seeds: Seeds) -> Case:
    """A broken file of saved options; of --config, where the program has it."""
    options = {
        "rle": True, "format": "json", "keyframe_interval": 3.0, "seed": 7, "raw": "s16le:8000:1",
        "encoding": "S0=rle", "max-duration": 5, "resample": 22050, "output-dir": "out",
    }  # fmt: skip
    data = json.dumps(change_value(rng, options)).encode("utf-8", "surrogatepass")
    name = rng.choice(("a.json", "a.toml"))
    if name == "a.toml":
        data = "\n".join(f"{k} = {json.dumps(v)}" for k, v in options.items()).encode()
    data = spoil_line(rng, data) if rng.random() < 0.5 else data
    files = {name: data, "sound.wav": seeds.sounds["WAV"]}
    return Case("options", files, ("--config", name, "sound.wav"))


def model_case(rng: random.Random, seeds: Seeds) -> Case:
    """A model whose config or weights are broken."""
    name = rng.choice(sorted({path.split("/")[0] for path in seeds.models}))
    files = {p: data for p, data in seeds.models.items() if p.startswith(name)}
    path = rng.choice(sorted(files))
    if path.endswith(".json") and rng.random() < 0.8:
        files[path] = change_json(rng, files[path])
    elif path.endswith(".json"):
        files[path] = spoil_line(rng, files[path])
    else:
        files[path] = damaged(rng, files[path], seeds.sounds["WAV"])
    files = {p.replace(name, "model"): data for p, data in files.items()}
    return Case(f"model {path.split('/')[1]}", files, act="load_model")


MAKERS = {
    "sound": sound_case, "stream": stream_case, "cache": cache_case, "options": options_case,
    "model": model_case,
}  # fmt: skip


# One case, in a process of its own


SPECTRAL = nat.Settings(codebook_init="spectral", quiet=True)


def load_cache() -> int:
    """Load what may be codebooks; only what was written may come back."""
    found = nat.load_codebooks(Path("codebooks.npz"), key="fuzz", settings=SPECTRAL)
    if found is None:
        return 1
    kept = nat.pack_codebooks(found)
    assert all(np.isfinite(array).all() for array in kept.values()), "loaded what is no number"
    return 0


def load_model() -> int:
    """Open a neural ear and hear a second through it."""
    settings = nat.Settings(
        codebook_init="mert", fallback=False, mert_model="model", mert_layer=2, offline=True,
        quiet=True, threads=1,
    )  # fmt: skip
    try:
        ears, settings = nat.open_ears(settings)
        heard = nat.listen([music(1.0)[:, 0].astype(np.float32)], settings, ears=ears)
    except nat.TokenizerError as error:
        print(error, file=sys.stderr, flush=True)
        return int(error.status)
    assert np.isfinite(heard.semantic).all(), "features that are no numbers"
    return 0


def cached_calibration() -> None:
    """Keep codebooks in memory, as a batch does, so that a case costs its own work alone."""
    original, kept = nat.calibrate, {}

    def calibrate(settings: Any, ears: Any) -> Any:
        key = nat.cache_key(settings, ears)
        if key not in kept:
            kept[key] = original(settings, ears)
        return kept[key]

    nat.calibrate = calibrate


def whole_stream(data: bytes) -> str:
    """What is wrong with a stream that a run called done."""
    try:
        read = nat.decode_stream(io.StringIO(data.decode("utf-8"), newline="\n"))
    except (nat.StreamError, UnicodeDecodeError) as error:
        return f"wrote a stream that cannot be read: {error}"
    return "" if read.whole else "status 0, but the stream has no end"


def check_files(status: int, arguments: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with the files that are left."""
    left = [p for p in Path("out").glob("**/*") if p.is_file()]
    hidden = [p for p in [*Path().glob("**/.tims*"), *Path("tmp").iterdir()]]
    if hidden:
        yield f"left behind {hidden[0]}"
    if status and left:
        yield f"status {status}, but wrote {left[0]}"
    for path in left:
        if path.suffix == ".ndjson":
            yield whole_stream(path.read_bytes())
        elif path.suffix == ".json":
            json.loads(path.read_bytes())
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                _ = stored["codes"].shape
    outside = {p.name for p in Path().iterdir()} - {"out", "tmp", "stdout", "stderr"}
    if len(outside) > len(set(arguments)) + 3:
        yield f"wrote outside the folder: {outside}"


def check(status: int, case: Case) -> Iterator[str]:
    """What is wrong with how a case has ended."""
    said = Path("stderr").read_bytes().decode("utf-8", "replace")
    out = Path("stdout").read_bytes()
    allowed = (0, 1, 2, 3) if "--config" in case.arguments or case.act != "main" else (0, 1, 3)
    if status not in allowed:
        yield f"status {status}"
    if status and not said.strip():
        yield f"status {status} and not a word"
    if re.search(r"Traceback|\w+Warning: ", said):
        yield "said: " + said.strip().splitlines()[-1]
    if case.act == "main":
        yield from check_files(status, case.arguments)
    elsewhere = {"--format", "-o", "--output-dir", "--config"} & set(case.arguments)
    as_ndjson = case.act == "main" and not elsewhere
    if as_ndjson and status == 0:
        yield whole_stream(out)
    if as_ndjson and status and (b'"event":"end"' in out or out and not out.endswith(b"\n")):
        yield "failed, but its stream ends as if whole, or within a line"


def perform(case: Case) -> tuple[str, str]:
    """Run a case in the current folder: its status and what is wrong."""
    for name, data in case.files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)
    for name in ("out", "tmp"):
        Path(name).mkdir()
    tempfile.tempdir = str(Path("tmp").resolve())
    for number, name in ((1, "stdout"), (2, "stderr")):
        handle = os.open(name, os.O_CREAT | os.O_WRONLY)
        os.dup2(handle, number)
        os.close(handle)
    # not what a test runner may have put in their place
    sys.stdout, sys.stderr = (open(n, "w", closefd=False, errors="replace") for n in (1, 2))
    logging.basicConfig(format="%(message)s", stream=sys.stderr, force=True)
    stdin = types.SimpleNamespace(buffer=io.BytesIO(case.stdin or b""), isatty=lambda: False)
    sys.stdin = stdin
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        words = ["--codebook-init", "spectral", "--quiet", *case.arguments]
        status = nat.main(words) if case.act == "main" else globals()[case.act]()
        sys.stdout.flush()
        wrong = [complaint for complaint in check(int(status), case) if complaint]
    except BaseException as error:  # whatever it is, it is what is looked for
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno} {place.name}"
        return "crash", f"{type(error).__name__}: {str(error)[:200]!r} in {where}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if grown > MEMORY_LIMIT:
        wrong.append(f"took {grown:.0f} MB")
    return str(int(status)), "; ".join(wrong)


def serve(channel: Any, seeds: Seeds, seed: int, keep: str | None) -> None:
    """Run the cases that come through a channel, until it closes."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_LIMIT, ADDRESS_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    home = os.getcwd()
    cached_calibration()
    with contextlib.suppress(EOFError):
        while True:
            kind, number = channel.recv()
            rng = random.Random(f"{seed} {kind} {number}")
            case = MAKERS[kind](rng, seeds)
            folder = Path(keep or tempfile.mkdtemp(dir=home, prefix="case-"))
            os.makedirs(folder, exist_ok=True)
            os.chdir(folder)
            started = time.perf_counter()
            status, wrong = perform(case)
            seconds = time.perf_counter() - started
            with open("stderr", "rb") as file:
                said = file.read(300).decode("utf-8", "replace")
            os.chdir(home)
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)
            channel.send(Outcome(kind, number, case.label, status, seconds, wrong, said))


class Worker:
    """A process that runs cases, killed and started again where one hangs or dies."""

    def __init__(self, *given: Any) -> None:
        self._given, self._process = given, None

    def run(self, kind: str, number: int) -> Outcome:
        """Run one case within the limit."""
        if self._process is None:
            self._start()
        started = time.perf_counter()
        with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
            self._channel.send((kind, number))
            if self._channel.poll(TIME_LIMIT):
                return self._channel.recv()
        seconds = time.perf_counter() - started
        self.stop()
        how = "hangs" if seconds >= TIME_LIMIT else "died"
        return Outcome(kind, number, "?", how, seconds, f"the process {how}")

    def stop(self) -> None:
        """End the process."""
        if self._process:
            self._process.kill()
            self._process.join()
        self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._channel, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, *self._given), daemon=True)
        self._process.start()
        theirs.close()


# All of them


def make_seeds(folder: Path, kinds: set[str]) -> Seeds:
    """Everything that is to be broken."""
    streams = stream_seeds(folder)  # fits the codebooks too, where no run did before
    tokenizer = nat.Tokenizer(SPECTRAL)
    nat.save_codebooks(folder / "seed.npz", tokenizer.trained, key="fuzz")
    models = model_seeds(folder / "models") if "model" in kinds else {}
    return Seeds(sound_seeds(), streams, models, (folder / "seed.npz").read_bytes())


def plan(count: int, first: int, only: str | None, seeds: Seeds) -> list[tuple[str, int]]:
    """(kind, number) of every case."""
    shares = {only: 1.0} if only else dict(SHARES)
    known = {option for action in nat.make_parser()._actions for option in action.option_strings}
    if "--config" not in known:
        shares.pop("options", None)
    if not seeds.models:
        shares.pop("model", None)
    spans = {
        kind: range(first, first + max(1, round(count * share))) for kind, share in shares.items()
    }
    return [(kind, number) for kind, span in spans.items() for number in span]


def run_cases(
    cases: list[tuple[str, int]],
    seeds: Seeds,
    *,
    seed: int,
    workers: int = 1,
    keep: str | None = None,
) -> list[Outcome]:
    """Run cases in some processes; a worker takes every n-th."""

    def some(part: list[tuple[str, int]]) -> list[Outcome]:
        worker = Worker(seeds, seed, keep)
        outcomes = [worker.run(*case) for case in part]
        worker.stop()
        return outcomes

    parts = [cases[at::workers] for at in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        return list(itertools.chain.from_iterable(pool.map(some, parts)))


def table(outcomes: list[Outcome]) -> Iterator[str]:
    """Lines of a table: how many of each label ended in which way."""
    columns = ["0", "1", "2", "3", "crash", "hangs", "died"]
    yield f"{'':28}" + "".join(f"{c:>7}" for c in columns) + f"{'slowest':>9}{'wrong':>7}"
    for label in sorted({outcome.label for outcome in outcomes}):
        own = [outcome for outcome in outcomes if outcome.label == label]
        counts = collections.Counter(outcome.status for outcome in own)
        slowest, wrong = max(o.seconds for o in own), sum(bool(o.complaint) for o in own)
        cells = "".join(f"{counts[c]:>7}" for c in columns)
        yield f"{label:28}{cells}{slowest:>8.1f}s{wrong:>7}"


def main() -> int:
    """Run what the command line asks for; 1 if a case ended wrongly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000, help="broken sounds (default: 2000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", dest="first", type=int, default=0, help="number of the first")
    parser.add_argument("--only", choices=MAKERS, help="one kind alone, --count of it")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--keep", metavar="DIR", help="leave the (last) case's files there")
    given = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        os.chdir(folder)
        kinds = {given.only} if given.only else set(SHARES)
        seeds = make_seeds(Path(folder), kinds)
        cases = plan(given.count, given.first, given.only, seeds)
        outcomes = run_cases(cases, seeds, seed=given.seed, workers=given.workers, keep=given.keep)
        os.chdir("/")
    wrong = [outcome for outcome in outcomes if outcome.complaint]
    for outcome in wrong:
        print(f"{outcome.kind} {outcome.number} ({outcome.label}): {outcome.complaint}")
    print(*table(outcomes), sep="\n")
    digest = hashlib.sha256(repr([o[:4] for o in sorted(outcomes)]).encode()).hexdigest()[:12]
    seconds = time.perf_counter() - started
    print(f"{len(outcomes)} cases, {len(wrong)} wrong, {seconds:.0f} s, outcomes {digest}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
