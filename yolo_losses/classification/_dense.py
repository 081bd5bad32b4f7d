"""The class term of a whole batch in one pass over the logits.

Away from the positives the target is 0, so all but under 1 % of the elements need the logits alone, and value and
derivative of the formula there have a closed form (`ClassificationLoss.background`). The derivative is written in the
forward pass into the one tensor that is kept; at the positives, both come from the formula itself.

On the CPU the batch is worked through in pieces that stay in the cache; on a GPU, where pieces would cost launches,
`torch.compile` makes one kernel of it.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from yolo_losses.classification._base import Positives

Background = Callable[..., tuple[Tensor, Tensor]]
Foreground = Callable[..., Tensor]

# Values: 128 KB of float32, of which a core's second-level cache holds several, and as many as torch still works
# through without waking its thread pool. Each thread works through pieces of its own: torch's way, all threads on each
# operation, makes them wait for each other after every one, which a busy machine turns into most of the time.
PIECE = 32_768
GPU_PIECE = 2**23  # without a compiler: few launches, and temporaries that stay small beside the gradient
BLOCKS = 1024  # parts of the batch that are summed on their own and handed to the threads in turn
MOST_THREADS = 8  # more would wait for the interpreter's lock
COMPILE_VARIABLE = "YOLO_LOSSES_COMPILE"


def scattered(logits: Tensor, positives: Positives) -> tuple[Tensor, Tensor]:
    """Return dense targets in float32 or more, and the mask of the positives, both of the logits' shape."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    valid = positives.valid if positives.valid is not None else torch.ones_like(positives.index, dtype=torch.bool)
    targets = torch.zeros(logits.numel(), dtype=dtype, device=logits.device)
    mask = torch.zeros(logits.numel(), dtype=torch.bool, device=logits.device)
    targets.index_copy_(0, positives.index, torch.where(valid, positives.target.to(dtype), 0))
    mask.index_copy_(0, positives.index, valid)
    return targets.view_as(logits), mask.view_as(logits)


def map_sum(rows: Tensor, function: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """Return the sum of a function's results over the pieces of a matrix.

    Args:
        rows: shape `(N, C)`, no gradient.
        function: called with a piece and where in `rows` it lies; from several threads at once on the CPU.
    """
    count, classes = rows.shape
    on_cpu = rows.device.type == "cpu"
    step = max(1, (PIECE if on_cpu else GPU_PIECE) // max(classes, 1))
    block = step * max(1, -(-count // (step * BLOCKS)))
    starts = range(0, count, block)
    results: dict[int, Tensor] = {}
    pending = deque(starts)
    inference = torch.is_inference_mode_enabled()

    def work() -> None:
        # Grad mode and inference mode are a thread's own.
        with torch.inference_mode(inference), torch.no_grad():
            while True:
                try:
                    first = pending.popleft()
                except IndexError:
                    return
                parts = [slice(i, min(i + step, count)) for i in range(first, min(first + block, count), step)]
                results[first] = _total([function(rows[part], part) for part in parts])

    helpers = min(torch.get_num_threads(), MOST_THREADS, len(starts)) - 1 if on_cpu else 0
    if helpers <= 0:
        work()
    else:
        with ThreadPoolExecutor(helpers) as pool:
            running = [pool.submit(work) for _ in range(helpers)]
            work()
            for helper in running:
                helper.result()
    # Added up in one order, whichever thread was first: the same run gives the same bits.
    return _total([results[start] for start in starts] or [function(rows, slice(0, 0))])


def _total(tensors: list[Tensor]) -> Tensor:
    if len(tensors) == 1:
        return tensors[0]
    # Apple's Metal has no float64.
    return torch.stack(tensors).sum(0, dtype=torch.float32 if tensors[0].device.type == "mps" else torch.float64)


def class_sums(
    background: Background, foreground: Foreground, logits: Tensor, positives: Positives, *extras: Tensor
) -> Tensor:
    """Return the loss summed over batch and anchors, shape `(1, 1, C)`.

    Args:
        background: value and derivative at target 0, given logits, the extras, and `out` to write the derivative to.
        foreground: the formula: the loss of logits and targets, given `positive_mask`.
        logits: shape `(b, anchors, C)`.
        positives: the elements whose target is not that of the background.
        *extras: tensors of this step that the background needs.
    """
    sums: Tensor = _ClassSums.apply(logits, background, foreground, positives, extras)
    return sums


class _ClassSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        background: Background,
        foreground: Foreground,
        positives: Positives,
        extras: tuple[Tensor, ...],
    ) -> Tensor:
        ctx.save_for_backward(logits)
        ctx.again = background, foreground, positives, extras
        sums, ctx.gradient = _sums_and_gradient(logits, *ctx.again, wanted=ctx.needs_input_grad[0])
        return sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (logits,) = ctx.saved_tensors
        # The kept tensor is scaled in place, which saves a copy of it; a second backward works it out anew.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            gradient = _sums_and_gradient(logits, *ctx.again, wanted=True)[1]
        return gradient.mul_(grad_output).to(logits.dtype), None, None, None, None


def _sums_and_gradient(
    logits: Tensor,
    background: Background,
    foreground: Foreground,
    positives: Positives,
    extras: tuple[Tensor, ...],
    *,
    wanted: bool,
) -> tuple[Tensor, Tensor | None]:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    rows = logits.detach().reshape(-1, logits.shape[-1])
    value, slope = _at_positives(foreground, rows.reshape(-1)[positives.index].to(dtype), positives.target, wanted)
    if rows.device.type == "cpu":
        sums, gradient = _on_cpu(rows, background, positives, value, slope, extras, dtype)
    else:
        sums, gradient = _on_gpu(rows, background, positives, value, slope, extras, dtype)
    return sums.to(dtype).view(1, 1, -1), gradient if gradient is None else gradient.view(logits.shape)


def _at_positives(foreground: Foreground, z: Tensor, target: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Return the formula's value and, where wanted, its derivative at the positives."""
    with torch.inference_mode(False), torch.enable_grad():
        # A copy: logits of a validation step may belong to inference mode, which allows no gradient.
        z, target = z.clone().requires_grad_(wanted), target.to(z.dtype, copy=True)
        value = foreground(z, target, positive_mask=torch.ones_like(target, dtype=torch.bool))
        return value.detach(), torch.autograd.grad(value.sum(), z)[0] if wanted else None


def _on_cpu(
    rows: Tensor,
    background: Background,
    positives: Positives,
    value: Tensor,
    slope: Tensor | None,
    extras: tuple[Tensor, ...],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None]:
    """Return sums and gradient by pieces: all elements as background first, then the positives put right."""
    gradient = None if slope is None else torch.empty(rows.shape, dtype=dtype)

    def piece_sums(piece: Tensor, part: slice) -> Tensor:
        place = None if gradient is None else gradient[part]
        piece_value, piece_slope = background(piece.to(dtype), *extras, out=place)
        if place is not None and piece_slope is not place:
            place.copy_(piece_slope)
        return piece_value.sum(0)

    sums = map_sum(rows, piece_sums).double()
    plain, plain_slope = background(rows.reshape(-1)[positives.index].to(dtype), *extras)
    excess = value - plain
    if positives.valid is not None:
        excess = torch.where(positives.valid, excess, 0)
        slope = slope if slope is None else torch.where(positives.valid, slope, plain_slope)
    sums.index_add_(0, positives.index % max(rows.shape[1], 1), excess.to(sums.dtype))
    if gradient is not None and slope is not None:
        gradient.view(-1).index_copy_(0, positives.index, slope)
    return sums, gradient


def _on_gpu(
    rows: Tensor,
    background: Background,
    positives: Positives,
    value: Tensor,
    slope: Tensor | None,
    extras: tuple[Tensor, ...],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None]:
    """Return sums and gradient in one pass: each row knows the class, value and derivative of its positive.

    Adding the positives to the sums afterwards would need atomics, whose order is not fixed.
    """
    count, classes = rows.shape
    row, label = positives.index // max(classes, 1), positives.index % max(classes, 1)
    if positives.valid is not None:
        label = torch.where(positives.valid, label, -1)
    labels = torch.full((count,), -1, dtype=label.dtype, device=rows.device).index_copy_(0, row, label)
    values, slopes = (
        torch.zeros(count, dtype=dtype, device=rows.device).index_copy_(0, row, each)
        for each in (value, value if slope is None else slope)
    )
    if slope is not None and compiling(rows.device):
        result: tuple[Tensor, Tensor] = fused(_pass_with(background), rows, labels, values, slopes, *extras)
        return result
    gradient = None if slope is None else torch.empty(rows.shape, dtype=dtype, device=rows.device)

    def piece_sums(piece: Tensor, part: slice) -> Tensor:
        total, piece_slope = _pass(background, piece, labels[part], values[part], slopes[part], *extras)
        if gradient is not None:
            gradient[part] = piece_slope
        return total

    return map_sum(rows, piece_sums), gradient


def _pass(
    background: Background, rows: Tensor, labels: Tensor, values: Tensor, slopes: Tensor, *extras: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the per-class sums and the derivative of rows whose positives are given by class, value, derivative."""
    value, slope = background(rows.to(values.dtype), *extras)
    here = labels[:, None] == torch.arange(rows.shape[1], device=rows.device)
    return torch.where(here, values[:, None], value).sum(0), torch.where(here, slopes[:, None], slope)


@functools.lru_cache(maxsize=32)
def _pass_with(background: Background) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the pass with its background: one object for each background, by which its kernel is found again."""
    return functools.partial(_pass, background)


_gave_up = False


def compiling(device: torch.device) -> bool:
    """Return whether kernels are to be compiled: on a GPU, unless switched off, or tried in vain before."""
    return device.type == "cuda" and not _gave_up and os.environ.get(COMPILE_VARIABLE, "1") != "0"


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
    except torch.OutOfMemoryError:
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
    from ultralytics.utils import LOGGER

    LOGGER.info(
        f"yolo_losses: compiling the class loss, once, which takes some seconds ({COMPILE_VARIABLE}=0 switches it off)"
    )


def _give_up(error: Exception) -> None:
    global _gave_up
    _gave_up = True
    from ultralytics.utils import LOGGER

    reason = str(error).strip().partition("\n")[0][:120]
    LOGGER.warning(f"yolo_losses: the class loss is not compiled ({type(error).__name__}: {reason}); going on without")
