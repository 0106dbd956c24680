"""The scenarios in scripts/sim: what each is there to show, with a seed."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "scripts" / "sim"


def scenario(name: str) -> ModuleType:
    spec = spec_from_file_location(f"sim_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("method", ["copy", "schedule"])
def test_a_copy_in_the_hook_loses_events_where_one_off_the_path_loses_none(method: str) -> None:
    loss = scenario("loss")
    inline, offloaded = (loss.simulate(each, 400, seed=1, seconds=2.0) for each in ("inline", method))
    assert inline.events > 700
    assert inline.lost_percent > 30
    assert offloaded.lost == 0
    assert offloaded.p99 < 0.002 < 0.2 < inline.p99


def test_below_what_the_hook_can_do_nobody_loses_any() -> None:
    loss = scenario("loss")
    assert [loss.simulate(each, 50, seed=1, seconds=2.0).lost for each in loss.METHODS] == [0, 0, 0]


@pytest.mark.parametrize("workers", [3, 4, 5])
def test_the_mean_queue_is_that_of_theory(workers: int) -> None:
    found = scenario("sizing").simulate(workers, rate=2.1, seed=1, hours=2.0)
    assert found.mean == pytest.approx(found.theory, rel=0.05)


def test_each_minute_is_there_once() -> None:
    found = scenario("sizing").simulate(3, rate=2.1, seed=1, hours=0.1)
    first = 1_700_000_000 // 60 * 60  # the simulation begins 20 s into it
    assert found.times == tuple(first + 60 * at for at in range(len(found.times)))
    assert len(found.times) == 7


def test_an_outbreak_is_caught_by_the_hashes_of_files() -> None:
    outbreak = scenario("outbreak")
    free, caught = (outbreak.simulate(hashed=hashed, seed=1, minutes=15.0) for hashed in (False, True))
    assert free.infected[-1] > 50
    assert free.isolated[-1] == 0
    assert caught.infected[-1] < 25
    assert caught.isolated[-1] >= caught.infected[-1]
    assert caught.infected[-1] == caught.infected[-18], "nobody gets it any more"
    assert caught.files > 300


def test_theory() -> None:
    theory = scenario("sizing").jobs_in_theory
    assert theory(0.5, 1.0, 1) == pytest.approx(1.0)  # M/M/1: load / (1 - load)
    assert theory(1.0, 1.0, 2) == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    ("words", "plots"),
    [
        (["loss.py", "--seconds", "0.2", "--plot", "loss.svg"], ["loss.svg"]),
        (["sizing.py", "--hours", "0.1", "--plot", "queue.svg"], ["queue.svg"]),
        (["outbreak.py", "--minutes", "1", "--plot", "outbreak.svg"], ["outbreak.svg"]),
    ],
)
def test_the_commands_print_and_draw(tmp_path: Path, words: list[str], plots: list[str]) -> None:
    command = [sys.executable, str(FOLDER / words[0]), *words[1:]]
    told = [
        subprocess.run(
            command,
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert told[0] == told[1], "the same seed, the same figures"
    for each in plots:
        ElementTree.parse(tmp_path / each)
