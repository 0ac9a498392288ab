"""Pictures: any sound can be drawn, the bytes repeat, and drawing changes nothing."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import HOP, PROGRAM, RATE, SETTINGS, clicks, noise, save_wav, song, tone

import neural_audio_tokenizer as nat

FIGURES = ("overview", "spectrograms", "pitch", "loudness", "structure", "deltas", "usage")


@pytest.fixture(scope="module")
def matplotlib():
    return pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def sounds(tokenizer):
    """Name -> (view, header) of sounds of several kinds and lengths."""

    def of(sound, name="sound.wav"):
        source = nat.Source(name, "audio", RATE, 1, len(sound) / RATE)
        job = nat.Job(nat.make_header(source, tokenizer), SETTINGS, tokenizer.trained)
        job.keep_spectrogram()
        for tokens in tokenizer.tokens(job.heard([np.asarray(sound, np.float32)])):
            job.add(tokens)
        job.seconds = source.duration
        return job.view, job.header

    nasty = 'a$b^$\\$_{c}\n\t\x1b[31m<&">\u202e\udcff 音楽 \U0001f3b5.wav' + "long" * 60
    return {
        "tone": of(tone(seconds=1.0)),
        "silence": of(np.zeros(2 * RATE)),
        "frame": of(tone(seconds=0.1)[: HOP // 2]),
        "clicks": of(clicks(0.5, seconds=25.0)),
        "song": of(song(seconds=4.0)),
        "nasty": of(tone(seconds=0.5), nasty),
    }


def png(figure):
    file = io.BytesIO()
    nat.save_figure(figure, file, form="png")
    return file.getvalue()


def words(figure):
    return [text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text"))]


def draw(name, sound, theme="light"):
    return nat.draw_figure(name, *sound, theme=theme)


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("sound", ["tone", "silence", "frame", "clicks", "song"])
def test_every_figure_draws_without_a_word(matplotlib, sounds, sound, name):
    theme = "dark" if sound in ("silence", "clicks") else "light"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = png(draw(name, sounds[sound], theme))
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) > 10_000
    if sound == "song":
        assert png(draw(name, sounds[sound], theme)) == data


def test_the_table_names_the_figures():
    assert tuple(nat.FIGURES) == FIGURES


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_the_same_sound_gives_the_same_bytes(matplotlib, sounds, form):
    files = io.BytesIO(), io.BytesIO()
    for file in files:
        nat.save_figure(draw("spectrograms", sounds["frame"]), file, form=form)
    assert files[0].getvalue() == files[1].getvalue()
    magic = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert files[0].getvalue().startswith(magic[form])


def test_a_file_holds_no_date(matplotlib, sounds):
    for form, mark in (("svg", b"<dc:date>"), ("pdf", b"/CreationDate")):
        file = io.BytesIO()
        nat.save_figure(draw("structure", sounds["frame"], "dark"), file, form=form)
        assert mark not in file.getvalue()


def test_a_picture_with_any_name_is_well_formed(matplotlib, sounds):
    file = io.BytesIO()
    nat.save_figure(draw("overview", sounds["nasty"]), file, form="svg")
    assert ElementTree.fromstring(file.getvalue()).tag.endswith("svg")


def test_names_are_shown_as_they_are():
    shown = nat.plain_text("a$b$\n\x1b[31m" + "x" * 200)
    assert shown.startswith(r"a\$b\$[31m") and "\n" not in shown and len(shown) <= 92


TITLES = {
    "overview": ("What happens when", "Waveform", "Spectrogram", "Semantic codes", "Acoustic codes",
                 "keyframes, every 5 s"),
    "spectrograms": ("Original, spaced as heard (mel)", "Original, spaced evenly (linear)",
                     "Rebuilt from the acoustic codes", "dB apart on average", "10 kHz"),
    "pitch": ("Pitch", "C4, 262 Hz", "all octaves", "F#", "S1", "A1"),
    "loudness": ("Loudness", "dB, 0 is full scale", "rise, dB", "Steady beats", "S2", "A2"),
    "structure": ("sound alike", "semantic codes alone", "0 unlike, 1 alike"),
    "deltas": ("how far each change goes", "how often they change", "changes a second", *nat.LAYER_NAMES),
    "usage": ("share of frames", "the most frequent first", "perplexity", *nat.LAYER_NAMES),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_what_it_shows(matplotlib, sounds, name):
    shown = " ".join(words(draw(name, sounds["song"])))
    missing = [w for w in ("sound.wav", "4 s", "time, seconds", *TITLES[name]) if w not in shown]
    assert missing in ([], ["time, seconds"] if name == "usage" else [])


def test_a_view_without_samples_has_no_linear_spectrogram(matplotlib, sounds):
    view, header = sounds["tone"]
    shown = " ".join(words(draw("spectrograms", (replace(view, linear=None), header))))
    assert "(mel)" in shown and "(linear)" not in shown


def fake(sounds, codes):
    """The song with other codes."""
    view, header = sounds["song"]
    return replace(view, clip=view.clip._replace(codes=codes.astype(np.int16))), header


def test_ribbons_have_a_colour_for_each_code(matplotlib, sounds):
    count = len(sounds["song"][0].clip.codes)
    codes = np.random.RandomState(0).randint(0, np.arange(2, 10), (count, 8)) * 97
    figure = draw("overview", fake(sounds, codes))
    ribbons = [np.asarray(axes.images[0].get_array()) for axes in figure.axes[3:5]]
    rows = np.concatenate([ribbon[::-1] for ribbon in ribbons])  # the last layer lies lowest
    for row, column in zip(rows, codes.T):
        firsts = np.unique(column, return_index=True)[1]
        assert len(np.unique(row, axis=0)) == len(firsts)
        assert np.array_equal(row, row[firsts][np.unique(column, return_inverse=True)[1]])


def test_steps_are_none_where_codes_hold_and_one_where_they_are_random(tokenizer):
    random = np.random.RandomState(1).randint(0, 1000, (4000, 4))
    for books in tokenizer.trained:
        assert not nat.code_steps(books, np.full((50, 4), 7)).any()
        steps = nat.code_steps(books, random)
        assert np.allclose(np.sqrt((steps[1:] ** 2).mean(axis=0)), 1, atol=0.05)
        assert steps[0].tolist() == [0, 0, 0, 0]


def test_lanes_of_changes_are_flat_only_where_codes_hold(matplotlib, sounds):
    def heights(codes):
        lanes = draw("deltas", fake(sounds, codes)).axes[0].collections
        return [np.ptp(lane.get_paths()[0].vertices[:, 1]) for lane in lanes]

    shape = sounds["song"][0].clip.codes.shape
    assert max(heights(np.full(shape, 5))) == 0
    assert min(heights(np.random.RandomState(2).randint(0, 1000, shape))) > 0.3


def test_keyframes_keep_their_times_where_a_view_begins_later(sounds):
    view, header = sounds["clicks"]
    step = 215 / SETTINGS.frame_rate  # the frame nearest five seconds
    assert np.allclose(nat.keyframe_times(view, header), step * np.arange(6))
    later = replace(view, start=7.0)
    assert np.allclose(nat.keyframe_times(later, header), step * np.arange(2, 7) - 7.0)
    assert np.allclose(nat.keyframe_times(replace(view, start=2 * step), header)[0], 0)


def direct_columns(sound, size):
    """Mean power of each `size` frames, by another way than SpectrumPool's."""
    count = -(-len(sound) // HOP)
    padded = np.pad(sound.astype(np.float64), (3 * HOP // 2, 4 * HOP))
    frames = np.stack([padded[k * HOP : k * HOP + 4 * HOP] for k in range(count)])
    power = nat.power_spectrum(frames)
    return np.stack([power[k : k + size].mean(axis=0) for k in range(0, count, size)])


@pytest.mark.parametrize("seconds, size", [(0.01, 1), (2.0, 1), (40.0, 2), (70.0, 4)])
def test_a_pool_keeps_the_mean_of_a_bounded_number_of_columns(seconds, size):
    sound, columns = noise(seconds), []
    for block in (len(sound), 10007):
        pool = nat.SpectrumPool(HOP, (0, 10**12))
        for at in range(0, len(sound), block):
            pool.push(sound[at : at + block])
        columns.append(pool.columns())
    assert np.array_equal(*columns) and len(columns[0]) <= nat.COLUMNS
    assert len(columns[0]) == len(nat.blocks_of(np.zeros(-(-len(sound) // HOP))))
    assert np.allclose(columns[0], direct_columns(sound, size), rtol=1e-4, atol=1e-12)


def test_a_pool_keeps_the_stretch_that_is_viewed():
    sound, pool = song(3.0), nat.SpectrumPool(HOP, (21, 60))
    pool.push(sound)
    assert np.allclose(pool.columns(), direct_columns(sound, 1)[21:60], rtol=1e-4, atol=1e-12)


def test_what_the_codes_rebuild_is_where_the_sound_is(sounds):
    view, _ = sounds["tone"]
    for linear in (None, view.linear):
        original, rebuilt = nat.spectrogram_pair(view, linear)
        assert original.shape == rebuilt.shape and np.isclose(original.min(), rebuilt.min())
        assert np.abs(original.mean(axis=0).argmax() - rebuilt.mean(axis=0).argmax()) <= 2
    silent = nat.spectrogram_pair(sounds["silence"][0], None)
    assert np.ptp(silent) == 0


def test_beats_stand_at_the_clicks(sounds):
    spectra = sounds["clicks"][0].clip.spectra
    onsets = nat.find_onsets(spectra, SETTINGS.frame_rate)
    ((pulse, times),) = nat.beats_of(spectra, SETTINGS.frame_rate, onsets)
    assert abs(pulse.bpm - 120) < 1 and np.abs(times * 2 - np.rint(times * 2)).max() < 0.08


def test_a_tone_without_a_lead_has_its_own_pitch_as_line(sounds):
    heights = np.array(nat.pitch_lines(sounds["tone"][0]))[:, 0]
    assert len(heights) and np.abs(heights - 69).max() < 0.5
    assert nat.pitch_lines(sounds["silence"][0]) == []


def test_a_code_keeps_its_colour_and_neighbours_differ(matplotlib):
    colours = nat.code_colours(np.arange(1000), "viridis")
    assert np.array_equal(colours[[7, 300]], nat.code_colours(np.array([7, 300]), "viridis"))
    assert np.abs(np.diff(colours, axis=0)).max(axis=1).min() > 0.1


def test_a_column_shows_its_commonest_code():
    blocks = np.array([[5, 7, 7], [1, 2, 3], [4, 4, 9]])
    assert nat.commonest(blocks).tolist() == [7, 1, 4]


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 250])
def test_pooling_keeps_all_rows_in_few_blocks(count):
    rows = np.arange(count)
    blocks = nat.blocks_of(rows, 100)
    assert len(blocks) <= 100 and np.array_equal(np.unique(blocks), rows)


def test_likeness_knows_same_and_other(sounds):
    steady = nat.code_likeness(nat.section_features(sounds["silence"][0].clip.spectra))
    assert steady.min() > 0.99
    like = nat.code_likeness(nat.section_features(sounds["song"][0].clip.spectra))
    assert np.allclose(np.diagonal(like), 1) and np.allclose(like, like.T) and like.min() < 0.5


def test_drawing_leaves_the_sound_as_it_was(matplotlib, sounds):
    view, header = sounds["song"]
    arrays = [view.clip.codes, *view.clip[1:3], *view.clip.spectra, view.linear]
    before = [array.copy() for array in arrays]
    for name in nat.FIGURES:
        draw(name, (view, header), "dark")
    assert all(np.array_equal(a, b) for a, b in zip(before, arrays))


def test_drawing_leaves_matplotlib_as_it_was(matplotlib, sounds):
    before, pyplot = matplotlib.rcParams.copy(), "matplotlib.pyplot" in sys.modules
    data = png(draw("structure", sounds["frame"]))
    assert matplotlib.rcParams.copy() == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot
    own = {"savefig.bbox": "tight", "axes.grid": True, "savefig.dpi": 30, "font.size": 30}
    with matplotlib.rc_context(own):
        assert png(draw("structure", sounds["frame"])) == data


def test_importing_the_program_imports_no_matplotlib():
    code = "import sys, neural_audio_tokenizer; print('matplotlib' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PROGRAM.parent, capture_output=True, timeout=60)
    assert done.stdout.strip() == b"False", done.stderr


def test_without_matplotlib_the_error_says_how_to_get_it(sounds, monkeypatch):
    monkeypatch.setattr(nat, "load_package", lambda name: (None, f"{name} is not installed"))
    with pytest.raises(nat.MissingError, match="pip install matplotlib"):
        draw("overview", sounds["tone"])


# The command line


@pytest.fixture
def wav(tmp_path):
    return save_wav(tmp_path / "a.wav", song(1.0))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_viz_alone_writes_pictures_alone(matplotlib, run_main, wav, tmp_path):
    out = tmp_path / "out"
    done = run_main("--viz", "pitch,overview", "--viz-format", "svg", "--output-dir", out, wav)
    assert done.status == 0 and done.out == b"" and done.err.count("\n") == 1
    assert names(out) == ["a_viz_overview.svg", "a_viz_pitch.svg"]
    assert (out / "a_viz_pitch.svg").read_bytes().startswith(b"<?xml")
    done = run_main("--viz", "usage", "--format", "text", "--output-dir", tmp_path / "b", wav)
    assert names(tmp_path / "b") == ["a_tokens.txt", "a_viz_usage.png"]


def test_all_outputs_draw_all_or_what_viz_names(matplotlib, run_main, wav, tmp_path, monkeypatch):
    monkeypatch.setattr(nat, "save_figure", lambda figure, file, form: file.write(b"drawn"))
    monkeypatch.setattr(nat, "draw_figure", lambda *view, theme: None)
    for given, expected in (
        ((), FIGURES),
        (("--viz", "none"), ()),
        (("--viz", "usage"), ("usage",)),
    ):
        out = tmp_path / str(len(expected))
        assert run_main("--all-outputs", "--output-dir", out, *given, wav).status == 0
        drawn = [name for name in names(out) if "_viz_" in name]
        assert drawn == sorted(f"a_viz_{name}.png" for name in expected)
        assert len(names(out)) - len(drawn) == len(nat.ALL_FORMATS)


@pytest.mark.parametrize(
    "given, status, said",
    [(("--viz", "overview,nonsense", "--output-dir", "o"), 2, ("'nonsense'", *FIGURES)),
     (("--viz", "overview"), 2, ("--output-dir",)),
     (("--viz", "all", "--output-dir", "o", "--compat-fallback"), 3, ("matplotlib",)),
     (("--viz", "all", "--viz-format", "gif"), 2, ("png", "svg", "pdf"))],
)  # fmt: skip
def test_what_cannot_be_drawn_is_said_at_once(run_main, wav, given, status, said):
    done = run_main(*given, wav)
    assert done.status == status and done.out == b""
    assert not [word for word in said if word not in done.err] and "Traceback" not in done.err


@pytest.mark.parametrize("live", [False, True])
def test_all_else_is_written_before_a_picture_is_drawn(
    matplotlib, run_main, wav, tmp_path, monkeypatch, capfdbinary, live
):
    seen = []

    def look(name, *view, theme):
        stem = "stdin" if live else "a"
        seen.append((name, capfdbinary.readouterr().out, (out / f"{stem}_tokens.npz").exists()))

    monkeypatch.setattr(nat, "draw_figure", look)
    monkeypatch.setattr(nat, "save_figure", lambda figure, file, form: None)
    out = tmp_path / "out"
    given = ("--all-outputs", "--ndjson-streaming", "--viz", "usage", "--output-dir", out)
    done = run_main(*given, "-" if live else wav, input=wav.read_bytes())
    ((name, text, others),) = seen
    lines = text.splitlines()
    assert done.status == 0 and name == "usage" and others and done.out == b""
    assert json.loads(lines[0])["event"] == "header" and json.loads(lines[-1])["event"] == "end"


def test_a_picture_that_fails_costs_no_other(matplotlib, run_main, wav, tmp_path, monkeypatch):
    real = nat.draw_figure

    def fail(name, *view, theme):
        if name == "overview":
            raise ValueError("no such glyph")
        return real(name, *view, theme=theme)

    monkeypatch.setattr(nat, "draw_figure", fail)
    given = ("--format", "npz", "--viz", "overview,structure", "--output-dir", tmp_path / "o")
    done = run_main(*given, wav)
    assert done.status == 1 and "a_viz_overview.png: no such glyph" in done.err
    assert names(tmp_path / "o") == ["a_tokens.npz", "a_viz_structure.png"]


def test_pictures_need_no_display_and_change_no_codes(matplotlib, run_cli, wav, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    environment["MPLBACKEND"] = "TkAgg"
    given = ("--viz", "spectrograms", "--output-dir", tmp_path / "o", "--ndjson-streaming", wav)
    done = run_cli(*given, env=environment)
    assert done.status == 0 and names(tmp_path / "o") == ["a_viz_spectrograms.png"]
    assert run_cli(wav).out == done.out


def test_a_stretch_is_drawn_with_its_own_samples(matplotlib, run_main, tmp_path, monkeypatch):
    views = []
    monkeypatch.setattr(nat, "draw_figure", lambda name, view, header, theme: views.append(view))
    monkeypatch.setattr(nat, "save_figure", lambda figure, file, form: None)
    sound = np.concatenate([tone(seconds=2.0), tone(2000.0, seconds=2.0)])
    wav = save_wav(tmp_path / "two.wav", sound)
    given = ("--viz", "spectrograms", "--from", "2.5", "--output-dir", tmp_path / "o")
    assert run_main(*given, wav).status == 0
    (view,) = views
    assert abs(view.start - 2.5) < 0.03 and len(view.linear) == len(view.clip.codes)
    assert abs(view.linear.mean(axis=0).argmax() * RATE / (4 * HOP) - 2000) < 20
