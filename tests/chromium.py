"""A headless Chromium, driven through its DevTools protocol over two pipes: no port, no driver, no package."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
DRAWN = """new Promise(done => {
  const drawn = () => [...document.querySelectorAll(".drawing")].%s(plot => plot.querySelector(".main-svg"));
  const look = () => !document.querySelector(".drawing") || drawn() ? done(true) : requestAnimationFrame(look);
  look();
})"""
FIRST_DRAWN, ALL_DRAWN = DRAWN % "some", DRAWN % "every"
"""Wait until charts of a page are drawn, which is a moment after it is seen."""
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
    "--hide-scrollbars", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-features=MediaRouter,OptimizationHints",
)  # fmt: skip
PATIENCE = 60.0
"""Seconds that an answer may take on a busy machine."""


def chromium() -> str | None:
    """Path of the program; None where there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page of a running Chromium."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int) -> None:
        self.process, self._to, self._back = process, to, back
        self._number, self._rest = 0, b""
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank", session="")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True, session="")["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; events that come meanwhile are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._back], [], [], PATIENCE)[0], "Chromium does not answer"
            part = os.read(self._back, 2**20)
            assert part, "Chromium is gone"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def open(self, page: Path) -> None:
        """Load a file and wait until it is there."""
        self.events.clear()
        self.send("Page.navigate", url=page.resolve().as_uri())
        start = time.monotonic()
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() - start < PATIENCE, "the page does not load"
            self.run("0")

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """A key, to whatever has the focus."""
        codes = {"Enter": 13, "ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "ArrowUp": 38, "Tab": 9}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **more)

    def size(self, width: int, height: int, *, phone: bool = False, scale: float = 1) -> None:
        """Size of the window in pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    def prefer(self, scheme: str, media: str = "") -> None:
        """Light or dark; on paper where ``media`` is print."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", media=media, features=features)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """What is seen, or the whole page, as a PNG."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """Errors and warnings of the page's script and of the browser about it."""
        said = []
        for event in self.events:
            method, values = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                said.append(str(values["exceptionDetails"]))
            if method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
                said.append(values["entry"]["text"])
            if method == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
                said.append(str(values["args"]))
        return said

    def requests(self) -> list[str]:
        """Addresses that were asked for, but for what is inside of the page."""
        sent = (e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent")
        return [url for url in sent if not url.startswith("data:")]


@contextmanager
def browsing(program: str, profile: Path) -> Iterator[Browser]:
    """A browser that is gone afterwards.

    Args:
        program: path of Chromium.
        profile: an empty folder for what it keeps.
    """
    (theirs_in, to), (back, theirs_out) = os.pipe(), os.pipe()

    # The protocol's pipes are file descriptors 3 and 4 of the browser.
    script = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
    process = subprocess.Popen(
        ["bash", "-c", script, program, *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        try:
            browser = Browser(process, to, back)
        except (AssertionError, OSError) as error:
            pytest.skip(f"Chromium does not start on this machine: {error}")
        yield browser
    finally:
        os.close(to)
        os.close(back)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
