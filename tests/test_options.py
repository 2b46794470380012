"""Options are coerced and checked once, when an instance is made; what does not fit is one line."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from fastmtl.cli.compose import compose
from fastmtl.errors import UserError
from fastmtl.options import (
    Count,
    Fraction,
    Natural,
    NonNegative,
    Number,
    OptionError,
    Portion,
    Positive,
    Rate,
    Several,
    Share,
    describe,
    options,
)

# --- every option class of the package -------------------------------------------------------------------------------

ONLINE, PLANNED, WEIGHTING = "data.batching.online", "data.batching.planned", "training.weighting"
BUCKETS = ("length_bucket_batches", "many", 0, 4.0, 4)
ROWS = {"fit": None}
TABLE: list[tuple[str, dict[str, Any], str, Any, Any, Any, Any]] = [
    # class, what else it needs, an option, a wrong type, a value out of range, one to be coerced, and into what
    ("training.config.FitConfig", {}, "epochs", "many", 0, 2.0, 2),
    ("training.config.Hardware", {}, "accumulate", "auto", 0, "4", 4),
    ("models.encoder.EncoderSpec", {"name": "tiny"}, "max_length", "long", 3, 64.0, 64),
    ("models.bilstm.BiLSTMSpec", {}, "dropout", "some", 1, 0, 0.0),
    ("mixing.MixingSearch", {}, "trials", None, 0, 5.0, 5),
    ("data.sources.formats.Reading", {}, "validation_share", "some", 1.5, "0.2", 0.2),
    (f"{PLANNED}.Proportional", {}, *BUCKETS),
    (f"{PLANNED}.Uniform", {}, *BUCKETS),
    (f"{PLANNED}.UniformBatches", {}, "batches", "many", 0, 40.0, 40),
    (f"{PLANNED}.Temperature", {}, "temperature", "hot", 0, 3, 3.0),
    (f"{PLANNED}.Ratio", {}, "ratios", 3, (1, -1), [2.0, "1"], (2, 1)),
    (f"{ONLINE}.ThompsonSampling", {}, "primary_prior", (1,), (1, 0), [2, 1], (2.0, 1.0)),
    (f"{ONLINE}.Exp3Sampling", {}, *BUCKETS),
    (f"{ONLINE}.Ucb1Sampling", {}, "smoothing", "some", 1.1, 1, 1.0),
    (f"{WEIGHTING}.Equal", {}, "parts", "all", 0, 2.0, 2),
    (f"{WEIGHTING}.LogSize", {}, "parts", "all", 0, 2.0, 2),
    (f"{WEIGHTING}.Uncertainty", {}, "learning_rate", "slow", 1, "0.1", 0.1),
    (f"{WEIGHTING}.GradNorm", {}, "alpha", [1], -1, 2, 2.0),
    (f"{WEIGHTING}.PCGrad", {}, "parts", "all", 1, 3.0, 3),
    (f"{WEIGHTING}.CAGrad", {}, "c", "most", -0.1, 1, 1.0),
    (f"{WEIGHTING}.UPGrad", {}, "parts", "all", 1, 3.0, 3),
    ("scoring.discriminator.Discriminator", {}, "loss", 1, "mse", "bce", "bce"),
    ("scoring.embedding.Embedding", {}, "targets", "all", 0, 10.0, 10),
    ("scoring.ngram_importance.NgramImportance", {}, "buckets", "many", 2**32, 100.0, 100),
    ("plans.ProxyPlan", ROWS, "examples_per_task", "all", 0, 50.0, 50),
    ("plans.BanditPlan", ROWS, "holdout", "half", 1, "0.5", 0.5),
    ("plans.RelationsPlan", ROWS, "batches", "all", 99, 100.0, 100),
    ("plans.CascadeLevel", {}, "layers", "all", 0, 2.0, 2),
    ("plans.ScoringPlan", {}, "audit", "all", -1, 7.0, 7),
    ("plans.Protocol", {}, "holdout", "some", 0, "0.2", 0.2),
    ("selection.tasks.BestTasks", {}, "top", "all", -1, 3.0, 3),
    ("cli.compose.Plain", {"study": None}, "seed", "one", -1, 3.0, 3),
]
WITHOUT_RANGES = {
    "SelectionPlan", "PickedTasks", "TopK", "Random", "MatchedRandom", "Full", "NoAuxiliary", "Surgery", "Paths",
}  # fmt: skip


def class_at(path: str) -> Any:
    module, _, name = f"fastmtl.{path}".rpartition(".")
    return getattr(import_module(module), name)


def test_the_table_has_every_option_class(root: Path) -> None:
    texts = [path.read_text() for path in (root / "fastmtl").rglob("*.py")]
    found = {name for text in texts for name in re.findall(r"^@options\nclass (\w+)", text, re.MULTILINE)}
    assert found == {path.rpartition(".")[2] for path, *_ in TABLE} | WITHOUT_RANGES


@pytest.mark.parametrize(
    ("path", "needed", "name", "wrong", "outside", "given", "becomes"), TABLE, ids=[one[0] for one in TABLE]
)
def test_every_option_class_refuses_and_coerces(
    path: str, needed: dict[str, Any], name: str, wrong: Any, outside: Any, given: Any, becomes: Any
) -> None:
    cls = class_at(path)
    for value in (wrong, outside):
        with pytest.raises(OptionError, match=r"^\w+(\[\d\])?=.* does not fit; use ") as refused:
            cls(**needed, **{name: value})
        assert "\n" not in str(refused.value)
        assert str(refused.value).startswith(name)
    made = cls(**needed, **{name: given})
    assert getattr(made, name) == becomes
    assert type(getattr(made, name)) is type(becomes)
    assert made == cls(**needed, **{name: becomes})
    assert pickle.loads(pickle.dumps(made)) == made
    with pytest.raises(FrozenInstanceError):
        setattr(made, name, given)
    with pytest.raises(OptionError, match=r"^no_option is unknown; the options are "):
        cls(**needed, **{name: given}, no_option=1)


# --- what an error says ----------------------------------------------------------------------------------------------


@options
class Cake:
    """All forms of options."""

    layers: Count
    cream: Portion | None = 0.5
    kind: Literal["plain", "nut"] = "plain"
    eggs: tuple[Natural, ...] = ()
    oven: tuple[Positive, Positive] = (180.0, 40.0)
    tins: Literal["auto"] | Count = "auto"
    iced: bool = False
    name: str | None = None
    notes: Mapping[str, Any] = Field(default_factory=dict)
    shop: Annotated[str, Field(min_length=1, description="the name of a shop")] = "corner"
    taste: ClassVar[str] = "sweet"

    def __post_init__(self) -> None:
        if self.iced and self.kind == "nut":
            raise UserError("cake.iced=true does not go with kind=nut; use plain")


KNOWN = "layers, cream, kind, eggs, oven, tins, iced, name, notes, shop"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"layers": 0}, "layers=0 does not fit; use a whole number of 1 or more"),
        ({"layers": 2.5}, "layers=2.5 does not fit; use a whole number of 1 or more"),
        ({"layers": True}, "layers=True does not fit; use a whole number of 1 or more"),
        ({"layers": None}, "layers=None does not fit; use a whole number of 1 or more"),
        ({"layers": "two"}, "layers='two' does not fit; use a whole number of 1 or more"),
        ({"cream": 0}, "cream=0 does not fit; use a number above 0 and at most 1 or null"),
        ({"cream": float("nan")}, "cream=nan does not fit; use a number above 0 and at most 1 or null"),
        ({"kind": "fruit"}, "kind='fruit' does not fit; use one of plain, nut"),
        ({"eggs": 3}, "eggs=3 does not fit; use a list [a,b], each a whole number of 0 or more"),
        ({"eggs": [1, -2]}, "eggs[1]=-2 does not fit; use a list [a,b], each a whole number of 0 or more"),
        ({"oven": (1,)}, "oven=(1,) does not fit; use a list [a,b], each a number above 0"),
        ({"oven": (1, 2, 3)}, "oven=(1, 2, 3) does not fit; use a list [a,b], each a number above 0"),
        ({"oven": (1, 0)}, "oven[1]=0 does not fit; use a list [a,b], each a number above 0"),
        ({"tins": "all"}, "tins='all' does not fit; use one of auto or a whole number of 1 or more"),
        ({"tins": 0}, "tins=0 does not fit; use one of auto or a whole number of 1 or more"),
        ({"iced": "maybe"}, "iced='maybe' does not fit; use true or false"),
        ({"name": 3}, "name=3 does not fit; use a text or null"),
        ({"notes": 3}, "notes=3 does not fit; use a mapping {a: b}"),
        ({"shop": ""}, "shop='' does not fit; use the name of a shop"),
        ({"icing": 1}, f"icing is unknown; the options are {KNOWN}"),
        ({"taste": 1}, f"taste is unknown; the options are {KNOWN}"),
        ({"iced": True, "kind": "nut"}, "cake.iced=true does not go with kind=nut; use plain"),
    ],
    ids=str,
)  # fmt: skip
def test_an_error_names_the_option_the_value_and_what_to_use(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        Cake(**{"layers": 1, **values})
    assert str(refused.value) == said


def test_a_missing_option_is_named_with_the_others() -> None:
    with pytest.raises(OptionError, match=r"^layers is missing; the options are layers, cream, kind, "):
        Cake()  # type: ignore[call-arg]


def test_values_given_by_their_place_are_named_all_the_same() -> None:
    with pytest.raises(OptionError, match=r"^cream=2 does not fit; use a number above 0 and at most 1 or null$"):
        Cake(1, 2)
    with pytest.raises(OptionError, match=r"^eggs\[0\]=-1 does not fit"):
        Cake(1, 1, "nut", (-1,))


def test_replace_checks_again_and_coerces() -> None:
    cake = replace(Cake(1), layers=3.0, oven=[200, "30"])  # type: ignore[arg-type]
    assert cake == Cake(3, oven=(200.0, 30.0))
    with pytest.raises(OptionError, match=r"^layers=-1"):
        replace(cake, layers=-1)


def test_a_list_from_yaml_becomes_a_tuple_that_cannot_change() -> None:
    given = [1, 2]
    cake = Cake(1, eggs=given)  # type: ignore[arg-type]
    given.append(3)
    assert cake.eggs == (1, 2)


def test_under_puts_the_whole_key_before_an_error() -> None:
    with pytest.raises(OptionError) as refused:
        Cake(1, oven=(1, 0))
    assert str(refused.value.under("bakery.cake")).startswith("bakery.cake.oven[1]=0 does not fit; use a list")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("multitask.fit.epochs=0", "multitask.fit.epochs=0 does not fit; use a whole number of 1 or more"),
        ("finetune.fit.schedule=cosine", "finetune.fit.schedule='cosine' does not fit; use one of linear, constant"),
        ("trainer.accumulate=two", "trainer.accumulate='two' does not fit; use a whole number of 1 or more"),
        ("protocol.holdout=1", "protocol.holdout=1 does not fit; use a number above 0 and below 1"),
        ("bandit.policy.prior=[1,0]", "bandit.policy.prior[1]=0 does not fit; use a list [a,b], each a number above 0"),
        ("scoring.levels.small.layers=0",
         "scoring.levels.small.layers=0 does not fit; use a whole number of 1 or more or null"),
    ],
)  # fmt: skip
def test_the_command_line_puts_the_whole_key_before_an_error(override: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        compose("encoder=tiny", override)
    assert str(refused.value) == said


# --- annotations in words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Count, "a whole number of 1 or more"),
        (Several, "a whole number of 2 or more"),
        (Natural, "a whole number of 0 or more"),
        (Share, "a number above 0 and below 1"),
        (Portion, "a number above 0 and at most 1"),
        (Rate, "a number of 0 or more and below 1"),
        (Fraction, "a number of 0 or more and at most 1"),
        (Positive, "a number above 0"),
        (NonNegative, "a number of 0 or more"),
        (Number, "a number"),
        (Annotated[Count, Field(ge=4)], "a whole number of 4 or more"),
        (Annotated[int, Field(le=9)], "a whole number, at most 9"),
        (Annotated[str, Field(pattern="a", description="HOST:PORT")], "HOST:PORT"),
        (Annotated[str, Field(pattern="a", description="HOST:PORT")] | None, "HOST:PORT or null"),
        (Literal["a", "b"], "one of a, b"),
        (Literal["a", None], "one of a, null"),
        (Literal["auto"] | Count | None, "one of auto or a whole number of 1 or more or null"),
        (tuple[int, ...], "a list [a,b], each a whole number"),
        (list[str], "a list [a,b], each a text"),
        (tuple, "a list [a,b]"),
        (dict[str, int], "a mapping {a: b}"),
        (Mapping[str, Any], "a mapping {a: b}"),
        (bool, "true or false"),
        (Cake, "an option of the type Cake"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # an annotation's looks are an address in memory
)
def test_an_annotation_in_words(hint: Any, words: str) -> None:
    assert describe(hint) == words


@pytest.mark.parametrize(
    ("hint", "inside", "outside"),
    [
        (Count, [1, "3", 2.0], [0, -1, 1.5, True, None, "x"]),
        (Several, [2], [1]),
        (Natural, [0], [-1, False]),
        (Share, [0.5, "0.1"], [0, 1, True, float("nan")]),
        (Portion, [1, 0.1], [0, 1.01, True]),
        (Rate, [0, 0.9], [1, -0.1, False]),
        (Fraction, [0, 1, 0.5], [-0.1, 1.1, True]),
        (Positive, [1e-9, 10], [0, float("inf"), float("nan")]),
        (NonNegative, [0, 10], [-1, float("inf")]),
        (Number, [-5, 0.5], [float("inf"), float("nan"), True, "x"]),
    ],
    ids=["Count", "Several", "Natural", "Share", "Portion", "Rate", "Fraction", "Positive", "NonNegative", "Number"],
)
def test_the_ranges_of_the_common_types(hint: Any, inside: list[Any], outside: list[Any]) -> None:
    one: Any = options(type("One", (), {"__annotations__": {"value": hint}, "__module__": __name__}))
    for value in inside:
        assert one(value).value == float(value)
    for value in outside:
        with pytest.raises(OptionError):
            one(value)


def test_a_class_of_options_has_its_fields_alone() -> None:
    assert [field.name for field in fields(Cake)] == KNOWN.split(", ")  # type: ignore[arg-type]
