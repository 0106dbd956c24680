"""Progress and log lines where there is no terminal, and the counts that progress is made of."""

from __future__ import annotations

import logging

import pytest

from engine.cli.terminal import Display, describe, read_bytes
from engine.values.stats import AsyncStats, DecodeStats, EngineStats, HttpStats

STATS = EngineStats(decode=DecodeStats(packets=1_000, captured_bytes=84_000), http=HttpStats(files=5))


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_no_line_for_a_short_run_then_one_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    with Display("in.pcap", 200_000, clock=clock) as display:
        for tenth in range(121):  # 12 seconds
            clock.now = tenth / 10
            display.show(STATS)
            if tenth == 49:
                assert capsys.readouterr().err == ""
    assert capsys.readouterr().err == "50%, 1,000 packets, 5 files\n" * 2


def test_a_size_that_says_nothing_gives_no_share(capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    with Display("in.pcap.gz", None, clock=clock) as display:
        clock.now = 6.0
        display.show(STATS)
    assert capsys.readouterr().err == "1,000 packets, 5 files\n"


def test_nothing_is_told_of_a_source_that_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    with Display("in.pcap", 200_000, clock=clock) as display:
        clock.now = 6.0
        display.show(STATS, over=True)
    assert capsys.readouterr().err == ""


def test_more_than_all_is_all(capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    with Display("in.pcap", 10, clock=clock) as display:
        clock.now = 6.0
        display.show(STATS)
    assert capsys.readouterr().err.startswith("100%, ")


def test_logging_comes_here_while_open_and_is_left_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("offpath")
    before = (logger.level, logger.propagate, list(logger.handlers))
    with Display("in.pcap", 1):
        logging.getLogger("offpath.script").warning("[%s] %s", "x.lua", "two\nlines\nstack traceback:\n\tx.lua:3")
        logging.getLogger("offpath.script").info("quiet")
    assert (logger.level, logger.propagate, logger.handlers) == before
    assert capsys.readouterr().err == "warning: [x.lua] two\nlines\n"


def test_counts() -> None:
    assert read_bytes(STATS) == 100_000
    assert describe(STATS) == "1,000 packets, 5 files"
    assert describe(EngineStats(tasks=AsyncStats(pending=1_200))) == "0 packets, 0 files, 1,200 tasks pending"
