"""fastmtl's side of the benchmark: every call of its fast paths is here, so that a changed interface changes one file.

Imports are inside the functions: the process that ranks 50 million scores must not carry torch in its memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from timing import Timed

if TYPE_CHECKING:
    from fastmtl.data.pool import TaskPool, TokenRows
    from fastmtl.models.multitask import ProxyModel
    from fastmtl.pipelines.experiment import Experiment

Text = str | tuple[str, str]


# --- rows --------------------------------------------------------------------------------------------------------


def experiment(scratch: Path, glue: Path | None, *more: str) -> Experiment:
    """MiniLM over GLUE's Parquet files, or over the generated sample; artifacts go to `scratch`."""
    from fastmtl import compose

    data = ["data=glue_local", f"data.root='{glue}'"] if glue else ["data=sample"]
    return compose(*data, "encoder=minilm", f"paths.output='{scratch}'", *more)


@dataclass(frozen=True)
class Rows:
    """Training rows of several tasks, as cached token ids and as the texts they came from."""

    tokens: TokenRows
    texts: list[Text]
    counts: dict[str, int]

    def __len__(self) -> int:
        return len(self.texts)


def random_rows(pool: TaskPool, counts: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Row ids of so many random rows of each task, and how many tokens each has."""
    rng = np.random.default_rng(0)
    picks = [rng.choice(pool.rows_of(name), count, replace=False) for name, count in counts.items() if count]
    lengths = [pool.split(pool.names[pool.task_of(rows[:1])[0]], "train").lengths[pool.local(rows)] for rows in picks]
    return np.concatenate(picks), np.concatenate(lengths)


def rows_at(pool: TaskPool, row_ids: np.ndarray) -> Rows:
    """These rows in this order."""
    parts = []
    for task, place in zip(pool.task_of(row_ids), pool.local(row_ids)):
        rows = pool.split(pool.names[task], "train")
        start, end = rows.offsets[place : place + 2]
        parts.append((rows.ids[start:end], rows.second[place], rows.labels[place]))
    ids, second, labels = zip(*parts)
    columns = {task.name: task.text for task in pool.tasks}
    texts = [tuple(row[column] for column in columns[row["task"]]) for row in pool.texts(row_ids)]
    counts = np.bincount(pool.task_of(row_ids), minlength=len(pool.names)).tolist()
    return Rows(
        _token_rows(list(ids), list(second), list(labels)),
        [text[0] if len(text) == 1 else text for text in texts],
        dict(zip(pool.names, counts)),
    )


def _token_rows(ids: list[Any], second: list[Any], labels: list[Any]) -> TokenRows:
    from fastmtl.data.pool import TokenRows

    offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
    flat = np.concatenate([np.asarray(row) for row in ids]).astype(np.uint16)
    where = np.asarray(second, np.uint16), np.asarray(labels, np.float32)
    return TokenRows(flat, offsets, *where, flags=None, folder=Path(), split="train")


def write_random_rows(folder: Path, lengths: np.ndarray, vocabulary: int) -> None:
    """Rows of random ids as the pool keeps them: what they say does not change how long a pass takes."""
    rng = np.random.default_rng(0)
    np.save(folder / "train.offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    np.save(folder / "train.ids.npy", rng.integers(5, vocabulary, int(lengths.sum()), dtype=np.uint16))
    np.save(folder / "train.second.npy", (lengths // 2).astype(np.uint16))
    np.save(folder / "train.labels.npy", np.zeros(len(lengths), np.float32))


def open_rows(folder: Path) -> TokenRows:
    """What `write_random_rows` wrote, memory-mapped."""
    from fastmtl.data.pool import TokenRows

    return TokenRows.open(folder, "train")


# --- scoring -----------------------------------------------------------------------------------------------------


def proxy(encoder: str | Path = "minilm", heads_seed: int = 0) -> ProxyModel:
    """A proxy over the eight GLUE tasks with random heads, in eval mode, on the device that scoring would take."""
    import torch

    from fastmtl.models.encoder import EncoderSpec
    from fastmtl.models.multitask import ProxyModel
    from fastmtl.tasks import GLUE
    from fastmtl.training.config import Hardware

    tasks = tuple(task for name, task in GLUE.items() if name != "wnli")
    with torch.random.fork_rng():
        torch.manual_seed(heads_seed)
        return ProxyModel(EncoderSpec(str(encoder), pooling="mean"), tasks).to(Hardware().device).eval()


def random_proxy(folder: Path, **shape: Any) -> ProxyModel:
    """A proxy around a BERT of this shape (keywords of `BertConfig`) with random weights, by way of `folder`."""
    import torch
    from transformers import BertConfig, BertModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(BertConfig(**shape)).save_pretrained(folder)
    return proxy(folder)


def precision() -> str:
    """What `precision=auto` means on this machine; every score that is timed is computed so."""
    from fastmtl.training.config import Hardware, resolve_precision

    return resolve_precision("auto", Hardware())


def scores(
    model: ProxyModel, tokens: TokenRows, places: np.ndarray | None = None, how: str | None = None
) -> np.ndarray:
    """(n, tasks) float32: discriminator logits of the rows at `places` (default: all) from cached ids."""
    from fastmtl.models.inference import Inference, forward_rows
    from fastmtl.training.config import Hardware

    inference = Inference(0, Hardware().device, how or precision())  # type: ignore[arg-type]
    places = np.arange(len(tokens)) if places is None else places
    return forward_rows(model.encoder, model.discriminator, tokens, places, inference, "score")


def score_to_disk(model: ProxyModel, tokens: TokenRows, rows: int, folder: Path) -> None:
    """Scores of the first `rows` rows, a file a shard, as a pass over a pool leaves them."""
    from fastmtl.plans import ScoringPlan

    size = ScoringPlan().shard_rows
    for start in range(0, rows, size):
        places = np.arange(start, min(rows, start + size))
        np.save(folder / f"scores-{start}.npy", scores(model, tokens, places).T)


def scores_from_texts(model: ProxyModel, texts: list[Text]) -> np.ndarray:
    """The same from texts: tokenize, then score."""
    from fastmtl.models.encoder import Tokenizer

    tokenize = Tokenizer(model.encoder.spec)
    out = np.empty((len(texts), len(model.heads)), np.float32)
    single = np.array([isinstance(text, str) for text in texts])
    for places in (np.flatnonzero(single), np.flatnonzero(~single)):
        if not len(places):
            continue
        part = [texts[i] for i in places]
        pairs = None if isinstance(part[0], str) else [text[1] for text in part]
        ids, second = tokenize([text if isinstance(text, str) else text[0] for text in part], pairs)
        out[places] = scores(model, _token_rows(ids, second, [0.0] * len(ids)))
    return out


def forward_flops(config: Any, lengths: np.ndarray) -> float:
    """Model FLOPs of a forward pass, by fastmtl's formula, for a model that need not exist."""
    from types import SimpleNamespace

    from fastmtl.models.encoder import Encoder

    of = SimpleNamespace(inner=SimpleNamespace(config=config), spec=SimpleNamespace(pooling="mean"))
    return Encoder.forward_flops(of, lengths)  # type: ignore[arg-type]


# --- training ----------------------------------------------------------------------------------------------------


def training_plan(pool: TaskPool, counts: Mapping[str, int], batch_size: int) -> list[tuple[str, np.ndarray]]:
    """(task, places): so many full batches of each task out of an epoch over all its rows, in random order."""
    from fastmtl.data.batching.planned import Proportional

    rng = np.random.default_rng(1)
    plan = []
    for name, count in counts.items():
        places = pool.local(pool.rows_of(name))
        epoch = Proportional().epoch([pool.split(name, "train").lengths[places]], batch_size, rng)
        plan += [(name, places[rows]) for rows in [rows for _, rows in epoch if len(rows) == batch_size][:count]]
    return [plan[i] for i in rng.permutation(len(plan))]


@dataclass(frozen=True)
class Planned:
    """A sampling of one epoch that was planned before: (task, first row, row after the last) of each batch."""

    batches: tuple[tuple[int, int, int], ...]

    def epoch(self, lengths: list[np.ndarray], batch_size: int, rng: np.random.Generator) -> list[Any]:
        return [(task, np.arange(start, stop)) for task, start, stop in self.batches]


def train(exp: Experiment, plan: list[tuple[str, np.ndarray]], batch_size: int) -> Timed:
    """One epoch of these batches; seconds inside Lightning's `fit`, the number of steps as output.

    Loading the encoder before and writing the weights after are the set-up that both sides leave out.
    """
    from fastmtl.data.rows import RowSet
    from fastmtl.training.config import FitConfig, Hardware
    from fastmtl.training.fit import FitJob, run_fit

    rows: dict[str, np.ndarray] = {}
    batches = []
    for name, places in plan:
        start = len(rows.get(name, ()))
        rows[name] = np.concatenate([rows.get(name, places[:0]), places])
        batches.append((list(rows).index(name), start, start + len(places)))
    fit = FitConfig(epochs=1, batch_size=batch_size).resolved(Hardware(), exp.encoder)
    with tempfile.TemporaryDirectory() as out:
        job = FitJob(
            title="train", pool=exp.pool, encoder=exp.encoder, rows=RowSet.of(exp.tasks, rows), fit=fit,
            sampling=Planned(tuple(batches)), seed=0, pad_id=0, out=Path(out), hardware=Hardware(),
        )  # fmt: skip
        records = run_fit(job)
    return Timed(records["fit_s"], records["steps"])


# --- top-K -------------------------------------------------------------------------------------------------------


def top_k(path: Path, k: int) -> np.ndarray:
    """Positions of the k largest of the scores in a .npy file, best first: exact, ties by a hash."""
    from fastmtl.selection.candidates import BLOCK, top_k

    values = np.load(path, mmap_mode="r")
    starts = range(0, len(values), BLOCK)
    blocks = ((np.arange(s, min(len(values), s + BLOCK)), values[s : s + BLOCK]) for s in starts)
    return top_k(blocks, k, salt=0)


# --- sweeps ------------------------------------------------------------------------------------------------------


def cell_starts(folder: Path) -> list[float]:
    """When each cell of a sweep started, in seconds, in the order in which they ran."""
    from fastmtl.cli.sweep import read

    return [cell.started for cell in read(folder)]


# --- several ranks -----------------------------------------------------------------------------------------------


def on_ranks(scratch: Path, ranks: int, quick: bool) -> dict[str, float]:
    """Seconds that each of so many CPU ranks computes: one epoch of a proxy, and scoring, without start-up."""
    rows, encoder = (60, "tiny") if quick else (200, "minilm")
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        exp = experiment(
            Path(folder), None, f"encoder={encoder}", f"data.rows_per_task={rows}", "proxy.examples_per_task=24",
            "budget=10", "proxy.fit.epochs=1", "scoring.shard_rows=22", "trainer=cpu", f"trainer.devices={ranks}",
        )  # fmt: skip
        training = exp.proxy()[0].records["fit_s"]
        scoring = sum(artifact.records["wall_s"] for artifact in exp.scores()) / ranks
    return {"training": training, "scoring": scoring}
