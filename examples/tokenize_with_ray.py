#!/usr/bin/env python3
"""Tokenize many sounds on many machines with Ray Data; the same files and manifest as on one.

    pip install 'ray[data]'
    python examples/tokenize_with_ray.py --output-dir /shared/out /shared/sounds
    find . -name '*.flac' -print0 | python examples/tokenize_with_ray.py --null --output-dir out -
    python examples/tokenize_with_ray.py --resume --output-dir /shared/out /shared/sounds

Each actor loads the model once. It has a GPU to itself where the cluster has any and a neural ear
listens, else a CPU. A killed actor is started again, and hears the file that it was at up to twice more.
Every machine must see this program, the sounds and DIR under the same paths. What becomes of a
file stands in DIR/manifest.ndjson, and on stderr if it failed; the exit status is the program's.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anyone
EXAMPLES = Path(__file__).resolve().parent
sys.path.insert(0, str(EXAMPLES.parent))

import neural_audio_tokenizer as nat  # noqa: E402


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inputs", nargs="+", metavar="FILE", help="files, folders; - for a list")
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--format", choices=nat.FORMATS, default="ndjson")
    parser.add_argument("--codebook-init", choices=nat.EAR_NAMES)
    parser.add_argument("--null", action="store_true", help="NUL ends a path in the list")
    parser.add_argument("--resume", action="store_true", help="skip what is done")
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    parser.add_argument("--actors", type=int, default=0, help="at most (default: as many as fit)")
    parser.add_argument("--address", help="of the cluster (default: the one here, or a new one)")
    return parser


if __name__ == "__main__":
    make_parser().parse_args()  # --help needs no Ray

try:
    import ray
    import ray.data
except ImportError as error:
    raise SystemExit(f"this needs Ray Data ({error}): pip install 'ray[data]'") from None


class Listener:
    """An actor: one tokenizer for all files that come to it."""

    def __init__(self, runner: nat.Runner, here: str) -> None:
        os.chdir(here)  # where relative paths begin
        nat.LOG.setLevel(logging.WARNING)
        self.runner = runner

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        """Hear the file of a task; what became of it, as the manifest's line."""
        source, stem, known = json.loads(row["task"])
        task = nat.Task(source, stem, known and nat.Entry(**known))
        return {"entry": json.dumps(self.runner.attempt(task)._asdict())}


def as_row(task: nat.Task) -> dict[str, str]:
    """A task as text, for which Ray needs no schema."""
    known = task.known._asdict() if task.known else None
    return {"task": json.dumps([task.source, task.stem, known])}


def actors_of(batch: nat.Batch, most: int) -> dict[str, Any]:
    """How many actors there are to be, and what each has to itself."""
    have = ray.cluster_resources()
    neural = not isinstance(batch.runner.tokenizer.ears, nat.SpectralEars)
    kind = "GPU" if neural and have.get("GPU") else "CPU"
    count = max(1, int(have.get(kind, 1)))
    size = min(most or count, count, len(batch.sources))
    pool = ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1)
    return {"compute": pool, "num_gpus" if kind == "GPU" else "num_cpus": 1}


def run(batch: nat.Batch, most: int = 0) -> nat.ExitStatus:
    """Hear all files of a batch with actors, at most so many, of the cluster that Ray is in."""
    runner, actors = batch.runner, actors_of(batch, most)  # codebooks are fitted here, once
    if "num_gpus" in actors or not isinstance(runner.tokenizer.ears, nat.SpectralEars):
        # models do not travel: each actor loads its own
        settings = runner.tokenizer.settings
        runner = nat.Runner(settings, runner.outputs, inputs=runner.inputs)
    rows = [as_row(task) for task in batch.tasks()]
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.max_errored_blocks = -1  # a file that kills every actor costs itself only
    lost = dict.fromkeys(batch.sources)
    heard = ray.data.from_items(rows, override_num_blocks=len(rows)).map(  # a file is a block
        Listener, fn_constructor_args=(runner, os.getcwd()), max_task_retries=2, **actors
    )
    for row in heard.iter_rows():
        entry = nat.Entry(**json.loads(row["entry"]))
        del lost[entry.input]
        batch.record(entry)
    for source in lost:
        batch.record(
            nat.failed_entry(batch.runner.entry(source), "its actor was killed three times")
        )
    return batch.status


def join(address: str | None) -> None:
    """Be in a Ray cluster whose workers find this program."""
    paths = [str(EXAMPLES.parent), str(EXAMPLES), os.environ.get("PYTHONPATH", "")]
    env = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    runtime = {"env_vars": {**env, "OPENBLAS_NUM_THREADS": "1"}}
    ray.init(address, runtime_env=runtime, ignore_reinit_error=True, logging_level=logging.ERROR)


def main(argv: list[str] | None = None) -> int:
    """Read the command line, join or start Ray, run; the exit status."""
    options = make_parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    ear = {"codebook_init": options.codebook_init} if options.codebook_init else {}
    settings = nat.Settings(fallback=not ear, quiet=True, any_bytes=True, **ear)
    outputs = nat.Outputs((options.format,), options.output_dir.absolute(), force=options.force)
    try:
        names = nat.read_list(options.null) if options.inputs == ["-"] else options.inputs
        sources = nat.list_sounds(names, outputs, recursive=True)
        plan = nat.Plan(resume=options.resume)
        batch = nat.Batch(settings, outputs, sources=sources, plan=plan)
        join(options.address)
        return run(batch, options.actors)
    except nat.TokenizerError as error:
        nat.LOG.error("%s", error)
        return error.status


if __name__ == "__main__":
    sys.exit(main())
