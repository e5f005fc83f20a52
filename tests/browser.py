"""Chromium at the other end of a pipe: its DevTools protocol, an object at a time."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


class Browser:
    """A browser with one page open at a time.

    Args:
        folder: Where it keeps its profile.
        patience: After how many seconds without an answer to give up.
    """

    def __init__(self, folder: Path, patience: float = 120) -> None:
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        # The browser reads commands from descriptor 3 and answers on 4.
        shell = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"'
        program = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder}", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *program],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest, self._count, self._session, self._patience = b"", 0, None, patience
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol, and what it answers; what happened meanwhile is kept in `events`."""
        self._count += 1
        request = {"id": self._count, "method": method, "params": params}
        if self._session:
            request["sessionId"] = self._session
        os.write(self._write, json.dumps(request).encode() + b"\0")
        end = time.monotonic() + self._patience
        while time.monotonic() < end:
            *messages, self._rest = self._rest.split(b"\0")
            for place, message in enumerate(messages):
                answer = json.loads(message)
                if answer.get("id") == self._count:
                    self._rest = b"\0".join([*messages[place + 1 :], self._rest])
                    assert "error" not in answer, answer
                    return answer["result"]
                self.events.append(answer)
            if select.select([self._read], [], [], 5)[0]:
                piece = os.read(self._read, 1 << 20)
                assert piece, "the browser is gone"
                self._rest += piece
        raise TimeoutError(method)

    def open(
        self, address: str, *, width: int = 1280, height: int = 800, features: dict[str, str] | None = None
    ) -> None:
        """Open an address in a page of its own, and wait until it has loaded.

        Args:
            address: What to open.
            width: Of the window, in pixels.
            height: Of the window.
            features: What media queries are told, `{"prefers-color-scheme": "dark"}` say.
        """
        self._session = None
        self.events.clear()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Runtime.enable")
        self.resize(width, height)
        self.prefer(features or {})
        self.call("Page.navigate", url=address)
        end = time.monotonic() + 60
        while self.ask("document.readyState + (window.location.href != 'about:blank')") != "completetrue":
            assert time.monotonic() < end
            time.sleep(0.05)

    def resize(self, width: int, height: int) -> None:
        """Give the window another size; a narrow one is a telephone's."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def prefer(self, features: dict[str, str]) -> None:
        """Say what the visitor prefers."""
        listed = [{"name": name, "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=listed)

    def ask(self, expression: str) -> Any:
        """The value of an expression, or of the promise that it is."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press a key and let it go."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Save what the window shows, or the whole page, as PNG."""
        shown = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(shown))

    @property
    def complaints(self) -> list[str]:
        """What went wrong in the page since it was opened."""
        self.ask("0")
        return [
            json.dumps(event["params"])
            for event in self.events
            if event.get("method") == "Runtime.exceptionThrown"
            or (event.get("method") == "Runtime.consoleAPICalled" and event["params"]["type"] == "error")
        ]

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait(30)
        os.close(self._read)
        os.close(self._write)
