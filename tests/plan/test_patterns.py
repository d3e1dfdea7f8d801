# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.package.dotnet import PatternError, compile_pattern
from harness.package.models import Script
from harness.package.patterns import (
    Check,
    Defaults,
    FailurePolicy,
    failure_policy,
    looks_like_path,
    make_check,
    reboot_codes,
    seconds_for,
)
from tests.conftest import processor_seconds


def policy(defaults: Defaults = "recorded", **members: Any) -> FailurePolicy:
    script = Script.model_validate(members)
    return failure_policy(script, error_policy=script.error_policy, defaults=defaults)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("[1-9][0-9]*", "-1", True),  # unanchored, so the 1 of -1 is found
        ("[1-9][0-9]*", "0", False),
        (".+", "\n\n", False),
        ("[a-z-[aeiou]]", "e", False),  # subtraction
        ("[a-z-[aeiou]]", "x", True),
        ("[^a-z-[0-9]]", "5", False),
        ("[[:x]", "[", True),  # no POSIX classes, a bracket in a class is itself
        ("[a&&b]", "&", True),
        ("[+--]", ",", True),
        ("(?<word>a)\\k<word>", "aa", True),
        ("(?'word'a)\\k'word'", "aa", True),
        ("(a)\\1", "aa", True),
        ("(?i)ERR", "err", True),
        ("a(?i)b|c", "C", True),  # an option holds to the end of its group
        ("(?x) a b # comment )", "ab", True),
        ("x\\Z", "x\n", True),
        ("x\\z", "x\n", False),
        ("x$", "x\n", True),
        ("{abc", "{abc", True),  # a brace that is no quantifier
        ("a{,5}", "a{,5}", True),
        ("\\x41\\u0042\\e\\cA\\101?", "AB\x1b\x01", True),
        ("\\p{IsBasicLatin}", "a", True),
        ("(?<!a)b", "cb", True),
        (".{0,1000}foo.{0,1000}", "foo", True),
        ("((a{20}){20}){20}", "a" * 8000, True),
        ("(?>a+)b", "aab", True),
        # letters are compared one by one, by the simple lower case of no culture
        ("(?i)strasse", "STRASSE", True),
        ("(?i)strasse", "Straße", False),
        ("(?i)file", "FİLE", False),
        ("(?i)is", "\u0131s", False),
        ("(?i)kelvin", "\u212aELVIN", True),
        ("(?i)es", "e\u017f", False),
        ("(?i)[a-f]+$", "CAFE", True),
        ("(?i)[^x]", "X", False),
        ("(?i:a)b", "AB", False),
        ("(?i)a(?-i)b", "AB", False),
        ("(?i)(o)\\1", "oO", True),
        ("(?i)\\p{Lu}", "x", True),
        ("(?I)a", "A", True),
        # comments and blanks do not part a quantifier from what it repeats
        ("^o(?#often)+k$", "ook", True),
        ("(?x)^o +k$", "ook", True),
        ("(?x)a#b\nc", "ac", True),
        ("(?x)a[ ]b", "a b", True),
        ("(?x)a\u00a0b", "a\u00a0b", True),
        # kinds of characters
        ("[\\w-.]+$", "a-b.c", True),  # after a kind of characters a hyphen is itself
        ("^[\\W-k]+$", "-k", True),
        ("^\\w$", "²", False),
        ("^\\w$", "\u0301", True),
        ("^\\d$", "٣", True),
        ("^\\s$", "\u2028", True),
        ("^\\s$", "\u001c", False),
        ("\\p{IsGreek}", "\u03b1", True),
        ("[a-z-[aeiou-[e]]]", "e", True),
        ("^[^\\W\\d_]+$", "abc", True),
        (".", "\r", True),
        ("a$", "a\r\n", False),
        ("(?s)^.$", "\n", True),
        ("(?m)^b$", "a\nb\nc", True),
        ("^b", "a\nb", False),
        # groups and references
        ("(?n)(a)(?<n>b)\\1", "abb", True),
        ("(a)(?<n>b)(c)\\2", "abcc", True),
        ("(a)(?<n>b)(c)\\3", "abcb", True),
        ("(?<7>a)\\7", "aa", True),
        ("(?<n>a)|(?<n>b)\\k<n>", "bb", True),
        ("(a)\\11", "a\t", True),  # there is no eleventh group: an octal number
        ("\\0", "\0", True),
        ("(?<n>a)\\<n>", "aa", True),
        ("\\<n", "<n", True),
        ("(?=a)*b", "b", True),
        ("^*a", "a", True),
        ("[]a]", "]", True),
    ],
)
def test_patterns_mean_what_dotnet_says(pattern: str, text: str, found: bool) -> None:
    assert (compile_pattern(pattern).search(text, timeout=1) is not None) is found


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("{1641}|{3010}", "follows nothing"),
        ("*", "follows nothing"),
        ("a++", "right after"),
        ("(?<open-close>x)", "balancing"),
        ("(?'-open'x)", "balancing"),
        ("(?P<a>x)", "does not have"),
        ("(?R)", "does not have"),
        ("\\Vx", "does not exist"),
        ("\\_", "does not exist"),
        ("[a", "never closed"),
        ("(a", "never closed"),
        ("a)", "too many"),
        ("a\\", "backslash"),
        ("a{2,1}", "upper bound"),
        ("[a--]", "before it starts"),
        ("[z-a]", "before it starts"),
        ("(((a{1000}){1000}){1000})", "elements"),
        ("(" * 400 + ")" * 400, "deep"),
        ("a" * 3000, "characters"),
        ("[a-\\w]", "kind of them"),
        ("[+-\\d]", "kind of them"),
        ("\\1", "does not have"),
        ("(?n)(a)\\1", "does not have"),
        ("\\k<n>", "does not have"),
        ("(?<01>a)", "invalid name"),
        ("\\88", "does not exist"),
        ("\\i", "does not exist"),
        ("\\x4", "malformed"),
        ("\\u004", "malformed"),
        ("\\c1", "malformed"),
        ("\\pL", "malformed"),
        ("\\p{Letter}", "does not know"),
        ("(?i)*", "follows nothing"),
        ("(|*)", "follows nothing"),
        ("a(?#c)**", "right after"),
        ("(?x)a* *", "right after"),
        ("(?#c", "never closed"),
        ("[^]", "never closed"),
        ("[a-z-[b]c]", "subtraction"),
        ("(?<0>a)", "number 0"),
        ("(?<1a>a)", "invalid name"),
        ("(?<a b>a)", "invalid name"),
        ("(?(a)b|c)", "conditional"),
        ("(?r)a", "does not have"),
        ("(?)", "does not have"),
    ],
)
def test_refused_patterns(pattern: str, why: str) -> None:
    with pytest.raises(PatternError, match=why):
        compile_pattern(pattern)


@given(st.text(alphabet="ab01()[]{}*+?|\\^$.-,<>'=!:#ikPpxu&~ \n", max_size=30))
@settings(max_examples=500, deadline=None)
def test_no_pattern_breaks_anything(pattern: str) -> None:
    check = make_check("standard output", pattern)
    with contextlib.suppress(TimeoutError):
        check.found("ab01" * 5)


def test_a_catastrophic_pattern_is_given_up() -> None:
    with processor_seconds(10):
        verdict = policy(StandardOutputRegex="(a|aa|a?a)+$").judge(0, "a" * 5000 + "b")
    assert verdict.outcome == "succeeded" or "given up" in verdict.reasons[0]


def test_missing_patterns() -> None:
    recorded = policy(ErrorPolicy="FailOnMatch")
    assert recorded.judge(0).outcome == "succeeded"
    assert recorded.judge(1).outcome == recorded.judge(-1).outcome == "failed"
    warned = recorded.judge(0, "", "oops")
    assert warned.outcome == "warned" and "`.+` would fail this" in warned.reasons[0]
    assert policy("console").judge(0, "x", "oops").outcome == "failed"
    assert policy("console").judge(0, "x").outcome == "succeeded"


@pytest.mark.parametrize("off", [None, "", "*"])
def test_patterns_that_are_switched_off(off: str | None) -> None:
    quiet = policy("console", ExitCodeRegex=off, StandardErrorRegex=off, StandardOutputRegex=off)
    assert quiet.judge(7, "a", "b").outcome == "succeeded"


def test_any_of_the_three_is_enough_and_the_policy_decides() -> None:
    both: dict[str, Any] = {"ExitCodeRegex": "^5$", "StandardOutputRegex": "ERR", "StandardErrorRegex": "bad"}
    fails = policy(ErrorPolicy="FailOnMatch", **both)
    warns = policy(ErrorPolicy="warnAndContinueOnMatch", **both)
    for outcome in ((5, "", ""), (0, "an ERR", ""), (0, "", "bad")):
        assert fails.judge(*outcome).outcome == "failed"
        assert warns.judge(*outcome).outcome == "warned"
    assert fails.judge(1, "x", "y").outcome == "succeeded"
    assert fails.judge(None).outcome == "failed"


def test_paths_and_invalid_patterns_never_match() -> None:
    path = "c:\\VMRole\\encryptdbpwd_out.log"
    assert looks_like_path(path) and looks_like_path("%TEMP%\\x.txt") and looks_like_path("c:\\temp")
    assert looks_like_path("\\\\server\\share") and looks_like_path("..\\log\\out.txt")
    assert not looks_like_path(".\\w") and not looks_like_path("\\\\d") and not looks_like_path("..\\d.*")
    assert not looks_like_path("c:\\\\temp") and not looks_like_path("\\d+") and not looks_like_path(".+")
    made = policy(StandardOutputRegex=path)
    assert made.stdout.state == "invalid"
    verdict = made.judge(0, path)
    assert verdict.outcome == "warned" and "never matches: it is a path" in verdict.reasons[0]
    assert made.judge(1).outcome == "failed"


def test_reboots() -> None:
    made = policy()
    assert made.reboot == "exit code 1641, 3010, 3011"
    for code in (1641, 3010, 3011):
        verdict = made.judge(code, "", "text")
        assert (verdict.outcome, verdict.reboot, verdict.rerun) == ("succeeded", True, False)
    assert replace(made, restart_on_exit_code_reboot=True).judge(3010).rerun
    always = replace(made, always_reboot=True)
    assert always.judge(0).reboot and not always.judge(1).reboot
    assert replace(always, error_policy="WarnAndContinueOnMatch").judge(1).reboot
    assert policy(RebootExitCodeRegex="").judge(3010).outcome == "failed"
    assert policy(RebootExitCodeRegex="3010").reboot_codes == (3010,)
    assert not policy(RebootExitCodeRegex="3010").judge(13010).reboot


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("{1641}|{3010}|{3011}", (1641, 3010, 3011)),
        ("3010", (3010,)),
        ("1641|{3010}", (1641, 3010)),
        ("{1}", (1,)),
        ("-5|7", (-5, 7)),
        (None, ()),
        ("*", ()),
        ("", ()),
        ("^(3010)$", None),
        ("30[0-9]+", None),
        ("1641, 3010", None),
        ("abc", None),
    ],
)
def test_reboot_codes_are_a_list_of_numbers_or_else_a_pattern(text: str | None, codes: tuple[int, ...] | None) -> None:
    assert reboot_codes(text) == codes


@pytest.mark.parametrize(
    ("pattern", "restarting", "others"),
    [
        ("30(10|11)", (3010, 3011), (301, 1641)),
        ("^(?:3010|1641)$", (3010, 1641), (13010, 3011)),
        ("^30[0-9]{2}$", (3000, 3099), (30990, 1641)),
        ("^-2147", (-2147024891,), (2147, 1)),
        ("(?<!1)3010", (3010,), (13010,)),
    ],
)
def test_a_reboot_pattern_is_found_in_the_decimal_code_before_a_failure_is(
    pattern: str, restarting: tuple[int, ...], others: tuple[int, ...]
) -> None:
    made = policy(RebootExitCodeRegex=pattern)
    assert made.reboot == f"exit code that matches {pattern}"
    for code in restarting:
        verdict = made.judge(code)
        assert (verdict.outcome, verdict.reboot) == ("succeeded", True)
    for code in others:
        verdict = made.judge(code)
        assert (verdict.outcome, verdict.reboot) == ("failed", False)


@pytest.mark.parametrize("pattern", ["{1641}|30[0-9]+", "c:\\VMRole\\out.log", "30(10"])
def test_a_reboot_pattern_that_is_none_restarts_nothing_and_is_told(pattern: str) -> None:
    verdict = policy(RebootExitCodeRegex=pattern).judge(0)
    assert (verdict.outcome, verdict.reboot) == ("warned", False)
    assert f"the reboot pattern {pattern} never matches" in verdict.reasons[0]
    assert policy(RebootExitCodeRegex=pattern).judge(3010).outcome == "failed"


def test_time_outs() -> None:
    assert policy().judge(None, timed_out=True).outcome == "timed_out"
    assert policy(ErrorPolicy="WarnAndContinueOnMatch").judge(None, timed_out=True).outcome == "warned"


def test_checks_know_where_they_come_from() -> None:
    made = policy(StandardErrorRegex=".+")
    assert (made.exit_code.default, made.stderr.default, made.stdout.state) == (True, False, "off")
    assert Check("standard output").found("x") is False


def test_all_of_a_long_stream_is_searched() -> None:
    checked = policy(StandardOutputRegex="ERROR: quota")
    assert checked.judge(0, "line of a long log\n" * 200_000 + "ERROR: quota\n").outcome == "failed"
    assert checked.judge(0, "line of a long log\n" * 200_000).outcome == "succeeded"


def test_a_long_stream_has_more_time_than_a_short_one() -> None:
    assert seconds_for("short") == 1 and seconds_for("x" * (3 << 20)) == 3
