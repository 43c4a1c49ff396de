"""Values as a reader sees them: on the terminal, in reports."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Format seconds as `0.4 s`, `1 min 23 s` or `3 h 12 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
