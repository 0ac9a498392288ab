"""Section 9: shared/format.md, line by line, and back to the exact codes."""

from __future__ import annotations

import importlib.util
import json
import re

import numpy as np
import pytest
from conftest import save_wav, song

import neural_audio_tokenizer as nat

NAMES = ("S0", "S1", "S2", "S3", "A0", "A1", "A2", "A3")
RATE = 22050 / 512
DENSE, RLE = ("dense",) * 8, ("rle",) * 8
ENCODINGS = {
    "dense": DENSE,
    "rle": RLE,
    "rle-semantic": ("rle",) * 4 + ("dense",) * 4,
    "mixed": ("rle", "dense", "rle", "rle", "dense", "rle", "dense", "rle"),
}
SEMANTIC_READS = tuple(layer.reads for layer in nat.LAYERS)


def make_header(encodings=DENSE, interval=5.0, name="a.wav", rate=RATE):
    return nat.Header(
        nat.Source(name, "audio", 22050, 1, 1.5), rate, 512, 22050, encodings, SEMANTIC_READS, 1000,
        {"name": "spectral", "weights": None, "layer": None}, "spectral-0-0", interval,
    )  # fmt: skip


def gloss(layer, code):
    return f"{NAMES[layer]} sounds like {code}"


def make_end(frames):
    stats = {name: {"codes_used": 1, "perplexity": 1.0, "changes_per_s": 0.0} for name in NAMES}
    return nat.End(frames, round(frames / RATE, 6), "0" * 64, stats)


def write(codes, header=None, blocks=1, words=gloss):
    """Lines of a whole stream, its codes coming in some blocks."""
    header = header or make_header()
    encoder = nat.Encoder(header, words)
    events = [header]
    for part in np.array_split(codes, blocks):
        events += encoder.events(part)
    return list(nat.event_lines([*events, make_end(len(codes))], header.frame_rate))


def read(lines):
    return nat.decode_stream(f"{line}\n" for line in lines)


def random_codes(count, stay=0.8, seed=0):
    """Codes of which each stays as it was with some probability."""
    random = np.random.RandomState(seed)
    codes = random.randint(0, 1000, (count, 8)).astype(np.int16)
    for i in range(1, count):
        held = random.rand(8) < stay
        codes[i, held] = codes[i - 1, held]
    return codes


def frames(lines):
    """Frame lines only, parsed."""
    return [fields for fields in map(json.loads, lines) if "event" not in fields]


# Shape


def test_header_is_first_and_end_is_last():
    events = [json.loads(line).get("event") for line in write(random_codes(50))]
    assert events[0] == "header" and events[-1] == "end"
    assert events.count("header") == events.count("end") == 1


def test_a_frame_looks_as_the_format_shows_it():
    line = nat.frame_line(
        nat.Frame(72, True, tuple(enumerate((112, 49, 7, 301, 928, 227, 15, 640)))), RATE
    )
    assert line == (
        '{"t":1.672,"kf":true,"S0":112,"S1":49,"S2":7,"S3":301,"A0":928,"A1":227,"A2":15,"A3":640}'
    )


def test_header_holds_what_the_format_names():
    header = json.loads(write(random_codes(1))[0])
    assert list(header) == [
        "event", "schema", "format_version", "generator", "source", "frame_rate", "hop_length",
        "sample_rate", "layers", "extractor", "codebook_id", "keyframe_interval", "legend",
    ]  # fmt: skip
    assert (header["schema"], header["format_version"]) == ("tims-ears", "2.0")
    assert header["source"]["name"] == "a.wav"
    assert [layer["name"] for layer in header["layers"]] == list(NAMES)
    assert {layer["kind"] for layer in header["layers"][:4]} == {"semantic"}


@pytest.mark.parametrize("name", ["\U0001f600" * 120, '"' * 120, "\\" * 120, "é" * 120])
def test_no_line_is_over_2000_characters(name):
    codes = random_codes(40, stay=0.0)
    long = "x" * 200
    lines = write(codes, make_header(name=name), words=lambda layer, code: long)
    assert max(map(len, lines)) < 2000
    assert read(lines).header.source.name == name


def test_real_streams_keep_to_the_line_length(tokenizer):
    source = nat.Source("\U0001f600" * 120, "audio", 192000, 32, 123456.789012)
    settings = nat.Settings(encodings=DENSE)
    header = nat.Header(
        source, settings.frame_rate, 512, 22050, DENSE, SEMANTIC_READS, 1000,
        {"name": "spectral", "weights": None, "layer": None}, tokenizer.codebook_id, 5.0,
    )  # fmt: skip
    lines = write(random_codes(400, 0.0), header, words=nat.gloss_table(tokenizer.trained))
    assert max(map(len, lines)) < 2000


def test_lines_are_compact_and_single():
    for line in write(random_codes(30)):
        outside_strings = re.sub(r'"(?:[^"\\]|\\.)*"', "", line)
        assert "\n" not in line and not re.search(r"\s", outside_strings)


def test_codes_are_not_padded():
    assert '"S0":7,' in write(np.full((1, 8), 7, np.int16))[2]


# Legend


@pytest.mark.parametrize("encodings", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("blocks", [1, 7])
def test_a_gloss_stands_once_and_before_the_first_frame_that_uses_it(encodings, blocks):
    lines = write(random_codes(120, stay=0.6), make_header(encodings), blocks=blocks)
    known, used = set(), set()
    for fields in map(json.loads, lines[1:-1]):
        if fields.pop("event", None) == "legend":
            for name, glosses in fields.items():
                for code, text in glosses.items():
                    assert (name, int(code)) not in known
                    assert text == f"{name} sounds like {code}"
                    known.add((name, int(code)))
        else:
            used |= {(name, code) for name, code in fields.items() if name in NAMES}
            assert used <= known
    assert known == used


def test_legend_lines_stand_right_before_their_frame():
    lines = [json.loads(line) for line in write(random_codes(40, stay=0.3))][1:-1]
    for before, after in zip(lines, lines[1:]):
        if before.get("event") == "legend" and after.get("event") != "legend":
            for name in set(before) - {"event"}:
                assert str(after[name]) in before[name]


def test_without_legend_there_are_only_frames():
    lines = write(random_codes(40), words=None)
    assert len(lines) == 42 and not any("legend" in line for line in lines[1:])
    assert (read(lines).codes == random_codes(40)).all()


def test_glosses_are_read_back():
    stream = read(write(random_codes(40)))
    assert all(text == gloss(*key) for key, text in stream.glosses.items())
    assert {
        (layer, code) for row in stream.codes.tolist() for layer, code in enumerate(row)
    } == set(stream.glosses)


# Both ways


@pytest.mark.parametrize("encodings", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("interval", [0.001, 0.5, 5.0, 86400.0])
@pytest.mark.parametrize("count, stay", [(0, 0), (1, 0), (2, 1), (300, 0), (300, 0.9), (300, 1)])
def test_reading_back_gives_the_exact_codes(encodings, interval, count, stay):
    codes = random_codes(count, stay, seed=count)
    header = make_header(encodings, interval)
    stream = read(write(codes, header, blocks=3))
    assert stream.whole and stream.codes.dtype == np.int16
    assert stream.codes.shape == (count, 8) and (stream.codes == codes).all()
    assert stream.end == make_end(count)
    assert stream.header._replace(frame_rate=RATE) == header


@pytest.mark.parametrize("encodings", ENCODINGS.values(), ids=ENCODINGS)
def test_codes_in_blocks_make_the_same_lines(encodings):
    codes, header = random_codes(200), make_header(encodings, 1.0)
    assert write(codes, header, blocks=1) == write(codes, header, blocks=200)


def test_frame_rate_of_the_header_is_enough_to_find_every_frame():
    codes = np.zeros((60_000, 8), np.int16)
    codes[::7, 3], codes[-1] = 5, 999
    assert (read(write(codes, make_header(RLE, 60.0))).codes == codes).all()


def test_dense_layers_stand_in_every_frame():
    codes = random_codes(100, stay=0.9)
    lines = frames(write(codes, make_header(ENCODINGS["mixed"])))
    assert len(lines) == 100
    for fields in lines:
        assert {"S1", "A0", "A2"} <= set(fields)


def test_rle_layers_stand_only_where_they_change_and_on_keyframes():
    codes = random_codes(300, stay=0.9)
    lines = frames(write(codes, make_header(RLE, 2.0)))
    assert len(lines) < 300
    for fields in lines:
        i = round(fields["t"] * RATE)
        shown = {name for name in NAMES if name in fields}
        changed = {n for q, n in enumerate(NAMES) if i == 0 or codes[i, q] != codes[i - 1, q]}
        assert shown == (set(NAMES) if fields.get("kf") else changed) and shown


@pytest.mark.parametrize("encodings", ENCODINGS.values(), ids=ENCODINGS)
def test_keyframes_come_in_time_and_restate_all(encodings):
    codes = random_codes(500, stay=0.99)
    lines = frames(write(codes, make_header(encodings, 2.0)))
    marked = [fields for fields in lines if fields.get("kf")]
    assert [round(fields["t"] * RATE) for fields in marked] == list(range(0, 500, 86))
    assert all([fields[name] for name in NAMES] for fields in marked)
    for fields in marked:
        row = [fields[name] for name in NAMES]
        assert row == codes[round(fields["t"] * RATE)].tolist()


def test_a_constant_sound_in_rle_is_its_keyframes():
    codes = np.full((431, 8), 12, np.int16)
    lines = frames(write(codes, make_header(RLE, 2.0)))
    assert len(lines) == 6 and all(fields["kf"] is True for fields in lines)


@pytest.mark.parametrize("rate", [22050 / 512, 8000 / 186, 48000 / 1115, 16000 / 372])
def test_time_does_not_drift(rate):
    picked = np.unique(
        np.concatenate([np.arange(3000), np.linspace(0, 2_000_000, 20_001).astype(int)])
    )
    for i in picked.tolist():
        line = nat.frame_line(nat.Frame(i, False, ((0, 1),)), rate)
        t = json.loads(line)["t"]
        assert t == round(i / rate, 3) and round(t * round(rate, 6)) == i


# The schema


def problems(value, schema):
    """What breaks a JSON Schema, for the few keywords that ours uses."""
    known = {
        "$schema", "$id", "title", "type", "required", "properties", "additionalProperties", "enum",
        "const", "minimum", "maximum", "maxLength", "minItems", "maxItems", "items", "pattern",
        "oneOf",
    }  # fmt: skip
    assert set(schema) <= known, f"teach this validator {set(schema) - known}"
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float)}
    kind = schema.get("type")
    if kind and (not isinstance(value, kinds[kind]) or isinstance(value, bool)):
        return [f"{value!r} is no {kind}"]
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{value!r} is none of {schema['enum']}")
    if "const" in schema and (value != schema["const"] or type(value) is not type(schema["const"])):
        found.append(f"{value!r} is not {schema['const']!r}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            found.append(f"{value} is out of range")
    if isinstance(value, str):
        if len(value) > schema.get("maxLength", len(value)):
            found.append(f"{value!r} is too long")
        if not re.search(schema.get("pattern", ""), value):
            found.append(f"{value!r} does not match")
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            found.append("too few or too many items")
        for item in value:
            found += problems(item, schema.get("items", {}))
    if isinstance(value, dict):
        found += [f"{name} is missing" for name in schema.get("required", ()) if name not in value]
        for name, item in value.items():
            more = schema.get("properties", {}).get(name, schema.get("additionalProperties", {}))
            found += [f"{name} is unknown"] if more is False else problems(item, more)
    if "oneOf" in schema:
        tried = [problems(value, choice) for choice in schema["oneOf"]]
        if sum(not trouble for trouble in tried) != 1:
            found.append(f"{value!r} is not one of these: {tried}")
    return found


def schema_problems(line):
    """By this file's validator, and by `jsonschema` where it is installed."""
    value, schema = json.loads(line), nat.line_schema()
    found = problems(value, schema)
    if importlib.util.find_spec("jsonschema"):
        from jsonschema import Draft202012Validator

        Draft202012Validator.check_schema(schema)
        assert Draft202012Validator(schema).is_valid(value) == (not found), value
    return found


def test_real_lines_are_valid(run_main, tokenizer, tmp_path):
    path = save_wav(tmp_path / "song.wav", song(2.0))
    for options in ([], ["--rle", "--keyframe-interval", "0.5"], ["--no-legend", "--raw", "u8"]):
        lines = run_main(*options, path).out.decode().splitlines()
        for line in lines[:40] + lines[-3:]:
            assert not schema_problems(line), line


@pytest.mark.parametrize("encodings", ENCODINGS.values(), ids=ENCODINGS)
def test_written_lines_are_valid(encodings):
    for line in write(random_codes(20), make_header(encodings)) + write(random_codes(0)):
        assert not schema_problems(line), line


BAD_LINES = [
    '{"t":0.1,"S0":-1}', '{"t":0.1,"S0":1.5}', '{"t":0.1,"S0":true}', '{"t":-1,"S0":1}',
    '{"S0":1}',
    '{"t":0.1,"kf":false,"S0":1}', '{"t":0.1,"B0":1}', '{"event":"legend","A0":{"1":2}}', '[]',
    '{"event":"end","frames":1,"duration":1.0,"audio_sha256":"xyz","stats":{}}',
    '{"event":"other"}',
    '{"event":"header"}', '{"event":"end","frames":1}', '"text"', "null",
]  # fmt: skip


@pytest.mark.parametrize("line", BAD_LINES)
def test_the_schema_refuses_other_lines(line):
    assert schema_problems(line)


# What is broken is named, and what was cut is read up to the cut


def stream_text(encodings=RLE, count=60):
    """A stream with two keyframes after the first, and the codes it holds."""
    codes = random_codes(count, stay=0.7)
    return write(codes, make_header(encodings, 0.5)), codes


def frame_at(lines, wanted):
    """Number of the line, from 0, that holds the frame of that rank."""
    return [i for i, line in enumerate(lines) if line.startswith('{"t"')][wanted]


def edited(lines, **changes):
    """The header line with some fields changed, or removed where they are ..."""
    header = json.loads(lines[0])
    for name, value in changes.items():
        if value is ...:
            del header[name]
        else:
            header[name] = value
    return [json.dumps(header), *lines[1:]]


def ended(lines, **changes):
    return [*lines[:-1], json.dumps({**json.loads(lines[-1]), **changes})]


def with_frame(lines, text):
    """The 20th frame replaced."""
    at = frame_at(lines, 20)
    return [*lines[:at], text, *lines[at + 1 :]], at + 1


BAD_FRAMES = {
    "garbage": "hello",
    "half a line": '{"t":0.4',
    "an array": "[1,2]",
    "a number": "12",
    "null": "null",
    "an unknown event": '{"event":"advert","t":1}',
    "no time": '{"S0":1}',
    "time as text": '{"t":"1","S0":1}',
    "time as bool": '{"t":true,"S0":1}',
    "time that is not finite": '{"t":NaN,"S0":1}',
    "time without end": '{"t":1e999,"S0":1}',
    "negative time": '{"t":-0.5,"S0":1}',
    "time backwards": '{"t":0.023,"S0":1}',
    "a code out of range": '{"t":0.6,"S0":1000}',
    "a negative code": '{"t":0.6,"S0":-1}',
    "a code as text": '{"t":0.6,"S0":"1"}',
    "a code as bool": '{"t":0.6,"S0":true}',
    "a fractional code": '{"t":0.6,"S0":1.0}',
    "a code that is not finite": '{"t":0.6,"S0":NaN}',
    "a huge code": '{"t":0.6,"S0":' + "9" * 300 + "}",
    "an endless number": '{"t":0.6,"S0":' + "9" * 5000 + "}",
    "an unknown layer": '{"t":0.6,"B0":1}',
    "deep nesting": "[" * 100_000,
    "a legend of text": '{"event":"legend","A0":"x"}',
    "a legend of an unknown layer": '{"event":"legend","B0":{"1":"x"}}',
    "a legend of no code": '{"event":"legend","A0":{"x":"y"}}',
    "a legend of a huge code": '{"event":"legend","A0":{"' + "9" * 5000 + '":"y"}}',
    "a legend of numbers": '{"event":"legend","A0":{"1":2}}',
}


@pytest.mark.parametrize("text", BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_a_broken_line_is_named(text):
    lines, number = with_frame(stream_text()[0], text)
    with pytest.raises(nat.StreamError, match=rf"line {number}\b") as caught:
        read(lines)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


BAD_HEADERS = {
    "another schema": {"schema": "other"},
    "no schema": {"schema": ...},
    "no event": {"event": ...},
    "another version": {"format_version": "3.0"},
    "no layers": {"layers": []},
    "layers of numbers": {"layers": [1] * 8},
    "text for layers": {"layers": "S0"},
    "a text rate": {"frame_rate": "43"},
    "no rate": {"frame_rate": ...},
    "rate zero": {"frame_rate": 0},
    "rate not a number": {"frame_rate": float("nan")},
    "rate without end": {"frame_rate": float("inf")},
    "rate as bool": {"frame_rate": True},
    "no source": {"source": ...},
    "a source without a name": {"source": {"kind": "audio", "sample_rate": 1, "channels": 1}},
    "text for an extractor": {"extractor": "spectral"},
    "a number for the codebooks": {"codebook_id": 5},
    "no keyframe interval": {"keyframe_interval": ...},
}


@pytest.mark.parametrize("changes", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_broken_header_is_refused(changes):
    with pytest.raises(nat.StreamError) as caught:
        read(edited(stream_text()[0], **changes))
    assert "\n" not in str(caught.value)


HEADERS_OUT_OF_RANGE = {
    "an interval that is not a number": {"keyframe_interval": float("nan")},
    "an endless interval": {"keyframe_interval": float("inf")},
    "a negative interval": {"keyframe_interval": -1},
    "an interval too large for a float": {"keyframe_interval": 10**400},
    "no hop": {"hop_length": 0},
    "a negative rate": {"sample_rate": -22050},
    "a huge rate": {"sample_rate": 10**12},
    "an unknown encoding": "encoding",
    "a duration that is not a number": "duration",
    "a duration too large for a float": "long duration",
}


@pytest.mark.parametrize("changes", HEADERS_OUT_OF_RANGE.values(), ids=HEADERS_OUT_OF_RANGE)
def test_a_header_out_of_range_is_refused(changes):
    lines, header = stream_text()[0], json.loads(stream_text()[0][0])
    if changes == "encoding":
        header["layers"][3]["encoding"] = "huffman"
        changes = {"layers": header["layers"]}
    elif changes in ("duration", "long duration"):
        value = float("nan") if changes == "duration" else 10**400
        changes = {"source": {**header["source"], "duration": value}}
    with pytest.raises(nat.StreamError):
        read(edited(lines, **changes))


BAD_ENDS = {
    "fewer frames than there are": {"frames": 3},
    "negative frames": {"frames": -1},
    "too many frames": {"frames": 10**9},
    "far too many frames": {"frames": 10**30},
    "frames as text": {"frames": "60"},
    "frames as bool": {"frames": True},
    "fractional frames": {"frames": 60.0},
    "no duration": {"duration": None},
    "no hash": {"audio_sha256": None},
    "no statistics": {"stats": 0},
}


@pytest.mark.parametrize("changes", BAD_ENDS.values(), ids=BAD_ENDS)
def test_a_broken_end_is_refused(changes):
    with pytest.raises(nat.StreamError):
        read(ended(stream_text()[0], **changes))


BAD_DURATIONS = {
    "not a number": float("nan"),
    "endless": float("inf"),
    "much more than the frames": 1e9,
    "negative": -1.0,
    "too large for a float": 10**400,
}


@pytest.mark.parametrize("duration", BAD_DURATIONS.values(), ids=BAD_DURATIONS)
def test_an_end_whose_duration_does_not_fit_its_frames_is_refused(duration):
    with pytest.raises(nat.StreamError):
        read(ended(stream_text()[0], duration=duration))


@pytest.mark.parametrize(
    "text", ["", "\n", "hello\n", "{}\n", "null\n", "[]\n", '{"event":"end"}\n']
)
def test_what_is_no_stream_is_refused(text):
    with pytest.raises(nat.StreamError):
        nat.decode_stream(text.splitlines(keepends=True))


def test_a_first_frame_must_state_all_layers():
    lines = stream_text()[0]
    at = frame_at(lines, 0)
    with pytest.raises(nat.StreamError, match=f"line {at + 1}"):
        read([*lines[:at], '{"t":0.000,"kf":true,"S0":1}', *lines[at + 1 :]])


@pytest.mark.parametrize("name", ["dense", "rle-semantic", "mixed"])
def test_frames_that_are_gone_from_a_dense_stream_are_missed(name):
    lines = stream_text(ENCODINGS[name])[0]
    first, last = frame_at(lines, 10), frame_at(lines, 50)
    with pytest.raises(
        nat.StreamError, match=rf"line {first + 1}: 40 frames before it are missing"
    ):
        read(lines[:first] + lines[last:])
    with pytest.raises(nat.StreamError, match="frame count"):
        read([*lines[: frame_at(lines, 50)], lines[-1]])


def test_a_dense_layer_that_is_gone_from_its_line_is_missed():
    lines = stream_text(ENCODINGS["mixed"])[0]
    text = re.sub(r'"A0":\d+,', "", lines[frame_at(lines, 20)])
    lines, number = with_frame(lines, text)
    with pytest.raises(nat.StreamError, match=f"line {number}: dense layer A0"):
        read(lines)


@pytest.mark.parametrize("encodings", ENCODINGS.values(), ids=ENCODINGS)
def test_a_code_that_is_not_what_was_written_is_missed(encodings):
    lines, codes = stream_text(encodings)
    stats = {**json.loads(lines[-1])["stats"], "codes_sha256": nat.hash_codes(codes).hexdigest()}
    lines = ended(lines, stats=stats)
    assert (read(lines).codes == codes).all() and not schema_problems(lines[-1])
    at = [i for i, line in enumerate(lines) if '"t":' in line and '"kf"' not in line][7]
    other = lines[at].replace(lines[at].split(":")[-1], "998}")
    for damaged in ([*lines[:at], other, *lines[at + 1 :]], lines[:at] + lines[at + 1 :]):
        with pytest.raises(nat.StreamError, match="lost or changed|missing"):
            read(damaged)


def test_the_hash_of_codes_does_not_hang_on_blocks():
    codes, digest = random_codes(50), None
    for part in np.array_split(codes, 7):
        digest = nat.hash_codes(part, digest)
    assert digest.hexdigest() == nat.hash_codes(codes.astype(np.int64)).hexdigest()


def test_a_stream_must_begin_at_its_beginning():
    lines = stream_text()[0]
    at = frame_at(lines, 0)
    with pytest.raises(nat.StreamError):
        read(lines[:at] + lines[at + 1 :])


@pytest.mark.parametrize("more", ['{"t":99.0,"S0":1}', '{"event":"legend","A0":{"1":"x"}}', "end"])
def test_lines_after_the_end_are_refused(more):
    lines = stream_text()[0]
    with pytest.raises(nat.StreamError, match=f"line {len(lines) + 1} .*after the end"):
        read([*lines, lines[-1] if more == "end" else more])


def test_two_headers_are_refused():
    lines = stream_text()[0]
    with pytest.raises(nat.StreamError, match="line 2"):
        read([lines[0], *lines])


@pytest.mark.parametrize("encodings", ENCODINGS.values(), ids=ENCODINGS)
def test_a_stream_without_end_is_read_up_to_its_last_frame(encodings):
    lines, codes = stream_text(encodings)
    stream = read(lines[:-1])
    last = round(json.loads(lines[frame_at(lines, -1)])["t"] * RATE)
    assert not stream.whole and stream.end.frames == last + 1
    assert (stream.codes == codes[: last + 1]).all()


def test_a_stream_cut_anywhere_is_read_up_to_the_cut():
    lines, codes = stream_text()
    text = "\n".join(lines) + "\n"
    whole = 0
    for cut in range(len(lines[0]) + 1, len(text), 37):
        stream = nat.decode_stream(text[:cut].splitlines(keepends=True))
        assert (stream.codes == codes[: len(stream.codes)]).all()
        assert len(stream.codes) >= whole
        whole = len(stream.codes)
    assert whole >= 55


def test_a_last_line_cut_into_other_json_is_no_frame():
    """Half of "S0":112 may look like a whole code; without its newline it must not count."""
    lines = write(np.full((3, 8), 112, np.int16), make_header(RLE, 0.01))[:-1]
    kept = read(lines[:-1]).codes
    cut = lines[-1].replace("112}", "11}")
    stream = nat.decode_stream([*(f"{line}\n" for line in lines[:-1]), cut])
    assert len(stream.codes) == len(kept) or (stream.codes[:-1] == kept).all()


def test_a_header_alone_is_an_empty_stream():
    stream = read(write(random_codes(3))[:1])
    assert not stream.whole and stream.codes.shape == (0, 8)


def test_blank_lines_are_no_lines():
    lines, codes = stream_text()
    spaced = [piece for line in lines for piece in (line, "")]
    assert (read(spaced).codes == codes).all()


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_raises_nothing_but_stream_errors(seed):
    lines, _ = stream_text(ENCODINGS["mixed"])
    random = np.random.RandomState(seed)
    signs = list('{}[]",:0123456789.-eNSAtf \\u')
    text = "\n".join(lines) + "\n"
    refused = 0
    for _ in range(250):
        data = list(text)
        for at in random.randint(len(data), size=random.randint(1, 4)):
            turn = random.randint(3)
            data[at] = "" if turn == 0 else random.choice(signs) + data[at] * (turn == 1)
        try:
            stream = nat.decode_stream("".join(data).splitlines(keepends=True))
            assert stream.codes.min() >= 0 and stream.codes.max() < 1000
        except nat.StreamError:
            refused += 1
    assert refused > 50


def test_text_is_one_line_of_eight_codes_a_frame():
    codes = random_codes(9)
    lines = list(nat.text_lines(codes))
    assert [[int(word) for word in line.split()] for line in lines] == codes.tolist()
