"""The command `offpath query`: one question to a database that `run --db` wrote."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from engine.cli.charts import Bars, Lines
    from engine.sinks.queries import Rows
    from engine.sinks.timespan import Span

TERMINAL = Path("-")


class Format(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, beyond the words that name it."""

    db: sqlite3.Connection
    words: Sequence[str]
    span: Span
    limit: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows, and the chart of them if there can be one."""

    rows: Rows
    chart: Lines | Bars | None = None


def query(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE QUESTION", help="The database, unless --db names it, and what is asked.", show_default=False
        ),
    ],
    db: Annotated[Path | None, typer.Option("--db", metavar="FILE", help="The database.")] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Epoch seconds, ISO 8601, or -10m before the newest window ends."),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Up to, but not including this time.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="So many rows at most.")] = None,
    shape: Annotated[Format, typer.Option("--format", help="How rows are written.")] = Format.TABLE,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.svg", help="Draw toppers or a series; - draws in the terminal."),
    ] = None,
) -> None:
    """Ask a database of windows and records, as `offpath run --db FILE` writes it.

    \b
    Questions:   toppers GROUP METER       keys with the greatest values
                 series GROUP KEY [METER]  meters of a key, window by window
                 alerts, resources, flows  records, newest first
                 search TEXT               documents with all of these words, WORD* for a beginning
                 groups                    counter groups and their meters
                 windows                   what was stored, newest first

    A GROUP is a name or a GUID, a METER a name or a number, a KEY a key or its label. Times are in UTC.

    \b
    Exit codes: 0    done
                2    bad usage; a file that can't be read or written; no such group, meter or key
    """
    from engine.sinks import queries
    from engine.sinks.schema import open_to_read
    from engine.sinks.timespan import parse_span
    from engine.values.errors import EngineError

    path, asked = (db, words) if db is not None else (Path(words[0]), words[1:])
    find, rest = _choose(asked)
    try:
        with closing(open_to_read(path)) as connection:
            span = parse_span(start, end, queries.newest(connection))
            answer = find(Question(connection, rest, span, limit))
        _show(answer, shape, plot)
    except sqlite3.Error as exc:
        _refuse(f"{path}: {exc}")
    except EngineError as exc:
        _refuse(str(exc))


def _choose(words: Sequence[str]) -> tuple[Callable[[Question], Answer], Sequence[str]]:
    if not words:
        _refuse(f"ask a question: {', '.join(_QUESTIONS)}")
    name, *rest = words
    if name not in _QUESTIONS:
        _refuse(f"no question {name!r}, there are {', '.join(_QUESTIONS)}")
    find, usage, least, most = _QUESTIONS[name]
    if not least <= len(rest) <= most:
        _refuse(f"write it as: {name} {usage}".rstrip())
    return find, rest


def _show(answer: Answer, shape: Format, plot: Path | None) -> None:
    from engine.cli import answers

    if plot is not None:
        _draw(answer, plot)
        if plot == TERMINAL:
            return
    if shape is Format.JSON:
        typer.echo(answers.as_json(answer.rows))
    elif shape is Format.CSV:
        typer.echo(answers.as_csv(answer.rows))
    else:
        for line in answers.as_table(answer.rows):
            typer.echo(line)


def _draw(answer: Answer, plot: Path) -> None:
    from engine.cli.charts import Bars, bars_svg, bars_text, lines_svg, lines_text

    chart = answer.chart
    if chart is None:
        _refuse("nothing to draw: --plot is for toppers and series that are not empty")
    if plot == TERMINAL:
        width = shutil.get_terminal_size().columns
        for line in bars_text(chart, width) if isinstance(chart, Bars) else lines_text(chart, width):
            typer.echo(line)
        return
    try:
        plot.write_text(bars_svg(chart) if isinstance(chart, Bars) else lines_svg(chart), encoding="utf-8")
    except OSError as exc:
        _refuse(f"{plot}: {exc.strerror or exc}")


# ---- questions


def _toppers(question: Question) -> Answer:
    from engine.cli.charts import Bars
    from engine.sinks import queries

    group = queries.find_group(question.db, question.words[0])
    meter = queries.find_meter(group, question.words[1])
    rows = queries.toppers(question.db, group, meter, question.span, question.limit or 10)
    items = [(label or key, value) for _, key, label, value in rows.rows]
    axis = f"{meter.name}, {meter.units}" if meter.units else meter.name
    return Answer(rows, Bars(f"{group.name}: toppers by {meter.name}", axis, items) if items else None)


def _series(question: Question) -> Answer:
    from engine.cli.charts import Lines
    from engine.sinks import queries

    group = queries.find_group(question.db, question.words[0])
    key = queries.find_key(question.db, group, question.words[1])
    meters = [queries.find_meter(group, each) for each in question.words[2:]]
    rows = queries.series(question.db, group, key, meters, question.span, question.limit or 1_000)
    if not rows.rows:
        return Answer(rows)
    times, _, *values = map(list, zip(*rows.rows, strict=True))
    return Answer(
        rows, Lines(f"{group.name}: {question.words[1]}", times, list(zip(rows.columns[2:], values, strict=True)))
    )


def _records(kind: str) -> Callable[[Question], Answer]:
    def find(question: Question) -> Answer:
        from engine.sinks import queries

        return Answer(queries.records(question.db, kind, question.span, question.limit or 100))

    return find


def _search(question: Question) -> Answer:
    from engine.sinks import queries

    return Answer(queries.search(question.db, " ".join(question.words), question.span, question.limit or 20))


def _groups(question: Question) -> Answer:
    from engine.sinks import queries

    return Answer(queries.groups(question.db))


def _windows(question: Question) -> Answer:
    from engine.sinks import queries

    return Answer(queries.windows(question.db, question.span, question.limit or 100))


_QUESTIONS: dict[str, tuple[Callable[[Question], Answer], str, int, int]] = {
    "toppers": (_toppers, "GROUP METER", 2, 2),
    "series": (_series, "GROUP KEY [METER]", 2, 3),
    "alerts": (_records("alert"), "", 0, 0),
    "resources": (_records("resource"), "", 0, 0),
    "flows": (_records("flow"), "", 0, 0),
    "search": (_search, "TEXT", 1, 1_000),
    "groups": (_groups, "", 0, 0),
    "windows": (_windows, "", 0, 0),
}
"""What may be asked, how it is written, and how many words it takes."""


def _refuse(message: str) -> NoReturn:
    """One line on stderr, exit code 2."""
    typer.echo(message, err=True)
    raise typer.Exit(2)
