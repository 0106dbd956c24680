"""The fuzzer finds what there is to find; a short run of each target finds nothing."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import pytest

from engine.capture.applications.certificates import HAVE_X509
from tests.fuzz.mutate import Mutator
from tests.fuzz.pieces import MOST_BYTES, MOST_PIECES, pack, unpack
from tests.fuzz.targets import TARGETS
from tests.fuzz.watch import ROOT, fuzz

HERE = "tests.fuzz.faulty"
FAULT = pack([b"x", b"fault"])
RUNS = {"dissect": 20_000, "capture": 600, "http": 500, "tls": 200, "dns": 400}


def command(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *args], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("target", TARGETS)
def test_a_short_run_finds_nothing(target: str) -> None:
    if target in ("certificates", "quic") and not HAVE_X509:
        pytest.skip("cryptography is not installed")
    outcome = fuzz(target, "--seed", "1", "--runs", str(RUNS.get(target, 1_000)))
    assert outcome.finding is None, outcome.finding.what + outcome.finding.data.hex()
    assert outcome.progress.ended == RUNS.get(target, 1_000)
    assert outcome.progress.kept > 5


@pytest.mark.parametrize("target", ["dissect", "tcp"])
def test_the_same_seed_makes_the_same_inputs(target: str) -> None:
    digests = [fuzz(target, "--seed", seed, "--runs", "600").progress[1:4] for seed in ("5", "5", "6")]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("kind", "what"), [("Raises", "ValueError: it went wrong"), ("Crashes", "crash: SIGSEGV"), ("Hangs", "hangs: ")]
)
def test_a_fault_is_found_with_its_input(kind: str, what: str) -> None:
    target = f"{HERE}:{kind}"
    done = command(target, "--own", "--runs", "50", "--seed", "9", "--limit", "0.2")
    assert done.returncode == 1, done.stderr
    assert re.match(rf"{target} +1 executions +[0-9,]+/s .* seed 9 ", done.stdout)
    assert f"FINDING in {target}, execution 2, seed 9:" in done.stdout
    assert what in done.stdout
    assert f"\n  python -m tests.fuzz {target} --input {FAULT.hex()}\n" in done.stdout
    again = command(target, "--input", FAULT.hex(), "--limit", "0.2")
    assert (again.returncode, what in again.stdout) == (1, True)


def test_an_input_without_a_fault() -> None:
    done = command(f"{HERE}:Faultless", "--input", FAULT.hex())
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing found" in done.stdout


def test_a_target_that_there_is_not() -> None:
    done = command("absent")
    assert done.returncode == 2
    assert "no target 'absent', there are capture, dissect, tcp" in done.stderr


def test_with_atheris_a_fault_is_found_as_well() -> None:
    pytest.importorskip("atheris")
    done = command(f"{HERE}:Raises", "--runs", "5000", "--seed", "3")
    assert (done.returncode, "ValueError: it went wrong" in done.stdout) == (1, True)


def test_any_bytes_are_an_input() -> None:
    rng = random.Random(1)
    for _ in range(200):
        data = rng.randbytes(rng.randrange(300))
        pieces = unpack(data)
        assert unpack(pack(pieces)) == pieces
    assert len(unpack(pack([b""] * 1_000))) == MOST_PIECES
    assert len(pack([bytes(1_000)] * 60)) <= MOST_BYTES


def test_changed_inputs_stay_within_bounds() -> None:
    mutator = Mutator(random.Random(1), [b"token"])
    data = pack([b"one", b"two" * 50])
    seen = {data}
    for _ in range(2_000):
        data = mutator.mutate(data, pack([b"other"] * 5))
        assert len(data) <= MOST_BYTES
        seen.add(data)
    assert len(seen) > 1_000
