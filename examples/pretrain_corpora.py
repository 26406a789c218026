"""The corpora of the pretrained zoo: how their documents are read, cleaned and held out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import revgen

MIN_REPEATS = 3
"""A line in this many training posts is a part of the site, not of a post."""
MIN_POST_LENGTH = 200
"""Shorter posts, in characters, are left out after cleaning."""
ADDRESS = re.compile(r"https?:|www\.|\S+@\S+|(?<!\w)@\w+|\b[\w-]+\.(com|net|org|co\.uk)\b", re.IGNORECASE)
PROFANITY = re.compile(
    r"fuck|shit|bitch|cunt|n[i1]gg(a|er)|asshole|\bdick|\bpussy|\bwhore|\bslut|\bcock\b|bastard|\bpiss", re.IGNORECASE
)
MARKUP = re.compile(r"\*+|(?<!\w)_+|_+(?!\w)|\\(?=[-.*_#])|\[\]|~~")
PAGE_PART = re.compile(r"\s*([|>#~=-]|\d+ \w+$|share\b|follow\b|tags?\b|posted\b|.*\|.*\|)", re.IGNORECASE)
"""The beginning of lines of tables, quotations, headings and buttons."""


class Split(NamedTuple):
    """The documents of a corpus."""

    train: revgen.Corpus
    valid: revgen.Corpus


def read_split(corpus: Mapping[str, Any], folder: Path) -> Split:
    """Return the documents of a corpus, a table of ``pretrain.toml``, whose files are in ``folder``."""
    documents = revgen.read(folder / corpus["train"], **options(corpus["train"], corpus))
    if "valid" in corpus:
        held_out = revgen.read(folder / corpus["valid"], **options(corpus["valid"], corpus))
        if "every" in corpus:
            return Split(every(documents, corpus["every"]), every(held_out, corpus["every"]))
        if corpus.get("clean") != "blog":
            return Split(documents, held_out)
        boilerplate = repeated_lines(documents)
        return Split(*(revgen.read(clean_posts(posts, boilerplate)) for posts in (documents, held_out)))
    if "split_at" in corpus:
        (text,) = documents
        position = int(len(text) * corpus["split_at"])
        return Split(revgen.read([text[:position]]), revgen.read([text[position:]]))
    titles = [title for title in list(documents)[corpus["header"] :] if not PROFANITY.search(title)]
    halves = [[t for t in titles if is_held_out(t, corpus["hold_out"]) is held_out] for held_out in (False, True)]
    return Split(*map(revgen.read, halves))


def options(file: str, corpus: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options to read a file: a line is a document, except in the file that is split at a position."""
    by_line = file.endswith(".txt") and "split_at" not in corpus
    return {"labels": corpus.get("labels"), "documents": "line" if by_line else "file"}


def every(documents: revgen.Corpus, step: int) -> revgen.Corpus:
    """Return one document in ``step`` with its label."""
    texts, labels = [], []
    for number, text in enumerate(documents):
        if number % step == 0:
            texts.append(text)
            labels.append(documents.label)
    return revgen.read(texts, labels=labels)


def is_held_out(text: str, parts: int) -> bool:
    """Return whether a document is among the one in ``parts`` that are chosen by their hash."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % parts == 0


def repeated_lines(posts: Iterable[str]) -> set[str]:
    """Return the lines that occur in ``MIN_REPEATS`` or more posts."""
    counts = Counter(line for post in posts for line in {line.strip() for line in post.splitlines()})
    return {line for line, count in counts.items() if count >= MIN_REPEATS and line}


def clean_posts(posts: Iterable[str], boilerplate: set[str]) -> list[str]:
    """Return the posts without boilerplate, lines with addresses, markup, and the posts that have profanity."""
    cleaned = (clean_post(post, boilerplate) for post in posts if not PROFANITY.search(post))
    return [post for post in cleaned if len(post) >= MIN_POST_LENGTH]


def clean_post(post: str, boilerplate: set[str]) -> str:
    """Return the sentences of a post: no lines of the site, no tables, no addresses and no markup."""
    lines = [
        MARKUP.sub("", line).strip()
        for line in post.splitlines()
        if line.strip() not in boilerplate and not ADDRESS.search(line) and not PAGE_PART.match(line)
    ]
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines))
    return "\n\n".join(text.strip() for text in paragraphs if is_prose(text))


def is_prose(paragraph: str) -> bool:
    """Return whether a paragraph has a sentence, unlike a link, a menu or a credit."""
    return len(paragraph.split()) >= 8 and re.search(r"[.!?…][\"')”’]*\s*$", paragraph) is not None
