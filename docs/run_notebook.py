"""Run the notebook of the examples and store what its cells show, as it looks at the end.

    python docs/run_notebook.py

Progress bars rewrite their lines; what is stored is what a terminal would show last.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbclient
import nbformat

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NOTEBOOK = EXAMPLES / "start_to_verdict.ipynb"
HOME = "/content"  # where Colab runs


def main() -> int:
    """Run and store it."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "make_dataset.py").write_bytes((EXAMPLES / "make_dataset.py").read_bytes())
        nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": folder}}).execute()
        store(notebook, folder)
    return 0


def store(notebook: Any, folder: str) -> None:
    """Write an executed notebook, with its outputs made plain."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        text = "".join(output.text for output in cell.outputs if output.output_type == "stream")
        others = [output for output in cell.outputs if output.output_type != "stream"]
        shown = last_state(text.replace(folder, HOME))
        cell.outputs = [*([nbformat.v4.new_output("stream", text=shown)] if shown else []), *others]
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, NOTEBOOK)


def last_state(text: str) -> str:
    """Return a terminal's lines after a text with carriage returns, erased lines and a cursor that moves up."""
    lines, at = [""], 0
    for part in re.split(r"(\n|\r|\x1b\[[0-9;?]*[A-Za-z])", text):
        if part == "\n":
            at += 1
            lines += [""] * (at == len(lines))
        elif part.startswith("\x1b["):
            if part.endswith("A"):
                at = max(at - int(part[2:-1] or 1), 0)
            elif part.endswith("K"):
                lines[at] = ""
        elif part == "\r":
            lines[at] += "\r"
        elif part:
            kept = lines[at].removesuffix("\r") if not lines[at].endswith("\r") else ""
            lines[at] = kept + part
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n" if text.strip() else ""


if __name__ == "__main__":
    sys.exit(main())
