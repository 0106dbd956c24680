"""PathLocks against a model: readers share, a writer is alone, all or nothing, waiters go on after a release."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.offload.paths import PathLocks
from tests.support import DEADLINE

PATHS = st.lists(st.sampled_from("abc"), max_size=3).map(tuple)

Held = tuple[tuple[str, ...], tuple[str, ...]]


def free(held: list[Held], wanted: Held) -> bool:
    """What the model says: no writer meets anyone."""
    reads, writes = wanted
    read_now = {path for each in held for path in each[0]}
    written_now = {path for each in held for path in each[1]}
    return not (set(reads) | set(writes)) & written_now and not set(writes) & read_now


class Locks(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.locks = PathLocks()
        self.held: list[Held] = []
        self.woken: list[int] = []
        self.waiting: list[int] = []
        self.count = 0

    @rule(reads=PATHS, writes=PATHS)
    def acquire(self, reads: tuple[str, ...], writes: tuple[str, ...]) -> None:
        self.count += 1
        number = self.count
        expected = free(self.held, (reads, writes))
        assert self.locks.acquire(reads, writes, lambda: self.woken.append(number)) is expected
        if expected:
            self.held.append((reads, writes))
        else:
            self.waiting.append(number)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.held) - 1))
        self.woken.clear()
        self.locks.release(*self.held.pop(at))
        assert self.woken == self.waiting
        self.waiting.clear()

    @invariant()
    def count_of_held_paths(self) -> None:
        assert self.locks.held == len({path for reads, writes in self.held for path in (*reads, *writes)})


TestLocks = Locks.TestCase
TestLocks.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def never() -> None:
    raise AssertionError("nobody had to wait")


def test_a_waiter_that_waits_again_is_woken_by_the_next_release_only() -> None:
    locks = PathLocks()
    assert locks.acquire((), ("a",), never)
    assert locks.acquire((), ("b",), never)
    woken = []

    def again() -> None:
        woken.append(1)
        locks.acquire((), ("a", "b"), again)

    again()
    locks.release((), ("a",))
    assert len(woken) == 2
    locks.release((), ("b",))
    assert len(woken) == 3
    assert locks.held == 2


def test_waiters_that_want_one_path_get_it_in_the_order_in_which_they_came() -> None:
    locks = PathLocks()
    assert locks.acquire((), ("a",), never)
    got: list[int] = []

    def waiter(number: int) -> Callable[[], None]:
        def retry() -> None:
            if locks.acquire((), ("a",), retry):
                got.append(number)

        return retry

    for number in range(3):
        waiter(number)()
    for _ in range(3):
        locks.release((), ("a",))
    assert got == [0, 1, 2]


def test_copying_a_file_onto_itself_is_one_holder() -> None:
    locks = PathLocks()
    assert locks.acquire(("a",), ("a",), never)
    assert not locks.acquire(("a",), (), lambda: None)
    locks.release(("a",), ("a",))
    assert locks.held == 0
    assert locks.acquire(("a",), (), never)


def test_threads_that_hold_one_path_never_overlap() -> None:
    locks, inside, most, done = PathLocks(), [], [], []

    def work() -> None:
        for _ in range(200):
            free_again = threading.Event()
            while not locks.acquire((), ("a",), free_again.set):
                assert free_again.wait(DEADLINE)
                free_again.clear()
            inside.append(1)
            most.append(len(inside))
            inside.pop()
            locks.release((), ("a",))
        done.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4
    assert set(most) == {1}
    assert locks.held == 0
