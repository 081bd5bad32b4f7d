"""`yolo-losses bench`: what each loss costs against stock on this machine, in time and in memory."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from yolo_losses import registry

HELP = "measure class losses and losses of axis-aligned boxes against stock on this machine: time and peak memory"
EXAMPLES = """\
examples:
  yolo-losses bench                                   all of them on the CPU, 16 images of 640 pixels, 80 classes
  yolo-losses bench --device 0                        on the first GPU
  yolo-losses bench --losses slide,inner_siou --classes 3   two losses, with three classes
  yolo-losses bench --growth --out runs/bench         also as sizes grow; bench.json and bench.png
"""

STRIDES = (8, 16, 32)
POSITIVES = 0.005  # share of the anchors, about what the assigner gives on COCO
GROWTH = {"classes": (1, 20, 80, 365, 1203), "imgsz": (320, 640, 960, 1280), "batch": (1, 4, 16, 64)}
FEW_CLASSES = 3
# Batch, imgsz and classes that people train with, for the whole criterion.
SIZES = ((16, 640, 1), (16, 640, 3), (16, 640, 20), (16, 640, 80), (4, 640, 80), (16, 320, 10))

Runs = dict[str, Callable[[], object]]
Rows = dict[str, dict[str, float]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("--device", default="cpu", help="cpu, or the number of a GPU")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument(
        "--repeats", type=int, default=5, help="rounds, in each of which every loss takes its turn with stock"
    )
    parser.add_argument("--losses", default="", help="only these, separated by commas")
    parser.add_argument("--growth", action="store_true", help="also the class terms as classes, imgsz and batch grow")
    parser.add_argument("--out", type=Path, help="folder for bench.json and bench.png")


def run(args: argparse.Namespace) -> int:
    """Print the tables; write them and their picture where asked to."""
    import torch

    device = chosen_device(args.device)
    for name, least in (("batch", 1), ("imgsz", max(STRIDES)), ("classes", 1), ("repeats", 1)):
        if getattr(args, name) < least:
            raise ValueError(f"'--{name}={getattr(args, name)}' is not valid: allowed is an integer >= {least}")
    chosen = chosen_losses(args.losses)
    torch.manual_seed(0)
    tables = {}
    for classes in dict.fromkeys((min(FEW_CLASSES, args.classes), args.classes)):
        size = args.batch, args.imgsz, classes
        for what, runs in (("class term alone", class_terms), ("whole criterion", criteria)):
            title = f"{what}, {classes} classes"
            tables[title] = measure(runs(*size, device, chosen), args.repeats, device, title)
            show(title, tables[title])
    tables["import ultralytics"] = measure(imports(), args.repeats, device, "import ultralytics")
    show("import ultralytics", tables["import ultralytics"])
    result = {
        "machine": machine(device),
        "size": {"batch": args.batch, "imgsz": args.imgsz, "classes": args.classes, "repeats": args.repeats},
        "tables": tables,
    }
    if args.growth:
        result["growth"] = growth(args, device, chosen)
        result["criterion"] = criterion_sizes(args.repeats, device, chosen)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
        draw(result, args.out / "bench.png")
        print(f"\nwritten to {args.out}/bench.json and bench.png")
    return 0


def chosen_losses(names: str) -> dict[str, str]:
    """Return the key that takes each loss, by the loss's name; without names, of all that can be measured.

    Raises:
        ValueError: on a name that is neither a class loss nor a loss of axis-aligned boxes.
    """
    known = {s.name: f"{s.kind}_loss" for s in registry.specs("cls") + registry.specs("box") if not s.rotated}
    chosen = {}
    for name in filter(None, names.split(",")):
        spec = registry.find("cls", name)
        try:
            modifiers, base = ([], spec) if spec else registry.split_box_name(name)
        except ValueError:
            raise registry.unknown_name("--losses", name, list(known)) from None
        if base.rotated:
            raise registry.unknown_name("--losses", name, list(known))
        chosen[spec.name if spec else registry.box_name(modifiers, base)] = "cls_loss" if spec else "box_loss"
    return chosen or known


def chosen_device(name: str) -> Any:
    """Return the device of a name, `cpu` or the number of a GPU.

    Raises:
        ValueError: on another name, or a GPU that is not there.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name != "cpu" and not (name.isdecimal() and int(name) < gpus):
        found = f"or the number of a GPU, of which this machine shows {gpus}" if gpus else "alone: no GPU is found here"
        raise ValueError(f"'--device={name}' is not valid: allowed is cpu {found}")
    return torch.device("cpu" if name == "cpu" else f"cuda:{name}")


def show(title: str, rows: Rows) -> None:
    """Print a table."""
    print(f"\n{title}: against stock ({rows['stock']['ms']:.1f} ms), medians and range of the ratios")
    for name, row in rows.items():
        line = f"  {name:<16} time x{row['time']:.2f} ({row['time_low']:.2f} to {row['time_high']:.2f})"
        if "memory" in row:
            line += f"  memory x{row['memory']:.2f}"
        if "copy" in rows:
            # Reading the logits and writing their gradient moves as many bytes as a copy of the logits does.
            line += f"  {rows['copy']['ms'] / row['ms']:.0%} of the speed of a copy"
        print(line)


def growth(args: argparse.Namespace, device: Any, chosen: Mapping[str, str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what the class terms cost as one size grows and the others stay: milliseconds per million values."""
    grown: dict[str, dict[str, dict[str, Any]]] = {}
    for key, values in GROWTH.items():
        grown[key] = {}
        for value in values:
            size = {"batch": min(args.batch, 4), "imgsz": args.imgsz, "classes": args.classes, key: value}
            runs = class_terms(**size, device=device, chosen=chosen, naive=False)
            rows = measure(runs, max(3, args.repeats // 2), device, f"{key} {value}")
            millions = size["batch"] * anchors(size["imgsz"]) * size["classes"] / 1e6
            grown[key][str(value)] = {
                "size": size,
                "ms_per_million": {name: round(row["ms"] / millions, 4) for name, row in rows.items()},
                "time": {name: row["time"] for name, row in rows.items()},
            }
        names = list(grown[key][str(values[0])]["time"])
        print(f"\n{key} {', '.join(map(str, values))}: ms per million values (ratio to stock)")
        for name in names:
            cells = [f"{at['ms_per_million'][name]:.2f} (x{at['time'][name]:.2f})" for at in grown[key].values()]
            print(f"  {name:<16} " + "  ".join(f"{cell:>16}" for cell in cells))
    return grown


def criterion_sizes(repeats: int, device: Any, chosen: Mapping[str, str]) -> dict[str, Rows]:
    """Return what the whole criterion costs at the sizes that people train with."""
    found = {}
    for batch, imgsz, classes in SIZES:
        title = f"whole criterion, {batch} x {imgsz} x {classes}"
        found[f"{batch} x {imgsz} x {classes}"] = measure(
            criteria(batch, imgsz, classes, device, chosen), repeats, device, title
        )
    print("\nwhole criterion against stock, batch x imgsz x classes: " + ", ".join(found))
    for name in next(iter(found.values())):
        print(f"  {name:<16} " + "  ".join(f"x{rows[name]['time']:.2f}" for rows in found.values()))
    return found


def anchors(imgsz: int) -> int:
    """Return the number of anchors of an image."""
    return sum((imgsz // s) ** 2 for s in STRIDES)


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


def _pasted_focal(z: Any, t: Any, bce: Any) -> Any:
    p = z.sigmoid()
    p_t = t * p + (1 - t) * (1 - p)
    return bce * (0.25 * t + 0.75 * (1 - t)) * (1 - p_t) ** 1.5


def _pasted_vfl(z: Any, t: Any, bce: Any) -> Any:
    return bce * (0.75 * z.sigmoid().pow(2.0) * (t <= 0) + t * (t > 0))


def _pasted_qfl(z: Any, t: Any, bce: Any) -> Any:
    return bce * (0.25 * t + 0.75 * (1 - t)) * (t - z.sigmoid()).abs() ** 2.0


def _pasted_slide(z: Any, t: Any, bce: Any, mean: float = 0.5) -> Any:
    near = (t > mean - 0.1) & (t < mean)
    return bce * (1.0 * (t <= mean - 0.1) + math.exp(1 - mean) * near + (1 - t).exp() * (t >= mean))


def _pasted(form: Callable[..., Any]) -> Callable[..., Any]:
    def loss(logits: Any, targets: Any) -> Any:
        from torch.nn.functional import binary_cross_entropy_with_logits

        return form(logits, targets, binary_cross_entropy_with_logits(logits, targets, reduction="none"))

    return loss


# As tutorials have them: whole tensors, one operation after the other.
PASTED = {
    name: _pasted(form)
    for name, form in {"focal": _pasted_focal, "vfl": _pasted_vfl, "qfl": _pasted_qfl, "slide": _pasted_slide}.items()
}


def class_terms(
    batch: int, imgsz: int, classes: int, device: Any, chosen: Mapping[str, str], *, naive: bool = True
) -> Runs:
    """Return a forward and backward of the class term by name: stock, this package's, and the naive form.

    On a GPU, where memory is what bounds it, a copy of the logits as well.
    """
    import torch
    from torch import nn

    from yolo_losses.losses._step import Step
    from yolo_losses.losses.classification._batch import Batch

    shape = batch, anchors(imgsz), classes
    logits = (torch.randn(shape, device=device) * 1.5 - 4).requires_grad_()
    rows = batch * anchors(imgsz)
    count = max(1, int(rows * POSITIVES))
    anchor = torch.randperm(rows, device=device)[:count].sort().values
    index = anchor * classes + torch.randint(classes, (count,), device=device)
    targets = torch.zeros(logits.numel(), device=device).index_copy_(0, index, torch.rand(count, device=device))
    targets = targets.view(shape)
    selected = targets.view(-1, classes)[anchor]
    # As the criterion has it: the rows of the positives on the CPU, all of them on a GPU.
    batch_ = Batch(logits, targets) if device.type == "cuda" else Batch(logits, selected, None, anchor)
    step = Step(torch.rand(count, device=device), None, True)
    stock = nn.BCEWithLogitsLoss(reduction="none")

    def backward(term: Callable[[], Any]) -> Callable[[], None]:
        def once() -> None:
            term().sum().backward()
            logits.grad = None

        return once

    runs: Runs = {"stock": backward(lambda: stock(logits, targets))}
    if device.type == "cuda":
        copy = torch.empty_like(logits, requires_grad=False)
        runs["copy"] = lambda: copy.copy_(logits.detach())
    for spec in registry.specs("cls"):
        if spec.name in chosen:
            module = spec.build().to(device)
            runs[spec.name] = backward(lambda m=module: m.per_element(batch_, step)[0])  # type: ignore[misc]
            if naive and spec.name in PASTED:
                runs[f"{spec.name} as typed"] = backward(lambda f=PASTED[spec.name]: f(logits, targets))  # type: ignore[misc]
    return runs


def criteria(batch: int, imgsz: int, classes: int, device: Any, chosen: Mapping[str, str]) -> Runs:
    """Return a forward and backward of Ultralytics' detection criterion by name: stock, each loss, and pasted ones."""
    import torch
    from ultralytics.utils.loss import v8DetectionLoss

    from yolo_losses.integration.criteria import equip

    head = SimpleNamespace(stride=torch.tensor([float(s) for s in STRIDES], device=device), nc=classes, reg_max=16)
    model: Any = torch.nn.Linear(1, 1).to(device)
    model.args, model.model, model.class_weights = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, epochs=1), [head], None
    boxes = torch.randn(batch, 64, anchors(imgsz), device=device)
    scores = torch.randn(batch, classes, anchors(imgsz), device=device) * 1.5 - 4
    sides = [imgsz // s for s in STRIDES]
    if hasattr(v8DetectionLoss, "parse_output"):
        leaves = [boxes.requires_grad_(), scores.requires_grad_()]
        feats = [torch.zeros(batch, 1, side, side, device=device) for side in sides]
        predictions: Any = {"boxes": boxes, "scores": scores, "feats": feats}
    else:  # releases before the predictions came as a dictionary take the two joined, level by level
        levels = torch.cat((boxes, scores), 1).split([side**2 for side in sides], 2)
        leaves = [
            level.reshape(batch, -1, side, side).requires_grad_() for level, side in zip(levels, sides, strict=True)
        ]
        predictions = leaves
    objects = 8 * batch
    labels = {
        "batch_idx": torch.arange(batch).repeat_interleave(8).float().to(device),
        "cls": torch.randint(classes, (objects, 1)).float().to(device),
        "bboxes": torch.cat((torch.rand(objects, 2) * 0.6 + 0.2, torch.rand(objects, 2) * 0.3 + 0.05), 1).to(device),
    }

    def backward(criterion: Any) -> Callable[[], None]:
        def once() -> None:
            criterion(predictions, labels)[0].sum().backward()
            for leaf in leaves:
                leaf.grad = None

        return once

    runs: Runs = {"stock": backward(v8DetectionLoss(model))}
    for name, key in chosen.items():
        criterion = v8DetectionLoss(model)
        equip(criterion, {key: name})
        runs[name] = backward(criterion)
        if name in PASTED:
            criterion = v8DetectionLoss(model)
            criterion.bce = PASTED[name]
            runs[f"{name} as typed"] = backward(criterion)
    return runs


def imports() -> Runs:
    """Return the import of Ultralytics in a fresh interpreter: without the plugin as `stock`, and with it."""

    def importing(**changed: str) -> Callable[[], object]:
        command = [sys.executable, "-c", "from ultralytics import YOLO"]
        return lambda: subprocess.run(command, env={**os.environ, **changed}, check=True)

    return {"stock": importing(YOLO_LOSSES_DISABLE="1"), "with the plugin": importing(YOLO_LOSSES_DISABLE="")}


def measure(runs: Runs, repeats: int, device: Any, title: str) -> Rows:
    """Return time and peak memory of each run as a ratio to the one called `stock`.

    A ratio is of two runs in direct succession, since a machine's speed drifts; which of them is first alternates.
    """
    import torch

    def timed(once: Callable[[], object]) -> float:
        start = time.perf_counter()
        once()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    peaks = {}
    for name, once in runs.items():
        progress(f"{title}: warming up, {name}")
        peaks[name] = peak_bytes(once, device)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    ratios: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(repeats):
        for name in runs:
            progress(f"{title}: round {round_ + 1} of {repeats}, {name}")
            pair = ("stock", name) if round_ % 2 else (name, "stock")
            took = {each: timed(runs[each]) for each in dict.fromkeys(pair)}
            seconds[name].append(took[name])
            ratios[name].append(took[name] / took["stock"])
    progress("")
    rows: Rows = {}
    for name, times in seconds.items():
        rows[name] = {
            "ms": round(statistics.median(times) * 1000, 3),
            "time": round(statistics.median(ratios[name]), 3),
            "time_low": round(min(ratios[name]), 3),
            "time_high": round(max(ratios[name]), 3),
        }
        if peaks["stock"]:
            rows[name].update(memory=round(peaks[name] / peaks["stock"], 3), peak_bytes=peaks[name])
    return rows


def progress(text: str) -> None:
    """Write over the last line of progress."""
    print(f"\r{text:<70}\r" if not text else f"\r{text:<70}", end="", file=sys.stderr, flush=True)


def peak_bytes(once: Callable[[], object], device: Any) -> int:
    """Return the most memory that a run holds at once beyond its inputs, on the CPU when it has one thread."""
    import torch

    once()  # what the first call alone allocates does not count
    gc.collect()  # nor what an earlier run has left
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
        with quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            once()
    finally:
        torch.set_num_threads(threads)
    events = profiled.profiler.kineto_results.events()
    live = peak = 0
    for _, size in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        live += size
        peak = max(peak, live)
    return peak


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what the profiler writes to the standard error, which goes past Python's."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the tables as bars: time and memory of each loss, by stock's."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    limit = 1.5
    tables = [(title, rows) for title, rows in result["tables"].items() if "memory" in rows["stock"]]
    figure, axes = plt.subplots(1, len(tables), figsize=(5.5 * len(tables), 8), layout="constrained")
    for axis, (title, rows) in zip(axes, tables, strict=True):
        names = [name for name in rows if name not in ("stock", "copy")][::-1]
        for offset, key, label in ((0.2, "time", "time"), (-0.2, "memory", "peak memory")):
            values = [rows[name][key] for name in names]
            axis.barh([p + offset for p in range(len(names))], values, 0.38, label=label)
            for place, value in enumerate(values):
                if value > limit:
                    at = limit - 0.02, place + offset
                    axis.text(*at, f"{value:.1f}", ha="right", va="center", color="white", fontsize=8)
        axis.axvline(1, color="black", linewidth=1)
        axis.set_yticks(range(len(names)), names)
        axis.set_xlim(0, limit)
        axis.set_title(f"{title} (stock = 1)")
    axes[-1].legend(loc="lower right")
    size, on = result["size"], result["machine"]
    figure.suptitle(
        f"{size['batch']} images of {size['imgsz']} px; {on['device']}, {on['threads']} threads, torch {on['torch']}"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
