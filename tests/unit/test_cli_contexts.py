"""Contexts: who wins, what is kept where, and that a token goes to its own gateway only."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from vireo.contexts import (
    DEFAULT_URL,
    Context,
    ContextError,
    Contexts,
    chosen,
    contexts_file,
    is_private,
    load,
    save,
)

HOME = Context(url="https://home.example", token="kept")
EDGE = Context(url="https://edge.example")


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path), **more}


@pytest.fixture(name="known")
def _known(tmp_path: Path) -> dict[str, str]:
    """An environment with two contexts, the first of them current."""
    contexts = (
        Contexts().with_context("home", HOME, use=False).with_context("edge", EDGE, use=False)
    )
    save(contexts_file(environ(tmp_path)), contexts)
    return environ(tmp_path)


def test_without_anything_the_own_machine_is_meant(tmp_path: Path) -> None:
    target = chosen(environ(tmp_path))
    assert (target.url, target.read_token(), target.context) == (DEFAULT_URL, None, None)


def test_the_current_context_is_taken(known: dict[str, str]) -> None:
    target = chosen(known)
    assert (target.url, target.read_token(), target.context) == (HOME.url, "kept", "home")


def test_a_context_can_be_named_by_argument_before_environment(known: dict[str, str]) -> None:
    assert chosen({**known, "VIREO_CONTEXT": "edge"}).context == "edge"
    assert chosen({**known, "VIREO_CONTEXT": "edge"}, context="home").context == "home"


def test_an_address_from_the_environment_does_not_get_the_contexts_token(
    known: dict[str, str],
) -> None:
    target = chosen({**known, "VIREO_URL": "https://elsewhere.example"})
    assert (target.url, target.read_token()) == ("https://elsewhere.example", None)


def test_a_token_from_the_environment_goes_before_the_kept_one(known: dict[str, str]) -> None:
    assert chosen({**known, "VIREO_TOKEN": "other"}).read_token() == "other"


def test_an_unknown_context_is_refused_with_those_that_are_known(known: dict[str, str]) -> None:
    with pytest.raises(ContextError, match="known: edge, home"):
        chosen(known, context="nowhere")


def test_the_file_is_for_its_owner_alone(known: dict[str, str]) -> None:
    path = contexts_file(known)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert is_private(path)
    assert list(path.parent.iterdir()) == [path]
    path.chmod(0o644)
    assert not is_private(path)


def test_what_is_saved_is_loaded_again(known: dict[str, str]) -> None:
    assert load(contexts_file(known)) == Contexts(
        current="home", contexts={"home": HOME, "edge": EDGE}
    )


@pytest.mark.parametrize(
    "text",
    [
        "current = ",
        "colour = 'red'",
        "[contexts.a]\ncolour = 'red'\nurl='x'",
        "[contexts.'../x']\nurl=''",
    ],
)
def test_a_broken_file_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "contexts.toml"
    path.write_text(text)
    with pytest.raises(ContextError, match=r"contexts\.toml is not valid"):
        load(path)


def test_a_token_file_is_read_at_each_use(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("first\n")
    contexts = Contexts().with_context(
        "a", Context(url="http://a", token_file=str(secret)), use=True
    )
    save(contexts_file(environ(tmp_path)), contexts)
    target = chosen(environ(tmp_path))
    assert target.read_token() == "first"
    secret.write_text("second\n")
    assert target.read_token() == "second"
    secret.unlink()
    with pytest.raises(ContextError, match="cannot read the token file"):
        target.read_token()


def test_tokens_are_not_in_what_is_shown_of_values(known: dict[str, str]) -> None:
    assert "kept" not in repr(load(contexts_file(known)))
    assert "kept" not in repr(chosen(known))


def test_forgetting_the_current_context_leaves_none_current() -> None:
    contexts = Contexts().with_context("home", HOME, use=True).with_context("edge", EDGE, use=False)
    assert contexts.without("home") == Contexts(contexts={"edge": EDGE})
    assert contexts.without("edge").current == "home"
