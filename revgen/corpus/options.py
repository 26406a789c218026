"""The options of reading, which everything that reads text takes."""

from __future__ import annotations

from typing import TypedDict


class ReadOptions(TypedDict, total=False):
    """The keyword arguments of ``revgen.read`` beside the source and its labels; it says what each is for."""

    field: str
    documents: str
    errors: str
    encoding: str | None
    delimiter: str | None
    quoting: str | None
