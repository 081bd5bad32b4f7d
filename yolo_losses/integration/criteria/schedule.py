"""The weight of the one-to-many branch of an end-to-end head, from the first epoch to the last.

Ultralytics' `E2ELoss` (YOLO26, and YOLOv10 since 8.4.0) decreases this weight linearly over the epochs; the one-to-one
branch has the rest. A part replaces its `decay`, which computes the weight of an epoch. The older `E2EDetectLoss` of
YOLOv10 adds the two branches: there, the gains of the one-to-many branch are scaled, and the one-to-one branch keeps
weight 1.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from yolo_losses.config.settings import LossSettings, format_number
from yolo_losses.integration.criteria.anchor_branch import AnchorBranch
from yolo_losses.integration.criteria.parts import Part
from yolo_losses.registry import InvalidValueError

TERM = "schedule"
METHOD = "decay"
GAINS = frozenset({"box", "cls", "dfl"})  # of a detection head: E2EDetectLoss is for no other
STOCK_WEIGHT = 1.0  # of the one-to-many branch in E2EDetectLoss


def check(criterion: Any, settings: LossSettings) -> None:
    """Raise an `InvalidValueError` if a head has only one branch."""
    if not (hasattr(criterion, "one2many") and hasattr(criterion, "one2one")):
        key = "o2m_start" if settings.o2m_start != "stock" else "o2m_end"
        raise InvalidValueError(key, getattr(settings, key), "is not valid: this head has one branch, allowed is stock")


def put(criterion: Any, branch: AnchorBranch) -> None:
    """Replace the schedule of a criterion by that of the settings of `branch`."""
    if hasattr(criterion, METHOD):
        setattr(criterion, METHOD, DecayPart(getattr(criterion, METHOD), branch))
        _recompute(criterion)
    else:
        branch.weight_range = ends(criterion, branch.settings)
        branch.weight = branch.weight_range[0]
        criterion.one2many.hyp = WeightedGains(criterion.one2many.hyp, branch)


def restore(criterion: Any) -> None:
    """Restore the stock schedule."""
    if isinstance(getattr(criterion, "__dict__", {}).get(METHOD), DecayPart):
        delattr(criterion, METHOD)
        _recompute(criterion)
    gains = getattr(getattr(criterion, "one2many", None), "hyp", None)
    if isinstance(gains, WeightedGains):
        criterion.one2many.hyp = gains.stock


def describe(criterion: Any, settings: LossSettings) -> str:
    """Return what the start line says about the weights, "" if they are stock."""
    if TERM not in settings.terms:
        return ""
    start, end = (format_number(weight) for weight in ends(criterion, settings))
    if hasattr(criterion, METHOD):
        stock = f"{format_number(criterion.o2m_copy)} to {format_number(criterion.final_o2m)}"
        return f"one2many weighs {start} to {end} over the epochs, one2one the rest (stock: {stock})"
    return f"one2many weighs {start} to {end} over the epochs, one2one 1 (stock: both 1)"


def describe_epoch(criterion: Any, settings: LossSettings) -> str:
    """Return the weights in the current epoch of a criterion as text, "" if they are stock."""
    if TERM not in settings.terms:
        return ""
    if hasattr(criterion, METHOD):
        return f"one2many weighs {format_number(criterion.o2m)}, one2one {format_number(criterion.o2o)}"
    gains = getattr(getattr(criterion, "one2many", None), "hyp", None)
    return f"one2many weighs {format_number(gains.branch.weight)}" if isinstance(gains, WeightedGains) else ""


def ends(criterion: Any, settings: LossSettings) -> tuple[float, float]:
    """Return the weights of the first and of the last epoch."""
    stock = (getattr(criterion, "o2m_copy", STOCK_WEIGHT), getattr(criterion, "final_o2m", STOCK_WEIGHT))
    chosen = (settings.o2m_start, settings.o2m_end)
    start, end = (float(own if value == "stock" else value) for value, own in zip(chosen, stock, strict=True))
    return start, end


def _recompute(criterion: Any) -> None:
    """Set the weights of the current epoch of a criterion, which is not the first one in a resumed run."""
    own = vars(criterion).get(METHOD)
    start = ends(criterion, own.branch.settings)[0] if isinstance(own, DecayPart) else criterion.o2m_copy
    criterion.o2m = criterion.decay(criterion.updates) if criterion.updates else start
    criterion.o2o = max(criterion.total - criterion.o2m, 0)


class DecayPart(Part):
    """Replaces `E2ELoss.decay`: runs its body with other weights for the first and the last epoch."""

    def __call__(self, epochs: int) -> float:
        """Return the weight of the one-to-many branch after a number of epochs."""
        criterion = self.stock.__self__
        start, end = ends(criterion, self.branch.settings)
        weight: float = self.stock.__func__(
            SimpleNamespace(**{**vars(criterion), "o2m_copy": start, "final_o2m": end}), epochs
        )
        return weight


class WeightedGains(Part):
    """The gains of the one-to-many branch of `E2EDetectLoss`, multiplied by its weight in the current epoch."""

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        return value * self.__dict__["branch"].weight if name in GAINS else value
