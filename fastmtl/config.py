"""From configuration values to an `Experiment`: the only place that composes and instantiates."""

from __future__ import annotations

import difflib
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from fastmtl.errors import UserError

if TYPE_CHECKING:  # torch takes seconds to import; --help and configuration errors do without it
    from fastmtl.pipeline import Experiment

CONFIG_ERRORS = (HydraException, OmegaConfBaseException)


def conf_dir() -> str:
    """The configuration folder: inside the package when installed, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return str(here / "conf" if (here / "conf").is_dir() else here.parent / "conf")


def compose(*overrides: str) -> Experiment:
    """The experiment that `fastmtl OVERRIDES` would run, for notebooks and scripts.

    `compose("data=sample", "encoder=tiny", "budget=200").selection` builds everything up to the selection.
    """
    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            return build(hydra_compose("config", list(overrides)))
    except CONFIG_ERRORS as error:
        raise UserError(explain(error)) from error


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


def build_logger(cfg: DictConfig, out: Path, run_id: str, name: str) -> Any:
    """The cell's logger, or None for `logger=none`; a W&B run has the cell's id, so that a repeated cell updates it."""
    if not cfg.logger or "_target_" not in cfg.logger:
        return None
    extra: dict[str, Any] = {}
    if cfg.logger._target_.endswith("WandbLogger"):
        extra = {"id": run_id, "name": name, "resume": "allow"}
    elif cfg.logger._target_.endswith("CSVLogger"):
        extra = {"save_dir": str(out)}
    elif cfg.logger._target_.endswith("TensorBoardLogger"):
        extra = {"version": name}
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
    if "Ambiguous value" in text:
        return f"{text}; pass -m for a sweep over several values, or quote a list as [a,b]"
    if isinstance(error, ConfigCompositionException) and "Could not override" in text:
        key = text.split("'")[1]
        known = _known_keys()
        near = difflib.get_close_matches(key, known, n=1) or difflib.get_close_matches(
            key.rsplit(".", 1)[-1], [k.rsplit(".", 1)[-1] for k in known], n=1
        )
        return f"{key!r} is no key of the configuration" + (f"; did you mean {near[0]!r}?" if near else "; see --help")
    return text


def _known_keys() -> list[str]:
    """Dotted keys of the default configuration, for suggestions."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return [key for key, _ in _nodes(hydra_compose("config"))]


def _nodes(cfg: DictConfig) -> list[tuple[str, Any]]:
    """Dotted key and value of every group and leaf, as written: an interpolation of a missing key would raise."""

    def walk(node: Any, prefix: str) -> list[tuple[str, Any]]:
        inner = node.items() if isinstance(node, dict) else ()
        return [
            (prefix, node),
            *(found for name, child in inner for found in walk(child, f"{prefix}.{name}".lstrip("."))),
        ]

    return walk(OmegaConf.to_container(cfg, resolve=False), "")[1:]


def command_line(overrides: list[str]) -> str:
    """What a person types to get this cell again."""
    return " ".join(["fastmtl", *(shlex.quote(override) for override in overrides)])


def read_cells(sweep: Path, name: str = "result.json") -> list[dict[str, Any]]:
    """What the cells of a sweep folder left under `name`, in the order in which they ran."""
    return [json.loads(path.read_text()) for path in sorted(sweep.glob(f"*/{name}"), key=lambda p: int(p.parent.name))]


class CompareCells(Callback):
    """After a sweep: the table over its cells, and what failed with the command to repeat it."""

    failed: ClassVar[int] = 0
    """Cells of this process's sweep that failed, in whichever process they ran."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Read what the cells left in the sweep's folder."""
        from fastmtl.reporting.table import comparison

        folder = Path(config.hydra.sweep.dir)
        results, failures = (read_cells(folder, name) for name in ("result.json", "failure.json"))
        if results:
            text = comparison(results)
            (folder / "comparison.md").write_text(text + "\n")
            print(f"\n{text}\n\nwritten to {folder}")
        for failure in failures:
            print(f"fastmtl: failed: {failure['error']}\n         repeat: {failure['command']}")
        CompareCells.failed = len(failures)
        if failures:
            print(f"fastmtl: {len(failures)} of {len(failures) + len(results)} cells failed; the same command resumes")
