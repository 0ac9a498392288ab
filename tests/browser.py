"""A headless Chromium driven over its DevTools pipe, by the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --mute-audio --no-first-run --remote-debugging-pipe"
    " --autoplay-policy=no-user-gesture-required --disable-background-networking"
    " --disable-component-update --disable-sync --no-default-browser-check"
)


def find_browser():
    """Path of a Chromium on this machine, or None."""
    names = NAMES if os.name == "posix" else ()
    return next(filter(None, map(shutil.which, names)), None)


class Browser:
    """One page of a browser; `events` holds what it told of, apart from answers."""

    def __init__(self, path, folder):
        import fcntl

        self.events, self._id, self._buffer, self._session = [], 0, b"", None
        pipes = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in (*os.pipe(), *os.pipe())]
        theirs_in, self._out, self._in, theirs_out = pipes

        def plug():  # the browser reads at 3 and writes at 4
            os.dup2(theirs_in, 3)
            os.dup2(theirs_out, 4)

        command = [path, *FLAGS.split(), f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            command,
            preexec_fn=plug,
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Result of a method of the DevTools protocol."""
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session and not method.startswith("Browser."):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._id:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _receive(self):
        while b"\0" not in self._buffer:
            more = os.read(self._in, 1 << 20)
            assert more, "the browser ended"
            self._buffer += more
        line, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(line)

    def js(self, expression):
        """Value of an expression in the page; a promise is waited for."""
        how = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        done = self.call("Runtime.evaluate", expression=expression, **how)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def until(self, expression, seconds=10.0):
        """Wait until an expression is true."""
        stop = time.monotonic() + seconds
        while not self.js(expression):
            assert time.monotonic() < stop, f"never true: {expression}"
            time.sleep(0.02)

    def open(self, url):
        """Load a page."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.until(f"document.readyState === 'complete' && location.href === {json.dumps(url)}")

    def resize(self, width, height, *, mobile=False):
        """Give the page a window of so many CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1 + mobile}
        self.call("Emulation.setDeviceMetricsOverride", mobile=mobile, **size)

    def scheme(self, name):
        """Prefer light or dark."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def key(self, name, *, shift=False):
        """Press and release a key."""
        code = {"key": name, "code": "Space" if name == " " else name, "modifiers": 8 * shift}
        text = {"text": name} if len(name) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def mouse(self, kind, x, y, **more):
        """Move, press or release the mouse; x and y in CSS pixels of the window."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def shot(self, path, *, whole=False):
        """Write a PNG of the window, or of the whole page."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def requests(self):
        """Addresses that were asked for over a network or the file system."""
        found = [e["params"]["request"]["url"] for e in self.events
                 if e.get("method") == "Network.requestWillBeSent"]  # fmt: skip
        return [url for url in found if not url.startswith(("data:", "blob:"))]

    def complaints(self):
        """What stands in the console, and what the script threw."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event["params"] for event in self.events if event.get("method") in kinds]

    def close(self):
        """End it."""
        os.close(self._out)
        os.close(self._in)
        self._process.kill()
        self._process.wait()
