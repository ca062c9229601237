"""The seed of a guest: a small disk from which cloud-init reads at the first boot (NoCloud).

An ISO 9660 image labelled `cidata`. The names of its files are told three times, as the systems that read
it know different ones: ISO's own, Rock Ridge's and Joliet's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO

from pycdlib import PyCdlib

from schemas.assignments import VmAssignment
from services.hostagent.hypervisor import HypervisorFailure

LABEL = "cidata"
INTERCHANGE_LEVEL = 3
JOLIET_LEVEL = 3
ROCK_RIDGE = "1.09"


def files_of(assignment: VmAssignment) -> dict[str, str]:
    """Name to content. Raises HypervisorFailure for a VM of which nobody knows any more what it is to be
    given: what is in FLEET again after that was lost comes from the record, which does not hold it."""
    given = assignment.cloud_init
    if given is None:
        raise HypervisorFailure("what cloud-init is to find is not known any more: create it anew")
    names = {"instance-id": assignment.vm, "local-hostname": assignment.spec.name}
    # JSON is YAML, too.
    meta_data = json.dumps(names) + "\n" if given.meta_data is None else given.meta_data
    files = {"user-data": given.user_data, "meta-data": meta_data}
    if given.network_config is not None:
        files["network-config"] = given.network_config
    return files


def image_of(files: Mapping[str, str]) -> bytes:
    iso = PyCdlib()
    iso.new(
        interchange_level=INTERCHANGE_LEVEL,
        vol_ident=LABEL,
        joliet=JOLIET_LEVEL,
        rock_ridge=ROCK_RIDGE,
    )
    for name, text in files.items():
        content = text.encode()
        plain = name.replace("-", "_").upper()
        iso.add_fp(
            BytesIO(content),
            len(content),
            f"/{plain}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
        )
    image = BytesIO()
    iso.write_fp(image)
    iso.close()
    return image.getvalue()
