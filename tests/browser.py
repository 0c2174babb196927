"""A headless Chromium, driven over its own protocol: open, read, type, click, wait, take pictures. No driver needed."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60.0
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--no-proxy-server",
    "--remote-debugging-port=0",
)


def found() -> str | None:
    """The path of a Chromium on this machine; None when there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def browser(executable: str) -> Iterator[Page]:
    """A page of a Chromium of its own, which ends with the block."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [executable, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port = _port(Path(profile) / "DevToolsActivePort", process)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=SECONDS) as answer:
                target = next(one for one in json.load(answer) if one["type"] == "page")
            with connect(target["webSocketDebuggerUrl"], max_size=None, open_timeout=SECONDS, proxy=None) as socket:
                page = Page(socket)
                page.call("Page.enable")
                page.call("Runtime.enable")
                yield page
        finally:
            process.kill()
            process.wait()


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + SECONDS
    while True:
        lines = file.read_text().splitlines() if file.exists() else []
        if lines:
            return int(lines[0])
        assert process.poll() is None, "the browser ended"
        assert time.monotonic() < end, "the browser did not start"
        time.sleep(0.05)


class Page:
    """One page: what a person does with it. Every wait has an end, and says what was waited for."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0

    def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol, and its answer."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=SECONDS))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """The window's size in CSS pixels, and the system's theme."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)

    def text(self) -> str:
        """All that can be read."""
        return str(self.js("document.body ? document.body.innerText : ''"))

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
        """The first true value of the condition."""
        end = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < end, f"{what}: not within {seconds} s; the page says: {self.text()[:2000]}"
            time.sleep(0.1)

    def see(self, text: str, seconds: float = SECONDS) -> None:
        """Wait until a text can be read."""
        self.wait(lambda: text in self.text(), f"{text!r} is to be read", seconds)

    def wait_idle(self) -> None:
        """Wait until Streamlit has run what it was asked for and drawn it."""
        quiet = (
            "!!document.querySelector('[data-testid=\"stApp\"]') && "
            "document.querySelector('[data-testid=\"stApp\"]').dataset.testScriptState !== 'running' && "
            "!document.querySelector('[data-stale=\"true\"]')"
        )
        for _ in range(3):
            self.wait(lambda: self.js(quiet), "the page has come to rest")
            time.sleep(0.2)

    def click(self, text: str, among: str = "button, a, [role=tab], [role=option], label") -> None:
        """Click the first visible element of these of whose text a line begins with ``text``, as a mouse does."""
        find = f"""(() => {{
            for (const e of document.querySelectorAll({json.dumps(among)})) {{
                const box = e.getBoundingClientRect();
                if (!box.width || !box.height || e.disabled) continue;
                const lines = (e.innerText || '').split('\\n');
                if (!lines.some(line => line.trim().startsWith({json.dumps(text)}))) continue;
                e.scrollIntoView({{block: 'center'}});
                const now = e.getBoundingClientRect();
                return [now.x + now.width / 2, now.y + now.height / 2];
            }}
            return null;
        }})()"""
        x, y = self.wait(lambda: self.js(find), f"{text!r} can be clicked")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def fill(self, label: str, text: str) -> None:
        """Type into the input with this label, and press Enter."""
        selector = json.dumps(f'input[aria-label="{label}"]')
        self.wait(lambda: self.js(f"!!document.querySelector({selector})"), f"the input {label!r} is there")
        self.js(f"document.querySelector({selector}).focus()")
        self.js(f"document.querySelector({selector}).select()")
        self.call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
            )

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """Save what is seen as PNG; ``whole``: down to the end of the page."""
        if whole:
            height = self.js(
                "Math.max(...[...document.querySelectorAll('[data-testid=\"stMain\"]')].map(e => e.scrollHeight), 600)"
            )
            width = self.js("window.innerWidth")
            self.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=int(height) + 60,
                deviceScaleFactor=1,
                mobile=width < 600,
            )
            time.sleep(1.0)
        data = self.call("Page.captureScreenshot", format="png")["data"]
        file.write_bytes(base64.b64decode(data))
