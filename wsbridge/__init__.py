"""Put any program that reads stdin and writes stdout on the web."""

__version__ = "0.2.0"
