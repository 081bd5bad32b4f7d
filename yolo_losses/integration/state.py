"""Saves and loads the state of the losses next to a checkpoint, which does not contain the criterion."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from yolo_losses._files import write_whole
from yolo_losses._log import is_first_rank, log
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria.branch import Branch

STATE_FILE = "yolo_losses_state.pt"
State = dict[str, dict[str, Any]]


class _UnusableError(Exception):
    """A state file can be read but does not match."""


class StateFile:
    """The file with the state of the losses of one run.

    Args:
        settings: the parsed keys.
    """

    def __init__(self, settings: LossSettings) -> None:
        self.losses = {"cls_loss": settings.cls_loss, "box_loss": settings.box_loss}
        self.failed = False

    def save(self, branches: Mapping[str, Branch], checkpoint: Path, epoch: int) -> None:
        """Save the state next to a checkpoint. A full disk or a read-only folder is logged once; training continues."""
        state = state_of(branches)
        if not state:
            return
        path = checkpoint.with_name(STATE_FILE)
        try:
            # Via memory: on a full disk, torch's writer only reports "iostream error".
            content = io.BytesIO()
            torch.save({"epoch": epoch, "losses": self.losses, "state": state}, content)
            write_whole(path, lambda part: part.write_bytes(content.getvalue()))
        except OSError as error:
            if not self.failed:
                log(f"the losses' state could not be written to {path} ({error}); training continues", warn=True)
            self.failed = True

    def load(self, branches: Mapping[str, Branch], checkpoint: Path, epochs: int) -> None:
        """Restore the state of a resumed run; if it is missing or does not match, log it and start from scratch.

        The first rank reads the file for all ranks, since it may only exist on one machine.

        Args:
            branches: the branches whose state is set.
            checkpoint: the checkpoint that the run is resumed from.
            epochs: number of epochs that the checkpoint has been trained for.
        """
        state = state_of(branches)
        if not state:
            return
        path = checkpoint.with_name(STATE_FILE)
        found: list[Any] = [None]
        if is_first_rank():
            try:
                found[0] = self._read(path, state, epochs)
            except Exception as error:
                log(f"the losses' state starts from scratch: {path} {_reason(error)}", warn=True)
        if dist.is_available() and dist.is_initialized():
            dist.broadcast_object_list(found, 0)
        if found[0] is not None:
            for name, tensors in state.items():
                for key, tensor in tensors.items():
                    tensor.copy_(found[0][name][key])

    def _read(self, path: Path, wanted: State, epochs: int) -> dict[str, dict[str, Tensor]]:
        """Return the state in a file after checking all of it.

        A run that is killed between writing its checkpoint and its state leaves the state of the previous epoch, which
        is used and logged.

        Raises:
            Exception: if it cannot be read; an `_UnusableError` if it does not match.
        """
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["losses"] != self.losses:
            raise _UnusableError(f"is that of {', '.join(f'{k}={v}' for k, v in saved['losses'].items())}")
        done = int(saved["epoch"]) + 1
        if abs(done - epochs) > 1:
            raise _UnusableError(f"is of epoch {done}, the checkpoint of epoch {epochs}")
        found: dict[str, dict[str, Tensor]] = saved["state"]
        for name, tensors in wanted.items():
            for key, tensor in tensors.items():
                if found[name][key].shape != tensor.shape or not found[name][key].isfinite().all():
                    raise _UnusableError(f"has no usable '{key}' of {name}")
        other = f", the checkpoint of epoch {epochs}" if done != epochs else ""
        log(f"the losses' state is that of epoch {done}{other}, from {path}", warn=bool(other))
        return found


def state_of(branches: Mapping[str, Branch]) -> State:
    """Return the state of the losses by branch and term; empty if there is none."""
    states = {
        f"{path}/{term}": module.state_dict()
        for path, branch in branches.items()
        for term, module in branch.modules.items()
    }
    return {name: state for name, state in states.items() if state}


def _reason(error: Exception) -> str:
    if isinstance(error, _UnusableError):
        return str(error)
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({type(error).__name__})"
