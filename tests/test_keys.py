"""Keys by table: which stages are computed anew when a value of the configuration changes, for every value there is.

No model is built: stages are asked for, and their keys compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fastmtl.cli.compose import build
from fastmtl.data.rows import RowSet
from fastmtl.data.sources import hub
from fastmtl.errors import UserError
from fastmtl.models import encoder
from fastmtl.models.encoder import TokenizerSpec
from fastmtl.pipelines import levels
from fastmtl.pipelines.experiment import Experiment
from fastmtl.pipelines.relations import TaskRelations
from fastmtl.relations.predictor import GainPredictor
from fastmtl.stages.base import Context, Stage
from fastmtl.stages.pool import TokenIds
from tests.helpers.config import all_keys, changed, composed, leaves, options
from tests.helpers.files import three_tasks

READ = ("pool", "leakage")
"""Stages that read rows alone; no other one is built here."""


# --- what a configuration asks for ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """Stands for an artifact that nobody built."""

    kind: str
    key: str
    tasks: int
    hit = True
    path = Path("nowhere")

    def read(self, name: str) -> Any:
        return {"mixing.json": {"ratio": [1] * self.tasks}}[name]


def keys(exp: Experiment) -> dict[str, frozenset[str]]:
    """Kind -> keys of all stages that the experiment and the pipeline of task relations ask for.

    Scores are the row's number modulo seven, and whatever the selection is, two rows of each other task are selected.
    """
    found: dict[str, set[str]] = {}
    real = Context.get
    chosen = np.sort(np.concatenate([exp.pool.rows_of(one)[:2] for one in exp.pool.names if one != exp.primary]))
    takes_rows = "NoAuxiliary" not in str(exp.selection_plan.selector)
    exp.__dict__["_selected"] = chosen if takes_rows else chosen[:0]

    def get(self: Context, stage: Stage, *needs: str) -> Any:
        found.setdefault(stage.kind, set()).add(stage.key)
        return real(self, stage, *needs) if stage.kind in READ else Asked(stage.kind, stage.key, len(exp.tasks))

    def scores(_: Context, shards: Sequence[Any], primary: str) -> tuple[list[RowSet], np.ndarray]:
        read = [shard.rows for shard in shards if primary not in shard.rows]
        return read, np.concatenate([rows.positions[0] % 7 for rows in read]).astype(np.float32)

    with (
        mock.patch.object(Context, "get", get),
        mock.patch.object(levels, "score"),
        mock.patch.object(levels, "read_scores", scores),
    ):
        exp.artifacts("test")
        relations = TaskRelations(exp)
        names = [task.name for task in exp.tasks][:2]
        relations.joint(*names)
        relations.features(names[0])
        with suppress(UserError):  # there is no discriminator, or it does not know all tasks
            relations.affinities(10)
    return {kind: frozenset(some) for kind, some in found.items()}


def pools(exp: Experiment) -> dict[str, frozenset[str]]:
    """The keys of token ids alone, of which all others are made: generated rows are too many to read them here."""
    return {"pool": frozenset(TokenIds(task, TokenizerSpec(exp.encoder)).key for task in exp.tasks)}


def difference(base: tuple[str, ...], key: str, value: str) -> set[str]:
    """Kinds of stages of which other ones are asked for."""
    look = pools if base[0] in ("data=sample", "data=tagging", "data=pile") else keys
    if base not in FOUND:
        FOUND[base] = look(build(changed(base)))
    if key in ("mixing", "logger"):  # options of a group
        cfg = composed(*base, f"{key}={value}")
    else:
        cfg = changed(base, f"+{key}.x={value}" if key == "callbacks" else f"{key}={value}")
    before, after = FOUND[base], look(build(cfg))
    return {kind for kind in {*before, *after} if before.get(kind) != after.get(kind)}


FOUND: dict[tuple[str, ...], dict[str, frozenset[str]]] = {}
"""`keys` of a base, found once."""


# --- data ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with small data of all sources, in which the tests of this module work."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("one", "two"):
        three_tasks(folder / name, changed=name == "two")
        _write_parquet(folder / name, changed=name == "two")
        weight = 1.0 if name == "one" else 2.0
        GainPredictor(("main/size",), (0.0,), (1.0,), (weight,), 0.0).save(folder / f"{name}.json")
        (folder / f"{name}.txt").write_text(f"the 0.1 0.2\n{name} 0.3 0.4\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(hub.HubSource, "read", _of_the_hub)
        patch.setattr(encoder, "_content_id", _content_id)
        _forget()
        yield folder
    _forget()


def _forget() -> None:
    for cached in (hub._hash, CONTENT_ID):
        cached.cache_clear()
    FOUND.clear()


def _of_the_hub(source: hub.HubSource, split: str) -> Iterator[pa.RecordBatch]:
    """Other rows for each data set and revision."""
    return iter(pa.table(_glue(f"{source.dataset} {source.config} {source.revision} {split}")).to_batches())


CONTENT_ID = encoder._content_id


def _content_id(name: str, revision: str | None, *more: Any, **options: Any) -> str:
    """A revision counts, as that of a Hub id does."""
    return f"{CONTENT_ID(name, revision, *more, **options)}@{revision}"


def _write_parquet(folder: Path, changed: bool) -> None:
    for name in ("rte", "mrpc", "wnli"):
        (folder / name).mkdir()
        for split in ("train", "validation"):
            path = folder / name / f"{split}.parquet"
            pyarrow.parquet.write_table(pa.table(_glue(f"{name} {split}" + changed * " changed")), path)


def _glue(text: str) -> dict[str, list[Any]]:
    rows = range(40)
    return {"sentence1": [f"{text} {i}" for i in rows], "sentence2": [f"the {i}" for i in rows],
            "label": [i % 2 for i in rows], "idx": list(rows)}  # fmt: skip


# --- the table -----------------------------------------------------------------------------------------------------

FP32 = tuple(f"{fit}.fit.precision=fp32" for fit in ("proxy", "multitask", "finetune", "bandit", "relations"))
SMALL = ("paths.output=out", "encoder=tiny", "proxy.examples_per_task=10", "budget=5", "scoring.precision=fp32", *FP32)
FILES = ("data=files", "data.config=one/tasks.yaml", "data.primary=alpha", *SMALL)
MAIN = (*FILES, "selection=autosem_feature_similarity", "mixing=autosem_mixing")
RANDOM = (*FILES, "selection=random")
CASCADE = (*FILES, "scoring.cascade=[small,large]", "scoring.levels.small.layers=1", "scoring.audit=3")
BILSTM = (*RANDOM, "encoder=bilstm", "encoder.tokenizer=tiny", "encoder.hidden_size=8")
GLUE = ("data=glue", "data.tasks=[rte,mrpc,wnli]", *SMALL, "selection=random")
PILE_ROWS = ("data.source.primary=rte", "data.source.unrelated=[mrpc]", "data.source.rows=12", "data.source.size=30")
PILE = ("data=pile", "data.root=one", "primary=rte", *PILE_ROWS, "data.source.share=0.4", *SMALL)
PARQUET = ("data=glue_local", "data.root=one", "data.tasks=[rte,mrpc]", *SMALL, "selection=random")

NOTHING: frozenset[str] = frozenset()
REFUSED = frozenset({"refused"})
"""It could change nothing, or would do harm, and so is an error."""


def kinds(text: str) -> frozenset[str]:
    return frozenset(text.split())


PROXY = kinds("proxy scores selection affinities")
BANDIT = kinds("utilities selection")
JOINT = kinds("joint features affinities")
PREPARED = kinds("prepared scores selection")
FINETUNE = kinds("mixing finetune test")
MULTITASK = FINETUNE | {"multitask"}
TRAINED = kinds("multitask finetune test")
"""Without a search for a ratio."""
ROWS = PROXY | BANDIT | JOINT | MULTITASK
ALL = ROWS | {"pool", "leakage"}
MODELS = TRAINED | {"joint", "features"}
"""With a selection that no model takes part in."""
ORDER = kinds("leakage selection joint") | TRAINED
"""What the order of tasks is part of; `joint` is of the first two."""

HARMLESS = ("trainer.", "logger", "paths.", "study", "stage", "selection.name")
"""Starts of the keys that may change nothing: where a cell runs and is kept, and what it is called."""

FIT = {
    "batch_size": "8", "optimizer": "adadelta", "learning_rate": "0.5", "weight_decay": "0.5", "warmup": "0.5",
    "max_grad_norm": "0.5", "precision": "bf16", "dropout": "0.5", "freeze_layers": "1", "freeze_embeddings": "true",
    "layer_decay": "0.5", "probing": "0.5", "pull": "9", "max_steps": "3",
    "callbacks": "{x: {_target_: pytorch_lightning.callbacks.Timer}}",
}  # fmt: skip
DISCRIMINATOR = "{_target_: fastmtl.scoring.discriminator.Discriminator, loss: bce}"

Row = tuple[str, frozenset[str]]
TABLE: dict[tuple[str, ...], dict[str, Row]] = {
    MAIN: {
        **{f"proxy.fit.{key}": (value, PROXY) for key, value in FIT.items()},
        **{f"multitask.fit.{key}": (value, MULTITASK) for key, value in FIT.items()},
        **{f"finetune.fit.{key}": (value, FINETUNE) for key, value in FIT.items()},
        **{f"bandit.fit.{key}": (value, BANDIT) for key, value in FIT.items()},
        **{f"relations.fit.{key}": (value, JOINT) for key, value in FIT.items()},
        "proxy.fit.epochs": ("9", PROXY),
        "multitask.fit.epochs": ("9", MULTITASK),
        "finetune.fit.epochs": ("9", FINETUNE),
        "bandit.fit.epochs": ("9", REFUSED),
        "relations.fit.epochs": ("9", REFUSED),
        "proxy.fit.schedule": ("constant", PROXY),
        "multitask.fit.schedule": ("constant", MULTITASK),
        "finetune.fit.schedule": ("constant", FINETUNE),
        "bandit.fit.schedule": ("linear", BANDIT),
        "relations.fit.schedule": ("constant", JOINT),
        "proxy.fit.early_stopping": ("2", REFUSED),
        "multitask.fit.early_stopping": ("2", REFUSED),
        "finetune.fit.early_stopping": ("2", FINETUNE),
        "bandit.fit.early_stopping": ("2", REFUSED),
        "relations.fit.early_stopping": ("2", REFUSED),
        "proxy.examples_per_task": ("12", PROXY),
        "proxy.cross_fit": ("true", PROXY),
        "proxy.encoder": ("minilm", PROXY | {"pool"}),
        "proxy.tasks": ("[alpha,beta]", PROXY),
        "bandit.policy.batches_per_round": ("3", BANDIT),
        "bandit.policy.validation_rows": ("5", BANDIT),
        "bandit.policy.metric": ("loss", BANDIT),
        "bandit.policy.reward": ("not_worse_than_previous", BANDIT),
        "bandit.policy.prior": ("[3,1]", BANDIT),
        "bandit.policy.primary_prior": ("[3,1]", BANDIT),
        "bandit.policy.decay": ("0.5", BANDIT),
        "bandit.policy.rounds": ("3", REFUSED),
        "bandit.policy.warmup_rounds": ("3", BANDIT),
        "bandit.policy.episode": ("3", BANDIT),
        "bandit.rounds": ("3", BANDIT),
        "bandit.holdout": ("0.3", BANDIT),
        "relations.batches": ("123", JOINT),
        "relations.validation_rows": ("3", JOINT),
        "primary": ("beta", kinds("leakage utilities selection") | MULTITASK),  # one proxy serves every primary
        "data.primary": ("beta", kinds("leakage utilities selection") | MULTITASK),
        "budget": ("6", kinds("selection")),
        "seed": ("1", ROWS),
        "study": ("mine", NOTHING),
        "stage": ("pool", NOTHING),
        "scoring.precision": ("bf16", PROXY - {"proxy"}),
        "scoring.shard_rows": ("7", kinds("scores selection affinities")),
        "scoring.cascade": ("[small,large]", kinds("proxy scores selection affinities")),
        "data.rows_per_task": ("50", ROWS),
        "data.redraw": ("true", REFUSED),  # all of the primary's rows are kept
        "data.leakage": ("report", kinds("utilities selection")),  # beta has a row of alpha's validation split
        "data.config": ("two/tasks.yaml", ALL - {"features"}),  # of alpha, which is as it was
        "data.source.config": ("two/tasks.yaml", ALL - {"features"}),
        "encoder.name": ("minilm", ALL),
        "encoder.pooling": ("cls", ROWS),
        "encoder.max_length": ("16", ALL),
        "encoder.learning_rate": ("0.5", ROWS),
        "encoder.finetune_learning_rate": ("0.5", FINETUNE),
        "multitask.heads": ("per_task", MULTITASK),
        "finetune.keep_selected": ("0.5", FINETUNE),
        "encoder.revision": ("abc", ALL),
        "encoder.layers": ("1", ROWS),
        "selection.name": ("other", NOTHING),
        "selection.scorer.loss": ("bce", PROXY),
        "selection.selector.top": ("1", kinds("selection")),
        "selection.selector.threshold": ("0.7", kinds("selection")),
        "mixing.trials": ("3", kinds("mixing")),
        "mixing.random_starts": ("3", kinds("mixing")),
        "mixing.largest": ("7", kinds("mixing")),
        "mixing.hold": ("steps", kinds("mixing multitask finetune test")),
        "protocol.name": ("paper", BANDIT | MULTITASK),
        "protocol.holdout": ("0.3", BANDIT | MULTITASK),
        "protocol.choose_by": ("accuracy", BANDIT | FINETUNE),
        "trainer.accelerator": ("cpu", NOTHING),
        "trainer.devices": ("2", NOTHING),
        "trainer.strategy": ("fsdp", NOTHING),
        "trainer.accumulate": ("2", NOTHING),
        "trainer.num_nodes": ("2", NOTHING),
        "trainer.launcher": ("srun", NOTHING),
        "trainer.rendezvous": ("'host:29400'", NOTHING),
        "trainer.profiler": ("simple", NOTHING),
        "trainer.checkpoint_minutes": ("3", NOTHING),
        "paths.output": ("elsewhere", NOTHING),
        "paths.keep_weights": ("false", NOTHING),
        "paths.artifacts": ("elsewhere/artifacts", NOTHING),
        "logger.name": ("mine", NOTHING),
        "logger.version": ("mine", NOTHING),
    },
    (*FILES, "selection=autosem", "mixing=autosem_grid"): {"mixing.proposals": ("gp", kinds("mixing"))},
    CASCADE: {  # a level that others follow counts by the rows that it passes on
        "scoring.keep": ("0.5", kinds("scores selection affinities")),
        "scoring.audit": ("9", kinds("scores selection affinities")),
        "scoring.levels.small.layers": ("2", kinds("proxy scores")),
        "scoring.levels.small.encoder": ("minilm", kinds("pool proxy scores")),
        "scoring.levels.small.scorer": (DISCRIMINATOR, kinds("proxy scores")),
        "scoring.levels.small.precision": ("bf16", kinds("scores")),
        "scoring.levels.large.layers": ("1", PROXY),
        "scoring.levels.large.encoder": ("minilm", PROXY | {"pool"}),
        "scoring.levels.large.scorer": (DISCRIMINATOR, PROXY),
        "scoring.levels.large.precision": ("bf16", PROXY - {"proxy"}),
    },
    BILSTM: {
        "encoder.dropout": ("0.5", MODELS),
        "encoder.embedding_size": ("7", MODELS),
        "encoder.embeddings": ("one.txt", MODELS | {"pool", "leakage"}),
        "encoder.finetune_learning_rate": ("0.5", kinds("finetune test")),
        "encoder.hidden_size": ("9", MODELS),
        "encoder.layers": ("1", MODELS),
        "encoder.learning_rate": ("0.5", MODELS),
        "encoder.max_length": ("16", MODELS | {"pool", "leakage"}),
        "encoder.tokenizer": ("minilm", MODELS | {"pool", "leakage"}),
    },
    (*BILSTM, "encoder.embeddings=one.txt"): {"encoder.embeddings": ("two.txt", MODELS | {"pool", "leakage"})},
    RANDOM: {
        "callbacks": ("{_target_: pytorch_lightning.callbacks.Timer}", MODELS),
        "mixing": ("autosem_mixing", MULTITASK),
        "sampling.length_bucket_batches": ("7", TRAINED),
        "selection.scorer": (DISCRIMINATOR, REFUSED),
        "weighting.parts": ("2", TRAINED),
    },
    (*RANDOM, "sampling=bandit"): {
        "sampling.batches_per_round": ("3", TRAINED),
        "sampling.validation_rows": ("3", TRAINED),
        "sampling.metric": ("loss", TRAINED),
        "sampling.reward": ("not_worse_than_previous", TRAINED),
        "sampling.prior": ("[3,1]", TRAINED),
        "sampling.primary_prior": ("[3,1]", TRAINED),
        "sampling.decay": ("0.5", TRAINED),
        "sampling.rounds": ("3", TRAINED),
        "sampling.warmup_rounds": ("3", TRAINED),
        "sampling.episode": ("3", REFUSED),
    },
    (*RANDOM, "sampling=ratio", "sampling.ratios=[1,1,1]"): {
        "sampling.ratios": ("[1,2,1]", TRAINED),
        "sampling.hold": ("passes", TRAINED),
    },
    (*FILES, "data.rows_per_task=50"): {"data.redraw": ("true", ROWS - {"utilities", "mixing"})},
    (*RANDOM, "sampling=temperature"): {"sampling.temperature": ("5", TRAINED)},
    (*RANDOM, "sampling=ucb1"): {"sampling.smoothing": ("0.5", TRAINED)},
    (*RANDOM, "weighting=log_size"): {"weighting.parts": ("3", TRAINED)},
    (*RANDOM, "weighting=pcgrad"): {"weighting.parts": ("3", TRAINED)},
    (*RANDOM, "weighting=upgrad"): {"weighting.parts": ("3", TRAINED)},
    (*RANDOM, "weighting=cagrad"): {"weighting.c": ("0.7", TRAINED), "weighting.parts": ("3", TRAINED)},
    (*RANDOM, "weighting=uncertainty"): {
        "weighting.learning_rate": ("0.5", TRAINED),
        "weighting.parts": ("3", TRAINED),
    },
    (*RANDOM, "weighting=gradnorm"): {
        "weighting.alpha": ("0.7", TRAINED),
        "weighting.learning_rate": ("0.5", TRAINED),
        "weighting.parts": ("3", TRAINED),
    },
    (*FILES, "selection=embedding"): {
        "selection.scorer.method": ("centroid", PREPARED),
        "selection.scorer.targets": ("7", PREPARED),
        "proxy.encoder": ("minilm", PREPARED | {"pool"}),
    },
    (*FILES, "selection=ngram_importance", "selection.scorer.per_ngram=false"): {
        "selection.scorer.buckets": ("77", PREPARED),
        "selection.scorer.smoothing": ("0.5", PREPARED),
        "selection.scorer.per_ngram": ("true", PREPARED),
        "selection.scorer.gumbel": ("true", PREPARED),
    },
    (*FILES, "selection=hand_picked", "selection.selector.tasks=[beta]"): {
        "selection.selector.tasks": ("[gamma]", kinds("selection"))
    },
    (*FILES, "selection=predicted_gain", "selection.predictor=one.json"): {
        "selection.predictor": ("two.json", kinds("utilities selection")),
        "relations.batches": ("123", kinds("joint features utilities selection")),
    },
    (*FILES, "selection=primary_only"): {"selection.both_stages": ("false", TRAINED)},
    GLUE: {
        "data.tasks": ("[rte,wnli,mrpc]", ORDER),
        "data.source.names": ("[rte,wnli,mrpc]", ORDER),
        "data.source.name": ("mine/glue", kinds("pool leakage selection") | MODELS),
        "data.source.revision": ("abc", kinds("pool leakage selection") | MODELS),
    },
    PARQUET: {
        "data.root": ("two", kinds("pool leakage selection") | MODELS - {"test"}),
        "data.source.root": ("two", kinds("pool leakage selection") | MODELS - {"test"}),
        "data.source.names": ("[rte,wnli]", kinds("pool leakage selection joint multitask finetune")),
    },
    PILE: {
        "data.root": ("two", kinds("pool")),
        "data.source.root": ("two", kinds("pool")),
        "data.source.primary": ("wnli", REFUSED),  # `primary` names another one
        "data.source.unrelated": ("[wnli]", kinds("pool")),
        "data.source.share": ("0.5", kinds("pool")),
        "data.source.size": ("25", kinds("pool")),
        "data.source.rows": ("13", kinds("pool")),
        "data.source.validation": ("20", kinds("pool")),
        "data.source.seed": ("1", kinds("pool")),
    },
    ("data=tagging", *SMALL): {"data.source.seed": ("1", kinds("pool"))},
    ("data=sample", *SMALL): {
        "data.source.seed": ("1", kinds("pool")),
        "data.source.share": ("0.4", kinds("pool")),
        "data.source.noise": ("0.1", kinds("pool")),
        "data.source.overlap": ("0.4", kinds("pool")),
        "data.source.size": ("0.5", kinds("pool")),
        "data.source.shift": ("0.6", kinds("pool")),
        "data.source.lookalikes": ("0.1", kinds("pool")),
    },
    (*RANDOM, "logger=none"): {"logger": ("csv", NOTHING)},
    (*RANDOM, "logger=tensorboard"): {
        "logger.default_hp_metric": ("true", NOTHING),
        "logger.name": ("mine", NOTHING),
        "logger.purge_step": ("1", NOTHING),
        "logger.save_dir": ("elsewhere", NOTHING),
    },
    (*RANDOM, "logger=wandb"): {
        "logger.group": ("mine", NOTHING),
        "logger.offline": ("false", NOTHING),
        "logger.project": ("mine", NOTHING),
        "logger.resume": ("never", NOTHING),
        "logger.save_dir": ("elsewhere", NOTHING),
        "logger.settings.console": ("wrap", NOTHING),
        "logger.settings.x_disable_stats": ("false", NOTHING),
    },
}
ROWS_OF_TABLE = [(base, key, *row) for base, rows in TABLE.items() for key, row in rows.items()]


@pytest.mark.parametrize(
    ("base", "key", "value", "expected"),
    [pytest.param(*row, id=f"{row[1]}={row[2]} ({row[0][-1]})") for row in ROWS_OF_TABLE],
)
def test_a_value_is_in_the_keys_of_the_stages_that_it_changes(
    base: tuple[str, ...], key: str, value: str, expected: frozenset[str]
) -> None:
    if expected is REFUSED:
        with pytest.raises(UserError, match=key.rpartition(".")[2]):
            difference(base, key, value)
    else:
        assert difference(base, key, value) == expected
        assert expected or key.startswith(HARMLESS), f"{key} changes nothing"


@pytest.mark.parametrize(
    "overrides",
    [
        ["proxy.fit.epochs=5.0", "budget=5", "proxy.examples_per_task=10.0"],
        ["encoder.learning_rate=0.001", "multitask.fit.learning_rate=1e-3"],  # null: the encoder's
        ["proxy.fit.weight_decay=0", "bandit.policy.prior=[1.0,1]", "bandit.policy.episode=1"],
        ["mixing.random_starts=null", "selection.selector.threshold=0.50"],
        ["paths.output=a", "study=b", "trainer.devices=1"],
        ["multitask.heads={one: [alpha, beta, gamma]}"],  # which have the same labels
    ],
    ids=str,
)
def test_what_means_the_same_has_the_same_keys(overrides: list[str]) -> None:
    assert keys(build(changed(MAIN, *overrides))) == keys(build(changed(MAIN)))


def test_the_table_has_every_value_that_there_is() -> None:
    told = {(leaves(composed(*base)).get(key), key) for base, key, *_ in ROWS_OF_TABLE}
    assert all_keys() - told == set()
    assert told - all_keys() == set()


@pytest.mark.parametrize("group", ["sampling", "weighting", "selection", "encoder"])
def test_every_option_of_a_group_has_keys_of_its_own(group: str) -> None:
    needs = {
        "sampling=ratio": ["sampling.ratios=[1,1,1]"], "encoder=bilstm": ["encoder.tokenizer=tiny"],
        "selection=hand_picked": ["selection.selector.tasks=[beta]"],
        "selection=predicted_gain": ["selection.predictor=one.json"],
    }  # fmt: skip
    away = ("encoder=auto", "encoder=bert_base_cased", "encoder=bert_base_uncased", "encoder=roberta_base")
    seen: dict[Any, str] = {}
    for (one,) in [one for one in options() if one and one[0].startswith(f"{group}=") and one[0] not in away]:
        found = keys(build(composed(*RANDOM, one, *needs.get(one, []))))
        stages = found["selection"], found.get("multitask"), found["finetune"]
        assert stages not in seen, f"{one} and {seen[stages]} have equal keys"
        seen[stages] = one


@pytest.mark.parametrize("choice", ["+encoder@proxy.encoder=minilm", "proxy.encoder=minilm"])
def test_a_proxy_of_an_encoder_of_its_own_trains_at_that_encoders_rate(choice: str) -> None:
    def rates(*more: str) -> list[float]:
        exp = build(composed(*FILES, "encoder.learning_rate=0.01", *more))
        fits = [proxy.fit for level in exp.proxy_stages for proxy in level]
        return [fit.learning_rate for fit in (*fits, exp._finetuned_from(None).fit)]

    assert rates() == [0.01, 0.01]
    assert rates(choice) == [1e-4, 0.01]
    assert rates(choice, "proxy.fit.learning_rate=0.5") == [0.5, 0.01]
    level = choice.replace("proxy", "scoring.levels.small")
    assert rates("scoring.cascade=[small,large]", level) == [1e-4, 0.01, 0.01]
    tiny = choice.replace("minilm", "tiny")  # the last level's, too
    assert rates("scoring.cascade=[small,large]", level, tiny) == [1e-4, 1e-3, 0.01]
