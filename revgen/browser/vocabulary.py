"""Tokenizers as a page describes them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from revgen.errors import OptionError
from revgen.tokenizers import CharTokenizer, SubwordTokenizer, Tokenizer, WordTokenizer
from revgen.tokenizers.subword import SPACE

UNIGRAM = 1
"""SentencePiece's number for the model type."""
USER_DEFINED = 4
"""SentencePiece's number for the type of a piece that is never split."""


def describe_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what ``tokenizers.js`` needs as plain values. Raises OptionError for a tokenizer that it cannot read."""
    if type(tokenizer) in (CharTokenizer, WordTokenizer):
        first_digit = tokenizer.digit_ids.start if tokenizer.digit_ids else None
        return {"level": tokenizer.level, "tokens": tokenizer.vocabulary, "firstDigit": first_digit}
    if type(tokenizer) is SubwordTokenizer:
        return describe_pieces(tokenizer)
    raise OptionError(f"the tokenizer {tokenizer.level} has no version in JavaScript, so the model cannot be exported")


def describe_pieces(tokenizer: SubwordTokenizer) -> dict[str, Any]:
    """Return the pieces of SentencePiece's unigram model, with their scores."""
    scores, types, model_type = [], [], UNIGRAM
    for number, content in read_fields(tokenizer.to_bytes()):
        if number == 1:  # a piece
            piece = dict(read_fields(content))
            scores.append(struct.unpack("<f", piece.get(2, bytes(4)))[0])
            types.append(piece.get(3, 1))
        elif number == 2:  # the options of training
            model_type = dict(read_fields(content)).get(3, UNIGRAM)
    if model_type != UNIGRAM:
        raise OptionError("a page reads SentencePiece's unigram models only, so the model cannot be exported")
    return {
        "level": tokenizer.level,
        "pieces": tokenizer.vocabulary,
        "scores": [float(str(np.float32(score))) for score in scores],
        "userDefined": [i for i, kind in enumerate(types) if kind == USER_DEFINED],
        "firstByte": tokenizer.spell("\0")[0],
        "splitsSpaces": SPACE not in tokenizer.vocabulary,
    }


def read_fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the number and the content of each field of a message in the format of Protocol Buffers."""
    position = 0

    def read_varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(data):
        number, wire_type = divmod(read_varint(), 8)
        if wire_type == 0:
            yield number, read_varint()
        else:
            size = {1: 8, 5: 4}.get(wire_type) or read_varint()
            yield number, data[position : position + size]
            position += size
