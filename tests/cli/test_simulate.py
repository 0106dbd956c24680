"""`offpath simulate` as a command: what it prints, what it refuses, and how a seed that broke something is repeated."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from engine.cli.app import app
from tests.scripts import on_event, write
from tests.simulation.rig import simulation

CODE = "from engine.cli.app import main; main()"
SOURCE = simulation("T.sim.every(1, function(_, now) print('tick') T.sim.emit('t', { at = now }) end)")
PLUGIN = on_event("T.async:schedule{ onexecute = function() end }")
UNLUCKY = simulation("T.sim.at(2, function() T.sim.check(T.sim.random('luck'):integer(1, 10) ~= 3, 'a three') end)")


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["simulate", *map(str, args)])


def test_a_run_says_what_it_came_to_and_repeats(tmp_path: Path) -> None:
    scripts = [write(tmp_path, SOURCE, "a.lua"), write(tmp_path, PLUGIN, "b.lua")]
    out = tmp_path / "records.jsonl"
    first = run(*scripts, "--until", "20.5", "--seed", "4", "--records", out)
    records = out.read_bytes()
    assert (first.exit_code, first.stderr) == (0, "")
    assert first.stdout.startswith("seed 4: 20.50 s of virtual time\n")
    assert "async tasks  20: 20 completed\n" in first.stdout
    assert b'"kind":"summary"' in records
    again = run(*scripts, "--until", "20.5", "--seed", "4", "--records", out)
    assert (again.stdout, out.read_bytes()) == (first.stdout, records)


def test_a_check_that_fails_is_exit_code_1(tmp_path: Path) -> None:
    result = run(write(tmp_path, simulation("T.sim.check(false, 'no')"), "a.lua"))
    assert result.exit_code == 1
    assert result.stderr == "seed 1: 0.000000: a.lua simulation: no\n"


def test_exploring_stops_at_the_first_seed_that_breaks_and_says_how_to_repeat_it(tmp_path: Path) -> None:
    script = write(tmp_path, UNLUCKY, "unlucky one.lua")
    found = run(script, "--explore", "200", "--until", "30", "--workers", "3", "--args", "a b")
    assert found.exit_code == 1
    told, _, command = found.stdout.strip().rpartition("to repeat it: ")
    assert not told
    seed = int(command.split("--seed ")[1].split()[0])
    assert found.stderr == f"seed {seed}: 2.000000: unlucky one.lua simulation: a three\n"
    words = shlex.split(command)
    assert words == [
        *("offpath", "simulate", str(script), "--seed", str(seed)),
        *("--until", "30", "--workers", "3", "--args", "a b"),
    ]
    assert run(*words[2:]).stderr == found.stderr
    assert seed == 1 or run(script, "--explore", str(seed - 1), "--until", "30").exit_code == 0


def test_exploring_when_nothing_breaks(tmp_path: Path) -> None:
    scripts = [write(tmp_path, SOURCE, "a.lua"), write(tmp_path, PLUGIN, "b.lua")]
    result = run(*scripts, "--until", "3", "--explore", "4", "--seed", "7")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "seeds 7 to 10: nothing broke\n", "")


def test_a_time_that_stands_still_is_found_by_exploring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.simulation.loop._MOST_TURNS", 1_000)
    echo = on_event("T.async:schedule{ onexecute = function() end }; T.sim.emit('t', {})")
    scripts = [write(tmp_path, simulation("T.sim.emit('t', {})"), "a.lua"), write(tmp_path, echo, "b.lua")]
    result = run(*scripts, "--until", "3", "--explore", "2", "--async-latency", "fixed:0")
    assert result.exit_code == 1
    assert "seed 1: the simulation goes on and on, and no time goes by" in result.stderr


def test_prints_of_scripts_are_shown_but_not_when_exploring(tmp_path: Path) -> None:
    script = write(tmp_path, SOURCE, "a.lua")

    def shown(*more: str) -> str:
        command = [sys.executable, "-c", CODE, "simulate", str(script), "--until", "2.5", *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    assert shown().startswith("tick\ntick\nseed 1: ")
    assert shown("--explore", "2") == "seeds 1 to 2: nothing broke\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["missing.lua"], "missing.lua: No such file or directory"),
        (["a.lua", "--until", "-1"], "until must be a number of seconds, not -1.0"),
        (["a.lua", "--until", "nan"], "--until must be a number of seconds, not nan"),
        (["a.lua", "--async-latency", "slow"], "latency 'slow': write it as one of fixed:SECONDS"),
        (["a.lua", "--workers", "0"], "workers must be"),
        (["a.lua", "--set", "x"], "--set 'x': write it as PATH=VALUE"),
        (["a.lua", "--explore", "2", "--records", "r.jsonl"], "--records goes with one run"),
        (["a.lua", "--explore", "2", "--db", "x.db"], "--db goes with one run"),
        (["a.lua", "--explore", "2", "--parquet", "p"], "--parquet goes with one run"),
        (["a.lua", "--db", "a.lua"], "a.lua: records would overwrite what is to be read"),
        (["a.lua", "--records", "a.lua"], "a.lua: records would overwrite what is to be read"),
        (["bad.lua"], "bad.lua"),
    ],
)
def test_refuses_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, SOURCE, "a.lua")
    write(tmp_path, "TrisulPlugin = {", "bad.lua")
    result = run(*args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_windows_and_records_can_be_asked_for_afterwards(tmp_path: Path) -> None:
    count = (
        "countergroup = { control = { guid = '{7E2C1D14-3B52-4E0B-9B6E-5D0F3A6C2B11}', name = 'Ticks', "
        "description = '', bucketsize = 60 }, meters = { { 0, T.K.vartype.COUNTER, 5, 0, 'Ticks', '' } } },"
    )
    tick = "engine:update_counter('{7E2C1D14-3B52-4E0B-9B6E-5D0F3A6C2B11}', 'all', 0, 1)"
    script = write(tmp_path, simulation(f"T.sim.every(1, function(engine) {tick} end)", rest=count), "a.lua")
    db, folder = tmp_path / "x.db", tmp_path / "parquet"
    for _ in range(2):  # the same run is stored once
        result = run(script, "--until", "600", "--db", db, "--parquet", folder)
        assert (result.exit_code, result.stderr) == (0, "")
    asked = CliRunner().invoke(app, ["query", str(db), "series", "Ticks", "all", "--format", "csv"])
    values = [float(line.split(",")[-1]) for line in asked.stdout.splitlines()[1:]]
    assert sum(values) in {600, 599}
    assert list(folder.glob("counters-*.parquet"))


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_what_never_ends_ends_by_ctrl_c(tmp_path: Path) -> None:
    script = write(tmp_path, simulation("T.sim.every(1, function() print('tick') end)"), "a.lua")
    command = [sys.executable, "-u", "-c", CODE, "simulate", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "tick\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_offpath_run_says_that_it_runs_no_simulation(tmp_path: Path) -> None:
    script = write(tmp_path, SOURCE, "a.lua")
    capture = tmp_path / "x.pcap"
    CliRunner().invoke(app, ["synth", str(capture), "--files", "1"])
    command = [sys.executable, "-c", CODE, "run", str(script), "--capture", str(capture)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr
    assert "its simulation block does nothing here: offpath simulate runs it" in told
