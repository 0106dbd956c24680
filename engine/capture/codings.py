"""Content codings written out by hand, for captures that must be the same on every machine.

Compressors differ between versions of a library. These write valid streams that say little: tests read them back.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

PERIOD = 1_280
"""Bytes after which a text must repeat for `deflate` to shorten it."""


def chunked(data: bytes, rng: random.Random) -> bytes:
    """The chunked coding of RFC 9112 section 7.1, with leading zeros, extensions and trailers at times."""
    largest = rng.choice((40, 1_000, 9_000)) if len(data) < 20_000 else rng.choice((4_000, 70_000))
    parts: list[bytes] = []
    start = 0
    while start < len(data):
        chunk = data[start : start + rng.randint(1, largest)]
        start += len(chunk)
        size = rng.choice((f"{len(chunk):x}", f"{len(chunk):X}", f"{len(chunk):05x}"))
        extension = rng.choice(("", "", "", "", "", ";a=1", ';name="b c"'))
        parts += (f"{size}{extension}\r\n".encode("ascii"), chunk, b"\r\n")
    trailer = b"X-Trailer: end\r\n" if rng.random() < 0.2 else b""
    return b"".join((*parts, b"0\r\n", trailer, b"\r\n"))


def deflate(content: bytes) -> bytes:
    """RFC 1951 by hand: a stored block of one period, then a fixed Huffman block of copies from it.

    A copy of 258 bytes is length symbol 285, distance symbol 20 and 9 extra bits; Huffman codes go into the
    stream from their highest bit, extra bits from their lowest.
    """
    copies = max(0, (len(content) - PERIOD) // 258)
    stored = content[: len(content) - 258 * copies]
    copy = "11000101" + "10100" + f"{PERIOD - 1_025:09b}"[::-1]
    bits = "110" + copy * copies + "0000000"
    block = struct.pack("<BHH", 0, len(stored), len(stored) ^ 0xFFFF) + stored
    return block + int(bits[::-1], 2).to_bytes((len(bits) + 7) // 8, "little")


def _gzip(content: bytes) -> bytes:
    """RFC 1952."""
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return head + deflate(content) + struct.pack("<II", zlib.crc32(content), len(content))


def _zlib(content: bytes) -> bytes:
    """RFC 1950."""
    return b"\x78\x9c" + deflate(content) + zlib.adler32(content).to_bytes(4, "big")


def _brotli(content: bytes) -> bytes:
    """RFC 7932 in uncompressed meta-blocks; the very first bit, 0, asks for a window of 64 KiB."""
    parts: list[bytes] = []
    for start in range(0, len(content), 0x10000):
        block = content[start : start + 0x10000]
        head = (len(block) - 1) << 3 | 1 << 19
        parts += ((head << (start == 0)).to_bytes(3, "little"), block)
    return b"".join((*parts, b"\x03" if content else b"\x06"))


CODERS: dict[str, Callable[[bytes], bytes]] = {"gzip": _gzip, "zlib": _zlib, "raw": deflate, "br": _brotli}
"""Each coding by its name in a plan."""
TOKENS = {"zlib": "deflate", "raw": "deflate"}
"""What a coding is called in Content-Encoding, where that differs: servers send both kinds under one name."""
