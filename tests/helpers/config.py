"""The configuration as tests go through it: every key of every option, and a changed key without composing anew."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from fastmtl.cli.compose import conf_dir, values

PRESETS = ("experiment", "debug")
"""Groups whose options set keys of others."""

PLACED = ("fit",)
"""Groups whose options stand elsewhere."""

composed = lru_cache(maxsize=64)(values)
"""The configuration of some overrides, composed once; take `changed` to change it."""


def changed(base: tuple[str, ...], *overrides: str) -> DictConfig:
    """The composed `base` after overrides of single keys, which Hydra applies as it does those of a command line."""
    cfg = copy.deepcopy(composed(*base))
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(list(overrides)), cfg)
    return cfg


def leaves(cfg: DictConfig) -> dict[str, str]:
    """Dotted key of every value -> class path of the object that it is an option of, empty for plain values."""
    found: dict[str, str] = {}

    def walk(node: object, prefix: str, target: str) -> None:
        if isinstance(node, dict) and node:
            for key, inner in node.items():
                if key not in ("_target_", "_recursive_"):
                    walk(inner, f"{prefix}.{key}".lstrip("."), node.get("_target_", target))
        else:
            found[prefix] = target

    walk(OmegaConf.to_container(cfg, resolve=False), "", "")
    return found


def options() -> Iterator[tuple[str, ...]]:
    """The default configuration, and that with each option of each group."""
    yield ()
    for path in sorted(Path(conf_dir()).glob("*/*.yaml")):
        if path.parent.name not in (*PRESETS, *PLACED):
            yield (f"{path.parent.name}={path.stem}",)


def keys_of(option: tuple[str, ...]) -> dict[str, str]:
    """`leaves` that the option has, or the default configuration; read from the option's file, which is quick."""
    if not option:
        return leaves(composed())
    group, _, name = option[0].partition("=")
    return leaves(OmegaConf.create({group: _read(Path(conf_dir(), group), name)}))


def _read(folder: Path, name: str) -> DictConfig:
    own = OmegaConf.load(folder / f"{name}.yaml")
    assert isinstance(own, DictConfig)
    below = [one for one in own.pop("defaults", []) if one != "_self_"]
    merged = OmegaConf.merge(*(_read(folder, one) for one in below), own)
    assert isinstance(merged, DictConfig)
    return merged


@lru_cache(maxsize=1)
def all_keys() -> frozenset[tuple[str, str]]:
    """(class path, key) of everything that can be set."""
    found = {(target, key) for one in options() for key, target in keys_of(one).items()}
    return frozenset((target, key) for target, key in found if key not in PRESETS)
