"""`vireo policy test`: how a policy would place a VM now, beside the one that counts for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from schemas.policies import Policy
from vireo.cli import completion, options, session, vm_options
from vireo.cli.definition import is_file, read_file
from vireo.cli.exits import code_of_failure
from vireo.cli.options import examples
from vireo.cli.printing import Output, show_data, show_page
from vireo.cli.rules import RuleOptions
from vireo.cli.spec import SpecOptions, missing, spec_of
from vireo.cli.spec_file import SpecFile, read_spec

if TYPE_CHECKING:
    from vireo.client import Client

NAME = "trial"
"""What the VM is called, where nobody says: it does not matter."""

EXAMPLES = examples(
    "vireo policy test policy.yaml --image tiny --cpus 2 --memory 4GiB",
    "vireo policy test policy.yaml --template web",
    "vireo policy test pack --template web --label tier=web --anti-affinity tier=web",
)


def trial(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            help="A file, or the name of a policy that there is.",
            autocompletion=completion.definitions("policies"),
            metavar="FILE|NAME",
        ),
    ],
    template: vm_options.Template = None,
    project: vm_options.Project = None,
    file: vm_options.File = None,
    image: vm_options.Image = None,
    cpus: vm_options.Cpus = None,
    memory: vm_options.Memory = None,
    disk: vm_options.Disks = None,
    label: options.Labels = None,
    on_label: vm_options.OnLabels = None,
    anti_affinity: vm_options.AntiAffinity = None,
    output: options.Output = Output.TABLE,
) -> None:
    """Show where a policy would place a VM on the fleet as it is, beside the policy that counts for such
    a VM now. Nothing is applied and nothing is placed."""
    name, draft = _policy(what)
    given = SpecOptions(
        template=template,
        project=project,
        image=image,
        cpus=cpus,
        memory=memory,
        disks=disk or (),
        labels=label or (),
        rules=RuleOptions(on_labels=on_label or (), anti_affinity=anti_affinity or ()),
    )
    try:
        spec = {"name": NAME, **spec_of(given, (read_spec(file) if file else SpecFile()).values)}
    except ValueError as error:
        session.refuse(str(error), hint="vireo policy test --help")
    if lacking := missing(spec):
        session.refuse(f"a VM needs {lacking}", hint="vireo policy test --help")

    async def body(client: Client) -> None:
        from vireo.cli.forecast_view import trial_page

        found = await client.vms.try_policy(name, spec, draft=draft)
        if output.is_data:
            show_data(found, output)
        else:
            show_page(trial_page(found, name=name))
        if found.given.problem is not None:
            raise typer.Exit(code_of_failure(found.given.problem))

    session.run(context, body)


def _policy(what: str) -> tuple[str, Policy | None]:
    """The name, and the draft if a file was named."""
    if not is_file(what):
        return what, None
    draft = read_file(Policy, what)
    return draft.name, draft
