"""`/status` as a response: its path, its content, its headers, and the pages that may read it."""

from __future__ import annotations

import json
from unittest.mock import Mock

import pytest

from tests.rules.requests import PEER, make_request
from wsbridge.errors import Refused
from wsbridge.http.answers import NOTHING, POLICY, SNIFF
from wsbridge.http.status import StatusPage, check_reader
from wsbridge.rules.origins import Rules, parse_allowed
from wsbridge.rules.request import Request

ANY = Rules()
SAME = Rules(same=True)
OWN = "http://example.org:8080"
"""The origin of the server of `make_request`."""
FOREIGN = "https://other.example"
ALLOW = "Access-Control-Allow-Origin"


def listed(origins: str) -> Rules:
    return Rules(allowed=parse_allowed(origins))


def status_request(*headers: tuple[str, str]) -> Request:
    return make_request(*headers, path="/status", uri="/status")


# The response


def test_content() -> None:
    """The server returns the state of the channel as JSON."""
    state = {"exchange": "größe", "viewers": 3, "broker": None, "counts": {"messages_in": 1}}
    response = StatusPage(lambda: state, ANY).find(status_request(), ())
    assert response is not None
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert isinstance(response.body, bytes)
    assert json.loads(response.body) == state


def test_state_at_the_request() -> None:
    """Each response contains the state at the time of its request."""
    status = Mock(side_effect=[{"viewers": 1}, {"viewers": 2}])
    page = StatusPage(status, ANY)
    assert status.call_count == 0
    responses = [page.find(status_request(), ()) for _ in range(2)]
    assert [json.loads(response.body) for response in responses] == [{"viewers": 1}, {"viewers": 2}]


@pytest.mark.parametrize("path", ["/", "", "/status/", "/Status", "/status.json", "//status", "/a/status", "/statuses"])
@pytest.mark.parametrize("origin", [OWN, FOREIGN])
def test_other_paths(path: str, origin: str) -> None:
    """All other paths belong to other resources, whose own rules decide which pages may read them."""
    status = Mock(return_value={})
    assert StatusPage(status, SAME).find(make_request(("Origin", origin), path=path), ()) is None
    status.assert_not_called()


def test_query() -> None:
    """The query of a request does not change the response."""
    assert StatusPage(dict, ANY).find(make_request(path="/status", query="x", uri="/status?x"), ()) is not None


# Headers


def test_headers() -> None:
    """No cache stores the status, and a browser neither guesses its type nor frames it."""
    response = StatusPage(dict, ANY).find(status_request(), (("X-Other", "1"),))
    assert response is not None
    assert response.headers["Cache-Control"] == "no-store"
    assert (response.headers[SNIFF], response.headers[POLICY]) == ("nosniff", NOTHING)
    assert "X-Other" not in response.headers


@pytest.mark.parametrize("origin", [OWN, FOREIGN, "null"])
def test_page_of_an_admitted_origin(origin: str) -> None:
    """A page that may open the channel may read the status, and only pages of that origin may read this response."""
    response = StatusPage(dict, listed(f"{OWN},{FOREIGN},null")).find(status_request(("Origin", origin)), ())
    assert response is not None
    assert (response.headers[ALLOW], response.headers["Vary"]) == (origin, "Origin")


@pytest.mark.parametrize("headers", [(), (("Referer", f"{OWN}/page"),), (("Sec-Fetch-Site", "same-origin"),), (("Origin", ""),)])
def test_request_without_origin(headers: tuple[tuple[str, str], ...]) -> None:
    """A response to a request without an Origin names no origin that may read it."""
    response = StatusPage(dict, ANY).find(status_request(*headers), ())
    assert response is not None
    assert ALLOW not in response.headers


def test_origin_that_is_not_ascii() -> None:
    """The server does not repeat an Origin with other bytes than ASCII: such a header names no origin."""
    response = StatusPage(dict, ANY).find(status_request(("Origin", "http://b\udcfccher.example")), ())
    assert response is not None
    assert ALLOW not in response.headers


@pytest.mark.parametrize("name", [ALLOW, ALLOW.lower()])
def test_header_of_the_user(name: str) -> None:
    """The user's header decides which pages may read the status: a browser accepts only one such header."""
    response = StatusPage(dict, ANY).find(status_request(("Origin", FOREIGN)), ((name, "https://a.example"),))
    assert response is not None
    assert ALLOW not in response.headers


# Which pages may read it


@pytest.mark.parametrize(
    ("rules", "headers", "reason"),
    [
        (SAME, (("Origin", FOREIGN),), "Same origin policy mismatch"),
        (SAME, (("Origin", "null"),), "Same origin policy mismatch"),
        (SAME, (("Origin", "https://example.org:8080"),), "Same origin policy mismatch"),
        (SAME, (), "Same origin policy mismatch"),
        (SAME, (("Referer", f"{FOREIGN}/page"),), "Same origin policy mismatch"),
        (SAME, (("Sec-Fetch-Site", "cross-site"), ("Referer", f"{OWN}/page")), "Same origin policy mismatch"),
        (SAME, (("Origin", FOREIGN), ("Sec-Fetch-Site", "same-origin")), "Same origin policy mismatch"),
        (listed("a.example"), (("Origin", FOREIGN),), "Origin is not listed in allowed list"),
        (listed("a.example"), (("Referer", f"{FOREIGN}/page"),), "Origin is not listed in allowed list"),
        (listed("a.example"), (), "Origin is not listed in allowed list"),
        (listed(""), (("Origin", FOREIGN),), "Origin is not listed in allowed list"),
        (ANY, (("Origin", "other"),), "Origin 'other' is not a URI"),
    ],
)
def test_refused_pages(rules: Rules, headers: tuple[tuple[str, str], ...], reason: str) -> None:
    """A page that may not open the channel receives 403 instead of the status."""
    status = Mock(return_value={})
    with pytest.raises(Refused) as refused:
        StatusPage(status, rules).find(status_request(*headers), ())
    assert (refused.value.status, refused.value.detail, refused.value.headers) == (403, reason, {})
    status.assert_not_called()


@pytest.mark.parametrize(
    ("rules", "headers"),
    [
        (ANY, ()),
        (ANY, (("Origin", FOREIGN),)),
        (SAME, (("Origin", OWN),)),
        (SAME, (("Referer", f"{OWN}/page"),)),
        (SAME, (("Sec-Fetch-Site", "same-origin"),)),
        (listed("other.example"), (("Origin", FOREIGN),)),
        (listed("other.example"), (("Referer", f"{FOREIGN}/page"),)),
        (listed("file://"), ()),
        (listed("null"), (("Origin", "null"),)),
        (listed("*"), (("Origin", "null"),)),
    ],
)
def test_admitted_pages(rules: Rules, headers: tuple[tuple[str, str], ...]) -> None:
    """A client that the rules admit to the channel may read the status."""
    assert StatusPage(dict, rules).find(status_request(*headers), ()) is not None


def test_check_reader() -> None:
    """The check depends on the page and the server, not on the path of the request."""
    check_reader(make_request(("Origin", OWN), path="/events"), SAME)
    with pytest.raises(Refused, match="Same origin"):
        check_reader(make_request(("Origin", FOREIGN), path="/events"), SAME)
    assert PEER.host == OWN.partition("://")[2]
