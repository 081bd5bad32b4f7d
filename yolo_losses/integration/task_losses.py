"""Ultralytics' criteria of each task, as classes that are equipped as they are built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from ultralytics.utils.loss import v8DetectionLoss, v8OBBLoss, v8PoseLoss, v8SegmentationLoss

from yolo_losses.config.class_weights import by_class, in_order
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria import equip


class _Equipped:
    """Equips a stock criterion as it is built; pickled as the stock class, so that no checkpoint needs this package."""

    stock_class: type

    def __init__(
        self, model: nn.Module, *args: Any, settings: LossSettings | Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(model, *args, **kwargs)  # type: ignore[call-arg]
        if settings is None:
            arguments: Any = model.args
            settings = LossSettings.from_arguments(arguments if isinstance(arguments, dict) else vars(arguments))
        elif not isinstance(settings, LossSettings):
            settings = LossSettings.from_mapping(settings)
        if isinstance(settings.cls_weights, Mapping):
            names: Any = model.names
            settings = settings.weighted_by(by_class(settings.cls_weights, in_order(names)))
        self.branches = equip(self, settings)


class DetectionLoss(_Equipped, v8DetectionLoss):
    """Ultralytics' `v8DetectionLoss` with the chosen losses.

    Args:
        model: the model, whose `args` hold the training keys where `settings` is not given.
        *args: passed on to the stock class.
        settings: a `LossSettings`, or a mapping of training keys.
        **kwargs: passed on to the stock class.

    Raises:
        ValueError: on a key's value that is not valid, or that this head cannot use.
    """

    stock_class = v8DetectionLoss


class SegmentationLoss(_Equipped, v8SegmentationLoss):
    """Ultralytics' `v8SegmentationLoss` with the chosen losses; arguments as `DetectionLoss`."""

    stock_class = v8SegmentationLoss


class PoseLoss(_Equipped, v8PoseLoss):
    """Ultralytics' `v8PoseLoss` with the chosen losses; arguments as `DetectionLoss`."""

    stock_class = v8PoseLoss


class OBBLoss(_Equipped, v8OBBLoss):
    """Ultralytics' `v8OBBLoss` with the chosen losses; arguments as `DetectionLoss`."""

    stock_class = v8OBBLoss
