"""A store that is not this machine's: what is fetched, what is gone and what is out of reach."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.configs.errors import ModelError, UnusableVersion
from headrace.tasks.registry import model_store
from headrace.tasks.runtime import workspace
from tests.serving.tiny_model import make_model


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Path]:
    """What MLflow's artifact repository for `kept://` holds; gone from here, it does not answer."""
    from mlflow.store.artifact import artifact_repository_registry as repositories
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    place = tmp_path / "remote"
    place.mkdir()

    class Kept(LocalArtifactRepository):
        def __init__(self, uri: str, *args: Any, **kwargs: Any) -> None:
            if not place.exists():
                raise OSError("the store does not answer")
            self.place = place / uri.removeprefix("kept://")
            super().__init__(self.place.as_uri())

        def download_artifacts(self, artifact_path: str, dst_path: str | None = None) -> str:
            found = self.place / (artifact_path or "")
            if not found.exists():
                raise OSError(f"no {found}")
            copy = Path(dst_path or ".") / found.name
            (shutil.copytree if found.is_dir() else shutil.copy)(found, copy)
            return str(copy)

    known = repositories._artifact_repository_registry
    known.register("kept", Kept)
    yield place
    del known._registry["kept"]


def test_the_report_of_a_remote_run_is_the_newest(remote: Path, tmp_path: Path) -> None:
    (remote / "run" / "report").mkdir(parents=True)
    page, uri = remote / "run" / "report" / "report.html", "kept://run/report/report.html"
    for content in ("first", "second"):
        page.write_text(content)
        assert model_store.report_page(uri, tmp_path / "kept").read_text() == content
    assert [one.name for one in (tmp_path / "kept").iterdir()] == ["report.html"]
    page.unlink()
    with pytest.raises(ModelError, match="no report at kept://run/report"):
        model_store.report_page(uri, tmp_path / "kept")
    remote.rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="cannot be downloaded: the store does not answer"):
        model_store.report_page(uri, tmp_path / "kept")


def test_a_remote_version_that_is_gone_is_unusable_and_one_out_of_reach_is_not(
    remote: Path, tmp_path: Path
) -> None:
    make_model(remote / "v1" / "artifacts" / "model")
    content = model_store.content_id(remote / "v1" / "artifacts" / "model")
    whole = model_store.whole_sha256(remote / "v1")
    for said in (content, whole):
        folder = model_store.fetch("kept://v1", said, what="far version 1")
        assert folder.is_relative_to(workspace.home() / "models" / said)
        assert model_store.content_id(folder) == content
        shutil.rmtree(workspace.home() / "models" / said)
    (remote / "v1" / "artifacts" / "model" / "golden.json").write_text("{}")
    for said in (content, whole):
        with pytest.raises(UnusableVersion, match=r"far version 1: .* differs from the registered"):
            model_store.fetch("kept://v1", said, what="far version 1")
    shutil.rmtree(remote / "v1")
    with pytest.raises(UnusableVersion, match="far version 1: its files are missing"):
        model_store.fetch("kept://v1", whole, what="far version 1")
    remote.rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="cannot be downloaded") as told:
        model_store.fetch("kept://v1", whole, what="far version 1")
    assert not isinstance(told.value, UnusableVersion)


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("file:///srv/a%20model", "/srv/a model"),
        ("/srv/model", "/srv/model"),
        ("C:\\models\\1", "C:\\models\\1"),
        ("s3://bucket/model", None),
        ("mlflow-artifacts:/1/model", None),
    ],
)
def test_what_is_on_this_machine(uri: str, place: str | None) -> None:
    assert model_store._local(uri) == (place and Path(place))
