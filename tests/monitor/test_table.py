"""`loss_stats.csv`: its rows, also of a resumed run, and files that are truncated or cannot be written."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import logged

from yolo_losses.monitor import table
from yolo_losses.monitor.loss_stats import LOGGED_CLASSES, LossStats, plain_names
from yolo_losses.monitor.table import FILE, read, split_column

COLUMNS = {"batches": 2.0, "share/box": 0.25, "share/cls": 0.75, "one2one/by_class/a": 1.0, "mean_iou": math.nan}


def test_the_file_holds_a_row_for_each_epoch(tmp_path: Path) -> None:
    table = LossStats(tmp_path, 0)
    for epoch in (1, 2, 3):
        table.add(epoch, {**COLUMNS, "share/box": 0.1 * epoch})
    rows = read(tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["share/box"] for row in rows] == pytest.approx([0.1, 0.2, 0.3])
    assert list(rows[0]) == ["epoch", *COLUMNS]
    assert math.isnan(rows[0]["mean_iou"])
    assert pl.read_csv(tmp_path / FILE)["share/cls"].to_list() == [0.75] * 3  # as people read it
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_resumed_run_goes_on_after_the_epochs_of_its_checkpoint(tmp_path: Path) -> None:
    before = LossStats(tmp_path, 0)
    for epoch in (1, 2, 3):
        before.add(epoch, COLUMNS)
    after = LossStats(tmp_path, 2)  # killed after the third row, before its checkpoint
    after.add(3, {**COLUMNS, "share/box": 0.9})
    assert [(row["epoch"], row["share/box"]) for row in read(tmp_path)] == [(1, 0.25), (2, 0.25), (3, 0.9)]
    LossStats(tmp_path, 0).add(1, COLUMNS)  # a new run in an old folder
    assert [row["epoch"] for row in read(tmp_path)] == [1]


def test_an_epoch_that_is_done_again_has_one_row(tmp_path: Path) -> None:
    table = LossStats(tmp_path, 0)
    for epoch, share in ((1, 0.1), (2, 0.2), (2, 0.3)):
        table.add(epoch, {"share/box": share})
    assert [(row["epoch"], row["share/box"]) for row in read(tmp_path)] == [(1, 0.1), (2, 0.3)]


def test_a_column_that_comes_later_is_empty_before(tmp_path: Path) -> None:
    table = LossStats(tmp_path, 0)
    table.add(1, {"share/box": 0.1})
    table.add(2, {"share/box": 0.2, "threshold": 0.5})
    assert math.isnan(read(tmp_path)[0]["threshold"])
    assert read(tmp_path)[1]["threshold"] == 0.5


def test_a_file_that_cannot_be_written_is_logged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = LossStats(tmp_path, 0)
    table.add(1, COLUMNS)
    kept = (tmp_path / FILE).read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with logged() as said:
        table.add(2, COLUMNS)
        table.add(3, COLUMNS)
    assert len(said) == 1
    assert "could not be written" in said[0]
    assert (tmp_path / FILE).read_bytes() == kept


@pytest.mark.parametrize("text", ["", "epoch,a\n1", "epoch,a\n1,x\n", "time,a\n1,2\n"])
def test_a_file_that_is_not_a_table_has_no_rows(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert read(tmp_path) == []


WHOLE = "epoch,share/cls\n1,0.25\n2,0.5\n"


@pytest.mark.parametrize(
    ("content", "epochs", "reason"),
    [
        (WHOLE.encode("utf-8-sig"), [1, 2], ""),
        (WHOLE.replace("\n", "\r\n").encode(), [1, 2], ""),
        (WHOLE.replace(",", ";").replace(".", ",").encode(), [1, 2], ""),
        (f"{WHOLE}\n\n".encode(), [1, 2], ""),
        (f"{WHOLE}3".encode(), [1, 2], "1 of its lines cannot be read"),
        (f"{WHOLE}3,0.1".encode(), [1, 2], "1 of its lines cannot be read"),  # it may have been 0.125
        (f"{WHOLE}3,\x00\n4,0.5\n".encode(), [1, 2, 4], "1 of its lines cannot be read"),
        (b"", [], "it cannot be read"),
        (b"my notes\n", [], "it cannot be read"),
        (b"\xff\xfe\x00", [], "it cannot be read"),
    ],
)
def test_a_resumed_run_keeps_every_row_that_can_be_read_and_what_cannot_be_read_under_another_name(
    tmp_path: Path, content: bytes, epochs: list[int], reason: str
) -> None:
    (tmp_path / FILE).write_bytes(content)
    with logged() as messages:
        resumed = LossStats(tmp_path, 9)
    assert [row["epoch"] for row in resumed.rows] == epochs
    assert all(row["share/cls"] in (0.25, 0.5) for row in resumed.rows)
    assert len([m for m in messages if reason and reason in m and f"it is kept as {FILE}.old" in m]) == bool(reason)
    assert [path.read_bytes() for path in tmp_path.glob("*.old")] == [content] * bool(reason)
    resumed.add(10, {"share/cls": 0.125})
    assert [row["epoch"] for row in read(tmp_path)] == [*epochs, 10]
    assert not list(tmp_path.glob("*.part"))


def test_a_renamed_file_replaces_no_other(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        (tmp_path / FILE).write_bytes(content)
        LossStats(tmp_path, 1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        f"{FILE}.old": b"one",
        f"{FILE}.old2": b"two",
    }


def test_a_file_that_can_neither_be_read_nor_renamed_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / FILE).write_text(WHOLE)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        patched.setattr(Path, "rename", refuse)
        with logged() as messages:
            resumed = LossStats(tmp_path, 2)
    assert len([m for m in messages if "Permission denied" in m and "no statistics are written" in m]) == 1
    resumed.add(3, {"share/cls": 0.1})
    assert (tmp_path / FILE).read_text() == WHOLE
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        with pytest.raises(PermissionError):
            table.read(tmp_path)


def test_names_of_classes_are_unique_and_plain() -> None:
    assert plain_names(["car 2", "car", "car"]) == ["car 2", "car", "car 3"]
    names = plain_names(["person", "traffic light", "a/b,c", "a_b_c", "行人", "", 3, "x" * 300, "person"])
    assert names[:7] == ["person", "traffic light", "a_b_c", "a_b_c 3", "行人", "_", "3"]
    assert len(names[7]) == 60
    assert len(set(names)) == 9
    assert not any(set(name) & set('/,"()\n') for name in names)


def test_a_column_names_branch_group_and_item() -> None:
    assert split_column("mean_iou") == ("", "mean_iou", "")
    assert split_column("share/box") == ("", "share", "box")
    assert split_column("one2one/by_class/share") == ("one2one", "by_class", "share")
    assert split_column("one2many.vp_criterion/by_score/0.2-0.4") == ("one2many.vp_criterion", "by_score", "0.2-0.4")


def test_loggers_get_the_last_row_without_what_is_missing_and_not_too_many_classes(tmp_path: Path) -> None:
    table = LossStats(tmp_path, 0)
    assert table.logged() == {}
    classes = {f"by_class/{number}": 0.1 for number in range(LOGGED_CLASSES - 1)}  # and one of the other branch
    table.add(1, {**COLUMNS, **classes})
    assert {f"loss_stats/{name}" for name in [*classes, "share/box"]} <= table.logged().keys()
    assert "loss_stats/mean_iou" not in table.logged()
    assert "loss_stats/epoch" not in table.logged()
    table.add(2, {**COLUMNS, **classes, "by_class/more": 0.1, "one2one/by_score/0.0-0.2": 1})
    assert {split_column(name.removeprefix("loss_stats/"))[1] for name in table.logged()} == {
        "batches",
        "share",
        "by_score",
    }
