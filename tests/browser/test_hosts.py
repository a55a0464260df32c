"""The dashboard in a browser, within Flask, Pyramid and FastAPI."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine

from browser.conftest import BASE, Visiting
from browser.driver import expect
from dashboard_hosts import ADA, asgi_app, flask_app, mounted, pyramid_app
from factories import insert_job
from riverrun import Client, verbs
from serving import asgi, wsgi

HOSTS: dict[str, Callable[[Client], AbstractContextManager[str]]] = {
    "flask": lambda client: wsgi(mounted(client, flask_app())),
    "pyramid": lambda client: wsgi(pyramid_app(client)),
    "fastapi": lambda client: asgi(asgi_app(client, FastAPI)),
}


@pytest.mark.parametrize("host", HOSTS)
def test_a_host(visiting: Visiting, engine: Engine, schema: str, host: str) -> None:
    """In each host a signed-in user comes from the list to a job, and cancels it."""
    job_id = insert_job(engine, schema, kind="greet_everyone")
    client = Client(engine, schema=schema)
    with (
        HOSTS[host](client) as root,
        visiting(f"{root}{BASE}", extra_http_headers=ADA) as visit,
    ):
        page = visit.open("/jobs")
        page.get_by_role("link", name=str(job_id), exact=True).click()
        page.get_by_role("link", name="Cancel", exact=True).click()
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_text("1 job was cancelled.")).to_be_visible()
        expect(page.get_by_text("Signed in as ada")).to_be_visible()
    assert verbs.get(engine, job_id, schema=schema).state == "cancelled"
