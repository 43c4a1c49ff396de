"""Heads turn a model's forward pass into outputs: one module per objective, found by name.

Each module has a class `Head`; its counterpart in tasks/objectives trains it. A head gets whole
batches of unpadded rows and runs them itself, so a generative head has its own decoding loop. The
scorer sorts the rows, makes the batches and restores the order.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast

import numpy as np
import pyarrow as pa

from ..arrays import Array, Ids
from ..errors import InputError, ModelFolderError
from ..text.pooling import Pool
from ..text.windows import Document

if TYPE_CHECKING:
    from ..runtime.batching import Shapes
    from ..runtime.session import Session
    from ..text.tokenizer import TextTokenizer

__all__ = ["Head", "Ids", "OpenedGraph", "Settings", "get", "names"]

Settings = Mapping[str, Any]
"""Settings of a head, the manifest's `head`, as JSON: {"labels": [...]} for classification."""


WINDOWS = "windows"
"""The option that adds each window's place and decision to a row."""
MIN_PROBABILITY = "min_probability"
NOT_WITHHELD = "only models that give labels to a whole text withhold those they are unsure of"
"""The option that withholds decisions of a lower probability."""
UNSURE = "unsure"
"""Reason code of a row whose decision was withheld. It is no fault: the row was scored."""


class OpenedGraph(Protocol):
    """The session or sessions that `Head.open` returned, as a runner sees them."""

    @property
    def providers(self) -> list[str]:
        """Best first."""

    @property
    def shapes(self) -> Shapes:
        """The shapes that its batches must have."""

    @property
    def one_length(self) -> bool:
        """True if all rows of a batch must have the same length."""


class Head:
    """Base class of heads; an instance serves one model.

    `options`: keyword arguments that the caller of a job may set, such as `probabilities=True`.
    Methods take the options that they use and ignore the others; `check` rejects unknown ones.

    `session`: what `open` returned. It, the outputs and the options have types of their own in each
    head, which its methods name.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    """Names of the options."""
    FLAGS: ClassVar[tuple[str, ...]] = ()
    """Names of the boolean options."""
    SHARES: ClassVar[tuple[str, ...]] = ()
    """Names of the options that are a number from 0 to 1, by default 0."""
    DRIFT_COLUMNS: ClassVar[Mapping[str, str]] = {}
    """Columns watched for drift, each with the key of its shares in the training profile."""
    TOKEN_BUDGETS: ClassVar[Mapping[str, int]] = {"cpu": 1024, "cuda": 16_384, "tensorrt": 16_384}
    """Tokens in a batch by device, padding included; on a CPU as many as fit its caches, measured
    with MiniLM."""
    GOLDEN: ClassVar[Mapping[str, Any]] = {}
    """Options that golden rows are run with."""
    TIMED: ClassVar[Mapping[str, Any]] = {}
    """Options that timed passes are run with."""
    PER_LABEL: ClassVar[tuple[str, ...]] = ()
    """Columns of lists with a number for each of the settings' labels, in their order."""
    LARGEST_DECIDES: ClassVar[bool] = True
    """In golden outputs the largest number is the decision, so its index must match exactly."""
    TRUNCATION_SIDE: ClassVar[Literal["left", "right"]] = "right"
    """Side on which a text that is too long is cut; `left` keeps its end."""
    OFFSETS: ClassVar[bool] = False
    """The head needs the character offsets of the tokens."""
    REPORTS_TRUNCATION: ClassVar[bool] = False
    """The head reports for each text whether it was cut."""
    LIKE_TRAINING: ClassVar[bool] = True
    """Scored texts should be as long as training texts, so that a difference in length is drift."""

    def __init__(
        self,
        settings: Settings,
        *,
        pad_id: int,
        tokenizer: TextTokenizer | None = None,
        pool: Pool | None = None,
    ) -> None:
        """`pool`: combines the outputs of a text's windows; None if texts are not split."""
        self.settings, self.pad_id, self.tokenizer = settings, pad_id, tokenizer
        self.pool = pool

    @classmethod
    def check(cls, options: Mapping[str, object], *, pools: bool = False) -> None:
        """Raise InputError for an unknown option, a flag that is no boolean, or a wrong share.

        `pools`: the model splits long texts into windows and pools their outputs.
        """
        option_names = cls._known(pools=pools)
        for name, value in options.items():
            if name == MIN_PROBABILITY and name not in option_names:
                raise InputError(f"{name}: {NOT_WITHHELD}")
            if name not in option_names:
                hint = (
                    f"available: {', '.join(option_names)}" if option_names else "it has no options"
                )
                raise InputError(f"this model has no option {name!r}; {hint}")
            if name in (*cls.FLAGS, WINDOWS) and not isinstance(value, bool):
                raise InputError(f"{name} must be true or false, not {value!r}")
            if name in cls.SHARES:
                cls.check_share(name, value)

    @classmethod
    def check_share(cls, name: str, value: object) -> None:
        """Raise InputError unless the value of an option is a number from 0 to 1."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= cast("float", value) <= 1:
            raise InputError(f"{name} must be a number from 0 to 1, not {value!r}")

    @classmethod
    def text_of(cls, value: object) -> Any:
        """Return the text in a row's value; a value that holds none is returned unchanged."""
        return value

    @classmethod
    def timed_tokens(cls, lengths: Iterable[int]) -> int:
        """Return the number of tokens that a timed pass over rows of these lengths counts as."""
        return sum(lengths)

    def defaults(self) -> dict[str, object]:
        """Return the default value of each option."""
        return {name: 0.0 if name in self.SHARES else False for name in self.options}

    def open(self, graph: Path, opened: Callable[[Path], Session]) -> OpenedGraph:
        """Return the session(s) for `run`; `opened` opens a graph (runtime/session.py)."""
        return opened(graph)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of this model's options; `windows` only if it splits texts into windows."""
        return self._known(pools=self.pool is not None)

    @classmethod
    def _known(cls, *, pools: bool) -> tuple[str, ...]:
        """Names of the options; `windows` only without OFFSETS: spans have places of their own."""
        return (*cls.OPTIONS, WINDOWS) if pools and not cls.OFFSETS else cls.OPTIONS

    def reads_whole(self, **options: Any) -> bool:
        """True if texts are passed whole, not cut to the model's length."""
        return False

    def max_growth(self, **options: Any) -> int:
        """Return the number of tokens that a row may grow by while it runs."""
        return 0

    def run(self, session: Any, rows: Sequence[Any], **options: Any) -> Sequence[object]:
        """Run one batch of token ids, each (length,); return one output per row, in order.

        `rows`: arrays of ids; of a model of pairs, `arrays.PairIds`. batching.feeds takes both.
        """
        raise NotImplementedError

    def join(self, document: Document, outputs: Sequence[Any]) -> object:
        """Combine the outputs of a text's windows into the output of the text."""
        return self.pool(np.asarray(outputs)) if self.pool else outputs[0]

    def alone(self, outputs: Sequence[object]) -> object:
        """Collect the outputs of windows as if each window were a text."""
        assert self.pool is not None
        return self.collect([self.pool(np.asarray(output)[None]) for output in outputs])

    def written(self, outputs: Sequence[object]) -> int:
        """Return the number of tokens generated for these rows; 0 for an encoder."""
        return 0

    def collect(self, outputs: Sequence[Any]) -> object:
        """Combine the outputs of all texts into one value: for classification logits (n, k)."""
        raise NotImplementedError

    def numbers(self, outputs: Any) -> Array:
        """Return the numbers (n, ...) of collected outputs by which golden rows are compared."""
        return cast("Array", outputs)

    def agrees(self, decision: Any, other: Any) -> bool:
        """True if two values of the first column are the same decision."""
        return bool(decision == other)

    def fields(self, **options: Any) -> list[pa.Field]:
        """Return the columns of a scored row, the decision first.

        Raises InputError for bad options.
        """
        raise NotImplementedError

    def columns(self, outputs: Any, **options: Any) -> list[pa.Array]:
        """Turn collected outputs into those columns; a decision not made is null."""
        raise NotImplementedError

    def withheld(self, table: pa.Table) -> Array:
        """Return a mask (n,) of the rows whose decision was withheld because it is unsure.

        `table`: those columns.
        """
        return np.zeros(len(table), bool)


GROUP = "headrace.heads"
"""Entry point group in which other packages register their heads."""


def names() -> list[str]:
    """Return the names of the heads in this package, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))


def module_of(name: str) -> str:
    """Return the full name of an objective's module. Raises ModelFolderError if there is none."""
    if name in names():
        return f"{__name__}.{name}"
    entries = importlib.metadata.entry_points(group=GROUP)
    if name in entries.names:
        return entries[name].value
    all_names = ", ".join([*names(), *entries.names])
    raise ModelFolderError(f"unknown objective {name!r}; this version supports {all_names}")


def get(name: str) -> type[Head]:
    """Return an objective's head class. Raises ModelFolderError if there is none."""
    return cast(type[Head], importlib.import_module(module_of(name)).Head)
