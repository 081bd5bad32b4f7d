"""What a release consists of: one version, a wheel and an sdist that install, the workflow that publishes them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, SITE_PACKAGES, Result, start

import yolo_losses

GITHUB = ROOT / ".github"
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PYTHONS = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
needs_github = pytest.mark.skipif(not GITHUB.is_dir(), reason="an sdist has no workflow")


def run(*command: str | Path, **options: Any) -> str:
    """Run a program of this environment and return what it printed."""
    words = [sys.executable, "-m", *map(str, command)]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and with the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run("build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    """The wheel."""
    return built / f"yolo_losses-{yolo_losses.__version__}-py3-none-any.whl"


@pytest.fixture(scope="session")
def sdist(built: Path) -> Path:
    """The sdist."""
    return built / f"yolo_losses-{yolo_losses.__version__}.tar.gz"


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def metadata(wheel: Path) -> Any:
    """The wheel's metadata, whose body is the long description."""
    (text,) = (content for name, content in contents(wheel).items() if name.endswith(".dist-info/METADATA"))
    return message_from_string(text.decode())


def test_the_version_is_that_of_the_citation_and_of_the_last_release_in_the_changelog() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == yolo_losses.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## \[(\d[^]]*)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert releases[0] == (yolo_losses.__version__, str(citation["date-released"]))


@pytest.mark.slow
def test_the_wheel_holds_the_package_its_configs_and_patches_and_the_start_up_files(wheel: Path) -> None:
    names = set(contents(wheel))
    source = {str(p.relative_to(ROOT).as_posix()) for p in (ROOT / "yolo_losses").rglob("*") if p.is_file()}
    data = {
        f"yolo_losses/{p.relative_to(ROOT).as_posix()}" for f in ("configs", "patches") for p in (ROOT / f).iterdir()
    }
    data.add("yolo_losses/references.bib")
    start_up = {"yolo_losses.pth", "yolo_losses.start", "yolo_losses_autoload.py"}
    moved = {f"yolo_losses/integration/autoload/{name}" for name in start_up}
    compiled = {name for name in source if "__pycache__" in name}
    assert {name for name in names if ".dist-info/" not in name} == (source | data | start_up) - moved - compiled
    assert metadata(wheel)["Version"] == yolo_losses.__version__


@pytest.mark.slow
def test_the_sdist_builds_the_wheel_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    run("build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT)
    assert contents(tmp_path / wheel.name) == contents(wheel)


@pytest.mark.slow
def test_the_distributions_pass_the_index_s_check(wheel: Path, sdist: Path) -> None:
    said = run("twine", "--no-color", "check", "--strict", wheel, sdist)
    assert said.count("PASSED") == 2


@pytest.mark.slow
def test_the_long_description_links_to_the_repository(wheel: Path) -> None:
    """Relative links, right in the repository, lead nowhere on the package index."""
    text = str(metadata(wheel).get_payload())
    targets = re.findall(
        r"\]\(([^)]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    )
    found = [link or attribute for link, attribute in targets]
    repository = [target for target in found if "/yolo-losses/yolo-losses/" in target]
    assert repository
    assert not [target for target in found if not target.startswith(("https://", "#"))]
    for target in repository:
        path = re.sub(r"^https://[^/]+/yolo-losses/yolo-losses/(?:blob/)?main/|#.*$", "", target)
        if path.startswith("https://"):  # a page of the host, such as a badge
            continue
        assert (ROOT / path).exists(), target
        assert ("raw" in target) == path.endswith((".png", ".svg"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment in which the wheel is installed, and that has what it needs from this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    (site,) = folder.rglob("site-packages")
    # Packages of a folder that is added this way are found behind its own, their start-up files are not read.
    (site / "packages.pth").write_text("\n".join(SITE_PACKAGES))
    subprocess.run(
        [binaries / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True
    )
    yolo = binaries / "yolo"
    yolo.write_text(
        f"#!{binaries / 'python'}\nimport sys\nfrom ultralytics.cfg import entrypoint\nsys.exit(entrypoint())\n"
    )
    yolo.chmod(0o755)
    return binaries


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="a console script is a program there")
def test_the_demo_passes_with_the_wheel_and_the_sdist_alone(installed: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (folder,) = tmp_path.iterdir()
    path = f"{installed}{os.pathsep}{os.environ['PATH']}"

    def program(*command: str | Path) -> Result:
        return start(*command, PATH=path, PYTHONPATH="")().check()

    said = program(installed / "yolo-losses", "doctor")
    assert said.saying(f"yolo_losses {yolo_losses.__version__} in {installed.parent}")
    assert said.saying(f"  ok  active in `yolo`, {installed / 'yolo'}")
    assert "slide" in program(installed / "yolo-losses", "config").lines
    said = program(installed / "python", folder / "examples" / "demo.py", "epochs=2")
    assert said.saying("yolo_losses: ran in the first batch with objects: class")
    assert (folder / "runs" / "demo" / "predictions.png").is_file()


@needs_github
def test_the_workflow_tests_the_claimed_pythons_by_targets_of_the_makefile() -> None:
    workflow = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    test = workflow["jobs"]["test"]
    assert test["strategy"]["matrix"]["python"] == PYTHONS
    assert f'requires-python = ">={PYTHONS[0]}"' in PYPROJECT
    commands = [step["run"] for step in test["steps"] if "run" in step]
    assert "make test" in commands
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {found for command in commands for found in re.findall(r"^make (\w+)$", command, re.MULTILINE)} <= set(
        targets
    )


@needs_github
def test_only_a_tag_publishes_what_was_tested_and_built_by_trusted_publishing() -> None:
    jobs = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    publish = jobs["publish"]
    assert "github.ref_type == 'tag'" in publish["if"]
    assert set(publish["needs"]) == {"test", "build"}
    assert (publish["environment"], publish["permissions"]) == ("pypi", {"id-token": "write"})
    artifacts = [
        s["with"] for job in (jobs["build"], publish) for s in job["steps"] if "-artifact@" in s.get("uses", "")
    ]
    assert len({(a["name"], a["path"]) for a in artifacts}) == 1
    assert not any(step.get("with", {}).get("password") for step in publish["steps"])
    for job in jobs.values():
        for step in job["steps"]:
            assert re.fullmatch(r"[\w./-]+@(v\d+|release/v\d+)", step.get("uses", "a@v1"))


@needs_github
def test_a_bug_report_asks_for_the_doctor_and_a_request_for_the_paper() -> None:
    forms = {p.stem: yaml.safe_load(p.read_text(encoding="utf-8")) for p in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml")}
    assert set(forms) == {"bug", "loss", "config"}

    def required(form: str) -> set[str]:
        return {field["id"] for field in forms[form]["body"] if field.get("validations", {}).get("required")}

    assert {"doctor", "command", "log"} <= required("bug")
    assert {"name", "paper", "formula"} <= required("loss")
    (doctor,) = (field for field in forms["bug"]["body"] if field["id"] == "doctor")
    assert "`yolo-losses doctor`" in doctor["attributes"]["label"]


def test_pre_commit_runs_what_make_test_checks_first() -> None:
    config = ROOT / ".pre-commit-config.yaml"
    if not config.is_file():
        pytest.skip("an sdist has no pre-commit configuration")
    (repository,) = yaml.safe_load(config.read_text(encoding="utf-8"))["repos"]
    assert [(hook["entry"], hook["language"]) for hook in repository["hooks"]] == [("make lint", "system")]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^test: lint\b", makefile, re.MULTILINE)
