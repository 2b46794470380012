"""Choosing rows: candidates in, positions out."""
