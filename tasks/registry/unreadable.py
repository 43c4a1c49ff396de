"""A champion that no candidate can be compared with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unreadable:
    """A registered version whose files are gone, damaged or not a model that can be opened."""

    name: str
    version: str
    problem: str

    @property
    def told(self) -> str:
        return f"champion {self.name} version {self.version} cannot be used ({self.problem})"
