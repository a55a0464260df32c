"""A small shop in FastAPI: an AsyncSession a request, and a worker in the web process.

Driven by the environment: DATABASE_URL; DRIVER, psycopg or asyncpg; SOFT_STOP, in seconds.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import attrs
from fastapi import Depends, FastAPI, Form
from sqlalchemy import create_engine, make_url, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from riverrun import Client, JobArgs, JobContext, QueueConfig, Workers

workers = Workers()


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "shop_user"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    greeted_by: Mapped[int | None]


@attrs.frozen
class Greet(JobArgs, kind="greet"):
    user_id: int


@workers.register
async def greet(args: Greet, ctx: JobContext) -> None:
    async with ctx.async_transaction(async_engine_of_workers()) as session:
        user = await session.get_one(User, args.user_id)
        if user.name == "slow":
            user.greeted_by = 0
            await session.flush()
            await asyncio.Event().wait()
        if user.name == "twice" and ctx.job.attempt == 1:
            user.name = "never committed"
            await session.flush()
            raise OSError("once more")
        user.greeted_by = os.getpid()


def async_engine():
    url = make_url(os.environ["DATABASE_URL"])
    if os.environ.get("DRIVER") == "asyncpg":
        # The server takes a backslash before a space out of `options`, and of no other setting.
        schema = url.query["options"].removeprefix("-csearch_path=").replace("\\ ", " ")
        server = {"server_settings": {"search_path": schema}}
        url = url.difference_update_query(["options"]).set(drivername="postgresql+asyncpg")
        return create_async_engine(url, connect_args=server)
    return create_async_engine(url)


# An AsyncEngine's connections belong to the loop that opened them; workers have a loop of theirs.
web_engine = async_engine()
workers_engine = async_engine()
sessions = async_sessionmaker(web_engine, expire_on_commit=False)
client = Client(
    create_engine(os.environ["DATABASE_URL"]),
    workers=workers,
    queues={"default": QueueConfig(max_workers=100)},
    soft_stop_timeout=float(os.environ.get("SOFT_STOP", "10")),
)


def async_engine_of_workers():
    return workers_engine


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with client:
        yield
    await web_engine.dispose()


async def get_session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session, session.begin():
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]
app = FastAPI(lifespan=lifespan)


@app.post("/signup")
async def signup(
    session: Session, name: Annotated[str, Form()], how: Annotated[str, Form()] = "helper"
):
    user = User(name=name)
    session.add(user)
    await session.flush()
    if how == "idiom":
        result = await session.run_sync(client.insert, Greet(user.id))
    else:
        result = await client.insert_async(session, Greet(user.id))
    if how == "raise":
        raise ValueError("after the insert")
    return {"user_id": user.id, "job_id": result.job.id}


@app.get("/users")
async def users(session: Session):
    rows = await session.execute(select(User.name, User.greeted_by))
    return [list(row) for row in rows]
