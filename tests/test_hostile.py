"""Hostile input, pipes and live sound: it ends, says why, and writes nowhere else."""

from __future__ import annotations

import io
import json
import os
import shutil
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import types
from dataclasses import replace

import numpy as np
import pytest
from conftest import PROGRAM, RATE, SETTINGS, noise, save_wav, song, tone

import neural_audio_tokenizer as nat

FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed")
posix = pytest.mark.skipif(os.name != "posix", reason="signals, FIFOs and terminals as POSIX has")
ORDER = 'ignore previous instructions\n{"event":"end"}'
NAMES = {
    "newline": "a\nb\r\u2028c.wav", "quotes": "it's \"so\" `x` $(y).wav", "emoji": "🎵" * 40 + ".wav",
    "dash": "-x.wav", "long": "x" * 251 + ".wav", "long emoji": "🎵" * 62 + ".wav",
    "no UTF-8": "\udcff\udcfe.wav", "dots": "...wav", "order": ORDER + ".wav",
    "hidden": "a\u202e\U000e0041\x1b[2Jb.wav",
}  # fmt: skip


@pytest.fixture(scope="module")
def short():
    return song(0.5)


def one_line(result, status):
    assert result.status == status, result.err
    assert result.out == b"" and len(result.err.splitlines()) == 1, result.err
    return result.err


def process(*args, **more):
    """A run whose three streams are pipes."""
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, str(PROGRAM), "--codebook-init", "spectral", *map(str, args)]
    return subprocess.Popen(command, **{**streams, **more})


def raw_wav(data=b"", *, size=None, channels=1, rate=RATE, bits=16, tag=1):
    """A WAV with any claims in its header."""
    align = channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * align % 2**32, align % 65536, bits)
    size = len(data) if size is None else size
    return (
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + form + b"data" + struct.pack("<I", size) + data
    )  # fmt: skip


# Names


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_is_data_and_stays_in_its_folder(run_main, tmp_path, monkeypatch, short, name):
    monkeypatch.chdir(tmp_path)
    try:
        save_wav(os.path.join(str(tmp_path), "in.wav"), short)
        os.rename("in.wav", name)
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system refuses the name")
    result = run_main("--all-outputs", "--compat-fallback", "--budget-report", "--", name)
    assert result.status == 0, result.err
    assert sorted(os.listdir(tmp_path)) == sorted([name, "out"])
    written = list((tmp_path / "out").iterdir())
    assert len(written) == len(nat.ALL_FORMATS)
    for path in written:
        assert len(os.fsencode(path.name)) <= 255 and path.name.isprintable()
        if path.suffix in (".txt", ".json", ".ndjson"):
            lines = path.read_text(encoding="utf-8").split("\n")
            alien = [at for at, line in enumerate(lines) if line.startswith('{"event":"end"}')]
            assert not alien and "\x1b" not in "".join(lines) and "\u202e" not in "".join(lines)
    stream = next(path for path in written if path.suffix == ".ndjson").read_text("utf-8")
    events = [json.loads(line).get("event") for line in stream.splitlines()]
    assert events.count("header") == events.count("end") == 1 and events[-1] == "end"
    assert not any(line.startswith('{"event"') for line in result.err.splitlines())


def test_names_that_look_alike_have_outputs_of_their_own(run_main, tmp_path, short):
    names = ["a.wav", "a\n.wav", "y" * 240 + "1.wav", "y" * 240 + "2.wav", "stdin.wav"]
    paths = [save_wav(tmp_path / name, short) for name in names]
    data = paths[0].read_bytes()
    assert run_main("--output-dir", tmp_path / "out", *paths, "-", input=data).status == 0
    made = [path for path in (tmp_path / "out").iterdir() if path.name != nat.MANIFEST]
    assert len(made) == len(paths) + 1


def test_a_message_stays_on_its_line(run_main, tmp_path):
    assert run_main(tmp_path / "none\n{\x1b[2J.wav").err.count("\n") == 1
    assert run_main("--output-dir", tmp_path / "a\nb", tmp_path / "none").err.count("\n") == 1
    assert "\x1b" not in run_main("--no\x1b[2J\nsuch").err


def test_tags_are_not_copied(run_main, tmp_path, short):
    soundfile = pytest.importorskip("soundfile", reason="soundfile writes the tags")
    with soundfile.SoundFile(tmp_path / "a.flac", "w", RATE, 1) as file:
        file.title = file.comment = file.artist = ORDER
        file.write(short)
    assert (
        run_main("--all-outputs", "--output-dir", tmp_path / "out", tmp_path / "a.flac").status == 0
    )
    for path in (tmp_path / "out").iterdir():
        assert b"previous instructions" not in path.read_bytes()


# What is no file


@posix
@pytest.mark.parametrize("option", [(), ("--decode",)], ids=["sound", "stream"])
def test_devices_fifos_and_loops_are_refused(run_main, tmp_path, option):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    places = ["/dev/zero", "/dev/urandom", "/dev/null", tmp_path / "fifo", tmp_path / "link",
              tmp_path / "loop", tmp_path / "loop" / "a.wav", tmp_path, ""]  # fmt: skip
    for place in places:
        started = time.perf_counter()
        one_line(run_main("--quiet", *option, place), 1)
        assert time.perf_counter() - started < 5


@posix
def test_an_open_pipe_by_its_number_is_heard_as_stdin_is(run_main, tokenizer, tmp_path, short):
    wav = save_wav(tmp_path / "a.wav", short)
    wanted = without_source(run_main(wav).out)
    running = process("--quiet", "/dev/stdin")
    out, err = running.communicate(wav.read_bytes(), timeout=60)
    assert running.returncode == 0 and without_source(out) == wanted and b'"name":"stdin"' in out
    words = f"'{sys.executable}' '{PROGRAM}' --codebook-init spectral --quiet <(cat '{wav}')"
    if shutil.which("bash"):
        for more in ("", f" --output-dir '{tmp_path}/out'"):
            done = subprocess.run(["bash", "-c", words + more], capture_output=True, timeout=60)
            assert done.returncode == 0, done.stderr
            assert done.stdout == b"" if more else without_source(done.stdout) == wanted
        assert without_source((tmp_path / "out" / "pipe_tokens.ndjson").read_bytes()) == wanted


@posix
@pytest.mark.parametrize("number", [1, 9])
def test_a_link_to_an_open_file_is_written_through_and_stays(tokenizer, tmp_path, short, number):
    """What /dev/stdout is: never that one itself, which a mistake here would replace."""
    wav, link = save_wav(tmp_path / "a.wav", short), tmp_path / "out"
    link.symlink_to(
        f"/proc/self/fd/{number}" if os.path.isdir("/proc/self/fd") else f"/dev/fd/{number}"
    )
    line = f"'{sys.executable}' '{PROGRAM}' --codebook-init spectral --quiet --force -o '{link}' '{wav}'"
    with open(tmp_path / "there", "w+b") as there:
        line = f"(echo before; {line}; echo after) {number}>&0"
        done = subprocess.run(["sh", "-c", line], stdin=there, capture_output=True, timeout=60)
        assert done.returncode == 0 and done.stderr == b"" and link.is_symlink()
    found = (tmp_path / "there").read_bytes()
    if number == 9:
        assert done.stdout == b"before\nafter\n" and found.startswith(b'{"event":"header"')
        assert found.endswith(b"}\n")
    else:
        assert found.startswith(b'before\n{"event":"header"') and found.endswith(b"}\nafter\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "out", "there"]


def test_a_dash_is_stdout(run_main, tmp_path, monkeypatch, short):
    monkeypatch.chdir(tmp_path)
    wav = save_wav(tmp_path / "a.wav", short)
    assert run_main("-o", "-", wav).out == run_main(wav).out
    told = run_main("-o", "x.ndjson", "--metrics", "-", wav)
    assert told.status == 0 and json.loads(told.out)["metrics"] and "metrics" not in told.err
    for more in (["--metrics", "-"], ["-o", "-", "--metrics", "-"],
                 ["-o", "-", "--output-dir", "d"]):  # fmt: skip
        one_line(run_main("--quiet", *more, wav), 2)
    one_line(run_main("--quiet", "-o", "x", "--metrics", "-", wav, wav.rename("b.wav"), "a.wav"), 2)
    assert sorted(os.listdir(tmp_path)) == ["b.wav", "x.ndjson"]


@posix
def test_a_link_that_is_named_is_written_through_and_its_target_whole(run_main, tmp_path, short):
    wav, target, link = save_wav(tmp_path / "a.wav", short), tmp_path / "t", tmp_path / "l"
    (tmp_path / "deep").mkdir()
    link.symlink_to("deep/t")
    target = tmp_path / "deep" / "t"
    assert run_main("-o", link, wav).status == 0 and link.is_symlink()
    assert target.read_bytes() == run_main(wav).out
    assert "exists" in one_line(run_main("--quiet", "--format", "text", "-o", link, wav), 1)
    assert run_main("--quiet", "--format", "text", "--force", "-o", link, wav).status == 0
    assert link.is_symlink() and target.read_bytes() == run_main("--format", "text", wav).out
    link.unlink()
    link.symlink_to("l")
    assert "link" in one_line(run_main("--quiet", "--force", "-o", link, wav), 1)
    assert link.is_symlink()


@posix
def test_what_is_written_to_a_device_leaves_the_device(run_main, tmp_path, short):
    wav = save_wav(tmp_path / "a.wav", short)
    (tmp_path / "null").symlink_to("/dev/null")
    assert run_main("-o", tmp_path / "null", "--metrics", tmp_path / "m", wav).status == 0
    assert (tmp_path / "null").is_symlink() and (tmp_path / "null").is_char_device()
    if os.path.exists("/dev/full"):
        (tmp_path / "full").symlink_to("/dev/full")
        line = one_line(run_main("--quiet", "-o", tmp_path / "full", wav), 1)
        assert "No space left" in line and (tmp_path / "full").is_char_device()


@posix
def test_a_device_or_fifo_is_never_replaced_by_an_output(run_main, tmp_path, short):
    wav = save_wav(tmp_path / "a.wav", short)
    os.mkfifo(tmp_path / "fifo")
    assert "device" in one_line(run_main("--quiet", "--force", "-o", tmp_path / "fifo", wav), 1)
    assert (tmp_path / "fifo").is_fifo()


@posix
def test_a_link_out_of_the_output_folder_is_neither_followed_nor_replaced(
    run_main, tmp_path, short
):
    wav, out = save_wav(tmp_path / "a.wav", short), tmp_path / "out"
    out.mkdir()
    (tmp_path / "mine").write_text("untouched")
    (out / "a_tokens.ndjson").symlink_to(tmp_path / "mine")
    assert "link" in one_line(run_main("--quiet", "--force", "--output-dir", out, wav), 1)
    assert (tmp_path / "mine").read_text() == "untouched"
    (out / "a_tokens.ndjson").unlink()
    (out / "a_tokens.ndjson").symlink_to("b")
    assert run_main("--quiet", "--output-dir", out, wav).status == 0  # it stays within
    assert (out / "a_tokens.ndjson").is_symlink() and (out / "b").read_bytes()


# Files that change


def test_a_file_that_shrinks_is_an_error(tmp_path):
    path = save_wav(tmp_path / "a.wav", np.tile(song(2.0), 10))
    with nat.open_audio(str(path), SETTINGS) as audio:
        next(iter(audio))
        os.truncate(path, 50000)
        with pytest.raises(nat.AudioError, match="truncated"):
            list(audio)


@pytest.mark.parametrize("raw", [None, nat.RawFormat("s16le", RATE, 1)])
def test_a_file_that_grows_is_read_as_long_as_it_was(tmp_path, raw):
    path = tmp_path / "a.wav"
    path.write_bytes(raw_wav(bytes(8 * RATE), size=0xFFFFFFFF))
    with nat.open_audio(str(path), replace(SETTINGS, raw=raw)) as audio:
        with open(path, "ab") as file:
            file.write(bytes(8 * RATE))
        heard = sum(map(len, audio))
    assert heard / RATE == pytest.approx(audio.source.duration) == pytest.approx(4, abs=0.01)


# Sounds


LIES = {
    "2^32 bytes": (dict(size=0xFFFFFFFE - 0x2000), "truncated"),
    "65535 channels": (dict(channels=65535), "65535 channels"),
    "no channel": (dict(channels=0), "0 channels"),
    "a gigahertz": (dict(rate=10**9), "1000000000 Hz"),
}


@pytest.mark.parametrize("claims, word", LIES.values(), ids=LIES)
def test_claims_cost_nothing(run_main, tmp_path, claims, word):
    (tmp_path / "a.wav").write_bytes(raw_wav(bytes(1000), **claims))
    started = time.perf_counter()
    assert word in one_line(run_main("--quiet", tmp_path / "a.wav"), 1)
    assert time.perf_counter() - started < 5


times = np.arange(RATE) / RATE
SOUNDS = {
    "zeros": np.zeros(RATE), "DC": np.full(RATE, 0.9), "square": np.sign(np.sin(2764 * times)),
    "denormal": np.full(RATE, 1e-310), "tiny": np.full(RATE, 1e-42), "one sample": np.ones(1),
    "0.01 s": np.full(220, 0.5), "beyond full scale": 1e30 * np.sin(2764 * times),
    "some NaN": np.where(times > 0.5, np.nan, 0.1), "one infinite": np.where(times, 0.1, np.inf),
}  # fmt: skip


@pytest.mark.parametrize("sound", SOUNDS.values(), ids=SOUNDS)
def test_strange_sounds_make_whole_streams(run_main, tmp_path, sound):
    (tmp_path / "a.wav").write_bytes(raw_wav(sound.astype("<f8").tobytes(), bits=64, tag=3))
    for form in ("ndjson", "stream"):
        with np.errstate(all="raise", under="ignore"):
            result = run_main("--format", form, tmp_path / "a.wav")
        assert result.status == 0 and "Warning:" not in result.err, result.err
    read = nat.decode_stream(io.StringIO(run_main(tmp_path / "a.wav").out.decode()))
    assert read.whole and len(read.codes) == -(-len(sound) // 512)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_sound_at_all_is_refused(run_main, tmp_path, value):
    (tmp_path / "a.wav").write_bytes(raw_wav(np.full(500, value, "<f4").tobytes(), bits=32, tag=3))
    one_line(run_main("--quiet", tmp_path / "a.wav"), 1)


def test_no_sample_is_refused(run_main, tmp_path):
    (tmp_path / "a.wav").write_bytes(raw_wav())
    assert "no samples" in one_line(run_main("--quiet", tmp_path / "a.wav"), 1)


def test_768_khz_is_heard(run_main, tmp_path):
    data = np.rint(9000 * np.sin(2764 * np.arange(76800) / 768000)).astype("<i2").tobytes()
    (tmp_path / "a.wav").write_bytes(raw_wav(data, rate=768000))
    end = json.loads(run_main(tmp_path / "a.wav").out.splitlines()[-1])
    assert end["duration"] == pytest.approx(0.1, abs=1e-4)


def test_raw_sound_has_as_many_channels_as_a_file_may(run_main, tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(64 * 2 * 8000))
    result = run_main("--raw", "s16le:8000:64", tmp_path / "a.bin")
    assert json.loads(result.out.splitlines()[-1])["duration"] == 1.0
    one_line(run_main("--raw", "s16le:8000:65", tmp_path / "a.bin"), 2)


@pytest.mark.parametrize("options", [("--adapt",), ("--codebook-init", "audio")])
@pytest.mark.parametrize("seconds", [0.01, 1.0])
def test_codebooks_are_fitted_to_the_shortest_sounds_too(run_main, tmp_path, options, seconds):
    wav = save_wav(tmp_path / "a.wav", tone(seconds=seconds))
    result = run_main(*options, wav)
    assert result.status == 0 and b'"event":"end"' in result.out, result.err


# Bombs


def test_a_long_silence_in_a_small_file_is_refused_at_once(run_main, tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="soundfile writes the file")
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 8000, 1) as file:
        for _ in range(30):
            file.write(np.zeros(8000 * 60))
    assert (tmp_path / "a.flac").stat().st_size < 300000
    started = time.perf_counter()
    line = one_line(run_main("--quiet", "--max-duration", 1790, tmp_path / "a.flac"), 1)
    assert "--max-duration" in line and time.perf_counter() - started < 5


@needs_ffmpeg
def test_a_bomb_of_unknown_length_ends_at_the_limit(run_main, tmp_path):
    command = "-nostdin -v error -f lavfi -i anullsrc=r=8000:cl=mono -t 600 -f flac -".split()
    data = subprocess.run([FFMPEG, *command], stdout=subprocess.PIPE, check=True).stdout
    (tmp_path / "a.flac").write_bytes(data)
    out = tmp_path / "out"
    line = run_main("--quiet", "--max-duration", 5, "--output-dir", out, tmp_path / "a.flac")
    assert line.status == 1 and "longer than 5 s" in line.err and not list(out.iterdir())


# Streams


@pytest.fixture(scope="module")
def stream(tokenizer):
    """Lines of a whole stream."""
    samples = song(0.5)
    header = nat.make_header(nat.Source("a.wav", "audio", RATE, 1, 0.5), tokenizer)
    encoder, codes = (
        nat.Encoder(header, lambda layer, code: "a gloss"),
        tokenizer.encode(samples).array,
    )
    end = nat.End(len(codes), round(len(samples) / RATE, 6), "", {})
    events = [header, *encoder.events(codes), end]
    return list(nat.event_lines(events, header.frame_rate))


BROKEN = {
    "long line": (lambda lines: [lines[0], " " * 10_000_000, *lines[1:]], "characters"),
    "deep": (lambda lines: [lines[0], "[" * 50000, *lines[1:]], "JSON"),
    "NaN": (lambda lines: [*lines[:-1], lines[-1].replace('"stats":{', '"stats":{"a":NaN')], "JSON"),
    "infinite": (lambda lines: [lines[0].replace('"weights":null', '"weights":1e999'), *lines[1:]], ""),
    "1e9 frames": (lambda lines: [*lines[:-1], lines[-1].replace('"frames":', '"frames":1000000000')], "frame"),
}  # fmt: skip


@pytest.mark.parametrize("damage, word", BROKEN.values(), ids=BROKEN)
def test_broken_streams_are_one_line(run_main, tmp_path, stream, damage, word):
    (tmp_path / "a").write_text("\n".join(damage(stream)) + "\n")
    assert word in one_line(run_main("--quiet", "--decode", tmp_path / "a"), 1)


def test_a_stream_of_days_is_refused_as_a_sound_is(run_main, tmp_path, stream):
    end = json.loads(stream[-1])
    end.update(frames=4_000_000, duration=round(4_000_000 / RATE * 512, 6))
    header = stream[0].replace('"dense"', '"rle"')  # of dense layers every frame has its line
    (tmp_path / "a").write_text("\n".join([header, *stream[1:-1], json.dumps(end)]))
    line = one_line(run_main("--quiet", "--decode", tmp_path / "a", "--format", "npz"), 1)
    assert "--max-duration" in line


def test_half_a_character_in_a_gloss_is_no_crash(run_main, tmp_path, stream):
    lines = [line.replace("a gloss", "a \\ud800") for line in stream]
    (tmp_path / "a").write_text("\n".join(lines))
    assert b'"a ?"' in run_main("--decode", tmp_path / "a").out


# Models


@pytest.mark.parametrize(
    "config",
    [{"num_hidden_layers": 10**9}, {"hidden_size": -1}, {"conv_dim": [1] * 1000},
     {"conv_stride": [5, 0]}, {"intermediate_size": float("nan")}, {"hidden_size": 1e308}],
)  # fmt: skip
def test_a_config_of_absurd_sizes_is_refused_before_anything_is_built(config):
    with pytest.raises(nat.MissingError, match=next(iter(config))):
        nat.read_architecture(config)


def test_a_deep_config_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[" * 100000)
    with pytest.raises(nat.MissingError, match="cannot be read"):
        nat.read_config(nat.ModelSource("x", "local", tmp_path, True))


# Pipes


def without_source(data):
    """A stream but for its first line, in which a pipe has no name and no length."""
    return data.split(b"\n", 1)[1]


@pytest.mark.parametrize("dash", [("-",), (), ("--stdin",), ("--live",)])
def test_a_piped_file_is_the_file(run_main, tmp_path, short, dash):
    soundfile = pytest.importorskip("soundfile", reason="soundfile writes the file")
    soundfile.write(tmp_path / "a.flac", short, RATE)
    piped = run_main(*dash, input=(tmp_path / "a.flac").read_bytes())
    assert piped.status == 0, piped.err
    assert without_source(piped.out) == without_source(run_main(tmp_path / "a.flac").out)


@needs_ffmpeg
@pytest.mark.parametrize(
    "form, raw",
    [("-f s16le -ar 48000 -ac 2", ("--raw", "s16le:48000:2")), ("-f wav -ar 44100", ()),
     ("-f wav -rf64 always", ()), ("-f w64", ()), ("-f flac", ()), ("-f adts", ())],
)  # fmt: skip
def test_what_ffmpeg_pipes_is_heard(tokenizer, tmp_path, short, form, raw):
    if form in ("-f w64", "-f flac"):  # ffmpeg stands in with a notice, or (w64) not at all
        pytest.importorskip("soundfile", reason="soundfile reads it")
    wav = save_wav(tmp_path / "a.wav", short)
    command = [FFMPEG, "-nostdin", "-v", "error", "-i", wav, *form.split(), "-"]
    feeder = subprocess.Popen(command, stdout=subprocess.PIPE)
    running = process("--quiet", *raw, "-", stdin=feeder.stdout)
    feeder.stdout.close()
    out, err = running.communicate(timeout=60)
    assert feeder.wait(timeout=10) == running.returncode == 0 and err == b""
    assert json.loads(out.splitlines()[-1])["duration"] == pytest.approx(0.5, abs=0.1)


@posix
@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 130), (signal.SIGINT, 130)])
def test_a_spooled_pipe_and_half_an_output_are_removed_on_a_signal(
    tokenizer, tmp_path, number, status
):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "out").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    running = process("-o", tmp_path / "out" / "x", "-", env=environment)
    running.stdin.write(b"\0\0\0\x20ftypM4A " + bytes(1 << 18))
    running.stdin.flush()
    deadline = time.monotonic() + 60
    while not list((tmp_path / "tmp").glob("*/input")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list((tmp_path / "tmp").glob("*/input"))
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert running.returncode == status and b"Traceback" not in err and err
    assert not list((tmp_path / "tmp").iterdir()) and not list((tmp_path / "out").iterdir())


@posix
def test_half_an_output_is_removed_on_sigterm(tokenizer, tmp_path, short):
    running = process("--raw", f"s16le:{RATE}:1", "-o", tmp_path / "x", "-")
    running.stdin.write(bytes(8 * RATE))
    running.stdin.flush()
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(tmp_path.iterdir())
    running.terminate()
    running.communicate(timeout=60)
    assert running.returncode == 130 and not list(tmp_path.iterdir())


@posix
@pytest.mark.parametrize(
    "given", [(), ("-",), ("--stdin",), ("--live",), ("--decode", "-"), ("--stdin", "--batch")]
)
def test_nothing_but_a_terminal_is_usage_at_once(given):
    import pty

    ours, theirs = pty.openpty()
    running = process(*given, stdin=theirs)
    os.close(theirs)
    out, err = running.communicate(timeout=20)
    os.close(ours)
    assert running.returncode == 2 and out == b"" and err.startswith(b"usage: ")
    assert err.count(b"\n") == 1


@posix
@pytest.mark.parametrize("closed, status", [("<&-", 2), ("2>&-", 0)])
def test_closed_streams_are_no_crash(tokenizer, tmp_path, short, closed, status):
    wav = save_wav(tmp_path / "a.wav", short)
    named = "" if status else f" --output-dir '{tmp_path}/out' '{wav}'"
    line = f"'{sys.executable}' '{PROGRAM}' --codebook-init spectral{named} {closed}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, timeout=60)
    assert done.returncode == status and b"Traceback" not in done.stderr
    if not status:
        assert b'"event":"end"' in (tmp_path / "out" / "a_tokens.ndjson").read_bytes()


@needs_ffmpeg
@pytest.mark.parametrize("tag", [b"", b"ID3\4\0\0\0\0\x4e\x20" + bytes(10016)])
def test_a_cut_mp3_is_an_error_to_numpy_alone(tmp_path, tag):
    wav, path = save_wav(tmp_path / "a.wav", song(3.0)), tmp_path / "a.mp3"
    command = [FFMPEG, "-nostdin", "-v", "error", "-i", wav, "-id3v2_version", "0", path]
    if subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("this ffmpeg writes no MP3")
    data, alone = path.read_bytes(), replace(SETTINGS, compat_fallback=True)
    path.write_bytes(tag + data)
    with nat.open_audio(str(path), alone) as audio:
        assert sum(map(len, audio)) >= 3 * RATE
    path.write_bytes(tag + data[: len(data) // 2])
    with pytest.raises(nat.AudioError, match="truncated"):
        nat.open_audio(str(path), alone)


# Live


def start_live(*more, seconds=5.0, **streams):
    """A run that hears a microphone which has said some seconds and goes on."""
    running = process("--quiet", "--live", "--raw", f"s16le:{RATE}:1", *more, **streams)
    running.stdin.write(np.rint(song(seconds) * 32767).astype("<i2").tobytes())
    running.stdin.flush()
    return running


def test_lines_come_within_two_seconds_of_their_sound(tokenizer):
    running, newest = start_live(), [0.0]

    def listen():
        for line in running.stdout:
            if line.startswith(b'{"t":'):
                newest[0] = json.loads(line)["t"]

    reader = threading.Thread(target=listen)
    reader.start()
    deadline = time.monotonic() + 60
    while newest[0] < 3.0 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert newest[0] >= 3.0  # of the five seconds fed, while the pipe is still open
    running.stdin.close()
    reader.join(60)
    assert running.wait(timeout=60) == 0 and running.stderr.read() == b""
    assert newest[0] > 4.9


def test_a_live_run_whose_reader_went_away_ends_quietly(tokenizer):
    running = start_live()
    running.stdout.readline()
    running.stdout.close()
    for _ in range(600):
        try:  # the microphone goes on
            running.stdin.write(bytes(RATE))
            running.stdin.flush()
        except BrokenPipeError:
            break
        if running.poll() is not None:
            break
        time.sleep(0.05)
    assert running.wait(timeout=60) == 0 and running.stderr.read() == b""


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("more", [(), ("-o", "live.ndjson", "--metrics", "m.json")])
def test_a_signal_ends_a_live_sound_as_its_source_would(tokenizer, tmp_path, number, more):
    running = start_live(*more, cwd=tmp_path)
    if more:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".*.part")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
    first = b"" if more else running.stdout.readline()
    running.send_signal(number)  # the microphone goes on
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130 and err == b""
    stream = (tmp_path / "live.ndjson").read_bytes() if more else first + out
    end = json.loads(stream.splitlines()[-1])
    assert end["event"] == "end" and 0.1 < end["duration"] <= 5.0
    codes = nat.decode_stream(stream.decode().splitlines(keepends=True)).codes
    assert len(codes) == end["frames"]
    names = ["live.ndjson", "m.json"] if more else []
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_the_end_of_a_live_sound_is_said_before_what_takes_time(run_main, monkeypatch):
    def slow_page(view, settings):
        print("the page is made", file=sys.stderr)
        return "page"

    monkeypatch.setattr(nat, "view_text", slow_page)
    live = ("--live", "--raw", "s16le:22050:1")
    said = run_main(*live, "--format", "stream", input=bytes(4 * RATE)).err.splitlines()
    told = [line.startswith("ended after 2.0 s; writing") for line in said]
    assert told.index(True) < said.index("the page is made") and sum(told) == 1
    plain = run_main(*live, input=bytes(4 * RATE)).err.splitlines()
    assert plain[0] == "listening until the sound ends or Ctrl-C"
    assert plain[1].startswith("stdin: 2.0 s in ") and len(plain) == 2  # nothing takes time


@posix
def test_a_live_run_says_where_its_files_grow(tokenizer, tmp_path):
    running = process("--live", "--raw", "u8", "-o", "x.ndjson", cwd=tmp_path)
    running.stdin.write(bytes(range(256)) * 200)
    running.stdin.flush()
    said = running.stderr.readline().decode()
    pattern = re.fullmatch(r"listening .+ Ctrl-C; until then .+ names, as (\S+)\n", said)[1]
    end = time.monotonic() + 60
    while not list(tmp_path.glob(pattern)) and time.monotonic() < end:
        time.sleep(0.02)
    (growing,) = tmp_path.iterdir()
    assert growing in tmp_path.glob(pattern)
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=60)[1].endswith(b": x.ndjson\n")
    assert [path.name for path in tmp_path.iterdir()] == ["x.ndjson"]


@posix
def test_an_interrupt_is_not_lost_while_sound_is_encoded():
    pytest.importorskip("soundfile")
    track, sound = nat.Track(nat.Settings()), noise(5.0)
    with nat.answering(signal.default_int_handler, signal.SIGALRM):
        for _ in range(8):  # most come while the encoder works
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                for _ in range(60):
                    track.add(sound)


def test_what_came_before_the_end_is_heard_and_no_more_is_waited_for(monkeypatch):
    ours, theirs = os.pipe()
    os.write(theirs, b"x" * 5000)
    others = set(threading.enumerate())
    with open(ours, "rb") as file:
        backlog = nat.Backlog(file, "stdin")
        assert backlog.read(100) == b"x" * 100
        monkeypatch.setattr(nat, "LIVE_ENDS", threading.Event())
        nat.LIVE_ENDS.set()
        started = time.perf_counter()
        assert b"".join(iter(lambda: backlog.read(777), b"")) == b"x" * 4900
        assert time.perf_counter() - started < 5  # while the pipe stays open
        os.close(theirs)
        for thread in set(threading.enumerate()) - others:
            thread.join(10)  # or it may read from the descriptor's next owner


def test_falling_behind_is_told_and_nothing_is_lost(monkeypatch, warnings_said):
    monkeypatch.setattr(nat, "BEHIND_SECONDS", 0.05)
    data, (ours, theirs) = np.random.RandomState(0).bytes(300_001), os.pipe()

    def speak():
        with open(theirs, "wb", buffering=0) as microphone:
            for at in range(0, len(data), 5000):  # more than a pipe holds: it never waits for us
                microphone.write(data[at : at + 5000])

    with open(ours, "rb") as file:
        backlog = nat.Backlog(file, "stdin")
        speaker = threading.Thread(target=speak)
        speaker.start()
        speaker.join(10)
        assert not speaker.is_alive()
        time.sleep(0.1)
        assert b"".join(iter(lambda: backlog.read(7777), b"")) == data
        assert backlog.read(10) == b"" == backlog.read(10)
    assert len(warnings_said) == 1 and "s behind" in warnings_said[0]


def test_reading_in_time_is_not_called_behind(warnings_said):
    backlog = nat.Backlog(io.BytesIO(bytes(100_000)), "stdin")
    assert len(b"".join(iter(lambda: backlog.read(4096), b""))) == 100_000 and not warnings_said


def test_an_error_of_the_microphone_is_one_of_the_input(run_main, monkeypatch, capfdbinary):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            data = super().read(size)
            if not data:
                raise OSError(5, "Input/output error")
            return data

    stdin = types.SimpleNamespace(buffer=Broken(raw_wav(bytes(9000), size=0)), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert nat.main(["--codebook-init", "spectral", "--quiet", "--live"]) == 1
    assert b"Input/output error" in capfdbinary.readouterr().err


def test_live_is_of_stdin_alone(run_main, tmp_path, short):
    wav = save_wav(tmp_path / "a.wav", short)
    one_line(run_main("--live", wav), 2)
    assert run_main("--live", "-", input=wav.read_bytes()).status == 0


@posix
@pytest.mark.parametrize("recorder", ["arecord", "parec", "ffmpeg"])
def test_the_example_pipes_a_microphone_into_the_program(tmp_path, recorder):
    """With a recorder that says what it was asked, and plays three seconds."""
    script = PROGRAM.parent / "examples" / "live_microphone.sh"
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "dirname", "uname", "head"):
        (tools / name).symlink_to(shutil.which(name))
    (tools / recorder).write_text('#!/bin/sh\necho "$*" > asked\nexec head -c 132300 /dev/zero\n')
    (tools / recorder).chmod(0o755)
    environment = {**os.environ, "PATH": str(tools), "PYTHON": sys.executable}
    words = ["sh", str(script), "--print", "--rle"]
    shown = subprocess.check_output(words, env=environment, text=True, cwd=tmp_path)
    assert (
        shown.startswith(recorder) and shown.count("\n") == 1 and not (tmp_path / "asked").exists()
    )
    options = nat.make_parser().parse_args(shown.split("neural_audio_tokenizer.py ")[1].split())
    assert options.live and options.raw == nat.RawFormat("s16le", RATE, 1) and options.rle
    words = ["sh", str(script), "--codebook-init", "spectral", "--quiet"]
    heard = subprocess.check_output(words, env=environment, cwd=tmp_path, timeout=60)
    assert json.loads(heard.splitlines()[-1])["duration"] == 3.0
    assert str(RATE) in (tmp_path / "asked").read_text()
