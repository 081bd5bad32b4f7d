"""The process of one run: seeds, snapshots, and stored detections."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from commands import wait_for
from conftest import start
from torch.utils.data import Dataset
from ultralytics.data.build import InfiniteDataLoader, seed_worker

from yolo_losses.comparison.validation import detections_by_image, recording_validator
from yolo_losses.comparison.worker import HASHED_BATCHES, Training


class Augmented(Dataset):
    """Numbers of images, each with an augmentation drawn as Ultralytics draws them."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[int, float, float]:
        return index, random.random(), float(np.random.rand())


def loader(workers: int) -> InfiniteDataLoader:
    """Return a loader whose generator has a constant seed, as that of Ultralytics up to 8.4.120."""
    generator = torch.Generator().manual_seed(6148914691236517204)
    return InfiniteDataLoader(
        Augmented(),
        batch_size=4,
        shuffle=True,
        num_workers=workers,
        worker_init_fn=seed_worker,
        generator=generator,
        collate_fn=list,
    )


def epochs(seed: int, numbers: range, workers: int, folder: Path) -> list[list[tuple[int, float, float]]]:
    """Return what a run with this seed sees in these epochs, whatever was drawn before."""
    training = Training(folder, seed, 1)
    trainer = SimpleNamespace(train_loader=loader(workers), start_epoch=numbers.start)
    seen = []
    for trainer.epoch in numbers:
        torch.rand(random.randrange(1, 9))  # a loss that draws
        training.on_train_epoch_start(trainer)
        seen.append([item for batch in trainer.train_loader for item in batch])
    return seen


@pytest.mark.parametrize("workers", [0, 2])
def test_a_seed_decides_order_and_augmentations_of_every_epoch(tmp_path: Path, workers: int) -> None:
    whole = epochs(0, range(3), workers, tmp_path)
    assert whole == epochs(0, range(3), workers, tmp_path)
    assert whole[2:] == epochs(0, range(2, 3), workers, tmp_path), "a run that goes on after two epochs"
    other = epochs(1, range(3), workers, tmp_path)
    orders = [[index for index, _, _ in epoch] for epoch in whole + other]
    assert len({tuple(order) for order in orders}) == 6
    draws = {draw for epoch in whole + other for _, *drawn in epoch for draw in drawn}
    assert len(draws) == 6 * 16 * 2, "an augmentation comes twice"


class Validator:
    """Counts as Ultralytics' validators do; up to 8.3.108 it leaves images out that have neither objects nor boxes."""

    def __init__(self, leaves_out: bool) -> None:
        self.leaves_out = leaves_out
        self.metrics = SimpleNamespace()
        self.seen = 0

    def init_metrics(self, model: Any) -> None:
        self.stats: dict[str, list[Any]] = {"tp": [], "conf": [], "pred_cls": [], "target_cls": []}

    def update_metrics(self, preds: list[torch.Tensor], batch: dict[str, torch.Tensor]) -> None:
        for i, pred in enumerate(preds):
            self.seen += 1
            targets = batch["cls"][batch["batch_idx"] == i]
            if self.leaves_out and not len(pred) and not len(targets):
                continue
            self.stats["tp"].append(torch.ones(len(pred), 10, dtype=torch.bool))
            self.stats["conf"].append(pred)
            self.stats["pred_cls"].append(torch.zeros(len(pred)))
            self.stats["target_cls"].append(targets)

    def get_stats(self) -> dict[str, float]:
        for values in self.stats.values():
            values.clear()
        return {}


def test_a_later_wrapper_of_preprocess_batch_stays_in_place(tmp_path: Path) -> None:
    trainer: Any = SimpleNamespace(preprocess_batch=lambda batch: batch, epoch=0, start_epoch=0)
    training = Training(tmp_path, seed=0, threads=1)
    training.hash_first_batches(trainer)
    hashing, sizes = trainer.preprocess_batch, []

    def looks_at_the_size(batch: dict[str, Any]) -> dict[str, Any]:
        sizes.append(batch["img"].shape[-1])
        return hashing(batch)

    trainer.preprocess_batch = looks_at_the_size
    hashes = set()
    for side in range(HASHED_BATCHES + 2):
        trainer.preprocess_batch({"im_file": [f"{side}.png"], "img": torch.zeros(1, 3, side, side)})
        hashes.add(training.order_hash)
    assert sizes == list(range(HASHED_BATCHES + 2))
    assert len(hashes) == HASHED_BATCHES


@pytest.mark.parametrize("leaves_out", [False, True])
def test_predictions_and_objects_are_kept_with_the_number_of_their_image(leaves_out: bool) -> None:
    validator = recording_validator(Validator)(leaves_out)
    validator.init_metrics(None)
    empty = torch.zeros(0)
    for preds, images in (([torch.tensor([0.9, 0.8]), empty, empty], [0, 2, 2]), ([empty, torch.tensor([0.7])], [])):
        objects = torch.tensor(images, dtype=torch.float)
        validator.update_metrics(preds, {"batch_idx": objects, "cls": objects})
    validator.get_stats()
    found = detections_by_image(validator)
    assert found["image"].tolist() == [0, 0, 4]
    assert found["conf"].tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert found["target_image"].tolist() == [0, 2, 2]
    assert found["tp"].shape == (3, 10)
    assert int(found["images"]) == 5


def test_a_run_ends_when_the_pipe_to_it_closes() -> None:
    code = "import time; from yolo_losses.comparison.worker import end_with_parent as end"
    command = [sys.executable, "-c", f"{code}; end(); print(1, flush=True); time.sleep(600)"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    assert process.poll() is None
    process.stdin.close()
    wait_for(lambda: process.poll() is not None)
    process.stdout.close()


def test_importing_the_package_does_not_import_what_compare_needs() -> None:
    code = "import sys, yolo_losses, yolo_losses.comparison; print(sys.modules.keys() & {'scipy', 'rich', 'ray'})"
    assert start(sys.executable, "-c", code)().check().text.strip() == "set()"
