"""What the tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import revgen
from revgen.language_model import LanguageModel


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Networks as small as those of the tests run faster on one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def reviews() -> list[str]:
    """The texts of the corpus in the package."""
    return list(revgen.datasets.load("reviews"))


@pytest.fixture(scope="session")
def small_model(reviews: list[str]) -> LanguageModel:
    """A little LSTM that was trained for a moment; tests must leave it as it is."""
    model = revgen.create("lstm-char", hidden_size=32)
    model.fit(reviews[:40], epochs=2, progress=False)
    return model
