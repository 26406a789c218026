"""Update the pages about the pretrained models from their metadata: the tables, and the samples in the gallery."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from revgen import pretrained

TEXT_HEAD = "| model | parameters | size | nats/char | with a cache | real words | distinct | copied | sentence end |"
NAME_HEAD = "| model | parameters | size | nats/char | new names | distinct names |"
DOCS = Path(__file__).parent.parent / "docs"


def write_pages() -> None:
    """Update the text between the markers in both pages."""
    for path, text in updated_pages().items():
        path.write_text(text, "utf-8")


def updated_pages() -> dict[Path, str]:
    """Return the pages with the present tables and samples."""
    contents = {name: read_config(name) for name in pretrained.names()}
    sections = {DOCS / "models.md": tables(contents), DOCS / "gallery.md": gallery(contents)}
    return {path: with_section(path.read_text("utf-8"), section) for path, section in sections.items()}


def with_section(page: str, section: str) -> str:
    """Return a page with this text between the markers."""
    return re.sub(r"(?s)(?<=<!-- pretrained -->\n).*?(?=<!-- end -->)", lambda _: f"\n{section}\n\n", page)


def read_config(name: str) -> dict[str, Any]:
    """Return the content of the config.json of a pretrained model."""
    return dict(json.loads((pretrained.DIRECTORY / name / "config.json").read_bytes()))


def tables(contents: dict[str, dict[str, Any]]) -> str:
    """Return one table of the models that generate text, and one of those that generate names."""
    texts = [TEXT_HEAD, re.sub(r"[^|]+", "--:", TEXT_HEAD).replace("--:", "---", 1)]
    names = [NAME_HEAD, re.sub(r"[^|]+", "--:", NAME_HEAD).replace("--:", "---", 1)]
    for name, content in contents.items():
        losses, generated = (content["metadata"][key] for key in ("evaluation", "generated"))
        parameters, size = content["weights"]["parameters"], directory_size(name) / 1e6
        cells = [f"`{name}`", f"{parameters:,}", f"{size:.2f} MB", f"{losses['nats_per_char']:.3f}"]
        if "new_names" in generated:
            cells += [f"{generated[key]:.0%}" for key in ("new_names", "distinct_names")]
        else:
            adaptive = losses.get("nats_per_char_adaptive")
            keys = ("real_words", "distinct_words", "copied", "complete")
            cells += ["" if adaptive is None else f"{adaptive:.3f}", *(f"{generated[key]:.1%}" for key in keys)]
        (names if "new_names" in generated else texts).append(f"| {' | '.join(cells)} |")
    return "\n".join([*texts, "", *names])


def directory_size(name: str) -> int:
    """Return the size of all files of a pretrained model, in bytes."""
    return sum(path.stat().st_size for path in (pretrained.DIRECTORY / name).iterdir())


def gallery(contents: dict[str, dict[str, Any]]) -> str:
    """Return a section for each model: its data, its command, and its samples, which were not picked."""
    sections = []
    for name, content in contents.items():
        metadata = content["metadata"]
        parameters, bits = content["weights"]["parameters"], metadata["evaluation"]["bits_per_char"]
        facts = f"{parameters:,} parameters, {bits:.2f} bits per character."
        command = f"```sh\nrevgen export {name} {name}.html\n```"
        samples = map(quote, metadata["samples"])
        sections.append("\n\n".join([f"## {name}", metadata["data"], facts, command, *samples]))
    return "\n\n".join(sections)


def quote(text: str) -> str:
    """Return a text as a quotation in Markdown, with its line breaks."""
    escaped = re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", text)
    return "\n".join(f"> {line}  ".rstrip() + "  " if line else ">" for line in escaped.splitlines())
