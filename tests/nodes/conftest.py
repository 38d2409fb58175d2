"""Nodes over a real RabbitMQ."""

from tests.bus.conftest import broker as broker
