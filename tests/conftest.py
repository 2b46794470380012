"""What every test runs under: markers, deadlines, guards, and a processor with or without half precision.

`--bf16` and `--no-bf16` make torch say that this processor has half precision (AVX512-BF16) or has none, here, in the
workers of `-n 2` and in every process that a test starts; without either, the machine's own answer stands. So both
ways of `precision: auto` can be tested on any machine. A processor without AVX512 altogether, kernels included:
`ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 pytest --no-bf16`.
"""

from __future__ import annotations

import logging
import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test may wait for a network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # toy tensors: threads would only wait for each other
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as commands set it for themselves

import argparse
import gc
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from tests.helpers import guards, processor, toy
from tests.helpers.toy import ToySource, make_pool

ROOT = Path(__file__).resolve().parents[1]
SLOW_S = 900
"""A slow test's deadline; the others' is in pyproject.toml."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bf16", action=argparse.BooleanOptionalAction, default=None,
        help="make torch say that this processor has half precision, or that it has none",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("bf16") is not None:
        processor.force(config.getoption("bf16"))
    guards.adopt_orphans()
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a script; children would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_S))


def pytest_collection_finish() -> None:
    """What has been imported lives to the end: fits, which collect garbage, need not look at it each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, before any fixture is made, what this machine has not got."""
    for mark in item.iter_markers("data"):
        for name in mark.args:
            if not (ROOT.parent / "shared" / name).is_dir():
                pytest.skip(f"needs ../shared/{name}")
    if item.get_closest_marker("gpu") and not has_cuda():
        pytest.skip("needs a CUDA device")
    if item.get_closest_marker("browser") and not browser():
        pytest.skip("needs chromium")


def has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(autouse=True)
def no_log_file_is_left() -> Iterator[None]:
    """A run in this process logs to its folder, which later tests have not."""
    loggers = (logging.getLogger(), logging.getLogger("fastmtl"))
    before = [handler for logger in loggers for handler in logger.handlers]
    yield
    for logger in loggers:
        for handler in logger.handlers[:]:
            if isinstance(handler, logging.FileHandler) and handler not in before:
                logger.removeHandler(handler)
                handler.close()


def browser() -> str | None:
    return shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The command; a test that takes it is marked `browser`."""
    found = browser()
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """A test that changes the process for those after it, or leaves something running, fails."""
    before = guards.State.now()
    yield
    if leaks := before.leaks():
        pytest.fail("the test left behind: " + "; ".join(leaks), pytrace=False)


@pytest.fixture(autouse=True, scope="module")
def no_fixture_leaves_anything_behind() -> Iterator[None]:
    """As for a test: what the module's own fixtures make is there before its tests, and so no leak of theirs."""
    before = guards.State.now()
    yield
    if leaks := before.leaks():
        pytest.fail("this file's fixtures left behind: " + "; ".join(leaks), pytrace=False)


@pytest.fixture
def own_environment() -> Iterator[None]:
    """For a test of code that sets environment variables, as a program may for itself."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data(root: Path) -> Path:
    """Real data beside the repository; a test that reads a folder of it is marked `data("FOLDER")`."""
    return root.parent / "shared"


@pytest.fixture(scope="session")
def session_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`paths.output` of the cells of the whole run, in all workers: for tests that need a small cell, however made.

    What is asked for first is built, everywhere else it is found; so no test that uses it may count hits.
    """
    base = tmp_path_factory.getbasetemp()
    own = "PYTEST_XDIST_WORKER" in os.environ  # then every worker has a folder of its own inside the run's
    return (base.parent if own else base) / "session_output"


@pytest.fixture(scope="session")
def toy_source() -> type[ToySource]:
    return ToySource


@pytest.fixture(scope="session")
def toy_tokenizer() -> Callable[..., Any]:
    return toy.toy_tokenize


@pytest.fixture(scope="session", name="make_pool")
def make_pool_fixture() -> Callable[..., Any]:
    return make_pool


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The two-layer random BERT; its vocabulary has all letters, so it reads any text."""
    from fastmtl.models.encoder import EncoderSpec

    return EncoderSpec("tiny", pooling="mean", max_length=32)


@pytest.fixture(scope="session")
def tiny_tasks() -> tuple[Any, ...]:
    """A pair task, a single-sentence task of three classes and a regression."""
    from fastmtl.tasks import TaskSpec

    train = {"train": "train"}
    return (
        TaskSpec("pairs", "classification", ("a", "b"), ("no", "yes"), splits=train),
        TaskSpec("single", "classification", ("a",), ("red", "green", "blue"), splits=train),
        TaskSpec("score", "regression", ("a",), splits=train),
    )


@pytest.fixture(scope="session")
def tiny_pool(tmp_path_factory: pytest.TempPathFactory, tiny: Any, tiny_tasks: Any) -> Any:
    """12 rows a task over the real `tiny` tokenizer, of very different lengths."""
    from fastmtl.models.encoder import Tokenizer

    rng = np.random.default_rng(0)
    words = "the cook bought some apples and a waiter washed bowls".split()

    def text(longest: int) -> str:
        return " ".join(rng.choice(words, size=rng.integers(1, longest)))

    rows = {
        "pairs": {"a": [text(6) for _ in range(12)], "b": [text(12) for _ in range(12)], "label": ["no", "yes"] * 6},
        "single": {"a": [text(25) for _ in range(12)], "label": ["red", "green", "blue"] * 4},
        "score": {"a": [text(9) for _ in range(12)], "label": [str(i / 4) for i in range(12)]},
    }
    source = ToySource(tiny_tasks, {name: {"train": columns} for name, columns in rows.items()}, batch_rows=5)
    return make_pool(tmp_path_factory.mktemp("tiny_pool"), source, Tokenizer(tiny))


@pytest.fixture(scope="session")
def tagged_pool(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Any:
    """Two tagging tasks of 12 rows, each word's tag its own; `things` has the negative tag and hidden test rows.

    "zebra" is not in the vocabulary and so has five pieces.
    """
    from fastmtl.models.encoder import Tokenizer
    from fastmtl.tasks import TaskSpec

    classes = {"the": "D", "some": "D", "cook": "N", "zebra": "N", "apples": "N", "bought": "V", "washed": "V"}
    rng = np.random.default_rng(0)
    words = [rng.choice(list(classes), size=rng.integers(1, 7)).tolist() for _ in range(12)]
    kinds = [[classes[word] for word in row] for row in words]
    things = [["thing" if kind == "N" else "deed" if kind == "V" else "O" for kind in row] for row in kinds]
    tasks = tuple(
        TaskSpec(name, "tagging", ("words",), labels, ("f1_micro", "accuracy"), "tags", {"train": "train", **more})
        for name, labels, more in (("things", ("thing", "O", "deed"), {"test": "test"}), ("words", ("D", "N", "V"), {}))
    )
    rows = {
        "things": {"train": {"words": words, "tags": things}, "test": {"words": words[:3], "tags": [None] * 3}},
        "words": {"train": {"words": words, "tags": kinds}},
    }
    return make_pool(tmp_path_factory.mktemp("tagged_pool"), ToySource(tasks, rows, batch_rows=5), Tokenizer(tiny))
