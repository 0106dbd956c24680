"""The fixture `offpath_engine`, as tests of a service have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import ScriptLoadError
from engine.pytest_plugin import MakeEngine
from tests.scripts import on_event, write

ROOT = Path(__file__).parents[1]

pytest_plugins = ["pytester"]

OWN_TEST = """
async def test_passes(offpath_engine):
    engine = await offpath_engine('''
TrisulPlugin = { id = { name = "double" },
  event_monitor = { onevent = function(_, _, _, n) return tonumber(n) * 2 end } }
''')
    assert await engine.request("t", "21") == 42

async def test_raises(offpath_engine):
    engine = await offpath_engine('''
TrisulPlugin = { id = { name = "bad" }, event_monitor = { onevent = function() error("no") end } }
''')
    await engine.emit("t", "x")

async def test_may_raise(offpath_engine):
    engine = await offpath_engine('''
TrisulPlugin = { id = { name = "bad" }, event_monitor = { onevent = function() error("no") end } }
''', script_errors=True)
    await engine.emit("t", "x")

async def test_does_not_load(offpath_engine):
    await offpath_engine("no such.lua")
"""


async def test_scripts_by_path_and_as_text(offpath_engine: MakeEngine, tmp_path: Path) -> None:
    one = await offpath_engine(write(tmp_path, on_event("return 1")))
    two = await offpath_engine(on_event("return 2"))
    assert (await one.request("t", ""), await two.request("t", "")) == (1, 2)


async def test_one_that_does_not_load_is_told(offpath_engine: MakeEngine) -> None:
    with pytest.raises(ScriptLoadError):
        await offpath_engine("TrisulPlugin = {\n")


def test_scripts_that_raise_fail_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OWN_TEST)
    arguments = ["-p", "engine.pytest_plugin", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "-q"]
    found = pytester.runpytest_subprocess(*arguments)
    found.assert_outcomes(passed=3, failed=1, errors=1)
    found.stdout.fnmatch_lines(["*scripts raised 1 errors, see the log*", "*no such.lua*"])
