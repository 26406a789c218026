"""Helpers that write a corpus in any file format."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow
from pyarrow import parquet

FORMATS = [".txt", ".csv", ".tsv", ".jsonl", ".parquet"]


def write(path: Path, texts: list[str], field: str = "text") -> Path:
    """Write a file in the format of its suffix, with a number for each text, and return its path."""
    file_format = Path(path.name.removesuffix(".gz")).suffix
    plain = path.with_name(f"plain{file_format}")
    if file_format == ".jsonl":
        lines = [json.dumps({"id": i, field: text}, ensure_ascii=False) for i, text in enumerate(texts)]
        plain.write_bytes("\n".join(lines).encode())
    elif file_format == ".parquet":
        parquet.write_table(pyarrow.table({"id": list(range(len(texts))), field: texts}), plain)
    elif file_format in (".csv", ".tsv"):
        with plain.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, delimiter="," if file_format == ".csv" else "\t")
            rows.writerow(["id", field])
            rows.writerows(enumerate(texts))
    else:
        plain.write_bytes("".join(texts).encode())
    content = plain.read_bytes()
    plain.unlink()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path
