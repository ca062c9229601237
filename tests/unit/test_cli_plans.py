"""Plans on the command line: the page of one, what differs between two, files that hold none."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from schemas import samples
from schemas.plans import Band, Imbalance, Plan, Stays
from schemas.resources import Excluded
from vireo.cli.app import app
from vireo.cli.layout import plain_page
from vireo.cli.plan_view import plan_page

PLAN = samples.PLAN
MOVE = PLAN.moves[0]
OTHER = "019b76da-a800-7000-8000-000000000777"


def saved(folder: Path, name: str, plan: Plan) -> str:
    file = folder / name
    file.write_bytes(msgspec.json.encode(plan))
    return str(file)


def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    ended = CliRunner().invoke(app, list(arguments), input=stdin)
    return ended.exit_code, ended.stdout, ended.stderr


def test_the_page_of_a_plan_has_its_moves_in_order_and_the_sums() -> None:
    plan = replace(
        PLAN,
        kind="balance",
        host=None,
        band=Band(start=0.1, stop=0.05, max_moves=20),
        before=Imbalance(total=0.25, cpu=0.2, memory=0.3, load=0.25),
        moves=(replace(MOVE, gain=0.21), replace(MOVE, vm=OTHER, live=False, cost_mib=20480)),
        cost_mib=21504,
    )
    assert plain_page(plan_page(plan)) == (
        "balance plan: 1 move empty h1\n"
        "\n"
        "Plan\n"
        f"  id        {plan.id}\n"
        "  made      2024-12-07 09:30:00 UTC\n"
        "  site      main\n"
        "  band      above 0.1 down to 0.05, 20 moves at most\n"
        "  outcome   reached\n"
        "  policies  spread 1\n"
        "  moves     2\n"
        "  to copy   21 GiB\n"
        "\n"
        "Imbalance\n"
        "  IMBALANCE  TOTAL   CPU     MEMORY  LOAD\n"
        "  before     0.2500  0.2000  0.3000  0.2500\n"
        "  after      0.0000  0.0000  0.0000  -\n"
        "\n"
        "Moves\n"
        "  ORDER  VM     FROM  TO  MEMORY  COPIED          GAIN    WHY\n"
        "  1      web-1  h1    h2  1 GiB   1 GiB live      0.2100  best of 1 by spread, score 0.9\n"
        "  2      web-1  h1    h2  1 GiB   20 GiB stopped  0.0000  best of 1 by spread, score 0.9\n"
    )


def test_who_has_to_stay_is_shown_with_the_rules_and_the_nearest_host() -> None:
    nearest = Excluded(host="h2", rule="memory", detail="needs 4096 MiB, 12 of 4096 MiB are left")
    stays = Stays(
        vm=OTHER,
        name="db",
        detail="No host can take it.",
        excluded_by={"maintenance": 1, "memory": 2},
        excluded=(nearest,),
    )
    bound = Stays(vm=samples.VM, name="log", detail="it is bound to VMs that stay")
    page = plain_page(plan_page(replace(PLAN, moves=(), stays=(stays, bound))))
    assert page.endswith(
        "Stay where they are\n"
        "  VM   HOSTS EXCLUDED                 NEAREST  WHY NOT THERE\n"
        "  db   1 by maintenance, 2 by memory  h2       needs 4096 MiB, 12 of 4096 MiB are left\n"
        "  log                                 -        it is bound to VMs that stay\n"
    )


def test_a_saved_plan_is_shown_as_it_was(tmp_path: Path) -> None:
    file = saved(tmp_path, "a.json", PLAN)
    code, out, _ = run("plan", "show", file, "-o", "json")
    assert (code, msgspec.json.decode(out, type=Plan)) == (0, PLAN)
    code, out, _ = run("plan", "show", "-", stdin=msgspec.json.encode(PLAN).decode())
    assert (code, out.startswith("drain plan: 1 move empty h1\n")) == (0, True)


def test_two_plans_are_compared_move_by_move(tmp_path: Path) -> None:
    old = saved(tmp_path, "a.json", PLAN)
    added = replace(MOVE, vm=OTHER, name="db")
    new = replace(PLAN, moves=(replace(MOVE, to_host="h3"), added), cost_mib=2048)
    code, out, err = run("plan", "diff", old, saved(tmp_path, "b.json", new))
    assert code == 1
    assert out == ("   VM     FROM  TO  WAS\n~  web-1  h1    h3  h1 to h2\n+  db     h1    h2  -\n")
    assert err == "moves 1 → 2, to copy 1 GiB → 2 GiB, imbalance after 0.0000 → 0.0000\n"
    gone = saved(tmp_path, "c.json", replace(PLAN, moves=()))
    assert run("plan", "diff", old, gone)[1] == "   VM     FROM  TO  WAS\n-  web-1  h1    h2  -\n"
    assert run("plan", "diff", old, old)[:2] == (0, "")


@pytest.mark.parametrize("command", ["show", "check"])
def test_a_file_that_holds_no_plan_is_refused_before_anything_is_sent(
    tmp_path: Path, command: str
) -> None:
    file = tmp_path / "x.json"
    file.write_text('{"id": 1}')
    code, _, err = run("plan", command, str(file))
    assert (code, "holds no plan" in err) == (2, True)
    code, _, err = run("plan", command, str(tmp_path / "none"))
    assert (code, "cannot read" in err) == (2, True)
