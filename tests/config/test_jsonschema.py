"""The JSON schema of configuration files: it accepts valid files, and rejects the mistakes that a schema can detect."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.files import Folder
from tests.config.test_write import everything, values
from tests.config.validation import errors
from wsbridge.config.jsonschema import NUMBER, SECONDS, SIZE, schema
from wsbridge.config.write import write
from wsbridge.mentions import MENTION
from wsbridge.rules.units import parse_seconds, parse_size
from wsbridge.settings.endpoint import KINDS

SCHEMA = json.loads(json.dumps(schema()))


def wrong(text: str) -> list[str]:
    return errors(tomllib.loads(text), SCHEMA, SCHEMA)


def test_everything(folder: Folder) -> None:
    """A file with every kind and every setting is valid."""
    text = write(everything({**values(folder), "target": "/files0"}))
    assert wrong(text) == []


MORE = """
include = ["conf.d/*.toml"]
[defaults]
ping = "25s"
write_timeout = "1e3"
[defaults.bridge]
max_programs = 5
[defaults.files]
dotfiles = true
[broker.main]
url = [{ file = "secret" }, "amqp://h/"]
[[endpoint]]
kind = "bridge"
command = "./count.sh"
"""


def test_more_forms() -> None:
    """The alternative forms of a value are valid too."""
    assert wrong(MORE) == []


@pytest.mark.parametrize(
    "text",
    [
        "servers = 1",
        "[server]\nhots = ['a']",
        "[server]\nguard = 1",
        "[server]\nlog_level = 'x'",
        "[server]\nmax_sessions = -1",
        "[[listen]]",
        "[[endpoint]]\npath = '/'",
        "[[endpoint]]\nkind = 'x'",
        "[[endpoint]]\nkind = 'bridge'\nexchange = 'x'",
        "[[endpoint]]\nkind = 'broadcast'",
        "[[endpoint]]\nkind = 'bridge'\nping = 'soon'",
        "[[endpoint]]\nkind = 'bridge'\nsend_buffer = 1.5",
        "[[endpoint]]\nkind = 'broadcast'\nexchange = 'x'\nreplay_size = 0",
        "[broker.main]\nurl = 1",
        "[broker.main]\nurl = { env = 'A', file = 'b' }",
        "[defaults]\npath = '/'",
    ],
)
def test_mistakes(text: str) -> None:
    """Wrong names, wrong types and missing keys are invalid."""
    assert wrong(text) != []


def described(part: Any) -> list[str]:
    if isinstance(part, dict):
        found = [part["description"]] if isinstance(part.get("description"), str) else []
        return found + [text for item in part.values() for text in described(item)]
    return [text for item in part for text in described(item)] if isinstance(part, list) else []


def test_descriptions() -> None:
    """Descriptions mention keys, not flags, and contain no links."""
    texts = described(SCHEMA)
    assert len(texts) > 100
    assert [text for text in texts if MENTION.search(text) or re.search(r"(^|\W)--[a-z]", text) or "](" in text] == []
    kinds = [SCHEMA["$defs"][kind]["properties"] for kind in KINDS]
    assert [name for kind in kinds for name, setting in kind.items() if name != "kind" and not setting["description"]] == []


def fits(part: Any, text: str) -> bool:
    return re.search(part["anyOf"][1]["pattern"], text) is not None


@given(st.from_regex(rf"{NUMBER} ?[kKmMgG]?[iI]?[bBxX]?", fullmatch=True))
def test_sizes(text: str) -> None:
    """The schema accepts a size if wsbridge reads it, except for numbers in Go's notation."""
    try:
        parse_size(text)
    except ValueError:
        return
    assert fits(SIZE, text)


@given(st.from_regex(r"([0-9]{1,3}(\.[0-9])? ?(ms|s|min|m|h|d|x|sec) ?){1,3}", fullmatch=True))
def test_times(text: str) -> None:
    """The schema accepts a time if wsbridge reads it."""
    try:
        parse_seconds(text)
    except ValueError:
        return
    assert fits(SECONDS, text)
