"""The files in ``examples/serving``, and the page that shows them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from revgen.cli import build_parser

ROOT = Path(__file__).parents[2]
FILES = ROOT / "examples" / "serving"
PAGE = (ROOT / "docs" / "serving.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "haproxy.cfg", "kubernetes.yaml", "revgen.service"])
def test_the_page_shows_each_file_as_it_is(name: str) -> None:
    assert f"\n{(FILES / name).read_text('utf-8')}```\n" in PAGE


def packages_in(path: str) -> set[str]:
    """Return the packages of all pip commands in a file but the one for revgen itself."""
    text = (ROOT / path).read_text("utf-8").replace("\\\n", " ")
    commands = re.findall(r"pip install --no-compile (?!--no-deps)([^&\n]+)", text)
    return {name for command in commands for name in command.split()}


@pytest.mark.parametrize(
    "file", ["docs/serving.md", "examples/serving/Dockerfile", "examples/serving/space/Dockerfile"]
)
def test_images_have_the_packages_for_inference_and_for_the_server(file: str) -> None:
    inference = packages_in("docs/installation.md")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    server = {re.split(r"[^\w-]", requirement)[0] for requirement in project["optional-dependencies"]["serve"]}

    assert packages_in(file) == inference | server


def assert_command_parses(*arguments: str) -> None:
    """Check that the command line accepts the arguments of ``revgen serve``."""
    parser, _ = build_parser()
    parser.parse_args(["serve", *arguments])


def docker_command(dockerfile: Path) -> list[str]:
    """Return the arguments of ``revgen serve`` in a Dockerfile, without the models."""
    [entry] = re.findall(r'^ENTRYPOINT \["revgen", "serve", (.*)\]$', dockerfile.read_text("utf-8"), re.MULTILINE)
    return re.findall(r'"([^"]+)"', entry)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root, for chroot")
def test_the_image_is_small_and_serves(tmp_path: Path) -> None:
    """Run the commands of the Dockerfile with a copy of this Python in place of /usr/local."""
    python, image = tmp_path / "local" / "bin" / "python3", tmp_path / "image"
    leave_out = shutil.ignore_patterns("test", "site-packages", "__pycache__", "*.a")
    shutil.copytree(sys.base_prefix, tmp_path / "local", symlinks=True, ignore=leave_out)
    libraries = [*tmp_path.glob("local/lib/libpython3.*.so.*"), *tmp_path.glob("local/lib/python3.*/lib-dynload/*.so")]
    subprocess.run(["strip", "--strip-unneeded", *libraries], check=True)  # as those of the base image are
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], check=True)
    [wheel] = tmp_path.glob("*.whl")
    text = (FILES / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    [install, directories, select] = re.findall("^RUN (.+)$", text, re.MULTILINE)
    for old, new in {
        "/usr/local": str(tmp_path / "local"),
        "/image": str(image),
        "pip install": f"{python} -m pip install --quiet",
        "pip uninstall": f"{python} -m pip uninstall --quiet",
        "--no-deps revgen": f"--no-deps {wheel}",
        "useradd revgen &&": "",
        "--owner revgen": "",
    }.items():
        install, directories, select = (command.replace(old, new) for command in (install, directories, select))
    environment = os.environ | {"PIP_CONSTRAINT": str(ROOT / "constraints.txt"), "PIP_ROOT_USER_ACTION": "ignore"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "LD_LIBRARY_PATH": str(tmp_path / "local" / "lib")}
    environment.pop("PYTHONPATH", None)
    prepare = f"{python} -m ensurepip && {python} -m pip uninstall --quiet --yes setuptools"
    for command in (prepare, install, directories, select):
        subprocess.run(["sh", "-ec", command], check=True, env=environment)

    assert sum(path.stat().st_size for path in image.rglob("*") if path.is_file() and not path.is_symlink()) < 200e6
    code = "import revgen, revgen.serve.server; print(revgen.load('lstm-char').generate('the ', max_tokens=5))"
    result = subprocess.run(
        [shutil.which("chroot") or "chroot", image, python, "-c", code],
        env={"LD_LIBRARY_PATH": str(tmp_path / "local" / "lib")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.startswith("the "), result.stderr


def test_replicas_of_compose_run_the_command_and_the_proxy_knows_them() -> None:
    compose: Any = yaml.safe_load((FILES / "compose.yaml").read_text("utf-8"))
    proxy = (FILES / "haproxy.cfg").read_text("utf-8")
    replicas = [name for name in compose["services"] if name != "proxy"]

    assert len(replicas) == 2
    for name in replicas:
        assert_command_parses(*docker_command(FILES / "Dockerfile"), *compose["services"][name]["command"])
        assert f"server {name} {name}:8000" in proxy
    assert {*compose["services"]["proxy"]["depends_on"]} == {*replicas}


def test_kubernetes_runs_the_command_and_finds_its_pods() -> None:
    deployment, service = yaml.safe_load_all((FILES / "kubernetes.yaml").read_text("utf-8"))
    pod = deployment["spec"]["template"]
    [container] = pod["spec"]["containers"]

    assert_command_parses(*docker_command(FILES / "Dockerfile"), *container["args"])
    assert service["spec"]["selector"] == pod["metadata"]["labels"] == deployment["spec"]["selector"]["matchLabels"]
    assert container["ports"] == [{"name": "http", "containerPort": 8000}]
    assert service["spec"]["ports"][0]["targetPort"] == "http"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}


def test_the_docker_space_serves_on_the_port_that_it_announces() -> None:
    front_matter = yaml.safe_load((FILES / "space" / "README.md").read_text("utf-8").split("---")[1])
    arguments = docker_command(FILES / "space" / "Dockerfile")

    assert_command_parses(*arguments, "lstm-char")
    assert front_matter["sdk"] == "docker"
    assert arguments[arguments.index("--port") + 1] == str(front_matter["app_port"])


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = (FILES / "revgen.service").read_text("utf-8")
    [command] = re.findall(r"^ExecStart=/opt/revgen/bin/revgen serve (.+)$", unit, re.MULTILINE)
    assert_command_parses(*command.split())
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    path = tmp_path / "revgen.service"
    path.write_text(unit.replace("/opt/revgen/bin/revgen", sys.executable), "utf-8")

    result = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)

    assert result.returncode == 0 and str(path.name) not in result.stderr, result.stderr


def test_haproxy_accepts_its_configuration() -> None:
    if (haproxy := shutil.which("haproxy")) is None:
        pytest.skip("needs HAProxy")

    result = subprocess.run([haproxy, "-c", "-f", FILES / "haproxy.cfg"], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
