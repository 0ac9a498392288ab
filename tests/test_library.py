"""The program as a library: any source in, `Codes` and pages out, nothing heavy on import."""

from __future__ import annotations

import subprocess
import sys
import typing
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from conftest import EXAMPLE, HOP, RATE, ROOT, SETTINGS, save_wav, song, tone

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
    "numbers": (lambda: [0.1, 0.2], "shape"),
    "three axes": (lambda: np.zeros((2, 3, 4)), "shape"),
    "text in an array": (lambda: np.array(["a"]), "samples are"),
    "unsigned": (lambda: np.zeros(99, np.uint8), "samples are"),
    "complex": (lambda: np.zeros(99, complex), "samples are"),
    "channels first": (lambda: np.zeros((2, 9999)), "channels"),
    "not a number in it": (lambda: np.full(99, np.nan), "finite"),
    "no such file": (lambda: "nothing.wav", "no such file"),
}


@pytest.mark.parametrize("make, word", WRONG.values(), ids=WRONG)
def test_what_is_no_sound_is_an_audio_error(tokenizer, make, word):
    with pytest.raises(nat.AudioError, match=word):
        tokenizer.encode(make())


def test_a_rate_that_no_sound_has_is_refused(tokenizer):
    with pytest.raises(nat.AudioError, match="sample rate"):
        tokenizer.encode(np.zeros(99), sample_rate=7)


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


def test_a_page_may_be_bare(heard):
    page = heard.page(600, prompt=False, observations=False)
    assert "MEASURED" not in page and "TELL" not in page and "CODES" in page


def test_observations_are_facts_with_times(heard):
    assert any(fact.kind == "tempo" for fact in heard.observations)
    assert all(0 <= fact.time <= 20.0 and 0 <= fact.confidence <= 1 for fact in heard.observations)


def test_a_stretch_is_looked_at_alone(tokenizer, heard):
    part = nat.hear(EXAMPLE, tokenizer, start=0.0, stop=3.0)
    assert (part.codes.array == heard.codes.array).all()
    assert "from 0 to 3 s" in part.page(600).splitlines()[0]
    assert all(fact.time <= 3.0 for fact in part.observations)
    with pytest.raises(nat.AudioError, match="nothing to view"):
        nat.hear(EXAMPLE, tokenizer, start=30.0)


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


def test_an_ear_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="spektral"):
        nat.Settings(codebook_init="spektral")
