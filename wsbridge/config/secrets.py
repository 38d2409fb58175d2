"""Strings that a configuration keeps elsewhere: in an environment variable, or in a file such as one of systemd's credentials.

    url = "amqp://localhost"              the string itself
    url = { env = "AMQP_URL" }            the value of a variable
    url = { file = "secrets/amqp-url" }   the content of a file, without the newline at its end

No error contains the secret: neither the value of a variable, nor the content of a file, nor a value of the wrong type.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping

from wsbridge.config.faults import show_name, show_path, show_type
from wsbridge.config.regularfile import read_regular
from wsbridge.errors import UnusableFile

MAX_BYTES = 64 * 1024
"""A secret is a password, a URL or a key in PEM form; a longer file is probably the wrong one."""
FORMS = '"…", { env = "NAME" } or { file = "path" }'
NEWLINE = re.compile(r"\r?\n\Z")
UNDECODED = re.compile("[\ud800-\udfff]")
"""Matches the characters by which Python represents bytes of the environment that are not UTF-8."""
VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def resolve(value: object, *, environ: Mapping[str, str], folder: str) -> str:
    """Return the string that a value stands for; the path of a file is relative to `folder`.

    Raises ValueError with a sentence that follows the path of the setting.
    """
    match value:
        case str():
            return value
        case {"env": str(name), **more} if not more:
            return _variable(name, environ)
        case {"file": str(name), **more} if not more:
            return _content(name, folder)
    raise ValueError(_why_not(value))


def is_reference(value: object) -> bool:
    """Whether a value names the place of a string, correctly or not."""
    return isinstance(value, dict) and bool(value) and value.keys() <= {"env", "file"}


def secret_file(value: object, folder: str) -> str | None:
    """Return the path of the file that a value names, for `is_exposed` or to watch it; None if it names no file."""
    match value:
        case {"file": str(name), **more} if name and not more:
            return os.path.join(folder, name)
    return None


def is_exposed(path: str) -> bool:
    """Whether the mode of a file lets users read it that are neither its owner nor in its group; False if it is missing."""
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except (OSError, ValueError):
        return False


def _variable(name: str, environ: Mapping[str, str]) -> str:
    if not VARIABLE.fullmatch(name):
        # The text does not repeat the name: it may be the secret itself, written in the wrong place.
        remedy = "begin it with a letter or _, then use only letters, digits and _"
        raise ValueError(f"the value of env is not the name of an environment variable; {remedy}")
    value = environ.get(name)
    if value is None:
        raise ValueError(f"the environment variable {name} is not set; set it")
    if not value:
        raise ValueError(f"the environment variable {name} is empty; set it to the value of this key")
    if UNDECODED.search(value):
        raise ValueError(f"the environment variable {name} is not UTF-8; set it in UTF-8")
    return value


def _content(name: str, folder: str) -> str:
    if not name:
        raise ValueError("the value of file is empty; write the name of a file")
    shown = show_name(name)
    try:
        content = read_regular(os.path.join(folder, name), limit=MAX_BYTES).decode("utf-8-sig")
    except UnusableFile as error:
        raise ValueError(f"{shown}: {error}") from None
    except UnicodeDecodeError:
        # Not chained: that error contains the bytes.
        raise ValueError(f"{shown}: not UTF-8; save the file as UTF-8") from None
    secret = NEWLINE.sub("", content)
    if not secret:
        raise ValueError(f"{shown}: the file is empty; write the value into it")
    return secret


def _why_not(value: object) -> str:
    if not isinstance(value, dict):
        return f"expected {FORMS}, got {show_type(value)}"
    unknown = [key for key in value if key not in ("env", "file")]
    if unknown:
        return f"unknown key {show_path((unknown[0],))}; write {FORMS}"
    if len(value) != 1:
        return f"expected one key of env and file, got {'both' if value else 'none'}; write {FORMS}"
    (key, inner), *_ = value.items()
    return f"{key}: expected a string, got {show_type(inner)}; write {FORMS}"
