"""Many texts in a file of JSON lines, each with its provenance: how it was generated.

Texts are generated in batches. The last bits of a text may depend on the size of its batch, so the provenance describes
the batch: its seed, its size, and the row of the text in it. The same model generates the same batch again on the same
machine, which is how a file that was cut off is continued.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from revgen.display.progress import progress_bar
from revgen.errors import OptionError
from revgen.files import lock, make_directory, open_file, to_json, to_readable_json
from revgen.generation.config import GenerationConfig
from revgen.generation.decoding import decode, generate
from revgen.generation.defaults import add_defaults, resolve_prompt
from revgen.options import check, check_at_least, is_int, safe_repr

if TYPE_CHECKING:
    from revgen.model import Model

PAIRED_OPTIONS = ("logit_bias", "forced_tokens")
"""Options whose keys may be numbers, which JSON does not allow: they are written as lists of pairs."""

LINE_START = b'{"text": '
MAX_LINE_BYTES = 64 << 20
BLOCK_SIZE = 1 << 20
"""Bytes that are searched for ends of lines at once."""


def write_samples(
    model: Model,
    path: Path,
    prompt: str | None,
    n: int,
    options: Mapping[str, Any],
    *,
    batch_size: int,
    resume: bool,
    progress: bool,
    source: str | None,
) -> int:
    """Generate texts into a file; ``LanguageModel.write_samples`` describes the parameters."""
    check_at_least("n", n, 1)
    check_at_least("batch_size", batch_size, 1)
    options = add_defaults(model, options)
    prompt = resolve_prompt(model, prompt)
    config = GenerationConfig.from_kwargs(**options)
    provenance: dict[str, Any] = {
        "model": source or model.name,
        "revision": model.fingerprint,
        "prompt": prompt,
        "seed": secrets.randbits(32) if config.seed is None else int(config.seed),
        "n": min(n, batch_size) if config.num_beams is None else n,
        "row": 0,
        "options": _as_json({name: value for name, value in options.items() if name != "seed"}),
    }
    decode(model, [prompt], config, provenance["n"])  # raises errors before the file is touched
    try:
        make_directory(path.parent)
        with _open_locked(path, resume) as file:
            count = _resume(file, path, provenance, config.seed is not None)
            with progress_bar(progress, total=n, initial=min(count, n), unit="text") as bar:
                while count < n:
                    rows = _missing_rows(model, prompt, options, provenance, count)[: n - count]
                    if not rows:  # beam search finds no more texts
                        break
                    file.writelines(f"{to_readable_json(row)}\n".encode() for row in rows)
                    file.flush()
                    bar.update(len(rows))
                    count += len(rows)
    except OSError as error:
        raise OptionError(f"{path}: the texts cannot be written: {error.strerror or error}") from None
    return count


def _missing_rows(
    model: Model, prompt: str, options: Mapping[str, Any], provenance: Mapping[str, Any], count: int
) -> list[dict[str, Any]]:
    """Return the lines that follow the first ``count`` lines of a file, up to the end of a batch."""
    batch, first = divmod(count, provenance["n"])
    seed = provenance["seed"] + batch
    texts: Any = generate(model, prompt, provenance["n"], {**options, "seed": seed})
    rows = []
    for row, text in enumerate(texts[first:], first):
        copied = {"copied": text.copied.to_dict()} if hasattr(text, "copied") else {}
        rows.append({"text": text, **copied, "provenance": {**provenance, "seed": seed, "row": row}})
    return rows


def _as_json(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as they are read from JSON. Raises OptionError for functions and objects of the user."""
    if callable(options.get("temperature")):
        raise OptionError("temperature cannot be a function here, since a file cannot hold it: give a list")
    if any(not isinstance(item, str) for item in options.get("filters") or ()):
        raise OptionError("filters cannot be functions here, since a file cannot hold them: give registered names")
    if options.get("guide") is not None:
        raise OptionError("guide cannot be an object here, since a file cannot hold it: use regex or choices")
    pairs = {name: [*options[name].items()] for name in PAIRED_OPTIONS if options.get(name) is not None}
    result: dict[str, Any] = json.loads(to_json({**options, **pairs}))
    return result


@contextmanager
def _open_locked(path: Path, resume: bool) -> Iterator[IO[bytes]]:
    """Open a new or an existing file for reading and writing, which no other process writes meanwhile."""
    exists = path.exists()
    if exists and not resume:
        raise OptionError(f"{path} exists already: continue it with resume=True, or name another file")
    if exists:
        open_file(path).close()  # raises OSError for a pipe or a device
    try:
        with path.open("r+b" if exists else "x+b") as file, lock(path):
            yield file
    except BlockingIOError:
        raise OptionError(f"{path}: another process writes texts to this file: name another file") from None


def _resume(file: IO[bytes], path: Path, provenance: dict[str, Any], has_seed: bool) -> int:
    """Return how many texts a file has; remove a line that was cut off, and continue with the first line's batches.

    Raises OptionError for a file of anything else.
    """
    first = file.readline(MAX_LINE_BYTES)
    if not first.endswith(b"\n") and first.startswith(LINE_START[: len(first)]) and len(first) < MAX_LINE_BYTES:
        file.seek(0)
        file.truncate()
        return 0
    try:
        recorded = json.loads(first)["provenance"]
        recorded = {name: recorded[name] for name in provenance}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise OptionError(f"{path} holds no samples with their provenance: name another file") from None
    must_agree = ["revision", "prompt", "options", *(["seed"] if has_seed else [])]
    if different := [name for name in must_agree if recorded[name] != provenance[name]]:
        name = different[0]
        raise OptionError(f"{path} holds samples of another {name}, {safe_repr(recorded[name])}: name another file")
    for name, minimum in (("n", 1), ("seed", 0)):
        check(f"{path}: {name}", recorded[name], is_int(recorded[name], minimum), "a whole number")
    provenance |= {name: recorded[name] for name in ("model", "seed", "n")}
    count, position, end = 1, len(first), len(first)
    while block := file.read(BLOCK_SIZE):
        count += block.count(b"\n")
        end = position + block.rindex(b"\n") + 1 if b"\n" in block else end
        position += len(block)
    file.seek(end)
    file.truncate()
    return count
