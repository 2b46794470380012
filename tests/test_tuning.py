"""The search over cells: what is searched, on which rows, and that a killed search goes on as if it had not been."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from fastmtl.cli import tune
from fastmtl.cli.compose import compose
from fastmtl.cli.main import main
from fastmtl.cli.tune import Search, parse
from fastmtl.errors import UserError

RATE = "finetune.fit.learning_rate=tag(log,interval(1e-4,1e-2))"


def test_a_space_is_written_as_a_sweep_is() -> None:
    fixed, space = parse([
        "encoder=tiny", RATE, "finetune.fit.epochs=range(2,9,2)", "sampling=uniform,proportional",
        "finetune.fit.dropout=interval(0,0.3)", "budget=tag(int,log,interval(10,1000))", "x=range(0.0,0.3,0.1)",
    ])  # fmt: skip
    assert fixed == ("encoder=tiny",)
    assert space == {
        "finetune.fit.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "finetune.fit.epochs": IntDistribution(2, 8, step=2),
        "sampling": CategoricalDistribution(["uniform", "proportional"]),
        "finetune.fit.dropout": FloatDistribution(0, 0.3),
        "budget": IntDistribution(10, 1000, log=True),
        "x": CategoricalDistribution(["0.0", "0.1", "0.2"]),
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["rates", "encoder=tiny"], "nothing to search; give a key several values"),
        (["rates", "seed=1,2"], "seed=1,2 cannot be searched"),
        (["rates", "primary=mails,calls"], "primary=mails,calls cannot be searched"),
        (["rates", "finetune.fit.learning_rate=tag(log,interval(0,1))"], "interval(0,1)) is no range to search"),
        (["rates", "finetune.fit.epochs=interval(3,1)"], "interval(3,1) is no range to search"),
        (["rates", "finetune.fit.epochs=interval(3"], "at input 'interval(3'"),
        (["budget=1,2", "seed=0"], "'budget=1,2' cannot name a folder; the name comes first"),
        (["rates", "bugdet=1,2"], "did you mean 'budget'?"),
        (["rates", "budget=0,5"], "budget=0 is out of range"),
    ],
)
@pytest.mark.usefixtures("own_environment")
def test_bad_input_is_one_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["tune", *arguments, f"paths.output={tmp_path}"])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert told in error
    assert error.count("\n") == 1


@pytest.fixture
def searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The last override of each cell that was asked for; the value is known, the third cell of a process dies."""
    asked: list[str] = []

    def value(*overrides: str) -> float:
        rate = next(float(one.split("=")[1]) for one in overrides if one.startswith("finetune.fit.learning_rate"))
        asked.append(f"{rate} {overrides[-1]}")
        if len(asked) == 3:
            raise KeyboardInterrupt
        return 1 - rate

    monkeypatch.setattr(tune, "_value", value)
    return asked


def search(output: Path, trials: int, rate: str = RATE) -> Search:
    return Search("rates", *parse(["encoder=tiny", "selection=none", rate, f"paths.output={output}"]), trials, 2)


def test_a_killed_search_loses_one_trial_and_proposes_it_again(searches: list[str], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "a", trials=4).run()
    killed = searches[2]
    study = search(tmp_path / "a", trials=4).run()
    assert searches[3] == killed
    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE, TrialState.FAIL, *[TrialState.COMPLETE] * 3
    ]  # fmt: skip
    assert [one.split()[1] for one in searches[3:]] == ["seed=0", "seed=1"] * 3
    undisturbed = search(tmp_path / "b", trials=4).run()
    assert [t.params for t in study.trials if t.value is not None] == [t.params for t in undisturbed.trials]
    assert len(search(tmp_path / "a", trials=4).run().trials) == 5  # there are enough
    with pytest.raises(UserError, match=r"search 'rates' was begun with .* choose another name"):
        search(tmp_path / "a", trials=6, rate="finetune.fit.learning_rate=interval(0.1,0.2)").run()


def test_a_failing_trial_counts_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = iter([float("nan"), 0.5])
    monkeypatch.setattr(tune, "_value", lambda *_: next(values))
    single = Search("rates", *parse(["selection=none", "encoder=tiny", "budget=5,6", f"paths.output={tmp_path}"]), 2, 1)
    study = single.run()
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    out = capsys.readouterr().out
    assert "failed: its metric is not defined" in out
    assert "to report it: fastmtl -m" in out


@pytest.mark.parametrize("protocol", ["strict", pytest.param("paper", marks=pytest.mark.slow)])
def test_the_value_is_that_of_the_rows_that_choose(protocol: str, tmp_path: Path) -> None:
    overrides = (
        "encoder=tiny", "selection=none", "data.rows_per_task=60", "finetune.fit.epochs=1", f"protocol={protocol}",
        f"paths.output={tmp_path}",
    )  # fmt: skip
    value = tune._value(*overrides)
    reported = compose(*overrides).finetune().read("metrics.json")["validation"]["accuracy"]
    if protocol == "paper":
        assert value == pytest.approx(reported)
    else:
        assert 6 * value == pytest.approx(round(6 * value), abs=1e-5)  # a tenth of 60 rows was held out
