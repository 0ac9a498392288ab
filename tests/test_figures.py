"""Pictures: any sound can be drawn, the bytes repeat, and drawing changes nothing."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import HOP, PROGRAM, RATE, SETTINGS, clicks, song, tone

import neural_audio_tokenizer as nat

FIGURES = ("overview", "structure", "usage")


@pytest.fixture(scope="module")
def matplotlib():
    return pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def sounds(tokenizer):
    """Name -> (view, header) of sounds of several kinds and lengths."""

    def of(sound, name="sound.wav"):
        keeper = nat.Gatherer()
        for tokens in tokenizer.tokens([np.asarray(sound, np.float32)]):
            keeper.add(nat.Clip(*tokens[:3], tokens.spectra))
        source = nat.Source(name, "audio", RATE, 1, len(sound) / RATE)
        rate = SETTINGS.frame_rate / keeper.stride
        view = nat.View(name, keeper.clip(), tokenizer.trained, rate, RATE)
        return view, nat.make_header(source, tokenizer)

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


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("sound", ["tone", "silence", "frame", "clicks", "song", "nasty"])
def test_every_figure_draws_without_a_word(matplotlib, sounds, sound, name):
    theme = "dark" if sound in ("silence", "clicks") else "light"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = png(nat.FIGURES[name](*sounds[sound], theme=theme))
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) > 10_000


def test_the_table_names_the_figures():
    assert tuple(nat.FIGURES) == FIGURES


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_the_same_sound_gives_the_same_bytes(matplotlib, sounds, form):
    files = io.BytesIO(), io.BytesIO()
    for file in files:
        nat.save_figure(nat.draw_overview(*sounds["song"], theme="light"), file, form=form)
    assert files[0].getvalue() == files[1].getvalue()
    magic = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert files[0].getvalue().startswith(magic[form])


def test_a_file_holds_no_date(matplotlib, sounds):
    for form, mark in (("svg", b"<dc:date>"), ("pdf", b"/CreationDate")):
        file = io.BytesIO()
        nat.save_figure(nat.draw_structure(*sounds["tone"], theme="dark"), file, form=form)
        assert mark not in file.getvalue()


def test_a_picture_with_any_name_is_well_formed(matplotlib, sounds):
    file = io.BytesIO()
    nat.save_figure(nat.draw_usage(*sounds["nasty"], theme="light"), file, form="svg")
    assert ElementTree.fromstring(file.getvalue()).tag.endswith("svg")


def test_names_are_shown_as_they_are():
    shown = nat.plain_text("a$b$\n\x1b[31m" + "x" * 200)
    assert shown.startswith(r"a\$b\$[31m") and "\n" not in shown and len(shown) <= 92


def test_the_overview_says_what_it_shows(matplotlib, sounds):
    shown = " ".join(words(nat.draw_overview(*sounds["song"], theme="light")))
    for expected in ("sound.wav", "4 s", "kHz", "dB", "time, seconds", *nat.LAYER_NAMES):
        assert expected in shown


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
    steady = nat.self_likeness(sounds["silence"][0].clip.spectra)
    assert steady.min() > 0.99
    like = nat.self_likeness(sounds["song"][0].clip.spectra)
    assert np.allclose(np.diagonal(like), 1) and np.allclose(like, like.T) and like.min() < 0.5


def test_drawing_leaves_the_sound_as_it_was(matplotlib, sounds):
    view, header = sounds["song"]
    arrays = [view.clip.codes, *view.clip[1:3], *view.clip.spectra]
    before = [array.copy() for array in arrays]
    for draw in nat.FIGURES.values():
        draw(view, header, theme="dark")
    assert all(np.array_equal(a, b) for a, b in zip(before, arrays))


def test_drawing_leaves_matplotlib_as_it_was(matplotlib, sounds):
    before, pyplot = matplotlib.rcParams.copy(), "matplotlib.pyplot" in sys.modules
    png(nat.draw_usage(*sounds["tone"], theme="light"))
    assert matplotlib.rcParams.copy() == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


def test_importing_the_program_imports_no_matplotlib():
    code = "import sys, neural_audio_tokenizer; print('matplotlib' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PROGRAM.parent, capture_output=True, timeout=60)
    assert done.stdout.strip() == b"False", done.stderr


def test_without_matplotlib_the_error_says_how_to_get_it(sounds, monkeypatch):
    monkeypatch.setattr(nat, "load_package", lambda name: (None, f"{name} is not installed"))
    with pytest.raises(nat.MissingError, match="pip install matplotlib"):
        nat.draw_overview(*sounds["tone"], theme="light")
