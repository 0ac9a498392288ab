#!/usr/bin/env python3
"""Run the tests twice, with everything installed and with numpy alone, in environments of their own.

    python3 tests/run.py             build what is missing, then test
    python3 tests/run.py -k stream   further arguments go to pytest

The environments live in the user's cache directory under a hash of the requirement files.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
REQUIREMENTS = (ROOT / "requirements.txt", TESTS / "requirements.txt")
NUMPY_ALONE = ("numpy", "pytest>=7")


def cache_folder() -> Path:
    """Folder of all environments."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "neural-audio-tokenizer-tests"


def environment(name: str, wanted: list[str]) -> Path:
    """Python of an environment that holds the wanted packages, built where it is missing."""
    facts = [sys.version, NUMPY_ALONE, *(path.read_text() for path in REQUIREMENTS)]
    folder = cache_folder() / f"{name}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}"
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        print(f"building the {name} environment", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)
        complete.touch()
    return python


def main(arguments: list[str]) -> int:
    """Test in both environments; return the first failure's status."""
    everything = [word for path in REQUIREMENTS for word in ("-r", str(path))]
    pythons = {
        "full": environment("full", everything),
        "numpy": environment("numpy", [*NUMPY_ALONE]),
    }
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS), *arguments]
    for name, python in pythons.items():
        print(f"tests, {name} environment", flush=True)
        status = subprocess.run([python, *command], cwd=ROOT).returncode
        if status:
            return status
    style = [pythons["full"], "-m", "ruff", "check", "--select", "E9,F", str(ROOT)]
    return subprocess.run(style, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
