"""Tests of models that several threads or processes use at once: each gets the results that it would get alone."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import same_weights

import revgen
from revgen import LanguageModel
from revgen.architectures.neural import NeuralModel
from revgen.novelty import SuffixIndex
from revgen.registry import architecture_class, tokenizers

NAMES = [f"{name}-char" for name in dict.fromkeys(n.rpartition("-")[0] for n in revgen.list_models("*-char"))]
COMPILED_NAMES = [
    "elman-char",
    "gru-char",
    "lstm-char",
    "mingru-char",
    "textgenrnn-char",
    "transformer-char",
    "ngram-char",
]
NAMES_WITH_ATTENTION = ["textgenrnn-char", "transformer-char"]
NUM_THREADS, NUM_ROUNDS = 8, 3


def make_small(name: str, texts: list[str]) -> LanguageModel:
    """Return a small model with initial weights; a model that counts n-grams is trained."""
    sizes: dict[str, Any] = {"hidden_size": 8} if name == "mlp-char" else {"hidden_size": 16, "num_layers": 2}
    is_neural = issubclass(architecture_class(name.rpartition("-")[0]), NeuralModel)
    model = revgen.create(name, **(sizes if is_neural else {}))
    if isinstance(model, NeuralModel):
        model.prepare(tokenizers.get("char").train(texts), seed=1)
    else:
        model.fit(texts, progress=False)
    model._index = SuffixIndex(texts)
    return model


def method_calls(model: LanguageModel) -> dict[str, Callable[[], Any]]:
    """Return, by name, calls of all methods that do not change the model."""
    texts = ["the song is good", "a", "not the film that I saw"]
    functions: dict[str, Callable[[], Any]] = {
        "generate": lambda: model.generate("the ", max_tokens=30, seed=1),
        "rows": lambda: model.generate(["the ", "a film"], n=3, max_tokens=12, seed=2, top_k=5, repetition_penalty=1.2),
        "num_beams": lambda: model.generate("so", num_beams=2, max_tokens=6),
        "regex": lambda: model.generate("", regex="[a-e]{4} [f-k]+", max_tokens=12, seed=3),
        "max_copied_chars": lambda: str(
            model.generate("the ", max_copied_chars=4, check_novelty=True, max_tokens=15, seed=4)
        ),
        "stream": lambda: list(model.stream("a", max_tokens=12, seed=5)),
        "score": lambda: model.score(texts[0]).logprobs.round(4).tolist(),
        "evaluate": lambda: round(model.evaluate(texts).nats_per_char, 4),
        "explain": lambda: [round(token.logprob, 4) for token in model.explain(texts[2])],
        "novelty": lambda: model.novelty("the film is good"),
        "fingerprint": lambda: model.fingerprint,
        "info": lambda: model.info()["parameters"],
        "pickle": lambda: pickle.loads(pickle.dumps(model)).generate("the ", max_tokens=5, seed=6),
        "copy": lambda: copy.deepcopy(model).generate("the ", max_tokens=5, seed=6),
    }
    if isinstance(model, NeuralModel):
        functions["embed"] = lambda: model.embed(texts).round(4).tolist()
        functions["similarity"] = lambda: model.similarity(texts[0], texts, pool="last").round(4).tolist()
    if model.name in NAMES_WITH_ATTENTION:
        functions["attention"] = lambda: model.attention(texts[0]).weights.round(4).tolist()
    return functions


@pytest.fixture
def frequent_switching() -> Iterator[None]:
    """Switch between threads as often as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def check_threads(model: LanguageModel) -> None:
    """Check that methods called from several threads at once on a new model return the same as from one thread."""
    expected = {name: call() for name, call in method_calls(copy.deepcopy(model)).items()}
    tasks = [item for _ in range(NUM_ROUNDS) for item in method_calls(model).items()]
    random.Random(0).shuffle(tasks)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        results = list(pool.map(lambda task: (task[0], task[1]()), tasks))
    assert [name for name, result in results if result != expected[name]] == []


@pytest.mark.parametrize("name", NAMES)
def test_threads_get_the_same_results_with_numpy(name: str, reviews: list[str], frequent_switching: None) -> None:
    check_threads(make_small(name, reviews[:6]))


@pytest.mark.parametrize("name", ["awd-lstm-char", "lstm-char", "mlp-char", "textgenrnn-char", "transformer-char"])
def test_threads_get_the_same_results_with_pytorch(name: str, reviews: list[str], frequent_switching: None) -> None:
    check_threads(make_small(name, reviews[:6]).to("cpu:0"))


def test_threads_get_the_same_results_with_a_pytorch_module_as_cell(
    reviews: list[str], frequent_switching: None
) -> None:
    revgen.register_cell("module-gru")(torch.nn.GRU)
    try:
        check_threads(make_small("module-gru-char", reviews[:6]))
    finally:
        revgen.registry.cells.unregister("module-gru")


@pytest.mark.slow  # a compiler runs
@pytest.mark.parametrize("name", COMPILED_NAMES)
def test_threads_get_the_same_results_with_compiled_code(
    name: str, reviews: list[str], frequent_switching: None
) -> None:
    pytest.importorskip("numba")
    check_threads(make_small(name, reviews[:6]).compile())


def test_parallel_training_runs_give_the_same_weights_as_sequential_ones(reviews: list[str]) -> None:
    def fit(name: str) -> LanguageModel:
        model = revgen.create(name, hidden_size=16, num_layers=1, dropout=0.3)
        model.fit(reviews[:8], epochs=2, seed=7, progress=False)
        return model

    names = ["gru-char", "awd-lstm-char", "transformer-char", "gru-char"]
    sequential = [fit(name) for name in names]
    with ThreadPoolExecutor(len(names)) as pool:
        parallel = list(pool.map(fit, names))
    assert all(map(same_weights, sequential, parallel))


def test_threads_of_a_new_process_can_import_in_any_order() -> None:
    code = """if True:
        import threading, revgen
        failed = []
        def run(i):
            try:
                barrier.wait()
                if i % 4 == 0: revgen.create(["textgenrnn-word", "kneser-ney-char"][i // 4 % 2])
                if i % 4 == 1: revgen.load("gru-char").generate("a", max_tokens=3)
                if i % 4 == 2: revgen.load("rnn-char").embed(["a text"])
                if i % 4 == 3: revgen.load("transformer-subword").score("a text")
            except BaseException as error:
                failed.append(repr(error))
        barrier = threading.Barrier(8)
        threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(failed)
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "[]", result.stderr


# Other processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_can_compute_after_its_parent_used_threads(reviews: list[str]) -> None:
    code = """if True:
        import multiprocessing, sys, torch, revgen
        texts = list(revgen.datasets.load("reviews"))[:10]
        torch.set_num_threads(2)
        def fit(seed):
            model = revgen.create("gru-char", hidden_size=64, num_layers=1)
            return model.fit(texts, epochs=1, seed=seed, progress=False)[-1].train_loss
        model = revgen.create("gru-char", hidden_size=64, num_layers=1)
        model.fit(texts, epochs=1, progress=False)
        text = " ".join(texts) * 5
        def evaluate(_):
            return model.evaluate([text]).nats_per_char
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert len(pool.map_async(evaluate, range(2)).get(100)) == 2
            print(len(pool.map_async(fit, range(2)).get(100)))
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=250)
    assert result.stdout.strip() == "2", result.stderr


@pytest.mark.parametrize("name", NAMES)
def test_pickled_and_copied_models_generate_the_same_text(name: str, reviews: list[str]) -> None:
    model = make_small(name, reviews[:6])
    expected = model.generate("the ", max_tokens=20, seed=1)  # computes all cached values
    for duplicate in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
        assert duplicate.generate("the ", max_tokens=20, seed=1) == expected
        assert duplicate.fingerprint == model.fingerprint
        assert duplicate.novelty("the film") == model.novelty("the film")


@pytest.mark.slow  # a compiler runs
@pytest.mark.parametrize("name", COMPILED_NAMES)
def test_pickled_and_copied_models_stay_compiled(name: str, reviews: list[str]) -> None:
    pytest.importorskip("numba")
    model = make_small(name, reviews[:6]).compile()
    expected = model.generate("the ", max_tokens=20, seed=1)
    for duplicate in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert duplicate._compile_requested and duplicate.compiled is not None
        assert duplicate.generate("the ", max_tokens=20, seed=1) == expected


def test_an_index_can_be_read_after_its_directory_was_moved_or_deleted(
    reviews: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = reviews[0][:60]
    make_small("kneser-ney-char", reviews[:6]).save("model")
    models = [revgen.load("model") for _ in range(4)]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert models[0].novelty(text).fraction == 1
    (tmp_path / "model").rename(tmp_path / "moved")
    assert models[1].novelty(text).fraction == 1
    for file in (tmp_path / "moved").iterdir():
        file.unlink()
    (tmp_path / "moved").rmdir()
    pickled = pickle.dumps(models[2])
    assert models[2].novelty(text).fraction == 1
    assert pickle.loads(pickled).novelty(text).fraction == 1
    assert copy.deepcopy(models[3]).novelty(text).fraction == 1


def test_an_index_belongs_to_its_model_after_the_directory_is_overwritten(reviews: list[str], tmp_path: Path) -> None:
    first = revgen.load(make_small("kneser-ney-char", reviews[:3]).save(tmp_path / "model"))
    make_small("kneser-ney-char", reviews[3:6]).save(tmp_path / "model", overwrite=True)
    assert first.novelty(reviews[0][:60]).fraction == 1
    assert first.index.documents() == reviews[:3]


def generate_text(model: LanguageModel) -> str:
    return model.generate("the ", max_tokens=10, seed=3)


def test_a_model_can_be_sent_to_a_new_process(reviews: list[str]) -> None:
    model = make_small("gru-char", reviews[:6])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(generate_text, (model,)) == generate_text(model)


@pytest.mark.parametrize(("given", "used"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_idle_threads_of_pytorch_sleep_soon_unless_the_user_decides(given: dict[str, str], used: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | given
    code = "import os, revgen; print(os.environ['GOMP_SPINCOUNT'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.strip() == used
