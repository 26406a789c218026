"""Tests of networks that learn the predictions of a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import revgen
from revgen import LanguageModel, NotFittedError, OptionError, VocabularyError
from revgen.architectures.distillation import predict
from revgen.architectures.logprob_file import LogprobFile
from revgen.architectures.out_of_fold import read_logprobs
from revgen.corpus.tokens import tokenize
from revgen.networks.distillation import DistilledNetwork

OPTIONS: dict[str, Any] = {"epochs": 2, "batch_size": 8, "progress": False}


@pytest.fixture(scope="module")
def teacher(reviews: list[str]) -> LanguageModel:
    counts = revgen.create("kneser-ney-char", order=5)
    counts.fit(reviews[10:140], progress=False)
    return counts


def student(teacher: LanguageModel) -> LanguageModel:
    return revgen.create("rnn-char", hidden_size=48, num_layers=1, tokenizer=teacher.tokenizer)


def test_a_student_learns_more_from_a_network_that_has_read_more(reviews: list[str]) -> None:
    network = revgen.load("gru-char")
    alone, taught = student(network), student(network)
    options = OPTIONS | {"epochs": 20, "batch_size": 4}
    alone.fit(reviews[:10], **options)
    history = taught.fit(reviews[:10], reviews[140:], teacher=network, **options)

    loss = taught.evaluate(reviews[140:]).nats_per_char
    assert loss < alone.evaluate(reviews[140:]).nats_per_char - 0.05
    assert history[-1].nats_per_char == pytest.approx(loss, abs=1e-3)


def test_a_student_learns_more_from_counts_of_its_own_text(teacher: LanguageModel, reviews: list[str]) -> None:
    alone, taught = student(teacher), student(teacher)
    options = OPTIONS | {"token_budget": 100_000, "epochs": None}
    alone.fit(reviews[:140], **options)
    taught.fit(reviews[:140], teacher=teacher, **options)

    assert taught.evaluate(reviews[140:]).nats_per_char < alone.evaluate(reviews[140:]).nats_per_char - 0.02


def test_a_teacher_that_counts_predicts_each_document_by_the_others(teacher: LanguageModel, reviews: list[str]) -> None:
    lstm = revgen.load("rnn-char")
    counts = revgen.create("kneser-ney-char", order=5, tokenizer=lstm.tokenizer)
    counts.fit(reviews[:40], progress=False)
    train = tokenize(revgen.read(reviews[:40]), lstm.tokenizer)
    documents = [np.asarray(ids) for ids in train.documents()]

    def loss(model: LanguageModel) -> float:
        numbered, _, logprobs = predict(model, train, None, 0, "cpu", lambda message: None)
        rows = np.concatenate([np.asarray(ids) // len(lstm.tokenizer) for ids in numbered.documents()])
        np.testing.assert_array_equal(rows, np.arange(len(rows)))
        targets = torch.from_numpy(np.concatenate([[*ids[1:], -1] for ids in documents]))
        return -logprobs[targets >= 0].gather(1, targets[targets >= 0, None]).double().mean().item()

    own = -np.concatenate([logprobs for _, logprobs in counts.logprobs(documents)]).mean()
    network = -np.concatenate([logprobs for _, logprobs in lstm.logprobs(documents)]).mean()
    assert loss(counts) > own + 0.5  # the counts know the text
    assert loss(lstm) == pytest.approx(network, abs=1e-2)
    mixture = revgen.mix([counts, lstm], weights=[0.5, 0.5])
    assert own < loss(mixture) < loss(counts)


def test_the_loss_adds_the_cross_entropy_with_the_teacher(teacher: LanguageModel, reviews: list[str]) -> None:
    model: Any = student(teacher)
    model.prepare(teacher.tokenizer, 0)
    ids = np.array([teacher.tokenizer.bos_id, *teacher.tokenizer.encode(reviews[0])[:20], teacher.tokenizer.eos_id])
    logprobs = np.concatenate([*read_logprobs(teacher, ids)])
    file = LogprobFile(len(ids), len(teacher.tokenizer))
    file.write(0, logprobs)
    network = DistilledNetwork(
        model.make_network(), torch.from_numpy(file.to_array()), teacher.tokenizer.eos_id
    ).train()

    numbered = torch.from_numpy(ids.astype(np.int64) + np.arange(len(ids)) * len(teacher.tokenizer))[:, None]
    logits, _ = network(numbered)

    own = torch.log_softmax(logits[:-1, 0].detach(), -1).numpy()
    assert isinstance(network.penalty, torch.Tensor)
    assert network.penalty.item() == pytest.approx(-(np.exp(logprobs[:-1]) * own).sum(-1).mean(), rel=1e-2)
    network.eval()(numbered)
    assert network.penalty == 0


def test_a_new_student_takes_the_tokenizer_of_its_teacher_and_is_a_plain_network(
    teacher: LanguageModel, reviews: list[str], tmp_path: Path
) -> None:
    model = revgen.create("gru-char", hidden_size=16, num_layers=1)
    weights = {name: array.copy() for name, array in teacher.weights.items()}
    model.fit(reviews[:10], teacher=teacher, **OPTIONS)

    assert model.tokenizer == teacher.tokenizer
    assert all((teacher.weights[name] == array).all() for name, array in weights.items())
    loaded = revgen.load(model.save(tmp_path / "model"))
    assert loaded.architecture == "gru" and loaded.generate("The ", seed=1) == model.generate("The ", seed=1)
    model.fit(reviews[:10], **OPTIONS)  # without the teacher


def test_a_run_with_a_teacher_can_be_resumed(teacher: LanguageModel, reviews: list[str], tmp_path: Path) -> None:
    complete, resumed = student(teacher), student(teacher)
    complete.fit(reviews[:20], teacher=teacher, **OPTIONS)
    part: dict[str, Any] = {"teacher": teacher, "checkpoint": tmp_path / "run"}

    def stop(model: LanguageModel, metrics: Any) -> None:
        raise KeyboardInterrupt

    resumed.fit(reviews[:20], callbacks=[stop], **part, **OPTIONS)
    resumed = student(teacher)
    resumed.fit(reviews[:20], resume=True, **part, **OPTIONS)

    for name, array in complete.weights.items():
        np.testing.assert_allclose(array, resumed.weights[name], atol=1e-5)


def test_a_teacher_must_fit_the_student(teacher: LanguageModel, reviews: list[str]) -> None:
    words = revgen.create("kneser-ney-word")
    words.fit(reviews[:10], progress=False)
    other = revgen.create("gru-char", hidden_size=16)
    other.fit(reviews[:2], **OPTIONS)

    with pytest.raises(OptionError, match="teacher must have the level 'char' of rnn-char, not 'word'"):
        student(teacher).fit(reviews[:10], teacher=words)
    with pytest.raises(VocabularyError, match=r"different tokenizers: create the network with revgen\.create"):
        other.fit(reviews[:10], teacher=teacher)
    with pytest.raises(NotFittedError, match="gru-char has no weights yet"):
        student(teacher).fit(reviews[:10], teacher=revgen.create("gru-char"))
    with pytest.raises(OptionError, match="teacher does not combine with base"):
        student(teacher).fit(reviews[:10], teacher=teacher, base=revgen.create("kneser-ney-char"))
