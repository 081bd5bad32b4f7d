"""Loss modules from names and training keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yolo_losses import registry
from yolo_losses.boxes._base import BoxLoss, ModifiedBoxLoss
from yolo_losses.classification._base import ClassificationLoss
from yolo_losses.parameters import Value
from yolo_losses.registry import LossSpec


def make_cls_loss(name: str, *, reduction: str = "none", **keys: Any) -> ClassificationLoss:
    """Return the module of a classification loss by its registered name and keys.

    Args:
        name: such as `"focal"`.
        reduction: `none` (per element), `mean` or `sum`.
        **keys: the loss's training keys, such as `focal_gamma=2.0`.

    Raises:
        ValueError: on an unknown name, a key that is not this loss's, or a value out of range.
    """
    spec = registry.find("cls", name)
    if spec is None:
        raise registry.unknown_loss("cls", name)
    return build_cls_loss(spec, registry.parse_keys([spec], keys), reduction=reduction)


def make_box_loss(name: str, *, reduction: str = "none", **keys: Any) -> BoxLoss:
    """Return the module of a box loss, with any modifiers, by its registered name and keys.

    Args:
        name: such as `"ciou"` or `"focaler_inner_ciou"`.
        reduction: `none` (per pair), `mean` or `sum`.
        **keys: the training keys of the loss and its modifiers, such as `inner_ratio=0.7`.

    Raises:
        ValueError: on an unknown name, a key that is not this loss's, or a value out of range.
    """
    modifiers, base = registry.split_box_name(name)
    return build_box_loss(modifiers, base, registry.parse_keys([*modifiers, base], keys), reduction=reduction)


def build_cls_loss(spec: LossSpec, values: Mapping[str, Value], **options: Any) -> ClassificationLoss:
    """Return the module of a classification loss from parsed keys."""
    module: ClassificationLoss = spec.build(values, **options)
    return module


def build_box_loss(
    modifiers: Sequence[LossSpec], base: LossSpec, values: Mapping[str, Value], **options: Any
) -> BoxLoss:
    """Return the module of a box loss with its modifiers from parsed keys."""
    module: BoxLoss = base.build(values, **options)
    if modifiers:
        module = ModifiedBoxLoss(module, [spec.build(values) for spec in modifiers], **options)
    return module
