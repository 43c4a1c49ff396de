"""Load a Recipe: read its YAML file, apply `section.key=value` overrides, and check it."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from headrace.configs import secrets
from headrace.configs.errors import RecipeError, did_you_mean
from headrace.configs.schema import Recipe

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
"""A number that YAML reads as text, because it has no point or no sign."""
SHOWN_CHARS = 300
"""Characters shown of a value, or of the error in it."""
RENAMED = {
    "beams": "num_beams",
    "best_by": "metric_for_best_model",
    "floor": "min_value",
    "joined": "concatenate",
    "piece": "chunk_chars",
    "schedule": "lr_scheduler_type",
    "warmup": "warmup_steps",
}
"""Former names of keys, and their present names."""
PATHS = {"files": ("train", "validation", "test"), "text": ("files",)}
"""Keys that name files, by kind of source."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply the overrides, make file paths absolute, and check it.

    Paths in the file are relative to the file's folder, paths in overrides to the current one.
    Raises RecipeError with file, key, value, and the nearest allowed key for an unknown one.
    """
    file = Path(path)
    try:
        content = parsed(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(
            f"recipe {file} not found; `headrace init TABLE -o {file}` writes one"
        ) from None
    except OSError as problem:
        raise RecipeError(f"{file} cannot be read: {problem.strerror}") from problem
    except ValueError as problem:
        raise RecipeError(f"{file} cannot be read: {_one_line(problem)}") from problem
    if not isinstance(content, dict):
        kind = "nothing" if content is None else type(content).__name__
        raise RecipeError(
            f"{file} is not a recipe: expected a mapping of sections, found {kind}; "
            "`headrace init TABLE -o RECIPE` writes one"
        )
    _absolute_paths(content, file.resolve().parent)
    for override in overrides:
        _apply(content, override)
    secrets.note(content)
    try:
        return Recipe.model_validate(content)
    except ValidationError as problem:
        overridden_keys = {override.partition("=")[0].strip() for override in overrides}
        lines = explain(file, problem, Recipe, content, overridden_keys)
        raise RecipeError("\n".join(lines)) from None


MAX_VALUES = 100_000
"""Values of a recipe; aliases of aliases make millions out of a few lines."""


class _Loader(yaml.SafeLoader):
    """YAML loader that refuses a key given twice."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        seen = set()
        for name, _ in node.value:
            if name.value in seen and isinstance(name, yaml.ScalarNode):
                line = name.start_mark.line + 1
                raise ValueError(f"duplicate key {name.value!r} in line {line}")
            seen.add(name.value if isinstance(name, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


def parsed(text: str) -> object:
    """Parse YAML to plain values. Raises ValueError if it is invalid or has too many values."""
    try:
        content = yaml.load(text, _Loader)
    except Exception as problem:  # its own errors, and those of int() and others
        raise ValueError(_one_line(problem) or type(problem).__name__) from problem
    todo, n_values = [content], 0
    while todo:
        value = todo.pop()
        n_values += 1
        if n_values > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES:,} values; check for nested YAML aliases")
        if isinstance(value, dict):
            todo += value.values()
        elif isinstance(value, list | tuple | set):
            todo += value
    return content


def values_of(arguments: Sequence[str]) -> dict[str, object]:
    """Parse `NAME=VALUE` arguments as YAML, with 1e-3 as a number. Raises RecipeError."""
    content: dict[str, object] = {}
    for argument in arguments:
        if "=" not in argument:
            raise RecipeError(f"option {argument!r}: write it as NAME=VALUE")
        key, value = _parsed(argument)
        if isinstance(value, str) and EXPONENT.fullmatch(value):
            value = float(value)
        content[key] = value
    return content


def _parsed(override: str) -> tuple[str, object]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"override {override!r}: write it as section.key=value")
    try:
        return key, parsed(text)
    except ValueError as problem:
        raise RecipeError(f"override {override!r}: {_one_line(problem)}") from None


def _apply(content: dict[str, object], override: str) -> None:
    key, value = _parsed(override)
    *sections, last = key.split(".")
    place = content
    for section in sections:
        inner = place.get(section)
        if not isinstance(inner, dict):
            place[section] = inner = dict[str, object]()
        place = inner
    place[last] = value
    _absolute_paths(content, Path.cwd())


def _absolute_paths(content: dict[str, object], base: Path) -> None:
    """Make the relative paths of files (and of a model folder) absolute, in place, from `base`."""
    data, model = content.get("data"), content.get("model")
    source = data.get("source") if isinstance(data, dict) else None
    if isinstance(source, dict):
        for key in PATHS.get(str(source.get("kind")), ()):
            value = source.get(key)
            if isinstance(value, str):
                source[key] = _absolute(value, base)
            elif isinstance(value, list):
                source[key] = [_absolute(path, base) for path in value]
    if isinstance(model, dict) and str(model.get("source", "")).startswith("."):
        model["source"] = _absolute(model["source"], base)


def _absolute(path: object, base: Path) -> object:
    if not isinstance(path, str) or "://" in path:
        return path
    return str(base / Path(path).expanduser())


# --- messages -------------------------------------------------------------------------------------


def explain(
    file: Path | str,
    problem: ValidationError,
    model: type[BaseModel],
    content: object,
    overridden_keys: Collection[str] = (),
) -> list[str]:
    """Return one line per key: file, key, what is wrong, and the nearest allowed key.

    `content`: the validated values. `overridden_keys`: keys or sections that are not from the file.
    """
    messages: dict[str, list[str]] = {}
    values: dict[str, str] = {}
    errors = [(".".join(_place(content, error)), error) for error in problem.errors()]
    for place, error in errors:
        # Of a union, the member that the value is meant for tells what is wrong inside of it.
        is_inside = any(other.startswith(f"{place}.") for other, _ in errors)
        if is_inside and error["type"].endswith("_type"):
            continue
        messages.setdefault(place, []).append(_what_is_wrong(error, place, model))
        if error["type"] not in ("extra_forbidden", "missing"):
            shown_value = (
                error["input"] if isinstance(error["input"], str | int | float | bool) else None
            )
            values[place] = "" if shown_value is None else f" (it is {excerpt(repr(shown_value))})"
    lines = []
    for place, reasons in messages.items():
        is_overridden = any(f"{place}.".startswith(f"{key}.") for key in overridden_keys)
        origin = "override" if is_overridden else file
        lines.append(f"{origin}: {' or '.join(dict.fromkeys(reasons))}{values.get(place, '')}")
    return lines


def excerpt(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."


def _place(content: Any, error: ErrorDetails) -> list[str]:
    """Return the key's path, without the parts that pydantic adds to name members of a union."""
    *parents, last = error["loc"] or ("",)
    parts = []
    for part in parents:
        if _has(content, part):
            parts.append(str(part))
            content = content[part]
    if _has(content, last) or error["type"] in ("missing", "extra_forbidden"):
        parts.append(str(last))
    return parts


def _has(content: object, part: object) -> bool:
    if isinstance(content, list):
        return isinstance(part, int) and part < len(content)
    return isinstance(content, dict) and part in content


def _what_is_wrong(error: ErrorDetails, key: str, model: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        allowed = _allowed_keys(model, [str(part) for part in error["loc"][:-1]])
        last = str(error["loc"][-1])
        hint = did_you_mean(last, allowed, f"allowed: {', '.join(allowed)}", cutoff=0.5)
        if RENAMED.get(last) in allowed:
            hint = f"renamed to {RENAMED[last]!r}"
        return f"unknown key {excerpt(repr(key))}; {hint}"
    if error["type"] == "missing":
        return f"{key!r} is missing"
    message = _one_line(error["msg"].removeprefix("Value error, "))
    return f"{key!r}: {excerpt(message)}"


def _allowed_keys(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Return the field names of the section at `path`; unions and defaults are looked through."""
    sections: list[type[BaseModel]] = [model]
    for part in path:
        subsections: list[type[BaseModel]] = []
        for section in sections:
            if part in section.model_fields:
                subsections += _models_in(section.model_fields[part].annotation)
            elif "kind" in section.model_fields and part in get_args(
                section.model_fields["kind"].annotation
            ):
                subsections.append(section)
        sections = subsections
    return sorted({name for section in sections for name in section.model_fields})


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _one_line(problem: Exception | str) -> str:
    return " ".join(str(problem).split())


def json_schema() -> dict[str, object]:
    """Return the JSON schema of a recipe, for editors."""
    return TypeAdapter(Recipe).json_schema()


if __name__ == "__main__":
    import json

    print(json.dumps(json_schema(), indent=1))
