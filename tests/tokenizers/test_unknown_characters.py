"""Characters outside the vocabulary: how they are learned, reported, scored and generated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import revgen
from revgen.cli import main
from revgen.generation.spelling import NO_DIGITS, SpellingGuide
from revgen.tokenizers import CharTokenizer

POEMS = [
    "床前明月光疑是地上霜",
    "舉頭望明月低頭思故鄉",
    "白日依山盡黃河入海流",
    "欲窮千里目更上一層樓",
    "春眠不覺曉處處聞啼鳥",
] * 2
SMALL: dict[str, Any] = {"hidden_size": 32, "num_layers": 1}


def fit_model(name: str, texts: list[str], **options: Any) -> Any:
    model: Any = revgen.create(name, **({} if "kneser" in name else SMALL), **options)
    training: dict[str, Any] = {} if "kneser" in name else {"epochs": 2}
    model.history = model.fit(texts, progress=False, **training)
    return model


@pytest.mark.parametrize("name", ["kneser-ney-char", "gru-char", "gru-word"])
def test_model_that_rarely_saw_digits_generates_none(name: str, reviews: list[str], tmp_path: Path) -> None:
    model = fit_model(name, reviews)
    loaded = revgen.load(model.save(tmp_path / "model"))

    for copy in (model, loaded):
        texts = copy.generate("the ", n=20, temperature=2.0, max_tokens=60, seed=1)
        assert set("".join(texts)) <= set("".join(copy.tokenizer.vocabulary))
        assert not any("\ufffd" in text for text in texts)
        assert copy.generate("the ", choices=["漢字"], seed=0) == "the 漢字"


@pytest.mark.parametrize("name", ["kneser-ney-char", "gru-char", "gru-word"])
def test_model_trained_on_spelled_characters_generates_them(name: str, tmp_path: Path) -> None:
    model = fit_model(name, POEMS, tokenizer={"min_count": 5})
    loaded = revgen.load(model.save(tmp_path / "model"))

    for copy in (model, loaded):
        texts = copy.generate("", n=20, max_tokens=60, seed=1)
        assert not set("".join(texts)) <= set("".join(copy.tokenizer.vocabulary))
        forced = copy.generate(["", POEMS[0]], n=10, temperature=5.0, max_tokens=17, min_tokens=17, seed=2)
        generated = [
            *texts,
            *forced[0],
            *forced[1],
            copy.generate("", num_beams=2, max_tokens=9),
            *copy.stream("", seed=3),
        ]
        assert not any("\ufffd" in text for text in generated)  # every spelled character is complete
    assert "of the characters are not in the vocabulary, and spelled out" in model.history.notes[0]
    assert "%" in model.history.notes[0] and "min_count" in model.history.notes[0]


@pytest.mark.parametrize("options", [{}, {"max_copied_chars": 1}, {"num_beams": 3}])
@pytest.mark.parametrize("name", ["ngram-char", "ngram-word"])
def test_character_is_completed_even_if_every_digit_has_probability_zero(name: str, options: dict[str, Any]) -> None:
    model: Any = revgen.create(name, order=3, tokenizer={"min_count": 1_000_000})
    model.fit(POEMS, progress=False, index_texts=True)
    for seed in range(30):
        assert "\ufffd" not in model.generate(POEMS[0][:3], seed=seed, max_tokens=20, **options)


@pytest.mark.parametrize("name", ["kneser-ney-char", "gru-char"])
def test_fit_reports_the_files_that_it_read(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, poem in enumerate(POEMS[:3]):
        (tmp_path / f"{i}.txt").write_text(poem * 60, encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("hidden")
    model = revgen.create(name, tokenizer={"min_count": 1}, **({} if "kneser" in name else SMALL))
    options: dict[str, Any] = {} if "kneser" in name else {"epochs": 1}

    model.fit(tmp_path, valid=0.3, **options)
    first, *_ = capsys.readouterr().err.splitlines()
    assert first == "3 documents, 1,800 characters from 3 files; 1 file skipped (.png)"

    model.fit(["床前明月光" * 40] * 2, **options)
    assert capsys.readouterr().err.startswith("2 documents, 400 characters\n")


@pytest.mark.parametrize("level", ["char", "word", "subword"])
def test_smaller_vocabulary_does_not_lower_the_loss(level: str) -> None:
    """A token for many unknown characters must also pay for which of them it was."""
    poems = [poem * 3 for poem in POEMS]
    options: list[dict[str, Any]] = [{"min_count": 1}, {"min_count": 100}] if level != "subword" else [{}]
    scores = []
    for tokenizer in options:
        model = revgen.create(f"kneser-ney-{level}", order=3, tokenizer=tokenizer)
        model.fit(poems[:8], progress=False)
        scores.append(model.evaluate(["靜夜思登鸛雀樓春曉"]).nats_per_char)

    assert min(scores) > 4


def test_loss_of_unk_includes_the_cost_of_its_character(reviews: list[str]) -> None:
    model = revgen.load("gru-char")
    known, unknown = "the song", "the 漢字字"

    assert model.evaluate([known]).unknown == 0
    evaluation, score = model.evaluate([unknown]), model.score(unknown)
    assert evaluation.unknown == 3
    assert evaluation.nats_per_char == pytest.approx(-score.total / len(unknown), rel=1e-4)
    assert -score.logprobs[4:7].max() > model.tokenizer.unknown_nats > 13.9
    explained = [token.logprob for token in model.explain(unknown)]
    assert explained == pytest.approx(score.logprobs.tolist(), abs=1e-3)


def test_command_line_does_not_mention_parameters_of_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("the cat sat\n" * 20 + "ZQXJKVWY", encoding="utf-8")

    main(["fit", "ngram-char", str(tmp_path / "a.txt"), "--set", "order=2", "--out", str(tmp_path / "model")])

    output = "".join(capsys.readouterr())
    assert "of the characters are not in the vocabulary" in output and "extend_vocabulary" not in output


def test_digits_can_spell_every_character_and_nothing_else() -> None:
    tokenizer = CharTokenizer.train(["aaa"])
    guide = SpellingGuide(tokenizer)

    def can_spell(ids: tuple[int, ...]) -> bool:
        state = NO_DIGITS
        for i, token in enumerate(ids):
            if not guide.allowed_tokens(state, min(len(ids) - i, 2))[token]:
                return False
            state = guide.next_state(state, token)
        return state == NO_DIGITS

    for point in (*range(0x3000), *range(0xD700, 0xE100), 0x4E2D, 0xFFFF, 0x1F600, 0x10FFFF):
        assert can_spell(tokenizer.spell(chr(point))) == (not 0xD800 <= point <= 0xDFFF)
    too_large = (*(tokenizer.digit_ids[digit] for digit in (1, 1, 0, 0, 0)), tokenizer.digit_ids[16])
    assert not can_spell(too_large)
    state = guide.next_state(NO_DIGITS, tokenizer.digit_ids[4])
    assert not guide.allowed_tokens(state, 2)[[tokenizer.eos_id, *tokenizer.encode("a")]].any()
    assert not guide.allowed_tokens(NO_DIGITS, 1)[list(tokenizer.digit_ids[:16])].any()
