"""Artifacts: the folders that one stage hands to the next, cached by a hash of their inputs.

A folder is written under a temporary name and renamed into place, so that an interrupted stage
leaves nothing that looks finished. Its name is a digest of all that determines it: the stage's
config, the artifacts it reads, the code and the library versions. `artifact.json` describes it and
holds the sha256 of every file; a reader gets the folder only after these were checked.

    made = artifacts.make("prepare", key={...}, inputs=[...], code=[...], build=fill_folder)

makes the folder, or finds it complete (`made.cached`), under a lock, so that two processes never
make the same one. A damaged folder is rebuilt. Its `artifact.json` then holds a new time, so its
id, by which later artifacts refer to it, changes and they are rebuilt too. `is_made` only checks
that the folder exists.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Required, TypedDict, TypeVar, Unpack

from headrace.configs.secrets import masked
from headrace.serving.digests import file_sha256
from headrace.tasks.runtime import workspace
from headrace.tasks.runtime.code_digest import code_digest
from headrace.tasks.runtime.json_files import digest_of, write_json

log = logging.getLogger(__name__)

RECORD = "artifact.json"
Facts = TypeVar("Facts", bound=Mapping[str, object], covariant=True)


@dataclass(frozen=True)
class Artifact(Generic[Facts]):
    """A complete, verified folder; `Facts`: what its stage records (facts.py)."""

    stage: str
    digest: str
    """Digest of the stage's name and its DigestInputs; also the folder's name."""
    id: str
    """Digest of artifact.json: differs for every build, even from equal inputs."""
    path: Path
    facts: Facts
    """The stage's summary of its result, as JSON: counts, metrics, names."""
    seconds: float
    cached: bool
    """True if this call found it rather than made it."""


AnyArtifact = Artifact[Mapping[str, object]]


class MakeArguments(TypedDict, total=False):
    """The arguments of `make` that determine the artifact; `key` is required."""

    key: Required[Mapping[str, object]]
    inputs: Sequence[AnyArtifact]
    code: Sequence[str]
    libraries: Sequence[str]


class DigestInputs(TypedDict):
    """Everything that is hashed into an artifact's digest, besides the stage's name."""

    key: object
    """JSON. Secrets are masked when stored in a Record, not when hashed."""
    inputs: dict[str, str]
    """The ids of the artifacts that were read, by stage."""
    code: str
    libraries: dict[str, str]


class Record(DigestInputs):
    """The content of artifact.json."""

    stage: str
    digest: str
    facts: Any
    """As the stage's class in facts.py says."""
    made_at: float
    seconds: float
    files: dict[str, str]
    """The sha256 of every other file, by name."""


def make(
    stage: str,
    *,
    key: Mapping[str, object],
    build: Callable[[Path], Facts],
    inputs: Sequence[AnyArtifact] = (),
    code: Sequence[str] = (),
    libraries: Sequence[str] = (),
) -> Artifact[Facts]:
    """Find the artifact or make it.

    `key`: JSON-serializable settings. `code`: the stage's modules; their imports of our modules are
    followed; list modules that are loaded by a computed name. `libraries`: the distributions whose
    version matters. `build` fills the empty folder it is given and returns the artifact's facts.
    """
    digest_inputs = _digest_inputs(key=key, inputs=inputs, code=code, libraries=libraries)
    digest = digest_of({"stage": stage, **digest_inputs})
    folder = workspace.home() / "artifacts" / stage / digest
    with workspace.turn(f"{stage}-{digest}", making=f"{stage} {digest}"):
        if artifact := _find(stage, digest, folder):
            log.debug("%s: %s is complete; nothing to do", stage, digest)
            return artifact
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        aside = Path(tempfile.mkdtemp(prefix=f".{digest}-", dir=folder.parent))
        try:
            started = time.time()
            facts = build(aside)
            record: Record = {
                "stage": stage,
                "digest": digest,
                **digest_inputs,
                "key": masked(digest_inputs["key"]),
                "facts": facts,
                "made_at": started,
                "seconds": round(time.time() - started, 3),
                "files": {name: file_sha256(aside / name) for name in _files(aside)},
            }
            write_json(aside / RECORD, record)
            aside.rename(folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    artifact = _find(stage, digest, folder)
    assert artifact is not None, f"{folder} failed verification right after it was written"
    return replace(artifact, cached=False)


def is_made(stage: str, **arguments: Unpack[MakeArguments]) -> bool:
    """True if the folder exists, intact or not; takes `make`'s arguments without `build`."""
    name = name_of(stage, **arguments)
    return (workspace.home() / "artifacts" / stage / name).exists()


def name_of(stage: str, **arguments: Unpack[MakeArguments]) -> str:
    """Return the digest that names the artifact; takes `make`'s arguments without `build`."""
    return digest_of({"stage": stage, **_digest_inputs(**arguments)})


def _digest_inputs(
    *,
    key: Mapping[str, object],
    inputs: Sequence[AnyArtifact] = (),
    code: Sequence[str] = (),
    libraries: Sequence[str] = (),
) -> DigestInputs:
    return {
        "key": dict(key),
        "inputs": {artifact.stage: artifact.id for artifact in inputs},
        "code": code_digest(tuple(code)),
        "libraries": {name: importlib.metadata.version(name) for name in libraries},
    }


def _find(stage: str, digest: str, folder: Path) -> Artifact[Any] | None:
    """Return the artifact in `folder`, or None. A damaged one is removed, with a warning."""
    if not folder.exists():
        return None
    try:
        record = verify(folder)
    except ValueError as problem:
        log.warning("%s: %s is damaged (%s); rebuilding it", stage, digest, problem)
        shutil.rmtree(folder)
        return None
    return Artifact(
        stage=stage,
        digest=digest,
        id=id_of(folder / RECORD),
        path=folder,
        facts=record["facts"],
        seconds=record["seconds"],
        cached=True,
    )


def id_of(record: Path) -> str:
    """Return the id of an artifact, from its artifact.json."""
    return file_sha256(record)[:16]


def verify(folder: Path) -> Record:
    """Check every file against artifact.json and return that record.

    Raises ValueError naming the first file that is missing, changed or not listed.
    """
    try:
        record: Record = json.loads((folder / RECORD).read_bytes())
        digests = record["files"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ValueError(f"{RECORD} cannot be read: {problem}") from problem
    names = set(_files(folder)) - {RECORD}
    if names != set(digests):
        raise ValueError(f"files differ from {RECORD}: {sorted(names ^ set(digests))[0]}")
    for name, digest in digests.items():
        if file_sha256(folder / name) != digest:
            raise ValueError(f"{name} does not match its sha256")
    return record


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _sweep(folder: Path) -> None:
    """Remove temporary folders that a killed `make` of this artifact left (we hold its lock)."""
    for leftover in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
