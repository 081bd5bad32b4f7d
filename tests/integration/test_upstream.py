"""Ultralytics' own tests end as they do without the plugin."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import upstream


@pytest.mark.long
@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="a test is ended by an alarm")
def test_ultralytics_own_tests_end_alike_with_the_plugin_and_without(tmp_path: Path) -> None:
    differing, summary = upstream.compare(tmp_path, list(upstream.TESTS), ["-k", upstream.LEFT_OUT])
    print(summary)
    assert not differing, differing
    assert " passed" in summary
