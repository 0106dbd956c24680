"""The host side of `T.re2`: RE2 programs and their matchers. Nothing here raises into Lua, and every text is bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import re2

Matcher = Callable[[bytes, bool, int], tuple[Any, ...]]
"""(text, full, groups) -> (False,) or (True, group...). `groups` is how many are wanted, -1 for all."""

_NO_MATCH = (False,)
_MATCH = (True,)

# Options that RE2 knows by the same name.
_SAME_NAME = ("posix_syntax", "longest_match", "literal", "never_nl", "never_capture", "case_sensitive")


def compile_pattern(pattern: bytes, options: bytes) -> tuple[Matcher | None, bytes | None]:
    """A matcher for a pattern, or the reason why there is none. `options` are the names of those that are on."""
    wanted = frozenset(options.decode("ascii", "replace").split(","))
    # A pattern that is no UTF-8 can only mean bytes.
    utf8 = "utf8" in wanted and _is_utf8(pattern)
    try:
        program = _compile(pattern, wanted, utf8=utf8)
    except Exception as exc:  # whatever RE2 refuses becomes a message
        return None, _message(exc)
    return _matcher(pattern, wanted, program, utf8), None


def _matcher(pattern: bytes, wanted: frozenset[str], program: Any, utf8: bool) -> Matcher:
    groups_of_pattern: int = program.groups
    programs = {(utf8, True): program}

    def choose(text: bytes, capture: bool) -> Any:
        # A text that is no UTF-8 is matched as bytes. Without captures RE2 stays in its automaton, which is faster.
        key = (utf8 and (text.isascii() or _is_utf8(text)), capture)
        found = programs.get(key)
        if found is None:
            options = wanted if capture else wanted | {"never_capture"}
            found = programs[key] = _compile(pattern, options, utf8=key[0])
        return found

    def match(text: bytes, full: bool, groups: int) -> tuple[Any, ...]:
        if groups > groups_of_pattern:
            return _NO_MATCH
        try:
            chosen = choose(text, groups != 0)
            found = chosen.fullmatch(text) if full else chosen.search(text)
        except Exception:  # a pattern too large for its second program never matches there
            return _NO_MATCH
        if found is None:
            return _NO_MATCH
        if groups == 0:
            return _MATCH
        captured: tuple[bytes, ...] = found.groups(b"")
        return _MATCH + (captured if groups < 0 else captured[:groups])

    return match


def _compile(pattern: bytes, wanted: frozenset[str], *, utf8: bool) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.UTF8 if utf8 else re2.Options.Encoding.LATIN1
    for name in _SAME_NAME:
        setattr(options, name, name in wanted)
    return re2.compile(pattern, options)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _message(exc: Exception) -> bytes:
    reason = exc.args[0] if exc.args else str(exc)
    return reason if isinstance(reason, bytes) else str(reason).encode()


FUNCTIONS: dict[str, Callable[..., Any]] = {"re2_compile": compile_pattern}
"""What the module `offpath.host` offers for `T.re2`."""
