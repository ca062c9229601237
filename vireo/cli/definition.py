"""`vireo policy`, `vireo template`, `vireo project`, and rules in `vireo alert`: the same commands for each
kind of definition."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from schemas.alerts import AlertRule
from schemas.definitions import KINDS, DefinitionKind, Project, ProjectUse, Template
from schemas.policies import Policy
from vireo.cli import acting, completion, options, session, words
from vireo.cli.exits import Exit
from vireo.cli.options import examples
from vireo.cli.printing import Output, note, show_data, show_lines, show_page, show_table

if TYPE_CHECKING:
    from vireo.client import Client
    from vireo.operations import PendingOperation

USE_PATIENCE_S = 3.0
"""A definition is not held back for longer by what is shown beside it."""

D = TypeVar("D", bound=Policy | Template | Project | AlertRule)

HELP: dict[DefinitionKind, str] = {
    "policy": "Policies: how hosts are weighed, and how strict each rule is.",
    "template": "Templates: what VMs have in common.",
    "project": "Projects: VMs that belong together, with their policy and quota.",
    "rule": "Alerts: what fires, the rules, and silences.",
}
PLURAL: dict[DefinitionKind, str] = {
    "policy": "policies",
    "template": "templates",
    "project": "projects",
    "rule": "rules",
}
GROUP: dict[DefinitionKind, str] = {
    "policy": "policy",
    "template": "template",
    "project": "project",
    "rule": "alert",
}
"""The group of commands in which each kind is defined."""
File = Annotated[
    str, typer.Argument(help="A file in YAML or JSON; - is standard input.", metavar="FILE")
]
Name = Annotated[
    str,
    typer.Argument(help="Its name.", autocompletion=completion.names_of_group, metavar="NAME"),
]


def room_of(client: Client, kind: DefinitionKind) -> Any:
    return getattr(client, PLURAL[kind])


def read_file(of: type[D], path: str) -> D:
    """The definition in a file; ends the command with every mistake and its place if it is none."""
    from schemas.definition_files import MAX_BYTES, BadFile, read_definition

    try:
        if path == "-":
            text = sys.stdin.read(MAX_BYTES + 1)
        else:
            with Path(path).open(encoding="utf-8") as file:
                text = file.read(MAX_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        session.refuse(f"cannot read {path}: {words.unreadable(error)}")
    try:
        return read_definition(text, of)
    except BadFile as bad:
        kind = next(kind for kind, each in KINDS.items() if each is of)
        note(f"error: {path} is no {kind}")
        for each in bad.errors:
            note(f"  {path}:{each.line}:{each.column}: {each.detail}")
        raise typer.Exit(Exit.USAGE) from bad


def is_file(what: str) -> bool:
    """Whether FILE|NAME means a file: what looks like none is a name."""
    return what == "-" or Path(what).exists() or "/" in what or "." in what


def make_app(kind: DefinitionKind) -> typer.Typer:
    """The commands of one kind."""
    app = typer.Typer(help=HELP[kind], no_args_is_help=True, rich_markup_mode=None)
    _add_apply(app, kind)
    if kind != "rule":
        # What `vireo alert list` lists is what fires.
        _add_list(app, kind)
    for add in (_add_show, _add_versions, _add_diff, _add_remove):
        add(app, kind)
    return app


def _add_apply(app: typer.Typer, kind: DefinitionKind) -> None:
    def apply(
        context: typer.Context,
        file: File,
        wait: options.Wait = True,
        timeout: options.Timeout = options.WAIT,
        quiet: options.Quiet = False,
        dry_run: options.DryRun = False,
        output: options.Output = Output.TABLE,
    ) -> None:
        how = acting.waiting(
            wait=wait, timeout=timeout, quiet=quiet, output=output, dry_run=dry_run
        )
        definition = read_file(KINDS[kind], file)

        async def begin(client: Client) -> PendingOperation:
            pending: PendingOperation = await room_of(client, kind).apply(definition)
            return pending

        acting.act(context, begin, how, name=definition.name)

    apply.__doc__ = f"""Make a file the newest version of the {kind} that it names.

    Without a version in the file the next one is counted. A file that says what is so already changes
    nothing."""
    group = GROUP[kind]
    lines = (f"vireo {group} apply {kind}.yaml", f"vireo {group} apply - < {kind}.yaml")
    app.command("apply", epilog=examples(*lines))(apply)


def _add_list(app: typer.Typer, kind: DefinitionKind) -> None:
    def list_(
        context: typer.Context,
        limit: options.Limit = None,
        output: options.Output = Output.TABLE,
    ) -> None:
        async def body(client: Client) -> None:
            from vireo.cli.definition_view import definition_table

            found = [each async for each in room_of(client, kind).list(limit=limit)]
            if output.is_data:
                show_data(found, output)
                return
            table = definition_table(found, wide=output is Output.WIDE, now=datetime.now(UTC))
            show_table(table, empty=f"none yet; 'vireo {kind} apply --help' shows how to make one")

        session.run(context, body)

    list_.__doc__ = f"List {PLURAL[kind]} by name."
    app.command("list", epilog=examples(f"vireo {kind} list", f"vireo {kind} list -o json"))(list_)


def _add_show(app: typer.Typer, kind: DefinitionKind) -> None:
    def show(
        context: typer.Context,
        name: Name,
        version: Annotated[
            int | None, typer.Option(help="This version, not the newest.", min=1, metavar="N")
        ] = None,
        output: options.Output = Output.TABLE,
    ) -> None:
        async def body(client: Client) -> None:
            from vireo.cli.definition_view import definition_page, lines_of

            found = await room_of(client, kind).get(name, version=version)
            if output.is_data:
                show_data(found, output)
                return
            of_now = kind == "project" and version is None
            use = await use_if_known(client, name) if of_now else None
            show_page(definition_page(found, now=datetime.now(UTC), use=use))
            show_lines(["", *lines_of(found.definition)])

        session.run(context, body)

    and_use = " What its VMs take is shown beside it." if kind == "project" else ""
    show.__doc__ = f"Show a {kind} as a file would say it, and who applied it when.{and_use}"
    group = GROUP[kind]
    lines = (f"vireo {group} show NAME", f"vireo {group} show NAME --version 2 -o yaml")
    app.command("show", epilog=examples(*lines))(show)


def _add_use(app: typer.Typer) -> None:
    def use(context: typer.Context, name: Name, output: options.Output = Output.TABLE) -> None:
        """Show what a project's VMs take, beside its quota."""

        async def body(client: Client) -> None:
            from vireo.cli.definition_view import use_page

            found = await client.projects.use(name)
            if output.is_data:
                show_data(found, output)
            else:
                show_page(use_page(found))

        session.run(context, body)

    app.command("use", epilog=examples("vireo project use NAME", "vireo project use NAME -o json"))(
        use
    )


def _add_versions(app: typer.Typer, kind: DefinitionKind) -> None:
    def versions(
        context: typer.Context,
        name: Name,
        limit: options.Limit = None,
        output: options.Output = Output.TABLE,
    ) -> None:
        async def body(client: Client) -> None:
            from vireo.cli.definition_view import version_table

            found = [each async for each in room_of(client, kind).versions(name, limit=limit)]
            if output.is_data:
                show_data(found, output)
            else:
                show_table(version_table(found, now=datetime.now(UTC)), empty="no versions")

        session.run(context, body)

    versions.__doc__ = f"List every version of a {kind}, newest first."
    app.command("versions", epilog=examples(f"vireo {GROUP[kind]} versions NAME"))(versions)


def _add_diff(app: typer.Typer, kind: DefinitionKind) -> None:
    def diff(
        context: typer.Context,
        what: Annotated[
            str,
            typer.Argument(help="A file, or with versions the name.", metavar="FILE|NAME"),
        ],
        old: Annotated[
            int | None, typer.Argument(help="The older version.", min=1, metavar="OLD")
        ] = None,
        new: Annotated[
            int | None,
            typer.Argument(help="The newer version; else the newest.", min=1, metavar="NEW"),
        ] = None,
    ) -> None:
        given = read_file(KINDS[kind], what) if old is None else None

        async def body(client: Client) -> None:
            from vireo.cli.definition_view import difference

            room = room_of(client, kind)
            if given is not None:
                before = await _present(room, given.name)
                after, target = given, what
            else:
                before = await room.get(what, version=old)
                newer = await room.get(what, version=new)
                after, target = newer.definition, _title(newer)
            source = _title(before) if before is not None else "nothing"
            present = before.definition if before is not None else None
            lines = difference(present, after, names=(source, target))
            show_lines(lines)
            if not lines:
                note("no difference")

        session.run(context, body)

    diff.__doc__ = (
        f"Show how a file differs from the {kind} that counts now, or how two versions do."
    )
    group = GROUP[kind]
    lines = (
        f"vireo {group} diff {kind}.yaml",
        f"vireo {group} diff NAME 2",
        f"vireo {group} diff NAME 1 3",
    )
    app.command("diff", epilog=examples(*lines))(diff)


def _add_remove(app: typer.Typer, kind: DefinitionKind) -> None:
    def remove(
        context: typer.Context,
        name: Name,
        wait: options.Wait = True,
        timeout: options.Timeout = options.WAIT,
        quiet: options.Quiet = False,
        dry_run: options.DryRun = False,
        output: options.Output = Output.TABLE,
    ) -> None:
        how = acting.waiting(
            wait=wait, timeout=timeout, quiet=quiet, output=output, dry_run=dry_run
        )

        async def begin(client: Client) -> PendingOperation:
            pending: PendingOperation = await room_of(client, kind).remove(name)
            return pending

        acting.act(context, begin, how, name=name)

    remove.__doc__ = f"Remove a {kind} that nothing names any more. Its versions are kept."
    app.command("remove", epilog=examples(f"vireo {GROUP[kind]} remove NAME"))(remove)


async def use_if_known(
    client: Client, name: str, *, patience_s: float = USE_PATIENCE_S
) -> ProjectUse | None:
    """What a project takes; the rest is shown also while its scheduler is away."""
    from vireo.errors import NotFound, Unavailable

    try:
        async with asyncio.timeout(patience_s):
            return await client.projects.use(name)
    except TimeoutError:
        note(f"what its VMs take is not known: no answer within {patience_s:g} s")
    except (NotFound, Unavailable) as error:
        note(f"what its VMs take is not known: {error}")
    return None


async def _present(room: Any, name: str) -> Any:
    from vireo.errors import NotFound

    try:
        return await room.get(name)
    except NotFound:
        return None


def _title(found: Any) -> str:
    return f"{found.kind} {found.name} version {found.version}"


policy = make_app("policy")
template = make_app("template")
project = make_app("project")
_add_use(project)
rule = make_app("rule")
