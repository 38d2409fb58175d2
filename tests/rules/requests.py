"""Requests for tests of the rules: a GET in which a test changes some values."""

from __future__ import annotations

from wsbridge.rules.request import Peer, Request

PEER = Peer("192.0.2.7", "54321", "example.org:8080", False)


def make_request(
    *headers: tuple[str, str],
    method: str = "GET",
    path: str = "/",
    query: str = "",
    uri: str = "/",
    protocol: str = "HTTP/1.1",
    peer: Peer = PEER,
) -> Request:
    return Request(method, path, query, uri, protocol, headers, peer)
