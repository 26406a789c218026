"""Cells: the equations of recurrent layers, one file per family."""

from revgen.cells.cell import Cell

__all__ = ["Cell"]
