"""Every setting, once: its name, its default and a sentence.

The options of `serve`, the variables of the environment and the keys of the configuration file derive from these
names.  The command line wins over the environment (`CHAINBENCH_PORT`), that over the file (`port = 9090`).
"""

from __future__ import annotations

import os
import socket
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from chainbench_agent.catalog.selection import ALL, MAX_SAMPLE_INTERVAL, choose, unknown
from chainbench_agent.errors import InputError
from chainbench_agent.settings.environment_variables import CONFIG, ENV_PREFIX, no_such_setting, strangers

SYSCALL_ERRORS = "syscalls:errors"
NAME, FORMER_NAME = "chainbench-agent", "chainbench_agent"
"""Of the directories for cache and state; the second is that of 0.1.0."""
DEFAULT_CONFIG = Path("/etc/chainbench_agent.toml")


def default_header_cache() -> Path:
    """The cache directory that is customary for this user."""
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / NAME
    return Path.home() / ".cache" / NAME


def default_state_dir() -> Path:
    """The directory that systemd made for this service, or else the one that is customary for this user.

    Root is a user like others: /var/lib/chainbench-agent is the service's.  Where 0.1.0 stored runs is used on.
    """
    if systemd := os.environ.get("STATE_DIRECTORY"):
        return Path(systemd.partition(":")[0])
    states = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    former = Path("/var/lib") if os.geteuid() == 0 and not os.environ.get("XDG_STATE_HOME") else states
    return former / FORMER_NAME if _has_runs(former / FORMER_NAME) and not _has_runs(states / NAME) else states / NAME


def _has_runs(directory: Path) -> bool:
    try:
        return any(directory.iterdir())
    except OSError:
        return False


class Settings(BaseSettings):
    """What the agent was told.  Made by `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, validate_default=False
    )

    host: str = Field("127.0.0.1", min_length=1, description="The address to listen on, or unix:/path for a socket.")
    port: int = Field(9090, ge=0, le=65535, description="The TCP port to listen on; 0 takes a free one.")
    token_file: Path | None = Field(None, description="The file with the token that every call has to carry.")
    read_token_file: Path | None = Field(
        None, description="The file with another token, good for /metrics and every other GET."
    )
    tls_cert: Path | None = Field(None, description="The certificate in PEM; with it, the agent serves HTTPS alone.")
    tls_key: Path | None = Field(None, description="The certificate's key in PEM.")
    insecure: bool = Field(False, description="Listen where other machines can call, without a token.")  # noqa: FBT003
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Names, beside localhost and this machine's, that the agent may be called by without a token."
    )
    socket_group: str = Field("", description="The group that may use the unix socket as well.")
    probes: Annotated[tuple[str, ...], NoDecode] = Field(
        (ALL,), description="The modules and module:options to load: all, or names with commas between them."
    )
    sample_interval: int = Field(
        1, ge=1, le=MAX_SAMPLE_INTERVAL, description="Of the hottest events, count one in so many; 1 counts each."
    )
    syscall_errors: bool = Field(
        default=False,
        description=f"Load {SYSCALL_ERRORS}, and let runs that name no probes have it: failed calls by error.",
    )
    events: bool = Field(False, description="Tell rare, notable events as they happen, by GET /events.")  # noqa: FBT003
    slow_io_ms: int = Field(
        100, ge=0, le=3_600_000, description="From how many milliseconds on a block request or an fsync is an event."
    )
    backend: Literal["auto", "ebpf", "mock"] = Field(
        "auto",
        description="ebpf measures or refuses to start; mock makes numbers up; auto measures if it can, else makes up.",
    )
    machine: str = Field(
        default_factory=socket.gethostname, min_length=1, max_length=200, description="The label `machine`."
    )
    max_kept_label_sets: int = Field(
        100, ge=1, le=10_000, description="How many label sets /metrics remembers; the oldest go first."
    )
    store: str = Field(
        "sqlite",
        min_length=1,
        repr=False,  # it may hold a password
        description="Where runs are kept: sqlite (in the state directory), sqlite:///FILE, postgresql://…, or none.",
    )
    state_dir: Path = Field(
        default_factory=default_state_dir, description="The directory of the SQLite store; made if it is missing."
    )
    keep_runs: int = Field(10_000, ge=1, description="How many runs are kept; the oldest go first.")
    keep_days: float = Field(
        0, ge=0, allow_inf_nan=False, description="How many days runs are kept; 0 asks for no age."
    )
    checkpoint_s: float = Field(
        5, ge=0.1, le=3600, description="How often, in seconds, the run that is on is written to the store."
    )
    header_cache: Path = Field(
        default_factory=default_header_cache,
        description="Where header trees, and what was compiled with them, are kept.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is logged to stderr: debug, info, warning or error."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag(cls, value: object, info: ValidationInfo) -> object:
        """TOML has both, and to Python true is the number 1."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation in (int, float):
            raise PydanticCustomError("no_flag", "input should be a number, and is a flag's value")
        return value

    @field_validator("probes", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, str):
            return tuple(name for part in value.split(",") if (name := part.strip()))
        if not isinstance(value, list | tuple):
            or_all = f", or {ALL}" if info.field_name == "probes" else ""
            raise PydanticCustomError("no_names", "input should be a list of names{or_all}", {"or_all": or_all})
        return value

    @field_validator("probes")
    @classmethod
    def _not_empty(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise PydanticCustomError("no_probes", "names no module")
        return tuple(dict.fromkeys(names))

    def choose(self, known: Sequence[str]) -> tuple[str, ...]:
        """The names that `probes` stands for among the `known` ones (selection.py); InputError for any other."""
        if strangers := unknown(self.probes, known):
            kind = "option" if all(":" in name for name in strangers) else "module"
            raise InputError(
                "probes", f"there is no {kind} {', '.join(strangers)}; there is {', '.join(known)}, or {ALL}"
            )
        return choose((*self.probes, *self._options), known)

    @property
    def run_probes(self) -> tuple[str, ...]:
        """What a run collects that names no probes."""
        return (ALL, *self._options)

    @property
    def _options(self) -> tuple[str, ...]:
        return (SYSCALL_ERRORS,) if self.syscall_errors else ()


def load_settings(config: str | None = None, **given: object) -> Settings:
    """The settings from the command line (`given`; None is not given), the environment and the file.

    `config` names the file; without it CHAINBENCH_CONFIG does, or /etc/chainbench_agent.toml if that exists.
    Raises InputError, whose text names every setting that is wrong and says what it should be.
    """
    path = _config_path(config)
    in_file = _read(path) if path else {}

    class WithFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del dotenv_settings, file_secret_settings
            return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=in_file)

    wrong = _wrong_variables()
    try:
        settings = WithFile.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = [(str(details["loc"][0]), _sentence(details, path)) for details in error.errors()] + wrong
    if wrong:
        (field, first), *others = wrong
        raise InputError(field, "\n".join([first, *(f"{name}: {text}" for name, text in others)]))
    return settings


def _config_path(config: str | None) -> Path | None:
    named = config or os.environ.get(CONFIG)
    if named:
        return Path(named)
    return DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InputError("config", f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise InputError("config", f"{path} is not valid TOML: {error}") from None


def _wrong_variables() -> list[tuple[str, str]]:
    """Name and sentence of each that is no setting; one that is empty counts as not set, as a setting's does."""
    found = strangers((name for name, value in os.environ.items() if value), Settings.model_fields)
    return [(name, no_such_setting(name, "in the environment", Settings.model_fields, ENV_PREFIX)) for name in found]


def _sentence(details: ErrorDetails, path: Path | None) -> str:
    name = str(details["loc"][0])
    if details["type"] == "extra_forbidden":
        return no_such_setting(name, path, Settings.model_fields)
    places = f"--{name.replace('_', '-')}, {ENV_PREFIX}{name.upper()}, or `{name}` in the configuration file"
    message = details["msg"][0].lower() + details["msg"][1:]
    return f"{details['input']!r}: {message}. {Settings.model_fields[name].description} (Set by {places}.)"
