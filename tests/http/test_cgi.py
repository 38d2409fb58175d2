"""CGI scripts in --cgidir (RFC 3875): their environment and input, and the handling of their output."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.support.client import Response, Stream, open_stream, read_response, request_bytes
from tests.support.proc import exchange, resident
from tests.support.server import Server, memory_peak, mortal, wait_for_exit, wait_until, write_to_fifo
from tests.support.site import Serve, Site, shell_path, write_script

MIB = 1 << 20


def printing(head: str) -> str:
    return shell_path(f"printf '{head}'")


def variables(response: Response) -> dict[str, str]:
    return dict(line.split("=", 1) for line in response.body.decode().splitlines() if "=" in line)


# The environment and input of a script


def test_variables(served: Server, site: Site) -> None:
    """The variables of RFC 3875 describe the request to the script."""
    headers = [("Host", "example.com:81"), ("Content-Type", "text/x"), ("X-Thing", "1"), ("X-Thing", "2"), ("User-Agent", "test")]
    found = variables(served.request("POST", "/env?x=1+y&%20", headers=headers, body=b"12345"))
    expected = {
        "CONTENT_LENGTH": "5",
        "CONTENT_TYPE": "text/x",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "HTTP_HOST": "example.com:81",
        "HTTP_USER_AGENT": "test",
        "HTTP_X_THING": "1, 2",
        "PATH_INFO": "",
        "QUERY_STRING": "x=1+y&%20",
        "REMOTE_ADDR": "127.0.0.1",
        "REQUEST_METHOD": "POST",
        "REQUEST_URI": "/env?x=1+y&%20",
        "SCRIPT_FILENAME": str(site.public / "cgi" / "env"),
        "SCRIPT_NAME": "/env",
        "SERVER_NAME": "example.com",
        "SERVER_PORT": "81",
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["SERVER_SOFTWARE"].startswith("wsbridge/")
    assert found["PATH"] == os.environ["PATH"]
    assert [name for name in ("UNIQUE_ID", "PATH_TRANSLATED", "HOME", "HTTPS") if name in found] == []


@pytest.mark.parametrize(
    ("path", "name", "info"),
    [
        ("/env/extra/path", "/env", "/extra/path"),
        ("/env/", "/env", "/"),
        ("/env/a%20b%3Fc", "/env", "/a b?c"),
        ("/env/%C3%A9", "/env", "/é"),
    ],
)
def test_path_info(served: Server, site: Site, path: str, name: str, info: str) -> None:
    """The path after the script is PATH_INFO, decoded; PATH_TRANSLATED maps it to a file."""
    found = variables(served.get(path))
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == (name, info)
    assert found["PATH_TRANSLATED"] == f"{site.public}/cgi{info}"


def test_headers_that_a_script_does_not_get(served: Server) -> None:
    """A script receives neither HTTP_PROXY nor ambiguous header names; it receives credentials, and cookies joined by `; `."""
    headers = [("Proxy", "evil"), ("X_Real", "evil"), ("Authorization", "Basic eDp5"), ("Cookie", "a=1"), ("Cookie", "b=2")]
    found = variables(served.get("/env", headers=headers))
    assert [name for name in found if name in ("HTTP_PROXY", "HTTP_X_REAL")] == []
    assert found["HTTP_AUTHORIZATION"] == "Basic eDp5"
    assert found["HTTP_COOKIE"] == "a=1; b=2"


def test_directory_and_stdin(served: Server, site: Site) -> None:
    """A script runs in its own directory, with an empty stdin if the request has no body."""
    script = "echo Content-Type: text/plain; echo; pwd -P; wc -c"
    assert served.get(shell_path(script)).body.decode().split() == [str((site.public / "cgi").resolve()), "0"]


# The response of a script


def test_status_and_headers(served: Server) -> None:
    """A script sets the status and any header, also repeatedly; connection headers are the server's."""
    lines = ("Status: 418 Short and stout", "Content-Type: text/x", "Set-Cookie: a=1", "Set-Cookie: b=2", "Connection: upgrade", "X-Empty:")
    response = served.get(printing("\\n".join([*lines, "", "body"])))
    assert (response.status, response.reason, response.body) == (418, "Short and stout", b"body")
    assert response.value("Content-Type") == "text/x"
    assert response.values("Set-Cookie") == ["a=1", "b=2"]
    assert response.value("X-Empty") == ""
    assert response.value("Connection") != "upgrade"


@pytest.mark.parametrize("end", ["\\n\\n", "\\r\\n\\r\\n", "\\n\\r\\n", "\\r\\n\\n"])
def test_end_of_the_headers(served: Server, end: str) -> None:
    """An empty line, LF or CR LF, ends the header section; the rest is the body, byte by byte."""
    response = served.get(printing(f"Content-Type: text/x{end}\\r\\n\\nbody\\n"))
    assert (response.status, response.body) == (200, b"\r\n\nbody\n")


def test_client_redirect(served: Server) -> None:
    """A Location with a scheme redirects the client, with 302 or the script's own status."""
    response = served.get(printing("Location: http://example.com/x?y\\n\\n"))
    assert (response.status, response.value("Location")) == (302, "http://example.com/x?y")
    response = served.get(printing("Status: 303 Over there\\nLocation: http://example.com/\\n\\n"))
    assert (response.status, response.value("Location")) == (303, "http://example.com/")


def test_local_redirect(served: Server) -> None:
    """The server serves the target of a local redirect instead: a file, another script, or a 404."""
    assert served.get(printing("Location: /small.txt\\n\\n")).body == b"small\n"
    found = variables(served.request("POST", printing("Location: /env/info?query\\n\\n"), body=b"body"))
    assert (found["REQUEST_METHOD"], found["PATH_INFO"], found["QUERY_STRING"]) == ("GET", "/info", "query")
    assert "CONTENT_LENGTH" not in found
    assert served.get(printing("Location: /nothing\\n\\n")).status == 404


@pytest.mark.parametrize("target", ["/../outside/secret", "/%2e%2e/outside/secret", "/out", "/scripts/echo", "/cgi/env"])
def test_local_redirect_is_confined(served: Server, target: str) -> None:
    """A local redirect reaches nothing that a client could not request."""
    response = served.get(printing(f"Location: {target.replace('%', '%%')}\\n\\n"))
    assert b"outside of what" not in response.body
    assert b"#!" not in response.body
    assert response.status in (301, 404)


def test_endless_local_redirect(served: Server) -> None:
    """An endless local redirect results in 500."""
    redirect = "printf 'Location: %s\\n\\n' \"$REQUEST_URI\""
    assert served.get(shell_path(redirect)).status == 500


@pytest.mark.parametrize(
    "script",
    ["true", "exit 3", "echo no header", "echo; echo body", "echo Status: 200", "printf 'Status: 9999\\n\\n'", "printf 'A B: c\\n\\n'"],
)
def test_no_response(served: Server, script: str) -> None:
    """A script without output or without headers results in 500; the log gives the reason, and the client does not see the output."""
    before = served.log.count("sent no valid response")
    response = served.get(shell_path(script))
    if script != "echo Status: 200":
        assert response.status == 500
        wait_until(lambda: served.log.count("sent no valid response") > before, "the reason in the log")
    assert b"no header" not in response.body


def test_script_that_cannot_be_started(serve: Serve, tmp_path: Path) -> None:
    """A script without execute permission or without an interpreter results in 500, and its source is not sent."""
    write_script(tmp_path / "plain", "echo no", mode=0o644)
    (tmp_path / "broken").write_text("#!/no/such/interpreter\n")
    (tmp_path / "broken").chmod(0o755)
    (tmp_path / "none").write_text("no first line\n")
    (tmp_path / "none").chmod(0o755)
    server = serve(f"--cgidir={tmp_path}", f"--staticdir={tmp_path}")
    for name in ("plain", "broken", "none"):
        response = server.get(f"/{name}")
        assert response.status == 500
        assert b"echo" not in response.body
        assert b"interpreter" not in response.body
    server.wait_for_log(r"\| ERROR .*Could not launch process.*broken")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_responses_without_a_body(served: Server, status: str) -> None:
    """A response that must not have a body has none, and the connection stays usable."""
    with open_stream(port=served.port) as stream:
        stream.send(request_bytes("GET", printing(f"Status: {status}\\nX-Y: z\\n\\nbody"), [("Host", "h")]))
        assert read_response(stream).status == int(status[:3])
        assert again(stream)


def test_head(served: Server) -> None:
    """HEAD returns the headers without a body; the script receives the method."""
    with open_stream(port=served.port) as stream:
        stream.send(request_bytes("HEAD", shell_path('printf "X-Method: $REQUEST_METHOD\\n\\n"; seq 1000'), [("Host", "h")]))
        response = read_response(stream, method="HEAD")
        assert (response.status, response.value("X-Method")) == (200, "HEAD")
        assert again(stream)


def test_length_of_the_script(served: Server) -> None:
    """The server uses the Content-Length of a script; without one, it sends chunks."""
    response = served.get(printing("Content-Type: text/x\\nContent-Length: 4\\n\\nbody"))
    assert (response.value("Content-Length"), response.body) == ("4", b"body")
    with open_stream(port=served.port) as stream:
        stream.send(request_bytes("GET", printing("Content-Type: text/x\\n\\nbody"), [("Host", "h")]))
        assert read_response(stream).body == b"body"
        assert again(stream)


def again(stream: Stream) -> bool:
    """Return whether the connection serves another request."""
    stream.send(request_bytes("GET", "/small.txt", [("Host", "h")]))
    return read_response(stream).body == b"small\n"


def test_failure_after_the_response(served: Server) -> None:
    """The response of a script is complete, whatever its exit status is."""
    assert served.get(shell_path("printf 'Content-Type: a/b\\n\\n'; seq 10000; exit 3")).body.split()[-1] == b"10000"


# Streaming


def test_large_upload(served: Server) -> None:
    """The server streams a large body to its script without storing it."""
    body = b"x" * (30 * MIB)
    before = resident(served.pid)
    response = exchange(served, "POST", "/count", body)
    assert response.body.split() == [str(len(body)).encode()]
    assert resident(served.pid) - before < 15 * MIB


def test_large_answer(served: Server) -> None:
    """The server streams a large response without storing it: a client that does not read applies backpressure to the script."""
    path = shell_path("printf 'Content-Type: a/b\\n\\n'; head -c 50000000 /dev/zero")
    with open_stream(port=served.port, receive_buffer=1 << 16) as stream:
        stream.send(request_bytes("GET", path, [("Host", "h"), ("Connection", "close")]))
        stream.read_until(b"\r\n\r\n")
        assert memory_peak(served.pid) < 160 * MIB
        whole = stream.read_to_end()
    assert whole.count(b"\0") == 50_000_000


def test_body_in_both_directions(served: Server) -> None:
    """Body and response flow at the same time: a script that answers while it reads never blocks."""
    body = os.urandom(1 << 20) * 8
    assert exchange(served, "POST", "/echo", body).body == body


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_response_is_streamed(served: Server, fifo: Path) -> None:
    """The client receives the output before the script ends: the header section, and each piece."""
    script = f"printf 'Content-Type: a/b\\n\\none\\n'; read word <{fifo}; echo $word"
    with open_stream(port=served.port) as stream:
        stream.send(request_bytes("GET", shell_path(script), [("Host", "h")]))
        assert stream.read_until(b"one\n").startswith(b"HTTP/1.1 200")
        write_to_fifo(fifo, "two")
        stream.read_until(b"two\n")
        stream.read_until(b"0\r\n\r\n")
        assert again(stream)


def test_body_is_streamed(served: Server) -> None:
    """A script can read the first part of a body before the client sends the rest."""
    script = "read line; printf 'Content-Type: a/b\\n\\nheard %s\\n' $line; cat"
    with open_stream(port=served.port) as stream:
        stream.send(request_bytes("POST", shell_path(script), [("Host", "h"), ("Content-Length", "8"), ("Connection", "close")], b"one\n"))
        stream.read_until(b"heard one\n")
        stream.send(b"two\n")
        assert b"two\n" in stream.read_to_end()


def test_script_that_reads_nothing(served: Server) -> None:
    """The server does not wait for a script to read its body."""
    body = b"x" * (8 * MIB)
    assert exchange(served, "POST", printing("Content-Type: a/b\\n\\nenough"), body).body == b"enough"


def test_client_that_expects_100_continue(served: Server) -> None:
    """A client that expects 100 Continue receives it before it sends its body (RFC 9110, section 10.1.1)."""
    headers = [("Host", "h"), ("Content-Length", "4"), ("Expect", "100-continue"), ("Connection", "close")]
    with open_stream(port=served.port) as stream:
        stream.send(request_bytes("POST", "/count", headers))
        assert stream.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        stream.send(b"body")
        assert read_response(stream).body.split() == [b"4"]


def test_stderr_is_logged(served: Server) -> None:
    """The server logs stderr of a script line by line, and never sends it."""
    response = served.get(shell_path("echo a complaint >&2; printf 'Content-Type: a/b\\n\\nbody'; echo another >&2"))
    assert response.body == b"body"
    served.wait_for_log(r"\| ERROR  \| stderr .*\| a complaint$")
    served.wait_for_log(r"\| ERROR  \| stderr .*\| another$")


# The end of a script


GOINGS = [
    ("before the head", "drop"),
    ("before the head", "reset"),
    ("in the middle", "drop"),
    ("while it floods", "reset"),
    ("while it reads", "drop"),
]


@pytest.mark.parametrize(("when", "way"), GOINGS)
def test_client_that_disconnects(served: Server, tmp_path: Path, when: str, way: str) -> None:
    """When a client disconnects, the ladder ends its script with all child processes."""
    note = tmp_path / "pids"
    pids = f"sleep 1000 & echo $$ $! >{note}.new; mv {note}.new {note}; "
    head = "printf 'Content-Type: a/b\\n\\nbegun'; "
    script, method, body = {
        "before the head": (pids + "wait", "GET", b""),
        "in the middle": (pids + head + "wait", "GET", b""),
        "while it floods": (pids + head + "exec yes", "GET", b""),
        "while it reads": (pids + head + "cat >/dev/null; wait", "POST", b"the beginning of a body"),
    }[when]
    headers = [("Host", "h"), *([("Content-Length", "1000")] if body else [])]
    with open_stream(port=served.port) as stream:
        stream.send(request_bytes(method, shell_path(script), headers, body))
        wait_until(note.exists, "the script's note")
        found = [int(word) for word in note.read_text().split()]
        with mortal(*found):
            if "head" not in when:
                stream.read_until(b"begun")
            stream.close() if way == "drop" else stream.reset()
            for pid in found:
                wait_for_exit(pid)


def test_end_of_the_response_ends_the_group(served: Server, tmp_path: Path) -> None:
    """When the response is complete, the server ends the rest of the script's process group."""
    script = f"sleep 1000 >&2 & echo $! >{tmp_path}/pid; printf 'Content-Type: a/b\\n\\nbody'"
    assert served.get(shell_path(script)).body == b"body"
    pid = int((tmp_path / "pid").read_text())
    with mortal(pid):
        wait_for_exit(pid)


def test_closed_stdout_ends_the_response(served: Server, tmp_path: Path) -> None:
    """A script that closes its stdout has finished its response; its client does not wait."""
    script = f"printf 'Content-Type: a/b\\n\\nbody'; exec >&-; echo $$ >{tmp_path}/pid; sleep 1000"
    assert served.get(shell_path(script)).body == b"body"
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the script's note")
    pid = int((tmp_path / "pid").read_text())
    with mortal(pid):
        wait_for_exit(pid)


def test_slots_are_shared(serve: Serve, site: Site, fifo: Path) -> None:
    """Scripts and sessions share --maxforks: one too many receives 429, and the slot is free after the script has ended."""
    server = serve("--maxforks=1", *site.flags)
    with server.connect("/echo") as client:
        assert server.get("/env").status == 429
        client.send_close(1000)
        client.receive_close()
        client.wait_for_end()
    wait_until(lambda: server.get("/env").status == 200, "a free slot")
    with open_stream(port=server.port) as stream:
        stream.send(request_bytes("GET", shell_path(f"echo Content-Type: a/b; echo; read word <{fifo}"), [("Host", "h")]))
        wait_until(lambda: len(server.children()) == 2, "the script")
        assert server.refusal("/echo").status == 429
        write_to_fifo(fifo, "go")
        assert read_response(stream).status == 200
    wait_until(lambda: server.get("/env").status == 200, "a free slot")


def test_many_at_once(served: Server) -> None:
    """Many scripts at the same time leave no child process and no descriptor behind."""
    wait_until(lambda: len(served.children()) == 1, "the end of earlier scripts")
    before = served.descriptors()
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(served.get("/env").body)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(b"GATEWAY_INTERFACE=CGI/1.1" in answer for answer in answers)
    assert len(answers) == 20
    wait_until(lambda: len(served.children()) == 1, "the end of the scripts")
    wait_until(lambda: served.descriptors() <= before, "the descriptors to be as many as before")
