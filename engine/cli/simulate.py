"""The command `offpath simulate`: scripts in virtual time, once or with many seeds."""

from __future__ import annotations

import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import options
from engine.cli.options import check_files, refuse, setting

if TYPE_CHECKING:
    from engine.simulation import Result, Simulation

_BROKEN = 1  # exit code: something that must be so was not
_REFUSED = 2
_INTERRUPTED = 130


def simulate(
    scripts: Annotated[
        list[Path],
        typer.Argument(metavar="SCRIPT", help="The scenario, and the plugins that it is for.", show_default=False),
    ],
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="The same seed gives the same run.")] = 1,
    until: Annotated[
        float | None,
        typer.Option("--until", metavar="SECONDS", help="Virtual time to run; else until nothing is left to happen."),
    ] = None,
    explore: Annotated[
        int | None,
        typer.Option("--explore", metavar="N", min=1, help="Run N seeds, from --seed on, until one breaks something."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", help="Workers per plugin that asks for no number.")
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option(
            "--async-latency",
            metavar="DISTRIBUTION",
            help="How long async work takes: fixed:S, uniform:S:S, exponential:MEAN (0.001) or pareto:SHAPE:LEAST.",
        ),
    ] = None,
    records: options.Records = None,
    db: options.Database = None,
    parquet: options.Parquet = None,
    args: options.Arguments = "",
    settings: options.Settings = None,
    verbose: options.Verbosity = 0,
) -> None:
    """Run Lua scripts in virtual time: what they plan with T.sim happens, and the same seed gives the same records.

    With --explore, runs one seed after the other and stops at the first that breaks a T.sim.check, or after which the
    engine's counts do not add up; prints what broke, and the command that repeats it. What scripts print is not shown.

    \b
    Exit codes: 0    nothing broke
                1    a check failed, or counts do not add up
                2    bad usage, a script that does not load, a simulation that can't go on
                130  stopped by Ctrl-C
    """
    check_files(scripts, [], records)
    check_files(scripts, [], db)
    if until is not None and not math.isfinite(until):
        refuse(f"--until must be a number of seconds, not {until}")
    for option, path in (("--records", records), ("--db", db), ("--parquet", parquet)):
        if explore is not None and path is not None:
            refuse(f"{option} goes with one run: repeat the seed that broke with it")

    from engine import EngineError

    plan = _Plan(tuple(scripts), until, workers, latency, args, tuple(settings or ()), records, db, parquet, verbose)
    try:
        code = _run_once(plan, seed) if explore is None else _explore(plan, seed, explore)
    except EngineError as exc:
        refuse(str(exc))
    except KeyboardInterrupt:
        code = _INTERRUPTED
    raise typer.Exit(code)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What stays the same from seed to seed."""

    scripts: tuple[Path, ...]
    until: float | None
    workers: int | None
    latency: str | None
    args: str
    settings: tuple[str, ...]
    records: Path | None
    db: Path | None
    parquet: Path | None
    verbosity: int

    def simulation(self, seed: int, **more: Any) -> Simulation:
        """One that is ready to run. Raises `EngineError`."""
        from engine import Config
        from engine.simulation import Simulation

        config = Config(workers=self.workers, args=self.args, settings=dict(map(setting, self.settings)))
        return Simulation(self.scripts, seed=seed, until=self.until, config=config, async_latency=self.latency, **more)

    def command(self, seed: int) -> str:
        """The command that runs it."""
        words: list[object] = ["--seed", seed]
        given = {"--until": self.until, "--workers": self.workers, "--async-latency": self.latency}
        for name, value in given.items():
            words += [] if value is None else [name, f"{value:g}" if isinstance(value, float) else value]
        words += ["--args", self.args] if self.args else []
        for each in self.settings:
            words += ["--set", each]
        return shlex.join(map(str, ("offpath", "simulate", *self.scripts, *words)))


def _run_once(plan: _Plan, seed: int) -> int:
    from engine import ScriptLoadError
    from engine.cli.outputs import close_now, identity, open_sinks
    from engine.cli.summary import duration, summary_lines
    from engine.cli.terminal import Display

    source = f"{identity(None, plan.scripts)}, seed {seed}"
    sinks = open_sinks(records=plan.records, db=plan.db, parquet=plan.parquet, source=source)
    try:
        with Display("simulation", None, verbosity=plan.verbosity):
            result = plan.simulation(seed, sinks=sinks).run()
    except ScriptLoadError:
        return _REFUSED  # the log said what is wrong with it
    finally:
        close_now(sinks)
    lost = f", {result.dropped:,} events lost by the scenario" if result.dropped else ""
    typer.echo(f"seed {seed}: {duration(result.seconds)} of virtual time{lost}")
    for line in summary_lines(result.stats, result.seconds, virtual=True):
        typer.echo(line)
    return _tell(result)


def _explore(plan: _Plan, first: int, count: int) -> int:
    import logging

    from engine.simulation import TimeStandsStillError

    logging.getLogger("offpath").setLevel(logging.CRITICAL + 1)  # the command that repeats it shows what was logged
    for seed in range(first, first + count):
        try:
            code = _tell(plan.simulation(seed, prints=False).run())
        except TimeStandsStillError as exc:
            typer.echo(f"seed {seed}: {exc}", err=True)
            code = _BROKEN
        if code:
            typer.echo(f"to repeat it: {plan.command(seed)}")
            return code
        if sys.stderr.isatty():
            typer.echo(f"\r{seed - first + 1} of {count} seeds", err=True, nl=seed == first + count - 1)
    seeds = f"seed {first}" if count == 1 else f"seeds {first} to {first + count - 1}"
    typer.echo(f"{seeds}: nothing broke")
    return 0


def _tell(result: Result) -> int:
    for failure in result.failures:
        typer.echo(f"seed {result.seed}: {failure}", err=True)
    return 0 if result.ok else _BROKEN
