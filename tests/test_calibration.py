"""Section 7: codebooks are fitted once, kept safely, and the same wherever they are made."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, SETTINGS, noise, song, tone

import neural_audio_tokenizer as nat

CODES = 40  # a small codebook for a short suite


def few_pieces(rate, seed):
    return [song(3.0, seed=seed % 1000), noise(1.0, seed=seed % 1000), tone(300.0, 1.0)]


@pytest.fixture
def fits(monkeypatch):
    """A short ear-training suite; one entry for every time that it was heard."""
    heard = []

    def suite(rate, seed):
        heard.append(seed)
        yield from few_pieces(rate, seed)

    monkeypatch.setattr(nat, "ear_training_suite", suite)
    return heard


@pytest.fixture
def settings(tmp_path, fits):
    folder = str(tmp_path / "cache")
    return replace(SETTINGS, codebook_size=CODES, cache_dir=folder)


def opened(settings):
    return nat.Tokenizer(settings)


def only_file(settings):
    (path,) = Path(settings.cache_dir).iterdir()
    return path


def key_of(settings, folder):
    """Name of the cache file that these settings lead to, in a folder of their own."""
    own = replace(settings, cache_dir=str(folder))
    opened(own)
    return only_file(own).name


# The cache


def test_the_second_opening_does_not_fit_again(settings, fits):
    first, second = opened(settings), opened(settings)
    assert len(fits) == 1
    assert first.codebook_id == second.codebook_id
    for fitted, loaded in zip(first.trained, second.trained):
        assert (fitted.vectors == loaded.vectors).all()
        assert (fitted.descriptors == loaded.descriptors).all()
    sound = song(3.0, seed=9)
    assert (first.encode(sound).array == second.encode(sound).array).all()


def test_the_real_codebooks_are_the_same_fitted_and_loaded(tokenizer):
    again = nat.Tokenizer(SETTINGS)
    assert again.codebook_id == tokenizer.codebook_id
    sound = song(2.0, seed=9)
    assert (again.encode(sound).array == tokenizer.encode(sound).array).all()


def test_force_reinit_fits_again(settings, fits):
    opened(settings)
    opened(replace(settings, force_reinit=True))
    assert len(fits) == 2


def test_without_cache_nothing_is_read_or_written(settings, fits, tmp_path):
    opened(replace(settings, use_cache=False))
    opened(replace(settings, use_cache=False))
    assert len(fits) == 2 and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("base", ["relative/folder", ""])
def test_a_cache_home_that_is_not_absolute_is_not_heeded(monkeypatch, base):
    monkeypatch.setenv("XDG_CACHE_HOME", base)
    assert nat.cache_folder(nat.Settings()) == Path.home() / ".cache" / nat.PROGRAM


def test_the_cache_home_is_heeded(cache_home):
    assert nat.cache_folder(nat.Settings()).parent == cache_home
    assert nat.cache_folder(nat.Settings(cache_dir="/x/y")) == Path("/x/y")


# What is damaged or foreign is made again


def truncate(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 0x55
    path.write_bytes(bytes(data))


def rewrite(path, **changes):
    """The same arrays and stamps but for some."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays.update(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def other_vectors(path):
    with np.load(path) as stored:
        rewrite(path, acoustic_vectors=stored["acoustic_vectors"] + 1)


def absurd_header(path):
    """An array that claims to be larger than any memory."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("key.npy", header.getvalue())


def encrypted(path):
    """Every member says that it is encrypted."""
    path.write_bytes(
        path.read_bytes().replace(b"PK\1\2\x2d\x03\x2d\0\0\0", b"PK\1\2\x2d\x03\x2d\0\1\0")
    )


def foreign_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("vectors.npy", "not an array")


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"P"),
    "half": lambda path: truncate(path, 0.5),
    "nearly whole": lambda path: truncate(path, 0.999),
    "a flipped bit": lambda path: flip(path, 0.3),
    "another flipped bit": lambda path: flip(path, 0.9),
    "text": lambda path: path.write_text("codebooks, honestly"),
    "a bare array": lambda path: np.save(path.open("wb"), np.arange(10)),
    "a bare object": lambda path: np.save(path.open("wb"), np.array([{}]), allow_pickle=True),
    "another program's zip": foreign_zip,
    "another program's arrays": lambda path: np.savez(path, weights=np.ones(3)),
    "no key": lambda path: rewrite(path, key=None),
    "a wrong key": lambda path: rewrite(path, key=np.array("0" * 20)),
    "a wrong hash": lambda path: rewrite(path, sha256=np.array("0" * 64)),
    "a missing array": lambda path: rewrite(path, semantic_offset=None),
    "other vectors": other_vectors,
    "a pickle": lambda path: rewrite(path, key=np.array([None, {}], dtype=object)),
    "an absurd header": absurd_header,
    "encryption": encrypted,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_unusable_cache_file_is_made_again_with_a_warning(settings, fits, warnings_said, damage):
    wanted = opened(settings).codebook_id
    DAMAGE[damage](only_file(settings))
    assert opened(settings).codebook_id == wanted
    assert len(fits) == 2 and len(warnings_said) == 1
    assert "unusable" in warnings_said[0] and "\n" not in warnings_said[0]
    assert opened(settings).codebook_id == wanted  # and it is whole now
    assert len(fits) == 2


def test_a_pickle_is_never_run(settings, warnings_said, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    opened(settings)
    rewrite(only_file(settings), key=np.array([Bomb()], dtype=object))
    opened(settings)
    assert not (tmp_path / "exploded").exists() and warnings_said


def test_random_damage_never_raises(settings, warnings_said):
    wanted = opened(settings).codebook_id
    path, random = only_file(settings), np.random.RandomState(0)
    whole = path.read_bytes()
    central = whole.index(b"PK\1\2")
    for turn in range(200):
        data = bytearray(whole)
        low = central if turn % 2 else 0  # the directory is small, and breaks in more ways
        for at in random.randint(low, len(data), size=1 + turn % 3):
            data[at] = random.randint(256)
        path.write_bytes(bytes(data[: random.randint(len(data))] if turn % 10 == 0 else data))
        assert opened(settings).codebook_id == wanted
        path.write_bytes(whole)


def test_a_file_of_other_settings_is_not_taken_for_ones_own(settings, warnings_said, tmp_path):
    mine = key_of(settings, tmp_path / "mine")
    theirs = opened(replace(settings, seed=1)).codebook_id
    only_file(settings).rename(Path(settings.cache_dir) / mine)
    assert opened(settings).codebook_id != theirs
    assert len(warnings_said) == 1


def test_a_half_written_file_is_not_seen(settings, fits, warnings_said, monkeypatch):
    def interrupted(handle):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened(settings)
    assert not list(Path(settings.cache_dir).iterdir())
    opened(settings)
    assert not warnings_said


def test_a_cache_that_cannot_be_written_costs_the_cache_only(settings, warnings_said, tmp_path):
    (tmp_path / "file").write_text("in the way")
    codes = (
        opened(replace(settings, cache_dir=str(tmp_path / "file" / "cache")))
        .encode(song(1.0))
        .array
    )
    assert (codes == opened(settings).encode(song(1.0)).array).all()
    assert any("not cached" in said for said in warnings_said)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_folder_only_warns(settings, warnings_said):
    folder = Path(settings.cache_dir)
    folder.mkdir()
    folder.chmod(0o500)
    opened(settings)
    folder.chmod(0o700)
    assert len(warnings_said) == 1 and "not cached" in warnings_said[0]


def test_a_full_disk_only_warns(settings, warnings_said, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    opened(settings)
    assert len(warnings_said) == 1 and "No space left" in warnings_said[0]
    assert not list(Path(settings.cache_dir).iterdir())


TWO_AT_ONCE = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import test_calibration as t
t.nat.ear_training_suite = t.few_pieces
settings = t.replace(t.SETTINGS, codebook_size=t.CODES, cache_dir=sys.argv[1])
print(t.nat.Tokenizer(settings).codebook_id)
"""


def test_two_processes_at_once_do_no_harm(tmp_path):
    code = TWO_AT_ONCE.format(tests=str(Path(__file__).parent), root=str(ROOT))
    command = [sys.executable, "-c", code, str(tmp_path / "cache")]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **streams) for _ in range(3)]
    said = [process.communicate(timeout=60) for process in running]
    assert {out for out, _ in said} == {said[0][0]} and said[0][0].startswith("spectral-")
    assert not any(err for _, err in said)
    (path,) = (tmp_path / "cache").iterdir()
    assert path.suffix == ".npz"


# The key and the name


def test_the_key_follows_all_that_decides_the_codebooks(settings, tmp_path):
    changes = [
        {}, {"seed": 1}, {"sample_rate": 16000}, {"codebook_init": "random"}, {"codebook_size": 50},
    ]  # fmt: skip
    folders = (tmp_path / str(turn) for turn in range(9))
    keys = [key_of(replace(settings, **change), next(folders)) for change in changes]
    assert len(set(keys)) == len(keys)
    free = {"encodings": ("rle",) * 8, "legend": False, "keyframe_interval": 1.0}
    assert key_of(replace(settings, **free), next(folders)) == keys[0]


def test_the_key_follows_the_program(settings, tmp_path, monkeypatch):
    before, now = key_of(settings, tmp_path / "before"), nat.source_fingerprint()
    monkeypatch.setattr(nat, "source_fingerprint", lambda: now[::-1])
    assert key_of(settings, tmp_path / "after") != before


def test_another_seed_makes_other_codebooks(settings):
    assert opened(settings).codebook_id != opened(replace(settings, seed=7)).codebook_id


def test_random_codebooks_say_so(settings):
    control = opened(replace(settings, codebook_init="random"))
    assert control.codebook_id.startswith("random-")
    assert opened(settings).codebook_id.startswith("spectral-")


def test_every_code_has_descriptors(tokenizer):
    for books in tokenizer.trained:
        assert books.descriptors.shape == (4, 1000, nat.NUM_DESCRIPTORS)
        assert np.isfinite(books.descriptors).all()


def test_codebooks_fitted_on_this_very_sound(settings):
    fresh = opened(replace(settings, codebook_init="audio"))
    own = nat.fit_to_sound(fresh, [song(6.0)])
    assert own.codebook_id.startswith("audio-") and own.codebook_id != fresh.codebook_id
    assert own.encode(song(6.0)).array.shape == (259, 8)


def test_adapting_lowers_what_codes_leave_over_and_says_so(settings):
    plain, sound = opened(settings), song(6.0, seed=21)
    moved = nat.fit_to_sound(opened(replace(settings, adapt=True)), [sound])
    assert "adapted" in moved.codebook_id

    def rest(tokenizer, branch):
        heard = next(tokenizer.tokens([sound]))
        books, features = getattr(tokenizer.trained, branch), getattr(heard, branch)
        return np.sum((features - books.decode(books.encode(features))) ** 2)

    for branch in ("semantic", "acoustic"):
        assert rest(moved, branch) < 0.9 * rest(plain, branch)


# The same bytes on another machine


def cpu_features():
    """Names of the optional CPU features that this numpy uses here."""
    try:
        from numpy._core import _multiarray_umath as core
    except ImportError:
        from numpy.core import _multiarray_umath as core
    return [name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name)]


def fitting(**environment):
    """A fresh process that fits the real codebooks and prints their name."""
    code = (
        "import neural_audio_tokenizer as n;"
        "s = n.Settings(codebook_init='spectral', use_cache=False, quiet=True);"
        "print(n.Tokenizer(s).codebook_id)"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, **streams)


@pytest.mark.slow
def test_a_fresh_process_on_a_lesser_cpu_fits_the_same_codebooks(tokenizer):
    lesser = {}
    if platform.machine() in ("x86_64", "AMD64"):  # no FMA, other kernels, other orders of sums
        disabled = " ".join(cpu_features())
        lesser = {"OPENBLAS_CORETYPE": "Sandybridge", "NPY_DISABLE_CPU_FEATURES": disabled}
    process = fitting(**lesser)
    out, err = process.communicate(timeout=120)
    assert out.strip() == tokenizer.codebook_id, err
    if not lesser:
        pytest.skip("only x86 has lesser CPU features to choose; two processes did agree")
