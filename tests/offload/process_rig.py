"""A worker process over a list of chunks, and Lua that tells which process it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engine.offload.process import ProcessWorker
from tests.offload.worker_rig import Exchange, Made

PID = "local ffi = require('ffi') pcall(ffi.cdef, 'int getpid(void);') "
"""Makes ffi.C.getpid known."""

WRITE_PID = PID + "local f = io.open((...), 'w') f:write(ffi.C.getpid(), '\\n') f:close() "
"""Writes its process id into a file."""

SPIN = WRITE_PID + "while true do end"
"""And never ends."""


class Driven(Made):
    """A worker process with an exchange of its own, whose chunks and results are seen here."""

    worker: ProcessWorker

    def __init__(self, codes: Mapping[int, bytes | str], **fields: Any) -> None:
        super().__init__(Exchange(), codes, "process", **fields)

    @property
    def chunks(self) -> list[list[tuple[Any, ...]]]:
        return self.exchange.chunks

    @property
    def results(self) -> dict[int, tuple[int, Any, Any]]:
        return self.exchange.results

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        return self.exchange.rows


Drive = Callable[..., Driven]
