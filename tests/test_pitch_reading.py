"""Pitch side of the stated observations: lead, bass, key, chords, contour, timbre, sweeps, tones."""

from __future__ import annotations

import re

import numpy as np
import pytest

import neural_audio_tokenizer as nat

RATE, HOP = 22050, 512
FRAME_RATE = RATE / HOP
MELODY = [72, 74, 76, 77, 79, 79, 76, 72]  # C major, the G twice


def heard(sound: np.ndarray) -> nat.Spectra:
    analyzer = nat.Analyzer(RATE, HOP)
    return nat.join_rows([analyzer.push(sound), analyzer.flush()])


def hertz(midi: float) -> float:
    return 440 * 2 ** ((midi - 69) / 12)


def tone(midi: float, seconds: float, partials: dict[int, float], **shape: float) -> np.ndarray:
    """A note from partial gains; `attack` s, `fall` dB/s, `vibrato` Hz with `cents`."""
    time = np.arange(int(seconds * RATE)) / RATE
    sway = shape.get("cents", 0) / 1200 * np.sin(2 * np.pi * shape.get("vibrato", 5) * time)
    phase = 2 * np.pi * np.cumsum(hertz(midi) * 2**sway) / RATE
    wave = sum(gain * np.sin(h * phase + h) for h, gain in partials.items())
    ends = np.minimum(1, np.minimum(time / shape.get("attack", 0.005), (seconds - time) / 0.02))
    return wave * ends * 10 ** (-shape.get("fall", 0) * time / 20)


STRING = {h: 1 / h for h in range(1, 9)}
ODD = {1: 1.0, 3: 0.6, 5: 0.4, 7: 0.3, 2: 0.02, 4: 0.02}


def line(notes: list[int], partials: dict[int, float], **shape: float) -> np.ndarray:
    return np.concatenate([tone(midi, 0.5, partials, **shape) for midi in notes])


def over_drone(lead: np.ndarray, chord: tuple[int, ...], gain: float = 0.12) -> np.ndarray:
    seconds = len(lead) / RATE
    pad = sum(tone(midi, seconds + 0.01, {1: 1.0, 2: 0.3})[: len(lead)] for midi in chord)
    return 0.2 * (lead + gain * pad)


@pytest.fixture(scope="module")
def plucked() -> nat.Spectra:
    return heard(over_drone(line(MELODY, STRING, fall=20), (48, 52, 55)))


@pytest.fixture(scope="module")
def swaying() -> nat.Spectra:
    long = [tone(m, 1.4, STRING, attack=0.15, vibrato=5.5, cents=30) for m in (67, 69, 71, 72, 74)]
    return heard(over_drone(np.concatenate(long), (43, 47, 50)))


def test_a_melody_over_a_drone_is_read_note_by_note(plucked: nat.Spectra) -> None:
    notes = nat.foreground_notes(plucked, FRAME_RATE)
    assert [round(note.midi) for note in notes] == MELODY
    assert np.allclose([note.start for note in notes], 0.5 * np.arange(8), atol=0.08)
    assert all(note.confidence > 0.5 for note in notes)


def test_pitch_between_the_keys_is_measured() -> None:
    notes = nat.foreground_notes(heard(0.2 * line([69.3, 71.3, 73.3, 69.3], STRING)), FRAME_RATE)
    assert [note.midi for note in notes] == pytest.approx([69.3, 71.3, 73.3, 69.3], abs=0.06)


def test_the_bass_is_the_lowest_line() -> None:
    low, high = line([36, 41, 43, 36] * 2, STRING), line([72, 74, 76, 77] * 2, STRING)
    notes = nat.bass_notes(heard(0.1 * (low + high)), FRAME_RATE)
    assert [round(note.midi) for note in notes] == [36, 41, 43, 36] * 2


@pytest.mark.parametrize(("tonic", "third", "name"), [(0, 4, "C major"), (9, 3, "A minor")])
def test_the_key_is_the_drones(tonic: int, third: int, name: str) -> None:
    scale = [0, 2, third, 5, 7, 7, third, 0]
    lead = line([60 + tonic + step for step in scale], STRING, fall=10)
    spectra = heard(over_drone(lead, tuple(48 + tonic + k for k in (0, third, 7)), 0.3))
    key = nat.estimate_key(spectra, FRAME_RATE, start=0.0, stop=4.0)
    assert f"{key.tonic} {key.mode}" == name
    assert key.runner_up != name and 0 < key.confidence <= 1


def test_chords_are_named() -> None:
    triads = [(57, 60, 64), (53, 57, 60), (52, 56, 59, 62), (50, 53, 57)]
    parts = [sum(tone(m, 1.0, STRING) for m in (*chord, chord[0] - 12)) for chord in triads]
    spectra = heard(0.05 * np.concatenate(parts))
    chords = nat.estimate_chords(spectra, FRAME_RATE, [0, 1, 2, 3, 4])
    assert [chord.name for chord in chords] == ["Am", "F", "E7", "Dm"]
    assert [chord.start for chord in chords] == [0, 1, 2, 3]


def test_silence_has_no_chord_and_no_key() -> None:
    spectra = heard(np.zeros(2 * RATE))
    assert nat.estimate_chords(spectra, FRAME_RATE, [0, 2])[0].name == "N"
    assert nat.estimate_key(spectra, FRAME_RATE, start=0, stop=2).mode == "none"


@pytest.mark.parametrize(
    ("midi", "words"),
    [
        (list(range(60, 76)), "rising"),
        (list(range(76, 60, -1)), "falling"),
        ([*range(60, 72), *range(72, 60, -1)], "arch"),
        ([*range(72, 60, -1), *range(60, 72)], "valley"),
        ([60, 64, 67, 62] * 4, "repeating the same short figure (C4 E4 G4 D4)"),
        ([60] * 8, "one note"),
    ],
)
def test_contours_are_told_apart(midi: list[int], words: str) -> None:
    notes = [nat.Note(k * 0.5, 0.45, float(m), -20.0, 1.0) for k, m in enumerate(midi)]
    assert nat.line_contour(notes)[0].startswith(words)


def test_a_line_without_a_direction_has_no_contour() -> None:
    midi = [60, 67, 62, 66, 61, 69, 60, 65, 68, 61, 64, 60]
    notes = [nat.Note(k * 0.5, 0.45, float(m), -20.0, 1.0) for k, m in enumerate(midi)]
    assert nat.line_contour(notes) == ("", 0.0)


# One line alone, or several notes at once

BASS = {1: 0.3, **{h: 1 / h for h in range(2, 14)}}  # the fundamental is not the strongest
BASS_LINE = [40, 45, 50, 43, 40, 47, 45, 40, 38, 43, 45, 40]


def facts(sound: np.ndarray) -> dict[str, nat.Observation]:
    return {one.kind: one for one in nat.pitch_observations(heard(sound), FRAME_RATE)}


def test_a_bass_alone_is_a_line_at_its_own_pitch() -> None:
    found = facts(0.3 * line(BASS_LINE, BASS, fall=6))
    assert found["texture"].text.endswith("a single line alone")
    assert not {"chords", "drone", "bass"} & found.keys()
    rows = heard(0.3 * line(BASS_LINE, BASS, fall=6))
    notes = nat.foreground_notes(rows, FRAME_RATE)
    assert [round(note.midi) for note in notes] == BASS_LINE


def test_chords_and_a_melody_over_a_drone_are_no_single_line(plucked: nat.Spectra) -> None:
    triads = [(60, 64, 67), (57, 60, 64), (53, 57, 60), (55, 59, 62)] * 2
    chords = np.concatenate([sum(tone(m, 1.0, STRING) for m in triad) for triad in triads])
    found = facts(0.1 * chords)
    assert "texture" not in found
    assert [part.split(":")[1] for part in found["chords"].text.split()[1:]] == (
        ["C", "Am", "F", "G"] * 2
    )
    assert not nat.alone_frames(plucked).mean() > 0.2


def test_a_bass_under_its_major_chord_is_no_single_line() -> None:
    roots = [36, 41, 43, 36] * 2
    bars = [
        3 * tone(root, 1.0, {h: 0.5**h for h in range(1, 7)})
        + sum(tone(root + k, 1.0, {1: 1.0, 2: 0.5, 3: 0.3}) for k in (24, 28, 31))
        for root in roots
    ]
    assert nat.alone_frames(heard(0.05 * np.concatenate(bars))).mean() < 0.2


def test_a_line_and_then_chords_are_told_with_their_times() -> None:
    tune = line([60, 62, 64, 65, 67, 65, 64, 62] * 2, STRING)
    triads = [(60, 64, 67), (57, 60, 64), (53, 57, 60), (55, 59, 62)] * 2
    chords = np.concatenate([0.5 * sum(tone(m, 1.0, STRING) for m in triad) for triad in triads])
    text = facts(0.1 * np.concatenate([tune, chords]))["texture"].text
    assert "alone 0-8 s, several notes at once otherwise" in text


def test_broken_chords_are_told_and_a_tune_spells_none() -> None:
    broken = [57, 60, 64, 60] * 4 + [53, 57, 60, 57] * 4
    sound = 0.2 * np.concatenate([tone(m, 0.25, STRING) for m in broken])
    assert re.search(
        "broken into single notes, 0.0:Am (3.9|4.[012]):F$", facts(sound)["chords"].text
    )
    assert "chords" not in facts(0.2 * line([60, 62, 64, 65, 67, 69, 71, 72], STRING))


def test_a_change_of_key_is_told_with_its_time() -> None:
    bars = [[(60, 64, 67), (65, 69, 72), (67, 71, 74), (60, 64, 67)][k % 4] for k in range(10)]
    bars += [tuple(note + 6 for note in bar) for bar in bars]
    sound = 0.1 * np.concatenate([sum(tone(m, 1.0, STRING) for m in bar) for bar in bars])
    key = facts(sound)["key"]
    assert key.text == "key changes at about 10 s: C major before, F# major after"
    assert [one.name for one in key.value] == ["C major", "F# major"]
    steady = facts(sound[: 10 * RATE])["key"]
    assert steady.text.startswith("key C major (or")


def test_what_has_no_fundamental_is_no_bass() -> None:
    rows = heard(0.1 * sum(tone(m, 2.0, STRING) for m in (60, 64, 67)))
    assert nat.has_root(rows, 60) and not nat.has_root(rows, 36) and not nat.has_root(rows, 48)


def test_vibrato_is_measured(swaying: nat.Spectra) -> None:
    notes = nat.foreground_notes(swaying, FRAME_RATE)
    (timbre,) = nat.describe_foreground(swaying, notes, FRAME_RATE)
    assert timbre.vibrato == (pytest.approx(5.5, abs=0.5), pytest.approx(30, rel=0.35))
    assert timbre.attack > 100 and not timbre.struck


def test_attack_and_decay_are_measured(plucked: nat.Spectra) -> None:
    (timbre,) = nat.describe_foreground(
        plucked, nat.foreground_notes(plucked, FRAME_RATE), FRAME_RATE
    )
    assert timbre.fall == pytest.approx(-20, abs=5)
    assert timbre.attack < 60 and timbre.vibrato == (0.0, 0.0)


def test_odd_partials_are_noticed() -> None:
    spectra = heard(0.2 * line(MELODY, ODD, attack=0.05))
    (timbre,) = nat.describe_foreground(
        spectra, nat.foreground_notes(spectra, FRAME_RATE), FRAME_RATE
    )
    assert timbre.odd_balance > 15
    assert "odd partials" in timbre.words()
    assert timbre.partials[2] - timbre.partials[0] == pytest.approx(20 * np.log10(0.6), abs=2)


def test_a_square_wave_is_told_from_a_pipe() -> None:
    square = {h: 1 / h for h in range(1, 16, 2)}
    for partials, square_wave in ((square, True), (ODD, False)):
        spectra = heard(0.2 * line(MELODY, partials, attack=0.02))
        (timbre,) = nat.describe_foreground(
            spectra, nat.foreground_notes(spectra, FRAME_RATE), FRAME_RATE
        )
        assert ("square wave" in timbre.words()) == square_wave


def test_a_change_of_lead_parts_the_stretches() -> None:
    first, second = line(MELODY, STRING, fall=30), line(MELODY, ODD, attack=0.08)
    spectra = heard(0.2 * np.concatenate([first, second]))
    parts = nat.describe_foreground(spectra, nat.foreground_notes(spectra, FRAME_RATE), FRAME_RATE)
    assert len(parts) == 2
    assert parts[1].start == pytest.approx(4.0, abs=0.3)


def observed(sound: np.ndarray) -> dict[str, nat.Observation]:
    return {one.kind: one for one in nat.pitch_observations(heard(sound), FRAME_RATE)}


@pytest.mark.parametrize("hz", [600, 1000, 2450])
def test_a_steady_tone_has_its_exact_frequency(hz: int) -> None:
    time = np.arange(4 * RATE) / RATE
    found = observed(0.2 * np.sin(2 * np.pi * hz * time) * (time % 1 < 0.3))
    assert set(found) == {"tone"}
    assert found["tone"].text.startswith("one pure tone") and f"{hz} Hz" in found["tone"].text


def test_tones_together_are_not_one_tone() -> None:
    time = np.arange(4 * RATE) / RATE
    found = observed(0.1 * sum(np.sin(2 * np.pi * hz * time) for hz in (440, 554.37, 659.26)))
    assert found["tone"].value == pytest.approx((440, 554.37, 659.26), abs=0.01)
    assert "3 pure tones together, steady, near A4 C#5 E5" in found["tone"].text


@pytest.mark.parametrize("cycle", [1.5, 3.0])
def test_a_siren_has_its_range_and_cycle(cycle: float) -> None:
    time = np.arange(10 * RATE) / RATE
    phase = np.cumsum(900 + 400 * np.sin(2 * np.pi * time / cycle)) / RATE
    found = observed(0.2 * np.sin(2 * np.pi * phase))
    assert set(found) == {"sweep"}
    assert f"cycle every {cycle:.1f} s" in found["sweep"].text
    low, high = found["sweep"].value[:2]
    assert 450 < low < 650 and 1150 < high < 1350


def test_noise_is_unpitched_and_silence_is_said() -> None:
    noise = 0.1 * np.random.default_rng(5).standard_normal(4 * RATE)
    assert (
        observed(noise)["pitch"].value == "noise" and "unpitched" in observed(noise)["pitch"].text
    )
    assert observed(np.zeros(2 * RATE))["pitch"].value == "silence"


def test_music_states_key_lead_contour_and_timbre(plucked: nat.Spectra) -> None:
    kinds = [one.kind for one in nat.pitch_observations(plucked, FRAME_RATE)]
    assert {"key", "chords", "lead", "contour", "timbre"} <= set(kinds)
    assert all(0 <= one.confidence <= 1 for one in nat.pitch_observations(plucked, FRAME_RATE))


def test_the_same_rows_give_the_same_words(plucked: nat.Spectra) -> None:
    assert nat.pitch_observations(plucked, FRAME_RATE) == nat.pitch_observations(
        plucked, FRAME_RATE
    )


@pytest.mark.parametrize("frames", [0, 1, 5, 20])
def test_very_short_sounds_are_no_error(frames: int) -> None:
    spectra = nat.slice_rows(heard(0.2 * tone(69, 1.0, STRING)), 0, frames)
    assert isinstance(nat.pitch_observations(spectra, FRAME_RATE), list)
