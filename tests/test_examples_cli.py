"""The examples that ask an LLM, serve MCP and feed PyTorch, each as a user runs it."""

from __future__ import annotations

import http.server
import importlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import EXAMPLE, ROOT, SETTINGS, noise, save_wav, song

import neural_audio_tokenizer as nat

EXAMPLES = ROOT / "examples"
SPECTRAL = ("--codebook-init", "spectral")


def example(name, monkeypatch):
    """One of the examples as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module(name)


# ask_llm.py


@pytest.fixture
def ask(monkeypatch, capsys, tokenizer):
    module = example("ask_llm", monkeypatch)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(*args):
        capsys.readouterr()
        status = module.main([str(EXAMPLE), *SPECTRAL, *args])
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def endpoint():
    """A stub of a chat endpoint: its address, what it was sent, and what it shall say."""
    seen, says = [], {"status": 200, "body": {"choices": [{"message": {"content": "A lute."}}]}}

    class Chat(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, dict(self.headers), json.loads(body)))
            answer = json.dumps(says["body"]).encode()
            self.send_response(says["status"])
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", seen, says
    server.shutdown()
    server.server_close()


def test_nothing_is_sent_unless_asked(ask, endpoint, monkeypatch):
    address, seen, _ = endpoint
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    status, out, err = ask("--base-url", address, "--question", "Which key?", "--model", "m")
    body = json.loads(out)
    assert status == 0 and not seen and "nothing was sent" in err and "secret-key" not in out + err
    assert body["model"] == "m" and [m["role"] for m in body["messages"]] == ["system", "user"]
    words = body["messages"][1]["content"]
    assert words.startswith("<sound>\nSOUND spouter.wav") and words.endswith("Which key?")
    assert "key A minor" in words and "TELL" not in words


def test_the_request_that_was_shown_is_sent(ask, endpoint, monkeypatch):
    address, seen, _ = endpoint
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    shown = json.loads(ask("--base-url", address)[1])
    assert ask("--base-url", address + "/", "--send")[:2] == (0, "A lute.\n")
    (path, headers, body), *more = seen
    assert (path, body, more) == ("/v1/chat/completions", shown, [])
    assert headers["Authorization"] == "Bearer secret-key"


def test_a_local_endpoint_needs_no_key(ask, endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint[0])
    assert ask("--send")[0] == 0 and "Authorization" not in endpoint[1][0][1]


@pytest.mark.parametrize(
    "status, body, word",
    [(401, {"error": "bad key"}, "401"), (200, {"choices": []}, "no chat completion")],
)
def test_an_endpoint_that_refuses_is_one_line(ask, endpoint, status, body, word):
    address, _, says = endpoint
    says.update(status=status, body=body)
    code, out, err = ask("--send", "--base-url", address)
    assert (code, out) == (1, "") and word in err and err.count("\n") == 1


def test_an_endpoint_that_is_not_there_is_one_line(ask):
    code, out, err = ask("--send", "--base-url", "http://127.0.0.1:9/v1")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert "127.0.0.1:9/v1/chat/completions cannot be reached" in err and "urlopen" not in err


def test_what_answers_but_is_no_endpoint_is_one_line(ask):
    listening = socket.create_server(("127.0.0.1", 0))
    address = "http://127.0.0.1:{}/v1".format(listening.getsockname()[1])

    def answer():
        for said in (b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.0 200 OK\r\n\r\n<html>"):
            caller = listening.accept()[0]
            caller.sendall(said)
            caller.shutdown(socket.SHUT_WR)
            # To the end of the request: what is closed before it was read is reset.
            while caller.recv(1 << 16):
                pass
            caller.close()

    threading.Thread(target=answer, daemon=True).start()
    with listening:
        for word in ("cannot be reached", "answers no JSON"):
            code, out, err = ask("--send", "--base-url", address)
            assert (code, out) == (1, "") and word in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "args, word",
    [(["--send"], "OPENAI_API_KEY holds none"), (["--base-url", "localhost:1/v1"], "http://")],
)
def test_what_is_missing_is_said_before_the_sound_is_heard(ask, capsys, args, word):
    with pytest.raises(SystemExit) as left:
        ask(*args)
    assert left.value.code == 2 and word in capsys.readouterr().err


def test_a_page_made_before_can_be_asked_about(ask, tmp_path, monkeypatch, capsys):
    (tmp_path / "x_stream.txt").write_text("SOUND x\n- a bell")
    module = example("ask_llm", monkeypatch)
    assert module.main([str(tmp_path / "x_stream.txt")]) == 0
    assert "- a bell" in json.loads(capsys.readouterr().out)["messages"][1]["content"]
    assert module.main([str(tmp_path / "none.wav"), *SPECTRAL]) == 1
    assert "no such file" in capsys.readouterr().err


# mcp_server.py


@pytest.fixture(scope="module")
def music(tmp_path_factory, tokenizer):
    """A folder with sounds, a link out of it, and a secret beside it."""
    base = tmp_path_factory.mktemp("mcp")
    folder, outside = base / "music", base / "music-private"
    (folder / "deep").mkdir(parents=True)
    outside.mkdir()
    save_wav(folder / "song.wav", song(6.0))
    save_wav(folder / "deep" / "rain.wav", noise(4.0))
    (folder / "notes.txt").write_bytes(b"no sound at all " * 999)
    (folder / "broken.wav").write_bytes(b"RIFF\x24\0\0\0WAVEfmt ")
    save_wav(outside / "secret.wav", noise(1.0))
    (folder / "link.wav").symlink_to(outside / "secret.wav")
    (folder / "dir").symlink_to(outside)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "inner.wav").symlink_to(folder / "song.wav")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
    return folder


def calls(folder):
    """name -> (tool, arguments) of one session with the server."""
    outside = folder.parent / "music-private" / "secret.wav"
    refused = {
        "dots": "../music-private/secret.wav", "hidden dots": "deep/../../music-private/secret.wav",
        "absolute": str(outside), "absent": str(outside.with_name("nothing.wav")),
        "link": "link.wav", "linked folder": "dir/secret.wav", "etc": "/etc/passwd",
        "loop": "loop", "null": "song\0.wav", "sibling": str(folder) + "-private/secret.wav",
    }  # fmt: skip
    failed = {"missing": "none.wav", "broken": "broken.wav", "folder": "deep", "stdin": "-",
              "pipe": "pipe", "empty": "", "text": "notes.txt"}  # fmt: skip
    listen = {n: ("listen", {"path": p}) for n, p in {**refused, **failed}.items()}
    pair = {"a": "song.wav", "b": "deep/rain.wav"}
    return {
        "song": ("listen", {"path": "song.wav", "max_llm_tokens": 600}),
        "short": ("listen", {"path": "song.wav", "max_llm_tokens": 100}),
        "inner": ("listen", {"path": "inner.wav"}),
        "whole path": ("listen", {"path": str(folder / "song.wav"), "max_llm_tokens": 600}),
        "part": ("listen_between", {"path": "song.wav", "from": 1.0, "to": 3.0}),
        "clock": ("listen_between", {"path": "song.wav", "from": "0:01", "to": "3"}),
        "no time": ("listen_between", {"path": "song.wav", "from": "soon", "to": 3}),
        "no second": ("listen_between", {"path": "song.wav", "from": -1, "to": 3}),
        "backwards": ("listen_between", {"path": "song.wav", "from": 3.0, "to": 1.0}),
        "beyond": ("listen_between", {"path": "song.wav", "from": 90, "to": 99}),
        "compare": ("compare", pair),
        "compare briefly": ("compare", {**pair, "max_llm_tokens": 120}),
        "same": ("compare", {"a": "song.wav", "b": "song.wav"}),
        "compare outside": ("compare", {"a": "song.wav", "b": "../music-private/secret.wav"}),
        "sounds": ("sounds", {}),
        "some sounds": ("sounds", {"containing": "DEEP"}),
        "few sounds": ("sounds", {"max_llm_tokens": 60}),
        "no budget": ("listen", {"path": "song.wav", "max_llm_tokens": 1}),
        **listen,
    }


@pytest.fixture(scope="module")
def session(music):
    """What the server answered to the package's own client: tools, and name -> (failed, text)."""
    pytest.importorskip("mcp")
    import anyio
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    server = StdioServerParameters(
        command=sys.executable,
        args=[str(EXAMPLES / "mcp_server.py"), *SPECTRAL, str(music)],
        env=dict(os.environ),
    )

    async def talk():
        answers = {}
        with open(os.devnull, "w") as log:
            async with stdio_client(server, log) as (read, write):
                async with ClientSession(read, write) as client:
                    greeting = await client.initialize()
                    tools = (await client.list_tools()).tools
                    for name, (tool, arguments) in calls(music).items():
                        result = await client.call_tool(tool, arguments)
                        failed = getattr(result, "is_error", getattr(result, "isError", None))
                        answers[name] = bool(failed), "".join(part.text for part in result.content)
        told = getattr(greeting, "server_info", None) or greeting.serverInfo
        return tools, answers, told.version

    return anyio.run(talk)


def test_the_server_shows_its_tools(session):
    tools = {tool.name: tool for tool in session[0]}
    assert set(tools) == {"sounds", "listen", "listen_between", "compare"}
    assert session[2] == nat.VERSION
    for tool in tools.values():
        schema = getattr(tool, "input_schema", None) or tool.inputSchema
        assert "max_llm_tokens" in schema["properties"] and len(tool.description) > 40
        if tool.name == "listen_between":
            assert {"path", "from", "to"} == set(schema["required"])


def test_an_agent_hears(session, tokenizer, music):
    answers = session[1]
    page = nat.hear(music / "song.wav", tokenizer).page(600).partition("\nTELL")[0]
    assert answers["song"] == (False, page) == answers["whole path"]
    assert answers["inner"][0] is False
    failed, part = answers["part"]
    assert not failed and "from 1 to 3 s" in part.splitlines()[0]
    assert answers["clock"] == (False, part)


def test_an_agent_finds_what_there_is_to_hear(session):
    failed, text = session[1]["sounds"]
    note, *paths = text.splitlines()
    assert not failed and note.startswith("4 sounds")
    # no text, no pipe, and neither a link out of the folders nor what lies behind one
    rain = os.path.join("deep", "rain.wav (4.0 s)")
    lengths = ["broken.wav (cannot be heard)", "inner.wav (6.0 s)", "song.wav (6.0 s)", rain]
    assert paths == lengths and session[1]["some sounds"][1].splitlines()[1:] == [rain]
    assert nat.count_llm_tokens(session[1]["few sounds"][1]) <= 60


def test_an_agents_own_question_is_not_drowned(session):
    assert not any("TELL:" in session[1][name][1] for name in ("song", "part", "inner"))


def test_a_call_before_the_ear_is_ready_is_put_off(music, monkeypatch, tokenizer):
    pytest.importorskip("mcp")
    module, ready = example("mcp_server", monkeypatch), threading.Event()
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    monkeypatch.setattr(module.nat, "Tokenizer", lambda _: ready.wait(30) and tokenizer)
    ears = module.Ears([music.resolve()], SETTINGS)
    with pytest.raises(module.ToolError, match="try again"):
        ears.listen("song.wav")
    ready.set()
    monkeypatch.setattr(module, "PATIENCE", 30)
    assert ears.listen("song.wav").startswith("SOUND song.wav")


def test_an_ear_that_cannot_be_had_is_a_failed_call(music, monkeypatch):
    pytest.importorskip("mcp")
    module = example("mcp_server", monkeypatch)
    ears = module.Ears([music.resolve()], nat.Settings(fallback=False, compat_fallback=True))
    with pytest.raises(module.ToolError, match="--doctor"):
        ears.listen("song.wav")


def test_answers_keep_their_budget(session):
    answers = session[1]
    assert nat.count_llm_tokens(answers["short"][1]) <= 100
    assert nat.count_llm_tokens(answers["compare briefly"][1]) <= 120
    assert nat.count_llm_tokens(answers["compare"][1]) <= 1500
    assert answers["no budget"][0]


def test_two_sounds_are_compared(session):
    failed, text = session[1]["compare"]
    first, verdict, step, common, *facts = text.splitlines()
    assert not failed and "A is song.wav, 6.0 s; B is rain.wav, 4.0 s" in first
    assert verdict == "no more alike than unrelated sounds are"
    assert step.startswith("in step (chance), %: S0 0 (") and common.count("(") == 9
    assert any("| B" in fact for fact in facts)
    same = session[1]["same"][1]
    assert "\nidentical: every code is equal\n" in same and " | B" not in same


@pytest.mark.parametrize(
    "name", ["dots", "hidden dots", "absolute", "absent", "link", "linked folder", "etc",
             "sibling", "compare outside"],
)  # fmt: skip
def test_what_lies_outside_is_refused(session, name):
    failed, text = session[1][name]
    assert failed and "outside of the folders" in text


@pytest.mark.parametrize(
    "name, word",
    [("missing", "the tool sounds lists"), ("broken", ": broken.wav: broken WAV"),
     ("folder", "a folder"), ("stdin", "no such file"), ("pipe", "no such file"),
     ("empty", "a folder"), ("text", ": notes.txt: no known sound format"),
     ("no time", "in seconds, or as in 1:30"), ("no second", "seconds"), ("backwards", "before"), ("beyond", "nothing to view"), ("loop", ""), ("null", "")],
)  # fmt: skip
def test_failures_come_back_with_a_reason(session, music, name, word):
    failed, text = session[1][name]
    assert failed and word in text and "Traceback" not in text and len(text) < 500
    assert "--raw" not in text and "Settings(" not in text  # a client has neither
    assert str(music.parent) not in text  # where the folders lie is told to nobody


def test_stdout_is_the_protocol_alone(music):
    pytest.importorskip("mcp")
    command = [sys.executable, str(EXAMPLES / "mcp_server.py"), *SPECTRAL, str(music)]
    messages = [
        {"id": 1, "method": "initialize", "params": {
            "protocolVersion": "2024-11-05", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"}}},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {
            "name": "listen", "arguments": {"path": "song.wav", "max_llm_tokens": 100}}},
    ]  # fmt: skip
    running = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    answered = []
    try:
        for message in messages:
            running.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
            running.stdin.flush()
            while "id" in message and not any(a.get("id") == message["id"] for a in answered):
                answered.append(json.loads(running.stdout.readline()))
        rest = running.communicate(timeout=60)[0]
    finally:
        running.kill()
    assert rest == b"" and all(answer["jsonrpc"] == "2.0" for answer in answered)
    assert answered[-1]["result"]["content"][0]["text"].startswith("SOUND song.wav")


def test_a_folder_that_is_none_is_refused(tmp_path):
    pytest.importorskip("mcp")
    command = [sys.executable, str(EXAMPLES / "mcp_server.py"), str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 2 and done.stdout == b"" and b"no folder" in done.stderr


# pytorch_dataset.py


@pytest.fixture(scope="module")
def tokens(tmp_path_factory, tokenizer):
    """A folder with one sound as npz, one as ndjson and one as both; and the sounds' codes."""
    folder, codes = tmp_path_factory.mktemp("tokens"), {}
    runs = {"a": ("npz",), "b": ("ndjson",), "c": ("npz", "ndjson")}
    for number, (name, formats) in enumerate(runs.items()):
        sound = song(1.0 + number, seed=number)
        wav = save_wav(folder / f"{name}.wav", sound)
        for form in formats:
            nat.Runner(SETTINGS, nat.Outputs((form,), folder)).run(str(wav))
        codes[name] = tokenizer.encode(wav).array
    return folder, codes


@pytest.fixture
def data(monkeypatch):
    pytest.importorskip("torch")
    return example("pytorch_dataset", monkeypatch)


def test_windows_cover_every_frame_once(data, tokens):
    folder, codes = tokens
    dataset = data.CodeWindows(folder, window=50)
    assert [path.name for path in dataset.paths] == [
        "a_tokens.npz",
        "b_tokens.ndjson",
        "c_tokens.npz",
    ]
    again = {}
    for item in (dataset[number] for number in range(len(dataset))):
        assert item["codes"].shape == (50, 8) and item["mask"].shape == (50,)
        assert (item["codes"][~item["mask"]] == data.PAD).all()
        again.setdefault(item["sound"], []).append(item["codes"][item["mask"]].numpy())
    for sound, name in enumerate("abc"):
        assert (np.concatenate(again[sound]) == codes[name]).all()


@pytest.mark.parametrize("layers, columns", [("S", range(4)), ("A", range(4, 8)), ("AS", [4, 5, 6, 7, 0, 1, 2, 3]),
                                             (("S1", "A0"), [1, 4])])  # fmt: skip
def test_layers_are_chosen(data, tokens, layers, columns):
    folder, codes = tokens
    item = data.CodeWindows(folder, window=20, layers=layers)[0]
    assert (item["codes"].numpy() == codes["a"][:20, list(columns)]).all()


def test_windows_may_overlap(data, tokens):
    folder, codes = tokens
    dataset = data.CodeWindows(folder, window=40, hop=10)
    items = [dataset[number] for number in range(len(dataset))]
    starts = [item["frame"] for item in items if item["sound"] == 2]
    assert starts == list(range(0, starts[-1] + 1, 10))
    assert starts[-1] + 40 >= len(codes["c"]) > starts[-1] + 30


def test_a_loader_batches_and_shuffles(data, tokens):
    import torch

    dataset = data.CodeWindows(tokens[0], window=30)
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, shuffle=True)
    batches = list(loader)
    assert batches[0]["codes"].shape == (4, 30, 8) and batches[0]["codes"].dtype == torch.int64
    assert sum(len(batch["codes"]) for batch in batches) == len(dataset)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_the_same_windows(data, tokens, workers):
    import torch

    whole = data.CodeWindows(tokens[0], window=30)
    stream = data.CodeStream(tokens[0], window=30)
    loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=workers)
    found = {(int(item["sound"]), int(item["frame"])): item["codes"] for item in loader}
    assert len(found) == len(whole)
    for number in range(len(whole)):
        item = whole[number]
        assert (found[item["sound"], item["frame"]] == item["codes"]).all()


def test_codes_of_other_codebooks_are_refused(data, tokens, tmp_path):
    for path in tokens[0].glob("*_tokens.npz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with np.load(tmp_path / "c_tokens.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    header = json.loads(str(arrays["header"]))
    arrays["header"] = np.array(json.dumps({**header, "codebook_id": "other-1-2"}))
    np.savez(tmp_path / "c_tokens.npz", **arrays)
    with pytest.raises(ValueError, match="other-1-2"):
        data.CodeWindows(tmp_path)


def test_what_cannot_be_is_said(data, tokens, tmp_path, capsys):
    for wrong in ("X", "SS", ()):
        with pytest.raises(ValueError, match="layers"):
            data.CodeWindows(tokens[0], layers=wrong)
    with pytest.raises(ValueError, match="frame"):
        data.CodeWindows(tokens[0], window=0)
    assert data.main([str(tmp_path)]) == 1 and "no *_tokens" in capsys.readouterr().err
    assert data.main([str(tokens[0]), "--layers", "S", "--window", "64"]) == 0
    assert "a batch: codes (4, 64, 4)" in capsys.readouterr().out


# All of them


@pytest.mark.parametrize("name", ["ask_llm", "mcp_server", "pytorch_dataset", "tokenize_with_ray"])
def test_an_examples_help_needs_none_of_its_packages(name):
    code = "import runpy, sys; sys.argv = ['x', '--help'];"
    code += "sys.modules.update(dict.fromkeys(('mcp', 'torch', 'ray')));"  # as if not installed
    code += f"runpy.run_path({str(EXAMPLES / name)!r} + '.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == 0 and b"--codebook-init" in done.stdout or b"--window" in done.stdout


@pytest.mark.parametrize("name", ["ask_llm", "mcp_server", "pytorch_dataset"])
def test_an_example_says_what_it_does_and_how_to_run_it(name):
    words = Path(EXAMPLES / f"{name}.py").read_text().split('"""')[1]
    assert f"python examples/{name}.py" in words and len(words.splitlines()[0]) < 100
