"""A small part of the fuzz script, at every run of the tests; tests/fuzz.py runs thousands."""

from __future__ import annotations

import sys

import pytest

if sys.platform == "win32":
    pytest.skip("forks, as POSIX has it", allow_module_level=True)

import fuzz  # noqa: E402


@pytest.fixture(scope="module")
def seeds(tokenizer, tmp_path_factory):
    return fuzz.make_seeds(tmp_path_factory.mktemp("seeds"), {"sound", "stream", "cache"})


@pytest.mark.parametrize("kind, count", [("sound", 40), ("stream", 30), ("cache", 5)])
def test_broken_input_ends_well(seeds, tmp_path, monkeypatch, kind, count):
    monkeypatch.chdir(tmp_path)
    outcomes = fuzz.run_cases([(kind, number) for number in range(count)], seeds, seed=12342)
    assert not [outcome for outcome in outcomes if outcome.complaint]
    assert len(outcomes) == count and {outcome.status for outcome in outcomes} & {"1", "3"}


def test_the_fuzz_script_sees_what_is_wrong(seeds, tmp_path, monkeypatch):
    """A harness that calls everything well would prove nothing."""
    monkeypatch.chdir(tmp_path)

    def seen(patch):
        with monkeypatch.context() as patched:
            patch(patched)
            return fuzz.run_cases([("sound", n) for n in range(4)], seeds, seed=12342)

    def crash(*_):
        raise ZeroDivisionError

    def hang(*_):
        fuzz.time.sleep(60)

    crashed = seen(lambda p: p.setattr(fuzz.nat, "decode", crash))
    assert {outcome.status for outcome in crashed} == {"crash"}

    def slow(patched):
        patched.setattr(fuzz.nat, "decode", hang)
        patched.setattr(fuzz, "TIME_LIMIT", 0.3)

    assert {outcome.status for outcome in seen(slow)} == {"hangs"}

    def mute(patched):
        patched.setattr(fuzz.nat, "main", lambda argv: 1)

    assert all("not a word" in outcome.complaint for outcome in seen(mute))
