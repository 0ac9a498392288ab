"""Section 11's metrics: each with a known-good, a known-bad and a degenerate control.

CONTROLS holds what theory says; `python tests/benchmarks/controls.py` prints it as a table.
"""

from __future__ import annotations

import functools
import json
import math
import re
from dataclasses import replace
from typing import Callable, NamedTuple

import numpy as np
import pytest
from conftest import EXAMPLE, HOP, RATE, SETTINGS, clicks, load_wav, noise, save_wav, song, tone

import neural_audio_tokenizer as nat

FRAME_RATE = RATE / HOP
MIR_EVAL = nat.load_package("mir_eval")[0]


# What is measured


def glide(low, high, seconds=4.0):
    """A tone that slides from one pitch to another, with partials."""
    phase = 2 * np.pi * np.cumsum(np.geomspace(low, high, int(seconds * RATE))) / RATE
    return (0.1 * sum(np.sin(phase * h) / h for h in range(1, 5))).astype(np.float32)


SOUNDS = {
    "silence": lambda: np.zeros(4 * RATE, np.float32),
    "long silence": lambda: np.zeros(10 * RATE, np.float32),
    "long noise": lambda: noise(10.0),
    "a short tone": lambda: tone(440.0, 0.05),
    "a tone": lambda: tone(440.0, 4.0, partials=4),
    "half as loud": lambda: 0.5 * tone(440.0, 4.0, partials=4),
    "30 cents up": lambda: tone(440.0 * 2 ** (0.3 / 12), 4.0, partials=4),
    "a semitone up": lambda: tone(440.0 * 2 ** (1 / 12), 4.0, partials=4),
    "an octave up": lambda: tone(880.0, 4.0, partials=4),
    "noise": lambda: noise(4.0),
    "noise, half as loud": lambda: 0.5 * noise(4.0),
    "noise, half as loud again": lambda: 0.25 * noise(4.0),
    "other noise": lambda: noise(4.0, seed=8),
    "noise and -10 dB": lambda: noise(4.0) + noise(4.0, -30.0, seed=8),
    "tone then noise": lambda: np.concatenate([tone(440.0, 2.0), noise(2.0)]),
    "noise then tone": lambda: np.concatenate([noise(2.0), tone(440.0, 2.0)]),
    "glide up": lambda: glide(200.0, 1600.0),
    "glide down": lambda: glide(1600.0, 200.0),
    "clicks": lambda: clicks(0.5, 10.0, first=0.2),
    "clicks 20 ms later": lambda: clicks(0.5, 10.0, first=0.22),
    "clicks 100 ms later": lambda: clicks(0.5, 10.0, first=0.3),
    "faster clicks": lambda: clicks(0.4, 10.0, first=0.2),
    "half the clicks": lambda: clicks(1.0, 10.0, first=0.2),
    "a song": lambda: song(4.0),
}


@functools.lru_cache(maxsize=None)
def heard(name):
    sound = SOUNDS[name]()
    return sound, nat.hear_all(sound, SETTINGS)


@functools.lru_cache(maxsize=None)
def compared(original, rebuilt, mir_eval=True):
    """Every metric between two sounds of SOUNDS, by name."""
    one, other = heard(original), heard(rebuilt)
    tools = MIR_EVAL if mir_eval else None
    found = nat.reconstruction_metrics((one[0], other[0]), one[1], other[1])
    found += nat.pitch_metrics(one[1], other[1])
    found += nat.rhythm_metrics(one[1], other[1], FRAME_RATE, mir_eval=tools)
    found += nat.timbre_metrics(one[1], other[1])
    return {metric.name: metric for metric in found}


def drawn(frames, size, seed=0):
    return np.random.RandomState(seed).randint(0, size, frames)


def held(frames, size, seed=0):
    """Random codes that stay for ten frames on average."""
    rng = np.random.RandomState(seed)
    fresh = np.flatnonzero(rng.rand(frames) < 0.1)
    lengths = np.diff([0, *fresh, frames])
    return np.repeat(rng.randint(0, size, len(lengths)), lengths)


COLUMNS = {
    "1000 codes drawn": lambda: drawn(43000, 1000),
    "as many draws as codes": lambda: drawn(1000, 1000),
    "two codes drawn": lambda: drawn(43000, 2),
    "three to one": lambda: np.repeat([5, 9], [750, 250]),
    "one code": lambda: np.full(430, 7),
    "ten frames each": lambda: np.repeat(np.arange(43) % 20, 10),
    "no frames": lambda: np.zeros(0, int),
}


@functools.lru_cache(maxsize=None)
def counted(name):
    """Every metric of a column of codes, by the last part of its name."""
    statistics = nat.CodeStatistics(1000)
    statistics.add(np.repeat(COLUMNS[name]()[:, None], 8, axis=1).astype(np.int16))
    found = nat.layer_metrics(
        statistics, [nat.StageReport(0, math.nan, math.nan, 0, 0)] * 8, FRAME_RATE
    )
    return {metric.name.split(".")[-1]: metric for metric in found if "S0" in metric.name}


PAIRS = {
    "a copy": lambda: (drawn(2000, 32), drawn(2000, 32)),
    "a copy of held codes": lambda: (held(4000, 32), held(4000, 32)),
    "renamed codes": lambda: (drawn(2000, 32), 31 - drawn(2000, 32)),
    "unrelated": lambda: (drawn(2000, 32), drawn(2000, 32, 1)),
    "unrelated, 300 codes": lambda: (drawn(4000, 300), drawn(4000, 300, 1)),
    "unrelated held codes": lambda: (held(4000, 32), held(4000, 32, 1)),
    "1000 codes in 300 frames": lambda: (drawn(300, 1000), drawn(300, 1000, 1)),
    "a constant": lambda: (drawn(2000, 32), np.zeros(2000, int)),
    "three frames": lambda: (np.arange(3), np.arange(3)),
}


def shared(name):
    one, other = PAIRS[name]()
    return nat.shared_metrics(np.stack([one, other] * 4, axis=1).astype(np.int16))[0]


def quantized(kind):
    """Metrics of a first stage whose codewords are right, or drawn; or of constant features."""
    rng = np.random.RandomState(0)
    vectors = np.rint(rng.standard_normal((4, 50, 6)) * 3 / nat.GRID) * nat.GRID
    vectors[1:] = 0
    books = nat.Codebooks(
        vectors, np.ones((4, 6)), np.zeros(6), np.ones(6), np.zeros((4, 50, 1)), ""
    )
    codes = np.zeros((4000, 4), int)
    codes[:, 0] = drawn(4000, 50)
    features = vectors[0][codes[:, 0]] if kind != "still" else np.zeros((4000, 6))
    codes[:, 0] = drawn(4000, 50, 3) if kind == "drawn" else codes[:, 0] * (kind == "right")
    sums = nat.StageSums(books)
    for part in np.array_split(np.arange(4000), 7):
        sums.add(features[part], codes[part])
    statistics = nat.CodeStatistics(1000)
    statistics.add(np.tile(codes, 2).astype(np.int16))
    found = nat.layer_metrics(statistics, sums.reports() * 2, FRAME_RATE)
    return {metric.name.split(".")[-1]: metric for metric in found if "S0" in metric.name}


# What theory says of it

GOOD, BAD, NONE = "good", "bad", "degenerate"


class Control(NamedTuple):
    """One input, and the value that a metric must have there: theory's, and how far off it may be."""

    metric: str
    kind: str
    what: str
    measure: Callable[[], nat.Metric]
    value: float | str | None  # None: null with a reason
    within: float = 1e-6


def controls():
    """All controls."""

    def sounds(metric, kind, one, other, value, within=1e-6):
        measure = functools.partial(lambda *pair: compared(*pair)[metric], one, other)
        return Control(metric, kind, f"{one} / {other}", measure, value, within)

    def column(metric, kind, name, value, within=1e-6):
        measure = functools.partial(lambda name: counted(name)[metric], name)
        return Control(f"tokens.{metric}", kind, name, measure, value, within)

    def stage(metric, kind, name, value, within=1e-6):
        measure = functools.partial(lambda name: quantized(name)[metric], name)
        return Control(f"tokens.{metric}", kind, f"{name} codes", measure, value, within)

    def pair(kind, name, value, within=1e-6):
        measure = functools.partial(shared, name)
        return Control("mutual_information", kind, name, measure, value, within)

    lost = 999 / (2 * 43000 * math.log(2))  # bits by which 43,000 draws fall short (Miller 1955)
    full = math.log2(1000) - lost
    yield column("codes_used", GOOD, "1000 codes drawn", 1000)
    yield column("codes_used", BAD, "one code", 1)
    yield column("usage", GOOD, "as many draws as codes", 1 - math.exp(-1), 0.03)
    yield column("usage", BAD, "one code", 0.001)
    yield column("top_share", GOOD, "three to one", 0.75)
    yield column("top_share", BAD, "one code", 1)
    yield column("perplexity", GOOD, "1000 codes drawn", 2**full, 2)
    yield column("perplexity", BAD, "one code", 1)
    yield column("entropy", GOOD, "1000 codes drawn", full, 0.003)
    yield column("entropy", GOOD, "three to one", 0.811278)
    yield column("entropy", BAD, "one code", 0)
    yield column("change_rate", GOOD, "two codes drawn", FRAME_RATE / 2, 0.3)
    yield column("change_rate", BAD, "one code", 0)
    yield column("run_median", GOOD, "ten frames each", 10 / FRAME_RATE)
    yield column("run_p90", GOOD, "two codes drawn", 4 / FRAME_RATE)  # 1 - 2 ** -4 > 0.9
    yield column("run_longest", BAD, "one code", 430 / FRAME_RATE, 1e-4)
    yield column("bitrate", GOOD, "one code", math.log2(1000) * FRAME_RATE, 1e-3)
    yield column("entropy_bitrate", GOOD, "1000 codes drawn", full * FRAME_RATE, 0.1)
    yield column("entropy_bitrate", BAD, "one code", 0)
    for name in nat.LayerReport._fields:
        yield column(name, NONE, "no frames", None)
    yield stage("explained", GOOD, "right", 1)
    yield stage("explained", BAD, "drawn", -1, 0.1)  # another codeword's variance on top
    yield stage("explained", NONE, "still", None)
    yield stage("residual_energy", GOOD, "right", 0)
    yield stage("residual_energy", BAD, "drawn", 2, 0.1)
    yield stage("residual_energy", NONE, "still", None)
    yield stage("collapse", GOOD, "right", "none")
    yield stage("collapse", BAD, "first", "one code")
    yield stage("collapse", NONE, "still", None)
    yield pair(GOOD, "a copy", nat.entropy_bits(drawn(2000, 32)), 1e-4)
    yield pair(GOOD, "a copy of held codes", nat.entropy_bits(held(4000, 32)), 1e-4)
    yield pair(GOOD, "renamed codes", nat.entropy_bits(drawn(2000, 32)), 1e-4)
    yield pair(BAD, "unrelated", 0, 0.06)
    yield pair(BAD, "unrelated, 300 codes", 0, 0.06)
    yield pair(BAD, "unrelated held codes", 0, 0.15)
    yield pair(NONE, "1000 codes in 300 frames", None)
    yield pair(NONE, "a constant", None)
    yield pair(NONE, "three frames", None)
    decibels = 20 * math.log10(2)
    whole = "reconstruction."
    yield sounds(whole + "log_mel_distance", GOOD, "a song", "a song", 0)
    yield sounds(whole + "log_mel_distance", BAD, "noise", "noise, half as loud", decibels, 0.01)
    yield sounds(whole + "spectral_convergence", GOOD, "a song", "a song", 0)
    yield sounds(whole + "spectral_convergence", BAD, "a tone", "half as loud", 0.5, 1e-3)
    yield sounds(whole + "spectral_convergence", BAD, "noise", "silence", 1, 0.01)
    yield sounds(whole + "log_magnitude", GOOD, "a song", "a song", 0)
    yield sounds(whole + "log_magnitude", BAD, "noise", "noise, half as loud", math.log(2), 1e-3)
    yield sounds(whole + "log_spectral_distance", GOOD, "a song", "a song", 0)
    yield sounds(
        whole + "log_spectral_distance", BAD, "noise", "noise, half as loud", decibels, 1e-3
    )
    # the log of a ratio of two powers with two degrees of freedom each: pi / sqrt(3) nepers
    chance = 10 / math.log(10) * math.pi / math.sqrt(3)
    yield sounds(whole + "log_spectral_distance", BAD, "noise", "other noise", chance, 0.1)
    yield sounds(whole + "si_sdr", GOOD, "a song", "a song", 100)
    yield sounds(whole + "si_sdr", GOOD, "noise", "noise, half as loud", 100)
    yield sounds(whole + "si_sdr", BAD, "noise", "noise and -10 dB", 10, 0.1)
    yield sounds(whole + "si_sdr", BAD, "noise", "other noise", -10 * math.log10(4 * RATE), 15)
    for name in ("log_mel_distance", "spectral_convergence", "log_magnitude", "si_sdr",
                 "log_spectral_distance"):  # fmt: skip
        yield sounds(whole + name, NONE, "silence", "silence", None)
        yield sounds(whole + name, NONE, "silence", "noise", None)
    yield sounds("pitch.chroma_agreement", GOOD, "a song", "a song", 1)
    yield sounds("pitch.chroma_agreement", GOOD, "a tone", "an octave up", 1, 0.05)
    yield sounds("pitch.chroma_agreement", BAD, "a tone", "a semitone up", -1 / 11, 0.15)
    yield sounds("pitch.chroma_agreement", BAD, "a tone", "noise", 0, 0.1)
    yield sounds("pitch.raw_pitch_accuracy", GOOD, "a song", "a song", 1)
    yield sounds("pitch.raw_pitch_accuracy", GOOD, "a tone", "30 cents up", 1, 0.02)
    yield sounds("pitch.raw_pitch_accuracy", BAD, "a tone", "a semitone up", 0, 0.02)
    yield sounds("pitch.raw_pitch_accuracy", BAD, "a tone", "an octave up", 0, 0.02)
    yield sounds("pitch.raw_chroma_accuracy", GOOD, "a tone", "an octave up", 1, 0.02)
    yield sounds("pitch.raw_chroma_accuracy", BAD, "a tone", "noise", 1 / 12, 0.08)
    yield sounds("pitch.voicing_recall", GOOD, "a tone", "an octave up", 1)
    yield sounds("pitch.voicing_recall", BAD, "a tone", "noise", 0)
    yield sounds("pitch.voicing_false_alarm", GOOD, "noise", "other noise", 0)
    yield sounds("pitch.voicing_false_alarm", BAD, "noise", "a tone", 1, 0.03)
    yield sounds("pitch.voicing_agreement", GOOD, "tone then noise", "tone then noise", 1)
    yield sounds("pitch.voicing_agreement", BAD, "tone then noise", "noise then tone", 0, 0.05)
    yield sounds("pitch.voicing_agreement", BAD, "tone then noise", "noise", 0.5, 0.03)
    for name in ("chroma_agreement", "raw_pitch_accuracy", "raw_chroma_accuracy", "voicing_recall"):
        yield sounds(f"pitch.{name}", NONE, "silence", "silence", None)
        yield sounds(f"pitch.{name}", NONE, "noise", "a tone", None)
    yield sounds("pitch.voicing_false_alarm", NONE, "a tone", "noise", None)
    yield sounds("pitch.voicing_agreement", NONE, "a tone", "a tone", None)
    onset, tempo = "rhythm.onset_f1", "rhythm.tempo_agreement"
    yield sounds(onset, GOOD, "clicks", "clicks 20 ms later", 1)
    yield sounds(onset, BAD, "clicks", "clicks 100 ms later", 0)
    yield sounds(onset, BAD, "clicks", "long silence", 0)
    yield sounds(onset, BAD, "clicks", "half the clicks", 2 / 3, 0.01)
    yield sounds("rhythm.onset_precision", GOOD, "clicks", "half the clicks", 1)
    yield sounds("rhythm.onset_precision", BAD, "half the clicks", "clicks", 0.5)
    yield sounds("rhythm.onset_recall", GOOD, "half the clicks", "clicks", 1)
    yield sounds("rhythm.onset_recall", BAD, "clicks", "half the clicks", 0.5)
    for name in ("onset_f1", "onset_precision", "onset_recall"):
        yield sounds(f"rhythm.{name}", NONE, "long silence", "clicks", None)
    yield sounds("rhythm.tempo_original", GOOD, "clicks", "long silence", 120, 0.5)
    yield sounds("rhythm.tempo_original", NONE, "silence", "silence", None)
    yield sounds("rhythm.tempo_rebuilt", GOOD, "clicks", "faster clicks", 150, 0.5)
    yield sounds("rhythm.tempo_rebuilt", NONE, "clicks", "long noise", None)
    yield sounds(tempo, GOOD, "clicks", "clicks 100 ms later", 1)
    yield sounds(tempo, BAD, "clicks", "faster clicks", 0)
    yield sounds(tempo, BAD, "clicks", "half the clicks", 0)
    yield sounds("rhythm.tempo_octave_agreement", GOOD, "clicks", "half the clicks", 1)
    yield sounds("rhythm.tempo_octave_agreement", BAD, "clicks", "faster clicks", 0)
    for name in ("tempo_agreement", "tempo_octave_agreement"):
        yield sounds(f"rhythm.{name}", NONE, "long silence", "clicks", None)
        yield sounds(f"rhythm.{name}", NONE, "a short tone", "a short tone", None)
    yield sounds("timbre.mfcc_distance", GOOD, "a song", "a song", 0)
    yield sounds("timbre.mfcc_distance", GOOD, "noise", "noise, half as loud", 0, 1e-3)
    yield sounds("timbre.mfcc_distance", BAD, "a tone", "noise", 10, 5)
    yield sounds("timbre.mfcc_agreement", GOOD, "a song", "a song", 1)
    yield sounds("timbre.mfcc_agreement", BAD, "a tone", "noise", -0.4, 0.4)
    yield sounds("timbre.centroid_deviation", GOOD, "a song", "a song", 0)
    yield sounds("timbre.centroid_deviation", BAD, "a tone", "an octave up", 1200, 100)
    yield sounds("timbre.centroid_agreement", GOOD, "glide up", "glide up", 1)
    yield sounds("timbre.centroid_agreement", BAD, "glide up", "glide down", -1, 0.05)
    yield sounds("timbre.centroid_agreement", NONE, "a tone", "a tone", None)
    for name in ("mfcc_distance", "mfcc_agreement", "centroid_deviation", "centroid_agreement"):
        yield sounds(f"timbre.{name}", NONE, "silence", "noise", None)


CONTROLS = tuple(controls())


@pytest.mark.parametrize("control", CONTROLS, ids=lambda c: f"{c.metric}, {c.kind}: {c.what}")
def test_control(control):
    if control.metric.startswith("rhythm.") and not MIR_EVAL:
        pytest.skip("mir_eval is not installed")
    metric = control.measure()
    if control.value is None:
        assert metric.value is None and metric.why
    elif isinstance(control.value, str):
        assert metric.value == control.value
    else:
        assert metric.value == pytest.approx(control.value, abs=control.within)


def test_every_metric_has_a_good_a_bad_and_a_degenerate_control():
    names = {*compared("a song", "a song"), *(f"tokens.{name}" for name in counted("one code"))}
    names -= {"rhythm.tempo_original", "rhythm.tempo_rebuilt"}  # read out, not judged
    neutral = {"tokens.bitrate", "tokens.run_median", "tokens.run_p90", "tokens.run_longest"}
    for name in names | {"mutual_information"}:
        kinds = {control.kind for control in CONTROLS if control.metric == name}
        assert kinds == {GOOD, BAD, NONE} or name in neutral and len(kinds) == 2, (name, kinds)


def test_without_mir_eval_rhythm_has_no_agreement_but_a_reason():
    found = compared("clicks", "clicks", mir_eval=False)
    for name in ("onset_f1", "tempo_agreement"):
        assert found[f"rhythm.{name}"].value is None and "mir_eval" in found[f"rhythm.{name}"].why


def test_a_plain_estimate_would_give_unrelated_codes_bits_for_nothing():
    """What the control of independent sequences guards against."""
    one, other = (column.astype(np.int64) for column in PAIRS["unrelated, 300 codes"]())
    entropies = nat.entropy_bits(one), nat.entropy_bits(other)
    assert sum(entropies) - nat.entropy_bits(1000 * one + other) > 4


# Gathering


def evaluator_of(sound, tokenizer, blocks=1, rebuilt=None):
    found = nat.Evaluator(tokenizer.trained, SETTINGS)
    for part in np.array_split(sound, blocks):
        found.original.add(part)
    for tokens in tokenizer.tokens(np.array_split(sound, blocks)):
        found.add(nat.Clip(*tokens))
    found.rebuilt.add(sound if rebuilt is None else rebuilt)
    return found


def test_an_evaluation_does_not_depend_on_blocks(tokenizer):
    sound = song(4.0)
    whole, parts = (evaluator_of(sound, tokenizer, count).metrics() for count in (1, 9))
    assert whole == parts


def test_a_sound_that_is_its_own_reconstruction(tokenizer):
    found = {m.name: m.value for m in evaluator_of(song(4.0), tokenizer).metrics(MIR_EVAL)[0]}
    for name, value in compared("a song", "a song").items():
        assert found[name] == pytest.approx(value.value, abs=1e-6), name


def test_no_metric_is_nan_and_none_lacks_a_reason(tokenizer):
    for name in ("silence", "a short tone", "a song"):
        sound = heard(name)[0]
        for metric in evaluator_of(sound, tokenizer).metrics(MIR_EVAL)[0]:
            if metric.value is None:
                assert metric.why, (name, metric)
            assert not isinstance(metric.value, float) or math.isfinite(metric.value), metric
            assert len(metric.unit) <= 60 and len(metric.why) <= 100


def test_what_is_kept_of_a_long_sound_is_bounded():
    kept = nat.Excerpt(100, np.zeros(0), np.zeros((0, 3)))
    for _ in range(50):
        kept.add(np.ones(7), np.ones((7, 3)))
    assert kept.full and [part.shape for part in kept.whole()] == [(100,), (100, 3)]


@pytest.mark.parametrize("layer", range(8))
def test_a_layer_with_one_codeword_has_collapsed(tokenizer, layer):
    """Judged on music; silence and a steady tone through the same codebooks are no collapse."""
    books = list(tokenizer.trained)
    vectors = books[layer // 4].vectors.copy()
    vectors[layer % 4] = vectors[layer % 4][:1]
    books[layer // 4] = replace(books[layer // 4], vectors=vectors)
    broken = nat.Tokenizer(SETTINGS, ears=tokenizer.ears, trained=nat.Trained(*books))
    example = load_wav(EXAMPLE)[0][: 6 * RATE]
    metrics, warnings = evaluator_of(example, broken).metrics()
    name = nat.LAYER_NAMES[layer]
    verdicts = {m.name: m.value for m in metrics if m.name.endswith("collapse")}
    assert verdicts[f"tokens.{name}.collapse"] == "one code"
    assert any(text.startswith(name) and "--force-reinit" in text for text in warnings)
    assert evaluator_of(heard("silence")[0], broken).metrics()[1] == []


@pytest.mark.parametrize(
    "name", ["silence", "a tone", "noise", "clicks", "glide up", "a song", "tone then noise"]
)
def test_healthy_codebooks_have_not_collapsed(tokenizer, name):
    assert evaluator_of(heard(name)[0], tokenizer).metrics()[1] == []


@pytest.mark.parametrize(
    "pair, kept",
    [
        (("a song", "a song"), r"\(of 1\) well: harmony 1\.00, melody 1\.00.* timbre 1\.00\.$"),
        (("a tone", "an octave up"), r"well: harmony .* octaves aside 1\.00.*hardly: melody 0\.00"),
        (("a song", "silence"), r"hardly: .*melody 0\.00"),
        (("silence", "silence"), r"keep \(of 1\) nothing that could be compared\.$"),
    ],
)
def test_the_verdict_says_in_words_what_is_kept(pair, kept):
    metrics = tuple(compared(*pair).values())
    said = [
        nat.verdict_line(nat.Evaluation("x", "id", 1, 4.0, 4.0, metrics, warnings))
        for warnings in ((), ("S0 has collapsed.",))
    ]
    assert all(re.search(kept, line) for line in said), said
    assert "no layer has collapsed" in said[0] and "1 of 8 layers have collapsed" in said[1]


# Several files


def forged(**values):
    return [nat.Metric(name, value, "dB") for name, value in values.items()]


def test_medians_quartiles_and_the_file_that_stands_out():
    files = {f"f{n}": forged(level=float(n), steady=3.0) for n in range(1, 9)}
    files["odd"] = forged(level=100.0, steady=3.0)
    files["mute"] = [nat.Metric("level", None, "dB", "silent"), *forged(steady=3.0)]
    level, steady = nat.summarize(files)
    assert (level.files, level.median, level.q1, level.q3) == (9, 5.0, 3.0, 7.0)
    assert level.outliers == (("odd", 100.0),)
    assert (steady.files, steady.median, steady.outliers) == (10, 3.0, ())
    text = "\n".join(nat.summary_lines(files))
    assert "Far out: odd: level 100 (median 5)" in text


def test_four_files_have_no_outliers():
    files = {str(n): forged(level=value) for n, value in enumerate((1.0, 1.0, 1.0, 99.0))}
    assert nat.summarize(files)[0].outliers == ()


# The program


def schema_check(fields):
    jsonschema = pytest.importorskip("jsonschema")
    schema = nat.metrics_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(fields, schema, jsonschema.Draft202012Validator)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("metrics")
    for name in ("silence", "a song", "a short tone", "noise", "clicks"):
        save_wav(folder / f"{name}.wav", heard(name)[0])
    return folder


@pytest.mark.parametrize("name", ["silence", "a song", "a short tone"])
def test_a_metrics_file_is_valid_and_has_no_nan(run_main, folder, tmp_path, name):
    done = run_main("--metrics", tmp_path / "m.json", "--format", "text", folder / f"{name}.wav")
    assert done.status == 0, done.err
    text = (tmp_path / "m.json").read_text()
    fields = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    schema_check(fields)
    assert "EVALUATION" not in done.err and fields["source"] == f"{name}.wav"
    metrics = fields["metrics"]
    groups = {name.split(".")[0] for name in metrics}
    assert groups == {"tokens", "mutual_information", "reconstruction", "pitch", "rhythm",
                      "timbre", "economy", "speed"}  # fmt: skip
    if name == "silence":
        judged = [m for n, m in metrics.items() if n.split(".")[0] in ("pitch", "timbre", "rhythm")]
        assert all(metric["value"] is None and metric["why"] for metric in judged)


@pytest.mark.parametrize("broken", [
    {}, {"files": {}}, {"files": {}, "summary": {"x": {"unit": "dB", "files": 1}}},
])  # fmt: skip
def test_the_schema_refuses(broken):
    jsonschema = pytest.importorskip("jsonschema")
    assert not jsonschema.Draft202012Validator(nat.metrics_schema()).is_valid(broken)


def test_the_schema_refuses_null_without_a_reason(run_main, folder, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    run_main("--metrics", tmp_path / "m.json", "--format", "text", folder / "silence.wav")
    fields = json.loads((tmp_path / "m.json").read_text())
    del fields["metrics"]["pitch.chroma_agreement"]["why"]
    assert not jsonschema.Draft202012Validator(nat.metrics_schema()).is_valid(fields)


def test_schema_of_metrics_goes_to_stdout(run_main):
    assert json.loads(run_main("--schema", "metrics").out) == nat.metrics_schema()


def test_evaluate_says_a_table_on_stderr_and_changes_no_codes(run_main, folder):
    path = folder / "a song.wav"
    plain = run_main("--format", "text", path)
    done = run_main("--format", "text", "--evaluate", "--quiet", path)
    assert done.status == 0 and done.out == plain.out
    lines = done.err.splitlines()
    assert lines[0] == "EVALUATION of a song.wav, 4.00 s" and max(map(len, lines)) <= 100
    assert {"Reconstruction", "Pitch", "Rhythm", "Timbre", "LLM economy", "Speed"} <= set(lines)
    assert re.search(r"^  log_mel_distance +\d+\.\d+  dB", done.err, re.MULTILINE)


def test_the_reconstruction_is_made_once_for_all(run_main, folder, tmp_path, monkeypatch):
    made, invert = [], nat.Reconstructor._invert
    monkeypatch.setattr(
        nat.Reconstructor, "_invert", lambda *args: made.append(len(args[1])) or invert(*args)
    )
    run_main("--reconstruct", "--metrics", tmp_path / "m.json", "--evaluate", "--output-dir",
             tmp_path / "out", folder / "a song.wav")  # fmt: skip
    assert sum(made) == 173
    metrics = json.loads((tmp_path / "m.json").read_text())["metrics"]
    made.clear()
    run_main("--metrics", tmp_path / "n.json", "--format", "text", folder / "a song.wav")
    again = json.loads((tmp_path / "n.json").read_text())["metrics"]
    assert sum(made) == 173
    assert {name for name in metrics if metrics[name] != again[name]} <= {
        name for name in metrics if name.startswith("speed.")
    }


def test_stages_add_up_to_the_whole_time(run_main, folder, tmp_path):
    run_main("--metrics", tmp_path / "m.json", "--format", "text", folder / "noise.wav")
    metrics = json.loads((tmp_path / "m.json").read_text())["metrics"]
    speed = {name[6:]: m["value"] for name, m in metrics.items() if name.startswith("speed.")}
    total, factor = speed.pop("total"), speed.pop("real_time_factor")
    assert {"decode", "tokenize", "reconstruct", "evaluate", "view"} <= set(speed)
    assert sum(speed.values()) == pytest.approx(total, rel=0.1)
    assert factor == pytest.approx(4 / total, rel=1e-3)


def test_several_files_end_with_what_they_are_together(run_main, folder, tmp_path):
    names = ["silence", "a song", "a short tone", "noise", "clicks"]
    paths = [folder / f"{name}.wav" for name in names]
    done = run_main("--evaluate", "--metrics", tmp_path / "all.json", "--format", "text",
                    "--output-dir", tmp_path / "out", *paths, tmp_path / "missing.wav")  # fmt: skip
    assert done.status == 1 and done.err.count("EVALUATION of") == 5
    assert "MEDIANS (and quartiles) over 5 files" in done.err
    named = re.compile("missing|manifest")  # paths may be long
    assert all(len(line) <= 100 or named.search(line) for line in done.err.splitlines())
    fields = json.loads((tmp_path / "all.json").read_text())
    schema_check(fields)
    assert list(fields["files"]) == names
    row = fields["summary"]["reconstruction.log_mel_distance"]
    values = [fields["files"][name]["metrics"]["reconstruction.log_mel_distance"]["value"]
              for name in names]  # fmt: skip
    heard_of = [value for value in values if value is not None]
    assert row["files"] == len(heard_of) == 4
    assert row["median"] == pytest.approx(np.median(heard_of))


def test_the_one_metrics_file_of_several_inputs_is_not_overwritten(run_main, folder, tmp_path):
    (tmp_path / "m.json").write_text("precious")
    paths = folder / "silence.wav", folder / "noise.wav"
    done = run_main("--metrics", tmp_path / "m.json", "--output-dir", tmp_path / "out", *paths)
    assert done.status == 1 and "--force" in done.err
    assert (tmp_path / "m.json").read_text() == "precious"


def test_workers_measure_what_one_process_measures(run_main, folder, tmp_path):
    found = []
    for workers in ("1", "2"):
        done = run_main("--quiet", "--metrics", tmp_path / f"{workers}.json", "--workers", workers,
                        "--output-dir", tmp_path / workers, "--format", "text",
                        folder / "a song.wav", folder / "noise.wav")  # fmt: skip
        assert done.status == 0, done.err
        files = json.loads((tmp_path / f"{workers}.json").read_text())["files"]
        found.append({(name, key): value for name in files
                      for key, value in files[name]["metrics"].items() if key[:6] != "speed."})  # fmt: skip
    assert found[0] == found[1] and len(found[0]) > 100
