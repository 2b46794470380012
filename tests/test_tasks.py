"""What a `TaskSpec` refuses, and the label order of the GLUE table (a swapped pair would train on wrong labels)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastmtl.errors import UserError
from fastmtl.tasks import GLUE, TaskSpec

GOOD: dict[str, Any] = {"name": "tickets", "kind": "classification", "text": ["a", "b"], "labels": ["no", "yes"]}


def refusal(**changes: Any) -> str:
    with pytest.raises(UserError) as error:
        TaskSpec.from_dict({**GOOD, **changes})
    message = str(error.value)
    assert "tickets" in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "ranking"}, ["'ranking'", "classification", "regression"]),
        ({"text": []}, ["text=[]", "one or two"]),
        ({"text": ["a", "b", "c"]}, ["'a', 'b', 'c'", "one or two"]),
        ({"labels": []}, ["labels=[]", "two"]),
        ({"labels": ["yes"]}, ["labels=['yes']", "two"]),
        ({"labels": ["yes", "yes"]}, ["labels=['yes', 'yes']", "distinct"]),
        ({"kind": "regression"}, ["labels=['no', 'yes']", "remove"]),
        ({"metrics": ["accuracy", "bleu"]}, ["'bleu'", "matthews"]),
        ({"metrics": ["pearson"]}, ["'pearson'", "accuracy"]),
        ({"metrics": ["f1"], "labels": ["a", "b", "c"]}, ["'f1'", "f1_macro", "3"]),
        ({"splits": {"validation": "x.csv"}}, ["validation", "train"]),
        ({"splits": {"train": "x.csv", "dev": "y.csv"}}, ["dev", "validation"]),
        ({"colour": "red"}, ["'colour'", "labels"]),
    ],
)
def test_a_bad_value_is_named_with_what_to_use_instead(changes: dict[str, Any], named: list[str]) -> None:
    message = refusal(**changes)
    for part in named:
        assert part in message


@pytest.mark.parametrize("key", ["kind", "text"])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(UserError, match=f"'tickets'.*'{key}' is missing"):
        TaskSpec.from_dict({k: v for k, v in GOOD.items() if k != key})


def test_a_task_without_a_name_is_refused() -> None:
    with pytest.raises(UserError, match="'name' is missing"):
        TaskSpec.from_dict({k: v for k, v in GOOD.items() if k != "name"})


def test_a_label_that_is_listed_twice_is_refused_because_its_second_code_would_never_occur() -> None:
    assert "'no'" in refusal(labels=["no", "no", "yes"])


@pytest.mark.parametrize("key", ["labels", "metrics"])
def test_a_word_where_a_list_belongs_is_not_taken_apart_into_letters(key: str) -> None:
    assert "'maybe'" in refusal(**{key: "maybe"})


def test_one_text_column_may_be_given_as_a_plain_word() -> None:
    assert TaskSpec.from_dict({**GOOD, "text": "body"}).text == ("body",)


def test_without_metrics_the_first_of_the_kind_is_the_headline() -> None:
    assert TaskSpec.from_dict(GOOD).metrics == ("accuracy",)
    assert TaskSpec.from_dict({"name": "s", "kind": "regression", "text": ["a"]}).metrics == ("pearson",)


def test_numeric_labels_become_their_text() -> None:
    assert TaskSpec.from_dict({**GOOD, "labels": [0, 1]}).labels == ("0", "1")


def test_a_head_has_one_output_a_class_or_one_value() -> None:
    assert {name: GLUE[name].num_outputs for name in ("mnli", "rte", "stsb")} == {"mnli": 3, "rte": 2, "stsb": 1}


@pytest.mark.parametrize("spec", GLUE.values(), ids=GLUE)
def test_from_dict_undoes_to_dict_also_through_json(spec: TaskSpec) -> None:
    assert TaskSpec.from_dict(spec.to_dict()) == spec
    assert TaskSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("task", "codes"),
    [
        ("mnli", {"entailment": 0, "neutral": 1, "contradiction": 2}),
        ("rte", {"entailment": 0, "not_entailment": 1}),
        ("qnli", {"entailment": 0, "not_entailment": 1}),
        ("qqp", {"not_duplicate": 0, "duplicate": 1}),
        ("mrpc", {"not_equivalent": 0, "equivalent": 1}),
        ("sst2", {"negative": 0, "positive": 1}),
        ("cola", {"unacceptable": 0, "acceptable": 1}),
        ("wnli", {"not_entailment": 0, "entailment": 1}),
    ],
)
def test_glue_labels_stand_in_the_code_order_of_nyu_mll_glue(task: str, codes: dict[str, int]) -> None:
    assert {label: code for code, label in enumerate(GLUE[task].labels)} == codes


def test_glue_headline_metrics_are_those_of_the_benchmark() -> None:
    assert {name: spec.metrics[0] for name, spec in GLUE.items()} == {
        "mnli": "accuracy", "rte": "accuracy", "qqp": "f1", "qnli": "accuracy", "mrpc": "f1", "sst2": "accuracy",
        "cola": "matthews", "stsb": "pearson", "wnli": "accuracy",
    }  # fmt: skip


def test_glue_evaluates_mnli_on_its_matched_split() -> None:
    assert GLUE["mnli"].splits["validation"] == "validation_matched"
    assert GLUE["rte"].splits["validation"] == "validation"
