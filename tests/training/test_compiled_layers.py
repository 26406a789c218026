"""A run whose layers are compiled trains like PyTorch's operations, resumes exactly, and falls back with one note."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import same_weights
from test_checkpoints import DieAt, KilledError

import revgen
from revgen import ops
from revgen.language_model import LanguageModel
from revgen.networks.recurrent import RecurrentModule
from revgen.training import run as training_run
from revgen.training.checkpoint import CheckpointConfig
from revgen.training.fit import COMPILATION_MESSAGE

SIZES: dict[str, Any] = {"hidden_size": 16, "num_layers": 2}
SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 8, "sequence_length": 32, "progress": False}


class GatedSum(revgen.Cell):
    """h' = u * h + (1 - u) * tanh(z + (u * h) U) with u = sigmoid(h V)."""

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        hidden = self.hidden_size
        return {"W": (self.input_size, hidden), "U": (hidden, hidden), "V": (hidden, hidden)}

    def project(self, p: Any, x: Any) -> Any:
        return x @ p.W

    def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
        u = ops.sigmoid(h @ p.V)
        h = u * h + (1 - u) * ops.tanh(z + (u * h) @ p.U)
        return h, h


class BatchCentered(GatedSum):
    """The rows of a batch affect each other."""

    def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
        h = ops.tanh(z + h @ p.U)
        return h, h - h.sum(0) / len(h)


@pytest.fixture(scope="module", autouse=True)
def custom_cells() -> Iterator[None]:
    revgen.register_cell("gated-sum")(GatedSum)
    revgen.register_cell("batch-centered")(BatchCentered)
    yield
    revgen.registry.cells.unregister("gated-sum")
    revgen.registry.cells.unregister("batch-centered")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile the layers of every run, with products in float32."""
    monkeypatch.setattr(training_run, "MIN_COMPILED_FLOP", 0)
    monkeypatch.setattr(training_run, "bf16_matmul_is_fast", lambda device: False)


@pytest.fixture
def texts(reviews: list[str]) -> list[str]:
    return reviews[:30]


def fit_both(
    name: str, texts: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any] | None = None, **settings: Any
) -> tuple[list[float], list[float]]:
    """Return the losses of a run with compiled layers, and of the same run without."""
    histories = []
    calls = count_compiled_calls(monkeypatch)
    for is_compiled in (True, False):
        if not is_compiled:
            assert calls, "no layer was compiled"
            monkeypatch.setattr(training_run, "MIN_COMPILED_FLOP", math.inf)
        model: Any = revgen.create(name, **SIZES | (options or {}))
        histories.append(model.fit(texts, **SETTINGS | {"valid": 0.1} | settings))
        calls.append("end")
    assert calls[-2:] == ["end", "end"], "layers were compiled in both runs"
    one, other = (
        [x for epoch in history for x in (epoch.train_loss, epoch.nats_per_char or 0)] for history in histories
    )
    return one, other


def count_compiled_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which each compiled layer adds an entry when it runs."""
    from revgen.networks.fused.layer import FusedLayer

    calls: list[str] = []
    original = FusedLayer.__call__

    def call(self: Any, *arguments: Any) -> Any:
        calls.append("call")
        return original(self, *arguments)

    monkeypatch.setattr(FusedLayer, "__call__", call)
    return calls


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gru-char", {"dropout": 0.3}),
        ("gated-sum-char", {}),
        pytest.param("awd-lstm-char", {"alpha": 1.0, "beta": 1.0}, marks=pytest.mark.slow),
        pytest.param("graves-lstm-char", {}, marks=pytest.mark.slow),
        pytest.param("textgenrnn-char", {}, marks=pytest.mark.slow),
        pytest.param("minlstm-word", {}, marks=pytest.mark.slow),
    ],
)
def test_compiled_run_has_the_losses_of_pytorch(
    name: str, options: dict[str, Any], texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in ("awd-lstm-char", "graves-lstm-char", "textgenrnn-char"):
        # Otherwise PyTorch's kernel is used.
        monkeypatch.setattr(revgen.registry.cells.get("lstm"), "fused_kernel", None)

    compiled, expected = fit_both(name, texts, monkeypatch, options)

    # A scan in PyTorch's operations may be in bfloat16.
    assert compiled == pytest.approx(expected, abs=2e-3 if name == "minlstm-word" else 2e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled")
def test_labels_are_trained_in_a_compiled_run(texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revgen.registry.cells.get("lstm"), "fused_kernel", None)
    labels = ["ab"[i % 2] for i in range(len(texts))]

    compiled, expected = fit_both("textgenrnn-char", texts, monkeypatch, valid=None, labels=labels)

    assert compiled == pytest.approx(expected, abs=2e-4)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("bfloat16", [False, True])
def test_compiled_run_resumes_to_the_same_weights(
    bfloat16: bool, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_run, "bf16_matmul_is_fast", lambda device: bfloat16)
    uninterrupted, interrupted, resumed = (revgen.create("gru-char", **SIZES) for _ in range(3))
    uninterrupted.fit(texts, 0.1, **SETTINGS)
    with pytest.raises(KilledError):
        checkpoint = CheckpointConfig(tmp_path, steps=3)
        interrupted.fit(texts, 0.1, checkpoint=checkpoint, callbacks=[DieAt(25)], **SETTINGS)
    monkeypatch.setattr(training_run, "MIN_COMPILED_FLOP", math.inf)  # a resumed run does not decide again

    resumed.fit(texts, 0.1, checkpoint=tmp_path, resume=True, **SETTINGS)

    assert same_weights(resumed, uninterrupted)


@pytest.mark.usefixtures("compiled")
def test_gradient_accumulation_gives_the_same_steps(texts: list[str]) -> None:
    losses = []
    for steps in (1, 2):
        model: Any = revgen.create("gru-char", dropout=0.3, **SIZES)
        history = model.fit(texts, 0.1, gradient_accumulation_steps=steps, **SETTINGS)
        losses.append([epoch.train_loss for epoch in history])

    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


SCRIPT = """
import json, os, sys, torch, revgen
from revgen.training import run
torch.set_num_threads(1)
run.MIN_COMPILED_FLOP, run.bf16_matmul_is_fast = 0, lambda device: False
model = revgen.create("rnn-char", hidden_size=16, num_layers=1)
history = model.fit(list(revgen.datasets.load("reviews"))[:30], 0.1, **json.loads(sys.argv[1]))
if os.environ.get("RANK", "0") == "0":
    print(json.dumps([[e.train_loss, e.nats_per_char] for e in history]))
    print(len(history.notes), "revgen.networks.fused.layer" in sys.modules, file=sys.stderr)
"""


def run_script(launch: list[str], **environment: str) -> tuple[list[list[float]], str]:
    """Train in another process. Return the losses and the text on standard error."""
    command = [sys.executable, *launch, *(["-c", SCRIPT] if not launch else []), json.dumps(SETTINGS)]
    result = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=180, env=os.environ | environment
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.strip().splitlines()[-1]), result.stderr


@pytest.mark.slow
def test_two_processes_train_the_same_compiled_model_as_one(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]

    of_one, _ = run_script([])
    of_two, _ = run_script(launch)

    assert np.allclose(of_one, of_two, atol=1e-4)


@pytest.mark.usefixtures("compiled")
def test_cell_that_cannot_be_compiled_is_trained_by_pytorch_with_one_note(texts: list[str]) -> None:
    model: Any = revgen.create("batch-centered-char", **SIZES)

    history = model.fit(texts, 0.1, **SETTINGS)

    notes = [note for note in history.notes if "PyTorch's operations" in note]
    assert notes == ["the layers are trained by PyTorch's operations: the rows of a batch affect each other"]
    assert history.epochs[-1].train_loss < history.epochs[0].train_loss


@pytest.mark.usefixtures("compiled")
def test_module_of_pytorch_is_trained_without_a_note(texts: list[str]) -> None:
    revgen.register_cell("module-gru")(torch.nn.GRU)
    try:
        model: Any = revgen.create("module-gru-char", **SIZES)
        history = model.fit(texts, 0.1, **SETTINGS | {"epochs": 1})
    finally:
        revgen.registry.cells.unregister("module-gru")

    assert history.notes == []


@pytest.mark.usefixtures("compiled")
def test_training_works_without_numba(texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith("revgen.networks.fused") or name.partition(".")[0] == "numba":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numba", None)
    model: Any = revgen.create("gru-char", **SIZES)

    history = model.fit(texts, 0.1, **SETTINGS | {"epochs": 1})

    assert history.notes == []


@pytest.mark.usefixtures("compiled")
def test_fit_says_that_it_compiles_only_if_the_machine_code_is_not_cached(
    texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REVGEN_CACHE", str(tmp_path))
    outputs = []
    for _ in range(2):
        model: Any = revgen.create("elman-char", hidden_size=13, num_layers=1)
        model.fit(texts[:10], **SETTINGS | {"epochs": 1, "progress": True})
        outputs.append(capsys.readouterr().err)

    assert [output.count(COMPILATION_MESSAGE) for output in outputs] == [1, 0]


@pytest.mark.usefixtures("compiled")
def test_short_run_is_not_compiled(texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    calls = count_compiled_calls(monkeypatch)

    revgen.create("gru-char", **SIZES).fit(texts, **SETTINGS | {"epochs": 1})

    assert calls == []


@pytest.mark.usefixtures("compiled")
def test_validation_and_generation_do_not_use_compiled_layers(
    texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    original = RecurrentModule.run_block

    def run_block(self: Any, *arguments: Any) -> Any:
        y, state = original(self, *arguments)
        modes.append((self.training, y.grad_fn is not None and y.grad_fn.name() == "_SequenceBackward"))
        return y, state

    monkeypatch.setattr(RecurrentModule, "run_block", run_block)
    revgen.create("rnn-char", hidden_size=16, num_layers=1).fit(texts, 0.1, **SETTINGS | {"epochs": 1})

    assert set(modes) == {(True, True), (False, False)}


class PressCtrlC(revgen.Callback):
    """A callback that interrupts the run at the fifth step."""

    def on_step_end(self, model: LanguageModel, step: revgen.StepMetrics) -> None:
        if step.step == 5:
            signal.setitimer(signal.ITIMER_REAL, 0.003)  # somewhere within the next steps


@pytest.mark.usefixtures("compiled")
def test_ctrl_c_within_a_compiled_step_keeps_finite_weights(texts: list[str]) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        model: Any = revgen.create("gru-char", **SIZES)
        history = model.fit(texts, callbacks=[PressCtrlC()], **SETTINGS | {"epochs": 50})
    finally:
        signal.signal(signal.SIGALRM, previous)

    assert "interrupted in the first epoch" in history.notes[-1]
    assert all(np.isfinite(weight).all() for weight in model.weights.values())


@pytest.mark.usefixtures("compiled")
def test_forked_process_can_train(texts: list[str]) -> None:
    model: Any = revgen.create("gru-char", **SIZES)
    losses = [epoch.train_loss for epoch in model.fit(texts, **SETTINGS)]
    read, write = os.pipe()
    if not (child := os.fork()):
        signal.alarm(60)
        other: Any = revgen.create("gru-char", **SIZES)
        history = other.fit(texts, **SETTINGS)
        os.write(write, json.dumps([epoch.train_loss for epoch in history]).encode())
        os._exit(0)
    os.waitpid(child, 0)

    assert json.loads(os.read(read, 10_000)) == losses


@pytest.mark.slow
def test_cache_may_be_read_only_or_missing_or_deleted(tmp_path: Path) -> None:
    expected, _ = run_script([], REVGEN_CACHE=str(tmp_path / "cache"))
    shutil.rmtree(tmp_path / "cache" / "programs" / "__pycache__")
    (tmp_path / "file").touch()

    for environment in (
        {"REVGEN_CACHE": str(tmp_path / "cache")},
        {"REVGEN_CACHE": str(tmp_path / "file" / "cache")},  # cannot be created, whoever runs the test
        {"REVGEN_CACHE": "", "XDG_CACHE_HOME": "", "HOME": str(tmp_path / "missing")},
    ):
        losses, errors = run_script([], **environment)
        assert losses == expected
        assert errors.split() == ["0", "True"]


@pytest.mark.usefixtures("compiled")
def test_two_threads_can_compile_and_train_the_same_network(
    texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVGEN_CACHE", str(tmp_path))

    def train(_: int) -> list[float]:
        model: Any = revgen.create("rnn-char", hidden_size=11, num_layers=1)
        return [epoch.train_loss for epoch in model.fit(texts[:10], **SETTINGS)]

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(train, range(2))

    assert one == pytest.approx(other, abs=0.5)  # PyTorch's random numbers are shared by all threads
    assert np.isfinite(one + other).all()
