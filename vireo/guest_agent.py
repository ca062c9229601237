"""How the guest agent gets into a guest: as a script for a shell, or as user-data for cloud-init. Pure,
but for `files`.

Both hold the agent's file and its unit, so that a guest needs no network to get them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from importlib import resources

import yaml

AGENT_PATH = "/usr/local/lib/vireo/vireo_guest_agent.py"
UNIT = "vireo-guest-agent.service"
UNIT_PATH = f"/etc/systemd/system/{UNIT}"
HOST_CID = 2
SYSTEM_PYTHONS = "python3 /usr/libexec/platform-python"
"""The second is what Red Hat's systems have where Python was not asked for."""

_SCRIPT = """\
#!/bin/sh
# Installs Vireo's guest agent, or a newer one in its place. With DESTDIR it fills an image that is not
# running: there the agent starts with the image's next boot.
set -eu

root=${{DESTDIR:-}}
python=/usr/bin/python3
if [ -z "$root" ]; then
  python=
  for name in {pythons}; do
    [ -n "$python" ] || python=$(command -v "$name" || true)
  done
  if [ -z "$python" ]; then
    echo "vireo-guest-agent: there is no Python 3 here" >&2
    exit 1
  fi
fi

mkdir -p "$root{agent_folder}" "$root{unit_folder}/multi-user.target.wants"
base64 -d <<'END' | gzip -dc >"$root{agent_path}.new"
{agent}
END
base64 -d <<'END' | gzip -dc | sed "s|/usr/bin/python3|$python|" >"$root{unit_path}.new"
{unit}
END
chmod 644 "$root{agent_path}.new" "$root{unit_path}.new"
mv "$root{agent_path}.new" "$root{agent_path}"
mv "$root{unit_path}.new" "$root{unit_path}"
ln -sf "{unit_path}" "$root{unit_folder}/multi-user.target.wants/{unit_name}"

if [ -z "$root" ]; then
  systemctl daemon-reload
  systemctl restart {unit_name}
fi
"""


def files() -> tuple[str, str]:
    """The agent and its unit, as they are part of this installation."""
    folder = resources.files("guest")
    names = ("vireo_guest_agent.py", UNIT)
    agent, unit = (folder.joinpath(name).read_text(encoding="utf-8") for name in names)
    return agent, unit


def script(agent: str, unit: str, *, port: int | None = None) -> str:
    """For `sh` in the guest, as root; also user-data as it is."""
    return _SCRIPT.format(
        pythons=SYSTEM_PYTHONS,
        agent=_folded(_packed(agent)),
        unit=_folded(_packed(_with_port(unit, port))),
        agent_path=AGENT_PATH,
        agent_folder=AGENT_PATH.rpartition("/")[0],
        unit_path=UNIT_PATH,
        unit_folder=UNIT_PATH.rpartition("/")[0],
        unit_name=UNIT,
    )


def cloud_config(agent: str, unit: str, *, port: int | None = None) -> str:
    """User-data for cloud-init; its parts can be merged into user-data of one's own."""
    files = [(AGENT_PATH, agent), (UNIT_PATH, _with_port(unit, port))]
    config = {
        "write_files": [
            {"path": path, "permissions": "0644", "encoding": "gz+b64", "content": _packed(text)}
            for path, text in files
        ],
        "runcmd": [
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", "--now", UNIT],
        ],
    }
    return "#cloud-config\n" + yaml.safe_dump(config, sort_keys=False, width=1 << 20)


def user_data(agent: str, unit: str, *, beside: str = "") -> str:
    """User-data that installs the agent, `beside` what else is to be done: as a part of its own, so that
    cloud-init merges nothing. Raises ValueError where that has parts already."""
    if not beside.strip():
        return cloud_config(agent, unit)
    if beside.lower().startswith(("content-type:", "mime-version:")):
        raise ValueError(
            "this user-data has parts already: add the script of 'vireo guest-agent script' as one more"
        )
    ours = script(agent, unit)
    # A boundary that neither part can hold.
    boundary = hashlib.sha256((beside + ours).encode()).hexdigest()
    parts = [MIMEText(beside, "plain"), MIMEText(ours, "x-shellscript")]
    return MIMEMultipart("mixed", boundary, parts).as_string()


def _with_port(unit: str, port: int | None) -> str:
    if port is None:
        return unit
    return unit.replace(AGENT_PATH, f"{AGENT_PATH} --connect vsock:{HOST_CID}:{port}")


def _packed(text: str) -> str:
    # Without a time: equal input makes equal output.
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _folded(text: str) -> str:
    return "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
