"""What callbacks of tasks need is kept by task id, and nothing is kept of tasks that are complete."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.vm import LuaState
from lua_api import install_plugin
from tests.support import SETTINGS


@pytest.fixture(scope="module")
def inflight() -> Iterator[Any]:
    state = LuaState()
    install_plugin(state, SETTINGS, lambda _level, _text: None)
    yield state.require("offpath.inflight")[b"new"]
    state.close()


@settings(deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 300), st.floats(0, 1)), max_size=60))
def test_what_was_put_is_taken_once_whatever_the_order(inflight: Any, steps: list[tuple[int, float]]) -> None:
    put, take, page_count = inflight()
    live: dict[int, tuple[Any, ...]] = {}
    last = 0
    for count, where in steps:
        for task_id in range(last + 1, last + count + 1, 1 + count % 3):
            live[task_id] = (False, b"onerror", b"%d" % task_id, task_id)
            put(task_id, *live[task_id])
        last += count
        taken = list(live)[: int(where * len(live))] if count % 2 else list(live)[int(where * len(live)) :]
        for task_id in taken:
            assert take(task_id) == live.pop(task_id)
            assert take(task_id) is None
    for task_id in list(live):
        assert take(task_id) == live.pop(task_id)
    assert page_count() <= 1


def test_empty_pages_are_dropped_while_tasks_go_on(inflight: Any) -> None:
    put, take, page_count = inflight()
    for task_id in range(1, 10_001):
        put(task_id, b"onresult", False, b"data", 0)
        if task_id > 100:
            assert take(task_id - 100) == (b"onresult", False, b"data", 0)
        assert page_count() <= 2
