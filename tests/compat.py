"""One battery of checks against many Ultralytics versions, and a table of what held.

    python tests/compat.py                                # every version, everything
    python tests/compat.py --versions 8.3.253 installed   # some of them
    python tests/compat.py --quick                        # one short training a version

Each version is installed with pip into a cache folder of its own (`YOLO_LOSSES_COMPAT_CACHE`, else one in the user's
cache), and put in front of the environment that this runs in, which stays as it is. So torch and numpy are the
environment's own, and whatever else an old version needs and the environment lacks lies beside it in the cache.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import logging
import math
import os
import pickletools
import shutil
import subprocess
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

INSTALLED = "installed"
VERSIONS = ("8.3.108", "8.3.150", "8.3.200", "8.3.253", "8.4.0", "8.4.50", "8.4.100", "8.4.150", INSTALLED)
QUICK_VERSIONS = ("8.3.108", "8.3.253", "8.4.50", INSTALLED)
CACHE_VARIABLE = "YOLO_LOSSES_COMPAT_CACHE"
SHARED_PACKAGES = {"ultralytics", "torch", "torchvision", "numpy"}  # of the environment, whatever a version asks for

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
TWO_BRANCHES = ("yolov10n", "yolo26n")
CHECKS = (*TRAININGS, "val", "resume", "refused", "default", "without", "cli", "cli resume", "cli refused")
OK, ABSENT = "ok", "-"


def main() -> int:
    """Run the command line; the exit code is 1 where a check failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--versions", nargs="+", metavar="X", help=f"default: {' '.join(VERSIONS)}")
    parser.add_argument("--quick", action="store_true", help=f"one training each; default: {' '.join(QUICK_VERSIONS)}")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="versions at a time (default: 2)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="folder for runs and logs, kept (default: a temporary one)"
    )
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--models", nargs="+", default=[], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        return run_stage(arguments.stage, arguments.keep, arguments.models)
    versions = arguments.versions or (QUICK_VERSIONS if arguments.quick else VERSIONS)
    with tempfile.TemporaryDirectory(prefix="compat-") as temporary:
        folder = (arguments.keep or Path(temporary)).resolve()
        with ThreadPoolExecutor(arguments.jobs) as pool:
            results = list(pool.map(lambda version: battery(version, folder / version, arguments.quick), versions))
    print(table(versions, results))
    return 1 if any(value not in (OK, ABSENT) for result in results for value in result.values()) else 0


def table(
    versions: tuple[str, ...] | list[str], results: list[dict[str, str]], checks: tuple[str, ...] = CHECKS
) -> str:
    """Return the results as a Markdown table, one column for each version, and under it what failed."""
    shown = [check for check in checks if any(check in result for result in results)]
    rows = [["", *versions], ["---"] * (len(versions) + 1)]
    for check in shown:
        cells = [result.get(check, "not run") for result in results]
        rows.append([check, *(cell if cell in (OK, ABSENT, "not run") else "FAIL" for cell in cells)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    for version, result in zip(versions, results, strict=True):
        lines += [f"{version} {check}: {text}" for check, text in result.items() if text not in (OK, ABSENT)]
    return "\n".join(lines)


# What the parent does: a version in place, its stages in fresh interpreters.


def battery(version: str, folder: Path, quick: bool = False) -> dict[str, str]:
    """Return the outcome of every check on one version: `ok`, `-` where it has no such model, or what went wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        environment = prepare(version, folder)
    except subprocess.CalledProcessError as error:
        return {"installs": f"pip: {last_line(error.stderr)}"}
    results: dict[str, str] = {}
    if quick:
        results |= stage("quick", folder, environment)
    else:
        results |= stage("plugin", folder, environment)
        results |= stage("plain", folder, {**environment, "YOLO_LOSSES_DISABLE": "1"})
        results |= command_line(folder, environment)
    outcomes = [value for value in results.values() if value != ABSENT]
    print(f"{version}: {outcomes.count(OK)} of {len(outcomes)} ok", file=sys.stderr)
    return results


def prepare(version: str, folder: Path) -> dict[str, str]:
    """Return the environment in which a version is the one that is imported; install it if it is not there."""
    # One thread, so that two runs can be equal to the last bit; a settings file of its own for each version.
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "YOLO_CONFIG_DIR": str(folder),
        "YOLO_AUTOINSTALL": "false",
        "YOLO_OFFLINE": "true",
    }
    environment.pop("YOLO_LOSSES_DISABLE", None)
    if version != INSTALLED:
        package, needs = cache() / version, cache() / f"{version}-needs-{environment_digest()}"
        if not package.is_dir():
            pip_install([f"ultralytics=={version}"], package)
        if not needs.is_dir():
            pip_install(missing_packages(version), needs)
        environment["PYTHONPATH"] = os.pathsep.join([str(package), str(needs)])
    else:
        environment.pop("PYTHONPATH", None)
    return environment


def cache() -> Path:
    """Return the folder that the versions are kept in."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolo-losses-compat"
    return Path(os.environ.get(CACHE_VARIABLE) or default)


def environment_digest() -> str:
    """Return a name for what is installed here: another environment lacks other packages."""
    installed = sorted({f"{found.name}=={found.version}" for found in distributions()})
    return hashlib.sha256("\n".join(installed).encode()).hexdigest()[:12]


def missing_packages(version: str) -> list[str]:
    """Return what pip would install for a version into this environment, leaving the shared packages alone."""
    report = json.loads(pip("install", "--dry-run", "--quiet", "--report", "-", f"ultralytics=={version}"))
    found = [(item["metadata"]["name"], item["metadata"]["version"]) for item in report["install"]]
    return [f"{name}=={version}" for name, version in found if name.lower() not in SHARED_PACKAGES]


def pip_install(packages: list[str], folder: Path) -> None:
    """Install packages, and not what they depend on, into a folder that is there only once it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        part = Path(temporary) / "part"
        part.mkdir()
        if packages:
            pip("install", "--quiet", "--no-deps", "--target", str(part), *packages)
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another run was faster
                raise


def pip(*arguments: str) -> str:
    """Return what pip prints."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def stage(name: str, folder: Path, environment: dict[str, str], models: tuple[str, ...] = ()) -> dict[str, str]:
    """Run some checks in a fresh interpreter and return their outcomes."""
    command = [sys.executable, str(Path(__file__).resolve()), "--stage", name, "--keep", str(folder)]
    code, output = run([*command, *(["--models", *models] if models else [])], folder, environment, f"{name}.log")
    try:
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {name: f"exit code {code}: {last_line(output)}"}


def run(command: list[str], folder: Path, environment: dict[str, str], log: str) -> tuple[int, str]:
    """Return a command's exit code and what it printed, which is kept in a log as well."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    (folder / log).write_text(done.stdout, encoding="utf-8")
    return done.returncode, done.stdout


def last_line(text: str) -> str:
    """Return the last line that is not empty."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def command_line(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """Train, resume and be refused through the stock `yolo` command."""
    yolo = shutil.which("yolo", path=str(Path(sys.executable).parent)) or "yolo"
    results: dict[str, str] = {}
    options = [f"{key}={value}" for key, value in training_options(folder, "detect").items()] + ["name=cli"]
    weights = folder / "runs" / "cli" / "weights"

    def train() -> None:
        keys = ["cls_loss=ema_slide", "box_loss=giou", "ema_slide_decay=0.99"]
        command = [yolo, "train", "model=yolov8n.yaml", *options, "epochs=2", "save_period=1", *keys]
        code, output = run(command, folder, environment, "cli.log")
        assert code == 0, last_line(output)
        assert "yolo_losses: ran in the first batch with objects: class, box" in output
        written = (weights.parent / "args.yaml").read_text(encoding="utf-8").splitlines()
        assert {"cls_loss: ema_slide", "box_loss: giou", "ema_slide_decay: 0.99"} <= set(written)

    def resume() -> None:
        shutil.copy(weights / "epoch0.pt", weights / "last.pt")
        code, output = run([yolo, "train", "resume", f"model={weights / 'last.pt'}"], folder, environment, "resume.log")
        assert code == 0, last_line(output)
        assert "cls_loss=ema_slide EMASlideLoss(" in output
        assert "the losses' state is that of epoch" in output
        assert "ran in the first batch with objects: class, box" in output

    def refused() -> None:
        command = [yolo, "train", "model=yolov8n.yaml", *options, "name=refused", "cls_loss=varifokal"]
        code, output = run(command, folder, environment, "refused.log")
        assert code == 1, f"exit code {code}"
        line = last_line(output)
        assert line.startswith("'cls_loss=varifokal' is not valid"), line
        assert line.endswith("Did you mean 'vfl'?"), line

    for name, check in (("cli", train), ("cli resume", resume), ("cli refused", refused)):
        record(results, name, check)
    return results


def record(results: dict[str, str], name: str, check: Callable[[], Any]) -> None:
    """Run a check and note how it went."""
    try:
        results[name] = ABSENT if check() == ABSENT else OK
    except BaseException as error:
        traceback.print_exc()
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split()) or f"`{where.line}`"
        results[name] = f"{type(error).__name__}: {text[:300]}"


# What a fresh interpreter does, with the version in front.


def run_stage(name: str, folder: Path, models: list[str]) -> int:
    """Run the checks of one stage and write their outcomes down."""
    results: dict[str, str] = {}
    for check, function in STAGES[name](Bench(folder), models):
        record(results, check, function)
    (folder / f"{name}.json").write_text(json.dumps(results), encoding="utf-8")
    return 0


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


def plugin_stage(bench: Bench, models: list[str]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the checks that need the plugin."""
    yield "default", lambda: bench.train("yolov8n", "default", epochs=2)
    for model in models or TRAININGS:
        yield model, lambda: check_training(bench, model)  # noqa: B023 called before the loop goes on
    yield "val", lambda: write_metrics(bench.folder)
    yield "resume", lambda: check_resume(bench)
    yield "refused", lambda: check_refused(bench)


def quick_stage(bench: Bench, models: list[str]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the checks of the short form: the newest family that the version has, or the models given."""
    for model in models or ["yolo26n" if exists("yolo26n") else "yolov8n"]:
        yield model, lambda: check_training(bench, model)  # noqa: B023
    yield "refused", lambda: check_refused(bench)


def plain_stage(bench: Bench, _: list[str]) -> Iterator[tuple[str, Callable[[], Any]]]:
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
    sys.exit(main())
