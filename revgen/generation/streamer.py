"""Text from tokens as they come, up to the first stop string."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from revgen.generation.sentences import SentenceStop
from revgen.tokenizers import Tokenizer


def find_stop(text: str, stops: Sequence[str], start: int = 0) -> int | None:
    """Return the position of the first stop string in a text from ``start`` on, or None if there is none."""
    return min((position for stop in stops if (position := text.find(stop, start)) >= 0), default=None)


def find_end(
    text: str, stops: Sequence[str], sentences: SentenceStop | None, start: int = 0, *, is_final: bool = False
) -> int | None:
    """Return where a text stops: before a stop string, from ``start`` on, or after a sentence. None if it does not.

    ``sentences`` is None if sentences do not count. Nothing follows the text if it ``is_final``.
    """
    stop = find_stop(text, stops, start)
    sentence = None if sentences is None else sentences.find(text, is_final=is_final or stop is not None)
    return min((end for end in (stop, sentence) if end is not None), default=None)


class TextStreamer:
    """The text of one row of a batch. Text that may be the beginning of a stop string is held back.

    The text ends before the first of ``stops``, or where ``sentences`` finds the end of a sentence.
    """

    def __init__(
        self, decode: Callable[[int], str], stops: tuple[str, ...] = (), sentences: SentenceStop | None = None
    ) -> None:
        self.decode = decode
        self.stops = stops
        self.sentences = sentences
        self.ready = ""
        self.held = ""
        self.finished = False

    @property
    def may_stop(self) -> bool:
        """Whether the text may end before the end of the document."""
        return bool(self.stops) or self.sentences is not None

    def write(self, token: int, check_stops: bool = True, skip: int = 0) -> None:
        """Add a token without its first ``skip`` characters. The text may stop there if ``check_stops``."""
        new = self.decode(token)[skip:]
        if check_stops and self.may_stop:
            self._add(self.held + new)
            return
        self.ready += new
        if self.sentences is not None:
            self.sentences.advance(new)

    def _add(self, text: str, *, is_final: bool = False) -> None:
        """Add text, and hold back what may not belong to it; nothing if it ``is_final``."""
        end = find_end(text, self.stops, self.sentences, is_final=is_final)
        self.finished = is_final or end is not None
        if end is None:
            end = len(text) - (0 if is_final else self._undecided(text))
        self.ready += text[:end]
        self.held = "" if self.finished else text[end:]
        if self.sentences is not None:
            self.sentences.advance(text[:end])

    def _undecided(self, text: str) -> int:
        """Return how many characters at the end of a text may be the beginning of a stop string, or no part of it."""
        beginnings = (
            length
            for stop in self.stops
            for length in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:length])
        )
        undecided = max(beginnings, default=0)
        return undecided if self.sentences is None else max(undecided, self.sentences.undecided(text))

    def write_all(self, tokens: Iterable[int], unchecked: int = 0) -> None:
        """Add tokens, until the text stops; it does not stop at the first ``unchecked`` ones."""
        if not self.may_stop:
            self.ready += "".join(map(self.decode, tokens))
            return
        for i, token in enumerate(tokens):
            self.write(token, check_stops=i >= unchecked)
            if self.finished:
                return

    def finish(self) -> None:
        """End the text, which stops nowhere before."""
        if self.finished:
            return
        self._add(self.held + self.decode(Tokenizer.eos_id), is_final=True)

    def take(self) -> str:
        """Return the text that has become ready since the last call."""
        piece, self.ready = self.ready, ""
        return piece
