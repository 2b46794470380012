"""How near two tasks are, without training them together: four affinities, each a table of main by auxiliary task.

    affinity     its number for a pair                                        what it needs
    confusion    how much a discriminator takes the one's rows for the        a proxy and its scores
                 other's (FastMTL's, averaged)
    centroids    cosine of mean features: TextEmb (Vu et al. 2020)            any encoder, no labels
    taskemb      cosine of Fisher information: TaskEmb (Vu et al. 2020)       a model of each task, labelled rows
    gradients    cosine of the gradients of the losses (Yu et al. 2020)       one model with heads of all tasks, labels

More is nearer. All but the first are symmetric, and 1 on the diagonal. Which of them says who gains is measured by
`experiments/task_relations`. T tasks, N rows, H features, P numbers in the weights.

Fisher information and gradients are by the weight matrices of the layers: a sample of rows does not touch most
embeddings, tagging passes no pooler, and some biases have no gradient but rounding. Models must be in eval mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame, Index
from torch import Tensor

from fastmtl.data.collate import collate
from fastmtl.data.pool import TokenRows, chunks
from fastmtl.errors import UserError
from fastmtl.models.inference import BATCH_ROWS, BATCH_TOKENS
from fastmtl.models.multitask import MultiTaskModel
from fastmtl.progress import progress
from fastmtl.tasks import TaskSpec
from fastmtl.training.metrics import task_loss


@dataclass(frozen=True)
class Sample:
    """Some labelled rows of a task, by their positions (n,) in a split."""

    task: TaskSpec
    rows: TokenRows
    positions: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.positions):
            raise UserError(f"task {self.task.name!r} has no rows here; give it some")
        if np.isnan(self.rows.labels[self.positions]).any():
            raise UserError(f"task {self.task.name!r} has rows without labels here; take them from train or validation")


def confusion(scores_TN: np.ndarray, task_of_N: np.ndarray, tasks: Sequence[str]) -> DataFrame:
    """Mean score for the main task over the auxiliary task's rows that have one; a row that is NaN has none.

    Compare within a main task: a discriminator gives some tasks more than others.
    """
    assert scores_TN.shape == (len(tasks), len(task_of_N)), "a row of scores for each task"
    means = []
    for t, task in enumerate(tasks):
        scores_Tn = scores_TN[:, task_of_N == t]
        scores_Tn = scores_Tn[:, ~np.isnan(scores_Tn).any(0)]
        if not scores_Tn.shape[1]:
            raise UserError(f"no row of task {task!r} has a score; score all rows, without a cascade")
        means.append(scores_Tn.mean(1, dtype=np.float64))
    return _table(np.stack(means, axis=1), tasks)


def centroids(features: Mapping[str, np.ndarray]) -> DataFrame:
    """Cosine of the mean features of each task's rows (n, H): TextEmb (Vu et al. 2020, section 4).

    The paper averages the last layer of a pretrained BERT over the tokens of a row, as `encoder.pooling=mean` does.
    """
    names = list(features)
    return _table(_cosines(_gram([f.mean(0, dtype=np.float64) for f in features.values()]), names), names)


def fisher_embedding(model: MultiTaskModel, sample: Sample) -> dict[str, np.ndarray]:
    """Diagonal of the empirical Fisher information, float32, by weight matrix: mean squared gradient of a row's loss.

    Rows go one by one, since their gradients are squared, not their mean: 0.09 s per row of 30 tokens with MiniLM.
    """
    weights = _weights(model)
    sums = [torch.zeros_like(weight) for weight in weights.values()]
    with progress(f"Fisher {sample.task.name}", "row", len(sample.positions)) as bar:
        for place in sample.positions:
            loss = _loss(model, sample, np.array([place]), pad_id=0)  # a row alone is not padded
            for total, gradient in zip(sums, torch.autograd.grad(loss, list(weights.values()))):
                total.addcmul_(gradient, gradient)
            bar.update()
    return {name: (total / len(sample.positions)).cpu().numpy() for name, total in zip(weights, sums)}


def taskemb(embeddings: Mapping[str, Mapping[str, np.ndarray]]) -> DataFrame:
    """Cosine of Fisher information (see `fisher_embedding`), the mean over weight matrices: TaskEmb.

    Each task's is that of a model fine-tuned on it; all from the same initial weights, or positions do not correspond.
    A mean over matrices, for in one long vector those near the head would drown the others. The published code of Vu et
    al. (2020) instead squares the mean gradient of each batch of 32 rows.
    """
    names = list(embeddings)
    matrices = zip(*(one.values() for one in embeddings.values()))
    return _table(np.mean([_cosines(_gram(matrix), names) for matrix in matrices], axis=0), names)


def gradient_cosine(model: MultiTaskModel, samples: Sequence[Sample], pad_id: int) -> DataFrame:
    """Cosine of the gradients of the tasks' mean losses over their samples, at one model with a head for each.

    Yu et al. (2020, section 2) call tasks whose cosine is negative conflicting. Rows should be none that the model was
    trained on, whose gradients are near zero; few rows pull a cosine to zero. 0.34 GB for 8 tasks and MiniLM.
    """
    gradients = [_mean_gradient(model, sample, pad_id) for sample in samples]
    names = [sample.task.name for sample in samples]
    grams = [_gram([one.cpu().numpy() for one in matrix]) for matrix in zip(*gradients)]
    return _table(_cosines(np.sum(grams, axis=0), names), names)


def _mean_gradient(model: MultiTaskModel, sample: Sample, pad_id: int) -> list[Tensor]:
    weights = list(_weights(model).values())
    sums = [torch.zeros_like(weight) for weight in weights]
    lengths, n = sample.rows.lengths, len(sample.positions)
    in_order = sample.positions[np.argsort(lengths[sample.positions], kind="stable")]
    with progress(f"gradient {sample.task.name}", "row", n) as bar:
        for positions in chunks(in_order, lengths, BATCH_TOKENS, BATCH_ROWS):
            loss = _loss(model, sample, positions, pad_id) * (len(positions) / n)
            for total, gradient in zip(sums, torch.autograd.grad(loss, weights)):
                total += gradient
            bar.update(len(positions))
    return sums


def _loss(model: MultiTaskModel, sample: Sample, positions: np.ndarray, pad_id: int) -> Tensor:
    """Mean over the rows."""
    assert not model.training, "dropout would be noise"
    device = next(model.parameters()).device
    batch = {name: value.to(device) for name, value in collate(sample.rows, positions, pad_id).items()}
    return task_loss(model(batch, sample.task.name), batch["labels"], sample.task)


def _weights(model: MultiTaskModel) -> dict[str, torch.nn.Parameter]:
    """The matrices of the encoder's layers, lowest first, as `0.attention.self.query.weight`."""
    layers = torch.nn.ModuleList(model.encoder.layer_stack())
    found = {name: weight for name, weight in layers.named_parameters() if weight.ndim > 1 and weight.requires_grad}
    if not found:
        raise UserError(f"encoder {model.encoder.spec.name!r} has no layers with trained weights; use BERT or its kin")
    return found


def _gram(vectors: Sequence[np.ndarray]) -> np.ndarray:
    matrix = np.stack([vector.ravel() for vector in vectors]).astype(np.float64)
    return matrix @ matrix.T


def _cosines(gram_TT: np.ndarray, tasks: Sequence[str]) -> np.ndarray:
    norms_T = np.sqrt(np.diag(gram_TT))
    for task, norm in zip(tasks, norms_T):
        if not 0 < norm < np.inf:
            raise UserError(f"the vector of task {task!r} has length {norm:g}, no direction; check its rows and model")
    return gram_TT / np.outer(norms_T, norms_T)


def _table(values_TT: np.ndarray, tasks: Sequence[str]) -> DataFrame:
    return DataFrame(values_TT, Index(tasks, name="main"), Index(tasks, name="aux"))
