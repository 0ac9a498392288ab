"""The report card: figures known from theory, controls, and the whole of it on two small clips."""

from __future__ import annotations

import io
import json
import logging
import shutil

import numpy as np
import pytest
from conftest import HOP, RATE, SETTINGS, noise, save_wav, song

import neural_audio_tokenizer as nat

K = 1000


@pytest.fixture(scope="module")
def chains(tokenizer):
    return tokenizer.trained


def dice(frames, seed=0, size=K):
    return np.random.RandomState(seed).randint(size, size=(frames, 8)).astype(np.int16)


def row(pairs, chains, group="change"):
    heard = np.concatenate([one for one, _ in pairs])
    usual = nat.miss_distance(chains, heard, other=heard[::-1])
    return nat.card_row(group, "test", pairs=pairs, chains=chains, usual=usual)


def medians(found):
    return np.array([spread.median for spread in found.shares])


# Figures


def test_equal_codes_agree_wholly(chains):
    found = row([(dice(50), dice(50)), (dice(50, 1), dice(50, 1))], chains)
    assert (medians(found) == 1).all() and found.misses == (None,) * 8


def test_random_codes_agree_by_chance(chains):
    found = row([(dice(20000, seed), dice(20000, seed + 9)) for seed in range(3)], chains)
    assert medians(found) == pytest.approx(1 / K, abs=0.0006)
    assert found.misses == pytest.approx([1.0] * 8, abs=0.05), "as far as any two frames"


def test_half_changed_is_a_half(chains):
    one, other = dice(100), dice(100)
    other[::2] = (other[::2] + 1) % K
    assert medians(row([(one, other)], chains)) == pytest.approx(0.5)


def test_a_longer_sound_is_compared_as_far_as_both_go(chains):
    assert (medians(row([(dice(50)[:40], dice(50))], chains)) == 1).all()


def test_quartiles_are_over_clips(chains):
    pairs = [(dice(10), np.where(np.arange(10)[:, None] < equal, dice(10), -1 - dice(10)))
             for equal in (0, 2, 4, 6, 8)]  # fmt: skip
    assert row(pairs, chains).shares[3] == pytest.approx((0.2, 0.4, 0.6))


@pytest.mark.parametrize("one, other, edits", [
    ("kitten", "sitting", 3), ("abc", "abc", 0), ("abc", "", 3), ("abcd", "bcd", 1),
    ("ab", "xaby", 2),
])  # fmt: skip
def test_edit_distance(one, other, edits):
    codes = [np.repeat([[ord(c)] for c in word] or np.empty((0, 1), int), 8, axis=1)
             for word in (one, other)]  # fmt: skip
    assert nat.unit_edit_distance(*codes) == pytest.approx([edits / len(one)] * 8)


def test_a_neighbour_is_nearer_than_a_stranger(chains):
    """The codeword closest to each one counts as a small miss, any other one as a usual miss."""
    books = chains[1]
    vectors = books.vectors[0] * books.weights[0]
    used = np.unique(vectors, axis=0, return_index=True)[1][:60]
    apart = np.linalg.norm(vectors[used][:, None] - vectors[used], axis=2)
    np.fill_diagonal(apart, np.inf)
    one, near = np.zeros((2, len(used), 8), np.int16)
    one[:, 4], near[:, 4] = used, used[apart.argmin(axis=1)]
    assert row([(one, near)], chains).misses[4] < 0.8


# Retrieval


def test_clips_of_other_codes_find_their_halves():
    halves = [dice(60, seed, 20) + 30 * (seed // 2) for seed in range(12)]
    assert nat.find_halves(halves, range(8)) == 1


def test_clips_of_any_codes_find_them_by_chance():
    tries = [nat.find_halves([dice(400, 100 * t + k, 30) for k in range(12)], (t % 8,))
             for t in range(60)]  # fmt: skip
    assert np.mean(tries) == pytest.approx(1 / 11, abs=0.04)


def test_ties_are_shared():
    """All alike: every other half is as good, so one in eleven is right."""
    assert nat.find_halves([np.zeros((9, 8), int)] * 12, (0,)) == pytest.approx(1 / 11)


def test_one_clip_finds_nothing_and_says_why():
    found = nat.retrieval_metrics([dice(9), dice(9)])
    assert all(metric.value is None and metric.why for metric in found)


# What is done to sounds


def change(name):
    return next((late, act) for label, late, act in nat.changed_sound(SETTINGS) if label == name)


@pytest.mark.parametrize("lag", [-700, -1, 0, 1, 1105])
def test_align_takes_a_delay_out(lag):
    sound = noise(1.0)
    late = np.pad(sound, (lag, 300)) if lag > 0 else sound[-lag:]
    inner = slice(1200, -1200)
    assert np.array_equal(nat.align_sound(late, sound)[inner], sound[inner])


@pytest.mark.parametrize("snr", [40, 10])
def test_noise_has_the_level_it_says(snr):
    sound = song(1.0)
    dust = change(f"noise at {snr} dB")[1](sound) - sound
    level = 10 * np.log10(np.mean(sound**2) / np.mean(dust**2))
    assert level == pytest.approx(snr, abs=0.2)


def test_gain_and_delay():
    sound = song(1.0)
    assert change("-6 dB")[1](sound) == pytest.approx(sound * 0.501, abs=1e-3)
    late, act = change("one frame (23 ms) later")
    assert late == 1 and np.array_equal(act(sound)[HOP:], sound)


@pytest.mark.parametrize("name", ["MP3 at 128 kbit/s", "Opus at 96 kbit/s"])
def test_codecs_give_nearly_the_same_sound_in_time(name):
    sound = song(2.0)
    try:
        back = change(name)[1](sound)
    except nat.MissingError as error:
        pytest.skip(str(error))
    inner = slice(3000, -3000)
    error = np.mean((back - sound)[inner] ** 2) / np.mean(sound[inner] ** 2)
    assert len(back) == len(sound) and 1e-9 < error < 0.1


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg")
def test_ffmpeg_codes_where_soundfile_is_not():
    sound, settings = song(2.0), nat.Settings(compat_fallback=True)
    back = nat.align_sound(nat.through_codec(sound, "MP3", kbps=128, settings=settings), sound)
    assert np.corrcoef(back[3000:-3000], sound[3000:-3000])[0, 1] > 0.95


def test_without_a_codec_the_rows_say_why(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    settings = nat.Settings(compat_fallback=True)
    with pytest.raises(nat.MissingError, match="soundfile"):
        nat.through_codec(song(1.0), "Opus", kbps=32, settings=settings)


def test_without_a_codec_the_rows_of_the_card_say_why(tokenizer, monkeypatch):
    monkeypatch.setattr(nat, "changed_sound", lambda settings: [change_to_nothing])
    exam = nat.Exam(tokenizer, [song(1.0)], nat.Progress("", 1.0, SETTINGS))
    (found,) = exam.changed()
    assert found.shares == () and found.why == "no such codec"


def refuse(sound):
    raise nat.MissingError("no such codec")


change_to_nothing = ("MP3", 0, refuse)


def test_the_cards_own_clips_are_twelve_and_always_the_same():
    first, again = (list(nat.held_out_clips(8000)) for _ in range(2))
    assert [name for name, _ in first] == list(nat.HELD_OUT) and len(first) == 12
    for (_, one), (_, two) in zip(first, again):
        assert one.dtype == np.float32 and np.array_equal(one, two)
        assert 8 <= len(one) / 8000 <= 10 and 0.002 < np.abs(one).max() <= 1


# The whole card


@pytest.fixture(scope="module")
def card(tokenizer):
    """Two clips of 2 s, with fewer rounds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nat, "DRIFT_ROUNDS", (1, 2))
        clips = [("song", song(2.0)), ("rain", noise(2.0, -30.0))]
        return nat.examine(clips, SETTINGS)


@pytest.fixture(scope="module")
def fields(card):
    return json.loads(json.dumps(nat.card_fields(card), allow_nan=False))


def shares(card, name, group=None):
    found = next(r for r in card.rows if r.name.startswith(name) and group in (None, r.group))
    return medians(found) if found.shares else found.why


def test_controls_are_what_they_must_be(card):
    assert (shares(card, "heard again") == 1).all() and (shares(card, "two silences") == 1).all()
    for name in ("random codes", "another clip", "silence for the clip"):
        assert shares(card, name).mean() < 0.1, name


def test_harm_done_is_harm_seen(card):
    quiet, loud = (shares(card, f"noise at {snr} dB", "change") for snr in (40, 10))
    assert loud.mean() < quiet.mean() - 0.2
    assert (shares(card, "noise at 10 dB", "edit") > shares(card, "noise at 40 dB", "edit")).all()
    assert (shares(card, "0.4 s alone")[4:] > shares(card, "0.2 s alone")[4:] - 0.05).all()


def test_what_cannot_be_is_none_with_a_reason(card):
    assert shares(card, "1 s with 4 s before") == "no clip is long enough"


def test_costs_and_speed_are_measured(card):
    cost = {metric.name: metric.value for metric in card.costs}
    assert cost["ndjson with legend, dense"] > cost["ndjson with legend, --rle"] > 0
    assert card.speed.value > 0 and card.ear == "spectral"


def test_text_and_json_hold_every_row(card, fields):
    text = "\n".join(nat.card_lines(card))
    for found in card.rows:
        assert found.name in text
    for metric in (*card.retrieval, *card.costs, *card.clips):
        assert metric.name in text
    assert all(peer.name in text and peer.source in text for peer in nat.PEERS)
    assert max(map(len, text.splitlines())) < 190
    assert [r["name"] for r in fields["rows"]] == [r.name for r in card.rows]
    assert [p["name"] for p in fields["published"]] == [p.name for p in nat.PEERS]


def closed(**properties):
    shape = {"type": "object", "additionalProperties": False, "required": list(properties)}
    return {**shape, "properties": properties}


def test_json_validates(fields):
    jsonschema = pytest.importorskip("jsonschema")
    text, share = {"type": "string"}, {"type": "number", "minimum": 0}
    maybe = {"type": ["number", "null"]}
    metric = closed(name=text, value=maybe, unit=text, why=text)
    many = {"type": "array", "items": metric, "minItems": 2}
    spread = closed(lower=share, median=share, upper=share)
    eight = {"enum": [0, 8]}
    found = closed(
        group={"enum": list(nat.CARD_GROUPS)}, name=text, why=text,
        shares={"type": "array", "items": spread}, misses={"type": "array", "items": maybe},
    )  # fmt: skip
    peer = closed(name=text, test=text, first=share, last=maybe, source=text, differs=text)
    words = {"type": "array", "items": text, "minItems": 8, "maxItems": 8}
    schema = closed(
        ear=text, codebook_id=text, reads=words, layers=words, clips=many, retrieval=many,
        rows={"type": "array", "items": found}, costs=many, speed=metric,
        groups={"type": "object"}, published={"type": "array", "items": peer},
    )  # fmt: skip
    jsonschema.validate(fields, schema)
    for found in fields["rows"]:
        assert len(found["shares"]) in eight["enum"] and bool(found["shares"]) != bool(found["why"])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_picture_opens_and_repeats(card, theme):
    pytest.importorskip("matplotlib")
    files = [io.BytesIO() for _ in range(2 if theme == "light" else 1)]
    for file in files:
        nat.save_figure(nat.draw_card(card, theme=theme), file, form="png")
    assert files[0].getvalue() == files[-1].getvalue()
    from matplotlib.image import imread

    files[0].seek(0)
    assert imread(files[0]).std() > 0.05


@pytest.mark.parametrize("reads", [
    *(layer.reads for layer in nat.LAYERS), "its first code of the frame's meaning",
])  # fmt: skip
def test_columns_have_short_titles_of_three_lines(reads):
    lines = nat.layer_title(reads).split("\n")
    assert len(lines) == 3 and lines[0] and max(map(len, lines)) <= 16


# The command line


@pytest.fixture
def quick(card, monkeypatch):
    """The command line, with a card that is made already."""
    seen = []
    monkeypatch.setattr(nat, "examine", lambda clips, settings: seen.append(clips) or card)
    return seen


def test_files_or_its_own_clips(quick, run_main, tmp_path):
    path = save_wav(tmp_path / "two.wav", song(2.0))
    assert run_main("--report-card", path).out.startswith(b"Report card of the ear 'spectral'")
    assert json.loads(run_main("--report-card", "--format", "json").out)["ear"] == "spectral"
    assert [[name for name, _ in clips] for clips in quick] == [["two.wav"], list(nat.HELD_OUT)]
    assert len(quick[0][0][1]) == 2 * RATE


def test_a_stretch_of_a_file(quick, run_main, tmp_path):
    path = save_wav(tmp_path / "long.wav", noise(40.0))
    run_main("--report-card", "--from", "2", path)
    run_main("--report-card", "--from", "1", "--to", "3.5", path)
    assert [len(clips[0][1]) / RATE for clips in quick] == [nat.CARD_SECONDS, 2.5]


def test_files_are_written_once(quick, run_main, tmp_path):
    path = save_wav(tmp_path / "a.wav", song(1.0))
    args = ("--report-card", "--output-dir", tmp_path / "out", "--quiet", path)
    assert run_main(*args).status == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    drawn = {"report_card.png"} if nat.load_package("matplotlib")[0] else set()
    assert names == {"report_card.txt", "report_card.json"} | drawn
    again = run_main(*args)
    assert again.status == 1 and "--force" in again.err
    assert run_main(*args, "--force").status == 0


def test_a_folder_that_is_a_file_is_an_error(quick, run_main, tmp_path):
    path = save_wav(tmp_path / "a.wav", song(1.0))
    done = run_main("--report-card", path, "--output-dir", path)
    assert done.status == 2 and "is no folder" in done.err and not quick


def test_a_bad_file_costs_itself_only(quick, run_main, tmp_path):
    good, short = save_wav(tmp_path / "a.wav", song(2.0)), save_wav(tmp_path / "b.wav", noise(0.5))
    done = run_main("--report-card", good, short, tmp_path / "none.wav")
    assert done.status == 1 and len(quick[0]) == 1 and done.out
    assert "too short" in done.err and "no such file" in done.err
    assert run_main("--report-card", short).status == 1


@pytest.mark.parametrize("more", [["--all-outputs"], ["--format", "npz"], ["--decode", "x"],
                                  ["-o", "x"], ["--metrics", "x"]])  # fmt: skip
def test_contradictions_are_refused(run_main, more):
    logging.getLogger().handlers[:] = []
    assert run_main("--report-card", *more).status == 2
