"""The Auto classes and pipelines of transformers load and save model directories of revgen."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import same_model
from safetensors.torch import load_file, save_file

import revgen
from revgen.architectures.neural import NeuralModel
from revgen.registry import architecture_class, architecture_names, cells, tokenizers

transformers = pytest.importorskip("transformers")

OPTIONS: dict[str, dict[str, Any]] = {
    "gru-char": {"hidden_size": 8},
    "lstm-word": {"hidden_size": 8, "tie_embeddings": False},
    "transformer-subword": {"hidden_size": 8, "num_heads": 2, "context": 12},
}


def untrained_model(name: str, texts: list[str], **options: Any) -> NeuralModel:
    """Return a network with random weights and a tokenizer for the texts."""
    tokenizer_options = {"vocab_size": 400} if name.endswith("subword") else {"min_count": 1}
    tokenizer = tokenizers.get(name.rpartition("-")[2]).train([*texts, "<s>"], **tokenizer_options)
    model = revgen.create(name, tokenizer=tokenizer, **options)
    assert isinstance(model, NeuralModel)
    model.weights = model.init_params(np.random.default_rng(0))
    return model


@pytest.fixture(scope="module", params=OPTIONS)
def model(request: pytest.FixtureRequest, reviews: list[str]) -> NeuralModel:
    """An untrained network of each level: characters, words and subwords."""
    return untrained_model(request.param, reviews[:20], **OPTIONS[request.param])


@pytest.fixture
def directory(model: NeuralModel, tmp_path: Path) -> Path:
    """The directory to which the model is saved."""
    return model.save(tmp_path / "model")


def test_auto_model_loads_a_model_directory(model: NeuralModel, directory: Path) -> None:
    lm, loading_info = transformers.AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)

    assert not any(loading_info.values())
    assert not lm.training
    assert lm.state_dict().keys() == load_file(directory / "model.safetensors").keys() == model.weights.keys()
    assert lm.config.vocab_size == len(model.tokenizer)
    assert same_model(lm.to_revgen(), model)
    ids = torch.tensor([[0, *model.tokenizer.encode("the song").tolist()]])
    torch.testing.assert_close(lm(ids).logits, revgen.to_transformers(model)(ids).logits)
    assert lm.generation_config.to_dict() == revgen.to_transformers(model).generation_config.to_dict()


def test_the_defaults_of_the_model_are_those_of_the_network(model: NeuralModel, tmp_path: Path) -> None:
    own = {"prompt": "the ", "temperature": 0.8, "min_p": 0.05, "max_tokens": 40, "stop_at_sentence": True}
    model = copy.copy(model)
    model.generation_config = own

    lm = transformers.AutoModelForCausalLM.from_pretrained(model.save(tmp_path / "model"))
    lm.save_pretrained(tmp_path / "saved")

    assert lm.generation_config.do_sample and lm.generation_config.max_new_tokens == 40
    assert lm.generation_config.to_dict() == revgen.to_transformers(model).generation_config.to_dict()
    assert lm.generate(torch.tensor([[0]])).shape[1] <= 41
    assert revgen.load(tmp_path / "saved").generation_config == own


def test_a_file_of_defaults_that_was_written_by_hand_needs_no_special_tokens(directory: Path) -> None:
    (directory / "generation_config.json").write_text('{"max_new_tokens": 5}')

    lm = transformers.AutoModelForCausalLM.from_pretrained(directory)

    assert lm.generation_config.max_new_tokens == 5
    assert lm.generation_config.eos_token_id == lm.config.eos_token_id
    assert lm.generation_config.suppress_tokens == lm.config.suppress_tokens


def test_save_pretrained_writes_a_directory_that_revgen_loads(
    model: NeuralModel, directory: Path, tmp_path: Path
) -> None:
    lm = transformers.AutoModelForCausalLM.from_pretrained(directory)
    with torch.no_grad():
        lm.get_input_embeddings().weight.add_(1)
    lm.generation_config.do_sample = True

    lm.save_pretrained(tmp_path / "saved", max_shard_size="1KB")

    loaded = revgen.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.weights["embedding"], model.weights["embedding"] + 1)
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved").generation_config.do_sample
    assert not any(path.name.endswith((".new", ".part")) for path in (tmp_path / "saved").iterdir())


def test_auto_model_loads_weights_in_int8(model: NeuralModel, tmp_path: Path) -> None:
    directory = model.save(tmp_path / "int8", dtype="int8")

    lm, loading_info = transformers.AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)

    assert not any(loading_info.values())
    assert same_model(lm.to_revgen(), revgen.load(directory))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_are_loaded_and_saved_in_half_precision(
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


def test_pipeline_generates_from_a_model_directory(model: NeuralModel, directory: Path) -> None:
    generator = transformers.pipeline("text-generation", model=str(directory))

    text = generator("The band plays.", max_new_tokens=20, do_sample=False)[0]["generated_text"]

    assert text == model.generate("The band plays.", temperature=0, max_tokens=20)


def test_auto_tokenizer_is_loaded_and_saved(
    model: NeuralModel, directory: Path, tmp_path: Path, reviews: list[str]
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    reloaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "tokenizer")

    assert (tokenizer.pad_token, reloaded.padding_side) == ("</s>", "right")
    for text in ["", "a  b \n\n c", "<s>", *reviews[:5]]:
        assert tokenizer.encode(text) == reloaded.encode(text) == [0, *model.tokenizer.encode(text)]
        assert reloaded.decode(reloaded.encode(text), skip_special_tokens=True) == text
    assert len(reloaded) == len(model.tokenizer)


def test_directory_that_names_its_vocabulary_tokenizer_json_is_loaded(reviews: list[str], tmp_path: Path) -> None:
    model = untrained_model("gru-char", reviews[:20], hidden_size=8)
    model.save(tmp_path)
    (tmp_path / "vocabulary.json").rename(tmp_path / "tokenizer.json")
    config = (tmp_path / "config.json").read_text("utf-8")
    (tmp_path / "config.json").write_text(config.replace("vocabulary.json", "tokenizer.json"), "utf-8")

    assert same_model(revgen.load(tmp_path), model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode("the song") == [0, *model.tokenizer.encode("the song")]
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path).to_revgen().tokenizer == model.tokenizer


def test_from_pretrained_takes_a_label(reviews: list[str], tmp_path: Path) -> None:
    model = revgen.create("textgenrnn-char", hidden_size=8)
    model.fit(reviews[:6], labels=["jazz", "rock"] * 3, epochs=1, progress=False)
    model.weights["labels"][1:] = np.random.default_rng(0).normal(size=model.weights["labels"][1:].shape)
    model.save(tmp_path)

    lm = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, label="rock")

    ids = torch.tensor([[0, *model.tokenizer.encode("the song").tolist(), 1]])
    loss = lm(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    assert -loss == pytest.approx(model.score("the song", label="rock").total, rel=1e-4)


def test_model_that_is_not_a_network_raises(reviews: list[str], tmp_path: Path) -> None:
    model = revgen.create("kneser-ney-char")
    model.fit(reviews[:3], progress=False)
    model.save(tmp_path)

    with pytest.raises(revgen.OptionError, match="kneser-ney-char is not a network"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_damaged_weights_raise(directory: Path) -> None:
    arrays = load_file(directory / "model.safetensors")
    save_file(arrays | {"bias": arrays["bias"] + 1}, directory / "model.safetensors")

    with pytest.raises(revgen.CheckpointError, match=r"model\.safetensors is damaged"):
        transformers.AutoModelForCausalLM.from_pretrained(directory)


def test_from_config_creates_random_weights_without_a_tokenizer(model: NeuralModel, tmp_path: Path) -> None:
    config = revgen.to_transformers(model).config
    lm = transformers.AutoModelForCausalLM.from_config(config).eval()
    lm.save_pretrained(tmp_path)
    reloaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)

    ids = torch.tensor([[0, 4, 5]])
    torch.testing.assert_close(reloaded(ids).logits, lm(ids).logits)
    assert reloaded.num_parameters() == model.num_parameters
    assert not torch.equal(lm.get_parameter("embedding"), torch.tensor(model.weights["embedding"]))
    with pytest.raises(revgen.OptionError, match="has no tokenizer"):
        reloaded.to_revgen()


def test_each_data_parallel_replica_has_its_own_network(model: NeuralModel) -> None:
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
    "AutoTokenizer first": "from transformers import AutoTokenizer; import revgen",
    "Trainer between": "import revgen; from transformers import Trainer",
}


@pytest.mark.parametrize(
    "imports",
    [
        pytest.param(imports, id=name, marks=[] if name in ("revgen first", "transformers first") else pytest.mark.slow)
        for name, imports in IMPORTS.items()
    ],
)
def test_auto_classes_work_in_any_order_of_imports(imports: str, reviews: list[str], tmp_path: Path) -> None:
    model = untrained_model("gru-char", reviews[:20], hidden_size=8)
    model.save(tmp_path)
    code = (
        f"{imports}\nimport transformers\nfor name in ('Config', 'Tokenizer', 'ModelForCausalLM'):\n"
        f"    print(type(getattr(transformers, 'Auto' + name).from_pretrained({str(tmp_path)!r})))"
    )

    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert process.returncode == 0, process.stderr
    assert [line.rpartition(".")[2] for line in process.stdout.splitlines()] == [
        "RevgenConfig'>",
        "RevgenTokenizer'>",
        "RevgenForCausalLM'>",
    ]


ARCHITECTURES = [name for name in architecture_names() if issubclass(architecture_class(name), NeuralModel)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_network_computes_in_half_precision(architecture: str, dtype: torch.dtype, reviews: list[str]) -> None:
    options = {"num_heads": 2} if architecture == "transformer" else {}
    lm = revgen.to_transformers(untrained_model(f"{architecture}-char", reviews[:20], hidden_size=8, **options))
    ids = torch.tensor([[0, *range(3, 23)], [1, 0, *range(23, 42)]])
    batch = {"input_ids": ids, "attention_mask": (ids != 1).long(), "labels": ids}
    expected = lm(**batch).logits

    half = copy.deepcopy(lm).to(dtype)
    out = half(**batch)
    next_out = half(ids[:, -1:], state=out.state)

    assert out.logits.dtype == next_out.logits.dtype == dtype
    torch.testing.assert_close(out.logits.float(), expected, atol=0.1, rtol=0.1)
    half.train()(**batch).loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in half.parameters())


def test_hidden_states_and_tuples_are_returned_on_request(model: NeuralModel) -> None:
    lm = revgen.to_transformers(model)
    ids = torch.tensor([[0, 4, 5, 6], [1, 0, 4, 5]])
    out = lm(ids, attention_mask=(ids != 1).long(), output_hidden_states=True)
    logits, _ = lm(ids, attention_mask=(ids != 1).long(), return_dict=False)
    unpadded = lm(ids[1:, 1:], output_hidden_states=True)

    torch.testing.assert_close(logits, out.logits)
    assert lm(ids).hidden_states is None
    torch.testing.assert_close(out.hidden_states[-1][1:, 1:], unpadded.hidden_states[-1])
    text = "the song"
    text_ids = torch.tensor([[0, *model.tokenizer.encode(text).tolist()]])
    vectors = lm(text_ids, output_hidden_states=True).hidden_states[-1][0]
    np.testing.assert_allclose(vectors[-1].detach().numpy(), model.embed([text], pool="last")[0], rtol=1e-4, atol=1e-5)


def test_input_embeddings_are_a_module_that_cannot_be_resized(model: NeuralModel) -> None:
    lm = revgen.to_transformers(model)

    embedding = lm.get_input_embeddings()

    assert isinstance(embedding, torch.nn.Embedding)
    assert embedding.weight is lm.get_parameter("embedding")
    np.testing.assert_array_equal(embedding(torch.tensor([3]))[0].detach().numpy(), model.weights["embedding"][3])
    assert lm.resize_token_embeddings(len(model.tokenizer)) is embedding
    with pytest.raises(revgen.OptionError, match="extend_vocabulary=True"):
        lm.resize_token_embeddings(len(model.tokenizer) + 1)


def test_torch_module_as_a_cell_keeps_its_parameter_names(reviews: list[str], tmp_path: Path) -> None:
    revgen.register_cell("torch-gru")(torch.nn.GRU)
    try:
        model = untrained_model("torch-gru-char", reviews[:20], hidden_size=8)
        model.save(tmp_path)
        lm = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
        assert "layers.0.weight_ih_l0" in lm.state_dict()
        assert same_model(lm.to_revgen(), model)
        assert lm.to(torch.bfloat16)(torch.tensor([[0, 4, 5]])).logits.dtype == torch.bfloat16
    finally:
        cells.unregister("torch-gru")
