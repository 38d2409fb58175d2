"""The plugin logs: logs.sh over a WebSocket, and its page in a browser, on a made-up machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.examples.machine import Machine
from tests.support.chromium import Chromium
from tests.support.client import Client
from tests.support.server import Server, command_line, descendants, wait_for_exit, wait_until

LOG = "var/log/dpkg.log"
ODD_FILTERS = ("-e", "--help", "-f /etc/passwd", ".*", "[", "$(touch pwned)", "`touch pwned`", "a; touch pwned", "'\"", " two ")
ODD_NAMES = (
    "/etc/passwd", "../../../etc/passwd", "packages/", "packages;id", "pack", "", "-n", "@", "*",
    "$(touch${IFS}pwned)", "names[$(touch${IFS}pwned)]",
)  # fmt: skip


def test_it_lists_what_may_be_followed(machine: Machine, plugins: Server) -> None:
    """The first message names every log of the script's list, and why one cannot be followed here."""
    machine.log(LOG, "first")
    machine.journal("started")
    (machine.root / "var/log/syslog").mkdir()
    with plugins.connect("/logs/logs.sh") as client:
        message = receive(client)
    assert message["type"] == "logs"
    lacks = {log["name"]: log["lack"] for log in message["logs"]}
    assert list(lacks) == ["journal", "syslog", "auth", "kernel", "packages"]
    assert lacks["journal"] == lacks["packages"] == ""
    assert "may not read" in lacks["syslog"]
    assert lacks["auth"] == f"there is no {machine.root}/var/log/auth.log"


def test_it_says_that_the_journal_is_lacking(machine: Machine, plugins: Server) -> None:
    """A journal that is empty, or not for this user to read, is no log to follow."""
    machine.journal()
    (machine.root / "journal").unlink()
    with plugins.connect("/logs/logs.sh") as client:
        journal = receive(client)["logs"][0]
    assert journal["name"] == "journal"
    assert journal["lack"].startswith("there is no journal")


def test_it_follows(machine: Machine, plugins: Server) -> None:
    """What is in the log comes first, then each line as it is written."""
    machine.log(LOG, "first", "second")
    with following(plugins, "follow packages") as client:
        assert lines(client, 2) == ["first", "second"]
        machine.append(LOG, "third\n")
        assert lines(client, 1) == ["third"]


def test_it_follows_the_journal(machine: Machine, plugins: Server) -> None:
    """The journal is followed like a file."""
    machine.journal("booted")
    with following(plugins, "follow journal") as client:
        assert lines(client, 1) == ["booted"]
        machine.append("journal", "logged in\n")
        assert lines(client, 1) == ["logged in"]


def test_it_follows_a_log_that_is_rotated(machine: Machine, plugins: Server) -> None:
    """When a new file takes the log's name, its lines follow."""
    machine.log(LOG, "old")
    with following(plugins, "follow packages") as client:
        assert lines(client, 1) == ["old"]
        machine.log(LOG, "new")
        assert lines(client, 1) == ["new"]


def test_the_filter_is_applied_to_the_past_and_to_the_future(machine: Machine, plugins: Server) -> None:
    """Only lines that hold the text come, in large letters or small ones, of any alphabet."""
    machine.log(LOG, "install chromium", "remove nano", "KÖLN Chromium")
    with following(plugins, "follow packages CHROM") as client:
        assert lines(client, 2) == ["install chromium", "KÖLN Chromium"]
        machine.append(LOG, "install vim\nupgrade chromium\n")
        assert lines(client, 1) == ["upgrade chromium"]
        client.send_text("follow packages köln")
        assert begin(client) == {"type": "following", "log": "packages", "filter": "köln"}
        assert lines(client, 1) == ["KÖLN Chromium"]


def test_a_filter_is_only_text(machine: Machine, tmp_path: Path) -> None:
    """A filter that looks like an option, a pattern or a command is looked for as it stands."""
    machine.log(LOG, "has nothing", *(f"has {odd} in it" for odd in ODD_FILTERS))
    with machine.serve(cwd=tmp_path) as server, following(server, "follow packages nothing") as client:
        for odd in ODD_FILTERS:
            client.send_text(f"follow packages has {odd} in")
            assert begin(client)["filter"] == f"has {odd} in"
            assert lines(client, 1) == [f"has {odd} in it"]
    assert [path.name for path in tmp_path.iterdir()] == ["machine"]


def test_a_filter_may_begin_with_anything(machine: Machine, plugins: Server) -> None:
    """The whole of a filter is looked for, from its first character, be it a dash or a space, to its last."""
    machine.log(LOG, *ODD_FILTERS)
    with following(plugins, "follow packages nothing") as client:
        for odd in ODD_FILTERS:
            client.send_text(f"follow packages {odd}")
            assert begin(client)["filter"] == odd
            assert lines(client, 1)[0].count(odd) == 1


def test_only_what_is_listed_is_followed(machine: Machine, tmp_path: Path) -> None:
    """Whatever else the browser says instead of a name in the list is refused, and nothing is started for it."""
    machine.log(LOG, "first")
    with machine.serve(cwd=tmp_path) as server, server.connect("/logs/logs.sh") as client:
        receive(client)
        for name in ODD_NAMES:
            client.send_text(f"follow {name} ")
            assert receive(client) == {"type": "refused", "log": name}
        client.send_text("follow packages")
        assert begin(client)["log"] == "packages"
    assert [path.name for path in tmp_path.iterdir()] == ["machine"]


def test_a_stranger_word_is_refused(plugins: Server) -> None:
    """What is no order to follow is refused."""
    with plugins.connect("/logs/logs.sh") as client:
        receive(client)
        client.send_text("eval reboot")
        assert receive(client)["type"] == "refused"


def test_lines_of_all_kinds_are_json(machine: Machine, plugins: Server) -> None:
    """Quotes, backslashes, tabs, control characters, zero bytes and broken UTF-8 in a log leave the messages JSON."""
    odd = 'say "hi" \\n \\ \t \x1b[31mred\x1b[0m \x00 <script> ö \udcff & done'
    machine.log(LOG, odd)
    with following(plugins, "follow packages") as client:
        text = lines(client, 1)[0]
    assert text.startswith('say "hi" \\n \\ \t  [31mred [0m ')
    assert text.endswith("<script> ö \ufffd & done")


def test_a_long_line_is_cut(machine: Machine, plugins: Server) -> None:
    """A line of any length is shown up to the script's limit, and says that it was cut."""
    machine.log(LOG, "ö" * 100_000)
    with following(plugins, "follow packages") as client:
        assert lines(client, 1) == ["ö" * 1500 + " …"]


def programs(server: Server) -> list[int]:
    """What a server runs, its own guard and spawn server aside."""
    own = {*server.spawn_servers(), *(pid for pid in descendants(server.pid) if "guard" in command_line(pid))}
    return [pid for pid in descendants(server.pid) if pid not in own]


def test_nothing_of_it_outlives_the_visit(machine: Machine, plugins: Server) -> None:
    """When the browser goes, the script and all that it has started to follow are ended."""
    machine.log(LOG, "first")
    with following(plugins, "follow packages first") as client:
        lines(client, 1)
        family = programs(plugins)
        assert any(command_line(pid).startswith("tail ") for pid in family)
        client.send_text("follow packages other")
        begin(client)
        family += programs(plugins)
    for pid in family:
        wait_for_exit(pid)


def test_a_new_filter_ends_the_old_follower(machine: Machine, plugins: Server) -> None:
    """However often the filter changes, one follower runs."""
    machine.log(LOG, "first")
    with following(plugins, "follow packages first") as client:
        for number in range(10):
            client.send_text(f"follow packages {number}")
            begin(client)
        # The new follower may not have become `tail` yet when it is announced.
        wait_until(lambda: len([pid for pid in descendants(plugins.pid) if command_line(pid).startswith("tail ")]) == 1, "one tail")


async def test_the_page_filters(machine: Machine, plugins: Server, browser: Chromium) -> None:
    """The page shows the log, sends what is typed into the box, and marks it in the lines, which are text and never HTML."""
    attack = "<img src=x onerror=\"document.title='pwned'\">"
    machine.log(LOG, "install vim", f"install chromium {attack}")
    page = await browser.open(f"http://127.0.0.1:{plugins.port}/logs/")
    await page.wait_for("document.querySelectorAll('#lines li').length === 2")
    assert await page.evaluate("document.querySelector('select').value") == "packages"

    await page.click("input")
    await page.type("Chrom")
    await page.wait_for("document.querySelector('#lines mark')")
    assert await page.evaluate("[...lines.children].map(line => line.textContent)") == [f"install chromium {attack}"]
    assert await page.evaluate("[...lines.querySelectorAll('mark')].map(mark => mark.textContent)") == ["chrom"]

    machine.append(LOG, "install nano\nremove chromium\n")
    await page.wait_for("document.querySelectorAll('#lines li').length === 2")
    assert "2 lines with “Chrom”" in await page.evaluate("about.textContent")
    assert await page.evaluate("document.title") == "Logs"
    assert await page.evaluate("location.hash") == "#log=packages&filter=Chrom"
    assert page.errors == []


async def test_the_page_keeps_a_bounded_tail(machine: Machine, plugins: Server, browser: Chromium) -> None:
    """However many lines come, the page keeps a thousand, counts all, and stays where the reader has scrolled to."""
    machine.log(LOG, "first")
    page = await browser.open(f"http://127.0.0.1:{plugins.port}/logs/")
    await page.wait_for("document.querySelectorAll('#lines li').length === 1")
    machine.append(LOG, "".join(f"line {number}\n" for number in range(3000)))
    await page.wait_for("about.textContent.startsWith('3001 lines')")
    assert await page.evaluate("document.querySelectorAll('#lines li').length") == 1000
    await page.wait_for("isAtEnd && lines.scrollTop > 0 && !document.querySelector('#newer').checkVisibility()")

    await page.evaluate("lines.scrollTop = 100")
    await page.wait_for("!isAtEnd")
    machine.append(LOG, "news\n")
    await page.wait_for("document.querySelector('#newer').checkVisibility()")
    assert await page.evaluate("lines.scrollTop") < 200
    await page.click("#newer")
    await page.wait_for("isAtEnd && !document.querySelector('#newer').checkVisibility()")


async def test_the_page_says_that_there_is_no_log(machine: Machine, plugins: Server, browser: Chromium) -> None:
    """Where nothing can be followed, the page says so, and why for each log."""
    machine.journal()
    (machine.root / "journal").unlink()
    page = await browser.open(f"http://127.0.0.1:{plugins.port}/logs/")
    words = await page.wait_for("lacks.checkVisibility() && lacks.textContent")
    assert "No log can be followed here" in words
    assert f"packages: there is no {machine.root}/{LOG}." in words
    assert not await page.evaluate("form.checkVisibility()")


def following(server: Server, order: str) -> Client:
    """Connect, and let the script follow what is ordered."""
    client = server.connect("/logs/logs.sh")
    assert receive(client)["type"] == "logs"
    client.send_text(order)
    assert begin(client)["type"] == "following"
    return client


def begin(client: Client) -> Any:
    """Pass over what still comes of the log before; return the message that begins the next."""
    while (message := receive(client))["type"] in {"line", "ended"}:
        pass
    return message


def lines(client: Client, count: int) -> list[str]:
    """The next messages, which must be lines."""
    messages = [receive(client) for _ in range(count)]
    assert {message["type"] for message in messages} <= {"line"}, messages
    return [message["text"] for message in messages]


def receive(client: Client) -> Any:
    return json.loads(client.receive_text())
