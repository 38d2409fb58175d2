"""A headless Chromium for tests, controlled by the DevTools protocol over a WebSocket, with aiohttp's client.

    async with Chromium() as browser:
        page = await browser.open("http://127.0.0.1:8080/")
        await page.click("#connect")
        await page.wait_for("document.querySelector('#state').dataset.state === 'open'")
        assert page.errors == []

Clicks and keys are real input events, which the page cannot tell from a user's. Every wait has a deadline.

A test process starts Chromium once, because a start takes more processor time than most tests of a page. Each `Chromium` is a browser
context in that process. It shares no cookies, storage, cache or connections with another, and the end of the `async with` deletes it
with its pages. A browser process that has crashed or does not answer is replaced.

`end_process` ends the whole process group, and deletes its directory: its profile, its home and its temporary directory. If the tests
are killed, a small shell that reads a pipe does the same.

The module does not install, update or search other browsers: if Debian's `chromium` is missing, `async with` raises an error.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

import aiohttp

from tests.support.deadline import Deadline, scaled

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-startup-window",  # it would open an unused page
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # The address bar of each window has two more pages, which use twice the processor time of a tested page.
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP raspberrypi 127.0.0.1",  # for any name but localhost, a browser treats plain http as insecure
)

TIMEOUT = 30.0
"""Deadline in seconds for an answer of the browser, far above the time that a busy machine needs."""

ENDER = 'read -r over || while kill -9 -"$1"; do sleep 0.1; done; rm -rf "$2"'
"""Deletes the directory of a browser when it reads a line. At the end of its input, it first kills the browser's process group."""

MODIFIERS = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}

KEYS = {  # name: (Windows virtual key code, text that the key types)
    "Backspace": (8, ""),
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "PageUp": (33, ""),
    "PageDown": (34, ""),
    "End": (35, ""),
    "Home": (36, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
    "Delete": (46, ""),
}


class ChromiumError(Exception):
    """The browser is missing, has ended, did not answer in time, or returned an error; or the page threw an exception."""


class Chromium:
    """A browser with a fresh profile, from `async with` to its end. It is a browser context in the process that all instances share."""

    downloads: Path
    """The directory for the pages' downloads; it is deleted at the end."""

    async def __aenter__(self) -> Chromium:
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._saved: asyncio.Queue[Path] = asyncio.Queue()
        self._stack = contextlib.AsyncExitStack()
        self.downloads = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="downloads-")))
        try:
            if _shared.process is None or not await self._attach(_shared.process):
                end_process()
                _shared.process = _Process()
                await self._attach_or_raise(_shared.process)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await self.call("Target.disposeBrowserContext", browserContextId=self._context)
        except (ChromiumError, ConnectionError):
            # The browser has crashed or hangs. The next test must begin with a working browser.
            end_process()
        await self._stack.aclose()

    async def _attach(self, process: _Process) -> bool:
        """Create a context in a running browser. Return False if the browser has ended meanwhile, or does not answer."""
        try:
            await self._attach_or_raise(process)
        except (aiohttp.ClientError, ChromiumError, ConnectionError, TimeoutError):
            return False
        return True

    async def _attach_or_raise(self, process: _Process) -> None:
        """Set up the HTTP session, the socket, the reader and the context. The stack tears them down in reverse order."""
        async with asyncio.timeout(2 * scaled(TIMEOUT)), contextlib.AsyncExitStack() as stack:
            url = await asyncio.wrap_future(process.url)
            http = await stack.enter_async_context(aiohttp.ClientSession())
            self._socket = await stack.enter_async_context(http.ws_connect(url, max_msg_size=0))
            reader = asyncio.create_task(self._read(), name="chromium answers")
            stack.push_async_callback(_end_task, reader)
            context = await self.call("Target.createBrowserContext", disposeOnDetach=True)
            self._context = context["browserContextId"]
            events = {"behavior": "allow", "downloadPath": str(self.downloads), "eventsEnabled": True}
            await self.call("Browser.setDownloadBehavior", browserContextId=self._context, **events)
            self._stack.push_async_exit(stack.pop_all())

    async def open(self, url: str) -> Page:
        """Open a URL in a new window, and return when the page has loaded."""
        target = await self.call("Target.createTarget", url="about:blank", newWindow=True, browserContextId=self._context)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"], target["targetId"])
        await page.prepare()
        await page.load(url)
        return page

    async def saved(self) -> Path:
        """Wait until a page's next download is complete, and return its file, which has the suggested name."""
        async with asyncio.timeout(scaled(TIMEOUT)):
            return await self._saved.get()

    async def call(self, method: str, /, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send one DevTools command, and return its result. Raises ChromiumError for an error, a timeout or a browser that has ended."""
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        try:
            await self._socket.send_str(json.dumps(message))
            async with asyncio.timeout(scaled(TIMEOUT)):
                return await answer
        except TimeoutError:
            raise ChromiumError(f"chromium did not answer {method} within {TIMEOUT:g} s") from None
        finally:
            del self._answers[number]

    async def _read(self) -> None:
        names: dict[str, str] = {}
        async for frame in self._socket:
            message = json.loads(frame.data)
            method, params = message.get("method"), message.get("params", {})
            if answer := self._answers.get(message.get("id")):
                if not answer.done():
                    _settle(answer, message)
            elif page := self._pages.get(message.get("sessionId")):
                page._event(method, params)
            elif method == "Browser.downloadWillBegin":
                names[params["guid"]] = params["suggestedFilename"]
            elif method == "Browser.downloadProgress" and params["state"] == "completed":
                self._saved.put_nowait(self.downloads / names.pop(params["guid"]))
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ChromiumError("chromium has ended"))


class Page:
    """One page. `errors` collects its exceptions, console errors and the browser's own errors about it."""

    def __init__(self, browser: Chromium, session: str, target: str) -> None:
        self.errors: list[str] = []
        self._browser = browser
        self._session = session
        self._target = target
        self._loaded = asyncio.Event()

    async def call(self, method: str, /, **params: Any) -> dict[str, Any]:
        """Send one DevTools command to this page, and return its result."""
        return await self._browser.call(method, self._session, **params)

    def _event(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Runtime.exceptionThrown":
                self.errors.append(_thrown(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                self.errors.append(" ".join(str(a.get("value", a.get("description", ""))) for a in params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error" and not params["entry"].get("url", "").endswith("/favicon.ico"):
                self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())

    async def prepare(self) -> None:
        """Enable the DevTools domains of the other methods; `Chromium.open` calls this."""
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Emulation.setFocusEmulationEnabled", enabled=True)  # a page in the background is not drawn

    async def close(self) -> None:
        """Close the window as a user does."""
        await self._browser.call("Target.closeTarget", targetId=self._target)

    async def before_scripts(self, js: str) -> None:
        """Run a script in every page that loads from now on, before the page's own scripts."""
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=js)

    async def load(self, url: str) -> None:
        """Navigate to a URL, and return when its load event has fired."""
        self._loaded.clear()
        result = await self.call("Page.navigate", url=url)
        if "errorText" in result:
            raise ChromiumError(f"{url}: {result['errorText']}")
        async with asyncio.timeout(scaled(TIMEOUT)):
            await self._loaded.wait()

    async def evaluate(self, js: str) -> Any:
        """Evaluate an expression in the page, await it if it is a promise, and return its value. Raises ChromiumError if it throws."""
        result = await self.call("Runtime.evaluate", expression=js, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in result:
            raise ChromiumError(_thrown(result["exceptionDetails"]))
        return result["result"].get("value")

    async def wait_for(self, condition: str, timeout: float = TIMEOUT) -> Any:  # noqa: ASYNC109
        """Wait until an expression is true in the page, and return its value (True for an object). An exception counts as false."""
        deadline = Deadline(timeout)
        while left := deadline.remaining():
            try:
                # The page itself polls, for a second at a time: no command outlives a navigation or its own deadline.
                if value := await self.evaluate(_WAIT % (int(1000 * min(left, 1)), condition)):
                    return value
            except ChromiumError as error:
                if not re.search("context was destroyed|navigated or closed|Cannot find", str(error)):
                    raise
        why = await self.evaluate(f"(async () => {{ try {{ return 'it is ' + await ({condition}) }} catch (e) {{ return String(e) }} }})()")
        raise ChromiumError(f"not true within {timeout:g} s: {condition} ({why}); the page's errors: {self.errors}")

    async def click(self, selector: str) -> None:
        """Click the middle of the first match with the mouse. Raises ChromiumError if it is missing, hidden or covered."""
        spot = await self.evaluate(_SPOT % json.dumps(selector))
        if isinstance(spot, str):
            raise ChromiumError(f"cannot click {selector}: {spot}")
        await self.evaluate(_RELEASED)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **spot)
        with contextlib.suppress(ChromiumError):  # the click has opened another page
            await self.evaluate("window.released.then(() => true)")

    async def wheel(self, selector: str, pixels: int) -> None:
        """Turn the mouse wheel over the middle of the first match; positive is downwards."""
        spot = await self.evaluate(_SPOT % json.dumps(selector))
        if isinstance(spot, str):
            raise ChromiumError(f"cannot scroll {selector}: {spot}")
        await self.call("Input.dispatchMouseEvent", type="mouseWheel", deltaX=0, deltaY=pixels, **spot)

    async def type(self, text: str) -> None:
        """Type text into the focused element, a key for each character; a newline is the Enter key."""
        for character in text:
            await self.press("Enter" if character == "\n" else character)

    async def press(self, key: str) -> None:
        """Press and release one key, with its name in KeyboardEvent.key after its modifiers: `a`, `Enter`, `Shift+Tab`, `Control+Enter`."""
        *held, name = key.split("+") if len(key) > 1 else [key]
        modifiers = sum(MODIFIERS[modifier] for modifier in held)
        code, text = KEYS.get(name) or (ord(name.upper()) if name.isalnum() and name.isascii() else 0, name)
        if modifiers & ~MODIFIERS["Shift"]:
            text = ""
        event = {"key": name, "code": name if name in KEYS else "", "windowsVirtualKeyCode": code, "modifiers": modifiers}
        await self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, unmodifiedText=text, **event)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    async def upload(self, selector: str, *files: Path) -> None:
        """Choose files in a file input."""
        found = await self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        await self.call("DOM.setFileInputFiles", objectId=found["result"]["objectId"], files=[str(file) for file in files])

    async def viewport(self, width: int, height: int, *, mobile: bool = False, dark: bool = False, scale: float = 1) -> None:
        """Give the page a size in CSS pixels, a colour scheme, and with `mobile` a phone's touch screen and layout."""
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile)
        await self.call("Emulation.setTouchEmulationEnabled", enabled=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self, path: Path | str) -> None:
        """Write a screenshot of the page as a PNG file."""
        shot = await self.call("Page.captureScreenshot", format="png")
        data = base64.b64decode(shot["data"])
        await asyncio.to_thread(Path(path).write_bytes, data)


_WAIT = """new Promise(resolve => {
    const until = performance.now() + %d;
    const look = async () => {
        let value;
        try { value = await (%s) } catch { value = false }
        if (value || performance.now() > until) resolve(typeof value === 'object' ? value !== null : value);
        else setTimeout(look, 15);
    };
    look();
})"""

# The next command runs after the click, because it follows the task in which the page handles the release and the click.
_RELEASED = "void (window.released = new Promise(done => addEventListener('pointerup', done, { once: true, capture: true })))"

_SPOT = """(() => {
    const element = document.querySelector(%s);
    if (!element) return 'there is no such element';
    element.scrollIntoView({block: 'nearest', inline: 'nearest', behavior: 'instant'});
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height) return 'it is not shown';
    const spot = {x: box.x + box.width / 2, y: box.y + box.height / 2};
    const top = document.elementFromPoint(spot.x, spot.y);
    return element.contains(top) ? spot : 'it is covered by ' + (top ? top.outerHTML.slice(0, 80) : 'the edge of the window');
})()"""


class _Process:
    """A browser process, the leader of a process group, with a new and empty profile."""

    def __init__(self) -> None:
        program = shutil.which("chromium")
        if program is None:
            raise ChromiumError("chromium is not installed; on Debian: apt-get install chromium")
        self.url: Future[str] = Future()
        """Its DevTools URL, or a ChromiumError if it ended before it was ready."""
        # The cancellation of a test that waits for the URL does not cancel the future.
        self.url.set_running_or_notify_cancel()
        home = tempfile.mkdtemp(prefix="chromium-")
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={home}/profile"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=os.environ | dict.fromkeys(("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), home),
        )
        self.pid = self._process.pid
        self._reader = Thread(target=self._read, name="chromium stderr", daemon=True)
        self._reader.start()
        words = ["sh", "-c", ENDER, "ender", str(self.pid), home]
        self._ender = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)

    def end(self) -> None:
        """End all processes of the group and delete their directory."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        # All processes of the group hold stderr, so its end means that the last has exited.
        self._reader.join()
        self._process.wait()
        self._ender.communicate(b"over\n")

    def _read(self) -> None:
        assert self._process.stderr is not None
        said: list[bytes] = []
        with self._process.stderr as stderr:
            for line in stderr:
                if self.url.done():
                    continue
                said.append(line)
                if found := re.search(rb"DevTools listening on (ws://\S+)", line):
                    self.url.set_result(found[1].decode())
        if not self.url.done():
            self.url.set_exception(ChromiumError(f"chromium ended before it was ready: {b''.join(said).decode(errors='replace')}"))


class _Shared:
    process: _Process | None = None


_shared = _Shared()


def pid() -> int:
    """The process id of the browser process."""
    assert _shared.process is not None, "no browser process was started, or it was ended"
    return _shared.process.pid


def end_process() -> None:
    """End the browser process, if there is one; the next `Chromium` starts another."""
    process, _shared.process = _shared.process, None
    if process is not None:
        process.end()


async def _end_task(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _settle(answer: asyncio.Future[dict[str, Any]], message: dict[str, Any]) -> None:
    if "error" in message:
        answer.set_exception(ChromiumError(message["error"]["message"]))
    else:
        answer.set_result(message["result"])


def _thrown(details: dict[str, Any]) -> str:
    exception = details.get("exception", {})
    return str(exception.get("description") or exception.get("value") or details["text"])
