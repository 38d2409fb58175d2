"""The routing table of a site: the host decides first, then the longest prefix of whole path components."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.rules.routes import Routes


def routes(*entries: tuple[str, str]) -> Routes[str]:
    """Return a table with a value `HOST PATH` for each host and path."""
    made: Routes[str] = Routes()
    for host, path in entries:
        made.put((host,) if host else (), path, f"{host} {path}")
    return made


@pytest.mark.parametrize(
    ("path", "value", "prefix"),
    [
        ("/", " /", ""),
        ("/x", " /", ""),
        ("/counter", " /", ""),
        ("/count", " /count", "/count"),
        ("/count/", " /count", "/count"),
        ("/count/x/y/z", " /count", "/count"),
        ("/count/deep", " /count/deep", "/count/deep"),
        ("/count/deep/x", " /count/deep", "/count/deep"),
        ("/count/deeper", " /count", "/count"),
        ("/" + "a/" * 100_000, " /", ""),
        ("/count/" + "a/" * 100_000, " /count", "/count"),
    ],
)
def test_longest_prefix_of_components(path: str, value: str, prefix: str) -> None:
    """`/count` serves its own path and all below it, but not `/counter`."""
    assert routes(("", "/"), ("", "/count"), ("", "/count/deep")).find("h", path) == (value, prefix)


@pytest.mark.parametrize(
    ("host", "path", "value"),
    [
        ("a.example", "/", "a.example /"),
        ("b.a.example", "/", "*.a.example /"),
        ("c.b.a.example", "/", "*.a.example /"),
        ("b.example", "/", "*.example /"),
        ("example", "/", " /"),
        ("", "/", " /"),
        ("a.example", "/far", " /far"),
        ("a.example", "/near", "a.example /near"),
    ],
)
def test_host_decides_first(host: str, path: str, value: str) -> None:
    """The table of a host hides those of all hosts, except where it has no path for the request."""
    made = routes(("", "/far"), ("a.example", "/near"), ("", "/near"), ("*.a.example", "/"), ("*.example", "/"), ("", "/"))
    if value == "a.example /":
        made.put(("a.example",), "/", value)
    if path == "/far":
        made.remove(("*.example",), "/")
    found = made.find(host, path)
    assert found is not None
    assert found[0] == value


def test_no_route() -> None:
    """Without an endpoint at `/`, other paths lead nowhere; an empty table has no route."""
    assert routes(("", "/count")).find("h", "/other") is None
    assert routes(("a", "/")).find("b", "/") is None
    assert Routes[str]().find("h", "/") is None


def test_replace_and_remove() -> None:
    """A second value at a path replaces the first; a removed path falls back to a shorter one."""
    made = routes(("", "/"), ("", "/a/b/c"))
    made.put((), "/a/b/c", "new")
    assert made.find("h", "/a/b/c/d") == ("new", "/a/b/c")
    made.remove((), "/a/b/c")
    assert made.find("h", "/a/b/c/d") == (" /", "")
    assert list(made) == [" /"]
    with pytest.raises(KeyError):
        made.remove((), "/a/b/c")


def test_value_of_several_hosts_is_listed_once() -> None:
    """A value at several hosts is one value."""
    made: Routes[str] = Routes()
    made.put(("a", "b"), "/", "both")
    made.put((), "/", "all")
    assert list(made) == ["both", "all"]


names = st.lists(st.sampled_from("abc"), max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(names, min_size=1), names)
def test_equals_a_linear_search(paths: list[str], path: str) -> None:
    """The lookup returns the same as a search of all paths."""
    matching = [known for known in paths if known == "/" or path == known or path.startswith(known + "/")]
    found = routes(*(("", known) for known in paths)).find("h", path)
    assert (found and found[0]) == (f" {max(matching, key=len)}" if matching else None)
