"""Shell completion, as the shells use it."""

import os
import subprocess

import pytest

from tests.support.project import BIN

pytestmark = pytest.mark.slow
IN_BASH = """eval "$(_RETUNE_COMPLETE=source_bash retune)"
COMP_WORDS=({line}) COMP_CWORD={last}
"$(complete -p retune | sed 's/.*-F \\([^ ]*\\).*/\\1/')" retune
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def printed(command: list[str], **variables: str) -> str:
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"} | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("line", "expected"), [("retune ro", ["rollback"]), ("retune rollback --t", ["--to"])])
def test_bash_completes(line: str, expected: list[str]) -> None:
    script = IN_BASH.format(line=line, last=line.count(" "))

    assert printed(["bash", "--norc", "-c", script]).split() == expected


@pytest.mark.parametrize(("shell", "expected"), [("zsh", '"rollback":"Make'), ("fish", "rollback\tMake")])
def test_other_shells_complete(shell: str, expected: str) -> None:
    script = printed(["retune"], _RETUNE_COMPLETE=f"source_{shell}")
    answer = printed(
        ["retune"], _RETUNE_COMPLETE=f"complete_{shell}", _TYPER_COMPLETE_ARGS="retune ro", _TYPER_COMPLETE_FISH_ACTION="get-args"
    )

    assert f"_RETUNE_COMPLETE=complete_{shell}" in script
    assert expected in answer
