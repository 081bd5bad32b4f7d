"""What is said of the committed comparisons, in figures, captions, tables and pages, is what their runs give."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("scipy")


def test_reports_verdicts_figure_and_captions_are_those_of_the_committed_runs() -> None:
    done = subprocess.run(
        [sys.executable, "examples/evidence/make.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
