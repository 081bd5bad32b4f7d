"""One training run of an Ultralytics trainer: keeps its criteria equipped, proves its batches, saves its state."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.nn.tasks import torch_safe_load

from yolo_losses._log import PREFIX, is_first_rank, log
from yolo_losses.config import class_weights
from yolo_losses.config.settings import KEYS, LossSettings, default_keys, own_arguments
from yolo_losses.integration import context, guard, messages
from yolo_losses.integration.context import Context
from yolo_losses.integration.criteria.branch import Branch
from yolo_losses.integration.equipment import ROLES, Equipment
from yolo_losses.integration.state import State, StateFile, state_of
from yolo_losses.monitor.gather import read
from yolo_losses.monitor.loss_stats import LossStats, plain_names
from yolo_losses.registry import format_value
from yolo_losses.registry.retired import RETIRED

ATTRIBUTE = "yolo_losses_run"
TRAINER = "yolo_losses_trainer"
WARMUP_BATCHES = 100  # Ultralytics' warm-up takes at least as many


class Run:
    """The chosen losses in one trainer.

    Args:
        trainer: an Ultralytics trainer whose set-up is done.
        settings: the parsed keys, at least one of which is not at its default.

    Raises:
        ValueError: if the head cannot use a chosen loss.
        RuntimeError: if nothing could be replaced.
    """

    def __init__(self, trainer: Any, settings: LossSettings) -> None:
        model, ema = models_of(trainer)
        self.settings = settings
        weighted = settings.cls_weights != class_weights.NONE
        names = class_weights.class_names_by_index(trainer.data["names"]) if weighted else ()
        self.equipment = Equipment(model, settings, names, trainer.args.imgsz)
        self.state_file = StateFile(settings)
        self.batches = 0
        self.calls_seen = 0
        self.calls_before_epoch = 0
        self.validations = 0
        self.started = False
        self.warmed_up = False
        self.built = False
        self.statistics = Statistics(trainer, settings) if settings.loss_stats else None
        if not guard.chooses_by_batch(model):
            # Built here, so that a loss that the head cannot use is rejected early. The criterion of the EMA is built
            # at validation, when its gains and class weights are set.
            if getattr(model, "criterion", None) is None:
                model.criterion, self.built = model.init_criterion(), True
            self.equipment.equip("training", model.criterion)
            if getattr(ema, "criterion", None) is not None:
                self.equipment.equip("validation", ema.criterion)
            self.start(trainer)
        guard.register(model, self.equipment, in_run=True)
        if getattr(trainer, "validator", None) is not None:
            setattr(trainer.validator, TRAINER, weakref.ref(trainer))

    @property
    def branches(self) -> dict[str, Branch]:
        """The branches by path."""
        return self.equipment.branches

    def start(self, trainer: Any) -> None:
        """Log the start line, and restore the state of a resumed run."""
        self.started = True
        if not self.branches:
            raise RuntimeError(f"{PREFIX}{self.settings.describe()} is set, but nothing was swapped")
        if self.statistics is not None:
            log(f"statistics of the losses by epoch: {self.statistics.table.path}")
        if self.settings.swaps_nothing:
            return
        messages.log_start(self.equipment)
        for branch in self.branches.values():
            if branch.needs_image_size:
                _follow_image_size(trainer, branch)
        if getattr(trainer, "resume", False):
            resumed = trainer.args.resume
            checkpoint = Path(resumed) if isinstance(resumed, str) else Path(trainer.last)
            self.state_file.load(self.branches, checkpoint, trainer.start_epoch)

    # ---------------------------------------------------------------------------------------------------- criteria

    def keep_equipped(self, trainer: Any, *wanted: str) -> None:
        """Equip criteria that were replaced or rebuilt since they were equipped, and log it.

        Args:
            trainer: the trainer.
            *wanted: the roles to check; all by default.
        """
        for role, model in zip(ROLES, models_of(trainer), strict=True):
            if model is None or (wanted and role not in wanted):
                continue
            criterion = getattr(model, "criterion", None)
            if criterion is None:
                if guard.chooses_by_batch(model) or (role == "validation" and role not in wanted):
                    continue  # it is built by the first batch or at validation
                criterion = model.criterion = model.init_criterion()
            if not self.equipment.is_equipped(criterion):
                replaced = role in self.equipment.criteria
                self.equipment.equip(role, criterion)
                if replaced:
                    log(f"the criterion for {role} was replaced after set-up; it is equipped again", warn=True)
            self.equipment.criteria[role] = criterion

    def _rebuild(self, trainer: Any) -> None:
        """Rebuild the model's criterion before the first batch, when Ultralytics builds it: callbacks may affect it."""
        model = models_of(trainer)[0]
        if self.built and getattr(model, "criterion", None) is self.equipment.criteria["training"]:
            model.criterion = model.init_criterion()
            self.equipment.equip("training", model.criterion)
        self.built = False

    # ----------------------------------------------------------------------------------------------------- batches

    def begin_epoch(self, trainer: Any) -> None:
        """Compare the first batch of the epoch."""
        self.calls_before_epoch = self.equipment.calls_proven
        for branch in self.branches.values():
            branch.begin_epoch(trainer.epoch, trainer.epochs)

    def before_batch(self, trainer: Any) -> None:
        """Check that the model's criterion is equipped, and track what the loss of the batch calls.

        Raises:
            RuntimeError: if the package was uninstalled during training.
        """
        if not guard.is_in_run(self.equipment):
            raise RuntimeError(
                f"{PREFIX}{self.settings.describe()} is set, but the package was uninstalled during this training:"
                " nothing would show that the chosen loss runs"
            )
        if not self.batches:
            self._rebuild(trainer)
        self.keep_equipped(trainer, "training")
        self.equipment.discard()  # records of a batch that ended in an error, such as out of memory
        context.enter(Context(models_of(trainer)[0], self.equipment))

    def after_batch(self, trainer: Any) -> None:
        """Check that the batch trained the chosen losses; after the first batch with objects, log what ran.

        Raises:
            UnprovenError: if a part did not run, or its result was not used.
        """
        context.enter(None)
        self.batches += 1
        if not self.started:  # the model has chosen its criterion by now
            self.keep_equipped(trainer, "training")
            if self.branches:
                self.start(trainer)
        if not self.settings.swaps_nothing:
            self.equipment.check_called(self.calls_seen, getattr(trainer, "loss", 0.0))
            self.calls_seen = self.equipment.calls_begun
        self.equipment.settle(stepping=False)
        self.equipment.commit(joined=True)
        if self.equipment.newly_proven():
            messages.log_proof(self.equipment, getattr(unwrap(trainer.model), "criterion", None))

    def end_epoch(self, trainer: Any) -> None:
        """Warn if no batch had objects, write statistics, and log the running factor after warm-up."""
        if getattr(trainer, "stop", False) and context.current() is not None:
            self.after_batch(trainer)  # a batch in which the `time` of a training is over ends without its event
        if self.equipment.calls_proven == self.calls_before_epoch and not self.settings.swaps_nothing:
            log(
                f"no batch of epoch {trainer.epoch + 1} had objects: nothing shows that the chosen losses ran",
                warn=True,
            )
        if self.statistics is not None:
            self.statistics.write(trainer, self.branches)
        self.log_factor_after_warmup(trainer)

    # -------------------------------------------------------------------------------------------------- validation

    def before_validation(self, trainer: Any) -> None:
        """Equip the EMA's criterion, or track the EMA if it chooses its criterion when it sees the first batch."""
        self.keep_equipped(trainer, "validation")
        context.enter(Context(models_of(trainer)[1], self.equipment, "validation"))
        self.validations = self._validation_calls()

    def after_validation(self, validator: Any) -> None:
        """Warn if a validation computed a loss without the equipped criterion."""
        context.enter(None)
        computed = float(torch.as_tensor(sum(_items(getattr(validator, "loss", 0.0)))).abs()) > 0
        if computed and self._validation_calls() == self.validations:
            log("validation did not call the equipped criterion: its losses are those of another one", warn=True)

    def _validation_calls(self) -> int:
        return sum(branch.ledger.validations for branch in self.branches.values())

    # ------------------------------------------------------------------------------------------- factor, state, metrics

    def log_factor_after_warmup(self, trainer: Any) -> None:
        """Log the running factor on the class term at the end of the epoch in which warm-up ends."""
        if self.settings.cls_scale != "auto" or self.warmed_up:
            return
        batches, epochs = len(trainer.train_loader), float(trainer.args.warmup_epochs)
        if epochs <= 0 or (trainer.epoch + 1) * batches >= max(round(epochs * batches), WARMUP_BATCHES):
            self.warmed_up = True
            log(f"cls_scale=auto is {messages.format_factors(self.branches)} after warm-up")

    def log_final_factor(self) -> None:
        """Log the running factor on the class term at the end of training."""
        if self.settings.cls_scale == "auto":
            messages.log_final_factor(self.branches)

    def state(self) -> State:
        """Return the state of the losses by branch and term; empty if there is none."""
        return state_of(self.branches)

    def save_state(self, trainer: Any) -> None:
        """Save the state of the losses next to the checkpoint."""
        self.state_file.save(self.branches, Path(trainer.last), trainer.epoch)

    def hide_statistics(self, trainer: Any) -> None:
        """Restore the metrics of an epoch."""
        if self.statistics is not None:
            self.statistics.hide(trainer)


class Statistics:
    """Writes `loss_stats` of a run, and shows them to the loggers."""

    def __init__(self, trainer: Any, settings: LossSettings) -> None:
        epochs = trainer.start_epoch if getattr(trainer, "resume", False) else 0
        self.table = LossStats(Path(trainer.save_dir), epochs, settings.describe())
        self.unlogged = False
        self.metrics: dict[str, Any] | None = None
        # Before all other callbacks, such as those of the loggers.
        for event, callback in (("on_fit_epoch_end", show_statistics), ("on_train_end", draw_statistics)):
            listed = trainer.callbacks.setdefault(event, [])
            listed[:] = [callback, *(other for other in listed if other is not callback)]

    def write(self, trainer: Any, branches: Mapping[str, Branch]) -> None:
        """Write the statistics of an epoch; every rank must call this, since the sums are all-reduced."""
        names = trainer.data["names"]
        classes = plain_names(names[key] for key in sorted(names)) if isinstance(names, dict) else plain_names(names)
        columns = read(branches, classes, getattr(trainer, "loss_names", ()))
        if is_first_rank() and columns:
            self.table.add(trainer.epoch + 1, columns)
            self.unlogged = True

    def show(self, trainer: Any) -> None:
        """Add the statistics of an epoch to its metrics, for the loggers that are called after this."""
        if self.unlogged:
            self.metrics, self.unlogged = trainer.metrics, False
            trainer.metrics = {**trainer.metrics, **self.table.logged()}

    def hide(self, trainer: Any) -> None:
        """Restore the metrics of an epoch."""
        if self.metrics is not None:
            trainer.metrics, self.metrics = self.metrics, None


def show_statistics(trainer: Any) -> None:
    """Add the statistics of an epoch to its metrics, for the loggers."""
    run: Run | None = getattr(trainer, ATTRIBUTE, None)
    if run is not None and run.statistics is not None:
        run.statistics.show(trainer)


def draw_statistics(trainer: Any) -> None:
    """Plot the statistics at the end of training, for the loggers."""
    run: Run | None = getattr(trainer, ATTRIBUTE, None)
    picture = run.statistics.table.draw() if run is not None and run.statistics is not None else None
    if picture is not None:
        trainer.on_plot(picture)


def with_balanced_weights(trainer: Any, chosen: LossSettings) -> LossSettings:
    """Return the settings with the weights of `cls_weights=balanced` computed from the training set.

    Raises:
        ValueError: if the channels are not classes, or the weights differ from those of a resumed run.
    """
    if chosen.cls_weights == class_weights.NONE:
        return chosen
    # With these trainers, a channel is a prompt of the current image, not a class of the data set.
    if {kind.__name__ for kind in type(trainer).__mro__} & {"WorldTrainer", "YOLOETrainer"}:
        raise ValueError(
            f"{class_weights.format_option(chosen.cls_weights)} cannot be used with"
            f" {type(trainer).__name__}, whose class channels are an image's prompts: allowed is none"
        )
    if chosen.cls_weights != class_weights.BALANCED:
        return chosen
    beta = float(chosen.parameters[class_weights.BETA.key])
    weights = class_weights.balanced(_label_counts(trainer), beta)
    kept = chosen.resumed_weights or weights
    if len(kept) != len(weights) or not np.allclose(kept, weights, rtol=1e-4):
        raise ValueError(
            f"resume keeps cls_weights={list(kept)}; start a new run from last.pt to change it to {list(weights)},"
            " which is 'balanced' now"
        )
    return chosen.weighted_by(kept)


def _label_counts(trainer: Any) -> list[int]:
    """Return the number of labels of each class in the training set, which is complete on every rank.

    Raises:
        ValueError: if the data set does not provide its labels.
    """
    dataset = trainer.train_loader.dataset
    classes = []
    for part in getattr(dataset, "datasets", [dataset]):
        if hasattr(part, "samples"):  # in the task classify: a file and the index of its class
            classes.append(np.array([sample[1] for sample in part.samples]))
            continue
        if not hasattr(part, "labels"):
            raise ValueError(
                f"'cls_weights=balanced' needs the labels of the training set, which {type(part).__name__} does not"
                " have: pass a list, such as yolo_losses.functional.class_balanced_weights(counts)"
            )
        classes += [label["cls"].reshape(-1) for label in part.labels]
    labels = np.concatenate(classes).astype(int) if classes else np.zeros(0, int)
    counts: list[int] = np.bincount(labels, minlength=trainer.data["nc"]).tolist()
    return counts


def unwrap(model: Any) -> Any:
    """Return the model inside the wrappers of DDP and `torch.compile`."""
    while True:
        inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
        if inner is None:
            return model
        model = inner


def _items(losses: Any) -> list[Any]:
    """Return the terms of a validator's loss, which is a dictionary or a tensor, depending on the release."""
    if isinstance(losses, dict):
        return list(losses.values())
    return list(torch.as_tensor(losses).flatten())


def models_of(trainer: Any) -> tuple[Any, Any]:
    """Return the model of a trainer and its EMA, `None` on ranks that have none."""
    return unwrap(trainer.model), unwrap(getattr(trainer.ema, "ema", None))


def _follow_image_size(trainer: Any, branch: Any) -> None:
    """Set `image_size` of a branch to the size of each batch, which varies in multi-scale training."""

    def setting_image_size(preprocess: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(batch: Any) -> Any:
            batch = preprocess(batch)
            branch.image_size = float(batch["img"].shape[-1])
            return batch

        return wrapper

    trainer.preprocess_batch = setting_image_size(trainer.preprocess_batch)
    if getattr(trainer, "validator", None) is not None:
        trainer.validator.preprocess = setting_image_size(trainer.validator.preprocess)


def log_checkpoint_losses(trainer: Any) -> None:
    """Log if a stock run starts from a checkpoint that was trained with other losses."""
    sources = (Path(str(source)) for source in (trainer.args.model, trainer.args.pretrained))
    path = next((source for source in sources if source.suffix == ".pt" and source.is_file()), None)
    if path is None or not is_first_rank() or getattr(trainer, "resume", False):
        return
    try:
        saved = torch_safe_load(path)[0]  # Ultralytics has already loaded the same file
    except (OSError, EOFError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
        log(
            f"cannot read which losses {path.name} was trained with ({type(error).__name__}); this run is stock",
            warn=True,
        )
        return
    trained = saved.get("train_args")
    # Not parsed, since the loss may be unknown here.
    defaults = default_keys()
    keys = {key: value for key, value in own_arguments(trained or {}).items() if value != defaults[key]}
    keys |= {key: value for key, value in (trained or {}).items() if key in RETIRED}
    if any(key in RETIRED or KEYS[key].term for key in keys if key in RETIRED or key in KEYS):
        words = ", ".join(f"{key}={format_value(value)}" for key, value in keys.items())
        log(f"{path.name} was trained with {words}; this run is stock, since these keys were not given", warn=True)
