"""The command line: one cell, or with -m a sweep of cells. Errors a user can mend are one line and exit code 2."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fastmtl.config import CONFIG_ERRORS, CompareCells, build, command_line, conf_dir, explain
from fastmtl.errors import UserError


def _cell(cfg: DictConfig) -> float | None:
    """Run one cell; its headline metric is what sweepers optimise."""
    experiment = build(cfg)  # before torch is imported, where a plain value is wrong
    from fastmtl.reporting.cell import run_cell

    return run_cell(experiment, cfg)


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")
def _run(cfg: DictConfig) -> float | None:
    job = HydraConfig.get()
    sweep = job.mode == RunMode.MULTIRUN
    command = command_line(list(job.overrides.task))
    if sweep:
        print(f"[{int(job.job.num) + 1}] {command}", flush=True)
    try:
        return _cell(cfg)
    except (UserError, *CONFIG_ERRORS) as error:
        message = explain(error) if isinstance(error, CONFIG_ERRORS) else str(error)
    except Exception as error:
        if not sweep:
            raise
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
    if not sweep:  # an exception would pass through Hydra, which adds lines of its own
        sys.exit(_say(message))
    # One failing cell must not take the others with it: it leaves a note for the table at the end.
    out = Path(job.runtime.output_dir)
    out.mkdir(parents=True, exist_ok=True)
    (out / "failure.json").write_text(json.dumps({"error": message, "command": command}))
    return None


def main() -> None:
    """Entry point of `fastmtl`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let Hydra raise, so that its errors too are said here, in one line
    try:
        _run()
    except CONFIG_ERRORS as error:
        sys.exit(_say(explain(error)))
    except KeyboardInterrupt:
        print("\nfastmtl: stopped; the same command goes on from the last finished stage", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stderr.close()
        sys.exit(1)
    if CompareCells.failed:
        sys.exit(2)


def _say(message: str) -> int:
    print(f"fastmtl: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
