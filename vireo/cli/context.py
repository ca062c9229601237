"""`vireo context`: which gateways are known, and which one is talked to."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.ids import is_name
from vireo.cli import completion, session
from vireo.cli.layout import Page, Section, Table
from vireo.cli.options import examples
from vireo.cli.printing import note, show_page, show_table

if TYPE_CHECKING:
    from vireo.contexts import Contexts

app = typer.Typer(
    help="Contexts: gateways and tokens.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[
    str,
    typer.Argument(help="Name of the context.", autocompletion=completion.contexts, metavar="NAME"),
]

_NO_FILE = "vireo context set NAME --url URL"


@app.command("list", epilog=examples("vireo context list"))
def list_() -> None:
    """List the contexts; the current one has a star."""
    known = _load()
    rows = tuple(
        ("*" if name == known.current else "", name, context.url)
        for name, context in sorted(known.contexts.items())
    )
    show_table(Table(columns=("", "name", "url"), rows=rows), empty=f"none yet: {_NO_FILE}")


@app.command(epilog=examples("vireo context use home"))
def use(name: Name) -> None:
    """Make a context the current one."""
    known = _load()
    if name not in known.contexts:
        session.refuse(f"there is no context {name!r}", hint="vireo context list")
    _save(known.with_context(name, known.contexts[name], use=True))
    note(f"now using {name} ({known.contexts[name].url})")


@app.command(
    "set",
    epilog=examples(
        "vireo context set home --url https://vireo.example.net --token-file ~/.secrets/vireo",
        "vireo context set home --token-stdin < token.txt",
    ),
)
def set_(
    name: Name,
    url: Annotated[str | None, typer.Option(help="Address of the gateway.", metavar="URL")] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file that holds the token; read at each use.", metavar="FILE"),
    ] = None,
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read the token and keep it with the contexts.")
    ] = False,
    ca_file: Annotated[
        Path | None, typer.Option(help="Certificates to trust for this gateway.", metavar="FILE")
    ] = None,
    use: Annotated[bool, typer.Option("--use", help="Make it the current one.")] = False,
) -> None:
    """Make a context, or change what is named of one. Tokens are never arguments."""
    from msgspec import structs

    from vireo.contexts import Context
    from vireo.transport import checked_url

    if not is_name(name):
        session.refuse(f"{name!r} is no name: lower-case letters, digits and hyphens")
    if token_file and token_stdin:
        session.refuse("--token-file or --token-stdin, not both")
    known = _load()
    old = known.contexts.get(name)
    if url is None and old is None:
        session.refuse("a new context needs --url", hint=_NO_FILE)
    try:
        context = old or Context(url="")
        if url is not None:
            context = structs.replace(context, url=checked_url(url))
    except ValueError as error:
        session.refuse(str(error))
    if old is not None and context.url != old.url:
        # A token is for one gateway; it must be given anew for another one.
        context = structs.replace(context, token=None, token_file=None)
    if token_file:
        path = str(token_file.expanduser().absolute())
        context = structs.replace(context, token=None, token_file=path)
    if token_stdin:
        context = structs.replace(context, token=_token_from_stdin(), token_file=None)
    if ca_file:
        context = structs.replace(context, ca_file=str(ca_file.expanduser().absolute()))
    _save(known.with_context(name, context, use=use))
    note(f"context {name}: {context.url}")


@app.command(epilog=examples("vireo context show", "vireo context show home"))
def show(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            help="The current one by default.",
            autocompletion=completion.contexts,
            metavar="NAME",
        ),
    ] = None,
) -> None:
    """Show where a context leads, and from where its token comes; never the token."""
    context.obj = name or context.obj
    target = session.target_of(context)
    source = "none"
    if target.token_file:
        source = f"in {target.token_file}"
    elif target.token:
        source = "VIREO_TOKEN" if os.environ.get("VIREO_TOKEN") else "kept with the contexts"
    facts = (
        ("context", target.context or "none"),
        ("url", target.url),
        ("token", source),
        ("ca file", target.ca_file or "the system's"),
    )
    show_page(
        Page(title=target.context or target.url, sections=(Section(title="Context", facts=facts),))
    )


@app.command(epilog=examples("vireo context remove home"))
def remove(name: Name) -> None:
    """Forget a context, and its token if it is kept with it."""
    known = _load()
    if name not in known.contexts:
        session.refuse(f"there is no context {name!r}", hint="vireo context list")
    _save(known.without(name))
    note(f"forgot {name}")


def _load() -> Contexts:
    from vireo.contexts import ContextError, contexts_file, load

    try:
        return load(contexts_file(os.environ))
    except ContextError as error:
        session.refuse(str(error))


def _save(contexts: Contexts) -> None:
    from vireo.contexts import ContextError, contexts_file, save

    try:
        save(contexts_file(os.environ), contexts)
    except ContextError as error:
        session.refuse(str(error))


def _token_from_stdin() -> str:
    if sys.stdin.isatty():
        token = str(typer.prompt("Token", hide_input=True, err=True))
    else:
        token = sys.stdin.read(4096)
    if not token.strip():
        session.refuse("no token came on standard input")
    return token.strip()
