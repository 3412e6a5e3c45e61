"""Value classes as mypyc likes them: structs and dataclasses become plain classes with the same fields.

A struct's fields are objects to compiled code and a dataclass is filled by name; a plain class is a C structure.
"""

from __future__ import annotations

import ast

BY_VALUE = ("msgspec.Struct", "Struct")


def plain_classes(source: str, names: frozenset[str]) -> str:
    """The module with these classes plain: `__init__`, equality and hash as they had them.

    Raises ValueError for a name that is no such class, and for a field that has no type.
    """
    tree = ast.parse(source)
    left = set(names)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in left:
            left.discard(node.name)
            _make_plain(node)
    if left:
        raise ValueError(f"no class {', '.join(sorted(left))} in the module")
    return ast.unparse(ast.fix_missing_locations(tree))


def _make_plain(node: ast.ClassDef) -> None:
    made_by = [ast.unparse(base) for base in node.bases] + [ast.unparse(each) for each in node.decorator_list]
    if not any(name in BY_VALUE or name.startswith("dataclass") for name in made_by):
        raise ValueError(f"{node.name} is neither a struct nor a dataclass")
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
    methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    has_more = any(each.name == "__post_init__" for each in methods)
    names = [each.target.id for each in fields if isinstance(each.target, ast.Name)]
    given, filled = [], []
    for each, name in zip(fields, names, strict=True):
        kind = ast.unparse(each.annotation)
        if each.value is None:
            given.append(f"{name}: {kind}")
            filled.append(f"self.{name}: {kind} = {name}")
        elif (factory := _factory(each.value)) is not None:
            given.append(f"{name}: {kind} | None = None")
            filled.append(f"self.{name}: {kind} = {factory}() if {name} is None else {name}")
        else:
            given.append(f"{name}: {kind} = {ast.unparse(each.value)}")
            filled.append(f"self.{name}: {kind} = {name}")
    if has_more:
        filled.append("self.__post_init__()")
    same = " and ".join(f"self.{name} == other.{name}" for name in names)
    lines = [
        f"class {node.name}:",
        f"    def __init__(self, {', '.join(given)}) -> None:",
        *(f"        {line}" for line in filled),
        "    def __eq__(self, other: object) -> bool:",
        f"        return isinstance(other, {node.name}) and {same}",
        "    def __hash__(self) -> int:",
        f"        return hash(({''.join(f'self.{name}, ' for name in names)}))",
    ]
    made = ast.parse("\n".join(lines)).body[0]
    assert isinstance(made, ast.ClassDef)
    node.bases, node.keywords, node.decorator_list = [], [], []
    node.body = [*made.body, *methods]


def _factory(value: ast.expr) -> str | None:
    """Of `field(default_factory=...)`."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        for keyword in value.keywords:
            if keyword.arg == "default_factory":
                return ast.unparse(keyword.value)
    return None
