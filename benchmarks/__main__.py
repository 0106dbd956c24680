"""The command `python -m benchmarks`: runs benchmarks by name, prints what they found, writes charts and JSON."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import machine, readme
from benchmarks.harness import Benchmark, BenchmarkError, Options, Report, as_mapping, discover
from benchmarks.table import list_lines, report_lines

ALL = "all"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 when a benchmark did not do its work or a file can't be written, 2 for a wrong command line."""
    benchmarks = discover()
    parser = _parser(benchmarks)
    wanted = parser.parse_args(arguments)
    for name in wanted.names:
        if name not in benchmarks and name != ALL:
            parser.error(f"no benchmark {name!r}, there are: {', '.join(benchmarks)}")
    if not wanted.names:
        print("\n".join(["python -m benchmarks NAME... runs these, and all runs more than one:", ""]))
        print("\n".join(list_lines(benchmarks)))
        return 0
    _check(parser, wanted)
    try:
        options = Options(wanted.quick, wanted.minutes)
        reports = _run([benchmarks[name] for name in _chosen(wanted.names, benchmarks)], options, wanted)
    except (BenchmarkError, OSError) as exc:
        print(f"benchmarks: {exc}", file=sys.stderr)
        return 1
    wrong = [f"benchmarks: {report.name}: {each}" for report in reports for each in report.failures]
    print("".join(f"{line}\n" for line in wrong), end="", file=sys.stderr)
    return 1 if wrong else 0


def _chosen(names: Sequence[str], benchmarks: Mapping[str, Benchmark]) -> list[str]:
    """Each once, in the order they were named."""
    every = [name for name, each in benchmarks.items() if each.in_all]
    return list(dict.fromkeys(each for name in names for each in (every if name == ALL else [name])))


def _check(parser: argparse.ArgumentParser, wanted: argparse.Namespace) -> None:
    """What can be said to be wrong now, and not when everything was measured."""
    if wanted.json is not None and not wanted.json.parent.is_dir():
        parser.error(f"{wanted.json}: there is no such folder")
    if wanted.readme and (wanted.quick or wanted.plot is not None):
        parser.error("--readme takes neither --quick nor --plot: it is for full runs, with charts beside it")
    if not 0 < wanted.minutes < math.inf:
        parser.error("--minutes must be more than 0")


def _parser(benchmarks: Mapping[str, Benchmark]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the engine. Without a name, the benchmarks are listed.",
        epilog=f"benchmarks: {', '.join(benchmarks)}",
    )
    several = ", ".join(name for name, each in benchmarks.items() if each.in_all)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"benchmarks to run, one after the other; {ALL} means {several}"
    )
    parser.add_argument("--quick", action="store_true", help="less work and fewer repeats: a look, not a measurement")
    parser.add_argument("--minutes", type=float, default=1.0, metavar="N", help="how long soak goes on; default 1")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the values of every repeat to this file")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw charts into this folder (default: plots)")
    parser.add_argument("--readme", action="store_true", help="write the results, with charts, to benchmarks/README.md")
    return parser


def _run(benchmarks: Sequence[Benchmark], options: Options, wanted: argparse.Namespace) -> list[Report]:
    description = machine.describe()
    plots = readme.README.parent / readme.PLOTS if wanted.readme else wanted.plot or Path("plots")
    reports = []
    for benchmark in benchmarks:
        report = _measure(benchmark, options)
        reports.append(report)
        print("\n".join([*report_lines(report), ""]), flush=True)
        if report.chart:
            print(f"chart: {write_chart(report, plots)}\n")
    print("\n".join(machine.lines(description)))
    if wanted.json is not None:
        found = {"machine": description, "quick": options.quick, "benchmarks": [as_mapping(each) for each in reports]}
        wanted.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"\nvalues: {wanted.json}")
    if wanted.readme and not any(report.failures for report in reports):
        readme.write(readme.README, discover(), reports, description)
        print(f"\nresults: {readme.README}")
    return reports


def _measure(benchmark: Benchmark, options: Options) -> Report:
    """A report, with a note on how much of the machine the host took meanwhile."""
    began, stolen = time.monotonic(), machine.stolen_seconds()
    report = benchmark.run(options)
    cores = (time.monotonic() - began) * (os.cpu_count() or 1)
    part = (machine.stolen_seconds() - stolen) / cores
    return replace(report, notes=(*report.notes, f"The host took {part:.1%} of the processor time meanwhile."))


def write_chart(report: Report, directory: Path) -> Path:
    """Write the chart of a report as ``NAME.svg``; where it is."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{report.name}.svg"
    path.write_text(report.chart, encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
