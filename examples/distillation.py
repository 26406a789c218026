"""Compare a small network that is trained on text alone with one that a teacher teaches too (Hinton et al. 2015).

    python examples/distillation.py path/to/music_reviews

The folder has ``train.jsonl`` and ``valid.jsonl``. Both networks have the same first weights and read the same number
of tokens of the first posts. The teacher is ``lstm-char``, which was trained on all posts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import revgen


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both networks, and print their losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--student", default="gru-char")
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--teacher", default="lstm-char")
    parser.add_argument("--posts", type=int, default=300, help="the number of training posts")
    parser.add_argument("--tokens", type=int, default=800_000, help="the number of tokens to read")
    options = parser.parse_args(arguments)
    train = list(revgen.read(options.data / "train.jsonl"))[: options.posts]
    valid = options.data / "valid.jsonl"
    teacher = revgen.load(options.teacher)
    lessons: dict[str, Any] = {"text alone": {}, "text and teacher": {"teacher": teacher}}
    for name, lesson in lessons.items():
        student = revgen.create(options.student, hidden_size=options.hidden_size, tokenizer=teacher.tokenizer)
        start = time.process_time()
        student.fit(train, token_budget=options.tokens, progress=False, **lesson)
        seconds = time.process_time() - start
        print(f"{name}: {student.evaluate(valid).nats_per_char:.4f} nats per character, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
