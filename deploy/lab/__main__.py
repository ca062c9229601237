"""`python -m deploy.lab`: isolated libvirt hosts on this machine."""

import argparse
import os
import sys
from pathlib import Path

from deploy.lab.hosts import Lab, LabError

DEFAULT_DIRECTORY = Path("/var/lib/vireo/lab")


def main() -> int:
    arguments = _parser().parse_args()
    lab = Lab(arguments.dir)
    try:
        return _do(lab, arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _do(lab: Lab, arguments: argparse.Namespace) -> int:
    match arguments.verb:
        case "up":
            for host in lab.up(arguments.count):
                print(f"{host.name}\t{host.uri}")
        case "down":
            lab.down()
        case "list":
            for host in lab.hosts():
                state = "off" if host.pid is None else "running"
                print(f"{host.name}\t{state}\t{host.pid or '-'}\t{host.uri}")
        case "crash":
            lab.host(arguments.name).crash()
        case "restart-libvirtd":
            lab.host(arguments.name).restart_libvirtd(kill=arguments.kill)
        case "run":
            command = lab.host(arguments.name).command(arguments.command)
            sys.stdout.flush()
            os.execvp(command[0], command)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.lab", description=__doc__)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--dir", type=Path, default=DEFAULT_DIRECTORY, help="where the hosts live")
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", parents=[shared], help="start h1..hN; print their names and URIs")
    up.add_argument("count", type=int, metavar="N")
    verbs.add_parser("down", parents=[shared], help="stop and remove all hosts, with their files")
    verbs.add_parser("list", parents=[shared], help="print name, state, PID 1 and URI")
    crash = verbs.add_parser("crash", parents=[shared], help="cut a host's power; `up` restores it")
    crash.add_argument("name")
    restart = verbs.add_parser("restart-libvirtd", parents=[shared], help="restart its libvirtd")
    restart.add_argument("name")
    restart.add_argument("--kill", action="store_true", help="kill it instead of asking it to end")
    run = verbs.add_parser("run", parents=[shared], help="run a command inside a host")
    run.add_argument("name")
    run.add_argument("command", nargs="+", metavar="-- COMMAND")
    return parser


sys.exit(main())
