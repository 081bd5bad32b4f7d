"""Kernels made by `torch.compile`, where `YOLO_LOSSES_COMPILE=1` asks for them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yolo_losses._log import say

COMPILE_VARIABLE = "YOLO_LOSSES_COMPILE"

_gave_up = False


def compiling(device: torch.device) -> bool:
    """Return whether kernels are to be compiled: on a GPU, where it is switched on and has not failed before."""
    return device.type == "cuda" and not _gave_up and os.environ.get(COMPILE_VARIABLE, "0") == "1"


def fused(function: Callable[..., Any], *tensors: Tensor) -> Any:
    """Return `function(*tensors)`, worked out by one compiled kernel on a GPU.

    Args:
        function: kept in memory with its kernel, so not one made anew for each call.
        *tensors: those that have as many rows as the first may have another number of them in the next call.
    """
    if not compiling(tensors[0].device):
        return function(*tensors)
    program = _program(function)
    for tensor in tensors:
        # The number of anchors changes with the image's size, in multi-scale training at every batch.
        if tensor.shape[:1] == tensors[0].shape[:1]:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
    try:
        # Else a second loss of the same class, with another exponent, would be traced with a symbol for it.
        with torch._dynamo.config.patch(specialize_float=True):
            return program(*tensors)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # no compiler, or one that does not know this GPU: there are many ways to fail
        _give_up(error)
        return function(*tensors)


@functools.lru_cache(maxsize=64)
def _program(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function to be compiled at its first call, apart from all others: they share no limit on recompiling."""
    _announce()

    def program(*tensors: Tensor) -> Any:
        return function(*tensors)

    program.__code__ = program.__code__.replace()
    return torch.compile(program, fullgraph=True)


@functools.cache
def _announce() -> None:
    say(f"compiling the class loss, once, which takes some seconds ({COMPILE_VARIABLE}=1)")


def _give_up(error: Exception) -> None:
    global _gave_up
    _gave_up = True
    reason = str(error).strip().partition("\n")[0][:120]
    say(f"the class loss is not compiled ({type(error).__name__}: {reason}); going on without", warn=True)
