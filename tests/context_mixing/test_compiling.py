"""Tests of the cache of compiled functions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import revgen

CALL = """
import numpy as np
from revgen.context_mixing.counting import chain_matches
chain_matches(np.zeros(9, np.int64), np.array([0, 9]), np.zeros(4, np.int32), np.zeros(9, np.int32))
print(sum(chain_matches.stats.cache_hits.values()))
"""


@pytest.mark.slow
def test_function_is_compiled_again_after_a_change_in_another_file(tmp_path: Path) -> None:
    package = Path(revgen.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.npz")
    shutil.copytree(package, tmp_path / "revgen", ignore=ignored)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def hits() -> int:
        return int(subprocess.check_output([sys.executable, "-c", CALL], cwd=tmp_path, env=environment, text=True))

    assert [hits(), hits()] == [0, 1]
    os.utime(tmp_path / "revgen/context_mixing/contexts.py", (0, 0))
    assert [hits(), hits()] == [0, 1]
