"""From configuration values to an `Experiment`: the only place that composes and instantiates."""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from fastmtl.errors import UserError
from fastmtl.overrides import check_choices, quote_unicode
from fastmtl.sweep import Watch, losses, plan, read

if TYPE_CHECKING:  # torch takes seconds to import; --help and configuration errors do without it
    from fastmtl.pipeline import Experiment

CONFIG_ERRORS = (HydraException, OmegaConfBaseException)

# Our options of hydra/launcher have the names of those that the launchers' packages register, and must fit them.
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


def conf_dir() -> str:
    """The configuration folder: inside the package when installed, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return str(here / "conf" if (here / "conf").is_dir() else here.parent / "conf")


def compose(*overrides: str) -> Experiment:
    """The experiment that `fastmtl OVERRIDES` would run, for notebooks and scripts.

    `compose("data=sample", "encoder=tiny", "budget=200").selection` builds everything up to the selection.
    """
    try:
        return build(values(*overrides))
    except CONFIG_ERRORS as error:
        raise UserError(explain(error)) from error


def values(*overrides: str) -> DictConfig:
    """The configuration of `fastmtl OVERRIDES`."""
    check_choices(overrides, Path(conf_dir()))
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return hydra_compose("config", quote_unicode(overrides))


def build(cfg: DictConfig) -> Experiment:
    """Check the plain values, then instantiate the parts."""
    from fastmtl.selection import check_budget

    check_budget(cfg.budget)
    if isinstance(cfg.seed, bool) or not isinstance(cfg.seed, int) or cfg.seed < 0:
        raise UserError(f"seed={cfg.seed!r} is not a whole number of 0 or more")
    for key in _missing(cfg):
        raise UserError(f"{key} is not set; pass {key}=VALUE")

    from fastmtl.pipeline import Experiment
    from fastmtl.store import Store

    rows: Any = cfg.data.rows_per_task
    return Experiment(
        source=_made(cfg.data.source),
        store=Store(cfg.paths.artifacts),
        encoder=_made(cfg.encoder),
        primary=cfg.primary,
        selection_plan=_made(cfg.selection),
        budget=cfg.budget,
        seed=cfg.seed,
        proxy_plan=_made(cfg.proxy),
        scoring=_made(cfg.scoring),
        multitask_fit=_made(cfg.multitask.fit),
        finetune_fit=_made(cfg.finetune.fit),
        sampling=_made(cfg.sampling),
        weighting=_made(cfg.weighting),
        bandit_plan=_made(cfg.bandit),
        relations_plan=_made(cfg.relations),
        mixing_search=_made(cfg.hparams_search) if cfg.get("hparams_search") else None,
        protocol=_made(cfg.protocol),
        where=_made(cfg.trainer),
        rows_per_task=dict(rows) if isinstance(rows, DictConfig) else rows,
    )


def _missing(cfg: DictConfig) -> list[str]:
    """Keys without a value that matter: a task passed as `primary` makes up for `data.primary`."""
    missing = [key for key, node in _nodes(cfg) if node == "???"]
    if "data.primary" in missing:
        missing.remove("data.primary")
        if OmegaConf.is_interpolation(cfg, "primary"):
            missing.append("primary")
    return missing


def _made(node: DictConfig) -> Any:
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__
        raise cause or error from None


def cell_name(result: dict[str, Any]) -> str:
    """What a person calls a cell; ids tell cells apart."""
    return "-".join(str(result[key]) for key in ("primary", "selection", "budget", "seed") if result[key] is not None)


def build_logger(cfg: DictConfig, out: Path, result: dict[str, Any]) -> Any:
    """The cell's logger, or None for `logger=none`; a W&B run has the cell's id, so that a repeated cell updates it."""
    if not cfg.logger or "_target_" not in cfg.logger:
        return None
    extra: dict[str, Any] = {}
    if cfg.logger._target_.endswith("WandbLogger"):
        os.environ.setdefault("WANDB_SILENT", "true")  # a line or more a cell otherwise
        if cfg.logger.offline:
            os.environ["WANDB_MODE"] = "offline"  # Lightning sets it too late for `wandb.setup`
        told = [result["primary"], result["selection"], f"budget {result['budget']}", f"protocol {result['protocol']}"]
        extra = {
            "id": result["id"], "name": cell_name(result), "group": cfg.logger.group or result["primary"],
            "job_type": result["selection"], "tags": [tag[:64] for tag in told],  # W&B takes no longer ones
        }  # fmt: skip
    elif cfg.logger._target_.endswith("CSVLogger"):
        extra = {"save_dir": str(out)}
    elif cfg.logger._target_.endswith("TensorBoardLogger"):
        extra = {"version": f"{cell_name(result)}-{result['id'][:8]}"}
    try:
        return instantiate(cfg.logger, **extra, _convert_="all")
    except (InstantiationException, ModuleNotFoundError) as error:
        kind = cfg.logger._target_.rsplit(".", 1)[-1]
        raise UserError(f"logger {kind} cannot be set up ({str(error).splitlines()[0]}); install its package") from None


def explain(error: Exception) -> str:
    """A configuration error in one line: the value, and what to use instead."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        options = [name for name in error.options if name != "default"] or list(error.options)
        return f"{group}={option} is not an option; choose from {', '.join(options)}"
    if isinstance(error, MissingMandatoryValue):
        return " ".join(str(error).split("\n")[0].split()) + "; pass it on the command line"
    cause: BaseException = error
    while cause.__cause__ is not None and isinstance(cause.__cause__, CONFIG_ERRORS):
        cause = cause.__cause__
    lines = [line.strip() for line in f"{error}\n{cause if cause is not error else ''}".splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if "LexerNoViableAlt" in text:
        typed = text.partition(": ")[2]
        return f"{typed!r} cannot be read; put quotes around a value, or a key that is not ASCII into a YAML file"
    if "Ambiguous value" in text:
        return f"{text}; pass -m for a sweep over several values, or quote a list as [a,b]"
    if isinstance(error, ConfigCompositionException) and "Could not override" in text:
        key = text.split("'")[1]
        if having := _options_with(key):
            return (
                f"{key!r} is no key of what was chosen; {', '.join(having)} {'has' if len(having) == 1 else 'have'} it "
                "(in a sweep over several choices: a command of its own, under the same study=NAME)"
            )
        known = _known_keys()
        near = difflib.get_close_matches(key, known, n=1) or difflib.get_close_matches(
            key.rsplit(".", 1)[-1], [k.rsplit(".", 1)[-1] for k in known], n=1
        )
        return f"{key!r} is no key of the configuration" + (f"; did you mean {near[0]!r}?" if near else "; see --help")
    return text


def _options_with(key: str) -> list[str]:
    """GROUP=OPTION of every option of a group that has this key, where other options of the group do without."""
    parts = key.split(".")
    return [
        f"{'/'.join(parts[:i])}={path.stem}"
        for i in range(1, len(parts))
        for path in sorted(Path(conf_dir(), *parts[:i]).glob("*.yaml"))
        if _has(OmegaConf.load(path), parts[i:])
    ]


def _has(node: Any, parts: list[str]) -> bool:
    for part in parts:
        node = node._get_node(part) if isinstance(node, DictConfig) else None  # `in` says no to ???
    return node is not None


def _known_keys() -> list[str]:
    """Dotted keys of the default configuration, for suggestions."""
    return [key for key, _ in _nodes(values())]


def _nodes(cfg: DictConfig) -> list[tuple[str, Any]]:
    """Dotted key and value of every group and leaf, as written: an interpolation of a missing key would raise."""

    def walk(node: Any, prefix: str) -> list[tuple[str, Any]]:
        inner = node.items() if isinstance(node, dict) else ()
        return [
            (prefix, node),
            *(found for name, child in inner for found in walk(child, f"{prefix}.{name}".lstrip("."))),
        ]

    return walk(OmegaConf.to_container(cfg, resolve=False), "")[1:]


@contextmanager
def told_in_one_line(program: str) -> Iterator[None]:
    """What a user is meant to read goes to stderr as one line and exits with 2; a stop exits with 130."""
    try:
        yield
    except (UserError, *CONFIG_ERRORS) as error:
        print(f"{program}: {explain(error) if isinstance(error, CONFIG_ERRORS) else error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\n{program}: stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)


def check_folder_name(name: str) -> None:
    """The first argument of a command that keeps its results in a folder of that name."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"{name!r} is no name for a folder; the name comes first, then KEY=VALUE")


def command_line(overrides: list[str]) -> str:
    """What a person types to get this cell again."""
    return " ".join(["fastmtl", *(shlex.quote(override) for override in overrides)])


def read_cells(sweep: Path) -> list[dict[str, Any]]:
    """The results of the finished cells of a sweep folder, in the order in which they were launched."""
    paths = sorted(sweep.glob("*/result.json"), key=lambda path: int(path.parent.name))
    return [json.loads(path.read_text()) for path in paths]


class CompareCells(Callback):
    """Plans and watches a sweep; after it the table over its cells, and what failed with the command to repeat it.

    What it knows is the class's: Hydra sends the instance to the processes that run cells.
    """

    watch: ClassVar[Watch | None] = None
    """Of this process's last sweep."""
    failed: ClassVar[int] = 0
    """Cells of that sweep that did not end well, in whichever process they ran."""
    reports: ClassVar[bool] = True
    """Whether that sweep ends in a report."""

    def __init__(self, report: bool = True) -> None:
        self.report = report

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Write down all cells. It exits where none can run: of an exception Hydra would only warn."""
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
            _refuse(explain(error))
        if not cells:
            _refuse("the sweep has no cells: a pattern in it matches no option")
        folder = Path(config.hydra.sweep.dir)
        plan(folder, cells, [command_line(cell) for cell in cells])
        CompareCells.watch, CompareCells.failed, CompareCells.reports = Watch(folder), 0, self.report
        CompareCells.watch.start()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Read what the cells left in the sweep's folder."""
        self.conclude()

    @classmethod
    def conclude(cls) -> None:
        """Print and write what there is to say of the sweep, however it came to its end."""
        from fastmtl.reporting import report
        from fastmtl.reporting.study import comparison

        assert cls.watch is not None
        cls.watch.stop()
        folder, cells = cls.watch.folder, read(cls.watch.folder)
        lost = losses(cells)
        cls.failed = len(lost)
        if cls.reports and (results := read_cells(folder)):
            try:
                print(f"\n{report.write(results, folder / 'report', folder.name)}")
            except UserError as error:  # cells that do not compare: each setting for itself, and no page
                print(f"\n{comparison(results)}\n\nfastmtl: no report: {error}")
        for line in lost:
            print(line)
        if lost:
            print(f"fastmtl: {len(lost)} of {len(cells)} cells did not finish; the same command goes on with them")


def _found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that it is in
        return False


def _refuse(message: str) -> NoReturn:
    print(f"fastmtl: {message}", file=sys.stderr)
    sys.exit(2)
