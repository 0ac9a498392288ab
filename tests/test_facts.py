"""The benchmark of stated facts: its verdicts tell true from false, and read what the page says."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from conftest import PROGRAM, ROOT

import neural_audio_tokenizer as nat

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))

import facts  # noqa: E402
from known_sounds import DRUMS, KINDS, RATE, Dice, Event, Part, Played, Truth, midi_file  # noqa: E402

NOTES = tuple(Played(float(k), 0.9, (60 + k,), 90) for k in range(5))
LINE = Truth(
    "line", "", bpm=90, metre=3, key="D minor", families=frozenset(["flute"]), span=(60, 72),
    onsets=tuple(map(float, range(40))), end=40.0, lead=NOTES,
)  # fmt: skip
BAND = Truth(
    "band", "", bpm=120, metre=4, key="C major", families=frozenset(["piano", "bass"]), drums=True,
    onsets=(0.0,), end=4.0, chords=((0.0, "C"), (2.0, "G")), bass=NOTES,
)  # fmt: skip
TALK = Truth("speech", "", voices=("low",))
TALK_OVER_MUSIC = Truth("speech", "", voices=("low",), background="music")
CLOCK = Truth("everyday", "clock", sources=frozenset(["clock"]), strokes=20, period=0.5)
RAIN = Truth("everyday", "rain", sources=frozenset(["rain"]))
SCENE = Truth(
    "scene", "", sources=frozenset(["rain", "bark", "wail"]),
    events=(Event("bark", 3.0, 6.0, 3), Event("wail", 10.0, 16.0, 1)),
)  # fmt: skip

# kind, text, truth, row of the table, verdict
CASES = [
    ("sound", "reads as: pitched notes with drum-like hits", BAND, "headline: drums", True),
    ("sound", "reads as: pitched notes, no drum-like hits", BAND, "headline: drums", False),
    ("sound", "reads as: environmental, mechanical or electronic sound", BAND, "headline", False),
    ("sound", "reads as: speech-like: someone talking", TALK, "headline", True),
    ("sound", "reads as: speech-like: someone talking", RAIN, "headline", False),
    ("tempo", "tempo 61.0 bpm (or 122)", BAND, "tempo", True),
    ("tempo", "tempo 61.0 bpm (or 122)", BAND, "tempo: first reading", False),
    ("tempo", "tempo 80.0 bpm (or 160)", BAND, "tempo", False),
    ("tempo", "tempo 126.0 bpm from 3 to 9 s (or 63)", BAND, "tempo", False),  # 5 %
    ("tempo", "tempo 120.0 bpm (or 60)", CLOCK, "tempo of no music", True),
    ("tempo", "tempo 120.0 bpm (or 60)", TALK, "tempo of no music", False),
    ("tempo", "no accented beat, but notes keep time: 60 a minute, or a multiple", BAND,
     "tempo: notes' grid", True),
    ("tempo", "no accented beat, but notes keep time: 80 a minute, or a multiple", BAND,
     "tempo: notes' grid", False),
    ("key", "key C major (or A minor)", BAND, "key", True),
    ("key", "key F major (or C major)", BAND, "key", True),
    ("key", "key C# major (or C minor)", BAND, "key", False),
    ("key", "key C major (or A minor)", RAIN, "key of no notes", False),
    ("metre", "metre: accents group by 2 beats", BAND, "metre", True),
    ("metre", "metre: accents group by 3 beats", BAND, "metre", False),
    ("metre", "metre: 6/8, each beat parts in three", BAND, "metre", False),
    ("timbre", "C4-C5, blown: two or three partials, then a steep fall, as a flute", LINE,
     "timbre: family", True),
    ("timbre", "C4-C5, blown: many equally strong partials, brilliant, as a trumpet", LINE,
     "timbre: family", False),
    ("timbre", "0-8 s: B3-C#5, blown", LINE, "timbre: range", True),
    ("timbre", "A#3-C5, blown", LINE, "timbre: range", False),
    ("timbre", "C4-D5, blown", LINE, "timbre: range", False),
    ("lead", "lead notes 0.10:C4~0.5 1.00:C#4~0.5 2.00:D4~0.5", LINE, "lead", True),
    ("lead", "lead notes 0.10:C5~0.5 1.00:C#4~0.5 2.00:D4~0.5", LINE, "lead", False),
    ("bass", "bass 0.00:C4~0.5", BAND, "bass", True),
    ("bass", "bass 0.00:C4~0.5", LINE, "bass", False),
    ("chords", "chords 0.0:C 2.0:G7", BAND, "chords", True),
    ("chords", "chords 0.0:C 1.0:Am 2.2:Em", BAND, "chords", False),
    ("chords", "chords 0.0:C 2.0:G7", LINE, "chords of a line, or no notes", False),
    ("hits", "drum-like hits 0.5-15.0 s: 26 hat-like", BAND, "drum-like hits", True),
    ("hits", "drum-like hits 0.5-15.0 s: 26 hat-like", LINE, "drum-like hits", False),
    ("character", "character: busy (at least 1.2 beginnings/s)", LINE, "character: rate", True),
    ("character", "character: busy (2.0 beginnings/s)", LINE, "character: rate", False),
    ("onsets", "at least 20 onsets, 0.5 a second", LINE, "onsets", True),
    ("onsets", "20 onsets, 0.5 a second", LINE, "onsets", False),
    ("ends", "sound begins at 0.0 s, ends at 41.0 s", LINE, "ends", True),
    ("ends", "sound begins at 0.0 s, ends at 42.0 s", LINE, "ends", False),
    ("voice", "one voice, median pitch 92 Hz: low voice (male range)", TALK, "voice: register",
     True),
    ("voice", "one voice, median pitch 210 Hz: high voice (female or child range)", TALK,
     "voice: register", False),
    ("voice", "two voices in turn: L H", TALK, "voice: how many", False),
    ("voice", "one voice, or several that are not told apart, median pitch 92 Hz", TALK,
     "voice: how many", None),
    ("lead", "lead notes 0.10:C4~0.5", TALK, "lead of no notes", False),
    ("lead", "lead notes 0.10:C4~0.5", TALK_OVER_MUSIC, "lead of no notes", None),
    ("events", "18 separate knocks, every 0.5 s", CLOCK, "events: count", True),
    ("events", "9 separate knocks, every 0.5 s", CLOCK, "events: count", False),
    ("absent", "no musical beat, no drum-like hits", RAIN, "no drums", True),
    ("absent", "no drum-like hits", BAND, "no drums", False),
    ("absent", "no speech-like modulation", TALK, "no speech", False),
    ("portrait", "it is: like a hiss: rain, spray, steam, air; noise", RAIN, "likeness", True),
    ("portrait", "it is: like a scrape or a rub; rain", RAIN, "likeness", False),
    ("noise", "mostly noise, pink-like", RAIN, "noise", True),
    ("noise", "mostly noise, pink-like", LINE, "noise", False),
    ("jump", "loudness suddenly lower by 9 dB at 3.0 s", LINE, "loudness", False),
]  # fmt: skip


def observed(kind, text="", time=0.0):
    return nat.Observation(kind, time, 1.0, "", 0.8, text)


@pytest.mark.parametrize("kind, text, truth, row, verdict", CASES)
def test_a_verdict_tells_true_from_false(kind, text, truth, row, verdict):
    assert dict(facts.VERDICTS[kind](text, truth))[row] is verdict


def test_what_no_verdict_can_read_is_not_passed_over():
    for kind in ("tempo", "key", "metre", "onsets"):
        with pytest.raises(ValueError, match="no verdict can read"):
            list(facts.VERDICTS[kind]("said in other words", BAND))


def test_every_kind_and_word_that_is_judged_can_be_said():
    assert set(facts.VERDICTS) <= set(nat.FACTS)
    said = [words for words, _ in (*nat.STRUCK_WORDS, *nat.STEADY_WORDS)]
    assert all(any(part in words for part in facts.TIMBRES) for words in said)
    assert all(any(part in words for words in said) for part in facts.TIMBRES)
    text = PROGRAM.read_text(encoding="utf-8")
    for words in ("with drum-like hits", "one note at a time", "no accented beat"):
        assert words in text
    assert "over music" in nat.scene_heading([], [], "music").words


def test_events_of_a_scene_are_found_invented_or_told_in_pieces():
    said = [
        observed("events", "3 separate barks", 3.2),
        observed("event", "one tonal sound", 4.5),  # within the barks: a piece
        observed("glide", "one harmonic buzz", 12.0),
        observed("event", "one thud", 8.0),
        observed("course", "events in order", 0.0),
    ]
    assert facts.count_events(said, SCENE) == facts.EventCount(2, 2, 2, 1, 1)
    assert facts.count_events([observed("events", "4 separate barks", 2.5)], SCENE) == (
        2,
        1,
        0,
        0,
        0,
    )
    assert facts.count_events([], SCENE) == (2, 0, 0, 0, 0)


def test_a_tally_counts_what_is_said_and_what_is_missing():
    tally = facts.Tally()
    tally.add("a", [observed("tempo", "tempo 120.0 bpm (or 60)")], BAND)  # its drums are missed
    tally.add("b", [observed("hits"), observed("speech"), observed("bed")], RAIN)
    rows = {row: (right, wrong) for row, right, wrong in tally.table()}
    assert rows["tempo"] == (1, 0) and rows["missed drums"] == (0, 1)
    assert rows["drum-like hits"] == rows["speech"] == (0, 1) and "bed" not in rows
    sums = tally.summary()
    assert sums["false among all facts"] == (3, 5)
    assert sums["drums found"] == (0, 1) and sums["drums invented"] == (1, 1)
    assert sums["speech invented"] == (1, 2) and sums["speech found"] == (0, 0)


def test_a_midi_file_holds_tempo_and_notes():
    notes = [Played(1.0, 1.0, (60,), 90)]
    data = midi_file([Part(56, notes), Part(DRUMS, notes)], 120)
    assert data.startswith(b"MThd\0\0\0\6\0\1\0\3\1\xe0MTrk") and data.count(b"MTrk") == 3
    assert b"\0\xff\x51\3\7\xa1\x20" in data  # half a million microseconds a beat
    # program; after 480 ticks (two bytes) the note, 478 later its end
    assert b"\0\xc0\x38\x83\x60\x90\x3c\x5a\x83\x5e\x80\x3c\0\0\xff\x2f\0" in data
    assert b"MTrk\0\0\0\x0e\x83\x60\x99\x3c\x5a" in data  # drums: channel 10, no program


@pytest.mark.parametrize("kind", ["everyday", "scene"])
def test_same_dice_make_the_same_sound(kind):
    (one, truth), (other, same) = (KINDS[kind][2](Dice("3")) for _ in range(2))
    assert np.array_equal(one, other) and truth == same
    assert np.isfinite(one).all() and 0.19 < np.abs(one).max() < 1
    assert kind == "everyday" or truth.events[-1].end < len(one) / RATE


def test_a_scene_made_here_is_heard(tokenizer, tmp_path):
    made = KINDS["scene"][2](Dice("1 scene 0"))
    facts.save_wav(tmp_path / "scene.wav", made.samples)
    said = nat.hear(tmp_path / "scene.wav", tokenizer).observations
    counted = facts.count_events(said, made.truth)
    assert counted.played == len(made.truth.events) and counted.found >= counted.played - 1
