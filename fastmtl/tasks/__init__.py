"""Tasks: what they are, the GLUE table, and one module per kind of task."""

from fastmtl.tasks.glue import GLUE
from fastmtl.tasks.spec import Source, TaskSpec

__all__ = ["GLUE", "Source", "TaskSpec"]
