"""Files of --staticdir: the served files, their responses, and the hidden files."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin

import pytest
from aiohttp import web

from tests.rules.requests import make_request
from tests.support.client import Response, Stream, open_stream, request_bytes
from tests.support.proc import descriptors, pause, turns, until
from tests.support.server import Server, wait_until
from tests.support.site import BIG, FILES, SECRET, Serve, Site
from wsbridge.http.hiddenfiles import HiddenFiles, PrivateFiles
from wsbridge.http.responsetimeout import ResponseTimeout
from wsbridge.http.static import LISTED, Opened, OpenFile, StaticFiles
from wsbridge.metrics import Metrics


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/small.txt", "text/plain; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/code.js", "text/javascript; charset=utf-8"),
        ("/image.png", "image/png"),
        ("/thing.unknown", "text/plain; charset=utf-8"),
        ("/page/", "text/html; charset=utf-8"),
        ("/inside", "text/plain; charset=utf-8"),
    ],
)
def test_file(served: Server, path: str, kind: str) -> None:
    """A file has its length and its type; a directory is served as its index.html; a link within the directory is followed."""
    response = served.get(path)
    content = FILES[{"/page/": "page/index.html", "/inside": "small.txt"}.get(path, path[1:])]
    assert (response.status, response.body) == (200, content)
    assert response.value("Content-Length") == str(len(content))
    assert response.value("Content-Type") == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.gz", "application/gzip"),
        ("x.tar.gz", "application/gzip"),
        ("x.TGZ", "application/gzip"),
        ("x.txt.bz2", "application/x-bzip2"),
        ("x.tar.xz", "application/x-xz"),
        ("x.zst", "application/zstd"),
        ("x.js.br", "application/octet-stream"),
    ],
)
def test_compressed_file(served: Server, site: Site, name: str, kind: str) -> None:
    """A compressed file has its own type and no Content-Encoding, so that no client decompresses it."""
    (site.public / name).write_bytes(b"\x1f\x8b")
    response = served.get(f"/{name}")
    assert (response.value("Content-Type"), response.value("Content-Encoding"), response.body) == (kind, None, b"\x1f\x8b")


TEXT, BYTES = "text/plain; charset=utf-8", "application/octet-stream"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", TEXT),
        (b"\tone\r\n\x0ctwo \x1b[1m", TEXT),
        ("é".encode() * 300, TEXT),
        (b"x" + "é".encode() * 300, TEXT),
        (b"x" * 512 + b"\0", TEXT),
        (b"<p>hi", TEXT),
        (b"a\0b", BYTES),
        (b"a\x08", BYTES),
        (b"caf\xe9", BYTES),
        (b"\xc3", BYTES),
    ],
)
def test_file_of_unknown_type(served: Server, site: Site, content: bytes, kind: str) -> None:
    """A file of unknown type is text if its first 512 bytes are text, and otherwise binary."""
    (site.public / "NAMELESS").write_bytes(content)
    response = served.get("/NAMELESS")
    assert (response.value("Content-Type"), response.body) == (kind, content)


@pytest.mark.parametrize(("name", "kind"), [("latest.html", "text/html; charset=utf-8"), ("latest", TEXT)])
def test_type_of_a_symbolic_link(served: Server, site: Site, name: str, kind: str) -> None:
    """The type is that of the requested name, not of the target of a link."""
    (site.public / "data.css").write_bytes(b"p {}\n")
    (site.public / name).unlink(missing_ok=True)
    (site.public / name).symlink_to("data.css")
    assert served.get(f"/{name}").value("Content-Type") == kind


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/page", "/page/"),
        ("/page?a=b&c", "/page/?a=b&c"),
        ("/page/index.html", "/page/"),
        ("/page/index.html?x", "/page/?x"),
        ("/small.txt/", "/small.txt"),
        ("/list/a%20&%20%3Cb%3E.txt/", "/list/a%20&%20%3Cb%3E.txt"),
    ],
)
def test_one_address_for_each_file(served: Server, path: str, location: str) -> None:
    """A directory without its slash, a file with a slash and an explicit index.html redirect with 301 and keep the query."""
    response = served.get(path)
    assert response.status == 301
    assert unquote(urljoin(path, response.value("Location"))) == unquote(location)


def test_listing(served: Server) -> None:
    """A directory without index.html is listed: directories with a slash, then files by name, escaped and without dotfiles."""
    response = served.get("/list/")
    assert response.status == 200
    page = response.body.decode()
    links = re.findall(r'<a(?: class="folder")? href="([^"]*)"><bdi>([^<]*)</bdi></a>', page)
    assert [text for _, text in links] == ["sub/", "a &amp; &lt;b&gt;.txt", "b.txt"]
    assert re.findall(r"<td>(\d+ B)</td><td>20\d\d-\d\d-\d\d \d\d:\d\d</td>", page) == ["2 B", "2 B"]
    assert '<a class="up" href="../">' in page
    for href, _ in links:
        assert served.get(f"/list/{href.removeprefix('./')}").status == 200


def test_listing_shows_no_program(served: Server) -> None:
    """Hidden files, programs and links to them are not listed either; an empty listing says so."""
    page = served.get("/").body.decode()
    assert '"./small.txt"' in page
    assert '"./program"' not in page
    assert '"./cgi-program"' not in page
    assert "../" not in page
    assert re.findall(r'href="./([^"]*)"', served.get("/scripts/").body.decode()) == ["page.html"]
    assert "no files" in served.get("/cgi/").body.decode()


def static_files(root: Path) -> StaticFiles:
    return StaticFiles(str(root), hidden=HiddenFiles(PrivateFiles()), timeout=ResponseTimeout(0, Metrics()))


async def test_long_listing(tmp_path: Path) -> None:
    """A listing shows the first LISTED entries in order, and the number of the others."""
    for number in range(LISTED + 5):
        (tmp_path / f"{number:06}").touch()
    page = await static_files(tmp_path).find(make_request())
    assert isinstance(page, web.Response)
    assert page.text is not None
    listed = re.findall(r'href="\./(\d+)"', page.text)
    assert listed == [f"{number:06}" for number in range(LISTED)]
    assert "5 more are not shown" in page.text


@pytest.mark.parametrize("path", ["/", "/a.txt", "/nothing"])
async def test_slow_disk(tmp_path: Path, path: str) -> None:
    """While the disk does not respond, the event loop continues, and the response arrives after the disk's."""
    (tmp_path / "a.txt").write_bytes(b"a")
    loop, answer = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    loop.run_in_executor(None, answer.wait, 60)
    finding = asyncio.create_task(static_files(tmp_path).find(make_request(path=path)))
    await turns()
    assert not finding.done()
    answer.set()
    found = await finding
    assert (found is None) == (path == "/nothing")


async def test_listings_take_turns(tmp_path: Path) -> None:
    """The server lists one directory at a time, because a listing occupies the interpreter."""
    files, busy, most = static_files(tmp_path), 0, 0
    make = files._listing

    def watched(*arguments: Any) -> web.Response:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        time.sleep(0.01)
        busy -= 1
        return make(*arguments)

    files._listing = watched  # type: ignore[method-assign]
    await asyncio.gather(*(files.find(make_request()) for _ in range(8)))
    assert most == 1


async def test_client_that_leaves_during_a_lookup(tmp_path: Path) -> None:
    """A file that opens after its client has disconnected is closed."""
    (tmp_path / "a.txt").write_bytes(b"a")
    loop, answer = asyncio.get_running_loop(), threading.Event()
    executor = ThreadPoolExecutor(1)
    loop.set_default_executor(executor)
    loop.run_in_executor(None, answer.wait, 60)
    before = descriptors()
    finding = asyncio.create_task(static_files(tmp_path).find(make_request(path="/a.txt")))
    await turns()
    finding.cancel()
    await asyncio.wait((finding,))
    answer.set()
    await loop.run_in_executor(None, int)
    await until(lambda: descriptors() == before, "the file to be closed")


def test_listing_of_an_unusual_name(served: Server, site: Site) -> None:
    """A listing contains a name that looks like a scheme or a query, or is not text, with a correct link."""
    folder = site.public / "strange"
    folder.mkdir(exist_ok=True)
    names = [b"javascript:alert(1)", b"a?b#c", b"\xff\xfe.txt", b"%41", b'"><script>']
    for name in names:
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(name)
    page = served.get("/strange/").body.decode()
    assert "<script>" not in page
    links = re.findall(r'<a href="([^"]*)">', page)
    bodies = [served.get(f"/strange/{href.removeprefix('./')}").body for href in links]
    assert sorted(bodies) == sorted(names)
    assert not any(href.startswith("javascript:") for href in links)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("0-0", 0, 1), ("0-4", 0, 5), ("5-", 5, len(BIG)), ("-5", len(BIG) - 5, len(BIG)), ("2999990-99999999", 2_999_990, len(BIG))],
)
def test_range(served: Server, asked: str, start: int, end: int) -> None:
    """A range receives 206, with its position and the bytes."""
    response = served.get("/big.bin", headers=[("Range", f"bytes={asked}")])
    assert (response.status, response.value("Content-Range")) == (206, f"bytes {start}-{end - 1}/{len(BIG)}")
    assert response.body == BIG[start:end]
    assert response.value("Content-Length") == str(end - start)


def test_range_outside(served: Server) -> None:
    """A range outside the file receives 416 with the length of the file."""
    response = served.get("/small.txt", headers=[("Range", "bytes=6-")])
    assert (response.status, response.value("Content-Range")) == (416, "bytes */6")


@pytest.mark.parametrize("asked", ["lines=1-2", "bytes=0-0,2-3"])
def test_range_of_another_kind(served: Server, asked: str) -> None:
    """The server ignores a range in another unit, and answers several ranges with the file or the parts (RFC 9110, section 14.2)."""
    response = served.get("/small.txt", headers=[("Range", asked)])
    assert response.status in (200, 206)
    assert response.status == 206 or response.body == b"small\n"


def test_head(served: Server) -> None:
    """HEAD returns the headers of GET without a body."""
    got = dict(served.get("/big.bin").headers)
    headed = served.request("HEAD", "/big.bin")
    assert (headed.status, headed.body) == (200, b"")
    assert {**dict(headed.headers), "Date": ""} == {**got, "Date": ""}


@pytest.mark.parametrize("asked", ["-0", "-00"])
def test_range_without_bytes(served: Server, asked: str) -> None:
    """The last 0 bytes are not a satisfiable range (RFC 9110, section 14.1.2)."""
    response = served.get("/small.txt", headers=[("Range", f"bytes={asked}")])
    assert (response.status, response.value("Content-Range")) == (416, "bytes */6")


@pytest.mark.parametrize("mtime_ns", [1_000_000_000 * 10**9, 1_000_000_000 * 10**9 + 1000, 1_000_000_000 * 10**9 + 999_999_999])
def test_last_modified(serve: Serve, tmp_path: Path, mtime_ns: int) -> None:
    """Last-Modified is a whole second not after the change; a condition with it holds, and with a second less it does not."""
    (tmp_path / "a").write_text("hello\n")
    os.utime(tmp_path / "a", ns=(mtime_ns, mtime_ns))
    server = serve(f"--staticdir={tmp_path}")
    now, before, after = (f"Sun, 09 Sep 2001 01:46:{second} GMT" for second in (40, 39, 41))

    def status(name: str, date: str) -> int:
        return server.get("/a", headers=[(name, date), ("Range", "bytes=0-1" if name == "If-Range" else None)]).status

    assert server.get("/a").value("Last-Modified") == now
    assert [status("If-Modified-Since", date) for date in (before, now, after)] == [200, 304, 304]
    assert [status("If-Unmodified-Since", date) for date in (before, now, after)] == [412, 200, 200]
    assert [status("If-Range", date) for date in (before, now, after)] == [200, 206, 200]


def test_condition(served: Server, site: Site) -> None:
    """A file that is unmodified, or whose entity tag matches, receives 304; otherwise it is sent."""
    first = served.get("/small.txt")
    modified, tag = first.value("Last-Modified"), first.value("ETag")
    assert modified
    assert tag
    assert abs(parsedate_to_datetime(modified).timestamp() - (site.public / "small.txt").stat().st_mtime) < 1

    def status(name: str, value: str) -> tuple[int, bytes]:
        response = served.get("/small.txt", headers=[(name, value)])
        return response.status, response.body

    assert status("If-Modified-Since", modified) == (304, b"")
    assert status("If-None-Match", tag) == (304, b"")
    assert status("If-None-Match", f'"other", {tag}') == (304, b"")
    assert status("If-Modified-Since", "Mon, 01 Jan 2001 00:00:00 GMT") == (200, b"small\n")
    assert status("If-Modified-Since", "no date") == (200, b"small\n")
    assert status("If-None-Match", '"other"') == (200, b"small\n")


def test_condition_of_a_range(served: Server) -> None:
    """With If-Range, the range is sent while the file is unchanged, and otherwise the whole file (RFC 9110, section 13.1.5)."""
    first = served.get("/small.txt")
    modified, tag = first.value("Last-Modified"), first.value("ETag")

    def ranged(condition: str | None) -> tuple[int, bytes]:
        response = served.get("/small.txt", headers=[("Range", "bytes=0-1"), ("If-Range", condition)])
        return response.status, response.body

    assert ranged(modified) == ranged(tag) == (206, b"sm")
    dates = ("Mon, 01 Jan 2001 00:00:00 GMT", "Mon, 01 Jan 2035 00:00:00 GMT")
    for other in (*dates, '"other"', f"W/{tag}", f'{tag}, "other"', "no date", ""):
        assert ranged(other) == (200, b"small\n"), other


@pytest.fixture
def large(serve: Serve, transports: dict[str, str], tmp_path: Path) -> Server:
    """Serves a file larger than all buffers, with a short timeout."""
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 50_000_000)
    return serve(f"--staticdir={tmp_path}", "--send-timeout=1", env=transports)


def test_file_is_sent_by_our_method() -> None:
    """aiohttp sends files with the method that we override: if it uses another one, `OpenFile` has to override that."""
    assert "_sendfile" in vars(web.FileResponse)
    assert "_sendfile" in vars(OpenFile)


def begun(server: Server) -> Stream:
    """Start a download with a client that reads little."""
    stream = open_stream(port=server.port, receive_buffer=4096)
    stream.send(request_bytes("GET", "/large", [("Host", "h")]))
    assert b"\r\nContent-Length: 50000000\r\n" in stream.read_until(b"\r\n\r\n")
    return stream


def test_file_that_shrinks(large: Server, tmp_path: Path) -> None:
    """If a file shrinks during its transfer, the connection ends, so that no other bytes count as its content."""
    with begun(large) as stream:
        os.truncate(tmp_path / "large", 100_000)
        stream.send(request_bytes("GET", "/large", [("Host", "h")]))
        assert b"HTTP/1.1" not in stream.read_to_end()
    large.wait_for_log("response truncated: the file became shorter")


def test_client_that_reads_nothing(large: Server) -> None:
    """A client that accepts no data of a file for --send-timeout is disconnected and counted."""
    with begun(large):
        large.wait_for_log("closing: the client accepted no data for 1 s")
        large.stop()
    assert "clients_timed_out=1" in large.log


def test_slow_client(large: Server) -> None:
    """A client that reads a file slowly stays connected, however much data remains."""
    with begun(large) as stream:
        for _ in range(25):
            stream.read_exactly(8192)
            pause(0.1)
        assert not re.search("accepted no data|truncated", large.log)


def test_changed_file(served: Server, site: Site) -> None:
    """A changed file is served in its current state."""
    path = site.public / "changing"
    path.write_bytes(b"before")
    assert served.get("/changing").body == b"before"
    path.write_bytes(b"and afterwards")
    assert served.get("/changing").body == b"and afterwards"
    path.unlink()
    assert served.get("/changing").status == 404


# Hidden files

DOTS = (
    "/../outside/secret",
    "/%2e%2e/outside/secret",
    "/..%2foutside%2fsecret",
    "/%2e%2e%2foutside%2fsecret",
    "/.%2e/outside/secret",
    "/page/../../outside/secret",
    "/page/..%2f..%2foutside/secret",
    "/page/%2e%2e%2f%2e%2e/outside/secret",
    "/....//outside/secret",
    "/..;/outside/secret",
    "/..%5coutside%5csecret",
    "/..\\outside\\secret",
    "/%252e%252e/outside/secret",
    "/%c0%ae%c0%ae/outside/secret",
    "/%c0%ae%c0%ae%c0%afoutside/secret",
    "//outside/secret",
    "/./../outside/secret",
    "/small.txt/../../outside/secret",
    "/../public/../outside/secret",
    "http://h/../outside/secret",
    "http://h/%2e%2e/outside/secret",
    "/out",
    "/out/",
    "/outdir",
    "/outdir/",
    "/outdir/secret",
    "/list/../outdir/secret",
    "/proc/self/root/etc/passwd",
)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_nothing_outside(served: Server, site: Site, method: str) -> None:
    """No spelling of a path and no symbolic link reaches a file outside the directory, not even through a redirect."""
    reached = {}
    for target in (*DOTS, f"/{site.root}/outside/secret", f"/%2f{site.root}/outside/secret"):
        response = followed(served, method, target)
        length = response.value("Content-Length")
        if SECRET in response.body or response.status == 200 or (method == "HEAD" and length == str(len(FILES["../outside/secret"]))):
            reached[target] = response.status
    assert reached == {}


def followed(server: Server, method: str, target: str) -> Response:
    """Send a request, and follow its redirect."""
    response = server.request(method, target)
    for _ in range(3):
        location = response.value("Location")
        if response.status != 301 or location is None:
            break
        here = target.partition("?")[0].rpartition("/")[0]
        target = location if location.startswith("/") else f"{here}/{location}"
        response = server.request(method, target)
    return response


@pytest.mark.parametrize(
    "path",
    [
        "/scripts/echo",
        "/scripts/echo/",
        "/scripts/./echo",
        "/scripts%2fecho",
        "/program",
        "/cgi/env",
        "/cgi/library",
        "/cgi-program",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_no_source_of_a_program(served: Server, path: str, method: str) -> None:
    """The source of a program is never served under any name: neither a script of --dir nor a file in --cgidir."""
    response = followed(served, method, path)
    assert b"#!" not in response.body
    assert b"the source" not in response.body
    assert response.status in ((403, 404, 405) if method == "POST" else (403, 404))
    ranged = served.request(method, path, headers=[("Range", "bytes=0-1")])
    assert ranged.status != 206


def test_page_among_the_programs(served: Server) -> None:
    """A page beside the programs of --dir is served, and listed with them."""
    assert served.get("/scripts/page.html").body == FILES["scripts/page.html"]


@pytest.mark.parametrize("path", ["/fifo", "/fifo/", "/nothing", "/small.txt/more", "/" + "x" * 5000, "/" + "x/" * 2000, "/%ff%fe"])
def test_special_files(served: Server, path: str) -> None:
    """A missing path, or one that is neither a file nor a directory, receives 404 at once."""
    assert followed(served, "GET", path).status == 404


@contextmanager
def flipping(name: Path, *targets: str) -> Iterator[None]:
    """Alternate the meaning of a name as fast as possible, until the block ends."""
    over = threading.Event()
    spare = name.with_name(name.name + ".spare")

    def flip() -> None:
        while not over.is_set():
            for target in targets:
                spare.symlink_to(target)
                spare.rename(name)

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        name.unlink()


def test_nothing_outside_by_a_race(served: Server, site: Site) -> None:
    """A change of names during a lookup never reaches a file outside the directory."""
    with flipping(site.public / "flip", "small.txt", "../outside/secret"), flipping(site.public / "flipdir", "list", "../outside"):
        seen = {served.get(path).body for _ in range(150) for path in ("/flip", "/flipdir/secret")}
    assert not any(SECRET in body for body in seen)
    assert b"small\n" in seen


def test_response_that_is_never_sent(tmp_path: Path) -> None:
    """If a response fails before its first byte, its file is closed."""
    (tmp_path / "file").write_bytes(b"x")
    opened = Opened(str(tmp_path / "file"))
    page, fd = OpenFile(opened, "file", timeout=ResponseTimeout(0, Metrics()), fields={}), opened.fd
    assert os.path.samefile(f"/proc/self/fd/{fd}", tmp_path / "file")
    del opened, page
    assert not os.path.exists(f"/proc/self/fd/{fd}")


def test_no_descriptor_is_left(served: Server) -> None:
    """No request and no client leaves a descriptor open."""
    served.get("/small.txt")
    before = served.descriptors()
    modified = served.get("/small.txt").value("Last-Modified")
    for headers in ([], [("If-Modified-Since", modified)], [("Range", "bytes=9-")], [("Range", "bytes=0-1")]):
        for path in ("/small.txt", "/list/", "/list", "/page/", "/out", "/fifo", "/scripts/echo", "/nothing"):
            served.get(path, headers=headers)
            served.request("HEAD", path, headers=headers)
    for _ in range(20):
        with open_stream(port=served.port, receive_buffer=4096) as stream:
            stream.send(request_bytes("GET", "/big.bin", [("Host", "h")]) * 3)
            stream.reset()
    wait_until(lambda: served.descriptors() <= before, f"the descriptors to be as many as before: {before}")
