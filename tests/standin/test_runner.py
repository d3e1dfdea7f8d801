# SPDX-License-Identifier: Apache-2.0
"""What a command of the stand-in says, as it is kept for clients."""

from __future__ import annotations

import socket
import struct

from standin.runner import Process

STARTED, STDOUT, STDERR, EXIT = 65, 66, 67, 68


def test_both_streams_in_turn_are_one_piece_each() -> None:
    """An answer has an element for each piece: short lines in turn would be more of them than a client takes."""
    near, far = socket.socketpair()
    with far:
        frames = [(STARTED, b"")]
        for number in range(2000):
            frames += [(STDOUT, b"o%d\n" % number), (STDERR, b"e%d\n" % number)]
        frames.append((EXIT, struct.pack("<I", 3)))
        far.sendall(b"".join(struct.pack("<BI", kind, len(data)) + data for kind, data in frames))
        process = Process(near)
        said = {"stdout": b"", "stderr": b""}
        code: int | None = None
        while code is None:
            pieces, code = process.take(5.0, 1000)
            assert len(pieces) <= 2 and sum(len(data) for _, data in pieces) <= 1000
            process.put_back(pieces)  # an answer that did not arrive
            pieces, code = process.take(5.0, 1000)
            for stream, data in pieces:
                said[stream] += data
        process.close()
    assert code == 3
    for stream, letter in (("stdout", "o"), ("stderr", "e")):
        assert said[stream].decode() == "".join(f"{letter}{number}\n" for number in range(2000))
