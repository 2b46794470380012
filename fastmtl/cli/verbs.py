"""The verbs of `fastmtl`, its help on one screen, and how the arguments of a verb are read."""

from __future__ import annotations

import argparse
import textwrap
from typing import NoReturn

VERBS = {
    "verdict": ("verdict", "which auxiliary rows help your task: chosen ones, any, all or none"),
    "predict": ("predict", "labels for the rows of a file, by a trained model"),
    "export": ("export", "a trained model as a folder that Transformers reads, with a model card"),
    "report": ("report", "the page, tables and figures of a study"),
    "status": ("sweep", "which cells of a sweep are done, running or failed"),
    "tune": ("tune", "a search for hyper-parameters, on rows that may be chosen on"),
    "relations": ("relations", "every task alone and in every pair: which one helps which"),
    "doctor": ("doctor", "what this machine has, and what is missing"),
    "gc": ("gc", "what may be removed: artifacts that no result needs, remains of killed runs"),
    "help": ("explain", "what a key means, its default and its choices: fastmtl help budget"),
    "completion": ("completion", 'for the shell: eval "$(fastmtl completion bash)", or zsh'),
}
"""Verb -> its module in this folder, imported only when it is used, and what it is for."""

_LINES = "\n".join(f"  {verb:11}{about}" for verb, (_, about) in VERBS.items())

OVERVIEW = f"""\
fastmtl finds auxiliary rows that help a small primary task, trains on them, and says what it cost.

  fastmtl                                        one run: generated rows, a small pretrained encoder
  fastmtl data=files data.config=tasks.yaml primary=tickets budget=0.1     one run on your own files
  fastmtl -m selection=none,random,feature_similarity 'seed=range(3)'      a sweep, with its report

Verbs, each with a --help of its own:
{_LINES}

The keys of the configuration are listed by fastmtl help. --cfg job prints that of a command without
running it, --config-dir DIR adds options of your own, --hydra-help shows what else Hydra offers.
To read more: README.md, docs/, and experiments/ for what was measured."""


class Arguments(argparse.ArgumentParser):
    """The arguments of a verb; what is wrong with them is one line.

    Args:
        verb: Its name in `VERBS`.
        example: A command that makes sense.
        more: What it does, in sentences, beyond its line in `VERBS`.
    """

    def __init__(self, verb: str, example: str, more: str = "") -> None:
        about = VERBS[verb][1]
        super().__init__(
            prog=f"fastmtl {verb}",
            description=textwrap.fill(f"{about[0].upper()}{about[1:]}. {more}", 100),
            epilog=f"example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,  # the example on one line, to be copied
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def count(text: str) -> int:
    """The type of an argument that is a number of things."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
