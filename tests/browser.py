"""A real headless Chromium, spoken to over a pipe: what a page looks like, asks for, complains about."""

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_SECONDS = 600  # it ends even when the tests have died
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root has no other way
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


@dataclass
class Browser:
    """`events` are what the page did since it was opened: methods and their parameters, as the protocol has them."""

    process: "subprocess.Popen[bytes]"
    commands: int
    answers: int
    session: str = ""
    number: int = 0
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    _rest: bytes = b""

    def ask(self, method: str, **parameters: object) -> dict[str, object]:
        self.number += 1
        message: dict[str, object] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                result = answer["result"]
                assert isinstance(result, dict)
                return result

    def _next(self) -> dict[str, object]:
        while b"\0" not in self._rest:
            data = os.read(self.answers, 1 << 20)
            assert data, "the browser has gone away"
            self._rest += data
        line, self._rest = self._rest.split(b"\0", 1)
        answer: dict[str, object] = json.loads(line)
        if isinstance(method := answer.get("method"), str):
            parameters = answer["params"]
            assert isinstance(parameters, dict)
            self.events.append((method, parameters))
        return answer

    def open(self, page: Path | str, *, width: int, dark: bool = False) -> None:
        """Show a file or a URL, and wait until it is loaded."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.events.clear()
        self.ask("Page.navigate", url=page if isinstance(page, str) else page.absolute().as_uri())
        while "Page.loadEventFired" not in (method for method, _parameters in self.events):
            self._next()

    def value(self, expression: str) -> object:
        """What an expression of JavaScript gives on the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        result = answer["result"]
        assert isinstance(result, dict)
        return result.get("value")

    def requests(self) -> list[str]:
        return [f"{p['request']['url']}" for m, p in self.events if m == "Network.requestWillBeSent"]

    def complaints(self) -> list[dict[str, object]]:
        """Errors and warnings, the console's, the page's own and those of the policy."""
        kinds = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
        return [parameters for method, parameters in self.events if method in kinds]

    def sheets(self) -> int:
        """How many sheets of A4 the page is, as the browser prints it."""
        printed = self.ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"]
        assert isinstance(printed, str)
        return len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(printed)))

    def media(self, kind: str) -> None:
        """Show the page as it is on paper (`print`), or on a screen again (empty)."""
        self.ask("Emulation.setEmulatedMedia", media=kind)

    def screenshot(self, file: Path) -> None:
        """The whole page."""
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        assert isinstance(data, str)
        file.write_bytes(base64.b64decode(data))


@contextmanager
def opened_browser() -> Iterator[Browser]:
    """A browser with a profile of its own, ended with the block."""
    # not below a test's directory: a socket's path has at most 107 bytes, and the browser aborts where it is longer
    with TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as home, _started(Path(home)) as browser:
        target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        browser.session = f"{browser.ask('Target.attachToTarget', targetId=target, flatten=True)['sessionId']}"
        for domain in ("Page", "Runtime", "Network", "Log"):
            browser.ask(f"{domain}.enable")
        yield browser
        browser.session = ""
        browser.ask("Browser.close")
        browser.process.wait(30)


@contextmanager
def _started(home: Path) -> Iterator[Browser]:
    command_end, commands = os.pipe()
    answers, answer_end = os.pipe()
    # the protocol has fixed numbers: it reads from 3 and writes to 4
    shell = f'exec "$@" 3<&{command_end} 4>&{answer_end}'
    process = subprocess.Popen(
        ["timeout", f"{_SECONDS}", "bash", "-c", shell, "bash", "chromium", *_FLAGS, f"--user-data-dir={home}"],
        env={"PATH": os.environ["PATH"], "HOME": f"{home}", "TMPDIR": f"{home}", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(command_end, answer_end),
        start_new_session=True,
    )
    os.close(command_end)
    os.close(answer_end)
    try:
        yield Browser(process, commands, answers)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
        os.close(commands)
        os.close(answers)
