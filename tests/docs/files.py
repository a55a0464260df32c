"""Checks the files that the docs show, such as units, manifests and Dockerfiles."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from riverrun.cli.main import main

PROBES = {"/livez", "/readyz", "/metrics"}
INSTRUCTIONS = {"CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "HEALTHCHECK", "RUN", "USER", "WORKDIR"}


def check(path: Path, folder: Path) -> None:
    """Check the file at `path`; fail if its type is unknown."""
    match path.suffix or path.name:
        case ".toml":
            tomllib.loads(path.read_text())
        case ".ini":
            configparser.RawConfigParser().read_string(path.read_text())
        case ".service":
            check_unit(path, folder)
        case ".yaml":
            for each in yaml.safe_load_all(path.read_text()):
                check_yaml(each)
        case ".sql":  # executed by verbs/test_permissions.py
            grant = re.compile(r"GRANT [A-Z, ]+ ON (SEQUENCE )?[a-z_, ]+ TO [a-z_]+;")
            assert all(map(grant.fullmatch, path.read_text().splitlines()[1:])), path
        case "Dockerfile":
            check_dockerfile(path.read_text())
        case _:
            raise AssertionError(f"no check for {path.name}; write one")


def check_command(words: Sequence[str]) -> None:
    """If `words` are a command of riverrun, let the real command parse them."""
    if words and words[0].rpartition("/")[2] == "riverrun":
        _parse(main, "riverrun", list(words[1:]), None)


def check_yaml(document: Any) -> None:
    """Check the commands and probes of a manifest or a compose file."""
    for each in _mappings(document):
        command = _words(each.get("command")) + _words(each.get("args"))
        check_command(command)
        check_command([word for word in _words(each.get("test")) if word != "CMD"])
        for name in ("livenessProbe", "readinessProbe", "startupProbe"):
            probe = each.get(name, {}).get("httpGet")
            if probe is not None:
                assert probe["path"] in PROBES, probe
                assert f"--health-port={probe['port']}" in command, (probe, command)
                assert "--health-host=0.0.0.0" in command, "a probe comes from outside"


def check_dockerfile(text: str) -> None:
    """Check each instruction, and the commands among them."""
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        instruction, _, rest = line.partition(" ")
        assert instruction in INSTRUCTIONS, line
        if instruction == "HEALTHCHECK":
            instruction, rest = "CMD", rest.partition("CMD ")[2]
        if instruction in {"CMD", "ENTRYPOINT"}:
            check_command(json.loads(rest))  # a shell would not pass signals on


def check_unit(path: Path, folder: Path) -> None:
    """Verify the unit with systemd, if there is systemd, and check its commands."""
    unit = read_unit(path)
    check_command(shlex.split(unit["Service"]["ExecStart"]))
    verify = shutil.which("systemd-analyze")
    if verify is None:
        return
    here = folder / "verified" / path.name
    here.parent.mkdir(exist_ok=True)
    text = path.read_text()
    text = re.sub(r"(?m)^(ExecStart=)\S+", rf"\g<1>{sys.executable}", text)
    text = re.sub(r"(?m)^(?:User|WorkingDirectory|EnvironmentFile)=.*\n", "", text)
    here.write_text(text)
    done = subprocess.run([verify, "verify", "--man=no", here], capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if path.name in line]
    assert not ours, ours


def read_unit(path: Path) -> configparser.RawConfigParser:
    """Return a unit's sections."""
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text())
    return unit


def _parse(
    command: click.Command, name: str, words: list[str], parent: click.Context | None
) -> None:
    with command.make_context(name, words, parent) as context:
        if isinstance(command, click.Group):
            left = [*context._protected_args, *context.args]
            found, below, rest = command.resolve_command(context, left)
            assert below is not None, left
            _parse(below, found or "", rest, context)


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from _mappings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _mappings(each)


def _words(value: Any) -> list[str]:
    return shlex.split(value) if isinstance(value, str) else list(value or [])
