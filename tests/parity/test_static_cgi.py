"""HTTP beside the WebSocket: static files, CGI and the console (cases 63-65)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.conftest import Starter
from tests.support.client import open_stream, read_response, request_bytes

SOURCE = r"""#!/bin/sh
# source
printf 'Status: 418 I am a teapot\r\nContent-Type: text/plain\r\nX-Method: %s\r\n\r\n' "$REQUEST_METHOD"
cat
"""


def script(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(SOURCE)
    path.chmod(0o755)
    return path


@pytest.fixture
def www(tmp_path: Path) -> Path:
    """A directory with /a.txt and /sub/index.html, and a file outside it."""
    folder = tmp_path / "www"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("file a")
    (folder / "sub" / "index.html").write_text("<p>the index")
    (tmp_path / "secret.txt").write_text("the secret")
    return folder


@pytest.mark.case(63)
def test_file_and_socket_share_a_path(bridge: Starter, www: Path) -> None:
    """A plain request gets the file; an upgrade at the same path gets the program."""
    server = bridge(f"--staticdir={www}", "cat")
    assert (server.get("/a.txt").status, server.get("/a.txt").body) == (200, b"file a")
    assert server.get("/sub/").body == b"<p>the index"
    assert server.get("/missing").status == 404
    with server.connect("/a.txt") as client:
        client.send_text("x")
        assert client.receive_text() == "x"


@pytest.mark.case(63)
def test_part_of_a_file(bridge: Starter, www: Path) -> None:
    """The server supports ranges and conditional requests."""
    server = bridge(f"--staticdir={www}")
    parts = {"bytes=0-0": (206, b"f"), "bytes=2-": (206, b"le a"), "bytes=-2": (206, b" a")}
    for asked, part in parts.items():
        answer = server.get("/a.txt", headers=[("Range", asked)])
        assert (answer.status, answer.body) == part
    assert server.get("/a.txt", headers=[("Range", "bytes=9-")]).status == 416
    modified = server.get("/a.txt").value("last-modified") or ""
    assert server.get("/a.txt", headers=[("If-Modified-Since", modified)]).status == 304


@pytest.mark.case(63)
def test_range_of_no_bytes(wsbridge: Starter, www: Path) -> None:
    """The server answers a range of the last 0 bytes with 416."""
    assert wsbridge(f"--staticdir={www}").get("/a.txt", headers=[("Range", "bytes=-0")]).status == 416


@pytest.mark.case(63)
def test_methods_of_a_file(wsbridge: Starter, www: Path) -> None:
    """The server answers methods other than GET, HEAD and OPTIONS on a file with 405 and Allow."""
    server = wsbridge(f"--staticdir={www}")
    answers = [server.request(method, "/a.txt") for method in ("POST", "PUT", "DELETE", "TRACE")]
    assert [(answer.status, answer.value("allow")) for answer in answers] == [(405, "GET, HEAD, OPTIONS")] * 4


@pytest.mark.case(63)
def test_upgrade_to_something_else(bridge: Starter, www: Path) -> None:
    """For a request to upgrade to another protocol, the server sends the file, as a server that does not know the protocol does."""
    headers = [("Upgrade", "h2c"), ("Connection", "Upgrade, HTTP2-Settings"), ("HTTP2-Settings", "")]
    answer = bridge(f"--staticdir={www}", "cat").get("/a.txt", headers=headers)
    assert (answer.status, answer.body) == (200, b"file a")


@pytest.mark.case(63)
@pytest.mark.parametrize("hosts", [[("Host", "h"), ("Host", "i")], [("Host", "a b")]], ids=["two", "malformed"])
def test_ambiguous_host(bridge: Starter, www: Path, hosts: list[tuple[str, str]]) -> None:
    """The server answers two Host headers, or a malformed one, with 400."""
    with open_stream(port=bridge(f"--staticdir={www}").port) as stream:
        stream.send(request_bytes("GET", "/a.txt", hosts))
        assert read_response(stream).status == 400


@pytest.mark.case(63)
def test_dots_cannot_leave_the_static_directory(bridge: Starter, www: Path) -> None:
    """No spelling of .. reaches a file outside the static directory."""
    server = bridge(f"--staticdir={www}")
    for dots in ("/..", "/%2e%2e", "/..%2f", "/sub/../..", "/sub/%2e%2e%2f%2e%2e%2f"):
        response = server.get(f"{dots}/secret.txt")
        assert response.status in {301, 400, 403, 404}, dots
        assert b"the secret" not in response.body


@pytest.mark.case(63)
def test_links_cannot_leave_the_static_directory(wsbridge: Starter, www: Path) -> None:
    """The server answers a symbolic link that leads outside with 404."""
    (www / "link.txt").symlink_to(www.parent / "secret.txt")
    (www / "folder").symlink_to(www.parent)
    server = wsbridge(f"--staticdir={www}")
    assert [server.get(path).status for path in ("/link.txt", "/folder/secret.txt", "/folder/")] == [404, 404, 404]


@pytest.mark.case(64)
def test_console_is_everywhere(bridge: Starter) -> None:
    """--devconsole answers any path with an HTML page; an upgrade still gets the program."""
    server = bridge("--devconsole", "cat")
    for path in ("/", "/any/path?x=1"):
        response = server.get(path)
        assert response.status == 200, path
        assert (response.value("Content-Type") or "").startswith("text/html")
        assert b"<script" in response.body.lower()
    with server.connect("/any/path") as client:
        client.send_text("x")
        assert client.receive_text() == "x"


@pytest.mark.case(64)
def test_console_is_read_only(wsbridge: Starter) -> None:
    """The console answers a method other than GET and HEAD with 405."""
    server = wsbridge("--devconsole", "cat")
    for method in ("POST", "PUT", "DELETE"):
        assert server.request(method, "/").status == 405


@pytest.mark.case(64)
def test_console_does_not_repeat_the_path(wsbridge: Starter) -> None:
    """The console's page does not include the path of the request."""
    server = wsbridge("--devconsole", "cat")
    for path in ('/"><script>alert(1)</script>', "/%22%3E%3Cscript%3Ealert(1)%3C/script%3E", "/';alert(1);'"):
        assert b"alert(1)" not in server.get(path).body, path


@pytest.mark.case(65)
def test_cgi_script_runs(bridge: Starter, tmp_path: Path) -> None:
    """A plain request for a file in --cgidir runs the file. It sets status and headers, and reads the body from stdin."""
    script(tmp_path / "tea.cgi")
    server = bridge(f"--cgidir={tmp_path}")
    response = server.request("POST", "/tea.cgi", body=b"two lumps")
    assert (response.status, response.value("X-Method"), response.body) == (418, "POST", b"two lumps")
    assert server.get("/missing.cgi").status == 404


@pytest.mark.case(65)
def test_line_of_a_cgi_head_that_is_no_header(bridge: Starter, tmp_path: Path) -> None:
    """The server skips a line of a script's header block that is not a header, and serves the rest."""
    script(tmp_path / "warns.cgi").write_text("#!/bin/sh\nprintf 'a warning\\nContent-Type: text/plain\\n<!--: spam\\n\\npage'\n")
    response = bridge(f"--cgidir={tmp_path}").get("/warns.cgi")
    assert (response.status, response.value("Content-Type"), response.body) == (200, "text/plain", b"page")


@pytest.mark.case(65)
def test_source_of_a_cgi_script_is_never_served(wsbridge: Starter, www: Path) -> None:
    """With --cgidir inside --staticdir, no path serves a script's source, executable or not."""
    script(www / "cgi" / "tea.cgi")
    script(www / "cgi" / "plain.cgi").chmod(0o644)
    (www / "link").symlink_to("cgi/tea.cgi")
    server = wsbridge(f"--staticdir={www}", f"--cgidir={www / 'cgi'}")
    for path in ("/cgi/tea.cgi", "/cgi//tea.cgi", "/cgi/./tea.cgi", "/cgi%2Ftea.cgi", "/cgi/tea.cgi/", "/cgi/plain.cgi", "/link"):
        assert b"# source" not in server.get(path).body, path
    assert server.get("/tea.cgi").status == 418
    assert server.get("/a.txt").body == b"file a"


@pytest.mark.case(65)
def test_source_of_a_session_script_is_never_served(wsbridge: Starter, www: Path) -> None:
    """With --dir and --staticdir at the same place, an upgrade runs a script, and the server never serves its source."""
    script(www / "tea.sh")
    server = wsbridge(f"--staticdir={www}", f"--dir={www}")
    assert b"# source" not in server.get("/tea.sh").body
    assert server.get("/a.txt").body == b"file a"
    with server.connect("/tea.sh") as client:
        assert client.receive_text() == "Status: 418 I am a teapot"
