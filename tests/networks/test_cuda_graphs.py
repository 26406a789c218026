"""CUDA graphs: a replay computes the same as a call, and no step waits for the device."""

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
from revgen.architectures import neural
from revgen.architectures.neural import NeuralModel
from revgen.generation.blocks import tensor_block
from revgen.language_model import LanguageModel
from revgen.networks.cuda_graphs import RECORDERS, CudaGraphCache
from revgen.networks.network import Network
from revgen.networks.recurrent import run_kernel
from revgen.networks.stack import make_cell
from revgen.registry import tokenizers
from revgen.training import device as training_device
from revgen.training.device import to_device
from revgen.training.recipe import Recipe
from revgen.training.run import TrainingRun

NEURAL_MODELS = sorted(
    row.name
    for row in revgen.models().rows
    if row.name.endswith("-char") and isinstance(revgen.create(row.name), NeuralModel)
)
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 8, "sequence_length": 24, "progress": False}


class FakeRecorder:
    """Records functions like a CUDA graph, but on the CPU.

    Nothing is computed before a replay, and each replay reads the same tensors.
    """

    num_recordings = 0
    num_replays = 0

    def __call__(self, function: Any, arguments: Any) -> Any:
        results: list[Any] = []
        self.num_recordings += 1

        def replay() -> None:
            self.num_replays += 1
            results[:] = function(*arguments)

        return results, replay


class MetaDeviceOnly(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises if an operator uses tensors of another device, or reads a value. Tensors of the meta device have none."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        leaves = pytree.tree_leaves((args, kwargs, result))
        devices = {leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor)}
        assert devices <= {"meta"}, f"{function} has tensors on {devices}"
        return result


def small(name: str, context: int = 16) -> LanguageModel:
    if name.startswith("mlp"):
        return revgen.create(name)
    options: dict[str, Any] = {"context": context} if name.startswith("transformer") else {}
    return revgen.create(name, num_layers=2, hidden_size=16, **options)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> FakeRecorder:
    """Let functions be recorded on the CPU."""
    recorder = FakeRecorder()
    monkeypatch.setitem(RECORDERS, "cpu", recorder)
    return recorder


@pytest.mark.parametrize("name", ["awd-lstm-char", "elman-char", "lstm-char", "minlstm-char", "transformer-char"])
def test_recorded_training_steps_give_the_same_weights(
    name: str, reviews: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unrecorded, recorded = small(name), small(name)
    unrecorded.fit(reviews[:20], **QUICK)
    monkeypatch.setitem(RECORDERS, "cpu", recorder := FakeRecorder())
    recorded.fit(reviews[:20], **QUICK)
    assert recorder.num_replays > 10
    assert same_weights(unrecorded, recorded)


def test_function_that_cannot_be_recorded_is_called_without_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(function: Any, arguments: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setitem(RECORDERS, "cpu", refuse)
    double = CudaGraphCache(lambda x: (x * 2,), torch.device("cpu"))
    for value in (1.0, 2.0, 3.0):
        assert double(torch.tensor([value]))[0].item() == 2 * value


def test_each_shape_of_arguments_is_recorded_once(recorder: FakeRecorder) -> None:
    double = CudaGraphCache(lambda x: (x * 2,), torch.device("cpu"))
    results = [double(torch.full((size,), float(i)))[0] for i in range(3) for size in (2, 3)]
    assert [result.tolist() for result in results] == [[2.0 * i] * size for i in range(3) for size in (2, 3)]
    assert recorder.num_recordings == 2 and recorder.num_replays == 4


@pytest.mark.parametrize("name", NEURAL_MODELS)
def test_training_step_does_not_wait_for_the_device(
    name: str, reviews: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Network, "in_bfloat16", lambda *_: nullcontext())  # the meta device has no autocast
    monkeypatch.setattr(neural, "check_device", lambda device: device)  # nor values
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, lr, **_: torch.optim.SGD(groups, lr))
    model = small(name)
    assert isinstance(model, NeuralModel)
    model.prepare(tokenizers.get("char").train(reviews[:5]), seed=0)
    model.to("meta")
    run = TrainingRun(model, range(1000), Recipe(epochs=1, learning_rate=0.01))  # type: ignore[arg-type]
    run.network.train()
    tokens = torch.zeros((12, 4), dtype=torch.int64, device="meta")
    run.step(tokens, tokens, 0.01)  # never recorded, so it may copy tensors to the device
    with MetaDeviceOnly():  # type: ignore[no-untyped-call]
        for _ in range(2):
            loss = run.step(tokens, tokens, 0.01)
    assert loss.device.type == "meta" and loss.shape == ()


@pytest.mark.parametrize("prefetch_tokens", [1, 200, 1 << 20])
def test_prefetched_chunks_are_the_same(prefetch_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_device, "PREFETCH_TOKENS", prefetch_tokens)
    lengths = (7, 5, 7, 3)
    chunks = [(torch.randint(9, (n, 4)).numpy(), torch.randint(9, (n, 4)).numpy()) for n in lengths]
    copies = list(to_device(iter(chunks), "cpu:0"))
    for chunk, copy in zip(chunks, copies, strict=True):
        assert all((torch.from_numpy(array) == tensor).all() for array, tensor in zip(chunk, copy, strict=True))
    assert [len(inputs) for inputs, _ in copies] == list(lengths)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["awd-lstm-char", "elman-char", "lstm-char", "transformer-char"])
def test_gpu_and_cpu_reach_similar_losses(name: str, reviews: list[str]) -> None:
    models = small(name), small(name).to("cuda")
    losses = [model.fit(reviews[:50], valid=0.1, **QUICK)[-1].train_loss for model in models]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


@pytest.mark.parametrize("name", ["gru", "lstm", "rnn"])
def test_bfloat16_kernel_is_close_to_float32_and_has_float32_gradients(name: str) -> None:
    cell = make_cell(name, 8, 8, {})
    rng = np.random.default_rng(0)
    shapes = cell.param_shapes().items()
    weights = {key: torch.tensor(cell.init_param(key, shape, rng), dtype=torch.float32) for key, shape in shapes}
    p = SimpleNamespace(**{key: value.requires_grad_() for key, value in weights.items()})
    x, state = torch.randn(20, 3, 8, requires_grad=True), cell.initial_state(3, torch.zeros)
    exact, _ = run_kernel(cell, p, x, state)
    y, next_state = run_kernel(cell, p, x, state, torch.bfloat16)
    torch.testing.assert_close(y.float(), exact, atol=0.05, rtol=0.05)
    y.float().sum().backward()  # type: ignore[no-untyped-call]
    assert all(value.grad is not None and value.grad.dtype == torch.float32 for value in vars(p).values())
    assert {leaf.dtype for leaf in pytree.tree_leaves(next_state)} == {torch.float32}


@pytest.mark.parametrize("name", NEURAL_MODELS)
def test_generating_a_block_of_tokens_does_not_wait_for_the_device(
    name: str, reviews: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Network, "in_bfloat16", lambda *_: nullcontext())
    monkeypatch.setattr(neural, "check_device", lambda device: device)
    model = small(name)
    assert isinstance(model, NeuralModel)
    model.prepare(tokenizers.get("char").train(reviews[:5]), seed=0)
    network = model.to("meta").network
    filters = revgen.GenerationConfig(top_k=5, top_p=0.9, min_p=0.1, typical_p=0.9).build_filters()
    block = tensor_block(network, filters, model.tokenizer.eos_id, 0, 5)
    tokens = torch.zeros(3, dtype=torch.int64, device="meta")
    rest = [torch.zeros(shape, device="meta") for shape in [(2, 3), (2, 3), (2, 3, 1)]]
    biases = torch.zeros(len(model.tokenizer), device="meta")
    with torch.inference_mode():
        _, state = network(tokens[None])
        with MetaDeviceOnly():  # type: ignore[no-untyped-call]
            block_tokens, _ = block(network.definition.pad_state(state), biases, tokens, *rest)
    assert block_tokens.shape == (2, 3)


@pytest.fixture(scope="module", params=["lstm-char", "transformer-char", "textgenrnn-char"])
def fitted(request: pytest.FixtureRequest) -> LanguageModel:
    model = small(request.param, context=128)  # longer than any text in these tests
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
        {"min_tokens": 20, "min_p": 0.05, "stop_at_sentence": True},
    ],
)
def test_texts_sampled_in_blocks_are_the_same(
    fitted: LanguageModel, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fitted.to("cpu")
    prompts = ["the ", "a", "I like the song"]
    monkeypatch.setitem(RECORDERS, "cpu", recorder := FakeRecorder())

    def generate_texts() -> list[Any]:
        several = model.generate(prompts, n=3, max_tokens=70, seed=2, **options)
        return [several, model.generate("the ", max_tokens=90, seed=4, **options)]

    expected = generate_texts()
    model.to("cpu:0")  # PyTorch samples in blocks, as on a GPU
    assert generate_texts() == expected
    assert recorder.num_replays
