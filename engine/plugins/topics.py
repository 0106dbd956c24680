"""Patterns of topics: words joined by dots; `*` stands for one word, `**` for any number of them.

Patterns are compiled into a tree of words, so that to look a topic up costs its words and what matches it, however many
other patterns there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

_MANY = "**"

Value = TypeVar("Value")


@dataclass(slots=True, eq=False)
class _Node:
    """A place in the patterns, after some words."""

    words: dict[str, _Node] = field(default_factory=dict)
    parts: dict[str, tuple[re.Pattern[str], _Node]] = field(default_factory=dict)
    """Words with stars in them, as in ``order_*``."""
    one: _Node | None = None
    many: _Node | None = None
    repeats: bool = False
    """Any word leads here again: the place after `**`."""
    values: list[int] = field(default_factory=list)
    """Places of the values whose pattern ends here."""


class TopicIndex(Generic[Value]):
    """Values by patterns."""

    def __init__(self) -> None:
        self._values: list[Value] = []
        self._of_all: list[int] = []
        self._root = _Node()

    def add(self, patterns: Iterable[str], value: Value) -> None:
        """Have a value found by the topics that any of the patterns takes; without patterns by all."""
        place = len(self._values)
        self._values.append(value)
        distinct = set(patterns)
        if not distinct or _MANY in distinct:
            self._of_all.append(place)
            return
        for pattern in distinct:
            self._end_of(pattern).values.append(place)

    def find(self, topic: str) -> list[Value]:
        """The values whose patterns take a topic, in the order in which they were added."""
        nodes = _with_many([self._root])
        for word in topic.split("."):
            nodes = _after(nodes, word)
            if not nodes:
                break
        found = {place for node in nodes for place in node.values}
        return [self._values[place] for place in sorted(found.union(self._of_all))]

    def _end_of(self, pattern: str) -> _Node:
        node = self._root
        for word in pattern.split("."):
            node = _child(node, word)
        return node


def _child(node: _Node, word: str) -> _Node:
    if word == _MANY:
        node.many = node.many or _Node(repeats=True)
        return node.many
    if word == "*":
        node.one = node.one or _Node()
        return node.one
    if "*" not in word:
        return node.words.setdefault(word, _Node())
    if word not in node.parts:
        expression = re.compile(re.sub(r"(\\\*)+", ".*", re.escape(word)), re.DOTALL)
        node.parts[word] = expression, _Node()
    return node.parts[word][1]


def _after(nodes: Iterable[_Node], word: str) -> list[_Node]:
    """The places to which a word leads. An empty one is no word: only itself takes it."""
    reached: list[_Node] = []
    for node in nodes:
        if (named := node.words.get(word)) is not None:
            reached.append(named)
        if word:
            reached += [node] if node.repeats else []
            reached += [node.one] if node.one is not None else []
        reached += [end for expression, end in node.parts.values() if expression.fullmatch(word)]
    return _with_many(reached)


def _with_many(nodes: Iterable[_Node]) -> list[_Node]:
    """The places, each once, and those behind a `**`, which no word is needed for."""
    found: dict[int, _Node] = {}
    for each in nodes:
        node: _Node | None = each
        while node is not None and id(node) not in found:
            found[id(node)] = node
            node = node.many
    return list(found.values())
