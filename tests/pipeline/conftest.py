"""Settings for engines with workers of either kind, and what scripts log in them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from engine import Config
from tests.pipeline.async_rig import Logged, MakeConfig, logged_of
from tests.support import WorkerKind


@pytest.fixture
def config(worker_kind: WorkerKind, tmp_path: Path) -> MakeConfig:
    # On a busy machine any hook may be slow, and its warning would be among the lines that a test expects.
    return partial(Config, async_isolation=worker_kind, ramfs=tmp_path / "ram", slow_hook_seconds=3600.0)


@pytest.fixture
def logged(config: MakeConfig, tmp_path: Path) -> Logged:
    """All records after one event to a script with a hook (`logged_of`); more fields are those of `Config`."""
    return lambda body, *, rest="", before="", **fields: logged_of(
        tmp_path, config(**fields), body, rest=rest, before=before
    )
