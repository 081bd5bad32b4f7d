"""Losses by name: their list, and modules from names and training keys."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from yolo_losses import registry
from yolo_losses.losses._module import LossModule
from yolo_losses.losses._step import Step
from yolo_losses.losses.boxes._base import BoxLoss, ModifiedBoxLoss
from yolo_losses.losses.classification._base import ClassificationLoss
from yolo_losses.losses.classification._batch import Batch
from yolo_losses.losses.classify._base import ClassifyLoss
from yolo_losses.losses.masks._base import MaskLoss
from yolo_losses.losses.semantic._base import PixelLoss, RegionLoss
from yolo_losses.registry import KINDS, TERM_KEYS, Kind, LossSpec
from yolo_losses.registry.parameters import Value


def list_losses() -> dict[str, list[str]]:
    """Return the names of all registered losses, those of plugins too, by their group.

    Returns:
        The names in alphabetical order by group: `class`, `box`, `rotated`, `mask`, `modifiers` and so on, as
        in `yolo-losses list`.

    Example:
        >>> from yolo_losses import list_losses
        >>> list_losses()["mask"]
        ['bce', 'bce_dice', 'dice', 'focal', 'lovasz', 'tversky']
    """
    groups: dict[str, list[str]] = {}
    kinds = list(KINDS)
    for spec in sorted(registry.specs(), key=lambda spec: (kinds.index(spec.kind), spec.rotated, spec.name)):
        groups.setdefault(spec.group, []).append(spec.name)
    return groups


def make_cls_loss(name: str, *, reduction: str = "none", **keys: Any) -> ClassificationLoss:
    """Return the module of a classification loss by its registered name and keys.

    Args:
        name: name or alias, such as `"focal"`.
        reduction: `none` (per element), `mean` or `sum`.
        **keys: training keys of the loss, such as `focal_gamma=2.0`.

    Raises:
        ValueError: if a name is unknown, a key belongs to another loss, or a value is out of range.

    Example:
        >>> import torch
        >>> from yolo_losses import make_cls_loss
        >>> loss = make_cls_loss("focal", focal_gamma=2.0)
        >>> loss
        FocalLoss(gamma=2.0, alpha=0.25)
        >>> loss(torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]]))
        tensor([[0.0005, 0.0170]])
    """
    module: ClassificationLoss = _build("cls", name, reduction, keys)
    return module


def make_classify_loss(name: str, *, reduction: str = "none", **keys: Any) -> ClassifyLoss:
    """Return the module of a loss of the task classify by its registered name and keys.

    Args:
        name: name or alias, such as `"focal"`, which is focal loss of a softmax.
        reduction: `none` (per image), `mean` or `sum`.
        **keys: training keys of the loss, such as `focal_gamma=2.0`.

    Raises:
        ValueError: if a name is unknown, a key belongs to another loss, or a value is out of range.

    Example:
        >>> from yolo_losses import make_classify_loss
        >>> make_classify_loss("gce", gce_q=0.5)
        GeneralizedCrossEntropyLoss(q=0.5)
    """
    module: ClassifyLoss = _build("classify", name, reduction, keys)
    return module


def make_pixel_loss(name: str, *, reduction: str = "none", **keys: Any) -> PixelLoss:
    """Return the module of a loss per pixel of the task semantic by its registered name and keys.

    Args:
        name: name or alias of a `ce_loss`, such as `"ohem"`.
        reduction: `none` (per pixel), `mean` or `sum`.
        **keys: training keys of the loss, such as `ce_ohem_threshold=0.5`.

    Raises:
        ValueError: if a name is unknown, a key belongs to another loss, or a value is out of range.

    Example:
        >>> from yolo_losses import make_pixel_loss
        >>> make_pixel_loss("ohem", ce_ohem_threshold=0.5)
        OHEMCrossEntropyLoss(threshold=0.5, keep=0.0625)
    """
    module: PixelLoss = _build("ce", name, reduction, keys)
    return module


def make_region_loss(name: str, *, reduction: str = "none", **keys: Any) -> RegionLoss:
    """Return the module of a loss of the classes' overlaps of the task semantic by its registered name and keys.

    Args:
        name: name or alias of a `dice_loss`, such as `"tversky"`.
        reduction: `none` (per class), `mean` or `sum`.
        **keys: training keys of the loss, such as `dice_tversky_alpha=0.5`.

    Raises:
        ValueError: if a name is unknown, a key belongs to another loss, or a value is out of range.

    Example:
        >>> from yolo_losses import make_region_loss
        >>> make_region_loss("tversky", dice_tversky_gamma=1.5)
        SoftmaxTverskyLoss(alpha=0.3, beta=0.7, gamma=1.5)
    """
    module: RegionLoss = _build("dice", name, reduction, keys)
    return module


def make_box_loss(name: str, *, reduction: str = "none", **keys: Any) -> BoxLoss:
    """Return the module of a box loss, with any modifiers, by its registered name and keys.

    Args:
        name: name or alias, such as `"ciou"` or `"focaler_inner_ciou"`.
        reduction: `none` (per pair), `mean` or `sum`.
        **keys: training keys of the loss and its modifiers, such as `inner_ratio=0.7`.

    Raises:
        ValueError: if a name is unknown, a key belongs to another loss, or a value is out of range.

    Example:
        >>> import torch
        >>> from yolo_losses import make_box_loss
        >>> loss = make_box_loss("inner_ciou", inner_ratio=0.5)
        >>> loss(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[4.0, 0.0, 16.0, 9.0]]))
        tensor([1.0284])
    """
    modifiers, base = registry.split_box_name(name)
    return build_box_loss(modifiers, base, registry.parse_keys([*modifiers, base], keys), reduction=reduction)


def make_seg_loss(name: str, *, reduction: str = "none", **keys: Any) -> MaskLoss:
    """Return the module of a mask loss by its registered name and keys.

    Args:
        name: name or alias, such as `"dice"`.
        reduction: `none` (per mask), `mean` or `sum`.
        **keys: training keys of the loss, such as `seg_dice_smooth=0.5`.

    Raises:
        ValueError: if a name is unknown, a key belongs to another loss, or a value is out of range.

    Example:
        >>> import torch
        >>> from yolo_losses import make_seg_loss
        >>> loss = make_seg_loss("dice", seg_dice_smooth=0.0)
        >>> loss(torch.tensor([[[4.0, -4.0]]]), torch.tensor([[[1.0, 0.0]]]))
        tensor([0.0180])
    """
    module: MaskLoss = _build("seg", name, reduction, keys)
    return module


def make_loss(key: str, name: str, *, reduction: str = "none", **keys: Any) -> LossModule:
    """Return the module of a loss by the training key that picks it, its registered name and keys.

    Args:
        key: the training key, such as `"l1_loss"`.
        name: name or alias, such as `"smooth_l1"`.
        reduction: `none`, `mean` or `sum`.
        **keys: training keys of the loss, such as `l1_smooth_l1_beta=0.02`.

    Raises:
        ValueError: if a key or name is unknown, a key belongs to another loss, or a value is out of range.

    Example:
        >>> from yolo_losses import make_loss
        >>> make_loss("l1_loss", "smooth_l1", l1_smooth_l1_beta=0.02)
        SmoothL1DistanceLoss(beta=0.02)
    """
    kinds = {term_key: kind for kind, term_key in reversed(list(TERM_KEYS.items()))}  # cls_loss: those of boxes
    if key not in kinds:
        raise ValueError(f"'{key}' picks no loss: allowed are {', '.join(sorted(kinds))}")
    if key == TERM_KEYS["box"]:
        return make_box_loss(name, reduction=reduction, **keys)
    module: LossModule = _build(kinds[key], name, reduction, keys)
    return module


def _build(kind: Kind, name: str, reduction: str, keys: Mapping[str, Any]) -> Any:
    """Return the module of a loss of a kind by its name and keys."""
    spec = registry.find(kind, name)
    if spec is None:
        raise registry.unknown_loss(kind, name)
    return spec.build(registry.parse_keys([spec], keys), reduction=reduction)


def check_cls_loss(spec: LossSpec, module: ClassificationLoss) -> None:
    """Test a third-party loss on a few logits and targets.

    Raises:
        ValueError: if it is not per element, has no gradient, or is not finite at logits of +-100.
    """
    choice = f"cls_loss={spec.name}"
    logits = torch.tensor([-100.0, -3.0, 0.0, 3.0, 100.0]).repeat(6, 1).requires_grad_()
    targets = torch.tensor([0.0, 0.0, 0.3, 0.7, 1.0, 1.0])[:, None].repeat(1, 5)

    def loss_of(z: Tensor, t: Tensor) -> Any:
        trial = copy.deepcopy(module)  # whose state may change
        return trial.elementwise(z, t, positive_mask=t > 0, mean_iou=torch.tensor(0.5))

    _check(choice, lambda: loss_of(logits, targets), logits, logits.shape)
    if (
        type(module).closed_form is ClassificationLoss.closed_form
        or type(module).per_element is not ClassificationLoss.per_element
    ):
        return
    positive, step = targets > 0, Step(torch.full((3,), 0.5), None, training=False)
    given = copy.deepcopy(module).prepare(step)
    value = module.elementwise(logits, targets, positive_mask=positive, **given)
    wanted = {"value": value.detach(), "gradient": torch.autograd.grad(value.sum(), logits)[0]}
    rows = torch.arange(2, len(logits))  # those with targets
    for batch in (Batch(logits, targets, positive), Batch(logits, targets[rows], positive[rows], rows)):
        term, gradient = _named(choice, functools.partial(module.evaluate, batch, given))
        for what, found in (("value", term.detach()), ("gradient", gradient)):
            if not torch.allclose(found, wanted[what], rtol=1e-4, atol=1e-5):
                raise ValueError(
                    f"'{choice}' has a closed form whose {what} is not the formula's: correct 'closed_form', or remove"
                    " it"
                )


def check_box_loss(spec: LossSpec, module: BoxLoss) -> None:
    """Test a third-party box loss on a few pairs: equal, overlapping, nested, apart, and of no area.

    Raises:
        ValueError: if it is not per pair, has no gradient, or is not finite.
    """
    target = torch.tensor([[2.0, 2, 6, 6], [2, 2, 6, 6], [0, 0, 9, 9], [2, 2, 4, 4], [3, 3, 3, 3]])
    pred = torch.tensor([[2.0, 2, 6, 6], [3, 3, 8, 7], [2, 2, 4, 4], [5, 6, 8, 8], [1, 1, 4, 4]])
    if spec.rotated:
        pred, target = (torch.cat((boxes, boxes[:, :1] / 10), -1) for boxes in (pred, target))
    pred.requires_grad_()
    trial = copy.deepcopy(module)
    supplied = {"stride": torch.full((5, 1), 8.0), "image_wh": torch.full((5, 2), 16.0), "floor": 0.01}
    _check(f"box_loss={spec.name}", lambda: trial.pairs(pred, target, **supplied), pred, pred.shape[:1])


def _named(choice: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        raise ValueError(
            f"'{choice}' cannot be computed: {type(error).__name__}: {error}".replace("\n", " ")
        ) from error


def _check(choice: str, call: Callable[[], Any], leaf: Tensor, shape: torch.Size) -> Tensor:
    with torch.enable_grad():
        loss = _named(choice, call)
        if not isinstance(loss, Tensor):
            raise ValueError(f"'{choice}' returns a {type(loss).__name__}: wanted is a torch.Tensor")
        if loss.shape != shape:
            raise ValueError(
                f"'{choice}' returns shape {tuple(loss.shape)} for an input of shape {tuple(leaf.shape)}:"
                f" wanted is {tuple(shape)}, without a reduction"
            )
        if not loss.requires_grad:
            raise ValueError(f"'{choice}' returns a value without gradient: it must stay in the graph of its input")
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    for what, values in (("value", loss), ("gradient", gradient)):
        if not values.isfinite().all():
            raise ValueError(f"'{choice}' has a {what} that is not finite, at logits of +-100 or degenerate boxes")
    return loss.detach()


def build_box_loss(
    modifiers: Sequence[LossSpec], base: LossSpec, values: Mapping[str, Value], **options: Any
) -> BoxLoss:
    """Return the module of a box loss with its modifiers from parsed keys."""
    module: BoxLoss = base.build(values, **options)
    if modifiers:
        module = ModifiedBoxLoss(module, [spec.build(values) for spec in modifiers], **options)
    return module
