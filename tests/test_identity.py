"""Keys: what counts, what does not, and what is refused because its content could not be told from its looks."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from fastmtl.data.batching.planned import Ratio, Temperature
from fastmtl.identity import digest, plain, stable_name
from fastmtl.options import Count, options
from fastmtl.training.config import FitConfig
from fastmtl.training.weighting import Equal, GradNorm


@dataclass(frozen=True)
class Plain:
    a: Any = 1
    b: Any = 2


@dataclass(frozen=True)
class Versioned(Plain):
    version: ClassVar[int] = 1


@dataclass(frozen=True)
class OwnIdentity:
    place: str
    content: str

    def identity(self) -> list[str]:
        return [self.content]


def test_a_digest_is_sixteen_digits_and_the_same_on_every_machine() -> None:
    """Committed results name artifacts by such keys."""
    written = b'[1, "a", null, true, 0.5, [["k", [2]]]]'
    assert digest([1, "a", None, True, 0.5, {"k": [2]}]) == hashlib.sha256(written).hexdigest()[:16]
    assert hashlib.sha256(written).hexdigest()[:16] == "50575f731b22c254"
    assert digest(Equal()) == digest(Equal())
    assert len(digest(None)) == 16


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, 2], [2, 1]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (Ratio((1, 2)), Ratio((2, 1))),
        (FitConfig(callbacks={"a": {"x": 1}, "b": {}}), FitConfig(callbacks={"b": {}, "a": {"x": 1}})),
        (FitConfig(epochs=2), FitConfig(epochs=3)),
        (FitConfig(precision="fp32"), FitConfig(precision="bf16")),
        (Equal(parts=4), GradNorm(parts=4)),
        (Plain(None), Plain("None")),
        (Plain(1), Plain("1")),
        (Plain(True), Plain("true")),
        (Plain([]), Plain(None)),
        (Plain([[1], [2]]), Plain([[1, 2]])),
        (Plain(Plain(1, 2), 3), Plain(1, Plain(2, 3))),
        (OwnIdentity("here", "x"), OwnIdentity("here", "y")),
    ],
    ids=str,
)
def test_another_value_or_another_order_is_another_key(one: Any, other: Any) -> None:
    assert digest(one) != digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (FitConfig(epochs=2.0, weight_decay=0), FitConfig(epochs=2, weight_decay=0.0)),
        (FitConfig(learning_rate="2e-5"), FitConfig(learning_rate=0.00002)),
        (Temperature(2), Temperature(2.0)),
        (Ratio([1.0, 2]), Ratio((1, 2))),
        (OwnIdentity("here", "x"), OwnIdentity("there", "x")),
        (Plain(np.int64(3), np.float32(0.5)), Plain(3, 0.5)),
        (Plain((1, 2)), Plain([1, 2])),
    ],
    ids=str,
)
def test_the_same_value_however_it_was_written_is_the_same_key(one: Any, other: Any) -> None:
    assert digest(one) == digest(other)


def test_without_coercion_a_whole_number_and_a_fraction_would_differ() -> None:
    """Which is why keys are made of options, not of what was typed."""
    assert digest(2) != digest(2.0)


def test_a_dataclass_is_its_name_its_version_and_its_fields_in_order() -> None:
    package = __name__.partition(".")[0]
    assert plain(Plain(1, [2])) == [f"{package}.Plain", [["a", 1], ["b", [2]]]]
    assert plain(Versioned()) == [f"{package}.Versioned", 1, [["a", 1], ["b", 2]]]
    assert plain(GradNorm(alpha=1, parts=2)) == [
        "GradNorm", [["alpha", 1.0], ["learning_rate", 0.025], ["parts", 2]]
    ]  # fmt: skip
    assert plain({"k": Plain()}) == [["k", plain(Plain())]]


def test_another_version_is_another_key() -> None:
    before = digest(Versioned())
    later = type("Versioned", (Versioned,), {"version": 2, "__module__": __name__, "__qualname__": "Versioned"})
    assert digest(later()) != before
    same = type("Versioned", (Versioned,), {"version": 1, "__module__": __name__, "__qualname__": "Versioned"})
    assert digest(same()) == before


def test_a_name_outlives_its_files_place_and_tells_packages_apart() -> None:
    assert stable_name(FitConfig) == "FitConfig"

    def moved(module: str) -> Any:
        return make_dataclass("Mine", ["a"], frozen=True, namespace={"__module__": module})

    for module in ("their.losses", "their.other.place"):
        cls = moved(module)
        cls.__module__ = module
        assert stable_name(cls) == "their.Mine"
    ours, theirs = moved("fastmtl.x"), moved("their.x")
    ours.__module__, theirs.__module__ = "fastmtl.x", "their.x"
    assert digest(ours(1)) != digest(theirs(1))


def test_a_field_with_a_new_default_is_part_of_the_key() -> None:
    @options
    class Small:
        a: Count = 1

    @options
    class Larger:
        a: Count = 1
        b: Count = 1

    Larger.__qualname__ = Small.__qualname__
    assert digest(Small()) != digest(Larger())


class Opaque:
    """Its looks would be an address in memory, another in every process."""


@pytest.mark.parametrize(
    "value",
    [Opaque(), {1}, np.arange(3), Path("x"), lambda: 1, FitConfig, object, Plain(Opaque()), [{2}], {"a": Opaque()}],
    ids=lambda value: str(type(value).__name__),
)
def test_an_unknown_type_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be part of a cache key; make its class a frozen dataclass"):
        plain(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest([value])


def test_a_key_does_not_depend_on_the_processes_hash_seed() -> None:
    code = (
        "from fastmtl.identity import digest; from fastmtl.training.config import FitConfig;"
        "print(digest([FitConfig(callbacks={'b': {'y': 1}, 'a': {}}), {'z': 1, 'k': 'v'}]))"
    )
    keys = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1")
    }  # fmt: skip
    assert len(keys) == 1
    assert len(keys.pop().strip()) == 16


def test_replacing_an_option_by_itself_keeps_the_key() -> None:
    fit = FitConfig(epochs=4, callbacks={"a": {"x": [1]}})
    assert digest(replace(fit, epochs=4.0)) == digest(fit)  # type: ignore[arg-type]


def test_fields_that_were_made_by_a_factory_count() -> None:
    @dataclass(frozen=True)
    class Made:
        inner: list[int] = field(default_factory=lambda: [1])

    assert plain(Made())[1] == [["inner", [1]]]
