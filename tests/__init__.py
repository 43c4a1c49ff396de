"""The tests: a tree that mirrors the packages, one file for each module or behavior."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The repository."""
