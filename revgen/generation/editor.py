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
from revgen.generation.healing import token_texts
from revgen.generation.sampler import Floats, Sampling, sample
from revgen.options import as_float, check, is_int

if TYPE_CHECKING:
    from revgen.model import Model

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

    def __init__(self, model: Model) -> None:
        self.model = model
        self.token_texts = token_texts(model.tokenizer)
        self.states: deque[tuple[list[int], Floats, Any]] = deque(maxlen=KEPT)

    def logits(self, ids: list[int]) -> Floats:
        """Return the logits of the token after some ids, (1, vocab)."""
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
        return logits

    def distribution(self, text: str, temperature: float) -> tuple[list[str], Floats]:
        """Return what may follow a text as its next token, and the probability of each.

        Where the end of the text begins a longer token, what that token adds is among them (see ``healing``).
        """
        tokenizer, texts, sampling = self.model.tokenizer, self.token_texts.texts, Sampling(temperature=temperature)
        ids = [tokenizer.bos_id, *tokenizer.encode(text).tolist()]
        kept, pending = self.token_texts.give_back(ids)
        spelling = np.where(self.token_texts.allowed(pending), self.logits(kept), -np.inf)
        written = [bool(text) for text in texts]
        p = sampling.filtered(np.where(written, self.logits(ids), -np.inf))[0]
        if not pending or not np.isfinite(spelling).any():
            return texts, p
        longer = sampling.filtered(spelling)[0] * [len(text) > len(pending) for text in texts]
        return [*texts, *(text[len(pending) :] for text in texts)], np.concatenate([p * (1 - longer.sum()), longer])

    def suggestions(self, text: str, temperature: float, count: int = SUGGESTIONS) -> list[tuple[str, float]]:
        """Return the most likely texts of the next token, with their probabilities."""
        found: dict[str, float] = {}
        for added, p in zip(*self.distribution(text, temperature), strict=True):
            found[added] = found.get(added, 0.0) + float(p)
        return sorted(((added, p) for added, p in found.items() if added and p > 0), key=lambda item: -item[1])[:count]

    def word(self, text: str, temperature: float, random: np.random.Generator) -> str:
        """Return what the model draws after a text, up to the end of a word."""
        written = ""
        for _ in range(LONGEST_WORD):
            texts, p = self.distribution(text + written, temperature)
            token = texts[int(sample(p[None], random.random(1))[0])]
            if token[:1].isspace() and written.strip():
                break
            written += token
        return written


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
    """Write a text in the terminal, and return it; Ctrl-S saves it to ``path``.

    ``input`` and ``output`` are prompt_toolkit's, where they are not the terminal. Raises MissingExtraError without
    prompt_toolkit.
    """
    check("temperature", temperature, 0 <= as_float(temperature) < np.inf, "0 or more")
    check("seed", seed, seed is None or is_int(seed, 0), "a whole number of at least 0")
    try:
        from prompt_toolkit import Application
        from prompt_toolkit.buffer import Buffer
        from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
        from prompt_toolkit.layout import BufferControl, FormattedTextControl, HSplit, Layout, Window
    except ImportError:
        raise MissingExtraError("writing in the terminal needs prompt_toolkit: pip install 'revgen[write]'") from None

    desk = EditorState(model, path, float(temperature), seed)
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
    key("pageup")(lambda: desk.adjust_temperature(0.1))
    key("pagedown")(lambda: desk.adjust_temperature(-0.1))
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


class EditorState:
    """What stands around the text: suggestions, temperature, the file, and a note of what was done."""

    def __init__(self, model: Model, path: Path, temperature: float, seed: int | None) -> None:
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

    def adjust_temperature(self, step: float) -> None:
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
