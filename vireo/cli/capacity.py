"""`vireo capacity`: how many more VMs fit, and what if hosts were taken away or added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vireo.cli import completion, options, session, vm_options
from vireo.cli.options import examples, parsed
from vireo.cli.printing import Output, show_data, show_page
from vireo.cli.rules import RuleOptions
from vireo.cli.spec import SpecOptions, spec_of
from vireo.cli.spec_file import SpecFile, read_spec
from vireo.cli.what_if import more_hosts

if TYPE_CHECKING:
    from vireo.client import Client

NAME = "copy"
"""What the copies are called, where nobody says: it does not matter."""

EXAMPLES = examples(
    "vireo capacity --image tiny --cpus 2 --memory 4GiB",
    "vireo capacity --template web --by rack",
    "vireo capacity --template web --project shop",
    "vireo capacity --without h4",
    "vireo capacity --template web --without h4 --add 3*h2",
    "vireo capacity -f web.yaml --add 2*cpus=64,memory=256GiB,disk=2TiB,rack=b --by rack",
)


def capacity(
    context: typer.Context,
    template: vm_options.Template = None,
    file: vm_options.File = None,
    image: vm_options.Image = None,
    cpus: vm_options.Cpus = None,
    memory: vm_options.Memory = None,
    disk: vm_options.Disks = None,
    label: options.Labels = None,
    on_label: vm_options.OnLabels = None,
    anti_affinity: vm_options.AntiAffinity = None,
    spread: vm_options.Spread = None,
    project: vm_options.Project = None,
    policy: vm_options.Policy = None,
    by: Annotated[
        str | None, typer.Option(help="Count by this label of hosts, too.", metavar="LABEL")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="As if there were no such host: would its VMs fit elsewhere? May be repeated.",
            autocompletion=completion.hosts,
            metavar="HOST",
        ),
    ] = None,
    add: Annotated[
        list[str] | None,
        typer.Option(
            help="As if there were more hosts: like one (3*h2), or of a size. May be repeated.",
            metavar="[N*]HOST",
        ),
    ] = None,
    output: options.Output = Output.TABLE,
) -> None:
    """Count how many more VMs of a kind fit, and say what stops the next one. Nothing is changed.

    Without a kind of VM, but --without: whether the VMs of those hosts would still fit."""
    given = SpecOptions(
        image=image,
        cpus=cpus,
        memory=memory,
        disks=disk or (),
        labels=label or (),
        rules=RuleOptions(
            on_labels=on_label or (), anti_affinity=anti_affinity or (), spread=spread or ()
        ),
    )
    try:
        source = read_spec(file) if file else SpecFile()
        spec = spec_of(given, source.values)
    except ValueError as error:
        session.refuse(str(error), hint="vireo capacity --help")
    named = {"template": template, "project": project, "policy": policy}
    spec |= {field: value for field, value in named.items() if value is not None}
    if not spec and not without:
        session.refuse("of what kind of VM, or without which host?", hint="vireo capacity --help")
    wished = {"name": NAME, **spec} if spec else None
    more = [parsed("--add", more_hosts, text) for text in add or ()]

    async def body(client: Client) -> None:
        from vireo.cli.forecast_view import capacity_page

        found = await client.hosts.capacity(wished, by=by, without=without or (), add=more)
        if output.is_data:
            show_data(found, output)
        else:
            show_page(capacity_page(found))

    session.run(context, body)
