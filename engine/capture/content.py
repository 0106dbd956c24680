"""Content decoding of HTTP bodies as they arrive: gzip, deflate, brotli and lists of them (RFC 9110 8.4).

Never holds more than one bounded piece of output, and stops at `CaptureLimits.decoded_bytes` and `decoded_ratio`.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Protocol

import brotli

from engine.values.config import CaptureLimits

PIECE_BYTES = 65_536
"""Upper bound of a piece of inflated output. Brotli may overshoot it by half, the last of its blocks being whole."""

MAX_CODINGS = 4
"""A body with more codings than this is hostile; the codings beyond are treated as unknown."""

_RATIO_FREE_BYTES = 1 << 20  # the ratio is not judged before this much output
_BROTLI_INPUT_BYTES = 128  # input per call: what one call decoded is lost when that call meets an error
_BROTLI_BOUNDED = hasattr(brotli.Decompressor, "can_accept_more_data")  # brotli 1.2 and later
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's window bits, which also select the container


class _Stage(Protocol):
    """One coding being undone. `feed` raises `zlib.error` or `brotli.error` on broken data."""

    def feed(self, data: bytes) -> Iterator[bytes]: ...

    @property
    def complete(self) -> bool:
        """True when the coded data may end here."""


class _LimitReachedError(Exception):
    """Ends the decoding from inside nested stages."""


class _Inflate:
    """gzip with any number of members, or deflate with a zlib, a gzip or no header, told apart by two bytes."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._inflater: zlib._Decompress | None = None
        self._start = b""
        self._members = 0
        self._ended = False

    @property
    def complete(self) -> bool:
        return self._ended or (self._inflater is None and (self._members > 0 or not self._start))

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data and not self._ended:
            if self._inflater is None:
                data = self._begin(data)
            if self._inflater is not None:
                data = yield from self._run(self._inflater, data)

    def _begin(self, data: bytes) -> bytes:
        """Choose the container of the next member; returns the input from its first byte on, b"" to wait for more."""
        data = self._start + data
        self._start = b""
        if self._members:
            data = data.lstrip(b"\0")  # padding between members and after the last
        if len(data) < 2:
            self._start = data
            return b""
        if self._members and data[:2] != _GZIP_MAGIC:
            self._ended = True  # trailing garbage is ignored, as browsers do
            return b""
        self._inflater = zlib.decompressobj(self._container(data))
        return data

    def _container(self, data: bytes) -> int:
        if self._gzip or data[:2] == _GZIP_MAGIC:
            return _GZIP
        # RFC 1950 2.2: method 8, and the two bytes are a multiple of 31. Many servers send raw deflate instead.
        return _ZLIB if data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0 else _RAW

    def _run(self, inflater: zlib._Decompress, data: bytes) -> Generator[bytes, None, bytes]:
        """Inflate what there is of this member; the generator's result is the input behind the member."""
        while True:
            before = inflater.copy()  # about 1 µs: zlib throws away the output of a call that fails
            try:
                piece = inflater.decompress(data, PIECE_BYTES)
            except zlib.error:
                yield from _salvage(before, data)
                raise
            if piece:
                yield piece
            if inflater.eof:
                self._inflater = None
                self._members += 1
                self._ended = not self._gzip
                return inflater.unused_data
            data = inflater.unconsumed_tail
            if not data and len(piece) < PIECE_BYTES:
                return b""


def _salvage(inflater: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    """What `data` gives before its error: halve the input until the byte with the error is alone."""
    while len(data) > 1:
        half = len(data) // 2
        before = inflater.copy()
        try:
            piece = inflater.decompress(data[:half], PIECE_BYTES)
        except zlib.error:
            inflater, data = before, data[:half]
            continue
        if piece:
            yield piece
        data = data[half:]


class _Brotli:
    """Brotli (RFC 7932)."""

    def __init__(self) -> None:
        self._decompressor: Any = brotli.Decompressor()
        self._options = {"output_buffer_limit": PIECE_BYTES} if _BROTLI_BOUNDED else {}
        self._started = False

    @property
    def complete(self) -> bool:
        return not self._started or bool(self._decompressor.is_finished())

    def feed(self, data: bytes) -> Iterator[bytes]:
        decompressor, options = self._decompressor, self._options
        self._started = self._started or bool(data)
        for start in range(0, len(data), _BROTLI_INPUT_BYTES):
            if decompressor.is_finished():
                return  # trailing garbage is ignored, as after gzip
            piece = decompressor.process(data[start : start + _BROTLI_INPUT_BYTES], **options)
            while piece:
                yield piece
                # A full piece may leave output behind even when all input was taken in.
                more = _BROTLI_BOUNDED and (len(piece) >= PIECE_BYTES or not decompressor.can_accept_more_data())
                piece = decompressor.process(b"", **options) if more and not decompressor.is_finished() else b""


class ContentDecoder:
    """Undoes the codings of one body. To be used on one thread.

    `reason` says why the result is not the whole body: ``""``, ``"decode"`` (broken data, or a coding that is
    not known: then the bytes come out as they are) or ``"limit"``. Once decoding has stopped the rest of the
    input is ignored. A body without codings is never stopped: it cannot be a bomb.
    """

    def __init__(self, codings: Sequence[str], limits: CaptureLimits) -> None:
        """`codings` in the order in which they were applied, lower case, as Content-Encoding lists them."""
        self._limits = limits
        self._encoded_bytes = 0
        self._stopped = False
        self.reason = ""
        self._stages: list[_Stage] = []
        for coding in reversed(codings):
            stage = _make_stage(coding) if len(self._stages) < MAX_CODINGS else None
            if stage is None:
                self.reason = "decode"
                break
            self._stages.append(stage)
        self._produced = [0] * len(self._stages)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes of the body; yields pieces, never empty. Raises nothing; look at `reason`."""
        if self._stopped:
            return
        if not self._stages:
            for start in range(0, len(data), PIECE_BYTES):
                yield data[start : start + PIECE_BYTES] if len(data) > PIECE_BYTES else data
            return
        self._encoded_bytes += len(data)
        try:
            yield from self._through(0, data)
        except (zlib.error, brotli.error):
            self._stop("decode")
        except _LimitReachedError:
            self._stop("limit")

    def skip(self) -> None:
        """Bytes of the body are missing here: coded data cannot be read on behind a hole."""
        if self._stages:
            self._stopped = True

    def finish(self) -> None:
        """The body has ended in full; data that is cut short by its own measure gets the reason ``"decode"``."""
        if not self._stopped and not all(stage.complete for stage in self._stages):
            self._stop("decode")

    def _stop(self, reason: str) -> None:
        self._stopped = True
        self.reason = self.reason or reason
        self._stages.clear()  # frees the windows

    def _through(self, index: int, data: bytes) -> Iterator[bytes]:
        """Push data through stage `index` and those after it, a piece at a time."""
        last = index == len(self._stages) - 1
        for piece in self._stages[index].feed(data):
            room = self._limits.decoded_bytes - self._produced[index]
            self._produced[index] += len(piece)
            if last:
                kept = piece[:room] if len(piece) > room else piece
                if kept:
                    yield kept
            else:
                yield from self._through(index + 1, piece)
            self._check(self._produced[index])

    def _check(self, produced: int) -> None:
        # Every stage is judged, not only the last: a bomb of empty gzip members would never come out at the end.
        ratio_limit = max(_RATIO_FREE_BYTES, self._limits.decoded_ratio * self._encoded_bytes)
        if produced > self._limits.decoded_bytes or produced > ratio_limit:
            raise _LimitReachedError


def _make_stage(coding: str) -> _Stage | None:
    if coding in ("gzip", "x-gzip"):
        return _Inflate(gzip=True)
    if coding == "deflate":
        return _Inflate(gzip=False)
    if coding == "br":
        return _Brotli()
    return None
