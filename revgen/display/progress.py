"""Progress bars and lines of progress: a widget in a notebook, text on standard error elsewhere."""

from __future__ import annotations

import sys
import warnings
from typing import Any, TextIO


def is_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


def progress_bar(is_shown: bool = True, **options: Any) -> Any:
    """Return a bar of tqdm, with its parameters as ``options``. It appears only in a notebook and on a terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in a notebook without ipywidgets, the bar is text
        from tqdm.auto import tqdm  # here, because importing it takes as long as importing NumPy

    # With None, tqdm shows no bar unless the output is a terminal, which a notebook is not.
    disable = (False if is_notebook() else None) if is_shown else True
    return tqdm(disable=disable, file=progress_stream(), mininterval=0.3, **options)


def progress_stream() -> TextIO:
    """Return the stream for lines of progress: in a notebook standard output, because it shows errors in red."""
    return sys.stdout if is_notebook() else sys.stderr
