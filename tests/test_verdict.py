"""The verdict: which arms are trained under a stated cost, and whether the answer is what the runs bear out."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from fastmtl.cli.compose import compose
from fastmtl.cli.main import main
from fastmtl.errors import UserError
from fastmtl.pipelines import verdict
from fastmtl.pipelines.verdict import ALONE, Arm, Ledger, Trial, compete, ladder, leave_out
from fastmtl.reporting import verdict as words
from fastmtl.reporting.verdict import Difference, decide
from fastmtl.stats import half_width, noise, p_value
from tests.helpers.cells import ONE_EPOCH, SMALL

KINDS: dict[str, Any] = {"none": "alone", "primary_only": "alone", "random": "random", "full": "all"}
TASKS = {"mails": 30, "forum": 10, "calls": 0}


def runner(score: Any, seconds: float = 10.0) -> Any:
    """Cells of these scores; the proxy is shared by all chosen arms of a seed."""

    def run(arm: Arm, seed: int) -> dict[str, Any]:
        cost = seconds * (1 + (1600 if arm.selection == "full" else arm.budget or 0) / 100)
        stages = [{"stage": "finetune", "key": f"{arm}{seed}", "wall_s": cost, "flops": 1e9 * cost}]
        if arm.chooses:
            stages.append({"stage": "proxy", "key": str(seed), "wall_s": 2 * seconds, "flops": 2e9 * seconds})
        return {
            "id": f"{arm}{seed}", "seed": seed, "headline": score(arm, seed), "stages": stages, "counts": TASKS,
            "total": {"flops": 1e9 * cost}, "auxiliary_rows": arm.budget or 0, "metric": "accuracy",
        }  # fmt: skip

    return run


def trial(score: Any, minutes: float = 60, **options: Any) -> Trial:
    return Trial(runner(score, **options), Ledger("wall_s", 60 * minutes))


BY_NAME = {"feature_similarity": 0.8, "embedding": 0.7, "ngram_importance": 0.6}


def by_name(arm: Arm, seed: int) -> float:
    return BY_NAME.get(arm.selection, 0.5) + seed / 1000 + (arm.budget or 0) / 1e6


def test_the_ladder_starts_at_the_size_of_the_primary_and_ends_at_half_of_the_candidates() -> None:
    assert ladder(10_000, 200) == (200, 800)
    assert ladder(1000, 300) == (300, 500)
    assert ladder(10, 300) == (5,)


@pytest.mark.parametrize(("rows", "batch"), [(2, 4), (56, 4), (130, 8), (300, 16), (500, 32), (100_000, 32)])
def test_small_primaries_have_small_batches(rows: int, batch: int) -> None:
    assert verdict.batch_size(rows) == batch


def test_the_worse_half_stops_and_all_that_are_left_have_the_same_seeds() -> None:
    on_trial = trial(by_name, minutes=1000)
    left = compete(on_trial, (50, 100), list(BY_NAME), 10, 1600)
    seeds = {arm: [cell["seed"] for cell in cells] for arm, cells in on_trial.cells.items()}
    assert all(seeds[arm] == list(range(10)) for arm in left)
    assert {arm for arm in left if arm.chooses} == {Arm("feature_similarity", 50), Arm("feature_similarity", 100)}
    assert {*map(Arm, ALONE), Arm("random", 50), Arm("random", 100), Arm("full")} <= set(left)
    assert len(seeds[Arm("ngram_importance", 50)]) == verdict.SEEDS_PER_ROUND
    assert len(seeds[Arm("embedding", 100)]) == 2 * verdict.SEEDS_PER_ROUND  # three of six went on, then two
    assert on_trial.skipped == []


def test_a_random_arm_stops_with_the_last_chosen_arm_of_its_budget() -> None:
    left = compete(trial(lambda arm, seed: (arm.budget or 0) / 1000, 1000), (50, 100), list(BY_NAME), 10, 1600)
    assert Arm("random", 100) in left
    assert Arm("random", 50) not in left


def test_the_cost_is_kept_and_what_it_did_not_reach_for_is_said() -> None:
    on_trial = trial(by_name, minutes=6)
    left = compete(on_trial, (50, 100), list(BY_NAME), 10, 1600)
    assert on_trial.ledger.spent <= 6 * 60
    assert len(on_trial.cells[left[0]]) < 10
    assert any("All 1,600 auxiliary rows were not tried" in line for line in on_trial.skipped)
    assert any("Not tried, since the stated cost is too small: " in line for line in on_trial.skipped)


def test_a_stage_that_arms_share_is_paid_once() -> None:
    ledger = Ledger("flops", 1.0)
    cell = {"stages": [{"stage": "proxy", "key": "a", "flops": 5.0}, {"stage": "pool", "key": "b", "flops": None}]}
    assert ledger.add(cell) == 5.0
    assert ledger.add(cell) == 0.0
    assert ledger.spent == 5.0


def test_leaving_a_task_out_keeps_the_rows_of_the_others() -> None:
    on_trial, winner = trial(by_name), Arm("feature_similarity", 40)
    for seed in range(3):
        on_trial.train(winner, seed)
    pairs = leave_out(on_trial, winner, ["mails", "forum"])
    assert {task: len(own) for task, own in pairs.items()} == {"mails": 3, "forum": 3}
    assert [arm for arm in on_trial.cells if arm.exclude] == [
        Arm("feature_similarity", 10, ("mails",)), Arm("feature_similarity", 30, ("forum",)),
    ]  # fmt: skip
    assert all(a["seed"] == b["seed"] for own in pairs.values() for a, b in own)
    assert all("mails" not in str(cell["id"]) for cell in on_trial.results())


def test_a_task_that_gave_all_rows_leaves_the_primary_alone() -> None:
    on_trial, winner = trial(by_name), Arm("feature_similarity", 30)
    for seed in range(2):
        on_trial.train(winner, seed)
    leave_out(on_trial, winner, ["mails"])
    assert Arm("primary_only") in on_trial.cells


def test_leaving_tasks_out_is_skipped_where_it_cannot_be_paid() -> None:
    on_trial, winner = trial(by_name, minutes=1), Arm("feature_similarity", 40)
    for seed in range(2):
        on_trial.train(winner, seed)
    assert leave_out(on_trial, winner, ["mails", "forum"]) == {}
    assert "was not measured" in on_trial.skipped[-1]


# --- the answer ----------------------------------------------------------------------------------------------------


class OfHits:
    """Differences of simulated right answers: id -> (rows,) bool."""

    def __init__(self, hits: dict[str, np.ndarray]) -> None:
        self.hits, self.rows = hits, len(next(iter(hits.values())))

    def between(self, a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> Difference:
        apart = np.array([self.hits[x["id"]].astype(float) - self.hits[y["id"]] for x, y in zip(a, b)])
        covariance = np.cov(apart, bias=True) / self.rows
        known, mean = noise(apart.mean(axis=1), covariance, self.rows), float(apart.mean())
        half = float(half_width(known))
        return Difference(len(apart), mean, mean - half, mean + half, float(p_value(mean, known)), known)


def study(rng: np.random.Generator, rates: dict[str, float], rows: int, seeds: int) -> tuple[Any, dict[str, Any]]:
    """A score of arms whose rate of right answers is `rates`, by name and by default 0.7, and the hits behind it."""
    difficulty = rng.normal(size=rows)
    liking = {}
    hits: dict[str, np.ndarray] = {}

    def score(arm: Arm, seed: int) -> float:
        own = liking.setdefault(arm, 0.4 * rng.normal(size=rows))
        level = rates.get(arm.selection, 0.7) + 0.02 * rng.normal()
        latent = difficulty + own + 0.6 * rng.normal(size=rows)
        hits[f"{arm}{seed}"] = latent < np.sqrt(1 + 0.16 + 0.36) * _quantile(level)
        return float(hits[f"{arm}{seed}"].mean())

    return score, hits


def _quantile(p: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(min(max(p, 0.01), 0.99)))


def answer_of(
    rng: np.random.Generator, rates: dict[str, float], rows: int = 800, seeds: int = 10, minutes: float = 1000
) -> words.Verdict:
    score, hits = study(rng, rates, rows, seeds)
    on_trial = trial(score, minutes)
    left = compete(on_trial, (50, 100), ["feature_similarity", "embedding"], seeds, 1600)
    arms = [
        words.Arm(verdict.name(arm), KINDS.get(arm.selection, "chosen"), arm.budget or 0, on_trial.cells[arm])
        for arm in left
    ]
    return decide(arms, len(on_trial.cells) - len(left), OfHits(hits))  # type: ignore[arg-type]


def test_rows_that_help_are_recommended_with_what_they_are_worth() -> None:
    said = answer_of(np.random.default_rng(0), {"feature_similarity": 0.82, "embedding": 0.72, "full": 0.82})
    assert said.answer == "rows"
    assert said.arm.name.startswith("feature_similarity")
    assert said.sentences[0].startswith("Use the ")
    assert "against the primary alone (none)" in said.sentences[1]
    assert "as many random rows" in said.sentences[1]


def test_random_rows_are_recommended_where_chosen_ones_are_no_better() -> None:
    rates = dict.fromkeys(("feature_similarity", "embedding", "random"), 0.82)
    said = answer_of(np.random.default_rng(1), rates)
    assert said.answer == "any rows"


def test_everything_is_recommended_where_a_part_is_worse() -> None:
    assert answer_of(np.random.default_rng(2), {"full": 0.85}).answer == "everything"


def test_nothing_is_recommended_where_a_gain_is_excluded() -> None:
    rates = dict.fromkeys(("feature_similarity", "embedding", "random", "full"), 0.6)
    said = answer_of(np.random.default_rng(3), rates, rows=4000)
    assert said.answer == "nothing"
    assert said.arm.kind == "alone"


def test_few_rows_cannot_tell_and_say_what_would_be_needed() -> None:
    said = answer_of(np.random.default_rng(4), {"feature_similarity": 0.72}, rows=100, seeds=5)
    assert said.answer == "unclear"
    assert "seeds" in said.sentences[1]
    assert "100 validation rows" in said.sentences[1]


@pytest.mark.slow
def test_without_any_effect_auxiliary_rows_are_seldom_recommended() -> None:
    rng = np.random.default_rng(5)
    said = [answer_of(rng, {}, rows=300, seeds=6).answer for _ in range(300)]
    wrong = np.mean([one in ("rows", "any rows", "everything") for one in said])
    assert wrong <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(said))


def test_rows_of_an_excluded_task_cannot_be_chosen(tmp_path: Path) -> None:
    options = [*SMALL, "selection=random", "budget=20", f"paths.output={tmp_path}"]
    whole, part = compose(*options), compose(*options, "+selection.exclude=[mails]")
    assert "mails" in whole.candidates()
    assert set(whole.candidates()) - set(part.candidates()) == {"mails"}
    assert len(part.candidate_ids()) < len(whole.candidate_ids())
    with pytest.raises(UserError, match=r"selection\.exclude names 'chats', which is no auxiliary task"):
        compose(*options, "+selection.exclude=[chats]")


# --- the command ---------------------------------------------------------------------------------------------------


QUICK = ["encoder=tiny", "logger=none", *ONE_EPOCH, "proxy.examples_per_task=8"]
BRIEF = ["--minutes", "30", "--seeds", "2", "--selectors", "ngram_importance", "--budgets", "8"]
THINGS = ("lamp", "chair", "parcel", "invoice", "table", "window", "letter", "carpet")


def write_files(folder: Path) -> Path:
    """A primary with `;` between its columns and labels in capitals, and two other files of other forms."""
    folder.mkdir()
    said = [(f"the {THINGS[i % 8]} number {i} is {'late' if i % 2 else 'fine'}", i % 2) for i in range(40)]
    tickets = [f"{100 + i};{text};{'YES' if late else 'NO'}" for i, (text, late) in enumerate(said)]
    (folder / "tickets.csv").write_text("\n".join(["Ticket no;Message body;Is late", *tickets]) + "\n")
    mails = [
        json.dumps({"mail": {"text": f"dear all, {text}"}, "late": "YES" if late else "NO"}) for text, late in said
    ]
    (folder / "mails.jsonl").write_text("\n".join(mails) + "\n")
    pandas.DataFrame(
        {"comment": [f"I like the {text}" for text, _ in said], "stars": [late for _, late in said]}
    ).to_parquet(folder / "reviews.parquet")
    return folder


def test_files_end_in_a_verdict_with_its_rows_and_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["verdict", str(write_files(tmp_path / "files")), "primary=tickets", "--yes", *QUICK, *BRIEF]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert "| tickets | classification | Message body" in first
    out = tmp_path / "outputs" / "verdicts" / "verdict"
    said = json.loads((out / "verdict.json").read_text())
    assert said["answer"] == "unclear"  # two seeds answer nothing
    assert (Path(said["model"]) / "weights.safetensors").is_file()
    rows = pandas.read_parquet(out / "rows.parquet")
    assert {"task", "row", "text_a", "label", "chosen_by", "nearest"} <= set(rows)
    assert rows["rank"].tolist() == list(range(1, len(rows) + 1))
    assert set(rows["task"]) <= {"mails", "reviews"}
    page = (out / "report.html").read_text()
    assert "These runs cannot tell" in page
    assert page.count('class="searchable"') == 1
    assert main(arguments) == 0  # resumes: everything is found, and the answer is the same
    assert capsys.readouterr().out == first


def test_what_is_uncertain_is_asked_and_an_edited_file_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_files(tmp_path / "files")
    (folder / "notes.csv").write_text("text,other,label\n" + "".join(f"a b c {i},d e {i},{i % 2}\n" for i in range(9)))
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    arguments = ["verdict", str(folder), "primary=tickets", *QUICK, *BRIEF]
    with pytest.raises(SystemExit):
        main(arguments)
    said = capsys.readouterr()
    assert "question: notes: " in said.out
    listing = Path("outputs/verdicts/verdict/tasks.yaml")
    assert f"points are uncertain; edit {listing}" in said.err
    edited = listing.read_text() + "# mine\n"
    listing.write_text(edited)
    with pytest.raises(SystemExit):
        main(arguments)
    assert "differs from what the files say now" in capsys.readouterr().err
    assert listing.read_text() == edited


def test_files_that_cannot_be_used_are_named_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_files(tmp_path / "files")
    (folder / "broken.csv").write_text("text,label\n" + "a b c,x\n" * 9)
    with pytest.raises(SystemExit):
        main(["verdict", str(folder), "primary=tickets", "--yes", *QUICK, *BRIEF])
    said = capsys.readouterr()
    assert "fault: " in said.out
    assert "broken.csv have the class 'x' in 'label'" in said.out
    assert "1 of the files cannot be used" in said.err
    with pytest.raises(SystemExit):
        main(["verdict", str(write_files(tmp_path / "others")), *QUICK, *BRIEF])
    assert "say which task is yours: primary=NAME, one of mails, reviews, tickets" in capsys.readouterr().err
    assert not (tmp_path / "outputs" / "artifacts").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "1", "--tflop", "1"], "two limits"),
        (["--seeds", "1"], "two seeds or more"),
        (["--minutes", "0"], "a limit above 0"),
        (["--selectors", "best"], "selection=best is not an option"),
        (["--budgets", "a,b"], "--budgets a,b are no row counts"),
        (["nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_judged_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["verdict", *arguments, *SMALL])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
