"""T.sim, and the time and chance that scripts see."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from engine import Config, ConfigError, Engine, ScriptLoadError
from engine.simulation import Simulation
from engine.simulation.transfers import _COMMON, _EXCHANGE
from tests.scripts import Collector, on_event, plugin, write
from tests.simulation.rig import simulate, simulation


def log(tmp_path: Path, onbegin: str, *, level: str = "INFO", **options: object) -> list[str]:
    """What a simulation block logs."""
    return simulate(tmp_path, simulation(onbegin), **options)[0].logged(level)


def test_time_is_virtual_in_lua(tmp_path: Path) -> None:
    lines = log(
        tmp_path,
        """
        T.loginfo(os.time() .. " " .. os.clock() .. " " .. T.sim.now())
        T.sim.at(90.5, function(engine, now)
          T.loginfo(os.time() .. " " .. os.clock() .. " " .. now .. " " .. os.date("!%H:%M:%S"))
          local day = { year = 2001, month = 9, day = 9, hour = 12 }
          local noon = os.time(day)
          day.hour = 11
          T.loginfo(noon - os.time(day) .. "")
          T.loginfo(os.date("!%Y", 0))
        end)
        """,
    )
    assert lines == ["1700000000 0 0", "1700000090 90.5 90.5 22:14:50", "3600", "1970"]


def test_time_is_virtual_on_workers(tmp_path: Path) -> None:
    lines = log(
        tmp_path,
        """
        T.sim.after(3, function()
          T.async:schedule{ onexecute = function() return os.clock() .. " " .. os.time() .. " " .. T.sim.now() end,
            onresult = function(engine, _, result) T.loginfo(result .. " " .. os.clock()) end }
        end)
        """,
        async_latency="fixed:2",
    )
    assert lines == ["3 1700000003 3 5"]


def test_records_have_virtual_time(tmp_path: Path) -> None:
    collector, result = simulate(tmp_path, simulation("T.sim.at(7, function() T.loginfo('x') end)"))
    assert [record.time for record in collector.of("log") if record.text == "x"] == [1_700_000_007.0]
    assert collector.of("summary")[0].seconds == result.seconds == 7.0


def test_every_goes_on_until_it_returns_false(tmp_path: Path) -> None:
    lines = log(
        tmp_path, "local n = 0 T.sim.every(2, function(_, now) n = n + 1 T.loginfo(now .. '') return n < 3 end)"
    )
    assert lines == ["2", "4", "6"]


def test_until_ends_what_goes_on_for_ever(tmp_path: Path) -> None:
    script = simulation("T.sim.every(1, function() n = (n or 0) + 1 end)", onend="T.loginfo(n .. ' ' .. now)")
    began = time.monotonic()
    collector, result = simulate(tmp_path, script, until=1_000.5)
    assert collector.logged() == ["1000 1000.5"]
    assert result.seconds == 1_000.5
    assert time.monotonic() - began < 20


def test_windows_follow_virtual_time(tmp_path: Path) -> None:
    group = "{5F3A9D6C-71C8-4C0B-9A31-40A7E9C3A5D1}"
    script = simulation(f"T.sim.every(1, function(engine) engine:update_counter('{group}', 'k', 0, 1) end)")
    collector, _ = simulate(tmp_path, script, until=180)
    counters = collector.of("counter")
    assert [each.value for each in counters][1:3] == [60, 60]
    assert sum(each.value for each in counters) == pytest.approx(180, abs=1)


def test_streams_of_random_numbers_are_apart(tmp_path: Path) -> None:
    def draws(more: str) -> list[str]:
        return log(
            tmp_path,
            f"local a, b = T.sim.random('a'), T.sim.random('b') {more} "
            "for _ = 1, 5 do T.loginfo(('%.17g'):format(a:uniform())) end",
        )

    assert draws("") == draws("b:normal() math.random() T.sim.random('c'):choice{ 1, 2 }")
    assert len(set(draws(""))) == 5


@pytest.mark.parametrize(
    ("draw", "mean", "tolerance"),
    [
        ("uniform()", 0.5, 0.01),
        ("uniform(10, 20)", 15, 0.1),
        ("exponential(3)", 3, 0.1),
        ("pareto(3, 2)", 3, 0.1),
        ("normal(5, 2)", 5, 0.1),
        ("integer(1, 6)", 3.5, 0.05),
        ("choice{ 2, 4 }", 3, 0.05),
    ],
)
def test_distributions_have_their_means(tmp_path: Path, draw: str, mean: float, tolerance: float) -> None:
    body = f"for _ = 1, 40000 do sum = sum + r:{draw} end T.loginfo(sum / 40000 .. '')"
    [line] = log(tmp_path, f"local r, sum = T.sim.random('x'), 0 {body}")
    assert float(line) == pytest.approx(mean, abs=tolerance)


def test_uniform_numbers_are_even_bit_by_bit(tmp_path: Path) -> None:
    [line] = log(
        tmp_path,
        """
        local r, counts, places = T.sim.random("bits"), {}, {}
        for _ = 1, 20000 do
          local x = r:uniform()
          for bit = 1, 50 do
            x = x * 2
            local one = x >= 1 and 1 or 0
            x, counts[bit] = x - one, (counts[bit] or 0) + one
          end
        end
        local least, most = math.huge, 0
        for _, count in ipairs(counts) do least, most = math.min(least, count), math.max(most, count) end
        T.loginfo(least .. " " .. most)
        """,
    )
    least, most = map(int, line.split())
    assert 9_650 < least <= most < 10_350  # five standard deviations


def test_a_check_that_fails_is_told_with_its_time_and_script(tmp_path: Path) -> None:
    script = simulation("T.sim.at(2, function() T.sim.check(true, 'fine') T.sim.check(nil, 'it broke') end)")
    _, result = simulate(tmp_path, script)
    assert not result.ok
    assert result.failures == ("2.000000: s0.lua simulation: it broke",)


def test_only_the_first_checks_that_fail_are_told(tmp_path: Path) -> None:
    _, result = simulate(tmp_path, simulation("for n = 1, 1234 do T.sim.check(false, n) end"))
    assert len(result.failures) == 101
    assert result.failures[99:] == ("0.000000: s0.lua simulation: 100", "1,134 more checks failed")


def test_hooks_of_a_simulation_block_that_fail_are_told_and_counted(tmp_path: Path) -> None:
    collector, result = simulate(tmp_path, simulation("error('first')", onend="error('last')"))
    assert ["first" in line or "last" in line for line in collector.logged("ERROR")] == [True, True]
    assert result.stats.script_errors == 2


def test_a_function_that_fails_later_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    collector, result = simulate(
        tmp_path, simulation("T.sim.at(1, function() error('oh') end) T.sim.at(2, function() T.loginfo('on') end)")
    )
    assert "T.sim: s0.lua:4: oh" in collector.logged("ERROR")[0]
    assert collector.logged() == ["on"]
    assert result.stats.script_errors == 1


def test_events_cross_with_all_that_is_in_them(tmp_path: Path) -> None:
    source = simulation(
        "T.sim.emit('t', { n = 1.5, yes = true, text = 'a\\0b', list = { 'x', { deep = 2 } } }) T.sim.emit('t', 'bare')"
    )
    sink = on_event(
        "if type(event) == 'string' then T.loginfo(event) else "
        "T.loginfo(event.n .. tostring(event.yes) .. #event.text .. event.list[1] .. event.list[2].deep) end"
    )
    assert simulate(tmp_path, source, sink)[0].logged() == ["1.5true3x2", "bare"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("T.sim.at(-1, print)", "T.sim.at: the time must be a number of seconds"),
        ("T.sim.at(1, 2)", "T.sim.at: takes a function"),
        ("T.sim.every(0, print)", "T.sim.every: the gap must be above 0"),
        ("T.sim.emit(1, {})", "T.sim.emit: the topic must be a string"),
        ("T.sim.emit('t', { f = print })", "T.sim.emit: an event is made of"),
        ("T.sim.workers{ speed = 1 }", "T.sim.workers: no option is named 'speed'"),
        ("T.sim.workers{ latency = 'fast' }", "T.sim.workers: latency 'fast'"),
        ("T.sim.disk{ failing = 2 }", "T.sim.disk: a share must be from 0 to 1"),
        ("T.sim.drop(-1)", "T.sim.drop: a share must be from 0 to 1"),
        ("T.sim.jump_clock('x')", "T.sim.jump_clock: the clock can't go"),
        ("T.sim.at(1, function() end) T.sim.random('x'):choice{}", "random:choice: takes an array"),
    ],
)
def test_wrong_calls_raise_at_the_line_of_the_script(tmp_path: Path, call: str, message: str) -> None:
    collector, _ = simulate(tmp_path, simulation(call))
    [line] = collector.logged("ERROR")
    assert message in line
    assert "s0.lua:4:" in line


def test_nothing_can_be_planned_in_the_chunk(tmp_path: Path) -> None:
    with pytest.raises(ScriptLoadError, match="for hooks"):
        simulate(tmp_path, "T.sim.at(1, print)\n" + plugin("simulation = { onbegin = function() end }"))


async def test_there_is_no_t_sim_in_the_time_of_the_wall(tmp_path: Path) -> None:
    collector = Collector()
    async with Engine([write(tmp_path, on_event("T.loginfo(tostring(T.sim)) "))], sinks=[collector]) as engine:
        await engine.emit("t", "x")
    assert collector.logged() == ["nil"]


@pytest.mark.parametrize("options", [{"seed": -1}, {"seed": 1.5}, {"until": -1}, {"async_latency": "uniform:2:1"}])
def test_wrong_options(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Simulation([write(tmp_path, simulation(""))], **options)  # type: ignore[arg-type]


def test_a_ring_that_is_full_loses_what_comes_while_the_loop_is_held(tmp_path: Path) -> None:
    source = simulation(
        "local n = 0 T.sim.every(0.01, function() n = n + 1 T.sim.emit('p', { n = n }) return n < 1000 end)"
    )
    busy = on_event("T.sim.spend(0.02)")
    _, result = simulate(tmp_path, source, busy, config=Config(event_limit=10))
    events = result.stats.events
    assert events.received == 1_000
    # It can do half of what comes, and what fits into the ring in the end.
    assert events.handled == pytest.approx(510, abs=3)
    assert events.dropped == events.received - events.handled
    assert result.ok


def test_every_function_is_in_the_table_and_the_other_way_round() -> None:
    root = Path(__file__).parents[2]
    made = set(re.findall(r"function sim\.(\w+)", (root / "lua_api" / "sim.lua").read_text(encoding="utf-8")))
    section = (root / "engine" / "README.md").read_text(encoding="utf-8").partition("## Simulations")[2]
    told = {name for line in section.splitlines() if line.startswith("| `T.sim.")
            for name in re.findall(r"`T\.sim\.(\w+)", line.split("|")[1])}  # fmt: skip
    assert told == made


def test_every_field_of_transfers_is_in_the_table() -> None:
    section = (Path(__file__).parents[2] / "engine" / "README.md").read_text(encoding="utf-8").partition("| field |")[2]
    told = {name for line in section.splitlines() if line.startswith("| `")
            for name in re.findall(r"`(\w+)`", line.split("|")[1])}  # fmt: skip
    assert told >= _COMMON | _EXCHANGE | {"protocol", "sends", "exchanges"}
