"""The command `python -m benchmarks`: runs benchmarks by name, prints what they found, writes charts and JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.harness import Benchmark, BenchmarkError, Options, Report, as_mapping, discover
from benchmarks.table import list_lines, report_lines

PLOTS = Path(__file__).parent / "plots"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 when a benchmark did not do its work or a file can't be written, 2 for a wrong command line."""
    benchmarks = discover()
    parser = _parser(benchmarks)
    wanted = parser.parse_args(arguments)
    for name in wanted.names:
        if name not in benchmarks:
            parser.error(f"no benchmark {name!r}, there are: {', '.join(benchmarks)}")
    if not wanted.names:
        print("\n".join(["python -m benchmarks NAME... runs these:", "", *list_lines(benchmarks)]))
        return 0
    if wanted.json is not None and not wanted.json.parent.is_dir():
        parser.error(f"{wanted.json}: there is no such folder")  # said now, not when everything was measured
    try:
        _run(
            [benchmarks[name] for name in dict.fromkeys(wanted.names)], Options(wanted.quick), wanted.plot, wanted.json
        )
    except (BenchmarkError, OSError) as exc:
        print(f"benchmarks: {exc}", file=sys.stderr)
        return 1
    return 0


def _parser(benchmarks: Mapping[str, Benchmark]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the engine. Without a name, the benchmarks are listed.",
        epilog=f"benchmarks: {', '.join(benchmarks)}",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run, one after the other")
    parser.add_argument("--quick", action="store_true", help="less work and fewer repeats: a look, not a measurement")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the values of every repeat to this file")
    parser.add_argument("--plot", type=Path, default=PLOTS, metavar="DIR", help="where charts go; default %(default)s")
    return parser


def _run(benchmarks: Sequence[Benchmark], options: Options, plots: Path, out: Path | None) -> None:
    description = machine.describe()
    reports = []
    for benchmark in benchmarks:
        report = benchmark.run(options)
        reports.append(report)
        print("\n".join([*report_lines(report), ""]), flush=True)
        if report.chart:
            print(f"chart: {write_chart(report, plots)}\n")
    print("\n".join(machine.lines(description)))
    if out is not None:
        found = {"machine": description, "quick": options.quick, "benchmarks": [as_mapping(each) for each in reports]}
        out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"\nvalues: {out}")


def write_chart(report: Report, directory: Path) -> Path:
    """Write the chart of a report as ``NAME.svg``; where it is."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{report.name}.svg"
    path.write_text(report.chart, encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
