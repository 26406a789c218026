"""A test with the real Hub. It needs a token, and runs only with ``-m hub``."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from conftest import HUB_TOKEN
from hub_helpers import ROOT

from revgen.language_model import LanguageModel

REAL_HUB_SCRIPT = """
import sys, revgen
from huggingface_hub import HfApi
name, directory = sys.argv[1:]
try:
    model = revgen.load(directory)
    url = model.push_to_hub(name, private=True)
    model.push_to_hub(name, revision="v1", commit_message="A branch")
    for revision in (None, "v1", url.rpartition("/")[2]):
        loaded = revgen.load(name, revision=revision)
        assert loaded.generate("the ", seed=1) == model.generate("the ", seed=1)
    assert revgen.load(name, local_files_only=True).tokenizer == model.tokenizer
    for options in ({"token": False}, {"revision": "v9"}):
        try:
            revgen.load(name, **options)
        except revgen.HubError as error:
            print(error)
        else:
            raise SystemExit(f"no error with {options}")
finally:
    HfApi().delete_repo(name, missing_ok=True)
"""


@pytest.mark.skipif(HUB_TOKEN is None, reason="needs HF_TOKEN to create and delete a repository")
@pytest.mark.hub
def test_the_real_hub_behaves_the_same(small_model: LanguageModel, tmp_path: Path) -> None:
    directory = small_model.save(tmp_path / "model")
    test_settings = ("HF_ENDPOINT", "HF_HUB_DISABLE_XET")
    environment = {name: value for name, value in os.environ.items() if name not in test_settings}
    environment |= {"HF_TOKEN": str(HUB_TOKEN), "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    name = f"revgen-test-{uuid.uuid4().hex[:8]}"

    owner = subprocess.run(
        [sys.executable, "-c", "from huggingface_hub import whoami; print(whoami()['name'])"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    result = subprocess.run(
        [sys.executable, "-c", REAL_HUB_SCRIPT, f"{owner}/{name}", str(directory)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    assert "the repository has no revision 'v9'" in result.stdout
