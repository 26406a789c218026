"""In a browser, the tokenizers give the same ids and the same text as in Python."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from browser_models import Engine, model_of

import revgen
from revgen.tokenizers import CharTokenizer, SubwordTokenizer, WordTokenizer
from revgen.tokenizers.tokenizer import SPECIAL_TOKENS
from revgen.tokenizers.word import split_words

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

    from revgen.tokenizers import Tokenizer

TEXTS = [
    "",
    " ",
    "The band's new song, and  two spaces;\n\nan end.\r\n\ttab",
    "naïve Café — “quotes” don’t it's 'tis rock'n'roll x86_64 3½ ²",
    "中文 日本語 한국어 العربية हिन्दी ไทย",
    "😀 👩‍👩‍👧 🏳️‍🌈 𝒳 \U0010ffff",
    "a\ud800b\udc00 \ud83d \ude00\ud83d",
    "▁ \0 ▁▁\0 <s></s><unk><x4><xE;>",
    "\ufeffbom\ufffd\u2028\u2029\x85 e\u0301",
]


def to_utf16(text: str) -> list[int]:
    """Return the code units of a text, because the driver cannot send or receive lone surrogates."""
    return list(np.frombuffer(text.encode("utf-16-le", "surrogatepass"), np.uint16).tolist())


def encode(engine: Engine, texts: list[str]) -> list[list[int]]:
    """Return the ids of texts in the browser."""
    code = "return a.map((units) => model.tokenizer.encode(units.map((unit) => String.fromCharCode(unit)).join('')));"
    return list(engine.run(code, [to_utf16(text) for text in texts]))


def decode(engine: Engine, ids: list[int]) -> list[list[int]]:
    """Return the text that each token completes in the browser, as code units."""
    return list(
        engine.run(
            """let pending = [], text;
               return a.map((id) => {
                 ({ text, pending } = model.tokenizer.decode(pending, id));
                 return text.split("").map((unit) => unit.charCodeAt(0));
               });""",
            ids,
        )
    )


def assert_same_tokenizer(engine: Engine, tokenizer: Tokenizer, texts: list[str]) -> None:
    """Compare the ids of texts, and the texts of random ids, with Python."""
    assert encode(engine, texts) == [tokenizer.encode(text).tolist() for text in texts]
    random_ids = np.random.default_rng(0).integers(2, len(tokenizer), 500).tolist()
    for ids in [*(tokenizer.encode(text).tolist() for text in texts), random_ids]:
        stream = tokenizer.stream_decoder()
        assert decode(engine, [*ids, tokenizer.eos_id]) == [to_utf16(stream(i)) for i in [*ids, tokenizer.eos_id]]


@pytest.mark.parametrize("level", ["char", "word", "subword"])
def test_ids_and_streamed_texts_are_those_of_python(browser: Chrome, tmp_path: Path, level: str) -> None:
    model = model_of("kneser-ney", level)

    assert_same_tokenizer(
        Engine(browser, model, tmp_path), model.tokenizer, TEXTS + list(revgen.datasets.load("reviews"))[30:40]
    )


def test_indentation_has_the_ids_of_python(browser: Chrome, tmp_path: Path) -> None:
    code = "def f(a, b):\n    if a:\n        return b\n    return a\n"
    model = revgen.create("kneser-ney-subword", tokenizer=SubwordTokenizer.train([code] * 20), order=1)
    model.fit([code], progress=False)
    assert "▁▁▁▁" in model.tokenizer.vocabulary

    texts = [code, f"{code}{' ' * 51}# far right  ", *(" " * size for size in range(2, 20))]
    assert encode(Engine(browser, model, tmp_path), texts) == [model.tokenizer.encode(text).tolist() for text in texts]


def test_vocabulary_without_digits_reads_unknown_characters_as_unk(browser: Chrome, tmp_path: Path) -> None:
    for kind in (CharTokenizer, WordTokenizer):
        model = revgen.create(f"kneser-ney-{kind.level}", tokenizer=kind((*SPECIAL_TOKENS, *"abcdé 😀")), order=2)
        model.fit(["abc"], progress=False)

        assert_same_tokenizer(Engine(browser, model, tmp_path), model.tokenizer, TEXTS)


def test_words_end_at_the_same_characters_as_in_python(browser: Chrome, tmp_path: Path) -> None:
    model = revgen.create("kneser-ney-word", tokenizer=WordTokenizer.train(["ab'"], min_count=1), order=1)
    model.fit(["ab"], progress=False)
    ideographs = range(0x3401, 0xD7A4), range(0x20001, 0x40000)  # and Korean syllables: all are letters
    points = [i for i in range(sys.maxunicode + 1) if not any(i in part for part in ideographs)]
    assigned = [i for i in points if unicodedata.category(chr(i)) not in ("Cn", "Cs", "Co")]
    word = int(model.tokenizer.encode("ab")[0])

    ends = Engine(browser, model, tmp_path).run(
        "return a.filter((point) => model.tokenizer.encode('ab' + String.fromCodePoint(point))[0] === b);",
        assigned,
        word,
    )

    assert ends == [i for i in assigned if split_words(f"ab{chr(i)}")[0] == "ab"]
