"""Filters, built-in ones and those of the user, on every backend, and the checks for them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from toys import Silent, chars, probabilities, table

import revgen
from revgen import LanguageModel, OptionError
from revgen.generation.filters import (
    Filter,
    FilterContext,
    FrequencyPenalty,
    LogitBias,
    MinP,
    RepetitionPenalty,
    TemperatureScaling,
    TopK,
    TopP,
    TypicalP,
    is_immutable,
)
from revgen.networks.cuda_graphs import RECORDERS
from revgen.ops import arange, stack, where
from revgen.registry import filters
from revgen.testing import check_filter

BUILT_IN: list[Filter] = [
    RepetitionPenalty(1.3),
    RepetitionPenalty(0.5),
    FrequencyPenalty(0.4),
    TemperatureScaling(),
    TopK(5),
    TopK(10**9),
    TopP(0.8),
    TopP(1e-300),
    MinP(0.1),
    MinP(0.0),
    TypicalP(0.7),
]


@dataclass(frozen=True)
class Ban:
    """Make one token impossible."""

    token: int

    def __call__(self, logits: Any, context: FilterContext) -> Any:
        return where(arange(logits.shape[-1], logits) != self.token, logits, -np.inf)


class MutableBan:
    """The same with a parameter that may change."""

    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, logits: Any, context: FilterContext) -> Any:
        return Ban(self.token)(logits, context)


@dataclass(frozen=True)
class BanRepeated:
    """Make the last token impossible."""

    needs_tokens = True

    def __call__(self, logits: Any, context: FilterContext) -> Any:
        tokens = arange(logits.shape[-1], logits)
        masks = stack([tokens != ids[-1] for ids in context.tokens])
        return where(masks, logits, -np.inf)


@pytest.fixture
def letters() -> LanguageModel:
    return table(chars("abcdef"), np.array([-9, -9, -9, 3, 2, 1, 0, 0, 0]))


# What a filter does -----------------------------------------------------------------------


@pytest.mark.parametrize("built_in", BUILT_IN, ids=str)
def test_built_in_filters_pass_the_checks(built_in: Filter) -> None:
    check_filter(built_in)
    assert is_immutable(built_in)


def test_biases_are_added_to_the_logits(letters: LanguageModel) -> None:
    logits = np.zeros((2, 3), np.float32)
    biased = LogitBias(np.array([0, 1, -np.inf], np.float32))(logits, FilterContext(np.zeros(2)))
    assert biased.tolist() == [[0, 1, -np.inf]] * 2


def test_a_filter_changes_every_text(letters: LanguageModel) -> None:
    b = int(letters.tokenizer.encode("b")[0])
    for n in (1, 20):
        for options in ({}, {"top_k": 3}, {"repetition_penalty": 1.1}, {"min_tokens": 4}, {"num_beams": max(n, 2)}):
            texts = letters.generate("a", n=n, max_tokens=30, seed=0, filters=[Ban(b)], **options)
            assert all("b" not in text and len(text) > 1 for text in texts), options
    assert "b" not in "".join(letters.stream("a", max_tokens=90, seed=0, filters=[Ban(b)]))
    assert "b" not in revgen.synthesize([letters], "a", max_tokens=30, seed=0, filters=[Ban(b)])


def test_filters_run_in_their_order_before_temperature_and_truncation(letters: LanguageModel) -> None:
    seen: list[Any] = []

    def record(logits: Any, context: FilterContext) -> Any:
        seen.append(logits.copy())
        return logits

    a = int(letters.tokenizer.encode("a")[0])
    letters.generate("", max_tokens=1, top_k=2, temperature=0.5, filters=[record, Ban(a), record])

    assert np.ptp(seen[0][0, a : a + 3]) == 2 and np.isfinite(seen[0][0, a])
    assert seen[1][0, a] == -np.inf and np.isfinite(seen[1][0, a + 1])


@pytest.mark.parametrize("options", [{"temperature": 0}, {"top_k": 1}, {"min_p": 1}, {"top_p": 0.01}], ids=str)
def test_a_filter_bans_the_only_token_that_truncation_would_keep(letters: LanguageModel, options: Any) -> None:
    a = int(letters.tokenizer.encode("a")[0])
    for n in (1, 3):
        texts = letters.generate("", n=n, max_tokens=3, seed=0, filters=[Ban(a)], **options)
        assert set(texts) == {"bbb"}


def test_a_filter_sees_the_tokens_so_far(letters: LanguageModel) -> None:
    texts = letters.generate(["aab", "f"], n=10, max_tokens=40, seed=1, filters=[BanRepeated()])

    continuations = [text[2:] if text.startswith("aab") else text for row in texts for text in row]
    assert all(x != y for text in continuations for x, y in itertools.pairwise(text))


def test_a_filter_sees_how_many_tokens_have_been_sampled(letters: LanguageModel) -> None:
    positions: list[list[int]] = []

    def record(logits: Any, context: FilterContext) -> Any:
        positions.append(context.positions.tolist())
        return logits

    letters.generate(["", "abc"], max_tokens=2, temperature=0, filters=[record])

    assert positions == [[0], [1], [0], [1]]


def test_an_impossible_token_stays_impossible_and_a_filter_that_leaves_nothing_is_ignored(
    letters: LanguageModel,
) -> None:
    b = int(letters.tokenizer.encode("b")[0])

    def allow_all(logits: Any, context: FilterContext) -> Any:
        return np.zeros_like(logits)

    def allow_nothing(logits: Any, context: FilterContext) -> Any:
        return np.full_like(logits, np.nan)

    text = letters.generate("", max_tokens=60, seed=0, filters=[allow_all], banned_tokens=["b"])
    assert text and "b" not in text and set(text) <= set("acdef")
    options: Any = {"max_tokens": 60, "seed": 0}
    assert letters.generate("", filters=[allow_nothing], **options) == letters.generate("", top_k=99, **options)
    assert letters.generate("", max_tokens=4, regex="b{4}", filters=[Ban(b)]) == "bbbb"


# Names and errors -------------------------------------------------------------------------


def test_a_registered_filter_is_used_by_its_name(letters: LanguageModel) -> None:
    @revgen.register_filter("no-b")
    class NoB:
        def __call__(self, logits: Any, context: FilterContext) -> Any:
            return Ban(4)(logits, context)

    try:
        assert "b" not in letters.generate("", max_tokens=60, seed=0, filters=["no-b"])
        with pytest.raises(revgen.UnknownNameError, match="no-b"):
            revgen.GenerationConfig(filters=["no-c"])
    finally:
        filters.unregister("no-b")
    with pytest.raises(revgen.RegistrationError, match="must be a class with __call__"):
        revgen.register_filter("nothing")(object)


@pytest.mark.parametrize("value", ["top-k", 3, [3], [None], [TopK], Ban(1), {"a": 1}])
def test_filters_must_be_functions_or_names(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^filters(\[0\])? must "):
        table(chars("ab"), kind=Silent).generate("a", filters=value)


@pytest.mark.parametrize("result", [None, 3.0, np.zeros(3)])
def test_a_filter_that_returns_anything_but_logits_is_an_error(letters: LanguageModel, result: Any) -> None:
    with pytest.raises(OptionError, match=r"^filters: .* must return logits like its argument"):
        letters.generate("a", filters=[lambda logits, context: result])


# GPUs -------------------------------------------------------------------------------------


class FakeRecorder:
    """Record functions on a CPU as a GPU does: the arguments are copied, and no Python object is read again."""

    def __init__(self) -> None:
        self.recordings = 0

    def __call__(self, function: Any, arguments: Any) -> Any:
        self.recordings += 1
        results: list[Any] = []

        def replay() -> None:
            results[:] = function(*arguments)

        return results, replay


@pytest.fixture
def gpu_model(monkeypatch: pytest.MonkeyPatch) -> tuple[LanguageModel, FakeRecorder]:
    """A model that generates as on a GPU, and the recorder of its blocks."""
    recorder = FakeRecorder()
    monkeypatch.setitem(RECORDERS, "cpu", recorder)
    return load_without_defaults().to("cpu:0"), recorder


def load_without_defaults() -> LanguageModel:
    """Return a pretrained model without its defaults for ``generate``, which make few tokens possible."""
    model = revgen.load("gru-char")
    model.generation_config = {}
    return model


@pytest.mark.parametrize("kind", [Ban, MutableBan])
def test_a_recorded_block_never_samples_with_an_old_filter(
    gpu_model: tuple[LanguageModel, FakeRecorder], kind: Any
) -> None:
    model, recorder = gpu_model
    options: Any = {"n": 3, "max_tokens": 70, "seed": 1}

    for letter in "eta":
        token = int(model.tokenizer.encode(letter)[0])
        texts = model.generate("the ", filters=[kind(token)], **options)
        assert letter not in "".join(text.removeprefix("the ") for text in texts)
    assert any("e" in text for text in texts)
    assert recorder.recordings == (3 if kind is Ban else 0)


def test_a_parameter_that_changes_takes_effect_at_once(gpu_model: tuple[LanguageModel, FakeRecorder]) -> None:
    model, _ = gpu_model
    ban = MutableBan(int(model.tokenizer.encode("e")[0]))
    assert "e" not in model.generate("I ", filters=[ban], max_tokens=200, seed=1)

    ban.token = int(model.tokenizer.encode("a")[0])

    text = model.generate("I ", filters=[ban], max_tokens=200, seed=1)
    assert "a" not in text and "e" in text


def test_a_filter_generates_the_same_on_every_backend(gpu_model: tuple[LanguageModel, FakeRecorder]) -> None:
    model, _ = gpu_model
    options: Any = {"max_tokens": 100, "seed": 3, "filters": [Ban(int(model.tokenizer.encode("e")[0]))]}
    options |= {"temperature": 0.8, "top_p": 0.9}

    on_numpy = load_without_defaults().generate("the ", **options)

    assert model.generate("the ", **options) == on_numpy
    assert load_without_defaults().compile().generate("the ", **options) == on_numpy


@dataclass(frozen=True)
class WithArray:
    values: Any = field(default_factory=lambda: np.zeros(3))


@dataclass
class NotFrozen:
    k: int = 3


class Subclass(TopK):
    pass


@pytest.mark.parametrize("item", [WithArray(), NotFrozen(), Subclass(3), lambda logits, context: logits, MutableBan(1)])
def test_only_frozen_dataclasses_with_hashable_fields_are_recorded(item: Any) -> None:
    assert not is_immutable(item)


# The checks -------------------------------------------------------------------------------


class Remembers:
    """A filter that gives another result each time."""

    calls = 0

    def __call__(self, logits: Any, context: FilterContext) -> Any:
        self.calls += 1
        return logits + self.calls


@dataclass(frozen=True)
class HiddenParameter:
    """A filter with a parameter that is not a field."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", 2.0)

    def __call__(self, logits: Any, context: FilterContext) -> Any:
        return logits * vars(self)["scale"]


def in_place(logits: Any, context: FilterContext) -> Any:
    logits[:, 5] = 0
    return logits


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (in_place, "changes its argument"),
        (Remembers(), "two calls"),
        (HiddenParameter(), "would not notice a change of scale"),
        (lambda logits, context: logits[:, :-1], "of shape"),
        (lambda logits, context: logits.astype(np.float64), "float64 of shape"),
        (lambda logits, context: logits * np.nan, "NaN or infinity"),
        (lambda logits, context: logits - np.inf, "no token is possible"),
        (lambda logits, context: logits - logits.max(), "a row alone, and in a batch"),
        (lambda logits, context: logits + isinstance(logits, np.ndarray), "NumPy and PyTorch"),
    ],
)
def test_the_checks_say_what_is_wrong_with_a_filter(wrong: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_filter(wrong)


def test_filters_of_the_tests_pass_the_checks() -> None:
    for item in (Ban(5), MutableBan(5), BanRepeated()):
        check_filter(item)


def test_probabilities_follow_the_filters() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.125, 0.125]], np.float32))

    p = probabilities(logits, filters=[Ban(0)])

    np.testing.assert_allclose(p, [[0, 0.5, 0.25, 0.25]], rtol=1e-5)
