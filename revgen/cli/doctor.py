"""``revgen doctor``."""

from __future__ import annotations

import argparse
import os
import platform
import re
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from revgen.cli.console import print_json, print_sections
from revgen.cli.parser import Command
from revgen.corpus.cache import cache_directory
from revgen.display.formatting import format_size, pluralize
from revgen.version import __version__

CPU_FEATURES = ("avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "asimdhp", "bf16")
"""The features of a processor that matter for speed, by their names in /proc/cpuinfo."""
DEVELOPMENT_EXTRAS = ("test", "dev", "docs")

Section = dict[str, str]


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen doctor``: none."""


def run_doctor(options: argparse.Namespace) -> None:
    """Print what revgen finds on this machine. A part that fails is shown as an error message."""
    parts: dict[str, Callable[[], Section]] = {
        "versions": find_versions,
        "processor": describe_processor,
        "gpu": describe_gpu,
        "caches": describe_caches,
        "hub": describe_hub,
        "extras": find_extras,
    }
    report = {}
    for name, describe in parts.items():
        try:
            report[name] = describe()
        except Exception as error:  # such as a broken installation, which is what the user looks for
            report[name] = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    if options.json:
        print_json(report, indent=2)
    else:
        print_sections(report)


def find_versions() -> Section:
    """Return the versions of revgen, Python, the system, and the packages that revgen requires."""
    versions = {"revgen": f"{__version__} in {Path(__file__).parents[1]}", "python": f"{platform.python_version()}"}
    versions["system"] = platform.platform()
    for package in _requirements().get("", []):
        versions[package] = _version(package) or f"not installed: pip install {package}"
    return versions


def describe_processor() -> Section:
    """Return the name of the processor, its features, its cores, and the precision in which training is faster."""
    name, features = platform.processor() or platform.machine(), ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").split("\n\n")[0].splitlines()
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        flags = fields.get("flags", fields.get("Features", "")).split()
        name, features = fields.get("model name", name), " ".join(flag for flag in CPU_FEATURES if flag in flags)
    section = {"name": name, "features": features or "unknown", "cores": str(os.cpu_count())}
    if _version("torch"):
        import torch

        from revgen.networks.precision import bf16_matmul_is_fast, cached_speedup

        section["threads of PyTorch"] = str(torch.get_num_threads())
        precision = "bfloat16" if bf16_matmul_is_fast(torch.device("cpu")) else "float32"
        speedup = cached_speedup(torch.get_num_threads())
        section["precision"] = f"{precision}: bfloat16 was measured at {speedup:.2f} times the speed of float32"
    return section


def describe_gpu() -> Section:
    """Return the names and the memory of the GPUs that PyTorch finds."""
    if not _version("torch"):
        return {"device": "cpu, because PyTorch is not installed"}
    import torch

    from revgen.architectures.neural import find_gpu

    section = {"device": f'device="auto" is {find_gpu()}'}
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        section[f"cuda:{i}"] = f"{properties.name}, {format_size(properties.total_memory)}"
    return section


def describe_caches() -> Section:
    """Return the directory of revgen's cache, and the size of the compiled code and the token ids in it."""
    directory = cache_directory()
    programs = directory / "programs"
    files = [path for path in directory.rglob("*") if path.is_file()]
    compiled = [path for path in files if path.is_relative_to(programs)]
    others = [path for path in files if path not in compiled]
    count = sum(path.suffix == ".py" for path in compiled)
    return {
        "directory": str(directory),
        "compiled code": f"{pluralize(count, 'program')}, {_total_size(compiled)}",
        "vocabularies and token ids": f"{pluralize(len(others), 'file')}, {_total_size(others)}",
    }


def describe_hub() -> Section:
    """Return the address and the cache of the Hub, and who is logged in. The token is never part of it."""
    from huggingface_hub import constants, get_token

    from revgen.hub import list_cached

    models = list_cached()
    size = format_size(sum(model.size for model in models))
    section = {
        "address": re.sub(r"//[^/@]*@", "//", constants.ENDPOINT),  # without a name and a password
        "cache": f"{pluralize(len(models), 'model')} of revgen, {size}, in {constants.HF_HUB_CACHE}",
    }
    if not get_token():
        section["login"] = "no token: hf auth login, or set HF_TOKEN, to push or to read private models"
        return section
    source = "HF_TOKEN" if os.environ.get("HF_TOKEN") else constants.HF_TOKEN_PATH
    section["login"] = f"{_find_user()}, by the token in {source}"
    return section


def _find_user() -> str:
    """Return the name of the user that the token belongs to, or why it is unknown. No error is quoted."""
    from huggingface_hub import HfApi, errors

    try:
        return str(HfApi().whoami()["name"])
    except errors.HfHubHTTPError:
        return "nobody: the Hub does not accept the token"
    except Exception:  # no network; its message may quote the request
        return "unknown, because the Hub could not be reached"


def find_extras() -> Section:
    """Return the version of each optional package, or how to install it."""
    extras = {}
    for extra, packages in sorted(_requirements().items()):
        if extra and extra not in DEVELOPMENT_EXTRAS:
            versions = {package: _version(package) for package in packages}
            installed = ", ".join(f"{package} {version}" for package, version in versions.items())
            extras[extra] = installed if all(versions.values()) else f"pip install 'revgen[{extra}]'"
    return extras


def _requirements() -> dict[str, list[str]]:
    """Return the names of the packages that each extra of revgen requires; "" is revgen itself."""
    requirements: dict[str, list[str]] = {}
    for line in metadata.requires("revgen") or ():
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra == ['\"]([\w.-]+)['\"]", line)
        if name is not None:
            requirements.setdefault(extra[1] if extra else "", []).append(name[0])
    return requirements


def _version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _total_size(paths: list[Path]) -> str:
    total = 0
    for path in paths:
        with suppress(OSError):  # removed by another process
            total += path.stat().st_size
    return format_size(total)


COMMANDS = {
    "doctor": Command(
        add_doctor_arguments,
        run_doctor,
        """\
  revgen doctor
  revgen doctor --json""",
    ),
}
