"""Patterns of topics: words joined by dots; `*` stands for one word, `**` for any number of them."""

from __future__ import annotations

import re
from collections.abc import Iterable


def compile_patterns(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """One expression for several patterns; None for none of them, which means every topic."""
    alternatives = [_translate(pattern) for pattern in patterns]
    return re.compile("|".join(alternatives)) if alternatives else None


def _translate(pattern: str) -> str:
    words = [_WILD.get(word) or re.escape(word).replace(r"\*", r"[^.]*") for word in pattern.split(".")]
    joined = ""
    for index, word in enumerate(words):
        if word == _MANY:
            # With its dot, so that "a.**" takes "a" too and "**.b" takes "b".
            joined += r"(?:\.[^.]+)*" if index else r"(?:[^.]+\.)*"
        else:
            separated = index and not (index == 1 and words[0] == _MANY)
            joined += (r"\." if separated else "") + word
    return r".*" if words == [_MANY] else joined


_MANY = "**"
_WILD = {"*": r"[^.]+", "**": _MANY}


def matches(expression: re.Pattern[str] | None, topic: str) -> bool:
    """Whether a topic is one of those meant."""
    return expression is None or expression.fullmatch(topic) is not None
