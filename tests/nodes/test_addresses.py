"""Several broker addresses, as whole processes use them: a node, `publish` and `subscribe`."""

from __future__ import annotations

import json
import secrets
import subprocess

from tests.support import forkserver
from tests.support.deadline import DEADLINE, scaled
from tests.support.rabbit import Broker, Proxy
from tests.support.server import LISTEN, WSBRIDGE, Server, environment, free_port, wait_until

PASSWORD = "not-to-be-seen"


def end(*words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return forkserver.run([*WSBRIDGE.command, *words], data=data, timeout=scaled(DEADLINE * 6), env=environment({}))


def test_second_address_of_the_broker(broker: Broker) -> None:
    """If the first address is dead, a node, `publish` and `subscribe` connect to the second. /status and the log name it without a
    password.

    When the second address fails, a node reconnects to the first, which is available by then.
    """
    exchange = f"addresses-{secrets.token_hex(4)}"
    with Proxy(("127.0.0.1", broker.port)) as first, Proxy(("127.0.0.1", broker.port)) as second:
        first.refuse()
        urls = [f"amqp://guest:guest@127.0.0.1:{proxy.port}/" for proxy in (first, second)]
        places = [url.replace("guest:guest@", "") for url in urls]
        words = (f"--exchange={exchange}", "--replay")
        node = Server(*words, listen=("broadcast", *LISTEN), env={"WSBRIDGE_BROKER": "\n".join(urls)})
        with node:
            status = json.loads(node.get("/status").body)
            assert (status["broker"], status["broker_address"]) == ("here", places[1])
            assert f"Broker                      : {places[1]}" in node.log
            assert f"the broker at {places[0]} cannot be reached" in node.log
            addresses = f"--broker={','.join(urls)}"
            published = end("publish", *words, addresses, data=b"one\ntwo\n")
            assert published.returncode == 0, published.stderr
            assert f"the broker at {places[0]} cannot be reached".encode() in published.stderr
            printed = end("subscribe", *words, *(f"--broker={url}" for url in urls), "--since=0-0", "-n=2")
            assert (printed.returncode, printed.stdout) == (0, b"one\ntwo\n")
            first.accept()
            second.refuse()
            second.cut()
            wait_until(lambda: json.loads(node.get("/status").body)["broker_address"] == places[0], "the first address", DEADLINE * 3)
            wait_until(lambda: f"reconnected to the broker at {places[0]}" in node.log, "the line in the log")
            assert "guest:guest" not in node.log
    dead = f"--broker=amqp://u:{PASSWORD}@127.0.0.1:{free_port()}/,amqp://u:{PASSWORD}@127.0.0.1:{free_port()}/"
    for command in ("publish", "subscribe", "broadcast"):
        refused = end(command, f"--exchange={exchange}", dead, *(("--address=127.0.0.1", "--port=0") if command == "broadcast" else ()))
        said = (refused.stdout + refused.stderr).decode()
        assert refused.returncode == 4, said
        assert said.count("cannot be reached") == 2
        assert PASSWORD not in said
