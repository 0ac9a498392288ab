#!/usr/bin/env python3
"""Batches that are killed, run out of disk, or share a folder: is anything lost, twice or half?

    python tests/benchmarks/faults.py [--kills 200] [--files 300] [--seed 0]

1. A batch is killed (kill -9) at random moments and resumed after each, round after round until
   there were so many kills; every second round has two workers, and half of the kills hit the
   parent only. Then all outputs are compared byte by byte with those of an undisturbed run.
2. The same batch into a small tmpfs that fills up (needs root; else files are limited in size, as
   a quota would), and resumed when there is room.
3. Two batches into one folder at once, plain and resuming.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np

import neural_audio_tokenizer as nat

RATE = 22050
Outputs = dict[str, bytes]


def make_sounds(folder: Path, count: int) -> None:
    """Short noises with a tone, no two alike; some of one stem in two folders."""
    rng = np.random.RandomState(0)
    for number in range(count):
        path = folder / ("ab"[number % 2]) / f"{number // 2 if number % 5 else number:04d}.wav"
        path.parent.mkdir(exist_ok=True, parents=True)
        while path.exists():
            path = path.with_name("x" + path.name)
        size = rng.randint(RATE // 10, RATE)
        tone = np.sin(np.arange(size) * rng.uniform(0.02, 0.5)) * 0.2
        sound = tone + rng.standard_normal(size) * 0.02
        path.write_bytes(nat.wave_header(size, RATE) + nat.pcm_bytes(sound))


def command(out: Path, *more: str, format: str = "ndjson") -> list[str]:
    """The batch into a folder, as a command."""
    fixed = "--quiet --codebook-init spectral --recursive --reconstruct in".split()
    program = [sys.executable, str(ROOT / "neural_audio_tokenizer.py"), *fixed]
    return [*program, "--format", format, "--output-dir", str(out), *more]


def start(words: list[str], **more: Any) -> subprocess.Popen:
    """Start it in a process group of its own."""
    streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, start_new_session=True, **streams, **more)


def read(out: Path) -> tuple[Outputs, list[dict[str, Any]], int]:
    """Outputs of a folder, lines of its manifest, and how many lines are none."""
    found = {path.name: path.read_bytes() for path in out.iterdir()}
    lines, broken = [], 0
    for line in found.pop(nat.MANIFEST, b"").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            broken += 1
    return found, lines, broken


def compare(out: Path, wanted: Outputs, files: int, *, twice: bool = False) -> str:
    """Check a finished folder against an undisturbed run's; a line of words, or an error."""
    found, lines, broken = read(out)
    parts = [name for name in found if name.endswith(".part")]
    lost = wanted.keys() - found.keys()
    extra = found.keys() - wanted.keys()
    unlike = [name for name in wanted if name in found and found[name] != wanted[name]]
    done = collections.Counter((x["input"], x["sha256"]) for x in lines if x["status"] == "ok")
    doubled = sum(count > 1 for count in done.values())
    words = f"{len(found)} outputs: {len(lost)} lost, {len(unlike)} unlike, {len(extra)} extra"
    words += f" ({len(parts)} unfinished); manifest: {len(done)} done, {doubled} twice"
    words += f", {broken} broken lines"
    bad = lost or extra or unlike or len(done) != files or (doubled and not twice)
    if bad:
        raise SystemExit(f"FAILED: {words}")
    return words


def kill_until_done(out: Path, rng: random.Random, *, limit: int, more: list[str]) -> int:
    """Start with --resume, kill, and again until a run ends by itself; how many were killed."""
    kills = 0
    while True:
        running = start([*command(out, "--resume"), *more])
        try:
            _, err = running.communicate(timeout=rng.uniform(0.2, 2.5) if kills < limit else 600)
            if running.returncode:
                raise SystemExit(f"FAILED: status {running.returncode}: {err.decode()}")
            return kills
        except subprocess.TimeoutExpired:
            whom: Callable[[int, int], None] = rng.choice((os.kill, os.killpg))
            whom(running.pid, signal.SIGKILL)
            running.wait()
            kills += 1


def test_kills(work: Path, wanted: Outputs, options: argparse.Namespace) -> None:
    """Part 1."""
    rng, kills, rounds, broken, began = random.Random(options.seed), 0, 0, 0, time.monotonic()
    while kills < options.kills:
        out = work / f"killed{rounds}"
        more = ["--workers", "2"] if rounds % 2 else []
        count = kill_until_done(out, rng, limit=options.kills - kills, more=more)
        words = compare(out, wanted, options.files)
        broken += read(out)[2]
        kills, rounds = kills + count, rounds + 1
        print(f"  round {rounds}: {count} kills, {words}", flush=True)
        shutil.rmtree(out)
    took = time.monotonic() - began
    print(
        f"{kills} kills in {rounds} rounds, {took:.0f} s: all equal; {broken} half lines tolerated"
    )


def test_full_disk(work: Path, wanted: Outputs, options: argparse.Namespace) -> None:
    """Part 2."""
    out, limits = work / "full", {}
    out.mkdir()
    size = sum(map(len, wanted.values()))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size // 3}", "tmpfs", str(out)]
    mounted = os.geteuid() == 0 and not subprocess.run(mount, stderr=subprocess.PIPE).returncode
    if not mounted:
        most = sorted(map(len, wanted.values()))[len(wanted) // 2]
        limits["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    try:
        running = start(command(out, "--resume"), **limits)
        _, err = running.communicate()
        found, lines, broken = read(out)
        unlike = [name for name in found if found[name] != wanted.get(name)]
        states = collections.Counter(line["status"] for line in lines)
        reasons = collections.Counter(
            line.rpartition(": ")[2] for line in err.decode().splitlines()
        )
        if running.returncode != 1 or unlike or not states["ok"]:
            raise SystemExit(f"FAILED: status {running.returncode}, unlike {unlike}, {states}")
        kind = f"a tmpfs of {size // 3} bytes for {size}" if mounted else "RLIMIT_FSIZE"
        print(f"{kind}: status 1, {dict(reasons)}, {states['ok']} of {options.files} done,")
        print(f"  {len(found)} outputs, none half, {broken} half lines in the manifest")
        if mounted:
            subprocess.run(["mount", "-o", f"remount,size={size * 4}", str(out)], check=True)
        subprocess.run(command(out, "--resume"), check=True)
        print(f"  resumed with room: {compare(out, wanted, options.files)}")
    finally:
        if mounted:
            subprocess.run(["umount", str(out)], check=True)


def test_two_at_once(work: Path, wanted: Outputs, options: argparse.Namespace) -> None:
    """Part 3."""
    for more in ([], ["--resume"], ["--resume", "--workers", "2"], ["--force"]):
        out = work / "_".join(["two", *more])
        runs = [start(command(out, *more)) for _ in range(2)]
        for run in runs:
            run.communicate()
        words = compare(out, wanted, options.files, twice=bool(more))
        states = [run.returncode for run in runs]
        print(f"two at once {' '.join(more) or '(plain)'}: statuses {states}, {words}", flush=True)
    halves = [start(command(work / "shards", "--shard", f"{part}/2")) for part in (1, 2)]
    states = [half.wait() for half in halves]
    words = compare(work / "shards", wanted, options.files)
    print(f"two shards at once: statuses {states}, {words}")


def main() -> None:
    """Run all three parts; the first thing wrong ends it with status 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        work = Path(name)
        os.chdir(work)
        make_sounds(Path("in"), options.files)
        subprocess.run(command(work / "undisturbed"), check=True)
        wanted = read(work / "undisturbed")[0]
        print(f"undisturbed: {compare(work / 'undisturbed', wanted, options.files)}", flush=True)
        test_kills(work, wanted, options)
        test_full_disk(work, wanted, options)
        test_two_at_once(work, wanted, options)


if __name__ == "__main__":
    main()
