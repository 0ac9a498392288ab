"""The page of a sound: whole, escaped, alike every time; and in a browser it plays and follows."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import io
import json
import re
import wave

import browser as browsers
import numpy as np
import pytest
from conftest import RATE, SETTINGS, load_wav, save_wav, song, tone

import neural_audio_tokenizer as nat

NASTY = "</script><img src=x onerror=alert(1)>\u2028{x}&amp;'\".wav"
VOID = {"meta", "link", "input", "br", "img"}


class Reader(html.parser.HTMLParser):
    """Elements of a page, their ids and texts; fails where one is left open."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], {}, []
        self.feed(text)
        assert not self._open, self._open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append((tag, dict(attributes).get("id", tag)))

    def handle_endtag(self, tag):
        assert self._open and self._open.pop()[0] == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        for _, name in self._open:
            self.texts[name] = self.texts.get(name, "") + data

    @property
    def data(self):
        return json.loads(self.texts["data"])

    def codes(self):
        """Codes [T, 8] that the page holds."""
        flat = np.frombuffer(base64.b64decode(self.data["codes"]), "<u2")
        return flat.reshape(8, self.data["rows"]).T

    def sound(self, number):
        """Bytes of an embedded sound."""
        addresses = [a["src"] for tag, a in self.elements if tag == "audio"]
        return base64.b64decode(addresses[number].partition(";base64,")[2])

    def addresses(self):
        """What the players play, without what is within the page."""
        found = [a["src"].partition("base64,")[0] for tag, a in self.elements if tag == "audio"]
        return found


@pytest.fixture(scope="module")
def sound():
    """Five seconds of music, then a tone is held: something happens in it."""
    return np.concatenate([song(seconds=5.0), tone(220.0, 3.0, partials=5)])


@pytest.fixture(scope="module")
def page_file(tokenizer, sound, tmp_path_factory):
    """The page of a short song, made by the program."""
    folder = tmp_path_factory.mktemp("page")
    made = nat.Outputs(formats=("report",), folder=folder)
    assert nat.Runner(SETTINGS, made).run(str(save_wav(folder / "a song.wav", sound))) == 0
    return folder / "a song_report.html"


@pytest.fixture(scope="module")
def page(page_file):
    return page_file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def nasty(tokenizer):
    """A page whose every outside word would like to be a tag, an instruction or a format."""
    header = nat.make_header(nat.Source(NASTY, "audio", RATE, 1, 1.0), tokenizer)
    header = header._replace(reads=(NASTY,) * 8, codebook_id=NASTY)
    gatherer = nat.Gatherer()
    for tokens in tokenizer.tokens([tone(seconds=1.0)]):
        gatherer.add(nat.Clip(*tokens[:3], tokens.spectra))
    view = nat.View(NASTY, gatherer.clip(), tokenizer.trained, SETTINGS.frame_rate, RATE)
    metrics = [nat.Metric(NASTY, None, "", NASTY), nat.Metric("pitch.x", 0.123456, "cosine")]
    sounds = {NASTY: "data:audio/wav;base64,bm8gc291bmQ="}
    more = {"text": NASTY, "metrics": metrics, "sounds": sounds}
    return nat.page_html(view, header, gloss=lambda layer, code: NASTY, **more)


# What the page is made of


def test_every_element_is_closed_and_every_reference_is_met(page):
    elements = Reader(page).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = re.findall(r'\$\("(\w+)"\)', nat.PAGE_SCRIPT)
    for _, attributes in elements:
        for key in ("aria-labelledby", "aria-describedby", "for"):
            named += attributes.get(key, "").split()
    assert set(named) <= set(ids) and len(named) > 20


def test_every_control_is_a_button_with_a_name(page):
    assert "onclick=" not in page.replace("oninput =", "")
    buttons = re.findall(r"<button ([^>]*)>(.*?)</button>", page, re.DOTALL)
    assert len(buttons) > 6
    for attributes, words in buttons:
        assert 'type="button"' in attributes
        assert re.search(r"[A-Za-z]{2}", words) or "aria-label=" in attributes


def test_the_codes_come_back_exactly(page, tokenizer, sound):
    heard = np.rint(sound * 32768).clip(-32768, 32767).astype(np.float32) / 32768
    assert np.array_equal(Reader(page).codes(), tokenizer.encode(heard).array)


def test_every_code_that_is_used_has_its_gloss_once(page, tokenizer):
    reader, gloss = Reader(page), nat.gloss_table(tokenizer.trained)
    for layer, (known, column) in enumerate(zip(reader.data["glosses"], reader.codes().T)):
        assert known == {str(code): gloss(layer, code) for code in np.unique(column).tolist()}


def test_the_view_and_its_cost_are_shown(page, page_file, run_main):
    source = page_file.parent / "a song.wav"
    view = run_main(source, "--format", "stream").out.decode().rstrip("\n")
    assert Reader(page).texts["view"] == view
    assert f"costs {nat.count_llm_tokens(view):,} LLM tokens" in page


def test_the_spectrogram_shows_a_tone_where_it_is(tokenizer):
    gatherer = nat.Gatherer()
    for tokens in tokenizer.tokens([tone(1000.0, seconds=1.0)]):
        gatherer.add(nat.Clip(*tokens[:3], tokens.spectra))
    view = nat.View("tone", gatherer.clip(), tokenizer.trained, SETTINGS.frame_rate, RATE)
    pixels = nat.mel_pixels(view)
    assert pixels.shape == (nat.N_MELS, len(view.clip.codes)) and pixels.dtype == np.uint8
    bright = nat.N_MELS - 1 - np.flatnonzero(pixels[:, 20] == pixels[:, 20].max())
    edges = nat.MEL_EDGES
    assert any(edges[band] < 1000 < edges[band + 2] for band in bright) and len(bright) < 4
    assert pixels.max() == 255 and pixels.min() < 60


def test_only_the_page_s_own_script_and_style_may_run(page):
    policy = Reader(page).elements[3][1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    for tag in ("script", "style"):
        inside = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode()
        assert len(inside) == 1 and f"{tag}-src 'sha256-{digest}'" in policy["content"]
    assert "default-src 'none'" in policy["content"] and "unsafe" not in policy["content"]


def test_nothing_in_the_page_points_outside(page):
    assert not re.search(r"https?:|//www\.|url\(|@import|fetch\(|XMLHttp| style=", page)
    links = [attributes["href"] for _, attributes in Reader(page).elements if "href" in attributes]
    assert links == ["data:,"]
    assert {address[:11] for address in Reader(page).addresses()} == {"data:audio/"}


def test_no_outside_word_becomes_a_tag(nasty):
    reader = Reader(nasty)
    assert {tag for tag, _ in reader.elements} & {"img", "iframe", "object"} == set()
    assert not [a for _, a in reader.elements if any(name.startswith("on") for name in a)]
    assert [tag for tag, _ in reader.elements].count("script") == 2
    assert reader.texts["h1"] == reader.texts["view"] == NASTY
    assert reader.data["glosses"][0].popitem()[1] == NASTY
    assert reader.addresses() == ["data:audio/wav;"]
    inside = nasty[nasty.index('<script id="data"') :]
    assert "\u2028" not in inside.split("</script>")[0]


def test_a_metric_without_a_value_says_why(nasty):
    assert "none: &lt;/script&gt;" in nasty
    assert re.search(r">pitch\.x</th><td>0\.1235</td><td>cosine</td>", nasty)


def test_the_same_sound_gives_the_same_page(page_file, page, run_main):
    again = run_main(page_file.parent / "a song.wav", "--format", "report")
    assert again.status == 0 and again.out.decode() == page


# The sounds in it and beside it


def ogg_pages(data):
    """Pages of an Ogg stream, with the checksum bit by bit (RFC 3533, 6)."""
    at = 0
    while at < len(data):
        segments = data[at + 26]
        length = 27 + segments + sum(data[at + 27 : at + 27 + segments])
        page, crc = bytearray(data[at : at + length]), 0
        page[22:26] = bytes(4)
        for byte in page:
            crc ^= byte << 24
            for _ in range(8):
                crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
        yield data[at : at + length], crc
        at += length


def test_the_sounds_are_whole_and_carry_nothing_random(page, sound):
    soundfile = pytest.importorskip("soundfile")
    for number, least in ((0, 0.99), (1, -1.0)):
        data = Reader(page).sound(number)
        for ogg_page, crc in ogg_pages(data):
            assert ogg_page[14:18] == bytes(4) and ogg_page[22:26] == crc.to_bytes(4, "little")
        samples, rate = soundfile.read(io.BytesIO(data))
        assert rate == RATE and len(samples) == len(sound)
        assert np.corrcoef(samples, sound)[0, 1] > least
        assert abs(20 * np.log10(samples.std() / sound.std())) < 3


def test_with_numpy_alone_the_sounds_are_wav(page_file, sound, tmp_path, run_main):
    source, target = page_file.parent / "a song.wav", tmp_path / "x.html"
    done = run_main(source, "--format", "report", "-o", target, "--compat-fallback")
    assert done.status == 0, done.err
    reader = Reader(target.read_text(encoding="utf-8"))
    with wave.open(io.BytesIO(reader.sound(0))) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert len(data) == len(sound) and np.abs(data / 32767 - sound).max() < 1e-3
    assert reader.addresses() == ["data:audio/wav;"] * 2


def test_large_sounds_lie_beside_the_page(page_file, tmp_path, run_main, monkeypatch):
    monkeypatch.setattr(nat, "EMBED_BYTES", 1000)
    source, target = page_file.parent / "a song.wav", tmp_path / "50% #1?.html"
    done = run_main(source, "--format", "report", "-o", target, "--compat-fallback")
    assert done.status == 0, done.err
    names = [f"50% #1?_{which}.wav" for which in ("original", "reconstruction")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([target.name, *names])
    assert np.array_equal(load_wav(tmp_path / names[0])[0].shape, load_wav(source)[0].shape)
    reader = Reader(target.read_text(encoding="utf-8"))
    ends = ("original", "reconstruction")
    assert reader.addresses() == [f"50%25%20%231%3F_{end}.wav" for end in ends]
    assert target.stat().st_size < 300_000
    target.unlink()
    done = run_main(source, "--format", "report", "-o", target)
    assert done.status == 1 and "exists; --force overwrites it" in done.err


def test_a_sound_beside_a_page_never_overwrites_an_input(tmp_path, run_main):
    source = save_wav(tmp_path / "a_report_original.wav", tone(seconds=0.5))
    other = save_wav(tmp_path / "a.wav", tone(seconds=0.5))
    done = run_main(other, source, "--format", "report", "--output-dir", tmp_path, "--force")
    assert done.status == 1 and "is an input too" in done.err


def test_a_stretch_has_its_own_sound_and_codes(page_file, page, run_main):
    source = page_file.parent / "a song.wav"
    made = run_main(source, "--format", "report", "--from", 2, "--to", 4, "--compat-fallback")
    reader, whole = Reader(made.out.decode()), Reader(page).codes()
    first = int(np.ceil(2 * SETTINGS.frame_rate))
    assert np.array_equal(reader.codes(), whole[first : first + len(reader.codes())])
    with wave.open(io.BytesIO(reader.sound(0))) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    assert len(data) == len(reader.codes()) * 512
    assert np.abs(data - load_wav(source)[0][first * 512 :][: len(data)]).max() < 1e-3


def test_a_very_long_sound_is_thinned_and_says_so(page_file, page, run_main, monkeypatch):
    monkeypatch.setattr(nat, "MAX_ROWS", 100)
    monkeypatch.setattr(nat, "PAGE_COLUMNS", 50)
    made = run_main(page_file.parent / "a song.wav", "--format", "report", "--compat-fallback")
    reader, whole = Reader(made.out.decode()), Reader(page).codes()
    assert reader.data["stride"] == 4 and np.array_equal(reader.codes(), whole[::4])
    assert len(base64.b64decode(reader.data["mel"])) == nat.N_MELS * -(-len(reader.codes()) // 2)
    assert reader.data["span"] >= reader.data["duration"] == pytest.approx(8.0)


@pytest.mark.parametrize("seconds", [0.01, 0.5])
def test_the_shortest_sounds_have_a_page(seconds, run_main, tmp_path):
    source = save_wav(tmp_path / "short.wav", tone(seconds=seconds))
    made = run_main(source, "--format", "report")
    duration = Reader(made.out.decode()).data["duration"]
    assert made.status == 0 and duration == pytest.approx(seconds, abs=1 / RATE)


def test_a_decoded_stream_has_no_page(run_main, tmp_path):
    done = run_main("--decode", tmp_path / "x.ndjson", "--format", "report")
    assert done.status == 2 and "the rest needs sound" in done.err


# In a browser


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    path = browsers.find_browser()
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    chromium = browsers.Browser(path, tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


@pytest.fixture
def opened(chromium, page_file):
    """The page in a browser; afterwards nothing was complained of or asked for."""
    url = page_file.as_uri()
    chromium.resize(1280, 900)
    chromium.scheme("light")
    chromium.open(url)
    chromium.until("width > 0 && players.every((player) => player.readyState > 2)")
    yield chromium
    assert chromium.complaints() == [] and chromium.requests() == [url]


def shown_codes(page):
    return page.js("[...document.querySelectorAll('#codes span:nth-of-type(1)')]"
                   ".map((cell) => +cell.textContent)")  # fmt: skip


def middle_of(page, selector):
    box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
    return page.js(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({box})")


def click(page, x, y):
    page.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
    page.mouse("mouseReleased", x, y, button="left", clickCount=1)


def test_it_plays_and_the_playhead_and_codes_follow(opened, page):
    codes, before = Reader(page).codes(), opened.js("$('head').style.transform")
    click(opened, *middle_of(opened, "#play"))
    opened.until("players[0].currentTime > 0.7 && position > 0.7")
    assert opened.js("$('play').textContent") == "Pause"
    click(opened, *middle_of(opened, "#play"))
    opened.until("!playing()")
    time = opened.js("position")
    assert 0.7 < time < 5 and opened.js("$('head').style.transform") != before
    assert shown_codes(opened) == codes[int(time * SETTINGS.frame_rate + 0.01)].tolist()
    assert opened.js("Math.abs(position - players[0].currentTime)") < 0.1


def test_the_end_stops_it_and_play_begins_again(opened):
    opened.js("seek(7.8); play()")
    opened.until("players[0].ended")
    assert opened.js("$('play').textContent") == "Play"
    opened.js("play()")
    opened.until("playing() && position > 0.05 && position < 3")


def test_the_other_version_plays_on_from_the_same_place(opened):
    opened.js("seek(3); play()")
    opened.until("position > 3.2")
    click(opened, *middle_of(opened, "[data-sound='1']"))
    opened.until("!players[1].paused && players[0].paused && players[1].currentTime > 0")
    assert 3.1 < opened.js("Math.min(position, players[1].currentTime)") < 6
    pressed = "[...document.querySelectorAll('[data-sound]')].map((b) => b.ariaPressed)"
    assert opened.js(pressed) == ["false", "true"]


def test_a_click_seeks_and_a_pointer_reads(opened, page):
    codes = Reader(page).codes()
    box = opened.js("(({x, y}) => [x, y])(chart.getBoundingClientRect())")
    x = opened.js("across(5)")
    click(opened, box[0] + x, box[1] + 350)
    assert opened.js("position") == pytest.approx(5, abs=0.02)
    assert opened.js("players[0].currentTime") == pytest.approx(5, abs=0.02)
    opened.mouse("mouseMoved", box[0] + opened.js("across(2.01)"), box[1] + 350)
    assert opened.js("$('when').textContent").startswith("Pointed at 2.0")
    row = opened.js("rowAt(pointed)")
    assert shown_codes(opened) == codes[row].tolist() and opened.js("position > 4.9")
    opened.mouse("mouseMoved", 5, 5)
    assert opened.js("$('when').textContent").startswith("Now at")


def test_the_ribbons_show_the_colours_of_the_codes(opened, page):
    codes = Reader(page).codes()
    opened.js("look(3, 1)")
    row = int(3.5 * SETTINGS.frame_rate)
    column = opened.js(f"[...pen.getImageData(across(({row} + 0.5) / data.rate), 0, 1,"
                       " chart.height).data]")  # fmt: skip
    seen = [f"rgb({r}, {g}, {b})" for r, g, b in np.reshape(column, (-1, 4))[:, :3].tolist()]
    at = len(seen) // 2  # below the spectrogram
    for layer in range(8):
        colour = opened.js(f"colour({layer}, {codes[row, layer]})").replace(",", ", ")
        at = seen.index(colour, at) + 16  # each ribbon stands below the one before
        assert seen[at - 16 : at] == [colour] * 16


def test_it_works_by_keyboard(opened, page):
    codes = Reader(page).codes()
    for key, row in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("Home", 0)):
        opened.key(key)
        assert opened.js("rowAt(position)") == row
        assert shown_codes(opened) == codes[row].tolist()
    opened.key("ArrowRight", shift=True)
    assert opened.js("position") == pytest.approx(5, abs=0.03)
    opened.key("End")
    assert opened.js("position === data.duration")
    opened.key("Home")
    opened.key(" ")
    opened.until("playing() && position > 0.1")
    opened.key(" ")
    opened.until("!playing()")
    opened.js("$('in').focus()")
    opened.key("ArrowRight")  # the focus on a button takes no arrows away
    at = opened.js("position")
    opened.key(" ")  # but its own key
    assert opened.js("to - from") == pytest.approx(4, abs=0.1) and opened.js("position") == at
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert opened.js(outline) == "solid"


def test_who_listens_is_told_once_things_rest(opened):
    opened.js("window.told = 0; new MutationObserver(() => told++).observe($('spoken'),"
              " { childList: true })")  # fmt: skip
    opened.js("seek(1); play()")
    opened.until("position > 1.8")
    assert opened.js("told") == 0
    opened.js("play()")
    opened.until("told === 1")
    assert opened.js("$('spoken').textContent.includes(gloss(5, codeAt(5, rowAt(position))))")


def test_zoom_keeps_the_playhead_in_sight(opened):
    opened.js("seek(6)")
    click(opened, *middle_of(opened, "#in"))
    assert opened.js("to - from") == pytest.approx(4, abs=0.01) and opened.js("from < 6 && 6 < to")
    opened.js("seek(0.5)")
    assert opened.js("from <= 0.5 && 0.5 <= to")
    opened.js("look(2, 1); seek(2.8); play()")
    opened.until("position > 3.2 && from <= position && position <= to && to - from < 1.01")
    click(opened, *middle_of(opened, "#all"))
    assert opened.js("from === 0 && to === data.duration")


def test_an_observation_seeks(opened):
    time = opened.js("(() => { const b = [...document.querySelectorAll('[data-time]')].pop();"
                     " b.click(); return +b.dataset.time; })()")  # fmt: skip
    assert opened.js("position") == pytest.approx(time, abs=0.01)


@pytest.mark.parametrize("refused", [False, True])
def test_the_view_is_copied(opened, page, refused):
    opened.call("Browser.grantPermissions", permissions=["clipboardReadWrite",
                "clipboardSanitizedWrite"])  # fmt: skip
    opened.call("Page.bringToFront")
    opened.js("navigator.clipboard.writeText('before')")
    if refused:
        opened.js("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    opened.js("$('copy').click()")
    opened.until("$('copied').textContent === 'Copied.'")
    assert opened.js("navigator.clipboard.readText()").strip() == Reader(page).texts["view"].strip()


def luminance(colour):
    """Relative luminance of an rgb(...) (WCAG 2)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (p / 12.92 if p < 0.04 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_be_read(opened, scheme):
    opened.scheme(scheme)
    pairs = (("p", ".card"), (".faint", ".card"), ("header .faint", "body"), ("#play", "#play"),
             ("#copy", "#copy"), ("pre", "pre"))  # fmt: skip
    for words, ground in pairs:
        style = "getComputedStyle(document.querySelector('%s')).%s"
        ink = luminance(opened.js(style % (words, "color")))
        paper = luminance(opened.js(style % (ground, "backgroundColor")))
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, (words, scheme)
        assert words.startswith("#") or (ink > paper) == (scheme == "dark")


def test_a_phone_shows_it_without_scrolling_sideways(opened):
    opened.resize(360, 740, mobile=True)
    opened.until("width < 360")
    assert opened.js("document.documentElement.scrollWidth") <= 360
    sizes = opened.js("[...document.querySelectorAll('button')].map((b) => b.offsetHeight)")
    assert min(sizes) >= 36
    x, y = opened.js("(({x, y}) => [x + across(4), y + 200])(chart.getBoundingClientRect())")
    opened.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    opened.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    opened.until("Math.abs(position - 4) < 0.1")


def test_what_a_screen_reader_finds_has_names(opened):
    nodes = opened.call("Accessibility.getFullAXTree")["nodes"]
    found = {}
    for node in nodes:
        role = node.get("role", {}).get("value")
        found.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    for role in ("button", "slider", "image", "region", "table", "heading"):
        assert found.get(role) and all(found[role]), (role, found.get(role))
    assert {"banner", "main", "contentinfo"} <= set(found)


def test_a_nasty_name_is_shown_and_nothing_else(chromium, nasty, tmp_path):
    file = tmp_path / "nasty.html"
    file.write_text(nasty, encoding="utf-8")
    chromium.open(file.as_uri())
    chromium.until("width > 0")
    assert chromium.js("document.querySelector('h1').textContent") == NASTY
    assert chromium.js("document.images.length + document.scripts.length") == 2
    assert chromium.js("$('codes').textContent.split('</script><img').length - 1") == 16
    chromium.until(f"$('told').textContent === 'This browser cannot play: ' + {json.dumps(NASTY)}")
    assert chromium.requests() == [file.as_uri()] and chromium.complaints() == []


@pytest.mark.parametrize("limit", [0, 1e9])
def test_wav_plays_from_within_and_from_beside(
    chromium, page_file, tmp_path, run_main, monkeypatch, limit
):
    monkeypatch.setattr(nat, "EMBED_BYTES", limit)
    source, target = page_file.parent / "a song.wav", tmp_path / "1 #%?.html"
    run_main(source, "--format", "report", "-o", target, "--compat-fallback")
    chromium.open(target.as_uri())
    chromium.until("width > 0")
    chromium.js("seek(4); play()")
    chromium.until("position > 4.3")
    beside = [url for url in chromium.requests() if url != target.as_uri()]
    assert {url.rpartition("/")[2][-12:] for url in beside} <= {"original.wav", "truction.wav"}
    assert bool(beside) == (limit == 0) and chromium.complaints() == []


def test_the_spectrogram_lasts_as_long_as_the_ribbons(tokenizer):
    tokens = next(iter(tokenizer.tokens([song(2.0)])))
    rows = nat.Clip(*(np.resize(a, (20000, *a.shape[1:])) for a in tokens[:3]),
                    nat.Spectra(*(np.resize(a, (20000, *a.shape[1:])) for a in tokens.spectra)))  # fmt: skip
    view = nat.View("long", rows, tokenizer.trained, SETTINGS.frame_rate, RATE)
    header = nat.make_header(nat.Source("a.wav", "audio", RATE, 1), tokenizer)
    data = json.loads(nat.page_data(view, header, lambda layer, code: ""))
    assert data["span"] == pytest.approx(20000 / SETTINGS.frame_rate, abs=0.2)


def test_a_sound_too_long_for_a_wave_header_has_one():
    assert nat.wave_header(1 << 40, 48000)[40:44] == b"\xdb\xff\xff\xff"
