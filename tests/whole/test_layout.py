"""The shape of the code: rooms with faces, short files, and a walk in the listed order."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import scdiff_data
import scdiff_data.diffusion
from support.walk import PACKAGE, follow_a_cell, list_files, list_rooms

ROOMS = list_rooms()
CONFIGS = Path(__file__).parents[2] / "configs"


def read(room: str, file: str = "__init__") -> ast.Module:
    return ast.parse((PACKAGE / room / f"{file}.py").read_text())


def test_the_packages_docstring_names_every_room_once() -> None:
    assert sorted(ROOMS) == sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py"))


def test_the_rooms_docstrings_name_every_file_once() -> None:
    files = {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.glob("*/*.py")}
    assert sorted(list_files()) == sorted(f for f in files if not f.endswith("__init__.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_a_face_and_a_few_short_files(room: str) -> None:
    files = [path for path in (PACKAGE / room).glob("*.py") if path.stem != "__init__"]
    assert len(files) <= 9
    assert {p.name: n for p in files if (n := len(p.read_text().splitlines())) > 300} == {}


@pytest.mark.parametrize("room", ROOMS)
def test_a_face_is_purpose_imports_and_all_alone(room: str) -> None:
    purpose, *imports, names = read(room).body
    assert isinstance(purpose, ast.Expr)
    assert all(isinstance(statement, ast.ImportFrom) for statement in imports)
    assert isinstance(names, ast.Assign)
    exported = ast.literal_eval(names.value)
    assert sorted(exported) == sorted(a.name for i in imports for a in i.names)
    face = import_module(f"scdiff_data.{room}")
    assert all(getattr(face, name) is not None for name in exported)


def test_no_file_bears_the_name_of_something_that_is_exported() -> None:
    exported = {name for room in ROOMS for name in import_module(f"scdiff_data.{room}").__all__}
    exported |= set(scdiff_data.__all__)
    assert {path.stem for path in PACKAGE.rglob("*.py")} & exported == set()


def test_the_packages_lazy_names_are_those_of_the_rooms_faces() -> None:
    assert {*scdiff_data._ROOM_OF, "__version__"} == set(scdiff_data.__all__)
    for name, room in scdiff_data._ROOM_OF.items():
        module = import_module(f"scdiff_data.{room}")
        assert room == "errors" or name in module.__all__, name
        assert getattr(scdiff_data, name) is getattr(module, name)
    body = ast.parse((PACKAGE / "__init__.py").read_text()).body
    typed = next(statement for statement in body if isinstance(statement, ast.If))
    promised = {(s.module, a.name) for s in typed.body for a in s.names}
    assert promised == {(f"scdiff_data.{r}", name) for name, r in scdiff_data._ROOM_OF.items()}


def test_configs_name_public_classes_alone() -> None:
    text = "\n".join(path.read_text() for path in CONFIGS.rglob("*.yaml"))
    pattern = r"_target_: scdiff_data\.(diffusion\.)?(\w+)(\.[a-z_]+)?$"
    targets = re.findall(pattern, text, re.M)
    assert len(targets) == text.count("_target_: scdiff_data")
    for is_demo, name, _ in targets:
        assert name in (scdiff_data.diffusion if is_demo else scdiff_data).__all__


def test_every_constant_has_a_sentence_of_its_own() -> None:
    without = []
    for path in PACKAGE.rglob("*.py"):
        body = ast.parse(path.read_text()).body
        for statement, following in zip(body, [*body[1:], None], strict=True):
            if not isinstance(statement, ast.Assign | ast.AnnAssign):
                continue
            targets = getattr(statement, "targets", [getattr(statement, "target", None)])
            names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            is_attribute = any(isinstance(t, ast.Attribute) for t in targets)
            has_docstring = isinstance(following, ast.Expr) and len(names) == 1
            if not (has_docstring or is_attribute or names[0] in ("__all__", "logger", "_log")):
                without.append((path.name, names))
    assert without == []


def test_help_loads_nothing_and_preparing_neither_torch_nor_lightning() -> None:
    script = (
        "import sys\n"
        "from scdiff_data import cli\n"
        "cli.main(['--help'])\n"
        "assert not {'numpy', 'numba', 'jsonargparse'} & set(sys.modules)\n"
        "try: cli.main(['prepare', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'matplotlib', 'scanpy', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_cell_walks_through_the_rooms_in_the_order_of_the_picture() -> None:
    beside_the_way = {"base", "sources", "offline", "recipes", "evaluation", "diffusion"}
    beside_the_way |= {"telling", "starting", "remote"}
    beside_the_way |= {"sampling", "callbacks", "command", "reporting"}
    way, listed = (
        [room for room in rooms if room not in beside_the_way]
        for rooms in (follow_a_cell().rooms, ROOMS)
    )
    assert way == listed
