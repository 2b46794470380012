"""What a user reads when something is wrong: one line that names the value and the fix."""

from __future__ import annotations

import difflib
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from fastmtl.errors import UserError

CONFIG_ERRORS = (HydraException, OmegaConfBaseException)


def explain(error: Exception, conf: str, defaults: Callable[[], DictConfig]) -> str:
    """What Hydra or OmegaConf raised, in one line: the value, and what to use instead, from `conf` and `defaults`."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        options = [name for name in error.options if name != "default"] or list(error.options)
        return f"{group}={option} is not an option; choose from {', '.join(options)}"
    if isinstance(error, MissingMandatoryValue):
        return " ".join(str(error).split("\n")[0].split()) + "; pass it on the command line"
    cause: BaseException = error
    while isinstance(cause.__cause__, CONFIG_ERRORS):
        cause = cause.__cause__
    text = next((line.strip() for line in f"{error}\n{cause}".splitlines() if line.strip()), type(error).__name__)
    if "LexerNoViableAlt" in text:
        typed = text.partition(": ")[2]
        return f"{typed!r} cannot be read; put quotes around a value, or a key that is not ASCII into a YAML file"
    if "Ambiguous value" in text:
        return f"{text}; pass -m for a sweep over several values, or quote a list as [a,b]"
    if isinstance(error, ConfigCompositionException) and "Could not override" in text:
        return _unknown(text.split("'")[1], Path(conf), defaults())
    return text


def _unknown(key: str, conf: Path, defaults: DictConfig) -> str:
    """A key that the selected options lack: options that have it, or else the most similar key of all."""
    parts = key.split(".")
    having = [
        f"{'/'.join(parts[:i])}={path.stem}"
        for i in range(1, len(parts))
        for path in sorted(conf.joinpath(*parts[:i]).glob("*.yaml"))
        if ".".join(parts[i:]) in dict(nodes(OmegaConf.load(path)))
    ]
    if having:
        verb = "has" if len(having) == 1 else "have"
        return (
            f"{key!r} is not a key of the selected options; {', '.join(having)} {verb} it (in a sweep over several "
            "choices: a command of its own, under the same study=NAME)"
        )
    known = [*dict(nodes(defaults)), *_keys_of_options(conf)]
    near = difflib.get_close_matches(key, known, n=1) or difflib.get_close_matches(
        parts[-1], [name.rsplit(".", 1)[-1] for name in known], n=1
    )
    fix = f"did you mean {near[0]!r}?" if near else "see fastmtl help"
    return f"{key!r} is not a key of the configuration; {fix}"


@lru_cache
def _keys_of_options(conf: Path) -> tuple[str, ...]:
    """Dotted keys that some option of a group has, whichever options are selected."""
    files = [path for path in sorted(conf.glob("*/*.yaml")) if path.parent.name != "hydra"]
    found = (f"{path.parent.name}.{name}" for path in files for name, _ in nodes(OmegaConf.load(path)))
    return tuple(dict.fromkeys(found))


def nodes(cfg: Any) -> list[tuple[str, Any]]:
    """Dotted key and value of every group and leaf, as written: an interpolation of a missing key would raise."""

    def walk(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
        for name, child in node.items() if isinstance(node, dict) else ():
            yield f"{prefix}{name}", child
            yield from walk(child, f"{prefix}{name}.")

    return list(walk(OmegaConf.to_container(cfg, resolve=False)))


@contextmanager
def in_one_line(program: str, logs: bool = True) -> Iterator[None]:
    """Errors that a user can mend go to stderr as one line, with exit code 2; a stop exits with 130.

    With `logs`, the package's messages are shown too, as Hydra's logging does for `fastmtl` itself.
    """
    set_up_process()
    package = logging.getLogger("fastmtl")
    if logs:
        package.setLevel(logging.INFO)
        if not package.handlers:
            package.addHandler(Terminal())
    try:
        yield
    except UserError as error:
        sys.exit(say(program, str(error)))
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stderr.close()
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\n{program}: stopped; rerun the same command to resume", file=sys.stderr)
        sys.exit(130)


def set_up_process() -> None:
    """Environment where the user sets none, before torch is imported.

    Threads of torch's OpenMP spin while they wait. Two processes on the same cores then stop each other: measured on
    two cores, a step of a small model took 100 times as long beside another job. Sleeping costs nothing measurable.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


class Terminal(logging.Handler):
    """Messages on standard output, whatever that is when a message comes."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), flush=True)


def say(program: str, message: str) -> int:
    """Print an error to stderr; returns the exit code 2."""
    print(f"{program}: {message}", file=sys.stderr)
    return 2


def check_folder_name(name: str) -> None:
    """A `UserError` for a first argument that cannot name a folder of results."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"{name!r} cannot name a folder; the name comes first, then KEY=VALUE")


def command_line(overrides: Sequence[str]) -> str:
    """What a person types to get this cell again."""
    return " ".join(["fastmtl", *(shlex.quote(override) for override in overrides)])
