"""The wheel in fresh environments: the oldest torch, that with the oldest Ultralytics and `compare`, every Python.

    python tests/environments.py                          # all of them, one after the other
    python tests/environments.py --only "Python 3.13"     # one of them

Each environment is made with venv and pip in a temporary folder, takes about 6 GB while it lasts, and is removed.
A Python is looked for as `pythonX.Y` and among pyenv's; one that is absent is left out, with a line that says so. What
is claimed is read from the wheel.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

from compat import ABSENT, OK, REPOSITORY, last_line, record, run, table, training_options

TESTS = REPOSITORY / "tests"
MATHS = "losses/test_properties.py losses/boxes losses/classification losses/masks integration/criteria/test_anchors.py"
CHECKS = ("installs", "start-up files", "refused", "training", "compare", "maths")
COMPARE = "[compare]"  # the extra with what `yolo-losses compare` needs
KEYS = {"cls_loss": "slide", "box_loss": "inner_siou"}


def main() -> int:
    """Run the command line; the exit code is 1 where a check failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help='such as "torch 2.3" or "Python 3.12"')
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory(prefix="environments-") as temporary:
        wheel = build_wheel(Path(temporary))
        chosen = {name: how for name, how in environments(wheel).items() if not only or name in only}
        results = {name: battery(Path(temporary) / name, *how) for name, how in chosen.items()}
    print(table(list(results), list(results.values()), CHECKS))
    outcomes = {value for result in results.values() for value in result.values()}
    return 0 if results and outcomes <= {OK, ABSENT} else 1


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout."""
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(REPOSITORY)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def environments(wheel: Path) -> dict[str, tuple[str, list[str]]]:
    """Return the environments to make: the Python of each, and what is installed in it."""
    with zipfile.ZipFile(wheel) as archive:
        folder = next(name for name in archive.namelist() if name.endswith("METADATA")).partition("/")[0]
        claims = PathDistribution(zipfile.Path(archive, f"{folder}/"))  # type: ignore[arg-type]
        classifiers = claims.metadata.get_all("Classifier") or []
        minima = dict(found.groups() for r in claims.requires or [] if (found := re.fullmatch(r"(\w+)>=([\d.]+)", r)))
        torch, ultralytics = minima["torch"], minima["ultralytics"]
    versions = [found[1] for c in classifiers if (found := re.fullmatch(r".* Python :: (3\.\d+)", c))]
    pythons = {version: python for version in versions if (python := find_python(version))}
    for version in versions:
        if version not in pythons:
            print(f"Python {version} is absent: left out")
    oldest = min(pythons, key=lambda version: int(version.partition(".")[2]))
    here = ".".join(map(str, sys.version_info[:2]))  # this one is what all the other tests run in
    others = {f"Python {v}": (python, [str(wheel)]) for v, python in pythons.items() if v != here}
    old_torch = f"torch~={torch}.0"
    floor = [f"{wheel}{COMPARE}", old_torch, f"ultralytics=={ultralytics}"]
    return {f"torch {torch}": (pythons[oldest], [str(wheel), old_torch]), "floor": (pythons[oldest], floor), **others}


def find_python(version: str) -> str | None:
    """Return the path of a Python of this version."""
    candidates = [*Path.home().glob(f".pyenv/versions/*/bin/python{version}"), shutil.which(f"python{version}")]
    for candidate in filter(None, candidates):  # pyenv puts commands on the PATH that run only where it is told so
        if subprocess.run([candidate, "-c", "import venv, ensurepip"], capture_output=True).returncode == 0:
            return str(candidate)
    return None


def battery(folder: Path, python: str, installed: list[str]) -> dict[str, str]:
    """Return the outcome of every check in a fresh environment."""
    binaries = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "true"}
    environment |= {"YOLO_AUTOINSTALL": "false", "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    for name in ("PYTHONPATH", "YOLO_LOSSES_DISABLE", "YOLO_LOSSES_PLUGINS"):
        environment.pop(name, None)
    folder.mkdir()
    results: dict[str, str] = {}

    def command(*words: str) -> tuple[int, str]:
        done = run([str(binaries / words[0]), *words[1:]], folder, environment, "log")
        print(f"{folder.name}: {' '.join(words)[:100]}: {last_line(done[1])}", file=sys.stderr, flush=True)
        return done

    def install() -> None:
        subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True, capture_output=True)
        code, output = command(
            "python", "-m", "pip", "install", "--quiet", "--no-cache-dir", "pytest", "hypothesis", *installed
        )
        assert code == 0, last_line(output)

    def start_up() -> None:
        code, output = command("yolo-losses", "doctor")
        assert code == 0, " ".join(line for line in output.splitlines() if "  NO " in line)
        assert f"active in `yolo`, {binaries}" in output

    def refused() -> None:
        code, output = command("yolo", "train", *options, "cls_loss=slid")
        assert code == 1, f"exit code {code}"
        assert "'cls_loss=slid' is not valid" in last_line(output), last_line(output)

    def train() -> None:
        code, output = command("yolo", "train", *options, *(f"{key}={value}" for key, value in KEYS.items()))
        assert code == 0, last_line(output)  # a loss that did not run is an error
        assert "SlideLoss" in output
        written = (folder / "runs" / "run" / "args.yaml").read_text(encoding="utf-8").splitlines()
        assert {f"{key}: {value}" for key, value in KEYS.items()} <= set(written)

    def compare() -> str | None:
        if not installed[0].endswith(COMPARE):
            return ABSENT
        own = ("name=", "project=", "exist_ok=")  # the comparison has folders of its own
        grid = [*(option for option in options if not option.startswith(own)), "cls_loss=bce,focal", "seed=0,1"]
        code, output = command("yolo-losses", "compare", *grid, "--out", str(folder / "comparison"))
        assert code == 0, last_line(output)
        assert (folder / "comparison" / "report.md").is_file()
        return None

    def maths() -> str | None:
        if installed[0].endswith(COMPARE):  # tests need heads of today, and test this torch with them
            return ABSENT
        tests = [str(TESTS / name) for name in MATHS.split()]
        # Compiling is a choice, and an old torch cannot compile all that a new one can.
        chosen = ["-q", "-p", "no:cacheprovider", "-m", "not long", "-k", "not compile and not traced"]
        code, output = command("python", "-m", "pytest", *chosen, *tests)
        failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        assert code == 0, f"{last_line(output)}: {'; '.join(failed[:5])}"
        return None

    options = [f"{k}={v}" for k, v in training_options(folder, "detect").items()] + ["model=yolov8n.yaml", "name=run"]
    for name, check in zip(CHECKS, (install, start_up, refused, train, compare, maths), strict=True):
        record(results, name, check)
        if results["installs"] != OK:
            break
    shutil.rmtree(folder)
    return results


if __name__ == "__main__":
    sys.exit(main())
