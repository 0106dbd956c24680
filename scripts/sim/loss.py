"""What a copy costs those who come after it: events lost and how late they are, by method and rate of events.

python scripts/sim/loss.py [--seed N] [--seconds T] [--plots FOLDER]

The ring has room for 100 events. A hook takes 0.2 ms, a copy 5 ms on average: in the hook, by T.async:copy, or by
T.async:schedule, each with 16 workers. All of it is virtual time (loss.lua).
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

from engine import Config
from engine.cli.charts import Bars, bars_svg
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
    words.add_argument("--plots", type=Path, help="draw loss.svg and late.svg into this folder")
    chosen = words.parse_args()
    runs = [(method, rate) for rate in RATES for method in METHODS]
    found = [simulate(method, rate, seed=chosen.seed, seconds=chosen.seconds) for method, rate in runs]
    print("rate/s  method            events    lost   lost %   p99 ms")  # noqa: T201
    for each in found:
        figures = f"{each.events:6}  {each.lost:6}  {each.lost_percent:6.1f}  {each.p99 * 1e3:7.2f}"
        print(f"{each.rate:6}  {METHODS[each.method]:16}  {figures}")  # noqa: T201
    if chosen.plots is not None:
        names = [f"{METHODS[each.method]}, {each.rate}/s" for each in found]
        lost = [(name, each.lost_percent) for name, each in zip(names, found, strict=True)]
        late = [(name, each.p99 * 1e3) for name, each in zip(names, found, strict=True)]
        (chosen.plots / "loss.svg").write_text(
            bars_svg(Bars("Events lost, by method and rate", "lost, %", lost)), encoding="utf-8"
        )
        (chosen.plots / "late.svg").write_text(
            bars_svg(Bars("How late events are handled, by method and rate", "p99, ms", late)), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
