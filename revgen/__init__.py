"""revgen: a zoo of small language models that you train on your own text, in minutes, on a laptop.

>>> import revgen
>>> model = revgen.load("lstm-char")
>>> text = model.generate("the ", seed=1)

``__init__.pyi`` lists the public names. Each is imported when it is first used, so ``import revgen`` is fast.
"""

import os

import lazy_loader

from revgen import missing_torch
from revgen.interop import auto_classes
from revgen.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = ["__version__", *__all__]  # noqa: PLE0604

auto_classes.install()
missing_torch.install()

# GNU OpenMP reads this when PyTorch is loaded: its threads spin for 1,000 rounds before they sleep, not 300,000. On a
# busy machine, training takes less than half of the time, and on an idle one as long as before.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
