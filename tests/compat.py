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
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions
from pathlib import Path

from compat_stages import ABSENT, OK, REPOSITORY, TRAININGS, record, training_options

INSTALLED = "installed"
VERSIONS = ("8.3.108", "8.3.150", "8.3.200", "8.3.253", "8.4.0", "8.4.50", "8.4.100", "8.4.150", INSTALLED)
QUICK_VERSIONS = ("8.3.108", "8.3.253", "8.4.50", INSTALLED)
CACHE_VARIABLE = "YOLO_LOSSES_COMPAT_CACHE"
SHARED_PACKAGES = {"ultralytics", "torch", "torchvision", "numpy"}  # of the environment, whatever a version asks for

CHECKS = (*TRAININGS, "val", "resume", "refused", "default", "without", "cli", "cli resume", "cli refused")


def main() -> int:
    """Run the command line; the exit code is 1 where a check failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--versions", nargs="+", metavar="X", help=f"default: {' '.join(VERSIONS)}")
    parser.add_argument("--quick", action="store_true", help=f"one training each; default: {' '.join(QUICK_VERSIONS)}")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="versions at a time (default: 2)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="folder for runs and logs, kept (default: a temporary one)"
    )
    arguments = parser.parse_args()
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


def stage(name: str, folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """Run some checks in a fresh interpreter and return their outcomes."""
    command = [sys.executable, str(REPOSITORY / "tests" / "compat_stages.py"), name, str(folder)]
    code, output = run(command, folder, environment, f"{name}.log")
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


if __name__ == "__main__":
    sys.exit(main())
