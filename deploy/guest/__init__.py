"""The tiny guest: a kernel, an initramfs and a small disk that boot in about three seconds.

`build` makes it from the distribution's own packages; `python -m deploy.guest` is its command line.
The guest runs qemu-guest-agent, asks DHCP for addresses, reads a NoCloud seed and powers off on
ACPI. It exists to be started and stopped by tests and by the demo, never to hold anything.
"""

from deploy.guest.build import GuestImage, default_image_dir, ensure_guest

__all__ = ["GuestImage", "default_image_dir", "ensure_guest"]
