"""Rhythm, events and form as stated in words: sounds of known truth, made here in NumPy."""

from __future__ import annotations

import re

import numpy as np
import pytest

import neural_audio_tokenizer as nat

RATE = 22050
FRAME_RATE = RATE / 512
RNG = np.random.RandomState(7)


def rows_of(sound):
    analyzer = nat.Analyzer(RATE, 512)
    return nat.join_rows([analyzer.push(np.asarray(sound, dtype=np.float32)), analyzer.flush()])


def observe(sound):
    return nat.rhythm_observations(rows_of(sound), FRAME_RATE)


def of_kind(found, kind):
    return [o for o in found if o.kind == kind]


def text_of(found):
    return " | ".join(o.text for o in found)


def seconds(length):
    return np.arange(int(length * RATE)) / RATE


def noise(length, low=20.0, high=11000.0):
    size = int(length * RATE)
    spectrum = np.fft.rfft(RNG.standard_normal(size))
    hz = np.fft.rfftfreq(size, 1 / RATE)
    return np.fft.irfft(spectrum * ((hz >= low) & (hz <= high)), size)


def kick():
    t = seconds(0.3)
    sweep = 2 * np.pi * np.cumsum(45 + 90 * np.exp(-t / 0.02)) / RATE
    return np.sin(sweep) * np.exp(-t / 0.06) + 0.1 * noise(0.3) * np.exp(-t / 0.003)


def snare():
    t = seconds(0.3)
    body = np.sin(2 * np.pi * 200 * t) * np.exp(-t / 0.05)
    return 0.6 * body + 0.3 * noise(0.3, 300) * np.exp(-t / 0.06)


def hat():
    t = seconds(0.15)
    return 0.15 * noise(0.15, 6000) * np.exp(-t / 0.03)


def click():
    return 0.5 * noise(0.02, 500) * np.exp(-seconds(0.02) / 0.003)


def knock():
    t = seconds(0.12)
    return (np.sin(2 * np.pi * 180 * t) + 0.3 * noise(0.12)) * np.exp(-t / 0.02) * 0.5


def tone(hz, length, edge=0.01):
    t = seconds(length)
    return np.sin(2 * np.pi * hz * t) * np.minimum(1, np.minimum(t, length - t) / edge)


def chord(keys, length):
    """Plucked harmonic notes of MIDI keys."""
    t = seconds(length)
    fall = np.exp(-t / 0.4) * np.minimum(1, t / 0.005)
    hz = [440 * 2 ** ((key - 69) / 12) for key in keys]
    return (
        sum(np.sin(2 * np.pi * f * h * t) / h**1.5 for f in hz for h in (1, 2, 3, 4)) * fall * 0.1
    )


def place(length, hits):
    sound = np.zeros(int(length * RATE))
    for time, played in hits:
        start = int(time * RATE)
        stop = min(len(sound), start + len(played))
        sound[start:stop] += played[: stop - start]
    return sound


def vowel(hz, length):
    """A voice-like syllable: buzz through two formants, its pitch falling a little."""
    t = seconds(length)
    phase = 2 * np.pi * np.cumsum(hz * (1.05 - 0.1 * t / length)) / RATE
    f = np.arange(1, 40) * hz
    gain = (
        1 / (1 + ((f - 600) / 150) ** 2)
        + 0.5 / (1 + ((f - 1500) / 200) ** 2)
        + 0.6 * (f < 1.5 * hz)
        + 0.01
    )
    buzz = sum(g * np.sin(k * phase) for k, g in enumerate(gain, start=1) if k * hz < 5000)
    return 0.3 * buzz * np.sin(np.pi * t / length)


def phrase(hz, syllables=8):
    parts = []
    for k in range(syllables):
        parts += [vowel(hz * (1 + 0.1 * np.sin(k)), 0.22), 0.2 * noise(0.1, 3000)]
    return np.concatenate(parts)


@pytest.mark.parametrize("bpm", [112, 87])
def test_tempo_is_exact(bpm):
    clicks = place(16, [(0.3 + k * 60 / bpm, click()) for k in range(int(15 * bpm / 60))])
    (pulse,) = nat.estimate_tempo(rows_of(clicks), FRAME_RATE)
    assert abs(pulse.bpm / bpm - 1) < 0.01
    assert pulse.confidence > 0.6


def test_tempo_change_gives_two_stretches():
    first = place(24, [(k * 0.625, kick()) for k in range(38)])
    second = place(24, [(k * 0.45, kick()) for k in range(53)])
    pulses = nat.estimate_tempo(rows_of(np.concatenate([first, second])), FRAME_RATE)
    assert [round(p.bpm) for p in pulses] == [96, 133]
    assert abs(pulses[1].start - 24) < 4


@pytest.mark.parametrize("sound", [noise(10) * 0.1, tone(300, 10) * 0.3])
def test_no_pulse_where_there_is_none(sound):
    assert nat.estimate_tempo(rows_of(sound), FRAME_RATE) == []
    assert not of_kind(observe(sound), "hits")


def test_waltz_is_in_three():
    beats = [(k * 0.5, kick() if k % 3 == 0 else hat()) for k in range(36)]
    (pulse,) = nat.estimate_tempo(rows_of(place(18, beats)), FRAME_RATE)
    assert pulse.metre == 3 and abs(pulse.bpm - 120) < 1.2


@pytest.mark.parametrize(
    "drum, kind", [(kick, "kick-like"), (snare, "snare-like"), (hat, "hat-like")]
)
def test_drums_are_told_apart(drum, kind):
    onsets = nat.find_onsets(
        rows_of(place(8, [(0.2 + 0.6 * k, drum()) for k in range(12)])), FRAME_RATE
    )
    assert len(onsets) == 12
    assert sum(o.kind == kind for o in onsets) >= 11
    assert max(abs(o.time - 0.2 - 0.6 * k) for k, o in enumerate(onsets)) < 0.03


def test_drum_pattern_is_stated_with_counts():
    hits = [(0.5 * k, kick() if k % 2 == 0 else snare()) for k in range(20)]
    found = observe(place(10.5, hits))
    assert "drums or percussion alone" in of_kind(found, "sound")[0].text
    assert "10 kick-like" in text_of(found) and "10 snare-like" in text_of(found)
    assert "order: kick snare kick snare" in text_of(found)


@pytest.mark.parametrize("count", [4, 7, 11])
def test_knocks_are_counted(count):
    gap = 9.0 / count
    sound = place(10, [(0.4 + k * gap, knock()) for k in range(count)]) + 0.0005 * noise(10)
    (events,) = of_kind(observe(sound), "events")
    assert len(events.value) == count and "knock-like" in events.value[0].what
    stated = float(events.text.split("every ")[1].split()[0])
    assert abs(stated / gap - 1) < 0.01 and "(regular)" in events.text


def test_beeps_state_pitch_and_period():
    found = observe(place(12, [(1.5 * k, 0.3 * tone(1000, 0.4)) for k in range(8)]))
    assert "8 separate steady tones at 1.0 kHz, every 1.50 s" in text_of(found).replace(
        "1000 Hz", "1.0 kHz"
    )


@pytest.mark.parametrize("pitches", [[100, 100, 100], [100, 220, 100, 220]])
def test_phrases_and_voices_are_told(pitches):
    parts = [np.concatenate([phrase(hz), np.zeros(int(0.9 * RATE))]) for hz in pitches]
    found = observe(np.concatenate([np.zeros(RATE // 2), *parts]))
    (speech,), (voice,) = of_kind(found, "speech"), of_kind(found, "voice")
    assert len(speech.value) == len(voice.value) == len(pitches)
    assert np.allclose(voice.value, pitches, rtol=0.1)
    assert ("L H L H" if len(set(pitches)) > 1 else "low voice") in voice.text


@pytest.mark.parametrize("count", [2, 4])
def test_gusts_are_counted(count):
    t = seconds(12)
    swell = 0.07 + np.sin(np.pi * count * t / 12) ** 4
    (found,) = of_kind(observe(0.3 * noise(12, 60, 900) * swell), "swells")
    assert len(found.value) == count


def test_siren_cycle():
    t = seconds(12)
    hz = 900 + 400 * np.sin(2 * np.pi * t / 3)
    (glide,) = of_kind(observe(0.3 * np.sin(2 * np.pi * np.cumsum(hz) / RATE)), "glide")
    assert abs(glide.value.cycle - 3) < 0.06


def test_engine_climbs():
    t = seconds(12)
    phase = 2 * np.pi * np.cumsum(40 * (1 + 2 * t / 12)) / RATE
    sound = 0.1 * sum(np.sin(h * phase + h) / h for h in range(1, 25)) + 0.005 * noise(12)
    (glide,) = of_kind(observe(sound), "glide")
    assert "climbs" in glide.text
    assert abs(12 * np.log2(glide.value.high / glide.value.low) - 19) < 4


def spans_of(sound):
    return [
        (a / FRAME_RATE, b / FRAME_RATE) for a, b in nat.speech_spans(rows_of(sound), FRAME_RATE)
    ]


@pytest.mark.parametrize("hz", [110, 210])
def test_speech_over_music_is_told_with_its_times(hz):
    talk = np.concatenate([phrase(hz, 8), phrase(1.1 * hz, 8)])
    bed = 0.25 * np.concatenate([chord([57, 60, 64], 2.0), chord([53, 57, 60], 2.0)] * 4)
    for sound in (place(16, [(5, talk)]), bed + place(16, [(5, talk)])):
        (span,) = spans_of(sound)
        assert abs(span[0] - 5) < 1.1 and abs(span[1] - 5 - len(talk) / RATE) < 1.1
    found = observe(bed + place(16, [(5, talk)]))
    assert "over music" in text_of(found) and of_kind(found, "speech")
    assert spans_of(bed) == []


def test_music_drums_and_noise_are_no_speech():
    beat = [(0.5 * k, kick() if k % 2 == 0 else snare()) for k in range(20)]
    vibrato = 440 * 2 ** (0.03 * np.sin(2 * np.pi * 6 * seconds(10)))
    for sound in (melody(), place(10, beat), 0.3 * noise(10, 100, 900), vibrato):
        assert spans_of(sound) == []


def gliding(points, length, cents=0.0):
    t = seconds(length)
    midi = np.interp(t, *zip(*points)) + cents / 100 * np.sin(2 * np.pi * 5.5 * t)
    phase = 2 * np.pi * np.cumsum(440 * 2 ** ((midi - 69) / 12)) / RATE
    return 0.1 * sum(np.sin(h * phase) / h for h in range(1, 12))


def test_an_engine_revs_up_and_down_with_times():
    points = [(0, 33), (3, 33), (6, 47), (9, 47), (12, 35), (14, 35)]
    (glide,) = of_kind(observe(gliding(points, 14) + 0.003 * noise(14)), "glide")
    told = [float(word) for word in re.findall(r" (\d+\.\d) s", glide.text)]
    for at in (3, 6, 9, 12):
        assert min(abs(at - time) for time in told) < 0.3
    assert "engine" in glide.text


def test_a_sung_glide_has_vibrato_and_a_scale_is_none():
    (glide,) = of_kind(observe(gliding([(0, 57), (4, 66), (8, 60)], 8, cents=50)), "glide")
    assert 5 < float(re.search(r"vibrato (\S+) Hz", glide.text)[1]) < 6
    steps = gliding([(x, 60 + k) for k in range(12) for x in (0.5 * k, 0.5 * k + 0.46)], 6)
    assert not of_kind(observe(steps), "glide")


@pytest.mark.parametrize("size, count", [(2, 6), (3, 4)])
def test_beeps_in_groups_are_counted_one_by_one(size, count):
    times = [0.5 + 1.6 * g + 0.2 * k for g in range(count) for k in range(size)]
    (events,) = of_kind(observe(place(11, [(t, 0.3 * tone(1800, 0.1)) for t in times])), "events")
    assert len(events.value) == size * count
    assert f"in {count} groups of {size}" in events.text and "every 1.60 s" in events.text


def test_chirps_above_the_notes_are_events():
    t = seconds(0.12)
    chirp = np.sin(2 * np.pi * np.cumsum(3000 * 2 ** (5 * t)) / RATE) * np.hanning(len(t))
    times = [0.5 + 2.0 * g + 0.25 * k for g in range(5) for k in range(4)]
    (events,) = of_kind(observe(place(11, [(at, 0.4 * chirp) for at in times])), "events")
    assert len(events.value) == 20 and "bird-like" in events.text


def test_a_whisper_is_neither_wind_nor_speech():
    breath, hiss = noise(8, 300, 3500), noise(8, 2500, 8000)
    # Vowels without voice and fricatives in turn, five syllables a second, over a little noise.
    turn = 0.5 + 0.5 * np.sin(2 * np.pi * 2.3 * seconds(8)) ** 3
    swing = 0.03 + np.sin(np.pi * 5 * seconds(8)) ** 4
    sound = swing * (breath * turn + 0.7 * hiss * (1 - turn)) + 0.01 * noise(8)
    (speech,) = of_kind(observe(0.2 * sound), "speech")
    assert "whisper-like" in speech.text
    assert not of_kind(observe(0.2 * noise(8)), "speech")


def test_between_sounds_lies_what_is_there_not_their_edges():
    beeps = place(12, [(1.5 * k, 0.3 * tone(700, 0.4)) for k in range(8)])
    assert "between the sounds: silence" in text_of(observe(beeps))
    (bed,) = of_kind(observe(beeps + 0.003 * noise(12)), "bed")
    assert abs(bed.value - 20 * np.log10(0.003 * noise(12).std())) < 3


def melody(length=12.0):
    keys = [60, 64, 67, 65]
    return place(length, [(0.6 * k, chord([keys[k % 4]], 1.0)) for k in range(int(length / 0.6))])


def test_fade_and_growth_and_steadiness():
    ramp = 10 ** (-seconds(12) / 12 * 26 / 20)
    assert "fades throughout" in of_kind(observe(melody() * ramp), "loudness")[0].text
    assert "grows throughout" in of_kind(observe(melody() * ramp[::-1]), "loudness")[0].text
    assert "steady" in of_kind(observe(melody()), "loudness")[0].text


def test_sudden_drop_has_its_time_and_depth():
    found = observe(melody() * np.where(seconds(12) < 7.3, 1, 0.1))
    (drop,) = of_kind(found, "jump")
    assert "drops" in drop.text and abs(drop.time - 7.3) < 0.3
    assert abs(drop.value + 20) < 4
    # The levels by ninths tell it too.
    levels = of_kind(found, "loudness")[0].text.split(": ")[1].split(" dB")[0].split()
    levels = np.array(levels, float)
    assert len(levels) == 9 and abs(levels[:5].mean() - levels[6:].mean() - 20) < 3
    assert not of_kind(found, "pause")


def test_the_loudest_moment_is_told():
    louder = melody() * np.where(np.abs(seconds(12) - 4.5) < 0.3, 2.5, 1)
    text = of_kind(observe(louder), "loudness")[0].text
    assert abs(float(text.split("loudest at ")[1].split(" s")[0]) - 4.5) < 0.5


@pytest.mark.parametrize("silent", [(5.0, 7.5), (2.4, 3.5)])
def test_a_silence_within_music_is_told_and_is_no_jump(silent):
    breaks = (seconds(12) < silent[0]) | (seconds(12) > silent[1])
    triads = [[60, 64, 67], [65, 69, 72], [67, 71, 74]]
    held = melody() + place(12, [(1.2 * k, chord(triads[k % 3], 1.3)) for k in range(10)])
    found = observe(held * breaks)
    (pause,) = of_kind(found, "pause")
    assert np.allclose([pause.time, pause.time + pause.duration], silent, atol=0.15)
    assert "goes on" in pause.text and not of_kind(found, "jump")
    assert not of_kind(observe(held), "pause")


def test_drums_that_stop_are_timed():
    chords = [(k * 1.0, 2 * chord([48, 55, 60, 64], 1.5)) for k in range(16)]
    drums = [(k * 0.5, kick() if k % 2 == 0 else snare()) for k in range(16)]
    drums += [(0.25 + k * 0.5, hat()) for k in range(16)]
    changes = of_kind(observe(place(16, chords + drums)), "change")
    assert [c.value for c in changes] == ["drum-like hits stop"]
    assert abs(changes[0].time - 8) < 0.4


def test_form_from_repeats():
    a = [[60, 64, 67], [65, 69, 72], [67, 71, 74], [60, 64, 67]]
    b = [[50, 53, 57], [46, 50, 53], [43, 46, 50], [45, 49, 52]]
    section = {"A": a, "B": b}
    hits = []
    for k, letter in enumerate("AABA"):
        for n in range(16):
            hits.append((k * 9.6 + n * 0.6, chord(section[letter][n // 4], 0.9)))
    rows = rows_of(place(38.4, hits))
    form = nat.find_form(nat.section_features(rows), rows.level, frame_rate=FRAME_RATE)
    assert form.letters == "AABA"
    assert np.abs(np.array(form.starts) - [0, 9.6, 19.2, 28.8]).max() < 2


def test_one_texture_has_one_section():
    rows = rows_of(0.1 * noise(40))
    assert (
        nat.find_form(nat.section_features(rows), rows.level, frame_rate=FRAME_RATE).letters == "A"
    )


@pytest.mark.parametrize("length", [0.02, 0.3, 5.0])
def test_silence_and_scraps_are_said_in_words(length):
    found = observe(np.zeros(int(length * RATE)))
    assert [o.text for o in found] == ["silence throughout"]
    assert all(0 <= o.confidence <= 1 for o in observe(0.1 * noise(length)))


def test_steady_noise_states_colour_and_band():
    found = observe(0.1 * noise(8, 400, 9000))
    (colour,) = of_kind(found, "noise")
    assert "steady noise, white-like" in colour.text
    assert of_kind(found, "absent") and not of_kind(found, "tempo")


def brown(length):
    steps = np.cumsum(noise(length, 5))
    return 0.2 * (steps - steps.mean()) / np.abs(steps).max()


def pluck(hz, length=0.5):
    t = seconds(length)
    return 0.3 * sum(np.sin(2 * np.pi * hz * h * t) / h**2 for h in (1, 2, 3)) * np.exp(-t / 0.3)


@pytest.mark.parametrize(
    "sound, words",
    [
        (lambda: brown(6), "environmental"),
        (lambda: 0.3 * tone(120, 8), "a steady tone or hum, its pitch does not change"),
        (lambda: place(8, [(0.5 * k, tone(440, 0.25)) for k in range(16)]), "environmental"),
        (
            lambda: place(9, [(1.0 * (k + k // 3), chord([60 + 2 * k], 0.4)) for k in range(7)]),
            "notes",
        ),
        (lambda: place(10, [(0.5 * k, kick() if k % 4 else snare()) for k in range(18)]), "drums"),
    ],
)
def test_kind_of_sound(sound, words):
    assert words in of_kind(observe(sound()), "sound")[0].text


def test_plucked_bass_is_no_kick():
    line = [(0.5 * k, pluck(41.2 * 2 ** (s / 12))) for k, s in enumerate([0, 5, 3, 7] * 5)]
    found = observe(place(10, line))
    assert "pitched notes, no" in found[0].text and not of_kind(found, "hits")


def test_hats_over_a_bass_are_heard():
    line = [(0.5 * k, pluck(82.4 * 2 ** (s / 12))) for k, s in enumerate([0, 5, 3, 7] * 5)]
    hats = [(0.25 + 0.5 * k, hat()) for k in range(20)]
    assert "20 hat-like" in of_kind(observe(place(10.5, line + hats)), "hits")[0].text


def test_compound_metre():
    eighths = [(0.28 * k, (kick, hat, hat, snare, hat, hat)[k % 6]()) for k in range(60)]
    (pulse,) = nat.estimate_tempo(rows_of(place(17, eighths)), FRAME_RATE)
    assert pulse.metre == 6 and abs(pulse.bpm - 60 / 0.84) < 1


def test_a_silent_end_changes_neither_metre_nor_loudness():
    beats = [(k * 0.5, kick() if k % 3 == 0 else hat()) for k in range(36)]
    found = observe(np.concatenate([place(18, beats), np.zeros(4 * RATE)]))
    assert of_kind(found, "metre")[0].value == 3
    assert "steady" in of_kind(found, "loudness")[0].text


def test_one_click_in_silence():
    found = observe(place(10, [(6.5, click())]))
    assert [o.text.split(" s,")[0] for o in found] == ["silence but for one click at 6.5"]


@pytest.mark.parametrize("length", [0.1, 0.6])
def test_one_click_alone_is_told_as_that(length):
    heading, *_ = observe(place(length, [(0, click())]))
    assert heading.text.endswith("a single short click or hit") and heading.value == ("sounds",)
    assert "single" not in observe(place(3, [(0.5, click()), (2, click())]))[0].text


def test_last_note_held_is_no_change():
    line = [(0.5 * k, chord([60 + k % 5], 0.6)) for k in range(20)]
    assert not of_kind(observe(place(14, line + [(10, chord([60], 4))])), "change")


def test_very_quiet_is_said():
    assert "very quiet" in of_kind(observe(0.01 * melody()), "loudness")[0].text


@pytest.mark.parametrize("course, ratio", [("rising", 1.2), ("falling", 1 / 1.2)])
def test_beeps_that_climb_or_fall_are_one_train(course, ratio):
    beeps = [(0.5 + 0.9 * k, 0.3 * tone(1000 * ratio**k, 0.22)) for k in range(6)]
    (train,) = of_kind(observe(place(7, beeps) + 0.001 * noise(7)), "events")
    assert train.text.startswith("6 separate steady tones") and course in train.text


@pytest.mark.parametrize("level", [3e-4, 1e-3, 0.01])
def test_events_over_noise_are_told_with_the_noise(level):
    knocks = [(1.5 + 2.0 * k, 0.5 * knock()) for k in range(6)]
    found = observe(place(16, knocks) + level * noise(16, 200, 9000))
    (train,) = of_kind(found, "events")
    assert train.text.startswith("6 separate") and "every 2.00 s" in train.text


def event(start, stop, character, manner="", peak=-20.0):
    return nat.Event(start, stop, peak, np.zeros(64), character, 0.0, manner)


def test_a_train_has_the_manner_of_most_of_its_events():
    falls, loudest = "swells and fades, pitch falls, centre 3.7 kHz", "soft attack, centre 3.6 kHz"
    train = [event(k, k + 0.2, "chirp", falls) for k in range(3)]
    train.append(event(3, 3.2, "chirp", loudest, peak=-10.0))
    assert nat.common_manner(train) == "swells and fades, pitch falls, centre 3.6 kHz"


def test_sounds_of_several_kinds_with_silence_between_are_no_music():
    steps = [(2 + 0.5 * k, noise(0.05) * 0.5) for k in range(8)]
    bells = [(at, chord([midi], 1.2)) for at, midi in ((8, 76), (8.8, 72), (13, 90), (17, 90))]
    knocks = [(at, 0.6 * noise(0.04)) for at in (20, 20.4, 20.8)]
    heading = observe(place(24, steps + bells + knocks))[0].text
    assert "pitched" not in heading and "environmental" in heading


def test_a_shaker_in_strict_time_is_percussion_and_no_rain():
    shaken = place(15, [(0.24 * k, (1.0, 0.4)[k % 2] * hat()) for k in range(60)])
    assert "percussion" in observe(shaken + 0.001 * noise(15))[0].text
    drops = np.random.default_rng(5).uniform(0, 14.8, 60)
    rain = place(15, [(at, 0.5 * hat()) for at in sorted(drops)])
    assert "percussion" not in observe(rain + 0.02 * noise(15))[0].text


@pytest.mark.parametrize("part", [9.3, 11.0, 13.7])
def test_a_section_begins_where_the_sound_changes(part):
    whole = np.where(seconds(24) < part, melody(24), 0.6 * noise(24) + place(24, [(0.5, hat())]))
    rows = rows_of(whole)
    rough = nat.Form((0.0, part + 0.9), "AB", 0.7)
    assert abs(nat.sharpened(rough, rows, FRAME_RATE).starts[1] - part) < 0.15
    assert nat.sharpened(rough, rows, FRAME_RATE).starts[0] == 0


def test_a_soft_beginning_is_no_silence():
    sound = melody(18) * np.where(seconds(18) < 8, 10 ** (-28 / 20), 1)
    (fact,) = of_kind(observe(sound), "loudness")
    assert fact.time < 0.2 and "steady" not in fact.text
    levels = np.array(fact.text.split(": ")[1].split(" dB")[0].split(), float)
    assert levels[:3].max() < levels[5:].min() - 20


def test_hours_have_fewer_rows_than_steps():
    course = nat.loudness_course(np.full(45_000, -20.0), FRAME_RATE / 8)
    assert course == pytest.approx(-20.0)


def test_a_narrow_noise_has_no_slope():
    spectrum = np.fft.rfft(noise(6))
    spectrum[np.arange(len(spectrum)) / 6 > 350] = 0
    text = text_of(observe(6 * np.fft.irfft(spectrum)))
    assert "mostly steady noise" in text and "dB/octave" not in text


def test_fades_at_the_ends_are_told():
    at = seconds(20)
    fades = np.minimum(0, np.minimum(at / 7 - 1, (20 - at) / 7 - 1)) * 40
    (fade,) = of_kind(observe(melody(20) * 10 ** (fades / 20)), "fade")
    assert re.fullmatch(r"fades in over the first [567] s and out over the last [567] s", fade.text)
    assert not of_kind(observe(melody(20)), "fade")
    # What stops at once, or is soft at first, does not fade.
    assert not of_kind(observe(melody(20) * np.where(at < 6, 0.05, 1)), "fade")


def test_a_background_is_where_it_was_loud_and_to_the_ends_of_what_is_not_silent():
    loud, heard = np.zeros(400, bool), np.ones(400, bool)
    loud[40:90] = loud[120:200] = loud[330:340] = True
    assert nat.bed_span(loud, heard, 60) == (0, 200)
    heard[:10] = False
    assert nat.bed_span(loud, heard, 60) == (40, 200)
    assert nat.bed_span(loud, heard, 150) == (40, 400)
