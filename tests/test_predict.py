"""A trained model answers for new texts, in Python and for the rows of a file."""

from __future__ import annotations

import csv
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import fastmtl
from fastmtl.cli.compose import compose
from fastmtl.cli.main import main
from fastmtl.data.writing import cell
from fastmtl.errors import UserError
from fastmtl.models.encoder import EncoderSpec
from fastmtl.store import WEIGHTS
from tests.helpers.models import TASKS, finetuned, texts

CELL = ["encoder=tiny", "data.rows_per_task=60", "selection=none", "finetune.fit.epochs=1"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind, that reads at most 24 tokens."""
    base, spec = tmp_path_factory.mktemp("models"), EncoderSpec("tiny", "mean", max_length=24)
    return {name: finetuned(base / name, task, spec) for name, task in TASKS.items()}


# --- in Python -------------------------------------------------------------------------------------------------------


def test_predictions_are_those_of_the_run(tmp_path: Path) -> None:
    """Of its validation rows, from the texts alone."""
    exp = compose(*CELL, "finetune.fit.precision=fp32", f"paths.output={tmp_path}")
    known = pandas.read_parquet(exp.finetune().path / "validation.parquet")
    shown = exp.pool.split(exp.primary, "validation").texts(known["row"])
    (column,) = exp.task.text
    given = [row[column] for row in shown]
    mine = fastmtl.load(fastmtl.record(exp)).predict(given)
    assert list(mine) == ["prediction", *(f"p_{label}" for label in exp.task.labels)]
    for name in list(mine)[1:]:
        np.testing.assert_allclose(mine[name], known[name], atol=1e-5)
    unsure = (known[list(mine)[1]] - 0.5).abs() < 1e-4
    assert (mine["prediction"] == known["prediction"])[~unsure].all()


@pytest.mark.parametrize("name", TASKS)
def test_rows_keep_their_order_whatever_is_read_together(folders: dict[str, Path], name: str) -> None:
    model, given = fastmtl.load(folders[name]), texts(TASKS[name], 60)
    together, apart = model.predict(given), model.predict(given, batch_size=7)
    alone = pandas.concat([model.predict([text]) for text in given[:10]], ignore_index=True)
    for other in (apart, alone):
        pandas.testing.assert_frame_equal(together[: len(other)], other, rtol=1e-4, atol=1e-5)
    assert len({str(row) for row in together.to_numpy().tolist()}) > 50
    if TASKS[name].kind == "classification":
        probabilities = together.drop(columns="prediction")
        assert list(probabilities) == [f"p_{label}" for label in TASKS[name].labels]
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
        assert (probabilities.idxmax(axis=1) == "p_" + together["prediction"]).all()


def test_words_each_have_a_label_and_those_that_were_cut_have_none(folders: dict[str, Path]) -> None:
    model, words = fastmtl.load(folders["parts"]), ["cook"] * 30
    table = model.predict([["the", "cook"], words])
    assert [len(tags) for tags in table["prediction"]] == [2, 30]
    assert set(table["prediction"][0]) <= set(model.task.labels)
    assert all(1 / 3 <= p <= 1 for p in table["probability"][0])
    read = 24 - 2  # less the tokens that begin and end a row
    assert [tag is None for tag in table["prediction"][1]] == [place >= read for place in range(30)]


@pytest.mark.parametrize("precision", ["bf16", "int8", "auto"])
def test_other_precisions_answer_nearly_the_same(folders: dict[str, Path], precision: Any) -> None:
    model, given = fastmtl.load(folders["tickets"]), texts(TASKS["tickets"], 20)
    np.testing.assert_allclose(
        model.predict(given, precision=precision)["p_billing"], model.predict(given)["p_billing"], atol=0.1
    )


def test_no_texts_give_an_empty_table_with_the_same_columns(folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        model = fastmtl.load(folder)
        assert list(model.predict([])) == list(model.predict(texts(TASKS[name], 1)))
        assert len(model.predict([])) == 0


@pytest.mark.parametrize(
    ("name", "given", "problem"),
    [
        ("tickets", "one text", r"predict takes a list of texts, not one text; give \[text\]"),
        ("tickets", ["a", ("b", "c")], "text 1 is .'b', 'c'.; task 'tickets' takes texts"),
        ("tickets", ["a", " "], "text 1 is blank"),
        ("pairs", [("a", "b"), "ab"], "text 1 is 'ab'; task 'pairs' takes pairs of texts"),
        ("pairs", [("a", "b", "c")], "text 0 is .*takes pairs of texts"),
        ("parts", ["the cook"], "text 0 is 'the cook'; task 'parts' takes lists of words"),
        ("parts", [["the", ""]], "text 0 is blank"),
        ("stars", [None], "text 0 is None; task 'stars' takes texts"),
    ],
)
def test_texts_that_do_not_fit_are_named(folders: dict[str, Path], name: str, given: Any, problem: str) -> None:
    with pytest.raises(UserError, match=f"^{problem}"):
        fastmtl.load(folders[name]).predict(given)


def test_what_is_not_a_model_is_one_line(tmp_path: Path, folders: dict[str, Path]) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"stages": [{"stage": "finetune", "path": "nowhere"}]}))
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text("{")
    for wrong in (tmp_path / "folder", tmp_path / "list.json", tmp_path / "nothing", "", {"stages": 3}):
        with pytest.raises(UserError, match="is not a trained model; give the folder of a run"):
            fastmtl.load(wrong)
    with pytest.raises(UserError, match="its model, nowhere, is gone; repeat the run's command"):
        fastmtl.load(tmp_path)


@pytest.mark.parametrize("harm", ["dropped", "cut", "pickle", "spec", "task"])
def test_a_damaged_model_is_one_line(tmp_path: Path, harm: str) -> None:
    folder = finetuned(tmp_path / "own", TASKS["tickets"], EncoderSpec("tiny", "mean"))
    weights, config = folder / WEIGHTS, json.loads((folder / "config.json").read_text())
    if harm == "dropped":
        weights.unlink()
    elif harm == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif harm == "pickle":
        weights.write_bytes(pickle.dumps({"a": 1}))
    else:
        config[harm] = "os.system" if harm == "spec" else {"name": "tickets"}
    (folder / "config.json").write_text(json.dumps(config))
    problem = {"dropped": "they were dropped", "task": "key 'kind' is missing"}
    with pytest.raises(UserError, match=problem.get(harm, "cannot be read as a model")):
        fastmtl.load(folder)


# --- on the command line ---------------------------------------------------------------------------------------------

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], own_environment: None) -> Run:
    """`run(*arguments)`: exit code, standard output and error of `fastmtl predict`."""

    def predict(*arguments: object) -> tuple[int, str, str]:
        try:
            code: Any = main(["predict", *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return predict


LINES = (
    "id,message,note",
    "1,the cook bought apples,=SUM(A1)",
    '2,"he said ""bowls',
    'and more""",-1',
    "3,only two",
    "4,   ,@x",
    "5,a \x1b[31mred waiter,+plus",
    "6,some bowls,fine,and more",
)


def test_csv_keeps_every_row_and_names_those_without_a_prediction(
    tmp_path: Path, folders: dict[str, Path], run: Run
) -> None:
    file = tmp_path / "new.csv"
    file.write_text("\n".join(LINES))
    code, out, err = run(folders["tickets"], file)
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["id"] for row in rows] == list("123456")
    assert [row["note"] for row in rows] == ["'=SUM(A1)", "-1", "", "'@x", "'+plus", "fine"]
    known = fastmtl.load(folders["tickets"]).predict([rows[i]["message"] for i in (0, 1, 4)])
    assert [row["prediction"] for row in rows] == [*known["prediction"][:2], "", "", known["prediction"][2], ""]
    answers = [float(rows[i]["p_other"]) for i in (0, 1, 4)]
    np.testing.assert_allclose(answers, known["p_other"], rtol=1e-4)
    assert err.splitlines() == [
        f"{file}: line 5: 2 cells, but the header has 3; no prediction",
        f"{file}: line 6: 'message' is blank; no prediction",
        f"{file}: line 8: 4 cells, but the header has 3; no prediction",
        "6 rows, 3 without a prediction",
    ]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_each_format_of_output_has_the_same_answers(
    tmp_path: Path, folders: dict[str, Path], run: Run, ending: str
) -> None:
    given = texts(TASKS["pairs"], 12)
    file, out = tmp_path / "new.parquet", tmp_path / "a" / f"out{ending}"
    pandas.DataFrame({"n": range(12), "one": [a for a, _ in given], "two": [b for _, b in given]}).to_parquet(file)
    code, printed, err = run(folders["pairs"], file, "-o", out, "--text=one", "--text-pair=two", "--batch-size=5")
    assert (code, printed) == (0, "")
    assert err == f"12 rows, 0 without a prediction; written to {out}\n"
    read = {".csv": pandas.read_csv, ".parquet": pandas.read_parquet, ".jsonl": pandas.read_json}[ending]
    table = read(out, **({"lines": True} if ending == ".jsonl" else {}))
    assert table["n"].tolist() == list(range(12))
    known = fastmtl.load(folders["pairs"]).predict(given)
    assert table["prediction"].tolist() == known["prediction"].tolist()
    np.testing.assert_allclose(table["p_yes"], known["p_yes"], rtol=1e-4)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_json_lines_with_faults(tmp_path: Path, folders: dict[str, Path], run: Run) -> None:
    file, out = tmp_path / "new.jsonl", tmp_path / "out.jsonl"
    lines = [
        b'{"message": "the cook", "more": {"a": [1]}}', b"", b'{"message": 12}', b"{broken", b'["list"]',
        b'{"message": null}', b'{"message": "K\xf6ln"}', b'{"message": "last"}',
    ]  # fmt: skip
    file.write_bytes(b"\n".join(lines))
    assert run(folders["stars"], file, "-o", out)[0] == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["prediction"] is None for row in rows] == [False, False, True, True, True, True, False]
    assert rows[0]["more"] == {"a": [1]}
    (value,) = fastmtl.load(folders["stars"]).predict(["last"])["prediction"]
    assert rows[-1]["prediction"] == pytest.approx(value, rel=1e-4)
    err = run(folders["stars"], file)[2]
    assert "line 4: is not JSON" in err
    assert "line 5: is no JSON object" in err
    assert "line 7: it is not UTF-8; save the file as UTF-8; no prediction" in err


def test_conll_words_are_tagged(tmp_path: Path, folders: dict[str, Path], run: Run) -> None:
    file, out = tmp_path / "new.conll", tmp_path / "out.jsonl"
    file.write_text("the\tD\ncook\tN\n\na\tD\nb\n\nsome\tD\nbowls\tN\nx\tN\n")
    assert run(folders["parts"], file, "-o", out, "--text", "0")[2].startswith(
        f"{file}: line 4: its line 5 has 1 columns, not 2; no prediction\n3 rows, 1 without"
    )
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    given = [["the", "cook"], ["some", "bowls", "x"]]
    known = fastmtl.load(folders["parts"]).predict(given)
    assert [rows[i]["0"] for i in (0, 2)] == given
    assert [rows[i]["prediction"] for i in (0, 2)] == known["prediction"].tolist()
    assert rows[1]["prediction"] is None


def test_nested_fields_and_columns_from_the_end(tmp_path: Path, folders: dict[str, Path], run: Run) -> None:
    file, words = tmp_path / "new.jsonl", tmp_path / "new.conll"
    file.write_text('{"a": {"b": "the cook"}}\n{"a": 3}\n')
    known = fastmtl.load(folders["tickets"]).predict(["the cook"])
    rows = list(csv.DictReader(io.StringIO(run(folders["tickets"], file, "--text", "a.b")[1])))
    assert [row["prediction"] for row in rows] == [known["prediction"][0], ""]
    words.write_text("D the\nN cook\n")
    (row,) = csv.DictReader(io.StringIO(run(folders["parts"], words, "--text=-1")[1]))
    assert row["prediction"].split() == fastmtl.load(folders["parts"]).predict([["the", "cook"]])["prediction"][0]


def test_arrow(tmp_path: Path, folders: dict[str, Path], run: Run) -> None:
    pandas.DataFrame({"message": ["the cook", "bowls"]}).to_feather(tmp_path / "new.arrow")
    code, out, _ = run(folders["tickets"], tmp_path / "new.arrow")
    assert code == 0
    assert [row["message"] for row in csv.DictReader(io.StringIO(out))] == ["the cook", "bowls"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_of_spreadsheets(tmp_path: Path, folders: dict[str, Path], run: Run, encoding: str) -> None:
    """A byte-order mark, and a semicolon between the columns."""
    file = tmp_path / "new.csv"
    file.write_text("message;n\nköche, viele;1\n", encoding=encoding)
    code, out, err = run(folders["tickets"], file)
    assert (code, err) == (0, "1 rows, 0 without a prediction\n")
    assert out.startswith('message,n,prediction,p_billing,p_delivery,p_other\n"köche, viele",1,')


@pytest.mark.parametrize(
    ("content", "options", "problem"),
    [
        ("text,n\na,1\n", [], "no column 'message'; name one of text, n with --text COLUMN"),
        ("message\na\n", ["--text=no\x1bne"], "no column 'no\\x1bne'; name one of message with --text COLUMN"),
        ("message\na\n", ["--text-pair=n"], "--text-pair='n': task 'tickets' reads one text; leave it out"),
        ("message\na\n", ["--batch-size=0"], "argument --batch-size: '0' is not a whole number of 1 or more"),
        ("message\na\n", ["-o", "x.xlsx"], "ends in none of .csv, .jsonl, .parquet; name the format"),
        ("message,p_other\na,1\n", [], "has a column 'p_other', which is to be added; rename it"),
        ("message,message\na,1\n", [], "column 'message' occurs 2 times; rename one"),
        ("message\n", [], "has no rows; there is nothing to predict"),
        ("", [], "has no rows; there is nothing to predict"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, folders: dict[str, Path], run: Run, content: str, options: list[str], problem: str
) -> None:
    file = tmp_path / "new.csv"
    file.write_text(content)
    code, out, err = run(folders["tickets"], file, *options)
    assert (code, out) == (2, "")
    assert err.startswith("fastmtl predict: ")
    assert problem in err
    assert err.count("\n") == 1


def test_files_that_are_none(tmp_path: Path, folders: dict[str, Path], run: Run) -> None:
    (tmp_path / "new.parquet").write_text("no Parquet")
    problems = {
        "new.parquet": "cannot be read: ",
        "new.xlsx": "'.xlsx' is not read; use .csv",
        "no.csv": "is not a file",
    }
    for name, problem in problems.items():
        code, _, err = run(folders["tickets"], tmp_path / name)
        assert code == 2
        assert problem in err
        assert err.count("\n") == 1


def test_no_more_than_twenty_faults_are_named(tmp_path: Path, folders: dict[str, Path], run: Run) -> None:
    file = tmp_path / "new.jsonl"
    file.write_text('{"message": "a"}\n' + "x\n" * 50)
    lines = run(folders["tickets"], file)[2].splitlines()
    assert len(lines) == 21
    assert lines[-1] == "51 rows, 50 without a prediction, of which 20 are named above"


def test_cells_that_a_spreadsheet_would_run() -> None:
    assert [cell(v) for v in ("=1", "+a", "-a", "@a", "\ta", "\ra")] == ["'=1", "'+a", "'-a", "'@a", "'\ta", "'\ra"]
    assert [cell(v) for v in ("-1.5", "+3", "a=b", "", 5, None)] == ["-1.5", "+3", "a=b", "", 5, None]
    assert cell(["=a", None, "b"]) == "'=a  b"
