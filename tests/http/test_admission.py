"""The gate before a WebSocket: the order of its checks, each refusal as the client receives it, and the slots."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.rules.requests import make_request
from wsbridge.errors import Busy, Refused
from wsbridge.http.admission import NOT_FOUND, Admission, Gate, Located, is_upgrade
from wsbridge.metrics import Metrics
from wsbridge.rules.environ import Script
from wsbridge.rules.origins import Rules, parse_allowed
from wsbridge.rules.paths import PathType, make_lookup
from wsbridge.rules.request import Request
from wsbridge.sessions.limiter import Limiter
from wsbridge.sessions.registry import Registry

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The key of RFC 6455, section 1.3, and its accept value."""
HEADERS = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}
OWN = "http://example.org:8080"
VERSION = {"Sec-WebSocket-Version": "13"}
CAT = ("/bin/cat",)
FOUND = Located(("/srv/scripts/tick",), Script("/tick", "/now"))
UNUSABLE = Located(("/srv/scripts/tick",), Script("/tick", ""), "it is not executable")


def free_slots(limiter: Limiter) -> int:
    """Return how many of at most three slots are free."""
    free = [limiter.acquire() for _ in range(3)].count(True)
    for _ in range(free):
        limiter.release()
    return free


def no_disk(walked: str) -> PathType:
    raise AssertionError(walked)


def make_gate(*, slots: int = 1, **options: Any) -> tuple[Gate, Limiter]:
    registry = Registry(max_sessions=slots, metrics=Metrics())
    values: dict[str, Any] = {"origins": Rules(), "subprotocols": (), "argv": CAT, "scripts": None, "busy_close": False, **options}
    return Gate(registry=registry, **values), registry.limiter


def upgrade(*, method: str = "GET", path: str = "/", protocol: str = "HTTP/1.1", **headers: str | None) -> Request:
    """Return a valid request for a WebSocket with the changes of the test; None removes a header."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = tuple((name, value) for name, value in {**HEADERS, **given}.items() if value is not None)
    return make_request(*lines, method=method, path=path, protocol=protocol)


def refusal(gate: Gate, request: Request, located: Located | None = None) -> Refused:
    with pytest.raises(Refused) as refused:
        gate.admit(request, located)
    return refused.value


# Requests that the gate admits


def test_admission() -> None:
    """For a valid request, the gate returns the program, the script and the accept value, and reserves one slot."""
    gate, limiter = make_gate(slots=2)
    assert gate.admit(upgrade(path="/a/b")) == Admission(CAT, Script("/", "/a/b"), ACCEPT, None)
    assert free_slots(limiter) == 1
    gate.admit(upgrade())
    assert free_slots(limiter) == 0


def test_located() -> None:
    """A caller that has located the script passes the result, and the gate does not read the disk again."""
    gate, _ = make_gate(argv=(), scripts=("/srv/scripts", no_disk))
    assert gate.admit(upgrade(path="/tick/now"), FOUND) == Admission(FOUND.argv, FOUND.script, ACCEPT, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"Content_Length": "0"},
        {"Content_Length": " 00 "},
        {"Sec_WebSocket_Version": "8, 13"},
        {"Sec_WebSocket_Key": f" {KEY} "},
        {"Origin": OWN},
        {"Origin": None},
    ],
)
def test_correct_requests(changes: dict[str, str | None]) -> None:
    """A request without a body, with version 13 in its list and with spaces around its key is valid."""
    assert make_gate()[0].admit(upgrade(**changes)).accept == ACCEPT


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, None),
        ("", None),
        ("a", "a"),
        ("b, a", "b"),
        ("a,b", "a"),
        ("c , b", "b"),
        ("c", None),
        ("A", None),
        ("ab", None),
        (",,b", "b"),
    ],
)
def test_subprotocol(offered: str | None, chosen: str | None) -> None:
    """The gate selects the first subprotocol in the client's list that the server supports, and refuses no client for its list."""
    gate, _ = make_gate(subprotocols=("a", "b"))
    assert gate.admit(upgrade(Sec_WebSocket_Protocol=offered)).subprotocol == chosen


# Refusals, and their order

NO_SLOT, NO_SCRIPT, METHOD, OLD, BODY, WRONG_VERSION, ORIGIN, WRONG_KEY, NOT_EXECUTABLE = REFUSALS = (
    (429, "no slot is free (max_programs)", {}, "429 Too Many Requests\n"),
    (404, "no such script", {}, "404 Not Found\n"),
    (405, "the method POST is not allowed here", {"Allow": "GET"}, None),
    (
        400,
        "a WebSocket requires HTTP/1.1, but this request uses HTTP/1.0; if a proxy sent it, configure the proxy for HTTP/1.1",
        {},
        None,
    ),
    (400, "a WebSocket request must not have a body", {}, None),
    (400, "Sec-WebSocket-Version must be 13", VERSION, None),
    (403, "Same origin policy mismatch", VERSION, None),
    (400, "Sec-WebSocket-Key must be 16 bytes in base64", VERSION, None),
    (500, "the server cannot run /tick: it is not executable", {}, None),
)
"""Status, detail, headers and body of each refusal, in the order of the checks."""
PAIRS = [pair for pair in combinations(REFUSALS, 2) if pair != (NO_SCRIPT, NOT_EXECUTABLE)]
"""These faults exclude each other: a missing script is not a file without execute permission."""

Refusal = tuple[int, str, dict[str, str], str | None]


def try_with(faults: tuple[Refusal, ...], *, busy_close: bool = False) -> tuple[Refused, int]:
    """Send a request with some faults; return the refusal, and the number of free slots after it."""
    gate, limiter = make_gate(argv=(), scripts=("/srv/scripts", no_disk), origins=Rules(same=True), busy_close=busy_close)
    if NO_SLOT in faults:
        limiter.acquire()
    request = upgrade(
        method="POST" if METHOD in faults else "GET",
        protocol="HTTP/1.0" if OLD in faults else "HTTP/1.1",
        Content_Length="1" if BODY in faults else None,
        Sec_WebSocket_Version="8" if WRONG_VERSION in faults else "13",
        Origin="https://other.example" if ORIGIN in faults else OWN,
        Sec_WebSocket_Key="short" if WRONG_KEY in faults else KEY,
    )
    refused = refusal(gate, request, NOT_FOUND if NO_SCRIPT in faults else UNUSABLE if NOT_EXECUTABLE in faults else FOUND)
    return refused, free_slots(limiter)


@pytest.mark.parametrize("fault", REFUSALS, ids=lambda fault: fault[1])
def test_refusals(fault: Refusal) -> None:
    """The gate refuses a request with one fault with the status, the headers and the body of the fault, and releases its slot."""
    refused, free = try_with((fault,))
    assert (refused.status, refused.detail, refused.headers, refused.body) == fault
    assert free == (0 if fault is NO_SLOT else 1)


@pytest.mark.parametrize("faults", PAIRS, ids=lambda faults: f"{faults[0][1]}, {faults[1][1]}")
def test_order(faults: tuple[Refusal, Refusal]) -> None:
    """The gate refuses a request with two faults for the fault of the earlier check."""
    refused, free = try_with(faults)
    assert refused.detail == faults[0][1]
    assert free == (0 if NO_SLOT in faults else 1)


@pytest.mark.parametrize("method", ["BREW", "get", ""])
def test_unknown_method(method: str) -> None:
    """The gate refuses a method that no resource supports with 501."""
    gate, limiter = make_gate()
    assert refusal(gate, upgrade(method=method)).status == 501
    assert free_slots(limiter) == 1


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "CONNECT", "PUT"])
def test_other_methods(method: str) -> None:
    """The gate refuses every known method but GET with 405, and names GET as the only allowed method."""
    refused = refusal(make_gate()[0], upgrade(method=method))
    assert (refused.status, refused.headers) == (405, {"Allow": "GET"})


@pytest.mark.parametrize("body", [{"Content_Length": "1"}, {"Content_Length": "x"}, {"Transfer_Encoding": "chunked"}])
def test_body(body: dict[str, str | None]) -> None:
    """The gate refuses a request whose header section announces a body in any way."""
    assert refusal(make_gate()[0], upgrade(**body)).detail == BODY[1]


@pytest.mark.parametrize("version", [None, "", "8", "1313", "013", "13.0"])
def test_version(version: str | None) -> None:
    """The gate refuses a request without version 13, and names the supported version (RFC 6455, section 4.4)."""
    refused = refusal(make_gate()[0], upgrade(Sec_WebSocket_Version=version))
    assert (refused.status, refused.headers) == (400, VERSION)


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "=",
        "x" * 24,
        "AAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAAA",
        KEY[:-1],
        KEY[:-2],
        KEY + KEY,
        f"{KEY}, {KEY}",
        "AAAAAAAAAAA AAAAAAAAAAA==",
        "AAAAAAAAAAAAAAAAAAAA-_==",
        "ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄ==",
        "\udcff",
    ],
)
def test_key(key: str | None) -> None:
    """The gate refuses a key that is not exactly 16 bytes in base64 (RFC 6455, section 4.2.1)."""
    gate, limiter = make_gate()
    assert refusal(gate, upgrade(Sec_WebSocket_Key=key)).detail == WRONG_KEY[1]
    assert free_slots(limiter) == 1


def test_two_keys() -> None:
    """The gate refuses a request with two keys."""
    request = make_request(*HEADERS.items(), ("Sec-WebSocket-Key", KEY))
    assert refusal(make_gate()[0], request).detail == WRONG_KEY[1]


def test_origins() -> None:
    """The gate refuses by the Origin header alone: a page cannot omit that header from a WebSocket request."""
    gate, _ = make_gate(origins=Rules(allowed=parse_allowed("example.org")))
    assert gate.admit(upgrade(Origin=OWN)).accept == ACCEPT
    gate, _ = make_gate(origins=Rules(allowed=parse_allowed("example.org")))
    assert refusal(gate, upgrade(Referer=f"{OWN}/page")).detail == "Origin is not listed in allowed list"
    assert refusal(gate, upgrade(Origin="other")).detail == "Origin 'other' is not a URI"


def test_slot_after_refusals() -> None:
    """Refused requests consume no slot, however many there are."""
    gate, limiter = make_gate(slots=2)
    for _ in range(10):
        refusal(gate, upgrade(Sec_WebSocket_Key=None))
    assert free_slots(limiter) == 2


def test_slot_after_an_error() -> None:
    """The gate releases the slot if the disk fails."""

    def broken(walked: str) -> PathType:
        raise OSError(walked)

    gate, limiter = make_gate(argv=(), scripts=("/srv/scripts", broken))
    with pytest.raises(OSError, match="tick"):
        gate.admit(upgrade(path="/tick"))
    assert free_slots(limiter) == 1


# No free slot


def test_setting_of_the_limit() -> None:
    """The refusal names the setting that limits the slots."""
    gate, limiter = make_gate()
    limiter.acquire()
    assert refusal(gate, upgrade()).detail == limiter.full == "no slot is free (max_programs)"


@pytest.mark.parametrize("busy_close", [False, True])
def test_no_slots_at_shutdown(busy_close: bool) -> None:
    """A server that admits no further sessions refuses them like a server without a free slot."""
    gate, limiter = make_gate(busy_close=busy_close)
    limiter.refuse_all()
    with pytest.raises(Busy if busy_close else Refused, match="no slot is free"):
        gate.admit(upgrade())


def test_busy() -> None:
    """With --busy=close, the gate raises Busy with the values of the handshake for a valid request without a free slot."""
    gate, limiter = make_gate(busy_close=True, subprotocols=("a",))
    gate.admit(upgrade())
    with pytest.raises(Busy, match="no slot is free \\(max_programs\\)") as busy:
        gate.admit(upgrade(Sec_WebSocket_Protocol="b, a"))
    assert (busy.value.accept, busy.value.subprotocol) == (ACCEPT, "a")
    assert free_slots(limiter) == 0
    limiter.release()
    assert free_slots(limiter) == 1


def test_busy_with_a_free_slot() -> None:
    """With --busy=close, the gate admits and refuses as usual while a slot is free."""
    gate, limiter = make_gate(busy_close=True)
    assert refusal(gate, upgrade(Sec_WebSocket_Key=None)).status == 400
    assert gate.admit(upgrade()).accept == ACCEPT
    assert free_slots(limiter) == 0


@pytest.mark.parametrize("fault", [METHOD, OLD, BODY, WRONG_VERSION, ORIGIN, WRONG_KEY], ids=lambda fault: fault[1])
def test_wrong_request_while_busy(fault: Refusal) -> None:
    """With --busy=close, the gate refuses an invalid request for its own fault, since it cannot be upgraded."""
    refused, free = try_with((NO_SLOT, fault), busy_close=True)
    assert (refused.status, refused.detail, refused.headers, refused.body) == fault
    assert free == 0


# Scripts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of scripts, and a program outside it whose path begins with the same text."""
    root = tmp_path / "scripts"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "scripts2").mkdir()
    for path in (root / "tick", root / "sub" / "tock", root / "plain", tmp_path / "scripts2" / "outside"):
        path.write_text("#!/bin/sh\n")
        path.chmod(0o644 if path.name == "plain" else 0o755)
    (root / "out").symlink_to(tmp_path / "scripts2" / "outside")
    (root / "in").symlink_to(root / "sub" / "tock")
    return root.resolve()


def scripts_gate(folder: Path) -> Gate:
    return make_gate(argv=(), scripts=(str(folder), make_lookup(str(folder))))[0]


@pytest.mark.parametrize(
    ("path", "file", "script"),
    [
        ("/tick", "tick", Script("/tick", "")),
        ("/tick/", "tick", Script("/tick", "/")),
        ("/tick/a/b", "tick", Script("/tick", "/a/b")),
        ("/sub/tock/a", "sub/tock", Script("/sub/tock", "/a")),
        ("/in", "sub/tock", Script("/in", "")),
    ],
)
def test_locate(folder: Path, path: str, file: str, script: Script) -> None:
    """The path selects the program by its real path, with links resolved, and the script by the path of the request."""
    assert scripts_gate(folder).locate(upgrade(path=path)) == Located((str(folder / file),), script)


@pytest.mark.parametrize("path", ["/", "/sub", "/sub/", "/other", "/out", "/ticks", "/tick\0", "/../scripts2/outside"])
def test_missing_scripts(folder: Path, path: str) -> None:
    """A directory, a missing file and a link out of the directory are not scripts, and their requests receive 404."""
    gate = scripts_gate(folder)
    assert gate.locate(upgrade(path=path)) == NOT_FOUND
    assert refusal(gate, upgrade(path=path)).status == 404


def test_link_that_changes(folder: Path) -> None:
    """A link that points out of the directory at the time of its resolution is not a script, even if the walk found a file."""
    gate, _ = make_gate(argv=(), scripts=(str(folder), lambda walked: PathType.FILE))
    assert gate.locate(upgrade(path="/out")) == NOT_FOUND
    assert gate.locate(upgrade(path="/tick")).argv == (str(folder / "tick"),)


def test_locate_in_the_root_directory(folder: Path) -> None:
    """The directory of scripts may be the root directory."""
    gate, _ = make_gate(argv=(), scripts=("/", make_lookup("/")))
    assert gate.locate(upgrade(path=f"{folder}/tick")).argv == (str(folder / "tick"),)


def test_not_executable(folder: Path) -> None:
    """The refusal of a script without execute permission names the script, but no path on the server's disk."""
    gate = scripts_gate(folder)
    located = gate.locate(upgrade(path="/plain/a"))
    assert located == Located((str(folder / "plain"),), Script("/plain", "/a"), "it is not executable")
    refused = refusal(gate, upgrade(path="/plain/a"))
    assert (refused.status, refused.detail) == (500, "the server cannot run /plain: it is not executable")
    assert str(folder) not in refused.detail


def test_disk() -> None:
    """Only a gate with scripts reads the disk: a gate with one program runs it at every path."""
    gate, _ = make_gate()
    assert not gate.asks_disk
    assert gate.locate(upgrade(path="/any/path")) == Located(CAT, Script("/", "/any/path"))
    assert make_gate(argv=(), scripts=("/srv", no_disk))[0].asks_disk


# Requests that ask for a WebSocket


@pytest.mark.parametrize(
    ("upgrade_to", "connection", "is_one"),
    [
        ("websocket", "Upgrade", True),
        ("WebSocket", "keep-alive, upgrade", True),
        ("h2c, websocket", "UPGRADE", True),
        ("websocket", None, False),
        (None, "Upgrade", False),
        ("websocket", "keep-alive", False),
        ("h2c", "Upgrade", False),
        ("websockets", "Upgrade", False),
        ("websocket", "Upgrades", False),
        ("", "", False),
    ],
)
def test_is_upgrade(upgrade_to: str | None, connection: str | None, is_one: bool) -> None:
    """A request asks for a WebSocket if both its headers say so, in any case and in any place of a list."""
    assert is_upgrade(upgrade(Upgrade=upgrade_to, Connection=connection)) is is_one
