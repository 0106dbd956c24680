"""What plain.lua writes, as Python values."""

from __future__ import annotations

import marshal
from typing import Any


def plain_to_lua(value: Any) -> bytes:
    """A plain value as plain.lua reads it: None, bool, int, float, str, bytes, and lists, tuples and dicts of these.

    Raises `ValueError` for what is nested too deep.
    """
    return marshal.dumps(value, 4)


def plain_from_lua(written: bytes) -> Any:
    """A value that plain.lua wrote: None, bool, int, float, str, bytes where text is no UTF-8, list, dict.

    The format can hold code, too, but plain.lua writes none.
    """
    return marshal.loads(written)
