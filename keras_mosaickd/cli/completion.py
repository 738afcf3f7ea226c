"""Shell completion of the commands: bash, zsh and fish, from the table of flags."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from keras_mosaickd.cli.commands import COMMANDS
from keras_mosaickd.data.sources.table import SPECS
from keras_mosaickd.errors import console_name
from keras_mosaickd.runs.flag_table import Flag

_WITH_PATHS = ("folder:", "segmentation:")
SHELLS = ("bash", "zsh", "fish")

# Values that are paths, which the shell itself completes.
_PATHS = frozenset(
    "data_dir cache_dir run_dir class_names out weights layer_map flagfile teacher student".split()
)

_BASH = """\
_keras_mosaickd() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command flag= start=
    # bash splits words at "=": --method = kd; zsh does not.
    case $word in
        =) flag=$before word= ;;
        --*=*) flag=${{word%%=*}} start=${{word%%=*}}= word=${{word#*=}} ;;
    esac
    [ "$before" = "=" ] && flag=${{COMP_WORDS[COMP_CWORD-2]}}
    case $1 in
        keras-mosaickd) command=${{COMP_WORDS[1]}}
            if [ "$COMP_CWORD" = 1 ]; then
                COMPREPLY=($(compgen -W "{commands} completion --help --version" -- "$word"))
                return
            fi ;;
        *) command=${{1##*/}} command=${{command#keras-mosaickd-}} ;;
    esac
    command=${{command//_/-}}
    case "$command $flag" in
{values}
        *" --"*) ;;
    esac
    if [ -n "$flag" ]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -P "$start" -f -- "$word"))
        return
    fi
    case $command in
{flags}
        completion) COMPREPLY=($(compgen -W "{shells}" -- "$word")) ;;
    esac
    case ${{COMPREPLY[0]-}} in *=) compopt -o nospace 2>/dev/null ;; esac
}}
complete -o bashdefault -F _keras_mosaickd keras-mosaickd {programs}"""


def script(shell: str) -> str:
    """Returns what ``eval "$(keras-mosaickd completion SHELL)"`` runs.

    Args:
        shell: One of `SHELLS`.
    """
    if shell == "fish":
        return "\n".join(_fish())
    if shell == "zsh":
        # It has no compopt, which leaves the space away after "=" alone.
        bash = _bash().replace("complete -o bashdefault", "complete -o nospace -o bashdefault")
        return f"autoload -Uz bashcompinit && bashcompinit\n{bash}"
    return _bash()


def _values(flag: Flag) -> tuple[str, ...]:
    if flag.kind is bool:
        return ("true", "false")
    if flag.name in ("dataset", "ood", "eval"):
        return tuple(name for name in SPECS if name not in _WITH_PATHS) + _WITH_PATHS
    return flag.choices


def _flags(name: str) -> Iterator[Flag]:
    command = COMMANDS[name]
    yield Flag("flagfile", str, "", "File with one --name=value per line.", "")
    yield from (command.flag(flag) for flag in command.flags)


def _bash() -> str:
    values, flags, programs = [], [], []
    for name in COMMANDS:
        words = []
        for flag in _flags(name):
            words.append(f"--{flag.name}" if flag.kind is bool else f"--{flag.name}=")
            if choices := _values(flag):
                values.append(
                    f'        "{console_name(name)} --{flag.name}") COMPREPLY=($(compgen -W '
                    f'"{" ".join(choices)}" -P "$start" -- "$word")); return ;;'
                )
        flags.append(
            f'        {console_name(name)}) COMPREPLY=($(compgen -W "{" ".join(words)}" '
            '-- "$word")) ;;'
        )
        programs += [f"keras-mosaickd-{console_name(name)}", f"bin/{name}"]
    return _BASH.format(
        commands=" ".join(map(console_name, COMMANDS)),
        values="\n".join(values),
        flags="\n".join(flags),
        shells=" ".join(SHELLS),
        programs=" ".join(programs),
    )


def _fish() -> Iterator[str]:
    first = "complete -c keras-mosaickd -n __fish_use_subcommand -x"
    for name, command in COMMANDS.items():
        yield f"{first} -a {console_name(name)} -d {shlex.quote(command.summary)}"
    yield f"{first} -a completion"
    chosen = "__fish_seen_subcommand_from"
    yield f"complete -c keras-mosaickd -n '{chosen} completion' -x -a '{' '.join(SHELLS)}'"
    for name in COMMANDS:
        program = f"keras-mosaickd-{console_name(name)}"
        for start in (
            f"complete -c keras-mosaickd -n '{chosen} {console_name(name)}'",
            f"complete -c {program}",
        ):
            for flag in _flags(name):
                yield f"{start} -l {flag.name} -d {shlex.quote(flag.help)}{_fish_values(flag)}"


def _fish_values(flag: Flag) -> str:
    if flag.kind is bool:
        return ""
    if choices := _values(flag):
        return f" -x -a '{' '.join(choices)}'"
    return " -r" if flag.name in _PATHS else " -x"
