"""`yolo-losses patch`: wire the plugin into the files of an Ultralytics that start-up files do not reach."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from pathlib import Path

HELP = "wire yolo_losses into the files of a vendored or old Ultralytics, with `git apply`"
EXAMPLES = """\
examples:
  yolo-losses patch path/to/fork --check     print what would be changed
  yolo-losses patch path/to/fork             apply the patch; then `yolo train ... cls_loss=slide` works in the fork
  yolo-losses patch path/to/fork --reverse   remove the patch
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("path", type=Path, help="a checkout or the `ultralytics` package folder itself")
    parser.add_argument("--check", action="store_true", help="print what would happen, without changing anything")
    parser.add_argument("--reverse", action="store_true", help="remove the patch")


def run(args: argparse.Namespace) -> int:
    """Apply or remove the patch that fits; if that is already done, say so and change nothing.

    Raises:
        ValueError: if git is missing, the path is no Ultralytics, or no patch fits it.
    """
    if shutil.which("git") is None:
        raise ValueError(f"git is not on the PATH: `patch` needs its `git apply` (the patches are in {folder()})")
    package = find_package(args.path)
    version = package_version(package)
    what = f"{package} (ultralytics {version})"
    candidates = patches_for(version)
    fits, fits_reverse = (next((p for p in candidates if not apply_errors(package, p, r)), None) for r in (False, True))
    if fits and fits_reverse:
        raise ValueError(f"git apply skips the files of {what}: is there a '{os.pathsep}' in the path?")
    chosen, undone = (fits_reverse, fits) if args.reverse else (fits, fits_reverse)
    if undone:
        print(f"{what}: {'not patched, nothing to remove' if args.reverse else 'already patched'}")
        return 0
    if chosen is None:
        where = ", ".join(apply_errors(package, candidates[0], args.reverse))
        raise ValueError(f"{what}: no patch {'can be removed' if args.reverse else 'fits'}, nothing changed: {where}")
    if not args.check:
        apply(package, chosen, args.reverse)
    would = "would be " if args.check else ""
    print(f"{what}: {chosen.name} {would}{'removed' if args.reverse else 'applied'}")
    return 0


def folder() -> Path:
    """Return the folder of the patches: in the package, or beside it in a checkout."""
    inside = Path(__file__).parents[1] / "patches"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "patches"


def find_package(path: Path) -> Path:
    """Return the package folder of Ultralytics: `path` itself, or the one in it."""
    for package in (path, path / "ultralytics"):
        if (package / "cfg" / "default.yaml").is_file() and (package / "engine" / "trainer.py").is_file():
            return package.resolve()
    problem = (
        "not an Ultralytics: neither the folder nor an 'ultralytics' in it has cfg/default.yaml and engine/trainer.py"
    )
    raise ValueError(f"{path}: {problem if path.exists() else 'does not exist'}")


def package_version(package: Path) -> str:
    """Read the version of a package folder without importing it."""
    text = (package / "__init__.py").read_text(encoding="utf-8") if (package / "__init__.py").is_file() else ""
    found = re.search(r"^__version__ = ['\"]([^'\"]+)", text, re.MULTILINE)
    return found[1] if found else "of unknown version"


def patches_for(version: str) -> list[Path]:
    """Return the patches, best match first: of the same version or the last one before it, then the later ones."""

    def numbers(text: str) -> list[int]:
        return [int(n) for n in re.findall(r"\d+", text)]

    patches = sorted(folder().glob("ultralytics-*.patch"), key=lambda p: numbers(p.stem))
    before = [p for p in patches if numbers(p.stem) <= numbers(version)]
    return before[::-1] + patches[len(before) :]


def apply_errors(package: Path, patch: Path, reverse: bool = False) -> list[str]:
    """Return why a patch cannot be applied or removed; empty if it fits."""
    done = _git_apply(package, patch, reverse, "--check")
    said = done.stderr.decode(errors="replace")
    problems = re.findall(r"^error: (.*(?:does not apply|No such file).*)$", said, re.MULTILINE)
    return problems or ([" ".join(said.split()) or "git failed"] if done.returncode else [])


def apply(package: Path, patch: Path, reverse: bool) -> None:
    """Apply or remove a patch that fits; if a file cannot be written, the others are restored.

    Raises:
        ValueError: if git fails.
    """
    before = {path: path.read_bytes() for path, _ in _by_file(package, patch)}
    done = _git_apply(package, patch, reverse)
    if done.returncode:
        for path, content in before.items():
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)
        raise ValueError(f"{package}: nothing changed: {' '.join(done.stderr.decode(errors='replace').split())}")


def _by_file(package: Path, patch: Path) -> list[tuple[Path, bytes]]:
    """Return the files that a patch is for, each with its part of the patch."""
    text = patch.read_bytes().replace(b"\r\n", b"\n")
    parts = re.split(rb"^(?=diff --git )", text, flags=re.MULTILINE)[1:]
    return [(package / part.split()[2].decode().split("/", 2)[2], part) for part in parts]


def _git_apply(package: Path, patch: Path, reverse: bool, *options: str) -> subprocess.CompletedProcess[bytes]:
    lines = b""
    for path, part in _by_file(package, patch):
        head, at, hunks = part.partition(b"@@")
        if path.is_file() and b"\r\n" in path.read_bytes():  # as git checks files out on Windows
            hunks = hunks.replace(b"\n", b"\r\n")
        lines += head + at + hunks
    # Inside a repository, git apply expects paths relative to its root, and silently skips others. Therefore git must
    # not look for a repository above the package folder. `-p2` strips `a/ultralytics/`, whatever the folder is called.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {"GIT_CEILING_DIRECTORIES": str(package.parent), "LC_ALL": "C"}
    command = ["git", "apply", "-p2", "--whitespace=nowarn", *(["--reverse"] if reverse else []), *options]
    return subprocess.run(command, cwd=package, env=environment, input=lines, capture_output=True)
