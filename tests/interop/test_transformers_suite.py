"""The test suite that transformers has for its own models, which nobody here wrote, passes for those of revgen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

transformers = pytest.importorskip("transformers")

HERE = Path(__file__).parent
EMPTY = {
    "generation/test_utils.py": "class GenerationTesterMixin: pass\n",
    "exporters/test_export.py": "class ExportTesterMixin: pass\n",
}
"""What the source distribution leaves out: folders within ``tests``."""

SKIPPED = {
    r"test is slow": "it takes pretrained weights of another model",
    r"test requires (?!accelerate)": "a device or a package that is not there",
    r"attentions|sdpa|Flash|RoPE|position embeddings|does not support attention": "a network of revgen returns none",
    r"base_model_class|rope": "it is about rotary embeddings, which are of a transformer alone and not configurable",
    r"grouped_mm|sparse experts|output_router_logits": "it is about mixtures of experts",
    r"composite|No subconfigs": "it is about models that consist of several",
    r"(keep_in_fp32|_keep_in_fp32).*defined": "every network works in half precision as a whole",
    r"No conversion found": "the names of the parameters are those of the arrays: nothing is converted",
    r"no prefix": "the arrays of a model directory have no prefix",
    r"test_resize_embeddings is set to `False`": "the tokenizer would not fit; an error says so",
    r"inputs_embeds": "a network begins with ids, whose document start it looks at",
    r"sequence-to-sequence|encoder-decoder": "there is no encoder",
    r"not in MODEL_MAPPING": "there is no model without logits",
    r"take a cache|support caching|static cache|recurrent layer types": "the state is no cache of keys and values",
    r"assisted generation": "a state cannot be taken back",
    r"compilation without graph breaks": "the padding of a batch decides how it is read",
    r"capture": "hidden states are not captured by hooks",
    r"differentiable loss": "there is no gradient checkpointing",
    r"TP plan|MTP|position_ids|logits_to_keep": "an option of other models",
}
"""Why a test may be skipped: a pattern for the reason that the suite gives, and what is meant by it."""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the package ``tests`` of transformers: from its source distribution, or, with the tests of
    ``generate``, from a clone, whose folder ``tests`` the environment variable TRANSFORMERS_TESTS names."""
    folder = tmp_path_factory.mktemp("suite")
    package = folder / "tests"
    if clone := os.environ.get("TRANSFORMERS_TESTS"):
        package.symlink_to(Path(clone).resolve())
        return folder
    wanted = ("--no-deps", "--no-binary", "transformers", f"transformers=={transformers.__version__}")
    got = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder, *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    if got.returncode:
        pytest.skip(f"the source distribution of transformers cannot be had: {got.stderr.strip()[-200:]}")
    (archive,) = folder.glob("transformers-*.tar.gz")
    with tarfile.open(archive) as tar:
        inside = [member for member in tar.getmembers() if re.match(r"[^/]+/tests/", member.name)]
        tar.extractall(folder, inside, filter="data")
    (tests,) = folder.glob("*/tests")
    tests.rename(package)
    (package / "__init__.py").touch()
    for name, content in EMPTY.items():
        if not (package / name).exists():
            (package / name).parent.mkdir(parents=True)
            (package / name).write_text(content)
    if not (package / "test_modeling_common.py").exists():
        pytest.skip("the source distribution of transformers has no tests")
    return folder


@pytest.mark.slow  # it is downloaded
def test_the_suite_of_transformers_passes(suite: Path, tmp_path: Path) -> None:
    pytest.importorskip("parameterized")
    report = tmp_path / "report.xml"

    options = ("-o", "addopts=", "-q", f"--junitxml={report}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", HERE / "transformers_suite.py", *options],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(suite), str(HERE.parents[1])])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-5000:]
    cases = list(ElementTree.parse(report).iter("testcase"))
    reasons = {case.get("name"): str(skip.get("message")) for case in cases for skip in case.iter("skipped")}
    unjustified = {n: reason for n, reason in reasons.items() if not any(re.search(p, reason) for p in SKIPPED)}
    assert not unjustified
    assert sum(not list(case.iter("skipped")) for case in cases) > 200
