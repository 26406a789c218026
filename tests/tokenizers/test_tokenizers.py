"""Tokenizers of every registered level: exact, total, and safe to read from a file."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from revgen import CheckpointError, CorpusError, OptionError, Tokenizer
from revgen.registry import tokenizers
from revgen.testing import check_tokenizer
from revgen.tokenizers import SubwordTokenizer
from revgen.tokenizers.subword import _limit_long_words

LEVELS = tokenizers.names()
SPELLING = ["char", "word"]  # the levels that spell a character outside their vocabulary by digits

ALPHABET = "abcdefgknsu XYZ,.'’-\n\t\r\x0b\x00éß\u0301漢🎸_09<>/\u2581�\xa0\u2028"
KNOWN = [
    "the band plays a song of the sea, and the sand.\n\tIt's loud\r\n",
    "  the   singer's band don’t play:\n\n\na song, a song.",
    ALPHABET,
] * 3
SPECIAL_TEXTS = ["<s>", "</s>", "<unk>", "<s></s><unk>", "a</s>b", "<pad>", "<0x41>", "[UNK]"]
SPACES = [
    "\t",
    "\r\n",
    "a\r\nb",
    " " * 50,
    " a  b   c ",
    "\n\n\n",
    " \n \n",
    "\u2581",
    " \u2581 a\u2581",
    "\0",
    "a\0\0b",
    "",
]

any_text = st.text(st.characters(exclude_categories=()))
known_text = st.text(st.sampled_from(ALPHABET))
fast = settings(deadline=None, max_examples=100)


@cache
def trained(level: str) -> Tokenizer:
    tokenizer: Tokenizer = tokenizers.get(level).train(KNOWN)
    return tokenizer


def works(tokenizer: Tokenizer) -> bool:
    return isinstance(tokenizer.decode(tokenizer.encode("the band\n 漢")), str)


# Exact -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@fast
@given(text=known_text)
def test_text_of_known_characters_comes_back_exactly(level: str, text: str) -> None:
    check_tokenizer(trained(level), text)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("text", [*KNOWN[:3], *SPACES, *SPECIAL_TEXTS[:5]])
def test_white_space_and_special_names_come_back_exactly(level: str, text: str) -> None:
    check_tokenizer(trained(level), text)


@pytest.mark.parametrize("level", LEVELS)
def test_reviews_come_back_exactly(level: str, reviews: list[str]) -> None:
    tokenizer = tokenizers.get(level).train(reviews + [c * 3 for c in sorted(set("".join(reviews)))])

    for text in reviews:
        check_tokenizer(tokenizer, text)


@pytest.mark.parametrize("level", LEVELS)
@fast
@given(text=st.text())
def test_any_text_comes_back_exactly(level: str, text: str) -> None:
    check_tokenizer(trained(level), text)


def test_word_tokens_are_words_and_an_unknown_word_is_spelled_by_its_characters() -> None:
    tokenizer = tokenizers.get("word").train(["the band, the song\n"] * 3 + ["bandsong"])

    def tokens(text: str) -> list[str]:
        return [tokenizer.vocabulary[i] for i in tokenizer.encode(text)]

    assert tokens("the band, the song\n") == ["the", " ", "band", ",", " ", "the", " ", "song", "\n"]
    assert tokens("bandsong") == list("bandsong")


def test_words_of_two_documents_do_not_run_together() -> None:
    tokenizer = tokenizers.get("word").train(["anna", "bob", "anna", "bob", "anna", "bob"])

    assert {"anna", "bob"} <= set(tokenizer.vocabulary)
    assert len(tokenizer.encode("anna")) == 1


# Total -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@fast
@given(text=any_text | st.lists(st.sampled_from(SPECIAL_TEXTS + SPACES)).map("".join))
def test_any_text_encodes_without_the_ids_of_start_and_end(level: str, text: str) -> None:
    tokenizer = trained(level)

    ids = tokenizer.encode(text)

    assert ids.dtype == tokenizer.dtype
    assert all(tokenizer.unk_id <= i < len(tokenizer) for i in ids.tolist())


@pytest.mark.parametrize("level", SPELLING)
@fast
@given(text=any_text)
def test_digits_spell_lone_surrogates_too(level: str, text: str) -> None:
    check_tokenizer(trained(level), text)


@pytest.mark.parametrize("level", SPELLING)
def test_an_unknown_character_is_the_digits_of_its_code_point(level: str) -> None:
    tokenizer = trained(level)

    def tokens(text: str) -> list[str]:
        return [tokenizer.vocabulary[i] for i in tokenizer.encode(text)]

    assert tokens("中") == ["<x4>", "<xE>", "<x2>", "<xD;>"]
    assert tokens("aφ\x01") == ["a", "<x3>", "<xC>", "<x6;>", "<x1;>"]
    assert tokens("\U0010ffff") == ["<x1>", "<x0>", *["<xF>"] * 3, "<xF;>"]


@pytest.mark.parametrize("level", SPELLING)
def test_digits_that_spell_no_character_are_shown_as_u_fffd(level: str) -> None:
    tokenizer = trained(level)
    ids = {token: i for i, token in enumerate(tokenizer.vocabulary)}

    assert tokenizer.decode([ids["<x4>"], ids["<xE>"], ids["a"], ids["<x4>"]]) == "�a�"
    assert tokenizer.decode([ids["<xF>"]] * 5 + [ids["<xF;>"], ids["a"]]) == "�a"


@pytest.mark.parametrize("level", LEVELS)
@fast
@given(text=st.text() | known_text)
def test_characters_are_counted_token_by_token(level: str, text: str) -> None:
    tokenizer = trained(level)
    ids = tokenizer.encode(text)
    unknown = [c for c in text if tokenizer.completes_unknown_character[tokenizer.encode(c)].any()]

    assert tokenizer.char_counts[ids].sum() == len(text)
    assert tokenizer.completes_unknown_character[ids].sum() == len(unknown)


@pytest.mark.parametrize("level", LEVELS)
@fast
@given(character=st.characters(exclude_categories=["Cs"]))
def test_a_character_is_spelled_by_parts_and_read_from_them(level: str, character: str) -> None:
    tokenizer = trained(level)

    ids = tokenizer.spell(character)

    assert tokenizer.decode(ids) == character
    if not tokenizer.partial_char_ids.isdisjoint(ids):
        assert tokenizer.partial_char_ids.issuperset(ids)
        assert [tokenizer.spelled_character(ids[:i]) for i in range(1, len(ids))] == [None] * (len(ids) - 1)
        assert tokenizer.spelled_character(ids) == character


@pytest.mark.parametrize("level", SPELLING)
def test_a_vocabulary_without_digits_reads_what_it_does_not_know_as_unk(level: str) -> None:
    data = f'{{"level": "{level}", "tokens": ["<s>", "</s>", "<unk>", "a", "b"], "min_count": 3}}'
    old = tokenizers.get(level).from_bytes(data.encode())

    assert old.encode("abc中").tolist() == [3, 4, 2, 2]
    assert old.decode(old.encode("abc中")) == "ab��"
    assert not old.is_lossless
    assert old.unknown_nats == pytest.approx(np.log(0x110000 - 2))

    extended = old.extend(["ccc"])

    assert extended.vocabulary[:5] == old.vocabulary
    assert extended.is_lossless
    check_tokenizer(extended, "abc中")


@fast
@given(text=any_text)
def test_subwords_know_every_character_but_lone_surrogates(text: str) -> None:
    tokenizer = trained("subword")

    ids = tokenizer.encode(text)

    assert tokenizer.unk_id not in ids
    assert tokenizer.decode(ids) == "".join("�" if "\ud800" <= c <= "\udfff" else c for c in text)


@pytest.mark.parametrize("level", LEVELS)
@fast
@given(data=st.data())
def test_the_streaming_decoder_gives_what_decode_gives(level: str, data: st.DataObject) -> None:
    tokenizer = trained(level)
    inside = st.integers(0, len(tokenizer) - 1).filter(lambda i: i != tokenizer.eos_id)
    ids = data.draw(st.lists(inside))

    decode = tokenizer.stream_decoder()
    streamed = "".join([decode(i) for i in [*ids, tokenizer.eos_id]])

    assert streamed == tokenizer.decode(ids)


@pytest.mark.parametrize("level", LEVELS)
def test_start_and_end_decode_to_nothing(level: str) -> None:
    tokenizer = trained(level)
    ids = [tokenizer.bos_id, *tokenizer.encode("the band").tolist(), tokenizer.eos_id]

    assert tokenizer.decode(ids) == "the band"


# What is learnt --------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_the_special_tokens_come_first_and_no_token_comes_twice(level: str) -> None:
    tokenizer = trained(level)

    assert tokenizer.vocabulary[:3] == ("<s>", "</s>", "<unk>")
    assert len(set(tokenizer.vocabulary)) == len(tokenizer) == len(tokenizer.vocabulary)


@pytest.mark.parametrize("level", LEVELS)
def test_the_same_text_gives_the_same_fingerprint_and_another_text_another(level: str) -> None:
    again = tokenizers.get(level).train(iter(KNOWN))
    other = tokenizers.get(level).train(["quite another text, with other words: jazz!"] * 3)

    assert again.fingerprint == trained(level).fingerprint
    assert again == trained(level)
    assert hash(again) == hash(trained(level))
    assert other.fingerprint != again.fingerprint
    assert other != again


def test_subwords_of_a_sample_are_the_same_in_every_process(reviews: list[str]) -> None:
    script = (
        "import revgen\n"
        "from revgen.registry import tokenizers\n"
        "texts = revgen.datasets.load('reviews')\n"
        "print(tokenizers.get('subword').train(texts, vocab_size=500, max_sentences=100).fingerprint)"
    )

    elsewhere = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    here = tokenizers.get("subword").train(reviews, vocab_size=500, max_sentences=100)

    assert here.fingerprint == elsewhere.strip()
    assert here != tokenizers.get("subword").train(reviews, vocab_size=500)


@pytest.mark.parametrize("level", SPELLING)
@pytest.mark.parametrize(("min_count", "known"), [(1, "abc"), (2, "ab"), (3, "a"), (4, "")])
def test_characters_rarer_than_min_count_are_spelled(level: str, min_count: int, known: str) -> None:
    tokenizer = tokenizers.get(level).train(["a b", "a.b", "a c"], min_count=min_count)

    assert [c for c in "abc" if len(tokenizer.encode(c)) == 1] == list(known)


def test_words_rarer_than_min_count_are_not_tokens() -> None:
    tokenizer = tokenizers.get("word").train(["loud loud rare"], min_count=2)

    assert "loud" in tokenizer.vocabulary
    assert "rare" not in tokenizer.vocabulary


@pytest.mark.parametrize(("level", "vocab_size"), [("word", 36), ("word", 50), ("word", 90), ("subword", 400)])
def test_vocab_size_is_never_exceeded(level: str, vocab_size: int, reviews: list[str]) -> None:
    tokenizer = tokenizers.get(level).train(reviews, vocab_size=vocab_size)

    assert len(tokenizer) == vocab_size
    assert works(tokenizer)


def test_a_small_text_gives_fewer_tokens_than_vocab_size() -> None:
    assert 3 + 256 < len(tokenizers.get("subword").train(["a small text"], vocab_size=5000)) < 320
    assert len(tokenizers.get("word").train(["a small text"] * 3, vocab_size=5000)) < 3 + 32 + 20


def test_the_most_frequent_words_are_kept() -> None:
    texts = ["often often often sometimes sometimes rarely"] * 3

    tokenizer = tokenizers.get("word").train(texts, vocab_size=3 + 32 + len(set(texts[0])) + 2)

    assert tokenizer.vocabulary[-2:] == ("often", "sometimes")


def test_where_vocab_size_is_too_small_for_all_characters_the_most_frequent_are_kept() -> None:
    tokenizer = tokenizers.get("word").train(["eeee aaa tt z"] * 3, vocab_size=38)

    assert tokenizer.vocabulary[35:] == (" ", "a", "e")


def test_many_characters_take_wider_ids() -> None:
    text = "".join(map(chr, range(1 << 17)))

    tokenizer = tokenizers.get("char").train([text], min_count=1)

    assert tokenizer.dtype == np.uint32
    assert trained("char").dtype == np.uint16
    check_tokenizer(tokenizer, text)


@pytest.mark.parametrize(
    ("level", "options"),
    [
        ("char", {"min_count": 0}),
        ("char", {"min_count": 1.5}),
        ("word", {"min_count": -1}),
        ("word", {"vocab_size": 35}),
        ("word", {"vocab_size": "many"}),
        ("subword", {"vocab_size": 259}),
        ("subword", {"vocab_size": None}),
        ("subword", {"max_sentences": 0}),
    ],
)
def test_a_bad_option_is_named(level: str, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        tokenizers.get(level).train(KNOWN, **options)


@pytest.mark.parametrize("texts", [[], [""], ["", ""], ["\0"], ["\ud800"], ["\n"], ["\n\n"]])
def test_subwords_of_no_text_are_a_clear_error(texts: list[str]) -> None:
    with pytest.raises(CorpusError, match="the corpus is empty"):
        tokenizers.get("subword").train(texts)


@pytest.mark.parametrize("vocab_size", [262, 300, 700])
def test_where_the_vocabulary_has_no_room_for_all_characters_bytes_spell_the_rest(vocab_size: int) -> None:
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 2_000))) + "的一是" * 50

    tokenizer = tokenizers.get("subword").train([text], vocab_size=vocab_size)

    assert len(tokenizer) <= vocab_size
    check_tokenizer(tokenizer, text + " a")


@pytest.mark.parametrize("text", ["GATTACA" * 30, "静夜思床前明月光疑是地上霜", "Abelisaurus\nAnzu", "555-0199"])
def test_subwords_of_text_without_spaces_spell_spaces(text: str) -> None:
    tokenizer = tokenizers.get("subword").train([text])

    assert "▁" in tokenizer.vocabulary
    check_tokenizer(tokenizer, f" {text}  a b ▁\n")


# New text --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", SPELLING)
def test_extend_adds_tokens_behind_the_old_ones(level: str) -> None:
    tokenizer = trained(level)
    new = ["ñandú über\n"] * 3

    assert tokenizer.unknown_characters(new) == ["ñ", "ú", "ü"]
    extended = tokenizer.extend(new)

    assert extended.vocabulary[: len(tokenizer)] == tokenizer.vocabulary
    assert extended.encode(KNOWN[0]).tolist() == tokenizer.encode(KNOWN[0]).tolist()
    assert extended.unknown_characters(new) == []
    check_tokenizer(extended, new[0])


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_missing_in_the_text_of_the_training(level: str) -> None:
    tokenizer = trained(level)

    assert tokenizer.unknown_characters(KNOWN) == []
    assert tokenizer.extend(KNOWN) == tokenizer


def test_what_is_too_rare_to_be_learnt_is_not_missing() -> None:
    assert trained("char").unknown_characters(["ñ", "ñ"]) == []
    assert trained("char").unknown_characters(["ñ", "ñ", "ñ"]) == ["ñ"]


def test_extend_learns_words_too() -> None:
    extended = trained("word").extend(["saxophone, saxophone, saxophone"])

    assert len(extended.encode("saxophone")) == 1
    assert len(trained("word").encode("saxophone")) >= len("saxophone")


def test_subwords_spell_new_text_as_they_are() -> None:
    new = ["ñandú über\n"] * 3

    assert trained("subword").unknown_characters(new) == []
    assert trained("subword").extend(new) == trained("subword")


# Files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_a_saved_tokenizer_is_the_same_and_learns_the_same(level: str) -> None:
    tokenizer = trained(level)

    loaded = type(tokenizer).from_bytes(tokenizer.to_bytes())

    assert loaded == tokenizer
    assert loaded.vocabulary == tokenizer.vocabulary
    new = ["ñandú über\n"] * 2
    assert loaded.unknown_characters(new) == tokenizer.unknown_characters(new)
    assert loaded.extend(new) == tokenizer.extend(new)


@pytest.mark.parametrize("level", LEVELS)
def test_a_truncated_file_is_refused(level: str) -> None:
    data = trained(level).to_bytes()
    lengths = {*range(0, len(data), max(1, len(data) // 300)), *range(max(0, len(data) - 100), len(data))}

    for length in sorted(lengths):
        with pytest.raises(CheckpointError, match=r"tokenizer\.model|vocabulary\.json"):
            type(trained(level)).from_bytes(data[:length])


@pytest.mark.parametrize("level", LEVELS)
def test_a_file_with_a_flipped_bit_is_refused_or_works(level: str) -> None:
    data = trained(level).to_bytes()
    random = np.random.default_rng(0)

    for _ in range(300):
        damaged = bytearray(data)
        damaged[random.integers(len(data))] ^= 1 << int(random.integers(8))
        try:
            tokenizer = type(trained(level)).from_bytes(bytes(damaged))
        except CheckpointError:
            continue
        assert works(tokenizer)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("other", LEVELS)
def test_the_file_of_another_level_is_refused(level: str, other: str) -> None:
    if level == other:
        return
    with pytest.raises(CheckpointError, match=r"tokenizer\.model|vocabulary\.json"):
        type(trained(level)).from_bytes(trained(other).to_bytes())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"{}",
        b"[]",
        b"null",
        b"3",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"level": "LEVEL"}',
        b'{"level": "LEVEL", "tokens": null}',
        b'{"level": "LEVEL", "tokens": "abc"}',
        b'{"level": "LEVEL", "tokens": {"a": 1}}',
        b'{"level": "LEVEL", "tokens": []}',
        b'{"level": "LEVEL", "tokens": ["a", "b", "c"]}',
        b'{"level": "LEVEL", "tokens": ["<s>", "</s>", "<unk>", 1]}',
        b'{"level": "LEVEL", "tokens": ["<s>", "</s>", "<unk>", ""]}',
        b'{"level": "LEVEL", "tokens": ["<s>", "</s>", "<unk>", ["a"]]}',
        b'{"level": "LEVEL", "tokens": ["<s>", "</s>", "<unk>", "a", "a"]}',
        b'{"level": "LEVEL", "tokens": ["<s>", "</s>", "<unk>", "a"], "min_count": "3"}',
    ],
)
def test_a_foreign_file_is_refused(level: str, data: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.model|vocabulary\.json"):
        tokenizers.get(level).from_bytes(data.replace(b"LEVEL", level.encode()))


def test_a_character_tokenizer_with_a_token_of_two_characters_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"vocabulary\.json"):
        tokenizers.get("char").from_bytes(b'{"level": "char", "tokens": ["<s>", "</s>", "<unk>", "ab"]}')


@pytest.mark.parametrize(
    "texts", [["a" * 8], ["\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 20], ["haha" * 4] * 3, ["a" * 16 + "\n" + "a" * 15]]
)
def test_subwords_are_learnt_from_a_single_repeated_character_or_word(texts: list[str]) -> None:
    tokenizer = SubwordTokenizer.train(texts)
    assert tokenizer.decode(tokenizer.encode(texts[0])) == texts[0]
    assert len(tokenizer.encode(texts[0])) <= len(texts[0])


@pytest.mark.parametrize("size", [10, 12, 16])
def test_different_short_words_are_limited_like_long_ones(size: int) -> None:
    random = Random(0)
    lines = [" ".join("".join(random.choices("ACGT", k=size)) for _ in range(5)) for _ in range(2000)]
    assert sum(map(len, _limit_long_words(lines, 10_000))) < 15_000
    again = [line for line in lines[:100] for _ in range(20)]
    assert _limit_long_words(again, 10_000) == again
