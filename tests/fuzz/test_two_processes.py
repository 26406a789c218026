"""Two processes that use one directory or one file: each succeeds or gets an error, and what is saved is complete."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from fuzz_helpers import QUICK, TEXTS, fork, leftovers, make_model, make_trained_model, wait

import revgen
from revgen.language_model import LanguageModel

SECONDS = [0.7, pytest.param(20.0, marks=pytest.mark.fuzz)]


@pytest.fixture(scope="module")
def models() -> list[LanguageModel]:
    return [make_trained_model("gru-char"), make_trained_model("lstm-char"), make_trained_model("kneser-ney-char")]


def repeat(seconds: float, function: Callable[[], object]) -> Callable[[], int]:
    """Return a function that calls another one for some seconds, and returns how often it did."""

    def run() -> int:
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            function()
            count += 1
        return count

    return run


@pytest.mark.parametrize("seconds", SECONDS)
def test_saving_and_loading_at_the_same_time(seconds: float, models: list[LanguageModel], tmp_path: Path) -> None:
    known = {model.fingerprint for model in models}
    models[0].save(tmp_path)

    def load() -> None:
        model = revgen.load(tmp_path)
        assert model.fingerprint in known

    savers = [repeat(seconds, partial(model.save, tmp_path, overwrite=True)) for model in models]
    jobs = [fork(job) for job in (*savers, repeat(seconds, load), repeat(seconds, load))]

    outcomes = [wait(*job) for job in jobs]

    assert all(outcome.isdecimal() and int(outcome) > 0 for outcome in outcomes), outcomes
    assert revgen.load(tmp_path).fingerprint in known
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("rounds", [2, pytest.param(100, marks=pytest.mark.fuzz)])
def test_two_processes_save_into_a_new_directory(rounds: int, models: list[LanguageModel], tmp_path: Path) -> None:
    known = {model.fingerprint for model in models}
    for i in range(rounds):
        directory = tmp_path / str(i)
        jobs = [fork(repeat(0.01, partial(model.save, directory, overwrite=True))) for model in models[:2]]
        assert all(wait(*job).isdecimal() for job in jobs)
        assert revgen.load(directory).fingerprint in known
        assert leftovers(directory) == []


@pytest.mark.parametrize("rounds", [3, pytest.param(200, marks=pytest.mark.fuzz)])
def test_of_two_processes_that_save_without_overwriting_one_gets_an_error(
    rounds: int, models: list[LanguageModel], tmp_path: Path
) -> None:
    for i in range(rounds):
        directory = tmp_path / str(i)

        def save(model: LanguageModel) -> str:
            model.save(directory)
            return model.fingerprint

        winner, loser = sorted(wait(*job) for job in [fork(partial(save, model)) for model in models[:2]])
        assert winner == json.dumps(revgen.load(directory).fingerprint)
        assert loser.startswith("RevgenError") and "has another model" in loser


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.fuzz)])
def test_loading_does_not_disturb_the_run_that_saves(rounds: int, tmp_path: Path) -> None:
    for i in range(rounds):
        directory = tmp_path / str(i)

        def train() -> int:
            checkpoint = revgen.CheckpointConfig(directory, steps=2)
            return len(make_model().fit(TEXTS, checkpoint=checkpoint, **QUICK))

        process, reader = fork(train)
        while not (directory / "config.json").exists():
            time.sleep(0.001)
        for _ in range(20):
            revgen.load(directory)
        assert wait(process, reader) == str(QUICK["epochs"])
        assert leftovers(directory) == []


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.fuzz)])
@pytest.mark.parametrize("resume", [False, True])
def test_the_second_run_into_a_directory_gets_an_error(rounds: int, resume: bool, tmp_path: Path) -> None:
    for i in range(rounds):
        directory = tmp_path / str(i)

        def train() -> int:
            checkpoint = revgen.CheckpointConfig(directory, steps=2)
            return len(make_model().fit(TEXTS, checkpoint=checkpoint, resume=resume, **QUICK | {"epochs": 4}))

        outcomes = sorted(wait(*job) for job in [fork(train), fork(train)])

        assert outcomes[0] == "4", outcomes
        is_late = outcomes[1] == "4" and resume  # it started after the end of the other, so it had nothing to do
        assert is_late or "another process writes its checkpoints" in outcomes[1] or "of another run" in outcomes[1]
        revgen.load(directory)
        assert leftovers(directory) == []


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.fuzz)])
def test_the_second_process_that_samples_into_a_file_gets_an_error(
    rounds: int, models: list[LanguageModel], tmp_path: Path
) -> None:
    for i in range(rounds):
        path = tmp_path / f"{i}.jsonl"

        def sample() -> int:
            options = {"batch_size": 4, "max_tokens": 9, "progress": False, "resume": True, "seed": 1}
            return models[0].write_samples(path, "the ", n=200, **options)  # type: ignore[arg-type]

        outcomes = sorted(wait(*job) for job in [fork(sample), fork(sample)])

        assert outcomes[0] == "200", outcomes
        assert outcomes[1] == "200" or "another process writes texts" in outcomes[1] or "File exists" in outcomes[1]
        assert len([json.loads(line) for line in path.read_bytes().splitlines()]) == 200
