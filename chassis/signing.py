"""Ed25519: a key in a file, signing with it, and checking signatures.

What belongs here: keys and signatures over bytes. What the bytes mean is `schemas.seals`' business.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from msgspec.structs import replace

from chassis.secret import SecretUnreadable
from schemas.seals import Anchor, Seal, Signed, SignedAnchor, SignedSeal, statement_of

S = TypeVar("S", SignedSeal, SignedAnchor)


class Signer:
    """Signs with one private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw().hex()
        """The public key, which may be told to everybody."""

    def seal(self, seal: Seal) -> SignedSeal:
        return self._signed(SignedSeal(statement=statement_of(seal), signature="", key=self.public))

    def anchor(self, anchor: Anchor) -> SignedAnchor:
        return self._signed(
            SignedAnchor(statement=statement_of(anchor), signature="", key=self.public)
        )

    def _signed(self, unsigned: S) -> S:
        return replace(unsigned, signature=self._key.sign(unsigned.signed_bytes).hex())


def signer_of(file: Path) -> Signer:
    """The signer whose key a file holds (PEM, PKCS 8), made at the first call, for its owner's eyes alone.

    Several processes may call it at once: the first one's key is everybody's. Raises SecretUnreadable.
    """
    try:
        if not file.exists():
            _make(file)
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise SecretUnreadable(f"cannot read the signing key in {file}: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SecretUnreadable(f"the key in {file} is no Ed25519 key")
    return Signer(key)


def _make(file: Path) -> None:
    key = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(key)
            opened.flush()
            os.fsync(opened.fileno())
        # A link, unlike a renaming, gives way to a key that somebody else has made meanwhile.
        try:
            os.link(draft, file)
        except FileExistsError:
            return
    finally:
        draft.unlink()


def is_signed(said: Signed) -> bool:
    """Whether the signature is the key's. Whose the key is, is another question."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(said.key))
        key.verify(bytes.fromhex(said.signature), said.signed_bytes)
    except (InvalidSignature, ValueError):
        return False
    return True
