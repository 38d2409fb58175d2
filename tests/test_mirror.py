"""Each module has a test file of its name in the mirrored folder, or a reason that names another test file."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent

REASONS = {
    "__main__.py": "the entry point, which every server of the tests runs: tests/server/test_server.py",
    "bus/base.py": "a protocol, and one contract for all that meet it: tests/bus/test_contract.py",
    "bus/rabbitmq/bus.py": "tested against a real RabbitMQ: tests/bus/test_contract.py, tests/bus/test_outages.py",
    "bus/rabbitmq/transport.py": "tests/bus/test_within.py; the rest against a real RabbitMQ: tests/bus/test_outages.py",
    "bus/rabbitmq/tuning.py": "values, which these read: tests/bus/test_outages.py, tests/bus/test_waits.py",
    "cli/commands.py": "tables, which these read: tests/cli/test_help.py, tests/test_docs.py",
    "cli/servefile.py": "tested with real servers: tests/server/test_reload.py",
    "cli/options.py": "tables, which these read: tests/cli/test_parse.py, tests/test_docs.py",
    "endpoints/base.py": "the parts of every kind, tested with real requests: tests/http/test_methods.py, tests/http/test_static.py",
    "endpoints/bridge.py": "tested with real clients and programs: tests/http/test_upgrade.py, tests/parity/test_lifecycle.py",
    "endpoints/newsession.py": "tested with real clients and programs: tests/http/test_upgrade.py, tests/parity/test_lifecycle.py",
    "endpoints/broadcast.py": "tested with real clients: tests/server/test_broadcast.py, tests/server/test_events.py",
    "endpoints/channelprogram.py": "tested with real servers that reload: tests/endpoints/test_livechannel.py",
    "endpoints/console.py": "tested in a browser: tests/http/test_console_page.py",
    "endpoints/files.py": "tested with real requests: tests/http/test_static.py, tests/http/test_cgi.py",
    "endpoints/newsubscription.py": "tested with real clients: tests/server/test_clients.py, tests/server/test_events.py",
    "http/app.py": "tested with real requests: tests/http/test_methods.py, tests/http/test_hosts.py, tests/http/test_every_listener.py",
    "http/endpoint.py": "protocols; their uses are in tests/http/test_upgrade.py",
    "http/handshake.py": "tested beside websocketd: tests/parity/test_handshake.py",
    "http/page.py": "tested in a browser: tests/http/test_console_page.py, tests/http/test_channel_page.py",
    "http/requestbody.py": "tested with real scripts: tests/http/test_cgi_ends.py, tests/http/test_buffering.py",
    "http/responsetimeout.py": "tests/net/test_writetimeout.py; with real clients: tests/http/test_static.py",
    "net/alerts.py": "tested with real TLS: tests/net/test_tls.py",
    "pipes/run.py": "tested as a process: tests/pipes/test_publish.py, tests/pipes/test_subscribe.py",
    "process/launch.py": "tested with real processes: tests/process/test_spawnserver.py",
    "process/spawnd.py": "the other side of the spawn server: tests/process/test_spawnserver.py",
    "server/services.py": "tested with real programs: tests/server/test_server.py, tests/process/test_guard.py",
    "server/once.py": "tested with real programs: tests/server/test_server.py",
    "sessions/ending.py": "tested with real servers: tests/server/test_server.py",
    "settings/client.py": "declarations, which these read: tests/settings/test_declare.py, tests/cli/test_config.py",
    "settings/pipe.py": "values, which this makes: tests/cli/test_pipeconfig.py",
    "settings/server.py": "values, which these make: tests/cli/test_config.py, tests/cli/test_broadcast_config.py",
    "stdio.py": "tested as a process: tests/pipes/test_publish.py, tests/pipes/test_subscribe.py",
}


def modules() -> list[str]:
    """Return the paths of the package's modules that contain code."""
    package = ROOT / "wsbridge"
    return sorted(str(path.relative_to(package)) for path in package.rglob("*.py") if path.name != "__init__.py")


def is_mirrored(module: str) -> bool:
    """Return whether a test file has the module's name, in the folder of its part."""
    path = Path(module)
    return (ROOT / "tests" / Path(*path.parts[:-1][:1]) / f"test_{path.name}").exists()


def test_every_module_has_its_tests() -> None:
    """A module without its own test file has a reason, and a module with a test file needs none."""
    assert [module for module in modules() if not is_mirrored(module) and module not in REASONS] == []
    assert [module for module in REASONS if module not in modules() or is_mirrored(module)] == []


def test_reasons_name_tests() -> None:
    """Each reason names existing test files."""
    for reason in REASONS.values():
        named = [word.strip(",;:") for word in reason.split() if word.startswith("tests/")]
        assert named
        assert [name for name in named if not (ROOT / name).exists()] == []
