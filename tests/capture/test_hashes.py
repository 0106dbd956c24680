"""Hashes of bodies in pieces."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from engine.capture.applications.hashes import BodyHasher, Hashes, resource


@given(st.lists(st.binary(max_size=50)))
def test_pieces_hash_like_the_whole(pieces: list[bytes]) -> None:
    hasher = BodyHasher()
    for each in pieces:
        hasher.update(memoryview(each))
    whole = b"".join(pieces)
    assert hasher.digest() == Hashes(
        hashlib.md5(whole).hexdigest(), hashlib.sha1(whole).hexdigest(), hashlib.sha256(whole).hexdigest()
    )


def test_the_resource_of_a_file() -> None:
    assert resource(Hashes("1", "2", "3"), "/x/y.bin") == ("SHA256:3", "/x/y.bin")
