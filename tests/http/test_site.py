"""The site: which endpoint serves a request, which path it sees, and what a path at the border of two endpoints leads to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import HttpVersion11, web

from tests.support.references import resolve
from wsbridge.http.app import App
from wsbridge.http.site import Site
from wsbridge.metrics import Metrics
from wsbridge.rules.cgi import redirected
from wsbridge.rules.forwarded import Trusted
from wsbridge.rules.hosts import Hosts
from wsbridge.rules.request import Request
from wsbridge.rules.routes import Routes
from wsbridge.sessions.registry import Registry


@dataclass
class Raw:
    """As much of aiohttp's request as the site reads; it came to an address of the network."""

    raw_path: str
    host: str
    method: str = "GET"
    version: Any = HttpVersion11
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.headers = {"Host": self.host, **self.headers}
        self.transport = self
        self.path_qs = self.raw_path

    def get_extra_info(self, name: str) -> object:
        return {"peername": ("192.0.2.7", 5000), "sockname": ("192.0.2.1", 80)}.get(name)


class Endpoint(App):
    """An endpoint that answers with its name and the path that it sees, or with a CGI script's local redirect to `target`."""

    def __init__(self, name: str, *, is_strict: bool = False, target: str = "") -> None:
        self.metrics = Metrics()
        registry = Registry(max_sessions=1, metrics=self.metrics)
        headers = (("X-Name", name),)
        super().__init__(is_strict=is_strict, headers=headers, headers_http=headers, registry=registry, metrics=self.metrics)
        self._said = name
        self._target = target

    async def __call__(self, raw: web.BaseRequest, request: Request) -> web.StreamResponse | Request:
        if self._target:
            return redirected(request, self._target)
        answer = await super().__call__(raw, request)
        assert isinstance(answer, web.Response)
        if answer.status == 404:
            answer.text = f"{self._said} {request.mount!r} {request.path!r}"
        return answer


class Town:
    """A site of endpoints by path."""

    def __init__(self, **endpoints: Endpoint) -> None:
        self.routes: Routes[App] = Routes()
        for path, endpoint in endpoints.items():
            self.routes.put((), "/" + path, endpoint)
        self.site = Site(self.routes, fallback=Endpoint("nowhere"), hosts=Hosts(), trusted=Trusted(), metrics=Metrics())

    async def ask(self, path: str, *, host: str = "192.0.2.1", method: str = "GET") -> web.Response:
        raw: Any = Raw(path, host, method)
        answer = await self.site(raw)
        assert isinstance(answer, web.Response)
        return answer

    async def said(self, path: str, **options: str) -> str | None:
        return (await self.ask(path, **options)).text


@pytest.fixture
def town() -> Town:
    town = Town(count=Endpoint("count"))
    town.routes.put((), "/gr\u00f6\u00dfe 100%?", Endpoint("size"))
    return town


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/count/", "count '/count' '/'"),
        ("/count/x%2Fy", "count '/count' '/x/y'"),
        ("/count%2Fx", "count '/count' '/x'"),
        ("/c%6Funt/x", "count '/count' '/x'"),
        ("/count/%252e%252e/", "count '/count' '/%2e%2e/'"),
        ("/count/%5c..%5cx", "count '/count' '/\\\\..\\\\x'"),
        ("/gr%C3%B6%C3%9Fe%20100%25%3F/x?y", "size '/gr\u00f6\u00dfe 100%?' '/x'"),
        ("/COUNT/x", "nowhere '' '/COUNT/x'"),
        ("/count;x/y", "nowhere '' '/count;x/y'"),
        ("/count%3Bx", "nowhere '' '/count;x'"),
        ("/counter", "nowhere '' '/counter'"),
        ("/count.", "nowhere '' '/count.'"),
        ("/%63ount%20", "nowhere '' '/count '"),
        ("/%E2%80%AEcount", "nowhere '' '/\\u202ecount'"),
        ("/cou%CC%81nt", "nowhere '' '/cou\u0301nt'"),
        ("/", "nowhere '' '/'"),
    ],
)
async def test_endpoint_of_a_path(town: Town, path: str, said: str) -> None:
    """An endpoint serves its path and the paths below it, by their decoded characters, and sees the rest of the path."""
    assert await town.said(path) == said


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/count//", "/count/"),
        ("/count%2f..", "/"),
        ("/count/..", "/"),
        ("/count/%2e%2e/x?y", "/x?y"),
        ("/count/x/..%2f..%2f..%2fetc/passwd", "/etc/passwd"),
        ("/count/./x/", "/count/x/"),
        ("/count%2F%2Fx", "/count/x"),
        ("//evil.example/count", "/evil.example/count"),
        ("/%2Fevil.example/", "/evil.example/"),
        ("/count//evil.example", "/count/evil.example"),
        ("/count/%252e%252e//", "/count/%252e%252e/"),
        ("//gr%C3%B6%C3%9Fe%20100%25%3F", "/gr%C3%B6%C3%9Fe%20100%25%3F"),
        ("/count", "/count/"),
        ("/count?q=//evil.example", "/count/?q=//evil.example"),
        ("/gr%C3%B6%C3%9Fe%20100%25%3F?q", "/gr%C3%B6%C3%9Fe%20100%25%3F/?q"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
async def test_redirect(town: Town, method: str, path: str, location: str) -> None:
    """A path that is not clean leads to the clean path, never to another host; that of an endpoint leads to its directory.

    The Location is relative, so it is right below the prefix of a reverse proxy as well.
    """
    answer = await town.ask(path, method=method)
    assert (answer.status, resolve(path, answer.headers["Location"])) == (301, location)


async def test_redirect_of_a_mount_in_a_mount(town: Town) -> None:
    """The path of an endpoint below another one leads to its directory, and not to that of the other one."""
    town.routes.put((), "/count/more", Endpoint("more"))
    answer = await town.ask("/count/more?q")
    assert (answer.headers["X-Name"], answer.headers["Location"]) == ("more", "./more/?q")


async def test_redirect_after_a_local_redirect() -> None:
    """If the local redirect of a CGI script leads to the path of an endpoint, the client finds its directory."""
    town = Town(moved=Endpoint("moved", target="/count"), count=Endpoint("count"))
    answer = await town.ask("/moved/x")
    assert (answer.status, resolve("/moved/x", answer.headers["Location"])) == (301, "/count/")


@pytest.mark.parametrize(("path", "name"), [("/count/x", "count"), ("/count", "count"), ("/count//", "count"), ("/x", "nowhere")])
async def test_headers(town: Town, path: str, name: str) -> None:
    """Redirects and errors have the headers of the endpoint that the path leads to."""
    assert (await town.ask(path)).headers["X-Name"] == name


async def test_routes_change(town: Town) -> None:
    """A request reaches the endpoint that has its path when the request comes."""
    town.routes.put((), "/count/more", Endpoint("more"))
    assert await town.said("/count/more/x") == "more '/count/more' '/x'"
    town.routes.remove((), "/count/more")
    assert await town.said("/count/more/x") == "count '/count' '/more/x'"
    town.routes.remove((), "/count")
    assert await town.said("/count/more/x") == "nowhere '' '/count/more/x'"


async def test_hosts_change(town: Town) -> None:
    """The site refuses foreign hosts by the names of the moment."""
    assert (await town.ask("/count/", host="a.example")).status == 404
    town.site.configure(hosts=Hosts(given=("b.example",)), trusted=Trusted())
    assert (await town.ask("/count/", host="a.example")).status == 403
    assert (await town.ask("/count/", host="b.example")).status == 404


async def test_local_redirect_to_a_strict_endpoint() -> None:
    """A local redirect leads to no endpoint that refuses the host of the request: the page may have rebound its name."""
    town = Town(moved=Endpoint("moved", target="/strict/x"), strict=Endpoint("strict", is_strict=True))
    assert (await town.ask("/strict/x", host="evil.example")).status == 403
    assert (await town.ask("/moved/", host="evil.example")).status == 403
    assert await town.said("/moved/", host="192.0.2.1") == "strict '/strict' '/x'"


async def test_local_redirects_end() -> None:
    """A chain of local redirects ends with an error of the endpoint that it has reached."""
    town = Town(a=Endpoint("a", target="/b/"), b=Endpoint("b", target="/a/"))
    answer = await town.ask("/a/")
    assert (answer.status, answer.headers["X-Name"]) == (500, "a")


async def test_requests_for_the_server(town: Town) -> None:
    """A request for the server as a whole belongs to the endpoint at the root, if there is one."""
    assert (await town.ask("*", method="OPTIONS")).headers["X-Name"] == "nowhere"
    town.routes.put((), "/", Endpoint("root"))
    assert (await town.ask("*", method="OPTIONS")).headers["X-Name"] == "root"
    assert (await town.ask("/count", method="CONNECT")).headers["X-Name"] == "root"
    assert town.site.error_page(400, "malformed").headers["X-Name"] == "root"
    assert town.site.headers == (("X-Name", "root"),)
