"""Damaged and forged checkpoints: the run continues from the one before to the same result, or ends with an error."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz_helpers import QUICK, SEED, TEXTS, call, make_model, plant
from safetensors import safe_open
from safetensors.torch import save_file

import revgen
from revgen.training.checkpoint import CheckpointConfig
from revgen.training.checkpoint_file import write_checkpoint

VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    -0.5,
    float("nan"),
    float("inf"),
    "",
    "x" * 5000,
    [],
    [1],
    [[[]]],
    {},
    {"a": {}},
]


EPOCH: dict[str, Any] = QUICK | {"epochs": 1}
KINDS = "network", "residual"


def train(kind: str, **options: Any) -> list[str]:
    """Train a model for one epoch, and return its fingerprint and the first note."""
    base: dict[str, Any] = {"base": make_model("kneser-ney-char")} if kind == "residual" else {}
    model = make_model()
    history = model.fit(TEXTS, **EPOCH, **base, **options)
    return [model.fingerprint, *history.notes[:1]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """The directory of a run of each kind that was killed, and the fingerprint of a run that was not."""
    root = tmp_path_factory.mktemp("runs")

    class Stop(revgen.Callback):
        def on_step_end(self, model: revgen.LanguageModel, step: revgen.StepMetrics) -> None:
            if step.step == 30:
                raise InterruptedError

    for kind in KINDS:
        with pytest.raises(InterruptedError):
            train(kind, checkpoint=CheckpointConfig(root / kind, steps=7), callbacks=[Stop()])
    return {kind: (root / kind, train(kind)[0]) for kind in KINDS}


@pytest.fixture
def run(runs: dict[str, tuple[Path, str]]) -> tuple[Path, str]:
    return runs["network"]


def resume(directory: Path, kind: str = "network") -> str:
    """Resume a run in a forked process, and return its outcome: the fingerprint of the model and the first note."""
    return call(lambda: train(kind, checkpoint=directory, resume=True))


@pytest.mark.parametrize("rounds", [4, pytest.param(400, marks=pytest.mark.fuzz)])
def test_random_damage_is_noticed(rounds: int, run: tuple[Path, str], tmp_path: Path) -> None:
    rng = random.Random(SEED)
    for i in range(rounds):
        directory = Path(shutil.copytree(run[0], tmp_path / str(i)))
        path = CheckpointConfig(directory).paths[-1]
        data = bytearray(path.read_bytes())
        position = rng.randrange(len(data) if i % 2 else 4000)
        kind = rng.choice(["flip", "cut", "zeros", "longer", "swap"])
        if kind == "flip":
            data[position] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del data[position:]
        elif kind == "zeros":
            data[position : position + 50] = bytes(len(data[position : position + 50]))
        elif kind == "longer":
            data += bytes(8)
        else:
            data[position : position + 16] = data[: len(data[position : position + 16])]
        if bytes(data) == path.read_bytes():
            continue
        path.write_bytes(data)
        outcome = resume(directory)
        assert outcome.startswith(f'["{run[1]}", "{directory}') and "damaged" in outcome, (
            f"{kind} {position}: {outcome}"
        )
        shutil.rmtree(directory)


@pytest.mark.parametrize("names", [["sha256"], ["sha256", "format_version"]])
def test_a_checkpoint_without_a_hash_is_not_read(names: list[str], run: tuple[Path, str], tmp_path: Path) -> None:
    directory = Path(shutil.copytree(run[0], tmp_path / "run"))
    for path in CheckpointConfig(directory).paths:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        values = json.loads(metadata["state"])
        values = {name: value for name, value in values.items() if name not in names}
        save_file(tensors, path, {"state": json.dumps(values)})
    assert "it has no hash" in resume(directory)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rounds", [3, pytest.param(300, marks=pytest.mark.fuzz)])
def test_a_forged_checkpoint_with_the_right_hash_raises_no_other_error(
    rounds: int, kind: str, runs: dict[str, tuple[Path, str]], tmp_path: Path
) -> None:
    rng = random.Random(f"{SEED} {kind}")
    for i in range(rounds):
        directory = Path(shutil.copytree(runs[kind][0], tmp_path / str(i)))
        path = CheckpointConfig(directory).paths[-1]
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            values = json.loads(file.metadata()["state"])
        change = forge(values, tensors, rng)
        write_checkpoint(path, values, tensors)
        outcome = resume(directory, kind)
        assert outcome.startswith(("RevgenError", "[")), f"{change}: {outcome}"
        assert len(outcome) < 2000, change
        shutil.rmtree(directory)


def forge(values: Any, tensors: dict[str, torch.Tensor], rng: random.Random) -> str:
    """Change a value or a tensor of a checkpoint, and return what was changed."""
    if rng.random() < 0.4:
        name = rng.choice(sorted(tensors))
        tensor = tensors[name]
        kind = rng.choice(["delete", "empty", "flat", "double", "nan", "longer"])
        if kind == "delete":
            del tensors[name]
        else:
            tensors[name] = {
                "empty": tensor.flatten()[:0].clone(),
                "flat": tensor.flatten().clone(),
                "double": tensor.double() if tensor.is_floating_point() else tensor.long(),
                "nan": tensor * float("nan") if tensor.is_floating_point() else tensor.clone(),
                "longer": torch.cat([tensor.flatten(), tensor.flatten()]),
            }[kind].contiguous()
        return f"{kind} {name}"
    container, key, names = values, rng.choice(sorted(values)), []
    names.append(key)
    while isinstance(container[key], dict | list) and container[key] and rng.random() < 0.6:
        container = container[key]
        key = rng.choice(sorted(container)) if isinstance(container, dict) else rng.randrange(len(container))
        names.append(key)
    if rng.random() < 0.2 and isinstance(container, dict):
        del container[key]
        return f"delete {names}"
    container[key] = value = rng.choice(VALUES)
    return f"{names} = {str(value)[:50]}"


@pytest.mark.parametrize("kind", ["pipe", "directory", "/dev/zero", "loop", "sparse"])
def test_a_special_file_as_the_latest_checkpoint_is_not_read(kind: str, run: tuple[Path, str], tmp_path: Path) -> None:
    directory = Path(shutil.copytree(run[0], tmp_path / "run"))
    plant(directory / "training-999999999.safetensors", kind)
    assert resume(directory).startswith(f'["{run[1]}"')
