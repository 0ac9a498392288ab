"""Section 13: batches. One bad file costs itself, nothing is lost, twice, or half written."""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import PROGRAM, SETTINGS, noise, save_wav, song

import neural_audio_tokenizer as nat

POSIX = pytest.mark.skipif(os.name != "posix", reason="as POSIX has it")
SUFFIX = "_tokens.txt"
TEXT = ("--format", "text", "--output-dir")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to be in, so that paths are short and relative."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sounds(here):
    """Six short sounds, two of them of one stem, in a folder of their own."""
    (here / "in" / "deep").mkdir(parents=True)
    for number in range(4):
        save_wav(here / "in" / f"s{number}.wav", song(0.4, seed=number))
    save_wav(here / "in" / "deep" / "s1.wav", noise(0.4))
    save_wav(here / "in" / "deep" / "deep.wav", song(0.3, seed=9))
    return ["in/deep/deep.wav", "in/deep/s1.wav", *(f"in/s{n}.wav" for n in range(4))]


@pytest.fixture
def heard(monkeypatch):
    """Names of what was tokenized, in order."""
    names, run_one = [], nat.Runner.run_one

    def listen(self, source, stem, **more):
        names.append(source)
        return run_one(self, source, stem, **more)

    monkeypatch.setattr(nat.Runner, "run_one", listen)
    return names


def lines(folder="out"):
    """The manifest's lines."""
    text = Path(folder, nat.MANIFEST).read_text(encoding="ascii")
    return [json.loads(line) for line in text.splitlines()]


def files(folder="out"):
    """Name -> bytes of all outputs, and of nothing else."""
    found = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    found = {name: data for name, data in found.items() if not name.endswith(".claims")}
    found.pop(nat.MANIFEST, None)
    assert not [name for name in found if not name.endswith(SUFFIX)]
    return found


# Inputs


def test_a_folder_is_all_its_sounds_in_one_order(run_main, here, sounds):
    (here / "in" / "notes.txt").write_text("no sound")
    save_wav(here / "in" / "LOUD.WAV", song(0.3))
    result = run_main("--recursive", *TEXT, "out", "in")
    assert result.status == 0
    assert [line["input"] for line in lines()] == ["in/LOUD.WAV", *sounds]
    assert len(files()) == 7


@POSIX
def test_links_in_circles_and_links_to_files(run_main, here, sounds):
    os.symlink("..", here / "in" / "deep" / "up")
    os.symlink("itself.wav", here / "in" / "itself.wav")
    os.symlink("s0.wav", here / "in" / "z.wav")
    result = run_main("--recursive", *TEXT, "out", "in")
    inputs = [line["input"] for line in lines()]
    assert result.status == 1 and inputs == [*sounds[:2], "in/itself.wav", *sounds[2:], "in/z.wav"]
    assert [line["input"] for line in lines() if line["status"] == "failed"] == ["in/itself.wav"]


def test_a_folder_without_recursive_is_refused_and_says_how(run_main, sounds):
    result = run_main(*TEXT, "out", "in", "in/s0.wav")
    assert result.status == 1 and "in: is a folder; name files in it (--recursive " in result.err
    assert len(files()) == 1


def test_a_folder_without_sounds_is_1(run_main, here):
    (here / "empty").mkdir()
    result = run_main("--recursive", *TEXT, "out", "empty")
    assert result.status == 1 and "no sound file" in result.err and not Path("out").exists()
    assert "empty: no file in it is called like a sound (.wav .wave .flac " in result.err


def test_what_was_reconstructed_there_is_no_input(run_main, here):
    save_wav(here / "a.wav", song(0.3))
    for _ in range(2):
        assert (
            run_main("--force", "--reconstruct", "--output-dir", ".", "--recursive", ".").status
            == 0
        )
    assert [line["input"] for line in lines(".")] == ["a.wav", "a.wav"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_fifo_and_a_device_are_refused_and_not_waited_on(run_main, here, sounds):
    os.mkfifo(here / "in" / "pipe.wav")
    started = time.monotonic()
    result = run_main("--recursive", *TEXT, "out", "in", "/dev/zero", "/dev/null")
    assert result.status == 1 and time.monotonic() - started < 20
    bad = [line for line in lines() if line["status"] == "failed"]
    assert [line["input"] for line in bad] == ["in/pipe.wav", "/dev/zero", "/dev/null"]
    assert all("not a regular file" in line["reason"] and not line["sha256"] for line in bad)
    assert len(files()) == 6


@POSIX
def test_a_list_of_names_that_hold_anything(run_main, here):
    names = [b"a\nb.wav", b"-x.wav", b" lead.wav", b"\xff.wav", b"-", "\U0001f600".encode() * 60]
    for seed, name in enumerate(names):
        save_wav(os.fsdecode(bytes(here) + b"/" + name), song(0.3, seed=seed))
    data = b"\0".join([*names, b"./-x.wav", b""])
    result = run_main("--stdin", "--batch", "--null", *TEXT, "out", input=data)
    assert result.status == 0, result.err
    wanted = [name if name != b"-" else b"./-" for name in names]
    assert [os.fsencode(line["input"]) for line in lines()] == wanted
    assert len(files()) == len(names)
    assert Path("out", nat.MANIFEST).read_bytes().count(b"\n") == len(names)


def test_nul_in_a_list_of_lines_is_2(run_main):
    result = run_main("--stdin", "--batch", input=b"a.wav\0b.wav\0")
    assert result.status == 2 and "--null" in result.err


@pytest.mark.parametrize(
    "flags",
    [["--null"], ["--resume"], ["--shard", "0/3"], ["--shard", "4/3"], ["--shard", "x"],
     ["--workers", "0"], ["--batch", "--stdin", "-"]],
    ids=" ".join,
)  # fmt: skip
def test_options_of_batches_that_make_no_sense_are_2(run_main, sounds, flags):
    result = run_main(sounds[0], *flags, input=b"in/s0.wav")
    assert (result.status, result.out, result.err.count("\n")) == (2, b"", 1)


def test_a_file_beside_stdin(run_main, here, sounds):
    data = Path(sounds[0]).read_bytes()
    save_wav(here / "stdin.wav", song(0.3, seed=4))
    result = run_main(*TEXT, "out", "stdin.wav", "-", input=data)
    assert result.status == 0 and len(files()) == 2
    assert lines()[1]["sha256"] is None and files()[lines()[1]["outputs"][0]]
    again = run_main("--resume", *TEXT, "out", "stdin.wav", "-", input=data)
    assert again.status == 0 and len(lines()) == 3  # nobody knows whether stdin is the same


# Names


def test_one_path_named_twice_is_heard_once(run_main, sounds, heard):
    assert run_main(*TEXT, "out", "in/s0.wav", "./in//s0.wav", "in/s0.wav").status == 0
    assert heard == ["in/s0.wav"] and list(files()) == ["s0" + SUFFIX]


def test_names_do_not_meet():
    twins = ["a/x.wav", "b/x.flac", "c/X.ogg", "d/e\u0301.wav", "d/\u00e9.wav", "f/x\n.wav"]
    twins += ["-", "stdin.wav", "long/" + "y" * 150 + "1.wav", "long/" + "y" * 150 + "2.wav"]
    twins += ["g/only-0123456789ab.wav", "\U0001f600" * 60]
    stems = nat.output_stems(twins)
    folded = {stem.casefold() for stem in stems.values()}
    assert len(folded) == len(twins) and stems["a/x.wav"].startswith("x-")
    longest = max(len(sink.suffix) for sink in nat.SINKS.values())
    assert all(len(stem.encode()) + longest < 255 and "/" not in stem for stem in stems.values())
    assert stems["g/only-0123456789ab.wav"] != "only-0123456789ab"  # or it could be another's
    assert nat.output_stems(["a/only.wav", "b/x.wav"]) == {"a/only.wav": "only", "b/x.wav": "x"}


def test_a_hash_does_not_hang_on_order_number_or_place(monkeypatch, tmp_path):
    first = nat.output_stems(["a/x.wav", "b/x.wav"])
    monkeypatch.chdir(tmp_path)
    more = nat.output_stems(["c/x.wav", "b/x.wav", "a/x.wav"])
    assert all(more[source] == stem for source, stem in first.items())


def test_shards_are_even_and_name_as_the_whole_does(run_main, sounds):
    assert run_main("--recursive", *TEXT, "whole", "in").status == 0
    for part in (1, 2, 3, 4):
        assert run_main("--recursive", "--shard", f"{part}/4", *TEXT, "out", "in").status == 0
        counts = len(lines())
        assert counts == {1: 2, 2: 4, 3: 5, 4: 6}[part]
    assert files() == files("whole")
    assert sorted(line["input"] for line in lines()) == sorted(sounds)


# One bad file


def test_a_bad_file_costs_itself_only_and_is_named(run_main, here, sounds, monkeypatch):
    monkeypatch.setenv("PATH", str(here))  # no ffmpeg
    (here / "in" / "bad.wav").write_bytes(b"RIFF\x24\0\0\0WAVEfmt ")
    (here / "in" / "other.flac").write_bytes(b"fLaC" + bytes(200))
    names = [*sounds[:3], "in/bad.wav", "in/other.flac", "missing.wav", *sounds[3:]]
    result = run_main("--quiet", "--compat-fallback", *TEXT, "out", *names)
    assert result.status == 1 and len(files()) == 6
    said = result.err.splitlines()
    bad = [line for line in lines() if line["status"] == "failed"]
    assert [line["input"] for line in bad] == names[3:6] and len(said) == 3
    for line, words in zip(bad, said):
        assert words == f"{line['input']}: {line['reason']}" and not line["outputs"]
    assert "soundfile" in bad[1]["reason"]


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, "Input/output error")])
def test_memory_and_disk_cost_one_file(run_main, sounds, monkeypatch, error):
    def broken(self, tokens):
        if self.job.header.source.name == "s1.wav":
            raise error
        self.put("whole")

    monkeypatch.setattr(nat.TextSink, "write", broken)
    result = run_main("--recursive", *TEXT, "out", "in")
    assert result.status == 1 and len(files()) == 4 and result.err.count("s1.wav: ") == 2


def test_a_missing_ear_ends_the_run(run_main, sounds):
    result = run_main("--codebook-init", "mert", "--offline", "--mert-model", "nowhere", *TEXT, "out",
                      *sounds)  # fmt: skip
    assert result.status == 3 and not Path("out").exists()


def test_a_full_disk_leaves_no_output_at_all(run_main, sounds, monkeypatch):
    """All outputs of a file are written before the first has its name."""

    class Full:
        def __init__(self, file):
            self.inner = file

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    whole_file = nat.whole_file

    @nat.contextlib.contextmanager
    def fake(path, **more):
        with whole_file(path, **more) as file:
            yield Full(file) if path.suffix == ".txt" else file

    monkeypatch.setattr(nat, "whole_file", fake)
    result = run_main("--quiet", "--reconstruct", *TEXT, "out", *sounds)
    assert result.status == 1 and result.err.count("No space left") == 6
    assert [path.name for path in Path("out").iterdir()] == [nat.MANIFEST]


def test_a_manifest_that_cannot_be_written_is_said(run_main, here, sounds):
    (here / "out" / nat.MANIFEST).mkdir(parents=True)
    result = run_main("--quiet", *TEXT, "out", *sounds[:2])
    assert result.status == 1 and result.err.count("manifest.ndjson") == 2


def test_a_file_that_changes_while_it_is_read_has_failed(run_main, sounds, monkeypatch):
    run_one = nat.Runner.run_one

    def listen(self, source, stem, **more):
        done = run_one(self, source, stem, **more)
        if source.endswith("s2.wav"):
            save_wav(source, song(0.5, seed=77))
        return done

    monkeypatch.setattr(nat.Runner, "run_one", listen)
    assert run_main(*TEXT, "out", *sounds).status == 1
    bad = [line for line in lines() if line["status"] == "failed"]
    assert [line["input"] for line in bad] == ["in/s2.wav"] and "changed" in bad[0]["reason"]


# Manifest and resume


def test_a_line_of_the_manifest_says_what_was_done(run_main, sounds, tokenizer):
    assert run_main("--recursive", "--reconstruct", *TEXT, "out", "in").status == 0
    for line, source in zip(lines(), sounds):
        assert line["input"] == source and line["sha256"] == nat.content_of(source)
        assert (line["status"], line["reason"]) == ("ok", "")
        assert line["formats"] == ["text", "wav"] and len(line["outputs"]) == 2
        assert all(Path("out", name).is_file() for name in line["outputs"])
        assert line["codebook_id"] == tokenizer.codebook_id
        assert line["seconds"] > 0 and 0.2 < line["duration"] < 0.5
    assert len({line["settings"] for line in lines()}) == 1


def test_one_input_has_no_manifest(run_main, sounds):
    assert run_main(*TEXT, "out", sounds[0]).status == 0 and not Path("out", nat.MANIFEST).exists()


def test_resuming_skips_what_is_done(run_main, sounds, heard):
    again = ["--recursive", "--resume", *TEXT, "out", "in"]
    assert run_main(*again).status == 0 and len(heard) == 6
    before = files()
    assert run_main(*again).status == 0 and len(heard) == 6
    assert files() == before and len(lines()) == 6


@pytest.mark.parametrize("option, fate", [("--no-force", "refused"), ("--force", "written anew")])
def test_a_run_over_what_is_done_is_pointed_to_resume(run_main, sounds, option, fate):
    assert "--resume" not in run_main(*TEXT, "out", *sounds).err
    said = [
        run_main(*more, *TEXT, "out", *names).err.count(
            f"{len(sounds)} of {len(names)} inputs have outputs in out and are {fate}; --resume"
        )
        for more, names in [
            ([option], sounds), (["--resume"], sounds),
            ([option], [*sounds, *(f"new{n}.wav" for n in range(len(sounds)))]),
        ]
    ]  # fmt: skip
    assert said == [1, 0, 0]


def test_resuming_redoes_what_changed_is_gone_or_failed(run_main, here, sounds, heard):
    (here / "in" / "bad.wav").write_bytes(b"RIFF\x24\0\0\0WAVEfmt ")
    again = ["--recursive", "--resume", *TEXT, "out", "in"]
    assert run_main(*again).status == 1
    save_wav("in/s0.wav", song(0.3, seed=50))
    Path("out", "s2" + SUFFIX).unlink()
    Path("out", "s3" + SUFFIX).write_bytes(b"junk of another size")
    save_wav("in/bad.wav", song(0.3, seed=51))
    heard.clear()
    assert run_main(*again).status == 0
    assert heard == ["in/bad.wav", "in/s0.wav", "in/s2.wav", "in/s3.wav"]
    assert run_main("--recursive", *TEXT, "fresh", "in").status == 0
    assert files() == files("fresh")


def test_resuming_with_other_settings_redoes_all(run_main, sounds, heard):
    assert run_main("--resume", *TEXT, "out", *sounds).status == 0
    heard.clear()
    assert run_main("--resume", "--keyframe-interval", "1", *TEXT, "out", *sounds[:1]).status == 0
    assert run_main("--resume", "--quiet", "--offline", *TEXT, "out", *sounds[1:]).status == 0
    assert heard == sounds[:1]


@pytest.mark.parametrize("option", [(), ("--resume",)], ids=["plain", "resuming"])
def test_a_file_that_the_manifest_does_not_list_is_not_replaced(run_main, sounds, option):
    Path("out").mkdir()
    Path("out", "s0" + SUFFIX).write_bytes(b"somebody's")
    for _ in range(2):  # nor after the refusal has a line
        refused = run_main(*option, *TEXT, "out", "in/s0.wav", "in/s2.wav")
        assert refused.status == 1 and "s0_tokens.txt exists; --force" in refused.err
        assert files()["s0" + SUFFIX] == b"somebody's"
    assert run_main("--resume", "--force", *TEXT, "out", "in/s0.wav", "in/s2.wav").status == 0
    assert files()["s0" + SUFFIX] != b"somebody's"


def test_what_a_killed_run_left_before_its_line_is_written_anew(run_main, sounds, monkeypatch):
    assert run_main(*TEXT, "whole", *sounds).status == 0
    append = nat.Manifest.append

    def die(self, entry):
        """End as kill -9 would, between the outputs of the third input and its line."""
        if entry.input == sounds[2]:
            raise SystemError
        append(self, entry)

    with monkeypatch.context() as patch, pytest.raises(SystemError):
        patch.setattr(nat.Manifest, "append", die)
        patch.setattr(nat.Manifest, "close", lambda self, names: None)
        run_main(*TEXT, "out", *sounds)
    assert len(lines()) == 2 and len(files()) == 3
    Path("out", "s0" + SUFFIX).write_bytes(b"torn")
    assert run_main("--resume", *TEXT, "out", *sounds).status == 0
    assert run_main("--resume", *TEXT, "out", *sounds).status == 0 and len(lines()) == 6
    assert files() == files("whole")
    assert not list(Path("out").glob(".*"))


def test_what_a_killed_run_of_other_settings_overwrote_is_not_taken_as_done(
    run_main, sounds, heard, monkeypatch
):
    def die(self, entry):
        raise SystemError

    assert run_main("--resume", *TEXT, "out", *sounds).status == 0
    with monkeypatch.context() as patch, pytest.raises(SystemError):
        patch.setattr(nat.Manifest, "append", die)
        patch.setattr(nat.Manifest, "close", lambda self, names: None)
        run_main("--resume", "--keyframe-interval", "1", *TEXT, "out", *sounds)
    heard.clear()
    assert run_main("--resume", *TEXT, "out", *sounds).status == 0 and heard == sounds[:1]


def test_a_refusal_does_not_make_the_manifest_forget(run_main, sounds, heard):
    assert run_main(*TEXT, "out", *sounds).status == 0
    plain = run_main(*TEXT, "out", *sounds)
    assert plain.status == 1 and plain.err.count(" exists; --force overwrites it") == 6
    heard.clear()
    assert run_main("--resume", *TEXT, "out", *sounds).status == 0 and heard == []


def test_settings_take_turns_and_nothing_is_heard_twice(run_main, sounds, heard):
    for form in ("text", "json", "text", "json"):
        done = run_main("--resume", "--format", form, "--output-dir", "out", *sounds[2:4])
        assert done.status == 0
    assert heard == sounds[2:4] * 2
    # These write other bytes under the same names, so each overwrites what the other did.
    for seconds in ("1", "5"):
        more = "--keyframe-interval", seconds, "--format", "json", "--output-dir", "out"
        assert run_main("--resume", *more, *sounds[2:4]).status == 0
    assert heard == sounds[2:4] * 4


@POSIX
def test_a_folder_that_is_named_otherwise_is_the_same(run_main, here, sounds, heard, monkeypatch):
    again = ["--recursive", "--resume", *TEXT, str(here / "out")]
    assert run_main(*again, "in").status == 0
    before = files()
    heard.clear()
    assert run_main(*again, str(here / "in")).status == 0  # by another path
    monkeypatch.chdir(here / "in")
    assert run_main(*again, ".").status == 0  # from where the old paths lead nowhere
    monkeypatch.chdir(here)
    os.rename("in", "moved")
    assert run_main(*again, "moved").status == 0
    assert heard == [] and files() == before
    save_wav("moved/s3.wav", song(0.3, seed=40))  # of the same name, but now another sound
    assert run_main(*again, "moved").status == 0 and heard == ["moved/s3.wav"]


def test_a_copy_is_no_other_name(run_main, here, heard):
    for name in ("a", "b"):
        (here / name).mkdir()
        save_wav(here / name / "x.wav", song(0.3))
    assert run_main("--resume", *TEXT, "out", "a/x.wav").status == 0
    assert run_main("--resume", *TEXT, "out", "a/x.wav", "b/x.wav").status == 0
    assert heard == ["a/x.wav", "b/x.wav"] and len(files()) == 2


@pytest.mark.parametrize("batch", [True, False])
def test_what_another_source_has_written_is_said_to_be_that(run_main, sounds, batch):
    assert run_main("--recursive", *TEXT, "out", "in/deep").status == 0
    more = ["--shard", "1/1", "in/s2.wav"] if batch else []
    result = run_main(*TEXT, "out", "in/s1.wav", *more)
    assert result.status == 1
    words = "s1_tokens.txt is of in/deep/s1.wav; another --output-dir keeps both"
    assert words in result.err and "--force" in result.err


def test_bytes_that_no_decoder_knows_leave_a_word_in_the_manifest(run_main, here, sounds):
    (here / "notes.txt").write_text("shopping list: milk, bread\n" * 99)
    result = run_main(*TEXT, "out", "notes.txt", *sounds[:1])
    words = "of no known sound format, heard as raw bytes: 1, the first is notes.txt"
    assert result.status == 0 and result.err.splitlines()[-1] == words
    assert "raw bytes" not in run_main(*TEXT, "plain", *sounds).err
    first, second = lines()
    assert first["status"] == "ok" and "read as PCM" in first["reason"] and not second["reason"]
    assert run_main("--raw", "u8", *TEXT, "told", "notes.txt", "notes.txt").status == 0
    assert first["sizes"] == [Path("out", first["outputs"][0]).stat().st_size]


def test_own_streams_are_no_sounds(run_main, here, sounds):
    assert (
        run_main("--all-outputs", "--compat-fallback", "--output-dir", "made", sounds[0]).status
        == 0
    )
    for name in ("deep_tokens.ndjson", "deep_tokens.json"):
        result = run_main(f"made/{name}")
        assert (result.status, result.out) == (1, b"") and "--decode" in result.err


def test_raw_takes_every_file_of_a_folder(run_main, here):
    (here / "in" / ".git").mkdir(parents=True)
    for name in ("a.raw", "b.pcm", "c", ".hidden", ".git/object"):
        (here / "in" / name).write_bytes(bytes(range(256)) * 40)
    save_wav(here / "in" / "d.wav", song(0.3))
    for _ in range(2):  # outputs among the inputs are none
        result = run_main("--force", "--recursive", "--raw", "s16le", *TEXT, "in", "in")
        assert result.status == 0 and result.err.count("begins like") == 1
        assert "in/d.wav: begins like WAV" in result.err
    inputs = [line["input"] for line in lines("in")]
    assert inputs == ["in/a.raw", "in/b.pcm", "in/c", "in/d.wav"] * 2


def test_the_end_of_a_batch_sums_up(run_main, here, sounds):
    missing = [f"gone{number}.wav" for number in range(12)]
    said = run_main("--resume", *TEXT, "out", *sounds[:3], *missing).err.splitlines()
    at = next(at for at, line in enumerate(said) if line.startswith("15/15 files"))
    assert "3 ok, 12 failed, 0 skipped; see out/manifest.ndjson" in said[at]
    assert said[at + 1 :] == [*(f"failed: {name}" for name in missing[:10]), "failed: 2 more"]
    said = run_main("--resume", *TEXT, "out", *sounds[:3]).err.splitlines()[-1]
    assert said == "3/3 files; 0 ok, 0 failed, 3 skipped; see out/manifest.ndjson"


def test_a_half_line_is_no_line_and_harms_no_other(run_main, sounds, heard):
    assert run_main("--resume", *TEXT, "out", *sounds[:2]).status == 0
    path = Path("out", nat.MANIFEST)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 3])
    assert run_main("--resume", *TEXT, "out", *sounds[:3]).status == 0 and len(heard) == 3
    assert path.read_bytes().startswith(whole) and path.read_bytes().endswith(b"\n")
    assert run_main("--resume", *TEXT, "out", *sounds[:3]).status == 0 and len(heard) == 3


@pytest.mark.parametrize(
    "line",
    [b"", b"[" * 100000, b"null", b"{}", b"\xff\xfe", b'{"input":"a"', b"1e999999"],
    ids=range(7),
)
def test_a_manifest_full_of_rubbish_is_an_empty_one(line):
    assert nat.parse_entry(line) is None


def test_lines_whose_values_are_of_no_use_are_none():
    good = nat.Entry("a", "0", "ok", "", ("b",), 1.0, 1.0, ("text",), "c", "d")._asdict()
    assert nat.parse_entry(json.dumps(good).encode())
    for name, value in (("input", 5), ("outputs", 5), ("outputs", [5]), ("outputs", None)):
        assert nat.parse_entry(json.dumps({**good, name: value}).encode()) is None


def test_many_may_write_lines_at_once(here):
    def write(number):
        manifest = nat.Manifest(here / nat.MANIFEST)
        for count in range(20):
            name = f"{number} {count} " + "x" * 3000
            manifest.append(nat.Entry(name, None, "ok", "", (), 0, 0, (), "", ""))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len({line["input"] for line in lines(".")}) == 160


def test_a_rival_that_only_the_manifest_knows_is_not_overwritten(run_main, sounds):
    assert run_main("--resume", *TEXT, "out", "in/s1.wav").status == 0
    (first,) = files().items()
    assert run_main("--resume", *TEXT, "out", "in/deep/s1.wav").status == 0
    assert len(files()) == 2 and files()[first[0]] == first[1]


@POSIX
def test_unfinished_files_of_the_dead_are_swept_and_of_the_living_are_not(run_main, sounds):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    Path("out").mkdir()
    prefix, ending = f".tims-ears-{nat.this_place()}-", "-abc.part"
    gone = Path("out", f"{prefix}{dead.pid}{ending}")
    kept = [Path("out", f"{prefix}{os.getpid()}{ending}"), Path("out", ".tims-ears-00-1-x.part")]
    for path in (gone, *kept):
        path.write_bytes(b"half")
    assert run_main("--resume", *TEXT, "out", *sounds).status == 0
    assert not gone.exists() and all(path.exists() for path in kept)


def test_a_file_that_came_meanwhile_is_not_replaced_without_force(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(nat.OutputError, match="exists"):
        with nat.whole_file(path, force=False) as file:
            file.write(b"mine")
            path.write_bytes(b"another's")
    assert path.read_bytes() == b"another's" and list(tmp_path.iterdir()) == [path]
    with nat.whole_file(tmp_path / "y", force=False) as file:
        file.write(b"mine")
    assert (tmp_path / "y").read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 2


def test_without_hard_links_nothing_is_replaced_either(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    test_a_file_that_came_meanwhile_is_not_replaced_without_force(tmp_path)


# Progress


def test_a_terminal_has_a_bar_and_room_for_words(run_main, sounds, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    said = run_main(*TEXT, "out", "missing.wav", *sounds).err
    bars = [part for part in said.split("\r") if part.startswith("batch [")]
    assert "7/7 files" in bars[-1] and "x real time" in bars[-1] and "h of sound" in bars[-1]
    assert any("min left" in bar for bar in bars)
    assert "\r\x1b[Kmissing.wav: no such file" in said


def test_a_log_has_a_line_a_minute_and_quiet_has_none(run_main, sounds, monkeypatch):
    few = run_main("--recursive", *TEXT, "few", "in").err.splitlines()
    assert len(few) == 2 and few[-1].startswith("6/6 files") and "0 failed" in few[-1]
    assert run_main("--quiet", "--recursive", *TEXT, "none", "in").err == ""
    monkeypatch.setattr(nat, "LOG_SECONDS", 0.0)
    many = run_main("--recursive", *TEXT, "many", "in").err.splitlines()
    assert [line for line in many if "3/6 files" in line and "x real time" in line]


# Workers


class Doomed(nat.Runner):
    """Whose worker is killed by some sounds: by one always, by another the first time."""

    def attempt(self, task):
        name = Path(task.source).name
        if name == "s1.wav" or name == "s2.wav" and not Path("was here").exists():
            Path("was here").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().attempt(task)


@POSIX
def test_a_killed_worker_costs_at_most_its_file(here, sounds, tokenizer):
    runner = Doomed(SETTINGS, nat.Outputs(("text",), here / "out"))
    runner.run_one(sounds[0], "first")  # opens the tokenizer, as Batch does
    tasks = [nat.Task(source, stem) for source, stem in nat.output_stems(sounds).items()]
    entries = list(nat.Crew(runner, 2).entries(tasks))
    assert [entry.input for entry in entries] == sounds
    states = {entry.input: entry.status for entry in entries}
    assert states.pop("in/s1.wav") == states.pop("in/deep/s1.wav") == "failed"
    assert set(states.values()) == {"ok"}
    assert "status -9" in entries[1].reason and Path("was here").exists()


def test_workers_write_what_one_process_writes(run_main, here, sounds):
    (here / "in" / "raw.bin").write_bytes(bytes(range(256)) * 40)
    names = [*sounds[:3], "in/raw.bin", "missing.wav", *sounds[3:]]
    results, timeless = {}, ("seconds",)
    for workers in ("1", "2"):
        results[workers] = run_main("--quiet", "--ndjson-streaming", "--workers", workers, *TEXT,
                                    workers, *names)  # fmt: skip
    assert results["1"] == results["2"] and results["1"].status == 1 and results["1"].out
    assert "raw.bin: no known sound format" in results["1"].err
    assert files("1") == files("2") and len(files("1")) == 7
    one, two = ([{k: v for k, v in line.items() if k not in timeless} for line in lines(folder)]
                for folder in "12")  # fmt: skip
    assert one == two


def test_what_is_kept_of_a_sound_goes_with_it(sounds, tokenizer, monkeypatch):
    jobs, finish = [], nat.ViewSink.finish

    def note(self, end):
        jobs.append(weakref.ref(self.job))
        finish(self, end)

    monkeypatch.setattr(nat.ViewSink, "finish", note)
    outputs = nat.Outputs(("stream", "wav"), Path("out"))
    batch = nat.Batch(SETTINGS, outputs, sources=sounds[:3], plan=nat.Plan())
    batch.runner._tokenizer = tokenizer
    assert batch.run() == 0
    gc.collect()
    assert [job() for job in jobs] == [None] * 3


def test_a_neural_ear_and_stdin_have_one_process(warnings_said):
    batch = nat.Batch(SETTINGS, nat.Outputs(), sources=["a", "b"], plan=nat.Plan(workers=4))
    batch.runner._tokenizer = type("Neural", (), {"ears": object()})()
    assert batch._workers() == 1 and "neural ear" in warnings_said[0]
    batch = nat.Batch(SETTINGS, nat.Outputs(), sources=["a", "-"], plan=nat.Plan(workers=4))
    assert batch._workers() == 1 and "pipe" in warnings_said[1]


# Interrupted


def start(*args):
    command = [sys.executable, str(PROGRAM), "--codebook-init", "spectral", "--quiet", *args]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


def until_lines(count, folder="out"):
    """Wait until so many files are done."""
    path, end = Path(folder, nat.MANIFEST), time.monotonic() + 60
    while time.monotonic() < end:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.01)
    pytest.fail("nothing was done")


@POSIX
@pytest.mark.parametrize("how, workers", [("SIGINT", "1"), ("SIGTERM", "2")])
def test_interrupted_it_says_what_is_done_and_resumes(run_main, here, how, workers):
    for number in range(30):
        save_wav(here / f"{number:02d}.wav", noise(4.0, seed=number))
    running = start("--recursive", "--workers", workers, *TEXT, "out", ".")
    until_lines(2)
    running.send_signal(getattr(signal, how))
    asked = time.monotonic()
    _, err = running.communicate(timeout=60)
    assert time.monotonic() - asked < 10
    assert running.returncode == 130, err
    done = len(lines())
    said = re.fullmatch(
        r"interrupted: (\d+) of 30 files are done; --resume goes on\n", err.decode()
    )
    assert said and int(said[1]) in (done - 1, done)  # it may have been between line and count
    assert 2 <= done < 30 and len(files()) >= done  # and no unfinished file, see files()
    some = sorted(here.glob("*.wav"))[:done]
    before = {name: Path("out", name).stat().st_mtime_ns for name in files()}
    assert run_main("--resume", "--quiet", *TEXT, "out", *(path.name for path in some)).status == 0
    assert {name: Path("out", name).stat().st_mtime_ns for name in files()} == before


@POSIX
def test_what_is_done_before_its_turn_is_told_when_interrupted(run_main, here):
    save_wav(here / "a.wav", noise(600.0))  # so long that the others are done before it
    names = [save_wav(here / f"b{n}.wav", noise(0.3, seed=n)).name for n in range(3)]
    running = start("--workers", "2", *TEXT, "out", "a.wav", *names)
    end = time.monotonic() + 60
    while len(list(here.glob(f"out/b*{SUFFIX}"))) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.5)  # until the last reply has come
    running.send_signal(signal.SIGINT)
    err = running.communicate(timeout=60)[1].decode()
    assert err == "interrupted: 3 of 4 files are done; --resume goes on\n"
    assert [line["input"] for line in lines()] == names
    assert "0 ok, 0 failed, 3 skipped" in run_main("--resume", *TEXT, "out", *names).err


@POSIX
def test_two_batches_into_one_folder_write_whole_files(tokenizer, run_main, sounds):
    runs = [start("--recursive", *TEXT, "out", "in") for _ in range(2)]
    errors = [run.communicate(timeout=60)[1].decode() for run in runs]
    assert run_main("--recursive", *TEXT, "whole", "in").status == 0
    assert files() == files("whole")
    done = [line["input"] for line in lines() if line["status"] == "ok"]
    assert sorted(done) == sorted(sounds) and len(lines()) == 12
    assert sum(error.count(" exists; ") for error in errors) == 6
