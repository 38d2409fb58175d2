import wsbridge.quickstart  # noqa: F401
