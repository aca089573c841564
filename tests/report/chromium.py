"""A small driver of headless Chromium over the DevTools protocol, on pipes: nothing to install besides the browser."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

#: Programs that will do, in order.
PROGRAMS = (
    "chromium-headless-shell",
    "chrome-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
)


def program() -> str | None:
    """The browser to use: ``ONNES_TEST_CHROMIUM`` or the first of `PROGRAMS` on the path."""
    named = os.environ.get("ONNES_TEST_CHROMIUM", "")
    return named or next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Chromium:
    """One tab of a browser without a window.

    Attributes
    ----------
    errors : list of str
        Exceptions and console errors of the pages, refusals of the content security policy among them.
    requests : list of str
        Addresses that were asked for.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._folder = tempfile.TemporaryDirectory(prefix="onnes-chromium-", ignore_cleanup_errors=True)
        to_child, self._out = os.pipe()
        self._in, from_child = os.pipe()
        for end in (to_child, from_child):
            os.set_inheritable(end, True)
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
        # The browser reads from 3 and writes to 4.
        words = [str(program()), *flags, "--remote-debugging-pipe", f"--user-data-dir={self._folder.name}"]
        quoted = " ".join(f"'{w}'" for w in words)
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec 3<&{to_child} 4>&{from_child}; exec {quoted}"],
            pass_fds=(to_child, from_child),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        self._rest, self._count, self._session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        os.close(self._out)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        self._folder.cleanup()

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._count:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._in, 1 << 20)
            if not piece:
                raise RuntimeError("the browser has ended")
            self._rest += piece
        text, _, self._rest = self._rest.partition(b"\0")
        found = json.loads(text)
        method, params = found.get("method"), found.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(
                params["exceptionDetails"].get("exception", {}).get("description", "exception")
            )
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        return found

    def open(self, page: Path, width: int = 1280, height: int = 900, *, mobile: bool = False) -> None:
        """Load a file in a window of a size and wait until it has settled."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )
        self.call("Page.navigate", url=page.resolve().as_uri())
        end = time.monotonic() + 60
        while self.run("document.readyState") != "complete":
            if time.monotonic() > end:
                raise RuntimeError("the page does not load")
        # Two frames: what scripts drew is laid out.
        self.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(1))))")

    def run(self, script: str) -> Any:
        """Value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"])
        return found["result"].get("value")

    def picture(self, file: Path, clip: tuple[float, float, float, float] | None = None) -> None:
        """Save what the window shows, or a piece of the page (x, y, width, height)."""
        more: dict[str, Any] = {}
        if clip is not None:
            x, y, w, h = clip
            more = {
                "clip": {"x": x, "y": y, "width": w, "height": h, "scale": 1},
                "captureBeyondViewport": True,
            }
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **more)["data"]))

    def pdf(self, file: Path) -> None:
        """Print the page to A4."""
        found = self.call("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69)
        file.write_bytes(base64.b64decode(found["data"]))
