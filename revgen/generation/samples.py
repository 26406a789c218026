"""Many texts in a file, each with its receipt, from which it can be made again.

Texts are written side by side, some at a time. What one of them is may depend in the last bit on how many stand beside
it, so a receipt tells of the whole batch: its seed, its size, and the row of the text in it. The same model writes the
same batch again on the same machine.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revgen.errors import OptionError
from revgen.files import to_json
from revgen.generation.config import GenerationConfig
from revgen.generation.decoding import decode, generate
from revgen.options import check, check_at_least, is_int, to_builtins

if TYPE_CHECKING:
    from revgen.model import Model

PAIRED = ("logit_bias", "forced_tokens")
"""Options whose keys may be numbers, which JSON does not know: they are written as lists of pairs."""


def write_samples(
    model: Model,
    path: Path,
    prompt: str,
    n: int,
    options: Mapping[str, Any],
    *,
    batch_size: int,
    resume: bool,
    progress: bool,
    source: str | None,
) -> int:
    """See ``LanguageModel.write_samples``."""
    from tqdm import tqdm

    check_at_least("n", n, 1)
    check_at_least("batch_size", batch_size, 1)
    settings = GenerationConfig.from_kwargs(**options)
    size = min(n, batch_size) if settings.num_beams is None else n
    receipt: dict[str, Any] = {
        "model": source or model.name,
        "revision": model.fingerprint,
        "prompt": prompt,
        "seed": secrets.randbits(32) if settings.seed is None else int(settings.seed),
        "n": size,
        "row": 0,
        "options": _plain({name: value for name, value in options.items() if name != "seed"}),
    }
    decode(model, [prompt], settings, size)  # says what is wrong before the file is touched
    done = 0
    try:
        if path.exists():
            if not resume:
                raise OptionError(f"{path} is there already: continue it with resume=True, or name another file")
            done = _resume(path, receipt, seeded=settings.seed is not None)
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            path.open("a", encoding="utf-8") as file,
            tqdm(total=n, initial=min(done, n), disable=None if progress else True, unit="text") as bar,
        ):
            while done < n:
                batch, first = divmod(done, receipt["n"])
                made = receipt | {"seed": receipt["seed"] + batch}
                rows = _batch(model, made)
                if first >= len(rows):  # beams found no more
                    break
                for row in range(first, min(len(rows), first + n - done)):
                    file.write(to_json({**rows[row], "receipt": made | {"row": row}}) + "\n")
                file.flush()
                bar.update(min(len(rows) - first, n - done))
                done += min(len(rows) - first, n - done)
    except OSError as error:
        raise OptionError(f"{path}: the texts cannot be written: {error.strerror or error}") from None
    return done


def remake(model: Model, receipt: Mapping[str, Any]) -> str:
    """See ``LanguageModel.remake``."""
    receipt = to_builtins(receipt)
    kinds = {"revision": str, "prompt": str, "seed": int, "n": int, "row": int, "options": Mapping}
    for name, kind in kinds.items():
        check(f"receipt[{name!r}]", receipt.get(name), isinstance(receipt.get(name), kind), f"a {kind.__name__}")
    if receipt["revision"] != model.fingerprint:
        raise OptionError(
            f"the receipt is of a model with the revision {receipt['revision'][:12]}, "
            f"and {model.name} has {model.fingerprint[:12]}"
        )
    rows = _batch(model, receipt)
    check("receipt['row']", receipt["row"], 0 <= receipt["row"] < len(rows), f"a row below {len(rows)}")
    return str(rows[receipt["row"]]["text"])


def _batch(model: Model, receipt: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the lines of one batch hold beside their receipts."""
    pairs = {name: dict(value) for name, value in receipt["options"].items() if name in PAIRED and value is not None}
    options: Any = {**receipt["options"], **pairs, "seed": receipt["seed"]}
    texts: Any = generate(model, receipt["prompt"], receipt["n"], options)
    return [{"text": text} | ({"copied": text.copied.to_dict()} if hasattr(text, "copied") else {}) for text in texts]


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON gives them back."""
    if callable(options.get("temperature")):
        raise OptionError("temperature cannot be a function here, as a receipt cannot hold one: give a list")
    listed = {n: [*v.items()] if n in PAIRED and v is not None else v for n, v in options.items()}
    plain: dict[str, Any] = json.loads(to_json(listed))
    return plain


def _resume(path: Path, receipt: dict[str, Any], seeded: bool) -> int:
    """How many texts the file has; a line that was cut off is taken out, and the receipt goes on from the first."""
    with path.open("r+b") as file:
        first = file.readline()
        if not first.endswith(b"\n"):
            file.truncate(0)
            return 0
        try:
            before = json.loads(first)["receipt"]
            told = {name: before[name] for name in receipt}
        except (ValueError, KeyError, TypeError):
            raise OptionError(f"{path} holds no samples with receipts: name another file") from None
        checked = [name for name in receipt if name not in ("model", "n", "row") and (name != "seed" or seeded)]
        if other := [name for name in checked if told[name] != receipt[name]]:
            raise OptionError(f"{path} holds samples of another {other[0]}, {told[other[0]]!r}: name another file")
        check(f"{path}: receipt['n']", told["n"], is_int(told["n"], 1) and is_int(told["seed"], 0), "a whole number")
        receipt |= {name: told[name] for name in ("model", "seed", "n")}
        count, end = 1, len(first)
        for line in file:
            if line.endswith(b"\n"):
                count, end = count + 1, end + len(line)
        file.truncate(end)
    return count
