"""The row of the site: the time of a lookup among 200 endpoints, compared with a site of one endpoint."""

import time
from functools import partial
from pathlib import Path

from row import Row

LOOKUPS = 200_000
MANY = 200


def lookup(endpoints: int, tools: Path) -> float:
    """Return the microseconds of one lookup."""
    # `scripts/bench --help` works without an installed wsbridge.
    from wsbridge.rules.routes import Routes

    routes: Routes[int] = Routes()
    for number in range(endpoints):
        routes.put((), f"/apps/e{number}" if number else "/", number + 1)
    find, began = routes.find, time.perf_counter()
    for _ in range(LOOKUPS):
        find("example.com", "/apps/e0/x")
    return (time.perf_counter() - began) * 1e6 / LOOKUPS


ROWS = [Row("site", "us a lookup", "less", partial(lookup, MANY), partial(lookup, 1), "a site of one endpoint")]
