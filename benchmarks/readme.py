"""The README of this folder, written from texts and reports. Pure, but `write`.

Results stand between two comments. Those of benchmarks that were not run now stay as they were.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.harness import Benchmark, Report
from benchmarks.table import ratio_text, series_cells

README = Path(__file__).parent / "README.md"
TEXTS = Path(__file__).parent / "texts"
PLOTS = "plots"
"""Where charts are, seen from the README."""

_WARNING = "<!-- Written by `python -m benchmarks all soak --readme`. The prose is in texts/. -->"


def write(
    path: Path, benchmarks: Mapping[str, Benchmark], reports: Iterable[Report], machine: Mapping[str, str]
) -> None:
    """Write the whole document, with new results of some benchmarks and the old ones of the others."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    fresh = {report.name: results(report, machine) for report in reports}
    path.write_text(document(benchmarks, {**old_results(old), **fresh}), encoding="utf-8")


def document(benchmarks: Mapping[str, Benchmark], found: Mapping[str, str]) -> str:
    """The text of the document; `found` are results as Markdown."""
    parts = [_WARNING, _text("intro")]
    parts.append("\n".join(f"- [`{name}`](#{name}): {each.line}." for name, each in benchmarks.items()))
    for name in benchmarks:
        parts += [f"## `{name}`", *_about(benchmarks[name]), _marked(name, found.get(name, "Not measured yet."))]
    return "\n\n".join(parts) + "\n"


def _about(benchmark: Benchmark) -> Iterator[str]:
    """The line that the command shows, too, and what there is to say beyond it."""
    yield f"{benchmark.line[0].upper()}{benchmark.line[1:]}."
    if (TEXTS / f"{benchmark.name}.md").exists():
        yield _text(benchmark.name)


def _text(name: str) -> str:
    return (TEXTS / f"{name}.md").read_text(encoding="utf-8").strip()


def _marked(name: str, text: str) -> str:
    return f"<!-- results of {name} -->\n\n{text}\n\n<!-- end of {name} -->"


def old_results(text: str) -> dict[str, str]:
    """The results in a document, by benchmark."""
    found = re.findall(r"<!-- results of (\w+) -->\n\n(.*?)\n\n<!-- end of \1 -->", text, re.DOTALL)
    return dict(found)


def results(report: Report, machine: Mapping[str, str]) -> str:
    """A report as Markdown: ratios, table, chart, what to know about it, the machine."""
    parts = [f"- {ratio_text(ratio)}" for ratio in report.ratios]
    blocks = ["\n".join(parts)] if parts else []
    blocks.append("\n".join(_table(series_cells(report))))
    if report.chart:
        blocks.append(f"![{report.title}]({PLOTS}/{report.name}.svg)")
    blocks += report.notes
    blocks.append("Measured on: " + ", ".join(f"{label} {text}" for label, text in machine.items()) + ".")
    return "\n\n".join(blocks)


def _table(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    headings, *rows = cells
    yield _row(headings)
    yield _row(["---", *["---:"] * (len(headings) - 1)])
    yield from map(_row, rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
