"""Options that commands share, and what is refused before anything is started or overwritten."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Annotated, NoReturn

import typer

STDIN = Path("-")

Records = Annotated[
    Path | None, typer.Option("--records", metavar="OUT.jsonl", help="Write every record here, one JSON a line.")
]
Database = Annotated[
    Path | None, typer.Option("--db", metavar="FILE", help="Store windows and records here, for offpath query.")
]
Parquet = Annotated[
    Path | None, typer.Option("--parquet", metavar="DIR", help="Write windows and records as Parquet files here.")
]
Arguments = Annotated[str, typer.Option("--args", metavar="TEXT", help="What scripts see as T.args.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="What T.env.get_config answers for PATH; repeatable."),
]
Verbosity = Annotated[
    int, typer.Option("--verbose", "-v", count=True, help="Show INFO lines and tracebacks; -vv: DEBUG, too.")
]


def refuse(message: str) -> NoReturn:
    """One line on stderr, exit code 2."""
    typer.echo(message, err=True)
    raise typer.Exit(2)


def check_files(scripts: list[Path], captures: list[Path], records: Path | None) -> None:
    """Refuse what can't be read, and to write over it."""
    read = [*scripts, *(path for path in captures if path != STDIN)]
    for path in read:
        reason = _unreadable(path, folder=path not in scripts)
        if reason:
            refuse(f"{path}: {reason}")
    if records is not None and records.exists():
        from engine.capture.source import is_capture

        for path in read:
            if records.samefile(path) or (records.parent.samefile(path) and is_capture(records)):
                refuse(f"{records}: records would overwrite what is to be read")


def _unreadable(path: Path, *, folder: bool) -> str:
    """Why a path can't be read, or nothing. It is not opened: to open a pipe would wait for its other end."""
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        return exc.strerror or str(exc)
    if not stat.S_ISREG(mode) and not (folder and stat.S_ISDIR(mode)):
        return "is a folder" if stat.S_ISDIR(mode) else "is not a regular file"
    return "" if os.access(path, os.R_OK) else "Permission denied"


def setting(text: str) -> tuple[str, str]:
    """A value of --set and its path."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        refuse(f"--set {text!r}: write it as PATH=VALUE")
    return path, value
