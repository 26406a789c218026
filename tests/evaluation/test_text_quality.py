"""Text quality: what is counted, and the settings that are chosen by it."""

from __future__ import annotations

import pytest
from toys import scripted

from revgen import OptionError
from revgen.evaluation.text_quality import compare_settings, ends_with_sentence, text_quality
from revgen.novelty import SuffixIndex

TRAINING = SuffixIndex(["The cat sat on the mat.", "Don't run, cats!"])


def test_words_are_real_if_the_training_text_has_them() -> None:
    quality = text_quality(["A cat sat. The zog ran don't."], TRAINING)

    assert quality.real_words == 4 / 7  # cat, sat, the, don't
    assert quality.distinct_words == 1


def test_words_count_whatever_their_case_and_a_last_word_that_may_be_cut_off_does_not() -> None:
    quality = text_quality(["CAT cat cat s", "the the mat."], TRAINING)

    assert quality.real_words == 1
    assert quality.distinct_words == 3 / 6


def test_a_chinese_character_is_a_word() -> None:
    quality = text_quality(["床前明月光。"], SuffixIndex(["明月。"]))

    assert quality.real_words == 2 / 5


def test_copies_are_weighted_by_their_length() -> None:
    quality = text_quality(["cat sat on", "a" * 30 + "."], TRAINING, minimum=10)

    assert quality.copied == 10 / 41


def test_texts_that_end_with_a_sentence_are_counted() -> None:
    assert text_quality(["It is. ", "It is", 'He: "No."', "It cost 3."], TRAINING).complete == 3 / 4
    assert ends_with_sentence("Yes.\n") and not ends_with_sentence("Mr.") and not ends_with_sentence("")


def test_texts_without_words_cannot_be_measured() -> None:
    with pytest.raises(OptionError, match="words"):
        text_quality(["1 2 3", "word"], TRAINING)


def test_settings_are_ordered_by_variety_where_words_are_real() -> None:
    model = scripted("the cat sat the cat sat. The zog.")
    model.generation_config = {"prompt": "the "}
    settings = [{"max_tokens": 30}, {"max_tokens": 20}, {"max_tokens": 9}]

    rows = compare_settings(model, SuffixIndex(["the cat sat down."]), settings, n=1, max_copied=1)

    assert [options["max_tokens"] for options, _ in rows] == [9, 20, 30]
    assert [quality.distinct_words for _, quality in rows] == [1, 3 / 6, 4 / 8]
    assert [quality.real_words for _, quality in rows] == [1, 1, 7 / 8]
