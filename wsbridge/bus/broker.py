"""The way to the bus over RabbitMQ, for those who come from above: whoever needs no broker need not have its library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsbridge.errors import ConfigurationError

if TYPE_CHECKING:
    from wsbridge.bus.rabbitmq import RabbitBus


def rabbit_bus() -> type[RabbitBus]:
    """Return the class, which is loaded now: that takes a while. Raises ConfigurationError."""
    try:
        from wsbridge.bus.rabbitmq import RabbitBus
    except ImportError as error:
        raise ConfigurationError(f"--broker needs aio-pika, which is not here ({error.name}); install wsbridge[broker]") from None
    return RabbitBus
