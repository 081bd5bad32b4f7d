"""The picture of `loss_stats.csv`."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path

import matplotlib as mpl
from conftest import logged
from matplotlib import font_manager

from yolo_losses.monitor import picture
from yolo_losses.monitor.loss_stats import LossStats, plain_names
from yolo_losses.plots.style import installed_fonts


def test_the_picture_names_run_and_losses_in_the_letters_of_the_classes(tmp_path: Path) -> None:
    names = ["行人", "пешеход", "자전거"]
    folder = tmp_path / "train7"
    folder.mkdir()
    statistics = LossStats(folder, 0, "cls=slide box=siou")
    statistics.add(1, {f"by_class/{name}": 0.25 for name in plain_names(names)})
    with warnings.catch_warnings(), logged() as messages:
        warnings.simplefilter("error")
        drawn = statistics.draw()
    assert drawn is not None, messages
    figure = picture.figure(statistics.rows, "train7: cls=slide box=siou")
    assert figure.get_suptitle() == "train7: cls=slide box=siou"
    chosen = installed_fonts("".join(names))["font.family"]
    assert chosen[0] == "DejaVu Sans"
    if any("CJK" in file for file in font_manager.findSystemFonts()):
        assert any("CJK" in name for name in chosen[1:])
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a letter without a glyph
            with mpl.rc_context({"font.enable_last_resort": False}):
                figure.savefig(io.BytesIO())
    assert installed_fonts("пешеход")["font.family"] == ["DejaVu Sans"]


def test_the_picture_has_six_panels_for_each_branch(tmp_path: Path) -> None:
    own = {"cls_to_bce/value": 0.2, "cls_scale": 2.0, "positives": 9.0, "threshold": 0.4, "mean_iou": 0.5}
    own |= {f"by_class/{number}": 0.1 for number in range(10)}
    rows = [{"epoch": e, **{f"{b}/{k}": v for b in ("one2many", "one2one") for k, v in own.items()}} for e in (1, 2)]
    drawn = picture.figure(rows)
    assert len(drawn.axes) == 12
    assert [axes.get_title(loc="left") for axes in drawn.axes][6] == "one2one: terms, share of the loss"
    labels = [text.get_text() for text in drawn.axes[5].get_legend().get_texts()]
    assert labels == ["2 others", *map(str, reversed(range(8)))]
    assert (
        len(picture.figure([{"epoch": 1, "share/box": 0.25, "one2one/by_class/a": 1.0}]).axes) == 12
    )  # that row is of two branches too
    assert LossStats(tmp_path, 0).draw() is None


def test_epochs_are_whole_numbers() -> None:
    drawn = picture.figure([{"epoch": 1, "share/box": 0.25}])
    assert [tick for tick in drawn.axes[0].get_xticks() if 0.5 <= tick <= 1.5] == [1]


def test_two_more_panels_show_the_assignment_by_size_of_the_objects_that_there_are() -> None:
    own = {"without_positive/0-16": 0.2, "without_positive/16-32": 0.1, "without_positive/over 96": math.nan}
    own |= {"positives_per_object/0-16": 3.0, "positives_per_object/16-32": 9.0}
    drawn = picture.figure([{"epoch": epoch, **own} for epoch in (1, 2)])
    titles = [axes.get_title(loc="left") for axes in drawn.axes]
    assert (len(titles), titles[2], titles[6]) == (8, "objects without a positive", "positives per object")
    legend = [text.get_text() for text in drawn.axes[2].get_legend().get_texts()]
    assert legend == ["0-16 px", "16-32 px"]
    assert [line.get_ydata()[0] for line in drawn.axes[6].get_lines()] == [3.0, 9.0]
