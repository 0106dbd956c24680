"""`offpath run` over folders, pipes, replays and interfaces, as a process."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zstandard

from engine.capture.synth import Synthesis, synthesize
from tests.capture.packets import pcap, udp
from tests.cli.test_run import COMMAND, DEADLINE, Running, run, script
from tests.pipeline.own_network import in_own_network
from tests.support import eventually

NOTHING = (
    "nothing to read: name a capture with --capture FILE, an interface with --live IFACE, or a script with an "
    "inputfilter"
)


@pytest.fixture
def made(tmp_path: Path) -> Synthesis:
    return synthesize(tmp_path / "in.pcap", files=5, seed=1)


def records_of(path: Path) -> list[dict[str, Any]]:
    """Without what differs from run to run."""
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in each.items() if key != "path"} for each in found if each["kind"] != "summary"]


def test_a_folder_is_one_capture(tmp_path: Path, made: Synthesis) -> None:
    caps = tmp_path / "caps"
    caps.mkdir()
    (caps / "b").write_bytes(gzip.compress(made.path.read_bytes()))
    (caps / "a").write_bytes(zstandard.compress(pcap([(0.0, udp(("1.2.3.4", 5), ("1.2.3.5", 6)))])))
    (caps / "notes").write_text("this is no capture")
    done = run(script(tmp_path, 'print("file " .. length)'), "--capture", caps)
    assert done.returncode == 0
    assert done.stderr == f"warning: [{caps}/notes] is neither pcap nor pcapng, it starts with 74 68 69 73: skipped\n"
    assert re.search(rf"^packets +{made.packets + 1}, ", done.stdout, re.MULTILINE)
    assert re.search(r"^captures +2$", done.stdout, re.MULTILINE)
    assert re.search(r"^losses .*1 file skipped", done.stdout, re.MULTILINE)


def test_captures_may_stand_among_the_scripts(tmp_path: Path, made: Synthesis) -> None:
    other = tmp_path / "other"
    other.write_bytes(pcap([(0.0, udp(("1.2.3.4", 5), ("1.2.3.5", 6)))]))
    done = run(script(tmp_path, ""), made.path, other)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"^packets +{made.packets + 1}, ", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("from_file", [True, False])
def test_standard_input(tmp_path: Path, made: Synthesis, pack: Any, from_file: bool) -> None:
    path = tmp_path / "packed"
    path.write_bytes(pack(made.path.read_bytes()))
    with path.open("rb") as file:
        given: dict[str, Any] = {"stdin": file} if from_file else {"input": path.read_bytes()}
        done = subprocess.run(
            [*COMMAND, str(script(tmp_path, "")), "-"], capture_output=True, timeout=DEADLINE, check=False, **given
        )
    assert done.returncode == 0, done.stderr
    assert re.search(rb"^packets +%d, " % made.packets, done.stdout, re.MULTILINE)


@pytest.mark.parametrize("option", [["--replay"], ["--replay", "1000"], ["--replay=2e9", "--loop", "1"]])
def test_a_replay_has_the_records_of_the_capture(tmp_path: Path, made: Synthesis, option: list[str]) -> None:
    path = script(tmp_path, "T.log(tostring(ts))")
    for name, options in (("plain", []), ("replayed", option)):
        done = run(path, *options, "--capture", made.path, "--records", tmp_path / name)
        assert done.returncode == 0, done.stderr
    plain, replayed = records_of(tmp_path / "plain"), records_of(tmp_path / "replayed")
    slow = "held the loop for"  # a machine under load
    assert [each for each in replayed if slow not in str(each)] == [each for each in plain if slow not in str(each)]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["x.lua"], NOTHING),
        (["x.lua", "--replay"], "nothing to replay: name a capture with --capture FILE"),
        (["--capture", "in.pcap", "in.pcap"], "no script: name at least one"),
        (["x.lua", "-", "--capture", "in.pcap"], "-: standard input goes with no other capture, --replay or --loop"),
        (["x.lua", "-"], "-: standard input is closed"),
        (["x.lua", "--capture", "none"], "none: is a folder without captures"),
        (["x.lua", "--capture", "in.pcap", "--loop", "2"], "--loop goes with --replay"),
        (["x.lua", "--capture", "in.pcap", "--replay", "0"], "speed must be a number above 0, not 0.0"),
        (["x.lua", "--capture", "in.pcap", "--duration", "2"], "--duration is for --live"),
        (["x.lua", "--capture", "in.pcap", "--ring-mb", "2"], "--ring-mb is for --live"),
        (["x.lua", "--live", "lo", "--capture", "in.pcap"], "--live goes with no capture file, --replay or --loop"),
        (["x.lua", "--live", "lo", "--packets", "0"], "packets must be a whole number of at least 1, not 0"),
    ],
)
def test_refusals_are_one_line_and_exit_code_2(
    tmp_path: Path, made: Synthesis, monkeypatch: pytest.MonkeyPatch, args: list[str], line: str
) -> None:
    script(tmp_path, "")
    (tmp_path / "none").mkdir()
    monkeypatch.chdir(tmp_path)
    command = [*COMMAND, *args]
    if line.endswith("is closed"):
        command = ["sh", "-c", '"$@" <&-', "sh", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line + "\n")


def test_a_terminal_is_no_capture(tmp_path: Path) -> None:
    terminal, other_end = os.openpty()
    done = subprocess.run(
        [*COMMAND, str(script(tmp_path, "")), "-"], capture_output=True, text=True, timeout=DEADLINE, stdin=other_end
    )
    os.close(terminal)
    os.close(other_end)
    assert (done.returncode, done.stderr) == (2, "-: standard input is a terminal, pipe a capture into it\n")


def test_an_interrupted_pipe_keeps_what_came(tmp_path: Path, made: Synthesis) -> None:
    out = tmp_path / "out.jsonl"
    path = script(tmp_path, 'T.logwarning("file")')
    with subprocess.Popen(
        [*COMMAND, str(path), "-", "--records", str(out)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(made.path.read_bytes())
        process.stdin.flush()
        assert process.stderr.readline() == b"warning: [x.lua] file\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert b"interrupted: the counts are of the part that was read\n" in err
    assert any(each["kind"] == "flow" for each in records_of(out))


def test_an_interrupted_script_keeps_what_it_made(tmp_path: Path) -> None:
    out, path = tmp_path / "out.jsonl", tmp_path / "x.lua"
    datagram = "".join(f"\\{byte}" for byte in udp(("1.2.3.4", 5), ("1.2.3.5", 6)))
    path.write_text(
        f"""TrisulPlugin = {{ id = {{}}, inputfilter = {{ step = function(packet)
          n = (n or 0) + 1
          packet:set_packet(n, 0, 1, "{datagram}")
          if n == 5000 then T.logwarning("many") end
          return true
        end }} }}"""
    )
    running = Running(path, "--records", out)
    with running.process:
        running.wait_for_line("warning: [x.lua] many")
        running.interrupt()
        code, printed, _ = running.end()
    assert code == 130
    found = re.search(r"^packets +([0-9,]+),", printed, re.MULTILINE)
    assert found is not None
    packets = int(found[1].replace(",", ""))
    (flow,) = (each for each in records_of(out) if each["kind"] == "flow")
    assert flow["a_packets"] + flow["z_packets"] == packets >= 5000


def test_an_interface_that_is_none(tmp_path: Path) -> None:
    done = run(script(tmp_path, ""), "--live", "absent0", "--duration", "1")
    assert done.returncode == 2
    assert re.fullmatch(r"absent0: (no such network interface|no permission to capture.*)\n", done.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_the_normal_end_of_a_live_capture(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out.jsonl"
    path = tmp_path / "x.lua"
    path.write_text('TrisulPlugin = { id = {}, onload = function() T.logwarning("ready") end }')

    async def main() -> None:
        running = Running(path, "--live", "lo", "--records", out)
        with running.process:
            running.wait_for_line("warning: [x.lua] ready")
            await eventually(lambda: captures(running.process.pid))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, suppress(ConnectionRefusedError):
                sender.sendto(b"x", ("127.0.0.1", 9))
            running.interrupt(number)
            code, printed, err = running.end()
        assert (code, err) == (0, "")
        assert re.search(r"^packets +2,", printed, re.MULTILINE)  # it, and the answer that nobody listens
        assert any(each["kind"] == "flow" for each in records_of(out))

    in_own_network(main)


def captures(pid: int) -> bool:
    """Whether a packet socket for all protocols is running in the network of a process."""
    lines = Path(f"/proc/{pid}/net/packet").read_text().splitlines()[1:]
    return any(line.split()[3] == "0003" and line.split()[5] == "1" for line in lines)


def test_a_live_capture_can_be_limited(tmp_path: Path) -> None:
    async def main() -> None:
        done = run(script(tmp_path, ""), "--live", "lo", "--duration", "0.3", "--promiscuous", "--ring-mb", "4")
        assert (done.returncode, done.stderr) == (0, "")
        assert re.search(r"^packets +0,", done.stdout, re.MULTILINE)

    in_own_network(main)
