"""The scripts for pages as responses: their paths, contents and headers."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from tests.rules.requests import make_request
from wsbridge.http.answers import NOTHING, POLICY, SNIFF
from wsbridge.http.javascript import SCRIPTS, Scripts

FOREIGN = ("Origin", "https://other.example")


@pytest.mark.parametrize("name", ["wsbridge.js", "wsbridge.mjs"])
def test_scripts(name: str) -> None:
    """The server returns the script of the package, as JavaScript in UTF-8."""
    response = Scripts().find(make_request(path=f"/{name}"), ())
    assert response is not None
    assert response.status == 200
    assert response.body == files("wsbridge.http").joinpath("assets", name).read_bytes()
    assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"


def test_names() -> None:
    """The documentation names two scripts, and the server has no others."""
    assert sorted(SCRIPTS) == ["wsbridge.js", "wsbridge.mjs"]


def test_kinds() -> None:
    """wsbridge.mjs is a module that exports Channel, and wsbridge.js is a plain script that sets `wsbridge`."""
    scripts = Scripts()
    plain, module = (str(scripts.find(make_request(path=path), ()).body, "utf-8") for path in ("/wsbridge.js", "/wsbridge.mjs"))
    assert re.search(r"^export const \{ Channel \}", module, re.MULTILINE)
    assert re.search(r"^\s*globalThis\.wsbridge = ", plain, re.MULTILINE)
    assert not re.search(r"^\s*(export|import)\b", plain, re.MULTILINE)


@pytest.mark.parametrize(
    "path",
    ["/", "", "/wsbridge", "/wsbridge.js/", "/WSBRIDGE.JS", "//wsbridge.js", "wsbridge.js", "/a/wsbridge.js", "/console.js", "/../x"],
)
def test_other_paths(path: str) -> None:
    """All other paths belong to other resources, including other assets of the package."""
    assert Scripts().find(make_request(path=path), ()) is None


def test_query() -> None:
    """The query of a request does not change the response."""
    response = Scripts().find(make_request(path="/wsbridge.js", query="v=2", uri="/wsbridge.js?v=2"), ())
    assert response is not None
    assert response.status == 200


@pytest.mark.parametrize("headers", [(), (FOREIGN,), (("Origin", "null"),), (("Sec-Fetch-Site", "cross-site"),)])
def test_every_page_may_load_them(headers: tuple[tuple[str, str], ...]) -> None:
    """A page of any origin may load the scripts, since they contain no data of the channel."""
    response = Scripts().find(make_request(*headers, path="/wsbridge.mjs"), ())
    assert response is not None
    assert response.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("name", ["Access-Control-Allow-Origin", "access-control-allow-origin"])
def test_header_of_the_user(name: str) -> None:
    """The user's header decides which pages may load the scripts: a browser accepts only one such header."""
    response = Scripts().find(make_request(FOREIGN, path="/wsbridge.js"), (("X-Other", "1"), (name, "https://a.example")))
    assert response is not None
    assert "Access-Control-Allow-Origin" not in response.headers
    assert "X-Other" not in response.headers


def test_headers() -> None:
    """A browser asks for a new version before each use of a script, and does not guess its type."""
    response = Scripts().find(make_request(path="/wsbridge.js"), ())
    assert response is not None
    assert response.headers["Cache-Control"] == "no-cache"
    assert (response.headers[SNIFF], response.headers[POLICY]) == ("nosniff", NOTHING)


def test_read_once() -> None:
    """Each request has its own response, and all responses share one body, which the server reads once."""
    scripts = Scripts()
    first, second = (scripts.find(make_request(path="/wsbridge.js"), ()) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first is not second
    assert first.body is second.body
