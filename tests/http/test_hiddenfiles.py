"""Files that --staticdir never serves, under any name or link: secrets, programs and dotfiles."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.server import Server
from tests.support.site import Certificates, Serve, assert_sound
from wsbridge.http.hiddenfiles import HiddenFiles, PrivateFiles, files_of_command, keys_in_url

KEY = b"-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("path", "is_hidden"),
    [
        ("/", False),
        ("/a", False),
        ("/a.b/c.", False),
        ("/.env", True),
        ("/.git/config", True),
        ("/a/.b", True),
        ("/a/.b/", True),
        ("/.well-known", False),
        ("/.well-known/", False),
        ("/.well-known/acme-challenge/x", False),
        ("/.well-known/.secret", True),
        ("/.well-knownx", True),
        ("/.well-known.txt", True),
        ("/a/.well-known/x", True),
        ("/...", True),
    ],
)
def test_dotfile(path: str, is_hidden: bool) -> None:
    """A path with a component that begins with a dot is hidden, except /.well-known/; with `dotfiles`, none is hidden."""
    assert HiddenFiles(PrivateFiles()).hides(path) == is_hidden
    assert not HiddenFiles(PrivateFiles(), dotfiles=True).hides(path)


def test_replaced_file(tmp_path: Path) -> None:
    """A file is hidden under its name and under every link to the current file of that name."""
    name, link, old = tmp_path / "key", tmp_path / "link", tmp_path / "old"
    name.write_bytes(KEY)
    hidden = PrivateFiles()
    hidden.hide([str(name)])
    os.link(name, old)
    (tmp_path / "new").write_bytes(KEY)
    os.replace(tmp_path / "new", name)
    os.link(name, link)
    for path in (name, link):
        assert hidden.hold(str(path), path.stat(), hidden.identities())
    other = tmp_path / "other"
    other.write_bytes(b"x")
    assert not hidden.hold(str(other), other.stat(), hidden.identities())


def test_few_identities(tmp_path: Path) -> None:
    """A file with one name needs only the identities of links and secrets, whose target may change; its path identifies the others."""
    for name in ("program", "target", "key"):
        (tmp_path / name).write_bytes(KEY)
    (tmp_path / "link").symlink_to("target")
    hidden = PrivateFiles()
    hidden.hide([str(tmp_path / "program"), str(tmp_path / "link"), ""], secrets=[str(tmp_path / "key")])
    assert len(hidden.identities()) == 3
    few = hidden.identities(has_hard_links=False)
    assert few == {(status.st_dev, status.st_ino) for status in ((tmp_path / name).stat() for name in ("target", "key"))}
    assert hidden.hold(str(tmp_path / "program"), (tmp_path / "program").stat(), few)


def test_add(tmp_path: Path) -> None:
    """The sum of two objects hides the files of both."""
    file = tmp_path / "file"
    file.write_bytes(b"x")
    hidden, more = PrivateFiles(), PrivateFiles()
    more.hide([str(file)], cgi_directory=str(tmp_path / "cgi"), script_directory=str(tmp_path / "scripts"))
    hidden.add(more)
    assert hidden.hold(str(file), file.stat(), hidden.identities())
    assert hidden.hold(str(tmp_path / "cgi/x"), file.stat(), frozenset())
    file.chmod(0o755)
    assert hidden.hold(str(tmp_path / "scripts/x"), file.stat(), frozenset())


def links(server: Server, path: str = "/") -> list[str]:
    """Return the links of a listing."""
    return re.findall(r'<a[^>]* href="\./([^"]*)"', server.get(path).body.decode())


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A directory with a page and with dotfiles."""
    root = tmp_path / "public"
    for name in ("a.txt", ".env", ".git/config", "sub/.htpasswd", "sub/b.txt", ".well-known/security.txt", ".well-known/.hidden"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_dotfiles(serve: Serve, public: Path, method: str) -> None:
    """Dotfiles are neither served nor listed, except /.well-known/."""
    server = serve(f"--staticdir={public}")
    hidden = ("/.env", "/%2eenv", "/.git/config", "/.git/", "/.git", "/sub/.htpasswd", "/sub/%2ehtpasswd", "/.well-known/.hidden")
    assert {path: server.request(method, path).status for path in hidden} == dict.fromkeys(hidden, 404)
    assert server.request(method, "/.well-known/security.txt").status == 200
    assert links(server) == [".well-known/", "sub/", "a.txt"]
    assert links(server, "/sub/") == ["b.txt"]


def test_dotfiles_on_request(serve: Serve, public: Path) -> None:
    """With --dotfiles, the server serves and lists dotfiles."""
    server = serve(f"--staticdir={public}", "--dotfiles")
    assert server.get("/.env").body == b".env"
    assert server.get("/.git/config").body == b".git/config"
    assert links(server) == [".git/", ".well-known/", "sub/", ".env", "a.txt"]
    assert links(server, "/sub/") == [".htpasswd", "b.txt"]


@pytest.mark.parametrize("flag", ["--dir", "--cgidir"])
def test_programs_in_dotfiles(serve: Serve, public: Path, flag: str) -> None:
    """A client cannot start the hooks of a git checkout without --dotfiles."""
    hook = public / ".git/hooks/update"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nrun'\n")
    hook.chmod(0o755)
    for flags, status in (((), 404), (("--dotfiles",), 101 if flag == "--dir" else 200)):
        server = serve(f"{flag}={public}", *flags)
        if status == 101:
            with server.connect("/.git/hooks/update") as client:
                assert client.receive_lines()[-1] == "run"
        else:
            answer = server.get("/.git/hooks/update") if flag == "--cgidir" else server.refusal("/.git/hooks/update")
            assert answer.status == status


def link_to(secret: Path, folder: Path) -> list[str]:
    """Create links to a file in a folder; return their names."""
    (folder / "symbolic").symlink_to(os.path.relpath(secret, folder))
    (folder / "two-steps").symlink_to("symbolic")
    os.link(secret, folder / "hard")
    return ["symbolic", "two-steps", "hard"]


@pytest.mark.parametrize("together", [False, True], ids=["two files", "one file"])
def test_key_of_the_server(public: Path, certificates: Certificates, together: bool) -> None:
    """The TLS key is neither served nor listed, under any link; a certificate is, unless its file also contains the key."""
    key, certificate = public / "server.key", public / "server.pem"
    key.write_bytes((certificates.folder / "server.key").read_bytes())
    certificate.write_bytes((certificates.folder / "server.pem").read_bytes() + (key.read_bytes() if together else b""))
    names = ["server.key", *link_to(key, public)]
    flags = (f"--staticdir={public}", f"--cgidir={public}/sub", "--ssl", f"--sslcert={certificate}", f"--sslkey={key}")
    os.link(key, public / "sub" / "key")
    with Server(*flags, tls=certificates.context()) as server:
        answers = {name: server.request(method, f"/{name}") for name in [*names, "key", "sub/key"] for method in ("GET", "HEAD")}
        assert {name: answer.status for name, answer in answers.items() if answer.status not in (404, 500)} == {}
        assert not any(b"PRIVATE" in answer.body for answer in answers.values())
        assert server.get("/server.pem").status == (404 if together else 200)
        listed = links(server)
        assert not {*names} & {*listed}
        assert ("server.pem" in listed) == (not together)
        key.with_suffix(".new").write_bytes(key.read_bytes())
        os.replace(key.with_suffix(".new"), key)
        os.link(key, public / "renewed")
        assert server.get("/renewed").status == server.get("/server.key").status == 404
    assert_sound(server)


def test_key_for_the_broker() -> None:
    """The files in each URL of a broker are secrets, in any order."""
    url = "amqps://user:pw@host/vhost?heartbeat=5&keyfile=/etc/client%20key.pem&cafile=/ca.pem&certfile=b.pem"
    assert keys_in_url(url) == ["/etc/client key.pem", "b.pem"]
    assert keys_in_url("amqps://host/?keyfile=/s/a,b.pem&certfile=/s/a+b.pem") == ["/s/a,b.pem", "/s/a b.pem"]
    assert keys_in_url("amqp://host/") == []


def test_program_by_a_hard_link(serve: Serve, public: Path) -> None:
    """A file that COMMAND names is not served under a hard link either."""
    script = public / "script.py"
    script.write_text("#!/bin/sh\ncat\n")
    script.chmod(0o755)
    names = ["script.py", *link_to(script, public)]
    server = serve(f"--staticdir={public}", "sh", str(script))
    assert {name: server.get(f"/{name}").status for name in names} == dict.fromkeys(names, 404)
    assert links(server) == [".well-known/", "sub/", "a.txt"]


@pytest.mark.parametrize(
    ("words", "is_hidden"),
    [
        (("cat", "secret.ini"), True),
        (("cat", "--config=secret.ini"), True),
        (("sh", "-c", "cat secret.ini | sed s/a/b/"), True),
        (("sh", "-c", "x=secret.ini; it's"), False),
        (("cat", "."), False),
        (("cat", "--dir=."), False),
        (("cat", "--dir="), False),
    ],
)
def test_files_that_a_command_names(public: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], is_hidden: bool) -> None:
    """A command names a file as a word, within a shell command, or after `=`; a directory that it names is still served."""
    monkeypatch.chdir(public)
    (public / "secret.ini").touch()
    hidden = PrivateFiles()
    hidden.hide(files_of_command(words))
    for path, expected in ((public / "secret.ini", is_hidden), (public, False)):
        assert hidden.hold(str(path.resolve()), path.stat(), hidden.identities()) is expected
