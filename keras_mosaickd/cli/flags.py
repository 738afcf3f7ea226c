"""Every flag of every command, defined once, and the flagfiles that hold them.

A command accepts only the flags that it uses (`COMMANDS`). Parsing imports neither Keras nor numpy,
so that ``--help`` and a mistyped flag answer at once. The flags live in a private ``FlagValues``:
flags that other packages define are neither accepted nor saved.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from keras_mosaickd.cli.commands import COMMANDS
from keras_mosaickd.config import own_teacher_defaults, recipe_defaults
from keras_mosaickd.errors import InputError, did_you_mean, program
from keras_mosaickd.files import read_text
from keras_mosaickd.run_directory import field_name
from keras_mosaickd.runs.flag_table import FLAGS, Flag

# How a run behaves towards the person who started it; they are not part of what is computed.
_NEVER_SAVED = frozenset({"help", "helpfull", "version", "traceback", "dry_run"})
_LONGEST_NAME = 100


class _NumberParser(absl_flags.ArgumentParser[Any]):
    """A number in the flag's range; absl's own comparison lets NaN pass any bound."""

    def __init__(self, flag: Flag):
        self.flag = flag
        # absl's knows hexadecimal numbers.
        self.number = absl_flags.IntegerParser().convert if flag.kind is int else float

    def parse(self, argument: Any) -> Any:
        try:
            value = self.number(argument)
            if self.flag.allows(value):
                return value
        except (TypeError, ValueError, OverflowError):
            pass
        raise ValueError(f"expected {self.flag.expectation()}")


class _TextParser(absl_flags.ArgumentParser[str]):
    """A string that survives a flagfile, whose lines are stripped of white space at both ends.

    A `~` at its beginning, which no shell replaces behind an equals sign, is the home directory.
    """

    def parse(self, argument: Any) -> str:
        value = os.path.expanduser(str(argument))
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("expected text in UTF-8") from None
        if value != value.strip() or "\n" in value or "\r" in value:
            raise ValueError("expected text on one line without white space at its ends")
        return value


class _EnumParser(absl_flags.EnumParser):
    def parse(self, argument: Any) -> str:
        try:
            return super().parse(argument)
        except ValueError:
            meant = did_you_mean(str(argument), self.enum_values)
            raise ValueError(f"expected one of {', '.join(self.enum_values)}{meant}") from None


@dataclass(frozen=True)
class Parsed:
    """The outcome of `parse`.

    Attributes:
        command: Key of `COMMANDS`.
        values: Every flag that the command accepts, with its resolved value.
        flagfiles: The files given with ``--flagfile`` on the command line itself, in order.
        given: Names of the flags that were set, on the command line or in a flagfile.
        arguments: What was given besides flags, in order; only some commands take any.
    """

    command: str
    values: Mapping[str, Any]
    flagfiles: tuple[str, ...] = ()
    given: frozenset[str] = field(default_factory=frozenset)
    arguments: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """Returns the flags that say what is computed: all but help, traceback and dry_run.

        What ``--recipe`` sets and the user did not is resolved here, so that flags.txt holds it.
        """
        recipe = recipe_defaults(self.values)
        saved = {
            name: value if name in self.given else recipe.get(name, value)
            for name, value in self.values.items()
            if name not in _NEVER_SAVED
        }
        return {field_name(name): value for name, value in saved.items()}


def parse(command: str, arguments: Sequence[str]) -> Parsed:
    """Parses the arguments of one command.

    Args:
        command: Key of `COMMANDS`.
        arguments: What follows the program's name; ``--flagfile`` may be anywhere among them.

    Returns:
        The resolved flags. Where a flag is given twice, the later one wins; a flagfile stands
        where its ``--flagfile`` stands.

    Raises:
        InputError: An unknown flag, a value out of its range, a flagfile that cannot be read, or
            an argument that is no flag where the command takes none. The message is one line.
    """
    expanded, flagfiles = expand_flagfiles(arguments)
    values = _define(command)
    for argument in expanded:
        if argument.lstrip("-").startswith("undefok"):  # absl's switch that lets typos pass
            raise InputError(f"expected a known flag. Received: {argument}")
        if argument.startswith("-") and len(argument.partition("=")[0]) > _LONGEST_NAME:
            # absl's search for similar names is recursive.
            raise InputError(f"expected a known flag. Received: {argument[:_LONGEST_NAME]}...")
    try:
        leftovers = values([command, *expanded])[1:]
    except absl_flags.UnrecognizedFlagError as error:
        raise InputError(_unknown(command, error)) from None
    except absl_flags.Error as error:
        message = _one_line(error)
        if message.startswith(
            "Missing value for flag "
        ):  # absl's own words for `--seed` at the end
            message = f"flag {expanded[-1]}: expected a value after it. Received: nothing"
        if match := re.fullmatch(r"flag (--\w+)=(.*): \('Non-boolean argument .*", message):
            message = f"{match[1]}: expected true or false. Received: {match[2]}"
        raise InputError(message) from None
    except ValueError as error:  # absl: --noflag=value
        raise InputError(
            f"expected --noNAME or --NAME=false. Received: {_one_line(error)}"
        ) from None
    if leftovers and not COMMANDS[command].arguments:
        raise InputError(
            f"expected flags only (--name=value). Received: {' '.join(map(repr, leftovers))}"
        )
    resolved = {name: values[name].value for name in COMMANDS[command].flags}
    given = frozenset(name for name in resolved if not values[name].using_default_value)
    return Parsed(command, resolved, flagfiles, given, tuple(leftovers))


def expand_flagfiles(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Replaces each ``--flagfile`` by the lines of its file, nested ones included.

    A nested relative path is looked for beside the file that names it first and in the working
    directory after that (absl knows the latter only), so that a recipe works from any directory.

    Returns:
        The arguments without any ``--flagfile``, and the files that were named directly.
    """
    expanded: list[str] = []
    named: list[str] = []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if argument == "--":
            expanded += [argument, *remaining]
            break
        if argument in ("--flagfile", "-flagfile"):
            if not remaining:
                raise InputError("expected a file after --flagfile. Received: nothing")
            argument = f"--flagfile={remaining.pop(0)}"
        path = _flagfile_of(argument)
        if path is None:
            expanded.append(argument)
        else:
            named.append(path)
            expanded += _read_flagfile(Path(path).expanduser(), ())
    return expanded, tuple(named)


def _flagfile_of(argument: str) -> str | None:
    name, separator, value = argument.partition("=")
    return value.strip() if separator and name in ("--flagfile", "-flagfile") else None


def _read_flagfile(path: Path, parents: tuple[Path, ...]) -> list[str]:
    where = f" (named in {parents[-1]})" if parents else ""
    if path.resolve() in {parent.resolve() for parent in parents}:
        raise InputError(f"expected --flagfile without a circle. Received: {path}{where}")
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(
            f"expected --flagfile to be a readable file: {reason}. Received: {path}{where}"
        ) from None
    arguments: list[str] = []
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line.startswith(("#", "//")):
            continue
        if not line.startswith("-") or line == "--":
            raise InputError(f"expected --name=value in {path}, line {number}. Received: {line!r}")
        if line in ("--flagfile", "-flagfile"):
            raise InputError(f"expected --flagfile=FILE in {path}, line {number}. Received: {line}")
        nested = _flagfile_of(line)
        if nested is None:
            arguments.append(line)
            continue
        beside = path.parent / Path(nested).expanduser()
        chosen = beside if beside.exists() else Path(nested).expanduser()
        arguments += _read_flagfile(chosen, (*parents, path))
    return arguments


def _define(command: str) -> absl_flags.FlagValues:
    values = absl_flags.FlagValues()
    specification = COMMANDS[command]
    for name in specification.flags:
        flag = specification.flag(name)
        if flag.kind is bool:
            short = "h" if name == "help" else None
            absl_flags.DEFINE_boolean(name, flag.default, flag.help, values, short_name=short)
            continue
        parser: absl_flags.ArgumentParser[Any]
        if flag.choices:
            parser = _EnumParser(list(flag.choices))
        elif flag.kind in (int, float):
            parser = _NumberParser(flag)
        else:
            parser = _TextParser()
        absl_flags.DEFINE(
            parser, name, flag.default, flag.help, flag_values=values, serializer=None
        )
    return values


def without_domain(parsed: Parsed) -> dict[str, str]:
    """Returns the setting of ``--dataset`` where a teacher of the user's own stands without it.

    Raises:
        InputError: No images to learn from were given with it.
    """
    names = parsed.given | ({"teacher", "method"} & set(parsed.values))
    return own_teacher_defaults({name: parsed.values[name] for name in names})


def _unknown(command: str, error: absl_flags.UnrecognizedFlagError) -> str:
    name = error.flagname
    known = name.removeprefix("no") if name.removeprefix("no") in FLAGS else name
    if known in FLAGS:
        return f"--{known} is a flag of other commands; {program(command)} does not use it"
    meant = did_you_mean(f"--{name}", [f"--{known}" for known in COMMANDS[command].flags])
    return f"expected a known flag. Received: --{name}{meant or f'; {program(command)} --help'}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
