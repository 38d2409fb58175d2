"""The plugin cpu: cpu.sh over a WebSocket, and its page in a browser, on a simulated machine."""

from __future__ import annotations

import json
from typing import Any

from tests.examples.machine import PLUGINS, Machine
from tests.support.chromium import Chromium
from tests.support.client import Client
from tests.support.server import Server

IS_PAINTED = """(canvas => {
    const color = getComputedStyle(canvas).getPropertyValue(%r).trim();
    const wanted = [1, 3, 5].map(at => parseInt(color.slice(at, at + 2), 16));
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255 && wanted.every((part, n) => data[at + n] === part)) return true;
    return false;
})(document.querySelector(%r))"""
"""A JavaScript expression: whether a canvas has a pixel of the colour in a variable of the style sheet."""


def test_description_of_the_machine(machine: Machine, plugins: Server) -> None:
    """The first message names the host, the model and the sensors, and reports nothing missing."""
    machine.write("proc/device-tree/model", "Raspberry Pi 4 Model B\0")
    machine.sensor(0, "cpu-thermal", 48312)
    machine.sensor(1, 'odd "name"\\\t', -5250)
    with plugins.connect("/cpu/cpu.sh") as client:
        first = receive(client)
        assert first["type"] == "machine"
        assert first["model"] == "Raspberry Pi 4 Model B"
        assert first["sensors"][0] == "cpu-thermal"
        assert first["sensors"][1].startswith('odd "name"\\')
        assert first["lacks"] == {}
        assert sample(client)["celsius"] == [48.3, -5.2]


def test_load_between_two_samples(machine: Machine, plugins: Server) -> None:
    """The load is the share of busy ticks since the previous sample: of all processors, then of each."""
    machine.busy(1000, 3000, of=5000)
    with plugins.connect("/cpu/cpu.sh") as client:
        receive(client)
        assert sample(client)["busy"] == [None, None, None]
        machine.busy(1025, 3100, of=5100)
        while (busy := sample(client)["busy"]) == [None, None, None]:
            pass
        assert busy == [62.5, 25.0, 100.0]


def test_decreasing_idle_count(machine: Machine, plugins: Server) -> None:
    """The kernel may reduce its count of idle ticks; the share still stays between 0 and 100."""
    with plugins.connect("/cpu/cpu.sh") as client:
        receive(client)
        sample(client)
        machine.write("proc/stat", "cpu  300 0 0 150 0 0 0 0 0 0\ncpu0 100 0 0 250 0 0 0 0 0 0\ncpu1 200 0 0 -10 0 0 0 0 0 0\n")
        while None in (busy := sample(client)["busy"]):
            pass
        assert all(0 <= share <= 100 for share in busy)


def test_any_line_requests_a_sample(plugins: Server) -> None:
    """Each line requests a sample: twenty lines return twenty samples without a wait of twenty seconds."""
    with plugins.connect("/cpu/cpu.sh") as client:
        receive(client)
        for _ in range(20):
            client.send_text("now")
        assert [sample(client)["load"] for _ in range(20)] == [[0.52, 0.41, 0.3]] * 20


def test_missing_sources(machine: Machine, plugins: Server) -> None:
    """On a machine without a temperature sensor, /proc/stat and /proc/loadavg, the script reports each and continues."""
    (machine.root / "proc/stat").unlink()
    (machine.root / "proc/loadavg").unlink()
    with plugins.connect("/cpu/cpu.sh") as client:
        lacks = receive(client)["lacks"]
        assert lacks == {
            "warm": f"no temperature sensor found at {machine.root}/sys/class/thermal",
            "busy": f"no processor figures found at {machine.root}/proc/stat",
            "load": f"no load average found at {machine.root}/proc/loadavg",
        }
        assert sample(client) == {"type": "sample", "busy": [], "celsius": []}


def test_unreadable_sensor_is_null(machine: Machine, plugins: Server) -> None:
    """A sensor that temporarily fails does not affect the other sensors."""
    machine.sensor(0, "cpu-thermal", 48000)
    machine.sensor(1, "modem", "")
    with plugins.connect("/cpu/cpu.sh") as client:
        receive(client)
        assert sample(client)["celsius"] == [48.0, None]
        (machine.root / "sys/class/thermal/thermal_zone0/temp").unlink()
        machine.sensor(1, "modem", 39960)
        while (celsius := sample(client)["celsius"]) == [48.0, None]:
            pass
        assert celsius in ([None, None], [None, 40.0])


def test_real_machine() -> None:
    """On the real machine, the script finds processors, and names everything that it does not find."""
    with Server(f"--dir={PLUGINS}") as server, server.connect("/cpu/cpu.sh") as client:
        first = receive(client)
        measured = sample(client)
    assert first["sensors"] or "warm" in first["lacks"]
    assert len(measured["busy"]) >= 2
    assert len(measured["load"]) == 3


async def test_page_shows_and_plots(machine: Machine, plugins: Server, browser: Chromium) -> None:
    """The page shows the figures as text, draws both plots, and shows a point of them for the arrow keys."""
    machine.sensor(0, "cpu-thermal", 48312)
    page = await browser.open(f"http://127.0.0.1:{plugins.port}/cpu/")
    await page.wait_for("state.textContent.includes('Connected')")
    await page.wait_for("celsius.textContent === '48.3'")
    assert not await page.evaluate(IS_PAINTED % ("--accent", "#busy-plot"))
    for round in range(1, 4):
        machine.busy(50 * round, 100 * round, of=100 + 100 * round)
        await page.wait_for(f"busyPlot.runs().flat().length >= {round}")
    assert await page.evaluate("busyPlot.points.filter(point => point.value !== null).map(point => point.value)") == [75, 75, 75]
    await page.wait_for(IS_PAINTED % ("--accent", "#busy-plot"))
    await page.wait_for(IS_PAINTED % ("--warm", "#warm-plot"))

    await page.evaluate("document.querySelector('#busy-plot').focus()")
    await page.press("ArrowLeft")
    assert (await page.evaluate("document.querySelector('#busy-reading').textContent")).startswith("75.0 % busy at ")
    assert page.errors == []


async def test_page_names_missing_sources(machine: Machine, plugins: Server, browser: Chromium) -> None:
    """The page shows a text in place of a plot without a sensor."""
    page = await browser.open(f"http://127.0.0.1:{plugins.port}/cpu/")
    lack = await page.wait_for("document.querySelector('.lack').textContent")
    assert lack == f"No temperature sensor found at {machine.root}/sys/class/thermal."
    assert not await page.evaluate("document.querySelector('#warm-plot').checkVisibility()")
    assert await page.evaluate("document.querySelector('#busy-plot').checkVisibility()")


async def test_plot_follows_the_scheme(machine: Machine, plugins: Server, browser: Chromium) -> None:
    """When the system changes from light to dark, the page redraws the plot in the other colour."""
    machine.sensor(0, "cpu-thermal", 48312)
    page = await browser.open(f"http://127.0.0.1:{plugins.port}/cpu/")
    colors = set()
    for dark in (False, True):
        await page.viewport(390, 844, mobile=True, dark=dark)
        await page.wait_for(IS_PAINTED % ("--warm", "#warm-plot"))
        colors.add(await page.evaluate("getComputedStyle(document.body).getPropertyValue('--warm')"))
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert len(colors) == 2


def receive(client: Client) -> Any:
    return json.loads(client.receive_text())


def sample(client: Client) -> Any:
    """Return the next message, which must be a sample."""
    message = receive(client)
    assert message["type"] == "sample"
    return message
