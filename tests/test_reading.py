"""Section 10: glosses say what was measured, in the units of musicians and engineers."""

from __future__ import annotations

import re

import numpy as np
import pytest
from conftest import RATE, analyse, chord, clicks, noise, note_hz, tone

import neural_audio_tokenizer as nat


def row_of(sound, inner=slice(40, -40)):
    """Mean descriptors of the inside of a sound."""
    return nat.describe(analyse(sound))[inner].mean(axis=0)


@pytest.mark.parametrize(
    "midi, name", [(69, "A4"), (60, "C4"), (61, "C#4"), (59.4, "B3"), (28, "E1"), (99, "D#7")]
)
def test_note_names(midi, name):
    assert nat.note_name(midi) == name


@pytest.mark.parametrize(
    "hz, words", [(440, "440 Hz"), (999, "999 Hz"), (1000, "1.0 kHz"), (12345, "12.3 kHz")]
)
def test_hertz_are_written_as_an_engineer_does(hz, words):
    assert nat.hertz_words(hz) == words


def test_descriptors_have_a_column_each(example):
    rows = nat.describe(analyse(example[:60000]))
    assert rows.shape == (118, nat.NUM_DESCRIPTORS) and rows.dtype == np.float32
    assert np.isfinite(rows).all()
    shares = rows[:, nat.INDEX["low"] : nat.INDEX["air"] + 1]
    assert shares.sum(axis=1) == pytest.approx(np.ones(118), abs=1e-5)


@pytest.mark.parametrize("level", [-12, -34])
def test_level_is_said_in_decibels(level):
    assert nat.level_words(row_of(tone(300.0, 3.0, level))) == f"{level} dB"


def test_silence_is_called_silence():
    assert nat.level_words(row_of(np.zeros(3 * RATE, np.float32))) == "silence"


@pytest.mark.parametrize("midi", [45, 57, 69, 84])
def test_a_note_is_named(midi):
    row = row_of(tone(note_hz(midi), 3.0, partials=5))
    octaves = {nat.note_name(midi), nat.note_name(midi + 12)}  # partials may speak for the upper
    assert nat.note_name(midi) in nat.note_words(row).split("+")
    assert set(nat.note_words(row).split("+")) <= octaves
    assert nat.class_words(row) == nat.PITCH_CLASSES[midi % 12]
    assert nat.texture_words(row) == "tonal"


@pytest.mark.parametrize("notes", [(60, 64, 67), (57, 60, 64)])
def test_a_chord_is_named_from_the_bottom_up(notes):
    row = row_of(chord(notes, 3.0))
    assert nat.note_words(row) == "+".join(map(nat.note_name, notes))
    classes = {nat.PITCH_CLASSES[note % 12] for note in notes}
    assert classes <= set(nat.class_words(row).split())


def test_noise_is_called_noise():
    assert nat.texture_words(row_of(noise(3.0))) == "noise"


def test_noise_has_no_pitch():
    row = row_of(noise(3.0))
    assert nat.note_words(row) == "unpitched" and nat.class_words(row) == "no harmony"


@pytest.mark.parametrize(
    "hz, band", [(80, "sub-bass"), (300, "bass"), (1000, "mids"), (3000, "highs"), (8000, "air")]
)
def test_the_band_with_most_power_is_named(hz, band):
    words = nat.band_words(row_of(tone(float(hz), 3.0)))
    share = int(re.search(r"(\d+)%", words)[1])
    assert words.startswith(f"{band} ") and share > 90


@pytest.mark.parametrize("period", [0.25, 0.5])
def test_a_pulse_is_said_with_its_rate(period):
    words = nat.pulse_words(row_of(clicks(period, 9.0), slice(170, -170)))
    assert float(words.split()[0]) == pytest.approx(1 / period, rel=0.15)
    assert "period" in words


def test_no_onsets_no_pulse():
    assert nat.pulse_words(row_of(tone(440.0, 8.0), slice(170, -170))) == "no onsets"


def test_change_is_attack_decay_or_steady():
    sound = np.zeros(2 * RATE, np.float32)
    sound[RATE:] = noise(1.0, -12.0)
    rows = nat.describe(analyse(sound))
    at = RATE // 512
    words = [nat.change_words(row) for row in rows]
    assert any(text.startswith("attack +") for text in words[at - 3 : at + 3])
    assert any(text.startswith("decay -") for text in words[-4:])
    assert words[at // 2] == words[at + 20] == "steady"


def test_contrast_names_what_differs_most():
    mean, deviation = np.zeros(nat.NUM_DESCRIPTORS), np.ones(nat.NUM_DESCRIPTORS)
    row = mean.copy()
    row[nat.INDEX["centroid"]], row[nat.INDEX["onset_rate"]] = -3.0, 2.0
    assert nat.contrast_words(row, mean, deviation) == "darker, busier"


def test_every_code_of_every_layer_has_a_short_gloss(tokenizer):
    gloss = nat.gloss_table(tokenizer.trained)
    for layer in range(8):
        texts = [gloss(layer, code) for code in range(1000)]
        assert all(text and "nan" not in text and len(text) <= 80 for text in texts)
        assert all(text.isprintable() for text in texts)
        assert len(set(texts)) >= 20


@pytest.mark.parametrize("midi", [57, 69])
def test_the_code_of_a_note_reads_as_that_note(tokenizer, midi):
    codes = tokenizer.encode(tone(note_hz(midi), 3.0, partials=5)).array
    gloss = nat.gloss_table(tokenizer.trained)
    common = np.bincount(codes[40:-40, 5]).argmax()
    assert nat.note_name(midi) in gloss(5, int(common)).split("+")


def test_the_code_of_a_level_reads_as_that_level(tokenizer):
    gloss = nat.gloss_table(tokenizer.trained)
    for level in (-15.0, -40.0):
        code = int(np.bincount(tokenizer.encode(noise(3.0, level)).array[40:-40, 4]).argmax())
        assert float(gloss(4, code).split()[0]) == pytest.approx(level, abs=5)
    silent = int(tokenizer.encode(np.zeros(RATE, np.float32)).array[20, 4])
    assert gloss(4, silent).startswith("silence")


def test_runs_begin_where_a_code_changes():
    assert nat.run_starts(np.array([5, 5, 7, 7, 7, 5])).tolist() == [0, 2, 5]
    assert nat.run_starts(np.array([5])).tolist() == [0]


def test_vibrato_is_said_in_cents():
    times = np.arange(4 * RATE) / RATE
    swing = 40 * np.sin(2 * np.pi * 5.5 * times)  # cents
    phase = 2 * np.pi * np.cumsum(440 * 2 ** (swing / 1200)) / RATE
    row = row_of((0.2 * (np.sin(phase) + 0.4 * np.sin(2 * phase))).astype(np.float32))
    assert 20 < row[nat.INDEX["waver"]] < 36  # 40 / sqrt(2) and less, windows smooth it
    assert "wavers" in nat.timbre_words(row)
    assert "wavers" not in nat.timbre_words(row_of(tone(440.0, 3.0, partials=3)))


def test_odd_partials_are_told():
    times = np.arange(3 * RATE) / RATE
    odd = sum(np.sin(2 * np.pi * 300 * h * times) / h for h in (1, 3, 5, 7))
    assert "odd partials" in nat.timbre_words(row_of((0.2 * odd).astype(np.float32)))


def test_ends_and_sections_have_their_times(tokenizer):
    from test_view import view_of

    silence = np.zeros(RATE, np.float32)
    sound = np.concatenate([silence, tone(440.0, 2.0), silence])
    (ends,) = [o for o in nat.observe(view_of(sound, tokenizer)) if o.kind == "ends"]
    assert ends.time == pytest.approx(1.0, abs=0.08) and ends.duration == pytest.approx(
        2.0, abs=0.15
    )
