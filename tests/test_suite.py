"""The ear-training suite: reproducible, long, and wide in level, pitch and kind."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import neural_audio_tokenizer as nat

RATE = 8000  # quick to make; the table and the dice are the same at every rate
SEED = 12342


@pytest.fixture(scope="module")
def pieces() -> list[np.ndarray]:
    return list(nat.ear_training_suite(RATE, SEED))


def some(rate: int, seed: int, count: int = 4) -> list[np.ndarray]:
    return list(itertools.islice(nat.ear_training_suite(rate, seed), count))


def test_is_long_and_in_many_pieces(pieces: list[np.ndarray]) -> None:
    minutes = sum(len(piece) for piece in pieces) / RATE / 60
    assert 16 <= minutes <= 19
    assert 350 <= len(pieces) <= 500
    assert all(1.7 <= len(piece) / RATE <= 5.1 for piece in pieces)


def test_is_mono_float32_on_the_16_bit_grid_within_full_scale(pieces: list[np.ndarray]) -> None:
    for piece in pieces:
        assert piece.ndim == 1 and piece.dtype == np.float32
        assert np.isfinite(piece).all() and np.abs(piece).max() <= 1
        assert (piece * 32768 == np.round(piece * 32768)).all()


def test_same_seed_makes_the_same_samples(pieces: list[np.ndarray]) -> None:
    for before, after in zip(pieces, some(RATE, SEED)):
        assert np.array_equal(before, after)


def test_another_seed_makes_other_pieces(pieces: list[np.ndarray]) -> None:
    loud = {piece.tobytes() for piece in pieces if piece.any()}
    other = [piece for piece in some(RATE, SEED + 1, 25) if piece.any()]
    assert not any(piece.tobytes() in loud for piece in other)


def test_no_piece_comes_twice(pieces: list[np.ndarray]) -> None:
    loud = [piece.tobytes() for piece in pieces if piece.any()]
    assert len(set(loud)) == len(loud)


def test_levels_are_spread_from_silence_to_loud(pieces: list[np.ndarray]) -> None:
    rms = np.array([np.sqrt(np.mean(np.square(piece, dtype=np.float64))) for piece in pieces])
    levels = 20 * np.log10(rms + 1e-7)
    assert levels.min() < -90 and levels.max() > -11.5
    low, middle, high = np.percentile(levels, (10, 50, 90))
    assert low < -36 and -32 < middle < -20 and high > -16


def test_every_pitch_class_sounds_often(pieces: list[np.ndarray]) -> None:
    sound = np.concatenate(pieces)
    frames = sound[: len(sound) // 4096 * 4096].reshape(-1, 4096) * np.hanning(4096)
    hz = np.fft.rfftfreq(4096, 1 / RATE)
    power = np.square(np.abs(np.fft.rfft(frames))) * (hz > 100)
    best, total = power.max(axis=1), power.sum(axis=1)
    peaks = hz[power.argmax(axis=1)[best > 0.1 * total]]  # frames with a clear pitch
    classes = np.round(12 * np.log2(peaks / 27.5)).astype(int) % 12
    assert np.bincount(classes, minlength=12).min() >= 0.03 * len(classes)


def test_keyboard_walks_all_88_keys_several_times() -> None:
    count = next(kind.count for kind in nat.SUITE if kind.piece is nat.keyboard)
    visits = np.bincount([37 * turn % 88 for turn in range(6 * count)], minlength=88)
    assert visits.min() >= 4


def test_the_table_gives_bands_and_single_sources_their_share() -> None:
    seconds = {kind: kind.count * sum(kind.seconds) / 2 for kind in nat.SUITE}
    name = {kind: getattr(kind.piece, "func", kind.piece).__name__ for kind in nat.SUITE}
    band = sum(
        seconds[kind]
        for kind in nat.SUITE
        if getattr(kind.piece, "keywords", {}).get("parts") == "drums bass chords lead"
    )
    alone = {"keyboard", "solo", "hits", "alarm", "speech", "coloured", "wind", "sea", "drops"}
    single = sum(seconds[kind] for kind in nat.SUITE if name[kind] in alone | {"motor", "hum"})
    assert band >= 0.15 * sum(seconds.values())
    assert single >= 0.40 * sum(seconds.values())


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
def test_any_rate_makes_the_same_pieces_of_the_same_length(rate: int) -> None:
    for piece, known in zip(some(rate, SEED), some(RATE, SEED)):
        assert np.isfinite(piece).all()
        assert len(piece) / rate == pytest.approx(len(known) / RATE, abs=1e-3)


@pytest.mark.parametrize("instrument", range(len(nat.INSTRUMENTS)))
def test_an_instrument_is_in_tune(instrument: int) -> None:
    take = nat.Take(np.random.RandomState(7), 22050, 0.8)
    spectrum = np.abs(np.fft.rfft(nat.INSTRUMENTS[instrument](take, 440.0), 2**17))
    hz = np.fft.rfftfreq(2**17, 1 / 22050)
    ratio = hz[spectrum.argmax()] / 220.0
    bells = nat.INSTRUMENTS[instrument] in (nat.struck, nat.chime)
    assert bells or abs(ratio - round(ratio)) < 0.03 * ratio
