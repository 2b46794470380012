"""What an import does to the process of someone who uses the package in a program of their own: nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.helpers.guards import VARIABLES

CODE = """
import logging, os, signal, sys, warnings
import torch, transformers, pytorch_lightning
from transformers.utils import logging as told

def state():
    variables = {key: value for key, value in os.environ.items() if not re.match(VARIABLES, key)}
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    return [variables, handlers, logging.root.handlers, logging.root.level, torch.get_num_threads(),
            told.get_verbosity(), told.is_progress_bar_enabled(), os.getcwd(), torch.get_default_dtype()]

before = state()
import fastmtl
from fastmtl import UserError, compose, record
import fastmtl.cli.main, fastmtl.cli.run, fastmtl.cli.cell, fastmtl.cli.relations, fastmtl.cli.tune
import fastmtl.pipelines.relations, fastmtl.worker
exp = compose("encoder=tiny", "paths.output=nowhere")
after = state()
assert before == after, [pair for pair in zip(before, after) if pair[0] != pair[1]]
assert not os.listdir()
"""


def test_importing_and_composing_change_nothing_in_the_process(tmp_path: Path) -> None:
    code = f"import re\nVARIABLES = {VARIABLES.pattern!r}\n{CODE}"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr


def test_importing_the_package_alone_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, fastmtl; print(sorted({'torch', 'hydra', 'numpy', 'pydantic'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert ran.stdout == "[]\n", ran.stderr


def test_a_command_lets_idle_threads_sleep_before_torch_comes(tmp_path: Path) -> None:
    """Spinning ones would stop another process on the same cores; OpenMP reads this when torch is imported."""
    code = """
import os, sys
os.environ.pop("OMP_WAIT_POLICY", None)
from fastmtl.cli.main import main

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch after", os.environ.get("OMP_WAIT_POLICY"))
        return None

sys.meta_path.insert(0, Watch())
try:
    main(["encoder=tiny", "primary=nobody"])
except SystemExit as stop:
    assert stop.code == 2
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert ran.stdout == "torch after PASSIVE\n", ran.stderr
