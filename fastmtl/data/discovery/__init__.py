"""What is in a folder of labelled files: tasks, columns, kinds and labels, inferred before anything is trained."""

from fastmtl.data.discovery.discover import discover
from fastmtl.data.discovery.result import Discovery, FoundTask, Question

__all__ = ["Discovery", "FoundTask", "Question", "discover"]
