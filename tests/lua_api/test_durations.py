"""Durations fall into the same buckets whether Lua or the host counts them."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from engine.values.histogram import BUCKETS, Recorder
from tests.lua_api.conftest import Lua


@given(seconds=st.one_of(st.floats(0, 1e-5), st.floats(0, 1), st.floats(0, 1e9)))
@example(0.0)
@example(5e-324)
@example(1e-6)
@example(2e-6)
@example(0.004)
@example(2.0**26 * 1e-6)
@example(2.0**27 * 1e-6)
def test_the_bucket_is_that_of_the_host(shared_lua: Lua, seconds: float) -> None:
    recorder = Recorder()
    recorder.add(seconds)
    bucket = shared_lua.expression("require('offpath.durations').bucket(...)", seconds)
    assert recorder.snapshot().counts[int(bucket)] == 1


def test_each_power_of_two_begins_a_bucket(shared_lua: Lua) -> None:
    for exponent in range(40):
        for micros in (2**exponent, 2 ** (exponent + 1) - 0.5):
            recorder = Recorder()
            recorder.add(micros / 1e6)
            bucket = int(shared_lua.expression("require('offpath.durations').bucket(...)", micros / 1e6))
            assert recorder.snapshot().counts[bucket] == 1
    assert bucket == BUCKETS - 1


def test_a_clock_that_seems_to_go_back_is_no_harm(shared_lua: Lua) -> None:
    assert 0 <= shared_lua.expression("require('offpath.durations').bucket(-1e-9)") < BUCKETS
