"""``Block``: one layer of a stack, a cell and the operations around it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from revgen.cells.cell import Cell
from revgen.ops import Array, layer_norm


@dataclass(frozen=True)
class Block:
    """norm(x + dropout(cell(norm(x)))): each normalization, and the residual connection, is used only if it is set.

    The parameters are attributes of ``p``: ``p.layer`` holds those of the cell, and ``p.norm`` and ``p.output_norm``
    hold the ``scale`` and ``shift`` of the normalizations.
    """

    cell: Cell
    normalizes_input: bool = False
    is_residual: bool = False
    normalizes_output: bool = False

    def enter(self, p: SimpleNamespace, x: Array) -> Array:
        """Return the input of the cell."""
        return layer_norm(x, p.norm.scale, p.norm.shift) if self.normalizes_input else x

    def leave(self, p: SimpleNamespace, x: Array, y: Array) -> Array:
        """Return the output of the block, from its input x and the output y of the cell after dropout."""
        x = x + y if self.is_residual else y
        return layer_norm(x, p.output_norm.scale, p.output_norm.shift) if self.normalizes_output else x

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter by name, such as ``layer.W`` or ``norm.scale``."""
        shapes = {f"layer.{name}": tuple(shape) for name, shape in self.cell.param_shapes().items()}
        sizes = {"norm": self.cell.input_size} if self.normalizes_input else {}
        if self.normalizes_output:
            sizes["output_norm"] = self.cell.output_size
        return shapes | {f"{norm}.{name}": (size,) for norm, size in sizes.items() for name in ("scale", "shift")}
