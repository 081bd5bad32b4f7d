"""The checks of `compat.py`, in an interpreter whose Ultralytics is the one to be checked.

python tests/compat_stages.py STAGE FOLDER     # as `compat.py` calls it
"""

from __future__ import annotations

import csv
import json
import logging
import math
import pickletools
import shutil
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
TRAIN_IMAGES, BATCH = 12, 4
BATCHES = TRAIN_IMAGES // BATCH

# Model -> task and keys: every term is chosen where the head has it (26 predicts no distribution).
TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    "yolov8n": ("detect", {"cls_loss": "slide", "box_loss": "giou", "dfl_loss": "dfl", "slide_delta": 0.15}),
    "yolov10n": ("detect", {"cls_loss": "vfl", "box_loss": "diou", "loss_branches": "one2many"}),
    "yolo26n": ("detect", {"cls_loss": "ema_slide", "box_loss": "giou", "tal_topk": 20, "l1_loss": "smooth_l1"}),
    "yolov8n-seg": ("segment", {"cls_loss": "focal", "box_loss": "diou", "dfl_loss": "off", "tal_overlap": "giou"}),
    "yolov8n-pose": ("pose", {"cls_loss": "qfl", "box_loss": "ciou", "tal_topk": 13}),
    "yolov8n-obb": ("obb", {"cls_loss": "poly", "box_loss": "probiou", "dfl_loss": "dfl", "tal_beta": 4.0}),
    "yolo26n-seg": ("segment", {"cls_loss": "asl", "box_loss": "giou"}),
    "yolo26n-pose": ("pose", {"cls_loss": "mal", "box_loss": "giou", "l1_loss": "l1"}),
    "yolo26n-obb": ("obb", {"cls_loss": "ghm", "box_loss": "probiou", "l1_loss": "off", "angle_loss": "cos2"}),
}
RESUMED = ("yolov8n", "yolo26n")
OK, ABSENT = "ok", "-"


def main(name: str, folder: Path) -> int:
    """Run the checks of one stage and write their outcomes down."""
    results: dict[str, str] = {}
    for check, function in STAGES[name](Bench(folder)):
        record(results, check, function)
    (folder / f"{name}.json").write_text(json.dumps(results), encoding="utf-8")
    return 0


def record(results: dict[str, str], name: str, check: Callable[[], Any]) -> None:
    """Run a check and note how it went."""
    try:
        results[name] = ABSENT if check() == ABSENT else OK
    except BaseException as error:
        traceback.print_exc()
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split()) or f"`{where.line}`"
        results[name] = f"{type(error).__name__}: {text[:300]}"


class Bench:
    """Trainings of one version, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []

    def train(self, model: str, name: str, **keys: Any) -> Any:
        """Train, keep the last checkpoint of a run that is still going on as `mid.pt`, and return the trainer."""
        from ultralytics import YOLO
        from ultralytics.utils import LOGGER

        handler = logging.Handler()
        handler.emit = lambda entry: self.lines.append(entry.getMessage())  # type: ignore[method-assign]
        self.lines.clear()
        LOGGER.addHandler(handler)
        try:
            yolo = YOLO(model if model.endswith(".pt") else f"{model}.yaml")
            yolo.add_callback("on_model_save", keep_first_checkpoint)
            task = TRAININGS.get(model, ("detect", {}))[0]
            yolo.train(**{**training_options(self.folder, task), "name": name, **keys})
        finally:
            LOGGER.removeHandler(handler)
        return yolo.trainer

    def own_lines(self) -> list[str]:
        """Return what the plugin logged in the last training."""
        return [line for line in self.lines if "yolo_losses: " in line]


def keep_first_checkpoint(trainer: Any) -> None:
    """Copy the checkpoint of the first epoch away (a callback)."""
    if trainer.epoch == 0:
        shutil.copy(trainer.last, Path(trainer.save_dir) / "mid.pt")


def training_options(folder: Path, task: str) -> dict[str, Any]:
    """Return what every training shares; the data set is made when it is first asked for."""
    sys.path.insert(0, str(REPOSITORY / "examples"))
    from make_dataset import make_dataset

    data = folder / "data" / task / "data.yaml"
    if not data.is_file():
        make_dataset(data.parent, train=TRAIN_IMAGES, val=4, imgsz=64, task=task)  # type: ignore[arg-type]
    return {
        "data": str(data),
        "epochs": 1,
        "imgsz": 64,
        "batch": BATCH,
        "workers": 0,
        "device": "cpu",
        "amp": False,
        "plots": False,
        "exist_ok": True,
        "project": str(folder / "runs"),
    }


def plugin_stage(bench: Bench) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the checks that need the plugin."""
    yield "default", lambda: bench.train("yolov8n", "default", epochs=2)
    for model in TRAININGS:
        yield model, lambda: check_training(bench, model)  # noqa: B023 called before the loop goes on
    yield "val", lambda: write_metrics(bench.folder)
    yield "resume", lambda: check_resume(bench)
    yield "refused", lambda: check_refused(bench)


def quick_stage(bench: Bench) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the checks of the short form, on the newest family that the version has."""
    model = "yolo26n" if exists("yolo26n") else "yolov8n"
    yield model, lambda: check_training(bench, model)
    yield "refused", lambda: check_refused(bench)


def plain_stage(bench: Bench) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the checks in an interpreter that knows no plugin."""
    sys.modules.pop("yolo_losses_autoload", None)
    sys.meta_path.insert(0, NoPlugin())
    # First, as in the other stage: in releases before 8.4.100 or so the first training of a process differs from later
    # ones, with and without the plugin alike.
    yield "default", lambda: check_default(bench)
    yield "without", lambda: check_without(bench)


STAGES = {"plugin": plugin_stage, "quick": quick_stage, "plain": plain_stage}


class NoPlugin:
    """An import system in which this package is not installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Refuse the package; leave every other to the finders behind."""
        if name.partition(".")[0] in ("yolo_losses", "yolo_losses_autoload"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def exists(model: str) -> bool:
    """Return whether this version has a model's YAML."""
    import ultralytics

    return any(Path(ultralytics.__file__).parent.rglob(f"cfg/models/**/{model.replace('n', '', 1)}.yaml")) or any(
        Path(ultralytics.__file__).parent.rglob(f"cfg/models/**/{model}.yaml")
    )


def check_training(bench: Bench, model: str) -> str | None:
    """Train with chosen losses, and check that they ran, in training and validation, and that the keys are kept."""
    import torch
    import yaml

    if not exists(model):
        return ABSENT
    keys = TRAININGS[model][1]
    trainer = bench.train(model, model, epochs=2 if model in RESUMED else 1, **keys)
    run = trainer.yolo_losses_run
    branches = 2 if model.startswith(("yolov10", "yolo26")) and keys.get("loss_branches", "both") == "both" else 1
    assert run.equipment.proven
    assert list(run.equipment.criteria) == ["training", "validation"], run.equipment.criteria
    assert len(run.branches) == branches
    for path, branch in run.branches.items():
        assert branch.ledger.batches == BATCHES * trainer.epochs, f"{path}: {branch.ledger.batches} calls"
        assert branch.calls == trainer.epochs, f"{path}: {branch.calls} proofs"  # the first of each epoch
        assert branch.ledger.validations, f"{path}: validation had other losses"
    assert any("equipped for training and validation" in line for line in bench.own_lines())
    rows = read_results(Path(trainer.save_dir))
    losses = [float(value) for row in rows for key, value in row.items() if "loss" in key]
    assert losses
    assert all(map(math.isfinite, losses)), losses
    written = yaml.safe_load((Path(trainer.save_dir) / "args.yaml").read_text(encoding="utf-8"))
    kept = torch.load(trainer.best, map_location="cpu", weights_only=False)["train_args"]
    for key, value in keys.items():
        assert written[key] == value, f"args.yaml has {key}={written[key]!r}"
        assert kept[key] == value, f"the checkpoint has {key}={kept[key]!r}"
    for checkpoint in (trainer.best, Path(trainer.save_dir) / "mid.pt"):
        modules = pickled_modules(checkpoint)
        assert "ultralytics.nn.tasks" in modules
        assert not {name for name in modules if name.startswith("yolo_losses")}, f"{checkpoint} needs the plugin"
    if model == "yolov8n" and (bench.folder / "runs" / "default").is_dir():
        stock = read_results(bench.folder / "runs" / "default")
        # Our dfl is stock's to float32 rounding, and slide is BCE where no target comes near its threshold.
        same = rows[0]["val/box_loss"] == stock[0]["val/box_loss"]
        assert not same, "the validation's box_loss is the stock run's"
    return None


def pickled_modules(checkpoint: Path) -> set[str]:
    """Return the modules whose classes and functions a checkpoint needs to load."""
    with zipfile.ZipFile(checkpoint) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        return {arg.split()[0] for op, arg, _ in pickletools.genops(archive.read(name)) if op.name == "GLOBAL" and arg}


def read_results(save_dir: Path) -> list[dict[str, str]]:
    """Return the rows of a run's `results.csv` without its clock."""
    with (save_dir / "results.csv").open(encoding="utf-8") as file:
        rows = [{key.strip(): value.strip() for key, value in row.items()} for row in csv.DictReader(file)]
    return [{key: value for key, value in row.items() if key != "time"} for row in rows]


def metrics(folder: Path, model: str) -> dict[str, float]:
    """Return what validating a run's best checkpoint comes to."""
    from ultralytics import YOLO

    options = {**training_options(folder, TRAININGS[model][0]), "name": "val"}
    for key in ("epochs", "amp"):
        del options[key]
    best = folder / "runs" / model / "weights" / "best.pt"
    found = YOLO(best).val(**options).results_dict
    return {key: float(value) for key, value in found.items()}


def write_metrics(folder: Path) -> None:
    """Validate where the plugin is, to be compared with where it is not."""
    (folder / "metrics.json").write_text(json.dumps(metrics(folder, "yolov8n")), encoding="utf-8")


def check_resume(bench: Bench) -> None:
    """Resume runs that stopped after their first epoch: the keys are kept, and are not to be changed."""
    for model in filter(exists, RESUMED):
        run_folder = bench.folder / "runs" / model
        weights = run_folder / "stopped" / "weights"
        weights.mkdir(parents=True, exist_ok=True)
        shutil.copy(run_folder / "mid.pt", weights / "last.pt")
        message = refusal(bench, str(weights / "last.pt"), model, resume=True, cls_loss="qfl")
        assert message.startswith(f"resume keeps cls_loss={TRAININGS[model][1]['cls_loss']}"), message
        trainer = bench.train(str(weights / "last.pt"), model, resume=True)
        chosen = {key: getattr(trainer.args, key) for key in TRAININGS[model][1]}
        assert chosen == TRAININGS[model][1], chosen
        assert trainer.yolo_losses_run.equipment.proven
        assert trainer.start_epoch == 1
        assert len(read_results(Path(trainer.save_dir))) >= 2


def check_refused(bench: Bench) -> None:
    """Try values that cannot be used: a `ValueError` of one line, and no run folder."""
    from ultralytics.utils.tal import TaskAlignedAssigner

    cases: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
        ("yolov8n", {"cls_loss": "focale"}, ("cls_loss=focale", "Did you mean 'focal'?")),
        ("yolov8n", {"cls_loss": "focal", "focal_gamma": -1}, ("focal_gamma=-1",)),
        ("yolov8n", {"box_loss": "probiou"}, ("box_loss=probiou", "axis-aligned")),
        ("yolov8n-obb", {"box_loss": "ciou"}, ("box_loss=ciou", "rotated")),
        ("yolov8n-cls", {"cls_loss": "slide"}, ("cls_loss=slide", "is a class loss")),
        ("yolov8n", {"slide_delta": 0.2}, ("slide_delta=0.2",)),
        ("yolov8n-obb", {"tal_overlap": "nwd"}, ("tal_overlap=nwd", "obb")),
    ]
    if not hasattr(TaskAlignedAssigner(), "stride_val"):
        cases.append(("yolov8n", {"tal_min_side": 24}, ("tal_min_side=24", "has no 'stride_val'")))
    for model, keys, expected in cases:
        message = refusal(bench, model, "refused", **keys)
        assert all(part in message for part in expected), message
        written = bench.folder / "runs" / "refused" / "args.yaml"
        assert not written.exists(), f"{keys} was refused after writing"
    # What depends on the head is known only once there is one.
    message = refusal(bench, "yolov8n", "late", loss_branches="one2one", cls_loss="focal")
    assert "loss_branches=one2one" in message, message


def refusal(bench: Bench, model: str, name: str, **keys: Any) -> str:
    """Return the one line with which a training is refused."""
    try:
        bench.train(model, name, **keys)
    except ValueError as error:
        message = str(error)
    else:
        raise AssertionError(f"{keys} was accepted")
    assert "\n" not in message
    return message


def check_without(bench: Bench) -> None:
    """Use the checkpoints of the other stage: load, predict, validate and fine-tune."""
    from ultralytics import YOLO

    import_fails("yolo_losses")
    for model, (task, _) in TRAININGS.items():
        run_folder = bench.folder / "runs" / model
        if not exists(model):
            continue
        image = next((bench.folder / "data" / task / "images" / "val").iterdir())
        for checkpoint in (run_folder / "weights" / "best.pt", run_folder / "mid.pt"):
            results = YOLO(checkpoint).predict(image, imgsz=64, conf=0.0, device="cpu", verbose=False)
            assert len(results) == 1, f"{checkpoint}: {len(results)} results"
    expected = json.loads((bench.folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics(bench.folder, "yolov8n") == expected
    tuned = bench.train(str(bench.folder / "runs" / "yolov8n" / "mid.pt"), "tuned")
    assert not hasattr(tuned.args, "cls_loss")


def import_fails(name: str) -> None:
    """Raise where a module can be imported."""
    try:
        __import__(name)
    except ModuleNotFoundError:
        return
    raise AssertionError(f"{name} can be imported here")


def check_default(bench: Bench) -> None:
    """Train at the defaults where the plugin is not: the run where it is must be the same one, bit for bit."""
    import torch

    trainer = bench.train("yolov8n", "plain", epochs=2)
    ours, plain = bench.folder / "runs" / "default", Path(trainer.save_dir)
    for one, other in zip(read_results(ours), read_results(plain), strict=True):
        differing = {key: (one[key], other[key]) for key in one if one[key] != other[key]}
        assert not differing, f"epoch {one['epoch']} differs: {differing}"
    texts = [(folder / "args.yaml").read_text(encoding="utf-8") for folder in (ours, plain)]
    assert texts[0].replace("default", "plain") == texts[1].replace("default", "plain")
    for name in ("weights/best.pt", "weights/last.pt", "mid.pt"):
        one, other = (torch.load(folder / name, map_location="cpu", weights_only=False) for folder in (ours, plain))
        assert one["train_args"].keys() == other["train_args"].keys()
        assert pickled_modules(ours / name) == pickled_modules(plain / name)
        weights, same = ((c["ema"] or c["model"]).state_dict() for c in (one, other))
        assert all(torch.equal(weights[key], same[key]) for key in weights), f"{name} has other weights"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
