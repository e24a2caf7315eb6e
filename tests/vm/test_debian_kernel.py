"""Which package is taken, and from where."""

import pytest
from debian_kernel import SERIES, Unavailable, newest, sources

PACKAGES = [
    "linux-image-6.1.0-9-amd64",
    "linux-image-6.1.0-50-amd64",
    "linux-image-6.1.0-51-amd64-unsigned",
    "linux-image-6.1.0-52-cloud-amd64",
    "linux-image-6.1.0-53-rt-amd64",
    "linux-image-6.1.0-54-amd64-dbg",
    "linux-image-6.12.9+deb12-amd64",
    "linux-image-amd64",
]


def test_newest_is_by_number():
    """Version 50 is newer than 9, and variants of the kernel are other kernels."""
    assert newest(PACKAGES, SERIES["6.1"].image) == "linux-image-6.1.0-50-amd64"


def test_no_match_is_said():
    with pytest.raises(Unavailable, match=r"no package"):
        newest(["linux-image-amd64"], SERIES["6.1"].image)


@pytest.fixture
def keyring(tmp_path, monkeypatch):
    monkeypatch.setattr("debian_kernel.KEYRING", tmp_path)
    return tmp_path


def test_sources_are_the_machines_mirrors(keyring):
    """Another suite comes from where this machine's own does; what others publish is left out."""
    targets = [
        "http://mirror.example/debian/ bookworm main",
        "http://mirror.example/debian/ bookworm contrib",
        "http://mirror.example/debian/ bookworm-updates main",
        "http://mirror.example/debian-security/ bookworm-security main",
        "http://vendor.example/linux/ bookworm main",
    ]

    assert sources(targets, "bookworm", "bullseye").splitlines() == [
        f"deb [arch=amd64 signed-by={keyring}] http://mirror.example/debian-security/ bullseye-security main",
        f"deb [arch=amd64 signed-by={keyring}] http://mirror.example/debian/ bullseye main",
    ]


@pytest.mark.usefixtures("keyring")
def test_other_distributions_are_refused():
    with pytest.raises(Unavailable, match=r"Debian mirror"):
        sources(["http://mirror.example/ubuntu/ noble main"], "noble", "bookworm")
