"""Imports the RabbitMQ bus on demand, so that a server without a broker does not need the broker's library."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from wsbridge.errors import ConfigurationError

if TYPE_CHECKING:
    from wsbridge.bus.rabbitmq.bus import RabbitBus
    from wsbridge.bus.rabbitmq.connections import Connections


def rabbit_bus() -> type[RabbitBus]:
    """Import and return the class RabbitBus; the import is slow. Raises ConfigurationError."""
    try:
        from wsbridge.bus.rabbitmq.bus import RabbitBus
    except ImportError as error:
        install = f"{shlex.quote(sys.executable)} -m pip install aio-pika"
        raise ConfigurationError(f"a broker needs aio-pika, which is not installed ({error.name}); run: {install}") from None
    return RabbitBus


def rabbit_connections() -> Connections:
    """Return the connections for all buses of an event loop. Raises ConfigurationError."""
    rabbit_bus()
    from wsbridge.bus.rabbitmq.connections import Connections

    return Connections()
