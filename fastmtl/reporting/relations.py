"""What was found of the relations between tasks: gains, what foretells them, what it cost; as tables and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from pandas import DataFrame, Series

from fastmtl.errors import UserError
from fastmtl.relations.agreement import Agreement, agreement, predicted
from fastmtl.relations.features import pair_table
from fastmtl.relations.gains import Relations, Unit
from fastmtl.relations.predictor import (
    GainPredictor,
    coefficients,
    cross_validated,
    main_task_folds,
    shuffled_folds,
    trivial,
)
from fastmtl.reporting.heatmap import heat_map
from fastmtl.reporting.table import Table
from fastmtl.stats import holm

SHUFFLES = 20
"""Times that the pairs are parted into folds anew."""
DRAWS = 300
"""Draws of main tasks behind the interval of a coefficient."""
SHOWN = 10
"""Coefficients in the report; `predictor.json` has all."""
SIGNS = {"percent": "%", "points": "points"}


def write(found: Relations, out: Path, title: str, unit: Unit) -> str:
    """Write the folder; returns its Markdown.

    `results.md`, `figure.svg`, the numbers as `scores.csv`, `gains.csv`, `features.csv`, `affinities.csv`, and
    `predictor.json`, a `GainPredictor` of all pairs. What so few tasks or pairs do not allow is said and left out.
    """
    out.mkdir(parents=True, exist_ok=True)
    gain = found.gains(unit)
    x = pair_table(found.features)
    parts = [f"# {title}", singles(found.single).markdown(), matrix(gain, unit).markdown()]
    parts += [_or_reason("how well affinities agree", lambda: agreements(found, gain["gain"], x, unit))]
    parts += [_or_reason("how well features predict", lambda: predictions(x, gain["gain"]))]
    parts += [_or_reason("what the predictor leans on", lambda: leanings(x, gain["gain"]))]
    parts += [cost_table(found.costs).markdown()]
    (out / "results.md").write_text("\n\n".join(parts) + "\n")
    with suppress(UserError):  # said above
        GainPredictor.fit(x, gain["gain"]).save(out / "predictor.json")
    heat_map(gain, f"gain over single-task, {SIGNS[unit]}").savefig(out / "figure.svg", metadata={"Date": None})
    frame = found.single.assign(other="").reindex(columns=found.pairs.columns)
    DataFrame([*frame.to_dict("records"), *found.pairs.to_dict("records")]).to_csv(out / "scores.csv", index=False)
    gain.to_csv(out / "gains.csv")
    DataFrame(found.features).T.rename_axis("task").to_csv(out / "features.csv")
    flat = {name: table.rename_axis(index="main", columns="aux").stack() for name, table in found.affinities.items()}
    DataFrame(flat).to_csv(out / "affinities.csv")
    return "\n\n".join(parts)


def _or_reason(what: str, make: Callable[[], Table]) -> str:
    try:
        return make().markdown()
    except UserError as error:
        return f"Not told, {what}: {error}."


def singles(single: DataFrame) -> Table:
    """Each task alone."""
    rows = [
        [task, own["metric"].iloc[0], _spread(100 * own["score"]), f"{own['rows'].iloc[0]:,}"]
        for task, own in single.groupby("task", sort=False)
    ]
    note = f"Mean and standard deviation over {single['seed'].nunique()} seeds. Gains are changes of these."
    return Table("Each task alone", ["task", "metric", "score", "validation rows"], rows, note=note)


def matrix(gain: DataFrame, unit: Unit) -> Table:
    """The gains, with half the width of their intervals; bold where these leave zero out."""
    tasks = list(dict.fromkeys(gain.index.get_level_values("main")))
    rows, bold = [], set()
    for r, main in enumerate(tasks):
        cells = []
        for c, aux in enumerate(tasks):
            if main == aux:
                cells.append("")
                continue
            one = gain.loc[(main, aux)]
            half = (one["high"] - one["low"]) / 2
            cells.append(f"{one['gain']:+.1f}" + (f" ± {half:.1f}" if np.isfinite(half) else ""))
            if one["low"] > 0 or one["high"] < 0:
                bold.add((r, c + 1))
        rows.append([main, *cells])
    note = (
        f"Rows are main tasks, columns auxiliary ones; {int((gain['gain'] > 0).sum())} of {len(gain)} are gains. "
        f"95 % intervals over {gain['seeds'].iloc[0]} seeds, each for itself: of as many pairs without any effect "
        f"{0.05 * len(gain):.0f} would be bold."
    )
    return Table(f"Gain over single-task, {SIGNS[unit]}", ["main", *tasks], rows, frozenset(bold), note)


def agreements(found: Relations, gain: Series, x: DataFrame, unit: Unit) -> Table:
    """How well each affinity foretells the gains; see `Agreement`."""
    agreed, missing = {}, []
    moved = gain.groupby("main").transform("nunique") > 1
    for main in gain[~moved].index.unique("main"):
        missing.append(f"`{main}` scores the same beside every task, no order, and is left out as a main task.")
    gain, x = gain[moved], x[moved]
    if gain.empty:
        raise UserError("no main task has auxiliary tasks that it gains more or less by; add tasks")
    k = min(3, min(len(own) for _, own in gain.groupby("main")))
    tables = {**found.affinities, "others": _habit(gain), "size": _size(found.features)}
    with suppress(UserError):  # said below the table of its accuracy
        tables["features, unseen main task"] = predicted(x, gain)
    for name, table in tables.items():
        try:
            agreed[name] = agreement(gain, table, ks=(1, k))
        except UserError as error:
            missing.append(f"`{name}` is not told: {error}.")
    if not agreed:
        raise UserError(" ".join(missing).rstrip("."))
    p = holm([one.spearman.p for one in agreed.values()])
    rows = [_agreement_row(name, one, k) for name, one in agreed.items()]
    bold = {(r, 1) for r in range(len(rows)) if p[r] < 0.05}
    means = next(iter(agreed.values())).by_main.mean()
    rows.append([
        "random order", "0", "0", f"{means['random_regret@1']:.1f}", f"{means[f'random_regret@{k}']:.1f}",
        f"{means['mean_gain']:+.1f}",
    ])  # fmt: skip
    heads = ["affinity", "rank correlation", "over all pairs", "regret@1", f"regret@{k}", "gain of its first"]
    note = (
        "Rank correlation (Spearman) of affinity and gain over a main task's auxiliary tasks, mean over main tasks, "
        "with a 95 % interval; bold after Holm. regret@k: by how much the best gain exceeds the best of the k tasks of "
        f"highest affinity, {SIGNS[unit]}. `others` is a task's mean gain to other main tasks, and needs the matrix; "
        "`size` its training rows."
    )
    return Table("What foretells the gains", heads, rows, frozenset(bold), " ".join([note, *missing]))


def _agreement_row(name: str, one: Agreement, k: int) -> list[str]:
    means = one.by_main.mean()
    interval = f"{one.spearman.mean:+.2f} [{one.spearman.low:+.2f}, {one.spearman.high:+.2f}]"
    return [
        name, interval, f"{one.all_pairs:+.2f}", f"{means['regret@1']:.1f}", f"{means[f'regret@{k}']:.1f}",
        f"{means['top_gain@1']:+.1f}",
    ]  # fmt: skip


def _habit(gain: Series) -> DataFrame:
    """What an auxiliary task gains other main tasks on average."""
    table = gain.unstack("aux")
    others = {
        main: {aux: table[aux].drop(index=main).mean() for aux in table if aux != main} for main in table.index
    }  # the auxiliary task's own row is NaN
    return DataFrame(others).T


def _size(features: Mapping[str, Mapping[str, float]]) -> DataFrame:
    """The auxiliary task's training rows, which every better idea has to beat."""
    return DataFrame({main: {task: values["size"] for task, values in features.items()} for main in features}).T


def predictions(x: DataFrame, gain: Series) -> Table:
    """Accuracy and F1 of the predictor beside those without features."""
    ways = {
        "shuffled folds": [shuffled_folds(len(gain), seed) for seed in range(SHUFFLES)],
        "unseen main task": [main_task_folds(x)],
    }
    found: dict[str, list[str]] = {}
    for some in ways.values():
        featureless = [trivial(gain, folds) for folds in some]
        accuracies = {"features": [cross_validated(x, gain, folds) for folds in some]}
        accuracies |= {name: [one[name] for one in featureless] for name in featureless[0]}
        for name, each in accuracies.items():
            mean = np.mean([(one.accuracy, one.f1) for one in each], axis=0)
            found.setdefault(name, []).append(f"{mean[0]:.3f} / {mean[1]:.3f}")
    rows = [[name, *cells] for name, cells in found.items()]
    note = "Accuracy / F1 of the sign of a gain. `features`: logistic regression; the others know no feature."
    return Table("Who gains, predicted", ["predictor", *ways], rows, note=note)


def leanings(x: DataFrame, gain: Series) -> Table:
    """The largest coefficients of the predictor that is saved (Bingel & Søgaard 2017, table 4)."""
    found = coefficients(x, gain, draws=DRAWS)
    largest = found.reindex(found["value"].abs().sort_values(ascending=False, kind="stable").index).head(SHOWN)
    rows = [[str(name), f"{one['value']:+.2f}", f"{one['low']:+.2f} to {one['high']:+.2f}"]
            for name, one in largest.iterrows()]  # fmt: skip
    note = (
        f"The {len(rows)} largest of {len(found)} coefficients of the saved logistic regression, features scaled to "
        "[0, 1]; intervals over draws of main tasks. They say what it leans on, not what causes a gain."
    )
    return Table("What the predictor leans on", ["feature", "coefficient", "95 % interval"], rows, note=note)


def cost_table(costs: DataFrame) -> Table:
    """What each kind of work took, over all seeds."""
    rows = [
        [work, f"{one['flops'] / 1e12:,.2f}" if np.isfinite(one["flops"]) else "", f"{one['seconds']:,.0f}"]
        for work, one in costs.iterrows()
    ]
    return Table("Cost, all seeds", ["", "TFLOP", "s"], rows)


def _spread(values: Series) -> str:
    return f"{values.mean():.1f}" + (f" ± {values.std():.1f}" if len(values) > 1 else "")
