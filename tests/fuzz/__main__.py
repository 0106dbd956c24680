"""Feeds whatever reads packets with broken ones, and tells what it makes of them.

A finding is a crash, an exception that should not be, a count that does not add up, a read outside the bytes of a
packet or capture, or an input that takes too long. Inputs are made of the captures with known contents, if they are
there, and of what tests make.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import signal
import sys

from tests.fuzz.targets import TARGETS
from tests.fuzz.watch import LIMIT, Finding, Outcome, fuzz

_HOW_TO_INSTALL = (
    "atheris is not installed (pip install atheris): inputs are changed at random, guided by what is seen\n"
)


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all of them by default")
    parser.add_argument("--minutes", type=float, default=1.0, help="of all targets together (1)")
    parser.add_argument("--runs", type=int, default=0, help="so many executions of each target, instead of minutes")
    parser.add_argument("--seed", type=int, help="the same seed makes the same inputs, when --own is said")
    parser.add_argument("--own", action="store_true", help="without atheris, also where it is installed")
    parser.add_argument(
        "--limit", type=float, default=LIMIT, help=f"processor seconds that an input may take ({LIMIT:g})"
    )
    parser.add_argument(
        "--input", metavar="HEX", help="execute this input of one target; - reads it from standard input"
    )
    args = parser.parse_args(argv)
    for name in args.targets:
        if name not in TARGETS and ":" not in name:
            parser.error(f"no target {name!r}, there are {', '.join(TARGETS)}")
    if args.input is not None and len(args.targets) != 1:
        parser.error("--input goes with one target")
    return args


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _repeat(args: argparse.Namespace, target: str) -> int:
    data = bytes.fromhex(sys.stdin.read() if args.input == "-" else args.input)
    outcome = fuzz(target, limit=args.limit, data=data)
    if outcome.finding is None:
        _say(f"{target}: nothing found, {outcome.progress.slowest * 1e3:.1f} ms\n")
        return 0
    _say(f"{target}: {outcome.finding.what.rstrip()}\n")
    return 1


def _summary(target: str, outcome: Outcome, seed: int) -> str:
    progress, rate = outcome.progress, outcome.progress.ended / max(outcome.seconds, 1e-3)
    return (
        f"{target:<13}{progress.ended:>10,} executions {rate:>9,.0f}/s  {progress.kept:>5,} inputs kept  "
        f"slowest {progress.slowest * 1e3:.1f} ms  seed {seed}  digest {progress.digest:08x}\n"
    )


def _describe(finding: Finding, seed: int) -> str:
    lines = [f"FINDING in {finding.target}, execution {finding.number}, seed {seed}:", finding.what.rstrip()]
    lines += [f"input, {len(finding.data)} bytes: {finding.data.hex()}", "to repeat it:"]
    return "\n".join([*lines, f"  python -m tests.fuzz {finding.target} --input {finding.data.hex() or repr('')}", ""])


def _unless_alone(finding: Finding, args: argparse.Namespace, seed: int) -> str:
    """How to repeat what an input alone does not show."""
    if fuzz(finding.target, limit=args.limit, data=finding.data).finding is not None:
        return ""
    again = f"  python -m tests.fuzz {finding.target} --own --seed {seed} --runs {finding.number}\n"
    return "alone it does no harm: it needs those before it" + (f",\n{again}" if args.own else "\n")


def main(argv: list[str]) -> int:
    """The exit code: 1 when something was found."""
    args = _arguments(argv)
    if args.input is not None:
        return _repeat(args, args.targets[0])
    targets = args.targets or list(TARGETS)
    seed = random.SystemRandom().randrange(1, 1 << 31) if args.seed is None else args.seed
    guided = not args.own and importlib.util.find_spec("atheris") is not None
    if not (guided or args.own):
        _say(_HOW_TO_INSTALL)
    options = ["--seed", str(seed), "--runs", str(args.runs), *(["--atheris"] if guided else [])]
    options += ["--seconds", str(args.minutes * 60 / len(targets))]
    found = False
    for target in targets:
        outcome = fuzz(target, *options, limit=args.limit)
        _say(_summary(target, outcome, seed))
        if outcome.finding is not None:
            found = True
            _say(_describe(outcome.finding, seed))
            _say(_unless_alone(outcome.finding, args, seed))
    return int(found)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # the process below ends, too
    sys.exit(main(sys.argv[1:]))
