"""The command `offpath run`: its options, checked before anything is started or overwritten."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Annotated, NoReturn

import typer


def run(
    scripts: Annotated[list[Path], typer.Argument(metavar="SCRIPT", help="Lua scripts to load.", show_default=False)],
    capture: Annotated[
        Path | None,
        typer.Option(
            "--capture", metavar="FILE", help="pcap or pcapng, also gzipped. Without, a script makes packets."
        ),
    ] = None,
    records: Annotated[
        Path | None, typer.Option("--records", metavar="OUT.jsonl", help="Write every record here, one JSON a line.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", help="Worker threads per plugin that asks for no number.")
    ] = None,
    ramfs: Annotated[
        Path | None, typer.Option("--ramfs", metavar="DIR", help="Put extracted files below this folder.")
    ] = None,
    args: Annotated[str, typer.Option("--args", metavar="TEXT", help="What scripts see as T.args.")] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="What T.env.get_config answers for PATH; repeatable."),
    ] = None,
    drain: Annotated[
        float, typer.Option("--drain", metavar="SECONDS", help="How long a stop waits for unfinished tasks.")
    ] = 30.0,
    chunk_mb: Annotated[
        int, typer.Option("--chunk-mb", metavar="N", min=1, help="Hand on longer bodies in parts of N MiB.")
    ] = 5,
    store: Annotated[
        Path | None,
        typer.Option("--store", metavar="DIR", help="Write packets below this folder, as scripts choose."),
    ] = None,
    store_mb: Annotated[
        int, typer.Option("--store-size", metavar="MB", min=1, help="Begin another file after so many MB.")
    ] = 100,
    no_uvloop: Annotated[bool, typer.Option("--no-uvloop", help="Use the event loop of Python.")] = False,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Show INFO lines and tracebacks; -vv: DEBUG, too.")
    ] = 0,
) -> None:
    """Run Lua scripts over a capture file, or over the packets and alerts that one of them makes.

    Log lines of level WARN and worse go to stderr; what scripts print and, at the end, a summary go to stdout. Ctrl-C
    stops reading and waits for unfinished tasks, a second one abandons them, a third one leaves at once.

    \b
    Exit codes: 0    done
                1    a script failed to load (the others ran)
                2    bad usage; a file that can't be read or written
                130  stopped by Ctrl-C (143: by SIGTERM)
    """
    _check(scripts, capture, records)
    if not math.isfinite(drain):
        refuse(f"--drain must be a number of seconds, not {drain}")

    from engine import Config, EngineError
    from engine.cli.runner import RunPlan, execute

    try:
        config = Config(
            workers=workers,
            ramfs=ramfs,
            args=args,
            settings=dict(_setting(each) for each in settings or ()),
            drain_seconds=drain,
            chunk_bytes=chunk_mb << 20,
            store=store,
            store_mb=store_mb,
        )
        code = execute(
            RunPlan(tuple(scripts), capture, config, records=records, uvloop=not no_uvloop, verbosity=verbose)
        )
    except EngineError as exc:
        refuse(str(exc))
    raise typer.Exit(code)


def refuse(message: str) -> NoReturn:
    """One line on stderr, exit code 2."""
    typer.echo(message, err=True)
    raise typer.Exit(2)


def _check(scripts: list[Path], capture: Path | None, records: Path | None) -> None:
    read = [*scripts, *([capture] if capture is not None else [])]
    for path in read:
        reason = _unreadable(path)
        if reason:
            refuse(f"{path}: {reason}")
    if records is not None and records.exists():
        for path in read:
            if records.samefile(path):
                refuse(f"{records}: records would overwrite what is to be read")


def _unreadable(path: Path) -> str:
    """Why a file can't be read, or nothing. It is not opened: to open a pipe would wait for its other end."""
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        return exc.strerror or str(exc)
    if not stat.S_ISREG(mode):
        return "is a folder" if stat.S_ISDIR(mode) else "is not a regular file"
    return "" if os.access(path, os.R_OK) else "Permission denied"


def _setting(text: str) -> tuple[str, str]:
    path, equals, value = text.partition("=")
    if not equals or not path:
        refuse(f"--set {text!r}: write it as PATH=VALUE")
    return path, value
