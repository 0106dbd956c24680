"""What a copy costs those who come after it: events lost and how late they are, by method and rate of events.

python scripts/sim/loss.py [--seed N] [--seconds T] [--plot FILE.svg]

The ring has room for 100 events. A hook takes 0.2 ms, a copy 5 ms on average: in the hook, by T.async:copy, or by
T.async:schedule, each with 16 workers. All of it is virtual time (loss.lua).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine import Config
from engine.cli.line_chart import LineChart, Panel, svg
from engine.simulation import Simulation
from engine.values.records import Alert, Record

METHODS = {"inline": "inline", "copy": "T.async:copy", "schedule": "T.async:schedule"}
RATES = (100, 150, 200, 300, 600, 1000)
RING = 100  # events


@dataclass(frozen=True, slots=True)
class Found:
    """What became of the events of one method at one rate."""

    method: str
    rate: int
    events: int
    lost: int
    p99: float
    """Seconds from when an event came until its hook began, of those that were handled."""

    @property
    def lost_percent(self) -> float:
        """Of all that came."""
        return 100 * self.lost / self.events


class _Lateness:
    """A sink for what loss.lua tells."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def write(self, record: Record) -> None:
        if isinstance(record, Alert):
            self.seconds.append(float(record.message))

    async def flush(self) -> None:
        """Nothing waits."""

    async def close(self) -> None:
        """Nothing is open."""


def simulate(method: str, rate: int, *, seed: int, seconds: float) -> Found:
    """One method at one rate. Raises `RuntimeError` when counts do not add up."""
    late = _Lateness()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.write_bytes(bytes(1_000))
        config = Config(event_limit=RING, args=f"{method} {rate} {file}")
        script = Path(__file__).with_name("loss.lua")
        result = Simulation([script], seed=seed, until=seconds, config=config, sinks=[late]).run()
    if not result.ok:
        raise RuntimeError("; ".join(result.failures))
    events, ranked = result.stats.events, sorted(late.seconds)
    lost = events.dropped + result.stats.tasks.rejected
    return Found(method, rate, events.received, lost, ranked[int(len(ranked) * 0.99)])


def main() -> None:
    """Print a line for each method and rate, and draw them."""
    words = argparse.ArgumentParser(description="Events lost and their lateness, by method and rate.")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--seconds", type=float, default=5.0, help="virtual time of each run")
    words.add_argument("--plot", type=Path, help="draw both measures here, as SVG")
    chosen = words.parse_args()
    runs = [(method, rate) for rate in RATES for method in METHODS]
    found = [simulate(method, rate, seed=chosen.seed, seconds=chosen.seconds) for method, rate in runs]
    print("rate/s  method            events    lost   lost %   p99 ms")  # noqa: T201
    for each in found:
        figures = f"{each.events:6}  {each.lost:6}  {each.lost_percent:6.1f}  {each.p99 * 1e3:7.2f}"
        print(f"{each.rate:6}  {METHODS[each.method]:16}  {figures}")  # noqa: T201
    if chosen.plot is not None:
        chosen.plot.write_text(svg(_chart(found)), encoding="utf-8")


def _chart(found: Sequence[Found]) -> LineChart:
    rows = [[each for each in found if each.method == method] for method in METHODS]
    return LineChart(
        "What a copy costs those who come after it",
        "A ring with room for 100 events; 0.2 ms in the hook and 5 ms a copy on average; 16 workers.",
        "events a second",
        RATES,
        [
            Panel("events lost, %", [[each.lost_percent for each in row] for row in rows]),
            Panel("late at p99, ms", [[each.p99 * 1e3 for each in row] for row in rows], logarithmic=True),
        ],
        list(METHODS.values()),
    )


if __name__ == "__main__":
    main()
