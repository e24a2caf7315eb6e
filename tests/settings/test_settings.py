"""Settings have one name in all three places, and an error says what to set instead."""

import re

import pytest

from chainbench_agent.errors import InputError
from chainbench_agent.settings import Settings, default_header_cache, default_state_dir, load_settings

KNOWN = ("cpu", "exec", "exec:order", "runqlat")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """Only the settings of the test are set; this machine's configuration file is not read."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"CHAINBENCH_{name.upper()}", raising=False)
    monkeypatch.delenv("CHAINBENCH_CONFIG", raising=False)
    monkeypatch.setattr("chainbench_agent.settings.DEFAULT_CONFIG", tmp_path / "default.toml")


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "agent.toml"
        path.write_text(text)
        return str(path)

    return write


def test_defaults():
    """By default the agent listens on loopback and loads all modules."""
    settings = load_settings()

    assert (settings.host, settings.port, settings.probes, settings.backend) == ("127.0.0.1", 9090, ("all",), "auto")
    assert settings.machine


def test_precedence(monkeypatch, config):
    """The command line wins over the environment, the environment over the file, the file over the default."""
    file = config('host = "file"\nport = 1\nmachine = "file"\n')
    monkeypatch.setenv("CHAINBENCH_HOST", "environment")
    monkeypatch.setenv("CHAINBENCH_PORT", "2")

    settings = load_settings(file, port="3", backend=None)

    assert (settings.port, settings.host, settings.machine, settings.backend) == (3, "environment", "file", "auto")


def test_the_file_is_named_by_the_environment(monkeypatch, config):
    monkeypatch.setenv("CHAINBENCH_CONFIG", config("port = 1"))

    assert load_settings().port == 1


def test_the_default_file_is_read_if_it_exists(tmp_path):
    (tmp_path / "default.toml").write_text("port = 1")

    assert load_settings().port == 1


def test_an_empty_variable_is_not_set(monkeypatch):
    monkeypatch.setenv("CHAINBENCH_PORT", "")

    assert load_settings().port == 9090


def test_probes_from_the_file_may_be_a_list(config):
    assert load_settings(config('probes = ["cpu", "exec"]')).probes == ("cpu", "exec")


@pytest.mark.parametrize(
    ("probes", "chosen"),
    [
        ("all", ("cpu", "exec", "runqlat")),
        ("runqlat, cpu", ("cpu", "runqlat")),
        ("exec,exec,", ("exec",)),
        ("exec:order", ("exec", "exec:order")),
        ("all,exec:order", KNOWN),
    ],
)
def test_choose(probes, chosen):
    """Spaces and repetitions do not matter; the order is the catalogue's.  An option must be named."""
    assert load_settings(probes=probes).choose(KNOWN) == chosen


def test_syscall_errors(config):
    """The setting adds its option, and the option's module, to what is loaded and to runs that name no probes."""
    known = (*KNOWN, "syscalls", "syscalls:errors")
    off, on = load_settings(), load_settings(config("syscall_errors = true"), probes="exec")

    assert off.choose(known) == ("cpu", "exec", "runqlat", "syscalls")
    assert on.choose(known) == ("exec", "syscalls", "syscalls:errors")
    assert (off.run_probes, on.run_probes) == (("all",), ("all", "syscalls:errors"))


@pytest.mark.parametrize(("probes", "unknown"), [("cpu,memry,x", "module memry, x"), ("cpu:order", "option cpu:order")])
def test_an_unknown_module_is_answered_with_the_known_ones(probes, unknown):
    with pytest.raises(InputError) as caught:
        load_settings(probes=probes).choose(KNOWN)

    assert caught.value.field == "probes"
    assert re.search(f"{unknown};.* cpu, exec, exec:order, runqlat, or all$", caught.value.sentence)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("port", "http", "valid integer"),
        ("syscall_errors", "maybe", "valid boolean"),
        ("port", "65536", "less than or equal to 65535"),
        ("port", "-1", "greater than or equal to 0"),
        ("host", "", "at least 1 character"),
        ("probes", ",", "names no module"),
        ("sample_interval", "10001", "less than or equal to 10000"),
        ("sample_interval", "1.5", "valid integer"),
        ("sample_interval", "0", "greater than or equal to 1"),
        ("backend", "bcc", "'auto', 'ebpf' or 'mock'"),
        ("machine", "m" * 201, "at most 200 characters"),
        ("max_kept_label_sets", "0", "greater than or equal to 1"),
        ("store", "", "at least 1 character"),
        ("keep_runs", "0", "greater than or equal to 1"),
        ("keep_days", "-1", "greater than or equal to 0"),
        ("keep_days", "inf", "finite number"),
        ("checkpoint_s", "0", "greater than or equal to 0.1"),
        ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_wrong_value(name, value, says):
    """The error names the setting, the value, what is wrong with it, and where it can be set."""
    with pytest.raises(InputError) as caught:
        load_settings(**{name: value})

    assert caught.value.field == name
    for part in (f"{name}: {value!r}", says, f"--{name.replace('_', '-')}", f"CHAINBENCH_{name.upper()}"):
        assert part in str(caught.value)


def test_all_wrong_values_are_named_at_once():
    with pytest.raises(InputError, match=r"(?s)^port: .*\nbackend: "):
        load_settings(port="x", backend="x")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 1", r"^prot: no such setting \(.*agent.toml\), perhaps port is meant; the settings are host, port,"),
        ("colour = 1", r"^colour: no such setting \(.*agent.toml\); the settings are host, port,"),
        ("port = ", "config: .*agent.toml is not valid TOML: "),
        ('port = "\N{SNOWMAN}"', "port: .*valid integer"),
    ],
)
def test_a_wrong_file(config, text, says):
    with pytest.raises(InputError, match=says):
        load_settings(config(text))


@pytest.mark.parametrize(
    "name", [name for name, one in Settings.model_fields.items() if one.annotation in (int, float)]
)
@pytest.mark.parametrize("value", ["true", "false"])
def test_a_flag_is_no_number(config, name, value):
    """Only the file can contain a flag here; read as 1, it would be a port, or the number of runs to store."""
    with pytest.raises(InputError, match=rf"^{name}: {value.title()}: input should be a number"):
        load_settings(config(f"{name} = {value}"))


@pytest.mark.parametrize("value", ["3", "true", "{ cpu = true }", "2026-01-02"])
def test_names_that_are_no_list(config, value):
    """The error says "list", because TOML has no tuples; and "all" where that is possible."""
    with pytest.raises(InputError, match=r"^probes: .*: input should be a list of names, or all\. "):
        load_settings(config(f"probes = {value}"))
    with pytest.raises(InputError, match=r"^allowed_hosts: .*: input should be a list of names\. "):
        load_settings(config(f"allowed_hosts = {value}"))


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")

    with pytest.raises(InputError, match="is not valid TOML"):
        load_settings(str(tmp_path / "binary"))


def test_a_file_that_was_named_must_exist():
    with pytest.raises(InputError, match="config: cannot read /nowhere: No such file"):
        load_settings("/nowhere")


def test_sampling():
    """Every event is recorded unless the user asks for less."""
    assert load_settings().sample_interval == 1
    assert load_settings(sample_interval="10000").sample_interval == 10_000


def test_every_setting_has_a_sentence():
    for name, setting in Settings.model_fields.items():
        assert setting.description, name
        assert setting.description.endswith("."), name


def test_the_header_cache_follows_the_user(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert str(default_header_cache()) == "/xdg/chainbench-agent"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert str(default_header_cache()) == "/home/me/.cache/chainbench-agent"


def test_runs_are_stored_by_default():
    """By default SQLite has the newest 10,000 runs of any age, and the active one is written every five seconds."""
    settings = load_settings()

    assert (settings.store, settings.keep_runs, settings.keep_days, settings.checkpoint_s) == ("sqlite", 10_000, 0, 5)
    assert settings.state_dir == default_state_dir()


def test_the_state_directory_follows_systemd_and_the_user(monkeypatch):
    """Systemd may have made several directories; the first is ours.  Root is treated like any other user."""
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/private/agent:/var/lib/other")
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert str(default_state_dir()) == "/var/lib/private/agent"
    monkeypatch.delenv("STATE_DIRECTORY")
    assert str(default_state_dir()) == "/xdg/chainbench-agent"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/me")
    assert str(default_state_dir()) == "/home/me/.local/state/chainbench-agent"


def test_runs_of_the_former_version_stay_in_use(monkeypatch, tmp_path):
    """Its directory has another name, and is used while it has files and the new one has none."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    former, present = tmp_path / "chainbench_agent", tmp_path / "chainbench-agent"
    former.mkdir()
    assert default_state_dir() == present
    (former / "runs.sqlite3").touch()
    assert default_state_dir() == former
    present.mkdir()
    (present / "runs.sqlite3").touch()
    assert default_state_dir() == present
