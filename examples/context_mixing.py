"""Train context mixing, and measure what each group of its contexts and mixers gains.

    python examples/context_mixing.py train.jsonl valid.jsonl --clean valid_clean.jsonl
    python examples/context_mixing.py train.jsonl valid.jsonl --ladder --epochs 1

The first command prints the loss of one model, its speed and its size. The second adds one group of parts after the
other, from order 0 to the full model, and then removes each group from the full model. The texts are lowercased.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence

import revgen
from revgen.context_mixing.parts import CONTEXTS, PARTS, SELECTORS

PARTS_OF_WORDS = [
    part for part in CONTEXTS if any(name in part for name in ("stem", "ending", "long word", "sentence"))
]
GROUPS = {
    "orders 0 to 3": [f"order {n}" for n in range(4)],
    "orders 4 to 6": [f"order {n}" for n in range(4, 7)],
    "orders 7 to 24": [part for part in PARTS if part.startswith("order ") and int(part[6:]) > 6],
    "interpolated orders": ["interpolated"],
    "words": [part for part in CONTEXTS if "word" in part and part not in PARTS_OF_WORDS],
    "parts of words and long words": PARTS_OF_WORDS,
    "skipped tokens": [part for part in PARTS if part.startswith("skip")],
    "lines and classes": ["column", "start of line", "classes", "2 tokens and classes"],
    "longest match": ["match"],
    "mixers selected by match and order": list(SELECTORS[:2]),
    "mixers selected by decision and document": [SELECTORS[2], SELECTORS[4]],
    "mixers selected by tokens and words": [SELECTORS[3], *SELECTORS[5:]],
    "adaptive probability maps": ["refined"],
}


def ladder() -> Iterator[tuple[str, list[str], bool]]:
    """Yield a name, the parts to leave out, and whether the mixers adapt, for each model to compare."""
    groups = list(GROUPS)
    for i, name in enumerate(groups, 1):
        yield f"+ {name}", [part for group in groups[i:] for part in GROUPS[group]], False
    yield "+ mixers that learn while they read", ["document"], True
    yield "+ counts and matches in the document", [], True
    for name in groups:
        yield f"without {name}", GROUPS[name], True


def measure(
    without: Sequence[str], adapt: bool, epochs: int, train: list[str], valid: dict[str, list[str]]
) -> tuple[revgen.LanguageModel, dict[str, float]]:
    """Train a model; return it, the nats per character of each validation text, and the CPU seconds of training."""
    model = revgen.create("cm-char", without=without, adapt=adapt)
    start = time.process_time()
    model.fit(train, epochs=epochs, progress=False)
    seconds = time.process_time() - start
    losses = {name: model.evaluate(texts).nats_per_char for name, texts in valid.items()}
    return model, losses | {"seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("valid")
    parser.add_argument("--clean", help="a part of the validation text without copies of the training text")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--ladder", action="store_true")
    parser.add_argument("--out", help="the directory for the model")
    arguments = parser.parse_args()
    train = [text.lower() for text in revgen.read(arguments.train)]
    paths = {"all": arguments.valid} | ({"clean": arguments.clean} if arguments.clean else {})
    valid = {name: [text.lower() for text in revgen.read(path)] for name, path in paths.items()}
    if arguments.ladder:
        for name, without, adapt in ladder():
            _, results = measure(without, adapt, arguments.epochs, train, valid)
            print(name, *(f"{key} {value:.4f}" for key, value in results.items()), sep=" | ", flush=True)
        return
    model, results = measure([], True, arguments.epochs, train, valid)
    start = time.process_time()
    characters = sum(map(len, valid["all"]))
    model.evaluate(valid["all"])
    results["scored characters per second"] = characters / (time.process_time() - start)
    start = time.process_time()
    texts = model.generate("", n=4, seed=1, max_tokens=1000, temperature=0.9)
    results["generated characters per second"] = sum(map(len, texts)) / (time.process_time() - start)
    results["bytes"] = sum(array.nbytes for array in model.weights.values())
    print(*(f"{key}: {value:.4f}" for key, value in results.items()), sep="\n")
    print(texts[0])
    if arguments.out:
        print(model.save(arguments.out, dtype="float16"))


if __name__ == "__main__":
    main()
