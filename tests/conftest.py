"""What tests of several folders take as fixtures."""

from __future__ import annotations

from typing import get_args

import hypothesis
import pytest

from tests.support import WorkerKind

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(params=get_args(WorkerKind))
def worker_kind(request: pytest.FixtureRequest) -> WorkerKind:
    """Runs a test for each kind of worker; a file about one kind has a fixture of this name that says which."""
    kind: WorkerKind = request.param
    return kind
