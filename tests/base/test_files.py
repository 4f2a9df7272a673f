"""Files appear whole or not at all."""

from pathlib import Path

import pytest

from scdiff_data.base.files import write_aside, write_json


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with pytest.raises(UnicodeEncodeError), write_aside(path) as aside:
        aside.write_text("half" * 10_000 + "\ud800", "utf-8")
    assert not list(path.parent.iterdir())
    with write_aside(path) as aside:
        aside.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == '{\n  "a": 1\n}\n'
