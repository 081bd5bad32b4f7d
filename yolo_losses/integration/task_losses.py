"""Ultralytics' criteria of each task as classes with the chosen losses."""

from __future__ import annotations

import copy
import copyreg
from collections.abc import Mapping
from typing import Any

from torch import nn
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import DEFAULT_CFG_DICT, IterableSimpleNamespace
from ultralytics.utils.loss import v8DetectionLoss, v8OBBLoss, v8PoseLoss, v8SegmentationLoss

from yolo_losses.config.class_weights import by_class, class_names_by_index
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria import branches_of, equip
from yolo_losses.integration.criteria.branch import Branch


class _Equipped:
    """Equips a stock criterion on construction; pickled as the stock class, so that checkpoints load without us."""

    stock_class: type

    def __init__(
        self, model: nn.Module, *args: Any, settings: LossSettings | Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        inner = getattr(model, "model", None)
        if isinstance(inner, BaseModel):  # a `YOLO(...)`
            model = inner
        head = getattr(model, "model", [None])[-1]
        if getattr(head, "one2one_cv2", None) is not None:
            raise ValueError(
                f"{type(self).__name__} is not for a {type(head).__name__} head with two branches (end2end): use"
                " yolo_losses.equip(model.init_criterion(), keys)"
            )
        arguments: Any = model.args
        given = arguments if isinstance(arguments, Mapping) else vars(arguments)
        super().__init__(model, *args, **kwargs)  # type: ignore[call-arg]
        if isinstance(arguments, Mapping):  # the model has not been set up by a trainer
            self.hyp = IterableSimpleNamespace(**{**DEFAULT_CFG_DICT, **given})
        if settings is None:
            settings = LossSettings.from_arguments(given)
        elif not isinstance(settings, LossSettings):
            settings = LossSettings.from_mapping(settings)
        if isinstance(settings.cls_weights, Mapping):
            names: Any = model.names
            settings = settings.weighted_by(by_class(settings.cls_weights, class_names_by_index(names)))
        equip(self, settings)

    @property
    def branches(self) -> dict[str, Branch]:
        """What `equip` returned; empty if every term is stock."""
        return branches_of(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # `copyreg.__newobj__` requires the class of the object itself.
        return copyreg._reconstructor, (self.stock_class, object, None), self.__dict__  # type: ignore[attr-defined]

    def __copy__(self) -> Any:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        other = memo[id(self)] = object.__new__(type(self))
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other


class DetectionLoss(_Equipped, v8DetectionLoss):
    """Ultralytics' `v8DetectionLoss` with the chosen losses.

    Args:
        model: the model, whose `args` contain the training keys unless `settings` is given.
        *args: passed on to the stock class.
        settings: a `LossSettings`, or a mapping of training keys.
        **kwargs: passed on to the stock class.

    Raises:
        ValueError: if a value is invalid, this head cannot use a loss, or the head is end-to-end.
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
