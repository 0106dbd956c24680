"""Simulations of small scripts, and what came out of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.simulation import Result, Simulation
from engine.sinks.jsonl import JsonLinesSink
from tests.scripts import Collector, plugin, write


def simulation(onbegin: str, *, onend: str = "", rest: str = "", before: str = "") -> str:
    """A script with a simulation block; its hooks have `engine` and `now`."""
    hooks = f"onbegin = function(engine, now)\n{onbegin}\nend,\nonend = function(engine, now)\n{onend}\nend"
    return before + "\n" + plugin(f"simulation = {{ {hooks} }},\n{rest}")


def simulate(folder: Path, *scripts: str, **options: Any) -> tuple[Collector, Result]:
    """Run scripts to the end: all records, and the result."""
    collector = Collector()
    paths = [write(folder, script, f"s{number}.lua") for number, script in enumerate(scripts)]
    result = Simulation(paths, sinks=[collector], **options).run()
    return collector, result


def records_file(folder: Path, *scripts: str, **options: Any) -> bytes:
    """The records file of a run."""
    paths = [write(folder, script, f"s{number}.lua") for number, script in enumerate(scripts)]
    out = folder / "records.jsonl"
    Simulation(paths, sinks=[JsonLinesSink(out)], **options).run()
    return out.read_bytes()
