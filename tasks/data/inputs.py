"""Resolve the recipe's `data.columns` to a model's inputs (serving/text/inputs.py).

{text: review}                               one text
{text: [title, body]}                        one text, joined from columns
{text: premise, text_pair: hypothesis}       a pair of texts
{features: {amount: number}}                 besides: numbers and categories
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe
from headrace.serving.text.features import Feature
from headrace.serving.text.inputs import PAIR, TEXT, Inputs
from headrace.serving.text.tokenizer import TextTokenizer
from headrace.tasks import objectives

Columns = str | list[str]
"""Column, or columns, of a role."""


def resolve(recipe: Recipe) -> Inputs:
    """Return the inputs as the model's manifest stores them.

    Raises RecipeError for a pair or a list of columns that the objective does not read.
    """
    objective, columns = objectives.get(recipe.objective), recipe.data.roles
    fields, pair = _fields(columns.get(objective.TEXT, TEXT)), columns.get(PAIR)
    if (fields or pair) and not objective.READS_PAIRS:
        role = f"{objective.TEXT}: {columns[objective.TEXT]}" if fields else f"{PAIR}: {pair}"
        raise RecipeError(
            f"data.columns.{role}: {recipe.objective} reads one column of texts; "
            f"pairs and lists of columns are for {', '.join(_readers())}"
        )
    if isinstance(pair, list):
        raise RecipeError(f"data.columns.{PAIR}: the second text is one column, not {pair}")
    if pair and PAIR in fields:
        raise RecipeError(f"data.columns.{objective.TEXT}: a field must not be named {PAIR!r}")
    features = tuple(Feature(name, kind) for name, kind in recipe.data.features.items())
    inputs = Inputs(tuple(fields), pair is not None, recipe.long_text.cut, features)
    _check_features(inputs, recipe)
    return inputs


def _check_features(inputs: Inputs, recipe: Recipe) -> None:
    """Raise RecipeError for features that this recipe's model cannot read."""
    objective, key = objectives.get(recipe.objective), "data.columns.features"
    for role, column in recipe.data.columns.items():
        if isinstance(column, dict) and role != "features":
            raise RecipeError(
                f"data.columns.{role}: a role has a column's name, not {column}; numbers and "
                f"categories beside the text are {key}"
            )
    if "features" in {*recipe.data.roles} - {*objective.COLUMNS, *objective.OPTIONAL}:
        raise RecipeError(
            f"{key}: name the kind of each column, such as {{amount: number, country: category}}, "
            f"not {recipe.data.roles['features']}"
        )
    if not inputs.features:
        return
    if not objective.READS_PAIRS:
        raise RecipeError(
            f"{key}: {recipe.objective} reads only the text; "
            f"features are for {', '.join(_readers())}"
        )
    if recipe.long_text.in_windows and recipe.long_text.pool == "attention":
        raise RecipeError(f"{key}: long_text.pool: attention reads no features; use mean")
    names = [feature.name for feature in inputs.features]
    for name in names:
        if name in (*inputs.fields, TEXT, PAIR):
            raise RecipeError(f"{key}: {name!r} is the name of a text; rename the column")
        if name in _target_columns(recipe, objective.COLUMNS):
            raise RecipeError(f"{key}: {name!r} holds what the model is to predict")


def _target_columns(recipe: Recipe, roles: Iterable[str]) -> list[str]:
    """Return the columns of the roles that are not read."""
    own = objectives.get(recipe.objective).TEXT
    targets = [recipe.data.roles.get(role, role) for role in roles if role not in (own, PAIR)]
    return [name for one in targets for name in ([one] if isinstance(one, str) else one)]


def _fields(columns: Columns) -> list[str]:
    """Return the columns that are joined; a list of one is that column."""
    return columns if isinstance(columns, list) and len(columns) > 1 else []


def _readers() -> list[str]:
    return [name for name in objectives.names() if objectives.get(name).READS_PAIRS]


def columns_of(recipe: Recipe, inputs: Inputs) -> dict[str, str]:
    """Return the column of each input."""
    role = objectives.get(recipe.objective).TEXT
    given = recipe.data.roles.get(role, role)
    columns = {name: name for name in inputs.fields}
    columns = columns or {TEXT: given if isinstance(given, str) else given[0]}
    columns |= {PAIR: str(recipe.data.roles[PAIR])} if inputs.pair else {}
    return columns | {feature.name: feature.name for feature in inputs.features}


def check_template(tokenizer: TextTokenizer, recipe: Recipe) -> None:
    """Raise RecipeError if the tokenizer cannot tell a pair's texts apart, or leaves them no room.

    `tokenizer`: one that does not truncate.
    """
    _, between, _ = tokenizer.pair_template.special
    if not len(between):
        raise RecipeError(
            f"data.columns.{PAIR}: the tokenizer of {recipe.model.source} has no template for "
            "pairs: it would put the texts together without a mark; join them as fields, "
            "data.columns.text: [COLUMN, COLUMN]"
        )
    length = recipe.long_text.window or recipe.model.max_length
    if length - tokenizer.pair_template.n_special < 2:
        raise RecipeError(
            f"model.max_length: {length} tokens leave no room for a pair of texts; raise it"
        )
