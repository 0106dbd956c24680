"""What every benchmark shares: how it is described, found, repeated and reported. Knows nothing of the engine.

Ways are interleaved (A B C A B C, never A A B B), so that a machine that gets slower meanwhile slows all of them; a
ratio is taken within one repeat, and medians are given with the lowest and the highest repeat.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

Measures = Mapping[str, float]
"""What one run of one way came to, by metric."""


Way = TypeVar("Way")


class BenchmarkError(Exception):
    """A benchmark that did not do its work, so that its numbers mean nothing."""


@dataclass(frozen=True, slots=True)
class Options:
    """How much is to be done."""

    quick: bool = False
    minutes: float = 1.0
    """How long a benchmark goes on that has no end of its own."""

    @property
    def repeats(self) -> int:
        """How often each way is measured."""
        return 3 if self.quick else 5


@dataclass(frozen=True, slots=True)
class Column:
    """A metric as the table shows it."""

    metric: str
    label: str
    unit: str = ""

    @property
    def heading(self) -> str:
        """Label and unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label


@dataclass(frozen=True, slots=True)
class Spread:
    """One number, measured several times."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a spread needs at least one value")

    @property
    def median(self) -> float:
        """The value in the middle."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The lowest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The highest."""
        return max(self.values)


Series = Mapping[str, Mapping[str, Spread]]
"""Spreads by way, then by metric. A way may lack metrics."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as much one way takes as another. `text` has a place for the number: ``{}``."""

    text: str
    spread: Spread
    goal: str = ""
    """What the engine is meant to reach, as in ``at least 20``; empty where nothing was set."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a benchmark found. `ratios` come first, for they hold on other machines, too."""

    name: str
    title: str
    columns: Sequence[Column]
    series: Series
    ratios: Sequence[Ratio] = ()
    notes: Sequence[str] = ()
    chart: str = ""
    """An SVG, empty for none."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Ways that could not be measured here, and the command that installs what they need."""
    failures: Sequence[str] = ()
    """What went wrong without making the numbers worthless; they are shown, and the command fails."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark as the command lists it: a module of this package names one `BENCHMARK`."""

    name: str
    measures: str
    against: str
    run: Callable[[Options], Report] = field(repr=False)
    in_all: bool = True
    """Whether the name `all` means it, too."""

    @property
    def line(self) -> str:
        """What it measures and against whom."""
        return f"{self.measures}; against {self.against}"


@dataclass(frozen=True, slots=True)
class Need:
    """Something beside this package that a way needs, and the command that installs it."""

    present: Callable[[], bool]
    install: str


def discover() -> dict[str, Benchmark]:
    """All benchmarks of this package, by name."""
    return {each.name: each for each in _benchmarks()}


def _benchmarks() -> Iterator[Benchmark]:
    package = importlib.import_module(__package__)
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda each: each.name):
        if module.name != "__main__":
            found = getattr(importlib.import_module(f"{__package__}.{module.name}"), "BENCHMARK", None)
            if isinstance(found, Benchmark):
                yield found


def interleave(ways: Mapping[str, Callable[[], Measures]], *, repeats: int, warmups: int = 1) -> Series:
    """Run the ways in turn, `warmups` rounds for nothing and then `repeats` rounds that count."""
    rounds = [{name: run() for name, run in ways.items()} for _ in range(warmups + repeats)][warmups:]
    return {name: _spreads([each[name] for each in rounds]) for name in ways}


def sort_out(ways: Mapping[str, Way], needs: Mapping[str, Need]) -> tuple[dict[str, Way], dict[str, str]]:
    """The ways that can be run here, and what installs the others. `needs` are by the name of the way."""
    missing = {name: need.install for name, need in needs.items() if name in ways and not need.present()}
    return {name: way for name, way in ways.items() if name not in missing}, missing


def merge(*parts: Series) -> Series:
    """One series out of several of the same ways, each with metrics of its own."""
    merged: dict[str, dict[str, Spread]] = {}
    for part in parts:
        for way, metrics in part.items():
            merged.setdefault(way, {}).update(metrics)
    return merged


def _spreads(runs: Sequence[Measures]) -> dict[str, Spread]:
    return {metric: Spread(tuple(run[metric] for run in runs)) for metric in runs[0]}


def ratio(text: str, over: Spread, under: Spread, *, goal: str = "") -> Ratio:
    """The ratio of two metrics, repeat by repeat. Raises `BenchmarkError` when nothing was measured below the line."""
    if not all(under.values):
        raise BenchmarkError(f"no ratio, as the lower number is zero: {text}")
    return Ratio(text, Spread(tuple(a / b for a, b in zip(over.values, under.values, strict=True))), goal)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `percent` % of them do not exceed."""
    if not values:
        raise ValueError("no percentile of no values")
    return sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1]


def as_mapping(report: Report) -> dict[str, Any]:
    """A report for JSON, with the values of every repeat; without its chart."""
    return {
        "name": report.name,
        "title": report.title,
        "ratios": [{"text": each.text, "goal": each.goal, **_summary(each.spread)} for each in report.ratios],
        "units": {each.metric: each.unit for each in report.columns},
        "series": {
            way: {metric: _summary(spread) for metric, spread in metrics.items()}
            for way, metrics in report.series.items()
        },
        "notes": list(report.notes),
        "missing": dict(report.missing),
        "failures": list(report.failures),
    }


def _summary(spread: Spread) -> dict[str, Any]:
    return {"median": spread.median, "low": spread.low, "high": spread.high, "values": list(spread.values)}
