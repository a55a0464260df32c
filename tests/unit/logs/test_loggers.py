"""Loggers whose filters, handlers or record factories raise."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from riverrun.logs.loggers import logger_of


def fail(*_: object, **__: object) -> Any:
    """Raise, as code of the application may."""
    raise RuntimeError("there is no request")


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of riverrun's, which is left without filters and handlers."""
    logger = logger_of("riverrun.test_loggers")
    yield logger
    logger.filters.clear()
    logger.handlers.clear()


def test_filters_and_handlers_that_raise(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a filter or a handler raises is reported, and does not reach the caller."""
    handler = logging.Handler()
    handler.emit = fail  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.warning("the %s", "handler")
    logger.addFilter(fail)
    logger.warning("the %s", "filter")
    assert capsys.readouterr().err.count("RuntimeError: there is no request") == 2


def test_a_record_factory_that_raises(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """A record is made without the application's factory if that raises or takes a name of ours."""

    def taken(*args: Any, **rest: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **rest)
        record.queue = "the application's"
        return record

    factory = logging.getLogRecordFactory()
    try:
        for broken in (fail, taken):
            logging.setLogRecordFactory(broken)
            logger.warning("job %s", 7, extra={"queue": "default"})
    finally:
        logging.setLogRecordFactory(factory)
    assert [record.getMessage() for record in caplog.records] == ["job 7", "job 7"]
    assert {vars(record)["queue"] for record in caplog.records} == {"default"}
    assert {record.funcName for record in caplog.records} == {
        test_a_record_factory_that_raises.__name__
    }
