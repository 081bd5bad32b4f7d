"""Each term that Ultralytics logs has the key of its name, but for the exceptions of one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ultralytics
from conftest import HEADS, criterion_of

from yolo_losses.config.logged import WITHOUT_KEY
from yolo_losses.config.settings import KEYS


def names_of(criterion: Any) -> set[str]:
    """The terms that a criterion, or those that it is made of, logs."""
    own = [criterion, *(getattr(criterion, branch, None) for branch in ("one2many", "one2one"))]
    return {name for one in own for name in getattr(one, "loss_names", ())}


def names_in_source() -> set[str]:
    """The terms that the installed release names anywhere: those of heads that are not built here too."""
    import re

    files = [f"{folder}/{name}.py" for folder, name in (("utils", "loss"), ("nn", "tasks"), ("nn", "distill_model"))]
    texts = [
        path.read_text(encoding="utf-8") for f in files if (path := Path(ultralytics.__file__).parent / f).is_file()
    ]
    return {name for text in texts for name in re.findall(r"\"(\w+_loss)\"", text)}


def has_key(name: str) -> bool:
    return name in KEYS or name in WITHOUT_KEY


@pytest.mark.parametrize("name", HEADS)
def test_the_terms_of_every_head_have_their_key(name: str) -> None:
    logged = names_of(criterion_of(name))
    assert all(map(has_key, logged)), logged


def test_every_term_that_the_release_names_has_its_key() -> None:
    logged = names_in_source()
    assert all(map(has_key, logged)), {name for name in logged if not has_key(name)}


def test_no_exception_has_a_key() -> None:
    assert not WITHOUT_KEY.keys() & KEYS.keys()
