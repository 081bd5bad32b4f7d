"""A picture of a benchmark: bars of time and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the tables as bars: time and memory of each loss, relative to stock."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    limit = 1.5
    tables = [(title, rows) for title, rows in result["tables"].items() if "memory" in rows["stock"]]
    figure, axes = plt.subplots(1, len(tables), figsize=(5.5 * len(tables), 8), layout="constrained")
    for axis, (title, rows) in zip(axes, tables, strict=True):
        names = [name for name in rows if name not in ("stock", "copy")][::-1]
        for offset, key, label in ((0.2, "time", "time"), (-0.2, "memory", "peak memory")):
            values = [rows[name][key] for name in names]
            axis.barh([p + offset for p in range(len(names))], values, 0.38, label=label)
            for place, value in enumerate(values):
                if value > limit:
                    at = limit - 0.02, place + offset
                    axis.text(*at, f"{value:.1f}", ha="right", va="center", color="white", fontsize=8)
        axis.axvline(1, color="black", linewidth=1)
        axis.set_yticks(range(len(names)), names)
        axis.set_xlim(0, limit)
        axis.set_title(f"{title} (stock = 1)")
    axes[-1].legend(loc="lower right")
    on = result["machine"]
    figure.suptitle(f"{on['device']}, {on['threads']} threads, torch {on['torch']}")
    figure.savefig(path, dpi=110)
    plt.close(figure)
