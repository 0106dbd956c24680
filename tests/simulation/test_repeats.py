"""The same seed gives the same records file; what is on this machine has no part in it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from engine import Config, EngineError
from engine.simulation import Simulation
from engine.sinks.jsonl import JsonLinesSink
from tests.scripts import ALERTS, on_event, write
from tests.simulation.rig import records_file, simulate, simulation

SOURCE = simulation(
    """
    local gaps, names = T.sim.random("gaps"), { alpha = 1, beta = 2, gamma = 3, delta = 4, [7] = 5, [2] = 6 }
    T.sim.every(function() return gaps:exponential(0.2) end, function(engine, now)
      local order = {}
      for name in pairs(names) do order[#order + 1] = tostring(name) end
      T.sim.emit("order", { at = now, names = table.concat(order, " "), number = math.random(1, 9) })
    end)
    """
)
PLUGIN = on_event(
    f"""
    engine:update_counter("{{5F3A9D6C-71C8-4C0B-9A31-40A7E9C3A5D1}}", event.number .. "", 0, 1)
    T.async:schedule{{ data = event.names .. event.number .. " " .. event.at,
      onexecute = function(data) return data .. " " .. math.random() end,
      onresult = function(later, data, result)
        later:add_alert("{ALERTS}", nil, data, 1, result .. os.date("!%H:%M:%S") .. T.sim.now())
      end }}
    """,
    rest="request_async_workers = 4",
)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first = records_file(tmp_path, SOURCE, PLUGIN, seed=5, until=300)
    assert first.count(b'"alert"') > 1_000
    assert records_file(tmp_path, SOURCE, PLUGIN, seed=5, until=300) == first
    assert records_file(tmp_path, SOURCE, PLUGIN, seed=6, until=300) != first


def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    here = hashlib.sha256(records_file(tmp_path, SOURCE, PLUGIN, seed=5, until=30)).hexdigest()
    program = (
        "import hashlib, sys; from engine.simulation import Simulation; from engine.sinks.jsonl import JsonLinesSink\n"
        "Simulation(sys.argv[1:3], seed=5, until=30, sinks=[JsonLinesSink('there.jsonl')]).run()\n"
        "print(hashlib.sha256(open('there.jsonl', 'rb').read()).hexdigest())"
    )
    there = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "s0.lua"), str(tmp_path / "s1.lua")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert there.stdout.strip() == here


@pytest.mark.parametrize("workers", [1, 2, 7, 64])
def test_any_number_of_workers_repeats(tmp_path: Path, workers: int) -> None:
    scripts = (SOURCE, PLUGIN.replace("request_async_workers = 4", ""))
    options = {"seed": 5, "until": 60, "async_latency": "pareto:1.5:0.1", "config": Config(workers=workers)}
    first = records_file(tmp_path, *scripts, **options)
    assert first.count(b'"alert"') > 200
    assert records_file(tmp_path, *scripts, **options) == first


def test_where_no_task_waits_for_a_worker_their_number_makes_no_difference(tmp_path: Path) -> None:
    def run(workers: int) -> bytes:
        scripts = (SOURCE, PLUGIN.replace("request_async_workers = 4", ""))
        return records_file(tmp_path, *scripts, seed=5, until=60, config=Config(workers=workers))

    assert run(16) == run(17) == run(64)


def test_results_that_depend_on_no_order_are_the_same_with_any_number_of_workers(tmp_path: Path) -> None:
    """What chance says of a task is its own; only the order may differ."""

    def alerts(workers: int) -> list[str]:
        scripts = (SOURCE, PLUGIN.replace("T.sim.now()", "''").replace("request_async_workers = 4", ""))
        collector, _ = simulate(tmp_path, *scripts, seed=3, until=60, config=Config(workers=workers))
        return sorted(each.message[:-8] for each in collector.of("alert"))

    assert alerts(1) == alerts(3) == alerts(16)


def test_another_seed_explores_another_order_of_results(tmp_path: Path) -> None:
    source = simulation("for n = 1, 6 do T.sim.emit('go', { n = n }) end")
    script = on_event(
        "T.async:schedule{ data = event.n .. '', onexecute = function(d) return d end, "
        "onresult = function(e, d) T.loginfo(d) end }",
        rest="request_async_workers = 6",
    )
    orders = {
        tuple(simulate(tmp_path, source, script, seed=seed, async_latency="fixed:1")[0].logged()) for seed in range(8)
    }
    assert len(orders) > 4
    assert {tuple(sorted(each)) for each in orders} == {("1", "2", "3", "4", "5", "6")}


def test_the_same_bytes_whatever_loop_the_program_has(tmp_path: Path) -> None:
    scripts = [write(tmp_path, SOURCE, "s0.lua"), write(tmp_path, PLUGIN, "s1.lua")]
    files = []
    for new_loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        files.append(tmp_path / f"{len(files)}.jsonl")
        run = Simulation(scripts, seed=5, until=30, sinks=[JsonLinesSink(files[-1])])
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(run.run_async())
    assert files[0].read_bytes() == files[1].read_bytes() == records_file(tmp_path, SOURCE, PLUGIN, seed=5, until=30)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_within_a_running_loop(tmp_path: Path, new_loop: object) -> None:
    script = write(tmp_path, simulation("T.sim.after(5, function() end)"))

    async def main() -> float:
        with pytest.raises(EngineError, match="await run_async"):
            Simulation([script]).run()
        return (await Simulation([script]).run_async()).seconds

    with asyncio.Runner(loop_factory=new_loop) as runner:  # type: ignore[arg-type]
        assert runner.run(main()) == 5.0


def test_run_once_only(tmp_path: Path) -> None:
    run = Simulation([write(tmp_path, simulation(""))])
    assert run.run().ok
    with pytest.raises(EngineError, match="once"):
        run.run()
