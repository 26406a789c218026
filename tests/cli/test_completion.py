"""``revgen completion``, in a real bash, zsh and fish."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

from revgen.cli import main

SCRIPTS = {"bash": "revgen.bash", "zsh": "_revgen", "fish": "revgen.fish"}
LINES = {
    "revgen eval": {"evaluate"},
    "revgen generate lstm-": {"lstm-char", "lstm-subword", "lstm-word"},
    "revgen generate my-m": {"my-model"},
    "revgen generate lstm-char --temp": {"--temperature"},
    "revgen synthesize lstm-char gru-w": {"gru-word"},
    "revgen serve lstm-char my-model gru-w": {"gru-word"},
    "revgen fit gru-char revi": {"reviews.txt"},
    "revgen fit gru-char reviews.txt revi": {"reviews.txt"},
    "revgen fit gru-char reviews.txt --conf": {"--config"},
    "revgen fit gru-char --config revi": {"reviews.txt"},
    "revgen compare reviews.txt --models gru-w": {"gru-word"},
    "revgen novelty lstm-char reviews.txt --training revi": {"reviews.txt"},
    "revgen evaluate gru-char reviews.txt --documents b": {"blank"},
    "revgen datasets r": {"reviews"},
    "revgen completion ": {"bash", "zsh", "fish"},
}
"""Lines that end with the cursor, and the completions of the last word."""
END = "(end of the matches)"
BASH = f"""
source revgen.bash
for COMP_LINE in "$@"; do
    read -ra COMP_WORDS <<<"$COMP_LINE"
    [[ $COMP_LINE = *' ' ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) COMP_POINT=${{#COMP_LINE}}
    _shtab_revgen
    printf '%s\\n' "${{COMPREPLY[@]}}" '{END}'
done
"""
FISH = f"source revgen.fish; for line in $argv; complete --do-complete $line; echo '{END}'; end"
ZSH = f"""
fpath=($PWD $fpath) PROMPT=
autoload -Uz compinit && compinit -D -u
compadd() {{  # also writes the matches to a file
    if [[ ${{@[1,(i)--]}} != *-[AOD]* ]]; then
        local -a found
        builtin compadd -O found "$@"
        print -rl -- $found >>matches
    fi
    builtin compadd "$@"
}}
zle -C complete complete-word _main_complete
complete-and-clear() {{ zle complete; print -r '{END}' >>matches; BUFFER= }}
zle -N complete-and-clear
bindkey '^I' complete-and-clear
leave() {{ exit }}
zle -N leave
bindkey '^X' leave
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the scripts for all shells, a text and a model directory."""
    directory = tmp_path_factory.mktemp("completion")
    (directory / "my-model").mkdir()
    (directory / "reviews.txt").write_text("a text", "utf-8")
    (directory / ".zshrc").write_text(ZSH, "utf-8")
    for shell, name in SCRIPTS.items():
        with contextlib.redirect_stdout(io.StringIO()) as script:
            assert main(["completion", shell]) == 0
        (directory / name).write_text(script.getvalue(), "utf-8")
    return directory


def complete(shell: str, lines: list[str], directory: Path) -> dict[str, set[str]]:
    """Return what a shell offers for the last word of each line."""
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    if shell == "zsh":
        printed = type_into_zsh("".join(f"{line}\t" for line in lines), directory)
    else:
        program = [BASH, "bash"] if shell == "bash" else [FISH]
        command = [shell, "-c", *program, *lines]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=directory).stdout
    parts = [
        {match.partition("\t")[0].rstrip("/") for match in part.splitlines() if match}
        for part in printed.removesuffix(f"{END}\n").split(f"{END}\n")
    ]
    return dict(zip(lines, parts, strict=True))


def type_into_zsh(text: str, directory: Path) -> str:
    """Return the matches that zsh finds in a terminal, in which a text is typed."""
    matches = directory / "matches"
    matches.unlink(missing_ok=True)
    terminal, tty = pty.openpty()
    os.write(terminal, f"{text}\x18".encode())
    environment = os.environ | {"ZDOTDIR": str(directory), "TERM": "dumb"}
    subprocess.run(
        ["zsh", "-d", "-i"],
        stdin=tty,
        stdout=tty,
        stderr=tty,
        env=environment,
        cwd=directory,
        start_new_session=True,
        check=False,
        timeout=60,
    )
    os.close(terminal)
    os.close(tty)
    return matches.read_text("utf-8")


@pytest.mark.parametrize("shell", SCRIPTS)
def test_shell_completes_commands_models_options_and_files(shell: str, directory: Path) -> None:
    assert complete(shell, list(LINES), directory) == LINES


def test_zsh_completes_each_value_of_an_option_that_takes_several(directory: Path) -> None:
    line = "revgen compare reviews.txt --models gru-char lstm-w"
    assert complete("zsh", [line], directory) == {line: {"lstm-word"}}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_scripts_have_the_names_of_models(shell: str, directory: Path) -> None:
    script = (directory / SCRIPTS[shell]).read_text("utf-8")
    assert "gru-word" in script and "_revgen_models" in script and "evaluate" in script
