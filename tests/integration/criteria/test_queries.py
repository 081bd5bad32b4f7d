"""RT-DETR: the chosen losses in its criterion, on the pairs that it matches itself."""

from __future__ import annotations

import copy
import csv
import functools
import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TINY, logged, made_up_batch, pairs, start_without_plugin, yolo
from torch import Tensor
from ultralytics import RTDETR
from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.models.utils.loss import RTDETRDetectionLoss
from ultralytics.nn.tasks import RTDETRDetectionModel

from yolo_losses import equip, functional, make_box_loss, make_cls_loss
from yolo_losses.integration.criteria.parts import Part
from yolo_losses.integration.state import STATE_FILE

CLASSES = 3
MODEL = """
nc: 3
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]] # P3/8
  - [-1, 1, Conv, [32, 3, 2]] # P4/16
  - [-1, 1, Conv, [32, 3, 2]] # P5/32
head:
  - [-1, 1, AIFI, [32, 2]]
  - [[2, 3, 5], 1, RTDETRDecoder, [nc, 32, 20, 4, 4, 3, 64]]
"""
SIZE = 64
TRAIN = {**TINY, "optimizer": "AdamW", "lr0": 0.0005}


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rtdetr") / "rtdetr-tiny.yaml"
    path.write_text(MODEL, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def given(model_file: Path) -> Callable[..., tuple[list[Tensor], Callable[[Any], dict[str, Tensor]]]]:
    """Return what makes leaves of a real model's outputs, and a call of a criterion on them; denoising included."""

    @functools.cache
    def outputs(each: int) -> tuple[Any, Any, dict[str, Any]]:
        torch.manual_seed(0)
        model = RTDETRDetectionModel(str(model_file), nc=CLASSES, verbose=False).train()
        seen: list[Any] = []
        stock = stock_criterion()

        def listen(*args: Any, **kwargs: Any) -> Any:
            seen.append((args, kwargs))
            return stock(*args, **kwargs)

        model.__dict__["criterion"] = listen
        batch = made_up_batch("v8", each=each, classes=CLASSES)
        batch["img"] = torch.rand_like(batch["img"])
        model.loss(batch)
        (outputs, targets), kwargs = seen[0]
        return outputs, targets, kwargs

    def make(each: int = 3) -> tuple[list[Tensor], Callable[[Any], dict[str, Tensor]]]:
        preds, targets, kwargs = outputs(each)
        generator = torch.Generator().manual_seed(3)

        def leaf(value: Tensor, box: bool) -> Tensor:
            noise = torch.randn(value.shape, generator=generator)
            value = value.detach().clone()
            value = (value + 0.02 * noise).clamp(0.01, 0.99) if box else value + 2 * noise
            return value.requires_grad_()

        boxes, scores = leaf(preds[0], True), leaf(preds[1], False)
        leaves, more = [boxes, scores], {**kwargs}
        if kwargs.get("dn_meta") is not None:
            more |= {"dn_bboxes": leaf(kwargs["dn_bboxes"], True), "dn_scores": leaf(kwargs["dn_scores"], False)}
            leaves += [more["dn_bboxes"], more["dn_scores"]]
        return leaves, lambda criterion: criterion((boxes, scores), targets, **more)

    return make


Given = Callable[..., tuple[list[Tensor], Callable[[Any], dict[str, Tensor]]]]


def stock_criterion() -> Any:
    return RTDETRDetectionLoss(nc=CLASSES, use_vfl=True)


def equipped(image_size: float | None = None, **keys: Any) -> Any:
    criterion = stock_criterion()
    criterion.branches = equip(criterion, keys, image_size=image_size)
    return criterion


def gradients(terms: dict[str, Tensor], leaves: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(sum(terms.values()), leaves, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]


def recorded(call: Callable[[Any], dict[str, Tensor]]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return what a stock criterion hands its class and its box term, layer by layer."""
    criterion = stock_criterion()
    calls: tuple[list[Any], list[Any]] = ([], [])
    for name, seen in zip(("_get_loss_class", "_get_loss_bbox"), calls, strict=True):

        def listen(stock: Any, seen: list[Any], *args: Any) -> Any:
            seen.append(args)
            return stock(*args)

        setattr(criterion, name, functools.partial(listen, getattr(criterion, name), seen))
    call(criterion)
    return calls


def totals(values: list[Tensor], postfixes: list[str], kind: str) -> dict[str, Tensor]:
    """Return layers' values under the names of the criterion's terms: the main layer, the others summed."""
    terms: dict[str, Tensor] = {}
    for value, postfix in zip(values, postfixes, strict=True):
        name = f"loss_{kind}{postfix}"
        if name in terms:
            name = f"loss_{kind}_aux{postfix}"
        terms[name] = terms.get(name, 0) + value
    return terms


def test_varifocal_with_stock_parameters_is_the_stock_class_term(given: Given) -> None:
    leaves, call = given()
    stock = stock_criterion()
    own = {"vfl_gamma": getattr(stock.vfl, "gamma", 2.0), "vfl_alpha": getattr(stock.vfl, "alpha", 0.75)}
    if hasattr(stock.vfl, "gamma"):
        assert own == {"vfl_gamma": 1.5, "vfl_alpha": 0.25}
    expected = call(stock)
    for detach in (False, True):
        terms = call(equipped(cls_loss="vfl", vfl_detach_weight=detach, **own))
        assert terms.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(terms[name], value, rtol=1e-5, atol=1e-6)
        same = [
            torch.allclose(a, b, rtol=1e-4, atol=1e-6)
            for a, b in zip(gradients(terms, leaves), gradients(expected, leaves), strict=True)
        ]
        assert all(same) is not detach  # stock's gradient flows through the weight


def test_giou_is_the_stock_box_term(given: Given) -> None:
    leaves, call = given()
    expected, terms = call(stock_criterion()), call(equipped(box_loss="giou"))
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-5, atol=1e-6)
    for a, b in zip(gradients(terms, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["bce", "focal", "vfl", "qfl", "mal", "poly", "asl"])
def test_class_term_of_every_layer_is_the_loss_on_matched_iou_over_the_objects(given: Given, name: str) -> None:
    _, call = given()
    expected = []
    for scores, labels, iou, count, _ in recorded(call)[0]:
        one_hot = torch.nn.functional.one_hot(labels, CLASSES + 1)[..., :-1]
        target = iou.unsqueeze(-1) * one_hot
        extra = {"positive_mask": one_hot > 0} if name in ("vfl", "mal") else {}
        loss = make_cls_loss(name).elementwise(scores.double(), target.double(), **extra)
        expected.append(0.5 * loss.sum().float() / count)
    postfixes = [args[4] for args in recorded(call)[0]]
    stock, terms = call(stock_criterion()), call(equipped(cls_loss=name, cls_scale=0.5))
    for term, value in {**stock, **totals(expected, postfixes, "class")}.items():
        torch.testing.assert_close(terms[term], value, rtol=1e-5, atol=1e-6)
    assert {"loss_class", "loss_class_aux", "loss_class_dn", "loss_class_aux_dn"} <= terms.keys()


@pytest.mark.parametrize(
    "name", ["iou", "ciou", "eiou", "siou", "mpdiou", "shape_iou", "piou2", "nwd", "inner_ciou", "focal_eiou"]
)
def test_box_term_of_every_layer_is_the_loss_of_the_matched_pairs(given: Given, name: str) -> None:
    _, call = given()
    calls = recorded(call)[1]
    expected = []
    loss = make_box_loss(name)
    for pred, target, _ in calls:
        corners = [torch.cat((b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2), 1) for b in (pred, target)]
        if name == "nwd":
            corners = [640 * box for box in corners]
        expected.append(2 * loss.pairs(*corners, image_wh=(1, 1)).sum() / len(target))
    stock, terms = call(stock_criterion()), call(equipped(box_loss=name, image_size=640))
    # nwd's CIoU half is taken in parts of the image, where eps weighs a little more.
    rtol = 1e-3 if name == "nwd" else 1e-5
    for term, value in {**stock, **totals(expected, [args[2] for args in calls], "giou")}.items():
        torch.testing.assert_close(terms[term], value, rtol=rtol, atol=1e-6)


def test_stock_class_term_can_be_scaled(given: Given) -> None:
    _, call = given()
    expected, terms = call(stock_criterion()), call(equipped(cls_scale=2.0))
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value * (2 if "class" in name else 1))


@pytest.mark.parametrize("each", [3, 0], ids=["objects", "no objects"])
@pytest.mark.parametrize("name", ["stock", "bce", "focal", "vfl", "qfl", "mal", "poly", "asl"])
def test_class_weights_multiply_the_loss_of_each_class(given: Given, name: str, each: int) -> None:
    """In value and gradient; a class's own term is that of a criterion whose other classes have next to no weight."""
    leaves, call = given(each)
    weights = [0.5, 1.0, 3.0]

    def of(weights: list[float]) -> tuple[dict[str, Tensor], list[Tensor]]:
        terms = call(equipped(cls_loss=name, cls_weights=weights, cls_scale=2.0))
        return {k: v for k, v in terms.items() if "class" in k}, gradients(terms, leaves)

    tiny = 1e-12
    alone = [of([1.0 if i == k else tiny for i in range(CLASSES)])[0] for k in range(CLASSES)]
    terms, slopes = of(weights)
    for term, value in terms.items():
        expected = sum(w * own[term] for w, own in zip(weights, alone, strict=True))
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)
    plain_terms = call(equipped(cls_loss=name, cls_scale=2.0))
    ones, slopes_of_ones = of([1.0, 1.0, 1.0])
    for term, value in ones.items():
        torch.testing.assert_close(value, plain_terms[term], rtol=1e-5, atol=1e-7)
    for leaf, weighted, plain, same in zip(leaves, slopes, gradients(plain_terms, leaves), slopes_of_ones, strict=True):
        torch.testing.assert_close(same, plain, rtol=1e-4, atol=1e-7)
        if leaf.shape[-1] == CLASSES:
            plain = plain * torch.tensor(weights)
        torch.testing.assert_close(weighted, plain, rtol=1e-4, atol=1e-7)


def test_class_weights_are_refused_where_they_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"^'cls_weights=\[1.0, 2.0\]' is not valid: [^\n]*classes, 3$"):
        equipped(cls_weights=[1, 2])
    with pytest.raises(ValueError, match=r"^'cls_weights=balanced' needs the labels of the training set"):
        equipped(cls_weights="balanced")


def test_matched_query_without_overlap_stays_positive() -> None:
    criterion = equipped(cls_loss="mal")
    logits = torch.zeros(1, 4, CLASSES, requires_grad=True)
    labels = torch.tensor([[0, CLASSES, CLASSES, CLASSES]])
    term = criterion._get_loss_class(logits, labels, torch.zeros(1, 4), 1)["loss_class"]
    negative = 0.5**1.5 * math.log(2)
    assert float(term.detach()) == pytest.approx(math.log(2) + 11 * negative, rel=1e-5)


@pytest.mark.parametrize(
    "keys", [{"cls_loss": "mal", "box_loss": "wiou"}, {"cls_loss": "focal"}, {"box_loss": "inner_siou"}]
)
def test_batch_without_objects(given: Given, keys: dict[str, Any]) -> None:
    leaves, call = given(0)
    criterion = equipped(**keys)
    terms = call(criterion)
    assert all(torch.isfinite(value) for value in terms.values())
    assert terms["loss_giou"].item() == 0
    for gradient in gradients(terms, leaves):
        assert torch.isfinite(gradient).all()
    if "box_loss" in keys and "cls_loss" in keys:
        assert float(criterion.branches[""].box.mean_loss) == 1


def test_half_precision_and_extreme_logits(given: Given) -> None:
    leaves, call = given()
    with torch.no_grad():
        leaves[1][..., 0, :] = 100
        leaves[1][..., 1, :] = -100
    for name in ("bce", "focal", "vfl", "qfl", "mal"):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = call(equipped(cls_loss=name, box_loss="siou"))
        assert all(torch.isfinite(value) for value in terms.values())
        assert all(torch.isfinite(gradient).all() for gradient in gradients(terms, leaves))


def test_a_first_batch_that_overflowed_is_no_proof_and_the_next_one_is_compared(given: Given) -> None:
    model = equipped(cls_loss="focal", box_loss="siou")
    branch = model.branches[""]
    leaves, call = given()
    with torch.no_grad():
        leaves[1][-1, 0, 0, 0] = torch.inf
    call(model)
    assert not branch.ratios
    assert not branch.proven
    leaves, call = given()
    gradients(call(model), leaves)
    assert branch.proven


def test_wiou_state_moves_once_a_training_step_by_the_last_layer(given: Given) -> None:
    _, call = given()
    pred, target, _ = recorded(call)[1][0]
    corners = [torch.cat((b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2), 1) for b in (pred, target)]
    mean = float(functional.iou_loss(*corners).mean().detach())
    model = equipped(box_loss="wiou", cls_loss="vfl")
    ema = stock_criterion()
    equip(ema, {"box_loss": "wiou", "cls_loss": "vfl"}, model.branches)
    state = model.branches[""].box
    call(model)
    first = float(state.mean_loss)
    assert first == pytest.approx(0.99 + 0.01 * mean, rel=1e-4)
    with torch.no_grad():
        call(ema)
    assert float(state.mean_loss) == first
    call(copy.deepcopy(model))
    assert float(state.mean_loss) == pytest.approx(0.99 * first + 0.01 * mean, rel=1e-4)
    alone = equipped(box_loss="wiou")
    call(alone)
    assert float(alone.branches[""].box.mean_loss) == pytest.approx(first, rel=1e-4)


def test_losses_are_no_part_of_the_model_s_weights() -> None:
    criterion = equipped(box_loss="wiou", cls_loss="mal")
    assert not criterion.state_dict()
    assert not list(criterion.parameters())


def test_deep_copy_is_equipped_and_its_own(given: Given) -> None:
    _, call = given()
    criterion = equipped(cls_loss="mal", box_loss="siou")
    twin = copy.deepcopy(criterion)
    criterion.loss_gain["giou"] = 20
    torch.testing.assert_close(call(criterion)["loss_giou"], 10 * call(twin)["loss_giou"])
    assert call(twin)["loss_class"] == call(criterion)["loss_class"]
    assert twin.branches[""] is criterion.branches[""]


@pytest.mark.slow
def test_pickle_is_stock_and_loads_without_this_package(given: Given, tmp_path: Path) -> None:
    _, call = given()
    expected = call(stock_criterion())
    criterion = equipped(cls_loss="mal", box_loss="wiou")
    del criterion.branches
    path = tmp_path / "criterion.pt"
    torch.save(criterion, path)
    pickled = io.BytesIO(pickle.dumps(criterion))
    loaded = pickle.load(pickled)
    assert not [part for part in vars(loaded).values() if isinstance(part, Part)]
    for again in (loaded, copy.deepcopy(loaded)):
        for name, value in call(again).items():
            assert torch.equal(value, expected[name])
    equip(loaded, {"cls_loss": "mal"})
    assert not torch.equal(call(loaded)["loss_class"], expected["loss_class"])
    code = "import torch; print(type(torch.load(sys.argv[1], weights_only=False).vfl).__module__)"
    assert "ultralytics.utils.loss" in start_without_plugin(code, str(path))().check().text


def test_default_keys_put_the_stock_parts_back(given: Given) -> None:
    _, call = given()
    criterion = equipped(cls_loss="mal", box_loss="ciou")
    assert equip(criterion, {}) == {}
    assert "forward" not in vars(criterion)
    expected = call(stock_criterion())
    for name, value in call(criterion).items():
        assert torch.equal(value, expected[name])
    assert [name for name, _ in criterion.named_children()] == [n for n, _ in stock_criterion().named_children()]


REFUSED = [
    ({"cls_loss": "slide"}, "'cls_loss=slide'", "bce, "),
    ({"cls_loss": "emaslide"}, "'cls_loss=ema_slide'", "mal"),
    ({"cls_loss": "ghm"}, "'cls_loss=ghm'", "qfl"),
    ({"cls_loss": "mal", "cls_target": "tal"}, "'cls_target=tal'", "allowed are auto, iou"),
    ({"cls_target": "iou"}, "'cls_target=iou'", "change nothing"),
    ({"dfl_loss": "dfl"}, "'dfl_loss=dfl'", "allowed is stock"),
    ({"dfl_loss": "off"}, "'dfl_loss=off'", "allowed is stock"),
    ({"cls_loss": "mal", "loss_branches": "one2one"}, "'loss_branches=one2one'", "allowed is both"),
    ({"box_loss": "probiou"}, "'box_loss=probiou'", "axis-aligned"),
]


@pytest.mark.parametrize(("keys", "names", "allowed"), REFUSED)
def test_what_makes_no_sense_is_refused_by_name(keys: dict[str, Any], names: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=r"^'") as caught:
        equip(stock_criterion(), keys)
    message = str(caught.value)
    assert message.startswith(names)
    assert allowed in message
    assert "\n" not in message


@pytest.mark.parametrize(("keys", "names", "allowed"), REFUSED)
def test_trainer_refuses_before_anything_is_written(
    tmp_path: Path, data: Path, model_file: Path, keys: dict[str, Any], names: str, allowed: str
) -> None:
    overrides = {**TRAIN, **keys, "model": str(model_file), "data": str(data), "project": str(tmp_path / "runs")}
    with pytest.raises(ValueError, match=r"^'") as caught:
        RTDETRTrainer(overrides=overrides)
    assert str(caught.value).startswith(names)
    assert allowed in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_loss_in_pixels_needs_the_image_s_size() -> None:
    with pytest.raises(ValueError, match=r"^'box_loss=inner_nwd' counts in pixels.*image_size"):
        equip(stock_criterion(), {"box_loss": "inner_nwd"})


def test_missing_part_is_named() -> None:
    criterion = stock_criterion()
    del criterion.vfl
    with pytest.raises(RuntimeError, match="RTDETRDetectionLoss has no 'vfl'"):
        equip(criterion, {"cls_loss": "mal"})


def test_part_that_is_never_called_is_an_error(given: Given) -> None:
    _, call = given()
    criterion = equipped(cls_loss="mal")
    criterion._get_loss_class = lambda scores, labels, iou, count, postfix="": {f"loss_class{postfix}": scores.sum()}
    with pytest.raises(
        RuntimeError, match="RTDETRDetectionLoss computed its class term without the part that holds cls_loss=mal"
    ):
        call(criterion)


@pytest.mark.slow
def test_stock_command_trains_it(tmp_path: Path, data: Path, model_file: Path) -> None:
    keys = {**TRAIN, "epochs": 2, "cls_loss": "mal", "box_loss": "inner_ciou"}
    result = yolo("train", *pairs(model=model_file, data=data, project=tmp_path, name="run", **keys)).check()
    (started,) = result.saying("equipped for training and validation")
    for words in ("cls_loss=mal", "gamma=1.5", "target: IoU", "box_loss=inner_ciou"):
        assert words in started
    (ran,) = result.saying("ran in the first batch")
    for words in ("with objects: class, box;", "times the stock loss's", "giou_loss"):
        assert words in ran
    rows = list(csv.DictReader((tmp_path / "run" / "results.csv").open(encoding="utf-8")))
    rows = [{key.strip(): float(value) for key, value in row.items()} for row in rows]
    assert len(rows) == 2
    for row in rows:
        for term in ("giou_loss", "cls_loss", "l1_loss"):
            assert row[f"train/{term}"] > 0
            assert row[f"val/{term}"] > 0
            assert math.isfinite(row[f"train/{term}"] + row[f"val/{term}"])
    assert "cls_loss: mal" in (tmp_path / "run" / "args.yaml").read_text(encoding="utf-8")
    code = "from ultralytics import RTDETR; import torch; print(RTDETR(sys.argv[1]).model.nc)"
    start_without_plugin(code, str(tmp_path / "run" / "weights" / "best.pt"))().check()


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{"cls_loss": "focal", "box_loss": "nwd"}, {"cls_scale": 0.5}])
def test_python_trains_it(tmp_path: Path, data: Path, model_file: Path, keys: dict[str, Any]) -> None:
    with logged() as lines:
        RTDETR(str(model_file)).train(data=str(data), project=str(tmp_path), name="run", **TRAIN, **keys)
    assert len([line for line in lines if "ran in the first batch" in line]) == 1


@pytest.mark.slow
def test_resumed_run_takes_up_the_state(tmp_path: Path, data: Path, model_file: Path) -> None:
    def stop(trainer: Any) -> None:
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    model = RTDETR(str(model_file))
    model.add_callback("on_train_epoch_start", stop)
    with pytest.raises(KeyboardInterrupt):
        model.train(data=str(data), project=str(tmp_path), name="run", **{**TRAIN, "epochs": 2}, box_loss="wiou")
    weights = tmp_path / "run" / "weights"
    saved = torch.load(weights / STATE_FILE, weights_only=True)
    code = "import torch; torch.load(sys.argv[1], weights_only=False)"
    start_without_plugin(code, str(weights / "last.pt"))().check()
    with logged() as lines:
        resumed = RTDETR(str(weights / "last.pt"))
        resumed.train(resume=True)
    assert [line for line in lines if "state is that of epoch 1" in line]
    assert list(saved["state"]) == ["/box"]


@pytest.mark.parametrize("engine", ["trainer", "validator"])
def test_pixels_are_those_of_the_images_that_an_engine_prepares(engine: str) -> None:
    from yolo_losses.integration.run import _follow_image_size

    def prepare(batch: Any) -> Any:
        return {"img": batch["img"].float()}

    trainer = SimpleNamespace(preprocess_batch=prepare, validator=SimpleNamespace(preprocess=prepare))
    branch = SimpleNamespace(image_size=640.0)
    _follow_image_size(trainer, branch)
    preprocess = trainer.preprocess_batch if engine == "trainer" else trainer.validator.preprocess
    for size in (320, 480):
        assert preprocess({"img": torch.zeros(1, 3, size, size)})["img"].shape[-1] == size
        assert branch.image_size == size


@pytest.mark.slow
def test_pixels_are_those_of_each_batch_in_multi_scale_training(tmp_path: Path, data: Path, model_file: Path) -> None:
    model, sizes = RTDETR(str(model_file)), []

    def look(trainer: Any) -> None:
        sizes.append((float(trainer.yolo_losses_run.branches[""].image_size), trainer.size_of_batch))

    def remember(trainer: Any) -> None:
        preprocess = trainer.preprocess_batch

        def and_remember(batch: Any) -> Any:
            batch = preprocess(batch)
            trainer.size_of_batch = batch["img"].shape[-1]
            return batch

        trainer.preprocess_batch = and_remember

    model.add_callback("on_train_start", remember)
    model.add_callback("on_train_batch_end", look)
    keys = {**TRAIN, "epochs": 4, "imgsz": 128, "multi_scale": 0.5, "box_loss": "nwd", "val": False}
    model.train(data=str(data), project=str(tmp_path), **keys)
    assert all(seen == of_batch for seen, of_batch in sizes)
    assert len({size for size, _ in sizes}) > 1


# The L1 term


@pytest.mark.parametrize("box", ["stock", "giou"])
def test_l1_is_the_stock_term(given: Given, box: str) -> None:
    leaves, call = given()
    expected, terms = call(stock_criterion()), call(equipped(l1_loss="l1", box_loss=box))
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-6, atol=1e-6)
    for a, b in zip(gradients(terms, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4 if box == "giou" else 1e-6, atol=1e-6)


@pytest.mark.parametrize("loss", ["smooth_l1", "off"])
def test_l1_term_of_every_layer_is_the_sum_over_the_sides_and_the_mean_over_the_pairs(given: Given, loss: str) -> None:
    _, call = given()
    calls = recorded(call)[1]
    smooth = functools.partial(torch.nn.functional.smooth_l1_loss, reduction="sum", beta=0.05)
    expected = [5 * smooth(pred, target) / len(target) * (loss != "off") for pred, target, _ in calls]
    keys = {"l1_smooth_l1_beta": 0.05} if loss == "smooth_l1" else {}
    model = equipped(l1_loss=loss, **keys)
    stock, terms = call(stock_criterion()), call(model)
    for term, value in {**stock, **totals(expected, [args[2] for args in calls], "bbox")}.items():
        torch.testing.assert_close(terms[term], value, rtol=1e-5, atol=1e-6)
    assert model.branches[""].expected == ("l1",)


@pytest.mark.parametrize("loss", ["smooth_l1", "off"])
def test_l1_term_without_objects_and_in_half_precision(given: Given, loss: str) -> None:
    for each in (0, 3):
        leaves, call = given(each)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = call(equipped(l1_loss=loss))
        assert all(torch.isfinite(value) for value in terms.values())
        assert all(torch.isfinite(gradient).all() for gradient in gradients(terms, leaves))


def test_rt_detr_refuses_an_angle_loss() -> None:
    with pytest.raises(ValueError, match=r"^'angle_loss=cos2' cannot be used with RT-DETR, which predicts no angles"):
        equipped(angle_loss="cos2")
