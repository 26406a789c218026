"""Facts about a corpus: its size, licence and source."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DatasetInfo:
    """The size, licence and source of a corpus. Fields that are unknown are None."""

    name: str
    description: str
    documents: int | None = None
    characters: int | None = None
    size: int | None = None
    """The size of its files in bytes."""
    licence: str | None = None
    source: str | None = None
    """``"package"``, or the address of the repository."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return dataclasses.asdict(self)
