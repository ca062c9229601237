"""The command line. `main` is the entry point; `app` has the tree of commands, one module per noun.

A command's module holds its arguments and a straight line of calls. Whatever costs time to import
(httpx, rich, yaml, the SDK) is imported inside the function that needs it, so that `--help` and
completion answer at once.
"""

from __future__ import annotations


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    from vireo.cli.app import app

    app(prog_name="vireo")
