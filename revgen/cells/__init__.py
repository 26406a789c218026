"""Cells: the equations of recurrent networks, one file a family."""

from revgen.cells.cell import Cell

__all__ = ["Cell"]
