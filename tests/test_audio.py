"""Section 3: every kind of input becomes the right blocks, or one clear error."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import types
from dataclasses import replace

import numpy as np
import pytest

import neural_audio_tokenizer as nat

RATE = 22050
SETTINGS = nat.Settings()
NUMPY_ONLY = nat.Settings(compat_fallback=True)
FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed")


# Sounds and files, made here so that no test trusts the code that it tests


def tones(seconds=0.5, rate=RATE, channels=1, seed=0):
    times = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal((len(times), channels)) * 0.05
    chord = sum(np.sin(2 * np.pi * hertz * times) for hertz in (110, 440, 1234.5)) * 0.2
    return (chord[:, None] + noise).astype(np.float32)


def mixed(*blocks):
    return np.concatenate(list(nat.downmix(blocks, RATE)))


def band_noise(seconds, rate, top, seed=0):
    """Noise and tones below `top` Hz only, faded in and out, so that no edge splashes."""
    count = int(seconds * rate)
    hertz = np.fft.rfftfreq(count, 1 / rate)
    random = np.random.default_rng(seed)
    spectrum = random.standard_normal(len(hertz)) + 1j * random.standard_normal(len(hertz))
    sound = np.fft.irfft(spectrum * ((hertz > 20) & (hertz < top)), count)
    times = np.arange(count) / rate
    sound = sound / np.abs(sound).max() + sum(
        np.sin(2 * np.pi * part * top * times) for part in (0.05, 0.3, 0.95)
    )
    return (sound * np.hanning(count) * 0.2).astype(np.float32)


def encode(sound, encoding):
    """PCM bytes of float sound, by another way than the decoder's."""
    flat = np.asarray(sound, np.float64).reshape(-1)
    if encoding[0] == "f":
        return flat.astype("<" + {"f32le": "f4", "f64le": "f8"}[encoding]).tobytes()
    bits = int("".join(filter(str.isdigit, encoding)))
    order = "big" if encoding.endswith("be") else "little"
    whole = np.clip(np.round(flat * 2 ** (bits - 1)), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    whole = [int(value) + (128 if encoding == "u8" else 0) for value in whole]
    return b"".join(v.to_bytes(bits // 8, order, signed=encoding != "u8") for v in whole)


def chunk(name, body, size=None):
    return (
        name
        + struct.pack("<I", len(body) if size is None else size)
        + body
        + b"\0" * (len(body) % 2)
    )


def wav(data, *, tag=1, channels=1, rate=RATE, bits=16, align=None, size=None, extra=b"", ext=None):
    align = channels * bits // 8 if align is None else align
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * align, align, bits)
    if ext is not None:
        fmt = struct.pack("<H", 0xFFFE) + fmt[2:]
        tail = bytes.fromhex("000000001000800000aa00389b71")
        fmt += struct.pack("<HHIH", 22, bits, 0, ext) + tail
    return b"RIFF\0\0\0\0WAVE" + extra + chunk(b"fmt ", fmt) + chunk(b"data", data, size)


def wav_file(folder, sound, name="a.wav", rate=RATE, **more):
    path = folder / name
    sound = np.asarray(sound)
    channels = sound.shape[1] if sound.ndim == 2 else 1
    path.write_bytes(wav(encode(sound, "s16le"), channels=channels, rate=rate, **more))
    return path


def hear(path, settings=SETTINGS):
    """All of a sound, and the Audio it came from."""
    with nat.open_audio(str(path), settings) as audio:
        blocks = list(audio)
    assert all(block.dtype == np.float32 and block.ndim == 1 for block in blocks)
    return np.concatenate(blocks), audio


def refusal(path, settings=SETTINGS, error=nat.AudioError):
    """The one line that an input is refused with."""
    with pytest.raises(error) as caught:
        hear(path, settings)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


class Stdin(io.BytesIO):
    """Bytes that arrive in pieces of a given size."""

    def __init__(self, data, piece):
        super().__init__(data)
        self.piece = piece

    def read1(self, size=-1):
        return self.read(min(size, self.piece) if size >= 0 else self.piece)


def pipe_in(monkeypatch, data, piece=65536):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=Stdin(data, piece)))


@pytest.fixture
def warnings_said(monkeypatch):
    said = []
    monkeypatch.setattr(nat, "warn", said.append)
    return said


@pytest.fixture
def temp_dir(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


# WAV


@pytest.mark.parametrize(
    "tag, bits, encoding",
    [(1, 8, "u8"), (1, 16, "s16le"), (1, 24, "s24le"), (1, 32, "s32le"), (3, 32, "f32le")]
    + [(3, 64, "f64le")],
)
@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_every_wav_width(tmp_path, tag, bits, encoding, extensible, channels):
    sound = tones(0.1, channels=channels)
    path = tmp_path / "a.wav"
    data = encode(sound, encoding)
    ext = tag if extensible else None
    path.write_bytes(wav(data, tag=tag, bits=bits, channels=channels, ext=ext))
    heard, audio = hear(path)
    step = 0 if tag == 3 else 2.0 ** -(bits - 1)
    np.testing.assert_allclose(heard, mixed(sound), atol=step + 1e-6, rtol=0)
    assert audio.source == nat.Source("a.wav", "audio", RATE, channels, len(sound) / RATE)


def test_wav_full_scale_is_exact(tmp_path):
    for bits, low, high in ((16, b"\0\x80", b"\xff\x7f"), (24, b"\0\0\x80", b"\xff\xff\x7f")):
        (tmp_path / "a.wav").write_bytes(wav(low + high, bits=bits))
        assert hear(tmp_path / "a.wav")[0].tolist() == [-1.0, 1 - 2.0 ** -(bits - 1)]
    (tmp_path / "a.wav").write_bytes(wav(b"\0\x80\xff\x80", bits=8))
    assert hear(tmp_path / "a.wav")[0].tolist() == [-1.0, 0.0, 127 / 128, 0.0]


def test_wav_with_32_channels(tmp_path):
    sound = tones(0.05, channels=32)
    heard, audio = hear(wav_file(tmp_path, sound))
    np.testing.assert_allclose(heard, mixed(sound), atol=1e-4)
    assert audio.source.channels == 32


def test_chunks_that_nobody_knows_are_skipped(tmp_path):
    sound = tones(0.1)
    odd = chunk(b"LIST", b"odd") + chunk(b"JUNK", bytes(70000))
    path = wav_file(tmp_path, sound, extra=odd)
    path.write_bytes(path.read_bytes() + chunk(b"LIST", b"INFO tags that are no sound"))
    assert len(hear(path)[0]) == len(sound)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000, 0x80000000])
def test_streaming_header_reads_to_the_end(tmp_path, monkeypatch, size):
    sound = tones(0.2)
    path = wav_file(tmp_path, sound, size=size)
    from_file = hear(path)[0]
    pipe_in(monkeypatch, path.read_bytes(), 999)
    from_pipe, audio = hear("-")
    assert len(from_file) == len(sound) and np.array_equal(from_file, from_pipe)
    assert audio.source.name == "stdin" and audio.source.duration is None


def test_truncated_wav(tmp_path, monkeypatch):
    path = wav_file(tmp_path, tones(1.0))
    path.write_bytes(path.read_bytes()[: 44 + RATE])
    words = "truncated: header promises 1.000 s, file holds 0.500 s"
    with pytest.raises(nat.AudioError, match=words):
        nat.open_audio(str(path), SETTINGS)  # before any of it is used
    pipe_in(monkeypatch, path.read_bytes())
    assert words in refusal("-")


@pytest.mark.parametrize(
    "lie, words",
    [
        ({"channels": 0, "align": 2}, "0 channels"),
        ({"channels": 65535, "align": 2}, "65535 channels"),
        ({"rate": 0}, "0 Hz"),
        ({"rate": 4000000000, "align": 0}, "4000000000 Hz"),
        ({"bits": 13}, "13-bit"),
        ({"bits": 64}, "64-bit"),
        ({"align": 3}, "frames of 3 bytes"),
    ],
)
def test_lying_wav_header(tmp_path, lie, words):
    lie = {"rate": RATE, **lie}
    if lie["rate"] > 2**31:
        data = bytearray(wav(bytes(100)))
        data[24:28] = struct.pack("<I", lie["rate"])
    else:
        data = wav(bytes(100), **lie)
    (tmp_path / "a.wav").write_bytes(data)
    assert words in refusal(tmp_path / "a.wav")


@pytest.mark.parametrize("cut", [13, 19, 24, 36, 40])
def test_wav_cut_inside_its_header(tmp_path, cut):
    (tmp_path / "a.wav").write_bytes(wav(bytes(100))[:cut])
    assert refusal(tmp_path / "a.wav").startswith(f"{tmp_path / 'a.wav'}: broken WAV")


def test_wav_is_the_same_with_and_without_packages(tmp_path):
    path = wav_file(tmp_path, tones(0.3, channels=2))
    (full, one), (bare, two) = hear(path), hear(path, NUMPY_ONLY)
    assert np.array_equal(full, bare) and one.sha256 == two.sha256


# Raw bytes


@pytest.mark.parametrize("encoding", nat.RAW_ENCODINGS)
def test_raw_encodings(tmp_path, encoding, warnings_said):
    sound = tones(0.1, channels=2)
    data = encode(sound, encoding)
    (tmp_path / "a.bin").write_bytes(data + b"\1")  # and a part of a frame
    settings = nat.Settings(raw=nat.RawFormat(encoding, RATE, 2))
    heard, audio = hear(tmp_path / "a.bin", settings)
    if encoding[0] == "f":
        step = 0
    else:
        step = 2.0 ** -(8 * len(data) // sound.size - 1)
    np.testing.assert_allclose(heard, mixed(sound), atol=step + 1e-6, rtol=0)
    assert audio.source.kind == "raw" and not warnings_said


ANY_BYTES = replace(SETTINGS, any_bytes=True)  # as the command line has it


@pytest.mark.parametrize(
    "data, words",
    [(b"MThd\0\0\0\6\0\0" + bytes(99), "MIDI holds notes"), (b"a list\n" * 300, "text"),
     (("\u00e9\u4e2d" * 999)[:2000].encode(), "text"), (bytes(range(256)), "no known sound"),
     (b"text\0" * 99, "no known sound"), (bytes(range(120, 140)) * 50, "no known sound")],
)  # fmt: skip
def test_bytes_that_are_no_sound_are_heard_and_called_by_their_kind(
    tmp_path, warnings_said, data, words
):
    (tmp_path / "a.bin").write_bytes(data)
    assert len(hear(tmp_path / "a.bin", ANY_BYTES)[0]) == len(data)
    assert len(warnings_said) == 1 and f"a.bin: {words}" in warnings_said[0]
    assert "heard as raw bytes, u8, 22050 Hz" in warnings_said[0]


def test_unknown_bytes_are_no_sound_unless_asked_for(tmp_path, warnings_said):
    (tmp_path / "page.html").write_bytes(b"<html>404 Not Found</html>" * 50)
    words = refusal(tmp_path / "page.html")
    assert "no known sound format" in words and "Settings(raw=" in words and not warnings_said


def test_unknown_bytes_are_raw_and_said_once(tmp_path, warnings_said):
    data = b"Any text is 8-bit sound to an ear that has no eye. " * 50
    (tmp_path / "a.txt").write_bytes(data)
    heard, audio = hear(tmp_path / "a.txt", ANY_BYTES)
    assert heard.tolist() == [(byte - 128) / 128 for byte in data]
    assert audio.source[:4] == ("a.txt", "raw", 22050, 1)
    assert len(warnings_said) == 1 and "a.txt" in warnings_said[0] and "--raw" in warnings_said[0]


def test_raw_setting_wins_over_magic(tmp_path):
    path = wav_file(tmp_path, tones(0.1))
    settings = nat.Settings(raw=nat.RawFormat("u8", RATE, 1))
    heard, _ = hear(path, settings)
    assert len(heard) == path.stat().st_size and heard[0] == (ord("R") - 128) / 128


def test_lone_sync_word_is_not_mp3(tmp_path, warnings_said):
    (tmp_path / "a.bin").write_bytes(b"\xff\xfb\x90\x00" + bytes(range(256)) * 20)
    assert hear(tmp_path / "a.bin", ANY_BYTES)[1].source.kind == "raw"


def test_audio_extension_without_sound_is_refused(tmp_path):
    (tmp_path / "a.mp3").write_bytes(bytes(range(256)) * 40)
    assert "--raw" in refusal(tmp_path / "a.mp3")
    assert "--raw" in refusal(tmp_path / "a.mp3", NUMPY_ONLY)


@pytest.mark.parametrize(
    "raw", [nat.RawFormat("u9"), nat.RawFormat("u8", 10), nat.RawFormat("u8", RATE, 0)]
)
def test_impossible_raw_formats(tmp_path, raw):
    (tmp_path / "a.bin").write_bytes(bytes(100))
    refusal(tmp_path / "a.bin", nat.Settings(raw=raw), nat.TokenizerError)


# What cannot be heard


def test_no_file(tmp_path):
    path = tmp_path / "deep" / "none.wav"
    assert refusal(path) == f"{path}: no such file; check the path"
    url = "https://example.org/a.wav"
    assert refusal(url) == f"{url}: no such file; a URL: download it first"


def test_directory(tmp_path):
    (tmp_path / "my songs").mkdir()
    words = "is a folder; name files in it (--recursive hears all its sounds)"
    assert refusal(tmp_path / "my songs") == f"{tmp_path / 'my songs'}: {words}"


def test_empty_file(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"")
    assert "empty" in refusal(tmp_path / "a.wav")


def test_wav_without_samples(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(b""))
    assert "no samples" in refusal(tmp_path / "a.wav")


def test_null_byte_in_path():
    assert "path" in refusal("a\0b.wav")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_fifo(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "pipe it through -" in refusal(tmp_path / "pipe")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_unreadable(tmp_path):
    path = wav_file(tmp_path, tones(0.1))
    path.chmod(0)
    assert "cannot be read" in refusal(path)


def test_errors_while_reading_are_audio_errors(monkeypatch):
    class Broken(Stdin):
        def read1(self, size=-1):
            if self.tell() > 1000:
                raise OSError(5, "Input/output error")
            return super().read1(size)

    stdin = types.SimpleNamespace(buffer=Broken(wav(bytes(9000)), 500))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert "Input/output error" in refusal("-")


def test_closed_stdin(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert refusal("-").startswith("stdin: is closed")


# Values


def test_not_finite_samples_are_silenced_and_counted(tmp_path, warnings_said):
    sound = tones(0.5)[:, 0]
    sound[[3, 5000]] = np.nan, -np.inf
    (tmp_path / "a.wav").write_bytes(wav(sound.tobytes(), tag=3, bits=32))
    heard, audio = hear(tmp_path / "a.wav")
    sound[[3, 5000]] = 0
    assert np.array_equal(heard, sound)
    assert warnings_said == [f"{tmp_path / 'a.wav'}: 2 samples were not finite and were read as 0"]
    assert audio.sha256 == hashlib.sha256(sound.tobytes()).hexdigest()


def test_nothing_finite_is_an_error(tmp_path):
    sound = np.full(100, np.nan, "<f4")
    (tmp_path / "a.wav").write_bytes(wav(sound.tobytes(), tag=3, bits=32))
    assert "finite" in refusal(tmp_path / "a.wav")


def test_absurd_values_are_clipped(tmp_path, warnings_said):
    sound = np.array([0.5, 1e30, -1e300, 2.0, 1e5], "<f8")
    (tmp_path / "a.wav").write_bytes(wav(sound.tobytes(), tag=3, bits=64))
    heard, _ = hear(tmp_path / "a.wav")
    assert heard.tolist() == [0.5, nat.LOUDEST, 0.0, 2.0, nat.LOUDEST]
    assert len(warnings_said) == 2


def test_digest_is_of_samples_before_downmix(tmp_path):
    sound = tones(0.3, rate=44100, channels=2)
    data = encode(sound, "s16le")
    path = tmp_path / "a.wav"
    path.write_bytes(wav(data, channels=2, rate=44100))
    samples = np.frombuffer(data, "<i2").astype("<f4") / 32768
    assert hear(path)[1].sha256 == hashlib.sha256(samples.tobytes()).hexdigest()


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_downmix_of_channels_alike_is_any_of_them(channels):
    sound = tones(0.5, channels=1)
    np.testing.assert_allclose(
        mixed(np.repeat(sound, channels, axis=1)), sound[:, 0], rtol=3e-7 * (channels > 2)
    )


@pytest.mark.parametrize("channels", [2, 3, 6])
def test_downmix_is_blind_to_blocks(channels):
    block = tones(0.5, channels=channels) * np.linspace(0.2, 1, channels, dtype=np.float32)
    whole = mixed(block)
    assert len(whole) == len(block) and whole.dtype == np.float32
    np.testing.assert_array_equal(mixed(*np.array_split(block, 37)), whole)


@pytest.mark.parametrize("turn", [0, 60, 90, 120, 179, 180])
def test_downmix_keeps_the_power_of_the_channels(turn):
    at = 2 * np.pi * 440 * np.arange(22050) / 22050
    block = np.stack([np.sin(at), 0.7 * np.sin(at + np.radians(turn))], axis=1)
    mono, wanted = mixed(block.astype(np.float32)), np.mean(block**2)
    assert 10 * np.log10(np.mean(mono**2) / wanted) == pytest.approx(0, abs=0.3)


def test_what_is_opposite_in_the_channels_is_heard(tmp_path):
    sound = tones(1.0)[:, :1]
    opposite = wav_file(tmp_path, np.concatenate([sound, -sound], axis=1))
    assert np.abs(hear(opposite)[0]).max() == pytest.approx(np.abs(sound).max(), rel=0.05)


@pytest.mark.parametrize("before", [0.0, 1e-30, 1e-3])
@pytest.mark.parametrize("signs", [(1, 1), (1, -1)])
def test_what_begins_after_silence_or_soft_sound_keeps_its_power(before, signs):
    sound = tones(1.0)[:, 0] * (np.arange(RATE) >= 6000)
    block = np.stack([sound * signs[0], sound * signs[1]], axis=1)
    # What came before is opposite where the sound is not, and the other way round.
    block[:6000] = before * np.array([signs[0], -signs[1]])
    mono = mixed(block.astype(np.float32))
    assert np.abs(mono).max() < 1.3 * np.abs(sound).max()
    for part in (slice(6000, 7500), slice(12000, None)):
        power = np.mean(mono[part] ** 2) / np.mean(sound[part] ** 2)
        assert 10 * np.log10(power) == pytest.approx(0, abs=1)


def test_channels_do_not_change_on_the_way():
    with pytest.raises(nat.AudioError, match="from 2 to 1 channels"):
        mixed(tones(0.1, channels=2), tones(0.1))


def test_silence_between_channels_stays_silence():
    assert not mixed(np.zeros((5000, 2), np.float32)).any()


def test_max_duration(tmp_path, monkeypatch):
    path = wav_file(tmp_path, tones(1.0))
    short = replace(SETTINGS, max_duration=0.9)
    assert "longer than 0.9 s; --max-duration raises the limit" in refusal(path, short)
    pipe_in(monkeypatch, path.read_bytes(), 2000)
    taken = 0
    with pytest.raises(nat.AudioError, match="--max-duration"):
        with nat.open_audio("-", short) as audio:
            for block in audio:
                taken += len(block)
    assert 0 < taken <= 0.9 * RATE
    assert len(hear(path, replace(SETTINGS, max_duration=1.0))[0]) == RATE


# Blocks


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
@pytest.mark.parametrize("channels", [None, 2])
def test_rechunk(size, channels):
    shape = (1234,) if channels is None else (1234, channels)
    sound = np.random.default_rng(1).standard_normal(shape)
    cuts = [0, 1, 1, 5, 150, 151, 700, 1233]
    blocks = list(nat.rechunk(iter(np.split(sound, cuts)), size))
    assert [len(b) for b in blocks[:-1]] == [size] * (len(blocks) - 1)
    assert 0 < len(blocks[-1]) <= size
    assert np.array_equal(np.concatenate(blocks), sound)
    assert list(nat.rechunk(iter([]), size)) == []


@pytest.mark.parametrize("settings", [SETTINGS, NUMPY_ONLY], ids=["best", "numpy"])
@pytest.mark.parametrize("rate", [RATE, 8000, 44100, 44099])
def test_blocks_of_any_size_give_the_same_bytes(tmp_path, monkeypatch, rate, settings):
    path = wav_file(tmp_path, tones(0.7, rate=rate, channels=2), rate=rate)
    whole, audio = hear(path, settings)
    for piece in (37, 1001, 1 << 20):
        pipe_in(monkeypatch, path.read_bytes(), piece)
        heard, piped = hear("-", settings)
        assert np.array_equal(heard, whole) and piped.sha256 == audio.sha256


def test_file_blocks_are_about_a_second(tmp_path):
    path = wav_file(tmp_path, tones(2.5, rate=8000), rate=8000)
    with nat.open_audio(str(path), SETTINGS) as audio:
        assert [len(block) for block in audio] == [RATE, RATE, RATE // 2]


def test_live_sound_is_handed_on_as_it_comes(monkeypatch):
    reader, writer = os.pipe()
    data = wav(encode(tones(0.1), "s16le"), size=0xFFFFFFFF)
    with open(reader, "rb") as stdin, open(writer, "wb", buffering=0) as source:
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=stdin))
        source.write(data[:1044])
        heard = []
        with nat.open_audio("-", SETTINGS) as audio:
            # the pipe is still open, and only 500 samples are in it
            worker = threading.Thread(target=lambda: heard.append(next(audio._blocks)))
            worker.start()
            worker.join(5)
            stuck = worker.is_alive()
            source.write(data[1044:])
            source.close()
            worker.join(5)
            rest = list(audio)
    assert not stuck and len(heard[0]) == 500
    assert 500 + sum(map(len, rest)) == int(0.1 * RATE)


def test_memory_is_flat(tmp_path):
    tracemalloc = pytest.importorskip("tracemalloc")
    path = wav_file(tmp_path, np.zeros((1, 1)), size=0)
    with open(path, "ab") as file:
        file.write(bytes(2 * 60 * 44100))
    tracemalloc.start()
    with nat.open_audio(str(path), SETTINGS) as audio:
        assert sum(map(len, audio)) == 60 * 44100 + 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6


# Resampling


RATES = [1000, 8000, 11025, 16000, 44100, 48000, 96000, 192000, 22051, 44099, 12345]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("settings", [SETTINGS, NUMPY_ONLY], ids=["best", "numpy"])
@pytest.mark.parametrize("count", [1, 5, 997])
def test_resampled_length(rate, settings, count):
    blocks = nat.resample(iter([np.ones(count, np.float32)]), rate, settings=settings)
    assert sum(map(len, blocks)) == -(-count * RATE // rate)


@pytest.mark.parametrize("rate", RATES)
def test_numpy_resampler_keeps_time_level_and_pitch(rate):
    top = 0.88 * min(rate, RATE) / 2
    for hertz in (0.1 * top, top):
        tone = np.sin(2 * np.pi * hertz * np.arange(rate) / rate).astype(np.float32)
        heard = np.concatenate(list(nat.resample(iter([tone]), rate, settings=NUMPY_ONLY)))
        ideal = np.sin(2 * np.pi * hertz * np.arange(len(heard)) / RATE)
        middle = slice(RATE // 5, -RATE // 5)
        assert np.abs(heard - ideal)[middle].max() < 1e-5  # -100 dB


@pytest.mark.parametrize("rate", [44100, 48000, 192000, 44099])
def test_numpy_resampler_stops_what_would_alias(rate):
    tone = np.sin(2 * np.pi * 11200 * np.arange(rate) / rate).astype(np.float32)
    heard = np.concatenate(list(nat.resample(iter([tone]), rate, settings=NUMPY_ONLY)))
    assert np.abs(heard[RATE // 5 : -RATE // 5]).max() < 1e-5


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000, 96000, 44099])
def test_both_resamplers_agree(rate):
    pytest.importorskip("soxr", reason="soxr is not installed")
    sound = band_noise(2, rate, 0.75 * min(rate, RATE) / 2)
    best, bare = (
        np.concatenate(list(nat.resample(iter([sound]), rate, settings=settings)))
        for settings in (SETTINGS, NUMPY_ONLY)
    )
    assert len(best) == len(bare)
    error = np.sqrt(np.mean((best - bare) ** 2) / np.mean(best**2))
    assert 20 * np.log10(error) < -90


def test_equal_rates_pass_untouched(tmp_path):
    data = encode(tones(0.2), "s16le")
    (tmp_path / "a.wav").write_bytes(wav(data))
    heard, _ = hear(tmp_path / "a.wav")
    assert np.array_equal(heard, np.frombuffer(data, "<i2").astype(np.float32) / 32768)


# Other decoders


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3", "a.aiff", "a.caf", "a.au", "a.w64"])
def test_soundfile_formats_by_file_and_pipe(tmp_path, monkeypatch, temp_dir, name):
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    if name[2:].upper() not in soundfile.available_formats():
        pytest.skip(f"this libsndfile has no {name[2:]}")
    sound = tones(1.0, channels=2)
    soundfile.write(str(tmp_path / name), sound, RATE)
    (tmp_path / name).rename(tmp_path / "a.raw")  # the bytes decide, not the name
    heard, audio = hear(tmp_path / "a.raw")
    lossy = name in ("a.ogg", "a.mp3")
    assert abs(len(heard) - RATE) <= (3000 if lossy else 0)
    assert audio.source.duration == pytest.approx(1.0, abs=0.15)
    count = min(len(heard), RATE)
    np.testing.assert_allclose(heard[:count], mixed(sound)[:count], atol=0.2 if lossy else 2e-4)
    pipe_in(monkeypatch, (tmp_path / "a.raw").read_bytes())
    piped, _ = hear("-")
    assert np.array_equal(piped, heard) and not list(temp_dir.iterdir())


def test_spooled_pipe_is_removed_whatever_happens(tmp_path, monkeypatch, temp_dir):
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    soundfile.write(str(tmp_path / "a.flac"), tones(3.0), RATE)
    data = (tmp_path / "a.flac").read_bytes()
    pipe_in(monkeypatch, data)
    nat.open_audio("-", SETTINGS).close()  # never started
    assert not list(temp_dir.iterdir())
    pipe_in(monkeypatch, data)
    audio = nat.open_audio("-", SETTINGS)
    next(iter(audio))
    assert list(temp_dir.iterdir())
    audio.close()
    assert not list(temp_dir.iterdir()) and list(audio) == []
    pipe_in(monkeypatch, data)
    audio = nat.open_audio("-", SETTINGS)
    del audio  # forgotten
    assert not list(temp_dir.iterdir())
    pipe_in(monkeypatch, data[: len(data) // 2])
    refusal("-")
    assert not list(temp_dir.iterdir())


@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_truncated_and_broken_compressed_files(tmp_path, name):
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    if name[2:].upper() not in soundfile.available_formats():
        pytest.skip(f"this libsndfile has no {name[2:]}")
    path = tmp_path / name
    soundfile.write(str(path), tones(3.0), RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refusal(path)


def test_known_magic_that_does_not_decode_is_no_noise(tmp_path):
    (tmp_path / "a").write_bytes(b"fLaC\0" + bytes(range(200)) * 10)
    refusal(tmp_path / "a", error=(nat.AudioError, nat.MissingError))


def test_without_any_decoder(tmp_path, monkeypatch):
    monkeypatch.setattr(nat.shutil, "which", lambda name: None)
    (tmp_path / "a.flac").write_bytes(b"fLaC\0" + bytes(500))
    words = refusal(tmp_path / "a.flac", NUMPY_ONLY, nat.MissingError)
    assert "pip install soundfile" in words and "ffmpeg" in words
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500))
    assert "ffmpeg" in refusal(tmp_path / "a.m4a", SETTINGS, nat.MissingError)


def convert(tmp_path, name, *options, sound=None):
    source = wav_file(tmp_path, tones(1.0, channels=2) if sound is None else sound, "source.wav")
    target = tmp_path / name
    command = [FFMPEG, "-nostdin", "-v", "error", "-i", str(source), *options]
    done = subprocess.run([*command, "file:" + str(target)], check=False)
    if done.returncode:
        pytest.skip(f"this ffmpeg cannot write {name}")
    return target


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.m4a", "a.mkv", "a.wma", "a.webm", "a.ts", "a.aac", "a.mov"])
def test_ffmpeg_formats(tmp_path, monkeypatch, temp_dir, name, warnings_said):
    options = ("-c:a", "libopus") if name == "a.webm" else ("-metadata", "title=Obey")
    path = convert(tmp_path, name, *options)
    heard, audio = hear(path)
    assert len(heard) / RATE == pytest.approx(1.0, abs=0.15)
    assert audio.source.channels == 2 and audio.source.duration is None
    assert 0.1 < np.std(heard) < 0.4 and not warnings_said
    pipe_in(monkeypatch, path.read_bytes())
    assert np.array_equal(hear("-")[0], heard) and not list(temp_dir.iterdir())


@needs_ffmpeg
def test_names_that_look_like_options_or_protocols(tmp_path, monkeypatch):
    path = convert(tmp_path, "a.m4a")
    monkeypatch.chdir(tmp_path)
    for name in ("-y.m4a", "concat:a.m4a", "https:x.m4a"):
        shutil.copy(path, tmp_path / name)
        assert len(hear(name)[0]) > RATE // 2


@needs_ffmpeg
def test_ffmpeg_failure_is_one_line(tmp_path):
    path = convert(tmp_path, "a.m4a")
    path.write_bytes(path.read_bytes()[:3000])
    words = refusal(path)
    assert words.startswith(f"{path}: cannot be decoded by ffmpeg (")
    assert words.count(str(tmp_path)) == 1


@needs_ffmpeg
def test_ffmpeg_is_reaped_on_close(tmp_path, monkeypatch):
    started = []
    popen = subprocess.Popen

    def spy(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        return started[-1]

    path = convert(tmp_path, "a.mkv", sound=np.tile(tones(1.0), (60, 1)))
    monkeypatch.setattr(nat.subprocess, "Popen", spy)
    audio = nat.open_audio(str(path), SETTINGS)
    next(iter(audio))
    audio.close()
    assert started[0].returncode is not None


@needs_ffmpeg
def test_flac_without_soundfile_goes_to_ffmpeg_and_says_so(tmp_path, warnings_said):
    path = convert(tmp_path, "a.flac")
    heard, _ = hear(path, NUMPY_ONLY)
    assert len(warnings_said) == 1 and "ffmpeg" in warnings_said[0]
    assert np.array_equal(heard, hear(tmp_path / "source.wav", NUMPY_ONLY)[0])


@needs_ffmpeg
def test_flac_of_unknown_length(tmp_path):
    pytest.importorskip("soundfile", reason="soundfile is not installed")
    path = wav_file(tmp_path, tones(1.0, channels=2))
    command = [FFMPEG, "-nostdin", "-v", "error", "-i", str(path), "-f", "flac", "pipe:1"]
    flac = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    (tmp_path / "a.flac").write_bytes(flac)
    heard, audio = hear(tmp_path / "a.flac")
    assert audio.source.duration is None and np.array_equal(heard, hear(path)[0])


@needs_ffmpeg
def test_mu_law_wav(tmp_path, monkeypatch, warnings_said):
    path = convert(tmp_path, "a.wav", "-c:a", "pcm_mulaw")
    heard, _ = hear(path)
    np.testing.assert_allclose(heard, hear(tmp_path / "source.wav")[0], atol=0.02)
    pipe_in(monkeypatch, path.read_bytes(), 100)
    assert np.array_equal(hear("-")[0], heard)


# Names


@pytest.mark.parametrize(
    "name, shown",
    [
        ("plain song.wav", "plain song.wav"),
        ("a\x1b[31m\n\x7f\u202eb.wav", "a[31mb.wav"),
        ("caf\u00e9 \u97f3.wav", "caf\u00e9 \u97f3.wav"),
        ("bad\udcff\udc80.wav", "bad\ufffd\ufffd.wav"),
        ("x" * 200 + ".wav", "x" * 120),
    ],
)
def test_names_are_made_harmless(tmp_path, name, shown):
    path = os.path.join(str(tmp_path), name)
    try:
        with open(path, "wb") as file:
            file.write(wav(bytes(100)))
    except OSError:
        pytest.skip("this file system refuses the name")
    source = hear(path)[1].source
    assert source.name == shown
    source.name.encode("utf-8")


def test_stdin_of_a_real_process(tmp_path):
    path = wav_file(tmp_path, tones(0.5))
    code = (
        "import neural_audio_tokenizer as nat\n"
        "audio = nat.open_audio('-', nat.Settings())\n"
        "print(sum(map(len, audio)), audio.sha256)"
    )
    folder = os.path.dirname(nat.__file__)
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=path.read_bytes(),
        capture_output=True,
        cwd=folder,
        timeout=60,
        check=True,
    )
    assert done.stdout.decode().split() == [str(RATE // 2), hear(path)[1].sha256]


def test_speed_of_plain_wav(tmp_path):
    path = wav_file(tmp_path, np.zeros((1, 1)), size=0)
    with open(path, "ab") as file:
        file.write(np.random.default_rng(0).bytes(2 * RATE * 120))
    started = time.perf_counter()
    hear(path)
    assert time.perf_counter() - started < 2  # 60 times realtime, on the slowest machine


@pytest.mark.parametrize("kind", [("AIFF", "PCM_16"), ("OGG", "VORBIS")])
def test_a_cut_file_is_an_error_where_decoders_would_not_say_so(tmp_path, kind):
    soundfile = pytest.importorskip("soundfile", reason="soundfile writes the file")
    path = tmp_path / "a.bin"
    noise = 0.1 * np.random.RandomState(0).standard_normal(44100)
    soundfile.write(path, noise, 22050, format=kind[0], subtype=kind[1])
    with nat.open_audio(str(path), nat.Settings()) as audio:
        assert sum(map(len, audio)) >= 44100
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(nat.AudioError, match="truncated"):
        nat.open_audio(str(path), nat.Settings())
