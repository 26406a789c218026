"""Fixtures for all tests."""

from __future__ import annotations

import gc
import json
import os
import runpy
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# The workers of pytest keep all processors busy, and then the threads of OpenBLAS mostly wait for each other. NumPy
# reads this when it is imported, here and in the processes that tests start.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from chromium import browser, chromium, online_browser  # noqa: F401  fixtures
from hub_server import Hub, Repository

import revgen
from revgen.language_model import LanguageModel
from revgen.registry import tokenizers
from revgen.tokenizers import Tokenizer

# The Hub client reads its settings once, when it is imported. So they are set here, to the URL of a local server, for
# all tests and the processes that tests start. The server refuses connections until the fixture ``hub`` starts it.
HUB = Hub()
HUB_HOME = Path(tempfile.mkdtemp(prefix="revgen-tests-"))
os.environ |= {
    "HF_ENDPOINT": HUB.url,
    "HF_HOME": str(HUB_HOME),
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    "NO_PROXY": "127.0.0.1",
}
HUB_TOKEN = os.environ.pop("HF_TOKEN", None)

# Background jobs of a shell ignore Ctrl-C, and so do the processes that they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Let the garbage collector ignore all modules and tests, and run less often, which saves 8% of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def pytest_unconfigure() -> None:
    """Remove the temporary directory of the Hub client."""
    shutil.rmtree(HUB_HOME, ignore_errors=True)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub, an empty cache, and the token of a user with write access."""
    HUB.start()
    HUB.clear()
    shutil.rmtree(HUB_HOME, ignore_errors=True)
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    yield HUB
    HUB.clear()


def same_model(one: LanguageModel, other: LanguageModel) -> bool:
    """Return whether two models have the same name, tokenizer and weights."""
    return (
        one.name == other.name
        and one.tokenizer == other.tokenizer
        and one.weights.keys() == other.weights.keys()
        and all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)
    )


def same_weights(one: LanguageModel, other: LanguageModel) -> bool:
    """Return whether the weights of two models are equal."""
    return all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Run PyTorch on one thread, which is faster for the small networks of the tests."""
    import torch

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="session")
def reviews() -> list[str]:
    """The documents of the corpus in the package."""
    return list(revgen.datasets.load("reviews"))


@pytest.fixture(scope="session")
def small_model(reviews: list[str]) -> LanguageModel:
    """A small trained LSTM. Tests must not change it."""
    model = revgen.create("lstm-char", hidden_size=32)
    model.fit(reviews[:40], epochs=2, progress=False)
    return model


@pytest.fixture
def model_directory(small_model: LanguageModel, tmp_path: Path) -> str:
    """The directory of the saved small model."""
    return str(small_model.save(tmp_path / "model"))


@pytest.fixture
def run_example(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a program of ``examples`` with arguments, as the command line does."""

    def run(name: str, *arguments: Any) -> None:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(Path(__file__).parents[1] / "examples" / name), run_name="__main__")

    return run


@pytest.fixture
def texts_file(reviews: list[str], tmp_path: Path) -> str:
    """A JSON Lines file of 15 documents with the fields ``text`` and ``body``."""
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text, "body": text.upper()}) + "\n" for text in reviews[:15]), "utf-8")
    return str(path)


@pytest.fixture
def reviews_file(reviews: list[str], tmp_path: Path) -> Path:
    """A text file of the documents of the corpus in the package, one in each line."""
    path = tmp_path / "a.txt"
    path.write_text("\n".join(reviews), "utf-8")
    return path


@pytest.fixture(scope="session")
def char_tokenizer(reviews: list[str]) -> Tokenizer:
    """A tokenizer that knows every character of the reviews."""
    tokenizer: Tokenizer = tokenizers.get("char").train(reviews, min_count=1)
    return tokenizer


@pytest.fixture
def held_out_file(reviews: list[str], tmp_path: Path) -> str:
    """A text file of one document."""
    path = tmp_path / "held_out.txt"
    path.write_text(reviews[50], "utf-8")
    return str(path)


@pytest.fixture
def pushed(hub: Hub, small_model: LanguageModel) -> Repository:
    """The repository ``me/model`` with the small model. The requests that created it are cleared."""
    small_model.push_to_hub("me/model")
    hub.requests.clear()
    return hub.repositories["me/model"]


@pytest.fixture(scope="session")
def models_by_level(small_model: LanguageModel, reviews: list[str]) -> dict[str, LanguageModel]:
    """A small trained model for each tokenizer level. Tests must not change them."""
    word = revgen.create("gru-word", hidden_size=12, num_layers=1, embedding_size=8)
    subword = revgen.create("elman-subword", hidden_size=12, tie_embeddings=False, tokenizer={"vocab_size": 400})
    for model in (word, subword):
        model.fit(reviews[:20], epochs=1, progress=False)
    return {"char": small_model, "word": word, "subword": subword}


@pytest.fixture(scope="session")
def original_directory(small_model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the saved small model. Tests must not change it."""
    return small_model.save(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def saved(original_directory: Path, tmp_path: Path) -> Path:
    """A copy of the directory of the saved small model. Tests may change it."""
    return Path(shutil.copytree(original_directory, tmp_path / "model"))
