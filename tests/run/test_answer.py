# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import random
import string
import urllib.parse

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.machine.protocol import Network, Nic
from harness.run import answer as answers
from harness.run.answer import Answer, LocalResource, computer_name, hash_password, parse_local_resource

ANSWER = Answer(
    instance="r1a2b3",
    computer_name="WEB-01",
    administrator_password_hash="$2b$06$abc",
    authorized_key="ssh-ed25519 AAAA run",
    machine_id="0123456789abcdef" * 2,
    entropy="f0" * 64,
    time=1_700_000_000.25,
    nics=(Nic(Network(), "52:54:00:12:34:56", "10.0.2.15/24", "10.0.2.2", "10.0.2.3"),),
    local_resources=(LocalResource("Work", 10), LocalResource("100% ü", 1)),
    payload="/var/lib/vmrole/payload",
)


def test_document() -> None:
    assert ANSWER.render().decode("ascii") == (
        "schema=1\ninstance=r1a2b3\ncomputer-name=WEB-01\ntime-zone=UTC\nlocale=en_US.UTF-8\nautomatic-updates=off\n"
        "administrator-password-hash=$2b$06$abc\nauthorized-key=ssh-ed25519 AAAA run\n"
        f"machine-id={'0123456789abcdef' * 2}\nentropy={'f0' * 64}\ntime=1700000000.250000\nawait-ssh=yes\n"
        "nic=52:54:00:12:34:56 10.0.2.15/24 10.0.2.2 10.0.2.3\n"
        "local-resource=10 Work\nlocal-resource=1 100%25 %C3%BC\npayload=/var/lib/vmrole/payload\n"
    )


def test_secrets_are_not_in_its_representation() -> None:
    assert "$2b$" not in repr(ANSWER)
    assert "f0f0" not in repr(ANSWER)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_value_comes_back(text: str) -> None:
    document = dataclasses.replace(ANSWER, authorized_key=text).render()
    [line] = [line for line in document.decode("ascii").split("\n") if line.startswith("authorized-key=")]
    assert urllib.parse.unquote(line.partition("=")[2]) == text
    assert all(0x20 <= ord(c) < 0x7F for c in line)


@pytest.mark.parametrize(
    "wrong",
    [
        {"machine_id": "x"},
        {"entropy": "00"},
        {"instance": "a b"},
        {"instance": ""},
        {"payload": "relative"},
        {"nics": (Nic(Network(), "a b", "c", "d", "e"),)},
    ],
)
def test_what_no_answer_can_say(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        dataclasses.replace(ANSWER, **wrong).render()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "instance", "name"),
    [("WEB-##", 3, "WEB-03"), ("web#", 9, "web9"), ("A###B", 42, "A042B"), ("PLAIN", 7, "PLAIN")],
)
def test_computer_names(pattern: str, instance: int, name: str) -> None:
    assert computer_name(pattern, instance, random.Random(1)) == name


@pytest.mark.parametrize(("pattern", "length"), [("*", 6), ("APP-*", 10), ("*-##", 9), ("ABCDEFGHIJ-*", 15)])
def test_random_parts(pattern: str, length: int) -> None:
    names = {computer_name(pattern, 1, random.Random(seed)) for seed in range(50)}
    assert len(names) > 40
    assert {len(name) for name in names} <= {length, 15}
    assert computer_name(pattern, 1, random.Random(1)) == computer_name(pattern, 1, random.Random(1))


@pytest.mark.parametrize(
    "pattern",
    ["", "a" * 16, "a b", "-a", "a-", "a_b", "a.b", "1234", "##", "#-#", "*-*", "ABCDEFGHIJKLM*", "ü", "a\n", "a/b"],
)
def test_computer_names_that_are_refused(pattern: str) -> None:
    with pytest.raises(UsageError):
        computer_name(pattern, 12, random.Random(1))


def test_a_number_that_does_not_fit() -> None:
    with pytest.raises(UsageError, match=r"no room for instance 100 .*write ### in place of ##"):
        computer_name("A##", 100, random.Random(1))


@pytest.mark.parametrize(
    ("text", "resource"),
    [
        ("Work", LocalResource("Work", 100)),
        ("Work=1", LocalResource("Work", 1)),
        ("a=b=65536", LocalResource("a=b", 65536)),
        ("Ordner ü", LocalResource("Ordner ü", 100)),
        ("Work:keep", LocalResource("Work", 100, clean=False)),
        ("a=b=7:keep", LocalResource("a=b", 7, clean=False)),
    ],
)
def test_local_resources(text: str, resource: LocalResource) -> None:
    assert parse_local_resource(text) == resource


@pytest.mark.parametrize(
    "text",
    [
        *("", "=5", ".", "..", "a/b", "a\\b", "C:", "/a", "a\n", "a\x1b", " a", "x" * 65),
        *("a:", "a:kept", "a:keep:keep", ":keep", "a=5:", "a:keep=5"),
        *("a=0", "a=-1", "a=x", "a=", "a=1.5", "a=65537", "a=99999999999999999999"),
    ],
)
def test_local_resources_that_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_local_resource(text)


@pytest.mark.parametrize(("one", "two", "said"), [("Work", "Work", "twice"), ("Work", "WORK", "only in case")])
def test_local_resources_that_collide(one: str, two: str, said: str) -> None:
    resources = (LocalResource(one), LocalResource("Other"), LocalResource(two))
    with pytest.raises(UsageError, match=said):
        dataclasses.replace(ANSWER, local_resources=resources)


def test_random_passwords() -> None:
    seen = {answers.random_password() for _ in range(200)}
    assert len(seen) == 200
    for password in seen:
        assert len(password) == 20
        kinds = (string.ascii_lowercase, string.ascii_uppercase, string.digits, "-_.+=@%")
        assert all(set(password) & set(kind) for kind in kinds)


def test_password_hashes() -> None:
    for password in ("secret", "pässwörd", "x" * 72):
        found = hash_password(password)
        assert found.startswith("$2b$")
        assert bcrypt.checkpw(password.encode(), found.encode())


@pytest.mark.parametrize("password", ["", "x" * 73, "ü" * 37, "a\nb", "a\0b"])
def test_passwords_that_are_refused(password: str) -> None:
    with pytest.raises(UsageError):
        hash_password(password)
