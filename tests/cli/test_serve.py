"""`offpath run --serve` as a process: where it says it is, when it ends, and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

import pytest

pytest.importorskip("uvicorn")

from engine.capture.synth import synthesize

COMMAND = [sys.executable, "-c", "from engine.cli.app import main; main()", "run"]
SCRIPT = 'TrisulPlugin = { id = { name = "x" }, filex_monitor = { onfile_http = function() end } }'
DEADLINE = 60
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    synthesize(tmp_path / "in.pcap", files=5, seed=1)
    (tmp_path / "x.lua").write_text(SCRIPT)
    return [str(tmp_path / "x.lua"), "--capture", str(tmp_path / "in.pcap")]


def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *args], capture_output=True, text=True, timeout=DEADLINE, env=os.environ | environment, check=False
    )


@contextmanager
def running(*args: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A run, and the address that it names."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([*COMMAND, *args], stdout=pipe, stderr=pipe, text=True, env=os.environ | environment)
    watchdog = threading.Timer(DEADLINE, process.kill)  # what it would say is waited for, so it must end
    watchdog.start()
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.match(r"serving (http://\S+)", line)
        assert found, line + process.stderr.read()
        yield process, found[1]
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def until_over(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("the source is over"):
            return
    raise AssertionError("it ended")


def get(url: str, **headers: str) -> tuple[int, str]:
    try:
        with OPENER.open(urllib.request.Request(url, headers=headers), timeout=DEADLINE) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def test_a_run_ends_with_its_source_as_without(inputs: list[str]) -> None:
    done = run(*inputs, "--serve", ":0")
    assert done.returncode == 0
    assert re.match(
        r"serving http://127\.0\.0\.1:\d+/ \(until the run is over: --keep-serving goes on\)\n", done.stderr
    )
    assert re.search(r"^files +5:", done.stdout, re.MULTILINE)


def test_keep_serving_goes_on_until_ctrl_c_which_is_its_normal_end(inputs: list[str], tmp_path: Path) -> None:
    with running(*inputs, "--serve", "0", "--keep-serving", "--db", str(tmp_path / "x.db")) as (process, url):
        until_over(process)
        assert "offpath_http_files_total 5" in get(f"{url}metrics")[1]
        assert json.loads(get(f"{url}healthz")[1])["reasons"] == ["the source is over"]
        assert get(f"{url}api/flows")[0] == 200
        assert "<title>Offpath</title>" in get(url)[1]
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=DEADLINE)
        assert (process.returncode, rest) == (0, "")
        assert re.search(r"^files +5:", out, re.MULTILINE)


def test_ctrl_c_while_a_source_is_read_ends_the_run(inputs: list[str]) -> None:
    with running(*inputs, "--replay", "0.0001", "--serve", "0", "--keep-serving") as (process, url):
        assert get(f"{url}healthz")[0] in (200, 503)  # 503 when the machine is slow
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE)
        assert process.returncode == 130


def test_a_port_in_use_is_an_error_before_anything_is_written(inputs: list[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run(*inputs, "--serve", address, "--records", str(tmp_path / "out.jsonl"))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{address}: Address already in use\n")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_token_is_made_and_shown_where_others_can_reach_it(inputs: list[str]) -> None:
    with running(*inputs, "--serve", "0.0.0.0:0", "--keep-serving") as (_, url):
        place, _, token = url.partition("?token=")
        here = f"http://127.0.0.1:{place.rpartition(':')[2]}"
        assert len(token) >= 32
        assert get(f"{here}metrics")[0] == 401
        assert get(f"{here}metrics", Authorization=f"Bearer {token}")[0] == 200


def test_a_token_of_the_environment_is_not_shown(inputs: list[str]) -> None:
    with running(*inputs, "--serve", "0", "--keep-serving", OFFPATH_TOKEN="s3cret") as (_, url):
        assert "s3cret" not in url
        assert get(f"{url}metrics")[0] == 401
        assert get(f"{url}metrics", Authorization="Bearer s3cret")[0] == 200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--keep-serving"], "--keep-serving goes with --serve\n"),
        (["--serve", "nowhere"], "'nowhere' is no address: write it as HOST:PORT, such as 127.0.0.1:8000 or :0\n"),
        (["--serve", ":0", "--token", "a b"], "a token is made of visible ASCII signs without spaces"),
    ],
)
def test_what_makes_no_sense_is_refused(inputs: list[str], options: list[str], said: str) -> None:
    done = run(*inputs, *options)
    assert done.returncode == 2
    assert done.stderr.startswith(said)


def test_without_the_packages_the_extra_is_named(inputs: list[str]) -> None:
    hidden = "import sys; sys.modules['uvicorn'] = None; from engine.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hidden, "run", *inputs, "--serve", ":0"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 2
    assert done.stderr == "serving needs the package uvicorn: pip install 'offpath[serve]'\n"


def test_a_run_that_serves_nothing_loads_nothing_that_serves(inputs: list[str]) -> None:
    code = "import sys; sys.argv[0] = 'x'\nfrom engine.cli.app import app\ntry:\n app()\nexcept SystemExit:\n pass\n"
    code += "print([name for name in ('starlette', 'uvicorn') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", *inputs], capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
