"""The Hydra callback of a sweep: it plans and watches the cells, and ends with what they show."""

from __future__ import annotations

import json
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fastmtl.cli.compose import in_words, typed_paths
from fastmtl.cli.messages import command_line, say
from fastmtl.cli.sweep import Watch, losses, plan, read
from fastmtl.errors import UserError

# Our options of hydra/launcher have the names of those that the launchers' packages register, and must fit them. Here,
# since a launcher's worker process imports this module before Hydra composes there, and runs nothing else of ours.
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


def read_cells(sweep: Path) -> list[dict[str, Any]]:
    """The results of the finished cells of a sweep folder, in the order in which they were launched."""
    paths = sorted(sweep.glob("*/result.json"), key=lambda path: int(path.parent.name))
    return [json.loads(path.read_text()) for path in paths]


class CompareCells(Callback):
    """Plans and watches a sweep; after it the table over its cells, and what failed with the command to repeat it.

    What it knows of this process's last sweep is the class's: Hydra sends the instance to processes that run cells.
    `failed` counts cells that did not end well, in whichever process; with `reports` a sweep ends in a report.
    """

    watch: ClassVar[Watch | None] = None
    failed: ClassVar[int] = 0
    reports: ClassVar[bool] = True

    def __init__(self, report: bool = True) -> None:
        self.report = report

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse a folder that cannot be made before Hydra makes it."""
        _make(config.hydra.run.dir, config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Write down all cells; exit where none can run: of an exception Hydra would only warn."""
        name = config.hydra.runtime.choices["hydra/launcher"]
        if not _found(config.hydra.launcher._target_.rpartition(".")[0]):
            extra = "ray" if name == "ray" else "launchers"
            _refuse(f"hydra/launcher={name} needs its package; pip install 'fastmtl[{extra}]'")
        params = config.hydra.sweeper.params or {}
        overrides = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        try:
            cells = BasicSweeper.split_arguments(parser.parse_overrides(overrides), None)[0]
        except HydraException as error:
            _refuse(in_words(error))
        if not cells:
            _refuse("the sweep has no cells: a pattern in it matches no option")
        folder = Path(config.hydra.sweep.dir)
        _make(folder, config)
        plan(folder, cells, [command_line(cell) for cell in cells])
        CompareCells.watch, CompareCells.failed, CompareCells.reports = Watch(folder), 0, self.report
        CompareCells.watch.start()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:

        self.conclude()

    @classmethod
    def conclude(cls) -> None:
        """Print and write what there is to say of the sweep, however it came to its end."""
        from fastmtl.reporting import report

        assert cls.watch is not None
        cls.watch.stop()
        folder, cells = cls.watch.folder, read(cls.watch.folder)
        lost = losses(cells)
        cls.failed = len(lost)
        if cls.reports and (results := read_cells(folder)):
            try:
                print(f"\n{report.write(results, folder / 'report', folder.name)}")
            except UserError as error:  # cells that do not compare: each setting for itself, and no page
                print(f"\n{report.comparison(results)}\n\nfastmtl: no report: {error}")
        for line in lost:
            print(line)
        if lost:
            print(f"fastmtl: {len(lost)} of {len(cells)} cells did not finish; rerun the same command to resume them")


def _make(folder: str | Path, config: DictConfig) -> None:
    try:
        typed_paths(config)
        Path(folder).mkdir(parents=True, exist_ok=True)
    except UserError as error:
        _refuse(str(error))
    except OSError as error:
        problem = f"{str(folder)!r} cannot be made ({error.strerror}); name a folder of yours"
        _refuse(f"paths.output={config.paths.output!r}: {problem}")


def _found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that it is in
        return False


def _refuse(message: str) -> NoReturn:
    sys.exit(say("fastmtl", message))
