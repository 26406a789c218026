"""Write the table of generation options into docs/generation.md: run ``python docs/options_table.py``."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from revgen import GenerationConfig

PAGE = Path(__file__).parent / "generation.md"


def options_table() -> str:
    """Return the options of ``generate`` as a Markdown table, from the fields of ``GenerationConfig``."""
    rows = [
        f"| `{option.name}` | `{option.default}` | {option.metadata['help']} |"
        for option in dataclasses.fields(GenerationConfig)
    ]
    return "\n".join(["| option | default | what it does |", "|---|---|---|", *rows])


def with_table(text: str) -> str:
    """Return the page with the current table between the comments ``options`` and ``end``."""
    return re.sub(
        r"(<!-- options -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}{options_table()}\n{match[2]}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")
