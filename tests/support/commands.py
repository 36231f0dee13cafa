"""Check the commands of containers against the installed command lines: program, subcommand and options exist."""

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path

import click

from tests.support.project import ROOT


def fault(command: Sequence[str]) -> str | None:
    """Return the fault of a container's command, None if program, subcommand and options exist."""
    program, *words = command
    if program == "prefect":
        return _prefect(words)
    if program == "mlflow":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's, about its own type hints
            from mlflow.cli import cli

        return _click(cli, words)
    if program == "python":
        return _module(words)
    if program.startswith("/opt/retune/"):
        script = ROOT / program.removeprefix("/opt/retune/")
        return None if script.stat().st_mode & 0o111 else f"{script} cannot be run"
    return f"unknown program {program}"


def _prefect(words: Sequence[str]) -> str | None:
    from prefect.cli._app import _app

    path, apps, rest = _app.parse_commands(list(words))
    if apps[-1].default_command is None:
        return f"prefect has no command {words}"
    options = {name for argument in apps[-1].assemble_argument_collection() for name in argument.names}
    return _unknown(f"prefect {' '.join(path)}", rest, options, positional=0)


def _click(group: click.Command, words: Sequence[str]) -> str | None:
    name, rest = group.name, list(words)
    while isinstance(group, click.Group):
        if not rest or rest[0] not in group.commands:
            return f"{name} has no command {rest[:1]}"
        group = group.commands[rest.pop(0)]
        name = group.name
    options = {option for parameter in group.params for option in (*parameter.opts, *parameter.secondary_opts) if option.startswith("-")}
    with_value = {
        option for parameter in group.params if isinstance(parameter, click.Option) and not parameter.is_flag for option in parameter.opts
    }
    plain = [word for at, word in enumerate(rest) if not (at and rest[at - 1] in with_value)]
    return _unknown(str(name), plain, options, positional=sum(isinstance(parameter, click.Argument) for parameter in group.params))


def _module(words: Sequence[str]) -> str | None:
    flag, module, *rest = words
    if flag != "-m" or importlib.util.find_spec(module) is None:
        return f"there is no module {module}"
    if module != "mlflow.server.auth":
        return None if Path(f"{ROOT / module.replace('.', '/')}.py").is_file() else f"{module} is not ours"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Starlette's, about an import of MLflow's
        from mlflow.server.auth.cli import commands

    return _click(commands, rest)


def _unknown(name: str, words: Sequence[str], options: set[str], positional: int) -> str | None:
    unknown = [word for word in words if word.startswith("-") and word.split("=")[0] not in options]
    superfluous = [word for word in words if not word.startswith("-")][positional:]
    return f"{name} does not know {unknown + superfluous}" if unknown or superfluous else None
