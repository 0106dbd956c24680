"""Prometheus' text format 0.0.4: families of samples in, text out. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from engine.values.histogram import BUCKETS, Histogram, upper_bound

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]
"""Names and values."""


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one name."""

    name: str
    """Counters end in ``_total``, and what has a unit has it at the end of its name, or before that."""
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: tuple[tuple[Labels, float | Histogram], ...]


def render(families: Iterable[Family]) -> str:
    """The text; families without samples are left out."""
    return "".join(f"{line}\n" for family in families if family.samples for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {_escaped(family.help)}"
    yield f"# TYPE {family.name} {family.kind}"
    for labels, value in family.samples:
        if isinstance(value, Histogram):
            yield from _histogram(family.name, labels, value)
        else:
            yield f"{family.name}{_braced(labels)} {_number(value)}"


def _histogram(name: str, labels: Labels, values: Histogram) -> Iterator[str]:
    total = 0
    first = f"{name}_bucket{{" + "".join(f"{each}," for each in _pairs(labels))
    for bound, count in zip(_BOUNDS, values.counts, strict=True):
        total += count
        yield f"{first}{bound} {total}"
    yield f"{name}_sum{_braced(labels)} {_number(values.seconds)}"
    yield f"{name}_count{_braced(labels)} {total}"


def _braced(labels: Labels) -> str:
    return "{" + ",".join(_pairs(labels)) + "}" if labels else ""


def _pairs(labels: Labels) -> list[str]:
    return [f'{name}="{_quoted(value)}"' for name, value in labels]


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if math.isfinite(value):
        return repr(float(f"{value:.12g}"))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", " ")


def _quoted(text: str) -> str:
    """File names may hold anything, also what is no UTF-8."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return whole.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


_BOUNDS: Final = tuple(f'le="{_number(upper_bound(bucket))}"}}' for bucket in range(BUCKETS))
