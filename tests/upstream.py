"""Ultralytics' own tests, run twice: with the plugin and with `YOLO_LOSSES_DISABLE=1`. Every test must end alike.

    python tests/upstream.py [--tests test_engine.py ...] [-- options of pytest]

The tests come with the source distribution of the version that is installed. They want weights and data sets from the
network; what stands in for the commonest of them is made here (untrained weights, a dozen painted images), so that
trainings run offline. What still wants something else fails in both runs, and is no difference.

This file is also the pytest plugin that ends a test after its time and writes the outcomes down.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

TESTS = ("test_cli.py", "test_engine.py", "test_python.py", "test_integrations.py")
SECONDS_PER_TEST, SECONDS_PER_RUN = 120, 3600
# Not run: installs into the environment, downloads at length, or takes minutes on a CPU.
LEFT_OUT = "not rtdetr and not fastsam and not mobilesam and not benchmark and not tune and not solutions"
OUTCOMES = "YOLO_LOSSES_UPSTREAM_OUTCOMES"  # variable: the file that the outcomes go to
DISABLED = {"YOLO_LOSSES_DISABLE": "1"}

# Stand-ins. Data set -> task; weights -> YAML.
DATA_SETS = {"coco8": "detect", "coco8-seg": "segment", "coco8-pose": "pose", "dota8": "obb"}
WEIGHTS = [f"yolo26{size}{task}" for size in "ns" for task in ("", "-seg", "-pose", "-obb", "-cls")] + ["yolo11n"]


def main() -> int:
    """Run the command line; the exit code is 1 where a test ended differently."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tests", nargs="+", default=list(TESTS), metavar="FILE")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder for logs and outcomes, kept")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("options", nargs="*", help="for pytest, after --")
    arguments = parser.parse_args()
    if arguments.prepare:
        make_stand_ins(arguments.prepare)
        return 0
    with tempfile.TemporaryDirectory(prefix="upstream-") as temporary:
        folder = (arguments.keep or Path(temporary)).resolve()
        differing, summary = compare(folder, arguments.tests, ["-k", LEFT_OUT, *arguments.options])
    print(summary)
    print("\n".join(f"{test}: {one} with the plugin, {other} without" for test, (one, other) in differing.items()))
    return 1 if differing else 0


def compare(folder: Path, tests: list[str], options: list[str]) -> tuple[dict[str, tuple[str, str]], str]:
    """Return the tests that end differently, with and without the plugin, and the counts in a sentence."""
    source = fetch_source(folder)
    wanted = [f"tests/{name}" for name in tests]
    one = outcomes(source, folder / "with", {}, [*wanted, *options])
    other = outcomes(source, folder / "without", DISABLED, [*wanted, *options])
    differing = {name: ends(name, one, other) for name in one.keys() | other.keys()}
    differing = {name: pair for name, pair in differing.items() if pair[0] != pair[1]}
    # A busy machine makes a test run out of its time: what differs gets a second chance, by itself.
    for name in sorted(differing):
        again = [outcomes(source, folder / "again", extra, [name]) for extra in ({}, DISABLED)]
        pair = ends(name, *again)
        if pair[0] == pair[1]:
            del differing[name]
    counts = [", ".join(f"{number} {end}" for end, number in sorted(Counter(o.values()).items())) for o in (one, other)]
    return differing, f"with the plugin: {counts[0]}; without: {counts[1]}; {len(differing)} differ"


def ends(name: str, one: dict[str, str], other: dict[str, str]) -> tuple[str, str]:
    """Return how a test ended in both runs."""
    return one.get(name, "not run"), other.get(name, "not run")


def fetch_source(folder: Path) -> Path:
    """Return the folder of the unpacked source distribution of the installed Ultralytics."""
    name = f"ultralytics-{version('ultralytics')}"
    if not (folder / name).is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        wanted = ["--no-deps", "--no-build-isolation", "--no-binary", ":all:", name.replace("-", "==")]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *wanted]
        subprocess.run(command, check=True, stdout=sys.stderr)
        with tarfile.open(folder / f"{name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return folder / name


def outcomes(source: Path, folder: Path, variables: dict[str, str], options: list[str]) -> dict[str, str]:
    """Return how each test ended: `passed`, `failed`, `skipped` or `timed out`. Each run starts from the same state."""
    shutil.rmtree(folder, ignore_errors=True)
    place = folder / "place"
    shutil.copytree(source, place)
    environment = {key: value for key, value in os.environ.items() if key != "YOLO_LOSSES_DISABLE"} | {
        OUTCOMES: str(folder / "outcomes.json"),
        # The distribution's own package comes first: it writes beside itself while tests run.
        "PYTHONPATH": os.pathsep.join([str(place), str(Path(__file__).resolve().parent)]),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),  # its tests call `yolo`
        "YOLO_CONFIG_DIR": str(folder),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    prepare = [sys.executable, str(Path(__file__).resolve()), "--prepare", str(folder)]
    subprocess.run(prepare, cwd=place, env=environment | DISABLED, check=True, capture_output=True)
    command = [sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "upstream", "-p", "no:cacheprovider", *options]
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        subprocess.run(
            command,
            cwd=place,
            env=environment | variables,
            stdout=log,
            stderr=log,
            timeout=SECONDS_PER_RUN,
            check=False,
        )
    return json.loads((folder / "outcomes.json").read_text(encoding="utf-8"))


def make_stand_ins(folder: Path) -> None:
    """Make weights and data sets under the names that the tests ask for, and have Ultralytics look there."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
    import torch
    from make_dataset import make_dataset
    from ultralytics import YOLO, settings

    places = {name: folder / name for name in ("weights", "datasets", "runs")}
    for place in places.values():
        place.mkdir(parents=True)
    settings.update({f"{name}_dir": str(place) for name, place in places.items()})
    for name, task in DATA_SETS.items():
        make_dataset(places["datasets"] / name, train=4, val=4, imgsz=64, task=task)  # type: ignore[arg-type]
        if task == "pose":
            for path in (places["datasets"] / name / "labels").rglob("*.txt"):
                lines = [f"0 {line.split(maxsplit=1)[1]}{' 0 0 0' * 13}\n" for line in path.read_text().splitlines()]
                path.write_text("".join(lines))
    for name in WEIGHTS:
        torch.manual_seed(0)
        YOLO(f"{name}.yaml").save(places["weights"] / f"{name}.pt")
    with_spaces = places["weights"] / "path with spaces"
    with_spaces.mkdir()
    shutil.copy(places["weights"] / "yolo26n.pt", with_spaces)


# What pytest calls in Ultralytics' tests.

_ends: dict[str, str] = {}


class TimeIsUp(BaseException):
    """A test took too long; no test catches this."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: Any) -> Iterator[None]:
    """End a test after its time."""

    def stop(*_: Any) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS_PER_TEST)
    try:
        yield
    except TimeIsUp:
        _ends[item.nodeid] = "timed out"
        pytest.fail("took too long")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def pytest_runtest_logreport(report: Any) -> None:
    """Note how a test ended."""
    if report.when == "call" or report.outcome != "passed":
        _ends.setdefault(report.nodeid, report.outcome)


def pytest_sessionfinish() -> None:
    """Write the outcomes down."""
    if OUTCOMES in os.environ:
        Path(os.environ[OUTCOMES]).write_text(json.dumps(_ends), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
