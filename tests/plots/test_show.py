"""`yolo-losses show`: that it draws what the losses compute, every loss, and that the gallery is current."""

from __future__ import annotations

import functools
import html
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import ROOT
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import yolo_losses
from yolo_losses import plots as pictures
from yolo_losses import registry
from yolo_losses.commands import main
from yolo_losses.plots import classification
from yolo_losses.plots.style import INK
from yolo_losses.registry import LossSpec

GALLERY = ROOT / "docs" / "losses"
BUILT_IN = [spec for spec in registry.specs() if spec.built_in]
CLASS = [spec.name for spec in BUILT_IN if spec.kind == "cls"]
BOX = [spec.name for spec in BUILT_IN if spec.kind == "box" and not spec.rotated]
ROTATED = [spec.name for spec in BUILT_IN if spec.rotated]
MASK = [f"seg_{spec.name}" for spec in BUILT_IN if spec.kind == "seg"]
STATE = ("ghm", "efl", "eqfl")  # whose values depend on a batch
SMALL = ("nwd", "sdiou")  # which count pixels


@functools.cache
def drawn(name: str) -> Figure:
    return pictures.draw([name])


def panel(figure: Figure, words: str) -> Axes:
    """The panel with this heading."""
    return next(axes for axes in figure.axes if axes.get_title(loc="left") == words)


def below(figure: Figure, axes: Axes) -> Axes:
    """The panel below another."""
    left, bottom = axes.get_position().x0, axes.get_position().y0
    under = [a for a in figure.axes if a.get_position().x0 == left and a.get_position().y0 < bottom]
    return max(under, key=lambda a: a.get_position().y0)


def curve(axes: Axes, index: int = -1) -> tuple[Tensor, Tensor]:
    """The points of a curve, by default of the last one."""
    x, y = axes.lines[index].get_data()
    return torch.as_tensor(np.array(x), dtype=torch.float32), torch.as_tensor(np.array(y), dtype=torch.float32)


def shown(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["show", *map(str, words)]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["show", *map(str, words)]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    return err.strip()


# What is drawn


@pytest.mark.parametrize("spec", BUILT_IN, ids=pictures.stem)
def test_every_loss_is_drawn_with_finite_curves(spec: LossSpec) -> None:
    name = f"{spec.name}_ciou" if spec.kind == "modifier" else pictures.stem(spec)
    figure = drawn(name)
    lines = [line for axes in figure.axes for line in axes.lines]
    assert len(lines) >= 4  # loss and gradient, in two panels at least
    assert all(np.isfinite(np.asarray(line.get_ydata(), float)).all() for line in lines)
    assert name in {text.get_text() for text in figure.texts}
    title = " ".join(text.get_text() for text in figure.texts)
    assert all(f"{parameter.key}=" in title for parameter in spec.parameters)


@pytest.mark.parametrize("name", [name for name in CLASS if name not in STATE])
def test_class_curves_are_the_loss_and_its_gradient(name: str) -> None:
    loss = yolo_losses.make_cls_loss(name)
    for words, target in (("positive, t = 1", 1.0), ("negative, t = 0", 0.0)):
        top = panel(drawn(name), words)
        x, value = curve(top)
        z = x[:, None].clone().requires_grad_()
        t = torch.full_like(z, target)
        wanted = loss.elementwise(z, t, mean_iou=torch.tensor(0.5), positive_mask=t > 0)
        torch.testing.assert_close(value, wanted.detach()[:, 0])
        slope = curve(below(drawn(name), top))[1]
        torch.testing.assert_close(slope, torch.autograd.grad(wanted.sum(), z)[0][:, 0])


@pytest.mark.parametrize("name", ["bce", "focal", "vfl", "poly", "qfl"])
def test_the_gradient_is_the_slope_of_the_loss(name: str) -> None:
    """Of losses whose weight is not detached, with no help of autograd."""
    top = panel(drawn(name), "negative, t = 0")
    (x, value), (_, slope) = curve(top), curve(below(drawn(name), top))
    torch.testing.assert_close(slope[1:-1], (value[2:] - value[:-2]) / (x[2:] - x[:-2]), rtol=0, atol=2e-3)


def test_the_reference_of_class_losses_is_bce() -> None:
    x, value = curve(panel(drawn("focal"), "positive, t = 1"), 0)
    torch.testing.assert_close(value, torch.nn.functional.softplus(-x))


def test_slide_s_weight_rises_at_the_mean_iou_that_is_marked() -> None:
    axes = next(a for a in drawn("slide").axes if a.get_xlabel() == "target score t")
    scores, weight = curve(axes, 1)
    torch.testing.assert_close(weight[scores < 0.4], torch.ones(int((scores < 0.4).sum())))
    assert weight.max().item() == pytest.approx(math.exp(0.5), rel=1e-3)
    torch.testing.assert_close(weight[scores > 0.51], (1 - scores[scores > 0.51]).exp())
    assert curve(axes)[0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("name", ["efl", "eqfl"])
def test_losses_with_a_ratio_by_class_are_drawn_at_stated_ratios(name: str) -> None:
    legend = [text.get_text() for text in drawn(name).legends[0].get_texts()]
    assert legend == ["bce", f"{name}, q = 1", f"{name}, q = 0.5", f"{name}, q = 0"]
    loss = yolo_losses.make_cls_loss(name)
    top = panel(drawn(name), "negative, t = 0")
    for index, ratio in enumerate((1.0, 0.5, 0.0), start=1):
        x, value = curve(top, index)
        wanted = loss.elementwise(x[:, None], torch.zeros(len(x), 1), pos_neg_ratio=torch.tensor([ratio]))
        torch.testing.assert_close(value, wanted[:, 0])


def test_ghm_is_drawn_at_the_density_of_the_batch_in_its_caption() -> None:
    x, value = curve(panel(drawn("ghm"), "negative, t = 0"))
    logits, targets = classification.batch()
    shares = torch.histc((logits.sigmoid() - targets).abs(), 10, 0, 1) / len(logits)
    share = shares[(x.sigmoid() * 10).long().clamp_max(9)]
    at = ((x.sigmoid() * 10) % 1 - 0.5).abs() < 0.45  # away from the bounds of the bins
    torch.testing.assert_close(value[at], (torch.nn.functional.softplus(x) / share / 10)[at], rtol=1e-3, atol=1e-6)
    caption = " ".join(text.get_text() for text in drawn("ghm").texts)
    assert "9900 negatives with logits N(-4, 1.5²)" in caption
    assert "100 positives with N(0, 1.5²)" in caption


@pytest.mark.parametrize("name", [*BOX, "inner_siou", "focaler_inner_ciou", "wise_ciou", "focal_eiou"])
def test_box_curves_are_the_loss_at_the_iou_of_a_shifted_box(name: str) -> None:
    overlap, value = curve(panel(drawn(name), "shifted along its diagonal"))
    side = torch.tensor((9.0, 6.0) if name in SMALL else (60.0, 40.0))
    by = torch.linspace(0.001, 0.999, len(overlap))[:, None]
    target = torch.cat((320 - side / 2, 320 + side / 2)).repeat(len(overlap), 1)
    pred = target + torch.cat((by * side, by * side), 1)
    both = (1 - by[:, 0]) ** 2
    torch.testing.assert_close(overlap, both / (2 - both), rtol=1e-4, atol=1e-5)
    supplied: dict[str, Any] = {"image_wh": torch.tensor((640.0, 640.0)), "mean_loss": torch.tensor(0.5)}
    wanted = yolo_losses.make_box_loss(name)(pred, target, **supplied)
    torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)


def test_the_iou_loss_of_a_narrower_box_falls_by_its_width() -> None:
    axes = panel(drawn("iou"), "width scaled down")
    overlap, value = curve(axes)
    torch.testing.assert_close(value, 1 - overlap)
    # By centre and width, in units of the object's sides, with the height at its kink aside.
    assert curve(below(drawn("iou"), axes))[1].min() >= 1 - 1e-3


def test_a_modified_loss_is_drawn_against_its_base() -> None:
    assert [text.get_text() for text in drawn("inner_siou").legends[0].get_texts()] == ["siou", "inner_siou"]
    reference = curve(panel(drawn("inner_siou"), "shifted along its diagonal"), 0)
    torch.testing.assert_close(reference, curve(panel(drawn("siou"), "shifted along its diagonal")))


@pytest.mark.parametrize("name", ROTATED)
def test_rotated_curves_are_the_loss_of_a_turned_box(name: str) -> None:
    loss = yolo_losses.make_box_loss(name)
    axes = panel(drawn(name), "turned")
    for index, ratio in zip((-3, -2, -1), (1.2, 3.0, 8.0), strict=True):
        degrees, value = curve(axes, index)
        width, height = 32 * ratio**0.5, 32 / ratio**0.5
        target = torch.tensor((0.0, 0.0, width, height, 0.0)).repeat(len(degrees), 1)
        pred = torch.cat((target[:, :4], degrees.deg2rad()[:, None]), 1)
        torch.testing.assert_close(value, loss(pred, target), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MASK)
def test_mask_curves_are_the_loss_over_the_logit_of_the_object_s_pixels(name: str) -> None:
    spec = registry.find("seg", name.removeprefix("seg_"))
    assert spec is not None
    x, value = curve(panel(drawn(name), "object's pixels"))
    grid = torch.arange(32) - 15.5
    target = (grid.square() + grid[:, None].square() <= 9**2).float().repeat(len(x), 1, 1)
    logits = torch.where(target > 0, x[:, None, None], -4.0)
    torch.testing.assert_close(value, spec.build(reduction="none")(logits, target))


@pytest.mark.parametrize("name", [name for name in CLASS if name not in STATE])
def test_class_losses_are_drawn_against_p_too(name: str) -> None:
    figure = drawn(name)
    for words, target in (("positive, by p", 1.0), ("negative, by p", 0.0)):
        p, value = curve(panel(figure, words))
        z, by_logit = curve(panel(figure, f"{words.partition(',')[0]}, t = {target:g}"))
        torch.testing.assert_close(p, z.sigmoid())
        torch.testing.assert_close(value, by_logit)


@pytest.mark.parametrize("spec", BUILT_IN, ids=pictures.stem)
def test_a_column_has_two_panels_and_the_curves_of_the_sheet(spec: LossSpec) -> None:
    name = f"{spec.name}_ciou" if spec.kind == "modifier" else pictures.stem(spec)
    figure = pictures.draw([name], column=True)
    assert len(figure.axes) == 2
    assert not figure.texts
    assert figure.get_size_inches()[1] < 0.6 * figure.get_size_inches()[0]
    curves = [curve(axes, i)[1] for axes in drawn(name).axes for i in range(len(axes.lines))]
    for axes in figure.axes:
        last = next(i for i in reversed(range(len(axes.lines))) if len(axes.lines[i].get_xdata()) > 2)
        value = curve(axes, last)[1]
        assert any(value.shape == other.shape and torch.allclose(value.abs(), other.abs()) for other in curves)


def test_the_four_boxes_of_a_descent_have_a_legend() -> None:
    figure = drawn("siou")
    written = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert written[2:] == [
        *("apart", "apart and too high", "too large", "too small"),
        *("at the start", "object, and iou's IoU"),
    ]
    colours = {line.get_color() for line in figure.legends[1].get_lines()[:4]}
    boxes = panel(figure, "descent of four boxes")
    assert colours == {line.get_color() for line in boxes.lines}


def test_the_title_says_the_parameters_of_every_loss() -> None:
    texts = [text.get_text() for text in pictures.draw(["focal", "poly"], {"focal_gamma": ["1", "2"]}).texts]
    assert texts[1:3] == ["focal: focal_alpha=0.25", "poly: poly_epsilon=1 poly_gamma=2 poly_alpha=0.25"]


def test_several_losses_and_values_are_curves_of_one_picture() -> None:
    figure = pictures.draw(["bce", "focal", "vfl"], {"focal_gamma": ["1.5", "3"]})
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["bce", "focal gamma=1.5", "focal gamma=3", "vfl"]
    x, value = curve(panel(figure, "positive, t = 1"), 2)
    wanted = yolo_losses.functional.focal_loss(x, torch.ones_like(x), gamma=3.0)
    torch.testing.assert_close(value, wanted)


@pytest.mark.parametrize("names", [BOX[:3], ROTATED[:3], MASK], ids=["box", "rotated", "mask"])
def test_losses_of_the_other_kinds_are_compared_too(names: list[str]) -> None:
    legend = [text.get_text() for text in pictures.draw(names).legends[0].get_texts()]
    assert legend[0] in ("iou", "rotated_iou", "seg_bce")
    assert legend[1:] == [name for name in names if name != legend[0]]


@pytest.fixture
def third_party() -> Iterator[str]:
    before = registry.snapshot()

    @yolo_losses.register_cls_loss("third")
    def third_loss(logits: Tensor, targets: Tensor, scale: float = 2.0) -> Tensor:
        return scale * (logits.sigmoid() - targets) ** 2

    yield "third"
    registry.restore(before)


def test_a_new_loss_is_drawn_as_soon_as_it_is_registered(third_party: str) -> None:
    figure = pictures.draw([third_party], {"third_scale": ["1", "3"]})
    x, value = curve(panel(figure, "negative, t = 0"))
    torch.testing.assert_close(value, 3 * x.sigmoid() ** 2)


# Files


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_file_is_the_same_each_time(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = tmp_path / f"new/one.{suffix}", tmp_path / f"other.{suffix}"
    for path in (one, other):
        assert shown(capsys, "focal", "--out", path) == f"{path}\n"
    assert one.read_bytes() == other.read_bytes()
    assert one.stat().st_size > 10_000


def test_an_svg_is_for_light_and_dark_pages_and_its_text_is_text(tmp_path: Path) -> None:
    pictures.save(drawn("focal"), tmp_path / "focal.svg", "Focal < loss")
    svg = (tmp_path / "focal.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(svg)
    texts = {"".join(element.itertext()) for element in root.iter() if element.tag.endswith("}text")}
    assert {"focal", "focal_gamma=1.5 focal_alpha=0.25", "logit z"} <= texts
    assert "<title>Focal &lt; loss</title>" in svg
    assert "prefers-color-scheme:dark" in svg
    assert INK not in svg
    assert not re.search(r"(fill|stroke): (#000000|#ffffff|black)", svg)


def test_a_short_path_goes_through_the_same_points() -> None:
    path = "M 30.961234 10 \nL 41.2 11.5 \nL 41.2 9.999 \nz\nM 1e-3 2 \nL -3 -4.25 \n"
    assert pictures._short_path(path) == "M30.96 10l10.24 1.5 0-1.5zM0 2l-3-6.25"


def numbers(svg: str) -> tuple[str, list[float]]:
    pattern = r"-?\d+\.?\d*(?:e-?\d+)?"
    return re.sub(pattern, "#", svg), [float(n) for n in re.findall(pattern, svg)]


@pytest.mark.parametrize("spec", BUILT_IN, ids=pictures.stem)
def test_the_gallery_has_every_loss_with_its_current_parameters(spec: LossSpec) -> None:
    path = GALLERY / f"{pictures.stem(spec)}.svg"
    svg = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 64 * 1024
    ElementTree.fromstring(svg)
    name = f"{spec.name}_ciou" if spec.kind == "modifier" else pictures.stem(spec)
    written = {html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)<", svg)}
    assert {text.get_text() for text in drawn(name).texts} <= written


def test_the_gallery_has_no_other_picture() -> None:
    wanted = {f"{pictures.stem(spec)}{column}" for spec in BUILT_IN for column in ("", "-column")}
    assert {path.stem for path in GALLERY.glob("*.svg")} == wanted


@pytest.mark.parametrize("stem", ["focal", "slide", "gwd", "seg_dice", "inner"])
def test_the_gallery_is_current(stem: str, tmp_path: Path) -> None:
    spec = next(spec for spec in BUILT_IN if pictures.stem(spec) == stem)
    there = (GALLERY / f"{stem}.svg").read_text(encoding="utf-8")
    if f"<!-- matplotlib {mpl.__version__} -->" not in there:
        pytest.skip("drawn by another version of matplotlib")
    pictures.save(drawn("inner_ciou" if stem == "inner" else stem), tmp_path / "new.svg", spec.summary)
    old, new = numbers(there), numbers((tmp_path / "new.svg").read_text(encoding="utf-8"))
    assert old[0] == new[0], f"{stem}.svg is not current: run yolo-losses show --all docs/losses"
    assert np.allclose(old[1], new[1], rtol=0, atol=0.03)  # rounding differs between machines


def test_all_writes_a_picture_of_each_registered_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = registry.snapshot()
    few = {("cls", "bce"), ("cls", "focal"), ("box", "iou"), ("box", "ciou"), ("modifier", "focal"), ("seg", "bce")}
    try:
        registry.restore({key: spec for key, spec in before.items() if key in few})
        assert shown(capsys, "--all", tmp_path) == f"12 pictures in {tmp_path}\n"
    finally:
        registry.restore(before)
    stems = ["bce", "ciou", "focal", "focal_iou", "iou", "seg_bce"]
    assert {path.name for path in tmp_path.iterdir()} == {f"{s}{c}.svg" for s in stems for c in ("", "-column")}


# What is refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["slid"], "'slid' is not a loss. Did you mean 'slide'?"),
        (["inner_sio"], "Did you mean 'inner_siou'?"),
        (["inner_gwd"], "the modifier 'inner_' applies to"),
        (["focal", "focal_gama=3"], "'focal_gama' is not a parameter of focal; allowed are: focal_gamma, focal_alpha."),
        (["focal", "siou"], "one picture shows losses of one kind, not 'focal' (class) and 'siou' (box)"),
        (["siou", "gwd"], "not 'siou' (box) and 'gwd' (rotated)"),
        (["focal", "focal_gamma=-1"], "'focal_gamma=-1' is not valid: allowed is a number >= 0 (default 1.5)"),
        (["focal", "focal_gamma="], "'focal_gamma=' is not valid"),
        ([], "no loss is named: try yolo-losses show slide"),
        (["focal", "--all", "x"], "'--all' draws every loss"),
        (["focal", "--out", "x.gif"], "'--out x.gif' is not valid: allowed are names that end in .png, .svg, .pdf"),
        (["focal", "--out", "/dev/null/x.png"], "cannot be written"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, *words)


@pytest.mark.parametrize("chosen", [False, True], ids=["no backend", "a backend that does not load"])
def test_without_a_display_one_line_says_to_write_a_file(
    chosen: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise ImportError("Cannot load backend 'TkAgg' which requires the 'tk' interactive framework")

    if chosen:
        monkeypatch.setattr(pictures, "FILE_BACKENDS", ())
        monkeypatch.setattr(plt, "figure", fail)
    message = refused(capsys, "slide")
    assert message == "no window can be opened here: write a file with --out, as --out slide.png"


def test_with_a_display_the_picture_is_shown_in_a_window(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(pictures, "FILE_BACKENDS", ())
    monkeypatch.setattr(plt, "show", lambda: opened.append(plt.gcf()))
    assert shown(capsys, "focal", "vfl") == ""
    (figure,) = opened
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["bce", "focal", "vfl"]
    plt.close(figure)
