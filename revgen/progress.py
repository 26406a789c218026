"""Progress bars and lines of progress: a widget in a notebook, text on standard error elsewhere."""

from __future__ import annotations

import sys
from typing import Any, TextIO


def is_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    if "ipykernel" not in sys.modules:
        return False
    from tqdm.auto import tqdm
    from tqdm.notebook import tqdm_notebook

    return issubclass(tqdm, tqdm_notebook)


def progress_bar(is_shown: bool = True, **options: Any) -> Any:
    """Return a bar of tqdm, with its parameters as ``options``. It appears only in a notebook and on a terminal."""
    from tqdm.auto import tqdm  # here, because importing it takes as long as importing NumPy

    # With None, tqdm shows no bar unless the output is a terminal, which a notebook is not.
    disable = (False if is_notebook() else None) if is_shown else True
    return tqdm(disable=disable, mininterval=0.3, **options)


def progress_stream() -> TextIO:
    """Return the stream for lines of progress: in a notebook standard output, because it shows errors in red."""
    return sys.stdout if is_notebook() else sys.stderr
