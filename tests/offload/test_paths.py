"""PathLocks against a model: readers share, a writer is alone, all or nothing, waiters go on after a release."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from engine.offload.paths import PathLocks, Touched
from tests.support import DEADLINE

PATHS = st.lists(st.sampled_from("abc"), max_size=3).map(tuple)


def free(held: Iterable[Touched], wanted: Touched) -> bool:
    """What the model says: no writer meets anyone."""
    reads, writes = wanted
    read_now = {path for each in held for path in each[0]}
    written_now = {path for each in held for path in each[1]}
    return not (set(reads) | set(writes)) & written_now and not set(writes) & read_now


class Locks(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.locks = PathLocks()
        self.held: dict[int, Touched] = {}
        self.woken: list[int] = []
        self.waiting: list[int] = []
        self.count = 0

    @rule(reads=PATHS, writes=PATHS)
    def acquire(self, reads: tuple[str, ...], writes: tuple[str, ...]) -> None:
        self.count += 1
        number = self.count
        expected = free(self.held.values(), (reads, writes))
        assert self.locks.acquire(number, lambda: (reads, writes), lambda: self.woken.append(number)) is expected
        if expected:
            self.held[number] = reads, writes
        else:
            self.waiting.append(number)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(sorted(self.held)))
        self.woken.clear()
        del self.held[holder]
        self.locks.release(holder)
        assert self.woken == self.waiting
        self.waiting.clear()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def narrow(self, data: st.DataObject) -> None:
        """A holder keeps some of its paths; alone with them, it is not asked, and nobody waits."""
        holder = data.draw(st.sampled_from(sorted(self.held)))
        reads, writes = (tuple(path for path in paths if data.draw(st.booleans())) for paths in self.held[holder])
        self.woken.clear()
        self.held[holder] = reads, writes
        self.locks.narrow(holder, lambda: (reads, writes))
        assert self.woken == self.waiting
        self.waiting.clear()

    @rule()
    def count_held(self) -> None:
        assert self.locks.held == len({path for reads, writes in self.held.values() for path in (*reads, *writes)})


TestLocks = Locks.TestCase
TestLocks.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


def never() -> None:
    raise AssertionError("nobody had to wait")


def writing(*paths: str) -> Callable[[], Touched]:
    return lambda: ((), paths)


def not_asked() -> Touched:
    raise AssertionError("nobody else was there")


def test_a_holder_that_is_alone_is_not_asked_for_its_paths() -> None:
    locks = PathLocks()
    for _ in range(2):
        assert locks.acquire("alone", not_asked, never)
        locks.release("alone")
    assert locks.held == 0


def test_a_holder_is_asked_when_another_comes_and_once() -> None:
    locks, asked = PathLocks(), []

    def touched() -> Touched:
        asked.append(1)
        return (), ("a",)

    assert locks.acquire("first", touched, never)
    assert locks.acquire("other", writing("b"), never)
    assert not locks.acquire("same", writing("a"), lambda: None)
    assert asked == [1]
    locks.release("first")
    assert locks.acquire("same", writing("a"), never)


def test_a_holder_that_is_alone_is_not_asked_when_it_keeps_some_of_its_paths() -> None:
    locks = PathLocks()
    assert locks.acquire("alone", not_asked, never)
    locks.narrow("alone", writing("b"))
    assert locks.acquire("other", writing("a"), never)
    assert not locks.acquire("same", writing("b"), lambda: None)
    locks.release("alone")
    assert locks.acquire("same", writing("b"), never)


def test_a_waiter_gets_a_path_that_a_holder_does_not_keep() -> None:
    locks, got = PathLocks(), []
    assert locks.acquire(1, lambda: (("c",), ("a", "b")), never)
    assert not locks.acquire(2, writing("a"), lambda: got.append(locks.acquire(2, writing("a"), never)))
    locks.narrow(1, lambda: (("c",), ("b",)))
    assert got == [True]
    locks.narrow(1, lambda: (("c", "b"), ()))
    assert locks.acquire(3, lambda: (("b", "c"), ()), never)
    assert not locks.acquire(4, writing("c"), lambda: None)
    for holder in (1, 2, 3):
        locks.release(holder)
    assert locks.held == 0


def test_a_waiter_that_waits_again_is_woken_by_the_next_release_only() -> None:
    locks = PathLocks()
    assert locks.acquire(1, writing("a"), never)
    assert locks.acquire(2, writing("b"), never)
    woken = []

    def again() -> None:
        woken.append(1)
        locks.acquire(3, writing("a", "b"), again)

    again()
    locks.release(1)
    assert len(woken) == 2
    locks.release(2)
    assert len(woken) == 3
    assert locks.held == 2


def test_waiters_that_want_one_path_get_it_in_the_order_in_which_they_came() -> None:
    locks = PathLocks()
    assert locks.acquire("first", writing("a"), never)
    got: list[object] = ["first"]

    def waiter(number: int) -> Callable[[], None]:
        def retry() -> None:
            if locks.acquire(number, writing("a"), retry):
                got.append(number)

        return retry

    for number in range(3):
        waiter(number)()
    for _ in range(3):
        locks.release(got[-1])
    assert got == ["first", 0, 1, 2]


def test_copying_a_file_onto_itself_is_one_holder() -> None:
    locks = PathLocks()
    assert locks.acquire(1, lambda: (("a",), ("a",)), never)
    assert not locks.acquire(2, lambda: (("a",), ()), lambda: None)
    locks.release(1)
    assert locks.held == 0
    assert locks.acquire(3, lambda: (("a",), ("a",)), never)


def test_threads_that_hold_one_path_never_overlap() -> None:
    locks, inside, most, done = PathLocks(), [], [], []

    def work(holder: int) -> None:
        for _ in range(200):
            free_again = threading.Event()
            while not locks.acquire(holder, writing("a"), free_again.set):
                assert free_again.wait(DEADLINE)
                free_again.clear()
            inside.append(1)
            most.append(len(inside))
            inside.pop()
            locks.release(holder)
        done.append(1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4
    assert set(most) == {1}
    assert locks.held == 0
