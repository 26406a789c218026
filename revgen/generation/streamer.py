"""Text from tokens as they come, up to the first stop string."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from revgen.tokenizers import Tokenizer


def find_stop(text: str, stops: Sequence[str], start: int = 0) -> int | None:
    """Return the position of the first stop string in a text from ``start`` on, or None if there is none."""
    return min((position for stop in stops if (position := text.find(stop, start)) >= 0), default=None)


class TextStreamer:
    """The text of one row of a batch. Text that may be the beginning of a stop string is held back."""

    def __init__(self, decode: Callable[[int], str], stops: tuple[str, ...]) -> None:
        self.decode = decode
        self.stops = stops
        self.ready = ""
        self.held = ""
        self.finished = False

    def write(self, token: int, check_stops: bool = True, skip: int = 0) -> None:
        """Add a token without its first ``skip`` characters. Stop strings count if ``check_stops``."""
        new = self.decode(token)[skip:]
        if not self.stops or not check_stops:
            self.ready += new
            return
        text = self.held + new
        position = find_stop(text, self.stops)
        if position is not None:
            self.ready += text[:position]
            self.held = ""
            self.finished = True
            return
        beginnings = (
            length
            for stop in self.stops
            for length in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:length])
        )
        end = len(text) - max(beginnings, default=0)
        self.ready += text[:end]
        self.held = text[end:]

    def write_all(self, tokens: Iterable[int]) -> None:
        """Add tokens, up to a stop string."""
        if not self.stops:
            self.ready += "".join(map(self.decode, tokens))
            return
        for token in tokens:
            self.write(token)
            if self.finished:
                return

    def finish(self) -> None:
        """End the text: what was held back belongs to it, unless a stop string has ended it before."""
        if self.finished:
            return
        self.write(Tokenizer.eos_id)
        self.ready += self.held
        self.held = ""
        self.finished = True

    def take(self) -> str:
        """Return the text that has become ready since the last call."""
        piece, self.ready = self.ready, ""
        return piece
