"""What a forward pass becomes: one file per objective, found by its name.

A module here has a class `Head`; its twin in tasks/objectives knows how to train it. A head gets
whole batches of unpadded rows and owns what happens to them, so one that generates has its own
decode loop; sorting, batching and order are the scorer's.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import pyarrow as pa

from ..arrays import Ids
from ..errors import InputError, ModelFolderError
from ..text.pooling import Pool
from ..text.windows import Document

if TYPE_CHECKING:
    from ..text.tokenizer import TextTokenizer

__all__ = ["Head", "Ids", "Settings", "get", "names"]

Settings = Mapping[str, Any]
"""`manifest.head`: {"labels": [...]} for classification."""


WINDOWS = "windows"
"""The option that asks what was decided of each window, and where it stands."""


class Head:
    """Made for one model. `options`: what the caller of a job may ask for, such as
    `probabilities=True`; a head takes those that are its own."""

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    """Their names."""
    FLAGS: ClassVar[tuple[str, ...]] = ()
    """Those of them that are true or false."""
    DRIFT_COLUMNS: ClassVar[Mapping[str, str]] = {}
    """Output column to the key of the training profile with its shares: watched for drift."""
    TOKEN_BUDGETS: ClassVar[Mapping[str, int]] = {"cpu": 1024, "cuda": 16_384, "tensorrt": 16_384}
    """By device, tokens a batch holds, padding included: on a CPU what its caches hold, measured on
    MiniLM."""
    GOLDEN: ClassVar[Mapping[str, Any]] = {}
    """Options that golden rows run with."""
    TIMED: ClassVar[Mapping[str, Any]] = {}
    """Options of passes that are timed."""
    LARGEST_DECIDES: ClassVar[bool] = True
    """Of golden rows the largest number is the decision: two that are near are not the same."""
    TRUNCATION_SIDE: ClassVar[Literal["left", "right"]] = "right"
    """Of a text that is too long, the end is kept, not the start."""
    OFFSETS: ClassVar[bool] = False
    """It has to know where in a text its tokens stand."""
    REPORTS_TRUNCATION: ClassVar[bool] = False
    """It tells of each text whether it was cut."""
    LIKE_TRAINING: ClassVar[bool] = True
    """What is scored is as long as what was trained on, so that a difference is drift."""

    def __init__(
        self,
        settings: Settings,
        *,
        pad_id: int,
        tokenizer: TextTokenizer | None = None,
        pool: Pool | None = None,
    ) -> None:
        """`pool`: where texts are read in windows, how their outputs become the text's."""
        self.settings, self.pad_id, self.tokenizer = settings, pad_id, tokenizer
        self.pool = pool

    @classmethod
    def check(cls, options: Mapping[str, Any], *, pools: bool = False) -> None:
        """Raises InputError for an option that it does not have, or that cannot be.

        `pools`: the model reads texts in windows, and puts their outputs together.
        """
        known = cls._known(pools=pools)
        for name, value in options.items():
            if name not in known:
                have = f"it has {', '.join(known)}" if known else "it has none"
                raise InputError(f"this model has no option {name!r}; {have}")
            if name in (*cls.FLAGS, WINDOWS) and not isinstance(value, bool):
                raise InputError(f"{name} must be true or false, not {value!r}")

    @classmethod
    def text_of(cls, value: Any) -> Any:
        """A row's text, of what its column holds; what is no text stays what it is."""
        return value

    @classmethod
    def timed_tokens(cls, lengths: Iterable[int]) -> int:
        """What a timed pass over rows of these lengths is counted as."""
        return sum(lengths)

    def defaults(self) -> dict[str, Any]:
        """What each option is when nobody asks for it."""
        return dict.fromkeys(self.options, False)

    def open(self, graph: Path, opened: Callable[[Path], Any]) -> Any:
        """The sessions that `run` gets; `opened` makes one (runtime/session.py) of a graph."""
        return opened(graph)

    @property
    def options(self) -> tuple[str, ...]:
        """Of this model: some are there only where texts are read in windows."""
        return self._known(pools=self.pool is not None)

    @classmethod
    def _known(cls, *, pools: bool) -> tuple[str, ...]:
        """What has places of its own in a text is not decided of each window."""
        return (*cls.OPTIONS, WINDOWS) if pools and not cls.OFFSETS else cls.OPTIONS

    def reads_whole(self, **options: Any) -> bool:
        """Whether texts are not cut to the model's length."""
        return False

    def max_growth(self, **options: Any) -> int:
        """Tokens that a row may grow by while it runs."""
        return 0

    def run(self, session: Any, rows: Sequence[Ids], **options: Any) -> Sequence[Any]:
        """One batch of token ids, each (length,), to one output per row, in the same order."""
        raise NotImplementedError

    def join(self, document: Document, outputs: Sequence[Any]) -> Any:
        """The output of a text from those of its windows."""
        return self.pool(np.asarray(outputs)) if self.pool else outputs[0]

    def alone(self, outputs: Sequence[Any]) -> Any:
        """Collected outputs of windows as if each were a text."""
        assert self.pool is not None
        return self.collect([self.pool(np.asarray(output)[None]) for output in outputs])

    def written(self, outputs: Sequence[Any]) -> int:
        """Tokens that were written for these rows; models that only read write none."""
        return 0

    def collect(self, outputs: Sequence[Any]) -> Any:
        """The outputs of all texts as one value: for classification logits (n, k)."""
        raise NotImplementedError

    def numbers(self, outputs: Any) -> Any:
        """Of collected outputs what golden rows are compared by: (n, ...)."""
        return outputs

    def agrees(self, decision: Any, other: Any) -> bool:
        """Whether two values of the first column are the same decision."""
        return bool(decision == other)

    def fields(self, **options: Any) -> list[pa.Field]:
        """The columns of a scored row, the decision first. Raises InputError for wrong options."""
        raise NotImplementedError

    def columns(self, outputs: Any, **options: Any) -> list[pa.Array]:
        """Collected outputs to those columns; a null decision where the model made none."""
        raise NotImplementedError


GROUP = "headrace.heads"
"""Of entry points, by which packages bring their own."""


def names() -> list[str]:
    """Of those that stand here."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))


def module_of(name: str) -> str:
    """The module's full name. Raises ModelFolderError for an objective that there is none for."""
    if name in names():
        return f"{__name__}.{name}"
    others = importlib.metadata.entry_points(group=GROUP)
    if name in others.names:
        return others[name].value
    have = ", ".join([*names(), *others.names])
    raise ModelFolderError(f"no head for the objective {name!r}; this Headrace has {have}")


def get(name: str) -> type[Head]:
    """The objective's head. Raises ModelFolderError for a name there is none for."""
    return cast(type[Head], importlib.import_module(module_of(name)).Head)
