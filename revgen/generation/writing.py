"""Writing together with a model in the terminal: it suggests, you choose, type your own, undo, and save.

The text is a buffer of prompt_toolkit, so the cursor moves and text is edited as everywhere; the suggestions are for
the place of the cursor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from revgen.errors import MissingExtraError
from revgen.files import write_atomically
from revgen.generation.sampler import Floats, Sampling, draw
from revgen.options import check, number, whole

if TYPE_CHECKING:
    from revgen.language_model import LanguageModel

SUGGESTIONS = 9
KEPT = 64
"""The last states that are kept, so that a change near the end of a text is not a reason to read all of it again."""

LONGEST_WORD = 40
"""Tokens."""

HELP = (
    "Alt-1…9 or Tab takes · Ctrl-N/P chooses · Ctrl-G writes on · PgUp/PgDn temperature · "
    "Ctrl-Z undoes · Ctrl-S saves · Ctrl-Q quits"
)


class Reader:
    """A model at the end of a text that changes: it reads what is new only."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        tokenizer = model.tokenizer
        self.texts = [_decoded(spelled) for spelled in tokenizer.spelling]  # None for a part of a character
        self.biases = np.where([bool(text) for text in self.texts], 0, -np.inf).astype(np.float32)
        self.states: deque[tuple[list[int], Floats, Any]] = deque(maxlen=KEPT)

    def logits(self, text: str) -> Floats:
        """Of the token behind a text, (1, vocab); what is no text has none."""
        tokenizer = self.model.tokenizer
        ids = [tokenizer.start, *tokenizer.encode(text).tolist()]
        while self.states and self.states[-1][0] != ids[: len(self.states[-1][0])]:
            self.states.pop()
        if self.states:
            read, logits, state = self.states[-1]
            position = len(read)
        else:
            position = max(len(ids) - KEPT, 1)
            logits, state = self.model.next_logits(np.array(ids[:position])[:, None], self.model.initial_state(1))
            self.states.append((ids[:position], logits, state))
        for end in range(position + 1, len(ids) + 1):
            found, state = self.model.forward(np.array(ids[end - 1 : end])[:, None], state)
            logits = found[-1]
            self.states.append((ids[:end], logits, state))
        return logits + self.biases

    def suggestions(self, text: str, temperature: float, count: int = SUGGESTIONS) -> list[tuple[str, float]]:
        """The likeliest tokens behind a text, as texts, with their probabilities."""
        p = Sampling(temperature=temperature).filtered(self.logits(text))[0]
        best = np.argsort(-p, kind="stable")[:count]
        return [(self.texts[i] or "", float(p[i])) for i in best.tolist() if p[i] > 0]

    def word(self, text: str, temperature: float, random: np.random.Generator) -> str:
        """What the model draws behind a text, up to the end of a word."""
        sampling, written = Sampling(temperature=temperature), ""
        for _ in range(LONGEST_WORD):
            p = sampling.filtered(self.logits(text + written))
            token = self.texts[int(draw(p, random.random(1))[0])] or ""
            if token[:1].isspace() and written.strip():
                break
            written += token
        return written


def _decoded(spelled: bytes) -> str | None:
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return None


def write(
    model: LanguageModel,
    path: Path,
    text: str = "",
    *,
    temperature: float = 1.0,
    seed: int | None = None,
    input: Any = None,
    output: Any = None,
) -> str:
    """Write a text in the terminal, and return it; Ctrl-S saves it to ``path``.

    ``input`` and ``output`` are prompt_toolkit's, where they are not the terminal. Raises MissingExtraError without
    prompt_toolkit.
    """
    check("temperature", temperature, 0 <= number(temperature) < np.inf, "0 or more")
    check("seed", seed, seed is None or whole(seed, 0), "a whole number of at least 0")
    try:
        from prompt_toolkit import Application
        from prompt_toolkit.buffer import Buffer
        from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
        from prompt_toolkit.layout import BufferControl, FormattedTextControl, HSplit, Layout, Window
    except ImportError:
        raise MissingExtraError("writing in the terminal needs prompt_toolkit: pip install 'revgen[write]'") from None

    desk = Desk(model, path, float(temperature), seed)
    buffer = Buffer(multiline=True)
    buffer.text = text
    buffer.cursor_position = len(text)
    keys = KeyBindings()

    def put(made: str) -> None:
        buffer.save_to_undo_stack()
        buffer.insert_text(made)
        desk.chosen = 0

    def key(*names: str) -> Callable[[Callable[[], None]], None]:
        """What these keys do."""

        def bind(action: Callable[[], None]) -> None:
            @keys.add(*names)
            def _(event: KeyPressEvent) -> None:
                desk.note = ""
                action()

        return bind

    @key("tab")
    def _() -> None:
        put(desk.suggested(buffer.document.text_before_cursor, desk.chosen))

    for place in range(SUGGESTIONS):
        key("escape", str(place + 1))(
            lambda place=place: put(desk.suggested(buffer.document.text_before_cursor, place))  # type: ignore[misc]
        )
    key("c-n")(lambda: desk.choose(1))
    key("c-p")(lambda: desk.choose(-1))
    key("pageup")(lambda: desk.heat(0.1))
    key("pagedown")(lambda: desk.heat(-0.1))
    key("c-g")(lambda: put(desk.word(buffer.document.text_before_cursor)))
    key("c-z")(buffer.undo)
    key("c-s")(lambda: desk.save(buffer.text))

    @keys.add("c-q")
    @keys.add("c-c")
    def _quit(event: KeyPressEvent) -> None:
        event.app.exit(result=buffer.text)

    def suggestions() -> Any:
        return desk.lines(buffer.document.text_before_cursor)

    layout = HSplit(
        [
            Window(BufferControl(buffer), wrap_lines=True),
            Window(height=1, char="─"),
            Window(FormattedTextControl(suggestions), height=SUGGESTIONS),
            Window(FormattedTextControl(lambda: [("reverse", f" {desk.status()} ")]), height=1),
            Window(FormattedTextControl(HELP), height=2, wrap_lines=True),
        ]
    )
    application: Any = Application(Layout(layout), key_bindings=keys, full_screen=True, input=input, output=output)
    return str(application.run())


class Desk:
    """What stands around the text: suggestions, temperature, the file, and a note of what was done."""

    def __init__(self, model: LanguageModel, path: Path, temperature: float, seed: int | None) -> None:
        self.reader = Reader(model)
        self.name = model.name
        self.path = path
        self.temperature = temperature
        self.random = np.random.default_rng(seed)
        self.chosen = 0
        self.note = ""

    def choose(self, step: int) -> None:
        """Go to another suggestion."""
        self.chosen = (self.chosen + step) % SUGGESTIONS

    def heat(self, step: float) -> None:
        """Change the temperature."""
        self.temperature = max(round(self.temperature + step, 1), 0.0)

    def suggested(self, text: str, place: int) -> str:
        """One suggestion; nothing where there are fewer."""
        found = self.reader.suggestions(text, self.temperature)
        return found[place][0] if place < len(found) else ""

    def word(self, text: str) -> str:
        """A word of the model."""
        return self.reader.word(text, self.temperature, self.random)

    def save(self, text: str) -> None:
        """Write the file."""
        try:
            write_atomically(self.path, text.encode("utf-8", "replace"))
            self.note = f"saved: {self.path}"
        except OSError as error:
            self.note = f"{self.path} cannot be written: {error.strerror or error}"

    def lines(self, text: str) -> list[tuple[str, str]]:
        """The suggestions as styled lines."""
        lines = []
        for place, (token, p) in enumerate(self.reader.suggestions(text, self.temperature)):
            style = "bold reverse" if place == self.chosen else ""
            lines.append((style, f"{place + 1} {p:6.1%}  {repr(token)[1:-1] if token.strip() else repr(token)}\n"))
        return lines

    def status(self) -> str:
        """The line below them."""
        return f"{self.name} · temperature {self.temperature:g} · {self.note or self.path}"
