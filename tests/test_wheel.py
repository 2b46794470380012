"""The wheel alone, in an environment of its own and an empty folder: what someone gets who has no checkout."""

import csv
import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

ROOT = Path(__file__).resolve().parent.parent
Run = Callable[..., str]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    _run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)], out)
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope="module")
def bin_dir(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment that holds the wheel, and borrows its dependencies from the one of this test."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, symlinks=True, with_pip=False)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], home)
    places = [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    own = Path(_run([str(python), "-c", code], home).strip())
    # Plain lines: the .pth files of the borrowed folders, such as that of an editable install, are not followed.
    (own / "borrowed.pth").write_text("\n".join(places) + "\n")
    return python.parent


@pytest.fixture
def run(bin_dir: Path, tmp_path: Path) -> Run:
    """Run a command of that environment in an empty folder."""
    return lambda name, *arguments: _run([str(bin_dir / name), *arguments], tmp_path)


def _run(command: list[str], folder: Path) -> str:
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    env = {key: value for key, value in os.environ.items() if key not in hidden} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_holds_the_package_and_its_configuration_alone(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for kind, folder in (("*.yaml", "conf"), ("*.py", "fastmtl")):
        for path in (ROOT / folder).rglob(kind):
            name = path.relative_to(ROOT).as_posix()
            assert (f"fastmtl/{name}" if folder == "conf" else name) in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fastmtl"}
    assert not [name for name in names if "tests/" in name.lower() or name.endswith(".pyc")]
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_the_installed_package_is_the_wheels(run: Run, bin_dir: Path) -> None:
    place = run("python", "-c", "import fastmtl; print(fastmtl.__file__)").strip()
    assert Path(place).is_relative_to(bin_dir.parent)


def test_help_names_the_options(run: Run, tmp_path: Path) -> None:
    text = "".join(run("fastmtl", "help", *key) for key in ([], ["selection"], ["data"]))
    for option in ("feature_similarity", "in_task_control", "glue_local", "minilm", "strict", "budget", "stage"):
        assert option in text
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_smoke_run(run: Run, tmp_path: Path) -> None:
    text = run("fastmtl", "debug=smoke", "encoder=tiny")
    (result,) = tmp_path.glob("outputs/runs/**/result.json")
    (predictions,) = tmp_path.glob("outputs/artifacts/finetune/*/validation.parquet")
    rows = pa.parquet.read_table(predictions).to_pylist()
    accuracy = sum(row["label"] == row["prediction"] for row in rows) / len(rows)
    assert json.loads(result.read_text())["headline"] == pytest.approx(accuracy)
    assert f"{100 * accuracy:.1f}" in text


@pytest.mark.slow
def test_own_files_of_three_formats(run: Run, tmp_path: Path) -> None:
    texts = [f"the printer on floor {n} {'is on fire' if n % 2 else 'works'}" for n in range(40)]
    tickets = [(text, "yes" if "fire" in text else "no") for text in texts]
    for name, rows in (("tickets.csv", tickets), ("tickets_dev.csv", tickets[:10])):
        with open(tmp_path / name, "w", newline="") as file:
            csv.writer(file).writerows([("body", "urgent"), *rows])
    mood = [
        {"text": f"{'good' if n % 3 else 'bad'} day number {n}", "label": ["bad", "good"][n % 3 > 0]} for n in range(40)
    ]
    (tmp_path / "mood.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mood))
    likeness = {"a": [f"case {n}" for n in range(40)], "b": ["case 7"] * 40, "label": [n / 40 for n in range(40)]}
    pa.parquet.write_table(pa.table(likeness), tmp_path / "likeness.parquet")
    (tmp_path / "tasks.yaml").write_text("""\
tasks:
  - name: tickets
    kind: classification
    text: body
    label: urgent
    labels: [no, yes]
    metrics: [f1, accuracy]
    splits: {train: tickets.csv, validation: tickets_dev.csv}
  - {name: mood, kind: classification, text: text, labels: [bad, good], splits: {train: mood.jsonl}}
  - {name: likeness, kind: regression, text: [a, b], splits: {train: likeness.parquet}}
""")
    run(
        "fastmtl", "data=files", "data.config=tasks.yaml", "primary=tickets", "encoder=tiny", "budget=8",
        "proxy.examples_per_task=10", "proxy.fit.epochs=1", "multitask.fit.epochs=1", "finetune.fit.epochs=1",
    )  # fmt: skip
    (path,) = tmp_path.glob("outputs/runs/**/result.json")
    result = json.loads(path.read_text())
    assert result["primary"] == "tickets"
    assert result["auxiliary_rows"] == sum(result["counts"].values()) == 8
    assert set(result["counts"]) == {"mood", "likeness"}
