#!/usr/bin/env python3
"""The controls of every metric as a Markdown table: what theory says, and what is measured.

python tests/benchmarks/controls.py
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from test_metrics import CONTROLS, MIR_EVAL, Control


def words(value: float | str | None) -> str:
    """A value in few characters."""
    if value is None or isinstance(value, str):
        return value or "null"
    return f"{round(value, 6) + 0.0:.4g}"


def cell(control: Control) -> str:
    """Input, and what was measured of what was expected."""
    measured, wanted = words(control.measure().value), words(control.value)
    shown = measured if measured == wanted else f"{measured} ({wanted} ± {control.within:g})"
    return f"{control.what}: {shown}"


def main() -> None:
    """Print a row a metric."""
    print("| metric | known good | known bad | degenerate |\n| --- | --- | --- | --- |")
    wanted = [c for c in CONTROLS if MIR_EVAL or not c.metric.startswith("rhythm.")]
    for metric in dict.fromkeys(control.metric for control in wanted):
        rows = [control for control in wanted if control.metric == metric]
        cells = (
            "; ".join(cell(control) for control in rows if control.kind == kind)
            for kind in ("good", "bad", "degenerate")
        )
        print(f"| `{metric}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
