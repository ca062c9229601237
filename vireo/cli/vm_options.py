"""The options by which several commands describe a VM: to make it, to count it, to try a policy on it.

What they mean in a spec is `spec.py`'s and `rules.py`'s.
"""

from __future__ import annotations

from typing import Annotated

import typer

from vireo.cli import completion

Template = Annotated[
    str | None,
    typer.Option(
        "--template",
        help="The template that gives what isn't said here.",
        autocompletion=completion.definitions("templates"),
        metavar="NAME",
    ),
]
Project = Annotated[
    str | None,
    typer.Option(
        "--project",
        help="The project that the VM belongs to.",
        autocompletion=completion.definitions("projects"),
        metavar="NAME",
    ),
]
Policy = Annotated[
    str | None,
    typer.Option(
        "--policy",
        help="The policy to be placed by; else the template's, the project's, the site's.",
        autocompletion=completion.definitions("policies"),
        metavar="NAME",
    ),
]
File = Annotated[
    str | None,
    typer.Option(
        "-f", "--file", help="A spec in YAML or JSON; - is standard input.", metavar="FILE"
    ),
]
Image = Annotated[
    str | None, typer.Option("--image", help="The base image of the root disk.", metavar="NAME")
]
Cpus = Annotated[int | None, typer.Option("--cpus", help="Virtual CPUs.", min=1, metavar="N")]
Memory = Annotated[
    str | None, typer.Option("--memory", help="Memory: 512MiB, 2GiB.", metavar="SIZE")
]
Disks = Annotated[
    list[str] | None,
    typer.Option(
        "--disk",
        help="Size of the root disk; then NAME=SIZE for each more. @POOL is where it lies.",
        metavar="SIZE[@POOL]",
    ),
]
OnLabels = Annotated[
    list[str] | None,
    typer.Option(
        "--on-label",
        help="Only on hosts of which this holds: K=V, K=A,B (either), K!=V, 'K>N', 'K<N', K (any), "
        "!K (none); may be repeated.",
        metavar="CONDITION",
    ),
]
AntiAffinity = Annotated[
    list[str] | None,
    typer.Option(
        "--anti-affinity",
        help="Away from VMs of this label; @LABEL: from hosts with the same LABEL as theirs.",
        metavar="K=V[@LABEL]",
    ),
]
Spread = Annotated[
    list[str] | None,
    typer.Option(
        "--spread",
        help="Spread evenly over a label of hosts: all VMs, or those of a label.",
        metavar="[K=V@]LABEL",
    ),
]
