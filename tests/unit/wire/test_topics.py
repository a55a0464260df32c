"""Notifications, to the byte as River sends them."""

import pytest

from riverrun.wire import topics

# Source: River 0.47, conformance/fixtures/protocol_values.json, for what they say; River 0.51 on
# PostgreSQL 15, received there, for their spaces: those of json_build_object, where River uses it.
PAYLOADS = {
    "cancel": (
        topics.cancel_payload(42, "priority"),
        '{"action" : "cancel", "job_id" : 42, "queue" : "priority"}',
    ),
    "insert": (topics.insert_payload("<pri|ority>"), '{"queue": "<pri|ority>"}'),
    "metadata_changed": (
        topics.metadata_payload("priority", {"zeta": "<é>", "owner": {"b": 1, "a": [None, 0.5]}}),
        (
            '{"action":"metadata_changed","metadata":{"owner":{"a":[null,0.5],"b":1},'
            '"zeta":"\\u003cé\\u003e"},"queue":"priority"}'
        ),
    ),
    "pause": (topics.pause_payload("priority"), '{"action":"pause","queue":"priority"}'),
    "request_resign": (
        topics.request_resign_payload(),
        '{"action":"request_resign","leader_id":""}',
    ),
    "resigned": (
        topics.resigned_payload("client-1"),
        '{"leader_id" : "client-1", "action" : "resigned"}',
    ),
    "resume": (topics.resume_payload("priority"), '{"action":"resume","queue":"priority"}'),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_payloads_are_rivers(name: str) -> None:
    """Each payload has River's keys in River's order, with River's spaces and escapes."""
    payload, expected = PAYLOADS[name]
    assert payload == expected


def test_metadata_too_long_to_be_sent_is_left_out() -> None:
    """A payload that PostgreSQL would refuse says only that the metadata changed."""
    fits = topics.metadata_payload("q", {"é": "é" * 3_960})
    assert len(fits.encode()) <= topics.PAYLOAD_MAX
    assert topics.metadata_payload("q", {"é": "é" * 4_000}) == (
        '{"action":"metadata_changed","queue":"q"}'
    )


def test_topics_are_rivers() -> None:
    """The three topics have River's names."""
    assert {topic.name: topic.value for topic in topics.Topic} == {
        "insert": "river_insert",
        "control": "river_control",
        "leadership": "river_leadership",
    }
