"""Overrides of the smallest cells that still have every stage."""

from __future__ import annotations

ONE_EPOCH = ["proxy.fit.epochs=1", "multitask.fit.epochs=1", "finetune.fit.epochs=1"]

SMALL = ["encoder=tiny", "data.rows_per_task=120", "proxy.examples_per_task=40", *ONE_EPOCH]
"""Of the generated sample. Equal overrides are equal pools and proxies, so tests add to these."""
