"""The example on Ray Data: it writes what the command line does, also where an actor is killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from conftest import ROOT, noise, save_wav, song

import neural_audio_tokenizer as nat

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
sys.path.insert(0, str(ROOT / "examples"))


class Doomed(nat.Runner):
    """Whose process is killed by one sound, the first time."""

    def attempt(self, task):
        if task.source.endswith("s1.wav") and not Path("was here").exists():
            Path("was here").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().attempt(task)


@pytest.fixture
def no_cluster(monkeypatch):
    """Ray as the example starts it, where actors find this file's class; and ended."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    yield
    ray.shutdown()


def lines(folder):
    """Lines of a manifest but for the times."""
    found = map(json.loads, (folder / nat.MANIFEST).read_text().splitlines())
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != nat.MANIFEST}


def test_ray_writes_what_the_command_line_does(no_cluster, run_main, tmp_path, monkeypatch):
    import tokenize_with_ray

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nat, "Runner", Doomed)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for number in range(4):
        save_wav(tmp_path / "in" / f"s{number}.wav", song(0.4, seed=number))
    save_wav(tmp_path / "in" / "deep" / "s0.wav", noise(0.4))
    (tmp_path / "in" / "bad.wav").write_bytes(b"RIFF\x24\0\0\0WAVEfmt ")
    command = ["--codebook-init", "spectral", "--format", "text", "--output-dir", "ray", "in"]
    assert tokenize_with_ray.main(command) == 1 and Path("was here").exists()
    assert run_main("--recursive", "--format", "text", "--output-dir", "alone", "in").status == 1
    assert (
        files(tmp_path / "ray") == files(tmp_path / "alone") and len(lines(tmp_path / "ray")) == 6
    )
    assert lines(tmp_path / "ray") == lines(tmp_path / "alone")
    save_wav(tmp_path / "in" / "bad.wav", song(0.3, seed=9))
    assert tokenize_with_ray.main(["--resume", *command]) == 0
    assert [line["input"] for line in lines(tmp_path / "ray")][6:] == ["in/bad.wav"]
