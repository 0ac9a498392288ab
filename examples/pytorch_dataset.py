#!/usr/bin/env python3
"""Codes as training data: a folder of token files becomes a PyTorch Dataset.

    python neural_audio_tokenizer.py --format npz --output-dir tokens/ *.wav
    python examples/pytorch_dataset.py tokens/ --layers S --window 512

reads every *_tokens.npz and *_tokens.ndjson in the folder (of one sound with both, the .npz) and
shows one batch. As a library:

    from pytorch_dataset import CodeWindows, CodeStream
    loader = torch.utils.data.DataLoader(CodeWindows("tokens/", layers="SA"), batch_size=16)

An item holds `codes` int64 [window, layers], `mask` bool [window] (False where padded with PAD),
`sound` (index into .paths) and `frame` (where the window begins). All files must share one
codebook_id, since equal codes mean equal sounds only then. CodeWindows keeps all codes in memory
(16 bytes a frame, 2.5 MB an hour) and may be shuffled; CodeStream reads file by file, shared out
among the loader's workers.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Iterator, Sequence

import numpy as np


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--layers", default="SA", help="S, A or SA (default: %(default)s)")
    parser.add_argument("--window", type=int, default=1024, help="frames (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=4)
    return parser


if __name__ == "__main__":
    make_parser().parse_args()  # --help needs no torch

try:
    import torch
    from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info
except ImportError as error:
    raise SystemExit(f"a PyTorch Dataset needs torch ({error}): pip install torch") from None

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from neural_audio_tokenizer import CODEBOOK_SIZE, LAYER_NAMES, decode_stream  # noqa: E402

PAD = CODEBOOK_SIZE  # one more than the largest code, so an embedding has PAD + 1 rows
SUFFIXES = ("_tokens.npz", "_tokens.ndjson")


def token_files(folder: str | Path) -> list[Path]:
    """Token files in a folder, in the order of their names, one a sound."""
    found: dict[str, Path] = {}
    for suffix in SUFFIXES:
        for path in sorted(Path(folder).glob(f"*{suffix}")):
            found.setdefault(path.name[: -len(suffix)], path)
    if not found:
        raise FileNotFoundError(f"{folder}: no *{' and no *'.join(SUFFIXES)}")
    return [found[stem] for stem in sorted(found)]


def read_tokens(path: Path) -> tuple[np.ndarray, str]:
    """Codes int16 [T, 8] and codebook_id of a token file."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            return stored["codes"], json.loads(str(stored["header"]))["codebook_id"]
    with open(path, encoding="utf-8") as lines:
        stream = decode_stream(lines)
    return stream.codes, stream.header.codebook_id


def layer_columns(layers: str | Sequence[str]) -> list[int]:
    """Columns of "S", "A", "SA", or of names such as ("S0", "A1")."""
    wanted = list(layers) if isinstance(layers, str) else layers
    columns = [i for want in wanted for i, name in enumerate(LAYER_NAMES) if name.startswith(want)]
    if not columns or len(set(columns)) != len(columns):
        raise ValueError(f"{layers!r} names no layers, or one twice; say S, A, SA or S0 ... A3")
    return columns


def cut(codes: np.ndarray, start: int, window: int) -> dict[str, torch.Tensor]:
    """One window of codes [T, n], padded where the sound has ended."""
    part = codes[start : start + window]
    padded = np.full((window, codes.shape[1]), PAD, np.int64)
    padded[: len(part)] = part
    return {"codes": torch.from_numpy(padded), "mask": torch.arange(window) < len(part)}


class TokenFolder:
    """Token files of one codebook_id, and how they are cut; base of both datasets."""

    def __init__(
        self,
        folder: str | Path,
        *,
        window: int = 1024,
        hop: int | None = None,
        layers: str | Sequence[str] = "SA",
    ) -> None:
        if window < 1 or (hop is not None and hop < 1):
            raise ValueError("window and hop are at least one frame")
        self.paths = token_files(folder)
        self.window, self.hop, self.columns = window, hop or window, layer_columns(layers)
        self.codebook_id = read_tokens(self.paths[0])[1]

    def load(self, index: int) -> np.ndarray:
        """Codes [T, layers] of one sound; ValueError if they are of other codebooks."""
        codes, codebook_id = read_tokens(self.paths[index])
        if codebook_id != self.codebook_id:
            raise ValueError(
                f"{self.paths[index].name} was made with {codebook_id},"
                f" {self.paths[0].name} with {self.codebook_id}"
            )
        return codes[:, self.columns]

    def starts(self, frames: int) -> range:
        """Where windows begin: every hop, until one reaches the end."""
        return range(0, max(1, frames - self.window + self.hop), self.hop)

    def item(self, codes: np.ndarray, index: int, start: int) -> dict[str, Any]:
        """What a dataset yields."""
        return {**cut(codes, start, self.window), "sound": index, "frame": start}


class CodeWindows(TokenFolder, Dataset):
    """Map-style: every window of every sound, by number."""

    def __init__(self, folder: str | Path, **more: Any) -> None:
        super().__init__(folder, **more)
        self._codes = [self.load(index) for index in range(len(self.paths))]
        self._windows = [
            (index, start)
            for index, codes in enumerate(self._codes)
            for start in self.starts(len(codes))
        ]

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        index, start = self._windows[number]
        return self.item(self._codes[index], index, start)


class CodeStream(TokenFolder, IterableDataset):
    """Iterable-style: one file in memory at a time; each worker takes every n-th file."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for index in range(first, len(self.paths), step):
            codes = self.load(index)
            for start in self.starts(len(codes)):
                yield self.item(codes, index, start)


def main(argv: Sequence[str] | None = None) -> int:
    """Show what a folder gives."""
    options = make_parser().parse_args(argv)
    try:
        dataset = CodeWindows(options.folder, window=options.window, layers=options.layers)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    batch = next(iter(DataLoader(dataset, batch_size=options.batch_size)))
    print(f"{len(dataset)} windows of {len(dataset.paths)} sounds, {dataset.codebook_id}")
    print(f"a batch: codes {tuple(batch['codes'].shape)}, {int(batch['mask'].sum())} frames in it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
