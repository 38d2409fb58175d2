"""The plugin logs: logs.sh over a WebSocket, and its page in a browser, on a simulated machine."""

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


def test_list_of_logs(machine: Machine, plugins: Server) -> None:
    """The first message names every log in the script's list, with the reason for each log that is unavailable."""
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


def test_unavailable_journal(machine: Machine, plugins: Server) -> None:
    """A journal that is empty or unreadable for this user is unavailable."""
    machine.journal()
    (machine.root / "journal").unlink()
    with plugins.connect("/logs/logs.sh") as client:
        journal = receive(client)["logs"][0]
    assert journal["name"] == "journal"
    assert journal["lack"].startswith("there is no journal")


def test_follow_a_log(machine: Machine, plugins: Server) -> None:
    """The script sends the content of the log, then each new line."""
    machine.log(LOG, "first", "second")
    with following(plugins, "follow packages") as client:
        assert lines(client, 2) == ["first", "second"]
        machine.append(LOG, "third\n")
        assert lines(client, 1) == ["third"]


def test_follow_the_journal(machine: Machine, plugins: Server) -> None:
    """The script follows the journal like a file."""
    machine.journal("booted")
    with following(plugins, "follow journal") as client:
        assert lines(client, 1) == ["booted"]
        machine.append("journal", "logged in\n")
        assert lines(client, 1) == ["logged in"]


def test_follow_a_rotated_log(machine: Machine, plugins: Server) -> None:
    """When a new file takes the name of the log, the script sends its lines."""
    machine.log(LOG, "old")
    with following(plugins, "follow packages") as client:
        assert lines(client, 1) == ["old"]
        machine.log(LOG, "new")
        assert lines(client, 1) == ["new"]


def test_filter_applies_to_old_and_new_lines(machine: Machine, plugins: Server) -> None:
    """The script sends only lines that contain the text, without regard to case, in any alphabet."""
    machine.log(LOG, "install chromium", "remove nano", "KÖLN Chromium")
    with following(plugins, "follow packages CHROM") as client:
        assert lines(client, 2) == ["install chromium", "KÖLN Chromium"]
        machine.append(LOG, "install vim\nupgrade chromium\n")
        assert lines(client, 1) == ["upgrade chromium"]
        client.send_text("follow packages köln")
        assert begin(client) == {"type": "following", "log": "packages", "filter": "köln"}
        assert lines(client, 1) == ["KÖLN Chromium"]


def test_filter_is_plain_text(machine: Machine, tmp_path: Path) -> None:
    """A filter that looks like an option, a pattern or a command is plain text."""
    machine.log(LOG, "has nothing", *(f"has {odd} in it" for odd in ODD_FILTERS))
    with machine.serve(cwd=tmp_path) as server, following(server, "follow packages nothing") as client:
        for odd in ODD_FILTERS:
            client.send_text(f"follow packages has {odd} in")
            assert begin(client)["filter"] == f"has {odd} in"
            assert lines(client, 1) == [f"has {odd} in it"]
    assert [path.name for path in tmp_path.iterdir()] == ["machine"]


def test_filter_may_begin_with_any_character(machine: Machine, plugins: Server) -> None:
    """The whole filter counts, from the first to the last character, even a dash or a space."""
    machine.log(LOG, *ODD_FILTERS)
    with following(plugins, "follow packages nothing") as client:
        for odd in ODD_FILTERS:
            client.send_text(f"follow packages {odd}")
            assert begin(client)["filter"] == odd
            assert lines(client, 1)[0].count(odd) == 1


def test_other_names_are_rejected(machine: Machine, tmp_path: Path) -> None:
    """The script rejects every name that is not in its list, and starts no process for it."""
    machine.log(LOG, "first")
    with machine.serve(cwd=tmp_path) as server, server.connect("/logs/logs.sh") as client:
        receive(client)
        for name in ODD_NAMES:
            client.send_text(f"follow {name} ")
            assert receive(client) == {"type": "refused", "log": name}
        client.send_text("follow packages")
        assert begin(client)["log"] == "packages"
    assert [path.name for path in tmp_path.iterdir()] == ["machine"]


def test_unknown_command_is_rejected(plugins: Server) -> None:
    """The script rejects a line that is not a valid command."""
    with plugins.connect("/logs/logs.sh") as client:
        receive(client)
        client.send_text("eval reboot")
        assert receive(client)["type"] == "refused"


def test_any_line_becomes_json(machine: Machine, plugins: Server) -> None:
    """Quotes, backslashes, tabs, control characters, NUL bytes and invalid UTF-8 in a log result in valid JSON."""
    odd = 'say "hi" \\n \\ \t \x1b[31mred\x1b[0m \x00 <script> ö \udcff & done'
    machine.log(LOG, odd)
    with following(plugins, "follow packages") as client:
        text = lines(client, 1)[0]
    assert text.startswith('say "hi" \\n \\ \t  [31mred [0m ')
    assert text.endswith("<script> ö \ufffd & done")


def test_long_line_is_truncated(machine: Machine, plugins: Server) -> None:
    """A long line is truncated at the script's limit and marked as truncated."""
    machine.log(LOG, "ö" * 100_000)
    with following(plugins, "follow packages") as client:
        assert lines(client, 1) == ["ö" * 1500 + " …"]


def programs(server: Server) -> list[int]:
    """Return the processes of a server, without its guard and spawn server."""
    own = {*server.spawn_servers(), *(pid for pid in descendants(server.pid) if "guard" in command_line(pid))}
    return [pid for pid in descendants(server.pid) if pid not in own]


def test_no_process_outlives_the_session(machine: Machine, plugins: Server) -> None:
    """When the browser disconnects, the script and all its followers end."""
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


def test_new_filter_ends_the_old_follower(machine: Machine, plugins: Server) -> None:
    """However often the filter changes, only one follower runs."""
    machine.log(LOG, "first")
    with following(plugins, "follow packages first") as client:
        for number in range(10):
            client.send_text(f"follow packages {number}")
            begin(client)
        # The script may announce the new follower before that process has become `tail`.
        wait_until(lambda: len([pid for pid in descendants(plugins.pid) if command_line(pid).startswith("tail ")]) == 1, "one tail")


async def test_page_filters(machine: Machine, plugins: Server, browser: Chromium) -> None:
    """The page shows the log as plain text, sends the text of the filter, and marks its matches."""
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


async def test_page_keeps_a_bounded_tail(machine: Machine, plugins: Server, browser: Chromium) -> None:
    """The page keeps a thousand lines, counts all of them, and stays where the user has scrolled."""
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


async def test_page_without_logs(machine: Machine, plugins: Server, browser: Chromium) -> None:
    """If no log is available, the page says so, with the reason for each log."""
    machine.journal()
    (machine.root / "journal").unlink()
    page = await browser.open(f"http://127.0.0.1:{plugins.port}/logs/")
    words = await page.wait_for("lacks.checkVisibility() && lacks.textContent")
    assert "No log can be followed here" in words
    assert f"packages: there is no {machine.root}/{LOG}." in words
    assert not await page.evaluate("form.checkVisibility()")


def following(server: Server, order: str) -> Client:
    """Connect, and let the script follow a log."""
    client = server.connect("/logs/logs.sh")
    assert receive(client)["type"] == "logs"
    client.send_text(order)
    assert begin(client)["type"] == "following"
    return client


def begin(client: Client) -> Any:
    """Skip the messages about the previous log; return the message that begins the next log."""
    while (message := receive(client))["type"] in {"line", "ended"}:
        pass
    return message


def lines(client: Client, count: int) -> list[str]:
    """Return the next messages, which must be lines."""
    messages = [receive(client) for _ in range(count)]
    assert {message["type"] for message in messages} <= {"line"}, messages
    return [message["text"] for message in messages]


def receive(client: Client) -> Any:
    return json.loads(client.receive_text())
