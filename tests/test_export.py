"""An exported folder gives the trained model's tokens and logits through Transformers alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
import yaml
from pandas.testing import assert_frame_equal
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

import fastmtl
from fastmtl.cli.compose import compose
from fastmtl.cli.main import main
from fastmtl.data.collate import collate
from fastmtl.errors import UserError
from fastmtl.models.bilstm import BiLSTMSpec
from fastmtl.models.encoder import EncoderSpec, sha256_of
from fastmtl.tasks import TaskSpec
from fastmtl.training.export import export
from fastmtl.training.trained import Model, token_rows
from tests.helpers.cells import SMALL
from tests.helpers.models import TASKS, finetuned, texts

BATCH = 25


def stock(folder: Path, words: bool = False) -> Any:
    """The model as any program reads it; weights are copied, for a file's lie in memory where they happen to.

    A product of one row differs in its last bit with the alignment of the weights, in any model.
    """
    kind = AutoModelForTokenClassification if words else AutoModelForSequenceClassification
    model = kind.from_pretrained(folder).eval()
    for weights in model.parameters():
        weights.data = weights.data.clone()
    return model


@torch.inference_mode()
def both(model: Model, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of 100 rows by the trained model and by what `from_pretrained` gives, tokens compared on the way."""
    task, again = model.task, AutoTokenizer.from_pretrained(folder)
    words, spec, given = task.kind == "tagging", model.inner.encoder.spec, texts(model.task)
    read, ours, theirs = stock(folder, words), [], []
    for start in range(0, len(given), BATCH):
        part = given[start : start + BATCH]
        rows = token_rows(part, task, spec)
        batch = collate(rows, np.arange(len(rows)), again.pad_token_id)
        columns = [[*column] for column in zip(*part)] if len(task.text) == 2 else [part]
        tokens = again(*columns, padding=True, truncation=True, is_split_into_words=words, return_tensors="pt")
        for name in tokens:
            assert torch.equal(tokens[name], batch[name]), name
        real = batch["attention_mask"].bool() if words else slice(None)
        ours.append(model.inner(batch, task.name)[real])
        theirs.append(read(**tokens).logits[real])
    return torch.cat(ours), torch.cat(theirs)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("pooling", ["cls", "pooler", "mean"])
def test_logits_are_those_of_the_trained_model(tmp_path: Path, name: str, pooling: Any) -> None:
    """Bit for bit, but for a mean, whose sums are in another order; some rows are cut at `max_length`."""
    model = fastmtl.load(finetuned(tmp_path / "own", TASKS[name], EncoderSpec("tiny", pooling, max_length=24)))
    export(model, tmp_path / "out")
    ours, theirs = both(model, tmp_path / "out")
    assert ours.std() > 0.1
    if pooling == "mean" and name != "parts":
        assert (ours - theirs).abs().max() < 2e-6 * ours.abs().max()
    else:
        assert torch.equal(ours, theirs)


def test_minilm_is_exported_with_its_mean(tmp_path: Path) -> None:
    model = fastmtl.load(finetuned(tmp_path / "own", TASKS["tickets"], EncoderSpec("minilm", "mean")))
    export(model, tmp_path / "out")
    ours, theirs = both(model, tmp_path / "out")
    assert (ours - theirs).abs().max() < 2e-6 * ours.abs().max()
    given = texts(model.task, 5)
    assert_frame_equal(fastmtl.load(tmp_path / "out").predict(given), model.predict(given))


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 40}
PLACES = {"max_position_embeddings": 60, "pad_token_id": 1}
FAMILIES = {
    "roberta": transformers.RobertaConfig(**SIZES, **PLACES),
    "xlm-roberta": transformers.XLMRobertaConfig(**SIZES, **PLACES),
    "mpnet": transformers.MPNetConfig(**SIZES, **PLACES),
    "albert": transformers.AlbertConfig(**SIZES, **PLACES, embedding_size=16),
    "deberta-v2": transformers.DebertaV2Config(**SIZES, **PLACES, pooler_hidden_size=32),
    "electra": transformers.ElectraConfig(**SIZES, **PLACES, embedding_size=16),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=40, dim=32, n_layers=2, n_heads=2, hidden_dim=48, pad_token_id=1
    ),
}
LETTERS = {word: code for code, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"])}


def letters() -> tokenizers.Tokenizer:
    """A token a letter."""
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(LETTERS, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.WhitespaceSplit(), tokenizers.pre_tokenizers.Split("", "isolated")]
    )
    return backend


def byte_level() -> tokenizers.Tokenizer:
    """As RoBERTa's: the blank before a word is a part of it."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({**LETTERS, "\u0120": len(LETTERS)}, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return backend


def encoder_folder(folder: Path, family: str, backend: tokenizers.Tokenizer | None = None) -> str:
    """A random encoder with a tokenizer, as a user's own folder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModel.from_config(FAMILIES[family]).save_pretrained(folder)
    backend = backend or letters()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    named = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **named).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("family", "pooling", "name"),
    [
        *((family, pooling, "pairs") for family in ("roberta", "mpnet", "albert") for pooling in ("cls", "pooler")),
        ("roberta", "mean", "pairs"),
        ("xlm-roberta", "cls", "pairs"),
        ("deberta-v2", "cls", "pairs"),
        *((family, "cls", "parts") for family in FAMILIES),
    ],
)
def test_other_families(tmp_path: Path, family: str, pooling: Any, name: str) -> None:
    """What is read back here is the same too: some have weights elsewhere in the classes of Transformers."""
    spec = EncoderSpec(encoder_folder(tmp_path / "encoder", family), pooling, max_length=40)
    model = fastmtl.load(finetuned(tmp_path / "own", TASKS[name], spec))
    export(model, tmp_path / "out")
    ours, theirs = both(model, tmp_path / "out")
    if pooling == "mean":
        assert (ours - theirs).abs().max() < 2e-6 * ours.abs().max()
    else:
        assert torch.equal(ours, theirs)
    given = texts(model.task, 20)
    assert_frame_equal(fastmtl.load(tmp_path / "out").predict(given), model.predict(given))


def test_tokens_that_differ_are_noticed(tmp_path: Path) -> None:
    """With a byte-level tokenizer Transformers reads words without the blanks between them."""
    spec = EncoderSpec(encoder_folder(tmp_path / "encoder", "roberta", byte_level()), "cls", max_length=40)
    model = fastmtl.load(finetuned(tmp_path / "own", TASKS["parts"], spec))
    with pytest.raises(UserError, match="cannot be exported: AutoTokenizer gives other tokens"):
        export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_no_class_computes_is_refused(tmp_path: Path) -> None:
    electra = EncoderSpec(encoder_folder(tmp_path / "electra", "electra"), "cls", max_length=40)
    mpnet = EncoderSpec(encoder_folder(tmp_path / "mpnet", "mpnet"), "mean", max_length=40)
    for number, spec in enumerate((electra, mpnet, BiLSTMSpec(tokenizer="tiny", hidden_size=8))):
        model = fastmtl.load(finetuned(tmp_path / f"own{number}", TASKS["tickets"], spec))
        with pytest.raises(UserError, match=r"cannot be exported.*pooled feature; of type bert.* it could"):
            export(model, tmp_path / "out")
    many = TaskSpec("many", "classification", ("text",), tuple(f"label {i}" for i in range(40)))
    model = fastmtl.load(finetuned(tmp_path / "many", many, EncoderSpec("tiny", "mean")))
    with pytest.raises(UserError, match="40 labels cannot be exported; 96 units are too few"):
        export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_as_many_labels_as_there_is_room_for(tmp_path: Path) -> None:
    many = TaskSpec("many", "classification", ("text",), tuple(f"label {i}" for i in range(36)))
    model = fastmtl.load(finetuned(tmp_path / "many", many, EncoderSpec("tiny", "mean")))
    export(model, tmp_path / "out")
    ours, theirs = both(model, tmp_path / "out")
    assert (ours - theirs).abs().max() < 2e-6 * ours.abs().max()


def test_logits_that_differ_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every export is compared; nothing of a failed one stays."""
    from fastmtl.training import export as module

    def wrong(model: Any, task: Any) -> Any:
        made = right(model, task)
        made.classifier.weight.data[0, 0] *= 1.001
        return made

    right = module.stock_model
    monkeypatch.setattr(module, "stock_model", wrong)
    model = fastmtl.load(finetuned(tmp_path / "own", TASKS["tickets"], EncoderSpec("tiny", "pooler")))
    with pytest.raises(UserError, match="logits differ"):
        export(model, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_configuration_names_labels_and_problem(tmp_path: Path) -> None:
    wanted = {"tickets": "single_label_classification", "stars": "regression", "parts": None}
    for name, problem in wanted.items():
        task = TASKS[name]
        export(fastmtl.load(finetuned(tmp_path / f"own {name}", task, EncoderSpec("tiny", "cls"))), tmp_path / name)
        config = stock(tmp_path / name, name == "parts").config
        labels = list(task.labels or [name])
        assert [config.id2label[code] for code in range(config.num_labels)] == labels
        assert config.label2id == {label: code for code, label in enumerate(labels)}
        assert config.problem_type == problem
        assert str(tmp_path) not in (tmp_path / name / "config.json").read_text()


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    own = finetuned(tmp_path / "own", TASKS["tickets"], EncoderSpec("tiny", "cls"))
    (tmp_path / "empty").mkdir()
    export(fastmtl.load(own), tmp_path / "empty")
    with pytest.raises(UserError, match="is there already; name a new folder"):
        export(fastmtl.load(own), tmp_path / "empty")


def test_neither_pickles_nor_code_of_a_folder_are_read(tmp_path: Path) -> None:
    own = finetuned(tmp_path / "own", TASKS["tickets"], EncoderSpec("tiny", "cls"))
    folder = tmp_path / "out"
    export(fastmtl.load(own), folder)
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: ...\nclass Model: ...\n")
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": code}))
    with pytest.raises(UserError, match="could not be loaded"):
        fastmtl.load(folder)
    assert not (tmp_path / "ran").exists()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        fastmtl.load(folder)


@pytest.mark.usefixtures("own_environment")
def test_the_card_has_data_selection_scores_and_hashes(
    tmp_path: Path, session_output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exp = compose(
        *SMALL, "selection=random", "budget=40", "finetune.fit.precision=fp32", f"paths.output={session_output}"
    )
    result = fastmtl.record(exp, command="fastmtl selection=random")
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert main(["export", str(tmp_path), str(tmp_path / "out")]) == 0
    assert "logits differ by at most" in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "license": None, "library_name": "transformers", "pipeline_tag": "text-classification", "tags": ["fastmtl"],
    }  # fmt: skip
    assert "40 auxiliary rows, chosen by `random` under a budget of 40; seed 0." in body
    assert f"`{sha256_of(tmp_path / 'out' / 'model.safetensors')}`" in body
    assert f"| artifact finetune | `{exp.finetune().key}` |" in body
    assert "`fastmtl selection=random`" in body
    assert str(session_output) not in body
    (line,) = (line for line in body.splitlines() if line.startswith("| validation | accuracy |"))
    _, _, _, score, interval, rows, _ = (part.strip() for part in line.split("|"))
    low, high = map(float, interval.split(" to "))
    p, n = result["metrics"]["validation"]["accuracy"], int(rows)
    assert float(score) == pytest.approx(p, abs=5e-4)
    assert n == result["validation_rows"]
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(p * (1 - p) / n), rel=0.15)


@pytest.mark.usefixtures("own_environment")
def test_wrong_arguments_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", str(tmp_path), str(tmp_path / "out")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is not a trained model; give the folder of a run" in error


def test_an_exported_folder_can_be_exported_again(tmp_path: Path) -> None:
    spec = replace(EncoderSpec("tiny", "mean"), max_length=24)
    export(fastmtl.load(finetuned(tmp_path / "own", TASKS["pairs"], spec)), tmp_path / "one")
    export(fastmtl.load(tmp_path / "one"), tmp_path / "two")
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
