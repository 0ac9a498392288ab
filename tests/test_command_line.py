"""Section 14: exit statuses, one line for what is wrong, and nothing heavy for --help."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
from conftest import PROGRAM, ROOT, load_wav, save_wav, song

import neural_audio_tokenizer as nat

HEAVY = (
    "torch",
    "torchaudio",
    "matplotlib",
    "librosa",
    "transformers",
    "soundfile",
    "soxr",
    "scipy",
)
SPECTRAL = ["--codebook-init", "spectral"]


@pytest.fixture
def wav(tmp_path):
    return save_wav(tmp_path / "song.wav", song(1.0))


def wav_bytes(data, *, tag=1, channels=1, bits=16, rate=22050):
    align = channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * align, align, bits)
    body = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body


def one_line(result, status):
    """That a run failed with this status, no output, and one line that says why; the line."""
    assert (result.status, result.out) == (status, b""), result
    assert result.err.count("\n") == 1 and result.err.endswith("\n"), result.err
    assert len(result.err) < 400 and "Traceback" not in result.err
    return result.err


# Exit statuses


def test_all_done_is_0(run_cli, wav):
    assert run_cli(wav).status == 0


SOUND = (np.sin(np.arange(22050) / 9) * 9000).astype("<i2").tobytes()
BAD = {
    "empty": (b"", "empty"),
    "truncated": (wav_bytes(SOUND)[:-9000], "truncated"),
    "a lying header": (wav_bytes(SOUND * 3)[:44] + SOUND, "truncated"),
    "zero channels": (wav_bytes(SOUND, channels=0), "channel"),
    "no samples": (wav_bytes(b""), ""),
    "nothing but NaN": (wav_bytes(np.full(999, np.nan, "<f4").tobytes(), tag=3, bits=32), "finite"),
    "nothing but infinity": (wav_bytes(np.full(999, np.inf, "<f4").tobytes(), tag=3, bits=32), ""),
    "an impossible rate": (wav_bytes(SOUND, rate=7), "rate"),
    "half a header": (b"RIFF\x24\0\0\0WAVEfmt ", ""),
}


@pytest.mark.parametrize("data, word", BAD.values(), ids=BAD)
def test_a_bad_input_is_1_and_one_line(run_main, tmp_path, data, word):
    (tmp_path / "bad.wav").write_bytes(data)
    file = one_line(run_main(tmp_path / "bad.wav"), 1)
    assert "bad.wav" in file and word in file


@pytest.mark.parametrize("data, word", BAD.values(), ids=BAD)
def test_a_bad_pipe_is_1_and_says_so(run_main, data, word):
    result = run_main("-", input=data)
    assert result.status == 1 and word in result.err and result.err.count("\n") == 1
    assert b'"event":"end"' not in result.out  # what came before the trouble is no whole stream


def test_missing_and_directory(run_main, tmp_path):
    assert "no such file" in one_line(run_main(tmp_path / "nothing.wav"), 1)
    assert "directory" in one_line(run_main(tmp_path), 1)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read anything")
def test_unreadable(run_main, wav):
    wav.chmod(0)
    one_line(run_main(wav), 1)


def test_a_bad_input_of_a_real_process(run_cli, tmp_path):
    (tmp_path / "bad.wav").write_bytes(wav_bytes(SOUND)[:-9000])
    one_line(run_cli(tmp_path / "bad.wav"), 1)


BAD_FLAGS = {
    "unknown option": ["--frobnicate"],
    "abbreviated option": ["--all"],
    "unknown format": ["--format", "xml"],
    "unknown ear": ["--codebook-init", "banana"],
    "no keyframes": ["--keyframe-interval", "0"],
    "keyframes that are not a number": ["--keyframe-interval", "nan"],
    "endless keyframes": ["--keyframe-interval", "inf"],
    "text for keyframes": ["--keyframe-interval", "often"],
    "rate too low": ["--resample", "100"],
    "fractional rate": ["--resample", "22050.5"],
    "negative seed": ["--seed", "-1"],
    "text for a seed": ["--seed", "x"],
    "unknown PCM": ["--raw", "mp3:22050:1"],
    "PCM without a rate": ["--raw", "u8:x:1"],
    "PCM of no channels": ["--raw", "u8:22050:0"],
    "unknown layer": ["--encoding", "S9=rle"],
    "unknown encoding": ["--encoding", "S0=zip"],
    "empty layer": ["--encoding", "=rle"],
    "zero seconds": ["--max-duration", "0"],
    "missing value": ["--seed"],
    "file and folder": ["--output", "x", "--output-dir", "y"],
    "two files beside a device": ["--reconstruct", "--save-features", "-o", "/dev/null"],
    "a device of no form": ["--device", "gpu"],
    "two formats for stdout": ["--ndjson-streaming", "--format", "json"],
    "a list without stdin": ["--batch"],
    "a stream and a sound": ["--decode", "x.ndjson"],
    "stdin twice": ["-", "-"],
    "many inputs into one file": ["b.wav", "-o", "x"],
    "many inputs into one JSON": ["b.wav", "--format", "json"],
    "a picture into one file": ["-o", "x.png"],
    "a folder that is a file": ["--output-dir", "song.wav"],
    "seconds of a minute": ["--format", "stream", "--from", "1:75"],
}


@pytest.mark.parametrize("flags", BAD_FLAGS.values(), ids=BAD_FLAGS)
def test_a_bad_command_line_is_2_and_one_line(run_main, wav, tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    one_line(run_main(wav, *flags), 2)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "flags, words",
    [(["--max-llm-token", "300"], "did you mean --max-llm-tokens?"),
     (["--ndjson-stream"], "did you mean --ndjson-streaming?"),
     (["-x.wav"], "the file of that name is ./-x.wav"), (["-v.wav"], "is ./-NAME"), (["--frobnicate"], "no option")],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_what_is_no_option_is_told_what_may_have_been_meant(
    run_main, wav, monkeypatch, flags, words
):
    monkeypatch.chdir(wav.parent)
    save_wav(wav.with_name("-x.wav"), song(0.3))
    line = one_line(run_main(wav, *flags), 2)
    assert words in line and line.count("did you mean") == words.count("did you mean")
    (wav.parent / "o.json").write_text('{"max-llm-token": 300}')
    assert "did you mean max-llm-tokens?" in one_line(run_main("--config", "o.json", wav), 2)


def test_names_may_stand_on_both_sides_of_an_option(run_main, wav, tmp_path):
    other = save_wav(tmp_path / "b.wav", song(0.5, seed=8))
    assert run_main(wav, "--rle", other).out == run_main("--rle", wav, other).out
    assert run_main("--rle", wav, "--", other).out == run_main("--rle", wav, other).out


@pytest.mark.parametrize("flags", [["--codebook-init", "audio"], ["--adapt"]], ids=" ".join)
def test_what_is_heard_twice_is_no_pipe(run_main, wav, flags):
    for more in (["-"], ["--live", "-"], ["--stdin"], []):
        assert "twice" in one_line(run_main(*flags, *more, input=wav.read_bytes()), 2)


def test_an_address_and_an_empty_name_are_called_that(run_main):
    for more in ([], ["--recursive"]):
        assert "URL: download" in one_line(
            run_main("--quiet", *more, "https://example.org/a.wav"), 1
        )
        assert "empty name" in one_line(run_main("--quiet", *more, ""), 1)


def test_a_stretch_may_be_told_in_minutes(run_main, wav):
    def stretch(*args):
        made = nat.parse_arguments(["--from", *args, "x"])
        return made.view_from, made.view_to

    assert stretch("1:30", "--to", "1:02:03.5") == (90.0, 3723.5)
    assert stretch("0:00.5") == (0.5, np.inf)
    page = ["--format", "stream", "--to"]
    assert run_main(*page, "0:00.5", wav).out == run_main(*page, "0.5", wav).out


def test_an_error_names_the_path_as_it_was_given(run_main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.wav").write_bytes(b"RIFF")
    (tmp_path / "in" / "text").write_text("no sound" * 999)
    alone = one_line(run_main("--quiet", "in/bad.wav"), 1)
    assert alone.startswith("in/bad.wav: ") and alone.count("bad.wav") == 1
    batch = run_main("--quiet", "--output-dir", "out", "in/bad.wav", "in/text")
    assert batch.err.splitlines()[0] + "\n" == alone and "in/text: text (" in batch.err
    assert b'"name":"text"' in run_main("in/text").out  # a stream tells no path


@pytest.mark.parametrize("form", ["npz", "wav"])
def test_bytes_are_not_written_to_a_terminal(run_main, wav, monkeypatch, form):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert f"{form} is nothing for a terminal" in one_line(run_main("--format", form, wav), 2)


def test_a_bad_command_line_is_refused_before_anything_heavy(run_main, wav, monkeypatch):
    monkeypatch.setattr(nat, "Tokenizer", lambda *_, **__: pytest.fail("opened a tokenizer"))
    one_line(run_main(wav, "--format", "json", "--ndjson-streaming"), 2)


def test_no_input_at_a_terminal_is_2(monkeypatch, capfdbinary):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
    assert nat.main(SPECTRAL) == 2
    assert capfdbinary.readouterr().err.count(b"\n") == 1


def test_what_needs_a_missing_program_is_3(run_main, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no ffmpeg
    (tmp_path / "a.flac").write_bytes(b"fLaC" + bytes(200))
    line = one_line(run_main("--compat-fallback", tmp_path / "a.flac"), 3)
    assert "install" in line


def test_several_inputs_to_stdout_are_several_streams(run_main, wav, tmp_path):
    other = save_wav(tmp_path / "b.wav", song(0.5, seed=8))
    result = run_main(wav, other)
    assert result.status == 0 and result.out == run_main(wav).out + run_main(other).out
    refused = one_line(run_main("--format", "stream", wav, other), 2)
    assert "need --output-dir DIR, for files named after each" in refused


def test_a_page_of_a_stretch_says_where_its_times_begin(run_main, wav):
    page = run_main("--format", "stream", "--from", "0.5", wav).out.decode().splitlines()
    assert "(TIMES BELOW START THERE: 0.0 is 0.5 s)" in page[0]
    assert "from 10 s on: it lasts" in run_main("--format", "stream", "--from", "10", wav).err
    assert "nor as in 1:05" in one_line(run_main("--from", "0:1", wav), 2)


# Pipes


def process(*args, **more):
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, str(PROGRAM), *SPECTRAL, *args], **{**streams, **more})


def test_head_closes_it_quietly(tokenizer, example, tmp_path):
    wav = save_wav(tmp_path / "long.wav", np.tile(example, 2))
    running = process("--quiet", str(wav))
    assert running.stdout.readline().startswith(b'{"event":"header"')
    running.stdout.close()
    assert running.stderr.read() == b"" and running.wait(timeout=60) == 0


def test_head_of_a_live_stream_closes_it_quietly(tokenizer, example, tmp_path):
    wav = save_wav(tmp_path / "long.wav", np.tile(example, 2))
    with open(wav, "rb") as file:
        running = process("--quiet", "-", stdin=file)
        running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == b"" and running.wait(timeout=60) == 0


def start_live(example):
    """A run whose stdin has brought seven seconds and stays open."""
    running = process("--quiet", "-")
    data = wav_bytes((example * 32768).astype("<i2").tobytes())
    running.stdin.write(data[: 7 * 44100])
    running.stdin.flush()
    assert running.stdout.readline().startswith(b'{"event":"header"')
    return running, data[7 * 44100 :]


def test_frames_come_while_the_sound_goes_on(tokenizer, example, run_main, tmp_path):
    running, rest = start_live(example)
    early = [running.stdout.readline() for _ in range(100)]
    assert any(line.startswith(b'{"t":') for line in early)
    feeder = threading.Thread(target=lambda: (running.stdin.write(rest), running.stdin.close()))
    feeder.start()
    late = running.stdout.readlines()
    feeder.join()
    assert running.wait(timeout=60) == 0 and running.stderr.read() == b""
    whole = run_main(save_wav(tmp_path / "a.wav", example)).out.splitlines(keepends=True)
    assert whole[1:] == early + late


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_interrupted_is_130_and_one_word(tokenizer, example):
    running, _ = start_live(example)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130 and err == b"interrupted\n"
    assert b'"event":"end"' not in out


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_one_line(tokenizer, wav):
    with open("/dev/full", "wb") as full:
        running = process("--quiet", str(wav), stdin=subprocess.DEVNULL, stdout=full)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 1 and err.count(b"\n") == 1 and b"No space left" in err


def test_a_full_disk_is_one_line_and_no_file(run_main, wav, tmp_path, monkeypatch):
    def full(self, tokens):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nat.NdjsonSink, "write", full)
    result = run_main("--quiet", "-o", tmp_path / "x", wav)
    assert "No space left" in one_line(result, 1) and not (tmp_path / "x").exists()


def test_an_output_that_is_a_folder_is_one_line(run_main, wav, tmp_path):
    (tmp_path / "x").mkdir()
    one_line(run_main("--quiet", "--force", "-o", tmp_path / "x", wav), 1)


def test_an_output_that_cannot_be_made_is_one_line(run_main, wav, tmp_path):
    (tmp_path / "file").write_text("in the way")
    one_line(run_main("--output-dir", tmp_path / "file" / "deep", wav), 1)
    one_line(run_main("-o", tmp_path / "file" / "x", wav), 1)


# Words


def test_help_lists_every_option_and_the_exit_statuses(run_cli):
    text = run_cli("--help").out.decode()
    for word in (
        "--ndjson-streaming",
        "--rle",
        "--decode",
        "--all-outputs",
        "examples:",
        "exit status",
    ):
        assert word in text
    assert all(len(line) <= 120 for line in text.splitlines())


def test_version_and_schema_go_to_stdout(run_main):
    assert nat.VERSION in run_main("--version").out.decode()
    schema = run_main("--schema")
    assert schema.status == 0 and json.loads(schema.out) == nat.line_schema()


def test_main_returns_and_does_not_exit(run_main):
    for options in (["--help"], ["--version"]):
        result = run_main(*options)
        assert result.status == 0 and result.out and not result.err


def test_quiet_hides_progress_but_no_errors(run_main, wav, tmp_path):
    assert run_main("--quiet", wav).err == "" != run_main(wav).err
    assert one_line(run_main("--quiet", tmp_path / "missing"), 1)


def test_stdout_is_data_only(run_main, wav):
    for line in run_main(wav).out.decode().splitlines():
        json.loads(line)


def test_the_narrower_encoding_wins(run_main, wav):
    chosen = run_main("--rle", "--dense-acoustic", "--encoding", "S1=dense,A3=rle", wav)
    header = json.loads(chosen.out.splitlines()[0])
    assert [layer["encoding"][0] for layer in header["layers"]] == list("rdrrdddr")


# What is loaded


def loaded(*args, blocked=()):
    """Modules in memory after a run, and its bytes."""
    code = (
        "import sys, io, runpy, json\n"
        f"for name in {tuple(blocked)!r}: sys.modules[name] = None\n"
        f"sys.argv = {[str(PROGRAM), *map(str, args)]!r}\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print('\\n' + json.dumps([m for m, x in sys.modules.items() if x]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=120, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr.decode()
    out, _, modules = done.stdout.rstrip(b"\n").rpartition(b"\n")
    return out, set(json.loads(modules))


@pytest.mark.parametrize("option", ["--help", "--version", "--schema"])
def test_help_loads_nothing_heavy(option):
    assert not loaded(option)[1] & set(HEAVY)


def test_the_spectral_ear_loads_no_neural_package(tokenizer, wav):
    modules = loaded(*SPECTRAL, wav)[1]
    assert not modules & {"torch", "torchaudio", "transformers", "matplotlib", "librosa"}


def test_help_is_quick():
    """Four times what importing numpy takes, half of it to compile this one file at every start;
    five here, since the machine may be busy."""
    commands, times = ([str(PROGRAM), "--help"], ["-c", "import numpy"]), ([], [])
    for _ in range(7):
        for command, taken in zip(commands, times):
            started = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            taken.append(time.perf_counter() - started)
    # The least of each: whatever else the machine does only adds.
    assert min(times[0]) < 5 * min(times[1])


def test_compat_fallback_hears_a_wav_the_same(run_main, wav):
    assert run_main("--compat-fallback", wav).out == run_main(wav).out


def test_numpy_alone_hears_a_wav_the_same(tokenizer, run_main, wav):
    out, modules = loaded(*SPECTRAL, wav, blocked=HEAVY)
    assert out.rstrip() == run_main(wav).out.rstrip() and not modules & set(HEAVY)


def test_compat_fallback_hears_other_rates_nearly_the_same(run_main, tmp_path):
    random = np.random.RandomState(0).standard_normal(2 * 44100) * 0.01
    sound = np.sin(np.arange(2 * 44100) * 2 * np.pi * 440 / 44100) * 0.2 + random
    path = save_wav(tmp_path / "a.wav", sound, rate=44100)
    codes = [
        np.array(
            [line.split() for line in run_main(*options, "--format", "text", path).out.splitlines()]
        )
        for options in ([], ["--compat-fallback"])
    ]
    assert codes[0].shape == codes[1].shape
    assert np.mean(codes[0][:, [0, 4]] == codes[1][:, [0, 4]]) >= 0.9


def test_reconstruction_needs_numpy_alone(tokenizer, wav, tmp_path):
    out = tmp_path / "o"
    loaded(*SPECTRAL, "--all-outputs", "--compat-fallback", "--output-dir", out, wav, blocked=HEAVY)
    assert len(load_wav(out / "song_reconstructed.wav")[0]) == 22050


def test_it_runs_from_any_folder(run_cli, tmp_path, wav):
    assert run_cli("song.wav", cwd=tmp_path).out == run_cli(wav, cwd=ROOT).out
