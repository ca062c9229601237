"""The policies and alert rules that come with Vireo: the YAML files beside this one and in `rules`. Read
from the package, else pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

from schemas.alerts import AlertRule
from schemas.definition_files import read_definition
from schemas.definitions import AnyDefinition, DefinitionKind
from schemas.policies import Policy

HERE = files("schemas.shipped")


def shipped() -> dict[str, Policy]:
    """Policies by name. Raises BadFile, with all that is wrong, if one cannot be read."""
    return {each.name: each for each in (read_definition(text, Policy) for text in _texts(HERE))}


def shipped_rules() -> dict[str, AlertRule]:
    """Alert rules by name. Raises BadFile."""
    texts = _texts(HERE / "rules")
    return {each.name: each for each in (read_definition(text, AlertRule) for text in texts)}


def all_shipped() -> dict[DefinitionKind, Mapping[str, AnyDefinition]]:
    """By kind and name. Raises BadFile."""
    return {"policy": shipped(), "rule": shipped_rules()}


def _texts(folder: Traversable) -> Iterator[str]:
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.endswith(".yaml"):
            yield path.read_text()
