"""Writes pcap files into a folder, a new one whenever the one before is full. Blocking: for a worker thread."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

_HEADER = struct.Struct("<IHHiIII")
_MICROSECONDS, _NANOSECONDS = 0xA1B2C3D4, 0xA1B23C4D
_LONGEST_PACKET = 262_144
_OPEN_FILES = 16  # link types at once; a file more closes the one that was opened first


class Run(NamedTuple):
    """Records of one kind, one after the other (`offpath_store_run_t` in lua_api/storage.lua)."""

    link: int
    precise: int
    """1 for time stamps in nanoseconds."""
    size: int
    packets: int
    seconds: int
    """When the first of them was captured, and"""
    nanos: int


@dataclass(slots=True)
class _Open:
    file: BinaryIO
    size: int


@dataclass(slots=True)
class PcapFolder:
    """The files are named by the time of their first packet, in UTC, and never replace one that is there.

    There is one at a time for each link type and resolution of time stamps.
    """

    folder: Path
    file_bytes: int
    """A file ends before a run that would make it longer."""
    files: int = 0
    """Made so far."""
    _open: dict[tuple[int, int], _Open] = field(default_factory=dict)

    def write(self, run: Run, records: memoryview) -> None:
        """Append records. Raises `OSError`; what could not be written whole is taken back."""
        kind = run.link, run.precise
        target = self._open.get(kind)
        if target is not None and target.size + len(records) > self.file_bytes and target.size > _HEADER.size:
            self._open.pop(kind).file.close()
            target = None
        if target is None:
            target = self._start(run)
        try:
            rest = records
            while rest:
                rest = rest[target.file.write(rest) :]
        except OSError:
            target.file.truncate(target.size)
            target.file.seek(target.size)
            raise
        target.size += len(records)

    def _start(self, run: Run) -> _Open:
        if len(self._open) >= _OPEN_FILES:
            self._open.pop(next(iter(self._open))).file.close()
        file = self._create(run)
        magic = _NANOSECONDS if run.precise else _MICROSECONDS
        try:
            file.write(_HEADER.pack(magic, 2, 4, 0, 0, _LONGEST_PACKET, run.link))
        except OSError:
            file.close()
            os.unlink(file.name)  # noqa: PTH108
            raise
        self.files += 1
        target = self._open[run.link, run.precise] = _Open(file, _HEADER.size)
        return target

    def _create(self, run: Run) -> BinaryIO:
        when = datetime.fromtimestamp(run.seconds, UTC)
        name = f"{when:%Y%m%d-%H%M%S}.{run.nanos // 1000:06}"
        number = 0
        while True:
            path = self.folder / f"{name}{f'-{number}' if number else ''}.pcap"
            try:
                return open(path, "xb", buffering=0)
            except FileExistsError:
                number += 1

    def close(self) -> None:
        """Close all files. Raises the first `OSError`, with all closed."""
        files, self._open = list(self._open.values()), {}
        errors = []
        for each in files:
            try:
                each.file.close()
            except OSError as exc:
                errors.append(exc)
        if errors:
            raise errors[0]
