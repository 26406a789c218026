"""``Limits``: the bounds of one server, so that no request takes more than its part of memory and time."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from revgen.options import check_at_least


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds of a server; each field describes itself in ``metadata["help"]``."""

    max_prompt_tokens: int = field(
        default=8192, metadata={"help": "the number of tokens in a prompt, or in a text to embed"}
    )
    max_tokens: int = field(default=4096, metadata={"help": "the number of tokens that a request may ask for"})
    max_texts: int = field(
        default=64, metadata={"help": "the number of texts in a request: its prompts times n, or its texts to embed"}
    )
    max_batch: int = field(default=64, metadata={"help": "the number of texts that a model continues at once"})
    max_queue: int = field(default=256, metadata={"help": "the number of requests that wait for a model"})
    max_seconds: int = field(default=300, metadata={"help": "the time for a request, and for a shutdown"})
    max_client_seconds: int = field(
        default=30,
        metadata={"help": "the time for a client to send a request, and to read the next part of a response"},
    )
    max_body_bytes: int = field(default=1 << 20, metadata={"help": "the size of the body of a request"})

    def __post_init__(self) -> None:
        for option in dataclasses.fields(self):
            check_at_least(option.name, getattr(self, option.name), 1)
