"""Section 10: the view for an LLM keeps its budget, stays a view of the tokens, and repeats."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import EXAMPLE, RATE, SETTINGS, chord, noise, song, tone

import neural_audio_tokenizer as nat

COUNTED = (  # texts and what cl100k_base counts for them
    ("- tempo 111.8 bpm (or 56)\n- metre: accents group by 2 beats [0.4]", 26),
    ("S0 runs: 0:636 8.8:16 11.7:636 17.2:968", 26),
    ("G#4+A4+D5; 93 A2+A3+E4; 55 E3+B3+E4", 26),
    ("my_Weird-File_name qxzj ünïcødé 日本 🎧.wav, 20.0 s", 29),
    ("-40 dB ±9, tonal, sub-bass 68%, centre 1.2 kHz …", 22),
)


def view_of(sound, tokenizer):
    """A view's material, as the stream sink gathers it."""
    gathered = nat.Gatherer()
    for tokens in tokenizer.tokens([sound]):
        gathered.add(nat.Clip(tokens.codes, tokens.semantic, tokens.acoustic, tokens.spectra))
    rate = SETTINGS.frame_rate / gathered.stride
    return nat.View("clip.wav", gathered.clip(), tokenizer.trained, rate, RATE)


@pytest.fixture(scope="module")
def views(tokenizer, example):
    mixed = np.concatenate([song(8.0), noise(4.0), tone(880.0, 4.0), np.zeros(RATE, np.float32)])
    sounds = {"example": example, "mixed": mixed, "noise": noise(5.0), "short": tone(300.0, 0.05)}
    return {name: view_of(sound, tokenizer) for name, sound in sounds.items()}


@pytest.mark.parametrize("text, least", COUNTED)
def test_the_fallback_counter_never_counts_less_than_a_real_bpe(text, least, monkeypatch):
    monkeypatch.setattr(nat, "bpe_counter", lambda: None)
    assert least <= nat.count_llm_tokens(text) <= 2.5 * least + 12


@pytest.mark.parametrize("budget", [60, 150, 250, 399, 600, 601, 1000, 2500, 4000])
@pytest.mark.parametrize("name", ["example", "mixed", "noise", "short"])
def test_a_budget_is_never_exceeded(views, name, budget):
    text = nat.view_text(views[name], replace(SETTINGS, max_llm_tokens=budget))
    assert nat.count_llm_tokens(text + "\n") <= budget
    assert text.startswith("SOUND clip.wav")


@pytest.mark.parametrize("budget", [250, 600, 1000, 2500])
def test_a_rich_sound_uses_its_budget_well(views, budget):
    text = nat.view_text(views["example"], replace(SETTINGS, max_llm_tokens=budget))
    assert nat.count_llm_tokens(text) >= 0.8 * budget


@pytest.mark.parametrize("budget", [600, 2500])
def test_codes_of_the_view_are_codes_of_the_stream(views, budget):
    text = nat.view_text(views["example"], replace(SETTINGS, max_llm_tokens=budget))
    runs = re.findall(r"^([SA]\d) runs: (.*)$", text, re.MULTILINE)
    assert runs
    for name, line in runs:
        layer = nat.LAYER_NAMES.index(name)
        stream = {str(code) for code in views["example"].clip.codes[:, layer]}
        written = {run.split(":")[1] for run in line.split()}
        legend = re.search(rf"^{name} (?!runs)\S.*?: (.*)$", text, re.MULTILINE).group(1)
        assert written <= stream
        assert written == {entry.split(" ")[0] for entry in legend.split("; ")}


def test_runs_begin_at_zero_and_go_forward(views):
    text = nat.view_text(views["mixed"], replace(SETTINGS, max_llm_tokens=2500))
    for line in re.findall(r"^[SA]\d runs: (.*)$", text, re.MULTILINE):
        times = [float(run.split(":")[0]) for run in line.split()]
        assert times[0] == 0 and times == sorted(times) and times[-1] < 18


def test_from_600_tokens_on_there_are_codes(views):
    assert "CODES" in nat.view_text(views["example"], replace(SETTINGS, max_llm_tokens=600))


def test_primer_and_questions_can_be_left_out(views):
    with_both = nat.view_text(views["example"], replace(SETTINGS, max_llm_tokens=2500))
    without = nat.view_text(views["example"], replace(SETTINGS, max_llm_tokens=2500, prompt=False))
    assert "imagery" in with_both and "cannot hear" in with_both
    assert "imagery" not in without and "cannot hear" not in without
    primers = max(text for _, text in nat.PRIMERS) + nat.QUESTIONS
    assert nat.count_llm_tokens(primers) <= 300


def test_observations_can_be_left_out(views):
    bare = replace(SETTINGS, max_llm_tokens=2500, observations=False)
    text = nat.view_text(views["example"], bare)
    assert "\nMEASURED\n" not in text and "S0 runs" in text


def test_the_most_important_comes_first_at_every_budget(views):
    def facts(budget):
        text = nat.view_text(views["example"], replace(SETTINGS, max_llm_tokens=budget))
        return [line for line in text.splitlines() if line.startswith("- ")]

    short, long = facts(200), facts(3000)
    assert 2 <= len(short) < len(long)
    assert [line[:20] for line in short] == [line[:20] for line in long[: len(short)]]


def test_same_sound_same_view(example, tokenizer):
    texts = {nat.view_text(view_of(example, tokenizer), SETTINGS) for _ in range(2)}
    assert len(texts) == 1


def test_a_view_of_a_stretch(run_main):
    whole = run_main(EXAMPLE, "--format", "stream", "--max-llm-tokens", "1500").out.decode()
    part = run_main(EXAMPLE, "--format", "stream", "--from", "14", "--to", "17").out.decode()
    assert "tempo" in whole and part != whole
    assert "kick" not in part.split("CODES")[0]


def test_a_path_costs_no_more_than_any_other():
    distortion = np.random.RandomState(1).random_sample((6, 3))
    for price in (0.0, 0.3, 5.0):

        def cost(path):
            changes = np.count_nonzero(np.diff(path))
            return distortion[np.arange(6), list(path)].sum() + price * changes

        best = min(cost(path) for path in itertools.product(range(3), repeat=6))
        assert cost(nat.cheapest_path(distortion, price)) == pytest.approx(best)


def test_chosen_codes_leave_less_distortion_the_more_they_are():
    distortion = np.random.RandomState(2).random_sample((50, 12))
    left = [distortion[:, nat.choose_codes(distortion, k)].min(axis=1).sum() for k in range(1, 9)]
    assert all(more < fewer for fewer, more in zip(left, left[1:]))


def test_a_long_sound_is_thinned_evenly(monkeypatch, tokenizer, example):
    tokens = next(iter(tokenizer.tokens([example])))
    clip = nat.Clip(tokens.codes, tokens.semantic, tokens.acoustic, tokens.spectra)
    monkeypatch.setattr(nat, "MAX_ROWS", 1000)
    gathered, count = nat.Gatherer(), len(clip.codes)
    for _ in range(5):
        gathered.add(clip)
    whole = np.concatenate([clip.codes] * 5)
    assert len(gathered.clip().codes) <= 1000
    assert np.array_equal(gathered.clip().codes, whole[:: gathered.stride])
    assert gathered.stride == 8 and count > 700


def test_room_that_facts_leave_goes_to_codes(views):
    bare = replace(SETTINGS, max_llm_tokens=300, observations=False)
    text = nat.view_text(views["example"], bare)
    assert "S0 runs" in text and nat.count_llm_tokens(text) >= 0.6 * 300


@pytest.mark.parametrize(
    "words, status", [(("--from", "30"), 1), (("--from", "8", "--to", "4"), 2)]
)
def test_a_stretch_that_is_none_is_one_line(run_main, words, status):
    result = run_main("--quiet", EXAMPLE, "--format", "stream", *words)
    assert (result.status, result.out, result.err.count("\n")) == (status, b"", 1)


def test_a_piece_of_parts_is_told_part_by_part(tokenizer):
    fade = np.linspace(1, 0, int(0.3 * RATE)) ** 2
    keys = (62, 66, 69, 66, 67, 64) * 8
    tune = [tone(440 * 2 ** ((m - 69) / 12), 0.3, partials=6)[: len(fade)] * fade for m in keys]
    swell = np.minimum(1, np.linspace(0, 8, int(1.5 * RATE)))
    held = [chord(notes, 1.5) * swell for notes in [(60, 64, 67), (65, 69, 72), (67, 71, 74)] * 3]
    sound = np.concatenate([*tune, *held, chord(seconds=2.0)]).astype(np.float32)
    page = nat.hear(sound, tokenizer).page(1500)
    parts = re.findall(r"part [A-Z] (\d+)-(\d+) s: (.*)", page)
    assert abs(int(parts[0][1]) - 0.3 * len(keys)) < 2, page
    assert re.match("a single line alone; .*D4-A4.*repeating the same short figure", parts[0][2])
    assert all(part[2].startswith("several notes at once; key C major") for part in parts[1:])
    assert "\n- tempo" not in page and "\n- key" not in page


@pytest.mark.parametrize(
    "key, notes",
    [
        ("D# major", "Db4 Eb4 Ab Bbm7"),
        ("E minor", "C#4 D#4 G# A#m7"),
        ("A minor", "C#4 D#4 G# Bbm7"),
        ("F# minor", "C#4 D#4 G# A#m7"),
        ("F minor", "Db4 Eb4 Ab Bbm7"),
    ],
)
def test_notes_are_spelt_as_their_key_writes_them(key, notes):
    assert nat.spell("C#4 D#4 G# A#m7", key) == notes
    assert nat.spell("C4 C major 3 dB, F4", key) == "C4 C major 3 dB, F4"


def test_keys_are_named_by_use():
    text = "key A# major (or D# minor); then G# minor, F# major, C# major"
    told = "key Bb major (or Eb minor); then G# minor, F# major, Db major"
    assert nat.spell(text, "E major") == told


def test_a_key_that_changes_spells_the_notes():
    keys = tuple(nat.Key(tonic, "major", 0.8, "none") for tonic in ("A#", "F"))
    chords = tuple(nat.Chord(4.0 * k, 4.0, name, 0.7) for k, name in enumerate(("A#", "D#", "F")))
    facts = [
        nat.Observation("key", 29.0, 0.0, keys, 0.8,
                        "key changes at about 29 s: A# major before, F major after"),
        nat.Observation("chords", 0.0, 60.0, chords, 0.8, "chords 0.0:A# 4.0:D# 8.0:F"),
    ]  # fmt: skip
    key, chords = nat.spelt(facts)
    assert key.text == "key changes at about 29 s: Bb major before, F major after"
    assert chords.text == "chords 0.0:Bb 4.0:Eb 8.0:F"
    assert [one.name for one in key.value] == ["Bb major", "F major"]
    assert [chord.name for chord in chords.value] == ["Bb", "Eb", "F"]


@pytest.mark.parametrize(
    "kind, value, span, told",
    [
        ("part", nat.Part("A", ("drums",)), (0, 12), "drum-like hits at 0-12 s only"),
        ("part", nat.Part("B", ("notes", "drums")), (9, 21), "drum-like hits at 9-30 s only"),
        ("course", (nat.Stretch(0, 7, nat.PERCUSSION), nat.Stretch(7, 30, "music")), (0, 30),
         "drum-like hits at 0-7 s at least"),
    ],
)  # fmt: skip
def test_drums_of_a_part_are_told_of_the_whole(kind, value, span, told):
    words = "reads as: pitched notes, no clear drum-like hits"
    facts = [
        nat.Observation("sound", 0.0, 30.0, ("notes",), 0.8, words),
        nat.Observation(kind, *span, value, 0.8, ""),
    ]
    heading = nat.clarify(facts)[0]
    assert told in heading.text and "no clear" not in heading.text
    assert heading.value == ("notes", "drums")


def test_a_section_that_keeps_the_beat_of_music_is_music():
    periods = np.arange(len(nat.PERIODS))
    beat, machine = (np.exp(-0.5 * (periods - at) ** 2) for at in (6, 17))
    sections = {
        0: (beat, ("notes", "drums")),
        10: (0.4 * beat + 0.2, ("sounds",)),
        20: (machine, ("sounds",)),
        30: (beat, ("speech", "music")),
        40: (machine, ("speech",)),
    }

    def section(start: float, stop: float):
        profile, heard = sections[start]
        rows = nat.NO_SPECTRA._replace(tempogram=np.tile(profile, (40, 1)))
        return rows, [nat.Observation("sound", 0.0, stop - start, heard, 0.8, "")]

    spans = [nat.Stretch(start, start + 10, "A") for start in sections]
    alone = ["music", "other sounds", "other sounds", "speech", "speech"]
    assert nat.words_in_turn(spans, section, music=False) == alone
    told = nat.words_in_turn(spans, section, music=True)
    assert told == ["music", "music", "other sounds", "music and speech", "speech"]
    # Without music there is no beat to be kept.
    assert nat.words_in_turn(spans[1:], section, music=True) == alone[1:]
    short = [nat.Stretch(0, 1, "A"), *spans[1:]]
    assert nat.words_in_turn(short, section, music=True) == ["", *alone[1:]]


# Every kind of fact and its value


def source_kinds():
    """The kinds that the program states, from its calls of Observation and told."""
    text = Path(nat.__file__).read_text(encoding="utf-8")
    return set(re.findall(r"\b(?:Observation|told)\(\s*\"(\w+)\"", text))


def is_a(value, words):
    """Whether a value is of a type that FACTS names, of plain numbers and words throughout."""
    kinds = {"float": float, "int": int, "str": str, "None": type(None)}
    if words.startswith("tuple of "):
        of = words.removeprefix("tuple of ")
        return type(value) is tuple and all(is_a(part, of) for part in value)
    if words in kinds:
        return type(value) is kinds[words]
    plain = (float, int, str, bool, tuple, type(None), nat.Key, nat.Envelope, nat.Pitch)
    return type(value) is getattr(nat, words) and all(type(part) in plain for part in value)


def test_the_table_of_kinds_names_all_that_is_stated():
    assert source_kinds() == set(nat.FACTS)


@pytest.mark.parametrize("name", ["example", "mixed", "noise", "short"])
def test_every_value_is_what_the_table_says(views, name):
    view = views[name]
    rows = nat.rhythm_observations(view.clip.spectra, view.row_rate)
    rows += nat.pitch_observations(view.clip.spectra, view.row_rate)
    for fact in (*nat.observe(view), *rows):
        types = nat.FACTS[fact.kind].split(":")[0].split(" or ")
        assert any(is_a(fact.value, words) for words in types), fact
        assert {type(x) for x in (fact.time, fact.duration, fact.confidence)} == {float}, fact
        told = json.loads(json.dumps(fact.as_dict(), allow_nan=False))
        assert list(told) == ["kind", "start", "end", "value", "confidence", "text"]
        assert told["end"] - told["start"] == pytest.approx(fact.duration)


def test_facts_of_the_example_are_data(views):
    first = {fact.kind: fact for fact in reversed(nat.observe(views["example"]))}
    assert f"tempo {first['tempo'].value:.1f} bpm" in first["tempo"].text
    assert first["key"].value.name in first["key"].text
    chords = " ".join(f"{chord.start:.1f}:{chord.name}" for chord in first["chords"].value)
    assert chords in first["chords"].text
    assert all(0 <= note.start < 20 for note in first["lead"].value)
    hits, text = first["hits"].value, first["hits"].text
    assert f"hits {hits[0].time:.1f}-{hits[-1].time:.1f} s" in text


def test_46_ms_of_a_tone_are_no_silence(tokenizer):
    page = nat.hear(0.2 * tone(440.0, 0.046), tokenizer).page(600)
    assert "unpitched hits" in page and "silence" not in page and "loudness varies" not in page


def test_a_few_parts_come_first_and_many_after_what_holds_of_the_whole():
    def kinds(parts):
        part = nat.Observation("part", 0.0, 9.0, nat.Part("A", ("notes",)), 0.7, "part A")
        rest = [nat.Observation(kind, 0.0, 9.0, None, 0.7, kind) for kind in ("timbre", "tempo")]
        return [fact.kind for fact in nat.in_order([part] * parts + rest)]

    assert kinds(3) == ["part", "part", "part", "tempo", "timbre"]
    assert kinds(8)[:3] == ["tempo", "timbre", "part"]
