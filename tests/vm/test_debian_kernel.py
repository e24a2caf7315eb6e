"""Which package is taken, and from where."""

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


def test_a_suite_without_security_updates(keyring):
    """Unstable has no security suite."""
    targets = [
        "http://mirror.example/debian/ bookworm main",
        "http://mirror.example/debian-security/ bookworm-security main",
    ]

    assert sources(targets, "bookworm", "sid", security=False).splitlines() == [
        f"deb [arch=amd64 signed-by={keyring}] http://mirror.example/debian/ sid main",
    ]


def test_a_kernel_in_several_packages():
    """Unstable's image has the kernel only; the others have one package each."""
    image = "linux-binary-7.2.13+deb14-amd64"

    assert newest(["linux-binary-7.2.9+deb14-amd64", image, f"{image}-dbg"], SERIES["7.2"].image) == image
    assert packages_of(SERIES["7.2"], image) == [
        image, "linux-base-7.2.13+deb14-amd64", "linux-modules-7.2.13+deb14-amd64",
    ]  # fmt: skip
    assert packages_of(SERIES["6.1"], "linux-image-6.1.0-50-amd64") == ["linux-image-6.1.0-50-amd64"]


def test_a_kernel_beside_its_modules_is_put_into_boot(tmp_path):
    """Where all other kernels have it, and virtme-ng looks for it."""
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
