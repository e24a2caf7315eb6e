"""Every way the agent can fail, as a tree; each message says what to do.

AgentError
├── SetupError           this host cannot run eBPF collection; the mock backend takes over
│   ├── LoaderError      the unit did not compile or load
│   ├── LayoutError      the header tree disagrees with the kernel's BTF, so it is not used
│   └── BtfError         the kernel's BTF cannot be read (headers/btf.py)
├── StoreError           runs cannot be stored, or read: why, and what would help
│   └── CorruptError     the store's file is damaged (store/database.py)
├── RunError             a request does not fit the state of the runs
│   ├── RunActive        /start while a run is on
│   ├── NoRun            /stop or /report without one
│   └── UnknownRun       no such run is stored
├── NoEvents, NoPlace    /events is not offered, or has no place for one more listener (events.py)
└── InputError           a request that cannot be understood; names the field
"""

from __future__ import annotations


class AgentError(Exception):
    """The root; `str()` is a sentence for people."""


class SetupError(AgentError):
    """eBPF collection cannot start here: what is missing, and how to get it."""


class LoaderError(SetupError):
    """The C unit did not compile, or nothing of it loads."""


class LayoutError(SetupError):
    """A member lies elsewhere in the generated code than in the kernel's BTF."""


class StoreError(AgentError):
    """The store cannot be used.  No run ends of this: it goes on, and says that it is not kept."""


class RunError(AgentError):
    """The request is understood, but does not fit what is going on."""


class RunActive(RunError):  # noqa: N818 - reads as a state, as the HTTP answer does
    """A run is on; stop it first."""


class NoRun(RunError):  # noqa: N818 - see RunActive
    """There is no run to stop or to report on."""


class UnknownRun(RunError):  # noqa: N818 - see RunActive
    """No run of that id is kept: there never was one, or it has been deleted."""


class InputError(AgentError):
    """A request that cannot be understood.  `field` is where, `sentence` what, `remedy` what to do."""

    def __init__(self, field: str, sentence: str, remedy: str = "") -> None:
        super().__init__(f"{field}: {sentence}" + (f"; {remedy}" if remedy else ""))
        self.field = field
        self.sentence = sentence
        self.remedy = remedy
