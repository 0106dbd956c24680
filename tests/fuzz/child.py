"""The process that executes inputs. It says what it is at in a file, as an input may kill it."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.fuzz.mutate import Mutator
from tests.fuzz.pieces import MOST_BYTES
from tests.fuzz.state import Progress, State
from tests.fuzz.targets import Target, load

FOUND = 99
"""Exit code: an exception that should not be, which the file of results tells of."""

_FEATURES = 1 << 14
_MOST_KEPT = 4_000


class Executor:
    """Executes inputs one by one; never returns from one that is a finding."""

    def __init__(self, target: Target, state: State, results: Path, seconds_per_input: float) -> None:
        self._target = target
        self._state = state
        self._results = results
        self._limit = seconds_per_input
        self._seen: set[object] = set()
        self.progress = Progress(0, 0, 0, 0, 0.0, 0)

    def execute(self, data: bytes) -> list[object]:
        """Execute an input; what was seen for the first time."""
        now = self.progress
        self._state.write_input(data)
        now = now._replace(begun=now.begun + 1, digest=zlib.crc32(data, now.digest), length=len(data))
        self._state.write(now)
        began = time.process_time()
        try:
            seen = set(self._target.execute(data))
            took = time.process_time() - began
            if took > self._limit:
                raise TimeoutError(f"took {took:.2f} s of processor time, more than {self._limit:g} s")
        except Exception:
            self._fail(now)
        new = [each for each in seen if each not in self._seen]
        self._seen.update(new)
        kept = now.kept + bool(new)
        self.progress = now._replace(ended=now.begun, kept=kept, slowest=max(now.slowest, took))
        self._state.write(self.progress)
        return new

    def _fail(self, progress: Progress) -> None:
        self._results.write_text(json.dumps({"error": traceback.format_exc(), "number": progress.begun}))
        sys.stderr.flush()
        os._exit(FOUND)


def fuzz(executor: Executor, target: Target, seed: int, goes_on: Callable[[], bool]) -> None:
    """Change inputs that showed something new, again and again."""
    rng = random.Random(seed)
    mutator = Mutator(rng, target.tokens)
    corpus = [b""]
    for data in target.seeds():
        if executor.execute(data):
            corpus.append(data)
    while goes_on():
        recent = rng.random() < 0.3
        chosen = corpus[-1 - rng.randrange(min(len(corpus), 20))] if recent else rng.choice(corpus)
        data = mutator.mutate(chosen, rng.choice(corpus))
        if executor.execute(data):
            if len(corpus) == _MOST_KEPT:
                del corpus[rng.randrange(len(corpus))]
            corpus.append(data)


def fuzz_with_atheris(executor: Executor, target: Target, args: argparse.Namespace) -> None:
    """The same guided by atheris, which knows the lines of Python that ran. What Lua did, it hears of by features."""
    import atheris

    counters = [atheris.native._reserve_counter() for _ in range(_FEATURES)]
    own = random.Random(args.seed)
    mutator = Mutator(own, target.tokens)
    donors = target.seeds()

    def test(data: bytes) -> None:
        for each in executor.execute(data[:MOST_BYTES]):
            atheris.native._trace_branch(counters[zlib.crc32(repr(each).encode()) % _FEATURES])

    def change(data: bytes, most: int, seed: int) -> bytes:
        own.seed(seed)
        if own.random() < 0.3:
            return bytes(atheris.Mutate(data, most))
        return mutator.mutate(data, own.choice(donors))[:most]

    folder = Path(args.results).parent / "corpus"
    folder.mkdir(exist_ok=True)
    for number, data in enumerate(donors):
        (folder / f"{number:05}").write_bytes(data)
    options = [f"-seed={args.seed}", f"-max_len={MOST_BYTES}", f"-artifact_prefix={folder.parent}/", "-timeout=3600"]
    options += [
        "-verbosity=0",
        "-rss_limit_mb=0",
        *(f"-handle_{each}=0" for each in ("segv", "bus", "abrt", "ill", "fpe")),
    ]
    options.append(f"-runs={args.runs}" if args.runs else f"-max_total_time={max(1, round(args.seconds))}")
    atheris.Setup([sys.argv[0], *options, str(folder)], test, custom_mutator=change)
    atheris.Fuzz()


def limit_of(args: argparse.Namespace, executor: Executor) -> Callable[[], bool]:
    """Whether to go on: after so many executions, or seconds, it is over."""
    if args.runs:
        return lambda: executor.progress.ended < args.runs
    until = time.monotonic() + args.seconds
    return lambda: time.monotonic() < until


def _load(args: argparse.Namespace) -> Target:
    if not args.atheris:
        return load(args.target)
    import atheris

    with atheris.instrument_imports(include=["engine"]):
        return load(args.target)


def main(argv: Iterable[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--limit", type=float, default=2.0)
    parser.add_argument("--atheris", action="store_true")
    parser.add_argument("--input", action="store_true", help="hex on standard input, executed once")
    args = parser.parse_args(list(argv))
    target = _load(args)
    executor = Executor(target, State(args.state), args.results, args.limit)
    if args.input:
        executor.execute(bytes.fromhex(sys.stdin.read()))
    elif args.atheris:
        fuzz_with_atheris(executor, target, args)
    else:
        fuzz(executor, target, args.seed, limit_of(args, executor))
    target.close()


if __name__ == "__main__":
    main(sys.argv[1:])
