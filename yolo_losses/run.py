"""One training run: its criteria equipped, the proof that they ran, their state kept beside the checkpoint."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from yolo_losses.criterion import Branch, equip
from yolo_losses.detr import matches_queries
from yolo_losses.settings import LossSettings

PREFIX = "yolo_losses: "
STATE_FILE = "yolo_losses_state.pt"


class Run:
    """The chosen losses in one trainer.

    Args:
        trainer: an Ultralytics trainer whose set-up is done.
        settings: the parsed keys, of which at least one swaps something.

    Raises:
        ValueError: where the head cannot use a chosen loss.
        RuntimeError: where nothing could be swapped.
    """

    def __init__(self, trainer: Any, settings: LossSettings) -> None:
        self.settings = settings
        self.branches: dict[str, Branch] = {}
        self.counts = {"model": 0, "EMA": 0}
        self.proven = False
        self.state_problem = False
        self.image_size: float = trainer.args.imgsz
        model, ema = unwrap(trainer.model), unwrap(getattr(trainer.ema, "ema", None))
        if _chooses_by_batch(model):
            _Waiting(self, trainer, model, ema)
        else:
            for which, net in (("model", model), ("EMA", ema)):
                if net is not None:
                    if getattr(net, "criterion", None) is None:
                        net.criterion = net.init_criterion()
                    self.equip(which, net.criterion)
            self.start(trainer)

    def equip(self, which: str, criterion: Any) -> None:
        """Equip a criterion of the `model` or of the `EMA`, with one set of losses and state for both."""
        equipped = equip(criterion, self.settings, self.branches, self.image_size)
        self.branches.update(equipped)
        self.counts[which] = len(equipped)

    def start(self, trainer: Any) -> None:
        """Say what runs where, and take up the state of a resumed run."""
        if not self.branches:
            raise RuntimeError(f"{PREFIX}{self.settings.describe()} was asked for, but nothing was swapped")
        branch = next(iter(self.branches.values()))
        terms = [
            f"cls_loss={self.settings.cls_loss}"
            + (f" {_one_line(branch.cls)}, target {branch.settings.target}" if branch.cls else ""),
            f"box_loss={self.settings.box_loss}" + (f" {_one_line(branch.box)}" if branch.box else ""),
            f"dfl_loss={self.settings.dfl_loss}",
        ]
        if self.settings.cls_scale != 1:
            terms[0] += f", times {self.settings.cls_scale:g}"
        where = ", ".join(f"{which} {count}" for which, count in self.counts.items())
        names = ", ".join(name for name in self.branches if name)
        say(f"{'; '.join(terms)}; criteria equipped: {where}{f' ({names})' if names else ''}")
        for module in (branch.cls, branch.box):
            warning = getattr(type(module), "one2one_warning", "")
            if warning and "one2one" in self.branches:
                say(warning, warn=True)
        if getattr(trainer, "resume", False):
            self.load_state(trainer)

    def after_batch(self, trainer: Any) -> None:
        """After the first batch, check that the swapped parts were called, and say what the class term came to.

        Raises:
            RuntimeError: where no swapped part was called.
        """
        if self.proven:
            return
        called = {path: branch for path, branch in self.branches.items() if branch.calls["assigner"]}
        if not called:
            raise RuntimeError(f"{PREFIX}{self.settings.describe()} was asked for, but the first batch did not call it")
        self.proven = True
        ratios = []
        for path, branch in called.items():
            if branch.cls_sum is not None and branch.bce_sum is not None:
                ratio = float(branch.cls_sum) / max(float(branch.bce_sum), 1e-12)
                ratios.append(f"{path + ' ' if path else ''}class term {ratio:.3g} times BCE's")
        parts = [
            part
            for part, swapped in (
                ("class", self.settings.swaps_cls),
                ("box", self.settings.box_loss != "stock"),
                ("dfl", self.settings.dfl_loss != "stock"),
            )
            if swapped
        ]
        shown = _shown_branch(unwrap(trainer.model))
        say(
            f"ran in the first batch: {', '.join(parts)} in {len(called)} of {len(self.branches)} criteria"
            + (f"; {', '.join(ratios)} on the same predictions" if ratios else "")
            + (f"; the log shows {shown}" if shown else ""),
            over_bar=True,
        )

    def state(self) -> dict[str, dict[str, Any]]:
        """Return the losses' state by branch and term, empty where none of them has any."""
        states = {
            f"{path}/{term}": module.state_dict()
            for path, branch in self.branches.items()
            for term, module in (("cls", branch.cls), ("box", branch.box))
            if module is not None
        }
        return {name: state for name, state in states.items() if state}

    def save_state(self, trainer: Any) -> None:
        """Write the state beside the checkpoint; a full disk or an unwritable folder is told once and borne."""
        state = self.state()
        if not state:
            return
        path = Path(trainer.last).with_name(STATE_FILE)
        part = path.with_suffix(".part")
        try:
            torch.save({"epoch": trainer.epoch, "losses": self.losses(), "state": state}, part)
            os.replace(part, path)
        except Exception as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            if not self.state_problem:
                say(f"the losses' state could not be written to {path} ({error}); training goes on", warn=True)
            self.state_problem = True

    def load_state(self, trainer: Any) -> None:
        """Take up the state of the run that is resumed; where it is missing or of no use, say so and start afresh.

        The first rank reads it for all of them: on several machines, the file may be on one alone.
        """
        state = self.state()
        if not state:
            return
        resumed = trainer.args.resume
        path = (Path(resumed) if isinstance(resumed, str) else Path(trainer.last)).with_name(STATE_FILE)
        found: list[Any] = [None]
        if is_first_rank():
            try:
                found[0] = self.read_state(path, trainer.start_epoch)
            except Exception as error:
                say(f"the losses' state starts afresh: {path} {_reason(error)}", warn=True)
        if dist.is_available() and dist.is_initialized():
            dist.broadcast_object_list(found, 0)
        if found[0] is not None:
            for name, tensors in state.items():
                for key, tensor in tensors.items():
                    tensor.copy_(found[0][name][key])

    def read_state(self, path: Path, epochs: int) -> dict[str, dict[str, Tensor]]:
        """Return the state in a file, all of it looked at before any of it is used.

        Args:
            path: the file.
            epochs: how many the checkpoint has done. A run that is killed after its checkpoint is written, but before
                its state is, leaves one of the epoch before: still a good start, which is said.

        Raises:
            Exception: where it cannot be read; a `_UselessError` where it is of something else.
        """
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["losses"] != self.losses():
            raise _UselessError(f"is that of {', '.join(f'{k}={v}' for k, v in saved['losses'].items())}")
        done = int(saved["epoch"]) + 1
        if abs(done - epochs) > 1:
            raise _UselessError(f"is of epoch {done}, the checkpoint of epoch {epochs}")
        found: dict[str, dict[str, Tensor]] = saved["state"]
        for name, tensors in self.state().items():
            for key, tensor in tensors.items():
                if found[name][key].shape != tensor.shape or not found[name][key].isfinite().all():
                    raise _UselessError(f"has no usable '{key}' of {name}")
        other = f", the checkpoint of epoch {epochs}" if done != epochs else ""
        say(f"the losses' state is that of epoch {done}{other}, from {path}", warn=bool(other))
        return found

    def losses(self) -> dict[str, str]:
        """Return the names of the losses that a state belongs to."""
        return {"cls_loss": self.settings.cls_loss, "box_loss": self.settings.box_loss}


class _UselessError(Exception):
    """A state file that can be read but not used."""


def _reason(error: Exception) -> str:
    if isinstance(error, _UselessError):
        return str(error)
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({type(error).__name__})"


class _Waiting:
    """Equips what a model's own `loss()` builds, for models that choose their criterion by the first batch.

    The model's `loss` is stood in for until its first call; then the criteria of model and EMA are built by handing
    their own `loss()` predictions that end the call as soon as they are looked at.
    """

    def __init__(self, run: Run, trainer: Any, model: Any, ema: Any) -> None:
        def loss(batch: Any, preds: Any = None) -> Any:
            del model.__dict__["loss"]
            for which, net in (("model", model), ("EMA", ema)):
                if net is not None:
                    if getattr(net, "criterion", None) is None:
                        with contextlib.suppress(_TouchedError):
                            net.loss(batch, _Untouchable())
                    run.equip(which, net.criterion)
            run.start(trainer)
            return model.loss(batch, preds)

        model.__dict__["loss"] = loss


class _TouchedError(Exception):
    pass


class _Untouchable:
    """Predictions that cannot be looked at."""

    def __getattr__(self, name: str) -> Any:
        raise _TouchedError

    def __getitem__(self, key: Any) -> Any:
        raise _TouchedError

    def __iter__(self) -> Any:
        raise _TouchedError


def _one_line(module: Any) -> str:
    return f"{type(module).__name__}({module.extra_repr()})"


def unwrap(model: Any) -> Any:
    """Return the model inside DDP's and `torch.compile`'s wrappers."""
    while True:
        inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
        if inner is None:
            return model
        model = inner


def say(message: str, warn: bool = False, over_bar: bool = False) -> None:
    """Log a line on the first rank; `over_bar` where a progress bar stands in the line at hand."""
    from ultralytics.utils import LOGGER

    if is_first_rank():
        line_break = "\n" if over_bar else ""
        (LOGGER.warning if warn else LOGGER.info)(f"{line_break}{PREFIX}{message}")


def is_first_rank() -> bool:
    """Return whether this process is the first of a distributed training, or the only one."""
    from ultralytics.utils import RANK

    return RANK in (-1, 0)


def _chooses_by_batch(model: Any) -> bool:
    from ultralytics.nn import tasks

    kind = getattr(tasks, "YOLOEModel", None)
    return kind is not None and isinstance(model, kind)


def _shown_branch(model: Any) -> str:
    """Return which of several losses of a kind the log shows."""
    criterion = getattr(model, "criterion", None)
    if matches_queries(criterion):
        return "the last decoder layer, its box loss as giou_loss"
    if not hasattr(criterion, "one2one"):
        return ""
    return "one2one" if hasattr(criterion, "o2o") else "the sum of one2many and one2one"
