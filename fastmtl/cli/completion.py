"""`fastmtl completion SHELL`: Hydra's completion of keys and values, with the verbs before it."""

from __future__ import annotations

from fastmtl.cli.verbs import VERBS, Arguments

SCRIPT = """\
{zsh}_fastmtl_complete() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}"
  case "${{COMP_WORDS[1]}}" in
    {verbs}) [ "$COMP_CWORD" -gt 1 ] && {{ COMPREPLY=($(compgen -o default -- "$word")); return; }};;
  esac
  local choices="$(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" fastmtl -sc query=bash)"
  [ "$COMP_CWORD" -eq 1 ] && choices="$choices {words}"
  COMPREPLY=($(compgen -o nospace -W "$choices" -- "$word"))
}}
COMP_WORDBREAKS=${{COMP_WORDBREAKS//=}}
complete -o nospace -o default -F _fastmtl_complete fastmtl"""


def main(argv: list[str]) -> None:
    """`fastmtl completion`."""
    parser = Arguments(
        "completion", 'eval "$(fastmtl completion bash)"', "The line belongs into ~/.bashrc or ~/.zshrc."
    )
    parser.add_argument("shell", choices=["bash", "zsh"])
    zsh = "autoload -Uz bashcompinit && bashcompinit\n" if parser.parse_args(argv).shell == "zsh" else ""
    print(SCRIPT.format(zsh=zsh, verbs="|".join(VERBS), words=" ".join(VERBS)))
