"""The class term of a large batch on the CPU: in pieces that stay in the cache, each thread with its own."""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import weakref
from bisect import bisect_left
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from yolo_losses.losses.classification._fast.autograd import Background, Positives

# Values: 512 KB of float32, of which the second-level cache holds some and the third all. Each thread works through
# pieces of its own: torch's way, all threads on each operation, makes them wait for each other after every one, which
# a busy machine turns into most of the time. Smaller pieces would make them wait for the interpreter's lock.
PIECE = 2**17
PIECE_ALONE = 2**18  # without other threads that work on pieces of their own: fewer operations
PIECE_ON_GPU = 2**23  # without a compiler: few launches, and temporaries that stay small beside the gradient
MOST_THREADS = 8  # more would wait for the lock
VALUES_EACH = 2**22  # for each thread at least: for fewer, torch's own threads on each operation are as fast
KEPT_BLOCKS = 2  # of large ones: the gradients of the two branches of an end-to-end head
LARGE_BLOCK = 2**25  # bytes from which on the C library fetches a block anew for each call; smaller ones it keeps


_free_blocks: list[mmap.mmap] = []


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
    piece = PIECE_ON_GPU if not on_cpu else PIECE if threads > 1 else PIECE_ALONE
    step = max(1, piece // max(classes, 1))
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


def pass_over(
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
    """Return an empty tensor on the CPU, in the memory of one that is no longer in use where there is one.

    A new block of this size comes from the kernel page by page as it is written, which takes as long as the loss
    itself: in pages of 4 KB always, in large ones where the system has to make room for them. Nor is it filled with
    NaN, as the deterministic mode of some Ultralytics releases has it.
    """
    size = shape.numel() * dtype.itemsize
    if size < LARGE_BLOCK or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, dtype=dtype, device="cpu")  # by name: the user may have set another default
    block = _block(size)
    # The tensor's memory refers to this view of the block: the block is free when the view goes.
    view = memoryview(block)
    weakref.finalize(view, _give_back, block).atexit = False
    return torch.frombuffer(view, dtype=dtype, count=shape.numel()).view(shape)


def _block(size: int) -> mmap.mmap:
    """Return memory of at least this many bytes, and at most twice as many."""
    while _free_blocks:
        with contextlib.suppress(IndexError):  # another thread was faster
            block = _free_blocks.pop()
            if size <= len(block) <= 2 * size:
                return block
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):
        block.madvise(mmap.MADV_HUGEPAGE)  # a hint: where it is not granted, nothing changes
    return block


def _give_back(block: mmap.mmap) -> None:
    if len(_free_blocks) < KEPT_BLOCKS:
        _free_blocks.append(block)


@functools.cache
def _keep_freed_memory() -> None:
    """Let the C library keep the memory of one piece for the next.

    glibc gives blocks as small as a piece's temporaries back to the kernel, to fetch them anew a moment later, until
    the program has freed a larger one. This is the largest that it goes by; never written, it takes no memory.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8, device="cpu")
