"""From configuration values to an `Experiment`: the only place that composes and instantiates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from pydantic import Field, Strict

from fastmtl.cli.messages import CONFIG_ERRORS, explain, nodes
from fastmtl.cli.overrides import check_choices, quote_unicode
from fastmtl.errors import UserError
from fastmtl.options import Natural, OptionError, options

if TYPE_CHECKING:  # torch takes seconds to import; --help and configuration errors do without it
    from fastmtl.pipelines.experiment import Experiment


@options
class Plain:
    """Values that are options of no object."""

    seed: Natural
    study: Annotated[str, Field(coerce_numbers_to_str=True)] | None


@options
class Paths:
    """The group `paths`."""

    output: str
    artifacts: str
    keep_weights: Annotated[bool, Strict()]


def typed_paths(cfg: DictConfig) -> Paths:
    """Where a command writes."""
    try:
        return Paths(**OmegaConf.to_container(cfg.paths, resolve=True))  # type: ignore[arg-type]
    except OptionError as error:
        raise error.under("paths") from None


def conf_dir() -> str:
    """The configuration folder: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return str(package / "conf" if (package / "conf").is_dir() else package.parent / "conf")


def compose(*overrides: str) -> Experiment:
    """The experiment that `fastmtl OVERRIDES` would run, for notebooks and scripts.

    `compose("data=sample", "encoder=tiny", "budget=200").selection()` builds everything up to the selection. A
    `UserError` says what is wrong with an override.
    """
    return build(values(*overrides))


def values(*overrides: str) -> DictConfig:
    """The configuration of `fastmtl OVERRIDES`; a host program's own Hydra stays as it is."""
    check_choices(overrides, Path(conf_dir()))
    try:
        with _hydra_of_our_own(), initialize_config_dir(conf_dir(), version_base="1.3"):
            return hydra_compose("config", quote_unicode(overrides))
    except CONFIG_ERRORS as error:
        raise UserError(in_words(error)) from error


@contextmanager
def _hydra_of_our_own() -> Iterator[None]:
    host = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = host


@lru_cache(maxsize=1)
def _defaults() -> DictConfig:
    return values()


def in_words(error: Exception) -> str:
    """A configuration error in one line."""
    return explain(error, conf_dir(), _defaults)


def build(cfg: DictConfig) -> Experiment:
    """Turn plain values into typed objects, and those into an experiment."""
    from fastmtl.selection.base import check_budget

    check_budget(cfg.budget)
    plain = Plain(cfg.seed, cfg.study)
    paths = typed_paths(cfg)
    for key in _missing(cfg):
        raise UserError(f"{key} is not set; pass {key}=VALUE")
    _name_encoders(cfg)
    rows = cfg.data.rows_per_task
    parts = {
        key: _made(OmegaConf.select(cfg, node))
        for key, node in {
            "encoder": "encoder", "selection_plan": "selection", "proxy_plan": "proxy", "scoring": "scoring",
            "multitask_fit": "multitask.fit", "finetune_fit": "finetune.fit", "sampling": "sampling",
            "weighting": "weighting", "bandit_plan": "bandit", "relations_plan": "relations", "protocol": "protocol",
            "hardware": "trainer",
        }.items()
    }  # fmt: skip
    from fastmtl.data.sources import checked_pool
    from fastmtl.pipelines.experiment import Experiment, check_stage
    from fastmtl.store import Store

    check_stage(cfg.stage)
    return Experiment(
        tasks=checked_pool(tuple(_made(cfg.data.source))),
        store=Store(paths.artifacts),
        primary=cfg.primary,
        budget=cfg.budget,
        seed=plain.seed,
        mixing_search=_made(cfg.mixing) if cfg.get("mixing") else None,
        leakage_rule=cfg.data.leakage,
        keep_selected=cfg.finetune.keep_selected,
        multitask_heads=_plain(cfg.multitask.heads),
        rows_per_task=_plain(rows),
        **parts,
    )


def _plain(value: Any) -> Any:
    """A list or mapping of OmegaConf as one of Python."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _missing(cfg: DictConfig) -> list[str]:
    """Keys without a value that matter: a task passed as `primary` makes up for `data.primary`."""
    own = not OmegaConf.is_interpolation(cfg, "primary")
    missing = [key for key, node in nodes(cfg) if node == "???" and not (own and key == "data.primary")]
    return ["primary" if key == "data.primary" else key for key in missing]


def _name_encoders(cfg: DictConfig) -> None:
    """`proxy.encoder=minilm` means the option of that name, as `+encoder@proxy.encoder=minilm` does."""
    for key in ("proxy.encoder", *(f"scoring.levels.{name}.encoder" for name in cfg.scoring.levels)):
        name = OmegaConf.select(cfg, key)
        if isinstance(name, str):
            path = Path(conf_dir(), "encoder", f"{name}.yaml")
            if not path.is_file():
                known = ", ".join(sorted(one.stem for one in path.parent.glob("*.yaml")))
                raise UserError(f"{key}={name} is not an option; choose from {known}")
            with open_dict(cfg):
                OmegaConf.update(cfg, key, OmegaConf.load(path))


def _made(node: DictConfig) -> Any:
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__
        text, _, key = map(str.strip, str(error).rpartition("full_key:"))
        if isinstance(cause, OptionError):
            raise _as_set(node, key, cause) from None
        # For another reason, such as a class path that does not exist.
        raise cause or UserError(f"{key}: {' '.join(text.split())[:300]}") from None


def _as_set(node: DictConfig, place: str, error: OptionError) -> UserError:
    """The error with the whole key; where that is `${another}`, with the other one, which is what people set."""
    parent: Any = OmegaConf.select(node._get_root(), place)
    name = error.field.partition("[")[0]
    if isinstance(parent, DictConfig) and OmegaConf.is_interpolation(parent, name):
        value = str(parent._get_node(name)._value())  # type: ignore[union-attr]
        if found := re.fullmatch(r"\$\{([\w.]+)\}", value):
            return UserError(f"{found[1]}{error.field.removeprefix(name)}{error.problem}")
    return error.under(place)
