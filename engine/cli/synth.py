"""The command `offpath synth`: write a capture whose contents are known, and optionally say what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from engine.capture.synth import Synthesis, manifest, synthesize
from engine.cli.summary import amount


def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT.pcap", help="The capture to write.")],
    files: Annotated[int, typer.Option("--files", help="HTTP downloads in the capture.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same capture.")] = 1,
    faults: Annotated[
        bool, typer.Option("--faults", help="Lose, reorder and repeat segments; spoil checksums.")
    ] = False,
    listing: Annotated[
        Path | None,
        typer.Option("--manifest", metavar="FILE.json", help="Write names, sizes and hashes of the files here."),
    ] = None,
) -> None:
    """Write a capture of HTTP downloads whose contents are known."""
    if listing is not None and listing.absolute() == out.absolute():
        _refuse(f"{listing}: the manifest can't go into the capture itself")
    try:
        made = synthesize(out, files=files, seed=seed, faults=faults)
        size = out.stat().st_size
        if listing is not None:
            listing.write_text(json.dumps(manifest(made), indent=1) + "\n", encoding="utf-8")
    except ValueError as exc:
        _refuse(str(exc))
    except OSError as exc:
        _refuse(f"{exc.filename or out}: {exc.strerror or exc}")
    typer.echo(f"{out}: {_describe(made, size)}, seed {seed}")


def _describe(made: Synthesis, size: int) -> str:
    count = len(made.downloads)
    incomplete = sum(not each.complete for each in made.downloads)
    partly = f" ({incomplete} incomplete)" if incomplete else ""
    return f"{count} {'file' if count == 1 else 'files'}{partly}, {made.packets} packets, {amount(size)}"


def _refuse(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)
