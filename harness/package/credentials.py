# SPDX-License-Identifier: Apache-2.0
"""Which members of a document hold credentials, passwords and product keys, and which part of them is secret."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from harness.errors import PackageError
from harness.package.jsontree import Node

#: Different passwords that one document may have in plain text: every spelling of each is looked for everywhere.
MOST_SECRETS: Final = 500

#: What bcrypt looks at of a password; the rest would not count.
MAX_PASSWORD_BYTES: Final = 72

#: ScriptCredential, SQLDeploymentCredential, SQLServiceCredential... [DOC dn249753, dn249740, dn249754], and a
#: definition's AdminCredential and DomainJoinCredentials [DOC dn249737].
_CREDENTIAL: Final = re.compile(r"(?i)(?:script|sql\w*|admin)credential|domainjoincredentials")
#: SAPassword, PackagePassword, and Password of a credential's object form, in lower case.
_PASSWORDS: Final = frozenset({"password", "sapassword", "packagepassword"})
#: What SQL Server's setup takes for a ProductKey too: editions that need none. To mask these words would hide others'.
_EDITIONS: Final = frozenset({"evaluation", "developer", "express"})


def is_credential(node: Node) -> bool:
    """Whether a node is a credential in the flat form, ``domain\\user:password``."""
    return isinstance(node.key, str) and isinstance(node.value, str) and _CREDENTIAL.fullmatch(node.key) is not None


def is_password(node: Node) -> bool:
    """Whether a node is a password as a whole."""
    return isinstance(node.key, str) and isinstance(node.value, str) and node.key.lower() in _PASSWORDS


def is_product_key(node: Node) -> bool:
    """Whether a node is a product key: nobody's password, and not to be shown."""
    return isinstance(node.key, str) and isinstance(node.value, str) and node.key.lower() == "productkey"


def is_edition(product_key: str) -> bool:
    """Whether a product key is only the name of an edition that needs none."""
    return product_key.strip().lower() in _EDITIONS


def password(credential: str) -> str:
    """The part of a credential behind its first colon [INFER]; "" when there is none."""
    return credential.partition(":")[2]


def few_enough(secrets: Collection[str], file: str) -> tuple[str, ...]:
    """The secrets that are not empty. Raises PackageError beyond MOST_SECRETS."""
    found = tuple(secret for secret in secrets if secret)
    if len(found) > MOST_SECRETS:
        raise PackageError(
            f"{file} has {len(found)} different passwords written in it, more than {MOST_SECRETS}",
            hint="declare Credential or SecureString parameters",
        )
    return found
