"""What the bandit's history says, and the figure of it."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from fastmtl.bandit import BetaBernoulli, priors
from fastmtl.reporting.beliefs import Belief, beliefs
from fastmtl.reporting.figures import draw_bandit, posteriors, rounds, spread
from fastmtl.reporting.plots import save

NAMES = ["sst2", "wnli", "mnli", "mrpc", "rte", "qnli", "cola", "qqp", "stsb", "a_task_of_a_long_name"]
RATES = [0.62, 0.61, 0.56, 0.55, 0.46, 0.46, 0.42, 0.25, 0.5, 0.35]


def history(arms: int = 8, num_rounds: int = 60, decay: float = 0.0) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    bandit = BetaBernoulli(*priors(arms), decay)
    told = []
    for r in range(num_rounds):
        arm = bandit.choose(rng)
        reward = float(rng.random() < RATES[arm]) if r else None
        if reward is not None:
            bandit.update(arm, reward)
        told.append({"arm": NAMES[arm], "value": 0.5, "reward": reward, **bandit.state()})
    return {"arms": NAMES[:arms], "utilities": dict(zip(NAMES, bandit.utilities().tolist())), "rounds": told}


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_a_belief_is_the_last_rounds_beta_and_its_numbers_are_scipys(decay: float) -> None:
    bandit = history(decay=decay)
    told = beliefs(bandit)
    assert {one.task: pytest.approx(one.utility) for one in told} == {
        name: bandit["utilities"][name] for name in bandit["arms"]
    }
    x = np.linspace(0.1, 0.9, 5)
    for one, alpha, beta in zip(told, bandit["rounds"][-1]["alpha"], bandit["rounds"][-1]["beta"]):
        expected = stats.beta(alpha, beta)
        assert one.interval() == pytest.approx((expected.ppf(0.025), expected.ppf(0.975)))
        np.testing.assert_allclose(one.density(x), expected.pdf(x))
        assert one.above_half == pytest.approx(expected.sf(0.5))


def test_rounds_are_counted_and_the_first_one_has_no_reward() -> None:
    told = beliefs(history())
    assert sum(one.played for one in told) == 60
    assert sum(one.compared for one in told) == 59
    for one, prior in zip(told, [2, 1, 1, 1, 1, 1, 1, 1]):  # without decay, counts
        assert one.alpha == prior + one.rewarded
        assert one.beta == 1 + one.compared - one.rewarded


def test_a_grey_line_stands_where_the_model_went_back() -> None:
    bandit = history()
    for after in (20, 40, 60):  # nothing is drawn behind the last round
        bandit["rounds"][after - 1]["back"] = True
    figure = Figure()
    rounds(bandit, figure)
    for axes in figure.axes:
        lines = [line for line in axes.lines if line.get_color() == "#BBBBBB"]
        assert [line.get_xdata()[0] for line in lines] == [20.5, 40.5]


@pytest.mark.parametrize(
    ("alpha", "beta", "mode"), [(3, 2, 2 / 3), (2, 1, 1), (1, 2, 0), (1, 1, 0.5), (0.5, 3, 0), (0.4, 0.1, 0.8)]
)
def test_the_mode_also_where_the_density_is_highest_at_an_end(alpha: float, beta: float, mode: float) -> None:
    assert Belief("a", alpha, beta, 0, 0, 0.0).mode == pytest.approx(mode)


def test_the_svg_names_every_task_and_is_the_same_twice(tmp_path: Path) -> None:
    bandit = history(arms=10)
    for name in ("a.svg", "b.svg"):
        save(draw_bandit(bandit, ["wnli", "mnli"]), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    text = (tmp_path / "a.svg").read_text()
    words = ["".join(node.itertext()) for node in ElementTree.fromstring(text).iter() if node.tag.endswith("}text")]
    for name in NAMES:
        assert words.count(name) == 4  # a row and a curve in each panel
    assert "dashed: tasks above 0.5 are chosen" in words
    assert "<dc:date>" not in text


def test_extreme_histories_are_drawn_too(tmp_path: Path) -> None:
    single = history(num_rounds=1)
    sharp = {**single, "rounds": [{**single["rounds"][0], "alpha": [0.5] * 8, "beta": [0.2] * 8}]}
    for bandit in (single, sharp, history(arms=2, num_rounds=200)):
        save(draw_bandit(bandit, threshold=None), tmp_path / "a.svg")
        text = (tmp_path / "a.svg").read_text()
        assert "dashed" not in text
        assert "nan" not in text


@pytest.mark.parametrize("draw", [posteriors, rounds])
def test_names_do_not_touch(draw: Any) -> None:
    figure = Figure(figsize=(7, 6), layout="constrained")
    draw({**history(arms=10, num_rounds=5)}, figure)
    figure.draw_without_rendering()
    upper, lower = figure.axes
    names = [text for text in upper.texts if text.get_text()]
    assert len(names) == 10
    # Slanted names are apart if turned back they are: it is their places that are spread.
    x, y = np.array([text.get_transform().transform(text.get_position()) for text in names]).T / figure.dpi
    apart = np.diff(np.sort(x)) * np.sin(np.radians(40)) if draw is posteriors else np.diff(np.sort(y))
    assert apart.min() > 0.125  # inches: 9 points
    labels = [label.get_window_extent() for label in lower.get_yticklabels()]
    assert all(a.y0 > b.y0 + 0.125 * figure.dpi for a, b in pairwise(labels))
    assert min(label.x0 for label in labels) >= 0


def test_spread_names_stay_in_order_in_range_and_where_they_can() -> None:
    assert spread([0.1, 0.5, 0.9], 0.1, 0, 1).tolist() == pytest.approx([0.1, 0.5, 0.9])
    assert spread([0.5, 0.5, 0.5], 0.1, 0, 1).tolist() == pytest.approx([0.4, 0.5, 0.6])
    assert spread([0.0, 0.0, 1.0, 1.0], 0.1, 0, 1).tolist() == pytest.approx([0.0, 0.1, 0.9, 1.0])
    assert spread([0.2] * 5, 0.5, 0, 1).tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert spread([0.2], 0.5, 0, 1).tolist() == [0.2]


def test_only_drawing_imports_matplotlib_and_pyplot_never_is() -> None:
    code = (
        "import sys; from fastmtl.reporting import figures, table; assert 'matplotlib' not in sys.modules; "
        "from matplotlib.figure import Figure; "
        "one = {'arm': 'a', 'value': 0, 'reward': None, 'alpha': [2, 1], 'beta': [1, 1]}; "
        "figures.posteriors({'arms': ['a', 'b'], 'rounds': [one]}, Figure()); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
