# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.fuzz [OPTION...] [FILE...]``: libFuzzer, through atheris, on the readers of untrusted documents.

Options are libFuzzer's; without any it runs for ten minutes. A FILE is an input that is tried once. See README.md.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["harness.package", "harness.plan"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS, Place, one

from tests.package.material import REFERENCE, SAMPLES
from tests.package.test_service import CSCFG, CSDEF

FOLDER = Path("build/fuzz")
DEFAULTS = {"max_total_time": "600", "timeout": "20", "rss_limit_mb": "2048", "max_len": "65536", "len_control": "50"}
WORDS = [
    *(
        "[Param.",
        "[[",
        "]",
        "{{Key}}",
        "__**__",
        "domain\\\\user:pass",
        "c:\\\\temp\\\\new.txt",
        "%WINDIR%\\\\",
        ".\\\\a.ps1",
    ),
    *(
        "{1641}|{3010}",
        "[1-9][0-9]*",
        "(?<a>",
        "(?i:",
        "{2,3}",
        "\\\\p{Lu}",
        "[a-z-[aeiou]]",
        "FailOnMatch",
        "PreInstall",
    ),
    *("OnProvisionFirst", "OnDeleteLast", "ResourceExtensionParameterValues", "ParameterValues", "true", "null"),
    *("<Certificate name=", "sizeInMB=", "storeLocation=", "thumbprint=", "&#x41;", "<![CDATA[", "<!DOCTYPE"),
]


def seeds() -> Iterator[tuple[str, bytes]]:
    """Target's name and an input for it: the samples, the published documents, and documents of the tests."""
    yield from (("service", f"{CSDEF}\0{CSCFG}".encode()), ("pattern", b"^(a|[b-d-[c]])+\\s{2,3}$\0abd  "))
    yield from (("command", b"/bin/sh -c \"a 'b'\" \\x"), ("mutated", b"\x00\x07[Param.A]"), ("mutated", b"\x01\x00{}"))
    yield "entries", b"\x05\x03p/ahello\x00\x02p/\x04\x06p\\x\xc3\xa9yzzzz"
    for path in sorted(SAMPLES.rglob("*.resext")):
        yield from (("extension", path.read_bytes()), ("plain_json", path.read_bytes()))
    for path in sorted(SAMPLES.glob("*.resextpkg")):
        yield "archive", path.read_bytes()
    for folder in sorted((REFERENCE / "packages").glob("*.parts")):
        for path in folder.glob("*.resext"):
            yield "extension", path.read_bytes()
        for path in folder.glob("*.resdef"):
            view = next(iter(folder.glob("*.viewdef"))).read_bytes()
            yield from (("definition", path.read_bytes() + b"\0" + view), ("view_alone", view))
    yield "configuration", b'{"Version": "1.0.0.0", "ParameterValues": "{\\"A\\": 1, \\"B\\": \\"u:p\\"}"}'


def main() -> None:
    names = [target.__name__ for target in TARGETS]
    corpus, crashes = FOLDER / "corpus", FOLDER / "crashes"
    given = sys.argv[1:]
    files = [argument for argument in given if not argument.startswith("-")]
    for folder in (corpus, crashes, FOLDER / "seeds"):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(FOLDER / "seeds")
    (FOLDER / "seeds").mkdir()
    for number, (name, data) in enumerate(seeds()):
        (FOLDER / "seeds" / f"{number:03}-{name}").write_bytes(bytes([names.index(name)]) + data)
    (FOLDER / "words.dict").write_text("".join(f'"{word}"\n' for word in WORDS))
    told = {argument.lstrip("-").partition("=")[0] for argument in given}
    options = [f"-{name}={value}" for name, value in DEFAULTS.items() if name not in told]
    options += [f"-dict={FOLDER / 'words.dict'}", f"-artifact_prefix={crashes}/"]
    place = Place()
    atheris.Setup([sys.argv[0], *options, *given, *([] if files else [str(corpus), str(FOLDER / "seeds")])],
                  lambda data: one(data, place))  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    main()
