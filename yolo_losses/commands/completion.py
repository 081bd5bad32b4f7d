"""`yolo-losses completion`: shell completion, of this command and of the keys of `yolo train`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable, Mapping
from string import Template

from yolo_losses import registry
from yolo_losses.config.keys import LossKey
from yolo_losses.config.settings import KEYS, declared_parameters, default_keys

HELP = "print a script that completes this command, and keys and losses of `yolo train`, in a shell"
EPILOG = """Write the script to a file that the shell reads. Repeat that after an upgrade: the script
contains the names of the losses.

examples:
  yolo-losses completion bash  append it to ~/.bashrc
  yolo-losses completion zsh   append it to ~/.zshrc
  yolo-losses completion fish  write it to ~/.config/fish/completions/yolo-losses.fish, and to yolo.fish there
"""
TAKES_KEYS = ("compare", "show")  # commands whose words may be `key=value`
TAKES_NAMES = ("list", "show", "config")  # commands whose words may be names of losses

BASH = """
_yolo_losses_values() {
  case "$$1" in
$values
  esac
}
_yolo_losses_words() {
  case "$$1" in
$words
  esac
}
_yolo_losses() {
  local line="$${COMP_LINE:0:COMP_POINT}" current candidates
  current="$${line##*[[:space:]]}"
  if [[ "$$current" == *=* ]]; then
    local value="$${current#*=}" before=""
    [[ "$$value" == *,* ]] && before="$${value%,*},"
    COMPREPLY=($$(compgen -P "$$before" -W "$$(_yolo_losses_values "$${current%%=*}")" -- "$${value##*,}"))
    return
  fi
  if [[ "$${1##*/}" == yolo-losses && "$$COMP_CWORD" -gt 1 ]]; then
    candidates="$$(_yolo_losses_words "$${COMP_WORDS[1]}")"
  else
    candidates="$$(_yolo_losses_words "$${1##*/}")"
  fi
  COMPREPLY=($$(compgen -W "$$candidates" -- "$$current"))
  [[ "$${COMPREPLY[0]}" == *= ]] && compopt -o nospace 2>/dev/null
  return 0
}
complete -F _yolo_losses yolo-losses yolo
"""
ZSH = """
autoload -Uz compinit && (( $$+functions[compdef] )) || compinit
_yolo_losses_values() {
  case "$$1" in
$values
  esac
}
_yolo_losses_words() {
  case "$$1" in
$words
  esac
}
_yolo_losses() {
  local current="$$PREFIX" name="$${words[1]:t}"
  if [[ "$$current" == *=* ]]; then
    compset -P '*[=,]'
    compadd -S '' -- $${(z)"$$(_yolo_losses_values "$${current%%=*}")"}
    return
  fi
  [[ "$$name" == yolo-losses && $$CURRENT -gt 2 ]] && name="$${words[2]}"
  local -a candidates=($${(z)"$$(_yolo_losses_words "$$name")"})
  compadd -- $${candidates:#*=}
  compadd -S '' -- $${(M)candidates:#*=}
}
compdef _yolo_losses yolo-losses yolo
"""
FISH = """
function __yolo_losses_values
  switch $$argv[1]
$values
  end
end
function __yolo_losses_words
  switch $$argv[1]
$words
  end
end
function __yolo_losses
  set -l current (commandline -ct)
  set -l before (commandline -opc)
  if string match -q '*=*' -- $$current
    set -l given (string replace -r '[^=,]*$$' '' -- $$current)
    for value in (__yolo_losses_values (string split -m1 = -- $$current)[1] | string split ' ')
      echo $$given$$value
    end
    return
  end
  set -l name (basename $$before[1])
  if test $$name = yolo-losses -a (count $$before) -gt 1
    set name $$before[2]
  end
  __yolo_losses_words $$name | string split ' '
end
complete -c yolo-losses -f -a '(__yolo_losses)'
complete -c yolo -f -a '(__yolo_losses)'
"""
SHELLS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("shell", choices=SHELLS)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    with contextlib.redirect_stdout(
        sys.stderr
    ):  # the first import of Ultralytics by a user prints where its settings are
        from ultralytics.cfg import MODES, TASKS
        from ultralytics.utils import DEFAULT_CFG_DICT

    from yolo_losses.commands import parser as command_line

    keys = [f"{key}=" for key in dict.fromkeys([*default_keys(), *DEFAULT_CFG_DICT])]
    names = [registry.page_name(spec.kind, spec.name) for spec in registry.specs()]
    words = {"yolo": [*sorted(TASKS), *sorted(MODES), *keys]}
    subcommands = next(a for a in command_line()._actions if isinstance(a, argparse._SubParsersAction)).choices
    words["yolo-losses"] = [*subcommands, "--help", "--version"]
    for name, sub in subcommands.items():
        options = [option for action in sub._actions for option in action.option_strings if option.startswith("--")]
        choices = [str(word) for action in sub._actions if not action.option_strings for word in action.choices or ()]
        extra = [*(names if name in TAKES_NAMES else []), *(keys if name in TAKES_KEYS else [])]
        words[name] = [*choices, *options, *extra]
    case = _fish_case if args.shell == "fish" else _case
    print(Template(SHELLS[args.shell]).substitute(values=case(values()), words=case(words)).strip())
    return 0


def values() -> dict[str, list[str]]:
    """Return the possible values of each key that takes words."""
    found = {}
    for name, key in KEYS.items():
        if isinstance(key, LossKey):
            found[name] = ["stock", *key.words, *(spec.name for spec in registry.specs(key.kind) if key.kind)]
        else:
            found[name] = ["True", "False"] if key.type is bool else list(key.limits.words)
    boxes = registry.specs("box")
    found["box_loss"] += [
        f"{modifier.name}_{base.name}"
        for modifier in registry.specs("modifier")
        for base in boxes
        if modifier.module.fits(base.name, base.rotated)
    ]
    for name, parameter in declared_parameters().items():
        found[name] = ["True", "False"] if parameter.type is bool else list(parameter.limits.words)
    return {name: words for name, words in found.items() if words}


def _case(table: Mapping[str, Iterable[str]]) -> str:
    return "\n".join(f'    {name}) echo "{" ".join(words)}" ;;' for name, words in table.items())


def _fish_case(table: Mapping[str, Iterable[str]]) -> str:
    return "\n".join(f"    case {name}\n      echo '{' '.join(words)}'" for name, words in table.items())
