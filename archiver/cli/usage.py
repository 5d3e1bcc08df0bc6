"""What is wrong with a command line, told as every other mistake is: what must be, and the next step. click's own words speak of
invalid values, and quote them as Python does.
"""

from __future__ import annotations

import ast
import re

import click


def told(error: click.ClickException) -> tuple[str, str]:
    """What is wrong, and what to do."""
    context = getattr(error, "ctx", None)
    # click's parser does not say whose option it was reading.
    hint = f"`{context.command_path if context is not None else 'archiver COMMAND'} --help` shows what it takes"
    match error:
        case click.exceptions.NoArgsIsHelpError() if isinstance(error.ctx.command, click.Group):
            return f"a command must follow: {' or '.join(error.ctx.command.commands)}", hint
        case click.NoSuchOption():
            near = f"; did you mean {' or '.join(sorted(error.possibilities))}?" if error.possibilities else ""
            return f"no such option {error.option_name}{near}", hint
        case click.MissingParameter() if error.param is not None:
            return f"{_name(error)} is missing: must be {_what(error.param)}", hint
        case click.BadOptionUsage():
            return f"{error.option_name} {_of_option(error.message)}", hint
        case click.BadParameter():
            return f"{_name(error)} {_must_be(error)}", hint
    message = error.format_message()
    if further := re.fullmatch(r"Got unexpected extra arguments? \((.*)\)", message, re.DOTALL):
        return f"there must be no further argument: {further[1]}", hint
    return message, hint


def _name(error: click.BadParameter) -> str:
    if isinstance(error.param_hint, str):
        return error.param_hint
    if isinstance(error.param, click.Option):
        return max(error.param.opts, key=len)
    return error.param.human_readable_name if error.param is not None else "a value"


def _of_option(message: str) -> str:
    return "must have no value" if "does not take a value" in message else "must have a value"


def _what(param: click.Parameter) -> str:
    kind = _kind(param.type)
    name = (param.metavar or param.type.name).upper()
    about = f" ({param.help.rstrip('.')})" if isinstance(param, click.Option) and param.help else ""
    return f"{kind or name}{about}"


def _kind(type_: click.ParamType) -> str:  # type: ignore[type-arg]
    """What a value of one of click's own types is; empty for ours, which say it themselves."""
    match type_:
        case click.Choice():
            *others, last = [str(choice) for choice in type_.choices]
            return f"{', '.join(others)} or {last}" if others else last
        case click.IntRange():
            least = f" from {type_.min}" if type_.min is not None and type_.max is not None else ""
            least = least or (f" of at least {type_.min}" if type_.min is not None else "")
            return f"a whole number{least}" + (f" to {type_.max}" if type_.max is not None else "")
        case click.types.IntParamType():
            return "a whole number"
        case click.Path():
            what = "a folder" if not type_.file_okay else "a file" if not type_.dir_okay else "a path"
            return f"{what} that exists" if type_.exists else f"{what} that can be read" if type_.readable else what
    return ""


_QUOTED = re.compile(r"""'(?:[^'\\]|\\.){0,300}'|"(?:[^"\\]|\\.){0,300}"|(?<![\d-])-?\d+(?= is not in the range)""")


def _must_be(error: click.BadParameter) -> str:
    kind = _kind(error.param.type) if error.param is not None else ""
    # Not from click: it says what must be, and has quoted the value.
    if not kind or re.search(r"\bmust\b", error.message):
        return error.message
    quoted = _QUOTED.search(error.message)
    value = f'"{ast.literal_eval(quoted[0])}" ' if quoted else ""
    return f"{value}must be {kind}"
