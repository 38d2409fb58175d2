"""The plugin services: services.sh over a WebSocket, and its page in a browser, on a simulated machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.examples.machine import Machine
from tests.support.chromium import Chromium, Page
from tests.support.client import Client, Close
from tests.support.server import Server

CRON = "active running Regular jobs"
ODD_ORDERS = (
    "start nginx.service",
    "stop ssh.service",
    "stop systemd-journald.service",
    "restart cron.service",
    "start cron",
    "start",
    "start cron.service; touch pwned",
    "start cron.service ssh.service",
    "start $(touch pwned)",
    "start `touch pwned`",
    "start -- cron.service",
    "stop --force",
    "start cron.service|start stop|",
    "start *",
    "$(touch pwned)",
    "start stop cron.service",
    "",
)


def test_list_of_services(machine: Machine, plugins: Server) -> None:
    """The first message has the state of each service in the list, the permitted actions, and the reason for each refusal."""
    machine.systemd(cron=CRON, ssh='active running "Secure" \\ shell', cups="failed failed Printing")
    with plugins.connect("/services/services.sh") as client:
        assert receive(client)["type"] == "rights"
        services = {service["unit"]: service for service in receive(client)["services"]}
    assert services["cron.service"] == {
        "unit": "cron.service",
        "description": "Regular jobs",
        "load": "loaded",
        "active": "active",
        "sub": "running",
        "may": "start stop",
        "why": "",
    }
    assert services["ssh.service"]["may"] == "start"
    assert services["ssh.service"]["why"] == "Stopping it could shut you out of this machine."
    assert services["ssh.service"]["description"] == '"Secure" \\ shell'
    assert services["cups.service"]["active"] == "failed"
    assert services["bluetooth.service"]["load"] == "not-found"


def test_start_and_stop(machine: Machine, plugins: Server) -> None:
    """The script passes a valid command to systemd with the name from the list, and returns its result and the new state."""
    machine.systemd(cron=CRON)
    with plugins.connect("/services/services.sh") as client:
        states(client)
        for verb, active in (("stop", "inactive"), ("start", "active")):
            client.send_text(f"{verb} cron.service")
            assert receive(client) == {"type": "result", "result": "obeyed", "verb": verb, "unit": "cron.service", "text": ""}
            assert states(client)["cron.service"] == active
    assert machine.orders == ["--no-ask-password stop -- cron.service", "--no-ask-password start -- cron.service"]


def test_other_services_are_rejected(machine: Machine, tmp_path: Path) -> None:
    """The script rejects every name that is not in its list, and never uses it in a command."""
    machine.systemd(cron=CRON, ssh="active running Secure Shell")
    with machine.serve(cwd=tmp_path) as server, server.connect("/services/services.sh") as client:
        states(client)
        for order in ODD_ORDERS:
            client.send_text(order)
            assert receive(client)["result"] == "refused", order
    assert machine.orders == []
    assert [path.name for path in tmp_path.iterdir()] == ["machine"]


def test_external_change(machine: Machine, plugins: Server) -> None:
    """The script reports a change of a service's state, and sends nothing without a change."""
    machine.systemd(cron=CRON)
    with plugins.connect("/services/services.sh") as client:
        assert states(client)["cron.service"] == "active"
        machine.write("services/cron.service", "failed failed Regular jobs\n")
        assert states(client)["cron.service"] == "failed"


def test_refusal_of_systemd(machine: Machine, plugins: Server) -> None:
    """If systemd refuses a command, the script returns the error of systemd."""
    machine.systemd(cron=CRON)
    machine.forbid()
    with plugins.connect("/services/services.sh") as client:
        states(client)
        client.send_text("stop cron.service")
        result = receive(client)
    assert result["result"] == "failed"
    assert result["text"] == "Failed to stop cron.service: Interactive authentication required."


def test_permissions_of_the_script(machine: Machine, plugins: Server) -> None:
    """The script reports whether it runs as root, whether polkit may grant permissions, and whether it may change anything."""
    machine.systemd(cron=CRON)
    machine.user("root", 0)
    assert rights(plugins) == ("", "The script runs as root: systemd does what the list allows.")
    machine.user("pi", 1000)
    lack, words = rights(plugins)
    assert lack == "permission"
    assert "user pi, not as root" in words
    machine.polkit()
    lack, words = rights(plugins)
    assert lack == ""
    assert "asks polkit, which may refuse" in words


def test_without_systemd(plugins: Server) -> None:
    """Without systemd, the script says so and exits normally."""
    with plugins.connect("/services/services.sh") as client:
        message = receive(client)
        assert message["lack"] == "systemd"
        assert client.receive_close() == Close(1000)


def test_systemd_without_an_answer(machine: Machine, plugins: Server) -> None:
    """If systemctl does not list the services, the script returns the error of systemctl."""
    machine.systemd()
    machine.command("systemctl", "#!/bin/sh\necho 'Failed to connect to bus: \"gone\"' >&2\nexit 1\n")
    with plugins.connect("/services/services.sh") as client:
        receive(client)
        assert receive(client) == {"type": "services", "services": [], "lack": 'Failed to connect to bus: "gone"'}


async def test_buttons_start_and_stop(machine: Machine, plugins: Server, browser: Chromium) -> None:
    """Stop asks for a confirmation on the same button, Start starts at once, and both show the result."""
    machine.systemd(cron=CRON)
    machine.user("root", 0)
    page = await open_page(plugins, browser)
    assert await text(page, "cron", ".now") == "Running"
    await page.click(button("cron", "stop"))
    assert await text(page, "cron", ".stop") == "Really stop?"
    assert machine.orders == []
    await page.click(button("cron", "stop"))
    await page.wait_for(f"{inside('cron', '.now')} === 'Stopped' && {inside('cron', '.came')} === 'Stopped.'")
    await page.click(button("cron", "start"))
    await page.wait_for(f"{inside('cron', '.now')} === 'Running' && {inside('cron', '.came')} === 'Started.'")
    assert len(machine.orders) == 2
    assert page.errors == []


async def test_keyboard(machine: Machine, plugins: Server, browser: Chromium) -> None:
    """The keyboard alone can stop and start a service, and the focus stays in its place."""
    machine.systemd(cron=CRON)
    machine.user("root", 0)
    page = await open_page(plugins, browser)
    for _ in range(3):  # the link back, then the two buttons of the first service
        await page.press("Tab")
    assert await page.evaluate("document.activeElement.getAttribute('aria-label')") == "Stop cron.service"
    await page.press("Enter")
    await page.press("Enter")
    await page.wait_for(f"{inside('cron', '.now')} === 'Stopped'")
    await page.press("Shift+Tab")
    assert await page.evaluate("document.activeElement.getAttribute('aria-label')") == "Start cron.service"
    await page.press("Enter")
    await page.wait_for(f"{inside('cron', '.now')} === 'Running'")


async def test_disabled_button(machine: Machine, plugins: Server, browser: Chromium) -> None:
    """A disabled button has no effect, and a text beside it gives the reason."""
    machine.systemd(cron=CRON, ssh="active running Secure Shell", systemd_journald="active running Journal")
    machine.user("root", 0)
    page = await open_page(plugins, browser)
    assert await text(page, "cron", ".may") == "May be started and stopped."
    assert await text(page, "ssh", ".may") == "May be started, not stopped. Stopping it could shut you out of this machine."
    assert await text(page, "systemd-journald", ".may") == "May only be looked at. The system cannot do without it."
    assert await text(page, "bluetooth", ".now") == "Not installed here"
    for _ in range(2):
        await page.click(button("ssh", "stop"))
    assert await text(page, "ssh", ".stop") == "Stop"
    # The answer to a rejected command would arrive before the next messages.
    await page.click(button("cron", "stop"))
    await page.click(button("cron", "stop"))
    await page.wait_for(f"{inside('cron', '.came')} === 'Stopped.'")
    assert await text(page, "ssh", ".came") == ""
    assert machine.orders == ["--no-ask-password stop -- cron.service"]


async def test_page_shows_a_refusal(machine: Machine, plugins: Server, browser: Chromium) -> None:
    """If systemd refuses a command, its error appears under the service, whose state stays the same."""
    machine.systemd(cron=CRON)
    machine.user("pi", 1000)
    machine.polkit()
    machine.forbid()
    page = await open_page(plugins, browser)
    assert "asks polkit" in await page.evaluate("document.querySelector('#rights').textContent")
    for _ in range(2):
        await page.click(button("cron", "stop"))
    words = await page.wait_for(inside("cron", ".came"))
    assert words == "Not done. Failed to stop cron.service: Interactive authentication required."
    assert await text(page, "cron", ".now") == "Running"


async def test_read_only_page(machine: Machine, plugins: Server, browser: Chromium) -> None:
    """Without root and polkit, all buttons are disabled, and the page gives the reason."""
    machine.systemd(cron=CRON)
    machine.user("pi", 1000)
    page = await open_page(plugins, browser)
    assert "it may only look" in await page.evaluate("document.querySelector('#rights').textContent")
    assert await page.evaluate("document.querySelectorAll('button[aria-disabled=false]').length") == 0


async def test_page_without_systemd(plugins: Server, browser: Chromium) -> None:
    """Without systemd, the page says so, and does not reconnect."""
    page = await browser.open(f"http://127.0.0.1:{plugins.port}/services/")
    await page.wait_for("document.body.dataset.state === 'ended'")
    assert "systemd does not run on this machine" in await page.evaluate("document.querySelector('#rights').textContent")
    assert await page.evaluate("document.querySelector('#state').textContent") == "The script has ended.Start it again"


def button(service: str, kind: str) -> str:
    """Return the selector of a service's button."""
    return f'[data-unit="{service}.service"] .{kind}'


def inside(service: str, selector: str) -> str:
    """Return the JavaScript expression for a text in a service's card."""
    return f"document.querySelector('[data-unit=\"{service}.service\"] {selector}').textContent"


async def text(page: Page, service: str, selector: str) -> Any:
    return await page.evaluate(inside(service, selector))


async def open_page(server: Server, browser: Chromium) -> Page:
    page = await browser.open(f"http://127.0.0.1:{server.port}/services/")
    await page.wait_for("document.querySelectorAll('#services li').length === 6")
    return page


def rights(server: Server) -> tuple[str, str]:
    with server.connect("/services/services.sh") as client:
        message = receive(client)
    return message["lack"], message["text"]


def states(client: Client) -> dict[str, str]:
    """Return the state of each service from the next message, except the first message of a connection."""
    message = receive(client)
    if message["type"] == "rights":
        message = receive(client)
    assert message["type"] == "services", message
    return {service["unit"]: service["active"] for service in message["services"]}


def receive(client: Client) -> Any:
    return json.loads(client.receive_text())
