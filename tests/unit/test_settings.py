"""Settings: where they come from, and how everything that is wrong with them is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta, Struct

from chassis.secret import Secret, SecretUnreadable, read_secret
from chassis.settings import ChassisSettings, Fault, SettingsError, load
from chassis.settings_fields import leaves
from chassis.settings_reference import reference, undescribed


class Nest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    eggs: Annotated[int, Meta(ge=0, le=9)] = 3
    """How many eggs there are."""
    twigs: tuple[str, ...] = ()
    """What it is made of."""


class Settings(ChassisSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    song: str
    """What is sung."""
    key: Secret | None = None
    """What opens the nest."""
    place: Path | None = None
    """Where it is."""
    colours: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    """Feathers by part."""
    nest: Nest = Nest()

    def __post_init__(self) -> None:
        if self.song == "silence" and self.nest.eggs:
            raise ValueError("a silent bird has no eggs")


class Inner(Struct, frozen=True):
    c: int = 1


class B(Struct, frozen=True):
    b_c: int = 1


class Clash(Struct, frozen=True):
    a_b: Inner = Inner()
    a: B = B()


def loaded(environ: dict[str, str], toml: str = "", *, directory: Path | None = None) -> Settings:
    file = None
    if directory is not None:
        file = directory / "vireo.toml"
        file.write_text(toml)
    return load(Settings, service="gateway", file=file, environ=environ)


def faults(environ: dict[str, str], toml: str = "", *, directory: Path | None = None) -> set[str]:
    with pytest.raises(SettingsError) as caught:
        loaded(environ, toml, directory=directory)
    return {f"{fault.where}: {fault.what}" for fault in caught.value.faults}


def test_defaults_give_way_to_the_file_and_the_file_to_the_environment(tmp_path: Path) -> None:
    toml = 'song = "from the file"\nsite = "wood"\n[nest]\neggs = 4\ntwigs = ["oak"]\n'
    settings = loaded({"VIREO_GATEWAY_SONG": "from here"}, toml, directory=tmp_path)
    assert settings == Settings(song="from here", site="wood", nest=Nest(eggs=4, twigs=("oak",)))


def test_a_variable_for_one_service_is_stronger_than_the_shared_one() -> None:
    environ = {"VIREO_SITE": "all", "VIREO_GATEWAY_SITE": "mine", "VIREO_GATEWAY_SONG": "x"}
    assert loaded(environ).site == "mine"


def test_variables_are_read_as_the_type_of_their_setting() -> None:
    settings = loaded(
        {
            "VIREO_GATEWAY_SONG": "12",
            "VIREO_GATEWAY_KEY": "open",
            "VIREO_GATEWAY_PLACE": "/a/tree",
            "VIREO_GATEWAY_COLOURS": "wing=green, eye=red",
            "VIREO_GATEWAY_NEST_EGGS": "7",
            "VIREO_GATEWAY_NEST_TWIGS": "oak, elm",
        }
    )
    assert settings == Settings(
        song="12",
        key=Secret("open"),
        place=Path("/a/tree"),
        colours={"wing": "green", "eye": "red"},
        nest=Nest(eggs=7, twigs=("oak", "elm")),
    )


def test_lists_may_be_json_and_an_empty_variable_leaves_out() -> None:
    environ = {"VIREO_GATEWAY_NEST_TWIGS": '["a,b"]', "VIREO_GATEWAY_PLACE": ""}
    settings = loaded({**environ, "VIREO_GATEWAY_SONG": "x"})
    assert (settings.nest.twigs, settings.place) == (("a,b",), None)


def test_everything_that_is_wrong_is_told_at_once_with_its_source(tmp_path: Path) -> None:
    toml = 'siet = "x"\nnest = {egs = 1, eggs = 77, twigs = "oak"}\n[log]\nlevel = "loud"\n'
    file = tmp_path / "vireo.toml"
    told = faults(
        {"VIREO_GATEWAY_NEST_EGS": "1", "VIREO_TRACE_RATIO": "two"}, toml, directory=tmp_path
    )
    assert told == {
        f"{file}: siet: unknown setting; did you mean site?",
        f"{file}: nest.egs: unknown setting; did you mean nest.eggs?",
        f"{file}: nest.eggs: Expected `int` <= 9",
        f"{file}: nest.twigs: Expected `array`, got `str`",
        f"{file}: log.level: Invalid enum value 'loud'",
        "VIREO_GATEWAY_NEST_EGS: unknown setting; did you mean VIREO_GATEWAY_NEST_EGGS?",
        "VIREO_TRACE_RATIO: Expected `float`, got `str`",
        "song: missing: set `song` in the file or VIREO_GATEWAY_SONG",
    }


def test_the_variables_of_neighbours_are_overlooked_but_not_mistakes_in_shared_ones() -> None:
    told = faults(
        {
            "VIREO_GATEWAY_SONG": "x",
            "VIREO_SCHEDULER_ANYTHING": "1",
            "VIREO_TOKEN": "of the command line",
            "VIREO_SIET": "x",
            "PATH": "/bin",
        }
    )
    assert told == {"VIREO_SIET: unknown setting; did you mean VIREO_SITE?"}


def test_values_that_do_not_go_together_are_told() -> None:
    assert faults({"VIREO_GATEWAY_SONG": "silence"}) == {"settings: a silent bird has no eggs"}


def test_a_file_that_is_missing_or_no_toml_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(Settings, service="gateway", file=tmp_path / "none.toml", environ={})
    assert any("cannot be read" in told for told in faults({}, "= oh", directory=tmp_path))


def test_a_bad_secret_is_not_shown() -> None:
    class Hiding(ChassisSettings, frozen=True, kw_only=True):
        key: Annotated[Secret, Meta(description="hidden")]

    settings = load(
        Hiding, service="gateway", file=None, environ={"VIREO_GATEWAY_KEY": "open sesame"}
    )
    assert settings.key.reveal() == "open sesame"
    assert "sesame" not in f"{settings!r} {settings.key} {Fault('a', repr(settings.key))}"


def test_two_settings_may_not_share_a_variable() -> None:
    with pytest.raises(TypeError, match="share a variable name: A_B_C"):
        leaves(Clash)


def test_a_secret_is_read_from_its_file_rather_than_from_its_value(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from the file\n")
    assert read_secret(Secret("value"), file) == "from the file"
    assert read_secret(Secret("value"), None) == "value"
    assert read_secret(None, None) is None


def test_an_empty_or_missing_secret_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for name in ("empty", "missing"):
        with pytest.raises(SecretUnreadable, match=name):
            read_secret(None, tmp_path / name)


def test_every_setting_of_the_chassis_is_described() -> None:
    assert undescribed(ChassisSettings) == []


def test_the_reference_names_key_variable_type_default_and_meaning() -> None:
    text = reference({"gateway": Settings})
    assert (
        "| `nest.eggs` | `VIREO_GATEWAY_NEST_EGGS` | integer, 0 to 9 | `3` "
        "| How many eggs there are. |" in text
    )
    assert "| `song` | `VIREO_GATEWAY_SONG` | text | required | What is sung. |" in text
    assert "| `site` | `VIREO_SITE` |" in text
