"""A new loss is one new file: what else names it follows from its declaration, by `docs/tables.py`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

NEW = '''
from typing import Annotated
from torch import Tensor
from yolo_losses.losses.classification._base import register_cls_loss
from yolo_losses.registry.parameters import Param


@register_cls_loss("brand_new", summary="Brand-new loss: |t - p|^power", source="arXiv 2612.01234")
def brand_new_loss(
    logits: Tensor, targets: Tensor, power: Annotated[float, Param("exponent of the error", above=0)] = 2.0
) -> Tensor:
    """Brand-new loss."""
    return (logits.sigmoid() - targets).abs() ** power
'''


def tables(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command of a checkout on the losses of that checkout."""
    return subprocess.run(
        [sys.executable, "docs/tables.py", *options],
        cwd=root,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


def test_what_follows_from_the_declarations_is_current() -> None:
    done = tables(ROOT, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_new_loss_is_one_new_file(tmp_path: Path) -> None:
    for name in ("yolo_losses", "configs", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("bench", "evidence"):
        shutil.copytree(ROOT / "examples" / name, tmp_path / "examples" / name)
    for name in ("README.md", "mkdocs.yml"):
        shutil.copy(ROOT / name, tmp_path)
    assert tables(tmp_path, "--check").returncode == 0
    (tmp_path / "yolo_losses" / "losses" / "classification" / "brand_new.py").write_text(NEW)
    stale = tables(tmp_path, "--check")
    assert stale.returncode == 1
    pages = {"api.md", "keys.md", "losses/index.md", "losses/brand_new.md", "zh/losses.md", "zh/keys.md", "llms.txt"}
    written = {"README.md", "mkdocs.yml", "configs/brand_new.yaml", *(f"docs/{page}" for page in pages)}
    written |= {f"yolo_losses/{name}" for name in ("__init__.py", "__init__.pyi", "functional.py", "functional.pyi")}
    assert {line.split()[0] for line in stale.stdout.splitlines()} == written
    done = tables(tmp_path)
    assert done.returncode == 0, done.stderr
    by_hand = re.findall(r"^to be written by hand: ([\w./]+):", done.stdout, flags=re.MULTILINE)
    sections = ["yolo_losses/losses/classification/brand_new.py"] * 3
    places = ["docs/references.bib", "docs/curves.js", "docs/zh/losses.yaml", "docs/zh/losses.yaml"]
    assert by_hand == [*sections, *places, "docs/losses/brand_new.svg"]
    row = "| [`brand_new`](brand_new.md) | Brand-new loss: \\|t - p\\|^power | [arXiv 2612.01234]"
    assert row in (tmp_path / "docs" / "losses" / "index.md").read_text()
    assert "`bce`, `brand_new`, `efl`" in (tmp_path / "README.md").read_text()
    config = (tmp_path / "configs" / "brand_new.yaml").read_text()
    assert "cls_loss: brand_new\nbrand_new_power: 2.0 # a number > 0: exponent of the error\n" in config
    page = (tmp_path / "docs" / "losses" / "brand_new.md").read_text()
    assert "\n| `brand_new_power` | `2.0` | a number > 0 | exponent of the error |\n" in page
    assert tables(tmp_path, "--check").returncode == 0
    # A change by hand, or a default that is not the declared one, is noticed.
    index, path = tmp_path / "docs" / "losses" / "index.md", tmp_path / "configs" / "vfl_siou.yaml"
    index.write_text(index.read_text().replace("Brand-new loss", "Old loss"))
    path.write_text(path.read_text().replace("vfl_alpha: 0.75", "vfl_alpha: 0.5"))
    assert len(tables(tmp_path, "--check").stdout.splitlines()) == 2
