"""Tests in the kernel of a notebook: figures appear once, progress bars are widgets, and tables are HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

MAKE_HISTORY = """
from revgen.history import EpochMetrics, History
history = History([EpochMetrics(i, 2.0 - i / 10, 0.1, 100.0, i, best=True) for i in range(1, 4)])
"""
FIT = """
import revgen
model = revgen.create("gru-char", hidden_size=8, num_layers=1)
history = model.fit(["the song", "the band"] * 20, epochs=2)
"""


@pytest.fixture(scope="module")
def outputs() -> list[list[dict[str, Any]]]:
    """The outputs of each cell of a notebook."""
    cells = [MAKE_HISTORY, "history.plot()", "figure = history.plot()", "figure", "history", FIT]
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    return [cell.outputs for cell in notebook.cells]


def num_images(cell: Sequence[dict[str, Any]]) -> int:
    """Return the number of images among the outputs of a cell."""
    return sum("image/png" in output.get("data", {}) for output in cell)


def test_a_figure_is_shown_once_without_a_magic_command(outputs: list[list[dict[str, Any]]]) -> None:
    _, as_value, assigned, again, *_ = outputs

    assert [num_images(cell) for cell in (as_value, assigned, again)] == [1, 1, 1]


def test_a_history_is_shown_as_a_table(outputs: list[list[dict[str, Any]]]) -> None:
    assert "<table>" in outputs[4][0]["data"]["text/html"]


def test_training_shows_a_widget_and_no_red_lines(outputs: list[list[dict[str, Any]]]) -> None:
    widgets = [output for output in outputs[5] if "application/vnd.jupyter.widget-view+json" in output.get("data", {})]
    streams = {output["name"]: output["text"] for output in outputs[5] if output["output_type"] == "stream"}

    assert len(widgets) == 1
    assert set(streams) == {"stdout"}


def test_a_plot_is_a_figure_of_pyplot() -> None:
    from matplotlib import pyplot

    scope: dict[str, Any] = {}
    exec(MAKE_HISTORY, scope)
    figure = scope["history"].plot()

    assert pyplot.figure(figure.number) is figure
    pyplot.close(figure)
