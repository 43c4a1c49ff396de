"""From a YAML file and `section.key=value` overrides to a checked Recipe."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from configs import secrets
from configs.errors import RecipeError
from configs.schema import Recipe

EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
"""A number that YAML reads as text, for want of a point or a sign."""
PATHS = {"files": ("train", "validation", "test"), "text": ("files",)}
"""By kind of source, the keys that name files."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply the overrides, check it; relative file paths become absolute.

    Paths in the file start at the file's own folder, paths in overrides at the current one.
    Raises RecipeError: file, key, value, and the nearest allowed key for an unknown one.
    """
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"no recipe {file}; `headrace init TABLE -o {file}` writes one") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise RecipeError(f"{file} cannot be read: {_one_line(problem)}") from problem
    if not isinstance(content, dict):
        raise RecipeError(
            f"{file}: a recipe is a mapping of sections, not {type(content).__name__}"
        )
    _absolute_paths(content, file.resolve().parent)
    for override in overrides:
        _apply(content, override)
    secrets.note(content)
    try:
        return Recipe.model_validate(content)
    except ValidationError as problem:
        raise RecipeError("\n".join(explain(file, problem, Recipe))) from None


def values_of(given: Sequence[str]) -> dict[str, Any]:
    """The values of `NAME=VALUE`, as YAML reads them, and 1e-3 as a number. Raises RecipeError."""
    content: dict[str, Any] = {}
    for one in given:
        if "=" not in one:
            raise RecipeError(f"option {one!r}: write it as NAME=VALUE")
        key, value = _parsed(one)
        is_number = isinstance(value, str) and EXPONENT.fullmatch(value)
        content[key] = float(value) if is_number else value
    return content


def _parsed(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"override {override!r}: write it as section.key=value")
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise RecipeError(f"override {override!r}: {_one_line(problem)}") from None


def _apply(content: dict[str, Any], override: str) -> None:
    key, value = _parsed(override)
    *sections, last = key.split(".")
    place = content
    for section in sections:
        if not isinstance(place.get(section), dict):
            place[section] = {}
        place = place[section]
    place[last] = value
    _absolute_paths(content, Path.cwd())


def _absolute_paths(content: dict[str, Any], base: Path) -> None:
    """Make the relative paths of files (and of a model folder) start at `base`."""
    data, model = content.get("data"), content.get("model")
    source = data.get("source") if isinstance(data, dict) else None
    if isinstance(source, dict):
        for key in PATHS.get(str(source.get("kind")), ()):
            given = source.get(key)
            if isinstance(given, str):
                source[key] = _absolute(given, base)
            elif isinstance(given, list):
                source[key] = [_absolute(one, base) for one in given]
    if isinstance(model, dict) and str(model.get("source", "")).startswith("."):
        model["source"] = _absolute(model["source"], base)


def _absolute(path: Any, base: Path) -> Any:
    if not isinstance(path, str) or "://" in path:
        return path
    return str(base / Path(path).expanduser())


# --- messages -------------------------------------------------------------------------------------


def explain(file: Path | str, problem: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line an error: file, key, what is wrong, and the nearest allowed key."""
    return [_explain_one(file, error, model) for error in problem.errors()]


def _explain_one(file: Path | str, error: Mapping[str, Any], model: type[BaseModel]) -> str:
    # A tagged union puts its tag into the location; a key path has no place for it.
    place = [str(part) for part in error["loc"]]
    if len(place) > 2 and place[:2] == ["data", "source"]:
        del place[2]
    key = ".".join(place)
    if error["type"] == "extra_forbidden":
        allowed = _allowed_keys(model, [str(part) for part in error["loc"][:-1]])
        near = difflib.get_close_matches(place[-1], allowed, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(allowed)}"
        return f"{file}: unknown key {key!r}; {hint}"
    if error["type"] == "missing":
        return f"{file}: {key!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    shown = error["input"] if isinstance(error["input"], str | int | float | bool) else None
    value = f" (it is {shown!r})" if shown is not None else ""
    return f"{file}: {key!r}: {message}{value}"


def _allowed_keys(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The field names of the section at `path`, looking through unions and defaults."""
    sections: list[type[BaseModel]] = [model]
    for part in path:
        found: list[type[BaseModel]] = []
        for section in sections:
            if part in section.model_fields:
                found += _models_in(section.model_fields[part].annotation)
            elif "kind" in section.model_fields and part in get_args(
                section.model_fields["kind"].annotation
            ):
                found.append(section)
        sections = found
    return sorted({name for section in sections for name in section.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())


def json_schema() -> dict[str, Any]:
    """The recipe's JSON schema, for editors."""
    return TypeAdapter(Recipe).json_schema()


if __name__ == "__main__":
    import json

    print(json.dumps(json_schema(), indent=1))
