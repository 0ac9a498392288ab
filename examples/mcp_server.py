#!/usr/bin/env python3
"""Ears for an agent: a server of the Model Context Protocol, by the official package.

    pip install mcp
    python examples/mcp_server.py ~/Music ~/recordings

An MCP client starts it so (stdio transport):

    {"mcpServers": {"ears": {"command": "python",
                             "args": ["/path/to/examples/mcp_server.py", "/home/me/Music"]}}}

Tools: sounds(containing, max_llm_tokens), listen(path, max_llm_tokens), listen_between(path,
from, to, max_llm_tokens) and compare(a, b, max_llm_tokens). A path is looked up in the folders
named at start; what lies outside of them, by "..", by an absolute path or by a symbolic link, is
refused. Nothing is written, and no answer costs more than its max_llm_tokens. The tokenizer, with
the ear of --codebook-init (default: mert, else spectral), is loaded at start; the very first time
its codebooks are fitted, some 20 s (MERT on a CPU: minutes), in which calls are put off.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import Annotated, Iterator, Sequence, Union

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import neural_audio_tokenizer as nat  # noqa: E402


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--codebook-init", choices=nat.EAR_NAMES, help="which ear listens")
    parser.add_argument("--max-duration", type=float, default=3600.0, metavar="S",
                        help="refuse longer sounds (default: %(default)s)")  # fmt: skip
    return parser


if __name__ == "__main__":
    make_parser().parse_args()  # --help needs no mcp

try:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
except ImportError:  # mcp 1.x, or none
    try:
        from mcp.server.fastmcp import FastMCP as MCPServer
        from mcp.server.fastmcp.exceptions import ToolError
    except ImportError as error:
        raise SystemExit(
            f"an MCP server needs the package mcp ({error}): pip install mcp"
        ) from None
from pydantic import Field

PATIENCE = 45.0  # seconds a call waits for the tokenizer; clients give up after 60
MOST_SOUNDS = 300  # names that one answer holds at most
MOST_FILES = 20000  # that are looked at for them

Budget = Annotated[int, Field(ge=60, le=20000, description="what the answer may cost you")]
Sound = Annotated[str, Field(description="a sound file in one of the server's folders")]
Time = Union[float, str]  # seconds, or a clock's m:ss


def locate(path: str, folders: Sequence[Path]) -> Path:
    """The file that a client's path means, if it truly lies in one of the (resolved) folders.

    A path that leads outside gets one and the same answer, whether or not something is there.
    """
    inside = []
    for folder in folders:
        try:
            found = (folder / path).resolve()
        except (OSError, ValueError, RuntimeError):  # a loop of links, or a null byte
            continue
        if found.is_relative_to(folder):
            inside.append(found)
    shown = nat.visible(path)
    if not inside:
        raise ToolError(f"{shown}: outside of the folders that this server may read")
    known = [found for found in inside if found.is_file()]
    if not known:
        kind = "a folder" if any(map(Path.is_dir, inside)) else "no such file"
        raise ToolError(
            f"{shown}: {kind} in this server's folders; the tool sounds lists the files"
        )
    return known[0]


def sounds_in(folder: Path) -> Iterator[str]:
    """Paths within a folder of the files that are called sounds, in order; no links out of it."""
    looked = 0
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            looked += 1
            file = Path(place, name)
            if name.lower().endswith(tuple(nat.AUDIO_EXTENSIONS)) and file.is_file():
                if file.resolve().is_relative_to(folder):
                    yield str(file.relative_to(folder))
        if looked > MOST_FILES:
            return


def length_of(file: Path) -> str:
    """How long a sound is, as far as its file declares it."""
    try:
        with nat.open_audio(file, nat.DEFAULTS) as audio:
            seconds = audio.source.duration
    except nat.TokenizerError:
        return "cannot be heard"
    return "length not declared" if seconds is None else f"{seconds:.1f} s"


def seconds_of(time: Time) -> float:
    """Seconds, from a number or a clock's m:ss."""
    try:
        return nat.parse_seconds(str(time))
    except argparse.ArgumentTypeError as error:
        raise ToolError(f"a time is in seconds, or as in 1:30 ({error})") from None


def without_questions(page: str) -> str:
    """A page without the questions that end it: the agent has its own."""
    return page.partition("\nTELL: ")[0]


def facts_by_kind(heard: nat.Hearing) -> dict[str, list[str]]:
    """What was observed of a sound, the most telling kind first."""
    found: dict[str, list[str]] = {}
    for fact in heard.observations:
        found.setdefault(fact.kind, []).append(fact.text)
    return found


def compare_lines(a: nat.Hearing, b: nat.Hearing) -> Iterator[str]:
    """Two sounds side by side, what matters most first."""
    yield f"A is {a.view.title}; B is {b.view.title}"
    yield from nat.compare(a.codes, b.codes).lines()
    ours, theirs = facts_by_kind(a), facts_by_kind(b)
    for kind in dict.fromkeys([*ours, *theirs]):
        sides = [("; ".join(side.get(kind, [])) or "-") for side in (ours, theirs)]
        both = sides[0] == sides[1]
        yield f"{kind}: both {sides[0]}" if both else f"{kind}: A {sides[0]} | B {sides[1]}"


def within_budget(lines: Iterator[str], budget: int) -> str:
    """As many of the lines as the budget pays for; one that is too long ends in an ellipsis."""
    kept: list[str] = []
    for line in lines:
        while line and nat.count_llm_tokens("\n".join([*kept, line])) > budget:
            line = line[: len(line) * 3 // 4].rstrip(" …") + " …" if len(line) > 40 else ""
        if not line:
            break
        kept.append(line)
    return "\n".join(kept)


class Ears:
    """The tools, over one tokenizer and some folders."""

    def __init__(self, folders: Sequence[Path], settings: nat.Settings) -> None:
        self._folders = folders
        self._lock = threading.Lock()  # one sound at a time: memory stays bounded
        self._tokenizer: Future[nat.Tokenizer] = Future()
        # in a thread, so that the client's greeting is answered meanwhile
        threading.Thread(target=self._load, args=(settings,), daemon=True).start()

    def _load(self, settings: nat.Settings) -> None:
        try:
            self._tokenizer.set_result(nat.Tokenizer(settings))
        except Exception as error:  # whatever it is, calls must not wait for ever
            self._tokenizer.set_exception(error)

    def _hear(self, path: str, start: float = 0.0, stop: float = math.inf) -> nat.Hearing:
        file = locate(path, self._folders)
        try:
            tokenizer = self._tokenizer.result(PATIENCE)
            with self._lock:
                return nat.hear(file, tokenizer, start=start, stop=stop)
        except NotYet:
            raise ToolError(
                "codebooks are being fitted, this once; try again in a minute"
            ) from None
        except nat.TokenizerError as error:
            # as the client called it: where the folders lie is none of its business
            words = str(error).replace(nat.visible(str(file), 4096), nat.visible(path))
            words = words.replace(f"; {nat.RAW_HINT}", "")  # which no tool does
            raise ToolError(words) from error

    def sounds(
        self,
        containing: Annotated[str, Field(description="only paths that contain this")] = "",
        max_llm_tokens: Budget = 1500,
    ) -> str:
        """List the sound files that this server can hear: the paths that its tools take, and how
        long each is."""
        found: dict[str, Path] = {}
        for folder in self._folders:
            for path in sounds_in(folder):
                found.setdefault(path, folder)  # a path of two folders means the first one's
        paths = [path for path in found if containing.lower() in path.lower()]
        note = f"{len(paths)} sounds (if fewer are listed, containing narrows them):"
        # one by one: what is beyond the budget is not opened
        lines = (f"{nat.visible(p, 1000)} ({length_of(found[p] / p)})" for p in paths[:MOST_SOUNDS])
        return within_budget(itertools.chain([note], lines), max_llm_tokens)

    def listen(self, path: Sound, max_llm_tokens: Budget = 1500) -> str:
        """Hear a sound: a page of measured facts (tempo, key, notes, hits, loudness, sections,
        with times in seconds and confidences) and codes. You do not hear it, you read it."""
        return without_questions(self._hear(path).page(max_llm_tokens))

    def listen_between(
        self,
        path: Sound,
        start: Annotated[
            Time, Field(validation_alias="from", description="where to begin: seconds, or m:ss")
        ],
        stop: Annotated[
            Time, Field(validation_alias="to", description="where to end: seconds, or m:ss")
        ],
        max_llm_tokens: Budget = 1500,
    ) -> str:
        """Hear a stretch of a sound in more detail; times on the page count from its start."""
        first, last = map(seconds_of, (start, stop))
        if first >= last:
            raise ToolError("from must come before to")
        return without_questions(self._hear(path, first, last).page(max_llm_tokens))

    def compare(self, a: Sound, b: Sound, max_llm_tokens: Budget = 1500) -> str:
        """How alike two sounds are (one recording, in step, of a kind, or no more than chance; by
        layer of codes, with what chance gives), and the facts of both side by side."""
        return within_budget(compare_lines(self._hear(a), self._hear(b)), max_llm_tokens)


def make_server(folders: Sequence[Path], settings: nat.Settings) -> MCPServer:
    """A server with the four tools over these folders."""
    names = ", ".join(folder.name for folder in folders)
    words = f"Sounds are named by their path within these folders, see sounds(): {names}."
    try:
        server = MCPServer("tims-ears", instructions=words, version=nat.VERSION)
    except TypeError:  # mcp 1.x has no such parameter, and would tell its own version
        server = MCPServer("tims-ears", instructions=words)
        server._mcp_server.version = nat.VERSION
    ears = Ears(folders, settings)
    for tool in (ears.sounds, ears.listen, ears.listen_between, ears.compare):
        server.tool()(tool)
    return server


def main(argv: Sequence[str] | None = None) -> int:
    """Serve on stdin and stdout until the client goes; the exit status."""
    parser = make_parser()
    options = parser.parse_args(argv)
    folders = [folder.resolve() for folder in options.folders]
    for folder in folders:
        if not folder.is_dir():
            parser.error(f"{folder} is no folder")
    settings = nat.Settings(
        codebook_init=options.codebook_init or "mert",
        fallback=options.codebook_init is None,
        max_duration=options.max_duration,
    )
    make_server(folders, settings).run("stdio")
    return 0


if __name__ == "__main__":
    sys.exit(main())
