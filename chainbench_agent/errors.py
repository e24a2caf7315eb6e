"""The agent's exceptions, as a tree; each message says what to do.

AgentError
├── SetupError           this host cannot run eBPF collection; the mock backend takes over
│   ├── LoaderError      the BPF unit did not compile or load
│   ├── LayoutError      the header tree disagrees with the kernel's BTF, so it is not used
│   └── BtfError         the kernel's BTF cannot be read (headers/btf.py)
├── StoreError           runs cannot be stored or read: why, and what would help
│   └── CorruptError     the store's file is damaged (store/database.py)
├── RunError             a request does not fit the state of the runs
│   ├── RunActive        /start while another run is active
│   ├── NoRun            /stop or /report without a run
│   └── UnknownRun       no run with this id is stored
├── NoEvents, NoPlace    /events is off, or has no place for one more listener (runs/event_listeners.py)
└── InputError           a request or setting is wrong; names the field
"""

from __future__ import annotations


class AgentError(Exception):
    """The root of the tree; `str()` is a sentence for people."""


class SetupError(AgentError):
    """eBPF collection cannot start here: what is missing, and how to get it."""


class LoaderError(SetupError):
    """The BPF unit did not compile, or none of its programs loads."""


class LayoutError(SetupError):
    """A member lies elsewhere in the generated code than in the kernel's BTF."""


class StoreError(AgentError):
    """The store cannot be used.  The active run continues, and its answer says that it was not stored."""


class RunError(AgentError):
    """The request is valid, but does not fit the state of the runs."""


class RunActive(RunError):  # noqa: N818 - reads as a state, as the HTTP answer does
    """Another run is active; stop it first."""


class NoRun(RunError):  # noqa: N818 - see RunActive
    """There is no run to stop or to report on."""


class UnknownRun(RunError):  # noqa: N818 - see RunActive
    """No run with this id is stored: there never was one, or it was deleted."""


class InputError(AgentError):
    """A request or setting is wrong: `field` says where, `sentence` what is wrong, `remedy` what to do."""

    def __init__(self, field: str, sentence: str, remedy: str = "") -> None:
        super().__init__(f"{field}: {sentence}" + (f"; {remedy}" if remedy else ""))
        self.field = field
        self.sentence = sentence
        self.remedy = remedy
