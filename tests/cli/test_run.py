"""`offpath run` as a process: output, exit codes, refusals, and Ctrl-C at every stage."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engine.capture.synth import Synthesis, synthesize

COMMAND = [sys.executable, "-c", "from engine.cli.app import main; main()", "run"]
HOOK = """
TrisulPlugin = { id = { name = "x" }, filex_monitor = {
  onfile_http = function(engine, ts, flow, path, req, resp, length, is_partial)
    %s
  end } }
"""
DEADLINE = 60  # seconds, for a machine under load


@pytest.fixture
def made(tmp_path: Path) -> Synthesis:
    return synthesize(tmp_path / "in.pcap", files=5, seed=1)


def script(tmp_path: Path, body: str, name: str = "x.lua") -> Path:
    path = tmp_path / name
    path.write_text(HOOK % body)
    return path


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """A whole run. Without warnings of slow hooks, which a machine under load makes at will."""
    done = subprocess.run(
        [*COMMAND, *map(str, args)], capture_output=True, text=True, timeout=DEADLINE, stdin=subprocess.DEVNULL
    )
    done.stderr = "".join(line for line in done.stderr.splitlines(True) if "held the loop for" not in line)
    return done


class Running:
    """A run that goes on beside the test."""

    def __init__(self, *args: str | Path) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def wait_for_line(self, start: str) -> str:
        """The next line on stderr with such a start."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith(start):
                return line
        pytest.fail(f"ended without a line {start!r}")

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Exit code, the rest of stdout, the rest of stderr."""
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err


@pytest.fixture
def start() -> Iterator[Any]:
    runs: list[Running] = []

    def begin(*args: str | Path) -> Running:
        runs.append(Running(*args))
        return runs[-1]

    yield begin
    for each in runs:
        with each.process:
            each.process.kill()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A pipe: who opens it for reading in Lua waits until `open_gate`."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    yield path
    with suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def waiting_script(tmp_path: Path, gate: Path) -> Path:
    """One task that waits for the gate; its start is told by a warning from the worker."""
    body = f"""
    if started then return end
    started = true
    T.async:schedule {{
      data = "{gate}",
      onexecute = function(gate)
        T.logwarning("task started")
        io.open(gate):close()
        return "done"
      end,
      onresult = function(_, _, result) print("result " .. tostring(result)) end,
    }}"""
    return script(tmp_path, body)


def test_summary_on_stdout_after_what_scripts_print(tmp_path: Path, made: Synthesis) -> None:
    done = run(script(tmp_path, 'print("file " .. length)'), "--capture", made.path)
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("packets "))
    assert first >= 5
    assert all(re.fullmatch(r"file \d+", line) for line in lines[:first])
    assert lines[first].startswith(f"packets        {made.packets:,}, ")
    assert any(re.fullmatch(r"slowest hook +x\.lua filex_monitor\.onfile_http, .+", line) for line in lines[first:])


@pytest.mark.parametrize("loop", [[], ["--no-uvloop"]])
def test_records_are_json_lines_that_end_with_the_summary(tmp_path: Path, made: Synthesis, loop: list[str]) -> None:
    out = tmp_path / "out.jsonl"
    done = run(script(tmp_path, "T.log(T.args)"), "--capture", made.path, "--records", out, "--args", "hello", *loop)
    assert done.returncode == 0
    records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert records[-1]["kind"] == "summary"
    assert records[-1]["packets"] == made.packets
    assert sum(each["kind"] == "file" for each in records) == len(made.files)
    assert {each["text"] for each in records if each["kind"] == "log"} == {"hello"}


def test_options_reach_the_scripts(tmp_path: Path, made: Synthesis) -> None:
    body = 'print(T.args, T.env.get_config("App>DBRoot"), path)'
    ramfs = tmp_path / "files"
    done = run(
        script(tmp_path, body),
        "--capture", made.path,
        "--args", "two words",
        "--set", "App>DBRoot=/var/lib=x",
        "--ramfs", ramfs,
        "--workers", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"two words\t/var/lib=x\t{ramfs}/" in done.stdout


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], ["error", "warning"]),
        (["-v"], ["error", "warning", "info"]),
        (["-vv"], ["error", "warning", "info", "debug"]),
    ],
)
def test_verbosity(tmp_path: Path, made: Synthesis, options: list[str], shown: list[str]) -> None:
    body = 'for _, level in ipairs { "error", "warning", "info", "debug" } do T["log" .. level]("say " .. level) end'
    done = run(script(tmp_path, body), "--capture", made.path, *options)
    said = re.findall(r"^(\w+): \[x\.lua\] say \1$", done.stderr, re.MULTILINE)
    assert list(dict.fromkeys(said)) == shown


def test_an_error_in_a_hook_is_one_line_and_its_traceback_on_request(tmp_path: Path, made: Synthesis) -> None:
    path = script(tmp_path, "if not failed then failed = true; error('oh') end")
    done = run(path, "--capture", made.path)
    assert done.returncode == 0
    assert re.fullmatch(r"error: \[x\.lua\] filex_monitor\.onfile_http: .*x\.lua:4: oh\n", done.stderr)
    assert re.search(r"^script errors +1$", done.stdout, re.MULTILINE)
    assert "stack traceback" in run(path, "--capture", made.path, "-v").stderr


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path, made: Synthesis) -> None:
    done = run(script(tmp_path, r'T.logwarning("\27[2Jgone")'), "--capture", made.path)
    assert "\x1b" not in done.stderr
    assert r"\x1b[2Jgone" in done.stderr


def test_a_script_that_does_not_load_leaves_the_others_running(tmp_path: Path, made: Synthesis) -> None:
    bad = tmp_path / "bad.lua"
    bad.write_text("TrisulPlugin = {\n  id = = 3 }\n")
    done = run(script(tmp_path, 'print("ran")'), bad, "--capture", made.path)
    assert done.returncode == 1
    assert "ran\n" in done.stdout
    assert re.fullmatch(r"error: \[bad\.lua\] .*bad\.lua:2: .*\n1 of 2 scripts did not load\n", done.stderr)


def test_nothing_runs_when_no_script_loads(tmp_path: Path, made: Synthesis) -> None:
    bad = tmp_path / "bad.lua"
    bad.write_text("x = = 3\n")
    done = run(bad, "--capture", made.path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("1 of 1 scripts did not load\n")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["none.lua", "--capture", "in.pcap"], "none.lua: No such file or directory"),
        ([".", "--capture", "in.pcap"], ".: is a folder"),
        (["x.lua", "--capture", "none.pcap"], "none.pcap: No such file or directory"),
        (["x.lua", "--capture", "x.lua"], "x.lua: is neither pcap nor pcapng, it starts with 0a 54 72 69"),
        (["x.lua", "--capture", "in.pcap", "--records", "none/r.jsonl"], "none/r.jsonl: No such file or directory"),
        (["x.lua", "--capture", "in.pcap", "--records", "/dev/full"], "/dev/full: No space left on device"),
        (
            ["x.lua", "--capture", "in.pcap", "--records", "in.pcap"],
            "in.pcap: records would overwrite what is to be read",
        ),
        (["x.lua", "--capture", "in.pcap", "--workers", "99"], "workers must be 1 to 64, not 99"),
        (["x.lua", "--capture", "in.pcap", "--drain", "-1"], "drain_seconds must not be negative, not -1.0"),
        (["x.lua", "--capture", "in.pcap", "--drain", "nan"], "--drain must be a number of seconds, not nan"),
        (["x.lua", "--capture", "in.pcap", "--set", "App"], "--set 'App': write it as PATH=VALUE"),
    ],
)
def test_refusals_are_one_line_and_exit_code_2(
    tmp_path: Path, made: Synthesis, monkeypatch: pytest.MonkeyPatch, args: list[str], line: str
) -> None:
    script(tmp_path, "")
    size = made.path.stat().st_size
    monkeypatch.chdir(tmp_path)
    done = run(*args)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line + "\n")
    assert made.path.stat().st_size == size


def test_a_disk_that_is_full_is_told_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    synthesize(tmp_path / "in.pcap", files=300, seed=1)
    body = "for n = 1, 20 do engine:add_alert('{B5F1DECB-51D5-4395-B71B-6FA730B772D9}', flow, n, 1, ('m'):rep(900)) end"
    command = f"ulimit -f 1000; exec {shlex.join(COMMAND)} x.lua --capture in.pcap --db x.db"
    script(tmp_path, body)
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=DEADLINE, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 2
    assert re.search(r"^losses .*[\d,]+ windows? not stored, [\d,]+ records not stored$", done.stdout, re.MULTILINE)
    assert re.search(r"^x\.db: (database or disk is full|disk I/O error)$", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr


def test_a_summary_that_cant_be_written_is_told(tmp_path: Path, made: Synthesis) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, str(script(tmp_path, "")), "--capture", str(made.path)],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=DEADLINE,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.endswith("standard output: No space left on device\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("loop", [[], ["--no-uvloop"]])
def test_a_signal_stops_the_source(
    tmp_path: Path, start: Any, number: signal.Signals, code: int, loop: list[str]
) -> None:
    made = synthesize(tmp_path / "in.pcap", files=2_000, seed=1)
    # Holds every file up, so that the capture would take a minute.
    body = "T.logwarning('file') local t = os.clock() while os.clock() - t < 0.03 do end"
    running = start(script(tmp_path, body), "--capture", made.path, "--records", tmp_path / "out.jsonl", *loop)
    running.wait_for_line("warning: [x.lua] file")
    running.interrupt(number)
    returned, out, err = running.end()
    assert returned == code
    assert "interrupted: the counts are of the part that was read\n" in err
    packets = re.search(r"^packets +([\d,]+),", out, re.MULTILINE)
    assert packets is not None
    assert 0 < int(packets[1].replace(",", "")) < made.packets
    last = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    assert json.loads(last)["kind"] == "summary"


def test_an_interrupted_run_finishes_its_tasks(tmp_path: Path, made: Synthesis, start: Any, gate: Path) -> None:
    running = start(waiting_script(tmp_path, gate), "--capture", made.path)
    running.wait_for_line("warning: [x.lua] task started")
    running.interrupt()
    line = running.wait_for_line("stopping: ")
    assert line == "stopping: 1 task has up to 30 s, Ctrl-C again abandons it\n"
    opened = os.open(gate, os.O_RDWR)  # held open: the task may not have come to its end of the pipe yet
    code, out, _ = running.end()
    os.close(opened)
    assert code == 130
    assert "result done\n" in out
    assert re.search(r"^async tasks +1: 1 completed$", out, re.MULTILINE)


def test_the_deadline_abandons_and_a_stuck_thread_does_not_hold_the_process(
    tmp_path: Path, made: Synthesis, start: Any, gate: Path
) -> None:
    running = start(waiting_script(tmp_path, gate), "--capture", made.path, "--drain", "0.2")
    code, out, err = running.end()
    assert code == 0
    assert "result" not in out
    assert re.search(r"^async tasks +1: 0 completed, 1 abandoned$", out, re.MULTILINE)
    assert err.endswith("a worker thread is stuck in a task and left behind\n")


def test_a_second_signal_abandons(tmp_path: Path, made: Synthesis, start: Any, gate: Path) -> None:
    running = start(waiting_script(tmp_path, gate), "--capture", made.path)
    running.wait_for_line("warning: [x.lua] task started")
    running.interrupt()
    running.wait_for_line("stopping: ")
    running.interrupt()
    code, out, _ = running.end()
    assert code == 130
    assert re.search(r"^async tasks +1: 0 completed, 1 abandoned$", out, re.MULTILINE)


def test_a_hook_that_never_returns_can_be_left(tmp_path: Path, made: Synthesis, start: Any) -> None:
    out = tmp_path / "out.jsonl"
    body = "T.logwarning('stuck') while true do end"
    running = start(script(tmp_path, body), "--capture", made.path, "--records", out)
    running.wait_for_line("warning: [x.lua] stuck")
    while running.process.poll() is None:  # a pending signal swallows others of its kind
        running.interrupt()
        with suppress(subprocess.TimeoutExpired):
            running.process.wait(0.2)
    code, _, err = running.end()
    assert code == 130
    assert err == "left at once: work that was under way is lost\n"
    assert '"stuck"' in out.read_text(encoding="utf-8")


def read_terminal(terminal: int) -> str:
    received = b""
    with suppress(OSError):  # how a terminal ends on Linux
        while data := os.read(terminal, 65_536):
            received += data
    return received.decode()


def test_a_bar_and_what_scripts_print_share_a_terminal(tmp_path: Path, made: Synthesis) -> None:
    body = """count = (count or 0) + 1 print("printed " .. count) T.logwarning("said " .. count)
      local t = os.clock() while os.clock() - t < 0.15 do end"""
    path = script(tmp_path, body)
    terminal, other_end = os.openpty()
    with subprocess.Popen(
        [*COMMAND, str(path), "--capture", str(made.path)],
        stdin=subprocess.DEVNULL,
        stdout=other_end,
        stderr=other_end,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "200"},
    ) as process:
        os.close(other_end)
        text = read_terminal(terminal)
    os.close(terminal)
    assert process.returncode == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert re.search(r"in\.pcap .* \d+% \d+ packets, \d+ files?", plain)
    lines = plain.splitlines()
    count = sum("printed" in line for line in lines)
    assert count >= 5
    for number in range(1, count + 1):
        assert f"printed {number}" in lines
        assert f"warning: [x.lua] said {number}" in lines
    assert text.rstrip().splitlines()[-1].startswith("slowest hook")


FILTER = """
TrisulPlugin = { id = { name = "f" }, inputfilter = {
  step = function(packet, engine)
    n = (n or 0) + 1
    packet:set_packet(1000, n, 1, ("x"):rep(12) .. "\\8\\0" .. ("y"):rep(n))
    return n < tonumber(T.args)
  end } }
"""


def test_a_script_is_the_source_when_there_is_no_capture(tmp_path: Path) -> None:
    path = tmp_path / "f.lua"
    path.write_text(FILTER)
    done = run(path, "--args", "200", "--store", tmp_path / "out", "--records", tmp_path / "r.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^packets +200, ", done.stdout, re.MULTILINE)
    assert re.search(r"^stored +200 packets, .* in 1 file$", done.stdout, re.MULTILINE)
    (stored,) = (tmp_path / "out").iterdir()
    assert stored.stat().st_size == 24 + sum(16 + 14 + n for n in range(1, 201))
    summary = json.loads((tmp_path / "r.jsonl").read_text().splitlines()[-1])
    assert (summary["store_packets"], summary["store_lost"]) == (200, 0)


def test_without_a_capture_there_must_be_one_source(tmp_path: Path, made: Synthesis) -> None:
    done = run(script(tmp_path, ""))
    assert done.returncode == 2
    assert "nothing to read: name a capture" in done.stderr
    for name in ("f.lua", "g.lua"):
        (tmp_path / name).write_text(FILTER)
    done = run(tmp_path / "f.lua", tmp_path / "g.lua", "--args", "3")
    assert done.returncode == 2
    assert "one source at a time" in done.stderr
    done = run(tmp_path / "f.lua", "--capture", made.path)  # a capture goes first
    assert done.returncode == 0


def test_a_folder_for_packets_that_can_not_be_made(tmp_path: Path, made: Synthesis) -> None:
    done = run(script(tmp_path, ""), "--capture", made.path, "--store", tmp_path / "x.lua" / "out")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"{tmp_path / 'x.lua' / 'out'}: Not a directory"]


def test_packets_are_stored_as_they_were(tmp_path: Path, made: Synthesis) -> None:
    done = run(script(tmp_path, ""), "--capture", made.path, "--store", tmp_path / "out", "--store-size", "1")
    assert done.returncode == 0
    files = sorted((tmp_path / "out").iterdir())
    assert b"".join(path.read_bytes()[24:] for path in files) == made.path.read_bytes()[24:]
