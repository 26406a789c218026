"""The editor: suggestions at the cursor, and the keys, in a pseudo-terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import Floats, Table, table

import revgen
from revgen import LanguageModel, MissingExtraError, OptionError
from revgen.cli import main
from revgen.generation.editor import MAX_CACHED_STATES, Suggester, write
from revgen.registry import tokenizers

TAB, UNDO, SAVE, QUIT, NEXT, ON, UP, DOWN = "\t", "\x1a", "\x13", "\x11", "\x0e", "\x07", "\x1b[5~", "\x1b[6~"


def fresh(model: LanguageModel, text: str) -> Floats:
    tokenizer = model.tokenizer
    ids = np.array([tokenizer.bos_id, *tokenizer.encode(text)])[:, None]
    logits: Floats = model.forward(ids, model.initial_state(1))[0][-1]
    return logits


@pytest.mark.parametrize("level", tokenizers.names())
def test_logits_depend_only_on_the_text_before_the_cursor(level: str, reviews: list[str]) -> None:
    model = revgen.create(f"gru-{level}", hidden_size=16, num_layers=1)
    model.fit(reviews[:10], epochs=1, progress=False)
    reader = Suggester(model)
    texts = ["", "the", "the song", "the so", "the song is over. " * 9, "the song", "another", reviews[0], "the song"]

    for text in texts:
        found = reader.logits([model.tokenizer.bos_id, *model.tokenizer.encode(text).tolist()])
        np.testing.assert_allclose(found, fresh(model, text), atol=1e-5)


def test_only_new_text_is_read(reviews: list[str]) -> None:
    read: list[int] = []

    class Counting(Table):
        """A model that remembers how many tokens it read."""

        def forward(self, tokens: Any, state: Any) -> Any:
            read.append(len(tokens))
            return super().forward(tokens, state)

    reader = Suggester(table(tokenizers.get("char").train(reviews), kind=Counting))
    text = reviews[0][: 3 * MAX_CACHED_STATES]
    reader.distribution(text, 1.0)
    read.clear()

    reader.distribution(text + "a", 1.0)
    reader.distribution(text[:-9], 1.0)
    reader.distribution(text[:-9] + "bc", 1.0)

    assert read == [1, 1, 1]


def test_suggestions_are_the_most_likely_texts_with_their_probabilities(small_model: LanguageModel) -> None:
    reader = Suggester(small_model)

    found = reader.suggestions("th", 1.0, 4)

    logits = fresh(small_model, "th")[0].astype(float)
    logits[[token == b"" for token in small_model.tokenizer.token_bytes]] = -np.inf
    p = np.exp(logits - logits.max())
    p /= p.sum()
    best = small_model.tokenizer.token_bytes[int(p.argmax())].decode()
    assert found[0][0] == best
    assert [probability for _, probability in found] == pytest.approx(np.sort(p)[::-1][:4], abs=1e-5)
    hotter = reader.suggestions("th", 2.0, 4)
    assert hotter[0][1] < found[0][1]
    assert reader.suggestions("th", 0, 4) == [(best, 1.0)]


@pytest.mark.parametrize("name", ["gru-subword", "lstm-word"])
def test_suggestions_complete_the_word_at_the_cursor_or_follow_it(name: str) -> None:
    reader = Suggester(revgen.load(name))

    after_space = reader.suggestions("I think that ", 1.0)
    within_word = dict(reader.suggestions("I love the mus", 1.0))
    after_word = dict(reader.suggestions("I love this music", 1.0, 50))

    assert {"I", "the", "it"} & {text.strip() for text, _ in after_space} and after_space[0][0][0] != " "
    assert max(within_word, key=lambda text: within_word[text]) == "ic"
    assert any(text.startswith(" ") for text in after_word)
    assert sum(after_word.values()) <= 1 + 1e-6


def test_a_word_ends_where_the_next_begins(small_model: LanguageModel) -> None:
    reader, random = Suggester(small_model), np.random.default_rng(0)

    text = "the"
    for _ in range(20):
        word = reader.word(text, 0.8, random)
        assert word and not re.search(r"\S\s", word)
        text += word


# The terminal ----------------------------------------------------------------------------


@pytest.fixture
def keys() -> Iterator[Any]:
    """Keys to be typed."""
    from prompt_toolkit.input import create_pipe_input

    with create_pipe_input() as pipe:
        yield pipe


def written(model: LanguageModel, keys: Any, typed: str, path: Path, **options: Any) -> str:
    from prompt_toolkit.output import DummyOutput

    keys.send_text(typed)
    return write(model, path, input=keys, output=DummyOutput(), **options)


def test_keys_insert_select_undo_and_save(small_model: LanguageModel, keys: Any, tmp_path: Path) -> None:
    reader, path = Suggester(small_model), tmp_path / "text.txt"

    text = written(small_model, keys, f"th{TAB}{NEXT}{TAB}\x1b3{TAB}XX{UNDO * 3}{SAVE}!{QUIT}", path, text="On ")

    expected = "On th"
    for number in (0, 1, 2):
        expected += reader.suggestions(expected, 1.0)[number][0]
    assert path.read_text("utf-8") == expected
    assert text == expected + "!"


def test_keys_change_the_temperature(small_model: LanguageModel, keys: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"text": "the ", "seed": 1, "path": tmp_path / "text.txt"}
    text = written(small_model, keys, f"{DOWN * 20}{ON}{ON}{QUIT}", **options)

    reader, random = Suggester(small_model), np.random.default_rng(0)
    greedy = "the "
    for _ in range(2):
        greedy += reader.word(greedy, 0, random)
    assert text == greedy
    hot = written(small_model, keys, f"{UP * 40}{ON}{ON}{QUIT}", **options)
    assert hot.startswith("the ") and hot != greedy


def test_the_text_survives_if_the_file_cannot_be_written(small_model: LanguageModel, keys: Any, tmp_path: Path) -> None:
    assert written(small_model, keys, f"ab{SAVE}c{QUIT}", tmp_path / "no" / "where.txt") == "abc"


@pytest.mark.parametrize(("name", "value"), [("temperature", -1), ("temperature", "x"), ("seed", -1)])
def test_invalid_values_are_errors(small_model: LanguageModel, name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"^{name} must be"):
        write(small_model, Path("text.txt"), **{name: value})


def test_without_prompt_toolkit_the_error_says_how_to_get_it(
    small_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'revgen\[write\]'"):
        write(small_model, Path("text.txt"))


def test_the_command_writes_in_a_terminal(small_model: LanguageModel, tmp_path: Path) -> None:
    import pty

    directory, path = str(small_model.save(tmp_path / "model")), tmp_path / "text.txt"
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "revgen", "write", directory, "--prompt", "On th", "--out", str(path)]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm", "LINES": "40"}
    )
    os.close(theirs)
    shown = bytearray()
    changed = threading.Condition()

    def listen() -> None:
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end is closed
                part = b""
            with changed:
                shown.extend(part)
                changed.notify()
            if not part:
                return

    def wait_for(text: str) -> None:
        with changed:
            assert changed.wait_for(lambda: text.encode() in shown, timeout=60), shown.decode(errors="replace")
            shown.clear()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    wait_for("Ctrl-Q: quit")
    os.write(ours, TAB.encode())
    os.write(ours, UP.encode())
    wait_for(".1")  # what changed is drawn, no more
    os.write(ours, SAVE.encode())
    with changed:
        assert changed.wait_for(path.exists, timeout=60), "it was not saved"
    os.write(ours, QUIT.encode())
    assert process.wait(timeout=60) == 0
    listener.join(60)
    os.close(ours)

    first = Suggester(small_model).suggestions("On th", 1.0)[0][0]
    assert path.read_text("utf-8") == f"On th{first}"
    assert f"On th{first}\r\n".encode() in shown


def test_the_command_synthesizes(
    small_model: LanguageModel, reviews: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = revgen.create("kneser-ney-word", order=3)
    other.fit(reviews[:30], progress=False)
    directories = [str(small_model.save(tmp_path / "a")), str(other.save(tmp_path / "b"))]
    arguments = ["synthesize", *directories, "--prompt", "the ", "-n", "2", "--seed", "1", "--max-tokens", "40"]
    wanted = revgen.synthesize([small_model, other], "the ", n=2, seed=1, max_tokens=40)
    capsys.readouterr()

    assert main(arguments) == 0
    assert capsys.readouterr().out == "---\n".join(f"{text}\n" for text in wanted)
    assert main([*arguments, "--json"]) == 0
    assert capsys.readouterr().out.count('"text"') == 2
    assert main([*arguments, "--num-beams", "2"]) == 2
    assert "beams does not combine with taking turns" in capsys.readouterr().err
