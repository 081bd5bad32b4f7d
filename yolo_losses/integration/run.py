"""One training run: its criteria equipped, the proof that they ran, their state kept beside the checkpoint."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from yolo_losses._log import PREFIX, is_first_rank, say
from yolo_losses.config import class_weights
from yolo_losses.config.settings import LossSettings, format_number, own_arguments
from yolo_losses.integration import arguments, criteria
from yolo_losses.integration.criteria.parts import Branch
from yolo_losses.monitor.gather import read
from yolo_losses.monitor.loss_stats import LossStats, plain_names

STATE_FILE = "yolo_losses_state.pt"
ATTRIBUTE = "yolo_losses_run"
TRAINER = "yolo_losses_trainer"
NETS = ("training", "validation")  # what the criteria of the model and of its EMA are for
UNUSUAL = 3  # a class term that is larger or smaller by this is another task than the gains were tuned for
WARMUP_BATCHES = 100  # Ultralytics' warm-up takes as many at least
TARGET_NAMES = {"tal": "assigner score", "iou": "IoU", "ciou": "CIoU", "hard": "1"}


def start(trainer: Any) -> None:
    """Equip the criteria of a trainer whose set-up is done, unless every key is at its default."""
    chosen = _with_balanced_weights(trainer, arguments.of(trainer))
    arguments.pin(trainer, chosen)
    setattr(trainer, ATTRIBUTE, None)
    if chosen.swaps_nothing:
        _tell_of_checkpoint(trainer)
    if not chosen.is_default:
        setattr(trainer, ATTRIBUTE, Run(trainer, chosen))


def _with_balanced_weights(trainer: Any, chosen: LossSettings) -> LossSettings:
    """Return the settings with the numbers that `cls_weights=balanced` means for the training set, for good.

    Raises:
        ValueError: where class channels are no classes, or a resumed run is asked for other numbers than it keeps.
    """
    if chosen.cls_weights == class_weights.NONE:
        return chosen
    # There a channel is a prompt of the current image, not a class of the data set.
    if {kind.__name__ for kind in type(trainer).__mro__} & {"WorldTrainer", "YOLOETrainer"}:
        raise ValueError(
            f"{class_weights.written(chosen.cls_weights)} cannot be used with"
            f" {type(trainer).__name__}, whose class channels are an image's prompts: allowed is none"
        )
    if chosen.cls_weights != class_weights.BALANCED:
        return chosen
    beta = float(chosen.parameters[class_weights.BETA.key])
    weights = class_weights.balanced(_label_counts(trainer), beta)
    kept: tuple[float, ...] = getattr(trainer, arguments.KEPT_WEIGHTS, weights)
    if len(kept) != len(weights) or not np.allclose(kept, weights, rtol=1e-4):
        raise ValueError(
            f"resume keeps cls_weights={list(kept)}; start a new run from last.pt to change it to {list(weights)},"
            " which is 'balanced' now"
        )
    return chosen.weighted_by(kept)


def _label_counts(trainer: Any) -> list[int]:
    """Return the number of labels of each class in the training set, which every rank has whole.

    Raises:
        ValueError: where the data set does not tell its labels.
    """
    dataset = trainer.train_loader.dataset
    classes = []
    for part in getattr(dataset, "datasets", [dataset]):
        if not hasattr(part, "labels"):
            raise ValueError(
                f"'cls_weights=balanced' needs the labels of the training set, which {type(part).__name__} does not"
                " have: pass a list, such as yolo_losses.functional.class_balanced_weights(counts)"
            )
        classes += [label["cls"].reshape(-1) for label in part.labels]
    labels = np.concatenate(classes).astype(int) if classes else np.zeros(0, int)
    counts: list[int] = np.bincount(labels, minlength=trainer.data["nc"]).tolist()
    return counts


def check_started(trainer: Any) -> None:
    """Raise where the events of this package did not reach the trainer's callbacks during its set-up.

    Raises:
        RuntimeError: the message says what to do.
    """
    if not hasattr(trainer, ATTRIBUTE) and not arguments.of(trainer).is_default:
        raise RuntimeError(
            f"{PREFIX}{arguments.of(trainer).describe()} is set, but {type(trainer).__name__} did not call the"
            " callbacks of 'on_pretrain_routine_end': add to its callbacks rather than replace them, and have an"
            " overridden run_callbacks call super().run_callbacks(event)"
        )


def check_before_saving(trainer: Any) -> None:
    """Raise where a checkpoint would name a loss that did not run.

    Raises:
        RuntimeError: the message names the key, or the callbacks that were not called.
    """
    run: Run | None = getattr(trainer, ATTRIBUTE, None)
    if run is not None:
        arguments.check_unchanged(trainer, run.settings)
        if not run.batches and not run.settings.swaps_nothing:
            raise RuntimeError(
                f"{PREFIX}{type(trainer).__name__} did not call the callbacks of 'on_train_batch_end', so that nothing"
                " shows that the chosen loss ran: have an overridden run_callbacks call super().run_callbacks(event)"
            )
    elif own_arguments(vars(trainer.args)):
        arguments.check_unchanged(trainer, LossSettings())


def before_epoch(trainer: Any) -> None:
    """Check that criteria and keys are as they were set up."""
    run: Run | None = getattr(trainer, ATTRIBUTE, None)
    if run is not None:
        arguments.check_unchanged(trainer, run.settings)
        run.keep_equipped(trainer)
        run.begin_epoch()


def before_batch(trainer: Any) -> None:
    """Check that the model's criterion is the one that was equipped."""
    run: Run | None = getattr(trainer, ATTRIBUTE, None)
    if run is not None:
        if not run.batches:
            run.rebuild(trainer)
        run.keep_equipped(trainer, "training")


def after_batch(trainer: Any) -> None:
    """Check that the batch called the equipped criterion, and say so once."""
    run: Run | None = getattr(trainer, ATTRIBUTE, None)
    if run is not None:
        run.after_batch(trainer)
    elif not hasattr(trainer, ATTRIBUTE):
        check_started(trainer)


def after_epoch(trainer: Any) -> None:
    """Read what the epoch's batches have shown; warn of an epoch that proved nothing."""
    run: Run | None = getattr(trainer, ATTRIBUTE, None)
    if run is not None:
        run.end_epoch(trainer.epoch)
        run.write_statistics(trainer)
        run.say_scale_after_warmup(trainer)
        if getattr(getattr(trainer, "validator", None), "callbacks", None) is not trainer.callbacks:
            run.keep_equipped(trainer, "validation")  # a validator that would not say when it starts


def before_validation(validator: Any) -> None:
    """Check that the EMA's criterion is equipped, as the trainer's validator begins."""
    trainer, run = _validated_by(validator)
    if run is not None:
        run.keep_equipped(trainer, "validation")
        run.validations = sum(branch.validations for branch in run.branches.values())


def after_validation(validator: Any) -> None:
    """Check that the trainer's validator has called the equipped criterion."""
    _, run = _validated_by(validator)
    if run is not None:
        run.check_validated(validator)


def _validated_by(validator: Any) -> tuple[Any, Run | None]:
    """Return the trainer whose EMA is validated, and its run; none where the best weights are, once all is done."""
    trainer = getattr(validator, TRAINER, lambda: None)() if getattr(validator, "training", False) else None
    return trainer, getattr(trainer, ATTRIBUTE, None)


def save_state(trainer: Any) -> None:
    """Write the losses' state beside the checkpoint."""
    run: Run | None = getattr(trainer, ATTRIBUTE, None)
    if run is not None:
        run.save_state(trainer)


def after_training(trainer: Any) -> None:
    """Say what the running factor on the class term came to."""
    run: Run | None = getattr(trainer, ATTRIBUTE, None)
    if run is not None:
        run.say_final_scale()


def show_statistics(trainer: Any) -> None:
    """Let the loggers, which come after this, find an epoch's statistics among its metrics."""
    run: Run | None = getattr(trainer, ATTRIBUTE, None)
    if run is not None and run.unlogged:
        run.metrics, run.unlogged = trainer.metrics, False
        if run.statistics is not None:
            trainer.metrics = {**trainer.metrics, **run.statistics.logged()}


def hide_statistics(trainer: Any) -> None:
    """Put an epoch's metrics back: `results.csv` and checkpoints are to have no more of them than without."""
    run: Run | None = getattr(trainer, ATTRIBUTE, None)
    if run is not None and run.metrics is not None:
        trainer.metrics, run.metrics = run.metrics, None


def draw_statistics(trainer: Any) -> None:
    """Draw the statistics of a training that has ended, for the loggers to find the picture."""
    run: Run | None = getattr(trainer, ATTRIBUTE, None)
    picture = run.statistics.draw() if run is not None and run.statistics is not None else None
    if picture is not None:
        trainer.on_plot(picture)


# Named functions: the state of distributed training travels by pickle, callbacks included.
CALLBACKS: Mapping[str, Callable[[Any], None]] = {
    "on_pretrain_routine_end": start,
    "on_train_epoch_start": before_epoch,
    "on_train_batch_start": before_batch,
    "on_train_batch_end": after_batch,
    "on_train_epoch_end": after_epoch,
    "on_val_start": before_validation,
    "on_val_end": after_validation,
    "on_model_save": save_state,
    "on_fit_epoch_end": hide_statistics,
    "on_train_end": after_training,
}
# Ahead of all others, the loggers' among them, where statistics are gathered.
FIRST_CALLBACKS: Mapping[str, Callable[[Any], None]] = {
    "on_fit_epoch_end": show_statistics,
    "on_train_end": draw_statistics,
}


class Run:
    """The chosen losses in one trainer.

    Args:
        trainer: an Ultralytics trainer whose set-up is done.
        settings: the parsed keys, of which at least one is not at its default.

    Raises:
        ValueError: where the head cannot use a chosen loss.
        RuntimeError: where nothing could be swapped.
    """

    def __init__(self, trainer: Any, settings: LossSettings) -> None:
        self.settings = settings
        self.names: list[str] = []
        if settings.cls_weights != class_weights.NONE:
            self.names = class_weights.in_order(trainer.data["names"])
        # By name in the arguments, in the order of the classes in the criteria.
        self.equipped = settings.weighted_by(class_weights.by_class(settings.cls_weights, self.names))
        self.branches: dict[str, Branch] = {}
        self.criteria: dict[str, Any] = {}
        self.batches = 0
        self.batches_seen = 0
        self.validations = 0
        self.built = False
        self.calls = 0
        self.calls_before_epoch = 0
        self.proven: list[str] = []
        self.state_problem = False
        self.warmed_up = False
        self.image_size: float = trainer.args.imgsz
        self.statistics: LossStats | None = None
        self.unlogged = False
        self.metrics: dict[str, Any] | None = None
        if settings.loss_stats:
            epochs = trainer.start_epoch if getattr(trainer, "resume", False) else 0
            self.statistics = LossStats(Path(trainer.save_dir), epochs, settings.describe())
            for event, callback in FIRST_CALLBACKS.items():
                listed = trainer.callbacks.setdefault(event, [])
                listed[:] = [callback, *(other for other in listed if other is not callback)]
        model, ema = nets(trainer)
        if _chooses_by_batch(model):
            _Waiting(self, trainer, model, ema)
        else:
            # Now, so that a loss that the head cannot use is refused here. That of the EMA is built as it validates:
            # gains and class weights are its own by then.
            if getattr(model, "criterion", None) is None:
                model.criterion, self.built = model.init_criterion(), True
            self.equip("training", model.criterion)
            if getattr(ema, "criterion", None) is not None:
                self.equip("validation", ema.criterion)
            self.start(trainer)
        if getattr(trainer, "validator", None) is not None:
            setattr(trainer.validator, TRAINER, weakref.ref(trainer))

    def equip(self, which: str, criterion: Any) -> None:
        """Equip the criterion for `training` or `validation`, with one set of losses and state for both."""
        self.branches.update(criteria.equip(criterion, self.equipped, self.branches, self.image_size))
        self.criteria[which] = criterion

    def start(self, trainer: Any) -> None:
        """Say what runs where, and take up the state of a resumed run."""
        if not self.branches:
            raise RuntimeError(f"{PREFIX}{self.settings.describe()} is set, but nothing was swapped")
        if self.statistics is not None:
            say(f"statistics of the losses, an epoch at a time: {self.statistics.path}")
        if self.settings.swaps_nothing:
            return
        branch = next(branch for branch in self.branches.values() if branch.expected)
        terms = [
            f"cls_loss={self.settings.cls_loss}"
            + (f" {_one_line(branch.cls)}, target: {TARGET_NAMES[branch.settings.target]}" if branch.cls else ""),
            f"box_loss={self.settings.box_loss}" + (f" {_one_line(branch.box)}" if branch.box else ""),
            f"dfl_loss={self.settings.dfl_loss}",
        ]
        if self.settings.cls_scale != 1:
            terms[0] += f", times {format_number(self.settings.cls_scale)}"
        if self.names:
            terms[0] += f", {self.class_weights}"
        if branch.seg:
            terms.append(f"seg_loss={self.settings.seg_loss} {_one_line(branch.seg)}")
            if self.settings.seg_scale != 1:
                terms[-1] += f", times {self.settings.seg_scale:g}"
        names = ", ".join(name for name, own in self.branches.items() if name and own.expected)
        say(f"{'; '.join(terms)}; equipped for {' and '.join(NETS)}{f' ({names})' if names else ''}")
        for module in branch.modules.values():
            warning = getattr(type(module), "one2one_warning", "")
            if warning and "one2one" in self.branches and self.branches["one2one"].expected:
                say(warning, warn=True)
            warning = getattr(type(module), "tal_warning", "")
            if warning and branch.settings.target == "tal":
                say(warning, warn=True)
        if branch.needs_image_size:
            _follow_image_size(trainer, branch)
        if getattr(trainer, "resume", False):
            self.load_state(trainer)

    @property
    def class_weights(self) -> str:
        """The class weights in words."""
        weights = self.equipped.cls_weights
        assert isinstance(weights, tuple)
        return f"class weights: {class_weights.summary(weights, self.names)}"

    def rebuild(self, trainer: Any) -> None:
        """Build the model's criterion anew before the first batch, when upstream does: callbacks may have set it up."""
        model = nets(trainer)[0]
        if self.built and getattr(model, "criterion", None) is self.criteria["training"]:
            model.criterion = model.init_criterion()
            self.equip("training", model.criterion)
        self.built = False

    def keep_equipped(self, trainer: Any, *wanted: str) -> None:
        """Equip the criteria that were replaced or rebuilt since they were equipped, and say so."""
        for which, net in zip(NETS, nets(trainer), strict=True):
            if net is None or (wanted and which not in wanted) or _waits(net):
                continue
            criterion = getattr(net, "criterion", None)
            if criterion is None:
                if which == "validation" and which not in wanted:
                    continue  # it is built as it validates
                criterion = net.criterion = net.init_criterion()
            kind = criteria.kind_of(criterion)
            if kind is None or not kind.is_equipped(criterion, self.branches):
                replaced = which in self.criteria
                self.equip(which, criterion)
                if replaced:
                    say(f"the criterion for {which} was replaced after set-up; it is equipped again", warn=True)
            self.criteria[which] = criterion

    def check_validated(self, validator: Any) -> None:
        """Warn where a validation that computed a loss did not call the equipped criterion."""
        computed = float(torch.as_tensor(sum(_items(getattr(validator, "loss", 0.0)))).abs()) > 0
        if computed and sum(branch.validations for branch in self.branches.values()) == self.validations:
            say("validation did not call the criterion that was equipped: its losses are of another one", warn=True)

    def begin_epoch(self) -> None:
        """Have the first batch of the epoch compare the reported class term with the one that was returned."""
        self.calls_before_epoch = self.calls
        for branch in self.branches.values():
            branch.check_due = True
            if branch.statistics is not None:
                branch.statistics.begin_epoch()

    def end_epoch(self, epoch: int) -> None:
        """Read what could not be read batch by batch without synchronising; warn if no batch had objects.

        Raises:
            RuntimeError: where a batch's class term was not the one that was returned.
        """
        for branch in self.branches.values():
            branch.check_deviation()
        if self.calls == self.calls_before_epoch and not self.settings.swaps_nothing:
            say(f"no batch of epoch {epoch + 1} had objects: nothing shows that the chosen losses ran", warn=True)

    def write_statistics(self, trainer: Any) -> None:
        """Write what the losses did in this epoch; every rank has to call this, since their sums are added up."""
        if self.statistics is None:
            return
        names = trainer.data["names"]
        classes = plain_names(names[key] for key in sorted(names)) if isinstance(names, dict) else plain_names(names)
        columns = read(self.branches, classes, getattr(trainer, "loss_names", ()))
        if is_first_rank() and columns:
            self.statistics.add(trainer.epoch + 1, columns)
            self.unlogged = True

    def after_batch(self, trainer: Any) -> None:
        """Check that the batch called the equipped criterion; after the first batch with objects, say what ran.

        Raises:
            RuntimeError: where the loss of the batch was computed without it.
        """
        self.batches += 1
        if self.settings.swaps_nothing:
            return
        batches = sum(branch.batches for branch in self.branches.values())
        if batches == self.batches_seen and float(torch.as_tensor(trainer.loss).detach().abs().sum()) > 0:
            raise RuntimeError(
                f"{PREFIX}{self.settings.describe()} is set, but the loss of this batch was computed without the"
                " criterion that holds it: the model's 'loss' or its criterion was replaced"
            )
        self.batches_seen = batches
        self.calls = sum(branch.calls for branch in self.branches.values())
        proven = [path for path, branch in self.branches.items() if branch.expected and branch.proven]
        if proven != self.proven:
            self.proven = proven
            self.say_what_ran(trainer)

    def say_what_ran(self, trainer: Any) -> None:
        """Say which parts were called in batches with objects, and how the class term compares with BCE's."""
        ran, ratios, unusual = [], [], ""
        for path, branch in self.branches.items():
            if not branch.expected:
                continue
            where = f"{path} " if path else ""
            if branch.proven:
                ran.append(f"{where}{', '.join(branch.expected)}")
            else:
                ran.append(f"{where}not shown yet")
            if branch.ratios:
                value, pull = branch.ratios["value"], branch.ratios.get("pull")
                also = "" if pull is None else f", {pull:.3g} times in gradient on the positives"
                ratios.append(f"{where}class term {value:.3g} times {branch.reference}'s on the same predictions{also}")
                if not all(1 / UNUSUAL <= ratio <= UNUSUAL for ratio in branch.ratios.values()):
                    unusual = branch.reference
        if self.names:
            ratios.append(self.class_weights)
        criterion = getattr(unwrap(trainer.model), "criterion", None)
        kind = criteria.kind_of(criterion)
        shown = kind.shown(criterion) if kind else ""
        notes = ran + ratios
        if self.settings.cls_scale == "auto":
            notes.append(f"cls_scale=auto is {self.class_factors()}")
        elif self.settings.cls_scale == 1 and unusual:
            notes.append(f"the gains were tuned for {unusual}: cls_scale=auto keeps the class term at its strength")
        if shown:
            notes.append(f"the log shows {shown}")
        say(f"ran in the first batch with objects: {'; '.join(notes)}", over_bar=True)
        if any(branch.ratios.get("value") == 0 for branch in self.branches.values()):
            say("the class term is 0: the classes learn nothing from it", warn=True)

    def class_factors(self) -> str:
        """Return the running factor on the class term of each branch; this synchronises."""
        factors = {path: branch.scale for path, branch in self.branches.items() if branch.scale is not None}
        return ", ".join(
            f"{path} {float(scale.factor):.3g}".strip() + (" (its bound)" if scale.bounded else "")
            for path, scale in factors.items()
        )

    def say_scale_after_warmup(self, trainer: Any) -> None:
        """Say the running factor on the class term at the end of the epoch in which warm-up ended."""
        if self.settings.cls_scale != "auto" or self.warmed_up:
            return
        batches, epochs = len(trainer.train_loader), float(trainer.args.warmup_epochs)
        if epochs <= 0 or (trainer.epoch + 1) * batches >= max(round(epochs * batches), WARMUP_BATCHES):
            self.warmed_up = True
            say(f"cls_scale=auto is {self.class_factors()} after warm-up")

    def say_final_scale(self) -> None:
        """Say the running factor on the class term as training ends, and how to have it fixed."""
        if self.settings.cls_scale == "auto":
            scales = [branch.scale for branch in self.branches.values() if branch.scale is not None]
            settled = len(scales) == 1 and float(scales[0].seen) > 0 and not scales[0].bounded
            fixed = f"; cls_scale={float(scales[0].factor):.3g} fixes it there" if settled else ""
            say(f"cls_scale=auto ended at {self.class_factors()}{fixed}")

    def state(self) -> dict[str, dict[str, Any]]:
        """Return the losses' state by branch and term, empty where none of them has any."""
        states = {
            f"{path}/{term}": module.state_dict()
            for path, branch in self.branches.items()
            for term, module in branch.modules.items()
        }
        return {name: state for name, state in states.items() if state}

    def save_state(self, trainer: Any) -> None:
        """Write the state beside the checkpoint; a full disk or an unwritable folder is told once and borne."""
        state = self.state()
        if not state:
            return
        path = Path(trainer.last).with_name(STATE_FILE)
        part = path.with_suffix(".part")
        try:
            torch.save({"epoch": trainer.epoch, "losses": self.losses(), "state": state}, part)
            os.replace(part, path)
        except Exception as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            if not self.state_problem:
                say(f"the losses' state could not be written to {path} ({error}); training goes on", warn=True)
            self.state_problem = True

    def load_state(self, trainer: Any) -> None:
        """Take up the state of the run that is resumed; where it is missing or of no use, say so and start afresh.

        The first rank reads it for all of them: on several machines, the file may be on one alone.
        """
        state = self.state()
        if not state:
            return
        resumed = trainer.args.resume
        path = (Path(resumed) if isinstance(resumed, str) else Path(trainer.last)).with_name(STATE_FILE)
        found: list[Any] = [None]
        if is_first_rank():
            try:
                found[0] = self.read_state(path, trainer.start_epoch)
            except Exception as error:
                say(f"the losses' state starts afresh: {path} {_reason(error)}", warn=True)
        if dist.is_available() and dist.is_initialized():
            dist.broadcast_object_list(found, 0)
        if found[0] is not None:
            for name, tensors in state.items():
                for key, tensor in tensors.items():
                    tensor.copy_(found[0][name][key])

    def read_state(self, path: Path, epochs: int) -> dict[str, dict[str, Tensor]]:
        """Return the state in a file, all of it looked at before any of it is used.

        Args:
            path: the file.
            epochs: how many the checkpoint has done. A run that is killed after its checkpoint is written, but before
                its state is, leaves one of the epoch before: still a good start, which is said.

        Raises:
            Exception: where it cannot be read; a `_UselessError` where it is of something else.
        """
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["losses"] != self.losses():
            raise _UselessError(f"is that of {', '.join(f'{k}={v}' for k, v in saved['losses'].items())}")
        done = int(saved["epoch"]) + 1
        if abs(done - epochs) > 1:
            raise _UselessError(f"is of epoch {done}, the checkpoint of epoch {epochs}")
        found: dict[str, dict[str, Tensor]] = saved["state"]
        for name, tensors in self.state().items():
            for key, tensor in tensors.items():
                if found[name][key].shape != tensor.shape or not found[name][key].isfinite().all():
                    raise _UselessError(f"has no usable '{key}' of {name}")
        other = f", the checkpoint of epoch {epochs}" if done != epochs else ""
        say(f"the losses' state is that of epoch {done}{other}, from {path}", warn=bool(other))
        return found

    def losses(self) -> dict[str, str]:
        """Return the names of the losses that a state belongs to."""
        return {"cls_loss": self.settings.cls_loss, "box_loss": self.settings.box_loss}


class _UselessError(Exception):
    """A state file that can be read but not used."""


def _reason(error: Exception) -> str:
    if isinstance(error, _UselessError):
        return str(error)
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({type(error).__name__})"


class _Waiting:
    """Equips what a model's own `loss()` builds, for models that choose their criterion by the first batch.

    The model's `loss` is stood in for until its first call; then the criteria of model and EMA are built by handing
    their own `loss()` predictions that end the call as soon as they are looked at.
    """

    def __init__(self, run: Run, trainer: Any, model: Any, ema: Any) -> None:
        def loss(batch: Any, preds: Any = None) -> Any:
            del model.__dict__["loss"]
            for which, net in zip(NETS, (model, ema), strict=True):
                if net is not None:
                    if getattr(net, "criterion", None) is None:
                        with contextlib.suppress(_TouchedError):
                            net.loss(batch, _Untouchable())
                    run.equip(which, net.criterion)
            run.start(trainer)
            return model.loss(batch, preds)

        model.__dict__["loss"] = loss


class _TouchedError(Exception):
    pass


class _Untouchable:
    """Predictions that cannot be looked at."""

    def __getattr__(self, name: str) -> Any:
        raise _TouchedError

    def __getitem__(self, key: Any) -> Any:
        raise _TouchedError

    def __iter__(self) -> Any:
        raise _TouchedError


def _one_line(module: Any) -> str:
    return f"{type(module).__name__}({module.extra_repr()})"


def unwrap(model: Any) -> Any:
    """Return the model inside DDP's and `torch.compile`'s wrappers."""
    while True:
        inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
        if inner is None:
            return model
        model = inner


def _items(losses: Any) -> list[Any]:
    """Return the terms of a validator's loss, which is a dictionary or a tensor by release."""
    if isinstance(losses, dict):
        return list(losses.values())
    return list(torch.as_tensor(losses).flatten())


def _waits(model: Any) -> bool:
    """Return whether a model's criterion is not chosen before its first batch."""
    return _chooses_by_batch(model) and getattr(model, "criterion", None) is None


def _chooses_by_batch(model: Any) -> bool:
    from ultralytics.nn import tasks

    kind = getattr(tasks, "YOLOEModel", None)
    return kind is not None and isinstance(model, kind)


def nets(trainer: Any) -> tuple[Any, Any]:
    """Return a trainer's model and its EMA, `None` where a rank has none."""
    return unwrap(trainer.model), unwrap(getattr(trainer.ema, "ema", None))


def _follow_image_size(trainer: Any, branch: Any) -> None:
    """Set `image_size` of a branch to that of each batch, which multi-scale training changes."""

    def following(preprocess: Callable[..., Any]) -> Callable[..., Any]:
        def preprocess_and_look(batch: Any) -> Any:
            batch = preprocess(batch)
            branch.image_size = float(batch["img"].shape[-1])
            return batch

        return preprocess_and_look

    trainer.preprocess_batch = following(trainer.preprocess_batch)
    if getattr(trainer, "validator", None) is not None:
        trainer.validator.preprocess = following(trainer.validator.preprocess)


def _tell_of_checkpoint(trainer: Any) -> None:
    """Say that a stock run starts from a checkpoint that was trained with other losses."""
    sources = (Path(str(source)) for source in (trainer.args.model, trainer.args.pretrained))
    path = next((source for source in sources if source.suffix == ".pt" and source.is_file()), None)
    if path is None or not is_first_rank() or getattr(trainer, "resume", False):
        return
    with contextlib.suppress(Exception):  # a checkpoint of another kind is Ultralytics' to judge
        # Ultralytics has loaded the same file in the same way; only its arguments are read here.
        trained = torch.load(path, map_location="cpu", mmap=True, weights_only=False).get("train_args") or {}
        chosen = LossSettings.from_arguments(trained)
        if not chosen.swaps_nothing:
            keys = ", ".join(f"{key}={value}" for key, value in chosen.non_default().items())
            say(f"{path.name} was trained with {keys}; this run is stock, since these keys were not given", warn=True)
