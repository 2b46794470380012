"""The measures. Each is a function of the bench that returns rows of the table, and none needs another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import ours
from timing import NotMeasurable, Result, Runs, Timed, interleaved, median_rate, number, reason, timed

if TYPE_CHECKING:
    import torch

HERE = Path(__file__).resolve().parent
OVERLAP = HERE.parent / "proxy_economy" / "results.json"

# Training rows of the full GLUE tasks (Wang et al. 2019): partial files are sampled in these shares, so that rows are
# as long on average as those of the whole.
GLUE_ROWS = {
    "mnli": 392_702, "rte": 2_490, "qqp": 363_846, "qnli": 104_743,
    "mrpc": 3_668, "sst2": 67_349, "cola": 8_551, "stsb": 5_749,
}  # fmt: skip
TRAIN_BATCH = 32
# Dense bf16 peak in FLOP/s from the makers' data sheets, for the devices that a goal names.
PEAK = {"H200": 989e12}
PADDED_TO = 128
WINDOW = 128
FP32_PEERS = ("reference", "encode fp32", "encode's passes")


@dataclass
class Bench:
    """What all measures share: sizes, a scratch folder, and the rows, made when first asked for."""

    scratch: Path
    quick: bool = False
    rows_wanted: int | None = None
    repetitions: int = 5
    glue: Path | None = None

    @cached_property
    def experiment(self) -> Any:
        return ours.experiment(self.scratch, self.glue)

    @cached_property
    def pool(self) -> Any:
        """Building it is the first use of every measure on rows; `tokenization` measures the same apart."""
        return self.experiment.pool

    @cached_property
    def rows(self) -> ours.Rows:
        """Windows of 128 neighbours in length out of a larger random draw, in random order.

        A batch of a million sorted rows holds rows of about one length. A few hundred random rows do not sort so well,
        and whoever pads would be charged for that: with 512 of them dynamic padding computed 1.6 tokens a real one.
        """
        wanted = self.rows_wanted or (16 if self.quick else 32_768 if on_gpu() else 512)
        windows = max(1, wanted // WINDOW)
        row_ids, lengths = ours.random_rows(self.pool, self.shares(max(100 * WINDOW, 2 * wanted)))
        order = np.argsort(lengths, kind="stable")
        size = min(wanted, WINDOW)
        middles = (np.arange(windows) + 0.5) / windows * len(order)
        starts = np.clip(middles.astype(int) - size // 2, 0, len(order) - size)
        chosen = np.unique(np.concatenate([order[start : start + size] for start in starts]))
        return ours.rows_at(self.pool, np.random.default_rng(0).permutation(row_ids[chosen]))

    @property
    def repeat(self) -> int:
        return 2 if self.quick else self.repetitions

    def shares(self, total: int) -> dict[str, int]:
        """`total` split over the tasks by their true sizes; a task gives no more than it has."""
        have = {name: len(self.pool.rows_of(name)) for name in self.pool.names}
        size = {name: GLUE_ROWS.get(name, count) for name, count in have.items()}
        exact = {name: total * size[name] / sum(size.values()) for name in have}
        whole = {name: int(value) for name, value in exact.items()}
        for name in sorted(exact, key=lambda name: whole[name] - exact[name])[: total - sum(whole.values())]:
            whole[name] += 1  # the largest remainders
        return {name: min(have[name], whole[name]) for name in have}

    def described(self) -> dict[str, Any]:
        """The rows as the report states them."""
        lengths = self.rows.tokens.lengths
        return {
            "source": "GLUE training rows" if self.glue else "generated sample",
            "rows": len(self.rows),
            "rows_per_task": self.rows.counts,
            "mean_tokens": round(float(lengths.mean()), 1),
            "longest": int(lengths.max()),
        }


# --- 1 to 4: scoring ----------------------------------------------------------------------------------------------


def scoring(bench: Bench) -> list[Result]:
    """Ours against the reference path, sentence-transformers, dynamic padding and the machine's own products."""
    import torch

    rows, model, how = bench.rows, ours.proxy(), ours.precision()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(how, torch.float32)
    peers, failures = _scoring_peers(bench, model, dtype)
    contenders: dict[str, Callable[[], Timed]] = {name: partial(timed, peer.run) for name, peer in peers.items()}
    contenders["ours"] = partial(timed, ours.scores, model, rows.tokens)
    if not on_gpu():
        contenders["ours int8"] = partial(timed, ours.scores, model, rows.tokens, None, "int8")
    contenders["products"] = partial(timed, gemm_rate, dtype, bench.quick)
    ours.scores(model, rows.tokens, np.arange(min(64, len(rows))))  # its first call
    runs = interleaved(contenders, bench.repeat)
    runs.failures |= failures

    exact = ours.scores(model, rows.tokens, how="fp32")
    agreement: dict[str, dict[str, Any]] = {}
    for name, peer in peers.items():
        if name in runs.failures:
            continue
        output = runs.outputs[name][-1]
        precision = "fp32" if name in FP32_PEERS else "bf16" if name == "encode bf16" else how
        found = _agreement(exact, peer.logits(output) if hasattr(peer, "logits") else output)
        agreement[name] = {"precision": precision, **found}
        if precision == "fp32" and not agreement[name]["max_difference"] < 1e-3:
            runs.failures[name] = RuntimeError(f"computes something else: {_agreement_text(agreement[name])}")

    def against(title: str, name: str, goal: float | None, note: str) -> Result:
        result = Result(title, "x", goal)
        try:
            result.values = runs.times_faster("ours", name)
            own, theirs = (number(median_rate(len(rows), runs.of(who))) for who in ("ours", name))
            result.beside = (
                f"ours ({how}) {own} rows/s, peer {theirs} rows/s; {note}; {_agreement_text(agreement[name])}"
            )
            result.extra = {"agreement": agreement[name]}
        except Exception as error:
            result.reason = reason(error)
        return result

    waste = PADDED_TO / rows.tokens.lengths.mean()
    padding = peers["dynamic padding"].computed_per_token() if "dynamic padding" in peers else float("nan")
    with_texts = number(len(rows) / timed(ours.scores_from_texts, model, rows.texts).seconds)
    return [
        against("scoring / reference path", "reference", 12,
                f"Trainer.predict, fp32, batch 128, {waste:.2f} tokens computed for each real one"),
        against("scoring / sentence-transformers encode, fp32 default", "encode fp32", 4,
                f"as a user calls it, tokenization included; ours with tokenization, once: {with_texts} rows/s"),
        against("scoring / its forward passes alone, fp32", "encode's passes", None,
                "its own batches of 32, tokenized before: what of the row above is not tokenization"),
        against("scoring / sentence-transformers encode, bf16", "encode bf16", 2.2,
                "as a user calls it, tokenization included"),
        against("scoring / plain dynamic padding", "dynamic padding", None,
                f"batches of 128 by length, Hugging Face forward, {how}, {padding:.2f} tokens for each real one"),
        _share_of_products(model, rows.tokens, runs, how),
        _int8(runs, exact),
    ]  # fmt: skip


def _scoring_peers(bench: Bench, model: Any, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Exception]]:
    """The peers by name, and what stopped those that cannot be set up here."""
    import peers
    import torch

    from fastmtl.models.encoder import _folder

    folder, rows = str(_folder("minilm")), bench.rows

    def bf16() -> Any:
        if not has_bf16():
            raise NotMeasurable("no GPU, and a CPU without AVX512-BF16 or AMX, on which bf16 is emulated")
        return peers.Encode(model, rows.texts, folder, torch.bfloat16)

    makers: dict[str, Callable[[], Any]] = {
        "reference": lambda: peers.Reference(model, rows.tokens, bench.scratch / "trainer"),
        "encode fp32": lambda: peers.Encode(model, rows.texts, folder),
        "encode's passes": lambda: peers.EncodeForward(model, rows.texts, folder),
        "encode bf16": bf16,
        "dynamic padding": lambda: peers.DynamicPadding(model, rows.tokens, dtype),
    }
    made: dict[str, Any] = {}
    failures: dict[str, Exception] = {}
    for name, make in makers.items():
        try:
            made[name] = make()
        except Exception as error:
            failures[name] = error
    return made, failures


def _share_of_products(model: Any, tokens: Any, runs: Runs, how: str) -> Result:
    result = Result("scoring as a share of the machine's own matrix products", " %", 75)
    try:
        flops = model.encoder.forward_flops(tokens.lengths)
        machine = runs.outputs["products"]
        own = [flops / seconds for seconds in runs.of("ours")]
        result.values = [100 * rate / best for rate, best in zip(own, machine, strict=True)]
        result.beside = (
            f"{how}, model FLOPs of real tokens: {number(median(own) / 1e9)} of {number(median(machine) / 1e9)} GFLOP/s"
        )
    except Exception as error:
        result.reason = reason(error)
    return result


def _int8(runs: Runs, exact_NT: np.ndarray) -> Result:
    result = Result("scoring in int8 / reference path", "x")
    try:
        if on_gpu():
            raise NotMeasurable("int8 is for CPUs")
        result.values = runs.times_faster("ours int8", "reference")
        speed = number(median_rate(len(exact_NT), runs.of("ours int8")))
        agreement = _agreement(exact_NT, runs.outputs["ours int8"][-1])
        result.beside = f"an approximation, not the default: {speed} rows/s; {_agreement_text(agreement)} from fp32"
    except Exception as error:
        result.reason = reason(error)
    return result


def _agreement(ours_NT: np.ndarray, theirs_NT: np.ndarray) -> dict[str, float]:
    """Largest difference of a score, and the lowest rank correlation over the tasks."""
    from scipy.stats import spearmanr

    correlations = [float(spearmanr(a, b).statistic) for a, b in zip(ours_NT.T, theirs_NT.T)]
    return {
        "max_difference": float(np.abs(ours_NT - theirs_NT).max()),
        "rank_correlation": min(correlations),
        "standard_deviation": float(
            ours_NT.std(0).min()
        ),  # of a task's scores: what a difference is to be read against
    }


def _agreement_text(values: Mapping[str, Any]) -> str:
    return (
        f"scores differ by {values['max_difference']:.0e} at most (rank correlation {values['rank_correlation']:.6f})"
    )


def gemm_rate(dtype: torch.dtype, quick: bool) -> float:
    """FLOP/s of large products on this device: the median of nine, the larger over the shapes."""
    import torch
    from torch.nn import functional

    device = "cuda" if on_gpu() else "cpu"
    shapes = [(4096, 384, 1536), (2048, 2048, 2048), *([(8192, 8192, 8192)] if on_gpu() else [])]
    best = 0.0
    with torch.inference_mode():
        for rows, inner, columns in shapes[:1] if quick else shapes:
            x = torch.randn(rows, inner, device=device).to(dtype)
            weight = torch.randn(columns, inner, device=device).to(dtype)
            functional.linear(x, weight)
            seconds = median(timed(functional.linear, x, weight).seconds for _ in range(1 if quick else 9))
            best = max(best, 2 * rows * inner * columns / seconds)
    return best


def on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def has_bf16() -> bool:
    """Whether bf16 is faster than fp32 here, rather than emulated."""
    import torch

    if on_gpu():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


# --- 5: training --------------------------------------------------------------------------------------------------


def training(bench: Bench) -> list[Result]:
    """One epoch over the same rows: Lightning with short batches against the Trainer with padded ones."""
    import peers

    batches = 2 if bench.quick else 128 if on_gpu() else 12
    # Tasks by their true sizes; whole batches, as an epoch over all rows of a task makes them.
    counts = {name: count for name, count in bench.shares(batches).items() if count}
    plan = ours.training_plan(bench.pool, counts, TRAIN_BATCH)
    places = {name: np.concatenate([rows for task, rows in plan if task == name]) for name in counts}
    from fastmtl.models.multitask import MultiTaskModel

    model = MultiTaskModel(bench.experiment.encoder, bench.pool.tasks)
    reference = peers.reference_training(bench.pool, model, places, TRAIN_BATCH, bench.scratch / "trainer")
    contenders = {"reference": reference, "ours": lambda: ours.train(bench.experiment, plan, TRAIN_BATCH)}
    runs = interleaved(contenders, min(3, bench.repeat))  # the reference takes minutes
    values = runs.times_faster("ours", "reference")
    steps = {name: set(runs.outputs[name]) for name in contenders}
    assert steps["ours"] == steps["reference"], f"not the same work: {steps} steps"
    n = sum(map(len, places.values()))
    lengths = np.concatenate([bench.pool.split(name, "train").lengths[rows] for name, rows in places.items()])
    speeds = {name: number(median_rate(n, runs.of(name))) for name in contenders}
    return [
        Result(
            "training / reference path", "x", 6, values=values,
            beside=f"ours ({ours.precision()}) {speeds['ours']} rows/s, Trainer (fp32, padded to 128) "
            f"{speeds['reference']} rows/s; {n} rows, {lengths.mean():.1f} tokens on average, batch {TRAIN_BATCH}, "
            "all but set-up",
        )
    ]  # fmt: skip


# --- 6: top-K -----------------------------------------------------------------------------------------------------


def top_k(bench: Bench) -> list[Result]:
    """The best 100,000 of 50 million scores on disk, each time in a new process; the file stays in the page cache."""
    n, k = (1_000_000, 2_000) if bench.quick else (50_000_000, 100_000)
    scores = bench.scratch / "scores.npy"
    np.save(scores, np.random.default_rng(0).standard_normal(n, dtype=np.float32))
    values = np.load(scores)  # read once, so that nobody pays for the disk
    wanted = np.sort(np.partition(values, n - k)[-k:])[::-1]
    found: dict[str, list[dict[str, float]]] = {}

    def run(name: str) -> Timed:
        done = _child("top_k", name, scores, k, bench.scratch / "picks.npy")
        picks = np.load(bench.scratch / "picks.npy")
        assert len(np.unique(picks)) == k, f"{name} returned {len(np.unique(picks))} rows"
        assert np.array_equal(values[picks], wanted), f"{name} did not return the {k} best, best first"
        found.setdefault(name, []).append(done)
        return Timed(done["seconds"])

    contenders = {name: lambda name=name: run(name) for name in ("ours", "argpartition")}
    runs = interleaved(contenders, bench.repeat)
    runs.of("ours")  # said as a failure of the whole measure
    full = interleaved({"lexsort": lambda: run("lexsort")}, 1)  # takes as long as all others together
    parts = [
        f"{name} {number(median(r.seconds[name]))} s and {found[name][0]['peak_mb']:,.0f} MB"
        for r in (runs, full)
        for name in r.seconds
        if name != "ours"
    ]
    parts += [f"{name} failed" for name in [*runs.failures, *full.failures]]
    size = f"{n / 1e6:g}M float32 in {scores.stat().st_size / 1e6:.0f} MB on disk, page cache warm"
    before = median(run["before_mb"] for run in found["ours"])
    return [
        Result(f"top-{k:,} of {n / 1e6:g}M scores: time", " s", 2, "<=", runs.of("ours"),
               f"{size}; peers: {', '.join(parts)}"),
        Result(f"top-{k:,} of {n / 1e6:g}M scores: peak memory", " MB", 600, "<=",
               [run["peak_mb"] for run in found["ours"]],
               f"resident, the mapped file included; {before:.0f} MB before it starts"),
    ]  # fmt: skip


def _child(*arguments: object, env: Mapping[str, str] | None = None) -> dict[str, float]:
    command = [sys.executable, str(HERE / "child.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})})
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


# --- 7: ten times the rows ----------------------------------------------------------------------------------------


def growth(bench: Bench) -> list[Result]:
    """n rows, 10 n, n again, each in a new process: time must grow tenfold and memory must not."""
    least_s = 0.2 if bench.quick else 10.5
    with tempfile.TemporaryDirectory(dir=bench.scratch) as folder:
        probe = 300 if bench.quick else 4000
        longest = bench.rows.tokens.lengths
        _write_rows(Path(folder), longest, probe)
        speed = probe / _child("growth", folder, probe)["seconds"]
        n = int(least_s * speed) + 1
        _write_rows(Path(folder), longest, 10 * n)
        first, tenfold, second = (_child("growth", folder, rows) for rows in (n, 10 * n, n))
        small = [first, second]
        mapped = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
    once = f"{number(first['seconds'])} and {number(second['seconds'])} s"
    each = f"{n:,} rows {once}, tenfold {number(tenfold['seconds'])} s"
    peaks = f"{median(run['peak_mb'] for run in small):.0f} MB to {tenfold['peak_mb']:.0f} MB"
    own = f"{median(run['anonymous_mb'] for run in small):.0f} to {tenfold['anonymous_mb']:.0f} MB"
    return [
        Result("10 x the rows: time", "x", (9, 11), "within",
               [tenfold["seconds"] / run["seconds"] for run in small], f"{each}; two-layer encoder"),
        Result("10 x the rows: peak memory", "x", 1.1, "<=",
               [tenfold["peak_mb"] / run["peak_mb"] for run in small],
               f"{peaks} resident, of which mapped files can be {mapped:.0f} MB of tenfold ids; "
               f"without mapped files {own}"),
    ]  # fmt: skip


def _write_rows(folder: Path, lengths: np.ndarray, rows: int) -> None:
    ours.write_random_rows(folder, np.random.default_rng(0).choice(lengths, rows), vocabulary=200)


# --- 8 and 9: the command line ------------------------------------------------------------------------------------


def sweep(bench: Bench) -> list[Result]:
    """A multirun, twice: in the second every artifact is found. Seconds between starts of its cells."""
    arms = "selection=none,random,feature_similarity"
    seeds = "seed=0" if bench.quick else "seed=0,1"
    command = [*_fastmtl(), "-m", "debug=smoke", arms, seeds, f"paths.output={bench.scratch / 'sweep'}"]
    first, again = (_cell_starts(command, bench.scratch / name) for name in ("first", "again"))
    return [
        Result("a cached cell of a sweep", " s", 1, "<=", [float(seconds) for seconds in np.diff(again)[1:]],
               f"{len(again)} cells, start to start; the first of a process also imports (not counted). "
               f"Computed the first time: {number(float(median(np.diff(first)[1:])))} s a cell")
    ]  # fmt: skip


def _cell_starts(command: list[str], folder: Path) -> list[float]:
    done = subprocess.run([*command, f"hydra.sweep.dir={folder}"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
    return ours.cell_starts(folder)


def help_text(bench: Bench) -> list[Result]:
    """`fastmtl --help`, five times after one that fills the caches."""

    def once() -> Timed:
        return timed(lambda: subprocess.run([*_fastmtl(), "--help"], check=True, capture_output=True))

    once()
    seconds = interleaved({"help": once}, bench.repeat).of("help")
    return [Result("fastmtl --help", " s", 1.5, "<=", seconds, "a new process each time")]


def _fastmtl() -> list[str]:
    script = Path(sys.executable).parent / "fastmtl"
    return [str(script)] if script.exists() else [sys.executable, "-m", "fastmtl.cli.main"]


# --- 10: a small proxy for a large model --------------------------------------------------------------------------


def economy(bench: Bench) -> list[Result]:
    """FLOPs of the whole method with a MiniLM proxy against full multi-task training, both of BERT-base, by formula."""
    from transformers import BertConfig

    title = "MiniLM proxy for BERT-base at RTE, 20,000 rows: saving in total FLOPs"
    if not bench.glue:
        return [Result(title, "x", 20, reason=reason(NotMeasurable("no GLUE files; set GLUE_ROOT")))]
    base = BertConfig()
    small = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    budget, epochs, finetune_epochs, proxy_epochs, per_task = 20_000, 3, 5, 5, 500
    lengths = {name: bench.pool.split(name, "train").lengths for name in GLUE_ROWS}

    def forward(config: Any, name: str) -> float:
        """A row of the task, on average."""
        return ours.forward_flops(config, lengths[name]) / len(lengths[name])

    auxiliary = sum(n for name, n in GLUE_ROWS.items() if name != "rte")
    mean_auxiliary = sum(n * forward(base, name) for name, n in GLUE_ROWS.items() if name != "rte") / auxiliary
    primary = GLUE_ROWS["rte"] * forward(base, "rte")
    parts = {
        "proxy": 3 * proxy_epochs * per_task * sum(forward(small, name) for name in GLUE_ROWS),
        "scores": sum(n * forward(small, name) for name, n in GLUE_ROWS.items()),
        "multi-task": 3 * epochs * (primary + budget * mean_auxiliary),
        "fine-tuning": 3 * finetune_epochs * primary,
    }
    full = 3 * epochs * sum(n * forward(base, name) for name, n in GLUE_ROWS.items()) + parts["fine-tuning"]
    mean = sum(n * lengths[name].mean() for name, n in GLUE_ROWS.items()) / sum(GLUE_ROWS.values())
    shown = ", ".join(f"{name} {flops / 1e15:.2f}" for name, flops in parts.items())
    return [
        Result(
            title, "x", 20, values=[full / sum(parts.values())],
            beside=f"PFLOP: {shown}; full multi-task training with fine-tuning {full / 1e15:.1f}; GLUE's own sizes, "
            f"{mean:.1f} tokens on average by the rows at hand, {epochs} epochs. {_overlap()}",
        )
    ]  # fmt: skip


def _overlap() -> str:
    """How much of the large model's own choice cheaper proxies make: the finding of another study, if it was run."""
    if not OVERLAP.exists():
        return "What a small proxy chooses in common with the large one: not measured yet"
    cells = json.loads(OVERLAP.read_text())["cells"]
    k = max(cell["budget"] for cell in cells)
    by_way: dict[str, list[float]] = {}
    for cell in cells:
        if cell["budget"] == k:
            by_way.setdefault(cell["way"], []).append(cell["overlap"])
    shares = ", ".join(f"{way} {100 * sum(found) / len(found):.0f} %" for way, found in by_way.items())
    return f"Chosen in common with the large proxy at K = {k:,}: {shares}"


# --- 11: one large GPU --------------------------------------------------------------------------------------------


def gpu(bench: Bench) -> list[Result]:
    """960,000 rows of 40 tokens on average, ids in memory, random weights of two shapes."""
    shapes: dict[str, dict[str, int]] = {
        "BERT-base": {},
        "MiniLM": {
            "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536,
        },
    }  # fmt: skip
    goals = {"BERT-base": 15, "MiniLM": 4}
    titles = {shape: f"960,000 rows on one H200, {shape} shape" for shape in shapes}
    utilization = "BERT-base shape on one H200: share of the bf16 peak"
    if not on_gpu():
        why = reason(NotMeasurable("no GPU"))
        results = [Result(titles[shape], " s", goals[shape], "<=", reason=why) for shape in shapes]
        return [results[0], Result(utilization, " %", 55, reason=why), results[1]]
    import torch

    device = torch.cuda.get_device_name()
    tokens = synthetic_rows(bench.scratch, 20_000 if bench.quick else 960_000)
    results = []
    for shape, keywords in shapes.items():
        with tempfile.TemporaryDirectory(dir=bench.scratch) as folder:
            model = ours.random_proxy(Path(folder), **keywords)
        ours.scores(model, tokens, np.arange(20_000))
        runs = interleaved({"ours": lambda model=model: timed(ours.scores, model, tokens)}, 3)
        flops = model.encoder.forward_flops(tokens.lengths)
        rates = [flops / seconds for seconds in runs.of("ours")]
        beside = f"{device}, {ours.precision()}, {len(tokens):,} rows, {tokens.lengths.mean():.1f} tokens on average"
        beside += f", {median(rates) / 1e12:.0f} TFLOP/s"
        results.append(Result(titles[shape], " s", goals[shape], "<=", runs.of("ours"), beside))
        peak = next((peak for name, peak in PEAK.items() if name in device), None)
        if shape == "BERT-base" and peak:
            results.append(Result(utilization, " %", 55, values=[100 * rate / peak for rate in rates],
                                  beside=f"model FLOPs of real tokens, of {peak / 1e12:.0f} TFLOP/s"))  # fmt: skip
        elif shape == "BERT-base":
            results.append(Result(utilization, " %", 55, reason=reason(NotMeasurable(f"no peak known for {device}"))))
    return results


def synthetic_rows(scratch: Path, rows: int) -> Any:
    """Random ids, lengths from 8 to 90 and 40 on average: rows of one length would spare us all sorting."""
    lengths = np.random.default_rng(0).triangular(8, 22, 90, rows).round().astype(np.int64)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        ours.write_random_rows(Path(folder), lengths, vocabulary=30_000)
        mapped = ours.open_rows(Path(folder))
        return type(mapped)(
            *(np.array(part) for part in (mapped.ids, mapped.offsets, mapped.second, mapped.labels)),
            flags=None, folder=Path(), split="train",
        )  # fmt: skip


# --- 12: tokenization ---------------------------------------------------------------------------------------------


def tokenization(bench: Bench) -> list[Result]:
    """Files to cached ids in a new store, then the same again, where all is found."""
    tasks = ["data.tasks=[rte,mrpc,stsb]"] if bench.glue else []
    rows = 0

    def build(folder: Path) -> Timed:
        nonlocal rows
        exp = ours.experiment(folder, bench.glue, *tasks)
        done = timed(lambda: exp.pool)
        rows = sum(artifact.records["examples"] for artifact in exp.token_ids())
        return Timed(done.seconds, [artifact.hit for artifact in exp.token_ids()])

    first, again = [], []
    for _ in range(bench.repeat):
        with tempfile.TemporaryDirectory(dir=bench.scratch) as folder:
            first.append(build(Path(folder)))
            again.append(build(Path(folder)))
    assert not any(hit for run in first for hit in run.output), "the first run found something"
    assert all(hit for run in again for hit in run.output), "the second run tokenized again"
    return [
        Result("tokenization", " rows/s", values=[rows / run.seconds for run in first],
               beside=f"{rows:,} rows: files read, checked, tokenized and written; tokenizer loaded"),
        Result("tokenization, second run", " s", values=[run.seconds for run in again],
               beside="every artifact found, nothing tokenized; files are hashed once a process"),
    ]  # fmt: skip


# --- 13: several ranks --------------------------------------------------------------------------------------------


def ranks(bench: Bench) -> list[Result]:
    """The same work on one CPU rank and on two, of one thread each."""
    if on_gpu():
        why = reason(NotMeasurable("ranks of one GPU would share it"))
        return [Result(f"{work}: 2 ranks / 1 rank", "x", reason=why) for work in ("scoring", "training")]

    def run(count: int) -> Timed:
        found = _child("ranks", bench.scratch, count, bench.quick, env={"OMP_NUM_THREADS": "1"})
        return Timed(0.0, found)

    runs = interleaved({str(n): partial(run, n) for n in (1, 2)}, min(3, bench.repeat))
    for name in ("1", "2"):
        runs.of(name)  # said as a failure of the whole measure
    results = []
    for work in ("scoring", "training"):
        one, two = ([found[work] for found in runs.outputs[name]] for name in ("1", "2"))
        beside = f"one thread a rank, seconds without start-up: {number(median(one))} and {number(median(two))}"
        values = [a / b for a, b in zip(one, two, strict=True)]
        results.append(Result(f"{work}: 2 ranks / 1 rank", "x", values=values, beside=beside))
    return results


MEASURES: dict[str, Callable[[Bench], list[Result]]] = {
    "scoring": scoring,
    "training": training,
    "top_k": top_k,
    "growth": growth,
    "sweep": sweep,
    "help": help_text,
    "economy": economy,
    "gpu": gpu,
    "tokenization": tokenization,
    "ranks": ranks,
}


def machine() -> dict[str, Any]:
    """What the numbers were measured on; no host or user name."""
    import platform

    import torch

    has = torch.cpu.get_capabilities()
    telling = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "sve", "neon", "bf16")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": has.get("cpu_name") or platform.processor(),
        "capabilities": [name for name in telling if has.get(name)],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if on_gpu() else None,
        "precision": ours.precision(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_before": round(load, 1) if load is not None else None,
    }
