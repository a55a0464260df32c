"""River's golden data: what every implementation must compute alike.

The values are River's, from its conformance/fixtures, 0.47 to 0.49; those that only its generator
states there (the dotted and punctuated names, the named time zones, the bounds of delays) were
computed by River 0.51.2 and robfig/cron 3.0.1 from that generator's inputs.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

NOW = "2026-01-02T03:04:05.6789Z"
SCHEDULED_AT = "2026-01-02T05:21:05.6789Z"


def _cron(table: str) -> Mapping[str, tuple[str, str, Sequence[str]]]:
    """Return by name: an expression, a reference time, and the times that follow it."""
    cases = {}
    for line in table.strip().splitlines():
        name, expression, reference, times = (part for part in line.split("|"))
        cases[name.strip()] = (expression[1:-1], reference.strip(), times.split())
    return cases


CRON = _cron("""
every_minute | * * * * * | 2026-01-02T03:04:05.6789Z | 2026-01-02T03:05:00Z 2026-01-02T03:06:00Z 2026-01-02T03:07:00Z 2026-01-02T03:08:00Z 2026-01-02T03:09:00Z
half_past_every_hour | 30 * * * * | 2026-01-02T03:04:05.6789Z | 2026-01-02T03:30:00Z 2026-01-02T04:30:00Z 2026-01-02T05:30:00Z 2026-01-02T06:30:00Z 2026-01-02T07:30:00Z
monday_numeric_weekday | 0 9 * * 1 | 2026-01-02T03:04:05.6789Z | 2026-01-05T09:00:00Z 2026-01-12T09:00:00Z 2026-01-19T09:00:00Z 2026-01-26T09:00:00Z 2026-02-02T09:00:00Z
monday_named_weekday | 0 9 * * mon | 2026-01-02T03:04:05.6789Z | 2026-01-05T09:00:00Z 2026-01-12T09:00:00Z 2026-01-19T09:00:00Z 2026-01-26T09:00:00Z 2026-02-02T09:00:00Z
sunday_is_zero | 0 0 * * 0 | 2026-01-02T03:04:05.6789Z | 2026-01-04T00:00:00Z 2026-01-11T00:00:00Z 2026-01-18T00:00:00Z 2026-01-25T00:00:00Z 2026-02-01T00:00:00Z
weekday_names_ignore_case | 0 0 * * SUN | 2026-01-02T03:04:05.6789Z | 2026-01-04T00:00:00Z 2026-01-11T00:00:00Z 2026-01-18T00:00:00Z 2026-01-25T00:00:00Z 2026-02-01T00:00:00Z
business_hours_steps | */15 9-17 * * mon-fri | 2026-01-02T03:04:05.6789Z | 2026-01-02T09:00:00Z 2026-01-02T09:15:00Z 2026-01-02T09:30:00Z 2026-01-02T09:45:00Z 2026-01-02T10:00:00Z
first_of_month | 0 0 1 * * | 2026-01-02T03:04:05.6789Z | 2026-02-01T00:00:00Z 2026-03-01T00:00:00Z 2026-04-01T00:00:00Z 2026-05-01T00:00:00Z 2026-06-01T00:00:00Z
named_months | 0 0 1 jan,JUL * | 2026-01-02T03:04:05.6789Z | 2026-07-01T00:00:00Z 2027-01-01T00:00:00Z 2027-07-01T00:00:00Z 2028-01-01T00:00:00Z 2028-07-01T00:00:00Z
leap_day | 0 0 29 2 * | 2026-01-02T03:04:05.6789Z | 2028-02-29T00:00:00Z 2032-02-29T00:00:00Z 2036-02-29T00:00:00Z 2040-02-29T00:00:00Z 2044-02-29T00:00:00Z
impossible_date_never_runs | 0 0 30 2 * | 2026-01-02T03:04:05.6789Z |
day_of_month_or_weekday | 0 12 1,15 * 5 | 2026-01-02T03:04:05.6789Z | 2026-01-02T12:00:00Z 2026-01-09T12:00:00Z 2026-01-15T12:00:00Z 2026-01-16T12:00:00Z 2026-01-23T12:00:00Z
wildcard_day_of_month_and_weekday | 0 12 * * 5 | 2026-01-02T03:04:05.6789Z | 2026-01-02T12:00:00Z 2026-01-09T12:00:00Z 2026-01-16T12:00:00Z 2026-01-23T12:00:00Z 2026-01-30T12:00:00Z
question_mark_wildcard | 0 12 ? * 5 | 2026-01-02T03:04:05.6789Z | 2026-01-02T12:00:00Z 2026-01-09T12:00:00Z 2026-01-16T12:00:00Z 2026-01-23T12:00:00Z 2026-01-30T12:00:00Z
stepped_day_of_month_or_weekday | 0 12 */2 * 5 | 2026-01-02T03:04:05.6789Z | 2026-01-02T12:00:00Z 2026-01-03T12:00:00Z 2026-01-05T12:00:00Z 2026-01-07T12:00:00Z 2026-01-09T12:00:00Z
unit_step_keeps_wildcard | 0 12 */1 * 5 | 2026-01-02T03:04:05.6789Z | 2026-01-02T12:00:00Z 2026-01-09T12:00:00Z 2026-01-16T12:00:00Z 2026-01-23T12:00:00Z 2026-01-30T12:00:00Z
start_with_step | 5/15 * * * * | 2026-01-02T03:04:05.6789Z | 2026-01-02T03:05:00Z 2026-01-02T03:20:00Z 2026-01-02T03:35:00Z 2026-01-02T03:50:00Z 2026-01-02T04:05:00Z
range_with_step | 0-10/5 * * * * | 2026-01-02T03:04:05.6789Z | 2026-01-02T03:05:00Z 2026-01-02T03:10:00Z 2026-01-02T04:00:00Z 2026-01-02T04:05:00Z 2026-01-02T04:10:00Z
year_end | 59 23 31 12 * | 2026-01-02T03:04:05.6789Z | 2026-12-31T23:59:00Z 2027-12-31T23:59:00Z 2028-12-31T23:59:00Z 2029-12-31T23:59:00Z 2030-12-31T23:59:00Z
descriptor_hourly | @hourly | 2026-01-02T03:04:05.6789Z | 2026-01-02T04:00:00Z 2026-01-02T05:00:00Z 2026-01-02T06:00:00Z 2026-01-02T07:00:00Z 2026-01-02T08:00:00Z
descriptor_daily | @daily | 2026-01-02T03:04:05.6789Z | 2026-01-03T00:00:00Z 2026-01-04T00:00:00Z 2026-01-05T00:00:00Z 2026-01-06T00:00:00Z 2026-01-07T00:00:00Z
descriptor_midnight | @midnight | 2026-01-02T03:04:05.6789Z | 2026-01-03T00:00:00Z 2026-01-04T00:00:00Z 2026-01-05T00:00:00Z 2026-01-06T00:00:00Z 2026-01-07T00:00:00Z
descriptor_weekly | @weekly | 2026-01-02T03:04:05.6789Z | 2026-01-04T00:00:00Z 2026-01-11T00:00:00Z 2026-01-18T00:00:00Z 2026-01-25T00:00:00Z 2026-02-01T00:00:00Z
descriptor_monthly | @monthly | 2026-01-02T03:04:05.6789Z | 2026-02-01T00:00:00Z 2026-03-01T00:00:00Z 2026-04-01T00:00:00Z 2026-05-01T00:00:00Z 2026-06-01T00:00:00Z
descriptor_yearly | @yearly | 2026-01-02T03:04:05.6789Z | 2027-01-01T00:00:00Z 2028-01-01T00:00:00Z 2029-01-01T00:00:00Z 2030-01-01T00:00:00Z 2031-01-01T00:00:00Z
descriptor_annually | @annually | 2026-01-02T03:04:05.6789Z | 2027-01-01T00:00:00Z 2028-01-01T00:00:00Z 2029-01-01T00:00:00Z 2030-01-01T00:00:00Z 2031-01-01T00:00:00Z
every_compound_duration | @every 1h30m | 2026-01-02T03:04:05.6789Z | 2026-01-02T04:34:05Z 2026-01-02T06:04:05Z 2026-01-02T07:34:05Z 2026-01-02T09:04:05Z 2026-01-02T10:34:05Z
every_fractional_duration | @every 1.5h | 2026-01-02T03:04:05.6789Z | 2026-01-02T04:34:05Z 2026-01-02T06:04:05Z 2026-01-02T07:34:05Z 2026-01-02T09:04:05Z 2026-01-02T10:34:05Z
every_seconds | @every 90s | 2026-01-02T03:04:05.6789Z | 2026-01-02T03:05:35Z 2026-01-02T03:07:05Z 2026-01-02T03:08:35Z 2026-01-02T03:10:05Z 2026-01-02T03:11:35Z
every_rounds_up_to_one_second | @every 500ms | 2026-01-02T03:04:05.6789Z | 2026-01-02T03:04:06Z 2026-01-02T03:04:07Z 2026-01-02T03:04:08Z 2026-01-02T03:04:09Z 2026-01-02T03:04:10Z
every_truncates_subseconds | @every 1500ms | 2026-01-02T03:04:05.6789Z | 2026-01-02T03:04:06Z 2026-01-02T03:04:07Z 2026-01-02T03:04:08Z 2026-01-02T03:04:09Z 2026-01-02T03:04:10Z
reference_time_offset | 0 9 * * * | 2026-03-07T08:00:00-05:00 | 2026-03-07T09:00:00-05:00 2026-03-08T09:00:00-05:00 2026-03-09T09:00:00-05:00 2026-03-10T09:00:00-05:00 2026-03-11T09:00:00-05:00
reference_time_half_hour_offset | 30 0 * * * | 2026-03-07T23:45:00+05:30 | 2026-03-08T00:30:00+05:30 2026-03-09T00:30:00+05:30 2026-03-10T00:30:00+05:30 2026-03-11T00:30:00+05:30 2026-03-12T00:30:00+05:30
cron_tz_utc_prefix | CRON_TZ=UTC 0 9 * * * | 2026-03-07T08:00:00-05:00 | 2026-03-08T04:00:00-05:00 2026-03-09T04:00:00-05:00 2026-03-10T04:00:00-05:00 2026-03-11T04:00:00-05:00 2026-03-12T04:00:00-05:00
tz_utc_prefix | TZ=UTC 0 9 * * * | 2026-03-07T08:00:00-05:00 | 2026-03-08T04:00:00-05:00 2026-03-09T04:00:00-05:00 2026-03-10T04:00:00-05:00 2026-03-11T04:00:00-05:00 2026-03-12T04:00:00-05:00
extra_whitespace |   0   9 * *   1  | 2026-01-02T03:04:05.6789Z | 2026-01-05T09:00:00Z 2026-01-12T09:00:00Z 2026-01-19T09:00:00Z 2026-01-26T09:00:00Z 2026-02-02T09:00:00Z
""")

# In the zone that each names; compared as instants.
CRON_IN_ZONES = _cron("""
new_york_across_dst_start | CRON_TZ=America/New_York 0 9 * * * | 2026-03-06T12:00:00Z | 2026-03-06T14:00:00Z 2026-03-07T14:00:00Z 2026-03-08T13:00:00Z 2026-03-09T13:00:00Z 2026-03-10T13:00:00Z
new_york_skipped_wall_time | CRON_TZ=America/New_York 30 2 * * * | 2026-03-06T12:00:00Z | 2026-03-07T07:30:00Z 2026-03-09T06:30:00Z 2026-03-10T06:30:00Z 2026-03-11T06:30:00Z 2026-03-12T06:30:00Z
new_york_repeated_wall_time | CRON_TZ=America/New_York 30 1 * * * | 2026-10-30T12:00:00Z | 2026-10-31T05:30:00Z 2026-11-01T05:30:00Z 2026-11-01T06:30:00Z 2026-11-02T06:30:00Z 2026-11-03T06:30:00Z
new_york_hourly_across_dst_end | CRON_TZ=America/New_York 0 * * * * | 2026-11-01T04:30:00Z | 2026-11-01T05:00:00Z 2026-11-01T06:00:00Z 2026-11-01T07:00:00Z 2026-11-01T08:00:00Z 2026-11-01T09:00:00Z
london_across_dst_end | CRON_TZ=Europe/London 0 0 * * * | 2026-10-23T12:00:00Z | 2026-10-23T23:00:00Z 2026-10-24T23:00:00Z 2026-10-26T00:00:00Z 2026-10-27T00:00:00Z 2026-10-28T00:00:00Z
santiago_skipped_midnight | CRON_TZ=America/Santiago 0 0 * * * | 2026-09-03T12:00:00Z | 2026-09-04T04:00:00Z 2026-09-05T04:00:00Z 2026-09-07T03:00:00Z 2026-09-08T03:00:00Z 2026-09-09T03:00:00Z
santiago_day_after_skipped_midnight | CRON_TZ=America/Santiago 0 12 * * * | 2026-09-03T12:00:00Z | 2026-09-03T16:00:00Z 2026-09-04T16:00:00Z 2026-09-05T16:00:00Z 2026-09-06T15:00:00Z 2026-09-07T15:00:00Z
santiago_repeated_hour_before_midnight | CRON_TZ=America/Santiago 30 23 * * * | 2026-04-02T12:00:00Z | 2026-04-03T02:30:00Z 2026-04-04T02:30:00Z 2026-04-05T02:30:00Z 2026-04-05T03:30:00Z 2026-04-06T03:30:00Z
kolkata_tz_prefix | TZ=Asia/Kolkata 0 9 * * mon | 2026-01-02T03:04:05-05:00 | 2026-01-04T22:30:00-05:00 2026-01-11T22:30:00-05:00 2026-01-18T22:30:00-05:00 2026-01-25T22:30:00-05:00 2026-02-01T22:30:00-05:00
""")

CRON_INVALID = (
    "",
    "* * * *",
    "* * * * * *",
    "0 9 * * 7",
    "60 * * * *",
    "* 24 * * *",
    "* * 0 * *",
    "* * 32 * *",
    "* * * 0 *",
    "* * * 13 *",
    "-1 * * * *",
    "5-1 * * * *",
    "1-2-3 * * * *",
    "1/2/3 * * * *",
    "*/0 * * * *",
    "*/x * * * *",
    "0 9 * * funday",
    "@every",
    "@every 5x",
    "@reboot",
    "CRON_TZ=Nowhere/Invalid 0 9 * * *",
)

# Name: metadata, the counter after one more snooze.
SNOOZES: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "absent": ({}, 1),
    "array_is_zero": ({"snoozes": [3]}, 1),
    "beyond_float_precision": ({"snoozes": 9007199254740993}, 9007199254740994),
    "exponent": ({"snoozes": 1e3}, 1001),
    "false_is_zero": ({"snoozes": False}, 1),
    "fraction_truncates": ({"snoozes": 2.9}, 3),
    "fractional_string_is_zero": ({"snoozes": "4.5"}, 1),
    "integer": ({"snoozes": 2}, 3),
    "largest_increment": ({"snoozes": 9223372036854775806}, 9223372036854775807),
    "negative_fraction_truncates_toward_zero": ({"snoozes": -2.5}, -1),
    "negative_numeric_string": ({"snoozes": "-7"}, -6),
    "non_numeric_string_is_zero": ({"snoozes": "abc"}, 1),
    "null_is_zero": ({"snoozes": None}, 1),
    "numeric_string": ({"snoozes": "4"}, 5),
    "object_is_zero": ({"snoozes": {"count": 3}}, 1),
    "padded_string_is_zero": ({"snoozes": " 5"}, 1),
    "true_is_one": ({"snoozes": True}, 2),
    "zero": ({"snoozes": 0}, 1),
}

# Failures so far, this one included: the shortest and the longest delay, in nanoseconds.
DELAYS_NS: Mapping[int, tuple[int, int]] = {
    1: (900_000_000, 1_100_000_000),
    2: (14_400_000_000, 17_600_000_000),
    3: (72_900_000_000, 89_100_000_000),
    11: (13_176_900_000_000, 16_105_100_000_000),
    309: (8_204_959_224_899_999_744, 9_223_372_036_854_775_807),
    310: (9_223_372_036_854_775_807, 9_223_372_036_854_775_807),
}

# Each state's bit in a unique mask.
STATE_BITS: Mapping[str, int] = {
    "available": 1,
    "cancelled": 2,
    "completed": 4,
    "discarded": 8,
    "pending": 16,
    "retryable": 32,
    "running": 64,
    "scheduled": 128,
}

# What an implementation keeps in a job's metadata under names of River's.
RESERVED_METADATA = frozenset(
    {
        "cancel_attempted_at",
        "output",
        "river:log",
        "river:periodic_job_id",
        "river:rescue_count",
        "river:resumable_cursor",
        "river:resumable_step",
        "river:unique_nonce",
        "snoozes",
        "unique_key_conflict",
    }
)


@attrs.frozen(kw_only=True)
class UniqueCase:
    """A job, its uniqueness, and its key in hexadecimal; None where it must be refused.

    Attributes:
        args: The args as the JSON text that Go writes.
        options: River's unique options, the period in nanoseconds.
        fields: The fields that count, each by its path; None for all.
    """

    kind: str = "conformance_all_args"
    args: str
    options: Mapping[str, Any] = {"by_args": True}
    now: str = NOW
    scheduled_at: str | None = None
    queue: str = "default"
    fields: Sequence[Sequence[str]] | None = None
    key: str | None
    mask: int = 245

    def request(self) -> str:
        """Return the parameters of the contract's method `unique_key`, the args to the byte."""
        options = {"by_args": False, "by_period_nanos": 0, "by_queue": False, "exclude_kind": False}
        rest: dict[str, Any] = {
            "kind": self.kind,
            "now": self.now,
            "options": options | self.options,
            "queue": self.queue,
            "scheduled_at": self.scheduled_at,
        }
        if self.fields is not None:
            rest["selected_unique_components"] = self.fields
        return f'{{"args":{self.args},{json.dumps(rest)[1:]}'


_SELECTED: dict[str, Any] = {
    "kind": "conformance_selected_args",
    "fields": (("account", "id"), ("account", "region"), ("label",), ("path/key",)),
}
_DOTTED: dict[str, Any] = {
    "kind": "conformance_dotted_selected_args",
    "fields": (
        ("@user",),
        ("!x",),
        ("{x}",),
        ("[x]",),
        (":id",),
        ("user", "id"),
        ("user.id",),
        ("a*b?c#d|e",),
        ("é",),
    ),
}
_SIMPLE: dict[str, Any] = {"kind": "conformance_simple", "args": '{"id":42}'}
_MINUTE_NS = 60_000_000_000

UNIQUE: Mapping[str, UniqueCase] = {
    "all_selected_fields_omitted": UniqueCase(
        **_SELECTED,
        args="{}",
        key="23aa86692d9807ab10e433e378f1c0804573f5e345818461b919322dd381b4c3",
    ),
    "selected_siblings_and_slash_key": UniqueCase(
        **_SELECTED,
        args='{"account":{"id":"acct","ignored":"irrelevant","region":"west"},"path/key":"slash"}',
        key="7d62e81ac25cfa2dec69ad5a41e0b78188ee1b299bed329b453da6b3abca70bd",
    ),
    "nested_struct_wire_order": UniqueCase(
        args='{"nested":{"z":1,"a":2}}',
        key="46ff499cb031d0458bb00ef87e7b83321eefb6e7534497c279c4ae0f474cdde0",
    ),
    "all_args_sorted_and_escaped": UniqueCase(
        args=(
            r'{"zeta":"quoted \\\"value\\\" and \\\\ slash",'
            r'"alpha":"\u003calpha\u003e\u0026\u2028line","maximum":9007199254740991}'
        ),
        key="7a84c62c8d470ca388a0a1e41c311b9eb1ea21f7b88157ceb876fc82e698b6af",
    ),
    "map_order_and_negative_zero": UniqueCase(
        args='{"2":2,"10":10,"zero":-0,"😀":1,"\ue000":2}',
        key="fcdf33e0c39c1fc7e956876345a985f2418bd69c6e4d6a5c794abf1e78cdfdb6",
    ),
    "all_args_literal_path_syntax": UniqueCase(
        args=(r'{"":0,"a.b":1,"@x":2,":lead":3,"!bang":4,"[open":5,"{brace":6,"a\\b":7}'),
        key="1d254dda1efe1009ffb205ede791d481545d66abb8542e85f0d895415b05cdf9",
    ),
    "all_args_escaped_key_encoding": UniqueCase(
        args=(r'{"a\"b":1,"line\n":2,"é":3,"a\u003cb":4,"a\u0026b":5,"a\u2028b":6}'),
        key="bab84635792449d758b18950f6f014bfb16d26430e798d84afee9fc9cb793163",
    ),
    "all_args_array_rejected": UniqueCase(args="[1]", key=None),
    "all_args_null_rejected": UniqueCase(args="null", key=None),
    "all_args_scalar_rejected": UniqueCase(args='"args"', key=None),
    "numeric_boundaries": UniqueCase(
        kind="conformance_numeric_boundaries",
        args=(
            '{"exponent":1e+100,"fraction":1.25,"maximum":9223372036854775807,'
            '"minimum":-9223372036854775808,"unsigned_maximum":18446744073709551615}'
        ),
        key="2c1533b3ab43068407d14e82ddb34a295a51375ae3a27fef6931123f07677f38",
    ),
    "selected_nested_args": UniqueCase(
        **_SELECTED,
        args=(
            '{"account":{"id":"acct-123","ignored":"not selected"},"ignored":true,'
            '"label":"selected"}'
        ),
        key="6130dc4f753402d1faeb6bbc3e6c21415245bb282ad1fd16bcbfeebde525e726",
    ),
    "selected_literal_dotted_name": UniqueCase(
        **_DOTTED,
        args='{"user.id":"literal","user":{}}',
        key="7d478fa6978b3fbb5c326d90fd10c2eab663cf2c9c2e1e3ddcce032989a05cdb",
    ),
    "selected_nested_dotted_path": UniqueCase(
        **_DOTTED,
        args='{"user":{"id":"nested"}}',
        key="6fd34aa5a46274e4f7d159063be43c2c02e90438b84dab208c8c5209f94dda25",
    ),
    "selected_unicode_field_name": UniqueCase(
        **_DOTTED,
        args='{"user":{},"é":"café"}',
        key="28513f484784e6b0fe8aed6cc1fadb04498f43305b74619aa56e701a2feff578",
    ),
    "selected_punctuation_field_names": UniqueCase(
        **_DOTTED,
        args=(
            '{"@user":"at","!x":"bang","{x}":"brace","[x]":"bracket",":id":"colon",'
            '"a*b?c#d|e":"symbols","user":{}}'
        ),
        key="d00ff085218024d7059a4556b24af92cbe57744935e2d37ff644b149fae4c2f3",
    ),
    "typed_collections_and_nulls": UniqueCase(
        args=(
            '{"empty":[],"labels":{"alpha":"first","k10":"ten","k2":"two","zulu":"last"},'
            '"matrix":[[3,1],[],[2]],"missing":null,'
            '"objects":[{"zulu":"z","alpha":1},{"zulu":"y","alpha":null}],"pointer":null}'
        ),
        key="66d457888b4b71f0a0041251f75d494e1ac543717283d84633a274648559306d",
    ),
    "typed_integer_like_map_keys": UniqueCase(
        args=(
            '{"empty":[],"labels":{"10":"ten","2":"two","alpha":"first","zulu":"last"},'
            '"matrix":[],"missing":null,"objects":[],"pointer":null}'
        ),
        key="38406019aea1ea67f81186d845e983b197b2d919ded5eca871e4fef0c8b0ad30",
    ),
    "typed_empty_args": UniqueCase(
        args="{}",
        key="fe05a58ddb79a8d4544da962582d9a290d59788c920afd3597da3a62e3c1b0ac",
    ),
    "typed_escaping": UniqueCase(
        args=(
            r'{"a\u003cb\u003e":"\u003cangle\u003e",'
            r'"controls":"\b\f\n\r\t\u0000\u0001\u001f' + "\x7f" + r'",'
            r'"html":"\u003ca href=\"x\"\u003e\u0026amp;\u003c/a\u003e",'
            r'"keys":{"\u003ck\u003e":1,"a\u0026b":2,"é":3,"é\u003c":4},'
            r'"separators":"line\u2028paragraph\u2029end","unicode":"é😀/\\",'
            r'"é\u0026":"unicode key"}'
        ),
        key="a4c2a164225cba2e3ae56edbc11258e49a7325d73a9b70e5c9b47a51963d00c5",
    ),
    "selected_explicit_null": UniqueCase(
        **_SELECTED,
        args='{"label":null}',
        key="d137d7c4f1e3f8369037b1890357655b4fa1978a329bcf51435f9f0b54abcab7",
    ),
    "typed_time_values": UniqueCase(
        args=(
            '{"fraction":"2026-01-02T03:04:05.5Z","micros":"2026-01-02T03:04:05.123456Z",'
            '"millis":"2026-01-02T03:04:05.12Z","whole":"2026-01-02T03:04:05Z"}'
        ),
        key="18b38780de3019cc75d49ff24a74eecdcff99fda0bb36c0244a35f262b15322b",
    ),
    "typed_float_formatting": UniqueCase(
        args=(
            '{"below_large":999999999999999900000,"large":100000000000000000000,'
            '"large_boundary":1e+21,"largest":1.7976931348623157e+308,"negative":-1.5e-9,'
            '"negative_zero":-0,"one":1,"single":1.1,"single_large":1e+21,"single_small":1e-7,'
            '"small":1e-7,"small_boundary":0.000001,"smallest":5e-324,"tenth":0.1}'
        ),
        key="dc330477ebe8bf2bc3402476365fcfe22c82253f744481c49a23f760f059cad4",
    ),
    "period_from_now": UniqueCase(
        **_SIMPLE,
        options={"by_period_nanos": 90 * _MINUTE_NS},
        key="5396f06a082abd7a929915135ebd363a9a47d800176b03ce7736f93a5ba9e22e",
    ),
    "period_from_schedule": UniqueCase(
        **_SIMPLE,
        options={"by_period_nanos": 60 * _MINUTE_NS},
        scheduled_at=SCHEDULED_AT,
        key="b7f3c49952996b760b8b3ff6cf48f426e03a6ef0f004fb6faa51725365cf309a",
    ),
    "period_from_non_utc_now": UniqueCase(
        **_SIMPLE,
        options={"by_period_nanos": 60 * _MINUTE_NS},
        now="2026-01-01T22:04:05.6789-05:00",
        key="5396f06a082abd7a929915135ebd363a9a47d800176b03ce7736f93a5ba9e22e",
    ),
    "period_from_non_utc_schedule": UniqueCase(
        **_SIMPLE,
        options={"by_period_nanos": 60 * _MINUTE_NS},
        scheduled_at="2026-01-02T10:51:05.6789+05:30",
        key="b7f3c49952996b760b8b3ff6cf48f426e03a6ef0f004fb6faa51725365cf309a",
    ),
    "queue_without_kind": UniqueCase(
        **_SIMPLE,
        options={"by_queue": True, "exclude_kind": True},
        queue="priority_emails",
        key="d20ce47da8e8015e68b020bbca2b17494139519ae05f8985e5992db4d8dd8a09",
    ),
    "all_dimensions_custom_states": UniqueCase(
        **_SIMPLE,
        options={
            "by_args": True,
            "by_period_nanos": _MINUTE_NS,
            "by_queue": True,
            "by_state": ["available", "completed", "pending", "running", "scheduled"],
        },
        scheduled_at=SCHEDULED_AT,
        queue="priority_emails",
        key="6f20262e7b1fa9beaf98255f23030800376636484a98b20c2c04a303bab5a8d5",
        mask=213,
    ),
}
