"""Secrets from variables and files, and errors that do not contain them."""

from __future__ import annotations

import datetime
import os
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.otheruser import unprivileged
from wsbridge.config.secrets import MAX_BYTES, is_exposed, resolve, secret_file

SECRET = "correct horse"


def why(value: object, *, folder: str = "/nowhere", **environ: str) -> str:
    """Return the error for a value; neither it nor the traceback contains the secret."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the sentence is what counts)
        resolve(value, environ=environ, folder=folder)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_plain_string() -> None:
    """A plain string is its own value, even if it is empty."""
    assert resolve("x", environ={}, folder="") == "x"
    assert resolve("", environ={}, folder="") == ""


def test_variable() -> None:
    """A variable provides its value unchanged."""
    assert resolve({"env": "NAME_2"}, environ={"NAME_2": f" {SECRET}\n"}, folder="") == f" {SECRET}\n"


def test_unusable_variable() -> None:
    """A variable that is missing, empty or not UTF-8 is an error with its name."""
    assert why({"env": "NAME"}) == "the environment variable NAME is not set; set it"
    assert why({"env": "NAME"}, NAME="") == "the environment variable NAME is empty; set it to the value of this key"
    assert why({"env": "NAME"}, NAME=f"{SECRET}\udcff") == "the environment variable NAME is not UTF-8; set it in UTF-8"


@pytest.mark.parametrize("name", ["", "$NAME", "A-B", "1A", "A=B", SECRET, "é", "A\n"])
def test_impossible_variable(name: str) -> None:
    """The error does not repeat an impossible name of a variable: it may be the secret itself."""
    assert why({"env": name}) == (
        "the value of env is not the name of an environment variable; begin it with a letter or _, then use only letters, digits and _"
    )


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"x", "x"),
        (b"x\n", "x"),
        (b"x\r\n", "x"),
        (b"x\n\n", "x\n"),
        (b"x\r", "x\r"),
        (b" x \n", " x "),
        (b"\xef\xbb\xbf\xc3\xa9\n", "é"),
        (b"a\nb\n", "a\nb"),
        (b"x" * MAX_BYTES, "x" * MAX_BYTES),
    ],
)  # fmt: skip
def test_file(tmp_path: Path, content: bytes, secret: str) -> None:
    """A file provides its content without a BOM and without one final newline; its path is relative to the folder."""
    (tmp_path / "secret").write_bytes(content)
    assert resolve({"file": "secret"}, environ={}, folder=str(tmp_path)) == secret
    assert resolve({"file": str(tmp_path / "secret")}, environ={}, folder="/nowhere") == secret


def test_unusable_secret_file(tmp_path: Path) -> None:
    """A file that is missing, not regular, empty, not UTF-8 or too long is an error with its name as the user wrote it."""
    folder = str(tmp_path)
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "latin").write_bytes(SECRET.encode() + b"\xe9")
    (tmp_path / "long").write_bytes(SECRET.encode() + b" " * MAX_BYTES)
    os.mkfifo(tmp_path / "fifo")
    assert why({"file": "missing"}, folder=folder) == "missing: no such file; create the file, or correct the name"
    assert why({"file": "../x\n"}, folder=folder) == "'../x\\n': no such file; create the file, or correct the name"
    assert why({"file": "."}, folder=folder) == ".: a directory, not a regular file; name a regular file"
    assert why({"file": "fifo"}, folder=folder) == "fifo: a FIFO, not a regular file; name a regular file"
    assert why({"file": "empty"}, folder=folder) == "empty: the file is empty; write the value into it"
    assert why({"file": "latin"}, folder=folder) == "latin: not UTF-8; save the file as UTF-8"
    assert why({"file": "long"}, folder=folder) == "long: longer than 64 KiB, the limit for such a file; shorten it, or name another file"
    assert why({"file": "a\0b"}, folder=folder) == "'a\\x00b': no file can have this name; correct the name"
    assert why({"file": ""}, folder=folder) == "the value of file is empty; write the name of a file"


def test_unreadable_file(tmp_path: Path) -> None:
    """A secret file without read permission is an error that names the file and not the secret."""
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0)
    with unprivileged(tmp_path):
        sentence = why({"file": "secret"}, folder=str(tmp_path))
    assert sentence == "secret: permission denied; let the user that runs wsbridge read the file"


FORMS = '"…", { env = "NAME" } or { file = "path" }'


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (12345, f"expected {FORMS}, got an integer"),
        (True, f"expected {FORMS}, got a boolean"),
        ([SECRET], f"expected {FORMS}, got an array"),
        (datetime.date(2024, 1, 1), f"expected {FORMS}, got a date or time"),
        ({}, f"expected one key of env and file, got none; write {FORMS}"),
        ({"env": SECRET, "file": SECRET}, f"expected one key of env and file, got both; write {FORMS}"),
        ({"value": SECRET}, f"unknown key value; write {FORMS}"),
        ({"env": "A", "default x": SECRET}, f'unknown key "default x"; write {FORMS}'),
        ({"env": 1}, f"env: expected a string, got an integer; write {FORMS}"),
        ({"file": [SECRET]}, f"file: expected a string, got an array; write {FORMS}"),
    ],
)
def test_wrong_form(value: object, sentence: str) -> None:
    """The error for any other value names its type and its keys, but not the value."""
    assert why(value) == sentence


@given(content=st.binary(max_size=20), tail=st.sampled_from([b"", b"\n", b"\r\n", b"\xff", b" " * MAX_BYTES]))
def test_no_error_contains_the_content(tmp_path_factory: pytest.TempPathFactory, content: bytes, tail: bytes) -> None:
    """An error about a file never contains its content."""
    path = tmp_path_factory.getbasetemp() / "any-secret"
    path.write_bytes(SECRET.encode() + content + tail)
    shown = ""
    try:
        assert resolve({"file": str(path)}, environ={}, folder="").startswith(SECRET)
    except ValueError as error:
        shown = "".join(traceback.format_exception(error))
    assert SECRET not in shown


def test_exposed_file(tmp_path: Path) -> None:
    """A file that any user can read is exposed; a file for its owner and group, or a missing file, is not."""
    path = tmp_path / "secret"
    path.touch()
    for mode, exposed in ((0o600, False), (0o640, False), (0o660, False), (0o644, True), (0o604, True), (0o601, False)):
        path.chmod(mode)
        assert is_exposed(str(path)) is exposed
    (tmp_path / "link").symlink_to(path)
    assert not is_exposed(str(tmp_path / "link"))
    assert not is_exposed(str(tmp_path / "missing"))
    assert not is_exposed("a\0b")


def test_file_of_a_value() -> None:
    """A file named by a value can be checked and watched."""
    assert secret_file({"file": "a"}, "/etc") == "/etc/a"
    assert secret_file({"file": "/a"}, "/etc") == "/a"
    for value in ("a", {"env": "A"}, {"file": ""}, {"file": 1}, {"file": "a", "env": "A"}, 1):
        assert secret_file(value, "/etc") is None
