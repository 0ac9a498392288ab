"""Every command and code block of the README runs, in a folder that holds the files it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, RATE, save_wav, song

import neural_audio_tokenizer as nat

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", README, re.DOTALL)
LINES = [line for kind, block in BLOCKS for line in block.splitlines() if kind == "bash" and line]
ELSEWHERE = {  # why a line does not run here
    "-m venv": "makes an environment and installs; done by hand on a bare machine",
    "tests/run.py": "is what runs this test",
    "mcp_server.py": "waits for a client; test_examples_cli.py is one",
    "tokenize_with_ray.py": "test_examples.py runs it",
}
NEEDS = {".mp3": "soundfile", ".flac": "soundfile", "--viz": "matplotlib", "pytorch": "torch"}


def save(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    """Write 16-bit mono WAV, or what soundfile writes by that name."""
    if path.suffix == ".wav":
        save_wav(path, samples, rate)
    else:
        pytest.importorskip("soundfile").write(path, samples, rate)


@pytest.fixture
def here(tmp_path, monkeypatch, tokenizer):
    """A folder with the program, its examples, and `python` as the one that runs the tests."""
    for name in ("neural_audio_tokenizer.py", "examples", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the default ear falls back at once
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def furnish(folder: Path, line: str) -> None:
    """Make the sounds and token files that a line names."""
    sound = song(6.0)
    for name in set(re.findall(r"\bsong\.(?:wav|mp3|flac)\b", line)) | {"song.wav"}:
        save(folder / name, sound)
    (folder / "capture.pcm").write_bytes(bytes(range(256)) * 400)
    if "sounds" in line:
        (folder / "sounds").mkdir()
        for name in ("a", "b"):
            save(folder / "sounds" / f"{name}.wav", sound[: 2 * RATE])
    if "find sounds" in line:
        save(folder / "sounds" / "c.flac", sound[: 2 * RATE])
    if "--decode" in line or "pytorch" in line:
        (folder / "out").mkdir()
        path = folder / "out" / "song_tokens.ndjson"
        assert (
            nat.main(["--quiet", "--codebook-init", "spectral", "-o", str(path), "song.wav"]) == 0
        )


@pytest.mark.parametrize("line", LINES)
def test_a_command_of_the_readme_runs(here, line):
    for part, reason in ELSEWHERE.items():
        if part in line:
            pytest.skip(f"{part} {reason}")
    for part, package in NEEDS.items():
        if part in line:
            pytest.importorskip(package)
    furnish(here, line)
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, timeout=240, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    for name in re.findall(r"(?:-o|--output|--metrics|>) ([\w./]+)", line):
        assert (here / name).stat().st_size > 100, name
    if folder := re.search(r"--output-dir ([\w./]+)", line):
        assert len(list((here / folder[1]).iterdir())) > 1
    if not re.search(r"-o |--output|>", line):
        assert len(done.stdout) > 100


@pytest.mark.parametrize("code", [block for kind, block in BLOCKS if kind == "python"])
def test_python_of_the_readme_runs(here, code):
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, timeout=240, text=True)
    assert done.returncode == 0, done.stderr
    assert "(862, 8) 20.0" in done.stdout and "tempo" in done.stdout


def test_the_readme_shows_the_page_that_the_program_writes(here):
    shown = re.search(r"```text\n(SOUND spouter.wav.*?)```", README, re.DOTALL)[1]
    shutil.copy(ROOT / "examples" / "spouter.wav", here)
    command = ["--codebook-init", "spectral", "--format", "stream", "--max-llm-tokens", "600"]
    done = subprocess.run(
        [sys.executable, "neural_audio_tokenizer.py", *command, "spouter.wav"], capture_output=True,
        env={name: value for name, value in os.environ.items() if name != "TIKTOKEN_CACHE_DIR"},
    )  # fmt: skip
    assert done.stdout.decode() == shown


def test_the_readme_is_as_long_as_it_should_be():
    assert 150 <= len(README.splitlines()) <= 250
