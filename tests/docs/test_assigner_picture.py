"""The picture of the page on the assigner shows what the page says."""

from __future__ import annotations

import re
import sys

from conftest import ROOT

sys.path.insert(0, str(ROOT / "docs"))

import assigner_picture as picture


def counts(side: float, label: str) -> tuple[int, int, float]:
    found = picture.assign(side, picture.KEYS[label])
    return int(found.candidates.sum()), int(found.positives.sum()), float(found.targets.sum())


def test_the_small_object_has_six_candidates_which_topk_leaves_and_the_floor_adds_to() -> None:
    stock = counts(12, "stock")
    assert stock[:2] == (6, 6)
    assert counts(12, "tal_topk=20") == stock
    assert counts(12, "tal_min_side=32")[1] == 10
    assert counts(12, "tal_min_side=32")[2] / 10 < stock[2] / 6
    assert counts(12, "tal_overlap=nwd")[2] > 1.9 * stock[2]


def test_the_larger_object_gets_as_many_positives_as_topk_says() -> None:
    assert counts(40, "stock")[:2] == (30, 10)
    assert counts(40, "tal_topk=20")[:2] == (30, 20)
    assert counts(40, "tal_overlap=nwd")[2] < counts(40, "stock")[2]
    assert counts(40, "tal_min_side=32") == counts(40, "stock")


def test_the_kept_picture_is_the_one_that_is_drawn() -> None:
    kept = picture.PICTURE.read_text(encoding="utf-8")
    shown = [(int(c), int(p)) for c, p in re.findall(r"(\d+) candidates, (\d+) positives", kept)]
    assert shown == [counts(side, label)[:2] for side in picture.OBJECTS.values() for label in picture.KEYS]
    assert all(f">{label}<" in kept for label in picture.KEYS)
