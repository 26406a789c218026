"""Responses as strict JSON, whatever a model or its metadata contains."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse

from revgen.files import to_json


class StrictJSONResponse(JSONResponse):
    """A response whose numbers are finite and whose text is UTF-8."""

    def render(self, content: Any) -> bytes:
        """Return the body of the response."""
        return to_text(content).encode()


def to_text(content: Any) -> str:
    """Return a value as JSON that UTF-8 can represent. A number that JSON does not have becomes null."""
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
        return text
    except ValueError:  # an infinity, NaN, or a lone surrogate
        return to_json(content)
