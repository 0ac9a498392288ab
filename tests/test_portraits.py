"""Section 10: what one sound of a scene is like within, on sounds made here of known truth."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import RATE, analyse, noise, tone

import neural_audio_tokenizer as nat

FRAME_RATE = RATE / 512


def seconds(length):
    return np.arange(int(length * RATE)) / RATE


def rumble(length, high):
    spectrum = np.fft.rfft(noise(length, seed=3))
    hertz = np.fft.rfftfreq(int(length * RATE), 1 / RATE)
    return np.fft.irfft(spectrum * (hertz < high), int(length * RATE))


def within(sound, pad=0.3):
    silence = np.zeros(int(pad * RATE))
    rows = analyse(np.concatenate([silence, sound, silence]))
    heard = np.flatnonzero(rows.level > rows.level.max() - 40)
    return nat.look_within(nat.slice_rows(rows, heard[0], heard[-1] + 1), FRAME_RATE)


def likeness(sound):
    return nat.first_rung(nat.LIKENESSES, within(sound))


def cry(length=0.8, low=300.0, high=520.0, partials=9):
    """A harmonic call whose pitch rises and falls again."""
    hertz = low + (high - low) * np.sin(np.pi * seconds(length) / length)
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    call = sum(np.sin(k * phase) / k for k in range(1, partials + 1))
    return 0.1 * call * np.hanning(len(call)) ** 0.3


# What is measured on parts of a frame


def test_fine_levels_place_a_click_within_three_milliseconds():
    sound = np.zeros(RATE)
    sound[10000] = 0.9
    fine = analyse(sound).fine
    assert fine.shape[1] == nat.FINE_STEPS
    assert int(fine.ravel().argmax()) == 10000 // (512 // nat.FINE_STEPS)
    assert (fine > fine.max() - 40).sum() == 1


def test_fine_levels_and_voicing_do_not_depend_on_blocks():
    sound = cry() + noise(0.8, level=-50)
    whole = analyse(sound)
    for block in (7, 513, 5000):
        cut = analyse(sound, block)
        assert np.array_equal(cut.fine, whole.fine)
        assert np.array_equal(cut.voicing, whole.voicing)


@pytest.mark.parametrize("hz", [80.0, 220.0, 440.0, 900.0])
def test_what_repeats_is_voiced_at_its_pitch(hz):
    strength, heard = np.median(analyse(tone(hz, partials=8)).voicing[20:-20], axis=0)
    assert strength > 0.9
    # Above 750 Hz two periods are heard as one.
    assert heard == pytest.approx(hz if hz < 750 else hz / 2, rel=0.02)


def test_fine_levels_hear_no_direct_current():
    sound = noise(1.0) * np.exp(-seconds(1.0) * 3)
    plain, moved = analyse(sound).fine[4:-4], analyse(sound + 0.05).fine[4:-4]
    assert np.abs(plain - moved).max() < 0.1


def test_noise_is_not_voiced_and_silence_neither():
    assert np.median(analyse(noise(2.0)).voicing[20:-20, 0]) < 0.4
    assert not analyse(np.zeros(RATE)).voicing.any()


def test_a_rough_voice_is_voiced_by_the_noise_in_it():
    def share(level):
        return (analyse(cry(1.5) + noise(1.5, level=level)).voicing[10:-10, 0] > nat.VOICED).mean()

    assert share(-50) > 0.9 > share(-16) > 0.1 > share(-4)


# Envelope, pulses, bursts, pitch


def test_rise_and_falls_are_those_of_the_sound():
    t = seconds(1.5)
    shape = within(
        noise(1.5) * np.minimum(t / 0.2, 1) * 10 ** (-20 * np.maximum(t - 0.2, 0) / 20)
    ).shape
    assert shape.rise == pytest.approx(0.1, abs=0.05)
    assert len(shape.falls) > 1 and shape.falls[0] == pytest.approx(0.25, abs=0.15)
    assert shape.falls[1] - shape.falls[0] == pytest.approx(0.5, abs=0.12)


def test_what_is_cut_while_it_is_loud_has_no_fall():
    assert within(noise(1.0)).shape.falls == ()
    assert "held to its end" in nat.envelope_words(within(noise(1.0)).shape)


@pytest.mark.parametrize("rate", [17.0, 26.0, 60.0])
def test_pulses_are_counted(rate):
    buzz = noise(2.0) * (0.55 + 0.45 * np.sin(2 * np.pi * rate * seconds(2.0)))
    assert within(buzz).pulses == pytest.approx(rate, rel=0.08)
    assert within(noise(2.0)).pulses == 0


def test_bursts_are_counted_and_their_pace_is_told():
    def bursts(times):
        sound = np.zeros(int(3.0 * RATE))
        for at in times:
            sound[int(at * RATE) :][:2000] += noise(1.0)[:2000] * np.exp(-np.arange(2000) / 500)
        return within(sound).bursts

    even = bursts(np.arange(0, 2.6, 0.25))
    assert len(even) == 11 and nat.burst_words(even).endswith("4.0 a second, even")
    ball = bursts(np.cumsum([0.0, 0.5, 0.42, 0.35, 0.29, 0.24, 0.2]))
    assert len(ball) == 7 and nat.burst_words(ball).endswith("quickening")
    assert bursts([0.0]) == ()


def test_a_pitch_that_moves_is_followed_and_one_that_stays_is_said_to():
    one = within(cry())
    peak = nat.to_hertz(max(one.tone.course))
    assert one.pitch and one.moves and peak == pytest.approx(515, rel=0.08)
    held = within(tone(330.0, 1.0, partials=6))
    assert not held.moves and "steady at 330 Hz" in nat.pitch_words(held.tone)


def test_octaves_say_where_the_power_lies():
    low, high = within(rumble(1.0, 200.0)), within(tone(4000.0, 1.0))
    assert low.low > 0.95 and low.high < 0.05
    assert high.high > 0.95 and np.argmax(high.octaves) == 6
    assert sum(low.octaves) == pytest.approx(1)


def test_a_struck_bar_rings_at_its_partials():
    t = seconds(1.5)
    bar = sum(np.sin(2 * np.pi * hz * t) * np.exp(-4 * t) for hz in (523.0, 1441.0, 2826.0))
    peaks = within(0.1 * bar).peaks
    assert all(min(abs(peak / hz - 1) for peak in peaks) < 0.06 for hz in (523, 1441, 2826))


# Likenesses


@pytest.mark.parametrize("sound, like", [
    (noise(0.2) * np.exp(-seconds(0.2) / 0.004), "click|knock"),
    (3 * rumble(0.6, 200.0) * np.exp(-seconds(0.6) / 0.2), "boom|thud"),
    (noise(1.5) * np.exp(-seconds(1.5) / 0.2), "splash|crash|spray"),
    (noise(4.0), "hiss"),
    (rumble(4.0, 150.0), "rumble|rolls"),
    (cry(), "voice"),
    (tone(1000.0, 1.0), "beep"),
    (tone(440.0, 2.0, partials=6) * np.exp(-seconds(2.0) / 0.3), "bell|string"),
    (tone(240.0, 0.4, partials=4) * np.exp(-seconds(0.4) / 0.04), "knock"),
    (noise(2.0) * (0.55 + 0.45 * np.sin(2 * np.pi * 22 * seconds(2.0))), "trill|roll"),
])  # fmt: skip
def test_likeness_names_the_family(sound, like):
    said = likeness(sound)
    assert any(word in said for word in like.split("|")), said


def test_every_sound_is_like_something():
    for seed in range(20):
        random = np.random.RandomState(seed)
        length = random.uniform(0.05, 2.0)
        sound = noise(length, seed=seed) * np.exp(-seconds(length) * random.uniform(0, 30))
        text = nat.portrait(within(sound))
        assert text.startswith("like ") and "octaves" in text and "nan" not in text


# On the page


def scene():
    knock = noise(0.1) * np.exp(-seconds(0.1) / 0.005)
    gap = np.zeros(RATE)
    return np.concatenate([gap, knock, gap, knock, gap, cry(), gap, knock, gap])


def test_each_train_of_a_scene_is_portrayed_once():
    rows = analyse(scene())
    found = [o for o in nat.rhythm_observations(rows, FRAME_RATE) if o.kind == "portrait"]
    assert len(found) == 2
    assert any("knock" in o.text or "click" in o.text for o in found)
    assert any("voice" in o.text for o in found)
    for fact in found:
        assert json.loads(json.dumps(fact.as_dict()))["value"]["octaves"]


def test_music_and_speech_have_no_portraits_and_denials_share_a_line(example, tokenizer):
    assert not [o for o in nat.hear(example, tokenizer).observations if o.kind == "portrait"]
    found = nat.rhythm_observations(analyse(scene()), FRAME_RATE)
    (absent,) = [o for o in found if o.kind == "absent"]
    assert absent.value == ("beat", "drums", "speech")
