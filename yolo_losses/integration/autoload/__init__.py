"""The start-up module, from where it is: a wheel has it at the root of site-packages and nowhere else."""

try:  # first: the copy that an editable install puts into site-packages may be of an older source tree
    from yolo_losses.integration.autoload import yolo_losses_autoload
except ImportError:
    import yolo_losses_autoload  # type: ignore[no-redef]

__all__ = ["yolo_losses_autoload"]
