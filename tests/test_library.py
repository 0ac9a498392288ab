"""The program as a library: any source in, `Codes` and pages out, nothing heavy on import."""

from __future__ import annotations

import inspect
import io
import logging
import math
import re
import subprocess
import sys
import threading
import typing
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from conftest import (
    EXAMPLE,
    HOP,
    RATE,
    ROOT,
    SETTINGS,
    load_wav,
    noise,
    note_hz,
    save_wav,
    song,
    tone,
)

import neural_audio_tokenizer as nat

HEAVY = ("torch", "torchaudio", "transformers", "matplotlib", "librosa", "soundfile", "scipy")


@pytest.fixture(scope="module")
def codes(tokenizer, example):
    return tokenizer.encode(example)


def test_import_costs_nothing_heavy():
    code = (
        "import sys; from neural_audio_tokenizer import Codes, Settings, Tokenizer, hear, open_audio\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == b"[]" and not done.stderr


# What may be heard


def blocks_of(sound, size):
    return (sound[at : at + size] for at in range(0, len(sound), size))


SOURCES = {
    "path as text": lambda sound: str(EXAMPLE),
    "path": lambda sound: EXAMPLE,
    "float32": lambda sound: sound,
    "float64": lambda sound: sound.astype(np.float64),
    "int16": lambda sound: np.rint(sound * 32768).astype(np.int16),
    "int32": lambda sound: np.rint(sound * 2.0**31).clip(max=2**31 - 1).astype(np.int32),
    "one channel": lambda sound: sound[:, None],
    "two equal channels": lambda sound: np.stack([sound, sound], axis=1),
    "blocks": lambda sound: blocks_of(sound, 5000),
    "a list of blocks": lambda sound: list(blocks_of(sound, 70000)),
    "blocks, some empty": lambda sound: [sound[:0], sound[:9], sound[:0], sound[9:]],
    "open audio": lambda sound: nat.open_audio(EXAMPLE, SETTINGS),
    "a list of numbers": lambda sound: sound.tolist(),
    "bytes": lambda sound: EXAMPLE.read_bytes(),
    "a view of bytes": lambda sound: memoryview(bytearray(EXAMPLE.read_bytes())),
    "a file in memory": lambda sound: io.BytesIO(EXAMPLE.read_bytes()),
    "a file opened as bytes": lambda sound: open(EXAMPLE, "rb"),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_every_kind_of_source_gives_the_same_codes(tokenizer, codes, example, make):
    heard = tokenizer.encode(make(example))
    assert (heard.array == codes.array).all() and heard.seconds == codes.seconds


def test_arrays_of_another_rate_are_resampled_as_files_are(tokenizer, tmp_path):
    sound = np.round(tone(440.0, 2.0, rate=48000) * 32768) / 32768
    file = tokenizer.encode(save_wav(tmp_path / "a.wav", sound, rate=48000))
    array = tokenizer.encode(sound, sample_rate=48000)
    assert (file.array == array.array).all() and array.seconds == 2.0
    blocks = tokenizer.encode(blocks_of(sound, 777), sample_rate=48000)
    assert (blocks.array == array.array).all()
    assert len(tokenizer.encode(sound)) > 2 * len(array)  # at the analysis rate it is longer


def test_blocks_are_taken_as_they_come(tokenizer, example):
    taken = []

    def blocks():
        for at in range(0, len(example), 4410):
            taken.append(at)
            yield example[at : at + 4410]

    with nat.open_audio(blocks(), SETTINGS) as audio:
        first = next(tokenizer.tokens(audio))
    assert len(first.codes) and len(taken) * 0.2 < nat.CONTEXT_SECONDS + 0.7


def test_what_the_caller_owns_is_left_as_it_is(tokenizer, warnings_said):
    sound = tone(440.0, 0.5).astype(np.float64)
    sound[100], sound[200] = np.nan, 1e60
    before = sound.copy()
    tokenizer.encode(sound)
    assert np.array_equal(sound, before, equal_nan=True)
    assert any("not finite" in said for said in warnings_said)


WRONG = {
    "nothing": (lambda: np.zeros(0), "no samples"),
    "no blocks": (lambda: [], "no samples"),
    "numbers one by one": (lambda: iter([0.1, 0.2]), "shape"),
    "None": (lambda: None, "NoneType is no sound; give a path"),
    "a number": (lambda: 5, "int is no sound"),
    "an object": (lambda: object(), "object is no sound"),
    "a file opened as text": (lambda: open(__file__), r"test_library.py: .*open\(path, .rb.\)"),
    "bytes of no sound": (lambda: b"Not found" * 99, r"no known sound format.*Settings\(raw="),
    "no bytes": (lambda: b"", "empty"),
    "an address": (lambda: "https://a.org/b.wav", "https://a.org/b.wav: .*download it first"),
    "a folder": (lambda: str(ROOT), "is a folder"),
    "three axes": (lambda: np.zeros((2, 3, 4)), "shape"),
    "text in an array": (lambda: np.array(["a"]), "samples are"),
    "unsigned": (lambda: np.zeros(99, np.uint8), "samples are"),
    "complex": (lambda: np.zeros(99, complex), "samples are"),
    "channels first": (lambda: np.zeros((2, 9999)), "channels come last: transpose"),
    "not a number in it": (lambda: np.full(99, np.nan), "finite"),
    "no such file": (lambda: "nothing.wav", "no such file"),
}


@pytest.mark.parametrize("make, word", WRONG.values(), ids=WRONG)
def test_what_is_no_sound_is_an_audio_error(tokenizer, make, word):
    with pytest.raises(nat.AudioError, match=word):
        tokenizer.encode(make())


@pytest.mark.parametrize("rate", [0, 7, -1, "44100", 44100.5, float("nan"), float("inf"), [44100]])
def test_a_rate_that_no_sound_has_is_refused(tokenizer, rate):
    with pytest.raises(nat.AudioError, match="sample.rate"):
        tokenizer.encode(np.zeros(99), sample_rate=rate)


def test_a_whole_number_is_a_rate_of_any_type(tokenizer):
    sound = tone(440.0, 1.0, rate=44100)
    plain = tokenizer.encode(sound, sample_rate=44100)
    assert plain == tokenizer.encode(sound, sample_rate=44100.0)
    assert plain == tokenizer.encode(sound, sample_rate=np.int64(44100))


@pytest.mark.parametrize(
    "make", [str, lambda p: p, lambda p: p.read_bytes(), lambda p: open(p, "rb")]
)
def test_a_rate_beside_a_file_is_refused(tokenizer, make):
    with pytest.raises(nat.AudioError, match="a file says its own"):
        tokenizer.encode(make(EXAMPLE), sample_rate=22050)


def test_a_files_name_is_the_title(tokenizer):
    with open(EXAMPLE, "rb") as file:
        assert nat.hear(file, tokenizer).view.title.startswith("spouter.wav, 20.0 s")
        assert not file.closed


MISSCALED = {
    "16 bits in int64": (lambda sound: np.rint(sound * 32768).astype(np.int64), "as int16"),
    "16 bits in int32": (lambda sound: np.rint(sound * 32768).astype(np.int32), "as int16"),
    "a list of 16-bit numbers": (
        lambda sound: np.rint(sound * 32768).astype(int).tolist(),
        "int16",
    ),
    "floats up to 32768": (lambda sound: sound * 32768, "divide"),
}


@pytest.mark.parametrize("make, word", MISSCALED.values(), ids=MISSCALED)
def test_samples_of_another_scale_are_told_of(tokenizer, warnings_said, make, word):
    tokenizer.encode(make(tone(440.0, 0.5)))
    assert len(warnings_said) == 1 and word in warnings_said[0]


WELL_SCALED = {
    "quiet int16": lambda sound: np.rint(sound * 8).astype(np.int16),
    "int32": lambda sound: np.rint(sound * 2.0**31).astype(np.int32),
    "silent int32": lambda sound: np.zeros(9999, np.int32),
    "hot floats": lambda sound: sound * 12,
    "silent floats": lambda sound: sound * 0,
}


@pytest.mark.parametrize("make", WELL_SCALED.values(), ids=WELL_SCALED)
def test_samples_of_full_scale_are_not(tokenizer, warnings_said, make):
    tokenizer.encode(make(tone(440.0, 0.5)))
    assert not warnings_said


def test_a_limit_of_duration_holds_for_arrays(tokenizer):
    short = nat.Tokenizer(
        replace(SETTINGS, max_duration=0.5), ears=tokenizer.ears, trained=tokenizer.trained
    )
    with pytest.raises(nat.AudioError, match="longer than 0.5 s"):
        short.encode(tone(440.0, 0.6))


# Codes


def test_codes_tell_what_they_are(tokenizer, codes, example):
    assert codes.array.dtype == np.int16 and codes.array.shape == (-(-len(example) // HOP), 8)
    assert codes.codebook_id == tokenizer.codebook_id and codes.seconds == len(example) / RATE
    assert codes.frame_rate == pytest.approx(RATE / HOP) and len(codes) == len(codes.array)
    assert codes.times[0] == 0 and codes.times[43] == pytest.approx(43 * HOP / RATE)
    assert codes.times.shape == (len(codes),) and codes.times[-1] < codes.seconds


def test_numpy_takes_codes_for_their_array(codes):
    assert np.asarray(codes) is codes.array or np.shares_memory(np.asarray(codes), codes.array)
    assert np.asarray(codes, np.int64).dtype == np.int64
    copied = np.array(codes)
    copied[0] = 0  # a copy may be written
    assert np.array_equal(codes, codes.array) and np.unique(codes).max() < 1000


def test_codes_are_read_only(codes):
    with pytest.raises(ValueError):
        codes.array[0] = 1
    with pytest.raises(FrozenInstanceError):
        codes.seconds = 1.0


def test_codes_compare_by_what_they_say(tokenizer, codes):
    again = tokenizer.encode(EXAMPLE)
    assert again == codes and again is not codes and len({again, codes}) == 1
    changed = codes.array.copy()
    changed[5, 5] += 1
    for other in (replace(codes, array=changed), replace(codes, codebook_id="other-1-2"), 7):
        assert codes != other


def test_what_is_shown_of_results_is_short(tokenizer, codes, heard):
    for thing, words in ((codes, "862 frames, 20.0 s"), (heard, "spouter.wav"), (heard.view, "20.0 s"),
                         (tokenizer, tokenizer.codebook_id)):  # fmt: skip
        assert words in repr(thing) and len(repr(thing)) < 200
    assert repr(codes) in repr([codes])


# Pages


@pytest.fixture(scope="module")
def heard(tokenizer):
    return nat.hear(EXAMPLE, tokenizer)


def test_hearing_has_the_same_codes(heard, codes):
    assert (heard.codes.array == codes.array).all() and heard.codes.seconds == codes.seconds


def test_a_page_is_what_the_command_line_writes(heard, run_main):
    page = run_main("--format", "stream", "--max-llm-tokens", "600", EXAMPLE).out.decode()
    assert heard.page(max_llm_tokens=600) + "\n" == page


@pytest.mark.parametrize("budget", [60, 250, 600])
def test_a_page_keeps_its_budget(heard, budget):
    page = heard.page(max_llm_tokens=budget)
    assert nat.count_llm_tokens(page) <= budget and page.startswith("SOUND spouter.wav, 20.0 s")


@pytest.mark.parametrize("budget", [59, 0, -1, 60.5, "600", None, math.nan, True])
def test_a_budget_that_holds_no_page_is_refused(heard, budget):
    with pytest.raises(
        nat.UsageError, match=f"tokens: {budget!r} is not a whole number from 60 to"
    ):
        heard.page(max_llm_tokens=budget)


def test_bytes_read_as_samples_say_so_on_the_page(tokenizer, run_main, tmp_path):
    (tmp_path / "notes.txt").write_bytes(b"This is a text and no sound at all. " * 999)
    page = run_main("--format", "stream", tmp_path / "notes.txt").out.decode()
    assert "(unknown format: its bytes were read as 8-bit samples)" in page.splitlines()[0]
    header = run_main(tmp_path / "notes.txt").out.decode().splitlines()[0]
    assert (
        "it may be no sound" in header
        and "it may be no sound" not in run_main(EXAMPLE).out.decode()
    )
    asked = run_main("--format", "stream", "--raw", "u8", tmp_path / "notes.txt").out.decode()
    assert "unknown format" not in asked


def test_lines_are_what_the_command_line_writes(heard, run_main):
    text = "".join(f"{line}\n" for line in heard.lines())
    assert text.encode() == run_main(EXAMPLE).out
    again = nat.decode_stream(iter(text.splitlines(keepends=True)))
    assert again.whole and np.array_equal(again.codes, heard.codes)


def test_lines_come_while_the_sound_goes_on(tokenizer, heard, example):
    said = []

    def microphone():
        for block in blocks_of(example, 2205):
            said.append(len(block))
            yield np.stack([block, block], axis=1)

    lines = list(nat.live_lines(EXAMPLE, tokenizer))
    assert lines == list(heard.lines())
    live = nat.live_lines(microphone(), tokenizer)
    first = [next(live) for _ in range(30)]
    assert sum(said) / RATE < 0.7 + nat.CONTEXT_SECONDS + 0.5  # 30 lines hold under 0.7 s
    again = [*first, *live]
    assert again[1:-1] == lines[1:-1] and '"name":"samples"' in again[0]  # but for the two ends
    with pytest.raises(nat.AudioError, match="no such file"):
        next(nat.live_lines("nothing.wav", tokenizer))


def test_sound_is_rebuilt_as_the_command_line_does(tokenizer, run_main, tmp_path):
    path = save_wav(tmp_path / "a.wav", song(2.0))
    sound = nat.hear(path, tokenizer).rebuilt()
    run_main("--reconstruct", "--output-dir", tmp_path / "out", path)
    written, rate = load_wav(tmp_path / "out" / "a_reconstructed.wav")
    assert rate == RATE and len(sound) == len(written) == 2 * RATE
    assert np.abs(np.clip(sound, -1, 1) - written).max() < 2 / 32768


def test_a_page_may_be_bare(heard):
    page = heard.page(600, prompt=False, observations=False)
    assert "MEASURED" not in page and "TELL" not in page and "CODES" in page


def test_observations_are_facts_with_times(heard):
    assert any(fact.kind == "tempo" for fact in heard.observations)
    words = inspect.getdoc(nat.Hearing.observations)
    assert all(f"`{name}`" in words for name in ("kind", "time", "duration", "value", "text"))
    assert {fact.kind for fact in heard.observations} <= set(nat.FACTS)
    assert all(0 <= fact.time <= 20.0 and 0 <= fact.confidence <= 1 for fact in heard.observations)


def test_numbers_of_a_result_are_pythons(heard, codes):
    told = [x for fact in heard.observations for x in fact if isinstance(x, (float, np.generic))]
    told += [codes.seconds, codes.frame_rate, *nat.compare(codes, codes).layers[3][1:]]
    assert {type(x) for x in told} == {float} and type(nat.compare(codes, codes).lag) is float


def test_a_stretch_is_looked_at_alone(tokenizer, heard):
    part = nat.hear(EXAMPLE, tokenizer, start=0.0, stop=3.0)
    assert (part.codes.array == heard.codes.array).all()
    assert "from 0 to 3 s" in part.page(600).splitlines()[0]
    assert all(fact.time <= 3.0 for fact in part.observations)
    with pytest.raises(nat.AudioError, match="nothing to view"):
        nat.hear(EXAMPLE, tokenizer, start=30.0)
    with pytest.raises(nat.UsageError, match="between 4 and 2 s"):
        nat.hear(EXAMPLE, tokenizer, start=4.0, stop=2.0)


def test_the_stretch_of_the_settings_is_looked_at(tokenizer):
    viewed = replace(tokenizer.settings, view_from=1.0, view_to=3.0)
    narrow = nat.Tokenizer(viewed, ears=tokenizer.ears, trained=tokenizer.trained)
    title = nat.hear(EXAMPLE, narrow).page(600).splitlines()[0]
    assert "from 1 to 3 s" in title
    assert "from 0.5 to 3 s" in nat.hear(EXAMPLE, narrow, start=0.5).page(600).splitlines()[0]
    with pytest.raises(nat.UsageError, match="between 3 and 2 s"):
        nat.Settings(view_from=3.0, view_to=2.0)


def test_arrays_and_blocks_can_be_heard_too(tokenizer):
    sound = song(3.0)
    page = nat.hear(sound, tokenizer).page(300)
    assert page.startswith("SOUND samples, 3.0 s")
    assert nat.hear(blocks_of(sound, 999), tokenizer).page(300) == page


@pytest.mark.skipif(sys.version_info < (3, 10), reason="X | None is text to it")
def test_hints_can_be_resolved_by_tools():
    for function in (nat.open_audio, nat.hear, nat.Tokenizer.encode, nat.Hearing.page):
        names = {"os": __import__("os"), **vars(nat)}
        assert typing.get_type_hints(function, names)["return"]


WRONG = {
    "sample_rate": (7, 22050.5, "22050", None), "seed": (-5, 2**32), "codebook_size": (0, 40000),
    "threads": (True,), "mert_layer": (99,), "keyframe_interval": (0, math.nan),
    "max_duration": (math.inf,), "view_from": (-1.0,), "view_to": ("end",),
    "codebook_init": ("spektral", ["mert"]), "precision": ("fp16",), "viz_theme": (None,),
    "device": ("gpu", 0), "raw": (("u8", 22050, 1), "u8"), "encodings": (("rle",), "dense", None),
    "offline": ("no", 1), "mert_model": (None, 7), "cache_dir": (7,),
}  # fmt: skip


@pytest.mark.parametrize("field", WRONG)
def test_a_setting_that_cannot_be_is_refused_by_its_name(field):
    for value in WRONG[field]:
        with pytest.raises(nat.UsageError, match=f"^{field}: .* is not ") as told:
            nat.Settings(**{field: value})
        assert isinstance(told.value, ValueError) and repr(value)[:60] in str(told.value)


def test_settings_keep_plain_values(tmp_path):
    made = nat.Settings(sample_rate=np.int64(44100), view_to=9, seed=7.0, cache_dir=tmp_path)
    kinds = [type(value) for value in (made.sample_rate, made.view_to, made.seed, made.cache_dir)]
    assert kinds == [int, float, int, str] and made == nat.Settings(
        sample_rate=44100, view_to=9.0, seed=7, cache_dir=str(tmp_path)
    )


def test_the_command_line_refuses_in_the_words_of_the_settings(run_main):
    for option, field, value in (("--resample", "sample_rate", 7), ("--seed", "seed", -5)):
        with pytest.raises(nat.UsageError) as told:
            nat.Settings(**{field: value})
        words = str(told.value).partition(": ")[2]
        assert f"{option}: {words}" in run_main(option, value, "x").err


def test_every_field_of_a_range_or_a_choice_is_one_of_the_settings():
    names = {field.name for field in fields(nat.Settings)}
    assert {*nat.RANGES, *nat.RULES} <= names and tuple(nat.THEMES) == nat.CHOICES["viz_theme"]


def test_what_is_not_installed_is_said_shortly_and_what_it_lacks_is_named(tmp_path, monkeypatch):
    (tmp_path / "lacking_ear.py").write_text("import no_such_part")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert nat.load_package("no_such_ear")[1] == "no_such_ear is not installed"
    assert "No module named 'no_such_part'" in nat.load_package("lacking_ear")[1]


def test_settings_are_not_an_ears_name():
    with pytest.raises(TypeError, match=r"Settings\(\.\.\.\), not 'spectral'"):
        nat.Tokenizer("spectral")
    assert inspect.signature(nat.Tokenizer).parameters["settings"].default == nat.Settings()


def test_an_ear_that_cannot_be_had_names_the_cure():
    with pytest.raises(nat.MissingError, match="--mert-model DIR.*--doctor"):
        nat.Tokenizer(nat.Settings(fallback=False, compat_fallback=True))


# Two sounds


def melody(up=0, seed=1):
    """Eight seconds of plucked notes; `up` in semitones, another tune for another seed."""
    steps, fall = (
        np.random.RandomState(seed).choice((0, 2, 4, 5, 7, 9, 11, 12), 32),
        np.exp(-np.arange(5512) / 3000),
    )
    return np.concatenate(
        [tone(note_hz(57 + k + up), 0.25, partials=6) * fall for k in steps]
    ).astype(np.float32)


CHANGED = {  # what becomes of the example: what is said of it, the lag, and layers that keep and lose
    "nothing": (lambda x: x, "identical", 0.0, range(8), ()),
    "6 dB softer": (lambda x: x / 2, "the same recording, other in loudness or timbre", 0.0, (0, 1, 2, 5, 6), (4,)),
    "a second later": (lambda x: np.concatenate([np.zeros(RATE, np.float32), x]),
                       "the same recording, the second 1.00 s later", 43 * HOP / RATE, (0, 1, 3, 4, 5, 6, 7), ()),
    "a part of it": (lambda x: x[8 * RATE : 16 * RATE],
                     "the same recording, the second 8.01 s earlier", -345 * HOP / RATE, (4, 5), ()),
    "MP3": (lambda x: nat.through_codec(x, "MP3", kbps=64, settings=SETTINGS),
            "the same recording", 0.0, (0, 1, 3, 4, 5, 6, 7), ()),
    "other sound": (lambda x: noise(8.0), "no more alike", None, (), range(8)),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGED)
def test_two_sounds_are_compared(tokenizer, codes, example, change):
    make, words, lag, kept, lost = CHANGED[change]
    try:
        other = tokenizer.encode(make(example))
    except nat.MissingError as error:
        pytest.skip(str(error))
    found = nat.compare(codes, other)
    assert found.verdict.startswith(words) and found.identical == (change == "nothing")
    assert lag is None or found.lag == pytest.approx(lag, abs=1.5 * HOP / RATE)
    beyond = [row.in_step - row.in_step_chance for row in found.layers]
    assert all(beyond[k] > 0.4 for k in kept) and all(beyond[k] < 0.05 for k in lost)
    back = nat.compare(other, codes)
    assert (back.lag, back.layers) == (-found.lag, found.layers)
    if change == "nothing":
        assert all(row.in_step == row.in_common == 1 for row in found.layers)


def test_what_is_played_higher_keeps_its_rhythm_and_no_pitch(tokenizer):
    low, high, other = (tokenizer.encode(x) for x in (melody(), melody(3), melody(0, 2)))
    found = nat.compare(low, high)
    assert found.lag == 0 and found.verdict.startswith("in step: alike in pulse, timbre, change;")
    same, tune = (np.array([row[1:] for row in nat.compare(low, x).layers]) for x in (high, other))
    assert same[1, 2] == 0 < tune[1, 2] and same[5, 2] < tune[5, 2] - 0.2  # notes in common


def test_another_stretch_of_a_piece_is_of_its_kind(tokenizer, example):
    parts = example[: 10 * RATE], example[10 * RATE :]
    found = nat.compare(*map(tokenizer.encode, parts))
    assert found.verdict.startswith("of a kind") and found.verdict.endswith("not in step")
    still = nat.compare(*(tokenizer.encode(tone(440.0, seconds)) for seconds in (4.0, 6.0)))
    assert still.verdict.startswith("of a kind") and still.verdict.endswith("both stand still")
    short = nat.compare(*(tokenizer.encode(part[:RATE]) for part in parts))
    assert short.verdict == "too short to tell: under 3 s"


def random_codes(frames, codebook_id="spectral-1-2", seed=0):
    """Codes drawn evenly from 50 a layer."""
    array = np.random.RandomState(seed).randint(50, size=(frames, 8)).astype(np.int16)
    return nat.Codes(array, RATE / HOP, frames * HOP / RATE, codebook_id)


def test_chance_is_what_independent_codes_have():
    pairs = [(random_codes(500, seed=k), random_codes(900, seed=k + 99)) for k in range(20)]
    rows = np.array([[row[1:3] for row in nat.compare(*pair).layers] for pair in pairs])
    step, luck = rows.mean(axis=(0, 1))
    assert abs(step - luck) < 0.003 and 0.015 < luck < 0.03  # one of 50, and what the best lag adds


@pytest.mark.parametrize("kinds", [2, 3, 40])  # frequent codes and rare ones are counted otherwise
def test_the_best_lag_is_that_of_a_plain_search(kinds):
    one, other = (random_codes(n, seed=n).array % kinds for n in (70, 110))
    other[20:60] = one[10:50]

    def equal(lag):
        """Equal codes of each layer where one's frame t meets other's t + lag."""
        first, stop = max(0, -lag), min(len(one), len(other) - lag)
        return (one[first:stop] == other[first + lag : stop + lag]).sum(axis=0)

    lag, straight, reverse = nat.best_lag(one, other)
    best = max(range(1 - len(one), len(other)), key=lambda k: equal(k).sum())
    assert lag == best == 10 and straight.tolist() == equal(10).tolist()
    one = one[::-1]
    assert reverse.sum() == max(equal(k).sum() for k in range(1 - len(one), len(other)))


def test_codes_of_another_ear_have_no_chance_of_their_own():
    found = nat.compare(random_codes(200, "mert-1-2"), random_codes(200, "mert-1-2", seed=1))
    assert [row.in_common_chance is None for row in found.layers] == [True] * 4 + [False] * 4
    assert "scene" not in str(found) and "(-)" in str(found)


def test_what_cannot_be_compared_is_said(heard, codes):
    with pytest.raises(TypeError, match=r"hear\(...\).codes, not Hearing"):
        nat.compare(heard, codes)
    with pytest.raises(nat.UsageError, match="other-1-2"):
        nat.compare(codes, replace(codes, codebook_id="other-1-2"))


def test_a_comparison_reads_as_a_verdict_and_its_figures(codes):
    verdict, step, common = str(nat.compare(codes, codes)).splitlines()
    assert verdict == "identical: every code is equal"
    assert step.count("100 (") == common.count("100 (") == 8 and "(chance)" in step


# What help() and import * show


def test_every_setting_is_explained():
    words = inspect.getdoc(nat.Settings)
    for field in fields(nat.Settings):
        line = re.search(rf"^{field.name}: (.+)\n    (\w.+)$", words, re.MULTILINE)
        assert line, field.name
    assert words.index("Attributes\n-----") < words.index('codebook_init: str = "mert"')


def test_what_is_public_is_named():
    assert all(inspect.getdoc(getattr(nat, name)) for name in nat.__all__)
    assert {"Settings", "Tokenizer", "Codes", "hear", "open_audio"} <= set(nat.__all__)
    assert len(nat.__all__) < 20


# What the library does to the process that it is in


class Spy:
    """An ear that notes how many threads OpenBLAS has while it listens."""

    def __init__(self, ear, threads):
        self.ear, self.threads, self.seen = ear, threads, []

    def push(self, block, spectra):
        self.seen.append(self.threads())
        return self.ear.push(block, spectra)

    def flush(self, spectra):
        return self.ear.flush(spectra)


@pytest.fixture
def blas():
    """What tells the number of OpenBLAS's threads, which is 2 for the length of a test."""
    if nat.blas_threads() is None:
        pytest.skip("NumPy has another BLAS")
    tell, set_to = nat.blas_threads()
    before = tell()
    set_to(2)
    if tell() != 2:
        pytest.skip("OpenBLAS has one thread")
    yield tell
    set_to(before)


def test_one_blas_thread_is_enough_while_a_sound_is_heard(tokenizer, blas, monkeypatch):
    spy, outside = Spy(tokenizer.ears.listen(), blas), []
    for _ in tokenizer.mono_tokens(blocks_of(song(2.0), 9999), ear=spy):
        outside.append(blas())
    assert set(spy.seen) == {1} and set(outside) == {2} == {blas()}
    inside = []
    monkeypatch.setattr(nat, "view_text", lambda *_: inside.append(blas()))
    monkeypatch.setattr(nat, "observe", lambda *_: inside.append(blas()) or [])
    monkeypatch.setattr(nat, "calibrate", lambda *_: inside.append(blas()) or tokenizer.trained)
    heard = nat.hear(song(1.0), nat.Tokenizer(SETTINGS))
    assert (heard.page(), heard.observations) == (None, ()) and inside == [1, 1, 1] and blas() == 2


def test_threads_come_back_when_the_last_user_leaves_even_by_an_error(blas):
    entered, leave = threading.Event(), threading.Event()

    def other():
        with nat.ONE_BLAS_THREAD:
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with pytest.raises(KeyError), nat.ONE_BLAS_THREAD:
        thread.start()
        assert entered.wait(10)
        raise KeyError
    assert blas() == 1
    leave.set()
    thread.join()
    assert blas() == 2


@pytest.mark.parametrize("quiet, level, said", [(False, logging.NOTSET, 1), (True, logging.NOTSET, 0),
                                                (False, logging.INFO, 0)])  # fmt: skip
def test_a_first_start_says_what_it_waits_for(tokenizer, tmp_path, monkeypatch, warnings_said,
                                              quiet, level, said):  # fmt: skip
    monkeypatch.setattr(nat, "hear_suite", lambda *_: None)
    monkeypatch.setattr(nat, "train_codebooks", lambda *_: tokenizer.trained)
    before = nat.LOG.level
    nat.LOG.setLevel(level)
    try:
        settings = replace(SETTINGS, cache_dir=str(tmp_path), quiet=quiet)
        for _ in range(2):
            nat.Tokenizer(settings)
    finally:
        nat.LOG.setLevel(before)
    assert len(warnings_said) == said and all(str(tmp_path) in line for line in warnings_said)


def test_its_warnings_reach_a_program_that_set_up_no_log(tmp_path):
    code = "import neural_audio_tokenizer as nat; nat.warn('codebooks are fitted')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True)
    assert b"codebooks are fitted" in done.stderr
