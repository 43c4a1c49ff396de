"""A workspace that cannot be."""

import pytest

from headrace.configs.errors import UserError
from headrace.tasks.runtime import workspace


def test_a_workspace_that_cannot_be_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HOME", "/proc/none")
    with pytest.raises(UserError, match=r"/proc/none cannot be created: .*HEADRACE_HOME"):
        workspace.home()
