"""Pages in a headless Chromium, which is spoken to by its DevTools protocol on a pipe."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_SECONDS = 60.0
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--remote-debugging-pipe",
)
CUT_OFF = """(() => {
    const found = [];
    const page = document.documentElement;
    if (page.scrollWidth > page.clientWidth) found.push("the page");
    for (const each of document.querySelectorAll("body *")) {
        if (each.closest("svg") && each.tagName != "text") continue;
        const box = each.getBoundingClientRect();
        if (!box.width) continue;
        const wide = each.scrollWidth > each.clientWidth + 1 && each.clientWidth;
        const outside = box.left < -0.5 || box.right > page.clientWidth + 0.5;
        if (wide || outside) found.push(`${each.tagName} ${each.textContent.slice(0, 60)}`);
    }
    return found;
})()"""
"""The elements of which a part is not visible, because they are wider than what they stand in."""


class Browser:
    """A page of a browser."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._read = b""
        self._number = 0
        self._session: str | None = None
        made = self._call("Target.createTarget", url="about:blank")
        attached = self._call("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        self._session = attached["sessionId"]
        self._call("Page.enable")

    def open(self, page: Path) -> None:
        """Load the page and wait until it is there."""
        self._call("Page.navigate", url=page.absolute().as_uri())
        end = time.monotonic() + _SECONDS
        while self.evaluate("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < end, "the page was not loaded"

    def resize(self, width: int, height: int = 900) -> None:
        """Give the page a screen of this size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)

    def emulate(self, *, media: str = "screen", scheme: str = "light") -> None:
        """Show the page for a medium, and with a light or dark scheme of colours."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", media=media, features=features)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript in the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def draw(self, picture: Path) -> None:
        """Write a picture of the whole page, as PNG."""
        answer = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        picture.write_bytes(base64.b64decode(answer["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        """Return the next message, which ends with a null byte."""
        while b"\0" not in self._read:
            assert select.select([self._answers], [], [], _SECONDS)[0], "no answer"
            data = os.read(self._answers, 1 << 20)
            assert data, "the browser has ended"
            self._read += data
        message, _, self._read = self._read.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


@contextmanager
def browser(directory: Path) -> Iterator[Browser]:
    """Start Chromium with its files in the directory, and end it after the block."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # It reads its commands from descriptor 3, and answers on 4.
    redirect = f'exec chromium "$@" 3<&{theirs_in} 4>&{theirs_out}'
    process = subprocess.Popen(
        ["bash", "-c", redirect, "chromium", *_OPTIONS, f"--user-data-dir={directory}"],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(directory)},
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(ours_out, ours_in)
    finally:
        for descriptor in (ours_in, ours_out):  # it ends if the pipe does
            with suppress(OSError):
                os.close(descriptor)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
