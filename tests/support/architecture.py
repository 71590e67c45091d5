"""The floors and rooms of the source, read from its imports, and their picture in the README.

To draw the picture again: python -m tests.support.architecture
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

FLOORS = ("flows", "training", "preprocessing", "store")  # each may import those after it
README = Path("README.md")
BEGIN, END = "<!-- rooms: drawn from the imports -->\n", "<!-- end of rooms -->\n"
WIDTH, LINE = 16, 118


def modules(floor: str) -> list[Path]:
    """Return the modules of a floor, without packages' own files that only name them."""
    return sorted(Path(floor).rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    """Yield the dotted names of the modules that a module imports. Raises: ValueError for a relative import."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
            case ast.ImportFrom():
                raise ValueError(f"{path}: relative import; write the floor's name")


def room_of(path: Path) -> str:
    """Return the folder below the floor that a module lies in; a module of the floor's own level is a room."""
    return "/".join(path.parts[1:-1]) or path.name


def room_imports(floor: str) -> dict[str, set[str]]:
    """Return which rooms of a floor each of its rooms imports, itself left out."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for path in modules(floor):
        if path.name == "__init__.py" and len(path.parts) == 2:
            continue
        arrows[room_of(path)] |= set()
        for name in imports_of(path):
            first, *rest = name.split(".")
            if first == floor and rest:
                target = Path(floor, *rest)
                imported = "/".join(rest) if target.is_dir() else room_of(target.with_suffix(".py"))
                arrows[room_of(path)] |= {imported} - {room_of(path)}
    return dict(arrows)


def picture() -> str:
    """Draw floors and rooms: a room imports only from rooms below it, on its floor and on those below."""
    lines = ["```"]
    for floor in FLOORS:
        arrows = room_imports(floor)
        order = reversed(
            [*TopologicalSorter({room: sorted(its) for room, its in arrows.items()}).static_order()]
        )
        own = [path.stem for path in Path(floor).glob("*.py") if not path.stem.startswith("__init")]
        lines += _wrapped(f"{floor}/", sorted(own), "")
        for room in (name for name in order if not name.endswith(".py")):
            names = [path.stem for path in sorted(Path(floor, room).glob("*.py")) if path.stem != "__init__"]
            imported = sorted(name for name in arrows[room] if not name.endswith(".py"))
            lines += _wrapped(f"  {room}/", names, f"-> {' '.join(imported)}" if imported else "")
    return "\n".join([*lines, "```", ""])


def _wrapped(label: str, names: list[str], arrow: str) -> list[str]:
    """Lay a room out in lines of at most LINE characters, the arrow at the end of the last."""
    words = names + ([arrow] if arrow else [])
    lines = [f"{label} ".ljust(WIDTH)]
    for word in words:
        if len(lines[-1]) + len(word) + 2 > LINE:
            lines.append(" " * WIDTH)
        lines[-1] += word + "  "
    return [line.rstrip() for line in lines]


def main() -> None:
    """Replace the picture in the README."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(before + BEGIN + picture() + END + after)


if __name__ == "__main__":
    main()
