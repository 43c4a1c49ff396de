"""Files that are replaced whole or not at all."""

from pathlib import Path

import pytest

from headrace.serving.atomic import replacing


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, durable: bool) -> None:
    file = tmp_path / "file"
    file.write_text("before")

    def half() -> None:
        with replacing(file, durable=durable) as aside:
            aside.write_text("aft")
            raise RuntimeError("half")

    with pytest.raises(RuntimeError, match="half"):
        half()
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "before"
    with replacing(file, durable=durable) as aside:
        aside.write_text("after")
        assert file.read_text() == "before"
    assert file.read_text() == "after"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
