"""The policies that come with Vireo: the YAML files beside this one. Read from the package, else pure."""

from __future__ import annotations

from importlib.resources import files

from schemas.definition_files import read_policy
from schemas.policies import Policy


def shipped() -> dict[str, Policy]:
    """By name. Raises BadFile, with all that is wrong, if one cannot be read."""
    paths = sorted(files("schemas.shipped").iterdir(), key=lambda path: path.name)
    found = [read_policy(path.read_text()) for path in paths if path.name.endswith(".yaml")]
    return {policy.name: policy for policy in found}
