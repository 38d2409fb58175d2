"""A page opened as a file, in a real browser: the Origin header that it sends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chromium import Chromium
from tests.support.site import Serve


@pytest.mark.parametrize(("origins", "expected"), [("file://", "message hello"), ("http://localhost", "closed 1006")])
async def test_page_of_a_file(serve: Serve, tmp_path: Path, origins: str, expected: str) -> None:
    """`--origin file://` admits a page opened as a file, for which a browser sends `Origin: null`; another list does not."""
    server = serve(f"--origin={origins}", "cat")
    page = tmp_path / "page.html"
    page.write_text(
        f"""<!doctype html><title>waiting</title><script>
        const socket = new WebSocket("ws://127.0.0.1:{server.port}/");
        socket.onopen = () => socket.send("hello");
        socket.onmessage = event => {{ document.title = "message " + event.data }};
        socket.onclose = event => {{ document.title = "closed " + event.code }};
        </script>"""
    )
    async with Chromium() as browser:
        shown = await browser.open(page.as_uri())
        await shown.wait_for("document.title !== 'waiting'")
        assert await shown.evaluate("document.title") == expected
    server.wait_for_log("origin:'null'")
