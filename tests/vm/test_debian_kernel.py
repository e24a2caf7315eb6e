"""Which packages of a kernel are downloaded, and from where."""

import pytest
from debian_kernel import SERIES, Unavailable, arrange, newest, packages_of, release, sources

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


def test_the_newest_kernel_has_the_highest_number():
    """50 is newer than 9; variants of the kernel are left out."""
    assert newest(PACKAGES, SERIES["6.1"].image) == "linux-image-6.1.0-50-amd64"


def test_no_matching_kernel_is_an_error():
    with pytest.raises(Unavailable, match=r"no package"):
        newest(["linux-image-amd64"], SERIES["6.1"].image)


@pytest.fixture
def keyring(tmp_path, monkeypatch):
    monkeypatch.setattr("debian_kernel.KEYRING", tmp_path)
    return tmp_path


def test_sources_are_the_machines_mirrors(keyring):
    """For another suite, from the machine's own mirrors; sources of other publishers are left out."""
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


def test_unstable_has_no_security_suite(keyring):
    targets = [
        "http://mirror.example/debian/ bookworm main",
        "http://mirror.example/debian-security/ bookworm-security main",
    ]

    assert sources(targets, "bookworm", "sid", security=False).splitlines() == [
        f"deb [arch=amd64 signed-by={keyring}] http://mirror.example/debian/ sid main",
    ]


def test_a_kernel_may_be_in_several_packages():
    """Unstable's image package has only the kernel; modules have packages of their own."""
    image = "linux-binary-7.2.13+deb14-amd64"

    assert newest(["linux-binary-7.2.9+deb14-amd64", image, f"{image}-dbg"], SERIES["7.2"].image) == image
    assert packages_of(SERIES["7.2"], image) == [
        image, "linux-base-7.2.13+deb14-amd64", "linux-modules-7.2.13+deb14-amd64",
    ]  # fmt: skip
    assert packages_of(SERIES["6.1"], "linux-image-6.1.0-50-amd64") == ["linux-image-6.1.0-50-amd64"]


def test_a_kernel_next_to_its_modules_is_moved_to_boot(tmp_path):
    """All other kernels are there, and virtme-ng expects it."""
    modules = tmp_path / "usr/lib/modules/7.2.13+deb14-amd64"
    modules.mkdir(parents=True)
    for name in ("vmlinuz", "config"):
        (modules / name).write_text(name)

    arrange(tmp_path)

    assert release(tmp_path) == "7.2.13+deb14-amd64"
    assert (tmp_path / "boot/config-7.2.13+deb14-amd64").read_text() == "config"
    assert (tmp_path / "lib/modules/7.2.13+deb14-amd64").is_dir()


@pytest.mark.usefixtures("keyring")
def test_other_distributions_are_refused():
    with pytest.raises(Unavailable, match=r"Debian mirror"):
        sources(["http://mirror.example/ubuntu/ noble main"], "noble", "bookworm")
