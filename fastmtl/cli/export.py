"""`fastmtl export MODEL FOLDER`: the trained model as a folder that `from_pretrained` of Transformers reads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fastmtl.cli.verbs import Arguments


def main(arguments: Sequence[str]) -> int:
    """`fastmtl export`."""
    parser = Arguments(
        "export", "fastmtl export outputs/runs/2026-01-31/12-00-00-000000 my_model",
        "AutoTokenizer and AutoModelForSequenceClassification (of tagging AutoModelForTokenClassification) read it. It "
        "is read again and compared with the trained model before it appears.",
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", help="folder of a run, its result.json, or its finetune artifact")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="to write: new or empty")
    given = parser.parse_args(arguments)

    from fastmtl.reporting.card import model_card
    from fastmtl.training.export import export
    from fastmtl.training.trained import load

    model = load(given.model)
    difference = export(model, given.folder, partial(model_card, model))
    print(f"written to {given.folder}; its logits differ by at most {difference:.1g} from the trained model's")
    print("README.md is its model card: fill in the licence before you share it")
    return 0
