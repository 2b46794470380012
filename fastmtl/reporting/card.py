"""The model card of an exported model: what is known of its data, selection, scores and files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmtl.models.encoder import sha256_of
from fastmtl.resampling import resampled_scores
from fastmtl.store import MANIFEST, WEIGHTS
from fastmtl.tasks import TaskSpec

if TYPE_CHECKING:
    from fastmtl.training.trained import Model

BASES = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}
"""Encoders by a name of our own -> their id on the Hub."""

CLASSES = {
    "row": ("SequenceClassification", "text-classification"),
    "words": ("TokenClassification", "token-classification"),
}
"""What a task reads -> the class of Transformers, and what the Hub calls it."""


def model_card(model: Model, exported: Path, difference: float) -> str:
    """Markdown for README.md.

    Args:
        model: The model; what its run's result knows is on the card too.
        exported: The folder of the files.
        difference: Of logits, see `fastmtl.training.export.export`.
    """
    task, spec, result = model.task, model.inner.encoder.spec, model.result
    name, pipeline = CLASSES[task.of_kind.reads]
    base = BASES.get(spec.name, spec.name)
    head = ["license: # fill in: the terms under which you share it", "library_name: transformers"]
    head += [f"pipeline_tag: {pipeline}", "tags: [fastmtl]"]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        head.append(f"base_model: {base}")
    call = {1: "text", 2: "first, second"}[len(task.text)] if name[0] == "S" else "words, is_split_into_words=True"
    means = f"Labels: {', '.join(map(_code, task.labels))}." if task.labels else "It gives a number."
    more = " A word's logits are those of its first token." if name[0] == "T" else ""
    sections = [
        "---\n" + "\n".join(head) + "\n---",
        f"# {_code(task.name)}\n\nA model for {task.kind} of {' and '.join(map(_code, task.text))}. {means}",
        "## Use\n\n```python\n"
        f"from transformers import AutoModelFor{name}, AutoTokenizer\n\n"
        f'model, tokenizer = AutoModelFor{name}.from_pretrained("FOLDER"), AutoTokenizer.from_pretrained("FOLDER")\n'
        f'logits = model(**tokenizer({call}, truncation=True, return_tensors="pt")).logits\n```\n\n'
        f"In float32 or bfloat16.{more} Logits differ by at most {difference:.1g} from those of the trained model "
        "(measured at the export, in float32). `fastmtl.load(FOLDER).predict(texts)` gives labels by name."
        + _on_mean(model),
        _data(model),
        _selection(result),
        _scores(model),
        _files(model, exported),
        "## Licence\n\nTo fill in: the terms of the model, of its base model and of its training data.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _on_mean(model: Model) -> str:
    if model.inner.encoder.spec.pooling != "mean" or model.task.of_kind.reads == "words":
        return ""
    return (
        "\n\nThe last layer was not trained: it averages the states of all tokens, which the class cannot do "
        "otherwise. To train further, start from the fastmtl run; in float16 its constants overflow."
    )


def _data(model: Model) -> str:
    """Rows, and where they come from."""
    manifest, fit = (_read(model.folder / name) for name in (MANIFEST, "fit.json"))
    lines = [f"- Task {_code(model.task.name)}, {model.task.kind}; label column {_code(model.task.label)}."]
    if manifest and (epochs := len(fit.get("epochs", []))):
        rows, plural = manifest["records"]["examples"] / epochs, "s" * (epochs != 1)
        lines.append(f"- Fine-tuned on {rows:,.0f} rows in {epochs} epoch{plural}.")
    if command := model.result.get("command"):
        lines.append(f"- The run: {_code(command)}")
    return "## Data\n\n" + "\n".join(lines)


def _selection(result: Mapping[str, Any]) -> str:
    """Which auxiliary rows came before the primary."""
    if not result:
        return ""
    total = f"{result['auxiliary_rows']:,} auxiliary rows, chosen by {_code(result['selection'])}"
    budget = f" under a budget of {result['budget']:,}" if result["budget"] is not None else ""
    rows = [[_code(name), f"{count:,}", f"{result['candidates'][name]:,}"] for name, count in result["counts"].items()]
    table = _table(["auxiliary task", "rows chosen", "of"], rows) if rows else ""
    return f"## Selection\n\n{total}{budget}; seed {result['seed']}.\n\n{table}".rstrip()


def _scores(model: Model) -> str:
    """Metrics, each with an interval from resampled rows where the predictions are there."""
    files = {"validation": model.folder / "validation.parquet"}
    for stage in model.result.get("stages", []):
        if stage["stage"] == "test":
            files["test"] = Path(stage["path"]) / "test.parquet"
    metrics = {**_read(model.folder / "metrics.json"), **model.result.get("metrics", {})}
    rows = []
    for split, file in files.items():
        for name in model.task.metrics:
            if name in (metrics.get(split) or {}):
                rows.append([split, name, f"{metrics[split][name]:.3f}", *_interval(model.task, name, file)])
    if not rows:
        return ""
    return "## Scores\n\n" + _table(["split", "metric", "score", "95 % interval", "rows"], rows) + (
        "\n\nIntervals are of resampled rows (bootstrap): another seed of training is not in them. With "
        "`protocol=paper` the validation rows have chosen the epoch, too."
    )  # fmt: skip


def _interval(task: TaskSpec, metric: str, file: Path) -> list[str]:
    import pandas

    score = task.of_kind.weighted_score(metric)
    if score is None or not file.exists():
        return ["", ""]
    labels, predictions, rows = task.of_kind.coded(pandas.read_parquet(file).dropna(subset="label"), task)
    scores = resampled_scores(score, labels, predictions[None], np.random.default_rng(0), rows=rows)[0]
    low, high = np.nanquantile(scores, [0.025, 0.975])
    return [f"{low:.3f} to {high:.3f}", f"{len(labels) if rows is None else int(rows.max()) + 1:,}"]


def _files(model: Model, exported: Path) -> str:
    """What identifies weights and data."""
    weights = {"model.safetensors": exported, WEIGHTS: model.folder}
    rows = [[name, _code(sha256_of(folder / name))] for name, folder in weights.items() if (folder / name).exists()]
    stages = {(one["stage"], one["key"]) for one in model.result.get("stages", [])}
    if not stages and (manifest := _read(model.folder / MANIFEST)):
        stages = {(manifest["kind"], manifest["key"])}
    rows += [[f"artifact {kind}", _code(key)] for kind, key in sorted(stages)]
    return "## Hashes\n\n" + _table(["what", "sha256, or key of what it was made from"], rows)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _code(text: Any) -> str:
    """As code in Markdown, also in a table."""
    plain = " ".join(str(text).replace("`", "'").split())
    return f"`{plain}`".replace("|", "\\|")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
