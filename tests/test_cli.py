"""Sections 14 and 15: what is installed and cached, config files, completion, and the help."""

from __future__ import annotations

import ast
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import EXAMPLE, PROGRAM, ROOT, SETTINGS, Result

import neural_audio_tokenizer as nat

SPECTRAL = ("--codebook-init", "spectral")


# The doctor, among packages that are fakes: it looks at each in a process of its own


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Makes a package of some version, whose import runs some code."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(nat, "PACKAGES", {})
    for name in ("torch", "torchaudio", "transformers", "soxr"):
        nat.PACKAGES[name] = nat.Package(f"what {name} is for", f"pip install {name}")
        monkeypatch.setitem(sys.modules, name, None)  # so it is missing, even where it is not
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(nat, "HUB_SECONDS", 0.5)

    def make(name, version="2.5.0", code=""):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)
        facts = folder / f"{name}-{version}.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        nat.PACKAGES[name] = nat.Package(f"what {name} is for", f"pip install {name}")

    return make


TORCH = (
    "import types\n"
    "cuda = types.SimpleNamespace(is_available=lambda: {0}, get_device_name=lambda: 'Fake 100')\n"
    "backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: False))\n"
)


@pytest.fixture
def neural(fake):
    """All that MERT needs, but for its weights; None instead of a package's code: it is missing."""

    def make(gpu=False, **instead):
        codes = {"torch": TORCH.format(gpu), "torchaudio": "", "transformers": "", "soxr": ""}
        for name, code in {**codes, **instead}.items():
            if code is not None:
                fake(name, "2.5.0+cpu" if name == "torch" else "2.5.0", code)

    return make


def report(result):
    """Name -> (state, detail, what mends it) of a doctor's lines."""
    found, name = {}, ""
    for line in result.out.decode().splitlines()[1:]:
        if line.startswith(("  to mend it: ", "  to add it: ")):
            found[name] = (*found[name][:2], line.partition(": ")[2])
            assert line.startswith("  to add it") == (found[name][0] == "optional")
        else:
            state, name, detail = re.split(r" {2,}", line, maxsplit=2)
            found[name] = (state, detail, "")
    assert all((state in ("missing", "broken")) <= bool(mend) for state, _, mend in found.values())
    return found


@pytest.fixture
def hub():
    """A hub that answers every HEAD, and what it was asked."""
    asked = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_response(200 if "MERT" in self.path else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def dead_hub(monkeypatch):
    """A hub that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(9)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield server


def test_a_machine_with_nothing_hears_by_the_spectral_ear(run_main, fake, monkeypatch):
    result = run_main(*SPECTRAL, "--doctor")
    found = report(result)
    assert result.status == 0 and result.err == ""
    assert found["torch"] == ("optional", "for what torch is for", "pip install torch")
    assert "a plain run works" in result.out.decode().splitlines()[0]
    assert found["numpy"][:2] == ("ok", f"{np.__version__}, a tone is heard")
    assert found["ear"][:2] == ("ok", "spectral")


def test_lines_are_aligned(run_main, fake):
    lines = run_main(*SPECTRAL, "--doctor").out.decode().splitlines()[1:]
    starts = {re.match(r"\w+ +\S+(?: weights)? +", line).end() for line in lines if line[0] != " "}
    assert len(starts) == 1 and all(line.isprintable() for line in lines)


@pytest.fixture
def plain_doctor(run_main, capfdbinary):
    """The doctor where no ear is named: what it found, and the exit status."""

    def run(*options):
        capfdbinary.readouterr()
        status = nat.main(["--doctor", *options])
        return report(Result(status, *capfdbinary.readouterr())), status

    return run


def test_a_broken_torchaudio_names_the_pair_and_the_line(neural, plain_doctor):
    neural(torchaudio="raise OSError('undefined symbol: _ZN3c10')")
    nat.PACKAGES["torch"] = nat.Package("ears", "pip install 'torch>=2.4' 'torchaudio>=2.4'")
    found, status = plain_doctor("--offline")
    state, detail, mend = found["torchaudio"]
    assert state == "broken" and status == 0
    assert "torchaudio 2.5.0 beside torch 2.5.0+cpu" in detail and "undefined symbol" in detail
    assert mend == "pip install --force-reinstall 'torch>=2.4' 'torchaudio>=2.4'"


def test_a_pair_of_two_series_is_noted(neural, fake, plain_doctor):
    neural(torchaudio=None)
    fake("torchaudio", "2.1.0")
    found, status = plain_doctor("--offline")
    assert found["torchaudio"][0] == "note" and "one series" in found["torchaudio"][1]
    assert status == 0


def test_a_crash_and_a_hang_cost_their_package_only(neural, fake, plain_doctor, monkeypatch):
    neural()
    fake("crashes", code="import os; os.abort()")
    fake("exits", code="import os; os._exit(7)")
    fake("hangs", code="import time; time.sleep(60)")
    monkeypatch.setattr(nat, "PROBE_SECONDS", 4.0)
    found, status = plain_doctor("--offline")
    assert found["crashes"][0] == found["exits"][0] == "broken" and "crashes" in found["exits"][1]
    assert found["hangs"][0] == "note" and "not loaded in 4 s" in found["hangs"][1]
    assert found["soxr"][0] == "ok" and status == 0


def test_a_package_of_that_name_in_the_folder_one_stands_in_is_not_taken(
    neural, plain_doctor, monkeypatch, tmp_path
):
    neural()
    (tmp_path / "soxr.py").write_text("raise ImportError('a trap')")
    monkeypatch.chdir(tmp_path)
    assert plain_doctor("--offline")[0]["soxr"][:2] == ("ok", "2.5.0")


@pytest.mark.parametrize("gpu, words", [(True, "Fake 100"), (False, "none; the CPU serves")])
def test_a_gpu_is_seen_or_not(neural, plain_doctor, monkeypatch, tmp_path, gpu, words):
    neural(gpu=gpu)
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi, and no ffmpeg
    found, _ = plain_doctor("--offline")
    assert found["gpu"][1] == words
    assert found["ffmpeg"][0] == "optional" and "install ffmpeg" in found["ffmpeg"][2]


def test_a_hub_that_hangs_costs_its_time_and_no_more(neural, plain_doctor, dead_hub):
    neural()
    started = time.perf_counter()
    found, status = plain_doctor()
    assert time.perf_counter() - started < 0.5 + 8  # the fakes' processes share this machine
    assert found["hub"][0] == "optional" and "HTTPS_PROXY" in found["hub"][2]
    assert found["mert weights"][0] == "optional" and status == 0
    assert found["ear"][1] == "spectral, for want of mert: mert weights missing"


def test_nothing_may_take_as_long_as_fifteen_seconds():
    assert max(nat.PROBE_SECONDS, nat.HUB_SECONDS) <= 12


def test_offline_asks_nothing(neural, plain_doctor, dead_hub):
    neural()
    found, _ = plain_doctor("--offline")
    assert found["hub"][:2] == ("note", "not asked")
    dead_hub.setblocking(False)
    with pytest.raises(BlockingIOError):
        dead_hub.accept()


def test_a_hub_in_reach_will_give_the_weights(neural, plain_doctor, hub, monkeypatch):
    neural()
    address, asked = hub
    monkeypatch.setenv("HF_ENDPOINT", address)
    found, status = plain_doctor()
    revision = nat.KNOWN_MODELS["m-a-p/MERT-v1-95M"].revision
    assert asked == [f"/m-a-p/MERT-v1-95M/resolve/{revision}/config.json"]
    assert found["hub"][0] == "ok" and status == 0
    assert found["ear"][1] == "mert, once its weights are downloaded"


def test_a_hub_without_the_model_says_so(neural, plain_doctor, hub, monkeypatch):
    neural()
    monkeypatch.setenv("HF_ENDPOINT", hub[0])
    found, _ = plain_doctor("--mert-model", "some/other")
    assert found["hub"][0] == "optional" and "404" in found["hub"][1]


def test_weights_in_a_folder_are_seen(neural, plain_doctor, tmp_path):
    neural()
    model = tmp_path / "model"
    model.mkdir()
    found, _ = plain_doctor("--mert-model", str(model))
    assert found["mert weights"][0] == "optional" and found["hub"][1] == "not asked"
    for name in ("config.json", "model.safetensors"):
        (model / name).write_text("{}")
    found, status = plain_doctor("--mert-model", str(model))
    assert found["mert weights"][0] == "ok" and found["ear"][1] == "mert" and status == 0


def test_an_ear_that_was_named_and_cannot_be_had_is_3(neural, run_main):
    neural(transformers=None)
    result = run_main("--codebook-init", "mert", "--offline", "--doctor")
    found = report(result)
    assert result.status == 3 and found["ear"][0] == "broken"
    assert "transformers missing" in found["ear"][1] and "weights missing" in found["ear"][1]
    assert found["transformers"][0] == found["mert weights"][0] == "missing"
    assert "will fail" in result.out.decode().splitlines()[0]


def test_compat_fallback_needs_none_of_them(neural, plain_doctor):
    neural()
    found, status = plain_doctor("--offline", "--compat-fallback")
    assert "--compat-fallback is on" in found["ear"][1] and status == 0


def test_the_doctor_says_how_llm_tokens_are_counted(run_main, fake, monkeypatch):
    monkeypatch.setattr(nat, "bpe_counter", lambda: None)
    state, detail, way = report(run_main("--doctor"))["tiktoken"]
    assert state == "optional" and "estimated and never too low" in detail
    assert "TIKTOKEN_CACHE_DIR" in way and "cl100k_base" in way
    monkeypatch.setattr(nat, "bpe_counter", lambda: len)
    state, detail, way = report(run_main("--doctor"))["tiktoken"]
    assert state == "ok" and "counts cl100k_base exactly" in detail and not way


def test_a_cache_that_cannot_be_written_is_noted(run_main, fake, tmp_path):
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "cache"
    result = run_main(*SPECTRAL, "--doctor", "--codebook-cache-dir", folder)
    state, detail, mend = report(result)["cache"]
    assert state == "note" and str(tmp_path / "file") in detail and result.status == 0
    assert "--codebook-cache-dir" in mend


def test_the_doctor_makes_no_folder(run_main, fake, tmp_path):
    folder = tmp_path / "new" / "cache"
    assert (
        "GB free"
        in report(run_main(*SPECTRAL, "--doctor", "--codebook-cache-dir", folder))["cache"][1]
    )
    assert not folder.parent.exists()


def test_a_numpy_that_hears_nothing_is_3(run_main, fake, monkeypatch):
    monkeypatch.setattr(nat, "spectral_features", lambda spectra: spectra.level * np.nan)
    result = run_main(*SPECTRAL, "--doctor")
    assert result.status == 3 and report(result)["numpy"][0] == "broken"


def test_the_doctor_of_this_very_machine(run_cli):
    result = run_cli(*SPECTRAL, "--doctor", "--offline")
    found = report(result)
    assert result.status == 0 and {"torch", "matplotlib", "ffmpeg", "cache"} <= set(found)


# The cache


@pytest.fixture
def cache(tokenizer, tmp_path):
    """A cache folder with one whole and one damaged file, and files of others."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for path in nat.own_files(nat.cache_folder(SETTINGS)):
        if nat.cached_id(path) == tokenizer.codebook_id:
            (folder / path.name).write_bytes(path.read_bytes())
    (whole,) = folder.iterdir()
    damaged = bytearray(whole.read_bytes())
    damaged[5000] ^= 1
    (folder / f"codebooks-mert+wav2vec2-{'a' * 20}.npz").write_bytes(damaged)
    (folder / f".tims-ears-{nat.this_place()}-999999999-abc_1.part").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    (folder / "codebooks-spectral-mine.npz").write_text("mine")
    (folder / f"codebooks-spectral-{'b' * 20}.npz").mkdir()
    return folder


def test_codebooks_are_listed_whole_or_broken(run_main, tokenizer, cache):
    result = run_main("--list-codebooks", "--codebook-cache-dir", cache)
    rows = [re.split(r" {2,}", line) for line in result.out.decode().splitlines()]
    assert result.status == 0 and result.err == "" and len(rows) == 3
    by_path = {Path(row[-1]).name: row for row in rows}
    whole = [row for row in rows if row[0] == "whole"]
    assert [row[1] for row in whole] == [tokenizer.codebook_id]
    size = Path(whole[0][-1]).stat().st_size
    assert whole[0][2] == f"{size:,} bytes" and re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d", whole[0][3]
    )
    assert by_path[f"codebooks-mert+wav2vec2-{'a' * 20}.npz"][:2] == ["broken", "-"]


def test_clearing_takes_the_programs_own_files_only(run_main, cache):
    own = nat.own_files(cache)
    size = sum(path.stat().st_size for path in own)
    result = run_main("--clear-cache", "--codebook-cache-dir", cache)
    assert result.out.decode() == f"removed 3 files, {size:,} bytes, from {cache}\n"
    left = {path.name for path in cache.iterdir()}
    assert left == {
        "notes.txt",
        "codebooks-spectral-mine.npz",
        f"codebooks-spectral-{'b' * 20}.npz",
    }
    assert (
        "there are none" in run_main("--list-codebooks", "--codebook-cache-dir", cache).out.decode()
    )


def test_a_file_that_cannot_be_removed_is_1(run_main, cache, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    result = run_main("--clear-cache", "--codebook-cache-dir", cache)
    assert result.status == 1 and "removed 0 files, 0 bytes" in result.out.decode()
    assert result.err.count("stays: Permission denied") == 3


def test_there_may_be_no_cache_at_all(run_main, tmp_path):
    for act in ("--list-codebooks", "--clear-cache"):
        assert run_main(act, "--codebook-cache-dir", tmp_path / "none").status == 0
    assert not (tmp_path / "none").exists()


# Versions


def test_version_tells_packages_and_pinned_models(run_main, fake):
    fake("torch", "9.8.7", "raise SystemError('imported')")
    lines = run_main("--version").out.decode().splitlines()
    facts = dict(re.split(r" {2,}", line) for line in lines)
    assert facts[nat.PROGRAM] == nat.VERSION and nat.FORMAT_VERSION in facts["format"]
    assert facts["torch"] == "9.8.7" and facts["numpy"] == np.__version__
    assert facts["m-a-p/MERT-v1-95M"] == f"commit {nat.KNOWN_MODELS['m-a-p/MERT-v1-95M'].revision}"


def test_an_old_python_gets_one_line(tmp_path):
    code = (
        "import sys, runpy\n"
        "sys.version_info, sys.version = (3, 8, 18, 'final', 0), '3.8.18 (old)'\n"
        f"runpy.run_path({str(PROGRAM)!r}, run_name=sys.argv[1])\n"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run([*run, "__main__"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Python 3.9 or newer, this is 3.8.18" in done.stderr
    done = subprocess.run([*run, "imported"], capture_output=True, text=True)
    assert "ImportError: neural_audio_tokenizer.py needs" in done.stderr


def test_the_file_parses_where_the_check_has_to_run():
    ast.parse(PROGRAM.read_text(encoding="utf-8"), feature_version=(3, 8))


# Config files


@pytest.fixture
def config(tmp_path):
    def write(options, name="options.json"):
        text = options if isinstance(options, str) else json.dumps(options)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def effective(run_main, *args):
    result = run_main(*args, "--print-config")
    assert result.status == 0, result.err
    return json.loads(result.out)


def test_a_config_file_sets_options_and_the_command_line_wins(run_main, config):
    path = config({"max-llm-tokens": 300, "rle_semantic": True, "legend": False, "encoding": "A=rle",
                   "raw": "s16le:48000:2", "to": 7, "quiet": True, "output-dir": "there"})  # fmt: skip
    found = effective(run_main, "--config", path)
    assert found["max-llm-tokens"] == 300 and found["to"] == 7 and found["log-level"] == "warning"
    assert found["rle-semantic"] is True and found["legend"] is False
    assert found["encoding"] == "A0=rle,A1=rle,A2=rle,A3=rle" and found["raw"] == "s16le:48000:2"
    more = ("--max-llm-tokens", "99", "--no-rle-semantic", "--legend", "--verbose", "--to", "8")
    found = effective(run_main, *more, "--config", path, "--output-dir", "here")
    assert (found["max-llm-tokens"], found["to"], found["log-level"]) == (99, 8, "debug")
    assert found["rle-semantic"] is False and found["legend"] is True
    assert found["output-dir"] == "here"


def test_a_config_file_decides_what_a_run_writes(run_main, config, tokenizer):
    path = config({"format": "stream", "max_llm_tokens": 250, "codebook-init": "spectral"})
    wanted = run_main("--format", "stream", "--max-llm-tokens", "250", EXAMPLE).out
    assert run_main("--config", path, EXAMPLE).out == wanted


def sample(action):
    """A value that an option takes and that is not its default."""
    if action.nargs == 0:
        return not action.default if action.const is None else True
    if action.choices:
        return next(choice for choice in action.choices if choice != action.default)
    if isinstance(action.default, (int, float)):
        return {"sample_rate": 24000, "max_llm_tokens": 61}.get(action.dest, 9)
    special = {
        "raw": "s8:8000:1",
        "encoding": "S0=rle",
        "device": "cpu",
        "viz": "none",
        "shard": "2/3",
    }
    return special.get(action.dest, "some-text")


def test_every_option_can_stand_in_a_config_file(config):
    options = {name: sample(act) for name, act in nat.configurable(nat.make_parser()).items()}
    assert len(options) > 40 and not {"help", "config", "doctor", "version"} & set(options)
    for name, value in options.items():
        arguments = nat.parse_arguments(["--config", str(config({name: value}))])
        found = nat.effective_config(arguments)
        if name in ("quiet", "verbose"):
            name, value = "log-level", {"quiet": "warning", "verbose": "debug"}[name]
        assert found[name] == value, name


def test_what_is_printed_can_be_fed_back(run_main, config):
    args = (
        "--rle",
        "--from",
        "2.5",
        "--raw",
        "u8",
        "--seed",
        "7",
        "--no-prompt",
        "-o",
        "x",
        "--viz",
        "all",
    )
    first = effective(run_main, *args)
    assert effective(run_main, "--config", config(first)) == first


def test_what_is_printed_can_be_fed_back_whatever_the_file_is_called(run_main, config):
    first = effective(run_main, "--rle", "--seed", "7")
    path = config("\n" + json.dumps(first), "options.toml")
    assert effective(run_main, "--config", path) == first


def test_toml_says_the_same(run_main, config):
    pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    toml = "max-llm-tokens = 300\nadapt = true\nfrom = 1.5  # s\nformat = 'stream'\n"
    same = {"max-llm-tokens": 300, "adapt": True, "from": 1.5, "format": "stream"}
    found = effective(run_main, "--config", config(toml, "options.toml"))
    assert found == effective(run_main, "--config", config(same))


def test_toml_without_a_reader_says_that_json_works(run_main, config, monkeypatch):
    monkeypatch.setattr(nat, "load_package", lambda name: (None, f"{name} is not installed"))
    result = run_main("--config", config("adapt = true", "options.toml"), EXAMPLE)
    assert result.status == 3 and "JSON" in result.err and "pip install tomli" in result.err


WRONG = {
    "unknown key": ({"frobnicate": 1}, "frobnicate"),
    "dashes": ({"--rle": True}, "--rle"),
    "negated": ({"no-legend": True}, "no-legend"),
    "an act": ({"doctor": True}, "doctor"),
    "inputs": ({"inputs": ["a.wav"]}, "inputs"),
    "another config": ({"config": "b.json"}, "config"),
    "text for a number": ({"seed": "12"}, "seed"),
    "truth for a number": ({"seed": True}, "seed"),
    "a fraction for a whole number": ({"seed": 1.5}, "seed"),
    "out of range": ({"max-llm-tokens": 3}, "max-llm-tokens"),
    "not a number": ('{"keyframe-interval": NaN}', "keyframe-interval"),
    "number for text": ({"output": 5}, "output"),
    "number for a switch": ({"rle": 1}, "rle"),
    "text for a switch": ({"rle": "yes"}, "rle"),
    "a list": ({"format": ["json"]}, "format"),
    "a table": ({"format": {"a": 1}}, "format"),
    "nothing": ({"format": None}, "format"),
    "unknown choice": ({"format": "xml"}, "format"),
    "malformed": ({"raw": "mp3:1:1"}, "raw"),
    "malformed device": ({"device": "gpu9"}, "device"),
    "one thing twice": ({"max-llm-tokens": 300, "max_llm_tokens": 400}, "max_llm_tokens"),
    "one key twice": ('{"seed": 1, "seed": 2}', "twice"),
    "quiet and verbose": ({"quiet": True, "verbose": True}, "'quiet' and 'verbose'"),
    "contradiction": ({"output": "x", "output-dir": "y"}, "--output-dir"),
    "another contradiction": ({"from": 5, "to": 4, "format": "stream"}, "--from"),
    "no JSON": ("{", "JSON"),
    "TOML by another name": ("seed = 5", "TOML"),
    "no table": ("[1, 2]", "table"),
}


@pytest.mark.parametrize("options, word", WRONG.values(), ids=WRONG)
def test_a_wrong_config_file_is_2_and_names_key_and_file(run_main, config, options, word):
    result = run_main("--config", config(options), EXAMPLE)
    assert (result.status, result.out) == (2, b"")
    assert word in result.err and "options.json" in result.err and result.err.count("\n") == 1


def test_a_config_file_that_is_none(run_main, tmp_path, config):
    for path in (tmp_path / "nothing.json", tmp_path):
        result = run_main("--config", path, EXAMPLE)
        assert result.status == 2 and str(path) in result.err and result.err.count("\n") == 1
    (tmp_path / "latin.json").write_bytes(b'{"output": "\xe9"}')
    assert run_main("--config", tmp_path / "latin.json", EXAMPLE).status == 2
    assert run_main("--config").status == 2


# Words


def actions():
    return [action for action in nat.make_parser()._actions if action.option_strings]


def test_every_switch_can_be_turned_off():
    switches = [action for action in actions() if isinstance(action.default, bool)]
    assert len(switches) > 15
    for action in switches:
        assert any(name.startswith("--no-") for name in action.option_strings), action.dest


def test_help_is_in_groups_and_says_defaults(run_cli):
    text = run_cli("--help").out.decode()
    heads = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert [head.split()[0] for head in heads[1:]] == [
        "output", "view", "input", "several", "ear", "token", "neural", "this", "messages",
        "examples",
    ]  # fmt: skip
    assert "--no-legend" in text and "--no-quiet" not in text and "--no-rle" not in text
    assert "exit status: 0 all done" in text and text.count("%") == 0
    for action in actions():
        if action.nargs is None and action.default not in (None, {}):
            assert "default" in action.help, action.dest


def test_defaults_are_those_of_the_settings(tokenizer):
    made = nat.make_settings(nat.parse_arguments(["x.wav"]))
    assert made == nat.Settings(any_bytes=True)  # any bytes are sound to the command line


@pytest.mark.parametrize("flags", [["-q", "-v"], ["--quiet", "--log-level", "debug"],
                                   ["--doctor", "--version"], ["--schema", "--clear-cache"]])  # fmt: skip
def test_rivals_exclude_each_other(run_main, flags):
    result = run_main(*flags, EXAMPLE)
    assert result.status == 2 and "not allowed with" in result.err


def test_verbose_says_what_is_in_use_and_where_an_error_came_from(run_main, tmp_path, tokenizer):
    result = run_main("-v", EXAMPLE, tmp_path / "nothing.wav")
    assert tokenizer.codebook_id in result.err
    result = run_main("--verbose", "--format", "json", "--ndjson-streaming", EXAMPLE)
    assert result.status == 2 and "Traceback" in result.err


def test_log_levels_hide_what_is_below(run_main, tmp_path):
    (tmp_path / "noise.bin").write_bytes(bytes(range(256)) * 80)
    said = {level: run_main("--log-level", level, tmp_path / "noise.bin").err
            for level in ("info", "warning", "error")}  # fmt: skip
    assert len(said["info"]) > len(said["warning"]) > len(said["error"]) == 0


# Completion


def test_the_marker_of_argcomplete_stands_where_it_looks():
    assert b"PYTHON_ARGCOMPLETE_OK" in PROGRAM.read_bytes()[:1024]


def test_options_and_choices_are_completed(tmp_path):
    pytest.importorskip("argcomplete")

    def complete(line):
        out = tmp_path / "out"
        facts = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(out), "COMP_LINE": line,
                 "_ARGCOMPLETE_IFS": "\n", "COMP_POINT": str(len(line)), "COMP_TYPE": "9",
                 "_ARGCOMPLETE_COMP_WORDBREAKS": " "}  # fmt: skip
        done = subprocess.run([sys.executable, str(PROGRAM)], env={**os.environ, **facts}, cwd=ROOT,
                              capture_output=True, timeout=60)  # fmt: skip
        assert done.returncode == 0 and done.stdout == b""
        return {word.strip() for word in out.read_text().split("\n")}

    program = "neural_audio_tokenizer.py "
    assert complete(program + "--all-o") == {"--all-outputs"}
    assert {"spectral", "mert"} <= complete(program + "--codebook-init ")
    assert complete(program + "--max-llm") == {"--max-llm-tokens"}


def test_completion_is_not_loaded_otherwise():
    code = f"import sys; sys.argv = ['x', '--help']; sys.path.insert(0, {str(ROOT)!r})\n"
    code += "import neural_audio_tokenizer as nat; nat.main(); print('argcomplete' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False"
