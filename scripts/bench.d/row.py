"""A line of the table: what is measured of wsbridge and of its peer, how the rounds are made one figure, and how it is shown."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Measure = Callable[[Path], float]
"""Measures one server, with the C tools in a folder."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is measured, in which unit, whether more or less of it is better, and beside whom."""

    name: str
    unit: str
    better: str
    ours: Measure
    peer: Measure | None = None
    peer_name: str = ""
    missing: str = ""
    """Why there is no figure on this machine, as a sentence; empty where there is one."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a row came to: medians over the rounds, and the ratio of each round. No peer, no ratio."""

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
    """Measure a row some times, wsbridge and its peer in turn."""
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
    """Return a result as a line of the table. The rounds are ratios, or where there is no peer, figures."""
    if result.ratio is None or result.peer_figure is None:
        peer, ratio, rounds = "", "", result.figures
    else:
        peer, ratio, rounds = number(result.peer_figure), f"{result.ratio:.2f}", result.ratios
    spread = f"{number(min(rounds))}-{number(max(rounds))}, {result.better} is better"
    beside = f", beside {result.peer}" if peer else ""
    return f"{result.name:<30} {number(result.wsbridge):>12}  {peer:>12}  {result.unit:<14} {ratio:>7}  {spread}{beside}"


def number(figure: float) -> str:
    """Return a figure with as many digits as say something."""
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.2f}"
