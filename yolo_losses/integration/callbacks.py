"""Callbacks of Ultralytics' trainers and validators, as functions and a dictionary by event.

They are module-level functions because distributed training pickles its state, including callbacks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from yolo_losses._log import PREFIX
from yolo_losses.config.settings import LossSettings, own_arguments
from yolo_losses.integration import arguments, context, guard
from yolo_losses.integration.run import ATTRIBUTE, TRAINER, Run, log_checkpoint_losses, with_balanced_weights


def run_of(trainer: Any) -> Run | None:
    """Return the `Run` of a trainer, `None` if every key is at its default."""
    run: Run | None = getattr(trainer, ATTRIBUTE, None)
    return run


def start(trainer: Any) -> None:
    """Equip the criteria of a trainer at the end of its set-up, unless every key is at its default."""
    with arguments.one_line_on_the_command_line():
        chosen = with_balanced_weights(trainer, arguments.of(trainer))
        arguments.save(trainer, chosen)
        setattr(trainer, ATTRIBUTE, None)
        if chosen.swaps_nothing:
            log_checkpoint_losses(trainer)
        if not chosen.is_default:
            setattr(trainer, ATTRIBUTE, Run(trainer, chosen))


def check_started(trainer: Any) -> None:
    """Raise a `RuntimeError` if the trainer did not call the callbacks of this package during its set-up."""
    if not hasattr(trainer, ATTRIBUTE) and not arguments.of(trainer).is_default:
        raise RuntimeError(
            f"{PREFIX}{arguments.of(trainer).describe()} is set, but {type(trainer).__name__} did not call the"
            " callbacks of 'on_pretrain_routine_end': add to its callbacks rather than replace them, and have an"
            " overridden run_callbacks call super().run_callbacks(event)"
        )


def check_before_saving(trainer: Any) -> None:
    """Raise a `RuntimeError` if a checkpoint would contain keys of a loss that did not run."""
    run = run_of(trainer)
    if run is not None:
        arguments.check_unchanged(trainer, run.settings)
        if not run.batches and not run.settings.swaps_nothing:
            raise RuntimeError(
                f"{PREFIX}{type(trainer).__name__} did not call the callbacks of 'on_train_batch_end', so it is not"
                " verified that the chosen loss ran: have an overridden run_callbacks call super().run_callbacks(event)"
            )
    elif own_arguments(vars(trainer.args)):
        arguments.check_unchanged(trainer, LossSettings())


def before_epoch(trainer: Any) -> None:
    """Check that the criteria and the keys have not changed since set-up."""
    run = run_of(trainer)
    if run is not None:
        arguments.check_unchanged(trainer, run.settings)
        run.keep_equipped(trainer)
        run.begin_epoch(trainer)


def before_batch(trainer: Any) -> None:
    """Track what the loss of the batch calls."""
    run = run_of(trainer)
    if run is None:
        context.enter(None)
    else:
        run.before_batch(trainer)


def after_batch(trainer: Any) -> None:
    """Check that the batch trained the chosen losses, log it once, and commit their state."""
    run = run_of(trainer)
    if run is not None:
        run.after_batch(trainer)
    elif not hasattr(trainer, ATTRIBUTE):
        check_started(trainer)


def after_epoch(trainer: Any) -> None:
    """Write the statistics of the epoch, and warn if no batch proved anything."""
    run = run_of(trainer)
    if run is not None:
        run.end_epoch(trainer)


def begin_validation(trainer: Any) -> None:
    """Check that the EMA's criterion is equipped before it is validated."""
    run = run_of(trainer)
    if run is not None:
        run.before_validation(trainer)


def before_validation(validator: Any) -> None:
    """Check that the EMA's criterion is equipped when the trainer's validator begins."""
    begin_validation(_validated_by(validator)[0])


def after_validation(validator: Any) -> None:
    """Check that the trainer's validator called the equipped criterion."""
    _, run = _validated_by(validator)
    if run is not None:
        run.after_validation(validator)


def _validated_by(validator: Any) -> tuple[Any, Run | None]:
    """Return the trainer whose EMA is validated and its run; none for the final validation of the best weights."""
    trainer = getattr(validator, TRAINER, lambda: None)() if getattr(validator, "training", False) else None
    return trainer, run_of(trainer)


def save_state(trainer: Any) -> None:
    """Save the state of the losses next to the checkpoint."""
    run = run_of(trainer)
    if run is not None:
        run.save_state(trainer)


def hide_statistics(trainer: Any) -> None:
    """Restore the metrics of an epoch, so that `results.csv` and checkpoints do not contain statistics."""
    run = run_of(trainer)
    if run is not None:
        run.hide_statistics(trainer)


def leave(trainer: Any) -> None:
    """Track the model of a training that has ended or was aborted like one without a trainer."""
    context.enter(None)
    run = run_of(trainer)
    if run is not None:
        guard.end_run(run.equipment)


def after_training(trainer: Any) -> None:
    """Log the final value of the running factor on the class term."""
    context.enter(None)
    run = run_of(trainer)
    if run is not None:
        run.log_final_factor()


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
