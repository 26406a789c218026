"""Tests of Graves' LSTM, the AWD-LSTM, and the weight averaging that the AWD-LSTM is trained with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import revgen
from revgen.language_model import LanguageModel
from revgen.networks import recurrent
from revgen.networks.stack import make_cell
from revgen.testing import check_model
from revgen.tokenizers.char import CharTokenizer
from revgen.training.averaging import WeightAverage

QUICK: dict[str, Any] = {"batch_size": 8, "sequence_length": 32, "progress": False}
SMALL: dict[str, dict[str, Any]] = {
    "graves-lstm": {"hidden_size": 12, "embedding_size": 8, "num_layers": 3},
    "awd-lstm": {"hidden_size": 12, "embedding_size": 8, "num_layers": 3},
}
NO_DROPOUT = dict.fromkeys(("dropout", "input_dropout", "hidden_dropout", "embedding_dropout", "weight_drop"), 0.0)


def untrained(name: str, **options: Any) -> Any:
    """Return a small model with random weights, none of them zero."""
    tokenizer = CharTokenizer.train(["a tiny set of characters"], min_count=1)
    model: Any = revgen.create(f"{name}-char", tokenizer=tokenizer, **SMALL[name] | options)
    random = np.random.default_rng(0)
    model.prepare(tokenizer, 0)
    model.weights = {
        key: value + random.normal(0, 0.2, value.shape).astype(np.float32) for key, value in model.weights.items()
    }
    return model


def random_tokens(model: Any, time: int = 9, batch: int = 4) -> Any:
    return np.random.default_rng(1).integers(0, len(model.tokenizer), (time, batch))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def peephole_layer(p: Any, x: Any) -> Any:
    """Compute Graves 2013, equations 7 to 11: (time, batch, input) -> (time, batch, hidden)."""
    hidden = p.U.shape[0]
    wi, wf, wo, wg = (p.W[:, k * hidden : (k + 1) * hidden] for k in range(4))
    ui, uf, uo, ug = (p.U[:, k * hidden : (k + 1) * hidden] for k in range(4))
    bi, bf, bo, bg = p.b.reshape(4, hidden)
    vi, vf, vo = (np.diag(v) for v in p.V.reshape(3, hidden))
    h = c = np.zeros((x.shape[1], hidden))
    outputs = []
    for x_t in x:
        i = sigmoid(x_t @ wi + h @ ui + c @ vi + bi)
        f = sigmoid(x_t @ wf + h @ uf + c @ vf + bf)
        c = f * c + i * np.tanh(x_t @ wg + h @ ug + bg)
        o = sigmoid(x_t @ wo + h @ uo + c @ vo + bo)
        h = o * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs)


@pytest.mark.parametrize("name", SMALL)
def test_architecture_passes_check_model(name: str) -> None:
    check_model(f"{name}-char", **SMALL[name] | {"num_layers": 2})


@pytest.mark.parametrize("name", SMALL)
def test_numpy_and_torch_agree_and_the_state_continues(name: str) -> None:
    model = untrained(name)
    tokens = random_tokens(model)

    logits, state = model.forward(tokens[:5], model.initial_state(4))
    rest, _ = model.forward(tokens[5:], state)
    with torch.inference_mode():
        expected, _ = model.network(torch.from_numpy(tokens))

    assert logits.dtype == np.float32
    np.testing.assert_allclose(np.concatenate([logits, rest]), expected, atol=1e-5, rtol=0)


def test_generating_does_not_import_torch(tmp_path: Path) -> None:
    for name in SMALL:
        untrained(name).save(tmp_path / name)
    code = (
        f"import sys, revgen\nfor name in {list(SMALL)}:\n"
        f"    print(revgen.load({str(tmp_path)!r} + '/' + name).generate('a ', seed=1, max_tokens=5))\n"
        "assert 'torch' not in sys.modules"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [
        ("graves-lstm", "num_layers", 0, "a whole number"),
        ("graves-lstm", "dropout", 1.0, "0 ≤ dropout < 1"),
        ("graves-lstm", "tie_embeddings", 1, "True or False"),
        ("graves-lstm", "residual", True, "no option"),
        ("awd-lstm", "embedding_size", None, "a whole number"),
        ("awd-lstm", "weight_drop", 1.0, "0 ≤ weight_drop < 1"),
        ("awd-lstm", "embedding_dropout", -0.1, "0 ≤ embedding_dropout < 1"),
        ("awd-lstm", "alpha", -1, "0 or more"),
        ("awd-lstm", "beta", float("nan"), "0 or more"),
        ("awd-lstm", "layer_norm", True, "no option"),
    ],
)
def test_error_names_the_option(name: str, option: str, value: Any, message: str) -> None:
    with pytest.raises(revgen.OptionError, match=message) as raised:
        revgen.create(f"{name}-char", **{option: value})
    assert option in str(raised.value)


# Graves' LSTM


def test_peephole_cell_computes_the_equations_of_its_paper() -> None:
    cell = make_cell("peephole-lstm", 5, 8, {})
    random = np.random.default_rng(0)
    p = SimpleNamespace(**{name: random.normal(size=shape) for name, shape in cell.param_shapes().items()})
    x = random.normal(size=(6, 3, 5))

    output, _ = cell.sequence(p, cell.project(p, x), cell.initial_state(3, np.zeros))

    np.testing.assert_allclose(output, peephole_layer(p, x), atol=1e-12)


def test_peephole_cell_with_zero_peepholes_is_an_lstm() -> None:
    cells = make_cell("peephole-lstm", 5, 8, {}), make_cell("lstm", 5, 8, {})
    random = np.random.default_rng(0)
    p = SimpleNamespace(**{name: random.normal(size=shape) for name, shape in cells[0].param_shapes().items()})
    p.V[:] = 0
    x = random.normal(size=(6, 3, 5))

    one, other = (cell.sequence(p, cell.project(p, x), cell.initial_state(3, np.zeros))[0] for cell in cells)

    np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("tied", [True, False])
def test_every_layer_is_connected_to_input_and_output(tied: bool) -> None:
    model = untrained("graves-lstm", tie_embeddings=tied)
    tokens, w = random_tokens(model), model.weights
    layers = [
        SimpleNamespace(**{name: w[f"layers.{n}.{name}"].astype(np.float64) for name in "WUbV"}) for n in range(3)
    ]
    x = w["embedding"][tokens]

    h1 = peephole_layer(layers[0], x)
    h2 = peephole_layer(layers[1], np.concatenate([x, h1], -1))
    h3 = peephole_layer(layers[2], np.concatenate([x, h2], -1))
    out = w["projection"] @ w["embedding"].T if tied else w["head"].T
    expected = sum(h @ out[12 * n : 12 * (n + 1)] for n, h in enumerate([h1, h2, h3])) + w["bias"]

    logits, _ = model.forward(tokens, model.initial_state(4))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


# The AWD-LSTM


def in_training(model: Any, tokens: Any, seed: int = 3) -> tuple[Any, Any, dict[int, tuple[Any, Any]]]:
    """Return the network, its logits in training, and input and output of each dropout by index."""
    network = model.make_network().train()
    sites: dict[int, tuple[Any, Any]] = {}
    drop = network.dropout

    def watched(x: Any, site: int) -> Any:
        y = drop(x, site)
        sites[site] = (x.detach(), y.detach())
        return y

    network.dropout = watched
    torch.manual_seed(seed)
    with torch.backends.mkldnn.flags(enabled=False):  # no bfloat16
        logits, _ = network(torch.from_numpy(tokens))
    return network, logits, sites


def test_last_layer_is_as_wide_as_the_embedding() -> None:
    shapes = untrained("awd-lstm").weight_shapes()
    assert [shapes[f"layers.{i}.U"] for i in range(3)] == [(12, 48), (12, 48), (8, 32)]
    assert "head" not in shapes and "projection" not in shapes


def test_initial_outputs_of_the_last_layer_are_not_tiny() -> None:
    model: Any = revgen.create("awd-lstm-char", tokenizer=untrained("awd-lstm").tokenizer)
    model.prepare(model.tokenizer, 0)

    _, _, sites = in_training(model, random_tokens(model))

    sizes = [float(sites[site][0].square().mean().sqrt()) for site in range(4)]
    assert sizes[0] == pytest.approx(1, abs=0.2) and min(sizes) > 0.1


def test_recurrent_weights_are_dropped_once_per_sequence_with_the_fused_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = untrained("awd-lstm", **NO_DROPOUT | {"weight_drop": 0.5})
    tokens, layers = random_tokens(model), []

    def watched(cell: Any, p: Any, *rest: Any) -> Any:
        layers.append(p)
        return kernel(cell, p, *rest)

    kernel = recurrent.run_kernel
    monkeypatch.setattr(recurrent, "run_kernel", watched)
    network, logits, _ = in_training(model, tokens)
    logits.sum().backward()

    assert len(layers) == 3
    dropped = dict(model.weights)
    for i, layer in enumerate(layers):
        whole, used = torch.from_numpy(model.weights[f"layers.{i}.U"]), layer.U.detach()
        assert 0.3 < (used == 0).float().mean() < 0.7
        torch.testing.assert_close(used, torch.where(used == 0, 0, 2 * whole))
        gradient = network.named_weights()[f"layers.{i}.U"].grad
        assert ((gradient == 0) == (used == 0)).all()
        dropped[f"layers.{i}.U"] = used.numpy()
    model.weights = dropped
    expected, _ = model.forward(tokens, model.initial_state(4))
    np.testing.assert_allclose(logits.detach(), expected, atol=1e-5)


def test_words_are_dropped_from_the_input_but_not_from_the_output() -> None:
    model = untrained("awd-lstm", **NO_DROPOUT | {"embedding_dropout": 0.5})
    tokens = random_tokens(model, 40)

    network, logits, sites = in_training(model, tokens)
    logits.sum().backward()

    x, whole = sites[0][0], torch.from_numpy(model.weights["embedding"])
    gone = {i for i in set(tokens.flat) if (x[torch.from_numpy(tokens == i)] == 0).all()}
    assert 0 < len(gone) < len(set(tokens.flat))
    for i in set(tokens.flat) - gone:
        torch.testing.assert_close(x[torch.from_numpy(tokens == i)], (2 * whole[i]).expand((tokens == i).sum(), -1))
    assert (network.named_weights()["embedding"].grad[list(gone)] != 0).all()  # they are predicted


def test_each_dropout_has_its_own_rate_and_one_mask_for_all_steps() -> None:
    rates = {"input_dropout": 0.25, "hidden_dropout": 0.5, "dropout": 0.75}
    model = untrained("awd-lstm", hidden_size=64, embedding_size=64, **NO_DROPOUT | rates)

    _, _, sites = in_training(model, random_tokens(model, 5, 32))

    for site, rate in enumerate([0.25, 0.5, 0.5, 0.75]):
        x, y = sites[site]
        gone = (y == 0).all(0)
        assert gone.float().mean() == pytest.approx(rate, abs=0.05)
        torch.testing.assert_close(y, torch.where(gone, 0, x / (1 - rate)))


def test_penalties_are_on_large_and_on_changing_outputs() -> None:
    model = untrained("awd-lstm", dropout=0.5, alpha=2.0, beta=3.0)

    network, _, sites = in_training(model, random_tokens(model))

    raw, dropped = sites[3]
    expected = 2 * (dropped**2).mean() + 3 * ((raw[1:] - raw[:-1]) ** 2).mean()
    torch.testing.assert_close(network.penalty.detach(), expected)
    one_step, _, _ = in_training(model, random_tokens(model, 1))
    assert torch.isfinite(one_step.penalty)


def test_fit_minimizes_the_penalty_but_reports_cross_entropy(reviews: list[str]) -> None:
    histories, sizes = [], []
    for alpha in (0.0, 1000.0):
        model: Any = revgen.create("awd-lstm-char", hidden_size=16, embedding_size=16, alpha=alpha, beta=alpha)
        histories.append(model.fit(reviews[:10], epochs=1, optimizer="adamw", **QUICK))
        _, _, sites = in_training(model, random_tokens(model))
        sizes.append(float((sites[3][0] ** 2).mean()))

    assert sizes[1] < sizes[0] / 2
    assert histories[1][0].train_loss < 2 * histories[0][0].train_loss


# Weight averaging


def test_weights_are_averaged_over_the_last_part_of_a_run() -> None:
    weights = [torch.zeros(3), torch.zeros(2, 2)]
    average = WeightAverage(weights, 0.5)
    for step in range(10):
        for weight in weights:
            weight.fill_(step)
        average.add(step / 10)

    assert average.steps == 5
    with average.applied():
        assert all(weight.tolist() == pytest.approx(7 * np.ones(weight.shape)) for weight in weights)
    assert all((weight == 9).all() for weight in weights)

    average.clear()
    with average.applied():
        assert all((weight == 9).all() for weight in weights)


def test_averaging_does_not_change_training(reviews: list[str]) -> None:
    kept, losses, trained = [], [], []
    for averaging in (0.0, 0.5, 0.5):
        model: Any = revgen.create("gru-char", hidden_size=16, num_layers=1)
        history = model.fit(reviews[:8], reviews[20:22], epochs=3, weight_averaging=averaging, **QUICK)
        kept.append(model.weights)
        losses.append([epoch.train_loss for epoch in history])
        trained.append((model.evaluate(reviews[20:22]).nats_per_char, history.best.nats_per_char))

    assert losses[0] == losses[1]
    assert (kept[0]["embedding"] != kept[1]["embedding"]).any()
    assert all((kept[1][name] == kept[2][name]).all() for name in kept[1])
    for evaluated, reported in trained:
        assert evaluated == pytest.approx(reported, abs=1e-4)


@pytest.mark.parametrize("averaging", [-0.1, 1.5])
def test_weight_averaging_must_be_a_fraction(averaging: float, reviews: list[str]) -> None:
    model: Any = revgen.create("gru-char")
    with pytest.raises(revgen.OptionError, match="weight_averaging must be in the range 0 ≤ weight_averaging ≤ 1"):
        model.fit(reviews[:5], weight_averaging=averaging)


class KilledError(Exception):
    """An interruption of training, instead of a killed process."""


@pytest.mark.parametrize("valid", [None, 0.1])
def test_run_interrupted_while_averaging_resumes_to_the_same_weights(
    valid: float | None, reviews: list[str], tmp_path: Path
) -> None:
    def die_in_epoch_3(model: LanguageModel, epoch: revgen.EpochMetrics) -> None:
        if epoch.epoch == 3:
            raise KilledError

    settings = QUICK | {"epochs": 4, "weight_averaging": 0.7, "valid": valid}
    whole, broken, resumed = (revgen.create("awd-lstm-char", **SMALL["awd-lstm"]) for _ in range(3))
    whole_history = whole.fit(reviews[:10], **settings)
    with pytest.raises(KilledError):
        broken.fit(reviews[:10], checkpoint=tmp_path, callbacks=[die_in_epoch_3], **settings)
    history = resumed.fit(reviews[:10], checkpoint=tmp_path, resume=True, **settings)

    assert all(np.array_equal(whole.weights[name], resumed.weights[name]) for name in whole.weights)
    assert [e.nats_per_char for e in history] == [e.nats_per_char for e in whole_history]
