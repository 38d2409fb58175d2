"""The way to the bus over RabbitMQ, for those who come from above: whoever needs no broker need not have its library."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from wsbridge.errors import ConfigurationError

if TYPE_CHECKING:
    from wsbridge.bus.rabbitmq import RabbitBus


LIBRARIES = ("aio-pika>=10.2,<11", "pamqp>=4,<5")
"""What the extra `broker` of pyproject.toml installs."""


def rabbit_bus() -> type[RabbitBus]:
    """Return the class, which is loaded now: that takes a while. Raises ConfigurationError."""
    try:
        from wsbridge.bus.rabbitmq import RabbitBus
    except ImportError as error:
        install = f"{shlex.quote(sys.executable)} -m pip install {shlex.join(LIBRARIES)}"
        raise ConfigurationError(f"--broker needs aio-pika, which is not here ({error.name}); run: {install}") from None
    return RabbitBus
