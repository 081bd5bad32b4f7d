"""`yolo-losses bench`: what each loss costs against stock on this machine, in time and in memory."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from yolo_losses import registry

HELP = "measure every loss against stock on this machine: forward and backward time, and peak memory"

STRIDES = (8, 16, 32)
POSITIVES = 0.005  # share of the anchors, about what the assigner gives on COCO


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--device", default="cpu", help="cpu, or the number of a GPU")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=5, help="rounds, in each of which every loss takes its turn")
    parser.add_argument("--losses", default="", help="only these, separated by commas")
    parser.add_argument("--out", type=Path, help="folder for bench.json and bench.png")


def run(args: argparse.Namespace) -> int:
    """Print the tables; write them and their picture where asked to."""
    import torch

    device = torch.device(f"cuda:{args.device}" if args.device.isdigit() else args.device)
    wanted = [registry.normal(name) for name in args.losses.split(",") if name]
    known = [s.name for s in registry.specs() if s.kind != "modifier" and not s.rotated]
    for name in wanted:
        if name not in known:
            raise registry.unknown_name("--losses", name, known)
    chosen = [name for name in known if name in wanted or not wanted]
    torch.manual_seed(0)
    tables = {
        "class term alone": measure(class_terms(args, device, chosen), args.repeats, device, "class term alone"),
        "whole criterion": measure(criteria(args, device, chosen), args.repeats, device, "whole criterion"),
    }
    result = {
        "machine": machine(device),
        "size": {key: getattr(args, key) for key in ("batch", "imgsz", "classes", "repeats")},
        "tables": tables,
    }
    for title, rows in tables.items():
        print(f"\n{title}: forward and backward against stock ({rows['stock']['ms']:.1f} ms), median of {args.repeats}")
        for name, row in rows.items():
            print(
                f"  {name:<16} time x{row['time']:.2f} ({row['time_low']:.2f} to {row['time_high']:.2f})"
                f"  memory x{row['memory']:.2f}"
            )
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
        draw(result, args.out / "bench.png")
        print(f"\nwritten to {args.out}/bench.json and bench.png")
    return 0


def machine(device: Any) -> dict[str, str]:
    """Return what the numbers were measured on."""
    import torch
    import ultralytics

    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        models = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else name,
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "ultralytics": ultralytics.__version__,
        "python": platform.python_version(),
    }


def class_terms(args: argparse.Namespace, device: Any, chosen: list[str]) -> dict[str, Callable[[], None]]:
    """Return a forward and backward of the class term by name: stock, the tutorials' forms, and this package's."""
    import torch
    from torch import nn

    from yolo_losses.classification._base import Positives
    from yolo_losses.step import Step

    anchors = sum((args.imgsz // s) ** 2 for s in STRIDES)
    shape = args.batch, anchors, args.classes
    logits = (torch.randn(shape, device=device) * 1.5 - 4).requires_grad_()
    count = max(1, int(args.batch * anchors * POSITIVES))
    anchor = torch.randperm(args.batch * anchors, device=device)[:count].sort().values
    index = anchor * args.classes + torch.randint(args.classes, (count,), device=device)
    positives = Positives(index, torch.rand(count, device=device))
    targets = torch.zeros(logits.numel(), device=device).index_copy_(0, index, positives.target).view(shape)
    half = torch.tensor(0.5, device=device)
    step = Step(half, half, torch.tensor(float(count), device=device), True)
    stock = nn.BCEWithLogitsLoss(reduction="none")

    def backward(term: Callable[[], Any]) -> Callable[[], None]:
        def once() -> None:
            logits.grad = None
            term().sum().backward()

        return once

    # As the formulas are commonly typed: whole tensors, one operation after the other.
    def typed_focal() -> Any:
        p = logits.sigmoid()
        p_t = targets * p + (1 - targets) * (1 - p)
        return stock(logits, targets) * (0.25 * targets + 0.75 * (1 - targets)) * (1 - p_t) ** 1.5

    def typed_vfl() -> Any:
        weight = 0.75 * logits.sigmoid().pow(2.0) * (targets <= 0) + targets * (targets > 0)
        return stock(logits, targets) * weight

    typed = {"focal": typed_focal, "vfl": typed_vfl}
    runs = {"stock": backward(lambda: stock(logits, targets))}
    for spec in registry.specs("cls"):
        if spec.name in chosen:
            module = spec.build().to(device)
            runs[spec.name] = backward(lambda module=module: module.class_sums(logits, positives, step))  # type: ignore[misc]
            if spec.name in typed:
                runs[f"{spec.name} as typed"] = backward(typed[spec.name])
    return runs


def criteria(args: argparse.Namespace, device: Any, chosen: list[str]) -> dict[str, Callable[[], None]]:
    """Return a forward and backward of Ultralytics' detection criterion by name: stock, and with each loss swapped."""
    import torch
    from ultralytics.utils.loss import v8DetectionLoss

    from yolo_losses.criterion import equip

    anchors = sum((args.imgsz // s) ** 2 for s in STRIDES)
    head = SimpleNamespace(stride=torch.tensor([float(s) for s in STRIDES], device=device), nc=args.classes, reg_max=16)
    model: Any = torch.nn.Linear(1, 1).to(device)
    model.args, model.model, model.class_weights = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, epochs=1), [head], None
    boxes = torch.randn(args.batch, 64, anchors, device=device).requires_grad_()
    scores = (torch.randn(args.batch, args.classes, anchors, device=device) * 1.5 - 4).requires_grad_()
    feats = [torch.zeros(args.batch, 1, args.imgsz // s, args.imgsz // s, device=device) for s in STRIDES]
    objects = 8 * args.batch
    batch = {
        "batch_idx": torch.arange(args.batch).repeat_interleave(8).float().to(device),
        "cls": torch.randint(args.classes, (objects, 1)).float().to(device),
        "bboxes": torch.cat((torch.rand(objects, 2) * 0.6 + 0.2, torch.rand(objects, 2) * 0.3 + 0.05), 1).to(device),
    }

    def backward(criterion: Any) -> Callable[[], None]:
        def once() -> None:
            boxes.grad = scores.grad = None
            # Releases before the predictions came as a dictionary take the two joined, level by level.
            criterion({"boxes": boxes, "scores": scores, "feats": feats}, batch)[0].sum().backward()

        return once

    runs = {"stock": backward(v8DetectionLoss(model))}
    for spec in registry.specs():
        if spec.name in chosen:
            criterion = v8DetectionLoss(model)
            equip(criterion, {f"{spec.kind}_loss": spec.name})
            runs[spec.name] = backward(criterion)
    return runs


def measure(runs: dict[str, Callable[[], None]], repeats: int, device: Any, title: str) -> dict[str, dict[str, float]]:
    """Return time and peak memory of each run as a ratio to the one called `stock`, taken in turns."""
    import torch

    def timed(once: Callable[[], None]) -> float:
        start = time.perf_counter()
        once()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    peaks = {name: peak_bytes(once, device) for name, once in runs.items()}  # also the warm-up
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(repeats):
        for name, once in runs.items():
            print(f"\r{title}: round {round_ + 1} of {repeats}, {name:<20}", end="", file=sys.stderr, flush=True)
            seconds[name].append(timed(once))
    print(file=sys.stderr)
    rows = {}
    for name, times in seconds.items():
        ratios = [mine / stock for mine, stock in zip(times, seconds["stock"], strict=True)]
        rows[name] = {
            "ms": round(statistics.median(times) * 1000, 3),
            "time": round(statistics.median(ratios), 3),
            "time_low": round(min(ratios), 3),
            "time_high": round(max(ratios), 3),
            "memory": round(peaks[name] / max(peaks["stock"], 1), 3),
            "peak_bytes": peaks[name],
        }
    return rows


def peak_bytes(once: Callable[[], None], device: Any) -> int:
    """Return the most memory that a run holds at once beyond its inputs, on the CPU when it has one thread."""
    import torch

    once()  # what the first call alone allocates does not count
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        once()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    from torch.profiler import ProfilerActivity, profile

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the profiler does not see what other threads allocate
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            once()
    finally:
        torch.set_num_threads(threads)
    events = profiled.profiler.kineto_results.events()
    live = peak = least = 0
    for _, size in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        live += size
        peak, least = max(peak, live), min(least, live)
    return peak - least  # a run begins by giving back the gradient of the run before


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the tables as bars: time and memory of each loss, by stock's."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    tables = result["tables"]
    figure, axes = plt.subplots(1, len(tables), figsize=(11, 6), layout="constrained")
    for axis, (title, rows) in zip(axes, tables.items(), strict=True):
        names = [name for name in rows if name != "stock"][::-1]
        places = range(len(names))
        axis.barh([p + 0.2 for p in places], [rows[n]["time"] for n in names], 0.38, label="time")
        axis.barh([p - 0.2 for p in places], [rows[n]["memory"] for n in names], 0.38, label="peak memory")
        axis.axvline(1, color="black", linewidth=1)
        axis.set_yticks(list(places), names)
        axis.set_xlim(0, min(4, axis.get_xlim()[1]))
        axis.set_title(f"{title} (stock = 1)")
        axis.legend()
    size, on = result["size"], result["machine"]
    figure.suptitle(
        f"{size['batch']} images of {size['imgsz']} px, {size['classes']} classes; {on['device']}, torch {on['torch']}"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
