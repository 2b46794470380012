"""A processor that has half precision, or one that has none, on any machine: `pytest --bf16` and `pytest --no-bf16`."""

from __future__ import annotations

import os

from tests.helpers.processor import sitecustomize


def force(bf16: bool) -> None:
    """Fake what torch says of the processor, in this process and in all that it starts.

    Every Python process imports a module of the name `sitecustomize` as it starts, and finds it by PYTHONPATH. What
    a test pins (`precision=bf16`) is computed as ever: only what `precision: auto` becomes is decided by the fake. A
    processor without bf16 emulates it, so that `--bf16` gives the same rounding there, and takes longer.
    """
    os.environ[sitecustomize.VARIABLE] = str(int(bf16))
    folder = os.path.dirname(sitecustomize.__file__)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if folder not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, *filter(None, paths)])
    sitecustomize.fake()
