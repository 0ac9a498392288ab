#!/usr/bin/env python3
"""Ask a language model about a sound that it cannot hear.

The sound becomes a page of text (measured facts and codes), the page and a question become one
request for any OpenAI-compatible endpoint. Without --send nothing leaves this machine: the
request is printed as JSON.

    python examples/ask_llm.py song.wav --question "Which instruments play?"
    OPENAI_API_KEY=... python examples/ask_llm.py song.wav --model MODEL --send
    python examples/ask_llm.py song.wav --base-url http://localhost:11434/v1 --model MODEL --send
    python examples/ask_llm.py out/song_stream.txt --send          # a page made before

Standard library only. The key is read from OPENAI_API_KEY and never printed. Exit status: 0 done,
1 the endpoint or the sound failed, 2 usage.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from neural_audio_tokenizer import EAR_NAMES, Settings, Tokenizer, TokenizerError, hear  # noqa: E402

INSTRUCTION = (
    "You are given a page that was measured from a sound, not the sound. Answer from the page,"
    " say how sure you are, and say so where the page does not tell."
)
OPENAI = "https://api.openai.com/v1"
QUESTION = "What kind of sound or music is this, what makes it, and what mood is it in?"


def without_questions(page: str) -> str:
    """A page with its primer, which says how to read it, but not the questions that end it."""
    return page.partition("\nTELL: ")[0]


def read_page(source: str, ear: str | None, max_llm_tokens: int) -> str:
    """The page of a sound, or of a file that --format stream wrote, without its own questions."""
    if source.endswith(".txt"):
        return without_questions(Path(source).read_text(encoding="utf-8"))
    settings = Settings(codebook_init=ear or "mert", fallback=ear is None)
    page = hear(source, Tokenizer(settings)).page(max_llm_tokens)
    return without_questions(page)


def make_request(page: str, question: str, model: str) -> dict[str, Any]:
    """Body of a chat completion; the page is fenced off as data."""
    content = f"<sound>\n{page}\n</sound>\n\n{question}"
    roles = (("system", INSTRUCTION), ("user", content))
    return {
        "model": model,
        "messages": [{"role": role, "content": words} for role, words in roles],
    }


def send(body: dict[str, Any], base_url: str, timeout: float) -> str:
    """Post a request and return the answer's words; OSError or ValueError if there are none."""
    headers = {"Content-Type": "application/json"}
    if os.environ.get("OPENAI_API_KEY"):
        headers["Authorization"] = f"Bearer {os.environ['OPENAI_API_KEY']}"
    url = f"{base_url.rstrip('/')}/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            reply = json.load(answer)
    except urllib.error.HTTPError as error:
        words = " ".join(error.read(300).decode("utf-8", "replace").split())
        key = " (is OPENAI_API_KEY right?)" if error.code in (401, 403) else ""
        raise OSError(f"{url} answers {error.code}{key}: {words}") from None
    except (OSError, http.client.HTTPException) as error:
        why = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        raise OSError(f"{url} cannot be reached ({why}); --base-url names another") from None
    except ValueError:
        raise ValueError(f"{url} answers no JSON; --base-url ends in /v1 as a rule") from None
    try:
        return str(reply["choices"][0]["message"]["content"])
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"{url} gave no chat completion: {json.dumps(reply)[:300]}") from None


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="a sound, or a page (*.txt)")
    parser.add_argument("--question", default=QUESTION, help="(default: %(default)s)")
    parser.add_argument("--base-url", help="(default: OPENAI_BASE_URL, else OpenAI's)")
    parser.add_argument("--model", default="gpt-4o-mini", help="(default: %(default)s)")
    parser.add_argument("--max-llm-tokens", type=int, default=1500, metavar="N",
                        help="what the page may cost (default: %(default)s)")  # fmt: skip
    parser.add_argument("--codebook-init", choices=EAR_NAMES, help="which ear listens")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S")
    parser.add_argument("--send", action="store_true", help="send the request, do not print it")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the request, or send it and print the answer; the exit status."""
    parser = make_parser()
    options = parser.parse_args(argv)
    base_url = options.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
    if not base_url.startswith(("http://", "https://")):
        parser.error(f"--base-url: {base_url} does not begin with http:// or https://")
    if options.send and base_url == OPENAI and not os.environ.get("OPENAI_API_KEY"):
        parser.error(f"--send: {OPENAI} wants a key, and OPENAI_API_KEY holds none; --base-url"
                     " (or OPENAI_BASE_URL) names another endpoint, a local one may want none")  # fmt: skip
    try:
        page = read_page(options.source, options.codebook_init, options.max_llm_tokens)
        body = make_request(page, options.question, options.model)
        if options.send:
            print(send(body, base_url, options.timeout))
        else:
            print(json.dumps(body, indent=1, ensure_ascii=False))
            print(f"nothing was sent; --send asks {base_url}", file=sys.stderr)
    except (OSError, ValueError, TokenizerError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
