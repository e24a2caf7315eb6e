"""The settings: the name, default and description of each, declared once.

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
"""Names of the directories for cache and state; the second is the one that 0.1.0 used."""
DEFAULT_CONFIG = Path("/etc/chainbench_agent.toml")


def default_header_cache() -> Path:
    """The usual cache directory of this user."""
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / NAME
    return Path.home() / ".cache" / NAME


def default_state_dir() -> Path:
    """The directory that systemd made for this service, or else the usual one of this user.

    Root is treated like any other user, because /var/lib/chainbench-agent belongs to the service.  A directory in
    which 0.1.0 stored runs stays in use.
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
    """All settings of an agent, validated; made by `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, validate_default=False
    )

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on, or unix:/path for a Unix socket.")
    port: int = Field(9090, ge=0, le=65535, description="TCP port to listen on; 0 chooses a free one.")
    token_file: Path | None = Field(None, description="File with the token that every request must send.")
    read_token_file: Path | None = Field(
        None, description="File with a second token, which is valid for GET requests only, such as /metrics."
    )
    tls_cert: Path | None = Field(None, description="Certificate in PEM format; with it, the agent serves only HTTPS.")
    tls_key: Path | None = Field(None, description="Private key of the certificate in PEM format.")
    insecure: bool = Field(False, description="Allow an address that other machines can reach without a token.")  # noqa: FBT003
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Host names that requests without a token may use, besides localhost and this machine's name.",
    )
    socket_group: str = Field("", description="Group that may also connect to the Unix socket.")
    probes: Annotated[tuple[str, ...], NoDecode] = Field(
        (ALL,), description="Modules and module:options to load: all, or a comma-separated list."
    )
    sample_interval: int = Field(
        1,
        ge=1,
        le=MAX_SAMPLE_INTERVAL,
        description="Record one in this many of the most frequent events; 1 records each of them.",
    )
    syscall_errors: bool = Field(
        default=False,
        description=f"Load {SYSCALL_ERRORS} (failed calls by error) and select it in runs that name no probes.",
    )
    events: bool = Field(False, description="Emit rare, notable events on GET /events as they happen.")  # noqa: FBT003
    slow_io_ms: int = Field(
        100, ge=0, le=3_600_000, description="Duration in milliseconds from which a block request or fsync is an event."
    )
    backend: Literal["auto", "ebpf", "mock"] = Field(
        "auto",
        description=(
            "ebpf measures or refuses to start; mock makes data up; auto measures if possible, else makes data up."
        ),
    )
    machine: str = Field(
        default_factory=socket.gethostname, min_length=1, max_length=200, description="Value of the label `machine`."
    )
    max_kept_label_sets: int = Field(
        100, ge=1, le=10_000, description="Number of label sets that /metrics remembers; the oldest are dropped first."
    )
    store: str = Field(
        "sqlite",
        min_length=1,
        repr=False,  # it may hold a password
        description="Where runs are stored: sqlite (in the state directory), sqlite:///FILE, postgresql://…, or none.",
    )
    state_dir: Path = Field(
        default_factory=default_state_dir, description="Directory of the SQLite store; created if it is missing."
    )
    keep_runs: int = Field(10_000, ge=1, description="Number of runs to store; the oldest are deleted first.")
    keep_days: float = Field(0, ge=0, allow_inf_nan=False, description="Number of days to store runs; 0 sets no limit.")
    checkpoint_s: float = Field(
        5, ge=0.1, le=3600, description="Seconds between two checkpoints of the active run in the store."
    )
    header_cache: Path = Field(
        default_factory=default_header_cache,
        description="Directory in which kernel headers and compiled objects are cached.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged to stderr: debug, info, warning or error."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag(cls, value: object, info: ValidationInfo) -> object:
        """Rejects a flag where a number is expected: TOML has both, and in Python true is the number 1."""
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
        """Resolves `probes` to names in `known` (catalog/selection.py); raises InputError for an unknown one."""
        if strangers := unknown(self.probes, known):
            kind = "option" if all(":" in name for name in strangers) else "module"
            raise InputError(
                "probes", f"there is no {kind} {', '.join(strangers)}; choose from {', '.join(known)}, or {ALL}"
            )
        return choose((*self.probes, *self._options), known)

    @property
    def run_probes(self) -> tuple[str, ...]:
        """The selection of a run that names no probes."""
        return (ALL, *self._options)

    @property
    def _options(self) -> tuple[str, ...]:
        return (SYSCALL_ERRORS,) if self.syscall_errors else ()


def load_settings(config: str | None = None, **given: object) -> Settings:
    """Loads the settings from the command line (`given`, in which None means absent), the environment and the file.

    `config` names the file; without it CHAINBENCH_CONFIG does, or /etc/chainbench_agent.toml is read if it exists.
    Raises InputError, whose text names every wrong setting and says what it should be.
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
    """The name of, and a sentence about, each variable that is not a setting; an empty one counts as not set."""
    found = strangers((name for name, value in os.environ.items() if value), Settings.model_fields)
    return [(name, no_such_setting(name, "in the environment", Settings.model_fields, ENV_PREFIX)) for name in found]


def _sentence(details: ErrorDetails, path: Path | None) -> str:
    name = str(details["loc"][0])
    if details["type"] == "extra_forbidden":
        return no_such_setting(name, path, Settings.model_fields)
    places = f"--{name.replace('_', '-')}, {ENV_PREFIX}{name.upper()}, or `{name}` in the configuration file"
    message = details["msg"][0].lower() + details["msg"][1:]
    return f"{details['input']!r}: {message}. {Settings.model_fields[name].description} (Set by {places}.)"
