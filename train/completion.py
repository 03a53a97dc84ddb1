"""``python -m train completion``: a script that lets bash and zsh complete the trainer's commands."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from models.games import GAMES
from train.recipes import profiles
from train.run.config import run_config

SHELLS = ("bash", "zsh")
OWN = ("--preset", "--resume", "--other-data", "--dry-run", "--help")  # of a game's command line, beside its fields

# Words that begin a command of ours are looked at; any other command of python completes file names as before.
SCRIPT = """\
_otkernels_train() {
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words="" first=3
    COMPREPLY=()
    if [[ ${COMP_WORDS[1]} != -m || ${COMP_WORDS[2]} != train ]]; then return; fi
    if (( COMP_CWORD == first )); then
        words="@COMMANDS@"
    else
        case "${COMP_WORDS[first]} $before" in
@VALUES@
        esac
        if [[ -z $words && $current == -* ]]; then
            case "${COMP_WORDS[first]}" in
@FIELDS@
            esac
        fi
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _otkernels_train python python3
"""


def completion_main(argv: Sequence[str]) -> None:
    """Print the script for the shell that ``argv`` names; ValueError for another."""
    if len(argv) != 1 or argv[0] not in SHELLS:
        raise ValueError(f"completion: of which shell? one of {', '.join(SHELLS)}, got {' '.join(argv) or 'none'}")
    if argv[0] == "zsh":
        print("autoload -U +X bashcompinit && bashcompinit")
    print(script(), end="")


def script() -> str:
    """The completion for bash: games and commands, a game's fields, and the values of those that have a few."""
    from train.__main__ import COMMANDS

    fields, values = [], []
    for game in GAMES:
        known = dict(options(run_config(game)))
        fields.append(f'                {game}) words="{" ".join([*OWN, *known])}";;')
        choices = {"--preset": profiles(game), **{name: given for name, given in known.items() if given}}
        values += [f'            "{game} {name}") words="{" ".join(given)}";;' for name, given in choices.items()]
    commands = " ".join([*GAMES, "list", *COMMANDS])
    parts = {"@COMMANDS@": commands, "@VALUES@": "\n".join(values), "@FIELDS@": "\n".join(fields)}
    text = SCRIPT
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return text


def options(kind: type, prefix: str = "--") -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each option that a config class has on the command line, with its values where there are a few to choose from."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name, hint = prefix + field.name.replace("_", "-"), hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from options(hint, f"{name}.")  # type: ignore[arg-type]
        elif hint is bool:
            yield name, ()
            yield f"{prefix}no-{field.name.replace('_', '-')}", ()
        else:
            yield name, _choices(hint)


def _choices(hint: Any) -> tuple[str, ...]:
    return tuple(map(str, get_args(hint))) if get_origin(hint) is Literal else ()
