"""The subword tokenizer: its training, and the texts that SentencePiece alone does not encode without loss."""

from __future__ import annotations

import subprocess
import sys
from random import Random

import pytest
from hypothesis import given
from test_tokenizers import any_text, limited, train_level

from revgen import CorpusError
from revgen.registry import tokenizers
from revgen.testing import check_tokenizer
from revgen.tokenizers import SubwordTokenizer
from revgen.tokenizers.subword import _limit_long_words


@limited
@given(text=any_text)
def test_subwords_round_trip_everything_but_lone_surrogates(text: str) -> None:
    tokenizer = train_level("subword")

    ids = tokenizer.encode(text)

    assert tokenizer.unk_id not in ids
    assert tokenizer.decode(ids) == "".join("�" if "\ud800" <= c <= "\udfff" else c for c in text)


def test_subword_sampling_is_the_same_in_every_process(reviews: list[str]) -> None:
    script = (
        "import revgen\n"
        "from revgen.registry import tokenizers\n"
        "texts = revgen.datasets.load('reviews')\n"
        "print(tokenizers.get('subword').train(texts, vocab_size=500, max_sentences=100).fingerprint)"
    )

    subprocess_output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    tokenizer = tokenizers.get("subword").train(reviews, vocab_size=500, max_sentences=100)

    assert tokenizer.fingerprint == subprocess_output.strip()
    assert tokenizer != tokenizers.get("subword").train(reviews, vocab_size=500)


@pytest.mark.parametrize("texts", [[], [""], ["", ""], ["\0"], ["\ud800"], ["\n"], ["\n\n"]])
def test_training_subwords_on_empty_text_raises_corpus_error(texts: list[str]) -> None:
    with pytest.raises(CorpusError, match="the corpus is empty"):
        tokenizers.get("subword").train(texts)


@pytest.mark.parametrize("vocab_size", [262, 300, 700])
def test_characters_that_exceed_the_subword_vocabulary_are_spelled_by_bytes(vocab_size: int) -> None:
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 2_000))) + "的一是" * 50

    tokenizer = tokenizers.get("subword").train([text], vocab_size=vocab_size)

    assert len(tokenizer) <= vocab_size
    check_tokenizer(tokenizer, text + " a")


@pytest.mark.parametrize("text", ["GATTACA" * 30, "静夜思床前明月光疑是地上霜", "Abelisaurus\nAnzu", "555-0199"])
def test_subwords_trained_without_spaces_encode_spaces(text: str) -> None:
    tokenizer = tokenizers.get("subword").train([text])

    assert "▁" in tokenizer.vocabulary
    check_tokenizer(tokenizer, f" {text}  a b ▁\n")


@pytest.mark.parametrize(
    "texts", [["a" * 8], ["\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 20], ["haha" * 4] * 3, ["a" * 16 + "\n" + "a" * 15]]
)
def test_subwords_train_on_a_single_repeated_character_or_word(texts: list[str]) -> None:
    tokenizer = SubwordTokenizer.train(texts)
    assert tokenizer.decode(tokenizer.encode(texts[0])) == texts[0]
    assert len(tokenizer.encode(texts[0])) <= len(texts[0])


def test_a_step_of_indentation_is_one_token() -> None:
    code = "def f(a, b):\n    if a:\n        return b\n    return a\n"
    tokenizer = SubwordTokenizer.train([code + " " * 300 + "# far right"] * 20)

    tokens = [tokenizer.decode([i]) for i in tokenizer.encode("\n        return")]

    assert tokens[:3] in (["\n", " " * 8, "r"], ["\n", " " * 4, " " * 4])
    check_tokenizer(tokenizer, f"{code}{' ' * 1000}a {' ' * 5}")


@pytest.mark.parametrize("size", [10, 12, 16])
def test_distinct_short_words_are_limited_like_long_ones(size: int) -> None:
    rng = Random(0)
    lines = [" ".join("".join(rng.choices("ACGT", k=size)) for _ in range(5)) for _ in range(2000)]
    assert sum(map(len, _limit_long_words(lines, 10_000))) < 15_000
    repeated = [line for line in lines[:100] for _ in range(20)]
    assert _limit_long_words(repeated, 10_000) == repeated
