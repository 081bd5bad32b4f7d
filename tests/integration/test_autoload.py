"""The start-up file and its finder, with made-up packages; and that it knows no module of Ultralytics by name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import start
from ultralytics.engine import trainer  # noqa: F401 loaded, and so patched
from ultralytics.utils import DEFAULT_CFG_DICT

from yolo_losses.integration import hook
from yolo_losses.integration.autoload import yolo_losses_autoload as autoload

# A package whose modules import each other, and note when their bodies have been executed.
CIRCLE = {
    "__init__": "import made_up.first; done = True",
    "first": "import made_up.second; done = True",
    "second": "import made_up.first; done = True",
    "broken": "raise ValueError('broken')",
}


def write(folder: Path, modules: dict[str, str], package: str = "made_up") -> Path:
    """Write a package, and return the folder that it is in."""
    (folder / package).mkdir(parents=True)
    for name, text in modules.items():
        (folder / package / f"{name}.py").write_text(text + "\n", encoding="utf-8")
    return folder


def zipped(folder: Path) -> Path:
    """Return a zip file of what is in a folder."""
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*.py"):
            file.write(path, path.relative_to(folder))
    return archive


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Put a package on the path, and a finder that waits for some of its modules in front of all others."""
    finders: list[autoload.PostImportFinder] = []

    def put(place: Path, names: set[str], call: Callable[[ModuleType], None]) -> autoload.PostImportFinder:
        monkeypatch.syspath_prepend(place)
        finders.append(autoload.PostImportFinder(names, call))
        sys.meta_path.insert(0, finders[-1])
        return finders[-1]

    monkeypatch.setattr(autoload, "_failure_reported", False)
    yield put
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in finders]
    for name in [name for name in sys.modules if name.partition(".")[0] == "made_up"]:
        del sys.modules[name]


@pytest.mark.parametrize("pack", [Path, zipped], ids=["folder", "zip"])
def test_each_module_is_passed_on_once_when_its_body_has_been_executed(
    pack: Callable[[Path], Path], made_up: Callable[..., Any], tmp_path: Path
) -> None:
    seen: list[tuple[str, bool]] = []
    names = {"made_up", "made_up.first", "made_up.second"}
    made_up(pack(write(tmp_path / "p", CIRCLE)), names, lambda m: seen.append((m.__name__, hasattr(m, "done"))))
    import made_up as package  # type: ignore[import-not-found]

    assert seen == [("made_up.second", True), ("made_up.first", True), ("made_up", True)]
    assert inspect.getsource(package).startswith("import made_up.first")
    assert "PostImportFinder" not in type(package.__spec__.loader).__name__
    importlib.reload(package)
    assert set(seen[3:]) == {("made_up", True)}  # the loader of a zip file is one for all, and wrapped again


def test_a_module_that_fails_is_passed_on_when_it_is_imported_again_and_succeeds(
    made_up: Callable[..., Any], tmp_path: Path
) -> None:
    seen: list[str] = []
    place = write(tmp_path, CIRCLE)
    made_up(place, {"made_up.broken"}, lambda module: seen.append(module.__name__))
    with pytest.raises(ValueError, match="broken"):
        importlib.import_module("made_up.broken")
    assert seen == []
    (place / "made_up" / "broken.py").write_text("whole = True  # now\n")
    importlib.invalidate_caches()
    assert importlib.import_module("made_up.broken").whole
    assert seen == ["made_up.broken"]


def test_an_error_of_the_plugin_is_one_line_for_all_modules(
    made_up: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_up(write(tmp_path, CIRCLE), {"made_up", "made_up.first"}, lambda module: 1 / 0)  # type: ignore[arg-type]
    assert importlib.import_module("made_up").done
    assert capsys.readouterr().err == "yolo_losses: not active: ZeroDivisionError: division by zero\n"


def test_a_namespace_package_of_that_name_is_imported_without_a_word(
    made_up: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clone of Ultralytics' repository is a folder of its name, in which the package is one level deeper."""
    (tmp_path / "made_up").mkdir()
    seen: list[Any] = []
    made_up(tmp_path, {"made_up"}, seen.append)
    assert importlib.import_module("made_up").__file__ is None
    assert seen == []
    assert capsys.readouterr().err == ""


def test_a_finder_behind_may_search_the_whole_import_system(made_up: Callable[..., Any], tmp_path: Path) -> None:
    class Searching:
        busy = False

        def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
            if self.busy or name != "made_up.second":
                return None
            Searching.busy = True
            try:
                return importlib.util.find_spec(name)
            finally:
                Searching.busy = False

    seen: list[str] = []
    made_up(write(tmp_path, CIRCLE), {"made_up.second"}, lambda module: seen.append(module.__name__))
    other = Searching()
    sys.meta_path.insert(1, other)
    try:
        importlib.import_module("made_up.second")
    finally:
        sys.meta_path.remove(other)
    assert seen == ["made_up.second"]


def test_threads_that_import_at_once_have_each_module_passed_on_once(
    made_up: Callable[..., Any], tmp_path: Path
) -> None:
    slow = dict.fromkeys(("__init__", "first", "second"), "import time; time.sleep(0.05); done = True")
    seen: list[str] = []
    names = {"made_up", "made_up.first", "made_up.second"}
    made_up(write(tmp_path, slow), names, lambda module: seen.append(module.__name__))
    barrier = threading.Barrier(6)

    def load(name: str) -> None:
        barrier.wait(60)
        importlib.import_module(name)

    threads = [threading.Thread(target=load, args=[f"made_up.{name}"]) for name in ("first", "second") * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(seen) == sorted(names)


def test_the_start_up_file_leaves_the_finder_of_an_active_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    assert hook._finder in sys.meta_path
    autoload.install()
    assert hook._finder in sys.meta_path


# What the hook makes of it.
def test_a_module_that_installs_the_hook_while_it_is_loaded_is_patched_when_it_is_complete(
    made_up: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    monkeypatch.setitem(hook.PATCHES, "made_up", lambda module: seen.append(hasattr(module, "done")))  # type: ignore[misc]
    installing = "from yolo_losses.integration import hook\nhook.install()\ndone = True"
    made_up(write(tmp_path, {"__init__": installing}), set(), seen.append)
    importlib.import_module("made_up")
    assert seen == [True]


def test_a_module_that_is_loaded_while_the_package_is_uninstalled_is_left_alone(
    made_up: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    for name in ("made_up.first", "made_up.second"):
        monkeypatch.setitem(hook.PATCHES, name, lambda module: seen.append(module.__name__))  # type: ignore[misc]
    uninstalling = "import made_up.second\nfrom yolo_losses.integration import hook\nhook.uninstall()"
    made_up(write(tmp_path, {"__init__": "", "first": uninstalling, "second": ""}), set(), seen.append)
    try:
        importlib.import_module("made_up.first")
        assert seen == ["made_up.second"]
    finally:
        hook.install()
    assert seen[1:] == ["made_up.first", "made_up.second"]  # what is loaded


def test_a_patch_that_fails_undoes_all_of_them(
    made_up: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With some of the patches a key could be accepted, and a stock loss trained."""

    def fail(module: ModuleType) -> None:
        raise RuntimeError("this Ultralytics has no such class")

    monkeypatch.setitem(hook.PATCHES, "made_up", fail)  # type: ignore[misc]
    made_up(write(tmp_path, CIRCLE), set(), fail)
    try:
        assert hook.is_active()
        importlib.import_module("made_up")
        words = "yolo_losses: not active: RuntimeError: this Ultralytics has no such class\n"
        assert capsys.readouterr().err == words
        assert not hook.is_active()
        assert "cls_loss" not in DEFAULT_CFG_DICT
        with pytest.raises(RuntimeError, match="no such class"):
            hook.install()
        assert not hook.is_active()
        assert "cls_loss" not in DEFAULT_CFG_DICT
    finally:
        monkeypatch.undo()
        hook.install()
    assert hook.is_active()
    assert "cls_loss" in DEFAULT_CFG_DICT


# The start-up file in a fresh interpreter, with an Ultralytics and a plugin that are made up.
PLUGIN = "def install(): print('installed with', [name for name in sys.modules if name[:5] == 'ultra'])"
FRESH: dict[str, tuple[str, list[str]]] = {
    "no Ultralytics": ("import json", []),
    "Ultralytics": (
        "import ultralytics; import ultralytics.cfg",
        ["installed with ['ultralytics', 'ultralytics.utils']"],
    ),
    "read twice": (
        "import yolo_losses_autoload; yolo_losses_autoload.install(); import ultralytics",
        ["installed with ['ultralytics', 'ultralytics.utils']"],
    ),
    "the package is being imported in another thread": (
        "import threading, time; other = threading.Thread(target=__import__, args=['yolo_losses']); other.start();"
        " time.sleep(0.2); import ultralytics; other.join()",
        ["installed with ['ultralytics', 'ultralytics.utils']", "package imported"],
    ),
}


@pytest.mark.parametrize("pack", [Path, zipped], ids=["folder", "zip"])
@pytest.mark.parametrize("case", FRESH)
def test_the_hook_is_installed_when_ultralytics_has_been_loaded(
    case: str, pack: Callable[[Path], Path], tmp_path: Path
) -> None:
    code, expected = FRESH[case]
    write(tmp_path / "p", {"__init__": "import ultralytics.utils", "utils": "", "cfg": ""}, "ultralytics")
    write(tmp_path / "p", {"__init__": "import time; time.sleep(0.6); print('package imported')"}, "yolo_losses")
    write(tmp_path / "p" / "yolo_losses", {"__init__": "", "hook": f"import sys\n{PLUGIN}"}, "integration")
    done = start(sys.executable, "-c", code, PYTHONPATH=str(pack(tmp_path / "p")))().check()
    assert [line for line in done.lines if line != "package imported" or line in expected] == expected
