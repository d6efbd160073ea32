"""The rules of the house: which room may import which, where third-party libraries live, which words are not used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "clipfold"
FILES = sorted(SOURCE.rglob("*.py"))

# A room may import the leaves, itself, and these.
LEAVES = {"clip", "errors", "world", "rng", "files", "progress", "plugins", "pool", "worker"}
ROOMS = {
    "ingest": set(),
    "shards": {"ingest"},
    "looking": {"ingest", "shards"},
    "stream": {"ingest", "shards"},
    "augment": set(),
    "models": {"augment"},
    "training": {"ingest", "shards", "stream", "augment", "models"},
    "demo": {"ingest", "shards", "stream", "augment", "models", "training"},
    "testing": {"augment", "models"},
    "cli": {"ingest", "shards", "looking", "stream", "augment", "models", "training", "demo"},
    "__main__": {"cli"},
}
# The files (prefixes below src/clipfold) that may import a library.
HOMES = {
    "av": ("ingest/decoders", "ingest/resize", "shards/codecs/mp4", "demo"),
    "decord": ("ingest/decoders",),
    "torchcodec": ("ingest/decoders",),
    "pyarrow": ("ingest/tables",),
    "triton": ("models/kernels",),
    "torch.distributed": ("training/distributed",),
    "ray": ("shards/engines",),
    "webdataset": ("shards",),
    "simplejpeg": ("shards/codecs", "demo"),
    "zstandard": ("shards/codecs",),
    "tyro": ("cli",),
    "fsspec": ("files", "stream/storage", "ingest/places", "ingest/urls"),
}
DATA_WING_WITHOUT_TORCH = (
    "ingest",
    "shards",
    "looking",
    "pool",
    "worker",
    "files",
    "clip",
    "errors",
    "world",
    "progress",
    "plugins",
)


def imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether it is imported when the file is) for every import outside `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text())

    def walk(node: ast.AST, at_top: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                yield child.module or "", at_top
                yield from ((f"{child.module}.{alias.name}", at_top) for alias in child.names)
            yield from walk(child, at_top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    yield from walk(tree, True)


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        allowed = set(ROOMS) | LEAVES
    elif room in LEAVES:
        allowed = LEAVES
    else:
        assert room in ROOMS, f"{path}: a new room; say in this test what it may import"
        allowed = LEAVES | ROOMS[room] | {room}
    for module, _ in imports_of(path):
        parts = module.split(".")
        if parts[0] == "clipfold" and len(parts) > 1:
            assert parts[1] in allowed, f"{path}: {room} may not import {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_libraries_stay_at_home(path: Path) -> None:
    place = str(path.relative_to(SOURCE))
    for module, at_top in imports_of(path):
        for library, homes in HOMES.items():
            if module == library or module.startswith(f"{library}."):
                assert place.startswith(homes), f"{place}: {library} lives in {homes}"
        if at_top and module.split(".")[0] == "torch":
            assert place.removesuffix(".py").split("/")[0] not in DATA_WING_WITHOUT_TORCH, (
                f"{place}: workers that convert must start without torch"
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_names_say_what_a_thing_is(path: Path) -> None:
    for word in ("utils", "util", "helpers", "helper", "manager", "handler", "info", "common"):
        assert word not in path.stem.split("_"), f"{path}: {word} says nothing"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            words = node.name.lower().split("_")
            assert not {"utils", "helper", "manager", "handler", "info", "common"} & set(words), (
                f"{path}:{node.lineno}: {node.name}"
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_read_can_run_code(path: Path) -> None:
    text = path.read_text()
    modules = {module.split(".")[0] for module, _ in imports_of(path)}
    assert not modules & {"pickle", "cloudpickle", "dill", "shelve", "marshal"}, f"{path}: unpickles"
    assert "allow_pickle=True" not in text
    assert "weights_only=False" not in text
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
            named = {keyword.arg for keyword in node.keywords}
            assert named & {"weights_only", "allow_pickle"}, f"{path}:{node.lineno}: say that nothing is unpickled"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("eval", "exec", "os.system"):
            pytest.fail(f"{path}:{node.lineno}: {ast.unparse(node.func)}")


def test_import_loads_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import clipfold; dir(clipfold); "
        "print([m for m in ('torch', 'numpy', 'av', 'decord', 'rich', 'tyro') if m in set(sys.modules) - before])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    import clipfold

    assert clipfold.__all__ == sorted(clipfold.__all__)
    assert set(clipfold.__all__) == set(clipfold._HOMES)
    for name in clipfold.__all__:
        assert getattr(clipfold, name).__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = clipfold.nothing


def test_no_room_shares_its_name_with_a_public_name() -> None:
    import clipfold

    rooms = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not rooms & set(clipfold.__all__)
