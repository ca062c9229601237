"""Read which shared libraries a 64-bit little-endian ELF file asks for. Pure: bytes in, names out.

The layout is that of the System V ABI (gABI), chapters "ELF Header", "Program Header" and
"Dynamic Section". Asking the loader (ldd) would answer for this machine, not for the guest.
"""

import struct
from collections.abc import Iterator

_HEADER_START = b"\x7fELF\x02\x01"
_PROGRAM_HEADER_OFFSET = 0x20
_PROGRAM_HEADER_SIZES = 0x36

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5


class ElfError(Exception):
    """The bytes are no ELF file of the kind that this module reads."""


def needed_libraries(image: bytes) -> tuple[str, ...]:
    """The DT_NEEDED names in their order; empty for a static executable."""
    segments = list(_segments(image))
    dynamic = [
        entry
        for kind, offset, _address, size in segments
        if kind == _PT_DYNAMIC
        for entry in _dynamic_entries(image, offset=offset, size=size)
    ]
    strings = next((value for tag, value in dynamic if tag == _DT_STRTAB), None)
    if strings is None:
        return ()
    start = _file_offset(segments, strings)
    return tuple(_text(image, start + value) for tag, value in dynamic if tag == _DT_NEEDED)


def interpreter(image: bytes) -> str | None:
    """The loader's path (/lib64/ld-linux-x86-64.so.2), or None for a static executable."""
    for kind, offset, _address, _size in _segments(image):
        if kind == _PT_INTERP:
            return _text(image, offset)
    return None


def _segments(image: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(type, offset in the file, address in memory, size in the file) of each program header."""
    if not image.startswith(_HEADER_START):
        raise ElfError("not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", image, _PROGRAM_HEADER_OFFSET)
    size, count = struct.unpack_from("<HH", image, _PROGRAM_HEADER_SIZES)
    for index in range(count):
        kind, _flags, offset, address, _physical, file_size = struct.unpack_from(
            "<IIQQQQ", image, table + index * size
        )
        yield kind, offset, address, file_size


def _dynamic_entries(image: bytes, *, offset: int, size: int) -> Iterator[tuple[int, int]]:
    for tag, value in struct.iter_unpack("<qQ", image[offset : offset + size]):
        if tag == _DT_NULL:
            return
        yield tag, value


def _file_offset(segments: list[tuple[int, int, int, int]], address: int) -> int:
    for kind, offset, start, size in segments:
        if kind == _PT_LOAD and start <= address < start + size:
            return offset + address - start
    raise ElfError("the string table lies in no loaded segment")


def _text(image: bytes, start: int) -> str:
    return image[start : image.index(b"\0", start)].decode()
