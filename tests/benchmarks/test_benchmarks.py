"""The benchmark `blocking` in small, and the command. Nothing here looks at how long anything took."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import __main__ as command
from benchmarks import machine, readme
from benchmarks.blocking import CHARTED, INLINE, OFFLOADED, WAYS, check_copies, check_stats, held_measures, measure
from benchmarks.harness import Benchmark, BenchmarkError, Options, Report
from benchmarks.probes import HookTimes, LoopLag
from benchmarks.table import number, report_lines, spread
from engine import Config, Engine
from engine.values.stats import AsyncStats, EngineStats, HookStats, PluginStats


@pytest.fixture(scope="module")
def report() -> Report:
    """Both repeats of every way, each compared with the known contents by the benchmark itself."""
    return measure(files=4, repeats=2, warmups=0)


def test_every_way_was_measured(report: Report) -> None:
    assert list(report.series) == list(WAYS) == [*INLINE, *OFFLOADED]
    for metrics in report.series.values():
        assert set(metrics) == {column.metric for column in report.columns}
        assert all(len(each.values) == 2 for each in metrics.values())
        assert all(value > 0 for name in (*CHARTED, "held", "run", "files") for value in metrics[name].values)
        assert metrics["p50"].low <= metrics["p99"].high <= metrics["max"].high


def test_every_way_made_the_same_copies(report: Report) -> None:
    counts = {value for metrics in report.series.values() for value in metrics["files"].values}
    assert len(counts) == 1
    assert counts.pop() >= 4


def test_table_and_chart_have_the_measured_numbers(report: Report) -> None:
    text = "\n".join(report_lines(report))
    shown = {each.text for each in ElementTree.fromstring(report.chart).iter("{http://www.w3.org/2000/svg}text")}
    for way, metrics in report.series.items():
        assert way in text
        assert way in shown
        assert all(spread(each) in text for each in metrics.values())
        assert {number(metrics[name].median) for name in CHARTED} <= shown
    assert all(each.text.format(spread(each.spread)) in text for each in report.ratios)


def test_calls_of_a_run_in_micro_and_milliseconds() -> None:
    found = held_measures([0.004, 0.001, 0.002, 0.003])
    assert {name: round(value, 6) for name, value in found.items()} == {"p50": 2e3, "p99": 4e3, "max": 4e3, "held": 10}


# ---- what makes the benchmark fail


def _contents(*files: bytes) -> Counter[str]:
    return Counter(hashlib.sha256(each).hexdigest() for each in files)


def test_parts_are_joined_and_empty_copies_allowed(tmp_path: Path) -> None:
    for name, data in (("a.bin.0.part", b"one"), ("a.bin.3.part", b"two"), ("a.bin.10.part", b"!"), ("b", b"")):
        (tmp_path / name).write_bytes(data)
    assert check_copies("way", tmp_path, _contents(b"onetwo!")) == 4


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ([b"one", b"two"], "way: 1 files are missing and 0 differ, of 2"),
        ([b"One"], "way: 1 files are missing and 1 differ, of 1"),
        ([], "0 files are missing and 1 differ"),
    ],
)
def test_wrong_copies_fail(tmp_path: Path, known: list[bytes], message: str) -> None:
    (tmp_path / "a").write_bytes(b"one")
    with pytest.raises(BenchmarkError, match=message):
        check_copies("way", tmp_path, _contents(*known))


def test_wrong_counts_fail() -> None:
    hook = HookStats("onfile_http", calls=3)
    stats = EngineStats(plugins=(PluginStats("name", "script", "filex_monitor", (hook,)),))
    done = replace(stats, tasks=AsyncStats(submitted=3, completed=3))
    check_stats(INLINE[0], stats, 3)
    check_stats(OFFLOADED[0], done, 3)
    for way, wrong in (
        (INLINE[0], done),
        (OFFLOADED[0], stats),
        (OFFLOADED[0], replace(done, script_errors=1)),
        (OFFLOADED[0], replace(done, tasks=AsyncStats(submitted=3, completed=2, failed=1))),
    ):
        with pytest.raises(BenchmarkError, match=way):
            check_stats(way, wrong, 3)


# ---- probes


async def test_every_call_of_the_hook_is_seen(tmp_path: Path) -> None:
    script = tmp_path / "listen.lua"
    script.write_text(
        'TrisulPlugin = { id = { name = "n", description = "d" },'
        ' event_monitor = { topics = { "*" }, onevent = function() end } }'
    )
    held, other = HookTimes("onevent"), HookTimes("onmessage")
    async with Engine([script], config=Config()) as engine:
        assert engine.load_errors == ()
        other.attach(engine)
        held.attach(engine)
        for _ in range(5):
            await engine.emit("topic", {"a": 1})
    (plugin,) = engine.stats.plugins
    assert [each.calls for each in plugin.hooks if each.name == "onevent"] == [len(held.seconds)] == [5]
    assert other.seconds == []


async def test_loop_lag_ticks_and_ends_with_its_block() -> None:
    async with LoopLag() as lag:
        while not lag.seconds:  # noqa: ASYNC110 - a tick announces itself to nobody
            await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


# ---- the command


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, report: Report) -> Callable[[BenchmarkError | None], list[Options]]:
    """Put one benchmark in place of all, which gives the small report or raises; the options it was run with."""

    def install(error: BenchmarkError | None) -> list[Options]:
        given: list[Options] = []

        def run(options: Options) -> Report:
            given.append(options)
            if error is not None:
                raise error
            return report

        monkeypatch.setattr(command, "discover", lambda: {"small": Benchmark("small", "something", "nothing", run)})
        return given

    return install


def test_without_a_name_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("blocking ")]


def test_an_unknown_name_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["blocking", "nothing"])
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "usage: python -m benchmarks" in shown.err
    assert "no benchmark 'nothing', there are: blocking" in shown.err


def test_runs_prints_plots_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], report: Report, fake: Callable[..., list[Options]]
) -> None:
    given = fake(None)
    out, plots = tmp_path / "out.json", tmp_path / "new" / "plots"
    assert command.main(["small", "small", "--quick", "--json", str(out), "--plot", str(plots)]) == 0
    assert given == [Options(quick=True)]
    shown = capsys.readouterr().out
    assert "\n".join(report_lines(report)) in shown
    assert "of the processor time meanwhile" in shown
    assert f"chart: {plots / 'blocking.svg'}" in shown
    assert (plots / "blocking.svg").read_text(encoding="utf-8") == report.chart
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["quick"] is True
    assert all(line in shown for line in machine.lines(found["machine"]))
    assert set(found["benchmarks"][0]["series"]) == set(WAYS)


def test_a_failed_benchmark_is_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fake: Callable[..., list[Options]]
) -> None:
    fake(BenchmarkError("way: 1 files are missing"))
    assert command.main(["small", "--plot", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "benchmarks: way: 1 files are missing\n"
    assert list(tmp_path.iterdir()) == []


def test_json_into_a_missing_folder_is_refused_before_anything_runs(
    tmp_path: Path, fake: Callable[..., list[Options]]
) -> None:
    given = fake(None)
    with pytest.raises(SystemExit) as stopped:
        command.main(["small", "--json", str(tmp_path / "missing" / "out.json")])
    assert stopped.value.code == 2
    assert given == []


def _fakes(monkeypatch: pytest.MonkeyPatch, report: Report) -> list[str]:
    """Three benchmarks that give the small report, one of them not part of `all`; those that were run."""
    ran: list[str] = []

    def run(name: str, _options: Options) -> Report:
        ran.append(name)
        return replace(report, name=name)

    made = [Benchmark(name, "something", "nothing", partial(run, name), name != "b") for name in ("a", "b", "c")]
    monkeypatch.setattr(command, "discover", lambda: {each.name: each for each in made})
    return ran


@pytest.mark.parametrize(
    ("names", "expected"), [(["all"], ["a", "c"]), (["c", "all"], ["c", "a"]), (["all", "b"], ["a", "c", "b"])]
)
def test_all_means_those_that_have_an_end(
    monkeypatch: pytest.MonkeyPatch, report: Report, names: list[str], expected: list[str]
) -> None:
    ran = _fakes(monkeypatch, report)
    assert command.main(names) == 0
    assert ran == expected


def test_readme_gets_results_and_charts(monkeypatch: pytest.MonkeyPatch, report: Report, tmp_path: Path) -> None:
    _fakes(monkeypatch, report)
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    assert command.main(["a", "b", "--readme"]) == 0
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert set(readme.old_results(text)) == {"a", "b", "c"}
    assert "](plots/a.svg)" in text
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["a.svg", "b.svg"]


def test_failures_are_shown_with_the_report_and_are_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], report: Report, tmp_path: Path
) -> None:
    _fakes(monkeypatch, replace(report, failures=["threads grew: 1, 2"]))
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    assert command.main(["a", "--readme"]) == 1
    shown = capsys.readouterr()
    assert "a: how long each way" in shown.out
    assert shown.err == "benchmarks: a: threads grew: 1, 2\n"
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize(
    "options", [["--readme", "--quick"], ["--readme", "--plot", "x"], ["--minutes", "0"], ["--minutes", "nan"]]
)
def test_options_that_make_no_sense_are_usage_errors(fake: Callable[..., list[Options]], options: list[str]) -> None:
    given = fake(None)
    with pytest.raises(SystemExit) as stopped:
        command.main(["small", *options])
    assert stopped.value.code == 2
    assert given == []


def test_minutes_reach_the_benchmark(fake: Callable[..., list[Options]]) -> None:
    given = fake(None)
    assert command.main(["small", "--minutes", "2.5"]) == 0
    assert given == [Options(minutes=2.5)]


def test_without_a_folder_charts_go_to_plots(
    fake: Callable[..., list[Options]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    fake(None)
    assert command.main(["small"]) == 0
    assert "chart: plots/blocking.svg" in capsys.readouterr().out
    assert (tmp_path / "plots" / "blocking.svg").exists()


def test_machine_is_described(tmp_path: Path) -> None:
    described = machine.describe()
    assert list(described) == ["cpu", "cores", "load", "kernel", "python", "luajit", "lupa", "uvloop"]
    assert all(described.values())
    assert described["luajit"].startswith("2.1")
    assert machine.filesystem(tmp_path) != "unknown"
    assert machine.stolen_seconds() >= 0
