"""What plain.lua writes, as Python values."""

from __future__ import annotations

import marshal
from typing import Any


def plain_from_lua(written: bytes) -> Any:
    """A value that plain.lua wrote: None, bool, int, float, str, bytes where text is no UTF-8, list, dict.

    The format can hold code, too, but plain.lua writes none.
    """
    return marshal.loads(written)
