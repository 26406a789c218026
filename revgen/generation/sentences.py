"""Where a generated text may end if it has to end with a sentence (``stop_at_sentence``).

A sentence ends in ``.``, ``!``, ``?`` or ``…`` and closing quotes or brackets before white space, or in ``。``, ``！``
or ``？`` before any character. An abbreviation such as ``Mr.``, an initial and ``3.5`` end no sentence. The next
character decides, so a text is complete one token after its end. ``browser/sentences.js`` is the same in JavaScript.
"""

from __future__ import annotations

import re

FULL_WIDTH = "。！？"
CLOSERS = "\"'”’“»«)\\]}」』）】》〉"
SPACES = " \u00a0\u202f"
"""The spaces that French puts between the end of a sentence and the quotation mark that closes it."""

SENTENCE_END = re.compile(rf"[.!?…{FULL_WIDTH}]+[{CLOSERS}]*")
SPACED_QUOTE = re.compile(rf"[{SPACES}]»")
UNDECIDED_SPACE = re.compile(rf"[.!?…{FULL_WIDTH}][{CLOSERS}]*(?:[{SPACES}]»)?[{SPACES}]$")
WHITE_SPACE = re.compile(r"[ \t\n\v\f\r\u0085\u00a0\u2002\u2003\u2009\u2028\u2029\u202f\u3000]")
LAST_WORD = re.compile(r"[\w.'’-]*$")
ABBREVIATION = re.compile(
    "capt|col|dr|esq|feat|ft|gen|hon|lt|messrs|mlle|mm|mme|mr|mrs|ms|mt|prof|rev|sgt|st|vol|vs", re.IGNORECASE
)
PRONOUNS = "IЯ"
"""Upper-case letters that are words, and not initials."""
CONTEXT_CHARS = 64
"""The number of characters before the end of a sentence that are checked for an abbreviation."""


def find_sentence_end(text: str, first: int = 0, *, is_final: bool = False) -> int | None:
    """Return the first position, from ``first`` on, where a sentence of the text ends, or None.

    With ``is_final``, nothing follows the text, so a sentence may end with it.
    """
    for match in SENTENCE_END.finditer(text, max(0, first - CONTEXT_CHARS)):
        end = match.end()
        if quote := SPACED_QUOTE.match(text, end):
            end = quote.end()
        if end < first:
            continue
        if not is_final and (end == len(text) or (end + 1 == len(text) and text[end] in SPACES)):
            return None  # the next character decides
        is_full_width = match[0].rstrip(CLOSERS)[-1] in FULL_WIDTH
        if end == len(text) or is_full_width or WHITE_SPACE.match(text, end):
            if match[0] == "." and is_abbreviation(text[max(0, match.start() - CONTEXT_CHARS) : match.start()]):
                continue
            return end
    return None


def is_abbreviation(text: str) -> bool:
    """Return whether a period after this text belongs to its last word."""
    match = LAST_WORD.search(text)
    word = match[0].strip("'’-") if match else ""
    is_initial = len(word) == 1 and word.isupper() and word not in PRONOUNS
    return is_initial or "." in word or ABBREVIATION.fullmatch(word) is not None


class SentenceStop:
    """Finds the end of a sentence in a text that comes in pieces; ``context`` is the text before.

    A sentence that ends in the first ``start`` characters does not count.
    """

    def __init__(self, context: str = "", start: int = 0) -> None:
        self.before = context[-CONTEXT_CHARS:]
        self.first = len(self.before) + max(start, 1)  # the text has at least one character

    def advance(self, text: str) -> None:
        """Continue after ``text``, in which no sentence that counts ends before the last character."""
        if text:
            self.before = (self.before + text)[-CONTEXT_CHARS:]
            self.first = len(self.before)

    def find(self, text: str, *, is_final: bool = False) -> int | None:
        """Return where a sentence ends in the next piece, or None."""
        end = find_sentence_end(self.before + text, self.first, is_final=is_final)
        return None if end is None else end - len(self.before)

    def undecided(self, text: str) -> int:
        """Return how many characters at the end of the next piece may be after the end of the last sentence."""
        return int(UNDECIDED_SPACE.search(self.before + text) is not None)
