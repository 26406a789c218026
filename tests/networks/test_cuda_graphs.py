"""Steps that are recorded for a GPU: a replay is what the call was, and nothing in a step waits for the device."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import same_weights
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import revgen
from revgen.architectures.neural import NeuralModel
from revgen.generation.blocks import _block
from revgen.language_model import LanguageModel
from revgen.networks.network import Network
from revgen.networks.recorded import RECORDERS, CudaGraphCache
from revgen.networks.recurrent import run_kernel
from revgen.networks.stack import make_cell
from revgen.registry import tokenizers
from revgen.training import device as feeding
from revgen.training.device import to_device
from revgen.training.recipe import Recipe
from revgen.training.run import TrainingRun

TRAINED = sorted(
    row.name
    for row in revgen.models().rows
    if row.name.endswith("-char") and isinstance(revgen.create(row.name), NeuralModel)
)
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 8, "sequence_length": 24, "progress": False}


class Rerun:
    """Records in the manner of a CUDA graph: nothing is computed before a replay, and then for the same tensors."""

    recordings = 0
    replays = 0

    def __call__(self, function: Any, arguments: Any) -> Any:
        results: list[Any] = []
        self.recordings += 1

        def replay() -> None:
            self.replays += 1
            results[:] = function(*arguments)

        return results, replay


class Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises where tensors of another device are mixed in, or a value is read."""

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        result = function(*given, **(named or {}))
        leaves = pytree.tree_leaves((given, named, result))
        devices = {leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor)}
        assert devices <= {"meta"}, f"{function} has tensors on {devices}"
        return result


def small(name: str, context: int = 16) -> LanguageModel:
    if name.startswith("mlp"):
        return revgen.create(name)
    options: dict[str, Any] = {"context": context} if name.startswith("transformer") else {}
    return revgen.create(name, num_layers=2, hidden_size=16, **options)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Rerun:
    """What records functions on the CPU in this test."""
    recorder = Rerun()
    monkeypatch.setitem(RECORDERS, "cpu", recorder)
    return recorder


@pytest.mark.parametrize("name", ["awd-lstm-char", "elman-char", "lstm-char", "minlstm-char", "transformer-char"])
def test_a_replayed_step_is_the_step(name: str, reviews: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, recorded = small(name), small(name)
    plain.fit(reviews[:20], **QUICK)
    monkeypatch.setitem(RECORDERS, "cpu", recorder := Rerun())
    recorded.fit(reviews[:20], **QUICK)
    assert recorder.replays > 10
    assert same_weights(plain, recorded)


def test_a_step_that_cannot_be_recorded_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(function: Any, arguments: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setitem(RECORDERS, "cpu", refuse)
    double = CudaGraphCache(lambda x: (x * 2,), torch.device("cpu"))
    for value in (1.0, 2.0, 3.0):
        assert double(torch.tensor([value]))[0].item() == 2 * value


def test_each_shape_has_its_own_recording(recorder: Rerun) -> None:
    double = CudaGraphCache(lambda x: (x * 2,), torch.device("cpu"))
    results = [double(torch.full((size,), float(i)))[0] for i in range(3) for size in (2, 3)]
    assert [result.tolist() for result in results] == [[2.0 * i] * size for i in range(3) for size in (2, 3)]
    assert recorder.recordings == 2 and recorder.replays == 4


@pytest.mark.parametrize("name", TRAINED)
def test_no_step_waits_for_the_device(name: str, reviews: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device that has no values at all."""
    monkeypatch.setattr(Network, "in_bfloat16", lambda *_: nullcontext())  # there is no autocast for it
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, lr, **_: torch.optim.SGD(groups, lr))
    model = small(name)
    assert isinstance(model, NeuralModel)
    model.prepare(tokenizers.get("char").train(reviews[:5]), seed=0)
    model.to("meta")
    run = TrainingRun(model, range(1000), Recipe(epochs=1, learning_rate=0.01))  # type: ignore[arg-type]
    run.network.train()
    tokens = torch.zeros((12, 4), dtype=torch.int64, device="meta")
    run.step(tokens, tokens, 0.01)  # as the first is never recorded, it may bring something to the device
    with Watched():  # type: ignore[no-untyped-call]
        for _ in range(2):
            loss = run.step(tokens, tokens, 0.01)
    assert loss.device.type == "meta" and loss.shape == ()


@pytest.mark.parametrize("ahead", [1, 200, 1 << 20])
def test_batches_that_are_sent_ahead_are_the_same(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "PREFETCH_TOKENS", ahead)
    lengths = (7, 5, 7, 3)
    chunks = [(torch.randint(9, (n, 4)).numpy(), torch.randint(9, (n, 4)).numpy()) for n in lengths]
    sent = list(to_device(iter(chunks), "cpu:0"))
    for given, there in zip(chunks, sent, strict=True):
        assert all((torch.from_numpy(one) == other).all() for one, other in zip(given, there, strict=True))
    assert [len(inputs) for inputs, _ in sent] == list(lengths)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", ["awd-lstm-char", "elman-char", "lstm-char", "transformer-char"])
def test_a_gpu_learns_what_a_processor_learns(name: str, reviews: list[str]) -> None:
    models = small(name), small(name).to("cuda")
    losses = [model.fit(reviews[:50], valid=0.1, **QUICK)[-1].train_loss for model in models]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


@pytest.mark.parametrize("name", ["gru", "lstm", "rnn"])
def test_a_kernel_in_bfloat16_gives_about_the_same_and_float32_gradients(name: str) -> None:
    cell = make_cell(name, 8, 8, {})
    random = np.random.default_rng(0)
    shapes = cell.param_shapes().items()
    weights = {key: torch.tensor(cell.init_param(key, shape, random), dtype=torch.float32) for key, shape in shapes}
    p = SimpleNamespace(**{key: value.requires_grad_() for key, value in weights.items()})
    x, state = torch.randn(20, 3, 8, requires_grad=True), cell.initial_state(3, torch.zeros)
    exact, _ = run_kernel(cell, p, x, state)
    y, after = run_kernel(cell, p, x, state, torch.bfloat16)
    torch.testing.assert_close(y.float(), exact, atol=0.05, rtol=0.05)
    y.float().sum().backward()  # type: ignore[no-untyped-call]
    assert all(value.grad is not None and value.grad.dtype == torch.float32 for value in vars(p).values())
    assert {leaf.dtype for leaf in pytree.tree_leaves(after)} == {torch.float32}


@pytest.mark.parametrize("name", TRAINED)
def test_no_block_of_tokens_waits_for_the_device(
    name: str, reviews: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Network, "in_bfloat16", lambda *_: nullcontext())
    model = small(name)
    assert isinstance(model, NeuralModel)
    model.prepare(tokenizers.get("char").train(reviews[:5]), seed=0)
    network = model.to("meta").network
    vocab = len(model.tokenizer)
    sampling = revgen.Sampling(top_k=5, top_p=0.9, min_p=0.1, typical_p=0.9)
    block = _block(network, sampling, model.tokenizer.eos_id, 0)
    tokens = torch.zeros(3, dtype=torch.int64, device="meta")
    rest = [torch.zeros(shape, device="meta") for shape in [(2, 3), (2, 3, 1)]]
    with torch.inference_mode():
        _, state = network(tokens[None])
        with Watched():  # type: ignore[no-untyped-call]
            written, state = block(network.equation.pad_state(state), torch.zeros(vocab, device="meta"), tokens, *rest)
    assert written.shape == (2, 3)


@pytest.fixture(scope="module", params=["lstm-char", "transformer-char", "textgenrnn-char"])
def fitted(request: pytest.FixtureRequest) -> LanguageModel:
    model = small(request.param, context=128)  # which no text in the tests fills
    model.fit(list(revgen.datasets.load("reviews"))[:40], **QUICK)
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0},
        {"temperature": [0.3, 0, 1.2]},
        {"top_k": 5, "min_p": 0.01},
        {"top_p": 0.8, "typical_p": 0.9, "banned_tokens": ["e"]},
        {"stop": ["the s", "qq"], "logit_bias": {" ": 2.0}},
        {"min_tokens": 30},
    ],
)
def test_texts_that_are_drawn_in_blocks_are_the_same(
    fitted: LanguageModel, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fitted.to("cpu")
    prompts = ["the ", "a", "I like the song"]
    monkeypatch.setitem(RECORDERS, "cpu", recorder := Rerun())

    def written() -> list[Any]:
        several = model.generate(prompts, n=3, max_tokens=70, seed=2, **options)
        return [several, model.generate("the ", max_tokens=90, seed=4, **options)]

    expected = written()
    model.to("cpu:0")  # by PyTorch, as on a GPU
    assert written() == expected
    assert bool(recorder.replays) == ("min_tokens" not in options)
