"""`yolo-losses bench`: what each loss costs against stock on this machine, in time and in memory."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolo_losses import registry
from yolo_losses.benchmark.measurement import Rows, measure
from yolo_losses.benchmark.picture import draw
from yolo_losses.benchmark.workloads import STRIDES, anchors, class_terms, criteria, imports, training_steps
from yolo_losses.registry import LossSpec

HELP = "measure class losses and losses of axis-aligned boxes against stock on this machine: time and peak memory"
EXAMPLES = """\
examples:
  yolo-losses bench                                   all of them on the CPU, 16 images of 640 pixels, 80 classes
  yolo-losses bench --device 0                        on the first GPU
  yolo-losses bench --losses slide,inner_siou --classes 3   two losses, with three classes
  yolo-losses bench --growth --out runs/bench         also other sizes, and training steps; bench.json and bench.png
"""

GROWTH = {"classes": (1, 20, 80, 365, 1203), "imgsz": (320, 640, 960, 1280), "batch": (1, 4, 16, 64)}
# Batch, imgsz and classes that people train with, for the whole criterion.
SIZES = ((16, 640, 1), (16, 640, 3), (16, 640, 20), (16, 640, 80), (4, 640, 80), (16, 320, 10))
STEP = (16, 320, 10)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("--device", default="cpu", help="cpu, or the number of a GPU")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument(
        "--repeats", type=int, default=5, help="number of rounds; each round times every loss next to stock"
    )
    parser.add_argument("--losses", default="", help="only these, separated by commas")
    more = "also the class terms as classes, imgsz and batch grow, the criterion at six sizes, and training steps"
    parser.add_argument("--growth", action="store_true", help=more)
    parser.add_argument("--out", type=Path, help="folder for bench.json and bench.png")


def run(args: argparse.Namespace) -> int:
    """Print the tables; with `--out`, write them and their picture."""
    import torch

    device = parse_device(args.device)
    for name, least in (("batch", 1), ("imgsz", max(STRIDES)), ("classes", 1), ("repeats", 1)):
        if getattr(args, name) < least:
            raise ValueError(f"'--{name}={getattr(args, name)}' is not valid: allowed is an integer >= {least}")
    chosen = parse_losses(args.losses)
    torch.manual_seed(0)
    size = args.batch, args.imgsz, args.classes
    workloads = {
        f"class term alone, {format_size(size)}": lambda: class_terms(*size, device, chosen),
        f"whole criterion, {format_size(size)}": lambda: criteria(*size, device, chosen),
        "import ultralytics": imports,
    }
    if args.growth:
        workloads[f"training step, {format_size(STEP)}"] = lambda: training_steps(*STEP, device, chosen)
    tables = {}
    for title, runs in workloads.items():
        tables[title] = measure(runs(), args.repeats, device, title, memory=runs is not imports)
        print_table(title, tables[title])
    result = {
        "machine": describe_machine(device),
        "size": {"batch": args.batch, "imgsz": args.imgsz, "classes": args.classes, "repeats": args.repeats},
        "tables": tables,
    }
    if args.growth:
        result["growth"] = measure_growth(args, device, chosen)
        result["criterion"] = measure_criterion(args.repeats, device, chosen)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
        draw(result, args.out / "bench.png")
        print(f"\nwritten to {args.out}/bench.json and bench.png")
    return 0


def parse_losses(names: str) -> dict[str, str]:
    """Return a mapping from each loss to the key that selects it; without names, of all losses that can be measured.

    Raises:
        ValueError: if a name is neither a class loss nor a loss of axis-aligned boxes.
    """
    known = {s.name: f"{s.kind}_loss" for s in registry.specs("cls") + registry.specs("box") if not s.rotated}
    chosen = {}
    for name in filter(None, names.split(",")):
        spec = registry.find("cls", name)
        try:
            modifiers, base = ([], spec) if spec else registry.split_box_name(name)
        except ValueError:
            raise _not_measured(name, None, list(known)) from None
        if base.rotated:
            raise _not_measured(name, base, list(known))
        chosen[spec.name if spec else registry.box_name(modifiers, base)] = "cls_loss" if spec else "box_loss"
    return chosen or known


def _not_measured(name: str, base: LossSpec | None, known: list[str]) -> ValueError:
    """Return the error for a name that is not measured; if it is another kind of loss, the message says which."""
    word = registry.normalize_name(name)
    found = base or next((spec for spec in registry.specs() if word in (spec.name, *spec.aliases)), None)
    if found is None:
        return registry.unknown_name("--losses", name, known)
    noun = "loss of rotated boxes" if found.rotated else registry.KINDS[found.kind].noun
    reason = f"is not valid: allowed are {', '.join(known)}; '{found.name}' is a {noun}, which is not measured"
    return registry.InvalidValueError("--losses", name, reason)


def parse_device(name: str) -> Any:
    """Return the device with a name: `cpu`, or the number of a GPU.

    Raises:
        ValueError: if the name is neither, or the GPU does not exist.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name != "cpu" and not (name.isdecimal() and int(name) < gpus):
        found = f"or the number of a GPU, of which this machine has {gpus}" if gpus else "only: this machine has no GPU"
        raise ValueError(f"'--device={name}' is not valid: allowed is cpu {found}")
    return torch.device("cpu" if name == "cpu" else f"cuda:{name}")


def print_table(title: str, rows: Rows) -> None:
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


def measure_growth(
    args: argparse.Namespace, device: Any, chosen: Mapping[str, str]
) -> dict[str, dict[str, dict[str, Any]]]:
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


def measure_criterion(repeats: int, device: Any, chosen: Mapping[str, str]) -> dict[str, Rows]:
    """Return what the whole criterion costs at the sizes that people train with."""
    tables = {}
    for batch, imgsz, classes in SIZES:
        size = format_size((batch, imgsz, classes))
        runs = criteria(batch, imgsz, classes, device, chosen)
        tables[size] = measure(runs, repeats, device, f"whole criterion, {size}")
    print("\nwhole criterion against stock, batch x imgsz x classes: " + ", ".join(tables))
    for name in next(iter(tables.values())):
        print(f"  {name:<16} " + "  ".join(f"x{rows[name]['time']:.2f}" for rows in tables.values()))
    return tables


def format_size(size: tuple[int, int, int]) -> str:
    """Return batch, image size and classes as text."""
    return " x ".join(map(str, size))


def describe_machine(device: Any) -> dict[str, str]:
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
