"""How many workers does a load need? The queue of a simulation over time, and its mean against theory (M/M/c).

python scripts/sim/sizing.py [--seed N] [--hours H] [--rate R] [--plot FILE.svg]

Jobs come at random, 2.1 a second on average, and take a second on average of one worker (sizing.lua).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from math import factorial
from pathlib import Path

from engine import Config
from engine.cli.charts import Lines, lines_svg
from engine.simulation import Simulation
from engine.values.records import Record
from engine.values.windows import Window

WORKERS = (3, 4, 5)
SETTLING = 2  # windows of the beginning, when the queue is still empty


@dataclass(frozen=True, slots=True)
class Found:
    """Unfinished jobs with a number of workers: waiting and being done."""

    workers: int
    times: tuple[float, ...]
    """Where each minute begins, in seconds since the epoch."""
    unfinished: tuple[float, ...]
    """Their mean in each minute."""
    theory: float

    @property
    def mean(self) -> float:
        """Over all, but for the beginning."""
        settled = self.unfinished[SETTLING:]
        return sum(settled) / len(settled)


class _Queue:
    """A sink for the windows of sizing.lua."""

    def __init__(self) -> None:
        self.found: list[tuple[float, float]] = []

    def write(self, record: Record) -> None:
        """Records say nothing of it."""

    def write_window(self, window: Window) -> None:
        for group in window.groups:
            self.found.append((window.start, group.values["all"][0]))

    async def flush(self) -> None:
        """Nothing waits."""

    async def close(self) -> None:
        """Nothing is open."""


def jobs_in_theory(rate: float, seconds: float, workers: int) -> float:
    """The mean number of jobs in an M/M/c queue (Erlang C). There must be enough workers."""
    load = rate * seconds
    busy = load**workers / factorial(workers) / (1 - load / workers)
    wait = busy / (sum(load**number / factorial(number) for number in range(workers)) + busy)
    return load + wait * load / (workers - load)


def simulate(workers: int, *, rate: float, seed: int, hours: float) -> Found:
    """The queue with so many workers."""
    queue = _Queue()
    script, config = Path(__file__).with_name("sizing.lua"), Config(workers=workers, args=str(rate))
    run = Simulation(
        [script], seed=seed, until=hours * 3600, config=config, sinks=[queue], async_latency="exponential:1"
    )
    result = run.run()
    if not result.ok:
        raise RuntimeError("; ".join(result.failures))
    times, unfinished = zip(*queue.found, strict=True)
    return Found(workers, times, unfinished, jobs_in_theory(rate, 1.0, workers))


def main() -> None:
    """Print a line for each number of workers, and draw their queues over time."""
    words = argparse.ArgumentParser(description="The queue of a load, by the number of workers.")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--hours", type=float, default=2.0, help="virtual time of each run")
    words.add_argument("--rate", type=float, default=2.1, help="jobs a second")
    words.add_argument("--plot", type=Path, help="draw the queues over time here, as SVG")
    chosen = words.parse_args()
    found = [simulate(each, rate=chosen.rate, seed=chosen.seed, hours=chosen.hours) for each in WORKERS]
    print("workers  unfinished  in theory  difference")  # noqa: T201
    for each in found:
        difference = each.mean / each.theory - 1
        print(f"{each.workers:7}  {each.mean:10.3f}  {each.theory:9.3f}  {difference:+10.1%}")  # noqa: T201
    if chosen.plot is not None:
        panels = [(f"{each.workers} workers: {each.mean:.2f} jobs on average", each.unfinished) for each in found]
        chart = Lines("Unfinished jobs, by the minute", found[0].times, panels)
        chosen.plot.write_text(lines_svg(chart), encoding="utf-8")


if __name__ == "__main__":
    main()
