"""The start-up module, from where it is: a wheel has it at the root of site-packages and nowhere else."""

try:
    import yolo_losses_autoload
except ImportError:  # a source tree that is not installed
    from yolo_losses.integration.autoload import yolo_losses_autoload

__all__ = ["yolo_losses_autoload"]
