"""`yolo-losses doctor`: is the plugin active here, in the `yolo` command, in workers and in notebooks?"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yolo_losses
from yolo_losses import registry
from yolo_losses.config import renaming, settings
from yolo_losses.integration import hook
from yolo_losses.integration.autoload import yolo_losses_autoload as autoload

HELP = "tell whether the plugin is active here, in the `yolo` command, in workers and in notebooks, and what to do"
EXAMPLES = """\
Each line begins with ok; with NO for a problem, and how to fix it; or with -- for a note. The checks start fresh
interpreters, and workers of Ray and kernels of Jupyter if these are installed, which takes some seconds. The exit code
is 1 if there is a problem.

examples:
  yolo-losses doctor              all checks; paste the output into an issue
  python -m yolo_losses doctor    the same with this Python
"""

TIMEOUT = 120  # seconds; a busy machine takes long to import torch
OK, WRONG, NOTE = "ok", "NO", "--"
Line = tuple[str, str]  # one of these marks, and the text

RUN_MODULE = "use `python -m yolo_losses train ...`"
START_UP_FILES = ("yolo_losses.pth", "yolo_losses.start", "yolo_losses_autoload.py")
VARIABLES = ("PYTHONPATH", "PYTHONNOUSERSITE", "RAY_ADDRESS")  # and all that begin with YOLO_LOSSES_

# What the `yolo` command or a DDP worker does first: it imports Ultralytics, and nothing of this package. The current
# folder, which `-c` puts on the path, is taken off: the package may lie there.
PROBE = """
def probe():
    import sys
    sys.path[:] = [folder for folder in sys.path if folder]
    import ultralytics.cfg, ultralytics.engine.trainer
    hook = sys.modules.get("yolo_losses.integration.hook")
    return sys.prefix, hook is not None and hook.is_active()
"""
INTERPRETER = f"{PROBE}\nprint(*probe(), sep='\\n')"
# Runs in a task that needs no CPU, so that it starts on a busy cluster too, the one that `yolo-losses compare --engine
# ray` would use.
RAY_WORKER = f"""{PROBE}
import os, ray
address = os.environ.get("RAY_ADDRESS")
small = {{}} if address else {{"num_cpus": 1, "include_dashboard": False}}
ray.init(address=address or "local", log_to_driver=False, logging_level="error", **small)
print(*ray.get(ray.remote(num_cpus=0)(probe).remote(), timeout={TIMEOUT}), sep="\\n")
"""
# Ultralytics cannot be imported without site-packages, so this only checks whether a start-up file was read.
WITHOUT_SITE = "import sys; print(sys.prefix, 'yolo_losses_autoload' in sys.modules, sep='\\n')"


@dataclass(frozen=True)
class Answer:
    """The answer of an interpreter: its `sys.prefix`, whether the plugin is active, and if not, the reason."""

    prefix: str
    active: bool
    reason: str = ""

    @property
    def is_here(self) -> bool:
        """Whether the interpreter belongs to this environment."""
        return bool(self.prefix) and os.path.realpath(self.prefix) == os.path.realpath(sys.prefix)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """Print a line for each check; the exit code is 1 if one failed."""
    print("\n".join(versions()), flush=True)
    wrong = False
    for mark, text in findings():
        print(f"  {mark}  {text}", flush=True)
        wrong |= mark == WRONG
    return int(wrong)


def findings() -> Iterator[Line]:
    """Yield a line for each check, as soon as it is known."""
    yolo = shutil.which("yolo")
    yolo_python = interpreter_of(yolo) if yolo else None
    with ThreadPoolExecutor() as pool:

        @functools.cache
        def asked(python: str, code: str = INTERPRETER, *options: str) -> Future[Answer]:
            return pool.submit(ask, [python, *options, "-c", code])

        # All at once, the slowest first.
        ray = asked(sys.executable, RAY_WORKER) if importlib.util.find_spec("ray") else None
        fresh, without_site = asked(sys.executable), asked(sys.executable, WITHOUT_SITE, "-S")
        of_yolo = asked(yolo_python) if yolo_python else None
        kernels = {name: (python, asked(python)) for name, python in kernel_pythons().items()}
        yield from outdated()
        yield from start_up_files()
        yield in_this_interpreter()
        yield in_fresh_interpreter(fresh.result())
        yield in_yolo(yolo, yolo_python, of_yolo.result() if of_yolo else None)
        yield from in_notebooks({name: (python, answer.result()) for name, (python, answer) in kernels.items()})
        yield in_interpreter_without_site(without_site.result())
        yield from keys()
        yield from ((WRONG, f"plugin left out: {problem}") for problem in registry.problems())
        yield in_ray(ray.result() if ray else None)


def ask(command: list[str]) -> Answer:
    """Return what an interpreter prints in its last two lines: its `sys.prefix`, and whether the plugin is active."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Answer("", False, f"no answer: {error.strerror if isinstance(error, OSError) else f'{TIMEOUT} s'}")
    lines = done.stdout.strip().splitlines()
    reasons = [line for line in done.stderr.splitlines() if line.startswith("yolo_losses: not active")]
    if done.returncode == 0 and len(lines) >= 2:
        return Answer(lines[-2], lines[-1] == "True", reasons[-1] if reasons else "the plugin was not loaded")
    return Answer("", False, ((done.stderr or done.stdout).strip().splitlines() or ["no answer"])[-1])


def versions() -> list[str]:
    """Return what is installed, and the variables that change what it does."""
    import torch
    import ultralytics

    count = {kind: len(registry.specs(kind)) for kind in ("cls", "box", "seg", "modifier")}
    return [
        f"yolo_losses {yolo_losses.__version__} in {os.path.dirname(yolo_losses.__file__)}",
        f"ultralytics {ultralytics.__version__}, torch {torch.__version__}, {platform.platform()}",
        f"Python {platform.python_version()}, {sys.executable}",
        f"losses: {count['cls']} for classes, {count['box']} for boxes, {count['seg']} for masks;"
        f" {count['modifier']} modifiers",
        *(f"{k}={v}" for k, v in sorted(os.environ.items()) if v and (k in VARIABLES or k.startswith("YOLO_LOSSES_"))),
    ]


def outdated() -> list[Line]:
    """Return the requirements that are installed in too old a version."""
    from ultralytics.utils.checks import check_version

    try:
        requirements = importlib.metadata.requires("yolo-losses") or []
    except importlib.metadata.PackageNotFoundError:  # a source tree that is not installed
        return []
    lines = []
    for name, least in (found.groups() for r in requirements if (found := re.fullmatch(r"([\w-]+)>=([\d.]+)", r))):
        version = importlib.metadata.version(name)
        if not check_version(version, f">={least}"):
            advice = f"`{sys.executable} -m pip install --upgrade {name}`"
            kit = ", or the patch kit (`yolo-losses patch --help`)" if name == "ultralytics" else ""
            lines.append((WRONG, f"{name} {version} is older than {least}: {advice}{kit}"))
    return lines


def start_up_files() -> list[Line]:
    """Return where the start-up files are, and what is wrong with them."""
    # The originals in a checkout; the files in site-packages are copies.
    own = Path(yolo_losses.__file__).parent / "integration" / "autoload"
    target = f"--editable {own.parents[2]}" if (own / START_UP_FILES[0]).is_file() else "yolo-losses"
    again = f"`{sys.executable} -m pip install --force-reinstall --no-deps {target}`"
    sites = {os.path.realpath(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())}
    folders = [Path(folder) for folder in dict.fromkeys(map(os.path.realpath, sys.path))]
    folders_with_files = [folder for folder in folders if any((folder / name).is_file() for name in START_UP_FILES)]
    lines = []
    for folder in folders_with_files:
        missing = [name for name in START_UP_FILES if not (folder / name).is_file()]
        stale = [name for name in START_UP_FILES if _differ(folder / name, own / name)]
        if str(folder) not in sites:
            lines.append((NOTE, f"start-up files in {folder} are not read: the folder is not a site-packages folder"))
        elif missing or stale:
            why = f"{missing[0]} is missing" if missing else f"{stale[0]} differs from that in {own}"
            lines.append((WRONG, f"start-up files in {folder}: {why}; {again}"))
        else:
            lines.append((OK, f"start-up files in {folder}: {', '.join(START_UP_FILES)}"))
    if all(mark == NOTE for mark, _ in lines):
        lines.append((WRONG, f"no start-up files: install with pip, not by PYTHONPATH or --target, or {RUN_MODULE}"))
    return lines


def _differ(a: Path, b: Path) -> bool:
    return a.is_file() and b.is_file() and a.read_text(encoding="utf-8") != b.read_text(encoding="utf-8")


def in_this_interpreter() -> Line:
    """Return whether the plugin is active in this interpreter."""
    import ultralytics.engine.trainer  # noqa: F401
    from ultralytics.cfg import get_cfg

    if hook.is_active() and hasattr(get_cfg(), renaming.argument("cls_loss")):
        return OK, "active in this interpreter"
    return WRONG, f"not active in this interpreter: {_remedy('report this')}"


def in_fresh_interpreter(answer: Answer) -> Line:
    """Return whether the plugin is active in a fresh process of this interpreter."""
    if answer.active:
        return OK, "active in a fresh interpreter, so in DDP workers and in the tuner's runs"
    return WRONG, f"not active in a fresh interpreter: {_remedy(RUN_MODULE)} ({answer.reason})"


def in_yolo(command: str | None, python: str | None, answer: Answer | None) -> Line:
    """Return whether the plugin is active in the `yolo` on the PATH."""
    if command is None:
        return NOTE, f"no `yolo` on the PATH: activate {sys.prefix} to use it"
    if answer is None:
        return WRONG, f"`yolo` is {command}: its Python was not found; activate {sys.prefix}"
    other = "" if answer.is_here else f", of another environment ({answer.prefix or python})"
    if answer.active:
        return OK, f"active in `yolo`, {command}{other}"
    remedy = _remedy(f"activate {sys.prefix}, or run `{python} -m pip install yolo-losses`" if other else RUN_MODULE)
    return WRONG, f"not active in `yolo`, {command}{other}: {remedy} ({answer.reason})"


def in_notebooks(kernels: dict[str, tuple[str, Answer]]) -> list[Line]:
    """Return whether the plugin is active in each of Jupyter's Python kernels, given its interpreter and its answer."""
    lines = []
    for name, (python, answer) in kernels.items():
        if answer.active:
            running = "one that runs already: `import yolo_losses`, or restart it"
            lines.append((OK, f"active in the notebook kernel {name}, {python}; {running}"))
        elif answer.is_here:
            lines.append((WRONG, f"not active in the notebook kernel {name}: {_remedy('`import yolo_losses` first')}"))
        else:
            install = f"`{python} -m pip install yolo-losses` for it"
            lines.append((NOTE, f"the notebook kernel {name} is of another environment, {install} ({answer.reason})"))
    return lines or [(NOTE, "no Jupyter kernel for Python on the PATH: in a notebook begin with `import yolo_losses`")]


def in_ray(answer: Answer | None) -> Line:
    """Return whether the plugin is active in Ray's workers."""
    if answer is None:
        return NOTE, "Ray is not installed"
    if answer.active:
        return OK, f"active in Ray's workers ({answer.prefix})"
    if not answer.prefix:
        return NOTE, f"Ray's workers were not asked: {answer.reason}"
    install = _remedy("install yolo-losses with pip on each node")
    return WRONG, f"not active in Ray's workers ({answer.prefix}): {install} ({answer.reason})"


def in_interpreter_without_site(answer: Answer) -> Line:
    """Return whether the plugin is active in `python -S`."""
    if answer.active:
        return OK, "active in `python -S`"
    module = "with the packages on PYTHONPATH use `python -S -m yolo_losses train ...`"
    return NOTE, f"not active in `python -S`, which reads no start-up files: {module}"


def keys() -> list[Line]:
    """Return the keys that Ultralytics has too, and the names of this package's keys in that case."""
    if not hook.is_active():  # then this package has added no keys
        return []
    renamed = renaming.renamed()
    if not renamed:
        return [(OK, f"all {len(settings.default_keys())} keys are this package's alone")]
    return [
        (NOTE, f"the key {key} is Ultralytics' own in this version: for this package's use {renaming.argument(key)}")
        for key in renamed
    ]


def kernel_pythons() -> dict[str, str]:
    """Return the interpreters of the Python kernels of the `jupyter` on the PATH, by the kernels' names."""
    command = shutil.which("jupyter")
    if command is None:
        return {}
    done = subprocess.run(
        [command, "kernelspec", "list", "--json"], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    try:
        found = {name: kernel["spec"] for name, kernel in json.loads(done.stdout)["kernelspecs"].items()}
    except (ValueError, KeyError):
        return {}
    programs = {name: spec["argv"][0] for name, spec in found.items() if spec.get("language") == "python"}
    # A kernel whose program is just `python` is run by the interpreter of Jupyter itself.
    return {
        name: python
        for name, program in programs.items()
        if (python := shutil.which(program) if os.path.dirname(program) else interpreter_of(command))
    }


def _remedy(otherwise: str) -> str:
    return "unset YOLO_LOSSES_DISABLE" if autoload.is_disabled() else otherwise


def interpreter_of(command: str) -> str | None:
    """Return the Python that a console script runs with: by its first lines, else the one installed beside it."""
    with open(command, "rb") as file:
        head = file.read(1024).decode(errors="replace")
    # `#!/path/python`, `#!/usr/bin/env python3`, or, where that is too long or has a space, `'''exec' "/path/python"`
    named = re.search(r"""^#!\s*(?:/usr/bin/env\s+)?(.*python[\d.]*)|'''exec' (?:"(/.+?)"|(/\S+))""", head)
    found = shutil.which(named[named.lastindex or 0]) if named else None
    folder = Path(command).resolve().parent
    # On Windows the command is a program in Scripts, whose Python lies beside it, or above it outside an environment.
    beside = [folder / "python", folder / "python.exe", folder.parent / "python.exe"]
    return found or next((str(path) for path in beside if path.is_file()), None)
