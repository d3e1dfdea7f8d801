# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.package import read_package, read_parameters
from harness.plan import Plan, make_plan
from harness.plan.linux import command_findings, split_command
from tests.package.material import with_profile, write


@pytest.mark.parametrize(
    ("command", "tokens"),
    [
        ("", ()),
        ("   ", ()),
        ("ifconfig", ("ifconfig",)),
        ("  a   b  ", ("a", "b")),
        ("a\tb\nc", ("a\tb\nc",)),  # only the space separates
        ("'a b' \"c d\"", ("a b", "c d")),
        ("ls \"/usr/\"local/'apache-tomcat/'", ("ls", "/usr/local/apache-tomcat/")),
        ('a"b\'c"d', ("ab'cd",)),
        ("a'b\"c'd", ('ab"cd',)),
        (
            '/bin/sh -c "echo \\"<?php phpinfo();?>\\" > /tmp/x"',
            ("/bin/sh", "-c", 'echo "<?php phpinfo();?>" > /tmp/x'),
        ),
        (r"\a\b", ("ab",)),  # an escape drops the backslash, outside quotes
        (r'"\a\\b"', ("a\\b",)),  # and in double quotes
        (r"'\a\\b'", (r"\a\\b",)),  # in single quotes it is plain
        (r"a\\b", (r"a\b",)),
        (r"a\ b", ("a", "b")),  # a space is never escaped
        (r"it\'s", ("it\\s",)),  # the backslash stays, and the quote opens all the same
        (r"a\'b c\'d", (r"a\b c\d",)),
        (r"\"a", ('"a',)),
        ("a '' b", ("a", "b")),  # an empty quoted argument vanishes
        ('""', ()),
        ("' ' a", (" a",)),  # quoted blanks alone are no token: they join the next one
        (r"\" a", ('"a',)),
        (r"a \"", ("a",)),  # or vanish at the end
        (r"a \\", ("a",)),
        ("a | b > c && d", ("a", "|", "b", ">", "c", "&&", "d")),
        ("a 'b c", ("a", "b c")),  # a quote that is never closed runs to the end
        ("a b\\", ("a", "b")),
        ("a\0b c", ("a", "c")),  # tokens are C strings
        ("\u00e4 '\u20ac \U0001f600'", ("\u00e4", "\u20ac \U0001f600")),
    ],
)
def test_tokenizer(command: str, tokens: tuple[str, ...]) -> None:
    assert split_command(command) == tokens


@given(st.lists(st.text(alphabet=st.characters(exclude_characters=" '\"\\\0", codec="utf-8"), min_size=1)))
def test_plain_words_come_back(words: list[str]) -> None:
    assert split_command(" ".join(words)) == tuple(words)


@given(st.text())
def test_no_text_breaks_the_tokenizer(command: str) -> None:
    assert all(isinstance(token, str) for token in split_command(command))


def plan_of(
    folder: Path, *commands: str, given: tuple[str, ...] = (), parameters: tuple[tuple[str, str], ...] = ()
) -> Plan:
    package = read_package(write(folder, with_profile(*commands, parameters=parameters)))
    return make_plan(package, read_parameters(package, given), os="linux")


def test_a_step_is_the_real_agents(tmp_path: Path) -> None:
    (step,) = plan_of(tmp_path, "/bin/echo 'a b'").steps
    assert (step.id, step.name, step.kind) == ("run-once-1", "/bin/echo 'a b'", "run-once")
    assert step.argv == ("/bin/echo", "a b")
    assert (step.account, step.working_directory, step.timeout, step.stdin) == ("root", "/", 300.0, b"")
    assert (step.reboot, step.on_failure, step.applicable) == ("never", "warn", True)
    assert step.environment == (("HISTIGNORE", "*"),)
    assert step.source.endswith("/LinuxApplicationProfile/RunOnceCommands/0")


def test_the_payload_has_its_place_in_the_environment(tmp_path: Path) -> None:
    document = with_profile("/bin/true")
    document["DataPackage"] = {"Version": "1.0.0.0", "Location": "files"}
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.sh").write_text("exit 0\n")
    package = read_package(write(tmp_path, document).parent)
    (step,) = make_plan(package, read_parameters(package), os="linux").steps
    assert ("VMROLE_PAYLOAD", "/var/lib/vmrole/payload") in step.environment


def test_parameters_are_filled_in_before_the_command_is_split(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        "/bin/login [Param.Who] '[param.Who]'",
        given=("Who=corp bob:x y",),
        parameters=(("Who", "Credential"),),
    )
    (step,) = plan.steps
    assert step.argv == ("/bin/login", "corp", "bob:x", "y", "corp bob:x y")
    assert step.command == "/bin/login corp bob:__**__ 'corp bob:__**__'"
    assert step.name == step.command
    assert "x y" not in str(step.as_json())


def test_a_command_without_tokens_ends_as_with_the_real_agent(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "/bin/true", "''")
    assert plan.steps[1].argv == ()
    assert [finding.code for finding in plan.findings] == ["command-empty"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("/bin/echo a | cat", "command-shell-syntax"),
        ("/bin/echo a >/tmp/x", "command-shell-syntax"),
        ("apt-get install a && systemctl start b", "command-shell-syntax"),
        ("apt-get install a; systemctl start b", "command-shell-syntax"),
        ("/bin/sh -c 'true' && reboot", "command-shell-syntax"),
        ("/bin/sh $VMROLE_PAYLOAD/a.sh", "command-shell-syntax"),
        ("/bin/echo $(hostname)", "command-shell-syntax"),
        ("cd /tmp", "command-shell-syntax"),
        ("DEBIAN_FRONTEND=noninteractive apt-get install a", "command-shell-syntax"),
        ("/usr/bin/find / -name x -exec rm {} \\;", None),
        ("/usr/bin/awk '{print $1; exit}' /x", None),
        ("/bin/sed s/x$/y/ /x", None),
        ("/bin/sh -c 'a=1; echo $a && echo `id` > /x'", None),
        ("/bin/echo 'a", "command-quote"),
        ("/bin/sh -c 'echo a | cat'", None),
        (r"/bin/echo \"", None),
    ],
)
def test_findings_about_commands(tmp_path: Path, command: str, code: str | None) -> None:
    findings = [one for one in plan_of(tmp_path, command).findings if one.code != "command-file-missing"]
    assert [finding.code for finding in findings] == ([code] if code else [])
    assert all(finding.line == 1 and finding.pointer for finding in findings)


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("/bin/sh $VMROLE_PAYLOAD/gone.sh", "gone.sh"),
        ('/bin/sh -c "${VMROLE_PAYLOAD}/bin/gone"', "bin/gone"),
        ("/bin/sh /var/lib/vmrole/payload/a/Run.sh", "a/Run.sh"),  # Linux tells letters apart
        ('/bin/sh -c "\\"$VMROLE_PAYLOAD\\"/gone"', "gone"),
        ("/bin/sh $VMROLE_PAYLOAD/a/run.sh $VMROLE_PAYLOAD/gone", "gone"),
        ("/bin/sh $VMROLE_PAYLOAD//a/./run.sh", None),
        ("/bin/ls $VMROLE_PAYLOAD/a ${VMROLE_PAYLOAD}/a/ /var/lib/vmrole/payload", None),
        ("/bin/sh -c \"cat '$VMROLE_PAYLOAD/my file.txt'\"", None),
        ('/bin/sh -c "dpkg -i $VMROLE_PAYLOAD/*.deb $VMROLE_PAYLOAD/x-$(uname -m).deb"', None),
        ('/bin/sh -c "date > $VMROLE_PAYLOAD/made; cat $VMROLE_PAYLOAD/made"', None),
        (
            "/bin/sh $VMROLE_PAYLOAD/[Param.Name] $VMROLE_PAYLOAD/../x $VMROLE_PAYLOADS/x /x/var/lib/vmrole/payload/x",
            None,
        ),
        ("/bin/sh $VMROLE_PAYLOAD/large/setup.bin", None),  # brought along
    ],
)
def test_files_that_the_payload_does_not_have(tmp_path: Path, command: str, missing: str | None) -> None:
    for name in ("a/run.sh", "my file.txt"):
        (tmp_path / "payload" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "payload" / name).touch()
    document = with_profile("true", command, parameters=(("Name", "String"),))
    external = [{"RelativePath": ".\\large\\setup.bin"}]
    document["DataPackage"] = {"Version": "1.0.0.0", "Location": "payload", "ExternalPayload": external}
    package = read_package(write(tmp_path, document))
    found = [finding for finding in command_findings(package) if finding.code == "command-file-missing"]
    assert [finding.sentence for finding in found] == (
        [f"the payload has no {missing!r}, which the command names"] if missing else []
    )
    assert all(finding.pointer.endswith("/RunOnceCommands/1") and finding.line for finding in found)
    assert list(make_plan(package, read_parameters(package, ["Name=x"]), os="linux").findings) == list(
        command_findings(package)
    )
