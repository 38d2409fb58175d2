"""A row of the table: its measurement of wsbridge and of its peer, the figure from the rounds, and its text."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Measure = Callable[[Path], float]
"""Measures one server, with the C tools in a folder."""


@dataclass(frozen=True, slots=True)
class Row:
    """A measurement, its unit, whether more or less is better, and the peer."""

    name: str
    unit: str
    better: str
    ours: Measure
    peer: Measure | None = None
    peer_name: str = ""
    missing: str = ""
    """The reason why this machine yields no figure, as a sentence; empty if it yields one."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a row: medians over the rounds, and the ratio of each round. Without a peer, there is no ratio."""

    name: str
    unit: str
    better: str
    wsbridge: float
    figures: list[float]
    peer: str
    peer_figure: float | None
    ratio: float | None
    ratios: list[float]


def measured(row: Row, tools: Path, rounds: int) -> Result:
    """Measure a row several times, wsbridge and its peer in turn."""
    pairs = [(row.ours(tools), row.peer(tools) if row.peer else None) for _ in range(rounds)]
    figures = [round(ours, 3) for ours, _ in pairs]
    theirs = [figure for _, figure in pairs if figure is not None]
    ratios = [round(ours / peer, 3) for ours, peer in pairs if peer]
    return Result(
        name=row.name,
        unit=row.unit,
        better=row.better,
        wsbridge=round(statistics.median(figures), 3),
        figures=figures,
        peer=row.peer_name,
        peer_figure=round(statistics.median(theirs), 3) if theirs else None,
        ratio=round(statistics.median(ratios), 3) if ratios else None,
        ratios=ratios,
    )


HEAD = f"{'':<30} {'wsbridge':>12}  {'peer':>12}  {'':<14} {'ratio':>7}  rounds"


def shown(result: Result) -> str:
    """Return a result as a row of the table. The rounds are ratios or, without a peer, figures."""
    if result.ratio is None or result.peer_figure is None:
        peer, ratio, rounds = "", "", result.figures
    else:
        peer, ratio, rounds = number(result.peer_figure), f"{result.ratio:.2f}", result.ratios
    spread = f"{number(min(rounds))}-{number(max(rounds))}, {result.better} is better"
    beside = f", compared with {result.peer}" if peer else ""
    return f"{result.name:<30} {number(result.wsbridge):>12}  {peer:>12}  {result.unit:<14} {ratio:>7}  {spread}{beside}"


def number(figure: float) -> str:
    """Return a figure with its significant digits."""
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.2f}"
