"""`fastmtl export MODEL FOLDER`: the trained model as a folder that `from_pretrained` of Transformers reads."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from fastmtl.cli.messages import in_one_line


def main(arguments: list[str]) -> int:
    """The command line; errors that a user can mend are one line and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="fastmtl export",
        description="Write a trained model, its tokenizer and a model card so that AutoModelForSequenceClassification "
        "(of tagging AutoModelForTokenClassification) and AutoTokenizer of Transformers read them. The folder is read "
        "again and compared before it appears.",
        epilog="example: fastmtl export outputs/runs/2026-01-31/12-00-00-000000 my_model",
    )
    parser.add_argument("model", help="folder of a run, its result.json, or outputs/artifacts/finetune/KEY")
    parser.add_argument("folder", type=Path, help="to write: new or empty")
    given = parser.parse_args(arguments)
    with in_one_line("fastmtl export"):
        from fastmtl.reporting.card import model_card
        from fastmtl.training.export import export
        from fastmtl.training.trained import load

        model = load(given.model)
        difference = export(model, given.folder, partial(model_card, model))
        print(f"written to {given.folder}; logits differ by at most {difference:.1g} from the trained model's")
        print("README.md is its model card: fill in the licence before you share it")
    return 0
