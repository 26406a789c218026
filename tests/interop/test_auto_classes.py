"""Model directories in the hands of transformers: its Auto classes, pipelines and trainer read and write them."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import same
from safetensors.torch import load_file, save_file

import revgen
from revgen.architectures.neural import NeuralModel
from revgen.language_model import LanguageModel
from revgen.registry import cells, tokenizers
from revgen.zoo import list_models

transformers = pytest.importorskip("transformers")

SIZES: dict[str, dict[str, Any]] = {
    "gru-char": {"hidden_size": 8},
    "lstm-word": {"hidden_size": 8, "tie_embeddings": False},
    "transformer-subword": {"hidden_size": 8, "num_heads": 2, "context": 12},
}
NAMES = ["Abelisaurus", "Allosaurus", "Anzu", "Mei", "Minmi", "Khaan", "Haya", "Proa", "Aorun", "Almas"] * 4


def new_model(name: str, texts: list[str], **options: Any) -> NeuralModel:
    """A network before training."""
    settings = {"vocab_size": 400} if name.endswith("subword") else {"min_count": 1}
    tokenizer = tokenizers.get(name.rpartition("-")[2]).train([*texts, "<s>"], **settings)
    model = revgen.create(name, tokenizer=tokenizer, **options)
    assert isinstance(model, NeuralModel)
    model.weights = model.init_params(np.random.default_rng(0))
    return model


@pytest.fixture(scope="module", params=SIZES)
def model(request: pytest.FixtureRequest, reviews: list[str]) -> NeuralModel:
    """A network of each level."""
    return new_model(request.param, reviews[:20], **SIZES[request.param])


@pytest.fixture
def directory(model: NeuralModel, tmp_path: Path) -> Path:
    """The directory of a model."""
    return model.save(tmp_path / "model")


def test_a_model_directory_is_one_of_transformers(model: NeuralModel, directory: Path) -> None:
    lm, info = transformers.AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)

    assert not any(info.values())
    assert not lm.training
    assert lm.state_dict().keys() == load_file(directory / "model.safetensors").keys() == model.weights.keys()
    assert lm.config.vocab_size == len(model.tokenizer)
    assert same(lm.to_revgen(), model)
    ids = torch.tensor([[0, *model.tokenizer.encode("the song").tolist()]])
    torch.testing.assert_close(lm(ids).logits, revgen.to_transformers(model)(ids).logits)
    assert lm.generation_config.to_dict() == revgen.to_transformers(model).generation_config.to_dict()


def test_what_it_saves_is_a_model_directory(model: NeuralModel, directory: Path, tmp_path: Path) -> None:
    lm = transformers.AutoModelForCausalLM.from_pretrained(directory)
    with torch.no_grad():
        lm.get_input_embeddings().weight.add_(1)
    lm.generation_config.do_sample = True

    lm.save_pretrained(tmp_path / "again", max_shard_size="1KB")

    again = revgen.load(tmp_path / "again")
    np.testing.assert_array_equal(again.weights["embedding"], model.weights["embedding"] + 1)
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again").generation_config.do_sample
    assert not any(path.name.endswith((".new", ".part")) for path in (tmp_path / "again").iterdir())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_is_loaded_and_saved_in_half_precision(
    model: NeuralModel, directory: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    lm = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
    assert lm.dtype == dtype

    lm.save_pretrained(tmp_path / "half")

    assert {array.dtype for array in load_file(tmp_path / "half" / "model.safetensors").values()} == {dtype}
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "half").dtype == dtype
    for name, array in revgen.load(tmp_path / "half").weights.items():
        expected = torch.tensor(model.weights[name]).to(dtype).float().numpy()
        np.testing.assert_array_equal(array, expected)


def test_a_directory_is_all_that_a_pipeline_needs(model: NeuralModel, directory: Path) -> None:
    writer = transformers.pipeline("text-generation", model=str(directory))

    text = writer("The band plays.", max_new_tokens=20, do_sample=False)[0]["generated_text"]

    assert text == model.generate("The band plays.", temperature=0, max_tokens=20)


def test_its_tokenizer_is_loaded_and_saved(
    model: NeuralModel, directory: Path, tmp_path: Path, reviews: list[str]
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "tokenizer")

    assert (tokenizer.pad_token, again.padding_side) == ("</s>", "right")
    for text in ["", "a  b \n\n c", "<s>", *reviews[:5]]:
        assert tokenizer.encode(text) == again.encode(text) == [0, *model.tokenizer.encode(text)]
        assert again.decode(again.encode(text), skip_special_tokens=True) == text
    assert len(again) == len(model.tokenizer)


def test_a_directory_that_was_saved_with_tokenizer_json_loads(reviews: list[str], tmp_path: Path) -> None:
    model = new_model("gru-char", reviews[:20], hidden_size=8)
    model.save(tmp_path)
    (tmp_path / "vocabulary.json").rename(tmp_path / "tokenizer.json")
    config = (tmp_path / "config.json").read_text("utf-8")
    (tmp_path / "config.json").write_text(config.replace("vocabulary.json", "tokenizer.json"), "utf-8")

    assert same(revgen.load(tmp_path), model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode("the song") == [0, *model.tokenizer.encode("the song")]
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path).to_revgen().tokenizer == model.tokenizer


def test_a_label_is_chosen_as_the_model_is_loaded(reviews: list[str], tmp_path: Path) -> None:
    model = revgen.create("textgenrnn-char", hidden_size=8)
    model.fit(reviews[:6], labels=["jazz", "rock"] * 3, epochs=1, progress=False)
    model.weights["labels"][1:] = np.random.default_rng(0).normal(size=model.weights["labels"][1:].shape)
    model.save(tmp_path)

    lm = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, label="rock")

    ids = torch.tensor([[0, *model.tokenizer.encode("the song").tolist(), 1]])
    loss = lm(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    assert -loss == pytest.approx(model.score("the song", label="rock").total, rel=1e-4)


def test_a_model_that_is_no_network_is_refused(reviews: list[str], tmp_path: Path) -> None:
    model = revgen.create("kneser-ney-char")
    model.fit(reviews[:3], progress=False)
    model.save(tmp_path)

    with pytest.raises(revgen.OptionError, match="kneser-ney-char is not a network"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_a_damaged_directory_is_refused(directory: Path) -> None:
    arrays = load_file(directory / "model.safetensors")
    save_file(arrays | {"bias": arrays["bias"] + 1}, directory / "model.safetensors")

    with pytest.raises(revgen.CheckpointError, match=r"model\.safetensors is damaged"):
        transformers.AutoModelForCausalLM.from_pretrained(directory)


def test_a_new_network_of_a_configuration_has_no_tokenizer(model: NeuralModel, tmp_path: Path) -> None:
    config = revgen.to_transformers(model).config
    lm = transformers.AutoModelForCausalLM.from_config(config).eval()
    lm.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)

    ids = torch.tensor([[0, 4, 5]])
    torch.testing.assert_close(again(ids).logits, lm(ids).logits)
    assert again.num_parameters() == model.num_parameters
    assert not torch.equal(lm.get_parameter("embedding"), torch.tensor(model.weights["embedding"]))
    with pytest.raises(revgen.OptionError, match="has no tokenizer"):
        again.to_revgen()


def test_a_replica_has_a_network_of_its_own(model: NeuralModel) -> None:
    lm = revgen.to_transformers(model)
    replica = lm._replicate_for_data_parallel()
    for name, parameter in lm._parameters.items():
        setattr(replica, name, parameter.detach())

    ids = torch.tensor([[0, 4, 5]])
    torch.testing.assert_close(replica(ids).logits, lm(ids).logits)
    assert replica.network is not lm.network


IMPORTS = {
    "revgen first": "import sys, revgen; assert 'transformers' not in sys.modules; import transformers",
    "transformers first": "import transformers, revgen",
    "a class first": "from transformers import AutoTokenizer; import revgen",
    "the trainer in between": "import revgen; from transformers import Trainer",
}


@pytest.mark.parametrize(
    "imports",
    [
        pytest.param(imports, id=name, marks=[] if name in ("revgen first", "transformers first") else pytest.mark.slow)
        for name, imports in IMPORTS.items()
    ],
)
def test_the_order_of_imports_does_not_matter(imports: str, reviews: list[str], tmp_path: Path) -> None:
    model = new_model("gru-char", reviews[:20], hidden_size=8)
    model.save(tmp_path)
    code = (
        f"{imports}\nimport transformers\nfor kind in ('Config', 'Tokenizer', 'ModelForCausalLM'):\n"
        f"    print(type(getattr(transformers, 'Auto' + kind).from_pretrained({str(tmp_path)!r})))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert [line.rpartition(".")[2] for line in done.stdout.splitlines()] == [
        "RevgenConfig'>",
        "RevgenTokenizer'>",
        "RevgenForCausalLM'>",
    ]


ARCHITECTURES = sorted({name.rpartition("-")[0] for name in list_models("*-char")} - {"kneser-ney", "ngram", "mixture"})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_network_computes_in_half_precision(architecture: str, dtype: torch.dtype, reviews: list[str]) -> None:
    options = {"num_heads": 2} if architecture == "transformer" else {}
    lm = revgen.to_transformers(new_model(f"{architecture}-char", reviews[:20], hidden_size=8, **options))
    ids = torch.tensor([[0, *range(3, 23)], [1, 0, *range(23, 42)]])
    given = {"input_ids": ids, "attention_mask": (ids != 1).long(), "labels": ids}
    expected = lm(**given).logits

    half = copy.deepcopy(lm).to(dtype)
    out = half(**given)
    then = half(ids[:, -1:], state=out.state)

    assert out.logits.dtype == then.logits.dtype == dtype
    torch.testing.assert_close(out.logits.float(), expected, atol=0.1, rtol=0.1)
    half.train()(**given).loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in half.parameters())


def test_outputs_are_what_is_asked_for(model: NeuralModel) -> None:
    lm = revgen.to_transformers(model)
    ids = torch.tensor([[0, 4, 5, 6], [1, 0, 4, 5]])
    out = lm(ids, attention_mask=(ids != 1).long(), output_hidden_states=True)
    logits, _ = lm(ids, attention_mask=(ids != 1).long(), return_dict=False)
    alone = lm(ids[1:, 1:], output_hidden_states=True)

    torch.testing.assert_close(logits, out.logits)
    assert lm(ids).hidden_states is None
    torch.testing.assert_close(out.hidden_states[-1][1:, 1:], alone.hidden_states[-1])
    text = "the song"
    read = torch.tensor([[0, *model.tokenizer.encode(text).tolist()]])
    vectors = lm(read, output_hidden_states=True).hidden_states[-1][0]
    np.testing.assert_allclose(vectors[-1].detach().numpy(), model.embed([text], pool="last")[0], rtol=1e-4, atol=1e-5)


def test_the_embedding_is_a_module(model: NeuralModel) -> None:
    lm = revgen.to_transformers(model)

    embedding = lm.get_input_embeddings()

    assert isinstance(embedding, torch.nn.Embedding)
    assert embedding.weight is lm.get_parameter("embedding")
    np.testing.assert_array_equal(embedding(torch.tensor([3]))[0].detach().numpy(), model.weights["embedding"][3])
    assert lm.resize_token_embeddings(len(model.tokenizer)) is embedding
    with pytest.raises(revgen.OptionError, match="extend_vocabulary=True"):
        lm.resize_token_embeddings(len(model.tokenizer) + 1)


def test_a_module_as_a_cell_has_the_names_of_its_parameters(reviews: list[str], tmp_path: Path) -> None:
    revgen.register_cell("torch-gru")(torch.nn.GRU)
    try:
        model = new_model("torch-gru-char", reviews[:20], hidden_size=8)
        model.save(tmp_path)
        lm = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
        assert "layers.0.weight_ih_l0" in lm.state_dict()
        assert same(lm.to_revgen(), model)
        assert lm.to(torch.bfloat16)(torch.tensor([[0, 4, 5]])).logits.dtype == torch.bfloat16
    finally:
        cells.unregister("torch-gru")


# The trainer


def trainer(lm: Any, folder: Path, **options: Any) -> Any:
    """A trainer with a checkpoint after each epoch."""
    pytest.importorskip("accelerate")
    examples = [lm.tokenizer(name) for name in NAMES]
    arguments = transformers.TrainingArguments(
        str(folder),
        per_device_train_batch_size=8,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="epoch",
        **options,
    )
    collator = transformers.DataCollatorForLanguageModeling(lm.tokenizer, mlm=False)
    return transformers.Trainer(
        lm, arguments, train_dataset=examples, eval_dataset=examples[:10], data_collator=collator
    )


@pytest.fixture(scope="module")
def untrained() -> NeuralModel:
    """A network with dropout, whose random numbers must go on where they were."""
    return new_model("gru-char", NAMES, hidden_size=16, num_layers=1, dropout=0.1)


class Stop(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    """Ends training after two epochs, as an interruption would."""

    def on_epoch_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        control.should_training_stop = state.epoch >= 2


def test_training_that_is_resumed_ends_as_if_it_had_never_stopped(untrained: NeuralModel, tmp_path: Path) -> None:
    options = {"num_train_epochs": 4, "learning_rate": 2e-2, "seed": 1}
    whole = revgen.to_transformers(untrained)
    trainer(whole, tmp_path / "whole", **options).train()
    stopped = trainer(revgen.to_transformers(untrained), tmp_path / "parts", **options)
    stopped.add_callback(Stop())
    stopped.train()
    assert stopped.state.epoch == 2

    resumed = revgen.to_transformers(untrained)
    trainer(resumed, tmp_path / "parts", **options).train(resume_from_checkpoint=True)

    assert same(resumed.to_revgen(), whole.to_revgen())
    assert not same(resumed.to_revgen(), stopped.model.to_revgen())


def test_the_best_model_is_loaded_at_the_end(untrained: NeuralModel, tmp_path: Path) -> None:
    lm = revgen.to_transformers(untrained)
    options = {"num_train_epochs": 4, "learning_rate": 3.0, "lr_scheduler_type": "constant", "max_grad_norm": 0}
    run = trainer(lm, tmp_path, eval_strategy="epoch", load_best_model_at_end=True, **options)
    run.train()

    losses = [entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry]
    assert min(losses) < losses[-1], "the last epoch is the best: the test proves nothing"
    assert run.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-4)
    best = revgen.load(run.state.best_model_checkpoint)
    assert same(best, lm.to_revgen())


@pytest.mark.slow  # it trains in several processes
def test_training_is_resumed_in_another_process(untrained: NeuralModel, tmp_path: Path) -> None:
    untrained.save(tmp_path / "start")
    code = f"""
import sys
from pathlib import Path
from test_auto_classes import Stop, trainer
import revgen
from transformers import AutoModelForCausalLM
lm = AutoModelForCausalLM.from_pretrained({str(tmp_path / "start")!r})
run = trainer(lm, Path(sys.argv[1]), num_train_epochs=4, learning_rate=2e-2)
if sys.argv[2] == "stop": run.add_callback(Stop())
run.train(resume_from_checkpoint=sys.argv[2] == "resume" or None)
lm.save_pretrained(sys.argv[3])
"""
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (here, here.parent, here.parents[1])))}
    for folder, task in [("whole", "train"), ("parts", "stop"), ("parts", "resume")]:
        arguments = [str(tmp_path / folder), task, str(tmp_path / f"{folder}-{task}")]
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=environment, capture_output=True)

    assert same(revgen.load(tmp_path / "parts-resume"), revgen.load(tmp_path / "whole-train"))


def test_a_checkpoint_of_the_trainer_is_a_model_directory(untrained: NeuralModel, tmp_path: Path) -> None:
    run = trainer(revgen.to_transformers(untrained), tmp_path, num_train_epochs=1)
    run.train()
    (checkpoint,) = tmp_path.glob("checkpoint-*")

    model: LanguageModel = revgen.load(checkpoint)

    assert same(model, run.model.to_revgen())
    assert json.loads((checkpoint / "config.json").read_text("utf-8"))["architectures"] == ["RevgenForCausalLM"]
    assert transformers.AutoTokenizer.from_pretrained(checkpoint).encode("Anzu") == run.model.tokenizer.encode("Anzu")
