"""Embedding similarity: a row is valued by how near its feature is to the primary's, in the untrained encoder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import nn

from fastmtl.models.encoder import Encoder
from fastmtl.models.inference import forward_rows, inference_flops
from fastmtl.options import Count, options
from fastmtl.scoring.base import Needs, ScoringInputs
from fastmtl.seeds import scrambled

BLOCK_ROWS = 1 << 14
"""Rows whose features and cosines are in memory together: 60 MB with 384 units and 500 target rows."""
AHEAD = 512
"""Entries of a target row's list that are looked through at once."""
CENTROID, ROW_IDS, PLACES = "centroid.npy", "row_ids.npy", "places.npy"


@options
class Embedding:
    """Cosines of the encoder's pooled features to those of the primary's rows.

    `centroid` takes the cosine to the mean of the primary's unit features. `nearest` lets the target rows choose in
    turn, each the nearest candidate that is left, and a candidate's score is minus its place in that order: the k best
    rows are spread over all target rows. (In the release of RDS+ a row whose next candidate is gone loses its turn.)

    An order over all candidates needs all of them at once, so `prepare` is the pass over them, on one device, and
    `score` reads places back. The cosines wait in a temporary file of 4 bytes per candidate and target row.

    Args:
        method: `nearest` or `centroid`.
        targets: Target rows that are read at most, drawn at random from the primary's; this bounds cost and file.

    Source: Ivison et al., "Large-Scale Data Selection for Instruction Tuning", arXiv 2503.01807 (RDS+).
    There features are a decoder's, weighted by position; here the encoder's own pooling has its place.
    """

    method: Literal["centroid", "nearest"] = "nearest"
    targets: Count = 1000

    needs: ClassVar[Needs] = "encoder"
    per_primary: ClassVar[bool] = True

    def prepare(self, inputs: ScoringInputs, out: Path) -> dict[str, Any]:
        """Read target rows, and for `nearest` all candidates; see `fastmtl.scoring.base.Scorer`."""
        hashes = scrambled(inputs.row_ids(inputs.primary, inputs.target), inputs.seed)
        drawn = np.argsort(hashes, kind="stable")[: self.targets]
        target = np.sort(inputs.target[drawn])
        target_MH = _features(inputs, inputs.primary, target)
        read = {inputs.primary: target}
        flops = 0.0
        if self.method == "centroid":
            np.save(out / CENTROID, _unit(target_MH.mean(0)))
        else:
            read |= {task: rows for task, rows in inputs.rows.items() if len(rows)}
            row_ids, places = _round_robin(inputs, target_MH, out / "lists.npy")
            np.save(out / ROW_IDS, row_ids)
            np.save(out / PLACES, places)
            flops += 2.0 * target_MH.size * len(row_ids)
        lengths = [inputs.pool.split(task, "train").lengths[rows] for task, rows in read.items()]
        flops += sum(inference_flops(_encoder(inputs), each, inputs.inference) for each in lengths)
        tokens = sum(int(each.sum()) for each in lengths)
        return {"flops": flops, "examples": sum(map(len, lengths)), "tokens": tokens}

    def score(self, inputs: ScoringInputs, state: Path | None, task: str, positions: np.ndarray) -> np.ndarray:
        """(1, n) cosines, or minus the place in the order of rounds; see `fastmtl.scoring.base.Scorer`."""
        assert state is not None
        if not len(positions):
            return np.empty((1, 0), dtype=np.float32)
        if self.method == "centroid":
            centroid_H = np.load(state / CENTROID)
            return np.concatenate([_features(inputs, task, part) @ centroid_H for part in _blocks(positions)])[None]
        known, wanted = np.load(state / ROW_IDS, mmap_mode="r"), inputs.row_ids(task, positions)
        where = np.searchsorted(known, wanted)
        assert np.array_equal(known[where], wanted), "a row that was no candidate has no place"
        return -np.load(state / PLACES, mmap_mode="r")[where].astype(np.float32)[None]

    def flops(self, inputs: ScoringInputs, lengths: np.ndarray) -> float:
        """Of scoring rows of `lengths` tokens: a forward pass for `centroid`; `nearest` has had its in `prepare`."""
        return inference_flops(_encoder(inputs), lengths, inputs.inference) if self.method == "centroid" else 0.0


def _round_robin(inputs: ScoringInputs, target_MH: np.ndarray, file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Row ids (n,) of all candidates, ascending, and the place (n,) of each in the order in which they are chosen."""
    blocks = [(task, part) for task, rows in inputs.rows.items() for part in _blocks(rows)]
    row_ids = np.concatenate([np.empty(0, dtype=np.int64), *(inputs.row_ids(*block) for block in blocks)])
    n = len(row_ids)
    assert n, "there are no candidates"
    # Candidates go by their rank in an order of hashes, so that it decides between equal cosines.
    hashed = _inverse(np.argsort(scrambled(row_ids, inputs.seed)))
    cosines_MN = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(len(target_MH), n))
    start = 0
    for task, part in blocks:
        cosines_MN[:, start : start + len(part)] = target_MH @ _features(inputs, task, part).T
        start += len(part)
    lists_MN = np.asarray(cosines_MN).view(np.uint32)  # each list takes the place of its cosines

    def order(i: int) -> None:
        """Sort once: minus the cosine in the upper 32 bits, the candidate in the lower ones."""
        keys_N = (cosines_MN[i] * np.float32(-(2**30))).astype(np.int64) << 32 | hashed
        keys_N.sort()
        lists_MN[i] = keys_N & 0xFFFFFFFF

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        list(threads.map(order, range(len(target_MH))))
    places = _inverse(_chosen_in_turn(lists_MN))[hashed]
    file.unlink()
    ascending = np.argsort(row_ids)
    return row_ids[ascending], places[ascending]


def _chosen_in_turn(lists_MN: np.ndarray) -> np.ndarray:
    """(n,) candidates in the order in which M choosers take, in turn, the first of their list that is left."""
    choosers, n = lists_MN.shape
    gone, seen, chosen = np.zeros(n, dtype=bool), [0] * choosers, np.empty(n, dtype=np.int64)
    for turn in range(n):
        i = turn % choosers
        while (ahead := gone[lists_MN[i, seen[i] : seen[i] + AHEAD]]).all():
            seen[i] += AHEAD
        seen[i] += int(ahead.argmin())
        chosen[turn] = lists_MN[i, seen[i]]
        gone[chosen[turn]] = True
    return chosen


def _inverse(order: np.ndarray) -> np.ndarray:
    """The place of each element in an order."""
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return places


def _blocks(positions: np.ndarray) -> list[np.ndarray]:
    return [part for part in np.split(positions, range(BLOCK_ROWS, len(positions), BLOCK_ROWS)) if len(part)]


def _features(inputs: ScoringInputs, task: str, positions: np.ndarray) -> np.ndarray:
    """(n, H) float32: unit features of some rows of a task."""
    rows = inputs.pool.split(task, "train")
    features = forward_rows(_encoder(inputs), nn.Identity(), rows, positions, inputs.inference, f"embed {task}")
    assert np.isfinite(features).all(), "the encoder's features are not finite"
    return _unit(features)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.finfo(np.float32).tiny)


def _encoder(inputs: ScoringInputs) -> Encoder:
    return cast(Encoder, inputs.model)
