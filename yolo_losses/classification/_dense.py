"""The class term of a whole batch in one pass over the logits.

Away from the positives the target is 0, so all but under 1 % of the elements need the logits alone, and value and
derivative of the formula there have a closed form (`ClassificationLoss.background`). The derivative is written in the
forward pass into the one tensor that is kept; at the positives, both come from the formula itself.

On the CPU the batch is worked through in pieces that stay in the cache; on a GPU, where pieces would cost launches,
`torch.compile` makes one kernel of it.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
from bisect import bisect_left
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from yolo_losses.classification._base import Positives

Background = Callable[..., tuple[Tensor, Tensor]]
Foreground = Callable[..., Tensor]

# Values: 512 KB of float32, of which the second-level cache holds some and the third all. Each thread works through
# pieces of its own: torch's way, all threads on each operation, makes them wait for each other after every one, which
# a busy machine turns into most of the time. Smaller pieces would make them wait for the interpreter's lock.
PIECE = 131_072
LEAST_PIECE = 65_536
PIECES_EACH = 16  # wanted for each thread, so that the pieces at work take little memory beside the gradient
GPU_PIECE = 2**23  # without a compiler: few launches, and temporaries that stay small beside the gradient
MOST_THREADS = 8  # more would wait for the lock
VALUES_EACH = 2**20  # for each thread at least: waking it takes as long as some hundred thousand
COMPILE_VARIABLE = "YOLO_LOSSES_COMPILE"
LARGE_PAGE = 2**21


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
    most = min(torch.get_num_threads(), MOST_THREADS) if on_cpu else 1
    threads = max(1, min(most, rows.numel() // VALUES_EACH))
    size = min(max(rows.numel() // (threads * PIECES_EACH), LEAST_PIECE), PIECE) if on_cpu else GPU_PIECE
    step = max(1, size // max(classes, 1))
    parts = [slice(first, min(first + step, count)) for first in range(0, count, step)] or [slice(0, 0)]
    results: list[Tensor] = [rows] * len(parts)
    todo = iter(enumerate(parts))
    inference = torch.is_inference_mode_enabled()

    def work() -> None:
        # Grad mode and inference mode are a thread's own.
        with torch.inference_mode(inference), torch.no_grad():
            for number, part in todo:
                results[number] = function(rows[part], part)

    running: list[Future[None]] = []
    if threads > 1 and len(parts) > 1:
        # No thread is to be had where the system allows no more, nor in a training that the main thread did not wait
        # for: at its end Python closes every pool.
        with contextlib.suppress(RuntimeError):
            pool = _pool(most, os.getpid())
            for _ in range(threads):
                running.append(pool.submit(work))  # one by one: those that did start are waited for below
    if not running:
        work()
    for each in running:
        each.result()
    # Added up in one order, whichever thread was first: the same run gives the same bits.
    return _total(results)


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return threads of which each does torch's operations by itself.

    Args:
        threads: how many.
        process: the number of this process: threads do not survive a fork.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="yolo_losses")
    ready = Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # at its first call a thread takes over the process's number
        torch.set_num_threads(1)  # this thread's own, and the process's until it is put back below
        ready.wait()

    before = torch.get_num_threads()
    try:
        for _ in range(threads):
            pool.submit(start)
        ready.wait()
    except BaseException:
        # Those that did start would wait for the others for ever, and the interpreter's end for them.
        ready.abort()
        pool.shutdown(cancel_futures=True)
        raise
    finally:
        torch.set_num_threads(before)
    return pool


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


def kept_gradient(sums: Tensor) -> Tensor | None:
    """Return the gradient by the logits that is kept for the backward pass of `class_sums`; `None`: none is."""
    gradient: Tensor | None = getattr(sums.grad_fn, "gradient", None)
    return gradient


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
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (logits,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # `create_graph`: a second derivative is wanted, which only the formula has
            _, foreground, positives, _ = ctx.again
            targets, mask = scattered(logits, positives)
            sums = foreground(logits.to(targets.dtype), targets, positive_mask=mask).sum((0, 1), keepdim=True)
            return torch.autograd.grad(sums, logits, grad_output, create_graph=True)[0], None, None, None, None
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
    # A copy: the criterion multiplies the result by class weights in place, which a view does not allow here.
    return sums.view(1, 1, -1).to(dtype, copy=True), gradient if gradient is None else gradient.view(logits.shape)


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
    """Return sums and gradient by pieces: all of a piece as background, then its positives put in their places."""
    _keep_freed_memory()
    gradient = None if slope is None else _empty(rows.shape, dtype)
    index = positives.index
    if positives.valid is not None:
        index, value = index[positives.valid], value[positives.valid]
        slope = slope if slope is None else slope[positives.valid]
    order = index.argsort()
    index, value, slope = index[order], value[order], slope if slope is None else slope[order]
    row, label = index // max(rows.shape[1], 1), index % max(rows.shape[1], 1)
    row_numbers = row.tolist()

    def piece_sums(piece: Tensor, part: slice) -> Tensor:
        place = None if gradient is None else gradient[part]
        piece_value, piece_slope = background(piece.to(dtype), *extras, out=place)
        if place is not None and piece_slope is not place:
            place.copy_(piece_slope)
        mine = slice(bisect_left(row_numbers, part.start), bisect_left(row_numbers, part.stop))
        if mine.start < mine.stop:
            here = row[mine] - part.start, label[mine]
            piece_value[here] = value[mine]
            if place is not None and slope is not None:
                place[here] = slope[mine]
        return piece_value.sum(0)

    return map_sum(rows, piece_sums).double(), gradient


def _empty(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return an empty tensor on the CPU, in large pages where the system has them.

    A new block of this size comes from the kernel page by page as it is written. In pages of 4 KB that takes as long
    as the loss itself. Nor is it filled with NaN, as the deterministic mode of some Ultralytics releases has it.
    """
    size = shape.numel() * dtype.itemsize
    if size < LARGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, dtype=dtype, device="cpu")  # by name: the user may have set another default
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):
        block.madvise(mmap.MADV_HUGEPAGE)  # a hint: where it is not granted, nothing changes
    return torch.frombuffer(block, dtype=dtype, count=shape.numel()).view(shape)


@functools.cache
def _keep_freed_memory() -> None:
    """Let the C library keep the memory of one piece for the next.

    glibc gives blocks as small as a piece's temporaries back to the kernel, to fetch them anew a moment later, until
    the program has freed a larger one. This is the largest that it goes by; never written, it takes no memory.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8, device="cpu")


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

    LOGGER.info(f"yolo_losses: compiling the class loss, once, which takes some seconds ({COMPILE_VARIABLE}=1)")


def _give_up(error: Exception) -> None:
    global _gave_up
    _gave_up = True
    from ultralytics.utils import LOGGER

    reason = str(error).strip().partition("\n")[0][:120]
    LOGGER.warning(f"yolo_losses: the class loss is not compiled ({type(error).__name__}: {reason}); going on without")
