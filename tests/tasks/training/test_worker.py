"""What a process of a training says of how it ended."""

from pathlib import Path

import pytest
import torch

from headrace.configs.errors import RecipeError, UserError
from headrace.tasks.training import launcher, worker


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"), "out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "out_of_memory"),
        (RuntimeError("shapes cannot be multiplied"), "failed"),
        (ValueError("out of memory of this"), "failed"),
    ],
)
def test_running_out_of_memory_is_told_by_each_librarys_own_words(
    problem: Exception, kind: str
) -> None:
    assert worker.outcome_of(problem)["outcome"] == kind


def test_what_the_user_can_mend_is_the_users_error(tmp_path: Path) -> None:
    outcome = worker.outcome_of(RecipeError("model.scratch: no such birt"))
    failure = launcher.failure(outcome, tmp_path)
    assert isinstance(failure, UserError)
    assert str(failure) == "model.scratch: no such birt"
