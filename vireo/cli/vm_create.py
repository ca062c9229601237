"""`vireo vm create`: a VM from options, a file, or both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.commands import MOST_COPIES
from vireo.cli import acting, cloud_init, completion, options, session, vm_options
from vireo.cli.options import examples
from vireo.cli.rules import RuleOptions
from vireo.cli.spec import SpecOptions, missing, spec_of
from vireo.cli.spec_file import SpecFile, read_spec

if TYPE_CHECKING:
    from vireo.client import Client
    from vireo.errors import Invalid
    from vireo.operations import PendingOperation

NUMBER = "{n}"
"""What stands for the number in the names of several."""

EXAMPLES = examples(
    "vireo vm create web1 --image tiny --cpus 1 --memory 128MiB --disk 10GiB",
    "vireo vm create db1 --image debian --disk 20GiB --disk data=100GiB@nvme --on-label disk=nvme",
    "vireo vm create web2 --image tiny --label app=web --anti-affinity app=web --spread rack",
    "vireo vm create ml1 --image debian --device gpu=2 --tolerate gpu --huge-pages 1GiB",
    "vireo vm create web4 --image debian --user-data web.yaml --guest-agent",
    "vireo vm create web3 --template web --project shop --policy pack",
    "vireo vm create -f web.yaml",
    "vireo vm create web --template web --count 3",
    "vireo vm create 'db-{n}' --template db --count 5 --anti-affinity app=db --gang",
    "vireo vm create web2 -f web.yaml --memory 2GiB --no-wait -o json",
    "vireo vm create web2 -f web.yaml --dry-run",
)


@acting.waits
def create(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="The VM's name.", metavar="NAME")] = None,
    file: vm_options.File = None,
    template: vm_options.Template = None,
    project: vm_options.Project = None,
    policy: vm_options.Policy = None,
    image: vm_options.Image = None,
    cpus: vm_options.Cpus = None,
    memory: vm_options.Memory = None,
    disk: vm_options.Disks = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help="A card in this network; may be repeated.", metavar="NAME"),
    ] = None,
    label: options.Labels = None,
    on: Annotated[
        str | None,
        typer.Option(help="On this host only.", autocompletion=completion.hosts, metavar="HOST"),
    ] = None,
    on_label: vm_options.OnLabels = None,
    not_on: Annotated[
        list[str] | None,
        typer.Option(
            help="Not on this host; may be repeated.",
            autocompletion=completion.hosts,
            metavar="HOST",
        ),
    ] = None,
    prefer: Annotated[
        list[str] | None,
        typer.Option(help="Rather on hosts with this label; may be repeated.", metavar="K=V"),
    ] = None,
    affinity: Annotated[
        list[str] | None,
        typer.Option(
            help="On a host with VMs of this label; @LABEL: on hosts with the same LABEL as theirs.",
            metavar="K=V[@LABEL]",
        ),
    ] = None,
    anti_affinity: vm_options.AntiAffinity = None,
    spread: vm_options.Spread = None,
    tolerate: Annotated[
        list[str] | None,
        typer.Option(help="Put up with this taint; * is any.", metavar="K[=V]"),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="A device of the host, by class: gpu, gpu=2.", metavar="CLASS[=N]"),
    ] = None,
    huge_pages: Annotated[
        str | None,
        typer.Option(help="Memory of huge pages of this size: 2MiB, 1GiB.", metavar="SIZE"),
    ] = None,
    numa: Annotated[
        str | None,
        typer.Option(help="Within one NUMA node, which is usual, or any.", metavar="one|any"),
    ] = None,
    user_data: cloud_init.UserData = None,
    meta_data: cloud_init.MetaData = None,
    network_config: cloud_init.NetworkConfig = None,
    guest_agent: cloud_init.GuestAgent = False,
    stopped: Annotated[bool, typer.Option("--stopped", help="Make it, don't start it.")] = False,
    count: Annotated[
        int | None,
        typer.Option(
            help="So many, named NAME-1, NAME-2, …; {n} in NAME is the number's place.",
            min=1,
            max=MOST_COPIES,
            metavar="N",
        ),
    ] = None,
    gang: Annotated[bool, typer.Option("--gang", help="All of --count, or none.")] = False,
    *,
    how: acting.Waiting,
) -> None:
    """Create a VM and start it. Options go before what a file says, and add to its lists; a file can
    say more than options (docs/vm-specs.md)."""
    if gang and count is None:
        session.refuse("--gang needs --count", hint="vireo vm create --help")
    pattern = name if count is not None and name is not None and NUMBER in name else None
    given = SpecOptions(
        name=name if name is None or pattern is None else name.replace(NUMBER, "1"),
        template=template,
        project=project,
        policy=policy,
        image=image,
        cpus=cpus,
        memory=memory,
        disks=disk or (),
        networks=network or (),
        labels=label or (),
        stopped=stopped,
        rules=RuleOptions(
            on=on,
            on_labels=on_label or (),
            not_on=not_on or (),
            prefer=prefer or (),
            affinity=affinity or (),
            anti_affinity=anti_affinity or (),
            spread=spread or (),
            tolerate=tolerate or (),
            devices=device or (),
            huge_pages=huge_pages,
            numa=numa,
        ),
    )
    try:
        source = read_spec(file) if file else SpecFile()
        spec = spec_of(given, source.values)
        files = cloud_init.read(
            user_data=user_data, meta_data=meta_data, network_config=network_config
        )
        seed = cloud_init.over(spec.get("cloud_init"), files, guest_agent=guest_agent)
    except ValueError as error:
        session.refuse(str(error), hint="vireo vm create --help")
    if seed is not None:
        spec["cloud_init"] = seed
    if lacking := missing(spec):
        session.refuse(f"a VM needs {lacking}", hint="vireo vm create --help")

    async def begin(client: Client) -> PendingOperation:
        from vireo.errors import Invalid

        try:
            if count is None:
                return await client.vms.create(spec)
            return await client.vms.create_many(spec, count=count, pattern=pattern, gang=gang)
        except Invalid as error:
            raise located(error, source, spec) from error

    run = acting.act if count is None else acting.act_many
    run(context, begin, how, name=str(spec["name"]))


def located(error: Invalid, source: SpecFile, sent: Mapping[str, Any]) -> Invalid:
    """The same, with the line of the file at each field that comes from it."""
    from msgspec.structs import replace

    from vireo.errors import Invalid

    named = []
    for given in error.errors:
        # Of several VMs, the spec is a part of the request.
        one = replace(given, field=given.field.removeprefix("/spec"))
        where = source.where(one.field, sent)
        named.append(replace(one, detail=f"{one.detail} ({where})") if where else one)
    return Invalid(replace(error.problem, errors=tuple(named)))
