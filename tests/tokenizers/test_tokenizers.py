"""Tokenizers of every registered level: lossless, defined for every text, and safe to load from a file."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from revgen import OptionError, Tokenizer
from revgen.registry import tokenizers
from revgen.testing import check_tokenizer

LEVELS = tokenizers.names()
HEX_LEVELS = ["char", "word"]  # the levels that spell unknown characters by hexadecimal digits

ALPHABET = "abcdefgknsu XYZ,.'’-\n\t\r\x0b\x00éß\u0301漢🎸_09<>/\u2581�\xa0\u2028"
TRAINING_TEXTS = [
    "the band plays a song of the sea, and the sand.\n\tIt's loud\r\n",
    "  the   singer's band don’t play:\n\n\na song, a song.",
    ALPHABET,
] * 3
SPECIAL_TEXTS = ["<s>", "</s>", "<unk>", "<s></s><unk>", "a</s>b", "<pad>", "<0x41>", "[UNK]"]
WHITE_SPACE = [
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
limited = settings(deadline=None, max_examples=100)


@cache
def train_level(level: str) -> Tokenizer:
    tokenizer: Tokenizer = tokenizers.get(level).train(TRAINING_TEXTS)
    return tokenizer


def round_trip_runs(tokenizer: Tokenizer) -> bool:
    return isinstance(tokenizer.decode(tokenizer.encode("the band\n 漢")), str)


# Lossless -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@limited
@given(text=known_text)
def test_known_characters_round_trip(level: str, text: str) -> None:
    check_tokenizer(train_level(level), text)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("text", [*TRAINING_TEXTS[:3], *WHITE_SPACE, *SPECIAL_TEXTS[:5]])
def test_white_space_and_names_of_special_tokens_round_trip(level: str, text: str) -> None:
    check_tokenizer(train_level(level), text)


@pytest.mark.parametrize("level", LEVELS)
def test_reviews_round_trip(level: str, reviews: list[str]) -> None:
    tokenizer = tokenizers.get(level).train(reviews + [c * 3 for c in sorted(set("".join(reviews)))])

    for text in reviews:
        check_tokenizer(tokenizer, text)


@pytest.mark.parametrize("level", LEVELS)
@limited
@given(text=st.text())
def test_any_text_round_trips(level: str, text: str) -> None:
    check_tokenizer(train_level(level), text)


def test_known_words_are_tokens_and_unknown_words_are_spelled_by_characters() -> None:
    tokenizer = tokenizers.get("word").train(["the band, the song\n"] * 3 + ["bandsong"])

    def tokens(text: str) -> list[str]:
        return [tokenizer.vocabulary[i] for i in tokenizer.encode(text)]

    assert tokens("the band, the song\n") == ["the", " ", "band", ",", " ", "the", " ", "song", "\n"]
    assert tokens("bandsong") == list("bandsong")


def test_words_at_document_boundaries_are_not_merged() -> None:
    tokenizer = tokenizers.get("word").train(["anna", "bob", "anna", "bob", "anna", "bob"])

    assert {"anna", "bob"} <= set(tokenizer.vocabulary)
    assert len(tokenizer.encode("anna")) == 1


# Defined for every text -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@limited
@given(text=any_text | st.lists(st.sampled_from(SPECIAL_TEXTS + WHITE_SPACE)).map("".join))
def test_no_text_encodes_to_start_or_end_ids(level: str, text: str) -> None:
    tokenizer = train_level(level)

    ids = tokenizer.encode(text)

    assert ids.dtype == tokenizer.dtype
    assert all(tokenizer.unk_id <= i < len(tokenizer) for i in ids.tolist())


@pytest.mark.parametrize("level", HEX_LEVELS)
@limited
@given(text=any_text)
def test_lone_surrogates_round_trip_as_digits(level: str, text: str) -> None:
    check_tokenizer(train_level(level), text)


@pytest.mark.parametrize("level", HEX_LEVELS)
def test_unknown_character_encodes_to_the_digits_of_its_code_point(level: str) -> None:
    tokenizer = train_level(level)

    def tokens(text: str) -> list[str]:
        return [tokenizer.vocabulary[i] for i in tokenizer.encode(text)]

    assert tokens("中") == ["<x4>", "<xE>", "<x2>", "<xD;>"]
    assert tokens("aφ\x01") == ["a", "<x3>", "<xC>", "<x6;>", "<x1;>"]
    assert tokens("\U0010ffff") == ["<x1>", "<x0>", *["<xF>"] * 3, "<xF;>"]


@pytest.mark.parametrize("level", HEX_LEVELS)
def test_invalid_digits_decode_to_u_fffd(level: str) -> None:
    tokenizer = train_level(level)
    ids = {token: i for i, token in enumerate(tokenizer.vocabulary)}

    assert tokenizer.decode([ids["<x4>"], ids["<xE>"], ids["a"], ids["<x4>"]]) == "�a�"
    assert tokenizer.decode([ids["<xF>"]] * 5 + [ids["<xF;>"], ids["a"]]) == "�a"


@pytest.mark.parametrize("level", LEVELS)
@limited
@given(text=st.text() | known_text)
def test_char_counts_add_up_to_the_length_of_the_text(level: str, text: str) -> None:
    tokenizer = train_level(level)
    ids = tokenizer.encode(text)
    unknown = [c for c in text if tokenizer.completes_unknown_character[tokenizer.encode(c)].any()]

    assert tokenizer.char_counts[ids].sum() == len(text)
    assert tokenizer.completes_unknown_character[ids].sum() == len(unknown)


@pytest.mark.parametrize("level", LEVELS)
@limited
@given(character=st.characters(exclude_categories=["Cs"]))
def test_spelled_character_inverts_spell(level: str, character: str) -> None:
    tokenizer = train_level(level)

    ids = tokenizer.spell(character)

    assert tokenizer.decode(ids) == character
    if not tokenizer.partial_char_ids.isdisjoint(ids):
        assert tokenizer.partial_char_ids.issuperset(ids)
        assert [tokenizer.spelled_character(ids[:i]) for i in range(1, len(ids))] == [None] * (len(ids) - 1)
        assert tokenizer.spelled_character(ids) == character


@pytest.mark.parametrize("level", HEX_LEVELS)
def test_vocabulary_without_digits_encodes_unknown_characters_as_unk(level: str) -> None:
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


@pytest.mark.parametrize("level", LEVELS)
@limited
@given(data=st.data())
def test_stream_decoder_agrees_with_decode(level: str, data: st.DataObject) -> None:
    tokenizer = train_level(level)
    any_id_but_eos = st.integers(0, len(tokenizer) - 1).filter(lambda i: i != tokenizer.eos_id)
    ids = data.draw(st.lists(any_id_but_eos))

    decode = tokenizer.stream_decoder()
    streamed = "".join([decode(i) for i in [*ids, tokenizer.eos_id]])

    assert streamed == tokenizer.decode(ids)


@pytest.mark.parametrize("level", LEVELS)
def test_start_and_end_decode_to_nothing(level: str) -> None:
    tokenizer = train_level(level)
    ids = [tokenizer.bos_id, *tokenizer.encode("the band").tolist(), tokenizer.eos_id]

    assert tokenizer.decode(ids) == "the band"


# Training --------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_special_tokens_come_first_and_tokens_are_unique(level: str) -> None:
    tokenizer = train_level(level)

    assert tokenizer.vocabulary[:3] == ("<s>", "</s>", "<unk>")
    assert len(set(tokenizer.vocabulary)) == len(tokenizer) == len(tokenizer.vocabulary)


@pytest.mark.parametrize("level", LEVELS)
def test_fingerprint_depends_only_on_the_training_text(level: str) -> None:
    same = tokenizers.get(level).train(iter(TRAINING_TEXTS))
    other = tokenizers.get(level).train(["quite another text, with other words: jazz!"] * 3)

    assert same.fingerprint == train_level(level).fingerprint
    assert same == train_level(level)
    assert hash(same) == hash(train_level(level))
    assert other.fingerprint != same.fingerprint
    assert other != same


@pytest.mark.parametrize("level", HEX_LEVELS)
@pytest.mark.parametrize(("min_count", "known"), [(1, "abc"), (2, "ab"), (3, "a"), (4, "")])
def test_characters_rarer_than_min_count_are_spelled(level: str, min_count: int, known: str) -> None:
    tokenizer = tokenizers.get(level).train(["a b", "a.b", "a c"], min_count=min_count)

    assert [c for c in "abc" if len(tokenizer.encode(c)) == 1] == list(known)


def test_words_rarer_than_min_count_are_not_tokens() -> None:
    tokenizer = tokenizers.get("word").train(["loud loud rare"], min_count=2)

    assert "loud" in tokenizer.vocabulary
    assert "rare" not in tokenizer.vocabulary


@pytest.mark.parametrize(("level", "vocab_size"), [("word", 36), ("word", 50), ("word", 90), ("subword", 400)])
def test_vocab_size_is_reached_but_not_exceeded(level: str, vocab_size: int, reviews: list[str]) -> None:
    tokenizer = tokenizers.get(level).train(reviews, vocab_size=vocab_size)

    assert len(tokenizer) == vocab_size
    assert round_trip_runs(tokenizer)


def test_small_text_gives_fewer_tokens_than_vocab_size() -> None:
    assert 3 + 256 < len(tokenizers.get("subword").train(["a small text"], vocab_size=5000)) < 320
    assert len(tokenizers.get("word").train(["a small text"] * 3, vocab_size=5000)) < 3 + 32 + 20


def test_the_most_frequent_words_are_kept() -> None:
    texts = ["often often often sometimes sometimes rarely"] * 3

    tokenizer = tokenizers.get("word").train(texts, vocab_size=3 + 32 + len(set(texts[0])) + 2)

    assert tokenizer.vocabulary[-2:] == ("often", "sometimes")


def test_small_vocab_size_keeps_the_most_frequent_characters() -> None:
    tokenizer = tokenizers.get("word").train(["eeee aaa tt z"] * 3, vocab_size=38)

    assert tokenizer.vocabulary[35:] == (" ", "a", "e")


def test_large_vocabulary_uses_uint32_ids() -> None:
    text = "".join(map(chr, range(1 << 17)))

    tokenizer = tokenizers.get("char").train([text], min_count=1)

    assert tokenizer.dtype == np.uint32
    assert train_level("char").dtype == np.uint16
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
def test_invalid_option_is_named_in_the_error(level: str, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        tokenizers.get(level).train(TRAINING_TEXTS, **options)


# New text --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", HEX_LEVELS)
def test_extend_appends_tokens(level: str) -> None:
    tokenizer = train_level(level)
    new = ["ñandú über\n"] * 3

    assert tokenizer.unknown_characters(new) == ["ñ", "ú", "ü"]
    extended = tokenizer.extend(new)

    assert extended.vocabulary[: len(tokenizer)] == tokenizer.vocabulary
    assert extended.encode(TRAINING_TEXTS[0]).tolist() == tokenizer.encode(TRAINING_TEXTS[0]).tolist()
    assert extended.unknown_characters(new) == []
    check_tokenizer(extended, new[0])


@pytest.mark.parametrize("level", LEVELS)
def test_training_text_has_no_unknown_characters(level: str) -> None:
    tokenizer = train_level(level)

    assert tokenizer.unknown_characters(TRAINING_TEXTS) == []
    assert tokenizer.extend(TRAINING_TEXTS) == tokenizer


def test_rare_characters_are_not_reported_as_unknown() -> None:
    assert train_level("char").unknown_characters(["ñ", "ñ"]) == []
    assert train_level("char").unknown_characters(["ñ", "ñ", "ñ"]) == ["ñ"]


def test_extend_learns_words() -> None:
    extended = train_level("word").extend(["saxophone, saxophone, saxophone"])

    assert len(extended.encode("saxophone")) == 1
    assert len(train_level("word").encode("saxophone")) >= len("saxophone")


def test_extend_does_not_change_a_subword_tokenizer() -> None:
    new = ["ñandú über\n"] * 3

    assert train_level("subword").unknown_characters(new) == []
    assert train_level("subword").extend(new) == train_level("subword")
