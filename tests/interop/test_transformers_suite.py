"""Models of revgen pass the test suite of the library transformers, which was written for its own models."""

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

TESTS_DIRECTORY = Path(__file__).parent
STUBS = {
    "generation/test_utils.py": "class GenerationTesterMixin: pass\n",
    "exporters/test_export.py": "class ExportTesterMixin: pass\n",
}
"""Empty versions of modules that the suite imports and that the source distribution does not contain."""

ALLOWED_SKIPS = {
    r"test is slow": "it needs pretrained weights of another model",
    r"test requires (?!accelerate)": "the device or the package is not available",
    r"attentions|sdpa|Flash|RoPE|position embeddings|does not support attention": "the networks return no attention",
    r"base_model_class|rope": "it tests rotary embeddings, which only the transformer has, without options",
    r"grouped_mm|sparse experts|output_router_logits": "it tests mixtures of experts",
    r"composite|No subconfigs": "it tests models that consist of several models",
    r"(keep_in_fp32|_keep_in_fp32).*defined": "every network computes entirely in half precision",
    r"No conversion found": "parameters have the names of the arrays, so nothing is converted",
    r"no prefix": "the names of the arrays in a model directory have no prefix",
    r"test_resize_embeddings is set to `False`": "the tokenizer would no longer match, so resizing raises an error",
    r"inputs_embeds": "the input is always ids, in which the network detects the start of a document",
    r"sequence-to-sequence|encoder-decoder": "the networks have no encoder",
    r"not in MODEL_MAPPING": "every model has a head that computes logits",
    r"take a cache|support caching|static cache|recurrent layer types": "the state is not a cache of keys and values",
    r"assisted generation": "a state cannot be rewound",
    r"compilation without graph breaks": "the computation depends on the padding of the batch",
    r"capture": "hidden states are not collected by hooks",
    r"differentiable loss": "gradient checkpointing is not supported",
    r"TP plan|MTP|position_ids|logits_to_keep": "the networks do not have this option",
}
"""The skipped tests that are accepted: a pattern for the reason that the suite reports, and the explanation."""


@pytest.fixture(scope="module")
def suite_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that contains the package ``tests`` of transformers.

    The package is downloaded with the source distribution, which lacks the tests of ``generate``. The environment
    variable TRANSFORMERS_TESTS can name the directory ``tests`` of a clone instead, which has them.
    """
    directory = tmp_path_factory.mktemp("suite")
    package = directory / "tests"
    if clone := os.environ.get("TRANSFORMERS_TESTS"):
        package.symlink_to(Path(clone).resolve())
        return directory
    requirement = ("--no-deps", "--no-binary", "transformers", f"transformers=={transformers.__version__}")
    download = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--dest", directory, *requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    if download.returncode:
        pytest.skip(f"could not download the source distribution of transformers: {download.stderr.strip()[-200:]}")
    (archive,) = directory.glob("transformers-*.tar.gz")
    with tarfile.open(archive) as tar:
        members = [member for member in tar.getmembers() if re.match(r"[^/]+/tests/", member.name)]
        tar.extractall(directory, members, filter="data")
    (extracted,) = directory.glob("*/tests")
    extracted.rename(package)
    (package / "__init__.py").touch()
    for name, content in STUBS.items():
        if not (package / name).exists():
            (package / name).parent.mkdir(parents=True)
            (package / name).write_text(content)
    if not (package / "test_modeling_common.py").exists():
        pytest.skip("the source distribution of transformers has no tests")
    return directory


@pytest.mark.slow  # downloads the suite, which runs for minutes
def test_models_of_revgen_pass_the_suite_of_transformers(suite_directory: Path, tmp_path: Path) -> None:
    pytest.importorskip("parameterized")
    report = tmp_path / "report.xml"

    options = ("-o", "addopts=", "-q", f"--junitxml={report}")
    process = subprocess.run(
        [sys.executable, "-m", "pytest", TESTS_DIRECTORY / "transformers_suite.py", *options],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(suite_directory), str(TESTS_DIRECTORY.parents[1])])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert process.returncode == 0, process.stdout[-5000:]
    cases = list(ElementTree.parse(report).iter("testcase"))
    skips = {case.get("name"): str(skip.get("message")) for case in cases for skip in case.iter("skipped")}
    assert not {
        name: reason
        for name, reason in skips.items()
        if not any(re.search(pattern, reason) for pattern in ALLOWED_SKIPS)
    }
    assert sum(not list(case.iter("skipped")) for case in cases) > 200
