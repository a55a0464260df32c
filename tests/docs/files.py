"""What the docs show that is neither Python nor a command: read, and held against the shell."""

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
    """Check the file at `path`; fail for one of a sort that is not known here."""
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
        case ".sql":  # executed by databases/test_permissions.py
            grant = re.compile(r"GRANT [A-Z, ]+ ON (SEQUENCE )?[a-z_, ]+ TO [a-z_]+;")
            assert all(map(grant.fullmatch, path.read_text().splitlines()[1:])), path
        case "Dockerfile":
            check_dockerfile(path.read_text())
        case _:
            raise AssertionError(f"no check for {path.name}; write one")


def check_command(words: Sequence[str]) -> None:
    """Have the real commands parse `words`, if they are for riverrun's shell."""
    if words and words[0].rpartition("/")[2] == "riverrun":
        _parse(main, "riverrun", list(words[1:]), None)


def check_yaml(said: Any) -> None:
    """Check the commands and probes of a manifest or a compose file."""
    for each in _mappings(said):
        command = _words(each.get("command")) + _words(each.get("args"))
        check_command(command)
        check_command([word for word in _words(each.get("test")) if word != "CMD"])
        for name in ("livenessProbe", "readinessProbe", "startupProbe"):
            probe = each.get(name, {}).get("httpGet")
            if probe is not None:
                assert probe["path"] in PROBES, probe
                assert f"--health-port={probe['port']}" in command, (probe, command)
                assert "--health-host=0.0.0.0" in command, "a probe comes from outside"


def check_dockerfile(said: str) -> None:
    """Check each instruction, and the commands among them."""
    for line in said.replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        instruction, _, rest = line.partition(" ")
        assert instruction in INSTRUCTIONS, line
        if instruction == "HEALTHCHECK":
            instruction, rest = "CMD", rest.partition("CMD ")[2]
        if instruction in {"CMD", "ENTRYPOINT"}:
            check_command(json.loads(rest))  # a shell would keep the signals to itself


def check_unit(path: Path, folder: Path) -> None:
    """Have systemd verify the unit, where there is systemd, and the shell its commands."""
    unit = read_unit(path)
    check_command(shlex.split(unit["Service"]["ExecStart"]))
    verify = shutil.which("systemd-analyze")
    if verify is None:
        return
    here = folder / "verified" / path.name
    here.parent.mkdir(exist_ok=True)
    said = path.read_text()
    said = re.sub(r"(?m)^(ExecStart=)\S+", rf"\g<1>{sys.executable}", said)
    said = re.sub(r"(?m)^(?:User|WorkingDirectory|EnvironmentFile)=.*\n", "", said)
    here.write_text(said)
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


def _mappings(said: Any) -> Iterator[dict[str, Any]]:
    if isinstance(said, dict):
        yield said
        for each in said.values():
            yield from _mappings(each)
    elif isinstance(said, list):
        for each in said:
            yield from _mappings(each)


def _words(said: Any) -> list[str]:
    return shlex.split(said) if isinstance(said, str) else list(said or [])
