"""The README writer: what is in it, and that results of benchmarks that were not run stay."""

from __future__ import annotations

from pathlib import Path

from benchmarks import readme
from benchmarks.harness import Benchmark, Column, Options, Ratio, Report, Spread, discover
from benchmarks.readme import document, old_results, results, write

MACHINE = {"cpu": "a cpu", "load": "0.10"}


def _report(name: str, value: float) -> Report:
    return Report(
        name,
        "a title",
        [Column("time", "time", "s")],
        {"a | b": {"time": Spread((value, 1.0, 9.0))}},
        [Ratio("a takes {} times as long", Spread((value,)), "at most 2")],
        ["A note."],
        "<svg/>",
        {"peer": "apt-get install peer"},
    )


def _benchmarks(*names: str) -> dict[str, Benchmark]:
    def run(options: Options) -> Report:
        raise AssertionError("not to be run")

    return {name: Benchmark(name, "something", "nothing", run) for name in names}


def test_results_have_ratio_table_chart_notes_and_machine() -> None:
    assert results(_report("x", 2.5), MACHINE).split("\n\n") == [
        "- a takes 2.50 times as long (goal: at most 2)",
        "|  | time, s |\n| --- | ---: |\n| a &#124; b | 2.50 (1-9) |\n| peer (apt-get install peer) | not installed |",
        "![a title](plots/x.svg)",
        "A note.",
        "Measured on: cpu a cpu, load 0.10.",
    ]


def test_new_results_replace_old_ones_and_others_stay(tmp_path: Path) -> None:
    path, benchmarks = tmp_path / "README.md", _benchmarks("x", "y", "z")
    write(path, benchmarks, [_report("x", 2.5), _report("y", 3.5)], MACHINE)
    first = path.read_text(encoding="utf-8")
    assert "Not measured yet." in first
    write(path, benchmarks, [_report("y", 4.5)], MACHINE)
    text = path.read_text(encoding="utf-8")
    found = old_results(text)
    assert "2.50 times" in found["x"]
    assert "4.50 times" in found["y"]
    assert "3.50" not in text
    assert found["z"] == "Not measured yet."
    assert text.index("## `x`") < text.index("## `y`") < text.index("## `z`")
    assert "- [`x`](#x): something; against nothing." in text


def test_writing_what_is_there_changes_nothing(tmp_path: Path) -> None:
    path, benchmarks = tmp_path / "README.md", discover()
    write(path, benchmarks, [_report("cpu", 2.5)], MACHINE)
    before = path.read_text(encoding="utf-8")
    write(path, benchmarks, [], MACHINE)
    assert path.read_text(encoding="utf-8") == before


def test_the_committed_document_is_what_the_writer_writes() -> None:
    """Nobody edited it by hand, and no text was changed without writing it again."""
    text = readme.README.read_text(encoding="utf-8")
    assert text == document(discover(), old_results(text))
    for line in text.splitlines():
        if line.startswith("!["):
            assert (readme.README.parent / line.split("(")[-1].rstrip(")")).is_file()
