"""T.log and its kin: levels, argument count, anything as text."""

from __future__ import annotations

from typing import Any

LOGGERS = "local T = require('offpath.logging').build(require('offpath.host').log)\n"


def test_each_level(lua: Any) -> None:
    lua.run(LOGGERS + "T.logerror('e') T.logwarning('w') T.loginfo('i') T.logdebug('d')")
    assert lua.logged == [(4, b"e"), (5, b"w"), (7, b"i"), (8, b"d")]


def test_one_argument_is_the_text(lua: Any) -> None:
    lua.run(LOGGERS + "T.log('text') T.log(4) T.log(4, 'error') T.log('7', 'info')")
    assert lua.logged == [(8, b"text"), (8, b"4"), (4, b"error"), (7, b"info")]


def test_anything_is_text(lua: Any) -> None:
    lua.run(
        LOGGERS
        + "T.loginfo(nil) T.loginfo(true) T.loginfo(1.5) T.log(4, nil) T.log(nil) T.log() T.loginfo('a\\0\\255')"
    )
    assert [text for _, text in lua.logged] == [b"nil", b"true", b"1.5", b"nil", b"nil", b"nil", b"a\0\xff"]


def test_odd_levels(lua: Any) -> None:
    lua.run(LOGGERS + "T.log('x', 'a') T.log(99, 'b') T.log(-1, 'c') T.log(0/0, 'd') T.log(4.7, 'e')")
    assert lua.logged == [(8, b"a"), (8, b"b"), (0, b"c"), (8, b"d"), (4, b"e")]
