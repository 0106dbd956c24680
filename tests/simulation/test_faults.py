"""What scenarios do to the world: slow and failing disks and workers, bursts, drops, clock jumps; and the counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Config
from tests.scripts import on_event
from tests.simulation.rig import records_file, simulate, simulation

DONE = "function() T.loginfo(('done %g'):format(T.sim.now())) end"
TASK = f"T.async:schedule{{ onexecute = function() return 'r' end, onresult = {DONE} }}"
EVENTS = "T.sim.every(1, function() T.sim.emit('t', '') end)"


def copies(folder: Path, count: int) -> str:
    """Calls that copy a file to so many others."""
    (folder / "from").write_bytes(b"contents")
    return f"for number = 1, {count} do T.async:copy('{folder}/from', '{folder}/to' .. number) end"


def test_slow_workers_take_so_many_times_longer_from_now_on(tmp_path: Path) -> None:
    script = f"{TASK}\nT.sim.at(10, function() T.sim.workers({{ slow = 3 }}) {TASK} end)"
    collector, result = simulate(tmp_path, simulation(script), async_latency="fixed:2")
    assert collector.logged() == ["done 2", "done 16"]
    assert result.ok


def test_a_slow_disk_holds_copies_only(tmp_path: Path) -> None:
    look = "T.loginfo(tostring(T.sim.pending()))"
    script = (
        f"T.sim.disk{{ slow = 4 }} {copies(tmp_path, 1)} {TASK}\n"
        f"for _, time in ipairs{{ 0.5, 3.9, 4.1 }} do T.sim.at(time, function() {look} end) end"
    )
    collector, _ = simulate(tmp_path, simulation(script), async_latency="fixed:1", config=Config(workers=2))
    assert collector.logged() == ["2", "done 1", "1", "0"]
    assert (tmp_path / "to1").read_bytes() == b"contents"


def test_latency_can_change_on_the_way(tmp_path: Path) -> None:
    script = f"{TASK}\nT.sim.at(10, function() T.sim.workers({{ latency = 'fixed:5' }}) {TASK} end)"
    collector, _ = simulate(tmp_path, simulation(script), async_latency="fixed:2")
    assert collector.logged() == ["done 2", "done 15"]


@pytest.mark.parametrize("fault", ["disk", "workers"])
def test_what_always_fails_leaves_nothing_done(tmp_path: Path, fault: str) -> None:
    work = copies(tmp_path, 5) if fault == "disk" else TASK * 5
    collector, result = simulate(tmp_path, simulation(f"T.sim.{fault}{{ {FAILING[fault]} = 1 }} {work}"))
    tasks = result.stats.tasks
    assert (tasks.submitted, tasks.completed, tasks.failed) == (5, 0, 5)
    assert not list(tmp_path.glob("to*"))
    assert not [each for each in collector.logged() if each.startswith("done")]
    assert result.ok, "counts add up"


FAILING = {"disk": "failing", "workers": "dying"}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_part_of_it_fails_and_all_is_counted(tmp_path: Path, seed: int) -> None:
    script = f"T.sim.disk{{ failing = 0.3 }} T.sim.workers{{ dying = 0.3 }} {copies(tmp_path, 50)} {TASK * 50}"
    collector, result = simulate(tmp_path, simulation(script), seed=seed, config=Config(workers=3))
    tasks = result.stats.tasks
    assert tasks.submitted == 100
    assert tasks.completed + tasks.failed == 100
    assert 10 < tasks.failed < 60
    done = [each for each in collector.logged() if each.startswith("done")]
    assert tasks.completed == len(done) + len(list(tmp_path.glob("to*")))
    assert result.ok


def test_faults_stop_when_a_scenario_says_so(tmp_path: Path) -> None:
    script = f"T.sim.workers({{ dying = 1 }}) {TASK} T.sim.at(5, function() T.sim.workers({{ dying = 0 }}) {TASK} end)"
    _, result = simulate(tmp_path, simulation(script))
    assert (result.stats.tasks.failed, result.stats.tasks.completed) == (1, 1)


@pytest.mark.parametrize(("share", "least", "most"), [(0, 0, 0), (0.5, 60, 140), (1, 200, 200)])
def test_drops_are_lost_on_the_way_and_counted(tmp_path: Path, share: float, least: int, most: int) -> None:
    script = simulation(f"T.sim.drop({share}) {EVENTS}")
    _, result = simulate(tmp_path, script, on_event(""), until=200.5)
    assert least <= result.dropped <= most
    assert result.dropped + result.stats.events.received == 200
    assert result.ok


def test_a_burst_beyond_the_ring_is_dropped_and_told_to_the_scenario(tmp_path: Path) -> None:
    burst = "local n = 0 for _ = 1, 500 do if T.sim.emit('t', '') then n = n + 1 end end T.loginfo(tostring(n))"
    collector, result = simulate(tmp_path, simulation(burst), on_event(""), config=Config(event_limit=100))
    events = result.stats.events
    assert collector.logged() == ["100"]
    assert (events.received, events.handled, events.dropped) == (500, 100, 400)
    assert result.ok


@pytest.mark.parametrize("by", [3600, -3600])
def test_the_clock_jumps_and_timers_go_on(tmp_path: Path, by: int) -> None:
    script = (
        f"local before = os.time() T.sim.at(1, function() T.sim.jump_clock({by}) end)\n"
        "T.sim.every(2, function(_, now) T.loginfo(('%g %d'):format(now, os.time() - before)) end)"
    )
    collector, result = simulate(tmp_path, simulation(script), until=4.5)
    assert collector.logged() == [f"2 {by + 2}", f"4 {by + 4}"]
    assert result.seconds == 4.5
    assert result.ok


def test_the_same_seed_has_the_same_faults(tmp_path: Path) -> None:
    script = simulation(
        f"T.sim.disk{{ failing = 0.3 }} T.sim.workers{{ dying = 0.3, latency = 'pareto:2:0.01' }} T.sim.drop(0.2)\n"
        f"T.sim.at(3, function() T.sim.jump_clock(50) end) {EVENTS}"
    )
    plugin = on_event(f"{TASK} {copies(tmp_path, 1)}")
    files = [records_file(tmp_path, script, plugin, seed=seed, until=60) for seed in (1, 1, 2)]
    assert files[0] == files[1] != files[2]
