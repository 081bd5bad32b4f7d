"""The grid of a comparison: axes, cells, names, and what is refused before the first run."""

from __future__ import annotations

import itertools
import re
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from yolo_losses.comparison import dataset, estimate, folders
from yolo_losses.comparison.dataset import data_hash, read_data
from yolo_losses.comparison.driver import dry_run, prepare
from yolo_losses.comparison.grid import Grid, Run, build, find_baseline
from yolo_losses.comparison.options import Options
from yolo_losses.comparison.words import merge, read_configuration, read_keywords, read_words, split_at_commas


def grid(data: Path, *words: str) -> Grid:
    return build(read_words(["model=yolov8n.yaml", f"data={data}", *words]))


def options(out: Path, **keys: Any) -> Options:
    pytest.importorskip("rich")
    pytest.importorskip("scipy")
    return Options(out=out, **keys)


def baseline(of: Grid, wanted: Any) -> dict[str, Any]:
    return find_baseline(wanted, [cell.configuration for cell in of.cells])


def names(of: Grid) -> list[str]:
    return [cell.name for cell in of.cells]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("bce,focal", ["bce", "focal"]),
        ("[0,1]", ["[0,1]"]),
        ("[0,1],[2]", ["[0,1]", "[2]"]),
        ("(0.5,1.5),1", ["(0.5,1.5)", "1"]),
        ("'a,b',c", ["'a,b'", "c"]),
    ],
)
def test_commas_outside_brackets_and_quotes_make_an_axis(text: str, parts: list[str]) -> None:
    assert split_at_commas(text) == parts


def test_a_grid_is_the_product_of_its_axes_and_seeds(data: Path) -> None:
    found = grid(data, "cls_loss=bce,focal", "box_loss=ciou,siou", "imgsz=32,64", "seed=0,1,2")
    assert len(found.cells) == 8
    assert len(found.runs(Path("out"))) == 24
    assert found.cells[0].configuration == {"imgsz": 32, "cls_loss": "bce", "box_loss": "ciou"}
    assert found.cells[0].settings["imgsz"] == 32
    assert len({cell.folder for cell in found.cells}) == 8


def test_values_are_parsed_as_yolo_does(data: Path) -> None:
    settings = grid(data, "lr0=0.02", "classes=[0,1]", "cos_lr", "epochs", "=", "3", "time=None").settings
    assert settings["lr0"] == 0.02
    assert settings["classes"] == [0, 1]
    assert settings["cos_lr"] is True
    assert settings["epochs"] == 3


def test_parameters_of_a_loss_make_no_copies_of_cells_without_it(data: Path) -> None:
    found = grid(data, "cls_loss=bce,focal", "focal_gamma=1,2", "focal_alpha=0.5")
    assert names(found) == ["cls_loss=bce", "cls_loss=focal focal_gamma=1", "cls_loss=focal focal_gamma=2"]
    assert "focal_alpha" not in found.cells[0].settings
    assert found.cells[1].settings["focal_alpha"] == 0.5


def test_a_configuration_beside_the_grid_has_the_first_value_of_what_it_does_not_name(data: Path) -> None:
    request = read_words(["model=yolov8n.yaml", f"data={data}", "cls_loss=bce,focal", "imgsz=32,64", "seed=0-2"])
    request.also = [read_configuration("cls_loss=focal cls_scale=auto"), read_configuration({"box_loss": "nwd"})]
    found = build(request)
    assert names(found)[4:] == ["imgsz=32 cls_loss=focal cls_scale=auto", "imgsz=32 cls_loss=bce box_loss=nwd"]
    assert found.cells[4].settings["cls_scale"] == "auto"
    assert found.cells[0].configuration == {"imgsz": 32, "cls_loss": "bce"}
    assert len(found.runs(Path("out"))) == 18
    assert not found.lacks_baseline


def test_configurations_beside_the_grid_are_added_to_a_folder_later(data: Path, tmp_path: Path) -> None:
    first = grid(data, "cls_loss=bce,focal", "seed=0-2")
    folders.write_comparison(first, tmp_path, "", {})
    request = read_words(["model=yolov8n.yaml", f"data={data}", "cls_loss=bce", "seed=0-2"])
    request.also = [read_configuration("cls_loss=focal cls_scale=auto")]
    folders.write_comparison(build(request), tmp_path, "", {})
    cells = [cell["name"] for cell in folders.read_comparison(tmp_path)["cells"]]
    assert cells == ["cls_loss=bce", "cls_loss=focal", "cls_loss=focal cls_scale=auto"]


def test_a_baseline_is_the_configuration_with_these_keys_alone_where_there_is_one(data: Path) -> None:
    request = read_words(["model=yolov8n.yaml", f"data={data}", "cls_loss=stock"])
    request.also = [read_configuration("cls_loss=focal cls_scale=auto"), read_configuration("cls_loss=focal")]
    assert baseline(build(request), "cls_loss=focal") == {"cls_loss": "focal"}
    assert baseline(build(request), "cls_scale=auto") == {"cls_loss": "focal", "cls_scale": "auto"}


def test_every_data_set_has_the_configurations_beside_the_grid(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(data.read_text())
    request = read_words(["model=yolov8n.yaml", f"data={data},{other}", "cls_loss=bce"])
    request.also = [read_configuration("cls_loss=focal")]
    assert [(cell.name, cell.data) for cell in build(request).cells] == [
        ("cls_loss=bce", str(data)),
        ("cls_loss=bce", str(other)),
        ("cls_loss=focal", str(data)),
        ("cls_loss=focal", str(other)),
    ]


@pytest.mark.parametrize(
    ("also", "message"),
    [
        ("cls_loss=focal,vfl", "'also': 'cls_loss' has 2 values"),
        (3, "'also': 3 is not a configuration"),
        ("seed=3", "'also': 'seed' applies to the whole comparison"),
        ("", "'also' names no key"),
        ("nwd_constant=20", "'also': 'nwd_constant' would change nothing"),
        ("cls_loss=focal", "'cls_loss=focal' is in the grid twice"),
        ("cls_loss=slid", "'cls_loss=slid' is not valid"),
        ("cls_loss='vfl", "'also': No closing quotation"),
        ("name=a", "'also': 'name' is not for compare"),
        ("resume", "'also': 'resume' is not for compare"),
        ("val", "'also': 'mode' applies to the whole comparison"),
        ("device=1", "'also': 'device' applies to the whole comparison"),
        ("epochs=100", "'epochs=100 cls_loss=bce' trains the same as 'cls_loss=bce'"),
        ("cls_loss=focal focal_gamma=1.5", "'cls_loss=focal focal_gamma=1.5' trains the same as 'cls_loss=focal'"),
    ],
)
def test_an_invalid_configuration_is_rejected(also: str, message: str, data: Path) -> None:
    shared = read_words(["model=yolov8n.yaml", f"data={data}", "cls_loss=bce,focal"])
    with pytest.raises(ValueError, match=re.escape(message)):
        build(replace(shared, also=[read_configuration(also)]))


def test_class_weights_in_brackets_are_one_value_of_an_axis(data: Path) -> None:
    found = grid(data, "cls_weights=none,balanced,[1,2,5]", "cls_weights_beta=0.9,0.99")
    assert names(found) == [
        "cls_weights=none",
        "cls_weights=balanced cls_weights_beta=0.9",
        "cls_weights=balanced cls_weights_beta=0.99",
        "cls_weights=[1,2,5]",
    ]
    assert baseline(found, "cls_weights=[1, 2.0, 5]") == {"cls_weights": [1.0, 2.0, 5.0]}
    assert baseline(found, "cls_weights=balanced,cls_weights_beta=0.99")["cls_weights_beta"] == 0.99
    with pytest.raises(ValueError, match=r"^'cls_weights=1' is not valid: allowed are a list of numbers"):
        grid(data, "cls_weights=1,2,5")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["l1_loss=stock,l1"], "'l1_loss=l1' is not valid: "),
        (["cls_loss=stock,focal", "o2m_end=0.5"], "'o2m_end=0.5' is not valid: this head has one branch"),
        (
            ["cls_weights=none,balanced", "cls_pw=0.5"],
            "'cls_weights=balanced' cannot be used together with ",
        ),
        (["cls_weights=none,[1,2]"], "'cls_weights=[1.0, 2.0]' is not valid: allowed are as many numbers"),
    ],
)
def test_a_value_that_any_run_would_reject_is_rejected_before_the_first_run(
    data: Path, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="^" + re.escape(message)) as refusal:
        grid(data, *words)
    assert "\n" not in str(refusal.value)
    grid(data, "cls_loss=stock,focal", "kobj_loss=stock")
    assert not list(tmp_path.iterdir()), "a training was begun"


def test_names_do_not_depend_on_spelling_or_order_of_the_words(data: Path) -> None:
    one = grid(data, "box_loss=inner_siou,ciou", "cls_loss=focal")
    other = grid(data, "cls_loss=Focal", "box_loss=Inner-SIoU,ciou")
    assert names(one) == names(other)
    assert [c.folder for c in one.cells] == [c.folder for c in other.cells]


def test_a_single_loss_has_the_name_that_it_has_in_a_grid_with_more(data: Path) -> None:
    assert names(grid(data, "cls_loss=bce"))[0] == names(grid(data, "cls_loss=bce,focal"))[0] == "cls_loss=bce"


def test_data_sets_are_told_apart_by_folder_and_left_out_of_the_configuration(datasets: Any) -> None:
    one, other = datasets("detect"), datasets("segment")
    found = build(read_words(["model=yolov8n.yaml", f"data={one},{other}", "cls_loss=bce,focal"]))
    assert [c.data for c in found.cells] == [str(one), str(one), str(other), str(other)]
    assert len({c.folder for c in found.cells}) == 4
    assert all(set(c.configuration) == {"cls_loss"} for c in found.cells)


def test_a_file_holds_a_grid_and_words_win_over_it(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("mode: train\nepochs: 7\nimgsz: 64\ngrid:\n  cls_loss: [bce, focal]\n  seed: [0, 1]\n")
    found = grid(data, f"cfg={path}", "imgsz=32", "seed=5")
    assert names(found) == ["cls_loss=bce", "cls_loss=focal"]
    assert (found.settings["epochs"], found.settings["imgsz"], found.seeds) == (7, 32, (5,))


def test_a_list_of_class_weights_is_one_value() -> None:
    assert read_keywords({"cls_weights": [1, 2, 5]}).settings == {"cls_weights": [1, 2, 5]}
    assert read_keywords({"cls_weights": [[1, 2, 5], "balanced"]}).axes == {"cls_weights": [[1, 2, 5], "balanced"]}


def test_keywords_give_the_grid_of_the_words(data: Path) -> None:
    words = read_words(["model=yolov8n.yaml", f"data={data}", "cls_loss=bce,focal", "seed=0,1", "classes=[0,1]"])
    keywords = read_keywords(
        {"model": "yolov8n.yaml", "data": data, "cls_loss": ["bce", "focal"], "seed": "0,1", "classes": [[0, 1]]}
    )
    assert build(keywords) == build(words)
    assert merge(words, keywords) == keywords


def test_the_baseline_is_the_first_cell_or_the_one_that_is_named(data: Path) -> None:
    found = grid(data, "cls_loss=bce,focal", "box_loss=ciou,siou")
    assert baseline(found, None) == {"cls_loss": "bce", "box_loss": "ciou"}
    assert baseline(found, "cls_loss=Focal") == {"cls_loss": "focal", "box_loss": "ciou"}
    assert baseline(found, {"cls_loss": "focal", "box_loss": "siou"}) == {"cls_loss": "focal", "box_loss": "siou"}


REFUSED = [
    (["cls_loss=bce,focl"], "'cls_loss=focl'.*Did you mean 'focal'"),
    (["cls_loss=bce,focal", "focal_gamma=high"], "'focal_gamma=high'"),
    (["cls_loss=bce", "focal_gamma=2"], "'focal_gamma' would change nothing"),
    (["box_loss=ciou,probiou"], "'box_loss=probiou' is not for axis-aligned"),
    (["cls_loss=bce,BCE"], "twice"),
    (["cls_loss=bce,"], "lacks a value"),
    (["seed=0,0"], "'seed' has a repeated value"),
    (["seed=0,x"], "seed=x"),
    (["epoch=3"], "'epoch' is not a valid YOLO argument"),
    (["epochs=abc"], "epochs=abc"),
    (["epochs=1,abc"], "epochs=abc"),
    (["nonsense"], "'nonsense' is not a key"),
    (["epochs"], "'epochs' lacks a value"),
    (["device=0,1"], "--devices"),
    (["device=[0,1]"], "--devices"),
    (["project=x"], "--out"),
    (["resume=True"], "continues"),
    (["mode=val"], "trains"),
    (["model=none.yaml"], "model=none.yaml"),
    (["model=yolov8n-cls.yaml"], "classify"),
    (["cfg=none.yaml"], "none.yaml"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=lambda value: "_".join(value)[:30])
def test_a_wrong_value_is_refused_in_one_line(data: Path, words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        grid(data, *words)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"metric": "map"}, "--metric map"),
        ({"metric": "map50@first"}, "--metric map50@first.*@best, @last, @mean"),
        ({"metric": "map75@mean"}, "--metric map75@mean"),
        ({"rope": -1}, "--rope"),
        ({"jobs": 0}, "--jobs"),
        ({"devices": "a"}, "--devices"),
        ({"devices": "0,0"}, "--devices"),
        ({"devices": "0,1", "jobs": 3}, "leave one out"),
        ({"engine": "slurm"}, "--engine"),
        ({"address": "x"}, "--engine ray"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(tmp_path, **keys)


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ("focal", "Did you mean 'cls_loss=focal'?"),
        ("siou", "Did you mean 'box_loss=siou'?"),
        ("inner-siou", "Did you mean 'box_loss=inner-siou'?"),
        ("fast", "allowed is KEY=VALUE."),
    ],
)
def test_a_baseline_without_its_key_is_refused_with_it(data: Path, wanted: str, hint: str) -> None:
    found = grid(data, "cls_loss=bce,focal", "box_loss=ciou,siou")
    with pytest.raises(ValueError, match=re.escape(hint)) as refused:
        baseline(found, wanted)
    assert str(refused.value).startswith(f"--baseline: '{wanted}' has no key")
    assert str(refused.value).endswith(hint)


def test_a_baseline_that_is_not_in_the_grid_is_refused(data: Path) -> None:
    found = grid(data, "cls_loss=bce,focal")
    with pytest.raises(ValueError, match="no configuration has 'cls_loss=slide'"):
        baseline(found, "cls_loss=slide")
    with pytest.raises(ValueError, match="'epochs' is not an axis"):
        baseline(found, "epochs=3")


def test_a_missing_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.yaml"):
        read_data(str(tmp_path / "nowhere.yaml"))


def test_the_hash_of_a_data_set_follows_its_labels(tmp_path: Path) -> None:
    from make_dataset import make_dataset

    one = make_dataset(tmp_path / "one", train=2, val=2, imgsz=32)
    moved = make_dataset(tmp_path / "moved", train=2, val=2, imgsz=32)
    before = data_hash(read_data(str(one)))
    assert before == data_hash(read_data(str(moved)))
    label = next((tmp_path / "one" / "labels" / "val").glob("*.txt"))
    label.write_text(label.read_text() + "0 0.5 0.5 0.1 0.1\n")
    assert before != data_hash(read_data(str(one)))


def test_a_folder_rejects_other_settings_and_accepts_more_losses(tmp_path: Path, data: Path) -> None:
    folders.write_comparison(grid(data, "epochs=2", "cls_loss=bce,focal", "seed=0"), tmp_path, "", {})
    folders.write_comparison(grid(data, "epochs=2", "cls_loss=slide", "seed=1"), tmp_path, "", {})
    text = (tmp_path / folders.COMPARISON_FILE).read_text()
    assert all(f'"cls_loss={name}"' in text for name in ("bce", "focal", "slide"))
    with pytest.raises(ValueError, match="epochs=2, not 3"):
        folders.check_folder(grid(data, "epochs=3", "cls_loss=bce"), tmp_path)
    with pytest.raises(ValueError, match="a comparison of cls_loss"):
        folders.check_folder(grid(data, "epochs=2", "cls_loss=bce", "box_loss=ciou"), tmp_path)


WORDS = ["model=yolov8n.yaml", "imgsz=64"]


def test_a_dry_run_shows_the_grid_with_time_and_disk_and_starts_nothing(tmp_path: Path, data: Path) -> None:
    words = [*WORDS, f"data={data}", "device=cpu", "cls_loss=bce,focal", "seed=0-2"]
    text = dry_run(read_words(words), options(tmp_path / "out"))
    assert "cls_loss=bce  (baseline)" in text
    assert "2 configurations, 3 seeds (0, 1, 2): 6 runs" in text
    assert re.search(r"time: about \d+ (s|min), 1 at a time \(from a trial step", text)
    assert re.search(r"disk: about \d+ MB, and 0\.\d GB more", text)
    assert "one seed" not in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "size", "trained"),
    [
        (["imgsz=64"], 64, 40),
        ([], 96, 40),  # of the checkpoint, as by `yolo train`
        (["fraction=0.5"], 96, 20),
        (["fraction=0.001"], 96, 1),
        (["fraction=7"], 96, 7),
        (["fraction=70"], 96, 40),
    ],
)
def test_the_estimate_is_of_the_images_and_the_size_that_are_trained(
    words: list[str], size: int, trained: int, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    class Network(torch.nn.Conv2d):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert images.shape[2:] == (size, size)
            return super().forward(images)

    loaded = SimpleNamespace(model=Network(3, 1, 1), overrides={"imgsz": 96})
    clock = itertools.count()
    monkeypatch.setattr(estimate, "load_model", lambda *_: loaded)
    monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: next(clock)))  # a second a step
    monkeypatch.setattr(dataset, "count_images", lambda description, split: {"train": 40, "val": 30}[split])
    found = grid(data, "device=cpu", *words)
    run = Run(found.cells[0], 0, data.parent)
    assert estimate.seconds_per_epoch(run, {}) == (trained + 10) / 2  # in batches of 2


def test_a_dry_run_warns_of_one_seed_and_of_no_baseline(tmp_path: Path, data: Path) -> None:
    text = dry_run(read_words([*WORDS, f"data={data}", "device=cpu", "cls_loss=bce,focal"]), options(tmp_path))
    assert "one seed does not show how much results vary by chance" in text
    text = dry_run(read_words([*WORDS, f"data={data}", "device=cpu", "seed=0-2"]), options(tmp_path))
    assert "there is one configuration" in text


def test_a_range_of_seeds_is_each_of_them(tmp_path: Path, data: Path) -> None:
    assert grid(data, "cls_loss=bce,focal", "seed=0-4").seeds == (0, 1, 2, 3, 4)
    assert grid(data, "cls_loss=bce,focal", "seed=0-1,7, 9-10").seeds == (0, 1, 7, 9, 10)
    assert read_keywords({"seed": "3-5"}).axes == {"seed": [3, 4, 5]}
    assert read_keywords({"seed": range(2)}).axes == {"seed": [0, 1]}
    path = tmp_path / "grid.yaml"
    path.write_text("grid:\n  cls_loss: [bce, focal]\n  seed: [0-2]\n")
    assert grid(data, f"cfg={path}").seeds == (0, 1, 2)


def test_the_size_of_a_grid_is_checked_before_it_is_built(data: Path) -> None:
    values = ",".join(str(0.001 * i) for i in range(1, 128))
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"^the grid has 2,048,383 runs \(127 lr0 x 127 lrf x 127 momentum\): at most"):
        grid(data, f"lr0={values}", f"lrf={values}", f"momentum={values}")
    with pytest.raises(ValueError, match=r"at most 10,000 are allowed"):
        grid(data, "cls_loss=bce,focal", "seed=0-5000")
    with pytest.raises(ValueError, match=r"'seed=0-99999999' is not valid"):
        grid(data, "cls_loss=bce,focal", "seed=0-99999999")
    assert time.monotonic() - start < 5


def test_a_single_configuration_gets_the_stock_losses_as_its_baseline(tmp_path: Path, data: Path) -> None:
    words = [*WORDS, f"data={data}", "cls_loss=focal", "box_loss=siou", "focal_gamma=2", "seed=0-2"]
    prepared = prepare(read_words(words), options(tmp_path / "new"))
    assert names(prepared.grid) == ["cls_loss=focal box_loss=siou", "cls_loss=stock box_loss=stock"]
    assert prepared.baseline == {"cls_loss": "stock", "box_loss": "stock"}
    assert "focal_gamma" not in prepared.grid.cells[1].settings
    assert prepared.remarks == [
        "cls_loss=stock box_loss=stock is added as the baseline: a single configuration has nothing to be compared with"
    ]
    folders.write_comparison(prepared.grid, tmp_path / "new", "", {"baseline": prepared.baseline})
    assert prepare(read_words(words), options(tmp_path / "new")).grid == prepared.grid, "started again"


def test_a_configuration_that_is_added_to_a_folder_leaves_its_baseline(tmp_path: Path, data: Path) -> None:
    words = [*WORDS, f"data={data}", "seed=0-2"]
    first = prepare(read_words([*words, "cls_loss=bce,focal"]), options(tmp_path))
    folders.write_comparison(first.grid, tmp_path, "", {"baseline": first.baseline})
    added = prepare(read_words([*words, "cls_loss=slide"]), options(tmp_path))
    assert names(added.grid) == ["cls_loss=slide"]
    assert added.baseline == {"cls_loss": "bce"}
    assert not added.remarks
    named = prepare(read_words([*words, "cls_loss=slide"]), options(tmp_path, baseline="cls_loss=Focal"))
    assert named.baseline == {"cls_loss": "focal"}


def test_a_plan_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, data: Path) -> None:
    (tmp_path / folders.COMPARISON_FILE).write_text("")
    with pytest.raises(ValueError, match=r"^unreadable: comparison\.json, ") as refusal:
        prepare(read_words([*WORDS, f"data={data}", "cls_loss=bce,focal"]), options(tmp_path))
    assert "\n" not in str(refusal.value)
