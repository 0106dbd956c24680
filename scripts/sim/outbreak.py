"""A worm among 100 hosts: how many have it over time, with a plugin that hashes files off the path, and without.

python scripts/sim/outbreak.py [--seed N] [--minutes M] [--plot FILE.svg]

The packets of all downloads are simulated (outbreak.lua). scripts/malware_hash.lua finds the worm's file among them;
who gave and who took it is cut off two minutes later on average. All of it is virtual time.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from engine import Config
from engine.cli.line_chart import LineChart, Panel, svg
from engine.simulation import Simulation
from engine.values.records import Alert, Record

FOLDER = Path(__file__).parent
WORM = b"offpath outbreak sample\n" * 800  # as in outbreak.lua


@dataclass(frozen=True, slots=True)
class Found:
    """What became of the hosts. Each row has a value for every ten seconds."""

    infected: tuple[int, ...]
    isolated: tuple[int, ...]
    files: int
    """Bodies that were taken out of the packets."""


class _Counts:
    """A sink for what outbreak.lua tells."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int]] = [(5, 0)]

    def write(self, record: Record) -> None:
        if isinstance(record, Alert) and record.sigid == "count":
            infected, isolated = map(int, record.message.split())
            self.rows.append((infected, isolated))

    async def flush(self) -> None:
        """Nothing waits."""

    async def close(self) -> None:
        """Nothing is open."""


def simulate(*, hashed: bool, seed: int, minutes: float) -> Found:
    """The outbreak, with the plugin or without. Raises `RuntimeError` when counts do not add up."""
    counts = _Counts()
    scripts = [FOLDER / "outbreak.lua", *([FOLDER.parent / "malware_hash.lua"] if hashed else [])]
    with tempfile.TemporaryDirectory() as folder:
        hashes = Path(folder) / "hashes.txt"
        hashes.write_text(f"{hashlib.sha256(WORM).hexdigest()} Example.Worm\n", encoding="utf-8")
        config = Config(args=str(hashes))
        run = Simulation(scripts, seed=seed, until=minutes * 60, config=config, sinks=[counts], prints=False)
        result = run.run()
    if not result.ok:
        raise RuntimeError("; ".join(result.failures))
    infected, isolated = zip(*counts.rows, strict=True)
    return Found(infected, isolated, result.stats.http.files)


def main() -> None:
    """Print a line for every two minutes, and draw both runs."""
    words = argparse.ArgumentParser(description="An outbreak with a plugin that hashes files, and without.")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--minutes", type=float, default=20.0, help="virtual time of each run")
    words.add_argument("--plot", type=Path, help="draw both runs here, as SVG")
    chosen = words.parse_args()
    free, caught = (simulate(hashed=hashed, seed=chosen.seed, minutes=chosen.minutes) for hashed in (False, True))
    rows = list(zip(free.infected, caught.infected, caught.isolated, strict=True))
    print("minute  infected, nobody looks  infected, files hashed  isolated")  # noqa: T201
    for at, (alone, seen, cut) in list(enumerate(rows))[::12]:
        print(f"{at / 6:6.0f}  {alone:22}  {seen:22}  {cut:8}")  # noqa: T201
    if chosen.plot is not None:
        chart = LineChart(
            "A worm among 100 hosts",
            "Who has it, or is cut off, over time. Files are hashed by malware_hash.lua, off the path.",
            "minutes",
            [at / 6 for at in range(len(rows))],
            [Panel("hosts", [free.infected, caught.infected, caught.isolated])],
            ["infected, nobody looks", "infected, files are hashed", "isolated then"],
        )
        chosen.plot.write_text(svg(chart), encoding="utf-8")


if __name__ == "__main__":
    main()
