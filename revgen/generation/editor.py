"""A text editor for the terminal in which a model suggests continuations at the cursor.

The text is a buffer of ``prompt_toolkit``, with the library's usual keys for moving and editing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from revgen.errors import MissingExtraError
from revgen.files import write_atomically
from revgen.generation.filters import FilterContext, Floats, TemperatureScaling
from revgen.generation.healing import token_texts
from revgen.generation.sampler import probabilities, sample
from revgen.options import as_float, check, is_int

if TYPE_CHECKING:
    from prompt_toolkit.buffer import Buffer
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.layout import Layout

    from revgen.model import Model

NUM_SUGGESTIONS = 9
MAX_CACHED_STATES = 64
"""The number of model states in the cache. After a change near the end of the text, few tokens must be read again."""

MAX_WORD_TOKENS = 40
"""The largest number of tokens in a sampled word."""

HELP = (
    "Alt-1…9 or Tab: insert · Ctrl-N/P: select · Ctrl-G: add a word · PgUp/PgDn: temperature · "
    "Ctrl-Z: undo · Ctrl-S: save · Ctrl-Q: quit"
)


class Suggester:
    """The suggestions of a model for a text that changes. The model reads only the part that is new."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.token_texts = token_texts(model.tokenizer)
        self.states: deque[tuple[list[int], Floats, Any]] = deque(maxlen=MAX_CACHED_STATES)

    def logits(self, ids: list[int]) -> Floats:
        """Return the logits of the token after these ids, (1, vocab)."""
        while self.states and self.states[-1][0] != ids[: len(self.states[-1][0])]:
            self.states.pop()
        if self.states:
            read, logits, state = self.states[-1]
            position = len(read)
        else:
            position = max(len(ids) - MAX_CACHED_STATES, 1)
            logits, state = self.model.next_logits(np.array(ids[:position])[:, None], self.model.initial_state(1))
            self.states.append((ids[:position], logits, state))
        for end in range(position + 1, len(ids) + 1):
            all_logits, state = self.model.forward(np.array(ids[end - 1 : end])[:, None], state)
            logits = all_logits[-1]
            self.states.append((ids[:end], logits, state))
        return logits

    def distribution(self, text: str, temperature: float) -> tuple[list[str], Floats]:
        """Return the texts that the next token may add to a text, and their probabilities.

        If longer tokens begin with the end of the text, the rest of each is a possible text too (``healing``).
        """
        tokenizer, texts = self.model.tokenizer, self.token_texts.texts
        context = FilterContext(np.zeros(1, np.intp), float(temperature))

        def to_probabilities(logits: Floats) -> Floats:
            p: Floats = probabilities([TemperatureScaling()], logits, context)[0]
            return p

        ids = [tokenizer.bos_id, *tokenizer.encode(text).tolist()]
        trimmed_ids, pending = self.token_texts.trim(ids)
        healed_logits = np.where(self.token_texts.allowed(pending), self.logits(trimmed_ids), -np.inf)
        p = to_probabilities(np.where([bool(text) for text in texts], self.logits(ids), -np.inf))
        if not pending or not np.isfinite(healed_logits).any():
            return texts, p
        longer = to_probabilities(healed_logits) * [len(text) > len(pending) for text in texts]
        return [*texts, *(text[len(pending) :] for text in texts)], np.concatenate([p * (1 - longer.sum()), longer])

    def suggestions(self, text: str, temperature: float, count: int = NUM_SUGGESTIONS) -> list[tuple[str, float]]:
        """Return the most likely texts of the next token, with their probabilities."""
        total: dict[str, float] = {}
        for added, p in zip(*self.distribution(text, temperature), strict=True):
            total[added] = total.get(added, 0.0) + float(p)
        return sorted(((added, p) for added, p in total.items() if added and p > 0), key=lambda item: -item[1])[:count]

    def word(self, text: str, temperature: float, rng: np.random.Generator) -> str:
        """Sample the continuation of a text up to the end of a word."""
        word = ""
        for _ in range(MAX_WORD_TOKENS):
            texts, p = self.distribution(text + word, temperature)
            token = texts[int(sample(p[None], rng.random(1))[0])]
            if token[:1].isspace() and word.strip():
                break
            word += token
        return word


def write(
    model: Model,
    path: Path,
    text: str = "",
    *,
    temperature: float = 1.0,
    seed: int | None = None,
    input: Any = None,
    output: Any = None,
) -> str:
    """Let the user edit a text in the terminal, and return the text. Ctrl-S saves it to ``path``.

    ``input`` and ``output`` are objects of prompt_toolkit; by default, the terminal. Raises MissingExtraError without
    prompt_toolkit.
    """
    check("temperature", temperature, 0 <= as_float(temperature) < np.inf, "0 or more")
    check("seed", seed, seed is None or is_int(seed, 0), "a whole number of at least 0")
    try:
        from prompt_toolkit import Application
        from prompt_toolkit.buffer import Buffer
    except ImportError:
        raise MissingExtraError("writing in the terminal needs prompt_toolkit: pip install 'revgen[write]'") from None

    buffer = Buffer(multiline=True)
    buffer.text = text
    buffer.cursor_position = len(text)
    state = EditorState(model, path, float(temperature), seed)
    keys = _key_bindings(buffer, state)
    application: Any = Application(
        _layout(buffer, state), key_bindings=keys, full_screen=True, input=input, output=output
    )
    return str(application.run())


def _key_bindings(buffer: Buffer, state: EditorState) -> KeyBindings:
    """Return the keys of the editor and their actions."""
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    def insert(text: str) -> None:
        buffer.save_to_undo_stack()
        buffer.insert_text(text)
        state.selected = 0

    def insert_suggestion(number: int) -> None:
        insert(state.suggestion(buffer.document.text_before_cursor, number))

    def bind(action: Callable[[], None], *names: str) -> None:
        @keys.add(*names)
        def _(event: KeyPressEvent) -> None:
            state.note = ""
            action()

    bind(lambda: insert_suggestion(state.selected), "tab")
    for number in range(NUM_SUGGESTIONS):
        bind(partial(insert_suggestion, number), "escape", str(number + 1))
    bind(lambda: state.select(1), "c-n")
    bind(lambda: state.select(-1), "c-p")
    bind(lambda: state.adjust_temperature(0.1), "pageup")
    bind(lambda: state.adjust_temperature(-0.1), "pagedown")
    bind(lambda: insert(state.word(buffer.document.text_before_cursor)), "c-g")
    bind(buffer.undo, "c-z")
    bind(lambda: state.save(buffer.text), "c-s")

    @keys.add("c-q")
    @keys.add("c-c")
    def _quit(event: KeyPressEvent) -> None:
        event.app.exit(result=buffer.text)

    return keys


def _layout(buffer: Buffer, state: EditorState) -> Layout:
    """Return the layout: the text, a line, the suggestions, the status line and the help."""
    from prompt_toolkit.layout import BufferControl, FormattedTextControl, HSplit, Layout, Window

    def suggestions() -> Any:
        return state.lines(buffer.document.text_before_cursor)

    status = FormattedTextControl(lambda: [("reverse", f" {state.status()} ")])
    return Layout(
        HSplit(
            [
                Window(BufferControl(buffer), wrap_lines=True),
                Window(height=1, char="─"),
                Window(FormattedTextControl(suggestions), height=NUM_SUGGESTIONS),
                Window(status, height=1),
                Window(FormattedTextControl(HELP), height=2, wrap_lines=True),
            ]
        )
    )


class EditorState:
    """The state of the editor without the text: suggestions, temperature, file, and a note about the last action."""

    def __init__(self, model: Model, path: Path, temperature: float, seed: int | None) -> None:
        self.suggester = Suggester(model)
        self.name = model.name
        self.path = path
        self.temperature = temperature
        self.rng = np.random.default_rng(seed)
        self.selected = 0
        self.note = ""

    def select(self, step: int) -> None:
        """Move the selection down by ``step`` suggestions."""
        self.selected = (self.selected + step) % NUM_SUGGESTIONS

    def adjust_temperature(self, step: float) -> None:
        """Add ``step`` to the temperature, but do not let it fall below 0."""
        self.temperature = max(round(self.temperature + step, 1), 0.0)

    def suggestion(self, text: str, number: int) -> str:
        """Return the suggestion with this number, or an empty string if it does not exist."""
        suggestions = self.suggester.suggestions(text, self.temperature)
        return suggestions[number][0] if number < len(suggestions) else ""

    def word(self, text: str) -> str:
        """Sample the continuation of a text up to the end of a word."""
        return self.suggester.word(text, self.temperature, self.rng)

    def save(self, text: str) -> None:
        """Write the text to the file."""
        try:
            write_atomically(self.path, text.encode("utf-8", "replace"))
            self.note = f"saved: {self.path}"
        except OSError as error:
            self.note = f"could not save {self.path}: {error.strerror or error}"

    def lines(self, text: str) -> list[tuple[str, str]]:
        """Return the suggestions as styled lines."""
        lines = []
        for number, (token, p) in enumerate(self.suggester.suggestions(text, self.temperature)):
            style = "bold reverse" if number == self.selected else ""
            lines.append((style, f"{number + 1} {p:6.1%}  {repr(token)[1:-1] if token.strip() else repr(token)}\n"))
        return lines

    def status(self) -> str:
        """Return the status line."""
        return f"{self.name} · temperature {self.temperature:g} · {self.note or self.path}"
